//! Errors of the source: what happened, to what, why, and what to type.
//!
//! Two clients talk to the server: tokio-postgres, which hides causes ("db error", "error connecting
//! to server"), and our own for replication. Here both become one sentence with the cause in it. The
//! server's `DETAIL` is left out on purpose: it is where PostgreSQL puts row values.

use super::config::{SourceConfig, TlsMode};
use super::frames::FrameError;
use super::replication::ReplicationError;
use std::error::Error;
use std::fmt;

/// What the caller must do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It may pass by itself: back off and connect again.
    Retry,
    /// Somebody must act first; trying again changes nothing.
    Stop,
}

/// The few causes that a caller treats in a way of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// No server answered, or it went away.
    Unreachable,
    /// The stream's server does not answer although the connection is open.
    Stalled,
    /// Another session streams from the slot.
    SlotHeld,
    SlotMissing,
    /// The server removed WAL that the slot needed.
    SlotLost,
    /// The slot stands past the position that is asked for, or is not ours: it was recreated.
    SlotMoved,
    /// Another cluster or timeline answered than the one that the position belongs to.
    LineageChanged,
    PublicationMissing,
    /// A column that no view reads holds what the server cannot send in binary.
    NoBinaryForm,
    /// A table cannot be followed as it is.
    Table,
    /// A table lost rows that the snapshot should have seen.
    SnapshotBroken,
    /// The caller asked for it.
    Cancelled,
    Other,
}

/// A failure at the source.
#[derive(Debug)]
pub struct SourceError {
    pub action: Action,
    pub kind: Kind,
    /// What happened, with the object in quotes and the cause.
    pub message: String,
    /// What to do. Empty where nothing but waiting helps.
    pub remedy: String,
    /// The remedy as statements to paste, where it is that.
    pub fix: Option<Box<Fix>>,
    pub(super) source: Option<Box<dyn Error + Send + Sync>>,
}

/// Statements that somebody with the right can paste.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fix {
    /// Who: `a superuser`, `the owner of the tables`.
    pub by: String,
    /// Whole statements, without a semicolon.
    pub statements: Vec<String>,
    /// What must follow, as in `restart PostgreSQL`; empty where nothing must.
    pub then: &'static str,
}

impl Fix {
    pub(super) fn new(by: impl Into<String>, statements: Vec<String>) -> Self {
        Self { by: by.into(), statements, then: "" }
    }

    pub(super) fn then(self, then: &'static str) -> Self {
        Self { then, ..self }
    }
}

impl fmt::Display for Fix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "as {} run: {}", self.by, self.statements.join("; "))?;
        if !self.then.is_empty() {
            write!(f, "; then {}", self.then)?;
        }
        Ok(())
    }
}

impl fmt::Display for SourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if !self.remedy.is_empty() {
            write!(f, "; {}", self.remedy)?;
        }
        Ok(())
    }
}

impl Error for SourceError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}

impl SourceError {
    pub(super) fn stop(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            action: Action::Stop,
            kind: Kind::Other,
            message: message.into(),
            remedy: remedy.into(),
            fix: None,
            source: None,
        }
    }

    pub(super) fn retry(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { action: Action::Retry, ..Self::stop(message, remedy) }
    }

    /// Somebody must run statements first.
    pub(super) fn to_fix(message: impl Into<String>, fix: Fix) -> Self {
        Self { remedy: fix.to_string(), fix: Some(Box::new(fix)), ..Self::stop(message, "") }
    }

    #[must_use]
    pub fn kind(self, kind: Kind) -> Self {
        Self { kind, ..self }
    }

    pub(super) fn because(self, source: impl Error + Send + Sync + 'static) -> Self {
        Self { source: Some(Box::new(source)), ..self }
    }

    #[must_use]
    pub fn is_retry(&self) -> bool {
        self.action == Action::Retry
    }

    /// PostgreSQL refused a value (SQLSTATE class 22): the rows are at fault, not the statement.
    #[must_use]
    pub fn is_data_exception(&self) -> bool {
        let source = self.source.as_ref();
        let error = source.and_then(|source| source.downcast_ref::<tokio_postgres::Error>());
        error
            .and_then(tokio_postgres::Error::code)
            .is_some_and(|code| code.code().starts_with("22"))
    }

    /// A connection attempt of tokio-postgres failed.
    pub(super) fn connecting(config: &SourceConfig, error: tokio_postgres::Error) -> Self {
        if let Some(db) = error.as_db_error() {
            return refused(config, db.code().code(), db.message()).because(error);
        }
        let (cause, io, tls) = (deepest(&error), find::<std::io::Error>(&error), tls_cause(&error));
        if tls.is_some() || error.to_string().contains("TLS") {
            return tls_failed(config, tls.as_deref().unwrap_or(&cause)).because(error);
        }
        if cause.contains("password missing") {
            return no_password(config).because(error);
        }
        let kind = io.map(std::io::Error::kind);
        unreachable(config, kind, &cause).because(error)
    }

    /// An SQL statement failed. `what` says what it was for: `read the catalog of table "bets"`.
    pub(super) fn query(what: &str, error: tokio_postgres::Error) -> Self {
        let Some(db) = error.as_db_error() else {
            let cause = deepest(&error);
            let lost = Self::retry(format!("cannot {what}: {cause}"), "");
            let kind = if error.is_closed() || find::<std::io::Error>(&error).is_some() {
                Kind::Unreachable
            } else {
                Kind::Other
            };
            return lost.kind(kind).because(error);
        };
        let code = db.code().code();
        let message = format!("cannot {what}: {} (SQLSTATE {code})", db.message());
        let remedy = db.hint().unwrap_or("").to_owned();
        Self { action: action(code), ..Self::stop(message, remedy) }.because(error)
    }

    /// A replication session failed while `what` was done: `start streaming from slot "x"`.
    pub(super) fn replication(config: &SourceConfig, what: &str, error: ReplicationError) -> Self {
        let failed = match &error {
            ReplicationError::Server { code, message } => {
                replication_refused(config, what, code, message)
            }
            ReplicationError::Io(io) => unreachable(config, Some(io.kind()), &deepest(io)),
            ReplicationError::Tls(io) => {
                tls_failed(config, &tls_cause(io).unwrap_or_else(|| deepest(io)))
            }
            ReplicationError::NoTls => tls_failed(config, &error.to_string()),
            ReplicationError::NoPassword => no_password(config),
            ReplicationError::Login(cause) => {
                Self::stop(format!("cannot log in at {} to {what}: {cause}", server(config)), "")
            }
            ReplicationError::Frame(FrameError::TooLarge { bytes, limit }) => Self::stop(
                format!(
                    "one row change of {bytes} bytes is larger than the limit of {limit} bytes"
                ),
                "leave the large column out of the views, or make the row smaller at the source",
            ),
            ReplicationError::Frame(FrameError::Length(_)) | ReplicationError::Protocol(_) => {
                Self::retry(format!("cannot {what}: {error}"), "").kind(Kind::Unreachable)
            }
        };
        failed.because(error)
    }
}

/// `PostgreSQL at "host:port"`.
pub(super) fn server(config: &SourceConfig) -> String {
    format!("PostgreSQL at \"{}\"", config.address())
}

/// What the server said when it refused a session, SQL or replication.
fn refused(config: &SourceConfig, code: &str, message: &str) -> SourceError {
    let (server, user) = (server(config), &config.user);
    let said = format!("{message} (SQLSTATE {code})");
    match code {
        "28P01" => SourceError::stop(
            format!("{server} refused the password of user \"{user}\": {said}"),
            "check user and password in source.url or password_file",
        ),
        "28000" if message.contains("pg_hba.conf") => SourceError::stop(
            format!("{server} lets nobody in this way: {said}"),
            "add a line for this user, database and address to pg_hba.conf and reload, or change \
             sslmode in source.url",
        ),
        "28000" => SourceError::stop(
            format!("{server} refused user \"{user}\": {said}"),
            "check the user in source.url",
        ),
        "3D000" => SourceError::stop(
            format!("{server} has no database \"{}\": {said}", config.database),
            "check the database in source.url",
        ),
        "08P01" if message.contains("replication") => pooler(config, &said),
        "42501" if message.contains("start walsender") || message.contains("WAL sender") => {
            let statement = format!("ALTER ROLE {} REPLICATION", quote_name(user));
            SourceError::to_fix(
                format!("role \"{user}\" may not replicate: {said}"),
                Fix::new("a superuser", vec![statement]),
            )
        }
        "42501" if message.contains("for database") => {
            let (database, user) = (quote_name(&config.database), quote_name(user));
            let statement = format!("GRANT CONNECT ON DATABASE {database} TO {user}");
            SourceError::to_fix(
                format!("{server} lets nobody in this way: {said}"),
                Fix::new("the owner of the database", vec![statement]),
            )
        }
        "42704" | "42602" | "22023" if message.contains("parameter") => SourceError::stop(
            format!("{server} does not take walview's session settings: {said}"),
            "walview needs PostgreSQL 14 or newer, directly and not through a pooler",
        ),
        "53300" if message.contains("max_wal_senders") => SourceError::retry(
            format!("{server} has no free WAL sender: {said}"),
            "end a replication session that is not needed, or raise max_wal_senders and restart \
             PostgreSQL",
        ),
        _ => SourceError {
            action: action(code),
            ..SourceError::stop(format!("cannot connect to {server}: {said}"), "")
        }
        .kind(if code.starts_with("57P") { Kind::Unreachable } else { Kind::Other }),
    }
}

fn replication_refused(
    config: &SourceConfig,
    what: &str,
    code: &str,
    message: &str,
) -> SourceError {
    let server = server(config);
    let said = format!("{message} (SQLSTATE {code})");
    match code {
        "42601" if message.contains("IDENTIFY_SYSTEM") => pooler(config, &said),
        "55000" if message.contains("wal_level") => wal_level(config, None),
        "53400" if message.contains("replication slots") => SourceError::stop(
            format!("{server} has no free replication slot: {said}"),
            "drop one that is not needed (SELECT * FROM pg_replication_slots), or raise \
             max_replication_slots and restart PostgreSQL",
        ),
        "42704" if message.contains("publication") => SourceError::stop(
            format!("cannot {what}: {said}"),
            "the slot reads the past with the catalogs of that time, so a publication that was \
             dropped or recreated cannot be used from before; run: walview rebuild",
        )
        .kind(Kind::PublicationMissing),
        "42704" if message.contains("slot") => {
            SourceError::stop(format!("cannot {what}: {said}"), "run: walview rebuild")
                .kind(Kind::SlotMissing)
        }
        "55000" if message.contains("slot") => {
            SourceError::stop(format!("cannot {what}: {said}"), "run: walview rebuild")
                .kind(Kind::SlotLost)
        }
        // No function that the text needs is missing.
        "42883" => SourceError::stop(format!("cannot {what}: {said}"), "").kind(Kind::NoBinaryForm),
        "55006" => SourceError::retry(format!("cannot {what}: {said}"), "stop the other session")
            .kind(Kind::SlotHeld),
        "28P01" | "28000" | "3D000" | "42501" | "08P01" | "53300" => refused(config, code, message),
        _ => SourceError {
            action: action(code),
            ..SourceError::stop(format!("cannot {what}: {said}"), "")
        }
        .kind(if code.starts_with("57P") { Kind::Unreachable } else { Kind::Other }),
    }
}

/// `wal_level` as far as it is known.
pub(super) fn wal_level(config: &SourceConfig, level: Option<&str>) -> SourceError {
    let level = level.map_or_else(|| "not logical".to_owned(), |level| format!("\"{level}\""));
    let statement = "ALTER SYSTEM SET wal_level = logical".to_owned();
    SourceError::to_fix(
        format!(
            "wal_level of {} is {level}; logical replication needs \"logical\"",
            server(config)
        ),
        Fix::new("a superuser", vec![statement]).then("restart PostgreSQL"),
    )
}

fn pooler(config: &SourceConfig, said: &str) -> SourceError {
    let remedy = if config.host.contains("-pooler") {
        format!("write \"{}\" in source.url", config.host.replacen("-pooler", "", 1))
    } else {
        "give PostgreSQL's own host and port in source.url".to_owned()
    };
    SourceError::stop(
        format!(
            "\"{}\" is a connection pooler, not PostgreSQL itself, and cannot replicate: {said}",
            config.address()
        ),
        remedy,
    )
}

fn unreachable(
    config: &SourceConfig,
    kind: Option<std::io::ErrorKind>,
    cause: &str,
) -> SourceError {
    use std::io::ErrorKind as Io;
    let address = config.address();
    let (message, remedy) = match kind {
        Some(Io::ConnectionRefused) => (
            format!("nothing listens at \"{address}\": {cause}"),
            "check host and port in source.url, and that PostgreSQL runs and listens there",
        ),
        Some(Io::NotFound) if config.is_unix_socket() => (
            format!("there is no PostgreSQL socket \"{address}\": {cause}"),
            "check host and port in source.url, and that PostgreSQL runs",
        ),
        _ if cause.contains("lookup") || cause.contains("resolve") => (
            format!("cannot find host \"{}\": {cause}", config.host),
            "check the host in source.url",
        ),
        Some(Io::UnexpectedEof | Io::ConnectionReset | Io::ConnectionAborted | Io::BrokenPipe) => {
            (format!("{} ended the connection: {cause}", server(config)), "")
        }
        _ => (
            format!("cannot reach {}: {cause}", server(config)),
            "check host and port in source.url, and firewalls in between",
        ),
    };
    SourceError::retry(message, remedy).kind(Kind::Unreachable)
}

pub(super) fn timed_out(config: &SourceConfig, what: &str) -> SourceError {
    SourceError::retry(
        format!(
            "{} did not answer within {} s when asked to {what}",
            server(config),
            config.connect_timeout.as_secs()
        ),
        "check that it is not overloaded or stopped, and firewalls in between",
    )
    .kind(Kind::Unreachable)
}

fn no_password(config: &SourceConfig) -> SourceError {
    SourceError::stop(
        format!("{} asks for a password of user \"{}\"", server(config), config.user),
        "write it in source.url or name a password_file",
    )
}

pub(super) fn tls_failed(config: &SourceConfig, cause: &str) -> SourceError {
    let cause = cause.trim_start_matches("TLS handshake failed: ");
    let remedy = if cause.contains("rejected") || cause.contains("does not support") {
        "turn ssl on at the server, or write sslmode=disable in source.url on a trusted network"
    } else if cause.contains("UnknownIssuer") {
        match &config.tls {
            TlsMode::VerifyFull { root_cert: None } => {
                "the certificate authority is not a public one: name its PEM file with \
                 sslrootcert=FILE in source.url"
            }
            TlsMode::VerifyFull { .. } | TlsMode::Disable => {
                "the certificate does not come from the authority in sslrootcert: check the file"
            }
        }
    } else if cause.contains("not valid for name") || cause.contains("NotValidForName") {
        "write the host name that the certificate is for in source.url"
    } else if cause.contains("xpired") {
        "renew the server's certificate"
    } else {
        "check sslmode and sslrootcert in source.url"
    };
    SourceError::stop(format!("TLS with {} failed: {cause}", server(config)), remedy)
}

/// From SQLSTATE to action. Class 53 and 57: the server is short of something or restarts. 55P03:
/// a lock was not had in time. 58: its disk. 40: a conflict. 08: the connection.
fn action(code: &str) -> Action {
    let passing = ["08", "40", "53", "57", "58"].iter().any(|class| code.starts_with(class));
    if passing || code == "55P03" || code == "55006" { Action::Retry } else { Action::Stop }
}

/// The text of the innermost cause, which is the one that says something.
fn deepest(error: &(dyn Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

fn find<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = error.source();
    }
    None
}

/// A rustls error, which an `io::Error` may wrap without naming it as its source.
fn tls_cause(error: &(dyn Error + 'static)) -> Option<String> {
    if let Some(tls) = find::<rustls::Error>(error) {
        return Some(tls.to_string());
    }
    let inner = find::<std::io::Error>(error)?.get_ref()?;
    inner.downcast_ref::<rustls::Error>().map(ToString::to_string)
}

/// An identifier in SQL, always quoted.
pub(super) fn quote_name(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A string literal in SQL. `E''` where a backslash could be read in two ways.
pub(super) fn quote_text(text: &str) -> String {
    let quoted = text.replace('\'', "''");
    if text.contains('\\') {
        format!("E'{}'", quoted.replace('\\', "\\\\"))
    } else {
        format!("'{quoted}'")
    }
}
