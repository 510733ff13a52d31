//! `docker-compose.yml` and what it mounts, as far as that goes without containers: the file by the
//! real Docker Compose, first starts by real servers. `tests/compose/run` starts it for real.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use walview::demo::servers::postgres::{Db, Postgres, Settings};
use walview::demo::servers::redis::{Persistence, Redis};
use walview::demo::servers::service::{Options, Service, parse_lsn};
use walview::demo::servers::{ClickHouse, Launch, Process, Signal, TempHome};

use crate::world::{CATCH_UP_LIMIT, LIVE_LIMIT};

mod rules;

/// The folders of the cache that scripts/setup fills.
const COMPOSE_FOLDER: &str = "compose-2.40.3";
const CHDB_FOLDER: &str = "chdb-26.7.3-stable.1";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn cached(file: &str) -> PathBuf {
    // `env` alone knows the caller's environment here: the program's is read in config/env.rs.
    let found = run(Command::new("sh").args(["-c", "echo \"${XDG_CACHE_HOME:-$HOME/.cache}\""]));
    let file =
        Path::new(String::from_utf8(found.stdout).unwrap().trim()).join("walview").join(file);
    assert!(file.is_file(), "{} is missing; run scripts/setup", file.display());
    file
}

/// Runs it to its end, which must be a good one.
fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} ended with {}: {said}", output.status);
    output
}

/// What Docker Compose makes of these files.
fn rendered(files: &[&str]) -> Value {
    let mut command = Command::new(cached(&format!("{COMPOSE_FOLDER}/docker-compose")));
    command.current_dir(root()).env_clear().env("LIBCHDB", "/libchdb.so");
    for file in files {
        command.args(["--file", file]);
    }
    let output = run(command.args(["config", "--format", "json"]));
    // Compose warns of variables that are not set, keys that it leaves out, and the like.
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn the_file_keeps_its_rules() {
    let found = rules::broken(&rendered(&["docker-compose.yml"]), root());
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// Each rule can fail: one change of the file for each, and what is said then.
#[test]
fn every_rule_notices_its_breach() {
    let good = rendered(&["docker-compose.yml"]);
    for (place, value, said) in rules::breaches() {
        let mut bad = good.clone();
        let (parent, key) = place.rsplit_once('/').unwrap();
        let parent = bad.pointer_mut(parent).unwrap_or_else(|| panic!("nothing at {parent}"));
        match (parent, value) {
            (Value::Object(map), None) => assert!(map.shift_remove(key).is_some(), "{place}"),
            (Value::Object(map), Some(value)) => drop(map.insert(key.to_owned(), value)),
            (Value::Array(list), None) => drop(list.remove(key.parse().unwrap())),
            (Value::Array(list), Some(value)) => {
                *list.get_mut(key.parse::<usize>().unwrap()).unwrap() = value;
            }
            (parent, _) => panic!("{place}: {parent} has no members"),
        }
        let found = rules::broken(&bad, root());
        assert!(found.iter().any(|one| one.contains(said)), "{place}: {said:?} not in {found:?}");
    }
}

/// The stand-in run is a run of the same services: nothing but network and ports differs.
#[test]
fn the_stand_in_file_changes_the_network_only() {
    let real = rendered(&["docker-compose.yml"]);
    let mut standin = rendered(&["docker-compose.yml", "tests/compose/standin.yml"]);
    let services = standin.get_mut("services").unwrap().as_object_mut().unwrap();
    for (name, service) in services.iter_mut() {
        let service = service.as_object_mut().unwrap();
        assert_eq!(service.get("network_mode").unwrap(), "host", "{name}");
        assert!(service.get("ports").is_none(), "{name}");
        let was = real.pointer(&format!("/services/{name}")).unwrap();
        for key in
            ["network_mode", "networks", "ports", "extra_hosts", "build", "depends_on", "ulimits"]
        {
            service.shift_remove(key);
            if let Some(value) = was.get(key) {
                service.insert(key.to_owned(), value.clone());
            }
        }
        if name == "clickhouse" {
            let volumes = service.get_mut("volumes").unwrap().as_array_mut().unwrap();
            volumes.retain(|volume| volume.get("source").unwrap() != "/libchdb.so");
        }
        let sorted = |value: &Value| -> BTreeMap<String, Value> {
            value.as_object().unwrap().clone().into_iter().collect()
        };
        assert_eq!(sorted(&Value::Object(service.clone())), sorted(was), "{name}");
    }
}

/// A pattern that takes a source file out of the build would be noticed by users alone; a secret in
/// the build's cache by nobody.
#[test]
fn the_build_gets_the_sources_and_no_secret() {
    let text = std::fs::read_to_string(root().join(".dockerignore")).unwrap();
    let left_out: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
    assert!(left_out.contains(&"compose") && left_out.contains(&"target"));
    for pattern in left_out {
        let deep = pattern.contains('/') || pattern.contains("**") || pattern.starts_with('!');
        assert!(!deep, "{pattern}: name what stands at the top of the tree");
        for needed in [
            "Cargo.toml",
            "Cargo.lock",
            "LICENSE",
            "core",
            "embedded",
            "migrations",
            "pipeline",
            "schemas",
            "src",
        ] {
            assert_ne!(pattern, needed);
        }
    }
    let dockerfile = std::fs::read_to_string(root().join("Dockerfile")).unwrap();
    let last = |word: &str| dockerfile.lines().rfind(|line| line.starts_with(word));
    assert_eq!(last("USER "), Some("USER 65532:65532"));
    assert_eq!(last("STOPSIGNAL "), Some("STOPSIGNAL SIGTERM"));
    assert_eq!(last("ENTRYPOINT "), Some("ENTRYPOINT [\"walview\"]"));
}

fn make_secrets(folder: &Path) -> BTreeMap<String, String> {
    run(Command::new(root().join("scripts/secrets")).arg(folder));
    let read = |entry: std::io::Result<std::fs::DirEntry>| {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        (name, std::fs::read_to_string(path).unwrap())
    };
    std::fs::read_dir(folder).unwrap().map(read).collect()
}

/// A second run changes nothing; a file that is removed gets a new password, and its hash follows.
#[test]
fn passwords_are_made_once_and_rotated_one_by_one() {
    use std::os::unix::fs::PermissionsExt as _;
    let home = tempfile::tempdir().unwrap();
    let folder = home.path().join("secrets");
    let first = make_secrets(&folder);
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&folder), 0o700);
    for (name, text) in &first {
        assert_eq!(mode(&folder.join(name)), 0o444, "{name}");
        if name.ends_with(".txt") {
            assert_eq!((text.len(), text.trim_end().len()), (33, 32), "{name}");
            let others = first.iter().filter(|(other, _)| *other != name);
            assert!(others.clone().all(|(_, other)| !other.contains(text.trim_end())), "{name}");
        }
    }
    assert_eq!(make_secrets(&folder), first);
    std::fs::remove_file(folder.join("redis_walview.txt")).unwrap();
    let second = make_secrets(&folder);
    let changed: Vec<_> = first.keys().filter(|name| first[*name] != second[*name]).collect();
    assert_eq!(changed, ["redis_users.acl", "redis_walview.txt"]);
}

/// What ClickHouse's engine makes of users.xml: who there is, by which authentication, from where,
/// and that neither Walview nor BI may do more than they need.
#[test]
fn clickhouse_takes_the_users() {
    let home = tempfile::tempdir().unwrap();
    make_secrets(&home.path().join("secrets"));
    let hashes = home.path().join("secrets/clickhouse_hashes.xml");
    let users = std::fs::read_to_string(root().join("compose/clickhouse/users.xml")).unwrap();
    let included = "/run/secrets/clickhouse_hashes<";
    assert!(users.contains(included));
    std::fs::create_dir(home.path().join("users.d")).unwrap();
    let users = users.replace(included, &format!("{}<", hashes.display()));
    std::fs::write(home.path().join("users.d/walview.xml"), users).unwrap();
    let output = run(Command::new("python3")
        .arg(root().join("tests/compose/clickhouse_users.py"))
        .args([cached(&format!("{CHDB_FOLDER}/libchdb.so")).as_path(), home.path()]));
    let said = String::from_utf8(output.stdout).unwrap();
    let rights = "SELECT, INSERT, CREATE DATABASE, CREATE TABLE, CREATE VIEW, DROP TABLE, DROP VIEW, \
                  TRUNCATE";
    let expected = format!(
        "bi\t['sha256_password']\t['::/0']\n\
         default\t['plaintext_password']\t['localhost']\n\
         walview\t['sha256_password']\t['::/0']\n\n\
         GRANT SELECT ON betting.* TO bi\n\n\
         GRANT {rights} ON betting.* TO walview\n\
         GRANT {rights} ON betting_rows.* TO walview\n\
         GRANT SET DEFINER ON walview TO walview\n\n"
    );
    assert_eq!(said, expected);
}

/// The first start's script and users, on real PostgreSQL and Redis: Walview becomes live with what
/// they grant, `status --ready` says so, and the rights end there.
#[tokio::test]
async fn walview_lives_with_the_rights_it_is_given() {
    let home = TempHome::new("walview-test-").unwrap();
    let folder = home.path().join("secrets");
    let secrets = make_secrets(&folder);
    let secret = |name: &str| secrets[&format!("{name}.txt")].trim_end().to_owned();
    let settings = Settings { fsync: false, extra: Vec::new() };
    let (postgres, redis, clickhouse) = (home.postgres(), home.redis(), home.clickhouse());
    let logs = ["postgres", "redis", "clickhouse"].map(|name| home.log(name));
    let (postgres, redis, clickhouse) = tokio::try_join!(
        Postgres::start(&postgres, &logs[0], "other", settings),
        Redis::start(&redis, &logs[1], Persistence::AppendOnly),
        ClickHouse::start(&clickhouse, &logs[2]),
    )
    .unwrap();
    first_start(&postgres, &folder).await;
    let mut admin = redis.connect().await.unwrap();
    for line in secrets["redis_users.acl"].lines() {
        let words = line.split(' ').skip(1);
        redis::cmd("ACL")
            .arg("SETUSER")
            .arg(words.collect::<Vec<_>>())
            .exec_async(&mut admin)
            .await
            .unwrap();
    }

    let file = |name: &str| folder.join(format!("{name}.txt")).display().to_string();
    let (pg_port, redis_port) = (postgres.server.port(), redis.server.port());
    let url = |role: &str, login: &str| {
        format!("postgres://{role}{login}@127.0.0.1:{pg_port}/betting?sslmode=disable")
    };
    let env = [
        ("BETTING_DATABASE_URL", url("walview", "")),
        ("BETTING_DATABASE_PASSWORD_FILE", file("postgres_walview")),
        ("REDIS_URL", format!("redis://walview@127.0.0.1:{redis_port}/0")),
        ("REDIS_PASSWORD_FILE", file("redis_walview")),
        ("CLICKHOUSE_URL", clickhouse.url()),
    ];
    let options = Options {
        args: Vec::new(),
        program: PathBuf::from(env!("CARGO_BIN_EXE_walview")),
        pipeline_file: root().join("pipeline/betting.yaml"),
        pipeline: "betting".to_owned(),
        state: home.state(),
        env: env.map(|(name, value)| (name.to_owned(), value)).to_vec(),
        log: home.log("walview"),
    };
    let ready = || {
        let mut command = Command::new(&options.program);
        let output = command.args(["status", "--ready", "--state"]).arg(&options.state).output();
        let output = output.unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stdout).unwrap())
    };
    assert_eq!(ready().0, 1, "nothing has run yet");
    let mut service = Service::spawn(&options).unwrap();
    service.until_live(LIVE_LIMIT).await.unwrap();

    let application =
        Db::connect(&url("betting", &format!(":{}", secret("postgres_betting")))).await.unwrap();
    let inserted = "INSERT INTO users (id, name, email) VALUES (1, 'Ada', 'a@example.com');
                    INSERT INTO bets (user_id, event_id, amount, odds) VALUES (1, 1, 2, 3)";
    application.batch_execute(inserted).await.unwrap();
    let lsn = application.query_one("SELECT pg_current_wal_flush_lsn()::text", &[]).await.unwrap();
    service.until_stores_reach(parse_lsn(lsn.get(0)).unwrap(), CATCH_UP_LIMIT).await.unwrap();
    assert_eq!(ready(), (0, "ready\n".to_owned()));

    redis_rights_end_there(redis_port, &secret).await;
    let login = format!(":{}", secret("postgres_walview"));
    let walview = Db::connect(&url("walview", &login)).await.unwrap();
    postgres_rights_end_there(&walview).await;
    let hashes = "SELECT encode(sha256(convert_to($1, 'UTF8')), 'hex')";
    for user in ["walview", "bi"] {
        let password = secret(&format!("clickhouse_{user}"));
        let hash: String = walview.query_one(hashes, &[&password]).await.unwrap().get(0);
        let line = format!("<{user}_sha256>{hash}</{user}_sha256>");
        assert!(secrets["clickhouse_hashes.xml"].contains(&line), "{user}");
    }

    service.stop().await.unwrap();
    let (code, said) = ready();
    assert!(code == 1 && said.contains("does not run"), "{code}: {said}");
    let log = std::fs::read_to_string(&options.log).unwrap();
    for name in ["postgres_walview", "redis_walview"] {
        assert!(!log.contains(&secret(name)), "{name} is in the log");
    }
}

async fn redis_rights_end_there(redis_port: u16, secret: &impl Fn(&str) -> String) {
    let as_user = async |user: &str, command: &[&str]| -> Result<String, String> {
        let login =
            format!("redis://{user}:{}@127.0.0.1:{redis_port}/", secret(&format!("redis_{user}")));
        let client = redis::Client::open(login).unwrap();
        let mut connection = client.get_multiplexed_async_connection().await.unwrap();
        let mut asked = redis::cmd(command[0]);
        asked.arg(&command[1..]);
        asked.query_async(&mut connection).await.map_err(|error| error.to_string())
    };
    assert_eq!(as_user("reader", &["GET", "bet_count:OPEN"]).await.unwrap(), "1");
    for (user, command) in [
        ("reader", ["SET", "bet_count:OPEN", "0"].as_slice()),
        ("reader", &["DEL", "bet_count:OPEN"]),
        ("reader", &["CONFIG", "GET", "*"]),
        ("walview", &["FLUSHALL"]),
        ("walview", &["CONFIG", "SET", "maxmemory", "1"]),
        ("walview", &["ACL", "LIST"]),
    ] {
        let said = as_user(user, command).await.unwrap_err();
        assert!(said.contains("NOPERM") || said.contains("no permissions"), "{command:?}: {said}");
    }
    // Nobody without a password, but for the health check, which may PING.
    let login = format!("redis://health:none@127.0.0.1:{redis_port}/");
    let mut health =
        redis::Client::open(login).unwrap().get_multiplexed_async_connection().await.unwrap();
    redis::cmd("PING").exec_async(&mut health).await.unwrap();
    assert!(redis::cmd("GET").arg("x").exec_async(&mut health).await.is_err());
    let url = format!("redis://127.0.0.1:{redis_port}/");
    let mut nobody =
        redis::Client::open(url).unwrap().get_multiplexed_async_connection().await.unwrap();
    let said = redis::cmd("PING").exec_async(&mut nobody).await.unwrap_err().to_string();
    assert!(said.to_uppercase().contains("AUTH"), "{said}");
}

async fn postgres_rights_end_there(walview: &Db) {
    for statement in
        ["DELETE FROM bets", "CREATE TABLE t (i int)", "DROP PUBLICATION walview_betting"]
    {
        assert!(walview.batch_execute(statement).await.is_err(), "{statement}");
    }
}

/// Redis reads its append-only file as a user of the ACL, and drops the transactions that this user
/// may not execute: what Walview wrote would be gone after a restart.
#[tokio::test]
async fn redis_has_after_a_restart_what_walview_wrote() {
    let home = TempHome::new("walview-test-").unwrap();
    let secrets = make_secrets(&home.path().join("secrets"));
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let file = rendered(&["docker-compose.yml"]);
    let command = file.pointer("/services/redis/command").unwrap().as_array().unwrap();
    let users = home.path().join("secrets/redis_users.acl").display().to_string();
    let own = ["--bind", "127.0.0.1", "--port", &port.to_string(), "--dir"].map(str::to_owned);
    let args = command.iter().skip(1).map(|word| word.as_str().unwrap().to_owned());
    let args = args.map(|word| word.replace("/run/secrets/redis_users", &users));
    let launch = Launch {
        program: "redis-server".into(),
        args: args.chain(own).chain([home.path().display().to_string()]).collect(),
        env: Vec::new(),
        user: None,
        log: home.log("redis"),
        death: Signal::KILL,
    };
    let as_user = async |user: &str| {
        let password = secrets[&format!("redis_{user}.txt")].trim_end();
        let url = format!("redis://{user}:{password}@127.0.0.1:{port}/");
        let deadline = tokio::time::Instant::now() + CATCH_UP_LIMIT;
        loop {
            let client = redis::Client::open(url.as_str()).unwrap();
            match client.get_multiplexed_async_connection().await {
                Ok(connection) => return connection,
                Err(error) => assert!(tokio::time::Instant::now() < deadline, "{error}"),
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    for (round, signal) in [Signal::TERM, Signal::KILL, Signal::TERM].into_iter().enumerate() {
        let mut server = Process::spawn("redis", &launch).unwrap();
        let mut reader = as_user("reader").await;
        let deadline = tokio::time::Instant::now() + CATCH_UP_LIMIT;
        let loading = redis::ErrorKind::Server(redis::ServerErrorKind::BusyLoading);
        let found: Option<usize> = loop {
            match redis::cmd("GET").arg("key").query_async(&mut reader).await {
                Err(error) if error.kind() == loading => {
                    assert!(tokio::time::Instant::now() < deadline, "{error}");
                }
                found => break found.unwrap(),
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        };
        assert_eq!(found, round.checked_sub(1), "before round {round}");
        let mut transaction = redis::pipe();
        transaction.atomic().set("key", round).set("mark", round);
        transaction.exec_async(&mut as_user("walview").await).await.unwrap();
        server.signal(signal).unwrap();
        assert!(server.exited(CATCH_UP_LIMIT).await.is_some());
    }
}

/// As the image does it: a database, then compose/postgres/init.sh as the superuser.
async fn first_start(postgres: &Postgres, secrets: &Path) {
    let admin = Db::connect(&postgres.admin_url("postgres")).await.unwrap();
    // The roles of the other tests' cluster have the same names.
    admin.batch_execute("ALTER ROLE walview RENAME TO other").await.unwrap();
    admin.batch_execute("CREATE DATABASE betting").await.unwrap();
    let psql = postgres.client_program("psql");
    run(Command::new(root().join("compose/postgres/init.sh"))
        .env("PATH", format!("{}:/usr/bin:/bin", psql.parent().unwrap().display()))
        .envs([("PGHOST", "127.0.0.1"), ("POSTGRES_USER", "postgres"), ("POSTGRES_DB", "betting")])
        .env("PGPORT", postgres.server.port().to_string())
        .env("PGPASSWORD", postgres.password())
        .env("SECRETS", with_mounted_names(secrets))
        .env("MIGRATIONS", root().join("migrations/postgres/betting")));
}

/// Inside the container a secret has no extension.
fn with_mounted_names(secrets: &Path) -> PathBuf {
    let mounted = secrets.join("mounted");
    std::fs::create_dir(&mounted).unwrap();
    for name in ["postgres_betting", "postgres_walview"] {
        std::fs::copy(secrets.join(format!("{name}.txt")), mounted.join(name)).unwrap();
    }
    mounted
}
