//! Death at every edge of a commit: the hits of each place are counted, then the process dies at
//! them one by one, and everything is right afterwards.
//!
//! The suite dies at a few places that its seed draws; `make crash-points` at every place, at its
//! first three hits and at a later one. Both count first, and fail where a place is never passed.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use walview::demo::servers::postgres::Db;
use walview::fail_point::{DIE_VARIABLE, LOG_VARIABLE, ORDER_DURABLE, SNAPSHOT, STREAMING};

use crate::end_to_end::SMALL;
use crate::soak::events::Events;
use crate::workload;
use crate::world::World;

const DEATH_LIMIT: Duration = Duration::from_secs(30);
/// Hits that are died at one by one; of the later ones one is drawn.
const FIRST: u64 = 3;
/// How many places a run of the suite takes.
const FEW: usize = 4;

type Hits = BTreeMap<String, u64>;

#[tokio::test]
async fn dies_at_a_few_places_while_streaming() {
    streaming(false).await;
}

#[tokio::test]
async fn dies_at_a_few_places_of_the_snapshot() {
    snapshot(false).await;
}

#[tokio::test]
#[ignore = "takes minutes: make crash-points"]
async fn dies_at_every_place_while_streaming() {
    streaming(true).await;
}

#[tokio::test]
#[ignore = "takes minutes: make crash-points"]
async fn dies_at_every_place_of_the_snapshot() {
    snapshot(true).await;
}

/// Between the local commit of a step that nothing in the log asked for, and the stores.
#[tokio::test]
async fn dies_while_a_view_is_corrected_in_steps() {
    let mut world = World::betting(SMALL).await;
    crate::fan_out::begin(&mut world, 30_000).await;
    world.stop().await;
    let mut events = Events::begin(&world).await;
    let client = world.db().await;
    for hit in [1, 4] {
        arm(&mut world, Some((ORDER_DURABLE, hit)));
        world.start().await;
        client
            .batch_execute("UPDATE events SET category = category || '+' WHERE id = 1")
            .await
            .unwrap();
        died(&mut world, ORDER_DURABLE, hit).await;
    }
    arm(&mut world, None);
    world.start().await;
    check(&mut world, &mut events).await;
    world.stop().await;
}

async fn streaming(all: bool) {
    let (mut random, mut world) = begin().await;
    let mut events = Events::begin(&world).await;
    let client = world.db().await;
    let log = arm(&mut world, None);
    world.start().await;
    small(&client, &mut random).await;
    large(&client).await;
    small(&client, &mut random).await;
    check(&mut world, &mut events).await;
    world.stop().await;
    let hits = hits(&log);
    for (place, hit) in chosen(&STREAMING, &hits, all, &mut random) {
        println!("dies at hit {hit} of {} of {place}", hits[place]);
        arm(&mut world, Some((place, hit)));
        world.start().await;
        // Some places are passed all the time, some by large transactions only.
        let rounds = [false, false, true, false, true, true];
        for round in rounds {
            if has_died(&mut world, Duration::from_millis(300)).await {
                break;
            }
            if round {
                large(&client).await;
            } else {
                small(&client, &mut random).await;
            }
        }
        died(&mut world, place, hit).await;
        small(&client, &mut random).await;
        arm(&mut world, None);
        world.start().await;
        check(&mut world, &mut events).await;
        world.stop().await;
    }
}

async fn snapshot(all: bool) {
    let (mut random, mut world) = begin().await;
    let client = world.db().await;
    let log = arm(&mut world, None);
    world.start().await;
    world.stop().await;
    let hits = hits(&log);
    for (place, hit) in chosen(&SNAPSHOT, &hits, all, &mut random) {
        println!("dies at hit {hit} of {} of {place}", hits[place]);
        forget(&world, &client).await;
        let mut events = Events::begin(&world).await;
        arm(&mut world, Some((place, hit)));
        world.spawn();
        died(&mut world, place, hit).await;
        // What the attempt before has left is no longer true.
        small(&client, &mut random).await;
        arm(&mut world, None);
        world.start().await;
        small(&client, &mut random).await;
        check(&mut world, &mut events).await;
        world.stop().await;
    }
}

async fn begin() -> (StdRng, World) {
    let seed = workload::seed();
    let mut world = World::betting(SMALL).await;
    world.set_pipeline(&crate::soak::pipeline());
    (StdRng::seed_from_u64(seed), world)
}

/// Says where the next process dies, or else that it counts. Returns where hits are logged.
fn arm(world: &mut World, death: Option<(&str, u64)>) -> std::path::PathBuf {
    let log = world.home.log("fail-points");
    world.options.env.retain(|(name, _)| name != DIE_VARIABLE && name != LOG_VARIABLE);
    world.options.env.push(match death {
        Some((place, hit)) => (DIE_VARIABLE.to_owned(), format!("{place}:{hit}")),
        None => (LOG_VARIABLE.to_owned(), log.display().to_string()),
    });
    log
}

fn hits(log: &std::path::Path) -> Hits {
    let mut hits = Hits::new();
    for place in std::fs::read_to_string(log).unwrap().lines() {
        *hits.entry(place.to_owned()).or_default() += 1;
    }
    println!("{hits:?}");
    hits
}

/// Which hits to die at. A place that was never passed is a mistake of the workload's.
fn chosen<'a>(
    places: &[&'a str],
    hits: &Hits,
    all: bool,
    random: &mut StdRng,
) -> Vec<(&'a str, u64)> {
    let mut chosen = Vec::new();
    let few = rand::seq::index::sample(random, places.len(), FEW);
    for (index, place) in places.iter().enumerate() {
        let most = hits.get(*place).copied().unwrap_or(0);
        assert!(most > 0, "{place} is never passed");
        let first = most.min(FIRST);
        if !all && !few.iter().any(|taken| taken == index) {
            continue;
        }
        if !all {
            chosen.push((*place, random.random_range(1..=first)));
            continue;
        }
        chosen.extend((1..=first).map(|hit| (*place, hit)));
        if most > FIRST {
            // How often a place is passed is not the same twice: not the very last.
            let late = (FIRST + 1).max(most / 2);
            chosen.push((*place, random.random_range(FIRST + 1..=late)));
        }
    }
    chosen
}

/// A few transactions in a row, which land in several local commits and batches.
async fn small(client: &Db, random: &mut StdRng) {
    for _ in 0..4 {
        for _ in 0..4 {
            workload::run_transaction(client, random).await;
        }
        tokio::time::sleep(Duration::from_millis(120)).await;
    }
}

/// Long enough to be made durable in pieces, and written ahead in between.
async fn large(client: &Db) {
    let sql = "BEGIN; \
         INSERT INTO bets (user_id, event_id, amount, odds) SELECT 1 + i % 40, 1 + i % 25, 1, 2.5 \
             FROM generate_series(1, 22000) i; \
         UPDATE events SET category = left(category || '+', 40); \
         DELETE FROM bets WHERE id < (SELECT max(id) FROM bets) - 600; COMMIT";
    client.batch_execute(sql).await.unwrap();
}

async fn has_died(world: &mut World, limit: Duration) -> bool {
    world.service().exited(limit).await.is_ok()
}

/// It must have died, and of this.
async fn died(world: &mut World, place: &str, hit: u64) {
    let status = world.service().exited(DEATH_LIMIT).await;
    let status = status.unwrap_or_else(|_| panic!("hit {hit} of {place} was not reached"));
    let signal = std::os::unix::process::ExitStatusExt::signal(&status);
    assert_eq!(signal, Some(6), "it ended otherwise: {status}");
    world.service = None;
}

async fn check(world: &mut World, events: &mut Events) {
    world.assert_equal().await;
    events.check(world).await;
}

/// No slot and no state: the next start is a first one.
async fn forget(world: &World, client: &Db) {
    let sql = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots \
         WHERE slot_name LIKE 'walview%'";
    client.batch_execute(sql).await.unwrap();
    std::fs::remove_dir_all(&world.options.state).unwrap();
    std::fs::create_dir(&world.options.state).unwrap();
}
