//! Explicit casts, `x::type`.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "dispatch on values and functions: whatever is not listed is refused alike"
)]

use super::eval::EvalError;
use super::eval_number::{float_overflow, float_underflow, int, out_of_range};
use super::eval_time;
use crate::value::{Interval, Numeric, SqlState, Type, Value, ValueError, int_range, pad};
use compact_str::CompactString;

/// Can the cast be more than a change of name?
pub(super) fn changes(from: &Type, to: &Type) -> bool {
    match (from, to) {
        (Type::Varchar(_), Type::Text | Type::Varchar(None))
        | (Type::Text, Type::Varchar(None)) => false,
        _ => from != to,
    }
}

/// `value` is not NULL and of type `from`.
pub(super) fn cast(value: &Value, from: &Type, to: &Type) -> Result<Value, EvalError> {
    match to {
        Type::Bool => to_bool(value, from),
        Type::Int2 | Type::Int4 | Type::Int8 => to_int(value, from, to),
        Type::Float4 => to_float4(value, from),
        Type::Float8 => to_float8(value, from),
        Type::Numeric(typmod) => {
            let number = to_numeric(value, from)?;
            Ok(Value::Numeric(match typmod {
                Some((precision, scale)) => number.with_typmod(*precision, *scale)?,
                None => number,
            }))
        }
        Type::Text | Type::Varchar(None) => Ok(Value::Text(to_text(value, from))),
        Type::Varchar(Some(limit)) => Ok(Value::Text(cut(to_text(value, from), *limit))),
        Type::Char(width) => Ok(Value::Text(pad(cut(to_text(value, from), *width), *width))),
        Type::Date => eval_time::to_date(value),
        Type::Timestamp => eval_time::to_timestamp(value, false),
        Type::TimestampTz => eval_time::to_timestamp(value, true),
        Type::Time => eval_time::to_time(value),
        Type::Interval => match value {
            Value::Time(micros) => {
                Ok(Value::Interval(Interval { months: 0, days: 0, micros: *micros }))
            }
            _ => from_text(value, from, to),
        },
        Type::Json if *from == Type::Jsonb => Ok(value.clone()),
        Type::Bytea
        | Type::Uuid
        | Type::Json
        | Type::Jsonb
        | Type::Enum { .. }
        | Type::Other { .. } => from_text(value, from, to),
    }
}

fn refused(to: &Type) -> EvalError {
    ValueError::new(SqlState::Internal, format!("no cast to {to:?} from this type"))
}

fn is_text(ty: &Type) -> bool {
    matches!(ty, Type::Text | Type::Varchar(_) | Type::Char(_))
}

/// The input function of the type over a text.
fn from_text(value: &Value, from: &Type, to: &Type) -> Result<Value, EvalError> {
    match (value, to) {
        (_, Type::Other { .. }) => Err(refused(to)),
        (Value::Text(text), Type::Jsonb) if *from == Type::Json => Value::parse(to, text),
        (Value::Text(text), _) if is_text(from) => {
            // A char(n) goes through text, which has no padding.
            let text =
                if matches!(from, Type::Char(_)) { text.trim_end_matches(' ') } else { text };
            Value::parse(to, text)
        }
        _ => Err(refused(to)),
    }
}

/// As text: unlike the output function, a boolean is a word and a char(n) loses its padding.
fn to_text(value: &Value, from: &Type) -> CompactString {
    match value {
        Value::Bool(true) => "true".into(),
        Value::Bool(false) => "false".into(),
        Value::Text(text) if matches!(from, Type::Char(_)) => text.trim_end_matches(' ').into(),
        Value::Text(text) => text.clone(),
        _ => value.to_text(from).into(),
    }
}

/// The first characters of a text.
fn cut(mut text: CompactString, limit: u32) -> CompactString {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    if let Some((at, _)) = text.char_indices().nth(limit) {
        text.truncate(at);
    }
    text
}

/// The word or number of a jsonb, for its casts to bool and numbers.
fn jsonb_scalar<'a>(
    value: &'a Value,
    from: &Type,
    to: &'static str,
) -> Result<Option<&'a str>, EvalError> {
    let Value::Text(text) = value else {
        return Ok(None);
    };
    if *from != Type::Jsonb {
        return Ok(None);
    }
    let kind = match text.as_bytes().first() {
        Some(b'{') => "object",
        Some(b'[') => "array",
        Some(b'"') => "string",
        Some(b'n') => "null",
        Some(b't' | b'f') => "boolean",
        _ => "numeric",
    };
    let wanted = if to == "boolean" { "boolean" } else { "numeric" };
    if kind == wanted {
        return Ok(Some(text));
    }
    Err(ValueError::new(
        SqlState::InvalidParameterValue,
        format!("cannot cast jsonb {kind} to type {to}"),
    ))
}

fn to_bool(value: &Value, from: &Type) -> Result<Value, EvalError> {
    if let Some(word) = jsonb_scalar(value, from, "boolean")? {
        return Ok(Value::Bool(word == "true"));
    }
    match value {
        Value::Int(int) => Ok(Value::Bool(*int != 0)),
        _ => from_text(value, from, &Type::Bool),
    }
}

fn to_int(value: &Value, from: &Type, to: &Type) -> Result<Value, EvalError> {
    let (name, _, _) = int_range(to);
    if let Some(text) = jsonb_scalar(value, from, name)? {
        return int(Some(text.parse::<Numeric>()?.to_integer(name)?), to);
    }
    match value {
        Value::Bool(value) => Ok(Value::Int(i64::from(*value))),
        Value::Int(value) => int(Some(*value), to),
        Value::Numeric(number) => int(Some(number.to_integer(name)?), to),
        Value::Float8(float) => int(rounded(*float), to),
        Value::Float4(float) => int(rounded(f64::from(*float)), to),
        _ => from_text(value, from, to),
    }
}

/// Half to even; `None` for NaN and what an i64 does not hold.
fn rounded(float: f64) -> Option<i64> {
    let whole = float.round_ties_even();
    // Both bounds are exact doubles; the upper one is the first past the range.
    if !(-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&whole) {
        return None;
    }
    #[expect(clippy::cast_possible_truncation, reason = "whole and within i64, checked above")]
    Some(whole as i64)
}

#[expect(clippy::cast_precision_loss, reason = "PostgreSQL's cast rounds to nearest too")]
fn to_float8(value: &Value, from: &Type) -> Result<Value, EvalError> {
    if let Some(text) = jsonb_scalar(value, from, "double precision")? {
        return Ok(Value::Float8(text.parse::<Numeric>()?.to_f64()?));
    }
    match value {
        Value::Int(int) => Ok(Value::Float8(*int as f64)),
        Value::Numeric(number) => Ok(Value::Float8(number.to_f64()?)),
        Value::Float4(float) => Ok(Value::Float8(f64::from(*float))),
        _ => from_text(value, from, &Type::Float8),
    }
}

#[expect(clippy::cast_precision_loss, reason = "PostgreSQL's cast rounds to nearest too")]
#[expect(clippy::cast_possible_truncation, reason = "overflow and underflow are checked")]
fn to_float4(value: &Value, from: &Type) -> Result<Value, EvalError> {
    if let Some(text) = jsonb_scalar(value, from, "real")? {
        return Ok(Value::Float4(text.parse::<Numeric>()?.to_f32()?));
    }
    match value {
        Value::Int(int) => Ok(Value::Float4(*int as f32)),
        Value::Numeric(number) => Ok(Value::Float4(number.to_f32()?)),
        Value::Float8(float) => {
            let narrow = *float as f32;
            if narrow.is_infinite() && float.is_finite() {
                return Err(float_overflow());
            }
            if narrow == 0.0 && *float != 0.0 {
                return Err(float_underflow());
            }
            Ok(Value::Float4(narrow))
        }
        _ => from_text(value, from, &Type::Float4),
    }
}

fn to_numeric(value: &Value, from: &Type) -> Result<Numeric, EvalError> {
    if let Some(text) = jsonb_scalar(value, from, "numeric")? {
        return text.parse();
    }
    match value {
        Value::Int(int) => Ok(Numeric::from(*int)),
        Value::Numeric(number) => Ok(number.clone()),
        Value::Float8(float) => Numeric::from_f64(*float),
        Value::Float4(float) => Numeric::from_f32(*float),
        _ => match from_text(value, from, &Type::Numeric(None))? {
            Value::Numeric(number) => Ok(number),
            _ => Err(out_of_range("numeric")),
        },
    }
}
