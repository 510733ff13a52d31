//! Results in a table that the user made: a BI team's own DDL behind the exact view.

use std::time::Duration;

use walview::demo::servers::service::Service;
use walview::service::board::Status;

use crate::end_to_end::SMALL;
use crate::messages::failure;
use crate::oracle;
use crate::oracles::verify;
use crate::workload::{self, Load};
use crate::world::{LIVE_LIMIT, World};

const LIMIT: Duration = Duration::from_secs(60);

/// As the demo's, with times that a `DateTime64(3)` holds, beside a view that is not concerned.
const PIPELINE: &str = r#"
pipeline: betting
source:
  url: ${BETTING_DATABASE_URL}
stores:
  redis: { url: "${REDIS_URL}" }
  clickhouse: { url: "${CLICKHOUSE_URL}", database: betting }
views:
  - name: bets_analytics
    sql: |
      SELECT b.id AS bet_id, b.user_id, u.name AS user_name, u.verified AS user_verified,
             b.event_id, e.name AS event_name, e.category AS event_category,
             b.status, b.amount, b.payout,
             date_trunc('milliseconds', b.placed_at) AS placed_at, b.settled_at
      FROM bets b
      LEFT JOIN users u ON u.id = b.user_id
      LEFT JOIN events e ON e.id = b.event_id
    to:
      - clickhouse:
          table: bets_analytics
          order_by: [placed_at, user_id, bet_id]
  - name: events
    sql: |
      SELECT id, name, category FROM events
    to:
      - clickhouse: { table: events, order_by: [id], types: { id: UInt64, category: LowCardinality(String) } }
      - redis: { hash: "event:{id}" }
"#;

/// No label for a bet that was cashed out.
const TABLE: &str = "CREATE TABLE betting_rows.bets_analytics (
    bet_id UInt64, user_id UInt64,
    user_name LowCardinality(Nullable(String)), user_verified Nullable(UInt8),
    event_id UInt32, event_name Nullable(String), event_category LowCardinality(Nullable(String)),
    status Enum8('OPEN' = 1, 'SETTLED' = 2, 'CANCELLED' = 4),
    amount Decimal(18, 2) CODEC(ZSTD(1)), payout Nullable(Decimal(18, 2)),
    placed_at DateTime64(3) CODEC(Delta, ZSTD(1)),
    settled_at Nullable(DateTime64(6, 'Asia/Kolkata')),
    is_large Bool MATERIALIZED amount > 1000,
    loaded_at DateTime DEFAULT now(),
    placed_on Date ALIAS toDate(placed_at),
    _version UInt128, _deleted UInt8, _committed_at DateTime64(6),
    INDEX by_status status TYPE set(8) GRANULARITY 4
) ENGINE = ReplacingMergeTree(_version, _deleted)
PARTITION BY toYYYYMM(placed_at) ORDER BY (placed_at, user_id, bet_id)
COMMENT 'asked for by the risk team'";

async fn with_own_table() -> World {
    let mut world = World::betting(SMALL).await;
    world.set_pipeline(PIPELINE);
    for statement in ["CREATE DATABASE betting_rows", TABLE] {
        world.clickhouse.query(statement).await.unwrap();
    }
    world
}

/// Equal to PostgreSQL but for the rows that the table has no room for, which are counted.
async fn assert_equal_but_parked(world: &mut World) -> usize {
    world.assert_equal().await;
    let parked = oracle::compare(world).await.parked;
    let counted = |status: &Status| {
        status.views.iter().all(|view| {
            let wanted = if view.name == "bets_analytics" { parked as u64 } else { 0 };
            view.state == "live" && view.dead_letters == wanted
        })
    };
    world.service().until("counting its dead letters", LIMIT, counted).await.unwrap();
    parked
}

#[tokio::test]
async fn a_table_of_the_users_equals_its_view() {
    let seed = workload::seed();
    let mut world = with_own_table().await;
    workload::run(&world, seed, 100).await;
    world.start().await;
    assert_equal_but_parked(&mut world).await;
    workload::run(&world, seed + 1, 200).await;
    assert_equal_but_parked(&mut world).await;
    world.stop().await;
    workload::run(&world, seed + 2, 50).await;
    world.start().await;
    let load = Load::start(&world, seed + 3, 2, Duration::from_millis(10)).await;
    for pause in [300, 700, 50] {
        tokio::time::sleep(Duration::from_millis(pause)).await;
        world.kill9().await;
        world.spawn();
    }
    load.stop().await;
    world.service().until_live(LIVE_LIMIT).await.unwrap();
    assert_equal_but_parked(&mut world).await;
    assert_eq!(verify(&world), (Some(0), true), "the same types, without being told");

    // A row without a place is away until it has one.
    let client = world.db().await;
    let held = "SELECT count() FROM betting.bets_analytics WHERE bet_id = 1000001";
    client
        .batch_execute(
            "INSERT INTO bets (id, user_id, event_id, amount, odds) VALUES (1000001, 1, 1, 5, 2)",
        )
        .await
        .unwrap();
    let before = assert_equal_but_parked(&mut world).await;
    assert_eq!(world.clickhouse.query(held).await.unwrap().trim(), "1");
    for (status, there) in [("CASHED_OUT", "0"), ("SETTLED", "1")] {
        let sql = format!(
            "UPDATE bets SET status = '{status}', payout = 1, settled_at = now() WHERE id = 1000001"
        );
        client.batch_execute(&sql).await.unwrap();
        let parked = assert_equal_but_parked(&mut world).await;
        assert_eq!(parked - before, usize::from(there == "0"), "{status}");
        assert_eq!(world.clickhouse.query(held).await.unwrap().trim(), there, "{status}");
    }
    // An event whose number the table's column does not hold.
    let beyond = "UPDATE bets SET event_id = 4294967296 WHERE id = 1000001";
    client.batch_execute(beyond).await.unwrap();
    world.caught_up().await;
    assert_eq!(world.clickhouse.query(held).await.unwrap().trim(), "0");
    world.stop().await;
    let comment = "SELECT comment FROM system.tables WHERE database = 'betting_rows' \
                   AND name = 'bets_analytics'";
    let comment = world.clickhouse.query(comment).await.unwrap();
    assert!(comment.contains("adopted; asked for by the risk team"), "{comment}");
}

/// A label added by hand while Walview is stopped: the view stops and says so, the other goes on;
/// a rebuild takes the table as it is, and what was parked is there.
#[tokio::test]
async fn a_table_altered_by_hand_stops_its_view() {
    let seed = workload::seed();
    let mut world = with_own_table().await;
    world.start().await;
    world.stop().await;
    let alter = "ALTER TABLE betting_rows.bets_analytics MODIFY COLUMN status \
                 Enum8('OPEN' = 1, 'SETTLED' = 2, 'CASHED_OUT' = 3, 'CANCELLED' = 4)";
    world.clickhouse.query(alter).await.unwrap();
    world.spawn();
    let stopped = |status: &Status| {
        status.views.iter().any(|view| {
            let reason = view.reason.as_deref().unwrap_or_default();
            view.name == "bets_analytics"
                && view.state == "stopped"
                && reason.contains("`betting_rows`.`bets_analytics` was altered")
                && reason.contains("column \"status\" is Enum8(")
                && reason.contains("walview rebuild")
        })
    };
    world.service().until("stopped by the altered table", LIMIT, stopped).await.unwrap();
    workload::run(&world, seed, 100).await;
    let status = world.caught_up().await;
    let events = status.views.iter().find(|view| view.name == "events").unwrap();
    assert_eq!(events.state, "live");
    world.stop().await;
    world.service = Some(Service::rebuild(&world.options).unwrap());
    world.service().until_live(LIVE_LIMIT).await.unwrap();
    assert_eq!(assert_equal_but_parked(&mut world).await, 0);
    world.stop().await;
}

/// Everything that does not fit is said at once, before anything is touched.
#[tokio::test]
async fn misfits_are_named_all_at_once() {
    let mut world = World::betting(SMALL).await;
    world.set_pipeline(PIPELINE);
    let statements = [
        "CREATE DATABASE betting_rows",
        "CREATE TABLE betting_rows.bets_analytics (bet_id UInt64, user_id UInt64, user_name String, \
         event_id Float64, amount Decimal(18, 2), payout Nullable(Decimal(18, 2)), note String, \
         placed_at DateTime64(3), settled_at Nullable(Date), _version UInt64, _deleted UInt8, \
         event_name String MATERIALIZED '', event_category LowCardinality(Nullable(String)), \
         status Enum8('OPEN' = 1)) \
         ENGINE = MergeTree ORDER BY (user_id, placed_at) PARTITION BY toYYYYMM(placed_at)",
        "INSERT INTO betting_rows.bets_analytics (bet_id) VALUES (1)",
        "CREATE DATABASE betting",
        "CREATE TABLE betting.events (id UInt64) ENGINE = MergeTree ORDER BY id",
    ];
    for statement in statements {
        world.clickhouse.query(statement).await.unwrap();
    }
    let printed = failure(&world).await;
    let named: Vec<String> = printed
        .lines()
        .filter_map(|line| line.split_once("betting.yaml:").map(|(_, rest)| rest.to_owned()))
        .collect();
    assert_eq!(named.join("\n"), include_str!("own_tables.txt").trim_end(), "{printed}");
    let slots = "SELECT count(*) FROM pg_replication_slots";
    let slots: i64 = world.db().await.query_one(slots, &[]).await.unwrap().get(0);
    assert_eq!(slots, 0, "a failed start left a slot behind");
    let rows = "SELECT count() FROM betting_rows.bets_analytics";
    assert_eq!(world.clickhouse.query(rows).await.unwrap().trim(), "1");
}
