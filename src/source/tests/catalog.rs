//! The catalog as PostgreSQL has it.

use super::super::{catalog, server as source_server};
use super::*;
use walview_core::catalog::{Collation, ReplicaIdentity, Table, UniqueKey};
use walview_core::value::Type;

const SCHEMA: &str = "
    CREATE TYPE mood AS ENUM ('sad', 'ok'); ALTER TYPE mood ADD VALUE 'meh' BEFORE 'ok';
    CREATE TYPE silent AS ENUM ();
    CREATE DOMAIN price AS numeric(12, 2) NOT NULL; CREATE DOMAIN cost AS price CHECK (value > 0);
    CREATE DOMAIN feeling AS mood;
    CREATE COLLATION loose (provider = icu, locale = 'und', deterministic = false);
    CREATE COLLATION german (provider = icu, locale = 'de');
    CREATE TABLE types(
      a boolean, b smallint, c integer, d bigint, e real, f double precision, g numeric,
      h numeric(10, 3), i numeric(3, -2), j text, k varchar, l varchar(7), m char(3), n bytea,
      o date, p time, q timestamp, r timestamptz(3), s interval, t uuid, u json, v jsonb,
      w mood, x cost, y feeling, z int[], aa silent, bb inet, cc \"char\", dd bpchar,
      ee text COLLATE \"C\", ff text COLLATE loose, gg text COLLATE german, hh text COLLATE ucs_basic,
      ii text, jj int GENERATED ALWAYS AS (c + 1) STORED);
    ALTER TABLE types ALTER ii SET STORAGE plain;
    CREATE TABLE keys(gone int, a int NOT NULL, b int NOT NULL, c int, d text NOT NULL,
      PRIMARY KEY (b, a), UNIQUE (c) DEFERRABLE, CONSTRAINT keys_d UNIQUE (d) INCLUDE (c));
    ALTER TABLE keys DROP COLUMN gone;
    CREATE UNIQUE INDEX keys_partial ON keys(c) WHERE c > 0;
    CREATE UNIQUE INDEX keys_expression ON keys(lower(d));
    CREATE INDEX keys_plain ON keys(c);
    ALTER TABLE keys REPLICA IDENTITY USING INDEX keys_d;
    CREATE TABLE whole(a int); ALTER TABLE whole REPLICA IDENTITY FULL;
    CREATE TABLE nothing(a int); ALTER TABLE nothing REPLICA IDENTITY NOTHING;
    CREATE TABLE parts(a int PRIMARY KEY) PARTITION BY RANGE (a);
    CREATE TABLE part1 PARTITION OF parts FOR VALUES FROM (0) TO (10)";

fn column<'a>(table: &'a Table, name: &str) -> &'a walview_core::catalog::Column {
    &table.columns[table.column(name).unwrap()]
}

#[tokio::test]
async fn every_type_key_and_identity() {
    let server = Server::start(&[]);
    let session = connect(&superuser(&server)).await.unwrap();
    // Before 15 a scale lies between 0 and the precision.
    let (scale, schema) = if server.major < 15 {
        (2, SCHEMA.replace("numeric(3, -2)", "numeric(3, 2)"))
    } else {
        (-2, SCHEMA.to_owned())
    };
    run(&session, &schema).await;
    if server.major >= 18 {
        run(&session, "ALTER TABLE types ADD kk int GENERATED ALWAYS AS (c + 1) VIRTUAL").await;
    }
    let wanted = ["types", "keys", "whole", "nothing", "parts", "keys"];
    let names: Vec<_> = wanted.iter().map(|n| ("public".to_owned(), (*n).to_owned())).collect();
    let loaded = catalog::load(&session, &names).await.unwrap();
    assert_eq!(loaded.tables.len(), 5);

    let table = loaded.table("public", "types").unwrap();
    let of = |name: &str| column(table, name).ty.clone();
    let built_in = [
        ("a", Type::Bool),
        ("b", Type::Int2),
        ("c", Type::Int4),
        ("d", Type::Int8),
        ("e", Type::Float4),
        ("f", Type::Float8),
        ("g", Type::Numeric(None)),
        ("h", Type::Numeric(Some((10, 3)))),
        ("i", Type::Numeric(Some((3, scale)))),
        ("j", Type::Text),
        ("k", Type::Varchar(None)),
        ("l", Type::Varchar(Some(7))),
        ("m", Type::Char(3)),
        ("n", Type::Bytea),
        ("o", Type::Date),
        ("p", Type::Time),
        ("q", Type::Timestamp),
        ("r", Type::TimestampTz),
        ("s", Type::Interval),
        ("t", Type::Uuid),
        ("u", Type::Json),
        ("v", Type::Jsonb),
        // A domain over a domain is its base with the modifier of the inner one.
        ("x", Type::Numeric(Some((12, 2)))),
    ];
    for (name, ty) in built_in {
        assert_eq!(of(name), ty, "{name}");
    }
    let labels = |name: &str| match of(name) {
        Type::Enum { labels, name, .. } => (name, labels.join(" ")),
        other => panic!("{name}: {other:?}"),
    };
    assert_eq!(labels("w"), ("mood".to_owned(), "sad meh ok".to_owned()));
    assert_eq!(labels("y"), ("mood".to_owned(), "sad meh ok".to_owned()));
    assert_eq!(labels("aa"), ("silent".to_owned(), String::new()));
    for (name, shown) in
        [("z", "integer[]"), ("bb", "inet"), ("cc", "\"char\""), ("dd", "character")]
    {
        assert!(matches!(of(name), Type::Other { name, .. } if name == shown), "{:?}", of(name));
    }
    for (name, collation) in [
        ("a", Collation::None),
        ("j", Collation::C),
        ("ee", Collation::C),
        ("ff", Collation::NonDeterministic),
        ("gg", Collation::Deterministic),
        ("hh", Collation::C),
        ("w", Collation::None),
    ] {
        assert_eq!(column(table, name).collation, collation, "{name}");
    }
    for (name, toastable) in [("j", true), ("ii", false), ("c", false), ("h", true), ("v", true)] {
        assert_eq!(column(table, name).toastable, toastable, "{name}");
    }
    assert!(column(table, "jj").generated && !column(table, "c").generated);
    assert!(server.major < 18 || column(table, "kk").generated);

    let table = loaded.table("public", "keys").unwrap();
    let names: Vec<_> = table.columns.iter().map(|c| (c.name.as_str(), c.attnum)).collect();
    assert_eq!(names, [("a", 2), ("b", 3), ("c", 4), ("d", 5)]);
    let key = |name: &str, columns: &[usize], primary| UniqueKey {
        name: name.to_owned(),
        columns: columns.to_vec(),
        primary,
    };
    let wanted = [key("keys_pkey", &[1, 0], true), key("keys_d", &[3], false)];
    assert_eq!(table.unique_keys, wanted);
    assert_eq!(table.replica_identity, ReplicaIdentity::Index(vec![3]));
    assert!(column(table, "a").not_null && !column(table, "c").not_null);
    let identity = |name: &str| loaded.table("public", name).unwrap().replica_identity.clone();
    assert_eq!(identity("whole"), ReplicaIdentity::Full);
    assert_eq!(identity("nothing"), ReplicaIdentity::Nothing);
    assert_eq!(identity("parts"), ReplicaIdentity::Default);
    assert!(loaded.table("public", "parts").unwrap().primary_key().is_some());

    let both =
        [("public".to_owned(), "parts".to_owned()), ("public".to_owned(), "part1".to_owned())];
    let error = refusal(catalog::load(&session, &both).await);
    assert_says(&error, &["\"public.part1\" is a partition of \"public.parts\""]);
}

#[tokio::test]
async fn a_database_order_that_is_not_c() {
    let server = Server::start(&[]);
    let session = connect(&superuser(&server)).await.unwrap();
    let mut databases = vec!["utf"];
    // Before 15 only collations can be ICU's.
    if server.major >= 15 {
        databases.push("icu");
        let icu = "CREATE DATABASE icu TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'en'";
        run(&session, icu).await;
    }
    run(&session, "CREATE DATABASE utf TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C.UTF-8'").await;
    for database in databases {
        let session = connect(&config(&server, "postgres", database)).await.unwrap();
        run(&session, "CREATE TABLE t(a text)").await;
        let loaded = catalog::load(&session, &[("public".into(), "t".into())]).await.unwrap();
        let found = loaded.tables[0].columns[0].collation;
        assert_eq!(found, Collation::Deterministic, "{database}");
    }
}

#[tokio::test]
async fn the_server_says_who_it_is_and_settings_are_pinned() {
    let server = Server::start(&["max_slot_wal_keep_size=64MB"]);
    let app = application(&server).await;
    run(
        &app,
        "ALTER ROLE postgres SET timezone = 'Asia/Kolkata';
         ALTER ROLE postgres SET datestyle = 'SQL, DMY';
         ALTER ROLE postgres SET intervalstyle = 'iso_8601';
         ALTER ROLE postgres SET extra_float_digits = -5;
         ALTER ROLE postgres SET bytea_output = 'escape'; CREATE SCHEMA \"od d\\ly\"",
    )
    .await;
    let schema = "od d\\ly".to_owned();
    let config = SourceConfig { schema, ..superuser(&server) };
    let session = connect(&config).await.unwrap();
    let info = source_server::info(&session).await.unwrap();
    assert_eq!(info.version / 10_000, i32::try_from(server.major).unwrap());
    assert!(!info.in_recovery);
    assert_eq!((info.lineage.timeline, info.max_slot_wal_keep_size), (1, Some(64 << 20)));
    assert_eq!((info.database.as_str(), info.encoding.as_str()), ("postgres", "UTF8"));
    assert!(info.lineage.system_identifier > 0 && info.lsn > Lsn(0));
    let row = session
        .query_one(
            "SELECT timestamptz '2026-01-02 03:04:05.6+00'::text, interval '1 day 2h'::text,
                    (0.1::float8 + 0.2)::text, '\\x00ff'::bytea::text, current_schema()::text,
                    current_setting('row_security'), current_setting('application_name')",
            &[],
        )
        .await
        .unwrap();
    let got: Vec<String> = (0..row.len()).map(|at| row.get(at)).collect();
    let wanted = [
        "2026-01-02 03:04:05.6+00",
        "1 day 02:00:00",
        "0.30000000000000004",
        "\\x00ff",
        "od d\\ly",
        "off",
        "walview:test",
    ];
    assert_eq!(got, wanted);
}
