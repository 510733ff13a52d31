//! A plan as canonical text: what Walview stores to see that a definition changed.
//!
//! Two plans have the same text if and only if they compute the same thing the same way. The text
//! holds what the plan resolved (table oids, column indexes, types), so a view whose SQL is
//! untouched but whose table was recreated has another text. Labels of enums are left out: one more
//! label changes no result, and renamed ones are found elsewhere (the catalog's fingerprint).
//!
//! The text is compared, never read back. Changing how it is written makes every view look changed
//! once: do it with care.

use super::{Aggregate, AggregateFunc, Input, JoinKind, View, ViewKind};
use crate::expr::{Expr, ExprKind};
use crate::value::{Type, Value};
use std::fmt::{self, Write as _};

impl View {
    /// Canonical text of the plan, one line for each part.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut out = String::new();
        // Writing to a String does not fail.
        if write_view(self, &mut out).is_err() {
            out.clear();
        }
        out
    }
}

fn write_view(view: &View, out: &mut String) -> fmt::Result {
    writeln!(out, "view {:?}", view.name)?;
    for (index, input) in view.inputs.iter().enumerate() {
        write_input(index, input, out)?;
    }
    if let Some(filter) = &view.filter {
        writeln!(out, "filter {}", Shown(filter))?;
    }
    let output = match &view.kind {
        ViewKind::Rows { output } => output,
        ViewKind::Groups { by, by_key, aggregates, output } => {
            for (index, expr) in by.iter().enumerate() {
                let what = if index < *by_key { "by" } else { "dependent" };
                writeln!(out, "{what} {}", Shown(expr))?;
            }
            for aggregate in aggregates {
                write_aggregate(aggregate, out)?;
            }
            writeln!(out, "groups")?;
            output
        }
    };
    for (column, expr) in view.columns.iter().zip(output) {
        let null = if column.nullable { "" } else { " not null" };
        let ty = ShownType(&column.ty);
        writeln!(out, "column {:?} {ty}{null} = {}", column.name, Shown(expr))?;
    }
    writeln!(out, "key {:?}", view.key)
}

fn write_input(index: usize, input: &Input, out: &mut String) -> fmt::Result {
    write!(out, "input {index} table {}", input.table)?;
    if let Some(join) = &input.join {
        out.push_str(match join.kind {
            JoinKind::Inner => " inner",
            JoinKind::Left => " left",
        });
        for (column, expr) in &join.on {
            write!(out, " on {column} = {}", Shown(expr))?;
        }
        if let Some(condition) = &join.condition {
            write!(out, " if {}", Shown(condition))?;
        }
    }
    writeln!(out)
}

fn write_aggregate(aggregate: &Aggregate, out: &mut String) -> fmt::Result {
    let name = match aggregate.func {
        AggregateFunc::Count => "count",
        AggregateFunc::Sum => "sum",
        AggregateFunc::Avg => "avg",
    };
    write!(out, "aggregate {} {name}(", ShownType(&aggregate.ty))?;
    match &aggregate.argument {
        Some(argument) => write!(out, "{})", Shown(argument))?,
        None => out.push_str("*)"),
    }
    if let Some(filter) = &aggregate.filter {
        write!(out, " filter {}", Shown(filter))?;
    }
    writeln!(out)
}

/// `(name:type argument …)`; columns are `$input.column`.
struct Shown<'a>(&'a Expr);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let expr = self.0;
        match &expr.kind {
            ExprKind::Column(column) => {
                write!(f, "${}.{}:{}", column.input, column.column, ShownType(&expr.ty))
            }
            ExprKind::Const(Value::Null) => write!(f, "null:{}", ShownType(&expr.ty)),
            ExprKind::Const(value) => {
                write!(f, "{:?}:{}", value.to_text(&expr.ty), ShownType(&expr.ty))
            }
            ExprKind::Call(func, args) => list(f, &format!("{func:?}"), &expr.ty, args),
            ExprKind::And(args) => list(f, "and", &expr.ty, args),
            ExprKind::Or(args) => list(f, "or", &expr.ty, args),
            ExprKind::Coalesce(args) => list(f, "coalesce", &expr.ty, args),
            ExprKind::Greatest(args) => list(f, "greatest", &expr.ty, args),
            ExprKind::Least(args) => list(f, "least", &expr.ty, args),
            ExprKind::Not(inner) => list(f, "not", &expr.ty, [inner.as_ref()]),
            ExprKind::IsNull(inner) => list(f, "isnull", &expr.ty, [inner.as_ref()]),
            ExprKind::IsBool(inner, true) => list(f, "istrue", &expr.ty, [inner.as_ref()]),
            ExprKind::IsBool(inner, false) => list(f, "isfalse", &expr.ty, [inner.as_ref()]),
            ExprKind::NotDistinct(left, right) => {
                list(f, "notdistinct", &expr.ty, [left.as_ref(), right.as_ref()])
            }
            ExprKind::NullIf(left, right) => {
                list(f, "nullif", &expr.ty, [left.as_ref(), right.as_ref()])
            }
            ExprKind::Cast(inner) => list(f, "cast", &expr.ty, [inner.as_ref()]),
            ExprKind::Case { branches, otherwise } => {
                let parts = branches.iter().flat_map(|(condition, result)| [condition, result]);
                list(f, "case", &expr.ty, parts.chain([otherwise.as_ref()]))
            }
        }
    }
}

fn list<'a>(
    f: &mut fmt::Formatter<'_>,
    name: &str,
    ty: &Type,
    args: impl IntoIterator<Item = &'a Expr>,
) -> fmt::Result {
    write!(f, "({name}:{}", ShownType(ty))?;
    for arg in args {
        write!(f, " {}", Shown(arg))?;
    }
    f.write_char(')')
}

struct ShownType<'a>(&'a Type);

impl fmt::Display for ShownType<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Type::Bool => f.write_str("bool"),
            Type::Int2 => f.write_str("int2"),
            Type::Int4 => f.write_str("int4"),
            Type::Int8 => f.write_str("int8"),
            Type::Float4 => f.write_str("float4"),
            Type::Float8 => f.write_str("float8"),
            Type::Numeric(None) => f.write_str("numeric"),
            Type::Numeric(Some((precision, scale))) => write!(f, "numeric({precision},{scale})"),
            Type::Text => f.write_str("text"),
            Type::Varchar(None) => f.write_str("varchar"),
            Type::Varchar(Some(length)) => write!(f, "varchar({length})"),
            Type::Char(length) => write!(f, "char({length})"),
            Type::Bytea => f.write_str("bytea"),
            Type::Date => f.write_str("date"),
            Type::Time => f.write_str("time"),
            Type::Timestamp => f.write_str("timestamp"),
            Type::TimestampTz => f.write_str("timestamptz"),
            Type::Interval => f.write_str("interval"),
            Type::Uuid => f.write_str("uuid"),
            Type::Json => f.write_str("json"),
            Type::Jsonb => f.write_str("jsonb"),
            Type::Enum { oid, .. } => write!(f, "enum({oid})"),
            Type::Other { oid, .. } => write!(f, "other({oid})"),
        }
    }
}
