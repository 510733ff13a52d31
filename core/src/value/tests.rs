//! Tables of values in and out of every codec.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use super::key::{decode_key, encode_key, encode_key_typed};
use super::row::{decode_row, encode_row};
use super::{Carried, Interval, Numeric, Type, Value};
use std::cmp::Ordering;

fn numeric(text: &str) -> Numeric {
    text.parse().unwrap()
}

fn sample() -> Vec<(Type, &'static str)> {
    let enumeration =
        Type::Enum { oid: 1, name: "mood".into(), labels: vec!["sad".into(), "ok".into()] };
    vec![
        (Type::Bool, "t"),
        (Type::Bool, "f"),
        (Type::Int2, "-32768"),
        (Type::Int4, "2147483647"),
        (Type::Int8, "-9223372036854775808"),
        (Type::Int8, "9223372036854775807"),
        (Type::Int8, "0"),
        (Type::Numeric(None), "1.50"),
        (Type::Numeric(None), "0.000"),
        (Type::Numeric(None), "-0.001"),
        (Type::Numeric(None), "170141183460469231731687303715884105728"),
        (Type::Numeric(None), "-170141183460469231731687303715884105728.000000001"),
        (Type::Numeric(None), "NaN"),
        (Type::Numeric(None), "Infinity"),
        (Type::Numeric(None), "-Infinity"),
        (Type::Numeric(Some((12, 2))), "1234567890.12"),
        (Type::Float8, "-0"),
        (Type::Float8, "1e+20"),
        (Type::Float8, "1e-05"),
        (Type::Float8, "0.0001"),
        (Type::Float8, "123456789012345"),
        (Type::Float8, "1.23456789012345e+15"),
        (Type::Float8, "5e-324"),
        (Type::Float8, "NaN"),
        (Type::Float8, "-Infinity"),
        (Type::Float4, "3.4028235e+38"),
        (Type::Float4, "0.1"),
        (Type::Text, ""),
        (Type::Text, "a longer text than what fits inline, ünïcödé 🎲"),
        (Type::Char(5), "ab   "),
        (Type::Bytea, "\\x00ff10"),
        (Type::Bytea, "\\x"),
        (Type::Date, "0001-01-01 BC"),
        (Type::Date, "4714-11-24 BC"),
        (Type::Date, "5874897-12-31"),
        (Type::Date, "infinity"),
        (Type::Date, "2000-02-29"),
        (Type::Time, "24:00:00"),
        (Type::Time, "03:04:05.000001"),
        (Type::Timestamp, "1999-12-31 23:59:59.999999"),
        (Type::Timestamp, "294276-12-31 23:59:59.999999"),
        (Type::Timestamp, "-infinity"),
        (Type::TimestampTz, "4714-11-24 00:00:00+00 BC"),
        (Type::TimestampTz, "2026-11-20 23:02:00.1+00"),
        (Type::Interval, "1 year 2 mons -3 days +04:05:06.7"),
        (Type::Interval, "-1 years -2 mons"),
        (Type::Interval, "-00:00:00.000001"),
        (Type::Interval, "00:00:00"),
        (Type::Uuid, "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
        (Type::Json, "{ \"a\":  1}"),
        (enumeration, "ok"),
        (Type::Other { oid: 600, name: "point".into(), carried: Carried::default() }, "(1,2)"),
    ]
}

#[test]
fn text_row_and_key_give_back_what_went_in() {
    let mut row = vec![Value::Null];
    for (ty, text) in sample() {
        let value = Value::parse(&ty, text).unwrap();
        assert_eq!(value.to_text(&ty), text, "{ty:?}");
        let mut key = Vec::new();
        encode_key(std::slice::from_ref(&value), &mut key);
        let back = decode_key(&key).unwrap();
        let mut again = Vec::new();
        encode_key(&back, &mut again);
        assert_eq!(key, again, "{text}");
        row.push(value);
    }
    let mut bytes = Vec::new();
    encode_row(&row, &mut bytes);
    assert_eq!(decode_row(&bytes).unwrap(), row);
    for length in 0..bytes.len() {
        assert!(decode_row(bytes.get(..length).unwrap()).is_err(), "{length} bytes decoded");
    }
}

fn key(values: &[Value]) -> Vec<u8> {
    let mut out = Vec::new();
    encode_key(values, &mut out);
    out
}

/// Values of each type from the smallest to the largest.
const LADDERS: &[(Type, &str)] = &[
    (Type::Bool, "f t"),
    (
        Type::Int8,
        "-9223372036854775808 -65537 -65536 -257 -256 -255 -1 0 1 255 256 65535 65536 \
         9223372036854775807",
    ),
    (
        Type::Numeric(None),
        "-Infinity -1e200 -1e126 -1e125 -100.5 -100 -99 -1.01 -1 -0.1 -1e-200 0 1e-16000 1e-200 \
         1e-127 1e-126 0.0999 0.1 0.11 1 1.01 1.1 2 10 10.5 11 99.99 100 1e125 1e126 1e127 1.5e127 \
         1e131071 Infinity NaN",
    ),
    (Type::Float8, "-Infinity -1e300 -1 -1e-300 0 5e-324 1 Infinity NaN"),
    (Type::Float4, "-Infinity -1 -0.5 0 0.5 1 Infinity NaN"),
    (Type::Text, "a a\u{1} aa b é"),
    (Type::Bytea, "\\x \\x00 \\x0000 \\x0001 \\x01 \\xff \\xff00 \\xffff"),
    (Type::Date, "-infinity 1999-12-31 2000-01-01 infinity"),
    (Type::Timestamp, "-infinity 1999-12-31 2000-01-01 infinity"),
    (Type::Interval, "-P1D 00:00:00 P29D P29DT25H P2M"),
    (Type::Uuid, "00000000-0000-0000-0000-000000000000 f0000000-0000-0000-0000-000000000000"),
];

#[test]
fn keys_sort_as_values_compare() {
    for (ty, texts) in LADDERS {
        let texts: Vec<&str> = texts.split(' ').collect();
        let values: Vec<Value> = texts
            .iter()
            .map(|text| Value::parse(ty, &text.replace("-P1D", "-1 day")).unwrap())
            .collect();
        for (i, a) in values.iter().enumerate() {
            assert!(key(std::slice::from_ref(a)) < key(&[Value::Null]));
            for (j, b) in values.iter().enumerate() {
                assert_eq!(a.compare(b, ty), Some(i.cmp(&j)), "{} {}", texts[i], texts[j]);
                let (a, b) = (key(&[a.clone(), Value::Null]), key(&[b.clone(), Value::Int(0)]));
                let bytes = if i == j { Ordering::Greater } else { i.cmp(&j) };
                assert_eq!(a.cmp(&b), bytes, "{} {}", texts[i], texts[j]);
            }
        }
        // No key of one value is the beginning of another's.
        let keys: Vec<Vec<u8>> = values.iter().map(|v| key(std::slice::from_ref(v))).collect();
        for (i, a) in keys.iter().enumerate() {
            for (j, b) in keys.iter().enumerate() {
                assert_eq!(b.starts_with(a), i == j);
            }
        }
    }
}

#[test]
fn equal_values_have_one_key() {
    let same = |ty: &Type, a: &str, b: &str| {
        let (a, b) = (Value::parse(ty, a).unwrap(), Value::parse(ty, b).unwrap());
        assert_eq!(a.compare(&b, ty), Some(Ordering::Equal));
        assert_ne!(a, b);
        let types = std::slice::from_ref(ty);
        let (mut left, mut right) = (Vec::new(), Vec::new());
        encode_key_typed(&[a], types, &mut left);
        encode_key_typed(&[b], types, &mut right);
        assert_eq!(left, right);
    };
    same(&Type::Numeric(None), "1.0", "1.00");
    same(&Type::Numeric(None), "1e40", "10000000000000000000000000000000000000000.0");
    same(&Type::Numeric(None), "0.00", "0e-80");
    same(&Type::Float8, "0", "-0");
    same(&Type::Float4, "0", "-0");
    same(&Type::Interval, "1 mon", "30 days");
    same(&Type::Interval, "1 day", "24:00:00");
}

#[test]
fn widest_interval_survives_a_key() {
    for interval in [
        Interval { months: i32::MAX, days: i32::MAX, micros: i64::MAX },
        Interval { months: i32::MIN, days: i32::MIN, micros: i64::MIN },
    ] {
        let bytes = key(&[Value::Interval(interval)]);
        assert_eq!(key(&decode_key(&bytes).unwrap()), bytes);
    }
}

#[test]
fn numeric_arithmetic_follows_postgresql() {
    let cases = [
        ("1.50", "+", "2", "3.50"),
        ("1", "/", "3", "0.33333333333333333333"),
        ("10000", "/", "3", "3333.3333333333333333"),
        ("1", "/", "30000", "0.000033333333333333333333"),
        ("-7.5", "%", "2", "-1.5"),
        ("7", "%", "-2.00", "1.00"),
        ("1.10", "*", "1.10", "1.2100"),
        ("Infinity", "-", "Infinity", "NaN"),
        ("Infinity", "*", "0", "NaN"),
        ("5", "/", "Infinity", "0"),
        ("-Infinity", "/", "-2", "Infinity"),
        (
            "99999999999999999999999999999999999999",
            "+",
            "1",
            "100000000000000000000000000000000000000",
        ),
        (
            "99999999999999999999",
            "*",
            "99999999999999999999",
            "9999999999999999999800000000000000000001",
        ),
    ];
    for (a, op, b, expected) in cases {
        let (a, b) = (numeric(a), numeric(b));
        let result = match op {
            "+" => a.add(&b),
            "-" => a.sub(&b),
            "*" => a.mul(&b),
            "/" => a.div(&b),
            _ => a.rem(&b),
        };
        assert_eq!(result.unwrap().to_string(), expected);
    }
    assert!(numeric("1").div(&numeric("0.00")).is_err());
    assert!(numeric("NaN").div(&numeric("0")).unwrap().is_nan());
}

#[test]
fn numeric_rounds_half_away_and_fits_columns() {
    for (text, digits, expected) in [
        ("2.5", 0, "3"),
        ("-2.5", 0, "-3"),
        ("0.05", 1, "0.1"),
        ("1.5", 3, "1.500"),
        ("155", -1, "160"),
        ("44", -2, "0"),
        ("50", -2, "100"),
        ("0.4", 0, "0"),
        (
            "12345678901234567890123456789012345678901234567890.5",
            0,
            "12345678901234567890123456789012345678901234567891",
        ),
    ] {
        assert_eq!(numeric(text).round(digits).unwrap().to_string(), expected);
    }
    assert_eq!(numeric("-1.1").floor().unwrap().to_string(), "-2");
    assert_eq!(numeric("-1.9").ceil().unwrap().to_string(), "-1");
    assert_eq!(numeric("99.995").with_typmod(4, 2).unwrap_err().message, "numeric field overflow");
    assert_eq!(numeric("99.994").with_typmod(4, 2).unwrap().to_string(), "99.99");
    assert_eq!(numeric("12345").with_typmod(3, -2).unwrap().to_string(), "12300");
    assert!(numeric("123450").with_typmod(3, -2).is_err());
    assert!(numeric("Infinity").with_typmod(3, 0).is_err());
}

#[test]
fn numeric_exports_scaled_integers() {
    assert_eq!(numeric("1.50").to_scaled_i128(3), Some(1500));
    assert_eq!(numeric("1.500").to_scaled_i128(1), Some(15));
    assert_eq!(numeric("1.501").to_scaled_i128(1), None);
    assert_eq!(numeric("NaN").to_scaled_i128(1), None);
    assert_eq!(numeric("-1").to_scaled_i256_le(0), Some([0xff; 32]));
    let wide = numeric("-170141183460469231731687303715884105729").to_scaled_i256_le(0).unwrap();
    assert_eq!(
        wide[..16],
        [
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
            0xff, 0x7f
        ]
    );
    assert_eq!(wide[16..], [0xff; 16]);
    assert_eq!(numeric("1e77").to_scaled_i256_le(0), None);
}

#[test]
fn a_value_is_small() {
    assert!(std::mem::size_of::<Value>() <= 32, "{}", std::mem::size_of::<Value>());
}

#[test]
fn json_parts_are_cut_as_postgresql_does() {
    use super::json::{Step, as_text, get, to_jsonb, validate};
    let doc = r#" {"a": {"b" : [1, 2.50,{"c":null}]}, "k\u00e9":"x\ny", "a2":1, "a2": "two"} "#;
    let path = |steps: &[Step<'_>]| get(doc, steps).unwrap();
    assert_eq!(path(&[Step::Key("a"), Step::Key("b"), Step::Index(-2)]), Some("2.50"));
    assert_eq!(
        path(&[Step::Either("a"), Step::Either("b"), Step::Either("2")]),
        Some("{\"c\":null}")
    );
    assert_eq!(path(&[Step::Key("ké")]).map(as_text), Some(Ok(Some("x\ny".to_owned()))));
    assert_eq!(path(&[Step::Key("a2")]), Some("\"two\""));
    assert_eq!(path(&[Step::Key("a"), Step::Key("b"), Step::Index(3)]), None);
    assert_eq!(as_text("null"), Ok(None));
    assert_eq!(
        to_jsonb(doc).unwrap(),
        "{\"a\": {\"b\": [1, 2.50, {\"c\": null}]}, \"a2\": \"two\", \"ké\": \"x\\ny\"}"
    );
    assert_eq!(to_jsonb("[1e2, -0, 1.0e-3]").unwrap(), "[100, 0, 0.0010]");
    for bad in ["", "{", "[1,]", "01", "nul", "nulls", "\"\u{1}\"", "{\"a\" 1}", "1 2", "'a'", "1."]
    {
        assert!(validate(bad).is_err(), "{bad}");
        assert!(to_jsonb(bad).is_err(), "{bad}");
    }
    assert!(validate("\"\\u0000\"").is_ok());
    assert!(to_jsonb("\"\\u0000\"").is_err());
    assert!(to_jsonb("\"\\ud83d\"").is_err());
    assert_eq!(to_jsonb("\"\\ud83d\\ude00\"").unwrap(), "\"😀\"");
    assert!(validate(&"[".repeat(100_000)).is_err());
}

/// A fuzzer's find: the least 64-bit number has no absolute value.
#[test]
fn an_exponent_may_be_any_number() {
    for text in ["1e-9223372036854775808", "1e9223372036854775807", "1e-99999999999999999999"] {
        assert!(text.parse::<Numeric>().is_err(), "{text}");
        assert!(Value::parse(&Type::Jsonb, text).is_err(), "{text}");
    }
}
