//! What the cases share: servers of their own, Walview between them, and its reference.
//!
//! ```text
//!  PostgreSQL ──► walview run ──► Redis, ClickHouse      each a child process, in a folder that goes
//!        └──────► pg_recvlogical ──► /dev/null           a slot of its own over the same WAL
//! ```
//!
//! What would come between two measurements by itself is off: autovacuum, and checkpoints, which
//! are made before the clock starts.

use anyhow::{Context as _, Result, ensure};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::process::Command;
use tokio::time::sleep;
use walview::demo::options;
use walview::demo::servers::clickhouse::ClickHouse;
use walview::demo::servers::postgres::{Db, Postgres, Settings};
use walview::demo::servers::redis::{Persistence, Redis};
use walview::demo::servers::service::{Options, Service, format_lsn, parse_lsn};
use walview::demo::servers::{Launch, Signal, TempHome, log_tail};
use walview::service::board::{ProcessStatus, Status};

pub(crate) const LIMIT: Duration = Duration::from_secs(1_800);
const POLL: Duration = Duration::from_millis(200);
/// Of the reference.
const SLOT: &str = "reference";

pub(crate) struct World {
    pub(crate) postgres: Postgres,
    pub(crate) redis: Redis,
    pub(crate) clickhouse: ClickHouse,
    pub(crate) options: Options,
    /// As the owner of the tables.
    pub(crate) client: Db,
    /// A statement whose change Walview follows.
    insert: &'static str,
    /// Last, because the servers live in it.
    home: TempHome,
}

/// What is measured: the program that was built with the benchmark, or the one that `WALVIEW_BIN` names.
pub(crate) fn program() -> PathBuf {
    let named = std::env::var_os("WALVIEW_BIN");
    named.map_or_else(|| env!("CARGO_BIN_EXE_walview").into(), PathBuf::from)
}

impl World {
    /// Of the one table that backlogs are of.
    pub(crate) const PUBLICATION: &str = "reference";

    pub(crate) async fn start(pipeline: &str, insert: &'static str) -> Result<Self> {
        let home = TempHome::new("walview-bench-")?;
        let extra = [("autovacuum", "off"), ("max_wal_size", "20GB"), ("checkpoint_timeout", "1d")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec();
        let settings = Settings { extra, ..Settings::default() };
        let (folder, log) = (home.postgres(), home.log("postgres"));
        let postgres = Postgres::start(&folder, &log, "betting", settings).await?;
        let redis =
            Redis::start(&home.redis(), &home.log("redis"), Persistence::AppendOnly).await?;
        let clickhouse = ClickHouse::start(&home.clickhouse(), &home.log("clickhouse")).await?;
        let options = options(program(), &home, (&postgres, &redis, &clickhouse));
        std::fs::write(&options.pipeline_file, pipeline)?;
        let client = postgres.connect().await?;
        Ok(Self { postgres, redis, clickhouse, options, client, insert, home })
    }

    /// Walview, its snapshot done.
    pub(crate) async fn live(&self) -> Result<Service> {
        let mut service = Service::spawn(&self.options)?;
        service.until_live(LIMIT).await?;
        Ok(service)
    }

    /// Fails unless every view is what PostgreSQL says.
    pub(crate) async fn verify(&self) -> Result<()> {
        let service = self.live().await?;
        let log = self.home.log("verify");
        ensure!(self.options.verify(&log).await?, "not equal:\n{}", log_tail(&log, 50));
        service.stop().await
    }

    /// A new one, for a server more.
    pub(crate) fn folder(&self, name: &str) -> Result<PathBuf> {
        let folder = self.home.path().join(name);
        std::fs::create_dir(&folder)?;
        Ok(folder)
    }

    pub(crate) fn redis_folder(&self) -> PathBuf {
        self.home.redis()
    }

    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.home.log(name)
    }

    /// As if Walview had never run: its state, slot and publication, and all that the stores hold.
    pub(crate) async fn forget(&self) -> Result<()> {
        let sql = "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots
                   WHERE slot_name LIKE 'walview%'";
        self.client.execute(sql, &[]).await?;
        self.client.batch_execute("DROP PUBLICATION IF EXISTS walview_betting").await?;
        std::fs::remove_dir_all(&self.options.state)?;
        std::fs::create_dir(&self.options.state)?;
        let mut redis = self.redis.connect().await?;
        redis::cmd("FLUSHALL").exec_async(&mut redis).await?;
        for database in ["betting", "betting_rows"] {
            let sql = format!("DROP DATABASE IF EXISTS {database} SYNC");
            self.clickhouse.query(&sql).await?;
        }
        Ok(())
    }

    /// The end of the WAL.
    pub(crate) async fn lsn(&self) -> Result<u64> {
        self.read_lsn("SELECT pg_current_wal_insert_lsn()::text").await
    }

    /// The end of the WAL, with another commit behind it: whoever has got beyond holds all that was
    /// committed before. All of it is on disk then: decoding stops where it is not.
    pub(crate) async fn last_commit(&self) -> Result<u64> {
        let end = self.lsn().await?;
        self.client.batch_execute("SET synchronous_commit = on").await?;
        self.client.batch_execute(self.insert).await?;
        Ok(end)
    }

    async fn read_lsn(&self, sql: &str) -> Result<u64> {
        let lsn: String = self.client.query_one(sql, &[]).await?.get(0);
        parse_lsn(&lsn).with_context(|| format!("cannot read the LSN {lsn:?}"))
    }

    /// Walview's slot has nothing of earlier repeats left to decode, and Walview does not run.
    pub(crate) async fn park(&self) -> Result<()> {
        let service = self.live().await?;
        let behind = self.lsn().await?;
        let admin = Db::connect(&self.postgres.admin_url("betting")).await?;
        let started = Instant::now();
        let restart = "SELECT restart_lsn::text FROM pg_replication_slots
                       WHERE slot_name LIKE 'walview%'";
        while self.read_lsn(restart).await? < behind {
            ensure!(started.elapsed() < LIMIT, "the slot stays before {}", format_lsn(behind));
            // Slots move to running transactions that are logged, which a checkpoint does.
            admin.batch_execute("CHECKPOINT").await?;
            sleep(POLL).await;
        }
        service.stop().await
    }

    /// The publication of `table` for whoever is measured beside Walview; slots are made for each
    /// backlog.
    pub(crate) async fn publish(&self, table: &str) -> Result<()> {
        let sql = format!("CREATE PUBLICATION {} FOR TABLE {table}", Self::PUBLICATION);
        Ok(self.client.batch_execute(&sql).await?)
    }

    /// What is committed from here on is read by [`Self::reference`].
    pub(crate) async fn reference_slot(&self) -> Result<()> {
        let sql = format!("SELECT pg_create_logical_replication_slot('{SLOT}', 'pgoutput')");
        Ok(self.client.batch_execute(&sql).await?)
    }

    /// How `pg_recvlogical` reads from the reference's slot to `file`; `-` is its output.
    fn recvlogical(&self, file: &str) -> (PathBuf, Vec<String>) {
        let args = [
            "--dbname",
            &self.postgres.url(),
            "--slot",
            SLOT,
            "--start",
            "--no-loop",
            &format!("--file={file}"),
            "--option=proto_version=1",
            &format!("--option=publication_names={}", Self::PUBLICATION),
        ];
        (self.postgres.client_program("pg_recvlogical"), args.map(str::to_owned).to_vec())
    }

    /// `pg_recvlogical` to its output, for as long as it is let.
    pub(crate) fn reference_to_pipe(&self) -> Command {
        let (program, args) = self.recvlogical("-");
        let mut command = Command::new(program);
        command.args(args);
        command
    }

    /// Waits until somebody, or nobody, reads from the reference's slot.
    pub(crate) async fn until_reference(&self, reads: bool) -> Result<()> {
        let sql = "SELECT active FROM pg_replication_slots WHERE slot_name = $1";
        let started = Instant::now();
        while self.client.query_one(sql, &[&SLOT]).await?.get::<_, bool>(0) != reads {
            ensure!(started.elapsed() < LIMIT, "the reference's slot: active is not {reads}");
            sleep(POLL).await;
        }
        Ok(())
    }

    pub(crate) async fn drop_reference_slot(&self) -> Result<()> {
        self.until_reference(false).await?;
        self.client.execute("SELECT pg_drop_replication_slot($1)", &[&SLOT]).await?;
        Ok(())
    }

    /// How long `pg_recvlogical` takes from its slot to `end`. `ClickHouse`, which may still be
    /// merging what it got, stands still meanwhile.
    pub(crate) async fn reference(&self, end: u64) -> Result<Duration> {
        let (program, mut args) = self.recvlogical("/dev/null");
        args.push(format!("--endpos={}", format_lsn(end)));
        let launch = Launch {
            program,
            args,
            env: Vec::new(),
            user: None,
            log: self.home.log("pg_recvlogical"),
            death: Signal::KILL,
        };
        self.clickhouse.server.freeze()?;
        let started = Instant::now();
        launch.run("pg_recvlogical", LIMIT).await?;
        let elapsed = started.elapsed();
        self.clickhouse.server.thaw()?;
        self.drop_reference_slot().await?;
        Ok(elapsed)
    }

    /// From the start of Walview until both stores hold everything up to `end`.
    pub(crate) async fn drain(&self, end: u64) -> Result<Drained> {
        let clock = Clock::start()?;
        let mut service = Service::spawn(&self.options)?;
        let status = service.until_stores_reach(end, LIMIT).await?;
        let drained = clock.stop(&status)?;
        service.stop().await?;
        Ok(drained)
    }
}

/// What a stretch of work took.
pub(crate) struct Drained {
    pub(crate) elapsed: Duration,
    pub(crate) cpu_seconds: f64,
    /// Of everybody else on the machine meanwhile: of the servers, where nothing else runs.
    pub(crate) others_cpu_seconds: f64,
    pub(crate) peak_mib: f64,
}

/// Runs from just before the start of Walview's process.
pub(crate) struct Clock {
    started: Instant,
    busy_seconds: f64,
}

impl Clock {
    pub(crate) fn start() -> Result<Self> {
        Ok(Self { started: Instant::now(), busy_seconds: busy_seconds()? })
    }

    /// `status` is of a process that did nothing else since its start.
    pub(crate) fn stop(self, status: &Status) -> Result<Drained> {
        let elapsed = self.started.elapsed();
        let ProcessStatus { cpu_seconds, rss_peak_bytes, .. } = status.process;
        let others_cpu_seconds = busy_seconds()? - self.busy_seconds - cpu_seconds;
        Ok(Drained { elapsed, cpu_seconds, others_cpu_seconds, peak_mib: mib(rss_peak_bytes) })
    }
}

/// Busy time of all processors since the machine's start, whoever it was for. In steps of 10 ms.
fn busy_seconds() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().context("the processors' line")?;
    let ticks = line.split_whitespace().skip(1).map(str::parse);
    let ticks = ticks.collect::<Result<Vec<f64>, _>>()?;
    // user, nice, system, idle, iowait, irq, softirq of proc_stat(5); guests are in user.
    let busy = [0, 1, 2, 5, 6].iter().filter_map(|index| ticks.get(*index));
    Ok(busy.sum::<f64>() / 100.0)
}

pub(crate) fn mib(bytes: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a figure")]
    let bytes = bytes as f64;
    bytes / f64::from(1 << 20)
}

/// Has `scripts/setup` install what one case alone needs, by its name there.
pub(crate) async fn install(what: &str, log: &Path) -> Result<()> {
    let launch = Launch {
        program: Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/setup"),
        args: vec![what.to_owned()],
        env: Vec::new(),
        user: None,
        log: log.to_owned(),
        death: Signal::TERM,
    };
    launch.run(&format!("scripts/setup {what}"), LIMIT).await
}
