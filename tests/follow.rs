//! Columns that are added while views show every column of their table: followed without a stop
//! where the values in rows from before are known, and a stop with one sentence where they are not.

use std::time::Duration;

use tokio_postgres::Column;
use walview::demo::Seed;
use walview::demo::servers::postgres::Db;
use walview::fail_point::{DIE_VARIABLE, FOLLOW};

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

async fn world() -> World {
    let mut world = World::betting(FEW_ROWS).await;
    world.options.pipeline = "follow".to_owned();
    world.set_pipeline(PIPELINE);
    let sql = "CREATE TABLE owners (oid int PRIMARY KEY, label text);
         INSERT INTO owners SELECT i, 'o' || i FROM generate_series(1, 5) i;
         CREATE TABLE items (id int PRIMARY KEY, owner int, a text NOT NULL);
         INSERT INTO items SELECT i, i % 7, 'a' || i FROM generate_series(1, 60) i";
    world.db().await.batch_execute(sql).await.unwrap();
    world.start().await;
    world.caught_up().await;
    world
}

/// Waits until the exact views have the columns that PostgreSQL shows, then compares everything.
async fn equal(world: &mut World, client: &Db) {
    let views = [
        ("items", "SELECT * FROM items"),
        ("joined", "SELECT i.*, o.label FROM items i LEFT JOIN owners o ON o.oid = i.owner"),
        ("owned", "SELECT i.id AS item, o.* FROM items i JOIN owners o ON o.oid = i.owner"),
    ];
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
    world.assert_equal().await;
    let status = world.caught_up().await;
    assert!(stopped(&status).is_empty(), "{:?}", stopped(&status));
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
