//! Random transactions over few rows: everything that can meet meets.
//!
//! Values are chosen to break careless code: empty strings, quotes, tabs, characters beyond ASCII,
//! the largest and smallest amounts. The statements depend on a seed only; how transactions of
//! several connections interleave does not.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use tokio::task::JoinSet;
use tokio_postgres::error::SqlState;
use walview::demo::servers::postgres::Db;

use crate::world::World;

/// Ids that users and events come, go and come back under; bets refer to more than exist.
pub const USERS: i64 = 40;
pub const EVENTS: i64 = 25;

const NAMES: [&str; 12] = [
    "Ada Lovelace",
    "",
    " ",
    "O''Brien",
    "tab\there",
    "line\nbreak",
    "back\\slash \"quoted\"",
    "naïve Ærøskøbing",
    "東京 🏇",
    "a:b{c}%d",
    "\\N",
    "NULL",
];
const CATEGORIES: [&str; 6] = ["football", "tennis", "e:sports {1}", "", "horse racing", "échecs"];
pub const AMOUNTS: [&str; 6] = ["0.01", "1", "2.50", "9999999999.99", "100.00", "33.33"];

/// From `SEED`, else from the clock; printed, so that a failure can be repeated.
#[expect(clippy::disallowed_methods, reason = "a random test takes its seed back from outside")]
pub fn seed() -> u64 {
    let given = std::env::var("SEED").ok().map(|seed| seed.parse().expect("SEED is a number"));
    let seed = given.unwrap_or_else(|| rand::rng().random_range(0..1_000_000));
    println!("SEED={seed}");
    seed
}

/// Transactions without a pause, on several connections.
pub struct Load {
    stop: Arc<AtomicBool>,
    transactions: Arc<AtomicU64>,
    workers: JoinSet<()>,
}

impl Load {
    pub async fn start(world: &World, seed: u64, connections: u64, pause: Duration) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let transactions = Arc::new(AtomicU64::new(0));
        let mut workers = JoinSet::new();
        for connection in 0..connections {
            let client = world.db().await;
            let mut random =
                StdRng::seed_from_u64(seed.wrapping_mul(1_000).wrapping_add(connection));
            let (stop, transactions) = (Arc::clone(&stop), Arc::clone(&transactions));
            workers.spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    run_transaction(&client, &mut random).await;
                    transactions.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(pause).await;
                }
            });
        }
        Self { stop, transactions, workers }
    }

    pub fn transactions(&self) -> u64 {
        self.transactions.load(Ordering::Relaxed)
    }

    /// Waits until so many transactions have run.
    pub async fn reached(&mut self, transactions: u64) {
        while self.transactions() < transactions {
            tokio::time::sleep(Duration::from_millis(10)).await;
            // A worker that failed would otherwise be waited for in vain.
            if let Some(worker) = self.workers.try_join_next() {
                worker.unwrap();
            }
        }
    }

    /// Lets the transactions in flight end.
    pub async fn stop(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(worker) = self.workers.join_next().await {
            worker.unwrap();
        }
        self.transactions.load(Ordering::Relaxed)
    }
}

/// A fixed number of transactions on one connection.
pub async fn run(world: &World, seed: u64, transactions: u64) {
    let client = world.db().await;
    let mut random = StdRng::seed_from_u64(seed);
    for _ in 0..transactions {
        run_transaction(&client, &mut random).await;
    }
}

/// One transaction; a deadlock or a taken key rolls it back, which is one more case.
pub async fn run_transaction(client: &Db, random: &mut StdRng) {
    let text = transaction(random);
    if let Err(error) = client.batch_execute(&text).await {
        assert!(is_expected(&error), "{error}: {error:?}\n{text}");
        client.batch_execute("ROLLBACK").await.unwrap();
    }
}

/// What random statements may meet: each other, and a column's own limit.
pub fn is_expected(error: &tokio_postgres::Error) -> bool {
    let expected = [
        SqlState::T_R_DEADLOCK_DETECTED,
        SqlState::UNIQUE_VIOLATION,
        SqlState::CHECK_VIOLATION,
        SqlState::NUMERIC_VALUE_OUT_OF_RANGE,
    ];
    error.code().is_some_and(|code| expected.contains(code))
}

fn transaction(random: &mut StdRng) -> String {
    let mut sql = String::from("BEGIN;\n");
    for _ in 0..random.random_range(1..8) {
        if random.random_bool(0.1) {
            // A subtransaction, kept or not, with another inside.
            sql.push_str("SAVEPOINT a;\n");
            sql.push_str(&statement(random));
            sql.push_str("SAVEPOINT b;\n");
            sql.push_str(&statement(random));
            sql.push_str(match random.random_range(0..3) {
                0 => "ROLLBACK TO SAVEPOINT a;\n",
                1 => "ROLLBACK TO SAVEPOINT b;\n",
                _ => "RELEASE SAVEPOINT a;\n",
            });
        }
        sql.push_str(&statement(random));
    }
    sql.push_str(if random.random_bool(0.05) { "ROLLBACK" } else { "COMMIT" });
    sql
}

fn statement(random: &mut StdRng) -> String {
    match random.random_range(0..100) {
        0..35 => place(random),
        35..55 => decide(random),
        55..60 => {
            format!("UPDATE bets SET amount = amount {};", any(random, &["", "+ 0.01", "* 2"]))
                + "\n"
        }
        60..72 => change_user(random),
        72..82 => change_event(random),
        82..87 => format!(
            "UPDATE bets SET event_id = {}, user_id = {} WHERE id IN ({});\n",
            id(random, EVENTS + 3),
            id(random, USERS + 3),
            some_bets(random)
        ),
        87..92 => format!("DELETE FROM bets WHERE id IN ({});\n", some_bets(random)),
        92..95 => format!("DELETE FROM users WHERE id = {};\n", id(random, USERS)),
        95..97 => format!("DELETE FROM events WHERE id = {};\n", id(random, EVENTS)),
        // The same row twice and three times in one transaction.
        97..99 => change_user(random) + &change_user(random) + &change_event(random),
        _ => place(random) + &place(random) + &decide(random),
    }
}

pub fn place(random: &mut StdRng) -> String {
    format!(
        "INSERT INTO bets (user_id, event_id, amount, odds, placed_at) VALUES ({}, {}, {}, {}, \
         now() - {} * interval '1 hour 0.000001 second');\n",
        id(random, USERS + 3),
        id(random, EVENTS + 3),
        any(random, &AMOUNTS),
        any(random, &["1.01", "2", "9999.99", "3.50"]),
        random.random_range(0..2_000),
    )
}

pub fn decide(random: &mut StdRng) -> String {
    let bets = some_bets(random);
    match random.random_range(0..4) {
        0 => format!(
            "UPDATE bets SET status = 'SETTLED', payout = {}, settled_at = now() WHERE id IN ({bets});\n",
            any(random, &["0", "0.01", "12.5", "9999999999.99"])
        ),
        1 => format!(
            "UPDATE bets SET status = 'CASHED_OUT', payout = 1, settled_at = clock_timestamp() \
             WHERE id IN ({bets});\n"
        ),
        2 => format!(
            "UPDATE bets SET status = 'CANCELLED', payout = NULL, settled_at = now() WHERE id IN ({bets});\n"
        ),
        // Back again: no state is final.
        _ => format!(
            "UPDATE bets SET status = 'OPEN', payout = NULL, settled_at = NULL WHERE id IN ({bets});\n"
        ),
    }
}

pub fn change_user(random: &mut StdRng) -> String {
    let user = id(random, USERS);
    let name = any(random, &NAMES);
    match random.random_range(0..5) {
        0 => format!("UPDATE users SET name = '{name}' WHERE id = {user};\n"),
        1 => format!(
            "UPDATE users SET country = {} WHERE id = {user};\n",
            any(random, &["NULL", "'GB'", "'DE'"])
        ),
        2 => format!(
            "UPDATE users SET verified = NOT verified, preferences = {} WHERE id = {user};\n",
            any(
                random,
                &[
                    "'{}'",
                    "'{\"a\": [1, null, true], \"b\": \"ü\\n\", \"n\": 1.50}'",
                    "'[]'",
                    "'\"text\"'",
                    "'null'"
                ]
            )
        ),
        // Late, or back after it was deleted; under the same id as another person.
        _ => format!(
            "INSERT INTO users (id, name, email, country) VALUES ({user}, '{name}', '{user}@again', 'SE') \
             ON CONFLICT (id) DO UPDATE SET name = excluded.name;\n"
        ),
    }
}

pub fn change_event(random: &mut StdRng) -> String {
    let event = id(random, EVENTS);
    let (name, category) = (any(random, &NAMES), any(random, &CATEGORIES));
    match random.random_range(0..5) {
        0 => format!("UPDATE events SET name = '{name}' WHERE id = {event};\n"),
        1 => format!("UPDATE events SET category = '{category}' WHERE id = {event};\n"),
        2 => format!(
            "UPDATE events SET status = '{}' WHERE id = {event};\n",
            any(random, &["SCHEDULED", "LIVE", "FINISHED", "ABANDONED"])
        ),
        _ => format!(
            "INSERT INTO events (id, name, category, starts_at) VALUES ({event}, '{name}', '{category}', now()) \
             ON CONFLICT (id) DO UPDATE SET category = excluded.category, starts_at = now();\n"
        ),
    }
}

/// A subquery that finds a few bets that exist.
pub fn some_bets(random: &mut StdRng) -> String {
    format!(
        "SELECT id FROM bets WHERE id >= (SELECT max(id) FROM bets) - {} ORDER BY id LIMIT {}",
        random.random_range(0..500),
        random.random_range(1..6)
    )
}

pub fn id(random: &mut StdRng, last: i64) -> i64 {
    random.random_range(1..=last)
}

pub fn any<'a>(random: &mut StdRng, from: &[&'a str]) -> &'a str {
    from.choose(random).copied().unwrap_or_default()
}
