//! `unfit: text`: a value that its column cannot hold stands as text beside it, and the row stays.
//!
//! The table has one column more, [`UNFIT`]: empty where every value of the row fits, else a JSON
//! object of the columns whose value does not, each with its text as in Redis. Such a column is
//! NULL then (an array is empty), so every column that may be unfit is Nullable; what stands in the
//! sorting key cannot be, and still parks its row.

use super::super::format::{write_json_string, write_text};
use super::types::ChType;
use super::{Column, Field, RenderError, Target, put_bytes, value_of};
use crate::value::{Type, Value};

/// The name of the column that holds the texts.
pub const UNFIT: &str = "_unfit";

/// What it is, for whoever reads the table.
pub(super) const UNFIT_COMMENT: &str =
    "JSON: the values that their columns cannot hold, as text; empty where all fit";

/// The column itself.
pub(super) fn column() -> Column {
    Column {
        name: UNFIT.to_owned(),
        ty: ChType::String,
        nullable: false,
        ordered: false,
        shown: true,
    }
}

impl ChType {
    /// Whether every value of the type stands in this one; where in doubt, no.
    pub(super) fn holds_all(&self, ty: &Type) -> bool {
        let held = [(Type::Int2, 16), (Type::Int4, 32), (Type::Int8, 64)];
        let bits = held.iter().find(|(int, _)| int == ty).map_or(u16::MAX, |(_, bits)| *bits);
        match self {
            Self::String | Self::LowCardinality | Self::Bool | Self::Uuid => true,
            Self::Float32 | Self::Float64 => true,
            Self::Int(wide) => *wide >= bits,
            Self::UInt(_) => *ty == Type::Bool,
            Self::Decimal(..)
            | Self::FixedString(_)
            | Self::Enum(_)
            | Self::Date
            | Self::Date32
            | Self::DateTime(_)
            | Self::DateTime64(..)
            | Self::Array(_) => false,
        }
    }
}

/// The texts of one row.
#[derive(Default)]
pub(super) struct Texts(String);

impl Texts {
    fn add(&mut self, field: &Field, value: &Value) {
        self.0.push(if self.0.is_empty() { '{' } else { ',' });
        write_json_string(&field.name, &mut self.0);
        self.0.push(':');
        let mut text = String::new();
        write_text(value, &field.ty, &mut text);
        write_json_string(&text, &mut self.0);
    }

    /// Appends the value of the column [`UNFIT`].
    pub(super) fn put(mut self, out: &mut Vec<u8>) {
        if !self.0.is_empty() {
            self.0.push('}');
        }
        out.push(1);
        put_bytes(out, self.0.as_bytes());
    }
}

impl Target {
    /// Appends a value that is not in the sorting key; its text where it does not fit and the target
    /// says so.
    pub(super) fn put_or_text(
        &self,
        column: &Column,
        field: &Field,
        row: &[Value],
        texts: &mut Texts,
        out: &mut Vec<u8>,
    ) -> Result<(), RenderError> {
        let start = out.len();
        let error = match self.put(column, field, row, out) {
            Err(error @ RenderError::Unfit { .. }) if self.unfit && !column.ordered => error,
            done => return done,
        };
        out.truncate(start);
        if let ChType::Array(_) = column.ty {
            out.push(1);
            put_bytes(out, &[]);
        } else if column.nullable {
            out.push(0);
        } else {
            // A table of the user's own may say that it is never NULL.
            return Err(error);
        }
        texts.add(field, value_of(row, field));
        Ok(())
    }
}
