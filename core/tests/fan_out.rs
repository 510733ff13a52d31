//! What is claimed while cursors are open, and what becomes of them where a view stops; that the
//! results are right is the simulation's.

#![expect(clippy::unwrap_used, reason = "a surprise fails the test")]

use walview_core::catalog::{Catalog, Collation, Column, ReplicaIdentity, Table, UniqueKey};
use walview_core::engine::{
    Engine, Held, Layout, MemoryState, Pace, ReadState as _, RowChange, Space, Target, TargetKind,
};
use walview_core::position::Lsn;
use walview_core::sql;
use walview_core::target::redis::{self, SpecShape};
use walview_core::target::template::Template;
use walview_core::value::{Row, Type, Value};

const BETS: usize = 0;
const EVENTS: usize = 1;
const USERS: usize = 2;

fn table(oid: u32, name: &str, columns: &[&str]) -> Table {
    let column = |name: &&str| Column {
        name: (*name).to_owned(),
        attnum: 0,
        ty: Type::Int8,
        type_oid: 20,
        type_modifier: -1,
        not_null: true,
        collation: Collation::None,
        generated: false,
        toastable: false,
        added: None,
    };
    let key = UniqueKey { name: format!("{name}_pkey"), columns: vec![0], primary: true };
    Table {
        oid,
        schema: "public".to_owned(),
        name: name.to_owned(),
        columns: columns.iter().map(column).collect(),
        unique_keys: vec![key],
        replica_identity: ReplicaIdentity::Default,
    }
}

fn ints(values: &[i64]) -> Row {
    values.iter().copied().map(Value::Int).collect()
}

/// Views `by_event` and `by_user` of ten bets that join one event and one user.
fn bench() -> (Engine, MemoryState) {
    let tables = vec![
        table(1, "bets", &["id", "event", "user_id"]),
        table(2, "events", &["id", "n"]),
        table(3, "users", &["id", "n"]),
    ];
    let catalog = Catalog { tables, other_encoding: false };
    let bind = |(name, text): (&str, &str)| {
        sql::bind(&sql::parse(text).unwrap(), name, &catalog, "public").unwrap()
    };
    let views = [
        ("by_event", "SELECT b.id, e.n FROM bets b JOIN events e ON e.id = b.event"),
        ("by_user", "SELECT b.id, u.n FROM bets b JOIN users u ON u.id = b.user_id"),
    ]
    .map(bind);
    let targets = views.iter().enumerate().map(|(view, bound)| {
        let template = Template::parse(&format!("{}:{{id}}", bound.name)).unwrap();
        let spec = redis::Spec { template, shape: SpecShape::Hash, fields: None };
        let kind = TargetKind::Redis(redis::Target::bind(&spec, bound).unwrap());
        Target { view, store: 0, number: u16::try_from(view).unwrap(), kind }
    });
    let layout = Layout::new(&views, &catalog).unwrap();
    let mut engine = Engine::new(layout, targets.collect(), 1, 1);
    engine.set_pace(Pace { at_once_max: 3, step: 2 });
    let mut state = MemoryState::default();
    engine.begin(Lsn(10), 100, None);
    let mut insert = |table, row: &[i64]| {
        engine.apply(&mut state, table, RowChange::Insert { new: ints(row) }).unwrap();
    };
    insert(EVENTS, &[1, 0]);
    insert(USERS, &[1, 0]);
    for id in 1..=10 {
        insert(BETS, &[id, 1, 1]);
    }
    engine.commit(&mut state).unwrap();
    (engine, state)
}

fn update(engine: &mut Engine, state: &mut MemoryState, (lsn, at): (u64, i64), table: usize) {
    engine.begin(Lsn(lsn), at, None);
    let new = ints(&[1, at]).into_iter().map(Some).collect();
    engine.apply(state, table, RowChange::Update { old: None, new }).unwrap();
    engine.commit(state).unwrap();
}

fn cursors(state: &MemoryState) -> usize {
    state.scan(Space::FanOuts, &[], None, 10).unwrap().len()
}

/// The oldest cursor goes on first, and until it is through nothing since its commit is claimed.
#[test]
fn what_is_complete_stays_before_the_oldest_cursor() {
    let (mut engine, mut state) = bench();
    assert_eq!(engine.held(), None);
    update(&mut engine, &mut state, (20, 200), USERS);
    let users = Held { lsn: Lsn(20), at: 199 };
    assert_eq!(engine.held(), Some(users));
    update(&mut engine, &mut state, (30, 300), EVENTS);
    let events = Held { lsn: Lsn(30), at: 299 };
    assert_eq!((engine.held(), cursors(&state)), (Some(users), 2));
    while engine.held() == Some(users) {
        assert_eq!(engine.fan_outs()[0], Some(0));
        engine.begin(Lsn(31), 301, None);
        engine.advance(&mut state, 2).unwrap();
        engine.end_order(&mut state).unwrap();
    }
    assert_eq!((engine.held(), cursors(&state)), (Some(events), 1));
    engine.begin(Lsn(31), 301, None);
    engine.advance(&mut state, 100).unwrap();
    engine.end_order(&mut state).unwrap();
    assert_eq!((engine.held(), cursors(&state)), (None, 0));
}

/// It would be read, and held back by, at every start.
#[test]
fn the_cursor_of_a_view_that_stops_leaves_the_state() {
    let (mut engine, mut state) = bench();
    update(&mut engine, &mut state, (20, 200), USERS);
    assert_eq!(cursors(&state), 1);
    engine.stop_view(1, "why".to_owned());
    assert_eq!((engine.held(), engine.fan_outs()), (None, vec![None, None]));
    update(&mut engine, &mut state, (30, 300), EVENTS);
    engine.begin(Lsn(31), 301, None);
    engine.advance(&mut state, 100).unwrap();
    engine.end_order(&mut state).unwrap();
    assert_eq!(cursors(&state), 0);
}
