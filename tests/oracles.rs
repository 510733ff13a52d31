//! Whether those who judge would notice: differences planted in the stores are found, by the
//! suite's oracle and by `walview verify`.

use std::process::Command;

use crate::end_to_end::SMALL;
use crate::oracle;
use crate::world::World;

/// What is planted, and what a finding about it must name.
const REDIS: [(&[&str], &str); 8] = [
    (&["SET", "bet_count:OPEN", "7"], "bet_count:OPEN"),
    (&["SET", "bet_count:LOST", "7"], "bet_count:LOST"),
    (&["DEL", "event:2"], "event:2"),
    (&["HSET", "event:3", "name", "forged"], "event:3"),
    (&["HSET", "event:4:stakes", "extra", "1"], "event:4:stakes"),
    (&["SADD", "user:1:open_bets", "987654"], "user:1:open_bets"),
    (&["ZINCRBY", "leaderboard:staked", "0.01", "1"], "leaderboard:staked"),
    (&["SET", "user:2", "{\"id\":2}"], "user:2"),
];

#[tokio::test]
async fn planted_differences_are_found() {
    let mut world = World::betting(SMALL).await;
    world.start().await;
    world.assert_equal().await;
    assert_eq!(verify(&world), (Some(0), true), "equal");

    let mut redis = world.redis.connect().await.unwrap();
    for (command, _) in REDIS {
        let mut planted = redis::cmd(command[0]);
        planted.arg(&command[1..]);
        planted.exec_async(&mut redis).await.unwrap();
    }
    let rows = "betting_rows.bets_analytics";
    let (wrong, gone, ghost) = (
        format!(
            "INSERT INTO {rows} SELECT * REPLACE(amount + 1 AS amount, _version + 1 AS _version) \
             FROM (SELECT * FROM {rows} WHERE bet_id = 11)"
        ),
        format!(
            "INSERT INTO {rows} SELECT * REPLACE(1 AS _deleted, _version + 1 AS _version) \
             FROM (SELECT * FROM {rows} WHERE bet_id = 12)"
        ),
        format!(
            "INSERT INTO {rows} SELECT * REPLACE(987654 AS bet_id) FROM (SELECT * FROM {rows} WHERE bet_id = 13)"
        ),
    );
    for planted in [wrong, gone, ghost] {
        world.clickhouse.query(&planted).await.unwrap();
    }

    let found = oracle::compare(&world).await.differences;
    let named = |what: &str| found.iter().filter(|difference| difference.contains(what)).count();
    for (_, key) in REDIS {
        assert_eq!(named(&format!("redis {key}: ")), 1, "{key}: {found:#?}");
    }
    for bet in ["Some(\"11\")]", "Some(\"12\")]", "Some(\"987654\")]"] {
        assert_eq!(named(bet), 1, "bet {bet}: {found:#?}");
    }
    assert_eq!(found.len(), REDIS.len() + 3, "{found:#?}");

    let (code, equal) = verify(&world);
    assert_eq!((code, equal), (Some(1), false), "different");
    let printed = std::fs::read_to_string(world.home.log("verify")).unwrap();
    for (_, key) in REDIS {
        assert!(printed.contains(key), "{key} is not named:\n{printed}");
    }
    for bet in ["11", "12", "987654"] {
        assert!(printed.contains(bet), "bet {bet} is not named:\n{printed}");
    }
}

/// `walview verify`: its exit code, and whether it printed that all is equal.
pub fn verify(world: &World) -> (Option<i32>, bool) {
    let output = Command::new(&world.options.program)
        .arg("verify")
        .arg(&world.options.pipeline_file)
        .arg("--state")
        .arg(&world.options.state)
        .envs(world.options.env.iter().cloned())
        .output()
        .unwrap();
    std::fs::write(world.home.log("verify"), &output.stdout).unwrap();
    let printed = String::from_utf8(output.stdout).unwrap();
    (output.status.code(), printed.contains("betting: equal"))
}
