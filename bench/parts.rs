//! The steps of a change, one by one: `cargo bench --bench parts`.
//!
//! ```text
//!  pgoutput ── decode ──► RowChange ── evaluate, render ──► operations ── outbox ──► disk
//!                                        └── state: point reads        └── cells ──► Arrow
//! ```

use anyhow::{Context as _, Result};
use bytes::Bytes;
use criterion::{Criterion, Throughput};
use log::{BETS_OID, Log};
use memory::Betting;
use std::hint::black_box;
use walview::source::stream::Event;
use walview::state::{LocalStore, Progress};
use walview_core::engine::{ReadState as _, RowChange, Space, State as _, TargetKind};
use walview_core::outbox::Record;
use walview_core::pgoutput;
use walview_core::position::{Lsn, Position};
use walview_core::target::clickhouse::OpRef;

mod log;
mod memory;

/// As in the program.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const MESSAGES: u64 = 3_000;
/// Keys of the state that point reads meet.
const KEYS: u32 = 100_000;
/// Records of a local commit, and bytes of operations in each: an insert into betting's tables.
const RECORDS: u64 = 1_000;
const RECORD_BYTES: usize = 600;

fn main() -> Result<()> {
    let mut criterion = Criterion::default().configure_from_args();
    Steps::new()?.steps(&mut criterion)?;
    state(&mut criterion)?;
    outbox(&mut criterion)?;
    criterion.final_summary();
    Ok(())
}

/// Betting's views, their dimensions loaded.
struct Steps {
    betting: Betting,
    bets: usize,
    /// Messages about bets: one that is placed first.
    messages: Vec<Bytes>,
}

impl Steps {
    fn new() -> Result<Self> {
        let mut betting = Betting::new()?;
        let mut log = Log::default();
        for event in log.dimensions() {
            betting.take(&event)?;
        }
        let messages = data(log.inserts(1, 1)).chain(data(log.mixed(MESSAGES, 1))).collect();
        let bets = betting.layout.table_by_oid(BETS_OID).context("bets")?;
        Ok(Self { betting, bets, messages })
    }

    fn decode(&self, message: &[u8]) -> Option<RowChange> {
        let message = pgoutput::decode(message).ok()?;
        let mut found = None;
        let keep = |_, change| {
            found = Some(change);
            Ok(())
        };
        let Betting { relations, layout, .. } = &self.betting;
        relations.changes(layout, &message, keep).ok()?;
        found
    }

    /// What the transaction brings ClickHouse, which is the pipeline's second store.
    fn end(&mut self) -> Vec<u8> {
        let parts = self.betting.end().unwrap_or_default();
        parts.iter().filter(|part| part.store == 1).flat_map(|part| part.ops.to_vec()).collect()
    }

    fn steps(&mut self, criterion: &mut Criterion) -> Result<()> {
        let placed = self.messages.iter().find_map(|message| self.decode(message));
        let change = placed.context("a bet")?;
        let RowChange::Insert { new } = change.clone() else { anyhow::bail!("no insert") };
        let gone = RowChange::Delete { old: new };
        let mut group = criterion.benchmark_group("decode");
        group.throughput(Throughput::Elements(MESSAGES));
        group.bench_function("bets of nine columns, placed and settled", |bench| {
            bench.iter(|| {
                for message in &self.messages {
                    black_box(self.decode(message));
                }
            });
        });
        group.finish();
        let mut lsn = 1 << 30;
        criterion.bench_function("evaluate, render: a bet comes and goes, eleven views", |bench| {
            bench.iter(|| {
                for change in [&change, &gone] {
                    lsn += 1;
                    let Betting { engine, state, .. } = &mut self.betting;
                    engine.begin(Lsn(lsn), 0, None);
                    engine.apply(state, self.bets, change.clone()).ok();
                    black_box(self.end());
                }
            });
        });
        let Betting { engine, state, .. } = &mut self.betting;
        engine.begin(Lsn(lsn + 1), 0, None);
        engine.apply(state, self.bets, change)?;
        let ops = self.end();
        let clickhouse = self.betting.engine.targets().iter().filter(|target| target.store == 1);
        let targets: Vec<_> = clickhouse
            .filter_map(|target| match &target.kind {
                TargetKind::ClickHouse(kind) => Some((target.number, kind)),
                TargetKind::Redis(_) => None,
            })
            .collect();
        criterion.bench_function("cells: what ClickHouse gets of a bet", |bench| {
            bench.iter(|| {
                for op in OpRef::decode_all(&ops).flatten() {
                    let target = targets.iter().find(|(number, _)| *number == op.target);
                    if let Some((_, target)) = target {
                        target
                            .cells(&op, |_, cell| {
                                black_box(cell);
                            })
                            .ok();
                    }
                }
            });
        });
        Ok(())
    }
}

fn data(events: Vec<Event>) -> impl Iterator<Item = Bytes> {
    events
        .into_iter()
        .filter_map(|event| if let Event::Data(bytes) = event { Some(bytes) } else { None })
}

/// Point reads of keys on disk: all of them in turn, so the cache misses, and a few again and again.
fn state(criterion: &mut Criterion) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut store = LocalStore::open(folder.path())?;
    let key = |number: u32| (number.wrapping_mul(0x9E37_79B9)).to_be_bytes();
    for number in 0..KEYS {
        // Of no space that is cached for long: a lookup's identity.
        store.put(Space::Lookups, &key(number), &[7; 60]);
        store.put(Space::Rows, &key(number), &[7; 60]);
        if number % 10_000 == 0 {
            store.commit(std::iter::empty(), &Progress::default())?;
        }
    }
    store.commit(std::iter::empty(), &Progress::default())?;
    for (what, space) in [("from its block", Space::Lookups), ("from the cache", Space::Rows)] {
        let mut number = 0;
        criterion.bench_function(&format!("state: a point read {what}"), |bench| {
            bench.iter(|| {
                number = (number + 1) % 10_000;
                black_box(store.get(space, &key(number)).ok())
            });
        });
    }
    Ok(())
}

fn outbox(criterion: &mut Criterion) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let mut store = LocalStore::open(folder.path())?;
    let mut end = 0;
    let mut group = criterion.benchmark_group("outbox");
    group.throughput(Throughput::Elements(RECORDS));
    group.sample_size(20);
    group.bench_function("a commit of records, to the disk", |bench| {
        bench.iter(|| {
            let records: Vec<Record> = (end..end + RECORDS).map(record).collect();
            end += RECORDS;
            let progress = Progress { outbox_end: vec![end], ..Progress::default() };
            store.commit(records.iter().map(|record| (0, record)), &progress).ok();
        });
    });
    group.bench_function("records read again", |bench| {
        bench.iter(|| black_box(store.outbox().read(0, 0, RECORDS).ok()));
    });
    group.finish();
    Ok(())
}

fn record(seq: u64) -> Record {
    Record {
        seq,
        to: Position { epoch: 1, lsn: Lsn(10 + seq), ordinal: 1 },
        complete: Lsn(10 + seq),
        committed_at: 0,
        ends: true,
        ops: vec![7; RECORD_BYTES].into(),
    }
}
