//! Servers as child processes, killed on drop.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

pub(super) struct RedisServer {
    child: Child,
    folder: tempfile::TempDir,
    port: u16,
}

impl RedisServer {
    pub(super) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // Free now; a rival that takes it first fails the start.
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Self::spawn(folder.path(), port).await;
        Self { child, folder, port }
    }

    async fn spawn(folder: &Path, port: u16) -> Child {
        let child = Command::new("redis-server")
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1", "--save", ""])
            .args(["--appendonly", "yes", "--appendfsync", "always", "--dir"])
            .arg(folder)
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        for _ in 0..400 {
            if tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
                return child;
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        panic!("redis-server does not listen on port {port}");
    }

    pub(super) async fn restart(&mut self) {
        self.child.kill().await.unwrap();
        self.child = Self::spawn(self.folder.path(), self.port).await;
    }

    pub(super) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}

pub(super) struct ClickHouseServer {
    child: Child,
    folder: tempfile::TempDir,
    address: String,
}

impl ClickHouseServer {
    pub(super) async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (child, address) = Self::spawn(folder.path(), "127.0.0.1:0").await;
        Self { child, folder, address }
    }

    async fn spawn(folder: &Path, listen: &str) -> (Child, String) {
        let mut child = Command::new(binary())
            .arg("--data")
            .arg(folder)
            .args(["--listen", listen])
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("walview-clickhouse starts; WALVIEW_CLICKHOUSE_BIN can name it");
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = tokio::time::timeout(Duration::from_secs(60), lines.next_line())
            .await
            .expect("walview-clickhouse says where it listens within a minute")
            .unwrap()
            .expect("walview-clickhouse starts");
        let address = line.rsplit("http://").next().unwrap().trim().to_owned();
        (child, address)
    }

    pub(super) async fn restart(&mut self) {
        self.child.kill().await.unwrap();
        let (child, address) = Self::spawn(self.folder.path(), &self.address).await;
        self.child = child;
        self.address = address;
    }

    pub(super) fn address(&self) -> String {
        self.address.clone()
    }
}

/// Beside the folder of the test binary, where `cargo build` puts it.
fn binary() -> PathBuf {
    if let Some(path) = std::env::var_os("WALVIEW_CLICKHOUSE_BIN") {
        return path.into();
    }
    let tests = std::env::current_exe().unwrap();
    tests.parent().and_then(Path::parent).unwrap().join("walview-clickhouse")
}
