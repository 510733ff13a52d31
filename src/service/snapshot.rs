//! The first snapshot: tables into state, views into stores, as of one position.
//!
//! ```text
//!  slot at S, exported ─► COPY of each table, one by one ─► engine.load ─► local store
//!                                                                │ views of that table's rows
//!                                                                ▼
//!       views that join what came later ─► engine.fill ─────────► operations ─► each store's load
//!                                                                               ─► marks at S
//! ```
//!
//! A snapshot at S holds exactly the commits whose commit LSN is below S; the slot streams the rest.
//! Joined tables are copied before the facts that join them, so that most views are computed while
//! their facts are copied, and no row is read again.
//!
//! Invariants: nothing is emitted to streams; the state counts as live only after every store has
//! its mark; a crash before that starts the snapshot over, from `reset`.

use super::PipelineError;
use super::board::{Board, StoreState};
use super::patience::Patience;
use crate::fail_point;
use crate::source::SourceConfig;
use crate::source::slot::ExportedSnapshot;
use crate::source::snapshot::{CopyChunk, copy_table};
use crate::state::LocalStore;
use crate::stores::Store;
use crate::stores::any::AnyStore;
use std::sync::Arc;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use walview_core::catalog::Catalog;
use walview_core::engine::{Engine, EngineError, Filling, Part};
use walview_core::position::{Lsn, Position};

/// Chunks of rows between the copy and the engine.
const CHUNKS_MAX: usize = 3;
/// Parts between the engine and one store's loader, while that writes others.
const PARTS_MAX: usize = 4;
/// State written to the local store in one go while loading.
pub const SPILL_BYTES: usize = 4 << 20;

/// What a snapshot works with, and gives back.
pub struct Filled {
    pub engine: Engine,
    pub store: LocalStore,
    pub stores: Vec<AnyStore>,
}

/// Tasks that fill stores; each gives its store back.
type Loaders = JoinSet<Result<(usize, AnyStore), PipelineError>>;

/// What computes, and where its operations go.
struct Loading {
    engine: Engine,
    store: LocalStore,
    feeds: Vec<mpsc::Sender<Part>>,
}

impl Loading {
    /// Gives the loaders what was emitted. `false` where one of them ended.
    fn hand_over(&mut self) -> Result<bool, PipelineError> {
        let mut parts = self.engine.take_parts().into_iter();
        let sent = parts.all(|part| {
            self.feeds.get(part.store).is_none_or(|feed| feed.blocking_send(part).is_ok())
        });
        if self.store.pending_bytes() >= SPILL_BYTES {
            self.store.spill()?;
        }
        Ok(sent)
    }
}

pub struct Snapshot {
    pub source: SourceConfig,
    pub catalog: Catalog,
    pub board: Arc<Board>,
    pub epoch: u16,
    pub store_names: Vec<String>,
    pub stop: watch::Receiver<bool>,
}

impl Snapshot {
    /// Runs the snapshot of `exported`. `stores` have been reset.
    ///
    /// # Errors
    /// The source or the local store failed, or a store needs somebody's help.
    pub async fn run(
        &self,
        exported: ExportedSnapshot,
        filled: Filled,
        taken_at: i64,
    ) -> Result<Filled, PipelineError> {
        let consistent_point = exported.consistent_point;
        let Filled { mut engine, store, stores } = filled;
        let order = engine.load_order();
        let loaded: Vec<usize> = order.iter().flat_map(|(_, views)| views).copied().collect();
        let views: Vec<usize> = (0..engine.layout().views.len()).collect();
        let filling = engine.begin_snapshot(consistent_point, taken_at, &views, &loaded);
        let (feeds, mut loaders) = self.load(stores);
        let mut loading = self.copy(&exported, order, Loading { engine, store, feeds }).await?;
        // The copies have their rows; the exported snapshot need not be held for the stores.
        exported.close().await;
        fail_point::hit(fail_point::SNAPSHOT_COPIED);
        if let Some(copied) = loading {
            loading = self.fill(filling, copied).await?;
        }
        // Who feeds them is done, so that they end.
        let kept = loading.map(|Loading { engine, store, .. }| (engine, store));
        let mut stores: Vec<(usize, AnyStore)> = Vec::new();
        while let Some(loaded) = loaders.join_next().await {
            stores.push(loaded.map_err(PipelineError::task)??);
        }
        stores.sort_by_key(|(index, _)| *index);
        let mut stores: Vec<AnyStore> = stores.into_iter().map(|(_, store)| store).collect();
        let (engine, store) = kept.ok_or(PipelineError::Stopping)?;
        fail_point::hit(fail_point::SNAPSHOT_FILLED);
        let mark = Position::end_of(self.epoch, Lsn(consistent_point.0.saturating_sub(1)));
        for (index, store) in stores.iter_mut().enumerate() {
            let name = self.store_names.get(index).map_or("", String::as_str);
            let mut patience = self.patience(index, name);
            while let Err(error) = store.set_mark(mark).await {
                patience.after(error).await?;
            }
            fail_point::hit(fail_point::SNAPSHOT_MARK_SET);
        }
        Ok(Filled { engine, store, stores })
    }

    /// Starts a task for each store, which writes what it is fed.
    fn load(&self, stores: Vec<AnyStore>) -> (Vec<mpsc::Sender<Part>>, Loaders) {
        let mut loaders = Loaders::new();
        let mut feeds = Vec::new();
        for (index, mut store) in stores.into_iter().enumerate() {
            let (feed, mut fed) = mpsc::channel::<Part>(PARTS_MAX);
            feeds.push(feed);
            let name = self.store_names.get(index).map_or("", String::as_str);
            let mut patience = self.patience(index, name);
            self.board.store(index, StoreState::Loading, None);
            loaders.spawn(async move {
                loop {
                    let (mut parts, mut bytes) = (Vec::new(), 0);
                    while bytes < store.load_bytes()
                        && let Some(part) = fed.recv().await
                    {
                        bytes += part.ops.len();
                        parts.push(part.ops);
                    }
                    if parts.is_empty() {
                        return Ok((index, store));
                    }
                    while let Err(error) = store.load(&parts).await {
                        patience.after(error).await?;
                    }
                    fail_point::hit(fail_point::SNAPSHOT_PART_LOADED);
                }
            });
        }
        (feeds, loaders)
    }

    /// Copies every captured table into the state, in `order`, and computes views meanwhile. `None`
    /// where a store's loader ended before: its error is what counts.
    async fn copy(
        &self,
        exported: &ExportedSnapshot,
        order: Vec<(usize, Vec<usize>)>,
        mut loading: Loading,
    ) -> Result<Option<Loading>, PipelineError> {
        let layout = loading.engine.shared_layout();
        let (chunks, mut received) = mpsc::channel::<CopyChunk>(CHUNKS_MAX);
        let tables: Vec<usize> = order.iter().map(|(table, _)| *table).collect();
        let copies = async move {
            for captured in tables.iter().filter_map(|index| layout.tables.get(*index)) {
                let Some(table) = self.catalog.by_oid(captured.oid) else { continue };
                let columns: Vec<usize> =
                    captured.columns.iter().map(|column| column.catalog).collect();
                let (snapshot, chunks) = (&exported.snapshot_name, chunks.clone());
                copy_table(&self.source, snapshot, table, &columns, chunks).await?;
                fail_point::hit(fail_point::SNAPSHOT_TABLE_COPIED);
            }
            Ok::<_, PipelineError>(())
        };
        let board = Arc::clone(&self.board);
        let load = tokio::task::spawn_blocking(move || {
            let layout = loading.engine.shared_layout();
            let mut tables = vec![(0_u64, 0_u64); layout.tables.len()];
            while let Some(chunk) = received.blocking_recv() {
                let table = layout.table_by_oid(chunk.table).ok_or_else(|| {
                    EngineError::Inconsistent(format!("rows of table {} came", chunk.table))
                })?;
                let views = order.iter().find(|(of, _)| *of == table);
                let views = views.map_or(&[][..], |(_, views)| views);
                for row in &chunk.rows {
                    loading.engine.load(&mut loading.store, table, row, views)?;
                }
                if !loading.hand_over()? {
                    return Ok(None);
                }
                if let Some(done) = tables.get_mut(table) {
                    *done = (chunk.rows_done, chunk.rows_estimate.unwrap_or(0));
                }
                let rows = tables.iter().map(|(rows, _)| rows).sum();
                let estimated = tables.iter().map(|(rows, all)| *rows.max(all)).sum();
                board.snapshot("copying", rows, estimated);
            }
            Ok::<_, PipelineError>(Some(loading))
        });
        let mut stop = self.stop.clone();
        let copied = tokio::select! {
            copied = Box::pin(copies) => copied,
            _ = stop.wait_for(|stop| *stop) => return Err(PipelineError::Stopping),
        };
        let loaded = load.await.map_err(PipelineError::task)??;
        // Where nobody takes the rows any more the copies fail, too.
        if loaded.is_some() {
            copied?;
        }
        Ok(loaded)
    }

    /// Computes what is left from the state. `None` as from [`Snapshot::copy`].
    async fn fill(
        &self,
        mut filling: Filling,
        mut loading: Loading,
    ) -> Result<Option<Loading>, PipelineError> {
        let board = Arc::clone(&self.board);
        let fill = tokio::task::spawn_blocking(move || {
            let mut pages = 0_u64;
            while loading.engine.fill(&mut loading.store, &mut filling)? {
                if pages.is_multiple_of(16) {
                    board.snapshot("filling", filling.rows(), 0);
                }
                pages += 1;
                if !loading.hand_over()? {
                    return Ok(None);
                }
            }
            loading.engine.end_snapshot();
            let sent = loading.hand_over()?;
            loading.store.spill()?;
            Ok::<_, PipelineError>(sent.then_some(loading))
        });
        fill.await.map_err(PipelineError::task)?
    }

    fn patience(&self, index: usize, name: &str) -> Patience {
        Patience::new(Arc::clone(&self.board), index, name, self.stop.clone())
    }
}
