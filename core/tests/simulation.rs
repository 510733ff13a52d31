//! The engine against a model that knows nothing of deltas: after every random transaction each
//! view, kept up by the engine's operations alone, equals the view computed from scratch.
//!
//! The model joins by nested loops over whole tables. It shares the binder and the evaluation of
//! expressions with the engine (PostgreSQL judges those elsewhere), but no join, no reverse key and
//! no accumulator. A row whose expressions fail counts as absent, and the engine must have a dead
//! letter for exactly these; letters are replayed and dropped at random, which changes no result.
//! Rows that many facts join are corrected in steps; a view is compared where it has no cursor, what
//! a store is filled again with always.
//! `SEED` takes a printed seed back, `SEEDS` is how many are tried in steps.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a surprise fails the test, and its seed comes back from outside"
)]

mod made;
mod model;

use model::{Tables, VIEWS, catalog, compute};
use std::collections::BTreeMap;
use walview_core::catalog::Catalog;
use walview_core::engine::letters::{self, Replayed};
use walview_core::engine::{
    Engine, Layout, MemoryState, Pace, Part, RowChange, Target, TargetKind, identity_columns,
};
use walview_core::plan::View;
use walview_core::position::Lsn;
use walview_core::sql;
use walview_core::target::redis::{self, Action, OpRef};
use walview_core::target::template::Template;
use walview_core::value::{Row, Value};

/// A small generator of its own: the crate links no randomness, and a seed means the same forever.
struct Dice(u64);

impl Dice {
    /// xorshift64*.
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn one_in(&mut self, chances: u64) -> bool {
        self.below(chances) == 0
    }
}

/// A Redis of hashes, as the engine's operations leave it.
#[derive(Clone, Default)]
struct Hashes(BTreeMap<String, Vec<(String, String)>>);

impl Hashes {
    fn apply(&mut self, parts: &[Part]) {
        for part in parts {
            for op in OpRef::decode_all(&part.ops).map(|op| op.unwrap().whole().unwrap()) {
                let Action::HashReplace { key, fields } = op.action else {
                    let Action::Del { key } = op.action else { panic!("no hash operation") };
                    self.0.remove(&key);
                    continue;
                };
                if fields.is_empty() {
                    self.0.remove(&key);
                } else {
                    self.0.insert(key, fields);
                }
            }
        }
    }
}

/// How much there is of what, and when a changed row is corrected in steps.
#[derive(Clone, Copy)]
struct Scale {
    bets: u64,
    /// Rows that others refer to, in each table.
    referred: u64,
    changes_max: u64,
    pace: Pace,
}

impl Scale {
    /// Every change is corrected at once.
    const AT_ONCE: Self = Self {
        bets: 7,
        referred: 7,
        changes_max: 7,
        pace: Pace { at_once_max: usize::MAX - 1, deferred_max: usize::MAX - 1, step: 0 },
    };
}

/// What was done to the engine in a transaction, or in several that were merged, to be done again.
enum Done {
    Change(usize, RowChange),
    Cut,
    /// It was merged with the one that commits here.
    Merge(u64),
}

struct Simulation {
    dice: Dice,
    scale: Scale,
    catalog: Catalog,
    layout: Layout,
    tables: Tables,
    views: Vec<View>,
    targets: Vec<redis::Target>,
    bound: Vec<Target>,
    engine: Engine,
    state: MemoryState,
    /// The state is as a local commit would have it.
    saved: bool,
    held: Hashes,
    /// Of the current transaction.
    done: Vec<Done>,
    parts: Vec<Part>,
}

impl Simulation {
    fn new(seed: u64, scale: Scale) -> Self {
        let catalog = catalog();
        let mut views = Vec::new();
        for (name, text) in VIEWS {
            views.push(sql::bind(&sql::parse(text).unwrap(), name, &catalog, "public").unwrap());
        }
        let layout = Layout::new(&views, &catalog).unwrap();
        let mut targets = Vec::new();
        let mut bound = Vec::new();
        for (index, view) in views.iter().enumerate() {
            let keys: Vec<String> =
                view.key.iter().map(|k| format!(":{{{}}}", view.columns[*k].name)).collect();
            let template = Template::parse(&format!("{}{}", view.name, keys.concat())).unwrap();
            let spec = redis::Spec { template, shape: redis::SpecShape::Hash, fields: None };
            let target = redis::Target::bind(&spec, view).unwrap();
            bound.push(Target {
                view: index,
                store: 0,
                number: u16::try_from(targets.len()).unwrap(),
                kind: TargetKind::Redis(target.clone()),
            });
            targets.push(target);
        }
        let mut engine = Engine::new(layout.clone(), bound.clone(), 1, 1);
        engine.set_pace(scale.pace);
        let tables = catalog.tables.iter().map(|table| (table.oid, Vec::new())).collect();
        Self {
            dice: Dice(seed | 1),
            scale,
            catalog,
            layout,
            tables,
            views,
            targets,
            bound,
            engine,
            state: MemoryState::default(),
            saved: true,
            held: Hashes::default(),
            done: Vec::new(),
            parts: Vec::new(),
        }
    }

    /// Takes what the engine emitted.
    fn take(&mut self) {
        let parts = self.engine.take_parts();
        self.held.apply(&parts);
        self.parts.extend(parts);
    }

    fn change(&mut self, change: Done) {
        perform(&mut self.engine, &mut self.state, &change);
        self.take();
        self.done.push(change);
    }

    fn save(&mut self) {
        self.engine.save(&mut self.state);
        self.saved = true;
    }

    /// The engine of the next life, over what was durable, in the transaction that commits at `lsn`.
    fn restarted(&self, durable: &MemoryState, lsn: u64) -> Engine {
        let mut engine = Engine::new(self.layout.clone(), self.bound.clone(), 1, 1);
        engine.set_pace(self.scale.pace);
        engine.restore(durable, vec![None; self.views.len()]).unwrap();
        engine.begin(Lsn(lsn), 0, None);
        engine
    }

    /// Dies after the transaction, before it is durable: what is done again gives the same.
    fn die(&mut self, before: MemoryState, lsn: u64) {
        let (mut engine, mut state) = (self.restarted(&before, lsn), before);
        for done in &self.done {
            perform(&mut engine, &mut state, done);
        }
        engine.commit(&mut state).unwrap();
        assert_eq!(engine.take_parts(), self.parts);
        engine.save(&mut state);
        self.save();
        assert_eq!(state, self.state);
        assert_eq!(engine.fan_outs(), self.engine.fan_outs());
        self.engine = engine;
    }

    /// Dies likewise, and does again with each transaction told by itself, and goes on so: a store that was
    /// told of all of them skips what it has, and one that was told of none comes to the same.
    fn die_unmerged(&mut self, before: MemoryState, mut held: Hashes, lsn: u64) {
        let (mut engine, mut state) = (self.restarted(&before, lsn), before);
        for done in &self.done {
            if let Done::Merge(next) = done {
                engine.commit(&mut state).unwrap();
                engine.begin(Lsn(*next), 0, None);
            } else {
                perform(&mut engine, &mut state, done);
            }
        }
        engine.commit(&mut state).unwrap();
        let parts = engine.take_parts();
        let last = |parts: &[Part]| parts.last().map(|part| part.to);
        assert!(last(&parts) <= last(&self.parts), "skipped as a whole");
        held.apply(&parts);
        assert_eq!(held.0, self.held.0);
        engine.save(&mut state);
        (self.engine, self.state) = (engine, state);
    }

    /// A row of `table` with this id, everything else random; small ranges, so that rows meet.
    fn random_row(&mut self, table: u32, id: i64) -> Row {
        let (dice, referred) = (&mut self.dice, self.scale.referred);
        let reference = |dice: &mut Dice| {
            if dice.one_in(8) {
                Value::Null
            } else {
                Value::Int(i64::try_from(dice.below(referred)).unwrap())
            }
        };
        let label = |dice: &mut Dice, prefix: &str, limit| {
            Value::Text(format!("{prefix}{}", dice.below(limit)).into())
        };
        let text = |dice: &mut Dice, prefix: &str, limit| {
            if dice.one_in(10) { Value::Null } else { label(dice, prefix, limit) }
        };
        let amounts = ["1", "1.50", "0.001", "-2.5", "100", "1e-5", "7.00", "0", "0.00"];
        match table {
            1 => {
                let amount = amounts[usize::try_from(dice.below(9)).unwrap()].parse().unwrap();
                vec![
                    Value::Int(id),
                    reference(dice),
                    reference(dice),
                    if dice.one_in(6) { Value::Null } else { Value::Numeric(amount) },
                    label(dice, "s", 3),
                    text(dice, "e", referred),
                ]
            }
            // The email is unique: it goes with the id.
            2 => vec![Value::Int(id), label(dice, "n", 3), Value::Text(format!("e{id}").into())],
            3 => vec![Value::Int(id), text(dice, "v", 3), reference(dice)],
            _ => vec![Value::Int(id), reference(dice), label(dice, "n", 3)],
        }
    }

    /// The captured columns of a whole row.
    fn captured(&self, index: usize, row: &Row) -> Row {
        self.layout.tables[index].columns.iter().map(|c| row[c.catalog].clone()).collect()
    }

    /// The identity's columns of a whole row, the others NULL, as an old key comes.
    fn old_key(&self, index: usize, row: &Row) -> Row {
        let layout = &self.layout.tables[index];
        let identity = identity_columns(self.catalog.by_oid(layout.oid).unwrap()).unwrap();
        layout
            .columns
            .iter()
            .map(
                |c| {
                    if identity.contains(&c.catalog) { row[c.catalog].clone() } else { Value::Null }
                },
            )
            .collect()
    }

    fn step(&mut self) {
        let merged = self.done.iter().any(|done| matches!(done, Done::Merge(_)));
        // Rows that others join are changed in no transaction that another is merged with.
        let tables = if merged { 1 } else { self.layout.tables.len() };
        let index = usize::try_from(self.dice.below(tables as u64)).unwrap();
        let oid = self.layout.tables[index].oid;
        let ids = if oid == 1 { self.scale.bets } else { 7 };
        let id = i64::try_from(self.dice.below(ids)).unwrap();
        let at = self.tables[&oid].iter().position(|row| row[0] == Value::Int(id));
        let change = match at {
            None => {
                let new = self.random_row(oid, id);
                self.tables.get_mut(&oid).unwrap().push(new.clone());
                RowChange::Insert { new: self.captured(index, &new) }
            }
            Some(_) if self.dice.one_in(60) => {
                self.tables.get_mut(&oid).unwrap().clear();
                RowChange::Truncate
            }
            Some(at) if self.dice.one_in(3) => {
                let old = self.tables.get_mut(&oid).unwrap().remove(at);
                RowChange::Delete { old: self.old_key(index, &old) }
            }
            Some(at) => {
                let free = i64::try_from(self.dice.below(ids)).unwrap();
                let taken = self.tables[&oid].iter().any(|row| row[0] == Value::Int(free));
                let moved = !taken && self.dice.one_in(3);
                let new = self.random_row(oid, if moved { free } else { id });
                let old =
                    std::mem::replace(&mut self.tables.get_mut(&oid).unwrap()[at], new.clone());
                let cells: Vec<Option<Value>> = self
                    .captured(index, &new)
                    .into_iter()
                    .zip(self.captured(index, &old))
                    // What did not change may come as "unchanged".
                    .map(
                        |(new, old)| {
                            if new == old && self.dice.one_in(2) { None } else { Some(new) }
                        },
                    )
                    .collect();
                let key = self.old_key(index, &old);
                let cells = if moved {
                    cells
                } else {
                    // The key of an unmoved row always comes.
                    cells
                        .into_iter()
                        .zip(&key)
                        .map(|(c, k)| c.or_else(|| (!k.is_null()).then(|| k.clone())))
                        .collect()
                };
                RowChange::Update { old: moved.then_some(key), new: cells }
            }
        };
        self.change(Done::Change(index, change));
        if !merged && self.dice.one_in(9) {
            self.change(Done::Cut);
        }
    }

    fn steps(&mut self) {
        for _ in 0..=self.dice.below(self.scale.changes_max - 1) {
            self.step();
        }
    }

    /// Merges the transaction with one that commits at `lsn`, or does not.
    fn merge(&mut self, lsn: u64) -> bool {
        let cut = self.done.iter().any(|done| matches!(done, Done::Cut));
        let changes = usize::try_from(self.scale.changes_max).unwrap();
        let merges = !cut && self.dice.one_in(2) && self.engine.may_merge(changes);
        if merges {
            self.change(Done::Merge(lsn));
        }
        merges
    }

    /// Views that are being corrected are left out; what a store is filled again with is what it
    /// holds, even so.
    fn compare(&self, seed: u64, transaction: u64) {
        if self.saved {
            assert_eq!(self.refilled().0, self.held.0, "SEED={seed}, transaction {transaction}");
        }
        let mut expected = Hashes::default();
        let mut held = self.held.0.clone();
        let corrected = self.engine.fan_outs();
        for ((view, target), corrected) in self.views.iter().zip(&self.targets).zip(corrected) {
            if corrected.is_some() {
                held.retain(|key, _| key.split(':').next() != Some(view.name.as_str()));
                continue;
            }
            let (rows, mut failed) = compute(view, &self.tables);
            for row in rows {
                if let Ok(Some(Action::HashReplace { key, fields })) = target.expected(&row) {
                    expected.0.insert(key, fields);
                }
            }
            let at = self.views.iter().position(|known| known.name == view.name).unwrap();
            let letters = letters::page(&self.state, Some(at), None).unwrap();
            let id = |letter: &letters::Letter| {
                letter.key_columns(&self.layout, &self.views)[0].2.clone()
            };
            let mut parked: Vec<Value> = letters.iter().map(id).collect();
            let by_text = |value: &Value| format!("{value:?}");
            parked.sort_by_key(by_text);
            failed.sort_by_key(by_text);
            assert_eq!(parked, failed, "{}: SEED={seed}, transaction {transaction}", view.name);
            let open = letters.iter().filter(|letter| !letter.dropped).count() as u64;
            assert_eq!(self.engine.dead_letters()[at], open, "{}: SEED={seed}", view.name);
        }
        assert_eq!(held, expected.0, "SEED={seed}, transaction {transaction}");
    }

    /// What parts say that stores hold.
    fn check_parts(&self, transaction: u64) {
        let lsn = Lsn(2 * transaction);
        let complete = self.engine.held().map_or(lsn, |held| held.lsn);
        for part in &self.parts {
            assert!(part.complete <= lsn && (!part.ends || part.complete == complete), "{part:?}");
        }
    }

    /// What a Redis that was wiped is filled with.
    fn refilled(&self) -> Hashes {
        let refill = self.engine.refill(0);
        let (mut hashes, mut cursor, mut pages) = (Hashes::default(), Some(Default::default()), 0);
        while let Some(at) = cursor {
            let page = refill.page(&self.state, self.engine.stopped(), at).unwrap();
            for op in OpRef::decode_all(&page.ops).map(|op| op.unwrap().whole().unwrap()) {
                let Action::HashReplace { key, fields } = op.action else { panic!("no hash") };
                assert!(hashes.0.insert(key, fields).is_none(), "a row twice");
            }
            cursor = page.next;
            pages += 1;
        }
        assert!(pages >= self.views.len());
        hashes
    }

    /// Nobody changed the rows, so no replay delivers anything.
    fn handle_letters(&mut self, lsn: u64) {
        self.save();
        self.engine.begin(Lsn(lsn), 0, None);
        for letter in letters::page(&self.state, None, None).unwrap() {
            if self.dice.one_in(3) {
                assert!(self.engine.drop_letter(&mut self.state, &letter.key).unwrap());
            } else {
                let replayed = self.engine.replay(&mut self.state, &letter.key).unwrap();
                assert_eq!(replayed, Replayed::Still(letter.reason.clone()), "{letter:?}");
            }
        }
        self.engine.end_order(&mut self.state).unwrap();
        assert!(self.engine.take_parts().is_empty());
    }

    /// On an idle source.
    fn advance(&mut self, lsn: u64, facts: usize) {
        self.engine.begin(Lsn(lsn), 0, None);
        self.engine.advance(&mut self.state, facts).unwrap();
        self.engine.end_order(&mut self.state).unwrap();
        self.saved = true;
        self.take();
    }

    fn is_correcting(&self) -> bool {
        self.engine.held().is_some()
    }
}

fn perform(engine: &mut Engine, state: &mut MemoryState, done: &Done) {
    match done {
        Done::Change(table, change) => engine.apply(state, *table, change.clone()).unwrap(),
        Done::Cut => {
            engine.cut(state).unwrap();
        }
        Done::Merge(lsn) => {
            engine.merge_with_next();
            engine.begin(Lsn(*lsn), 0, None);
        }
    }
}

/// Returns after how many transactions a view was still being corrected, and how often some were merged.
fn simulate(seed: u64, transactions: u64, scale: Scale) -> (u64, u64) {
    let mut simulation = Simulation::new(seed, scale);
    // The single group is there before the first row.
    let views: Vec<usize> = (0..simulation.views.len()).collect();
    let mut filling = simulation.engine.begin_snapshot(Lsn(1), 0, &views, &[]);
    while simulation.engine.fill(&mut simulation.state, &mut filling).unwrap() {}
    simulation.engine.end_snapshot();
    simulation.take();
    simulation.compare(seed, 0);
    let (mut correcting, mut merged) = (0, 0);
    let mut transaction = 0;
    while transaction < transactions {
        transaction += 1;
        let before = simulation.saved.then(|| simulation.state.clone());
        let (first, held) = (transaction, simulation.held.clone());
        simulation.done.clear();
        simulation.parts.clear();
        simulation.engine.begin(Lsn(2 * transaction), 0, None);
        simulation.steps();
        while simulation.merge(2 * (transaction + 1)) {
            transaction += 1;
            simulation.steps();
        }
        simulation.engine.commit(&mut simulation.state).unwrap();
        simulation.saved = false;
        if simulation.dice.one_in(2) {
            simulation.save();
        }
        simulation.take();
        if transaction > first {
            merged += 1;
            if simulation.saved
                && let Some(before) = before.clone()
            {
                simulation.die_unmerged(before, held, 2 * first);
            }
        }
        simulation.check_parts(transaction);
        simulation.compare(seed, transaction);
        if simulation.is_correcting() {
            correcting += 1;
            if simulation.dice.one_in(2)
                && let Some(before) = before
            {
                simulation.die(before, 2 * first);
            }
            if simulation.dice.one_in(3) {
                let facts = simulation.dice.below(4);
                simulation.advance(2 * transaction + 1, usize::try_from(facts).unwrap());
                simulation.compare(seed, transaction);
            }
        }
        if simulation.dice.one_in(8) {
            simulation.handle_letters(2 * transaction + 1);
            simulation.compare(seed, transaction);
        }
    }
    simulation.advance(2 * transactions + 1, usize::MAX);
    assert!(!simulation.is_correcting());
    simulation.compare(seed, transactions);
    assert!(simulation.engine.stopped().iter().all(Option::is_none));
    (correcting, merged)
}

#[test]
fn views_equal_their_computation_from_scratch() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    for seed in seed.map_or_else(|| (1..=12).collect(), |seed: u64| vec![seed]) {
        let (_, merged) = simulate(seed.wrapping_mul(0x9E37_79B9), 250, Scale::AT_ONCE);
        assert!(merged > 10, "SEED={seed}: {merged} merges alone");
    }
}

/// A store to which nothing more comes of a merge would wait for the end of what it has.
#[test]
fn what_a_merged_transaction_has_told_ends() {
    let of = Simulation::new(1, Scale::AT_ONCE);
    let apart = |target: Target| Target { store: target.view.min(1), ..target };
    let mut engine =
        Engine::new(of.layout.clone(), of.bound.iter().cloned().map(apart).collect(), 2, 1);
    let mut state = MemoryState::default();
    engine.begin(Lsn(2), 0, None);
    let text = |len| Value::Text("s".repeat(len).into());
    let bet = vec![Value::Int(1), Value::Null, Value::Null, Value::Null, text(2 << 20), text(1)];
    let change = RowChange::Insert { new: of.captured(0, &bet) };
    engine.apply(&mut state, 0, change).unwrap();
    let ends =
        |parts: Vec<Part>| parts.iter().map(|part| (part.store, part.ends)).collect::<Vec<_>>();
    assert!(ends(engine.take_parts()).contains(&(0, false)));
    assert!(engine.may_merge(1));
    engine.merge_with_next();
    engine.begin(Lsn(4), 0, None);
    engine.commit(&mut state).unwrap();
    assert!(ends(engine.take_parts()).contains(&(0, true)));
}

/// Rows that more facts join than are corrected at once, all the time.
#[test]
fn views_that_are_corrected_in_steps_equal_their_computation_from_scratch() {
    let number = |name| std::env::var(name).ok().and_then(|number| number.parse().ok());
    let seeds = number("SEEDS").unwrap_or(12);
    for seed in number("SEED").map_or_else(|| (1..=seeds).collect(), |seed: u64| vec![seed]) {
        let of = |limit: u64, by: u64| usize::try_from(seed / by % limit).unwrap();
        let at_once_max = of(4, 1);
        let pace = Pace { at_once_max, deferred_max: at_once_max, step: of(3, 4) };
        let scale = Scale { bets: 40, referred: 3, changes_max: 2 + seed % 5, pace };
        let (correcting, _) = simulate(seed.wrapping_mul(0x9E37_79B9), 250, scale);
        assert!(correcting > 10, "SEED={seed}: after {correcting} transactions alone");
    }
}
