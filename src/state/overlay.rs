//! Writes of the engine that are not yet in the store.

use fjall::Slice;
use std::collections::{BTreeMap, btree_map};
use std::ops::Bound;
use walview_core::engine::{Page, Space};

/// Bytes that an entry costs beside its key and value.
const ENTRY_OVERHEAD_BYTES: usize = 64;

/// As fjall takes them: short ones need no allocation, and none is copied again.
type Entries = BTreeMap<Slice, Option<Slice>>;

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

    pub(super) fn take(
        &mut self,
    ) -> impl Iterator<Item = (Space, btree_map::IntoIter<Slice, Option<Slice>>)> + use<> {
        self.bytes = 0;
        let spaces = std::mem::take(&mut self.spaces);
        Space::ALL.into_iter().zip(spaces.map(IntoIterator::into_iter))
    }

    /// Merges what is stored (in key order) with what is held, the latter winning.
    pub(super) fn merge<E>(
        &self,
        space: Space,
        prefix: &[u8],
        from: Bound<Vec<u8>>,
        limit: usize,
        stored: &mut dyn Iterator<Item = Result<(Vec<u8>, Vec<u8>), E>>,
    ) -> Result<Page, E> {
        let mut page = Page::new();
        let mut held = self
            .spaces
            .get(space as usize)
            .into_iter()
            .flat_map(|entries| {
                entries.range::<[u8], _>((from.as_ref().map(Vec::as_slice), Bound::Unbounded))
            })
            .take_while(|(key, _)| key.starts_with(prefix))
            .peekable();
        let mut stored = stored.peekable();
        while page.len() < limit {
            let stored_key = match stored.peek() {
                Some(Ok((key, _))) => Some(key.as_slice()),
                Some(Err(_)) => match stored.next() {
                    Some(Err(error)) => return Err(error),
                    _ => None,
                },
                None => None,
            };
            let held_key = held.peek().map(|(key, _)| &key[..]);
            let held_first = match (stored_key, held_key) {
                (None, None) => break,
                (Some(_), None) => false,
                (None, Some(_)) => true,
                (Some(stored), Some(held)) => held <= stored,
            };
            if !held_first {
                if let Some(Ok(entry)) = stored.next() {
                    page.push(entry);
                }
                continue;
            }
            if stored_key == held_key {
                stored.next();
            }
            if let Some((key, Some(value))) = held.next() {
                page.push((key.to_vec(), value.to_vec()));
            }
        }
        Ok(page)
    }
}
