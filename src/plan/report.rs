//! What a plan says, as data: `--json` prints it, `render` makes it readable. Fields are stable.

use crate::config::Problems;
use crate::service::PipelineError;
use crate::service::patience::describe;
use crate::source::SourceError;
use crate::stores::StoreError;
use crate::stores::inspect::Lack;
use serde::Serialize;

/// What may be said of a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// `run` would start, or runs already.
    Ready,
    /// Nothing is known to be wrong, but a server did not answer.
    Unknown,
    /// Something must be mended first.
    Problems,
}

#[derive(Debug, Serialize)]
pub struct Report {
    pub result: Verdict,
    pub pipelines: Vec<PipelinePlan>,
}

/// One file. What could not be found out is absent.
#[derive(Debug, Serialize)]
pub struct PipelinePlan {
    pub file: String,
    pub pipeline: Option<String>,
    pub result: Verdict,
    pub start: Option<StartKind>,
    pub source: Option<SourcePlan>,
    pub publication: Option<PublicationPlan>,
    pub slot: Option<SlotPlan>,
    pub tables: Vec<TablePlan>,
    pub state: Option<StatePlan>,
    pub views: Vec<ViewPlan>,
    pub stores: Vec<StorePlan>,
    /// What may cost something later; nothing of it keeps `run` from starting.
    pub notes: Vec<String>,
    pub problems: Vec<Problem>,
}

impl PipelinePlan {
    pub(super) fn new(file: String) -> Self {
        Self {
            file,
            pipeline: None,
            result: Verdict::Ready,
            start: None,
            source: None,
            publication: None,
            slot: None,
            tables: Vec::new(),
            state: None,
            views: Vec::new(),
            stores: Vec::new(),
            notes: Vec::new(),
            problems: Vec::new(),
        }
    }

    pub(super) fn judge(&mut self) {
        self.result = match self.problems.iter().map(|problem| problem.certain).max() {
            None => Verdict::Ready,
            Some(false) => Verdict::Unknown,
            Some(true) => Verdict::Problems,
        };
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StartKind {
    /// Tables are copied and stores are filled.
    First,
    /// The same, again: an earlier first snapshot did not end.
    Over,
    /// Where the last run ended.
    Resume,
    /// An instance has the state folder in use.
    Running,
}

#[derive(Debug, Serialize)]
pub struct SourcePlan {
    pub address: String,
    pub version: String,
    pub database: String,
    pub role: String,
}

#[derive(Debug, Serialize)]
pub struct PublicationPlan {
    pub name: String,
    /// `create`, `alter` or `keep`.
    pub step: &'static str,
    pub statements: Vec<String>,
}

#[derive(Debug, Serialize)]
pub struct SlotPlan {
    pub name: String,
    /// `create`, `replace` or `keep`.
    pub step: &'static str,
    /// How pgoutput sends values: `binary` or `text`; absent where the views do not fit.
    pub format: Option<&'static str>,
    /// The column that can only be read as text.
    pub text_only: Option<String>,
    /// `reserved`, `extended`, `unreserved` or `lost`, of a slot that exists.
    pub wal_status: Option<&'static str>,
    /// WAL that the slot holds back.
    pub retained_bytes: Option<u64>,
    /// The session that streams from it.
    pub held_by: Option<String>,
    pub slots_used: i64,
    pub slots_max: i64,
    pub senders_used: i64,
    pub senders_max: i64,
    /// More WAL than this behind, and the slot is lost; absent: no limit.
    pub wal_kept_bytes_max: Option<u64>,
    /// Longer without a reader, and the slot is lost; absent: no limit.
    pub idle_seconds_max: Option<u64>,
    /// An average, where the server has counted long enough.
    pub wal_bytes_per_day: Option<u64>,
}

#[derive(Debug, Serialize)]
pub struct TablePlan {
    pub table: String,
    /// As of the last ANALYZE; absent before the first.
    pub rows: Option<u64>,
    pub bytes: u64,
    /// What is copied and kept in the local state.
    pub columns: Vec<String>,
    pub columns_all: usize,
    pub state_bytes: Option<u64>,
    pub views: Vec<String>,
}

#[derive(Debug, Serialize)]
pub struct StatePlan {
    pub folder: String,
    /// `nothing`, `unfinished`, `live` or `in_use`.
    pub holds: &'static str,
    /// Position up to which PostgreSQL may forget.
    pub durable_to: Option<String>,
    pub bytes: Option<u64>,
    /// What a first snapshot fills, without the outbox.
    pub bytes_estimated: Option<u64>,
    pub bytes_free: Option<u64>,
}

#[derive(Debug, Serialize)]
pub struct ViewPlan {
    pub view: String,
    /// `rows`, `groups` or `one`.
    pub kind: &'static str,
    /// Columns that tell its rows apart.
    pub key: Vec<String>,
    /// The fact first.
    pub tables: Vec<String>,
    /// An upper bound from the tables' statistics.
    pub rows_max: Option<u64>,
    pub targets: Vec<TargetPlan>,
}

#[derive(Debug, Serialize)]
pub struct TargetPlan {
    pub store: String,
    /// The key template, or `<database>.<table>`.
    pub target: String,
    /// `create`, `empty`, `replace` or `keep`.
    pub step: &'static str,
    /// Keys or rows that stand there and are removed by this start.
    pub removed: u64,
    /// A sample, scaled up.
    pub removed_estimated: bool,
    /// What is run in ClickHouse.
    pub statements: Vec<String>,
}

#[derive(Debug, Serialize)]
pub struct StorePlan {
    pub store: String,
    pub kind: &'static str,
    /// `Redis 7.0.15`; absent where it did not answer.
    pub server: Option<String>,
    pub facts: Vec<String>,
    /// Redis: what the views make at most, from the tables' statistics.
    pub keys_max: Option<u64>,
    pub bytes_max: Option<u64>,
}

/// Something that is in the way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// `file:line:column`, `source`, `store "redis"` or `state`.
    pub place: String,
    pub message: String,
    /// What to do; absent where only waiting helps.
    pub remedy: Option<String>,
    /// Who may run the statements.
    pub by: Option<String>,
    pub statements: Vec<String>,
    /// What must follow them.
    pub then: Option<String>,
    /// False where a server did not answer: it may be well when `run` starts.
    pub certain: bool,
}

fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

impl Problem {
    pub(super) fn new(place: impl Into<String>, message: impl Into<String>, remedy: &str) -> Self {
        Self {
            place: place.into(),
            message: message.into(),
            remedy: some(remedy),
            by: None,
            statements: Vec::new(),
            then: None,
            certain: true,
        }
    }

    pub(super) fn uncertain(self) -> Self {
        Self { certain: false, ..self }
    }

    pub(super) fn of_source(error: &SourceError) -> Self {
        let problem = Self::new("source", &error.message, &error.remedy);
        match &error.fix {
            None => problem,
            Some(fix) => Self {
                by: some(&fix.by),
                statements: fix.statements.clone(),
                then: some(fix.then),
                ..problem
            },
        }
    }

    pub(super) fn of_store(name: &str, lack: Lack) -> Self {
        let place = format!("store \"{name}\"");
        let (message, remedy) = match lack.error {
            StoreError::Stop { message, remedy, .. } => (message, remedy),
            other @ (StoreError::Retry { .. }
            | StoreError::MarkMoved { .. }
            | StoreError::StopView(_)) => (describe(&other), String::new()),
        };
        let problem = Self::new(place, message, &remedy);
        Self { by: some(lack.by), statements: lack.statements, ..problem }
    }

    pub(super) fn of_pipeline(error: &PipelineError) -> Self {
        if let PipelineError::Source(error) = error {
            return Self::of_source(error);
        }
        if let PipelineError::Refused { message, remedy } = error {
            return Self::new("state", message, remedy);
        }
        Self::new("state", describe(error), "")
    }

    pub(super) fn of_file(problems: &Problems) -> Vec<Self> {
        let file = problems.file().display().to_string();
        let place = |line: Option<u32>, column: Option<u32>| match line.zip(column) {
            Some((line, column)) => format!("{file}:{line}:{column}"),
            None => file.clone(),
        };
        let list = problems.to_json().into_iter();
        list.map(|found| {
            let remedy = found.remedy.unwrap_or_default();
            Self::new(place(found.line, found.column), found.message, remedy)
        })
        .collect()
    }
}
