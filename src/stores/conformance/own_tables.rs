//! Tables of the user's own behind `ClickHouse` targets.

use super::super::clickhouse::{ClickHouse, Config, Standing, look, read_all};
use super::super::{Store as _, StoreError};
use super::clickhouse::{ClickHouseRig, one_record, spec};
use super::{A, B, Rig as _, at, view};
use walview_core::plan::{OutputColumn, View};
use walview_core::position::{Lsn, Position};
use walview_core::target::clickhouse::{Spec, Target};
use walview_core::target::{Change, Commit, Scratch};
use walview_core::value::{Carried, Type, Value};

/// Walview's own columns and the engine.
const OWN: &str = "_version UInt128, _deleted UInt8, _committed_at DateTime64(6)) \
                   ENGINE = ReplacingMergeTree(_version, _deleted)";

/// PostgreSQL's type, `ClickHouse`'s, and values at its edges.
fn compatible() -> Vec<(Type, &'static str, [&'static str; 2])> {
    let numeric = || Type::Numeric(None);
    let label = || Type::Enum {
        oid: 1,
        name: "e".to_owned(),
        labels: vec!["it's".to_owned(), "ä,(".to_owned()],
    };
    let wide = "115792089237316195423570985008687907853269984665640564039457584007913129639935";
    vec![
        (Type::Int8, "Int8", ["-128", "127"]),
        (Type::Int8, "Int16", ["-32768", "32767"]),
        (Type::Int8, "Int32", ["-2147483648", "2147483647"]),
        (Type::Int2, "Int64", ["-32768", "32767"]),
        (numeric(), "Int64", ["-9223372036854775808", "9223372036854775807"]),
        (Type::Int8, "Int128", ["-9223372036854775808", "9223372036854775807"]),
        (numeric(), "Int128", ["-170141183460469231731687303715884105728", "1"]),
        (numeric(), "Int256", ["-1", wide.get(..76).unwrap()]),
        (Type::Int2, "UInt8", ["0", "255"]),
        (Type::Int4, "UInt16", ["0", "65535"]),
        (Type::Int8, "UInt32", ["0", "4294967295"]),
        (Type::Int8, "UInt64", ["0", "9223372036854775807"]),
        (numeric(), "UInt64", ["0", "18446744073709551615"]),
        (numeric(), "UInt128", ["0", "340282366920938463463374607431768211455"]),
        (Type::Numeric(Some((78, 0))), "UInt256", ["0", wide]),
        (Type::Bool, "UInt8", ["t", "f"]),
        (Type::Bool, "Bool", ["t", "f"]),
        (Type::Float4, "Float32", ["NaN", "-0"]),
        (Type::Float4, "Float64", ["1e-45", "-Infinity"]),
        (Type::Float8, "Float64", ["NaN", "5e-324"]),
        (Type::Int8, "Decimal(19, 0)", ["-9223372036854775808", "9223372036854775807"]),
        (Type::Numeric(Some((12, 2))), "Decimal(9, 2)", ["-9999999.99", "0.10"]),
        (Type::Numeric(Some((12, 4))), "Decimal(18, 2)", ["1.5000", "-0.0100"]),
        (numeric(), "Decimal(38, 18)", ["-99999999999999999999.000000000000000001", "1"]),
        (numeric(), "Decimal(76, 0)", ["-1", wide.get(..76).unwrap()]),
        (label(), "Enum8('ä,(' = -128, 'it\\'s' = 127)", ["it's", "ä,("]),
        (Type::Text, "Enum16('' = -300, 'B' = 300)", ["", "B"]),
        (label(), "LowCardinality(String)", ["it's", "ä,("]),
        (Type::Text, "LowCardinality(String)", ["", "x"]),
        (Type::Text, "FixedString(3)", ["abc", "äb"]),
        (Type::Bytea, "FixedString(2)", ["\\x0000", "\\xff00"]),
        (Type::Varchar(Some(9)), "String", ["", "'\\\t"]),
        (Type::Date, "Date", ["1970-01-01", "2149-06-06"]),
        (Type::Date, "Date32", ["1900-01-01", "2299-12-31"]),
        (Type::TimestampTz, "DateTime", ["1970-01-01 00:00:00+00", "2106-02-07 06:28:15+00"]),
        (
            Type::TimestampTz,
            "DateTime64(0, 'Asia/Kolkata')",
            ["1900-01-01 00:00:00+00", "2299-12-31 23:59:59+00"],
        ),
        (
            Type::TimestampTz,
            "DateTime64(3)",
            ["1969-12-31 23:59:59.999+00", "2299-12-31 23:59:59.001+00"],
        ),
        (Type::Timestamp, "DateTime64(5, 'UTC')", ["1900-01-01 00:00:00.00001", "2026-01-01"]),
        (
            Type::TimestampTz,
            "DateTime64(7)",
            ["1900-01-01 00:00:00.000001+00", "2299-12-31 23:59:59.999999+00"],
        ),
        (
            Type::TimestampTz,
            "DateTime64(9)",
            ["1900-01-01 00:00:00.000001+00", "2262-04-11 23:47:16.854775+00"],
        ),
        (
            Type::Uuid,
            "UUID",
            ["00112233-4455-6677-8899-aabbccddeeff", "ffffffff-ffff-ffff-ffff-ffffffffffff"],
        ),
        (
            Type::Uuid,
            "String",
            ["00112233-4455-6677-8899-aabbccddeeff", "ffffffff-ffff-ffff-ffff-ffffffffffff"],
        ),
        (Type::Jsonb, "String", ["{\"a\": 1}", "null"]),
        (array(Type::Int4), "Array(Nullable(Int32))", ["{}", "{-2147483648,NULL,7}"]),
        (array(Type::Text), "Array(LowCardinality(String))", ["{\"\",\"a,\\\"b\"}", "{NULL2}"]),
        (array(Type::Uuid), "Array(UUID)", ["{ffffffff-ffff-ffff-ffff-ffffffffffff}", "{}"]),
        (array(numeric()), "Array(Array(Decimal(38, 2)))", ["{{1.50},{-2}}", "{}"]),
        (array(Type::Float8), "Array(Float64)", ["{NaN,-0,5e-324}", "{1}"]),
        (array(Type::Bool), "Array(Nullable(Bool))", ["{t,NULL,f}", "{}"]),
        (
            array(Type::TimestampTz),
            "Array(Nullable(DateTime64(6, 'UTC')))",
            ["{NULL,\"1900-01-01 00:00:00+00\"}", "{}"],
        ),
        (array(Type::Date), "Array(Date32)", ["{1900-01-01,2299-12-31}", "{}"]),
        (array(label()), "Array(Enum8('it\\'s' = 1, 'ä,(' = -2))", ["{it's,\"ä,(\"}", "{}"]),
        (array(numeric()), "Array(UInt256)", ["{1}", "{0,2}"]),
    ]
}

fn array(element: Type) -> Type {
    let carried = Carried { element: Some(Box::new(element)), ..Carried::default() };
    Type::Other { oid: 1, name: "array".to_owned(), carried }
}

fn is_array(ty: &Type) -> bool {
    ty.element().is_some()
}

/// The view of these columns, and two rows of it; with `nullable` a third whose values are NULL.
fn result(nullable: bool) -> (View, Vec<Vec<Value>>) {
    let id = OutputColumn { name: "id".to_owned(), ty: Type::Int8, nullable: false };
    let mut columns = vec![id];
    let mut rows: Vec<Vec<Value>> = (0..3).map(|id| vec![Value::Int(id)]).collect();
    for (index, (ty, _, texts)) in compatible().into_iter().enumerate() {
        for (row, text) in rows.iter_mut().zip(texts) {
            row.push(Value::parse(&ty, text).unwrap());
        }
        // No array of ClickHouse's is NULL.
        let nullable = nullable && !is_array(&ty);
        rows[2].push(if nullable { Value::Null } else { Value::Text("{}".into()) });
        columns.push(OutputColumn { name: format!("c{index}"), ty, nullable });
    }
    if !nullable {
        rows.pop();
    }
    (View { columns, ..view() }, rows)
}

/// The user's DDL: the types above, in another order, and columns that the view does not have.
fn ddl(table: &str, nullable: bool, order_by: &str) -> String {
    let columns = compatible().into_iter().enumerate().map(|(index, (_, ty, _))| match ty {
        "LowCardinality(String)" if nullable => {
            format!("c{index} LowCardinality(Nullable(String)) DEFAULT 'never', ")
        }
        ty if nullable && !ty.starts_with("Array") => format!("c{index} Nullable({ty}), "),
        ty => format!("c{index} {ty}, "),
    });
    let columns: String = columns.rev().collect();
    format!(
        "CREATE TABLE test_rows.{table} (note String DEFAULT 'by hand' CODEC(ZSTD(3)), \
         {columns}double UInt64 MATERIALIZED id * 2, half UInt64 ALIAS id / 2, \
         tag Nullable(String), input String EPHEMERAL, id UInt64, \
         INDEX by_note note TYPE bloom_filter GRANULARITY 1, {OWN} ORDER BY ({order_by})"
    )
}

async fn adopted(config: &Config, target: &Target) -> Target {
    match look(config, target).await.unwrap() {
        Standing::Adopted(found) => *found,
        other @ (Standing::Absent | Standing::Own | Standing::Refused(_)) => {
            panic!("{}: {other:?}", target.table())
        }
    }
}

fn encoded(targets: &[Target], rows: &[Vec<Vec<Value>>], lsn: u64, gone: bool) -> Vec<u8> {
    let (mut scratch, mut bytes) = (Scratch::default(), Vec::new());
    for ((index, target), rows) in (0_u16..).zip(targets).zip(rows) {
        for (ordinal, row) in (1..).zip(rows) {
            let (old, new) = if gone { (Some(&row[..]), None) } else { (None, Some(&row[..])) };
            let at = Position { ordinal, ..at(lsn) };
            let commit = Commit { committed_at: 0 };
            let change = Change { old, new };
            target.render(index, &change, at, &commit, &mut scratch, &mut bytes).unwrap();
        }
    }
    bytes
}

/// Every pair of the table of types, at its edges and NULL, reads back as it was from tables that
/// a user made: with NULL, without, and as sorting keys.
#[tokio::test]
async fn every_compatible_type_reads_back() {
    let rig = ClickHouseRig::start().await;
    rig.sql("CREATE DATABASE test_rows").await;
    let unsorted: Vec<String> = (0..)
        .zip(compatible())
        .filter(|(_, (ty, ..))| is_array(ty) || matches!(ty, Type::Float4 | Type::Float8))
        .map(|(index, _)| format!("c{index}"))
        .collect();
    let (loose, loose_rows) = result(true);
    let (strict, strict_rows) = result(false);
    let sorting: Vec<&str> = strict
        .columns
        .iter()
        .map(|column| column.name.as_str())
        .filter(|name| !unsorted.iter().any(|one| one == name))
        .collect();
    rig.sql(&ddl("loose", true, "id")).await;
    rig.sql(&ddl("strict", false, "id")).await;
    rig.sql(&ddl("sorted", false, &sorting.join(", "))).await;
    let config = rig.config(&rig.address());
    // Its default type has no room for 78 digits, so this one must be said.
    let wide = compatible().iter().position(|(_, ty, _)| *ty == "UInt256").unwrap();
    let types = vec![(format!("c{wide}"), "UInt256".to_owned())];
    let bind = |table, order: &[&str], view| {
        Target::bind(&Spec { types: types.clone(), ..spec(table, order) }, view).unwrap()
    };
    // One that walview makes, by `types:`.
    let types = compatible().into_iter().enumerate();
    let types = types.map(|(index, (_, ty, _))| (format!("c{index}"), ty.to_owned())).collect();
    let made = Target::bind(&Spec { types, ..spec("made", &["id"]) }, &strict).unwrap();
    let targets = vec![
        adopted(&config, &bind("loose", &["id"], &loose)).await,
        adopted(&config, &bind("strict", &["id"], &strict)).await,
        adopted(&config, &bind("sorted", &sorting, &strict)).await,
        made,
    ];
    let rows = [loose_rows, strict_rows.clone(), strict_rows.clone(), strict_rows];
    let mut store = ClickHouse::new(config.clone(), targets.clone());
    store.connect().await.unwrap();
    store.reset().await.unwrap();
    store.set_mark(at(1)).await.unwrap();
    store.apply(&one_record(1, encoded(&targets, &rows, 2, false))).await.unwrap();
    for (target, rows) in targets.iter().zip(&rows) {
        let mut expected: Vec<_> = rows.iter().map(|row| target.expected(row).unwrap()).collect();
        let mut held = Vec::new();
        read_all(&config, target, |row| held.push(row)).await.unwrap();
        expected.sort();
        held.sort();
        assert_eq!(held, expected, "{}", target.table());
    }
    let extra = "SELECT id, note, double, half, tag FROM test_rows.strict FINAL ORDER BY id";
    assert_eq!(rig.sql(extra).await, "0\tby hand\t0\t0\t\\N\n1\tby hand\t2\t0\t\\N");
    store.apply(&one_record(2, encoded(&targets, &rows, 3, true))).await.unwrap();
    for target in &targets {
        let mut held = 0;
        read_all(&config, target, |_| held += 1).await.unwrap();
        assert_eq!(held, 0, "{}", target.table());
    }
}

fn plain() -> Target {
    Target::bind(&spec("t", &["id"]), &view()).unwrap()
}

async fn refusals(config: &Config, target: &Target) -> Vec<String> {
    match look(config, target).await.unwrap() {
        Standing::Refused(misfits) => misfits
            .into_iter()
            .map(|misfit| format!("{}; {}", misfit.cause, misfit.remedy))
            .collect(),
        other @ (Standing::Absent | Standing::Own | Standing::Adopted(_)) => panic!("{other:?}"),
    }
}

const PLAIN: &str = "id UInt64, name Nullable(String), n Int32, extra UInt8 DEFAULT 7";

fn plain_ddl(place: &str, tail: &str) -> String {
    format!("CREATE TABLE {place} ({PLAIN}, {OWN} ORDER BY id {tail}")
}

/// Taken over, emptied at a reset, never dropped; what the user wrote on it stays.
#[tokio::test]
async fn an_adopted_table_is_emptied_never_dropped() {
    let rig = ClickHouseRig::start().await;
    rig.sql("CREATE DATABASE test_rows").await;
    rig.sql(&plain_ddl("test_rows.t", "SETTINGS index_granularity = 512 COMMENT 'bets, by Ann'"))
        .await;
    let uuid = "SELECT uuid FROM system.tables WHERE database = 'test_rows' AND name = 't'";
    let before = rig.sql(uuid).await;
    let config = rig.config(&rig.address());
    // Looking changes nothing.
    let target = adopted(&config, &plain()).await;
    assert_eq!(rig.sql("SELECT count() FROM system.databases WHERE name = 'test'").await, "0");
    for round in 1..=2 {
        let mut store = ClickHouse::new(config.clone(), vec![target.clone()]);
        store.connect().await.unwrap();
        store.reset().await.unwrap();
        assert_eq!(rig.sql("SELECT count() FROM test_rows.t").await, "0", "{round}");
        store.set_mark(at(1)).await.unwrap();
        let row = vec![Value::Int(7), Value::Null, Value::Int(2)];
        let ops = encoded(std::slice::from_ref(&target), &[vec![row]], 2, false);
        store.apply(&one_record(1, ops)).await.unwrap();
        assert_eq!(rig.sql("SELECT * FROM test.t").await.lines().count(), 1, "{round}");
        assert_eq!(adopted(&config, &plain()).await.types(), target.types());
    }
    assert_eq!(rig.sql(uuid).await, before);
    let comment = rig
        .sql("SELECT comment FROM system.tables WHERE database = 'test_rows' AND name = 't'")
        .await;
    assert_eq!(comment, "walview pipeline \"test\" view \"v\" schema adopted; bets, by Ann");
}

#[tokio::test]
async fn a_table_in_the_views_place_is_told_where_it_belongs() {
    let rig = ClickHouseRig::start().await;
    rig.sql("CREATE DATABASE test").await;
    rig.sql(&plain_ddl("test.t", "TTL toDateTime(_committed_at) + INTERVAL 1 DAY")).await;
    rig.sql("INSERT INTO test.t (id, _committed_at) VALUES (1, now())").await;
    let config = rig.config(&rig.address());
    let found = refusals(&config, &plain()).await;
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(found[1].starts_with("its TTL deletes rows"), "{found:?}");
    assert!(found[2].starts_with("it holds rows"), "{found:?}");
    let (_, statements) = found[0].split_once("behind the view: ").unwrap();
    rig.sql("ALTER TABLE test.t REMOVE TTL").await;
    rig.sql("TRUNCATE TABLE test.t").await;
    for statement in statements.split("; ") {
        rig.sql(statement).await;
    }
    adopted(&config, &plain()).await;
}

#[tokio::test]
async fn rows_of_the_users_are_not_touched() {
    let rig = ClickHouseRig::start().await;
    rig.sql("CREATE DATABASE test_rows").await;
    rig.sql(&plain_ddl("test_rows.t", "")).await;
    let config = rig.config(&rig.address());
    let target = adopted(&config, &plain()).await;
    // Written between the look and the reset.
    rig.sql("INSERT INTO test_rows.t (id) VALUES (1)").await;
    assert!(refusals(&config, &plain()).await[0].starts_with("it holds rows"));
    let mut store = ClickHouse::new(config.clone(), vec![target]);
    store.connect().await.unwrap();
    let error = store.reset().await.unwrap_err();
    assert!(matches!(&error, StoreError::Stop { .. }), "{error}");
    assert_eq!(rig.sql("SELECT count() FROM test_rows.t").await, "1");
    let comment = "SELECT comment FROM system.tables WHERE database = 'test_rows' AND name = 't'";
    assert_eq!(rig.sql(comment).await, "");
}

/// Altered while walview runs or was away: named, its view stops, others go on; a rebuild takes
/// the table as it is now.
#[tokio::test]
async fn an_altered_table_stops_its_view() {
    let rig = ClickHouseRig::start().await;
    rig.sql("CREATE DATABASE test_rows").await;
    rig.sql(&plain_ddl("test_rows.t", "")).await;
    let config = rig.config(&rig.address());
    let other = Target::bind(&spec("other", &["id"]), &view()).unwrap();
    let targets = vec![adopted(&config, &plain()).await, other];
    let mut store = ClickHouse::new(config.clone(), targets.clone());
    store.connect().await.unwrap();
    store.reset().await.unwrap();
    store.set_mark(at(1)).await.unwrap();
    store.fresh(0, Lsn(1)).await.unwrap();
    // What does not concern the rows may change.
    rig.sql("ALTER TABLE test_rows.t ADD COLUMN more String DEFAULT 'x'").await;
    store.fresh(0, Lsn(1)).await.unwrap();
    // A cast that would wrap in silence.
    rig.sql("ALTER TABLE test_rows.t MODIFY COLUMN n Int16 SETTINGS mutations_sync = 2").await;
    let StoreError::StopView(faults) = store.fresh(0, Lsn(1)).await.unwrap_err() else {
        panic!("an altered column is not noticed")
    };
    assert_eq!(
        faults[0].message,
        "the table `test_rows`.`t` was altered: column \"n\" is Int16, and was Int32 when the \
         pipeline was filled"
    );
    let rows = vec![super::values(A), super::values(B)];
    let batch = one_record(1, encoded(&targets, &[rows.clone(), rows], 2, false));
    let mut again = ClickHouse::new(config.clone(), targets.clone());
    let StoreError::StopView(faults) = again.apply(&batch).await.unwrap_err() else {
        panic!("an altered column is not noticed after a restart")
    };
    assert_eq!(faults.iter().map(|fault| fault.target).collect::<Vec<_>>(), [0]);
    assert_eq!(rig.sql("SELECT count() FROM test.t").await, "0");
    assert_eq!(rig.sql("SELECT count() FROM test.other").await, "2");
    again.stop_targets([0].into());
    again.fresh(0, Lsn(2)).await.unwrap();
    rig.sql("DROP TABLE test_rows.other").await;
    let gone = again.fresh(0, Lsn(2)).await.unwrap_err().to_string();
    assert_eq!(gone, "the table `test_rows`.`other` is gone; fill it again with: walview rebuild");
    // The same DDL again, without the rows.
    rig.sql("DROP TABLE test_rows.t").await;
    rig.sql(&plain_ddl("test_rows.t", "")).await;
    rig.sql("ALTER TABLE test_rows.t MODIFY COLUMN n Int16").await;
    let now = adopted(&config, &plain()).await;
    let mut again = ClickHouse::new(config.clone(), vec![now.clone()]);
    let anew = again.apply(&batch).await.unwrap_err().to_string();
    assert!(anew.contains("it was made anew"), "{anew}");
    assert!(now.types().contains(&("n".to_owned(), "Int16".to_owned())));
}

/// A table that walview made and somebody altered is made anew by a rebuild.
#[tokio::test]
async fn an_altered_table_of_ours_is_made_anew() {
    let rig = ClickHouseRig::start().await;
    let config = rig.config(&rig.address());
    let mut store = ClickHouse::new(config.clone(), vec![plain()]);
    store.connect().await.unwrap();
    store.reset().await.unwrap();
    rig.sql("ALTER TABLE test_rows.t DROP COLUMN n").await;
    store.reset().await.unwrap();
    store.set_mark(at(1)).await.unwrap();
    store.fresh(0, Lsn(1)).await.unwrap();
}

/// Everything that does not fit, at once.
#[tokio::test]
async fn every_misfit_is_named() {
    let rig = ClickHouseRig::start().await;
    rig.sql("CREATE DATABASE test_rows").await;
    rig.sql(
        "CREATE TABLE test_rows.t (id Nullable(Int64), name String TTL d + INTERVAL 1 DAY, \
         n Float64, d DateTime, plain UInt8, _version UInt64, \
         _deleted UInt8 MATERIALIZED 0, CONSTRAINT c CHECK id > 0) ENGINE = MergeTree \
         PARTITION BY plain % 3 ORDER BY (d, id) TTL d + INTERVAL 1 YEAR, \
         d + INTERVAL 1 MONTH TO VOLUME 'default' SETTINGS allow_nullable_key = 1",
    )
    .await;
    let found = refusals(&rig.config(&rig.address()), &plain()).await.join("\n");
    assert_eq!(found, include_str!("misfits.txt").trim_end());
}

/// The DDL that docs/targets.md shows fits.
#[tokio::test]
async fn the_documented_table_fits() {
    let docs = include_str!("../../../docs/targets.md");
    let (_, ddl) = docs.split_once("```sql\n").unwrap();
    let (ddl, _) = ddl.split_once("```").unwrap();
    let rig = ClickHouseRig::start().await;
    for statement in ddl.split(';').map(str::trim).filter(|statement| !statement.is_empty()) {
        rig.sql(statement).await;
    }
    let column = |name: &str, ty, nullable| OutputColumn { name: name.to_owned(), ty, nullable };
    let columns = vec![
        column("bet_id", Type::Int8, false),
        column("user_id", Type::Int8, false),
        column("event_category", Type::Text, true),
        column("status", Type::Text, false),
        column("amount", Type::Numeric(Some((12, 2))), false),
        column("placed_at", Type::TimestampTz, false),
    ];
    let target = Target::bind(
        &spec("bets_analytics", &["placed_at", "user_id", "bet_id"]),
        &View { columns, ..view() },
    )
    .unwrap();
    let config = Config { database: "betting".to_owned(), ..rig.config(&rig.address()) };
    adopted(&config, &target).await;
}
