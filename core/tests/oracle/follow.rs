//! The engine behind a slot: messages in, keys out, and the keys that there should be.

use crate::differs_by_version;
use std::collections::{BTreeMap, HashMap};
use walview_core::catalog::Catalog;
use walview_core::engine::{Engine, Layout, MemoryState, RowChange, Target, TargetKind, letters};
use walview_core::pgoutput::{self, Cell, Message, Old, Tuple};
use walview_core::plan::View;
use walview_core::position::Lsn;
use walview_core::target::redis::{self, Action, OpRef};
use walview_core::target::template::Template;
use walview_core::value::{Row, Value};

/// Key to fields, of all views.
pub(crate) type Keys = BTreeMap<String, Vec<(String, String)>>;

pub(crate) struct Follower {
    layout: Layout,
    engine: Engine,
    state: MemoryState,
    /// By table, the rows that stand before the slot, until they are copied.
    loaded: Vec<Vec<Row>>,
    /// The number of each view in its round, and its target.
    views: Vec<(usize, View, redis::Target)>,
    held: Keys,
    /// By relation: the table of the layout, and the captured column of each cell.
    relations: HashMap<u32, (usize, Vec<Option<usize>>)>,
    changes: usize,
}

impl Follower {
    /// Views that have no key for a hash, and tables that cannot be followed, are left out.
    pub(crate) fn new(catalog: &Catalog, views: Vec<(usize, View)>) -> Self {
        let mut bound = Vec::new();
        for (index, view) in views {
            if Layout::new(std::slice::from_ref(&view), catalog).is_err() {
                continue;
            }
            let keys = view.key.iter().map(|key| format!(":{{{}}}", view.columns[*key].name));
            let template = format!("{}{}", view.name, keys.collect::<String>());
            let spec = redis::Spec {
                template: Template::parse(&template).unwrap(),
                shape: redis::SpecShape::Hash,
                fields: None,
            };
            if let Ok(target) = redis::Target::bind(&spec, &view) {
                bound.push((index, view, target));
            }
        }
        let plans: Vec<View> = bound.iter().map(|(_, view, _)| view.clone()).collect();
        let layout = Layout::new(&plans, catalog).unwrap();
        let targets = bound
            .iter()
            .enumerate()
            .map(|(at, (_, _, target))| Target {
                view: at,
                store: 0,
                number: u16::try_from(at).unwrap(),
                kind: TargetKind::Redis(target.clone()),
            })
            .collect();
        Self {
            engine: Engine::new(layout.clone(), targets, 1, 1),
            loaded: vec![Vec::new(); layout.tables.len()],
            layout,
            state: MemoryState::default(),
            views: bound,
            held: Keys::new(),
            relations: HashMap::new(),
            changes: 0,
        }
    }

    pub(crate) fn views(&self) -> impl Iterator<Item = (usize, &View)> {
        self.views.iter().map(|(index, view, _)| (*index, view))
    }

    pub(crate) fn view(&self, index: usize) -> &View {
        self.views().find(|(at, _)| *at == index).unwrap().1
    }

    pub(crate) fn nothing(&self) -> Keys {
        Keys::new()
    }

    /// A row of a table as it stands before the slot.
    pub(crate) fn load(&mut self, table: &str, cells: &[Option<String>]) {
        let Some(at) = self.layout.tables.iter().position(|layout| layout.name == table) else {
            return;
        };
        let row: Row = self.layout.tables[at]
            .columns
            .iter()
            .map(|column| match &cells[column.catalog] {
                None => Value::Null,
                Some(text) => Value::from_server(&column.ty, text).unwrap(),
            })
            .collect();
        self.loaded[at].push(row);
    }

    /// Copies what was loaded as the service does: tables in their order, with the views that can be
    /// computed meanwhile.
    pub(crate) fn snapshot(&mut self) {
        let order = self.engine.load_order();
        let loaded: Vec<usize> = order.iter().flat_map(|(_, views)| views).copied().collect();
        let views: Vec<usize> = (0..self.views.len()).collect();
        let mut filling = self.engine.begin_snapshot(Lsn(1), 0, &views, &loaded);
        for (table, views) in order {
            for row in std::mem::take(&mut self.loaded[table]) {
                self.engine.load(&mut self.state, table, &row, &views).unwrap();
            }
        }
        while self.engine.fill(&mut self.state, &mut filling).unwrap() {}
        self.engine.end_snapshot();
        self.take();
    }

    pub(crate) fn change(&mut self, bytes: &[u8]) {
        match pgoutput::decode(bytes).unwrap() {
            Message::Begin(begin) => self.engine.begin(begin.commit_lsn, begin.committed_at, None),
            Message::Commit(_) => {
                self.engine.commit(&mut self.state).unwrap();
                self.take();
            }
            Message::Relation(relation) => {
                let tables = &self.layout.tables;
                if let Some(at) = tables.iter().position(|table| table.name == relation.name) {
                    let place = |name: &str| tables[at].columns.iter().position(|c| c.name == name);
                    let cells = relation.columns.iter().map(|column| place(column.name)).collect();
                    self.relations.insert(relation.oid, (at, cells));
                }
            }
            Message::Insert { relation, new } => {
                if let Some((table, new)) = self.row(relation, &new) {
                    let new = new.into_iter().map(Option::unwrap).collect();
                    self.apply(table, RowChange::Insert { new });
                }
            }
            Message::Update { relation, old, new } => {
                let old = old.and_then(|old| self.old(relation, &old));
                if let Some((table, mut new)) = self.row(relation, &new) {
                    // A key column that is stored out of line comes with the old row only.
                    for column in self.layout.tables[table].identity.clone() {
                        if let (None, Some(old)) = (&new[column], &old) {
                            new[column] = Some(old[column].clone());
                        }
                    }
                    self.apply(table, RowChange::Update { old, new });
                }
            }
            Message::Delete { relation, old } => {
                if let Some(old) = self.old(relation, &old) {
                    let table = self.relations[&relation].0;
                    self.apply(table, RowChange::Delete { old });
                }
            }
            Message::Truncate(truncate) => {
                for relation in truncate.relations() {
                    if let Some((table, _)) = self.relations.get(&relation) {
                        self.apply(*table, RowChange::Truncate);
                    }
                }
            }
            Message::Origin { .. } | Message::Type(_) | Message::Logical { .. } => {}
        }
    }

    fn apply(&mut self, table: usize, change: RowChange) {
        self.engine.apply(&mut self.state, table, change).unwrap();
        self.changes += 1;
        // Where a transaction is cut must not matter.
        if self.changes.is_multiple_of(11) {
            self.engine.cut(&mut self.state).unwrap();
            self.take();
        }
    }

    fn old(&self, relation: u32, old: &Old<'_>) -> Option<Row> {
        let (Old::Key(tuple) | Old::Full(tuple)) = old;
        let (_, cells) = self.row(relation, tuple)?;
        Some(cells.into_iter().map(|cell| cell.unwrap_or(Value::Null)).collect())
    }

    fn row(&self, relation: u32, tuple: &Tuple<'_>) -> Option<(usize, Vec<Option<Value>>)> {
        let (table, places) = self.relations.get(&relation)?;
        let columns = &self.layout.tables[*table].columns;
        let mut row = vec![Some(Value::Null); columns.len()];
        for (cell, place) in tuple.cells().zip(places) {
            let Some(place) = *place else { continue };
            row[place] = match cell {
                Cell::Null => Some(Value::Null),
                Cell::Unchanged => None,
                Cell::Text(bytes) => {
                    let text = std::str::from_utf8(bytes).unwrap();
                    Some(Value::from_server(&columns[place].ty, text).unwrap())
                }
                Cell::Binary(_) => panic!("binary was not asked for"),
            };
        }
        Some((*table, row))
    }

    fn take(&mut self) {
        for part in self.engine.take_parts() {
            for op in OpRef::decode_all(&part.ops).map(|op| op.unwrap().whole().unwrap()) {
                match op.action {
                    Action::HashReplace { key, fields } if !fields.is_empty() => {
                        self.held.insert(key, fields);
                    }
                    Action::HashReplace { key, .. } | Action::Del { key } => {
                        self.held.remove(&key);
                    }
                    Action::Set { .. }
                    | Action::SetAdd { .. }
                    | Action::SetRem { .. }
                    | Action::ZAdd { .. }
                    | Action::ZRem { .. }
                    | Action::StreamAdd { .. } => panic!("a hash target made no hash operation"),
                }
            }
        }
    }

    /// What a result row of PostgreSQL should have left.
    pub(crate) fn expect(&self, view: usize, row: &Row, keys: &mut Keys) {
        let (_, _, target) = self.views.iter().find(|(at, ..)| *at == view).unwrap();
        if let Ok(Some(Action::HashReplace { key, fields })) = target.expected(row)
            && !fields.is_empty()
        {
            let twice = keys.insert(key, fields);
            assert!(twice.is_none(), "two rows of view {view} have one key");
        }
    }

    /// Facts that a view leaves out because versions of PostgreSQL differ over them: the view, and
    /// the id as the server casts it to text.
    pub(crate) fn parked_by_version(&self, major: u32) -> Vec<(usize, String)> {
        let plans: Vec<View> = self.views.iter().map(|(_, view, _)| view.clone()).collect();
        let mut parked = Vec::new();
        let mut after = None;
        loop {
            let page = letters::page(&self.state, None, after.as_deref()).unwrap();
            let Some(last) = page.last() else { return parked };
            after = Some(last.key.clone());
            for letter in page.iter().filter(|letter| letter.target.is_none()) {
                // "division by zero (SQLSTATE 22012)"
                let (message, _) = letter.reason.rsplit_once(" (").unwrap();
                if differs_by_version(major, message, true) {
                    let columns = letter.key_columns(&self.layout, &plans);
                    let [(name, ty, id)] = columns.as_slice() else { panic!("{columns:?}") };
                    assert_eq!(name, "id");
                    parked.push((self.views[letter.view].0, id.to_text(ty)));
                }
            }
        }
    }

    /// Views that differ, and how; a view that stopped differs.
    pub(crate) fn compare(&self, expected: &Keys) -> Vec<(usize, String)> {
        let mut wrong = Vec::new();
        for (at, (index, view, _)) in self.views.iter().enumerate() {
            if let Some(why) = &self.engine.stopped()[at] {
                wrong.push((*index, format!("stopped: {why}")));
            }
            let of = |keys: &Keys| -> Keys {
                let own =
                    |key: &str| key == view.name || key.starts_with(&format!("{}:", view.name));
                keys.iter()
                    .filter(|(key, _)| own(key))
                    .map(|(k, v)| (k.clone(), v.clone()))
                    .collect()
            };
            let (ours, theirs) = (of(&self.held), of(expected));
            for key in ours.keys().chain(theirs.keys()) {
                let (a, b) = (ours.get(key), theirs.get(key));
                if a != b {
                    wrong.push((*index, format!("{key}\n  ours   {a:?}\n  theirs {b:?}")));
                    break;
                }
            }
        }
        wrong
    }
}
