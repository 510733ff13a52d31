//! The suite's Redis, and what only Redis promises.

use super::super::redis::{Config, Redis, read_all};
use super::super::{Store as _, StoreError};
use super::server::RedisServer;
use super::{
    A, B, Content, Mode, Proxy, Rig, Row, at, batch, each_change, identity, ready, values, view,
};
use bytes::Bytes;
use walview_core::position::{Lsn, Position};
use walview_core::target::redis::{Action, OpRef, Spec, SpecShape, Target};
use walview_core::target::template::Template;
use walview_core::target::{Commit, Events, Scratch};

pub(super) struct RedisRig {
    server: RedisServer,
}

pub(super) fn targets() -> Vec<Target> {
    let target = |template: &str, shape| {
        let template = Template::parse(template).unwrap();
        Target::bind(&Spec { template, shape, fields: None }, &view()).unwrap()
    };
    let stream = SpecShape::Stream { events: Events::default(), maxlen: None };
    vec![
        target("ids", SpecShape::Set { member: "id".to_owned() }),
        target("n:{id}", SpecShape::String { value: "n".to_owned(), empty_zero: false }),
        target("h:{id}", SpecShape::Hash),
        target("j:{{all}}:{id}", SpecShape::Json { numbers_text: false }),
        target("top", SpecShape::ZSet { member: "id".to_owned(), score: "n".to_owned() }),
        target("events", stream),
    ]
}

impl RedisRig {
    pub(super) async fn cli(&self, words: &[&str]) -> String {
        let port = self.server.address().rsplit(':').next().unwrap().to_owned();
        let output =
            tokio::process::Command::new("redis-cli").args(["-p", &port]).args(words).output();
        String::from_utf8(output.await.unwrap().stdout).unwrap().trim().to_owned()
    }
}

impl Rig for RedisRig {
    type Store = Redis;

    async fn start() -> Self {
        Self { server: RedisServer::start().await }
    }

    fn address(&self) -> String {
        self.server.address()
    }

    fn store(&self, address: &str) -> Redis {
        let config = Config {
            url: format!("redis://{address}"),
            identity: identity(),
            accept_eviction: false,
        };
        Redis::new(config, targets())
    }

    async fn restart(&mut self) {
        self.server.restart().await;
    }

    fn ops(&self, changes: &[(Option<Row>, Option<Row>)], at: Position) -> Bytes {
        let targets = targets();
        let (mut scratch, mut bytes) = (Scratch::default(), Vec::new());
        let commit = Commit { committed_at: 0 };
        each_change(changes, at, |change, at| {
            for (index, target) in (0..).zip(&targets) {
                target.render(index, change, at, &commit, &mut scratch, &mut bytes).unwrap();
            }
        });
        bytes.into()
    }

    fn snapshot(&self, changes: &[(Option<Row>, Option<Row>)], at: Position) -> Bytes {
        let mut bytes = Vec::new();
        for op in OpRef::decode_all(&self.ops(changes, at)).map(Result::unwrap) {
            if !op.event {
                op.whole().unwrap().encode(&mut bytes);
            }
        }
        bytes.into()
    }

    async fn content(&self) -> Content {
        let mut content = Content::new();
        for target in targets() {
            read_all(&format!("redis://{}", self.address()), &target, |action| {
                add(&mut content, action);
            })
            .await
            .unwrap();
        }
        content
    }

    fn expected(&self, rows: &[Row]) -> Content {
        let mut content = Content::new();
        for target in targets() {
            for row in rows {
                if let Some(action) = target.expected(&values(*row)).unwrap() {
                    add(&mut content, action);
                }
            }
        }
        content
    }

    async fn events(&self) -> Option<usize> {
        self.cli(&["XLEN", "events"]).await.parse().ok()
    }

    async fn break_first_target(&self) {
        self.cli(&["SET", "ids", "foreign"]).await;
    }

    async fn put_foreign(&self) {
        for key in ["n:x:1", "n:a%3a", "nn:1", "ids2", "walview:other:mark"] {
            self.cli(&["SET", key, "foreign"]).await;
        }
    }

    async fn foreign_is_there(&self) -> bool {
        self.cli(&["EXISTS", "n:x:1", "n:a%3a", "nn:1", "ids2", "walview:other:mark"]).await == "5"
    }
}

/// Fields in one order, scores as doubles.
#[expect(clippy::wildcard_enum_match_arm, reason = "the others compare as they are")]
fn add(content: &mut Content, action: Action) {
    let slot = format!("{} {:?}", action.key(), action.member());
    let text = match action {
        Action::HashReplace { mut fields, .. } => {
            fields.sort();
            format!("{fields:?}")
        }
        Action::ZAdd { score, .. } => format!("{:?}", score.parse::<f64>().unwrap()),
        other => format!("{other:?}"),
    };
    content.insert(slot, text);
}

#[tokio::test]
async fn a_foreign_type_inside_exec_stops_its_view_alone() {
    let rig = RedisRig::start().await;
    let mut store = ready(&rig, &rig.address()).await;
    rig.cli(&["SET", "top", "foreign"]).await;
    let error = store.apply(&batch(&rig, 1, 2, &[(None, Some(A))])).await.unwrap_err();
    let StoreError::StopView(faults) = &error else { panic!("{error}") };
    assert_eq!(faults.iter().map(|fault| fault.target).collect::<Vec<_>>(), [4]);
    assert!(error.to_string().contains("another type"), "{error}");
    assert_eq!(rig.cli(&["GET", "n:1"]).await, "10", "its neighbours are written");
    assert_eq!(store.mark().await.unwrap(), Some(identity().mark(at(2))));
}

/// The reply that named the fault was lost, and the mark says that the batch arrived.
#[tokio::test]
async fn a_fault_is_not_lost_with_its_reply() {
    let rig = RedisRig::start().await;
    let proxy = Proxy::start(&rig.address()).await.unwrap();
    let mut store = ready(&rig, &proxy.address()).await;
    rig.cli(&["SET", "top", "foreign"]).await;
    let batch = batch(&rig, 1, 2, &[(None, Some(A))]);
    proxy.set(Mode::DropReply);
    let error = store.apply(&batch).await.unwrap_err();
    assert!(matches!(error, StoreError::Retry { .. }), "{error}");
    proxy.set(Mode::Pass);
    let error = store.apply(&batch).await.unwrap_err();
    assert!(matches!(error, StoreError::StopView(_)), "{error}");
    assert_eq!(rig.events().await, Some(1));
}

/// A consumer that empties the stream before the batch is written again does not stop the view.
#[tokio::test]
async fn a_repeat_whose_entries_were_taken_away() {
    let rig = RedisRig::start().await;
    let proxy = Proxy::start(&rig.address()).await.unwrap();
    let mut store = ready(&rig, &proxy.address()).await;
    let first = batch(&rig, 1, 2, &[(None, Some(A))]);
    proxy.set(Mode::DropReply);
    let error = store.apply(&first).await.unwrap_err();
    assert!(matches!(error, StoreError::Retry { .. }), "{error}");
    proxy.set(Mode::Pass);
    assert_eq!(rig.cli(&["XTRIM", "events", "MAXLEN", "0"]).await, "1");
    store.apply(&first).await.unwrap();
    assert_eq!(rig.events().await, Some(0));
    store.apply(&batch(&rig, 2, 3, &[(None, Some(B))])).await.unwrap();
    assert_eq!(rig.events().await, Some(1));
}

/// A repeat is harmless; ids that somebody else raised would swallow every event.
#[tokio::test]
async fn a_stream_with_later_entries_of_others_stops_its_view() {
    let rig = RedisRig::start().await;
    let mut store = ready(&rig, &rig.address()).await;
    rig.cli(&["XADD", "events", "18446744073709551615-1", "foreign", "1"]).await;
    let error = store.apply(&batch(&rig, 1, 2, &[(None, Some(A))])).await.unwrap_err();
    let StoreError::StopView(faults) = &error else { panic!("{error}") };
    assert_eq!(faults.iter().map(|fault| fault.target).collect::<Vec<_>>(), [5]);
}

#[tokio::test]
async fn a_full_redis_is_waited_for() {
    let rig = RedisRig::start().await;
    let mut store = ready(&rig, &rig.address()).await;
    rig.cli(&["CONFIG", "SET", "maxmemory", "1"]).await;
    let batch = batch(&rig, 1, 2, &[(None, Some(A))]);
    let error = store.apply(&batch).await.unwrap_err();
    assert!(
        matches!(&error, StoreError::Retry { message, .. } if message.contains("OOM")),
        "{error}"
    );
    assert!(rig.content().await.is_empty());
    rig.cli(&["CONFIG", "SET", "maxmemory", "0"]).await;
    store.apply(&batch).await.unwrap();
    assert_eq!(rig.content().await, rig.expected(&[A]));
}

#[tokio::test]
async fn an_evicting_redis_is_refused_unless_accepted() {
    let rig = RedisRig::start().await;
    rig.cli(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]).await;
    let error = rig.store(&rig.address()).connect().await.unwrap_err();
    assert!(matches!(error, StoreError::Stop { .. }), "{error}");
    assert!(error.to_string().contains("allkeys-lru"), "{error}");
}

#[tokio::test]
async fn a_wrong_password_and_a_refused_connection_are_told_apart() {
    let rig = RedisRig::start().await;
    rig.cli(&["CONFIG", "SET", "requirepass", "right"]).await;
    for url in ["", "u:secret@"] {
        let error = rig.store(&format!("{url}{}", rig.address())).connect().await.unwrap_err();
        assert!(matches!(error, StoreError::Stop { .. }), "{error:?}");
        assert!(!format!("{error:?}").contains("secret"));
    }
    rig.store(&format!(":right@{}", rig.address())).connect().await.unwrap();
    let error = rig.store("127.0.0.1:1").connect().await.unwrap_err();
    assert!(matches!(error, StoreError::Retry { .. }), "{error}");
}

#[tokio::test]
async fn fresh_says_when_and_expires() {
    let rig = RedisRig::start().await;
    let mut store = ready(&rig, &rig.address()).await;
    store.fresh(848_530_920_123_456, Lsn(0x16_B374_D848)).await.unwrap();
    assert_eq!(
        rig.cli(&["GET", "walview:test:fresh"]).await,
        "{\"as_of\":\"2026-11-20T23:02:00.123456Z\",\"lsn\":\"16/B374D848\"}"
    );
    assert!(
        (1..=5).contains(&rig.cli(&["TTL", "walview:test:fresh"]).await.parse::<i64>().unwrap())
    );
    // The watch survives it.
    store.apply(&batch(&rig, 1, 2, &[(None, Some(A))])).await.unwrap();
}
