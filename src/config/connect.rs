//! What a pipeline needs from outside its file to connect: variables and password files.
//!
//! Only commands that connect come here, so `check` works on a machine that knows no secret.

use std::fmt::Write as _;
use std::io::Read as _;

use walview_core::diagnostic::{Diagnostic, Place};

use super::env::{Absent, Environment, Setting};
use super::name::Name;
use super::problem::Problems;
use super::secret::Secret;
use super::target::is_identifier;
use super::{Pipeline, StoreKind, io_reason};
use crate::source::SourceConfig;

/// A password is a line; more than this is the wrong file.
const PASSWORD_FILE_BYTES_MAX: u64 = 64 * 1024;

/// PostgreSQL cuts longer identifiers off, `ClickHouse` makes file names of them.
const NAMESPACE_BYTES_MAX: usize = 63;

/// A pipeline's servers, with everything resolved.
#[derive(Clone, Debug)]
pub struct Connections {
    /// With the pipeline's name and schema.
    pub source: SourceConfig,
    /// In the order of [`Pipeline::stores`].
    pub stores: Vec<StoreConnection>,
}

#[derive(Clone, Debug)]
pub struct StoreConnection {
    pub name: Name,
    pub kind: StoreKind,
    pub url: Secret,
    /// From `password_file`; stands above the URL's own.
    pub password: Option<Secret>,
    /// `ClickHouse` only, and always there for it.
    pub database: Option<String>,
}

impl StoreConnection {
    /// The URL with the password of `password_file` in it, for the clients, which take it there.
    #[must_use]
    pub fn url_with_password(&self) -> String {
        let url = self.url.expose();
        let (Some(password), Some((scheme, rest))) = (&self.password, url.split_once("://")) else {
            return url.to_owned();
        };
        let (user, host) = match rest.rsplit_once('@') {
            Some((login, host)) => (login.split(':').next().unwrap_or_default(), host),
            None => ("", rest),
        };
        let mut encoded = String::new();
        for byte in password.expose().bytes() {
            if byte.is_ascii_alphanumeric() {
                encoded.push(char::from(byte));
            } else {
                // Writing to a String cannot fail.
                write!(encoded, "%{byte:02X}").unwrap_or_default();
            }
        }
        format!("{scheme}://{user}:{encoded}@{host}")
    }
}

impl Pipeline {
    /// Looks variables up and reads password files.
    ///
    /// # Errors
    /// Every variable without a value, every password file that cannot be read, every URL that is of
    /// another kind of server; at their places in the pipeline file.
    pub fn connect(&self, environment: &Environment) -> Result<Connections, Problems> {
        let mut resolver = Resolver { environment, problems: Vec::new() };
        let source = resolver.source(self);
        let stores = self.stores.iter().map(|store| {
            let url = resolver.setting(&store.url, store.places.url);
            if let Some(url) = &url {
                let problem = store_url_problem(store.kind, url.expose(), store.places.url);
                resolver.problems.extend(problem);
            }
            let file = store.password_file.as_ref();
            let password = resolver.password(file, store.places.password_file);
            let database = match &store.database {
                None => Some(None),
                Some(setting) => resolver.setting(setting, store.places.namespace).map(|text| {
                    let problem = database_problem(text.expose(), store.places.namespace);
                    resolver.problems.extend(problem);
                    Some(text.expose().to_owned())
                }),
            };
            let (name, kind) = (store.name.clone(), store.kind);
            let (url, password, database) = (url?, password?, database?);
            Some(StoreConnection { name, kind, url, password, database })
        });
        let stores = stores.collect::<Vec<_>>().into_iter().collect::<Option<Vec<_>>>();
        match (source, stores) {
            (Some(source), Some(stores)) if resolver.problems.is_empty() => {
                Ok(Connections { source, stores })
            }
            _ => Err(self.problems(resolver.problems)),
        }
    }
}

struct Resolver<'e> {
    environment: &'e Environment,
    problems: Vec<Diagnostic>,
}

impl Resolver<'_> {
    fn source(&mut self, pipeline: &Pipeline) -> Option<SourceConfig> {
        let (source, places) = (&pipeline.source, pipeline.source.places);
        let url = self.setting(&source.url, places.url);
        let password = self.password(source.password_file.as_ref(), places.password_file);
        let schema = self.setting(&source.schema, places.namespace);
        if schema.as_ref().is_some_and(|schema| schema.expose().is_empty()) {
            let message = "\"schema\" is empty";
            self.problems.push(Diagnostic::new(places.namespace, message, ""));
        }
        match SourceConfig::from_url(url?.expose(), password?) {
            Ok(config) => Some(SourceConfig {
                schema: schema?.expose().to_owned(),
                pipeline: pipeline.name.to_string(),
                ..config
            }),
            Err(error) => {
                self.problems.push(Diagnostic::new(places.url, error.message, error.remedy));
                None
            }
        }
    }

    fn setting(&mut self, setting: &Setting, place: Place) -> Option<Secret> {
        match setting.resolve(self.environment) {
            Ok(secret) => Some(secret),
            Err(absent) => {
                for (name, why) in absent {
                    let why = match why {
                        Absent::NotSet => "is not set",
                        Absent::Empty => "is empty",
                        Absent::NotUnicode => "is not Unicode text",
                    };
                    let message = format!("environment variable \"{name}\" {why}");
                    let remedy = format!("set it, or write ${{{name}:-default}}");
                    self.problems.push(Diagnostic::new(place, message, remedy));
                }
                None
            }
        }
    }

    /// `Some(None)` where no file is named or the name is empty, `None` where it is wrong. The file's name is not shown:
    /// people have written the password itself there.
    #[expect(clippy::option_option, reason = "as `Option::transpose` reads it")]
    fn password(&mut self, file: Option<&Setting>, place: Place) -> Option<Option<Secret>> {
        let Some(file) = file else { return Some(None) };
        let path = self.setting(file, place)?;
        // `${NAME:-}`: one pipeline file serves with a password file and without.
        if path.expose().is_empty() {
            return Some(None);
        }
        match read_password(path.expose()) {
            Ok(password) => Some(Some(password)),
            Err(why) => {
                let remedy = "name a file that holds nothing but the password";
                self.problems.push(Diagnostic::new(
                    place,
                    format!("the password file {why}"),
                    remedy,
                ));
                None
            }
        }
    }
}

fn read_password(path: &str) -> Result<Secret, String> {
    let io = |error: std::io::Error| format!("cannot be read: {}", io_reason(&error));
    let mut text = String::new();
    let file = std::fs::File::open(path).map_err(io)?;
    file.take(PASSWORD_FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(io)?;
    if u64::try_from(text.len()).unwrap_or(u64::MAX) > PASSWORD_FILE_BYTES_MAX {
        return Err(format!("is larger than {PASSWORD_FILE_BYTES_MAX} bytes"));
    }
    // Editors and `echo` end a file with a line break that is not part of the password.
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.is_empty() {
        return Err("is empty".to_owned());
    }
    if text.contains(['\n', '\r', '\0']) {
        return Err("has more than one line".to_owned());
    }
    Ok(Secret::new(text))
}

pub(super) fn source_url_problem(url: &str, place: Place) -> Option<Diagnostic> {
    let error = SourceConfig::from_url(url, None).err()?;
    Some(Diagnostic::new(place, error.message, error.remedy))
}

pub(super) fn store_url_problem(kind: StoreKind, url: &str, place: Place) -> Option<Diagnostic> {
    match kind {
        StoreKind::Redis => {
            let scheme = url.split_once("://").map(|(scheme, _)| scheme);
            if let Some(scheme @ ("redis+sentinel" | "redis+cluster")) = scheme {
                let message = format!("\"{scheme}://\" is not supported yet");
                return Some(Diagnostic::new(place, message, "name one server: redis://host:6379"));
            }
            url_problem(url, &["redis", "rediss"], "Redis", place)
        }
        StoreKind::ClickHouse => url_problem(url, &["http", "https"], "ClickHouse", place),
    }
}

/// Only the scheme and that a host follows: the drivers say the rest. Quotes nothing of the URL.
fn url_problem(url: &str, schemes: &[&str], server: &str, place: Place) -> Option<Diagnostic> {
    let good = url.split_once("://").is_some_and(|(scheme, rest)| {
        schemes.contains(&scheme) && !rest.is_empty() && !rest.starts_with('/')
    });
    let example = schemes.iter().map(|scheme| format!("{scheme}://host")).collect::<Vec<_>>();
    (!good).then(|| {
        let message = format!("the url is not one of a {server} server");
        Diagnostic::new(place, message, format!("write {}", example.join(" or ")))
    })
}

pub(super) fn database_problem(name: &str, place: Place) -> Option<Diagnostic> {
    if is_identifier(name) && name.len() <= NAMESPACE_BYTES_MAX {
        return None;
    }
    let message = "this cannot be a database's name";
    let remedy = format!("use letters, digits and _, at most {NAMESPACE_BYTES_MAX}");
    Some(Diagnostic::new(place, message, remedy))
}
