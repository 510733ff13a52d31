//! `walview verify`: the same SQL on PostgreSQL, held against what the stores hold.
//!
//! ```text
//!  PostgreSQL ─ the view's SQL at a snapshot ─► expected ─┐
//!                                                         ├─► differing keys ─► next round
//!  store ───── SCAN / SELECT ───────────────► held ───────┘
//! ```
//!
//! The oracle is PostgreSQL itself; of the engine only the formats of values are shared. Nothing is
//! locked or paused, so a key that changes between the two readings differs in that round. It is
//! looked at again in the next; rows that cannot be evaluated are left out (`parked`). A key counts as different only if both sides stood still over two
//! rounds and still differ; what keeps changing is "could not tell".

mod parked;
mod sides;

use crate::cli::{Exit, VerifyArgs};
use crate::config::{Connections, Environment, Pipeline};
use crate::output::Output;
use crate::service::PipelineError;
use crate::service::adopt;
use crate::service::board::Status;
use crate::service::bound::{self, Bound};
use crate::service::patience::describe;
use crate::source::{Session, SourceConfig, catalog, connect, server};
use crate::status;
use crate::stores::{Identity as StoreIdentity, clickhouse, redis};
use serde::Serialize;
use sides::{Difference, Differences};
use std::path::Path;
use std::time::{Duration, Instant};
use walview_core::engine::{Target, TargetKind};
use walview_core::position::Lsn;

/// Rounds over the views that differ.
const ROUNDS_MAX: usize = 6;
/// Between rounds: long enough for a slow flush to arrive.
const ROUND_PAUSE: Duration = Duration::from_millis(1500);
/// How long the stores may take to reach a snapshot's position.
const CATCH_UP_MAX: Duration = Duration::from_secs(60);
const CATCH_UP_POLL: Duration = Duration::from_millis(50);
/// Differing keys that are named for each target.
const KEYS_NAMED_MAX: usize = 20;

/// `--json`; fields are stable.
#[derive(Debug, Serialize)]
pub struct Report {
    pub pipeline: String,
    /// `equal`, `different` or `unknown`.
    pub result: &'static str,
    pub rows_compared: u64,
    pub differences: u64,
    pub targets: Vec<TargetReport>,
    /// What was left out, and why.
    pub not_compared: Vec<String>,
}

#[derive(Debug, Serialize)]
pub struct TargetReport {
    pub view: String,
    pub store: String,
    /// The key template or table.
    pub target: String,
    pub rows: u64,
    pub differences: u64,
    /// Keys that kept changing while they were looked at.
    pub unsettled: u64,
    /// Some of the differing keys, each with what is wrong: `missing`, `extra` or `value`.
    pub keys: Vec<String>,
    pub parked: u64,
}

/// The command.
pub async fn run(args: &VerifyArgs, environment: &Environment, output: Output) -> Exit {
    let pipeline = match Pipeline::load(&args.file) {
        Ok(pipeline) => pipeline,
        Err(problems) => {
            output.problems(&[problems]);
            return Exit::CouldNotTell;
        }
    };
    match verify(&pipeline, environment, &args.state.state).await {
        Ok(report) => {
            output.result(render(&report), &report);
            match report.result {
                "equal" => Exit::Ok,
                "different" => Exit::Failed,
                _ => Exit::CouldNotTell,
            }
        }
        Err(PipelineError::Problems(problems)) => {
            output.problems(&[problems]);
            Exit::CouldNotTell
        }
        Err(error) => {
            output.fault(&format!("cannot verify: {}", describe(&error)));
            Exit::CouldNotTell
        }
    }
}

fn render(report: &Report) -> String {
    let mut lines = Vec::new();
    for target in &report.targets {
        let mut line = format!(
            "{:<24} {:<36} {:>10} rows  {} differences",
            target.view, target.target, target.rows, target.differences
        );
        if target.unsettled > 0 {
            line.push_str(&format!(", {} kept changing", target.unsettled));
        }
        if target.parked > 0 {
            line.push_str(&format!(", {} rows that the store cannot hold left out", target.parked));
        }
        lines.push(line);
        lines.extend(target.keys.iter().map(|key| format!("    {key}")));
    }
    lines.extend(report.not_compared.iter().map(|text| format!("not compared: {text}")));
    lines.push(format!(
        "{}: {}, {} rows compared, {} differences",
        report.pipeline, report.result, report.rows_compared, report.differences
    ));
    if report.result == "unknown" {
        lines.push(
            "run it again, or when there is less load: some keys changed all the time".to_owned(),
        );
    }
    lines.join("\n")
}

/// Everything that a round needs.
struct Verifier<'a> {
    pipeline: &'a Pipeline,
    connections: Connections,
    source: SourceConfig,
    bound: Bound,
    state: &'a Path,
}

async fn verify(
    pipeline: &Pipeline,
    environment: &Environment,
    state: &Path,
) -> Result<Report, PipelineError> {
    let connections = pipeline.connect(environment).map_err(PipelineError::Problems)?;
    let source = connections.source.clone();
    let session = connect(&source).await?;
    let tables = bound::table_names(pipeline, &source.schema);
    let catalog = catalog::load(&session, &tables).await?;
    session.close().await;
    let mut bound =
        bound::bind(pipeline, &source.schema, &catalog).map_err(PipelineError::Problems)?;
    adopt::look(pipeline, &connections, &mut bound).await?;
    Verifier { pipeline, connections, source, bound, state }.run().await
}

/// One target over the rounds.
struct Progress<'a> {
    target: &'a Target,
    rows: u64,
    parked: u64,
    /// Keys that differed in the last round.
    open: Option<Differences>,
    /// Keys that differed with both sides standing still.
    settled: Vec<Difference>,
    /// Rows left out that PostgreSQL can evaluate.
    wrongly_parked: Vec<String>,
}

impl Verifier<'_> {
    async fn run(&self) -> Result<Report, PipelineError> {
        let mut not_compared = Vec::new();
        let mut targets: Vec<Progress<'_>> = Vec::new();
        for target in &self.bound.targets {
            if target.kind.is_events() {
                not_compared.push(format!(
                    "{} → {}: a stream holds events, which PostgreSQL does not keep",
                    self.view_name(target),
                    label(&target.kind)
                ));
            } else {
                targets.push(Progress {
                    target,
                    rows: 0,
                    parked: 0,
                    open: None,
                    settled: Vec::new(),
                    wrongly_parked: Vec::new(),
                });
            }
        }
        for round in 0..ROUNDS_MAX {
            if round > 0 {
                tokio::time::sleep(ROUND_PAUSE).await;
            }
            for progress in &mut targets {
                let open = progress.open.as_ref().is_none_or(|open| !open.is_empty());
                if open {
                    self.round(progress).await?;
                }
            }
            if targets.iter().all(|p| p.open.as_ref().is_some_and(Differences::is_empty)) {
                break;
            }
        }
        for view in 0..self.bound.views.len() {
            let Some(progress) = targets.iter_mut().find(|p| p.target.view == view) else {
                continue;
            };
            progress.wrongly_parked = self.wrongly_parked(view).await?;
            let name = self.view_name(progress.target);
            let parked = self.parked(&name).await?;
            let dropped = parked.iter().filter(|letter| letter.dropped).count();
            if !parked.is_empty() {
                not_compared.push(format!(
                    "{name}: {} rows that cannot be evaluated, {dropped} of them dropped; see: \
                     walview dead-letters list",
                    parked.len()
                ));
            }
        }
        Ok(self.report(targets, not_compared))
    }

    /// Compares one target at one snapshot.
    async fn round(&self, progress: &mut Progress<'_>) -> Result<(), PipelineError> {
        let target = progress.target;
        let mut attempt = 1;
        let (session, expected) = loop {
            let session = connect(&self.source).await?;
            match self.expected(&session, target).await {
                // A row that was changed just now: it is parked in a moment.
                Err(PipelineError::Source(error)) if error.is_data_exception() => {
                    if attempt == parked::ATTEMPTS_MAX {
                        return Err(self.not_parked(target));
                    }
                    attempt += 1;
                    let session = connect(&self.source).await?;
                    let (lsn, _) = server::clock(&session).await?;
                    session.close().await;
                    self.durable(lsn).await?;
                }
                expected => break (session, expected?),
            }
        };
        // Read after the snapshot: everything that it saw lies before.
        let (lsn, _) = server::clock(&session).await?;
        session.close().await;
        self.caught_up(target.store, lsn).await?;
        let held = self.held(target).await?;
        progress.rows = expected.rows;
        progress.parked = expected.parked;
        let found = sides::compare(&target.kind, expected, held);
        progress.open = Some(match progress.open.take() {
            None => found,
            Some(before) => {
                let (settled, rest) = found.split_settled(&before);
                progress.settled.extend(settled);
                rest
            }
        });
        Ok(())
    }

    async fn expected(
        &self,
        session: &Session,
        target: &Target,
    ) -> Result<sides::Expected, PipelineError> {
        let (Some(view), Some(spec)) =
            (self.bound.views.get(target.view), self.pipeline.views.get(target.view))
        else {
            return Ok(sides::Expected::default());
        };
        let parked = self.parked(&view.name).await?;
        let sql = self.sql_without(target.view, &parked);
        let sql = sql.as_deref().unwrap_or(&spec.sql.text);
        let types = view.columns.iter().map(|column| column.ty.clone()).collect();
        let mut expected = sides::Expected::default();
        let what = format!("run view \"{}\" on PostgreSQL", view.name);
        crate::source::snapshot::query_rows(session, &what, sql, types, |row| {
            expected.add(&target.kind, view, &row);
        })
        .await?;
        Ok(expected)
    }

    async fn held(&self, target: &Target) -> Result<sides::Held, PipelineError> {
        let mut held = sides::Held::default();
        let Some(connection) = self.connections.stores.get(target.store) else {
            return Ok(held);
        };
        let name = connection.name.to_string();
        let url = connection.url_with_password();
        let read = match &target.kind {
            TargetKind::Redis(redis) => {
                redis::read_all(&url, redis, |action| held.redis(action)).await
            }
            TargetKind::ClickHouse(table) => {
                let config = clickhouse::Config {
                    url,
                    database: connection.database.clone().unwrap_or_default(),
                    identity: StoreIdentity {
                        pipeline: self.pipeline.name.to_string(),
                        system: 0,
                        slot: self.pipeline.slot_name(),
                    },
                };
                let Some(view) = self.bound.views.get(target.view) else {
                    return Ok(held);
                };
                clickhouse::read_all(&config, table, |row| held.clickhouse(table, view, row)).await
            }
        };
        read.map_err(|error| PipelineError::Store { name, error })?;
        Ok(held)
    }

    /// Waits until the running instance says that the store holds everything before `lsn`.
    async fn caught_up(&self, store: usize, lsn: Lsn) -> Result<(), PipelineError> {
        let reached = |status: &Status| {
            let at = status.stores.get(store).and_then(|store| store.lsn.parse::<Lsn>().ok());
            at.is_some_and(|at| at >= lsn)
        };
        let name = self.pipeline.stores.get(store).map_or("", |store| store.name.as_str());
        self.until(&format!("store \"{name}\" did not reach {lsn}"), reached).await
    }

    /// Waits until the running instance's status is as wanted. While a view is being corrected in
    /// steps it is not waited for in vain.
    async fn until(
        &self,
        otherwise: &str,
        wanted: impl Fn(&Status) -> bool,
    ) -> Result<(), PipelineError> {
        let (mut since, mut passed) = (Instant::now(), None);
        loop {
            let status = status::ask(self.state, self.pipeline.name.as_str())
                .await
                .map_err(|why| PipelineError::refused(why, "verify needs a pipeline that runs"))?;
            if wanted(&status) {
                return Ok(());
            }
            let now: Option<u64> = status.views.iter().map(|view| view.correcting).sum();
            if now != std::mem::replace(&mut passed, now) {
                since = Instant::now();
            }
            if since.elapsed() >= CATCH_UP_MAX {
                return Err(PipelineError::refused(
                    format!("{otherwise} within {CATCH_UP_MAX:?}"),
                    "look at: walview status",
                ));
            }
            tokio::time::sleep(CATCH_UP_POLL).await;
        }
    }

    /// PostgreSQL's own message may quote the value, so it is left out.
    fn not_parked(&self, target: &Target) -> PipelineError {
        PipelineError::refused(
            format!(
                "PostgreSQL fails on a row of view \"{}\" that cannot be left out: no dead letter \
                 names it, or it fails in a condition of ON",
                self.view_name(target)
            ),
            "run the view's SQL in psql to see the error; see: walview dead-letters list",
        )
    }

    fn view_name(&self, target: &Target) -> String {
        self.bound.views.get(target.view).map_or_else(String::new, |view| view.name.clone())
    }

    fn report(&self, targets: Vec<Progress<'_>>, not_compared: Vec<String>) -> Report {
        let targets: Vec<TargetReport> = targets
            .into_iter()
            .map(|progress| TargetReport {
                view: self.view_name(progress.target),
                store: self
                    .pipeline
                    .stores
                    .get(progress.target.store)
                    .map_or_else(String::new, |store| store.name.to_string()),
                target: label(&progress.target.kind),
                rows: progress.rows,
                differences: (progress.settled.len() + progress.wrongly_parked.len()) as u64,
                unsettled: progress.open.as_ref().map_or(0, |open| open.len() as u64),
                keys: progress
                    .settled
                    .iter()
                    .map(ToString::to_string)
                    .chain(progress.wrongly_parked)
                    .take(KEYS_NAMED_MAX)
                    .collect(),
                parked: progress.parked,
            })
            .collect();
        let differences = targets.iter().map(|target| target.differences).sum();
        let unsettled: u64 = targets.iter().map(|target| target.unsettled).sum();
        Report {
            pipeline: self.pipeline.name.to_string(),
            result: match (differences, unsettled) {
                (0, 0) => "equal",
                (0, _) => "unknown",
                _ => "different",
            },
            rows_compared: targets.iter().map(|target| target.rows).sum(),
            differences,
            targets,
            not_compared,
        }
    }
}

/// The key template or table, for people.
fn label(kind: &TargetKind) -> String {
    match kind {
        TargetKind::Redis(target) => target.template().to_string(),
        TargetKind::ClickHouse(target) => target.table().to_owned(),
    }
}
