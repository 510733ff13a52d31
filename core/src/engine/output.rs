//! What the engine hands to the stores: rendered operations, in parts of bounded size.
//!
//! Invariant: how operations are cut into parts follows from the operations alone, never from
//! timing, so a replay gives the same parts with the same positions.

use super::EngineError;
use super::state::{Space, State, StateError};
use crate::position::{Lsn, Position};
use crate::target::{Change, Commit, RenderError, clickhouse, redis};
use crate::value::{self, Value};

/// A part is cut when its operations pass this many bytes: what a store's writer takes in one go.
const PART_BYTES: usize = 1 << 20;

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
    /// Microseconds since 2000-01-01 UTC.
    pub committed_at: i64,
    /// Whether the transaction ends with this part.
    pub ends: bool,
    /// Encoded operations of the store's kind.
    pub ops: Vec<u8>,
}

pub(super) struct Output {
    pub targets: Vec<Target>,
    stores: Vec<StoreOutput>,
    parts: Vec<Part>,
    pub epoch: u16,
    pub lsn: Lsn,
    pub commit: Commit,
    /// A snapshot shows what is there; it is not a series of events.
    pub snapshot: bool,
    /// Dead letters by view.
    pub dead: Vec<u64>,
}

#[derive(Default)]
struct StoreOutput {
    /// Of the last change emitted in this transaction.
    ordinal: u64,
    ops: Vec<u8>,
    redis: Vec<redis::Op>,
    clickhouse: Vec<clickhouse::Op>,
}

impl Output {
    pub(super) fn new(targets: Vec<Target>, stores: usize, views: usize, epoch: u16) -> Self {
        Self {
            targets,
            stores: std::iter::repeat_with(StoreOutput::default).take(stores).collect(),
            parts: Vec::new(),
            epoch,
            lsn: Lsn(0),
            commit: Commit { committed_at: 0 },
            snapshot: false,
            dead: vec![0; views],
        }
    }

    pub(super) fn begin(&mut self, lsn: Lsn, committed_at: i64, ordinals: &[u64]) {
        self.lsn = lsn;
        self.commit = Commit { committed_at };
        for (index, store) in self.stores.iter_mut().enumerate() {
            store.ordinal = ordinals.get(index).copied().unwrap_or(0);
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
        for index in 0..self.targets.len() {
            let Some(target) = self.targets.get(index).filter(|target| target.view == view) else {
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
            let rendered = store.render(target, change, at, self.commit);
            match rendered {
                // The operations that take the old row away are rendered all the same.
                Err(error) if !matches!(error, RenderError::Position(_)) => {
                    let letter = dead_letter_key(view, Some(index), key, change);
                    park(state, &mut self.dead, view, &letter, &error.to_string(), at)?;
                }
                Err(error) => return Err(EngineError::Inconsistent(error.to_string())),
                Ok(()) if self.dead.get(view).is_some_and(|dead| *dead > 0) => {
                    let letter = dead_letter_key(view, Some(index), key, change);
                    unpark(state, &mut self.dead, view, &letter)?;
                }
                Ok(()) => {}
            }
            store.encode();
            if store.ops.len() >= PART_BYTES {
                let part = store.cut(target.store, at, self.commit, false);
                self.parts.push(part);
            }
        }
        Ok(())
    }

    /// Ends the transaction: what is left becomes each store's last part.
    pub(super) fn end(&mut self) {
        let end = Position::end_of(self.epoch, self.lsn);
        for (index, store) in self.stores.iter_mut().enumerate() {
            if store.ordinal > 0 {
                self.parts.push(store.cut(index, end, self.commit, true));
                store.ordinal = 0;
            }
        }
    }

    /// Cuts what is there so far, without ending the transaction.
    pub(super) fn cut(&mut self) {
        for (index, store) in self.stores.iter_mut().enumerate() {
            if !store.ops.is_empty() {
                let at = Position { epoch: self.epoch, lsn: self.lsn, ordinal: store.ordinal };
                self.parts.push(store.cut(index, at, self.commit, false));
            }
        }
    }

    pub(super) fn abort(&mut self) {
        self.parts.clear();
        for store in &mut self.stores {
            *store = StoreOutput::default();
        }
    }

    pub(super) fn has_parts(&self) -> bool {
        !self.parts.is_empty()
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
    ) -> Result<(), RenderError> {
        let number = target.number;
        match &target.kind {
            TargetKind::Redis(target) => {
                target.render(number, change, at, &commit, &mut self.redis)
            }
            TargetKind::ClickHouse(target) => {
                target.render(number, change, at, &commit, &mut self.clickhouse)
            }
        }
    }

    fn encode(&mut self) {
        for op in self.redis.drain(..) {
            op.encode(&mut self.ops);
        }
        for op in self.clickhouse.drain(..) {
            op.encode(&mut self.ops);
        }
    }

    fn cut(&mut self, store: usize, to: Position, commit: Commit, ends: bool) -> Part {
        let ops = std::mem::take(&mut self.ops);
        Part { store, to, committed_at: commit.committed_at, ends, ops }
    }
}

/// `view u16 | target u16 (0xFFFF: the row could not be evaluated) | key`.
fn dead_letter_key(
    view: usize,
    target: Option<usize>,
    key: &[usize],
    change: &Change<'_>,
) -> Vec<u8> {
    let mut letter = dead_letter_prefix(view, target);
    let row = change.new.or(change.old).unwrap_or(&[]);
    for column in key {
        value::key::encode_key_value(row.get(*column).unwrap_or(&Value::Null), &mut letter);
    }
    letter
}

pub(super) fn dead_letter_prefix(view: usize, target: Option<usize>) -> Vec<u8> {
    let number = |index: usize| u16::try_from(index).unwrap_or(u16::MAX).to_be_bytes();
    [number(view), target.map_or([0xFF; 2], number)].concat()
}

/// Records that a row is left out, and why. The message holds no values of the row.
pub(super) fn park(
    state: &mut impl State,
    dead: &mut [u64],
    view: usize,
    letter: &[u8],
    message: &str,
    at: Position,
) -> Result<(), StateError> {
    if state.get(Space::DeadLetters, letter)?.is_none()
        && let Some(dead) = dead.get_mut(view)
    {
        *dead += 1;
    }
    let mut bytes = Vec::new();
    let row = vec![Value::Text(message.into()), Value::Text(at.to_string().into())];
    value::row::encode_row(&row, &mut bytes);
    state.put(Space::DeadLetters, letter, &bytes);
    Ok(())
}

pub(super) fn unpark(
    state: &mut impl State,
    dead: &mut [u64],
    view: usize,
    letter: &[u8],
) -> Result<(), StateError> {
    if state.get(Space::DeadLetters, letter)?.is_some() {
        state.delete(Space::DeadLetters, letter);
        if let Some(dead) = dead.get_mut(view) {
            *dead = dead.saturating_sub(1);
        }
    }
    Ok(())
}
