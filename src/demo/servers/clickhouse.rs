//! `ClickHouse`: our own `walview-clickhouse`, the engine behind its HTTP interface.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::process::{Launch, Signal};
use super::{Kind, Server, http};

const PROGRAM: &str = "walview-clickhouse";

#[derive(Debug)]
pub struct ClickHouse {
    pub server: Server<ClickHouseKind>,
}

#[derive(Debug)]
pub struct ClickHouseKind {
    program: PathBuf,
    folder: PathBuf,
    /// ClickHouse's own, where users and roles are wanted.
    config: Option<PathBuf>,
    log: PathBuf,
}

impl ClickHouse {
    pub async fn start(folder: &Path, log: &Path) -> Result<Self> {
        Self::start_with(folder, log, None).await
    }

    /// With a configuration file of ClickHouse's own.
    pub async fn start_with(folder: &Path, log: &Path, config: Option<&Path>) -> Result<Self> {
        std::fs::create_dir_all(folder)?;
        let kind = ClickHouseKind {
            program: program()?,
            folder: folder.to_owned(),
            config: config.map(Path::to_owned),
            log: log.to_owned(),
        };
        Ok(Self { server: Server::start_new(kind).await? })
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// `host:port` of the HTTP interface.
    pub fn address(&self) -> String {
        address(self.server.port)
    }

    /// The answer as text; the statement may end in `FORMAT …`.
    pub async fn query(&self, sql: &str) -> Result<String> {
        query(&self.address(), sql).await
    }
}

/// Runs a statement over HTTP at `host:port`.
pub async fn query(address: &str, sql: &str) -> Result<String> {
    match http::post(address, "/", sql).await? {
        (200, body) => Ok(body),
        (status, body) => bail!("ClickHouse answered {status}: {}", body.trim()),
    }
}

impl Kind for ClickHouseKind {
    const NAME: &'static str = "ClickHouse";
    const STOP: Signal = Signal::TERM;

    fn launch(&self, port: u16) -> Launch {
        let data = self.folder.display().to_string();
        let listen = address(port);
        let mut args = ["--data", &data, "--listen", &listen].map(str::to_owned).to_vec();
        if let Some(config) = &self.config {
            args.extend(["--config".to_owned(), config.display().to_string()]);
        }
        Launch {
            program: self.program.clone(),
            args,
            env: Vec::new(),
            user: None,
            log: self.log.clone(),
            death: Signal::KILL,
        }
    }

    async fn ready(&self, port: u16, _pid: u32) -> bool {
        http::get(&address(port), "/ping").await.is_ok_and(|(status, _)| status == 200)
            && query(&address(port), "SELECT 1").await.is_ok()
    }
}

fn address(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

/// Beside this program, or one folder up where this program is a test (`target/debug/deps/`).
fn program() -> Result<PathBuf> {
    let own = std::env::current_exe().context("cannot tell where this program is")?;
    let found = own.ancestors().skip(1).take(2).map(|folder| folder.join(PROGRAM));
    found.into_iter().find(|path| path.is_file()).or_else(|| super::find_in_path(PROGRAM)).context(
        "walview-clickhouse is neither beside this program nor in PATH; build it: \
         cargo build --package walview-clickhouse",
    )
}
