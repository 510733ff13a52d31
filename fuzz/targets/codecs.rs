//! What is written and read again: texts and binary forms of values, rows, keys, records, operations, templates.

use walview_core::outbox::Record;
use walview_core::target::template::{Part, Template};
use walview_core::target::{clickhouse, redis};
use walview_core::value::key::{decode_key, encode_key};
use walview_core::value::row::{decode_row, encode_row};
use walview_core::value::{Row, Type, Value};

const TYPES: &[Type] = &[
    Type::Bool,
    Type::Int2,
    Type::Int4,
    Type::Int8,
    Type::Float4,
    Type::Float8,
    Type::Numeric(None),
    Type::Numeric(Some((12, 2))),
    Type::Text,
    Type::Varchar(Some(4)),
    Type::Char(5),
    Type::Bytea,
    Type::Date,
    Type::Time,
    Type::Timestamp,
    Type::TimestampTz,
    Type::Interval,
    Type::Uuid,
    Type::Json,
    Type::Jsonb,
];

/// The first byte chooses.
pub(crate) fn run(data: &[u8]) {
    let Some((choice, rest)) = data.split_first() else {
        return;
    };
    match choice % 8 {
        _ if *choice == 8 => binary(rest),
        0 => row(rest),
        1 => key(rest),
        2 => record(rest),
        3 => redis_ops(rest),
        4 => clickhouse_ops(rest),
        5 => template(rest),
        6 => order(rest),
        _ => value(rest),
    }
}

/// Numbers have forms that nobody writes; written once they stay what they are.
fn row(data: &[u8]) {
    let Ok(row) = decode_row(data) else { return };
    let mut bytes = Vec::new();
    encode_row(&row, &mut bytes);
    let again = decode_row(&bytes);
    assert!(again.as_ref().is_ok_and(|again| same(again, &row)), "{row:?} {again:?}");
}

/// NaN is not equal to itself.
fn same(a: &Row, b: &Row) -> bool {
    format!("{a:?}") == format!("{b:?}")
}

fn key(data: &[u8]) {
    let Ok(row) = decode_key(data) else { return };
    let mut bytes = Vec::new();
    encode_key(&row, &mut bytes);
    let again = decode_key(&bytes);
    assert!(again.as_ref().is_ok_and(|again| same(again, &row)), "{row:?} {again:?}");
}

fn record(data: &[u8]) {
    let Ok(record) = Record::decode(data) else { return };
    let mut bytes = Vec::new();
    record.encode(&mut bytes);
    assert_eq!(Record::decode(&bytes), Ok(record));
}

fn redis_ops(data: &[u8]) {
    let mut bytes = Vec::new();
    let mut ops = Vec::new();
    for op in redis::OpRef::decode_all(data) {
        let Ok(op) = op.and_then(redis::OpRef::whole) else { return };
        op.encode(&mut bytes);
        ops.push(op);
    }
    let again = redis::OpRef::decode_all(&bytes).map(|op| op.and_then(redis::OpRef::whole));
    assert_eq!(again.collect::<Result<Vec<_>, _>>(), Ok(ops));
    let refs: Result<Vec<_>, _> = redis::OpRef::decode_all(&bytes).collect();
    if let Ok(mut refs) = refs {
        redis::coalesce(&mut refs);
    }
}

fn clickhouse_ops(data: &[u8]) {
    let mut bytes = Vec::new();
    let mut ops = Vec::new();
    for op in clickhouse::OpRef::decode_all(data) {
        let Ok(op) = op else { return };
        let op = op.to_owned();
        op.encode(&mut bytes);
        ops.push(op);
    }
    let again = clickhouse::OpRef::decode_all(&bytes).map(|op| op.map(clickhouse::OpRef::to_owned));
    assert_eq!(again.collect::<Result<Vec<_>, _>>(), Ok(ops));
}

/// A template and values, separated by line ends: two rows of values never meet on one key.
fn template(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut lines = text.split('\n');
    let Ok(template) = Template::parse(lines.next().unwrap_or_default()) else { return };
    assert_eq!(Template::parse(&template.to_string()).as_ref(), Ok(&template));
    let columns = template.columns().count();
    let values: Vec<&str> = lines.collect();
    let (ours, theirs) = values.split_at(columns.min(values.len()));
    let (a, b) = (render(&template, ours), render(&template, theirs));
    assert!(template.matches(&a) && template.matches(&b), "{template} {a:?} {b:?}");
    let meet =
        |at: usize| ours.get(at).copied().unwrap_or("") == theirs.get(at).copied().unwrap_or("");
    if a == b {
        assert!((0..columns).all(meet), "{template}: {ours:?} and {theirs:?} meet on {a:?}");
    }
    // A beginning that is no template of its own still ends at a part.
    let shorter = Template { parts: template.parts.iter().take(1).cloned().collect() };
    if matches!(shorter.parts.as_slice(), [Part::Literal(literal)] if template.matches(literal)) {
        assert!(shorter.overlaps(&template), "{shorter} {template}");
    }
}

fn render(template: &Template, values: &[&str]) -> String {
    let (mut key, mut at) = (String::new(), 0);
    let rendered = template.render(
        |_, out| -> Result<(), ()> {
            out.push_str(values.get(at).copied().unwrap_or(""));
            at += 1;
            Ok(())
        },
        &mut key,
    );
    assert_eq!(rendered, Ok(()));
    key
}

/// Keys sort as their values do.
fn order(data: &[u8]) {
    let Some((ty, rest)) = typed(data) else { return };
    let Some((a, b)) = rest.split_once('\n') else { return };
    let (Ok(a), Ok(b)) = (Value::parse(ty, a), Value::parse(ty, b)) else { return };
    let Some(order) = a.compare(&b, ty) else { return };
    let key = |value: &Value| {
        let mut bytes = Vec::new();
        let values = std::slice::from_ref(value);
        walview_core::value::key::encode_key_typed(values, std::slice::from_ref(ty), &mut bytes);
        bytes
    };
    assert_eq!(key(&a).cmp(&key(&b)), order, "{ty:?} {a:?} {b:?}");
}

/// What is read is written so that it is read again as the same.
fn value(data: &[u8]) {
    let Some((ty, text)) = typed(data) else { return };
    let Ok(value) = Value::parse(ty, text) else { return };
    let written = value.to_text(ty);
    let again = Value::parse(ty, &written);
    let same = again.as_ref().is_ok_and(|again| format!("{again:?}") == format!("{value:?}"));
    assert!(same, "{ty:?} {text:?} {written:?} {again:?}");
    let mut bytes = Vec::new();
    encode_row(std::slice::from_ref(&value), &mut bytes);
    let again = decode_row(&bytes);
    assert!(again.is_ok_and(|again| format!("{again:?}") == format!("[{value:?}]")), "{ty:?}");
}

/// What is read of a value in binary has a text that is read as the same.
fn binary(data: &[u8]) {
    let Some((choice, bytes)) = data.split_first() else { return };
    let Some(ty) = TYPES.get(usize::from(*choice) % TYPES.len()) else { return };
    let Ok(value) = Value::from_binary(ty, bytes) else { return };
    // PostgreSQL prints intervals that it does not read.
    if *ty == Type::Interval {
        return;
    }
    let written = value.to_text(ty);
    let again = Value::from_server(ty, &written);
    let same = again.as_ref().is_ok_and(|again| format!("{again:?}") == format!("{value:?}"));
    assert!(same, "{ty:?} {bytes:?} {written:?} {again:?}");
}

fn typed(data: &[u8]) -> Option<(&'static Type, &str)> {
    let (choice, text) = data.split_first()?;
    let ty = TYPES.get(usize::from(*choice) % TYPES.len())?;
    // Numbers of a million digits only take long.
    Some((ty, std::str::from_utf8(text).ok().filter(|text| text.len() < 2_000)?))
}
