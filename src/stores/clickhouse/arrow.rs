//! Operations as Arrow columns.

use arrow_array::builder::{
    BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder, Decimal256Builder,
    FixedSizeBinaryBuilder, Float32Builder, Float64Builder, Int16Builder, Int32Builder,
    Int64Builder, TimestampMicrosecondBuilder, UInt8Builder, UInt64Builder,
};
use arrow_array::{ArrayRef, ListArray, RecordBatch};
use arrow_buffer::{OffsetBuffer, i256};
use arrow_schema::{ArrowError, DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};
use std::sync::Arc;
use walview_core::target::clickhouse::{Cell, ChType, ColumnType, META_COLUMNS, OpRef, Target};
use walview_core::target::codec::CodecError;

/// PostgreSQL's epoch in microseconds since 1970.
const EPOCH_MICROS: i64 = 946_684_800_000_000;

/// Microseconds since 1970; a time that no server has (its clock is off by ages) reads as 1970.
pub(super) fn unix_micros(micros: i64) -> i64 {
    micros.checked_add(EPOCH_MICROS).filter(|unix| *unix >= 0).unwrap_or(0)
}

/// A batch under construction.
pub(super) struct Batch {
    schema: SchemaRef,
    columns: Vec<Builder>,
    nullable: Vec<bool>,
    versions: FixedSizeBinaryBuilder,
    deleted: UInt8Builder,
    committed_at: TimestampMicrosecondBuilder,
}

impl Batch {
    pub(super) fn new(target: &Target) -> Self {
        let mut fields: Vec<Field> = target
            .columns()
            .iter()
            .map(|column| Field::new(&column.name, data_type(&column.ty), column.nullable))
            .collect();
        let meta_types = [DataType::FixedSizeBinary(16), DataType::UInt8, timestamp()];
        for (name, ty) in META_COLUMNS.into_iter().zip(meta_types) {
            fields.push(Field::new(name, ty, false));
        }
        Self {
            schema: Arc::new(Schema::new(fields)),
            columns: target.columns().iter().map(|column| Builder::new(&column.ty)).collect(),
            nullable: target.columns().iter().map(|column| column.nullable).collect(),
            versions: FixedSizeBinaryBuilder::new(16),
            deleted: UInt8Builder::new(),
            committed_at: TimestampMicrosecondBuilder::new().with_timezone("UTC"),
        }
    }

    pub(super) fn push(&mut self, target: &Target, op: &OpRef<'_>) -> Result<(), CodecError> {
        let (columns, nullable) = (&mut self.columns, &self.nullable);
        let mut appended = Ok(());
        target.cells(op, |index, cell| {
            if let (Some(builder), Some(nullable)) = (columns.get_mut(index), nullable.get(index)) {
                // What a tombstone does not say, nobody sees.
                let done = builder.append(cell.unwrap_or(Cell::Null), *nullable);
                if appended.is_ok() {
                    appended = done;
                }
            }
        })?;
        appended?;
        // The length is the builder's own.
        self.versions.append_value(op.version.to_le_bytes()).ok();
        self.deleted.append_value(op.deleted.into());
        self.committed_at.append_value(unix_micros(op.committed_at));
        Ok(())
    }

    pub(super) fn finish(&mut self) -> Result<RecordBatch, ArrowError> {
        let mut arrays: Vec<ArrayRef> = self.columns.iter_mut().map(Builder::finish).collect();
        arrays.push(Arc::new(self.versions.finish()));
        arrays.push(Arc::new(self.deleted.finish()));
        arrays.push(Arc::new(self.committed_at.finish()));
        RecordBatch::try_new(Arc::clone(&self.schema), arrays)
    }
}

fn timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// What a column is sent as. Where Arrow has no type of the column's own, or none that is worth a
/// builder, a wider one goes: `ClickHouse` casts, and the value was judged before it was encoded.
fn data_type(ty: &ChType) -> DataType {
    match ty {
        ChType::Bool => DataType::Boolean,
        ChType::Int(8 | 16) | ChType::Enum(_) => DataType::Int16,
        ChType::Int(32) | ChType::UInt(8 | 16) => DataType::Int32,
        ChType::Int(64) | ChType::UInt(32) => DataType::Int64,
        ChType::UInt(64) => DataType::UInt64,
        ChType::Int(bits) | ChType::UInt(bits) => {
            DataType::FixedSizeBinary((bits / 8).cast_signed().into())
        }
        ChType::Float32 => DataType::Float32,
        ChType::Float64 => DataType::Float64,
        ChType::Decimal(precision, scale) if *precision <= 38 => {
            DataType::Decimal128(*precision, scale.cast_signed())
        }
        ChType::Decimal(precision, scale) => DataType::Decimal256(*precision, scale.cast_signed()),
        // ClickHouse's strings are bytes; a UUID goes as its text, which it casts.
        ChType::String | ChType::LowCardinality | ChType::FixedString(_) | ChType::Uuid => {
            DataType::Binary
        }
        ChType::Date | ChType::Date32 => DataType::Date32,
        ChType::DateTime(_) | ChType::DateTime64(..) => timestamp(),
        ChType::Array(items) => DataType::List(item_field(items)),
    }
}

/// What the items of a list are, for Arrow.
fn item_field(items: &ColumnType) -> FieldRef {
    Arc::new(Field::new("item", data_type(&items.ty), items.nullable))
}

enum Builder {
    Bool(BooleanBuilder),
    Int16(Int16Builder),
    Int32(Int32Builder),
    Int64(Int64Builder),
    UInt64(UInt64Builder),
    /// With its bytes for each value.
    Wide(FixedSizeBinaryBuilder, usize),
    Float32(Float32Builder),
    Float64(Float64Builder),
    Decimal128(Decimal128Builder),
    Decimal256(Decimal256Builder),
    Bytes(BinaryBuilder),
    Uuid(BinaryBuilder),
    Date32(Date32Builder),
    Timestamp(TimestampMicrosecondBuilder),
    /// Numbers of labels, and the one that stands where there is no value.
    Label(Int16Builder, i16),
    List(Box<List>),
}

/// Items of all rows one behind the other, and where each row's end.
struct List {
    ty: ChType,
    field: FieldRef,
    nullable: bool,
    items: Builder,
    lengths: Vec<usize>,
}

/// The text of the nil UUID.
const UUID_NIL: &str = "00000000-0000-0000-0000-000000000000";

impl Builder {
    fn new(column: &ChType) -> Self {
        let ty = data_type(column);
        match (column, &ty) {
            (ChType::Array(items), _) => Self::List(Box::new(List {
                ty: column.clone(),
                field: item_field(items),
                nullable: items.nullable,
                items: Self::new(&items.ty),
                lengths: Vec::new(),
            })),
            (ChType::Enum(labels), _) => Self::Label(Int16Builder::new(), labels.first()),
            (ChType::Uuid, _) => Self::Uuid(BinaryBuilder::new()),
            (_, DataType::Boolean) => Self::Bool(BooleanBuilder::new()),
            (_, DataType::Int16) => Self::Int16(Int16Builder::new()),
            (_, DataType::Int32) => Self::Int32(Int32Builder::new()),
            (_, DataType::Int64) => Self::Int64(Int64Builder::new()),
            (_, DataType::UInt64) => Self::UInt64(UInt64Builder::new()),
            (_, DataType::FixedSizeBinary(size)) => {
                let bytes = usize::try_from(*size).unwrap_or_default();
                Self::Wide(FixedSizeBinaryBuilder::new(*size), bytes)
            }
            (_, DataType::Float32) => Self::Float32(Float32Builder::new()),
            (_, DataType::Float64) => Self::Float64(Float64Builder::new()),
            (_, DataType::Decimal128(..)) => {
                Self::Decimal128(Decimal128Builder::new().with_data_type(ty))
            }
            (_, DataType::Decimal256(..)) => {
                Self::Decimal256(Decimal256Builder::new().with_data_type(ty))
            }
            (_, DataType::Date32) => Self::Date32(Date32Builder::new()),
            (_, DataType::Timestamp(..)) => {
                Self::Timestamp(TimestampMicrosecondBuilder::new().with_timezone("UTC"))
            }
            _ => Self::Bytes(BinaryBuilder::new()),
        }
    }

    /// A NULL in a column without NULL is the type's default. Cells are of their column's type by
    /// construction, and integers were range-checked where they were encoded.
    #[expect(clippy::wildcard_enum_match_arm, reason = "a cell of another type cannot stand there")]
    fn append(&mut self, cell: Cell<'_>, nullable: bool) -> Result<(), CodecError> {
        let null = matches!(cell, Cell::Null) && nullable;
        let int = match cell {
            Cell::Int(value) => value,
            // Up to 32 bits go as signed integers.
            Cell::UInt(value) => value.try_into().unwrap_or_default(),
            _ => 0,
        };
        match self {
            Self::Bool(b) => b.append_option((!null).then_some(matches!(cell, Cell::Bool(true)))),
            Self::Int16(b) => b.append_option((!null).then(|| int.try_into().unwrap_or_default())),
            Self::Int32(b) => b.append_option((!null).then(|| int.try_into().unwrap_or_default())),
            Self::Int64(b) => b.append_option((!null).then_some(int)),
            Self::UInt64(b) => b.append_option(match cell {
                Cell::UInt(value) => Some(value),
                _ => (!null).then_some(0),
            }),
            Self::Label(b, first) => b.append_option(match cell {
                Cell::Int(value) => value.try_into().ok(),
                _ => (!null).then_some(*first),
            }),
            Self::Wide(b, size) => {
                let bytes = if let Cell::Wide(bytes) = cell { bytes } else { [0; 32] };
                match bytes.get(..*size) {
                    // The length is the builder's own.
                    Some(bytes) if !null => b.append_value(bytes).unwrap_or_default(),
                    _ => b.append_null(),
                }
            }
            Self::Date32(b) => b.append_option((!null).then(|| int.try_into().unwrap_or_default())),
            Self::Timestamp(b) => b.append_option((!null).then_some(int)),
            Self::Float32(b) => b.append_option(match cell {
                Cell::Float32(value) => Some(value),
                _ => (!null).then_some(0.0),
            }),
            Self::Float64(b) => b.append_option(match cell {
                Cell::Float64(value) => Some(value),
                _ => (!null).then_some(0.0),
            }),
            Self::Decimal128(b) => b.append_option(match cell {
                Cell::Decimal128(value) => Some(value),
                _ => (!null).then_some(0),
            }),
            Self::Decimal256(b) => b.append_option(match cell {
                Cell::Decimal256(bytes) => Some(i256::from_le_bytes(bytes)),
                _ => (!null).then_some(i256::ZERO),
            }),
            Self::Bytes(b) => b.append_option(match cell {
                Cell::Bytes(bytes) => Some(bytes),
                _ => (!null).then_some(b"".as_slice()),
            }),
            Self::Uuid(b) => match cell {
                Cell::Uuid(bytes) => b.append_value(uuid_text(bytes)),
                _ => b.append_option((!null).then_some(UUID_NIL.as_bytes())),
            },
            Self::List(list) => return list.append(cell),
        }
        Ok(())
    }

    fn finish(&mut self) -> ArrayRef {
        match self {
            Self::Bool(b) => Arc::new(b.finish()),
            Self::Int16(b) | Self::Label(b, _) => Arc::new(b.finish()),
            Self::Int32(b) => Arc::new(b.finish()),
            Self::Int64(b) => Arc::new(b.finish()),
            Self::UInt64(b) => Arc::new(b.finish()),
            Self::Wide(b, _) => Arc::new(b.finish()),
            Self::Float32(b) => Arc::new(b.finish()),
            Self::Float64(b) => Arc::new(b.finish()),
            Self::Decimal128(b) => Arc::new(b.finish()),
            Self::Decimal256(b) => Arc::new(b.finish()),
            Self::Bytes(b) | Self::Uuid(b) => Arc::new(b.finish()),
            Self::Date32(b) => Arc::new(b.finish()),
            Self::Timestamp(b) => Arc::new(b.finish()),
            Self::List(list) => list.finish(),
        }
    }
}

impl List {
    /// What a tombstone does not say is an empty array.
    fn append(&mut self, cell: Cell<'_>) -> Result<(), CodecError> {
        let mut length = 0;
        if let Cell::Array(items) = cell {
            let (builder, nullable) = (&mut self.items, self.nullable);
            let mut nested = Ok(());
            self.ty.items(items, |_, cell| {
                length += 1;
                if nested.is_ok() {
                    nested = builder.append(cell, nullable);
                }
            })?;
            nested?;
        }
        self.lengths.push(length);
        Ok(())
    }

    fn finish(&mut self) -> ArrayRef {
        let offsets = OffsetBuffer::from_lengths(std::mem::take(&mut self.lengths));
        Arc::new(ListArray::new(Arc::clone(&self.field), offsets, self.items.finish(), None))
    }
}

/// Lower case, with hyphens.
fn uuid_text(bytes: [u8; 16]) -> [u8; 36] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [b'-'; 36];
    let mut places = text
        .iter_mut()
        .enumerate()
        .filter(|(index, _)| !matches!(index, 8 | 13 | 18 | 23))
        .map(|(_, place)| place);
    for byte in bytes {
        for digit in [byte >> 4, byte & 0xF] {
            if let (Some(place), Some(digit)) = (places.next(), DIGITS.get(usize::from(digit))) {
                *place = *digit;
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uuids_print_as_postgresql_prints_them() {
        let bytes = 0x0011_2233_4455_6677_8899_AABB_CCDD_EEFF_u128.to_be_bytes();
        assert_eq!(&uuid_text(bytes), b"00112233-4455-6677-8899-aabbccddeeff");
    }
}
