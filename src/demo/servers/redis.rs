//! `redis-server`, on one port and one folder.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client};

use super::process::{Launch, Signal};
use super::{Kind, Server};

#[derive(Debug)]
pub struct Redis {
    pub server: Server<RedisKind>,
}

#[derive(Debug)]
pub struct RedisKind {
    program: PathBuf,
    folder: PathBuf,
    log: PathBuf,
    persistence: Persistence,
}

/// What survives the server's end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persistence {
    /// Nothing: after a restart it is empty.
    None,
    /// An append-only file, synced every second: a kill of the process loses nothing, a power cut
    /// up to a second.
    AppendOnly,
}

impl Redis {
    pub async fn start(folder: &Path, log: &Path, persistence: Persistence) -> Result<Self> {
        let program = super::find_in_path("redis-server")
            .context("no redis-server found; install it: apt-get install redis-server")?;
        std::fs::create_dir_all(folder)?;
        let kind =
            RedisKind { program, folder: folder.to_owned(), log: log.to_owned(), persistence };
        Ok(Self { server: Server::start_new(kind).await? })
    }

    pub fn url(&self) -> String {
        url(self.server.port)
    }

    pub async fn connect(&self) -> Result<MultiplexedConnection> {
        connect(self.server.port).await
    }
}

impl Kind for RedisKind {
    const NAME: &'static str = "Redis";
    const STOP: Signal = Signal::TERM;

    fn launch(&self, port: u16) -> Launch {
        let append_only = if self.persistence == Persistence::AppendOnly { "yes" } else { "no" };
        let args = [
            ["--port", &port.to_string()],
            ["--bind", "127.0.0.1"],
            ["--dir", &self.folder.display().to_string()],
            ["--save", ""],
            ["--appendonly", append_only],
            ["--daemonize", "no"],
        ];
        Launch {
            program: self.program.clone(),
            args: args.concat().iter().map(|&arg| arg.to_owned()).collect(),
            env: Vec::new(),
            user: None,
            log: self.log.clone(),
            death: Signal::KILL,
        }
    }

    async fn ready(&self, port: u16, pid: u32) -> bool {
        let Ok(mut connection) = connect(port).await else {
            return false;
        };
        // LOADING answers INFO too, but not PING.
        let pong = redis::cmd("PING").exec_async(&mut connection).await.is_ok();
        let info: Result<String, _> =
            redis::cmd("INFO").arg("server").query_async(&mut connection).await;
        pong && info.is_ok_and(|info| info.lines().any(|line| line == format!("process_id:{pid}")))
    }
}

fn url(port: u16) -> String {
    format!("redis://127.0.0.1:{port}/0")
}

/// Without a response timeout: `XREAD BLOCK` may wait as long as it likes.
async fn connect(port: u16) -> Result<MultiplexedConnection> {
    let client = Client::open(url(port))?;
    let config = AsyncConnectionConfig::new().set_response_timeout(None);
    client
        .get_multiplexed_async_connection_with_config(&config)
        .await
        .context("cannot connect to Redis")
}
