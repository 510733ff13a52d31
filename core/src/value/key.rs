//! Keys of state: bytes that sort as PostgreSQL sorts the values.
//!
//! Each value is a tag and a payload that ends itself, so a key is the concatenation of its values
//! and *the bytes of a prefix of the values are a prefix of the bytes* and of no other key's: a scan
//! over a prefix finds exactly the keys that begin with those values.
//!
//! Invariants:
//! - `compare(a, b)` of values of one type is the order of their bytes; NULL is after all values;
//! - values that SQL calls equal (1.0 and 1.00, 0 and -0, NaN and NaN, 1 month and 30 days) have the
//!   same bytes, values that differ have different bytes;
//! - `char(n)` is padded and its length counts, so give its values through
//!   [`encode_key_typed`], which leaves trailing blanks out; enum labels sort by their bytes, not in
//!   label order.
//!
//! Decoding gives a value that is *equal*, not identical: a numeric has the fewest digits that show
//! it (1.50 comes back as 1.5), -0 as 0, an interval in months and days of the plainest form. What
//! must be exact belongs in a row (`row`).

use super::order::DAY_MICROS;
use super::{Interval, Numeric, Row, Type, Value, ValueError};
use compact_str::CompactString;
use num_bigint::BigInt;
use num_traits::Num;

const BOOL_FALSE: u8 = 0x02;
const BOOL_TRUE: u8 = 0x03;
/// Integers: `INT_ZERO + n` has n bytes of a positive number, `INT_ZERO - n` of a negative one.
const INT_ZERO: u8 = 0x18;
const NUMERIC_NEGATIVE_INFINITY: u8 = 0x28;
const NUMERIC_NEGATIVE: u8 = 0x29;
const NUMERIC_ZERO: u8 = 0x2a;
const NUMERIC_POSITIVE: u8 = 0x2b;
const NUMERIC_INFINITY: u8 = 0x2c;
const NUMERIC_NAN: u8 = 0x2d;
const FLOAT4: u8 = 0x30;
const FLOAT8: u8 = 0x31;
const TEXT: u8 = 0x38;
const BYTEA: u8 = 0x39;
const DATE: u8 = 0x40;
const TIME: u8 = 0x41;
const TIMESTAMP: u8 = 0x42;
const TIMESTAMPTZ: u8 = 0x43;
const INTERVAL: u8 = 0x44;
const UUID: u8 = 0x48;
/// Above every other tag: NULL sorts last.
const NULL: u8 = 0xf0;

/// Exponents within ±126 take one byte; the rest an escape and three.
const EXPONENT_SHORT_MAX: i64 = 126;
const EXPONENT_BIAS: i64 = 0x7f;
const EXPONENT_LONG_BIAS: i64 = 0x80_0000;
const EXPONENT_LONG_NEGATIVE: u8 = 0x00;
const EXPONENT_LONG_POSITIVE: u8 = 0xff;

/// Appends the key to `out`. For `char(n)` see [`encode_key_typed`].
pub fn encode_key(values: &[Value], out: &mut Vec<u8>) {
    for value in values {
        encode_key_value(value, out);
    }
}

/// As [`encode_key`] for values of the given types: `char(n)` without its padding. Types missing
/// at the end count as types without special rules.
pub fn encode_key_typed(values: &[Value], types: &[Type], out: &mut Vec<u8>) {
    for (at, value) in values.iter().enumerate() {
        match (value, types.get(at)) {
            (Value::Text(text), Some(Type::Char(_))) => {
                out.push(TEXT);
                put_bytes(out, text.trim_end_matches(' ').as_bytes());
            }
            _ => encode_key_value(value, out),
        }
    }
}

/// Appends one value of a key.
pub fn encode_key_value(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Null => out.push(NULL),
        Value::Bool(value) => out.push(if *value { BOOL_TRUE } else { BOOL_FALSE }),
        Value::Int(value) => put_int(out, *value),
        Value::Numeric(value) => put_numeric(out, value),
        Value::Float4(value) => {
            out.push(FLOAT4);
            let value = if *value == 0.0 { 0.0 } else { *value };
            let bits = if value.is_nan() { f32::NAN.to_bits() } else { value.to_bits() };
            let flipped = if bits >> 31 == 1 { !bits } else { bits | 1 << 31 };
            out.extend_from_slice(&flipped.to_be_bytes());
        }
        Value::Float8(value) => {
            out.push(FLOAT8);
            let value = if *value == 0.0 { 0.0 } else { *value };
            let bits = if value.is_nan() { f64::NAN.to_bits() } else { value.to_bits() };
            let flipped = if bits >> 63 == 1 { !bits } else { bits | 1 << 63 };
            out.extend_from_slice(&flipped.to_be_bytes());
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
            out.extend_from_slice(&(days.cast_unsigned() ^ 1 << 31).to_be_bytes());
        }
        Value::Time(micros) => put_micros(out, TIME, *micros),
        Value::Timestamp(micros) => put_micros(out, TIMESTAMP, *micros),
        Value::TimestampTz(micros) => put_micros(out, TIMESTAMPTZ, *micros),
        Value::Interval(interval) => {
            out.push(INTERVAL);
            out.extend_from_slice(&(interval.span().cast_unsigned() ^ 1 << 127).to_be_bytes());
        }
        Value::Uuid(uuid) => {
            out.push(UUID);
            out.extend_from_slice(&uuid.to_be_bytes());
        }
    }
}

fn put_micros(out: &mut Vec<u8>, tag: u8, micros: i64) {
    out.push(tag);
    out.extend_from_slice(&(micros.cast_unsigned() ^ 1 << 63).to_be_bytes());
}

fn put_int(out: &mut Vec<u8>, value: i64) {
    let magnitude = value.unsigned_abs();
    let skip = (magnitude.leading_zeros() / 8) as usize;
    let length = 8 - skip;
    let tag_offset = u8::try_from(length).unwrap_or(8);
    let (tag, bytes) = if value >= 0 {
        (INT_ZERO + tag_offset, magnitude.to_be_bytes())
    } else {
        (INT_ZERO - tag_offset, (!magnitude).to_be_bytes())
    };
    out.push(tag);
    out.extend_from_slice(bytes.get(skip..).unwrap_or_default());
}

/// `00 01` ends it, `00 ff` is a zero byte: the end sorts below everything that could follow, and
/// the bytes of no string begin with those of another.
fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|&byte| byte == 0) {
        let (before, after) = rest.split_at_checked(at).unwrap_or((rest, &[]));
        out.extend_from_slice(before);
        out.extend_from_slice(&[0x00, 0xff]);
        rest = after.get(1..).unwrap_or_default();
    }
    out.extend_from_slice(rest);
    out.extend_from_slice(&[0x00, 0x01]);
}

/// Sign, exponent, then pairs of decimal digits as 1 to 100 and a zero byte; all of it inverted for
/// negative numbers. The value is 0.d1d2d3… * 10^exponent with d1 not zero and no zeros at the end.
fn put_numeric(out: &mut Vec<u8>, number: &Numeric) {
    let mut buffer = [0_u8; 40];
    let (negative, scale, digits) = if let Some((coefficient, scale)) = number.as_small() {
        if coefficient == 0 {
            out.push(NUMERIC_ZERO);
            return;
        }
        (coefficient < 0, scale, write_digits(coefficient.unsigned_abs(), &mut buffer))
    } else if let Some((coefficient, scale)) = number.as_big() {
        let text = coefficient.magnitude().to_string();
        let negative = coefficient.sign() == num_bigint::Sign::Minus;
        put_finite(out, negative, scale, text.as_bytes());
        return;
    } else {
        out.push(match (number.is_nan(), number.signum()) {
            (true, _) => NUMERIC_NAN,
            (false, 1) => NUMERIC_INFINITY,
            (false, _) => NUMERIC_NEGATIVE_INFINITY,
        });
        return;
    };
    put_finite(out, negative, scale, digits);
}

fn write_digits(mut value: u128, buffer: &mut [u8; 40]) -> &[u8] {
    let mut used = 0;
    // 128-bit division is slow and rarely needed.
    for slot in buffer.iter_mut().rev() {
        if value == 0 {
            break;
        }
        let digit = if let Ok(narrow) = u64::try_from(value) {
            value = u128::from(narrow / 10);
            narrow % 10
        } else {
            let digit = value % 10;
            value /= 10;
            u64::try_from(digit).unwrap_or(0)
        };
        *slot = b'0' + u8::try_from(digit).unwrap_or(0);
        used += 1;
    }
    buffer.get(40 - used..).unwrap_or_default()
}

fn put_finite(out: &mut Vec<u8>, negative: bool, scale: u16, digits: &[u8]) {
    let exponent = i64::try_from(digits.len()).unwrap_or(i64::MAX) - i64::from(scale);
    let kept = digits.iter().rposition(|&digit| digit != b'0').map_or(0, |at| at + 1);
    out.push(if negative { NUMERIC_NEGATIVE } else { NUMERIC_POSITIVE });
    let start = out.len();
    if exponent.abs() <= EXPONENT_SHORT_MAX {
        out.push(u8::try_from(exponent + EXPONENT_BIAS).unwrap_or(0));
    } else {
        out.push(if exponent < 0 { EXPONENT_LONG_NEGATIVE } else { EXPONENT_LONG_POSITIVE });
        let biased = u32::try_from(exponent + EXPONENT_LONG_BIAS).unwrap_or(0);
        out.extend(biased.to_be_bytes().iter().skip(1));
    }
    for pair in digits.get(..kept).unwrap_or_default().chunks(2) {
        let (tens, ones) = match pair {
            [tens, ones] => (tens - b'0', ones - b'0'),
            [tens] => (tens - b'0', 0),
            _ => (0, 0),
        };
        out.push(tens * 10 + ones + 1);
    }
    out.push(0);
    if negative {
        for byte in out.iter_mut().skip(start) {
            *byte = !*byte;
        }
    }
}

/// The values of a key; see the module for what a key does not keep.
pub fn decode_key(bytes: &[u8]) -> Result<Row, ValueError> {
    let mut row = Row::new();
    let mut rest = bytes;
    while !rest.is_empty() {
        row.push(decode_key_value(&mut rest)?);
    }
    Ok(row)
}

/// Takes one value from the front of `bytes`.
pub fn decode_key_value(bytes: &mut &[u8]) -> Result<Value, ValueError> {
    Ok(match take::<1>(bytes)?[0] {
        NULL => Value::Null,
        BOOL_FALSE => Value::Bool(false),
        BOOL_TRUE => Value::Bool(true),
        tag @ 0x10..=0x20 => Value::Int(take_int(bytes, tag)?),
        NUMERIC_NEGATIVE_INFINITY => Value::Numeric(Numeric::NEGATIVE_INFINITY),
        NUMERIC_NEGATIVE => Value::Numeric(take_numeric(bytes, true)?),
        NUMERIC_ZERO => Value::Numeric(Numeric::ZERO),
        NUMERIC_POSITIVE => Value::Numeric(take_numeric(bytes, false)?),
        NUMERIC_INFINITY => Value::Numeric(Numeric::INFINITY),
        NUMERIC_NAN => Value::Numeric(Numeric::NAN),
        FLOAT4 => {
            let bits = u32::from_be_bytes(take(bytes)?);
            Value::Float4(f32::from_bits(if bits >> 31 == 1 { bits ^ 1 << 31 } else { !bits }))
        }
        FLOAT8 => {
            let bits = u64::from_be_bytes(take(bytes)?);
            Value::Float8(f64::from_bits(if bits >> 63 == 1 { bits ^ 1 << 63 } else { !bits }))
        }
        TEXT => {
            let text = CompactString::from_utf8(take_bytes(bytes)?).ok().ok_or_else(damaged)?;
            Value::Text(text)
        }
        BYTEA => Value::Bytea(take_bytes(bytes)?),
        DATE => Value::Date((u32::from_be_bytes(take(bytes)?) ^ 1 << 31).cast_signed()),
        TIME => Value::Time(take_micros(bytes)?),
        TIMESTAMP => Value::Timestamp(take_micros(bytes)?),
        TIMESTAMPTZ => Value::TimestampTz(take_micros(bytes)?),
        INTERVAL => {
            let span = (u128::from_be_bytes(take(bytes)?) ^ 1 << 127).cast_signed();
            Value::Interval(interval_of_span(span).ok_or_else(damaged)?)
        }
        UUID => Value::Uuid(u128::from_be_bytes(take(bytes)?)),
        _ => return Err(damaged()),
    })
}

fn damaged() -> ValueError {
    ValueError::corrupted("stored key is damaged")
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], ValueError> {
    let (array, rest) = bytes.split_first_chunk().ok_or_else(damaged)?;
    *bytes = rest;
    Ok(*array)
}

fn take_micros(bytes: &mut &[u8]) -> Result<i64, ValueError> {
    Ok((u64::from_be_bytes(take(bytes)?) ^ 1 << 63).cast_signed())
}

fn take_int(bytes: &mut &[u8], tag: u8) -> Result<i64, ValueError> {
    let negative = tag < INT_ZERO;
    let mut magnitude = 0_u64;
    for _ in 0..tag.abs_diff(INT_ZERO) {
        let [byte] = take(bytes)?;
        magnitude = magnitude << 8 | u64::from(if negative { !byte } else { byte });
    }
    if negative {
        0_i64.checked_sub_unsigned(magnitude).ok_or_else(damaged)
    } else {
        i64::try_from(magnitude).ok().ok_or_else(damaged)
    }
}

fn take_bytes(bytes: &mut &[u8]) -> Result<Vec<u8>, ValueError> {
    let mut out = Vec::new();
    loop {
        let at = bytes.iter().position(|&byte| byte == 0).ok_or_else(damaged)?;
        let (before, after) = bytes.split_at_checked(at).ok_or_else(damaged)?;
        out.extend_from_slice(before);
        let (mark, rest) = after.split_first_chunk::<2>().ok_or_else(damaged)?;
        *bytes = rest;
        match mark {
            [0x00, 0x01] => return Ok(out),
            [0x00, 0xff] => out.push(0),
            _ => return Err(damaged()),
        }
    }
}

fn take_numeric(bytes: &mut &[u8], negative: bool) -> Result<Numeric, ValueError> {
    let flip = if negative { 0xff } else { 0x00 };
    let mut next = || -> Result<u8, ValueError> { Ok(take::<1>(bytes)?[0] ^ flip) };
    let exponent = match next()? {
        EXPONENT_LONG_NEGATIVE | EXPONENT_LONG_POSITIVE => {
            let biased = u32::from_be_bytes([0, next()?, next()?, next()?]);
            i64::from(biased) - EXPONENT_LONG_BIAS
        }
        short => i64::from(short) - EXPONENT_BIAS,
    };
    let mut digits = String::new();
    loop {
        match next()? {
            0 => break,
            pair @ 1..=100 => {
                digits.push(char::from(b'0' + (pair - 1) / 10));
                digits.push(char::from(b'0' + (pair - 1) % 10));
            }
            _ => return Err(damaged()),
        }
    }
    let digits = digits.trim_end_matches('0');
    let count = i64::try_from(digits.len()).ok().ok_or_else(damaged)?;
    let scale = u16::try_from((count - exponent).max(0)).ok().ok_or_else(damaged)?;
    let zeros = u32::try_from((exponent - count).max(0)).ok().ok_or_else(damaged)?;
    if zeros > 131_072 {
        return Err(damaged());
    }
    let mut coefficient = BigInt::from_str_radix(digits, 10).ok().ok_or_else(damaged)?;
    coefficient *= BigInt::from(10).pow(zeros);
    let coefficient = if negative { -coefficient } else { coefficient };
    Numeric::from_scaled(coefficient, scale).ok().ok_or_else(damaged)
}

/// Days and microseconds where the days fit, else months of 30 days too.
fn interval_of_span(span: i128) -> Option<Interval> {
    let day = i128::from(DAY_MICROS);
    let micros = i64::try_from(span % day).ok()?;
    let days = span / day;
    if let Ok(days) = i32::try_from(days) {
        return Some(Interval { months: 0, days, micros });
    }
    let days_left = i32::try_from(days % 30).ok()?;
    if let Ok(months) = i32::try_from(days / 30) {
        return Some(Interval { months, days: days_left, micros });
    }
    // Past what months can hold the rest of the days and the time hold it.
    let months = if days > 0 { i32::MAX } else { i32::MIN };
    let left = span - i128::from(months) * 30 * day;
    let days = i32::try_from(left / day).unwrap_or(if left > 0 { i32::MAX } else { i32::MIN });
    let micros = i64::try_from(left - i128::from(days) * day).ok()?;
    Some(Interval { months, days, micros })
}
