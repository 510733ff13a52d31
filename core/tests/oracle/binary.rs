//! PostgreSQL's binary form of values against its text of the same values: both are read as the same
//! value, to the bytes that are kept of it.

use crate::random::Random;
use crate::server::Server;
use crate::{EDGES, cell, column_type, quoted};
use walview_core::value::row::encode_value;
use walview_core::value::{Carried, Interval, Type, Value};

/// A column's name (as in `cell` and `column_type`, where they know it), its type, its binary form.
const COLUMNS: &[(&str, &str, &str)] = &[
    ("b", "bool", "boolsend(x)"),
    ("i2", "int2", "int2send(x)"),
    ("i4", "int4", "int4send(x)"),
    ("i8", "int8", "int8send(x)"),
    ("f4", "float4", "float4send(x)"),
    ("f8", "float8", "float8send(x)"),
    ("n", "numeric", "numeric_send(x)"),
    ("n122", "numeric(12,2)", "numeric_send(x)"),
    ("s", "text", "textsend(x)"),
    ("v10", "varchar(10)", "varcharsend(x)"),
    ("c5", "char(5)", "bpcharsend(x)"),
    ("by", "bytea", "byteasend(x)"),
    ("d", "date", "date_send(x)"),
    ("ti", "time", "time_send(x)"),
    ("ts", "timestamp", "timestamp_send(x)"),
    ("tz", "timestamptz", "timestamptz_send(x)"),
    ("iv", "interval", "interval_send(x)"),
    ("u", "uuid", "uuid_send(x)"),
    ("j", "json", "json_send(x)"),
    ("jb", "jsonb", "jsonb_send(x)"),
    ("m", "mood", "enum_send(x)"),
    ("name", "name", "namesend(x)"),
    ("bpchar", "bpchar", "bpcharsend(x)"),
    ("refcursor", "refcursor", "textsend(x::text)"),
    ("oid", "oid", "oidsend(x)"),
    ("xid", "xid", "xidsend(x)"),
    ("cid", "cid", "cidsend(x)"),
    ("xid8", "xid8", "xid8send(x)"),
    ("timetz", "timetz", "timetz_send(x)"),
];

/// What no random value is sure to be.
const SPECIAL: &[(&str, &[&str])] = &[
    ("b", &["t", "f"]),
    ("i2", &["-32768", "32767", "0"]),
    ("i4", &["-2147483648", "2147483647", "0"]),
    ("i8", &["-9223372036854775808", "9223372036854775807", "0"]),
    ("f4", &["NaN", "-0", "0", "Infinity", "-Infinity", "1e-45", "3.4028235e38"]),
    ("f8", &["NaN", "-0", "0", "Infinity", "-Infinity", "5e-324", "1.7976931348623157e308"]),
    (
        "n",
        &[
            "NaN",
            "Infinity",
            "-Infinity",
            "0",
            "0.000",
            "1.5",
            "1.50",
            "-1.50",
            "1e30",
            "10000",
            "99999999",
            "0.0001",
            "0.00010000",
            "-0.000000000001",
            "12345.0000",
            "170141183460469231731687303715884105727",
            "170141183460469231731687303715884105728",
            "-170141183460469231731687303715884105728",
            "-170141183460469231731687303715884105729",
            "1e131071",
            "1e-16383",
            "-1e131071",
        ],
    ),
    ("n122", &["NaN", "0", "9999999999.99", "-0.01", "100.00"]),
    ("s", &["", " ", "\\N", "a longer text than what fits inline, ünïcödé 🎲"]),
    ("v10", &["", "a  "]),
    ("c5", &["", "ab", "日本é"]),
    ("by", &["", "\\x00ff5c"]),
    ("d", &["infinity", "-infinity", "0044-03-15 BC", "4714-11-24 BC", "5874897-12-31"]),
    ("ti", &["00:00", "24:00:00", "23:59:59.999999"]),
    ("ts", &["infinity", "-infinity", "0001-01-01 00:00:00 BC"]),
    ("tz", &["infinity", "-infinity", "0001-01-01 00:00:00+00 BC"]),
    ("iv", &["0", "-1 mon +2 days -00:00:00.5", "178000000 years"]),
    ("u", &["00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff"]),
    ("j", &["{\"b\":  1,\n \"b\" : 1.50}", "\"\"", "null"]),
    ("jb", &["{\"b\":  1,\n \"b\" : 1.50}", "\"\"", "null", "12345678901234567890.123"]),
    ("m", &["sad", "a"]),
    ("name", &["", "ab  "]),
    ("bpchar", &["", "ab  ", "日本"]),
    ("oid", &["0", "4294967295"]),
    ("xid", &["0", "4294967295"]),
    ("cid", &["0", "4294967295"]),
    ("xid8", &["0", "18446744073709551615"]),
    ("timetz", &["24:00:00-15:59:59", "00:00+15:59", "12:00-00:00:01", "12:00+05:30", "12:00-08"]),
];

/// Of each type.
const VALUES: usize = 3_000;

/// As `column_type`; the OIDs of the others are PostgreSQL's own.
fn of_column(name: &str) -> Type {
    let oid = match name {
        "name" => 19,
        "bpchar" => 1042,
        "refcursor" => 1790,
        "oid" => 26,
        "xid" => 28,
        "cid" => 29,
        "xid8" => 5069,
        "timetz" => 1266,
        _ => return column_type(name, 70_000),
    };
    Type::Other { oid, name: name.to_owned(), carried: Carried::default() }
}

fn literal(random: &mut Random, name: &str, major: u32) -> String {
    let text = match name {
        "name" | "bpchar" | "refcursor" => random.text(),
        "oid" | "xid" | "cid" => random.between(0, i64::from(u32::MAX)).to_string(),
        "xid8" => random.next().to_string(),
        "timetz" => {
            let time = random.value("time").to_text(&Type::Time);
            let sign = random.pick(&["+", "-"]);
            let mut part = |end: usize| random.below(end);
            format!("{time}{sign}{:02}:{:02}:{:02}", part(16), part(60), part(60))
        }
        // 14 does not read all that it prints, and nor do we.
        "iv" if major == 14 => {
            let interval =
                Interval { micros: random.between(-1 << 50, 1 << 50), ..random.interval() };
            Value::Interval(interval).to_text(&Type::Interval)
        }
        "d" | "ts" | "tz" if random.one_in(9) => random.pick(EDGES).to_owned(),
        _ => return cell(random, name, major),
    };
    quoted(&text)
}

pub(crate) fn differences(server: &Server) -> Vec<String> {
    let mut random = Random::new("binary form of values");
    let mut script = "CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy', 'a');\n".to_owned();
    for (name, ty, _) in COLUMNS {
        let special = SPECIAL.iter().filter(|(of, _)| of == name).flat_map(|(_, texts)| *texts);
        let mut rows: Vec<String> = special.map(|text| format!("({})", quoted(text))).collect();
        let random =
            (0..VALUES).map(|_| format!("({})", literal(&mut random, name, server.major())));
        rows.extend(random);
        script.push_str(&format!(
            "CREATE TABLE {name}_values (n serial, x {ty});\n\
             INSERT INTO {name}_values (x) VALUES {};\n",
            rows.join(", ")
        ));
        // A NaN that is computed has other bits than one that is read.
        if matches!(*name, "f4" | "f8") {
            script.push_str(&format!(
                "INSERT INTO {name}_values (x) SELECT 'Infinity'::{ty} - y FROM \
                 (VALUES ('Infinity'::{ty})) v (y);\n"
            ));
        }
    }
    server.psql(&script);
    let mut wrong = Vec::new();
    for (name, _, send) in COLUMNS {
        let ty = of_column(name);
        assert!(ty.has_binary(), "{name}");
        let sql = format!(
            "SELECT x, encode({send}, 'hex') FROM {name}_values WHERE x IS NOT NULL ORDER BY n"
        );
        let rows = server.rows(&sql);
        assert!(rows.len() > VALUES / 2, "{name}: {} values", rows.len());
        for row in rows {
            let [Some(text), Some(hex)] = row.as_slice() else { panic!("{name}: {row:?}") };
            let hex = format!("\\x{hex}");
            let Ok(Value::Bytea(bytes)) = Value::from_server(&Type::Bytea, &hex) else {
                panic!("{hex}")
            };
            let (from_text, from_binary) =
                (Value::from_server(&ty, text), Value::from_binary(&ty, &bytes));
            if from_text.as_ref().map(kept) != from_binary.as_ref().map(kept) || from_text.is_err()
            {
                wrong.push(format!("{name} {text:?} {hex}: {from_text:?}, {from_binary:?}"));
            }
        }
    }
    wrong
}

/// The value as it is kept, and its text.
fn kept(value: &Value) -> (Vec<u8>, String) {
    let mut bytes = Vec::new();
    encode_value(value, &mut bytes);
    (bytes, value.to_text(&Type::Text))
}
