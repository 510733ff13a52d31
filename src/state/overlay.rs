//! Writes of the engine that are not yet in the store, or on their way.

use fjall::Slice;
use std::collections::BTreeMap;
use std::ops::Bound;
use walview_core::engine::Space;

/// Bytes that an entry costs beside its key and value.
const ENTRY_OVERHEAD_BYTES: usize = 64;

/// In fjall's slices: short ones need no allocation.
pub(super) type Entries = BTreeMap<Slice, Option<Slice>>;

/// The last write of each key; `None` is a delete.
#[derive(Default)]
pub(super) struct Overlay {
    spaces: [Entries; Space::ALL.len()],
    bytes: usize,
}

impl Overlay {
    pub(super) fn get(&self, space: Space, key: &[u8]) -> Option<Option<&[u8]>> {
        self.spaces.get(space as usize)?.get(key).map(Option::as_deref)
    }

    pub(super) fn put(&mut self, space: Space, key: &[u8], value: Option<&[u8]>) {
        let Some(entries) = self.spaces.get_mut(space as usize) else {
            return;
        };
        self.bytes += value.map_or(0, <[u8]>::len);
        if entries.insert(Slice::from(key), value.map(Slice::from)).is_none() {
            self.bytes += key.len() + ENTRY_OVERHEAD_BYTES;
        }
    }

    /// An upper bound of what is held.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The writes by space, each in the order of keys.
    pub(super) fn entries(&self) -> impl Iterator<Item = (Space, &Entries)> {
        Space::ALL.into_iter().zip(&self.spaces)
    }

    /// The writes of keys that start with `prefix`, from `from` on, in order.
    pub(super) fn range<'a>(
        &'a self,
        space: Space,
        prefix: &'a [u8],
        from: &'a Bound<Vec<u8>>,
    ) -> impl Iterator<Item = (Slice, Option<Slice>)> {
        let from = from.as_ref().map(Vec::as_slice);
        let entries = self.spaces.get(space as usize).into_iter();
        entries
            .flat_map(move |entries| entries.range::<[u8], _>((from, Bound::Unbounded)))
            .take_while(move |(key, _)| key.starts_with(prefix))
            .map(|(key, value)| (key.clone(), value.clone()))
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
