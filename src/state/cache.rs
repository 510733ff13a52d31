//! Entries that were read by key, in bounded memory: one in a block that fjall caches must still be
//! found and copied, 1.4 µs; a look in here is 0.06 (`cargo bench --bench parts`).
//!
//! Invariant: an entry is as it was last written to the store. Nothing that is emitted depends on what
//! is cached.

use fjall::Slice;
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use walview_core::engine::Space;

/// Keys and values of both caches, about.
const CACHE_BYTES: u64 = 24 << 20;
/// What an entry takes beside its key and value.
const ENTRY_OVERHEAD_BYTES: usize = 100;
/// Of a typical entry, with what it takes beside.
const ENTRY_BYTES: u64 = 160;

#[derive(Clone)]
struct Bytes;

impl Weighter<Slice, Slice> for Bytes {
    fn weight(&self, key: &Slice, value: &Slice) -> u64 {
        u64::try_from(key.len() + value.len() + ENTRY_OVERHEAD_BYTES).unwrap_or(u64::MAX)
    }
}

/// Of the spaces that are read by key again and again: rows and groups.
pub(super) struct ReadCache {
    rows: Cache<Slice, Slice, Bytes>,
    groups: Cache<Slice, Slice, Bytes>,
}

impl Default for ReadCache {
    fn default() -> Self {
        let half = CACHE_BYTES / 2;
        let items = usize::try_from(half / ENTRY_BYTES).unwrap_or(usize::MAX);
        let cache = || Cache::with_weighter(items, half, Bytes);
        Self { rows: cache(), groups: cache() }
    }
}

impl ReadCache {
    fn of(&self, space: Space) -> Option<&Cache<Slice, Slice, Bytes>> {
        match space {
            Space::Rows => Some(&self.rows),
            Space::Groups => Some(&self.groups),
            Space::Lookups | Space::Reverse | Space::DeadLetters | Space::FanOuts => None,
        }
    }

    pub(super) fn get(&self, space: Space, key: &[u8]) -> Option<Slice> {
        self.of(space)?.get(key)
    }

    /// Takes in what was read. `value` is copied: it may be a part of a whole block.
    pub(super) fn put(&self, space: Space, key: &[u8], value: &[u8]) {
        if let Some(cache) = self.of(space) {
            cache.insert(key.into(), value.into());
        }
    }

    /// Follows a write, where the entry is here.
    pub(super) fn written(&self, space: Space, key: &[u8], value: Option<&[u8]>) {
        let Some(cache) = self.of(space).filter(|cache| cache.contains_key(key)) else { return };
        match value {
            // What is no longer here is handed back.
            Some(value) => drop(cache.replace(key.into(), value.into(), true)),
            None => drop(cache.remove(key)),
        }
    }

    pub(super) fn clear(&self) {
        self.rows.clear();
        self.groups.clear();
    }
}
