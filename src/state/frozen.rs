//! The state as of one local commit, for who reads while the engine goes on.
//!
//! A commit's run and progress are taken over together, so a frozen copy has rows, groups and [`Progress`] of the same moment:
//! the position that it stands at, and the number that the next record gets.

use super::run::Wanted;
use super::tables::{PendingRun, Shared, Spaces, find, scan, space_of};
use super::{LocalStore, Progress, read_progress};
use fjall::{Database, Readable as _, Snapshot};
use walview_core::engine::{Page, ReadState, Space, StateError, scan_range};

/// Makes frozen copies, from any thread.
#[derive(Clone)]
pub struct Freezer {
    db: Database,
    spaces: Spaces,
    shared: Shared,
}

/// What it reads does not change. While it is held the local store keeps what it shows, so it
/// should not be held for long.
pub struct Frozen {
    runs: Vec<PendingRun>,
    snapshot: Snapshot,
    spaces: Spaces,
    /// Of the same commit.
    pub progress: Progress,
}

impl LocalStore {
    #[must_use]
    pub fn freezer(&self) -> Freezer {
        Freezer { db: self.db.clone(), spaces: self.spaces.clone(), shared: self.shared.clone() }
    }
}

impl Freezer {
    /// The state as of the last local commit.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn freeze(&self) -> Result<Frozen, StateError> {
        let pending = self.shared.read();
        let (runs, progress) = (pending.runs.clone(), read_progress(&pending.progress)?);
        // While the runs cannot leave for the tables.
        let snapshot = self.db.snapshot();
        drop(pending);
        Ok(Frozen { runs, snapshot, spaces: self.spaces.clone(), progress })
    }
}

fn unreadable(source: fjall::Error) -> StateError {
    StateError { message: "cannot read a frozen copy".to_owned(), source: Some(Box::new(source)) }
}

impl ReadState for Frozen {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        if let Some(value) = find(&self.runs, space, &Wanted::new(key)) {
            return Ok(value.map(<[u8]>::to_vec));
        }
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
        let (from, end) = scan_range(prefix, after);
        let range = (from.clone(), end);
        let stored = self.snapshot.range::<Vec<u8>, _>(space_of(&self.spaces, space)?, range);
        let entries = scan(&self.runs, space, prefix, &from, stored);
        entries.take(limit).collect::<Result<_, _>>().map_err(unreadable)
    }
}
