//! The suite's `ClickHouse`, and what only `ClickHouse` promises.

use super::super::clickhouse::{ClickHouse, Config, read_all};
use super::super::{Batch, Store as _, StoreError};
use super::server::ClickHouseServer;
use super::{A, B, Content, Rig, Row, at, batch, each_change, identity, ready, values, view};
use bytes::Bytes;
use std::sync::Arc;
use walview_core::outbox::Record;
use walview_core::plan::{OutputColumn, View};
use walview_core::position::{Lsn, Position};
use walview_core::target::clickhouse::{Spec, Target};
use walview_core::target::{Change, Commit, Scratch};
use walview_core::value::{Carried, Type, Value};

pub(super) struct ClickHouseRig {
    server: ClickHouseServer,
}

pub(super) fn spec(table: &str, order_by: &[&str]) -> Spec {
    Spec {
        table: table.to_owned(),
        order_by: order_by.iter().map(|name| (*name).to_owned()).collect(),
        partition_by: None,
        types: Vec::new(),
        fields: None,
        unfit_text: false,
    }
}

/// The second has a sorting key that changes.
fn targets() -> Vec<Target> {
    let moving = Spec { partition_by: Some("intDiv(n, 10)".to_owned()), ..spec("m", &["n", "id"]) };
    vec![Target::bind(&spec("t", &["id"]), &view()), Target::bind(&moving, &view())]
        .into_iter()
        .collect::<Result<_, _>>()
        .unwrap()
}

impl ClickHouseRig {
    pub(super) fn config(&self, address: &str) -> Config {
        Config {
            url: format!("http://default:@{address}"),
            database: "test".to_owned(),
            identity: identity(),
        }
    }

    pub(super) async fn sql(&self, sql: &str) -> String {
        let client = ::clickhouse::Client::default().with_url(format!("http://{}", self.address()));
        let mut cursor = client.query_raw(sql).fetch_bytes("TSV").unwrap();
        let bytes = cursor.collect().await.unwrap();
        String::from_utf8(bytes.to_vec()).unwrap().trim().to_owned()
    }
}

impl Rig for ClickHouseRig {
    type Store = ClickHouse;

    async fn start() -> Self {
        Self { server: ClickHouseServer::start().await }
    }

    fn address(&self) -> String {
        self.server.address()
    }

    fn store(&self, address: &str) -> ClickHouse {
        ClickHouse::new(self.config(address), targets())
    }

    async fn restart(&mut self) {
        self.server.restart().await;
    }

    fn ops(&self, changes: &[(Option<Row>, Option<Row>)], at: Position) -> Bytes {
        let targets = targets();
        let (mut scratch, mut bytes) = (Scratch::default(), Vec::new());
        let commit = Commit { committed_at: 0 };
        each_change(changes, at, |change, at| {
            for (index, target) in (0..).zip(&targets) {
                target.render(index, change, at, &commit, &mut scratch, &mut bytes).unwrap();
            }
        });
        bytes.into()
    }

    async fn content(&self) -> Content {
        let mut content = Content::new();
        for target in targets() {
            read_all(&self.config(&self.address()), &target, |row| {
                content.insert(format!("{} {:?}", target.table(), row.first()), format!("{row:?}"));
            })
            .await
            .unwrap();
        }
        content
    }

    fn expected(&self, rows: &[Row]) -> Content {
        let mut content = Content::new();
        for target in targets() {
            for row in rows {
                let row = target.expected(&values(*row)).unwrap();
                content.insert(format!("{} {:?}", target.table(), row.first()), format!("{row:?}"));
            }
        }
        content
    }

    async fn events(&self) -> Option<usize> {
        None
    }

    async fn break_first_target(&self) {
        self.sql("ALTER TABLE test_rows.t DROP COLUMN name SETTINGS mutations_sync = 2").await;
    }

    async fn put_foreign(&self) {
        self.sql("CREATE DATABASE IF NOT EXISTS test").await;
        self.sql("CREATE TABLE test.mine (a Int8) ENGINE = MergeTree ORDER BY a").await;
        self.sql("INSERT INTO test.mine VALUES (1)").await;
    }

    async fn foreign_is_there(&self) -> bool {
        self.sql("SELECT count() FROM test.mine").await == "1"
    }
}

#[tokio::test]
async fn a_table_of_the_users_is_refused() {
    let rig = ClickHouseRig::start().await;
    rig.sql("CREATE DATABASE test").await;
    rig.sql("CREATE TABLE test.m (a Int8) ENGINE = MergeTree ORDER BY a").await;
    rig.sql("INSERT INTO test.m VALUES (1)").await;
    let mut store = rig.store(&rig.address());
    store.connect().await.unwrap();
    let error = store.reset().await.unwrap_err();
    assert!(matches!(&error, StoreError::Stop { .. }), "{error}");
    assert!(error.to_string().contains("`test`.`m`"), "{error}");
    assert_eq!(rig.sql("SELECT count() FROM test.m").await, "1");
}

#[tokio::test]
async fn freshness_names_every_view() {
    let rig = ClickHouseRig::start().await;
    let mut store = ready(&rig, &rig.address()).await;
    store.fresh(848_530_920_123_456, Lsn(0x16_B374_D848)).await.unwrap();
    let rows = rig
        .sql("SELECT pipeline, view, as_of, lsn, state FROM test.walview_freshness ORDER BY view LIMIT 1")
        .await;
    assert_eq!(rows, "test\tv\t2026-11-20 23:02:00.123456\t16/B374D848\tlive");
    store.apply(&batch(&rig, 1, 2, &[(None, Some(A))])).await.unwrap();
}

/// A time only where one is true: not while loading, not in the moment after, not when stopped.
#[tokio::test]
async fn freshness_says_loading_live_and_stopped() {
    let rig = ClickHouseRig::start().await;
    let other = View { name: "w".to_owned(), ..view() };
    let targets = vec![
        Target::bind(&spec("t", &["id"]), &view()).unwrap(),
        Target::bind(&spec("t2", &["id"]), &view()).unwrap(),
        Target::bind(&spec("w", &["id"]), &other).unwrap(),
    ];
    let mut store = ClickHouse::new(rig.config(&rig.address()), targets);
    store.connect().await.unwrap();
    let state = "SELECT view, state, as_of IS NULL, lag IS NULL FROM test.walview_freshness \
                 ORDER BY view, state";
    assert_eq!(rig.sql(state).await, "");
    store.reset().await.unwrap();
    assert_eq!(rig.sql(state).await, "v\tloading\t1\t1\nw\tloading\t1\t1");
    store.set_mark(at(1)).await.unwrap();
    assert_eq!(rig.sql(state).await, "v\tlive\t1\t1\nw\tlive\t1\t1");
    store.fresh(848_530_920_123_456, Lsn(7)).await.unwrap();
    assert_eq!(rig.sql(state).await, "v\tlive\t0\t0\nw\tlive\t0\t0");
    // Seconds, to the millisecond.
    let lag = "SELECT toTypeName(lag), abs(lag - dateDiff('millisecond', \
               toDateTime64('2026-11-20 23:02:00.123456', 6, 'UTC'), now64(6)) / 1000) < 5 \
               FROM test.walview_freshness WHERE view = 'v'";
    assert_eq!(rig.sql(lag).await, "Nullable(Decimal(18, 3))\t1");
    // Of a transaction that is there in part only what was committed before it is true.
    let as_of = "SELECT DISTINCT as_of FROM test.walview_freshness";
    for (ends, from, expected) in
        [(false, 1, "2026-11-20 23:02:00.999999"), (true, 2, "2026-11-20 23:02:01.000000")]
    {
        let (to, committed_at) = (at(from + 1), 848_530_921_000_000);
        let (complete, ops) = (to.lsn, Bytes::new());
        let record = Record { seq: from, to, complete, committed_at, ends, ops };
        let records = vec![Arc::new(record)];
        let batch = Batch { from: at(from), to, complete, committed_at, records };
        store.apply(&batch).await.unwrap();
        assert_eq!(rig.sql(as_of).await, expected);
    }
    // One of two targets of a view that is stopped is reason enough not to trust the view.
    store.stop_targets([1].into());
    store.fresh(848_530_922_000_000, Lsn(8)).await.unwrap();
    assert_eq!(rig.sql(state).await, "v\tstopped\t1\t1\nw\tlive\t0\t0");
}

/// The first write of a connection replaces views that another version made, under rows that stay;
/// what is not walview's stays.
#[tokio::test]
async fn views_of_another_version_are_replaced() {
    let rig = ClickHouseRig::start().await;
    let mut store = ready(&rig, &rig.address()).await;
    store.apply(&batch(&rig, 1, 2, &[(None, Some(A))])).await.unwrap();
    let comment = |name: &str| {
        format!("SELECT comment FROM system.tables WHERE database = 'test' AND name = '{name}'")
    };
    let current = rig.sql(&comment("t")).await;
    let (owner, _) = current.split_once(" schema ").unwrap();
    let owner = owner.replace("\\'", "'");
    rig.sql(&format!(
        "CREATE OR REPLACE VIEW test.t AS SELECT id FROM test_rows.t FINAL WHERE _deleted = 0 \
         COMMENT '{owner} schema 0123456789abcdef'"
    ))
    .await;
    // As the versions before this one said it.
    rig.sql("CREATE OR REPLACE VIEW test.walview_freshness AS SELECT 1 AS old COMMENT 'walview freshness'")
        .await;
    rig.sql("DROP VIEW test.m").await;
    let mut store = rig.store(&rig.address());
    store.connect().await.unwrap();
    assert_eq!(rig.sql("SELECT view, state FROM test.walview_freshness").await, "v\tlive");
    assert_ne!(rig.sql(&comment("t")).await, current, "a rebuild may be about to come");
    store.fresh(848_530_920_123_456, Lsn(2)).await.unwrap();
    assert_eq!(rig.sql(&comment("t")).await, current);
    let columns = "SELECT arrayStringConcat(groupArray(name), ' ') FROM system.columns \
                   WHERE database = 'test' AND table IN ('t', 'm') GROUP BY table ORDER BY table";
    assert_eq!(rig.sql(columns).await, "id name n _committed_at\nid name n _committed_at");
    assert_eq!(rig.content().await, rig.expected(&[A]), "the rows are those that were there");

    rig.sql("CREATE OR REPLACE VIEW test.t AS SELECT 1 AS mine COMMENT 'of the risk team'").await;
    let mut store = rig.store(&rig.address());
    store.connect().await.unwrap();
    store.fresh(848_530_920_123_456, Lsn(2)).await.unwrap();
    assert_eq!(rig.sql("SELECT mine FROM test.t").await, "1");
}

fn all_types() -> (View, Vec<Vec<Value>>) {
    let label = Type::Enum { oid: 1, name: "e".to_owned(), labels: vec!["ä".to_owned()] };
    let columns: Vec<(&str, Type, [&str; 2])> = vec![
        ("b", Type::Bool, ["t", "f"]),
        ("i2", Type::Int2, ["-32768", "32767"]),
        ("i4", Type::Int4, ["-2147483648", "2147483647"]),
        ("i8", Type::Int8, ["-9223372036854775808", "9223372036854775807"]),
        ("f4", Type::Float4, ["NaN", "1e-45"]),
        ("f8", Type::Float8, ["-Infinity", "-0"]),
        ("n12", Type::Numeric(Some((12, 2))), ["-9999999999.99", "0.10"]),
        ("n40", Type::Numeric(Some((40, 20))), ["-12345678901234567890.12345678901234567890", "0"]),
        ("n", Type::Numeric(None), ["-1.50", "12345678901234567890123456789012345678.1"]),
        ("n3", Type::Numeric(Some((3, -2))), ["12300", "-99900"]),
        ("s", Type::Text, ["", "a'\\\"\t\n\u{1}é\u{10FFFF}"]),
        ("c", Type::Char(3), ["a  ", "abc"]),
        ("by", Type::Bytea, ["\\x", "\\x00ff27"]),
        ("d", Type::Date, ["1900-01-01", "2299-12-31"]),
        ("ti", Type::Time, ["00:00:00", "24:00:00"]),
        ("ts", Type::Timestamp, ["1900-01-01 00:00:00", "2299-12-31 23:59:59.999999"]),
        (
            "tz",
            Type::TimestampTz,
            ["1999-12-31 23:59:59.999999+00", "2026-11-20 23:02:00.123456+00"],
        ),
        ("iv", Type::Interval, ["1 mon 2 days 03:04:05.6", "-1 days"]),
        (
            "u",
            Type::Uuid,
            ["00112233-4455-6677-8899-aabbccddeeff", "ffffffff-ffff-ffff-ffff-ffffffffffff"],
        ),
        ("j", Type::Json, ["{\"a\" : 1}", "null"]),
        ("jb", Type::Jsonb, ["{\"a\": [1, 2]}", "\"x\""]),
        ("e", label, ["ä", "ä"]),
        (
            "o",
            Type::Other { oid: 869, name: "inet".to_owned(), carried: Carried::default() },
            ["10.0.0.1/8", "::1"],
        ),
    ];
    let mut output = vec![OutputColumn { name: "id".to_owned(), ty: Type::Int8, nullable: false }];
    let mut rows: Vec<Vec<Value>> = (0..3).map(|id| vec![Value::Int(id)]).collect();
    for (name, ty, texts) in columns {
        for (row, text) in rows.iter_mut().zip(texts) {
            row.push(Value::parse(&ty, text).unwrap());
        }
        rows[2].push(Value::Null);
        output.push(OutputColumn { name: name.to_owned(), ty, nullable: true });
    }
    (View { columns: output, ..view() }, rows)
}

/// Every type, at its edges and NULL, reads back as it was; tombstones of every type are taken.
#[tokio::test]
async fn every_type_reads_back() {
    let rig = ClickHouseRig::start().await;
    let (view, rows) = all_types();
    let mut wanted = vec![Target::bind(&spec("every", &["id"]), &view).unwrap()];
    // Without NULL, as sorting keys.
    let strict = View {
        columns: view
            .columns
            .iter()
            .cloned()
            .map(|c| OutputColumn { nullable: false, ..c })
            .collect(),
        ..view
    };
    let names: Vec<&str> = strict
        .columns
        .iter()
        .map(|column| column.name.as_str())
        .filter(|name| !matches!(*name, "f4" | "f8"))
        .collect();
    wanted.push(Target::bind(&spec("sorted", &names), &strict).unwrap());
    wanted.push(Target::bind(&spec("plain", &["id"]), &strict).unwrap());
    let mut store = ClickHouse::new(rig.config(&rig.address()), wanted.clone());
    store.connect().await.unwrap();
    store.reset().await.unwrap();
    store.set_mark(at(1)).await.unwrap();
    let (mut scratch, mut bytes) = (Scratch::default(), Vec::new());
    let commit = Commit { committed_at: 0 };
    for (index, target) in (0_u16..).zip(&wanted) {
        let rows = if index == 0 { &rows[..] } else { &rows[..2] };
        for (ordinal, row) in (1..).zip(rows) {
            let change = Change { old: None, new: Some(row) };
            let at = Position { ordinal, ..at(2) };
            target.render(index, &change, at, &commit, &mut scratch, &mut bytes).unwrap();
        }
    }
    store.apply(&one_record(1, bytes)).await.unwrap();
    for (index, target) in wanted.iter().enumerate() {
        let rows = if index == 0 { &rows[..] } else { &rows[..2] };
        let mut expected: Vec<_> = rows.iter().map(|row| target.expected(row).unwrap()).collect();
        let mut held = Vec::new();
        read_all(&rig.config(&rig.address()), target, |row| held.push(row)).await.unwrap();
        expected.sort();
        held.sort();
        assert_eq!(held, expected, "{}", target.table());
    }
    let mut bytes = Vec::new();
    for (index, target) in (0_u16..).zip(&wanted) {
        let rows = if index == 0 { &rows[..] } else { &rows[..2] };
        for (ordinal, row) in (1..).zip(rows) {
            let change = Change { old: Some(row), new: None };
            let at = Position { ordinal, ..at(3) };
            target.render(index, &change, at, &commit, &mut scratch, &mut bytes).unwrap();
        }
    }
    store.apply(&one_record(2, bytes)).await.unwrap();
    for target in &wanted {
        let mut held = 0;
        read_all(&rig.config(&rig.address()), target, |_| held += 1).await.unwrap();
        assert_eq!(held, 0, "{}", target.table());
    }
}

pub(super) fn one_record(from: u64, ops: Vec<u8>) -> Batch {
    let to = at(from + 1);
    let (complete, ops) = (to.lsn, ops.into());
    let record = Record { seq: from, to, complete, committed_at: 0, ends: true, ops };
    Batch { from: at(from), to, complete, committed_at: 0, records: vec![Arc::new(record)] }
}

/// Rows over 400 partitions in one batch (the server's default limit is 100).
#[tokio::test]
async fn many_partitions_in_one_batch() {
    let rig = ClickHouseRig::start().await;
    let mut store = ready(&rig, &rig.address()).await;
    let rows: Vec<Row> = (0..400).map(|id| (id, None, id * 10)).collect();
    let changes: Vec<_> = rows.iter().map(|row| (None, Some(*row))).collect();
    store.apply(&batch(&rig, 1, 2, &changes)).await.unwrap();
    assert_eq!(rig.content().await, rig.expected(&rows));
}

/// Conditions on columns of the sorting key go to indexes and partitions before versions are
/// compared: they must find what is there, and nothing that was moved, rewritten or deleted.
#[tokio::test]
async fn conditions_find_what_is_there() {
    let rig = ClickHouseRig::start().await;
    let mut store = ready(&rig, &rig.address()).await;
    rig.sql("SYSTEM STOP MERGES test_rows.m").await;
    let row = |id: i64, n: i64| Some((id, Some("x"), n));
    let rounds: [Vec<_>; 4] = [
        (0..100).map(|id| (None, row(id, id))).collect(),
        // To another partition, to another place in the same one, and back again.
        (0..100).step_by(3).map(|id| (row(id, id), row(id, id + 50))).collect(),
        (0..100).step_by(6).map(|id| (row(id, id + 50), row(id, id + 1))).collect(),
        (0..100)
            .step_by(12)
            .map(|id| (row(id, id + 1), if id % 24 == 0 { None } else { row(id, id) }))
            .collect(),
    ];
    for (from, changes) in (1..).zip(&rounds) {
        store.apply(&batch(&rig, from, from + 1, changes)).await.unwrap();
    }
    let all = "SELECT DISTINCT id, n FROM (SELECT * FROM test.m) ORDER BY id FORMAT TSV";
    for merged in [false, true] {
        if merged {
            rig.sql("SYSTEM START MERGES test_rows.m").await;
            rig.sql("OPTIMIZE TABLE test_rows.m FINAL").await;
        }
        let shown = rig.sql(all).await;
        assert_eq!(shown.lines().count(), 95, "{shown}");
        for id in 0..100 {
            let wanted: Vec<&str> =
                shown.lines().filter(|line| line.starts_with(&format!("{id}\t"))).collect();
            let found = rig.sql(&format!("SELECT id, n FROM test.m WHERE id = {id}")).await;
            assert_eq!(found, wanted.join("\n"), "id {id}, merged: {merged}");
        }
        for n in [0, 1, 7, 12, 53, 60, 149] {
            let wanted = shown.lines().filter(|line| line.ends_with(&format!("\t{n}"))).count();
            let found = rig.sql(&format!("SELECT count() FROM test.m WHERE n = {n}")).await;
            assert_eq!(found, wanted.to_string(), "n {n}, merged: {merged}");
        }
    }
    let explained = rig.sql("EXPLAIN indexes = 1 SELECT * FROM test.m WHERE id = 5").await;
    assert!(explained.contains("Name: key_id"), "{explained}");
}

/// Emptied by hand, while walview runs or was away: its view stops, and the others go on. A table
/// whose merges may forget all rows is not blamed for it.
#[tokio::test]
async fn an_emptied_table_stops_its_view() {
    let rig = ClickHouseRig::start().await;
    let mut store = ready(&rig, &rig.address()).await;
    // Empty because there is nothing.
    store.fresh(0, Lsn(1)).await.unwrap();
    store.apply(&batch(&rig, 1, 2, &[(None, Some(A))])).await.unwrap();
    store.fresh(0, Lsn(2)).await.unwrap();
    rig.sql("TRUNCATE TABLE test_rows.t").await;
    let error = store.fresh(0, Lsn(2)).await.unwrap_err();
    let StoreError::StopView(faults) = &error else { panic!("{error}") };
    assert_eq!(faults.iter().map(|fault| fault.target).collect::<Vec<_>>(), [0]);
    assert_eq!(
        error.to_string(),
        "the table `test_rows`.`t` was emptied by somebody; fill it again with: walview rebuild"
    );
    // Just so before the next batch, whose other targets get theirs.
    let second = batch(&rig, 2, 3, &[(None, Some(B))]);
    assert!(matches!(store.apply(&second).await, Err(StoreError::StopView(_))));
    assert_eq!(rig.sql("SELECT count() FROM test.m").await, "2");
    // Who was away is told by the state what should be there.
    let mut later = rig.store(&rig.address());
    later.connect().await.unwrap();
    later.expect_rows([0, 1].into());
    assert!(matches!(later.fresh(0, Lsn(3)).await, Err(StoreError::StopView(_))));
    let cleanup = "allow_experimental_replacing_merge_with_cleanup = 1";
    rig.sql(&format!("ALTER TABLE test_rows.t MODIFY SETTING {cleanup}")).await;
    let mut later = rig.store(&rig.address());
    later.connect().await.unwrap();
    later.expect_rows([0, 1].into());
    later.fresh(0, Lsn(3)).await.unwrap();
}
