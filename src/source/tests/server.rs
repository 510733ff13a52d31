//! Starts a PostgreSQL in a temporary folder and ends it with the test.

use crate::config::Environment;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

pub(super) struct Server {
    pub(super) port: u16,
    pub(super) dir: TempDir,
    /// The server's major version: `make test-matrix` runs these tests on each.
    pub(super) major: u32,
    child: Child,
}

/// PostgreSQL refuses to run as root.
fn account() -> Option<(u32, u32)> {
    let me = fs::read_to_string("/proc/self/status").unwrap();
    let root = me.lines().any(|line| line.starts_with("Uid:\t0\t"));
    let passwd = fs::read_to_string("/etc/passwd").unwrap();
    let line = passwd.lines().find(|line| line.starts_with("postgres:")).filter(|_| root)?;
    let mut ids = line.split(':').skip(2).map(|id| id.parse().unwrap());
    ids.next().zip(ids.next())
}

/// The programs of `WALVIEW_POSTGRES`, or the newest installed ones; the latter also where a build
/// has no clients of its own.
fn bin(name: &str) -> PathBuf {
    let given = Environment::Process.get("WALVIEW_POSTGRES").ok().map(PathBuf::from);
    if let Some(given) = given.map(|folder| folder.join(name)).filter(|program| program.is_file()) {
        return given;
    }
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = versions.map(|entry| entry.path().join("bin").join(name)).max();
    newest.unwrap_or_else(|| PathBuf::from(name))
}

fn command(name: &str) -> Command {
    let mut command = Command::new(bin(name));
    if let Some((user, group)) = account() {
        command.uid(user).gid(group);
    }
    command.stdin(Stdio::null());
    command
}

fn major() -> u32 {
    let printed = command("postgres").arg("--version").output().unwrap().stdout;
    let printed = String::from_utf8(printed).unwrap();
    let number = printed.trim_start_matches(|c: char| !c.is_ascii_digit());
    number.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap()
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Anybody may come in, but the roles "secured", "hashed" and "clear" need their passwords, in a way
/// of their own each, and "tls_only" needs TLS.
const HBA: &str = "
host all secured all scram-sha-256
host all hashed all md5
host all clear all password
hostnossl all tls_only all reject
host all all all trust
local all all trust
";

impl Server {
    pub(super) fn start(settings: &[&str]) -> Self {
        Self::prepared(settings, &[], |_data| {})
    }

    /// `prepare` may put files into the data folder before the start.
    pub(super) fn prepared(settings: &[&str], init: &[&str], prepare: impl FnOnce(&Path)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        if let Some((user, group)) = account() {
            chown(dir.path(), Some(user), Some(group)).unwrap();
        }
        let made = command("initdb")
            .args(["-A", "trust", "-U", "postgres", "--no-sync", "--locale=C", "-E", "UTF8"])
            .args(init)
            .arg("-D")
            .arg(&data)
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        fs::write(data.join("pg_hba.conf"), HBA).unwrap();
        prepare(&data);
        let port = free_port();
        let log = fs::File::create(dir.path().join("log")).unwrap();
        let mut start = command("postgres");
        start.arg("-D").arg(&data).arg("-k").arg(dir.path());
        let fixed = ["fsync=off", "listen_addresses=127.0.0.1", "wal_level=logical"];
        for setting in fixed.iter().chain(settings) {
            start.args(["-c", setting]);
        }
        let child = start.args(["-p", &port.to_string()]).stderr(log).stdout(Stdio::null()).spawn();
        let mut server = Self { port, dir, major: major(), child: child.unwrap() };
        server.wait_ready();
        server
    }

    fn wait_ready(&mut self) {
        let limit = Instant::now() + Duration::from_secs(60);
        loop {
            let ready = command("pg_isready")
                .args(["-q", "-h", "127.0.0.1", "-p", &self.port.to_string()])
                .status()
                .unwrap();
            if ready.success() {
                return;
            }
            let ended = self.child.try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < limit, "{}", self.log());
        }
    }

    pub(super) fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    /// Stops or continues the postmaster and all its children, as `kill` names the signals.
    pub(super) fn signal_all(&self, signal: &str) {
        let parent = self.child.id().to_string();
        let children = Command::new("pgrep").args(["-P", &parent]).output().unwrap();
        let pids = String::from_utf8_lossy(&children.stdout).into_owned();
        let pids = std::iter::once(parent.as_str()).chain(pids.split_whitespace());
        Command::new("kill").arg(signal).args(pids).status().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // SIGINT is PostgreSQL's fast shutdown; killing it would leave its children a moment longer.
        drop(Command::new("kill").args(["-INT", &self.child.id().to_string()]).status());
        let limit = Instant::now() + Duration::from_secs(10);
        while Instant::now() < limit {
            if matches!(self.child.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
