//! What the stream says, and what becomes of the slot.

use super::super::slot;
use super::super::stream::{Event, Format, GULP_BYTES_MAX, PART_BYTES, Resume, Stream};
use super::super::{Action, Kind};
use super::*;
use walview_core::pgoutput::{Message, decode};

/// A slot and a publication of table `t`, and the stream from the start.
async fn start(config: &SourceConfig, app: &Session) -> (Stream, Lsn) {
    run(app, "CREATE TABLE t(id int PRIMARY KEY, v text); CREATE PUBLICATION p FOR TABLE t").await;
    let made = slot::create_exporting(config, "s", |_| {}, std::future::pending()).await.unwrap();
    let from = made.consistent_point;
    made.close().await;
    (Stream::start(config, "s", "p", Resume::at(from), None, Format::Text).await.unwrap(), from)
}

async fn confirmed(app: &Session) -> Lsn {
    slot::info(app, "s").await.unwrap().unwrap().confirmed_flush_lsn.unwrap()
}

/// Events until `enough` of those so far.
async fn gather(stream: &mut Stream, enough: impl Fn(&[Event]) -> bool) -> Vec<Event> {
    let mut events = Vec::new();
    while !enough(&events) {
        let gulp = tokio::time::timeout(Duration::from_secs(30), stream.next());
        events.extend(gulp.await.expect("the stream goes on").unwrap().events);
    }
    events
}

fn commits(events: &[Event]) -> usize {
    events.iter().filter(|event| matches!(event, Event::Commit { .. })).count()
}

#[tokio::test]
async fn begin_and_commit_name_the_commit_record() {
    let server = Server::start(&[]);
    let (config, app) = (superuser(&server), application(&server).await);
    let other = application(&server).await;
    let (mut stream, from) = start(&config, &app).await;
    // Interleaved: what begins first commits last.
    run(&app, "BEGIN; INSERT INTO t VALUES (1, 'a')").await;
    run(&other, "INSERT INTO t VALUES (2, 'b')").await;
    let before = lsn(&app, "SELECT pg_current_wal_insert_lsn()::text").await;
    run(&app, "COMMIT").await;
    let after = lsn(&app, "SELECT pg_current_wal_insert_lsn()::text").await;
    run(&app, "SELECT pg_logical_emit_message(false, 'app', 'hello')").await;
    run(&app, "TRUNCATE t").await;
    let events = gather(&mut stream, |events| commits(events) == 3).await;
    let (mut begun, mut last_end) = (None, from);
    let mut ends = Vec::new();
    let mut rows = Vec::new();
    let mut messages = Vec::new();
    for event in &events {
        match event {
            Event::Begin { commit_lsn, committed_at, .. } => {
                begun = Some((*commit_lsn, *committed_at));
            }
            Event::Commit { commit_lsn, end_lsn, committed_at } => {
                assert_eq!(begun.take(), Some((*commit_lsn, *committed_at)));
                assert!(last_end <= *commit_lsn && commit_lsn < end_lsn);
                last_end = *end_lsn;
                ends.push((*commit_lsn, *end_lsn));
            }
            Event::Data(data) => match decode(data).unwrap() {
                Message::Insert { new, .. } => {
                    rows.push(format!("{:?}", new.cells().next().unwrap()));
                    assert!(begun.is_some());
                }
                Message::Truncate(truncate) => assert_eq!(truncate.relations().count(), 1),
                _ => {}
            },
            Event::KeepAlive { wal_end } => assert!(*wal_end >= from),
            Event::Message { transactional, prefix, content, .. } => {
                messages.push((*transactional, prefix.clone(), content.to_vec()));
            }
        }
    }
    assert_eq!((rows.len(), ends.len()), (2, 3));
    assert_eq!(messages, [(false, "app".to_owned(), b"hello".to_vec())]);
    // The second commit is the application's: its record starts where the log ended before COMMIT
    // (but for a page's header) and ends where the log ended after.
    assert!(ends[1].0 >= before && ends[1].0.0 < before.0 + 64, "{} {before}", ends[1].0);
    assert_eq!(ends[1].1, after);
    stream.stop().await;
}

#[tokio::test]
async fn the_slot_moves_when_told_and_only_then() {
    let server = Server::start(&[]);
    let (config, app) = (superuser(&server), application(&server).await);
    run(&app, "CREATE DATABASE elsewhere").await;
    let elsewhere = SourceConfig { database: "elsewhere".to_owned(), ..config.clone() };
    let elsewhere = connect(&elsewhere).await.unwrap();
    let (mut stream, from) = start(&config, &app).await;
    run(&app, "INSERT INTO t VALUES (1, 'a')").await;
    let events = gather(&mut stream, |events| commits(events) == 1).await;
    let Some(Event::Commit { end_lsn, .. }) =
        events.iter().find(|event| matches!(event, Event::Commit { .. }))
    else {
        panic!()
    };
    // Two status intervals later the slot has not moved.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    assert_eq!(confirmed(&app).await, from);
    stream.confirm(*end_lsn);
    until("the commit is confirmed", || async { confirmed(&app).await == *end_lsn }).await;

    // Quiet here, busy in another database: keepalives say how far it is safe to go.
    run(&elsewhere, "CREATE TABLE x AS SELECT generate_series(1, 10000) AS i").await;
    let target = lsn(&app, "SELECT pg_current_wal_flush_lsn()::text").await;
    let mut reached = Lsn(0);
    while reached < target {
        for event in stream.next().await.unwrap().events {
            match event {
                Event::KeepAlive { wal_end } => {
                    reached = wal_end;
                    stream.confirm(wal_end);
                }
                Event::Begin { .. }
                | Event::Data(_)
                | Event::Commit { .. }
                | Event::Message { .. } => {}
            }
        }
    }
    until("the keepalive is confirmed", || async { confirmed(&app).await >= target }).await;
    // Stopping sends what was confirmed last, without waiting for an interval's end.
    run(&app, "INSERT INTO t VALUES (2, 'a')").await;
    let events = gather(&mut stream, |events| commits(events) == 1).await;
    let end = events.iter().find_map(|event| match event {
        Event::Commit { end_lsn, .. } => Some(*end_lsn),
        Event::Begin { .. } | Event::Data(_) | Event::KeepAlive { .. } | Event::Message { .. } => {
            None
        }
    });
    stream.confirm(end.unwrap());
    stream.stop().await;
    assert!(confirmed(&app).await >= end.unwrap());
}

#[tokio::test]
async fn a_keepalive_outside_a_transaction_covers_every_commit_below_it() {
    let server = Server::start(&[]);
    let (config, app) = (superuser(&server), application(&server).await);
    let (mut stream, from) = start(&config, &app).await;
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..4 {
        let session = application(&server).await;
        writers.spawn(async move {
            for round in 0..100 {
                let id = writer * 1_000 + round;
                run(&session, &format!("BEGIN; INSERT INTO t VALUES ({id}, 'x')")).await;
                tokio::task::yield_now().await;
                run(&session, "COMMIT").await;
            }
        });
    }
    let (mut last_end, mut highest_keepalive, mut inside, mut seen) = (from, from, false, 0);
    while seen < 400 {
        let gulp = stream.next().await.unwrap();
        let ends = |event: &Event| matches!(event, Event::Commit { .. } | Event::KeepAlive { .. });
        assert!(gulp.events.iter().any(ends), "a transaction's beginning alone");
        for event in gulp.events {
            match event {
                Event::Begin { commit_lsn, .. } => {
                    assert!(commit_lsn >= last_end, "{commit_lsn} after {last_end}");
                    assert!(commit_lsn >= highest_keepalive, "a keepalive promised too much");
                    inside = true;
                }
                Event::Commit { end_lsn, .. } => {
                    (last_end, inside) = (end_lsn, false);
                    seen += 1;
                }
                Event::KeepAlive { wal_end } if !inside => {
                    highest_keepalive = highest_keepalive.max(wal_end);
                }
                Event::KeepAlive { .. } | Event::Data(_) | Event::Message { .. } => {}
            }
        }
    }
    while writers.join_next().await.is_some() {}
    stream.stop().await;
}

#[tokio::test]
async fn a_consumer_that_takes_nothing_is_not_cut_off() {
    let server = Server::start(&[]);
    let (config, app) = (superuser(&server), application(&server).await);
    let (mut stream, _) = start(&config, &app).await;
    run(&app, "INSERT INTO t SELECT i, repeat('x', 1000) FROM generate_series(1, 50000) i").await;
    // The walsender is stuck in sending by now, and still hears from us.
    let fresh = "SELECT count(*) FROM pg_stat_replication
                 WHERE reply_time > clock_timestamp() - interval '3 s'";
    for _ in 0..5 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(app.query_one(fresh, &[]).await.unwrap().get::<_, i64>(0), 1);
    }
    let mut largest = 0;
    let (mut rows, mut ended) = (0, false);
    while !ended {
        let gulp = stream.next().await.unwrap();
        largest = largest.max(gulp.bytes);
        let ends = |event: &Event| matches!(event, Event::Commit { .. } | Event::KeepAlive { .. });
        let is_part = !gulp.events.iter().any(ends);
        assert!(!is_part || gulp.bytes >= PART_BYTES, "{} bytes of a transaction", gulp.bytes);
        for event in &gulp.events {
            match event {
                Event::Data(data) => {
                    rows += u32::from(matches!(decode(data), Ok(Message::Insert { .. })));
                }
                Event::Commit { .. } => ended = true,
                Event::Begin { .. } | Event::KeepAlive { .. } | Event::Message { .. } => {}
            }
        }
    }
    assert_eq!(rows, 50_000);
    assert!(largest < GULP_BYTES_MAX + 2_000, "{largest}");
    stream.stop().await;
}

#[tokio::test]
async fn silence_is_told_from_death() {
    let server = Server::start(&[]);
    let config = SourceConfig { connect_timeout: Duration::from_secs(2), ..superuser(&server) };
    let app = application(&server).await;
    let (mut stream, _) = start(&config, &app).await;
    stream.silence_max = Duration::from_millis(300);
    // Idle for many silences: nothing happens, and a change still arrives.
    let waited = tokio::time::timeout(Duration::from_secs(3), async {
        loop {
            let gulp = stream.next().await.unwrap();
            assert_eq!(commits(&gulp.events), 0);
        }
    });
    assert!(waited.await.is_err());
    run(&app, "INSERT INTO t VALUES (1, 'a')").await;
    gather(&mut stream, |events| commits(events) == 1).await;

    server.signal_all("-STOP");
    let error = loop {
        match stream.next().await {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    server.signal_all("-CONT");
    assert_eq!((error.action, error.kind), (Action::Retry, Kind::Stalled));
    assert_says(&error, &["stream from slot \"s\" has gone silent", "did not answer within 2 s"]);
}

#[tokio::test]
async fn a_server_that_ends_the_stream_says_why() {
    let server = Server::start(&[]);
    let (config, app) = (superuser(&server), application(&server).await);
    let (mut stream, _) = start(&config, &app).await;
    let holder = slot::info(&app, "s").await.unwrap().unwrap().holder.unwrap();
    run(&app, &format!("SELECT pg_terminate_backend({})", holder.pid)).await;
    let error = loop {
        match stream.next().await {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!((error.action, error.kind), (Action::Retry, Kind::Unreachable));
    assert_says(&error, &["stream from slot \"s\"", "terminating connection due to administrator"]);

    // From 18 a server goes on without the publication and sends no change: only a look at the
    // catalog tells, as for a publication that lost its tables.
    if server.major >= 18 {
        return;
    }
    // Dropped while it streams: the error comes with the next change.
    let from = confirmed(&app).await;
    until("the slot is free", || async {
        slot::info(&app, "s").await.unwrap().unwrap().holder.is_none()
    })
    .await;
    let mut stream =
        Stream::start(&config, "s", "p", Resume::at(from), None, Format::Text).await.unwrap();
    run(&app, "DROP PUBLICATION p; INSERT INTO t VALUES (9, 'x')").await;
    let error = loop {
        match stream.next().await {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert_eq!((error.action, error.kind), (Action::Stop, Kind::PublicationMissing));
    assert_says(&error, &["publication \"p\" does not exist", "walview rebuild"]);
}
