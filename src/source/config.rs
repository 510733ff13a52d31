//! Where the source database is and how to reach it: a URL, parsed once and completely.
//!
//! Written by hand because tokio-postgres refuses `sslmode=verify-full` and knows no replication. One
//! parser gives both kinds of sessions the same meaning. A parameter that is not understood is refused, never dropped in silence.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

pub use crate::config::Secret;

/// How long one attempt to connect may take, unless `connect_timeout` says otherwise.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// How the connection is protected. There is no mode that encrypts without verifying: whoever can
/// read the wire can also answer in the server's place. Nor one that verifies the authority and not
/// the name (`verify-ca`), by which every server of that authority could answer for this one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsMode {
    Disable,
    /// The certificate leads to a trusted root and is for this host.
    VerifyFull {
        /// PEM file; `None` trusts the public roots (Mozilla's list).
        root_cert: Option<PathBuf>,
    },
}

/// One source database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceConfig {
    /// Host name, address, or the folder of a Unix socket (starts with `/`).
    pub host: String,
    pub port: u16,
    pub user: String,
    pub password: Option<Secret>,
    pub database: String,
    pub tls: TlsMode,
    /// Where a table without a schema is looked for.
    pub schema: String,
    pub connect_timeout: Duration,
    /// The pipeline that this connection serves: sessions are named `walview:<pipeline>`.
    pub pipeline: String,
}

/// What is wrong with the source part of a configuration. Holds no secret and no whole URL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}; {remedy}")]
pub struct ConfigError {
    pub message: String,
    pub remedy: String,
}

impl ConfigError {
    fn new(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { message: message.into(), remedy: remedy.into() }
    }
}

const EXAMPLE: &str = "write postgres://user:password@host:5432/database";
/// A slash or a hash in the password ends the host before its user.
const EXAMPLE_ENCODED: &str = "write postgres://user:password@host:5432/database, in the password \
                               / as %2F, ? as %3F, # as %23, @ as %40, % as %25";

impl SourceConfig {
    /// Parses `postgres://user:password@host:port/database?parameter=value&…`. `password` is one
    /// that came another way (`password_file`).
    ///
    /// Parameters: `sslmode` (`disable`, `verify-full`), `sslrootcert` (a PEM file, or
    /// `system`), `connect_timeout` (seconds), `host` (a Unix socket's folder), `port`, `user`,
    /// `password`, `dbname`. Without `sslmode`, loopback and Unix sockets are plain and everything
    /// else is `verify-full`.
    ///
    /// # Errors
    /// The URL is malformed, incomplete, or asks for something that Walview does not do.
    pub fn from_url(url: &str, password: Option<Secret>) -> Result<Self, ConfigError> {
        let mut parts = UrlParts::parse(url)?;
        let host = parts
            .take("host")
            .ok_or_else(|| ConfigError::new("the source URL names no host", EXAMPLE))?;
        if host.contains(',') {
            return Err(ConfigError::new(
                "the source URL lists several hosts",
                "name the one server whose slot walview shall follow",
            ));
        }
        let user = parts
            .take("user")
            .ok_or_else(|| ConfigError::new("the source URL names no user", EXAMPLE_ENCODED))?;
        let database = parts
            .take("dbname")
            .ok_or_else(|| ConfigError::new("the source URL names no database", EXAMPLE))?;
        let port = parts.take("port").map_or(Ok(5432), |port| parse_port(&port))?;
        let password = match (parts.take("password").map(Secret::new), password) {
            (Some(_), Some(_)) => {
                return Err(ConfigError::new(
                    "the source's password is given twice, in the URL and beside it",
                    "remove one of them",
                ));
            }
            (inside, beside) => inside.or(beside),
        };
        let connect_timeout = match parts.take("connect_timeout") {
            None => CONNECT_TIMEOUT,
            Some(text) => parse_timeout(&text)?,
        };
        let tls = tls_mode(&host, parts.take("sslmode"), parts.take("sslrootcert"))?;
        parts.refuse_rest()?;
        Ok(Self {
            host,
            port,
            user,
            password,
            database,
            tls,
            schema: "public".to_owned(),
            connect_timeout,
            pipeline: String::new(),
        })
    }

    /// `host:port`, as messages name the server.
    #[must_use]
    pub fn address(&self) -> String {
        if self.is_unix_socket() {
            format!("{}/.s.PGSQL.{}", self.host, self.port)
        } else if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    #[must_use]
    pub fn is_unix_socket(&self) -> bool {
        self.host.starts_with('/')
    }

    /// `walview:<pipeline>`, by which our sessions and publications are recognised. PostgreSQL cuts
    /// an `application_name` at 63 bytes, so a long name is cut here first.
    #[must_use]
    pub fn application_name(&self) -> String {
        owner_mark(&self.pipeline)
    }
}

/// PostgreSQL's longest `application_name` (NAMEDATALEN - 1).
const APPLICATION_NAME_BYTES_MAX: usize = 63;

pub(super) fn owner_mark(pipeline: &str) -> String {
    let mut name = format!("walview:{pipeline}");
    while name.len() > APPLICATION_NAME_BYTES_MAX {
        name.pop();
    }
    name
}

fn tls_mode(
    host: &str,
    sslmode: Option<String>,
    sslrootcert: Option<String>,
) -> Result<TlsMode, ConfigError> {
    let root_cert = sslrootcert.filter(|path| path != "system").map(PathBuf::from);
    let local = host.starts_with('/')
        || host == "localhost"
        || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
    match sslmode.as_deref() {
        None if local && root_cert.is_none() => Ok(TlsMode::Disable),
        None | Some("verify-full") if !host.starts_with('/') => {
            Ok(TlsMode::VerifyFull { root_cert })
        }
        Some("disable") => Ok(TlsMode::Disable),
        None | Some("verify-full") => Err(ConfigError::new(
            "the source URL asks for TLS over a Unix socket",
            "remove sslmode and sslrootcert; a socket does not leave the machine",
        )),
        Some(mode @ ("prefer" | "allow")) => Err(ConfigError::new(
            format!("sslmode={mode} falls back to plain text when someone in between asks for it"),
            "write sslmode=verify-full (the default), or sslmode=disable on a trusted network",
        )),
        Some("require") => Err(ConfigError::new(
            "sslmode=require encrypts but does not verify who answers",
            "write sslmode=verify-full (the default), with sslrootcert=FILE for a private \
             certificate authority",
        )),
        Some("verify-ca") => Err(ConfigError::new(
            "sslmode=verify-ca, which does not look at the certificate's name, is not supported",
            "write sslmode=verify-full and the host name that the certificate is for",
        )),
        Some(mode) => Err(ConfigError::new(
            format!("sslmode=\"{mode}\" is not known"),
            "write verify-full or disable",
        )),
    }
}

/// Quotes nothing: a password with a bare `/` in it reads as a port.
fn parse_port(text: &str) -> Result<u16, ConfigError> {
    text.parse().ok().filter(|port| *port != 0).ok_or_else(|| {
        ConfigError::new(
            "the source URL has a port that is no number from 1 to 65535",
            "write host:5432; in a user or password write / as %2F, ? as %3F and @ as %40",
        )
    })
}

fn parse_timeout(text: &str) -> Result<Duration, ConfigError> {
    text.parse::<u16>().ok().filter(|seconds| *seconds > 0).map_or_else(
        || {
            Err(ConfigError::new(
                format!("connect_timeout=\"{text}\" is not a number of seconds"),
                "write a whole number from 1 to 65535",
            ))
        },
        |seconds| Ok(Duration::from_secs(seconds.into())),
    )
}

/// The pieces of a URL by libpq's parameter names, decoded.
struct UrlParts(Vec<(String, String)>);

impl UrlParts {
    fn parse(url: &str) -> Result<Self, ConfigError> {
        let rest = url
            .strip_prefix("postgres://")
            .or_else(|| url.strip_prefix("postgresql://"))
            .ok_or_else(|| {
                ConfigError::new("the source URL does not start with postgres://", EXAMPLE)
            })?;
        let mut parts = Self(Vec::new());
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, database) = rest.split_once('/').unwrap_or((rest, ""));
        // A password may hold a bare `@`; a host cannot.
        let (credentials, address) = authority.rsplit_once('@').unwrap_or(("", authority));
        let (user, password) = credentials
            .split_once(':')
            .map_or((credentials, None), |(user, password)| (user, Some(password)));
        let (host, port) = split_address(address)?;
        parts.add("user", user)?;
        parts.add("password", password.unwrap_or(""))?;
        parts.add("host", host)?;
        parts.add("port", port)?;
        parts.add("dbname", database)?;
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').ok_or_else(|| {
                ConfigError::new(
                    "a parameter of the source URL has no value",
                    "write parameter=value after the ?, parted by &",
                )
            })?;
            let name = percent_decode(name)?;
            if parts.0.iter().any(|(have, _)| *have == name) {
                return Err(ConfigError::new(
                    "the source URL gives a parameter twice",
                    "remove one of them",
                ));
            }
            parts.add(&name, value)?;
        }
        Ok(parts)
    }

    /// An empty part is one that was not given.
    fn add(&mut self, name: &str, value: &str) -> Result<(), ConfigError> {
        if !value.is_empty() {
            self.0.push((name.to_owned(), percent_decode(value)?));
        }
        Ok(())
    }

    fn take(&mut self, name: &str) -> Option<String> {
        let at = self.0.iter().position(|(have, _)| have == name)?;
        Some(self.0.swap_remove(at).1)
    }

    fn refuse_rest(self) -> Result<(), ConfigError> {
        let Some((name, _)) = self.0.into_iter().next() else {
            return Ok(());
        };
        let remedy = match name.as_str() {
            "application_name" | "options" | "client_encoding" | "replication" => {
                "remove it; walview sets it itself"
            }
            "channel_binding" => "remove it; the server's certificate is verified",
            "sslcert" | "sslkey" => "remove it; client certificates are not supported yet",
            // Not quoted: behind a bare `?` in a password it is a part of the password.
            _ => {
                return Err(ConfigError::new(
                    "the source URL has a parameter that is not known",
                    "known are sslmode, sslrootcert and connect_timeout; in a password write ? as %3F",
                ));
            }
        };
        Err(ConfigError::new(
            format!("the source URL's parameter \"{name}\" is not supported"),
            remedy,
        ))
    }
}

fn split_address(address: &str) -> Result<(&str, &str), ConfigError> {
    let Some(rest) = address.strip_prefix('[') else {
        return Ok(address.rsplit_once(':').unwrap_or((address, "")));
    };
    let bad = || ConfigError::new("the source URL's IPv6 address has no ]", EXAMPLE);
    let (host, port) = rest.split_once(']').ok_or_else(bad)?;
    match port.strip_prefix(':') {
        Some(port) => Ok((host, port)),
        None if port.is_empty() => Ok((host, port)),
        None => Err(bad()),
    }
}

fn percent_decode(text: &str) -> Result<String, ConfigError> {
    let bad = || {
        ConfigError::new(
            "the source URL holds a % that is not followed by two hexadecimal digits of UTF-8",
            "write %25 for a % itself",
        )
    };
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let mut digit =
            || bytes.next().and_then(|digit| char::from(digit).to_digit(16)).ok_or_else(bad);
        let value = digit()? * 16 + digit()?;
        decoded.push(u8::try_from(value).ok().ok_or_else(bad)?);
    }
    String::from_utf8(decoded).ok().ok_or_else(bad)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn parse(url: &str) -> SourceConfig {
        SourceConfig::from_url(url, None).unwrap()
    }

    fn refusal(url: &str) -> String {
        SourceConfig::from_url(url, None).unwrap_err().to_string()
    }

    #[test]
    fn a_url_gives_every_part_decoded() {
        let config =
            parse("postgresql://app%40x:p%3Aw@d@db.example.com:6000/my%20db?connect_timeout=3");
        assert_eq!(config.user, "app@x");
        assert_eq!(config.password, Some(Secret::new("p:w@d")));
        assert_eq!((config.host.as_str(), config.port), ("db.example.com", 6000));
        assert_eq!(config.database, "my db");
        assert_eq!(config.connect_timeout, Duration::from_secs(3));
        assert_eq!(config.schema, "public");
    }

    #[test]
    fn a_password_never_prints() {
        let mut config = parse("postgres://u:marker@h/d");
        config.pipeline = "betting".to_owned();
        assert!(!format!("{config:?}").contains("marker"));
        assert_eq!(config.application_name(), "walview:betting");
        for url in ["postgres://u:marker@h:x/d", "postgres://u:marker@h", "mysql://u:marker@h/d"] {
            assert!(!refusal(url).contains("marker"), "{url}");
        }
    }

    #[test]
    fn tls_is_verified_unless_the_wire_stays_here() {
        let full = |path: Option<&str>| TlsMode::VerifyFull { root_cert: path.map(PathBuf::from) };
        for (url, tls) in [
            ("postgres://u@127.0.0.1/d", TlsMode::Disable),
            ("postgres://u@[::1]:5433/d", TlsMode::Disable),
            ("postgres://u@localhost/d", TlsMode::Disable),
            ("postgres://u@/d?host=/var/run/postgresql", TlsMode::Disable),
            ("postgres://u@db/d?sslmode=disable", TlsMode::Disable),
            ("postgres://u@db/d", full(None)),
            ("postgres://u@10.0.0.1/d?sslmode=verify-full&sslrootcert=system", full(None)),
            ("postgres://u@localhost/d?sslrootcert=/ca.pem", full(Some("/ca.pem"))),
        ] {
            assert_eq!(parse(url).tls, tls, "{url}");
        }
    }

    #[test]
    fn what_is_not_understood_is_refused_with_a_way_out() {
        for (url, wanted) in [
            ("postgres://u@h/d?sslmode=prefer", "sslmode=prefer falls back to plain text"),
            ("postgres://u@h/d?sslmode=allow", "sslmode=allow falls back to plain text"),
            ("postgres://u@h/d?sslmode=require", "sslmode=require encrypts but does not verify"),
            ("postgres://u@h/d?sslmode=verify-ca", "the host name that the certificate is for"),
            ("postgres://u@h/d?sslmode=on", "write verify-full or disable"),
            ("postgres://u@h/d?options=-c", "\"options\" is not supported; remove it; walview"),
            ("postgres://u@h/d?nonsense=1", "known are sslmode, sslrootcert"),
            ("postgres://u@h/d?sslmode=disable&sslmode=disable", "gives a parameter twice"),
            ("postgres://u@h:0/d", "a port that is no number from 1"),
            ("postgres://u@a,b/d", "lists several hosts"),
            (
                "postgres://u:hunter2/x@h/d",
                "names no user; write postgres://user:password@host:5432/database, in the password / as %2F",
            ),
            ("postgres://u:a?hunter2=x@h/d", ""),
            ("postgres://u@h:hunter2/d", "a port that is no number"),
            ("postgres://u@/d", "names no host"),
            ("postgres://h/d", "names no user"),
            ("postgres://u@h", "names no database"),
            ("postgres://u%4@h/d", "two hexadecimal digits"),
            ("http://h", "does not start with postgres://"),
            ("postgres://u@/d?host=/tmp&sslmode=verify-full", "TLS over a Unix socket"),
        ] {
            let message = refusal(url);
            assert!(message.contains(wanted), "{url}: {message}");
            assert!(!message.contains("hunter2"), "{url}: {message}");
        }
        let twice = SourceConfig::from_url("postgres://u:a@h/d", Some(Secret::new("b")));
        assert!(twice.unwrap_err().to_string().contains("given twice"));
    }
}
