//! Real servers as child processes: the one place that starts them, for the demo and for tests.
//!
//! ```text
//!  TempHome  postgres/  redis/  clickhouse/  walview-state/  logs/      (removed on drop)
//!     │
//!     ├── Postgres ──┐
//!     ├── Redis ─────┼── Server: start · stop · kill9 · freeze · thaw · restart (same port, data)
//!     ├── ClickHouse ┘
//!     └── Service      `walview run` itself, looked at through its own HTTP interface
//! ```
//!
//! - Loopback only, each on a port that was free; a port lost to somebody else is tried again.
//! - A server is ready when it answers as itself, never after a fixed time.
//! - Nothing outlives this process, even when it is killed: see [`process`].

use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rand::RngExt as _;

pub mod clickhouse;
pub mod http;
pub mod postgres;
pub mod process;
pub mod proxy;
pub mod redis;
pub mod service;

pub use clickhouse::ClickHouse;
pub use postgres::Postgres;
pub use process::{Launch, Process, Signal, User, log_tail};
pub use redis::Redis;
pub use service::Service;

/// Ports are picked below the range that outgoing connections take theirs from
/// (`ip_local_port_range`, 32768 and up): a client that retries while the server is down could
/// otherwise be given the server's own port, even connect to itself.
const PORTS: std::ops::Range<u16> = 15_000..31_000;
const PORT_ATTEMPTS: usize = 5;
/// A cold start on a machine that compiles on all cores.
const START_LIMIT: Duration = Duration::from_secs(90);
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// What one kind of server brings to [`Server`].
pub trait Kind {
    const NAME: &'static str;
    /// Ends it in order.
    const STOP: Signal;
    fn launch(&self, port: u16) -> Launch;
    /// Whether it answers as itself.
    fn ready(&self, port: u16, pid: u32) -> impl Future<Output = bool>;
}

/// A server that can be stopped, killed, frozen and started again on the same port and data.
#[derive(Debug)]
pub struct Server<K: Kind> {
    kind: K,
    port: u16,
    process: Option<Process>,
}

impl<K: Kind> Server<K> {
    async fn start_new(kind: K) -> Result<Self> {
        let mut server = Self { kind, port: 0, process: None };
        for attempt in 1.. {
            server.port = free_port()?;
            match server.start().await {
                Ok(()) => break,
                Err(error) if attempt < PORT_ATTEMPTS && lost_port(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(server)
    }

    /// Starts it again after [`Self::stop`] or [`Self::kill9`]: same port, same data.
    pub async fn start(&mut self) -> Result<()> {
        if self.process.is_some() {
            bail!("{} is running already", K::NAME);
        }
        let mut process = Process::spawn(K::NAME, &self.kind.launch(self.port))?;
        let (kind, port, pid) = (&self.kind, self.port, process.pid());
        process.until("ready", START_LIMIT, async || kind.ready(port, pid).await).await?;
        self.process = Some(process);
        Ok(())
    }

    /// Ends it in order.
    pub async fn stop(&mut self) -> Result<ExitStatus> {
        self.take()?.stop(K::STOP, STOP_LIMIT).await
    }

    pub async fn kill9(&mut self) -> Result<()> {
        self.take()?.kill9().await
    }

    /// Stops it in order and starts it again.
    pub async fn restart(&mut self) -> Result<()> {
        self.stop().await?;
        self.start().await
    }

    pub fn freeze(&self) -> Result<()> {
        self.running()?.freeze()
    }

    pub fn thaw(&self) -> Result<()> {
        self.running()?.thaw()
    }

    /// Fails, with the end of its log, if it ended by itself.
    pub fn check_running(&mut self) -> Result<()> {
        self.process.as_mut().map_or(Ok(()), Process::check_running)
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    pub fn pid(&self) -> Result<u32> {
        Ok(self.running()?.pid())
    }

    fn running(&self) -> Result<&Process> {
        self.process.as_ref().with_context(|| format!("{} is not running", K::NAME))
    }

    fn take(&mut self) -> Result<Process> {
        self.process.take().with_context(|| format!("{} is not running", K::NAME))
    }
}

fn free_port() -> Result<u16> {
    let mut random = rand::rng();
    for _ in 0..1_000 {
        let port = random.random_range(PORTS);
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("no free port on 127.0.0.1 between {} and {}", PORTS.start, PORTS.end)
}

/// Where the shell would find a program.
fn find_in_path(program: &str) -> Option<PathBuf> {
    let output = std::process::Command::new("sh")
        .args(["-c", "command -v \"$1\"", "sh", program])
        .output()
        .ok()?;
    let path = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| PathBuf::from(path.trim_end()))
}

fn lost_port(error: &anyhow::Error) -> bool {
    let text = error.to_string();
    text.contains("ddress already in use") || text.contains("could not create any TCP/IP sockets")
}

/// A temporary folder, laid out for people who look inside; removed on drop.
#[derive(Debug)]
pub struct TempHome {
    folder: tempfile::TempDir,
}

impl TempHome {
    pub fn new(prefix: &str) -> Result<Self> {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::Builder::new()
            .prefix(prefix)
            // PostgreSQL, under its own user, must be able to walk through it.
            .permissions(std::fs::Permissions::from_mode(0o711))
            .tempdir()
            .context("cannot create a temporary folder")?;
        let home = Self { folder };
        for name in ["redis", "clickhouse", "walview-state", "logs"] {
            std::fs::create_dir(home.path().join(name))?;
        }
        Ok(home)
    }

    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    pub fn postgres(&self) -> PathBuf {
        self.path().join("postgres")
    }

    pub fn redis(&self) -> PathBuf {
        self.path().join("redis")
    }

    pub fn clickhouse(&self) -> PathBuf {
        self.path().join("clickhouse")
    }

    pub fn state(&self) -> PathBuf {
        self.path().join("walview-state")
    }

    pub fn log(&self, name: &str) -> PathBuf {
        self.path().join("logs").join(format!("{name}.log"))
    }

    /// Keeps the folder and says where it is: for a failure that somebody wants to look into.
    pub fn keep(mut self) -> PathBuf {
        self.folder.disable_cleanup(true);
        self.path().to_owned()
    }
}
