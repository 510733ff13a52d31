//! Every kind of change that the log can carry, one by one: a difference names its cause.

use futures_util::SinkExt as _;
use walview::demo::Seed;

use crate::end_to_end::SMALL;
use crate::world::World;

async fn equal_after_each(world: &mut World, steps: &[&str]) {
    let client = world.db().await;
    for step in steps {
        println!("{step}");
        client.batch_execute(step).await.unwrap();
        world.assert_equal().await;
    }
}

/// A row that gets another key takes everything with it: facts, dimensions, two keys that swap.
#[tokio::test]
async fn keys_that_change() {
    let mut world = World::betting(SMALL).await;
    world.start().await;
    equal_after_each(
        &mut world,
        &[
            "UPDATE bets SET id = id + 1000000 WHERE id <= 10",
            "UPDATE bets SET id = id + 1000000, amount = 77, user_id = 2 WHERE id BETWEEN 20 AND 25",
            "UPDATE users SET id = 5000 WHERE id = 1",
            "UPDATE events SET id = 5000, name = 'Renumbered' WHERE id = 1",
            "BEGIN; UPDATE users SET id = 6000 WHERE id = 2; UPDATE users SET id = 2 WHERE id = 3; \
             UPDATE users SET id = 3 WHERE id = 6000; COMMIT",
            "BEGIN; UPDATE bets SET id = 6000000 WHERE id = 30; UPDATE bets SET id = 30 WHERE id = 31; \
             UPDATE bets SET id = 31 WHERE id = 6000000; COMMIT",
            "BEGIN; UPDATE users SET id = 7000 WHERE id = 4; UPDATE users SET id = 4 WHERE id = 7000; COMMIT",
        ],
    )
    .await;
    world.stop().await;
}

/// An update does not send long values that it leaves alone; they are not taken for NULL.
#[tokio::test]
async fn long_values_that_an_update_leaves_alone() {
    let mut world = World::betting(SMALL).await;
    let long = "(SELECT string_agg(md5(i::text), '') FROM generate_series(1, 1000) i)";
    let client = world.db().await;
    let first = format!(
        "UPDATE users SET preferences = jsonb_build_object('long', {long}) WHERE id <= 3; \
         UPDATE events SET name = {long} WHERE id <= 3"
    );
    client.batch_execute(&first).await.unwrap();
    world.start().await;
    world.assert_equal().await;
    let streamed = format!(
        "UPDATE users SET preferences = jsonb_build_object('longer', {long} || 'x') WHERE id = 4; \
         UPDATE events SET name = {long} || 'x' WHERE id = 4"
    );
    equal_after_each(
        &mut world,
        &[
            "UPDATE users SET name = 'short' WHERE id <= 3",
            "UPDATE events SET status = 'LIVE', category = 'darts' WHERE id <= 3",
            &streamed,
            "UPDATE users SET name = 'short', country = 'PT' WHERE id = 4",
            "UPDATE events SET category = 'golf' WHERE id = 4",
            "UPDATE events SET id = 4000 WHERE id = 4",
            "UPDATE users SET id = 4000 WHERE id = 4",
            "DELETE FROM users WHERE id <= 3",
            "DELETE FROM events WHERE id <= 3",
        ],
    )
    .await;
    world.stop().await;
}

/// Of a fact, of a dimension, of several at once, with writes before and after in the transaction.
#[tokio::test]
async fn truncate() {
    let mut world = World::betting(SMALL).await;
    world.start().await;
    equal_after_each(
        &mut world,
        &[
            "TRUNCATE users",
            "INSERT INTO users (id, name, email) SELECT i, 'Back ' || i, i || '@back' FROM generate_series(1, 20) i",
            "BEGIN; UPDATE bets SET amount = 5; TRUNCATE bets; \
             INSERT INTO bets (user_id, event_id, amount, odds) SELECT i, i, i, 2 FROM generate_series(1, 30) i; COMMIT",
            "BEGIN; TRUNCATE bets, events; INSERT INTO events (id, name, category, starts_at) \
             VALUES (1, 'Only', 'golf', now()); COMMIT",
            "TRUNCATE bets, users, events RESTART IDENTITY",
            "INSERT INTO users (id, name, email) VALUES (1, 'Parent', 'p'); \
             INSERT INTO bets (user_id, event_id, amount, odds) SELECT 1, 1, i, 2 FROM generate_series(1, 9) i; \
             ALTER TABLE bets ADD CONSTRAINT of_user FOREIGN KEY (user_id) REFERENCES users",
            "TRUNCATE users CASCADE",
        ],
    )
    .await;
    world.stop().await;
}

/// What a transaction may look like: subtransactions that come and go, one row many times, COPY,
/// two at once of which the first to write commits last.
#[tokio::test]
async fn transactions_of_every_shape() {
    let mut world = World::betting(SMALL).await;
    world.start().await;
    equal_after_each(
        &mut world,
        &[
            "BEGIN; UPDATE bets SET amount = 2 WHERE id <= 5; \
             SAVEPOINT a; DELETE FROM bets WHERE id <= 3; DELETE FROM users WHERE id <= 3; \
             SAVEPOINT b; INSERT INTO bets (id, user_id, event_id, amount, odds) VALUES (700001, 1, 1, 1, 2); \
             RELEASE b; ROLLBACK TO a; UPDATE bets SET amount = 4 WHERE id = 1; \
             SAVEPOINT c; UPDATE users SET name = 'kept' WHERE id = 1; RELEASE c; \
             SAVEPOINT d; TRUNCATE bets; ROLLBACK TO d; COMMIT",
            "BEGIN; UPDATE bets SET amount = 8; TRUNCATE events; ROLLBACK",
            "DO $$ BEGIN FOR i IN 1..50 LOOP \
                 UPDATE bets SET amount = i, user_id = 1 + i % 4 WHERE id = 7; \
                 UPDATE users SET name = 'name ' || i WHERE id = 2; \
                 BEGIN DELETE FROM bets WHERE id = 8; RAISE EXCEPTION 'no'; EXCEPTION WHEN raise_exception THEN END; \
             END LOOP; END $$",
            "BEGIN; INSERT INTO bets (id, user_id, event_id, amount, odds) VALUES (700002, 1, 1, 1, 2); \
             UPDATE bets SET amount = 3 WHERE id = 700002; DELETE FROM bets WHERE id = 700002; \
             INSERT INTO bets (id, user_id, event_id, amount, odds) VALUES (700002, 2, 2, 5, 2); \
             UPDATE bets SET id = 700003 WHERE id = 700002; COMMIT",
        ],
    )
    .await;
    let (first, second) = (world.db().await, world.db().await);
    let copy = "COPY bets (id, user_id, event_id, amount, odds) FROM STDIN (FORMAT csv)";
    let mut copying = Box::pin(first.copy_in::<_, bytes::Bytes>(copy).await.unwrap());
    let rows: String = (800_001..=800_500).map(|id| format!("{id},1,2,3.5,2\n")).collect();
    copying.send(rows.into()).await.unwrap();
    assert_eq!(copying.as_mut().finish().await.unwrap(), 500);
    world.assert_equal().await;
    let rounds = [
        ("BEGIN; UPDATE bets SET amount = 1 WHERE id = 1", &first),
        (
            "BEGIN; UPDATE bets SET amount = 2 WHERE id = 2; UPDATE users SET name = 'second' WHERE id = 3",
            &second,
        ),
        (
            "DELETE FROM bets WHERE id = 3; UPDATE events SET id = 7777 WHERE id = 3; COMMIT",
            &second,
        ),
        (
            "UPDATE bets SET amount = 3 WHERE id = 2; UPDATE users SET name = 'first' WHERE id = 3",
            &first,
        ),
        (
            "INSERT INTO bets (id, user_id, event_id, amount, odds) VALUES (3, 3, 7777, 6, 2); COMMIT",
            &first,
        ),
    ];
    for (statements, client) in rounds {
        client.batch_execute(statements).await.unwrap();
    }
    world.assert_equal().await;
    world.stop().await;
}

/// Two joins away, needed or not, and asked in WHERE and ON.
const DIMENSIONS: &str = r#"
pipeline: betting
source:
  url: ${BETTING_DATABASE_URL}
stores:
  redis: { url: "${REDIS_URL}" }
  clickhouse: { url: "${CLICKHOUSE_URL}", database: betting }
views:
  - name: chain
    sql: |
      SELECT b.id, b.amount, e.name AS event_name, c.label, o.name AS owner
      FROM bets b
      JOIN events e ON e.id = b.event_id
      JOIN categories c ON c.name = e.category
      LEFT JOIN users o ON o.id = c.owner_id AND o.verified
      WHERE c.open
    to:
      - clickhouse: { table: chain, order_by: [id] }
      - redis: { hash: "chain:{id}" }
  - name: owners
    sql: |
      SELECT o.id, o.name, count(*) AS bets, sum(b.amount) AS staked, count(u.id) AS known
      FROM bets b
      JOIN events e ON e.id = b.event_id
      JOIN categories c ON c.name = e.category
      JOIN users o ON o.id = c.owner_id
      LEFT JOIN users u ON u.id = b.user_id
      WHERE c.open OR o.verified
      GROUP BY o.id
    to:
      - redis: { hash: "owner:{id}" }
      - clickhouse: { table: owners, order_by: [id] }
  - name: names
    sql: |
      SELECT id, name FROM users
    to:
      - redis: { string: "name:{id}", value: name }
"#;

/// Dimension rows that come late, change, go, come again and get other keys, at each step of a
/// chain, with inner joins and filters that let facts in and out.
#[tokio::test]
async fn dimensions() {
    let mut world = World::betting(SMALL).await;
    let client = world.db().await;
    let tables = "CREATE TABLE categories (name text PRIMARY KEY, label text, owner_id bigint, \
                      open boolean NOT NULL); \
                  UPDATE events SET category = 'c' || id % 4; UPDATE users SET verified = id % 2 = 0; \
                  INSERT INTO categories VALUES ('c1', 'One', 1, true)";
    client.batch_execute(tables).await.unwrap();
    world.set_pipeline(DIMENSIONS);
    world.start().await;
    equal_after_each(
        &mut world,
        &[
            "INSERT INTO categories VALUES ('c0', 'Late', 2, true), ('c2', 'Shut', 4, false)",
            "UPDATE categories SET label = 'Changed', owner_id = 3 WHERE name = 'c1'",
            "UPDATE categories SET open = NOT open",
            "UPDATE users SET verified = NOT verified WHERE id IN (2, 3)",
            "UPDATE users SET name = 'Owner' WHERE id IN (2, 3, 4)",
            "DELETE FROM categories WHERE name = 'c2'",
            "BEGIN; DELETE FROM categories WHERE name = 'c0'; \
             INSERT INTO categories VALUES ('c0', 'Again', 4, true); COMMIT",
            "UPDATE categories SET name = 'c3' WHERE name = 'c1'",
            "UPDATE events SET category = 'c3' WHERE category = 'c1'",
            "BEGIN; UPDATE categories SET name = 'x' WHERE name = 'c3'; \
             UPDATE categories SET name = 'c3' WHERE name = 'c0'; \
             UPDATE categories SET name = 'c0' WHERE name = 'x'; COMMIT",
            "UPDATE bets SET event_id = 1 + event_id % 20 WHERE id % 2 = 0",
            "BEGIN; UPDATE bets SET event_id = 4, user_id = 4 WHERE id <= 50; \
             UPDATE events SET category = 'c0' WHERE id = 4; UPDATE users SET id = 4000 WHERE id = 4; COMMIT",
            "UPDATE categories SET owner_id = 4000; DELETE FROM users WHERE id = 4000",
            "INSERT INTO users (id, name, email, verified) VALUES (4000, 'Back', 'b', true)",
            "TRUNCATE categories",
            "INSERT INTO categories SELECT 'c' || i, 'All', 4000, true FROM generate_series(0, 3) i",
        ],
    )
    .await;
    world.stop().await;
}

/// FULL, an index, and back to the primary key while Walview runs. Not to FULL while it runs: the
/// publication has column lists, and PostgreSQL would refuse the application's writes.
#[tokio::test]
async fn replica_identities() {
    let mut world = World::betting(SMALL).await;
    let client = world.db().await;
    let before = "ALTER TABLE bets REPLICA IDENTITY FULL; ALTER TABLE users REPLICA IDENTITY USING INDEX users_email";
    client.batch_execute(before).await.unwrap();
    world.start().await;
    equal_after_each(
        &mut world,
        &[
            "UPDATE bets SET amount = amount + 1 WHERE id <= 20",
            "DELETE FROM bets WHERE id <= 5; UPDATE bets SET id = 9000 WHERE id = 6",
            "UPDATE users SET name = 'By index'",
            "UPDATE users SET email = 'new' || id WHERE id <= 5; DELETE FROM users WHERE id = 6",
            "UPDATE users SET id = 7000 WHERE id = 7",
            "ALTER TABLE bets REPLICA IDENTITY DEFAULT; UPDATE bets SET amount = amount + 1; DELETE FROM bets WHERE id = 8",
            "UPDATE bets SET id = 9001 WHERE id = 9",
        ],
    )
    .await;
    world.stop().await;
}

/// More rows in one transaction than any buffer holds, with a savepoint rolled back in the middle.
#[tokio::test]
async fn one_large_transaction() {
    let mut world = World::betting(Seed { users: 100, events: 50, bets: 1_000 }).await;
    world.start().await;
    equal_after_each(
        &mut world,
        &[
            "BEGIN; \
             INSERT INTO bets (user_id, event_id, amount, odds) \
                 SELECT 1 + i % 120, 1 + i % 60, 1 + i % 500, 2.5 FROM generate_series(1, 60000) i; \
             SAVEPOINT a; UPDATE bets SET amount = 3; ROLLBACK TO a; \
             UPDATE bets SET status = 'CANCELLED', settled_at = now() WHERE status = 'OPEN' AND id % 3 = 0; \
             UPDATE users SET name = name || '!'; \
             DELETE FROM bets WHERE id % 7 = 0; COMMIT",
            "UPDATE events SET category = 'all'",
            "DELETE FROM bets",
        ],
    )
    .await;
    world.stop().await;
}

/// What is in the log and is nobody's row: messages, other tables, empty transactions.
#[tokio::test]
async fn what_does_not_concern_us() {
    let mut world = World::betting(SMALL).await;
    world.start().await;
    equal_after_each(
        &mut world,
        &[
            "BEGIN; SELECT pg_logical_emit_message(true, 'app', 'hello'); UPDATE bets SET amount = 9 WHERE id = 1; COMMIT",
            "SELECT pg_logical_emit_message(false, 'app', 'hello')",
            "CREATE TABLE other (id int PRIMARY KEY, note text); INSERT INTO other SELECT i, 'x' FROM generate_series(1, 5000) i",
            "BEGIN; UPDATE other SET note = 'y'; UPDATE users SET name = 'between' WHERE id = 1; DELETE FROM other; COMMIT",
            "DROP TABLE other",
            "ALTER TABLE users ADD COLUMN nickname text; UPDATE users SET nickname = 'n', name = 'new column' WHERE id = 2",
            "ALTER TABLE users DROP COLUMN nickname; UPDATE users SET name = 'dropped column' WHERE id = 3",
        ],
    )
    .await;
    world.stop().await;
}
