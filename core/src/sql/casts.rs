//! Which explicit casts a view may contain.
//!
//! PostgreSQL casts through `pg_cast` or through text. Refused are those whose meaning depends on
//! more than the value (dates written in text follow `DateStyle`; `now` hides in them) and those
//! that Walview does not compute.

use super::types::Base;
use crate::value::Type;

pub(super) struct Refusal {
    /// Follows "a cast from a to b".
    pub(super) message: &'static str,
    pub(super) remedy: &'static str,
}

pub(super) fn explicit(from: Base, to: Base) -> Result<(), Refusal> {
    use Base::{
        Bool, Date, Enum, Int4, Interval, Json, Jsonb, Other, Text, Time, Timestamp, TimestampTz,
        Uuid, Varchar,
    };
    let no_such = Err(Refusal { message: "does not exist", remedy: "" });
    if from == Other || to == Other {
        return Err(Refusal {
            message: "is not computed",
            remedy: "such a column may be shown, counted and tested for NULL",
        });
    }
    if from == to || to.is_string() {
        return Ok(());
    }
    if from.is_number() && to.is_number() {
        return Ok(());
    }
    match (from, to) {
        (Bool, Int4) | (Int4, Bool) => Ok(()),
        (Date | Timestamp | TimestampTz, Date | Timestamp | TimestampTz)
        | (Timestamp | TimestampTz | Interval, Time)
        | (Time, Interval) => Ok(()),
        (from, Date | Time | Timestamp | TimestampTz | Interval) if from.is_string() => {
            Err(Refusal {
                message: "depends on the server's date settings",
                remedy: "store it in a column of that type",
            })
        }
        (from, Json | Jsonb) if from.is_string() => {
            Err(Refusal { message: "is not accepted", remedy: "store it in a json column" })
        }
        (Jsonb, Json) => Ok(()),
        (Jsonb, to) if to == Bool || to.is_number() => Ok(()),
        (Json, Jsonb) => {
            Err(Refusal { message: "is not accepted", remedy: "use the column as it is" })
        }
        (Text | Varchar | Base::Bpchar, Bool | Uuid | Enum) => Ok(()),
        (from, to) if from.is_string() && to.is_number() => Ok(()),
        (from, Base::Bytea) if from.is_string() => {
            Err(Refusal { message: "is not accepted", remedy: "store it in a bytea column" })
        }
        _ => no_such,
    }
}

/// For a literal that its type does not take.
pub(super) fn literal_remedy(ty: &Type) -> String {
    match ty {
        Type::Date | Type::Time | Type::Timestamp | Type::TimestampTz => {
            "write it as PostgreSQL prints it: 2026-01-31 23:59:59".to_owned()
        }
        Type::Enum { labels, .. } => {
            let labels: Vec<String> = labels.iter().map(|label| format!("'{label}'")).collect();
            format!("labels: {}", labels.join(", "))
        }
        Type::Interval => "write it as 1 day 02:30:00".to_owned(),
        Type::Bool
        | Type::Int2
        | Type::Int4
        | Type::Int8
        | Type::Float4
        | Type::Float8
        | Type::Numeric(_)
        | Type::Text
        | Type::Varchar(_)
        | Type::Char(_)
        | Type::Bytea
        | Type::Uuid
        | Type::Json
        | Type::Jsonb
        | Type::Other { .. } => String::new(),
    }
}
