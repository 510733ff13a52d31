//! A store that lost what it had is filled again from the local state.
//!
//! ```text
//!  local commit at P ── frozen copy ─► pages ─► store, under a `loading` mark ─► mark at R
//!  outbox            ── records behind R ─────────────────────────────────────► as always
//! ```
//!
//! P is a local commit, at or behind R; R is the furthest position that is known to have reached
//! the store: where this process brought it, what its mark or its events show, and where the
//! outbox begins. Nobody waits: the engine and other stores go on, and what it commits meanwhile
//! stays in the outbox, because the feed is told that the store stands at R before P is frozen.
//!
//! Why the result is right:
//! - *Rows.* A slot (a key, or a key and its member) that no record behind R touches is as it was at
//!   R, therefore as at P, and the refill wrote it so, or left it empty. Any other slot ends as the
//!   last record that touches it says, because operations are absolute. That records between R and
//!   P come once more over newer values shows to readers as a store that catches up: `fresh` is
//!   absent until everything has been written.
//! - *No ghosts.* Everything that the targets own is removed before the first page.
//! - *Events.* What is sent behind R has ids behind those in the streams, but for the record that R
//!   lies in, which ends behind them: Redis refuses these as a repeat. What lies before R and is
//!   gone is told by a gap entry.
//! - *A crash* leaves the `loading` mark: the next start refills again.

use super::Writer;
use super::unreadable;
use crate::fail_point;
use crate::service::PipelineError;
use crate::service::feed::Place;
use crate::service::patience::describe;
use crate::state::{Freezer, Frozen};
use crate::stores::{Store, StoreError};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use walview_core::engine::{Refill, RefillCursor, RefillPage, StateError};
use walview_core::position::Position;

/// Pages between the state and the store.
const PAGES_MAX: usize = 2;
/// How often the local store is looked at for the commit that a refill waits for.
const COMMIT_LOOK_EVERY: Duration = Duration::from_millis(20);
/// How long ids in streams are believed to be ours while no commit reaches them.
const IDS_BELIEVED_MAX: Duration = Duration::from_secs(10);

/// What a store can be filled again with.
#[derive(Clone)]
pub struct Refiller {
    pub refill: Refill,
    pub freezer: Freezer,
    pub epoch: u16,
}

impl<S: Store> Writer<S> {
    /// Fills the store again; returns its mark then, and the next record.
    pub(super) async fn refill(
        &mut self,
        reason: &str,
        stop: &watch::Receiver<bool>,
    ) -> Result<(Position, Place), StoreError> {
        if !self.store.refills() {
            return Err(StoreError::lost(&self.name, reason));
        }
        let started = Instant::now();
        self.board.refill(self.index, reason, 0);
        tracing::warn!(store = self.name, reason, "the store is filled again from the local state");
        let remains = self.store.remains().await?;
        let known = self.stands.max(self.feed.pruned_to());
        // Another epoch's is of an earlier build, or a stranger's.
        let remains = remains.filter(|position| position.epoch == self.refiller.epoch);
        let (frozen, to, next) = self.freeze(known, remains, stop).await?;
        let left_out = self.refiller.refill.left_out(&frozen.progress.stopped);
        while let Err(error) = self.store.begin_refill(to, &left_out).await {
            self.or_stop_views(error)?;
        }
        fail_point::hit(fail_point::REFILL_BEGUN);
        let rows = self.pages(reason, frozen, stop).await?;
        fail_point::hit(fail_point::REFILL_FILLED);
        self.store.set_mark(to).await?;
        self.feed.found(to);
        fail_point::hit(fail_point::REFILL_MARK_SET);
        self.board.refilled(self.index);
        let seconds = started.elapsed().as_secs_f64();
        tracing::info!(store = self.name, rows, seconds, "the store is filled again");
        Ok((to, next))
    }

    /// Tells the store which of its tables have rows, where nothing waits for it: the state is then
    /// of its mark. (Where something waits the store learns it while it is written.)
    pub(super) async fn expect_rows(&mut self, next: Place) -> Result<(), PipelineError> {
        if self.store.refills() {
            return Ok(());
        }
        let (refiller, index) = (self.refiller.clone(), self.index);
        let mut looking: JoinSet<Result<BTreeSet<u16>, StateError>> = JoinSet::new();
        looking.spawn_blocking(move || {
            let frozen = refiller.freezer.freeze()?;
            if frozen.progress.outbox_end.get(index) != Some(&next.seq) {
                return Ok(BTreeSet::new());
            }
            refiller.refill.holding(&frozen, &frozen.progress.stopped)
        });
        while let Some(looked) = looking.join_next().await {
            self.store.expect_rows(looked.map_err(PipelineError::task)??);
        }
        Ok(())
    }

    /// A frozen copy of the state at or behind where the mark will be, that position, and the first
    /// record behind it.
    async fn freeze(
        &self,
        known: Option<Position>,
        remains: Option<Position>,
        stop: &watch::Receiver<bool>,
    ) -> Result<(Frozen, Position, Place), StoreError> {
        let since = Instant::now();
        loop {
            let believed = remains.filter(|_| since.elapsed() < IDS_BELIEVED_MAX);
            // Told first, so that the commit that is frozen prunes nothing that is still needed.
            let to = known.max(believed).unwrap_or_default();
            let next = self.next_after(to).await?;
            let frozen = self.refiller.freezer.freeze().map_err(unreadable)?;
            let at = frozen.progress.emitted_to(self.refiller.epoch);
            // Inside a transaction there is no state that a reader may see.
            if at >= to && frozen.progress.partial.is_none() {
                let next = next.ok_or_else(|| {
                    StoreError::retry("the outbox was pruned while a refill began")
                })?;
                return Ok((frozen, to, next));
            }
            if *stop.borrow() {
                return Err(stopping());
            }
            tokio::time::sleep(COMMIT_LOOK_EVERY).await;
        }
    }

    /// Writes every page; returns how many rows there were.
    async fn pages(
        &mut self,
        reason: &str,
        frozen: Frozen,
        stop: &watch::Receiver<bool>,
    ) -> Result<u64, StoreError> {
        let (send, mut received) = mpsc::channel::<RefillPage>(PAGES_MAX);
        let refill = self.refiller.refill.clone();
        let mut rendering: JoinSet<Result<(), StateError>> = JoinSet::new();
        rendering.spawn_blocking(move || {
            let mut cursor = Some(RefillCursor::default());
            while let Some(at) = cursor {
                let mut page = refill.page(&frozen, &frozen.progress.stopped, at)?;
                cursor = page.next.take();
                if send.blocking_send(page).is_err() {
                    break;
                }
            }
            Ok(())
        });
        let mut rows = 0;
        while let Some(page) = received.recv().await {
            if *stop.borrow() {
                return Err(stopping());
            }
            if let Err(error) = self.store.refill(&page).await {
                self.or_stop_views(error)?;
            }
            rows += page.rows;
            self.board.refill(self.index, reason, rows);
            fail_point::hit(fail_point::REFILL_PAGE);
        }
        match rendering.join_next().await {
            Some(Ok(rendered)) => rendered.map_err(unreadable)?,
            Some(Err(error)) => {
                return Err(StoreError::stop(
                    format!("a refill failed: {}", describe(&error)),
                    "this is a bug in walview; please report it",
                ));
            }
            None => {}
        }
        Ok(rows)
    }

    /// Targets that cannot be written stop alone; every other error ends the attempt.
    fn or_stop_views(&mut self, error: StoreError) -> Result<(), StoreError> {
        let StoreError::StopView(faults) = error else {
            return Err(error);
        };
        self.stop_views(&faults);
        Ok(())
    }
}

/// The process ends; the next start refills again.
fn stopping() -> StoreError {
    StoreError::retry("walview is stopping")
}
