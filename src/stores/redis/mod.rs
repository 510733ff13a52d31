//! Redis: whole batches in one `MULTI`/`EXEC` with the mark.
//!
//! ```text
//!  one round trip a batch:   MULTI MSET … DEL … XADD …  SET mark  EXEC │ WATCH mark  GET mark
//!                            └───────── this batch ────────────────────┘ └── arms the next ──┘
//! ```
//!
//! The connection holds `WATCH mark` from before a batch is sent, and has seen that the mark is the
//! one that the batch continues. So a batch that was stuck on an old connection can never land
//! after a later one: its `EXEC` answers nil. Resets and snapshot chunks go the same way, each under
//! a new `loading` mark.
//!
//! Invariants: nothing but the mark's and `fresh`'s keys and keys that a target's template matches
//! is written; every write goes through [`Redis::write`].

mod commands;
mod error;
mod inspect;
mod read;
mod refill;

pub use read::read_all;

use super::{Batch, Fault, Identity, Mark, MarkText, Store, StoreError};
use ::redis::aio::MultiplexedConnection;
use ::redis::{AsyncConnectionConfig, Client, Pipeline, Value as Reply};
use bytes::Bytes;
use commands::Commands;
use error::{client_error, server_error};
use std::collections::{BTreeSet, HashMap};
use std::time::Duration;
use walview_core::engine::RefillPage;
use walview_core::position::{Lsn, Position};
use walview_core::target::codec::CodecError;
use walview_core::target::format::write_text;
use walview_core::target::redis::{OpRef, Target, coalesce, gather};
use walview_core::value::{Type, Value};

/// Making a connection, with TLS and AUTH.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// One round trip, the largest batch included. The client's own default is 500 ms, which a busy
/// server passes easily, and a timeout does not tell whether the batch arrived.
pub const RESPONSE_TIMEOUT: Duration = Duration::from_secs(30);
/// Keys asked for in one SCAN, and removed in one transaction.
const SCAN_COUNT: usize = 1000;
/// Of a snapshot, in one transaction: others wait for it, and its commands take a multiple of memory.
const LOAD_BYTES: usize = 1 << 20;
/// How long `fresh` may be believed.
const FRESH_SECONDS: u64 = 5;

/// How to reach a Redis, and for whom.
#[derive(Clone)]
pub struct Config {
    /// `redis://` or `rediss://`, with user and password. Never printed.
    pub url: String,
    pub identity: Identity,
    /// The operator accepts that an `allkeys-*` policy may evict what views hold.
    pub accept_eviction: bool,
}

pub struct Redis {
    config: Config,
    targets: Vec<Target>,
    stopped: BTreeSet<u16>,
    session: Option<Session>,
    events: refill::Events,
    mark_key: String,
    fresh_key: String,
}

/// A connection that watches the mark.
struct Session {
    connection: MultiplexedConnection,
    /// The mark's text when it was last watched.
    seen: Option<String>,
}

/// How a guarded write ended.
enum Written {
    Done,
    /// The mark changed after it was seen; nothing was written.
    Moved,
}

impl Redis {
    /// `targets` in the order of their numbers.
    #[must_use]
    pub fn new(config: Config, targets: Vec<Target>) -> Self {
        let pipeline = &config.identity.pipeline;
        Self {
            mark_key: format!("walview:{pipeline}:mark"),
            fresh_key: format!("walview:{pipeline}:fresh"),
            config,
            targets,
            stopped: BTreeSet::new(),
            session: None,
            events: refill::Events::default(),
        }
    }

    async fn session(&mut self) -> Result<&mut Session, StoreError> {
        if self.session.is_none() {
            let mut connection = open(&self.config.url).await?;
            check(&mut connection, self.config.accept_eviction).await?;
            let mut session = Session { connection, seen: None };
            session.watch(&self.mark_key).await?;
            self.session = Some(session);
        }
        self.session.as_mut().ok_or_else(|| StoreError::retry("not connected to Redis"))
    }

    /// The mark as last seen under WATCH.
    async fn seen(&mut self) -> Result<Option<MarkText>, StoreError> {
        self.session().await?.seen.as_deref().map(str::parse).transpose()
    }

    /// Watches the mark anew.
    async fn look(&mut self) -> Result<Option<MarkText>, StoreError> {
        let mark_key = self.mark_key.clone();
        let watched = self.session().await?.watch(&mark_key).await;
        if watched.is_err() {
            self.session = None;
        }
        watched?;
        self.seen().await
    }

    /// Runs the commands and sets the mark, if nobody touched the mark since it was seen.
    async fn write(
        &mut self,
        mut commands: Commands<'_>,
        mark: Option<&MarkText>,
    ) -> Result<Written, StoreError> {
        let mark_key = self.mark_key.clone();
        let session = self.session().await?;
        let result = session.exec(&mut commands, &mark_key, mark).await;
        match result {
            Ok(Some(replies)) => {
                let faults = self.faults(&commands, replies, mark).await?;
                if faults.is_empty() {
                    Ok(Written::Done)
                } else {
                    Err(StoreError::StopView(faults))
                }
            }
            Ok(None) => Ok(Written::Moved),
            Err(error) => {
                // Not known what happened: the next connection reads the mark.
                self.session = None;
                Err(error)
            }
        }
    }

    /// The targets whose commands failed inside EXEC. Redis refuses stream ids that do not grow,
    /// which is a repeat where the stream ends at or before `mark`: nothing but this batch and what
    /// was before it can stand there. A refill writes gap entries only, which may be there already.
    async fn faults(
        &mut self,
        commands: &Commands<'_>,
        replies: Vec<Reply>,
        mark: Option<&MarkText>,
    ) -> Result<Vec<Fault>, StoreError> {
        let (end, refilling) = match mark {
            Some(MarkText::At(mark)) => (mark.position.stream_id(), false),
            Some(MarkText::Loading(_)) => (None, true),
            None => (None, false),
        };
        let mut faults: Vec<Fault> = Vec::new();
        let mut repeats: HashMap<String, bool> = HashMap::new();
        for (index, reply) in replies.iter().enumerate() {
            let Reply::ServerError(error) = reply else {
                continue;
            };
            let Some(target) = commands.target(index) else {
                return Err(server_error(error.code(), error.details()));
            };
            if faults.iter().any(|fault| fault.target == target) {
                continue;
            }
            let refused_id = error.details().is_some_and(|text| text.contains("equal or smaller"));
            let stream = commands.stream(index).filter(|_| refused_id);
            let repeat = match stream {
                None => false,
                Some(_) if refilling => true,
                Some(key) => match repeats.get(key) {
                    Some(repeat) => *repeat,
                    None => {
                        let last = self.last_ids(&[key.to_owned()]).await?;
                        let last = last.first().copied().flatten();
                        let repeat = last.is_some_and(|last| Some(last) <= end);
                        repeats.insert(key.to_owned(), repeat);
                        repeat
                    }
                },
            };
            if !repeat {
                faults.push(self.fault(target, error.code()));
            }
        }
        Ok(faults)
    }

    fn fault(&self, target: u16, code: &str) -> Fault {
        let template = self
            .targets
            .get(usize::from(target))
            .map_or_else(String::new, |target| target.template().to_string());
        let message = if code == "WRONGTYPE" {
            format!(
                "a key of \"{template}\" holds a value of another type, written by someone else"
            )
        } else {
            format!("Redis refused a write to a key of \"{template}\" ({code})")
        };
        Fault {
            target,
            message,
            remedy: "remove the foreign key, then: walview rebuild".to_owned(),
        }
    }

    /// The commands of what is encoded in `pieces`, stopped targets left out.
    fn commands<'a>(
        &self,
        pieces: impl Iterator<Item = &'a [u8]>,
    ) -> Result<Commands<'a>, StoreError> {
        let mut ops = Vec::new();
        for op in pieces.flat_map(OpRef::decode_all) {
            let op = op.map_err(damaged)?;
            if !self.stopped.contains(&op.target) {
                ops.push(op);
            }
        }
        coalesce(&mut ops);
        gather(&mut ops);
        Ok(Commands::batch(ops))
    }

    /// A step of a reset or a load, under a new loading mark.
    async fn step(&mut self, commands: Commands<'_>) -> Result<(), StoreError> {
        let next = match self.seen().await? {
            Some(MarkText::Loading(step)) => step.wrapping_add(1),
            Some(MarkText::At(_)) | None => 0,
        };
        match self.write(commands, Some(&MarkText::Loading(next))).await? {
            Written::Done => Ok(()),
            Written::Moved => Err(self.moved().await),
        }
    }

    async fn moved(&mut self) -> StoreError {
        match self.seen().await {
            Ok(Some(MarkText::At(mark))) => StoreError::MarkMoved { found: Some(mark) },
            Ok(Some(MarkText::Loading(_)) | None) => StoreError::MarkMoved { found: None },
            Err(error) => error,
        }
    }

    /// Removes every key that a target can have made.
    async fn clear(&mut self, target: usize) -> Result<(), StoreError> {
        let Some(template) = self.targets.get(target).map(|target| target.template().clone())
        else {
            return Ok(());
        };
        if let Some(key) = template.single_key() {
            return self.step(Commands::unlink([key])).await;
        }
        let mut cursor = "0".to_owned();
        loop {
            let (next, keys) = self.scan(template.prefix(), &cursor).await?;
            let ours: Vec<&str> =
                keys.iter().map(String::as_str).filter(|key| template.matches(key)).collect();
            if !ours.is_empty() {
                self.step(Commands::unlink(ours)).await?;
            }
            if next == "0" {
                return Ok(());
            }
            cursor = next;
        }
    }
}

impl Store for Redis {
    async fn connect(&mut self) -> Result<(), StoreError> {
        self.session = None;
        self.session().await.map(|_| ())
    }

    async fn mark(&mut self) -> Result<Option<Mark>, StoreError> {
        let Some(MarkText::At(mark)) = self.look().await? else {
            return Ok(None);
        };
        if mark != self.config.identity.mark(mark.position) {
            return Ok(Some(mark));
        }
        // Whoever else watches it writes nothing any more: a batch that is stuck in the network.
        match self.write(Commands::default(), Some(&MarkText::At(mark.clone()))).await? {
            Written::Done => Ok(Some(mark)),
            Written::Moved => Err(StoreError::retry("the mark moved while it was read")),
        }
    }

    async fn reset(&mut self) -> Result<(), StoreError> {
        self.look().await?;
        self.step(Commands::unlink([self.fresh_key.as_str()])).await?;
        for target in 0..self.targets.len() {
            self.clear(target).await?;
        }
        Ok(())
    }

    fn load_bytes(&self) -> usize {
        LOAD_BYTES
    }

    async fn load(&mut self, parts: &[Bytes]) -> Result<(), StoreError> {
        if !matches!(self.seen().await?, Some(MarkText::Loading(_))) {
            return Err(self.moved().await);
        }
        self.step(self.commands(parts.iter().map(|part| &part[..]))?).await
    }

    async fn set_mark(&mut self, position: Position) -> Result<(), StoreError> {
        let mark = MarkText::At(self.config.identity.mark(position));
        match self.seen().await? {
            Some(found) if found == mark => Ok(()),
            Some(MarkText::Loading(_)) => {
                match self.write(Commands::default(), Some(&mark)).await? {
                    Written::Done => Ok(()),
                    Written::Moved => Err(self.moved().await),
                }
            }
            Some(MarkText::At(_)) | None => Err(self.moved().await),
        }
    }

    async fn apply(&mut self, batch: &Batch) -> Result<(), StoreError> {
        let from = MarkText::At(self.config.identity.mark(batch.from));
        let to = MarkText::At(self.config.identity.mark(batch.to));
        let commands = self.commands(batch.records.iter().map(|record| &record.ops[..]))?;
        let seen = self.seen().await?;
        // At `to` it had arrived, and only the reply was lost. With it the faults inside EXEC were,
        // so it is written again: the watch holds off whatever came later.
        if seen.as_ref() != Some(&to) && seen != Some(from) {
            return Err(self.moved().await);
        }
        self.know_events(batch.from).await?;
        let events = commands.last_events();
        let written = self.write(commands, Some(&to)).await;
        if matches!(written, Ok(Written::Done) | Err(StoreError::StopView(_))) {
            self.events.written(events);
        }
        match written? {
            Written::Done => Ok(()),
            Written::Moved if self.seen().await? == Some(to) => {
                Err(StoreError::retry("another connection has just written this batch to Redis"))
            }
            Written::Moved => Err(self.moved().await),
        }
    }

    async fn fresh(&mut self, as_of: i64, lsn: Lsn) -> Result<(), StoreError> {
        let mut time = String::new();
        write_text(&Value::TimestampTz(as_of), &Type::TimestampTz, &mut time);
        let text = format!("{{\"as_of\":\"{time}\",\"lsn\":\"{lsn}\"}}");
        match self.seen().await? {
            Some(MarkText::At(mark)) if mark == self.config.identity.mark(mark.position) => {
                self.know_events(mark.position).await?;
            }
            _ => return Err(self.moved().await),
        }
        let commands = Commands::expiring(&self.fresh_key, &text, FRESH_SECONDS);
        match self.write(commands, None).await? {
            Written::Done => Ok(()),
            Written::Moved => Err(self.moved().await),
        }
    }

    fn stop_targets(&mut self, stopped: BTreeSet<u16>) {
        self.stopped = stopped;
    }

    /// Keys that are gone with the mark are found by the mark.
    fn expect_rows(&mut self, _targets: BTreeSet<u16>) {}

    fn refills(&self) -> bool {
        true
    }

    async fn remains(&mut self) -> Result<Option<Position>, StoreError> {
        self.look_for_remains().await
    }

    async fn begin_refill(
        &mut self,
        to: Position,
        left_out: &BTreeSet<u16>,
    ) -> Result<(), StoreError> {
        self.start_refill(to, left_out).await
    }

    async fn refill(&mut self, page: &RefillPage) -> Result<(), StoreError> {
        self.write_page(page).await
    }
}

impl Session {
    async fn watch(&mut self, mark_key: &str) -> Result<(), StoreError> {
        let mut pipeline = Pipeline::new();
        pipeline.cmd("UNWATCH").cmd("WATCH").arg(mark_key).cmd("GET").arg(mark_key);
        let mut replies = self.send(&pipeline).await?;
        self.seen = mark_text(replies.pop())?;
        Ok(())
    }

    /// One guarded transaction, and the next WATCH, in one round trip, unless the commands are too
    /// many to be held at once: then they are queued piece by piece. `None`: the mark had moved.
    async fn exec(
        &mut self,
        commands: &mut Commands<'_>,
        mark_key: &str,
        mark: Option<&MarkText>,
    ) -> Result<Option<Vec<Reply>>, StoreError> {
        let mut pipeline = Pipeline::new();
        pipeline.cmd("MULTI");
        while commands.write(&mut pipeline).map_err(damaged)? && !commands.is_written() {
            // A command that is refused when it is queued says why; EXEC says only EXECABORT.
            self.send(&std::mem::take(&mut pipeline)).await?;
        }
        if let Some(mark) = mark {
            pipeline.cmd("SET").arg(mark_key).arg(mark.to_string());
        }
        let queued = pipeline.len();
        pipeline.cmd("EXEC").cmd("WATCH").arg(mark_key).cmd("GET").arg(mark_key);
        let mut replies = self.send_raw(&pipeline).await?;
        let seen = replies.pop();
        let watched = replies.pop();
        let exec = replies.pop();
        for reply in replies.iter().take(queued).chain(&exec).chain(&watched) {
            if let Reply::ServerError(error) = reply {
                return Err(server_error(error.code(), error.details()));
            }
        }
        self.seen = mark_text(seen)?;
        match exec {
            Some(Reply::Array(replies)) => Ok(Some(replies)),
            Some(Reply::Nil) => Ok(None),
            _ => Err(StoreError::retry("Redis answered a transaction with something else")),
        }
    }

    async fn send(&mut self, pipeline: &Pipeline) -> Result<Vec<Reply>, StoreError> {
        let replies = self.send_raw(pipeline).await?;
        for reply in &replies {
            if let Reply::ServerError(error) = reply {
                return Err(server_error(error.code(), error.details()));
            }
        }
        Ok(replies)
    }

    async fn send_raw(&mut self, pipeline: &Pipeline) -> Result<Vec<Reply>, StoreError> {
        send(&mut self.connection, pipeline).await
    }
}

fn damaged(error: CodecError) -> StoreError {
    StoreError::Stop {
        message: error.to_string(),
        remedy: "run the version that wrote it, or: walview rebuild".to_owned(),
        cause: Some(Box::new(error)),
    }
}

async fn send(
    connection: &mut MultiplexedConnection,
    pipeline: &Pipeline,
) -> Result<Vec<Reply>, StoreError> {
    let expected = pipeline.len();
    let replies =
        connection.send_packed_commands(pipeline, 0, expected).await.map_err(client_error)?;
    if replies.len() == expected {
        Ok(replies)
    } else {
        Err(StoreError::retry("Redis answered with fewer replies than commands"))
    }
}

/// Of a reply to XINFO STREAM: names and values in turn.
fn last_id(reply: &Reply) -> Option<(u64, u64)> {
    let Reply::Array(fields) = reply else {
        return None;
    };
    let id = fields.chunks(2).find_map(|field| match field {
        [Reply::BulkString(name), Reply::BulkString(id)] if name == b"last-generated-id" => {
            Some(id)
        }
        _ => None,
    })?;
    let (high, low) = std::str::from_utf8(id).ok()?.split_once('-')?;
    Some((high.parse().ok()?, low.parse().ok()?))
}

fn mark_text(reply: Option<Reply>) -> Result<Option<String>, StoreError> {
    match reply {
        Some(Reply::Nil) => Ok(None),
        Some(Reply::BulkString(bytes)) => match String::from_utf8(bytes) {
            Ok(text) => Ok(Some(text)),
            Err(error) => Err(StoreError::Stop {
                message: "the mark in Redis is not walview's".to_owned(),
                remedy: "remove the key \"walview:<pipeline>:mark\", then: walview rebuild"
                    .to_owned(),
                cause: Some(Box::new(error.utf8_error())),
            }),
        },
        Some(Reply::ServerError(error)) => Err(server_error(error.code(), error.details())),
        _ => Err(StoreError::retry("Redis answered GET with something else")),
    }
}

async fn open(url: &str) -> Result<MultiplexedConnection, StoreError> {
    if url.starts_with("rediss:") {
        // Fails where the process has chosen one already, which is as good.
        rustls::crypto::ring::default_provider().install_default().ok();
    }
    let client = Client::open(url).map_err(|error| StoreError::Stop {
        message: format!("the URL of Redis is not usable: {}", error.category()),
        remedy: "write redis://host:port or rediss://host:port".to_owned(),
        cause: None,
    })?;
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(CONNECT_TIMEOUT))
        .set_response_timeout(Some(RESPONSE_TIMEOUT));
    client.get_multiplexed_async_connection_with_config(&config).await.map_err(client_error)
}

/// Refuses what would lose rows or is not supported.
async fn check(
    connection: &mut MultiplexedConnection,
    accept_eviction: bool,
) -> Result<(), StoreError> {
    let problems = inspect::Info::read(connection).await?.problems(accept_eviction);
    problems.into_iter().next().map_or(Ok(()), |lack| Err(lack.error))
}
