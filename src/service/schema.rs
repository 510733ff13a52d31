//! What the engine loop knows of the source's schema, and what it does when that changes.
//!
//! ```text
//!  watch ── Look (fingerprint, LSN) ──► waits until the stream has come to that LSN, between
//!                                       transactions ──► drift::stops ──► views stop, in one local
//!                                            │                            commit ──► new baseline
//!                                            └─► drift::grown ──► the session ends ──► follow.rs
//! ```
//!
//! Invariants:
//! - a fingerprint is judged when the stream has passed what it shows, so a Relation message or a
//!   TRUNCATE that explains a difference has been seen;
//! - a view that stops by what the log does not tell is stopped in the local commit that holds all
//!   that was emitted before, so that a replay emits the same.

use super::PipelineError;
use super::drift::{self, Uses};
use super::engine_loop::EngineLoop;
use super::follow::Grown;
use super::ingest::stop_view;
use crate::source::fingerprint::{Fingerprint, OwnAlter, TablePrint};
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::Notify;
use walview_core::position::Lsn;

/// Fingerprints that wait for the stream. Each is a schema that was in force for a moment; above
/// this the newest takes the place of the one before.
const LOOKS_MAX: usize = 64;
/// Replaced memberships that are remembered: they matter until the next look is judged.
const OWN_MAX: usize = 1024;
/// Page of the log, and the longest header at its start: a position there is where the page begins.
const WAL_PAGE_BYTES: u64 = 8192;
const WAL_HEADER_BYTES: u64 = 40;

/// A fingerprint on its way to be judged.
pub struct Look {
    pub print: Fingerprint,
    pub lsn: Lsn,
}

/// The schema as it was last accepted.
pub struct Schema {
    pub accepted: Fingerprint,
    /// Memberships that Walview itself replaced, or was about to, the newest last.
    pub own: Vec<OwnAlter>,
    /// By view, the inputs of which `*` shows every column.
    pub stars: Vec<Vec<usize>>,
    /// Asks for a look at once.
    pub changed: Arc<Notify>,
    pub(super) looks: VecDeque<Look>,
}

impl Schema {
    #[must_use]
    pub fn new((accepted, own): (Fingerprint, Vec<OwnAlter>), stars: Vec<Vec<usize>>) -> Self {
        Self { accepted, own, stars, changed: Arc::default(), looks: VecDeque::new() }
    }

    pub(super) fn push(&mut self, look: Look) {
        if self.looks.len() >= LOOKS_MAX
            && let Some(last) = self.looks.back_mut()
        {
            *last = look;
            return;
        }
        self.looks.push_back(look);
    }
}

impl EngineLoop {
    /// Makes it durable that memberships will be replaced by Walview itself.
    pub(super) fn intend(&mut self, own: Vec<OwnAlter>) -> Result<(), PipelineError> {
        self.schema.own.extend(own);
        let over = self.schema.own.len().saturating_sub(OWN_MAX);
        self.schema.own.drain(..over);
        Ok(self.store.write_own_alters(&self.schema.own)?)
    }

    /// Judges what the stream has come to; nothing inside a transaction.
    pub(super) fn judge(&mut self) -> Result<(), PipelineError> {
        let confirmed = self.progress.confirmed();
        while !self.in_transaction
            && self.schema.looks.front().is_some_and(|look| has_passed(confirmed, look.lsn))
            && let Some(look) = self.schema.looks.pop_front()
        {
            let layout = self.engine.shared_layout();
            let uses = Uses {
                layout: &layout,
                catalog: &self.catalog,
                stars: &self.schema.stars,
                truncated: &self.progress.truncated,
                own: &self.schema.own,
            };
            let (before, stopped) = (&self.schema.accepted, self.engine.stopped());
            if let Some((table, column)) = drift::grown(uses, stopped, before, &look.print) {
                if self.progress.partial.is_some() {
                    self.schema.looks.push_front(look);
                    break;
                }
                self.commit()?;
                let below = self.progress.confirmed();
                return Err(PipelineError::Grown(Grown { table, column, below }));
            }
            let stops = drift::stops(uses, before, &look.print);
            let explained = refiled(&self.schema.accepted, &look.print);
            let mut commit = !stops.is_empty();
            for (view, why) in stops {
                stop_view(&mut self.engine, view, why);
            }
            let kept = self.progress.truncated.len();
            self.progress.truncated.retain(|oid| !explained.contains(oid));
            commit |= kept != self.progress.truncated.len();
            if commit {
                self.commit()?;
            }
            // After the stops: what is lost of a crash in between is judged again.
            if look.print != self.schema.accepted {
                self.store.write_fingerprint(&look.print)?;
                self.schema.accepted = look.print;
            }
        }
        Ok(())
    }
}

/// Everything committed below `lsn` has been applied.
pub(super) fn has_passed(confirmed: Lsn, lsn: Lsn) -> bool {
    let into_page = lsn.0 % WAL_PAGE_BYTES;
    // Nothing lies between the start of a page and what follows its header.
    let needed = if into_page <= WAL_HEADER_BYTES { lsn.0 - into_page } else { lsn.0 };
    confirmed.0 >= needed
}

/// The tables that have other files than before.
fn refiled(before: &Fingerprint, now: &Fingerprint) -> Vec<u32> {
    let files = |table: &TablePrint| {
        let parts = table.parts.iter().map(|part| (part.oid, part.file)).collect::<Vec<_>>();
        (table.file, parts)
    };
    let known = |now: &&TablePrint| {
        before.tables.iter().any(|before| before.oid == now.oid && files(before) != files(now))
    };
    now.tables.iter().filter(known).filter_map(|table| table.oid).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_of_a_page_is_reached_with_the_end_of_the_one_before() {
        assert!(has_passed(Lsn(0x2000), Lsn(0x2018)));
        assert!(has_passed(Lsn(0x2000), Lsn(0x2028)));
        assert!(!has_passed(Lsn(0x2000), Lsn(0x2030)));
        assert!(!has_passed(Lsn(0x1FF8), Lsn(0x2000)));
        assert!(has_passed(Lsn(0x2030), Lsn(0x2030)));
    }
}
