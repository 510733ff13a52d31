//! The two sides of a comparison, by key.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use walview_core::engine::TargetKind;
use walview_core::plan::View;
use walview_core::target::clickhouse;
use walview_core::target::redis::Action;
use walview_core::value::Row;

/// What stands under a key, in one of the two forms.
#[derive(Clone, Debug)]
pub(super) enum Content {
    Redis(Action),
    ClickHouse(Vec<Option<String>>),
    /// Two rows claim the key, which no store can show: never equal to anything.
    Twice,
}

impl Content {
    fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Redis(left), Self::Redis(right)) => left.holds_the_same(right),
            (Self::ClickHouse(left), Self::ClickHouse(right)) => left == right,
            _ => false,
        }
    }
}

fn same(left: Option<&Content>, right: Option<&Content>) -> bool {
    match (left, right) {
        (None, None) => true,
        (Some(left), Some(right)) => left.same(right),
        _ => false,
    }
}

type Contents = BTreeMap<String, Content>;

fn put(contents: &mut Contents, key: String, content: Content) {
    match contents.entry(key) {
        Entry::Vacant(entry) => {
            entry.insert(content);
        }
        // A SCAN may return a key twice.
        Entry::Occupied(mut entry) if !entry.get().same(&content) => {
            entry.insert(Content::Twice);
        }
        Entry::Occupied(mut entry) => {
            if matches!(content, Content::ClickHouse(_)) {
                entry.insert(Content::Twice);
            }
        }
    }
}

/// What the store should hold.
#[derive(Default)]
pub(super) struct Expected {
    contents: Contents,
    pub(super) rows: u64,
    /// Rows that have no place in the target.
    pub(super) parked: u64,
}

impl Expected {
    pub(super) fn add(&mut self, kind: &TargetKind, view: &View, row: &Row) {
        self.rows += 1;
        match kind {
            TargetKind::Redis(target) => match target.expected(row) {
                Ok(Some(action)) => {
                    put(&mut self.contents, redis_key(&action), Content::Redis(action));
                }
                Ok(None) => {}
                Err(_) => self.parked += 1,
            },
            TargetKind::ClickHouse(target) => match target.expected(row) {
                Ok(texts) => {
                    let key = clickhouse_key(target, view, &texts);
                    put(&mut self.contents, key, Content::ClickHouse(texts));
                }
                Err(_) => self.parked += 1,
            },
        }
    }
}

/// What the store holds.
#[derive(Default)]
pub(super) struct Held {
    contents: Contents,
}

impl Held {
    pub(super) fn redis(&mut self, action: Action) {
        put(&mut self.contents, redis_key(&action), Content::Redis(action));
    }

    pub(super) fn clickhouse(
        &mut self,
        target: &clickhouse::Target,
        view: &View,
        row: Vec<Option<String>>,
    ) {
        let key = clickhouse_key(target, view, &row);
        put(&mut self.contents, key, Content::ClickHouse(row));
    }
}

fn redis_key(action: &Action) -> String {
    match action.member() {
        Some(member) => format!("{} member {member}", action.key()),
        None => action.key().to_owned(),
    }
}

/// The values of the result's key where the target shows them all; else of the whole row.
fn clickhouse_key(target: &clickhouse::Target, view: &View, texts: &[Option<String>]) -> String {
    let shown: Vec<(&str, Option<&str>)> = target
        .shown()
        .zip(texts)
        .map(|(column, text)| (column.name.as_str(), text.as_deref()))
        .collect();
    let part = |name: &str| {
        shown
            .iter()
            .find(|(shown, _)| *shown == name)
            .map(|(name, text)| format!("{name}={}", text.unwrap_or("NULL")))
    };
    let names = view.key.iter().filter_map(|column| view.columns.get(*column));
    let parts: Option<Vec<String>> = names.map(|column| part(&column.name)).collect();
    match parts {
        Some(parts) if !parts.is_empty() => parts.join(" "),
        Some(_) => "the only row".to_owned(),
        None => shown.iter().filter_map(|(name, _)| part(name)).collect::<Vec<_>>().join(" "),
    }
}

/// A key that differs, with both sides.
#[derive(Clone, Debug)]
pub(super) struct Difference {
    key: String,
    expected: Option<Content>,
    held: Option<Content>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match (&self.expected, &self.held) {
            (_, None) => "missing",
            (None, _) => "extra",
            (Some(_), Some(_)) => "value",
        };
        write!(f, "{what} {}", self.key)
    }
}

#[derive(Default)]
pub(super) struct Differences(BTreeMap<String, Difference>);

impl Differences {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Splits off what differed `before` in the very same way: both sides stood still.
    pub(super) fn split_settled(self, before: &Self) -> (Vec<Difference>, Self) {
        let (mut settled, mut rest) = (Vec::new(), BTreeMap::new());
        for (key, difference) in self.0 {
            let still = before.0.get(&key).is_some_and(|earlier| {
                same(earlier.expected.as_ref(), difference.expected.as_ref())
                    && same(earlier.held.as_ref(), difference.held.as_ref())
            });
            if still {
                settled.push(difference);
            } else if before.0.contains_key(&key) {
                rest.insert(key, difference);
            }
        }
        (settled, Self(rest))
    }
}

pub(super) fn compare(kind: &TargetKind, expected: Expected, held: Held) -> Differences {
    let mut differences = BTreeMap::new();
    let mut held = held.contents;
    for (key, wanted) in expected.contents {
        let found = held.remove(&key);
        if !same(Some(&wanted), found.as_ref()) {
            let difference = Difference { key: key.clone(), expected: Some(wanted), held: found };
            differences.insert(key, difference);
        }
    }
    for (key, found) in held {
        let remains = match (kind, &found) {
            (TargetKind::Redis(target), Content::Redis(action)) => target.may_remain(action),
            _ => false,
        };
        if !remains {
            differences.insert(key.clone(), Difference { key, expected: None, held: Some(found) });
        }
    }
    Differences(differences)
}
