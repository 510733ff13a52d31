//! Tells the server, again and again, what is durable here.
//!
//! A task of its own, so that the server hears from us for as long as nobody takes a gulp. What goes
//! wrong with the socket here the reader learns there, and with the server's reason for it.

use super::super::replication::{Outgoing, ReplicationError};
use std::time::{Duration, SystemTime};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::Instrument;
use walview_core::position::Lsn;

/// How often the server hears from us: often enough that a confirmed position and a server's
/// shutdown wait for no more than this, far more often than `wal_sender_timeout` asks for.
const INTERVAL: Duration = Duration::from_secs(1);

/// From the Unix epoch to 2000-01-01, where PostgreSQL's times begin.
const POSTGRES_EPOCH: Duration = Duration::from_secs(946_684_800);

#[derive(Clone, Copy)]
struct Wish {
    durable: Lsn,
    /// Grows with each status that the server asked for.
    asked: u64,
    end: bool,
}

/// The task, which ends with this.
pub(super) struct Status {
    wishes: watch::Sender<Wish>,
    task: JoinSet<()>,
}

impl Status {
    pub(super) fn start(outgoing: Outgoing, durable: Lsn) -> Self {
        let (wishes, wished) = watch::channel(Wish { durable, asked: 0, end: false });
        let mut task = JoinSet::new();
        let report = async move {
            if let Err(error) = report(outgoing, wished).await {
                tracing::debug!(%error, "no status can be sent");
            }
        };
        task.spawn(report.instrument(tracing::debug_span!("replication-status")));
        Self { wishes, task }
    }

    /// Is sent within [`INTERVAL`].
    pub(super) fn durable(&self, lsn: Lsn) {
        self.wishes.send_modify(|wish| wish.durable = lsn);
    }

    /// The server wants to hear from us at once.
    pub(super) fn asked(&self) {
        self.wishes.send_modify(|wish| wish.asked = wish.asked.wrapping_add(1));
    }

    /// Sends the last position and the end of the stream; returns when both are under way.
    pub(super) async fn end(&mut self) {
        self.wishes.send_modify(|wish| wish.end = true);
        // A panic would be the reader's too; there is nothing to be done about it here.
        drop(self.task.join_next().await);
    }
}

async fn report(
    mut outgoing: Outgoing,
    mut wished: watch::Receiver<Wish>,
) -> Result<(), ReplicationError> {
    loop {
        let wish = *wished.borrow_and_update();
        outgoing.status(wish.durable, now()).await?;
        if wish.end {
            return outgoing.end().await;
        }
        let urgent = wished.wait_for(|new| new.end || new.asked != wish.asked);
        if let Ok(Err(_stream_dropped)) = tokio::time::timeout(INTERVAL, urgent).await {
            return Ok(());
        }
    }
}

/// Microseconds since 2000-01-01 UTC; 0 where the clock is before that.
fn now() -> i64 {
    let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    i64::try_from(now.saturating_sub(POSTGRES_EPOCH).as_micros()).unwrap_or(0)
}
