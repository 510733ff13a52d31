//! The row codec of state and outbox: exact, compact, self-describing.
//!
//! ```text
//!  row   = count varint, value …
//!  value = tag byte, payload      (integers as zigzag varints, byte strings with a varint length)
//! ```
//!
//! Invariants: what is decoded is identical (`==`) to what was encoded: scales, -0, the parts of an
//! interval; a NaN comes back as the one NaN. Bytes that this module did not write are an error.

use super::{Interval, Numeric, Row, Value, ValueError};
use compact_str::CompactString;
use num_bigint::BigInt;

const NULL: u8 = 0;
const FALSE: u8 = 1;
const TRUE: u8 = 2;
const INT: u8 = 3;
const TEXT: u8 = 4;
const NUMERIC_SMALL: u8 = 5;
const NUMERIC_BIG: u8 = 6;
const NUMERIC_NAN: u8 = 7;
const NUMERIC_INFINITY: u8 = 8;
const NUMERIC_NEGATIVE_INFINITY: u8 = 9;
const FLOAT4: u8 = 10;
const FLOAT8: u8 = 11;
const BYTEA: u8 = 12;
const DATE: u8 = 13;
const TIME: u8 = 14;
const TIMESTAMP: u8 = 15;
const TIMESTAMPTZ: u8 = 16;
const INTERVAL: u8 = 17;
const UUID: u8 = 18;
/// A numeric whose coefficient fits 64 bits: nearly all.
const NUMERIC_64: u8 = 19;

/// Appends the row to `out`.
pub fn encode_row(values: &[Value], out: &mut Vec<u8>) {
    encode_len(values.len(), out);
    for value in values {
        encode_value(value, out);
    }
}

/// Appends the head of a row of `len` values; as many [`encode_value`] follow.
pub(crate) fn encode_len(len: usize, out: &mut Vec<u8>) {
    put_varint(out, len as u64);
}

/// The row that `encode_row` wrote; trailing bytes are an error.
pub fn decode_row(bytes: &[u8]) -> Result<Row, ValueError> {
    let mut row = Row::new();
    decode_row_into(bytes, &mut row)?;
    Ok(row)
}

/// As [`decode_row`], into a row whose memory is used again. After an error its content is
/// unspecified.
pub fn decode_row_into(bytes: &[u8], row: &mut Row) -> Result<(), ValueError> {
    row.clear();
    let mut reader = Reader { bytes };
    let count = usize::try_from(reader.varint()?).ok().ok_or_else(damaged)?;
    // Each value takes at least a byte: a damaged count cannot ask for much memory.
    if count > reader.bytes.len() {
        return Err(damaged());
    }
    row.reserve(count);
    for _ in 0..count {
        row.push(reader.value()?);
    }
    if reader.bytes.is_empty() { Ok(()) } else { Err(damaged()) }
}

/// Appends one value.
pub fn encode_value(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Null => out.push(NULL),
        Value::Bool(false) => out.push(FALSE),
        Value::Bool(true) => out.push(TRUE),
        Value::Int(int) => {
            out.push(INT);
            put_signed(out, *int);
        }
        Value::Numeric(number) => encode_numeric(number, out),
        Value::Float4(float) => {
            out.push(FLOAT4);
            out.extend_from_slice(&float.to_bits().to_le_bytes());
        }
        Value::Float8(float) => {
            out.push(FLOAT8);
            out.extend_from_slice(&float.to_bits().to_le_bytes());
        }
        Value::Text(text) => {
            out.push(TEXT);
            put_bytes(out, text.as_bytes());
        }
        Value::Bytea(bytes) => {
            out.push(BYTEA);
            put_bytes(out, bytes);
        }
        Value::Date(days) => {
            out.push(DATE);
            put_signed(out, i64::from(*days));
        }
        Value::Time(micros) => {
            out.push(TIME);
            put_signed(out, *micros);
        }
        Value::Timestamp(micros) => {
            out.push(TIMESTAMP);
            out.extend_from_slice(&micros.to_le_bytes());
        }
        Value::TimestampTz(micros) => {
            out.push(TIMESTAMPTZ);
            out.extend_from_slice(&micros.to_le_bytes());
        }
        Value::Interval(interval) => {
            out.push(INTERVAL);
            put_signed(out, i64::from(interval.months));
            put_signed(out, i64::from(interval.days));
            put_signed(out, interval.micros);
        }
        Value::Uuid(uuid) => {
            out.push(UUID);
            out.extend_from_slice(&uuid.to_be_bytes());
        }
    }
}

/// Takes one value from the front of `bytes`.
pub fn decode_value(bytes: &mut &[u8]) -> Result<Value, ValueError> {
    let mut reader = Reader { bytes };
    let value = reader.value()?;
    *bytes = reader.bytes;
    Ok(value)
}

/// As [`encode_value`] of a numeric.
pub(crate) fn encode_numeric(number: &Numeric, out: &mut Vec<u8>) {
    if let Some((coefficient, scale)) = number.as_small() {
        if let Ok(coefficient) = i64::try_from(coefficient) {
            out.push(NUMERIC_64);
            put_varint(out, u64::from(scale));
            put_signed(out, coefficient);
        } else {
            out.push(NUMERIC_SMALL);
            put_varint(out, u64::from(scale));
            out.extend_from_slice(&coefficient.to_le_bytes());
        }
    } else if let Some((coefficient, scale)) = number.as_big() {
        out.push(NUMERIC_BIG);
        put_varint(out, u64::from(scale));
        put_bytes(out, &coefficient.to_signed_bytes_le());
    } else if number.is_nan() {
        out.push(NUMERIC_NAN);
    } else if number.signum() > 0 {
        out.push(NUMERIC_INFINITY);
    } else {
        out.push(NUMERIC_NEGATIVE_INFINITY);
    }
}

fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

fn put_signed(out: &mut Vec<u8>, value: i64) {
    put_varint(out, ((value << 1) ^ (value >> 63)).cast_unsigned());
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn damaged() -> ValueError {
    ValueError::corrupted("stored row is damaged")
}

struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    fn byte(&mut self) -> Result<u8, ValueError> {
        let (&first, rest) = self.bytes.split_first().ok_or_else(damaged)?;
        self.bytes = rest;
        Ok(first)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ValueError> {
        let (array, rest) = self.bytes.split_first_chunk().ok_or_else(damaged)?;
        self.bytes = rest;
        Ok(*array)
    }

    fn varint(&mut self) -> Result<u64, ValueError> {
        let mut value = 0_u64;
        let mut shift = 0_u32;
        loop {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(damaged());
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
            shift += 7;
            if shift > 63 {
                return Err(damaged());
            }
        }
    }

    fn signed(&mut self) -> Result<i64, ValueError> {
        let value = self.varint()?;
        Ok((value >> 1).cast_signed() ^ -((value & 1).cast_signed()))
    }

    fn narrow(&mut self) -> Result<i32, ValueError> {
        i32::try_from(self.signed()?).ok().ok_or_else(damaged)
    }

    fn scale(&mut self) -> Result<u16, ValueError> {
        u16::try_from(self.varint()?).ok().ok_or_else(damaged)
    }

    fn slice(&mut self) -> Result<&'a [u8], ValueError> {
        let length = usize::try_from(self.varint()?).ok().ok_or_else(damaged)?;
        let (slice, rest) = self.bytes.split_at_checked(length).ok_or_else(damaged)?;
        self.bytes = rest;
        Ok(slice)
    }

    fn value(&mut self) -> Result<Value, ValueError> {
        Ok(match self.byte()? {
            NULL => Value::Null,
            FALSE => Value::Bool(false),
            TRUE => Value::Bool(true),
            INT => Value::Int(self.signed()?),
            TEXT => {
                let text = CompactString::from_utf8(self.slice()?).ok().ok_or_else(damaged)?;
                Value::Text(text)
            }
            NUMERIC_64 => {
                let scale = self.scale()?;
                small(i128::from(self.signed()?), scale)?
            }
            NUMERIC_SMALL => {
                let scale = self.scale()?;
                small(i128::from_le_bytes(self.array()?), scale)?
            }
            NUMERIC_BIG => {
                let scale = self.scale()?;
                let coefficient = BigInt::from_signed_bytes_le(self.slice()?);
                Value::Numeric(Numeric::from_scaled(coefficient, scale).ok().ok_or_else(damaged)?)
            }
            NUMERIC_NAN => Value::Numeric(Numeric::NAN),
            NUMERIC_INFINITY => Value::Numeric(Numeric::INFINITY),
            NUMERIC_NEGATIVE_INFINITY => Value::Numeric(Numeric::NEGATIVE_INFINITY),
            FLOAT4 => Value::Float4(f32::from_bits(u32::from_le_bytes(self.array()?))),
            FLOAT8 => Value::Float8(f64::from_bits(u64::from_le_bytes(self.array()?))),
            BYTEA => Value::Bytea(self.slice()?.to_vec()),
            DATE => Value::Date(self.narrow()?),
            TIME => Value::Time(self.signed()?),
            TIMESTAMP => Value::Timestamp(i64::from_le_bytes(self.array()?)),
            TIMESTAMPTZ => Value::TimestampTz(i64::from_le_bytes(self.array()?)),
            INTERVAL => Value::Interval(Interval {
                months: self.narrow()?,
                days: self.narrow()?,
                micros: self.signed()?,
            }),
            UUID => Value::Uuid(u128::from_be_bytes(self.array()?)),
            _ => return Err(damaged()),
        })
    }
}

fn small(coefficient: i128, scale: u16) -> Result<Value, ValueError> {
    Numeric::from_scaled_i128(coefficient, scale).map(Value::Numeric).ok_or_else(damaged)
}
