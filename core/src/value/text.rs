//! PostgreSQL's text of values, in and out.
//!
//! Output is what a session with `TimeZone = UTC`, `DateStyle = ISO`, `IntervalStyle = postgres`,
//! `extra_float_digits = 1` and `bytea_output = hex` prints, byte for byte. Input takes what such a
//! session prints and the usual literals; whatever is not understood is an error, never guessed.

use super::{Numeric, Type, Value, ValueError, datetime, float, interval, json};
use crate::value::error::SqlState;
use compact_str::CompactString;

/// C's `isspace`.
pub(crate) fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t'..='\r')
}

impl Value {
    /// Reads a value of `ty` as PostgreSQL's input function does. Json is checked, jsonb is brought
    /// into PostgreSQL's form, an enum's label must be one of its labels, `char(n)` is padded; what
    /// only later versions read is refused.
    pub fn parse(ty: &Type, text: &str) -> Result<Self, ValueError> {
        if *ty == Type::Json {
            json::validate(text)?;
        } else if *ty == Type::Jsonb {
            return Ok(Self::Text(json::to_jsonb(text)?.into()));
        } else if *ty == Type::Interval {
            return interval::parse_interval(text).map(Self::Interval);
        }
        Self::from_server(ty, text)
    }

    /// As [`Value::parse`] for text that PostgreSQL itself printed (replication, COPY): json and
    /// jsonb are taken as they are, without a second look.
    pub fn from_server(ty: &Type, text: &str) -> Result<Self, ValueError> {
        match ty {
            Type::Bool => parse_bool(text).map(Self::Bool),
            Type::Int2 | Type::Int4 | Type::Int8 => parse_int(ty, text).map(Self::Int),
            Type::Float4 => float::parse_f32(text).map(Self::Float4),
            Type::Float8 => float::parse_f64(text).map(Self::Float8),
            Type::Numeric(typmod) => text.parse::<Numeric>()?.fitted(*typmod).map(Self::Numeric),
            Type::Varchar(Some(limit)) => {
                limited(text, *limit, "character varying").map(|text| Self::Text(text.into()))
            }
            Type::Char(width) => {
                limited(text, *width, "character").map(|text| Self::Text(pad(text.into(), *width)))
            }
            Type::Text | Type::Varchar(None) | Type::Json | Type::Jsonb | Type::Other { .. } => {
                Ok(Self::Text(text.into()))
            }
            Type::Enum { name, labels, .. } => {
                if labels.iter().any(|label| label == text) {
                    return Ok(Self::Text(text.into()));
                }
                Err(ValueError::new(
                    SqlState::InvalidTextRepresentation,
                    format!("invalid input value for enum {name}"),
                ))
            }
            Type::Bytea => parse_bytea(text).map(Self::Bytea),
            Type::Date => datetime::parse_date(text),
            Type::Time => datetime::parse_time(text),
            Type::Timestamp => datetime::parse_timestamp(text, false),
            Type::TimestampTz => datetime::parse_timestamp(text, true),
            Type::Interval => interval::read_interval(text).map(Self::Interval),
            Type::Uuid => parse_uuid(text).map(Self::Uuid),
        }
    }

    /// Appends PostgreSQL's text of the value; nothing for NULL, which has none.
    ///
    /// The variant says how to print; `ty` is there for callers that hold both, and for types whose
    /// printing will depend on it.
    pub fn write_text(&self, _ty: &Type, out: &mut String) {
        match self {
            Self::Null => {}
            Self::Bool(value) => out.push(if *value { 't' } else { 'f' }),
            Self::Int(value) => datetime::push_int(*value, out),
            Self::Numeric(value) => value.write(out),
            Self::Float4(value) => float::write_f32(*value, out),
            Self::Float8(value) => float::write_f64(*value, out),
            Self::Text(text) => out.push_str(text),
            Self::Bytea(bytes) => {
                out.push_str("\\x");
                hex_into(bytes, out);
            }
            Self::Date(days) => datetime::write_date(*days, out),
            Self::Time(micros) => datetime::write_time(*micros, out),
            Self::Timestamp(micros) => datetime::write_timestamp(*micros, false, out),
            Self::TimestampTz(micros) => datetime::write_timestamp(*micros, true, out),
            Self::Interval(interval) => interval::write_interval(interval, out),
            Self::Uuid(uuid) => uuid_into(*uuid, out),
        }
    }

    /// PostgreSQL's text as a string of its own.
    #[must_use]
    pub fn to_text(&self, ty: &Type) -> String {
        let mut out = String::new();
        self.write_text(ty, &mut out);
        out
    }
}

/// Appends lower-case hexadecimal digits.
pub fn hex_into(bytes: &[u8], out: &mut String) {
    out.reserve(bytes.len() * 2);
    for byte in bytes {
        for nibble in [byte >> 4, byte & 15] {
            out.push(char::from_digit(u32::from(nibble), 16).unwrap_or('?'));
        }
    }
}

/// Appends a UUID in its canonical form.
pub fn uuid_into(uuid: u128, out: &mut String) {
    for (at, byte) in uuid.to_be_bytes().iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            out.push('-');
        }
        hex_into(std::slice::from_ref(byte), out);
    }
}

/// Any unambiguous beginning of the words, as `boolin`.
fn parse_bool(text: &str) -> Result<bool, ValueError> {
    match text {
        "t" => return Ok(true),
        "f" => return Ok(false),
        _ => {}
    }
    let word = text.trim_matches(is_space).to_ascii_lowercase();
    let is = |full: &str, least: usize| word.len() >= least && full.starts_with(word.as_str());
    if is("true", 1) || is("yes", 1) || is("on", 2) || word == "1" {
        Ok(true)
    } else if is("false", 1) || is("no", 1) || is("off", 2) || word == "0" {
        Ok(false)
    } else {
        Err(ValueError::syntax("boolean"))
    }
}

/// PostgreSQL's name of an integer type, and its range.
pub(crate) fn int_range(ty: &Type) -> (&'static str, i64, i64) {
    if *ty == Type::Int2 {
        ("smallint", i64::from(i16::MIN), i64::from(i16::MAX))
    } else if *ty == Type::Int4 {
        ("integer", i64::from(i32::MIN), i64::from(i32::MAX))
    } else {
        ("bigint", i64::MIN, i64::MAX)
    }
}

/// As `pg_strtoint32`: too many digits are out of range whatever stands behind them.
fn parse_int(ty: &Type, text: &str) -> Result<i64, ValueError> {
    let (name, min, max) = int_range(ty);
    let syntax = || ValueError::syntax(name);
    let out_of_range = || {
        ValueError::new(
            SqlState::NumericValueOutOfRange,
            format!("value is out of range for type {name}"),
        )
    };
    let text = text.trim_matches(is_space);
    let negative = text.starts_with('-');
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() {
        return Err(syntax());
    }
    // Built below zero, where the range is larger by one.
    let mut value = 0_i64;
    for byte in digits.bytes() {
        if !byte.is_ascii_digit() {
            return Err(syntax());
        }
        value = value
            .checked_mul(10)
            .and_then(|value| value.checked_sub(i64::from(byte - b'0')))
            .filter(|value| *value >= min)
            .ok_or_else(out_of_range)?;
    }
    if negative {
        return Ok(value);
    }
    value.checked_neg().filter(|value| *value <= max).ok_or_else(out_of_range)
}

pub(crate) fn too_long(type_name: &str, limit: u32) -> ValueError {
    ValueError::new(
        SqlState::StringTooLong,
        format!("value too long for type {type_name}({limit})"),
    )
}

/// The byte where character `limit` begins; `None` where the text has no more than `limit`.
pub(crate) fn cut_at(text: &str, limit: u32) -> Option<usize> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    if text.len() <= limit {
        return None;
    }
    text.char_indices().nth(limit).map(|(at, _)| at)
}

/// Blanks past the limit are cut off, anything else is an error.
fn limited<'a>(text: &'a str, limit: u32, type_name: &str) -> Result<&'a str, ValueError> {
    let Some(at) = cut_at(text, limit) else {
        return Ok(text);
    };
    let (kept, rest) = text.split_at_checked(at).unwrap_or((text, ""));
    if rest.bytes().all(|byte| byte == b' ') { Ok(kept) } else { Err(too_long(type_name, limit)) }
}

pub(crate) fn pad(mut text: CompactString, width: u32) -> CompactString {
    let width = usize::try_from(width).unwrap_or(usize::MAX);
    for _ in text.chars().count()..width {
        text.push(' ');
    }
    text
}

fn parse_bytea(text: &str) -> Result<Vec<u8>, ValueError> {
    let syntax = || ValueError::syntax("bytea");
    let Some(hex) = text.strip_prefix("\\x") else {
        return parse_escaped(text);
    };
    let mut out = Vec::with_capacity(hex.len() / 2);
    let mut digits = hex.bytes();
    while let Some(high) = digits.next() {
        // PostgreSQL allows blanks between pairs.
        if is_space(char::from(high)) {
            continue;
        }
        let low = digits.next().ok_or_else(syntax)?;
        let nibble = |byte: u8| char::from(byte).to_digit(16).and_then(|n| u8::try_from(n).ok());
        out.push(nibble(high).ok_or_else(syntax)? << 4 | nibble(low).ok_or_else(syntax)?);
    }
    Ok(out)
}

/// The escape format: `\\` and `\ooo`.
fn parse_escaped(text: &str) -> Result<Vec<u8>, ValueError> {
    let syntax = || ValueError::syntax("bytea");
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'\\' {
            out.push(byte);
            continue;
        }
        let first = bytes.next().ok_or_else(syntax)?;
        if first == b'\\' {
            out.push(b'\\');
            continue;
        }
        let mut value = u32::from(first.wrapping_sub(b'0'));
        if value > 3 {
            return Err(syntax());
        }
        for _ in 0..2 {
            let digit = bytes.next().and_then(|byte| char::from(byte).to_digit(8));
            value = value * 8 + digit.ok_or_else(syntax)?;
        }
        out.push(u8::try_from(value).ok().ok_or_else(syntax)?);
    }
    Ok(out)
}

/// 32 hexadecimal digits, a hyphen allowed behind each four, perhaps in braces.
fn parse_uuid(text: &str) -> Result<u128, ValueError> {
    let syntax = || ValueError::syntax("uuid");
    let inner = match text.strip_prefix('{') {
        Some(rest) => rest.strip_suffix('}').ok_or_else(syntax)?,
        None => text,
    };
    let (mut value, mut digits, mut hyphen_allowed) = (0_u128, 0, false);
    for byte in inner.bytes() {
        if byte == b'-' && hyphen_allowed {
            hyphen_allowed = false;
            continue;
        }
        let digit = char::from(byte).to_digit(16).ok_or_else(syntax)?;
        digits += 1;
        if digits > 32 {
            return Err(syntax());
        }
        value = value << 4 | u128::from(digit);
        hyphen_allowed = digits % 4 == 0 && digits < 32;
    }
    if digits == 32 && !inner.ends_with('-') { Ok(value) } else { Err(syntax()) }
}
