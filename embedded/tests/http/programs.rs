//! Clients that are programs of their own: Python's, from the virtual environment that scripts/setup
//! makes, and `curl`.

use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::process::{Server, start};

/// Where the checks in `python/` pass through more than a GiB, the server must not hold it.
const PEAK_MIB_MAX: u64 = 900;

/// Runs the checks of a script. Without the packages it fails, and names scripts/setup.
fn run_checks(script: &str, server: &Server) {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let output = Command::new(format!("{root}/scripts/python/run"))
        .arg(format!("{root}/embedded/tests/http/python/{script}"))
        .arg(&server.url)
        .output()
        .expect("scripts/python/run starts");
    assert!(
        output.status.success(),
        "{script}:\n{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

#[test]
fn clickhouse_connect() {
    let folder = TempDir::new().expect("a folder");
    let server = Server::start(folder.path(), &["--memory-limit", "1GiB"]);
    run_checks("with_connect.py", &server);
    assert!(server.peak_mib() < PEAK_MIB_MAX, "{} MiB", server.peak_mib());
}

#[test]
fn clickhouse_sqlalchemy() {
    let (server, _folder) = start();
    run_checks("with_sqlalchemy.py", &server);
}

#[test]
fn curl() {
    let (server, _folder) = start();
    let curl = |arguments: &[&str]| {
        let output = Command::new("curl")
            .args(["--silent", "--show-error", "--fail-with-body"])
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .expect("curl starts: scripts/setup installs it");
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let url = server.url.as_str();
    let user = server.url.replace("http://", "http://default:@");
    let yes = |text: &str| (true, text.to_owned());
    assert_eq!(curl(&[&format!("{url}/ping")]), yes("Ok.\n"));
    assert_eq!(curl(&[url, "--data-binary", "SELECT 1 + 1"]), yes("2\n"));
    assert_eq!(curl(&[&format!("{user}/?query=SELECT%201")]), yes("1\n"));
    let table = "CREATE TABLE t (a Int64, b String) ENGINE = MergeTree ORDER BY a";
    assert_eq!(curl(&[url, "-d", table]), yes(""));
    let insert = format!("{url}/?query=INSERT+INTO+t+FORMAT+CSV");
    assert_eq!(curl(&[&insert, "--data-binary", "1,x\n2,it's\n"]), yes(""));
    let select = "SELECT * FROM t WHERE a > {low:Int64} ORDER BY a FORMAT JSONEachRow";
    let named = format!("{url}/?param_low=1");
    assert_eq!(curl(&[&named, "-d", select]), yes("{\"a\":2,\"b\":\"it's\"}\n"));
    // A form, and an answer that the client asks to be compressed.
    let form = ["-F", "query=SELECT {s:String}", "-F", "param_s=a b", "--compressed"];
    assert_eq!(curl(&[&[url], &form[..]].concat()), yes("a b\n"));
    let (well, text) = curl(&[url, "-d", "SELECT * FROM nope"]);
    assert!(!well && text.starts_with("Code: 60. DB::Exception: "), "{text}");
}
