//! `walview status`: finds running instances by their state folders and asks them.

use crate::cli::{Exit, StatusArgs};
use crate::config::Pipeline;
use crate::http::{Report, faults_of};
use crate::output::Output;
use crate::service::board::{LocalStatus, Phase, Status, StoreState};
use serde::{Deserialize, Serialize};
use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How long an instance may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// A status is a few kilobytes; more than this is not one.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// An outbox below this is not worth a forecast.
const OUTBOX_SHOWN_BYTES: u64 = 64 << 20;

/// `<state>/<pipeline>/instance.json`: who runs the pipeline and where it answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    pub pid: u32,
    pub http: SocketAddr,
}

impl Instance {
    #[must_use]
    pub fn file(state: &Path, pipeline: &str) -> PathBuf {
        state.join(pipeline).join("instance.json")
    }

    /// What lets somebody ask for keys and values, and change what the instance does. Only its owner
    /// can read it, while anybody on the machine may ask how the instance is.
    #[must_use]
    pub fn token_file(state: &Path, pipeline: &str) -> PathBuf {
        state.join(pipeline).join("token")
    }
}

/// How a pipeline is, for an exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    Well,
    Degraded,
    Stopped,
}

#[must_use]
pub fn health(status: &Status) -> Health {
    if status.state == Phase::Stopped {
        Health::Stopped
    } else if faults_of(status).is_empty() {
        Health::Well
    } else {
        Health::Degraded
    }
}

/// The command: every pipeline of the state folder, or the one that `file` defines.
pub async fn run(args: &StatusArgs, output: Output) -> Exit {
    let state = &args.state.state;
    let pipelines = match &args.file {
        Some(file) => match Pipeline::load(file) {
            Ok(pipeline) => vec![pipeline.name.to_string()],
            Err(problems) => {
                output.problems(&[problems]);
                return Exit::CouldNotTell;
            }
        },
        None => known(state),
    };
    if pipelines.is_empty() {
        output.fault(&format!(
            "no pipeline has run with the state folder \"{}\"; name another with --state",
            state.display()
        ));
        return if args.ready { Exit::Failed } else { Exit::CouldNotTell };
    }
    if args.ready {
        return ready(state, &pipelines, output).await;
    }
    let (mut worst, mut text, mut report) = (Health::Well, String::new(), Vec::new());
    for pipeline in pipelines {
        match ask(state, &pipeline).await {
            Ok(status) => {
                worst = worst.max(health(&status));
                text.push_str(&render(&status));
                report.push(status);
            }
            Err(why) => {
                worst = Health::Stopped;
                output.fault(&why);
            }
        }
    }
    output.result(text.trim_end(), &Report { pipelines: report });
    match worst {
        Health::Well => Exit::Ok,
        Health::Degraded => Exit::Failed,
        Health::Stopped => Exit::CouldNotTell,
    }
}

/// `--ready`: what `/ready` says, for a health check where nothing else can ask over HTTP. Two exit
/// codes, because a container's health check reserves 2.
async fn ready(state: &Path, pipelines: &[String], output: Output) -> Exit {
    let mut faults = Vec::new();
    for pipeline in pipelines {
        match ask(state, pipeline).await {
            Ok(status) => {
                faults
                    .extend(faults_of(&status).iter().map(|fault| format!("{pipeline}: {fault}")));
            }
            Err(why) => faults.push(why),
        }
    }
    let exit = if faults.is_empty() { Exit::Ok } else { Exit::Failed };
    let text = if faults.is_empty() { "ready".to_owned() } else { faults.join("\n") };
    output.result(text, &Ready { ready: exit == Exit::Ok, faults });
    exit
}

/// The document of `status --ready --json`.
#[derive(Debug, Serialize)]
struct Ready {
    ready: bool,
    faults: Vec<String>,
}

/// Pipelines that have a folder in `state`.
pub fn known(state: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(state)
        .into_iter()
        .flatten()
        .filter_map(Result::ok)
        .filter(|entry| entry.path().is_dir())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    names
}

/// Asks the instance that runs `pipeline` under the folder `state`.
///
/// # Errors
/// A sentence: none runs, or it does not answer.
pub async fn ask(state: &Path, pipeline: &str) -> Result<Status, String> {
    let instance = instance(state, pipeline).await?;
    let (_, body) = exchange(&instance, pipeline, "GET", "/status", ("", ""), ANSWER_MAX).await?;
    let report: Report = serde_json::from_str(&body)
        .map_err(|error| format!("the instance of \"{pipeline}\" answers oddly: {error}"))?;
    report
        .pipelines
        .into_iter()
        .find(|status| status.pipeline == pipeline)
        .ok_or_else(|| format!("the process at {} does not run \"{pipeline}\"", instance.http))
}

/// The instance that runs `pipeline` under the folder `state`, as it wrote it down.
///
/// # Errors
/// A sentence: none runs.
pub async fn instance(state: &Path, pipeline: &str) -> Result<Instance, String> {
    let file = Instance::file(state, pipeline);
    let text = tokio::fs::read_to_string(&file).await.map_err(|error| {
        format!(
            "\"{pipeline}\" does not run with the state folder \"{}\": {error}; start it with: \
                 walview run, or name its folder with --state",
            state.display()
        )
    })?;
    serde_json::from_str(&text)
        .map_err(|error| format!("\"{}\" cannot be read: {error}", file.display()))
}

/// One request to an instance: HTTP's status, and the body. `token` is empty where none is asked for.
///
/// # Errors
/// A sentence: it is gone or does not answer.
pub async fn exchange(
    instance: &Instance,
    pipeline: &str,
    method: &str,
    path: &str,
    (body, token): (&str, &str),
    answer_max: Duration,
) -> Result<(u16, String), String> {
    let head = format!(
        "{method} {path} HTTP/1.0\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n",
        token,
        body.len()
    );
    tokio::time::timeout(answer_max, fetch(instance.http, &head, body))
        .await
        .map_err(|_elapsed| {
            format!("the instance of \"{pipeline}\" (pid {}) does not answer", instance.pid)
        })?
        .map_err(|error| {
            format!(
                "\"{pipeline}\" does not run: its instance (pid {}) is gone: {error}; start it \
                 with: walview run",
                instance.pid
            )
        })
}

/// HTTP/1.0: the answer ends with the connection.
async fn fetch(address: SocketAddr, head: &str, body: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect(from_here(address)).await?;
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).await?;
    let text = String::from_utf8_lossy(&answer);
    let odd = || std::io::Error::other("it does not speak HTTP");
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(odd)?;
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).ok_or_else(odd)?;
    Ok((code, body.to_owned()))
}

/// `--http 0.0.0.0:7878` listens everywhere, and "everywhere" is no place to connect to.
fn from_here(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

/// The table for people.
#[must_use]
pub fn render(status: &Status) -> String {
    let mut out = String::new();
    let word = match health(status) {
        Health::Well => "LIVE",
        Health::Degraded if status.state == Phase::Snapshotting => "SNAPSHOT",
        Health::Degraded if status.state == Phase::Starting => "STARTING",
        Health::Degraded => "DEGRADED",
        Health::Stopped => "STOPPED",
    };
    let stopped = status.views.iter().filter(|view| view.reason.is_some()).count();
    // Writing to a String does not fail.
    writeln!(
        out,
        "{}   {word}   {} of {} views stopped",
        status.pipeline,
        stopped,
        status.views.len()
    )
    .ok();
    if let Some(reason) = &status.reason {
        writeln!(out, "why       {reason}").ok();
    }
    if let Some(snapshot) = &status.snapshot {
        writeln!(out, "snapshot  {}", snapshot.text()).ok();
    }
    let source = match &status.source.error {
        _ if status.source.connected => "connected".to_owned(),
        Some(error) => error.clone(),
        None => "connecting".to_owned(),
    };
    writeln!(
        out,
        "source    slot {}  {source}  {:.0} changes/s  durable to {}",
        status.source.slot, status.source.changes_per_second, status.source.lsn
    )
    .ok();
    for problem in &status.source.problems {
        writeln!(out, "          {problem}").ok();
    }
    writeln!(
        out,
        "local     {:.1} MB on disk, {:.0} MB memory (peak {:.0})  {}",
        megabytes(status.local.disk_bytes),
        megabytes(status.process.rss_bytes),
        megabytes(status.process.rss_peak_bytes),
        outbox(&status.local)
    )
    .ok();
    writeln!(
        out,
        "{:<14} {:<11} {:<28} {:>9} {:>8}  LAST ERROR",
        "STORE", "STATE", "AS OF", "BEHIND", "WAITING"
    )
    .ok();
    for store in &status.stores {
        let state = match store.state {
            StoreState::Connecting => "connecting",
            StoreState::Loading => "loading",
            StoreState::Refilling => "refilling",
            StoreState::Live => "live",
            StoreState::Retrying => "retrying",
            StoreState::Stopped => "STOPPED",
        };
        writeln!(
            out,
            "{:<14} {state:<11} {:<28} {:>9} {:>8}  {}",
            store.name,
            store.as_of,
            format!("{} ms", store.behind_ms),
            store.waiting,
            store.last_error.as_deref().unwrap_or("-")
        )
        .ok();
    }
    for store in &status.stores {
        if let Some(refill) = &store.refill {
            writeln!(out, "store {} {}", store.name, refill.text()).ok();
        }
    }
    for view in &status.views {
        if let Some(reason) = &view.reason {
            writeln!(out, "view {} STOPPED: {reason}", view.name).ok();
        }
        if let Some(facts) = view.correcting {
            writeln!(
                out,
                "view {} is being corrected for a changed row: {facts} of the rows that join it so far",
                view.name
            )
            .ok();
        }
    }
    let dead: u64 = status.views.iter().map(|view| view.dead_letters).sum();
    if dead > 0 {
        writeln!(
            out,
            "dead letters: {dead} rows are left out of their views; see: walview dead-letters list"
        )
        .ok();
    }
    out
}

/// `outbox 1900.0 MB of 20 GB, +8.0 MB/s, full in 38 min -> then WAL grows`
fn outbox(local: &LocalStatus) -> String {
    let mut out = format!(
        "outbox {:.1} MB of {:.0} GB",
        megabytes(local.outbox_bytes),
        megabytes(local.outbox_bytes_max) / 1000.0
    );
    if local.outbox_full {
        out.push_str(", FULL: nothing is read, WAL grows at the source");
    } else if let Some(seconds) = local.outbox_full_in_seconds
        // Less than this is a flush that is under way.
        && local.outbox_bytes >= OUTBOX_SHOWN_BYTES
    {
        write!(
            out,
            ", {:+.1} MB/s, full in {:.0} min -> then WAL grows",
            local.outbox_bytes_per_second / 1e6,
            seconds / 60.0
        )
        .ok();
    }
    out
}

#[expect(clippy::cast_precision_loss, reason = "shown with one digit")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn an_instance_that_listens_everywhere_is_asked_here() {
        for (listens, asked) in [
            ("0.0.0.0:7878", "127.0.0.1:7878"),
            ("[::]:1", "[::1]:1"),
            ("10.0.0.1:2", "10.0.0.1:2"),
        ] {
            assert_eq!(from_here(listens.parse().unwrap()), asked.parse().unwrap());
        }
    }
}
