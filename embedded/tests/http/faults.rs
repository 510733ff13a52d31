//! Limits, broken clients, and the ends of a process.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};

use tempfile::TempDir;

use crate::process::{Server, command, start};

const TABLE: &str = "CREATE TABLE t (a UInt64) ENGINE = MergeTree ORDER BY a";
const RUNNING: &str = "SELECT count() FROM system.processes";
/// What passes through in the test of bounded memory; more than the process may take.
const BIG_MIB: u64 = 1024;
const PEAK_MIB_MAX: u64 = 900;

/// Begins an upload of rows and stops in the middle of one.
fn half_an_upload(server: &Server) -> TcpStream {
    let mut stream = TcpStream::connect(server.address()).expect("a connection");
    let head = "POST /?query=INSERT+INTO+t+FORMAT+CSV HTTP/1.1\r\nHost: x\r\n\
                Transfer-Encoding: chunked\r\n\r\n5\r\n1\n2\n3\r\n";
    stream.write_all(head.as_bytes()).expect("written");
    stream
}

#[tokio::test]
async fn an_upload_that_breaks_off_leaves_nothing() {
    let (server, _folder) = start();
    server.ok(TABLE).await;
    for how in [None, Some(Shutdown::Write)] {
        let stream = half_an_upload(&server);
        server.wait_for(RUNNING, "2").await;
        if let Some(how) = how {
            stream.shutdown(how).expect("half closed");
        } else {
            drop(stream);
        }
        server.wait_for(RUNNING, "1").await;
        assert_eq!(server.ok("SELECT count() FROM t").await, "0");
    }
    server.ok("INSERT INTO t VALUES (1)").await;
    assert_eq!(server.ok("SELECT count() FROM t").await, "1");
}

#[tokio::test]
async fn a_frozen_upload_ends() {
    let folder = TempDir::new().expect("a folder");
    let server = Server::start(folder.path(), &["--receive-timeout", "1"]);
    server.ok(TABLE).await;
    let mut stream = half_an_upload(&server);
    let answer = tokio::task::spawn_blocking(move || {
        let mut answer = [0; 16];
        stream.read_exact(&mut answer).expect("an answer");
        String::from_utf8_lossy(&answer).into_owned()
    });
    assert_eq!(answer.await.expect("read"), "HTTP/1.1 503 Ser");
    server.wait_for(RUNNING, "1").await;
    assert_eq!(server.ok("SELECT count() FROM t").await, "0");
}

#[tokio::test]
async fn a_reader_that_leaves_ends_its_query() {
    let (server, _folder) = start();
    let mut stream = TcpStream::connect(server.address()).expect("a connection");
    let head = "GET /?query=SELECT+number+FROM+system.numbers HTTP/1.1\r\nHost: x\r\n\r\n";
    stream.write_all(head.as_bytes()).expect("written");
    server.wait_for(RUNNING, "2").await;
    drop(stream);
    server.wait_for(RUNNING, "1").await;
}

#[tokio::test]
async fn memory_is_bounded_both_ways() {
    let folder = TempDir::new().expect("a folder");
    let server = Server::start(folder.path(), &["--memory-limit", "1GiB"]);
    server.ok("CREATE TABLE t (a String) ENGINE = Null").await;
    let piece = bytes::Bytes::from("0123456789abcde\n".repeat(1 << 16));
    let pieces = (0..BIG_MIB).map(move |_| Ok::<_, std::io::Error>(piece.clone()));
    let body = reqwest::Body::wrap_stream(futures_util::stream::iter(pieces));
    let answer = server.post("query=INSERT+INTO+t+FORMAT+TSV", body).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let rows = format!("\"written_rows\":\"{}\"", BIG_MIB << 16);
    assert!(answer.header("x-clickhouse-summary").contains(&rows), "{rows}");

    let sql = format!("SELECT repeat('x', 1023) FROM numbers({})", BIG_MIB << 10);
    let request = reqwest::Client::new().post(&server.url).body(sql);
    let mut response = request.send().await.expect("an answer");
    let mut length = 0;
    while let Some(chunk) = response.chunk().await.expect("a chunk") {
        length += chunk.len();
    }
    assert_eq!(u64::try_from(length), Ok(BIG_MIB << 20));
    assert!(server.peak_mib() < PEAK_MIB_MAX, "{} MiB", server.peak_mib());

    let answer = server.post("", "SELECT length(groupArray(number)) FROM numbers(500000000)").await;
    assert_eq!(answer.header("x-clickhouse-exception-code"), "241", "{}", answer.text);
}

#[tokio::test]
async fn rows_survive_kill_9() {
    let (server, folder) = start();
    server.ok("CREATE DATABASE d").await;
    server.ok("CREATE TABLE d.t (a UInt64) ENGINE = MergeTree ORDER BY a").await;
    server.ok("INSERT INTO d.t SELECT number FROM numbers(1000)").await;
    server.signal("-KILL");
    server.ended().await;
    let server = Server::start(folder.path(), &[]);
    assert_eq!(server.ok("SELECT count(), sum(a) FROM d.t").await, "1000\t499500");
}

#[tokio::test]
async fn sigterm_lets_statements_end() {
    let (server, folder) = start();
    let sql = "SELECT sum(sleepEachRow(0.1)) FROM numbers(10)";
    let request = reqwest::Client::new().post(&server.url).body(sql).send();
    let mut requests = tokio::task::JoinSet::new();
    requests.spawn(request);
    server.wait_for(RUNNING, "2").await;
    server.signal("-TERM");
    let answer = requests.join_next().await.expect("one").expect("ran").expect("an answer");
    assert_eq!(answer.text().await.expect("a body"), "0\n");
    let (status, log) = server.ended().await;
    assert_eq!(status.code(), Some(0), "{log}");
    Server::start(folder.path(), &[]).ok("SELECT 1").await;
}

#[tokio::test]
async fn sigint_does_not_wait_for_ever() {
    let folder = TempDir::new().expect("a folder");
    let server = Server::start(folder.path(), &["--grace", "1"]);
    server.ok(TABLE).await;
    server.ok("INSERT INTO t VALUES (1)").await;
    let _frozen = half_an_upload(&server);
    // The library's own exit handlers crash or hang under such statements.
    let mut busy = tokio::task::JoinSet::new();
    for sql in [
        "SELECT sum(sipHash64(number)) FROM numbers(100000000000)",
        "INSERT INTO FUNCTION null('a UInt64') SELECT number FROM system.numbers",
        "SELECT number FROM system.numbers",
    ] {
        let request = reqwest::Client::new().post(&server.url).body(sql);
        busy.spawn(request.send());
    }
    server.wait_for(RUNNING, "5").await;
    server.signal("-INT");
    let (status, log) = server.ended().await;
    assert_eq!(status.code(), Some(0), "{log}");
    let server = Server::start(folder.path(), &[]);
    assert_eq!(server.ok("SELECT * FROM t").await, "1");
}

#[test]
fn a_folder_has_one_process() {
    let (_server, folder) = start();
    let second = command(folder.path()).output().expect("it runs");
    assert_eq!(second.status.code(), Some(1));
    let text = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(text.contains("in use by another walview-clickhouse"), "{text}");
}

#[test]
fn a_missing_engine_names_the_remedy() {
    let folder = TempDir::new().expect("a folder");
    let library = folder.path().join("libchdb.so");
    let answer = command(folder.path()).arg("--lib").arg(library).output().expect("it runs");
    assert_eq!(answer.status.code(), Some(1));
    let text = String::from_utf8_lossy(&answer.stderr).into_owned();
    assert!(text.contains("run scripts/setup"), "{text}");
}
