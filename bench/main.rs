//! Benchmarks: one command with all its set-up, one table out.
//!
//! ```text
//!  bench/run [CASE…] [--json FILE]
//!      └─► servers in a folder of their own ─► case ─► figures ─► a Markdown table, JSON
//! ```
//!
//! Speed is measured here and never asserted in a test. A figure stands beside its reference, taken
//! in the same run where there is one to run; only the ratio means something on another machine.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "figures; how it goes")]

mod debezium;
mod drain;
mod figures;
mod growth;
mod instructions;
mod latency;
mod peer;
mod pipe;
mod process;
mod queries;
mod redis;
mod snapshot;
mod stream;
mod world;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use figures::{Figure, table};
use std::path::PathBuf;

#[derive(Parser)]
#[command(
    about = "Measures Walview; prints a Markdown table",
    after_help = "WALVIEW_BIN names a program to measure in the place of the one that is built with this."
)]
struct Args {
    /// What to measure; everything where nothing is named
    #[arg(value_enum)]
    cases: Vec<Case>,
    /// Changes in a backlog of inserts; a mixed one has half as many
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(1_000..))]
    changes: u32,
    /// Rows that are snapshotted
    #[arg(long, default_value_t = 5_000_000, value_parser = clap::value_parser!(u32).range(1_000..))]
    bets: u32,
    /// How long each rate of transactions is kept up
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(4..))]
    seconds: u32,
    /// Rows in the table that is queried
    #[arg(long, default_value_t = 10_000_000, value_parser = clap::value_parser!(u32).range(100_000..))]
    rows: u32,
    /// Rows of the largest dimension table that facts are joined to
    #[arg(long, default_value_t = 10_000_000, value_parser = clap::value_parser!(u32).range(1_000..))]
    dimension_rows: u32,
    /// Measure each figure so many times
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    repeats: u32,
    /// Write the figures to a file, too
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// What `cargo bench` says to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Case {
    /// A backlog through the replication stream, with nothing behind it
    Stream,
    /// A backlog into both stores, beside pg_recvlogical
    Drain,
    /// The first snapshot, beside binary COPY
    Snapshot,
    /// From commit to visible, at fixed rates
    Latency,
    /// What a change costs with more views, columns, dimension rows, rows a transaction
    Growth,
    /// ClickHouse's MaterializedPostgreSQL and Debezium on the same backlogs
    Peer,
    /// What Redis alone makes of a backlog
    Redis,
    /// Instructions that a change takes, which repeat
    Instructions,
    /// Reports and look-ups on ClickHouse's exact views
    Queries,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let cases = if args.cases.is_empty() { Case::value_variants() } else { &args.cases };
    let mut figures: Vec<Figure> = Vec::new();
    for case in cases {
        figures.extend(match case {
            Case::Stream => stream::run(args.repeats).await?,
            Case::Drain => drain::run(args.changes, args.repeats).await?,
            Case::Snapshot => snapshot::run(args.bets, args.repeats).await?,
            Case::Latency => latency::run(args.seconds, args.repeats).await?,
            Case::Growth => growth::run(args.changes, args.dimension_rows, args.repeats).await?,
            Case::Peer => peer::run(args.changes, args.repeats).await?,
            Case::Redis => redis::run(args.changes, args.repeats).await?,
            Case::Instructions => instructions::run(args.changes, args.repeats).await?,
            Case::Queries => queries::run(args.rows, args.repeats).await?,
        });
    }
    println!("{}", table(&figures));
    if let Some(file) = &args.json {
        std::fs::write(file, serde_json::to_string_pretty(&figures)?)?;
    }
    Ok(())
}
