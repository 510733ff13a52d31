//! What the application does meanwhile: every kind of statement, on several connections at once,
//! through servers that die under it.
//!
//! Transactions go statement by statement, so that they interleave. One that dies with the server
//! may be there or not: PostgreSQL alone says, as for any application.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::SinkExt as _;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::task::JoinSet;
use walview::demo::servers::postgres::Db;

use crate::workload::{
    AMOUNTS, EVENTS, USERS, any, change_event, change_user, decide, id, is_expected, place,
    some_bets,
};

/// Bets beyond these go, so that comparing them all stays quick.
const BETS_KEPT: u32 = 1_500;
/// Ids whose row may hold a value that is stored out of line.
const LONG: i64 = 3;

#[derive(Default)]
pub struct Counts {
    pub statements: AtomicU64,
    pub committed: AtomicU64,
    pub rolled_back: AtomicU64,
    /// Died with the server.
    pub lost: AtomicU64,
}

#[derive(Clone, Copy)]
pub struct Size {
    pub connections: u64,
    /// Rows of one large transaction, and how long there is none after it.
    pub large_rows: u32,
    pub large_every: Duration,
}

/// Transactions until told to stop.
pub struct Load {
    stop: Arc<AtomicBool>,
    workers: JoinSet<()>,
}

enum Step {
    Sql(String),
    /// Rows for COPY, as text.
    Copy(String),
}

/// How a transaction ended.
enum Ended {
    Committed,
    RolledBack,
    Lost,
}

impl Load {
    pub fn start(url: &str, seed: u64, size: Size, counts: &Arc<Counts>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut workers = JoinSet::new();
        for number in 0..=size.connections {
            let random = StdRng::seed_from_u64(seed.wrapping_mul(1_000).wrapping_add(number));
            let (stop, counts) = (Arc::clone(&stop), Arc::clone(counts));
            let worker = Worker { url: url.to_owned(), number, random, stop, counts };
            // The last one does nothing but large transactions.
            let large = (number == size.connections).then_some(size);
            workers.spawn(worker.work(large));
        }
        Self { stop, workers }
    }

    /// Panics where a worker has.
    pub fn check(&mut self) {
        if let Some(worker) = self.workers.try_join_next() {
            worker.unwrap();
            panic!("a connection of the load ended by itself");
        }
    }

    /// Lets the transactions in flight end.
    pub async fn stop(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(worker) = self.workers.join_next().await {
            worker.unwrap();
        }
    }
}

struct Worker {
    url: String,
    number: u64,
    random: StdRng,
    stop: Arc<AtomicBool>,
    counts: Arc<Counts>,
}

impl Worker {
    async fn work(mut self, large: Option<Size>) {
        let mut client = None;
        while !self.stop.load(Ordering::Relaxed) {
            let Some(connected) = &client else {
                client = Db::connect(&self.url).await.ok();
                self.rest(20).await;
                continue;
            };
            let steps = match large {
                None => self.transaction(),
                Some(size) => self.large_transaction(size.large_rows),
            };
            match self.run(connected, steps).await {
                Ended::Committed => self.counts.committed.fetch_add(1, Ordering::Relaxed),
                Ended::RolledBack => self.counts.rolled_back.fetch_add(1, Ordering::Relaxed),
                Ended::Lost => {
                    client = None;
                    self.counts.lost.fetch_add(1, Ordering::Relaxed)
                }
            };
            let until =
                tokio::time::Instant::now() + large.map_or(Duration::ZERO, |l| l.large_every);
            self.rest(150).await;
            while tokio::time::Instant::now() < until && !self.stop.load(Ordering::Relaxed) {
                self.rest(40).await;
            }
        }
    }

    async fn rest(&mut self, milliseconds_max: u64) {
        let pause = self.random.random_range(0..milliseconds_max);
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }

    async fn run(&mut self, client: &Db, steps: Vec<Step>) -> Ended {
        let last = steps.len() - 1;
        let rolls_back = matches!(&steps[last], Step::Sql(sql) if sql == "ROLLBACK");
        for step in steps {
            self.counts.statements.fetch_add(1, Ordering::Relaxed);
            let (text, done) = match step {
                Step::Sql(sql) => {
                    let done = client.batch_execute(&sql).await;
                    (sql, done)
                }
                Step::Copy(rows) => ("COPY".to_owned(), copy(client, rows).await),
            };
            if let Err(error) = done {
                let code = error.code().map_or("", |code| code.code());
                // Class 57P: shut down, crashed, not up yet.
                if error.is_closed() || code.is_empty() || code.starts_with("57P") {
                    return Ended::Lost;
                }
                assert!(is_expected(&error), "{error}: {error:?}\n{text}");
                return match client.batch_execute("ROLLBACK").await {
                    Ok(()) => Ended::RolledBack,
                    Err(_) => Ended::Lost,
                };
            }
            if self.random.random_bool(0.3) {
                self.rest(12).await;
            }
        }
        if rolls_back { Ended::RolledBack } else { Ended::Committed }
    }

    fn transaction(&mut self) -> Vec<Step> {
        let sql = |text: &str| Step::Sql(text.to_owned());
        let mut steps = vec![sql("BEGIN")];
        if self.random.random_bool(0.05) {
            // Acknowledged before it is on disk: a crash may take it back, from everybody.
            steps.push(sql("SET LOCAL synchronous_commit = off"));
        }
        for _ in 0..self.random.random_range(1..7) {
            if self.random.random_bool(0.1) {
                steps.push(sql("SAVEPOINT a"));
                steps.push(self.statement());
                steps.push(sql("SAVEPOINT b"));
                steps.push(self.statement());
                steps.push(sql(match self.random.random_range(0..3) {
                    0 => "ROLLBACK TO SAVEPOINT a",
                    1 => "ROLLBACK TO SAVEPOINT b",
                    _ => "RELEASE SAVEPOINT a",
                }));
            }
            steps.push(self.statement());
        }
        steps.push(sql(if self.random.random_bool(0.05) { "ROLLBACK" } else { "COMMIT" }));
        steps
    }

    fn statement(&mut self) -> Step {
        let own = i64::try_from(self.number).unwrap();
        let random = &mut self.random;
        Step::Sql(match random.random_range(0..1_000) {
            0..250 => place(random),
            250..420 => decide(random),
            420..500 => change_user(random),
            500..560 => change_event(random),
            560..600 => move_bets(random),
            600..640 => several(random),
            640..660 => return Step::Copy(rows(random)),
            660..700 => format!("DELETE FROM bets WHERE id IN ({})", some_bets(random)),
            700..720 => format!("DELETE FROM users WHERE id = {}", id(random, USERS)),
            720..735 => format!("DELETE FROM events WHERE id = {}", id(random, EVENTS)),
            735..760 => format!(
                "UPDATE bets SET id = nextval(pg_get_serial_sequence('bets', 'id')) WHERE id IN ({})",
                some_bets(random)
            ),
            760..780 => swap_bets(random, -1 - own),
            780..800 => swap(random, "users", USERS, -1 - own),
            800..815 => swap(random, "events", EVENTS, -1 - own),
            815..825 => long_values(random),
            825..865 => upsert(random),
            865..890 => often(random),
            890..910 => reborn(random),
            // Another month: another partition in ClickHouse.
            910..950 => format!(
                "UPDATE bets SET placed_at = placed_at - interval '{} days' WHERE id IN ({})",
                random.random_range(1..90),
                some_bets(random)
            ),
            950..953 => {
                format!("UPDATE bets SET amount = amount {}", any(random, &["", "+ 0.01", "* 2"]))
            }
            953..955 => "UPDATE events SET category = category || '.' WHERE length(category) < 20"
                .to_owned(),
            955 => "TRUNCATE bets".to_owned(),
            956 => any(random, &["TRUNCATE users", "TRUNCATE events", "TRUNCATE bets, events"])
                .to_owned(),
            957..965 => {
                format!("DELETE FROM bets WHERE id < (SELECT max(id) FROM bets) - {BETS_KEPT}")
            }
            _ => place(random) + &decide(random),
        })
    }

    /// More rows than any buffer holds, part of them undone, changed and gone again.
    fn large_transaction(&mut self, rows: u32) -> Vec<Step> {
        let steps = [
            "BEGIN".to_owned(),
            format!("DELETE FROM bets WHERE id < (SELECT max(id) FROM bets) - {BETS_KEPT}"),
            format!(
                "INSERT INTO bets (user_id, event_id, amount, odds) SELECT 1 + i % {USERS}, \
                 1 + i % {EVENTS}, 1 + i % 500, 2.5 FROM generate_series(1, {rows}) i"
            ),
            "SAVEPOINT a".to_owned(),
            "UPDATE bets SET amount = 3 WHERE id % 5 = 0".to_owned(),
            "ROLLBACK TO SAVEPOINT a".to_owned(),
            "UPDATE bets SET status = 'CANCELLED', settled_at = now() \
             WHERE status = 'OPEN' AND id % 3 = 0"
                .to_owned(),
            format!("UPDATE users SET name = 'large' WHERE id = {}", id(&mut self.random, USERS)),
            "DELETE FROM bets WHERE id % 7 <> 0".to_owned(),
            if self.random.random_bool(0.1) { "ROLLBACK" } else { "COMMIT" }.to_owned(),
        ];
        steps.map(Step::Sql).into()
    }
}

async fn copy(client: &Db, rows: String) -> Result<(), tokio_postgres::Error> {
    let sink = client.copy_in("COPY bets (user_id, event_id, amount, odds) FROM STDIN").await?;
    let mut sink = std::pin::pin!(sink);
    sink.send(Bytes::from(rows)).await?;
    sink.close().await
}

fn rows(random: &mut StdRng) -> String {
    let mut rows = String::new();
    for _ in 0..random.random_range(1..400) {
        let (user, event) = (id(random, USERS + 3), id(random, EVENTS + 3));
        rows.push_str(&format!("{user}\t{event}\t{}\t1.50\n", any(random, &AMOUNTS)));
    }
    rows
}

fn several(random: &mut StdRng) -> String {
    format!(
        "INSERT INTO bets (user_id, event_id, amount, odds, placed_at) \
         SELECT {}, {}, {} , 2, now() - i * interval '1 hour' FROM generate_series(1, {}) i",
        id(random, USERS + 3),
        id(random, EVENTS + 3),
        any(random, &AMOUNTS),
        random.random_range(1..200)
    )
}

fn move_bets(random: &mut StdRng) -> String {
    format!(
        "UPDATE bets SET event_id = {}, user_id = {} WHERE id IN ({})",
        id(random, EVENTS + 3),
        id(random, USERS + 3),
        some_bets(random)
    )
}

/// Two rows that change keys; `spare` is a key that nobody else uses.
fn swap(random: &mut StdRng, table: &str, ids: i64, spare: i64) -> String {
    let (one, other) = (id(random, ids), id(random, ids));
    format!(
        "UPDATE {table} SET id = {spare} WHERE id = {one}; \
         UPDATE {table} SET id = {one} WHERE id = {other}; \
         UPDATE {table} SET id = {other} WHERE id = {spare}"
    )
}

fn swap_bets(random: &mut StdRng, spare: i64) -> String {
    format!(
        "DO $$ DECLARE one bigint; other bigint; BEGIN \
           SELECT min(id), max(id) INTO one, other FROM bets \
             WHERE id > (SELECT max(id) FROM bets) - {}; \
           UPDATE bets SET id = {spare} WHERE id = one; \
           UPDATE bets SET id = one WHERE id = other AND other <> one; \
           UPDATE bets SET id = other WHERE id = {spare}; END $$",
        random.random_range(2..300)
    )
}

/// Values that are stored out of line: later updates of the row do not send them.
fn long_values(random: &mut StdRng) -> String {
    let long = "(SELECT string_agg(md5(random()::text), '') FROM generate_series(1, 100))";
    let row = id(random, LONG);
    match random.random_range(0..4) {
        0 => format!("UPDATE events SET name = {long} WHERE id = {row}"),
        1 => format!("UPDATE events SET name = 'short again' WHERE id = {row}"),
        2 => format!("UPDATE users SET country = 'FR' WHERE id = {row}"),
        _ => format!(
            "UPDATE users SET preferences = jsonb_build_object('long', {long}) WHERE id = {row}"
        ),
    }
}

fn upsert(random: &mut StdRng) -> String {
    format!(
        "INSERT INTO bets (id, user_id, event_id, amount, odds) \
         SELECT id, {}, {}, 7, 3 FROM bets WHERE id IN ({}) \
         ON CONFLICT (id) DO UPDATE SET amount = excluded.amount, event_id = excluded.event_id",
        id(random, USERS),
        id(random, EVENTS),
        some_bets(random)
    )
}

/// One row many times in one transaction.
fn often(random: &mut StdRng) -> String {
    format!(
        "DO $$ DECLARE bet bigint; BEGIN SELECT max(id) INTO bet FROM bets; \
           FOR i IN 1..{} LOOP \
             UPDATE bets SET amount = 1 + i % 9, event_id = 1 + i % {EVENTS} WHERE id = bet; \
             UPDATE users SET name = 'turn ' || i WHERE id = {}; \
           END LOOP; END $$",
        random.random_range(2..25),
        id(random, USERS)
    )
}

/// Made, changed, gone and made again under the same key.
fn reborn(random: &mut StdRng) -> String {
    format!(
        "DO $$ DECLARE bet bigint := nextval(pg_get_serial_sequence('bets', 'id')); BEGIN \
           INSERT INTO bets (id, user_id, event_id, amount, odds) VALUES (bet, {0}, {1}, 1, 2); \
           UPDATE bets SET amount = amount + 1 WHERE id = bet; \
           UPDATE bets SET user_id = {2} WHERE id = bet; \
           DELETE FROM bets WHERE id = bet; \
           INSERT INTO bets (id, user_id, event_id, amount, odds) VALUES (bet, {2}, {1}, 5, 2); \
         END $$",
        id(random, USERS),
        id(random, EVENTS),
        id(random, USERS)
    )
}
