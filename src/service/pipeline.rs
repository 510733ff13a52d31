//! One pipeline from its file to its end.

use super::PipelineError;
use super::adopt;
use super::board::{Board, Phase};
use super::bound::{self, Bound};
use super::engine_loop::{EngineLoop, Outlet};
use super::feed::{Feed, Frontier};
use super::follow::Grown;
use super::lineage::{self, Start};
use super::near::Near;
use super::patience::{Patience, backoff, describe};
use super::preflight::{self, Found};
use super::schema::Schema;
use super::snapshot::{Filled, Snapshot};
use super::writer::{OnFault, Pace, Refiller, Writer};
use crate::config::{Connections, Pipeline, StoreKind};
use crate::fail_point;
use crate::letters::{Books, Desk};
use crate::source::config::SourceConfig;
use crate::source::fingerprint::{self, Fingerprint};
use crate::source::{Kind, connect, publication, server, slot};
use crate::state::{AdoptedTable, Freezer, Identity, LocalStore, Progress};
use crate::stores::any::AnyStore;
use crate::stores::{Identity as StoreIdentity, Store};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinSet;
use walview_core::catalog::Catalog;
use walview_core::engine::Engine;
use walview_core::position::{Lsn, Position};

/// How long a source that does not answer is waited for at the start.
const FIRST_CONNECT_MAX: Duration = Duration::from_secs(10);
/// At most one insert a second and table: a `ClickHouse` with many small parts merges itself to
/// death.
const CLICKHOUSE_FLUSH_EVERY: Duration = Duration::from_secs(1);
/// What a reader of Redis sees all of or nothing of; every byte is held several times on its way.
const REDIS_ATOMIC_BYTES_MAX: usize = 32 << 20;
/// Its readers go by `walview_freshness`, so a large transaction need not be held together for it.
const CLICKHOUSE_INSERT_BYTES_MAX: usize = 8 << 20;
/// What `appendfsync everysec` may lose, with room for a slow disk.
const REDIS_WINDOW: Duration = Duration::from_secs(10);

/// How long the writers may take to end, a little longer than they drain; and where others take
/// their place at once. One that does not answer is broken off then, which is to its store what a
/// crash is: what was on its way is sent again.
const WRITERS_END_MAX: Duration = Duration::from_secs(10);
const WRITERS_PAUSE_MAX: Duration = Duration::from_secs(1);

/// A pipeline that is to run.
pub struct Runner {
    pub pipeline: Pipeline,
    pub connections: Connections,
    pub source: SourceConfig,
    pub board: Arc<Board>,
    pub desk: Arc<Desk>,
    /// Bytes of operations that may wait for stores that do not take them, on the local disk.
    pub outbox_bytes_max: u64,
    pub stop: watch::Receiver<bool>,
}

/// Views that a store could not take, on their way to the engine: (view, why).
pub type Faults = Arc<Mutex<Vec<(usize, String)>>>;

/// A pipeline with its state, about to stream.
pub(super) struct Ready {
    identity: Identity,
    filled: Filled,
    progress: Progress,
}

/// A pipeline that streamed, as of a whole transaction, to which a column was added.
pub(super) struct Paused {
    pub(super) identity: Identity,
    pub(super) local: LocalStore,
    pub(super) grown: Grown,
}

impl Runner {
    /// Runs over the store `local` until `stop` turns true. With `rebuild` what is there is thrown away first.
    ///
    /// # Errors
    /// What ended the pipeline. The state is whole all the same.
    pub async fn run(self, local: LocalStore, rebuild: bool) -> Result<(), PipelineError> {
        let found = self.first_contact().await?;
        // One of another format can be thrown away, too.
        let stored = if rebuild { None } else { local.identity()? };
        let progress = local.progress()?;
        let start = if rebuild {
            Start::Over
        } else {
            let stored = stored.as_ref().map(|identity| (identity, &progress));
            lineage::start(&self.pipeline, &self.connections, stored, &found)?
        };
        let mut ready = match stored {
            Some(identity) if start == Start::Resume => self.resume(local, identity, progress)?,
            _ => Box::pin(self.begin_whole(local, found)).await?,
        };
        loop {
            let streamed = Box::pin(self.stream(ready)).await;
            self.desk.close();
            match streamed? {
                None => return Ok(()),
                Some(paused) => ready = Box::pin(self.follow(paused)).await?,
            }
        }
    }

    /// Connects and looks around; waits a while for a server that does not answer yet.
    async fn first_contact(&self) -> Result<Found, PipelineError> {
        let since = Instant::now();
        let mut attempt = 0;
        loop {
            match self.look().await {
                Err(error) if error.is_retry() && since.elapsed() < FIRST_CONNECT_MAX => {
                    if attempt == 0 {
                        tracing::warn!(error = describe(&error), "source fails, trying again");
                    }
                    self.board.source(Some(&describe(&error)));
                    self.back_off(attempt).await?;
                    attempt += 1;
                }
                looked => return looked,
            }
        }
    }

    /// Waits before the source is tried again.
    ///
    /// # Errors
    /// It is to stop.
    pub(super) async fn back_off(&self, attempt: u32) -> Result<(), PipelineError> {
        let mut stop = self.stop.clone();
        tokio::select! {
            () = tokio::time::sleep(backoff(attempt)) => Ok(()),
            _ = stop.wait_for(|stop| *stop) => Err(PipelineError::Stopping),
        }
    }

    async fn look(&self) -> Result<Found, PipelineError> {
        let mut found = preflight::look(&self.pipeline, &self.source).await?;
        // What is wrong with tables matters to a snapshot: a stream goes on with what it can.
        if found.problems.iter().any(|problem| problem.kind != Kind::Table) {
            preflight::none_of(std::mem::take(&mut found.problems))?;
        }
        Ok(found)
    }

    /// Grants and publication, before anything is touched.
    async fn check_readiness(&self, bound: &Bound) -> Result<(), PipelineError> {
        let session = connect(&self.source).await?;
        let ready = preflight::readiness(&self.pipeline, &session, bound, true).await?;
        session.close().await;
        Ok(preflight::none_of(ready.problems)?)
    }

    pub(super) fn bind(&self, catalog: &Catalog) -> Result<Bound, PipelineError> {
        bound::bind(&self.pipeline, &self.source.schema, catalog).map_err(PipelineError::Problems)
    }

    fn stores(&self, bound: &Bound, identity: &Identity) -> Result<Vec<AnyStore>, PipelineError> {
        let identity = store_identity(identity)?;
        Ok(bound::stores(&self.pipeline, &self.connections, &bound.targets, &identity))
    }

    pub(super) fn engine(&self, bound: Bound, epoch: u16) -> Engine {
        Engine::new(bound.layout, bound.targets, self.pipeline.stores.len(), epoch)
    }

    async fn ensure_publication(&self, bound: &Bound) -> Result<(), PipelineError> {
        let session = connect(&self.source).await?;
        let name = self.pipeline.slot_name();
        let tables = bound::published(&bound.layout);
        publication::ensure(&session, &name, self.pipeline.name.as_str(), &tables).await?;
        session.close().await;
        Ok(())
    }

    /// Goes on where an earlier run was.
    pub(super) fn resume(
        &self,
        local: LocalStore,
        identity: Identity,
        progress: Progress,
    ) -> Result<Ready, PipelineError> {
        // What the state holds was laid out by the catalog of its time. What has become of that
        // since is found out while it streams, and stops the views that cannot go on.
        let mut bound = self.bind(&identity.catalog)?;
        adopt::recall(&self.pipeline, &mut bound, &identity.adopted)?;
        let stores = self.stores(&bound, &identity)?;
        let mut engine = self.engine(bound, identity.epoch);
        engine.restore(&local, progress.stopped.clone())?;
        Ok(Ready { identity, filled: Filled { engine, store: local, stores }, progress })
    }

    /// Snapshots from nothing, and again where a table was truncated meanwhile.
    async fn begin_whole(
        &self,
        mut local: LocalStore,
        mut found: Found,
    ) -> Result<Ready, PipelineError> {
        let folder = local.path().to_owned();
        loop {
            preflight::none_of(std::mem::take(&mut found.problems))?;
            let epoch = local.former_epoch()?.map_or(1, |epoch| epoch.saturating_add(1));
            match self.begin(local, epoch, &found).await {
                Err(PipelineError::Source(error)) if error.kind == Kind::SnapshotBroken => {
                    tracing::warn!(error = describe(&error), "the snapshot starts over");
                    self.back_off(0).await?;
                    local = LocalStore::open(&folder)?;
                    found = self.first_contact().await?;
                }
                begun => return begun,
            }
        }
    }

    /// Snapshots from nothing.
    async fn begin(
        &self,
        mut local: LocalStore,
        epoch: u16,
        found: &Found,
    ) -> Result<Ready, PipelineError> {
        let slot_name = self.pipeline.slot_name();
        let mut bound = self.bind(&found.catalog)?;
        // What does not fit is said before anything is touched.
        let adopted = self.look_at_tables(&mut bound).await?;
        self.check_readiness(&bound).await?;
        let mut identity = Identity {
            format: Identity::current_format(),
            pipeline: self.pipeline.name.to_string(),
            definition: self.pipeline.canonical(&self.connections),
            catalog: found.catalog.clone(),
            system_identifier: found.info.lineage.system_identifier.to_string(),
            timeline: found.info.lineage.timeline,
            database_oid: found.info.database_oid,
            slot: slot_name.clone(),
            epoch,
            stores: self.pipeline.stores.iter().map(|store| store.name.to_string()).collect(),
            live: false,
            adopted,
        };
        let mut stores = self.stores(&bound, &identity)?;
        self.board.phase(Phase::Snapshotting);
        // What is there is thrown away for stores that can be filled.
        self.reach_stores(&mut stores, false).await?;
        self.ensure_publication(&bound).await?;
        if found.slot.is_some() {
            // The session of a process that was killed a moment ago may hold it still: that is
            // waited for. Anybody else's is an error.
            let session = connect(&self.source).await?;
            slot::drop(&self.source, &session, &slot_name).await?;
            session.close().await;
        }
        local.reset(&identity)?;
        fail_point::hit(fail_point::SNAPSHOT_BEGUN);
        self.reach_stores(&mut stores, true).await?;
        fail_point::hit(fail_point::SNAPSHOT_STORES_RESET);
        let views = bound.views.len();
        let engine = self.engine(bound, epoch);
        let (exported, taken_at) = self.export(&slot_name).await?;
        fail_point::hit(fail_point::SNAPSHOT_SLOT_MADE);
        let print = self.print_at(&exported, found).await?;
        let consistent_point = exported.consistent_point;
        tracing::info!(lsn = %consistent_point, "snapshot starts");
        let snapshot = Snapshot {
            source: self.source.clone(),
            catalog: found.catalog.clone(),
            board: Arc::clone(&self.board),
            epoch,
            store_names: identity.stores.clone(),
            stop: self.stop.clone(),
        };
        let filled = Filled { engine, store: local, stores };
        let mut filled = snapshot.run(exported, filled, taken_at).await?;
        let before = Lsn(consistent_point.0.saturating_sub(1));
        let progress = Progress {
            confirmed: consistent_point.0,
            commit_lsn: before.0,
            committed_at: taken_at,
            partial: None,
            outbox_end: vec![0; identity.stores.len()],
            outbox_bytes: vec![0; identity.stores.len()],
            ordered: None,
            pruned: vec![Position::end_of(epoch, before).to_string(); identity.stores.len()],
            stopped: filled.engine.stopped().to_vec(),
            truncated: Vec::new(),
        };
        filled.store.write_fingerprint(&print)?;
        filled.store.commit(std::iter::empty(), &progress)?;
        fail_point::hit(fail_point::SNAPSHOT_COMMITTED);
        identity.live = true;
        filled.store.write_identity(&identity)?;
        fail_point::hit(fail_point::SNAPSHOT_LIVE);
        tracing::info!(views, "snapshot is complete");
        Ok(Ready { identity, filled, progress })
    }

    /// What the catalogs say where the snapshot stands: the views were bound a moment before.
    async fn print_at(
        &self,
        exported: &slot::ExportedSnapshot,
        found: &Found,
    ) -> Result<Fingerprint, PipelineError> {
        let asked = preflight::asked(&bound::table_names(&self.pipeline, &self.source.schema));
        let (name, slot) = (&exported.snapshot_name, self.pipeline.slot_name());
        let print = fingerprint::at_snapshot(&self.source, name, &asked, &slot).await?;
        if print.same_tables(&found.print) {
            return Ok(print);
        }
        Err(PipelineError::refused(
            "a table that the views use was altered while the snapshot began",
            "start again",
        ))
    }

    /// Tables of the user's own, once their stores answer.
    async fn look_at_tables(&self, bound: &mut Bound) -> Result<Vec<AdoptedTable>, PipelineError> {
        let mut waits: BTreeMap<String, Patience> = BTreeMap::new();
        loop {
            let (name, error) = match adopt::look(&self.pipeline, &self.connections, bound).await {
                Err(PipelineError::Store { name, error }) => (name, error),
                looked => return looked,
            };
            let index = self.pipeline.stores.iter().position(|store| store.name.as_str() == name);
            let patience = waits.entry(name.clone()).or_insert_with(|| {
                let (board, stop) = (Arc::clone(&self.board), self.stop.clone());
                Patience::new(board, index.unwrap_or_default(), &name, stop)
            });
            patience.after(error).await?;
        }
    }

    /// Waits until every store answers; with `reset` it is emptied, too.
    async fn reach_stores(
        &self,
        stores: &mut [AnyStore],
        reset: bool,
    ) -> Result<(), PipelineError> {
        for (index, store) in stores.iter_mut().enumerate() {
            let name = self.pipeline.stores.get(index).map_or("", |store| store.name.as_str());
            let mut patience =
                Patience::new(Arc::clone(&self.board), index, name, self.stop.clone());
            loop {
                let reached = match store.connect().await {
                    Ok(()) if reset => store.reset().await,
                    connected => connected,
                };
                match reached {
                    Ok(()) => break,
                    Err(error) => patience.after(error).await?,
                }
            }
            patience.works(super::board::StoreState::Loading);
        }
        Ok(())
    }

    /// Makes the slot; says what it waits for. Returns a time that the snapshot covers with it.
    async fn export(&self, slot: &str) -> Result<(slot::ExportedSnapshot, i64), PipelineError> {
        let named = |blockers: &[slot::Blocker]| {
            for blocker in blockers.iter().take(1) {
                let text = blocker.to_string();
                tracing::warn!(blocker = text, "the slot waits for an open transaction to end");
            }
        };
        let mut stop = self.stop.clone();
        let cancel = async move {
            stop.wait_for(|stop| *stop).await.ok();
        };
        // Read before: what was committed by then lies below the slot's consistent point.
        let session = connect(&self.source).await?;
        let (_, at) = server::clock(&session).await?;
        session.close().await;
        let exported = slot::create_exporting(&self.source, slot, named, cancel).await?;
        Ok((exported, at))
    }

    /// Streams until told to stop, or until an added column is to be taken in; sessions that end
    /// are replaced.
    async fn stream(&self, ready: Ready) -> Result<Option<Paused>, PipelineError> {
        let Ready { identity, filled, progress } = ready;
        let Filled { engine, store, stores } = filled;
        let ours = store_identity(&identity)?;
        let accepted = (store.fingerprint()?, store.own_alters()?);
        let faults: Faults = Arc::new(Mutex::new(Vec::new()));
        let (lsn, at) = (progress.confirmed(), progress.committed_at);
        let frontier = Frontier::new(lsn, at, engine.held());
        let mut feeds = Vec::new();
        for (index, spec) in self.pipeline.stores.iter().enumerate() {
            let end = progress.outbox_end.get(index).copied().unwrap_or(0);
            let first = store.outbox().first(index, end);
            let pruned = progress.pruned.get(index).and_then(|text| text.parse().ok());
            let bytes = progress.outbox_bytes.get(index).copied().unwrap_or(0);
            let (begin, end) = ((first, pruned), (end, bytes));
            // Redis does not wait for the local commit.
            let of = (index, spec.kind != StoreKind::Redis);
            feeds.push(Arc::new(Feed::new(of, store.outbox(), begin, end, frontier)));
        }
        let (drain, draining) = watch::channel(false);
        let freezer = store.freezer();
        let near = Near::start().await?;
        let mut writers: JoinSet<(usize, Result<(), PipelineError>)> = JoinSet::new();
        for (index, any) in stores.into_iter().enumerate() {
            let state = (&freezer, identity.epoch);
            let writer = self.writer(index, any, &feeds, &engine, (&ours, &faults), state);
            let Some(writer) = writer else { continue };
            let (is_near, draining) = (!writer.feed.durable_only(), draining.clone());
            let writing = async move { (index, writer.run(draining).await) };
            if is_near {
                near.spawn(&mut writers, writing);
            } else {
                writers.spawn(writing);
            }
        }
        let outlets = self
            .pipeline
            .stores
            .iter()
            .zip(feeds)
            .map(|(store, feed)| Outlet {
                feed,
                window: match store.kind {
                    StoreKind::Redis => REDIS_WINDOW,
                    StoreKind::ClickHouse => Duration::ZERO,
                },
            })
            .collect();
        self.board.local(progress.confirmed(), &engine);
        self.desk.open(Books {
            freezer: store.freezer(),
            layout: engine.shared_layout(),
            views: self.bind(&identity.catalog)?.views,
            targets: engine.targets().to_vec(),
            stores: identity.stores.clone(),
        });
        let engine = EngineLoop::new(
            engine,
            store,
            progress,
            (identity.catalog.clone(), Schema::new(accepted, bound::stars(&self.pipeline))),
            (outlets, self.outbox_bytes_max),
            Arc::clone(&self.board),
            Arc::clone(&faults),
        );
        self.board.phase(Phase::Live);
        let ended = Box::pin(self.sessions(engine, &identity, &near, &mut writers)).await;
        drain.send_replace(true);
        let paused = matches!(ended, Ok(Some(_)));
        end(writers, if paused { WRITERS_PAUSE_MAX } else { WRITERS_END_MAX }).await?;
        let Some((mut local, grown)) = ended? else {
            return Ok(None);
        };
        // What the stores could not take after the engine's last commit.
        let faults = std::mem::take(&mut *faults.lock().unwrap_or_else(PoisonError::into_inner));
        if !faults.is_empty() {
            let mut progress = local.progress()?;
            for (view, why) in faults {
                if let Some(stopped) = progress.stopped.get_mut(view) {
                    stopped.get_or_insert(why);
                }
            }
            local.commit(std::iter::empty(), &progress)?;
        }
        Ok(Some(Paused { identity, local, grown }))
    }

    fn writer(
        &self,
        index: usize,
        store: AnyStore,
        feeds: &[Arc<Feed>],
        engine: &Engine,
        (ours, faults): (&StoreIdentity, &Faults),
        (freezer, epoch): (&Freezer, u16),
    ) -> Option<Writer<AnyStore>> {
        let spec = self.pipeline.stores.get(index)?;
        let pace = match spec.kind {
            StoreKind::Redis => {
                Pace { flush_every: Duration::ZERO, atomic_bytes_max: REDIS_ATOMIC_BYTES_MAX }
            }
            StoreKind::ClickHouse => Pace {
                flush_every: CLICKHOUSE_FLUSH_EVERY,
                atomic_bytes_max: CLICKHOUSE_INSERT_BYTES_MAX,
            },
        };
        // Which view each of the store's targets shows.
        let views: Vec<(u16, usize)> = engine
            .targets()
            .iter()
            .filter(|target| target.store == index)
            .map(|target| (target.number, target.view))
            .collect();
        let faults = Arc::clone(faults);
        let stopped = Mutex::new(BTreeSet::new());
        let on_fault: OnFault = Arc::new(move |found| {
            let mut stopped = stopped.lock().unwrap_or_else(PoisonError::into_inner);
            for fault in found {
                let Some((_, view)) = views.iter().find(|(number, _)| *number == fault.target)
                else {
                    continue;
                };
                let why = format!("{}; {}", fault.message, fault.remedy);
                faults.lock().unwrap_or_else(PoisonError::into_inner).push((*view, why));
                stopped.extend(views.iter().filter(|(_, v)| v == view).map(|(number, _)| *number));
            }
            stopped.clone()
        });
        Some(Writer {
            index,
            name: spec.name.to_string(),
            identity: ours.clone(),
            store,
            feed: Arc::clone(feeds.get(index)?),
            pace,
            board: Arc::clone(&self.board),
            on_fault,
            refiller: Refiller { refill: engine.refill(index), freezer: freezer.clone(), epoch },
            stands: None,
        })
    }
}

/// Waits for writers that were told to end.
async fn end(
    mut writers: JoinSet<(usize, Result<(), PipelineError>)>,
    limit: Duration,
) -> Result<(), PipelineError> {
    let joined = async {
        while let Some(joined) = writers.join_next().await {
            let (_, written) = joined.map_err(PipelineError::task)?;
            if let Err(error) = written {
                tracing::error!(error = describe(&error), "a store was stopped");
            }
        }
        Ok(())
    };
    if let Ok(joined) = tokio::time::timeout(limit, joined).await {
        return joined;
    }
    tracing::warn!(stores = writers.len(), "what a store does not answer is sent to it again");
    writers.shutdown().await;
    Ok(())
}

/// Who writes the marks in this pipeline's stores.
fn store_identity(identity: &Identity) -> Result<StoreIdentity, PipelineError> {
    let system = identity.system_identifier.parse().map_err(|_not_a_number| {
        PipelineError::refused("the stored system identifier is damaged", "run: walview rebuild")
    })?;
    Ok(StoreIdentity { pipeline: identity.pipeline.clone(), system, slot: identity.slot.clone() })
}
