//! Rows that cannot be evaluated: PostgreSQL fails on a statement over them, and the stores lack
//! them. They are left out of the comparison, and looked at one by one: PostgreSQL must fail on each,
//! or Walview left out what belongs in the view.

use super::Verifier;
use crate::letters::{self, Action, Info, Request};
use crate::service::PipelineError;
use crate::service::board::Status;
use crate::source::{Session, SourceError, connect, server};
use walview_core::position::Lsn;
use walview_core::value::Row;

/// Rows that one statement can leave out.
const LEFT_OUT_MAX: usize = 10_000;
/// Rows of a view that are looked at one by one.
const LOOKED_AT_MAX: usize = 100;
/// How often a statement that fails on a row that is not parked yet is run again.
pub(super) const ATTEMPTS_MAX: usize = 4;

impl Verifier<'_> {
    /// Rows of a view that cannot be evaluated, as of the last local commit.
    pub(super) async fn parked(&self, view: &str) -> Result<Vec<Info>, PipelineError> {
        let request = Request {
            view: Some(view.to_owned()),
            dropped: true,
            limit: LEFT_OUT_MAX + 1,
            ..letters::request(self.pipeline.name.as_str(), Action::List)
        };
        let reply = letters::ask(self.state, &request)
            .await
            .map_err(|why| PipelineError::refused(why, "verify needs a pipeline that runs"))?;
        // The instance names no more than this; what is not named cannot be left out.
        let all: u64 = reply.counts.iter().map(|count| count.letters).sum();
        let parked: Vec<Info> =
            reply.letters.iter().filter(|letter| letter.store.is_none()).cloned().collect();
        let unevaluated = reply.counts.iter().filter(|count| count.store.is_none());
        if unevaluated.map(|count| count.letters).sum::<u64>() > parked.len() as u64 {
            return Err(PipelineError::refused(
                format!("view \"{view}\" has {all} dead letters, more than verify can leave out"),
                "correct the rows at the source first; see: walview dead-letters list",
            ));
        }
        Ok(parked)
    }

    /// The view's SQL without these rows.
    pub(super) fn sql_without(&self, view: usize, parked: &[Info]) -> Option<String> {
        let spec = self.pipeline.views.get(view)?;
        if parked.is_empty() {
            return Some(spec.sql.text.clone());
        }
        spec.parsed.leaving_out(&spec.sql.text, &condition(&spec.parsed.fact_name(), parked)?)
    }

    /// Of the view's rows that are left out, those that PostgreSQL can evaluate and shows: each is a
    /// difference.
    pub(super) async fn wrongly_parked(&self, view: usize) -> Result<Vec<String>, PipelineError> {
        let (Some(bound), Some(spec)) = (self.bound.views.get(view), self.pipeline.views.get(view))
        else {
            return Ok(Vec::new());
        };
        let parked = self.parked(&bound.name).await?;
        if parked.is_empty() {
            return Ok(Vec::new());
        }
        let session = connect(&self.source).await?;
        let fact = spec.parsed.fact_name();
        let over = |guard: &str| spec.parsed.only(&spec.sql.text, guard).unwrap_or_default();
        let nothing = self.rows(&session, view, &over("FALSE")).await?;
        let mut shown = Vec::new();
        for letter in parked.iter().take(LOOKED_AT_MAX) {
            let Some(guard) = condition(&fact, std::slice::from_ref(letter)) else { continue };
            match self.rows(&session, view, &over(&guard)).await {
                Ok(rows) if rows != nothing => shown.push(letter),
                Err(error) if !error.is_data_exception() => return Err(error.into()),
                Ok(_) | Err(_) => {}
            }
        }
        let (lsn, _) = server::clock(&session).await?;
        session.close().await;
        if shown.is_empty() {
            return Ok(Vec::new());
        }
        // A row that was corrected meanwhile has no letter any more, or one of a later change.
        self.durable(lsn).await?;
        let still = self.parked(&bound.name).await?;
        let same = |letter: &&&Info| {
            still.iter().any(|now| now.id == letter.id && now.position == letter.position)
        };
        Ok(shown
            .iter()
            .filter(same)
            .map(|letter| format!("parked {}, which PostgreSQL can evaluate", key(letter)))
            .collect())
    }

    async fn rows(
        &self,
        session: &Session,
        view: usize,
        sql: &str,
    ) -> Result<Vec<Row>, SourceError> {
        let bound = self.bound.views.get(view);
        let columns = bound.map_or(&[][..], |view| &view.columns[..]);
        let types = columns.iter().map(|column| column.ty.clone()).collect();
        let what = format!("run view \"{}\" over one row", bound.map_or("", |view| &view.name));
        let mut rows = Vec::new();
        crate::source::snapshot::query_rows(session, &what, sql, types, |row| rows.push(row))
            .await?;
        Ok(rows)
    }

    /// Waits until everything before `lsn` is durable here, and in every view: letters are read from
    /// there.
    pub(super) async fn durable(&self, lsn: Lsn) -> Result<(), PipelineError> {
        let reached = |status: &Status| {
            status.source.lsn.parse::<Lsn>().is_ok_and(|at| at >= lsn)
                && status.views.iter().all(|view| view.correcting.is_none())
        };
        self.until(&format!("the pipeline did not reach {lsn}"), reached).await
    }
}

/// `id=5`, for people.
fn key(letter: &Info) -> String {
    let parts = letter
        .key
        .iter()
        .map(|part| format!("{}={}", part.column, part.value.as_deref().unwrap_or("NULL")));
    parts.collect::<Vec<_>>().join(" ")
}

/// What holds for these rows of the fact and no other. The literals have no type of their own, so
/// that they are read as the columns' values.
fn condition(fact: &str, letters: &[Info]) -> Option<String> {
    let names = letters.first()?.key.iter().map(|part| format!("{fact}.{}", quoted(&part.column)));
    let names = names.collect::<Vec<_>>().join(", ");
    let rows = letters.iter().map(|letter| {
        let values = letter.key.iter().map(|part| {
            let value = part.value.as_deref()?;
            Some(format!("'{}'", value.replace('\'', "''")))
        });
        Some(format!("({})", values.collect::<Option<Vec<_>>>()?.join(", ")))
    });
    let rows = rows.collect::<Option<Vec<_>>>()?.join(", ");
    Some(format!("({names}) IN ({rows})"))
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
