//! A server as a child process, killed when dropped.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long a state may take to come about.
const WAIT_MAX: Duration = Duration::from_secs(20);

pub(crate) struct Server {
    child: Child,
    stderr: Option<ChildStderr>,
    pub(crate) url: String,
}

/// An answer, read to its end.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: reqwest::header::HeaderMap,
    pub(crate) text: String,
}

pub(crate) fn command(data: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_walview-clickhouse"));
    command.arg("--data").arg(data).args(["--listen", "127.0.0.1:0"]);
    command
}

/// A server on a new folder, which lives as long as the returned guard.
pub(crate) fn start() -> (Server, TempDir) {
    let folder = TempDir::new().expect("a folder");
    (Server::start(folder.path(), &[]), folder)
}

impl Server {
    pub(crate) fn start(data: &Path, arguments: &[&str]) -> Self {
        let mut child = command(data)
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the binary starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("stdout");
        BufReader::new(stdout).read_line(&mut line).expect("a first line");
        let mut stderr = child.stderr.take().expect("stderr");
        let Some(url) = line.trim_end().strip_prefix("listening on ") else {
            let mut text = String::new();
            stderr.read_to_string(&mut text).expect("stderr");
            let status = child.wait().expect("its end");
            panic!("walview-clickhouse did not start ({status}): {text}");
        };
        Self { child, stderr: Some(stderr), url: url.to_owned() }
    }

    /// POSTs a statement; `query` is the address's part behind `?`.
    pub(crate) async fn post(&self, query: &str, body: impl Into<reqwest::Body>) -> Answer {
        let url = format!("{}/?{query}", self.url);
        let response = reqwest::Client::new().post(url).body(body).send().await.expect("an answer");
        Answer::read(response).await
    }

    /// The result of a statement that has to succeed.
    pub(crate) async fn ok(&self, sql: &str) -> String {
        let answer = self.post("", sql.to_owned()).await;
        assert_eq!(answer.status, 200, "{sql}: {}", answer.text);
        answer.text.trim_end().to_owned()
    }

    /// Asks until the answer is `expect`.
    pub(crate) async fn wait_for(&self, sql: &str, expect: &str) {
        let start = Instant::now();
        loop {
            let found = self.ok(sql).await;
            if found == expect {
                return;
            }
            assert!(start.elapsed() < WAIT_MAX, "{sql}: still {found}, not {expect}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) fn client(&self) -> clickhouse::Client {
        clickhouse::Client::default()
            .with_url(&self.url)
            .with_compression(clickhouse::Compression::None)
    }

    pub(crate) fn address(&self) -> &str {
        self.url.trim_start_matches("http://")
    }

    /// The most memory that the process has had, in MiB.
    pub(crate) fn peak_mib(&self) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).expect("its status");
        let line = status.lines().find(|line| line.starts_with("VmHWM")).expect("VmHWM");
        let kib = line.split_ascii_whitespace().nth(1).expect("a number");
        kib.parse::<u64>().expect("a number") >> 10
    }

    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let sent = Command::new("kill").args([name, &pid]).status().expect("kill runs");
        assert!(sent.success());
    }

    /// Waits for the end; the second value is what it wrote to stderr.
    pub(crate) async fn ended(mut self) -> (ExitStatus, String) {
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("its state") {
                break status;
            }
            assert!(start.elapsed() < WAIT_MAX, "it does not end");
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        let mut text = String::new();
        let mut stderr = self.stderr.take().expect("stderr");
        stderr.read_to_string(&mut text).expect("stderr");
        (status, text)
    }
}

impl Answer {
    pub(crate) async fn read(response: reqwest::Response) -> Self {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await.expect("a whole body");
        Self { status, headers, text }
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().expect("text")).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
