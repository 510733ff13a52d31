//! From PostgreSQL to both stores: snapshot, stream, stop and go on.

use std::time::{Duration, Instant};

use walview::demo::Seed;

use crate::stream;
use crate::workload::{self, Load};
use crate::world::{LIVE_LIMIT, World};

pub const SMALL: Seed = Seed { users: 40, events: 25, bets: 500 };

/// What was there before Walview, and a walk through every kind of change after it.
#[tokio::test]
async fn stores_equal_postgres_after_snapshot_and_stream() {
    let seed = workload::seed();
    let mut world = World::betting(SMALL).await;
    // Odd rows must come through the snapshot too.
    workload::run(&world, seed, 100).await;
    stream::remember_inserts(&world).await;
    world.start().await;
    world.assert_equal().await;
    workload::run(&world, seed + 1, 400).await;
    world.assert_equal().await;
    stream::assert_every_insert_once(&world).await;
    world.stop().await;
}

/// Changes that are written while the snapshot is read are neither lost nor counted twice.
#[tokio::test]
async fn a_snapshot_under_load_is_exact() {
    let seed = workload::seed();
    let mut world = World::betting(Seed { users: 2_000, events: 200, bets: 40_000 }).await;
    let load = Load::start(&world, seed, 3, Duration::from_millis(2)).await;
    world.start().await;
    load.stop().await;
    world.assert_equal().await;
    world.stop().await;
}

/// SIGTERM under load ends with exit 0; the next start goes on where it was, without a snapshot.
/// PostgreSQL shows an older snapshot nothing of a table that was truncated since.
#[tokio::test]
async fn a_table_that_is_truncated_under_a_snapshot_starts_it_over() {
    let mut world = World::betting(SMALL).await;
    let db = world.db().await;
    world.spawn();
    let since = Instant::now();
    let again = "TRUNCATE bets;
        INSERT INTO bets (user_id, event_id, amount, odds)
        SELECT 1 + i % 30, 1 + i % 20, 1 + i % 7, 2 FROM generate_series(1, 100) i";
    loop {
        db.batch_execute(again).await.unwrap();
        let log = std::fs::read_to_string(&world.options.log).unwrap_or_default();
        if log.contains("the snapshot starts over") {
            assert!(log.contains("public.bets\\\" was truncated, rewritten"), "{log}");
            break;
        }
        assert!(since.elapsed() < LIVE_LIMIT, "no snapshot met one");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    world.service().until_live(LIVE_LIMIT).await.unwrap();
    world.assert_equal().await;
    world.stop().await;
}

#[tokio::test]
async fn sigterm_under_load_and_on() {
    let seed = workload::seed();
    let mut world = World::betting(SMALL).await;
    stream::remember_inserts(&world).await;
    world.start().await;
    for round in 0..3 {
        let mut load = Load::start(&world, seed + round, 2, Duration::from_millis(5)).await;
        load.reached(100).await;
        world.stop().await;
        // Written while nobody listens.
        load.reached(200).await;
        world.start().await;
        load.stop().await;
    }
    world.assert_equal().await;
    stream::assert_every_insert_once(&world).await;
    world.stop().await;
}

/// A dimension row that is changed, deleted, comes back or comes late corrects every result that
/// uses it, in both stores.
#[tokio::test]
async fn dimensions_correct_their_facts() {
    let mut world = World::betting(SMALL).await;
    world.start().await;
    let client = world.db().await;
    let steps = [
        "UPDATE users SET name = 'Renamed', country = 'PT' WHERE id = 1",
        "UPDATE events SET name = 'Moved', category = 'chess' WHERE id = 1",
        "DELETE FROM users WHERE id = 1",
        "DELETE FROM events WHERE id = 1",
        "INSERT INTO users (id, name, email, country) VALUES (1, 'Somebody else', 'x@example.com', 'IE')",
        "INSERT INTO events (id, name, category, status, starts_at) VALUES (1, 'Again', 'darts', 'LIVE', now())",
        // Bets on an event and by a user that nobody knows yet.
        "INSERT INTO bets (user_id, event_id, amount, odds) VALUES (9001, 9001, 5, 2), (9001, 1, 7, 3)",
        "INSERT INTO events (id, name, category, starts_at) VALUES (9001, 'Late', 'golf', now())",
        "INSERT INTO users (id, name, email) VALUES (9001, 'Late too', 'late@example.com')",
        // A fact that changes its dimension, in the transaction that changes the dimension.
        "BEGIN; UPDATE bets SET event_id = 2 WHERE event_id = 1; UPDATE events SET category = 'go' WHERE id = 2; COMMIT",
        "BEGIN; DELETE FROM events WHERE id = 2; \
         INSERT INTO events (id, name, category, starts_at) VALUES (2, 'Swapped', 'polo', now()); COMMIT",
        "DELETE FROM bets WHERE event_id = 2",
        "DELETE FROM users",
        "DELETE FROM bets",
    ];
    for step in steps {
        client.batch_execute(step).await.unwrap();
        world.assert_equal().await;
    }
    world.stop().await;
}
