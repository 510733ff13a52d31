//! One transaction of any size: memory stays flat, a kill in the middle changes nothing.
//!
//! `ROWS=5000000` makes it as large as that; `WIDE_ROWS=200000` the one of wide rows; `FACTS=1000000`
//! is how many bets one event has.

use std::time::{Duration, Instant};

use crate::end_to_end::SMALL;
use crate::world::World;

/// More than two local commits of a long transaction, and more operations than go to Redis at once.
const ROWS: u64 = 60_000;
/// Of about 3 kB each.
const WIDE_ROWS: u64 = 20_000;
/// Bets on one event: more operations than go to the outbox at once.
const FACTS: u64 = 30_000;
/// Of the whole process (docs/reliability.md).
const MEMORY_BYTES_MAX: u64 = 256 << 20;
const LIMIT: Duration = Duration::from_secs(3600);

#[expect(
    clippy::disallowed_methods,
    reason = "a test that may be larger takes its size from outside"
)]
pub fn number_of(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).map_or(otherwise, |rows| rows.parse().expect("a number of rows"))
}

fn rows() -> u64 {
    number_of("ROWS", ROWS)
}

async fn end_of_log(world: &World) -> u64 {
    let sql = "SELECT pg_current_wal_flush_lsn()::text";
    let lsn: String = world.db().await.query_one(sql, &[]).await.unwrap().get(0);
    walview::demo::servers::service::parse_lsn(&lsn).unwrap()
}

/// One transaction; returns the end of the log after it.
async fn write(world: &World, rows: u64) -> u64 {
    let client = world.db().await;
    let sql = format!(
        "INSERT INTO bets (user_id, event_id, amount, odds)
         SELECT 1 + i % 1000, 1 + i % 300, 1 + i % 90, 2 FROM generate_series(1, {rows}) i"
    );
    let started = Instant::now();
    client.batch_execute(&sql).await.unwrap();
    println!("{rows} rows written in {:.1} s", started.elapsed().as_secs_f64());
    end_of_log(world).await
}

async fn check(world: &mut World, end: u64, started: Instant) {
    let status = world.service().until_stores_reach(end, LIMIT).await.unwrap();
    let peak = status.process.rss_peak_bytes;
    println!(
        "in both stores after {:.1} s, peak memory {} MiB",
        started.elapsed().as_secs_f64(),
        peak >> 20
    );
    // What is wrong is worse than what is large: this first.
    world.assert_equal().await;
    println!("every view is equal");
    assert!(peak <= MEMORY_BYTES_MAX, "{} MiB of memory", peak >> 20);
}

#[tokio::test]
async fn one_large_transaction_in_flat_memory() {
    let mut world = World::betting(SMALL).await;
    world.start().await;
    world.caught_up().await;
    let started = Instant::now();
    let end = write(&world, rows()).await;
    check(&mut world, end, started).await;
    world.stop().await;
}

#[tokio::test]
async fn killed_in_the_middle_of_one_large_transaction() {
    let mut world = World::betting(SMALL).await;
    world.start().await;
    world.caught_up().await;
    let started = Instant::now();
    let before = world.service().status().await.unwrap().changes_total;
    let end = write(&world, rows()).await;
    let some = rows() / 2;
    let middle = |status: &walview::service::board::Status| status.changes_total > before + some;
    let status = world.service().until("in the middle", LIMIT, middle).await.unwrap();
    assert!(status.changes_total < before + rows(), "it was over already");
    world.kill9().await;
    world.start().await;
    check(&mut world, end, started).await;
    world.stop().await;
}

/// Rows that are far wider than their changes: what waits is weighed, not counted.
#[tokio::test]
async fn wide_rows_in_flat_memory() {
    let mut world = World::betting(SMALL).await;
    let client = world.db().await;
    // About 3 kB that do not compress, in every result row of every bet.
    let sql = "UPDATE users SET name =
               (SELECT string_agg(md5(i::text || id::text), '') FROM generate_series(1, 95) i)";
    client.batch_execute(sql).await.unwrap();
    world.start().await;
    world.caught_up().await;
    let started = Instant::now();
    let client = world.db().await;
    let rows = number_of("WIDE_ROWS", WIDE_ROWS);
    let sql = format!(
        "INSERT INTO bets (user_id, event_id, amount, odds)
         SELECT 1 + i % 40, 1 + i % 25, 1 + i % 90, 2 FROM generate_series(1, {rows}) i"
    );
    client.batch_execute(&sql).await.unwrap();
    let end = end_of_log(&world).await;
    check(&mut world, end, started).await;
    world.stop().await;
}

/// Changes that are wide themselves: a transaction is cut by its bytes, too, and goes on there
/// after a kill.
#[tokio::test]
async fn wide_changes_in_flat_memory() {
    let mut world = World::betting(SMALL).await;
    world.start().await;
    world.caught_up().await;
    let started = Instant::now();
    let before = world.service().status().await.unwrap().changes_total;
    let client = world.db().await;
    let rows = number_of("WIDE_ROWS", WIDE_ROWS);
    let sql = format!(
        "INSERT INTO users (id, email, name)
         SELECT 1000 + i, 'wide' || i,
                (SELECT string_agg(md5(j::text || i::text), '') FROM generate_series(1, 95) j)
         FROM generate_series(1, {rows}) i"
    );
    client.batch_execute(&sql).await.unwrap();
    let end = end_of_log(&world).await;
    let middle =
        |status: &walview::service::board::Status| status.changes_total > before + rows / 2;
    let status = world.service().until("in the middle", LIMIT, middle).await.unwrap();
    let peak = status.process.rss_peak_bytes;
    assert!(peak <= MEMORY_BYTES_MAX, "{} MiB of memory", peak >> 20);
    world.kill9().await;
    world.start().await;
    check(&mut world, end, started).await;
    world.stop().await;
}

/// One changed row that very many others join: what they become does not gather in memory.
#[tokio::test]
async fn many_facts_behind_one_changed_row() {
    let mut world = World::betting(SMALL).await;
    let client = world.db().await;
    let sql = format!(
        "INSERT INTO bets (user_id, event_id, amount, odds)
         SELECT 1 + i % 1000, 1, 1 + i % 90, 2 FROM generate_series(1, {}) i",
        number_of("FACTS", FACTS)
    );
    client.batch_execute(&sql).await.unwrap();
    world.start().await;
    world.caught_up().await;
    let started = Instant::now();
    let sql = "UPDATE events SET name = name || ' (postponed)', category = 'chess' WHERE id = 1";
    client.batch_execute(sql).await.unwrap();
    let end = end_of_log(&world).await;
    check(&mut world, end, started).await;
    world.stop().await;
}
