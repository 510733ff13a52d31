//! Random SQL expressions over columns of every type.
//!
//! Each call reads a column, so that PostgreSQL cannot compute a part of it while planning: it would
//! raise the errors of branches that are never taken.
//!
//! A new type: a line in [`TABLE`], one in [`literal`], an arm in [`expression`] (or none, for what
//! every type has), and its values in `main::cell`.

use crate::random::Random;
use std::ops::{Deref, DerefMut};

/// The columns that an expression may read, and the dice.
pub(crate) struct Scope<'a> {
    random: &'a mut Random,
    /// Type and column, as SQL writes it. Every type of [`TABLE`] has one.
    pub(crate) columns: Vec<(&'static str, String)>,
    /// Before 15 a numeric's scale lies between 0 and its precision.
    odd_scales: bool,
}

impl<'a> Scope<'a> {
    /// Over one table whose columns have the names of their types.
    pub(crate) fn table(random: &'a mut Random, major: u32) -> Self {
        let columns = TABLE.iter().map(|(name, _)| (*name, (*name).to_owned())).collect();
        Self { random, columns, odd_scales: major >= 15 }
    }

    /// Over these columns, by type.
    pub(crate) fn over(
        random: &'a mut Random,
        columns: Vec<(&'static str, String)>,
        major: u32,
    ) -> Self {
        Self { random, columns, odd_scales: major >= 15 }
    }

    fn column(&mut self, ty: &str) -> String {
        let count = self.columns.iter().filter(|(of, _)| *of == ty).count();
        let at = self.random.below(count);
        self.columns.iter().filter(|(of, _)| *of == ty).nth(at).unwrap().1.clone()
    }
}

impl Deref for Scope<'_> {
    type Target = Random;
    fn deref(&self) -> &Random {
        self.random
    }
}

impl DerefMut for Scope<'_> {
    fn deref_mut(&mut self) -> &mut Random {
        self.random
    }
}

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

pub(crate) fn literal(scope: &mut Scope<'_>, ty: &str) -> String {
    match ty {
        "b" => scope.pick(&["true", "false"]).to_owned(),
        "i2" => format!("{}::smallint", scope.between(-9, 9)),
        "i4" => scope.between(-9, 9).to_string(),
        "i8" => format!("{}::bigint", scope.between(-9, 9)),
        "f4" => format!("'{}'::real", scope.pick(&["0", "1.5", "-2e30", "NaN"])),
        "f8" => format!("'{}'::float8", scope.pick(&["0", "2.5", "-1e200", "Infinity"])),
        "n" | "n122" => {
            scope.pick(&["0.00", "1.5", "-7", "0.001", "1234567890.123456789"]).to_owned()
        }
        "s" | "sn" | "v10" | "c5" => {
            format!("'{}'", scope.pick(&["", "a", "ab", "é", "12", "日", "x  "]))
        }
        "by" => "'\\x00ff'::bytea".to_owned(),
        "d" => format!("date '{}'", scope.pick(&["2000-02-29", "0001-01-01 BC", "infinity"])),
        "ti" => "time '13:14:15.16'".to_owned(),
        "ts" => format!("timestamp '{}'", scope.pick(&["2024-01-31 10:00:00", "-infinity"])),
        "tz" => "timestamptz '2024-12-31 23:59:59.999999+00'".to_owned(),
        "iv" => {
            let texts = ["1 mon", "-1 days", "1 year -1 mons +2 days 03:04:05.6", "36:00:00"];
            format!("interval '{}'", scope.pick(&texts))
        }
        "u" => "'00000000-0000-0000-0000-000000000001'::uuid".to_owned(),
        "m" => format!("'{}'::mood", scope.pick(&["sad", "ok"])),
        _ => scope.column(ty),
    }
}

/// A column, or a smaller expression.
pub(crate) fn expression(scope: &mut Scope<'_>, ty: &str, depth: usize) -> String {
    if depth == 0 || scope.one_in(5) {
        return scope.column(ty);
    }
    let depth = depth - 1;
    if scope.one_in(6) {
        return any(scope, ty, depth);
    }
    match ty {
        "b" => boolean(scope, depth),
        "i2" | "i4" | "i8" => integer(scope, ty, depth),
        "f4" | "f8" => float(scope, ty, depth),
        "n" | "n122" => numeric(scope, depth),
        "s" | "sn" => text(scope, depth),
        "v10" => format!("{}::varchar(3)", castable(scope, depth)),
        "c5" => format!("{}::char(4)", castable(scope, depth)),
        "d" => date(scope, depth),
        "ti" => time(scope, depth),
        "ts" | "tz" => timestamp(scope, ty, depth),
        "iv" => interval(scope, depth),
        "j" | "jb" => json(scope, ty),
        _ => any(scope, ty, depth),
    }
}

fn operand(scope: &mut Scope<'_>, ty: &str, depth: usize) -> String {
    if scope.one_in(3) { literal(scope, ty) } else { expression(scope, ty, depth) }
}

fn pair(scope: &mut Scope<'_>, ty: &str, op: &str, depth: usize) -> String {
    let (a, b) = (expression(scope, ty, depth), operand(scope, ty, depth));
    if scope.one_in(4) { format!("({b} {op} {a})") } else { format!("({a} {op} {b})") }
}

/// Types of which one side of an operator may have another than the other side: PostgreSQL chooses.
const FAMILIES: &[&[&str]] =
    &[&["i2", "i4", "i8", "n", "n122", "f4", "f8"], &["s", "v10", "c5"], &["d", "ts", "tz"]];

/// An expression of this type, or of one that it can be mixed with.
fn relative(scope: &mut Scope<'_>, ty: &str, depth: usize) -> String {
    match FAMILIES.iter().find(|family| family.contains(&ty)) {
        Some(family) if scope.one_in(2) => one_of(scope, family, depth),
        _ => operand(scope, ty, depth),
    }
}

/// What exists for every type.
fn any(scope: &mut Scope<'_>, ty: &str, depth: usize) -> String {
    let a = expression(scope, ty, depth);
    let b = expression(scope, ty, depth);
    let condition = expression(scope, "b", depth);
    let comparable = !matches!(ty, "j" | "jb");
    match scope.below(if comparable { 6 } else { 2 }) {
        0 => format!("CASE WHEN {condition} THEN {a} ELSE {b} END"),
        1 => format!("coalesce({a}, {b})"),
        2 => format!("nullif({a}, {b})"),
        3 => format!("greatest({a}, {b})"),
        4 => format!("least({a}, {b}, {})", operand(scope, ty, 0)),
        _ => format!("CASE {a} WHEN {b} THEN {a} END"),
    }
}

/// Of no type that is known here: what the choice of a common type or an overload gives.
pub(crate) fn mixed(scope: &mut Scope<'_>, depth: usize) -> String {
    let family = FAMILIES[scope.below(FAMILIES.len())];
    let (a, b) = (one_of(scope, family, depth), one_of(scope, family, depth));
    let condition = expression(scope, "b", depth);
    match scope.below(10) {
        0 => format!("CASE WHEN {condition} THEN {a} ELSE {b} END"),
        1 => format!("coalesce({a}, {b}, {})", one_of(scope, family, 0)),
        2 => format!("greatest({a}, {b})"),
        3 => format!("least({a}, {b}, {})", one_of(scope, family, 0)),
        4 => format!("nullif({a}, {b})"),
        5 => format!("CASE {a} WHEN {b} THEN {} END", one_of(scope, FAMILIES[0], 0)),
        _ => {
            let (a, b) = (one_of(scope, FAMILIES[0], depth), one_of(scope, FAMILIES[0], depth));
            let op = scope.pick(&["+", "-", "*", "/", "%"]);
            format!("({a} {op} {b})")
        }
    }
}

fn boolean(scope: &mut Scope<'_>, depth: usize) -> String {
    let ty = scope.pick(COMPARABLE);
    match scope.below(13) {
        0..=4 => {
            let op = scope.pick(&["=", "<>", "<", "<=", ">", ">="]);
            let (a, b) = (expression(scope, ty, depth), relative(scope, ty, depth));
            if scope.one_in(4) { format!("({b} {op} {a})") } else { format!("({a} {op} {b})") }
        }
        5 => {
            let op = scope.pick(&["AND", "OR"]);
            pair(scope, "b", op, depth)
        }
        6 => format!("(NOT {})", expression(scope, "b", depth)),
        7 => {
            let test = scope.pick(&["IS NULL", "IS NOT NULL"]);
            format!("({} {test})", expression(scope, ty, depth))
        }
        8 => {
            let test = scope.pick(&["IS TRUE", "IS NOT FALSE", "IS UNKNOWN", "IS FALSE"]);
            format!("({} {test})", expression(scope, "b", depth))
        }
        9 => {
            let op = scope.pick(&["IS DISTINCT FROM", "IS NOT DISTINCT FROM"]);
            format!("({} {op} {})", expression(scope, ty, depth), relative(scope, ty, depth))
        }
        10 => like(scope, depth),
        11 => format!("({})::boolean", one_of(scope, &["s", "i4", "v10"], depth)),
        _ => {
            let a = expression(scope, ty, depth);
            let (b, c) = (relative(scope, ty, 0), relative(scope, ty, 0));
            match scope.below(3) {
                0 => format!("({a} BETWEEN {b} AND {c})"),
                1 => format!("({a} IN ({b}, {c}))"),
                _ => format!("({a} NOT IN ({b}, {c}))"),
            }
        }
    }
}

fn like(scope: &mut Scope<'_>, depth: usize) -> String {
    const PARTS: &[&str] = &["a", "b", "%", "_", "\\\\", "\\%", "\\_", "\\", "é", "日", "🎲", " "];
    let op = scope.pick(&["LIKE", "NOT LIKE"]);
    let pattern = if scope.one_in(4) {
        one_of(scope, &["s", "v10"], 0)
    } else {
        let pattern: String = (0..scope.below(6)).map(|_| scope.pick(PARTS)).collect();
        format!("'{pattern}'")
    };
    format!("({} {op} {pattern})", one_of(scope, &["s", "s", "v10", "c5"], depth))
}

fn one_of(scope: &mut Scope<'_>, types: &[&str], depth: usize) -> String {
    let ty = scope.pick(types);
    expression(scope, ty, depth)
}

fn integer(scope: &mut Scope<'_>, ty: &str, depth: usize) -> String {
    let name = match ty {
        "i2" => "smallint",
        "i4" => "integer",
        _ => "bigint",
    };
    match scope.below(11) {
        0..=3 => {
            let op = scope.pick(&["+", "-", "*", "/", "%"]);
            pair(scope, ty, op, depth)
        }
        10 => format!("({} ->> 0)::{name}", scope.column("jb")),
        4 => format!("(- {})", expression(scope, ty, depth)),
        5 => format!("abs({})", expression(scope, ty, depth)),
        6 => {
            let from = scope.pick(&["i8", "f4", "f8", "n", "n122", "sn", "b"]);
            let from = if from == "b" && ty != "i4" { "n" } else { from };
            format!("({})::{name}", expression(scope, from, depth))
        }
        7 => {
            let function = scope.pick(&["length", "char_length", "character_length"]);
            format!("{function}({})::{name}", one_of(scope, &["s", "v10", "c5"], depth))
        }
        8 => format!("({})::{name}", pair(scope, "d", "-", depth)),
        _ => format!("{}::{name}", extract(scope, depth)),
    }
}

fn extract(scope: &mut Scope<'_>, depth: usize) -> String {
    format!("extract({} FROM {})", field(scope), one_of(scope, MOMENTS, depth))
}

fn field(scope: &mut Scope<'_>) -> &'static str {
    scope.pick(&[
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

fn float(scope: &mut Scope<'_>, ty: &str, depth: usize) -> String {
    let name = if ty == "f4" { "real" } else { "float8" };
    match scope.below(8) {
        0..=3 => {
            let op = scope.pick(&["+", "-", "*", "/"]);
            pair(scope, ty, op, depth)
        }
        4 => format!("({})::{name}", one_of(scope, &["i8", "n", "f8", "f4", "sn"], depth)),
        5 if ty == "f8" => {
            let function = scope.pick(&["round", "floor", "ceil", "ceiling", "abs"]);
            format!("{function}({})", expression(scope, ty, depth))
        }
        6 => format!("abs({})", expression(scope, ty, depth)),
        _ => format!("(- {})", expression(scope, ty, depth)),
    }
}

fn numeric(scope: &mut Scope<'_>, depth: usize) -> String {
    let ty = scope.pick(&["n", "n122"]);
    match scope.below(9) {
        0..=3 => {
            let op = scope.pick(&["+", "-", "*", "/", "%"]);
            pair(scope, ty, op, depth)
        }
        4 => format!("round({}, {})", expression(scope, ty, depth), scope.between(-5, 8)),
        5 => {
            let function = scope.pick(&["round", "floor", "ceil", "abs", "-"]);
            format!("{function}({})", expression(scope, ty, depth))
        }
        6 => {
            let from = scope.pick(&["i8", "f4", "f8", "sn", "n", "n122"]);
            let to = scope.pick(&["numeric", "numeric(8,3)", "numeric(4,0)", "numeric(30,20)"]);
            let odd = scope.pick(&["numeric(3,-2)", "numeric(3,5)", "numeric(12,-9)"]);
            let to = if scope.odd_scales && scope.one_in(4) { odd } else { to };
            format!("({})::{to}", expression(scope, from, depth))
        }
        _ => extract(scope, depth),
    }
}

fn castable(scope: &mut Scope<'_>, depth: usize) -> String {
    let from = scope
        .pick(&["b", "i4", "i8", "f4", "f8", "n", "s", "v10", "c5", "d", "ts", "iv", "u", "m"]);
    format!("({})", expression(scope, from, depth))
}

/// Positions and lengths, those far out too: sums of two must not overflow.
fn position(scope: &mut Scope<'_>) -> i64 {
    if scope.one_in(12) {
        return [i64::from(i32::MAX), i64::from(i32::MIN), -2_147_483_647][scope.below(3)];
    }
    scope.between(-6, 9)
}

fn text(scope: &mut Scope<'_>, depth: usize) -> String {
    let n = position(scope);
    match scope.below(16) {
        0 => pair(scope, "s", "||", depth),
        1 => {
            let side = scope.pick(&["both", "leading", "trailing"]);
            format!("trim({side} 'a x' from {})", expression(scope, "s", depth))
        }
        2 => format!("left({}, {n})", one_of(scope, &["s", "v10", "c5"], depth)),
        3 => format!("right({}, {n})", one_of(scope, &["s", "v10", "c5"], depth)),
        4 => format!("substring({} from {n})", one_of(scope, &["s", "v10", "c5"], depth)),
        5 => {
            let length = if scope.one_in(2) { position(scope) } else { scope.between(-1, 8) };
            match scope.below(2) {
                0 => {
                    format!("substring({} from {n} for {length})", expression(scope, "s", depth))
                }
                _ => format!("substr({}, {n}, {length})", expression(scope, "s", depth)),
            }
        }
        6 => {
            let by = scope.pick(&["a", ",", "aa", "", " ", "ab", "é", "日本"]);
            format!("split_part({}, '{by}', {n})", expression(scope, "s", depth))
        }
        7 => {
            let function = scope.pick(&["lower", "upper", "md5", "btrim", "ltrim", "rtrim"]);
            format!("{function}({})", expression(scope, "s", depth))
        }
        8 => {
            format!("encode(sha256(convert_to({}, 'UTF8')), 'hex')", expression(scope, "s", depth))
        }
        9 => {
            let key = scope.pick(&["'a'", "'b'", "0", "-1", "2"]);
            let ty = scope.pick(&["j", "jb"]);
            format!("({} ->> {key})", json(scope, ty))
        }
        10 => {
            let path = scope.pick(&["{}", "{a}", "{a,b}", "{b,0}", "{0,a}", "{-1}", "{a,1,ab}"]);
            let ty = scope.pick(&["j", "jb"]);
            format!("({} #>> '{path}')", scope.column(ty))
        }
        // Beside a text anything may stand.
        11 => {
            let (a, b) = (expression(scope, "s", depth), castable(scope, depth));
            if scope.one_in(2) { format!("({a} || {b})") } else { format!("({b} || {a})") }
        }
        12 => {
            let function = scope.pick(&["btrim", "ltrim", "rtrim"]);
            format!("{function}({}, {})", expression(scope, "s", depth), operand(scope, "s", 0))
        }
        13 => {
            format!("split_part({}, {}, {n})", expression(scope, "s", depth), scope.column("v10"))
        }
        _ => format!("{}::text", castable(scope, depth)),
    }
}

fn date(scope: &mut Scope<'_>, depth: usize) -> String {
    match scope.below(3) {
        0 => format!(
            "({} {} {})",
            expression(scope, "d", depth),
            scope.pick(&["+", "-"]),
            expression(scope, "i4", depth)
        ),
        1 => format!("({} + {})", scope.column("i4"), expression(scope, "d", depth)),
        _ => format!("({})::date", one_of(scope, &["ts", "tz"], depth)),
    }
}

fn time(scope: &mut Scope<'_>, depth: usize) -> String {
    match scope.below(2) {
        0 => format!(
            "({} {} {})",
            expression(scope, "ti", depth),
            scope.pick(&["+", "-"]),
            operand(scope, "iv", depth)
        ),
        _ => format!("({})::time", one_of(scope, &["ts", "tz", "iv"], depth)),
    }
}

fn timestamp(scope: &mut Scope<'_>, ty: &str, depth: usize) -> String {
    let name = if ty == "ts" { "timestamp" } else { "timestamptz" };
    match scope.below(6) {
        0..=2 => format!(
            "({} {} {})",
            expression(scope, ty, depth),
            scope.pick(&["+", "-"]),
            operand(scope, "iv", depth)
        ),
        3 => {
            let unit = scope.pick(&[
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
            format!("date_trunc('{unit}', {})", expression(scope, ty, depth))
        }
        4 if ty == "ts" => format!(
            "({} {} {})",
            expression(scope, "d", depth),
            scope.pick(&["+", "-"]),
            operand(scope, "iv", depth)
        ),
        _ => format!("({})::{name}", one_of(scope, &["d", "ts", "tz"], depth)),
    }
}

fn interval(scope: &mut Scope<'_>, depth: usize) -> String {
    match scope.below(5) {
        0 => {
            let ty = scope.pick(&["ts", "tz", "ti"]);
            pair(scope, ty, "-", depth)
        }
        1 => {
            let op = scope.pick(&["+", "-"]);
            pair(scope, "iv", op, depth)
        }
        2 => format!("(- {})", expression(scope, "iv", depth)),
        3 => {
            let unit = scope
                .pick(&["second", "hour", "day", "month", "quarter", "year", "decade", "century"]);
            format!("date_trunc('{unit}', {})", expression(scope, "iv", depth))
        }
        _ => format!("({})::interval", expression(scope, "ti", depth)),
    }
}

fn json(scope: &mut Scope<'_>, ty: &str) -> String {
    let key = scope.pick(&["'a'", "'b'", "'ab'", "''", "'é'", "0", "1", "-1", "-2"]);
    let column = scope.column(ty);
    match scope.below(4) {
        0 => column,
        1 if ty == "j" => format!("{}::json", scope.column("jb")),
        2 => format!("({column} -> {key} -> {})", scope.pick(&["'a'", "0"])),
        _ => format!("({column} -> {key})"),
    }
}
