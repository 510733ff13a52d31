//! Dead letters: rows that are left out of a view because they cannot be evaluated or held.
//!
//! ```text
//!  evaluate ── error ──► letter of the view   (the row is absent from every target)
//!  render   ── unfit ──► letter of the target (the row is absent from this one)
//!                            │
//!          the row changes ──┤── replay: evaluated and rendered again from the state
//!                            └── drop:   kept as "dropped", not counted, until the row changes
//! ```
//!
//! In the state: `view u16 | target u16 (0xFFFF: not evaluated) | key` ─► reason, position, commit
//! time, "dropped". The key is the fact's identity, or the result's key.
//!
//! Invariants:
//! - a letter is there exactly while its row is left out; a dropped one too, so that whoever compares
//!   knows what is left out;
//! - nothing that is emitted depends on a letter; what a replay emits has a position of its own;
//! - only what follows from the row's values is parked: a store that fails or is slow is not seen
//!   here.

use super::groups::Group;
use super::layout::{Layout, TableLayout, ViewLayout};
use super::output::Output;
use super::resolve::{self, Contribution, Resolved};
use super::row_cache::RowCache;
use super::rows;
use super::state::{ReadState, Space, State, StateError};
use super::{Engine, EngineError};
use crate::expr::{Expr, ExprKind};
use crate::plan::{View, ViewKind};
use crate::position::Position;
use crate::target::Change;
use crate::value::{self, Row, Type, Value};
use std::slice;

/// Where the target stands in a key of a row that could not be evaluated.
const UNEVALUATED: [u8; 2] = [0xFF; 2];
/// How many letters one page of a scan brings into memory.
const PAGE_LETTERS: usize = 1024;

/// One row that is left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// Its key in the state.
    pub key: Vec<u8>,
    pub view: usize,
    /// Index of the target that cannot hold the row; `None` where it could not be evaluated.
    pub target: Option<usize>,
    /// Holds no value of the row.
    pub reason: String,
    /// The change that parked it.
    pub at: Position,
    /// Microseconds since 2000-01-01 UTC; `None` in a letter of an earlier version.
    pub committed_at: Option<i64>,
    /// Somebody has seen it and lets it be: it no longer counts.
    pub dropped: bool,
}

/// What a replay came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Replayed {
    /// The row is in its view and on its way to the stores.
    Delivered,
    /// It is left out as before, for this reason.
    Still(String),
    /// There is no such letter any more, or the row is no part of the result.
    Gone,
}

/// The rows behind a letter, as the state has them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shown {
    /// By input of the view: the table's index and its row; the joined rows only where they could
    /// be found.
    pub inputs: Vec<(usize, Row)>,
    /// The row of the result, where it can be evaluated.
    pub result: Option<Row>,
}

/// How many letters each view has.
#[derive(Default)]
pub(super) struct Counts {
    pub open: Vec<u64>,
    dropped: Vec<u64>,
}

impl Letter {
    fn decode(key: Vec<u8>, value: &[u8]) -> Result<Self, StateError> {
        let damaged = || StateError {
            message: "a dead letter cannot be decoded; run walview rebuild".to_owned(),
            source: None,
        };
        let number = |bytes: &[u8]| Some(usize::from(u16::from_be_bytes(bytes.try_into().ok()?)));
        let view = key.get(..2).and_then(number).ok_or_else(damaged)?;
        let target = key.get(2..4).ok_or_else(damaged)?;
        let target = if target == UNEVALUATED { None } else { number(target) };
        let mut row = value::row::decode_row(value)
            .map_err(|error| StateError { source: Some(Box::new(error)), ..damaged() })?
            .into_iter();
        let (Some(Value::Text(reason)), Some(Value::Text(at))) = (row.next(), row.next()) else {
            return Err(damaged());
        };
        let committed_at = match row.next() {
            Some(Value::TimestampTz(at)) => Some(at),
            _ => None,
        };
        let dropped = row.next() == Some(Value::Bool(true));
        let at = at.parse().ok().ok_or_else(damaged)?;
        Ok(Self { key, view, target, reason: reason.into(), at, committed_at, dropped })
    }

    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let row = [
            Value::Text(self.reason.as_str().into()),
            Value::Text(self.at.to_string().into()),
            self.committed_at.map_or(Value::Null, Value::TimestampTz),
            Value::Bool(self.dropped),
        ];
        value::row::encode_row(&row, &mut bytes);
        bytes
    }

    /// The key of the row that is left out.
    fn row_key(&self) -> &[u8] {
        self.key.get(4..).unwrap_or_default()
    }

    /// A short name for it, the same as long as it is there: FNV-1a of its key.
    #[must_use]
    pub fn id(&self) -> String {
        let hash = self.key.iter().fold(0xCBF2_9CE4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01B3)
        });
        format!("{hash:016x}")
    }

    /// The columns of its key with their types and values: the fact's identity where the row could
    /// not be evaluated, else the result's key. `views` are those that the layout was made of.
    #[must_use]
    pub fn key_columns(&self, layout: &Layout, views: &[View]) -> Vec<(String, Type, Value)> {
        let columns: Vec<(String, Type)> = match self.target {
            None => fact_table(layout, self.view).map_or_else(Vec::new, |table| {
                let columns = table.identity.iter().filter_map(|at| table.columns.get(*at));
                columns.map(|column| (column.name.clone(), column.ty.clone())).collect()
            }),
            Some(_) => views.get(self.view).map_or_else(Vec::new, |view| {
                let columns = view.key.iter().filter_map(|at| view.columns.get(*at));
                columns.map(|column| (column.name.clone(), column.ty.clone())).collect()
            }),
        };
        let values = value::key::decode_key(self.row_key()).unwrap_or_default();
        columns.into_iter().zip(values).map(|((name, ty), value)| (name, ty, value)).collect()
    }
}

/// The letter's key for a fact that cannot be evaluated.
pub(super) fn of_fact(view: usize, fact_key: &[u8]) -> Vec<u8> {
    [&number(view)[..], &UNEVALUATED, fact_key].concat()
}

/// The letter's key for a result row that a target cannot hold.
pub(super) fn of_result(view: usize, target: usize, key: &[usize], change: &Change<'_>) -> Vec<u8> {
    let mut letter = [number(view), number(target)].concat();
    letter.extend(result_key(key, change.new.or(change.old).unwrap_or(&[])));
    letter
}

fn result_key(key: &[usize], row: &[Value]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(16);
    for column in key {
        value::key::encode_key_value(row.get(*column).unwrap_or(&Value::Null), &mut bytes);
    }
    bytes
}

fn number(index: usize) -> [u8; 2] {
    u16::try_from(index).unwrap_or(u16::MAX).to_be_bytes()
}

/// The letter with this key.
///
/// # Errors
/// The state cannot be read.
pub fn load(state: &impl ReadState, key: &[u8]) -> Result<Option<Letter>, StateError> {
    let value = state.get(Space::DeadLetters, key)?;
    value.map(|value| Letter::decode(key.to_vec(), &value)).transpose()
}

/// Letters of one view or of all, in the order of their keys, a page after `after`; empty at the
/// end.
///
/// # Errors
/// The state cannot be read.
pub fn page(
    state: &impl ReadState,
    view: Option<usize>,
    after: Option<&[u8]>,
) -> Result<Vec<Letter>, StateError> {
    let prefix = view.map(number);
    let prefix = prefix.as_ref().map_or(&[][..], |prefix| &prefix[..]);
    let page = state.scan(Space::DeadLetters, prefix, after, PAGE_LETTERS)?;
    page.into_iter().map(|(key, value)| Letter::decode(key, &value)).collect()
}

/// The rows behind a letter; `None` where they are gone.
///
/// # Errors
/// The state cannot be read.
pub fn look(
    layout: &Layout,
    state: &impl ReadState,
    letter: &Letter,
) -> Result<Option<Shown>, StateError> {
    let Some(view) = layout.views.get(letter.view) else {
        return Ok(None);
    };
    if letter.target.is_some() && matches!(view.kind, ViewKind::Groups { .. }) {
        let result = group_row(state, letter, view)?;
        return Ok(result.map(|row| Shown { inputs: Vec::new(), result: Some(row) }));
    }
    let Some(fact) = fact_of(layout, state, letter, view)? else {
        return Ok(None);
    };
    // Whole rows are shown: none comes from a cache, which has the columns of joins alone.
    let mut cache = RowCache::default();
    let resolved = resolve::resolve(layout, view, &fact, (state, &mut cache), None, None)?;
    let mut shown = Shown::default();
    for (at, input) in view.inputs.iter().enumerate() {
        let row = match &resolved {
            Resolved::Joined(joined) => joined.row(at).cloned(),
            Resolved::Absent | Resolved::Failed(_) => (at == 0).then(|| fact.clone()),
        };
        shown.inputs.extend(row.map(|row| (input.table, row)));
    }
    if letter.target.is_some()
        && let Contribution::Row(row) = resolve::contribution(view, &resolved)
    {
        shown.result = Some(row);
    }
    Ok(Some(shown))
}

impl Counts {
    pub(super) fn new(views: usize) -> Self {
        Self { open: vec![0; views], dropped: vec![0; views] }
    }

    /// Counts what the state has of a view.
    pub(super) fn recount(
        &mut self,
        state: &impl ReadState,
        view: usize,
    ) -> Result<(), StateError> {
        let (mut open, mut dropped, mut after) = (0, 0, None::<Vec<u8>>);
        loop {
            let page = page(state, Some(view), after.as_deref())?;
            let of_page = page.iter().filter(|letter| letter.dropped).count();
            dropped += of_page as u64;
            open += (page.len() - of_page) as u64;
            let Some(last) = page.into_iter().last() else {
                break;
            };
            after = Some(last.key);
        }
        if let (Some(open_of), Some(dropped_of)) =
            (self.open.get_mut(view), self.dropped.get_mut(view))
        {
            (*open_of, *dropped_of) = (open, dropped);
        }
        Ok(())
    }

    /// Whether the view has letters at all.
    pub(super) fn any(&self, view: usize) -> bool {
        [&self.open, &self.dropped].iter().any(|of| of.get(view).is_some_and(|count| *count > 0))
    }

    fn count(&mut self, view: usize, dropped: bool, by: i64) {
        let of = if dropped { &mut self.dropped } else { &mut self.open };
        if let Some(count) = of.get_mut(view) {
            *count = count.saturating_add_signed(by);
        }
    }

    /// Records that a row is left out, and why. A letter that was dropped is a new one.
    pub(super) fn park(
        &mut self,
        state: &mut impl State,
        letter: Letter,
    ) -> Result<(), StateError> {
        if let Some(known) = load(state, &letter.key)? {
            self.count(known.view, known.dropped, -1);
        }
        self.count(letter.view, letter.dropped, 1);
        state.put(Space::DeadLetters, &letter.key, &letter.encode());
        Ok(())
    }

    /// The row is where it belongs, or gone.
    pub(super) fn unpark(&mut self, state: &mut impl State, key: &[u8]) -> Result<(), StateError> {
        if let Some(known) = load(state, key)? {
            state.delete(Space::DeadLetters, key);
            self.count(known.view, known.dropped, -1);
        }
        Ok(())
    }
}

impl Output {
    /// A new letter at what is being emitted.
    pub(super) fn letter(
        &self,
        key: Vec<u8>,
        (view, target): (usize, Option<usize>),
        reason: String,
        ordinal: u64,
    ) -> Letter {
        let at = Position { epoch: self.epoch, lsn: self.lsn, ordinal };
        let committed_at = Some(self.commit.committed_at);
        Letter { key, view, target, reason, at, committed_at, dropped: false }
    }

    /// Records that a row is left out. A view that is emitted whole says nothing new of rows that
    /// were left out for the same reason before: what was dropped stays so.
    pub(super) fn park(
        &mut self,
        state: &mut impl State,
        letter: Letter,
    ) -> Result<(), StateError> {
        if self.snapshot
            && let Some(known) = load(state, &letter.key)?
            && known.dropped
            && known.reason == letter.reason
        {
            return Ok(());
        }
        self.letters.park(state, letter)
    }
}

impl Engine {
    /// Lets letters follow a fact whose identity changed, whether or not a view shows it.
    pub(super) fn move_letters(
        &mut self,
        state: &mut impl State,
        uses: &[(usize, usize)],
        old_key: &[u8],
        new_key: &[u8],
    ) -> Result<(), EngineError> {
        for &(view, _) in uses.iter().filter(|(_, input)| *input == 0) {
            let follows = self.stopped.get(view).is_some_and(Option::is_none);
            if !follows || !self.output.letters.any(view) {
                continue;
            }
            if let Some(letter) = load(state, &of_fact(view, old_key))? {
                self.output.letters.unpark(state, &letter.key)?;
                let moved = Letter { key: of_fact(view, new_key), ..letter };
                self.output.letters.park(state, moved)?;
            }
        }
        Ok(())
    }

    /// Evaluates the row of a letter again, from the state, and emits it where it fits now. Called
    /// between `begin` and `commit`, at a position of its own.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn replay(&mut self, state: &mut impl State, key: &[u8]) -> Result<Replayed, EngineError> {
        // A group that an earlier letter of this replay touched is read from the state below.
        self.flush_groups(state)?;
        let Some(letter) = load(state, key)? else {
            return Ok(Replayed::Gone);
        };
        if let Some(why) = self.stopped.get(letter.view).and_then(Option::as_ref) {
            return Ok(Replayed::Still(format!("the view is stopped: {why}")));
        }
        match letter.target {
            None => self.replay_fact(state, &letter),
            Some(target) => self.replay_result(state, &letter, target),
        }
    }

    fn replay_fact(
        &mut self,
        state: &mut impl State,
        letter: &Letter,
    ) -> Result<Replayed, EngineError> {
        let layout = self.shared_layout();
        let fact = match layout.views.get(letter.view) {
            Some(view) => fact_of(&layout, state, letter, view)?,
            None => None,
        };
        let new = match fact {
            Some(fact) => self.contribution(state, letter.view, (letter.row_key(), &fact), None)?,
            None => Contribution::Absent,
        };
        if let Contribution::Failed(error) = new {
            return Ok(Replayed::Still(error.to_string()));
        }
        self.output.letters.unpark(state, &letter.key)?;
        if new == Contribution::Absent {
            return Ok(Replayed::Gone);
        }
        self.apply_delta(state, letter.view, letter.row_key(), Contribution::Absent, new)?;
        Ok(Replayed::Delivered)
    }

    fn replay_result(
        &mut self,
        state: &mut impl State,
        letter: &Letter,
        target: usize,
    ) -> Result<Replayed, EngineError> {
        if self.output.targets.get(target).is_some_and(|target| target.kind.is_events()) {
            let why = "what a stream did not take is past; drop the letter";
            return Ok(Replayed::Still(why.to_owned()));
        }
        if self.fan_outs.get(letter.view).is_some_and(Option::is_some) {
            let why = "the view is being corrected for a changed row; try again afterwards";
            return Ok(Replayed::Still(why.to_owned()));
        }
        let shown = look(&self.layout, state, letter)?;
        let Some(row) = shown.and_then(|shown| shown.result) else {
            self.output.letters.unpark(state, &letter.key)?;
            return Ok(Replayed::Gone);
        };
        let refused = self.output.deliver(target, &Change { old: None, new: Some(&row) })?;
        Ok(match refused {
            Some(reason) => Replayed::Still(reason),
            None => {
                self.output.letters.unpark(state, &letter.key)?;
                Replayed::Delivered
            }
        })
    }

    /// Lets a letter be: it stays, so that its row is known to be left out, but no longer counts.
    /// The row's next change makes a new one of it, or ends it. Returns whether it was there.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn drop_letter(&mut self, state: &mut impl State, key: &[u8]) -> Result<bool, EngineError> {
        let Some(letter) = load(state, key)? else {
            return Ok(false);
        };
        self.output.letters.park(state, Letter { dropped: true, ..letter })?;
        Ok(true)
    }
}

fn fact_table(layout: &Layout, view: usize) -> Option<&TableLayout> {
    layout.tables.get(layout.views.get(view)?.inputs.first()?.table)
}

/// The fact that a letter is about.
fn fact_of(
    layout: &Layout,
    state: &impl ReadState,
    letter: &Letter,
    view: &ViewLayout,
) -> Result<Option<Row>, StateError> {
    let Some(table) = fact_table(layout, letter.view) else {
        return Ok(None);
    };
    let ViewKind::Rows { output } = &view.kind else {
        return rows::get(state, table, letter.row_key());
    };
    if letter.target.is_none() {
        return rows::get(state, table, letter.row_key());
    }
    // The result's key shows one of the fact's keys as it is.
    let Ok(values) = value::key::decode_key(letter.row_key()) else {
        return Ok(None);
    };
    let columns: Vec<usize> = view
        .key
        .iter()
        .filter_map(|at| {
            let ExprKind::Column(column) = output.get(*at)?.kind else { return None };
            (column.input == 0).then_some(column.column)
        })
        .collect();
    let key = |columns_of: &[usize], row: &Row| rows::key_of(table, row, columns_of);
    let mut wanted: Row = vec![Value::Null; table.columns.len()];
    for (column, value) in columns.iter().zip(&values) {
        if let Some(slot) = wanted.get_mut(*column) {
            slot.clone_from(value);
        }
    }
    if let Some(identity) = key(&table.identity, &wanted) {
        return rows::get(state, table, &identity);
    }
    // Shown is another key than the one that changes carry: a search, page by page.
    let wanted = key(&columns, &wanted);
    let mut after: Option<Vec<u8>> = None;
    loop {
        let page = rows::page(state, table, after.as_deref())?;
        let Some((last, _)) = page.last() else {
            return Ok(None);
        };
        after = Some(last.clone());
        if let Some((_, row)) = page.into_iter().find(|(_, row)| key(&columns, row) == wanted) {
            return Ok(Some(row));
        }
    }
}

/// The result row of the group that a letter is about.
fn group_row(
    state: &impl ReadState,
    letter: &Letter,
    view: &ViewLayout,
) -> Result<Option<Row>, StateError> {
    let ViewKind::Groups { by, by_key, aggregates, output } = &view.kind else {
        return Ok(None);
    };
    let values = value::key::decode_key(letter.row_key()).unwrap_or_default();
    let mut grouped: Vec<Option<Value>> = vec![None; by.len()];
    for (at, value) in view.key.iter().zip(values) {
        if let Some(ExprKind::Column(column)) = output.get(*at).map(|expr| &expr.kind)
            && column.input == 0
            && let Some(slot) = grouped.get_mut(column.column)
        {
            *slot = Some(value);
        }
    }
    let mut key = number(letter.view).to_vec();
    for (expr, value) in by.iter().zip(&grouped).take(*by_key) {
        let Expr { ty, .. } = expr;
        let value = value.as_ref().unwrap_or(&Value::Null);
        value::key::encode_key_typed(slice::from_ref(value), slice::from_ref(ty), &mut key);
    }
    let Some(bytes) = state.get(Space::Groups, &key)? else {
        return Ok(None);
    };
    let row = value::row::decode_row(&bytes).ok();
    let group = row.and_then(|row| Group::from_row(row, by.len(), aggregates));
    // A group that cannot be computed stops its view where it changes, not here.
    Ok(group.and_then(|group| group.output(aggregates, output).ok()))
}
