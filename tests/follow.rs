//! Columns that are added while views show every column of their table: followed without a stop
//! where the values in rows from before are known, and a stop with one sentence where they are not.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio_postgres::Column;
use walview::demo::Seed;
use walview::demo::servers::postgres::Db;
use walview::demo::servers::service::Service;
use walview::fail_point::{DIE_VARIABLE, FOLLOW};
use walview::service::board::Status;

use crate::schema::stopped;
use crate::world::World;

const LIMIT: Duration = Duration::from_secs(60);
const FEW_ROWS: Seed = Seed { users: 1, events: 1, bets: 1 };

const PIPELINE: &str = r#"pipeline: follow
source: { url: "${BETTING_DATABASE_URL}" }
stores:
  redis: { url: "${REDIS_URL}" }
  clickhouse: { url: "${CLICKHOUSE_URL}", database: betting }
views:
  - name: items
    sql: |
      SELECT * FROM items
    to:
      - redis: { hash: "items:{id}" }
      - redis: { json: "items_json:{id}" }
      - redis: { stream: "items_events" }
      - clickhouse: { table: items, order_by: [id] }
  - name: joined
    sql: |
      SELECT i.*, o.label FROM items i LEFT JOIN owners o ON o.oid = i.owner
    to:
      - redis: { hash: "joined:{id}" }
      - clickhouse: { table: joined, order_by: [id] }
  - name: owned
    sql: |
      SELECT i.id AS item, o.* FROM items i JOIN owners o ON o.oid = i.owner
    to:
      - redis: { hash: "owned:{item}" }
      - clickhouse: { table: owned, order_by: [item] }
  - name: narrow
    sql: |
      SELECT id, a FROM items
    to:
      - redis: { hash: "narrow:{id}" }
"#;

const VIEWS: [(&str, &str); 3] = [
    ("items", "SELECT * FROM items"),
    ("joined", "SELECT i.*, o.label FROM items i LEFT JOIN owners o ON o.oid = i.owner"),
    ("owned", "SELECT i.id AS item, o.* FROM items i JOIN owners o ON o.oid = i.owner"),
];

async fn world() -> World {
    world_of(
        PIPELINE,
        "CREATE TABLE owners (oid int PRIMARY KEY, label text);
         INSERT INTO owners SELECT i, 'o' || i FROM generate_series(1, 5) i;
         CREATE TABLE items (id int PRIMARY KEY, owner int, a text NOT NULL);
         INSERT INTO items SELECT i, i % 7, 'a' || i FROM generate_series(1, 60) i",
    )
    .await
}

/// A pipeline called `follow` over these tables.
async fn world_of(pipeline: &str, sql: &str) -> World {
    let mut world = World::betting(FEW_ROWS).await;
    world.options.pipeline = "follow".to_owned();
    world.set_pipeline(pipeline);
    world.db().await.batch_execute(sql).await.unwrap();
    world.start().await;
    world.caught_up().await;
    world
}

/// Waits until the exact views have the columns that PostgreSQL shows, then compares everything.
async fn equal(world: &mut World, client: &Db) {
    equal_of(world, client, &VIEWS).await;
}

async fn equal_of(world: &mut World, client: &Db, views: &[(&str, &str)]) {
    equal_but(world, client, views, &BTreeSet::new()).await;
}

/// As [`equal`], but for views that stopped.
async fn equal_but(
    world: &mut World,
    client: &Db,
    views: &[(&str, &str)],
    stops: &BTreeSet<String>,
) {
    for (view, sql) in views {
        let statement = client.prepare(sql).await.unwrap();
        let mut names: Vec<&str> = statement.columns().iter().map(Column::name).collect();
        names.push("_committed_at");
        let wanted = names.join(",");
        let asked = format!(
            "SELECT arrayStringConcat(groupArray(name), ',') FROM (SELECT name FROM system.columns \
             WHERE database = 'betting' AND table = '{view}' ORDER BY position)"
        );
        let deadline = tokio::time::Instant::now() + LIMIT;
        loop {
            let found = world.clickhouse.query(&asked).await.unwrap();
            if found.trim() == wanted {
                break;
            }
            let status = world.service().status().await;
            let late = tokio::time::Instant::now() >= deadline;
            let log = walview::demo::servers::log_tail(&world.options.log, 40);
            assert!(!late, "{view} has {found}, not {wanted}: {status:?}\n{log}");
            world.service().check_running().unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    world.caught_up().await;
    let found = crate::oracle::compare_but(world, stops).await;
    assert!(found.compared > 0 && found.differences.is_empty(), "{:#?}", found.differences);
    let status = world.caught_up().await;
    assert!(stopped(&status).keys().eq(stops), "{:?}", stopped(&status));
}

async fn run(client: &Db, sql: &str) {
    println!("{sql}");
    client.batch_execute(sql).await.unwrap();
}

async fn events(world: &World) -> u64 {
    let mut redis = world.redis.connect().await.unwrap();
    redis::cmd("XLEN").arg("items_events").query_async(&mut redis).await.unwrap()
}

/// Writes before and after the ALTER, in its own transaction; `n` differs for each.
fn inside(n: usize) -> String {
    let (first, second, third) = (n * 100, n * 100 + 1, n * 100 + 2);
    format!(
        "BEGIN; INSERT INTO items (id, owner, a) VALUES ({first}, 1, 'early'); \
         UPDATE items SET a = a || '!' WHERE id < 20; \
         UPDATE items SET id = 1000 + id WHERE id = 20 + {n}; \
         ALTER TABLE items ADD inside{n} numeric(10,2) DEFAULT 1.50; \
         INSERT INTO items (id, owner, a, inside{n}) \
             VALUES ({second}, 2, 'late', 9), ({third}, 9, 'late', NULL); \
         UPDATE items SET inside{n} = 2 WHERE id BETWEEN 10 AND 30; DELETE FROM items WHERE id = {n}; \
         UPDATE items SET a = 'again' WHERE id = {first}; COMMIT"
    )
}

const WRITES: &str = "UPDATE items SET a = a || '.' WHERE id % 3 = 0; DELETE FROM items WHERE id = 7; \
     INSERT INTO items (id, owner, a) VALUES (7, 3, 'back'); UPDATE owners SET label = label || '.'";

#[tokio::test]
async fn added_columns_are_followed() {
    let mut world = world().await;
    let client = world.db().await;
    // Nothing is written: only the look tells, and an added column is no event.
    let before = events(&world).await;
    run(&client, "ALTER TABLE items ADD quiet int").await;
    equal(&mut world, &client).await;
    run(&client, "ALTER TABLE items ADD seven int NOT NULL DEFAULT 7").await;
    equal(&mut world, &client).await;
    assert_eq!(events(&world).await, before);
    run(&client, WRITES).await;
    equal(&mut world, &client).await;
    // Rows of the new shape follow at once.
    let at_once = "ALTER TABLE items ADD word text DEFAULT 'it''s, {\"x\"}', \
         ADD made timestamptz NOT NULL DEFAULT now(); \
         UPDATE items SET word = 'w' || id WHERE id % 2 = 0; \
         INSERT INTO items (id, owner, a) VALUES (70, 4, 'new')";
    run(&client, at_once).await;
    equal(&mut world, &client).await;
    run(&client, &inside(1)).await;
    equal(&mut world, &client).await;
    // Of a dimension.
    let owners = "ALTER TABLE owners ADD since date DEFAULT '2020-01-02'; \
         INSERT INTO owners (oid, label) VALUES (6, 'six'); UPDATE owners SET since = NULL WHERE oid = 2";
    run(&client, owners).await;
    equal(&mut world, &client).await;
    // Two after each other, faster than anybody looks; and a table that keeps what it has.
    run(&client, "ALTER TABLE items ADD one int DEFAULT 1; UPDATE items SET one = 2 WHERE id = 1")
        .await;
    run(&client, "ALTER TABLE items ADD two int DEFAULT 2; UPDATE items SET two = 3 WHERE id = 2")
        .await;
    equal(&mut world, &client).await;
    // While walview is away, ended and killed.
    world.stop().await;
    run(&client, "ALTER TABLE items ADD away int DEFAULT 3").await;
    run(&client, WRITES).await;
    world.start().await;
    equal(&mut world, &client).await;
    run(&client, WRITES).await;
    world.kill9().await;
    run(
        &client,
        "BEGIN; UPDATE items SET a = 'k'; ALTER TABLE items ADD killed text DEFAULT 'k'; COMMIT",
    )
    .await;
    world.start().await;
    run(&client, WRITES).await;
    equal(&mut world, &client).await;
    // It is as it was, and a start from the state reads rows of every width.
    world.stop().await;
    world.start().await;
    run(&client, "UPDATE items SET owner = owner + 1").await;
    equal(&mut world, &client).await;
    world.stop().await;
}

#[tokio::test]
async fn what_rows_hold_must_be_known() {
    let mut world = world().await;
    let client = world.db().await;
    run(&client, "ALTER TABLE items ADD lucky double precision DEFAULT random()").await;
    let status =
        world.service().until("stopped", LIMIT, |status| stopped(status).len() >= 2).await.unwrap();
    let stops = stopped(&status);
    assert_eq!(stops.keys().collect::<Vec<_>>(), ["items", "joined"]);
    for why in stops.values() {
        let says = "table \"public.items\" has a new column \"lucky\", which * shows; to take it in: \
                    walview rebuild";
        assert_eq!(why, says);
    }
    // The others go on, and are followed themselves.
    run(&client, WRITES).await;
    run(&client, "ALTER TABLE owners ADD more int DEFAULT 4").await;
    run(&client, "UPDATE owners SET more = 5 WHERE oid = 1").await;
    let names = stops.into_keys().collect();
    let deadline = tokio::time::Instant::now() + LIMIT;
    let log = "SELECT count() FROM system.columns WHERE database = 'betting' AND table = 'owned' \
               AND name = 'more'";
    while world.clickhouse.query(log).await.unwrap().trim() != "1" {
        assert!(tokio::time::Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    world.caught_up().await;
    let found = crate::oracle::compare_but(&world, &names).await;
    assert!(found.differences.is_empty(), "{:#?}", found.differences);
    world.stop().await;
}

async fn shows(world: &World, key: &str, field: &str) -> bool {
    let mut redis = world.redis.connect().await.unwrap();
    redis::cmd("HEXISTS").arg(key).arg(field).query_async(&mut redis).await.unwrap()
}

/// Killed or frozen while a column is taken in: Redis shows it all the same, and ClickHouse once it
/// is back, operations of both shapes having waited for it.
#[tokio::test]
async fn clickhouse_is_down_while_a_column_is_taken_in() {
    let mut world = world().await;
    let client = world.db().await;
    for n in 1..=4 {
        let (frozen, restarted) = (n % 2 == 0, n > 2);
        let server = &mut world.clickhouse.server;
        match frozen {
            true => server.freeze().unwrap(),
            false => server.kill9().await.unwrap(),
        }
        run(&client, WRITES).await;
        run(&client, &format!("ALTER TABLE items ADD seen{n} int DEFAULT {n}")).await;
        run(&client, &inside(n)).await;
        let deadline = tokio::time::Instant::now() + LIMIT;
        for column in [format!("seen{n}"), format!("inside{n}")] {
            while !shows(&world, "items:60", &column).await {
                assert!(tokio::time::Instant::now() < deadline, "{column}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
        run(&client, WRITES).await;
        if restarted {
            world.kill9().await;
            world.spawn();
        }
        let server = &mut world.clickhouse.server;
        match frozen {
            true => server.thaw().unwrap(),
            false => server.start().await.unwrap(),
        }
        world.service().until_live(LIMIT).await.unwrap();
        equal(&mut world, &client).await;
    }
    world.stop().await;
}

/// Redis is filled again from rows of every width, before and after they show the column.
#[tokio::test]
async fn redis_is_emptied_around_an_added_column() {
    let mut world = world().await;
    let client = world.db().await;
    let mut redis = world.redis.connect().await.unwrap();
    for n in 1..=3 {
        let before = n % 2 == 0;
        if before {
            redis::cmd("FLUSHALL").exec_async(&mut redis).await.unwrap();
        }
        run(&client, &format!("ALTER TABLE items ADD seen{n} int DEFAULT {n}")).await;
        if n == 3 {
            equal(&mut world, &client).await;
        }
        if !before {
            redis::cmd("FLUSHALL").exec_async(&mut redis).await.unwrap();
        }
        run(&client, &inside(n)).await;
        let refilled = |status: &Status| status.stores[0].refills == u64::try_from(n).unwrap();
        world.service().until("filled again", LIMIT, refilled).await.unwrap();
        equal(&mut world, &client).await;
    }
    world.stop().await;
}

/// At whatever moment behind the ALTER: `deaths_while_a_column_is_taken_in` has the edges.
#[tokio::test]
async fn killed_behind_an_added_column() {
    let mut world = world().await;
    let client = world.db().await;
    for n in 1..=6 {
        run(&client, &format!("ALTER TABLE items ADD seen{n} int DEFAULT {n}")).await;
        run(&client, &inside(n)).await;
        for pause in [0, u64::try_from(n).unwrap() * 30] {
            tokio::time::sleep(Duration::from_millis(pause)).await;
            world.kill9().await;
            world.start().await;
        }
        run(&client, WRITES).await;
        equal(&mut world, &client).await;
    }
    world.stop().await;
}

/// Of the views that show every column one already has a column of that name.
#[tokio::test]
async fn a_view_that_cannot_take_a_column_stops_alone() {
    let mut world = world().await;
    let client = world.db().await;
    run(&client, "ALTER TABLE items ADD label text DEFAULT 'x'").await;
    run(&client, WRITES).await;
    let one = |status: &Status| !stopped(status).is_empty();
    let status = world.service().until("stopped", LIMIT, one).await.unwrap();
    let stops = stopped(&status);
    let says = "table \"public.items\" has a new column \"label\", which * shows; to take it in: \
                walview rebuild";
    assert_eq!(stops, [("joined".to_owned(), says.to_owned())].into());
    let names: BTreeSet<String> = stops.keys().cloned().collect();
    let others = [VIEWS[0], VIEWS[2]];
    equal_but(&mut world, &client, &others, &names).await;
    // It stays as it was; the others are followed further, also from the state alone.
    run(&client, "ALTER TABLE items ADD more int DEFAULT 1; ALTER TABLE owners ADD extra int")
        .await;
    run(&client, &inside(1)).await;
    equal_but(&mut world, &client, &others, &names).await;
    world.kill9().await;
    run(&client, WRITES).await;
    world.start().await;
    run(&client, "ALTER TABLE items ADD again int DEFAULT 2").await;
    equal_but(&mut world, &client, &others, &names).await;
    assert_eq!(stopped(&world.caught_up().await), stops);
    assert!(!shows(&world, "joined:60", "again").await);
    world.stop().await;
}

/// Dies where the column is taken in: before and after the commit that does it, and once ClickHouse
/// has the column and nobody knows.
#[tokio::test]
async fn deaths_while_a_column_is_taken_in() {
    let mut world = world().await;
    let client = world.db().await;
    for (nth, place) in FOLLOW.iter().enumerate() {
        world.stop().await;
        world.options.env.push((DIE_VARIABLE.to_owned(), format!("{place}:1")));
        world.start().await;
        run(&client, &inside(nth + 1)).await;
        let died = world.service().exited(LIMIT).await;
        assert!(died.is_ok(), "{place} is not passed");
        world.service = None;
        run(&client, WRITES).await;
        world.options.env.retain(|(name, _)| name != DIE_VARIABLE);
        world.start().await;
        equal(&mut world, &client).await;
    }
    world.stop().await;
}

const PARTED: &str = r#"pipeline: follow
source: { url: "${BETTING_DATABASE_URL}" }
stores:
  redis: { url: "${REDIS_URL}" }
  clickhouse: { url: "${CLICKHOUSE_URL}", database: betting }
views:
  - name: parted
    sql: |
      SELECT * FROM parted
    to:
      - redis: { hash: "parted:{id}" }
      - redis: { json: "parted_json:{id}" }
      - clickhouse: { table: parted, order_by: [id] }
  - name: refers
    sql: |
      SELECT r.id AS refer, p.* FROM refers r JOIN parted p ON p.id = r.parted
    to:
      - redis: { hash: "refers:{refer}" }
      - clickhouse: { table: refers, order_by: [refer] }
"#;

const PARTED_VIEWS: [(&str, &str); 2] = [
    ("parted", "SELECT * FROM parted"),
    ("refers", "SELECT r.id AS refer, p.* FROM refers r JOIN parted p ON p.id = r.parted"),
];

/// Of one partition the columns stand in another order, one is partitioned itself, and one had a
/// column with a value of its own before it was attached.
const PARTED_TABLES: &str = "CREATE TABLE parted (id int PRIMARY KEY, a text NOT NULL DEFAULT 'd') \
         PARTITION BY RANGE (id);
     CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (100);
     CREATE TABLE parted_2 (a text NOT NULL, gone int, id int PRIMARY KEY);
     ALTER TABLE parted_2 DROP gone;
     ALTER TABLE parted ATTACH PARTITION parted_2 FOR VALUES FROM (100) TO (200);
     CREATE TABLE parted_3 PARTITION OF parted FOR VALUES FROM (200) TO (400) PARTITION BY RANGE (id);
     CREATE TABLE parted_31 PARTITION OF parted_3 FOR VALUES FROM (200) TO (300);
     CREATE TABLE parted_32 (id int PRIMARY KEY);
     INSERT INTO parted_32 SELECT i FROM generate_series(300, 320) i;
     ALTER TABLE parted_32 ADD a text NOT NULL DEFAULT 'own';
     ALTER TABLE parted_3 ATTACH PARTITION parted_32 FOR VALUES FROM (300) TO (400);
     CREATE TABLE parted_rest PARTITION OF parted DEFAULT;
     INSERT INTO parted SELECT i, 'a' || i FROM generate_series(1, 260, 5) i;
     INSERT INTO parted SELECT i, 'r' || i FROM generate_series(1000, 1010) i;
     CREATE TABLE refers (id int PRIMARY KEY, parted int);
     INSERT INTO refers SELECT i, i * 5 + 1 FROM generate_series(1, 60) i";

/// Writes to every partition, and moves rows between them; `n` differs for each.
fn parted_writes(n: usize) -> String {
    let [gone, made, moved] = [n * 5 + 1, n * 5 + 3, n * 10 + 6];
    format!(
        "UPDATE parted SET a = a || '.' WHERE id % 3 = 0; \
         DELETE FROM parted WHERE id IN ({gone}, {gone} + 100); \
         INSERT INTO parted (id) VALUES ({made}), ({made} + 100), ({made} + 200), (390 + {n}), (500 + {n}); \
         UPDATE parted SET id = id + 203 WHERE id IN ({moved}, {moved} + 105); \
         UPDATE refers SET parted = parted + 5 WHERE id % 7 = {n} % 7"
    )
}

#[tokio::test]
async fn added_columns_of_a_partitioned_table_are_followed() {
    let mut world = world_of(PARTED, PARTED_TABLES).await;
    let client = world.db().await;
    let alone =
        ["ALTER TABLE parted ADD quiet int", "ALTER TABLE parted ADD seven int NOT NULL DEFAULT 7"];
    let among_writes = [
        "ALTER TABLE parted ADD word text DEFAULT 'it''s, {\"x\"}', \
             ADD made timestamptz NOT NULL DEFAULT now()",
        "ALTER TABLE parted ADD since date DEFAULT '2020-01-02', ADD price numeric(10,2) DEFAULT 1.50",
    ];
    let mut n = 0;
    // Only the look tells; then with writes before and after, in one transaction with them.
    for alter in alone {
        run(&client, alter).await;
        equal_of(&mut world, &client, &PARTED_VIEWS).await;
        n += 1;
        run(&client, &parted_writes(n)).await;
        equal_of(&mut world, &client, &PARTED_VIEWS).await;
    }
    for alter in among_writes {
        let (before, after) = (parted_writes(n + 1), parted_writes(n + 2));
        n += 2;
        run(&client, &format!("BEGIN; {before}; {alter}; {after}; COMMIT")).await;
        equal_of(&mut world, &client, &PARTED_VIEWS).await;
    }
    // Partitions that are made before and after it, between two looks and while walview is away.
    run(
        &client,
        "BEGIN; CREATE TABLE parted_5 PARTITION OF parted FOR VALUES FROM (5000) TO (5100); \
         INSERT INTO parted (id) VALUES (5001); ALTER TABLE parted ADD eight int DEFAULT 8; \
         INSERT INTO parted (id, eight) VALUES (5002, 9); \
         CREATE TABLE parted_6 PARTITION OF parted FOR VALUES FROM (5100) TO (5200); \
         INSERT INTO parted (id) VALUES (5101); COMMIT",
    )
    .await;
    equal_of(&mut world, &client, &PARTED_VIEWS).await;
    world.kill9().await;
    run(&client, "ALTER TABLE parted ADD nine int NOT NULL DEFAULT 9").await;
    run(&client, "CREATE TABLE parted_7 PARTITION OF parted FOR VALUES FROM (5200) TO (5300)")
        .await;
    run(&client, "INSERT INTO parted (id, nine) VALUES (5201, 1), (5202, 9)").await;
    run(&client, &parted_writes(n + 1)).await;
    world.start().await;
    equal_of(&mut world, &client, &PARTED_VIEWS).await;
    world.stop().await;
}

/// What each partition holds is known, and not the same; or it is not known.
#[tokio::test]
async fn partitions_that_differ_stop_the_view() {
    let alters = [
        // It gives every partition another value, whatever it says of itself.
        "ALTER TABLE parted ADD bad int DEFAULT next_one()",
        "ALTER TABLE parted ADD bad double precision DEFAULT random()",
        "BEGIN; ALTER TABLE parted ADD bad int DEFAULT 7; CREATE TABLE other (LIKE parted); \
         ALTER TABLE other DROP bad; INSERT INTO other (id, a) VALUES (5000, 'o'); \
         ALTER TABLE other ADD bad int DEFAULT 8, ADD PRIMARY KEY (id); \
         ALTER TABLE parted ATTACH PARTITION other FOR VALUES FROM (5000) TO (5100); COMMIT",
        "BEGIN; ALTER TABLE parted ADD bad int DEFAULT 7; CLUSTER parted_1 USING parted_1_pkey; \
         COMMIT",
        "BEGIN; ALTER TABLE parted ADD bad int DEFAULT 7; ALTER TABLE parted DETACH PARTITION parted_2; \
         ALTER TABLE parted ATTACH PARTITION parted_2 FOR VALUES FROM (100) TO (200); COMMIT",
    ];
    let sql = "CREATE SEQUENCE ones; CREATE FUNCTION next_one() RETURNS int LANGUAGE plpgsql STABLE \
               AS 'BEGIN RETURN nextval(''ones''); END'";
    let mut world = world_of(PARTED, &format!("{PARTED_TABLES}; {sql}")).await;
    let client = world.db().await;
    for (n, alter) in alters.iter().enumerate() {
        let column = format!("bad_{n}");
        run(&client, &alter.replace("bad", &column)).await;
        run(&client, "UPDATE parted SET a = 'u' WHERE id = 11").await;
        let both = |status: &Status| stopped(status).len() == 2;
        let status = world.service().until("stopped", LIMIT, both).await.unwrap();
        for (view, why) in stopped(&status) {
            assert!(why.ends_with("walview rebuild"), "{view}: {why}");
        }
        world.caught_up().await;
        // Nothing was invented.
        let mut redis = world.redis.connect().await.unwrap();
        let invented: bool = redis::cmd("HEXISTS")
            .arg("parted:6")
            .arg(&column)
            .query_async(&mut redis)
            .await
            .unwrap();
        assert!(!invented, "{alter}");
        world.stop().await;
        world.service = Some(Service::rebuild(&world.options).unwrap());
        world.service().until_live(LIMIT).await.unwrap();
        equal_of(&mut world, &client, &PARTED_VIEWS).await;
    }
    world.stop().await;
}
