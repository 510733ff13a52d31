//! From one fact row to what it contributes to a view.
//!
//! The engine asks twice for each affected fact: with the state as it was before a change (an
//! *overlay* stands for the changed row) and as it is after. The difference of the two is the
//! change of the result, whatever role the changed row plays in the view.

use super::fan_out::FanOut;
use super::layout::{Access, Layout, TableLayout, ViewLayout};
use super::row_cache::RowCache;
use super::rows;
use super::state::{ReadState, StateError};
use crate::expr::{ColumnRef, Env, EvalError, Expr};
use crate::plan::{JoinKind, ViewKind};
use crate::value::{Row, Value};
use std::sync::Arc;

/// One changed row as it was: reads of `table` see `old` in the place of `new`.
#[derive(Clone, Copy)]
pub(super) struct Overlay<'a> {
    pub table: usize,
    pub old: Option<&'a Row>,
    pub new: Option<&'a Row>,
}

/// What a fact row gives to a view.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Contribution {
    /// Nothing: filtered out, or an inner join without a partner.
    Absent,
    /// A result row.
    Row(Row),
    /// A member of a group: the grouping values, and each aggregate's argument (`None` where its
    /// FILTER leaves the row out).
    Member { by: Vec<Value>, arguments: Vec<Option<Value>> },
    /// An expression failed: the row counts as absent and is parked.
    Failed(EvalError),
}

/// The rows that a fact joins, as the inputs of a view's expressions.
pub(super) struct Joined<'a> {
    fact: &'a Row,
    dimensions: Vec<Option<Arc<Row>>>,
}

static NULL: Value = Value::Null;

impl Env for Joined<'_> {
    fn column(&self, column: ColumnRef) -> &Value {
        let row = match column.input.checked_sub(1) {
            None => Some(self.fact),
            Some(dimension) => self.dimensions.get(dimension).and_then(Option::as_deref),
        };
        row.and_then(|row| row.get(column.column)).unwrap_or(&NULL)
    }
}

impl Joined<'_> {
    /// The row of `input`, where there is one.
    pub(super) fn row(&self, input: usize) -> Option<&Row> {
        match input.checked_sub(1) {
            None => Some(self.fact),
            Some(dimension) => self.dimensions.get(dimension).and_then(Option::as_deref),
        }
    }
}

/// A fact with its joined rows, or why there is none.
pub(super) enum Resolved<'a> {
    Joined(Joined<'a>),
    Absent,
    Failed(EvalError),
}

/// `ahead` is the view's cursor, where it has not passed the fact.
pub(super) fn resolve<'a>(
    layout: &Layout,
    view: &ViewLayout,
    fact: &'a Row,
    (state, cache): (&impl ReadState, &mut RowCache),
    overlay: Option<Overlay<'_>>,
    ahead: Option<&FanOut>,
) -> Result<Resolved<'a>, StateError> {
    let dimensions = Vec::with_capacity(view.inputs.len().saturating_sub(1));
    let mut joined = Joined { fact, dimensions };
    for (at, input) in view.inputs.iter().enumerate() {
        let Some(join) = &input.join else { continue };
        let (Some(edge), Some(table)) =
            (layout.edges.get(join.edge), layout.tables.get(input.table))
        else {
            continue;
        };
        let key = match joined.row(join.child_input).map(|child| rows::parent_key(edge, child)) {
            None => None,
            Some(Ok(key)) => key,
            Some(Err(error)) => return Ok(Resolved::Failed(error)),
        };
        let found = match key {
            None => None,
            Some(key) => match ahead.filter(|ahead| ahead.input == at && ahead.key == key) {
                Some(ahead) => ahead.before.clone(),
                None => fetch((state, cache), input.table, table, edge.access, &key, overlay)?,
            },
        };
        joined.dimensions.push(found);
        if joined.dimensions.last().is_some_and(Option::is_some)
            && let Some(condition) = &join.condition
        {
            match condition.is_true(&joined) {
                Ok(true) => {}
                Ok(false) => {
                    joined.dimensions.pop();
                    joined.dimensions.push(None);
                }
                Err(error) => return Ok(Resolved::Failed(error)),
            }
        }
        if join.kind == JoinKind::Inner && joined.dimensions.last().is_some_and(Option::is_none) {
            return Ok(Resolved::Absent);
        }
    }
    Ok(Resolved::Joined(joined))
}

fn fetch(
    (state, cache): (&impl ReadState, &mut RowCache),
    index: usize,
    table: &TableLayout,
    access: Access,
    key: &[u8],
    overlay: Option<Overlay<'_>>,
) -> Result<Option<Arc<Row>>, StateError> {
    if let Some(overlay) = overlay.filter(|overlay| overlay.table == index) {
        let columns = table.access_columns(access);
        let has_key = |row: &Row| {
            rows::key_of(table, row, columns).is_some_and(|found| found.as_slice() == key)
        };
        if let Some(old) = overlay.old.filter(|row| has_key(row)) {
            return Ok(Some(Arc::new(old.clone())));
        }
        // Keys are unique: what only the new row has, no row had before.
        if overlay.new.is_some_and(has_key) {
            return Ok(None);
        }
    }
    rows::find(state, cache, table, access, key)
}

pub(super) fn contribution(view: &ViewLayout, resolved: &Resolved<'_>) -> Contribution {
    match resolved {
        Resolved::Absent => Contribution::Absent,
        Resolved::Failed(error) => Contribution::Failed(error.clone()),
        Resolved::Joined(joined) => outcome(view, joined).unwrap_or_else(Contribution::Failed),
    }
}

/// What a fact gives to a view; `ahead` is the view's cursor, where it has not passed the fact.
pub(super) fn evaluate(
    layout: &Layout,
    view: usize,
    fact: &Row,
    (state, cache): (&impl ReadState, &mut RowCache),
    overlay: Option<Overlay<'_>>,
    ahead: Option<&FanOut>,
) -> Result<Contribution, StateError> {
    let Some(view) = layout.views.get(view) else {
        return Ok(Contribution::Absent);
    };
    let resolved = resolve(layout, view, fact, (state, cache), overlay, ahead)?;
    Ok(contribution(view, &resolved))
}

fn outcome(view: &ViewLayout, joined: &Joined<'_>) -> Result<Contribution, EvalError> {
    if let Some(filter) = &view.filter
        && !filter.is_true(joined)?
    {
        return Ok(Contribution::Absent);
    }
    match &view.kind {
        ViewKind::Rows { output } => Ok(Contribution::Row(Expr::eval_all(output, joined)?)),
        ViewKind::Groups { by, aggregates, .. } => {
            let by = Expr::eval_all(by, joined)?;
            let mut arguments = Vec::with_capacity(aggregates.len());
            for aggregate in aggregates {
                let counts = match &aggregate.filter {
                    Some(filter) => filter.is_true(joined)?,
                    None => true,
                };
                arguments.push(match &aggregate.argument {
                    _ if !counts => None,
                    // count(*) counts the row whatever it holds.
                    None => Some(Value::Bool(true)),
                    Some(argument) => Some(argument.eval(joined)?),
                });
            }
            Ok(Contribution::Member { by, arguments })
        }
    }
}
