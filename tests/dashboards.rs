//! Dashboards: Python's clients of ClickHouse on what Walview has written.

use std::process::Stdio;

use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::end_to_end::SMALL;
use crate::workload;
use crate::world::World;

/// Days, UTC, from the second to before the last on which bets were placed.
const EXPECTED: &str = "
    WITH d AS (SELECT *, (placed_at AT TIME ZONE 'UTC')::date AS day FROM bets),
    w AS (SELECT min(day) + 1 AS first, max(day) AS last FROM d),
    r AS (
        SELECT to_char(d.day, 'YYYY-MM-DD') AS day, e.category, count(*) AS bets,
               count(*) FILTER (WHERE d.status = 'OPEN') AS open_bets, sum(d.amount)::text AS stakes,
               coalesce(sum(d.payout), 0)::text AS payouts,
               sum(d.amount - coalesce(d.payout, 0))::text AS margin
        FROM d CROSS JOIN w LEFT JOIN events e ON e.id = d.event_id
        WHERE d.status <> 'CANCELLED' AND d.day >= w.first AND d.day < w.last
        GROUP BY d.day, e.category
    )
    SELECT json_build_object(
               'from', to_char(first, 'YYYY-MM-DD'), 'to', to_char(last, 'YYYY-MM-DD'),
               'rows', (SELECT json_agg(json_build_array(day, category, bets, open_bets, stakes, payouts, margin))
                        FROM r))::text,
           (SELECT count(*) FROM r), (SELECT count(*) FROM r WHERE category IS NULL)
    FROM w";

/// The settlement per day and category through `clickhouse-connect` and through
/// `clickhouse-sqlalchemy` is PostgreSQL's own, after bets were moved, decided, deleted, and their
/// events renamed and lost.
#[tokio::test]
async fn settlement_through_python_clients_equals_postgres() {
    let seed = workload::seed();
    let mut world = World::betting(SMALL).await;
    world.start().await;
    workload::run(&world, seed, 200).await;
    let client = world.db().await;
    for step in [
        "UPDATE bets SET placed_at = placed_at - interval '3 days' WHERE id % 7 = 0",
        "UPDATE bets SET status = 'SETTLED', payout = 0.01, settled_at = now() WHERE id % 5 = 1",
        "DELETE FROM bets WHERE id % 11 = 3",
        "UPDATE events SET category = 'moved' WHERE id % 3 = 0",
        "DELETE FROM events WHERE id % 4 = 1",
    ] {
        client.batch_execute(step).await.unwrap();
    }
    // So that what differs below is a client's doing, not Walview's.
    world.assert_equal().await;
    let row = client.query_one(EXPECTED, &[]).await.unwrap();
    let (expected, rows, unknown): (String, i64, i64) = (row.get(0), row.get(1), row.get(2));
    assert!(rows > 50 && unknown > 0, "{rows} rows, {unknown} without a category");

    let root = env!("CARGO_MANIFEST_DIR");
    let mut script = Command::new(format!("{root}/scripts/python/run"))
        .arg(format!("{root}/tests/dashboards/settlement.py"))
        .arg(world.clickhouse.url())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut stdin = script.stdin.take().unwrap();
    // Without the packages it ends before it reads; its message says why.
    stdin.write_all(expected.as_bytes()).await.ok();
    drop(stdin);
    let output = script.wait_with_output().await.unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    world.stop().await;
}
