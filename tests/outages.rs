//! Servers that go away for a while: Walview goes on by itself, and everything is right after.

use std::time::Duration;

use crate::end_to_end::SMALL;
use crate::stream;
use crate::workload::{self, Load};
use crate::world::{LIVE_LIMIT, World};
use walview::service::board::Status;

async fn more(load: &mut Load, transactions: u64) {
    let wanted = load.transactions() + transactions;
    load.reached(wanted).await;
}

#[tokio::test]
async fn redis_killed_and_restarted() {
    let seed = workload::seed();
    let mut world = World::betting(SMALL).await;
    stream::remember_inserts(&world).await;
    world.start().await;
    let mut load = Load::start(&world, seed, 2, Duration::from_millis(5)).await;
    more(&mut load, 50).await;
    world.redis.server.kill9().await.unwrap();
    more(&mut load, 50).await;
    world.redis.server.start().await.unwrap();
    more(&mut load, 50).await;
    world.redis.server.restart().await.unwrap();
    more(&mut load, 50).await;
    load.stop().await;
    world.assert_equal().await;
    stream::assert_every_insert_once(&world).await;
    world.stop().await;
}

#[tokio::test]
async fn clickhouse_killed_and_restarted() {
    let seed = workload::seed();
    let mut world = World::betting(SMALL).await;
    world.start().await;
    let mut load = Load::start(&world, seed, 2, Duration::from_millis(5)).await;
    more(&mut load, 50).await;
    world.clickhouse.server.kill9().await.unwrap();
    more(&mut load, 50).await;
    world.clickhouse.server.start().await.unwrap();
    more(&mut load, 50).await;
    world.clickhouse.server.restart().await.unwrap();
    more(&mut load, 50).await;
    load.stop().await;
    world.assert_equal().await;
    world.stop().await;
}

#[tokio::test]
async fn postgres_killed_and_restarted() {
    let seed = workload::seed();
    let mut world = World::betting(SMALL).await;
    stream::remember_inserts(&world).await;
    world.start().await;
    for round in 0..2 {
        workload::run(&world, seed + round, 50).await;
        if round == 0 {
            world.postgres.server.kill9().await.unwrap();
        } else {
            world.postgres.server.stop().await.unwrap();
        }
        world.postgres.server.start().await.unwrap();
    }
    workload::run(&world, seed + 2, 50).await;
    world.assert_equal().await;
    stream::assert_every_insert_once(&world).await;
    world.stop().await;
}

/// A store that is frozen delays nobody else: Redis shows new bets while ClickHouse says nothing.
#[tokio::test]
async fn a_frozen_clickhouse_does_not_delay_redis() {
    let mut world = World::betting(SMALL).await;
    world.start().await;
    let client = world.db().await;
    world.clickhouse.server.freeze().unwrap();
    let sql = "INSERT INTO bets (user_id, event_id, amount, odds) VALUES (1, 1, 1, 2) RETURNING id";
    let mut redis = world.redis.connect().await.unwrap();
    for _ in 0..20 {
        let id: i64 = client.query_one(sql, &[]).await.unwrap().get(0);
        let seen = async {
            loop {
                let mut command = redis::cmd("SISMEMBER");
                command.arg("user:1:open_bets").arg(id);
                if command.query_async(&mut redis).await.unwrap() {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), seen).await.expect("Redis was not delayed");
    }
    // Nor is it waited for at the end: what was on its way is sent again.
    world.stop().await;
    client.query_one(sql, &[]).await.unwrap();
    world.spawn();
    world.clickhouse.server.thaw().unwrap();
    world.service().until_live(LIVE_LIMIT).await.unwrap();
    world.assert_equal().await;
    world.stop().await;
}

/// An outbox that is full holds the source back: nothing more is read, the replication connection
/// stays, the status says so, and all is right once the store is back.
#[tokio::test]
async fn a_full_outbox_holds_the_source_back() {
    const LIMIT: u64 = 300_000;
    let mut world = World::betting(SMALL).await;
    world.options.args = vec!["--outbox-max".to_owned(), "300kB".to_owned()];
    stream::remember_inserts(&world).await;
    world.start().await;
    let client = world.db().await;
    let walsender = "SELECT pid FROM pg_stat_replication WHERE application_name LIKE 'walview%'";
    let streams = |status: &Status| status.source.connected;
    world.service().until("streaming", LIVE_LIMIT, streams).await.unwrap();
    let before: i32 = client.query_one(walsender, &[]).await.unwrap().get(0);
    world.clickhouse.server.freeze().unwrap();
    let sql = "INSERT INTO bets (user_id, event_id, amount, odds) \
               SELECT 1 + i % 100, 1 + i % 10, 1, 2 FROM generate_series(1, 200) i";
    for _ in 0..15 {
        client.execute(sql, &[]).await.unwrap();
    }
    let limit = Duration::from_secs(60);
    let full = |status: &Status| status.local.outbox_full;
    let status = world.service().until("held back", limit, full).await.unwrap();
    assert_eq!(status.local.outbox_bytes_max, LIMIT);
    assert!(status.local.disk_bytes > 0);
    assert!(walview::http::faults_of(&status).iter().any(|fault| fault.contains("outbox is full")));
    // It is kept to the limit, up to one group of changes, while the source goes on writing.
    client.execute(sql, &[]).await.unwrap();
    let status = world.service().status().await.unwrap();
    assert!(status.local.outbox_bytes < 2 * LIMIT, "{} bytes", status.local.outbox_bytes);
    world.clickhouse.server.thaw().unwrap();
    let room = |status: &Status| !status.local.outbox_full;
    world.service().until("reading again", limit, room).await.unwrap();
    world.assert_equal().await;
    stream::assert_every_insert_once(&world).await;
    let after: i32 = client.query_one(walsender, &[]).await.unwrap().get(0);
    assert_eq!(before, after, "the replication connection was cut");
    world.stop().await;
}

/// With a backlog of small transactions many are told as one, others in each life: a Redis that was ahead
/// of the life before keeps nothing that came and went meanwhile.
#[tokio::test]
async fn killed_again_and_again_while_a_backlog_is_told_together() {
    let mut world = World::betting(SMALL).await;
    stream::remember_inserts(&world).await;
    world.start().await;
    world.service().until_live(LIVE_LIMIT).await.unwrap();
    world.kill9().await;
    let sql = "DO $$ BEGIN FOR i IN 1..6000 LOOP \
                   INSERT INTO bets (user_id, event_id, amount, odds) VALUES (1 + i % 7, 1 + i % 3, i, 2); \
                   UPDATE bets SET status = CASE status WHEN 'OPEN' THEN 'CANCELLED' ELSE 'OPEN' END, settled_at = CASE status WHEN 'OPEN' THEN now() END, user_id = 8 - user_id \
                   WHERE id = (SELECT max(id) - i % 2 FROM bets) AND user_id < 8 AND payout IS NULL; \
                   COMMIT; \
               END LOOP; END $$";
    world.db().await.batch_execute(sql).await.unwrap();
    world.spawn();
    for life in 1..=8_u64 {
        tokio::time::sleep(Duration::from_millis(100 * life)).await;
        world.kill9().await;
        world.spawn();
    }
    world.service().until_live(LIVE_LIMIT).await.unwrap();
    world.assert_equal().await;
    stream::assert_every_insert_once(&world).await;
    world.stop().await;
}
