//! The local store: state, outbox and position, made durable together.
//!
//! ```text
//!  engine ──► overlay (this commit's writes, in memory) ──► run ──┐
//!             progress (confirmed LSN, partial, ends) ────────────┴──► journal ──► fdatasync
//!             outbox records ──► a log for each store ──► fdatasync, before
//!  runs (in memory) ── when they are large ──► sorted tables
//! ```
//!
//! A commit is written by a thread of its own, one at a time, while the engine goes on with an overlay
//! that is empty again; so are the tables.
//!
//! Invariants:
//! - a commit is one record of the journal, so state and position never disagree after a crash, and the
//!   outbox has all that the position says;
//! - an outbox record at or past `Progress::outbox_end` of its store was written ahead of its
//!   commit: readers never look there after a restart, and it is forgotten before anything new is
//!   written (`outbox.rs`);
//! - reads see the overlay first, then what is on its way, then runs, the newest first, then tables.

mod cache;
mod commit;
mod frozen;
mod identity;
mod journal;
mod log;
mod outbox;
mod overlay;
mod run;
mod tables;

pub use frozen::{Freezer, Frozen};
pub use identity::{AdoptedTable, Identity, Peek, Progress, peek};
pub use outbox::Outbox;

use crate::source::fingerprint::{Fingerprint, OwnAlter};
use cache::ReadCache;
use commit::Commit;
use fjall::Database;
use identity::{FORMAT, read_progress};
use journal::{Journal, Names};
use outbox::lock;
use overlay::Overlay;
use run::Wanted;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use tables::{FLUSH_BYTES, Shared, Spaces, find, keyspaces, space_of};
use walview_core::engine::{Page, ReadState, Space, State, StateError, scan_range};
use walview_core::outbox::Record;

/// Blocks read from disk, kept in memory. The kernel has them, too, and `cache.rs` what is read often.
const BLOCK_CACHE_BYTES: u64 = 12 << 20;
/// Of two, fjall lets the first flush alone: while the other compacts, it takes the next compaction from
/// their queue and puts it back without a pause, which took a tenth of all CPU.
const WORKER_THREADS: usize = 1;
/// What the journal takes at most, about. From half of it on it is flushed.
pub const JOURNAL_BYTES_MAX: u64 = 64 << 20;
/// Overlay and records held before the caller should commit, whatever the clock says.
pub const COMMIT_BYTES: usize = 4 << 20;

/// A key space of formats 1 to 4.
const OLD_KEYSPACE: &str = "meta";

/// The store of one pipeline in one folder. One process at a time: fjall holds a lock file.
pub struct LocalStore {
    db: Database,
    spaces: Spaces,
    shared: Shared,
    journal: Arc<Mutex<Journal>>,
    journal_bytes: Arc<AtomicU64>,
    outbox: Outbox,
    /// The outbox may hold what was written ahead of a commit that never came.
    ahead: bool,
    overlay: Overlay,
    reads: Arc<ReadCache>,
    /// What the commit that is on its way writes.
    committing: Arc<Overlay>,
    commit: Option<JoinHandle<std::io::Result<()>>>,
    flush: Option<JoinHandle<fjall::Result<()>>>,
    path: PathBuf,
}

impl LocalStore {
    /// Opens or creates the store under `path`.
    ///
    /// # Errors
    /// The folder cannot be used or is damaged, or another process uses it.
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
            .worker_threads(WORKER_THREADS)
            .open()
            .map_err(fail)?;
        let spaces = keyspaces(&db).map_err(fail)?;
        let opened = Journal::open(&path.join("journal"));
        let (journal, runs) = opened.map_err(|source| fail(source.into()))?;
        let progress = journal.name("progress").unwrap_or_default().to_vec();
        let cleared = journal.name("clearing").is_none();
        let outbox = Outbox::open(&path.join("outbox"), &read_progress(&progress)?)?;
        let shared = Shared::default();
        shared.reset(progress);
        for (segment, run) in runs {
            shared.push(run, Some(segment), None);
        }
        let mut store = Self {
            journal_bytes: journal.bytes(),
            journal: Arc::new(Mutex::new(journal)),
            outbox,
            ahead: true,
            spaces,
            shared,
            db,
            overlay: Overlay::default(),
            reads: Arc::default(),
            committing: Arc::default(),
            commit: None,
            flush: None,
            path: path.to_owned(),
        };
        if !cleared {
            store.clear(Names::new())?;
        }
        Ok(store)
    }

    fn fail<E: Into<fjall::Error>>(&self, what: &str) -> impl Fn(E) -> StateError {
        move |source| StateError {
            message: format!("{what} \"{}\"", self.path.display()),
            source: Some(Box::new(source.into())),
        }
    }

    fn space(&self, space: Space) -> Result<&fjall::Keyspace, StateError> {
        space_of(&self.spaces, space)
    }

    fn name<T: for<'de> Deserialize<'de>>(&self, name: &str) -> Result<Option<T>, StateError> {
        let journal = lock(&self.journal);
        let Some(bytes) = journal.name(name) else { return Ok(None) };
        from_json(bytes, &format!("\"{name}\" in \"{}\"", self.path.display())).map(Some)
    }

    fn write_name(&mut self, name: &str, value: &impl Serialize) -> Result<(), StateError> {
        let names = Names::from([(name.to_owned(), to_json(value)?)]);
        let written = lock(&self.journal).write(names, &[]);
        written.map(|_| ()).map_err(self.fail("cannot write"))
    }

    /// Where it was opened.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whose state this is; `None` in a new store.
    ///
    /// # Errors
    /// The store cannot be read, or another version of Walview wrote it.
    pub fn identity(&self) -> Result<Option<Identity>, StateError> {
        let other = |format: &str| StateError {
            message: format!(
                "\"{}\" has format {format}, this walview reads {FORMAT}; run the version that \
                 wrote it, or fill everything anew with: walview rebuild",
                self.path.display()
            ),
            source: None,
        };
        let identity: Option<Identity> = self.name("identity")?;
        if let Some(identity) = &identity
            && identity.format != FORMAT
        {
            return Err(other(&identity.format.to_string()));
        }
        if identity.is_none() && self.db.keyspace_exists(OLD_KEYSPACE) {
            return Err(other("4 or an older one"));
        }
        Ok(identity)
    }

    /// The epoch of what is in the folder, in whatever format.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn former_epoch(&self) -> Result<Option<u16>, StateError> {
        #[derive(Deserialize)]
        struct Former {
            epoch: u16,
        }
        let former: Option<Former> = self.name("identity")?;
        if former.is_some() || !self.db.keyspace_exists(OLD_KEYSPACE) {
            return Ok(former.map(|former| former.epoch));
        }
        let unreadable = self.fail("cannot read");
        let old = self.db.keyspace(OLD_KEYSPACE, fjall::KeyspaceCreateOptions::default);
        let Some(bytes) = old.map_err(&unreadable)?.get("identity").map_err(&unreadable)? else {
            return Ok(None);
        };
        let former: Former = from_json(&bytes, "the identity of an older state")?;
        Ok(Some(former.epoch))
    }

    /// # Errors
    /// The store cannot be read.
    pub fn progress(&self) -> Result<Progress, StateError> {
        read_progress(&self.shared.read().progress)
    }

    /// Forgets everything and belongs to `identity` from now on.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn reset(&mut self, identity: &Identity) -> Result<(), StateError> {
        self.finish_commit()?;
        self.finish_flush()?;
        // A crash in between leaves a new store, and what is left of the old one goes when it is opened.
        let clearing = Names::from([("clearing".to_owned(), vec![1])]);
        let restarted = lock(&self.journal).restart(clearing);
        restarted.map_err(self.fail("cannot write"))?;
        self.clear(Names::from([("identity".to_owned(), to_json(identity)?)]))
    }

    fn clear(&mut self, mut names: Names) -> Result<(), StateError> {
        self.overlay = Overlay::default();
        self.reads.clear();
        self.shared.reset(Vec::new());
        self.outbox.reset().map_err(self.fail("cannot clear"))?;
        // Made anew, not emptied: fjall keeps the options that a key space was made with.
        let mut old: Vec<_> =
            std::mem::take(&mut self.spaces).into_iter().map(|(_, keyspace)| keyspace).collect();
        for name in [OLD_KEYSPACE, "outbox"] {
            if self.db.keyspace_exists(name) {
                let keyspace = self.db.keyspace(name, fjall::KeyspaceCreateOptions::default);
                old.push(keyspace.map_err(self.fail("cannot clear"))?);
            }
        }
        for keyspace in old {
            self.db.delete_keyspace(keyspace).map_err(self.fail("cannot clear"))?;
        }
        self.db.persist(fjall::PersistMode::SyncAll).map_err(self.fail("cannot clear"))?;
        self.spaces = keyspaces(&self.db).map_err(self.fail("cannot write"))?;
        names.insert("clearing".to_owned(), Vec::new());
        let written = lock(&self.journal).write(names, &[]);
        written.map(|_| ()).map_err(self.fail("cannot write"))
    }

    /// # Errors
    /// The store cannot be written.
    pub fn write_identity(&mut self, identity: &Identity) -> Result<(), StateError> {
        self.write_name("identity", identity)
    }

    /// What the catalogs said when they were last accepted; nothing before the first snapshot.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn fingerprint(&self) -> Result<Fingerprint, StateError> {
        Ok(self.name("fingerprint")?.unwrap_or_default())
    }

    /// # Errors
    /// The store cannot be written.
    pub fn write_fingerprint(&mut self, print: &Fingerprint) -> Result<(), StateError> {
        self.write_name("fingerprint", print)
    }

    /// Memberships in the publication that Walview itself replaced, or was about to.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn own_alters(&self) -> Result<Vec<OwnAlter>, StateError> {
        Ok(self.name("own_alters")?.unwrap_or_default())
    }

    /// # Errors
    /// The store cannot be written.
    pub fn write_own_alters(&mut self, own: &[OwnAlter]) -> Result<(), StateError> {
        self.write_name("own_alters", &own)
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

    /// Takes the overlay away without making it durable: for the bulk of a snapshot, which starts
    /// again if it is interrupted. What is on its way is waited for.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn spill(&mut self) -> Result<(), StateError> {
        self.finish_commit()?;
        self.start(Vec::new(), None, || {})
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
        self.start_commit(records, progress, shape, || {})?;
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
        self.start_commit(records, progress, None, done)
    }

    /// Waits for the commit that is on its way, if one is.
    ///
    /// # Errors
    /// The store could not be written; nothing of the commit is there then.
    pub fn finish_commit(&mut self) -> Result<(), StateError> {
        let Some(commit) = self.commit.take() else { return Ok(()) };
        let panicked = |_| Err(std::io::Error::other("its thread panicked"));
        let written = commit.join().unwrap_or_else(panicked);
        match &written {
            Ok(()) => self.committing = Arc::default(),
            Err(_) => self.forget(),
        }
        written.map_err(self.fail("cannot write"))?;
        self.flush_if_large()
    }

    fn start_commit<'a>(
        &mut self,
        records: impl Iterator<Item = (usize, &'a Record)>,
        progress: &Progress,
        shape: Option<(&Identity, &Fingerprint)>,
        done: impl FnOnce() + Send + 'static,
    ) -> Result<(), StateError> {
        self.finish_commit()?;
        self.forget_ahead()?;
        if self.shared.read().lacks_journal() {
            // What was spilled must not be less durable than what follows from it, and comes after
            // what the journal has.
            self.finish_flush()?;
            self.start_flush()?;
            self.finish_flush()?;
            let forgotten = lock(&self.journal).forget_runs();
            forgotten.map_err(self.fail("cannot write"))?;
        }
        let mut names = Names::from([("progress".to_owned(), to_json(progress)?)]);
        if let Some((identity, print)) = shape {
            names.insert("identity".to_owned(), to_json(identity)?);
            names.insert("fingerprint".to_owned(), to_json(print)?);
        }
        let records = records.map(|(store, record)| (store, record.clone())).collect();
        self.start(records, Some(names), done)
    }

    /// Writes records ahead of their commit, so that a large transaction does not wait in memory.
    ///
    /// # Errors
    /// The store cannot be written.
    pub fn write_ahead<'a>(
        &mut self,
        records: impl Iterator<Item = (usize, &'a Record)>,
    ) -> Result<(), StateError> {
        // Its records come first.
        self.finish_commit()?;
        self.forget_ahead()?;
        self.outbox.append(records).map_err(self.fail("cannot write"))
    }

    /// Lets a thread write a commit of the overlay.
    fn start(
        &mut self,
        records: Vec<(usize, Record)>,
        names: Option<Names>,
        done: impl FnOnce() + Send + 'static,
    ) -> Result<(), StateError> {
        let next = self.overlay.next();
        self.committing = Arc::new(std::mem::replace(&mut self.overlay, next));
        let commit = Commit {
            outbox: self.outbox.clone(),
            records,
            journal: Arc::clone(&self.journal),
            names,
            overlay: Arc::clone(&self.committing),
            reads: Arc::clone(&self.reads),
            shared: self.shared.clone(),
        };
        let work = move || {
            let written = commit.write();
            done();
            written
        };
        match std::thread::Builder::new().name("local commit".to_owned()).spawn(work) {
            Ok(commit) => self.commit = Some(commit),
            Err(source) => {
                self.forget();
                return Err(self.fail("cannot write")(source));
            }
        }
        Ok(())
    }

    /// Nothing of the commit that was on its way came to the store.
    fn forget(&mut self) {
        self.committing = Arc::default();
        self.reads.clear();
        self.ahead = true;
    }

    fn forget_ahead(&mut self) -> Result<(), StateError> {
        if self.ahead {
            self.outbox.rewind(&self.progress()?)?;
            self.ahead = false;
        }
        Ok(())
    }

    /// Lets a thread move pending runs into the tables, once there is enough of them or of the journal,
    /// which gets a record with each commit. Where there is twice as much, the one that is under way is
    /// waited for.
    fn flush_if_large(&mut self) -> Result<(), StateError> {
        let runs = self.shared.read().bytes();
        let journal = self.journal_bytes.load(Ordering::Relaxed);
        let is = |times: usize| {
            runs >= times * FLUSH_BYTES || journal >= times as u64 * JOURNAL_BYTES_MAX / 2
        };
        let works = self.flush.as_ref().is_some_and(|flush| !flush.is_finished());
        if !is(1) || (works && !is(2)) {
            return Ok(());
        }
        self.finish_flush()?;
        self.start_flush()
    }

    fn start_flush(&mut self) -> Result<(), StateError> {
        let journal = Arc::clone(&self.journal);
        let flush = tables::flush(self.shared.clone(), self.spaces.clone(), journal);
        self.flush = Some(flush.map_err(self.fail("cannot write"))?);
        Ok(())
    }

    fn finish_flush(&mut self) -> Result<(), StateError> {
        let Some(flush) = self.flush.take() else { return Ok(()) };
        flush.join().unwrap_or(Err(fjall::Error::Poisoned)).map_err(self.fail("cannot write"))
    }

    /// A handle for reading and pruning the outbox from other threads.
    #[must_use]
    pub fn outbox(&self) -> Outbox {
        self.outbox.clone()
    }

    /// Bytes on disk.
    #[must_use]
    pub fn disk_bytes(&self) -> u64 {
        let journal = self.journal_bytes.load(Ordering::Relaxed);
        self.db.disk_space().unwrap_or(0) + journal + self.outbox.bytes()
    }
}

impl Drop for LocalStore {
    /// Whoever opens the store next finds it whole. What failed was not made durable, and nobody was
    /// told that it was.
    fn drop(&mut self) {
        self.finish_commit().ok();
        self.finish_flush().ok();
    }
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
        let keep = |value: &[u8]| {
            self.reads.put(space, key, value);
            value.to_vec()
        };
        if let Some(value) = find(&self.shared.read().runs, space, &Wanted::new(key)) {
            return Ok(value.map(keep));
        }
        let value = self.space(space)?.get(key).map_err(self.fail("cannot read"))?;
        Ok(value.as_deref().map(keep))
    }

    fn scan(
        &self,
        space: Space,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Page, StateError> {
        let (from, end) = scan_range(prefix, after);
        // Before the tables: what is flushed meanwhile is in both.
        let runs = self.shared.read().runs.clone();
        let stored = tables::scan(&runs, space, prefix, &from, {
            self.space(space)?.range((from.clone(), end))
        });
        let stored = overlay::merge(self.committing.range(space, prefix, &from), stored);
        let all = overlay::merge(self.overlay.range(space, prefix, &from), stored);
        all.take(limit).collect::<Result<_, _>>().map_err(self.fail("cannot read"))
    }
}

#[cfg(test)]
mod tests;
