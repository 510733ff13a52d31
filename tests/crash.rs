//! Walview killed at any instant: nothing is lost, nothing counted twice, no event twice.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::end_to_end::SMALL;
use crate::stream;
use crate::workload::{self, Load};
use crate::world::World;

const KILLS: u32 = 20;

/// Killed 20 times under load, at random moments: while it starts, catches up, streams.
#[tokio::test]
async fn killed_twenty_times_under_load() {
    let seed = workload::seed();
    let mut random = StdRng::seed_from_u64(seed);
    let mut world = World::betting(SMALL).await;
    stream::remember_inserts(&world).await;
    world.start().await;
    let load = Load::start(&world, seed, 3, Duration::from_millis(20)).await;
    for _ in 0..KILLS {
        // Some kills wait for it to stream, some hit it on its way there.
        if random.random_bool(0.6) {
            world.service().until_live(crate::world::LIVE_LIMIT).await.unwrap();
        }
        let moment = random.random_range(0..600);
        tokio::time::sleep(Duration::from_millis(moment)).await;
        world.kill9().await;
        world.spawn();
    }
    load.stop().await;
    world.service().until_live(crate::world::LIVE_LIMIT).await.unwrap();
    world.assert_equal().await;
    stream::assert_every_insert_once(&world).await;
    world.stop().await;
}

/// Killed while it takes its first snapshot, under load: it starts over, and no row of the attempt
/// before is left.
#[tokio::test]
async fn killed_during_the_snapshot() {
    let seed = workload::seed();
    let mut random = StdRng::seed_from_u64(seed);
    let rows = walview::demo::Seed { users: 2_000, events: 200, bets: 60_000 };
    let mut world = World::betting(rows).await;
    let load = Load::start(&world, seed, 2, Duration::from_millis(10)).await;
    for _ in 0..4 {
        world.spawn();
        let moment = random.random_range(50..1_500);
        tokio::time::sleep(Duration::from_millis(moment)).await;
        world.kill9().await;
    }
    world.start().await;
    load.stop().await;
    world.assert_equal().await;
    world.stop().await;
}

/// Killed while PostgreSQL makes its slot, which waits for an open transaction: the session that is
/// left holds the slot for a while, and the next start waits for it to end.
#[tokio::test]
async fn killed_while_its_slot_is_made() {
    let mut world = World::betting(SMALL).await;
    let (blocker, client) = (world.db().await, world.db().await);
    blocker.batch_execute("BEGIN; UPDATE users SET name = 'held' WHERE id = 1").await.unwrap();
    world.spawn();
    let held = "SELECT 1 FROM pg_replication_slots WHERE active";
    let deadline = tokio::time::Instant::now() + crate::world::LIVE_LIMIT;
    while client.query_opt(held, &[]).await.unwrap().is_none() {
        assert!(tokio::time::Instant::now() < deadline, "no slot is being made");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    world.kill9().await;
    world.spawn();
    // Time for the new one to meet what the old one left.
    tokio::time::sleep(Duration::from_secs(1)).await;
    world.service().check_running().unwrap();
    blocker.batch_execute("COMMIT").await.unwrap();
    world.service().until_live(crate::world::LIVE_LIMIT).await.unwrap();
    world.assert_equal().await;
    world.stop().await;
}
