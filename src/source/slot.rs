//! Replication slots: what the server holds back for us, and the exported snapshot that starts
//! everything.
//!
//! ```text
//!  create_exporting ─► ExportedSnapshot { consistent_point: S, name }
//!       COPY under the snapshot  = exactly the commits whose commit LSN is < S
//!       the slot, streamed from S = exactly the commits whose commit LSN is >= S
//! ```
//!
//! Invariants:
//! - no slot outlives a creation that failed or was cancelled;
//! - nobody else's slot is ever dropped.

use super::config::SourceConfig;
use super::connect::{Session, connect, replication};
use super::error::{Kind, SourceError};
use super::replication::{Replication, ReplicationError};
use super::server::{Lineage, version};
use std::future::Future;
use std::time::Duration;
use tokio_postgres::{Client, Row};
use walview_core::position::Lsn;

/// The output plugin, and the only one that is understood.
const PLUGIN: &str = "pgoutput";

/// How often a slot creation that waits is asked what it waits for. The first answer comes after
/// one interval.
const BLOCKER_INTERVAL: Duration = Duration::from_secs(2);
/// How many blockers are named at once.
const BLOCKERS_MAX: i64 = 5;

/// How long [`drop`] waits for our own last stream to let go, and how often it looks.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(10);
const RELEASE_INTERVAL: Duration = Duration::from_millis(100);

/// A slot as `pg_replication_slots` has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlotInfo {
    pub name: String,
    pub plugin: Option<String>,
    pub slot_type: String,
    pub database: Option<String>,
    pub temporary: bool,
    pub holder: Option<Holder>,
    /// `None` once the slot is lost.
    pub restart_lsn: Option<Lsn>,
    /// Where streaming starts whatever lower position is asked for.
    pub confirmed_flush_lsn: Option<Lsn>,
    pub wal_status: WalStatus,
    /// Bytes that may still be written before the slot is lost; `None` without a limit.
    pub safe_wal_size: Option<i64>,
    /// Bytes of WAL held back.
    pub retained: Option<i64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WalStatus {
    Reserved,
    /// Past `max_wal_size`, still held.
    Extended,
    /// The next checkpoint may remove what the slot needs.
    Unreserved,
    Lost,
}

/// The session that streams from a slot. What another role may not see is absent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    pub pid: i32,
    pub application: Option<String>,
    pub client: Option<String>,
}

/// A transaction that a slot creation waits for.
#[derive(Clone, Debug, PartialEq)]
pub struct Blocker {
    /// `None`: a prepared transaction, which no session holds.
    pub pid: Option<i32>,
    /// The session's `application_name`, or the name of the prepared transaction.
    pub name: String,
    pub role: Option<String>,
    pub database: Option<String>,
    /// How long it has been open; other roles' sessions do not say.
    pub age: Option<Duration>,
    /// The creation waits for exactly this one now; others come next.
    pub now: bool,
}

impl std::fmt::Display for Blocker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.pid {
            Some(pid) => write!(f, "pid {pid} (\"{}\"", self.name)?,
            None => write!(f, "prepared transaction \"{}\" (", self.name)?,
        }
        if let Some(role) = &self.role {
            write!(f, " role {role}")?;
        }
        if let Some(database) = &self.database {
            write!(f, " database {database}")?;
        }
        match self.age {
            Some(age) => write!(f, ", open for {} s)", age.as_secs()),
            None => f.write_str(")"),
        }
    }
}

/// Names go unquoted into replication commands, so only these are taken.
///
/// # Errors
/// The name has a character that a slot's name cannot have, or a wrong length.
pub fn check_name(name: &str) -> Result<(), SourceError> {
    let fits = (1..=63).contains(&name.len())
        && name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'));
    if fits {
        return Ok(());
    }
    Err(SourceError::stop(
        format!("\"{name}\" is not a replication slot's name"),
        "use 1 to 63 of a-z, 0-9 and _",
    ))
}

/// What the server says of slot `name`; `None` where there is none.
///
/// # Errors
/// The question failed.
pub async fn info(client: &Client, name: &str) -> Result<Option<SlotInfo>, SourceError> {
    const INFO: &str = "
        SELECT s.slot_name::text, s.plugin::text, s.slot_type, s.database::text, s.temporary,
               s.active_pid, a.application_name, host(a.client_addr), s.restart_lsn::text,
               s.confirmed_flush_lsn::text, s.wal_status, s.safe_wal_size,
               CASE WHEN NOT pg_is_in_recovery() THEN
                 pg_wal_lsn_diff(pg_current_wal_lsn(), s.restart_lsn)::int8 END
        FROM pg_replication_slots s LEFT JOIN pg_stat_activity a ON a.pid = s.active_pid
        WHERE s.slot_name = $1";
    let failed = |error| SourceError::query(&format!("read slot \"{name}\""), error);
    let row = client.query_opt(INFO, &[&name]).await.map_err(failed)?;
    row.map(|row| read_info(&row)).transpose().map_err(failed)
}

fn read_info(row: &Row) -> Result<SlotInfo, tokio_postgres::Error> {
    let lsn = |at: usize| -> Result<Option<Lsn>, tokio_postgres::Error> {
        Ok(row.try_get::<_, Option<String>>(at)?.and_then(|text| text.parse().ok()))
    };
    let pid: Option<i32> = row.try_get(5)?;
    let (application, address) = (row.try_get(6)?, row.try_get(7)?);
    let restart_lsn = lsn(8)?;
    let status: Option<String> = row.try_get(10)?;
    Ok(SlotInfo {
        name: row.try_get(0)?,
        plugin: row.try_get(1)?,
        slot_type: row.try_get(2)?,
        database: row.try_get(3)?,
        temporary: row.try_get(4)?,
        holder: pid.map(|pid| Holder { pid, application, client: address }),
        restart_lsn,
        confirmed_flush_lsn: lsn(9)?,
        wal_status: match status.as_deref() {
            Some("extended") => WalStatus::Extended,
            Some("unreserved") => WalStatus::Unreserved,
            // A slot that has reserved nothing can give nothing.
            Some("lost") => WalStatus::Lost,
            _ if restart_lsn.is_none() => WalStatus::Lost,
            _ => WalStatus::Reserved,
        },
        safe_wal_size: row.try_get(11)?,
        retained: row.try_get(12)?,
    })
}

impl SlotInfo {
    /// Whether the stream can go on from `from`, a position that is durable here.
    ///
    /// # Errors
    /// The slot is another's, lost, held, or stands past `from`.
    pub fn require(&self, config: &SourceConfig, from: Lsn) -> Result<(), SourceError> {
        let name = &self.name;
        let plugin = self.plugin.as_deref().unwrap_or("");
        if self.slot_type != "logical" || plugin != PLUGIN {
            let what = if plugin.is_empty() { self.slot_type.as_str() } else { plugin };
            return Err(SourceError::stop(
                format!("slot \"{name}\" is for {what}, not for {PLUGIN}: it is not walview's"),
                "give the pipeline another name",
            )
            .kind(Kind::SlotMoved));
        }
        let database = self.database.as_deref().unwrap_or("");
        if database != config.database {
            return Err(SourceError::stop(
                format!(
                    "slot \"{name}\" belongs to database \"{database}\", not to \"{}\"",
                    config.database
                ),
                "give the pipeline another name, or check the database in source.url",
            )
            .kind(Kind::SlotMoved));
        }
        if self.wal_status == WalStatus::Lost {
            return Err(SourceError::stop(
                format!(
                    "slot \"{name}\" is lost (wal_status lost): the server removed WAL that it \
                     needed, because it held back more than max_slot_wal_keep_size"
                ),
                "raise max_slot_wal_keep_size, then run: walview rebuild",
            )
            .kind(Kind::SlotLost));
        }
        if let Some(holder) = &self.holder {
            return Err(self.held(holder));
        }
        match self.confirmed_flush_lsn {
            Some(confirmed) if confirmed > from => Err(SourceError::stop(
                format!(
                    "slot \"{name}\" stands at {confirmed}, past the stored position {from}: it was \
                     recreated or advanced by someone else, and what lies between would be missing"
                ),
                "run: walview rebuild",
            )
            .kind(Kind::SlotMoved)),
            _ => Ok(()),
        }
    }

    /// The error that names the session which holds the slot.
    #[must_use]
    pub fn held(&self, holder: &Holder) -> SourceError {
        let application = holder.application.as_deref().unwrap_or("unknown application");
        let client = holder.client.as_deref().unwrap_or("a local socket");
        SourceError::retry(
            format!(
                "slot \"{}\" is held by pid {} (\"{application}\" from {client})",
                self.name, holder.pid
            ),
            format!(
                "stop that session, or run: SELECT pg_terminate_backend({}); waiting for it",
                holder.pid
            ),
        )
        .kind(Kind::SlotHeld)
    }
}

pub(super) fn missing(name: &str) -> SourceError {
    SourceError::stop(
        format!("slot \"{name}\" does not exist"),
        "it was dropped, or this is another server: what was written since is not held for walview; \
         run: walview rebuild",
    )
    .kind(Kind::SlotMissing)
}

/// A slot that has just been made, and the snapshot that fits it. The snapshot can be taken up as
/// long as this lives: the replication session inside holds it.
pub struct ExportedSnapshot {
    /// Streaming starts here; the snapshot holds every commit whose commit LSN is below.
    pub consistent_point: Lsn,
    /// For `SET TRANSACTION SNAPSHOT`.
    pub snapshot_name: String,
    pub lineage: Lineage,
    session: Replication,
}

impl ExportedSnapshot {
    /// Lets go of the snapshot once every table has been copied. The slot stays.
    pub async fn close(self) {
        self.session.close().await;
    }
}

/// Creates slot `name` and exports the snapshot that fits it.
///
/// The server waits until every transaction that was writing when it began is over. `on_wait` is
/// told which those are, first after [`BLOCKER_INTERVAL`] and then at every interval. `cancel` ends
/// the wait (`std::future::pending()` for never): the slot is gone before this returns. Dropping the
/// future instead closes the session, which the server notices within seconds.
///
/// # Errors
/// The server refused, or `cancel` came first ([`Kind::Cancelled`]).
pub async fn create_exporting(
    config: &SourceConfig,
    name: &str,
    mut on_wait: impl FnMut(&[Blocker]) + Send,
    cancel: impl Future<Output = ()> + Send,
) -> Result<ExportedSnapshot, SourceError> {
    check_name(name)?;
    let what = format!("create slot \"{name}\"");
    let failed = |error| SourceError::replication(config, &what, error);
    let sql = connect(config).await?;
    if let Some(existing) = info(&sql, name).await? {
        return Err(exists(&existing));
    }
    let (mut session, identity) = replication(config).await?;
    let pid = backend_pid(&mut session).await.map_err(failed)?;
    let version = version(&sql).await?;
    // From 15 on options are in parentheses; before, they are words.
    let options = if version >= 150_000 { "(SNAPSHOT 'export')" } else { "EXPORT_SNAPSHOT" };
    let command = format!("CREATE_REPLICATION_SLOT {name} LOGICAL {PLUGIN} {options}");
    let rows = {
        let create = session.query(&command);
        tokio::pin!(create);
        tokio::pin!(cancel);
        loop {
            tokio::select! {
                rows = &mut create => break rows.map_err(failed)?,
                () = &mut cancel => {
                    abandon(&sql, name, pid).await?;
                    return Err(SourceError::stop(format!("creating slot \"{name}\" was cancelled"), "")
                        .kind(Kind::Cancelled));
                }
                () = tokio::time::sleep(BLOCKER_INTERVAL) => {
                    // Losing this session must not lose the creation, which has its own.
                    match blockers(&sql, pid).await {
                        Ok(found) => on_wait(&found),
                        Err(error) => tracing::debug!(%error, "cannot name what slot creation waits for"),
                    }
                }
            }
        }
    };
    sql.close().await;
    let cell = |at: usize| rows.first().and_then(|row| row.get(at)).and_then(Option::as_deref);
    let (Some(consistent_point), Some(snapshot_name)) =
        (cell(1).and_then(|lsn| lsn.parse().ok()), cell(2).map(str::to_owned))
    else {
        return Err(SourceError::stop(format!("cannot {what}: odd answer"), ""));
    };
    let lineage = Lineage::of(&identity);
    Ok(ExportedSnapshot { consistent_point, snapshot_name, lineage, session })
}

/// Whether the role may stream from this server at all: opens a replication session, asks who
/// answers, and ends it. `sql` sees it gone, so that the next one finds its WAL sender free.
///
/// # Errors
/// What is in the way.
pub async fn try_session(config: &SourceConfig, sql: &Session) -> Result<(), SourceError> {
    let (mut session, _) = replication(config).await?;
    let what = "open a replication session";
    let failed = |error| SourceError::replication(config, what, error);
    let pid = backend_pid(&mut session).await.map_err(failed)?;
    session.close().await;
    gone(sql, pid).await.map_err(|error| SourceError::query(what, error))
}

/// Waits, within [`RELEASE_TIMEOUT`], until a session has ended.
async fn gone(sql: &Session, pid: i32) -> Result<(), tokio_postgres::Error> {
    let there = "SELECT FROM pg_stat_activity WHERE pid = $1";
    let deadline = tokio::time::Instant::now() + RELEASE_TIMEOUT;
    while sql.query_opt(there, &[&pid]).await?.is_some() && tokio::time::Instant::now() < deadline {
        tokio::time::sleep(RELEASE_INTERVAL).await;
    }
    Ok(())
}

fn exists(slot: &SlotInfo) -> SourceError {
    let name = &slot.name;
    SourceError::stop(
        format!(
            "slot \"{name}\" exists already (plugin {}, database \"{}\"), but there is no local \
             state for it",
            slot.plugin.as_deref().unwrap_or("none"),
            slot.database.as_deref().unwrap_or("")
        ),
        format!(
            "if it is a leftover run: SELECT pg_drop_replication_slot('{name}'); else give the \
             pipeline another name"
        ),
    )
    .kind(Kind::SlotMoved)
}

/// The pid of a replication session; also has the server look, from here on, whether we are still there:
/// otherwise a creation that waits would go on for a client that was killed, and leave its slot.
pub(super) async fn backend_pid(session: &mut Replication) -> Result<i32, ReplicationError> {
    // Not every operating system can do it; there an orphan is found at the next start.
    if let Err(error) = session.query("SET client_connection_check_interval = '2s'").await {
        tracing::debug!(%error, "the server cannot watch the connection");
    }
    let rows = session.query("SELECT pg_backend_pid()").await?;
    let pid = rows.first().and_then(|row| row.first()?.as_ref()?.parse().ok());
    pid.ok_or_else(|| ReplicationError::Protocol("no backend pid".to_owned()))
}

/// The transactions that `pid` waits for, the one of this moment first.
async fn blockers(sql: &Session, pid: i32) -> Result<Vec<Blocker>, SourceError> {
    const BLOCKERS: &str = "
        WITH now(pid) AS (SELECT unnest(pg_blocking_pids($1)))
        SELECT a.pid, coalesce(a.application_name, ''), a.usename::text, a.datname::text,
               extract(epoch FROM clock_timestamp() - a.xact_start)::float8,
               a.pid IN (SELECT pid FROM now)
        FROM pg_stat_activity a
        WHERE (a.backend_xid IS NOT NULL OR a.pid IN (SELECT pid FROM now)) AND a.pid <> $1
        UNION ALL
        SELECT NULL, p.gid, p.owner::text, p.database::text,
               extract(epoch FROM clock_timestamp() - p.prepared)::float8, 0 IN (SELECT pid FROM now)
        FROM pg_prepared_xacts p
        ORDER BY 6 DESC, 5 DESC NULLS LAST LIMIT $2";
    let failed = |error| SourceError::query("name what slot creation waits for", error);
    let rows = sql.query(BLOCKERS, &[&pid, &BLOCKERS_MAX]).await.map_err(failed)?;
    let read = |row: &Row| -> Result<Blocker, tokio_postgres::Error> {
        let age: Option<f64> = row.try_get(4)?;
        Ok(Blocker {
            pid: row.try_get(0)?,
            name: row.try_get(1)?,
            role: row.try_get(2)?,
            database: row.try_get(3)?,
            age: age.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()),
            now: row.try_get(5)?,
        })
    };
    rows.iter().map(read).collect::<Result<_, _>>().map_err(failed)
}

/// Transactions that write now: what the creation of a slot would wait for.
///
/// # Errors
/// The question failed.
pub async fn writing(sql: &Session) -> Result<Vec<Blocker>, SourceError> {
    let failed = |error| SourceError::query("look for open transactions", error);
    let row = sql.query_one("SELECT pg_backend_pid()", &[]).await.map_err(failed)?;
    blockers(sql, row.try_get(0).map_err(failed)?).await
}

/// Ends a creation that waits. Closing its socket would not: the server would finish the slot for
/// nobody. Until it is whole a slot is ephemeral and goes with its session; the race in which it
/// just became whole is why it is dropped too.
async fn abandon(sql: &Session, name: &str, pid: i32) -> Result<(), SourceError> {
    let failed = |error| SourceError::query(&format!("abandon slot \"{name}\""), error);
    sql.query("SELECT pg_terminate_backend($1)", &[&pid]).await.map_err(failed)?;
    gone(sql, pid).await.map_err(failed)?;
    drop_if_there(sql, name).await.map_err(failed)
}

async fn drop_if_there(client: &Client, name: &str) -> Result<(), tokio_postgres::Error> {
    let drop = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots
                WHERE slot_name = $1 AND NOT temporary";
    client.query(drop, &[&name]).await.map(std::mem::drop)
}

/// Drops slot `name`. Where our own last stream still holds it, waits for that to end; `false`: there
/// was no such slot.
///
/// # Errors
/// Somebody else holds it, or ours does not let go within [`RELEASE_TIMEOUT`].
pub async fn drop(config: &SourceConfig, client: &Client, name: &str) -> Result<bool, SourceError> {
    let failed = |error| SourceError::query(&format!("drop slot \"{name}\""), error);
    let deadline = tokio::time::Instant::now() + RELEASE_TIMEOUT;
    loop {
        let Some(slot) = info(client, name).await? else {
            return Ok(false);
        };
        let foreign = slot.plugin.as_deref() != Some(PLUGIN)
            || slot.database.as_deref() != Some(&config.database);
        if foreign {
            // Any position will do: what is wrong is whose slot it is.
            slot.require(config, Lsn(u64::MAX))?;
        }
        match &slot.holder {
            None => break,
            Some(holder) => {
                let ours = holder.application.as_deref() == Some(&config.application_name());
                if !ours || tokio::time::Instant::now() >= deadline {
                    return Err(slot.held(holder));
                }
                tokio::time::sleep(RELEASE_INTERVAL).await;
            }
        }
    }
    // A slot whose creation was cut short goes by itself when its session does: perhaps just now.
    drop_if_there(client, name).await.map_err(failed)?;
    Ok(true)
}
