//! The hot path alone: decoded messages through the engine into the local store, without servers.
//!
//! ```text
//!  cargo bench --bench engine -- [CHANGES [PASS]]
//!      pgoutput messages (made here) ─► EngineLoop ─► local store, feeds (acknowledged at once)
//! ```
//!
//! What it prints is the engine's own CPU a change, background threads of the local store included.
//! Run it under `valgrind --tool=callgrind` for counts that repeat.

#![expect(clippy::print_stdout, reason = "figures")]

use anyhow::{Context as _, Result};
use bytes::{BufMut as _, Bytes, BytesMut};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use walview::config::Pipeline;
use walview::service::board::Board;
use walview::service::bound;
use walview::service::engine_loop::{EngineLoop, Input, Outlet};
use walview::service::feed::{Feed, Frontier, Taken};
use walview::service::schema::Schema;
use walview::source::fingerprint::Fingerprint;
use walview::source::stream::{Event, Gulp};
use walview::state::{LocalStore, Progress};
use walview_core::catalog::{Catalog, Collation, Column, ReplicaIdentity, Table, UniqueKey};
use walview_core::engine::Engine;
use walview_core::position::Lsn;
use walview_core::value::Type;

const USERS: u64 = 100_000;
const EVENTS: u64 = 1_000;
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
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("pipeline/betting.yaml");
        let pipeline =
            Pipeline::load(&file).map_err(|_refused| anyhow::anyhow!("the pipeline is refused"))?;
        let catalog = catalog();
        let bound = bound::bind(&pipeline, "public", &catalog)
            .map_err(|_refused| anyhow::anyhow!("the pipeline does not fit"))?;
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
            .map(|index| Arc::new(Feed::new(index, store.outbox(), (0, None), (0, 0), frontier)))
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
        let (cpu, wall) = (cpu_seconds()?, Instant::now());
        let working = std::thread::spawn(move || {
            let ran = engine.run(&handle, &mut received, &confirm);
            (engine, ran)
        });
        let done = Arc::new(AtomicBool::new(false));
        let stores = self.feeds.iter().map(|feed| acknowledge(Arc::clone(feed), Arc::clone(&done)));
        let stores: Vec<_> = stores.collect();
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
        let (cpu, wall) = (cpu_seconds()? - cpu, wall.elapsed());
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

/// A store that has everything at once.
fn acknowledge(feed: Arc<Feed>, done: Arc<AtomicBool>) -> std::thread::JoinHandle<usize> {
    std::thread::spawn(move || {
        let (mut next, mut bytes) = (feed.end(), 0);
        loop {
            match feed.take(next, false, 4 << 20) {
                Ok(Taken::Records(records)) if !records.is_empty() => {
                    if let Some(last) = records.last() {
                        next = last.seq + 1;
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

/// Of this process: user and system.
fn cpu_seconds() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields: Vec<&str> =
        stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |index: usize| fields.get(index).and_then(|text| text.parse::<f64>().ok());
    // Fields 14 and 15 of proc(5); the first here is field 3. A tick is 10 ms.
    Ok((ticks(11).context("utime")? + ticks(12).context("stime")?) / 100.0)
}

/// The largest resident set of this process, the log that was made up included.
fn peak_kib() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

/// A log that is made up, with the positions of a real one.
#[derive(Default)]
struct Log {
    lsn: u64,
    bets: u64,
    random: u64,
}

impl Log {
    fn next(&mut self, below: u64) -> u64 {
        // xorshift64: the same log each time.
        let mut x = if self.random == 0 { 0x9E37_79B9_7F4A_7C15 } else { self.random };
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.random = x;
        (x >> 11) % below
    }

    fn transactions(
        &mut self,
        rows: u64,
        each: u64,
        mut change: impl FnMut(&mut Self, u64) -> Bytes,
    ) -> Vec<Event> {
        let mut events = Vec::new();
        let mut at = 0;
        while at < rows {
            let commit = Lsn(self.lsn + 100);
            let committed_at = 800_000_000_000_000;
            events.push(Event::Begin { xid: 1, commit_lsn: commit, committed_at });
            if self.lsn == 0 || at == 0 {
                events.extend(catalog().tables.iter().map(|table| Event::Data(relation(table))));
            }
            for row in at..(at + each).min(rows) {
                events.push(Event::Data(change(self, row)));
            }
            at += each;
            self.lsn += 200;
            events.push(Event::Commit {
                commit_lsn: commit,
                end_lsn: Lsn(commit.0 + 40),
                committed_at,
            });
        }
        events
    }

    fn dimensions(&mut self) -> Vec<Event> {
        let mut events = self.transactions(EVENTS, 100, |_, id| {
            insert(
                EVENTS_OID,
                &[
                    Some(&id.to_string()),
                    Some(&format!("Team {id} v Team {}", id + 1)),
                    Some(["football", "tennis", "darts"][(id % 3) as usize]),
                    Some("LIVE"),
                    Some("2026-01-05 18:30:00+00"),
                ],
            )
        });
        events.extend(self.transactions(USERS, 100, |_, id| {
            let country = ["DE", "SE", "GB", "FI"][(id % 4) as usize];
            insert(
                USERS_OID,
                &[
                    Some(&id.to_string()),
                    Some(&format!("Player {id}")),
                    Some(country),
                    Some("t"),
                    Some("{\"odds\": \"decimal\"}"),
                    Some("2025-01-05 18:30:00+00"),
                ],
            )
        }));
        events
    }

    fn bet(&mut self, id: u64) -> [String; 5] {
        let cents = self.next(10_000);
        [
            id.to_string(),
            self.next(USERS).to_string(),
            self.next(EVENTS).to_string(),
            format!("{}.{:02}", cents / 100 + 1, cents % 100),
            format!("{}.{:02}", self.next(9) + 1, self.next(100)),
        ]
    }

    /// The next bet is placed.
    fn place(&mut self) -> Bytes {
        self.bets += 1;
        let [id, user, event, amount, odds] = self.bet(self.bets);
        insert(
            BETS_OID,
            &[
                Some(&id),
                Some(&user),
                Some(&event),
                Some(&amount),
                Some(&odds),
                Some("OPEN"),
                None,
                Some("2026-01-05 18:30:00.123456+00"),
                None,
            ],
        )
    }

    fn inserts(&mut self, rows: u64, each: u64) -> Vec<Event> {
        self.transactions(rows, each, |log, _| log.place())
    }

    /// 60 inserts, 40 settled bets in a hundred. A bet that is settled gets another player, event and
    /// stake, too, so every group that it was in loses it: more work than a real one.
    fn mixed(&mut self, rows: u64, each: u64) -> Vec<Event> {
        self.transactions(rows, each, |log, _| {
            if log.bets < 1000 || log.next(100) < 60 {
                return log.place();
            }
            let id = log.next(log.bets) + 1;
            let [id, user, event, amount, odds] = log.bet(id);
            update(
                BETS_OID,
                &[
                    Some(&id),
                    Some(&user),
                    Some(&event),
                    Some(&amount),
                    Some(&odds),
                    Some("SETTLED"),
                    Some("12.50"),
                    Some("2026-01-05 18:30:00.123456+00"),
                    Some("2026-01-06 18:30:00.123456+00"),
                ],
            )
        })
    }
}

const USERS_OID: u32 = 1;
const EVENTS_OID: u32 = 2;
const BETS_OID: u32 = 3;

fn catalog() -> Catalog {
    let table = |oid, name: &str, columns: &[(&str, Type, bool)]| Table {
        oid,
        schema: "public".to_owned(),
        name: name.to_owned(),
        columns: columns
            .iter()
            .map(|(name, ty, not_null)| Column {
                name: (*name).to_owned(),
                attnum: 0,
                collation: Collation::None,
                ty: ty.clone(),
                type_oid: 20,
                type_modifier: -1,
                not_null: *not_null,
                generated: false,
                toastable: false,
                added: None,
            })
            .collect(),
        unique_keys: vec![UniqueKey {
            name: format!("{name}_pkey"),
            columns: vec![0],
            primary: true,
        }],
        replica_identity: ReplicaIdentity::Default,
    };
    let (text, at, money) = (Type::Text, Type::TimestampTz, Type::Numeric(Some((12, 2))));
    Catalog {
        tables: vec![
            table(
                USERS_OID,
                "users",
                &[
                    ("id", Type::Int8, true),
                    ("name", text.clone(), true),
                    ("country", text.clone(), false),
                    ("verified", Type::Bool, true),
                    ("preferences", Type::Jsonb, true),
                    ("created_at", at.clone(), true),
                ],
            ),
            table(
                EVENTS_OID,
                "events",
                &[
                    ("id", Type::Int8, true),
                    ("name", text.clone(), true),
                    ("category", text.clone(), true),
                    ("status", text.clone(), true),
                    ("starts_at", at.clone(), true),
                ],
            ),
            table(
                BETS_OID,
                "bets",
                &[
                    ("id", Type::Int8, true),
                    ("user_id", Type::Int8, true),
                    ("event_id", Type::Int8, true),
                    ("amount", money.clone(), true),
                    ("odds", Type::Numeric(Some((6, 2))), true),
                    ("status", text, true),
                    ("payout", money, false),
                    ("placed_at", at.clone(), true),
                    ("settled_at", at, false),
                ],
            ),
        ],
        other_encoding: false,
    }
}

fn relation(table: &Table) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(b'R');
    out.put_u32(table.oid);
    out.put_slice(b"public\0");
    out.put_slice(table.name.as_bytes());
    out.put_slice(b"\0d");
    out.put_u16(u16::try_from(table.columns.len()).unwrap_or(0));
    for (index, column) in table.columns.iter().enumerate() {
        out.put_u8((index == 0).into());
        out.put_slice(column.name.as_bytes());
        out.put_u8(0);
        out.put_u32(column.type_oid);
        out.put_i32(column.type_modifier);
    }
    out.freeze()
}

fn insert(oid: u32, cells: &[Option<&str>]) -> Bytes {
    change(b'I', oid, cells)
}

fn update(oid: u32, cells: &[Option<&str>]) -> Bytes {
    change(b'U', oid, cells)
}

fn change(kind: u8, oid: u32, cells: &[Option<&str>]) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u8(kind);
    out.put_u32(oid);
    out.put_u8(b'N');
    out.put_u16(u16::try_from(cells.len()).unwrap_or(0));
    for cell in cells {
        match cell {
            None => out.put_u8(b'n'),
            Some(text) => {
                out.put_u8(b't');
                out.put_u32(u32::try_from(text.len()).unwrap_or(0));
                out.put_slice(text.as_bytes());
            }
        }
    }
    out.freeze()
}
