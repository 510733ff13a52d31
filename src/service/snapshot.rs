//! The first snapshot: tables into state, views into stores, as of one position.
//!
//! ```text
//!  slot at S, exported ─► COPY of each table (two ranges) ─► engine.load ─► local store
//!                                    then, view by view
//!  local store ─► engine.snapshot_view ─► operations ─► each store's load ─► marks at S
//! ```
//!
//! A snapshot at S holds exactly the commits whose commit LSN is below S; the slot streams the rest.
//! Tables are loaded whole before any view is computed, so it does not matter which table is a
//! dimension of which.
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
use walview_core::engine::{Engine, Part};
use walview_core::position::{Lsn, Position};

/// Sessions that share the copy of a table, each with ranges of its blocks.
const COPIES: usize = 2;
/// Chunks of rows between the copies and the engine.
const CHUNKS_MAX: usize = 8;
/// Parts between the engine and one store's loader.
const PARTS_MAX: usize = 4;
/// State written to the local store in one go while loading.
const SPILL_BYTES: usize = 8 << 20;

/// What a snapshot works with, and gives back.
pub struct Filled {
    pub engine: Engine,
    pub store: LocalStore,
    pub stores: Vec<AnyStore>,
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
        mut filled: Filled,
        taken_at: i64,
    ) -> Result<Filled, PipelineError> {
        let consistent_point = exported.consistent_point;
        filled = self.copy(&exported, filled).await?;
        // The copies have their rows; the exported snapshot need not be held for the stores.
        exported.close().await;
        fail_point::hit(fail_point::SNAPSHOT_COPIED);
        filled = self.fill(consistent_point, filled, taken_at).await?;
        fail_point::hit(fail_point::SNAPSHOT_FILLED);
        let mark = Position::end_of(self.epoch, Lsn(consistent_point.0.saturating_sub(1)));
        for (index, store) in filled.stores.iter_mut().enumerate() {
            let name = self.store_names.get(index).map_or("", String::as_str);
            let mut patience = self.patience(index, name);
            while let Err(error) = store.set_mark(mark).await {
                patience.after(error).await?;
            }
            fail_point::hit(fail_point::SNAPSHOT_MARK_SET);
        }
        Ok(filled)
    }

    /// Copies every captured table into the state.
    async fn copy(
        &self,
        exported: &ExportedSnapshot,
        filled: Filled,
    ) -> Result<Filled, PipelineError> {
        let Filled { mut engine, mut store, stores } = filled;
        let layout = engine.shared_layout();
        let (chunks, mut received) = mpsc::channel::<(usize, CopyChunk)>(CHUNKS_MAX);
        let (source, catalog) = (self.source.clone(), self.catalog.clone());
        let snapshot = exported.snapshot_name.clone();
        let mut copies: JoinSet<Result<(), PipelineError>> = JoinSet::new();
        copies.spawn(async move {
            for (index, captured) in layout.tables.iter().enumerate() {
                let Some(table) = catalog.by_oid(captured.oid) else {
                    continue;
                };
                let columns: Vec<usize> =
                    captured.columns.iter().map(|column| column.catalog).collect();
                let (tx, mut rx) = mpsc::channel::<CopyChunk>(1);
                let forward = async {
                    while let Some(chunk) = rx.recv().await {
                        if chunks.send((index, chunk)).await.is_err() {
                            break;
                        }
                    }
                };
                let copy = copy_table(&source, &snapshot, table, &columns, COPIES, tx);
                let (copied, ()) = tokio::join!(copy, forward);
                copied?;
                fail_point::hit(fail_point::SNAPSHOT_TABLE_COPIED);
            }
            Ok(())
        });
        let board = Arc::clone(&self.board);
        let load = tokio::task::spawn_blocking(move || {
            let mut tables = vec![(0_u64, 0_u64); engine.layout().tables.len()];
            while let Some((table, chunk)) = received.blocking_recv() {
                for row in &chunk.rows {
                    engine.load(&mut store, table, row)?;
                }
                if let Some(done) = tables.get_mut(table) {
                    *done = (chunk.rows_done, chunk.rows_estimate.unwrap_or(0));
                }
                let rows = tables.iter().map(|(rows, _)| rows).sum();
                let estimated = tables.iter().map(|(rows, all)| *rows.max(all)).sum();
                board.snapshot("copying", rows, estimated);
                if store.pending_bytes() >= SPILL_BYTES {
                    store.spill()?;
                }
            }
            store.spill()?;
            Ok::<_, PipelineError>((engine, store))
        });
        let mut stop = self.stop.clone();
        loop {
            tokio::select! {
                copied = copies.join_next() => match copied {
                    Some(copied) => copied.map_err(PipelineError::task)??,
                    None => break,
                },
                _ = stop.wait_for(|stop| *stop) => return Err(PipelineError::Stopping),
            }
        }
        let (engine, store) = load.await.map_err(PipelineError::task)??;
        Ok(Filled { engine, store, stores })
    }

    /// Computes every view from the state and loads the stores with it.
    async fn fill(
        &self,
        consistent_point: Lsn,
        filled: Filled,
        taken_at: i64,
    ) -> Result<Filled, PipelineError> {
        let Filled { mut engine, store: mut local, stores } = filled;
        let mut loaders: JoinSet<Result<(usize, AnyStore), PipelineError>> = JoinSet::new();
        let mut feeds = Vec::new();
        for (index, mut store) in stores.into_iter().enumerate() {
            let (tx, mut rx) = mpsc::channel::<Part>(PARTS_MAX);
            feeds.push(tx);
            let name = self.store_names.get(index).map_or("", String::as_str);
            let mut patience = self.patience(index, name);
            self.board.store(index, StoreState::Loading, None);
            loaders.spawn(async move {
                while let Some(part) = rx.recv().await {
                    while let Err(error) = store.load(&part.ops).await {
                        patience.after(error).await?;
                    }
                    fail_point::hit(fail_point::SNAPSHOT_PART_LOADED);
                }
                Ok((index, store))
            });
        }
        let board = Arc::clone(&self.board);
        let emit = tokio::task::spawn_blocking(move || {
            engine.begin_snapshot(consistent_point, taken_at);
            let views = engine.layout().views.len();
            let mut pages = 0_u64;
            let send = |engine: &mut Engine| {
                engine.take_parts().into_iter().all(|part| {
                    feeds.get(part.store).is_none_or(|feed| feed.blocking_send(part).is_ok())
                })
            };
            'views: for view in 0..views {
                let mut after = None;
                loop {
                    after = engine.snapshot_view(&mut local, view, after.as_deref())?;
                    pages += 1;
                    if pages.is_multiple_of(16) {
                        board.snapshot("filling", view as u64, views as u64);
                    }
                    if !send(&mut engine) {
                        // A loader ended: its error is what counts.
                        break 'views;
                    }
                    if local.pending_bytes() >= SPILL_BYTES {
                        local.spill()?;
                    }
                    if after.is_none() {
                        break;
                    }
                }
            }
            engine.end_snapshot();
            send(&mut engine);
            local.spill()?;
            Ok::<_, PipelineError>((engine, local))
        });
        let mut stores: Vec<(usize, AnyStore)> = Vec::new();
        while let Some(loaded) = loaders.join_next().await {
            stores.push(loaded.map_err(PipelineError::task)??);
        }
        stores.sort_by_key(|(index, _)| *index);
        let (engine, store) = emit.await.map_err(PipelineError::task)??;
        let stores = stores.into_iter().map(|(_, store)| store).collect();
        Ok(Filled { engine, store, stores })
    }

    fn patience(&self, index: usize, name: &str) -> Patience {
        Patience::new(Arc::clone(&self.board), index, name, self.stop.clone())
    }
}
