//! A view, bound to a catalog: what the engine maintains.

use crate::expr::Expr;
use crate::value::Type;

mod describe;
mod origin;

/// A bound view. Input 0 of its row expressions is the fact; inputs 1… are the joined
/// dimensions in FROM order, each joined by a unique key, so that one fact row gives at most one
/// joined row.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    pub name: String,
    /// The tables in FROM order. The same table may stand here more than once.
    pub inputs: Vec<Input>,
    /// `WHERE`, over the inputs.
    pub filter: Option<Expr>,
    pub kind: ViewKind,
    /// What the view shows, in SELECT order.
    pub columns: Vec<OutputColumn>,
    /// Output columns that identify a result row, as indexes into `columns`. Empty where the result
    /// is a single row (an aggregate without GROUP BY), or where the SELECT list does not show a
    /// whole key: then `key_hint` says what to add, and targets that need a key refuse the view.
    pub key: Vec<usize>,
    /// Empty where `key` is whole.
    pub key_hint: String,
}

#[derive(Clone, Debug, PartialEq)]
pub struct OutputColumn {
    pub name: String,
    pub ty: Type,
    /// False only where NULL is impossible.
    pub nullable: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Input {
    /// `Table::oid`.
    pub table: u32,
    /// `None` for the fact.
    pub join: Option<Join>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Join {
    pub kind: JoinKind,
    /// `dim.key = expr`, one for each column of the key, in the key's order: the dimension's column
    /// (an index into `Table::columns`) and an expression over earlier inputs whose type compares
    /// with it by the same equality (cast already applied).
    pub on: Vec<(usize, Expr)>,
    /// Further conditions of ON, over the inputs up to and with this one.
    pub condition: Option<Expr>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinKind {
    Inner,
    Left,
}

#[derive(Clone, Debug, PartialEq)]
pub enum ViewKind {
    /// One result row for each joined row that passes the filter: the expression of each output
    /// column, over the inputs.
    Rows { output: Vec<Expr> },
    /// `GROUP BY`, aggregates, `SELECT DISTINCT`.
    Groups {
        /// Over the inputs. Empty: exactly one group, also over no rows.
        by: Vec<Expr>,
        /// How many of `by` identify a group; the rest depend on them (columns of a row whose
        /// primary key is grouped).
        by_key: usize,
        aggregates: Vec<Aggregate>,
        /// Each output column, over input 0 = `by`, input 1 = `aggregates`.
        output: Vec<Expr>,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub struct Aggregate {
    pub func: AggregateFunc,
    /// Over the inputs; `None` for `count(*)`. Already cast to the type that the function takes.
    pub argument: Option<Expr>,
    /// `FILTER (WHERE …)`.
    pub filter: Option<Expr>,
    /// The result's type.
    pub ty: Type,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AggregateFunc {
    /// `count(*)` and `count(x)`: bigint.
    Count,
    /// bigint over int2 and int4, numeric over int8 and numeric; NULL over nothing.
    Sum,
    /// numeric.
    Avg,
}
