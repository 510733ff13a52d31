//! Every kind of change that the log can carry, one by one: a difference names its cause.

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
