//! The servers themselves: what the other tests rely on.

use std::time::Duration;

use walview::demo::servers::TempHome;
use walview::demo::servers::postgres::{Postgres, Settings};
use walview::demo::servers::redis::{Persistence, Redis};
use walview::demo::{Seed, migrate, seed};

async fn postgres(home: &TempHome) -> Postgres {
    let settings = Settings { fsync: false, extra: Vec::new() };
    Postgres::start(&home.postgres(), &home.log("postgres"), "betting", settings).await.unwrap()
}

/// Committed rows survive a kill; the server comes back on its port.
#[tokio::test]
async fn postgres_comes_back_after_kill9() {
    let home = TempHome::new("walview-test-").unwrap();
    let mut postgres = postgres(&home).await;
    let client = postgres.connect().await.unwrap();
    migrate(&client).await.unwrap();
    seed(&client, Seed { users: 20, events: 5, bets: 100 }).await.unwrap();
    let port = postgres.server.port();
    postgres.server.kill9().await.unwrap();
    postgres.server.start().await.unwrap();
    assert_eq!(postgres.server.port(), port);
    let client = postgres.connect().await.unwrap();
    let bets: i64 = client.query_one("SELECT count(*) FROM bets", &[]).await.unwrap().get(0);
    assert_eq!(bets, 100);
    postgres.server.stop().await.unwrap();
}

/// A frozen server accepts and says nothing; thawed, it answers what was asked meanwhile.
#[tokio::test]
async fn frozen_servers_answer_when_thawed() {
    let home = TempHome::new("walview-test-").unwrap();
    let (postgres, redis) = tokio::join!(postgres(&home), async {
        Redis::start(&home.redis(), &home.log("redis"), Persistence::None).await.unwrap()
    });
    let client = postgres.connect().await.unwrap();
    let mut connection = redis.connect().await.unwrap();
    postgres.server.freeze().unwrap();
    redis.server.freeze().unwrap();
    let moment = Duration::from_millis(200);
    let ask = client.query_one("SELECT 1", &[]);
    tokio::pin!(ask);
    assert!(tokio::time::timeout(moment, &mut ask).await.is_err());
    let ping = redis::cmd("PING");
    let ping = ping.exec_async(&mut connection);
    tokio::pin!(ping);
    assert!(tokio::time::timeout(moment, &mut ping).await.is_err());
    postgres.server.thaw().unwrap();
    redis.server.thaw().unwrap();
    ask.await.unwrap();
    ping.await.unwrap();
}

/// Nothing is left running, frozen or not.
#[tokio::test]
async fn dropped_servers_are_gone() {
    let home = TempHome::new("walview-test-").unwrap();
    let (postgres, redis) = tokio::join!(postgres(&home), async {
        Redis::start(&home.redis(), &home.log("redis"), Persistence::AppendOnly).await.unwrap()
    });
    let pids = [postgres.server.pid().unwrap(), redis.server.pid().unwrap()];
    postgres.server.freeze().unwrap();
    drop((postgres, redis));
    for pid in pids {
        assert!(
            !std::path::Path::new(&format!("/proc/{pid}")).try_exists().unwrap(),
            "pid {pid} still runs"
        );
    }
}

/// The demo's rows are there within seconds.
#[tokio::test]
async fn seeding_the_demo_is_quick() {
    let home = TempHome::new("walview-test-").unwrap();
    let postgres = postgres(&home).await;
    let client = postgres.connect().await.unwrap();
    migrate(&client).await.unwrap();
    let started = std::time::Instant::now();
    seed(&client, Seed::DEMO).await.unwrap();
    let took = started.elapsed();
    let bets: i64 = client.query_one("SELECT count(*) FROM bets", &[]).await.unwrap().get(0);
    assert_eq!(bets, 200_000);
    assert!(took < Duration::from_secs(60), "seeding took {took:?}");
    println!("seeded in {took:?}");
}
