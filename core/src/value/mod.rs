//! Values and types of PostgreSQL, exact to the last digit.
//!
//! One `Value` holds what one column of one row holds. Everything that reads or prints values
//! (pgoutput, COPY, literals in SQL, Redis, `ClickHouse`) goes through this module, so
//! that a snapshot and the stream give the same bytes.
//!
//! ```text
//!  pgoutput, COPY, SQL literal ── text, binary ──► Value ──┬─ text::write_text ──► psql's text
//!                                                          ├─ row  ──► state, outbox (exact)
//!                                                          └─ key  ──► ordered keys (by equality)
//! ```

use compact_str::CompactString;
use serde::{Deserialize, Serialize};

/// A type as a column or an expression has it, with its modifier where that changes values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Type {
    Bool,
    Int2,
    Int4,
    Int8,
    Float4,
    Float8,
    /// `numeric(precision, scale)`; `None` is unconstrained. The scale may be negative.
    Numeric(Option<(u16, i16)>),
    Text,
    /// `varchar(n)` in characters; `None` without a limit.
    Varchar(Option<u32>),
    /// `char(n)`: padded with blanks to n characters, compared without them.
    Char(u32),
    Bytea,
    Date,
    Time,
    Timestamp,
    TimestampTz,
    Interval,
    Uuid,
    Json,
    Jsonb,
    /// An enum type: values are `Value::Text` labels; the order is the labels' order.
    Enum {
        oid: u32,
        name: String,
        labels: Vec<String>,
    },
    /// A type that Walview carries as PostgreSQL's text and does not compute with.
    Other {
        oid: u32,
        name: String,
        #[serde(default)]
        carried: Carried,
    },
}

/// What may be done with the text of a [`Type::Other`]. By default it may be shown and counted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Carried {
    /// Two values are equal in PostgreSQL where their texts are, and only there.
    pub canonical: bool,
    /// `x::text` is in PostgreSQL the text that is carried: no function of the type's own makes it.
    pub castable: bool,
    /// It has columns: `IS NULL` asks for each of them, which the text does not answer.
    pub composite: bool,
    /// The text names an object of the database (`regclass`, a role): it changes when that is
    /// renamed, and nothing is sent.
    pub names_objects: bool,
    /// The type of an array's elements.
    pub element: Option<Box<Type>>,
}

impl Type {
    /// What may be done with a type that is carried as text.
    #[must_use]
    pub fn carried(&self) -> Option<&Carried> {
        if let Self::Other { carried, .. } = self { Some(carried) } else { None }
    }

    /// The type of an array's elements.
    #[must_use]
    pub fn element(&self) -> Option<&Self> {
        self.carried()?.element.as_deref()
    }
}

/// A value. Which variant stands for which type: `Int` for int2, int4 and int8; `Text` for text,
/// varchar, char (with its padding), enum labels, json, jsonb (PostgreSQL's text of it) and
/// `Type::Other`.
///
/// `==` is *identity*: would a reader see the same? 1.5 and 1.50 differ, -0 and 0 differ, NaN is
/// NaN. What SQL calls equal is [`Value::compare`].
#[derive(Clone, Debug)]
pub enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Numeric(Numeric),
    Float4(f32),
    Float8(f64),
    Text(CompactString),
    Bytea(Vec<u8>),
    /// Days since 2000-01-01; `i32::MIN` and `i32::MAX` are -infinity and infinity, as on disk.
    Date(i32),
    /// Microseconds since midnight, 0 to 86,400,000,000.
    Time(i64),
    /// Microseconds since 2000-01-01 00:00; `i64::MIN` and `i64::MAX` are the infinities.
    Timestamp(i64),
    /// As `Timestamp`, in UTC.
    TimestampTz(i64),
    Interval(Interval),
    Uuid(u128),
}

/// As PostgreSQL stores it: the three parts do not convert into each other. From 17 the largest and
/// the smallest of all stand for the infinities.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interval {
    pub months: i32,
    pub days: i32,
    pub micros: i64,
}

impl Interval {
    pub const INFINITY: Self = Self { months: i32::MAX, days: i32::MAX, micros: i64::MAX };
    pub const NEGATIVE_INFINITY: Self = Self { months: i32::MIN, days: i32::MIN, micros: i64::MIN };

    #[must_use]
    pub fn is_infinite(&self) -> bool {
        *self == Self::INFINITY || *self == Self::NEGATIVE_INFINITY
    }
}

/// The columns of a row or a result, in the order of its plan.
pub type Row = Vec<Value>;

pub mod array;
mod binary;
pub mod datetime;
mod error;
mod float;
mod interval;
pub mod json;
pub mod key;
mod numeric;
mod order;
pub mod row;
mod text;

#[cfg(test)]
mod tests;

pub use error::{SqlState, ValueError};
pub use numeric::Numeric;
pub use text::{hex_into, uuid_into};
pub(crate) use text::{int_range, pad};

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Int(a), Self::Int(b))
            | (Self::Time(a), Self::Time(b))
            | (Self::Timestamp(a), Self::Timestamp(b))
            | (Self::TimestampTz(a), Self::TimestampTz(b)) => a == b,
            (Self::Numeric(a), Self::Numeric(b)) => a == b,
            (Self::Float4(a), Self::Float4(b)) => {
                a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan())
            }
            (Self::Float8(a), Self::Float8(b)) => {
                a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan())
            }
            (Self::Text(a), Self::Text(b)) => a == b,
            (Self::Bytea(a), Self::Bytea(b)) => a == b,
            (Self::Date(a), Self::Date(b)) => a == b,
            (Self::Interval(a), Self::Interval(b)) => a == b,
            (Self::Uuid(a), Self::Uuid(b)) => a == b,
            _ => false,
        }
    }
}

impl Eq for Value {}

impl Value {
    /// About how many bytes it takes: a function of the value, not of how it came here.
    #[must_use]
    pub fn weight(&self) -> usize {
        8 + match self {
            Self::Text(text) => text.len(),
            Self::Bytea(bytes) => bytes.len(),
            Self::Numeric(number) => number.weight(),
            Self::Null
            | Self::Bool(_)
            | Self::Int(_)
            | Self::Float4(_)
            | Self::Float8(_)
            | Self::Date(_)
            | Self::Time(_)
            | Self::Timestamp(_)
            | Self::TimestampTz(_)
            | Self::Interval(_)
            | Self::Uuid(_) => 0,
        }
    }

    #[must_use]
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }
}
