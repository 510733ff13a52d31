//! What is claimed while cursors are open, and what becomes of them where a view stops; that the
//! results are right is the simulation's.

#![expect(clippy::unwrap_used, reason = "a surprise fails the test")]

mod made;

use made::column;
use walview_core::catalog::{Added, Catalog, Column, ReplicaIdentity, Table, UniqueKey};
use walview_core::engine::{
    Engine, Held, Layout, MemoryState, Pace, ReadState as _, RowChange, Space, Target, TargetKind,
};
use walview_core::position::Lsn;
use walview_core::sql;
use walview_core::target::clickhouse;
use walview_core::target::redis::{self, Action, OpRef, SpecShape};
use walview_core::target::template::Template;
use walview_core::value::{Row, Type, Value};

const BY_EVENT: &str = "SELECT b.id AS bet, e.* FROM bets b JOIN events e ON e.id = b.event";
const BETS: usize = 0;
const EVENTS: usize = 1;
const USERS: usize = 2;

fn table(oid: u32, name: &str, columns: &[&str]) -> Table {
    let column = |name: &&str| Column { type_oid: 20, ..column(name, Type::Int8, true) };
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

/// Views `by_event` and `by_user`; of `catalog`.
fn engine(catalog: &Catalog) -> Engine {
    let bind = |(name, text): (&str, &str)| {
        sql::bind(&sql::parse(text).unwrap(), name, catalog, "public").unwrap()
    };
    let views = [
        ("by_event", BY_EVENT),
        ("by_user", "SELECT b.id AS bet, u.* FROM bets b JOIN users u ON u.id = b.user_id"),
    ]
    .map(bind);
    let targets = views.iter().enumerate().map(|(view, bound)| {
        let template = Template::parse(&format!("{}:{{bet}}", bound.name)).unwrap();
        let spec = redis::Spec { template, shape: SpecShape::Hash, fields: None };
        let kind = TargetKind::Redis(redis::Target::bind(&spec, bound).unwrap());
        Target { view, store: 0, number: u16::try_from(view).unwrap(), kind }
    });
    let layout = Layout::new(&views, catalog).unwrap();
    let mut engine = Engine::new(layout, targets.collect(), 1, 1);
    engine.set_pace(Pace { at_once_max: 3, deferred_max: 3, step: 2 });
    engine
}

/// As [`engine`], but `ClickHouse` shows `by_event`: also, or alone. At the service's pace.
fn columnar(catalog: &Catalog, also: bool) -> Engine {
    let engine = engine(catalog);
    let mut targets = if also { engine.targets().to_vec() } else { Vec::new() };
    let bound = sql::bind(&sql::parse(BY_EVENT).unwrap(), "by_event", catalog, "public").unwrap();
    let spec = clickhouse::Spec {
        table: "by_event".to_owned(),
        order_by: vec!["bet".to_owned()],
        partition_by: None,
        types: Vec::new(),
        fields: None,
        unfit_text: false,
    };
    let kind = TargetKind::ClickHouse(clickhouse::Target::bind(&spec, &bound).unwrap());
    targets.push(Target { view: 0, store: 1, number: 0, kind });
    Engine::new(engine.layout().clone(), targets, 2, 1)
}

fn catalog() -> Catalog {
    let tables = vec![
        table(1, "bets", &["id", "event", "user_id"]),
        table(2, "events", &["id", "n"]),
        table(3, "users", &["id", "n"]),
    ];
    Catalog { tables, other_encoding: false }
}

/// Ten bets that join one event and one user.
fn bench() -> (Engine, MemoryState) {
    let mut engine = engine(&catalog());
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

/// A fact that the cursor has not passed sees the row as it was, with the column's value in rows
/// from before.
#[test]
fn the_row_before_has_a_column_that_was_added_since() {
    let (mut engine, mut state) = bench();
    update(&mut engine, &mut state, (20, 200), USERS);
    let mut wider = catalog();
    let added = Added {
        generation: 1,
        missing: Some("7".to_owned()),
        known_at: Lsn(25),
        taken_in_at: Lsn(21),
        refused_by: Vec::new(),
    };
    let users = &mut wider.tables[USERS].columns;
    let more = Column { name: "more".to_owned(), added: Some(added), ..users[1].clone() };
    users.push(more);
    let mut engine = self::engine(&wider);
    engine.restore(&state, vec![None; 2]).unwrap();
    engine.begin(Lsn(30), 300, None);
    engine.apply(&mut state, BETS, RowChange::Delete { old: ints(&[10, 1, 1]) }).unwrap();
    engine.apply(&mut state, BETS, RowChange::Insert { new: ints(&[10, 1, 1]) }).unwrap();
    engine.cut(&mut state).unwrap();
    let parts = engine.take_parts();
    let ops = parts.iter().flat_map(|part| OpRef::decode_all(&part.ops));
    let mut shown = ops.filter_map(|op| {
        let action = op.unwrap().whole().unwrap().action;
        let Action::HashReplace { key, fields } = action else { return None };
        (key == "by_user:10").then_some(fields)
    });
    let fields = shown.next().unwrap();
    let fields: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), &**value)).collect();
    assert_eq!(fields, [("bet", "10"), ("id", "1"), ("n", "0"), ("more", "7")]);
}

/// Whoever reads Redis does not wait for rows that `ClickHouse` alone shows. Steps grow with what the
/// cursor has passed.
#[test]
fn what_clickhouse_alone_shows_is_left_to_a_cursor_of_small_steps() {
    for also in [true, false] {
        let (mut engine, mut state) = (columnar(&catalog(), also), MemoryState::default());
        engine.begin(Lsn(10), 100, None);
        engine.apply(&mut state, EVENTS, RowChange::Insert { new: ints(&[1, 0]) }).unwrap();
        for id in 1..=1_000 {
            let new = ints(&[id, 1, 1]);
            engine.apply(&mut state, BETS, RowChange::Insert { new }).unwrap();
        }
        engine.commit(&mut state).unwrap();
        engine.take_parts();
        update(&mut engine, &mut state, (20, 200), EVENTS);
        let shown: usize = engine.take_parts().iter().map(|part| part.ops.len()).sum();
        if also {
            assert_eq!((engine.held(), shown > 10_000), (None, true));
            continue;
        }
        assert_eq!(engine.held(), Some(Held { lsn: Lsn(20), at: 199 }));
        let mut passed = vec![engine.fan_outs()[0].unwrap()];
        for lsn in 21.. {
            engine.begin(Lsn(lsn), 300, None);
            engine.commit(&mut state).unwrap();
            let Some(now) = engine.fan_outs()[0] else { break };
            passed.push(now);
        }
        let steps: Vec<u64> = passed.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(passed[0] <= 20 && steps[0] <= 20 && steps.is_sorted(), "{passed:?}");
        assert!(*steps.last().unwrap() > 100, "{passed:?}");
        assert_eq!((engine.held(), cursors(&state)), (None, 0));
    }
}
