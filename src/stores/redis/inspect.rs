//! Is this Redis suitable, and what stands under the targets' templates?
//!
//! Rights are found out by queueing what a batch would send inside `MULTI`, and discarding it: Redis
//! judges a command when it is queued, for any user, without the right to ask.

use super::super::inspect::{Held, Inspected, Lack, Standing};
use super::super::{MarkText, StoreError};
use super::error::{client_error, server_error};
use super::{Redis, SCAN_COUNT, mark_text, open, read, send};
use ::redis::aio::MultiplexedConnection;
use ::redis::{Cmd, Pipeline, Value as Reply};
use std::collections::BTreeSet;
use walview_core::target::redis::Kind;

/// Keys found at; a server with more is sampled.
const KEYS_SAMPLED_MAX: u64 = 200_000;

/// The server's own words on itself.
pub(super) struct Info(String);

impl Info {
    pub(super) async fn read(connection: &mut MultiplexedConnection) -> Result<Self, StoreError> {
        let mut pipeline = Pipeline::new();
        pipeline.cmd("INFO");
        match send(connection, &pipeline).await?.into_iter().next() {
            Some(Reply::BulkString(bytes)) => {
                Ok(Self(String::from_utf8_lossy(&bytes).into_owned()))
            }
            Some(Reply::VerbatimString { text, .. }) => Ok(Self(text)),
            Some(Reply::ServerError(error)) => Err(server_error(error.code(), error.details())),
            _ => Err(StoreError::retry("Redis answered INFO with something else")),
        }
    }

    fn field(&self, name: &str) -> Option<&str> {
        self.0.lines().find_map(|line| line.trim_end().strip_prefix(name)?.strip_prefix(':'))
    }

    fn number(&self, name: &str) -> u64 {
        self.field(name).and_then(|text| text.parse().ok()).unwrap_or(0)
    }

    /// What would lose rows or is not supported.
    pub(super) fn problems(&self, accept_eviction: bool) -> Vec<Lack> {
        let mut problems: Vec<Lack> = Vec::new();
        if self.field("cluster_enabled") == Some("1") {
            let message = "this Redis is a node of a cluster, which walview does not write to yet";
            let remedy = "give the URL of a Redis without cluster mode";
            problems.push(StoreError::stop(message, remedy).into());
        }
        if self.field("loading").is_some_and(|loading| loading != "0") {
            problems.push(StoreError::retry("Redis is loading its data").into());
        }
        if self.field("role").is_some_and(|role| role != "master") {
            let message = "this Redis is a replica; waiting for it to be the primary";
            problems.push(StoreError::retry(message).into());
        }
        if let Some(policy) = self.field("maxmemory_policy")
            && policy.starts_with("allkeys-")
            && !accept_eviction
        {
            let error = StoreError::stop(
                format!("Redis has maxmemory-policy {policy}, which may evict what views hold"),
                "set maxmemory-policy noeviction",
            );
            let statements = vec!["CONFIG SET maxmemory-policy noeviction".to_owned()];
            problems.push(Lack { error, by: "whoever runs Redis", statements });
        }
        problems
    }
}

impl Redis {
    /// Looks around; changes nothing.
    ///
    /// # Errors
    /// The server cannot be asked.
    pub async fn inspect(&self) -> Result<Inspected, StoreError> {
        let mut connection = open(&self.config.url).await?;
        let info = Info::read(&mut connection).await?;
        let mut found = Inspected {
            server: format!("Redis {}", info.field("redis_version").unwrap_or("of no version")),
            problems: info.problems(self.config.accept_eviction),
            ..Inspected::default()
        };
        self.describe(&info, &mut connection, &mut found).await?;
        // A node of a cluster answers for a part of the keys, one that loads for none.
        if found.problems.iter().any(|lack| lack.statements.is_empty()) {
            return Ok(found);
        }
        let rights = self.rights().await?;
        let may_look = rights.iter().all(|lack| lack.statements.is_empty());
        found.problems.extend(rights);
        if may_look {
            found.mark = self.held(&mut connection).await?;
            found.standing = self.standing(&mut connection).await?;
        }
        Ok(found)
    }

    async fn describe(
        &self,
        info: &Info,
        connection: &mut MultiplexedConnection,
        found: &mut Inspected,
    ) -> Result<(), StoreError> {
        let (used, max) = (info.number("used_memory"), info.number("maxmemory"));
        let policy = info.field("maxmemory_policy").unwrap_or("unknown");
        found.facts.push(match max {
            0 => format!("{} in use, no maxmemory", megabytes(used)),
            max => format!("{} of maxmemory {} in use", megabytes(used), megabytes(max)),
        });
        found.facts.push(format!("maxmemory-policy {policy}"));
        if policy.starts_with("volatile-") {
            found.notes.push(format!(
                "maxmemory-policy {policy} evicts keys that expire only; walview's own do not, but for \
                 \"{}\"",
                self.fresh_key
            ));
        }
        found.room_bytes = (max > 0).then(|| max.saturating_sub(used));
        if info.field("aof_enabled") == Some("1") {
            let sync = setting(connection, "appendfsync").await?;
            let sync = sync.map_or_else(String::new, |sync| format!(" (appendfsync {sync})"));
            found.facts.push(format!("AOF{sync}"));
            if sync.contains("no)") {
                found.notes.push(
                    "with appendfsync no a crash may lose more than the 10 seconds that walview \
                     writes again: the store is then filled again from the local state, and \
                     streams say with a gap entry what they lost"
                        .to_owned(),
                );
            }
        } else {
            let save = setting(connection, "save").await?;
            let snapshots = match save.as_deref() {
                Some("") => "no persistence",
                _ => "RDB only",
            };
            found.facts.push(snapshots.to_owned());
            found.notes.push(format!(
                "{snapshots}: a crash of Redis loses more than the 10 seconds that walview writes \
                 again; the store is then filled again from the local state, and streams say with a \
                 gap entry what they lost; appendonly yes avoids that"
            ));
        }
        Ok(())
    }

    async fn held(&self, connection: &mut MultiplexedConnection) -> Result<Held, StoreError> {
        let mut pipeline = Pipeline::new();
        pipeline.cmd("GET").arg(&self.mark_key);
        let text = mark_text(send(connection, &pipeline).await?.pop())?;
        Ok(match text.as_deref().map(str::parse::<MarkText>).transpose()? {
            None => Held::Nothing,
            Some(MarkText::Loading(_)) => Held::Loading,
            Some(MarkText::At(mark)) if self.config.identity.mark(mark.position) == mark => {
                Held::Ours
            }
            Some(MarkText::At(_)) => Held::Other,
        })
    }

    /// Counts keys under each template: all of them, or a sample scaled up.
    async fn standing(
        &self,
        connection: &mut MultiplexedConnection,
    ) -> Result<Vec<Standing>, StoreError> {
        let mut counts = vec![0_u64; self.targets.len()];
        let (mut seen, mut cursor) = (0_u64, "0".to_owned());
        let exact = loop {
            let (next, keys) = read::scan(connection, "", &cursor, SCAN_COUNT).await?;
            seen += keys.len() as u64;
            for (count, target) in counts.iter_mut().zip(&self.targets) {
                let matching = keys.iter().filter(|key| target.template().matches(key)).count();
                *count += matching as u64;
            }
            if next == "0" {
                break true;
            }
            if seen >= KEYS_SAMPLED_MAX {
                break false;
            }
            cursor = next;
        };
        let mut pipeline = Pipeline::new();
        pipeline.cmd("DBSIZE");
        let all = match send(connection, &pipeline).await?.first() {
            Some(Reply::Int(keys)) if !exact => u64::try_from(*keys).unwrap_or(seen),
            _ => seen,
        };
        let scaled = |count: u64| {
            let scaled = u128::from(count) * u128::from(all) / u128::from(seen.max(1));
            u64::try_from(scaled).unwrap_or(u64::MAX)
        };
        let standing = |count: u64| match count {
            0 if exact => Standing::Nothing,
            count => Standing::Keys { count: scaled(count), exact },
        };
        Ok(counts.into_iter().map(standing).collect())
    }

    /// What the user may not do of what walview does. On a connection of its own, whose end
    /// discards what is queued.
    async fn rights(&self) -> Result<Vec<Lack>, StoreError> {
        let mut connection = open(&self.config.url).await?;
        let mut user = "the user".to_owned();
        let mut whoami = Pipeline::new();
        whoami.cmd("ACL").arg("WHOAMI");
        if let Some(Reply::BulkString(name)) = raw(&mut connection, &whoami).await?.pop() {
            user = String::from_utf8_lossy(&name).into_owned();
        }
        let probes = self.probes();
        let mut pipeline = Pipeline::new();
        for probe in probes.iter().filter(|probe| !probe.queued) {
            pipeline.add_command(probe.command.clone());
        }
        // An empty transaction shows that EXEC is allowed. Where it is not, the first MULTI goes on.
        pipeline.cmd("UNWATCH").cmd("MULTI").cmd("EXEC").cmd("MULTI");
        for probe in probes.iter().filter(|probe| probe.queued) {
            pipeline.add_command(probe.command.clone());
        }
        let (mut denied, mut problems) = (Denied::default(), Vec::new());
        let of = |queued: bool| {
            let probes = probes.iter().filter(move |probe| probe.queued == queued);
            probes.map(|probe| (probe.name, probe.pattern.as_str()))
        };
        let transaction = [("unwatch", ""), ("multi", ""), ("exec", ""), ("multi", "")];
        let asked = of(false).chain(transaction).chain(of(true));
        for ((name, pattern), reply) in asked.zip(raw(&mut connection, &pipeline).await?) {
            let Reply::ServerError(error) = reply else {
                denied.allowed.insert(pattern.to_owned());
                continue;
            };
            let text = error.details().unwrap_or_default();
            if error.code() == "NOPERM" || text.contains("NOPERM") {
                denied.note(name, pattern, text);
            } else if problems.is_empty() && name != "multi" {
                // At maxmemory, read-only, a disk error: the same for every write.
                problems.push(Lack::from(server_error(error.code(), error.details())));
            }
        }
        problems.extend(denied.lack(&user));
        Ok(problems)
    }

    /// One of each command that a connection, a reset, a batch and verify send.
    fn probes(&self) -> Vec<Probe> {
        let own = format!("walview:{}:*", self.config.identity.pipeline);
        let mut probes = vec![
            Probe::now("scan", "", &["SCAN", "0", "COUNT", "1"]),
            Probe::now("get", &own, &["GET", &self.mark_key]),
            Probe::now("watch", &own, &["WATCH", &self.mark_key]),
            Probe::queued("set", &own, &["SET", &self.mark_key, ""]),
            Probe::queued("unlink", &own, &["UNLINK", &self.fresh_key]),
        ];
        for target in &self.targets {
            let template = target.template();
            // Any key under the prefix has the same rights as all of them.
            let (key, pattern) = match template.single_key() {
                Some(key) => (key, key.to_owned()),
                None => (template.prefix(), format!("{}*", template.prefix())),
            };
            let commands: &[(&'static str, &[&str])] = match target.kind() {
                Kind::String => &[
                    ("set", &["SET", key, ""]),
                    ("mset", &["MSET", key, ""]),
                    ("get", &["GET", key]),
                ],
                Kind::Hash => &[("hset", &["HSET", key, "a", ""]), ("hgetall", &["HGETALL", key])],
                Kind::Set => &[
                    ("sadd", &["SADD", key, ""]),
                    ("srem", &["SREM", key, ""]),
                    ("sscan", &["SSCAN", key, "0"]),
                ],
                Kind::ZSet => &[
                    ("zadd", &["ZADD", key, "0", ""]),
                    ("zrem", &["ZREM", key, ""]),
                    ("zscan", &["ZSCAN", key, "0"]),
                ],
                Kind::Stream => {
                    &[("xadd", &["XADD", key, "*", "a", ""]), ("xinfo", &["XINFO", "STREAM", key])]
                }
            };
            let all: [(&'static str, &[&str]); 2] =
                [("del", &["DEL", key]), ("unlink", &["UNLINK", key])];
            for (name, words) in commands.iter().chain(&all) {
                probes.push(Probe::queued(name, &pattern, words));
            }
        }
        probes
    }
}

/// A command that shows a right by not being refused.
struct Probe {
    name: &'static str,
    /// The keys that it stands for.
    pattern: String,
    command: Cmd,
    /// It would write: only queued, never run.
    queued: bool,
}

impl Probe {
    fn now(name: &'static str, pattern: &str, words: &[&str]) -> Self {
        let mut command = Cmd::new();
        for word in words {
            command.arg(*word);
        }
        Self { name, pattern: pattern.to_owned(), command, queued: false }
    }

    fn queued(name: &'static str, pattern: &str, words: &[&str]) -> Self {
        Self { queued: true, ..Self::now(name, pattern, words) }
    }
}

/// What was refused.
#[derive(Default)]
struct Denied {
    commands: BTreeSet<&'static str>,
    keys: BTreeSet<String>,
    /// Keys that may be missing too: their command was refused before their turn.
    untold: BTreeSet<String>,
    allowed: BTreeSet<String>,
}

impl Denied {
    fn note(&mut self, name: &'static str, pattern: &str, text: &str) {
        // Redis says which of the two it is; the words differ between 6 and 7.
        if text.contains("key") && !text.contains("command") || text.contains("one of the keys") {
            self.keys.insert(pattern.to_owned());
        } else {
            self.commands.insert(name);
            self.untold.insert(pattern.to_owned());
        }
    }

    fn lack(mut self, user: &str) -> Option<Lack> {
        let untold = self.untold.difference(&self.allowed).filter(|key| !key.is_empty());
        self.keys.extend(untold.cloned().collect::<Vec<_>>());
        if self.commands.is_empty() && self.keys.is_empty() {
            return None;
        }
        let commands = self.commands.iter().map(|name| format!("+{name}"));
        let keys = self.keys.iter().map(|pattern| format!("~{pattern}"));
        let rules: Vec<String> = commands.chain(keys).collect();
        let rules = rules.join(" ");
        Some(Lack {
            error: StoreError::stop(
                format!("the Redis user \"{user}\" may not do what walview needs"),
                format!("allow it: {rules}"),
            ),
            by: "whoever runs Redis",
            statements: vec![format!("ACL SETUSER {user} {rules}")],
        })
    }
}

/// A setting, where the user may read it.
async fn setting(
    connection: &mut MultiplexedConnection,
    name: &str,
) -> Result<Option<String>, StoreError> {
    let mut pipeline = Pipeline::new();
    pipeline.cmd("CONFIG").arg("GET").arg(name);
    let reply = raw(connection, &pipeline).await?.pop();
    let value = match reply {
        Some(Reply::Array(items)) => items.into_iter().nth(1),
        Some(Reply::Map(pairs)) => pairs.into_iter().next().map(|(_, value)| value),
        _ => None,
    };
    Ok(match value {
        Some(Reply::BulkString(bytes)) => String::from_utf8(bytes).ok(),
        _ => None,
    })
}

/// Replies as they are, refusals included.
async fn raw(
    connection: &mut MultiplexedConnection,
    pipeline: &Pipeline,
) -> Result<Vec<Reply>, StoreError> {
    connection.send_packed_commands(pipeline, 0, pipeline.len()).await.map_err(client_error)
}

fn megabytes(bytes: u64) -> String {
    format!("{} MB", bytes.div_ceil(1_000_000))
}
