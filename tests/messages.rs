//! What `walview run` says when something is wrong: the object, the cause and what to type, in one
//! sentence, and never a secret.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use walview::demo::servers::log_tail;
use walview::demo::servers::process::{Launch, Process, Signal};
use walview::demo::servers::service::Service;

use crate::end_to_end::SMALL;
use crate::world::World;

pub const LIMIT: Duration = Duration::from_secs(60);

/// `SELECT …` as the only view, into Redis.
fn pipeline(sql: &str) -> String {
    format!(
        "pipeline: betting\n\
         source:\n  url: ${{BETTING_DATABASE_URL}}\n\
         stores:\n  redis: {{ url: \"${{REDIS_URL}}\" }}\n\
         views:\n  - name: probe\n    sql: |\n      {sql}\n    to:\n      - redis: {{ hash: \"probe:{{id}}\" }}\n"
    )
}

/// Runs it to its end, which must be a failure, and returns what it printed.
pub async fn failure(world: &World) -> String {
    // Earlier runs' words must not count.
    std::fs::write(&world.options.log, "").unwrap();
    let mut service = Service::spawn(&world.options).unwrap();
    let status = service.exited(LIMIT).await.unwrap_or_else(|error| {
        panic!("{error}; it printed:\n{}", log_tail(&world.options.log, 40));
    });
    let printed = std::fs::read_to_string(&world.options.log).unwrap();
    assert!(!status.success(), "it ended well:\n{printed}");
    assert!(!printed.contains("panicked"), "{printed}");
    assert!(!printed.contains(world.postgres.password()), "a password is printed:\n{printed}");
    printed
}

#[track_caller]
pub fn assert_says(printed: &str, phrases: &[&str]) {
    for phrase in phrases {
        assert!(printed.contains(phrase), "{phrase:?} is not said:\n{printed}");
    }
}

/// From PostgreSQL 18 on a stream without its publication sends nothing and says nothing.
#[tokio::test]
async fn a_publication_that_is_dropped_while_it_streams() {
    let mut world = World::betting(SMALL).await;
    world.start().await;
    let db = world.db().await;
    db.batch_execute("DROP PUBLICATION walview_betting; UPDATE users SET name = 'x'")
        .await
        .unwrap();
    let mut service = world.service.take().unwrap();
    let status = service.exited(LIMIT).await.unwrap();
    let printed = std::fs::read_to_string(&world.options.log).unwrap();
    assert!(!status.success(), "it ended well:\n{printed}");
    assert_says(
        &printed,
        &["publication \"walview_betting\" does not exist", "run: walview rebuild"],
    );
}

#[tokio::test]
async fn mistakes_in_the_sql() {
    let mut world = World::betting(SMALL).await;
    world.db().await.batch_execute("CREATE TABLE plain (id bigint, note text)").await.unwrap();

    world.set_pipeline(&pipeline("SELECT id, nickname FROM users"));
    assert_says(&failure(&world).await, &["nickname", "betting.yaml:9:"]);

    world.set_pipeline(&pipeline("SELECT id, frobnicate(name) AS x FROM users"));
    assert_says(&failure(&world).await, &["frobnicate", "betting.yaml:9:"]);

    // Rows that a store could not tell apart.
    world.set_pipeline(&pipeline("SELECT created_at AS id, name FROM users"));
    assert_says(&failure(&world).await, &["does not show the key", "add id to the SELECT list"]);

    world.set_pipeline(&pipeline("SELECT id, name FROM usres"));
    assert_says(&failure(&world).await, &["usres"]);

    world.set_pipeline(&pipeline("SELECT id, note FROM plain"));
    assert_says(&failure(&world).await, &["plain", "key"]);

    let slots = "SELECT count(*) FROM pg_replication_slots";
    let slots: i64 = world.db().await.query_one(slots, &[]).await.unwrap().get(0);
    assert_eq!(slots, 0, "a failed start left a slot behind");
}

#[tokio::test]
async fn a_source_that_cannot_be_reached() {
    let mut world = World::betting(SMALL).await;
    let url = world.postgres.url();

    world.set_env("BETTING_DATABASE_URL", "postgres://walview:secret9@127.0.0.1:1/betting".into());
    let printed = failure(&world).await;
    assert_says(&printed, &["127.0.0.1:1", "refused"]);
    assert!(!printed.contains("secret9"), "a password is printed:\n{printed}");

    let wrong = url.replace(world.postgres.password(), "secret9");
    world.set_env("BETTING_DATABASE_URL", wrong);
    let printed = failure(&world).await;
    assert_says(&printed, &["password", "walview"]);
    assert!(!printed.contains("secret9"), "a password is printed:\n{printed}");

    world.set_env("BETTING_DATABASE_URL", url.replace("/betting", "/bettnig"));
    assert_says(&failure(&world).await, &["bettnig"]);
}

#[tokio::test]
async fn wal_level_replica() {
    let settings = vec![("wal_level".to_owned(), "replica".to_owned())];
    let world = World::with_settings(SMALL, settings).await;
    assert_says(&failure(&world).await, &["wal_level", "replica", "logical", "restart"]);
}

/// Somebody else streams from our slot: it says who, and which slot.
#[tokio::test]
async fn a_slot_that_somebody_else_holds() {
    let mut world = World::betting(SMALL).await;
    world.start().await;
    world.assert_equal().await;
    world.stop().await;
    let _holder = hold_slot(&world).await;
    let client = world.db().await;
    let active = "SELECT active_pid, slot_name::text FROM pg_replication_slots WHERE active";
    let row = client.query_one(active, &[]).await.unwrap();
    let (pid, slot): (i32, String) = (row.get(0), row.get(1));

    std::fs::write(&world.options.log, "").unwrap();
    world.spawn();
    // Whether it gives up or tries again, it says so.
    let deadline = Instant::now() + LIMIT;
    let mut printed = String::new();
    while !(printed.contains(&slot) && printed.contains(&pid.to_string())) {
        assert!(Instant::now() < deadline, "neither {slot} nor pid {pid} is named:\n{printed}");
        sleep(Duration::from_millis(50)).await;
        printed = std::fs::read_to_string(&world.options.log).unwrap();
    }
}

/// Another program streams from the slot that Walview made.
pub async fn hold_slot(world: &World) -> Process {
    let client = world.db().await;
    let sql = "SELECT slot_name::text, (SELECT pubname::text FROM pg_publication LIMIT 1)
               FROM pg_replication_slots";
    let row = client.query_one(sql, &[]).await.unwrap();
    let (slot, publication): (String, String) = (row.get(0), row.get(1));
    let holder = Launch {
        program: world.postgres.client_program("pg_recvlogical"),
        args: [
            "--dbname",
            &world.postgres.url(),
            "--slot",
            &slot,
            "--start",
            "--file=/dev/null",
            "--option=proto_version=1",
            &format!("--option=publication_names={publication}"),
        ]
        .map(str::to_owned)
        .to_vec(),
        env: Vec::new(),
        user: None,
        log: world.home.log("pg_recvlogical"),
        death: Signal::KILL,
    };
    let mut holder = Process::spawn("pg_recvlogical", &holder).unwrap();
    let active = "SELECT active_pid FROM pg_replication_slots WHERE active";
    let ready = async || client.query_opt(active, &[]).await.unwrap().is_some();
    holder.until("streaming", LIMIT, ready).await.unwrap();
    holder
}
