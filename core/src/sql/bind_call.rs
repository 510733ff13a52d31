//! Function calls: the overload that PostgreSQL takes, and fields of dates.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "functions and nodes that are not named take the general way"
)]

use super::ast::{Node, NodeKind};
use super::bind::{Binder, Binding};
use super::bind_expr::shown;
use super::functions::{self, Function};
use super::scope::{Bound, Coll};
use super::types::{self, Base, Choice};
use crate::diagnostic::Place;
use crate::expr::{Expr, ExprKind, Func};
use crate::value::{Type, Value};

const TRUNC_FIELDS: &[&str] = &[
    "microseconds",
    "milliseconds",
    "second",
    "minute",
    "hour",
    "day",
    "week",
    "month",
    "quarter",
    "year",
    "decade",
    "century",
    "millennium",
];
const EXTRACT_DATE: &[&str] = &[
    "day",
    "month",
    "year",
    "quarter",
    "week",
    "dow",
    "doy",
    "isodow",
    "isoyear",
    "decade",
    "century",
    "millennium",
    "julian",
    "epoch",
];
const EXTRACT_TIMESTAMP: &[&str] = &[
    "microseconds",
    "milliseconds",
    "second",
    "minute",
    "hour",
    "day",
    "month",
    "year",
    "quarter",
    "week",
    "dow",
    "doy",
    "isodow",
    "isoyear",
    "decade",
    "century",
    "millennium",
    "julian",
    "epoch",
];
const EXTRACT_TIME: &[&str] =
    &["microseconds", "milliseconds", "second", "minute", "hour", "epoch"];
const EXTRACT_INTERVAL: &[&str] = &[
    "microseconds",
    "milliseconds",
    "second",
    "minute",
    "hour",
    "day",
    "month",
    "year",
    "decade",
    "century",
    "millennium",
    "epoch",
];

impl Binder<'_> {
    pub(super) fn call(&mut self, name: &str, args: &[Node], place: Place) -> Binding<Bound> {
        if matches!(name, "encode" | "sha256" | "convert_to") {
            return self.sha256(name, args, place);
        }
        let bounds = self.exprs(args)?;
        let function = self.overload(name, functions::overloads(name), &bounds, place)?;
        let Some(func) = function.func else {
            return self.refuse(
                place,
                format!("\"{name}\" is not accepted for these types"),
                "see the list of functions that views know",
            );
        };
        let collation = bounds.iter().fold(Coll::None, |all, bound| all.merge(bound.collation));
        if matches!(func, Func::Lower | Func::Upper) && !collation.is_c() {
            return self.refuse(
                place,
                format!("\"{name}\" follows the server's rules for letters"),
                format!("write {name}(x COLLATE \"C\"), which changes ASCII letters only"),
            );
        }
        if func == Func::Md5 && self.catalog.other_encoding {
            return self.refuse(
                place,
                "md5 is of the bytes in the database's encoding, which is not UTF8",
                "write encode(sha256(convert_to(x, 'UTF8')), 'hex')",
            );
        }
        let nullable = bounds.iter().any(|bound| bound.nullable);
        let mut exprs = Vec::new();
        for (bound, base) in bounds.into_iter().zip(function.args) {
            // length(char) counts without the blanks, as the cast to text drops them.
            let ty = base.to_type().unwrap_or(Type::Text);
            exprs.push(self.coerce(bound, &ty)?.expr);
        }
        match func {
            Func::Trim(_) if exprs.len() == 1 => {
                exprs.push(Expr { kind: ExprKind::Const(Value::Text(" ".into())), ty: Type::Text });
            }
            Func::DateTrunc => self.date_trunc_field(&mut exprs, place)?,
            _ => {}
        }
        let ty = function.result.to_type().unwrap_or(Type::Text);
        let expr = Expr { kind: ExprKind::Call(func, exprs), ty };
        Ok(Bound { place, expr, nullable, collation, unknown: false })
    }

    fn overload(
        &mut self,
        name: &str,
        overloads: &'static [Function],
        args: &[Bound],
        place: Place,
    ) -> Binding<&'static Function> {
        let bases: Vec<Base> = args.iter().map(Bound::base).collect();
        if let Some(other) = args.iter().find(|bound| bound.base() == Base::Other) {
            return self.not_of_carried(other);
        }
        let types = || args.iter().map(shown).collect::<Vec<_>>().join(", ");
        match types::select(overloads, |function| function.args, &bases) {
            Choice::One(function) => Ok(function),
            Choice::None => {
                let message = format!("function does not exist: {name}({})", types());
                self.refuse(place, message, "cast the arguments, or check their number")
            }
            Choice::Ambiguous => {
                let message = format!("function is not unique: {name}({})", types());
                self.refuse(place, message, "cast the arguments: x::type")
            }
        }
    }

    /// `encode(sha256(convert_to(x, 'UTF8')), 'hex')`, the one accepted use of these three.
    fn sha256(&mut self, name: &str, args: &[Node], place: Place) -> Binding<Bound> {
        fn two<'a>(node: &'a Node, wanted: &str) -> Option<(&'a Node, &'a str)> {
            match &node.kind {
                NodeKind::Call(name, args) if name == wanted => match args.as_slice() {
                    [first, Node { kind: NodeKind::Text(text), .. }] => Some((first, text)),
                    _ => None,
                },
                _ => None,
            }
        }
        let whole = Node::new(place, NodeKind::Call(name.to_owned(), args.to_vec()));
        let argument = two(&whole, "encode")
            .filter(|(_, format)| *format == "hex")
            .and_then(|(hash, _)| match &hash.kind {
                NodeKind::Call(name, args) if name == "sha256" => {
                    args.first().filter(|_| args.len() == 1)
                }
                _ => None,
            })
            .and_then(|text| two(text, "convert_to"))
            .filter(|(_, encoding)| matches!(*encoding, "UTF8" | "utf8" | "UTF-8" | "utf-8"))
            .map(|(argument, _)| argument.clone());
        let Some(argument) = argument else {
            return self.refuse(
                place,
                format!("\"{name}\" is accepted in one form only"),
                "write encode(sha256(convert_to(x, 'UTF8')), 'hex')",
            );
        };
        let argument = self.expr(&argument)?;
        if !types::implicit(argument.base(), Base::Text) {
            return self.refuse(
                place,
                format!("function does not exist: convert_to({}, unknown)", shown(&argument)),
                "cast the argument to text",
            );
        }
        let argument = self.coerce(argument, &Type::Text)?;
        let expr =
            Expr { kind: ExprKind::Call(Func::Sha256Hex, vec![argument.expr]), ty: Type::Text };
        Ok(Bound {
            place,
            expr,
            nullable: argument.nullable,
            collation: Coll::None,
            unknown: false,
        })
    }

    fn date_trunc_field(&mut self, exprs: &mut [Expr], place: Place) -> Binding<()> {
        let Some(Expr { kind: ExprKind::Const(Value::Text(field)), .. }) = exprs.first_mut() else {
            return self.refuse(
                place,
                "the field of date_trunc must be a literal",
                "write date_trunc('hour', x)",
            );
        };
        match canonical_field(&field.to_lowercase()) {
            Some(canonical) if TRUNC_FIELDS.contains(&canonical) => {
                *field = canonical.into();
                Ok(())
            }
            _ => {
                let message = format!("date_trunc does not know the field \"{field}\"");
                self.refuse(place, message, format!("fields: {}", TRUNC_FIELDS.join(", ")))
            }
        }
    }

    pub(super) fn extract(&mut self, field: &str, inner: &Node, place: Place) -> Binding<Bound> {
        let inner = self.expr(inner)?;
        let literal = Bound::unknown(place, Value::Text(field.into()));
        let args = [Bound { unknown: false, ..literal }, inner];
        let function = self.overload("extract", functions::EXTRACT, &args, place)?;
        let [_, inner] = args;
        let fields: &[&str] = match function.args {
            [_, Base::Date] => EXTRACT_DATE,
            [_, Base::Timestamp | Base::TimestampTz] => EXTRACT_TIMESTAMP,
            [_, Base::Time] => EXTRACT_TIME,
            [_, Base::Interval] => EXTRACT_INTERVAL,
            _ => &[],
        };
        if function.args.get(1) == Some(&Base::Interval)
            && canonical_field(field) == Some("quarter")
        {
            return self.refuse(
                place,
                "the quarter of a negative interval differs between versions of PostgreSQL",
                "write extract(month FROM x)",
            );
        }
        let Some(field) = canonical_field(field).filter(|field| fields.contains(field)) else {
            return self.refuse(
                place,
                format!("extract does not know the field \"{field}\" of {}", shown(&inner)),
                format!("fields: {}", fields.join(", ")),
            );
        };
        let ty = function.args.get(1).and_then(|base| base.to_type()).unwrap_or(Type::TimestampTz);
        let inner = self.coerce(inner, &ty)?;
        let field = Expr { kind: ExprKind::Const(Value::Text(field.into())), ty: Type::Text };
        let expr = Expr {
            kind: ExprKind::Call(Func::Extract, vec![field, inner.expr]),
            ty: Type::Numeric(None),
        };
        // The infinities have no fields but epoch and the like: NULL.
        Ok(Bound { place, expr, nullable: true, collation: Coll::None, unknown: false })
    }
}

/// PostgreSQL's own names for a field (`datetktbl`), brought to one spelling.
fn canonical_field(name: &str) -> Option<&'static str> {
    Some(match name {
        "microsecond" | "microseconds" => "microseconds",
        "millisecond" | "milliseconds" => "milliseconds",
        "second" | "seconds" => "second",
        "minute" | "minutes" => "minute",
        "hour" | "hours" => "hour",
        "day" | "days" => "day",
        "week" | "weeks" => "week",
        "month" | "months" => "month",
        "quarter" => "quarter",
        "year" | "years" => "year",
        "decade" | "decades" => "decade",
        "century" | "centuries" => "century",
        "millennium" | "millennia" => "millennium",
        "dow" => "dow",
        "doy" => "doy",
        "isodow" => "isodow",
        "isoyear" => "isoyear",
        "julian" => "julian",
        "epoch" => "epoch",
        _ => return None,
    })
}
