//! Another program on the same backlog: ClickHouse's `MaterializedPostgreSQL`, which copies tables
//! as they are into a `ClickHouse` of its own. No joins, no counts, no Redis.
//!
//! It is stopped while the backlog is written. Its clock starts with its process, as Walview's does,
//! and ends when its table has the backlog's last row and as many as PostgreSQL. Only these two are
//! compared: values of the peer are not verified.

use crate::drain::{BACKLOGS, betting, write};
use crate::figures::Figure;
use crate::world::{LIMIT, World};
use anyhow::{Result, bail, ensure};
use std::time::{Duration, Instant};
use tokio::time::sleep;
use walview::demo::servers::clickhouse::ClickHouse;
use walview::demo::servers::http;

const PEER: &str = "MaterializedPostgreSQL";
/// For the few rows there are at first.
const COPY_LIMIT: Duration = Duration::from_secs(60);
/// Each look reads the table.
const POLL: Duration = Duration::from_millis(200);
const ROWS: &str = "SELECT concat_ws(' ', count(*), max(id)) FROM bets";
const PEER_ROWS: &str = "SELECT concat(toString(count()), ' ', toString(max(id))) FROM peer.bets";

pub(crate) async fn run(changes: u32, repeats: u32) -> Result<Vec<Figure>> {
    let mut figures = Vec::new();
    for backlog in BACKLOGS.iter().filter(|backlog| !backlog.identity_full) {
        let changes = changes / backlog.part;
        let world = betting(i32::try_from(changes / 20)?).await?;
        let mut peer = match start(&world).await {
            Ok(peer) => peer,
            Err(error) => {
                println!("{PEER} does not run here: {error:#}\n");
                break;
            }
        };
        peer.server.stop().await?;
        let mut rates = Vec::new();
        for repeat in 0..repeats {
            world.park().await?;
            let end = write(&world, &(backlog.call)(changes)).await?;
            let (walview, other) = if repeat % 2 == 0 {
                let walview = world.drain(end).await?.elapsed;
                (walview, drain(&world, &mut peer).await?)
            } else {
                let other = drain(&world, &mut peer).await?;
                (world.drain(end).await?.elapsed, other)
            };
            let [walview, other] = [walview, other].map(|elapsed| elapsed.as_secs_f64());
            eprintln!("{}: walview {walview:.1} s, {PEER} {other:.1} s", backlog.case);
            rates.push((f64::from(changes) / walview, f64::from(changes) / other));
        }
        world.verify().await?;
        let case = backlog.case.replace("drain", "peer");
        figures.push(Figure::paired([&case, "drained", "changes/s"], PEER, &rates));
    }
    Ok(figures)
}

/// A server that follows the bets, its copy of them made.
async fn start(world: &World) -> Result<ClickHouse> {
    let folder = world.folder("peer")?;
    let peer = ClickHouse::start(&folder, &world.log("peer")).await?;
    let sql = format!(
        "CREATE DATABASE peer ENGINE = {PEER}('127.0.0.1:{}', 'betting', 'walview', '{}') \
         SETTINGS materialized_postgresql_tables_list = 'bets'",
        world.postgres.server.port(),
        world.postgres.password()
    );
    let experimental = "/?allow_experimental_database_materialized_postgresql=1";
    let (code, answer) = http::post(&peer.address(), experimental, &sql).await?;
    ensure!(code == 200, "{}", answer.trim());
    caught_up(world, &peer, COPY_LIMIT).await?;
    Ok(peer)
}

async fn drain(world: &World, peer: &mut ClickHouse) -> Result<Duration> {
    world.clickhouse.server.freeze()?;
    let started = Instant::now();
    peer.server.start().await?;
    caught_up(world, peer, LIMIT).await?;
    let elapsed = started.elapsed();
    world.clickhouse.server.thaw()?;
    peer.server.stop().await?;
    Ok(elapsed)
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
