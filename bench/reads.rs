//! What a row costs that is read by its key from a local store of many: `cargo bench --bench reads -- [ROWS]`.
//!
//! The rows are written as a snapshot writes them, each with one key of its joined row, and read at random
//! once the store has been opened again. CPU is the whole process's.

#![expect(clippy::print_stdout, reason = "figures")]

mod process;

use anyhow::Result;
use process::cpu_seconds;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use std::time::Instant;
use walview::service::snapshot::SPILL_BYTES;
use walview::state::{LocalStore, Progress};
use walview_core::engine::{ReadState as _, Space, State as _};

/// As in the program.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const READS: u32 = 200_000;
/// Rows that join one.
const JOINED: u32 = 10;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let rows = arguments.next().map_or(Ok(10_000_000_u32), |argument| argument.parse())?;
    let folder = tempfile::tempdir()?;
    let mut random = SmallRng::seed_from_u64(7);
    {
        let mut store = LocalStore::open(folder.path())?;
        let (cpu, wall) = (cpu_seconds("self")?, Instant::now());
        for row in 0..rows {
            store.put(Space::Rows, &key(row), format!("{row:>8} its name {row}").as_bytes());
            let joined = random.random_range(0..rows.div_ceil(JOINED));
            store.put(Space::Reverse, &[key(joined), key(row)].concat(), &[]);
            if store.pending_bytes() >= SPILL_BYTES {
                store.spill()?;
            }
        }
        store.commit(std::iter::empty(), &Progress::default())?;
        let rate = f64::from(rows) / wall.elapsed().as_secs_f64();
        println!("written: {:.2} µs a row, {rate:.0} rows/s", micros(cpu, rows)?);
    }
    let store = LocalStore::open(folder.path())?;
    for (what, there) in [("there", true), ("not there", false), ("there, again", true)] {
        let (cpu, wall) = (cpu_seconds("self")?, Instant::now());
        let mut found = 0_u32;
        for _ in 0..READS {
            let mut key = key(random.random_range(0..rows));
            if !there {
                key.push(0);
            }
            found += u32::from(store.get(Space::Rows, &key)?.is_some());
        }
        let rate = f64::from(READS) / wall.elapsed().as_secs_f64();
        println!("read, {what}: {:.2} µs, {rate:.0} reads/s, {found} found", micros(cpu, READS)?);
    }
    Ok(())
}

/// As keys of rows are: of one table, in the order of its rows.
fn key(row: u32) -> Vec<u8> {
    [&1_u32.to_be_bytes()[..], &row.to_be_bytes()].concat()
}

/// CPU for each of `of` since the process had used `before` seconds.
fn micros(before: f64, of: u32) -> Result<f64> {
    Ok((cpu_seconds("self")? - before) * 1e6 / f64::from(of))
}
