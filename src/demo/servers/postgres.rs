//! PostgreSQL: `initdb` and a server with logical decoding, under a user that is not root.

use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rand::RngExt as _;
use tokio::task::JoinSet;
use tokio_postgres::NoTls;

use super::process::{Launch, Signal, User};
use super::{Kind, Server};
use crate::config::Environment;

/// What differs between the servers that demo and tests want.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Off where nobody pulls the plug: twice as many commits a second on a slow disk.
    pub fsync: bool,
    /// `name = value`, over the defaults below.
    pub extra: Vec<(String, String)>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { fsync: true, extra: Vec::new() }
    }
}

/// A cluster of its own with one database, owned by the role `walview`, which may replicate and is
/// no superuser: what a real installation would grant.
#[derive(Debug)]
pub struct Postgres {
    pub server: Server<PostgresKind>,
    database: String,
}

#[derive(Debug)]
pub struct PostgresKind {
    programs: PathBuf,
    folder: PathBuf,
    log: PathBuf,
    user: Option<User>,
    password: String,
    settings: Settings,
}

impl Postgres {
    pub async fn start(
        folder: &Path,
        log: &Path,
        database: &str,
        settings: Settings,
    ) -> Result<Self> {
        let kind = PostgresKind {
            programs: programs()?,
            folder: folder.to_owned(),
            log: log.to_owned(),
            user: unprivileged_user()?,
            password: random_password(),
            settings,
        };
        kind.initdb().await?;
        let server = Server::start_new(kind).await?;
        let postgres = Self { server, database: database.to_owned() };
        let admin = Db::connect(&postgres.admin_url("postgres")).await?;
        // Neither name nor password has a character that needs quoting.
        let password = &postgres.server.kind.password;
        admin
            .batch_execute(&format!("CREATE ROLE walview LOGIN REPLICATION PASSWORD '{password}'"))
            .await?;
        admin.batch_execute(&format!("CREATE DATABASE {database} OWNER walview")).await?;
        Ok(postgres)
    }

    /// As the owner of the database, who is no superuser.
    pub fn url(&self) -> String {
        self.url_as("walview", &self.database)
    }

    /// As the superuser.
    pub fn admin_url(&self, database: &str) -> String {
        self.url_as("postgres", database)
    }

    pub fn password(&self) -> &str {
        &self.server.kind.password
    }

    /// A connection as the owner of the database.
    pub async fn connect(&self) -> Result<Db> {
        Db::connect(&self.url()).await
    }

    /// Where `pg_recvlogical`, `pg_dump` and the like are: some builds have the server alone, and
    /// newer clients speak with older servers.
    pub fn client_program(&self, name: &str) -> PathBuf {
        let own = self.server.kind.programs.join(name);
        match installed() {
            Some(installed) if !own.is_file() => installed.join(name),
            _ => own,
        }
    }

    fn url_as(&self, role: &str, database: &str) -> String {
        let (password, port) = (&self.server.kind.password, self.server.port);
        format!("postgres://{role}:{password}@127.0.0.1:{port}/{database}")
    }
}

impl PostgresKind {
    async fn initdb(&self) -> Result<()> {
        std::fs::create_dir_all(&self.folder)?;
        let secret = self.folder.join("superuser-password");
        std::fs::write(&secret, &self.password)?;
        if let Some(user) = self.user {
            for path in [&self.folder, &secret] {
                chown(path, Some(user.uid), Some(user.gid))?;
            }
        }
        let data = self.folder.join("data");
        let launch = Launch {
            program: self.programs.join("initdb"),
            args: [
                "--pgdata",
                &data.to_string_lossy(),
                "--username=postgres",
                "--auth=scram-sha-256",
                "--pwfile",
                &secret.to_string_lossy(),
                "--encoding=UTF8",
                "--locale=C.UTF-8",
                "--no-sync",
            ]
            .map(str::to_owned)
            .to_vec(),
            env: Vec::new(),
            user: self.user,
            log: self.log.clone(),
            death: Signal::TERM,
        };
        launch.run("initdb", Duration::from_secs(120)).await
    }
}

impl Kind for PostgresKind {
    const NAME: &'static str = "PostgreSQL";
    /// "Fast": disconnects clients, writes a checkpoint.
    const STOP: Signal = Signal::INT;

    fn launch(&self, port: u16) -> Launch {
        let mut args = vec!["-D".to_owned(), self.folder.join("data").display().to_string()];
        let own = [
            ("listen_addresses", "127.0.0.1".to_owned()),
            ("port", port.to_string()),
            ("unix_socket_directories", self.folder.display().to_string()),
            ("wal_level", "logical".to_owned()),
            ("max_wal_senders", "20".to_owned()),
            ("max_replication_slots", "20".to_owned()),
            ("fsync", if self.settings.fsync { "on" } else { "off" }.to_owned()),
            ("shared_buffers", "128MB".to_owned()),
            ("max_wal_size", "2GB".to_owned()),
            ("log_checkpoints", "off".to_owned()),
        ];
        let own = own.iter().map(|(name, value)| (*name, value));
        let extra = self.settings.extra.iter().map(|(name, value)| (name.as_str(), value));
        for (name, value) in own.chain(extra) {
            args.extend(["-c".to_owned(), format!("{name}={value}")]);
        }
        Launch {
            program: self.programs.join("postgres"),
            args,
            env: Vec::new(),
            user: self.user,
            log: self.log.clone(),
            // "Immediate": no checkpoint, but shared memory is given back.
            death: Signal::QUIT,
        }
    }

    async fn ready(&self, port: u16, _pid: u32) -> bool {
        let password = &self.password;
        let url = format!("postgres://postgres:{password}@127.0.0.1:{port}/postgres");
        // Nobody else's server takes our password.
        Db::connect(&url).await.is_ok()
    }
}

/// A client together with the task that drives its connection, which ends with it.
#[derive(Debug)]
pub struct Db {
    client: tokio_postgres::Client,
    _connection: JoinSet<()>,
}

impl Db {
    pub async fn connect(url: &str) -> Result<Self> {
        let (client, connection) =
            tokio_postgres::connect(url, NoTls).await.context("cannot connect to PostgreSQL")?;
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            // What breaks a connection, the client's next call says too.
            connection.await.ok();
        });
        Ok(Self { client, _connection: tasks })
    }
}

impl std::ops::Deref for Db {
    type Target = tokio_postgres::Client;
    fn deref(&self) -> &Self::Target {
        &self.client
    }
}

impl std::ops::DerefMut for Db {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.client
    }
}

/// The folder in `WALVIEW_POSTGRES`, or the newest installed server's programs.
fn programs() -> Result<PathBuf> {
    match Environment::Process.get("WALVIEW_POSTGRES") {
        Ok(given) => Ok(PathBuf::from(given)),
        Err(_) => installed()
            .context("no PostgreSQL server found; install it: apt-get install postgresql"),
    }
}

/// Debian keeps them out of `PATH`.
fn installed() -> Option<PathBuf> {
    let debian = std::fs::read_dir("/usr/lib/postgresql").ok();
    let mut found: Vec<(u32, PathBuf)> = debian
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let version = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .filter(|(_, programs)| programs.join("initdb").is_file())
        .collect();
    found.sort();
    found.pop().map(|(_, programs)| programs).or_else(|| {
        super::find_in_path("initdb").and_then(|initdb| initdb.parent().map(Path::to_owned))
    })
}

/// PostgreSQL refuses to run as root: then its own account, or `nobody`, runs it.
fn unprivileged_user() -> Result<Option<User>> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    for name in ["postgres", "nobody"] {
        let id = |flag: &str| -> Option<u32> {
            let output = Command::new("id").args([flag, name]).output().ok()?;
            String::from_utf8(output.stdout).ok()?.trim().parse().ok()
        };
        if let (Some(uid), Some(gid)) = (id("-u"), id("-g")) {
            return Ok(Some(User { uid, gid }));
        }
    }
    bail!(
        "PostgreSQL does not run as root, and there is neither a user \"postgres\" nor \"nobody\""
    )
}

fn random_password() -> String {
    let mut random = rand::rng();
    (0..12).map(|_| char::from(random.random_range(b'a'..=b'z'))).collect()
}
