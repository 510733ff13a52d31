//! The oracle for streams: PostgreSQL's own decoding of the same log.
//!
//! A second slot, with the plugin `test_decoding`, says which rows were inserted in which commit
//! order. It is made before Walview's slot while nothing is written, so both see the same.

use std::collections::BTreeMap;

use walview::demo::servers::postgres::Db;

use crate::world::World;

const SLOT: &str = "oracle";
pub const FIELDS: [&str; 6] = ["id", "user_id", "event_id", "status", "amount", "placed_at"];

pub type Entry = BTreeMap<String, String>;

/// Call it before Walview starts, with no load.
pub async fn remember_inserts(world: &World) {
    let sql = format!("SELECT pg_create_logical_replication_slot('{SLOT}', 'test_decoding')");
    world.db().await.batch_execute(&sql).await.unwrap();
}

/// Every bet inserted since, once and in commit order, and nothing else, is in `recent_bets`.
pub async fn assert_every_insert_once(world: &World) {
    let client = world.db().await;
    let expected = inserted(&client).await;
    assert!(expected.len() < 10_000, "the stream is trimmed at 10,000 entries: use less load");
    let mut redis = world.redis.connect().await.unwrap();
    let entries: Vec<(String, Vec<String>)> =
        redis::cmd("XRANGE").arg(&["recent_bets", "-", "+"]).query_async(&mut redis).await.unwrap();
    let held: Vec<Entry> = entries.into_iter().map(|(_, fields)| fields_of(&fields)).collect();
    for (at, (held, expected)) in held.iter().zip(&expected).enumerate() {
        assert_eq!(held, expected, "entry {at} of recent_bets");
    }
    let ids = |entries: &[Entry]| entries.iter().map(|e| e["id"].clone()).collect::<Vec<_>>();
    let (held, expected) = (ids(&held), ids(&expected));
    assert_eq!(held.len(), expected.len(), "entries in recent_bets: {held:?} against {expected:?}");
}

pub fn fields_of(flat: &[String]) -> Entry {
    let mut entry = Entry::new();
    for pair in flat.chunks(2) {
        let [name, value] = pair else { panic!("a field without a value: {flat:?}") };
        if name == "_op" {
            assert_eq!(value, "insert", "an event that was not asked for");
        }
        if FIELDS.contains(&name.as_str()) {
            assert!(entry.insert(name.clone(), value.clone()).is_none(), "field {name} twice");
        }
    }
    entry
}

/// The inserts since the last call.
pub async fn inserted(client: &Db) -> Vec<Entry> {
    client.batch_execute("SET TIME ZONE 'UTC'; SET datestyle = 'ISO, YMD'").await.unwrap();
    let sql = format!(
        "SELECT data FROM pg_logical_slot_get_changes('{SLOT}', NULL, NULL, 'skip-empty-xacts', '1')"
    );
    let rows = client.query(&sql, &[]).await.unwrap();
    let lines = rows.iter().map(|row| row.get::<_, &str>(0));
    lines.filter_map(|line| line.strip_prefix("table public.bets: INSERT: ")).map(parse).collect()
}

/// `id[bigint]:7 status[text]:'OPEN' payout[numeric]:null …`; no text in this table has a quote.
pub fn parse(line: &str) -> Entry {
    let mut entry = Entry::new();
    let mut rest = line;
    while let Some((name, after)) = rest.split_once('[') {
        let (_, after) = after.split_once("]:").unwrap();
        let (value, after) = match after.strip_prefix('\'') {
            Some(quoted) => quoted.split_once('\'').unwrap(),
            None => after.split_once(' ').unwrap_or((after, "")),
        };
        if FIELDS.contains(&name) {
            let value = if name == "placed_at" { iso(value) } else { value.to_owned() };
            entry.insert(name.to_owned(), value);
        }
        rest = after.trim_start();
    }
    entry
}

/// `2026-11-20 23:02:00.1+00` as `2026-11-20T23:02:00.100000Z`.
fn iso(timestamp: &str) -> String {
    let (date, time) = timestamp.split_once(' ').unwrap();
    let time = time.strip_suffix("+00").unwrap();
    let (seconds, fraction) = time.split_once('.').unwrap_or((time, ""));
    format!("{date}T{seconds}.{fraction:0<6}Z")
}
