//! Which `ClickHouse` type a column gets, and whether a value fits it.
//!
//! | PostgreSQL | `ClickHouse` |
//! |---|---|
//! | smallint, integer, bigint | `Int16`, `Int32`, `Int64` |
//! | numeric(p, s) | `Decimal(p, s)` |
//! | numeric | `Decimal(76, 38)` |
//! | real, double precision | `Float32`, `Float64` |
//! | boolean | `Bool` |
//! | date | `Date32` |
//! | timestamp, timestamptz | `DateTime64(6, 'UTC')` |
//! | uuid | `UUID` |
//! | enum | `LowCardinality(String)` |
//! | bytea | `String` of the same bytes |
//! | text, json, interval, time, others | `String` of PostgreSQL's text |

use super::super::codec::{CodecError, Reader, put_bytes, put_signed};
use super::super::format::{DAY_MICROS, EPOCH_DAYS, write_text};
use crate::value::{Type, Value};
use std::fmt;

/// A `ClickHouse` type that walview writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChType {
    Bool,
    Int16,
    Int32,
    Int64,
    Float32,
    Float64,
    /// Precision 1 to 76, scale 0 to the precision.
    Decimal(u8, u8),
    String,
    LowCardinality,
    Date32,
    /// Microseconds, UTC.
    DateTime64,
    Uuid,
}

impl fmt::Display for ChType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool => f.write_str("Bool"),
            Self::Int16 => f.write_str("Int16"),
            Self::Int32 => f.write_str("Int32"),
            Self::Int64 => f.write_str("Int64"),
            Self::Float32 => f.write_str("Float32"),
            Self::Float64 => f.write_str("Float64"),
            Self::Decimal(precision, scale) => write!(f, "Decimal({precision}, {scale})"),
            Self::String => f.write_str("String"),
            Self::LowCardinality => f.write_str("LowCardinality(String)"),
            Self::Date32 => f.write_str("Date32"),
            Self::DateTime64 => f.write_str("DateTime64(6, 'UTC')"),
            Self::Uuid => f.write_str("UUID"),
        }
    }
}

/// Digits of `ClickHouse`'s widest decimal.
const DECIMAL_DIGITS_MAX: u16 = 76;

impl ChType {
    /// The type that a column gets unless `types:` says otherwise.
    ///
    /// # Errors
    /// Where `ClickHouse` has none that holds every value, with what to write instead.
    pub(super) fn default_for(ty: &Type, column: &str) -> Result<Self, String> {
        Ok(match ty {
            Type::Bool => Self::Bool,
            Type::Int2 => Self::Int16,
            Type::Int4 => Self::Int32,
            Type::Int8 => Self::Int64,
            Type::Float4 => Self::Float32,
            Type::Float8 => Self::Float64,
            Type::Numeric(None) => Self::Decimal(76, 38),
            Type::Numeric(Some((precision, scale))) => {
                decimal_for(*precision, *scale).ok_or_else(|| {
                    format!(
                        "column \"{column}\" is numeric({precision}, {scale}), wider than \
                         ClickHouse's widest Decimal(76, …); write types: {{ {column}: String }}"
                    )
                })?
            }
            Type::Date => Self::Date32,
            Type::Timestamp | Type::TimestampTz => Self::DateTime64,
            Type::Uuid => Self::Uuid,
            Type::Enum { .. } => Self::LowCardinality,
            Type::Text
            | Type::Varchar(_)
            | Type::Char(_)
            | Type::Bytea
            | Type::Time
            | Type::Interval
            | Type::Json
            | Type::Jsonb
            | Type::Other { .. } => Self::String,
        })
    }

    /// The type that `types:` asks for.
    ///
    /// # Errors
    /// Where it is not one that walview can write for the column.
    pub(super) fn overridden(text: &str, ty: &Type, column: &str) -> Result<Self, String> {
        let plain: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        let asked = match plain.as_str() {
            "String" => Some(Self::String),
            "LowCardinality(String)" => Some(Self::LowCardinality),
            "DateTime64(6)" | "DateTime64(6,'UTC')" => Some(Self::DateTime64),
            decimal => parse_decimal(decimal),
        };
        let numeric = matches!(ty, Type::Numeric(_) | Type::Int2 | Type::Int4 | Type::Int8);
        let fits = match asked {
            Some(Self::Decimal(..)) => numeric,
            Some(Self::DateTime64) => matches!(ty, Type::Timestamp | Type::TimestampTz),
            Some(Self::String | Self::LowCardinality) => true,
            _ => false,
        };
        asked.filter(|_| fits).ok_or_else(|| {
            format!(
                "\"types\" asks for {text} for column \"{column}\", which walview cannot write there; \
                 it writes Decimal(1…76, s) for numbers, DateTime64(6, 'UTC') for timestamps, and \
                 String or LowCardinality(String) for all"
            )
        })
    }

    /// Appends a value as the writer sends it: one byte that says whether it is NULL, then its
    /// bits.
    pub(super) fn put(
        self,
        value: &Value,
        ty: &Type,
        out: &mut Vec<u8>,
    ) -> Result<(), &'static str> {
        if matches!(value, Value::Null) {
            out.push(0);
            return Ok(());
        }
        out.push(1);
        match (self, value) {
            (Self::Bool, Value::Bool(value)) => out.push((*value).into()),
            (Self::Int16 | Self::Int32 | Self::Int64, Value::Int(value)) => put_signed(out, *value),
            (Self::Float32, Value::Float4(value)) => out.extend_from_slice(&value.to_le_bytes()),
            (Self::Float64, Value::Float8(value)) => out.extend_from_slice(&value.to_le_bytes()),
            (Self::Decimal(precision, scale), value) => put_decimal(value, precision, scale, out)?,
            (Self::String | Self::LowCardinality, Value::Bytea(bytes)) => put_bytes(out, bytes),
            (Self::String | Self::LowCardinality, Value::Text(text)) => {
                put_bytes(out, text.as_bytes());
            }
            (Self::String | Self::LowCardinality, value) => {
                let mut text = String::new();
                write_text(value, ty, &mut text);
                put_bytes(out, text.as_bytes());
            }
            (Self::Date32, Value::Date(days)) => {
                let days = i64::from(*days) + EPOCH_DAYS;
                if !(DAYS_MIN..=DAYS_MAX).contains(&days) {
                    return Err("Date32 holds 1900-01-01 to 2299-12-31");
                }
                put_signed(out, days);
            }
            (Self::DateTime64, Value::Timestamp(micros) | Value::TimestampTz(micros)) => {
                put_signed(out, unix_micros(*micros).ok_or(TIMESTAMP_RANGE)?);
            }
            (Self::Uuid, Value::Uuid(bits)) => out.extend_from_slice(&bits.to_be_bytes()),
            _ => return Err("its value is of another type than its column"),
        }
        Ok(())
    }

    /// Reads what [`ChType::put`] wrote.
    pub(super) fn read<'a>(self, reader: &mut Reader<'a>) -> Result<Cell<'a>, CodecError> {
        match reader.byte()? {
            0 => return Ok(Cell::Null),
            1 => {}
            _ => {
                return Err(CodecError { what: "a damaged value" });
            }
        }
        Ok(match self {
            Self::Bool => Cell::Bool(reader.byte()? != 0),
            Self::Int16 | Self::Int32 | Self::Int64 | Self::Date32 | Self::DateTime64 => {
                Cell::Int(reader.signed()?)
            }
            Self::Float32 => Cell::Float32(f32::from_le_bytes(array(reader)?)),
            Self::Float64 => Cell::Float64(f64::from_le_bytes(array(reader)?)),
            Self::Decimal(precision, _) if precision <= 38 => {
                Cell::Decimal128(i128::from_le_bytes(array(reader)?))
            }
            Self::Decimal(..) => Cell::Decimal256(array(reader)?),
            Self::String | Self::LowCardinality => Cell::Bytes(reader.bytes()?),
            Self::Uuid => Cell::Uuid(array(reader)?),
        })
    }
}

/// A value as it goes to `ClickHouse`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cell<'a> {
    Null,
    Bool(bool),
    /// Integers; days and microseconds since 1970-01-01.
    Int(i64),
    Float32(f32),
    Float64(f64),
    /// Times 10 to the scale.
    Decimal128(i128),
    /// As `Decimal128`, little-endian.
    Decimal256([u8; 32]),
    Bytes(&'a [u8]),
    /// Big-endian, as it is written.
    Uuid([u8; 16]),
}

fn array<const N: usize>(reader: &mut Reader<'_>) -> Result<[u8; N], CodecError> {
    reader.take(N)?.try_into().ok().ok_or(CodecError { what: "a cut record" })
}

/// 1900-01-01 and 2299-12-31 as days since 1970-01-01: what `ClickHouse` documents for `Date32` and
/// `DateTime64`; beyond it functions saturate.
const DAYS_MIN: i64 = -25_567;
const DAYS_MAX: i64 = 120_529;
const TIMESTAMP_RANGE: &str = "DateTime64 holds the years 1900 to 2299";

/// Microseconds since 1970 of PostgreSQL's since 2000.
pub(super) fn unix_micros(micros: i64) -> Option<i64> {
    let unix = micros.checked_add(EPOCH_DAYS * DAY_MICROS)?;
    (DAYS_MIN..=DAYS_MAX).contains(&unix.div_euclid(DAY_MICROS)).then_some(unix)
}

/// `numeric(3, -2)` holds 12300; `numeric(2, 5)` holds 0.00012.
fn decimal_for(precision: u16, scale: i16) -> Option<ChType> {
    let (precision, scale) = match u16::try_from(scale) {
        Ok(scale) => (precision.max(scale), scale),
        Err(_) => (precision.checked_add(scale.unsigned_abs())?, 0),
    };
    if precision > DECIMAL_DIGITS_MAX {
        return None;
    }
    Some(ChType::Decimal(u8::try_from(precision).ok()?, u8::try_from(scale).ok()?))
}

fn parse_decimal(text: &str) -> Option<ChType> {
    let inner = text.strip_prefix("Decimal(")?.strip_suffix(')')?;
    let (precision, scale) = inner.split_once(',').unwrap_or((inner, "0"));
    let (precision, scale): (u8, u8) = (precision.parse().ok()?, scale.parse().ok()?);
    let fits = (1..=DECIMAL_DIGITS_MAX).contains(&u16::from(precision)) && scale <= precision;
    fits.then_some(ChType::Decimal(precision, scale))
}

fn put_decimal(
    value: &Value,
    precision: u8,
    scale: u8,
    out: &mut Vec<u8>,
) -> Result<(), &'static str> {
    let widened;
    #[expect(clippy::wildcard_enum_match_arm, reason = "every other value is refused")]
    let number = match value {
        Value::Numeric(number) => number,
        Value::Int(integer) => {
            widened = crate::value::Numeric::from_scaled_i128((*integer).into(), 0)
                .ok_or("it is not a number")?;
            &widened
        }
        _ => return Err("it is not a number"),
    };
    const TOO_WIDE: &str = "it has more digits than its Decimal; set another under \"types\"";
    if precision <= 38 {
        let scaled = number.to_scaled_i128(scale).ok_or(TOO_WIDE)?;
        if scaled.unsigned_abs() >= 10_u128.pow(precision.into()) {
            return Err(TOO_WIDE);
        }
        out.extend_from_slice(&scaled.to_le_bytes());
    } else {
        let scaled = number.to_scaled(scale).ok_or(TOO_WIDE)?;
        if scaled.magnitude() >= &num_bigint::BigUint::from(10_u8).pow(precision.into()) {
            return Err(TOO_WIDE);
        }
        out.extend_from_slice(&number.to_scaled_i256_le(scale).ok_or(TOO_WIDE)?);
    }
    Ok(())
}
