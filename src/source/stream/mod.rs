//! The replication stream, in gulps.
//!
//! ```text
//!  walsender ═► socket ─► buffer ─► Stream::next ─► Gulp ─► engine
//!      ▲                                                       │
//!      └── every second ── status task ◄── Stream::confirm ◄── durable
//! ```
//!
//! Nothing lies between the socket and whoever takes gulps: while nobody does, nothing is read, and
//! the kernel holds the server back. Only the status has a task of its own.
//!
//! **Naps.** A reader that waits in the kernel is woken by every message: the walsender sends it in a
//! packet of its own and pays for the packet and for the wake-up. So where the stream is late anyhow
//! the reader naps before it reads, and finds a heap. How late it is the server says itself: each
//! message has the time of its sending, each transaction the time of its commit, by the same clock.
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
//! - the beginning of a transaction is not handed on alone before [`PART_BYTES`] of it are there, so that
//!   the consumer is not woken for it and for its end;
//! - memory: one gulp, which is a buffer and a part ([`GULP_BYTES_MAX`]) or one message that is larger.

mod continuity;
mod probe;
mod status;

pub use continuity::Resume;

use super::config::SourceConfig;
use super::connect::{connect, replication};
use super::error::{Action, Kind, SourceError, quote_name, server, timed_out};
use super::frames::READ_BYTES;
use super::replication::{Incoming, ReplicationError};
use super::server::Lineage;
use super::{publication, slot};
use bytes::{Buf, Bytes};
use continuity::{Broken, Continuity};
use probe::Probe;
use status::Status;
use std::time::Duration;
use walview_core::engine::Layout;
use walview_core::pgoutput::{self, Message};
use walview_core::position::Lsn;

/// A gulp is what one read brought, unless a message is larger, behind what had gathered.
pub const GULP_BYTES_MAX: usize = READ_BYTES + PART_BYTES;
/// The largest row change. Refused above, because it would have to be held in memory whole.
pub const MESSAGE_BYTES_MAX: usize = 256 << 20;
/// How long the wire may be silent before the server is asked, over another connection, whether our
/// session is well. An idle server is silent for as long as it likes: our status keeps it from
/// sending keepalives of its own.
const SILENCE_MAX: Duration = Duration::from_secs(20);
/// A transaction that is sent so long after its commit, in microseconds, has waited for others, and
/// waits a nap longer.
const LATE_MICROS: i64 = 10_000;
/// The clock's grain makes one to two milliseconds of it.
const NAP: Duration = Duration::from_millis(1);
/// Who finds so much at once need not nap.
const HEAP_BYTES: usize = READ_BYTES / 2;
/// So much of a transaction is worth to be worked on before the rest is there.
pub const PART_BYTES: usize = READ_BYTES / 4;
/// How long [`Stream::stop`] waits for the server to end the session.
const STOP_TIMEOUT: Duration = Duration::from_secs(3);

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

/// What was at hand: something whole and the beginning of what goes on, or a part of a long transaction.
#[derive(Debug, Default)]
pub struct Gulp {
    pub events: Vec<Event>,
    pub bytes: usize,
}

/// How values are sent. They are the same values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Text,
    /// Where the type has a binary form; the others come as text.
    Binary,
}

impl Format {
    /// Binary where every captured column can be read so.
    #[must_use]
    pub fn of(layout: &Layout) -> Self {
        if layout.text_only().is_some() { Self::Text } else { Self::Binary }
    }
}

/// A running stream.
pub struct Stream {
    config: SourceConfig,
    what: String,
    incoming: Incoming,
    status: Status,
    /// Nothing more can come: an error has been returned.
    ended: bool,
    lineage: Lineage,
    /// Where the log ended when it began.
    flushed: Lsn,
    continuity: Continuity,
    in_transaction: bool,
    /// When the transaction that comes was committed, by the server's clock.
    committed_at: i64,
    late: bool,
    /// By the last read.
    read_bytes: usize,
    /// What is not handed on yet, and whether the end of a transaction or an event outside of one is in
    /// it.
    gathered: Gulp,
    has_whole: bool,
    /// What the server is told, once `continuity` is shown.
    confirmed: Lsn,
    told: Lsn,
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
        format: Format,
    ) -> Result<Self, SourceError> {
        let from = resume.confirmed;
        slot::check_name(slot)?;
        let sql = connect(config).await?;
        let found = slot::info(&sql, slot).await?.ok_or_else(|| slot::missing(slot))?;
        found.require(config, from)?;
        publication::require(&sql, publication).await?;
        let begin = found.confirmed_flush_lsn.unwrap_or(from);
        let (mut session, identity) = replication(config).await?;
        let answered = Lineage::of(&identity);
        if let Some(lineage) = lineage {
            answered.require(lineage, config)?;
        }
        if identity.flushed < from {
            return Err(went_back(config, from));
        }
        let what = format!("stream from slot \"{slot}\"");
        let failed = |error| SourceError::replication(config, &what, error);
        let pid = slot::backend_pid(&mut session).await.map_err(failed)?;
        let command = start_replication(slot, publication, begin, format);
        let started = tokio::time::timeout(config.connect_timeout, session.start(&command)).await;
        let (mut incoming, outgoing) = match started {
            Ok(Ok(started)) => started,
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
        };
        sql.close().await;
        incoming.limit(MESSAGE_BYTES_MAX);
        let mut stream = Self {
            config: config.clone(),
            what,
            incoming,
            status: Status::start(outgoing, begin),
            ended: false,
            lineage: answered,
            flushed: identity.flushed,
            continuity: Continuity::new(resume, begin),
            in_transaction: false,
            committed_at: i64::MAX,
            late: false,
            read_bytes: 0,
            gathered: Gulp::default(),
            has_whole: false,
            confirmed: begin,
            told: begin,
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

    /// Where the log ended when the stream began: an earlier one brought nothing from behind it.
    #[must_use]
    pub fn flushed(&self) -> Lsn {
        self.flushed
    }

    /// Waits for events and returns what is at hand. May be dropped while it waits: nothing is lost.
    ///
    /// # Errors
    /// The stream has ended; start another, if the error says so.
    pub async fn next(&mut self) -> Result<Gulp, SourceError> {
        let gulp = self.read_gulp().await;
        self.ended |= gulp.is_err();
        gulp
    }

    async fn read_gulp(&mut self) -> Result<Gulp, SourceError> {
        loop {
            self.gather()?;
            if std::mem::take(&mut self.has_whole) || self.gathered.bytes >= PART_BYTES {
                self.incoming.watch_between_reads(!self.late);
                return Ok(std::mem::take(&mut self.gathered));
            }
            if self.late && self.read_bytes < HEAP_BYTES {
                tokio::time::sleep(NAP).await;
            }
            // Whoever waits for the first message after a heap is not late.
            self.late = false;
            match tokio::time::timeout(self.silence_max, self.incoming.read()).await {
                Ok(read) => {
                    self.read_bytes = read.map_err(|error| self.failed(error))?;
                    self.probe.rest();
                }
                Err(_elapsed) => {
                    self.probe.ask(&self.config).await.map_err(|error| self.stalled(error))?;
                }
            }
        }
    }

    /// Takes the whole messages that have been read.
    fn gather(&mut self) -> Result<(), SourceError> {
        while let Some(copied) = self.incoming.copied().map_err(|error| self.failed(error))? {
            self.gathered.bytes += copied.len();
            let piece = Piece::parse(copied).map_err(|error| self.failed(error))?;
            let event = match piece {
                Piece::Change { sent_at, data } => {
                    let event = event(data).map_err(|error| self.failed(error))?;
                    if let Event::Begin { committed_at, .. } = &event {
                        self.committed_at = *committed_at;
                    }
                    self.late = sent_at.saturating_sub(self.committed_at) > LATE_MICROS;
                    event
                }
                Piece::KeepAlive { wal_end, reply_wanted } => {
                    if reply_wanted {
                        self.status.asked();
                    }
                    Event::KeepAlive { wal_end }
                }
            };
            self.compare(&event)?;
            self.has_whole |= !self.in_transaction;
            self.gathered.events.push(event);
        }
        Ok(())
    }

    /// Holds what comes against what is known of the log.
    fn compare(&mut self, event: &Event) -> Result<(), SourceError> {
        let held = match event {
            Event::Begin { commit_lsn, committed_at, .. } => {
                self.in_transaction = true;
                self.continuity.begin(*commit_lsn, *committed_at)
            }
            Event::Commit { .. } => {
                self.in_transaction = false;
                return Ok(());
            }
            Event::KeepAlive { wal_end } if !self.in_transaction => {
                self.continuity.keepalive(*wal_end)
            }
            Event::KeepAlive { .. } | Event::Data(_) | Event::Message { .. } => return Ok(()),
        };
        held.map_err(|Broken| went_back(&self.config, self.confirmed))?;
        self.tell();
        Ok(())
    }

    /// Tells the server what is confirmed, if it is known to be the right one.
    fn tell(&mut self) {
        if self.continuity == Continuity::Shown && self.told < self.confirmed {
            self.told = self.confirmed;
            self.status.durable(self.told);
        }
    }

    fn failed(&self, error: ReplicationError) -> SourceError {
        SourceError::replication(&self.config, &self.what, error)
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
    /// ignored. It is sent within a second.
    pub fn confirm(&mut self, lsn: Lsn) {
        self.confirmed = self.confirmed.max(lsn);
        self.tell();
    }

    /// Ends the stream in order, after the last confirmed position has been sent. Events that were
    /// not taken come again with the next stream.
    pub async fn stop(mut self) {
        if self.ended {
            return;
        }
        let stop = async {
            self.status.end().await;
            // The server sends what it is at, and ends the session: then it has heard all.
            loop {
                self.incoming.read().await?;
                while self.incoming.skip()? {}
            }
        };
        // Whatever it ends with, it ends: the position is durable here, not there.
        let stopped: Result<Result<(), ReplicationError>, _> =
            tokio::time::timeout(STOP_TIMEOUT, stop).await;
        if let Ok(Err(error)) = stopped {
            tracing::debug!(%error, "stream has stopped");
        }
    }
}

fn start_replication(slot: &str, publication: &str, from: Lsn, format: Format) -> String {
    // The command's own grammar: a name in quotes inside of a text in quotes, no backslashes.
    let publication = quote_name(publication).replace('\'', "''");
    let binary = format == Format::Binary;
    format!(
        "START_REPLICATION SLOT {slot} LOGICAL {from} (proto_version '1', \
         publication_names '{publication}', messages 'true', binary '{binary}')"
    )
}

/// What the server puts into its copy.
enum Piece {
    Change {
        /// By the server's clock, in microseconds since 2000-01-01 UTC.
        sent_at: i64,
        data: Bytes,
    },
    KeepAlive {
        wal_end: Lsn,
        reply_wanted: bool,
    },
}

impl Piece {
    /// Format: PostgreSQL documentation, "Streaming Replication Protocol".
    fn parse(mut bytes: Bytes) -> Result<Self, ReplicationError> {
        let mut piece = || match bytes.try_get_u8()? {
            b'w' => {
                let _start = bytes.try_get_u64()?;
                let _end = bytes.try_get_u64()?;
                let sent_at = bytes.try_get_i64()?;
                Ok(Some(Self::Change { sent_at, data: std::mem::take(&mut bytes) }))
            }
            b'k' => {
                let wal_end = Lsn(bytes.try_get_u64()?);
                let _sent_at = bytes.try_get_i64()?;
                let reply_wanted = bytes.try_get_u8()? != 0;
                Ok(Some(Self::KeepAlive { wal_end, reply_wanted }))
            }
            _ => Ok::<_, bytes::TryGetError>(None),
        };
        let odd = || ReplicationError::Protocol("the stream holds what is no message".to_owned());
        piece().ok().flatten().ok_or_else(odd)
    }
}

/// Rows are decoded by whoever takes them.
fn event(data: Bytes) -> Result<Event, ReplicationError> {
    if !matches!(data.first(), Some(b'B' | b'C' | b'M')) {
        return Ok(Event::Data(data));
    }
    let message = pgoutput::decode(&data);
    Ok(match message.map_err(|error| ReplicationError::Protocol(error.to_string()))? {
        Message::Begin(begin) => Event::Begin {
            xid: begin.xid,
            commit_lsn: begin.commit_lsn,
            committed_at: begin.committed_at,
        },
        Message::Commit(commit) => Event::Commit {
            commit_lsn: commit.commit_lsn,
            end_lsn: commit.end_lsn,
            committed_at: commit.committed_at,
        },
        Message::Logical { transactional, lsn, prefix, content } => Event::Message {
            transactional,
            lsn,
            prefix: prefix.to_owned(),
            content: data.slice_ref(content),
        },
        Message::Origin { .. }
        | Message::Relation(_)
        | Message::Type(_)
        | Message::Insert { .. }
        | Message::Update { .. }
        | Message::Delete { .. }
        | Message::Truncate(_) => Event::Data(data.clone()),
    })
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
