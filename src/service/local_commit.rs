//! Local commits of the engine loop: begun by the loop, written by a thread of the local store, finished
//! by the loop.
//!
//! Invariants:
//! - an LSN is confirmed, and what stores have goes from the outbox, once the commit that says so is durable;
//! - where the outbox begins is durable before anything of it goes.

use super::PipelineError;
use super::engine_loop::EngineLoop;
use super::feed::Pushed;
use super::ingest::stop_view;
use crate::fail_point;
use crate::state::COMMIT_BYTES;
use std::sync::PoisonError;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;
use walview_core::position::Lsn;

/// How long a change may wait for its local commit.
pub(super) const COMMIT_EVERY: Duration = Duration::from_millis(100);
/// How often a position that came without changes is made durable.
const IDLE_COMMIT_EVERY: Duration = Duration::from_secs(1);

/// A local commit that another thread writes.
pub(super) struct UnderWay {
    pub(super) done: oneshot::Receiver<()>,
    confirmed: Lsn,
    /// By outlet: what it holds, and which records go from the outbox once it is durable.
    outlets: Vec<(Pushed, Option<u64>)>,
}

impl EngineLoop {
    /// When the next local commit is due; `None` where there is nothing to commit. Inside a
    /// transaction there is nothing to commit but what `cut` made whole. One that is on its way is not
    /// waited for, so that stores fed from memory do not wait for a slow disk, unless much gathers.
    pub(super) fn commit_due_at(&self, now: Instant) -> Option<Instant> {
        if self.in_transaction || !(self.uncommitted || self.idle_position) {
            return None;
        }
        if self.is_large() {
            return Some(now);
        }
        if self.under_way.is_some() {
            return None;
        }
        Some(self.last_commit + if self.uncommitted { COMMIT_EVERY } else { IDLE_COMMIT_EVERY })
    }

    pub(super) fn commit_if_large(&mut self) -> Result<(), PipelineError> {
        if self.is_large() { self.begin_commit() } else { Ok(()) }
    }

    fn is_large(&self) -> bool {
        self.store.pending_bytes() + self.records.pending_bytes() >= COMMIT_BYTES
    }

    /// The local commit: everything whole is durable then.
    pub(super) fn commit(&mut self) -> Result<(), PipelineError> {
        self.begin_commit()?;
        self.finish_commit()
    }

    /// Begins the local commit, and waits for the one before.
    pub(super) fn begin_commit(&mut self) -> Result<(), PipelineError> {
        self.finish_commit()?;
        self.publish();
        let faults =
            std::mem::take(&mut *self.faults.lock().unwrap_or_else(PoisonError::into_inner));
        for (view, why) in faults {
            stop_view(&mut self.engine, view, why);
        }
        self.progress.stopped = self.engine.stopped().to_vec();
        // Where the outbox begins is durable before anything of it goes.
        let prunable: Vec<_> =
            self.outlets.iter().map(|outlet| outlet.feed.prunable(outlet.window)).collect();
        self.progress.outbox_bytes =
            self.outlets.iter().map(|outlet| outlet.feed.bytes()).collect();
        for (outlet, pruned) in self.outlets.iter().zip(&mut self.progress.pruned) {
            if let Some(position) = outlet.feed.pruned_to() {
                *pruned = position.to_string();
            }
        }
        self.engine.save(&mut self.store);
        fail_point::hit(fail_point::COMMIT_BEFORE);
        let (tell, done) = oneshot::channel();
        let tell = || {
            tell.send(()).ok();
        };
        self.store.begin_commit(self.records.pending(), &self.progress, tell)?;
        let pushed = self.outlets.iter().map(|outlet| outlet.feed.pushed());
        self.under_way = Some(UnderWay {
            done,
            confirmed: self.progress.confirmed(),
            outlets: pushed.zip(prunable).collect(),
        });
        self.records.written();
        self.uncommitted = false;
        self.idle_position = false;
        self.last_commit = Instant::now();
        Ok(())
    }

    /// Waits for the local commit that is on its way, if one is.
    pub(super) fn finish_commit(&mut self) -> Result<(), PipelineError> {
        let Some(UnderWay { confirmed, outlets, .. }) = self.under_way.take() else {
            return Ok(());
        };
        self.store.finish_commit()?;
        fail_point::hit(fail_point::COMMIT_AFTER);
        self.durable = confirmed;
        let outbox = self.store.outbox();
        for (index, (outlet, (pushed, prunable))) in self.outlets.iter().zip(outlets).enumerate() {
            outlet.feed.committed(pushed);
            if let Some(before) = prunable {
                outbox.prune(index, before)?;
                fail_point::hit(fail_point::PRUNE_AFTER);
            }
        }
        self.board.local(self.durable, &self.engine);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::orders::tests::{parked, resumed};
    use super::*;
    use walview_core::engine::{Space, State as _};

    /// The loop would wait for the disk, and what Redis should show meanwhile with it.
    #[test]
    fn a_commit_waits_for_the_one_on_its_way_only_where_much_has_gathered() {
        let folder = tempfile::tempdir().expect("a folder");
        parked(folder.path());
        let mut of = resumed(folder.path(), "10 / amount");
        let now = of.last_commit + COMMIT_EVERY * 2;
        assert_eq!(of.commit_due_at(now), None);
        of.uncommitted = true;
        assert_eq!(of.commit_due_at(now), Some(of.last_commit + COMMIT_EVERY));
        let (_tell, done) = oneshot::channel();
        of.under_way = Some(UnderWay { done, confirmed: Lsn(1), outlets: Vec::new() });
        assert_eq!(of.commit_due_at(now), None);
        of.store.put(Space::Rows, b"key", &vec![0; COMMIT_BYTES]);
        assert_eq!(of.commit_due_at(now), Some(now));
    }
}
