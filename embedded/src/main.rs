//! `walview-clickhouse`: ClickHouse's engine behind ClickHouse's HTTP interface, so that the demo and
//! the tests need no server. For three clients: the crate `clickhouse`, Python's
//! `clickhouse-connect`, `curl`; `clickhouse-sqlalchemy` works too, over HTTP. Not for production: it knows no users and no TLS.
//!
//! ```text
//! client ── HTTP ──> server ──> request (what is asked) ──> sql (where do rows begin)
//!                      │ permit, thread
//!                      └──> execute ──> engine (libchdb.so) ──> format (join blocks) ──> answer
//! ```
//!
//! Invariants:
//! - One process per data folder, by a lock that dies with the process.
//! - Nothing of unbounded size is held: rows of an insert and blocks of a result pass through
//!   bounded channels; statements, forms and results in one piece have limits.
//! - A statement's settings, parameters and database end with it.
//! - SIGTERM: stop listening, let statements end (`--grace`), close the engine, exit 0.

mod answer;
mod body;
mod cli;
mod engine;
mod execute;
mod format;
#[cfg(test)]
mod fuzz;
mod request;
mod server;
mod sql;

use std::fs::{File, TryLockError};
use std::io::{IsTerminal as _, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use axum::serve::ListenerExt as _;
use clap::Parser as _;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, oneshot};
use tracing_subscriber::EnvFilter;

use answer::Identity;
use cli::Cli;
use engine::{Connection, Engine};
use server::Server;

const LOCK_FILE: &str = "walview-clickhouse.lock";
/// Part of the memory limit that one statement may take.
const STATEMENT_SHARE: u64 = 2;
/// Part of the memory limit for a result in one piece, counted before formatting; as JSON it grows
/// some ten times.
const WHOLE_RESULT_SHARE: u64 = 64;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Without the backtrace that `Debug` would add: each message names its remedy.
            let mut stderr = std::io::stderr();
            if writeln!(stderr, "walview-clickhouse: {error:#}").is_err() {
                return ExitCode::from(2);
            }
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_unset| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_env_filter(filter)
        .init();
    if cli.check {
        let engine = Engine::load(&cli.library(), Path::new(""), &[])?;
        writeln!(std::io::stdout(), "engine {}", engine.library_version())?;
        return Ok(());
    }
    let data = cli.data.clone().context("--data is missing")?;
    std::fs::create_dir_all(&data)
        .with_context(|| format!("cannot make \"{}\"", data.display()))?;
    let _lock = lock(&data)?;
    let limit = cli.memory_limit;
    let mut settings = vec![
        format!("--max_server_memory_usage={limit}"),
        format!("--max_memory_usage={}", limit / STATEMENT_SHARE),
        // Caches count as memory; the engine's defaults are for machines of their own.
        format!("--mark_cache_size={}", limit / 16),
        format!("--uncompressed_cache_size={}", limit / 16),
    ];
    if let Some(config) = &cli.config {
        settings.push(format!("--config-file={}", config.display()));
    }
    let engine = Arc::new(Engine::load(&cli.library(), &data, &settings)?);
    // Held to the end: the engine lives as long as a connection does.
    let mut anchor = engine.connect()?;
    let identity = identify(&engine, &mut anchor)?;
    tracing::info!(version = identity.version, data = %data.display(), "engine is open");

    let queries_max = usize::from(cli.queries_max);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(2 * queries_max + 4)
        .enable_all()
        .build()?;
    let server = Arc::new(Server {
        engine: Arc::clone(&engine),
        identity,
        permits: Arc::new(Semaphore::new(queries_max)),
        decoders: Arc::new(Semaphore::new(queries_max)),
        whole_result_bytes_max: limit / WHOLE_RESULT_SHARE,
        receive_pause_max: Duration::from_secs(cli.receive_timeout),
    });
    let ended = runtime.block_on(serve(&cli, Arc::clone(&server)))?;
    if ended {
        drop(anchor);
        runtime.shutdown_timeout(Duration::from_secs(1));
        if !engine.shutdown() {
            // 26.7 refuses once a MergeTree table was opened, although no connection is left.
            tracing::debug!("the engine leaves its threads to the end of the process");
        }
        tracing::info!("engine is closed");
    } else {
        tracing::warn!(grace = cli.grace, "statements still ran at the end of the grace period");
    }
    // Not a return: the runtime's end would wait for threads that are still in the engine.
    engine::leave(0)
}

/// Serves until a signal. True when every statement has ended.
async fn serve(cli: &Cli, server: Arc<Server>) -> anyhow::Result<bool> {
    let listener = TcpListener::bind(cli.listen)
        .await
        .with_context(|| format!("cannot listen on {}", cli.listen))?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let address = listener.local_addr()?;
    // A result's end is a small packet of its own: Nagle's algorithm would hold it for 40 ms.
    let listener = listener.tap_io(|stream| {
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "cannot set TCP_NODELAY");
        }
    });
    let mut stdout = std::io::stdout();
    writeln!(stdout, "listening on http://{address}")?;
    stdout.flush()?;

    let permits = Arc::clone(&server.permits);
    let (stop, stopped) = oneshot::channel();
    let serving =
        axum::serve(listener, server::router(server)).with_graceful_shutdown(async move {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            tracing::info!(signal = name, "stopping");
            if stop.send(()).is_err() {
                tracing::debug!("nobody waits for the signal");
            }
        });
    let grace = async {
        stopped.await.is_ok().then_some(())?;
        tokio::time::sleep(Duration::from_secs(cli.grace)).await;
        Some(())
    };
    tokio::select! {
        served = serving => served?,
        Some(()) = grace => {}
    }
    Ok(permits.try_acquire_many(u32::from(cli.queries_max)).is_ok())
}

/// Taken before the engine opens the folder: two engines on one folder would destroy each other's
/// parts. The lock is the kernel's, so kill -9 leaves none behind.
fn lock(data: &Path) -> anyhow::Result<File> {
    let path = data.join(LOCK_FILE);
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .with_context(|| format!("cannot open \"{}\"", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => bail!(
            "\"{}\" is in use by another walview-clickhouse: stop it or give another --data",
            data.display()
        ),
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("cannot lock \"{}\"", path.display()))
        }
    }
}

fn identify(engine: &Engine, connection: &mut Connection) -> anyhow::Result<Identity> {
    let answer = connection.query(b"SELECT version(), timezone()", "TabSeparated", &[])?;
    let line = String::from_utf8_lossy(answer.as_ref()).into_owned();
    let (version, timezone) =
        line.trim_end().split_once('\t').context("the engine has no version")?;
    Ok(Identity {
        version: version.to_owned(),
        library: engine.library_version(),
        timezone: timezone.to_owned(),
    })
}
