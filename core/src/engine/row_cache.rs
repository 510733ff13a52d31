//! Rows of joined tables in memory, so that facts that join a hundred thousand rows at random
//! seldom ask the state.
//!
//! ```text
//!  identity ── hash ──► slots (a bucket of four) ── offset ──► bytes: … | oid, identity, row | …
//! ```
//!
//! Rows stand encoded, one behind the other, with the columns alone that views read through joins:
//! an entry needs no memory of its own and no pointers. The one that was found last in each table is
//! there decoded, too: several views ask for it in turn.
//!
//! Two generations: what is used moves to the young one; when that is full the old one is
//! forgotten. Invariant: a row that is replaced is removed first, so what is here is what the state
//! has. Nothing that is emitted depends on what is cached, nor on the hash: keys that collide, even
//! by intent, push each other out of their bucket and cost reads of the state, no long search.

use super::layout::Layout;
use crate::value::{Row, Value, row};
use foldhash::fast::FixedState;
use std::collections::BTreeSet;
use std::hash::{BuildHasher as _, Hasher as _};
use std::sync::Arc;

/// Entries of one generation.
const GENERATION_BYTES: usize = 4 << 20;
/// A row that takes more is remembered until the next one only.
const ENTRY_BYTES_MAX: usize = GENERATION_BYTES / 16;
/// Places where an entry may stand.
const WAYS: usize = 4;
/// Of a slot: one more than the offset of an entry, 0 for none. Above them stands a part of the hash, so
/// that seldom another entry than the one that is looked for is read: each is a miss of the processor's
/// caches.
const OFFSET_BITS: u32 = GENERATION_BYTES.ilog2();
const OFFSET_MASK: u32 = (1 << OFFSET_BITS) - 1;
/// Of four bytes each.
const SLOTS_MIN: usize = 1 << 8;
const SLOTS_MAX: usize = 1 << 18;
/// Lengths of identity and row, the table's oid.
const HEAD_BYTES: usize = 12;

/// By default a cache of no table, which keeps nothing.
#[derive(Default)]
pub(super) struct RowCache {
    tables: Vec<Joined>,
    young: Generation,
    old: Generation,
    encoded: Vec<u8>,
}

/// A table that views join.
struct Joined {
    oid: u32,
    /// The columns that they read.
    columns: BTreeSet<usize>,
    /// What was found last.
    recent: Option<(Vec<u8>, Arc<Row>)>,
}

#[derive(Default)]
struct Generation {
    bytes: Vec<u8>,
    slots: Vec<u32>,
    entries: usize,
}

/// A row's table and identity.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Key<'a> {
    oid: u32,
    identity: &'a [u8],
}

impl Key<'_> {
    fn hash(self) -> u64 {
        let mut hasher = FixedState::default().build_hasher();
        hasher.write_u32(self.oid);
        hasher.write(self.identity);
        hasher.finish()
    }
}

impl RowCache {
    pub(super) fn new(layout: &Layout) -> Self {
        let mut tables: Vec<Joined> = Vec::new();
        for view in &layout.views {
            for (input, relevant) in view.inputs.iter().zip(&view.relevant) {
                let Some(table) = layout.tables.get(input.table) else { continue };
                if input.join.is_none() {
                    continue;
                }
                let known = joined(&mut tables, table.oid);
                if let Some(joined) = known {
                    joined.columns.extend(relevant);
                } else {
                    let columns = relevant.iter().copied().collect();
                    tables.push(Joined { oid: table.oid, columns, recent: None });
                }
            }
        }
        Self { tables, ..Self::default() }
    }

    /// The row, as far as views read it through joins.
    pub(super) fn get(&mut self, oid: u32, identity: &[u8]) -> Option<Arc<Row>> {
        let joined = joined(&mut self.tables, oid)?;
        if let Some((of, row)) = &joined.recent
            && of.as_slice() == identity
        {
            return Some(Arc::clone(row));
        }
        let key = Key { oid, identity };
        let hash = key.hash();
        let found = if let Some(encoded) = self.young.get(hash, key) {
            row::decode_row(encoded).ok()?
        } else {
            let encoded = self.old.get(hash, key)?;
            let row = row::decode_row(encoded).ok()?;
            self.young.put(hash, key, encoded);
            row
        };
        let found = Arc::new(found);
        joined.remember(identity, &found);
        self.turn();
        Some(found)
    }

    pub(super) fn put(&mut self, oid: u32, identity: &[u8], row: &Arc<Row>) {
        let Some(joined) = joined(&mut self.tables, oid) else {
            return;
        };
        joined.remember(identity, row);
        let encoded = &mut self.encoded;
        encoded.clear();
        let len = joined.columns.last().map_or(0, |last| last + 1);
        row::encode_len(len, encoded);
        for column in 0..len {
            let value = row.get(column).filter(|_| joined.columns.contains(&column));
            row::encode_value(value.unwrap_or(&Value::Null), encoded);
        }
        if HEAD_BYTES + identity.len() + encoded.len() <= ENTRY_BYTES_MAX {
            let key = Key { oid, identity };
            self.young.put(key.hash(), key, encoded);
            self.turn();
        }
    }

    /// Forgets the old generation, where the young one is full.
    fn turn(&mut self) {
        if self.young.bytes.len() > GENERATION_BYTES - ENTRY_BYTES_MAX {
            std::mem::swap(&mut self.old, &mut self.young);
            self.young.clear();
        }
    }

    pub(super) fn remove(&mut self, oid: u32, identity: &[u8]) {
        let Some(joined) = joined(&mut self.tables, oid) else {
            return;
        };
        joined.recent.take_if(|(of, _)| of.as_slice() == identity);
        let key = Key { oid, identity };
        let hash = key.hash();
        for generation in [&mut self.young, &mut self.old] {
            while let Some(slot) = generation.slot(hash, key) {
                *slot = 0;
            }
        }
    }

    pub(super) fn clear(&mut self) {
        for joined in &mut self.tables {
            joined.recent = None;
        }
        self.young.clear();
        self.old.clear();
    }
}

/// Beside the borrows of the generations.
fn joined(tables: &mut [Joined], oid: u32) -> Option<&mut Joined> {
    tables.iter_mut().find(|joined| joined.oid == oid)
}

impl Joined {
    fn remember(&mut self, identity: &[u8], row: &Arc<Row>) {
        let (of, known) = self.recent.get_or_insert_with(|| (Vec::new(), Arc::clone(row)));
        of.clear();
        of.extend_from_slice(identity);
        *known = Arc::clone(row);
    }
}

/// The upper bits of a hash, where a slot has room for them; the lower ones choose the bucket.
fn tag(hash: u64) -> u32 {
    u32::try_from(hash >> 32).unwrap_or(0) & !OFFSET_MASK
}

/// Whether a slot may be that of a key with this hash.
fn is_tagged(slot: u32, hash: u64) -> bool {
    slot & !OFFSET_MASK == tag(hash)
}

impl Generation {
    fn bucket(&self, hash: u64) -> std::ops::Range<usize> {
        let buckets = (self.slots.len() / WAYS).max(1) as u64;
        let first = usize::try_from(hash % buckets).unwrap_or(0) * WAYS;
        first..first + WAYS
    }

    /// The key and the row of the entry that a slot points to.
    fn entry(&self, slot: u32) -> Option<(Key<'_>, &[u8])> {
        let offset = usize::try_from(slot & OFFSET_MASK).ok()?.checked_sub(1)?;
        let mut rest = self.bytes.get(offset..)?;
        let mut head = || {
            let (head, after) = rest.split_first_chunk()?;
            rest = after;
            Some(u32::from_le_bytes(*head))
        };
        let (oid, identity, row) = (head()?, head()?, head()?);
        let (identity, rest) = rest.split_at_checked(usize::try_from(identity).ok()?)?;
        Some((Key { oid, identity }, rest.get(..usize::try_from(row).ok()?)?))
    }

    fn get(&self, hash: u64, key: Key<'_>) -> Option<&[u8]> {
        let bucket = self.slots.get(self.bucket(hash))?;
        let alike = bucket.iter().filter(|slot| is_tagged(**slot, hash));
        let mut entries = alike.filter_map(|slot| self.entry(*slot));
        entries.find(|(of, _)| *of == key).map(|(_, row)| row)
    }

    /// Where the entry of a key is pointed to from.
    fn slot(&mut self, hash: u64, key: Key<'_>) -> Option<&mut u32> {
        let bucket = self.bucket(hash);
        let is = |slot: &u32| {
            is_tagged(*slot, hash) && self.entry(*slot).is_some_and(|(of, _)| of == key)
        };
        let at = bucket.start + self.slots.get(bucket)?.iter().position(is)?;
        self.slots.get_mut(at)
    }

    /// Takes in an entry that is not there.
    fn put(&mut self, hash: u64, key: Key<'_>, row: &[u8]) {
        let lengths = (u32::try_from(key.identity.len()), u32::try_from(row.len()));
        let (Ok(identity), Ok(len), Ok(offset @ 0..=OFFSET_MASK)) =
            (lengths.0, lengths.1, u32::try_from(self.bytes.len() + 1))
        else {
            return;
        };
        let slot = tag(hash) | offset;
        for head in [key.oid, identity, len] {
            self.bytes.extend_from_slice(&head.to_le_bytes());
        }
        self.bytes.extend_from_slice(key.identity);
        self.bytes.extend_from_slice(row);
        self.entries += 1;
        if 4 * self.entries > self.slots.len() && self.slots.len() < SLOTS_MAX {
            let more = (4 * self.slots.len()).max(SLOTS_MIN);
            for known in std::mem::replace(&mut self.slots, vec![0; more]) {
                if let Some((key, _)) = self.entry(known) {
                    let hash = key.hash();
                    self.place(hash, known);
                }
            }
        }
        self.place(hash, slot);
    }

    /// In the place of nothing, or of the oldest of the bucket.
    fn place(&mut self, hash: u64, slot: u32) {
        let bucket = self.bucket(hash);
        let places = self.slots.get_mut(bucket).unwrap_or_default();
        if let Some(oldest) = places.iter_mut().min_by_key(|slot| **slot & OFFSET_MASK) {
            *oldest = slot;
        }
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.slots.fill(0);
        self.entries = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(columns: &[usize]) -> RowCache {
        let joined = |oid| Joined { oid, columns: columns.iter().copied().collect(), recent: None };
        RowCache { tables: vec![joined(1), joined(2)], ..RowCache::default() }
    }

    fn row(number: u32, len: usize) -> Arc<Row> {
        Arc::new(vec![Value::Int(number.into()), Value::Text("x".repeat(len).into())])
    }

    #[test]
    fn what_is_used_stays_and_memory_is_bounded() {
        let mut cache = cache(&[0, 1]);
        let used = row(7, 3);
        cache.put(1, b"used", &used);
        let len = GENERATION_BYTES / 60;
        for number in 0..200_u32 {
            cache.put(2, &number.to_be_bytes(), &row(number, len));
            // Not the one that is remembered.
            cache.put(1, b"another", &row(8, 3));
            assert_eq!(cache.get(1, b"used"), Some(Arc::clone(&used)));
            let held = cache.young.bytes.len() + cache.old.bytes.len();
            assert!(held <= 2 * GENERATION_BYTES, "{held}");
        }
        assert_eq!(cache.get(2, &0_u32.to_be_bytes()), None);
        assert_eq!(cache.get(2, &199_u32.to_be_bytes()), Some(row(199, len)));
        cache.remove(2, &199_u32.to_be_bytes());
        assert_eq!(cache.get(2, &199_u32.to_be_bytes()), None);
        assert_eq!(cache.get(1, &198_u32.to_be_bytes()), None, "another table");
    }

    #[test]
    fn a_hundred_thousand_small_rows_are_there_and_each_can_go() {
        let mut cache = cache(&[0, 1]);
        for number in 0..100_000_u32 {
            cache.put(1, &number.to_be_bytes(), &row(number, 12));
        }
        let mut missing = 0;
        for number in 0..100_000_u32 {
            match cache.get(1, &number.to_be_bytes()) {
                None => missing += 1,
                Some(found) => assert_eq!(found, row(number, 12)),
            }
            if number % 2 == 0 {
                cache.remove(1, &number.to_be_bytes());
            }
        }
        assert!(missing < 3_000, "{missing} pushed out");
        for number in (0..100_000_u32).step_by(2) {
            assert_eq!(cache.get(1, &number.to_be_bytes()), None);
        }
    }

    #[test]
    fn keys_that_collide_push_each_other_out() {
        let mut generation = Generation::default();
        for number in 0..100_u32 {
            let identity = number.to_be_bytes();
            let key = Key { oid: 1, identity: &identity };
            generation.put(7, key, &identity);
            assert_eq!(generation.get(7, key), Some(&identity[..]));
        }
        let held = (0..100_u32).filter(|number| {
            let identity = number.to_be_bytes();
            generation.get(7, Key { oid: 1, identity: &identity }).is_some()
        });
        assert_eq!(held.collect::<Vec<_>>(), [96, 97, 98, 99]);
    }

    #[test]
    fn columns_that_no_join_reads_are_left_out() {
        let mut cache = cache(&[1]);
        cache.put(1, b"a", &row(7, 3));
        cache.put(1, b"b", &row(8, 3));
        let found = cache.get(1, b"a");
        assert_eq!(found, Some(Arc::new(vec![Value::Null, Value::Text("xxx".into())])));
        cache.put(3, b"a", &row(7, 3));
        assert_eq!(cache.get(3, b"a"), None, "a table that nothing joins");
        cache.clear();
        assert_eq!(cache.get(1, b"a"), None);
        assert_eq!(RowCache::default().get(1, b"a"), None);
    }
}
