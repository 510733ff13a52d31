//! Values on their way into a table: encoded where they fit, refused where they do not.
//!
//! `ClickHouse` casts in silence (-1 into a `UInt64`, a date into 2149, half a second away), so
//! whether a value fits is decided here and nowhere else: what is sent is what is read back.

use super::super::codec::{CodecError, Reader, put_bytes, put_signed, put_varint};
use super::super::format::{DAY_MICROS, EPOCH_DAYS, write_text};
use super::types::{ChType, ColumnType};
use crate::value::array::{self, Item};
use crate::value::{Numeric, Type, Value};
use num_bigint::{BigInt, BigUint};
use std::fmt::Write as _;

/// A value as it goes to `ClickHouse`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cell<'a> {
    Null,
    Bool(bool),
    /// Integers and numbers of labels; days and microseconds since 1970-01-01.
    Int(i64),
    UInt(u64),
    /// Integers of 128 and 256 bits: little-endian two's complement.
    Wide([u8; 32]),
    Float32(f32),
    Float64(f64),
    /// Times 10 to the scale.
    Decimal128(i128),
    /// As `Decimal128`, little-endian.
    Decimal256([u8; 32]),
    Bytes(&'a [u8]),
    /// Big-endian, as it is written.
    Uuid([u8; 16]),
    /// Read by [`ChType::items`].
    Array(Items<'a>),
}

/// The items of an array, encoded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Items<'a>(&'a [u8]);

const FOREIGN: &str = "its value is of another type than its column";
const NO_NUMBER: &str = "it is not a whole number, and its column holds nothing else";
const INTEGER_RANGE: &str = "it is outside the range of its integer column";
const TOO_WIDE: &str = "it has more digits than its Decimal column has room for";
const LABEL: &str = "it is none of the labels of its Enum column";
const LENGTH: &str = "it has not as many bytes as its FixedString";
const TIMESTAMP_RANGE: &str = "DateTime64 holds the years 1900 to 2299";
const NANOS_RANGE: &str = "DateTime64(9) holds 1900-01-01 to 2262-04-11 23:47:16";
const SECONDS_RANGE: &str = "DateTime holds 1970-01-01 to 2106-02-07 06:28:15";
const DIMENSIONS: &str = "it has not as many dimensions as its Array";
const BOUNDS: &str = "its first index is not 1, which an Array cannot show";
const NULL_ITEM: &str = "it holds NULL, and the items of its Array are not Nullable";
const ITEM: &str = "an element of it is not of its type";
const FRACTION: &str = "it has more digits after the second's point than its column";

/// 1900-01-01 and 2299-12-31 as days since 1970-01-01: what `ClickHouse` documents for `Date32` and
/// `DateTime64`; beyond it functions saturate.
const DAYS_MIN: i64 = -25_567;
const DAYS_MAX: i64 = 120_529;
/// 2149-06-06: `Date` has 16 bits.
const DATE_DAYS_MAX: i64 = 65_535;

impl ChType {
    /// Appends a value as the writer sends it: one byte that says whether it is NULL, then its
    /// bits.
    pub(super) fn put(
        &self,
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
            (Self::UInt(8), Value::Bool(value)) => put_varint(out, (*value).into()),
            (Self::Int(bits), Value::Int(value)) if *bits <= 64 => put_int(*value, *bits, out)?,
            (Self::Int(_) | Self::UInt(_), value) => self.put_integer(value, out)?,
            (Self::Float32, Value::Float4(value)) => out.extend_from_slice(&value.to_le_bytes()),
            (Self::Float64, Value::Float8(value)) => out.extend_from_slice(&value.to_le_bytes()),
            (Self::Float64, Value::Float4(value)) => {
                out.extend_from_slice(&f64::from(*value).to_le_bytes());
            }
            (Self::Decimal(precision, scale), value) => {
                put_decimal(value, *precision, *scale, out)?;
            }
            (Self::FixedString(bytes), value) => put_fixed(value, *bytes, out)?,
            (Self::Enum(labels), Value::Text(text)) => {
                put_signed(out, labels.number(text).ok_or(LABEL)?.into());
            }
            (Self::String | Self::LowCardinality, Value::Bytea(bytes)) => put_bytes(out, bytes),
            (Self::String | Self::LowCardinality, Value::Text(text)) => {
                put_bytes(out, text.as_bytes());
            }
            (Self::String | Self::LowCardinality, value) => {
                let mut text = String::new();
                write_text(value, ty, &mut text);
                put_bytes(out, text.as_bytes());
            }
            (Self::Date | Self::Date32, Value::Date(days)) => {
                let days = i64::from(*days) + EPOCH_DAYS;
                let (range, why) = if *self == Self::Date {
                    (0..=DATE_DAYS_MAX, "Date holds 1970-01-01 to 2149-06-06")
                } else {
                    (DAYS_MIN..=DAYS_MAX, "Date32 holds 1900-01-01 to 2299-12-31")
                };
                if !range.contains(&days) {
                    return Err(why);
                }
                put_signed(out, days);
            }
            (
                Self::DateTime(_) | Self::DateTime64(..),
                Value::Timestamp(micros) | Value::TimestampTz(micros),
            ) => put_signed(out, self.time(*micros)?),
            (Self::Uuid, Value::Uuid(bits)) => out.extend_from_slice(&bits.to_be_bytes()),
            (Self::Array(items), Value::Text(text)) => {
                let found = array::items(text).ok_or(BOUNDS)?;
                put_items(items, &found, ty.element().ok_or(FOREIGN)?, out)?;
            }
            _ => return Err(FOREIGN),
        }
        Ok(())
    }

    /// Integers that are not one of PostgreSQL's in a column of at most 64 bits.
    fn put_integer(&self, value: &Value, out: &mut Vec<u8>) -> Result<(), &'static str> {
        #[expect(clippy::wildcard_enum_match_arm, reason = "every other value is refused")]
        let number = match value {
            Value::Int(value) => BigInt::from(*value),
            Value::Numeric(number) => number.to_scaled(0).ok_or(NO_NUMBER)?,
            _ => return Err(FOREIGN),
        };
        #[expect(clippy::wildcard_enum_match_arm, reason = "only integers come here")]
        match self {
            Self::Int(bits) if *bits <= 64 => {
                put_int(i64::try_from(&number).ok().ok_or(INTEGER_RANGE)?, *bits, out)
            }
            Self::UInt(bits) if *bits <= 64 => {
                let number = u64::try_from(&number).ok().ok_or(INTEGER_RANGE)?;
                if number.checked_shr((*bits).into()).unwrap_or(0) != 0 {
                    return Err(INTEGER_RANGE);
                }
                put_varint(out, number);
                Ok(())
            }
            Self::Int(bits) => {
                // Two's complement: -2^127 fits 128 bits, 2^127 does not.
                let bytes = number.to_signed_bytes_le();
                put_wide(&bytes, if number < BigInt::ZERO { 0xff } else { 0 }, *bits, out)
            }
            Self::UInt(bits) => {
                let number = number.to_biguint().ok_or(INTEGER_RANGE)?;
                put_wide(&number.to_bytes_le(), 0, *bits, out)
            }
            _ => Err(FOREIGN),
        }
    }

    /// Microseconds since 1970 of PostgreSQL's since 2000, where the column shows them all.
    fn time(&self, micros: i64) -> Result<i64, &'static str> {
        let unix = unix_micros(micros).ok_or(TIMESTAMP_RANGE)?;
        let digits = if let Self::DateTime64(digits, _) = self { *digits } else { 0 };
        if matches!(self, Self::DateTime(_)) {
            if !(0..=i64::from(u32::MAX)).contains(&unix.div_euclid(1_000_000)) {
                return Err(SECONDS_RANGE);
            }
        } else if digits == 9 && unix.checked_mul(1_000).is_none() {
            return Err(NANOS_RANGE);
        }
        let unit = 10_i64.pow(6_u32.saturating_sub(digits.into()));
        if unix.rem_euclid(unit) == 0 { Ok(unix) } else { Err(FRACTION) }
    }

    /// Reads what [`ChType::put`] wrote.
    pub(super) fn read<'a>(&self, reader: &mut Reader<'a>) -> Result<Cell<'a>, CodecError> {
        match reader.byte()? {
            0 => return Ok(Cell::Null),
            1 => {}
            _ => {
                return Err(CodecError { what: "a damaged value" });
            }
        }
        Ok(match self {
            Self::Bool => Cell::Bool(reader.byte()? != 0),
            Self::Int(bits) | Self::UInt(bits) if *bits > 64 => Cell::Wide(bytes_of(reader)?),
            Self::UInt(_) => Cell::UInt(reader.varint()?),
            Self::Int(_)
            | Self::Enum(_)
            | Self::Date
            | Self::Date32
            | Self::DateTime(_)
            | Self::DateTime64(..) => Cell::Int(reader.signed()?),
            Self::Float32 => Cell::Float32(f32::from_le_bytes(bytes_of(reader)?)),
            Self::Float64 => Cell::Float64(f64::from_le_bytes(bytes_of(reader)?)),
            Self::Decimal(precision, _) if *precision <= 38 => {
                Cell::Decimal128(i128::from_le_bytes(bytes_of(reader)?))
            }
            Self::Decimal(..) => Cell::Decimal256(bytes_of(reader)?),
            Self::String | Self::LowCardinality | Self::FixedString(_) => {
                Cell::Bytes(reader.bytes()?)
            }
            Self::Uuid => Cell::Uuid(bytes_of(reader)?),
            Self::Array(_) => Cell::Array(Items(reader.bytes()?)),
        })
    }

    /// The items of an array that [`ChType::read`] found in a column of this type.
    ///
    /// # Errors
    /// Where the bytes are damaged.
    pub fn items<'a>(
        &self,
        items: Items<'a>,
        mut visit: impl FnMut(&ColumnType, Cell<'a>),
    ) -> Result<(), CodecError> {
        let Self::Array(of) = self else {
            return Err(CodecError { what: "a damaged value" });
        };
        let mut reader = Reader::new(items.0);
        while !reader.is_empty() {
            visit(of, of.ty.read(&mut reader)?);
        }
        Ok(())
    }

    /// A cell in the form of [`super::Target::select_text`].
    pub(super) fn text_of(&self, cell: Cell<'_>) -> Option<String> {
        Some(match (cell, self) {
            (Cell::Null, _) => return None,
            (Cell::Bool(value), _) => u8::from(value).to_string(),
            // A number without a label cannot be told from no value otherwise.
            (Cell::Int(value), Self::Enum(labels)) => {
                hex(labels.label(value).unwrap_or_default().as_bytes())
            }
            (Cell::Int(value), _) => value.to_string(),
            (Cell::UInt(value), _) => value.to_string(),
            (Cell::Wide(bytes), Self::UInt(_)) => BigUint::from_bytes_le(&bytes).to_string(),
            (Cell::Wide(bytes), _) => BigInt::from_signed_bytes_le(&bytes).to_string(),
            (Cell::Float32(value), _) => value.to_bits().to_string(),
            (Cell::Float64(value), _) => value.to_bits().to_string(),
            (Cell::Decimal128(value), ty) => decimal_text(&value.to_string(), ty),
            (Cell::Decimal256(bytes), ty) => {
                decimal_text(&BigInt::from_signed_bytes_le(&bytes).to_string(), ty)
            }
            (Cell::Bytes(bytes), _) => hex(bytes),
            (Cell::Uuid(bytes), _) => uuid_text(bytes),
            (Cell::Array(items), ty) => {
                let mut texts = Vec::new();
                let shown = ty.items(items, |of, cell| {
                    texts.push(of.ty.text_of(cell).unwrap_or_else(|| "NULL".to_owned()));
                });
                // Nothing that the store could hold.
                shown.ok().map_or_else(String::new, |()| format!("[{}]", texts.join(",")))
            }
        })
    }
}

/// Each item as [`ChType::put`] writes it; all of them behind their length.
fn put_items(
    of: &ColumnType,
    items: &[Item<'_>],
    element: &Type,
    out: &mut Vec<u8>,
) -> Result<(), &'static str> {
    let mut bytes = Vec::new();
    for item in items {
        match (item, &of.ty) {
            (Item::Null, ChType::Array(_)) => return Err(DIMENSIONS),
            (Item::Null, _) if !of.nullable => return Err(NULL_ITEM),
            (Item::Null, _) => bytes.push(0),
            (Item::Array(items), ChType::Array(of)) => {
                bytes.push(1);
                put_items(of, items, element, &mut bytes)?;
            }
            (Item::Array(_), _) | (Item::Text(_), ChType::Array(_)) => return Err(DIMENSIONS),
            (Item::Text(text), ty) => {
                let value = array::element(element, text).ok_or(ITEM)?;
                ty.put(&value, element, &mut bytes)?;
            }
        }
    }
    put_bytes(out, &bytes);
    Ok(())
}

fn bytes_of<const N: usize>(reader: &mut Reader<'_>) -> Result<[u8; N], CodecError> {
    reader.take(N)?.try_into().ok().ok_or(CodecError { what: "a cut record" })
}

/// Microseconds since 1970 of PostgreSQL's since 2000.
pub(super) fn unix_micros(micros: i64) -> Option<i64> {
    let unix = micros.checked_add(EPOCH_DAYS * DAY_MICROS)?;
    (DAYS_MIN..=DAYS_MAX).contains(&unix.div_euclid(DAY_MICROS)).then_some(unix)
}

fn put_int(value: i64, bits: u16, out: &mut Vec<u8>) -> Result<(), &'static str> {
    let spare = 64_u32.saturating_sub(bits.into());
    // The value comes back from its lowest bits.
    if value.wrapping_shl(spare).wrapping_shr(spare) != value {
        return Err(INTEGER_RANGE);
    }
    put_signed(out, value);
    Ok(())
}

fn put_wide(number: &[u8], fill: u8, bits: u16, out: &mut Vec<u8>) -> Result<(), &'static str> {
    if number.len() > usize::from(bits / 8) {
        return Err(INTEGER_RANGE);
    }
    let mut bytes = [fill; 32];
    bytes.get_mut(..number.len()).ok_or(INTEGER_RANGE)?.copy_from_slice(number);
    out.extend_from_slice(&bytes);
    Ok(())
}

fn put_fixed(value: &Value, length: u32, out: &mut Vec<u8>) -> Result<(), &'static str> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "every other value is refused")]
    let bytes = match value {
        Value::Text(text) => text.as_bytes(),
        Value::Bytea(bytes) => bytes,
        _ => return Err(FOREIGN),
    };
    // A shorter one would come back with zeros at its end.
    if u32::try_from(bytes.len()) != Ok(length) {
        return Err(LENGTH);
    }
    put_bytes(out, bytes);
    Ok(())
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
            widened = Numeric::from_scaled_i128((*integer).into(), 0).ok_or(FOREIGN)?;
            &widened
        }
        _ => return Err(FOREIGN),
    };
    if precision <= 38 {
        let scaled = number.to_scaled_i128(scale).ok_or(TOO_WIDE)?;
        if scaled.unsigned_abs() >= 10_u128.pow(precision.into()) {
            return Err(TOO_WIDE);
        }
        out.extend_from_slice(&scaled.to_le_bytes());
    } else {
        let scaled = number.to_scaled(scale).ok_or(TOO_WIDE)?;
        if scaled.magnitude() >= &BigUint::from(10_u8).pow(precision.into()) {
            return Err(TOO_WIDE);
        }
        out.extend_from_slice(&number.to_scaled_i256_le(scale).ok_or(TOO_WIDE)?);
    }
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02X}").ok();
        text
    })
}

fn uuid_text(bytes: [u8; 16]) -> String {
    let digits = format!("{:032x}", u128::from_be_bytes(bytes));
    let mut text = String::with_capacity(36);
    for (index, digit) in digits.chars().enumerate() {
        if matches!(index, 8 | 12 | 16 | 20) {
            text.push('-');
        }
        text.push(digit);
    }
    text
}

/// As `ClickHouse` prints it: without trailing zeros.
pub(super) fn decimal_text(digits: &str, ty: &ChType) -> String {
    let scale = if let ChType::Decimal(_, scale) = ty { usize::from(*scale) } else { 0 };
    let (sign, digits) = match digits.strip_prefix('-') {
        Some(digits) => ("-", digits),
        None => ("", digits),
    };
    let padded = format!("{digits:0>width$}", width = scale + 1);
    let (whole, fraction) =
        padded.split_at_checked(padded.len() - scale).unwrap_or((padded.as_str(), ""));
    let fraction = fraction.trim_end_matches('0');
    if fraction.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a value that does not parse fails its test")]

    use super::*;
    use crate::value::Carried;
    use proptest::prelude::*;

    fn ch(text: &str) -> ChType {
        ColumnType::parse(text).unwrap().ty
    }

    /// What comes back of a value, as text; what is wrong with it otherwise.
    fn through(ch: &ChType, ty: &Type, text: &str) -> Result<String, &'static str> {
        assert!(ch.accepts(ty), "{ch} {ty:?}");
        let mut bytes = Vec::new();
        ch.put(&Value::parse(ty, text).unwrap(), ty, &mut bytes)?;
        let mut reader = Reader::new(&bytes);
        let cell = ch.read(&mut reader).unwrap();
        assert!(reader.is_empty());
        Ok(ch.text_of(cell).unwrap())
    }

    fn fit(text: &str, ty: &Type, values: &[&str]) {
        for value in values {
            assert!(through(&ch(text), ty, value).is_ok(), "{text} {value}");
        }
    }

    fn unfit(text: &str, ty: &Type, values: &[&str], why: &str) {
        for value in values {
            assert_eq!(through(&ch(text), ty, value), Err(why), "{text} {value}");
        }
    }

    const NUMERIC: Type = Type::Numeric(None);

    #[test]
    fn integers_at_their_edges() {
        fit("Int8", &Type::Int8, &["-128", "127"]);
        unfit("Int8", &Type::Int8, &["-129", "128"], INTEGER_RANGE);
        fit("UInt8", &Type::Int2, &["0", "255"]);
        unfit("UInt8", &Type::Int2, &["-1", "256"], INTEGER_RANGE);
        fit("Int16", &Type::Int4, &["-32768", "32767"]);
        unfit("Int16", &Type::Int4, &["32768"], INTEGER_RANGE);
        fit("UInt16", &Type::Int4, &["65535"]);
        unfit("UInt16", &Type::Int4, &["65536", "-1"], INTEGER_RANGE);
        fit("Int32", &Type::Int8, &["-2147483648"]);
        unfit("Int32", &Type::Int8, &["2147483648"], INTEGER_RANGE);
        fit("UInt32", &Type::Int8, &["4294967295"]);
        unfit("UInt32", &Type::Int8, &["4294967296"], INTEGER_RANGE);
        fit("Int64", &NUMERIC, &["-9223372036854775808", "9223372036854775807.000"]);
        unfit("Int64", &NUMERIC, &["9223372036854775808"], INTEGER_RANGE);
        unfit("Int64", &NUMERIC, &["0.5", "NaN", "-Infinity"], NO_NUMBER);
        fit("UInt64", &Type::Int8, &["0", "9223372036854775807"]);
        unfit("UInt64", &Type::Int8, &["-1"], INTEGER_RANGE);
        fit("UInt64", &NUMERIC, &["18446744073709551615"]);
        unfit("UInt64", &NUMERIC, &["18446744073709551616"], INTEGER_RANGE);
        let min128 = (BigInt::from(-1) << 127_u32).to_string();
        let max256 = ((BigInt::from(1) << 256_u32) - 1_u32).to_string();
        assert_eq!(through(&ch("Int128"), &NUMERIC, &min128).as_deref(), Ok(min128.as_str()));
        assert_eq!(through(&ch("UInt256"), &NUMERIC, &max256).as_deref(), Ok(max256.as_str()));
        assert_eq!(through(&ch("Int256"), &Type::Int2, "-1").as_deref(), Ok("-1"));
        let beyond = |bits: u32| (BigInt::from(1) << bits).to_string();
        unfit("Int128", &NUMERIC, &[&beyond(127)], INTEGER_RANGE);
        unfit("UInt128", &NUMERIC, &[&beyond(128), "-1"], INTEGER_RANGE);
        unfit("Int256", &NUMERIC, &[&beyond(255)], INTEGER_RANGE);
        unfit("UInt256", &NUMERIC, &[&beyond(256)], INTEGER_RANGE);
    }

    #[test]
    fn decimals_never_round() {
        fit("Decimal(4, 2)", &NUMERIC, &["99.9900"]);
        unfit("Decimal(4, 2)", &NUMERIC, &["100", "0.001", "NaN", "Infinity"], TOO_WIDE);
        let widest = format!("{}.{}", "9".repeat(38), "9".repeat(38));
        fit("Decimal(76, 38)", &NUMERIC, &[&widest]);
        unfit("Decimal(76, 38)", &NUMERIC, &[&format!("1{}", "0".repeat(38))], TOO_WIDE);
        unfit("Decimal(9, 1)", &Type::Numeric(Some((12, 2))), &["1.25"], TOO_WIDE);
        fit("Decimal(9, 1)", &Type::Numeric(Some((12, 2))), &["1.50"]);
        assert_eq!(decimal_text("-5", &ChType::Decimal(4, 2)), "-0.05");
        assert_eq!(decimal_text("1200", &ChType::Decimal(6, 2)), "12");
    }

    #[test]
    fn times_and_dates_are_never_cut() {
        let far = ["infinity", "0044-03-15 BC", "1899-12-31", "2300-01-01"];
        for text in far {
            assert!(through(&ch("Date32"), &Type::Date, text).is_err(), "{text}");
            let utc = ch("DateTime64(6, 'UTC')");
            assert_eq!(through(&utc, &Type::Timestamp, text), Err(TIMESTAMP_RANGE), "{text}");
        }
        fit("Date", &Type::Date, &["1970-01-01", "2149-06-06"]);
        unfit(
            "Date",
            &Type::Date,
            &["1969-12-31", "2149-06-07"],
            "Date holds 1970-01-01 to 2149-06-06",
        );
        let tz = &Type::TimestampTz;
        let shown = through(&ch("DateTime64(3)"), tz, "1969-12-31 23:59:59.999+00");
        assert_eq!(shown.as_deref(), Ok("-1000"));
        unfit("DateTime64(3)", tz, &["2026-01-01 00:00:00.0005+00"], FRACTION);
        unfit("DateTime64(0)", tz, &["2026-01-01 00:00:00.1+00"], FRACTION);
        fit("DateTime64(7)", tz, &["2299-12-31 23:59:59.999999+00"]);
        fit("DateTime64(9)", tz, &["2262-04-11 23:47:16.854775+00"]);
        unfit("DateTime64(9)", tz, &["2262-04-11 23:47:16.854776+00"], NANOS_RANGE);
        fit("DateTime", tz, &["1970-01-01 00:00:00+00", "2106-02-07 06:28:15+00"]);
        unfit("DateTime", tz, &["1969-12-31 23:59:59+00", "2106-02-07 06:28:16+00"], SECONDS_RANGE);
        unfit("DateTime", tz, &["2026-01-01 00:00:00.000001+00"], FRACTION);
    }

    #[test]
    fn labels_and_lengths() {
        let label = Type::Enum { oid: 1, name: "e".to_owned(), labels: vec!["it's".to_owned()] };
        let ty = ch("Enum8('open' = 1, 'it\\'s' = -3)");
        assert_eq!(through(&ty, &label, "it's"), Ok(hex(b"it's")));
        assert_eq!(through(&ty, &Type::Text, "OPEN"), Err(LABEL));
        assert_eq!(through(&ch("FixedString(3)"), &Type::Text, "äx"), Ok(hex("äx".as_bytes())));
        unfit("FixedString(3)", &Type::Text, &["", "GB", "abcd"], LENGTH);
        unfit("FixedString(2)", &Type::Bytea, &["\\x00"], LENGTH);
        fit("FixedString(2)", &Type::Bytea, &["\\x0000"]);
        assert_eq!(through(&ch("UInt8"), &Type::Bool, "t").as_deref(), Ok("1"));
    }

    #[test]
    fn arrays_keep_their_shape_or_are_refused() {
        let of = |element: Type| Type::Other {
            oid: 1,
            name: "array".to_owned(),
            carried: Carried { element: Some(Box::new(element)), ..Carried::default() },
        };
        let numbers = of(Type::Int4);
        let shown = |ch_type: &str, ty: &Type, text: &str| through(&ch(ch_type), ty, text);
        assert_eq!(shown("Array(Int32)", &numbers, "{1,-2}").as_deref(), Ok("[1,-2]"));
        assert_eq!(shown("Array(Nullable(Int8))", &numbers, "{1,NULL}").as_deref(), Ok("[1,NULL]"));
        assert_eq!(shown("Array(Array(Int8))", &numbers, "{{1},{2}}").as_deref(), Ok("[[1],[2]]"));
        assert_eq!(shown("Array(Array(Int8))", &numbers, "{}").as_deref(), Ok("[]"));
        unfit("Array(Int8)", &numbers, &["{1,NULL}"], NULL_ITEM);
        unfit("Array(Int8)", &numbers, &["{{1},{2}}"], DIMENSIONS);
        unfit("Array(Array(Int8))", &numbers, &["{1}"], DIMENSIONS);
        unfit("Array(Int8)", &numbers, &["[0:0]={1}"], BOUNDS);
        unfit("Array(Int8)", &numbers, &["{1,128}"], INTEGER_RANGE);
        let texts = shown("Array(Nullable(String))", &of(Type::Text), "{\"\",\"NULL\",NULL,ä}");
        assert_eq!(texts, Ok(format!("[,{},NULL,{}]", hex(b"NULL"), hex("ä".as_bytes()))));
        unfit(
            "Array(DateTime64(6, 'UTC'))",
            &of(Type::TimestampTz),
            &["{infinity}"],
            TIMESTAMP_RANGE,
        );
    }

    proptest! {
        #[test]
        fn integers_come_back_or_are_refused(value: i64) {
            for bits in [8_u32, 16, 32, 64, 128, 256] {
                for (text, low, high) in [
                    (format!("Int{bits}"), BigInt::from(-1) << (bits - 1), BigInt::from(1) << (bits - 1)),
                    (format!("UInt{bits}"), BigInt::ZERO, BigInt::from(1) << bits),
                ] {
                    let fits = low <= value.into() && BigInt::from(value) < high;
                    let found = through(&ch(&text), &Type::Int8, &value.to_string());
                    prop_assert_eq!(found.ok(), fits.then(|| value.to_string()), "{}", text);
                }
            }
        }
    }
}
