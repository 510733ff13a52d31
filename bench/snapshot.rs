//! How fast the first snapshot is: many bets into the stores, beside binary `COPY`.
//!
//! The reference are two connections, each with half of the blocks, to `/dev/null`. Walview's clock
//! starts with its process and ends when it is live: rows in its state, results in the stores.

use crate::drain::{betting, bound, cost, rate};
use crate::figures::Figure;
use crate::world::{Clock, LIMIT, World};
use anyhow::Result;
use std::time::{Duration, Instant};
use walview::demo::PIPELINE;
use walview::demo::servers::service::Service;
use walview::demo::servers::{Launch, Signal};

/// The widest of the betting views alone.
const CLICKHOUSE_ONLY: &str = r#"
pipeline: betting
source: { url: "${BETTING_DATABASE_URL}" }
stores:
  clickhouse: { url: "${CLICKHOUSE_URL}", database: betting }
views:
  - name: bets_analytics
    sql: |
      SELECT b.id AS bet_id, b.user_id, u.name AS user_name, u.country AS user_country,
             b.event_id, e.name AS event_name, e.category AS event_category,
             b.status, b.amount, b.odds, b.payout, b.amount - coalesce(b.payout, 0) AS margin,
             b.placed_at, b.settled_at
      FROM bets b
      LEFT JOIN users u ON u.id = b.user_id
      LEFT JOIN events e ON e.id = b.event_id
    to:
      - clickhouse:
          table: bets_analytics
          partition_by: toYYYYMM(placed_at)
          order_by: [placed_at, user_id, bet_id]
          types: { margin: "Decimal(18, 2)" }
"#;

const REFERENCE: &str = "COPY, 2 connections";
/// The part of its rate that Walview is to reach.
const AIM: f64 = 0.4;

pub(crate) async fn run(bets: u32, repeats: u32) -> Result<Vec<Figure>> {
    let world = betting(i32::try_from(bets)?).await?;
    let mut figures = Vec::new();
    for (case, pipeline) in [
        ("snapshot: the betting views, both stores", PIPELINE),
        ("snapshot: one wide view, ClickHouse", CLICKHOUSE_ONLY),
    ] {
        std::fs::write(&world.options.pipeline_file, pipeline)?;
        figures.extend(measure(&world, case, bets, repeats).await?);
    }
    Ok(figures)
}

async fn measure(world: &World, case: &str, bets: u32, repeats: u32) -> Result<Vec<Figure>> {
    let bets = f64::from(bets);
    let mut pairs = Vec::new();
    for _ in 0..repeats {
        world.forget().await?;
        let reference = copy(world).await?.as_secs_f64();
        let clock = Clock::start()?;
        let mut service = Service::spawn(&world.options)?;
        let status = service.until_live(LIMIT).await?;
        let snapshot = clock.stop(&status)?;
        service.stop().await?;
        let seconds = snapshot.elapsed.as_secs_f64();
        eprintln!("{case}: walview {seconds:.1} s, {REFERENCE} {reference:.1} s");
        pairs.push((snapshot, reference));
    }
    world.verify().await?;
    let mut figures = vec![
        rate([case, "read", "bets/s"], REFERENCE, bets, &pairs),
        bound(case, AIM, bets, &pairs)?,
    ];
    figures.extend(cost(case, bets, pairs.iter().map(|(snapshot, _)| snapshot)));
    Ok(figures)
}

/// How long PostgreSQL takes to hand out all bets.
async fn copy(world: &World) -> Result<Duration> {
    let sql = "SELECT pg_relation_size('bets') / current_setting('block_size')::bigint / 2";
    let half: i64 = world.client.query_one(sql, &[]).await?.get(0);
    let [first, second] = ["<", ">="].map(|side| format!("ctid {side} '({half},0)'"));
    let started = Instant::now();
    tokio::try_join!(copy_where(world, &first), copy_where(world, &second))?;
    Ok(started.elapsed())
}

async fn copy_where(world: &World, condition: &str) -> Result<()> {
    let sql = format!("COPY (SELECT * FROM bets WHERE {condition}) TO STDOUT (FORMAT binary)");
    let launch = Launch {
        program: world.postgres.client_program("psql"),
        args: [&world.postgres.url(), "--output=/dev/null", "--command", &sql]
            .map(ToString::to_string)
            .to_vec(),
        env: Vec::new(),
        user: None,
        log: world.log("psql"),
        death: Signal::KILL,
    };
    launch.run("psql", LIMIT).await
}
