//! A changed row that very many facts join: a view is corrected for it step by step.
//!
//! ```text
//!  row K: before ──► now        facts that join K, in the order of their keys
//!                               k1 k2 k3 … │ … kn
//!                   corrected, see K now ◄─┴─► see K as it was, until the cursor passes them
//! ```
//!
//! A change of one row that a view joins straight from its fact, with more than
//! [`Pace::at_once_max`] facts behind it, leaves a *cursor* in the state in the place of the walk; with
//! few, where `ClickHouse` alone shows the view, whose readers see no transactions anyhow: what others
//! wait for in Redis would wait for the walk. It goes on by some facts at the end of each transaction
//! and at each cut of a long one, by more the further it has come, so other views wait for a step at
//! most; where the source is idle the service orders further steps.
//!
//! Why the result is right: what a fact contributes to the view follows at every moment from the
//! state and the cursor: with the row before where the cursor has not passed the fact's key, with
//! the row now where it has. Every change of a fact, and of other rows that it joins, takes out what
//! it contributed and puts in what it contributes, each seen so. The walk reads the facts that are
//! there, in order of keys, and moves each from one side to the other. A fact whose key changes may
//! jump over the cursor; therefore such a change counts even where the view reads no column of it.
//!
//! Invariants:
//! - a view has at most one cursor. What would need more is finished first, at once: another change
//!   of the same row, a change that reaches facts through the row, and a second fan-out;
//! - in the state (`FanOuts`): view u16 ─► input, key, row before, last key passed, facts passed,
//!   commit LSN and time of the change. It changes together with what its steps did;
//! - how far a cursor goes follows from the log (and from orders), never from the clock.

use super::layout::{InputLayout, Layout, ViewLayout};
use super::resolve::{self, Overlay};
use super::state::{ReadState, Space, State, StateError};
use super::{Engine, EngineError, rows};
use crate::plan::ViewKind;
use crate::position::Lsn;
use crate::value::{Row, Value, row};
use std::sync::Arc;

/// Facts behind a changed row that are corrected with it, in its own transaction.
const AT_ONCE_FACTS_MAX: usize = 10_000;
/// The same of a view that only `ClickHouse` shows: as long as a transaction or two take.
const DEFERRED_FACTS_MAX: usize = 16;
/// Facts of a step, and one more for each change since the last: about as long as a few
/// transactions take. The first steps are smaller.
const STEP_FACTS: usize = 250;
const FIRST_STEP_FACTS: usize = 16;
/// A step is this part of what a cursor has passed.
const STEP_PART: u64 = 8;

/// How a view is corrected for a row that many facts join.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Facts that are corrected at once.
    pub at_once_max: usize,
    /// The same of a view that only `ClickHouse` shows.
    pub deferred_max: usize,
    /// Facts of a step at most, and one more for each change since the last.
    pub step: usize,
}

impl Default for Pace {
    fn default() -> Self {
        Self { at_once_max: AT_ONCE_FACTS_MAX, deferred_max: DEFERRED_FACTS_MAX, step: STEP_FACTS }
    }
}

/// What is complete while a cursor is open: everything that was committed before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Held {
    /// Of the commit that the cursor belongs to.
    pub lsn: Lsn,
    /// Just before that commit: microseconds since 2000-01-01 UTC.
    pub at: i64,
}

/// A cursor.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct FanOut {
    /// The input in whose role the row changed.
    pub input: usize,
    /// By which facts join the row.
    pub key: Vec<u8>,
    pub before: Option<Arc<Row>>,
    /// The last fact that was corrected.
    passed: Option<Vec<u8>>,
    facts: u64,
    held: Held,
}

impl FanOut {
    /// Whether the fact with this key still sees the row as it was.
    pub(super) fn is_ahead(&self, fact_key: &[u8]) -> bool {
        self.passed.as_deref().is_none_or(|passed| passed < fact_key)
    }

    /// The cursor of a view, where it has one.
    pub(super) fn load(
        layout: &Layout,
        state: &impl ReadState,
        view: usize,
    ) -> Result<Option<Self>, StateError> {
        let Some(bytes) = state.get(Space::FanOuts, &key_of(view))? else {
            return Ok(None);
        };
        let damaged = || StateError {
            message: format!("the cursor of view {view} cannot be decoded; run walview rebuild"),
            source: None,
        };
        let mut fan_out = Self::decode(&bytes).ok_or_else(damaged)?;
        let inputs = layout.views.get(view).map_or(&[][..], |view| &view.inputs);
        let table = inputs.get(fan_out.input).and_then(|input| layout.tables.get(input.table));
        if let (Some(before), Some(table)) = (&mut fan_out.before, table) {
            table.widen(Arc::make_mut(before));
        }
        Ok(Some(fan_out))
    }

    fn encode(&self) -> Vec<u8> {
        let bytes = |bytes: &Option<Vec<u8>>| bytes.clone().map_or(Value::Null, Value::Bytea);
        let before = self.before.as_ref().map(|row| {
            let mut bytes = Vec::new();
            row::encode_row(row, &mut bytes);
            bytes
        });
        let number = |number: u64| Value::Int(i64::try_from(number).unwrap_or(i64::MAX));
        let values = [
            number(self.input as u64),
            Value::Bytea(self.key.clone()),
            bytes(&before),
            bytes(&self.passed),
            number(self.facts),
            Value::Text(self.held.lsn.to_string().into()),
            Value::TimestampTz(self.held.at),
        ];
        let mut out = Vec::new();
        row::encode_row(&values, &mut out);
        out
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut values = row::decode_row(bytes).ok()?.into_iter();
        let mut next = || values.next();
        let number =
            |value| if let Value::Int(int) = value { u64::try_from(int).ok() } else { None };
        let bytes = |value| {
            if let Value::Bytea(bytes) = value {
                Some(Some(bytes))
            } else {
                (value == Value::Null).then_some(None)
            }
        };
        let input = usize::try_from(number(next()?)?).ok()?;
        let key = bytes(next()?)??;
        let before = match bytes(next()?)? {
            Some(bytes) => Some(Arc::new(row::decode_row(&bytes).ok()?)),
            None => None,
        };
        let passed = bytes(next()?)?;
        let facts = number(next()?)?;
        let (Value::Text(lsn), Value::TimestampTz(at)) = (next()?, next()?) else { return None };
        let held = Held { lsn: lsn.parse().ok()?, at };
        Some(Self { input, key, before, passed, facts, held })
    }
}

fn key_of(view: usize) -> [u8; 2] {
    u16::try_from(view).unwrap_or(u16::MAX).to_be_bytes()
}

impl Engine {
    /// Sets how many facts are corrected at once and in a step: what is emitted depends on it.
    pub fn set_pace(&mut self, pace: Pace) {
        self.pace = pace;
    }

    /// By view, the facts that its cursor has passed; `None` where it has none.
    #[must_use]
    pub fn fan_outs(&self) -> Vec<Option<u64>> {
        let open = self.fan_outs.iter().zip(&self.stopped);
        open.map(|(fan_out, stopped)| match (fan_out, stopped) {
            (Some(fan_out), None) => Some(fan_out.facts),
            _ => None,
        })
        .collect()
    }

    /// What is complete in every view, where one has a cursor.
    #[must_use]
    pub fn held(&self) -> Option<Held> {
        let oldest = self.oldest()?;
        self.fan_outs.get(oldest)?.as_ref().map(|fan_out| fan_out.held)
    }

    fn oldest(&self) -> Option<usize> {
        let open = self.fan_outs.iter().zip(&self.stopped).enumerate();
        let open = open.filter_map(|(view, (fan_out, stopped))| match (fan_out, stopped) {
            (Some(fan_out), None) => Some((fan_out.held.lsn, view)),
            _ => None,
        });
        open.min().map(|(_, view)| view)
    }

    /// Facts of the next step.
    pub(super) fn step_facts(&self) -> usize {
        let oldest = self.oldest().and_then(|view| self.fan_outs.get(view)?.as_ref());
        let passed = oldest.map_or(0, |fan_out| fan_out.facts / STEP_PART);
        usize::try_from(passed).unwrap_or(usize::MAX).max(FIRST_STEP_FACTS).min(self.pace.step)
    }

    /// Lets the oldest cursors go on by this many facts.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn advance(&mut self, state: &mut impl State, facts: usize) -> Result<(), EngineError> {
        self.forget_stopped(state);
        let mut left = facts;
        while left > 0
            && let Some(view) = self.oldest()
        {
            left -= self.step(state, view, left)?;
        }
        Ok(())
    }

    /// A view that stopped follows no change; not even this one to its end.
    fn forget_stopped(&mut self, state: &mut impl State) {
        for (view, fan_out) in self.fan_outs.iter_mut().enumerate() {
            if fan_out.is_some() && self.stopped.get(view).is_some_and(Option::is_some) {
                *fan_out = None;
                state.delete(Space::FanOuts, &key_of(view));
            }
        }
    }

    /// Corrects the next facts of a view's cursor, at most `facts`; returns how many.
    fn step(
        &mut self,
        state: &mut impl State,
        view: usize,
        facts: usize,
    ) -> Result<usize, EngineError> {
        let layout = self.shared_layout();
        let inputs = layout.views.get(view).map_or(&[][..], |view| &view.inputs);
        let (Some(fan_out), Some(table)) = (
            self.fan_outs.get_mut(view).and_then(Option::take),
            inputs.first().and_then(|fact| layout.tables.get(fact.table)),
        ) else {
            return Ok(0);
        };
        let mut fan_out = fan_out;
        let edge = edge_of(inputs, fan_out.input);
        let mut done = 0;
        let through = loop {
            let wanted = (facts - done).min(rows::SCAN_PAGE_KEYS);
            let (key, passed) = (&fan_out.key, fan_out.passed.as_deref());
            let page = match edge {
                Some(edge) => rows::children(state, edge, key, passed, wanted)?,
                None => Vec::new(),
            };
            for fact_key in &page {
                let Some(fact) = rows::get(state, table, fact_key)? else { continue };
                let mut given = |ahead| {
                    let reads = (&*state, &mut self.rows);
                    resolve::evaluate(&layout, view, &fact, reads, None, ahead)
                };
                let (old, new) = (given(Some(&fan_out))?, given(None)?);
                self.apply_delta(state, view, fact_key, old, new)?;
            }
            done += page.len();
            fan_out.facts += page.len() as u64;
            let last = page.len() < wanted;
            fan_out.passed = page.into_iter().last().or(fan_out.passed);
            self.output.spill(state)?;
            if last || done >= facts {
                break last;
            }
        };
        if through {
            state.delete(Space::FanOuts, &key_of(view));
        } else {
            self.keep(state, view, fan_out);
        }
        Ok(done.max(1))
    }

    fn keep(&mut self, state: &mut impl State, view: usize, fan_out: FanOut) {
        state.put(Space::FanOuts, &key_of(view), &fan_out.encode());
        if let Some(slot) = self.fan_outs.get_mut(view) {
            *slot = Some(fan_out);
        }
    }

    /// Corrects everything that a view's cursor has before it.
    fn finish(&mut self, state: &mut impl State, view: usize) -> Result<(), EngineError> {
        while self.fan_outs.get(view).is_some_and(Option::is_some) {
            self.step(state, view, usize::MAX)?;
        }
        Ok(())
    }

    /// Makes room for a change of a row that plays `roles` in a view, while the state still has the
    /// row as it was. Returns the input and the key by which its facts are to be corrected in
    /// steps; `None` where they are corrected at once.
    pub(super) fn make_way(
        &mut self,
        state: &mut impl State,
        (view, roles): (usize, &[(usize, usize)]),
        overlay: Overlay<'_>,
        in_steps: bool,
    ) -> Result<Option<(usize, Vec<u8>)>, EngineError> {
        if self.is_met(view, roles, overlay) {
            self.finish(state, view)?;
        }
        let wide = if in_steps { self.wide(state, view, roles, overlay)? } else { None };
        if wide.is_some() {
            self.finish(state, view)?;
        }
        Ok(wide)
    }

    /// Whether the change of a row reaches facts through the row of the view's cursor, or is one of
    /// this row.
    fn is_met(&self, view: usize, roles: &[(usize, usize)], overlay: Overlay<'_>) -> bool {
        let (Some(Some(fan_out)), Some(layout)) =
            (self.fan_outs.get(view), self.layout.views.get(view))
        else {
            return false;
        };
        roles.iter().any(|(_, input)| {
            if *input == fan_out.input {
                self.changed_keys(view, *input, overlay).contains(&fan_out.key)
            } else {
                reaches_through(layout, *input, fan_out.input)
            }
        })
    }

    /// The input and key of a changed row that many facts join, where it can be left to a cursor.
    fn wide(
        &self,
        state: &impl ReadState,
        view: usize,
        roles: &[(usize, usize)],
        overlay: Overlay<'_>,
    ) -> Result<Option<(usize, Vec<u8>)>, EngineError> {
        let ([(_, input)], Some(layout)) = (roles, self.layout.views.get(view)) else {
            return Ok(None);
        };
        let join = layout.inputs.get(*input).and_then(|input| input.join.as_ref());
        // Columns that depend on the grouped ones follow the latest member, which must not be one
        // that sees the row as it was.
        let depends =
            matches!(&layout.kind, ViewKind::Groups { by, by_key, .. } if by.len() > *by_key);
        let Some(join) = join.filter(|join| join.child_input == 0 && !depends) else {
            return Ok(None);
        };
        let mut keys = self.changed_keys(view, *input, overlay);
        let (Some(key), true) = (keys.pop(), keys.is_empty()) else {
            return Ok(None);
        };
        let at_once_max = match self.output.is_columnar(view) {
            true => self.pace.deferred_max,
            false => self.pace.at_once_max,
        };
        let (mut count, mut after) = (0, None::<Vec<u8>>);
        while count <= at_once_max {
            let wanted = (at_once_max + 1 - count).min(rows::SCAN_PAGE_KEYS);
            let page = rows::children(state, join.edge, &key, after.as_deref(), wanted)?;
            if page.len() < wanted {
                return Ok(None);
            }
            count += page.len();
            after = page.into_iter().last();
        }
        Ok(Some((*input, key)))
    }

    /// Leaves the correction of a view to a cursor.
    pub(super) fn open_fan_out(
        &mut self,
        state: &mut impl State,
        view: usize,
        (input, key): (usize, Vec<u8>),
        before: Option<&Row>,
    ) {
        // A commit of the same microsecond may lie before this one; it is not claimed.
        let held = Held { lsn: self.output.lsn, at: self.output.commit.committed_at - 1 };
        let before = before.cloned().map(Arc::new);
        let fan_out = FanOut { input, key, before, passed: None, facts: 0, held };
        self.keep(state, view, fan_out);
        self.output.held = self.held();
    }
}

fn edge_of(inputs: &[InputLayout], input: usize) -> Option<usize> {
    inputs.get(input)?.join.as_ref().map(|join| join.edge)
}

/// Whether facts reach the row of `input` through the row of `through`.
fn reaches_through(view: &ViewLayout, input: usize, through: usize) -> bool {
    let mut at = input;
    while let Some(join) = view.inputs.get(at).and_then(|input| input.join.as_ref()) {
        at = join.child_input;
        if at == through {
            return true;
        }
    }
    false
}
