//! TLS with a private authority, on the SQL and on the replication connection.

use super::super::stream::{Format, Resume, Stream};
use super::super::{Action, slot};
use super::*;
use std::path::Path;
use std::process::Command;

fn openssl(dir: &Path, arguments: &str) {
    let run = Command::new("openssl").current_dir(dir).args(arguments.split_whitespace()).output();
    let run = run.unwrap();
    assert!(run.status.success(), "{arguments}: {}", String::from_utf8_lossy(&run.stderr));
}

/// An authority, and a certificate of it for the name `localhost` and the address 127.0.0.2.
fn certificates(dir: &Path) {
    let new = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2";
    openssl(dir, &format!("{new} -keyout ca.key -out ca.pem -subj /CN=authority"));
    openssl(dir, &format!("{new} -keyout other.key -out other.pem -subj /CN=other"));
    openssl(
        dir,
        &format!(
            "{new} -keyout server.key -out server.crt -subj /CN=server -CA ca.pem -CAkey ca.key \
             -addext subjectAltName=DNS:localhost,IP:127.0.0.2 \
             -addext basicConstraints=critical,CA:FALSE"
        ),
    );
}

fn served(settings: &[&str]) -> Server {
    Server::prepared(settings, &[], |data| {
        certificates(data);
        let owner = std::fs::metadata(data).unwrap();
        use std::os::unix::fs::{MetadataExt, PermissionsExt};
        for name in ["server.key", "server.crt"] {
            let file = data.join(name);
            std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
            std::os::unix::fs::chown(&file, Some(owner.uid()), Some(owner.gid())).unwrap();
        }
    })
}

#[tokio::test]
async fn both_connections_verify_the_server() {
    let server = served(&["ssl=on", "listen_addresses=127.0.0.1,127.0.0.2"]);
    let app = application(&server).await;
    run(
        &app,
        "CREATE ROLE tls_only LOGIN SUPERUSER; CREATE TABLE t(id int PRIMARY KEY); \
               CREATE PUBLICATION p FOR TABLE t",
    )
    .await;
    let ca = server.dir.path().join("data/ca.pem");
    let other = server.dir.path().join("data/other.pem");
    let with = |host: &str, tls: TlsMode| SourceConfig {
        host: host.to_owned(),
        tls,
        ..config(&server, "tls_only", "postgres")
    };
    let full = |path: &Path| TlsMode::VerifyFull { root_cert: Some(path.to_owned()) };
    let good = [("localhost", full(&ca)), ("127.0.0.2", full(&ca))];
    for (number, (host, tls)) in good.into_iter().enumerate() {
        let config = with(host, tls);
        let name = format!("s{number}");
        let session = connect(&config).await.unwrap();
        let sql = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
        assert!(session.query_one(sql, &[]).await.unwrap().get::<_, bool>(0));
        let made =
            slot::create_exporting(&config, &name, |_| {}, std::future::pending()).await.unwrap();
        let from = made.consistent_point;
        made.close().await;
        let stream =
            Stream::start(&config, &name, "p", Resume::at(from), None, Format::Text).await.unwrap();
        let sql = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_replication USING (pid) WHERE ssl";
        assert_eq!(session.query_one(sql, &[]).await.unwrap().get::<_, i64>(0), 1);
        stream.stop().await;
        slot::drop(&config, &session, &name).await.unwrap();
    }
    let public = TlsMode::VerifyFull { root_cert: None };
    let bad = [
        (
            "127.0.0.1",
            full(&ca),
            ["certificate not valid for name", "write the host name that the certificate is for"],
        ),
        ("localhost", public, ["UnknownIssuer", "name its PEM file with sslrootcert=FILE"]),
        ("localhost", full(&other), ["UnknownIssuer", "does not come from the authority"]),
        ("localhost", full(Path::new("/no/file")), ["cannot use sslrootcert \"/no/file\"", "PEM"]),
    ];
    for (host, tls, parts) in bad {
        let config = with(host, tls);
        let error = refusal(connect(&config).await);
        assert_eq!(error.action, Action::Stop);
        assert_says(&error, &parts);
        // The replication session gives the same verdict in the same words.
        let error = refusal(super::super::connect::replication(&config).await);
        assert_eq!(error.action, Action::Stop);
        assert_says(&error, &parts);
    }
}

#[tokio::test]
async fn a_server_without_tls_is_not_talked_to_in_plain() {
    let server = Server::start(&[]);
    let tls = TlsMode::VerifyFull { root_cert: None };
    let config = SourceConfig { host: "localhost".to_owned(), tls, ..superuser(&server) };
    let sql = refusal(connect(&config).await);
    let replication = refusal(super::super::connect::replication(&config).await);
    for error in [sql, replication] {
        assert_eq!(error.action, Action::Stop);
        assert_says(&error, &["TLS with PostgreSQL at \"localhost:", "turn ssl on at the server"]);
    }
}
