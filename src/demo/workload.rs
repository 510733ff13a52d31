//! What a betting platform does all day: an open loop of transactions at a steady rate.
//!
//! - Transaction n is due at `start + n / rate`, whoever takes it; one that is late is run at once
//!   and its successors are not put off, so that a slow server shows as a backlog, not as less work.
//! - Open bets are handed out from a shared pool, so that settling finds bets to settle.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, Result};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_postgres::Statement;
use tokio_postgres::error::SqlState;

use super::latency::Visibility;
use super::servers::postgres::Db;

/// Enough to keep PostgreSQL busy on two cores, few enough to leave something to the others.
const CONNECTIONS: u64 = 4;
/// Ids that did not exist when the bet was placed: their event arrives later, or never.
const LATE_EVENTS: i64 = 3;

/// A running workload. Dropping it stops it in the middle of transactions.
#[derive(Debug)]
pub struct Workload {
    shared: Arc<Shared>,
    workers: JoinSet<Result<()>>,
}

#[derive(Debug)]
struct Shared {
    /// Transactions a second; 0 is as fast as it goes.
    rate: u32,
    start: Instant,
    next: AtomicU64,
    stop: AtomicBool,
    transactions: AtomicU64,
    rows: AtomicU64,
    last_user: AtomicI64,
    last_event: AtomicI64,
    open: Mutex<Vec<i64>>,
    visibility: Arc<Visibility>,
}

/// Totals since the start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Totals {
    pub transactions: u64,
    pub rows: u64,
}

impl Workload {
    pub async fn start(url: &str, rate: u32, visibility: &Arc<Visibility>) -> Result<Self> {
        let client = Db::connect(url).await?;
        let last = async |table: &str| -> Result<i64> {
            let sql = format!("SELECT coalesce(max(id), 0) FROM {table}");
            Ok(client.query_one(&sql, &[]).await?.get(0))
        };
        let open = client.query("SELECT id FROM bets WHERE status = 'OPEN'", &[]).await?;
        let shared = Arc::new(Shared {
            rate,
            start: Instant::now(),
            next: AtomicU64::new(0),
            stop: AtomicBool::new(false),
            transactions: AtomicU64::new(0),
            rows: AtomicU64::new(0),
            last_user: AtomicI64::new(last("users").await?),
            last_event: AtomicI64::new(last("events").await?),
            open: Mutex::new(open.iter().map(|row| row.get(0)).collect()),
            visibility: Arc::clone(visibility),
        });
        let mut workers = JoinSet::new();
        for seed in 0..CONNECTIONS {
            let worker = Worker::connect(url, seed, Arc::clone(&shared)).await?;
            workers.spawn(worker.run());
        }
        Ok(Self { shared, workers })
    }

    pub fn totals(&self) -> Totals {
        Totals {
            transactions: self.shared.transactions.load(Ordering::Relaxed),
            rows: self.shared.rows.load(Ordering::Relaxed),
        }
    }

    /// The error of the first worker that failed; pending while all work.
    pub async fn failed(&mut self) -> anyhow::Error {
        match self.workers.join_next().await {
            Some(Ok(Err(error))) => error.context("the workload failed"),
            Some(Err(error)) => anyhow::Error::new(error).context("the workload failed"),
            Some(Ok(Ok(()))) | None => std::future::pending().await,
        }
    }

    /// Lets every worker finish its transaction.
    pub async fn stop(mut self) -> Result<Totals> {
        self.shared.stop.store(true, Ordering::Relaxed);
        while let Some(ended) = self.workers.join_next().await {
            ended?.context("the workload failed")?;
        }
        Ok(self.totals())
    }
}

struct Worker {
    client: Db,
    random: StdRng,
    shared: Arc<Shared>,
    statements: Statements,
}

struct Statements {
    place: Statement,
    settle: Statement,
    cash_out: Statement,
    cancel: Statement,
    move_bet: Statement,
}

/// What a transaction does, and how often in a thousand.
#[derive(Clone, Copy)]
enum Action {
    Place,
    Decide(Decision),
    Basket,
    SettleEvent,
    RolledBack,
    ChangeUser,
    ChangeEvent,
    NewUser,
    NewEvent,
    DeleteBet,
    DeleteUser,
    DeleteEvent,
    MoveBet,
}

/// How a bet ends.
#[derive(Clone, Copy)]
enum Decision {
    Settle,
    CashOut,
    Cancel,
}

const MIX: [(Action, u32); 15] = [
    (Action::Place, 550),
    (Action::Decide(Decision::Settle), 180),
    (Action::Decide(Decision::CashOut), 80),
    (Action::Decide(Decision::Cancel), 50),
    (Action::Basket, 30),
    (Action::SettleEvent, 20),
    (Action::RolledBack, 20),
    (Action::ChangeUser, 25),
    (Action::ChangeEvent, 15),
    (Action::NewUser, 8),
    (Action::NewEvent, 4),
    (Action::DeleteBet, 10),
    (Action::DeleteUser, 3),
    (Action::DeleteEvent, 1),
    (Action::MoveBet, 4),
];

impl Worker {
    async fn connect(url: &str, seed: u64, shared: Arc<Shared>) -> Result<Self> {
        let client = Db::connect(url).await?;
        let statements = Statements {
            place: client
                .prepare(
                    "INSERT INTO bets (user_id, event_id, amount, odds)
                     VALUES ($1, $2, $3::bigint / 100.0, $4::bigint / 100.0) RETURNING id",
                )
                .await?,
            settle: client
                .prepare(
                    "UPDATE bets SET status = 'SETTLED', settled_at = now(),
                            payout = CASE WHEN $2 THEN round(amount * odds, 2) ELSE 0 END
                     WHERE id = $1 AND status = 'OPEN'",
                )
                .await?,
            cash_out: client
                .prepare(
                    "UPDATE bets SET status = 'CASHED_OUT', settled_at = now(),
                            payout = round(amount * 0.8, 2)
                     WHERE id = $1 AND status = 'OPEN'",
                )
                .await?,
            cancel: client
                .prepare(
                    "UPDATE bets SET status = 'CANCELLED', settled_at = now()
                     WHERE id = $1 AND status = 'OPEN'",
                )
                .await?,
            move_bet: client.prepare("UPDATE bets SET event_id = $2 WHERE id = $1").await?,
        };
        Ok(Self { client, random: StdRng::seed_from_u64(seed), shared, statements })
    }

    async fn run(mut self) -> Result<()> {
        while !self.shared.stop.load(Ordering::Relaxed) {
            let ticket = self.shared.next.fetch_add(1, Ordering::Relaxed);
            if let Some(due) = self.shared.due(ticket) {
                sleep_until(due).await;
                if self.shared.stop.load(Ordering::Relaxed) {
                    break;
                }
            }
            let action = pick(&mut self.random);
            match self.act(action).await {
                Ok(rows) => {
                    self.shared.transactions.fetch_add(1, Ordering::Relaxed);
                    self.shared.rows.fetch_add(rows, Ordering::Relaxed);
                }
                // Two transactions met; one of them has to give way, as in life.
                Err(error) if error.code() == Some(&SqlState::T_R_DEADLOCK_DETECTED) => {
                    self.client.batch_execute("ROLLBACK").await?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// One transaction; returns how many rows it changed.
    async fn act(&mut self, action: Action) -> Result<u64, tokio_postgres::Error> {
        match action {
            Action::Place => {
                let id = self.place().await?;
                self.placed(&[id]);
                Ok(1)
            }
            Action::Decide(decision) => self.decide(decision).await,
            Action::Basket => self.basket().await,
            Action::SettleEvent => self.settle_event().await,
            Action::RolledBack => {
                self.client.batch_execute("BEGIN").await?;
                self.place().await?;
                self.change_user().await?;
                self.client.batch_execute("ROLLBACK").await?;
                Ok(0)
            }
            Action::ChangeUser => self.change_user().await,
            Action::ChangeEvent => self.change_event().await,
            Action::NewUser => self.new_user().await,
            Action::NewEvent => self.new_event().await,
            Action::DeleteBet => {
                let Some(bet) = self.shared.take_open(&mut self.random) else {
                    return Ok(0);
                };
                self.client.execute("DELETE FROM bets WHERE id = $1", &[&bet]).await
            }
            Action::DeleteUser => {
                let user = self.user();
                self.client.execute("DELETE FROM users WHERE id = $1", &[&user]).await
            }
            Action::DeleteEvent => {
                let event = self.event();
                self.client.execute("DELETE FROM events WHERE id = $1", &[&event]).await
            }
            Action::MoveBet => {
                let event = self.event();
                let Some(bet) = self.shared.take_open(&mut self.random) else {
                    return Ok(0);
                };
                let moved = self.client.execute(&self.statements.move_bet, &[&bet, &event]).await;
                self.shared.put_open(&[bet]);
                moved
            }
        }
    }

    async fn place(&mut self) -> Result<i64, tokio_postgres::Error> {
        let (user, event) = (self.user(), self.event());
        let (cents, odds) =
            (self.random.random_range(100..20_000_i64), self.random.random_range(105..1_000_i64));
        let row =
            self.client.query_one(&self.statements.place, &[&user, &event, &cents, &odds]).await?;
        Ok(row.get(0))
    }

    /// After the commit: starts the clock of these bets.
    fn placed(&self, ids: &[i64]) {
        self.shared.visibility.committed(ids);
        self.shared.put_open(ids);
    }

    async fn decide(&mut self, decision: Decision) -> Result<u64, tokio_postgres::Error> {
        let Some(bet) = self.shared.take_open(&mut self.random) else {
            return Ok(0);
        };
        match decision {
            Decision::CashOut => self.client.execute(&self.statements.cash_out, &[&bet]).await,
            Decision::Cancel => self.client.execute(&self.statements.cancel, &[&bet]).await,
            Decision::Settle => {
                let won = self.random.random_bool(0.3);
                self.client.execute(&self.statements.settle, &[&bet, &won]).await
            }
        }
    }

    /// Several bets at once, with a change of the user's settings in between.
    async fn basket(&mut self) -> Result<u64, tokio_postgres::Error> {
        self.client.batch_execute("BEGIN").await?;
        let mut ids = Vec::new();
        for _ in 0..self.random.random_range(2..6) {
            ids.push(self.place().await?);
        }
        let changed = self.change_user().await?;
        self.client.batch_execute("COMMIT").await?;
        self.placed(&ids);
        Ok(changed + ids.len() as u64)
    }

    /// The final whistle: an event's open bets, at most 50, and the event, in one transaction.
    async fn settle_event(&mut self) -> Result<u64, tokio_postgres::Error> {
        let event = self.event();
        self.client.batch_execute("BEGIN").await?;
        let bets = self
            .client
            .execute(
                "UPDATE bets SET status = 'SETTLED', settled_at = now(),
                        payout = CASE WHEN id % 3 = 0 THEN round(amount * odds, 2) ELSE 0 END
                 WHERE id IN (SELECT id FROM bets WHERE event_id = $1 AND status = 'OPEN'
                              ORDER BY id LIMIT 50 FOR UPDATE SKIP LOCKED)",
                &[&event],
            )
            .await?;
        let sql = "UPDATE events SET status = 'FINISHED' WHERE id = $1 AND status <> 'FINISHED'";
        let events = self.client.execute(sql, &[&event]).await?;
        self.client.batch_execute("COMMIT").await?;
        Ok(bets + events)
    }

    async fn change_user(&mut self) -> Result<u64, tokio_postgres::Error> {
        let user = self.user();
        let sql = match self.random.random_range(0..4) {
            0 => {
                "UPDATE users SET name = split_part(name, ' ', 1) || ' ' ||
                        (ARRAY['Klein','Lindgren','Marín','Nagy'])[1 + floor(random() * 4)]
                 WHERE id = $1"
            }
            1 => {
                "UPDATE users SET country = (ARRAY['PT','NL','IE','AT'])[1 + floor(random() * 4)]
                 WHERE id = $1"
            }
            2 => "UPDATE users SET verified = NOT verified WHERE id = $1",
            _ => {
                "UPDATE users SET preferences = preferences ||
                        jsonb_build_object('daily_limit', 10 * (1 + floor(random() * 50))::int)
                 WHERE id = $1"
            }
        };
        self.client.execute(sql, &[&user]).await
    }

    async fn change_event(&mut self) -> Result<u64, tokio_postgres::Error> {
        let event = self.event();
        let sql = match self.random.random_range(0..8) {
            0 => {
                "UPDATE events SET category = CASE category WHEN 'tennis' THEN 'table tennis'
                        ELSE 'tennis' END WHERE id = $1"
            }
            1..4 => {
                "UPDATE events SET name = regexp_replace(name, '( \\(moved\\))?$', ' (moved)')
                 WHERE id = $1"
            }
            _ => {
                "UPDATE events SET status = CASE status WHEN 'SCHEDULED' THEN 'LIVE'
                        WHEN 'LIVE' THEN 'FINISHED' ELSE 'SCHEDULED' END WHERE id = $1"
            }
        };
        self.client.execute(sql, &[&event]).await
    }

    async fn new_user(&mut self) -> Result<u64, tokio_postgres::Error> {
        let sql = "INSERT INTO users (name, email, country)
                   VALUES ('New Player', gen_random_uuid() || '@example.com', 'GB') RETURNING id";
        let row = self.client.query_one(sql, &[]).await?;
        self.shared.last_user.fetch_max(row.get(0), Ordering::Relaxed);
        Ok(1)
    }

    async fn new_event(&mut self) -> Result<u64, tokio_postgres::Error> {
        let sql = "INSERT INTO events (name, category, starts_at)
                   VALUES ('Late fixture', 'football', now() + interval '1 day') RETURNING id";
        let row = self.client.query_one(sql, &[]).await?;
        self.shared.last_event.fetch_max(row.get(0), Ordering::Relaxed);
        Ok(1)
    }

    fn user(&mut self) -> i64 {
        let last = self.shared.last_user.load(Ordering::Relaxed);
        skewed(&mut self.random, last)
    }

    fn event(&mut self) -> i64 {
        let last = self.shared.last_event.load(Ordering::Relaxed);
        skewed(&mut self.random, last + LATE_EVENTS)
    }
}

impl Shared {
    fn due(&self, ticket: u64) -> Option<Instant> {
        let seconds = (self.rate > 0).then(|| ticket as f64 / f64::from(self.rate))?;
        Some(self.start + Duration::from_secs_f64(seconds))
    }

    fn take_open(&self, random: &mut StdRng) -> Option<i64> {
        let mut open = self.open.lock().ok()?;
        if open.is_empty() {
            return None;
        }
        let at = random.random_range(0..open.len());
        Some(open.swap_remove(at))
    }

    fn put_open(&self, ids: &[i64]) {
        if let Ok(mut open) = self.open.lock() {
            open.extend_from_slice(ids);
        }
    }
}

fn pick(random: &mut StdRng) -> Action {
    let total = MIX.iter().map(|(_, share)| share).sum();
    let mut at = random.random_range(0..total);
    for (action, share) in MIX {
        if at < share {
            return action;
        }
        at -= share;
    }
    Action::Place
}

/// Between 1 and `last`; most of the time among the first.
fn skewed(random: &mut StdRng, last: i64) -> i64 {
    let last = last.max(1);
    random.random_range(1..=last).min(random.random_range(1..=last))
}
