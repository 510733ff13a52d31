//! The binary operators of PostgreSQL 15 that views may use, as `pg_operator` lists them.
//!
//! Rows of types that Walview does not compute with are here for the choice only: an expression
//! that resolves to one of them is refused. The rows of types that neither side of an accepted
//! expression can have (boxes, ranges) are left out.

use super::ast::Op;
use super::types::Base::{
    self, AnyArray, AnyCompatible, AnyCompatibleArray, AnyEnum, AnyNonArray, Bool, Bpchar, Bytea,
    Date, Float4, Float8, Inet, Int2, Int4, Int8, Interval, Json, Jsonb, Money, Name, Numeric,
    PgLsn, Text, TextArray, Time, TimeTz, Timestamp, TimestampTz, Uuid, Xid,
};

/// Left, right, result.
pub(super) struct Operator {
    pub(super) args: [Base; 2],
    pub(super) result: Base,
}

const fn op(left: Base, right: Base, result: Base) -> Operator {
    Operator { args: [left, right], result }
}

pub(super) fn candidates(op: Op) -> &'static [Operator] {
    match op {
        Op::Add => ADD,
        Op::Sub => SUB,
        Op::Mul => MUL,
        Op::Div => DIV,
        Op::Mod => MOD,
        Op::Eq | Op::Ne | Op::Lt | Op::Le | Op::Gt | Op::Ge => COMPARE,
        Op::Concat => CONCAT,
        Op::Arrow => ARROW,
        Op::LongArrow => LONG_ARROW,
        Op::HashLongArrow => HASH_LONG_ARROW,
    }
}

/// `~~`.
pub(super) const LIKE: &[Operator] =
    &[op(Bpchar, Text, Bool), op(Bytea, Bytea, Bool), op(Name, Text, Bool), op(Text, Text, Bool)];

const ADD: &[Operator] = &[
    op(Date, Int4, Date),
    op(Date, Interval, Timestamp),
    op(Date, Time, Timestamp),
    op(Date, TimeTz, TimestampTz),
    op(Float4, Float4, Float4),
    op(Float4, Float8, Float8),
    op(Float8, Float4, Float8),
    op(Float8, Float8, Float8),
    op(Inet, Int8, Inet),
    op(Int2, Int2, Int2),
    op(Int2, Int4, Int4),
    op(Int2, Int8, Int8),
    op(Int4, Date, Date),
    op(Int4, Int2, Int4),
    op(Int4, Int4, Int4),
    op(Int4, Int8, Int8),
    op(Int8, Inet, Inet),
    op(Int8, Int2, Int8),
    op(Int8, Int4, Int8),
    op(Int8, Int8, Int8),
    op(Interval, Date, Timestamp),
    op(Interval, Interval, Interval),
    op(Interval, Time, Time),
    op(Interval, Timestamp, Timestamp),
    op(Interval, TimestampTz, TimestampTz),
    op(Interval, TimeTz, TimeTz),
    op(Numeric, Numeric, Numeric),
    op(Numeric, PgLsn, PgLsn),
    op(PgLsn, Numeric, PgLsn),
    op(Time, Date, Timestamp),
    op(Time, Interval, Time),
    op(Timestamp, Interval, Timestamp),
    op(TimestampTz, Interval, TimestampTz),
    op(TimeTz, Date, TimestampTz),
    op(TimeTz, Interval, TimeTz),
];

const SUB: &[Operator] = &[
    op(Date, Date, Int4),
    op(Date, Int4, Date),
    op(Date, Interval, Timestamp),
    op(Float4, Float4, Float4),
    op(Float4, Float8, Float8),
    op(Float8, Float4, Float8),
    op(Float8, Float8, Float8),
    op(Inet, Int8, Inet),
    op(Int2, Int2, Int2),
    op(Int2, Int4, Int4),
    op(Int2, Int8, Int8),
    op(Int4, Int2, Int4),
    op(Int4, Int4, Int4),
    op(Int4, Int8, Int8),
    op(Int8, Int2, Int8),
    op(Int8, Int4, Int8),
    op(Int8, Int8, Int8),
    op(Interval, Interval, Interval),
    op(Jsonb, TextArray, Jsonb),
    op(Jsonb, Int4, Jsonb),
    op(Jsonb, Text, Jsonb),
    op(Numeric, Numeric, Numeric),
    op(PgLsn, Numeric, PgLsn),
    op(Time, Interval, Time),
    op(Time, Time, Interval),
    op(Timestamp, Interval, Timestamp),
    op(Timestamp, Timestamp, Interval),
    op(TimestampTz, Interval, TimestampTz),
    op(TimestampTz, TimestampTz, Interval),
    op(TimeTz, Interval, TimeTz),
];

const MUL: &[Operator] = &[
    op(Float4, Float4, Float4),
    op(Float4, Float8, Float8),
    op(Float4, Money, Money),
    op(Float8, Float4, Float8),
    op(Float8, Float8, Float8),
    op(Float8, Interval, Interval),
    op(Float8, Money, Money),
    op(Int2, Int2, Int2),
    op(Int2, Int4, Int4),
    op(Int2, Int8, Int8),
    op(Int2, Money, Money),
    op(Int4, Int2, Int4),
    op(Int4, Int4, Int4),
    op(Int4, Int8, Int8),
    op(Int4, Money, Money),
    op(Int8, Int2, Int8),
    op(Int8, Int4, Int8),
    op(Int8, Int8, Int8),
    op(Int8, Money, Money),
    op(Interval, Float8, Interval),
    op(Money, Float4, Money),
    op(Money, Float8, Money),
    op(Money, Int2, Money),
    op(Money, Int4, Money),
    op(Money, Int8, Money),
    op(Numeric, Numeric, Numeric),
];

const DIV: &[Operator] = &[
    op(Float4, Float4, Float4),
    op(Float4, Float8, Float8),
    op(Float8, Float4, Float8),
    op(Float8, Float8, Float8),
    op(Int2, Int2, Int2),
    op(Int2, Int4, Int4),
    op(Int2, Int8, Int8),
    op(Int4, Int2, Int4),
    op(Int4, Int4, Int4),
    op(Int4, Int8, Int8),
    op(Int8, Int2, Int8),
    op(Int8, Int4, Int8),
    op(Int8, Int8, Int8),
    op(Interval, Float8, Interval),
    op(Money, Float4, Money),
    op(Money, Float8, Money),
    op(Money, Int2, Money),
    op(Money, Int4, Money),
    op(Money, Int8, Money),
    op(Numeric, Numeric, Numeric),
];

const MOD: &[Operator] = &[
    op(Int2, Int2, Int2),
    op(Int4, Int4, Int4),
    op(Int8, Int8, Int8),
    op(Numeric, Numeric, Numeric),
];

/// `=`; the others compare the same types, which matters to nothing here.
const COMPARE: &[Operator] = &[
    op(AnyArray, AnyArray, Bool),
    op(AnyEnum, AnyEnum, Bool),
    op(Bool, Bool, Bool),
    op(Bpchar, Bpchar, Bool),
    op(Bytea, Bytea, Bool),
    op(Date, Date, Bool),
    op(Date, Timestamp, Bool),
    op(Date, TimestampTz, Bool),
    op(Float4, Float4, Bool),
    op(Float4, Float8, Bool),
    op(Float8, Float4, Bool),
    op(Float8, Float8, Bool),
    op(Int2, Int2, Bool),
    op(Int2, Int4, Bool),
    op(Int2, Int8, Bool),
    op(Int4, Int2, Bool),
    op(Int4, Int4, Bool),
    op(Int4, Int8, Bool),
    op(Int8, Int2, Bool),
    op(Int8, Int4, Bool),
    op(Int8, Int8, Bool),
    op(Interval, Interval, Bool),
    op(Jsonb, Jsonb, Bool),
    op(Name, Text, Bool),
    op(Numeric, Numeric, Bool),
    op(Text, Name, Bool),
    op(Text, Text, Bool),
    op(Time, Time, Bool),
    op(Timestamp, Date, Bool),
    op(Timestamp, Timestamp, Bool),
    op(Timestamp, TimestampTz, Bool),
    op(TimestampTz, Date, Bool),
    op(TimestampTz, Timestamp, Bool),
    op(TimestampTz, TimestampTz, Bool),
    op(Uuid, Uuid, Bool),
    op(Xid, Int4, Bool),
];

const CONCAT: &[Operator] = &[
    op(AnyCompatible, AnyCompatibleArray, AnyCompatibleArray),
    op(AnyCompatibleArray, AnyCompatible, AnyCompatibleArray),
    op(AnyCompatibleArray, AnyCompatibleArray, AnyCompatibleArray),
    op(AnyNonArray, Text, Text),
    op(Bytea, Bytea, Bytea),
    op(Jsonb, Jsonb, Jsonb),
    op(Text, AnyNonArray, Text),
    op(Text, Text, Text),
];

const ARROW: &[Operator] =
    &[op(Json, Int4, Json), op(Json, Text, Json), op(Jsonb, Int4, Jsonb), op(Jsonb, Text, Jsonb)];

const LONG_ARROW: &[Operator] =
    &[op(Json, Int4, Text), op(Json, Text, Text), op(Jsonb, Int4, Text), op(Jsonb, Text, Text)];

const HASH_LONG_ARROW: &[Operator] = &[op(Json, TextArray, Text), op(Jsonb, TextArray, Text)];
