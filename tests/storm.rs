//! A storm of ALTERs among writes: views that do not use what changed stay equal, each that does
//! stops with its sentence. `make storm`, `SEED=…` repeats, `ALTERS=…` says how many.
//!
//! What must happen is predicted from the statement alone, before anything is looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::task::JoinSet;
use walview::demo::Seed;
use walview::demo::servers::postgres::Db;

use crate::schema::{stopped, until_writable};
use crate::workload;
use crate::world::World;

const ALTERS: usize = 100;
const LIMIT: Duration = Duration::from_secs(120);
const TABLES: usize = 16;

#[expect(clippy::disallowed_methods, reason = "a test that may be longer is told so from outside")]
fn alters() -> usize {
    std::env::var("ALTERS").map_or(ALTERS, |alters| alters.parse().expect("ALTERS is a number"))
}

/// Statements (one transaction where there are several), the views that must stop, and what their
/// sentences may hold, divided by `|`.
type Change = (Vec<String>, Vec<&'static str>, String);

/// One table as it must be by now.
struct Table {
    name: String,
    /// The current names of the columns that views use.
    a: String,
    b: String,
    e: String,
    spare: String,
    partitioned: bool,
    added: Vec<String>,
    count: usize,
    label: String,
    parts: usize,
    /// The view over every column of `<name>_s` has stopped.
    star_stopped: bool,
}

impl Table {
    fn create(index: usize) -> (Self, String) {
        let name = format!("t{index}");
        let partitioned = index % 4 == 3;
        // Every second one has no column that no view uses, so no column list.
        let spare = if index.is_multiple_of(2) { "" } else { ", spare int" };
        let mut sql = format!(
            "CREATE TYPE {name}_e AS ENUM ('l0', 'x', 'y');
             CREATE TABLE {name}_d (id int PRIMARY KEY, code int NOT NULL CONSTRAINT {name}_code UNIQUE, x int);
             INSERT INTO {name}_d SELECT i, i, i FROM generate_series(0, 9) i;
             CREATE TABLE {name}_s (id int PRIMARY KEY, c int);
             INSERT INTO {name}_s SELECT i, i % 10 FROM generate_series(1, 99) i;
             CREATE TABLE {name} (id int PRIMARY KEY, c int, a text, b numeric(12,2), e {name}_e {spare})"
        );
        if partitioned {
            write!(
                sql,
                " PARTITION BY RANGE (id);
                 CREATE TABLE {name}_0 PARTITION OF {name} FOR VALUES FROM (0) TO (1000);
                 CREATE TABLE {name}_1 PARTITION OF {name} FOR VALUES FROM (1000) TO (2000)"
            )
            .unwrap();
        }
        write!(sql, "; INSERT INTO {name} SELECT i * 9, i % 10, 'a' || i, i, 'x' FROM generate_series(1, 200) i")
            .unwrap();
        let [a, b, e] = ["a", "b", "e"].map(str::to_owned);
        let spare = if spare.is_empty() { String::new() } else { "spare".to_owned() };
        let (added, count, label, parts) = (Vec::new(), 0, "l0".to_owned(), 2);
        let star_stopped = false;
        let table =
            Self { name, a, b, e, spare, partitioned, added, count, label, parts, star_stopped };
        (table, sql)
    }

    const VIEWS: [(&str, &str); 6] = [
        ("a", "SELECT id, a FROM @"),
        ("b", "SELECT id, b FROM @"),
        ("e", "SELECT id, e FROM @"),
        ("c", "SELECT id, c FROM @"),
        ("n", "SELECT c AS id, count(*) AS n FROM @ WHERE c IS NOT NULL GROUP BY c"),
        ("j", "SELECT t.id, d.x FROM @ t LEFT JOIN @_d d ON d.code = t.c"),
    ];

    /// A view of a table of its own, which is only added to.
    const STAR: (&str, &str) = ("s", "SELECT * FROM @_s");

    fn change(&mut self, random: &mut StdRng) -> Change {
        self.count += 1;
        match random.random_range(0..120) {
            100.. => self.star(random),
            roll @ 0..66 => self.nobodys(roll),
            roll => self.somebodys(roll),
        }
    }

    fn star(&mut self, random: &mut StdRng) -> Change {
        let (t, n) = (format!("{}_s", self.name), self.count);
        let known =
            ["int", "int DEFAULT 5", "text NOT NULL DEFAULT 'it''s'", "int[] DEFAULT '{1,2}'"];
        let volatile = random.random_ratio(1, 8);
        let ty = if volatile { "int DEFAULT (random() * 9)::int" } else { known[n % known.len()] };
        let write = format!("UPDATE {t} SET c = c + 1 WHERE id < 30");
        let mut statements = vec![format!("ALTER TABLE {t} ADD new{n} {ty}")];
        if random.random_bool(0.5) {
            statements.insert(0, write.clone());
            statements.push(write);
            statements.push(format!("UPDATE {t} SET new{n} = DEFAULT WHERE id % 2 = 0"));
        }
        if !volatile || self.star_stopped {
            return (statements, Vec::new(), String::new());
        }
        self.star_stopped = true;
        // One that was added just before may be what the look finds first.
        let why = format!("table \"public.{t}\" has a new column \"new");
        (statements, vec![Self::STAR.0], why)
    }

    fn nobodys(&mut self, roll: u32) -> Change {
        let (t, n) = (self.name.clone(), self.count);
        match roll {
            0..12 => {
                let new = format!("new{n}");
                // Rewritten partitions look like truncated ones.
                let kinds = if self.partitioned { 2 } else { 3 };
                let default = ["", " DEFAULT 5", " DEFAULT (random() * 9)::int"][n % kinds];
                self.added.push(new.clone());
                nobody(format!("ALTER TABLE {t} ADD {new} int{default}"))
            }
            12..18 => match self.added.pop() {
                Some(gone) => nobody(format!("ALTER TABLE {t} DROP {gone}")),
                None => nobody(format!("ANALYZE {t}")),
            },
            18..24 if !self.spare.is_empty() => {
                let old = std::mem::replace(&mut self.spare, format!("spare{n}"));
                nobody(format!("ALTER TABLE {t} RENAME {old} TO {}", self.spare))
            }
            24..30 if !self.spare.is_empty() && !self.partitioned => {
                let ty = ["text", "varchar"][n % 2];
                nobody(format!("ALTER TABLE {t} ALTER {} TYPE {ty}", self.spare))
            }
            30..34 if !self.partitioned => nobody(format!("VACUUM FULL {t}")),
            34..37 if !self.partitioned => nobody(format!("CLUSTER {t} USING {t}_pkey")),
            37..41 if !self.partitioned => {
                nobody(format!("ALTER TABLE {t} SET (fillfactor = {})", 50 + n))
            }
            41..45 => nobody(format!("ALTER TYPE {t}_e ADD VALUE 'more{n}' BEFORE 'y'")),
            45..49 => nobody(format!("CREATE INDEX ON {t} ({})", self.b)),
            49..53 => nobody(format!("ALTER TABLE {t} ADD CHECK (id > -{n})")),
            53..57 => (
                vec![
                    format!("TRUNCATE {t}"),
                    format!("INSERT INTO {t} SELECT i * 9, i % 10 FROM generate_series(1, 99) i"),
                ],
                Vec::new(),
                String::new(),
            ),
            57..61 => {
                nobody(format!("ALTER TABLE {t} REPLICA IDENTITY {}", ["FULL", "DEFAULT"][n % 2]))
            }
            61..66 if self.partitioned => {
                let (part, from) = (self.parts, self.parts * 1000);
                self.parts += 1;
                nobody(format!(
                    "CREATE TABLE {t}_{part} PARTITION OF {t} FOR VALUES FROM ({from}) TO ({})",
                    from + 1000
                ))
            }
            _ => nobody(format!("COMMENT ON TABLE {t} IS 'change {n}'")),
        }
    }

    fn somebodys(&mut self, roll: u32) -> Change {
        let (t, n) = (self.name.clone(), self.count);
        let all = || Self::VIEWS.iter().map(|(name, _)| *name).collect::<Vec<_>>();
        let column = |column: &str, what: &str| {
            format!("column \"{column}\" of table \"public.{t}\" {what}")
        };
        match roll {
            66..72 => {
                let old = std::mem::replace(&mut self.a, format!("a{n}"));
                let why = column(&old, "was dropped or renamed|") + &column(&old, "was renamed to");
                let write = format!("UPDATE {t} SET c = c + 1 WHERE id < 100");
                (
                    vec![write.clone(), format!("ALTER TABLE {t} RENAME {old} TO a{n}"), write],
                    vec!["a"],
                    why,
                )
            }
            72..77 => {
                let old = std::mem::replace(&mut self.label, format!("l{n}"));
                (
                    vec![format!("ALTER TYPE {t}_e RENAME VALUE '{old}' TO 'l{n}'")],
                    vec!["e"],
                    "whose labels were renamed".to_owned(),
                )
            }
            77..81 if !self.partitioned => (
                vec![format!(
                    "ALTER TABLE {t} ALTER {b} TYPE numeric(12,2) USING {b} + 1",
                    b = self.b
                )],
                vec!["b"],
                column(&self.b, "was rewritten"),
            ),
            81..84 if !self.partitioned => (
                vec![format!("ALTER TABLE {t} ALTER {} TYPE numeric({},2)", self.b, 13 + n)],
                vec!["b"],
                column(&self.b, "changed its type"),
            ),
            84..88 => (
                vec![format!(
                    "ALTER TABLE {t}_d DROP CONSTRAINT {t}_code, ADD CONSTRAINT {t}_code UNIQUE (code) DEFERRABLE"
                )],
                vec!["j"],
                "the unique key over \"code\"".to_owned(),
            ),
            88..90 => {
                let why = "the publication of table|the publication no longer sends";
                (
                    vec![
                        format!("ALTER PUBLICATION walview_storm DROP TABLE {t}"),
                        format!("UPDATE {t} SET c = 1 WHERE id < 50"),
                        format!("ALTER PUBLICATION walview_storm ADD TABLE {t}"),
                    ],
                    all(),
                    why.to_owned(),
                )
            }
            90..93 if self.partitioned => {
                let part = 900 + n;
                (
                    vec![
                        format!("CREATE TABLE {t}_{part} (LIKE {t} INCLUDING ALL)"),
                        format!("INSERT INTO {t}_{part} (id) VALUES ({part}500)"),
                        format!(
                            "ALTER TABLE {t} ATTACH PARTITION {t}_{part} FOR VALUES FROM ({part}000) TO ({part}999)"
                        ),
                    ],
                    all(),
                    "was attached|is already there|is not there".to_owned(),
                )
            }
            93..95 if self.partitioned => (
                vec![format!("TRUNCATE {t}_1")],
                all(),
                "was truncated or rewritten by itself|is already there|is not there".to_owned(),
            ),
            95..97 => {
                let why = format!("table \"public.{t}\" is called");
                (
                    vec![
                        format!("ALTER TABLE {t} RENAME TO {t}_gone"),
                        format!("CREATE TABLE {t} (id int PRIMARY KEY, c int)"),
                    ],
                    all(),
                    why,
                )
            }
            _ => nobody(format!("COMMENT ON TABLE {t} IS 'change {n}'")),
        }
    }
}

fn nobody(sql: String) -> Change {
    (vec![sql], Vec::new(), String::new())
}

fn pipeline() -> String {
    let mut text = "pipeline: storm\nsource: { url: \"${BETTING_DATABASE_URL}\" }\n\
                    stores:\n  redis: { url: \"${REDIS_URL}\" }\nviews:\n"
        .to_owned();
    for table in 0..TABLES {
        for (view, sql) in Table::VIEWS.into_iter().chain([Table::STAR]) {
            let sql = sql.replace('@', &format!("t{table}"));
            write!(
                text,
                "  - name: t{table}_{view}\n    sql: |\n      {sql}\n    to:\n      \
                 - redis: {{ hash: \"t{table}_{view}:{{id}}\" }}\n"
            )
            .unwrap();
        }
    }
    text
}

/// Writes to every table all the time. What PostgreSQL refuses for a moment (a replica identity that
/// the publication does not cover, a table that is being renamed) is not ours to judge here.
async fn write(client: Db, seed: u64, stop: Arc<AtomicBool>) -> u64 {
    let mut random = StdRng::seed_from_u64(seed);
    let mut written = 0;
    while !stop.load(Ordering::Relaxed) {
        let (t, id) = (random.random_range(0..TABLES), random.random_range(1..2000));
        let c = random.random_range(0..10);
        let sql = match random.random_range(0..6) {
            4 => format!("UPDATE t{t}_s SET c = {c} WHERE id BETWEEN {id} % 99 AND {id} % 99 + 9"),
            5 => format!(
                "INSERT INTO t{t}_s (id, c) VALUES ({id}, {c}) ON CONFLICT (id) DO UPDATE SET c = {c}"
            ),
            0 => format!(
                "INSERT INTO t{t} (id, c) VALUES ({id}, {c}) ON CONFLICT (id) DO UPDATE SET c = {c}"
            ),
            1 => format!("DELETE FROM t{t} WHERE id = {id}"),
            2 => format!("UPDATE t{t} SET c = {c} WHERE id BETWEEN {id} AND {id} + 20"),
            _ => format!("UPDATE t{t}_d SET x = x + 1 WHERE id = {c}"),
        };
        written += u64::from(client.batch_execute(&sql).await.is_ok());
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    written
}

#[tokio::test]
#[ignore = "minutes: make storm"]
async fn storm() {
    let seed = workload::seed();
    let mut random = StdRng::seed_from_u64(seed);
    let mut world = World::betting(Seed { users: 1, events: 1, bets: 1 }).await;
    world.options.pipeline = "storm".to_owned();
    world.set_pipeline(&pipeline());
    let client = world.db().await;
    let mut tables = Vec::new();
    for index in 0..TABLES {
        let (table, sql) = Table::create(index);
        client.batch_execute(&sql).await.unwrap();
        tables.push(table);
    }
    world.start().await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut writers = JoinSet::new();
    writers.spawn(write(world.db().await, seed, Arc::clone(&stop)));
    let mut expected: BTreeMap<String, String> = BTreeMap::new();
    let (mut done, mut refused, mut harmless, mut lost) = (0, 0, 0, BTreeSet::new());
    while done < alters() {
        let at = random.random_range(0..TABLES);
        // Where every view has stopped there is nothing to be seen.
        if lost.contains(&at) {
            if lost.len() == TABLES {
                break;
            }
            continue;
        }
        let (statements, stops, why) = tables[at].change(&mut random);
        let sql = match statements.as_slice() {
            [one] => one.clone(),
            several => format!("BEGIN; {}; COMMIT", several.join("; ")),
        };
        // Sometimes it happens behind Walview's back.
        let away = random.random_ratio(1, 8);
        if away && random.random_bool(0.5) {
            world.kill9().await;
        } else if away {
            world.stop().await;
        }
        match client.batch_execute(&sql).await {
            Ok(()) => {
                println!(
                    "{sql}  -- {}",
                    if stops.is_empty() { "nobody".to_owned() } else { stops.join(", ") }
                );
                done += 1;
                harmless += usize::from(stops.is_empty());
                if stops.len() == Table::VIEWS.len() {
                    lost.insert(at);
                }
                for view in stops {
                    expected
                        .entry(format!("t{at}_{view}"))
                        .or_default()
                        .push_str(&format!("{why}|"));
                }
            }
            // PostgreSQL refuses some because of the column list, or for a moment: nothing changed.
            Err(error) => {
                let refusal =
                    error.as_db_error().map_or("", tokio_postgres::error::DbError::message);
                println!("refused: {sql}: {refusal}");
                refused += 1;
                client.batch_execute("ROLLBACK").await.ok();
                let (table, _) = Table::create(at);
                resync_names(&client, &mut tables[at], table).await;
            }
        }
        if away {
            world.start().await;
        }
        tokio::time::sleep(Duration::from_millis(random.random_range(0..400))).await;
    }
    stop.store(true, Ordering::Relaxed);
    let mut written = 0;
    while let Some(writer) = writers.join_next().await {
        written += writer.unwrap();
    }
    let compared = judge(&mut world, &client, &expected, &lost).await;
    println!(
        "seed {seed}: {done} ALTERs ({harmless} that concern nobody, {refused} more refused by \
         PostgreSQL), {written} writes, {} of {} views stopped, {compared} values equal",
        expected.len(),
        TABLES * (Table::VIEWS.len() + 1),
    );
    world.stop().await;
}

/// Every view that must have stopped has, each with its sentence, and no other; the rest is equal.
async fn judge(
    world: &mut World,
    client: &Db,
    expected: &BTreeMap<String, String>,
    lost: &BTreeSet<usize>,
) -> usize {
    let status = world
        .service()
        .until("stopped where it must be", LIMIT, |status| {
            expected.keys().all(|view| stopped(status).contains_key(view))
        })
        .await
        .unwrap();
    for (view, why) in stopped(&status) {
        let says = expected.get(&view).unwrap_or_else(|| panic!("{view} stopped: {why}"));
        assert!(
            says.split('|').any(|says| !says.is_empty() && why.contains(says)),
            "{view}: {why}, not {says}"
        );
        println!("  {view}: {why}");
    }
    // Every table that is still followed takes writes, and the views that are left are equal.
    for at in (0..TABLES).filter(|at| !lost.contains(at)) {
        until_writable(
            client,
            &format!("UPDATE t{at} SET c = 3 WHERE id < 900; UPDATE t{at}_d SET x = x + 1"),
        )
        .await;
    }
    // Rows of the last shape, so that nobody waits for a look.
    for at in 0..TABLES {
        until_writable(client, &format!("UPDATE t{at}_s SET c = 3 WHERE id < 40")).await;
    }
    let status = world.caught_up().await;
    let names: BTreeSet<String> = stopped(&status).into_keys().collect();
    assert_eq!(names, expected.keys().cloned().collect());
    let found = crate::oracle::compare_but(world, &names).await;
    assert!(found.differences.is_empty(), "{:#?}", found.differences);
    found.compared
}

/// What was refused changed nothing: the names are as PostgreSQL has them.
async fn resync_names(client: &Db, table: &mut Table, fresh: Table) {
    let sql =
        "SELECT attname::text FROM pg_attribute WHERE attrelid = to_regclass($1) AND attnum > 0
               AND NOT attisdropped ORDER BY attnum";
    let rows = client.query(sql, &[&table.name]).await.unwrap();
    let names: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    let [_, _, a, b, e, ..] = names.as_slice() else { panic!("{names:?}") };
    let (has_spare, more) = (!fresh.spare.is_empty(), names.get(5..).unwrap_or_default());
    table.a = a.clone();
    table.b = b.clone();
    table.e = e.clone();
    if has_spare {
        table.spare = more[0].clone();
    }
    table.added = more.iter().skip(usize::from(has_spare)).cloned().collect();
}
