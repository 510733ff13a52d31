//! A Redis that loses what it had: noticed by itself, filled again, everything right after, and
//! nobody else waits.
//!
//! `BETS=200000` makes the world as large as that; the time from FLUSHALL to a Redis that is right
//! is printed.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use walview::demo::Seed;
use walview::demo::servers::service::Service;
use walview::service::board::{Status, StoreState};

use crate::end_to_end::SMALL;
use crate::stream;
use crate::workload::{self, Load};
use crate::world::{LIVE_LIMIT, World};

const LIMIT: Duration = Duration::from_secs(120);
const MARK: &str = "walview:betting:mark";
const FRESH: &str = "walview:betting:fresh";

#[expect(
    clippy::disallowed_methods,
    reason = "a test that may be larger takes its size from outside"
)]
fn size() -> Seed {
    let bets = std::env::var("BETS").map_or(SMALL.bets, |bets| bets.parse().expect("a number"));
    Seed { bets, ..SMALL }
}

async fn command(redis: &mut MultiplexedConnection, words: &[&str]) {
    let mut command = redis::cmd(words[0]);
    command.arg(&words[1..]);
    command.exec_async(redis).await.unwrap();
}

async fn more(load: &mut Load, transactions: u64) {
    let wanted = load.transactions() + transactions;
    load.reached(wanted).await;
}

fn refills(status: &Status) -> u64 {
    status.stores[0].refills
}

/// Waits until Redis has been filled again so often and has everything.
async fn refilled(world: &mut World, times: u64) {
    let done =
        |status: &Status| refills(status) == times && status.stores[0].state == StoreState::Live;
    let status = world.service().until("filled again", LIMIT, done).await.unwrap();
    let other = status.stores[1].state;
    assert!(!matches!(other, StoreState::Retrying | StoreState::Stopped), "ClickHouse goes on");
    let mut redis = world.redis.connect().await.unwrap();
    let fresh = async {
        let mut ask = redis::cmd("EXISTS");
        while !ask.arg(FRESH).query_async::<bool>(&mut redis).await.unwrap() {
            ask = redis::cmd("EXISTS");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LIMIT, fresh).await.expect("Redis says that it has everything");
}

/// One of each shape that no row of the source asks for, and a wrong value of one that is there.
async fn plant_ghosts(redis: &mut MultiplexedConnection) {
    for words in [
        &["SET", "bet_count:GHOST", "5"][..],
        &["SET", "bet_count:OPEN", "-1"],
        &["HSET", "event:999999", "id", "999999"],
        &["HSET", "event:1:stakes", "ghost", "1"],
        &["SET", "user:999999", "{}"],
        &["SADD", "user:1:open_bets", "999999"],
        &["SADD", "user:999999:open_bets", "1"],
        &["ZADD", "leaderboard:staked", "1e9", "999999"],
    ] {
        command(redis, words).await;
    }
}

/// Inserts are there in order, each at most once, and what is missing is missing where a gap entry
/// says so. Returns how many gap entries there are.
async fn check_stream(world: &World, inserted: &mut Vec<stream::Entry>) -> usize {
    inserted.extend(stream::inserted(&world.db().await).await);
    let at: BTreeMap<&str, usize> =
        inserted.iter().enumerate().map(|(at, entry)| (entry["id"].as_str(), at)).collect();
    let mut redis = world.redis.connect().await.unwrap();
    let entries: Vec<(String, Vec<String>)> =
        redis::cmd("XRANGE").arg(&["recent_bets", "-", "+"]).query_async(&mut redis).await.unwrap();
    let (mut next, mut may_miss, mut gaps, mut before) = (0, false, 0, "0-0".to_owned());
    for (id, flat) in entries {
        let fields: BTreeMap<&str, &str> =
            flat.chunks(2).map(|pair| (pair[0].as_str(), pair[1].as_str())).collect();
        if fields["_op"] == "gap" {
            assert_eq!((fields["_from"], fields["_to"]), (before.as_str(), id.as_str()));
            assert_eq!(fields["_view"], "recent_bets");
            (may_miss, gaps) = (true, gaps + 1);
        } else {
            let found = at[fields["id"]];
            assert!(found == next || may_miss && found > next, "entry {id}: {found}, not {next}");
            assert_eq!(stream::fields_of(&flat), inserted[found]);
            (next, may_miss) = (found + 1, false);
        }
        before = id;
    }
    assert!(next == inserted.len() || may_miss, "{} of {} events", next, inserted.len());
    gaps
}

#[tokio::test]
async fn a_flushed_redis_is_filled_again_under_load() {
    let seed = workload::seed();
    let mut world = World::betting(size()).await;
    stream::remember_inserts(&world).await;
    let mut inserted = Vec::new();
    world.start().await;
    let mut redis = world.redis.connect().await.unwrap();
    let mut load = Load::start(&world, seed, 2, Duration::from_millis(5)).await;
    more(&mut load, 50).await;
    command(&mut redis, &["FLUSHALL"]).await;
    let since = Instant::now();
    refilled(&mut world, 1).await;
    println!("right again {:.2} s after FLUSHALL", since.elapsed().as_secs_f64());
    more(&mut load, 50).await;
    // Only the mark, and meanwhile somebody writes where walview does.
    plant_ghosts(&mut redis).await;
    command(&mut redis, &["DEL", MARK]).await;
    refilled(&mut world, 2).await;
    more(&mut load, 50).await;
    load.stop().await;
    world.assert_equal().await;
    assert_eq!(
        check_stream(&world, &mut inserted).await,
        1,
        "the stream was whole the second time"
    );

    // Nothing is written: it is noticed all the same.
    command(&mut redis, &["FLUSHALL"]).await;
    refilled(&mut world, 3).await;
    world.assert_equal().await;
    assert_eq!(check_stream(&world, &mut inserted).await, 1);
    workload::run(&world, seed + 1, 50).await;
    world.assert_equal().await;
    assert_eq!(check_stream(&world, &mut inserted).await, 1);
    world.stop().await;

    // Gone while walview is away: what the streams show is whole, and the rest is in the outbox.
    plant_ghosts(&mut redis).await;
    command(&mut redis, &["DEL", MARK]).await;
    workload::run(&world, seed + 2, 50).await;
    world.start().await;
    refilled(&mut world, 1).await;
    world.assert_equal().await;
    assert_eq!(check_stream(&world, &mut inserted).await, 1);
    world.stop().await;
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

#[tokio::test]
async fn a_redis_that_comes_back_empty_or_as_it_was_long_ago() {
    let seed = workload::seed();
    let mut world = World::betting(SMALL).await;
    stream::remember_inserts(&world).await;
    let mut inserted = Vec::new();
    world.start().await;
    workload::run(&world, seed, 50).await;
    world.caught_up().await;
    let (folder, old) = (world.home.redis(), world.home.path().join("redis-old"));
    world.redis.server.stop().await.unwrap();
    copy(&folder, &old);
    std::fs::remove_dir_all(&folder).unwrap();
    std::fs::create_dir(&folder).unwrap();
    let mut load = Load::start(&world, seed + 1, 2, Duration::from_millis(5)).await;
    world.redis.server.start().await.unwrap();
    refilled(&mut world, 1).await;
    more(&mut load, 50).await;
    load.stop().await;
    world.assert_equal().await;
    assert_eq!(check_stream(&world, &mut inserted).await, 1);

    // A dump from before what the outbox still has.
    let pruned = |status: &Status| status.local.outbox_bytes == 0;
    world.service().until("without an outbox", LIMIT, pruned).await.unwrap();
    world.redis.server.kill9().await.unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    copy(&old, &folder);
    workload::run(&world, seed + 3, 20).await;
    world.redis.server.start().await.unwrap();
    refilled(&mut world, 2).await;
    world.assert_equal().await;
    assert_eq!(check_stream(&world, &mut inserted).await, 1, "after what the dump had");

    // A dump that is not so old: what came since is written again, and nothing else is.
    world.redis.server.stop().await.unwrap();
    std::fs::remove_dir_all(&old).unwrap();
    copy(&folder, &old);
    world.redis.server.start().await.unwrap();
    workload::run(&world, seed + 4, 20).await;
    world.caught_up().await;
    world.redis.server.kill9().await.unwrap();
    std::fs::remove_dir_all(&folder).unwrap();
    copy(&old, &folder);
    world.redis.server.start().await.unwrap();
    // Only with the next write, or after a second, does the status know that Redis went back. One
    // random transaction may roll itself back, which writes nothing.
    workload::run(&world, seed + 5, 20).await;
    world.assert_equal().await;
    assert_eq!(check_stream(&world, &mut inserted).await, 1);
    assert_eq!(refills(&world.service().status().await.unwrap()), 2);
    world.stop().await;
}

/// Walview dies at each edge of a refill, under load: the next start fills Redis again.
#[cfg(debug_assertions)]
#[tokio::test]
async fn killed_in_the_middle_of_a_refill() {
    use walview::fail_point::{
        DIE_VARIABLE, REFILL_BEGUN, REFILL_FILLED, REFILL_MARK_SET, REFILL_PAGE,
    };
    let seed = workload::seed();
    let mut world = World::betting(SMALL).await;
    stream::remember_inserts(&world).await;
    let mut inserted = Vec::new();
    let mut redis = world.redis.connect().await.unwrap();
    let load = Load::start(&world, seed, 2, Duration::from_millis(10)).await;
    for place in [REFILL_BEGUN, REFILL_PAGE, REFILL_FILLED, REFILL_MARK_SET] {
        let hit = if place == REFILL_PAGE { 4 } else { 1 };
        world.options.env.push((DIE_VARIABLE.to_owned(), format!("{place}:{hit}")));
        world.start().await;
        let live = |status: &Status| status.stores[0].state == StoreState::Live;
        world.service().until("writing", LIMIT, live).await.unwrap();
        command(&mut redis, &["FLUSHALL"]).await;
        let ended = world.service().exited(LIMIT).await.unwrap();
        let signal = std::os::unix::process::ExitStatusExt::signal(&ended);
        assert_eq!(signal, Some(6), "{place}: {ended}");
        world.service = None;
        plant_ghosts(&mut redis).await;
        world.options.env.retain(|(name, _)| name != DIE_VARIABLE);
        world.start().await;
        refilled(&mut world, u64::from(place != REFILL_MARK_SET)).await;
        if place == REFILL_MARK_SET {
            // The refill was over; the ghosts came later, and only a refill looks for them.
            command(&mut redis, &["DEL", MARK]).await;
            refilled(&mut world, 1).await;
        }
        world.stop().await;
    }
    load.stop().await;
    world.start().await;
    world.assert_equal().await;
    assert!(check_stream(&world, &mut inserted).await >= 1);
    world.stop().await;
}

/// A ClickHouse table that somebody empties or drops: its view stops and names the command, the
/// others go on, also where walview was away. A rebuild mends all.
#[tokio::test]
async fn tables_emptied_or_dropped_by_hand() {
    let seed = workload::seed();
    let mut world = World::betting(SMALL).await;
    world.start().await;
    workload::run(&world, seed, 20).await;
    world.caught_up().await;
    let says = |view: &'static str, words: &'static str| {
        move |status: &Status| {
            let stopped = status.views.iter().filter(|view| view.state == "stopped");
            let mut named = stopped.filter(|found| found.name == view);
            named.any(|found| {
                let reason = found.reason.as_deref().unwrap_or_default();
                reason.contains(words) && reason.contains("walview rebuild")
            })
        }
    };
    world.clickhouse.query("TRUNCATE TABLE betting_rows.bets_analytics").await.unwrap();
    let emptied = says("bets_analytics", "`bets_analytics` was emptied by somebody");
    world.service().until("stopped by the empty table", LIMIT, emptied).await.unwrap();
    world.stop().await;
    world.clickhouse.query("TRUNCATE TABLE betting_rows.totals_by_country").await.unwrap();
    world.start().await;
    let emptied = says("totals_by_country", "`totals_by_country` was emptied by somebody");
    world.service().until("stopped by the other empty table", LIMIT, emptied).await.unwrap();
    world.clickhouse.query("DROP TABLE betting_rows.settlement_totals").await.unwrap();
    let gone = says("settlement_totals", "`settlement_totals` is gone");
    world.service().until("stopped by the dropped table", LIMIT, gone).await.unwrap();
    workload::run(&world, seed + 1, 20).await;
    let status = world.caught_up().await;
    assert_eq!(status.views.iter().filter(|view| view.state == "stopped").count(), 3);
    world.clickhouse.query("DROP TABLE betting_rows.walview_marks").await.unwrap();
    let lost = |status: &Status| {
        let error = status.stores[1].last_error.as_deref().unwrap_or_default();
        status.stores[1].state == StoreState::Stopped
            && error.contains("`walview_marks` is gone")
            && error.contains("walview rebuild")
    };
    workload::run(&world, seed + 2, 5).await;
    world.service().until("stopped by its lost mark", LIMIT, lost).await.unwrap();
    world.stop().await;
    world.service = Some(Service::rebuild(&world.options).unwrap());
    world.service().until_live(LIVE_LIMIT).await.unwrap();
    world.assert_equal().await;
    world.stop().await;
}
