//! One suite for every store, on real servers: what the contract in [`super`] promises.
//!
//! A server that cannot start fails the test. `WALVIEW_CLICKHOUSE_BIN` names `walview-clickhouse`
//! where it does not stand beside the tests.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a server that fails where it must not fails the test, and its proxy ends with it"
)]

mod clickhouse;
mod own_tables;
mod redis;
mod refill;
mod server;

use super::{Batch, Identity, Store, StoreError};
use crate::demo::servers::proxy::{Mode, Proxy};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;
use walview_core::outbox::Record;
use walview_core::plan::{OutputColumn, View, ViewKind};
use walview_core::position::{Lsn, Position};
use walview_core::target::Change;
use walview_core::value::{Type, Value};

/// What a store looks like to a reader.
type Content = BTreeMap<String, String>;

/// One kind of store with its server.
trait Rig: Sized {
    type Store: Store + 'static;

    async fn start() -> Self;
    fn address(&self) -> String;
    /// A writer that reaches the server at `address`.
    fn store(&self, address: &str) -> Self::Store;
    /// kill -9 and start again on the same data.
    async fn restart(&mut self);
    /// Operations for changes of (id, name, n), the first at ordinal 1.
    fn ops(&self, changes: &[(Option<Row>, Option<Row>)], at: Position) -> Bytes;
    /// The same without events, which snapshots do not have.
    fn snapshot(&self, changes: &[(Option<Row>, Option<Row>)], at: Position) -> Bytes {
        self.ops(changes, at)
    }
    /// What a store holds, beside events.
    async fn content(&self) -> Content;
    /// The same for these rows, as it should be.
    fn expected(&self, rows: &[Row]) -> Content;
    /// How many events there are; `None` where the store has none.
    async fn events(&self) -> Option<usize>;
    /// Makes the target with number 0 refuse writes of its rows.
    async fn break_first_target(&self);
    /// Something of the user's near to what walview owns.
    async fn put_foreign(&self);
    async fn foreign_is_there(&self) -> bool;
}

type Row = (i64, Option<&'static str>, i64);

fn values(row: Row) -> Vec<Value> {
    let (id, name, n) = row;
    vec![Value::Int(id), name.map_or(Value::Null, |name| Value::Text(name.into())), Value::Int(n)]
}

fn view() -> View {
    let column = |name: &str, ty, nullable| OutputColumn { name: name.to_owned(), ty, nullable };
    View {
        name: "v".to_owned(),
        inputs: Vec::new(),
        filter: None,
        kind: ViewKind::Rows { output: Vec::new() },
        columns: vec![
            column("id", Type::Int8, false),
            column("name", Type::Text, true),
            column("n", Type::Int8, false),
        ],
        key: vec![0],
        key_hint: String::new(),
    }
}

fn identity() -> Identity {
    Identity { pipeline: "test".to_owned(), system: 7, slot: "walview_test".to_owned() }
}

/// After everything of the commit at `lsn`.
fn at(lsn: u64) -> Position {
    Position::end_of(1, Lsn(lsn))
}

/// Runs `render` for each change with its position and its rows.
fn each_change(
    changes: &[(Option<Row>, Option<Row>)],
    at: Position,
    mut render: impl FnMut(&Change<'_>, Position),
) {
    for (index, (old, new)) in changes.iter().enumerate() {
        let (old, new) = (old.map(values), new.map(values));
        let change = Change { old: old.as_deref(), new: new.as_deref() };
        let ordinal = u64::try_from(index).unwrap() + 1;
        render(&change, Position { ordinal, ..at });
    }
}

/// One source transaction as a batch that follows the commit at `from`.
fn batch<R: Rig>(rig: &R, from: u64, to: u64, changes: &[(Option<Row>, Option<Row>)]) -> Batch {
    let record = Record {
        seq: to,
        to: at(to),
        complete: Lsn(to),
        committed_at: 848_530_920_123_456,
        ends: true,
        ops: rig.ops(changes, at(to)),
    };
    Batch {
        from: at(from),
        to: at(to),
        complete: Lsn(to),
        committed_at: record.committed_at,
        records: vec![Arc::new(record)],
    }
}

/// A store that was reset and stands at LSN 1.
async fn ready<R: Rig>(rig: &R, address: &str) -> R::Store {
    let mut store = rig.store(address);
    store.connect().await.unwrap();
    store.reset().await.unwrap();
    assert!(store.mark().await.unwrap().is_none());
    store.set_mark(at(1)).await.unwrap();
    assert_eq!(store.mark().await.unwrap(), Some(identity().mark(at(1))));
    // What a writer asks once is asked: what a proxy holds or drops next is the batch.
    store.fresh(0, Lsn(1)).await.unwrap();
    store
}

const A: Row = (1, Some("a"), 10);
const B: Row = (2, None, 20);
const A2: Row = (1, Some("a"), 11);

async fn in_order_and_twice<R: Rig>() {
    let rig = R::start().await;
    let mut store = ready(&rig, &rig.address()).await;
    let first = batch(&rig, 1, 2, &[(None, Some(A)), (None, Some(B)), (Some(A), Some(A2))]);
    store.apply(&first).await.unwrap();
    assert_eq!(rig.content().await, rig.expected(&[A2, B]));
    let events = rig.events().await;
    store.apply(&first).await.unwrap();
    assert_eq!(rig.events().await, events);

    // Gone and back, and gone, within one transaction.
    let second = batch(
        &rig,
        2,
        3,
        &[(Some(A2), None), (None, Some(A)), (Some(B), None), (None, Some(B)), (Some(B), None)],
    );
    store.apply(&second).await.unwrap();
    assert_eq!(rig.content().await, rig.expected(&[A]));

    // A batch that does not continue the mark is refused, by this writer and by a new one.
    assert!(matches!(store.apply(&first).await, Err(StoreError::MarkMoved { found: Some(_) })));
    let mut other = rig.store(&rig.address());
    other.connect().await.unwrap();
    assert!(matches!(other.apply(&first).await, Err(StoreError::MarkMoved { found: Some(_) })));
    assert_eq!(other.mark().await.unwrap(), Some(identity().mark(at(3))));
    other.fresh(0, Lsn(3)).await.unwrap();
    assert_eq!(rig.content().await, rig.expected(&[A]));
}

async fn partial_write_then_retry<R: Rig>() {
    let rig = R::start().await;
    let proxy = Proxy::start(&rig.address()).await.unwrap();
    let mut store = ready(&rig, &proxy.address()).await;
    let changes: Vec<(Option<Row>, Option<Row>)> =
        (0..5000).map(|id| (None, Some((id, Some("partial"), id)))).collect();
    let rows: Vec<Row> = changes.iter().filter_map(|change| change.1).collect();
    let big = batch(&rig, 1, 2, &changes);
    for cut_after in [0, 1, 700, 20_000, 60_000] {
        proxy.set(Mode::CutAfter(cut_after));
        assert!(matches!(store.apply(&big).await, Err(StoreError::Retry { .. })), "{cut_after}");
        let held = rig.content().await;
        assert!(held.is_empty() || held == rig.expected(&rows), "half a batch is visible");
    }
    proxy.set(Mode::Pass);
    store.apply(&big).await.unwrap();
    assert_eq!(rig.content().await, rig.expected(&rows));
    if let Some(events) = rig.events().await {
        assert_eq!(events, rows.len());
    }
}

async fn lost_reply<R: Rig>() {
    let rig = R::start().await;
    let proxy = Proxy::start(&rig.address()).await.unwrap();
    let mut store = ready(&rig, &proxy.address()).await;
    let mut rows = Vec::new();
    for step in 0..20_u64 {
        let row = (i64::try_from(step).unwrap(), Some("lost"), 1);
        rows.push(row);
        let batch = batch(&rig, step + 1, step + 2, &[(None, Some(row))]);
        proxy.set(Mode::DropReply);
        assert!(matches!(store.apply(&batch).await, Err(StoreError::Retry { .. })));
        proxy.set(Mode::Pass);
        store.apply(&batch).await.unwrap();
    }
    assert_eq!(rig.content().await, rig.expected(&rows));
    if let Some(events) = rig.events().await {
        assert_eq!(events, rows.len());
    }
}

async fn restart_of_the_server<R: Rig>() {
    let mut rig = R::start().await;
    let mut store = ready(&rig, &rig.address()).await;
    let first = batch(&rig, 1, 2, &[(None, Some(A))]);
    store.apply(&first).await.unwrap();
    rig.restart().await;
    let second = batch(&rig, 2, 3, &[(None, Some(B)), (Some(A), Some(A2))]);
    let mut tries = 0;
    while let Err(error) = store.apply(&second).await {
        assert!(matches!(error, StoreError::Retry { .. }), "{error}");
        tries += 1;
        assert!(tries < 100, "{error}");
    }
    assert_eq!(rig.content().await, rig.expected(&[A2, B]));
}

/// The old writer's batch stands in the network while a new writer goes on.
async fn stale_writer<R: Rig>() {
    let rig = R::start().await;
    let proxy = Proxy::start(&rig.address()).await.unwrap();
    let mut old = ready(&rig, &proxy.address()).await;
    let first = batch(&rig, 1, 2, &[(None, Some(A)), (None, Some(B))]);
    let second = batch(&rig, 2, 3, &[(Some(A), Some(A2)), (Some(B), None)]);
    proxy.set(Mode::Hold);
    let late = tokio::spawn({
        let first = first.clone();
        async move { old.apply(&first).await }
    });
    proxy.held().await;
    let mut new = rig.store(&rig.address());
    new.connect().await.unwrap();
    new.apply(&first).await.unwrap();
    new.apply(&second).await.unwrap();
    let events = rig.events().await;
    proxy.set(Mode::Pass);
    // Redis refuses it; ClickHouse takes it, and its versions lose.
    let late = late.await.unwrap();
    assert!(matches!(late, Ok(()) | Err(StoreError::MarkMoved { found: Some(_) })), "{late:?}");
    assert_eq!(rig.content().await, rig.expected(&[A2]));
    assert_eq!(rig.events().await, events);
}

async fn a_broken_target_stops_alone<R: Rig>() {
    let rig = R::start().await;
    let mut store = ready(&rig, &rig.address()).await;
    store.apply(&batch(&rig, 1, 2, &[(None, Some(B))])).await.unwrap();
    rig.break_first_target().await;
    let error = store.apply(&batch(&rig, 2, 3, &[(None, Some(A))])).await.unwrap_err();
    let StoreError::StopView(faults) = &error else { panic!("{error}") };
    assert_eq!(faults.iter().map(|fault| fault.target).collect::<Vec<_>>(), [0], "{error}");
    assert_eq!(store.mark().await.unwrap(), Some(identity().mark(at(3))), "the others went on");
    let again = store.apply(&batch(&rig, 2, 3, &[(None, Some(A))])).await.unwrap_err();
    assert!(matches!(again, StoreError::StopView(_)), "{again}");
    store.stop_targets([0].into());
    store.apply(&batch(&rig, 3, 4, &[(Some(A), Some(A2))])).await.unwrap();
}

async fn reset_and_load<R: Rig>() {
    let rig = R::start().await;
    rig.put_foreign().await;
    let mut store = ready(&rig, &rig.address()).await;
    store.apply(&batch(&rig, 1, 2, &[(None, Some(A))])).await.unwrap();
    store.reset().await.unwrap();
    assert!(rig.content().await.is_empty());
    assert!(rig.foreign_is_there().await);
    let chunk = [rig.snapshot(&[(None, Some(B))], at(2))];
    // A crash in the middle of loading leads back to a reset.
    store.load(&chunk).await.unwrap();
    let mut store = rig.store(&rig.address());
    store.connect().await.unwrap();
    assert!(store.mark().await.unwrap().is_none());
    assert!(matches!(
        store.apply(&batch(&rig, 1, 2, &[])).await,
        Err(StoreError::MarkMoved { found: None })
    ));
    store.reset().await.unwrap();
    store.load(&chunk).await.unwrap();
    store.load(&chunk).await.unwrap();
    store.set_mark(at(5)).await.unwrap();
    store.set_mark(at(5)).await.unwrap();
    assert_eq!(rig.content().await, rig.expected(&[B]));
    assert!(rig.foreign_is_there().await);
    assert!(matches!(store.load(&chunk).await, Err(StoreError::MarkMoved { .. })));
}

/// Names the suite's tests for one rig.
macro_rules! suite {
    ($name:ident, $rig:ty) => {
        mod $name {
            macro_rules! run {
                ($test:ident) => {
                    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                    async fn $test() {
                        super::$test::<$rig>().await;
                    }
                };
            }
            run!(in_order_and_twice);
            run!(partial_write_then_retry);
            run!(lost_reply);
            run!(restart_of_the_server);
            run!(stale_writer);
            run!(a_broken_target_stops_alone);
            run!(reset_and_load);
        }
    };
}

suite!(on_redis, crate::stores::conformance::redis::RedisRig);
suite!(on_clickhouse, crate::stores::conformance::clickhouse::ClickHouseRig);
