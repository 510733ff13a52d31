//! Where the state's entries lie: runs in memory, which the journal has, over sorted tables.
//!
//! ```text
//!  local commit ─► run ─► pending runs (memory) ── flush ──► fjall's tables, one key space each
//! ```
//!
//! A flush merges all runs and gives each key space its part as sorted tables, past fjall's journal
//! and memtables, which stay empty.
//!
//! Invariants:
//! - a run is pending until all of it is in the tables, durably. Writing it there again, or a part of
//!   it, changes nothing, as the runs above it are there, too;
//! - pending runs hold every commit that the tables lack, up to one moment: whoever holds them and a
//!   snapshot of the tables that was made no earlier sees the state of that moment.

use super::journal::Journal;
use super::outbox::lock;
use super::overlay;
use super::run::{Run, Wanted, merge};
use fjall::compaction::Leveled;
use fjall::config::{FilterPolicy, PartitioningPolicy};
use fjall::{Database, Keyspace, KeyspaceCreateOptions};
use std::ops::Bound;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use walview_core::engine::{Space, StateError};

/// Pending runs that are flushed. While a flush is under way as much may gather again; then commits
/// wait for it.
pub(super) const FLUSH_BYTES: usize = 12 << 20;
/// Neighbouring runs below this are made one, so that a read looks into few.
const SMALL_RUN_BYTES: usize = 256 << 10;
/// Flushes of one key space that a compaction takes together.
const LEVEL_0_TABLES: u8 = 4;
/// Flushes that wait for a compaction before the next one waits for it, too, and for how long.
const LEVEL_0_TABLES_MAX: usize = 16;
const LEVEL_0_WAIT: Duration = Duration::from_secs(30);
/// Of a sorted file. A compaction holds eight bytes for each key of the file that it writes, until the
/// file's filter is built.
const TABLE_BYTES: u64 = 16 << 20;

/// What the tables do not have yet.
#[derive(Default)]
pub(super) struct Pending {
    /// The oldest first.
    pub(super) runs: Vec<PendingRun>,
    /// How many of them are being flushed.
    flushing: usize,
    /// As of the last commit.
    pub(super) progress: Vec<u8>,
}

#[derive(Clone)]
pub(super) struct PendingRun {
    run: Arc<Run>,
    /// The oldest segment of the journal that has a part of it; `None` where the journal lacks it.
    segment: Option<u64>,
}

impl AsRef<Run> for PendingRun {
    fn as_ref(&self) -> &Run {
        &self.run
    }
}

impl Pending {
    /// The last runs, of which a new one of `weight` should be a part. As digits are carried: a run
    /// takes part in few merges.
    fn neighbours(&self, mut weight: usize, in_journal: bool) -> &[PendingRun] {
        let young = self.runs.get(self.flushing..).unwrap_or_default();
        let goes_along = |older: &&PendingRun| {
            let small = older.run.weight() < SMALL_RUN_BYTES && older.run.weight() <= 2 * weight;
            weight += older.run.weight();
            small && older.segment.is_some() == in_journal
        };
        let count = young.iter().rev().take_while(goes_along).count();
        young.get(young.len() - count..).unwrap_or_default()
    }

    pub(super) fn bytes(&self) -> usize {
        self.runs.iter().map(|pending| pending.run.weight()).sum()
    }

    /// Whether there is anything that a crash would take.
    pub(super) fn lacks_journal(&self) -> bool {
        self.runs.iter().any(|pending| pending.segment.is_none())
    }
}

/// Finds what was last written to a key in `runs`, of which the last is the newest.
pub(super) fn find<'a>(
    runs: &'a [PendingRun],
    space: Space,
    wanted: &Wanted<'_>,
) -> Option<Option<&'a [u8]>> {
    runs.iter().rev().find_map(|pending| pending.run.get(space, wanted))
}

/// The entries of a space whose keys start with `prefix`, from `from` on: `runs` over what the tables
/// have there.
pub(super) fn scan<'a>(
    runs: &'a [PendingRun],
    space: Space,
    prefix: &'a [u8],
    from: &'a Bound<Vec<u8>>,
    stored: fjall::Iter,
) -> impl Iterator<Item = fjall::Result<(Vec<u8>, Vec<u8>)>> + 'a {
    let stored = stored
        .map(fjall::Guard::into_inner)
        .map(|entry| entry.map(|(key, value)| (key.to_vec(), value.to_vec())));
    let written = merge(runs, space, from).take_while(move |(key, _)| key.starts_with(prefix));
    overlay::merge(written, stored)
}

/// Shared by the engine's thread, commits, flushes and who reads frozen copies.
#[derive(Clone, Default)]
pub(super) struct Shared(Arc<RwLock<Pending>>);

impl Shared {
    pub(super) fn read(&self) -> RwLockReadGuard<'_, Pending> {
        // Every step leaves it whole.
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Pending> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds the run of a commit, with the progress that belongs to it. One at a time, and not while
    /// [`flush`] begins.
    pub(super) fn push(&self, run: Run, segment: Option<u64>, progress: Option<Vec<u8>>) {
        let merged = (!run.is_empty()).then(|| {
            let mut runs = self.read().neighbours(run.weight(), segment.is_some()).to_vec();
            let neighbours = runs.len();
            // A segment is older than those behind it.
            let segment = runs.first().map_or(segment, |oldest| oldest.segment);
            runs.push(PendingRun { run: Arc::new(run), segment });
            let merged = match runs.as_slice() {
                [alone] => alone.clone(),
                runs => PendingRun { run: Arc::new(Run::merged(runs)), segment },
            };
            (neighbours, merged)
        });
        let mut pending = self.write();
        if let Some((neighbours, merged)) = merged {
            let kept = pending.runs.len() - neighbours;
            pending.runs.truncate(kept);
            pending.runs.push(merged);
        }
        if let Some(progress) = progress {
            pending.progress = progress;
        }
    }

    /// There is nothing but `progress`.
    pub(super) fn reset(&self, progress: Vec<u8>) {
        *self.write() = Pending { progress, ..Pending::default() };
    }
}

pub(super) type Spaces = Vec<(Space, Keyspace)>;

/// The engine's key spaces, opened or made.
///
/// What a read must know of a file stands in parts of 4 KiB where files are many: a filter in one piece is
/// some hundred KiB, and read whole for one key once filters are more than fjall's cache holds. Above, in
/// few files, filters and indexes are in memory.
pub(super) fn keyspaces(db: &Database) -> fjall::Result<Spaces> {
    let options = |space: Space| {
        let leveled = Leveled::default()
            .with_l0_threshold(LEVEL_0_TABLES)
            .with_table_target_size(TABLE_BYTES);
        let options = KeyspaceCreateOptions::default()
            .compaction_strategy(Arc::new(leveled))
            .filter_block_partitioning_policy(PartitioningPolicy::new([false, true]))
            .index_block_partitioning_policy(PartitioningPolicy::new([false, false, true]));
        // Only ever read in order, where a filter says nothing.
        if space == Space::Reverse {
            options.filter_policy(FilterPolicy::disabled())
        } else {
            options
        }
    };
    let open = |space: Space| Ok((space, db.keyspace(space.name(), || options(space))?));
    Space::ALL.into_iter().map(open).collect()
}

pub(super) fn space_of(spaces: &Spaces, space: Space) -> Result<&Keyspace, StateError> {
    spaces.get(space as usize).map(|(_, keyspace)| keyspace).ok_or_else(|| StateError {
        message: format!("no key space \"{}\"", space.name()),
        source: None,
    })
}

/// Moves what is pending into the tables, in a thread of its own.
pub(super) fn flush(
    shared: Shared,
    spaces: Spaces,
    journal: Arc<Mutex<Journal>>,
) -> std::io::Result<JoinHandle<fjall::Result<()>>> {
    let runs = {
        let mut pending = shared.write();
        pending.flushing = pending.runs.len();
        pending.runs.clone()
    };
    let work = move || {
        let written =
            spaces.iter().try_for_each(|(space, keyspace)| ingest(&runs, *space, keyspace));
        let mut pending = shared.write();
        pending.flushing = 0;
        written?;
        pending.runs.drain(..runs.len());
        let oldest = pending.runs.iter().filter_map(|pending| pending.segment).min();
        drop(pending);
        let mut journal = lock(&journal);
        let needed = oldest.unwrap_or_else(|| journal.last());
        Ok(journal.remove_before(needed)?)
    };
    std::thread::Builder::new().name("state flush".to_owned()).spawn(work)
}

fn ingest(runs: &[PendingRun], space: Space, keyspace: &Keyspace) -> fjall::Result<()> {
    if !runs.iter().any(|pending| pending.run.has(space)) {
        return Ok(());
    }
    // fjall lets its own writers wait here, but not this one.
    let since = Instant::now();
    while keyspace.l0_table_count() >= LEVEL_0_TABLES_MAX && since.elapsed() < LEVEL_0_WAIT {
        std::thread::park_timeout(Duration::from_millis(2));
    }
    let mut ingestion = keyspace.start_ingestion()?;
    for (key, value) in merge(runs, space, &Bound::Unbounded) {
        match value {
            Some(value) => ingestion.write(key, value)?,
            None => ingestion.write_tombstone(key)?,
        }
    }
    ingestion.finish()
}
