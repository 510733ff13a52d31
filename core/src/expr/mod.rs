//! Typed expressions: what the SQL front end binds to and what the engine evaluates.
//!
//! The binder has resolved names, types and implicit casts; a node's arguments already have the
//! types that its function takes, so evaluation dispatches on values and checks only ranges.

use crate::value::{Type, Value};

mod eval;
mod eval_cast;
mod eval_number;
mod eval_text;
mod eval_time;

pub use eval::{Env, EvalError};

/// An expression and the type of its result.
#[derive(Clone, Debug, PartialEq)]
pub struct Expr {
    pub kind: ExprKind,
    pub ty: Type,
}

/// A column of one of the inputs that an expression is evaluated over. For a view's row
/// expressions the inputs are the view's tables in FROM order; for the output of an aggregate
/// view input 0 holds the group's expressions and input 1 the aggregates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ColumnRef {
    pub input: usize,
    pub column: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub enum ExprKind {
    Column(ColumnRef),
    Const(Value),
    /// Strict (NULL in, NULL out) function or operator.
    Call(Func, Vec<Expr>),
    /// Three-valued logic.
    And(Vec<Expr>),
    Or(Vec<Expr>),
    Not(Box<Expr>),
    IsNull(Box<Expr>),
    /// `IS TRUE`, `IS FALSE`: never NULL.
    IsBool(Box<Expr>, bool),
    /// `IS NOT DISTINCT FROM`.
    NotDistinct(Box<Expr>, Box<Expr>),
    /// The first branch whose condition is true; a simple `CASE x WHEN` is bound to `x = …`.
    Case {
        branches: Vec<(Expr, Expr)>,
        otherwise: Box<Expr>,
    },
    Coalesce(Vec<Expr>),
    NullIf(Box<Expr>, Box<Expr>),
    /// NULL arguments are skipped.
    Greatest(Vec<Expr>),
    Least(Vec<Expr>),
    /// To this node's type, length and scale applied as an explicit cast does.
    Cast(Box<Expr>),
}

/// Strict functions. Overloads are told apart by the arguments' values and the node's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Func {
    /// Numbers; date, time, timestamp and interval with interval; date with int and time; either
    /// way round.
    Add,
    /// Numbers; date, time, timestamp and interval - interval; date - int; two of the same.
    Sub,
    Mul,
    Div,
    Mod,
    Neg,
    Abs,
    Eq,
    Ne,
    Lt,
    Le,
    Gt,
    Ge,
    /// `||` on text.
    Concat,
    Like,
    /// `trim(both|leading|trailing chars from x)`: (x, chars).
    Trim(TrimSide),
    /// In characters.
    Length,
    Left,
    Right,
    /// (x, from) or (x, from, for), in characters.
    Substring,
    SplitPart,
    Lower,
    Upper,
    /// (x) or (x, digits).
    Round,
    Floor,
    Ceil,
    /// (field as a constant text, x).
    DateTrunc,
    /// (field as a constant text, x): numeric.
    Extract,
    /// `->`, `->>` by key or index, `#>>` by path.
    JsonGet,
    JsonGetText,
    JsonPathText,
    /// Of text, as 32 hexadecimal digits.
    Md5,
    /// `encode(sha256(convert_to(x, 'UTF8')), 'hex')`.
    Sha256Hex,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TrimSide {
    Both,
    Leading,
    Trailing,
}

impl Expr {
    /// Calls `visit` with every column that this expression reads.
    pub fn columns(&self, visit: &mut impl FnMut(ColumnRef)) {
        self.for_each(&mut |expr| {
            if let ExprKind::Column(column) = &expr.kind {
                visit(*column);
            }
        });
    }

    /// Rewrites every column reference.
    pub fn map_columns(&mut self, map: &mut impl FnMut(ColumnRef) -> ColumnRef) {
        if let ExprKind::Column(column) = &mut self.kind {
            *column = map(*column);
        }
        self.children_mut(&mut |child| child.map_columns(map));
    }

    fn for_each(&self, visit: &mut impl FnMut(&Self)) {
        visit(self);
        match &self.kind {
            ExprKind::Column(_) | ExprKind::Const(_) => {}
            ExprKind::Call(_, args)
            | ExprKind::And(args)
            | ExprKind::Or(args)
            | ExprKind::Coalesce(args)
            | ExprKind::Greatest(args)
            | ExprKind::Least(args) => {
                for arg in args {
                    arg.for_each(visit);
                }
            }
            ExprKind::Not(inner)
            | ExprKind::IsNull(inner)
            | ExprKind::IsBool(inner, _)
            | ExprKind::Cast(inner) => inner.for_each(visit),
            ExprKind::NotDistinct(left, right) | ExprKind::NullIf(left, right) => {
                left.for_each(visit);
                right.for_each(visit);
            }
            ExprKind::Case { branches, otherwise } => {
                for (condition, result) in branches {
                    condition.for_each(visit);
                    result.for_each(visit);
                }
                otherwise.for_each(visit);
            }
        }
    }

    pub(crate) fn children_mut(&mut self, visit: &mut impl FnMut(&mut Self)) {
        match &mut self.kind {
            ExprKind::Column(_) | ExprKind::Const(_) => {}
            ExprKind::Call(_, args)
            | ExprKind::And(args)
            | ExprKind::Or(args)
            | ExprKind::Coalesce(args)
            | ExprKind::Greatest(args)
            | ExprKind::Least(args) => args.iter_mut().for_each(visit),
            ExprKind::Not(inner)
            | ExprKind::IsNull(inner)
            | ExprKind::IsBool(inner, _)
            | ExprKind::Cast(inner) => visit(inner),
            ExprKind::NotDistinct(left, right) | ExprKind::NullIf(left, right) => {
                visit(left);
                visit(right);
            }
            ExprKind::Case { branches, otherwise } => {
                for (condition, result) in branches {
                    visit(condition);
                    visit(result);
                }
                visit(otherwise);
            }
        }
    }
}
