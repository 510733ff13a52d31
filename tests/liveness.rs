//! What stands still delays nobody else, and costs the source no more than it must.
//!
//! Short here; `make liveness` takes the figures of docs/reliability.md: `FREEZE_SECONDS`,
//! `ROWS_PER_SECOND` and `OTHER_MB` make them as long as you like.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use walview::demo::servers::postgres::Db;

use crate::bounds::number_of;
use crate::end_to_end::SMALL;
use crate::stream;
use crate::world::{LIVE_LIMIT, World};

/// How long a probe may take to be seen in Redis.
const PROBE_LIMIT: Duration = Duration::from_secs(10);
/// How soon the slot must follow what another database wrote.
const LAG_LIMIT: Duration = Duration::from_secs(60);
/// The stream of the pipeline is trimmed at 10,000 entries.
const STREAM_ROWS_MAX: u64 = 9_000;
/// What a slot may lag behind where nothing is left to do: a few records of the server's own.
const LAG_BYTES: i64 = 1 << 20;

async fn walsender(client: &Db) -> i32 {
    let sql = "SELECT pid FROM pg_stat_replication WHERE application_name LIKE 'walview%'";
    client.query_one(sql, &[]).await.unwrap().get(0)
}

/// Bytes of log that the slot keeps, and how far its confirmed position is behind.
async fn slot(client: &Db) -> (i64, i64) {
    let sql = "SELECT (pg_current_wal_lsn() - restart_lsn)::bigint,
                      (pg_current_wal_lsn() - confirmed_flush_lsn)::bigint
               FROM pg_replication_slots WHERE slot_name LIKE 'walview%'";
    let row = client.query_one(sql, &[]).await.unwrap();
    (row.get(0), row.get(1))
}

fn mb(bytes: i64) -> i64 {
    bytes / 1_000_000
}

/// ClickHouse says nothing while rows come in: Redis stays current, the replication connection
/// stays, PostgreSQL keeps next to no log, and all is equal once it answers again.
#[tokio::test]
async fn a_frozen_clickhouse_under_load() {
    let seconds = number_of("FREEZE_SECONDS", 4);
    let rows = number_of("ROWS_PER_SECOND", 200);
    let mut world = World::betting(SMALL).await;
    stream::remember_inserts(&world).await;
    world.start().await;
    let client = world.db().await;
    let streams = |status: &walview::service::board::Status| status.source.connected;
    world.service().until("streaming", LIVE_LIMIT, streams).await.unwrap();
    let before = walsender(&client).await;
    world.clickhouse.server.freeze().unwrap();

    let stop = Arc::new(AtomicBool::new(false));
    let mut loading = JoinSet::new();
    loading.spawn(load(world.db().await, rows, Arc::clone(&stop)));
    let mut redis = world.redis.connect().await.unwrap();
    let (started, mut latencies, mut kept) = (Instant::now(), Vec::new(), 0);
    while started.elapsed() < Duration::from_secs(seconds) {
        let sql = "INSERT INTO bets (user_id, event_id, amount, odds) VALUES (1, 1, 1, 2) \
                   RETURNING id";
        let id: i64 = client.query_one(sql, &[]).await.unwrap().get(0);
        let committed = Instant::now();
        let seen = async {
            let mut command = redis::cmd("SISMEMBER");
            command.arg("user:1:open_bets").arg(id);
            while !command.query_async::<bool>(&mut redis).await.unwrap() {
                tokio::time::sleep(Duration::from_micros(200)).await;
            }
        };
        tokio::time::timeout(PROBE_LIMIT, seen).await.expect("Redis was not delayed");
        latencies.push(committed.elapsed());
        kept = kept.max(slot(&client).await.0);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    stop.store(true, Ordering::Relaxed);
    let written = loading.join_next().await.unwrap().unwrap();
    let status = world.service().status().await.unwrap();
    let thawed = Instant::now();
    world.clickhouse.server.thaw().unwrap();
    world.caught_up().await;
    let caught_up = thawed.elapsed().as_secs_f64();
    world.assert_equal().await;
    if written < STREAM_ROWS_MAX {
        stream::assert_every_insert_once(&world).await;
    } else {
        println!("more rows than the stream keeps: its entries are compared in the short run only");
    }
    assert_eq!(before, walsender(&client).await, "the replication connection was cut");
    latencies.sort_unstable();
    let at = |percent: usize| latencies[(latencies.len() - 1) * percent / 100].as_secs_f64() * 1e3;
    println!(
        "frozen for {seconds} s under {} rows/s: Redis p50 {:.1} ms, p99 {:.1} ms, worst {:.1} ms \
         of {}; at most {} MB of log kept at the source, {} MB in the outbox; ClickHouse current \
         {caught_up:.1} s later; walview's peak {} MiB",
        written / seconds.max(1),
        at(50),
        at(99),
        at(100),
        latencies.len(),
        mb(kept),
        status.local.outbox_bytes / 1_000_000,
        status.process.rss_peak_bytes >> 20,
    );
    world.stop().await;
}

/// Rows in transactions of ten, at a steady rate; returns how many.
async fn load(client: Db, rows_per_second: u64, stop: Arc<AtomicBool>) -> u64 {
    const ROWS: u64 = 10;
    let sql = "INSERT INTO bets (user_id, event_id, amount, odds) \
               SELECT 2 + (random() * 90)::int, 1 + (random() * 20)::int, 1 + i, 2 \
               FROM generate_series(1, 10) i";
    let mut every =
        tokio::time::interval(Duration::from_micros(1_000_000 * ROWS / rows_per_second.max(1)));
    let mut written = 0;
    while !stop.load(Ordering::Relaxed) {
        every.tick().await;
        client.batch_execute(sql).await.unwrap();
        written += ROWS;
    }
    written
}

/// Another database of the cluster writes, ours is quiet: the slot follows all the same, and the log
/// does not gather.
#[tokio::test]
async fn another_database_writes() {
    let megabytes = number_of("OTHER_MB", 48);
    let mut world = World::betting(SMALL).await;
    world.start().await;
    let client = world.db().await;
    let streams = |status: &walview::service::board::Status| status.source.connected;
    world.service().until("streaming", LIVE_LIMIT, streams).await.unwrap();
    let admin = Db::connect(&world.postgres.admin_url("postgres")).await.unwrap();
    admin.batch_execute("CREATE DATABASE neighbour").await.unwrap();
    let other = Db::connect(&world.postgres.admin_url("neighbour")).await.unwrap();
    other
        .batch_execute(
            "CREATE TABLE blobs (body text);
             ALTER TABLE blobs ALTER COLUMN body SET STORAGE EXTERNAL",
        )
        .await
        .unwrap();
    let start = position(&client).await;
    let (mut kept, mut lag) = (0, 0);
    while mb(position(&client).await - start) < i64::try_from(megabytes).unwrap() {
        let sql = "INSERT INTO blobs SELECT repeat('x', 1000000) FROM generate_series(1, 8)";
        other.batch_execute(sql).await.unwrap();
        let now = slot(&client).await;
        (kept, lag) = (kept.max(now.0), lag.max(now.1));
    }
    let (written, ended) = (position(&client).await - start, Instant::now());
    while slot(&client).await.1 > LAG_BYTES {
        assert!(ended.elapsed() < LAG_LIMIT, "the slot does not follow");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!(
        "{} MB written to another database: slot at most {} MB behind, {} MB of log kept; \
         {:.1} s after the last write it was less than 1 MB behind",
        mb(written),
        mb(lag),
        mb(kept),
        ended.elapsed().as_secs_f64(),
    );
    world.stop().await;
}

async fn position(client: &Db) -> i64 {
    let sql = "SELECT (pg_current_wal_lsn() - '0/0'::pg_lsn)::bigint";
    client.query_one(sql, &[]).await.unwrap().get(0)
}
