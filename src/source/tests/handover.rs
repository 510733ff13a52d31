//! Snapshot and stream together are the table: nothing missing, nothing twice, the same values.

use super::super::stream::{Event, Format, Resume, Stream};
use super::super::{Action, Kind, catalog, slot, snapshot};
use super::*;
use std::collections::BTreeMap;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use walview_core::catalog::Table;
use walview_core::pgoutput::{Cell, Message, Old, Tuple, decode};
use walview_core::value::{Row, Value};

async fn load(session: &Session, name: &str) -> Table {
    let names = [("public".to_owned(), name.to_owned())];
    catalog::load(session, &names).await.unwrap().tables.remove(0)
}

fn values(table: &Table, tuple: Tuple<'_>) -> Row {
    let cells = tuple.cells().zip(&table.columns);
    cells
        .map(|(cell, column)| match cell {
            Cell::Null => Value::Null,
            Cell::Text(text) => {
                Value::from_server(&column.ty, std::str::from_utf8(text).unwrap()).unwrap()
            }
            Cell::Binary(_) if !column.ty.has_binary() => Value::Null,
            Cell::Binary(bytes) => Value::from_binary(&column.ty, bytes).unwrap(),
            Cell::Unchanged => panic!("not in this test"),
        })
        .collect()
}

fn key(row: &Row) -> i64 {
    let Some(Value::Int(key)) = row.first() else { panic!() };
    *key
}

/// Applies one change; a key that is there twice or not at all fails the test.
fn apply(rows: &mut BTreeMap<i64, Row>, table: &Table, data: &[u8]) {
    match decode(data).unwrap() {
        Message::Insert { new, .. } => {
            let new = values(table, new);
            assert!(rows.insert(key(&new), new).is_none(), "inserted twice");
        }
        Message::Update { old, new, .. } => {
            let new = values(table, new);
            let old = match old {
                Some(Old::Key(old) | Old::Full(old)) => key(&values(table, old)),
                None => key(&new),
            };
            assert!(rows.remove(&old).is_some(), "updated what is not there");
            rows.insert(key(&new), new);
        }
        Message::Delete { old: Old::Key(old) | Old::Full(old), .. } => {
            assert!(rows.remove(&key(&values(table, old))).is_some(), "deleted twice");
        }
        Message::Truncate(_) => rows.clear(),
        _ => {}
    }
}

/// Streams into `rows` until the log has been worked off up to `end`.
async fn follow(stream: &mut Stream, rows: &mut BTreeMap<i64, Row>, table: &Table, end: Lsn) {
    loop {
        for event in stream.next().await.unwrap().events {
            match event {
                Event::Data(data) => apply(rows, table, &data),
                Event::Commit { end_lsn: at, .. } | Event::KeepAlive { wal_end: at } => {
                    if at >= end {
                        return;
                    }
                }
                Event::Begin { .. } | Event::Message { .. } => {}
            }
        }
    }
}

/// A small generator: the seed is printed, and taken back from `SEED`.
struct Random(u64);

impl Random {
    fn next(&mut self, below: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}

async fn writer(session: Session, seed: u64, stop: tokio::sync::watch::Receiver<bool>) {
    let mut random = Random(seed);
    while !*stop.borrow() {
        let mut batch = String::from("BEGIN;");
        for _ in 0..=random.next(4) {
            let (id, text) = (random.next(3_000), random.next(1_000_000));
            batch.push_str(&match random.next(6) {
                0 | 1 => format!("INSERT INTO t VALUES ({id}, '{text}') ON CONFLICT DO NOTHING;"),
                2 | 3 => format!("UPDATE t SET v = '{text}' WHERE id = {id};"),
                4 => format!(
                    "UPDATE t SET id = id + 3000 WHERE id = {id} AND NOT EXISTS \
                              (SELECT FROM t WHERE id = {id} + 3000);"
                ),
                _ => format!("DELETE FROM t WHERE id IN ({id}, {id} + 3000);"),
            });
        }
        batch.push_str(if random.next(10) == 0 { "ROLLBACK" } else { "COMMIT" });
        // Writers may meet in a deadlock or at a key; PostgreSQL rolls one back, which is fine.
        if session.batch_execute(&batch).await.is_err() {
            run(&session, "ROLLBACK").await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn snapshot_and_stream_are_the_table_while_others_write() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(rand::random::<u64>);
    eprintln_message(&format!("SEED={seed}"));
    let server = Server::start(&[]);
    let (config, app) = (superuser(&server), application(&server).await);
    run(
        &app,
        "CREATE TABLE t(id int PRIMARY KEY, v text);
         INSERT INTO t SELECT i, repeat('x', 500) FROM generate_series(1, 6000, 2) i; ANALYZE t;
         CREATE PUBLICATION p FOR TABLE t",
    )
    .await;
    let table = load(&app, "t").await;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let mut writers = JoinSet::new();
    for number in 0..3 {
        let session = application(&server).await;
        writers.spawn(writer(session, seed.wrapping_add(number), stopped.clone()));
    }
    for round in 0..3 {
        let name = format!("s{round}");
        let made =
            slot::create_exporting(&config, &name, |_| {}, std::future::pending()).await.unwrap();
        // Far into the writing: the snapshot must not see any of this.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let rows = copy(&config, &made.snapshot_name, &table, &[0, 1]).await;
        let (from, lineage) = (made.consistent_point, made.lineage);
        made.close().await;
        let count = rows.len();
        let mut rows: BTreeMap<i64, Row> = rows.into_iter().map(|row| (key(&row), row)).collect();
        assert_eq!(rows.len(), count, "a row was copied twice");
        let mut stream =
            Stream::start(&config, &name, "p", Resume::at(from), Some(lineage), Format::Text)
                .await
                .unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        if round == 2 {
            stop.send(true).unwrap();
            while writers.join_next().await.is_some() {}
        }
        // A snapshot of the truth and the place in the log that it belongs to.
        let lock = "BEGIN; LOCK TABLE t IN SHARE MODE";
        run(&app, lock).await;
        let end = lsn(&app, "SELECT pg_current_wal_flush_lsn()::text").await;
        let truth = app.query("SELECT id, v FROM t ORDER BY id", &[]).await.unwrap();
        run(&app, "COMMIT").await;
        if round == 2 {
            follow(&mut stream, &mut rows, &table, end).await;
            let truth: Vec<(i64, String)> = truth
                .iter()
                .map(|row| (i64::from(row.get::<_, i32>(0)), row.get::<_, String>(1)))
                .collect();
            let got: Vec<(i64, String)> = rows
                .iter()
                .map(|(id, row)| match row.get(1) {
                    Some(Value::Text(text)) => (*id, text.to_string()),
                    other => panic!("{other:?}"),
                })
                .collect();
            assert!(got == truth, "{} rows, {} in the table", got.len(), truth.len());
        } else {
            // Still written to: that every change fits its row is what `apply` asserts.
            follow(&mut stream, &mut rows, &table, end).await;
        }
        stream.stop().await;
    }
    let ours = "SELECT count(*) FROM pg_stat_activity
                WHERE application_name = 'walview:test' AND state LIKE 'idle in transaction%'";
    until("no transaction is left", || async {
        app.query_one(ours, &[]).await.unwrap().get::<_, i64>(0) == 0
    })
    .await;
}

/// The record after the one that made the snapshot consistent starts at exactly S. If it is a
/// commit, it is not in the snapshot, and is streamed. Made so: one writer blocks the creation, the
/// next begins while it waits for that, and so on; the last commits right after.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_at_exactly_the_consistent_point_is_streamed() {
    let server = Server::start(&["autovacuum=off", "checkpoint_timeout=1d"]);
    let (config, app) = (superuser(&server), application(&server).await);
    run(&app, "CREATE TABLE t(id int PRIMARY KEY, v text); CREATE PUBLICATION p FOR TABLE t").await;
    let table = load(&app, "t").await;
    let mut hits = 0;
    for round in 0..10 {
        let name = format!("s{round}");
        let sessions =
            [application(&server).await, application(&server).await, application(&server).await];
        let id = |writer: usize| round * 10 + i64::try_from(writer).unwrap();
        let begin = |writer: usize| format!("BEGIN; INSERT INTO t VALUES ({}, 'x')", id(writer));
        run(&sessions[0], &begin(0)).await;
        let mut creating = JoinSet::new();
        let (theirs, slot_name) = (config.clone(), name.clone());
        creating.spawn(async move {
            slot::create_exporting(&theirs, &slot_name, |_| {}, std::future::pending()).await
        });
        // Each waits until the creation waits for the one before, then begins, then lets that go.
        for writer in 0..2 {
            let pid: i32 =
                sessions[writer].query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);
            let waits = "SELECT count(*) FROM pg_stat_activity
                         WHERE backend_type = 'walsender' AND $1 = ANY(pg_blocking_pids(pid))";
            until("the creation waits", || async {
                app.query_one(waits, &[&pid]).await.unwrap().get::<_, i64>(0) == 1
            })
            .await;
            run(&sessions[writer + 1], &begin(writer + 1)).await;
            run(&sessions[writer], "COMMIT").await;
        }
        let made = creating.join_next().await.unwrap().unwrap().unwrap();
        run(&sessions[2], "COMMIT").await;
        let rows = copy(&config, &made.snapshot_name, &table, &[0, 1]).await;
        let from = made.consistent_point;
        made.close().await;
        let mut rows: BTreeMap<i64, Row> = rows.into_iter().map(|row| (key(&row), row)).collect();
        assert!(rows.contains_key(&id(1)) && !rows.contains_key(&id(2)));
        let mut stream =
            Stream::start(&config, &name, "p", Resume::at(from), None, Format::Text).await.unwrap();
        let first = loop {
            let gulp = stream.next().await.unwrap();
            let begun = gulp.events.iter().find_map(|event| match event {
                Event::Begin { commit_lsn, .. } => Some(*commit_lsn),
                Event::Data(_)
                | Event::Commit { .. }
                | Event::KeepAlive { .. }
                | Event::Message { .. } => None,
            });
            for event in &gulp.events {
                if let Event::Data(data) = event {
                    apply(&mut rows, &table, data);
                }
            }
            if let Some(begun) = begun {
                break begun;
            }
        };
        assert!(first >= from);
        hits += u32::from(first == from);
        stream.stop().await;
        // The server's side of the stream may live a moment longer.
        until("the slot is free", || async {
            slot::drop(&config, &app, &name).await.is_ok_and(|dropped| dropped)
        })
        .await;
    }
    eprintln_message(&format!("{hits} of 10 commits at exactly the consistent point"));
    assert!(hits > 0, "the case that this test is for never came");
}

const VALUES: &str = "
    (false, -32768, -2147483648, -9223372036854775808, 'NaN', '-0', 'NaN', -0.10, '', E'\\\\N',
     E'tab\\tnl\\ncr\\rbs\\\\ \\b\\f\\x0b', '\\x00ff0a5c', 'infinity', '24:00', '-infinity', '0044-03-15 BC',
     '-1 mon +2 days -00:00:00.5', '00000000-0000-0000-0000-000000000000',
     '{\"a\\u0041\":  \"\\\\n\"}', '{\"n\": 12345678901234567890}', 'o k', '{NULL,\"a\\\"b\",\"{}\"}', ' a'),
    (true, 32767, 2147483647, 9223372036854775807, 1e-37, 1e-300, 'Infinity', 99.99, 'ä😀', '\\.',
     'plain', '', '15000-12-31', '00:00:00.000001', '2026-01-02 03:04:05.6', '9999-12-31 23:59:59.999999+05:30',
     '1 year 25:59:59', 'FFFFFFFF-0000-0000-0000-000000000001', '[]', '\"\\\\\"', 'sad', '{}', 'abc'),
    (NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL,
     NULL, NULL, NULL, NULL, NULL, NULL, NULL),
    (true, 0, 0, 0, '-Infinity', pi(), 1.500, 0, repeat('toast', 5000), 'N', E'\\n', '\\x5c4e', '1970-01-01',
     '12:00', '2000-01-01', '2000-01-01 00:00:00+00', '0', '12345678-9abc-def0-1234-56789abcdef0',
     'null', 'null', 'o k', '{{1},{2}}', '')";

const COLUMNS: &str =
    "a boolean, b smallint, c integer, d bigint, e real, f double precision, g numeric,
    h numeric(6, 2), i text, j varchar, k text, l bytea, m date, n time, o timestamp, p timestamptz,
    q interval, r uuid, s json, t jsonb, u mood, v text[], w char(3)";

#[tokio::test]
async fn a_value_is_the_same_in_snapshot_and_stream() {
    let server = Server::start(&[]);
    let (config, app) = (superuser(&server), application(&server).await);
    run(
        &app,
        "ALTER ROLE postgres SET timezone = 'Asia/Kolkata';
         ALTER ROLE postgres SET datestyle = 'German, DMY';
         ALTER ROLE postgres SET intervalstyle = 'sql_standard';
         ALTER ROLE postgres SET extra_float_digits = -3;
         ALTER ROLE postgres SET bytea_output = 'escape'",
    )
    .await;
    let names = COLUMNS.split(',').filter_map(|column| column.split_whitespace().next());
    // `numeric(6, 2)` holds the separator too.
    let names: Vec<_> = names.filter(|name| *name != "2)").collect();
    let fill = format!("INSERT INTO t({}) VALUES {VALUES}", names.join(", "));
    run(
        &app,
        &format!(
            "CREATE TYPE mood AS ENUM ('sad', 'o k'); CREATE SEQUENCE n;
             CREATE TABLE t(id int PRIMARY KEY DEFAULT nextval('n'), {COLUMNS});
             CREATE PUBLICATION p FOR TABLE t; {fill}"
        ),
    )
    .await;
    let table = load(&app, "t").await;
    let made = slot::create_exporting(&config, "s", |_| {}, std::future::pending()).await.unwrap();
    run(&app, &fill).await;
    let columns: Vec<usize> = (0..table.columns.len()).collect();
    let mut copied = copy(&config, &made.snapshot_name, &table, &columns).await;
    copied.sort_by_key(key);
    // All but the array are copied in binary, too.
    let array = table.column("v").unwrap();
    let others: Vec<usize> = columns.into_iter().filter(|column| *column != array).collect();
    let mut binary = copy(&config, &made.snapshot_name, &table, &others).await;
    binary.sort_by_key(key);
    for (mut text, binary) in copied.iter().cloned().zip(binary) {
        text.remove(array);
        assert_eq!(text, binary);
    }
    let from = made.consistent_point;
    made.close().await;
    let end = lsn(&app, "SELECT pg_current_wal_flush_lsn()::text").await;
    let again = "SELECT pg_copy_logical_replication_slot('s', 'binary')";
    app.execute(again, &[]).await.unwrap();
    for (slot, format) in [("s", Format::Text), ("binary", Format::Binary)] {
        let mut stream =
            Stream::start(&config, slot, "p", Resume::at(from), None, format).await.unwrap();
        let mut streamed = BTreeMap::new();
        follow(&mut stream, &mut streamed, &table, end).await;
        stream.stop().await;
        assert_eq!((copied.len(), streamed.len()), (4, 4));
        for (copied, streamed) in copied.iter().zip(streamed.values()) {
            assert_eq!(key(copied) + 4, key(streamed));
            for ((a, b), column) in copied.iter().zip(streamed).zip(&table.columns).skip(1) {
                if format == Format::Text || column.ty.has_binary() {
                    assert_eq!(a, b, "{} as {format:?}", column.name);
                }
            }
        }
    }
    // The columns asked for, in the order asked for; and what the text was.
    let of = |row: usize, name: &str| &copied[row][table.column(name).unwrap()];
    assert_eq!(*of(0, "j"), Value::Text("\\N".into()));
    assert_eq!(*of(0, "k"), Value::Text("tab\tnl\ncr\rbs\\ \u{8}\u{c}\u{b}".into()));
    assert_eq!(*of(0, "l"), Value::Bytea(vec![0, 255, 10, 92]));
    assert_eq!(*of(1, "j"), Value::Text("\\.".into()));
    assert_eq!(*of(0, "s"), Value::Text("{\"a\\u0041\":  \"\\\\n\"}".into()));
    assert!(copied[2][1..].iter().all(Value::is_null));
    assert!(matches!(of(3, "i"), Value::Text(text) if text.len() == 25_000));
}

/// PostgreSQL shows a table that was truncated as empty to every snapshot from before.
#[tokio::test]
async fn a_table_that_was_emptied_since_is_no_table_of_fewer_rows() {
    let server = Server::start(&[]);
    let (config, app) = (superuser(&server), application(&server).await);
    run(
        &app,
        "CREATE TABLE t(id int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 100);
         CREATE TABLE p(id int PRIMARY KEY) PARTITION BY RANGE (id);
         CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (50) PARTITION BY RANGE (id);
         CREATE TABLE p11 PARTITION OF p1 FOR VALUES FROM (0) TO (50);
         CREATE TABLE p2 PARTITION OF p DEFAULT;
         INSERT INTO p SELECT generate_series(1, 100)",
    )
    .await;
    let (t, p) = (load(&app, "t").await, load(&app, "p").await);
    let harmless = "DELETE FROM t; DELETE FROM p; ANALYZE t; VACUUM t; VACUUM p";
    for (table, sql, whole) in [
        (&t, harmless, true),
        (&p, harmless, true),
        (&t, "TRUNCATE t", false),
        (&t, "BEGIN; TRUNCATE t; ROLLBACK", true),
        (&t, "ALTER TABLE t ALTER id TYPE bigint", false),
        (&p, "TRUNCATE p", false),
        (&p, "TRUNCATE p2", false),
        (&p, "TRUNCATE p11", false),
        (&p, "ALTER TABLE p DETACH PARTITION p2", false),
        (&p, "CREATE TABLE p3 PARTITION OF p FOR VALUES FROM (200) TO (300)", false),
        (&p, "DROP TABLE p1", false),
    ] {
        let fill = "INSERT INTO t SELECT generate_series(1, 100) ON CONFLICT DO NOTHING;
                    INSERT INTO p SELECT generate_series(60, 100) ON CONFLICT DO NOTHING";
        run(&app, fill).await;
        let made =
            slot::create_exporting(&config, "s", |_| {}, std::future::pending()).await.unwrap();
        for statement in sql.split("; ") {
            run(&app, statement).await;
        }
        let copied = try_copy(&config, &made.snapshot_name, table, &[0]).await;
        assert_eq!(copied.is_ok(), whole, "{sql}: {copied:?}");
        if let Err(error) = copied {
            assert_eq!((error.action, error.kind), (Action::Retry, Kind::SnapshotBroken));
            assert_says(&error, &["was truncated, rewritten or given other partitions"]);
        }
        made.close().await;
        run(&app, "SELECT pg_drop_replication_slot('s')").await;
        if sql.contains("DETACH") {
            run(&app, "ALTER TABLE p ATTACH PARTITION p2 DEFAULT").await;
        }
    }
}

#[tokio::test]
async fn parts_columns_and_failures_of_a_copy() {
    let server = Server::start(&[]);
    let (config, app) = (superuser(&server), application(&server).await);
    run(
        &app,
        "CREATE TABLE parts(id int PRIMARY KEY, v text, \"W w\" int) PARTITION BY RANGE (id);
         CREATE TABLE part1 PARTITION OF parts FOR VALUES FROM (0) TO (100);
         CREATE TABLE part2 PARTITION OF parts DEFAULT;
         INSERT INTO parts SELECT i, 'x', -i FROM generate_series(1, 200) i;
         CREATE TABLE empty(id int PRIMARY KEY); CREATE ROLE plain LOGIN",
    )
    .await;
    let (parts, empty) = (load(&app, "parts").await, load(&app, "empty").await);
    let made = slot::create_exporting(&config, "s", |_| {}, std::future::pending()).await.unwrap();
    let snapshot = made.snapshot_name.as_str();
    let rows = copy(&config, snapshot, &parts, &[2, 0]).await;
    assert_eq!(rows.len(), 200);
    assert!(rows.iter().all(|row| matches!(row[..], [Value::Int(w), Value::Int(id)] if w == -id)));
    assert_eq!(copy(&config, snapshot, &parts, &[]).await, vec![Row::new(); 200]);
    assert!(copy(&config, snapshot, &empty, &[0]).await.is_empty());

    let plain = super::config(&server, "plain", "postgres");
    let (sender, _chunks) = mpsc::channel(1);
    let denied = snapshot::copy_table(&plain, snapshot, &parts, &[0], sender).await;
    assert_says(
        &refusal(denied),
        &[
            "cannot copy table \"public.parts\": permission denied for table parts",
            "run: GRANT SELECT ON \"public\".\"parts\" TO \"plain\"",
        ],
    );
    let (sender, chunks) = mpsc::channel(1);
    drop(chunks);
    let cancelled = snapshot::copy_table(&config, snapshot, &parts, &[0], sender).await;
    assert_eq!(refusal(cancelled).kind, Kind::Cancelled);
    let snapshot = snapshot.to_owned();
    made.close().await;
    until("the snapshot is gone", || async {
        let (sender, _chunks) = mpsc::channel(1);
        let gone = snapshot::copy_table(&config, &snapshot, &empty, &[0], sender).await;
        gone.is_err_and(|error| {
            assert_eq!(error.action, Action::Retry);
            assert_says(&error, &["cannot take up the exported snapshot"]);
            true
        })
    })
    .await;
    let ours = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'walview:test'";
    until("every session of ours is gone", || async {
        app.query_one(ours, &[]).await.unwrap().get::<_, i64>(0) == 0
    })
    .await;
}
