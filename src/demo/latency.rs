//! How long after its commit a change is visible, measured by somebody else than Walview.
//!
//! ```text
//!  workload: COMMIT returned ──► committed(id) ──┐
//!                                                ├─► seen − committed, at least 0
//!  reader:   XREAD BLOCK recent_bets ──► seen(id) ┘
//! ```
//!
//! Both clocks are this process's. The reader may be first: PostgreSQL streams a commit at the
//! moment that it tells the client.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result};
use redis::aio::MultiplexedConnection;

use super::servers::clickhouse;

/// Bets that one of the two has reported and the other has not.
const WAITING_MAX: usize = 1_000_000;
/// Latencies kept for the percentiles of a whole run: the newest ones.
const SAMPLES_MAX: usize = 1_000_000;
const XREAD_COUNT: usize = 1_000;
const XREAD_BLOCK_MS: usize = 1_000;

#[derive(Debug, Default)]
pub struct Visibility {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    committed: HashMap<i64, Instant>,
    seen: HashMap<i64, Instant>,
    second: Vec<Duration>,
    all: VecDeque<Duration>,
}

/// Percentiles; `None` where nothing was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Percentiles {
    pub count: usize,
    pub p50: Duration,
    pub p99: Duration,
}

impl Visibility {
    /// These bets' transaction has just been committed.
    pub fn committed(&self, ids: &[i64]) {
        let now = Instant::now();
        let Ok(mut inner) = self.inner.lock() else {
            return;
        };
        for id in ids {
            match inner.seen.remove(id) {
                Some(seen) => inner.measured(seen.saturating_duration_since(now)),
                None if inner.committed.len() < WAITING_MAX => {
                    inner.committed.insert(*id, now);
                }
                None => {}
            }
        }
    }

    /// A reader has seen this bet.
    pub fn seen(&self, id: i64, now: Instant) {
        let Ok(mut inner) = self.inner.lock() else {
            return;
        };
        match inner.committed.remove(&id) {
            Some(committed) => inner.measured(now.saturating_duration_since(committed)),
            None if inner.seen.len() < WAITING_MAX => {
                inner.seen.insert(id, now);
            }
            None => {}
        }
    }

    /// Of what became visible since the last call.
    pub fn second(&self) -> Option<Percentiles> {
        let mut latencies = std::mem::take(&mut self.inner.lock().ok()?.second);
        Percentiles::of(&mut latencies)
    }

    /// Of the whole run.
    pub fn total(&self) -> Option<Percentiles> {
        Percentiles::of(self.inner.lock().ok()?.all.make_contiguous())
    }

    /// Follows the stream, until it fails or is dropped.
    pub async fn follow(self: Arc<Self>, mut redis: MultiplexedConnection) -> Result<()> {
        type Entries = Vec<(String, Vec<String>)>;
        let newest: Entries = redis::cmd("XREVRANGE")
            .arg(&["recent_bets", "+", "-", "COUNT", "1"])
            .query_async(&mut redis)
            .await?;
        let mut last = newest.first().map_or_else(|| "0-0".to_owned(), |(id, _)| id.clone());
        loop {
            let reply: Option<Vec<(String, Entries)>> = redis::cmd("XREAD")
                .arg("COUNT")
                .arg(XREAD_COUNT)
                .arg("BLOCK")
                .arg(XREAD_BLOCK_MS)
                .arg("STREAMS")
                .arg("recent_bets")
                .arg(&last)
                .query_async(&mut redis)
                .await
                .context("reading the stream \"recent_bets\" failed")?;
            let now = Instant::now();
            for (id, fields) in reply.into_iter().flatten().flat_map(|(_, entries)| entries) {
                let bet = fields.chunks(2).find_map(|pair| match pair {
                    [name, value] if name == "id" => value.parse().ok(),
                    _ => None,
                });
                if let Some(bet) = bet {
                    self.seen(bet, now);
                }
                last = id;
            }
        }
    }
}

impl Inner {
    fn measured(&mut self, latency: Duration) {
        self.second.push(latency);
        if self.all.len() == SAMPLES_MAX {
            self.all.pop_front();
        }
        self.all.push_back(latency);
    }
}

impl Percentiles {
    pub fn of(latencies: &mut [Duration]) -> Option<Self> {
        latencies.sort_unstable();
        let at = |percent: usize| latencies.get(latencies.len().saturating_sub(1) * percent / 100);
        Some(Self { count: latencies.len(), p50: *at(50)?, p99: *at(99)? })
    }
}

/// How old the newest bet is that `ClickHouse` shows. Read from the rows behind the view: the same
/// rows, without the work of merging their versions.
pub async fn clickhouse_behind(address: &str) -> Option<Duration> {
    let sql = "SELECT toUnixTimestamp64Micro(max(placed_at)) FROM betting_rows.bets_analytics";
    let answer = clickhouse::query(address, sql).await.ok()?;
    let newest = Duration::from_micros(answer.trim().parse().ok()?);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Some(now.saturating_sub(newest))
}
