//! `walview plan`: what it says of good and of broken set-ups, that it changes nothing, and that
//! what it asks for is enough.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;

use serde_json::Value as Json;
use walview::demo::PIPELINE;
use walview::demo::servers::postgres::Db;
use walview::demo::servers::service::Service;

use crate::end_to_end::SMALL;
use crate::stream;
use crate::workload;
use crate::world::World;

/// What a run of `plan` said.
pub struct Said {
    code: i32,
    text: String,
}

impl Said {
    #[track_caller]
    pub fn has(&self, phrases: &[&str]) {
        for phrase in phrases {
            assert!(self.text.contains(phrase), "{phrase:?} is not said:\n{}", self.text);
        }
    }

    fn json(&self) -> Json {
        serde_json::from_str(&self.text).unwrap()
    }

    /// The statements that it asks for, of the only pipeline: who may run them, and what.
    fn fixes(&self) -> Vec<(String, String)> {
        let json = self.json();
        let problems = json["pipelines"][0]["problems"].as_array().unwrap().clone();
        let of = |problem: &Json| {
            let by = problem["by"].as_str().unwrap_or_default().to_owned();
            let list = problem["statements"].as_array().unwrap().clone();
            list.into_iter().map(move |text| (by.clone(), text.as_str().unwrap().to_owned()))
        };
        problems.iter().flat_map(of).collect::<Vec<_>>()
    }
}

async fn plan_with(world: &World, more: &[&str]) -> Said {
    let mut command = tokio::process::Command::new(&world.options.program);
    command.arg("plan").arg(&world.options.pipeline_file).arg("--state").arg(&world.options.state);
    command.args(more);
    command.envs(world.options.env.iter().map(|(name, value)| (name, value)));
    let output = command.stdin(Stdio::null()).kill_on_drop(true).output().await.unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    for printed in [&text, &errors] {
        assert!(!printed.contains(world.postgres.password()), "a password is printed:\n{printed}");
    }
    assert_eq!(errors, "", "with:\n{text}");
    Said { code: output.status.code().unwrap(), text }
}

/// For people, and shown by `--nocapture`.
pub async fn plan(world: &World) -> Said {
    let said = plan_with(world, &[]).await;
    println!("{}\n(exit code {})\n", said.text, said.code);
    said
}

async fn plan_json(world: &World) -> Said {
    plan_with(world, &["--json"]).await
}

/// Everything that a plan could change, in a form that can be compared.
struct Everything {
    /// The next transaction id: nothing can be written without taking one.
    transaction: String,
    slots: Vec<String>,
    redis_keys: BTreeMap<Vec<u8>, Vec<u8>>,
    /// Every write counts, of the same value too.
    redis_changes: String,
    clickhouse: String,
    state: Vec<String>,
}

impl Everything {
    async fn of(world: &World) -> Self {
        let client = world.db().await;
        let one = async |sql: &str| -> String { client.query_one(sql, &[]).await.unwrap().get(0) };
        let slots = "SELECT concat_ws(' ', slot_name, active, restart_lsn, confirmed_flush_lsn)
                     FROM pg_replication_slots ORDER BY 1";
        let slots = client.query(slots, &[]).await.unwrap();
        let mut redis = world.redis.connect().await.unwrap();
        let keys: Vec<Vec<u8>> = redis::cmd("KEYS").arg("*").query_async(&mut redis).await.unwrap();
        let mut redis_keys = BTreeMap::new();
        for key in keys {
            let value: Vec<u8> =
                redis::cmd("DUMP").arg(&key).query_async(&mut redis).await.unwrap();
            redis_keys.insert(key, value);
        }
        let info: String =
            redis::cmd("INFO").arg("persistence").query_async(&mut redis).await.unwrap();
        let changes = info.lines().find(|line| line.starts_with("rdb_changes_since_last_save"));
        let tables = "SELECT database, name, create_table_query, total_rows FROM system.tables \
                      WHERE database NOT IN ('system', 'INFORMATION_SCHEMA', 'information_schema') \
                      ORDER BY 1, 2";
        let databases = "SELECT name FROM system.databases ORDER BY 1";
        let mut state = Vec::new();
        files(&world.options.state, &mut state);
        state.sort();
        Self {
            transaction: one("SELECT pg_snapshot_xmax(pg_current_snapshot())::text").await,
            slots: slots.iter().map(|row| row.get(0)).collect(),
            redis_keys,
            redis_changes: changes.unwrap().to_owned(),
            clickhouse: world.clickhouse.query(tables).await.unwrap()
                + &world.clickhouse.query(databases).await.unwrap(),
            state,
        }
    }
}

impl Everything {
    async fn assert_unchanged(&self, world: &World) {
        let now = Self::of(world).await;
        // One by one: a failure that prints every key says nothing.
        assert_eq!(now.transaction, self.transaction, "a transaction wrote at the source");
        assert_eq!(now.slots, self.slots);
        assert_eq!(now.redis_changes, self.redis_changes, "something was written to Redis");
        assert!(now.redis_keys == self.redis_keys, "a key of Redis changed");
        assert_eq!(now.clickhouse, self.clickhouse);
        assert_eq!(now.state, self.state);
    }
}

fn files(folder: &Path, found: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().unwrap().is_dir() {
            files(&entry.path(), found);
            continue;
        }
        // Opening the store lets it tidy its journal and manifests; what holds rows stays.
        let path = entry.path().display().to_string();
        if path.contains("/tables/") || !path.contains("/store/") {
            let bytes = std::fs::read(entry.path()).unwrap();
            let mut hasher = std::hash::DefaultHasher::new();
            std::hash::Hash::hash(&bytes, &mut hasher);
            let hash = std::hash::Hasher::finish(&hasher);
            found.push(format!("{path} {hash:x}"));
        }
    }
}

/// Autovacuum takes transaction ids when it likes.
async fn quiet_world() -> World {
    quiet_world_with(&[]).await
}

async fn quiet_world_with(settings: &[(&str, &str)]) -> World {
    let quiet = [("autovacuum", "off")];
    let settings = quiet.iter().chain(settings);
    let settings = settings.map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    World::with_settings(SMALL, settings.collect()).await
}

/// The role that a careful operator makes; `walview` owns the tables here, and the schema by owning
/// the database (before 15 `public` is a superuser's, unless somebody sees to it).
async fn reader(world: &mut World, attributes: &str) -> Db {
    let admin = Db::connect(&world.postgres.admin_url("betting")).await.unwrap();
    let password = world.postgres.password();
    let create = format!("CREATE ROLE reader LOGIN {attributes} PASSWORD '{password}'");
    admin.batch_execute(&create).await.unwrap();
    let schema =
        "ALTER SCHEMA public OWNER TO pg_database_owner; REVOKE ALL ON SCHEMA public FROM PUBLIC";
    admin.batch_execute(schema).await.unwrap();
    world.set_env("BETTING_DATABASE_URL", world.postgres.url().replace("//walview:", "//reader:"));
    admin
}

/// A good set-up: it says what will be made and what stands in the way of nothing, `run` then makes
/// just that, and it is ready again while it runs and after it.
#[tokio::test]
async fn a_good_set_up_and_the_life_after() {
    let mut world = quiet_world().await;
    world.db().await.batch_execute("ANALYZE").await.unwrap();
    let before = Everything::of(&world).await;
    let said = plan(&world).await;
    assert_eq!(said.code, 0, "{}", said.text);
    said.has(&["will be made, values in binary ("]);
    said.has(&[
        "the first: tables are copied and the stores filled",
        "walview_betting: will be made",
        "CREATE PUBLICATION \"walview_betting\" FOR TABLE",
        "CREATE TABLE `betting_rows`.`bets_analytics`",
        "CREATE OR REPLACE VIEW `betting`.`bets_analytics`",
        "bet_count:{status} (new)",
        "betting: ready, walview run would start",
    ]);
    let json = plan_json(&world).await.json();
    assert_eq!(json["result"], "ready");
    assert_eq!(json["pipelines"][0]["start"], "first");
    assert_eq!(json["pipelines"][0]["slot"]["format"], "binary");
    let bets = &json["pipelines"][0]["tables"][0];
    assert_eq!((&bets["table"], &bets["rows"]), (&"public.bets".into(), &500.into()));
    before.assert_unchanged(&world).await;

    world.start().await;
    // The statements that were announced are those that ran.
    let comment = "SELECT obj_description(oid, 'pg_publication') FROM pg_publication";
    let comment: String = world.db().await.query_one(comment, &[]).await.unwrap().get(0);
    assert_eq!(comment, "walview:betting");
    world.caught_up().await;
    let said = plan(&world).await;
    assert_eq!(said.code, 0, "{}", said.text);
    said.has(&["runs already; nothing to do", "betting: runs, nothing is in the way"]);
    let changed = PIPELINE.replace("maxlen: 10000", "maxlen: 20000");
    std::fs::write(&world.options.pipeline_file, &changed).unwrap();
    let said = plan(&world).await;
    assert_eq!(said.code, 1, "{}", said.text);
    said.has(&["was started from another definition", "walview rebuild"]);
    world.set_pipeline(PIPELINE);
    world.stop().await;

    let before = Everything::of(&world).await;
    let said = plan(&world).await;
    assert_eq!(said.code, 0, "{}", said.text);
    said.has(&["goes on where the last run ended", "bet_count:{status} (kept)"]);
    before.assert_unchanged(&world).await;
    // What the state says of itself is the same when it is asked again.
    let state =
        async || plan_json(&world).await.json()["pipelines"][0]["state"]["durable_to"].clone();
    assert_eq!(state().await, state().await);
    world.start().await;
    world.assert_equal().await;
    world.stop().await;

    std::fs::write(&world.options.pipeline_file, &changed).unwrap();
    let said = plan(&world).await;
    assert_eq!(said.code, 1, "{}", said.text);
    said.has(&["has changed since its state was built", "walview rebuild"]);
    world.set_pipeline(PIPELINE);
    // Another state folder is no state at all, and what stands in the stores would be removed.
    let slot = "SELECT pg_drop_replication_slot('walview_betting')";
    world.db().await.execute(slot, &[]).await.unwrap();
    world.options.state = world.home.path().join("other");
    let said = plan(&world).await;
    assert_eq!(said.code, 0, "{}", said.text);
    said.has(&["bet_count:{status} (emptied, REMOVES 4 that stand there)"]);
    assert!(!world.options.state.try_exists().unwrap(), "plan made a folder");
}

/// Everything from the exact statements that `plan` prints, and no right beyond: snapshot, changes,
/// a restart. Column by column and table by table.
#[tokio::test]
async fn the_rights_that_plan_asks_for_are_enough() {
    for by_column in [false, true] {
        let seed = workload::seed();
        let mut world = World::betting(SMALL).await;
        let admin = reader(&mut world, "").await;
        if by_column {
            // Some column of each: plan then asks for the columns that are missing, and no more.
            let some = "GRANT SELECT (id) ON users, events, bets TO reader";
            world.db().await.batch_execute(some).await.unwrap();
        }
        let fixes = plan_json(&world).await.fixes();
        for (by, statement) in &fixes {
            println!("{by}: {statement}");
            let by_owner = statement.contains("ON \"public\"") || statement.contains("PUBLICATION");
            // `walview` owns tables and publication, and is no superuser.
            let client = if by_owner { &world.db().await } else { &admin };
            client.batch_execute(statement).await.unwrap();
        }
        let statements: Vec<&str> = fixes.iter().map(|(_, text)| text.as_str()).collect();
        let whole = statements.contains(&"GRANT SELECT ON \"public\".\"users\" TO \"reader\"");
        assert_eq!(whole, !by_column, "{statements:?}");
        let said = plan(&world).await;
        assert_eq!(said.code, 0, "{}", said.text);
        said.has(&["walview_betting: sends all that the views use"]);

        workload::run(&world, seed, 60).await;
        stream::remember_inserts(&world).await;
        world.start().await;
        world.assert_equal().await;
        workload::run(&world, seed + 1, 120).await;
        world.assert_equal().await;
        world.stop().await;
        workload::run(&world, seed + 2, 60).await;
        world.start().await;
        world.assert_equal().await;
        stream::assert_every_insert_once(&world).await;
        world.stop().await;
        refused(&world).await;
    }
}

/// The role can change nothing.
async fn refused(world: &World) {
    let url = world.postgres.url().replace("//walview:", "//reader:");
    let reader = Db::connect(&url).await.unwrap();
    for statement in [
        "INSERT INTO users (name, email) VALUES ('x', 'x')",
        "UPDATE bets SET amount = 1",
        "DELETE FROM events",
        "TRUNCATE users",
        "CREATE TABLE t (id int)",
        "ALTER PUBLICATION walview_betting DROP TABLE bets",
        "DROP PUBLICATION walview_betting",
        "CREATE PUBLICATION another FOR TABLE bets",
    ] {
        let error = reader.batch_execute(statement).await.unwrap_err();
        let code = error.code().map(|code| code.code().to_owned());
        assert_eq!(code.as_deref(), Some("42501"), "{statement}: {error:?}");
    }
}

/// The role lacks everything that it can lack: all of it is named at once.
#[tokio::test]
async fn broken_no_rights_at_all() {
    let mut world = quiet_world().await;
    reader(&mut world, "").await;
    let before = Everything::of(&world).await;
    let said = plan(&world).await;
    assert_eq!(said.code, 1);
    // Before 15 there are no column lists.
    let publication = if world.before_15().await {
        "\"public\".\"users\", \"public\".\"events\" WITH (publish = "
    } else {
        "\"public\".\"users\" (\"id\", \"name\", \"country\", \"verified\", \"preferences\", \"created_at\")"
    };
    said.has(&[
        "role \"reader\" may not replicate",
        "role \"reader\" may not use schema \"public\"",
        "role \"reader\" may not read table \"public.bets\"",
        "publication \"walview_betting\" does not exist and role \"reader\" may not create it",
        "on PostgreSQL, as a superuser:\n  ALTER ROLE \"reader\" REPLICATION;\n",
        "on PostgreSQL, as its owner \"walview\":\n\
         \x20 GRANT USAGE ON SCHEMA \"public\" TO \"reader\";\n\
         \x20 GRANT SELECT ON \"public\".\"bets\" TO \"reader\";\n\
         \x20 GRANT SELECT ON \"public\".\"users\" TO \"reader\";\n\
         \x20 GRANT SELECT ON \"public\".\"events\" TO \"reader\";\n",
        &format!(
            "  CREATE PUBLICATION \"walview_betting\" FOR TABLE \"public\".\"bets\", {publication}"
        ),
        "betting: not ready, 6 things in the way; nothing was changed",
    ]);
    before.assert_unchanged(&world).await;
    // Where the schema is a superuser's, as it always is before 15, that is who must grant.
    let admin = Db::connect(&world.postgres.admin_url("betting")).await.unwrap();
    admin.batch_execute("ALTER SCHEMA public OWNER TO postgres").await.unwrap();
    plan(&world).await.has(&[
        "on PostgreSQL, as its owner \"postgres\":\n\
         \x20 GRANT USAGE ON SCHEMA \"public\" TO \"reader\";\n\n",
        "on PostgreSQL, as its owner \"walview\":\n\
         \x20 GRANT SELECT ON \"public\".\"bets\" TO \"reader\";\n",
    ]);
    // It may not even come in: the one thing that can be said is said.
    admin.batch_execute("REVOKE CONNECT ON DATABASE betting FROM PUBLIC").await.unwrap();
    let said = plan(&world).await;
    assert_eq!(said.code, 1);
    said.has(&[
        "GRANT CONNECT ON DATABASE \"betting\" TO \"reader\";",
        "store       redis: Redis ",
    ]);
}

#[tokio::test]
async fn broken_wal_level_and_no_free_slot() {
    let settings = [("wal_level", "replica"), ("max_replication_slots", "1")];
    let world = quiet_world_with(&settings).await;
    let admin = Db::connect(&world.postgres.admin_url("betting")).await.unwrap();
    let slot = "SELECT pg_create_physical_replication_slot('standby')";
    admin.execute(slot, &[]).await.unwrap();
    let before = Everything::of(&world).await;
    let said = plan(&world).await;
    assert_eq!(said.code, 1);
    said.has(&[
        "is \"replica\"; logical replication needs \"logical\"",
        "has no free replication slot: all 1 are in use; drop one that is not needed",
        "on PostgreSQL, as a superuser; then restart PostgreSQL:\n\
         \x20 ALTER SYSTEM SET wal_level = logical;\n",
        "betting: not ready, 2 things in the way",
    ]);
    before.assert_unchanged(&world).await;
    // `run` names the first, and where the others are named.
    let mut service = Service::spawn(&world.options).unwrap();
    service.exited(crate::world::LIVE_LIMIT).await.unwrap();
    let log = std::fs::read_to_string(&world.options.log).unwrap();
    assert!(log.contains("needs \"logical\""), "{log}");
    assert!(log.contains("one more problem: walview plan names all of them"), "{log}");
}

/// A table that must not be published as it is, another that does not exist, a file with an error in
/// one view, and no right to publish: the rest is planned all the same.
#[tokio::test]
async fn broken_a_table_without_key_and_no_publication_rights() {
    let mut world = quiet_world().await;
    let owner = world.db().await;
    owner
        .batch_execute(
            "ALTER TABLE bets DROP CONSTRAINT bets_pkey;
             CREATE UNIQUE INDEX bets_id ON bets (id)",
        )
        .await
        .unwrap();
    reader(&mut world, "REPLICATION").await;
    let grants = "GRANT USAGE ON SCHEMA public TO reader;
                  GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader";
    owner.batch_execute(grants).await.unwrap();
    let before = Everything::of(&world).await;
    let said = plan(&world).await;
    assert_eq!(said.code, 1);
    said.has(&[
        "table \"public.bets\" has no primary key and no replica identity: once it is published, the \
         application's UPDATE and DELETE on it fail",
        "on PostgreSQL, as its owner:\n  ALTER TABLE public.bets REPLICA IDENTITY USING INDEX bets_id;",
        "may not create it: it does not own table \"public.",
        "; mend the tables named here first: plan then prints the statement",
        // Views that do not need it are planned.
        "user_card ",
    ]);
    assert!(!said.text.contains("CREATE PUBLICATION"), "{}", said.text);
    before.assert_unchanged(&world).await;

    owner.batch_execute("ALTER TABLE bets REPLICA IDENTITY USING INDEX bets_id").await.unwrap();
    let said = plan(&world).await;
    said.has(&["CREATE PUBLICATION \"walview_betting\" FOR TABLE \"public\".\"bets\", "]);
    // A mistake in a view hides nothing else.
    world.set_pipeline(
        &PIPELINE.replace("SELECT id, user_id FROM bets", "SELECT id, usr_id AS user_id FROM bets"),
    );
    owner.batch_execute("ALTER TABLE users RENAME TO people").await.unwrap();
    let said = plan(&world).await;
    assert_eq!(said.code, 1);
    said.has(&["usr_id", "betting.yaml:", "table \"public.users\" does not exist"]);
}

/// A Redis that evicts, holds other people's keys where ours would go, and does not let us write.
#[tokio::test]
async fn broken_redis() {
    let mut world = quiet_world().await;
    let mut redis = world.redis.connect().await.unwrap();
    for line in [
        "CONFIG SET maxmemory-policy allkeys-lru",
        "CONFIG SET maxmemory 100mb",
        "CONFIG SET appendonly no",
        "SET bet_count:OPEN mine",
        "HSET event:7 name theirs",
        "SET bet_counted 1",
    ] {
        let mut words = line.split(' ');
        let mut command = redis::cmd(words.next().unwrap());
        words.for_each(|word| _ = command.arg(word));
        command.exec_async(&mut redis).await.unwrap();
    }
    let before = Everything::of(&world).await;
    let said = plan(&world).await;
    assert_eq!(said.code, 1);
    said.has(&[
        "Redis has maxmemory-policy allkeys-lru, which may evict what views hold",
        "CONFIG SET maxmemory-policy noeviction\n",
        "of maxmemory 105 MB in use",
        "redis: bet_count:{status} (emptied, REMOVES 1 that stand there)",
        "redis: event:{id} (emptied, REMOVES 1 that stand there)",
        "redis: user:{id} (new)",
        "redis: no persistence: a crash of Redis loses more than the 10 seconds",
    ]);
    before.assert_unchanged(&world).await;

    let user = [
        "SETUSER",
        "careful",
        "on",
        ">pw1",
        "+info",
        "+scan",
        "+watch",
        "+get",
        "+multi",
        "+unwatch",
        "+acl|whoami",
        "~walview:*",
        "~event:*",
    ];
    redis::cmd("ACL").arg(&user).exec_async(&mut redis).await.unwrap();
    world.set_env("REDIS_URL", world.redis.url().replace("redis://", "redis://careful:pw1@"));
    let before = Everything::of(&world).await;
    let said = plan(&world).await;
    assert_eq!(said.code, 1);
    said.has(&["the Redis user \"careful\" may not do what walview needs"]);
    assert!(!said.text.contains("pw1"), "{}", said.text);
    before.assert_unchanged(&world).await;
    // What it prints is enough.
    let policy = ["SET", "maxmemory-policy", "noeviction"];
    redis::cmd("CONFIG").arg(&policy).exec_async(&mut redis).await.unwrap();
    for round in 0.. {
        let said = plan_json(&world).await;
        if said.code == 0 {
            break;
        }
        assert!(round < 2, "{}", said.text);
        for (_, statement) in said.fixes() {
            println!("{statement}");
            let mut words = statement.split(' ');
            let mut command = redis::cmd(words.next().unwrap());
            words.for_each(|word| _ = command.arg(word));
            command.exec_async(&mut redis).await.unwrap();
        }
    }
    world.start().await;
    workload::run(&world, workload::seed(), 60).await;
    // A key of somebody else beside ours is left alone.
    world.caught_up().await;
    let left: i64 = redis::cmd("DEL").arg("bet_counted").query_async(&mut redis).await.unwrap();
    assert_eq!(left, 1);
    world.assert_equal().await;
    world.stop().await;
}

/// A store that does not answer, beside a slot that somebody else reads.
#[tokio::test]
async fn broken_clickhouse_away_and_the_slot_held() {
    let mut world = quiet_world().await;
    world.start().await;
    world.caught_up().await;
    world.stop().await;
    world.clickhouse.server.stop().await.unwrap();
    // Nothing is known to be wrong: it may be back when `run` starts.
    let said = plan(&world).await;
    assert_eq!(said.code, 2);
    said.has(&["clickhouse: did not answer", "betting: cannot be told, 1 thing did not answer"]);
    assert_eq!(plan_json(&world).await.json()["result"], "unknown");

    let holder = crate::messages::hold_slot(&world).await;
    let said = plan(&world).await;
    assert_eq!(said.code, 1);
    said.has(&[
        "slot \"walview_betting\" is held by pid ",
        "SELECT pg_terminate_backend(",
        "store \"clickhouse\": the connection to ClickHouse failed",
        "betting: not ready, 2 things in the way; nothing was changed",
    ]);
    drop(holder);
    // Without its state folder the slot is a stranger's.
    world.clickhouse.server.start().await.unwrap();
    world.options.state = world.home.path().join("other");
    let said = plan(&world).await;
    assert_eq!(said.code, 1);
    said.has(&["slot \"walview_betting\" exists, but there is no local state for it"]);
}

/// A publication that filters rows, leaves out operations, columns and a table; before 15 there are
/// neither filters nor column lists.
#[tokio::test]
async fn broken_a_publication_that_sends_too_little() {
    let mut world = quiet_world().await;
    let owner = world.db().await;
    let before_15 = world.before_15().await;
    let tables =
        if before_15 { "users, bets" } else { "users (id, name), bets WHERE (amount > 5)" };
    let publication =
        format!("CREATE PUBLICATION walview_betting FOR TABLE {tables} WITH (publish = 'insert')");
    owner.batch_execute(&publication).await.unwrap();
    let before = Everything::of(&world).await;
    let said = plan(&world).await;
    assert_eq!(said.code, 1);
    let filters =
        "filters the rows of table \"public.bets\": filtered rows would be missing in silence";
    assert_eq!(said.text.contains(filters), !before_15, "{}", said.text);
    said.has(&["does not send all that the views use, and walview did not make it"]);
    before.assert_unchanged(&world).await;
    for (_, statement) in plan_json(&world).await.fixes() {
        println!("{statement}");
        owner.batch_execute(&statement).await.unwrap();
    }
    let said = plan(&world).await;
    assert_eq!(said.code, 0, "{}", said.text);
    world.start().await;
    workload::run(&world, workload::seed(), 60).await;
    world.assert_equal().await;
    world.stop().await;
}

/// What only makes a start wait or cost is a note; what the user's own tables hold is not touched.
#[tokio::test]
async fn waits_and_tables_of_somebody_else() {
    let world = quiet_world_with(&[("max_slot_wal_keep_size", "64MB")]).await;
    let writer = world.db().await;
    writer.batch_execute("BEGIN; INSERT INTO users (name, email) VALUES ('w', 'w')").await.unwrap();
    for statement in [
        "CREATE DATABASE betting_rows",
        "CREATE TABLE betting_rows.bets_analytics (x Int64) ENGINE = MergeTree ORDER BY x",
    ] {
        world.clickhouse.query(statement).await.unwrap();
    }
    // `plan` names transactions that are older than a moment.
    let age = "SELECT clock_timestamp() - xact_start > '5.5 s' FROM pg_stat_activity
               WHERE backend_xid IS NOT NULL";
    let client = world.db().await;
    while !client.query_one(age, &[]).await.unwrap().get::<_, bool>(0) {
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let said = plan(&world).await;
    assert_eq!(said.code, 1);
    said.has(&[
        "making the slot waits for transactions that write now to end: pid ",
        "more than 67 MB of WAL behind, and the slot is lost",
        "betting_rows.bets_analytics: its engine is MergeTree",
    ]);
}
