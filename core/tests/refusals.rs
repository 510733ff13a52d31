//! What is refused, in which words. One table: statements and the messages that follow each.
//!
//! The catalog is written by hand, so these run without a server. `check` refuses the statements
//! under "without a catalog"; the rest pass `parse` and are refused by `bind`.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test stops at the first surprise, and leaves the messages as they are now in a file"
)]

use walview_core::catalog::{Catalog, Collation, Column, ReplicaIdentity, Table, UniqueKey};
use walview_core::diagnostic::Diagnostic;
use walview_core::engine::Layout;
use walview_core::plan::ViewKind;
use walview_core::sql;
use walview_core::value::{Carried, Type};

const REFUSALS: &str = include_str!("refusals.txt");

fn column(name: &str, ty: Type, not_null: bool) -> Column {
    let collation = if matches!(ty, Type::Text | Type::Varchar(_) | Type::Char(_)) {
        Collation::Deterministic
    } else {
        Collation::None
    };
    Column {
        type_oid: 0,
        type_modifier: -1,
        name: name.to_owned(),
        attnum: 0,
        ty,
        not_null,
        collation,
        generated: false,
        toastable: false,
        added: None,
    }
}

fn other(oid: u32, name: &str, carried: Carried) -> Type {
    Type::Other { oid, name: name.to_owned(), carried }
}

fn table(oid: u32, schema: &str, name: &str, columns: Vec<Column>, keys: &[&[usize]]) -> Table {
    let unique_keys = keys
        .iter()
        .enumerate()
        .map(|(index, columns)| UniqueKey {
            name: format!("{name}_key{index}"),
            columns: columns.to_vec(),
            primary: index == 0,
        })
        .collect();
    Table {
        oid,
        schema: schema.to_owned(),
        name: name.to_owned(),
        columns,
        unique_keys,
        replica_identity: ReplicaIdentity::Default,
    }
}

fn catalog() -> Catalog {
    let status = Type::Enum {
        oid: 900,
        name: "bet_status".to_owned(),
        labels: vec!["OPEN".to_owned(), "WON".to_owned(), "LOST".to_owned()],
    };
    let money = Type::Numeric(Some((12, 2)));
    let castable = Carried { castable: true, ..Carried::default() };
    let array =
        Carried { canonical: true, element: Some(Box::new(Type::Int4)), ..castable.clone() };
    let mut bets = table(
        1,
        "public",
        "bets",
        vec![
            column("id", Type::Int8, true),
            column("user_id", Type::Int8, true),
            column("event_id", Type::Int8, true),
            column("status", status, true),
            column("amount", money, true),
            column("odds", Type::Float8, false),
            column("note", Type::Text, false),
            column("free", Type::Numeric(None), false),
            column("took", Type::Interval, false),
            column("doc", Type::Jsonb, false),
            column("place", other(600, "point", castable.clone()), false),
            column("placed_at", Type::TimestampTz, true),
            column("doubled", Type::Numeric(None), false),
            column("nick", Type::Text, false),
            column("tags", other(1007, "integer[]", array), false),
            column(
                "part",
                other(901, "part", Carried { composite: true, ..castable.clone() }),
                false,
            ),
            column(
                "class",
                other(2205, "regclass", Carried { names_objects: true, ..castable }),
                false,
            ),
            column("terms", other(142, "xml", Carried::default()), false),
        ],
        &[&[0]],
    );
    bets.columns[12].generated = true;
    bets.columns[13].collation = Collation::NonDeterministic;
    let users = table(
        2,
        "public",
        "users",
        vec![
            column("id", Type::Int8, true),
            column("name", Type::Text, true),
            column("email", Type::Varchar(Some(80)), true),
        ],
        &[&[0], &[2]],
    );
    let prices = table(
        3,
        "public",
        "prices",
        vec![
            column("symbol", Type::Text, true),
            column("day", Type::Date, true),
            column("price", Type::Numeric(None), false),
        ],
        &[&[0, 1]],
    );
    let log = table(4, "public", "log", vec![column("line", Type::Text, false)], &[]);
    let small = table(
        5,
        "archive",
        "small",
        vec![column("id", Type::Int4, true), column("name", Type::Text, false)],
        &[&[0]],
    );
    Catalog { tables: vec![bets, users, prices, log, small], ..Catalog::default() }
}

fn shown(diagnostics: &[Diagnostic]) -> Vec<String> {
    diagnostics.iter().map(|diagnostic| format!("! {diagnostic}")).collect()
}

#[test]
fn refusals_say_what_to_write() {
    let catalog = catalog();
    let mut actual = Vec::new();
    let mut bound = false;
    for block in REFUSALS.split("\n\n").map(str::trim).filter(|block| !block.is_empty()) {
        if let Some(title) = block.strip_prefix("# ") {
            bound = title.starts_with("with a catalog");
            actual.push(block.to_owned());
            continue;
        }
        let text: Vec<&str> = block.lines().filter(|line| !line.starts_with("! ")).collect();
        let text = text.join("\n");
        let messages = match sql::parse(&text) {
            Err(diagnostics) if bound => {
                let mut messages = shown(&diagnostics);
                messages.push("! (by parse)".to_owned());
                messages
            }
            Err(diagnostics) => shown(&diagnostics),
            Ok(_) if !bound => vec!["! parsed".to_owned()],
            Ok(parsed) => match sql::bind(&parsed, "v", &catalog, "public") {
                Err(diagnostics) => shown(&diagnostics),
                Ok(_) => vec!["! bound".to_owned()],
            },
        };
        actual.push(format!("{text}\n{}", messages.join("\n")));
    }
    let actual = actual.join("\n\n") + "\n";
    if actual != REFUSALS {
        let path = std::env::temp_dir().join("walview-refusals.txt");
        std::fs::write(&path, &actual).unwrap();
        let wanted: Vec<&str> = REFUSALS.split("\n\n").collect();
        let differing: Vec<&str> =
            actual.split("\n\n").filter(|block| !wanted.contains(block)).collect();
        panic!(
            "the messages are now (whole file: {}):\n{}",
            path.display(),
            differing.join("\n\n")
        );
    }
}

/// What the server makes of the bytes of a text is not what is made of them here.
#[test]
fn bytes_of_another_encoding_are_refused() {
    let catalog = Catalog { other_encoding: true, ..catalog() };
    for (sql, refused) in [
        ("SELECT id, md5(note) AS a FROM bets", true),
        ("SELECT id FROM bets WHERE note COLLATE \"C\" < 'b'", true),
        ("SELECT id, greatest(note COLLATE \"C\", 'b') AS a FROM bets", true),
        ("SELECT id, encode(sha256(convert_to(note, 'UTF8')), 'hex') AS a FROM bets", false),
        ("SELECT id, left(note, 2) AS a FROM bets WHERE note = 'b' AND status < 'WON'", false),
    ] {
        let bound = sql::bind(&sql::parse(sql).unwrap(), "v", &catalog, "public");
        let messages = bound.as_ref().err().map(|diagnostics| shown(diagnostics).join("\n"));
        assert_eq!(messages.is_some(), refused, "{sql}: {messages:?}");
        assert!(messages.is_none_or(|text| text.contains("the database's encoding")), "{sql}");
    }
}

fn bind(text: &str) -> walview_core::plan::View {
    let parsed = sql::parse(text).unwrap();
    sql::bind(&parsed, "v", &catalog(), "public").unwrap()
}

#[test]
fn keys_and_hints() {
    let key = |text: &str| {
        let view = bind(text);
        (view.key, view.key_hint)
    };
    assert_eq!(key("SELECT amount, id FROM bets"), (vec![1], String::new()));
    assert_eq!(
        key("SELECT amount, id + 1 AS id FROM bets"),
        (vec![], "add id to the SELECT list".to_owned())
    );
    // A unique key over NOT NULL columns does as well.
    assert_eq!(key("SELECT name, email FROM users"), (vec![1], String::new()));
    assert_eq!(key("SELECT price, day, symbol AS s FROM prices"), (vec![2, 1], String::new()));
    assert_eq!(
        key("SELECT price, day FROM prices p JOIN users u ON u.email = p.symbol"),
        (vec![], "add p.symbol to the SELECT list".to_owned())
    );
    assert!(key("SELECT line FROM log").1.contains("no primary key"));
    assert_eq!(key("SELECT count(*) AS c FROM bets"), (vec![], String::new()));
    assert_eq!(
        key("SELECT count(*) AS c, status FROM bets GROUP BY status"),
        (vec![1], String::new())
    );
    assert_eq!(
        key("SELECT count(*) AS c FROM bets GROUP BY status"),
        (vec![], "add status to the SELECT list".to_owned())
    );
    assert_eq!(
        key(
            "SELECT u.id, u.name, sum(b.amount) AS s FROM bets b JOIN users u ON u.id = b.user_id GROUP BY u.id"
        ),
        (vec![0], String::new())
    );
    assert_eq!(key("SELECT DISTINCT status, user_id FROM bets"), (vec![0, 1], String::new()));
}

#[test]
fn dependent_columns_follow_the_key() {
    let view = bind(
        "SELECT u.id, u.name, u.email || '!' AS loud, sum(b.amount) AS s FROM bets b \
         JOIN users u ON u.id = b.user_id GROUP BY u.id",
    );
    let ViewKind::Groups { by, by_key, aggregates, .. } = &view.kind else { panic!("{view:?}") };
    assert_eq!((by.len(), *by_key, aggregates.len()), (3, 1, 1));
}

#[test]
fn nullability() {
    let nullable = |text: &str| -> Vec<bool> {
        bind(text).columns.iter().map(|column| column.nullable).collect()
    };
    assert_eq!(
        nullable("SELECT id, amount, note, 'x' AS c FROM bets"),
        [false, false, true, false]
    );
    let joined = "SELECT b.id, u.name, u.id AS uid FROM bets b";
    assert_eq!(
        nullable(&format!("{joined} LEFT JOIN users u ON u.id = b.user_id")),
        [false, true, true]
    );
    assert_eq!(
        nullable(&format!("{joined} JOIN users u ON u.id = b.user_id")),
        [false, false, false]
    );
    assert_eq!(
        nullable(&format!("{joined} LEFT JOIN users u ON u.id = b.user_id WHERE u.id IS NOT NULL")),
        [false, true, false]
    );
    assert_eq!(
        nullable("SELECT note, odds FROM bets WHERE note = 'x' AND odds > 1"),
        [false, false]
    );
    assert_eq!(nullable("SELECT note FROM bets WHERE note = 'x' OR odds > 1"), [true]);
    assert_eq!(nullable("SELECT note FROM bets WHERE note IN ('x', 'y')"), [false]);
    assert_eq!(nullable("SELECT note FROM bets WHERE note IS NULL"), [true]);
    assert_eq!(nullable("SELECT note FROM bets WHERE coalesce(note, 'x') = 'x'"), [true]);
    assert_eq!(
        nullable(
            "SELECT coalesce(note, '') AS a, nullif(id, 1) AS b, amount * 2 AS c, CASE WHEN id > 1 THEN 1 END AS d FROM bets"
        ),
        [false, true, false, true]
    );
    assert_eq!(
        nullable(
            "SELECT status, count(*) AS a, sum(amount) AS b, sum(odds::numeric) AS c, sum(amount) FILTER (WHERE id > 5) AS d FROM bets GROUP BY status"
        ),
        [false, false, false, true, true]
    );
    assert_eq!(nullable("SELECT count(*) AS a, sum(amount) AS b FROM bets"), [false, true]);
}

#[test]
fn descriptions_tell_plans_apart() {
    let base = "SELECT id, amount FROM bets WHERE amount > 5";
    let same = "select  b.id ,b.amount\nfrom public.bets AS b where (b.amount > 5)";
    assert_eq!(bind(base).describe(), bind(same).describe());
    for other in [
        "SELECT id, amount FROM bets",
        "SELECT id, amount FROM bets WHERE amount > 6",
        "SELECT id, amount FROM bets WHERE amount >= 5",
        "SELECT id, amount AS a FROM bets WHERE amount > 5",
        "SELECT id, event_id AS amount FROM bets WHERE amount > 5",
        "SELECT DISTINCT id, amount FROM bets WHERE amount > 5",
    ] {
        assert_ne!(bind(base).describe(), bind(other).describe(), "{other}");
    }
    let view = bind(
        "SELECT b.status, count(*) AS c FROM bets b LEFT JOIN users u ON u.id = b.user_id \
         AND u.name <> 'x' GROUP BY b.status",
    );
    assert_eq!(
        view.describe(),
        "view \"v\"\n\
         input 0 table 1\n\
         input 1 table 2 left on 0 = $0.1:int8 if (Ne:bool $1.1:text \"x\":text)\n\
         by $0.3:enum(900)\n\
         aggregate int8 count(*)\n\
         groups\n\
         column \"status\" enum(900) not null = $0.0:enum(900)\n\
         column \"c\" int8 not null = $1.0:int8\n\
         key [0]\n"
    );
}

#[test]
fn tables_and_names_without_a_catalog() {
    let parsed =
        sql::parse("SELECT b.ID, \"Odd\", 1 AS One FROM Public.Bets b JOIN users u ON u.id = b.id")
            .unwrap();
    let tables: Vec<(Option<String>, String, u32)> = parsed
        .tables()
        .into_iter()
        .map(|table| (table.schema, table.name, table.place.column))
        .collect();
    assert_eq!(
        tables,
        [(Some("public".to_owned()), "bets".to_owned(), 35), (None, "users".to_owned(), 54)]
    );
    assert_eq!(parsed.output_names().unwrap(), ["id", "Odd", "one"]);
    assert!(!parsed.is_aggregate());
    assert_eq!(sql::parse("SELECT *, 1 AS a FROM bets").unwrap().output_names(), None);
}

/// A store could not tell rows of such views apart, or changes of such tables could not be followed.
#[test]
fn what_has_no_key() {
    let catalog = catalog();
    let bound =
        |text: &str| sql::bind(&sql::parse(text).unwrap(), "lines", &catalog, "public").unwrap();
    let lines = bound("SELECT line FROM log");
    assert_eq!(
        lines.key_hint,
        "table \"log\" has no primary key, nor a unique key over NOT NULL columns, that can be \
         followed: add one that is not DEFERRABLE"
    );
    assert_eq!(bound("SELECT note FROM bets").key_hint, "add id to the SELECT list");
    assert_eq!(
        Layout::new(&[lines], &catalog).unwrap_err().to_string(),
        "view \"lines\": table \"public.log\" has no key that its changes carry; give it a primary \
         key that is not DEFERRABLE, or REPLICA IDENTITY USING INDEX with a unique index"
    );
}

/// Whatever the text, there is an answer and no panic; deep and long ones end early.
#[test]
fn hostile_texts() {
    let deep = format!("SELECT {}1{} AS a FROM bets", "(".repeat(5000), ")".repeat(5000));
    let long = format!("SELECT 1{} AS a FROM bets", "+1".repeat(20_000));
    let wide = format!("SELECT id FROM bets WHERE {} true", "id = 1 AND ".repeat(3000));
    let not = format!("SELECT {} true AS a FROM bets", "NOT ".repeat(5000));
    let minus = format!("SELECT {}1 AS a FROM bets", "- ".repeat(5000));
    let casts = format!("SELECT 1{} AS a FROM bets", "::int".repeat(5000));
    let huge = format!("SELECT '{}' AS a FROM bets", "x".repeat(100_000));
    for text in [&deep, &long, &not, &minus, &casts, &huge] {
        assert!(sql::parse(text).is_err());
    }
    assert!(sql::parse(&wide).is_ok());
    for text in [
        "",
        ";",
        "\u{0}",
        "SELECT",
        "'",
        "\"",
        "/*",
        "SELECT $1",
        "𝔘",
        "SELECT 1 AS \u{1F600} FROM bets",
    ] {
        sql::parse(text).ok();
    }
}
