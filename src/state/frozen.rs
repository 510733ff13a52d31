//! The state as of one local commit, for who reads while the engine goes on.
//!
//! A commit is one batch, so a frozen copy has rows, groups and [`Progress`] of the same moment:
//! the position that it stands at, and the number that the next record gets.

use super::{LocalStore, Progress, from_json};
use fjall::{Database, Keyspace, Readable as _, Snapshot};
use std::ops::Bound;
use walview_core::engine::{Page, ReadState, Space, StateError, prefix_end};

/// Makes frozen copies, from any thread.
#[derive(Clone)]
pub struct Freezer {
    db: Database,
    spaces: Vec<(Space, Keyspace)>,
    meta: Keyspace,
}

/// What it reads does not change. While it is held the local store keeps what it shows, so it
/// should not be held for long.
pub struct Frozen {
    snapshot: Snapshot,
    spaces: Vec<(Space, Keyspace)>,
    /// Of the same commit.
    pub progress: Progress,
}

impl LocalStore {
    #[must_use]
    pub fn freezer(&self) -> Freezer {
        Freezer { db: self.db.clone(), spaces: self.spaces.clone(), meta: self.meta.clone() }
    }
}

impl Freezer {
    /// The state as of the last local commit.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn freeze(&self) -> Result<Frozen, StateError> {
        let snapshot = self.db.snapshot();
        let bytes = snapshot.get(&self.meta, "progress").map_err(unreadable)?;
        let progress = bytes.map(|bytes| from_json(&bytes, "progress")).transpose()?;
        let progress = progress.unwrap_or_default();
        Ok(Frozen { snapshot, spaces: self.spaces.clone(), progress })
    }
}

impl Frozen {
    fn space(&self, space: Space) -> Result<&Keyspace, StateError> {
        let found = self.spaces.iter().find(|(known, _)| *known == space);
        found.map(|(_, keyspace)| keyspace).ok_or(StateError {
            message: format!("no key space \"{}\"", space.name()),
            source: None,
        })
    }
}

fn unreadable(source: fjall::Error) -> StateError {
    StateError { message: "cannot read a frozen copy".to_owned(), source: Some(Box::new(source)) }
}

impl ReadState for Frozen {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        let value = self.snapshot.get(self.space(space)?, key).map_err(unreadable)?;
        Ok(value.map(|value| value.to_vec()))
    }

    fn scan(
        &self,
        space: Space,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Page, StateError> {
        let from = match after {
            Some(after) => Bound::Excluded(after.to_vec()),
            None => Bound::Included(prefix.to_vec()),
        };
        let range = (from, prefix_end(prefix));
        let entries = self.snapshot.range::<Vec<u8>, _>(self.space(space)?, range);
        let pairs = entries.take(limit).map(|entry| {
            let (key, value) = entry.into_inner().map_err(unreadable)?;
            Ok((key.to_vec(), value.to_vec()))
        });
        pairs.collect()
    }
}
