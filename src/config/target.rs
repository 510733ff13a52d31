//! Targets: what stands under a view's `to:`, checked by the kind of its store.
//!
//! Each shape of a Redis target has its own keys, so that an option that would do nothing (`maxlen`
//! of a hash) is refused instead of ignored.

use walview_core::diagnostic::Place;
use walview_core::target::{Event, Events, clickhouse, redis, template::Template};

use super::env::mentions_variable;
use super::raw::{Found, Keys, Map};
use super::suggest;
use super::yaml::{Node, Style, Text, Value, quoted};

/// Options of the format that this version does not have yet.
const LATER_REDIS: &[&str] = &["channel", "expires", "deletes", "when", "shape", "unfit"];
const LATER_CLICKHOUSE: &[&str] = &["changelog", "expires", "deletes"];

/// Every key that some Redis target has.
pub(super) const REDIS: Keys = Keys {
    what: "a Redis target",
    known: &[
        "string", "hash", "json", "set", "zset", "stream", "value", "empty", "fields", "numbers",
        "member", "score", "events", "maxlen", "snapshot",
    ],
    later: LATER_REDIS,
    hints: &[("on", "events"), ("key", "string"), ("columns", "fields"), ("max_len", "maxlen")],
};

/// The shapes: the key that names one, and the options that go with it.
const SHAPES: [(&str, &[&str]); 6] = [
    ("string", &["value", "empty"]),
    ("hash", &["fields"]),
    ("json", &["fields", "numbers"]),
    ("set", &["member"]),
    ("zset", &["member", "score"]),
    ("stream", &["fields", "events", "maxlen", "snapshot"]),
];

pub(super) const CLICKHOUSE: Keys = Keys {
    what: "a ClickHouse target",
    known: &["table", "order_by", "partition_by", "types", "fields", "unfit"],
    later: LATER_CLICKHOUSE,
    hints: &[("primary_key", "order_by"), ("name", "table"), ("columns", "fields")],
};

const EVENTS: [(&str, Event); 3] =
    [("insert", Event::Insert), ("update", Event::Update), ("delete", Event::Delete)];

/// `ClickHouse` itself takes more; a name that needs quoting is a trap for whoever queries it.
const TABLE_CHARS_MAX: usize = 128;

/// Walview's own keys and tables begin like this.
const RESERVED_KEY: &str = "walview:";
const RESERVED_TABLE: &str = "walview_";

/// Where each option of a target stands, and the column names that it holds.
#[derive(Debug, Default)]
pub(super) struct Places {
    pub(super) options: Vec<(String, Place)>,
    /// Result columns that the target names: option, column, place.
    pub(super) columns: Vec<(String, Text)>,
}

impl Places {
    fn column(&mut self, option: &str, name: &Text) {
        self.columns.push((option.to_owned(), name.clone()));
    }
}

fn option_places(map: &Map<'_>) -> Places {
    let options = map.keys().map(|key| (key.text.clone(), key.place)).collect();
    Places { options, columns: Vec::new() }
}

pub(super) fn read_redis(node: &Node, found: &mut Found) -> Option<(redis::Spec, Places)> {
    let map = found.map(node, &REDIS)?;
    let mut places = option_places(&map);
    let shapes = || SHAPES.iter().filter(|(shape, _)| map.get(shape).is_some());
    let (shape, options) = match shapes().collect::<Vec<_>>().as_slice() {
        [(shape, options)] => (*shape, *options),
        // A channel is refused above; that it is no shape of ours need not be said again.
        [] if map.get("channel").is_some() => return None,
        [] if SHAPES.iter().any(|(shape, _)| map.was_meant(shape)) => return None,
        [] => {
            found.push(
                map.place,
                "a Redis target must say what it writes",
                "add one of string, hash, json, set, zset, stream with a key template",
            );
            return None;
        }
        [(first, _), (second, _), ..] => {
            found.push(
                map.key_place(second),
                format!("a Redis target cannot be both \"{first}\" and \"{second}\""),
                "write two targets",
            );
            return None;
        }
    };
    for key in map.keys() {
        let known = REDIS.known.contains(&key.text.as_str());
        if known && key.text != shape && !options.contains(&key.text.as_str()) {
            let remedy = format!("\"{shape}\" takes: {}", options.join(", "));
            found.push(key.place, format!("\"{}\" does not go with \"{shape}\"", key.text), remedy);
        }
    }
    let template = read_template(&map, shape, found, &mut places);
    let fields = match map.get("fields") {
        Some(node) if options.contains(&"fields") => {
            column_list(node, "fields", found, &mut places)
        }
        Some(_) | None => None,
    };
    let shape = read_shape(shape, &map, found, &mut places);
    Some((redis::Spec { template: template?, shape: shape?, fields }, places))
}

fn read_template(
    map: &Map<'_>,
    shape: &str,
    found: &mut Found,
    places: &mut Places,
) -> Option<Template> {
    let text = found.text(map.get(shape)?, shape)?;
    if mentions_variable(&text.text) {
        // Reported as such; that no column is named so need not be said again.
        return None;
    }
    if text.text.contains("{old.") {
        found.not_yet(text.place, "\"old.\" in a key template");
        return None;
    }
    match Template::parse(&text.text) {
        Err(message) => {
            let (message, remedy) = message.split_once("; ").unwrap_or((&message, ""));
            found.push(text.place, message, remedy);
            None
        }
        Ok(template) => {
            if template.prefix().starts_with(RESERVED_KEY) {
                let message = format!("keys that begin with \"{RESERVED_KEY}\" are Walview's own");
                found.push(text.place, message, "begin the template with another word");
                return None;
            }
            for column in template.columns() {
                places.column(shape, &Text { place: text.place, text: column.to_owned() });
            }
            Some(template)
        }
    }
}

fn read_shape(
    shape: &str,
    map: &Map<'_>,
    found: &mut Found,
    places: &mut Places,
) -> Option<redis::SpecShape> {
    let what = format!("a Redis {shape}");
    let mut column = |key: &str, found: &mut Found| {
        let name = found.required(map, key, &what)?;
        let name = column_name(name, found)?;
        places.column(key, &name);
        Some(name.text)
    };
    match shape {
        "string" => {
            let value = column("value", found);
            let empty_zero = word(map, "empty", "zero", found);
            Some(redis::SpecShape::String { value: value?, empty_zero })
        }
        "hash" => Some(redis::SpecShape::Hash),
        "json" => {
            Some(redis::SpecShape::Json { numbers_text: word(map, "numbers", "text", found) })
        }
        "set" => Some(redis::SpecShape::Set { member: column("member", found)? }),
        "zset" => {
            let (member, score) = (column("member", found), column("score", found));
            Some(redis::SpecShape::ZSet { member: member?, score: score? })
        }
        _ => {
            let events =
                map.get("events").map_or(Some(Events::default()), |node| read_events(node, found));
            let maxlen = map.get("maxlen").map(|node| whole_number(node, "maxlen", found));
            read_snapshot(map, found);
            // The outer option: is it there; the inner one: is it right.
            let maxlen = match maxlen {
                None => None,
                Some(number) => Some(number?),
            };
            Some(redis::SpecShape::Stream { events: events?, maxlen })
        }
    }
}

/// `snapshot: skip` is what happens anyway; `emit` is not built yet.
fn read_snapshot(map: &Map<'_>, found: &mut Found) {
    let Some(text) = found.optional(map, "snapshot") else {
        return;
    };
    match text.text.as_str() {
        "skip" => {}
        "emit" => found.not_yet(text.place, "\"snapshot: emit\""),
        other => found.push(
            text.place,
            format!("\"snapshot\" is {}", quoted(other)),
            "write snapshot: skip",
        ),
    }
}

/// An option that is absent or one certain word.
fn word(map: &Map<'_>, key: &str, only: &str, found: &mut Found) -> bool {
    let Some(text) = found.optional(map, key) else {
        return false;
    };
    if text.text != only {
        let message = format!("\"{key}\" is {}", quoted(&text.text));
        found.push(text.place, message, format!("write {key}: {only}, or leave it out"));
    }
    true
}

fn read_events(node: &Node, found: &mut Found) -> Option<Events> {
    let example = "write events: [insert, update, delete], or some of them";
    let list = found.list(node, "events", example)?;
    let mut events = Events { insert: false, update: false, delete: false };
    let mut good = true;
    for node in list {
        let Some(text) = found.text(node, "events") else {
            good = false;
            continue;
        };
        let Some((_, event)) = EVENTS.iter().find(|(name, _)| *name == text.text) else {
            let names = EVENTS.map(|(name, _)| name);
            let message = format!("there is no event {}", quoted(&text.text));
            found.push(text.place, message, suggest::remedy(&text.text, &names));
            good = false;
            continue;
        };
        let flag = match event {
            Event::Insert => &mut events.insert,
            Event::Update => &mut events.update,
            Event::Delete => &mut events.delete,
        };
        if std::mem::replace(flag, true) {
            found.push(text.place, format!("event \"{}\" is here twice", text.text), "remove one");
            good = false;
        }
    }
    good.then_some(events)
}

fn whole_number(node: &Node, key: &str, found: &mut Found) -> Option<u64> {
    // Redis takes a signed 64-bit length.
    let limit = u64::try_from(i64::MAX).unwrap_or(u64::MAX);
    let number = match &node.value {
        Value::Scalar(scalar) if scalar.style == Style::Plain => {
            scalar.text.parse().ok().filter(|number| (1..=limit).contains(number))
        }
        Value::Refused => return None,
        Value::Null | Value::Scalar(_) | Value::List(_) | Value::Map(_) => None,
    };
    if number.is_none() {
        let remedy = format!("write for example {key}: 10000");
        found.push(node.place, format!("\"{key}\" must be a whole number from 1"), remedy);
    }
    number
}

pub(super) fn read_clickhouse(
    node: &Node,
    found: &mut Found,
) -> Option<(clickhouse::Spec, Places)> {
    let map = found.map(node, &CLICKHOUSE)?;
    if map.get("changelog").is_some() {
        // Refused above; its other options belong to a shape that is not there yet.
        return None;
    }
    let mut places = option_places(&map);
    let table = found.required(&map, "table", "a ClickHouse target");
    let table = table.and_then(|text| table_name(text, found));
    let order_by = match map.get("order_by") {
        Some(node) => column_list(node, "order_by", found, &mut places),
        None => {
            let remedy = "add order_by: with a list of columns that holds the result's key";
            found.missing(&map, "order_by", "a ClickHouse target", remedy);
            None
        }
    };
    let partition_by = found.optional(&map, "partition_by").map(|text| {
        check_brackets("partition_by", &text, found);
        text.text
    });
    let types = map.get("types").map(|node| column_types(node, found, &mut places));
    let fields = map.get("fields").map(|node| column_list(node, "fields", found, &mut places));
    let spec = clickhouse::Spec {
        table: table?,
        order_by: order_by?,
        partition_by,
        types: types.unwrap_or_default(),
        fields: match fields {
            None => None,
            Some(list) => Some(list?),
        },
        unfit_text: word(&map, "unfit", "text", found),
    };
    Some((spec, places))
}

fn table_name(text: Text, found: &mut Found) -> Option<String> {
    let good = is_identifier(&text.text) && text.text.len() <= TABLE_CHARS_MAX;
    if !good {
        let message = format!("{} cannot be a table's name", quoted(&text.text));
        found.push(text.place, message, "use letters, digits and _; the database is the store's");
        return None;
    }
    if text.text.starts_with(RESERVED_TABLE) {
        let message = format!("tables that begin with \"{RESERVED_TABLE}\" are Walview's own");
        found.push(text.place, message, "choose another name");
        return None;
    }
    Some(text.text)
}

pub(super) fn is_identifier(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

fn column_types(node: &Node, found: &mut Found, places: &mut Places) -> Vec<(String, String)> {
    let entries = match &node.value {
        Value::Map(entries) => entries,
        Value::Refused => return Vec::new(),
        Value::Null | Value::Scalar(_) | Value::List(_) => {
            let remedy = "write types: { COLUMN: \"Decimal(38, 18)\" }";
            found.push(node.place, "\"types\" must be a mapping of columns to types", remedy);
            return Vec::new();
        }
    };
    let mut types = Vec::new();
    for (column, node) in entries {
        let Some(column) = column_name(column.clone(), found) else {
            continue;
        };
        if let Some(text) = found.text(node, &column.text) {
            check_brackets("a type", &text, found);
            places.column("types", &column);
            types.push((column.text, text.text));
        }
    }
    types
}

/// These texts become part of a statement: one that could end it, or begin another, is refused here.
fn check_brackets(what: &str, text: &Text, found: &mut Found) {
    let (mut depth, mut in_quotes) = (0_usize, false);
    let mut bad = text.text.contains("--") || text.text.contains("/*");
    for c in text.text.chars() {
        match c {
            '\'' => in_quotes = !in_quotes,
            '\\' | '`' | '"' => bad = true,
            _ if in_quotes => {}
            ';' => bad = true,
            '(' => depth += 1,
            ')' if depth == 0 => bad = true,
            ')' => depth -= 1,
            _ => {}
        }
    }
    if bad || in_quotes || depth != 0 {
        let message = format!("{what} is not a complete ClickHouse expression");
        found.push(text.place, message, "close each bracket and quote; no \", `, \\, ; or comment");
    }
}

/// A list of result columns, none twice.
fn column_list(
    node: &Node,
    key: &str,
    found: &mut Found,
    places: &mut Places,
) -> Option<Vec<String>> {
    let list = found.list(node, key, &format!("write {key}: [column, …]"))?;
    let mut names: Vec<String> = Vec::new();
    let mut good = true;
    for node in list {
        let name = found.text(node, key).and_then(|name| column_name(name, found));
        let Some(name) = name else {
            good = false;
            continue;
        };
        if names.contains(&name.text) {
            let message = format!("column {} is in \"{key}\" twice", quoted(&name.text));
            found.push(name.place, message, "remove one");
            good = false;
        }
        places.column(key, &name);
        names.push(name.text);
    }
    good.then_some(names)
}

fn column_name(name: Text, found: &mut Found) -> Option<Text> {
    if name.text.starts_with("old.") {
        found.not_yet(name.place, &quoted(&name.text));
        return None;
    }
    Some(name)
}
