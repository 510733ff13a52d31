//! SQL's comparison of two values of one type.

use super::{Interval, Type, Value};
use std::cmp::Ordering;

/// Microseconds of a day.
pub(crate) const DAY_MICROS: i64 = 86_400_000_000;

impl Value {
    /// How PostgreSQL orders two values that are not NULL, under collation `C` for text. `ty` is the
    /// type of either: it says that `char(n)` ignores trailing blanks and how an enum's labels are
    /// ordered. `None` where the type has no order (json, jsonb, most types that are carried as
    /// text; of the others `Equal` and "not equal" mean something), a label is unknown, a value is
    /// NULL, or the two are of different kinds.
    ///
    /// Infinite dates and timestamps are beyond all others, NaN is above every number.
    #[must_use]
    pub fn compare(&self, other: &Self, ty: &Type) -> Option<Ordering> {
        Some(match (self, other) {
            (Self::Int(a), Self::Int(b))
            | (Self::Time(a), Self::Time(b))
            | (Self::Timestamp(a), Self::Timestamp(b))
            | (Self::TimestampTz(a), Self::TimestampTz(b)) => a.cmp(b),
            (Self::Text(a), Self::Text(b)) => return compare_text(a, b, ty),
            (Self::Numeric(a), Self::Numeric(b)) => a.compare(b),
            (Self::Bool(a), Self::Bool(b)) => a.cmp(b),
            (Self::Float4(a), Self::Float4(b)) => compare_floats(f64::from(*a), f64::from(*b)),
            (Self::Float8(a), Self::Float8(b)) => compare_floats(*a, *b),
            (Self::Float4(a), Self::Float8(b)) => compare_floats(f64::from(*a), *b),
            (Self::Float8(a), Self::Float4(b)) => compare_floats(*a, f64::from(*b)),
            (Self::Bytea(a), Self::Bytea(b)) => a.cmp(b),
            (Self::Date(a), Self::Date(b)) => a.cmp(b),
            (Self::Date(a), Self::Timestamp(b) | Self::TimestampTz(b)) => {
                widen_date(*a).cmp(&widen_timestamp(*b))
            }
            (Self::Timestamp(a) | Self::TimestampTz(a), Self::Date(b)) => {
                widen_timestamp(*a).cmp(&widen_date(*b))
            }
            // The session's zone is UTC.
            (Self::Timestamp(a), Self::TimestampTz(b))
            | (Self::TimestampTz(a), Self::Timestamp(b)) => a.cmp(b),
            (Self::Interval(a), Self::Interval(b)) => a.span().cmp(&b.span()),
            (Self::Uuid(a), Self::Uuid(b)) => a.cmp(b),
            _ => return None,
        })
    }
}

impl Interval {
    /// What PostgreSQL compares: microseconds, with months of 30 days and days of 24 hours.
    #[must_use]
    pub fn span(&self) -> i128 {
        let days = i128::from(self.months) * 30 + i128::from(self.days);
        days * i128::from(DAY_MICROS) + i128::from(self.micros)
    }
}

/// NaN equals NaN and is above infinity; -0 equals 0.
pub(crate) fn compare_floats(a: f64, b: f64) -> Ordering {
    a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()))
}

fn compare_text(a: &str, b: &str, ty: &Type) -> Option<Ordering> {
    match ty {
        Type::Char(_) => Some(a.trim_end_matches(' ').cmp(b.trim_end_matches(' '))),
        Type::Enum { labels, .. } => {
            let rank = |label: &str| labels.iter().position(|known| known == label);
            Some(rank(a)?.cmp(&rank(b)?))
        }
        // Equality only: the order of such texts is no order of PostgreSQL's.
        Type::Other { carried, .. } if carried.canonical => Some(a.cmp(b)),
        Type::Text | Type::Varchar(_) => Some(a.cmp(b)),
        Type::Bool
        | Type::Int2
        | Type::Int4
        | Type::Int8
        | Type::Float4
        | Type::Float8
        | Type::Numeric(_)
        | Type::Bytea
        | Type::Date
        | Type::Time
        | Type::Timestamp
        | Type::TimestampTz
        | Type::Interval
        | Type::Uuid
        | Type::Json
        | Type::Jsonb
        | Type::Other { .. } => None,
    }
}

fn widen_date(days: i32) -> i128 {
    match days {
        i32::MIN => i128::MIN,
        i32::MAX => i128::MAX,
        days => i128::from(days) * i128::from(DAY_MICROS),
    }
}

fn widen_timestamp(micros: i64) -> i128 {
    match micros {
        i64::MIN => i128::MIN,
        i64::MAX => i128::MAX,
        micros => i128::from(micros),
    }
}
