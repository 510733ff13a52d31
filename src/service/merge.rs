//! Which transactions of a gulp are told together.
//!
//! ```text
//!  gulp   B c c C │ B c C │ B c C │ B c …        B, c, C: begin, change, commit
//!         └──────── one ────────┘   └ comes whole with a later gulp
//! ```
//!
//! With a backlog many transactions are at hand at once, and stores get them together anyhow: a group that
//! many of them change is emitted once, with the last. Without one each comes alone, and is told at once.
//!
//! Invariants:
//! - what is merged with the transaction before is whole here, small, and changes rows alone that no view joins:
//!   nothing of it is cut or made durable before its end, and all of it is emitted in one go;
//! - no store may stand inside a merge: what a merged group's operations take away is what was told before the
//!   merge. A store that is fed from memory may have come further in an earlier session, or in a life that
//!   crashed, so nothing that lies before its place there is merged with what lies behind it.

use super::engine_loop::EngineLoop;
use super::feed::Feed;
use super::ingest::Relations;
use super::schema::has_passed;
use crate::source::stream::Event;
use walview_core::engine::Layout;
use walview_core::pgoutput;
use walview_core::position::{Lsn, Position};

/// Changes of a transaction that is merged with the one before. Of a larger one little is saved, and it would
/// have to be emitted in parts.
const MERGED_CHANGES_MAX: usize = 32;

/// For each commit in `events` how many changes the transaction behind it makes, where the two may be merged.
pub(super) fn followers(
    events: &[Event],
    relations: &Relations,
    layout: &Layout,
) -> Vec<Option<usize>> {
    let mut known = None;
    let mut is_fact = |oid| match known {
        Some((of, is_fact)) if of == oid => is_fact,
        _ => {
            let is_fact = relations.is_fact(layout, oid);
            known = Some((oid, is_fact));
            is_fact
        }
    };
    // Changes of the transaction that has begun here, as long as it may be merged.
    let mut open: Option<usize> = None;
    let mut followers = Vec::new();
    for event in events {
        match event {
            Event::Begin { .. } => open = Some(0),
            Event::Data(message) => {
                let fits = |changes: &usize| {
                    *changes < MERGED_CHANGES_MAX
                        && pgoutput::changed_relation(message).is_some_and(&mut is_fact)
                };
                open = open.filter(fits).map(|changes| changes + 1);
            }
            Event::Commit { .. } => followers.push(open.take()),
            Event::KeepAlive { .. } | Event::Message { .. } => {}
        }
    }
    // Nothing is known of the one behind the last.
    followers.push(None);
    followers.remove(0);
    followers
}

impl EngineLoop {
    /// Whether the open transaction, whose commit record is at `commit` and ends at `end`, may be merged with
    /// the next one: nothing has to be known or done between the two, and no store stands there.
    pub(super) fn may_merge(&self, commit: Lsn, end: Lsn, changes: usize) -> bool {
        let ends = Position::end_of(self.engine.epoch(), commit);
        let stands_before = |feed: &Feed| match feed.reached() {
            Some(reached) => reached < ends,
            // It may have all that the log held when the session began.
            None => commit >= self.replay_to,
        };
        let mut in_memory =
            self.outlets.iter().map(|outlet| &*outlet.feed).filter(|feed| !feed.durable_only());
        self.progress.partial.is_none()
            && self.grown.is_none()
            && !self.schema.looks.front().is_some_and(|look| has_passed(end, look.lsn))
            && in_memory.all(stands_before)
            && self.engine.may_merge(changes)
    }
}

#[cfg(test)]
mod tests;
