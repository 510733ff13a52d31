//! Columns that are added to a table of which a view shows every column: taken in between two
//! transactions, without a rebuild, where their values in the rows from before are known.
//!
//! ```text
//!  Relation with a new column ─► rewind; once what comes before is applied ┐
//!  look that shows one ──────────────────────────────────────────────────┴─► the session ends
//!     ─► catalogs once more ─► columns behind the others, with their missing values
//!     ─► views bound anew; result rows of those that show the column, as operations at an LSN
//!        between the last commit and the next
//!     ─► one local commit: identity, fingerprint, records ─► a new session
//! ```
//!
//! Invariants:
//! - it is an order (`orders.rs`): the catalogs are no function of the log, so what was decided is
//!   durable before any store sees it, and a crash before that leaves nothing;
//! - stored rows are not touched: a row that is shorter than its table has the missing values;
//! - what cannot be known (a rewritten table, a partitioned one, a list of columns) stops the views.

use super::PipelineError;
use super::adopt;
use super::bound::{self, Bound};
use super::drift;
use super::patience::describe;
use super::pipeline::{Paused, Ready, Runner};
use super::records::Records;
use crate::fail_point;
use crate::source::catalog;
use crate::source::fingerprint::{ColumnPrint, Fingerprint, Question, TablePrint, Taken};
use crate::source::{SourceError, connect};
use crate::state::{COMMIT_BYTES, Identity, LocalStore, Progress};
use walview_core::catalog::{Added, Catalog, Column};
use walview_core::engine::{Engine, TableLayout, TargetKind};
use walview_core::plan::ViewKind;
use walview_core::position::Lsn;
use walview_core::value::Value;

/// A column that a table has and its views do not know.
#[derive(Debug)]
pub struct Grown {
    /// OID.
    pub table: u32,
    pub column: String,
    /// What is emitted because of it must stand below.
    pub below: Lsn,
}

/// What the source says by now.
struct Looked {
    catalog: Catalog,
    print: Fingerprint,
    lsn: Lsn,
}

/// A column can be taken in.
struct Widened {
    identity: Identity,
    print: Fingerprint,
    /// Views to emit whole.
    views: Vec<usize>,
}

impl Runner {
    /// Takes the column in, or stops the views that show every column of its table.
    pub(super) async fn follow(&self, paused: Paused) -> Result<Ready, PipelineError> {
        let Paused { mut identity, mut local, grown } = paused;
        local.discard()?;
        let mut progress = local.progress()?;
        let bound = self.bind(&identity.catalog)?;
        let now = self.look_again(&bound).await?;
        let lsn = progress.free_lsn();
        let accepted = local.fingerprint()?;
        let widened = match Lsn(lsn) < grown.below {
            true => self.widened((&identity, &accepted, &progress), &bound, &grown, now, Lsn(lsn)),
            false => None,
        };
        if let Some(Widened { identity: wider, print, views }) = widened {
            let mut bound = self.bind(&wider.catalog)?;
            adopt::recall(&self.pipeline, &mut bound, &wider.adopted)?;
            let mut engine = self.engine(bound, wider.epoch);
            engine.restore(&local, progress.stopped.clone())?;
            let (table, column) = (grown.table, grown.column);
            let emitting = tokio::task::spawn_blocking(move || {
                let shape = (&wider, &print);
                emit(&mut engine, &mut local, &mut progress, (&views, lsn), shape)?;
                Ok::<_, PipelineError>((local, progress, wider))
            });
            (local, progress, identity) = emitting.await.map_err(PipelineError::task)??;
            let table = identity.catalog.by_oid(table).map_or("", |table| table.name.as_str());
            tracing::info!(table, column, "an added column was taken in");
        } else if let Some(index) = bound.layout.table_by_oid(grown.table) {
            let stars = bound::stars(&self.pipeline);
            let name = bound.layout.tables.get(index).map(TableLayout::qualified);
            let why = drift::has_new_column(&name.unwrap_or_default(), &grown.column);
            for view in drift::showing_all(&bound.layout, &stars, index) {
                let name = bound.layout.views.get(view).map_or("", |view| view.name.as_str());
                if let Some(stopped) = progress.stopped.get_mut(view)
                    && stopped.is_none()
                {
                    tracing::error!(view = name, why, "view stopped");
                    *stopped = Some(why.clone());
                }
            }
            local.commit(std::iter::empty(), &progress)?;
        }
        self.resume(local, identity, progress)
    }

    /// The catalogs and a fingerprint that agree, once the source answers.
    async fn look_again(&self, bound: &Bound) -> Result<Looked, PipelineError> {
        let mut attempt = 0;
        loop {
            let error = match self.try_look(bound).await {
                Ok(Some(looked)) => return Ok(looked),
                Ok(None) => None,
                Err(error) if error.is_retry() => Some(error),
                Err(error) => return Err(error.into()),
            };
            if let Some(error) = error {
                self.board.source(Some(&describe(&error)));
            }
            self.back_off(attempt).await?;
            attempt += 1;
        }
    }

    /// `None` where something was altered meanwhile.
    async fn try_look(&self, bound: &Bound) -> Result<Option<Looked>, SourceError> {
        let session = connect(&self.source).await?;
        let asked = bound::asked(&bound.layout);
        let names: Vec<_> =
            asked.iter().map(|(schema, name, _)| (schema.clone(), name.clone())).collect();
        let (question, slot) = (Question::prepare(&session).await?, self.pipeline.slot_name());
        let Taken { print, lsn } = question.ask(&session, &asked, &slot).await?;
        let catalog = catalog::survey(&session, &names).await?.catalog;
        let again = question.ask(&session, &asked, &slot).await?.print;
        session.close().await;
        Ok((print == again).then_some(Looked { catalog, print, lsn }))
    }

    /// What the state becomes with the column; `None` where it cannot be taken in.
    fn widened(
        &self,
        (identity, accepted, progress): (&Identity, &Fingerprint, &Progress),
        bound: &Bound,
        grown: &Grown,
        now: Looked,
        at: Lsn,
    ) -> Option<Widened> {
        let of = |print: &Fingerprint| {
            let place = print.tables.iter().position(|table| table.oid == Some(grown.table));
            place.and_then(|place| Some((place, print.tables.get(place)?.clone())))
        };
        let (place, before) = of(accepted)?;
        let (_, table) = of(&now.print)?;
        let added = added(&before, &table)?;
        added.iter().find(|column| column.name == grown.column)?;
        let mut identity = identity.clone();
        let mut print = accepted.clone();
        let generation = identity.catalog.generation() + 1;
        let found = now.catalog.by_oid(grown.table)?;
        let columns =
            &mut identity.catalog.tables.iter_mut().find(|t| t.oid == grown.table)?.columns;
        let mut shows = false;
        for column in &added {
            let known = found.columns.iter().find(|known| known.attnum == column.attnum)?;
            let missing = match column.missing.as_deref() {
                None => None,
                Some([one]) => Some(one.clone()),
                Some(_) => return None,
            };
            if let Some(text) = &missing {
                Value::from_server(&known.ty, text).ok()?;
            }
            shows |= missing.is_some();
            let (known_at, taken_in_at) = (now.lsn, at);
            let added = Some(Added { generation, missing, known_at, taken_in_at });
            columns.push(Column { added, ..known.clone() });
        }
        print.tables.get_mut(place)?.columns.extend(added);
        let mut wider = self.bind(&identity.catalog).ok()?;
        adopt::recall(&self.pipeline, &mut wider, &identity.adopted).ok()?;
        if !wider.layout.widens(&bound.layout) {
            return None;
        }
        let index = bound.layout.table_by_oid(grown.table)?;
        let mut views = drift::showing_all(&bound.layout, &bound::stars(&self.pipeline), index);
        let rows = |view: &usize| {
            let kind = wider.layout.views.get(*view).map(|view| &view.kind);
            matches!(kind, Some(ViewKind::Rows { .. }))
        };
        if !views.iter().all(rows) {
            return None;
        }
        // Rows from before have no value there, and a new column of ClickHouse has none.
        let fills = |view: usize| {
            let mut targets = wider.targets.iter().filter(|target| target.view == view);
            targets.any(|target| match target.kind {
                TargetKind::Redis(_) => !target.kind.is_events(),
                TargetKind::ClickHouse(_) => shows,
            })
        };
        let goes_on = |view: usize| progress.stopped.get(view).is_some_and(Option::is_none);
        views.retain(|view| goes_on(*view) && fills(*view));
        Some(Widened { identity, print, views })
    }
}

/// The columns that a table has more than before, behind all others; `None` where the values in its
/// rows from before are not known, or not all of it is sent.
fn added(before: &TablePrint, now: &TablePrint) -> Option<Vec<ColumnPrint>> {
    let whole = |table: &TablePrint| {
        table.parts.is_empty()
            && table.member.as_ref().is_some_and(|m| m.columns.is_none() && !m.filtered)
    };
    // Whatever rewrites a table writes a value into every row.
    if !whole(before) || !whole(now) || before.file != now.file || before.name != now.name {
        return None;
    }
    let last = before.columns.iter().map(|column| column.attnum).max()?;
    let new = now.columns.iter().filter(|column| before.column(column.attnum).is_none());
    let new: Vec<ColumnPrint> = new.cloned().collect();
    let fit = |column: &ColumnPrint| {
        column.attnum > last
            && !column.generated
            && before.columns.iter().all(|known| known.name != column.name)
    };
    new.iter().all(fit).then_some(new)
}

/// Emits views whole at `lsn`, and makes everything durable.
fn emit(
    engine: &mut Engine,
    local: &mut LocalStore,
    progress: &mut Progress,
    (views, lsn): (&[usize], u64),
    shape: (&Identity, &Fingerprint),
) -> Result<(), PipelineError> {
    let mut records = Records::default();
    let mut take = |engine: &mut Engine, local: &mut LocalStore, progress: &mut Progress| {
        let parts = engine.take_parts();
        for part in &parts {
            if let Some(bytes) = progress.outbox_bytes.get_mut(part.store) {
                *bytes += u64::try_from(part.ops.len()).unwrap_or(u64::MAX);
            }
        }
        records.number(parts, progress);
        if records.pending_bytes() >= COMMIT_BYTES {
            local.write_ahead(records.pending())?;
            fail_point::hit(fail_point::WRITE_AHEAD_AFTER);
            records.written();
        }
        Ok::<_, PipelineError>(())
    };
    engine.begin_snapshot(Lsn(lsn + 1), progress.committed_at);
    for view in views {
        let mut after = None;
        loop {
            after = engine.snapshot_view(local, *view, after.as_deref())?;
            take(engine, local, progress)?;
            if after.is_none() {
                break;
            }
        }
    }
    let ordinals = engine.end_order(local)?;
    take(engine, local, progress)?;
    progress.ordered = Some((lsn, ordinals));
    fail_point::hit(fail_point::FOLLOW_BEFORE);
    local.commit_with(records.pending(), progress, Some(shape))?;
    fail_point::hit(fail_point::FOLLOW_AFTER);
    Ok(())
}
