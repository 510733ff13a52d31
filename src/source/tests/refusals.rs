//! What is printed when it does not work: each sentence names the object, the cause and the remedy.

use super::super::connect::replication;
use super::super::replication::ReplicationError;
use super::super::{Action, Kind, Secret, catalog, connect, server as source_server, slot};
use super::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

fn names(tables: &[&str]) -> Vec<(String, String)> {
    tables.iter().map(|name| ("public".to_owned(), (*name).to_owned())).collect()
}

async fn creation(config: &SourceConfig, name: &str) -> SourceError {
    refusal(slot::create_exporting(config, name, |_| {}, std::future::pending()).await)
}

#[tokio::test]
async fn a_server_that_cannot_be_reached() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
    let url = format!("postgres://u@127.0.0.1:{free}/d");
    let mut config = SourceConfig::from_url(&url, None).unwrap();
    let error = refusal(connect(&config).await);
    assert_eq!((error.action, error.kind), (Action::Retry, Kind::Unreachable));
    let said = format!("nothing listens at \"127.0.0.1:{free}\": Connection refused");
    assert_says(&error, &[&said, "check host and port in source.url"]);

    config.host = "no-such-host.invalid".to_owned();
    let error = refusal(connect(&config).await);
    assert_says(&error, &["cannot find host \"no-such-host.invalid\"", "check the host"]);

    config.host = "/no/such/folder".to_owned();
    let error = refusal(connect(&config).await);
    assert_says(&error, &["no PostgreSQL socket \"/no/such/folder/.s.PGSQL."]);
}

#[tokio::test]
async fn who_may_come_in() {
    let server = Server::start(&[]);
    let app = application(&server).await;
    run(&app, "CREATE ROLE secured LOGIN PASSWORD 'right' REPLICATION; CREATE ROLE plain LOGIN")
        .await;

    let mut secured = config(&server, "secured", "postgres");
    let error = refusal(connect(&secured).await);
    assert_says(&error, &["asks for a password of user \"secured\"", "password_file"]);
    secured.password = Some(Secret::new("marker"));
    let error = refusal(connect(&secured).await);
    assert_eq!(error.action, Action::Stop);
    assert_says(
        &error,
        &[
            "refused the password of user \"secured\"",
            "password authentication failed for user \"secured\" (SQLSTATE 28P01)",
            "check user and password in source.url or password_file",
        ],
    );
    assert!(!format!("{error:?}").contains("marker"));
    secured.password = Some(Secret::new("right"));
    connect(&secured).await.unwrap().close().await;

    let error = refusal(connect(&config(&server, "postgres", "nowhere")).await);
    assert_says(&error, &["has no database \"nowhere\"", "does not exist (SQLSTATE 3D000)"]);
    let error = refusal(connect(&config(&server, "nobody", "postgres")).await);
    assert_says(&error, &["refused user \"nobody\"", "role \"nobody\" does not exist"]);
    let error = refusal(connect(&config(&server, "tls_only", "postgres")).await);
    assert_says(&error, &["lets nobody in this way: pg_hba.conf rejects", "no encryption"]);

    let error = creation(&config(&server, "plain", "postgres"), "s").await;
    assert_eq!(error.action, Action::Stop);
    assert_says(
        &error,
        &["role \"plain\" may not replicate: ", "run: ALTER ROLE \"plain\" REPLICATION"],
    );
}

#[tokio::test]
async fn a_replication_session_knows_every_way_to_log_in() {
    let server = Server::start(&[]);
    let app = application(&server).await;
    run(
        &app,
        "CREATE ROLE secured LOGIN PASSWORD 'right' REPLICATION;
         CREATE ROLE clear LOGIN PASSWORD 'right' REPLICATION; SET password_encryption = 'md5';
         CREATE ROLE hashed LOGIN PASSWORD 'right' REPLICATION",
    )
    .await;
    for role in ["secured", "hashed", "clear"] {
        let mut config = config(&server, role, "postgres");
        let error = refusal(replication(&config).await);
        assert_says(&error, &[&format!("asks for a password of user \"{role}\""), "password_file"]);
        config.password = Some(Secret::new("marker"));
        let error = refusal(replication(&config).await);
        assert_eq!(error.action, Action::Stop);
        assert_says(&error, &[&format!("refused the password of user \"{role}\""), "28P01"]);
        assert!(!format!("{error:?}").contains("marker"));
        config.password = Some(Secret::new("right"));
        let (mut session, _) = replication(&config).await.unwrap();
        // An error of the server does not end the session.
        assert!(session.query("SELECT 1/0").await.is_err());
        let rows = session.query("SELECT current_user, NULL").await.unwrap();
        assert_eq!(rows, [[Some(role.to_owned()), None]]);
        session.close().await;
    }
    // Where the folder of the socket is named.
    let folder = server.dir.path().display().to_string();
    let local = SourceConfig { host: folder, ..superuser(&server) };
    replication(&local).await.unwrap().0.close().await;
}

/// Says of itself that it is the server that knows the password, and does not.
#[tokio::test]
async fn a_server_that_does_not_know_the_password_is_found_out() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("postgres://u:secret@127.0.0.1:{}/d", listener.local_addr().unwrap().port());
    let config = SourceConfig::from_url(&url, None).unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut buffer = [0; 4096];
        socket.read(&mut buffer).await.unwrap();
        let offer = b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0";
        socket.write_all(offer).await.unwrap();
        let read = socket.read(&mut buffer).await.unwrap();
        let first = String::from_utf8_lossy(&buffer[..read]).into_owned();
        let nonce = first.rsplit_once("r=").unwrap().1;
        let answer = |code: u8, text: &str| {
            let length = u32::try_from(text.len() + 8).unwrap().to_be_bytes();
            [b"R", &length[..], &[0, 0, 0, code], text.as_bytes()].concat()
        };
        let first = answer(11, &format!("r={nonce}x,s=c2FsdA==,i=4096"));
        socket.write_all(&first).await.unwrap();
        socket.read(&mut buffer).await.unwrap();
        socket.write_all(&answer(12, "v=AAAA")).await.unwrap();
        socket.read(&mut buffer).await.unwrap();
    });
    let error = refusal(replication(&config).await);
    assert_eq!(error.action, Action::Stop);
    assert_says(&error, &["cannot log in at PostgreSQL at"]);
}

#[tokio::test]
async fn tables_that_cannot_be_followed() {
    let server = Server::start(&[]);
    let app = application(&server).await;
    run(
        &app,
        "CREATE ROLE plain LOGIN REPLICATION; CREATE SCHEMA sales;
         CREATE TABLE sales.bets(id int PRIMARY KEY);
         CREATE TABLE guarded(id int PRIMARY KEY); ALTER TABLE guarded ENABLE ROW LEVEL SECURITY;
         GRANT SELECT ON guarded TO plain; CREATE VIEW v AS SELECT 1 AS x; GRANT SELECT ON v TO plain;
         CREATE UNLOGGED TABLE quick(id int PRIMARY KEY); GRANT SELECT ON quick TO plain;
         CREATE TABLE parent(id int PRIMARY KEY); CREATE TABLE child() INHERITS (parent);
         GRANT SELECT ON parent TO plain",
    )
    .await;
    let plain = connect(&config(&server, "plain", "postgres")).await.unwrap();
    let said = |table: &'static str| {
        let plain = &plain;
        async move { refusal(catalog::load(plain, &names(&[table])).await) }
    };
    assert_says(
        &said("guarded").await,
        &[
            "row level security hides rows of table \"public.guarded\" from role \"plain\"",
            "ALTER ROLE \"plain\" BYPASSRLS",
        ],
    );
    assert_says(&said("v").await, &["\"public.v\" is a view"]);
    assert_says(&said("quick").await, &["unlogged", "ALTER TABLE \"public\".\"quick\" SET LOGGED"]);
    assert_says(&said("parent").await, &["has inheriting tables"]);
    assert_says(
        &said("Bets").await,
        &["table \"public.Bets\" does not exist", "did you mean \"sales.bets\"?"],
    );
    assert_says(&said("nix").await, &["table \"public.nix\" does not exist; check its name"]);
}

#[tokio::test]
async fn wal_level_and_the_end_of_slots() {
    let server = Server::start(&["wal_level=replica"]);
    let config = superuser(&server);
    let session = connect(&config).await.unwrap();
    let info = source_server::info(&session).await.unwrap();
    let remedy = "ALTER SYSTEM SET wal_level = logical; then restart PostgreSQL";
    let error = info.problems(&config).remove(0);
    assert_says(&error, &["is \"replica\"; logical replication needs \"logical\"", remedy]);
    assert_says(&creation(&config, "s").await, &["needs \"logical\"", remedy]);

    let server = Server::start(&["max_replication_slots=1", "max_wal_senders=2"]);
    let config = superuser(&server);
    let session = connect(&config).await.unwrap();
    assert!(source_server::info(&session).await.unwrap().problems(&config).is_empty());
    let one = slot::create_exporting(&config, "one", |_| {}, std::future::pending()).await.unwrap();
    let error = creation(&config, "two").await;
    assert_says(
        &error,
        &[
            "has no free replication slot: all replication slots are in use",
            "max_replication_slots",
        ],
    );
    // The session that was refused a slot has gone, and its sender is free again.
    until("one sender", async || {
        let senders = "SELECT count(*) FROM pg_stat_replication";
        session.query_one(senders, &[]).await.unwrap().get::<_, i64>(0) == 1
    })
    .await;
    let second = replication(&config).await.unwrap();
    let error = refusal(replication(&config).await);
    assert_eq!(error.action, Action::Retry);
    assert_says(&error, &["has no free WAL sender", "max_wal_senders"]);
    drop(second);
    one.close().await;
}

/// Speaks just enough to let a session in, then knows no replication command.
async fn pooler() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut buffer = [0; 4096];
        socket.read(&mut buffer).await.unwrap();
        socket.write_all(b"R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I").await.unwrap();
        socket.read(&mut buffer).await.unwrap();
        let fields = b"SERROR\0C42601\0Msyntax error at or near \"IDENTIFY_SYSTEM\"\0\0";
        let length = u32::try_from(fields.len() + 4).unwrap().to_be_bytes();
        let reply = [b"E", &length[..], fields, b"Z\0\0\0\x05I"].concat();
        socket.write_all(&reply).await.unwrap();
        socket.read(&mut buffer).await.unwrap();
    });
    tasks.detach_all();
    port
}

#[tokio::test]
async fn a_pooler_is_named_as_one() {
    let url = format!("postgres://u@localhost:{}/d", pooler().await);
    let config = SourceConfig::from_url(&url, None).unwrap();
    let error = refusal(replication(&config).await);
    assert_eq!(error.action, Action::Stop);
    assert_says(
        &error,
        &[
            "is a connection pooler, not PostgreSQL itself",
            "syntax error at or near \"IDENTIFY_SYSTEM\"",
            "PostgreSQL's own host and port",
        ],
    );
}

#[tokio::test]
async fn a_frozen_server_is_given_up_on_in_time() {
    let server = Server::start(&[]);
    let config = SourceConfig { connect_timeout: Duration::from_secs(1), ..superuser(&server) };
    server.signal_all("-STOP");
    let error = refusal(connect(&config).await);
    server.signal_all("-CONT");
    assert_eq!((error.action, error.kind), (Action::Retry, Kind::Unreachable));
    assert_says(&error, &["did not answer within 1 s when asked to open a session"]);
}

#[test]
fn a_pooler_in_the_host_name_is_hinted_at() {
    let url = "postgres://u@ep-cool-pooler.eu.example.com/d";
    let config = SourceConfig::from_url(url, None).unwrap();
    let error = ReplicationError::Server {
        code: "42601".to_owned(),
        message: "syntax error at or near \"IDENTIFY_SYSTEM\"".to_owned(),
    };
    let error = SourceError::replication(&config, "x", error);
    assert_says(&error, &["write \"ep-cool.eu.example.com\" in source.url"]);
}
