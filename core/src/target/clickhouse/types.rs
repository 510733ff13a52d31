//! Which `ClickHouse` type a column gets, and which others may stand in a table of the user's.
//!
//! | PostgreSQL | `ClickHouse` | also in a user's own table, or under `types:` |
//! |---|---|---|
//! | smallint, integer, bigint | `Int16`, `Int32`, `Int64` | every `Int…`, `UInt…`, `Decimal` |
//! | numeric(p, s) | `Decimal(p, s)` | every `Decimal`; without a scale every `Int…`, `UInt…` |
//! | numeric | `Decimal(76, 38)` | the same |
//! | real | `Float32` | `Float64` |
//! | double precision | `Float64` | |
//! | boolean | `Bool` | `UInt8` |
//! | date | `Date32` | `Date` |
//! | timestamp, timestamptz | `DateTime64(6, 'UTC')` | `DateTime64(p)`, `DateTime` |
//! | uuid | `UUID` | |
//! | enum | `LowCardinality(String)` | `Enum8`, `Enum16`, `FixedString(n)` |
//! | bytea | `String` of the same bytes | `FixedString(n)` |
//! | text, varchar, char | `String` | `Enum8`, `Enum16`, `FixedString(n)` |
//! | arrays | `String` of PostgreSQL's text | `Array(…)` of a type for the elements |
//! | json, interval, time, others | `String` of PostgreSQL's text | |
//!
//! All take `String` and `LowCardinality(String)`. A type is accepted where some values of the
//! column stand in it exactly; [`super::cells`] judges each value.

use super::literal;
use super::syntax::{call, split_commas, string_literal};
use crate::value::Type;
use std::fmt;
use std::sync::Arc;

/// A `ClickHouse` type that walview writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChType {
    Bool,
    /// Bits: 8, 16, 32, 64, 128 or 256.
    Int(u16),
    UInt(u16),
    Float32,
    Float64,
    /// Precision 1 to 76, scale 0 to the precision.
    Decimal(u8, u8),
    String,
    LowCardinality,
    /// Bytes, no fewer and no more.
    FixedString(u32),
    Enum(Labels),
    Date,
    Date32,
    /// Whole seconds of 32 bits.
    DateTime(Zone),
    /// Digits after the second's point, 0 to 9.
    DateTime64(u8, Zone),
    Uuid,
    /// Of PostgreSQL's arrays, one in another for each dimension; itself never Nullable.
    Array(Box<ColumnType>),
}

/// The time zone that a column is shown in; without one the server's.
pub type Zone = Option<Arc<str>>;

/// The labels of an `Enum8` or `Enum16`, by number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labels {
    wide: bool,
    labels: Arc<[(Box<str>, i16)]>,
}

impl Labels {
    pub(super) fn number(&self, label: &str) -> Option<i16> {
        self.labels.iter().find(|(known, _)| **known == *label).map(|(_, number)| *number)
    }

    pub(super) fn label(&self, number: i64) -> Option<&str> {
        let found = self.labels.iter().find(|(_, known)| i64::from(*known) == number);
        found.map(|(label, _)| &**label)
    }

    /// What stands in a column without NULL where there is no value.
    #[must_use]
    pub fn first(&self) -> i16 {
        self.labels.first().map_or(0, |(_, number)| *number)
    }
}

impl fmt::Display for ChType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool => f.write_str("Bool"),
            Self::Int(bits) => write!(f, "Int{bits}"),
            Self::UInt(bits) => write!(f, "UInt{bits}"),
            Self::Float32 => f.write_str("Float32"),
            Self::Float64 => f.write_str("Float64"),
            Self::Decimal(precision, scale) => write!(f, "Decimal({precision}, {scale})"),
            Self::String => f.write_str("String"),
            Self::LowCardinality => f.write_str("LowCardinality(String)"),
            Self::FixedString(bytes) => write!(f, "FixedString({bytes})"),
            Self::Enum(Labels { wide, labels }) => {
                f.write_str(if *wide { "Enum16(" } else { "Enum8(" })?;
                for (index, (label, number)) in labels.iter().enumerate() {
                    let comma = if index == 0 { "" } else { ", " };
                    write!(f, "{comma}{} = {number}", literal(label))?;
                }
                f.write_str(")")
            }
            Self::Date => f.write_str("Date"),
            Self::Date32 => f.write_str("Date32"),
            Self::DateTime(None) => f.write_str("DateTime"),
            Self::DateTime(Some(zone)) => write!(f, "DateTime({})", literal(zone)),
            Self::DateTime64(digits, None) => write!(f, "DateTime64({digits})"),
            Self::DateTime64(digits, Some(zone)) => {
                write!(f, "DateTime64({digits}, {})", literal(zone))
            }
            Self::Uuid => f.write_str("UUID"),
            Self::Array(items) => write!(f, "Array({items})"),
        }
    }
}

/// A type as a column has it, or the items of an `Array`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnType {
    pub ty: ChType,
    pub nullable: bool,
}

impl fmt::Display for ColumnType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.nullable, &self.ty) {
            (false, ty) => ty.fmt(f),
            (true, ChType::LowCardinality) => f.write_str("LowCardinality(Nullable(String))"),
            (true, ty) => write!(f, "Nullable({ty})"),
        }
    }
}

impl ColumnType {
    /// A type as `ClickHouse` prints it; `None` where walview does not write it.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let plain = |ty| Self { ty, nullable: false };
        let (name, arguments) = call(text)?;
        match (name, arguments) {
            ("Nullable", Some(inner)) => {
                let inner = Self::parse(inner)?;
                let whole = matches!(inner.ty, ChType::LowCardinality | ChType::Array(_));
                let may = !inner.nullable && !whole;
                may.then_some(Self { nullable: true, ..inner })
            }
            ("LowCardinality", Some(inner)) => {
                let inner = Self::parse(inner)?;
                let string = inner.ty == ChType::String;
                string.then_some(Self { ty: ChType::LowCardinality, ..inner })
            }
            ("Array", Some(inner)) => {
                Self::parse(inner).map(|items| plain(ChType::Array(Box::new(items))))
            }
            (_, None) => parse_plain(name).map(plain),
            (_, Some(arguments)) => parse_call(name, &split_commas(arguments)).map(plain),
        }
    }
}

fn parse_plain(name: &str) -> Option<ChType> {
    let bits = |text: &str| {
        let bits = text.parse::<u16>().ok().filter(|bits| [8, 16, 32, 64, 128, 256].contains(bits));
        bits.filter(|bits| bits.to_string() == text)
    };
    Some(match name {
        "Bool" => ChType::Bool,
        "Float32" => ChType::Float32,
        "Float64" => ChType::Float64,
        "String" => ChType::String,
        "Date" => ChType::Date,
        "Date32" => ChType::Date32,
        "DateTime" => ChType::DateTime(None),
        "DateTime64" => ChType::DateTime64(3, None),
        "UUID" => ChType::Uuid,
        name => match name.strip_prefix('U') {
            Some(signed) => ChType::UInt(bits(signed.strip_prefix("Int")?)?),
            None => ChType::Int(bits(name.strip_prefix("Int")?)?),
        },
    })
}

fn parse_call(name: &str, arguments: &[&str]) -> Option<ChType> {
    let zone = |text: &str| Some(Some(Arc::from(string_literal(text)?.as_str())));
    match (name, arguments) {
        ("Decimal", [precision]) => decimal(precision.parse().ok()?, 0),
        ("Decimal", [precision, scale]) => decimal(precision.parse().ok()?, scale.parse().ok()?),
        ("Decimal32", [scale]) => decimal(9, scale.parse().ok()?),
        ("Decimal64", [scale]) => decimal(18, scale.parse().ok()?),
        ("Decimal128", [scale]) => decimal(38, scale.parse().ok()?),
        ("Decimal256", [scale]) => decimal(76, scale.parse().ok()?),
        ("FixedString", [bytes]) => {
            bytes.parse().ok().filter(|bytes| *bytes > 0).map(ChType::FixedString)
        }
        ("DateTime", [text]) => Some(ChType::DateTime(zone(text)?)),
        ("DateTime64", [digits, rest @ ..]) => {
            let digits = digits.parse().ok().filter(|digits| *digits <= 9)?;
            match rest {
                [] => Some(ChType::DateTime64(digits, None)),
                [text] => Some(ChType::DateTime64(digits, zone(text)?)),
                _ => None,
            }
        }
        ("Enum8", labels) => parse_labels(false, labels),
        ("Enum16", labels) => parse_labels(true, labels),
        ("Enum", labels) => parse_labels(false, labels).or_else(|| parse_labels(true, labels)),
        _ => None,
    }
}

/// `'a' = 1` or `'a'`, which goes on from the one before, the first at 1.
fn parse_labels(wide: bool, texts: &[&str]) -> Option<ChType> {
    let mut labels: Vec<(Box<str>, i16)> = Vec::with_capacity(texts.len());
    for text in texts {
        let numbered = text.rsplit_once('=').and_then(|(label, number)| {
            Some((string_literal(label)?, number.trim().parse::<i16>().ok()?))
        });
        let (label, number) = match numbered {
            Some(both) => both,
            None => {
                let next = labels.last().map_or(Some(1), |(_, last)| last.checked_add(1));
                (string_literal(text)?, next?)
            }
        };
        let known = labels.iter().any(|(other, n)| **other == *label || *n == number);
        if known || (!wide && i8::try_from(number).is_err()) {
            return None;
        }
        labels.push((label.into(), number));
    }
    labels.sort_by_key(|(_, number)| *number);
    let labels = labels.into();
    (!texts.is_empty()).then_some(ChType::Enum(Labels { wide, labels }))
}

fn decimal(precision: u8, scale: u8) -> Option<ChType> {
    let fits = (1..=DECIMAL_DIGITS_MAX).contains(&u16::from(precision)) && scale <= precision;
    fits.then_some(ChType::Decimal(precision, scale))
}

/// Digits of `ClickHouse`'s widest decimal.
const DECIMAL_DIGITS_MAX: u16 = 76;

/// Names of the zone in which a `timestamp` reads as PostgreSQL shows it.
const UTC: [&str; 3] = ["UTC", "Etc/UTC", "GMT"];

impl ChType {
    /// The type that a column gets unless `types:` says otherwise.
    ///
    /// # Errors
    /// Where `ClickHouse` has none that holds every value, with what to write instead.
    pub(super) fn default_for(ty: &Type, column: &str) -> Result<Self, String> {
        Ok(match ty {
            Type::Bool => Self::Bool,
            Type::Int2 => Self::Int(16),
            Type::Int4 => Self::Int(32),
            Type::Int8 => Self::Int(64),
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
            Type::Timestamp | Type::TimestampTz => Self::DateTime64(6, Some(Arc::from("UTC"))),
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

    /// Whether values of a column stand in this type as they are, those that it can hold.
    #[expect(clippy::wildcard_enum_match_arm, reason = "what is not named is not accepted")]
    pub(super) fn accepts(&self, ty: &Type) -> bool {
        // A declared scale says that fractions are meant to be there.
        let whole = match ty {
            Type::Int2 | Type::Int4 | Type::Int8 => true,
            Type::Numeric(scale) => scale.is_none_or(|(_, scale)| scale <= 0),
            _ => false,
        };
        let text = matches!(ty, Type::Text | Type::Varchar(_) | Type::Char(_) | Type::Enum { .. });
        match self {
            Self::String | Self::LowCardinality => true,
            Self::Bool => *ty == Type::Bool,
            Self::UInt(8) => whole || *ty == Type::Bool,
            Self::Int(_) | Self::UInt(_) => whole,
            Self::Decimal(..) => whole || matches!(ty, Type::Numeric(_)),
            Self::Float32 => *ty == Type::Float4,
            Self::Float64 => matches!(ty, Type::Float4 | Type::Float8),
            Self::FixedString(_) => text || *ty == Type::Bytea,
            Self::Enum(_) => text,
            Self::Date | Self::Date32 => *ty == Type::Date,
            Self::DateTime(zone) | Self::DateTime64(_, zone) => match ty {
                // An instant is the same in every zone; a wall clock's time is not.
                Type::TimestampTz => true,
                Type::Timestamp => zone.as_ref().is_some_and(|zone| UTC.contains(&&**zone)),
                _ => false,
            },
            Self::Uuid => *ty == Type::Uuid,
            // How many dimensions a value has, PostgreSQL's type does not say.
            Self::Array(items) => match (ty.element(), &items.ty) {
                (Some(_), Self::Array(_)) => items.ty.accepts(ty),
                (Some(element), items) => items.accepts(element),
                (None, _) => false,
            },
        }
    }

    /// What walview makes does not depend on the server's zone.
    fn zoned(&mut self) {
        if let Self::DateTime(zone) | Self::DateTime64(_, zone) = self {
            zone.get_or_insert_with(|| Arc::from("UTC"));
        } else if let Self::Array(items) = self {
            items.ty.zoned();
        }
    }

    /// The type that `types:` asks for.
    ///
    /// # Errors
    /// Where it is not one that walview can write for the column.
    pub(super) fn asked(text: &str, ty: &Type, column: &str) -> Result<ColumnType, String> {
        let asked = ColumnType::parse(text).map(|mut asked| {
            asked.ty.zoned();
            asked
        });
        asked.filter(|asked| asked.ty.accepts(ty)).ok_or_else(|| {
            format!(
                "\"types\" asks for {text} for column \"{column}\", which walview cannot write \
                 there; it writes {}",
                accepted(ty)
            )
        })
    }
}

/// The types that a column of this type may have, for people.
pub(super) fn accepted(ty: &Type) -> String {
    let own = match ty {
        Type::Bool => "Bool, UInt8",
        Type::Int2 | Type::Int4 | Type::Int8 => "Int8…Int256, UInt8…UInt256, Decimal(p, s)",
        Type::Numeric(Some((_, scale))) if *scale > 0 => "Decimal(p, s)",
        Type::Numeric(_) => "Decimal(p, s), Int8…Int256, UInt8…UInt256",
        Type::Float4 => "Float32, Float64",
        Type::Float8 => "Float64",
        Type::Date => "Date32, Date",
        Type::Timestamp => "DateTime64(p, 'UTC'), DateTime('UTC')",
        Type::TimestampTz => "DateTime64(p), DateTime in any time zone",
        Type::Uuid => "UUID",
        Type::Text | Type::Varchar(_) | Type::Char(_) | Type::Enum { .. } => {
            "Enum8(…), Enum16(…), FixedString(n)"
        }
        Type::Bytea => "FixedString(n)",
        Type::Other { carried, .. } if carried.element.is_some() => "Array(…) of its elements",
        Type::Time | Type::Interval | Type::Json | Type::Jsonb | Type::Other { .. } => {
            return "String, LowCardinality(String)".to_owned();
        }
    };
    format!("{own}, String, LowCardinality(String)")
}

/// `numeric(3, -2)` holds 12300; `numeric(2, 5)` holds 0.00012.
fn decimal_for(precision: u16, scale: i16) -> Option<ChType> {
    let (precision, scale) = match u16::try_from(scale) {
        Ok(scale) => (precision.max(scale), scale),
        Err(_) => (precision.checked_add(scale.unsigned_abs())?, 0),
    };
    decimal(u8::try_from(precision).ok()?, u8::try_from(scale).ok()?)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a type that does not parse fails its test")]

    use super::*;
    use crate::value::Carried;

    #[test]
    fn types_read_as_they_print() {
        for text in [
            "Bool",
            "Int8",
            "UInt256",
            "Nullable(Decimal(76, 38))",
            "LowCardinality(Nullable(String))",
            "FixedString(3)",
            "Enum8('b,(c' = -2, 'O\\'P' = 1)",
            "Enum16('' = 300)",
            "DateTime",
            "DateTime64(3)",
            "Nullable(DateTime64(9, 'Europe/Paris'))",
            "UUID",
            "Date32",
            "Array(Nullable(Int32))",
            "Array(Array(DateTime64(6, 'UTC')))",
        ] {
            assert_eq!(ColumnType::parse(text).unwrap().to_string(), text);
        }
        for (text, printed) in [
            ("Decimal64(4)", "Decimal(18, 4)"),
            ("Nullable( Decimal( 9 ) )", "Nullable(Decimal(9, 0))"),
            ("Enum('b' = 5, 'a' = 0, 'c')", "Enum8('a' = 0, 'c' = 1, 'b' = 5)"),
            ("Enum('a', 'b' = 128)", "Enum16('a' = 1, 'b' = 128)"),
        ] {
            assert_eq!(ColumnType::parse(text).unwrap().to_string(), printed);
        }
        for text in [
            "Int7",
            "Int+8",
            "UInt512",
            "Array(JSON)",
            "Nullable(Array(String))",
            "Array(String, String)",
            "Nullable(Nullable(String))",
            "LowCardinality(UInt8)",
            "Nullable(LowCardinality(String))",
            "Decimal(77, 2)",
            "Decimal(3, 4)",
            "DateTime64(10)",
            "Enum8('a' = 128)",
            "Enum8('a' = 1, 'a' = 2)",
            "Enum8('b', 'a' = 0, 'c')",
            "Enum8()",
            "FixedString(0)",
            "JSON",
            "SimpleAggregateFunction(sum, UInt64)",
            "",
        ] {
            assert_eq!(ColumnType::parse(text), None, "{text}");
        }
    }

    #[test]
    fn what_no_value_of_stands_there_is_refused() {
        let accepts = |text: &str, ty: &Type| ColumnType::parse(text).unwrap().ty.accepts(ty);
        assert!(!accepts("Int64", &Type::Numeric(Some((12, 2)))));
        assert!(accepts("UInt256", &Type::Numeric(Some((78, 0)))));
        assert!(!accepts("Float64", &Type::Numeric(None)) && !accepts("Float64", &Type::Int4));
        assert!(!accepts("Float32", &Type::Float8) && accepts("Float64", &Type::Float4));
        // A wall clock's time reads otherwise in another zone; an instant does not.
        assert!(!accepts("DateTime64(3)", &Type::Timestamp));
        assert!(!accepts("DateTime64(3, 'Europe/Paris')", &Type::Timestamp));
        assert!(accepts("DateTime('Etc/UTC')", &Type::Timestamp));
        assert!(accepts("DateTime64(3, 'Europe/Paris')", &Type::TimestampTz));
        assert!(!accepts("DateTime", &Type::Date) && !accepts("Date", &Type::TimestampTz));
        assert!(!accepts("Bool", &Type::Int2) && !accepts("UUID", &Type::Text));
        let carried = Carried { element: Some(Box::new(Type::Int4)), ..Carried::default() };
        let array = Type::Other { oid: 1007, name: "integer[]".to_owned(), carried };
        assert!(accepts("Array(Int32)", &array) && accepts("Array(Array(Nullable(Int8)))", &array));
        assert!(!accepts("Array(UUID)", &array) && !accepts("Array(Int32)", &Type::Int4));
        assert!(!accepts("FixedString(4)", &Type::Jsonb) && accepts("String", &Type::Interval));
    }
}
