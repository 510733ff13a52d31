//! `walview demo`: everything on one machine, for the time that somebody watches.
//!
//! ```text
//!  workload ──► PostgreSQL ──► walview run ──► Redis ──────► latency reader
//!     │                          │    └──────► ClickHouse ─► freshness
//!     └── commit times ──────────┴── GET /status ───────────► one line a second
//! ```
//!
//! - `walview run` is a child process, as operators run it: what the demo shows is the product.
//! - Whatever ends the demo, the servers are stopped in order and the folder is removed; only
//!   after a failure the folder with the logs stays.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval};

mod betting;
pub mod latency;
mod report;
mod reports;
pub mod servers;
pub mod workload;

pub use betting::{MIGRATIONS, PIPELINE, Seed, migrate, options, seed};
pub use reports::{REPORTS, create_reports};

use crate::cli::{DemoArgs, Domain, Exit};
use crate::output::Output;
use crate::service::board::{Phase, Status};
use latency::{Visibility, clickhouse_behind};
use report::{Run, Second, duration, growth, say, thousands};
use servers::clickhouse::ClickHouse;
use servers::postgres::{Postgres, Settings};
use servers::redis::{Persistence, Redis};
use servers::service::{Options, Service, format_lsn, parse_lsn};
use servers::{TempHome, log_tail};
use workload::Workload;

const SNAPSHOT_LIMIT: Duration = Duration::from_secs(600);
const CATCH_UP_LIMIT: Duration = Duration::from_secs(120);

/// The command.
pub async fn command(args: &DemoArgs, output: Output) -> Exit {
    match run(args).await {
        Ok(exit) => exit,
        Err(error) => {
            output.fault(&format!("{error:#}"));
            Exit::Failed
        }
    }
}

/// `Ok` if all went well and was equal, `Failed` if not.
async fn run(args: &DemoArgs) -> Result<Exit> {
    let Domain::Betting = args.domain;
    let mut interrupts = signal(SignalKind::interrupt())?;
    let mut terminations = signal(SignalKind::terminate())?;
    let mut stage = Stage::new()?;
    let outcome = tokio::select! {
        outcome = stage.play(args) => Some(outcome),
        _ = interrupts.recv() => None,
        _ = terminations.recv() => None,
    };
    if outcome.is_none() {
        say("\nstopping");
    }
    let home = stage.home.path().to_owned();
    let cleared = tokio::select! {
        cleared = stage.clear() => cleared,
        // Dropping what is left kills it.
        _ = interrupts.recv() => bail!("stopped in a hurry"),
    };
    match (outcome, cleared) {
        (Some(Ok(code)), Ok(_removed)) => Ok(code),
        (None, Ok(_removed)) => Ok(Exit::Ok),
        (Some(Err(error)), Ok(home) | Err((_, home))) => {
            let kept = home.keep();
            Err(error.context(format!("the demo failed; its folder is kept: {}", kept.display())))
        }
        (_, Err((error, _removed))) => {
            Err(error.context(format!("stopping the demo in {} failed", home.display())))
        }
    }
}

/// The servers on it, in the order in which they were started.
struct Stage {
    home: TempHome,
    postgres: Option<Postgres>,
    redis: Option<Redis>,
    clickhouse: Option<ClickHouse>,
    service: Option<Service>,
}

/// The servers once all are there.
struct Cast<'a> {
    home: &'a TempHome,
    postgres: &'a mut Postgres,
    redis: &'a mut Redis,
    clickhouse: &'a mut ClickHouse,
    service: &'a mut Service,
    options: Options,
}

impl Stage {
    fn new() -> Result<Self> {
        let home = TempHome::new("walview-demo-")?;
        Ok(Self { home, postgres: None, redis: None, clickhouse: None, service: None })
    }

    async fn play(&mut self, args: &DemoArgs) -> Result<Exit> {
        let started = Instant::now();
        say("walview demo: betting");
        self.start_servers().await?;
        let (Some(postgres), Some(redis), Some(clickhouse)) =
            (&mut self.postgres, &mut self.redis, &mut self.clickhouse)
        else {
            bail!("a server is missing");
        };
        say(&format!("  servers started in {}", duration(started.elapsed())));

        let seeding = Instant::now();
        let client = postgres.connect().await?;
        migrate(&client).await?;
        seed(&client, Seed::DEMO).await?;
        say(&format!(
            "  {} users, {} events, {} bets in {}",
            thousands(f64::from(Seed::DEMO.users)),
            thousands(f64::from(Seed::DEMO.events)),
            thousands(f64::from(Seed::DEMO.bets)),
            duration(seeding.elapsed())
        ));

        let options = betting::options(own_program()?, &self.home, (postgres, redis, clickhouse));
        std::fs::write(&options.pipeline_file, PIPELINE)?;
        let service = self.service.insert(Service::spawn(&options)?);
        let mut cast = Cast { home: &self.home, postgres, redis, clickhouse, service, options };
        cast.snapshot().await?;
        create_reports(cast.clickhouse).await?;
        cast.show_commands();
        cast.watch(args).await
    }

    async fn start_servers(&mut self) -> Result<()> {
        let home = &self.home;
        let (postgres, redis, clickhouse) = (home.postgres(), home.redis(), home.clickhouse());
        let logs = ["postgres", "redis", "clickhouse"].map(|name| home.log(name));
        let [postgres_log, redis_log, clickhouse_log] = &logs;
        let (postgres, redis, clickhouse) = tokio::try_join!(
            Postgres::start(&postgres, postgres_log, "betting", Settings::default()),
            Redis::start(&redis, redis_log, Persistence::AppendOnly),
            ClickHouse::start(&clickhouse, clickhouse_log),
        )?;
        self.postgres = Some(postgres);
        self.redis = Some(redis);
        self.clickhouse = Some(clickhouse);
        Ok(())
    }

    /// Stops everything, the readers of others first. The folder is returned, to be dropped or
    /// kept.
    async fn clear(self) -> Result<TempHome, (anyhow::Error, TempHome)> {
        let Self { home, postgres, redis, clickhouse, service } = self;
        let stop = async {
            if let Some(mut service) = service
                && service.check_running().is_ok()
            {
                service.stop().await?;
            }
            if let Some(mut clickhouse) = clickhouse {
                clickhouse.server.stop().await?;
            }
            if let Some(mut redis) = redis {
                redis.server.stop().await?;
            }
            if let Some(mut postgres) = postgres {
                postgres.server.stop().await?;
            }
            Ok(())
        };
        match stop.await {
            Ok(()) => Ok(home),
            Err(error) => Err((error, home)),
        }
    }
}

impl Cast<'_> {
    async fn snapshot(&mut self) -> Result<()> {
        let started = Instant::now();
        let mut shown = Instant::now();
        self.service
            .until("live", SNAPSHOT_LIMIT, |status| {
                if shown.elapsed() >= Duration::from_secs(1) {
                    shown = Instant::now();
                    say(&format!(
                        "  walview is {}{}",
                        match status.state {
                            Phase::Starting => "starting",
                            Phase::Snapshotting => "taking its snapshot",
                            Phase::Live => "live",
                            Phase::Stopped => "stopped",
                        },
                        progress(status)
                    ));
                }
                status.state == Phase::Live
            })
            .await?;
        say(&format!("  walview is live after {}", duration(started.elapsed())));
        Ok(())
    }

    fn show_commands(&self) {
        let redis = format!("redis-cli -p {}", self.redis.server.port());
        let clickhouse = self.clickhouse.url();
        let status = self.service.address().unwrap_or_default();
        say(&format!(
            "
look by hand:
  {redis} MGET bet_count:OPEN bet_count:SETTLED bet_count:CASHED_OUT bet_count:CANCELLED
  {redis} HGETALL event:1:stakes
  {redis} ZREVRANGE leaderboard:staked 0 9 WITHSCORES
  {redis} XREVRANGE recent_bets + - COUNT 2
  curl {clickhouse} --data-binary 'SELECT event_category, count() AS bets, sum(amount) AS staked FROM \
betting.bets_analytics GROUP BY event_category ORDER BY staked DESC FORMAT PrettyCompact'
  curl {clickhouse} --data-binary 'SELECT day, category, bets, stakes, margin FROM betting.settlement_daily \
ORDER BY day DESC, category LIMIT 10 FORMAT PrettyCompact'
  psql {} -c 'SELECT status, count(*) FROM bets GROUP BY status'
  curl http://{status}/status
logs: {}
",
            self.postgres.url(),
            self.home.path().join("logs").display(),
        ));
    }

    /// Runs the workload and prints a line a second, until the time is over.
    async fn watch(&mut self, args: &DemoArgs) -> Result<Exit> {
        let visibility = Arc::new(Visibility::default());
        let mut readers = JoinSet::new();
        readers.spawn(Arc::clone(&visibility).follow(self.redis.connect().await?));
        let mut before = self.service.status().await.context("walview shows no status")?;
        let mut workload = Workload::start(&self.postgres.url(), args.rate, &visibility).await?;
        let start = Instant::now();
        let (mut last, mut transactions) = (start, 0);
        let mut run = Run::default();
        let mut ticks = interval(Duration::from_secs(1));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.tick().await;
        while args.duration.is_none_or(|limit| start.elapsed() < limit) {
            tokio::select! {
                _ = ticks.tick() => {}
                error = workload.failed() => {
                    // More telling than a broken connection: the server that is gone.
                    self.check_running()?;
                    return Err(error);
                }
                Some(ended) = readers.join_next() => {
                    self.check_running()?;
                    ended??;
                }
            }
            self.check_running()?;
            let Some(status) = self.service.status().await else {
                continue;
            };
            let (cpu_seconds, changes) = growth(&before, &status);
            let totals = workload.totals();
            let second = Second {
                elapsed: start.elapsed(),
                interval: last.elapsed(),
                transactions: totals.transactions - transactions,
                changes,
                redis: visibility.second(),
                clickhouse: clickhouse_behind(&self.clickhouse.address()).await,
                cpu_seconds,
                rss_bytes: status.process.rss_bytes,
            };
            (last, transactions, before) = (Instant::now(), totals.transactions, status);
            run.add(&second);
            say(&second.line());
        }
        let totals = workload.stop().await?;
        let status = self.catch_up().await?;
        readers.shutdown().await;
        let code = self.verify().await?;
        say("\nsummary");
        say(&run.table(totals, visibility.total(), &status.process));
        Ok(code)
    }

    /// Waits until both stores hold what was committed.
    async fn catch_up(&mut self) -> Result<Status> {
        let started = Instant::now();
        let client = self.postgres.connect().await?;
        let lsn: String = client.query_one("SELECT pg_current_wal_lsn()::text", &[]).await?.get(0);
        let lsn = parse_lsn(&lsn).with_context(|| format!("cannot read the LSN {lsn:?}"))?;
        // One more bet: a store that holds it has gone past `lsn`, whatever else is in the log.
        client
            .batch_execute("INSERT INTO bets (user_id, event_id, amount, odds) VALUES (1, 1, 1, 2)")
            .await?;
        let status = self.service.until_stores_reach(lsn, CATCH_UP_LIMIT).await?;
        say(&format!(
            "\nworkload stopped; both stores hold everything up to {} after {}",
            format_lsn(lsn),
            duration(started.elapsed())
        ));
        Ok(status)
    }

    /// `walview verify`: every view against its SQL on PostgreSQL. What it prints is for people.
    async fn verify(&self) -> Result<Exit> {
        say("comparing every view with its SQL on PostgreSQL, value by value");
        let log = self.home.log("verify");
        let equal = self.options.verify(&log).await?;
        say(&log_tail(&log, 200));
        Ok(if equal { Exit::Ok } else { Exit::Failed })
    }

    /// Fails, naming the first that is gone, with the end of its log.
    fn check_running(&mut self) -> Result<()> {
        self.postgres.server.check_running()?;
        self.redis.server.check_running()?;
        self.clickhouse.server.check_running()?;
        self.service.check_running()
    }
}

fn progress(status: &Status) -> String {
    status.snapshot.as_ref().map_or_else(String::new, |snapshot| format!(": {}", snapshot.text()))
}

fn own_program() -> Result<PathBuf> {
    std::env::current_exe().context("cannot tell where this program is")
}
