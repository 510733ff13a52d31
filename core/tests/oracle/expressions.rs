//! Random SQL expressions over the columns of one table.
//!
//! Each call reads a column, so that PostgreSQL cannot compute a part of it while planning: it would
//! raise the errors of branches that are never taken.

use crate::random::Random;

/// The column of each type, by the letter that the generator knows it by.
pub(crate) const TABLE: &[(&str, &str)] = &[
    ("b", "boolean"),
    ("i2", "smallint"),
    ("i4", "integer"),
    ("i8", "bigint"),
    ("f4", "real"),
    ("f8", "double precision"),
    ("n", "numeric"),
    ("n122", "numeric(12,2)"),
    ("s", "text COLLATE \"C\""),
    ("sn", "text COLLATE \"C\""),
    ("v10", "varchar(10) COLLATE \"C\""),
    ("c5", "char(5) COLLATE \"C\""),
    ("by", "bytea"),
    ("d", "date"),
    ("ti", "time"),
    ("ts", "timestamp"),
    ("tz", "timestamptz"),
    ("iv", "interval"),
    ("u", "uuid"),
    ("j", "json"),
    ("jb", "jsonb"),
    ("m", "mood"),
];

const COMPARABLE: &[&str] = &[
    "b", "i2", "i4", "i8", "f4", "f8", "n", "n122", "s", "v10", "c5", "by", "d", "ti", "ts", "tz",
    "iv", "u", "m",
];

pub(crate) fn literal(random: &mut Random, ty: &str) -> String {
    match ty {
        "b" => random.pick(&["true", "false"]).to_owned(),
        "i2" => format!("{}::smallint", random.between(-9, 9)),
        "i4" => random.between(-9, 9).to_string(),
        "i8" => format!("{}::bigint", random.between(-9, 9)),
        "f4" => format!("'{}'::real", random.pick(&["0", "1.5", "-2e30", "NaN"])),
        "f8" => format!("'{}'::float8", random.pick(&["0", "2.5", "-1e200", "Infinity"])),
        "n" | "n122" => {
            random.pick(&["0.00", "1.5", "-7", "0.001", "1234567890.123456789"]).to_owned()
        }
        "s" | "sn" | "v10" | "c5" => {
            format!("'{}'", random.pick(&["", "a", "ab", "é", "12", "日", "x  "]))
        }
        "by" => "'\\x00ff'::bytea".to_owned(),
        "d" => format!("date '{}'", random.pick(&["2000-02-29", "0001-01-01 BC", "infinity"])),
        "ti" => "time '13:14:15.16'".to_owned(),
        "ts" => format!("timestamp '{}'", random.pick(&["2024-01-31 10:00:00", "-infinity"])),
        "tz" => "timestamptz '2024-12-31 23:59:59.999999+00'".to_owned(),
        "iv" => {
            let texts = ["1 mon", "-1 days", "1 year -1 mons +2 days 03:04:05.6", "36:00:00"];
            format!("interval '{}'", random.pick(&texts))
        }
        "u" => "'00000000-0000-0000-0000-000000000001'::uuid".to_owned(),
        "m" => format!("'{}'", random.pick(&["sad", "ok"])),
        _ => ty.to_owned(),
    }
}

/// A column, or a smaller expression.
pub(crate) fn expression(random: &mut Random, ty: &str, depth: usize) -> String {
    if depth == 0 || random.one_in(5) {
        return ty.to_owned();
    }
    let depth = depth - 1;
    if random.one_in(6) {
        return any(random, ty, depth);
    }
    match ty {
        "b" => boolean(random, depth),
        "i2" | "i4" | "i8" => integer(random, ty, depth),
        "f4" | "f8" => float(random, ty, depth),
        "n" | "n122" => numeric(random, depth),
        "s" | "sn" => text(random, depth),
        "v10" => format!("{}::varchar(3)", castable(random, depth)),
        "c5" => format!("{}::char(4)", castable(random, depth)),
        "d" => date(random, depth),
        "ti" => time(random, depth),
        "ts" | "tz" => timestamp(random, ty, depth),
        "iv" => interval(random, depth),
        "j" | "jb" => json(random, ty),
        _ => any(random, ty, depth),
    }
}

fn operand(random: &mut Random, ty: &str, depth: usize) -> String {
    if random.one_in(3) { literal(random, ty) } else { expression(random, ty, depth) }
}

fn pair(random: &mut Random, ty: &str, op: &str, depth: usize) -> String {
    let (a, b) = (expression(random, ty, depth), operand(random, ty, depth));
    if random.one_in(4) { format!("({b} {op} {a})") } else { format!("({a} {op} {b})") }
}

/// What exists for every type.
fn any(random: &mut Random, ty: &str, depth: usize) -> String {
    let a = expression(random, ty, depth);
    let b = expression(random, ty, depth);
    let condition = expression(random, "b", depth);
    let comparable = !matches!(ty, "j" | "jb");
    match random.below(if comparable { 6 } else { 2 }) {
        0 => format!("CASE WHEN {condition} THEN {a} ELSE {b} END"),
        1 => format!("coalesce({a}, {b})"),
        2 => format!("nullif({a}, {b})"),
        3 => format!("greatest({a}, {b})"),
        4 => format!("least({a}, {b}, {})", operand(random, ty, 0)),
        _ => format!("CASE {a} WHEN {b} THEN {a} END"),
    }
}

fn boolean(random: &mut Random, depth: usize) -> String {
    let ty = random.pick(COMPARABLE);
    match random.below(12) {
        0..=4 => {
            let op = random.pick(&["=", "<>", "<", "<=", ">", ">="]);
            pair(random, ty, op, depth)
        }
        5 => {
            let op = random.pick(&["AND", "OR"]);
            pair(random, "b", op, depth)
        }
        6 => format!("(NOT {})", expression(random, "b", depth)),
        7 => {
            let test = random.pick(&["IS NULL", "IS NOT NULL"]);
            format!("({} {test})", expression(random, ty, depth))
        }
        8 => {
            let test = random.pick(&["IS TRUE", "IS NOT FALSE", "IS UNKNOWN", "IS FALSE"]);
            format!("({} {test})", expression(random, "b", depth))
        }
        9 => {
            let op = random.pick(&["IS DISTINCT FROM", "IS NOT DISTINCT FROM"]);
            pair(random, ty, op, depth)
        }
        10 => {
            const PARTS: &[&str] = &["a", "b", "%", "_", "\\\\", "\\%", "\\", "é", "日"];
            let pattern: String = (0..random.below(5)).map(|_| random.pick(PARTS)).collect();
            let op = random.pick(&["LIKE", "NOT LIKE"]);
            format!("({} {op} '{pattern}')", expression(random, "s", depth))
        }
        _ => {
            let (a, b, c) =
                (expression(random, ty, depth), operand(random, ty, 0), operand(random, ty, 0));
            match random.below(2) {
                0 => format!("({a} BETWEEN {b} AND {c})"),
                _ => format!("({a} NOT IN ({b}, {c}))"),
            }
        }
    }
}

fn one_of(random: &mut Random, types: &[&str], depth: usize) -> String {
    let ty = random.pick(types);
    expression(random, ty, depth)
}

fn integer(random: &mut Random, ty: &str, depth: usize) -> String {
    let name = match ty {
        "i2" => "smallint",
        "i4" => "integer",
        _ => "bigint",
    };
    match random.below(10) {
        0..=3 => {
            let op = random.pick(&["+", "-", "*", "/", "%"]);
            pair(random, ty, op, depth)
        }
        4 => format!("(- {})", expression(random, ty, depth)),
        5 => format!("abs({})", expression(random, ty, depth)),
        6 => {
            let from = random.pick(&["i8", "f4", "f8", "n", "n122", "sn", "b"]);
            let from = if from == "b" && ty != "i4" { "n" } else { from };
            format!("({})::{name}", expression(random, from, depth))
        }
        7 => format!("length({})::{name}", one_of(random, &["s", "c5"], depth)),
        8 => format!("({})::{name}", pair(random, "d", "-", depth)),
        _ => format!("extract({} FROM {})::{name}", field(random), one_of(random, MOMENTS, depth)),
    }
}

fn field(random: &mut Random) -> &'static str {
    random.pick(&[
        "microseconds",
        "milliseconds",
        "second",
        "minute",
        "hour",
        "day",
        "week",
        "month",
        "quarter",
        "year",
        "decade",
        "century",
        "millennium",
        "epoch",
        "julian",
        "dow",
        "isodow",
        "doy",
        "isoyear",
        "timezone",
    ])
}

/// What has fields to extract; timestamps twice as often.
const MOMENTS: &[&str] = &["d", "ti", "ts", "ts", "tz", "iv"];

fn float(random: &mut Random, ty: &str, depth: usize) -> String {
    let name = if ty == "f4" { "real" } else { "float8" };
    match random.below(8) {
        0..=3 => {
            let op = random.pick(&["+", "-", "*", "/"]);
            pair(random, ty, op, depth)
        }
        4 => format!("({})::{name}", one_of(random, &["i8", "n", "f8", "f4", "sn"], depth)),
        5 if ty == "f8" => {
            let function = random.pick(&["round", "floor", "ceil", "abs"]);
            format!("{function}({})", expression(random, ty, depth))
        }
        6 => format!("abs({})", expression(random, ty, depth)),
        _ => format!("(- {})", expression(random, ty, depth)),
    }
}

fn numeric(random: &mut Random, depth: usize) -> String {
    let ty = random.pick(&["n", "n122"]);
    match random.below(9) {
        0..=3 => {
            let op = random.pick(&["+", "-", "*", "/", "%"]);
            pair(random, ty, op, depth)
        }
        4 => format!("round({}, {})", expression(random, ty, depth), random.between(-5, 8)),
        5 => {
            let function = random.pick(&["round", "floor", "ceil", "abs", "-"]);
            format!("{function}({})", expression(random, ty, depth))
        }
        6 => {
            let from = random.pick(&["i8", "f4", "f8", "sn", "n", "n122"]);
            let to = random.pick(&["numeric", "numeric(8,3)", "numeric(4,0)", "numeric(30,20)"]);
            format!("({})::{to}", expression(random, from, depth))
        }
        _ => format!("extract({} FROM {})", field(random), one_of(random, MOMENTS, depth)),
    }
}

fn castable(random: &mut Random, depth: usize) -> String {
    let from = random
        .pick(&["b", "i4", "i8", "f4", "f8", "n", "s", "v10", "c5", "d", "ts", "iv", "u", "m"]);
    format!("({})", expression(random, from, depth))
}

fn text(random: &mut Random, depth: usize) -> String {
    let n = random.between(-6, 9);
    match random.below(13) {
        0 => pair(random, "s", "||", depth),
        1 => {
            let side = random.pick(&["both", "leading", "trailing"]);
            format!("trim({side} 'a x' from {})", expression(random, "s", depth))
        }
        2 => format!("left({}, {n})", expression(random, "s", depth)),
        3 => format!("right({}, {n})", expression(random, "s", depth)),
        4 => format!("substring({} from {n})", expression(random, "s", depth)),
        5 => format!(
            "substring({} from {n} for {})",
            expression(random, "s", depth),
            random.between(-1, 8)
        ),
        6 => {
            let by = random.pick(&["a", ",", "aa", "", " ", "ab"]);
            format!("split_part({}, '{by}', {n})", expression(random, "s", depth))
        }
        7 => {
            let function = random.pick(&["lower", "upper", "md5", "btrim", "ltrim", "rtrim"]);
            format!("{function}({})", expression(random, "s", depth))
        }
        8 => {
            format!("encode(sha256(convert_to({}, 'UTF8')), 'hex')", expression(random, "s", depth))
        }
        9 => {
            let key = random.pick(&["'a'", "'b'", "0", "-1", "2"]);
            let ty = random.pick(&["j", "jb"]);
            format!("({} ->> {key})", json(random, ty))
        }
        10 => {
            let path = random.pick(&["{}", "{a}", "{a,b}", "{b,0}", "{0,a}", "{-1}", "{a,1,ab}"]);
            format!("({} #>> '{path}')", random.pick(&["j", "jb"]))
        }
        _ => format!("{}::text", castable(random, depth)),
    }
}

fn date(random: &mut Random, depth: usize) -> String {
    match random.below(3) {
        0 => format!(
            "({} {} {})",
            expression(random, "d", depth),
            random.pick(&["+", "-"]),
            expression(random, "i4", depth)
        ),
        1 => format!("(i4 + {})", expression(random, "d", depth)),
        _ => format!("({})::date", one_of(random, &["ts", "tz"], depth)),
    }
}

fn time(random: &mut Random, depth: usize) -> String {
    match random.below(2) {
        0 => format!(
            "({} {} {})",
            expression(random, "ti", depth),
            random.pick(&["+", "-"]),
            operand(random, "iv", depth)
        ),
        _ => format!("({})::time", one_of(random, &["ts", "tz", "iv"], depth)),
    }
}

fn timestamp(random: &mut Random, ty: &str, depth: usize) -> String {
    let name = if ty == "ts" { "timestamp" } else { "timestamptz" };
    match random.below(6) {
        0..=2 => format!(
            "({} {} {})",
            expression(random, ty, depth),
            random.pick(&["+", "-"]),
            operand(random, "iv", depth)
        ),
        3 => {
            let unit = random.pick(&[
                "microseconds",
                "milliseconds",
                "second",
                "minute",
                "hour",
                "day",
                "week",
                "month",
                "quarter",
                "year",
                "decade",
                "century",
                "millennium",
            ]);
            format!("date_trunc('{unit}', {})", expression(random, ty, depth))
        }
        4 if ty == "ts" => format!(
            "({} {} {})",
            expression(random, "d", depth),
            random.pick(&["+", "-"]),
            operand(random, "iv", depth)
        ),
        _ => format!("({})::{name}", one_of(random, &["d", "ts", "tz"], depth)),
    }
}

fn interval(random: &mut Random, depth: usize) -> String {
    match random.below(5) {
        0 => {
            let ty = random.pick(&["ts", "tz", "ti"]);
            pair(random, ty, "-", depth)
        }
        1 => {
            let op = random.pick(&["+", "-"]);
            pair(random, "iv", op, depth)
        }
        2 => format!("(- {})", expression(random, "iv", depth)),
        3 => {
            let unit = random
                .pick(&["second", "hour", "day", "month", "quarter", "year", "decade", "century"]);
            format!("date_trunc('{unit}', {})", expression(random, "iv", depth))
        }
        _ => format!("({})::interval", expression(random, "ti", depth)),
    }
}

fn json(random: &mut Random, ty: &str) -> String {
    let key = random.pick(&["'a'", "'b'", "'ab'", "''", "0", "1", "-1", "-2"]);
    match random.below(4) {
        0 => ty.to_owned(),
        1 if ty == "jb" => "j::jsonb".to_owned(),
        2 => format!("({ty} -> {key} -> {})", random.pick(&["'a'", "0"])),
        _ => format!("({ty} -> {key})"),
    }
}
