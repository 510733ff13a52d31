//! What a pipeline will hold, from the statistics of its tables. Estimates, and upper bounds where
//! a condition may leave rows out: no value is read.

use crate::source::estimate::{ColumnSize, TableSize};
use std::collections::BTreeMap;
use walview_core::catalog::Catalog;
use walview_core::engine::{Layout, TargetKind};
use walview_core::expr::{ColumnRef, Expr, ExprKind};
use walview_core::plan::{View, ViewKind};
use walview_core::target::redis::Kind;

/// A row in the local store besides its values: key, lengths, index; measured.
const STATE_ROW_BYTES: u64 = 20;
/// A key in Redis besides its text and value: dictionary entry, object headers, allocation.
const REDIS_KEY_BYTES: u64 = 100;
/// A member of a set or sorted set besides its text.
const REDIS_MEMBER_BYTES: u64 = 70;
/// The text of a value whose width nobody knows: a count, a sum.
const VALUE_BYTES: u64 = 10;

/// Sizes by table OID.
pub(super) struct Costs<'a> {
    pub(super) catalog: &'a Catalog,
    pub(super) sizes: &'a BTreeMap<u32, TableSize>,
}

impl Costs<'_> {
    /// The local state of a table: its captured columns, for every row.
    pub(super) fn state(&self, layout: &Layout, table: usize) -> Option<u64> {
        let table = layout.tables.get(table)?;
        let size = self.sizes.get(&table.oid)?;
        let width: u64 = table
            .columns
            .iter()
            .map(|column| size.columns.get(&column.name).map_or(VALUE_BYTES, width))
            .sum();
        Some(size.rows? * (width + STATE_ROW_BYTES))
    }

    /// How many rows a view's result has at most.
    pub(super) fn rows(&self, view: &View) -> Option<u64> {
        let fact = self.sizes.get(&view.inputs.first()?.table)?.rows?;
        let ViewKind::Groups { by, by_key, .. } = &view.kind else {
            return Some(fact);
        };
        let distinct = |expr: &Expr| self.column(view, column_of(expr)?)?.distinct;
        let groups: Option<u64> = by
            .iter()
            .take(*by_key)
            .map(distinct)
            .try_fold(1_u64, |groups, values| Some(groups.saturating_mul(values?.max(1))));
        Some(groups.map_or(fact, |groups| groups.min(fact).max(1)))
    }

    fn column(&self, view: &View, column: ColumnRef) -> Option<ColumnSize> {
        let table = view.inputs.get(column.input)?.table;
        let name = &self.catalog.by_oid(table)?.columns.get(column.column)?.name;
        self.sizes.get(&table)?.columns.get(name).copied()
    }

    /// Keys, or members, and bytes of a Redis target; streams by their limit.
    pub(super) fn redis(&self, view: &View, target: &TargetKind) -> Option<(u64, u64)> {
        let TargetKind::Redis(target) = target else {
            return None;
        };
        let rows = self.rows(view)?;
        let output = match &view.kind {
            ViewKind::Rows { output } => output.as_slice(),
            ViewKind::Groups { .. } => &[],
        };
        let values: u64 = if output.is_empty() {
            VALUE_BYTES * view.columns.len() as u64
        } else {
            output.iter().map(|expr| self.value(view, expr)).sum()
        };
        let names: u64 = view.columns.iter().map(|column| column.name.len() as u64 + 2).sum();
        Some(match target.kind() {
            Kind::String => (rows, rows * (REDIS_KEY_BYTES + values)),
            Kind::Hash => (rows, rows * (REDIS_KEY_BYTES + values + names)),
            Kind::Set | Kind::ZSet => (rows, rows * (REDIS_MEMBER_BYTES + VALUE_BYTES)),
            // A stream begins empty.
            Kind::Stream => (1, 0),
        })
    }

    fn value(&self, view: &View, expr: &Expr) -> u64 {
        let size = column_of(expr).and_then(|column| self.column(view, column));
        // A number's text is longer than its bytes.
        size.map_or(VALUE_BYTES, |size| width(&size).max(VALUE_BYTES))
    }
}

fn column_of(expr: &Expr) -> Option<ColumnRef> {
    if let ExprKind::Column(column) = expr.kind { Some(column) } else { None }
}

fn width(size: &ColumnSize) -> u64 {
    u64::from(size.width)
}
