//! The file as written: the tree's nodes under the names that the format gives them.
//!
//! This step knows which keys exist and what shape a value has. Whether values make sense together
//! is the next step's ([`super::validate`]).

use walview_core::diagnostic::{Diagnostic, Place};

use super::env::mentions_variable;
use super::sql::SqlText;
use super::suggest;
use super::yaml::{Node, Style, Text, Value, quoted};

/// The keys of one kind of mapping. `schemas/pipeline.schema.json` has the same, and a test compares.
pub(super) struct Keys {
    /// What the mapping is, for messages: `a view`.
    pub(super) what: &'static str,
    pub(super) known: &'static [&'static str],
    /// Part of the format, not built yet: refused by name, so that nobody takes them for typos.
    pub(super) later: &'static [&'static str],
    /// What others call it, and what it is called here.
    pub(super) hints: &'static [(&'static str, &'static str)],
}

pub(super) const ROOT: Keys = Keys {
    what: "a pipeline",
    known: &["pipeline", "source", "stores", "views"],
    later: &["rebuild", "atomic_max"],
    hints: &[("name", "pipeline"), ("store", "stores"), ("view", "views"), ("sources", "source")],
};
pub(super) const SOURCE: Keys = Keys {
    what: "the source",
    known: &["url", "password_file", "schema"],
    later: &[],
    hints: &[("password", "password_file")],
};
pub(super) const STORE: Keys = Keys {
    what: "a store",
    known: &["kind", "url", "password_file", "database"],
    later: &["schema"],
    hints: &[("password", "password_file"), ("type", "kind")],
};
pub(super) const VIEW: Keys = Keys {
    what: "a view",
    known: &["name", "sql", "to"],
    later: &[],
    hints: &[("query", "sql"), ("target", "to"), ("targets", "to"), ("view", "name")],
};

/// A mapping whose keys are known to be its own.
#[derive(Clone, Debug)]
pub(super) struct Map<'n> {
    pub(super) place: Place,
    entries: &'n [(Text, Node)],
    /// What misspelt keys were probably meant to be: these are not missing, too.
    meant: Vec<&'static str>,
}

impl<'n> Map<'n> {
    pub(super) fn get(&self, key: &str) -> Option<&'n Node> {
        self.entries.iter().find(|(k, _)| k.text == key).map(|(_, node)| node)
    }

    /// Where the key stands, or the mapping where there is none.
    pub(super) fn key_place(&self, key: &str) -> Place {
        self.entries.iter().find(|(k, _)| k.text == key).map_or(self.place, |(k, _)| k.place)
    }

    pub(super) fn was_meant(&self, key: &str) -> bool {
        self.meant.contains(&key)
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &'n Text> {
        self.entries.iter().map(|(key, _)| key)
    }
}

/// Everything found wrong so far.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) list: Vec<Diagnostic>,
}

impl Found {
    pub(super) fn push(
        &mut self,
        place: Place,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.list.push(Diagnostic::new(place, message.into(), remedy.into()));
    }

    /// The node as a mapping; keys that are not in `keys` are reported.
    pub(super) fn map<'n>(&mut self, node: &'n Node, keys: &Keys) -> Option<Map<'n>> {
        let entries = match &node.value {
            Value::Map(entries) => entries,
            Value::Refused => return None,
            Value::Null | Value::Scalar(_) | Value::List(_) => {
                let remedy = format!("write keys: {}", keys.known.join(", "));
                self.push(node.place, format!("{} must be a mapping", keys.what), remedy);
                return None;
            }
        };
        let mut meant = Vec::new();
        for (key, _) in entries {
            let name = key.text.as_str();
            if keys.known.contains(&name) {
                continue;
            }
            if keys.later.contains(&name) {
                self.not_yet(key.place, &format!("\"{name}\""));
                continue;
            }
            let hint = keys.hints.iter().find(|(other, _)| *other == name);
            let all = || keys.known.iter().chain(keys.later).copied();
            let near = hint.map(|(_, ours)| *ours).or_else(|| suggest::closest(name, all()));
            let remedy = match near {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => format!("known here: {}", keys.known.join(", ")),
            };
            meant.extend(near);
            self.push(key.place, format!("{} has no key {}", keys.what, quoted(name)), remedy);
        }
        Some(Map { place: node.place, entries, meant })
    }

    pub(super) fn not_yet(&mut self, place: Place, what: &str) {
        self.push(place, format!("{what} is not supported yet"), "leave it out for now");
    }

    /// The value of a key that must be there, as text.
    pub(super) fn required(&mut self, map: &Map<'_>, key: &str, what: &str) -> Option<Text> {
        match map.get(key) {
            Some(node) => self.text(node, key),
            None => {
                self.missing(map, key, what, format!("add {key}: …"));
                None
            }
        }
    }

    /// Unless it is there under a misspelt name.
    pub(super) fn missing(
        &mut self,
        map: &Map<'_>,
        key: &str,
        what: &str,
        remedy: impl Into<String>,
    ) {
        if !map.was_meant(key) {
            self.push(map.place, format!("{what} has no \"{key}\""), remedy);
        }
    }

    pub(super) fn optional(&mut self, map: &Map<'_>, key: &str) -> Option<Text> {
        map.get(key).and_then(|node| self.text(node, key))
    }

    /// A text that is not empty.
    pub(super) fn text(&mut self, node: &Node, key: &str) -> Option<Text> {
        match &node.value {
            Value::Scalar(scalar) if !scalar.text.trim().is_empty() => {
                if matches!(scalar.style, Style::Plain | Style::Quoted) {
                    return Some(Text { place: node.place, text: scalar.text.clone() });
                }
                self.push(
                    node.place,
                    format!("\"{key}\" must be one line"),
                    "only sql: is written as a block",
                );
            }
            Value::Scalar(_) | Value::Null => {
                self.push(node.place, format!("\"{key}\" is empty"), "");
            }
            Value::Map(_) => self.push(
                node.place,
                format!("\"{key}\" must be a text, not a mapping"),
                "quote texts that hold braces: \"bets:{id}\"",
            ),
            Value::List(_) => {
                self.push(node.place, format!("\"{key}\" must be a text, not a list"), "");
            }
            Value::Refused => {}
        }
        None
    }

    /// A list that is not empty.
    pub(super) fn list<'n>(
        &mut self,
        node: &'n Node,
        key: &str,
        example: &str,
    ) -> Option<&'n [Node]> {
        match &node.value {
            Value::List(list) if !list.is_empty() => return Some(list),
            Value::List(_) | Value::Null => {
                self.push(node.place, format!("\"{key}\" is empty"), example);
            }
            Value::Scalar(_) | Value::Map(_) => {
                self.push(node.place, format!("\"{key}\" must be a list"), example);
            }
            Value::Refused => {}
        }
        None
    }
}

#[derive(Debug)]
pub(super) struct RawConfig<'n> {
    pub(super) name: Option<Text>,
    pub(super) source: Option<RawSource>,
    /// `None` where they are missing or no mapping: then a target's store cannot be wrong.
    pub(super) stores: Option<Vec<RawStore>>,
    pub(super) views: Vec<RawView<'n>>,
}

#[derive(Debug)]
pub(super) struct RawSource {
    pub(super) url: Option<Text>,
    pub(super) password_file: Option<Text>,
    pub(super) schema: Option<Text>,
}

#[derive(Debug)]
pub(super) struct RawStore {
    pub(super) name: Text,
    pub(super) kind: Option<Text>,
    pub(super) url: Option<Text>,
    pub(super) password_file: Option<Text>,
    pub(super) database: Option<Text>,
}

#[derive(Debug)]
pub(super) struct RawView<'n> {
    pub(super) name: Option<Text>,
    pub(super) sql: Option<SqlText>,
    pub(super) targets: Vec<RawTarget<'n>>,
}

/// `- STORE: { … }`; which keys its options may have depends on the store's kind.
#[derive(Debug)]
pub(super) struct RawTarget<'n> {
    pub(super) store: &'n Text,
    pub(super) options: &'n Node,
}

/// The file's parts. Faults leave gaps, so that the rest is still checked.
pub(super) fn read<'n>(root: &'n Node, found: &mut Found) -> Option<RawConfig<'n>> {
    let map = found.map(root, &ROOT)?;
    for key in map.keys().filter(|key| !["source", "stores"].contains(&key.text.as_str())) {
        if let Some(node) = map.get(&key.text) {
            refuse_variables(node, found);
        }
    }
    let name = found.required(&map, "pipeline", "the file");
    let source = match map.get("source") {
        Some(node) => read_source(node, found),
        None => {
            found.missing(&map, "source", "the file", "add source: { url: … }");
            None
        }
    };
    let stores = match map.get("stores") {
        Some(node) => read_stores(node, found),
        None => {
            found.missing(&map, "stores", "the file", "add stores: { redis: { url: … } }");
            None
        }
    };
    let views = match map.get("views") {
        Some(node) => read_views(node, found),
        None => {
            found.missing(&map, "views", "the file", "add views: with one view or more");
            Vec::new()
        }
    };
    Some(RawConfig { name, source, stores, views })
}

/// `${X}` outside `source` and `stores` would make one file mean different views in different
/// places, with nothing in the file to show it.
fn refuse_variables(node: &Node, found: &mut Found) {
    match &node.value {
        Value::Null | Value::Refused => {}
        Value::Scalar(scalar) => {
            if mentions_variable(&scalar.text) {
                let place = match scalar.style {
                    Style::Literal { first_line, indent } => {
                        in_block(&scalar.text, first_line, indent)
                    }
                    Style::Plain | Style::Quoted | Style::Folded => node.place,
                };
                found.push(
                    place,
                    "variables (\"${…}\") work in \"source\" and \"stores\" only",
                    "write the text out; in SQL, '$' || '{' is the two characters",
                );
            }
        }
        Value::List(list) => list.iter().for_each(|node| refuse_variables(node, found)),
        Value::Map(entries) => {
            entries.iter().for_each(|(_, node)| refuse_variables(node, found));
        }
    }
}

fn in_block(text: &str, first_line: u32, indent: u32) -> Place {
    let sql = SqlText { text: text.to_owned(), first_line, indent };
    let number = |n: usize| u32::try_from(n + 1).unwrap_or(u32::MAX);
    for (index, line) in text.lines().enumerate() {
        if let Some((before, _)) = line.split_once("${") {
            let column = number(before.chars().count());
            return sql.in_file(Place { line: number(index), column });
        }
    }
    sql.in_file(Place { line: 1, column: 1 })
}

fn read_source(node: &Node, found: &mut Found) -> Option<RawSource> {
    let map = found.map(node, &SOURCE)?;
    Some(RawSource {
        url: found.required(&map, "url", "the source"),
        password_file: found.optional(&map, "password_file"),
        schema: found.optional(&map, "schema"),
    })
}

fn read_stores(node: &Node, found: &mut Found) -> Option<Vec<RawStore>> {
    let example = "write stores: { redis: { url: … } }";
    let entries = match &node.value {
        Value::Map(entries) if !entries.is_empty() => entries,
        Value::Refused => return None,
        Value::Null | Value::Map(_) => {
            found.push(node.place, "\"stores\" is empty", example);
            return None;
        }
        Value::Scalar(_) | Value::List(_) => {
            found.push(node.place, "\"stores\" must be a mapping of names to stores", example);
            return None;
        }
    };
    let mut stores = Vec::new();
    for (name, node) in entries {
        let map = found.map(node, &STORE);
        let mut optional = |key| map.as_ref().and_then(|map| found.optional(map, key));
        let (kind, password_file, database) =
            (optional("kind"), optional("password_file"), optional("database"));
        let what = format!("store {}", quoted(&name.text));
        let url = map.as_ref().and_then(|map| found.required(map, "url", &what));
        stores.push(RawStore { name: name.clone(), kind, url, password_file, database });
    }
    Some(stores)
}

fn read_views<'n>(node: &'n Node, found: &mut Found) -> Vec<RawView<'n>> {
    let list = found.list(node, "views", "write - name: …, sql: | and to: for each");
    let mut views = Vec::new();
    for node in list.unwrap_or_default() {
        if let Some(map) = found.map(node, &VIEW) {
            let name = found.required(&map, "name", "a view");
            let what = name
                .as_ref()
                .map_or("a view".to_owned(), |name| format!("view {}", quoted(&name.text)));
            let sql = read_sql(&map, &what, found);
            let targets = read_targets(&map, &what, found);
            views.push(RawView { name, sql, targets });
        }
    }
    views
}

fn read_sql(map: &Map<'_>, what: &str, found: &mut Found) -> Option<SqlText> {
    let Some(node) = map.get("sql") else {
        found.missing(map, "sql", what, "add sql: | and a SELECT below");
        return None;
    };
    let place = map.key_place("sql");
    match &node.value {
        Value::Scalar(scalar) => {
            if scalar.text.trim().is_empty() {
                found.push(place, "\"sql\" is empty", "write a SELECT, indented, below sql: |");
                return None;
            }
            if let Style::Literal { first_line, indent } = scalar.style {
                return Some(SqlText { text: scalar.text.clone(), first_line, indent });
            }
            found.push(
                place,
                "SQL must be a literal block",
                "write \"sql: |\" and the SELECT on the next lines, indented: otherwise YAML \
                 takes \" #>>\" for a comment and folds lines, so that \"--\" swallows the rest",
            );
        }
        Value::Null => {
            found.push(place, "\"sql\" is empty", "write a SELECT, indented, below sql: |");
        }
        Value::List(_) | Value::Map(_) => {
            found.push(place, "SQL must be a literal block", "write sql: | and a SELECT below");
        }
        Value::Refused => {}
    }
    None
}

fn read_targets<'n>(map: &Map<'n>, what: &str, found: &mut Found) -> Vec<RawTarget<'n>> {
    let Some(node) = map.get("to") else {
        let remedy = "add to: with a list of targets, such as - redis: { hash: \"…\" }";
        found.missing(map, "to", what, remedy);
        return Vec::new();
    };
    let list = found.list(node, "to", "write - STORE: { … } for each target");
    let mut targets = Vec::new();
    for node in list.unwrap_or_default() {
        match &node.value {
            Value::Map(entries) => {
                if let [(store, options)] = entries.as_slice() {
                    targets.push(RawTarget { store, options });
                } else {
                    found.push(
                        node.place,
                        "a target is one store and its options",
                        "begin each target with \"- STORE:\" and indent its options below",
                    );
                }
            }
            Value::Refused => {}
            Value::Null | Value::Scalar(_) | Value::List(_) => {
                found.push(node.place, "a target must be a mapping", "write - STORE: { … }");
            }
        }
    }
    targets
}
