//! What must be so before anything is touched. `run` and `plan` look here, so they say the same:
//! `run` stops at the first problem, `plan` names them all.
//!
//! ```text
//!  look:      server ─ tables ─ replica identities ─ slots ─ a replication session
//!  readiness: what the bound views need: grants, publication
//! ```
//!
//! Reads only; the replication session asks who answers and ends.

use super::bound::{self, Bound};
use crate::config::Pipeline;
use crate::source::capacity::{self, Capacity};
use crate::source::catalog::{self, TableName};
use crate::source::config::SourceConfig;
use crate::source::fingerprint::{Asked, Fingerprint, Question};
use crate::source::publication::{self, Looked};
use crate::source::{Kind, Session, SourceError, connect, privileges, server, slot};
use walview_core::catalog::Catalog;

/// What was found at the source.
pub struct Found {
    pub info: server::Info,
    pub slot: Option<slot::SlotInfo>,
    pub capacity: Capacity,
    /// The tables that can be followed.
    pub catalog: Catalog,
    /// The others: views that use them cannot be bound.
    pub unusable: Vec<TableName>,
    /// Everything that is in the way. Those of [`Kind::Table`] are in the way of a snapshot only: a
    /// stream goes on with the views that can.
    pub problems: Vec<SourceError>,
    /// What the catalogs said before `catalog` was read.
    pub print: Fingerprint,
}

/// Looks at the source.
///
/// # Errors
/// The server cannot be asked.
pub async fn look(pipeline: &Pipeline, source: &SourceConfig) -> Result<Found, SourceError> {
    let session = connect(source).await?;
    let info = server::info(&session).await?;
    let mut problems = info.problems(source);
    let tables = bound::table_names(pipeline, &source.schema);
    let slot_name = pipeline.slot_name();
    let asked: Vec<Asked> = asked(&tables);
    let question = Question::prepare(&session).await?;
    let print = question.ask(&session, &asked, &slot_name).await?.print;
    let survey = catalog::survey(&session, &tables).await?;
    let keyless = publication::keyless(&session, &tables).await?;
    let mut unusable = Vec::new();
    for (table, problem) in survey.refused.into_iter().chain(keyless) {
        // A table that is refused already need not be refused again.
        if !unusable.contains(&table) {
            unusable.push(table);
            problems.push(problem.kind(Kind::Table));
        }
    }
    let slot = slot::info(&session, &slot_name).await?;
    let capacity = capacity::load(&session).await?;
    if slot.is_none() {
        problems.extend(capacity.no_slot(source));
    }
    // A stream of ours that runs shows that it can.
    let streams = slot.as_ref().and_then(|slot| slot.holder.as_ref()).is_some_and(|holder| {
        holder.application.as_deref() == Some(source.application_name().as_str())
    });
    if !streams {
        problems.extend(slot::try_session(source, &session).await.err());
    }
    session.close().await;
    let catalog = survey.catalog;
    Ok(Found { info, slot, capacity, catalog, unusable, problems, print })
}

/// Tables to take a fingerprint of, whatever their names lead to.
#[must_use]
pub fn asked(tables: &[TableName]) -> Vec<Asked> {
    tables.iter().map(|(schema, name)| (schema.clone(), name.clone(), None)).collect()
}

/// What the bound views need at the source.
pub struct Readiness {
    pub publication: Looked,
    /// Everything that is missing, the publication's part of it included.
    pub problems: Vec<SourceError>,
}

/// Looks at grants and publication. `copies`: tables will be read, not only followed.
///
/// # Errors
/// The server cannot be asked.
pub async fn readiness(
    pipeline: &Pipeline,
    session: &Session,
    bound: &Bound,
    copies: bool,
) -> Result<Readiness, SourceError> {
    let tables = bound::published(&bound.layout);
    let mut problems = Vec::new();
    if copies {
        problems.extend(privileges::missing(session, &tables).await?);
    }
    let name = pipeline.slot_name();
    let mut publication =
        publication::look(session, &name, pipeline.name.as_str(), &tables).await?;
    problems.append(&mut publication.problems);
    Ok(Readiness { publication, problems })
}

/// # Errors
/// The first of `problems`, which says where the others are named.
pub fn none_of(problems: Vec<SourceError>) -> Result<(), SourceError> {
    let others = problems.len().saturating_sub(1);
    let Some(mut first) = problems.into_iter().next() else {
        return Ok(());
    };
    if others > 0 {
        let what = if others == 1 { "one more problem" } else { "more problems" };
        let parting = if first.remedy.is_empty() { "" } else { "; " };
        first.remedy.push_str(&format!("{parting}{what}: walview plan names all of them"));
    }
    Err(first)
}
