//! One task for each store: takes records from the feed, writes them, keeps up the mark.
//!
//! ```text
//!           ┌─────────────── error: back off, connect again ──────────────┐
//!           ▼                                                              │
//!  connect ─► read the mark ─► take a batch ─► apply ─► acknowledge ───────┤
//!              │      ▲            ▲                        │             │
//!              ▼      │            └────────────────────────┘ nothing: fresh
//!    lost, too old: refill
//! ```
//!
//! Invariants:
//! - where to go on after a connection was lost follows from the store's own mark alone; a batch
//!   whose answer was lost is sent again as it was;
//! - a batch is whole transactions, but for one larger than `Pace::atomic_bytes_max`;
//! - a store that fails waits for itself: the feed never waits for it.

mod refill;

pub use refill::Refiller;

use super::PipelineError;
use super::board::{Board, StoreState};
use super::feed::{Feed, Frontier, Place, Taken};
use super::patience::Patience;
use crate::fail_point;
use crate::stores::{Batch, Fault, Identity, Store, StoreError};
use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;
use walview_core::engine::StateError;
use walview_core::outbox::Record;
use walview_core::position::Position;

/// Operations in one batch, while whole transactions fit.
const BATCH_BYTES: usize = 4 << 20;
/// How often readers are told that the store is current.
const FRESH_EVERY: Duration = Duration::from_secs(1);
/// How long a stop may take: a batch in flight is finished, then what waits is written.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// How a kind of store wants its batches.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// At most one batch in this time, unless a whole batch of bytes waits.
    pub flush_every: Duration,
    /// A transaction larger than this reaches the store in parts (`atomic_max`).
    pub atomic_bytes_max: usize,
}

/// What to do with targets that a store could not take.
pub type OnFault = Arc<dyn Fn(&[Fault]) -> BTreeSet<u16> + Send + Sync>;

pub struct Writer<S> {
    pub index: usize,
    pub name: String,
    /// Whose marks are ours.
    pub identity: Identity,
    pub store: S,
    pub feed: Arc<Feed>,
    pub pace: Pace,
    pub board: Arc<Board>,
    pub on_fault: OnFault,
    /// What the store is filled again with where it lost what it had.
    pub refiller: Refiller,
    /// Where this process has brought the store.
    pub stands: Option<Position>,
}

/// A batch without an answer.
struct InFlight {
    batch: Batch,
    /// The next one's place.
    behind: Place,
}

/// What a connected writer came to.
enum Ended {
    Stopping,
    Failed(StoreError),
}

impl<S: Store> Writer<S> {
    /// Writes until `stop` turns true, then drains for a bounded time.
    ///
    /// # Errors
    /// The store cannot be written without somebody's help, or the outbox cannot be read.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) -> Result<(), PipelineError> {
        let mut patience =
            Patience::new(Arc::clone(&self.board), self.index, &self.name, stop.clone());
        let mut in_flight = None;
        loop {
            let ended = match self.open(&stop).await {
                Ok((at, next)) => {
                    if self.stands.replace(at).is_none() {
                        self.expect_rows(next).await?;
                    }
                    patience.works(StoreState::Live);
                    self.write(at, next, &mut in_flight, &mut stop).await?
                }
                // What a stop broke off the next start does again.
                Err(StoreError::Retry { .. }) if *stop.borrow() => Ended::Stopping,
                Err(error) => Ended::Failed(error),
            };
            match ended {
                Ended::Stopping => return Ok(()),
                Ended::Failed(error) => match patience.after(error).await {
                    Err(PipelineError::Stopping) => return Ok(()),
                    waited => waited?,
                },
            }
        }
    }

    /// Connects and finds where the store stands: its position, and the next record for it.
    async fn open(
        &mut self,
        stop: &watch::Receiver<bool>,
    ) -> Result<(Position, Place), StoreError> {
        self.store.connect().await?;
        let Some(mark) = self.store.mark().await? else {
            return self.refill("its mark is gone", stop).await;
        };
        if self.identity.mark(mark.position) != mark {
            return Err(StoreError::Stop {
                message: format!(
                    "store \"{}\" holds the mark of another source or slot (\"{}\")",
                    self.name, mark.slot
                ),
                remedy: "name another store, or fill this one anew with: walview rebuild"
                    .to_owned(),
                cause: None,
            });
        }
        let unknown = self.feed.reached().is_some_and(|reached| reached < mark.position);
        if unknown && !self.feed.durable_only() {
            return self.refill("its mark is none that this process has set", stop).await;
        }
        self.feed.found(mark.position);
        match self.next_after(mark.position).await? {
            Some(next) => Ok((mark.position, next)),
            None => self.refill("its mark went back further than the outbox reaches", stop).await,
        }
    }

    /// The first record that ends behind `position`; `None` where the outbox begins later.
    async fn next_after(&self, position: Position) -> Result<Option<Place>, StoreError> {
        loop {
            let mut next = self.feed.first();
            if self.feed.pruned_to().is_some_and(|pruned| position < pruned) {
                return Ok(None);
            }
            loop {
                let taken = self.feed.take(next, BATCH_BYTES).await.map_err(unreadable)?;
                let Taken::Records(records) = taken else { break };
                let before = records.iter().take_while(|record| record.to <= position);
                let Some(last) = before.last() else { break };
                next = next.behind(last.seq);
            }
            if let Some(is_there) = self.feed.stands_at(next) {
                return Ok(is_there.then_some(next));
            }
        }
    }

    async fn write(
        &mut self,
        mut at: Position,
        mut next: Place,
        in_flight: &mut Option<InFlight>,
        stop: &mut watch::Receiver<bool>,
    ) -> Result<Ended, PipelineError> {
        // A batch without an answer is written again as it was, whether it had arrived or not: the
        // store knows it by its mark, and says again what it said in the answer that was lost.
        if let Some(sent) =
            in_flight.take().filter(|sent| at == sent.batch.from || at == sent.batch.to)
        {
            match self.apply(sent, in_flight).await {
                Ok(stands) => (at, next) = stands,
                Err(error) => return Ok(Ended::Failed(error)),
            }
        }
        let mut held: Vec<Arc<Record>> = Vec::new();
        let mut last_flush: Option<Instant> = None;
        let mut last_fresh: Option<Instant> = None;
        let mut draining: Option<Instant> = None;
        let mut alarm = pin!(tokio::time::sleep(Duration::ZERO));
        loop {
            if draining.is_none() && *stop.borrow() {
                draining = Some(Instant::now());
            }
            let from = held.last().map_or(next, |record| next.behind(record.seq));
            let parted = held.first().is_some_and(|record| record.to.lsn == at.lsn);
            let bytes_max = if parted { BATCH_BYTES } else { self.pace.atomic_bytes_max };
            let room = bytes_max.saturating_sub(bytes(&held));
            let taken = self.feed.take(from, BATCH_BYTES.min(room)).await?;
            let idle = match taken {
                // After a replay the feed holds again what the store has already.
                Taken::Records(mut records) => {
                    let known = records.partition_point(|record| record.to <= at);
                    let last = records.drain(..known).next_back();
                    if let Some(last) = &last {
                        next = next.behind(last.seq);
                        self.feed.applied(next, last.to);
                    }
                    let idle = (records.is_empty() && last.is_none()).then_some(None);
                    held.append(&mut records);
                    idle
                }
                Taken::Nothing(frontier) => Some(Some(frontier)),
                Taken::Rewound(first) => {
                    held.clear();
                    next = first;
                    continue;
                }
            };
            let ready = ready(&held, bytes_max);
            let due = last_flush.map_or(Duration::ZERO, |flush| {
                self.pace.flush_every.saturating_sub(flush.elapsed())
            });
            let full = bytes(&held) >= BATCH_BYTES;
            if ready > 0 && (due.is_zero() || full || draining.is_some()) {
                let rest = held.split_off(ready);
                let records = std::mem::replace(&mut held, rest);
                last_flush = Some(Instant::now());
                let Some(last) = records.last() else { continue };
                let (to, complete, committed_at) = (last.to, last.complete, last.committed_at);
                let behind = next.behind(last.seq);
                if !self.feed.reaches(behind, to) {
                    continue;
                }
                let batch = Batch { from: at, to, complete, committed_at, records };
                match self.apply(InFlight { batch, behind }, in_flight).await {
                    Ok(stands) => (at, next) = stands,
                    Err(error) => return Ok(Ended::Failed(error)),
                }
                continue;
            }
            if ready == 0 && idle.is_none() {
                continue;
            }
            if let (Some(Some(frontier)), true) = (idle, held.is_empty()) {
                self.board.store_at(self.index, frontier.lsn, frontier.at, 0);
                if last_fresh.is_none_or(|last| last.elapsed() >= FRESH_EVERY) {
                    last_fresh = Some(Instant::now());
                    if let Err(error) = self.fresh(frontier).await {
                        return Ok(Ended::Failed(error));
                    }
                }
                if draining.is_some() {
                    return Ok(Ended::Stopping);
                }
            }
            if draining.is_some_and(|since| since.elapsed() >= DRAIN_MAX) {
                return Ok(Ended::Stopping);
            }
            // One alarm for all rounds, because to set another for each batch wakes the runtime each
            // time. It may go off before `until`: then nothing is done, and it is set again.
            let until = (Instant::now() + if ready > 0 { due } else { FRESH_EVERY }).into();
            if alarm.is_elapsed() || alarm.deadline() > until {
                alarm.as_mut().reset(until);
            }
            tokio::select! {
                () = self.feed.changed() => {}
                () = &mut alarm => {}
                _ = stop.wait_for(|stop| *stop), if draining.is_none() => {}
            }
        }
    }

    /// Writes one batch; it stays in flight until the store has answered for it. Returns where the
    /// store stands and the next record.
    async fn apply(
        &mut self,
        sent: InFlight,
        in_flight: &mut Option<InFlight>,
    ) -> Result<(Position, Place), StoreError> {
        let InFlight { batch, behind } = in_flight.insert(sent);
        let (to, complete, committed_at) = (batch.to, batch.complete, batch.committed_at);
        let behind = *behind;
        self.board.store_waits(self.index, self.feed.waiting(behind.seq.saturating_sub(1)));
        fail_point::hit(fail_point::APPLY_BEFORE);
        match self.store.apply(batch).await {
            Ok(()) => fail_point::hit(fail_point::APPLY_AFTER),
            Err(StoreError::StopView(faults)) => self.stop_views(&faults),
            Err(error) => return Err(error),
        }
        *in_flight = None;
        self.stands = Some(to);
        self.feed.applied(behind, to);
        fail_point::hit(fail_point::APPLIED);
        self.board.store_at(self.index, complete, committed_at, self.feed.waiting(behind.seq));
        Ok((to, behind))
    }

    async fn fresh(&mut self, frontier: Frontier) -> Result<(), StoreError> {
        match self.store.fresh(frontier.at, frontier.lsn).await {
            Err(StoreError::StopView(faults)) => {
                self.stop_views(&faults);
                Ok(())
            }
            done => done,
        }
    }

    fn stop_views(&mut self, faults: &[Fault]) {
        for fault in faults {
            tracing::error!(store = self.name, reason = fault.message, "a view stopped");
        }
        self.store.stop_targets((self.on_fault)(faults));
    }
}

fn bytes(records: &[Arc<Record>]) -> usize {
    records.iter().map(|record| record.ops.len()).sum()
}

/// How many of the held records make a batch: whole transactions up to `BATCH_BYTES`; else, where
/// a transaction is larger than may be held, what is there of it.
fn ready(held: &[Arc<Record>], bytes_max: usize) -> usize {
    let whole = held.iter().rposition(|record| record.ends).map_or(0, |at| at + 1);
    if whole > 0 {
        return whole;
    }
    if bytes(held) >= bytes_max { held.len() } else { 0 }
}

/// The outbox or the state cannot be read.
fn unreadable(error: StateError) -> StoreError {
    StoreError::Stop {
        message: error.to_string(),
        remedy: "look at the disk of the state folder, then start walview again".to_owned(),
        cause: Some(Box::new(error)),
    }
}

#[cfg(test)]
mod tests;
