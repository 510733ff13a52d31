//! A row that is inserted twice is refused, whatever the engine has found out about where a table
//! ends; so is one that is changed and not there.

#![expect(clippy::unwrap_used, reason = "a surprise fails the test")]

mod made;

use made::column;
use proptest::prelude::*;
use std::collections::BTreeSet;
use walview_core::catalog::{Catalog, Column, ReplicaIdentity, Table, UniqueKey};
use walview_core::engine::{Engine, EngineError, Layout, MemoryState, RowChange};
use walview_core::position::Lsn;
use walview_core::sql;
use walview_core::value::{Row, Type, Value};

fn catalog() -> Catalog {
    let id = Column { type_oid: 20, ..column("id", Type::Int8, true) };
    let key = UniqueKey { name: "t_pkey".to_owned(), columns: vec![0], primary: true };
    let table = Table {
        oid: 1,
        schema: "public".to_owned(),
        name: "t".to_owned(),
        columns: vec![id],
        unique_keys: vec![key],
        replica_identity: ReplicaIdentity::Default,
    };
    Catalog { tables: vec![table], other_encoding: false }
}

fn engine() -> Engine {
    let catalog = catalog();
    let view = sql::bind(&sql::parse("SELECT id FROM t").unwrap(), "v", &catalog, "public");
    Engine::new(Layout::new(&[view.unwrap()], &catalog).unwrap(), Vec::new(), 0, 1)
}

#[derive(Clone, Debug)]
enum Step {
    Insert(i64),
    Delete(i64),
    Move(i64, i64),
    Truncate,
    /// Back to the last local commit.
    Rewind,
    Commit,
}

fn steps() -> impl Strategy<Value = Step> {
    let id = || -3..12_i64;
    prop_oneof![
        8 => id().prop_map(Step::Insert),
        3 => id().prop_map(Step::Delete),
        3 => (id(), id()).prop_map(|(from, to)| Step::Move(from, to)),
        1 => Just(Step::Truncate),
        1 => Just(Step::Rewind),
        2 => Just(Step::Commit),
    ]
}

fn row(id: i64) -> Row {
    vec![Value::Int(id)]
}

proptest! {
    #[test]
    fn what_does_not_fit_the_state_is_refused(
        growing in 0..4_i64,
        steps in prop::collection::vec(steps(), 1..80),
    ) {
        let (mut engine, mut state, mut rows) = (engine(), MemoryState::default(), BTreeSet::new());
        let mut committed = (state.clone(), rows.clone());
        engine.begin(Lsn(1), 0, None);
        for step in (0..growing).map(Step::Insert).chain(steps) {
            let (change, fits) = match step {
                Step::Insert(id) => (RowChange::Insert { new: row(id) }, rows.insert(id)),
                Step::Delete(id) => (RowChange::Delete { old: row(id) }, rows.remove(&id)),
                Step::Move(from, to) => {
                    // PostgreSQL has no two rows with one key.
                    if from == to || rows.contains(&to) {
                        continue;
                    }
                    let moves = rows.remove(&from);
                    if moves {
                        rows.insert(to);
                    }
                    let new = vec![Some(Value::Int(to))];
                    (RowChange::Update { old: Some(row(from)), new }, moves)
                }
                Step::Truncate => {
                    rows.clear();
                    (RowChange::Truncate, true)
                }
                Step::Rewind => {
                    engine.abort();
                    (state, rows) = committed.clone();
                    engine.begin(Lsn(1), 0, None);
                    continue;
                }
                Step::Commit => {
                    engine.commit(&mut state).unwrap();
                    engine.save(&mut state);
                    committed = (state.clone(), rows.clone());
                    engine.begin(Lsn(1), 0, None);
                    continue;
                }
            };
            match engine.apply(&mut state, 0, change) {
                Ok(()) => prop_assert!(fits, "{step:?} was taken: {rows:?}"),
                Err(EngineError::Inconsistent(_)) => prop_assert!(!fits, "{step:?} was refused"),
                Err(EngineError::State(error)) => panic!("{error}"),
            }
        }
    }
}
