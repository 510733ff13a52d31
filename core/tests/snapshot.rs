//! What the first snapshot emits: each row and each group once, however much of it fits in memory. That
//! the results are right is the simulation's and the oracle's.

#![expect(clippy::unwrap_used, reason = "a surprise fails the test")]

mod made;

use made::column;
use std::collections::BTreeMap;
use walview_core::catalog::{Catalog, ReplicaIdentity, Table, UniqueKey};
use walview_core::engine::{Engine, Layout, MemoryState, Target, TargetKind};
use walview_core::position::Lsn;
use walview_core::sql;
use walview_core::target::redis::{self, Action, OpRef, SpecShape};
use walview_core::target::template::Template;
use walview_core::value::{Type, Value};

/// More than one page has.
const BETS: i64 = 1_500;
const CODES: i64 = 300;
/// So many groups of such keys do not fit in memory together.
const CODE_BYTES: usize = 32_000;

fn catalog() -> Catalog {
    let column = |name: &&str| {
        let ty = if *name == "code" { Type::Text } else { Type::Int8 };
        column(name, ty, true)
    };
    let table = |oid: u32, name: &str, columns: &[&str]| Table {
        oid,
        schema: "public".to_owned(),
        name: name.to_owned(),
        columns: columns.iter().map(column).collect(),
        unique_keys: vec![UniqueKey {
            name: format!("{name}_pkey"),
            columns: vec![0],
            primary: true,
        }],
        replica_identity: ReplicaIdentity::Default,
    };
    let tables = vec![
        table(1, "bets", &["id", "code", "amount"]),
        table(2, "people", &["id", "boss", "bet"]),
        table(3, "ring_a", &["id", "b"]),
        table(4, "ring_b", &["id", "a"]),
    ];
    Catalog { tables, other_encoding: false }
}

/// A view for each definition, name, SQL and key template, into strings that show `value`.
fn engine(definitions: &[(&str, &str, &str)]) -> Engine {
    let catalog = catalog();
    let views: Vec<_> = definitions
        .iter()
        .map(|(name, text, _)| {
            sql::bind(&sql::parse(text).unwrap(), name, &catalog, "public").unwrap()
        })
        .collect();
    let targets = definitions.iter().zip(&views).enumerate().map(|(at, ((.., key), view))| {
        let shape = SpecShape::String { value: "value".to_owned(), empty_zero: false };
        let spec = redis::Spec { template: Template::parse(key).unwrap(), shape, fields: None };
        let kind = TargetKind::Redis(redis::Target::bind(&spec, view).unwrap());
        Target { view: at, store: 0, number: u16::try_from(at).unwrap(), kind }
    });
    let layout = Layout::new(&views, &catalog).unwrap();
    Engine::new(layout, targets.collect(), 1, 1)
}

/// Loads bets and emits all views, `at_once` or from the state. Returns what became of each key, and how
/// many facts and groups were read.
fn snapshot(
    engine: &mut Engine,
    bets: impl Iterator<Item = (i64, String, i64)>,
    at_once: bool,
) -> (BTreeMap<String, Vec<String>>, u64) {
    let mut state = MemoryState::default();
    let views: Vec<usize> = (0..engine.layout().views.len()).collect();
    assert_eq!(engine.load_order(), [(0, views.clone())]);
    let loaded = if at_once { &views[..] } else { &[] };
    let mut filling = engine.begin_snapshot(Lsn(9), 7, &views, loaded);
    for (id, code, amount) in bets {
        let row = vec![Value::Int(id), Value::Text(code.into()), Value::Int(amount)];
        engine.load(&mut state, 0, &row, loaded).unwrap();
    }
    while engine.fill(&mut state, &mut filling).unwrap() {}
    engine.end_snapshot();
    let mut emitted: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for part in engine.take_parts() {
        assert!(part.to.lsn < Lsn(9));
        for op in OpRef::decode_all(&part.ops) {
            let Action::Set { key, value } = op.unwrap().whole().unwrap().action else {
                unreachable!("a snapshot of strings sets keys");
            };
            emitted.entry(key).or_default().push(value);
        }
    }
    (emitted, filling.rows())
}

fn code(of: i64) -> String {
    format!("{of}{}", "-".repeat(CODE_BYTES))
}

#[test]
fn facts_are_read_once_and_groups_emitted_once_whatever_memory_holds() {
    for at_once in [false, true] {
        let mut engine = engine(&[
            ("amounts", "SELECT id, amount AS value FROM bets", "amount:{id}"),
            ("by_code", "SELECT code, sum(amount) AS value FROM bets GROUP BY code", "code:{code}"),
            ("all", "SELECT count(*) AS value FROM bets", "all"),
        ]);
        let bets = (0..BETS).map(|id| (id, code(id % CODES), id));
        let (mut emitted, rows) = snapshot(&mut engine, bets, at_once);
        let facts = if at_once { 0 } else { BETS };
        assert_eq!(rows, (facts + CODES + 1).cast_unsigned());
        assert_eq!(engine.stopped(), [const { None }; 3]);
        let mut once = |key: String| {
            let values = emitted.remove(&key).unwrap();
            assert_eq!(values.len(), 1);
            values.into_iter().next().unwrap()
        };
        for id in 0..BETS {
            assert_eq!(once(format!("amount:{id}")), id.to_string());
        }
        for of in 0..CODES {
            let sum: i64 = (0..BETS).filter(|id| id % CODES == of).sum();
            assert_eq!(once(format!("code:{}", code(of))), sum.to_string());
        }
        assert_eq!(once("all".to_owned()), BETS.to_string());
        assert!(emitted.is_empty());
    }
}

/// More than a transaction gathers before it emits them.
#[test]
fn many_groups_are_emitted_once_each() {
    let by_code = "SELECT code, count(*) AS value FROM bets GROUP BY code";
    let mut engine = engine(&[("by_code", by_code, "code:{code}")]);
    let codes = 12_000;
    let bets = (0..2 * codes).map(|id| (id, (id % codes).to_string(), 0));
    let (emitted, rows) = snapshot(&mut engine, bets, true);
    assert_eq!((rows, emitted.len()), (12_000, 12_000));
    assert!(emitted.values().all(|values| values == &["2"]));
}

/// PostgreSQL computes it over all members; halfway it would not fit.
#[test]
fn a_group_is_judged_when_it_is_whole() {
    let by_code = "SELECT code, sum(amount)::int8 AS value FROM bets GROUP BY code";
    let mut engine = engine(&[("by_code", by_code, "code:{code}")]);
    // The first page ends within the fourth amounts.
    let amounts = [i64::MAX, i64::MAX, 0, -i64::MAX, 5 - i64::MAX].into_iter();
    let amounts = amounts.flat_map(|amount| (0..CODES).map(move |of| (of, amount)));
    let bets = (0..BETS).zip(amounts).map(|(id, (of, amount))| (id, code(of), amount));
    let (emitted, _) = snapshot(&mut engine, bets, true);
    assert_eq!(engine.stopped(), [None]);
    assert_eq!(emitted.len(), usize::try_from(CODES).unwrap());
    assert!(emitted.values().all(|values| values == &["5"]));
}

#[test]
fn no_rows_leave_the_one_group_without_group_by() {
    let mut engine = engine(&[
        ("by_code", "SELECT code, count(*) AS value FROM bets GROUP BY code", "code:{code}"),
        ("all", "SELECT count(*) AS value FROM bets", "all"),
    ]);
    let (emitted, rows) = snapshot(&mut engine, std::iter::empty(), true);
    assert_eq!(rows, 1);
    assert_eq!(emitted, BTreeMap::from([("all".to_owned(), vec!["0".to_owned()])]));
}

/// Joined tables come first, and a view waits for the end where not all of them can.
#[test]
fn views_wait_for_what_they_join() {
    let mut engine = engine(&[
        (
            "bosses",
            "SELECT p.id, b.bet AS value FROM people p LEFT JOIN people b ON b.id = p.boss",
            "boss:{id}",
        ),
        (
            "bets",
            "SELECT p.id, b.amount AS value FROM people p LEFT JOIN bets b ON b.id = p.bet",
            "bet:{id}",
        ),
        ("a", "SELECT a.id, b.a AS value FROM ring_a a LEFT JOIN ring_b b ON b.id = a.b", "a:{id}"),
        ("b", "SELECT b.id, a.b AS value FROM ring_b b LEFT JOIN ring_a a ON a.id = b.a", "b:{id}"),
    ]);
    let tables = engine.layout().tables.clone();
    let table = |name: &str| tables.iter().position(|table| table.name == name).unwrap();
    let order = engine.load_order();
    let at = |name: &str| order.iter().position(|(of, _)| *of == table(name)).unwrap();
    assert!(at("bets") < at("people"));
    assert_eq!(order[at("people")].1, [1]);
    let (first, second) = (at("ring_a").min(at("ring_b")), at("ring_a").max(at("ring_b")));
    assert_eq!((order[first].1.len(), order[second].1.len()), (0, 1));
    let loaded: Vec<usize> = order.iter().flat_map(|(_, views)| views).copied().collect();
    let mut state = MemoryState::default();
    let mut filling = engine.begin_snapshot(Lsn(9), 7, &[0, 1, 2, 3], &loaded);
    for (of, views) in order {
        // Who is joined comes last in its table, too; only what views use is captured.
        let rows: &[&[(&str, i64)]] = match tables[of].name.as_str() {
            "bets" => &[&[("id", 7), ("amount", 70)]],
            "people" => {
                &[&[("id", 1), ("boss", 2), ("bet", 7)], &[("id", 2), ("boss", 1), ("bet", 8)]]
            }
            "ring_a" => &[&[("id", 1), ("b", 1)]],
            _ => &[&[("id", 1), ("a", 1)]],
        };
        for cells in rows {
            let names = tables[of].columns.iter().map(|column| column.name.as_str());
            let cell = |name: &str| cells.iter().find(|(of, _)| *of == name).unwrap().1;
            let row = names.map(|name| Value::Int(cell(name))).collect();
            engine.load(&mut state, of, &row, &views).unwrap();
        }
    }
    while engine.fill(&mut state, &mut filling).unwrap() {}
    engine.end_snapshot();
    let parts = engine.take_parts();
    let emitted: BTreeMap<String, String> = parts
        .iter()
        .flat_map(|part| OpRef::decode_all(&part.ops))
        .map(|op| {
            let action = op.unwrap().whole().unwrap().action;
            if let Action::Set { key, value } = action {
                return (key, value);
            }
            let Action::Del { key } = action else { unreachable!("strings: {action:?}") };
            (key, "none".to_owned())
        })
        .collect();
    let expected = [("boss:1", "8"), ("boss:2", "7"), ("bet:1", "70"), ("a:1", "1"), ("b:1", "1")];
    for (key, value) in expected {
        assert_eq!(emitted.get(key).map(String::as_str), Some(value), "{key} of {emitted:?}");
    }
    assert!(emitted.get("bet:2").is_none_or(|value| value == "none"), "{emitted:?}");
}
