//! Dead letters: who gets one, whom it follows, and what a replay emits where the row fits now.

#![expect(clippy::unwrap_used, reason = "a surprise fails the test")]

mod made;

use made::column;
use walview_core::catalog::{Catalog, ReplicaIdentity, Table, UniqueKey};
use walview_core::engine::letters::{self, Letter, Replayed};
use walview_core::engine::{Engine, Layout, MemoryState, RowChange, Target, TargetKind};
use walview_core::plan::View;
use walview_core::position::Lsn;
use walview_core::sql;
use walview_core::target::redis::{self, Action, OpRef, SpecShape};
use walview_core::target::template::Template;
use walview_core::value::{Row, Type, Value};

/// `bets` with two keys, of which its changes carry `carried`.
fn catalog(carried: usize) -> Catalog {
    let key = |name: &str, columns: &[usize], primary| UniqueKey {
        name: name.to_owned(),
        columns: columns.to_vec(),
        primary,
    };
    Catalog {
        tables: vec![Table {
            oid: 1,
            schema: "public".to_owned(),
            name: "bets".to_owned(),
            columns: vec![
                column("id", Type::Int8, true),
                column("code", Type::Text, true),
                column("amount", Type::Int8, true),
                column("score", Type::Float8, true),
            ],
            unique_keys: vec![key("bets_pkey", &[0], true), key("bets_code", &[1], false)],
            replica_identity: ReplicaIdentity::Index(vec![carried]),
        }],
        other_encoding: false,
    }
}

struct Bench {
    engine: Engine,
    layout: Layout,
    views: Vec<View>,
    state: MemoryState,
    lsn: u64,
}

/// One view of one target each: name, SQL, key template, shape.
type Definition<'a> = (&'a str, &'a str, &'a str, SpecShape);

impl Bench {
    fn new(carried: usize, definitions: &[Definition<'_>], state: MemoryState) -> Self {
        let catalog = catalog(carried);
        let views: Vec<View> = definitions
            .iter()
            .map(|(name, text, ..)| {
                sql::bind(&sql::parse(text).unwrap(), name, &catalog, "public").unwrap()
            })
            .collect();
        let targets = definitions.iter().zip(&views).enumerate().map(|(at, (definition, view))| {
            let template = Template::parse(definition.2).unwrap();
            let spec = redis::Spec { template, shape: definition.3.clone(), fields: None };
            let kind = TargetKind::Redis(redis::Target::bind(&spec, view).unwrap());
            Target { view: at, store: 0, number: u16::try_from(at).unwrap(), kind }
        });
        let layout = Layout::new(&views, &catalog).unwrap();
        let mut engine = Engine::new(layout.clone(), targets.collect(), 1, 1);
        engine.restore(&state, vec![None; views.len()]).unwrap();
        Self { engine, layout, views, state, lsn: 100 }
    }

    /// The same state under other definitions, as after an upgrade that can do more.
    fn upgraded(self, carried: usize, definitions: &[Definition<'_>]) -> Self {
        Self { lsn: self.lsn, ..Self::new(carried, definitions, self.state) }
    }

    fn in_transaction<T>(
        &mut self,
        work: impl FnOnce(&mut Engine, &mut MemoryState) -> T,
    ) -> (T, Vec<Action>) {
        self.lsn += 10;
        self.engine.begin(Lsn(self.lsn), 7, None);
        let done = work(&mut self.engine, &mut self.state);
        self.engine.commit(&mut self.state).unwrap();
        self.engine.save(&mut self.state);
        let mut actions = Vec::new();
        for part in self.engine.take_parts() {
            assert_eq!(part.to.lsn, Lsn(self.lsn));
            actions
                .extend(OpRef::decode_all(&part.ops).map(|op| op.unwrap().whole().unwrap().action));
        }
        (done, actions)
    }

    fn apply(&mut self, change: RowChange) -> Vec<Action> {
        self.in_transaction(|engine, state| engine.apply(state, 0, change).unwrap()).1
    }

    fn letters(&self) -> Vec<Letter> {
        letters::page(&self.state, None, None).unwrap()
    }

    /// What the only letter says its row's key is.
    fn key(&self) -> String {
        let letters = self.letters();
        assert_eq!(letters.len(), 1, "{letters:?}");
        let columns = letters[0].key_columns(&self.layout, &self.views);
        let parts = columns.iter().map(|(name, ty, value)| format!("{name}={}", value.to_text(ty)));
        parts.collect::<Vec<_>>().join(" ")
    }

    fn replay(&mut self) -> (Replayed, Vec<Action>) {
        let key = self.letters()[0].key.clone();
        self.in_transaction(|engine, state| engine.replay(state, &key).unwrap())
    }
}

fn row(id: i64, code: &str, amount: i64, score: f64) -> Row {
    vec![Value::Int(id), Value::Text(code.into()), Value::Int(amount), Value::Float8(score)]
}

fn update(old: Option<Row>, new: Row) -> RowChange {
    RowChange::Update { old, new: new.into_iter().map(Some).collect() }
}

const SHARE: &str = "SELECT id, 10 / amount AS share, code, score FROM bets";
const SAFE_SHARE: &str = "SELECT id, 10 / nullif(amount, 0) AS share, code, score FROM bets";

#[test]
fn a_letter_follows_its_row_to_another_key() {
    let mut bench =
        Bench::new(0, &[("share", SHARE, "share:{id}", SpecShape::Hash)], MemoryState::default());
    assert!(bench.apply(RowChange::Insert { new: row(1, "a", 0, 1.0) }).is_empty());
    assert_eq!((bench.key(), bench.engine.dead_letters()), ("id=1".to_owned(), &[1][..]));
    bench.apply(update(Some(row(1, "a", 0, 1.0)), row(2, "a", 0, 1.0)));
    assert_eq!((bench.key(), bench.engine.dead_letters()), ("id=2".to_owned(), &[1][..]));
    assert_eq!(bench.letters()[0].committed_at, Some(7));
    let actions = bench.apply(update(Some(row(2, "a", 0, 1.0)), row(3, "a", 5, 1.0)));
    assert!(matches!(&actions[..], [Action::HashReplace { key, .. }] if key == "share:3"));
    assert_eq!((bench.letters(), bench.engine.dead_letters()), (vec![], &[0][..]));
}

/// The identity that changes carry is no column of the view, so its change is none of the view's.
#[test]
fn a_letter_follows_a_key_that_the_view_does_not_show() {
    let share =
        ("share", "SELECT id, 10 / amount AS share FROM bets", "share:{id}", SpecShape::Hash);
    let mut bench = Bench::new(1, &[share], MemoryState::default());
    bench.apply(RowChange::Insert {
        new: vec![Value::Int(1), Value::Text("a".into()), Value::Int(0)],
    });
    assert_eq!(bench.key(), "code=a");
    let captured =
        |code: &str, amount| vec![Value::Int(1), Value::Text(code.into()), Value::Int(amount)];
    bench.apply(update(Some(captured("a", 0)), captured("b", 0)));
    assert_eq!((bench.key(), bench.engine.dead_letters()), ("code=b".to_owned(), &[1][..]));
    bench.apply(RowChange::Delete { old: captured("b", 0) });
    assert_eq!((bench.letters(), bench.engine.dead_letters()), (vec![], &[0][..]));
}

#[test]
fn a_dropped_letter_counts_again_when_its_row_changes() {
    let mut bench =
        Bench::new(0, &[("share", SHARE, "share:{id}", SpecShape::Hash)], MemoryState::default());
    bench.apply(RowChange::Insert { new: row(1, "a", 0, 1.0) });
    let key = bench.letters()[0].key.clone();
    let dropped = bench.in_transaction(|engine, state| engine.drop_letter(state, &key).unwrap());
    assert_eq!(dropped, (true, vec![]));
    assert!(bench.letters()[0].dropped);
    assert_eq!(bench.engine.dead_letters(), &[0]);
    // After a restart, too.
    let definitions = [("share", SHARE, "share:{id}", SpecShape::Hash)];
    let mut bench = bench.upgraded(0, &definitions);
    assert_eq!(bench.engine.dead_letters(), &[0]);
    bench.apply(update(None, row(1, "b", 0, 1.0)));
    assert_eq!((bench.letters()[0].dropped, bench.engine.dead_letters()), (false, &[1][..]));
    bench.in_transaction(|engine, state| engine.drop_letter(state, &key).unwrap());
    let actions = bench.apply(update(None, row(1, "b", 2, 1.0)));
    assert!(matches!(&actions[..], [Action::HashReplace { .. }]), "{actions:?}");
    assert_eq!(bench.letters(), vec![]);
}

/// As where a column was added: no row changed.
#[test]
fn a_dropped_letter_stays_so_where_its_view_is_emitted_whole() {
    let of = |text| {
        let ranks = SpecShape::ZSet { member: "id".to_owned(), score: "score".to_owned() };
        [("share", text, "share:{id}", SpecShape::Hash), ("ranks", SAFE_SHARE, "ranks", ranks)]
    };
    let whole = |bench: &mut Bench| {
        let mut filling = bench.engine.begin_snapshot(Lsn(bench.lsn + 1), 9, &[0, 1], &[]);
        while bench.engine.fill(&mut bench.state, &mut filling).unwrap() {}
        bench.engine.end_order(&mut bench.state).unwrap();
        bench.engine.take_parts();
    };
    let mut bench = Bench::new(0, &of(SHARE), MemoryState::default());
    bench.apply(RowChange::Insert { new: row(1, "a", 0, f64::NAN) });
    bench.apply(RowChange::Insert { new: row(2, "b", 0, 1.0) });
    let letters = bench.letters();
    assert_eq!(letters.iter().map(|letter| letter.view).collect::<Vec<_>>(), [0, 0, 1]);
    for letter in [&letters[0], &letters[2]] {
        bench.in_transaction(|engine, state| engine.drop_letter(state, &letter.key).unwrap());
    }
    let known = bench.letters();
    whole(&mut bench);
    let now = bench.letters();
    assert_eq!((&now[0], now[1].dropped, &now[2]), (&known[0], false, &known[2]));
    assert_eq!(bench.engine.dead_letters(), &[1, 0]);
    // For another reason it is news.
    let mut bench = bench
        .upgraded(0, &of("SELECT id, (amount + 9999999999)::int AS share, code, score FROM bets"));
    assert_eq!(bench.engine.dead_letters(), &[1, 0]);
    whole(&mut bench);
    assert_eq!(bench.engine.dead_letters(), &[2, 0]);
}

#[test]
fn a_replay_delivers_what_can_be_evaluated_now() {
    let share = |text| ("share", text, "share:{id}", SpecShape::Hash);
    let total = |text| ("total", text, "total", SpecShape::Hash);
    let before = [share(SHARE), total("SELECT sum(10 / amount) AS share FROM bets")];
    let mut bench = Bench::new(0, &before, MemoryState::default());
    bench.apply(RowChange::Insert { new: row(1, "a", 0, 1.0) });
    bench.apply(RowChange::Insert { new: row(2, "b", 2, 1.0) });
    assert_eq!(bench.letters().len(), 2);
    let still = "division by zero (SQLSTATE 22012)".to_owned();
    assert_eq!(bench.replay(), (Replayed::Still(still), vec![]));
    let after = [
        share(SAFE_SHARE),
        total("SELECT sum(10 / coalesce(nullif(amount, 0), 1)) AS share FROM bets"),
    ];
    let mut bench = bench.upgraded(0, &after);
    let (replayed, actions) = bench.replay();
    assert_eq!(replayed, Replayed::Delivered);
    assert!(
        matches!(&actions[..], [Action::HashReplace { key, .. }] if key == "share:1"),
        "{actions:?}"
    );
    let (replayed, actions) = bench.replay();
    assert_eq!(replayed, Replayed::Delivered);
    let fields = vec![("share".to_owned(), "15".to_owned())];
    assert_eq!(actions, [Action::HashReplace { key: "total".to_owned(), fields }]);
    assert_eq!((bench.letters(), bench.engine.dead_letters()), (vec![], &[0, 0][..]));
    // Delivered once: the row counts from now on.
    let actions = bench.apply(RowChange::Delete { old: row(1, "a", 0, 1.0) });
    let fields = vec![("share".to_owned(), "5".to_owned())];
    assert!(
        actions.contains(&Action::HashReplace { key: "total".to_owned(), fields }),
        "{actions:?}"
    );
    assert!(actions.contains(&Action::Del { key: "share:1".to_owned() }), "{actions:?}");
}

/// Rows and groups that a target cannot hold, found again by the result's key, whether or not
/// changes carry that key.
#[test]
fn a_replay_delivers_what_a_target_can_hold_now() {
    let ranks = || SpecShape::ZSet { member: "id".to_owned(), score: "score".to_owned() };
    let by_code = "SELECT code, 0.1::float8 + CASE WHEN count(*) > 0 THEN 'NaN'::float8 END AS score, count(*) AS bets FROM bets GROUP BY code";
    let best = || SpecShape::ZSet { member: "code".to_owned(), score: "score".to_owned() };
    for carried in [0, 1] {
        let before = [("ranks", SHARE, "ranks", ranks()), ("best", by_code, "best", best())];
        let mut bench = Bench::new(carried, &before, MemoryState::default());
        bench.apply(RowChange::Insert { new: row(1, "a", 1, 1.0) });
        bench.apply(RowChange::Insert { new: row(2, "b", 2, f64::NAN) });
        let reasons: Vec<String> =
            bench.letters().into_iter().map(|letter| letter.reason).collect();
        assert_eq!(reasons.len(), 3, "{reasons:?}");
        assert!(reasons.iter().all(|reason| reason.starts_with("the value of column \"score\"")));
        assert!(matches!(bench.replay().0, Replayed::Still(_)));
        let first = &bench.letters()[0];
        let shown = letters::look(&bench.layout, &bench.state, first).unwrap().unwrap();
        assert_eq!(shown.inputs.len(), 1);
        assert_eq!(shown.result.unwrap()[..2], [Value::Int(2), Value::Int(5)]);
        let after = [
            ("ranks", SHARE, "ranks:{id}", SpecShape::Hash),
            ("best", by_code, "best:{code}", SpecShape::Hash),
        ];
        let mut bench = bench.upgraded(carried, &after);
        for expected in ["ranks:2", "best:a", "best:b"] {
            let (replayed, actions) = bench.replay();
            assert_eq!(replayed, Replayed::Delivered);
            assert!(
                matches!(&actions[..], [Action::HashReplace { key, .. }] if key == expected),
                "{actions:?}"
            );
        }
        assert_eq!((bench.letters(), bench.engine.dead_letters()), (vec![], &[0, 0][..]));
    }
}

/// An error of a group is no row's: it stops its view, and the others go on.
#[test]
fn a_group_that_cannot_be_computed_stops_its_view() {
    let mean = "SELECT code, sum(amount) / (count(*) - 2) AS mean FROM bets GROUP BY code";
    let wide = "SELECT code, sum(amount) AS total FROM bets GROUP BY code";
    let definitions = [
        ("mean", mean, "mean:{code}", SpecShape::Hash),
        ("share", SHARE, "share:{id}", SpecShape::Hash),
        ("total", wide, "total:{code}", SpecShape::Hash),
    ];
    let mut bench = Bench::new(0, &definitions, MemoryState::default());
    bench.apply(RowChange::Insert { new: row(1, "a", 4, 1.0) });
    assert!(bench.engine.stopped().iter().all(Option::is_none));
    bench.apply(RowChange::Insert { new: row(2, "a", 4, 1.0) });
    assert_eq!(
        bench.engine.stopped()[0].as_deref(),
        Some(
            "a group of the view cannot be computed: division by zero (SQLSTATE 22012); PostgreSQL \
             fails on it too; correct the rows or the SQL of \"mean\", then: walview rebuild"
        )
    );
    assert_eq!((bench.letters(), bench.engine.dead_letters()), (vec![], &[0, 0, 0][..]));
    let keys = |actions: Vec<Action>| -> Vec<String> {
        actions.into_iter().map(|action| action.key().to_owned()).collect()
    };
    let actions = bench.apply(RowChange::Insert { new: row(3, "a", 4, 1.0) });
    assert_eq!(keys(actions), ["share:3", "total:a"]);
    assert_eq!(bench.engine.stopped()[1..], [None, None]);
}

/// Overflow, a bad cast and a division by zero are the row's own; the rest of the transaction is
/// there.
#[test]
fn each_evaluation_error_parks_its_row_alone() {
    let cases = [
        ("amount * 9223372036854775807", "bigint out of range (SQLSTATE 22003)"),
        ("amount::int2", "smallint out of range (SQLSTATE 22003)"),
        ("code::int4", "invalid input syntax for type integer (SQLSTATE 22P02)"),
        ("100000 / (amount - 100000)", "division by zero (SQLSTATE 22012)"),
    ];
    for (expression, reason) in cases {
        let text = format!("SELECT id, {expression} AS x FROM bets");
        let mut bench =
            Bench::new(0, &[("x", &text, "x:{id}", SpecShape::Hash)], MemoryState::default());
        let captured = bench.layout.tables[0].columns.len();
        let other = |id, code: &str, amount| -> Row {
            let whole = row(id, code, amount, 0.0);
            bench.layout.tables[0].columns.iter().map(|c| whole[c.catalog].clone()).collect()
        };
        let rows = [other(1, "1", 1), other(2, "x", 100_000), other(3, "3", 0)];
        assert!(captured >= 2);
        let ((), actions) = bench.in_transaction(|engine, state| {
            for new in rows {
                engine.apply(state, 0, RowChange::Insert { new }).unwrap();
            }
        });
        let keys: Vec<&str> = actions.iter().map(Action::key).collect();
        assert_eq!(keys, ["x:1", "x:3"], "{expression}");
        assert_eq!((bench.key(), bench.letters()[0].reason.as_str()), ("id=2".to_owned(), reason));
    }
}
