//! The oracle: each view's SQL run by PostgreSQL, compared with what Redis and ClickHouse hold.
//!
//! ```text
//!  pipeline file ──► SQL ──► PostgreSQL ──► text of each value ──► expected ─┐
//!            └─────► to:   Redis (SCAN, by type) · ClickHouse (HTTP) ──► held ┴─► differences
//! ```
//!
//! Nothing of Walview's own code is used but the servers: a mistake there must not repeat here.
//! Both directions are compared: what is missing, what differs, and what should not be there.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use redis::aio::MultiplexedConnection;
use serde::Deserialize;
use serde_json::Value as Json;
use tokio_postgres::types::Type;
use walview::demo::servers::postgres::Db;

use crate::world::World;

/// Walview's own keys: marks, freshness.
const OWN_PREFIX: &str = "walview:";

pub struct Found {
    /// Values compared: keys' values, fields, members, columns.
    pub compared: usize,
    /// Rows that a column of their table has no room for, and that must not be there.
    pub parked: usize,
    pub differences: Vec<String>,
}

#[derive(Deserialize)]
struct Pipeline {
    stores: HashMap<String, Json>,
    views: Vec<View>,
}

#[derive(Deserialize)]
struct View {
    name: String,
    sql: String,
    to: Vec<BTreeMap<String, Json>>,
}

/// A view's result as PostgreSQL gives it, every value as text.
struct Result {
    columns: Vec<(String, Type)>,
    rows: Vec<Vec<Option<String>>>,
}

pub async fn compare(world: &World) -> Found {
    compare_but(world, &BTreeSet::new()).await
}

/// As `compare`, but for views that have stopped: they hold what they held.
pub async fn compare_but(world: &World, stopped: &BTreeSet<String>) -> Found {
    let pipeline: Pipeline = serde_saphyr::from_str(&world.pipeline).unwrap();
    let client = world.db().await;
    client.batch_execute("SET TIME ZONE 'UTC'; SET datestyle = 'ISO, YMD'").await.unwrap();
    let mut found = Found { compared: 0, parked: 0, differences: Vec::new() };
    let mut keys = Keys::default();
    for view in &pipeline.views {
        if stopped.contains(&view.name) {
            keys.stopped.extend(view.to.iter().flatten().filter_map(|(_, target)| prefix(target)));
            continue;
        }
        let result = Result::of(&client, view).await;
        for (store, target) in view.to.iter().flatten() {
            match store.as_str() {
                "redis" => keys.expect(&result, target),
                "clickhouse" => {
                    let database = pipeline.stores["clickhouse"]["database"].as_str().unwrap();
                    compare_table(world, &result, database, target, &mut found).await;
                }
                _ => panic!("view {} writes to an unknown store {store}", view.name),
            }
        }
    }
    keys.compare(world.redis.connect().await.unwrap(), &mut found).await;
    found
}

impl Result {
    async fn of(client: &Db, view: &View) -> Self {
        let sql = view.sql.trim_end().trim_end_matches(';');
        let statement = client.prepare(sql).await.unwrap();
        let columns: Vec<_> = statement
            .columns()
            .iter()
            .map(|column| (column.name().to_owned(), column.type_().clone()))
            .collect();
        let texts: Vec<String> = columns.iter().map(|(name, ty)| as_text(name, ty)).collect();
        let sql = format!("SELECT {} FROM (\n{sql}\n) AS v", texts.join(", "));
        let rows = client.query(&sql, &[]).await.unwrap();
        let rows = rows.iter().map(|row| (0..columns.len()).map(|at| row.get(at)).collect());
        Self { rows: rows.collect(), columns }
    }

    fn position(&self, column: &str) -> usize {
        let found = self.columns.iter().position(|(name, _)| name == column);
        found.unwrap_or_else(|| panic!("no column {column}"))
    }

    /// The columns that a target shows, as positions.
    fn fields(&self, target: &Json) -> Vec<usize> {
        match target.get("fields") {
            None => (0..self.columns.len()).collect(),
            Some(fields) => fields
                .as_array()
                .unwrap()
                .iter()
                .map(|f| self.position(f.as_str().unwrap()))
                .collect(),
        }
    }
}

/// How a value looks in a Redis string, written by PostgreSQL itself.
fn as_text(column: &str, ty: &Type) -> String {
    let column = format!("\"{column}\"");
    if *ty == Type::TIMESTAMPTZ {
        format!("to_char({column} AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')")
    } else if *ty == Type::TIMESTAMP {
        format!("to_char({column}, 'YYYY-MM-DD\"T\"HH24:MI:SS.US')")
    } else {
        format!("{column}::text")
    }
}

/// What one Redis key holds.
#[derive(Debug, PartialEq)]
enum Held {
    Text(String),
    Json(Json),
    Hash(BTreeMap<String, String>),
    Set(BTreeSet<String>),
    /// Scores are doubles: compared as such, however they are written.
    ZSet(BTreeMap<String, f64>),
}

impl Held {
    fn values(&self) -> usize {
        match self {
            Self::Text(_) => 1,
            Self::Json(json) => json.as_object().map_or(1, serde_json::Map::len),
            Self::Hash(fields) => fields.len(),
            Self::Set(members) => members.len(),
            Self::ZSet(members) => members.len(),
        }
    }
}

/// What all Redis targets together should hold.
#[derive(Default)]
struct Keys {
    expected: BTreeMap<String, Held>,
    /// Prefixes of streams, whose content is history: `stream.rs` compares it.
    streams: Vec<String>,
    /// Prefixes of views that have stopped.
    stopped: Vec<String>,
    /// Prefixes of counters that stay at 0 when their group is gone.
    zeros: Vec<String>,
}

/// What the keys of a Redis target begin with; of a table nothing is shown twice.
fn prefix(target: &Json) -> Option<String> {
    let shapes = ["string", "hash", "json", "set", "zset", "stream"];
    let template = shapes.iter().find_map(|shape| target.get(*shape)?.as_str())?;
    template.split('{').next().map(str::to_owned)
}

impl Keys {
    fn expect(&mut self, result: &Result, target: &Json) {
        let shapes = ["string", "hash", "json", "set", "zset", "stream"];
        let shape = *shapes.iter().find(|shape| target.get(**shape).is_some()).expect("a shape");
        let template = target[shape].as_str().unwrap();
        let prefix = template.split('{').next().unwrap().to_owned();
        if shape == "stream" {
            self.streams.push(prefix);
            return;
        }
        if target.get("empty").is_some() {
            self.zeros.push(prefix);
        }
        for row in &result.rows {
            let key = render_key(template, result, row);
            let column = |name: &str| row[result.position(target[name].as_str().unwrap())].clone();
            match shape {
                // NULL is an absent key.
                "string" => {
                    if let Some(value) = column("value") {
                        self.insert(key, Held::Text(value));
                    }
                }
                "hash" => {
                    let fields = result.fields(target).into_iter();
                    let fields: BTreeMap<_, _> = fields
                        .filter_map(|at| Some((result.columns[at].0.clone(), row[at].clone()?)))
                        .collect();
                    if !fields.is_empty() {
                        self.insert(key, Held::Hash(fields));
                    }
                }
                "json" => {
                    let fields = result.fields(target).into_iter();
                    let fields = fields.map(|at| {
                        let (name, ty) = &result.columns[at];
                        (name.clone(), as_json(row[at].as_deref(), ty))
                    });
                    self.insert(key, Held::Json(Json::Object(fields.collect())));
                }
                "set" => {
                    let Some(member) = column("member") else {
                        continue;
                    };
                    let empty = || Held::Set(BTreeSet::new());
                    let Held::Set(members) = self.expected.entry(key).or_insert_with(empty) else {
                        panic!("two shapes under one key");
                    };
                    assert!(members.insert(member), "a member twice");
                }
                _ => {
                    let (Some(member), Some(score)) = (column("member"), column("score")) else {
                        continue;
                    };
                    let score: f64 = score.parse().unwrap();
                    let empty = || Held::ZSet(BTreeMap::new());
                    let Held::ZSet(members) = self.expected.entry(key).or_insert_with(empty) else {
                        panic!("two shapes under one key");
                    };
                    assert!(members.insert(member, score).is_none(), "a member twice");
                }
            }
        }
    }

    fn insert(&mut self, key: String, held: Held) {
        if let Some(other) = self.expected.insert(key.clone(), held) {
            panic!("two rows write the key {key}: {other:?}");
        }
    }

    async fn compare(mut self, mut redis: MultiplexedConnection, found: &mut Found) {
        for key in scan(&mut redis).await {
            let stopped = self.stopped.iter().any(|prefix| key.starts_with(prefix));
            if key.starts_with(OWN_PREFIX) || self.streams.contains(&key) || stopped {
                continue;
            }
            let expected = self.expected.remove(&key);
            let held = read(&mut redis, &key, matches!(expected, Some(Held::Json(_)))).await;
            found.compared += expected.as_ref().map_or(1, Held::values);
            match expected {
                Some(expected) if held.as_ref() == Some(&expected) => {}
                Some(expected) => found
                    .differences
                    .push(format!("redis {key}: holds {held:?}, PostgreSQL says {expected:?}")),
                None => {
                    let zero = Some(Held::Text("0".to_owned()));
                    let may_be_zero = self.zeros.iter().any(|prefix| key.starts_with(prefix));
                    if !(may_be_zero && held == zero) {
                        found.differences.push(format!("redis {key}: a ghost, holds {held:?}"));
                    }
                }
            }
        }
        for (key, expected) in self.expected {
            found.compared += expected.values();
            found.differences.push(format!("redis {key}: missing, PostgreSQL says {expected:?}"));
        }
    }
}

/// Numbers and booleans as such, JSON as itself, everything else as a string.
fn as_json(text: Option<&str>, ty: &Type) -> Json {
    let Some(text) = text else { return Json::Null };
    if [Type::INT2, Type::INT4, Type::INT8, Type::BOOL, Type::JSON, Type::JSONB].contains(ty) {
        serde_json::from_str(text).unwrap()
    } else {
        Json::String(text.to_owned())
    }
}

/// Characters that could make two keys one are percent-encoded.
fn render_key(template: &str, result: &Result, row: &[Option<String>]) -> String {
    let mut key = String::new();
    let mut rest = template;
    while let Some((literal, after)) = rest.split_once('{') {
        let (column, after) = after.split_once('}').unwrap();
        key.push_str(literal);
        let value = row[result.position(column)].as_deref().expect("a key column is NULL");
        let stop = after.chars().next();
        for c in value.chars() {
            if matches!(c, '%' | ':' | '{' | '}') || c.is_control() || Some(c) == stop {
                let encoded = c.to_string();
                key.extend(encoded.bytes().map(|byte| format!("%{byte:02X}")));
            } else {
                key.push(c);
            }
        }
        rest = after;
    }
    key + rest
}

async fn scan(redis: &mut MultiplexedConnection) -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    let mut cursor = 0_u64;
    loop {
        let (next, some): (u64, Vec<String>) = redis::cmd("SCAN")
            .arg(cursor)
            .arg("COUNT")
            .arg(10_000)
            .query_async(redis)
            .await
            .unwrap();
        keys.extend(some);
        cursor = next;
        if cursor == 0 {
            return keys;
        }
    }
}

async fn read(redis: &mut MultiplexedConnection, key: &str, json: bool) -> Option<Held> {
    let kind: String = redis::cmd("TYPE").arg(key).query_async(redis).await.unwrap();
    let held = match kind.as_str() {
        "string" => {
            let text: String = redis::cmd("GET").arg(key).query_async(redis).await.unwrap();
            if json {
                Held::Json(serde_json::from_str(&text).unwrap_or(Json::String(text)))
            } else {
                Held::Text(text)
            }
        }
        "hash" => Held::Hash(redis::cmd("HGETALL").arg(key).query_async(redis).await.unwrap()),
        "set" => Held::Set(redis::cmd("SMEMBERS").arg(key).query_async(redis).await.unwrap()),
        "zset" => {
            let mut command = redis::cmd("ZRANGE");
            command.arg(key).arg(&["0", "-1", "WITHSCORES"]);
            let members: Vec<(String, f64)> = command.query_async(redis).await.unwrap();
            Held::ZSet(members.into_iter().collect())
        }
        _ => return None,
    };
    Some(held)
}

async fn compare_table(
    world: &World,
    result: &Result,
    database: &str,
    target: &Json,
    found: &mut Found,
) {
    let table = target["table"].as_str().unwrap();
    let fields = result.fields(target);
    let order_by: Vec<usize> = target["order_by"]
        .as_array()
        .unwrap()
        .iter()
        .map(|column| result.position(column.as_str().unwrap()))
        .map(|position| fields.iter().position(|field| *field == position).unwrap())
        .collect();
    let types = column_types(world, database, table).await;
    let text = |at: usize| {
        let (name, ty) = &result.columns[at];
        let in_utc = *ty == Type::TIMESTAMPTZ && types[name].contains("DateTime");
        let as_bool = *ty == Type::BOOL && types[name].contains("UInt8");
        match (in_utc, as_bool) {
            (true, _) => format!("toString(`{name}`, 'UTC')"),
            (_, true) => format!("toString(CAST(`{name}`, 'Nullable(Bool)'))"),
            _ => format!("toString(`{name}`)"),
        }
    };
    let columns: Vec<String> = fields.iter().map(|&at| text(at)).collect();
    let sql = format!(
        "SELECT {} FROM `{database}`.`{table}` FORMAT JSONCompactEachRow",
        columns.join(", ")
    );
    let answer = world.clickhouse.query(&sql).await.unwrap();
    type Rows = BTreeMap<Vec<Option<String>>, Vec<Option<String>>>;
    let keyed = |row: Vec<Option<String>>| {
        (order_by.iter().map(|&at| row[at].clone()).collect::<Vec<_>>(), row)
    };
    let mut held = Rows::new();
    for line in answer.lines() {
        let row: Vec<Option<String>> = serde_json::from_str(line).unwrap();
        let row = row.into_iter().zip(&fields);
        let row = row.map(|(value, &at)| value.map(|value| plain(&value, &result.columns[at].1)));
        let (key, row) = keyed(row.collect());
        if held.insert(key.clone(), row).is_some() {
            found.differences.push(format!("clickhouse {table} {key:?}: shown twice"));
        }
    }
    for row in &result.rows {
        let fits = |&at: &usize| {
            row[at].as_ref().is_none_or(|value| fits(value, &types[&result.columns[at].0]))
        };
        if !fields.iter().all(fits) {
            found.parked += 1;
            continue;
        }
        let row = fields
            .iter()
            .map(|&at| row[at].as_ref().map(|value| plain(value, &result.columns[at].1)));
        let (key, expected) = keyed(row.collect());
        found.compared += expected.len();
        match held.remove(&key) {
            Some(row) if row == expected => {}
            Some(row) => found.differences.push(format!(
                "clickhouse {table} {key:?}: holds {row:?}, PostgreSQL says {expected:?}"
            )),
            None => found
                .differences
                .push(format!("clickhouse {table} {key:?}: missing, PostgreSQL says {expected:?}")),
        }
    }
    for (key, row) in held {
        found.differences.push(format!("clickhouse {table} {key:?}: a ghost, holds {row:?}"));
    }
}

/// The types of a table of rows, by column.
async fn column_types(world: &World, database: &str, table: &str) -> HashMap<String, String> {
    let sql = format!(
        "SELECT name, type FROM system.columns WHERE database = '{database}_rows' \
         AND table = '{table}' FORMAT JSONCompactEachRow"
    );
    let answer = world.clickhouse.query(&sql).await.unwrap();
    answer.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Whether a column has room for PostgreSQL's text of a value, for the types that have less room
/// than PostgreSQL's and of which the suite writes what does not fit.
fn fits(value: &str, ty: &str) -> bool {
    let plain = ty.strip_prefix("Nullable(").map_or(ty, |inner| inner.trim_end_matches(')'));
    if plain.starts_with("Enum") {
        return plain.contains(&format!("'{value}' = "));
    }
    if plain.starts_with("UInt") {
        return !value.starts_with('-');
    }
    let digits_max = match plain.split_once("DateTime64(") {
        Some((_, digits)) => digits.chars().next().and_then(|c| c.to_digit(10)).unwrap(),
        None if plain.starts_with("DateTime") => 0,
        None => return true,
    };
    let fraction = value.trim_end_matches('Z').split_once('.').map_or("", |(_, fraction)| fraction);
    fraction.trim_end_matches('0').len() <= usize::try_from(digits_max).unwrap()
}

/// One spelling for a value of both: times as ClickHouse writes them, times and decimals without
/// the zeros that a column's scale adds.
fn plain(value: &str, ty: &Type) -> String {
    let value = if *ty == Type::TIMESTAMPTZ || *ty == Type::TIMESTAMP {
        value.replace('T', " ").trim_end_matches('Z').to_owned()
    } else if *ty == Type::NUMERIC {
        value.to_owned()
    } else {
        return value.to_owned();
    };
    if value.contains('.') {
        value.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        value
    }
}
