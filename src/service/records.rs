//! Records on their way from the engine to the feeds and the outbox.
//!
//! ```text
//!  engine ── parts ──► number ──► unpublished ── publish ──► feeds (memory)
//!                         └─────► pending ── local commit, or written ahead ──► outbox
//! ```
//!
//! Invariant: numbers have no gaps and follow from what the engine emitted, in its order.

use super::engine_loop::Outlet;
use super::feed::Frontier;
use crate::fail_point;
use crate::state::{COMMIT_BYTES, LocalStore, Progress};
use std::sync::Arc;
use walview_core::engine::{Page, Part, ReadState, Space, State, StateError};
use walview_core::outbox::Record;

/// What the feeds get at once, at most.
const UNPUBLISHED_BYTES_MAX: usize = 2 << 20;

#[derive(Default)]
pub struct Records {
    /// Emitted since the last local commit and not written ahead: (store, record).
    pending: Vec<(usize, Arc<Record>)>,
    pending_bytes: usize,
    /// By store, numbered and not yet given to its feed.
    unpublished: Vec<Vec<Arc<Record>>>,
    unpublished_bytes: usize,
    /// The feeds do not know of the last one yet, which may be of a frontier alone.
    handed_over: bool,
}

impl Records {
    /// Of operations that the next local commit writes.
    pub(super) fn pending_bytes(&self) -> usize {
        self.pending_bytes
    }

    /// What the next local commit writes: (store, record).
    pub(super) fn pending(&self) -> impl Iterator<Item = (usize, &Record)> {
        self.pending.iter().map(|(store, record)| (*store, &**record))
    }

    /// The outbox has them.
    pub(super) fn written(&mut self) {
        self.pending.clear();
        self.pending_bytes = 0;
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// What the engine emitted as numbered records by store, kept for the next commit.
    pub(super) fn number(
        &mut self,
        parts: Vec<Part>,
        progress: &mut Progress,
    ) -> Vec<Vec<Arc<Record>>> {
        let mut by_store: Vec<Vec<Arc<Record>>> = vec![Vec::new(); progress.outbox_end.len()];
        for Part { store, to, complete, committed_at, ends, ops } in parts {
            let (Some(end), Some(records)) =
                (progress.outbox_end.get_mut(store), by_store.get_mut(store))
            else {
                continue;
            };
            let record = Arc::new(Record { seq: *end, to, complete, committed_at, ends, ops });
            *end += 1;
            if let Some(bytes) = progress.outbox_bytes.get_mut(store) {
                *bytes += u64::try_from(record.ops.len()).unwrap_or(u64::MAX);
            }
            self.pending_bytes += record.ops.len();
            self.pending.push((store, Arc::clone(&record)));
            records.push(record);
        }
        by_store
    }

    /// Numbers what the engine emitted, for the feeds and for the next commit. Whether the feeds
    /// must get it now; else they get it together with what follows.
    #[must_use]
    pub(super) fn hand_over(&mut self, parts: Vec<Part>, progress: &mut Progress) -> bool {
        let by_store = self.number(parts, progress);
        self.unpublished.resize(by_store.len(), Vec::new());
        for (unpublished, mut records) in self.unpublished.iter_mut().zip(by_store) {
            self.unpublished_bytes += records.iter().map(|record| record.ops.len()).sum::<usize>();
            unpublished.append(&mut records);
        }
        self.handed_over = true;
        self.unpublished_bytes >= UNPUBLISHED_BYTES_MAX
    }

    /// Of operations that the feeds do not weigh yet.
    pub(super) fn unpublished_bytes(&self) -> u64 {
        u64::try_from(self.unpublished_bytes).unwrap_or(u64::MAX)
    }

    /// Gives the feeds what was handed over.
    pub(super) fn publish(&mut self, outlets: &[Outlet], frontier: Frontier) {
        if !std::mem::take(&mut self.handed_over) {
            return;
        }
        self.unpublished_bytes = 0;
        fail_point::hit(fail_point::HAND_OVER_BEFORE);
        push(outlets, std::mem::take(&mut self.unpublished), frontier);
        fail_point::hit(fail_point::HAND_OVER_AFTER);
    }
}

/// Gives records to the feeds.
pub(super) fn push(outlets: &[Outlet], by_store: Vec<Vec<Arc<Record>>>, frontier: Frontier) {
    for (outlet, records) in outlets.iter().zip(by_store) {
        outlet.feed.push(records, frontier);
    }
}

/// The state while a change is applied: what a change that fans out widely emits is taken away in
/// between, and goes to disk before the commit that owns it.
pub(super) struct Applying<'a> {
    pub(super) store: &'a mut LocalStore,
    pub(super) records: &'a mut Records,
    pub(super) progress: &'a mut Progress,
    pub(super) outlets: &'a [Outlet],
    pub(super) frontier: Frontier,
}

impl ReadState for Applying<'_> {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        self.store.get(space, key)
    }

    fn scan(
        &self,
        space: Space,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Page, StateError> {
        self.store.scan(space, prefix, after, limit)
    }
}

impl State for Applying<'_> {
    fn put(&mut self, space: Space, key: &[u8], value: &[u8]) {
        self.store.put(space, key, value);
    }

    fn delete(&mut self, space: Space, key: &[u8]) {
        self.store.delete(space, key);
    }

    fn spill(&mut self, parts: Vec<Part>) -> Result<Vec<Part>, StateError> {
        if !self.records.hand_over(parts, self.progress)
            && self.records.pending_bytes < COMMIT_BYTES
        {
            return Ok(Vec::new());
        }
        self.records.publish(self.outlets, self.frontier);
        if self.records.pending_bytes >= COMMIT_BYTES {
            self.store.write_ahead(self.records.pending())?;
            fail_point::hit(fail_point::WRITE_AHEAD_AFTER);
            self.records.written();
        }
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::super::feed::{Feed, Taken};
    use super::*;
    use std::time::Duration;
    use walview_core::position::{Lsn, Position};

    /// With a backlog: the more of them go together, the less their last states cost a store.
    #[test]
    fn transactions_are_kept_for_the_feeds_up_to_a_weight() {
        let folder = tempfile::tempdir().unwrap();
        let outbox = LocalStore::open(folder.path()).unwrap().outbox();
        let feed = Arc::new(Feed::new((0, false), outbox, (0, None), (0, 0), Frontier::default()));
        let outlets = [Outlet { feed: Arc::clone(&feed), window: Duration::ZERO }];
        let mut progress =
            Progress { outbox_end: vec![0], outbox_bytes: vec![0], ..Progress::default() };
        let mut records = Records::default();
        let bytes = UNPUBLISHED_BYTES_MAX / 100;
        let transaction = |lsn: u64| Part {
            store: 0,
            to: Position::end_of(1, Lsn(lsn)),
            complete: Lsn(lsn),
            committed_at: 0,
            ends: true,
            ops: vec![0; bytes].into(),
        };
        let frontier = Frontier { lsn: Lsn(101), at: 0 };
        for lsn in 1..=100 {
            assert!(!records.hand_over(vec![transaction(lsn)], &mut progress), "{lsn}");
        }
        assert!(matches!(feed.held(feed.first(), 1).unwrap(), Taken::Nothing(_)));
        assert!(records.hand_over(vec![transaction(101)], &mut progress));
        records.publish(&outlets, frontier);
        let Taken::Records(taken) = feed.held(feed.first(), usize::MAX).unwrap() else { panic!() };
        assert_eq!(taken.len(), 101);
        // The frontier moves without records, too.
        let later = Frontier { lsn: Lsn(200), at: 0 };
        assert!(!records.hand_over(Vec::new(), &mut progress));
        records.publish(&outlets, later);
        let end = feed.held(feed.end(), 1).unwrap();
        assert!(matches!(end, Taken::Nothing(at) if at == later), "{end:?}");
        // Nobody handed over anything since.
        records.publish(&outlets, frontier);
        let end = feed.held(feed.end(), 1).unwrap();
        assert!(matches!(end, Taken::Nothing(at) if at == later), "{end:?}");
    }
}
