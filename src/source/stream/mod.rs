//! The replication stream, in gulps.
//!
//! ```text
//!  walsender ═► pgwire-replication's task ─► bounded channel ─► Stream::next ─► Gulp ─► engine
//!      ▲              │ status every second                                        │
//!      └── flushed LSN┴──────────────────────────── Stream::confirm ◄── durable ───┘
//! ```
//!
//! What is guaranteed of the order of events (tried on PostgreSQL 15, see the tests):
//! - transactions come whole, one after the other, in the order of their commit LSNs: `Begin`, its
//!   `Data`, `Commit`. `Begin::commit_lsn` and `Commit::commit_lsn` are the same number, the start
//!   of the commit record; `Commit::end_lsn` is where the next record starts;
//! - a `KeepAlive` received **outside** a transaction says that every transaction whose commit LSN
//!   is below `wal_end` has been received. So once all of those are durable, `wal_end` may be
//!   confirmed, and must be: nothing else moves the slot while other databases write;
//! - a `KeepAlive` **inside** a transaction (the server sends them while it works off a large one)
//!   says nothing that may be confirmed.
//!
//! Invariants:
//! - the server is told exactly what [`Stream::confirm`] was told, and nothing before it has shown
//!   that its log is the one that is known here ([`continuity`]); nothing moves by itself;
//! - a consumer that takes no gulp for hours loses nothing and is not cut off: the status goes on;
//! - memory: one gulp ([`GULP_BYTES_MAX`]), and [`EVENTS_BUFFERED`] messages before it.

mod continuity;
mod probe;

pub use continuity::Resume;

use super::config::SourceConfig;
use super::connect::{Replication, connect, replication, replication_config};
use super::error::{Action, Kind, SourceError, server, timed_out};
use super::server::Lineage;
use super::{publication, slot};
use bytes::Bytes;
use continuity::{Broken, Continuity};
use pgwire_replication::{ReplicationClient, ReplicationEvent, ReplicationMetrics};
use probe::Probe;
use std::sync::Arc;
use std::time::Duration;
use walview_core::position::Lsn;

/// A gulp ends once it holds this much.
pub const GULP_BYTES_MAX: usize = 1 << 20;
/// Events without data (empty transactions, keepalives) weigh this much in a gulp.
const EVENT_BYTES: usize = 64;
/// Messages that the client library holds ready. Counted, not weighed: with rows of 1 MB this is
/// 256 MB, which is why it is not larger.
const EVENTS_BUFFERED: usize = 256;
/// The largest row change. Refused above, because it would have to be held in memory whole.
pub const MESSAGE_BYTES_MAX: usize = 256 << 20;
/// How often the server hears from us: often enough that a confirmed position and a server's
/// shutdown wait for no more than this, far more often than `wal_sender_timeout` asks for.
const STATUS_INTERVAL: Duration = Duration::from_secs(1);
/// How long the wire may be silent before the server is asked, over another connection, whether our
/// session is well. An idle server is silent for as long as it likes: our status keeps it from
/// sending keepalives of its own.
const SILENCE_MAX: Duration = Duration::from_secs(20);
/// How long [`Stream::stop`] waits for the last confirmed position to be sent.
const LAST_STATUS_TIMEOUT: Duration = Duration::from_secs(3);
const LAST_STATUS_INTERVAL: Duration = Duration::from_millis(20);

/// What the stream says.
#[derive(Clone, Debug)]
pub enum Event {
    Begin {
        xid: u32,
        commit_lsn: Lsn,
        /// Microseconds since 2000-01-01 UTC.
        committed_at: i64,
    },
    /// A pgoutput message other than Begin and Commit, for [`walview_core::pgoutput::decode`].
    Data(Bytes),
    Commit {
        commit_lsn: Lsn,
        /// What is confirmed once the transaction is durable.
        end_lsn: Lsn,
        committed_at: i64,
    },
    KeepAlive {
        wal_end: Lsn,
    },
    /// `pg_logical_emit_message()`; outside a transaction unless `transactional`.
    Message {
        transactional: bool,
        lsn: Lsn,
        prefix: String,
        content: Bytes,
    },
}

/// Everything that was at hand, at least one event.
#[derive(Debug, Default)]
pub struct Gulp {
    pub events: Vec<Event>,
    pub bytes: usize,
}

/// A running stream.
pub struct Stream {
    config: SourceConfig,
    what: String,
    client: ReplicationClient,
    metrics: Arc<ReplicationMetrics>,
    lineage: Lineage,
    /// Events taken out of the channel; the metrics count those put in.
    received: u64,
    /// Kept here and not in `next`, which may be dropped while it waits.
    gulp: Gulp,
    continuity: Continuity,
    in_transaction: bool,
    /// What the server is told, once `continuity` is shown.
    confirmed: Lsn,
    probe: Probe,
    pub(super) silence_max: Duration,
}

impl Stream {
    /// Starts streaming. The position in `resume` is confirmed once the log is known to be the one
    /// that `resume` speaks of (see [`continuity`]); until then commits below that position may come
    /// again. `lineage` is what it belongs to.
    ///
    /// # Errors
    /// The slot or publication is missing, lost, another's, held or past the position; the lineage
    /// is another, or the log ends before the position; or the server cannot be reached.
    pub async fn start(
        config: &SourceConfig,
        slot: &str,
        publication: &str,
        resume: Resume,
        lineage: Option<Lineage>,
    ) -> Result<Self, SourceError> {
        let from = resume.confirmed;
        slot::check_name(slot)?;
        let sql = connect(config).await?;
        let found = slot::info(&sql, slot).await?.ok_or_else(|| slot::missing(slot))?;
        found.require(config, from)?;
        publication::require(&sql, publication).await?;
        let begin = found.confirmed_flush_lsn.unwrap_or(from);
        let start = pgwire_replication::Lsn::from_u64(begin.0);
        let session = replication_config(config, &Replication { slot, publication, start })?
            .with_ack_lsn(start)
            .with_status_interval(STATUS_INTERVAL)
            .with_wakeup_interval(STATUS_INTERVAL)
            .with_buffer_size(EVENTS_BUFFERED)
            .with_max_message_size(MESSAGE_BYTES_MAX);
        let (mut client, identity) = replication(config, session).await?;
        let answered = Lineage::from_identity(&identity)?;
        if let Some(lineage) = lineage {
            answered.require(lineage, config)?;
        }
        if identity.xlogpos.as_u64() < from.0 {
            return Err(went_back(config, from));
        }
        let what = format!("stream from slot \"{slot}\"");
        let failed = |error| SourceError::replication(config, &what, error);
        let pid = slot::backend_pid(&mut client).await.map_err(failed)?;
        client.start().await.map_err(failed)?;
        let started = tokio::time::timeout(config.connect_timeout, client.wait_started()).await;
        match started {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                let error = failed(error);
                // Someone else was faster; say who.
                if error.kind == Kind::SlotHeld
                    && let Some(slot) = slot::info(&sql, slot).await?
                {
                    slot.require(config, from)?;
                }
                return Err(error);
            }
            Err(_elapsed) => return Err(timed_out(config, &what)),
        }
        sql.close().await;
        let mut stream = Self {
            config: config.clone(),
            what,
            metrics: client.metrics(),
            client,
            lineage: answered,
            received: 0,
            gulp: Gulp::default(),
            continuity: Continuity::new(resume, begin),
            in_transaction: false,
            confirmed: begin,
            probe: Probe::new(pid),
            silence_max: SILENCE_MAX,
        };
        stream.confirm(from);
        Ok(stream)
    }

    /// The server that streams.
    #[must_use]
    pub fn lineage(&self) -> Lineage {
        self.lineage
    }

    /// The end of the server's log as the last message said: what is still to come is up to here.
    #[must_use]
    pub fn wal_end(&self) -> Lsn {
        Lsn(self.metrics.last_wal_end().as_u64())
    }

    /// Waits for events and returns all that are at hand. May be dropped while it waits: nothing is
    /// lost.
    ///
    /// # Errors
    /// The stream has ended; start another, if the error says so.
    pub async fn next(&mut self) -> Result<Gulp, SourceError> {
        while self.gulp.events.is_empty() {
            match tokio::time::timeout(self.silence_max, self.client.recv()).await {
                Ok(received) => self.take(received)?,
                Err(_elapsed) => {
                    self.probe.ask(&self.config).await.map_err(|error| self.stalled(error))?;
                }
            }
        }
        self.probe.rest();
        // The library counts an event after it is in the channel, so these are there and no wait
        // follows. It offers no `try_recv`; polling `recv` once and dropping it could lose the
        // error that the stream ended with.
        while self.metrics.events_forwarded() > self.received && self.gulp.bytes < GULP_BYTES_MAX {
            let received = self.client.recv().await;
            self.take(received)?;
        }
        Ok(std::mem::take(&mut self.gulp))
    }

    fn take(
        &mut self,
        received: pgwire_replication::Result<Option<ReplicationEvent>>,
    ) -> Result<(), SourceError> {
        let event = match received {
            Ok(Some(event)) => event,
            Ok(None) => {
                return Err(SourceError::retry(
                    format!("cannot {}: the server ended the stream", self.what),
                    "",
                )
                .kind(Kind::Unreachable));
            }
            Err(error) => return Err(SourceError::replication(&self.config, &self.what, error)),
        };
        self.received += 1;
        self.compare(&event)?;
        let lsn = |lsn: pgwire_replication::Lsn| Lsn(lsn.as_u64());
        let mut bytes = EVENT_BYTES;
        let event = match event {
            ReplicationEvent::XLogData { data, .. } => {
                bytes += data.len();
                Event::Data(data)
            }
            ReplicationEvent::Begin { final_lsn, xid, commit_time_micros } => {
                Event::Begin { xid, commit_lsn: lsn(final_lsn), committed_at: commit_time_micros }
            }
            ReplicationEvent::Commit { lsn: commit, end_lsn, commit_time_micros } => {
                Event::Commit {
                    commit_lsn: lsn(commit),
                    end_lsn: lsn(end_lsn),
                    committed_at: commit_time_micros,
                }
            }
            ReplicationEvent::KeepAlive { wal_end, .. } => {
                Event::KeepAlive { wal_end: lsn(wal_end) }
            }
            ReplicationEvent::Message { transactional, lsn: at, prefix, content } => {
                bytes += prefix.len() + content.len();
                Event::Message { transactional, lsn: lsn(at), prefix, content }
            }
            // Only comes where a stop position was asked for.
            ReplicationEvent::StoppedAt { .. } => return Ok(()),
        };
        self.gulp.bytes += bytes;
        self.gulp.events.push(event);
        Ok(())
    }

    /// Holds what comes against what is known of the log.
    fn compare(&mut self, event: &ReplicationEvent) -> Result<(), SourceError> {
        let lsn = |lsn: &pgwire_replication::Lsn| Lsn(lsn.as_u64());
        let held = match event {
            ReplicationEvent::Begin { final_lsn, commit_time_micros, .. } => {
                self.in_transaction = true;
                self.continuity.begin(lsn(final_lsn), *commit_time_micros)
            }
            ReplicationEvent::Commit { .. } => {
                self.in_transaction = false;
                Ok(())
            }
            ReplicationEvent::KeepAlive { wal_end, .. } if !self.in_transaction => {
                self.continuity.keepalive(lsn(wal_end))
            }
            ReplicationEvent::KeepAlive { .. }
            | ReplicationEvent::XLogData { .. }
            | ReplicationEvent::Message { .. }
            | ReplicationEvent::StoppedAt { .. } => Ok(()),
        };
        held.map_err(|Broken| went_back(&self.config, self.confirmed))?;
        self.tell();
        Ok(())
    }

    /// Tells the server what is confirmed, if it is known to be the right one.
    fn tell(&mut self) {
        if self.continuity == Continuity::Shown {
            let lsn = pgwire_replication::Lsn::from_u64(self.confirmed.0);
            self.client.update_applied_lsn(lsn);
        }
    }

    fn stalled(&self, error: SourceError) -> SourceError {
        SourceError {
            action: Action::Retry,
            kind: Kind::Stalled,
            message: format!("{} has gone silent: {}", self.what, error.message),
            ..error
        }
    }

    /// Tells the server that everything up to `lsn` is durable here; a lower one than before is
    /// ignored. It is sent within [`STATUS_INTERVAL`].
    pub fn confirm(&mut self, lsn: Lsn) {
        self.confirmed = self.confirmed.max(lsn);
        self.tell();
    }

    /// Ends the stream in order, after the last confirmed position has been sent. Events that were
    /// not taken come again with the next stream.
    pub async fn stop(mut self) {
        let deadline = tokio::time::Instant::now() + LAST_STATUS_TIMEOUT;
        let told = |metrics: &ReplicationMetrics| metrics.last_applied_lsn().as_u64();
        while self.client.is_running()
            && self.continuity == Continuity::Shown
            && told(&self.metrics) < self.confirmed.0
            && tokio::time::Instant::now() < deadline
        {
            tokio::time::sleep(LAST_STATUS_INTERVAL).await;
        }
        // Whatever it ends with, it ends: the position is durable here, not there.
        if let Err(error) = self.client.shutdown().await {
            tracing::debug!(%error, "stream ended with an error while stopping");
        }
    }
}

/// The server's log is not the one that was applied here.
fn went_back(config: &SourceConfig, from: Lsn) -> SourceError {
    SourceError::stop(
        format!(
            "the log of {} is not the one that was followed up to {from}: an older copy of the \
             server was restored, or it lost WAL",
            server(config)
        ),
        "check source.url; if it is right, run: walview rebuild",
    )
    .kind(Kind::LineageChanged)
}
