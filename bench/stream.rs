//! How fast a backlog leaves PostgreSQL: the replication stream alone, with nothing behind it,
//! beside `pg_recvlogical` on a slot of its own over the same log; then the values in binary beside
//! those in text.
//!
//! ```text
//!  1M inserts, ten a transaction ─► log ─┬─ pg_recvlogical ─► /dev/null
//!                                        └─ Stream::next   ─► counted, dropped; some decoded later
//! ```

use crate::figures::Figure;
use anyhow::{Context as _, Result, ensure};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::process::Command;
use walview::demo::servers::TempHome;
use walview::demo::servers::postgres::{Db, Postgres, Settings};
use walview::source::SourceConfig;
use walview::source::stream::{Event, Format, Resume, Stream};
use walview_core::pgoutput::{self, Cell, Message};
use walview_core::value::{Type, Value};

const ROWS: u32 = 1_000_000;
const CASE: &str = "stream alone, 1M inserts, 10 a transaction";
const BINARY: &str = "the same, values in binary";
/// Rows that are decoded, too.
const DECODED: u32 = 200_000;
/// Of the table's columns.
const TYPES: [Type; 7] = [
    Type::Int8,
    Type::Int8,
    Type::Int8,
    Type::Text,
    Type::Numeric(Some((12, 2))),
    Type::TimestampTz,
    Type::TimestampTz,
];

/// What one reader of the backlog took.
struct Drained {
    rows_per_second: f64,
    /// Of CPU, for each row.
    walsender_us: f64,
    reader_us: f64,
    /// From a message to its values.
    decoder_us: f64,
}

pub(crate) async fn run(repeats: u32) -> Result<Vec<Figure>> {
    let home = TempHome::new("walview-bench-")?;
    let settings = Settings { fsync: false, ..Settings::default() };
    let mut postgres =
        Postgres::start(&home.postgres(), &home.log("postgres"), "bench", settings).await?;
    let db = postgres.connect().await?;
    db.batch_execute(
        "CREATE TABLE bets(id bigint PRIMARY KEY, user_id bigint, event_id bigint, status text,
           amount numeric(12,2), placed_at timestamptz, settled_at timestamptz);
         CREATE PUBLICATION bench FOR TABLE bets",
    )
    .await?;
    db.execute("SELECT pg_create_logical_replication_slot('backlog', 'pgoutput')", &[]).await?;
    db.batch_execute(&format!(
        "DO $$ BEGIN FOR i IN 1..{} LOOP
           INSERT INTO bets SELECT i * 10 + j, j, j, 'OPEN', 12.50, now(), NULL
           FROM generate_series(1, 10) j; COMMIT; END LOOP; END $$",
        ROWS / 10
    ))
    .await?;
    let (mut theirs, mut text, mut binary) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..repeats {
        theirs.push(recvlogical(&postgres, &db).await?);
        text.push(stream(&postgres, &db, Format::Text).await?);
        binary.push(stream(&postgres, &db, Format::Binary).await?);
    }
    postgres.server.stop().await?;
    let both = [(CASE, &text, "pg_recvlogical", &theirs), (BINARY, &binary, "text", &text)];
    let mut figures = Vec::new();
    for (case, ours, reference, theirs) in both {
        let mut figure = |name: &str, unit: &str, of: fn(&Drained) -> f64| {
            let pairs: Vec<(f64, f64)> = ours.iter().map(of).zip(theirs.iter().map(of)).collect();
            figures.push(Figure::paired([case, name, unit], reference, &pairs));
        };
        figure("drained", "rows/s", |drained| drained.rows_per_second);
        figure("CPU of the walsender", "µs a row", |drained| drained.walsender_us);
        figure("CPU of the reader", "µs a row", |drained| drained.reader_us);
        if case == BINARY {
            figure("CPU of decoding", "µs a row", |drained| drained.decoder_us);
        }
    }
    Ok(figures)
}

/// A slot of its own over the whole backlog.
async fn slot(db: &Db) -> Result<()> {
    let copy = "SELECT pg_copy_logical_replication_slot('backlog', 'drained')";
    db.execute(copy, &[]).await?;
    Ok(())
}

async fn walsender(db: &Db) -> Result<i32> {
    let sql = "SELECT active_pid FROM pg_replication_slots WHERE slot_name = 'drained'";
    Ok(db.query_one(sql, &[]).await?.try_get(0)?)
}

async fn drop_slot(db: &Db) -> Result<()> {
    let limit = Instant::now() + Duration::from_secs(10);
    while let Err(error) = db.execute("SELECT pg_drop_replication_slot('drained')", &[]).await {
        ensure!(Instant::now() < limit, "the slot is still held: {error}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

async fn stream(postgres: &Postgres, db: &Db, format: Format) -> Result<Drained> {
    slot(db).await?;
    let config = SourceConfig::from_url(&postgres.url(), None)?;
    let sql =
        "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = 'drained'";
    let from: String = db.query_one(sql, &[]).await?.try_get(0)?;
    let resume = Resume::at(from.parse()?);
    let mut stream = Stream::start(&config, "drained", "bench", resume, None, format).await?;
    let walsender = walsender(db).await?.to_string();
    let (began, own, theirs) = (Instant::now(), cpu("self")?, cpu(&walsender)?);
    let (mut rows, mut kept) = (0, Vec::new());
    while rows < ROWS {
        for event in stream.next().await?.events {
            if let Event::Data(data) = event
                && data.first() == Some(&b'I')
            {
                rows += 1;
                if rows <= DECODED {
                    kept.push(data);
                }
            }
        }
    }
    let mut drained = Drained {
        rows_per_second: f64::from(ROWS) / began.elapsed().as_secs_f64(),
        walsender_us: (cpu(&walsender)? - theirs) / f64::from(ROWS),
        reader_us: (cpu("self")? - own) / f64::from(ROWS),
        decoder_us: 0.0,
    };
    stream.stop().await;
    drop_slot(db).await?;
    let before = cpu("self")?;
    kept.iter().try_for_each(|data| decode(data))?;
    drained.decoder_us = (cpu("self")? - before) / f64::from(DECODED);
    Ok(drained)
}

fn decode(data: &[u8]) -> Result<()> {
    let Message::Insert { new, .. } = pgoutput::decode(data)? else { return Ok(()) };
    let mut row = Vec::with_capacity(TYPES.len());
    for (cell, ty) in new.cells().zip(&TYPES) {
        row.push(match cell {
            Cell::Null | Cell::Unchanged => Value::Null,
            Cell::Text(bytes) => Value::from_server(ty, std::str::from_utf8(bytes)?)?,
            Cell::Binary(bytes) => Value::from_binary(ty, bytes)?,
        });
    }
    std::hint::black_box(row);
    Ok(())
}

/// Until its walsender has nothing left to do.
async fn recvlogical(postgres: &Postgres, db: &Db) -> Result<Drained> {
    slot(db).await?;
    let began = Instant::now();
    let mut reader = Command::new(postgres.client_program("pg_recvlogical"))
        .args(["--start", "--no-loop", "--slot=drained", "--file=/dev/null", "--dbname"])
        .arg(postgres.url())
        .args(["--option=proto_version=1", "--option=publication_names=bench"])
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .context("cannot start pg_recvlogical")?;
    let idle = "SELECT coalesce(bool_or(wait_event ILIKE 'WalSenderWaitForWAL'), false)
                FROM pg_stat_activity JOIN pg_replication_slots ON pid = active_pid";
    while !db.query_one(idle, &[]).await?.try_get::<_, bool>(0)? {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let elapsed = began.elapsed().as_secs_f64();
    let pid = reader.id().context("pg_recvlogical has ended")?.to_string();
    let drained = Drained {
        rows_per_second: f64::from(ROWS) / elapsed,
        walsender_us: cpu(&walsender(db).await?.to_string())? / f64::from(ROWS),
        reader_us: cpu(&pid)? / f64::from(ROWS),
        decoder_us: 0.0,
    };
    reader.kill().await?;
    drop_slot(db).await?;
    Ok(drained)
}

/// Microseconds that a process has run, all its threads together.
fn cpu(pid: &str) -> Result<f64> {
    let mut micros = 0.0;
    for thread in std::fs::read_dir(Path::new("/proc").join(pid).join("task"))? {
        let times = std::fs::read_to_string(thread?.path().join("schedstat"))?;
        let nanos: f64 = times.split(' ').next().unwrap_or("").parse()?;
        micros += nanos / 1_000.0;
    }
    Ok(micros)
}
