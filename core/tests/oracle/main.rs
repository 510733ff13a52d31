//! PostgreSQL as the judge of values and expressions: what it prints, what it computes, what it
//! refuses.
//!
//! Random tests print their seed; `SEED=… cargo test -p walview-core --test oracle` runs it again.
//! Without PostgreSQL 15 or later these tests fail; they are never skipped.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::string_slice,
    clippy::disallowed_methods,
    reason = "a test stops at the first surprise"
)]

mod expressions;
mod literals;
mod random;
mod server;

use expressions::{TABLE, expression};
use random::Random;
use server::{Answer, Server};
use walview_core::catalog::{Catalog, Collation, Column, ReplicaIdentity, Table, UniqueKey};
use walview_core::expr::{ColumnRef, Env, EvalError, Expr, ExprKind, Func};
use walview_core::plan::ViewKind;
use walview_core::sql;
use walview_core::value::{Type, Value};

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
    let shown: Vec<&str> = wrong.iter().take(25).map(String::as_str).collect();
    assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), shown.join("\n"));
}

struct NoRow;

impl Env for NoRow {
    fn column(&self, _: ColumnRef) -> &Value {
        &Value::Null
    }
}

fn numeric_operation(random: &mut Random) -> (String, Expr) {
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
            let (precision, scale) = (random.between(1, 40), random.between(-5, 40));
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
        (0..12_000).map(|_| numeric_operation(&mut random)).collect();
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

/// The literal of a random value for a column, now and then NULL.
fn cell(random: &mut Random, name: &str) -> String {
    if random.one_in(8) {
        return "NULL".to_owned();
    }
    let text = match name {
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

const ROWS: usize = 60;

/// At the edges of what types hold, over a row where n is 1.
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
    "extract(week FROM date '2000-01-01' + (n * 366)::integer)",
    "extract(millennium FROM date '0001-12-31 BC' + (n * 0)::integer)",
];

/// The table `t` on the server, and its rows as we read them.
fn load(server: &Server, random: &mut Random, catalog: &Catalog) -> Vec<OneRow> {
    let mut script = "CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy', 'a');\n".to_owned();
    let columns: Vec<String> = TABLE.iter().map(|(name, ty)| format!("{name} {ty}")).collect();
    script.push_str(&format!("CREATE TABLE t (id int PRIMARY KEY, {});\n", columns.join(", ")));
    for id in 0..ROWS {
        let cells: Vec<String> = TABLE.iter().map(|(name, _)| cell(random, name)).collect();
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

fn bind(sql: &str, catalog: &Catalog) -> Option<Expr> {
    let parsed = sql::parse(&format!("SELECT id, {sql} AS x FROM t")).ok()?;
    let view = sql::bind(&parsed, "v", catalog, "public").ok()?;
    match view.kind {
        ViewKind::Rows { output } => output.into_iter().nth(1),
        ViewKind::Groups { .. } => None,
    }
}

/// Random expressions through the SQL front end, each over a few rows.
fn random_expressions(server: &Server) -> Vec<String> {
    const EXPRESSIONS: usize = 12_000;
    let mut random = Random::new("expressions");
    let catalog = catalog();
    let rows = load(server, &mut random, &catalog);
    let mut questions = Vec::new();
    let mut bound = 0;
    for n in 0..EXPRESSIONS {
        let ty = TABLE[n % TABLE.len()].0;
        let depth = 1 + random.below(3);
        let sql = expression(&mut random, ty, depth);
        let Some(expr) = bind(&sql, &catalog) else {
            continue;
        };
        bound += 1;
        for _ in 0..3 {
            let id = random.below(ROWS);
            questions.push((sql.clone(), format!("FROM t WHERE id = {id}"), expr.clone(), id));
        }
    }
    for sql in LIMITS {
        let expr = bind(sql, &catalog).unwrap_or_else(|| panic!("{sql} does not bind"));
        questions.push(((*sql).to_owned(), format!("FROM t WHERE id = {ROWS}"), expr, ROWS));
    }
    assert!(bound * 10 > EXPRESSIONS * 8, "only {bound} of {EXPRESSIONS} expressions bind");
    let answers = server.ask(questions.iter().map(|(sql, from, ..)| (sql.as_str(), from.as_str())));
    let errors = answers.iter().filter(|answer| matches!(answer, Answer::Error(..))).count();
    assert!(errors * 3 < answers.len(), "{errors} of {} answers are errors", answers.len());
    let mut wrong = Vec::new();
    for ((sql, from, expr, id), theirs) in questions.iter().zip(answers) {
        let ours = answer_of(expr.eval(&rows[*id]), &expr.ty);
        // PostgreSQL 15 wraps around where timestamps are 292,000 years apart; later ones refuse.
        let wraps =
            matches!(&ours, Answer::Error(_, message) if message == "interval out of range");
        if !(agree(&ours, &theirs) || wraps) {
            wrong.push(format!("{sql} {from}\n  ours   {ours:?}\n  theirs {theirs:?}"));
        }
    }
    wrong
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
fn expressions_agree() {
    check(&random_expressions(&Server::start("oracle-expressions")));
}
