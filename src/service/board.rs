//! What one pipeline is doing, for `/status`, `/ready`, `/metrics` and `walview status`.
//!
//! The parts of a pipeline write here; the HTTP server reads. Nothing decides by what stands here.

use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use walview_core::engine::Engine;
use walview_core::position::Lsn;

/// Seconds over which rates are taken.
const RATE_WINDOW: Duration = Duration::from_secs(5);

/// Where a pipeline stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    Starting,
    Snapshotting,
    Live,
    Stopped,
}

/// Where a store's writer stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StoreState {
    Connecting,
    Loading,
    /// It lost what it had, and gets it again from the local state.
    Refilling,
    Live,
    Retrying,
    Stopped,
}

/// The JSON of `/status`; its field names are stable.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub pipeline: String,
    /// Names what the pipeline file meant when it was started.
    #[serde(default)]
    pub definition: String,
    pub state: Phase,
    /// Why it is not live, and what to do; absent where all is well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    pub source: SourceStatus,
    pub stores: Vec<StoreStatus>,
    pub views: Vec<ViewStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<SnapshotStatus>,
    pub local: LocalStatus,
    pub process: ProcessStatus,
    /// Row changes applied since the process started.
    pub changes_total: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SourceStatus {
    pub connected: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Everything before it is durable here, and PostgreSQL may forget it.
    pub lsn: String,
    pub slot: String,
    pub changes_per_second: f64,
    /// What somebody must mend there, each with what to type; the stream goes on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StoreStatus {
    pub name: String,
    pub kind: String,
    pub state: StoreState,
    /// The store holds everything that was committed at the source before this LSN.
    pub lsn: String,
    /// The source's clock there, RFC 3339.
    pub as_of: String,
    /// By the source's clock, how far the store is behind what was read; 0 where nothing waits.
    pub behind_ms: u64,
    /// Records that wait for the store.
    pub waiting: u64,
    /// While it is filled again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refill: Option<RefillStatus>,
    /// Times that it was filled again since the process started.
    #[serde(default)]
    pub refills: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RefillStatus {
    /// Why.
    pub reason: String,
    /// Result rows written.
    pub rows: u64,
    pub rows_per_second: f64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ViewStatus {
    pub name: String,
    /// `live` or `stopped`.
    pub state: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    pub dead_letters: u64,
    /// While it is corrected for a changed row that very many facts join: how many of them were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correcting: Option<u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct SnapshotStatus {
    /// `copying` tables, then `filling` the stores.
    pub step: String,
    /// Copied; or facts and groups that were read from the state for their results.
    pub rows: u64,
    /// Rows as the planner's statistics estimate them; 0 while filling.
    pub rows_estimated: u64,
    pub rows_per_second: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eta_seconds: Option<f64>,
}

impl RefillStatus {
    /// For people: why, how far, how fast.
    #[must_use]
    pub fn text(&self) -> String {
        let Self { reason, rows, rows_per_second } = self;
        format!("is filled again ({reason}): {rows} rows so far, {rows_per_second:.0} rows/s")
    }
}

impl SnapshotStatus {
    /// For people: how far it is, how fast, how long it still takes.
    #[must_use]
    pub fn text(&self) -> String {
        if self.step == "filling" {
            return format!(
                "filling the stores, {} rows so far, {:.0} rows/s",
                self.rows, self.rows_per_second
            );
        }
        let eta = self.eta_seconds.map_or(String::new(), |eta| format!(", {eta:.0} s left"));
        format!(
            "{} {} of about {} rows, {:.0} rows/s{eta}",
            self.step, self.rows, self.rows_estimated, self.rows_per_second
        )
    }
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LocalStatus {
    /// The state folder.
    pub disk_bytes: u64,
    /// Operations that the outbox keeps for the stores, about.
    pub outbox_bytes: u64,
    pub outbox_bytes_max: u64,
    /// Over the last seconds; below 0 where it empties.
    pub outbox_bytes_per_second: f64,
    /// Until it is full, where it grows; then the source keeps what comes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outbox_full_in_seconds: Option<f64>,
    /// Nothing is read of the source until a store takes what waits for it.
    pub outbox_full: bool,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ProcessStatus {
    pub pid: u32,
    pub uptime_seconds: f64,
    /// User and system time.
    pub cpu_seconds: f64,
    pub rss_bytes: u64,
    pub rss_peak_bytes: u64,
}

pub struct Board {
    inner: Mutex<Inner>,
    changes: AtomicU64,
    started: Instant,
}

struct Inner {
    pipeline: String,
    definition: String,
    slot: String,
    phase: Phase,
    reason: Option<String>,
    connected: bool,
    source_error: Option<String>,
    source_problems: Vec<String>,
    confirmed: Lsn,
    /// The source's clock at what was last read of it.
    source_at: i64,
    stores: Vec<StoreEntry>,
    views: Vec<ViewStatus>,
    snapshot: Option<(SnapshotStatus, Instant)>,
    disk_bytes: u64,
    outbox: (u64, u64),
    outbox_full: bool,
    /// Bytes in the outbox at earlier moments, for the rate.
    outbox_samples: VecDeque<(Instant, u64)>,
    /// Changes seen at earlier moments, for the rate.
    samples: VecDeque<(Instant, u64)>,
}

struct StoreEntry {
    name: String,
    kind: String,
    state: StoreState,
    lsn: Lsn,
    as_of: i64,
    waiting: u64,
    /// Why, rows, since when.
    refill: Option<(String, u64, Instant)>,
    refills: u64,
    last_error: Option<String>,
}

impl Board {
    /// `stores` are (name, kind).
    #[must_use]
    pub fn new(pipeline: &str, slot: &str, views: &[String], stores: &[(String, String)]) -> Self {
        Self {
            inner: Mutex::new(Inner {
                pipeline: pipeline.to_owned(),
                definition: String::new(),
                slot: slot.to_owned(),
                phase: Phase::Starting,
                reason: None,
                connected: false,
                source_error: None,
                source_problems: Vec::new(),
                confirmed: Lsn(0),
                source_at: 0,
                stores: stores
                    .iter()
                    .map(|(name, kind)| StoreEntry {
                        name: name.clone(),
                        kind: kind.clone(),
                        state: StoreState::Connecting,
                        lsn: Lsn(0),
                        as_of: 0,
                        waiting: 0,
                        refill: None,
                        refills: 0,
                        last_error: None,
                    })
                    .collect(),
                views: views
                    .iter()
                    .map(|name| ViewStatus {
                        name: name.clone(),
                        state: "live".to_owned(),
                        reason: None,
                        dead_letters: 0,
                        correcting: None,
                    })
                    .collect(),
                snapshot: None,
                disk_bytes: 0,
                outbox: (0, 0),
                outbox_full: false,
                outbox_samples: VecDeque::new(),
                samples: VecDeque::new(),
            }),
            changes: AtomicU64::new(0),
            started: Instant::now(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn phase(&self, phase: Phase) {
        let mut inner = self.lock();
        inner.phase = phase;
        if phase == Phase::Live {
            inner.snapshot = None;
            inner.reason = None;
        }
    }

    pub fn stopped(&self, reason: &str) {
        let mut inner = self.lock();
        inner.phase = Phase::Stopped;
        inner.reason = Some(reason.to_owned());
    }

    pub fn source(&self, error: Option<&str>) {
        let mut inner = self.lock();
        inner.connected = error.is_none();
        inner.source_error = error.map(str::to_owned);
    }

    /// Replaces what is in the way at the source. Said once in the log, too.
    pub fn source_problems(&self, problems: Vec<String>) {
        let mut inner = self.lock();
        for problem in problems.iter().filter(|problem| !inner.source_problems.contains(problem)) {
            tracing::error!(problem, "the source needs help");
        }
        inner.source_problems = problems;
    }

    pub fn change(&self) {
        self.changes.fetch_add(1, Ordering::Relaxed);
    }

    /// After a local commit.
    pub fn local(&self, confirmed: Lsn, engine: &Engine) {
        let mut inner = self.lock();
        inner.confirmed = confirmed;
        for (view, correcting) in inner.views.iter_mut().zip(engine.fan_outs()) {
            view.correcting = correcting;
        }
        drop(inner);
        self.views(engine.stopped(), engine.dead_letters());
    }

    pub fn views(&self, stopped: &[Option<String>], dead: &[u64]) {
        let mut inner = self.lock();
        for (index, view) in inner.views.iter_mut().enumerate() {
            view.reason = stopped.get(index).cloned().flatten();
            view.state = if view.reason.is_some() { "stopped" } else { "live" }.to_owned();
            view.dead_letters = dead.get(index).copied().unwrap_or(0);
        }
    }

    pub fn source_at(&self, at: i64) {
        let mut inner = self.lock();
        inner.source_at = inner.source_at.max(at);
    }

    pub fn disk(&self, bytes: u64) {
        self.lock().disk_bytes = bytes;
    }

    /// Called about once a second.
    pub fn outbox(&self, bytes: u64, bytes_max: u64) {
        let mut inner = self.lock();
        inner.outbox = (bytes, bytes_max);
        let now = Instant::now();
        inner.outbox_samples.push_back((now, bytes));
        while inner.outbox_samples.len() > 2
            && inner
                .outbox_samples
                .get(1)
                .is_some_and(|(at, _)| now.duration_since(*at) >= RATE_WINDOW)
        {
            inner.outbox_samples.pop_front();
        }
    }

    pub fn outbox_full(&self, full: bool) {
        self.lock().outbox_full = full;
    }

    pub fn snapshot(&self, step: &str, rows: u64, rows_estimated: u64) {
        let mut inner = self.lock();
        let now = Instant::now();
        let since = match &inner.snapshot {
            Some((status, since)) if status.step == step => *since,
            _ => now,
        };
        let seconds = now.duration_since(since).as_secs_f64();
        let rate = if seconds > 0.0 { as_f64(rows) / seconds } else { 0.0 };
        let left = rows_estimated.saturating_sub(rows);
        let status = SnapshotStatus {
            step: step.to_owned(),
            rows,
            rows_estimated,
            rows_per_second: rate,
            eta_seconds: (rate > 0.0 && rows_estimated > 0).then(|| as_f64(left) / rate),
        };
        inner.snapshot = Some((status, since));
    }

    pub fn store(&self, store: usize, state: StoreState, error: Option<&str>) {
        if let Some(entry) = self.lock().stores.get_mut(store) {
            entry.state = state;
            if state != StoreState::Refilling {
                entry.refill = None;
            }
            if let Some(error) = error {
                entry.last_error = Some(error.to_owned());
            }
        }
    }

    /// A store is filled again; `rows` of its results are there.
    pub fn refill(&self, store: usize, reason: &str, rows: u64) {
        if let Some(entry) = self.lock().stores.get_mut(store) {
            entry.state = StoreState::Refilling;
            let since = entry.refill.as_ref().map_or_else(Instant::now, |(.., since)| *since);
            entry.refill = Some((reason.to_owned(), rows, since));
        }
    }

    /// A refill has ended well.
    pub fn refilled(&self, store: usize) {
        if let Some(entry) = self.lock().stores.get_mut(store) {
            entry.refills += 1;
        }
    }

    /// The store holds everything before `lsn`; `waiting` records are still to come.
    pub fn store_at(&self, store: usize, lsn: Lsn, as_of: i64, waiting: u64) {
        if let Some(entry) = self.lock().stores.get_mut(store) {
            entry.lsn = entry.lsn.max(lsn);
            entry.as_of = entry.as_of.max(as_of);
            entry.waiting = waiting;
        }
    }

    /// Records wait for the store and it does not take them.
    pub fn store_waits(&self, store: usize, waiting: u64) {
        if let Some(entry) = self.lock().stores.get_mut(store) {
            entry.waiting = waiting;
        }
    }

    /// What the pipeline file means: [`crate::config::Pipeline::definition_hash`].
    pub fn define(&self, definition: String) {
        self.lock().definition = definition;
    }

    #[must_use]
    pub fn status(&self) -> Status {
        let total = self.changes.load(Ordering::Relaxed);
        let mut inner = self.lock();
        let now = Instant::now();
        inner.samples.push_back((now, total));
        while inner.samples.len() > 2
            && inner.samples.get(1).is_some_and(|(at, _)| now.duration_since(*at) >= RATE_WINDOW)
        {
            inner.samples.pop_front();
        }
        let rate = inner.samples.front().map_or(0.0, |(at, changes)| {
            let seconds = now.duration_since(*at).as_secs_f64();
            if seconds > 0.0 { as_f64(total - changes) / seconds } else { 0.0 }
        });
        Status {
            pipeline: inner.pipeline.clone(),
            definition: inner.definition.clone(),
            state: inner.phase,
            reason: inner.reason.clone(),
            source: SourceStatus {
                connected: inner.connected,
                error: inner.source_error.clone(),
                lsn: inner.confirmed.to_string(),
                slot: inner.slot.clone(),
                changes_per_second: (rate * 10.0).round() / 10.0,
                problems: inner.source_problems.clone(),
            },
            stores: inner
                .stores
                .iter()
                .map(|entry| StoreStatus {
                    name: entry.name.clone(),
                    kind: entry.kind.clone(),
                    state: entry.state,
                    lsn: entry.lsn.to_string(),
                    as_of: rfc3339(entry.as_of),
                    behind_ms: if entry.waiting == 0 {
                        0
                    } else {
                        u64::try_from((inner.source_at - entry.as_of) / 1000).unwrap_or(0)
                    },
                    waiting: entry.waiting,
                    refill: entry.refill_status(now),
                    refills: entry.refills,
                    last_error: entry.last_error.clone(),
                })
                .collect(),
            views: inner.views.clone(),
            snapshot: inner.snapshot.as_ref().map(|(status, _)| status.clone()),
            local: inner.local(),
            process: process(self.started),
            changes_total: total,
        }
    }
}

impl StoreEntry {
    fn refill_status(&self, now: Instant) -> Option<RefillStatus> {
        let (reason, rows, since) = self.refill.as_ref()?;
        let seconds = now.duration_since(*since).as_secs_f64();
        let rate = if seconds > 0.0 { as_f64(*rows) / seconds } else { 0.0 };
        Some(RefillStatus { reason: reason.clone(), rows: *rows, rows_per_second: rate.round() })
    }
}

impl Inner {
    fn local(&self) -> LocalStatus {
        let (bytes, bytes_max) = self.outbox;
        let rate = match (self.outbox_samples.front(), self.outbox_samples.back()) {
            (Some((from, before)), Some((to, now))) if to > from => {
                (as_f64(*now) - as_f64(*before)) / to.duration_since(*from).as_secs_f64()
            }
            _ => 0.0,
        };
        LocalStatus {
            disk_bytes: self.disk_bytes,
            outbox_bytes: bytes,
            outbox_bytes_max: bytes_max,
            outbox_bytes_per_second: rate.round(),
            outbox_full_in_seconds: (rate >= 1.0)
                .then(|| (as_f64(bytes_max.saturating_sub(bytes)) / rate).round()),
            outbox_full: self.outbox_full,
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "rates are shown with few digits")]
fn as_f64(count: u64) -> f64 {
    count as f64
}

pub(crate) fn rfc3339(micros: i64) -> String {
    let mut text = String::new();
    walview_core::target::format::write_text(
        &walview_core::value::Value::TimestampTz(micros),
        &walview_core::value::Type::TimestampTz,
        &mut text,
    );
    text
}

/// What Linux says of this process; zeros elsewhere.
fn process(started: Instant) -> ProcessStatus {
    let kilobytes = |status: &str, field: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(field))?;
        line.trim().trim_end_matches(" kB").parse::<u64>().ok().map(|kb| kb * 1024)
    };
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    // Fields 14 and 15 of proc(5) stat, counted after the command's closing parenthesis, in ticks
    // of USER_HZ, which is 100 on every Linux architecture that Rust has.
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let ticks: f64 = stat
        .rsplit_once(')')
        .map(|(_, fields)| {
            fields.split_whitespace().skip(11).take(2).filter_map(|t| t.parse::<f64>().ok()).sum()
        })
        .unwrap_or(0.0);
    ProcessStatus {
        pid: std::process::id(),
        uptime_seconds: started.elapsed().as_secs_f64(),
        cpu_seconds: ticks / 100.0,
        rss_bytes: kilobytes(&status, "VmRSS:").unwrap_or(0),
        rss_peak_bytes: kilobytes(&status, "VmHWM:").unwrap_or(0),
    }
}
