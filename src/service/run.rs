//! The process around the pipelines: signals, HTTP, who runs where.

use super::PipelineError;
use super::board::{Board, Phase};
use super::patience::describe;
use super::pipeline::Runner;
use crate::cli::{Exit, RebuildArgs, RunArgs, ServeArgs};
use crate::config::{Environment, Pipeline, Problems, load_all};
use crate::http;
use crate::letters::Desk;
use crate::output::Output;
use crate::state::LocalStore;
use crate::status::Instance;
use metrics_exporter_prometheus::PrometheusBuilder;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// How often a pipeline that snapshots says how far it is.
const PROGRESS_EVERY: Duration = Duration::from_secs(2);

/// `walview run`.
pub async fn run(args: &RunArgs, environment: &Environment, output: Output) -> Exit {
    serve(&args.files, &args.state.state, args.serve, false, environment, output).await
}

/// `walview rebuild`: as `run`, from nothing.
pub async fn rebuild(args: &RebuildArgs, environment: &Environment, output: Output) -> Exit {
    let files = std::slice::from_ref(&args.file);
    serve(files, &args.state.state, args.serve, true, environment, output).await
}

async fn serve(
    files: &[PathBuf],
    state: &Path,
    args: ServeArgs,
    rebuild: bool,
    environment: &Environment,
    output: Output,
) -> Exit {
    let (stop, stopping) = watch::channel(false);
    let runners = match prepare(files, environment, args.outbox_max, &stopping) {
        Ok(runners) => runners,
        Err(problems) => {
            output.problems(&problems);
            return Exit::Failed;
        }
    };
    match serve_all(runners, state, args.http, rebuild, (stop, stopping), output).await {
        Ok(exit) => exit,
        Err(message) => {
            output.fault(&message);
            Exit::Failed
        }
    }
}

fn prepare(
    files: &[PathBuf],
    environment: &Environment,
    outbox_bytes_max: u64,
    stop: &watch::Receiver<bool>,
) -> Result<Vec<Runner>, Vec<Problems>> {
    let mut runners = Vec::new();
    let mut problems = Vec::new();
    for pipeline in load_all(files)? {
        match runner(pipeline, environment, outbox_bytes_max, stop) {
            Ok(runner) => runners.push(runner),
            Err(found) => problems.push(found),
        }
    }
    if problems.is_empty() { Ok(runners) } else { Err(problems) }
}

fn runner(
    pipeline: Pipeline,
    environment: &Environment,
    outbox_bytes_max: u64,
    stop: &watch::Receiver<bool>,
) -> Result<Runner, Problems> {
    let connections = pipeline.connect(environment)?;
    let source = connections.source.clone();
    let views: Vec<String> = pipeline.views.iter().map(|view| view.name.to_string()).collect();
    let stores: Vec<(String, String)> = pipeline
        .stores
        .iter()
        .map(|store| (store.name.to_string(), store.kind.as_str().to_owned()))
        .collect();
    let board =
        Arc::new(Board::new(pipeline.name.as_str(), &pipeline.slot_name(), &views, &stores));
    board.define(pipeline.definition_hash(&connections));
    let (desk, stop) = (Arc::new(Desk::default()), stop.clone());
    Ok(Runner { pipeline, connections, source, board, desk, outbox_bytes_max, stop })
}

async fn serve_all(
    runners: Vec<Runner>,
    state: &Path,
    address: SocketAddr,
    rebuild: bool,
    (stop, stopping): (watch::Sender<bool>, watch::Receiver<bool>),
    output: Output,
) -> Result<Exit, String> {
    let (listener, bound) = http::bind(address).await.map_err(|error| {
        format!("cannot listen on {address}: {error}; name another address with --http")
    })?;
    let prometheus = PrometheusBuilder::new()
        .install_recorder()
        .map_err(|error| format!("cannot set up metrics: {error}"))?;
    let boards: Vec<Arc<Board>> = runners.iter().map(|runner| Arc::clone(&runner.board)).collect();
    let desks = runners
        .iter()
        .map(|runner| (runner.pipeline.name.to_string(), Arc::clone(&runner.desk)))
        .collect();
    let token = format!("{:032x}", rand::random::<u128>());
    output.progress(format!("status on http://{bound}/"));
    let mut service = JoinSet::new();
    service.spawn(http::serve(
        listener,
        http::Served { boards: boards.clone(), desks, token: token.clone() },
        prometheus,
        stopping.clone(),
    ));
    service.spawn(progress(boards, output, stopping));

    let mut pipelines = JoinSet::new();
    for runner in runners {
        let name = runner.pipeline.name.to_string();
        let folder = state.join(&name);
        let instance = Instance { pid: std::process::id(), http: bound };
        let token = token.clone();
        let board = Arc::clone(&runner.board);
        pipelines.spawn(async move {
            let ran = run_one(runner, &folder, (&instance, &token), rebuild).await;
            if let Err(error) = &ran {
                board.stopped(&describe(error));
            }
            (name, ran)
        });
    }
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
    let mut exit = Exit::Ok;
    loop {
        tokio::select! {
            ended = pipelines.join_next() => match ended {
                Some(Ok((name, ran))) => {
                    if !report(&name, ran, output) {
                        exit = Exit::Failed;
                    }
                }
                Some(Err(error)) => {
                    output.fault(&format!("a pipeline failed: {error}"));
                    exit = Exit::Failed;
                }
                None => break,
            },
            _ = terminate.recv() => {
                stop.send_replace(true);
            },
            _ = interrupt.recv() => {
                stop.send_replace(true);
            },
        }
    }
    stop.send_replace(true);
    service.shutdown().await;
    Ok(exit)
}

async fn run_one(
    runner: Runner,
    folder: &Path,
    (instance, token): (&Instance, &str),
    rebuild: bool,
) -> Result<(), PipelineError> {
    let (file, token_file) = (folder.join("instance.json"), folder.join("token"));
    let write = |error: std::io::Error| {
        PipelineError::refused(
            format!("cannot write \"{}\": {error}", file.display()),
            "name a folder that can be written with --state",
        )
    };
    tokio::fs::create_dir_all(folder).await.map_err(write)?;
    // Whoever holds the store wrote the files that lead to it.
    let local = LocalStore::open(&folder.join("store"))?;
    let text = serde_json::to_string(instance).map_err(|e| write(std::io::Error::other(e)))?;
    write_whole(&token_file, token, 0o600).await.map_err(write)?;
    write_whole(&file, &text, 0o644).await.map_err(write)?;
    // The future is large; it lives on the heap once, not in every caller.
    let ran = Box::pin(runner.run(local, rebuild)).await;
    // Gone or not, the next start writes it anew.
    tokio::fs::remove_file(&file).await.ok();
    tokio::fs::remove_file(&token_file).await.ok();
    match ran {
        Err(PipelineError::Stopping) => Ok(()),
        ran => ran,
    }
}

/// Writes a file that readers find whole, or not at all.
async fn write_whole(file: &Path, text: &str, mode: u32) -> std::io::Result<()> {
    use tokio::io::AsyncWriteExt as _;
    let new = file.with_extension("new");
    // An older one keeps the mode that it has.
    match tokio::fs::remove_file(&new).await {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = tokio::fs::OpenOptions::new();
    let mut written = options.write(true).create_new(true).mode(mode).open(&new).await?;
    written.write_all(text.as_bytes()).await?;
    written.flush().await?;
    tokio::fs::rename(&new, file).await
}

/// Whether the pipeline ended well; says why where it did not.
fn report(name: &str, ran: Result<(), PipelineError>, output: Output) -> bool {
    match ran {
        Ok(()) => true,
        Err(PipelineError::Problems(problems)) => {
            output.problems(&[problems]);
            false
        }
        Err(error) => {
            output.fault(&format!("pipeline \"{name}\" stopped: {}", describe(&error)));
            false
        }
    }
}

/// Says how far snapshots are, for people who watch the start.
async fn progress(
    boards: Vec<Arc<Board>>,
    output: Output,
    mut stop: watch::Receiver<bool>,
) -> std::io::Result<()> {
    let mut phases = vec![Phase::Starting; boards.len()];
    loop {
        for (board, last) in boards.iter().zip(&mut phases) {
            let status = board.status();
            if let Some(snapshot) = &status.snapshot {
                output.progress(format!("{}: {}", status.pipeline, snapshot.text()));
            }
            if status.state != *last {
                *last = status.state;
                if status.state == Phase::Live {
                    output.progress(format!("{}: live", status.pipeline));
                }
            }
        }
        tokio::select! {
            () = tokio::time::sleep(PROGRESS_EVERY) => {}
            _ = stop.wait_for(|stop| *stop) => return Ok(()),
        }
    }
}
