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
//! - what cannot be known (a rewritten table, partitions that differ, a list of columns) stops the views.

use super::PipelineError;
use super::adopt;
use super::bound::{self, Bound};
use super::drift;
use super::ingest::stop_view;
use super::patience::describe;
use super::pipeline::{Paused, Ready, Runner};
use super::records::Records;
use crate::fail_point;
use crate::source::catalog;
use crate::source::fingerprint::{
    ColumnPrint, Fingerprint, PartPrint, Question, TablePrint, Taken,
};
use crate::source::partitions::{self, PartColumn};
use crate::source::{SourceError, connect};
use crate::state::{COMMIT_BYTES, Identity, LocalStore, Progress};
use walview_core::catalog::{Added, Catalog, Column};
use walview_core::engine::{Engine, Layout, TableLayout, TargetKind};
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
    /// Of the columns that the table has now and did not have before.
    parts: Vec<PartColumn>,
    lsn: Lsn,
}

/// A column can be taken in.
struct Widened {
    identity: Identity,
    bound: Bound,
    print: Fingerprint,
    /// Views to emit whole.
    views: Vec<usize>,
    /// Views that cannot show it.
    refused: Vec<usize>,
}

impl Runner {
    /// Takes the column in, or stops the views that show every column of its table.
    pub(super) async fn follow(&self, paused: Paused) -> Result<Ready, PipelineError> {
        let Paused { mut identity, mut local, grown } = paused;
        local.discard()?;
        let mut progress = local.progress()?;
        let bound = self.bind(&identity.catalog)?;
        let accepted = local.fingerprint()?;
        let now = self.look_again(&bound, &accepted, grown.table).await?;
        let lsn = progress.free_lsn();
        let widened = match Lsn(lsn) < grown.below {
            true => self.widened((&identity, &accepted, &progress), &bound, &grown, now, Lsn(lsn)),
            false => None,
        };
        let Some(Widened { identity: wider, bound, print, views, refused }) = widened else {
            let all = bound.layout.table_by_oid(grown.table).map(|table| {
                drift::showing_all(&bound.layout, &bound::stars(&self.pipeline), table)
            });
            let mut engine = self.engine(bound, identity.epoch);
            engine.restore(&local, progress.stopped)?;
            refuse(&mut engine, &grown, &all.unwrap_or_default());
            progress.stopped = engine.stopped().to_vec();
            local.commit(std::iter::empty(), &progress)?;
            return self.resume(local, identity, progress);
        };
        let mut engine = self.engine(bound, wider.epoch);
        engine.restore(&local, progress.stopped)?;
        refuse(&mut engine, &grown, &refused);
        progress.stopped = engine.stopped().to_vec();
        let emitting = tokio::task::spawn_blocking(move || {
            let shape = (&wider, &print);
            emit(&mut engine, &mut local, &mut progress, (&views, lsn), shape)?;
            Ok::<_, PipelineError>((local, progress, wider))
        });
        (local, progress, identity) = emitting.await.map_err(PipelineError::task)??;
        let table = identity.catalog.by_oid(grown.table).map_or("", |table| table.name.as_str());
        tracing::info!(table, column = grown.column, "an added column was taken in");
        self.resume(local, identity, progress)
    }

    /// The catalogs and a fingerprint that agree, once the source answers.
    async fn look_again(
        &self,
        bound: &Bound,
        accepted: &Fingerprint,
        table: u32,
    ) -> Result<Looked, PipelineError> {
        let mut attempt = 0;
        loop {
            let error = match self.try_look(bound, accepted, table).await {
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
    async fn try_look(
        &self,
        bound: &Bound,
        accepted: &Fingerprint,
        table: u32,
    ) -> Result<Option<Looked>, SourceError> {
        let session = connect(&self.source).await?;
        let asked = bound::asked(&bound.layout);
        let names: Vec<_> =
            asked.iter().map(|(schema, name, _)| (schema.clone(), name.clone())).collect();
        let (question, slot) = (Question::prepare(&session).await?, self.pipeline.slot_name());
        let Taken { print, lsn } = question.ask(&session, &asked, &slot).await?;
        let catalog = catalog::survey(&session, &names).await?.catalog;
        let tables = accepted.table(table).zip(print.table(table));
        let new = tables.into_iter().flat_map(|(before, now)| now.added_since(before));
        let names: Vec<_> = new.map(|column| column.name.as_str()).collect();
        let parts = partitions::columns(&session, table, &names).await?;
        let again = question.ask(&session, &asked, &slot).await?.print;
        session.close().await;
        Ok((print == again).then_some(Looked { catalog, print, parts, lsn }))
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
        let before = accepted.table(grown.table)?;
        let table = now.print.table(grown.table)?;
        let added = added(before, table)?;
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
            let missing = match table.parts.is_empty() {
                true => column.missing.clone(),
                false => {
                    let was_there = |oid| before.parts.iter().any(|part| part.oid == oid);
                    partitions::missing(&now.parts, &column.name, was_there).ok()?
                }
            };
            let missing = match missing.as_deref() {
                None => None,
                Some([one]) => Some(one.clone()),
                Some(_) => return None,
            };
            if let Some(text) = &missing {
                Value::from_server(&known.ty, text).ok()?;
            }
            shows |= missing.is_some();
            let (known_at, taken_in_at) = (now.lsn, at);
            let refused_by = Vec::new();
            let added = Some(Added { generation, missing, known_at, taken_in_at, refused_by });
            columns.push(Column { added, ..known.clone() });
        }
        let place = print.tables.iter_mut().find(|table| table.oid == Some(grown.table))?;
        place.columns.extend(added.into_iter().cloned());
        let index = bound.layout.table_by_oid(grown.table)?;
        let all = drift::showing_all(&bound.layout, &bound::stars(&self.pipeline), index);
        let wider = |refused: &[usize]| self.wider(&identity, &bound.layout, &all, refused);
        let mut refused = Vec::new();
        if wider(&refused).is_none() {
            let alone = |view: usize| all.iter().copied().filter(|other| *other != view).collect();
            refused.extend(all.iter().copied().filter(|view| {
                let others: Vec<usize> = alone(*view);
                wider(&others).is_none()
            }));
        }
        let (identity, wider) = wider(&refused).filter(|_| refused.len() < all.len())?;
        // Rows from before have no value there, and a new column of ClickHouse has none.
        let fills = |view: usize| {
            let mut targets = wider.targets.iter().filter(|target| target.view == view);
            targets.any(|target| match target.kind {
                TargetKind::Redis(_) => !target.kind.is_events(),
                TargetKind::ClickHouse(_) => shows,
            })
        };
        let goes_on = |view: usize| {
            progress.stopped.get(view).is_some_and(Option::is_none) && !refused.contains(&view)
        };
        let views = all.into_iter().filter(|view| goes_on(*view) && fills(*view)).collect();
        Some(Widened { identity, bound: wider, print, views, refused })
    }

    /// The pipeline with the columns that were added last, but for the views `refused` of `all` that
    /// show them; `None` where another cannot be bound to them.
    fn wider(
        &self,
        identity: &Identity,
        before: &Layout,
        all: &[usize],
        refused: &[usize],
    ) -> Option<(Identity, Bound)> {
        let mut identity = identity.clone();
        let name = |view: &usize| self.pipeline.views.get(*view).map(|view| view.name.to_string());
        let names: Vec<String> = refused.iter().filter_map(name).collect();
        let generation = identity.catalog.generation();
        let columns = identity.catalog.tables.iter_mut().flat_map(|table| &mut table.columns);
        for added in columns.filter_map(|column| column.added.as_mut()) {
            if added.generation == generation {
                added.refused_by.clone_from(&names);
            }
        }
        let mut bound = self.bind(&identity.catalog).ok()?;
        adopt::recall(&self.pipeline, &mut bound, &identity.adopted).ok()?;
        let rows = |view: &usize| {
            let kind = bound.layout.views.get(*view).map(|view| &view.kind);
            refused.contains(view) || matches!(kind, Some(ViewKind::Rows { .. }))
        };
        (bound.layout.widens(before) && all.iter().all(rows)).then_some((identity, bound))
    }
}

/// The columns that a table has more than before, behind all others; `None` where the values in its
/// rows from before cannot be known, or not all of it is sent.
fn added<'a>(before: &TablePrint, now: &'a TablePrint) -> Option<Vec<&'a ColumnPrint>> {
    let whole = |table: &TablePrint| {
        table.member.as_ref().is_some_and(|m| m.columns.is_none() && !m.filtered)
    };
    if !whole(before) || !whole(now) || before.name != now.name || !is_as_it_was(before, now) {
        return None;
    }
    let last = before.columns.iter().map(|column| column.attnum).max()?;
    let new: Vec<_> = now.added_since(before).collect();
    let fit = |column: &&ColumnPrint| {
        column.attnum > last
            && !column.generated
            && before.columns.iter().all(|known| known.name != column.name)
    };
    new.iter().all(fit).then_some(new)
}

/// Nothing was rewritten: that writes a value into every row. All its partitions are there, and the
/// new ones began empty.
fn is_as_it_was(before: &TablePrint, now: &TablePrint) -> bool {
    let file = |part: &PartPrint| (part.oid, part.version, part.file);
    let has = |table: &TablePrint, part: &PartPrint| {
        table.parts.iter().any(|other| file(other) == file(part))
    };
    before.file == now.file
        && before.parts.iter().all(|part| has(now, part))
        && now.parts.iter().all(|part| part.made || has(before, part))
}

/// Stops the views that cannot show the column.
fn refuse(engine: &mut Engine, grown: &Grown, views: &[usize]) {
    let layout = engine.shared_layout();
    let table = layout.table_by_oid(grown.table).and_then(|table| layout.tables.get(table));
    let name = table.map(TableLayout::qualified).unwrap_or_default();
    for view in views {
        stop_view(engine, *view, drift::has_new_column(&name, &grown.column));
    }
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
        records.number(engine.take_parts(), progress);
        if records.pending_bytes() >= COMMIT_BYTES {
            local.write_ahead(records.pending())?;
            fail_point::hit(fail_point::WRITE_AHEAD_AFTER);
            records.written();
        }
        Ok::<_, PipelineError>(())
    };
    let mut filling = engine.begin_snapshot(Lsn(lsn + 1), progress.committed_at, views, &[]);
    while engine.fill(local, &mut filling)? {
        take(engine, local, progress)?;
    }
    let ordinals = engine.end_order(local)?;
    take(engine, local, progress)?;
    progress.ordered = Some((lsn, ordinals));
    fail_point::hit(fail_point::FOLLOW_BEFORE);
    local.commit_with(records.pending(), progress, Some(shape))?;
    fail_point::hit(fail_point::FOLLOW_AFTER);
    Ok(())
}
