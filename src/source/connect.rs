//! Opens sessions, all with the same settings, so that a value has one text wherever it is read.
//!
//! ```text
//!  SourceConfig ─┬─► sql()          tokio-postgres: catalogs, publication, COPY
//!                └─► replication()  our own client: IDENTIFY_SYSTEM, slots, the stream
//! ```
//!
//! Invariant: a session's task is owned by its [`Session`] and ends with it; a dropped session
//! closes its socket at once, so the server rolls its transaction back.

use super::config::{SourceConfig, TlsMode};
use super::error::{SourceError, quote_name, timed_out, tls_failed};
use super::replication::{Identity, Replication};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use std::ops::{Deref, DerefMut};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::{Client, NoTls, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;
use tracing::Instrument;

/// How long a replication client's `wal_sender_timeout` is. Pinned, because a server that has it
/// turned off would let a half-open connection hold the slot for ever.
pub(super) const WAL_SENDER_TIMEOUT: Duration = Duration::from_secs(60);

/// How long an SQL session waits for a lock. Walview takes none that blocks readers or writers.
const LOCK_TIMEOUT: Duration = Duration::from_secs(30);

/// An open transaction that does nothing holds back vacuum: after this long the server ends it.
/// Only a frozen walview gets there.
const IDLE_IN_TRANSACTION_TIMEOUT: Duration = Duration::from_secs(600);

/// When a peer counts as gone: first probe after, then every, this many times.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_RETRIES: u32 = 3;

/// How long [`Session::close`] waits for the server to take leave.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// Settings that decide what text a value has, and whether rows may be hidden from us. As startup
/// options they win over `ALTER ROLE … SET` and `ALTER DATABASE … SET`.
const PINNED: &[(&str, &str)] = &[
    ("TimeZone", "UTC"),
    ("DateStyle", "ISO,MDY"),
    ("IntervalStyle", "postgres"),
    ("extra_float_digits", "1"),
    ("bytea_output", "hex"),
    // How money looks, and whether regclass and its like are quoted.
    ("lc_monetary", "C"),
    ("quote_all_identifiers", "off"),
    // What the text of a view means to PostgreSQL, which verify asks.
    ("standard_conforming_strings", "on"),
    ("transform_null_equals", "off"),
    ("client_encoding", "UTF8"),
    ("row_security", "off"),
    ("statement_timeout", "0"),
    ("idle_session_timeout", "0"),
];

fn options(config: &SourceConfig, more: &[(&str, Duration)]) -> String {
    let pinned = PINNED.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    // `pg_catalog` is looked at first without being named. Here because names in values depend on
    // it too (regclass), and because verify runs the views' own text.
    let schema = ("search_path".to_owned(), quote_name(&config.schema));
    let more = more.iter().map(|(name, time)| ((*name).to_owned(), time.as_millis().to_string()));
    pinned
        .chain([schema])
        .chain(more)
        .map(|(name, value)| {
            // The server splits at blanks and takes a backslash as an escape.
            let value = value.replace('\\', "\\\\").replace(' ', "\\ ");
            format!("-c {name}={value}")
        })
        .collect::<Vec<_>>()
        .join(" ")
}

/// An SQL session: the client, and the task that drives its socket.
pub struct Session {
    client: Client,
    task: JoinSet<()>,
}

impl Deref for Session {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl DerefMut for Session {
    fn deref_mut(&mut self) -> &mut Client {
        &mut self.client
    }
}

impl Session {
    /// Ends the session in order; a session that is only dropped ends by a closed socket.
    pub async fn close(self) {
        let Self { client, mut task } = self;
        drop(client);
        // A server that does not answer in time gets the closed socket.
        drop(tokio::time::timeout(CLOSE_TIMEOUT, task.join_next()).await);
    }
}

/// Opens an SQL session.
///
/// # Errors
/// The server cannot be reached, or refuses the session.
pub async fn connect(config: &SourceConfig) -> Result<Session, SourceError> {
    let Some(tls) = tls_client(config)? else {
        return open(config, NoTls).await;
    };
    open(config, MakeRustlsConnect::new(tls)).await
}

async fn open<T>(config: &SourceConfig, tls: T) -> Result<Session, SourceError>
where
    T: MakeTlsConnect<Socket>,
    T::Stream: Send + 'static,
    T::TlsConnect: Send,
    <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
{
    let mut postgres = tokio_postgres::Config::new();
    postgres
        .host(&config.host)
        .port(config.port)
        .user(&config.user)
        .dbname(&config.database)
        .application_name(config.application_name())
        .options(options(
            config,
            &[
                ("lock_timeout", LOCK_TIMEOUT),
                ("idle_in_transaction_session_timeout", IDLE_IN_TRANSACTION_TIMEOUT),
            ],
        ))
        .connect_timeout(config.connect_timeout)
        .keepalives_idle(KEEPALIVE_IDLE)
        .keepalives_interval(KEEPALIVE_INTERVAL)
        .keepalives_retries(KEEPALIVE_RETRIES)
        .ssl_mode(match config.tls {
            TlsMode::Disable => tokio_postgres::config::SslMode::Disable,
            TlsMode::VerifyFull { .. } => tokio_postgres::config::SslMode::Require,
        });
    if let Some(password) = &config.password {
        postgres.password(password.expose());
    }
    // `connect_timeout` covers only the TCP connection; a stopped server accepts that too.
    let attempt = tokio::time::timeout(config.connect_timeout, postgres.connect(tls));
    let (client, connection) = attempt
        .await
        .map_err(|_elapsed| timed_out(config, "open a session"))?
        .map_err(|error| SourceError::connecting(config, error))?;
    let mut task = JoinSet::new();
    let span = tracing::debug_span!("postgres-session", address = config.address());
    task.spawn(
        async move {
            // Whoever waits for an answer gets the error too, and handles it.
            if let Err(error) = connection.await {
                tracing::debug!(%error, "session ended");
            }
        }
        .instrument(span),
    );
    Ok(Session { client, task })
}

/// Opens a replication session and asks who answers, which is also how a pooler is found out.
pub(super) async fn replication(
    config: &SourceConfig,
) -> Result<(Replication, Identity), SourceError> {
    let what = "open a replication session";
    let tls = tls_client(config)?;
    let options = options(
        config,
        &[
            ("wal_sender_timeout", WAL_SENDER_TIMEOUT),
            // A session that exports a snapshot sits in a transaction for as long as tables are copied.
            ("idle_in_transaction_session_timeout", Duration::ZERO),
        ],
    );
    let attempt = async {
        let mut session = Replication::open(config, tls, &options).await?;
        let identity = session.identify().await?;
        Ok((session, identity))
    };
    tokio::time::timeout(config.connect_timeout, attempt)
        .await
        .map_err(|_elapsed| timed_out(config, what))?
        .map_err(|error| SourceError::replication(config, what, error))
}

/// `None`: plain text was asked for.
fn tls_client(config: &SourceConfig) -> Result<Option<rustls::ClientConfig>, SourceError> {
    let root_cert = match &config.tls {
        TlsMode::Disable => return Ok(None),
        TlsMode::VerifyFull { root_cert } => root_cert,
    };
    let roots = match root_cert {
        Some(path) => read_roots(config, path)?,
        None => rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() },
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| tls_failed(config, &error.to_string()).because(error))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Some(client))
}

fn read_roots(config: &SourceConfig, path: &Path) -> Result<rustls::RootCertStore, SourceError> {
    let bad = |cause: String| {
        SourceError::stop(
            format!("cannot use sslrootcert \"{}\" for {}: {cause}", path.display(), config.host),
            "name a file of PEM certificates that walview may read",
        )
    };
    let certificates = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| bad(error.to_string()).because(error))?;
    let mut roots = rustls::RootCertStore::empty();
    let (usable, _) = roots.add_parsable_certificates(certificates);
    if usable == 0 {
        return Err(bad("it holds no certificate".to_owned()));
    }
    Ok(roots)
}
