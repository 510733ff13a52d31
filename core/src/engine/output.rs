//! What the engine hands to the stores: rendered operations, in parts of bounded size.
//!
//! Invariant: how the operations of a transaction are cut into parts follows from these alone, never from
//! timing, so a replay gives the same parts with the same positions. Transactions that are merged are one part.

use super::EngineError;
use super::fan_out::Held;
use super::letters::{self, Counts};
use super::state::{State, StateError};
use crate::position::{Lsn, Position};
use crate::target::{Change, Commit, RenderError, Scratch, clickhouse, redis};
use bytes::Bytes;

/// A part is cut when its operations pass this many bytes: what a store's writer takes in one go.
pub(super) const PART_BYTES: usize = 1 << 20;

/// A target bound to its view.
#[derive(Clone, Debug)]
pub struct Target {
    pub view: usize,
    /// Index of the store in the pipeline.
    pub store: usize,
    /// The target's number among its store's.
    pub number: u16,
    pub kind: TargetKind,
}

#[derive(Clone, Debug)]
pub enum TargetKind {
    Redis(redis::Target),
    ClickHouse(clickhouse::Target),
}

impl TargetKind {
    /// Whether the target records changes rather than the result itself.
    #[must_use]
    pub fn is_events(&self) -> bool {
        match self {
            Self::Redis(target) => target.is_stream(),
            Self::ClickHouse(_) => false,
        }
    }
}

/// Operations of one source transaction (or a part of it) for one store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    pub store: usize,
    /// The position of the last operation; the end of the commit where `ends`.
    pub to: Position,
    /// Everything committed before this LSN is in what was emitted up to here: the transaction's
    /// own, or that of the oldest one for which a view is still being corrected.
    pub complete: Lsn,
    /// The time of that commit: microseconds since 2000-01-01 UTC.
    pub committed_at: i64,
    /// Whether the transaction ends with this part.
    pub ends: bool,
    /// Encoded operations of the store's kind.
    pub ops: Bytes,
}

pub(super) struct Output {
    pub targets: Vec<Target>,
    /// By view, the indexes of its targets.
    of_view: Vec<Vec<usize>>,
    stores: Vec<StoreOutput>,
    scratch: Scratch,
    parts: Vec<Part>,
    pub epoch: u16,
    pub lsn: Lsn,
    pub commit: Commit,
    /// What is complete in every view while one is being corrected. It goes where groups were
    /// flushed, so that no part claims what waits in memory.
    pub held: Option<Held>,
    /// What an earlier transaction emitted waits for the end of this one.
    pub merged: bool,
    /// A snapshot shows what is there; it is not a series of events.
    pub snapshot: bool,
    pub letters: Counts,
}

#[derive(Default)]
struct StoreOutput {
    /// Of the last change emitted in this transaction.
    ordinal: u64,
    /// The same where the transaction or order began.
    began: u64,
    ops: Vec<u8>,
    /// A part went out that does not end its transaction.
    open: bool,
}

impl Output {
    pub(super) fn new(targets: Vec<Target>, stores: usize, views: usize, epoch: u16) -> Self {
        let of_view = |view| {
            let of = targets.iter().enumerate().filter(|(_, target)| target.view == view);
            of.map(|(index, _)| index).collect()
        };
        Self {
            of_view: (0..views).map(of_view).collect(),
            targets,
            scratch: Scratch::default(),
            stores: std::iter::repeat_with(StoreOutput::default).take(stores).collect(),
            parts: Vec::new(),
            epoch,
            lsn: Lsn(0),
            commit: Commit { committed_at: 0 },
            held: None,
            merged: false,
            snapshot: false,
            letters: Counts::new(views),
        }
    }

    /// Whether nothing but `ClickHouse` shows a view.
    pub(super) fn is_columnar(&self, view: usize) -> bool {
        let targets = self.of_view.get(view).into_iter().flatten();
        let mut targets = targets.filter_map(|index| self.targets.get(*index));
        targets.all(|target| matches!(target.kind, TargetKind::ClickHouse(_)))
    }

    pub(super) fn begin(&mut self, lsn: Lsn, committed_at: i64, ordinals: &[u64]) {
        self.lsn = lsn;
        self.commit = Commit { committed_at };
        for (index, store) in self.stores.iter_mut().enumerate() {
            store.ordinal = ordinals.get(index).copied().unwrap_or(0);
            store.began = store.ordinal;
        }
    }

    pub(super) fn ordinals(&self) -> Vec<u64> {
        self.stores.iter().map(|store| store.ordinal).collect()
    }

    /// Renders one change of a view's result for each of the view's targets. A target that cannot
    /// hold the new row loses the old one, and the row is parked.
    pub(super) fn emit(
        &mut self,
        state: &mut impl State,
        view: usize,
        key: &[usize],
        change: &Change<'_>,
    ) -> Result<(), EngineError> {
        let mut nth = 0;
        while let Some(index) = self.of_view.get(view).and_then(|of| of.get(nth)).copied() {
            nth += 1;
            let Some(target) = self.targets.get(index) else {
                continue;
            };
            if self.snapshot && target.kind.is_events() {
                continue;
            }
            let Some(store) = self.stores.get_mut(target.store) else {
                continue;
            };
            store.ordinal += 1;
            let at = Position { epoch: self.epoch, lsn: self.lsn, ordinal: store.ordinal };
            let rendered = store.render(target, change, at, self.commit, &mut self.scratch);
            match rendered {
                // The operations that take the old row away are rendered all the same.
                Err(error) if !matches!(error, RenderError::Position(_)) => {
                    let letter = letters::of_result(view, index, key, change);
                    let about = (view, Some(index));
                    let letter = self.letter(letter, about, error.to_string(), at.ordinal);
                    self.park(state, letter)?;
                }
                Err(error) => return Err(EngineError::Inconsistent(error.to_string())),
                Ok(()) if self.letters.any(view) => {
                    let letter = letters::of_result(view, index, key, change);
                    self.letters.unpark(state, &letter)?;
                }
                Ok(()) => {}
            }
            self.cut_full(index, at);
        }
        Ok(())
    }

    /// Renders a row for one target alone. Returns why it cannot hold the row, where it cannot.
    pub(super) fn deliver(
        &mut self,
        index: usize,
        change: &Change<'_>,
    ) -> Result<Option<String>, EngineError> {
        let Some(target) = self.targets.get(index) else {
            return Ok(Some("the target is gone".to_owned()));
        };
        let Some(store) = self.stores.get_mut(target.store) else {
            return Ok(Some("the store is gone".to_owned()));
        };
        let ordinal = store.ordinal + 1;
        let at = Position { epoch: self.epoch, lsn: self.lsn, ordinal };
        match store.render(target, change, at, self.commit, &mut self.scratch) {
            Err(error @ RenderError::Position(_)) => {
                Err(EngineError::Inconsistent(error.to_string()))
            }
            Err(error) => Ok(Some(error.to_string())),
            Ok(()) => {
                store.ordinal = ordinal;
                self.cut_full(index, at);
                Ok(None)
            }
        }
    }

    /// Cuts the part of a target's store, where it is full. What is merged is told as one.
    fn cut_full(&mut self, index: usize, at: Position) {
        if let Some(target) = self.targets.get(index)
            && !self.merged
            && let Some(store) = self.stores.get_mut(target.store)
            && store.ops.len() >= PART_BYTES
        {
            self.parts.push(store.cut(target.store, at, (self.commit, self.held), false));
        }
    }

    /// Ends the transaction: what is left becomes each store's last part.
    pub(super) fn end(&mut self) {
        let end = Position::end_of(self.epoch, self.lsn);
        for (index, store) in self.stores.iter_mut().enumerate() {
            if store.ordinal > 0 || store.open || !store.ops.is_empty() {
                self.parts.push(store.cut(index, end, (self.commit, self.held), true));
                store.ordinal = 0;
            }
        }
        self.merged = false;
    }

    /// Of the transactions that end with the open one.
    pub(super) fn waiting_bytes(&self) -> usize {
        self.stores.iter().map(|store| store.ops.len()).sum()
    }

    /// Ends an order: what is left becomes each store's last part, and a later order may go on
    /// behind it at the same LSN. Returns the ordinals by store.
    pub(super) fn end_order(&mut self) -> Vec<u64> {
        let ordinals = self.ordinals();
        for (index, store) in self.stores.iter_mut().enumerate() {
            if store.ordinal > store.began {
                let at = Position { epoch: self.epoch, lsn: self.lsn, ordinal: store.ordinal };
                self.parts.push(store.cut(index, at, (self.commit, self.held), true));
            }
            store.ordinal = 0;
        }
        ordinals
    }

    /// Cuts what is there so far, without ending the transaction.
    pub(super) fn cut(&mut self) {
        for (index, store) in self.stores.iter_mut().enumerate() {
            if !store.ops.is_empty() {
                let at = Position { epoch: self.epoch, lsn: self.lsn, ordinal: store.ordinal };
                self.parts.push(store.cut(index, at, (self.commit, self.held), false));
            }
        }
    }

    pub(super) fn abort(&mut self) {
        self.parts.clear();
        self.merged = false;
        for store in &mut self.stores {
            *store = StoreOutput::default();
        }
    }

    /// Offers what was cut so far to the state.
    pub(super) fn spill(&mut self, state: &mut impl State) -> Result<(), StateError> {
        if !self.parts.is_empty() {
            self.parts = state.spill(std::mem::take(&mut self.parts))?;
        }
        Ok(())
    }

    pub(super) fn take(&mut self) -> Vec<Part> {
        std::mem::take(&mut self.parts)
    }
}

impl StoreOutput {
    fn render(
        &mut self,
        target: &Target,
        change: &Change<'_>,
        at: Position,
        commit: Commit,
        scratch: &mut Scratch,
    ) -> Result<(), RenderError> {
        let (number, out) = (target.number, &mut self.ops);
        match &target.kind {
            TargetKind::Redis(target) => target.render(number, change, at, &commit, scratch, out),
            TargetKind::ClickHouse(target) => {
                target.render(number, change, at, &commit, scratch, out)
            }
        }
    }

    fn cut(
        &mut self,
        store: usize,
        to: Position,
        (commit, held): (Commit, Option<Held>),
        ends: bool,
    ) -> Part {
        // The buffer stays: growing it anew for each transaction costs more than the copy.
        let ops = Bytes::copy_from_slice(&self.ops);
        self.ops.clear();
        self.open = !ends;
        let Held { lsn: complete, at: committed_at } =
            held.unwrap_or(Held { lsn: to.lsn, at: commit.committed_at });
        Part { store, to, complete, committed_at, ends, ops }
    }
}
