//! What the engine has for one store, from memory or from the outbox.
//!
//! ```text
//!  engine ── push ──► queue (memory, bounded) ──┐
//!     └── commit ──► outbox (disk, durable) ────┴──► take ──► writer ──► store
//! ```
//!
//! Invariants:
//! - records have sequence numbers without gaps, and a writer gets them in that order;
//! - after a rewind numbers are given anew, and not to the same transactions where others are merged: who
//!   knows a record by its number from before learns that, and finds its place by the store's position;
//! - what the queue had to drop is in the outbox, or will be at the next commit: nothing is lost
//!   by dropping, only read again;
//! - a store that needs durable records never sees one before its commit.

use super::weight::Weight;
use crate::state::Outbox;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use walview_core::engine::{Held, StateError};
use walview_core::outbox::Record;
use walview_core::position::{Lsn, Position};

/// Operations kept in memory for one store; a store that is further behind reads the outbox.
const QUEUE_BYTES_MAX: usize = 8 << 20;

/// How far the source has been followed, whether or not a store was concerned.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Frontier {
    /// End of the last commit, or a later position that a keepalive named.
    pub lsn: Lsn,
    /// The source's clock there: microseconds since 2000-01-01 UTC.
    pub at: i64,
}

impl Frontier {
    /// Where a view is being corrected in steps, nobody is told of more than what is complete in it.
    #[must_use]
    pub fn new(lsn: Lsn, at: i64, held: Option<Held>) -> Self {
        held.map_or(Self { lsn, at }, |Held { lsn, at }| Self { lsn, at })
    }
}

/// The records of one store, shared by the engine and the store's writer.
pub struct Feed {
    store: usize,
    durable_only: bool,
    outbox: Outbox,
    inner: Mutex<Inner>,
    changed: Notify,
}

/// The number of a record; it holds until the next rewind.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub seq: u64,
    rewinds: u64,
}

impl Place {
    /// Behind the record with this number, which was taken from the same feed since the last rewind.
    #[must_use]
    pub fn behind(self, seq: u64) -> Self {
        Self { seq: seq + 1, ..self }
    }
}

struct Inner {
    /// How often numbers were given anew.
    rewinds: u64,
    queue: VecDeque<Arc<Record>>,
    queue_bytes: usize,
    /// The sequence number that the next record gets.
    end: u64,
    /// Records before this one are durable in the outbox.
    durable: u64,
    frontier: Frontier,
    durable_frontier: Frontier,
    /// The furthest place that the store may be at or come to by what is on its way to it, once that is known.
    reached: Option<Position>,
    /// Applied by the store: records before this one, its mark, and when that was known.
    applied: VecDeque<(u64, Position, Instant)>,
    pruned: u64,
    /// The last position that the outbox no longer has.
    pruned_to: Option<Position>,
    /// Of everything that is not pruned.
    weight: Weight,
}

/// How far a feed had been filled.
#[derive(Clone, Copy, Debug)]
pub struct Pushed {
    end: u64,
    frontier: Frontier,
}

/// What a writer may do next.
#[derive(Debug)]
pub enum Taken {
    Records(Vec<Arc<Record>>),
    /// Nothing is waiting: everything up to the frontier has been taken.
    Nothing(Frontier),
    /// Numbers were given anew. What was taken and has not reached the store comes again from here on,
    /// with some that the store has.
    Rewound(Place),
}

impl Feed {
    /// Of a store, which sees only records that are durable where `durable_only`. `end` is where the
    /// outbox of this store ends, and how many bytes it holds; `pruned` where it begins, with the
    /// position of the record before.
    #[must_use]
    pub fn new(
        (store, durable_only): (usize, bool),
        outbox: Outbox,
        (pruned, pruned_to): (u64, Option<Position>),
        (end, bytes): (u64, u64),
        frontier: Frontier,
    ) -> Self {
        Self {
            store,
            durable_only,
            outbox,
            inner: Mutex::new(Inner {
                rewinds: 0,
                queue: VecDeque::new(),
                queue_bytes: 0,
                end,
                durable: end,
                frontier,
                durable_frontier: frontier,
                reached: None,
                applied: VecDeque::new(),
                pruned,
                pruned_to,
                weight: Weight::new(pruned, end, bytes),
            }),
            changed: Notify::new(),
        }
    }

    /// Whether its store sees durable records only.
    #[must_use]
    pub fn durable_only(&self) -> bool {
        self.durable_only
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        // The lock guards plain data that every step leaves whole, so a panic elsewhere does not
        // spoil it.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Appends records and moves the frontier.
    pub fn push(&self, records: impl IntoIterator<Item = Arc<Record>>, frontier: Frontier) {
        let mut inner = self.lock();
        for record in records {
            debug_assert_eq!(record.seq, inner.end, "sequence numbers have no gaps");
            inner.end = record.seq + 1;
            inner.weight.push(record.seq, record.ops.len());
            inner.queue_bytes += record.ops.len();
            inner.queue.push_back(record);
        }
        if inner.queue_bytes > QUEUE_BYTES_MAX {
            inner.queue.clear();
            inner.queue_bytes = 0;
        }
        // A later time at a place that is durable: nothing is left to be committed.
        let all_durable = inner.durable == inner.end && inner.durable_frontier.lsn == frontier.lsn;
        if all_durable {
            inner.durable_frontier = frontier;
        }
        inner.frontier = frontier;
        drop(inner);
        // Whoever waits for a commit need not be woken before.
        if all_durable || !self.durable_only {
            self.changed.notify_one();
        }
    }

    /// What was pushed so far.
    #[must_use]
    pub fn pushed(&self) -> Pushed {
        let inner = self.lock();
        Pushed { end: inner.end, frontier: inner.frontier }
    }

    /// What had been pushed at a certain time is durable.
    pub fn committed(&self, pushed: Pushed) {
        let mut inner = self.lock();
        let Pushed { end, mut frontier } = pushed;
        if frontier.lsn == inner.durable_frontier.lsn {
            frontier.at = frontier.at.max(inner.durable_frontier.at);
        }
        inner.durable = end;
        inner.durable_frontier = frontier;
        drop(inner);
        self.changed.notify_one();
    }

    /// Forgets what was pushed but never committed; replay pushes it again, from `end` on.
    pub fn rewind(&self, end: u64) {
        let mut inner = self.lock();
        inner.rewinds += 1;
        inner.applied.retain(|(seq, ..)| *seq <= end);
        while inner.queue.back().is_some_and(|record| record.seq >= end) {
            if let Some(record) = inner.queue.pop_back() {
                inner.queue_bytes -= record.ops.len();
            }
        }
        inner.end = end;
        inner.durable = end;
        inner.frontier = inner.durable_frontier;
        inner.weight.rewind(end);
        drop(inner);
        self.changed.notify_one();
    }

    /// The store was found here, and nothing that was sent to it before can arrive any more.
    pub fn found(&self, at: Position) {
        let mut inner = self.lock();
        inner.reached = inner.reached.max(Some(at));
    }

    /// Records that were taken at `place` are about to be sent, which brings the store to `to`. `false`
    /// where they may not be: numbers were given anew meanwhile, and other transactions may be merged now.
    #[must_use]
    pub fn reaches(&self, place: Place, to: Position) -> bool {
        let mut inner = self.lock();
        let current = place.rewinds == inner.rewinds;
        if current {
            inner.reached = inner.reached.max(Some(to));
        }
        current
    }

    /// The furthest place that the store may be at; `None` where nothing is known of it yet.
    #[must_use]
    pub fn reached(&self) -> Option<Position> {
        self.lock().reached
    }

    /// The store has every record before `place`. Where that is from before a rewind its writer will find
    /// out how far the store is.
    pub fn applied(&self, Place { seq, rewinds }: Place, mark: Position) {
        let mut inner = self.lock();
        if rewinds != inner.rewinds {
            return;
        }
        while inner.queue.front().is_some_and(|record| record.seq < seq) {
            if let Some(record) = inner.queue.pop_front() {
                inner.queue_bytes -= record.ops.len();
            }
        }
        inner.applied.push_back((seq, mark, Instant::now()));
    }

    /// The store stands before `place` (again): what it once had from there on stays in the outbox.
    /// `false` where that is not there any more, `None` where numbers have been given anew.
    #[must_use]
    pub fn stands_at(&self, Place { seq, rewinds }: Place) -> Option<bool> {
        let mut inner = self.lock();
        (rewinds == inner.rewinds).then(|| {
            inner.applied.retain(|(applied, ..)| *applied <= seq);
            inner.pruned <= seq
        })
    }

    /// Records that the outbox need not keep: applied for longer than `window`, the time for
    /// which the store itself might lose them again. Returns the number that they are all before.
    #[must_use]
    pub fn prunable(&self, window: Duration) -> Option<u64> {
        let mut inner = self.lock();
        let mut to = None;
        while inner
            .applied
            .front()
            .is_some_and(|(seq, _, at)| *seq <= inner.durable && at.elapsed() >= window)
        {
            to = inner.applied.pop_front();
        }
        let (to, mark, _) = to.filter(|(to, ..)| *to > inner.pruned)?;
        inner.pruned = to;
        inner.pruned_to = Some(mark);
        inner.weight.prune(to);
        Some(to)
    }

    /// The mark at which the outbox begins: a store that stands before it cannot be replayed.
    #[must_use]
    pub fn pruned_to(&self) -> Option<Position> {
        self.lock().pruned_to
    }

    /// Bytes of operations that the outbox keeps for the store, about.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.lock().weight.bytes()
    }

    /// Records waiting for the store.
    #[must_use]
    pub fn waiting(&self, next: u64) -> u64 {
        self.lock().end.saturating_sub(next)
    }

    #[must_use]
    pub fn end(&self) -> Place {
        let inner = self.lock();
        inner.place(inner.end)
    }

    /// The oldest record that can still be read.
    #[must_use]
    pub fn first(&self) -> Place {
        let inner = self.lock();
        inner.place(inner.pruned)
    }

    /// Records that the store may see from `next` on, up to `bytes_max` of operations (at least one
    /// record).
    ///
    /// # Errors
    /// The outbox cannot be read.
    pub async fn take(&self, next: Place, bytes_max: usize) -> Result<Taken, StateError> {
        let durable = match self.held(next, bytes_max) {
            Ok(taken) => return Ok(taken),
            Err(durable) => durable,
        };
        // Dropped from memory: in the outbox, at the latest after the next commit.
        let (outbox, store, next) = (self.outbox.clone(), self.store, next.seq);
        let reading = tokio::task::spawn_blocking(move || outbox.read(store, next, durable));
        let read = reading.await.map_err(|error| StateError {
            message: "reading the outbox was broken off".to_owned(),
            source: Some(Box::new(error)),
        })?;
        let mut fits = fits(bytes_max);
        let records = read?.into_iter().take_while(|record| fits(record)).map(Arc::new).collect();
        // Empty where the next record is not durable yet: the commit wakes the writer.
        Ok(Taken::Records(records))
    }

    /// What memory knows of it; else where the outbox is to be read up to.
    pub(super) fn held(&self, next: Place, bytes_max: usize) -> Result<Taken, u64> {
        let inner = self.lock();
        if next.rewinds != inner.rewinds {
            return Ok(Taken::Rewound(inner.place(inner.pruned)));
        }
        let next = next.seq;
        let (end, frontier) = if self.durable_only {
            (inner.durable, inner.durable_frontier)
        } else {
            (inner.end, inner.frontier)
        };
        if next >= end {
            return Ok(Taken::Nothing(frontier));
        }
        let first = inner.queue.front().map(|record| record.seq).filter(|first| *first <= next);
        let Some(first) = first else { return Err(inner.durable) };
        let skip = usize::try_from(next - first).unwrap_or(usize::MAX);
        let mut fits = fits(bytes_max);
        let records = inner.queue.iter().skip(skip);
        let records = records.take_while(|record| fits(record) && record.seq < end);
        Ok(Taken::Records(records.cloned().collect()))
    }

    /// Resolves when there may be something new.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }
}

impl Inner {
    fn place(&self, seq: u64) -> Place {
        Place { seq, rewinds: self.rewinds }
    }
}

/// Whether one record more is taken: until there are `bytes_max` of operations.
fn fits(bytes_max: usize) -> impl FnMut(&Record) -> bool {
    let mut bytes = 0;
    move |record| {
        let room = bytes < bytes_max;
        bytes += record.ops.len();
        room
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::state::LocalStore;

    fn at(lsn: u64, at: i64) -> Frontier {
        Frontier { lsn: Lsn(lsn), at }
    }

    /// A source that writes nothing at all: time passes there, too, for stores of durable records.
    #[test]
    fn time_passes_where_everything_is_durable() {
        let folder = tempfile::tempdir().unwrap();
        let outbox = LocalStore::open(folder.path()).unwrap().outbox();
        let feed = Feed::new((0, true), outbox, (0, None), (0, 0), at(10, 1));
        let durable = || match feed.held(feed.first(), 1).unwrap() {
            Taken::Nothing(frontier) => Some(frontier),
            Taken::Records(_) | Taken::Rewound(_) => None,
        };
        feed.push([], at(10, 2));
        assert_eq!(durable(), Some(at(10, 2)));
        // Further in the log is not durable before a commit.
        feed.push([], at(11, 3));
        assert_eq!(durable(), Some(at(10, 2)));
        let pushed = feed.pushed();
        feed.push([], at(12, 3));
        feed.committed(pushed);
        assert_eq!(durable(), Some(at(11, 3)));
        // Nor is time where a record waits for one.
        let record = Record {
            seq: 0,
            to: Position { epoch: 1, lsn: Lsn(11), ordinal: 1 },
            complete: Lsn(11),
            committed_at: 4,
            ends: true,
            ops: vec![1].into(),
        };
        feed.push([Arc::new(record)], at(11, 4));
        assert_eq!(durable(), Some(at(11, 3)));
    }
}
