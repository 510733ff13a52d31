//! How values look in Redis: one text form for strings, hashes, streams and keys, one JSON form.
//!
//! | | text | JSON |
//! |---|---|---|
//! | int2, int4, int8 | digits | number (string where asked for) |
//! | numeric, float | PostgreSQL's digits | string of them |
//! | boolean | `true` / `false` | boolean |
//! | timestamptz | `2026-11-20T23:02:00.123456Z` | string of it |
//! | timestamp | the same without `Z` | string of it |
//! | date, time, interval, uuid, enum, text, others | PostgreSQL's text | string of it |
//! | json, jsonb | PostgreSQL's text | the value itself |
//! | bytea | base64 with padding | string of it |
//! | arrays | PostgreSQL's text | array of its elements' forms, one in another for each dimension |
//! | NULL | nothing; callers leave the field out | `null` |
//!
//! An array whose indexes do not begin at 1 (`[0:1]={1,2}`) is a string in JSON, too.
//!
//! Timestamps always have six fractional digits, so that they sort as text. A time before the year
//! 1 or at an infinity has no ISO form: it stays PostgreSQL's text (`0044-03-15 00:00:00 BC`,
//! `infinity`).

use crate::value::array::{self, Item};
use crate::value::datetime::push_padded;
use crate::value::{Type, Value};
use base64::Engine as _;
use std::fmt::Write as _;

/// Appends the text form. NULL appends nothing.
pub fn write_text(value: &Value, ty: &Type, out: &mut String) {
    match value {
        Value::Null => {}
        Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Value::Text(text) => out.push_str(text),
        Value::Bytea(bytes) => base64::prelude::BASE64_STANDARD.encode_string(bytes, out),
        Value::Timestamp(micros) if write_iso(*micros, out) => {}
        Value::TimestampTz(micros) if write_iso(*micros, out) => out.push('Z'),
        Value::Int(_)
        | Value::Numeric(_)
        | Value::Float4(_)
        | Value::Float8(_)
        | Value::Date(_)
        | Value::Time(_)
        | Value::Timestamp(_)
        | Value::TimestampTz(_)
        | Value::Interval(_)
        | Value::Uuid(_) => value.write_text(ty, out),
    }
}

/// Appends the JSON form. `numbers_text` writes integers as strings, for readers that hold numbers
/// in doubles.
pub fn write_json(value: &Value, ty: &Type, numbers_text: bool, out: &mut String) {
    match (value, ty) {
        (Value::Null, _) => out.push_str("null"),
        (Value::Bool(_), _) | (Value::Text(_), Type::Json | Type::Jsonb) => {
            write_text(value, ty, out);
        }
        (Value::Int(_), _) if !numbers_text => write_text(value, ty, out),
        (Value::Text(text), Type::Other { carried, .. }) => {
            let start = out.len();
            let written = carried.element.as_deref().is_some_and(|element| {
                let items = array::items(text);
                items.is_some_and(|items| write_items(&items, element, numbers_text, out))
            });
            if !written {
                out.truncate(start);
                write_json_string(text, out);
            }
        }
        (Value::Text(text), _) => write_json_string(text, out),
        (other, _) => {
            // None of these forms holds a character that JSON escapes.
            out.push('"');
            write_text(other, ty, out);
            out.push('"');
        }
    }
}

/// Appends an array; false where an element is not of its type, which the server does not write.
fn write_items(items: &[Item<'_>], element: &Type, numbers_text: bool, out: &mut String) -> bool {
    out.push('[');
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        match item {
            Item::Null => out.push_str("null"),
            Item::Array(items) => {
                if !write_items(items, element, numbers_text, out) {
                    return false;
                }
            }
            Item::Text(text) => match array::element(element, text) {
                Some(value) => write_json(&value, element, numbers_text, out),
                None => return false,
            },
        }
    }
    out.push(']');
    true
}

pub(super) fn write_json_string(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c < ' ' => {
                write!(out, "\\u{:04x}", u32::from(c)).ok();
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// PostgreSQL's epoch in days since 1970-01-01.
pub(super) const EPOCH_DAYS: i64 = 10_957;
pub(super) const DAY_MICROS: i64 = 86_400_000_000;

/// Appends `YYYY-MM-DDTHH:MM:SS.ffffff`; false where there is no such form.
fn write_iso(micros: i64, out: &mut String) -> bool {
    if micros == i64::MIN || micros == i64::MAX {
        return false;
    }
    let (days, time) = (micros.div_euclid(DAY_MICROS), micros.rem_euclid(DAY_MICROS));
    let (year, month, day) = civil(days + EPOCH_DAYS);
    if year < 1 {
        return false;
    }
    let (seconds, fraction) = (time / 1_000_000, time % 1_000_000);
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    // In one piece: most rows have a timestamp or two, each in several targets.
    let [m0, m1] = digits(month);
    let [d0, d1] = digits(day);
    let [h0, h1] = digits(hours);
    let [n0, n1] = digits(minutes);
    let [s0, s1] = digits(seconds);
    let [f0, f1, f2, f3, f4, f5] = digits(fraction);
    let rest = [
        b'-', m0, m1, b'-', d0, d1, b'T', h0, h1, b':', n0, n1, b':', s0, s1, b'.', f0, f1, f2, f3,
        f4, f5,
    ];
    push_padded(year.unsigned_abs(), 4, out);
    out.push_str(std::str::from_utf8(&rest).unwrap_or_default());
    true
}

/// The last `N` decimal digits.
fn digits<const N: usize>(number: i64) -> [u8; N] {
    let mut rest = number.unsigned_abs();
    let mut text = [b'0'; N];
    for digit in text.iter_mut().rev() {
        *digit += (rest % 10) as u8;
        rest /= 10;
    }
    text
}

/// Year, month and day of a day since 1970-01-01 in the proleptic Gregorian calendar
/// (<https://howardhinnant.github.io/date_algorithms.html#civil_from_days>).
fn civil(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::Carried;

    fn check(value: &Value, ty: &Type, text: &str, json: &str) {
        let (mut as_text, mut as_json) = (String::new(), String::new());
        write_text(value, ty, &mut as_text);
        write_json(value, ty, false, &mut as_json);
        assert_eq!((as_text.as_str(), as_json.as_str()), (text, json));
    }

    #[test]
    fn values_have_the_documented_forms() {
        let micros = 848_530_920_123_456;
        check(
            &Value::TimestampTz(micros),
            &Type::TimestampTz,
            "2026-11-20T23:02:00.123456Z",
            "\"2026-11-20T23:02:00.123456Z\"",
        );
        check(
            &Value::Timestamp(-1),
            &Type::Timestamp,
            "1999-12-31T23:59:59.999999",
            "\"1999-12-31T23:59:59.999999\"",
        );
        check(&Value::Timestamp(i64::MAX), &Type::Timestamp, "infinity", "\"infinity\"");
        check(&Value::Int(-7), &Type::Int4, "-7", "-7");
        check(&Value::Bool(true), &Type::Bool, "true", "true");
        check(
            &Value::Text("a\"\n\u{1}é".into()),
            &Type::Text,
            "a\"\n\u{1}é",
            "\"a\\\"\\n\\u0001é\"",
        );
        check(&Value::Text("{\"a\": 1}".into()), &Type::Jsonb, "{\"a\": 1}", "{\"a\": 1}");
        check(&Value::Bytea(vec![0xFB, 0xFF]), &Type::Bytea, "+/8=", "\"+/8=\"");
        check(&Value::Float8(1e20), &Type::Float8, "1e+20", "\"1e+20\"");
        check(&Value::Null, &Type::Int4, "", "null");
        let array = |element| Type::Other {
            oid: 1,
            name: "array".to_owned(),
            carried: Carried { element: Some(Box::new(element)), ..Carried::default() },
        };
        for (text, element, json) in [
            ("{}", Type::Int4, "[]"),
            ("{1,NULL}", Type::Int4, "[1,null]"),
            ("{{1,2},{3,4}}", Type::Int8, "[[1,2],[3,4]]"),
            ("[0:1]={1,2}", Type::Int4, "\"[0:1]={1,2}\""),
            ("{1.50,NaN}", Type::Numeric(None), "[\"1.50\",\"NaN\"]"),
            ("{t,f}", Type::Bool, "[true,false]"),
            ("{\"a \\\"b\\\"\",NULL,\"NULL\"}", Type::Text, "[\"a \\\"b\\\"\",null,\"NULL\"]"),
            ("{\"{\\\"a\\\": 1}\"}", Type::Jsonb, "[{\"a\": 1}]"),
            (
                "{\"2026-11-20 23:02:00+00\"}",
                Type::TimestampTz,
                "[\"2026-11-20T23:02:00.000000Z\"]",
            ),
        ] {
            check(&Value::Text(text.into()), &array(element), text, json);
        }
        let mut text = String::new();
        write_json(&Value::Int(7), &Type::Int8, true, &mut text);
        assert_eq!(text, "\"7\"");
    }
}
