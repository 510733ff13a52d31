//! The pages of a refill: every row once, over as many pages as it takes, and the streams that rows
//! lead to. (That the rows are right is shown by the simulation.)

#![expect(clippy::unwrap_used, reason = "a surprise fails the test")]

mod made;

use made::column;
use std::collections::BTreeSet;
use walview_core::catalog::{Catalog, ReplicaIdentity, Table, UniqueKey};
use walview_core::engine::{
    Engine, Layout, MemoryState, RefillCursor, RowChange, Target, TargetKind,
};
use walview_core::position::Lsn;
use walview_core::sql;
use walview_core::target::Events;
use walview_core::target::redis::{self, OpRef, SpecShape};
use walview_core::target::template::Template;
use walview_core::value::{Type, Value};

/// More than one page of rows.
const ROWS: i64 = 2500;

fn catalog() -> Catalog {
    let key = UniqueKey { name: "key".to_owned(), columns: vec![0], primary: true };
    Catalog {
        tables: vec![Table {
            oid: 1,
            schema: "public".to_owned(),
            name: "bets".to_owned(),
            columns: vec![column("id", Type::Int8, true), column("status", Type::Text, true)],
            unique_keys: vec![key],
            replica_identity: ReplicaIdentity::Default,
        }],
        other_encoding: false,
    }
}

#[test]
fn pages_give_each_row_once_and_name_streams() {
    let catalog = catalog();
    let text =
        ["SELECT id, status FROM bets", "SELECT status, count(*) AS n FROM bets GROUP BY status"];
    let views =
        text.map(|text| sql::bind(&sql::parse(text).unwrap(), "v", &catalog, "public").unwrap());
    let stream = || SpecShape::Stream { events: Events::default(), maxlen: None };
    let specs = [
        (0, "bet:{id}", SpecShape::Hash),
        (0, "bets:{status}", stream()),
        (0, "bets", stream()),
        (1, "n:{status}", SpecShape::String { value: "n".to_owned(), empty_zero: true }),
    ];
    let targets = (0..).zip(specs).map(|(number, (view, template, shape))| {
        let template = Template::parse(template).unwrap();
        let spec = redis::Spec { template, shape, fields: None };
        let kind = TargetKind::Redis(redis::Target::bind(&spec, &views[view]).unwrap());
        Target { view, store: 0, number, kind }
    });
    let layout = Layout::new(&views, &catalog).unwrap();
    let mut engine = Engine::new(layout, targets.collect(), 2, 1);
    let mut state = MemoryState::default();
    engine.begin(Lsn(1), 0, None);
    for id in 0..ROWS {
        let status = Value::Text(format!("s{}", id % 3).into());
        engine
            .apply(&mut state, 0, RowChange::Insert { new: vec![Value::Int(id), status] })
            .unwrap();
    }
    engine.commit(&mut state).unwrap();
    engine.save(&mut state);

    let walk = |store: usize, stopped: &[Option<String>]| {
        let refill = engine.refill(store);
        let (mut keys, mut streams, mut rows, mut pages) = (BTreeSet::new(), BTreeSet::new(), 0, 0);
        let mut cursor = Some(RefillCursor::default());
        while let Some(at) = cursor {
            let page = refill.page(&state, stopped, at).unwrap();
            for op in OpRef::decode_all(&page.ops).map(Result::unwrap) {
                assert!(!op.event && keys.insert(op.key.to_owned()), "{} twice", op.key);
            }
            streams.extend(page.streams);
            (rows, pages, cursor) = (rows + page.rows, pages + 1, page.next);
        }
        (keys, streams, rows, pages)
    };
    let (keys, streams, rows, pages) = walk(0, &[None, None]);
    assert_eq!((keys.len(), rows), (2503, 2503));
    assert!(keys.contains("bet:2499") && keys.contains("n:s2"));
    assert_eq!(streams, ["s0", "s1", "s2"].map(|status| (1, format!("bets:{status}"))).into());
    assert!(pages > 3, "{pages}");
    // A stopped view has no results in the state as of when it stopped; another store no targets.
    let stopped = [Some("why".to_owned()), None];
    assert_eq!(walk(0, &stopped).2, 3);
    assert_eq!(engine.refill(0).left_out(&stopped), [0, 1, 2].into());
    assert_eq!(walk(1, &[None, None]).2, 0);
}
