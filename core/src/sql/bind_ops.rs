//! Binary operators after resolution: which of them Walview computes, and over which values.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "types that are not named are refused or take the general way"
)]

use super::ast::Op;
use super::bind::{Binder, Binding};
use super::bind_expr::shown;
use super::operators;
use super::scope::{Bound, Coll};
use super::types::{Base, type_name};
use crate::diagnostic::Place;
use crate::expr::{Expr, ExprKind, Func, TrimSide};
use crate::value::{Type, Value};

/// Values of one type that are equal where their texts are: PostgreSQL finds the type's own `=`.
fn same_by_text(left: &Bound, right: &Bound) -> bool {
    let canonical = |bound: &Bound| bound.carried().is_some_and(|carried| carried.canonical);
    canonical(left) && canonical(right) && left.expr.ty == right.expr.ty
}

impl Binder<'_> {
    pub(super) fn binary(
        &mut self,
        op: Op,
        left: Bound,
        right: Bound,
        place: Place,
    ) -> Binding<Bound> {
        if matches!(op, Op::Eq | Op::Ne) && same_by_text(&left, &right) {
            self.deterministic(left.collation.merge(right.collation), place)?;
            let nullable = left.nullable || right.nullable;
            let sides = vec![left.expr, right.expr];
            return Ok(self.boolean(place, nullable, ExprKind::Call(comparison(op), sides)));
        }
        let operator =
            self.resolve(op.symbol(), operators::candidates(op), &left, &right, place)?;
        let args = operator.args;
        let nullable = left.nullable || right.nullable;
        let collation = left.collation.merge(right.collation);
        let (func, exprs, ty) = match op {
            Op::Eq | Op::Ne | Op::Lt | Op::Le | Op::Gt | Op::Ge => {
                let exprs = self.comparison(op, args, left, right, place)?;
                return Ok(self.boolean(place, nullable, ExprKind::Call(comparison(op), exprs)));
            }
            Op::Concat => {
                if args.iter().any(|base| !matches!(base, Base::Text | Base::AnyNonArray)) {
                    return self.not_computed(op, &left, &right, place);
                }
                let exprs = vec![self.as_text(left)?.expr, self.as_text(right)?.expr];
                (Func::Concat, exprs, Type::Text)
            }
            Op::Arrow | Op::LongArrow | Op::HashLongArrow => {
                return self.json(op, args, left, right, place);
            }
            Op::Add | Op::Sub | Op::Mul | Op::Div | Op::Mod => {
                self.arithmetic(op, operator, left, right, place)?
            }
        };
        let expr = Expr { kind: ExprKind::Call(func, exprs), ty };
        let collation = if op == Op::Concat { collation } else { Coll::None };
        Ok(Bound { place, expr, nullable, collation, unknown: false })
    }

    fn not_computed<T>(&mut self, op: Op, left: &Bound, right: &Bound, place: Place) -> Binding<T> {
        let message = format!("{} {} {} is not accepted", shown(left), op.symbol(), shown(right));
        self.refuse(place, message, "Walview does not compute this operator for these types")
    }

    /// Both sides brought to one type whose values compare.
    fn comparison(
        &mut self,
        op: Op,
        args: [Base; 2],
        left: Bound,
        right: Bound,
        place: Place,
    ) -> Binding<Vec<Expr>> {
        let collation = left.collation.merge(right.collation);
        let ordering = !matches!(op, Op::Eq | Op::Ne);
        let ty = match args {
            [Base::Bpchar, Base::Bpchar] => {
                self.comparable(&Type::Text, collation, ordering, place)?;
                return Ok(vec![self.without_blanks(left)?, self.without_blanks(right)?]);
            }
            // Integers of every width are one value.
            [a, b] if a.is_integer() && b.is_integer() => {
                let left = self.coerce_base(left, a)?;
                let right = self.coerce_base(right, b)?;
                return Ok(vec![left.expr, right.expr]);
            }
            // Compared as they are: a date that no timestamp reaches is still before or after it.
            [Base::Date, Base::Timestamp | Base::TimestampTz]
            | [Base::Timestamp | Base::TimestampTz, Base::Date] => {
                let left = self.coerce_base(left, args[0])?;
                let right = self.coerce_base(right, args[1])?;
                return Ok(vec![left.expr, right.expr]);
            }
            [Base::AnyEnum, Base::AnyEnum] => {
                let mut known = [&left, &right].into_iter().filter(|bound| !bound.unknown);
                match (known.next(), known.next()) {
                    (Some(one), None) => one.expr.ty.clone(),
                    (Some(one), Some(two)) if one.expr.ty == two.expr.ty => one.expr.ty.clone(),
                    _ => return self.not_computed(op, &left, &right, place),
                }
            }
            [a, b] => match wider(a, b).and_then(Base::to_type) {
                Some(ty) => ty,
                None => return self.not_computed(op, &left, &right, place),
            },
        };
        self.comparable(&ty, collation, ordering, place)?;
        let left = self.coerce(left, &ty)?;
        let right = self.coerce(right, &ty)?;
        Ok(vec![left.expr, right.expr])
    }

    /// Refuses comparisons that cannot be exact outside of PostgreSQL.
    pub(super) fn comparable(
        &mut self,
        ty: &Type,
        collation: Coll,
        ordering: bool,
        place: Place,
    ) -> Binding<()> {
        match Base::of(ty) {
            Base::Json | Base::Jsonb => self.refuse(
                place,
                format!("comparisons of {} are not accepted", type_name(ty)),
                "compare its text: x ->> 'key'",
            ),
            Base::Other => self.refuse(
                place,
                format!("Walview does not compare type \"{}\"", type_name(ty)),
                "such a column may be shown, counted and tested for NULL",
            ),
            Base::Text | Base::Varchar | Base::Bpchar
                if ordering && self.catalog.other_encoding =>
            {
                self.refuse(
                    place,
                    "the order of text is that of its bytes in the database's encoding, not UTF8",
                    "compare it where the store is read",
                )
            }
            Base::Text | Base::Varchar | Base::Bpchar if ordering && !collation.is_c() => self
                .refuse(
                    place,
                    "the order of text follows the server's collation",
                    "write x COLLATE \"C\", which orders by bytes",
                ),
            Base::Text | Base::Varchar | Base::Bpchar => self.deterministic(collation, place),
            _ => Ok(()),
        }
    }

    pub(super) fn deterministic(&mut self, collation: Coll, place: Place) -> Binding<()> {
        if collation.is_deterministic() {
            return Ok(());
        }
        self.refuse(
            place,
            "this column's collation is not deterministic: different texts may be equal",
            "write x COLLATE \"C\", which compares bytes",
        )
    }

    /// `char(n)` compares as if without its blanks, which is what the cast to text leaves. `varchar`
    /// beside it is taken for `char(n)`, and only the comparison leaves its blanks out.
    fn without_blanks(&mut self, bound: Bound) -> Binding<Expr> {
        if let Some(text) = bound.literal_text() {
            let text = text.trim_end_matches(' ');
            return Ok(Bound::constant(bound.place, Value::Text(text.into()), Type::Text).expr);
        }
        let is_char = bound.base() == Base::Bpchar;
        let text = self.coerce(bound, &Type::Text)?.expr;
        if is_char {
            return Ok(text);
        }
        let blank = Expr { kind: ExprKind::Const(Value::Text(" ".into())), ty: Type::Text };
        let kind = ExprKind::Call(Func::Trim(TrimSide::Trailing), vec![text, blank]);
        Ok(Expr { kind, ty: Type::Text })
    }

    /// `||` takes everything that is not text by its text.
    fn as_text(&mut self, bound: Bound) -> Binding<Bound> {
        if bound.base() == Base::Other {
            return self.refuse(bound.place, "this type has no text here", "");
        }
        self.coerce(bound, &Type::Text)
    }

    pub(super) fn coerce_base(&mut self, bound: Bound, base: Base) -> Binding<Bound> {
        match base.to_type() {
            Some(ty) => self.coerce(bound, &ty),
            None => Ok(bound),
        }
    }

    fn json(
        &mut self,
        op: Op,
        args: [Base; 2],
        left: Bound,
        right: Bound,
        place: Place,
    ) -> Binding<Bound> {
        let func = match op {
            Op::Arrow => Func::JsonGet,
            Op::LongArrow => Func::JsonGetText,
            _ => Func::JsonPathText,
        };
        let [document, key] = args;
        let left = self.coerce_base(left, document)?;
        let right = if key == Base::TextArray {
            let Some(path) = right.literal_text() else {
                return self.refuse(
                    right.place,
                    "the path of #>> must be a literal",
                    "write x #>> '{a,b}'",
                );
            };
            if !is_simple_array(path) {
                return self.refuse(
                    right.place,
                    format!("path '{path}' is not understood"),
                    "write keys and numbers: '{a,b,0}'",
                );
            }
            Bound::constant(right.place, Value::Text(path.into()), Type::Text)
        } else {
            self.coerce_base(right, key)?
        };
        let ty = match (op, document) {
            (Op::Arrow, Base::Json) => Type::Json,
            (Op::Arrow, _) => Type::Jsonb,
            _ => Type::Text,
        };
        let expr = Expr { kind: ExprKind::Call(func, vec![left.expr, right.expr]), ty };
        Ok(Bound { place, expr, nullable: true, collation: Coll::None, unknown: false })
    }

    fn arithmetic(
        &mut self,
        op: Op,
        operator: &operators::Operator,
        left: Bound,
        right: Bound,
        place: Place,
    ) -> Binding<(Func, Vec<Expr>, Type)> {
        use Base::{Date, Int4, Interval, Time, Timestamp, TimestampTz};
        let func = match op {
            Op::Add => Func::Add,
            Op::Sub => Func::Sub,
            Op::Mul => Func::Mul,
            Op::Div => Func::Div,
            _ => Func::Mod,
        };
        let Some(ty) = operator.result.to_type() else {
            return self.not_computed(op, &left, &right, place);
        };
        let (left, right) = match (op, operator.args) {
            (_, [a, b]) if a.is_number() && b.is_number() => {
                let common = wider(a, b).filter(|base| base.is_float());
                let left = self.coerce_base(left, common.unwrap_or(a))?;
                let right = self.coerce_base(right, common.unwrap_or(b))?;
                (left, right)
            }
            (
                Op::Add,
                [Date | Timestamp | TimestampTz | Time | Interval, Interval]
                | [Interval, Date | Timestamp | TimestampTz | Time]
                | [Date, Int4 | Time]
                | [Int4 | Time, Date],
            )
            | (
                Op::Sub,
                [Date | Timestamp | TimestampTz | Time | Interval, Interval]
                | [Date, Int4 | Date]
                | [Timestamp, Timestamp]
                | [TimestampTz, TimestampTz]
                | [Time, Time],
            ) => {
                let [a, b] = operator.args;
                let left = self.coerce_base(left, a)?;
                (left, self.coerce_base(right, b)?)
            }
            _ => return self.not_computed(op, &left, &right, place),
        };
        Ok((func, vec![left.expr, right.expr], ty))
    }
}

fn comparison(op: Op) -> Func {
    match op {
        Op::Ne => Func::Ne,
        Op::Lt => Func::Lt,
        Op::Le => Func::Le,
        Op::Gt => Func::Gt,
        Op::Ge => Func::Ge,
        Op::Eq
        | Op::Add
        | Op::Sub
        | Op::Mul
        | Op::Div
        | Op::Mod
        | Op::Concat
        | Op::Arrow
        | Op::LongArrow
        | Op::HashLongArrow => Func::Eq,
    }
}

/// The type that both sides of an operator over two types are brought to without a loss.
fn wider(left: Base, right: Base) -> Option<Base> {
    use Base::{Float4, Float8, Timestamp, TimestampTz};
    if left == right {
        return Some(left);
    }
    match (left, right) {
        (Float4, Float8) | (Float8, Float4) => Some(Float8),
        (Timestamp, TimestampTz) | (TimestampTz, Timestamp) => Some(TimestampTz),
        _ => None,
    }
}

/// `{a,b,0}` without quotes, escapes, blanks, nesting or NULL, which reads the same everywhere.
fn is_simple_array(path: &str) -> bool {
    let Some(inner) = path.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) else {
        return false;
    };
    inner.is_empty()
        || inner.split(',').all(|part| {
            !part.is_empty()
                && !part.eq_ignore_ascii_case("null")
                && !part.chars().any(|char| {
                    char.is_whitespace()
                        || char.is_control()
                        || matches!(char, '{' | '}' | '"' | '\\')
                })
        })
}
