//! Columns that cannot be NULL in a row for which a condition is true.
//!
//! `ClickHouse` columns are declared without NULL, and keys made of columns, because of this: a
//! column is named here only where three-valued logic leaves no other way.

#![expect(clippy::wildcard_enum_match_arm, reason = "what is not named is strict or says nothing")]

use crate::expr::{ColumnRef, Expr, ExprKind};
use std::collections::HashSet;

/// Adds the columns that are not NULL where `condition` is true.
pub(super) fn implied(condition: &Expr, out: &mut HashSet<ColumnRef>) {
    match &condition.kind {
        ExprKind::And(exprs) => exprs.iter().for_each(|expr| implied(expr, out)),
        ExprKind::Or(exprs) => {
            let mut all: Option<HashSet<ColumnRef>> = None;
            for expr in exprs {
                let mut one = HashSet::new();
                implied(expr, &mut one);
                all = Some(match all {
                    None => one,
                    Some(all) => all.intersection(&one).copied().collect(),
                });
            }
            out.extend(all.unwrap_or_default());
        }
        ExprKind::Not(inner) => match &inner.kind {
            ExprKind::IsNull(tested) => strict(tested, out),
            // NOT (a OR b): both are false, so neither is NULL.
            ExprKind::Or(exprs) => exprs.iter().for_each(|expr| strict(expr, out)),
            _ => strict(inner, out),
        },
        ExprKind::IsBool(inner, _) => strict(inner, out),
        _ => strict(condition, out),
    }
}

/// Adds the columns that are not NULL where `expr` is not NULL.
pub(super) fn strict(expr: &Expr, out: &mut HashSet<ColumnRef>) {
    match &expr.kind {
        ExprKind::Column(column) => {
            out.insert(*column);
        }
        ExprKind::Call(_, args) => args.iter().for_each(|arg| strict(arg, out)),
        ExprKind::Cast(inner) | ExprKind::Not(inner) => strict(inner, out),
        ExprKind::NullIf(left, _) => strict(left, out),
        ExprKind::Const(_)
        | ExprKind::And(_)
        | ExprKind::Or(_)
        | ExprKind::IsNull(_)
        | ExprKind::IsBool(..)
        | ExprKind::NotDistinct(..)
        | ExprKind::Case { .. }
        | ExprKind::Coalesce(_)
        | ExprKind::Greatest(_)
        | ExprKind::Least(_) => {}
    }
}
