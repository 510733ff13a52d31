//! The report views of `schemas/clickhouse/betting/`, against the same reports computed by
//! PostgreSQL from the tables: every row, every column, to the last digit.

use std::collections::BTreeSet;
use std::time::Duration;

use walview::demo::{REPORTS, create_reports};

use crate::end_to_end::SMALL;
use crate::workload::{self, Load};
use crate::world::World;

type Row = Vec<Option<String>>;

/// A day's last and first microsecond, a month's end, events and users that are not known, bets
/// that nobody decided; and eighths of a cent, whose averages end in a half at the last digit
/// shown: of stakes, of odds, of margins above and below zero.
const EDGES: &str = "
    INSERT INTO bets (user_id, event_id, amount, odds, status, payout, placed_at, settled_at) VALUES
      (9001, 9001, 0.01, 1.01, 'SETTLED', 0.02, '2024-02-29 23:59:59.999999Z', now()),
      (9001, 9001, 0.02, 1.02, 'SETTLED', 0.00, '2024-02-29 23:59:59.999999Z', now()),
      (9001, 9001, 0.02, 1.02, 'SETTLED', 0.00, '2024-03-01 00:00:00Z', now()),
      (9001, 9001, 0.01, 1.01, 'CASHED_OUT', 0.02, '2024-03-01 00:00:00Z', now()),
      (9002, 9001, 1.00, 9999.99, 'CANCELLED', NULL, '2024-03-31 23:30:00Z', now()),
      (9003, 1, 33.33, 1.50, 'OPEN', NULL, '2024-03-31 18:30:00Z', NULL),
      (9003, 1, 33.33, 1.51, 'OPEN', NULL, '2024-03-31 18:29:59Z', NULL),
      (9003, 1, 33.34, 1.52, 'SETTLED', 9999999999.99, '2025-12-31 23:59:59Z', now()),
      (9004, 2, 9999999999.99, 2.00, 'SETTLED', 0, '1969-12-31 23:59:59Z', now()),
      (9004, 2, 9999999999.99, 2.00, 'SETTLED', 9999999999.99, '2250-06-01 12:00:00Z', now()),
      (9004, 2, 9999999999.98, 2.01, 'SETTLED', 9999999999.99, '2250-06-01 12:00:00Z', now());
    INSERT INTO bets (user_id, event_id, amount, odds, status, payout, placed_at, settled_at)
      SELECT 9005, 9005, 0.01 + (n = 1)::int * 0.01, 1.01 + (n = 1)::int * 0.01, 'SETTLED', 0,
             '2024-05-05 12:00:00Z', now() FROM generate_series(1, 8) AS n;
    INSERT INTO bets (user_id, event_id, amount, odds, status, payout, placed_at, settled_at)
      SELECT 9006, 9005, 0.01, 1.01, 'SETTLED', 0.02 + (n = 1)::int * 0.01,
             '2024-05-06 12:00:00Z', now() FROM generate_series(1, 8) AS n";

/// What these must show: rounded half away from zero.
const HALVES: [(&str, &str); 4] = [
    ("SELECT average_stake FROM betting.settlement_daily WHERE day = '2024-05-05'", "0.0113"),
    (
        "SELECT average_odds FROM betting.settlement_rollup WHERE day = '2024-05-05' AND level = 1",
        "1.0113",
    ),
    ("SELECT average_margin FROM betting.user_betting WHERE user_id = 9005", "0.0113"),
    ("SELECT average_margin FROM betting.user_betting WHERE user_id = 9006", "-0.0113"),
];

/// How a report's column looks as ClickHouse prints it, written by PostgreSQL itself.
fn as_text(column: &str, ty: &str) -> String {
    let ty = ty.trim_start_matches("Nullable(");
    match ty {
        _ if ty.starts_with("Decimal") => format!("trim_scale({column})::text"),
        _ if ty.starts_with("DateTime64") => {
            format!("to_char({column} AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US')")
        }
        _ if ty.starts_with("Date32") => format!("to_char({column}, 'YYYY-MM-DD')"),
        _ => format!("{column}::text"),
    }
}

/// Both sides of one report, each row once: (PostgreSQL, `ClickHouse`).
async fn both(world: &World, name: &str) -> (BTreeSet<Row>, BTreeSet<Row>, Vec<String>) {
    let columns = world
        .clickhouse
        .query(&format!(
            "SELECT name, type FROM system.columns WHERE database = 'betting' AND table = '{name}'
             ORDER BY position FORMAT TSV"
        ))
        .await
        .unwrap();
    let columns: Vec<(&str, &str)> =
        columns.lines().map(|line| line.split_once('\t').unwrap()).collect();
    let texts: Vec<String> = columns.iter().map(|(name, ty)| as_text(name, ty)).collect();
    let twin = std::fs::read_to_string(format!("tests/reports/{name}.sql")).unwrap();
    let sql = format!("SELECT {} FROM ({twin}) AS report", texts.join(", "));
    let rows = world.db().await.query(&sql, &[]).await.unwrap();
    let expected: Vec<Row> =
        rows.iter().map(|row| (0..columns.len()).map(|at| row.get(at)).collect()).collect();
    let held = world
        .clickhouse
        .query(&format!("SELECT * APPLY toString FROM betting.`{name}` FORMAT JSONCompactEachRow"))
        .await
        .unwrap();
    let held: Vec<Row> = held.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let counts = (expected.len(), held.len());
    let (expected, held): (BTreeSet<Row>, BTreeSet<Row>) =
        (expected.into_iter().collect(), held.into_iter().collect());
    assert_eq!(counts, (expected.len(), held.len()), "{name} shows a row twice");
    (expected, held, columns.iter().map(|(name, _)| (*name).to_owned()).collect())
}

/// A reader's WHERE finds rows of the report; it must not take bets away from their totals. And the
/// engine compiles what it runs for the fourth time, which must not change it.
async fn assert_filters_hold(world: &World, name: &str, columns: &[String], held: &BTreeSet<Row>) {
    let dimensions = columns.iter().position(|column| column == "bets").unwrap();
    for (at, column) in columns.iter().enumerate().take(dimensions) {
        let mut values: Vec<_> = held.iter().map(|row| row[at].clone()).collect();
        values.sort_unstable();
        // The least is NULL where there is one.
        for value in [values.first(), values.get(values.len() / 2), values.last()] {
            let value = value.unwrap();
            let condition = match value {
                Some(text) => {
                    format!("= '{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
                }
                None => "IS NULL".to_owned(),
            };
            let sql = format!(
                "SELECT * APPLY toString FROM betting.`{name}` WHERE `{column}` {condition} \
                 FORMAT JSONCompactEachRow"
            );
            let found = world.clickhouse.query(&sql).await.unwrap();
            let found: BTreeSet<Row> =
                found.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            let expected: BTreeSet<Row> =
                held.iter().filter(|row| row[at] == *value).cloned().collect();
            assert_eq!(found, expected, "{name} WHERE {column} {condition}");
        }
    }
}

async fn assert_reports_equal(world: &mut World) {
    world.caught_up().await;
    for (name, _) in REPORTS {
        let (expected, held, columns) = both(world, name).await;
        assert!(expected.len() > 5, "{name} has {} rows: too few to tell", expected.len());
        let missing: Vec<_> = expected.difference(&held).take(3).collect();
        let extra: Vec<_> = held.difference(&expected).take(3).collect();
        assert!(
            missing.is_empty() && extra.is_empty(),
            "{name} differs in {} of {} rows\n{columns:?}\nPostgreSQL: {missing:?}\nClickHouse: {extra:?}",
            expected.difference(&held).count().max(held.difference(&expected).count()),
            expected.len(),
        );
        assert_filters_hold(world, name, &columns, &held).await;
        println!("{name}: {} rows of {} columns equal", expected.len(), columns.len());
    }
}

#[tokio::test]
async fn every_report_equals_postgresql_to_the_last_digit() {
    let seed = workload::seed();
    let mut world = World::betting(SMALL).await;
    world.db().await.batch_execute(EDGES).await.unwrap();
    world.start().await;
    create_reports(&world.clickhouse).await.unwrap();
    assert_reports_equal(&mut world).await;
    for (sql, rounded) in HALVES {
        assert_eq!(world.clickhouse.query(sql).await.unwrap().trim(), rounded, "{sql}");
    }
    // Rewritten, moved, renamed, deleted: unmerged versions everywhere.
    let mut load = Load::start(&world, seed, 3, Duration::from_millis(2)).await;
    load.reached(600).await;
    world.kill9().await;
    world.spawn();
    load.reached(1_000).await;
    load.stop().await;
    world.service().until_live(crate::world::LIVE_LIMIT).await.unwrap();
    let sql =
        "UPDATE bets SET placed_at = placed_at + interval '31 days 1 microsecond' WHERE id % 7 = 0;
               DELETE FROM users WHERE id % 5 = 0; DELETE FROM events WHERE id % 5 = 0;
               UPDATE users SET name = name || '!', country = 'NO' WHERE id % 3 = 0";
    world.db().await.batch_execute(sql).await.unwrap();
    assert_reports_equal(&mut world).await;

    // The comparison finds what is planted.
    for (table, amount, key, which) in [
        ("bets_analytics", "amount", "bet_id", "min"),
        ("settlement_totals", "stakes", "day", "max"),
    ] {
        let chosen =
            format!("SELECT {which}({key}) FROM betting.{table} WHERE status <> 'CANCELLED'");
        let chosen = world.clickhouse.query(&chosen).await.unwrap();
        let plant = format!(
            "ALTER TABLE betting_rows.{table} UPDATE {amount} = {amount} + 0.01 \
             WHERE {key} = '{}' SETTINGS mutations_sync = 1",
            chosen.trim()
        );
        let total = format!("SELECT sum({amount}) FROM betting_rows.{table}");
        let before = world.clickhouse.query(&total).await.unwrap();
        world.clickhouse.query(&plant).await.unwrap();
        let after = world.clickhouse.query(&total).await.unwrap();
        assert_ne!(before, after, "nothing was planted in {table} where {key} is {chosen}");
    }
    for (name, _) in REPORTS {
        let (expected, held, _) = both(&world, name).await;
        assert_ne!(expected, held, "{name} hides a cent");
    }
    world.stop().await;
}

/// The file of a report names its database as `betting.` only; and over a table of the user's own,
/// with other types and times in another zone, the report is the same.
#[tokio::test]
async fn reports_move_to_another_database_and_other_types() {
    let mut world = World::betting(SMALL).await;
    world.db().await.batch_execute(EDGES).await.unwrap();
    world.start().await;
    create_reports(&world.clickhouse).await.unwrap();
    world.caught_up().await;
    let statuses = "Enum8('OPEN' = 1, 'SETTLED' = 2, 'CASHED_OUT' = 3, 'CANCELLED' = 4)";
    for sql in [
        "CREATE DATABASE sports",
        &format!(
            "CREATE VIEW sports.bets_analytics AS SELECT * REPLACE(\
             toTimeZone(placed_at, 'Asia/Kolkata') AS placed_at, toUInt64(user_id) AS user_id, \
             CAST(status AS {statuses}) AS status, toDecimal128(amount, 4) AS amount, \
             CAST(event_category AS LowCardinality(Nullable(String))) AS event_category) \
             FROM betting.bets_analytics"
        ),
        &format!(
            "CREATE VIEW sports.settlement_totals AS SELECT * REPLACE(\
             toTimeZone(day, 'Asia/Kolkata') AS day, toUInt32(bets) AS bets, \
             CAST(status AS {statuses}) AS status, toDecimal128(stakes, 4) AS stakes, \
             CAST(category AS String) AS category, toUInt8(event_known) AS event_known) \
             FROM betting.settlement_totals"
        ),
    ] {
        world.clickhouse.query(sql).await.unwrap();
    }
    for (name, sql) in REPORTS {
        world.clickhouse.query(&sql.replace("betting.", "sports.")).await.unwrap();
        let moved = format!("SHOW CREATE VIEW sports.`{name}` FORMAT TSVRaw");
        let moved = world.clickhouse.query(&moved).await.unwrap();
        assert!(!moved.contains("betting."), "{moved}");
        for (left, right) in [("betting", "sports"), ("sports", "betting")] {
            let difference = format!(
                "SELECT * FROM {left}.`{name}` EXCEPT SELECT * FROM {right}.`{name}` FORMAT TSV"
            );
            assert_eq!(world.clickhouse.query(&difference).await.unwrap(), "", "{name}");
        }
    }
    world.stop().await;
}
