//! State, slot and server must belong together: whatever does not is a named stop, never a silent
//! gap.

use std::path::Path;
use std::process::Command;

use walview::demo::servers::postgres::{Db, Postgres, Settings};
use walview::demo::servers::service::Service;
use walview::demo::{migrate, seed};
use walview::service::board::{Status, StoreState};

use crate::end_to_end::SMALL;
use crate::messages::{LIMIT, assert_says, failure};
use crate::plan::plan;
use crate::workload;
use crate::world::World;

const SLOT: &str = "walview_betting";

/// A pipeline that has streamed some changes and was stopped in order.
async fn followed() -> World {
    let mut world = World::betting(SMALL).await;
    world.start().await;
    workload::run(&world, workload::seed(), 20).await;
    world.assert_equal().await;
    world.stop().await;
    world
}

async fn insert_bet(client: &Db) {
    let sql = "INSERT INTO bets (user_id, event_id, amount, odds) VALUES (1, 1, 1, 2)";
    client.execute(sql, &[]).await.unwrap();
}

fn copy(from: &Path, to: &Path) {
    std::fs::remove_dir_all(to).ok();
    let status = Command::new("cp").arg("-a").args([from, to]).status().unwrap();
    assert!(status.success());
}

/// The server comes back as it was when `kept` was made.
async fn restore(world: &mut World, kept: &Path) {
    world.postgres.server.stop().await.unwrap();
    copy(kept, &world.home.postgres().join("data"));
    world.postgres.server.start().await.unwrap();
}

/// Stops the server for as long as its data is copied.
async fn keep(world: &mut World) -> std::path::PathBuf {
    let kept = world.home.path().join("kept");
    world.postgres.server.stop().await.unwrap();
    copy(&world.home.postgres().join("data"), &kept);
    world.postgres.server.start().await.unwrap();
    kept
}

async fn rebuilt(world: &mut World) {
    world.service = Some(Service::rebuild(&world.options).unwrap());
    world.service().until_live(crate::world::LIVE_LIMIT).await.unwrap();
    workload::run(world, workload::seed(), 10).await;
    world.assert_equal().await;
    world.stop().await;
}

/// What leads commands to the first, its address and its token, stays.
#[tokio::test]
async fn a_second_run_on_a_folder_in_use_leaves_the_first_alone() {
    let mut world = World::betting(SMALL).await;
    world.start().await;
    let folder = world.options.state.join(&world.options.pipeline);
    let token = std::fs::read_to_string(folder.join("token")).unwrap();
    assert_says(&failure(&world).await, &["in use by another walview", "--state"]);
    assert_eq!(std::fs::read_to_string(folder.join("token")).unwrap(), token);
    assert!(world.service().status().await.is_some(), "the first is not found any more");
    world.assert_equal().await;
    world.stop().await;
}

/// A mistake in a store's URL must not cost the state.
#[tokio::test]
async fn a_rebuild_throws_nothing_away_before_the_stores_answer() {
    let mut world = followed().await;
    world.redis.server.stop().await.unwrap();
    world.service = Some(Service::rebuild(&world.options).unwrap());
    let waits =
        |status: &Status| status.stores.iter().any(|store| store.state == StoreState::Retrying);
    world.service().until("waiting for Redis", LIMIT, waits).await.unwrap();
    world.kill9().await;
    world.redis.server.start().await.unwrap();
    plan(&world).await.has(&["goes on where the last run ended; nothing is copied"]);
    world.start().await;
    world.assert_equal().await;
    world.stop().await;
    rebuilt(&mut world).await;
}

#[tokio::test]
async fn a_slot_that_was_dropped_or_made_anew() {
    let mut world = followed().await;
    let client = world.db().await;
    client.execute("SELECT pg_drop_replication_slot($1)", &[&SLOT]).await.unwrap();
    insert_bet(&client).await;
    assert_says(&failure(&world).await, &["walview_betting", "is gone", "walview rebuild"]);
    // A new one of the same name starts behind the bet: PostgreSQL would stream without it.
    let sql = "SELECT pg_create_logical_replication_slot($1, 'pgoutput')";
    client.execute(sql, &[&SLOT]).await.unwrap();
    assert_says(&failure(&world).await, &["walview_betting", "recreated", "walview rebuild"]);
    rebuilt(&mut world).await;
}

#[tokio::test]
async fn another_server() {
    let mut world = followed().await;
    let settings = Settings { fsync: false, extra: Vec::new() };
    let (folder, log) = (world.home.path().join("other"), world.home.log("other"));
    let other = Postgres::start(&folder, &log, "betting", settings).await.unwrap();
    let client = other.connect().await.unwrap();
    migrate(&client).await.unwrap();
    seed(&client, SMALL).await.unwrap();
    let own = world.postgres.url();
    world.set_env("BETTING_DATABASE_URL", other.url());
    let said = ["leads to another database", "system identifier", "walview rebuild"];
    assert_says(&failure(&world).await, &said);
    // Nothing was touched: the first goes on.
    world.set_env("BETTING_DATABASE_URL", own);
    world.start().await;
    world.assert_equal().await;
    world.stop().await;
}

/// A copy of the data folder that is started again has the same identifier, timeline and slot; its
/// log ends before the position that was followed.
#[tokio::test]
async fn a_restored_copy_whose_log_is_shorter() {
    let mut world = followed().await;
    let kept = keep(&mut world).await;
    world.start().await;
    // More than the start of a server writes by itself.
    let client = world.db().await;
    client.execute("UPDATE bets SET odds = 1 + odds / 2", &[]).await.unwrap();
    world.assert_equal().await;
    world.stop().await;
    restore(&mut world, &kept).await;
    assert_says(&failure(&world).await, &["older copy", "restored", "walview rebuild"]);
    rebuilt(&mut world).await;
}

/// The same, and the copy has been written to since: its log is past the position, with other
/// commits in the places that were followed.
#[tokio::test]
async fn a_restored_copy_whose_log_went_on() {
    let mut world = followed().await;
    let kept = keep(&mut world).await;
    world.start().await;
    for _ in 0..5 {
        insert_bet(&world.db().await).await;
    }
    world.assert_equal().await;
    world.stop().await;
    restore(&mut world, &kept).await;
    // Longer than what was followed, and not the same.
    let client = world.db().await;
    client.execute("UPDATE bets SET odds = 1 + odds / 2", &[]).await.unwrap();
    assert_says(&failure(&world).await, &["older copy", "restored", "walview rebuild"]);
    rebuilt(&mut world).await;
}

/// A server that was killed forgets how far its slot was confirmed: that is no other log.
#[tokio::test]
async fn a_slot_that_went_back_with_a_crash_goes_on() {
    let mut world = followed().await;
    world.start().await;
    for _ in 0..3 {
        insert_bet(&world.db().await).await;
        world.caught_up().await;
        world.postgres.server.kill9().await.unwrap();
        world.postgres.server.start().await.unwrap();
    }
    insert_bet(&world.db().await).await;
    world.assert_equal().await;
    world.stop().await;
    world.postgres.server.kill9().await.unwrap();
    world.postgres.server.start().await.unwrap();
    world.start().await;
    insert_bet(&world.db().await).await;
    world.assert_equal().await;
    world.stop().await;
}

#[tokio::test]
async fn a_standby_that_was_promoted() {
    let mut world = followed().await;
    world.postgres.server.stop().await.unwrap();
    let signal = world.home.postgres().join("data/standby.signal");
    std::fs::write(&signal, "").unwrap();
    world.postgres.server.start().await.unwrap();
    assert_says(&failure(&world).await, &["is a standby", "give the primary"]);
    let admin = Db::connect(&world.postgres.admin_url("betting")).await.unwrap();
    admin.execute("SELECT pg_promote()", &[]).await.unwrap();
    insert_bet(&world.db().await).await;
    assert_says(&failure(&world).await, &["timeline 2", "promoted", "walview rebuild"]);
    rebuilt(&mut world).await;
}

/// A server that may not hold back enough WAL for a client that sleeps: one clear end, no loop.
#[tokio::test]
async fn a_slot_that_is_lost_while_running() {
    let settings = [("max_slot_wal_keep_size", "32MB"), ("max_wal_size", "64MB")];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let mut world = World::with_settings(SMALL, settings.to_vec()).await;
    world.start().await;
    world.caught_up().await;
    world.service().freeze().unwrap();
    let admin = Db::connect(&world.postgres.admin_url("postgres")).await.unwrap();
    admin.batch_execute("CREATE TABLE ballast (text text)").await.unwrap();
    let lost = "SELECT wal_status = 'lost' FROM pg_replication_slots WHERE slot_name = $1";
    for round in 0.. {
        assert!(round < 50, "the slot is not lost");
        let sql =
            "INSERT INTO ballast SELECT repeat(md5(i::text), 30) FROM generate_series(1, 20000) i";
        admin.batch_execute(sql).await.unwrap();
        admin.batch_execute("CHECKPOINT").await.unwrap();
        if admin.query_one(lost, &[&SLOT]).await.unwrap().get(0) {
            break;
        }
    }
    world.service().thaw().unwrap();
    let status = world.service.take().unwrap().exited(LIMIT).await.unwrap();
    assert!(!status.success());
    let printed = std::fs::read_to_string(&world.options.log).unwrap();
    assert_says(&printed, &["is lost", "max_slot_wal_keep_size", "walview rebuild"]);
    rebuilt(&mut world).await;
}
