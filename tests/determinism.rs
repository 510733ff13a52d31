//! State and log alone decide what the stores are told: the same log gives the same bytes, however
//! often the process dies on the way. Feeding Redis from memory, before the local commit, rests on
//! this.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use walview::demo::servers::postgres::Db;
use walview::demo::servers::service::parse_lsn;
use walview::service::board::Status;
use walview::state::LocalStore;
use walview_core::engine::{ReadState as _, Space};
use walview_core::outbox::Record;

use crate::end_to_end::SMALL;
use crate::messages::{assert_says, failure};
use crate::workload;
use crate::world::{CATCH_UP_LIMIT, World};

/// More changes than a local commit of a long transaction holds.
const LONG_TRANSACTION: &str = "INSERT INTO bets (user_id, event_id, amount, odds)
    SELECT 1 + i % 30, 1 + i % 20, 1 + i % 7, 2 FROM generate_series(1, 25000) i";
const ONE_BET: &str = "INSERT INTO bets (user_id, event_id, amount, odds) VALUES (1, 1, 1, 2)";
const LIMIT: Duration = Duration::from_secs(120);

type Entries = Vec<(Vec<u8>, Vec<u8>)>;

/// Everything that a stopped pipeline holds.
#[derive(Debug, PartialEq)]
struct Held {
    spaces: Vec<(Space, Entries)>,
    /// By store.
    records: Vec<Vec<Record>>,
    stopped: Vec<Option<String>>,
    commit_lsn: u64,
}

fn held(folder: &Path) -> Held {
    let store = LocalStore::open(folder).unwrap();
    let progress = store.progress().unwrap();
    let spaces = Space::ALL.into_iter().map(|space| {
        let mut entries = Entries::new();
        loop {
            let after = entries.last().map(|(key, _)| key.clone());
            let page = store.scan(space, &[], after.as_deref(), 1000).unwrap();
            if page.is_empty() {
                break (space, entries);
            }
            entries.extend(page);
        }
    });
    let records = progress.outbox_end.iter().enumerate().map(|(index, end)| {
        let outbox = store.outbox();
        let mut records: Vec<Record> = Vec::new();
        let mut next = outbox.first(index, *end);
        while next < *end {
            records.extend(outbox.read(index, next, *end).unwrap());
            next = records.last().unwrap().seq + 1;
        }
        records
    });
    Held {
        spaces: spaces.collect(),
        records: records.collect(),
        stopped: progress.stopped.clone(),
        commit_lsn: progress.commit_lsn,
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::remove_dir_all(to).ok();
    let status = Command::new("cp").arg("-a").args([from, to]).status().unwrap();
    assert!(status.success());
}

async fn copy_slot(admin: &Db, from: &str, to: &str) {
    let sql = "SELECT pg_copy_logical_replication_slot($1, $2)";
    admin.execute(sql, &[&from, &to]).await.unwrap();
}

#[tokio::test]
async fn the_same_log_gives_the_same_bytes_however_often_it_dies() {
    let seed = workload::seed();
    let mut random = StdRng::seed_from_u64(seed);
    let mut world = World::betting(SMALL).await;
    world.start().await;
    world.assert_equal().await;
    world.stop().await;
    // With the stores away the outbox keeps all that they are to be told.
    world.redis.server.kill9().await.unwrap();
    world.clickhouse.server.kill9().await.unwrap();
    let state = world.options.state.clone();
    let kept: PathBuf = world.home.path().join("state-kept");
    copy(&state, &kept);
    let admin = Db::connect(&world.postgres.admin_url("betting")).await.unwrap();
    copy_slot(&admin, "walview_betting", "kept").await;

    workload::run(&world, seed, 100).await;
    world.db().await.batch_execute(LONG_TRANSACTION).await.unwrap();
    world.db().await.batch_execute("UPDATE events SET name = name || '!'").await.unwrap();
    workload::run(&world, seed + 1, 100).await;
    // Views that are being corrected in steps get through: what a silent source's steps emit is no
    // function of the log.
    let db = world.db().await;
    for _ in 0..200 {
        db.batch_execute(ONE_BET).await.unwrap();
    }
    let sql = "SELECT pg_current_wal_flush_lsn()::text";
    let end: String = admin.query_one(sql, &[]).await.unwrap().get(0);
    let end = parse_lsn(&end).unwrap();
    let reached = |status: &Status| parse_lsn(&status.source.lsn).is_some_and(|lsn| lsn >= end);

    world.start().await;
    world.service().until("at the end of the log", LIMIT, reached).await.unwrap();
    world.stop().await;
    let once = held(&state.join("betting/store"));
    let counts: Vec<usize> = once.records.iter().map(Vec::len).collect();
    assert!(counts.iter().all(|count| *count > 100), "too little to compare: {counts:?}");

    admin.batch_execute("SELECT pg_drop_replication_slot('walview_betting')").await.unwrap();
    copy_slot(&admin, "kept", "walview_betting").await;
    copy(&kept, &state);
    let mut kills = 0_u32;
    loop {
        world.spawn();
        // Longer and longer, so that a slow machine gets past the long transaction, too.
        let moment = Duration::from_millis(random.random_range(100..1000)) * (1 + kills / 3);
        let ended = world.service().until("at the end of the log", moment, reached).await;
        if ended.is_ok() {
            break;
        }
        world.kill9().await;
        kills += 1;
        assert!(kills < 100, "it gets nowhere");
    }
    println!("killed {kills} times");
    assert!(kills > 2, "it was not killed on the way");
    world.stop().await;
    let often = held(&state.join("betting/store"));
    for (once, often) in once.records.iter().zip(&often.records) {
        let differs = once.iter().zip(often).position(|(a, b)| a != b);
        assert_eq!((once.len(), differs), (often.len(), None), "records differ");
    }
    assert!(once == often, "the state differs");

    // And the stores get from these bytes where they should.
    world.redis.server.start().await.unwrap();
    world.clickhouse.server.start().await.unwrap();
    world.start().await;
    world.assert_equal().await;
    world.stop().await;
}

/// What was not yet delivered was computed by the definition that is stored; a file that means
/// something else is not followed, and the file as it was goes on.
#[tokio::test]
async fn a_file_that_was_edited_between_a_crash_and_the_restart() {
    let seed = workload::seed();
    let mut world = World::betting(SMALL).await;
    world.start().await;
    world.clickhouse.server.freeze().unwrap();
    workload::run(&world, seed, 50).await;
    world.kill9().await;
    let text = world.pipeline.clone();
    let edited = text.replace("WHERE status <> 'CANCELLED'", "WHERE status <> 'OPEN'");
    assert_ne!(text, edited);
    world.set_pipeline(&edited);
    world.clickhouse.server.thaw().unwrap();
    assert_says(&failure(&world).await, &["has changed since its state was built", "rebuild"]);
    // Comments and layout mean nothing.
    world.set_pipeline(&format!("# edited\n{text}"));
    world.start().await;
    workload::run(&world, seed + 1, 50).await;
    tokio::time::timeout(CATCH_UP_LIMIT, world.assert_equal()).await.unwrap();
    world.stop().await;
}
