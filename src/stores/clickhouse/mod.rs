//! `ClickHouse`: Arrow inserts of versioned rows, then the mark.
//!
//! ```text
//!  Batch ─► last version of each sorting key ─► one INSERT … FORMAT ArrowStream per table ─► mark
//! ```
//!
//! Data and mark are two writes, so a batch may be written again: its rows have the same versions,
//! and its inserts the same deduplication tokens. A late insert is outvoted by higher versions.
//!
//! Known limit: an insert that `ClickHouse` still works on while the table is emptied by `reset`
//! could bring back a row that is gone since; the client waits for inserts to end or to time out
//! before it resets.

mod arrow;
mod error;
mod inspect;
mod standing;
mod tables;
mod views;

pub use standing::{Standing, look};

use super::{Batch, Fault, Identity, Mark, MarkText, Store, StoreError, faults_text};
use crate::fail_point;
use ::clickhouse::Client;
use ::clickhouse::error::Error;
use bytes::Bytes;
use clickhouse_ext_arrow::ArrowClientExt as _;
use error::{Class, Exception, store_error};
use foldhash::fast::RandomState;
use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::time::Duration;
use walview_core::engine::RefillPage;
use walview_core::position::{Lsn, Position};
use walview_core::target::clickhouse::{OpRef, Target};
use walview_core::target::codec::CodecError;

/// A statement without data.
pub const STATEMENT_TIMEOUT: Duration = Duration::from_secs(60);
/// One insert, from its first byte to the server's answer.
pub const INSERT_TIMEOUT: Duration = Duration::from_secs(300);
/// A connection that says nothing while the view is read for verify.
pub const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// Rows in one Arrow batch, of which one is held at a time; an insert has as many as it needs, and
/// `ClickHouse` makes its blocks of them. Building one takes the thread from others for some
/// milliseconds.
const ARROW_ROWS_MAX: usize = 8192;
/// Of a snapshot, in one insert for each table. `ClickHouse` makes a part of each, and merges them: with
/// a quarter of it merges cost it more than inserts.
const LOAD_BYTES: usize = 12 << 20;

/// How to reach a `ClickHouse`, and for whom.
#[derive(Clone)]
pub struct Config {
    /// `http://` or `https://`, with user and password where there are any. Never printed.
    pub url: String,
    /// Of the exact views; rows go to `<database>_rows`.
    pub database: String,
    pub identity: Identity,
}

pub struct ClickHouse {
    config: Config,
    client: Client,
    targets: Vec<Target>,
    stopped: BTreeSet<u16>,
    /// By target: the DDL of its table that was found to fit, since this connection began.
    passed: HashMap<u16, String>,
    /// Targets whose table had rows when it was looked at.
    filled: BTreeSet<u16>,
    /// The store's mark, as far as this writer knows it for certain.
    known: Option<Option<MarkText>>,
    connected: bool,
    /// Whether the exact views were looked at since this connection began.
    views_renewed: bool,
}

/// Rows for one table.
type Ops<'a> = Box<dyn Iterator<Item = OpRef<'a>> + Send + 'a>;

/// A statement's result: rows of texts.
pub type TextRow = Vec<Option<String>>;

impl ClickHouse {
    /// `targets` in the order of their numbers.
    #[must_use]
    pub fn new(config: Config, targets: Vec<Target>) -> Self {
        Self {
            client: client(&config.url),
            config,
            targets,
            stopped: BTreeSet::new(),
            passed: HashMap::new(),
            filled: BTreeSet::new(),
            known: None,
            connected: false,
            views_renewed: false,
        }
    }

    /// Runs a statement without a result.
    async fn run(&self, sql: &str) -> Result<(), StoreError> {
        let query = self.client.query_raw(sql).with_setting("max_table_size_to_drop", "0");
        match tokio::time::timeout(STATEMENT_TIMEOUT, query.execute()).await {
            Ok(done) => done.map_err(store_error),
            Err(_) => Err(StoreError::retry("ClickHouse did not answer in time")),
        }
    }

    async fn rows(&self, sql: &str) -> Result<Vec<TextRow>, StoreError> {
        let mut rows = Vec::new();
        read(&self.client, sql, |row| rows.push(row)).await?;
        Ok(rows)
    }

    async fn known(&mut self) -> Result<Option<MarkText>, StoreError> {
        if !self.connected {
            self.connect().await?;
        }
        if let Some(known) = &self.known {
            return Ok(known.clone());
        }
        let mark = self.read_mark().await?;
        self.known = Some(mark.clone());
        Ok(mark)
    }

    async fn remember(&mut self, mark: MarkText, as_of: i64, lsn: Lsn) -> Result<(), StoreError> {
        self.known = None;
        self.write_mark(&mark, as_of, lsn).await?;
        self.known = Some(Some(mark));
        Ok(())
    }

    fn moved(&self) -> StoreError {
        let found = match &self.known {
            Some(Some(MarkText::At(mark))) => Some(mark.clone()),
            Some(Some(MarkText::Loading(_)) | None) | None => None,
        };
        StoreError::MarkMoved { found }
    }

    /// Inserts what `loaded` holds, where each sorting key comes once. Rows are read again for each table
    /// instead of being gathered: there are many.
    async fn insert_all(&mut self, loaded: &[Bytes]) -> Result<(), StoreError> {
        let faults = self.check().await?;
        let mut targets = BTreeSet::new();
        for op in decode(loaded) {
            targets.insert(op.map_err(damaged)?.target);
        }
        let of = |target| decode(loaded).flatten().filter(move |op| op.target == target);
        let tables = targets.into_iter().map(|target| (target, Box::new(of(target)) as Ops<'_>));
        self.insert_tables(tables.collect(), faults, None).await
    }

    /// Inserts the last version of each sorting key. `range` names the batch in tokens.
    async fn insert_latest<'a>(
        &mut self,
        pieces: impl Iterator<Item = &'a [u8]>,
        range: &str,
    ) -> Result<(), StoreError> {
        let faults = self.check().await?;
        let mut latest: Vec<Latest<'a>> = self.targets.iter().map(|_| Latest::default()).collect();
        for op in pieces.flat_map(OpRef::decode_all) {
            let op = op.map_err(damaged)?;
            if let Some(latest) = latest.get_mut(usize::from(op.target)) {
                latest.push(op);
            }
        }
        let tables = (0_u16..).zip(latest).filter(|(_, latest)| !latest.ops.is_empty());
        let tables = tables.map(|(index, latest)| (index, Box::new(latest.ops.into_iter()) as _));
        self.insert_tables(tables.collect(), faults, Some(range)).await
    }

    /// Inserts rows into the tables of targets; not where `faults` say that one is not what it was
    /// (`ClickHouse` would cast to whatever a column is by now), or its view is stopped.
    async fn insert_tables(
        &self,
        tables: Vec<(u16, Ops<'_>)>,
        mut faults: Vec<Fault>,
        range: Option<&str>,
    ) -> Result<(), StoreError> {
        for (index, ops) in tables {
            let Some(target) = self.targets.get(usize::from(index)) else { continue };
            if self.stopped.contains(&index) || faults.iter().any(|fault| fault.target == index) {
                continue;
            }
            let Err(error) = self.insert_into(target, ops, range).await? else {
                fail_point::hit(fail_point::CLICKHOUSE_TABLE);
                continue;
            };
            match Exception::of(&error) {
                Some(exception) if matches!(exception.class(), Class::Table) => {
                    faults.push(self.fault(index, target, &exception));
                }
                _ => return Err(store_error(error)),
            }
        }
        if faults.is_empty() { Ok(()) } else { Err(StoreError::StopView(faults)) }
    }

    async fn insert_into(
        &self,
        target: &Target,
        ops: Ops<'_>,
        range: Option<&str>,
    ) -> Result<Result<(), Error>, StoreError> {
        let mut client = self
            .client
            .clone()
            .with_setting("async_insert", "0")
            .with_setting("max_partitions_per_insert_block", "0");
        if let Some(range) = range {
            let token = format!("{}:{range}", target.table());
            client = client.with_setting("insert_deduplication_token", token);
        }
        let sql = target.insert_arrow(&self.config.database);
        let sending = Box::pin(send(client, sql, target, ops));
        match tokio::time::timeout(INSERT_TIMEOUT, sending).await {
            Ok(result) => result,
            Err(_) => Err(StoreError::retry("ClickHouse did not answer an insert in time")),
        }
    }

    fn fault(&self, index: u16, target: &Target, exception: &Exception) -> Fault {
        Fault {
            target: index,
            message: format!(
                "ClickHouse refused rows for {} ({} {})",
                target.rows_name(&self.config.database),
                exception.code,
                exception.name
            ),
            remedy: "undo what changed the table, then: walview rebuild".to_owned(),
        }
    }
}

/// Of each sorting key the operation with the highest version.
#[derive(Default)]
struct Latest<'a> {
    ops: Vec<OpRef<'a>>,
    places: HashMap<&'a [u8], usize, RandomState>,
}

impl<'a> Latest<'a> {
    fn push(&mut self, op: OpRef<'a>) {
        match self.places.entry(op.key) {
            Entry::Vacant(entry) => {
                entry.insert(self.ops.len());
                self.ops.push(op);
            }
            Entry::Occupied(entry) => {
                if let Some(known) = self.ops.get_mut(*entry.get())
                    && known.version < op.version
                {
                    *known = op;
                }
            }
        }
    }
}

fn decode(parts: &[Bytes]) -> impl Iterator<Item = Result<OpRef<'_>, CodecError>> {
    parts.iter().flat_map(|part| OpRef::decode_all(part))
}

/// One insert. Where a row cannot be read it is broken off, and what `ClickHouse` may have of it is
/// sent again with the same versions.
async fn send(
    client: Client,
    sql: String,
    target: &Target,
    mut ops: Ops<'_>,
) -> Result<Result<(), Error>, StoreError> {
    let mut insert = client.insert_arrow_with(&sql);
    let mut batch = arrow::Batch::new(target);
    loop {
        let mut rows = 0;
        for op in ops.by_ref().take(ARROW_ROWS_MAX) {
            batch.push(target, &op).map_err(damaged)?;
            rows += 1;
        }
        if rows == 0 {
            return Ok(insert.end().await);
        }
        let rows = batch.finish().map_err(|error| StoreError::Stop {
            message: format!("rows of \"{}\" do not make an Arrow batch", target.table()),
            remedy: "this is a bug in walview; please report it".to_owned(),
            cause: Some(Box::new(error)),
        })?;
        if let Err(error) = insert.write(&rows).await {
            return Ok(Err(error));
        }
    }
}

impl Store for ClickHouse {
    async fn connect(&mut self) -> Result<(), StoreError> {
        self.connected = false;
        self.views_renewed = false;
        self.known = None;
        self.passed.clear();
        let rows = self.rows("SELECT version()").await?;
        let version = rows.into_iter().flatten().flatten().next().unwrap_or_default();
        inspect::require_version(&version)?;
        self.create_databases().await?;
        self.widen_tables().await?;
        self.connected = true;
        Ok(())
    }

    async fn mark(&mut self) -> Result<Option<Mark>, StoreError> {
        self.known = None;
        Ok(match self.known().await? {
            Some(MarkText::At(mark)) => Some(mark),
            Some(MarkText::Loading(_)) | None => None,
        })
    }

    async fn reset(&mut self) -> Result<(), StoreError> {
        self.known().await?;
        self.remember(MarkText::Loading(0), 0, Lsn(0)).await?;
        self.filled.clear();
        for target in &self.targets {
            self.reset_target(target).await?;
        }
        Ok(())
    }

    fn load_bytes(&self) -> usize {
        LOAD_BYTES
    }

    async fn load(&mut self, parts: &[Bytes]) -> Result<(), StoreError> {
        if !matches!(self.known().await?, Some(MarkText::Loading(_))) {
            return Err(self.moved());
        }
        match self.insert_all(parts).await {
            // What a table does not take while it is filled, no view can go on without.
            Err(StoreError::StopView(faults)) => {
                Err(StoreError::stop(faults_text(&faults), "views are filled all or none"))
            }
            done => done,
        }
    }

    async fn set_mark(&mut self, position: Position) -> Result<(), StoreError> {
        let mark = MarkText::At(self.config.identity.mark(position));
        match self.known().await? {
            Some(found) if found == mark => Ok(()),
            Some(MarkText::Loading(_)) => self.remember(mark, 0, position.lsn).await,
            Some(MarkText::At(_)) | None => Err(self.moved()),
        }
    }

    async fn apply(&mut self, batch: &Batch) -> Result<(), StoreError> {
        let from = MarkText::At(self.config.identity.mark(batch.from));
        let to = MarkText::At(self.config.identity.mark(batch.to));
        let known = self.known().await?;
        // At `to` everything is there, but faults may be known to nobody: see the contract.
        if known.as_ref() != Some(&to) && known != Some(from) {
            return Err(self.moved());
        }
        self.renew_views(Some(batch.from.lsn)).await?;
        let range = format!("{}:{}", batch.from, batch.to);
        let ops = batch.records.iter().map(|record| &record.ops[..]);
        let inserted = self.insert_latest(ops, &range).await;
        if !matches!(&inserted, Ok(()) | Err(StoreError::StopView(_))) {
            return inserted;
        }
        fail_point::hit(fail_point::CLICKHOUSE_ROWS);
        self.remember(to, complete_as_of(batch), batch.complete).await?;
        inserted
    }

    async fn fresh(&mut self, as_of: i64, lsn: Lsn) -> Result<(), StoreError> {
        let known = self.known().await?;
        let faults = self.check().await?;
        if !faults.is_empty() {
            return Err(StoreError::StopView(faults));
        }
        match known {
            Some(MarkText::At(mark)) => {
                // Nothing waits: everything that was emitted is there.
                self.renew_views(None).await?;
                self.remember(MarkText::At(mark), as_of, lsn).await
            }
            Some(MarkText::Loading(_)) | None => Err(self.moved()),
        }
    }

    fn stop_targets(&mut self, stopped: BTreeSet<u16>) {
        self.stopped = stopped;
    }

    fn expect_rows(&mut self, targets: BTreeSet<u16>) {
        self.filled.extend(targets);
    }

    /// Tables are not emptied unasked, and what is left of their rows could not be told apart.
    fn refills(&self) -> bool {
        false
    }

    async fn remains(&mut self) -> Result<Option<Position>, StoreError> {
        Err(no_refill())
    }

    async fn begin_refill(
        &mut self,
        _to: Position,
        _left_out: &BTreeSet<u16>,
    ) -> Result<(), StoreError> {
        Err(no_refill())
    }

    async fn refill(&mut self, _page: &RefillPage) -> Result<(), StoreError> {
        Err(no_refill())
    }
}

fn no_refill() -> StoreError {
    StoreError::stop(
        "ClickHouse is not filled again from the local state",
        "fill it again with: walview rebuild",
    )
}

/// Up to when everything is there after a batch: of a transaction of which it brings a part, the
/// moment before.
fn complete_as_of(batch: &Batch) -> i64 {
    let whole = batch.records.last().is_none_or(|record| record.ends);
    batch.committed_at.saturating_sub(i64::from(!whole))
}

/// Hands the rows of a target's exact view to `each`, as texts in the form of
/// [`Target::expected`].
///
/// # Errors
/// As [`Store::connect`]'s.
pub async fn read_all(
    config: &Config,
    target: &Target,
    each: impl FnMut(TextRow),
) -> Result<(), StoreError> {
    read(&client(&config.url), &target.select_text(&config.database), each).await
}

async fn read(client: &Client, sql: &str, mut each: impl FnMut(TextRow)) -> Result<(), StoreError> {
    let unreadable = |error: serde_json::Error| StoreError::Retry {
        message: "ClickHouse answered a SELECT with something else".to_owned(),
        cause: Some(Box::new(error)),
    };
    let mut cursor = client
        .query_raw(sql)
        .with_setting("output_format_json_quote_64bit_integers", "1")
        .fetch_bytes("JSONCompactEachRow")
        .map_err(store_error)?;
    let mut rest: Vec<u8> = Vec::new();
    loop {
        let chunk = match tokio::time::timeout(READ_TIMEOUT, cursor.next()).await {
            Ok(chunk) => chunk.map_err(store_error)?,
            Err(_) => return Err(StoreError::retry("ClickHouse did not answer in time")),
        };
        let Some(chunk) = chunk else { break };
        let mut lines = chunk.split(|byte| *byte == b'\n');
        rest.extend_from_slice(lines.next().unwrap_or_default());
        for line in lines {
            if !rest.is_empty() {
                each(serde_json::from_slice(&rest).map_err(unreadable)?);
            }
            rest.clear();
            rest.extend_from_slice(line);
        }
    }
    if !rest.is_empty() {
        each(serde_json::from_slice(&rest).map_err(unreadable)?);
    }
    Ok(())
}

fn damaged(error: CodecError) -> StoreError {
    StoreError::Stop {
        message: error.to_string(),
        remedy: "run the version that wrote it, or: walview rebuild".to_owned(),
        cause: Some(Box::new(error)),
    }
}

/// User and password go from the URL into headers, so that no error can show them.
fn client(url: &str) -> Client {
    let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
    let (authority, path) = match rest.find(['/', '?', '#']) {
        Some(end) => rest.split_at_checked(end).unwrap_or((rest, "")),
        None => (rest, ""),
    };
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let (login, host) = match authority.rsplit_once('@') {
        Some((login, host)) => (Some(login), host),
        None => (None, authority),
    };
    let mut client = Client::default().with_url(format!("{scheme}://{host}{path}"));
    if let Some(login) = login {
        let (user, password) = login.split_once(':').unwrap_or((login, ""));
        client = client.with_user(percent_decoded(user)).with_password(percent_decoded(password));
    }
    client
}

fn percent_decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let hex = rest.strip_prefix('%').and_then(|after| after.get(..2));
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = rest.get(3..).unwrap_or_default();
            }
            None => {
                bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                rest = rest.get(c.len_utf8()..).unwrap_or_default();
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
