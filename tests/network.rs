//! Networks that lie: connections that are dead and look alive, answers that are lost, writes that
//! arrive when nobody waits for them any more.

use std::time::Duration;

use tokio::time::timeout;
use walview::demo::servers::proxy::{Mode, Proxy};
use walview::service::board::{Status, StoreState};

use crate::end_to_end::SMALL;
use crate::stream;
use crate::workload::{self, Load};
use crate::world::World;

const LIMIT: Duration = Duration::from_secs(120);
const BET: &str = "INSERT INTO bets (user_id, event_id, amount, odds) VALUES (1, 1, 1, 2)";
/// Of the variables in pipeline/betting.yaml.
const SOURCE: &str = "BETTING_DATABASE_URL";
const REDIS: &str = "REDIS_URL";
const CLICKHOUSE: &str = "CLICKHOUSE_URL";

/// Has walview reach the server that `variable` names through a proxy.
async fn behind_proxy(world: &mut World, variable: &str) -> Proxy {
    let port = match variable {
        SOURCE => world.postgres.server.port(),
        REDIS => world.redis.server.port(),
        _ => world.clickhouse.server.port(),
    };
    let server = format!("127.0.0.1:{port}");
    let proxy = Proxy::start(&server).await.unwrap();
    replace(world, variable, &server, &proxy.address());
    proxy
}

fn replace(world: &mut World, variable: &str, from: &str, to: &str) {
    let found = world.options.env.iter_mut().find(|(name, _)| name == variable);
    let (_, url) = found.expect("a variable of the pipeline file");
    *url = url.replace(from, to);
}

/// The network to PostgreSQL dies without a word: walview finds out by itself, says so, and goes on
/// once it is back.
#[tokio::test]
async fn a_dead_connection_to_postgres_is_found() {
    let mut world = World::betting(SMALL).await;
    let proxy = behind_proxy(&mut world, SOURCE).await;
    stream::remember_inserts(&world).await;
    world.start().await;
    let client = world.db().await;
    client.batch_execute(BET).await.unwrap();
    world.caught_up().await;
    proxy.set(Mode::Freeze);
    client.batch_execute(BET).await.unwrap();
    let lost =
        world.service().until("without its source", LIMIT, |status| !status.source.connected);
    let error = lost.await.unwrap().source.error.unwrap();
    assert!(error.contains("silent"), "{error}");
    proxy.set(Mode::Pass);
    world.assert_equal().await;
    stream::assert_every_insert_once(&world).await;
    world.stop().await;
}

/// A Redis that answers nobody for seconds, again and again.
#[tokio::test]
async fn redis_that_pauses_its_clients() {
    let seed = workload::seed();
    let mut world = World::betting(SMALL).await;
    stream::remember_inserts(&world).await;
    world.start().await;
    let mut load = Load::start(&world, seed, 2, Duration::from_millis(5)).await;
    for kind in ["WRITE", "ALL", "WRITE"] {
        let mut redis = world.redis.connect().await.unwrap();
        let mut pause = redis::cmd("CLIENT");
        pause.arg("PAUSE").arg(1_500).arg(kind);
        pause.exec_async(&mut redis).await.unwrap();
        let wanted = load.transactions() + 100;
        load.reached(wanted).await;
    }
    load.stop().await;
    world.assert_equal().await;
    stream::assert_every_insert_once(&world).await;
    world.stop().await;
}

/// The answer of a store is lost fifty times: nothing is there twice.
#[tokio::test]
async fn fifty_lost_replies() {
    let mut world = World::betting(SMALL).await;
    let proxies =
        [behind_proxy(&mut world, REDIS).await, behind_proxy(&mut world, CLICKHOUSE).await];
    stream::remember_inserts(&world).await;
    world.start().await;
    let client = world.db().await;
    for round in 0..50 {
        // ClickHouse is written to once a second only.
        let store = usize::from(round % 10 == 9);
        let proxy = &proxies[store];
        let before = proxy.dropped();
        proxy.set(Mode::DropReply);
        client.batch_execute(BET).await.unwrap();
        let dropped = async {
            while proxy.dropped() == before {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        timeout(LIMIT, dropped).await.expect("a reply is dropped");
        proxy.set(Mode::Pass);
        let back = |status: &Status| {
            let store = &status.stores[store];
            store.state == StoreState::Live && store.waiting == 0
        };
        world.service().until("well again", LIMIT, back).await.unwrap();
    }
    world.assert_equal().await;
    stream::assert_every_insert_once(&world).await;
    world.stop().await;
}

/// A batch is stuck in the network, its writer dies, the next one writes it and more; then the
/// first one arrives.
async fn a_late_batch(variable: &str) {
    let seed = workload::seed();
    let mut world = World::betting(SMALL).await;
    let proxy = behind_proxy(&mut world, variable).await;
    stream::remember_inserts(&world).await;
    world.start().await;
    let client = world.db().await;
    workload::run(&world, seed, 30).await;
    world.caught_up().await;
    proxy.set(Mode::Hold);
    client.batch_execute("UPDATE bets SET amount = amount + 1 WHERE id <= 200").await.unwrap();
    client.batch_execute("UPDATE users SET name = 'stuck'").await.unwrap();
    timeout(LIMIT, proxy.held()).await.expect("the batch is stuck");
    world.kill9().await;
    let port =
        if variable == REDIS { world.redis.server.port() } else { world.clickhouse.server.port() };
    replace(&mut world, variable, &proxy.address(), &format!("127.0.0.1:{port}"));
    world.start().await;
    client.batch_execute("DELETE FROM bets WHERE id <= 100").await.unwrap();
    client.batch_execute("UPDATE users SET name = 'after'").await.unwrap();
    world.assert_equal().await;
    proxy.set(Mode::Pass);
    timeout(LIMIT, proxy.released()).await.expect("the batch arrives");
    // Later writes, which the server works on after the late one.
    workload::run(&world, seed + 1, 30).await;
    world.assert_equal().await;
    stream::assert_every_insert_once(&world).await;
    world.stop().await;
}

#[tokio::test]
async fn a_batch_that_reaches_redis_late_changes_nothing() {
    a_late_batch(REDIS).await;
}

#[tokio::test]
async fn a_batch_that_reaches_clickhouse_late_changes_nothing() {
    a_late_batch(CLICKHOUSE).await;
}

/// Connections to all three are cut again and again, and answers take their time.
#[tokio::test]
async fn cut_and_slow_connections() {
    let seed = workload::seed();
    let mut world = World::betting(SMALL).await;
    let mut proxies = Vec::new();
    for variable in [SOURCE, REDIS, CLICKHOUSE] {
        proxies.push(behind_proxy(&mut world, variable).await);
    }
    stream::remember_inserts(&world).await;
    world.start().await;
    let mut load = Load::start(&world, seed, 2, Duration::from_millis(5)).await;
    for round in 0..12 {
        let proxy = &proxies[round % 3];
        proxy.set(
            [Mode::Delay(Duration::from_millis(30)), Mode::HoldReplies, Mode::CutAfter(900)]
                [round / 3 % 3],
        );
        let wanted = load.transactions() + 25;
        load.reached(wanted).await;
        proxy.cut();
        proxy.set(Mode::Pass);
    }
    load.stop().await;
    world.assert_equal().await;
    stream::assert_every_insert_once(&world).await;
    world.stop().await;
}
