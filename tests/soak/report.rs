//! What the crash loop did: a line for each step, and a table at the end.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::Instant;

use super::load::Counts;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Victim {
    Walview,
    PostgreSql,
    Redis,
    /// Redis, and what it had not synced is gone.
    RedisPower,
    ClickHouse,
}

impl Victim {
    pub fn name(self) -> &'static str {
        match self {
            Self::Walview => "walview",
            Self::PostgreSql => "postgres",
            Self::Redis => "redis",
            Self::RedisPower => "redis (power)",
            Self::ClickHouse => "clickhouse",
        }
    }
}

pub enum Fault {
    Kill(Vec<Victim>),
    Freeze(Victim),
}

#[derive(Default)]
struct Tally {
    kills: usize,
    recoveries: Vec<Duration>,
}

pub struct Report {
    pub seed: u64,
    pub chapters: u64,
    pub freezes: usize,
    pub differences: usize,
    pub counts: Arc<Counts>,
    began: Instant,
    story: Vec<String>,
    tallies: BTreeMap<Victim, Tally>,
    looks: usize,
    values: usize,
    entries: usize,
    rows: u64,
    /// The most that any life of Walview took, where it was looked at.
    peak_bytes: u64,
}

impl Report {
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            chapters: 0,
            freezes: 0,
            differences: 0,
            counts: Arc::default(),
            began: Instant::now(),
            story: vec![format!("SEED={seed}")],
            tallies: BTreeMap::new(),
            looks: 0,
            values: 0,
            entries: 0,
            rows: 0,
            peak_bytes: 0,
        }
    }

    /// The chapter's own seed: the run's seed begins with the first chapter.
    pub fn next_chapter(&mut self) -> u64 {
        let seed = self.seed.wrapping_add(self.chapters.wrapping_mul(0x9E37_79B9));
        self.chapters += 1;
        self.say(&format!("chapter {}, seed {seed}", self.chapters));
        seed
    }

    pub fn say(&mut self, line: &str) {
        let line = format!("{:7.1}s {line}", self.began.elapsed().as_secs_f64());
        println!("{line}");
        self.story.push(line);
    }

    pub fn story(&self) -> String {
        format!("{}\n{self}\n", self.story.join("\n"))
    }

    pub fn killed(&mut self, victim: Victim) {
        self.tallies.entry(victim).or_default().kills += 1;
    }

    pub fn recovered(&mut self, victims: &[Victim], took: Duration) {
        for victim in victims {
            self.tallies.entry(*victim).or_default().recoveries.push(took);
        }
    }

    pub fn took_memory(&mut self, bytes: u64) {
        self.peak_bytes = self.peak_bytes.max(bytes);
    }

    pub fn looked(&mut self, values: usize, entries: usize, rows: u64) {
        self.looks += 1;
        self.values += values;
        self.entries += entries;
        self.rows += rows;
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let minutes = self.began.elapsed().as_secs_f64() / 60.0;
        writeln!(f, "\nSEED={}  {} chapters  {minutes:.1} minutes", self.seed, self.chapters)?;
        writeln!(
            f,
            "{:14} {:>6} {:>9} {:>8} {:>8}",
            "killed", "times", "measured", "median", "worst"
        )?;
        let mut kills = 0;
        for (victim, tally) in &self.tallies {
            kills += tally.kills;
            let mut took = tally.recoveries.clone();
            took.sort();
            let (median, worst) = (took.get(took.len() / 2), took.last());
            let seconds = |time: Option<&Duration>| {
                time.map_or("-".to_owned(), |t| format!("{:.2}s", t.as_secs_f64()))
            };
            let (name, measured) = (victim.name(), took.len());
            let (median, worst) = (seconds(median), seconds(worst));
            writeln!(f, "{name:14} {:>6} {measured:>9} {median:>8} {worst:>8}", tally.kills)?;
        }
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let counts = &self.counts;
        writeln!(f, "{kills} kills, {} freezes", self.freezes)?;
        writeln!(
            f,
            "{} statements, {} transactions committed, {} rolled back, {} died with the server",
            count(&counts.statements),
            count(&counts.committed),
            count(&counts.rolled_back),
            count(&counts.lost)
        )?;
        writeln!(
            f,
            "{} row changes; compared {} times: {} values, {} entries of streams",
            self.rows, self.looks, self.values, self.entries
        )?;
        writeln!(f, "walview took {} MiB at most", self.peak_bytes >> 20)?;
        write!(f, "{} differences", self.differences)
    }
}
