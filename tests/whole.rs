//! Readers never see half a transaction of the source.

use std::time::Duration;

use tokio::time::Instant;

use crate::end_to_end::SMALL;
use crate::world::World;

/// Money moves between two events; their sum never changes. A reader who asks Redis for both in one
/// `MULTI` must always see that sum, through kills of Walview.
#[tokio::test]
async fn a_reader_of_redis_sees_whole_transactions() {
    const TRANSFERS: u32 = 400;
    let mut world = World::betting(SMALL).await;
    let client = world.db().await;
    let sql = "INSERT INTO bets (id, user_id, event_id, amount, odds)
               VALUES (900001, 1, 900001, 5000, 2), (900002, 1, 900002, 5000, 2)";
    client.batch_execute(sql).await.unwrap();
    world.start().await;
    world.caught_up().await;

    let mover = tokio::task::JoinSet::from_iter([async move {
        for round in 0..TRANSFERS {
            let (from, to) = if round % 3 == 0 { (900_002, 900_001) } else { (900_001, 900_002) };
            let sql = format!(
                "BEGIN; UPDATE bets SET amount = amount - 7 WHERE id = {from};
                 UPDATE bets SET amount = amount + 7 WHERE id = {to}; COMMIT"
            );
            client.batch_execute(&sql).await.unwrap();
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }]);
    let mut moving = mover;
    let (mut seen, mut last, mut kills) = (0_u32, (String::new(), String::new()), 0);
    let mut redis = world.redis.connect().await.unwrap();
    let mut killed_at = Instant::now();
    loop {
        let mut both = redis::pipe();
        both.atomic().get("event:900001:staked").get("event:900002:staked");
        let read: (String, String) = both.query_async(&mut redis).await.unwrap();
        let cents = |text: &str| text.replace('.', "").parse::<i64>().unwrap();
        assert_eq!(cents(&read.0) + cents(&read.1), 1_000_000, "half a transaction: {read:?}");
        if read != last {
            seen += 1;
            last = read;
        }
        if moving.is_empty() || moving.try_join_next().is_some() {
            break;
        }
        if killed_at.elapsed() > Duration::from_millis(700) && kills < 3 {
            world.kill9().await;
            world.spawn();
            kills += 1;
            killed_at = Instant::now();
        }
    }
    // A reader who saw nothing move has proved nothing.
    assert!(seen > 20, "only {seen} states were seen");
    assert!(kills > 0, "nothing was killed on the way");
    world.service().until_live(crate::world::LIVE_LIMIT).await.unwrap();
    world.assert_equal().await;
    world.stop().await;
}
