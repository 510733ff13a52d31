//! Literals, operators and type names of sqlparser's tree, and where an expression starts.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "sqlparser knows many dialects: what is not named is refused"
)]

use super::ast::{Node, NodeKind, Op, TypeName};
use super::lower::{Lower, Lowered, start_of_body};
use crate::diagnostic::Place;
use crate::value::Type;
use sqlparser::ast::{
    self as sql, BinaryOperator, CharacterLength, DataType, DateTimeField, ExactNumberInfo, Expr,
    Spanned, TimezoneInfo, UnaryOperator, Value, ValueWithSpan,
};
use sqlparser::tokenizer::{Location, Span};

impl Lower {
    pub(super) fn operator(&mut self, op: &BinaryOperator, place: Place) -> Lowered<Op> {
        Ok(match op {
            BinaryOperator::Plus => Op::Add,
            BinaryOperator::Minus => Op::Sub,
            BinaryOperator::Multiply => Op::Mul,
            BinaryOperator::Divide => Op::Div,
            BinaryOperator::Modulo => Op::Mod,
            BinaryOperator::Eq => Op::Eq,
            BinaryOperator::NotEq => Op::Ne,
            BinaryOperator::Lt => Op::Lt,
            BinaryOperator::LtEq => Op::Le,
            BinaryOperator::Gt => Op::Gt,
            BinaryOperator::GtEq => Op::Ge,
            BinaryOperator::StringConcat => Op::Concat,
            BinaryOperator::Arrow => Op::Arrow,
            BinaryOperator::LongArrow => Op::LongArrow,
            BinaryOperator::HashLongArrow => Op::HashLongArrow,
            BinaryOperator::HashArrow => {
                return self.refuse(
                    place,
                    "operator #> is not accepted",
                    "write x -> 'a' -> 'b', or x #>> '{a,b}' for text",
                );
            }
            BinaryOperator::PGRegexMatch
            | BinaryOperator::PGRegexIMatch
            | BinaryOperator::PGRegexNotMatch
            | BinaryOperator::PGRegexNotIMatch => {
                return self.refuse(
                    place,
                    "regular expressions are not accepted",
                    "write LIKE, or split_part",
                );
            }
            BinaryOperator::PGExp | BinaryOperator::BitwiseXor => {
                return self.refuse(place, "operator ^ is not accepted", "multiply instead");
            }
            other => {
                let symbol = other.to_string();
                let remedy = if symbol.len() > 1 && symbol.ends_with(['-', '+']) {
                    "put a space in front of the sign"
                } else {
                    ""
                };
                return self.refuse(place, format!("operator {symbol} is not accepted"), remedy);
            }
        })
    }

    pub(super) fn literal(&mut self, value: &ValueWithSpan, place: Place) -> Lowered<NodeKind> {
        Ok(match &value.value {
            Value::Number(digits, false) => {
                let plain = digits.chars().all(|char| {
                    char.is_ascii_digit() || matches!(char, '.' | 'e' | 'E' | '+' | '-')
                });
                if !plain {
                    return self.refuse(
                        place,
                        format!("number \"{digits}\" means different things to different versions of PostgreSQL"),
                        "write it with decimal digits only",
                    );
                }
                NodeKind::Number(digits.clone())
            }
            Value::SingleQuotedString(text) => NodeKind::Text(text.clone()),
            Value::EscapedStringLiteral(text) => NodeKind::Text(text.clone()),
            Value::DollarQuotedString(text) => NodeKind::Text(text.value.clone()),
            Value::Boolean(value) => NodeKind::Bool(*value),
            Value::Null => NodeKind::Null,
            Value::Placeholder(name) => {
                return self.refuse(
                    place,
                    format!("parameter \"{name}\" is not accepted"),
                    "write the value; a view has no parameters",
                );
            }
            _ => {
                return self.refuse(place, "this kind of literal is not accepted", "write 'text'");
            }
        })
    }

    pub(super) fn interval(&mut self, interval: &sql::Interval, place: Place) -> Lowered<NodeKind> {
        let text = match interval.value.as_ref() {
            Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(text), .. })
                if interval.leading_field.is_none()
                    && interval.leading_precision.is_none()
                    && interval.last_field.is_none()
                    && interval.fractional_seconds_precision.is_none() =>
            {
                text.clone()
            }
            _ => {
                return self.refuse(
                    place,
                    "this form of interval is not accepted",
                    "write interval '1 hour'",
                );
            }
        };
        let ty = TypeName::Known(crate::value::Type::Interval);
        Ok(NodeKind::Cast(Node::boxed(place, NodeKind::Text(text)), ty))
    }

    pub(super) fn type_name(&mut self, ty: &sql::DataType, place: Place) -> Lowered<TypeName> {
        let length = |length: &Option<CharacterLength>| match length {
            None => Ok(None),
            Some(CharacterLength::IntegerLength { length, unit: None }) => {
                match u32::try_from(*length) {
                    Ok(length @ 1..=10_485_760) => Ok(Some(length)),
                    _ => Err(()),
                }
            }
            Some(_) => Err(()),
        };
        let known = match ty {
            DataType::Bool | DataType::Boolean => Ok(Type::Bool),
            DataType::Int2(None) | DataType::SmallInt(None) => Ok(Type::Int2),
            DataType::Int(None) | DataType::Int4(None) | DataType::Integer(None) => Ok(Type::Int4),
            DataType::Int8(None) | DataType::BigInt(None) => Ok(Type::Int8),
            DataType::Float4 | DataType::Real => Ok(Type::Float4),
            DataType::Float8
            | DataType::DoublePrecision
            | DataType::Float(ExactNumberInfo::None) => Ok(Type::Float8),
            DataType::Float(ExactNumberInfo::Precision(1..=24)) => Ok(Type::Float4),
            DataType::Float(ExactNumberInfo::Precision(25..=53)) => Ok(Type::Float8),
            DataType::Numeric(info) | DataType::Decimal(info) | DataType::Dec(info) => {
                let modifier = match info {
                    ExactNumberInfo::None => Ok(None),
                    ExactNumberInfo::Precision(precision) => numeric(*precision, 0).map(Some),
                    ExactNumberInfo::PrecisionAndScale(precision, scale) => {
                        numeric(*precision, *scale).map(Some)
                    }
                };
                modifier.map(Type::Numeric)
            }
            DataType::Text => Ok(Type::Text),
            DataType::Varchar(limit)
            | DataType::CharacterVarying(limit)
            | DataType::CharVarying(limit) => length(limit).map(Type::Varchar),
            DataType::Char(limit) | DataType::Character(limit) => {
                length(limit).map(|limit| Type::Char(limit.unwrap_or(1)))
            }
            DataType::Bytea => Ok(Type::Bytea),
            DataType::Date => Ok(Type::Date),
            DataType::Time(None, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => {
                Ok(Type::Time)
            }
            DataType::Timestamp(None, zone) => Ok(match zone {
                TimezoneInfo::None | TimezoneInfo::WithoutTimeZone => Type::Timestamp,
                TimezoneInfo::WithTimeZone | TimezoneInfo::Tz => Type::TimestampTz,
            }),
            DataType::Interval { fields: None, precision: None } => Ok(Type::Interval),
            DataType::Uuid => Ok(Type::Uuid),
            DataType::JSON => Ok(Type::Json),
            DataType::JSONB => Ok(Type::Jsonb),
            DataType::Custom(name, modifiers) if modifiers.is_empty() => {
                let mut names = self.object_name(name, place)?;
                return match (names.pop(), names.pop(), names.pop()) {
                    (Some(name), schema, None) => Ok(TypeName::Named { schema, name }),
                    _ => self.refuse(place, format!("type name \"{name}\" has too many parts"), ""),
                };
            }
            _ => Err(()),
        };
        match known {
            Ok(ty) => Ok(TypeName::Known(ty)),
            Err(()) => self.refuse(
                place,
                format!("a cast to \"{ty}\" is not accepted"),
                "cast to a number, text, boolean, date, time, timestamp, timestamptz, interval, \
                 uuid or an enum, without a precision for times",
            ),
        }
    }
}

fn numeric(precision: u64, scale: i64) -> Result<(u16, i16), ()> {
    match (u16::try_from(precision), i16::try_from(scale)) {
        (Ok(precision @ 1..=1000), Ok(scale @ -1000..=1000)) => Ok((precision, scale)),
        _ => Err(()),
    }
}

/// Conditions bind looser than the operators that `Lower::operand` serves.
pub(super) fn is_condition(expr: &Expr) -> bool {
    match expr {
        Expr::BinaryOp { op, .. } => matches!(
            op,
            BinaryOperator::And
                | BinaryOperator::Or
                | BinaryOperator::Eq
                | BinaryOperator::NotEq
                | BinaryOperator::Lt
                | BinaryOperator::LtEq
                | BinaryOperator::Gt
                | BinaryOperator::GtEq
        ),
        Expr::UnaryOp { op, .. } => *op == UnaryOperator::Not,
        Expr::IsNull(_)
        | Expr::IsNotNull(_)
        | Expr::IsUnknown(_)
        | Expr::IsNotUnknown(_)
        | Expr::IsTrue(_)
        | Expr::IsNotTrue(_)
        | Expr::IsFalse(_)
        | Expr::IsNotFalse(_)
        | Expr::IsDistinctFrom(..)
        | Expr::IsNotDistinctFrom(..)
        | Expr::InList { .. }
        | Expr::Between { .. }
        | Expr::Like { .. } => true,
        _ => false,
    }
}

pub(super) fn is_array_agg(mut expr: &Expr) -> bool {
    while let Expr::Nested(inner) = expr {
        expr = inner;
    }
    matches!(expr, Expr::Function(function) if function.name.to_string().eq_ignore_ascii_case("array_agg"))
}

pub(super) fn date_time_field(field: &DateTimeField) -> String {
    match field {
        DateTimeField::Custom(ident) => ident.value.to_lowercase(),
        field => field.to_string().to_lowercase(),
    }
}

/// Follows the leftmost child instead of visiting the whole tree.
pub(super) fn start_span(mut expr: &Expr) -> Span {
    loop {
        expr = match expr {
            Expr::BinaryOp { left, .. } => left,
            Expr::Nested(inner)
            | Expr::IsNull(inner)
            | Expr::IsNotNull(inner)
            | Expr::IsUnknown(inner)
            | Expr::IsNotUnknown(inner)
            | Expr::IsTrue(inner)
            | Expr::IsNotTrue(inner)
            | Expr::IsFalse(inner)
            | Expr::IsNotFalse(inner)
            | Expr::IsDistinctFrom(inner, _)
            | Expr::IsNotDistinctFrom(inner, _) => inner,
            Expr::InList { expr: inner, .. }
            | Expr::InSubquery { expr: inner, .. }
            | Expr::Between { expr: inner, .. }
            | Expr::Like { expr: inner, .. }
            | Expr::ILike { expr: inner, .. }
            | Expr::SimilarTo { expr: inner, .. }
            | Expr::Collate { expr: inner, .. }
            | Expr::Cast { expr: inner, .. }
            | Expr::UnaryOp { expr: inner, .. }
            | Expr::Extract { expr: inner, .. }
            | Expr::AtTimeZone { timestamp: inner, .. }
            | Expr::AnyOp { left: inner, .. }
            | Expr::AllOp { left: inner, .. }
            | Expr::CompoundFieldAccess { root: inner, .. }
            | Expr::Substring { expr: inner, .. }
            | Expr::Trim { expr: inner, .. }
            | Expr::Ceil { expr: inner, .. }
            | Expr::Floor { expr: inner, .. } => inner,
            Expr::Case { case_token, .. } => return case_token.0.span,
            Expr::Interval(interval) => &interval.value,
            Expr::Function(function) => {
                return function.name.0.first().map_or(Span::empty(), Spanned::span);
            }
            Expr::Subquery(query) | Expr::Exists { subquery: query, .. } => {
                return Span { start: body_start(query), end: body_start(query) };
            }
            Expr::Tuple(exprs) => match exprs.first() {
                Some(first) => first,
                None => return Span::empty(),
            },
            Expr::Identifier(_)
            | Expr::CompoundIdentifier(_)
            | Expr::Value(_)
            | Expr::TypedString(_)
            | Expr::Wildcard(_)
            | Expr::QualifiedWildcard(..) => return expr.span(),
            _ => return Span::empty(),
        };
    }
}

fn body_start(query: &sql::Query) -> Location {
    let place = start_of_body(&query.body);
    Location::new(place.line.into(), place.column.into())
}
