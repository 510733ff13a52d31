//! PostgreSQL as the judge of values and expressions: what it prints, what it computes, what it
//! refuses.
//!
//! Random tests print their seed; `SEED=… cargo test -p walview-core --test oracle` runs it again.
//! Without PostgreSQL these tests fail; they are never skipped.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::string_slice,
    clippy::disallowed_methods,
    reason = "a test stops at the first surprise"
)]

mod binary;
mod expressions;
mod follow;
mod literals;
#[path = "../programs/mod.rs"]
mod programs;
mod random;
mod schema;
mod server;
mod views;

use expressions::{Scope, TABLE, expression, mixed};
use random::Random;
use server::{Answer, Server};
use std::ops::Range;
use std::time::{Duration, Instant};
use walview_core::catalog::{Catalog, Collation, Column, ReplicaIdentity, Table, UniqueKey};
use walview_core::expr::{ColumnRef, Env, EvalError, Expr, ExprKind, Func};
use walview_core::plan::ViewKind;
use walview_core::sql;
use walview_core::value::{Interval, Type, Value};

fn answer_of(result: Result<Value, EvalError>, ty: &Type) -> Answer {
    match result {
        Ok(Value::Null) => Answer::Null,
        Ok(value) => Answer::Text(value.to_text(ty)),
        Err(error) => Answer::Error(error.state.code().to_owned(), error.message.into_owned()),
    }
}

/// Errors agree by SQLSTATE, and by message where PostgreSQL's names no value.
fn agree(ours: &Answer, theirs: &Answer) -> bool {
    match (ours, theirs) {
        (Answer::Error(a, ours), Answer::Error(b, theirs)) => {
            a == b && (ours == theirs || theirs.contains('"'))
        }
        _ => ours == theirs,
    }
}

fn check(wrong: &[String]) {
    let shown: Vec<&str> = wrong.iter().take(250).map(String::as_str).collect();
    assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), shown.join("\n"));
}

struct NoRow;

impl Env for NoRow {
    fn column(&self, _: ColumnRef) -> &Value {
        &Value::Null
    }
}

fn numeric_operation(random: &mut Random, major: u32) -> (String, Expr) {
    let numeric = |text: &str| {
        let ty = Type::Numeric(None);
        let value = Value::parse(&ty, text).unwrap();
        Expr { kind: ExprKind::Const(value), ty }
    };
    let call = |func: Func, args: Vec<Expr>| Expr {
        kind: ExprKind::Call(func, args),
        ty: Type::Numeric(None),
    };
    let (a, b) = (random.numeric_text(), random.numeric_text());
    let left = numeric(&a);
    let pair = |op: &str, func: Func| {
        (format!("'{a}'::numeric {op} '{b}'::numeric"), call(func, vec![numeric(&a), numeric(&b)]))
    };
    match random.below(10) {
        0 => pair("+", Func::Add),
        1 => pair("-", Func::Sub),
        2 => pair("*", Func::Mul),
        3..=4 => pair("/", Func::Div),
        5 => pair("%", Func::Mod),
        6 => {
            let digits = random.between(-12, 30);
            let digits_expr = Expr { kind: ExprKind::Const(Value::Int(digits)), ty: Type::Int4 };
            (format!("round('{a}'::numeric, {digits})"), call(Func::Round, vec![left, digits_expr]))
        }
        7 => {
            let precision = random.between(1, 40);
            let odd = major >= 15;
            let scale = if odd { random.between(-5, 40) } else { random.between(0, precision) };
            let ty = Type::Numeric(Some((
                u16::try_from(precision).unwrap(),
                i16::try_from(scale).unwrap(),
            )));
            let cast = Expr { kind: ExprKind::Cast(Box::new(left)), ty };
            (format!("'{a}'::numeric::numeric({precision},{scale})"), cast)
        }
        8 => {
            let (name, func) =
                [("floor", Func::Floor), ("ceil", Func::Ceil), ("round", Func::Round)]
                    [random.below(3)];
            (format!("{name}('{a}'::numeric)"), call(func, vec![left]))
        }
        _ => {
            let (name, ty) = [
                ("int4", Type::Int4),
                ("int8", Type::Int8),
                ("float8", Type::Float8),
                ("float4", Type::Float4),
            ][random.below(4)]
            .clone();
            (format!("'{a}'::numeric::{name}"), Expr { kind: ExprKind::Cast(Box::new(left)), ty })
        }
    }
}

fn numeric_operations(server: &Server) -> Vec<String> {
    let mut random = Random::new("numeric operations");
    let operations: Vec<(String, Expr)> =
        (0..12_000).map(|_| numeric_operation(&mut random, server.major())).collect();
    let answers = server.ask(operations.iter().map(|(sql, _)| (sql.as_str(), "")));
    let mut wrong = Vec::new();
    for ((sql, expr), theirs) in operations.iter().zip(answers) {
        let ours = answer_of(expr.eval(&NoRow), &expr.ty);
        if !agree(&ours, &theirs) {
            wrong.push(format!("{sql}\n  ours   {ours:?}\n  theirs {theirs:?}"));
        }
    }
    wrong
}

const KINDS: &[(&str, Type)] = &[
    ("bool", Type::Bool),
    ("int2", Type::Int2),
    ("int4", Type::Int4),
    ("int8", Type::Int8),
    ("float4", Type::Float4),
    ("float8", Type::Float8),
    ("numeric", Type::Numeric(None)),
    ("date", Type::Date),
    ("time", Type::Time),
    ("timestamp", Type::Timestamp),
    ("timestamptz", Type::TimestampTz),
    ("interval", Type::Interval),
    ("uuid", Type::Uuid),
    ("bytea", Type::Bytea),
    ("text", Type::Text),
];

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// What we print PostgreSQL reads and prints again, and we read it back as the same value.
fn text_of_values(server: &Server) -> Vec<String> {
    let mut random = Random::new("text of values");
    let mut values = Vec::new();
    for _ in 0..1_000 {
        for (name, ty) in KINDS {
            let value = random.value(name);
            values.push((*name, ty, value.to_text(ty), value));
        }
    }
    let questions: Vec<String> =
        values.iter().map(|(name, _, text, _)| format!("{}::{name}", quoted(text))).collect();
    let answers = server.ask(questions.iter().map(|sql| (sql.as_str(), "")));
    let mut wrong = Vec::new();
    for ((name, ty, text, value), theirs) in values.iter().zip(answers) {
        let Answer::Text(theirs) = theirs else {
            if server.major() == 14 && *name == "interval" {
                // It does not read all that it prints.
                continue;
            }
            wrong.push(format!("{name} {text:?}: {theirs:?}"));
            continue;
        };
        if theirs != *text {
            wrong.push(format!("{name}: ours {text:?}, theirs {theirs:?}"));
        }
        match Value::parse(ty, &theirs) {
            Ok(back) if back == *value => {}
            other => wrong.push(format!("{name} {theirs:?} read as {other:?}, was {value:?}")),
        }
    }
    wrong
}

fn column_type(name: &str, oid: u32) -> Type {
    match name {
        "b" => Type::Bool,
        "i2" => Type::Int2,
        "id" | "i4" => Type::Int4,
        "i8" => Type::Int8,
        "f4" => Type::Float4,
        "f8" => Type::Float8,
        "n" => Type::Numeric(None),
        "n122" => Type::Numeric(Some((12, 2))),
        "v10" => Type::Varchar(Some(10)),
        "c5" => Type::Char(5),
        "by" => Type::Bytea,
        "d" => Type::Date,
        "ti" => Type::Time,
        "ts" => Type::Timestamp,
        "tz" => Type::TimestampTz,
        "iv" => Type::Interval,
        "u" => Type::Uuid,
        "j" => Type::Json,
        "jb" => Type::Jsonb,
        "m" => Type::Enum {
            oid,
            name: "mood".to_owned(),
            labels: ["sad", "ok", "happy", "a"].map(str::to_owned).to_vec(),
        },
        _ => Type::Text,
    }
}

fn catalog() -> Catalog {
    let names = std::iter::once("id").chain(TABLE.iter().map(|(name, _)| *name));
    let columns = names
        .zip(1..)
        .map(|(name, attnum)| {
            let ty = column_type(name, 70_000);
            let collated = matches!(ty, Type::Text | Type::Varchar(_) | Type::Char(_));
            Column {
                type_oid: 0,
                type_modifier: -1,
                name: name.to_owned(),
                attnum,
                ty,
                not_null: name == "id",
                collation: if collated { Collation::C } else { Collation::None },
                generated: false,
                toastable: false,
                added: None,
            }
        })
        .collect();
    Catalog {
        tables: vec![Table {
            oid: 1,
            schema: "public".to_owned(),
            name: "t".to_owned(),
            columns,
            unique_keys: vec![UniqueKey {
                name: "t_pkey".to_owned(),
                columns: vec![0],
                primary: true,
            }],
            replica_identity: ReplicaIdentity::Default,
        }],
        ..Catalog::default()
    }
}

/// Ends of months, years, ages and eras, leap days, and where clocks in Europe were changed.
const EDGES: &[&str] = &[
    "2024-02-29 23:59:59.999999",
    "2023-02-28 24:00:00",
    "1900-02-28 12:00:00",
    "2000-12-31 23:59:59.999999",
    "2001-01-01 00:00:00",
    "1999-12-31 00:00:00.000001",
    "2024-12-30 00:00:00",
    "2020-12-31 23:59:60",
    "2026-03-29 01:00:00",
    "2026-03-29 02:30:00",
    "2026-10-25 00:59:59.9999995",
    "0001-01-01 00:00:00",
    "0001-12-31 23:59:59 BC",
    "0101-01-01 00:00:00 BC",
    "4714-11-24 00:00:00 BC",
    "294276-12-31 23:59:59.999999",
    "1970-01-01 00:00:00",
    "2024-08-31 10:20:30.5",
];

/// The literal of a random value for a column, now and then NULL.
fn cell(random: &mut Random, name: &str, major: u32) -> String {
    if random.one_in(8) {
        return "NULL".to_owned();
    }
    let text = match name {
        "iv" if major >= 17 && random.one_in(12) => {
            random.pick(&["infinity", "-infinity"]).to_owned()
        }
        // 14 does not read all that it prints.
        "iv" if major == 14 => {
            let interval =
                Interval { micros: random.between(-1 << 50, 1 << 50), ..random.interval() };
            Value::Interval(interval).to_text(&Type::Interval)
        }
        "d" | "ts" | "tz" if random.one_in(5) => random.pick(EDGES).to_owned(),
        "i2" | "i4" | "i8" if random.one_in(2) => random.between(-9, 9).to_string(),
        "f4" | "f8" if random.one_in(3) => {
            random.pick(&["0", "1", "2.5", "-0.5", "1e30"]).to_owned()
        }
        "n" if random.one_in(2) => random.pick(&["0", "1.50", "-2.5", "100", "0.0000"]).to_owned(),
        "n122" => format!("{}.{}", random.between(-9_999, 9_999), random.between(10, 99)),
        "sn" => match random.below(3) {
            0 => random.between(-99, 99).to_string(),
            1 => random.numeric_text(),
            _ => random.pick(&[" 5 ", "1e2", "x", "", "true"]).to_owned(),
        },
        "v10" | "c5" => random.text().chars().take(5).collect(),
        "j" | "jb" => random.json(3),
        "m" => random.pick(&["sad", "ok", "happy", "a"]).to_owned(),
        _ => {
            let kind = [
                ("b", "bool"),
                ("i2", "int2"),
                ("i4", "int4"),
                ("i8", "int8"),
                ("f4", "float4"),
                ("f8", "float8"),
                ("n", "numeric"),
                ("by", "bytea"),
                ("d", "date"),
                ("ti", "time"),
                ("ts", "timestamp"),
                ("tz", "timestamptz"),
                ("iv", "interval"),
                ("u", "uuid"),
                ("s", "text"),
            ]
            .into_iter()
            .find_map(|(column, kind)| (column == name).then_some(kind))
            .unwrap();
            random.value(kind).to_text(&Type::Text)
        }
    };
    quoted(&text)
}

struct OneRow(Vec<Value>);

impl Env for OneRow {
    fn column(&self, column: ColumnRef) -> &Value {
        assert_eq!(column.input, 0);
        &self.0[column.column]
    }
}

const ROWS: usize = 400;

/// At the edges of what types hold, and what random expressions once found, over a row where n is
/// 1.
const LIMITS: &[&str] = &[
    "round(n * 1.5, 1999)",
    "round(n * 1.5, 2001)",
    "round(n * 1.5, 17000)",
    "round(n * 1.5, -131072)",
    "round(n * 5e131071, -131072)",
    "round(n * 4e131071, -131072)",
    "round(n * 1e131071, -131073)",
    "n * 1e131071 * 9",
    "n * 1e131071 * 10",
    "n * 1e131071 + 9e131071",
    "n * 1e-16383 * 0.5",
    "n * 1e-16383 * 0.4",
    "n * 1e-9000 * 1e-9000",
    "n * 1e-1100 / 3",
    "n / 3e-1100",
    "n / 3e1100",
    "n * 1e131071 / 1e-16383",
    "n * 1e131071 / 7e131071",
    "n * 1e131071 % 7",
    "n * 1e-16383 % 7e-16000",
    "floor(n * -1e-16383)",
    "ceil(n * 1e-16383)",
    "ceil(n * 99999999999999999999999999999999999999.5)",
    "(n * 1e308)::float8",
    "(n * 1e309)::float8",
    "(n * 1e-323)::float8",
    "(n * 1e-324)::float8",
    "(n * 3.5e38)::real",
    "(n * 9223372036854775807.4)::bigint",
    "(n * 9223372036854775807.5)::bigint",
    "(n * -9223372036854775808.4)::bigint",
    "(n * -32768.5)::smallint",
    "(n * 9223372036854774784)::float8::bigint",
    "(n * 9223372036854775807)::float8::bigint",
    "(n * 999.995)::numeric(5,2)",
    "(n * 0.00001)::numeric(2,-3)",
    "(n * 99500)::numeric(2,-3)",
    "(n * 0.0095)::numeric(2,4)",
    "(n * 0.00995)::numeric(2,4)",
    "(n::int8 - 2) / -1",
    "(n * -9223372036854775808)::bigint / -1",
    "(n * -9223372036854775808)::bigint % -1",
    "-((n * -9223372036854775808)::bigint)",
    "abs((n * -2147483648)::integer)",
    "date '5874897-12-31' + (n * 1)::integer",
    "date '4714-11-24 BC' - (n * 1)::integer",
    "(date '294277-01-01' + (n * 0)::integer)::timestamp",
    "(date '294276-12-31' + (n * 0)::integer)::timestamp",
    "(date '2024-01-31' + (n * 0)::integer) + interval '1 mon'",
    "(date '4714-12-31 BC' + (n * 0)::integer) - interval '1 mon 8 days'",
    "(date '300000-01-01' + (n * 1)::integer) > timestamp '2024-01-01'",
    "(date '300000-01-01' + (n * 1)::integer) < timestamptz 'infinity'",
    "timestamptz '294276-12-31 00:00:00+00' BETWEEN date '4714-11-24 BC' + (n * 0)::integer AND date '5874897-12-31'",
    "nullif(date '5874897-12-31' - (n * 0)::integer, timestamp '-infinity')",
    "CASE date '300000-01-01' + (n * 1)::integer WHEN timestamp '2024-01-01' THEN 1 ELSE 2 END",
    "right(n::text || '日本é', -2147483648)",
    "left(n::text || '日本é', -2147483648)",
    "(n::varchar || '  ')::varchar(3) = n::char(4)",
    "(n::text || '  ')::varchar(3) <> (n::text || '\t')::char(4)",
    "nullif(n::char(2), (n::text || '   ')::varchar(9))",
    "CASE (n::text || ' ')::varchar(9) WHEN n::char(2) THEN 1 ELSE 2 END",
    "(n::text || ' ')::varchar(9) IN (n::char(2))",
    "('0' || n::text || 'x1')::float8",
    "(n::text || '0')::float8",
    "('  -0x' || n::text || '.8p-2 ')::float8",
    "('0x.' || n::text || 'fffffffffffffffffp-1070')::float8",
    "('0x1.00000' || n::text || '00000000001')::real",
    "('0x0p9999999999' || n::text)::float8",
    "('0x1p9999999999' || n::text)::real",
    "('0x' || n::text || 'p-1075')::float8",
    "('nan(' || n::text || '_a)')::real",
    "('0x' || n::text || 'p')::float8",
    "extract(epoch FROM (date '294276-12-31' + (n * 0)::integer) + time '23:59:59.999999')",
    "extract(epoch FROM (date '294247-01-10' + (n * 0)::integer) + time '04:00:54.775806')",
    "extract(epoch FROM (date '294247-01-10' + (n * 0)::integer) + time '04:00:54.775807')",
    "extract(week FROM date '2000-01-01' + (n * 366)::integer)",
    "extract(millennium FROM date '0001-12-31 BC' + (n * 0)::integer)",
];

/// The table `t` on the server, and its rows as we read them.
fn load(server: &Server, random: &mut Random, catalog: &Catalog) -> Vec<OneRow> {
    let mut script = "CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy', 'a');\n".to_owned();
    let columns: Vec<String> = TABLE.iter().map(|(name, ty)| format!("{name} {ty}")).collect();
    script.push_str(&format!("CREATE TABLE t (id int PRIMARY KEY, {});\n", columns.join(", ")));
    for id in 0..ROWS {
        let cells: Vec<String> =
            TABLE.iter().map(|(name, _)| cell(random, name, server.major())).collect();
        script.push_str(&format!("INSERT INTO t VALUES ({id}, {});\n", cells.join(", ")));
    }
    // A row for fixed expressions: n is 1, all else is NULL.
    script.push_str(&format!("INSERT INTO t (id, n) VALUES ({ROWS}, 1);\n"));
    server.psql(&script);
    let types = catalog.tables[0].columns.iter().map(|column| &column.ty);
    let rows = server.rows("SELECT * FROM t ORDER BY id");
    assert_eq!(rows.len(), ROWS + 1);
    rows.into_iter()
        .map(|row| {
            let values = row.into_iter().zip(types.clone()).map(|(text, ty)| {
                text.map_or(Value::Null, |text| Value::from_server(ty, &text).unwrap())
            });
            OneRow(values.collect())
        })
        .collect()
}

/// Before 15 a numeric's scale lies between 0 and its precision.
fn is_odd_scale(sql: &str) -> bool {
    ["numeric(2,-3)", "numeric(2,4)"].iter().any(|odd| sql.contains(odd))
}

fn bind(sql: &str, catalog: &Catalog) -> Option<Expr> {
    let parsed = sql::parse(&format!("SELECT id, {sql} AS x FROM t")).ok()?;
    let view = sql::bind(&parsed, "v", catalog, "public").ok()?;
    match view.kind {
        ViewKind::Rows { output } => output.into_iter().nth(1),
        ViewKind::Groups { .. } => None,
    }
}

/// Rows that one expression is asked over.
const ROWS_EACH: usize = 10;

/// How many pairs of an expression and a row: `PAIRS`, for `make differential`.
fn pairs() -> usize {
    std::env::var("PAIRS").map_or(100_000, |pairs| pairs.parse().expect("PAIRS is a number"))
}

/// Random expressions through the SQL front end, each over some rows.
#[expect(clippy::print_stderr, reason = "says how much was tried")]
fn random_expressions(server: &Server) -> Vec<String> {
    let mut random = Random::new("expressions");
    let catalog = catalog();
    let rows = load(server, &mut random, &catalog);
    let wanted = pairs() / ROWS_EACH;
    let (mut asked, mut tried, mut errors, mut wrong) = (0, 0, 0, Vec::new());
    while asked < wanted && wrong.len() < 1_000 {
        // So many that memory stays small and a round trip costs nothing.
        let mut questions = Vec::new();
        while questions.len() < 5_000.min(wanted - asked) {
            tried += 1;
            let mut scope = Scope::table(&mut random, server.major());
            let depth = 1 + scope.below(3);
            let sql = match scope.below(TABLE.len() + 3) {
                at if at < TABLE.len() => expression(&mut scope, TABLE[at].0, depth),
                _ => mixed(&mut scope, depth),
            };
            if let Some(expr) = bind(&sql, &catalog) {
                let first = random.below(ROWS - ROWS_EACH);
                questions.push((sql, expr, first..first + ROWS_EACH));
            }
        }
        asked += questions.len();
        errors += compare(server, &rows, &questions, &mut wrong);
    }
    eprintln!("{} pairs, {tried} expressions, {errors} errors", asked * ROWS_EACH);
    assert!(asked * 10 > tried * 8, "only {asked} of {tried} expressions bind");
    assert!(errors * 3 < asked * ROWS_EACH, "{errors} of {} answers are errors", asked * ROWS_EACH);
    wrong
}

/// Expressions at the edges of what types hold, and those that once went wrong.
fn fixed_expressions(server: &Server) -> Vec<String> {
    let catalog = catalog();
    let rows = load(server, &mut Random::new("fixed expressions"), &catalog);
    let questions: Vec<_> = LIMITS
        .iter()
        .filter(|sql| server.major() >= 15 || !is_odd_scale(sql))
        .map(|sql| {
            let expr = bind(sql, &catalog).unwrap_or_else(|| panic!("{sql} does not bind"));
            ((*sql).to_owned(), expr, ROWS..ROWS + 1)
        })
        .collect();
    let mut wrong = Vec::new();
    compare(server, &rows, &questions, &mut wrong);
    wrong
}

/// Asks the server and ourselves; how many answers were errors.
fn compare(
    server: &Server,
    rows: &[OneRow],
    questions: &[(String, Expr, Range<usize>)],
    wrong: &mut Vec<String>,
) -> usize {
    let answers =
        server.ask_rows(questions.iter().map(|(sql, _, ids)| (sql.as_str(), ids.clone())));
    let mut errors = 0;
    for ((sql, expr, ids), theirs) in questions.iter().zip(answers) {
        if let Some(named) = theirs.ty.filter(|named| *named != type_name(&expr.ty)) {
            wrong.push(format!("{sql}\n  has type {named}, ours {:?}", expr.ty));
        }
        for (id, theirs) in ids.clone().zip(theirs.answers) {
            errors += usize::from(matches!(theirs, Answer::Error(..)));
            let ours = answer_of(expr.eval(&rows[id]), &expr.ty);
            if !(agree(&ours, &theirs) || is_of_version(server.major(), &ours, &theirs)) {
                let from = format!("FROM t WHERE id = {id}");
                wrong.push(format!("{sql} {from}\n  ours   {ours:?}\n  theirs {theirs:?}"));
            }
        }
    }
    errors
}

/// Whether we refuse with this message what versions of PostgreSQL differ over: such a row is
/// parked, never wrong. `valued`: this one has a value there.
fn differs_by_version(major: u32, ours: &str, valued: bool) -> bool {
    match ours {
        // Before 17 it wraps around where timestamps are 292,000 years apart, and where the least
        // interval is subtracted.
        "interval out of range" => major < 17,
        // From 17 the difference is infinite, too.
        "cannot subtract infinite timestamps" => major >= 17,
        // From 16 there are 0x10, 0o7, 0b1 and 1_000, and an exponent is judged before the rest.
        "invalid input syntax for type numeric" => major >= 16,
        _ if ours.ends_with("integer") || ours.ends_with("int") => {
            valued && major >= 16 && ours.starts_with("invalid input syntax for type ")
        }
        _ => false,
    }
}

/// Whether our answer is an error of that kind.
fn is_of_version(major: u32, ours: &Answer, theirs: &Answer) -> bool {
    let valued = matches!(theirs, Answer::Text(_));
    matches!(ours, Answer::Error(_, ours) if differs_by_version(major, ours, valued))
}

/// As `regtype` prints it.
fn type_name(ty: &Type) -> &str {
    match ty {
        Type::Bool => "boolean",
        Type::Int2 => "smallint",
        Type::Int4 => "integer",
        Type::Int8 => "bigint",
        Type::Float4 => "real",
        Type::Float8 => "double precision",
        Type::Numeric(_) => "numeric",
        Type::Text => "text",
        Type::Varchar(_) => "character varying",
        Type::Char(_) => "character",
        Type::Bytea => "bytea",
        Type::Date => "date",
        Type::Time => "time without time zone",
        Type::Timestamp => "timestamp without time zone",
        Type::TimestampTz => "timestamp with time zone",
        Type::Interval => "interval",
        Type::Uuid => "uuid",
        Type::Json => "json",
        Type::Jsonb => "jsonb",
        Type::Enum { name, .. } | Type::Other { name, .. } => name,
    }
}

#[test]
fn numeric_operations_agree() {
    check(&numeric_operations(&Server::start("oracle-numeric")));
}

#[test]
fn text_agrees() {
    let server = Server::start("oracle-text");
    check(&text_of_values(&server));
    check(&literals::differences(&server));
}

#[test]
fn binary_agrees_with_text() {
    check(&binary::differences(&Server::start("oracle-binary")));
}

#[test]
fn expressions_agree() {
    let server = Server::start("oracle-expressions");
    check(&random_expressions(&server));
}

#[test]
fn fixed_expressions_agree() {
    check(&fixed_expressions(&Server::start("oracle-fixed")));
}

/// How long random views go on where `ROUNDS` does not say it.
const VIEWS_MAX: Duration = Duration::from_secs(8);
/// More than pass in that time, so that a given seed reaches what it found.
const ROUNDS_OF_SEED: usize = 40;

#[test]
fn views_agree() {
    let server = Server::start("oracle-views");
    server.psql("CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy', 'a');");
    let started = Instant::now();
    let rounds = match std::env::var("ROUNDS") {
        Ok(rounds) => Some(rounds.parse::<usize>().unwrap()),
        Err(_) => std::env::var("SEED").ok().map(|_| ROUNDS_OF_SEED),
    };
    let tried = views::differences(&server, |round| match rounds {
        Some(rounds) => round < rounds,
        None => started.elapsed() < VIEWS_MAX,
    });
    let (rounds, bound, views) = (tried.rounds, tried.bound, tried.views);
    eprintln!(
        "{rounds} schemas, {bound} of {views} views taken, {} messages, {} result rows compared, \
         {} schemas with rows over which versions differ",
        tried.changes, tried.results, tried.excused
    );
    check(&tried.wrong);
    assert!(bound * 10 > views * 5, "only {bound} of {views} views bind");
}
