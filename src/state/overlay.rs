//! Writes of the engine that are not yet in the store, or on their way.
//!
//! ```text
//!  by_key ── hash ──► entries (in the order of their first write) ──► bytes: … key, value, …
//!  sorted ─────────────────┘  what a scan or a run needs, made when one comes
//! ```
//!
//! Most keys are written once and never scanned before they are committed: a tree that is always in
//! order cost an insert 5 to 7 % more.

use super::outbox::lock;
use fjall::Slice;
use foldhash::fast::RandomState;
use hashbrown::HashTable;
use std::hash::BuildHasher as _;
use std::ops::Bound;
use std::sync::{Arc, Mutex};
use walview_core::engine::Space;

/// Bytes that an entry costs beside its key and value.
const ENTRY_OVERHEAD_BYTES: usize = 96;
/// Entries behind the sorted ones that a scan looks through one by one.
const UNSORTED_MAX: usize = 256;

/// The last write of each key; `None` is a delete.
#[derive(Default)]
pub(super) struct Overlay {
    spaces: [Entries; Space::ALL.len()],
    bytes: usize,
}

/// The writes of a space.
#[derive(Default)]
pub(super) struct Entries {
    /// Of keys and values; what was overwritten is among them.
    bytes: Vec<u8>,
    entries: Vec<Entry>,
    /// Indexes into `entries`.
    by_key: HashTable<usize>,
    hash: RandomState,
    /// The first so many of `entries` in the order of keys, each by the front of its key.
    sorted: Mutex<Arc<Vec<(u128, usize)>>>,
}

#[derive(Clone, Copy)]
struct Entry {
    key: Place,
    value: Option<Place>,
}

/// In the bytes.
#[derive(Clone, Copy)]
struct Place {
    from: usize,
    to: usize,
}

impl Place {
    fn append(bytes: &mut Vec<u8>, piece: &[u8]) -> Self {
        let from = bytes.len();
        bytes.extend_from_slice(piece);
        Self { from, to: bytes.len() }
    }

    fn of(self, bytes: &[u8]) -> &[u8] {
        bytes.get(self.from..self.to).unwrap_or_default()
    }
}

impl Entries {
    fn next(&self) -> Self {
        Self {
            bytes: Vec::with_capacity(self.bytes.len()),
            entries: Vec::with_capacity(self.entries.len()),
            by_key: HashTable::with_capacity(self.entries.len()),
            ..Self::default()
        }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    fn key(&self, index: usize) -> &[u8] {
        self.entries.get(index).map_or(&[], |entry| entry.key.of(&self.bytes))
    }

    fn pair(&self, entry: &Entry) -> (&[u8], Option<&[u8]>) {
        (entry.key.of(&self.bytes), entry.value.map(|value| value.of(&self.bytes)))
    }

    fn find(&self, hash: u64, key: &[u8]) -> Option<usize> {
        self.by_key.find(hash, |index| self.key(*index) == key).copied()
    }

    fn get(&self, key: &[u8]) -> Option<Option<&[u8]>> {
        let entry = self.entries.get(self.find(self.hash.hash_one(key), key)?)?;
        Some(entry.value.map(|value| value.of(&self.bytes)))
    }

    /// Returns whether the key is new.
    fn put(&mut self, key: &[u8], value: Option<&[u8]>) -> bool {
        let hash = self.hash.hash_one(key);
        let known = self.find(hash, key);
        let (bytes, entries) = (&mut self.bytes, &mut self.entries);
        if let Some(entry) = known.and_then(|index| entries.get_mut(index)) {
            entry.value = value.map(|value| Place::append(bytes, value));
            return false;
        }
        let entry = Entry {
            key: Place::append(bytes, key),
            value: value.map(|value| Place::append(bytes, value)),
        };
        let index = entries.len();
        entries.push(entry);
        let of = |index: &usize| {
            let key = entries.get(*index).map_or(&[][..], |entry| entry.key.of(bytes));
            self.hash.hash_one(key)
        };
        self.by_key.insert_unique(hash, index, of);
        true
    }

    /// All writes, in the order in which their keys came.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        self.entries.iter().map(|entry| self.pair(entry))
    }

    /// All writes, in the order of keys.
    pub(super) fn in_order(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        let sorted = {
            let mut sorted = lock(&self.sorted);
            self.sort(&mut sorted);
            Arc::clone(&sorted)
        };
        let order = (0..sorted.len()).filter_map(move |at| sorted.get(at).copied());
        order.filter_map(|(_, index)| Some(self.pair(self.entries.get(index)?)))
    }

    fn sort(&self, sorted: &mut Arc<Vec<(u128, usize)>>) {
        let left = sorted.len()..self.entries.len();
        if !left.is_empty() {
            let sorted = Arc::make_mut(sorted);
            sorted.extend(left.map(|index| (front(self.key(index)), index)));
            // Stable sorting makes use of what is in order already.
            sorted.sort_by(|(a, left), (b, right)| {
                a.cmp(b).then_with(|| self.key(*left).cmp(self.key(*right)))
            });
        }
    }

    /// The writes of keys that start with `prefix`, from `from` on, in order.
    fn range(&self, prefix: &[u8], from: &Bound<Vec<u8>>) -> Vec<(Slice, Option<Slice>)> {
        let mut sorted = lock(&self.sorted);
        if self.entries.len() - sorted.len() > UNSORTED_MAX {
            self.sort(&mut sorted);
        }
        let is_before = |key: &[u8]| match from {
            Bound::Included(from) => key < from.as_slice(),
            Bound::Excluded(from) => key <= from.as_slice(),
            Bound::Unbounded => false,
        };
        let first = sorted.partition_point(|(_, index)| is_before(self.key(*index)));
        let behind = sorted.get(first..).unwrap_or_default().iter().map(|(_, index)| *index);
        let mut found: Vec<usize> =
            behind.take_while(|index| self.key(*index).starts_with(prefix)).collect();
        let unsorted = found.len();
        found.extend((sorted.len()..self.entries.len()).filter(|index| {
            let key = self.key(*index);
            key.starts_with(prefix) && !is_before(key)
        }));
        if found.len() > unsorted {
            found.sort_by(|left, right| self.key(*left).cmp(self.key(*right)));
        }
        let pairs = found.into_iter().filter_map(|index| Some(self.pair(self.entries.get(index)?)));
        pairs.map(|(key, value)| (key.into(), value.map(Slice::from))).collect()
    }
}

/// The first bytes of a key: they sort as keys do, but for keys that begin alike.
fn front(key: &[u8]) -> u128 {
    let mut front = [0; size_of::<u128>()];
    for (to, from) in front.iter_mut().zip(key) {
        *to = *from;
    }
    u128::from_be_bytes(front)
}

impl Overlay {
    /// An empty one with room for as much as this one holds: what comes is seldom much less, and to grow
    /// by doubling copied every entry twice.
    pub(super) fn next(&self) -> Self {
        Self { spaces: self.spaces.each_ref().map(Entries::next), bytes: 0 }
    }

    fn space(&self, space: Space) -> Option<&Entries> {
        self.spaces.get(space as usize)
    }

    pub(super) fn get(&self, space: Space, key: &[u8]) -> Option<Option<&[u8]>> {
        self.space(space)?.get(key)
    }

    pub(super) fn put(&mut self, space: Space, key: &[u8], value: Option<&[u8]>) {
        let Some(entries) = self.spaces.get_mut(space as usize) else {
            return;
        };
        self.bytes += value.map_or(0, <[u8]>::len);
        if entries.put(key, value) {
            self.bytes += key.len() + ENTRY_OVERHEAD_BYTES;
        }
    }

    /// An upper bound of what is held.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The writes by space.
    pub(super) fn entries(&self) -> impl Iterator<Item = (Space, &Entries)> {
        Space::ALL.into_iter().zip(&self.spaces)
    }

    /// The writes of keys that start with `prefix`, from `from` on, in order.
    pub(super) fn range(
        &self,
        space: Space,
        prefix: &[u8],
        from: &Bound<Vec<u8>>,
    ) -> impl Iterator<Item = (Slice, Option<Slice>)> {
        let entries = self.space(space).filter(|entries| !entries.entries.is_empty());
        entries.map(|entries| entries.range(prefix, from)).into_iter().flatten()
    }
}

/// Merges `stored` (in the order of keys) with the writes over it, the latter winning.
pub(super) fn merge<E>(
    written: impl Iterator<Item = (Slice, Option<Slice>)>,
    stored: impl Iterator<Item = Result<(Vec<u8>, Vec<u8>), E>>,
) -> impl Iterator<Item = Result<(Vec<u8>, Vec<u8>), E>> {
    let mut written = written.peekable();
    let mut stored = stored.peekable();
    std::iter::from_fn(move || {
        loop {
            let stored_key = match stored.peek() {
                Some(Ok((key, _))) => Some(key.as_slice()),
                Some(Err(_)) => return stored.next(),
                None => None,
            };
            let written_key = written.peek().map(|(key, _)| &key[..]);
            let written_first = match (stored_key, written_key) {
                (_, None) => false,
                (None, Some(_)) => true,
                (Some(stored), Some(written)) => written <= stored,
            };
            if !written_first {
                return stored.next();
            }
            if stored_key == written_key {
                stored.next();
            }
            if let Some((key, Some(value))) = written.next() {
                return Some(Ok((key.to_vec(), value.to_vec())));
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn keys() -> impl Strategy<Value = Vec<u8>> {
        // Of few letters, 0 among them, so that keys begin alike and come again, some of them behind
        // more than sorts at once.
        let long = prop::collection::vec(0..2_u8, 14..20);
        prop_oneof![prop::collection::vec(0..3_u8, 0..7), long]
    }

    type Write = (Vec<u8>, Option<Vec<u8>>);

    proptest! {
        /// As a map in order does, whenever it is scanned.
        #[test]
        fn scans_and_reads_see_the_last_writes(
            writes in prop::collection::vec((keys(), prop::option::of(keys())), 0..900),
            scans in prop::collection::vec((0..900_usize, keys(), keys(), any::<bool>()), 1..12),
        ) {
            let (mut overlay, mut model) = (Overlay::default(), BTreeMap::new());
            for at in 0..=writes.len() {
                for (_, prefix, after, excluded) in scans.iter().filter(|scan| scan.0 == at) {
                    let prefix = prefix.get(..2.min(prefix.len())).unwrap_or_default();
                    let after = [prefix, after].concat();
                    let from = if *excluded { Bound::Excluded(after) } else { Bound::Included(after) };
                    let found = overlay.range(Space::Reverse, prefix, &from);
                    let found: Vec<Write> = found
                        .map(|(key, value)| (key.to_vec(), value.map(|value| value.to_vec())))
                        .collect();
                    let expected: Vec<Write> = model
                        .range((from, Bound::Unbounded))
                        .take_while(|(key, _): &(&Vec<u8>, _)| key.starts_with(prefix))
                        .map(|(key, value): (_, &Option<Vec<u8>>)| (key.clone(), value.clone()))
                        .collect();
                    prop_assert_eq!(found, expected);
                    prop_assert_eq!(overlay.range(Space::Rows, prefix, &Bound::Unbounded).count(), 0);
                }
                if let Some((key, value)) = writes.get(at) {
                    overlay.put(Space::Reverse, key, value.as_deref());
                    model.insert(key.clone(), value.clone());
                    let read = overlay.get(Space::Reverse, key);
                    prop_assert_eq!(read, Some(value.as_deref()));
                    prop_assert_eq!(overlay.get(Space::Rows, key), None);
                }
            }
            for (key, value) in &model {
                prop_assert_eq!(overlay.get(Space::Reverse, key), Some(value.as_deref()));
            }
            for (space, entries) in overlay.entries() {
                let held = entries.in_order().map(|(key, value)| (key.to_vec(), value.map(<[u8]>::to_vec)));
                let held: Vec<Write> = held.collect();
                let expected = if space == Space::Reverse { model.clone() } else { BTreeMap::new() };
                prop_assert_eq!(held, expected.into_iter().collect::<Vec<Write>>());
                prop_assert_eq!(entries.iter().count(), entries.len());
            }
        }
    }
}
