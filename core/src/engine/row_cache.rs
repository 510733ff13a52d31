//! Decoded rows of joined tables, so that a hundred facts of one dimension row read it once.
//!
//! Two generations: what is used moves to the young one; when that is full the old one is
//! forgotten. Invariant: a row that is replaced is removed first, so what is here is what the state
//! has. Nothing that is emitted depends on what is cached.

use crate::value::Row;
use std::collections::HashMap;
use std::sync::Arc;

/// Of both generations, about.
const CACHE_BYTES: usize = 8 << 20;
/// What a row weighs in memory: this much, and three times its encoding.
const ROW_OVERHEAD_BYTES: usize = 200;

#[derive(Default)]
pub(super) struct RowCache {
    tables: Vec<(u32, Generations)>,
    /// Of all young generations.
    young_bytes: usize,
}

#[derive(Default)]
struct Generations {
    young: HashMap<Vec<u8>, Cached>,
    old: HashMap<Vec<u8>, Cached>,
}

struct Cached {
    row: Arc<Row>,
    bytes: usize,
}

impl RowCache {
    fn table(&mut self, oid: u32) -> Option<&mut Generations> {
        self.tables.iter_mut().find(|(of, _)| *of == oid).map(|(_, generations)| generations)
    }

    pub(super) fn get(&mut self, oid: u32, identity: &[u8]) -> Option<Arc<Row>> {
        let generations = self.table(oid)?;
        if let Some(cached) = generations.young.get(identity) {
            return Some(Arc::clone(&cached.row));
        }
        let (key, cached) = generations.old.remove_entry(identity)?;
        let row = Arc::clone(&cached.row);
        self.insert(oid, key, cached);
        Some(row)
    }

    /// `encoded` is how many bytes the state keeps for the row.
    pub(super) fn put(&mut self, oid: u32, identity: &[u8], row: Arc<Row>, encoded: usize) {
        let bytes = 3 * encoded + identity.len() + ROW_OVERHEAD_BYTES;
        self.insert(oid, identity.to_vec(), Cached { row, bytes });
    }

    fn insert(&mut self, oid: u32, identity: Vec<u8>, cached: Cached) {
        self.young_bytes += cached.bytes;
        if self.table(oid).is_none() {
            self.tables.push((oid, Generations::default()));
        }
        if let Some(generations) = self.table(oid)
            && let Some(known) = generations.young.insert(identity, cached)
        {
            self.young_bytes -= known.bytes;
        }
        if self.young_bytes >= CACHE_BYTES / 2 {
            self.young_bytes = 0;
            for (_, generations) in &mut self.tables {
                generations.old = std::mem::take(&mut generations.young);
            }
        }
    }

    pub(super) fn remove(&mut self, oid: u32, identity: &[u8]) {
        let Some(generations) = self.table(oid) else { return };
        generations.old.remove(identity);
        let young = generations.young.remove(identity);
        self.young_bytes -= young.map_or(0, |cached| cached.bytes);
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::Value;

    fn row(number: i64) -> Arc<Row> {
        Arc::new(vec![Value::Int(number)])
    }

    #[test]
    fn what_is_used_stays_and_memory_is_bounded() {
        let mut cache = RowCache::default();
        let large = CACHE_BYTES / 60;
        cache.put(1, b"used", row(0), 10);
        for number in 0..200_u8 {
            cache.put(2, &[number], row(number.into()), large);
            assert_eq!(cache.get(1, b"used"), Some(row(0)));
            let held: usize = cache
                .tables
                .iter()
                .flat_map(|(_, of)| of.young.values().chain(of.old.values()))
                .map(|cached| cached.bytes)
                .sum();
            assert!(held <= CACHE_BYTES + 4 * large, "{held}");
        }
        assert_eq!(cache.get(2, &[0]), None);
        assert_eq!(cache.get(2, &[199]), Some(row(199)));
        cache.remove(2, &[199]);
        assert_eq!(cache.get(2, &[199]), None);
        assert_eq!(cache.get(1, &[198]), None, "another table");
    }
}
