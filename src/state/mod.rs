//! The local store: state, outbox and position, made durable together.
//!
//! ```text
//!  engine ──► overlay (this commit's writes, in memory) ──┐
//!             outbox records ─────────────────────────────┼──► one fjall batch ──► fdatasync
//!             progress (confirmed LSN, partial, ends) ────┘
//! ```
//!
//! A commit is written by a thread of its own, one at a time, while the engine goes on with an overlay
//! that is empty again.
//!
//! Invariants:
//! - a batch is all or nothing, so state, outbox and position never disagree after a crash;
//! - an outbox record at or past `Progress::outbox_end` of its store was written ahead of its
//!   commit: readers never look there after a restart, and it is removed before anything new is
//!   written (`outbox.rs`);
//! - reads see the overlay first, then what is on its way.

mod cache;
mod frozen;
mod outbox;
mod overlay;

pub use frozen::{Freezer, Frozen};
pub use outbox::Outbox;

use crate::source::fingerprint::{Fingerprint, OwnAlter};
use cache::ReadCache;
use fjall::compaction::Leveled;
use fjall::config::{CompressionPolicy, FilterPolicy};
use fjall::{
    AbstractTree as _, CompressionType, Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch,
    PersistMode,
};
use overlay::Overlay;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use walview_core::catalog::Catalog;
use walview_core::engine::{Page, Partial, ReadState, Space, State, StateError, scan_range};
use walview_core::outbox::Record;
use walview_core::position::{Lsn, Position};

/// Blocks read from disk, kept in memory. The kernel has them, too, and `cache.rs` what is read often.
const BLOCK_CACHE_BYTES: u64 = 12 << 20;
/// Writes of one key space before they go to a sorted file. fjall holds up to five of these for each
/// key space before it lets writers wait. Twice as much costs up to 35 MiB and saves no CPU.
const MEMTABLE_BYTES: u64 = 2 << 20;
/// Flushed memtables that a compaction takes together: with fjall's 4 it is a tenth more CPU a change.
/// Writers wait at 20.
const LEVEL_0_TABLES: u8 = 8;
/// Of a sorted file. A compaction holds eight bytes for each key of the file that it writes, until the
/// file's filter is built: with fjall's 64 MiB, of reverse keys, that is 32 MiB. The first level holds
/// `LEVEL_0_TABLES` of them, and is mostly written anew when level 0 joins it.
const TABLE_BYTES: u64 = 16 << 20;
/// Of two, fjall lets the first flush alone: while the other compacts, it takes the next compaction from
/// their queue and puts it back without a pause, which took a tenth of all CPU. With one, a flush waits
/// for a compaction; commits wait for it then, in their own thread.
const WORKER_THREADS: usize = 1;
/// fjall's write-ahead journals, all together.
pub const JOURNAL_BYTES_MAX: u64 = 128 << 20;
/// Overlay and records held before the caller should commit, whatever the clock says.
pub const COMMIT_BYTES: usize = 4 << 20;

/// The format of everything below; another one is refused, never guessed at.
const FORMAT: u32 = 4;

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

/// The store of one pipeline in one folder. One process at a time: fjall holds a lock file.
pub struct LocalStore {
    db: Database,
    spaces: Vec<(Space, Keyspace)>,
    meta: Keyspace,
    outbox: Outbox,
    /// The outbox may hold what was written ahead of a commit that never came.
    ahead: bool,
    overlay: Overlay,
    reads: ReadCache,
    /// What the commit that is on its way writes.
    committing: Overlay,
    commit: Option<JoinHandle<fjall::Result<()>>>,
    path: PathBuf,
}

impl LocalStore {
    /// Opens or creates the store under `path`.
    ///
    /// # Errors
    /// The folder cannot be used, or another process uses it.
    pub fn open(path: &Path) -> Result<Self, StateError> {
        let fail = |source: fjall::Error| StateError {
            message: if matches!(source, fjall::Error::Locked) {
                format!(
                    "\"{}\" is in use by another walview; stop that one, or name another folder \
                     with --state",
                    path.display()
                )
            } else {
                format!("cannot open \"{}\"", path.display())
            },
            source: Some(Box::new(source)),
        };
        let db = Database::builder(path)
            .cache_size(BLOCK_CACHE_BYTES)
            .max_journaling_size(JOURNAL_BYTES_MAX)
            .journal_compression(CompressionType::None)
            .worker_threads(WORKER_THREADS)
            .open()
            .map_err(fail)?;
        let meta = db.keyspace("meta", options).map_err(fail)?;
        let (spaces, blocks) = keyspaces(&db).map_err(fail)?;
        Ok(Self {
            meta,
            outbox: Outbox { blocks, db: db.clone() },
            ahead: true,
            spaces,
            db,
            overlay: Overlay::default(),
            reads: ReadCache::default(),
            committing: Overlay::default(),
            commit: None,
            path: path.to_owned(),
        })
    }

    fn fail(&self, what: &str) -> impl Fn(fjall::Error) -> StateError {
        move |source| StateError {
            message: format!("{what} \"{}\"", self.path.display()),
            source: Some(Box::new(source)),
        }
    }

    fn space(&self, space: Space) -> Result<&Keyspace, StateError> {
        space_of(&self.spaces, space)
    }

    fn read_meta<T: for<'de> Deserialize<'de>>(&self, key: &str) -> Result<Option<T>, StateError> {
        let Some(bytes) = self.meta.get(key).map_err(self.fail("cannot read"))? else {
            return Ok(None);
        };
        from_json(&bytes, &format!("\"{key}\" in \"{}\"", self.path.display())).map(Some)
    }

    /// Whose state this is; `None` in a new store.
    ///
    /// # Errors
    /// The store cannot be read, or another version of Walview wrote it.
    pub fn identity(&self) -> Result<Option<Identity>, StateError> {
        let identity: Option<Identity> = self.read_meta("identity")?;
        if let Some(identity) = &identity
            && identity.format != FORMAT
        {
            return Err(StateError {
                message: format!(
                    "\"{}\" has format {}, this walview reads {FORMAT}; run walview rebuild",
                    self.path.display(),
                    identity.format
                ),
                source: None,
            });
        }
        Ok(identity)
    }

    /// # Errors
    /// The store cannot be read.
    pub fn progress(&self) -> Result<Progress, StateError> {
        Ok(self.read_meta("progress")?.unwrap_or_default())
    }

    /// Forgets everything and belongs to `identity` from now on.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn reset(&mut self, identity: &Identity) -> Result<(), StateError> {
        self.finish_commit()?;
        self.overlay = Overlay::default();
        self.reads.clear();
        // The identity goes first and comes back last: a crash in between leaves a new store.
        self.meta.remove("identity").map_err(self.fail("cannot write"))?;
        self.db.persist(PersistMode::SyncAll).map_err(self.fail("cannot write"))?;
        self.meta.remove("progress").map_err(self.fail("cannot write"))?;
        // Made anew, not emptied: fjall keeps the options that a key space was made with.
        for (_, keyspace) in std::mem::take(&mut self.spaces) {
            self.db.delete_keyspace(keyspace).map_err(self.fail("cannot clear"))?;
        }
        self.db.delete_keyspace(self.outbox.blocks.clone()).map_err(self.fail("cannot clear"))?;
        let made = keyspaces(&self.db).map_err(self.fail("cannot write"))?;
        (self.spaces, self.outbox.blocks) = made;
        self.write_identity(identity)
    }

    /// # Errors
    /// The store cannot be written.
    pub fn write_identity(&mut self, identity: &Identity) -> Result<(), StateError> {
        let bytes = to_json(identity)?;
        self.meta.insert("identity", bytes).map_err(self.fail("cannot write"))?;
        self.db.persist(PersistMode::SyncAll).map_err(self.fail("cannot write"))
    }

    /// What the catalogs said when they were last accepted; nothing before the first snapshot.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn fingerprint(&self) -> Result<Fingerprint, StateError> {
        Ok(self.read_meta("fingerprint")?.unwrap_or_default())
    }

    /// # Errors
    /// The store cannot be written.
    pub fn write_fingerprint(&mut self, print: &Fingerprint) -> Result<(), StateError> {
        self.meta.insert("fingerprint", to_json(print)?).map_err(self.fail("cannot write"))?;
        self.db.persist(PersistMode::SyncAll).map_err(self.fail("cannot write"))
    }

    /// Memberships in the publication that Walview itself replaced, or was about to.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn own_alters(&self) -> Result<Vec<OwnAlter>, StateError> {
        Ok(self.read_meta("own_alters")?.unwrap_or_default())
    }

    /// # Errors
    /// The store cannot be written.
    pub fn write_own_alters(&mut self, own: &[OwnAlter]) -> Result<(), StateError> {
        self.meta.insert("own_alters", to_json(&own)?).map_err(self.fail("cannot write"))?;
        self.db.persist(PersistMode::SyncAll).map_err(self.fail("cannot write"))
    }

    /// Forgets what was written since the last commit, which is waited for.
    ///
    /// # Errors
    /// The store could not be written.
    pub fn discard(&mut self) -> Result<(), StateError> {
        self.overlay = Overlay::default();
        self.ahead = true;
        self.finish_commit()
    }

    /// Bytes that the next commit would write.
    #[must_use]
    pub fn pending_bytes(&self) -> usize {
        self.overlay.bytes()
    }

    /// Writes the overlay without making it durable: for the bulk of a snapshot, which starts
    /// again if it is interrupted.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn spill(&mut self) -> Result<(), StateError> {
        self.finish_commit()?;
        let batch = self.overlay_batch()?;
        self.start(batch, || {})?;
        self.finish_commit()
    }

    /// Makes the overlay, `records` (with their store) and `progress` durable together.
    ///
    /// # Errors
    /// The store cannot be written; nothing of the commit is there then.
    pub fn commit<'a>(
        &mut self,
        records: impl Iterator<Item = (usize, &'a Record)>,
        progress: &Progress,
    ) -> Result<(), StateError> {
        self.commit_with(records, progress, None)
    }

    /// As [`LocalStore::commit`], together with what the state is laid out by, and the fingerprint
    /// that is accepted with it.
    ///
    /// # Errors
    /// As of [`LocalStore::commit`].
    pub fn commit_with<'a>(
        &mut self,
        records: impl Iterator<Item = (usize, &'a Record)>,
        progress: &Progress,
        shape: Option<(&Identity, &Fingerprint)>,
    ) -> Result<(), StateError> {
        let batch = self.commit_batch(records, progress, shape)?;
        self.start(batch, || {})?;
        self.finish_commit()
    }

    /// As [`LocalStore::commit`], but does not wait: the commit is durable, or has failed, when `done`
    /// is called, and [`LocalStore::finish_commit`] says which. One that is on its way is waited for.
    ///
    /// # Errors
    /// The store cannot be written, or could not.
    pub fn begin_commit<'a>(
        &mut self,
        records: impl Iterator<Item = (usize, &'a Record)>,
        progress: &Progress,
        done: impl FnOnce() + Send + 'static,
    ) -> Result<(), StateError> {
        let batch = self.commit_batch(records, progress, None)?;
        self.start(batch, done)
    }

    /// Waits for the commit that is on its way, if one is.
    ///
    /// # Errors
    /// The store could not be written; nothing of the commit is there then.
    pub fn finish_commit(&mut self) -> Result<(), StateError> {
        let Some(commit) = self.commit.take() else { return Ok(()) };
        let written = commit.join().unwrap_or(Err(fjall::Error::Poisoned));
        match &written {
            Ok(()) => self.committing = Overlay::default(),
            Err(_) => self.forget(),
        }
        written.map_err(self.fail("cannot write"))
    }

    fn commit_batch<'a>(
        &mut self,
        records: impl Iterator<Item = (usize, &'a Record)>,
        progress: &Progress,
        shape: Option<(&Identity, &Fingerprint)>,
    ) -> Result<OwnedWriteBatch, StateError> {
        self.finish_commit()?;
        self.remove_ahead()?;
        let mut batch = self.overlay_batch()?.durability(Some(PersistMode::SyncData));
        outbox::write(&mut batch, &self.outbox.blocks, records)?;
        batch.insert(&self.meta, "progress", to_json(progress)?);
        if let Some((identity, print)) = shape {
            batch.insert(&self.meta, "identity", to_json(identity)?);
            batch.insert(&self.meta, "fingerprint", to_json(print)?);
        }
        Ok(batch)
    }

    /// Writes records ahead of their commit, so that a large transaction does not wait in memory.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn write_ahead<'a>(
        &mut self,
        records: impl Iterator<Item = (usize, &'a Record)>,
    ) -> Result<(), StateError> {
        self.remove_ahead()?;
        let mut batch = self.db.batch();
        outbox::write(&mut batch, &self.outbox.blocks, records)?;
        write(batch, &self.keyspaces()).map_err(self.fail("cannot write"))
    }

    /// Lets a thread write `batch`.
    fn start(
        &mut self,
        batch: OwnedWriteBatch,
        done: impl FnOnce() + Send + 'static,
    ) -> Result<(), StateError> {
        let keyspaces = self.keyspaces();
        let work = move || {
            let written = write(batch, &keyspaces);
            done();
            written
        };
        match std::thread::Builder::new().name("local commit".to_owned()).spawn(work) {
            Ok(commit) => self.commit = Some(commit),
            Err(source) => {
                self.forget();
                return Err(self.fail("cannot write")(source.into()));
            }
        }
        Ok(())
    }

    /// Nothing of the commit that was on its way came to the store.
    fn forget(&mut self) {
        self.committing = Overlay::default();
        self.reads.clear();
    }

    fn keyspaces(&self) -> Vec<Keyspace> {
        let spaces = self.spaces.iter().map(|(_, keyspace)| keyspace);
        spaces.chain([&self.meta, &self.outbox.blocks]).cloned().collect()
    }

    /// A batch of its own, before anything new: one batch cannot remove a key and write it. The
    /// journal keeps their order, so what is found of the later one has the earlier one before it.
    fn remove_ahead(&mut self) -> Result<(), StateError> {
        if self.ahead {
            self.outbox.rewind(&self.progress()?)?;
            self.ahead = false;
        }
        Ok(())
    }

    fn overlay_batch(&mut self) -> Result<OwnedWriteBatch, StateError> {
        let mut batch = self.db.batch();
        self.committing = std::mem::take(&mut self.overlay);
        for (space, entries) in self.committing.entries() {
            let keyspace = self.space(space)?;
            for (key, value) in entries {
                self.reads.written(space, key, value.as_ref());
                match value {
                    Some(value) => batch.insert(keyspace, key.clone(), value.clone()),
                    None => batch.remove(keyspace, key.clone()),
                }
            }
        }
        Ok(batch)
    }

    /// A handle for reading and pruning the outbox from other threads.
    #[must_use]
    pub fn outbox(&self) -> Outbox {
        self.outbox.clone()
    }

    /// Bytes on disk.
    #[must_use]
    pub fn disk_bytes(&self) -> u64 {
        self.db.disk_space().unwrap_or(0)
    }
}

impl Drop for LocalStore {
    /// Whoever opens the store next finds it whole. What failed was not made durable, and nobody was
    /// told that it was.
    fn drop(&mut self) {
        self.finish_commit().ok();
    }
}

/// Writes a batch, then seals every memtable that is full. fjall's batches only ask its workers to do
/// it, and write on into the same memtable until one of them comes to it; it makes writers wait for
/// sealed ones alone.
fn write(batch: OwnedWriteBatch, keyspaces: &[Keyspace]) -> fjall::Result<()> {
    batch.commit()?;
    for keyspace in keyspaces {
        if keyspace.tree.active_memtable().size() > MEMTABLE_BYTES {
            keyspace.rotate_memtable()?;
        }
    }
    Ok(())
}

fn options() -> KeyspaceCreateOptions {
    let leveled =
        Leveled::default().with_l0_threshold(LEVEL_0_TABLES).with_table_target_size(TABLE_BYTES);
    KeyspaceCreateOptions::default()
        .max_memtable_size(MEMTABLE_BYTES)
        .compaction_strategy(Arc::new(leveled))
}

/// The engine's key spaces and the outbox, opened or made.
fn keyspaces(db: &Database) -> fjall::Result<(Vec<(Space, Keyspace)>, Keyspace)> {
    let spaces = Space::ALL
        .into_iter()
        .map(|space| Ok((space, db.keyspace(space.name(), options)?)))
        .collect::<fjall::Result<_>>()?;
    // Blocks live for seconds and are read in order, if at all.
    let blocks = || {
        options()
            .data_block_compression_policy(CompressionPolicy::disabled())
            .filter_policy(FilterPolicy::disabled())
    };
    Ok((spaces, db.keyspace("outbox", blocks)?))
}

fn space_of(spaces: &[(Space, Keyspace)], space: Space) -> Result<&Keyspace, StateError> {
    spaces.get(space as usize).map(|(_, keyspace)| keyspace).ok_or_else(|| StateError {
        message: format!("no key space \"{}\"", space.name()),
        source: None,
    })
}

fn from_json<T: for<'de> Deserialize<'de>>(bytes: &[u8], what: &str) -> Result<T, StateError> {
    serde_json::from_slice(bytes).map_err(|source| StateError {
        message: format!("{what} cannot be decoded"),
        source: Some(Box::new(source)),
    })
}

fn to_json(value: &impl Serialize) -> Result<Vec<u8>, StateError> {
    serde_json::to_vec(value).map_err(|source| StateError {
        message: "cannot encode".to_owned(),
        source: Some(Box::new(source)),
    })
}

impl State for LocalStore {
    fn put(&mut self, space: Space, key: &[u8], value: &[u8]) {
        self.overlay.put(space, key, Some(value));
    }

    fn delete(&mut self, space: Space, key: &[u8]) {
        self.overlay.put(space, key, None);
    }
}

impl ReadState for LocalStore {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        let written = self.overlay.get(space, key);
        if let Some(written) = written.or_else(|| self.committing.get(space, key)) {
            return Ok(written.map(<[u8]>::to_vec));
        }
        if let Some(value) = self.reads.get(space, key) {
            return Ok(Some(value.to_vec()));
        }
        let value = self.space(space)?.get(key).map_err(self.fail("cannot read"))?;
        Ok(value.map(|value| {
            self.reads.put(space, key, &value);
            value.to_vec()
        }))
    }

    fn scan(
        &self,
        space: Space,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Page, StateError> {
        let keyspace = self.space(space)?;
        let (from, end) = scan_range(prefix, after);
        let stored = keyspace
            .range((from.clone(), end))
            .map(fjall::Guard::into_inner)
            .map(|entry| entry.map(|(key, value)| (key.to_vec(), value.to_vec())));
        let stored = overlay::merge(self.committing.range(space, prefix, &from), stored);
        let all = overlay::merge(self.overlay.range(space, prefix, &from), stored);
        all.take(limit).collect::<Result<_, _>>().map_err(self.fail("cannot read"))
    }
}

#[cfg(test)]
mod tests;
