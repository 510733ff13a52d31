//! Transactions that come in one gulp, through the whole loop.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use crate::service::engine_loop::{EngineLoop, Input};
use crate::service::feed::{Feed, Frontier};
use crate::service::orders::tests::{durable_records, looped, run, table};
use crate::service::schema::Look;
use crate::source::fingerprint::Fingerprint;
use crate::source::stream::{Event, Gulp};
use crate::state::{LocalStore, Progress};
use bytes::{BufMut as _, Bytes, BytesMut};
use std::path::Path;
use std::sync::Arc;
use walview_core::catalog::Catalog;
use walview_core::engine::{Engine, Layout, Target, TargetKind};
use walview_core::position::{Lsn, Position};
use walview_core::sql;
use walview_core::target::redis::{Action, OpRef, Spec, SpecShape};
use walview_core::target::template::Template;
use walview_core::target::{Events, redis};

const USERS: u32 = 1;
const BETS: u32 = 2;

/// `users(id, team)` and `bets(id, user_id)`.
fn catalog() -> Catalog {
    Catalog {
        tables: vec![table(USERS, "users", "team"), table(BETS, "bets", "user_id")],
        other_encoding: false,
    }
}

fn engine(views: &[(&str, &str, SpecShape)]) -> Engine {
    let mut targets = Vec::new();
    let mut bound = Vec::new();
    for (index, (text, template, shape)) in views.iter().enumerate() {
        let view = sql::bind(&sql::parse(text).unwrap(), "v", &catalog(), "public").unwrap();
        let template = Template::parse(template).unwrap();
        let spec = Spec { template, shape: shape.clone(), fields: None };
        let kind = TargetKind::Redis(redis::Target::bind(&spec, &view).unwrap());
        let number = u16::try_from(index).unwrap();
        targets.push(Target { view: index, store: 0, number, kind });
        bound.push(view);
    }
    Engine::new(Layout::new(&bound, &catalog()).unwrap(), targets, 1, 1)
}

const BY_TEAM: &str =
    "SELECT u.team, count(*) AS bets FROM bets b JOIN users u ON u.id = b.user_id GROUP BY u.team";

/// A loop with these views whose source has no rows yet.
fn begun(folder: &Path, views: &[(&str, &str, SpecShape)]) -> EngineLoop {
    let progress = Progress {
        outbox_end: vec![0],
        pruned: vec![Position::default().to_string()],
        ..Progress::default()
    };
    LocalStore::open(folder).unwrap().commit(std::iter::empty(), &progress).unwrap();
    looped(folder, engine(views), catalog())
}

/// A count by team, and a feed of bets.
fn counting(folder: &Path) -> EngineLoop {
    let feed = SpecShape::Stream { events: Events::default(), maxlen: None };
    let views =
        [(BY_TEAM, "team:{team}", SpecShape::Hash), ("SELECT id, user_id FROM bets", "feed", feed)];
    begun(folder, &views)
}

fn relation(oid: u32) -> Bytes {
    let catalog = catalog();
    let table = catalog.by_oid(oid).unwrap();
    let mut out = BytesMut::new();
    out.put_u8(b'R');
    out.put_u32(oid);
    out.put_slice(format!("public\0{}\0d\0\x02", table.name).as_bytes());
    for (at, column) in table.columns.iter().enumerate() {
        out.put_u8(u8::from(at == 0));
        out.put_slice(format!("{}\0", column.name).as_bytes());
        out.put_u32(20);
        out.put_i32(-1);
    }
    out.freeze()
}

fn row(kind: u8, oid: u32, values: [i64; 2]) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(kind);
    out.put_u32(oid);
    out.put_slice(b"N\0\x02");
    for value in values {
        out.put_slice(b"b\0\0\0\x08");
        out.put_i64(value);
    }
    out.freeze()
}

fn bet(id: i64, user: i64) -> Bytes {
    row(b'I', BETS, [id, user])
}

fn begin(lsn: u64, messages: &[Bytes]) -> Vec<Event> {
    let begin = Event::Begin { xid: 1, commit_lsn: Lsn(lsn), committed_at: 9 };
    std::iter::once(begin).chain(messages.iter().cloned().map(Event::Data)).collect()
}

fn commit(lsn: u64) -> Event {
    Event::Commit { commit_lsn: Lsn(lsn), end_lsn: Lsn(lsn + 40), committed_at: 9 }
}

fn whole(lsn: u64, messages: &[Bytes]) -> Vec<Event> {
    let mut events = begin(lsn, messages);
    events.push(commit(lsn));
    events
}

fn gulp(events: impl IntoIterator<Item = Vec<Event>>) -> Input {
    Input::Gulp(Gulp { events: events.into_iter().flatten().collect(), bytes: 1 })
}

/// The first transaction of a session: what relations there are, and two users of team 1.
fn first() -> Input {
    let (alice, bob) = (row(b'I', USERS, [1, 1]), row(b'I', USERS, [2, 1]));
    gulp([whole(100, &[relation(USERS), relation(BETS), alice, bob])])
}

/// Each record's transaction, and what it tells: a stream's entries by their ids.
fn told(of: &EngineLoop) -> Vec<(u64, Vec<String>)> {
    let told = |ops: &[u8]| {
        let actions = OpRef::decode_all(ops).map(|op| op.unwrap().whole().unwrap().action);
        let text = |action| {
            if let Action::StreamAdd { id, .. } = action {
                return format!("{}-{}", id.0, id.1);
            }
            if let Action::HashReplace { key, fields } = action {
                return format!("{key} {}", fields[1].1);
            }
            let Action::Del { key } = action else { panic!("{action:?}") };
            format!("{key} goes")
        };
        actions.map(text).collect()
    };
    let records = durable_records(of);
    assert!(records.iter().all(|record| record.ends && record.complete == record.to.lsn));
    let ends = |record: &Position| *record == Position::end_of(1, record.lsn);
    assert!(records.iter().all(|record| ends(&record.to)));
    records.iter().map(|record| (record.to.lsn.0, told(&record.ops))).collect()
}

fn id(lsn: u64, ordinal: u64) -> String {
    let (high, low) = Position { epoch: 1, lsn: Lsn(lsn), ordinal }.stream_id().unwrap();
    format!("{high}-{low}")
}

/// Each bet's event is where it always is; the count is told once.
#[test]
fn what_is_whole_in_one_gulp_is_told_as_one() {
    let folder = tempfile::tempdir().unwrap();
    let mut of = counting(folder.path());
    let three =
        [whole(200, &[bet(1, 1)]), whole(300, &[bet(2, 2), bet(3, 1)]), whole(400, &[bet(4, 1)])];
    let late = [vec![Event::Data(bet(6, 1)), commit(500)], whole(600, &[bet(7, 1)])];
    let early = three.into_iter().chain([begin(500, &[bet(5, 1)])]);
    run(&mut of, [first(), gulp(early), gulp(late)]);
    let ids = |ids: &[(u64, u64)], team: &str| {
        let ids = ids.iter().map(|(lsn, ordinal)| id(*lsn, *ordinal));
        ids.chain([team.to_owned()]).collect::<Vec<_>>()
    };
    assert_eq!(
        told(&of),
        [
            (400, ids(&[(200, 1), (300, 1), (300, 2), (400, 1)], "team:1 4")),
            // Begun in the gulp before, and merged with the one behind it all the same.
            (600, ids(&[(500, 1), (500, 2), (600, 1)], "team:1 7")),
        ]
    );
    assert_eq!(of.progress.confirmed(), Lsn(640));
    assert_eq!(of.store.progress().unwrap().confirmed(), Lsn(640));
}

/// One by one, as where nothing waits behind: the same events at the same places.
#[test]
fn what_comes_alone_is_told_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut of = counting(folder.path());
    let alone = |lsn, at| gulp([whole(lsn, &[bet(at, 1)])]);
    run(&mut of, [first(), alone(200, 1), alone(300, 2)]);
    assert_eq!(
        told(&of),
        [
            (200, vec![id(200, 1), "team:1 1".to_owned()]),
            (300, vec![id(300, 1), "team:1 2".to_owned()]),
        ]
    );
}

/// A row that views join may be joined by many facts: it comes by itself, and so does what relations announce.
#[test]
fn what_may_emit_much_is_not_merged_with_what_was_before() {
    let folder = tempfile::tempdir().unwrap();
    let mut of = counting(folder.path());
    let moves = row(b'U', USERS, [1, 2]);
    let announced = [relation(BETS), bet(4, 1)];
    let events = [
        whole(200, &[bet(1, 1)]),
        whole(300, &[moves]),
        whole(400, &[bet(2, 1)]),
        whole(500, &announced),
    ];
    run(&mut of, [first(), gulp(events)]);
    assert_eq!(
        told(&of),
        [
            (200, vec![id(200, 1), "team:1 1".to_owned()]),
            // The bet of 400 joins the user whom 300 moved.
            (400, vec![id(400, 1), "team:1 goes".to_owned(), "team:2 2".to_owned()]),
            (500, vec![id(500, 1), "team:2 3".to_owned()]),
        ]
    );
}

/// What the catalogs say is judged as soon as the stream has come to it, and not before.
#[test]
fn a_look_is_judged_where_it_belongs() {
    let folder = tempfile::tempdir().unwrap();
    let mut of = counting(folder.path());
    let look = |lsn| Input::Look(Box::new(Look { print: Fingerprint::default(), lsn: Lsn(lsn) }));
    let ids = [200, 300, 400, 500];
    let events = ids.map(|lsn| whole(lsn, &[bet(i64::try_from(lsn).unwrap(), 1)]));
    run(&mut of, [first(), look(340), look(9000), gulp(events)]);
    assert_eq!(told(&of).iter().map(|(lsn, _)| *lsn).collect::<Vec<_>>(), [300, 500]);
    assert_eq!(of.schema.looks.len(), 0, "a session's end forgets them");
}

/// A store that is fed from memory may have what the next session brings again, however that was merged.
#[test]
fn nothing_is_merged_across_the_place_where_a_store_may_be() {
    let gulps = || {
        let events = [200, 300, 400, 500].map(|lsn| whole(lsn, &[bet(lsn.cast_signed(), 1)]));
        [first(), gulp(events)]
    };
    let merged = |reached: Option<u64>, replay_to| {
        let folder = tempfile::tempdir().unwrap();
        let mut of = counting(folder.path());
        let outbox = of.store.outbox();
        let feed = Feed::new((0, false), outbox, (0, None), (0, 0), Frontier::default());
        if let Some(lsn) = reached {
            feed.found(Position::end_of(1, Lsn(lsn)));
        }
        of.outlets[0].feed = Arc::new(feed);
        of.replay_to = Lsn(replay_to);
        run(&mut of, gulps());
        told(&of).iter().map(|(lsn, _)| *lsn).collect::<Vec<_>>()
    };
    assert_eq!(merged(None, 0), [500]);
    // Nothing is known of it: it may have all that the log held when the session began.
    assert_eq!(merged(None, 350), [200, 300, 500]);
    assert_eq!(merged(None, 9000), [200, 300, 400, 500]);
    assert_eq!(merged(Some(300), 9000), [200, 300, 500]);
    assert_eq!(merged(Some(500), 9000), [200, 300, 400, 500]);
}

/// What is sent is known before it is: numbers that are given anew in between take the batch back.
#[test]
fn what_is_sent_is_known_before_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let of = counting(folder.path());
    let feed = &of.outlets[0].feed;
    let place = feed.first();
    assert_eq!(feed.reached(), None);
    assert!(feed.reaches(place, Position::end_of(1, Lsn(200))));
    feed.rewind(0);
    assert!(!feed.reaches(place, Position::end_of(1, Lsn(300))));
    assert_eq!(feed.reached(), Some(Position::end_of(1, Lsn(200))));
}

/// A session that ends between two: what was not told is not durable, and comes again.
#[test]
fn what_is_merged_with_something_unfinished_comes_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut of = counting(folder.path());
    let unfinished = [whole(200, &[bet(1, 1)]), whole(300, &[bet(2, 1)]), begin(400, &[bet(3, 1)])];
    run(&mut of, [first(), gulp(unfinished)]);
    // What was whole had been told; the open transaction is forgotten.
    assert_eq!(told(&of), []);
    assert_eq!(of.progress.confirmed(), Lsn(0));
    let again = [whole(200, &[bet(1, 1)]), whole(300, &[bet(2, 1)]), whole(400, &[bet(3, 1)])];
    let again = again.map(|events| gulp([events]));
    run(&mut of, std::iter::once(first()).chain(again));
    let told = told(&of);
    assert_eq!(told.last().unwrap().1, [id(400, 1), "team:1 3".to_owned()]);
}

/// A view of groups that is told as events has one for each transaction.
#[test]
fn events_of_groups_are_not_merged() {
    let folder = tempfile::tempdir().unwrap();
    let stream = SpecShape::Stream { events: Events::default(), maxlen: None };
    let mut of = begun(folder.path(), &[(BY_TEAM, "teams", stream)]);
    let two = [whole(200, &[bet(1, 1)]), whole(300, &[bet(2, 1)])];
    run(&mut of, [first(), gulp(two)]);
    assert_eq!(told(&of), [(200, vec![id(200, 1)]), (300, vec![id(300, 1)])]);
}
