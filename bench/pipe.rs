//! `pg_recvlogical` to a pipe: how soon a commit gets out of PostgreSQL by itself.
//!
//! Format: PostgreSQL documentation, "Logical Replication Message Formats"; `pg_recvlogical` writes a
//! line feed behind each message. A message may hold one, too, but what stands before that is none.

use anyhow::{Context as _, Result, bail, ensure};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Instant;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Command;
use walview::demo::latency::Visibility;
use walview_core::pgoutput::{Cell, Message, decode};

const READ_BYTES: usize = 64 << 10;

/// Reads what `command` writes, until it fails or is dropped.
pub(crate) async fn follow(mut command: Command, visibility: Arc<Visibility>) -> Result<()> {
    let spawned = command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true).spawn();
    let mut child = spawned.context("pg_recvlogical cannot be started")?;
    let output = child.stdout.take().context("pg_recvlogical has no output")?;
    read(output, |id| visibility.seen(id, Instant::now())).await?;
    bail!("pg_recvlogical ended: {}", child.wait().await?)
}

/// Calls `committed` with the id, the first column, of each row that was inserted, once it is committed.
async fn read(mut output: impl AsyncRead + Unpin, mut committed: impl FnMut(i64)) -> Result<()> {
    let (mut bytes, mut ids) = (Vec::with_capacity(READ_BYTES), Vec::new());
    while output.read_buf(&mut bytes).await? > 0 {
        let mut taken = 0;
        while let Some((message, length)) = next(bytes.get(taken..).unwrap_or_default()) {
            taken += length;
            if let Message::Insert { new, .. } = message {
                ids.push(id(new.cells().next())?);
            } else if let Message::Commit(_) = message {
                ids.drain(..).for_each(&mut committed);
            }
        }
        bytes.drain(..taken);
    }
    ensure!(bytes.is_empty(), "the last message of pg_recvlogical is cut");
    Ok(())
}

/// The first message, and how many bytes it takes.
fn next(bytes: &[u8]) -> Option<(Message<'_>, usize)> {
    let mut ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n');
    ends.find_map(|(end, _)| Some((decode(bytes.get(..end)?).ok()?, end + 1)))
}

fn id(cell: Option<Cell<'_>>) -> Result<i64> {
    match cell {
        Some(Cell::Text(text)) => Ok(std::str::from_utf8(text)?.parse()?),
        cell => bail!("a row without an id: {cell:?}"),
    }
}
