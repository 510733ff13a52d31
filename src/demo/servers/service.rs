//! `walview run` as a child process, looked at from outside: its HTTP interface, its exit code.

use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::time::{Instant, sleep};

use super::http;
use super::process::{Launch, Process, Signal};
use crate::http::Report;
use crate::service::board::{Phase, Status};
use crate::status::Instance;

const POLL: Duration = Duration::from_millis(20);
/// Draining to two stores on a machine that compiles on all cores.
const STOP_LIMIT: Duration = Duration::from_secs(60);
const VERIFY_LIMIT: Duration = Duration::from_secs(600);

/// What to run and where.
#[derive(Clone, Debug)]
pub struct Options {
    pub program: PathBuf,
    pub pipeline_file: PathBuf,
    /// `pipeline:` in that file.
    pub pipeline: String,
    pub state: PathBuf,
    /// Further arguments of `run`.
    pub args: Vec<String>,
    /// What `${…}` in the file refers to.
    pub env: Vec<(String, String)>,
    pub log: PathBuf,
}

#[derive(Debug)]
pub struct Service {
    process: Process,
    instance: PathBuf,
}

impl Options {
    fn launch(&self, command: &str) -> Launch {
        let arg = |path: &Path| path.display().to_string();
        let (file, state) = (arg(&self.pipeline_file), arg(&self.state));
        let args = [command, &file, "--state", &state, "--http", "127.0.0.1:0"];
        Launch {
            program: self.program.clone(),
            args: args.map(str::to_owned).into_iter().chain(self.args.iter().cloned()).collect(),
            env: self.env.clone(),
            user: None,
            log: self.log.clone(),
            death: Signal::KILL,
        }
    }

    /// `walview verify` beside the running service: whether every view is equal. What it prints
    /// goes to `log`.
    pub async fn verify(&self, log: &Path) -> Result<bool> {
        let arg = |path: &Path| path.display().to_string();
        let launch = Launch {
            program: self.program.clone(),
            args: vec![
                "verify".to_owned(),
                arg(&self.pipeline_file),
                "--state".to_owned(),
                arg(&self.state),
            ],
            env: self.env.clone(),
            user: None,
            log: log.to_owned(),
            death: Signal::KILL,
        };
        let mut process = Process::spawn("walview verify", &launch)?;
        let Some(status) = process.exited(VERIFY_LIMIT).await else {
            return Err(process.failure(&format!("did not end within {VERIFY_LIMIT:?}")));
        };
        match status.code() {
            Some(0) => Ok(true),
            Some(1) => Ok(false),
            _ => Err(process.failure(&format!("could not tell ({status})"))),
        }
    }
}

impl Service {
    /// Starts it, without waiting for anything.
    pub fn spawn(options: &Options) -> Result<Self> {
        Self::spawn_as(options, "run")
    }

    /// The same with everything filled anew.
    pub fn rebuild(options: &Options) -> Result<Self> {
        Self::spawn_as(options, "rebuild")
    }

    fn spawn_as(options: &Options, command: &str) -> Result<Self> {
        let process = Process::spawn("walview", &options.launch(command))?;
        let instance = options.state.join(&options.pipeline).join("instance.json");
        Ok(Self { process, instance })
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub fn check_running(&mut self) -> Result<()> {
        self.process.check_running()
    }

    pub fn failure(&self, what: &str) -> anyhow::Error {
        self.process.failure(what)
    }

    /// `host:port` of its HTTP interface; `None` until it has written that down.
    pub fn address(&self) -> Option<String> {
        let text = std::fs::read_to_string(&self.instance).ok()?;
        let instance: Instance = serde_json::from_str(&text).ok()?;
        // One that was killed leaves its file behind.
        (instance.pid == self.process.pid()).then(|| instance.http.to_string())
    }

    pub async fn status(&self) -> Option<Status> {
        let (code, body) = http::get(&self.address()?, "/status").await.ok()?;
        // Not ready yet may be said with 503, and the body is worth reading all the same.
        if code != 200 && code != 503 {
            return None;
        }
        let report: Report = serde_json::from_str(&body).ok()?;
        report.pipelines.into_iter().next()
    }

    /// Waits for a status that `wanted` accepts.
    pub async fn until(
        &mut self,
        what: &str,
        limit: Duration,
        mut wanted: impl FnMut(&Status) -> bool,
    ) -> Result<Status> {
        let deadline = Instant::now() + limit;
        loop {
            let status = self.status().await;
            self.process.check_running()?;
            if let Some(status) = &status
                && wanted(status)
            {
                return Ok(status.clone());
            }
            if Instant::now() >= deadline {
                let what = format!("was not {what} within {limit:?}, last seen as {status:?}");
                return Err(self.process.failure(&what));
            }
            sleep(POLL).await;
        }
    }

    /// Waits until it streams, its snapshot done.
    pub async fn until_live(&mut self, limit: Duration) -> Result<Status> {
        self.until("live", limit, |status| status.state == Phase::Live).await
    }

    /// Waits until every store holds everything up to `lsn`.
    pub async fn until_stores_reach(&mut self, lsn: u64, limit: Duration) -> Result<Status> {
        self.until(&format!("at {}", format_lsn(lsn)), limit, |status| {
            status.state == Phase::Live
                && !status.stores.is_empty()
                && status
                    .stores
                    .iter()
                    .all(|store| parse_lsn(&store.lsn).is_some_and(|held| held >= lsn))
        })
        .await
    }

    /// SIGTERM: it drains and ends by itself.
    pub async fn stop(self) -> Result<()> {
        let log = self.process.log().to_owned();
        let status = self.process.stop(Signal::TERM, STOP_LIMIT).await?;
        if !status.success() {
            let tail = super::log_tail(&log, 15);
            bail!("walview ended with {status} after SIGTERM; the end of its log:\n{tail}");
        }
        Ok(())
    }

    pub fn freeze(&self) -> Result<()> {
        self.process.freeze()
    }

    pub fn thaw(&self) -> Result<()> {
        self.process.thaw()
    }

    pub async fn kill9(self) -> Result<()> {
        self.process.kill9().await
    }

    /// Waits for it to end by itself.
    pub async fn exited(&mut self, limit: Duration) -> Result<ExitStatus> {
        let status = self.process.exited(limit).await;
        status.with_context(|| format!("walview did not end within {limit:?}"))
    }
}

/// `16/B374D848` as PostgreSQL prints it.
pub fn parse_lsn(text: &str) -> Option<u64> {
    let (high, low) = text.split_once('/')?;
    let high = u64::from(u32::from_str_radix(high, 16).ok()?);
    Some(high << 32 | u64::from(u32::from_str_radix(low, 16).ok()?))
}

pub fn format_lsn(lsn: u64) -> String {
    format!("{:X}/{:X}", lsn >> 32, lsn & 0xFFFF_FFFF)
}
