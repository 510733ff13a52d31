//! Orders over a real local store: where a replay stands, that it is durable first, and when it is
//! not carried out at all.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;
use crate::service::board::Board;
use crate::service::engine_loop::{Input, Outlet};
use crate::service::feed::{Feed, Frontier, Taken};
use crate::service::schema::Schema;
use crate::source::fingerprint::Fingerprint;
use crate::source::stream::{Event, Gulp};
use crate::state::{LocalStore, Progress};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot, watch};
use walview_core::catalog::{Catalog, Collation, Column, ReplicaIdentity, Table, UniqueKey};
use walview_core::engine::{Engine, Layout, RowChange, Target, TargetKind, letters};
use walview_core::outbox::Record;
use walview_core::position::Position;
use walview_core::sql;
use walview_core::target::redis;
use walview_core::target::template::Template;
use walview_core::value::{Type, Value};

/// A table of two numbers, known by `id`.
pub(in crate::service) fn table(oid: u32, name: &str, other: &str) -> Table {
    let column = |name: &str| Column {
        name: name.to_owned(),
        attnum: 0,
        collation: Collation::None,
        ty: Type::Int8,
        type_oid: 20,
        type_modifier: -1,
        not_null: true,
        generated: false,
        toastable: false,
        added: None,
    };
    Table {
        oid,
        schema: "public".to_owned(),
        name: name.to_owned(),
        columns: vec![column("id"), column(other)],
        unique_keys: vec![UniqueKey {
            name: format!("{name}_pkey"),
            columns: vec![0],
            primary: true,
        }],
        replica_identity: ReplicaIdentity::Default,
    }
}

fn catalog() -> Catalog {
    Catalog { tables: vec![table(1, "bets", "amount")], other_encoding: false }
}

/// The engine of one version of Walview: it can evaluate `share`, or not.
fn engine(share: &str) -> Engine {
    let text = format!("SELECT id, {share} AS share FROM bets");
    let view = sql::bind(&sql::parse(&text).unwrap(), "shares", &catalog(), "public").unwrap();
    let template = Template::parse("share:{id}").unwrap();
    let spec = redis::Spec { template, shape: redis::SpecShape::Hash, fields: None };
    let kind = TargetKind::Redis(redis::Target::bind(&spec, &view).unwrap());
    let layout = Layout::new(&[view], &catalog()).unwrap();
    Engine::new(layout, vec![Target { view: 0, store: 0, number: 0, kind }], 1, 1)
}

/// A state at the commit 100 to 140, of an engine that could not evaluate rows 1 and 2.
pub(in crate::service) fn parked(folder: &Path) {
    let mut store = LocalStore::open(folder).unwrap();
    let mut engine = engine("10 / amount");
    engine.begin(Lsn(100), 5, None);
    for id in [1, 2] {
        let new = vec![Value::Int(id), Value::Int(0)];
        engine.apply(&mut store, 0, RowChange::Insert { new }).unwrap();
    }
    engine.commit(&mut store).unwrap();
    assert!(engine.take_parts().is_empty());
    let progress = Progress {
        confirmed: 140,
        commit_lsn: 100,
        committed_at: 5,
        outbox_end: vec![0],
        pruned: vec![Position::end_of(1, Lsn(90)).to_string()],
        ..Progress::default()
    };
    store.commit(std::iter::empty(), &progress).unwrap();
}

/// A loop over what lies in `folder`.
pub(in crate::service) fn resumed(folder: &Path, share: &str) -> EngineLoop {
    looped(folder, engine(share), catalog())
}

/// A loop of this engine over what lies in `folder`.
pub(in crate::service) fn looped(
    folder: &Path,
    mut engine: Engine,
    catalog: Catalog,
) -> EngineLoop {
    let store = LocalStore::open(folder).unwrap();
    let progress = store.progress().unwrap();
    engine.restore(&store, Vec::new()).unwrap();
    let end = progress.outbox_end[0];
    let frontier = Frontier { lsn: progress.confirmed(), at: 5 };
    let feed = Arc::new(Feed::new((0, true), store.outbox(), (0, None), (end, 0), frontier));
    let outlets = vec![Outlet { feed, window: Duration::from_secs(10) }];
    let stores = [("redis".to_owned(), "redis".to_owned())];
    let views: Vec<String> = engine.layout().views.iter().map(|view| view.name.clone()).collect();
    let board = Arc::new(Board::new("test", "slot", &views, &stores));
    let faults = Arc::new(Mutex::new(Vec::new()));
    let schema = Schema::new((Fingerprint::default(), Vec::new()), Vec::new());
    let source = (catalog, schema);
    EngineLoop::new(engine, store, progress, source, (outlets, u64::MAX), board, faults)
}

/// An order for the letter at this place, and where its answer comes.
type Asked = (Order, oneshot::Receiver<Result<Vec<Outcome>, String>>);

fn order(of: &EngineLoop, work: Work, at: usize) -> Asked {
    let page = letters::page(&of.store, None, None).unwrap();
    let (answer, answered) = oneshot::channel();
    (Order { work, keys: vec![page[at].key.clone()], answer }, answered)
}

/// A session that brings these, and ends.
pub(in crate::service) fn run(of: &mut EngineLoop, inputs: impl IntoIterator<Item = Input>) {
    let (sender, mut received) = mpsc::channel(8);
    for input in inputs {
        sender.try_send(input).ok().unwrap();
    }
    drop(sender);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (confirmed, _) = watch::channel(Lsn(0));
    of.run(runtime.handle(), &mut received, &confirmed).unwrap();
}

/// What a store that takes durable records alone would get.
pub(in crate::service) fn durable_records(of: &EngineLoop) -> Vec<Arc<Record>> {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let feed = &of.outlets[0].feed;
    match runtime.block_on(feed.take(feed.first(), usize::MAX)).unwrap() {
        Taken::Records(records) => records,
        Taken::Nothing(_) | Taken::Rewound(_) => Vec::new(),
    }
}

fn durable(of: &EngineLoop) -> Vec<Position> {
    durable_records(of).iter().map(|record| record.to).collect()
}

#[test]
fn a_replay_stands_between_two_commits_and_is_durable_first() {
    let folder = tempfile::tempdir().unwrap();
    parked(folder.path());
    let mut of = resumed(folder.path(), "10 / nullif(amount, 0)");
    let (first, answer) = order(&of, Work::Replay, 0);
    of.orders.push_back(first);
    of.carry_out().unwrap();
    assert_eq!(answer.blocking_recv().unwrap(), Ok(vec![Outcome::Delivered]));
    let at = |ordinal| Position { epoch: 1, lsn: Lsn(101), ordinal };
    assert_eq!(durable(&of), [at(1)]);
    assert_eq!(of.store.progress().unwrap().ordered, Some((101, vec![1])));
    // Killed now, it is there, and the next replay stands behind it, at the same LSN.
    drop(of);
    let mut of = resumed(folder.path(), "10 / nullif(amount, 0)");
    assert_eq!(of.store.outbox().read(0, 0, 1).unwrap()[0].to, at(1));
    let (second, answer) = order(&of, Work::Replay, 0);
    of.orders.push_back(second);
    of.carry_out().unwrap();
    assert_eq!(answer.blocking_recv().unwrap(), Ok(vec![Outcome::Delivered]));
    assert_eq!(durable(&of).last(), Some(&at(2)));
    assert_eq!(of.progress.emitted_to(1), Position::end_of(1, Lsn(101)));
    assert!(letters::page(&of.store, None, None).unwrap().is_empty());
}

#[test]
fn a_replay_without_room_before_the_next_commit_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    parked(folder.path());
    let mut of = resumed(folder.path(), "10 / nullif(amount, 0)");
    // As after a snapshot: nothing was committed since.
    of.progress.commit_lsn = 139;
    let (replay, answer) = order(&of, Work::Replay, 0);
    of.orders.push_back(replay);
    of.carry_out().unwrap();
    let refused = answer.blocking_recv().unwrap().unwrap_err();
    assert!(refused.contains("try again after the next commit"), "{refused}");
    assert_eq!(durable(&of), []);
    assert_eq!(letters::page(&of.store, None, None).unwrap().len(), 2);
}

#[test]
fn what_still_fails_stays_and_a_dropped_letter_is_durable() {
    let folder = tempfile::tempdir().unwrap();
    parked(folder.path());
    let mut of = resumed(folder.path(), "10 / amount");
    let (replay, replayed) = order(&of, Work::Replay, 0);
    let (drop_first, dropped) = order(&of, Work::Drop, 0);
    // Who asked for this has gone.
    let (given_up, _) = order(&of, Work::Drop, 1);
    of.orders.extend([replay, drop_first, given_up]);
    of.carry_out().unwrap();
    let still = "division by zero (SQLSTATE 22012)".to_owned();
    assert_eq!(replayed.blocking_recv().unwrap(), Ok(vec![Outcome::Still(still)]));
    assert_eq!(dropped.blocking_recv().unwrap(), Ok(vec![Outcome::Dropped]));
    assert_eq!((durable(&of), of.progress.ordered.clone()), (vec![], None));
    drop(of);
    let of = resumed(folder.path(), "10 / amount");
    let dropped: Vec<bool> =
        letters::page(&of.store, None, None).unwrap().iter().map(|l| l.dropped).collect();
    assert_eq!((dropped, of.engine.dead_letters()), (vec![true, false], &[1][..]));
}

/// An order that comes inside a transaction waits for its end; one whose session ends before is
/// answered by that.
#[test]
fn an_order_waits_for_the_end_of_the_transaction() {
    let folder = tempfile::tempdir().unwrap();
    parked(folder.path());
    let mut of = resumed(folder.path(), "10 / nullif(amount, 0)");
    let (waits, answer) = order(&of, Work::Replay, 0);
    let (lost, unanswered) = order(&of, Work::Replay, 1);
    let begin = |lsn| Event::Begin { xid: 1, commit_lsn: Lsn(lsn), committed_at: 9 };
    let gulp = |event| Input::Gulp(Gulp { events: vec![event], bytes: 1 });
    let commit = Event::Commit { commit_lsn: Lsn(150), end_lsn: Lsn(190), committed_at: 9 };
    let lost = Input::Order(lost);
    run(&mut of, [gulp(begin(150)), Input::Order(waits), gulp(commit), gulp(begin(200)), lost]);
    assert_eq!(answer.blocking_recv().unwrap(), Ok(vec![Outcome::Delivered]));
    assert_eq!(durable(&of), [Position { epoch: 1, lsn: Lsn(151), ordinal: 1 }]);
    assert!(unanswered.blocking_recv().is_err());
    assert_eq!(letters::page(&of.store, None, None).unwrap().len(), 1);
}

/// A Redis that was fed from memory may be ahead of the state that a crash left: it takes nothing that
/// stands before its mark, so nothing is emitted there but what the log brings again.
#[test]
fn an_order_waits_for_what_stores_may_have_already() {
    let folder = tempfile::tempdir().unwrap();
    parked(folder.path());
    let mut of = resumed(folder.path(), "10 / nullif(amount, 0)");
    of.replay_to = Lsn(290);
    let (waits, answer) = order(&of, Work::Replay, 0);
    let transaction = |lsn| {
        let (commit_lsn, committed_at) = (Lsn(lsn), 9);
        let begin = Event::Begin { xid: 1, commit_lsn, committed_at };
        let commit = Event::Commit { commit_lsn, end_lsn: Lsn(lsn + 40), committed_at };
        Input::Gulp(Gulp { events: vec![begin, commit], bytes: 1 })
    };
    run(&mut of, [Input::Order(waits), transaction(150), transaction(250)]);
    assert_eq!(answer.blocking_recv().unwrap(), Ok(vec![Outcome::Delivered]));
    assert_eq!(durable(&of), [Position { epoch: 1, lsn: Lsn(251), ordinal: 1 }]);
}
