//! The crash loop: everything is killed, frozen and cut short at random moments, under every kind
//! of statement, and everything is right afterwards.
//!
//! ```text
//!  chapter: fresh servers ─► first snapshot, hit a few times ─► rounds ─► stop, start ─► equal
//!  round:   a moment ─► kill -9 | freeze one of the four, or two at once ─► a pause ─► start
//!           └─ most wait until all is caught up; some are hit again before that
//!  look:    every few rounds: no load, caught up, every view equal, streams as PostgreSQL decodes
//! ```
//!
//! - A short one is part of the suite; `make soak MINUTES=60` repeats chapters until the time is
//!   over. Both print their seed first and take it back (`SEED=…`); what is drawn from it are
//!   faults and statements, not how the machine interleaves them.
//! - Redis is killed in two ways: as a process, which loses nothing, and as if the power was cut:
//!   its file ends anywhere within the last second, is mended by `redis-check-aof`, and it comes
//!   back with an older mark.
//! - Walview ends by itself where it starts and its source stays away. Then it is started again,
//!   as a supervisor would; at any other time that fails the run.
//! - A failed run keeps its folder: data, logs, pipeline file, `story.txt`.

pub mod events;
mod load;
mod report;

use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::time::Duration;

use futures_util::FutureExt as _;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::time::{Instant, sleep};
use walview::demo::Seed;
use walview::demo::servers::service::{Service, parse_lsn};
use walview::service::board::{Phase, StoreState};

use crate::workload::{self};
use crate::world::World;
use events::{CHANGES_MAX, Events};
use load::{Load, Size};
use report::{Fault, Report, Victim};

/// How long everything may take to be live and caught up again.
const RECOVERY_LIMIT: Duration = Duration::from_secs(300);
/// A source that was away explains an end of Walview's for so long afterwards.
const SOURCE_GRACE: Duration = Duration::from_secs(30);
/// Long enough for several chapters in an hour, short enough for the snapshots to stay frequent.
const CHAPTER: Duration = Duration::from_secs(420);
const ROUNDS_PER_LOOK: u32 = 12;

#[derive(Clone, Copy)]
enum Until {
    Rounds(u32),
    Moment(Instant),
}

/// The loop in short, on every run of the suite.
#[tokio::test]
async fn crash_loop() {
    let size = Size { connections: 3, large_rows: 6_000, large_every: Duration::from_secs(12) };
    let rows = Seed { users: 40, events: 25, bets: 3_000 };
    let mut report = Report::new(workload::seed());
    chapter(&mut report, rows, size, Until::Rounds(8)).await;
    println!("{report}");
}

/// The loop at length: `make soak MINUTES=60`.
#[tokio::test]
#[ignore = "takes as long as it is told: make soak MINUTES=60"]
#[expect(clippy::disallowed_methods, reason = "make tells how long")]
async fn soak() {
    let minutes = std::env::var("MINUTES").ok().map_or(10, |text| text.parse().unwrap());
    // What a debug build keeps up with, so that rounds are short; a transaction of 12,000 bets is
    // 30,000 row changes, more than is made durable in one piece.
    let size = Size { connections: 3, large_rows: 12_000, large_every: Duration::from_secs(60) };
    let mut report = Report::new(workload::seed());
    let end = Instant::now() + Duration::from_secs(minutes * 60);
    while Instant::now() < end {
        // Every other snapshot is large enough to be hit in its middle.
        let bets = if report.chapters.is_multiple_of(2) { 60_000 } else { 2_000 };
        let rows = Seed { users: 40, events: 25, bets };
        let until = end.min(Instant::now() + CHAPTER);
        chapter(&mut report, rows, size, Until::Moment(until)).await;
        println!("{report}");
    }
}

/// Betting's views, and a stream of every change of a bet.
pub fn pipeline() -> String {
    format!(
        "{}
  - name: bet_changes
    sql: |
      SELECT id, event_id, status, amount FROM bets
    to:
      - redis: {{ stream: bet_changes, maxlen: {CHANGES_MAX} }}
",
        walview::demo::PIPELINE.trim_end()
    )
}

async fn chapter(report: &mut Report, rows: Seed, size: Size, until: Until) {
    let seed = report.next_chapter();
    let mut world = World::betting(rows).await;
    world.set_pipeline(&pipeline());
    let events = Events::begin(&world).await;
    let load = Load::start(&world.postgres.url(), seed, size, &report.counts);
    let random = StdRng::seed_from_u64(seed);
    let mut soak =
        Soak { world, random, events, load: Some(load), seed, size, report, source_was: None };
    let told = AssertUnwindSafe(Box::pin(soak.play(until))).catch_unwind().await;
    if let Err(panic) = told {
        let Soak { world, report, .. } = soak;
        let kept = keep(world, report);
        println!("{report}\nSEED={}; evidence is kept in {}", report.seed, kept.display());
        std::panic::resume_unwind(panic);
    }
}

/// Ends the servers where they stand and keeps their folder.
fn keep(world: World, report: &Report) -> PathBuf {
    let World { service, postgres, redis, clickhouse, home, .. } = world;
    drop((service, postgres, redis, clickhouse));
    let kept = home.keep();
    std::fs::write(kept.join("story.txt"), report.story()).unwrap();
    kept
}

/// Takes away the transaction that the end of the file cuts in two. Redis does so itself, but for
/// one that ends in the middle of a command: of that it drops the command and leaves the `MULTI`
/// open, and at the next start runs its remains together with what follows (mended in Valkey by
/// valkey-io/valkey#4342). That is beyond what a client can put right.
fn mend(append_only_file: &std::path::Path) {
    let mut check = std::process::Command::new("redis-check-aof")
        .arg("--fix")
        .arg(append_only_file)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut check.stdin.take().unwrap(), b"y\n").ok();
    assert!(check.wait().unwrap().success(), "redis-check-aof --fix failed");
}

struct Soak<'a> {
    world: World,
    random: StdRng,
    events: Events,
    load: Option<Load>,
    seed: u64,
    size: Size,
    report: &'a mut Report,
    /// When the source was away last.
    source_was: Option<Instant>,
}

impl Soak<'_> {
    async fn play(&mut self, until: Until) {
        self.first_snapshot().await;
        let mut rounds = 0;
        loop {
            self.round().await;
            rounds += 1;
            let over = match until {
                Until::Rounds(all) => rounds >= all,
                Until::Moment(end) => Instant::now() >= end,
            };
            if over || rounds.is_multiple_of(ROUNDS_PER_LOOK) {
                self.look(over).await;
            }
            if over {
                break;
            }
        }
        self.world.stop().await;
    }

    /// Everything is hit while the first snapshot is taken, under load.
    async fn first_snapshot(&mut self) {
        self.world.spawn();
        let victims = [Victim::Walview, Victim::ClickHouse, Victim::Redis, Victim::PostgreSql];
        for victim in victims {
            self.moment(700).await;
            self.supervise();
            self.kill(&[victim], "first snapshot").await;
        }
        let took = self.recover(&[], Instant::now()).await;
        self.report.say(&format!("first snapshot live and caught up after {took:.1?}"));
    }

    async fn round(&mut self) {
        self.moment(1_500).await;
        let all = [Victim::Walview, Victim::PostgreSql, Victim::Redis, Victim::ClickHouse];
        let fault = match self.random.random_range(0..100) {
            0..30 => Fault::Kill(vec![Victim::Walview]),
            30..46 => Fault::Kill(vec![Victim::PostgreSql]),
            46..58 => Fault::Kill(vec![Victim::Redis]),
            58..66 => Fault::Kill(vec![Victim::RedisPower]),
            66..78 => Fault::Kill(vec![Victim::ClickHouse]),
            78..90 => {
                let one = self.random.random_range(0..4);
                let other = (one + self.random.random_range(1..4)) % 4;
                Fault::Kill(vec![all[one], all[other]])
            }
            _ => Fault::Freeze(all[self.random.random_range(1..4)]),
        };
        // Some are hit again before they have recovered.
        let waits = self.random.random_bool(0.7);
        match fault {
            Fault::Kill(victims) => {
                let back = self.kill(&victims, "").await;
                if waits {
                    let took = self.recover(&victims, back).await;
                    self.report.say(&format!("  caught up after {took:.1?}"));
                }
            }
            Fault::Freeze(victim) => {
                self.freeze(victim).await;
                if waits {
                    let took = self.recover(&[], Instant::now()).await;
                    self.report.say(&format!("  caught up {took:.1?} after the thaw"));
                }
            }
        }
        self.load.as_mut().unwrap().check();
    }

    async fn moment(&mut self, milliseconds_max: u64) {
        sleep(Duration::from_millis(self.random.random_range(0..milliseconds_max))).await;
    }

    /// Returns when the victims were started again.
    async fn kill(&mut self, victims: &[Victim], when: &str) -> Instant {
        for victim in victims {
            match victim {
                Victim::Walview => self.world.kill9().await,
                Victim::PostgreSql => self.world.postgres.server.kill9().await.unwrap(),
                Victim::Redis => self.world.redis.server.kill9().await.unwrap(),
                Victim::RedisPower => self.cut_power_of_redis().await,
                Victim::ClickHouse => self.world.clickhouse.server.kill9().await.unwrap(),
            }
            self.report.killed(*victim);
        }
        let pause = self.random.random_range(0..900);
        let named: Vec<&str> = victims.iter().map(|victim| victim.name()).collect();
        self.report.say(&format!("kill -9 {} {when} (away for {pause} ms)", named.join(" and ")));
        sleep(Duration::from_millis(pause)).await;
        let back = Instant::now();
        for victim in victims {
            match victim {
                Victim::Walview => self.world.spawn(),
                Victim::PostgreSql => {
                    self.world.postgres.server.start().await.unwrap();
                    self.source_was = Some(Instant::now());
                }
                Victim::Redis | Victim::RedisPower => {
                    self.world.redis.server.start().await.unwrap();
                }
                Victim::ClickHouse => self.world.clickhouse.server.start().await.unwrap(),
            }
        }
        back
    }

    /// As `appendfsync everysec` allows: what was written within the last second may be gone.
    async fn cut_power_of_redis(&mut self) {
        let before = self.append_only_file();
        self.moment(950).await;
        self.world.redis.server.kill9().await.unwrap();
        let after = self.append_only_file();
        // Not where Redis was just writing the file anew.
        if let (Some((path, from)), Some((same, to))) = (before, after)
            && path == same
            && from < to
        {
            let left = self.random.random_range(from..=to);
            let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
            file.set_len(left).unwrap();
            mend(&path);
            self.report.say(&format!("  redis loses the last {} of {to} bytes", to - left));
        }
    }

    fn append_only_file(&self) -> Option<(PathBuf, u64)> {
        let folder = std::fs::read_dir(self.world.home.redis().join("appendonlydir")).ok()?;
        let files = folder.flatten().map(|entry| entry.path());
        let path = files.filter(|path| path.to_string_lossy().ends_with(".incr.aof")).max()?;
        let length = path.metadata().ok()?.len();
        Some((path, length))
    }

    async fn freeze(&mut self, victim: Victim) {
        let moment = Duration::from_millis(self.random.random_range(100..4_000));
        self.report.say(&format!("freeze {} for {moment:?}", victim.name()));
        self.report.freezes += 1;
        let World { postgres, redis, clickhouse, .. } = &self.world;
        match victim {
            Victim::PostgreSql => postgres.server.freeze().unwrap(),
            Victim::Redis | Victim::RedisPower => redis.server.freeze().unwrap(),
            Victim::ClickHouse | Victim::Walview => clickhouse.server.freeze().unwrap(),
        }
        sleep(moment).await;
        match victim {
            Victim::PostgreSql => postgres.server.thaw().unwrap(),
            Victim::Redis | Victim::RedisPower => redis.server.thaw().unwrap(),
            Victim::ClickHouse | Victim::Walview => clickhouse.server.thaw().unwrap(),
        }
        if victim == Victim::PostgreSql {
            self.source_was = Some(Instant::now());
        }
    }

    /// Waits until every store holds what is committed now. How long that took since `since`, with
    /// load on all the time, goes to the victims' account.
    async fn recover(&mut self, victims: &[Victim], since: Instant) -> Duration {
        let started = Instant::now();
        let sql = "SELECT pg_current_wal_flush_lsn()::text";
        let lsn: String = self.world.db().await.query_one(sql, &[]).await.unwrap().get(0);
        let lsn = parse_lsn(&lsn).unwrap();
        loop {
            self.supervise();
            let status = self.world.service().status().await;
            if let Some(status) = &status {
                for store in &status.stores {
                    let stopped = store.state == StoreState::Stopped;
                    assert!(!stopped, "store {} stopped: {:?}", store.name, store.last_error);
                }
                let stopped = status.views.iter().find(|view| view.reason.is_some());
                assert!(stopped.is_none(), "a view stopped: {stopped:?}");
                self.report.took_memory(status.process.rss_peak_bytes);
                let reached = |held: &str| parse_lsn(held).is_some_and(|held| held >= lsn);
                if status.state == Phase::Live && status.stores.iter().all(|s| reached(&s.lsn)) {
                    break;
                }
            }
            assert!(
                started.elapsed() < RECOVERY_LIMIT,
                "not caught up within {RECOVERY_LIMIT:?}, last seen as {status:?}\n{}",
                walview::demo::servers::log_tail(&self.world.options.log, 40)
            );
            sleep(Duration::from_millis(20)).await;
        }
        let took = since.elapsed();
        self.report.recovered(victims, took);
        took
    }

    /// What systemd or Docker does.
    fn supervise(&mut self) {
        let Err(ended) = self.world.service().check_running() else { return };
        let explained = self.source_was.is_some_and(|was| was.elapsed() < SOURCE_GRACE);
        assert!(explained, "walview ended by itself: {ended}");
        self.report.say("  walview had ended, its source being away; started again");
        self.world.service = Some(Service::spawn(&self.world.options).unwrap());
    }

    /// With no load and all caught up, everything is compared.
    async fn look(&mut self, last: bool) {
        self.load.take().unwrap().stop().await;
        // A commit that waits for the disk takes those with it that did not wait.
        let sync = "SELECT pg_logical_emit_message(true, 'soak', 'look')";
        self.world.db().await.batch_execute(sync).await.unwrap();
        let took = self.recover(&[], Instant::now()).await;
        let found = crate::oracle::compare(&self.world).await;
        let shown: Vec<_> = found.differences.iter().take(20).map(String::as_str).collect();
        self.report.differences += found.differences.len();
        assert!(
            shown.is_empty(),
            "{} of {} compared values differ:\n  {}",
            found.differences.len(),
            found.compared,
            shown.join("\n  ")
        );
        assert!(found.compared > 0, "nothing was compared");
        let rows = self.events.rows;
        let entries = if last {
            self.events.check_all(&self.world).await
        } else {
            self.events.check(&self.world).await
        };
        self.report.looked(found.compared, entries, self.events.rows - rows);
        let values = found.compared;
        self.report.say(&format!(
            "equal: {values} values and {entries} entries of streams, caught up after {took:.1?}"
        ));
        if !last {
            self.seed = self.seed.wrapping_add(1);
            let url = self.world.postgres.url();
            self.load = Some(Load::start(&url, self.seed, self.size, &self.report.counts));
        }
    }
}
