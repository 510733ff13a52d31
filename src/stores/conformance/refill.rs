//! What a Redis promises that is filled again: no ghosts, events once, and a gap where they are
//! gone.

use super::super::redis::{Config, Redis};
use super::super::{Store as _, StoreError};
use super::redis::RedisRig;
use super::{A, A2, B, Rig, at, batch, identity, ready, view};
use std::collections::BTreeSet;
use walview_core::engine::RefillPage;
use walview_core::position::{Lsn, Position};
use walview_core::target::redis::{Spec, SpecShape, Target};
use walview_core::target::template::Template;
use walview_core::target::{Change, Commit, Events, Scratch};

const MARK: &str = "walview:test:mark";

fn page(rig: &RedisRig, rows: &[super::Row]) -> RefillPage {
    let changes: Vec<_> = rows.iter().map(|row| (None, Some(*row))).collect();
    RefillPage { ops: rig.snapshot(&changes, at(1)).to_vec(), ..RefillPage::default() }
}

async fn refill(store: &mut Redis, to: Position, page: &RefillPage) {
    store.begin_refill(to, &BTreeSet::new()).await.unwrap();
    assert!(store.mark().await.unwrap().is_none());
    store.refill(page).await.unwrap();
    store.set_mark(to).await.unwrap();
}

/// The gap entries of a stream: from, to.
async fn gaps(rig: &RedisRig, stream: &str) -> Vec<(String, String)> {
    let entries = rig.cli(&["XRANGE", stream, "-", "+"]).await;
    let lines: Vec<&str> = entries.lines().collect();
    let gaps = lines.windows(8).filter(|lines| lines[0] == "_op" && lines[1] == "gap");
    gaps.map(|lines| (lines[5].to_owned(), lines[7].to_owned())).collect()
}

fn id(position: Position) -> String {
    let (high, low) = position.stream_id().unwrap();
    format!("{high}-{low}")
}

#[tokio::test]
async fn a_lost_mark_alone_costs_no_event() {
    let rig = RedisRig::start().await;
    rig.put_foreign().await;
    let mut store = ready(&rig, &rig.address()).await;
    store.apply(&batch(&rig, 1, 2, &[(None, Some(A)), (None, Some(B))])).await.unwrap();
    for words in [
        &["SET", "n:7", "1"][..],
        &["HSET", "h:1", "ghost", "1"],
        &["HSET", "h:7", "id", "7"],
        &["SET", "j:{all}:7", "{}"],
        &["SADD", "ids", "7"],
        &["ZADD", "top", "1", "7"],
        &["DEL", MARK],
    ] {
        rig.cli(words).await;
    }
    let late = batch(&rig, 2, 3, &[(Some(A), Some(A2))]);
    assert!(matches!(store.apply(&late).await, Err(StoreError::MarkMoved { found: None })));
    assert!(matches!(store.fresh(0, Lsn(2)).await, Err(StoreError::MarkMoved { found: None })));
    let last = Position { ordinal: 2, ..at(2) };
    assert_eq!(store.remains().await.unwrap(), Some(last));
    // Broken off, by this writer and by a new one that knows nothing: it starts again.
    store.begin_refill(at(2), &BTreeSet::new()).await.unwrap();
    store.refill(&page(&rig, &[B])).await.unwrap();
    let mut store = rig.store(&rig.address());
    store.connect().await.unwrap();
    assert!(store.mark().await.unwrap().is_none());
    assert_eq!(store.remains().await.unwrap(), Some(last));
    refill(&mut store, last, &page(&rig, &[A, B])).await;
    assert_eq!(rig.content().await, rig.expected(&[A, B]));
    assert_eq!((rig.events().await, gaps(&rig, "events").await.len()), (Some(2), 0));
    assert!(rig.foreign_is_there().await);
    // The record in which the last event lies comes again, and its events do not.
    let mut again = batch(&rig, 1, 2, &[(None, Some(A)), (None, Some(B))]);
    again.from = last;
    store.apply(&again).await.unwrap();
    store.apply(&late).await.unwrap();
    assert_eq!(rig.content().await, rig.expected(&[A2, B]));
    assert_eq!(rig.events().await, Some(3));
}

#[tokio::test]
async fn a_wiped_redis_tells_the_gap_once() {
    let rig = RedisRig::start().await;
    let mut store = ready(&rig, &rig.address()).await;
    store.apply(&batch(&rig, 1, 2, &[(None, Some(A))])).await.unwrap();
    rig.cli(&["FLUSHALL"]).await;
    assert_eq!(store.remains().await.unwrap(), None);
    store.begin_refill(at(2), &BTreeSet::new()).await.unwrap();
    // Who comes after a crash takes the gap entry for no proof of anything.
    let mut store = rig.store(&rig.address());
    store.connect().await.unwrap();
    assert_eq!(store.remains().await.unwrap(), Some(at(2)));
    refill(&mut store, at(2), &page(&rig, &[A])).await;
    assert_eq!(rig.content().await, rig.expected(&[A]));
    assert_eq!(gaps(&rig, "events").await, [("0-0".to_owned(), id(at(2)))]);
    store.apply(&batch(&rig, 2, 3, &[(Some(A), Some(A2))])).await.unwrap();
    assert_eq!(rig.events().await, Some(2));
}

/// As after a dump that is older than the last events.
#[tokio::test]
async fn a_stream_that_went_back_tells_from_where() {
    let rig = RedisRig::start().await;
    let mut store = ready(&rig, &rig.address()).await;
    store.apply(&batch(&rig, 1, 2, &[(None, Some(A))])).await.unwrap();
    rig.cli(&["COPY", "events", "saved"]).await;
    store.apply(&batch(&rig, 2, 3, &[(None, Some(B))])).await.unwrap();
    rig.cli(&["RENAME", "saved", "events"]).await;
    rig.cli(&["DEL", MARK]).await;
    let last = Position { ordinal: 1, ..at(2) };
    assert_eq!(store.remains().await.unwrap(), Some(last));
    refill(&mut store, at(3), &page(&rig, &[A, B])).await;
    assert_eq!(gaps(&rig, "events").await, [(id(last), id(at(3)))]);
}

/// The streams of a template with columns: those that are there, and those that rows lead to.
#[tokio::test]
async fn each_of_many_streams_tells_its_gap() {
    let rig = RedisRig::start().await;
    let template = Template::parse("e:{id}").unwrap();
    let shape = SpecShape::Stream { events: Events::default(), maxlen: None };
    let target = Target::bind(&Spec { template, shape, fields: None }, &view()).unwrap();
    let url = format!("redis://{}", rig.address());
    let config = Config { url, identity: identity(), accept_eviction: false };
    let mut store = Redis::new(config, vec![target.clone()]);
    store.connect().await.unwrap();
    store.reset().await.unwrap();
    store.set_mark(at(1)).await.unwrap();
    let mut first = batch(&rig, 1, 2, &[]);
    let (mut scratch, mut bytes) = (Scratch::default(), Vec::new());
    let row = super::values(A);
    let change = Change { old: None, new: Some(&row) };
    let position = Position { ordinal: 1, ..at(2) };
    let commit = Commit { committed_at: 0 };
    target.render(0, &change, position, &commit, &mut scratch, &mut bytes).unwrap();
    let mut record = (*first.records[0]).clone();
    record.ops = bytes.into();
    first.records = vec![std::sync::Arc::new(record)];
    store.apply(&first).await.unwrap();
    rig.cli(&["FLUSHALL"]).await;
    rig.cli(&["XADD", "e:5", "1-1", "kept", "1"]).await;
    store.remains().await.unwrap();
    let keys = ["e:1", "e:5"].map(|key| (0, key.to_owned()));
    let page = RefillPage { streams: keys.into(), ..RefillPage::default() };
    refill(&mut store, at(2), &page).await;
    assert_eq!(gaps(&rig, "e:1").await, [("0-0".to_owned(), id(at(2)))]);
    assert_eq!(gaps(&rig, "e:5").await, [("1-1".to_owned(), id(at(2)))]);
}

/// A key of another type stops its view alone, and what is left out is not touched.
#[tokio::test]
async fn a_target_that_cannot_be_refilled_stops_alone() {
    let rig = RedisRig::start().await;
    let mut store = ready(&rig, &rig.address()).await;
    store.apply(&batch(&rig, 1, 2, &[(None, Some(A))])).await.unwrap();
    rig.cli(&["DEL", MARK, "n:1", "top"]).await;
    store.remains().await.unwrap();
    store.begin_refill(at(2), &[0, 2].into()).await.unwrap();
    assert_eq!(rig.cli(&["KEYS", "*"]).await.lines().count(), 4, "set, hash, stream, mark");
    rig.cli(&["SET", "top", "foreign"]).await;
    let error = store.refill(&page(&rig, &[A])).await.unwrap_err();
    let StoreError::StopView(faults) = &error else { panic!("{error}") };
    assert_eq!(faults.iter().map(|fault| fault.target).collect::<Vec<_>>(), [4]);
    assert_eq!(rig.cli(&["GET", "n:1"]).await, "10", "its neighbours are written");
    store.set_mark(at(2)).await.unwrap();
}
