//! What the server has left for one more slot, and how long it holds WAL back for it.

use super::config::SourceConfig;
use super::error::{SourceError, server};
use std::time::Duration;
use tokio_postgres::Client;

/// Slots, senders and retention.
#[derive(Clone, Debug, PartialEq)]
pub struct Capacity {
    pub slots_max: i64,
    pub slots_used: i64,
    pub senders_max: i64,
    pub senders_used: i64,
    /// A slot that nobody reads for so long is invalidated (from 18); `None` where none is.
    pub idle_slot_timeout: Option<Duration>,
    /// WAL written since the server began to count, and for how long it has counted.
    pub wal: Option<(u64, Duration)>,
}

// `idle_replication_slot_timeout` came with 18, in seconds or minutes.
const CAPACITY: &str = "
SELECT current_setting('max_replication_slots')::int8,
       (SELECT count(*) FROM pg_replication_slots),
       current_setting('max_wal_senders')::int8, (SELECT count(*) FROM pg_stat_replication),
       (SELECT setting::int8 * CASE unit WHEN 'min' THEN 60 WHEN 'ms' THEN 0 ELSE 1 END
        FROM pg_settings WHERE name = 'idle_replication_slot_timeout'),
       (SELECT wal_bytes::int8 FROM pg_stat_wal),
       (SELECT extract(epoch FROM clock_timestamp() - stats_reset)::int8 FROM pg_stat_wal)";

/// # Errors
/// The question failed.
pub async fn load(client: &Client) -> Result<Capacity, SourceError> {
    let failed = |error| SourceError::query("read what is left of slots and WAL senders", error);
    let row = client.query_one(CAPACITY, &[]).await.map_err(failed)?;
    let number = |at: usize| row.try_get::<_, i64>(at).map_err(failed);
    let maybe = |at: usize| -> Result<Option<u64>, SourceError> {
        let number: Option<i64> = row.try_get(at).map_err(failed)?;
        Ok(number.and_then(|number| u64::try_from(number).ok()))
    };
    Ok(Capacity {
        slots_max: number(0)?,
        slots_used: number(1)?,
        senders_max: number(2)?,
        senders_used: number(3)?,
        idle_slot_timeout: maybe(4)?.filter(|seconds| *seconds > 0).map(Duration::from_secs),
        wal: maybe(5)?.zip(maybe(6)?.map(Duration::from_secs)),
    })
}

impl Capacity {
    /// What keeps a new slot from being made. A sender that is not free is said by the session.
    #[must_use]
    pub fn no_slot(&self, config: &SourceConfig) -> Option<SourceError> {
        (self.slots_used >= self.slots_max).then(|| {
            SourceError::stop(
                format!(
                    "{} has no free replication slot: all {} are in use",
                    server(config),
                    self.slots_max
                ),
                "drop one that is not needed (SELECT * FROM pg_replication_slots), or raise \
                 max_replication_slots and restart PostgreSQL",
            )
        })
    }
}
