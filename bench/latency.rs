//! How soon a commit is visible: the demo's workload at fixed rates, the demo's readers.
//!
//! ```text
//!  workload, synchronous_commit = on ─► COMMIT returned ─► seen in the stream `recent_bets` (Redis)
//!                                                       ─► age of the newest bet (ClickHouse)
//! ```
//!
//! First, before Walview is started, the same workload is read by `pg_recvlogical` to a pipe: what
//! PostgreSQL and this machine take by themselves.
//!
//! A rate is sustainable if the workload keeps to it, and both stores hold all of it soon after its
//! end. Rates are tried until one is not.

use crate::drain::{CPU_MICROSECONDS, PEAK_MIB, REFERENCE, betting};
use crate::figures::Figure;
use crate::pipe;
use crate::world::{World, mib};
use anyhow::{Context as _, Result, bail};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};
use walview::demo::latency::{Percentiles, Visibility, clickhouse_behind};
use walview::demo::servers::service::Service;
use walview::demo::workload::Workload;

/// Transactions a second, and the aims for Redis in milliseconds: p50, p99.
const RATES: [(u32, [f64; 2]); 2] = [(200, [1.5, 5.0]), (2_000, [3.0, 10.0])];
/// Rows reach ClickHouse at most once a second.
const FRESH_MS: f64 = 2_000.0;
/// Until the workload's first rows can be there, the newest bet is an older one.
const FIRST_ROWS: Duration = Duration::from_secs(2);
const CATCH_UP_MAX: Duration = Duration::from_secs(2);
const CATCH_UP_LIMIT: Duration = Duration::from_secs(300);
/// Of the rate that was asked for.
const ACHIEVED_MIN: f64 = 0.95;
const LOOK: Duration = Duration::from_millis(100);
const BETS: i32 = 200_000;

pub(crate) async fn run(seconds: u32, repeats: u32) -> Result<Vec<Figure>> {
    let seconds = Duration::from_secs(seconds.into());
    let world = betting(BETS).await?;
    world.publish("bets").await?;
    let mut references = Vec::new();
    for (rate, _) in RATES {
        let mut alone = Vec::new();
        for _ in 0..repeats {
            alone.push(reference(&world, rate, seconds).await?);
        }
        references.push(alone);
    }
    let mut service = world.live().await?;
    let mut figures = Vec::new();
    for ((rate, aims), alone) in RATES.into_iter().zip(references) {
        let mut runs = Vec::new();
        for _ in 0..repeats {
            runs.push(observe(&world, &mut service, rate, seconds).await?);
        }
        let case = format!("latency: {rate} transactions/s");
        let rates = runs.iter().map(|run| run.rate).collect();
        let asked = ("asked for:", f64::from(rate));
        figures.push(Figure::new([&case, "rate", "transactions/s"], asked, rates));
        figures.extend(of_rate(&case, aims, &runs));
        let paired = |name, of: fn(&Percentiles) -> Duration| {
            let pairs = runs.iter().zip(&alone);
            let pairs: Vec<_> = pairs
                .map(|(run, alone)| (milliseconds(of(&run.redis)), milliseconds(of(alone))))
                .collect();
            Figure::paired([&case, name, "ms"], REFERENCE, &pairs)
        };
        figures.push(paired("p50 beside a commit to a pipe", |percentiles| percentiles.p50));
        figures.push(paired("p99 beside a commit to a pipe", |percentiles| percentiles.p99));
    }
    let (mut rate, mut sustained) = (RATES[1].0, None);
    loop {
        rate += rate / 2;
        let run = observe(&world, &mut service, rate, seconds).await?;
        if !run.sustained(rate) {
            break;
        }
        sustained = Some(run);
    }
    if sustained.is_none() {
        println!(
            "latency: {rate} transactions/s are not sustained; lower, only {} were tried\n",
            RATES[1].0
        );
    }
    if let Some(run) = sustained {
        let case = "latency: highest sustainable rate";
        let first_not = ("tried and not sustained:", f64::from(rate));
        figures.push(Figure::new([case, "rate", "transactions/s"], first_not, vec![run.rate]));
        figures.extend(of_rate(case, RATES[1].1, &[run]));
    }
    service.stop().await?;
    world.verify().await?;
    Ok(figures)
}

/// One stretch at one rate.
struct Run {
    redis: Percentiles,
    /// Of looks at `ClickHouse`.
    fresh: Percentiles,
    rate: f64,
    catch_up: Duration,
    cpu_seconds: f64,
    changes: f64,
    peak_mib: f64,
}

impl Run {
    fn sustained(&self, asked: u32) -> bool {
        self.rate >= f64::from(asked) * ACHIEVED_MIN && self.catch_up <= CATCH_UP_MAX
    }
}

/// How soon `pg_recvlogical` has handed on what the workload commits.
async fn reference(world: &World, rate: u32, seconds: Duration) -> Result<Percentiles> {
    world.reference_slot().await?;
    let visibility = Arc::new(Visibility::default());
    let mut readers = JoinSet::new();
    readers.spawn(pipe::follow(world.reference_to_pipe(), Arc::clone(&visibility)));
    world.until_reference(true).await?;
    let mut workload = Workload::start(&world.postgres.url(), rate, &visibility).await?;
    tokio::select! {
        () = sleep(seconds) => {}
        error = workload.failed() => return Err(error),
        Some(ended) = readers.join_next() => bail!("the reference ended: {ended:?}"),
    }
    workload.stop().await?;
    readers.shutdown().await;
    world.drop_reference_slot().await?;
    visibility.total().context("the reference read nothing")
}

async fn observe(
    world: &World,
    service: &mut Service,
    rate: u32,
    seconds: Duration,
) -> Result<Run> {
    let visibility = Arc::new(Visibility::default());
    let mut readers = JoinSet::new();
    readers.spawn(Arc::clone(&visibility).follow(world.redis.connect().await?));
    let before = service.status().await.context("walview shows no status")?;
    let mut workload = Workload::start(&world.postgres.url(), rate, &visibility).await?;
    let started = Instant::now();
    let mut ages = Vec::new();
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while started.elapsed() < seconds {
        tokio::select! {
            _ = looks.tick() => {
                let age = clickhouse_behind(&world.clickhouse.address()).await;
                ages.extend(age.filter(|_| started.elapsed() > FIRST_ROWS));
            }
            error = workload.failed() => return Err(error),
            Some(ended) = readers.join_next() => bail!("the reader of Redis ended: {ended:?}"),
        }
    }
    let totals = workload.stop().await?;
    let elapsed = started.elapsed();
    let ended = Instant::now();
    let end = world.last_commit().await?;
    let after = service.until_stores_reach(end, CATCH_UP_LIMIT).await?;
    let catch_up = ended.elapsed();
    readers.shutdown().await;
    #[expect(clippy::cast_precision_loss, reason = "figures")]
    let (transactions, changes) =
        (totals.transactions as f64, (after.changes_total - before.changes_total) as f64);
    Ok(Run {
        redis: visibility.total().context("nothing became visible in Redis")?,
        fresh: Percentiles::of(&mut ages).context("nothing became visible in ClickHouse")?,
        rate: transactions / elapsed.as_secs_f64(),
        catch_up,
        cpu_seconds: after.process.cpu_seconds - before.process.cpu_seconds,
        changes,
        peak_mib: mib(after.process.rss_peak_bytes),
    })
}

fn of_rate(case: &str, [p50, p99]: [f64; 2], runs: &[Run]) -> Vec<Figure> {
    let figure = |name, unit, aim, of: fn(&Run) -> f64| {
        Figure::new([case, name, unit], ("aim", aim), runs.iter().map(of).collect())
    };
    vec![
        figure("commit to Redis, p50", "ms", p50, |run| milliseconds(run.redis.p50)),
        figure("commit to Redis, p99", "ms", p99, |run| milliseconds(run.redis.p99)),
        figure("age in ClickHouse, p50", "ms", FRESH_MS, |run| milliseconds(run.fresh.p50)),
        figure("age in ClickHouse, p99", "ms", FRESH_MS, |run| milliseconds(run.fresh.p99)),
        figure("CPU a change", "µs", CPU_MICROSECONDS, |run| run.cpu_seconds * 1e6 / run.changes),
        figure("peak memory", "MiB", PEAK_MIB, |run| run.peak_mib),
    ]
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1_000.0
}
