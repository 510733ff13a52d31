//! PostgreSQL's binary form of values, as its send functions write it.
//!
//! What is read here equals, bit for bit, what [`Value::from_server`] reads from the text of the same
//! value: `core/tests/oracle` compares them.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::error::SqlState;
use super::{Interval, Numeric, Type, Value, ValueError, datetime};

/// Version of `jsonb`'s binary form; the text follows it.
const JSONB_VERSION: u8 = 1;

/// How the binary form of a type becomes the text that Walview carries.
enum Carrier {
    /// It is the text.
    Text,
    Unsigned4,
    Unsigned8,
    TimeTz,
}

/// The types without one of [`Type`]'s own whose text follows from the binary form without settings
/// or catalogs. OIDs are from `pg_type.dat`.
fn carrier(oid: u32) -> Option<Carrier> {
    Some(match oid {
        // name, bpchar without a length, refcursor
        19 | 1042 | 1790 => Carrier::Text,
        // oid, xid, cid
        26 | 28 | 29 => Carrier::Unsigned4,
        // xid8
        5069 => Carrier::Unsigned8,
        1266 => Carrier::TimeTz,
        _ => return None,
    })
}

impl Type {
    /// Whether [`Value::from_binary`] reads it.
    #[must_use]
    pub fn has_binary(&self) -> bool {
        match self {
            Self::Other { oid, .. } => carrier(*oid).is_some(),
            Self::Bool
            | Self::Int2
            | Self::Int4
            | Self::Int8
            | Self::Float4
            | Self::Float8
            | Self::Numeric(_)
            | Self::Text
            | Self::Varchar(_)
            | Self::Char(_)
            | Self::Bytea
            | Self::Date
            | Self::Time
            | Self::Timestamp
            | Self::TimestampTz
            | Self::Interval
            | Self::Uuid
            | Self::Json
            | Self::Jsonb
            | Self::Enum { .. } => true,
        }
    }
}

impl Value {
    /// As [`Value::from_server`] for the type's binary form.
    ///
    /// # Errors
    /// The bytes are no value of `ty`, or `ty` has no binary form here ([`Type::has_binary`]).
    pub fn from_binary(ty: &Type, bytes: &[u8]) -> Result<Self, ValueError> {
        Ok(match ty {
            Type::Bool => match fixed("boolean", bytes)? {
                [0] => Self::Bool(false),
                [1] => Self::Bool(true),
                [_] => return Err(odd("boolean", "neither 0 nor 1")),
            },
            Type::Int2 => Self::Int(i16::from_be_bytes(fixed("smallint", bytes)?).into()),
            Type::Int4 => Self::Int(i32::from_be_bytes(fixed("integer", bytes)?).into()),
            Type::Int8 => Self::Int(i64::from_be_bytes(fixed("bigint", bytes)?)),
            Type::Float4 => {
                let float = f32::from_be_bytes(fixed("real", bytes)?);
                // NaN has many bit patterns, and one text.
                Self::Float4(if float.is_nan() { f32::NAN } else { float })
            }
            Type::Float8 => {
                let float = f64::from_be_bytes(fixed("double precision", bytes)?);
                Self::Float8(if float.is_nan() { f64::NAN } else { float })
            }
            Type::Numeric(typmod) => Self::Numeric(Numeric::from_binary(bytes)?.fitted(*typmod)?),
            Type::Text | Type::Varchar(_) | Type::Char(_) | Type::Json | Type::Enum { .. } => {
                return Self::from_server(ty, utf8(bytes)?);
            }
            Type::Jsonb => match bytes.split_first() {
                Some((&JSONB_VERSION, text)) => return Self::from_server(ty, utf8(text)?),
                _ => return Err(odd("jsonb", "not of version 1")),
            },
            Type::Bytea => Self::Bytea(bytes.to_vec()),
            Type::Date => {
                let days = i32::from_be_bytes(fixed("date", bytes)?);
                if !matches!(days, i32::MIN | i32::MAX) && !datetime::is_valid_date(days) {
                    return Err(datetime::date_out_of_range());
                }
                Self::Date(days)
            }
            Type::Time => Self::Time(time(i64::from_be_bytes(fixed("time", bytes)?))?),
            Type::Timestamp => Self::Timestamp(timestamp(bytes)?),
            Type::TimestampTz => Self::TimestampTz(timestamp(bytes)?),
            Type::Interval => Self::Interval(interval(bytes)?),
            Type::Uuid => Self::Uuid(u128::from_be_bytes(fixed("uuid", bytes)?)),
            Type::Other { oid, name, .. } => match carrier(*oid) {
                Some(carrier) => return carried(&carrier, name, bytes),
                None => return Err(odd(name, "no binary form is known")),
            },
        })
    }
}

fn carried(carrier: &Carrier, name: &str, bytes: &[u8]) -> Result<Value, ValueError> {
    let mut text = String::new();
    match carrier {
        Carrier::Text => return Ok(Value::Text(utf8(bytes)?.into())),
        Carrier::Unsigned4 => {
            datetime::push_int(u32::from_be_bytes(fixed(name, bytes)?), &mut text);
        }
        Carrier::Unsigned8 => {
            datetime::push_int(u64::from_be_bytes(fixed(name, bytes)?), &mut text);
        }
        Carrier::TimeTz => {
            let [micros @ .., a, b, c, d] = fixed::<12>(name, bytes)?;
            let micros = time(i64::from_be_bytes(micros))?;
            datetime::write_time_tz(micros, i32::from_be_bytes([a, b, c, d]), &mut text)?;
        }
    }
    Ok(Value::Text(text.into()))
}

pub(super) fn odd(type_name: &str, what: &str) -> ValueError {
    ValueError::new(
        SqlState::InvalidBinaryRepresentation,
        format!("invalid binary form of type {type_name}: {what}"),
    )
}

fn fixed<const N: usize>(type_name: &str, bytes: &[u8]) -> Result<[u8; N], ValueError> {
    bytes
        .try_into()
        .ok()
        .ok_or_else(|| odd(type_name, &format!("{} bytes where {N} belong", bytes.len())))
}

fn utf8(bytes: &[u8]) -> Result<&str, ValueError> {
    std::str::from_utf8(bytes).ok().ok_or_else(|| odd("text", "not UTF-8"))
}

fn time(micros: i64) -> Result<i64, ValueError> {
    if (0..=datetime::DAY_MICROS).contains(&micros) {
        Ok(micros)
    } else {
        Err(ValueError::new(SqlState::DatetimeFieldOverflow, "time out of range"))
    }
}

fn timestamp(bytes: &[u8]) -> Result<i64, ValueError> {
    let micros = i64::from_be_bytes(fixed("timestamp", bytes)?);
    if matches!(micros, i64::MIN | i64::MAX) || datetime::is_valid_timestamp(micros) {
        Ok(micros)
    } else {
        Err(datetime::timestamp_out_of_range())
    }
}

fn interval(bytes: &[u8]) -> Result<Interval, ValueError> {
    let [micros @ .., d0, d1, d2, d3, m0, m1, m2, m3] = fixed::<16>("interval", bytes)?;
    Ok(Interval {
        months: i32::from_be_bytes([m0, m1, m2, m3]),
        days: i32::from_be_bytes([d0, d1, d2, d3]),
        micros: i64::from_be_bytes(micros),
    })
}
