//! Servers that go away for a while: Walview goes on by itself, and everything is right after.

use std::time::Duration;

use crate::end_to_end::SMALL;
use crate::stream;
use crate::workload::{self, Load};
use crate::world::World;

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
    world.clickhouse.server.thaw().unwrap();
    world.assert_equal().await;
    world.stop().await;
}
