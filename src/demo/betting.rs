//! The betting domain: its tables, its pipeline, and rows to begin with.

use anyhow::{Context as _, Result};
use std::path::PathBuf;
use tokio_postgres::Client;

use super::servers::TempHome;
use super::servers::clickhouse::ClickHouse;
use super::servers::postgres::Postgres;
use super::servers::redis::Redis;
use super::servers::service::Options;

/// Every file of `migrations/postgres/betting/`, in order.
pub const MIGRATIONS: [(&str, &str); 2] = [
    ("0001_tables.sql", include_str!("../../migrations/postgres/betting/0001_tables.sql")),
    ("0002_indexes.sql", include_str!("../../migrations/postgres/betting/0002_indexes.sql")),
];

/// `pipeline/betting.yaml`.
pub const PIPELINE: &str = include_str!("../../pipeline/betting.yaml");

/// How many rows to begin with.
#[derive(Clone, Copy, Debug)]
pub struct Seed {
    pub users: i32,
    pub events: i32,
    pub bets: i32,
}

impl Seed {
    pub const DEMO: Self = Self { users: 20_000, events: 2_000, bets: 200_000 };
}

/// How `program` runs this domain's pipeline between these servers; the file is not written yet.
#[must_use]
pub fn options(
    program: PathBuf,
    home: &TempHome,
    (postgres, redis, clickhouse): (&Postgres, &Redis, &ClickHouse),
) -> Options {
    Options {
        program,
        pipeline_file: home.path().join("betting.yaml"),
        pipeline: "betting".to_owned(),
        state: home.state(),
        args: Vec::new(),
        env: vec![
            ("BETTING_DATABASE_URL".to_owned(), postgres.url()),
            ("REDIS_URL".to_owned(), redis.url()),
            ("CLICKHOUSE_URL".to_owned(), clickhouse.url()),
        ],
        log: home.log("walview"),
    }
}

pub async fn migrate(client: &Client) -> Result<()> {
    for (name, sql) in MIGRATIONS {
        client.batch_execute(sql).await.with_context(|| format!("migration \"{name}\" failed"))?;
    }
    Ok(())
}

/// The same rows every time, but for the day they end at: the last bet was placed just now.
pub async fn seed(client: &Client, seed: Seed) -> Result<()> {
    let sql = SEED_SQL
        .replace(":users", &seed.users.to_string())
        .replace(":events", &seed.events.to_string())
        .replace(":bets", &seed.bets.to_string());
    client.batch_execute(&sql).await.context("seeding failed")
}

/// Ids are left to the identity columns, so that the workload's continue them. `random()` squared
/// gives a few users and events most of the bets, as in life.
const SEED_SQL: &str = r"
BEGIN;
SET LOCAL synchronous_commit = off;
SELECT setseed(0.42);

INSERT INTO users (name, email, country, verified, preferences, created_at)
SELECT first || ' ' || last, lower(first) || '.' || lower(last) || i || '@example.com',
       CASE WHEN random() < 0.9 THEN (ARRAY['GB','DE','ES','FR','IT','PL','SE','BR','CA','AU'])[1 + floor(random() * 10)] END,
       random() < 0.7,
       jsonb_build_object('odds', (ARRAY['decimal','fractional','american'])[1 + floor(random() * 3)],
                          'daily_limit', 50 * (1 + floor(random() * 20))::int, 'newsletter', random() < 0.3),
       now() - random() * interval '900 days'
FROM (SELECT i,
             (ARRAY['Ada','Ben','Chloé','Dimitri','Ewa','Finn','Grace','Hugo','Iris','João','Kim','Lars','Mia','Noor','Olga','Pál',
                    'Quinn','Rosa','Sven','Tess'])[1 + i % 20] AS first,
             (ARRAY['Abel','Berg','Costa','Duarte','Evans','Fischer','García','Hansen','Ito','Jensen','Kowalski','Lopez','Moreau',
                    'Novák','O''Brien','Petrov','Quist','Rossi','Silva','Turner'])[1 + i / 20 % 20] AS last
      FROM generate_series(1, :users) i) AS names;

INSERT INTO events (name, category, status, starts_at, created_at)
SELECT home || ' v ' || away, category,
       CASE WHEN starts_at > now() THEN 'SCHEDULED' WHEN starts_at > now() - interval '2 hours' THEN 'LIVE'
            WHEN random() < 0.98 THEN 'FINISHED' ELSE 'ABANDONED' END,
       starts_at, starts_at - interval '14 days'
FROM (SELECT (ARRAY['Rovers','United','City','Athletic','Wanderers','Rangers','Albion','Harriers'])[1 + i % 8] AS home,
             (ARRAY['Lions','Sharks','Hawks','Bears','Wolves','Kings','Comets'])[1 + i % 7] AS away,
             (ARRAY['football','football','football','tennis','basketball','ice hockey','esports','horse racing'])
                 [1 + floor(random() * 8)] AS category,
             date_trunc('minute', now() + (random() * 1440 - 1200) * interval '1 hour') AS starts_at
      FROM generate_series(1, :events) i) AS fixtures;

INSERT INTO bets (user_id, event_id, amount, odds, status, payout, placed_at, settled_at)
SELECT user_id, event_id, amount, odds, status,
       CASE status WHEN 'SETTLED' THEN CASE WHEN won THEN round(amount * odds, 2) ELSE 0 END
                   WHEN 'CASHED_OUT' THEN round(amount * 0.8, 2) END,
       placed_at, CASE WHEN status <> 'OPEN' THEN placed_at + settled_after END
FROM (SELECT 1 + floor(:users * power(random(), 2))::bigint AS user_id,
             1 + floor(:events * power(random(), 2))::bigint AS event_id,
             round((1 + 199 * power(random(), 3))::numeric, 2) AS amount,
             round((1.05 + 9 * power(random(), 2))::numeric, 2) AS odds,
             CASE WHEN random() < 0.25 THEN 'OPEN' WHEN random() < 0.85 THEN 'SETTLED' WHEN random() < 0.7 THEN 'CASHED_OUT'
                  ELSE 'CANCELLED' END AS status,
             random() < 0.3 AS won,
             now() - (:bets - i) * (interval '60 days' / :bets) AS placed_at,
             random() * interval '1 day' AS settled_after
      FROM generate_series(1, :bets) i) AS tickets;
COMMIT;
ANALYZE;
";
