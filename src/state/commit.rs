//! One local commit, as its thread writes it.

use super::Outbox;
use super::cache::ReadCache;
use super::journal::{Journal, Names};
use super::outbox::lock;
use super::overlay::Overlay;
use super::run::Run;
use super::tables::Shared;
use std::sync::{Arc, Mutex};
use walview_core::outbox::Record;

/// A commit, to be written by a thread.
pub(super) struct Commit {
    pub(super) outbox: Outbox,
    pub(super) records: Vec<(usize, Record)>,
    pub(super) journal: Arc<Mutex<Journal>>,
    /// What changes in the journal's names, the progress among it; `None` where nothing is to be durable.
    pub(super) names: Option<Names>,
    pub(super) overlay: Arc<Overlay>,
    pub(super) reads: Arc<ReadCache>,
    pub(super) shared: Shared,
}

impl Commit {
    pub(super) fn write(self) -> std::io::Result<()> {
        self.outbox.append(self.records.iter().map(|(store, record)| (*store, record)))?;
        let run = Run::of(&self.overlay);
        let (segment, progress) = match self.names {
            Some(names) => {
                let progress = names.get("progress").cloned();
                self.outbox.sync()?;
                let bytes = if run.is_empty() { &[] } else { run.bytes() };
                (Some(lock(&self.journal).write(names, bytes)?), progress)
            }
            None => (None, None),
        };
        for (space, entries) in self.overlay.entries() {
            for (key, value) in entries.iter() {
                self.reads.written(space, key, value);
            }
        }
        self.shared.push(run, segment, progress);
        Ok(())
    }
}
