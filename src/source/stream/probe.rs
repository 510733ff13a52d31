//! Is a silent stream idle or dead?
//!
//! The wire cannot tell: a server that hears from us every second has no reason to speak, and a
//! half-open connection looks the same. So the server is asked over a second connection what it
//! thinks of our session. That connection is opened at the first silence and kept while it lasts.

use super::super::config::SourceConfig;
use super::super::connect::{Session, connect};
use super::super::error::{Kind, SourceError};
use std::time::Duration;

/// Our status goes out every second. Older than this at a server that waits for input: it does not
/// arrive.
const REPLY_AGE_MAX: Duration = Duration::from_secs(10);

pub(super) struct Probe {
    /// The walsender that serves us.
    pid: i32,
    session: Option<Session>,
}

impl Probe {
    pub(super) fn new(pid: i32) -> Self {
        Self { pid, session: None }
    }

    /// The stream spoke: the second connection is not needed.
    pub(super) fn rest(&mut self) {
        self.session = None;
    }

    /// # Errors
    /// Our session is gone, or what we send does not arrive, or the server does not answer.
    pub(super) async fn ask(&mut self, config: &SourceConfig) -> Result<(), SourceError> {
        let session = match self.session.take() {
            Some(session) if !session.is_closed() => session,
            _ => connect(config).await?,
        };
        let question = ask(&session, self.pid);
        tokio::time::timeout(config.connect_timeout, question)
            .await
            .map_err(|_elapsed| SourceError::retry("the server does not answer", ""))??;
        self.session = Some(session);
        Ok(())
    }
}

async fn ask(session: &Session, pid: i32) -> Result<(), SourceError> {
    // A walsender that decodes a large transaction reads nothing from us meanwhile, so an old reply
    // counts only where it waits.
    const STATE: &str = "
        SELECT coalesce(a.wait_event_type IN ('Activity', 'Client'), false),
               extract(epoch FROM clock_timestamp() - r.reply_time)::float8
        FROM pg_stat_activity a LEFT JOIN pg_stat_replication r ON r.pid = a.pid
        WHERE a.pid = $1 AND a.backend_type = 'walsender'";
    let failed = |error| SourceError::query("ask after the replication session", error);
    let lost = |message: String| Err(SourceError::retry(message, "").kind(Kind::Stalled));
    let Some(row) = session.query_opt(STATE, &[&pid]).await.map_err(failed)? else {
        return lost(format!("the server has ended our session (pid {pid})"));
    };
    let (waits, age): (bool, Option<f64>) =
        (row.try_get(0).map_err(failed)?, row.try_get(1).map_err(failed)?);
    match age {
        Some(age) if waits && age > REPLY_AGE_MAX.as_secs_f64() => lost(format!(
            "the server (pid {pid}) has heard nothing from us for {age:.0} s: the connection is cut"
        )),
        _ => Ok(()),
    }
}
