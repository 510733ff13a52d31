//! Slots: waiting, cancelling, and every state that a slot can be found in.

use super::super::slot::{self, Blocker, WalStatus};
use super::super::stream::{Format, Resume, Stream};
use super::super::{Action, Kind};
use super::*;
use std::sync::{Arc, Mutex};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

async fn slots(session: &Session) -> i64 {
    let sql = "SELECT count(*) FROM pg_replication_slots";
    session.query_one(sql, &[]).await.unwrap().get(0)
}

#[tokio::test]
async fn what_a_creation_waits_for_is_named_and_a_cancelled_one_leaves_nothing() {
    let server = Server::start(&["max_prepared_transactions=2"]);
    let config = superuser(&server);
    let (writer, app) = (application(&server).await, application(&server).await);
    run(&app, "CREATE TABLE t(id int PRIMARY KEY)").await;
    run(&writer, "BEGIN; INSERT INTO t VALUES (1)").await;
    let pid: i32 = writer.query_one("SELECT pg_backend_pid()", &[]).await.unwrap().get(0);

    let seen: Arc<Mutex<Vec<Blocker>>> = Arc::default();
    let (stop, stopped) = oneshot::channel::<()>();
    let mut stop = Some(stop);
    let note = Arc::clone(&seen);
    let begun = tokio::time::Instant::now();
    let created = slot::create_exporting(
        &config,
        "s",
        move |blockers| {
            note.lock().unwrap().extend_from_slice(blockers);
            if let Some(stop) = stop.take() {
                stop.send(()).unwrap();
            }
        },
        async move { drop(stopped.await) },
    );
    let error = refusal(created.await);
    assert_eq!(error.kind, Kind::Cancelled);
    assert!(begun.elapsed() < Duration::from_secs(10));
    let named = seen.lock().unwrap().first().cloned().unwrap();
    assert_eq!((named.pid, named.now), (Some(pid), true));
    let shown = named.to_string();
    assert!(
        shown.starts_with(&format!("pid {pid} (\"walview:application\" role postgres")),
        "{shown}"
    );
    run(&writer, "COMMIT").await;
    // A creation that had gone on would be done by the time that another one is.
    slot::create_exporting(&config, "other", |_| {}, std::future::pending())
        .await
        .unwrap()
        .close()
        .await;
    assert_eq!(slots(&app).await, 1);

    // A prepared transaction blocks as well, and no session holds it.
    run(&writer, "BEGIN; INSERT INTO t VALUES (2); PREPARE TRANSACTION 'left behind'").await;
    let seen: Arc<Mutex<Vec<String>>> = Arc::default();
    let note = Arc::clone(&seen);
    let (stop, stopped) = oneshot::channel::<()>();
    let mut stop = Some(stop);
    let created = slot::create_exporting(
        &config,
        "s",
        move |blockers| {
            note.lock().unwrap().extend(blockers.iter().map(ToString::to_string));
            drop(stop.take());
        },
        async move { drop(stopped.await) },
    );
    refusal(created.await);
    let shown = seen.lock().unwrap().join(", ");
    assert!(shown.contains("prepared transaction \"left behind\""), "{shown}");
    run(&app, "ROLLBACK PREPARED 'left behind'").await;
}

#[tokio::test]
async fn a_creation_whose_client_dies_leaves_nothing() {
    let server = Server::start(&[]);
    let config = superuser(&server);
    let (writer, app) = (application(&server).await, application(&server).await);
    run(&writer, "CREATE TABLE t(id int PRIMARY KEY); BEGIN; INSERT INTO t VALUES (1)").await;
    let mut tasks = JoinSet::new();
    let theirs = config.clone();
    let (told, waits) = oneshot::channel::<()>();
    let mut told = Some(told);
    // In a runtime of its own, which ends as a killed process does: no task gets to clean up.
    tasks.spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        runtime.spawn(async move {
            let note = move |_: &[Blocker]| drop(told.take());
            drop(slot::create_exporting(&theirs, "s", note, std::future::pending()).await);
        });
        runtime.block_on(async { drop(waits.await) });
        runtime.shutdown_background();
    });
    drop(tasks.join_next().await);
    let walsenders = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'walsender'";
    until("the server notices", || async {
        app.query_one(walsenders, &[]).await.unwrap().get::<_, i64>(0) == 0
    })
    .await;
    run(&writer, "COMMIT").await;
    assert_eq!(slots(&app).await, 0);
}

#[tokio::test]
async fn a_slot_that_cannot_be_used() {
    let server = Server::prepared(
        &["max_slot_wal_keep_size=2MB", "max_wal_size=4MB", "min_wal_size=2MB"],
        &["--wal-segsize=1"],
        |_data| {},
    );
    let (config, app) = (superuser(&server), application(&server).await);
    run(
        &app,
        "CREATE TABLE t(id int PRIMARY KEY); CREATE PUBLICATION p \
               FOR TABLE t",
    )
    .await;
    run(&app, "CREATE DATABASE elsewhere").await;
    let elsewhere = SourceConfig { database: "elsewhere".to_owned(), ..config.clone() };
    let start = |slot: &'static str, from: Lsn| {
        let config = &config;
        async move { Stream::start(config, slot, "p", Resume::at(from), None, Format::Text).await }
    };
    for sql in [
        "SELECT pg_create_logical_replication_slot('strange', 'test_decoding')",
        "SELECT pg_create_physical_replication_slot('physical')",
    ] {
        run(&app, sql).await;
    }
    let there = connect(&elsewhere).await.unwrap();
    run(&there, "SELECT pg_create_logical_replication_slot('there', 'pgoutput')").await;
    for (slot, said) in [
        ("strange", "slot \"strange\" is for test_decoding, not for pgoutput"),
        ("physical", "slot \"physical\" is for physical, not for pgoutput"),
        ("there", "slot \"there\" belongs to database \"elsewhere\", not to \"postgres\""),
        ("gone", "slot \"gone\" does not exist"),
        ("No'Good", "\"No'Good\" is not a replication slot's name; use 1 to 63 of a-z, 0-9 and _"),
    ] {
        let error = refusal(start(slot, Lsn(u64::MAX >> 1)).await);
        assert_eq!(error.action, Action::Stop);
        assert_says(&error, &[said]);
    }
    let error = refusal(slot::drop(&config, &app, "strange").await);
    assert_says(&error, &["not walview's"]);
    assert!(!slot::drop(&config, &app, "gone").await.unwrap());

    let made = slot::create_exporting(&config, "s", |_| {}, std::future::pending()).await.unwrap();
    let error = refusal(slot::create_exporting(&config, "s", |_| {}, std::future::pending()).await);
    assert_says(&error, &["slot \"s\" exists already", "SELECT pg_drop_replication_slot('s')"]);
    let from = made.consistent_point;
    made.close().await;

    // Recreated behind our back: it stands further on, and what lies between is gone.
    let error = refusal(start("s", Lsn(from.0 - 1)).await);
    assert_eq!(error.kind, Kind::SlotMoved);
    let said = format!("slot \"s\" stands at {from}, past the stored position {}", Lsn(from.0 - 1));
    assert_says(&error, &[&said, "walview rebuild"]);
    let error =
        refusal(Stream::start(&config, "s", "nix", Resume::at(from), None, Format::Text).await);
    assert_eq!(error.kind, Kind::PublicationMissing);
    assert_says(&error, &["publication \"nix\" does not exist", "walview rebuild"]);

    run(&app, "SELECT pg_drop_replication_slot('strange'), pg_drop_replication_slot('physical')")
        .await;
    for _ in 0..8 {
        run(
            &app,
            "INSERT INTO t SELECT generate_series(1, 100); DELETE FROM t; SELECT pg_switch_wal()",
        )
        .await;
    }
    run(&app, "CHECKPOINT").await;
    let lost = slot::info(&app, "s").await.unwrap().unwrap();
    assert_eq!(lost.wal_status, WalStatus::Lost);
    let error = refusal(start("s", from).await);
    assert_eq!((error.action, error.kind), (Action::Stop, Kind::SlotLost));
    assert_says(&error, &["slot \"s\" is lost (wal_status lost)", "max_slot_wal_keep_size"]);
    assert!(slot::drop(&config, &app, "s").await.unwrap());
}

#[tokio::test]
async fn a_held_slot_names_its_holder() {
    let server = Server::start(&[]);
    let (config, app) = (superuser(&server), application(&server).await);
    run(&app, "CREATE TABLE t(id int PRIMARY KEY); CREATE PUBLICATION p FOR TABLE t").await;
    let made = slot::create_exporting(&config, "s", |_| {}, std::future::pending()).await.unwrap();
    let (from, lineage) = (made.consistent_point, made.lineage);
    made.close().await;
    let stream = Stream::start(&config, "s", "p", Resume::at(from), Some(lineage), Format::Text)
        .await
        .unwrap();
    let holder = slot::info(&app, "s").await.unwrap().unwrap().holder.unwrap();
    let second = SourceConfig { pipeline: "second".to_owned(), ..config.clone() };
    let error =
        refusal(Stream::start(&second, "s", "p", Resume::at(from), None, Format::Text).await);
    assert_eq!((error.action, error.kind), (Action::Retry, Kind::SlotHeld));
    let said = format!("held by pid {} (\"walview:test\" from 127.0.0.1)", holder.pid);
    assert_says(&error, &[&said, &format!("SELECT pg_terminate_backend({})", holder.pid)]);
    let error = refusal(slot::drop(&second, &app, "s").await);
    assert_eq!(error.kind, Kind::SlotHeld);
    // Our own last stream is waited for.
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        tokio::time::sleep(Duration::from_millis(300)).await;
        stream.stop().await;
    });
    assert!(slot::drop(&config, &app, "s").await.unwrap());
    assert_eq!(slots(&app).await, 0);

    let other = super::super::server::Lineage { timeline: 2, ..lineage };
    run(&app, "SELECT pg_create_logical_replication_slot('s', 'pgoutput')").await;
    let from = slot::info(&app, "s").await.unwrap().unwrap().confirmed_flush_lsn.unwrap();
    let error = refusal(
        Stream::start(&config, "s", "p", Resume::at(from), Some(other), Format::Text).await,
    );
    assert_eq!(error.kind, Kind::LineageChanged);
    assert_says(&error, &["is on timeline 1, the stored position on timeline 2"]);
}
