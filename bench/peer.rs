//! Other programs on the same backlogs: ClickHouse's `MaterializedPostgreSQL`, which copies tables as
//! they are into a `ClickHouse` of its own, and Debezium's engine, which hands out changes that nobody
//! takes. No joins, no counts, no Redis.
//!
//! ```text
//!  each repeat:  backlog is written ─► MaterializedPostgreSQL ─► Walview ─► Debezium
//!                                      the other way round in every second
//! ```
//!
//! `MaterializedPostgreSQL` is stopped while the backlog is written. Its clock starts with its
//! process, as Walview's does, and ends when its table has the backlog's last row and as many as
//! PostgreSQL. Only these two are compared: values of the peer are not verified.

use crate::debezium::Debezium;
use crate::drain::{BACKLOGS, Backlog, betting, write};
use crate::figures::Figure;
use crate::process::cpu_seconds;
use crate::world::{LIMIT, World};
use anyhow::{Result, bail, ensure};
use std::time::{Duration, Instant};
use tokio::time::sleep;
use walview::demo::servers::clickhouse::ClickHouse;
use walview::demo::servers::http;

const MATERIALIZED: &str = "MaterializedPostgreSQL";
const DEBEZIUM: &str = "Debezium";
/// For the few rows there are at first.
const COPY_LIMIT: Duration = Duration::from_secs(60);
/// Each look reads the table.
const POLL: Duration = Duration::from_millis(200);
const ROWS: &str = "SELECT concat_ws(' ', count(*), max(id)) FROM bets";
const PEER_ROWS: &str = "SELECT concat(toString(count()), ' ', toString(max(id))) FROM peer.bets";

pub(crate) async fn run(changes: u32, repeats: u32) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for backlog in BACKLOGS.iter().filter(|backlog| !backlog.identity_full) {
        figures.extend(measure(backlog, changes / backlog.part, repeats).await?);
    }
    Ok(figures)
}

/// Who drains.
enum Program {
    Walview,
    Materialized(ClickHouse),
    Debezium(Debezium),
}

/// Seconds, and those of a processor.
#[derive(Clone, Copy)]
struct Took {
    seconds: f64,
    cpu_seconds: f64,
}

impl Program {
    fn name(&self) -> &'static str {
        match self {
            Self::Walview => "walview",
            Self::Materialized(_) => MATERIALIZED,
            Self::Debezium(_) => DEBEZIUM,
        }
    }

    async fn drain(&mut self, world: &World, end: u64, changes: u32) -> Result<Took> {
        match self {
            Self::Walview => {
                let drained = world.drain(end).await?;
                let seconds = drained.elapsed.as_secs_f64();
                Ok(Took { seconds, cpu_seconds: drained.cpu_seconds })
            }
            Self::Materialized(peer) => materialize(world, peer).await,
            Self::Debezium(debezium) => {
                world.clickhouse.server.freeze()?;
                let drained = debezium.drain(world, changes).await?;
                world.clickhouse.server.thaw()?;
                Ok(Took { seconds: drained.seconds, cpu_seconds: drained.cpu_seconds })
            }
        }
    }
}

async fn measure(backlog: &Backlog, changes: u32, repeats: u32) -> Result<Vec<Figure>> {
    let world = betting(i32::try_from(changes / 20)?).await?;
    world.publish("bets").await?;
    let mut programs = programs(&world).await;
    let mut runs = Vec::new();
    for _ in 0..repeats {
        world.park().await?;
        for program in &programs {
            if let Program::Debezium(debezium) = program {
                debezium.slots(&world).await?;
            }
        }
        let end = write(&world, &(backlog.call)(changes)).await?;
        let mut run = Vec::new();
        for program in &mut programs {
            let took = program.drain(&world, end, changes).await?;
            eprintln!("{}: {} {:.1} s", backlog.case, program.name(), took.seconds);
            run.push((program.name(), took));
        }
        runs.push(run);
        programs.reverse();
    }
    world.verify().await?;
    let case = backlog.case.replace("drain", "peer");
    let of = |name: &str| -> Vec<Took> {
        let named = runs.iter().flatten().filter(|(program, _)| *program == name);
        named.map(|(_, took)| *took).collect()
    };
    let walview = of(Program::Walview.name());
    let peers = [MATERIALIZED, DEBEZIUM].map(|name| (name, of(name)));
    let beside = peers.iter().filter(|(_, peer)| !peer.is_empty()).flat_map(|(name, peer)| {
        let pairs = |of: &dyn Fn(&Took) -> f64| -> Vec<(f64, f64)> {
            walview.iter().map(of).zip(peer.iter().map(of)).collect()
        };
        let changes = f64::from(changes);
        let rates = pairs(&|took| changes / took.seconds);
        let cpu = pairs(&|took| took.cpu_seconds * 1e6 / changes);
        [
            Figure::paired([&case, "drained", "changes/s"], name, &rates),
            Figure::paired([&case, "CPU a change", "µs"], name, &cpu),
        ]
    });
    Ok(beside.collect())
}

/// Walview, and the peers that run here, on either side.
async fn programs(world: &World) -> Vec<Program> {
    let mut programs = vec![Program::Walview];
    match start(world).await {
        Ok(peer) => programs.insert(0, Program::Materialized(peer)),
        Err(error) => println!("{MATERIALIZED} does not run here: {error:#}\n"),
    }
    match Debezium::install(world).await {
        Ok(debezium) => programs.push(Program::Debezium(debezium)),
        Err(error) => println!("{DEBEZIUM} does not run here: {error:#}\n"),
    }
    programs
}

/// A server that follows the bets, its copy of them made; stopped.
async fn start(world: &World) -> Result<ClickHouse> {
    let folder = world.folder("peer")?;
    let mut peer = ClickHouse::start(&folder, &world.log("peer")).await?;
    let sql = format!(
        "CREATE DATABASE peer ENGINE = {MATERIALIZED}('127.0.0.1:{}', 'betting', 'walview', '{}') \
         SETTINGS materialized_postgresql_tables_list = 'bets'",
        world.postgres.server.port(),
        world.postgres.password()
    );
    let experimental = "/?allow_experimental_database_materialized_postgresql=1";
    let (code, answer) = http::post(&peer.address(), experimental, &sql).await?;
    ensure!(code == 200, "{}", answer.trim());
    caught_up(world, &peer, COPY_LIMIT).await?;
    peer.server.stop().await?;
    Ok(peer)
}

async fn materialize(world: &World, peer: &mut ClickHouse) -> Result<Took> {
    world.clickhouse.server.freeze()?;
    let started = Instant::now();
    peer.server.start().await?;
    caught_up(world, peer, LIMIT).await?;
    let seconds = started.elapsed().as_secs_f64();
    let cpu_seconds = cpu_seconds(&peer.server.pid()?.to_string())?;
    world.clickhouse.server.thaw()?;
    peer.server.stop().await?;
    Ok(Took { seconds, cpu_seconds })
}

async fn caught_up(world: &World, peer: &ClickHouse, limit: Duration) -> Result<()> {
    let rows: String = world.client.query_one(ROWS, &[]).await?.get(0);
    let started = Instant::now();
    loop {
        let held = peer.query(PEER_ROWS).await;
        if held.as_ref().is_ok_and(|held| held.trim() == rows) {
            return Ok(());
        }
        if started.elapsed() > limit {
            bail!("it has not {rows} (rows, last id) within {limit:?}: {held:?}");
        }
        sleep(POLL).await;
    }
}
