//! The hot path alone: decoded messages through the engine into the local store, without servers.
//!
//! ```text
//!  cargo bench --bench engine -- [CHANGES [PASS]]
//!      pgoutput messages (made here) ─► EngineLoop ─► local store, feeds (acknowledged at once)
//! ```
//!
//! What it prints is the engine's own CPU a change, background threads of the local store included.
//! `bench/run instructions` runs it under callgrind, for counts that repeat.

#![expect(clippy::print_stdout, reason = "figures")]

mod log;
mod process;

use anyhow::{Context as _, Result};
use log::{Log, betting};
use process::cpu_seconds;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use walview::service::PipelineError;
use walview::service::board::Board;
use walview::service::engine_loop::{EngineLoop, Input, Outlet};
use walview::service::feed::{Feed, Frontier, Taken};
use walview::service::schema::Schema;
use walview::source::fingerprint::Fingerprint;
use walview::source::stream::{Event, Gulp};
use walview::state::{LocalStore, Progress};
use walview_core::engine::Engine;
use walview_core::position::Lsn;

const GULP_BYTES: usize = 1 << 20;

/// As in the program.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let changes = arguments.next().map_or(Ok(200_000_u64), |argument| argument.parse())?;
    let only = arguments.next().unwrap_or_default();
    let folder = tempfile::tempdir()?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let mut bench = Bench::new(folder.path())?;
    let mut log = Log::default();
    bench.pass(&runtime, "dimensions", log.dimensions())?;
    type Pass = (&'static str, fn(&mut Log, u64) -> Vec<Event>);
    let passes: [Pass; 3] = [
        ("inserts, 10 rows a transaction", |log, changes| log.inserts(changes, 10)),
        ("mixed, 1 row a transaction", |log, changes| log.mixed(changes, 1)),
        ("inserts, one transaction", |log, changes| log.inserts(changes, changes)),
    ];
    for (what, events) in passes.iter().filter(|(what, _)| what.contains(&only)) {
        bench.pass(&runtime, what, events(&mut log, changes))?;
    }
    println!("peak memory {} MiB", peak_kib()? >> 10);
    Ok(())
}

struct Bench {
    engine: Option<EngineLoop>,
    feeds: Vec<Arc<Feed>>,
}

impl Bench {
    fn new(folder: &Path) -> Result<Self> {
        let (pipeline, catalog, bound) = betting()?;
        let stores = pipeline.stores.len();
        let engine = Engine::new(bound.layout, bound.targets, stores, 1);
        let store = LocalStore::open(folder)?;
        let progress = Progress {
            outbox_end: vec![0; stores],
            pruned: vec![String::new(); stores],
            ..Progress::default()
        };
        let frontier = Frontier::default();
        let feeds: Vec<Arc<Feed>> = (0..stores)
            .map(|index| {
                Arc::new(Feed::new((index, false), store.outbox(), (0, None), (0, 0), frontier))
            })
            .collect();
        let outlets = feeds
            .iter()
            .map(|feed| Outlet { feed: Arc::clone(feed), window: Duration::ZERO })
            .collect();
        let views: Vec<String> =
            pipeline.views.iter().map(|view| view.name.as_str().to_owned()).collect();
        let board = Arc::new(Board::new("betting", "slot", &views, &[]));
        let schema = Schema::new(
            (Fingerprint::default(), Vec::new()),
            vec![Vec::new(); pipeline.views.len()],
        );
        let engine = EngineLoop::new(
            engine,
            store,
            progress,
            (catalog, schema),
            (outlets, u64::MAX),
            board,
            Arc::new(Mutex::new(Vec::new())),
        );
        Ok(Self { engine: Some(engine), feeds })
    }

    /// `bench/run instructions` counts from one call to the next.
    #[inline(never)]
    fn pass(
        &mut self,
        runtime: &tokio::runtime::Runtime,
        what: &str,
        events: Vec<Event>,
    ) -> Result<()> {
        let changes = events.iter().filter(|event| matches!(event, Event::Data(_))).count();
        let (inputs, mut received) = mpsc::channel(4);
        let (confirm, _confirmed) = watch::channel(Lsn(0));
        let mut engine = self.engine.take().context("an engine")?;
        let handle = runtime.handle().clone();
        let (cpu, wall) = (cpu_seconds("self")?, Instant::now());
        let working = std::thread::spawn(move || {
            let ran = counted(&mut engine, &handle, (&mut received, &confirm));
            (engine, ran)
        });
        let done = Arc::new(AtomicBool::new(false));
        let stores: Vec<_> = self
            .feeds
            .iter()
            .map(|feed| acknowledge(runtime.handle().clone(), Arc::clone(feed), Arc::clone(&done)))
            .collect();
        for gulp in gulps(events) {
            inputs.blocking_send(Input::Gulp(gulp)).ok();
        }
        drop(inputs);
        let (engine, ran) =
            working.join().map_err(|_refused| anyhow::anyhow!("the engine panicked"))?;
        ran?;
        done.store(true, Ordering::Relaxed);
        let mut bytes = 0;
        for store in stores {
            bytes += store.join().map_err(|_refused| anyhow::anyhow!("a feed panicked"))?;
        }
        self.engine = Some(engine);
        let (cpu, wall) = (cpu_seconds("self")? - cpu, wall.elapsed());
        #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
        let changes = changes as f64;
        println!(
            "{what}: {:.2} µs of CPU a change, {:.0} changes/s, {:.0} bytes of operations",
            cpu * 1e6 / changes,
            changes / wall.as_secs_f64(),
            bytes as f64 / changes
        );
        Ok(())
    }
}

/// What `bench/run instructions` counts, by this name: of the engine's own code, the linker may leave
/// no function whole.
#[inline(never)]
fn counted(
    engine: &mut EngineLoop,
    runtime: &Handle,
    (inputs, confirmed): (&mut mpsc::Receiver<Input>, &watch::Sender<Lsn>),
) -> Result<(), PipelineError> {
    engine.run(runtime, inputs, confirmed)
}

/// A store that has everything at once.
fn acknowledge(
    runtime: Handle,
    feed: Arc<Feed>,
    done: Arc<AtomicBool>,
) -> std::thread::JoinHandle<usize> {
    std::thread::spawn(move || {
        let (mut next, mut bytes) = (feed.end(), 0);
        loop {
            match runtime.block_on(feed.take(next, 4 << 20)) {
                Ok(Taken::Records(records)) if !records.is_empty() => {
                    if let Some(last) = records.last() {
                        next = next.behind(last.seq);
                        feed.applied(next, last.to);
                    }
                    bytes += records.iter().map(|record| record.ops.len()).sum::<usize>();
                }
                _ if done.load(Ordering::Relaxed) => return bytes,
                _ => std::thread::park_timeout(Duration::from_millis(2)),
            }
        }
    })
}

fn gulps(events: Vec<Event>) -> impl Iterator<Item = Gulp> {
    let mut events = events.into_iter().peekable();
    std::iter::from_fn(move || {
        let mut gulp = Gulp::default();
        while gulp.bytes < GULP_BYTES {
            let Some(event) = events.next() else { break };
            gulp.bytes += if let Event::Data(data) = &event { data.len() + 64 } else { 64 };
            gulp.events.push(event);
        }
        (!gulp.events.is_empty()).then_some(gulp)
    })
}

/// The largest resident set of this process, the log that was made up included.
fn peak_kib() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
