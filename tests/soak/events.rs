//! The oracle for streams of every kind of change: PostgreSQL's own decoding of the log, replayed
//! over the rows that were there when it began.
//!
//! ```text
//!  slot "oracle" (test_decoding) ─► lines ─► model of bets ─► expected entries ─┐
//!                                     Redis: XRANGE since the last look ────────┴─► equal
//! ```
//!
//! Nothing of Walview's is used but one number from its log: where its snapshot was taken, because
//! what is in a snapshot is no event.

use std::collections::{BTreeMap, VecDeque};

use redis::aio::MultiplexedConnection;
use serde_json::{Map, Value as Json};
use walview::demo::servers::postgres::Db;
use walview::demo::servers::service::parse_lsn;

use crate::stream::{Entry, FIELDS, parse};
use crate::world::World;

const SLOT: &str = "oracle";
/// `maxlen` of `recent_bets` in pipeline/betting.yaml.
const RECENT_MAX: usize = 10_000;
/// `maxlen` of the soak's own stream: above what happens between two looks.
pub const CHANGES_MAX: usize = 200_000;
/// Shown by the soak's own stream.
const SHOWN: [&str; 4] = ["id", "event_id", "status", "amount"];

pub struct Events {
    /// The table as PostgreSQL's log has left it, by id.
    bets: BTreeMap<i64, Entry>,
    /// End of the last transaction that was taken in: a slot that a crash put back says it again.
    seen: u64,
    /// Where Walview's snapshot was taken; known once it is live.
    snapshot: u64,
    pub rows: u64,
    recent: Expected,
    changes: Expected,
}

/// What a stream should hold, its oldest entries cut like the stream's own.
struct Expected {
    key: &'static str,
    maxlen: usize,
    entries: VecDeque<Entry>,
    /// Of all that there ever were, and of those compared already.
    total: usize,
    compared: usize,
    last_id: String,
}

impl Events {
    /// Call it before Walview starts, with no load.
    pub async fn begin(world: &World) -> Self {
        let client = session(world).await;
        // What an oracle before this one left.
        let gone = format!(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots \
             WHERE slot_name = '{SLOT}'"
        );
        client.batch_execute(&gone).await.unwrap();
        let make = format!("SELECT pg_create_logical_replication_slot('{SLOT}', 'test_decoding')");
        client.batch_execute(&make).await.unwrap();
        let columns: Vec<String> = FIELDS
            .iter()
            .map(|field| if *field == "placed_at" { placed_at() } else { format!("{field}::text") })
            .collect();
        let sql = format!("SELECT {} FROM bets", columns.join(", "));
        let rows = client.query(&sql, &[]).await.unwrap();
        let bets = rows.iter().map(|row| {
            let entry: Entry =
                FIELDS.iter().enumerate().map(|(i, f)| ((*f).to_owned(), row.get(i))).collect();
            (number(&entry["id"]), entry)
        });
        Self {
            bets: bets.collect(),
            seen: 0,
            snapshot: 0,
            rows: 0,
            recent: Expected::new("recent_bets", RECENT_MAX),
            changes: Expected::new("bet_changes", CHANGES_MAX),
        }
    }

    /// Reads on, and compares what the streams got since the last look; caught up, with no load.
    /// Returns how many entries were compared.
    pub async fn check(&mut self, world: &World) -> usize {
        if self.snapshot == 0 {
            self.snapshot = snapshot_taken_at(world);
        }
        self.read(world).await;
        let mut redis = world.redis.connect().await.unwrap();
        self.recent.check(&mut redis).await + self.changes.check(&mut redis).await
    }

    /// Compares the streams from their first entry on.
    pub async fn check_all(&mut self, world: &World) -> usize {
        for expected in [&mut self.recent, &mut self.changes] {
            expected.compared = 0;
            "-".clone_into(&mut expected.last_id);
        }
        self.check(world).await
    }

    async fn read(&mut self, world: &World) {
        let client = session(world).await;
        let sql = format!(
            "SELECT lsn::text, data FROM pg_logical_slot_get_changes('{SLOT}', NULL, NULL, \
             'skip-empty-xacts', '1')"
        );
        let rows = client.query(&sql, &[]).await.unwrap();
        let mut transaction = Vec::new();
        for row in &rows {
            let (lsn, line): (&str, &str) = (row.get(0), row.get(1));
            if !line.starts_with("COMMIT") {
                transaction.push(line);
                continue;
            }
            let end = parse_lsn(lsn).unwrap();
            let lines = std::mem::take(&mut transaction);
            if end > self.seen {
                self.seen = end;
                for line in lines {
                    // A snapshot at S has the commits before S; a commit that ends past S is later.
                    self.line(line, end > self.snapshot);
                }
            }
        }
    }

    fn line(&mut self, line: &str, streamed: bool) {
        let Some((tables, change)) = line.strip_prefix("table ").and_then(|l| l.split_once(": "))
        else {
            return;
        };
        self.rows += 1;
        if !tables.split(", ").any(|table| table == "public.bets") {
            return;
        }
        if let Some(row) = change.strip_prefix("INSERT: ") {
            self.replace(None, Some(parse(row)), streamed);
        } else if let Some(row) = change.strip_prefix("UPDATE: ") {
            let (old, new) =
                match row.strip_prefix("old-key: ").map(|r| r.split_once(" new-tuple: ")) {
                    Some(keys) => {
                        let (old, new) = keys.unwrap();
                        (parse(old), parse(new))
                    }
                    None => (parse(row), parse(row)),
                };
            self.replace(Some(number(&old["id"])), Some(new), streamed);
        } else if let Some(row) = change.strip_prefix("DELETE: ") {
            self.replace(Some(number(&parse(row)["id"])), None, streamed);
        } else {
            assert!(change.starts_with("TRUNCATE: "), "{line}");
            // In the order of the keys: a replay must repeat the order, so there is one.
            for id in self.bets.keys().copied().collect::<Vec<_>>() {
                self.replace(Some(id), None, streamed);
            }
        }
    }

    fn replace(&mut self, old: Option<i64>, new: Option<Entry>, streamed: bool) {
        let old = old.map(|id| self.bets.remove(&id).expect("a row that was there"));
        if let Some(new) = &new {
            self.bets.insert(number(&new["id"]), new.clone());
        }
        if !streamed {
            return;
        }
        match (old, new) {
            // A row with another key is another row: one goes, one comes.
            (Some(old), Some(new)) if old["id"] != new["id"] => {
                self.changes.push(deleted(&old));
                self.recent.push(with_op(&new, &FIELDS, "insert"));
                self.changes.push(with_op(&new, &SHOWN, "insert"));
            }
            (Some(old), Some(new)) => {
                let changed: Vec<&str> =
                    SHOWN.into_iter().filter(|field| old[*field] != new[*field]).collect();
                if !changed.is_empty() {
                    let mut entry = with_op(&new, &SHOWN, "update");
                    entry.insert("_old".to_owned(), before(&old, &changed));
                    self.changes.push(entry);
                }
            }
            (None, Some(new)) => {
                self.recent.push(with_op(&new, &FIELDS, "insert"));
                self.changes.push(with_op(&new, &SHOWN, "insert"));
            }
            (Some(old), None) => self.changes.push(deleted(&old)),
            (None, None) => {}
        }
    }
}

impl Expected {
    fn new(key: &'static str, maxlen: usize) -> Self {
        let (entries, last_id) = (VecDeque::new(), "-".to_owned());
        Self { key, maxlen, entries, total: 0, compared: 0, last_id }
    }

    fn push(&mut self, entry: Entry) {
        self.total += 1;
        self.entries.push_back(entry);
        if self.entries.len() > self.maxlen {
            self.entries.pop_front();
        }
    }

    async fn check(&mut self, redis: &mut MultiplexedConnection) -> usize {
        let key = self.key;
        let length: usize = redis::cmd("XLEN").arg(key).query_async(redis).await.unwrap();
        assert_eq!(length, self.entries.len(), "entries in {key}, of {} ever", self.total);
        let first = self.total - self.entries.len();
        let mut next = self.compared.max(first);
        let compared = self.total - next;
        loop {
            let from =
                if self.last_id == "-" { "-".to_owned() } else { format!("({}", self.last_id) };
            let mut command = redis::cmd("XRANGE");
            command.arg(&[key, &from, "+", "COUNT", "5000"]);
            let page: Vec<(String, Vec<String>)> = command.query_async(redis).await.unwrap();
            if page.is_empty() {
                break;
            }
            for (id, flat) in page {
                let held = shown(&flat);
                let expected = self.entries.get(next - first);
                assert_eq!(Some(&held), expected, "entry {next} ({id}) of {key}");
                next += 1;
                self.last_id = id;
            }
        }
        assert_eq!(next, self.total, "the end of {key}");
        self.compared = self.total;
        compared
    }
}

/// An entry's fields without those that are the same in all, `_old` in one spelling.
fn shown(flat: &[String]) -> Entry {
    let pairs = flat.chunks(2).map(|pair| (pair[0].clone(), pair[1].clone()));
    let mut entry: Entry = BTreeMap::new();
    for (name, value) in pairs {
        let value =
            if name == "_old" { spelled(serde_json::from_str(&value).unwrap()) } else { value };
        if name != "_view" && name != "_committed_at" {
            assert!(entry.insert(name, value).is_none(), "a field twice: {flat:?}");
        }
    }
    entry
}

fn with_op(row: &Entry, fields: &[&str], op: &str) -> Entry {
    let fields = fields.iter().map(|field| ((*field).to_owned(), row[*field].clone()));
    fields.chain([("_op".to_owned(), op.to_owned())]).collect()
}

fn deleted(row: &Entry) -> Entry {
    let mut entry = with_op(row, &["id"], "delete");
    entry.insert("_old".to_owned(), before(row, &SHOWN));
    entry
}

fn before(row: &Entry, fields: &[&str]) -> String {
    let object = fields.iter().map(|field| {
        let text = row[*field].clone();
        let value =
            if field.ends_with("id") { Json::from(number(&text)) } else { Json::from(text) };
        ((*field).to_owned(), value)
    });
    spelled(object.collect())
}

/// Fields in order of their names.
fn spelled(object: Map<String, Json>) -> String {
    format!("{:?}", object.into_iter().collect::<BTreeMap<_, _>>())
}

fn number(text: &str) -> i64 {
    text.parse().unwrap()
}

fn placed_at() -> String {
    "to_char(placed_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')".to_owned()
}

async fn session(world: &World) -> Db {
    let client = world.db().await;
    client.batch_execute("SET TIME ZONE 'UTC'; SET datestyle = 'ISO, YMD'").await.unwrap();
    client
}

/// The consistent point of the last snapshot that was begun.
fn snapshot_taken_at(world: &World) -> u64 {
    let log = std::fs::read_to_string(&world.options.log).unwrap();
    let line = log.lines().rfind(|line| line.contains("snapshot starts")).expect("a snapshot");
    let lsn = line.split("lsn=").nth(1).and_then(|rest| rest.split_whitespace().next());
    parse_lsn(lsn.unwrap()).unwrap_or_else(|| panic!("no LSN in {line:?}"))
}
