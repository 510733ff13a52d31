//! The state as of one local commit, for who reads while the engine goes on.
//!
//! A commit is one batch, so a frozen copy has rows, groups and [`Progress`] of the same moment:
//! the position that it stands at, and the number that the next record gets.

use super::{LocalStore, Progress, from_json, space_of};
use fjall::{Database, Keyspace, Readable as _, Snapshot};
use walview_core::engine::{Page, ReadState, Space, StateError, scan_range};

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
        let progress = bytes.map(|bytes| from_json(&bytes, "\"progress\"")).transpose()?;
        let progress = progress.unwrap_or_default();
        Ok(Frozen { snapshot, spaces: self.spaces.clone(), progress })
    }
}

fn unreadable(source: fjall::Error) -> StateError {
    StateError { message: "cannot read a frozen copy".to_owned(), source: Some(Box::new(source)) }
}

impl ReadState for Frozen {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        let value = self.snapshot.get(space_of(&self.spaces, space)?, key).map_err(unreadable)?;
        Ok(value.map(|value| value.to_vec()))
    }

    fn scan(
        &self,
        space: Space,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Page, StateError> {
        let range = scan_range(prefix, after);
        let entries = self.snapshot.range::<Vec<u8>, _>(space_of(&self.spaces, space)?, range);
        let pairs = entries.take(limit).map(|entry| {
            let (key, value) = entry.into_inner().map_err(unreadable)?;
            Ok((key.to_vec(), value.to_vec()))
        });
        pairs.collect()
    }
}
