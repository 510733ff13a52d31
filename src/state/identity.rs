//! Whose state a folder holds, and how far it has come.

use super::{LocalStore, from_json};
use serde::{Deserialize, Serialize};
use std::path::Path;
use walview_core::catalog::Catalog;
use walview_core::engine::{Partial, StateError};
use walview_core::position::{Lsn, Position};

/// The format of everything in the folder; another one is refused, never guessed at.
pub(super) const FORMAT: u32 = 5;

/// Who this state belongs to and what it was built from. Changes rarely, and only together with a
/// snapshot.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Identity {
    pub format: u32,
    pub pipeline: String,
    /// The pipeline file's canonical text: what the state's layout follows from.
    pub definition: String,
    pub catalog: Catalog,
    /// `pg_control_system().system_identifier`.
    pub system_identifier: String,
    pub timeline: u32,
    pub database_oid: u32,
    pub slot: String,
    pub epoch: u16,
    /// By store, in the pipeline's order.
    pub stores: Vec<String>,
    /// False while the first snapshot runs; such a state is thrown away on restart.
    pub live: bool,
    /// Tables of the user's own, with the column types that rows are encoded to. What a replay
    /// encodes must not follow an ALTER.
    #[serde(default)]
    pub adopted: Vec<AdoptedTable>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdoptedTable {
    /// The store's name.
    pub store: String,
    pub table: String,
    /// Column and type.
    pub types: Vec<(String, String)>,
}

impl Identity {
    #[must_use]
    pub const fn current_format() -> u32 {
        FORMAT
    }
}

/// How far the state has come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// End of the last commit that the state holds: what PostgreSQL may forget up to.
    pub confirmed: u64,
    /// Start of the last commit record that the state holds: what marks are compared with.
    pub commit_lsn: u64,
    pub committed_at: i64,
    /// A transaction that the state holds a part of: commit LSN, changes, ordinals by store.
    pub partial: Option<(u64, u64, Vec<u64>)>,
    /// By store: the sequence number that the next record gets.
    pub outbox_end: Vec<u64>,
    /// By store: the position up to which its records are no longer kept.
    pub pruned: Vec<String>,
    /// By store: bytes of operations that the outbox keeps for it, about.
    #[serde(default)]
    pub outbox_bytes: Vec<u64>,
    /// The last LSN between two commits at which an order stood, and the ordinals (by store) behind
    /// which the next one goes on there.
    #[serde(default)]
    pub ordered: Option<(u64, Vec<u64>)>,
    /// By view: why it stopped.
    pub stopped: Vec<Option<String>>,
    /// Tables that a TRUNCATE of the log emptied since the fingerprint was taken.
    #[serde(default)]
    pub truncated: Vec<u32>,
}

impl Progress {
    #[must_use]
    pub fn confirmed(&self) -> Lsn {
        Lsn(self.confirmed)
    }

    /// Of the last commit that the state holds whole.
    #[must_use]
    pub fn commit_lsn(&self) -> Lsn {
        Lsn(self.commit_lsn)
    }

    /// Where what the state emitted ends.
    #[must_use]
    pub fn emitted_to(&self, epoch: u16) -> Position {
        Position::end_of(epoch, Lsn(self.commit_lsn.max(self.ordered_lsn())))
    }

    /// Where the next order stands: behind the last one since the last commit, at the same LSN.
    #[must_use]
    pub fn order_lsn(&self) -> u64 {
        self.ordered_lsn().max(self.commit_lsn + 1)
    }

    /// The next LSN at which nothing stands.
    #[must_use]
    pub fn free_lsn(&self) -> u64 {
        self.ordered_lsn().max(self.commit_lsn) + 1
    }

    fn ordered_lsn(&self) -> u64 {
        self.ordered.as_ref().map_or(0, |(lsn, _)| *lsn)
    }

    #[must_use]
    pub fn partial(&self) -> Option<Partial> {
        self.partial.clone().map(|(lsn, changes, ordinals)| Partial {
            lsn: Lsn(lsn),
            changes,
            ordinals,
        })
    }

    pub fn set_partial(&mut self, partial: Option<Partial>) {
        self.partial = partial.map(|p| (p.lsn.0, p.changes, p.ordinals));
    }
}

pub(super) fn read_progress(bytes: &[u8]) -> Result<Progress, StateError> {
    if bytes.is_empty() {
        return Ok(Progress::default());
    }
    from_json(bytes, "the position")
}

/// What a folder holds, for whoever only looks.
pub enum Peek {
    /// There is no store.
    Nothing,
    /// Another process uses it.
    InUse,
    Holds {
        identity: Option<Box<Identity>>,
        progress: Box<Progress>,
        bytes: u64,
    },
}

/// Looks at the store under `path`, and makes none where there is none. Opening it lets it tidy its
/// journal and manifests; what it holds stays.
///
/// # Errors
/// The folder cannot be read, or another version of Walview wrote it.
pub fn peek(path: &Path) -> Result<Peek, StateError> {
    match path.try_exists() {
        Ok(true) => {}
        Ok(false) => return Ok(Peek::Nothing),
        Err(source) => {
            return Err(StateError {
                message: format!("cannot read \"{}\"", path.display()),
                source: Some(Box::new(source)),
            });
        }
    }
    let in_use = |error: &StateError| {
        let source = error.source.as_ref();
        let fjall = source.and_then(|source| source.downcast_ref::<fjall::Error>());
        matches!(fjall, Some(fjall::Error::Locked))
    };
    let store = match LocalStore::open(path) {
        Ok(store) => store,
        Err(error) if in_use(&error) => return Ok(Peek::InUse),
        Err(error) => return Err(error),
    };
    Ok(Peek::Holds {
        identity: store.identity()?.map(Box::new),
        progress: Box::new(store.progress()?),
        bytes: store.disk_bytes(),
    })
}
