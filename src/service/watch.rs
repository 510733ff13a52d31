//! Looks at the source's catalogs while a session streams.
//!
//! ```text
//!  every LOOK_EVERY, and when a Relation message came:
//!    fingerprint ─► engine loop (judges it where the stream has come to it)
//!             └──► our own publication no longer covers what is used? it is altered at once
//! ```
//!
//! An ALTER of a replica identity can make the application's own writes fail, because PostgreSQL
//! checks it against the column lists of publications. Nothing here can prevent that moment; it ends
//! with the next look where the publication is ours, and is named in the status where it is not.

use super::board::Board;
use super::engine_loop::Input;
use super::patience::describe;
use super::schema::Look;
use crate::source::fingerprint::{Asked, Fingerprint, Question, TablePrint, Taken};
use crate::source::publication::{self, PublishedTable, Step};
use crate::source::{Session, SourceConfig, SourceError, connect};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, mpsc, oneshot};

/// How often the catalogs are looked at: one statement of some milliseconds.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// How long an ALTER of ours waits until it is known to be ours.
const INTEND_MAX: Duration = Duration::from_secs(5);
/// A look may take this part of the time, where there are ten thousands of partitions.
const LOOK_SHARE: u32 = 50;

pub(super) struct Watch {
    pub(super) source: SourceConfig,
    pub(super) pipeline: String,
    /// Of the slot and of the publication.
    pub(super) slot: String,
    pub(super) asked: Vec<Asked>,
    pub(super) published: Vec<PublishedTable>,
    /// By table, whether a view shows every column of it, new ones too.
    pub(super) whole: Vec<bool>,
    pub(super) board: Arc<Board>,
    pub(super) changed: Arc<Notify>,
    pub(super) inputs: mpsc::Sender<Input>,
}

/// The engine takes no more inputs.
struct Ended;

impl Watch {
    /// Looks until the engine ends.
    pub(super) async fn run(self) {
        loop {
            // The stream reports a source that does not answer; this only waits for it.
            if let Ok(session) = connect(&self.source).await {
                match self.looks(&session).await {
                    Ok(Ended) => return,
                    Err(error) if error.is_retry() => {}
                    // Not looking is not being safe.
                    Err(error) => self.board.source_problems(vec![describe(&error)]),
                }
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    async fn looks(&self, session: &Session) -> Result<Ended, SourceError> {
        let question = Question::prepare(session).await?;
        let mut last: Option<Fingerprint> = None;
        let mut troubled = false;
        loop {
            let since = Instant::now();
            // Once more after an ALTER of our own, to see it.
            for _ in 0..2 {
                let Taken { print, lsn } = question.ask(session, &self.asked, &self.slot).await?;
                if last.as_ref() == Some(&print) && !troubled {
                    break;
                }
                last = Some(print.clone());
                let look = Look { print: print.clone(), lsn };
                if self.inputs.send(Input::Look(Box::new(look))).await.is_err() {
                    return Ok(Ended);
                }
                let altered;
                (altered, troubled) = self.cover(session, &question, &print).await?;
                if !altered {
                    break;
                }
            }
            let rest = LOOK_EVERY.max(since.elapsed() * LOOK_SHARE);
            tokio::select! {
                () = tokio::time::sleep(rest) => {}
                () = self.changed.notified() => {}
            }
        }
    }

    /// Alters our own publication where it does not cover what is used; says what is in the way.
    /// Returns whether it did, and whether something is in the way.
    async fn cover(
        &self,
        session: &Session,
        question: &Question,
        print: &Fingerprint,
    ) -> Result<(bool, bool), SourceError> {
        // Tables and columns that are gone have stopped their views.
        let tables: Vec<PublishedTable> = self
            .published
            .iter()
            .zip(&self.asked)
            .zip(&self.whole)
            .filter_map(|((table, (schema, name, oid)), whole)| {
                let named = |t: &&TablePrint| (&t.schema, &t.name) == (schema, name);
                let now = print.tables.iter().find(named).filter(|now| now.oid == *oid)?;
                let there = |name: &&String| now.columns.iter().any(|c| c.name == **name);
                let columns = table.columns.iter().filter(there).cloned().collect();
                // One that was taken out by hand stays out: its views have stopped.
                now.member.as_ref()?;
                Some(PublishedTable { columns, whole: *whole, ..table.clone() })
            })
            .collect();
        let looked = publication::look_at_own(session, &self.slot, &self.pipeline, &tables).await?;
        let mut problems: Vec<String> =
            looked.problems.iter().map(SourceError::to_string).collect();
        if matches!(looked.step, Step::Alter(_)) && !looked.may_alter {
            // What was sent in between cannot be known, so that ALTER PUBLICATION has its price.
            problems.push(
                "undoing the ALTER TABLE mends it, too; after an ALTER PUBLICATION by hand the views \
                 of its tables stop until walview rebuild, because changes may be missing"
                    .to_owned(),
            );
        }
        let mut altered = false;
        if let (Step::Alter(statements), true) = (&looked.step, looked.may_alter) {
            let intend = async |own| {
                let (durable, known) = oneshot::channel();
                let told = async {
                    let intent = Input::Intend(own, durable);
                    self.inputs.send(intent).await.is_ok() && known.await.is_ok()
                };
                // A loop that waits for room must not keep a transaction open at the source.
                tokio::time::timeout(INTEND_MAX, told).await.unwrap_or(false)
            };
            let looks = (question, self.asked.as_slice());
            match publication::alter(session, &self.slot, statements, looks, intend).await {
                Ok(false) => {}
                Ok(true) => {
                    altered = true;
                    tracing::info!(publication = self.slot, "the publication follows its tables");
                }
                Err(error) => problems.push(describe(&error)),
            }
        }
        let troubled = !problems.is_empty();
        self.board.source_problems(problems);
        Ok((altered, troubled))
    }
}
