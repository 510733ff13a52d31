//! How long BI waits: reports and look-ups on the betting pipeline's views, over many bets.
//!
//! ```text
//!  walview run on a small database ─► its tables and views as they really are
//!  INSERT … SELECT ─► the same tables filled by ClickHouse itself: bets, then a third rewritten
//!     unmerged: every insert is still a part of its own ─► queries
//!     merged:   one part for each month               ─► queries, with the same answers
//! ```
//!
//! The bets are those of a year. What is rewritten is spread over all of it, in inserts as large as
//! a busy writer's: nothing is easy because it lies together.

use crate::figures::Figure;
use crate::world::program;
use anyhow::{Context as _, Result, ensure};
use std::time::{Duration, Instant};
use walview::demo::servers::TempHome;
use walview::demo::servers::clickhouse::ClickHouse;
use walview::demo::servers::postgres::{Postgres, Settings};
use walview::demo::servers::redis::{Persistence, Redis};
use walview::demo::servers::service::Service;
use walview::demo::{PIPELINE, Seed, create_reports, migrate, options, seed};

const LIVE_LIMIT: Duration = Duration::from_secs(120);
/// Only to have the tables.
const FEW: Seed = Seed { users: 10, events: 10, bets: 10 };
/// Inserts of the first load, and of the third that is rewritten.
const LOADS: u32 = 20;
const REWRITES: u32 = 33;
const PLAYERS_EACH: u32 = 50;
/// Cohorts of many players want more than the demo's server gives to one statement.
const NO_LIMIT: &str = "SETTINGS max_memory_usage = 0";

struct Query {
    name: &'static str,
    sql: &'static str,
    /// Milliseconds, merged and unmerged.
    aims: [f64; 2],
}

const REPORT: [f64; 2] = [500.0, 1_000.0];
const LOOK_UP: [f64; 2] = [50.0, 50.0];

const QUERIES: [Query; 8] = [
    Query {
        name: "settlement_daily",
        sql: "SELECT * FROM betting.settlement_daily ORDER BY ALL",
        aims: REPORT,
    },
    Query {
        name: "settlement_rollup",
        sql: "SELECT * FROM betting.settlement_rollup ORDER BY ALL",
        aims: REPORT,
    },
    Query {
        name: "user_cohorts",
        sql: "SELECT * FROM betting.user_cohorts ORDER BY ALL",
        aims: REPORT,
    },
    Query {
        name: "user_betting, the 100 highest margins",
        sql: "SELECT * FROM betting.user_betting ORDER BY margin DESC, user_id LIMIT 100",
        aims: REPORT,
    },
    Query {
        name: "bets_analytics: a year by category",
        sql: "SELECT event_category, count(), sum(amount) FROM betting.bets_analytics GROUP BY 1 ORDER BY 1",
        aims: REPORT,
    },
    Query {
        name: "bets_analytics: one day by status",
        sql: "SELECT status, count(), sum(amount) FROM betting.bets_analytics \
              WHERE placed_at >= '2025-06-15' AND placed_at < '2025-06-16' GROUP BY 1 ORDER BY 1",
        aims: REPORT,
    },
    Query {
        name: "bets_analytics: one bet by its id",
        sql: "SELECT * FROM betting.bets_analytics WHERE bet_id = 45678",
        aims: LOOK_UP,
    },
    Query {
        name: "bets_analytics: one player's bets",
        sql: "SELECT * FROM betting.bets_analytics WHERE user_id = 456 ORDER BY bet_id",
        aims: LOOK_UP,
    },
];

pub(crate) async fn run(rows: u32, repeats: u32) -> Result<Vec<Figure>> {
    let home = TempHome::new("walview-bench-")?;
    let clickhouse = tables(&home).await?;
    eprintln!("filling {rows} bets, a third of them rewritten");
    let filling = Instant::now();
    fill(&clickhouse, rows).await?;
    eprintln!("filled in {:.0} s", filling.elapsed().as_secs_f64());
    let (unmerged, answers) = measure(&clickhouse, "unmerged", 1, repeats).await?;
    let merging = Instant::now();
    merge(&clickhouse).await?;
    eprintln!("merged in {:.0} s", merging.elapsed().as_secs_f64());
    let (merged, again) = measure(&clickhouse, "merged", 0, repeats).await?;
    for (query, (before, after)) in QUERIES.iter().zip(answers.iter().zip(&again)) {
        ensure!(before == after, "{}: merged and unmerged rows answer differently", query.name);
    }
    Ok(merged.into_iter().chain(unmerged).collect())
}

/// The tables and views that Walview makes, as it makes them; it has ended when they are returned.
async fn tables(home: &TempHome) -> Result<ClickHouse> {
    let mut postgres =
        Postgres::start(&home.postgres(), &home.log("postgres"), "betting", Settings::default())
            .await?;
    let redis_folder = home.path().join("redis");
    let mut redis =
        Redis::start(&redis_folder, &home.log("redis"), Persistence::AppendOnly).await?;
    let clickhouse = ClickHouse::start(&home.clickhouse(), &home.log("clickhouse")).await?;
    let client = postgres.connect().await?;
    migrate(&client).await?;
    seed(&client, FEW).await?;
    drop(client);
    let options = options(program(), home, (&postgres, &redis, &clickhouse));
    std::fs::write(&options.pipeline_file, PIPELINE)?;
    let mut service = Service::spawn(&options)?;
    service.until_live(LIVE_LIMIT).await?;
    service.stop().await?;
    redis.server.stop().await?;
    postgres.server.stop().await?;
    create_reports(&clickhouse).await?;
    Ok(clickhouse)
}

async fn fill(clickhouse: &ClickHouse, rows: u32) -> Result<()> {
    for table in ["bets_analytics", "settlement_totals"] {
        clickhouse.query(&format!("TRUNCATE TABLE betting_rows.{table}")).await?;
        clickhouse.query(&format!("SYSTEM STOP MERGES betting_rows.{table}")).await?;
    }
    let each = rows / LOADS;
    for load in 0..LOADS {
        let numbers = format!("SELECT number FROM numbers({}, {each})", load * each);
        clickhouse.query(&bets(&numbers, rows, false, 1)).await?;
    }
    let stride = REWRITES * 3;
    for round in 0..REWRITES {
        let numbers = format!(
            "SELECT number * {stride} + {} AS number FROM numbers({})",
            round * 3,
            rows / stride
        );
        clickhouse.query(&bets(&numbers, rows, true, round + 2)).await?;
        clickhouse.query(&totals(round + 2)).await?;
    }
    Ok(())
}

/// Bets with these numbers; rewritten ones are decided.
fn bets(numbers: &str, rows: u32, rewritten: bool, version: u32) -> String {
    let players = rows / PLAYERS_EACH;
    let step = 365_u64 * 86_400 * 1_000_000 / u64::from(rows);
    let status = if rewritten {
        "multiIf(h % 100 < 95, 'SETTLED', h % 100 < 98, 'CASHED_OUT', 'CANCELLED')"
    } else {
        "multiIf(h % 100 < 25, 'OPEN', h % 100 < 90, 'SETTLED', h % 100 < 96, 'CASHED_OUT', 'CANCELLED')"
    };
    format!(
        "INSERT INTO betting_rows.bets_analytics (bet_id, user_id, user_name, user_country, event_id, event_name, \
         event_category, status, amount, odds, payout, margin, placed_at, settled_at, _version, _deleted, _committed_at) \
         SELECT toInt64(n + 1) AS bet_id, toInt64(1 + intDiv(u * u, {players})) AS user_id, \
         if(user_id % 50 = 0, NULL, concat(['Ada', 'Ben', 'Chloé', 'Dimitri', 'Ewa', 'Finn', 'Grace'][1 + user_id % 7], \
         ' ', ['Abel', 'Berg', 'Costa', 'Duarte', 'Evans'][1 + user_id % 5], ' ', toString(user_id))) AS user_name, \
         if(user_id % 10 = 0, NULL, ['GB', 'DE', 'ES', 'FR', 'IT', 'PL', 'SE', 'BR', 'CA'][user_id % 10]) AS country, \
         toInt64(1 + intDiv(n, 500) + h2 % 300) AS event_id, \
         if(event_id % 100 = 7, NULL, concat('Home ', toString(event_id % 97), ' v Away ', toString(event_id % 89))) \
         AS event_name, \
         if(event_id % 100 = 7, NULL, ['football', 'tennis', 'basketball', 'ice hockey', 'esports', 'horse racing']\
         [1 + event_id % 6]) AS category, {status} AS status, \
         toDecimal64(1 + h2 % 20000 / 100, 2) AS amount, toDecimal64(1.01 + h % 900 / 100, 2) AS odds, \
         if(status IN ('SETTLED', 'CASHED_OUT'), toDecimal64(if(h2 % 2 = 0, 0, h % 30000 / 100), 2), NULL) AS payout, \
         toDecimal64(amount - ifNull(payout, 0), 2) AS margin, \
         toDateTime64('2025-01-01 00:00:00', 6, 'UTC') + toIntervalMicrosecond(n * {step}) AS placed_at, \
         if(status = 'OPEN', NULL, placed_at + toIntervalMinute(90)) AS settled_at, \
         toUInt128({version}) * 2 + 1, 0, placed_at \
         FROM (SELECT number AS n, cityHash64(number) AS h, cityHash64(number, 7) AS h2, \
         sipHash64(number) % {players} AS u FROM ({numbers}))"
    )
}

/// What Walview would have written of the bets as they are now: every cell changed.
fn totals(version: u32) -> String {
    format!(
        "INSERT INTO betting_rows.settlement_totals (day, event_known, category, status, bets, stakes, payouts, odds, \
         _version, _deleted, _committed_at) \
         SELECT toDateTime64(toDate32(placed_at), 6, 'UTC') AS day, event_category IS NOT NULL AS known, \
         ifNull(event_category, ''), status, count(), sum(amount), sum(ifNull(payout, 0)), sum(odds), \
         toUInt128({version}) * 2 + 1, 0, now64(6) \
         FROM betting.bets_analytics GROUP BY day, known, 3, status"
    )
}

async fn merge(clickhouse: &ClickHouse) -> Result<()> {
    for table in ["bets_analytics", "settlement_totals"] {
        clickhouse.query(&format!("SYSTEM START MERGES betting_rows.{table}")).await?;
        let sql = format!(
            "SELECT DISTINCT partition FROM system.parts \
             WHERE active AND database = 'betting_rows' AND table = '{table}' ORDER BY 1"
        );
        for partition in clickhouse.query(&sql).await?.lines() {
            let merge = format!("OPTIMIZE TABLE betting_rows.{table} PARTITION {partition} FINAL");
            clickhouse.query(&merge).await?;
        }
    }
    Ok(())
}

/// The figures and the answers.
async fn measure(
    clickhouse: &ClickHouse,
    state: &str,
    aim: usize,
    repeats: u32,
) -> Result<(Vec<Figure>, Vec<String>)> {
    let (mut figures, mut answers) = (Vec::new(), Vec::new());
    for query in &QUERIES {
        let sql = format!("{} {NO_LIMIT}", query.sql);
        let mut measured = Vec::new();
        let mut answer = String::new();
        for _ in 0..repeats {
            let asked = Instant::now();
            answer = clickhouse.query(&sql).await.with_context(|| query.name.to_owned())?;
            measured.push(asked.elapsed().as_secs_f64() * 1_000.0);
        }
        ensure!(!answer.is_empty(), "{}: no rows", query.name);
        let aim = query.aims.get(aim).copied().unwrap_or(f64::NAN);
        let case = format!("queries, {state}");
        figures.push(Figure::new([&case, query.name, "ms"], ("aim", aim), measured));
        answers.push(answer);
    }
    Ok((figures, answers))
}
