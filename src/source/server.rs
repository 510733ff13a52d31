//! What kind of server answers, and whether Walview can follow it.

use super::config::SourceConfig;
use super::error::{Kind, SourceError, server, wal_level};
use super::replication::Identity;
use tokio_postgres::Client;
use walview_core::position::Lsn;

/// The oldest major version that is supported: the first with `pgoutput` as it is used here.
const VERSION_MIN: i32 = 140_000;

/// One line of history: positions of one lineage mean nothing on another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lineage {
    /// `pg_control_system().system_identifier`.
    pub system_identifier: u64,
    pub timeline: u32,
}

/// The server and database behind a connection.
#[derive(Clone, Debug, PartialEq)]
pub struct Info {
    pub lineage: Lineage,
    /// `server_version_num`: 150018 is 15.18.
    pub version: i32,
    pub database: String,
    pub database_oid: u32,
    pub encoding: String,
    pub wal_level: String,
    pub in_recovery: bool,
    /// Bytes of WAL that a slot may hold back; `None` is without limit.
    pub max_slot_wal_keep_size: Option<u64>,
    /// The end of the log that is on disk; where replay stands in recovery.
    pub lsn: Lsn,
    pub role: String,
}

const INFO: &str = "
SELECT s.system_identifier::text,
       CASE WHEN r.recovery THEN c.timeline_id::int8
            ELSE ('x' || substr(pg_walfile_name(pg_current_wal_flush_lsn()), 1, 8))::bit(32)::int8
       END,
       current_setting('server_version_num')::int4, d.datname::text, d.oid,
       current_setting('server_encoding'), current_setting('wal_level'), r.recovery,
       (SELECT setting::int8 FROM pg_settings WHERE name = 'max_slot_wal_keep_size'),
       CASE WHEN r.recovery THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_flush_lsn() END::text,
       current_user::text
FROM pg_control_system() s, pg_control_checkpoint() c,
     (SELECT pg_is_in_recovery() AS recovery) r, pg_database d
WHERE d.datname = current_database()";

/// Asks the server who it is.
///
/// # Errors
/// The question failed, or the server is too old to be asked.
pub async fn info(client: &Client) -> Result<Info, SourceError> {
    let what = "read the server's settings";
    let failed = |error| SourceError::query(what, error);
    let version = version(client).await?;
    require_version(version)?;
    let row = client.query_one(INFO, &[]).await.map_err(failed)?;
    let text = |at: usize| row.try_get::<_, String>(at).map_err(failed);
    let number = |at: usize| row.try_get::<_, i64>(at).map_err(failed);
    let unreadable = |name: &str| SourceError::stop(format!("cannot {what}: odd {name}"), "");
    Ok(Info {
        lineage: Lineage {
            system_identifier: text(0)?
                .parse()
                .ok()
                .ok_or_else(|| unreadable("system identifier"))?,
            timeline: u32::try_from(number(1)?).ok().ok_or_else(|| unreadable("timeline"))?,
        },
        version: row.try_get(2).map_err(failed)?,
        database: text(3)?,
        database_oid: row.try_get(4).map_err(failed)?,
        encoding: text(5)?,
        wal_level: text(6)?,
        in_recovery: row.try_get(7).map_err(failed)?,
        // In megabytes; -1 is without limit.
        max_slot_wal_keep_size: u64::try_from(number(8)?).ok().map(|megabytes| megabytes << 20),
        lsn: text(9)?.parse().ok().ok_or_else(|| unreadable("LSN"))?,
        role: text(10)?,
    })
}

fn require_version(version: i32) -> Result<(), SourceError> {
    if version >= VERSION_MIN {
        return Ok(());
    }
    Err(SourceError::stop(
        format!("PostgreSQL {}.{} is not supported", version / 10_000, version % 10_000),
        "walview needs PostgreSQL 14 or newer",
    ))
}

/// `server_version_num`.
pub(super) async fn version(client: &Client) -> Result<i32, SourceError> {
    let failed = |error| SourceError::query("read the server's version", error);
    let row = client.query_one("SHOW server_version_num", &[]).await.map_err(failed)?;
    let version: String = row.try_get(0).map_err(failed)?;
    Ok(version.parse().unwrap_or(0))
}

/// The source's clock, in microseconds since 2000-01-01 UTC, and an LSN below which every commit
/// lies that the clock has passed.
///
/// # Errors
/// The question failed.
pub async fn clock(client: &Client) -> Result<(Lsn, i64), SourceError> {
    // The time is read first: a commit between the two only moves the LSN further.
    const CLOCK: &str = "
        WITH now AS MATERIALIZED (
          SELECT (extract(epoch FROM clock_timestamp() - '2000-01-01Z') * 1000000)::int8 AS at
        ) SELECT at, pg_current_wal_insert_lsn()::text FROM now";
    let failed = |error| SourceError::query("read the server's clock", error);
    let row = client.query_one(CLOCK, &[]).await.map_err(failed)?;
    let lsn: String = row.try_get(1).map_err(failed)?;
    let lsn = lsn
        .parse()
        .map_err(|_not_an_lsn| SourceError::stop("cannot read the server's clock: odd LSN", ""))?;
    Ok((lsn, row.try_get(0).map_err(failed)?))
}

impl Info {
    /// What keeps logical replication from working here at all. Whether the role may replicate is
    /// left to a session: membership in a managed service's replication role is no attribute.
    #[must_use]
    pub fn problems(&self, config: &SourceConfig) -> Vec<SourceError> {
        let mut problems = Vec::new();
        if self.wal_level != "logical" {
            problems.push(wal_level(config, Some(&self.wal_level)));
        }
        if self.in_recovery {
            problems.push(SourceError::stop(
                format!("{} is a standby, which is not supported", server(config)),
                "give the primary in source.url",
            ));
        }
        // All others are converted by the server.
        if matches!(self.encoding.as_str(), "SQL_ASCII" | "MULE_INTERNAL") {
            problems.push(SourceError::stop(
                format!(
                    "database \"{}\" has the encoding {}, which PostgreSQL does not convert to UTF8",
                    self.database, self.encoding
                ),
                "walview needs a database whose encoding is UTF8, or is converted to it",
            ));
        }
        problems
    }
}

impl Lineage {
    pub(super) fn of(identity: &Identity) -> Self {
        Self { system_identifier: identity.system_identifier, timeline: identity.timeline }
    }

    /// # Errors
    /// `self` answered where positions belong to `expected`.
    pub(super) fn require(self, expected: Self, config: &SourceConfig) -> Result<(), SourceError> {
        if self == expected {
            return Ok(());
        }
        let message = if self.system_identifier == expected.system_identifier {
            format!(
                "{} is on timeline {}, the stored position on timeline {}: a standby was promoted \
                 or a backup restored",
                server(config),
                self.timeline,
                expected.timeline
            )
        } else {
            format!(
                "{} is another cluster (system identifier {}) than the stored position's ({})",
                server(config),
                self.system_identifier,
                expected.system_identifier
            )
        };
        Err(SourceError::stop(message, "check source.url; if it is right, run: walview rebuild")
            .kind(Kind::LineageChanged))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_server_is_refused() {
        let said = require_version(130_014).map_err(|error| error.to_string());
        let wanted = "PostgreSQL 13.14 is not supported; walview needs PostgreSQL 14 or newer";
        assert_eq!(said, Err(wanted.to_owned()));
        assert!(require_version(140_000).is_ok());
    }
}
