//! Pipeline files: from YAML to what the service runs.
//!
//! ```text
//!            yaml           raw            validate                  connect
//!  file ───► Node ────► RawConfig ───► Pipeline (static) ───► Connections (+ environment, files)
//!     places, styles   keys, shapes   names, SQL, targets      URLs and passwords
//! ```
//!
//! Invariants:
//! - a [`Pipeline`] needs no further checks that its file alone could answer;
//! - loading reports every error at once, in the file's order, and depends on the file alone: the
//!   environment and password files are read by [`Pipeline::connect`] only;
//! - no message, `Debug` text or excerpt shows a value of `source` or `stores`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use walview_core::diagnostic::{Diagnostic, Place};
use walview_core::target::{clickhouse, redis};

mod connect;
mod definition;
mod env;
mod name;
mod problem;
mod raw;
mod secret;
mod sql;
mod suggest;
mod target;
#[cfg(test)]
mod tests;
mod validate;
mod yaml;

pub use connect::{Connections, StoreConnection};
pub use env::{Absent, Environment, Setting};
pub use name::{NAME_CHARS_MAX, Name};
pub use problem::{ProblemJson, Problems, SourceText};
pub use secret::Secret;
pub use sql::{ParsedView, SqlText};

/// Pipelines of a thousand views stay far below; anything larger is not a pipeline.
pub const FILE_BYTES_MAX: u64 = 1 << 20;

/// A pipeline file, validated as far as it can be without a server.
#[derive(Clone, Debug)]
pub struct Pipeline {
    pub name: Name,
    pub file: PathBuf,
    pub source: Source,
    pub stores: Vec<Store>,
    pub views: Vec<ViewSpec>,
    text: Arc<SourceText>,
}

#[derive(Clone, Debug)]
pub struct Source {
    pub url: Setting,
    pub password_file: Option<Setting>,
    /// What unqualified table names mean; `public` unless said.
    pub schema: Setting,
    places: SettingPlaces,
}

#[derive(Clone, Debug)]
pub struct Store {
    pub name: Name,
    pub kind: StoreKind,
    pub url: Setting,
    pub password_file: Option<Setting>,
    /// `ClickHouse` only, and always there for it.
    pub database: Option<Setting>,
    places: SettingPlaces,
}

/// Where settings stand, for what is found out about them when the environment is known.
#[derive(Clone, Copy, Debug, Default)]
struct SettingPlaces {
    url: Place,
    password_file: Place,
    /// The source's `schema`, a store's `database`.
    namespace: Place,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StoreKind {
    Redis,
    ClickHouse,
}

impl StoreKind {
    pub const ALL: [Self; 2] = [Self::Redis, Self::ClickHouse];

    /// As the file says it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Redis => "redis",
            Self::ClickHouse => "clickhouse",
        }
    }
}

#[derive(Clone, Debug)]
pub struct ViewSpec {
    pub name: Name,
    /// Where the name stands.
    pub place: Place,
    pub sql: SqlText,
    pub parsed: ParsedView,
    pub targets: Vec<TargetSpec>,
}

#[derive(Clone, Debug)]
pub struct TargetSpec {
    /// An index into [`Pipeline::stores`].
    pub store: usize,
    /// Where the target stands.
    pub place: Place,
    pub kind: TargetKind,
    options: Vec<(String, Place)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetKind {
    Redis(redis::Spec),
    ClickHouse(clickhouse::Spec),
}

impl TargetSpec {
    /// Where an option stands (`order_by`, `value`, `stream`, …), or the target where it has none.
    #[must_use]
    pub fn option_place(&self, option: &str) -> Place {
        self.options.iter().find(|(name, _)| name == option).map_or(self.place, |(_, place)| *place)
    }
}

impl Pipeline {
    /// Reads and validates a file. The environment plays no part.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn load(file: &Path) -> Result<Self, Problems> {
        let text = read_file(file)?;
        Self::parse(file, text)
    }

    /// As [`Pipeline::load`], of a text that is already here.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(file: &Path, mut text: String) -> Result<Self, Problems> {
        // A byte order mark is not a character of the first line.
        if text.starts_with('\u{feff}') {
            text.remove(0);
        }
        validate::pipeline(Arc::new(SourceText { file: file.to_path_buf(), text }))
    }

    /// Slot and publication; fits a slot's alphabet and length.
    #[must_use]
    pub fn slot_name(&self) -> String {
        format!("walview_{}", self.name)
    }

    /// A place of a view's SQL, in the file.
    #[must_use]
    pub fn locate(&self, view: usize, place: Place) -> Place {
        self.views.get(view).map_or(place, |view| view.sql.in_file(place))
    }

    /// What the binder says of a view's SQL, ready to be shown.
    #[must_use]
    pub fn sql_problems(&self, view: usize, list: Vec<Diagnostic>) -> Problems {
        self.problems(self.sql_diagnostics(view, list))
    }

    /// What the binder says of a view's SQL, at its places in the file.
    #[must_use]
    pub fn sql_diagnostics(&self, view: usize, list: Vec<Diagnostic>) -> Vec<Diagnostic> {
        self.views.get(view).map_or_else(Vec::new, |view| view.sql.diagnostics_in_file(list))
    }

    /// Diagnostics whose places are the file's own, ready to be shown.
    #[must_use]
    pub fn problems(&self, list: Vec<Diagnostic>) -> Problems {
        Problems::new(Arc::clone(&self.text), list)
    }

    #[must_use]
    pub fn target_count(&self) -> usize {
        self.views.iter().map(|view| view.targets.len()).sum()
    }
}

/// Files of one command, all errors of all of them.
///
/// # Errors
/// One entry for each file that is not right.
pub fn load_all(files: &[PathBuf]) -> Result<Vec<Pipeline>, Vec<Problems>> {
    let (mut pipelines, mut problems) = (Vec::<Pipeline>::new(), Vec::new());
    for result in load_each(files) {
        match result {
            Ok(pipeline) => pipelines.push(pipeline),
            Err(found) => problems.push(found),
        }
    }
    if problems.is_empty() { Ok(pipelines) } else { Err(problems) }
}

/// Each file's result, in order; a name that an earlier file has is an error of the later one.
#[must_use]
pub fn load_each(files: &[PathBuf]) -> Vec<Result<Pipeline, Problems>> {
    let mut names: Vec<(Name, PathBuf)> = Vec::new();
    let mut results = Vec::new();
    for file in files {
        let result = Pipeline::load(file).and_then(|pipeline| {
            if let Some((_, first)) = names.iter().find(|(name, _)| *name == pipeline.name) {
                let message =
                    format!("pipeline \"{}\" is also in \"{}\"", pipeline.name, first.display());
                return Err(Problems::of_file(file, message, "give each pipeline its own name"));
            }
            names.push((pipeline.name.clone(), file.clone()));
            Ok(pipeline)
        });
        results.push(result);
    }
    results
}

fn read_file(file: &Path) -> Result<String, Problems> {
    use std::io::Read as _;
    let refuse = |message: String, remedy: &str| Problems::of_file(file, message, remedy);
    let io = |error: std::io::Error| {
        let remedy = if error.kind() == std::io::ErrorKind::NotFound {
            "check the path"
        } else if error.kind() == std::io::ErrorKind::PermissionDenied {
            "make it readable for this user"
        } else {
            ""
        };
        refuse(format!("cannot be read: {}", io_reason(&error)), remedy)
    };
    let opened = std::fs::File::open(file).map_err(io)?;
    if opened.metadata().map_err(io)?.is_dir() {
        return Err(refuse("is a directory".to_owned(), "name the files: pipeline/*.yaml"));
    }
    let mut bytes = Vec::new();
    opened.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(io)?;
    if u64::try_from(bytes.len()).unwrap_or(u64::MAX) > FILE_BYTES_MAX {
        return Err(refuse(format!("is larger than {FILE_BYTES_MAX} bytes"), "split it"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let before = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
        let line = before.split(|byte| *byte == b'\n').count();
        refuse(format!("is not UTF-8 text (line {line})"), "save it as UTF-8")
    })
}

/// The system's words without "(os error 2)".
fn io_reason(error: &std::io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    text.to_lowercase()
}
