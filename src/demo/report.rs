//! What the demo prints: for a person who watches it, and figures that can be compared.

use std::io::Write as _;
use std::time::Duration;

use super::latency::Percentiles;
use super::workload::Totals;
use crate::service::board::{ProcessStatus, Status};

/// One line. A reader that went away (`| head`) is no reason to stop in the middle.
pub(super) fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).ok();
}

/// What one second was like.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Second {
    pub(super) elapsed: Duration,
    /// Since the line before, a second ago or a little more.
    pub(super) interval: Duration,
    pub(super) transactions: u64,
    pub(super) changes: u64,
    pub(super) redis: Option<Percentiles>,
    pub(super) clickhouse: Option<Duration>,
    pub(super) cpu_seconds: f64,
    pub(super) rss_bytes: u64,
}

impl Second {
    pub(super) fn changes_per_second(&self) -> f64 {
        self.changes as f64 / self.interval.as_secs_f64().max(0.001)
    }

    pub(super) fn line(&self) -> String {
        let transactions = self.transactions as f64 / self.interval.as_secs_f64().max(0.001);
        let redis = self.redis.map_or_else(
            || "nothing new".to_owned(),
            |redis| format!("p50 {} p99 {}", duration(redis.p50), duration(redis.p99)),
        );
        let clickhouse = self.clickhouse.map_or_else(|| "?".to_owned(), duration);
        format!(
            "{:>4} s  {:>6} tx/s  {:>7} changes/s   redis {redis:<23}  clickhouse {clickhouse:>7} \
             behind   walview {:>8}/change  {:>4} MiB",
            self.elapsed.as_secs(),
            thousands(transactions),
            thousands(self.changes_per_second()),
            cpu_per_change(self.cpu_seconds, self.changes),
            self.rss_bytes >> 20,
        )
    }
}

/// The whole run, gathered second by second.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Run {
    pub(super) seconds: Duration,
    pub(super) changes: u64,
    pub(super) cpu_seconds: f64,
    pub(super) fastest: f64,
    pub(super) clickhouse_worst: Option<Duration>,
}

impl Run {
    pub(super) fn add(&mut self, second: &Second) {
        self.seconds = second.elapsed;
        self.changes += second.changes;
        self.cpu_seconds += second.cpu_seconds;
        self.fastest = self.fastest.max(second.changes_per_second());
        self.clickhouse_worst = self.clickhouse_worst.max(second.clickhouse);
    }

    pub(super) fn table(
        &self,
        workload: Totals,
        redis: Option<Percentiles>,
        process: &ProcessStatus,
    ) -> String {
        let seconds = self.seconds.as_secs_f64().max(0.001);
        let none = || "nothing measured".to_owned();
        let rows = [
            (
                "transactions",
                format!(
                    "{}, {} a second",
                    thousands(workload.transactions as f64),
                    thousands(workload.transactions as f64 / seconds)
                ),
            ),
            (
                "row changes",
                format!(
                    "{} committed; highest streamed in a second {}",
                    thousands(workload.rows as f64),
                    thousands(self.fastest)
                ),
            ),
            (
                "commit to Redis",
                redis.map_or_else(none, |redis| {
                    format!(
                        "p50 {}, p99 {} over {} bets",
                        duration(redis.p50),
                        duration(redis.p99),
                        thousands(redis.count as f64)
                    )
                }),
            ),
            (
                "commit to ClickHouse",
                self.clickhouse_worst
                    .map_or_else(none, |worst| format!("at most {} behind", duration(worst))),
            ),
            (
                "walview",
                format!(
                    "{} of CPU per change, {} MiB at most",
                    cpu_per_change(self.cpu_seconds, self.changes),
                    process.rss_peak_bytes >> 20
                ),
            ),
        ];
        rows.map(|(name, value)| format!("  {name:<22}{value}")).join("\n")
    }
}

/// The growth of CPU time and changes between two looks.
pub(super) fn growth(before: &Status, now: &Status) -> (f64, u64) {
    (
        now.process.cpu_seconds - before.process.cpu_seconds,
        now.changes_total.saturating_sub(before.changes_total),
    )
}

fn cpu_per_change(cpu_seconds: f64, changes: u64) -> String {
    if changes == 0 {
        return "-".to_owned();
    }
    format!("{:.1} µs", cpu_seconds * 1e6 / changes as f64)
}

/// In the unit that people would say it in.
pub(super) fn duration(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    if seconds < 0.1 {
        format!("{:.1} ms", seconds * 1e3)
    } else if seconds < 120.0 {
        format!("{seconds:.1} s")
    } else {
        format!("{:.0} min", seconds / 60.0)
    }
}

/// `12,345`.
pub(super) fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}
