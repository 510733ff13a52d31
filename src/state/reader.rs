//! The state as of its last commit, for whoever reads beside the engine.

use super::overlay::Overlay;
use super::{LocalStore, Space, StateError};
use fjall::{Database, Keyspace, Readable, Snapshot};
use std::ops::Bound;
use walview_core::engine::{Page, State};

/// A handle that other threads may keep. It keeps the folder in use, too.
#[derive(Clone)]
pub struct Reader {
    db: Database,
    spaces: Vec<(Space, Keyspace)>,
}

/// What was committed at one moment. Short-lived: it keeps old data from being removed.
pub struct Moment {
    snapshot: Snapshot,
    spaces: Vec<(Space, Keyspace)>,
    /// What is written here is seen here and never stored.
    scratch: Overlay,
}

impl LocalStore {
    #[must_use]
    pub fn reader(&self) -> Reader {
        Reader { db: self.db.clone(), spaces: self.spaces.clone() }
    }
}

impl Reader {
    #[must_use]
    pub fn moment(&self) -> Moment {
        let spaces = self.spaces.clone();
        Moment { snapshot: self.db.snapshot(), spaces, scratch: Overlay::default() }
    }
}

impl Moment {
    fn space(&self, space: Space) -> Result<&Keyspace, StateError> {
        let found = self.spaces.iter().find(|(known, _)| *known == space);
        found.map(|(_, keyspace)| keyspace).ok_or_else(|| StateError {
            message: format!("no key space \"{}\"", space.name()),
            source: None,
        })
    }
}

fn failed(error: fjall::Error) -> StateError {
    StateError { message: "cannot read the local store".to_owned(), source: Some(Box::new(error)) }
}

impl State for Moment {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        if let Some(written) = self.scratch.get(space, key) {
            return Ok(written.map(<[u8]>::to_vec));
        }
        let value = self.snapshot.get(self.space(space)?, key).map_err(failed)?;
        Ok(value.map(|value| value.to_vec()))
    }

    fn put(&mut self, space: Space, key: &[u8], value: &[u8]) {
        self.scratch.put(space, key, Some(value));
    }

    fn delete(&mut self, space: Space, key: &[u8]) {
        self.scratch.put(space, key, None);
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
        let mut stored = self
            .snapshot
            .range::<Vec<u8>, _>(self.space(space)?, (from.clone(), Bound::Unbounded))
            .map(fjall::Guard::into_inner)
            .take_while(|entry| match entry {
                Ok((key, _)) => key.starts_with(prefix),
                Err(_) => true,
            })
            .map(|entry| entry.map(|(key, value)| (key.to_vec(), value.to_vec())));
        self.scratch.merge(space, prefix, from, limit, &mut stored).map_err(failed)
    }
}
