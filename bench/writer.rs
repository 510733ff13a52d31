//! What a change costs Redis and its writer: `cargo bench --bench writer -- [CHANGES [PASS]]`.
//!
//! ```text
//!  pgoutput messages (made here) ─► engine, a state in memory ─► records ─► Store::apply ─► redis-server
//!                                                                               └── measured ──┘
//! ```
//!
//! Batches are as many transactions as a writer finds that is so far behind. CPU is user and
//! system time by the kernel's count, so it means something on a busy machine, too; of what
//! redis-server forks to write its log anew it is not. The pid printed is for `perf record -p`.

#![expect(clippy::print_stdout, reason = "figures")]

mod log;
mod memory;
mod process;

use anyhow::{Context as _, Result};
use log::Log;
use memory::Betting;
use process::cpu_seconds;
use std::sync::Arc;
use walview::demo::servers::TempHome;
use walview::demo::servers::redis::{Persistence, Redis as Server};
use walview::source::stream::Event;
use walview::stores::redis::{Config, Redis};
use walview::stores::{Batch, Identity, Store as _};
use walview_core::engine::TargetKind;
use walview_core::outbox::Record;
use walview_core::position::Position;

/// As in the program.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Transactions together, and rows in each.
const PASSES: [(usize, u64); 5] = [(30, 10), (250, 10), (1_000, 10), (64, 1), (2_500, 1)];
/// The pipeline's store.
const REDIS: usize = 0;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let changes = arguments.next().map_or(Ok(200_000_u64), |argument| argument.parse())?;
    let only = arguments.next().unwrap_or_default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(passes(changes, &only))
}

async fn passes(changes: u64, only: &str) -> Result<()> {
    let home = TempHome::new("walview-bench-")?;
    let server = Server::start(&home.redis(), &home.log("redis"), Persistence::AppendOnly).await?;
    let pid = server.server.pid()?;
    println!("redis-server is process {pid}");
    let mut bench = Bench::new(&server).await?;
    let mut log = Log::default();
    let dimensions = bench.records(&log.dimensions())?;
    bench.apply(dimensions, 64).await?;
    for (together, rows) in PASSES {
        for (what, made) in [
            ("inserts", Log::inserts as fn(&mut Log, u64, u64) -> Vec<Event>),
            ("mixed", Log::mixed),
        ] {
            let name = format!("{what}, {rows} a transaction, {together} together");
            if !name.contains(only) {
                continue;
            }
            let records = bench.records(&made(&mut log, changes, rows))?;
            let (own, redis) = (cpu_seconds("self")?, cpu_seconds(&pid.to_string())?);
            bench.apply(records, together).await?;
            let (own, redis) = (cpu_seconds("self")? - own, cpu_seconds(&pid.to_string())? - redis);
            #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
            let each = |seconds: f64| seconds * 1e6 / changes as f64;
            println!(
                "{name}: CPU a change, redis-server {:.2} µs, writer {:.2} µs",
                each(redis),
                each(own)
            );
        }
    }
    Ok(())
}

struct Bench {
    betting: Betting,
    store: Redis,
    seq: u64,
    at: Position,
}

impl Bench {
    async fn new(server: &Server) -> Result<Self> {
        let betting = Betting::new()?;
        let targets = betting.engine.targets().iter().filter(|target| target.store == REDIS);
        let targets = targets.filter_map(|target| match &target.kind {
            TargetKind::Redis(kind) => Some(kind.clone()),
            TargetKind::ClickHouse(_) => None,
        });
        let identity =
            Identity { pipeline: "betting".to_owned(), system: 1, slot: "slot".to_owned() };
        let config = Config { url: server.url(), identity, accept_eviction: false };
        let mut store = Redis::new(config, targets.collect());
        let at = Position::default();
        store.connect().await?;
        store.reset().await?;
        store.set_mark(at).await?;
        Ok(Self { betting, store, seq: 0, at })
    }

    fn records(&mut self, events: &[Event]) -> Result<Vec<Arc<Record>>> {
        let mut records = Vec::new();
        for event in events {
            let parts = self.betting.take(event)?;
            for part in parts.into_iter().filter(|part| part.store == REDIS) {
                records.push(Arc::new(Record {
                    seq: self.seq,
                    to: part.to,
                    complete: part.complete,
                    committed_at: part.committed_at,
                    ends: part.ends,
                    ops: part.ops,
                }));
                self.seq += 1;
            }
        }
        Ok(records)
    }

    async fn apply(&mut self, records: Vec<Arc<Record>>, together: usize) -> Result<()> {
        for records in records.chunks(together) {
            let last = records.last().context("a record")?;
            let batch = Batch {
                from: self.at,
                to: last.to,
                complete: last.complete,
                committed_at: last.committed_at,
                records: records.to_vec(),
            };
            self.store.apply(&batch).await?;
            self.at = last.to;
        }
        Ok(())
    }
}
