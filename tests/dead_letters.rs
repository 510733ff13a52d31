//! Rows that cannot be evaluated or held, from the source to `walview dead-letters` and back: the
//! rest of their batch arrives, they are named, and what happens to them follows from the row alone.

use std::time::Duration;

use serde_json::{Value as Json, json};
use tokio::process::Command;
use walview::service::board::Status;

use crate::end_to_end::SMALL;
use crate::world::World;

const LIMIT: Duration = Duration::from_secs(60);

/// Odds of 2 divide by zero; a time that is infinite has no place in ClickHouse.
const PIPELINE: &str = r#"
pipeline: betting
source:
  url: ${BETTING_DATABASE_URL}
stores:
  redis: { url: "${REDIS_URL}" }
  clickhouse: { url: "${CLICKHOUSE_URL}", database: betting }
views:
  - name: shares
    sql: |
      SELECT b.id, b.amount / (b.odds - 2) AS share, e.name AS event_name
      FROM bets b LEFT JOIN events e ON e.id = b.event_id
      WHERE b.amount > 0 -- all of them
    to:
      - redis: { hash: "share:{id}" }
      - clickhouse: { table: shares, order_by: [id] }
  - name: shares_by_status
    sql: |
      SELECT status, count(*) AS bets, sum(amount / (odds - 2)) AS shares FROM bets GROUP BY status
    to:
      - redis: { hash: "shares:{status}" }
  - name: settled
    sql: |
      SELECT id, settled_at FROM bets WHERE settled_at IS NOT NULL
    to:
      - clickhouse: { table: settled, order_by: [id] }
  - name: amounts
    sql: |
      SELECT id, amount FROM bets
    to:
      - redis: { string: "amount:{id}", value: amount }
"#;

/// Runs the program with `--json`: its exit code, its document, and what it said to standard error.
async fn walview(world: &World, args: &[&str]) -> (Option<i32>, Json, String) {
    let state = world.options.state.display().to_string();
    let mut command = Command::new(&world.options.program);
    command.args(args).args(["--state", &state, "--json"]);
    let output = command.envs(world.options.env.clone()).output().await.unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    let document = serde_json::from_slice(&output.stdout).unwrap_or(Json::Null);
    (output.status.code(), document, said)
}

async fn dead_letters(world: &World, args: &[&str]) -> (Option<i32>, Json) {
    let (code, document, said) = walview(world, &[&["dead-letters"], args].concat()).await;
    assert!(!document.is_null(), "{args:?}: {said}");
    (code, document)
}

async fn list(world: &World, more: &[&str]) -> Json {
    let (code, mut document) = dead_letters(world, &[&["list"], more].concat()).await;
    assert_eq!(code, Some(0));
    document["pipelines"][0].take()
}

/// View, store and key of each letter, in order.
fn names(listing: &Json) -> Vec<String> {
    let letters = listing["letters"].as_array().unwrap().iter();
    letters
        .map(|letter| {
            let store = letter["store"].as_str().unwrap_or("-");
            let part = &letter["key"][0];
            let (view, value) = (letter["view"].as_str().unwrap(), part["value"].as_str().unwrap());
            format!("{view} {store} {}={value}", part["column"].as_str().unwrap())
        })
        .collect()
}

async fn verify(world: &World) -> (Option<i32>, Json) {
    let file = world.options.pipeline_file.display().to_string();
    let (code, document, said) = walview(world, &["verify", &file]).await;
    assert!(!document.is_null(), "{said}");
    (code, document)
}

async fn keys(world: &World, pattern: &str) -> usize {
    let mut redis = world.redis.connect().await.unwrap();
    let keys: Vec<String> = redis::cmd("KEYS").arg(pattern).query_async(&mut redis).await.unwrap();
    keys.len()
}

#[tokio::test]
async fn a_poison_row_is_left_out_alone_and_comes_back_when_it_changes() {
    let mut world = World::betting(SMALL).await;
    world.set_pipeline(PIPELINE);
    let client = world.db().await;
    client
        .batch_execute(
            "UPDATE bets SET odds = 2.5; UPDATE bets SET odds = 2 WHERE id = 1;
             DELETE FROM bets WHERE id > 200",
        )
        .await
        .unwrap();
    world.start().await;
    world.caught_up().await;
    let parked = ["shares - id=1", "shares_by_status - id=1"];
    assert_eq!(names(&list(&world, &[]).await), parked);

    // One row of 10,000 in a transaction, while no store answers: what a store does or does not do
    // parks nothing.
    world.clickhouse.server.freeze().unwrap();
    world.redis.server.freeze().unwrap();
    client
        .batch_execute(
            "INSERT INTO bets (id, user_id, event_id, amount, odds, status, payout, settled_at)
             SELECT 10000 + i, 1, 1, 5, CASE i WHEN 777 THEN 2 ELSE 2.5 END, 'SETTLED', 1,
                    CASE i WHEN 888 THEN 'infinity' ELSE now() END
             FROM generate_series(1, 10000) i",
        )
        .await
        .unwrap();
    let parked = |status: &Status| {
        let counts: Vec<u64> = status.views.iter().map(|view| view.dead_letters).collect();
        counts == [2, 2, 1, 0]
    };
    let waits = |status: &Status| parked(status) && status.local.outbox_bytes > 0;
    world.service().until("waiting for its stores", LIMIT, waits).await.unwrap();
    world.redis.server.thaw().unwrap();
    world.clickhouse.server.thaw().unwrap();
    let status = world.caught_up().await;
    assert!(parked(&status), "{status:?}");
    assert_eq!((keys(&world, "share:*").await, keys(&world, "amount:*").await), (10_198, 10_200));
    let listing = list(&world, &[]).await;
    let parked = [
        "shares - id=1",
        "shares - id=10777",
        "shares_by_status - id=1",
        "shares_by_status - id=10777",
        "settled clickhouse id=10888",
    ];
    assert_eq!(names(&listing), parked);
    let reasons: Vec<&str> = listing["counts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|count| count["reason"].as_str().unwrap())
        .collect();
    let zero = "division by zero (SQLSTATE 22012)";
    let unfit =
        "the value of column \"settled_at\" does not fit: DateTime64 holds the years 1900 to 2299";
    assert_eq!(reasons, [zero, zero, unfit]);

    // The comparison leaves them out and says so. It does not hide that a store has one all the same.
    let mut redis = world.redis.connect().await.unwrap();
    let mut put = redis::cmd("HSET");
    put.arg("share:10777").arg("share").arg("1");
    let _: () = put.query_async(&mut redis).await.unwrap();
    let (code, report) = verify(&world).await;
    assert_eq!(code, Some(1), "{report}");
    assert_eq!(report["differences"], json!(1));
    assert_eq!(report["targets"][0]["keys"], json!(["extra share:10777"]));
    let left_out = report["not_compared"].as_array().unwrap();
    let expected = "shares: 2 rows that cannot be evaluated, 0 of them dropped; see: walview \
                    dead-letters list";
    assert!(left_out.contains(&json!(expected)), "{left_out:?}");
    let _: () = redis::cmd("DEL").arg("share:10777").query_async(&mut redis).await.unwrap();

    handled(&mut world, &listing).await;
    // Their rows change: they are there, and no letter is left.
    client
        .batch_execute(
            "UPDATE bets SET odds = 3 WHERE odds = 2;
             UPDATE bets SET settled_at = now() WHERE settled_at = 'infinity'",
        )
        .await
        .unwrap();
    world.assert_equal().await;
    let listing = list(&world, &["--dropped"]).await;
    assert_eq!((&listing["total"], &listing["dropped"]), (&json!(0), &json!(0)));
    let log = std::fs::read_to_string(&world.options.log).unwrap();
    assert!(!log.contains("10777") && !log.contains("infinity"), "values in the log");
    world.stop().await;
}

/// Shown, replayed and dropped, one and all.
async fn handled(world: &mut World, listing: &Json) {
    let file = world.options.pipeline_file.display().to_string();
    let id = |at: usize| listing["letters"][at]["id"].as_str().unwrap().to_owned();
    let (code, shown) = dead_letters(world, &["show", &file, &id(1), &id(4)]).await;
    assert_eq!(code, Some(0));
    let rows = &shown["letters"][0]["rows"];
    assert_eq!((&rows[0]["of"], &rows[1]["of"]), (&json!("public.bets"), &json!("public.events")));
    let odds = json!({"column": "odds", "value": "2.00"});
    assert!(rows[0]["columns"].as_array().unwrap().contains(&odds), "{rows}");
    let result =
        json!([{"column": "id", "value": "10888"}, {"column": "settled_at", "value": "infinity"}]);
    assert_eq!(shown["letters"][1]["rows"][1]["columns"], result);
    let (code, unknown) = dead_letters(world, &["show", &file, "0123456789abcdef"]).await;
    assert_eq!((code, &unknown["unknown"]), (Some(1), &json!(["0123456789abcdef"])));

    let (code, replayed) = dead_letters(world, &["replay", &file, "--all"]).await;
    assert_eq!((code, &replayed["still"], &replayed["delivered"]), (Some(1), &json!(5), &json!(0)));
    let (code, dropped) = dead_letters(world, &["drop", &file, &id(0)]).await;
    assert_eq!((code, &dropped["dropped"]), (Some(0), &json!(1)));
    let (code, dropped) = dead_letters(world, &["drop", &file, "--view", "shares_by_status"]).await;
    assert_eq!((code, &dropped["dropped"]), (Some(0), &json!(2)));
    // Kept over a restart, and still left out of the comparison.
    world.kill9().await;
    world.start().await;
    world.caught_up().await;
    let counted = list(world, &[]).await;
    assert_eq!((&counted["total"], &counted["dropped"]), (&json!(2), &json!(3)));
    assert_eq!(names(&counted), ["shares - id=10777", "settled clickhouse id=10888"]);
    assert_eq!(list(world, &["--dropped"]).await["letters"].as_array().unwrap().len(), 5);
    let counts: Vec<u64> =
        world.caught_up().await.views.iter().map(|view| view.dead_letters).collect();
    assert_eq!(counts, [1, 0, 1, 0]);
    let (code, report) = verify(world).await;
    assert_eq!((code, &report["result"]), (Some(0), &json!("equal")), "{report}");
}

/// A view that is written whole, because a column was added, changes no row.
#[tokio::test]
async fn what_was_dropped_stays_so_where_a_column_is_added() {
    let mut world = World::betting(SMALL).await;
    let sql = "SELECT *, amount / (odds - 2) AS share FROM bets";
    let amounts = PIPELINE.replace("SELECT id, amount FROM bets", sql);
    world.set_pipeline(
        &amounts.replace("string: \"amount:{id}\", value: amount", "hash: \"amount:{id}\""),
    );
    let client = world.db().await;
    let odds = "UPDATE bets SET odds = 2.5; UPDATE bets SET odds = 2 WHERE id IN (1, 2)";
    client.batch_execute(odds).await.unwrap();
    world.start().await;
    world.caught_up().await;
    let file = world.options.pipeline_file.display().to_string();
    let (code, _) = dead_letters(&world, &["drop", &file, "--all"]).await;
    assert_eq!(code, Some(0));
    // It brings a new one of a row that was in.
    let alter = "BEGIN; UPDATE bets SET odds = 2 WHERE id = 3; \
                 ALTER TABLE bets ADD note text DEFAULT 'x'; UPDATE bets SET note = 'y' WHERE id = 4; COMMIT";
    client.batch_execute(alter).await.unwrap();
    let mut redis = world.redis.connect().await.unwrap();
    let deadline = tokio::time::Instant::now() + LIMIT;
    loop {
        let mut ask = redis::cmd("HGET");
        ask.arg("amount:5").arg("note");
        let note: Option<String> = ask.query_async(&mut redis).await.unwrap();
        if note.as_deref() == Some("x") {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "the column is not shown");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    world.caught_up().await;
    let listing = list(&world, &[]).await;
    let open = ["amounts - id=3", "shares - id=3", "shares_by_status - id=3"];
    let mut found = names(&listing);
    found.sort();
    assert_eq!((found, &listing["dropped"]), (open.map(str::to_owned).to_vec(), &json!(6)));
    let (code, report) = verify(&world).await;
    assert_eq!((code, &report["result"]), (Some(0), &json!("equal")), "{report}");
    client.batch_execute("UPDATE bets SET odds = 3 WHERE odds = 2").await.unwrap();
    world.assert_equal().await;
    world.stop().await;
}

/// Keys and values go to whoever may read the state folder, and to nobody else.
#[tokio::test]
async fn only_a_reader_of_the_state_folder_is_answered() {
    use std::os::unix::fs::PermissionsExt as _;
    let mut world = World::betting(SMALL).await;
    world.set_pipeline(PIPELINE);
    world.start().await;
    let address = world.service().address().unwrap();
    let body = r#"{"pipeline":"betting","action":"list"}"#;
    let head = |token: &str| {
        format!(
            "POST /dead-letters HTTP/1.0\r\nContent-Type: application/json\r\nAuthorization: Bearer \
             {token}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    };
    for (token, status) in [("", "401"), ("0", "401"), ("00000000000000000000000000000000", "401")]
    {
        let answer = send(&address, &head(token)).await;
        assert_eq!(answer.split(' ').nth(1), Some(status), "{answer}");
        assert!(!answer.contains("letters\":"), "{answer}");
    }
    let file = world.options.state.join("betting/token");
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let token = std::fs::read_to_string(&file).unwrap();
    let answer = send(&address, &head(&token)).await;
    assert_eq!(answer.split(' ').nth(1), Some("200"), "{answer}");

    let file = world.options.pipeline_file.display().to_string();
    let (code, _, said) = walview(&world, &["dead-letters", "replay", &file, "--view", "no"]).await;
    assert_eq!((code, said.trim()), (Some(2), "walview: \"betting\": there is no view \"no\""));
    let (code, ..) = walview(&world, &["dead-letters", "drop", &file]).await;
    assert_eq!(code, Some(2), "which letters must be said");
    world.stop().await;
    let (code, _, said) = walview(&world, &["dead-letters", "drop", &file, "--all"]).await;
    assert_eq!(code, Some(2));
    assert!(said.contains("start it with: walview run"), "{said}");
}

async fn send(address: &str, request: &str) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}
