//! One changed row that very many facts join: views are corrected for it in steps, and others do not
//! wait. `FACTS=1000000` is how many bets one event has; how long it takes is printed.

use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use walview::demo::PIPELINE;
use walview::demo::servers::service::parse_lsn;
use walview::service::board::Status;

use crate::bounds::number_of;
use crate::end_to_end::SMALL;
use crate::workload;
use crate::world::World;

/// More than are corrected at once, by a few steps of an idle source.
const FACTS: u64 = 30_000;
const LIMIT: Duration = Duration::from_secs(3600);
/// Until a correction in steps has begun.
const BEGIN_LIMIT: Duration = Duration::from_secs(300);

/// Views in Redis that join bets to events: rows and groups.
const VIEWS: &str = r#"
  - name: bet_card
    sql: |
      SELECT b.id, b.status, b.amount, e.name AS event_name, e.category FROM bets b
      LEFT JOIN events e ON e.id = b.event_id
    to:
      - redis: { hash: "bet_card:{id}" }
  - name: category_bets
    sql: |
      SELECT e.category, count(*) AS bets, sum(b.amount) AS staked FROM bets b
      JOIN events e ON e.id = b.event_id GROUP BY e.category
    to:
      - redis: { hash: "category_bets:{category}" }
"#;

/// Walview runs over this many bets on event 1; returns the id of the last.
pub async fn begin(world: &mut World, facts: u64) -> i64 {
    let client = world.db().await;
    let sql = format!(
        "INSERT INTO bets (user_id, event_id, amount, odds)
         SELECT 1 + i % 1000, 1, 1 + i % 90, 2 FROM generate_series(1, {facts}) i"
    );
    client.batch_execute(&sql).await.unwrap();
    let last = client.query_one("SELECT max(id) FROM bets", &[]).await.unwrap().get(0);
    world.set_pipeline(&format!("{PIPELINE}{VIEWS}"));
    world.start().await;
    world.caught_up().await;
    last
}

async fn execute(world: &World, sql: &str) -> u64 {
    let client = world.db().await;
    client.batch_execute(sql).await.unwrap();
    let sql = "SELECT pg_current_wal_flush_lsn()::text";
    parse_lsn(&client.query_one(sql, &[]).await.unwrap().get::<_, String>(0)).unwrap()
}

/// Facts that were corrected so far, where a view is being corrected.
fn corrected(status: &Status) -> Option<u64> {
    status.views.iter().map(|view| view.correcting).max().flatten()
}

async fn in_the_middle(world: &mut World) {
    let some = |status: &Status| corrected(status).is_some();
    world.service().until("being corrected", BEGIN_LIMIT, some).await.unwrap();
}

/// What Redis shows at one moment of a user, and of the last fact.
async fn look(redis: &mut MultiplexedConnection, last: i64) -> (String, String) {
    let mut both = redis::pipe();
    both.atomic().cmd("GET").arg("user:1").cmd("HGET").arg(format!("bet_card:{last}"));
    both.arg("event_name").query_async(redis).await.unwrap()
}

/// Another view's change, committed behind the one with very many facts, is in Redis before these
/// are through, and nobody is told meanwhile that they are.
#[tokio::test]
async fn other_views_go_on_while_one_is_corrected() {
    let mut world = World::betting(SMALL).await;
    let last = begin(&mut world, number_of("FACTS", FACTS)).await;
    let mut redis = world.redis.connect().await.unwrap();
    let started = Instant::now();
    let changed =
        execute(&world, "UPDATE events SET name = 'Postponed', category = 'chess' WHERE id = 1");
    let before = changed.await;
    execute(&world, "UPDATE users SET name = 'Renamed' WHERE id = 1").await;
    let mut between = false;
    loop {
        let (user, card) = look(&mut redis, last).await;
        let (renamed, through) = (user.contains("Renamed"), card == "Postponed");
        if renamed && !through && !between {
            between = true;
            println!("another view is current after {:.2} s", started.elapsed().as_secs_f64());
        }
        if renamed && through {
            break;
        }
        assert!(started.elapsed() < LIMIT, "{user} {card}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    println!("the last row is current after {:.2} s", started.elapsed().as_secs_f64());
    assert!(between, "the other view had to wait");
    let honest = |status: &Status| {
        let open = corrected(status).is_some();
        let claims = |store: &str| parse_lsn(store).is_some_and(|lsn| lsn >= before);
        assert!(!open || status.stores.iter().all(|store| !claims(&store.lsn)), "{status:?}");
        !open && status.stores.iter().all(|store| claims(&store.lsn))
    };
    let status = world.service().until("through", LIMIT, honest).await.unwrap();
    println!(
        "both stores are complete after {:.2} s, peak memory {} MiB",
        started.elapsed().as_secs_f64(),
        status.process.rss_peak_bytes >> 20
    );
    world.assert_equal().await;
    world.stop().await;
}

/// Every kind of change while views are being corrected, a wiped Redis and dead processes among them.
#[tokio::test]
async fn whatever_happens_while_a_view_is_corrected() {
    let seed = workload::seed();
    let mut world = World::betting(SMALL).await;
    let last = begin(&mut world, FACTS).await;
    let rename =
        |name: &str| format!("UPDATE events SET name = '{name}', category = '{name}' WHERE id = 1");
    execute(&world, &rename("one")).await;
    in_the_middle(&mut world).await;
    // Facts before and behind the cursor come, go and change; the row does not.
    let sql = format!(
        "UPDATE bets SET amount = amount + 1 WHERE id % 500 = 0 AND event_id = 1;
         UPDATE bets SET event_id = 2 WHERE id % 500 = 1;
         UPDATE bets SET id = id + 1000000 WHERE id % 500 = 2;
         UPDATE bets SET id = -id WHERE id = {last};
         DELETE FROM bets WHERE id % 500 = 3;
         INSERT INTO bets (id, user_id, event_id, amount, odds) VALUES (-7, 1, 1, 5, 2)"
    );
    execute(&world, &sql).await;
    world.assert_equal().await;

    execute(&world, &rename("two")).await;
    in_the_middle(&mut world).await;
    world.kill9().await;
    world.start().await;
    in_the_middle(&mut world).await;
    let mut redis = world.redis.connect().await.unwrap();
    redis::cmd("FLUSHALL").exec_async(&mut redis).await.unwrap();
    workload::run(&world, seed, 20).await;
    // It may have deleted the event.
    let sql =
        "INSERT INTO events (id, name, category, starts_at) VALUES (1, 'there', 'darts', now())
               ON CONFLICT DO NOTHING";
    execute(&world, sql).await;
    world.assert_equal().await;

    // Deleted and back again, changed while it is corrected, and in the end no fact is left.
    for sql in [
        "DELETE FROM events WHERE id = 1",
        "INSERT INTO events (id, name, category, starts_at) VALUES (1, 'again', 'darts', now())",
        &rename("three"),
        &rename("four"),
    ] {
        execute(&world, sql).await;
        in_the_middle(&mut world).await;
    }
    world.assert_equal().await;
    execute(&world, &rename("five")).await;
    in_the_middle(&mut world).await;
    execute(&world, "TRUNCATE bets").await;
    world.assert_equal().await;
    world.stop().await;
}
