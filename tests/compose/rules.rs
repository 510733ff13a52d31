//! What must hold of `docker-compose.yml` as Compose renders it, and one breach of each rule.

use std::path::Path;

use serde_json::{Value, json};

const SERVICES: [&str; 5] = ["clickhouse", "postgres", "redis", "reports", "walview"];

/// Every rule that is broken, one sentence each.
pub(super) fn broken(file: &Value, root: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let empty = serde_json::Map::new();
    let services = file.get("services").and_then(Value::as_object).unwrap_or(&empty);
    let mut names: Vec<_> = services.keys().map(String::as_str).collect();
    names.sort_unstable();
    if names != SERVICES {
        found.push(format!("services: {names:?}"));
    }
    for (name, service) in services {
        let mut say = |what: &str| found.push(format!("{name}: {what}"));
        runs_well(service, &mut say);
        is_reached_by_this_machine_only(service, &mut say);
        mounts(file, service, root, &mut say);
        shows_no_password(service, &mut say);
    }
    let service = |name: &str| services.get(name).unwrap_or(&Value::Null);
    confines(service("walview"), &mut |what: &str| found.push(format!("walview: {what}")));
    servers(&service, &mut |what: &str| found.push(what.to_owned()));
    for (service, needs) in
        [("walview", ["postgres", "redis", "clickhouse"].as_slice()), ("reports", &["walview"])]
    {
        for needed in needs {
            let condition = services
                .get(service)
                .and_then(|it| it.pointer(&format!("/depends_on/{needed}/condition")));
            if condition != Some(&json!("service_healthy")) {
                found.push(format!("{service} does not wait until {needed} is healthy"));
            }
        }
    }
    found
}

fn texts<'a>(service: &'a Value, key: &str) -> Vec<&'a str> {
    let list = service.get(key).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str).collect()
}

fn runs_well(service: &Value, say: &mut impl FnMut(&str)) {
    let test = service.pointer("/healthcheck/test/0").and_then(Value::as_str);
    if !matches!(test, Some("CMD" | "CMD-SHELL")) {
        say("no health check");
    }
    if service.get("restart") != Some(&json!("unless-stopped")) {
        say("does not start again by itself");
    }
    for option in ["max-size", "max-file"] {
        if service.pointer(&format!("/logging/options/{option}")).is_none() {
            say("logs without a limit");
        }
    }
    if service.get("mem_limit").is_none() {
        say("no memory limit");
    }
    if !texts(service, "security_opt").contains(&"no-new-privileges:true") {
        say("may gain privileges");
    }
    let image = service.get("image").and_then(Value::as_str).unwrap_or_default();
    let tag = image.rsplit_once(':').map_or("", |(_, tag)| tag);
    let pinned = tag.split_once('.').is_some_and(|(major, _)| major.parse::<u32>().is_ok());
    if !pinned && service.get("build").is_none() {
        say("its image has no version with major and minor number");
    }
}

fn is_reached_by_this_machine_only(service: &Value, say: &mut impl FnMut(&str)) {
    for port in service.get("ports").and_then(Value::as_array).into_iter().flatten() {
        if port.get("host_ip") != Some(&json!("127.0.0.1")) {
            say("a port is open to other machines");
        }
    }
    if service.get("network_mode") == Some(&json!("host")) {
        say("shares the network of this machine");
    }
}

/// Data in named volumes, files from the tree read-only, secrets from compose/secrets/.
fn mounts(file: &Value, service: &Value, root: &Path, say: &mut impl FnMut(&str)) {
    for volume in service.get("volumes").and_then(Value::as_array).into_iter().flatten() {
        let source = volume.get("source").and_then(Value::as_str).unwrap_or_default();
        match volume.get("type").and_then(Value::as_str) {
            Some("volume") if file.pointer(&format!("/volumes/{source}")).is_some() => {}
            Some("bind") if volume.get("read_only") == Some(&json!(true)) => {
                let inside = Path::new(source).strip_prefix(root);
                // Written by another part of the tree, and made by Compose where it is missing.
                let known = inside.is_ok_and(|path| {
                    path == Path::new("schemas/clickhouse") || root.join(path).try_exists().unwrap()
                });
                if !known {
                    say("mounts what is not in the tree");
                }
            }
            Some("bind") => say("may write into the tree"),
            _ => say("a volume without a name"),
        }
    }
    for secret in service.get("secrets").and_then(Value::as_array).into_iter().flatten() {
        let name = secret.get("source").and_then(Value::as_str).unwrap_or_default();
        let source = file.pointer(&format!("/secrets/{name}/file")).and_then(Value::as_str);
        let inside = source.and_then(|source| Path::new(source).strip_prefix(root).ok());
        if inside.and_then(Path::parent) != Some(Path::new("compose/secrets")) {
            say("a secret is not a file of compose/secrets");
        }
    }
}

fn shows_no_password(service: &Value, say: &mut impl FnMut(&str)) {
    let secrets = service.get("secrets").and_then(Value::as_array);
    let mounted = |path: &str| {
        secrets.into_iter().flatten().any(|secret| secret.get("target") == Some(&json!(path)))
    };
    for (name, value) in service.get("environment").and_then(Value::as_object).into_iter().flatten()
    {
        let value = value.as_str().unwrap_or_default();
        let sensitive = ["PASSWORD", "SECRET", "TOKEN"].iter().any(|word| name.contains(word));
        if sensitive && !(name.ends_with("_FILE") && mounted(value)) {
            say("a password is not the name of a mounted secret");
        }
        let login = value.split_once("://").and_then(|(_, rest)| rest.split_once('@'));
        if login.is_some_and(|(login, _)| login.contains(':')) {
            say("a password is in a URL");
        }
    }
    let words = texts(service, "command");
    if words.iter().any(|word| word.contains("requirepass") || word.contains("password=")) {
        say("a password is in the command");
    }
}

fn confines(walview: &Value, say: &mut impl FnMut(&str)) {
    let user = walview.get("user").and_then(Value::as_str).unwrap_or_default();
    let id = user.split(':').next().and_then(|id| id.parse::<u32>().ok());
    if id.is_none_or(|id| id == 0) {
        say("runs as root, or by a name that nobody can check");
    }
    if walview.get("read_only") != Some(&json!(true)) {
        say("may write to its file system");
    }
    if !texts(walview, "cap_drop").contains(&"ALL") {
        say("has capabilities");
    }
    let command = texts(walview, "command");
    let mount = |target: &str| {
        walview
            .get("volumes")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .find(|volume| volume.get("target") == Some(&json!(target)))
    };
    if !command.contains(&"/etc/walview/betting.yaml") || mount("/etc/walview").is_none() {
        say("does not run the mounted pipeline");
    }
    let state =
        command.iter().position(|word| *word == "--state").and_then(|at| command.get(at + 1));
    let volume = state.and_then(|state| mount(state)).and_then(|volume| volume.get("type"));
    if volume != Some(&json!("volume")) {
        say("its state is not in a volume");
    }
    // Draining takes up to 5 seconds (DRAIN_MAX in src/service/writer.rs).
    let grace = walview.get("stop_grace_period").and_then(Value::as_str).unwrap_or_default();
    let seconds = grace.strip_suffix('s').and_then(|number| number.parse::<u32>().ok());
    if !grace.contains('m') && seconds.is_none_or(|seconds| seconds < 10) {
        say("is killed while it drains");
    }
    let check = walview.pointer("/healthcheck/test").and_then(Value::as_array);
    if !check.is_some_and(|words| words.contains(&json!("--ready"))) {
        say("its health is not that it is ready");
    }
}

fn servers<'a>(service: &impl Fn(&str) -> &'a Value, say: &mut impl FnMut(&str)) {
    let has = |name: &str, words: &[&str]| {
        texts(service(name), "command").windows(words.len()).any(|window| window == words)
    };
    if !has("postgres", &["-c", "wal_level=logical"]) {
        say("postgres: no logical decoding");
    }
    if !texts(service("postgres"), "command")
        .iter()
        .any(|w| w.starts_with("max_slot_wal_keep_size="))
    {
        say("postgres: a slot may fill the disk");
    }
    if !has("redis", &["--appendonly", "yes"]) {
        say("redis: forgets at a restart");
    }
    if !has("redis", &["--maxmemory-policy", "noeviction"]) {
        say("redis: may evict what views hold");
    }
    if !has("redis", &["--aclfile", "/run/secrets/redis_users"]) {
        say("redis: no users");
    }
    let url =
        service("walview").pointer("/environment/BETTING_DATABASE_URL").and_then(Value::as_str);
    if !url.is_some_and(|url| url.ends_with("?sslmode=disable")) {
        say("walview: that there is no TLS is not said");
    }
}

/// A place, what to put there (`None`: nothing), and what is said then.
pub(super) fn breaches() -> Vec<(&'static str, Option<Value>, &'static str)> {
    vec![
        ("/services/redis", None, "services"),
        ("/services/redis/healthcheck", None, "redis: no health check"),
        ("/services/reports/healthcheck/test", Some(json!(["NONE"])), "reports: no health check"),
        ("/services/walview/restart", None, "does not start again"),
        ("/services/postgres/logging/options/max-size", None, "logs without a limit"),
        ("/services/clickhouse/mem_limit", None, "no memory limit"),
        ("/services/walview/security_opt", None, "may gain privileges"),
        ("/services/redis/image", Some(json!("redis:latest")), "no version"),
        ("/services/redis/image", Some(json!("redis")), "no version"),
        ("/services/postgres/ports/0/host_ip", None, "open to other machines"),
        ("/services/walview/ports/0/host_ip", Some(json!("0.0.0.0")), "open to other machines"),
        ("/services/redis/network_mode", Some(json!("host")), "shares the network"),
        ("/services/postgres/volumes/0/source", Some(json!("")), "without a name"),
        ("/services/walview/volumes/1/read_only", None, "may write into the tree"),
        ("/services/walview/volumes/1/source", Some(json!("/etc")), "not in the tree"),
        (
            "/secrets/redis_walview/file",
            Some(json!("/etc/passwd")),
            "not a file of compose/secrets",
        ),
        ("/services/postgres/environment/POSTGRES_PASSWORD", Some(json!("x")), "not the name of"),
        (
            "/services/walview/environment/REDIS_PASSWORD_FILE",
            Some(json!("/run/secrets/postgres_superuser")),
            "not the name of a mounted secret",
        ),
        ("/services/walview/environment/REDIS_URL", Some(json!("redis://u:p@redis")), "in a URL"),
        ("/services/redis/command/7", Some(json!("--requirepass")), "in the command"),
        ("/services/walview/user", Some(json!("0:0")), "runs as root"),
        ("/services/walview/user", Some(json!("walview")), "runs as root"),
        ("/services/walview/read_only", None, "may write to its file system"),
        ("/services/walview/cap_drop", None, "has capabilities"),
        ("/services/walview/command/1", Some(json!("/tmp/x.yaml")), "does not run the mounted"),
        ("/services/walview/command/3", Some(json!("/tmp")), "its state is not in a volume"),
        ("/services/walview/stop_grace_period", Some(json!("5s")), "killed while it drains"),
        (
            "/services/walview/healthcheck/test",
            Some(json!(["CMD", "walview"])),
            "its health is not",
        ),
        ("/services/postgres/command/2", Some(json!("wal_level=replica")), "no logical decoding"),
        ("/services/postgres/command/4", Some(json!("jit=off")), "may fill the disk"),
        ("/services/redis/command/4", Some(json!("allkeys-lru")), "may evict"),
        ("/services/redis/command/6", Some(json!("no")), "forgets"),
        ("/services/redis/command/10", Some(json!("/users")), "no users"),
        (
            "/services/walview/environment/BETTING_DATABASE_URL",
            Some(json!("postgres://walview@postgres/betting")),
            "no TLS is not said",
        ),
        ("/services/walview/depends_on/redis", None, "does not wait until redis"),
        (
            "/services/reports/depends_on/walview/condition",
            Some(json!("service_started")),
            "does not wait until walview",
        ),
    ]
}
