//! Everything that one test needs: three servers, tables, a pipeline file, `walview run`.
//!
//! The servers' defaults are hostile on purpose: PostgreSQL's time zone and date style are not what
//! Walview wants, so a session that forgets to pin them shows.

use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::{Semaphore, SemaphorePermit};
use walview::demo::servers::TempHome;
use walview::demo::servers::clickhouse::ClickHouse;
use walview::demo::servers::postgres::{Db, Postgres, Settings};
use walview::demo::servers::redis::{Persistence, Redis};
use walview::demo::servers::service::{Options, Service, parse_lsn};
use walview::demo::{PIPELINE, Seed, migrate, seed};
use walview::service::board::Status;

/// Three servers and a load for each test: more of them at once are slower, not faster.
static WORLDS: Semaphore = Semaphore::const_new(2);

pub const LIVE_LIMIT: Duration = Duration::from_secs(120);
pub const CATCH_UP_LIMIT: Duration = Duration::from_secs(120);

pub struct World {
    pub service: Option<Service>,
    pub options: Options,
    pub postgres: Postgres,
    pub redis: Redis,
    pub clickhouse: ClickHouse,
    pub pipeline: String,
    pub home: TempHome,
    _permit: SemaphorePermit<'static>,
}

impl World {
    /// The servers, with the betting tables and these rows in them; walview does not run yet.
    pub async fn betting(rows: Seed) -> Self {
        Self::with_settings(rows, Vec::new()).await
    }

    pub async fn with_settings(rows: Seed, extra: Vec<(String, String)>) -> Self {
        let permit = WORLDS.acquire().await.unwrap();
        let home = TempHome::new("walview-test-").unwrap();
        let hostile = [("timezone", "Asia/Kolkata"), ("datestyle", "SQL, DMY")];
        let hostile = hostile.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let settings = Settings { fsync: false, extra: hostile.into_iter().chain(extra).collect() };
        let (postgres, redis, clickhouse) = (home.postgres(), home.redis(), home.clickhouse());
        let logs = ["postgres", "redis", "clickhouse"].map(|name| home.log(name));
        let [postgres_log, redis_log, clickhouse_log] = &logs;
        let (postgres, redis, clickhouse) = tokio::try_join!(
            Postgres::start(&postgres, postgres_log, "betting", settings),
            Redis::start(&redis, redis_log, Persistence::AppendOnly),
            ClickHouse::start(&clickhouse, clickhouse_log),
        )
        .unwrap();
        let client = postgres.connect().await.unwrap();
        migrate(&client).await.unwrap();
        seed(&client, rows).await.unwrap();
        let program = PathBuf::from(env!("CARGO_BIN_EXE_walview"));
        let options = walview::demo::options(program, &home, (&postgres, &redis, &clickhouse));
        let mut world = Self {
            service: None,
            options,
            postgres,
            redis,
            clickhouse,
            pipeline: String::new(),
            home,
            _permit: permit,
        };
        world.set_pipeline(PIPELINE);
        world
    }

    pub fn set_pipeline(&mut self, text: &str) {
        std::fs::write(&self.options.pipeline_file, text).unwrap();
        text.clone_into(&mut self.pipeline);
    }

    /// What `${name}` in the pipeline file means.
    pub fn set_env(&mut self, name: &str, value: String) {
        let entry = self.options.env.iter_mut().find(|(key, _)| key == name);
        entry.expect("a variable that the pipeline file uses").1 = value;
    }

    pub async fn db(&self) -> Db {
        self.postgres.connect().await.unwrap()
    }

    /// Column lists, row filters and a schema `public` that nobody else may write to are of 15.
    pub async fn before_15(&self) -> bool {
        let older = "SELECT current_setting('server_version_num')::int4 < 150000";
        self.db().await.query_one(older, &[]).await.unwrap().get(0)
    }

    pub fn spawn(&mut self) {
        assert!(self.service.is_none(), "walview runs already");
        self.service = Some(Service::spawn(&self.options).unwrap());
    }

    pub async fn start(&mut self) {
        self.spawn();
        self.service().until_live(LIVE_LIMIT).await.unwrap();
    }

    pub fn service(&mut self) -> &mut Service {
        self.service.as_mut().expect("walview runs")
    }

    /// SIGTERM; it must end by itself with exit 0.
    pub async fn stop(&mut self) {
        self.service.take().expect("walview runs").stop().await.unwrap();
    }

    pub async fn kill9(&mut self) {
        self.service.take().expect("walview runs").kill9().await.unwrap();
    }

    /// Waits until both stores hold everything that is committed now. Nothing more is written: a
    /// quiet source must not keep the stores' positions from going on.
    pub async fn caught_up(&mut self) -> Status {
        let sql = "SELECT pg_current_wal_flush_lsn()::text";
        let lsn: String = self.db().await.query_one(sql, &[]).await.unwrap().get(0);
        let lsn = parse_lsn(&lsn).unwrap();
        self.service().until_stores_reach(lsn, CATCH_UP_LIMIT).await.unwrap()
    }

    /// Caught up, every view is equal to its SQL on PostgreSQL, value by value.
    pub async fn assert_equal(&mut self) {
        self.caught_up().await;
        let found = crate::oracle::compare(self).await;
        assert!(found.compared > 0, "nothing was compared");
        if !found.differences.is_empty() {
            // The test is about to fail; whoever looks into it wants the state and the logs.
            let shown: Vec<_> = found.differences.iter().take(20).map(String::as_str).collect();
            let log = walview::demo::servers::log_tail(&self.options.log, 40);
            panic!(
                "{} of {} compared values differ:\n  {}\nthe end of walview's log:\n{log}",
                found.differences.len(),
                found.compared,
                shown.join("\n  ")
            );
        }
    }
}
