//! The source against a real PostgreSQL: one throw-away server per test.

#![expect(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    clippy::disallowed_methods,
    clippy::unused_io_amount,
    reason = "a test fails by panicking"
)]

mod catalog;
mod handover;
mod privileges;
mod publication;
mod refusals;
mod server;
mod slot;
mod stream;
mod tls;

use super::config::{SourceConfig, TlsMode};
use super::{Session, SourceError, connect, snapshot};
use server::Server;
use std::time::Duration;
use tokio::sync::mpsc;
use walview_core::catalog::Table;
use walview_core::position::Lsn;
use walview_core::value::Row;

/// A plain connection to `database` as `user`.
fn config(server: &Server, user: &str, database: &str) -> SourceConfig {
    SourceConfig {
        host: "127.0.0.1".to_owned(),
        port: server.port,
        user: user.to_owned(),
        password: None,
        database: database.to_owned(),
        tls: TlsMode::Disable,
        schema: "public".to_owned(),
        connect_timeout: Duration::from_secs(10),
        pipeline: "test".to_owned(),
    }
}

fn superuser(server: &Server) -> SourceConfig {
    config(server, "postgres", "postgres")
}

/// A session of the application, so not named as ours are.
async fn application(server: &Server) -> Session {
    let config = SourceConfig { pipeline: "application".to_owned(), ..superuser(server) };
    connect(&config).await.unwrap()
}

async fn run(session: &Session, sql: &str) {
    session.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
}

async fn lsn(session: &Session, sql: &str) -> Lsn {
    session.query_one(sql, &[]).await.unwrap().get::<_, String>(0).parse().unwrap()
}

/// All rows of a snapshot.
async fn copy(config: &SourceConfig, snapshot: &str, table: &Table, columns: &[usize]) -> Vec<Row> {
    try_copy(config, snapshot, table, columns).await.unwrap()
}

async fn try_copy(
    config: &SourceConfig,
    snapshot: &str,
    table: &Table,
    columns: &[usize],
) -> Result<Vec<Row>, SourceError> {
    let (sender, mut chunks) = mpsc::channel(2);
    let copying = snapshot::copy_table(config, snapshot, table, columns, sender);
    let receiving = async {
        let mut rows = Vec::new();
        while let Some(chunk) = chunks.recv().await {
            assert!(chunk.bytes < snapshot::CHUNK_BYTES * 2);
            rows.extend(chunk.rows);
        }
        rows
    };
    let (copied, rows) = tokio::join!(copying, receiving);
    assert_eq!(copied?.rows, u64::try_from(rows.len()).unwrap());
    Ok(rows)
}

/// The error of something that must fail.
fn refusal<T>(result: Result<T, SourceError>) -> SourceError {
    result.err().unwrap_or_else(|| panic!("this should have been refused"))
}

#[track_caller]
fn assert_says(error: &SourceError, parts: &[&str]) {
    let text = error.to_string();
    for part in parts {
        assert!(text.contains(part), "{part:?} is missing in: {text}");
    }
    // Shown by `--nocapture`, where a reader judges the whole sentence.
    eprintln_message(&text);
}

fn eprintln_message(text: &str) {
    eprintln!("  says: {text}");
}

/// Waits for a state, never for a time; the limit is for a test that fails.
async fn until<F: Future<Output = bool>>(what: &str, mut reached: impl FnMut() -> F) {
    let limit = tokio::time::Instant::now() + Duration::from_secs(30);
    while !reached().await {
        assert!(tokio::time::Instant::now() < limit, "never came: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
