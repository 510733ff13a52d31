//! The one loop that owns the engine and the local store, on a thread of its own.
//!
//! ```text
//!  stream ── gulps ──► loop ──► engine ──► feeds (memory)  ──► writers that need not wait
//!                       │
//!                       └─ every COMMIT_EVERY or COMMIT_BYTES ─► local commit ─► feeds (durable)
//!                                                                     └─► confirmed LSN ─► stream
//! ```
//!
//! Invariants:
//! - an LSN is confirmed only after the local commit that holds it, which another thread writes while
//!   the loop goes on;
//! - a transaction is made durable in pieces only at every `CUT_CHANGES`th change or after
//!   `CUT_BYTES` of them, never by the clock, because where it is cut decides what is emitted;
//! - a keepalive's position counts only between transactions, and those that are merged are one;
//! - while a view is being corrected in steps, nobody is told of more than what is complete in it;
//! - where the outbox is full nothing more is read, so the source keeps what comes (its WAL grows);
//!   the loop waits only where everything whole is durable, because pruning is part of a commit.

use super::PipelineError;
use super::board::Board;
use super::drift;
use super::feed::{Feed, Frontier};
use super::follow::Grown;
use super::ingest::{Relations, stop_users, stop_view};
use super::local_commit::{COMMIT_EVERY, UnderWay};
use super::merge::followers;
use super::orders::OrderQueue;
use super::pipeline::Faults;
use super::records::{Applying, Records};
use super::schema::{Look, Schema, has_passed};
use crate::fail_point;
use crate::letters::Order;
use crate::source::SourceError;
use crate::source::fingerprint::OwnAlter;
use crate::source::stream::{Event, Gulp};
use crate::state::{LocalStore, Progress};
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Sleep;
use walview_core::catalog::Catalog;
use walview_core::engine::{Engine, EngineError, Layout, RowChange};
use walview_core::pgoutput::{self, Message};
use walview_core::position::Lsn;

/// A transaction longer than this is made durable in pieces of this many changes.
const CUT_CHANGES: u64 = 10_000;
/// Or as soon as the values of the changes since the last cut weigh as much: the same in a replay,
/// which begins at a cut or at the transaction's first change, whatever format the values come in.
const CUT_BYTES: usize = 4 << 20;

/// How long the source must be silent before views are corrected in steps of their own.
const IDLE_AFTER: Duration = Duration::from_millis(10);

/// How often a loop that waits for room in the outbox looks again.
const FULL_WAIT: Duration = Duration::from_millis(100);

/// What the loop works on.
pub enum Input {
    Gulp(Gulp),
    /// Everything committed before `at` (the source's clock, microseconds since 2000-01-01 UTC)
    /// lies before `lsn`.
    Clock {
        lsn: Lsn,
        at: i64,
    },
    Order(Order),
    /// What the source's catalogs say.
    Look(Box<Look>),
    /// The stream goes on, but what it sends is no longer all.
    Incomplete(SourceError),
    /// Walview is about to alter its own publication, once this is durable.
    Intend(Vec<OwnAlter>, oneshot::Sender<()>),
}

/// Where one store's records go.
pub struct Outlet {
    pub feed: Arc<Feed>,
    /// How long the store itself may lose what it acknowledged.
    pub window: Duration,
}

/// Why the loop goes on.
enum Woken {
    Input(Option<Input>),
    Durable,
    Due,
}

pub struct EngineLoop {
    pub engine: Engine,
    pub store: LocalStore,
    pub progress: Progress,
    pub catalog: Catalog,
    pub outlets: Vec<Outlet>,
    /// Of all stores together.
    pub outbox_bytes_max: u64,
    pub board: Arc<Board>,
    pub faults: Faults,
    pub schema: Schema,
    /// Where the log ended when the session began: what lies before may be in stores already, which an
    /// earlier session fed from memory, and which take nothing any more that stands before their marks.
    pub replay_to: Lsn,
    relations: Relations,
    pub(super) records: Records,
    pub(super) in_transaction: bool,
    /// Changes of a resumed transaction that the state already holds.
    skip: u64,
    /// The state holds the whole transaction already.
    skip_transaction: bool,
    /// Of the transaction that is open.
    commit_lsn: Lsn,
    /// How many records there were, of all stores, when it began.
    records_before: u64,
    /// A column was added in the transaction that commits at `below`; it was sent in part.
    pub(super) grown: Option<Grown>,
    /// Weight of the changes applied since the transaction began or was cut.
    bytes_since_cut: usize,
    pub(super) uncommitted: bool,
    pub(super) idle_position: bool,
    /// Nothing was read since the last step of its own.
    idle: bool,
    /// A long transaction has just been made durable up to here.
    just_cut: bool,
    /// When the last local commit began.
    pub(super) last_commit: Instant,
    /// When the feeds were last told what there is.
    last_publish: Instant,
    /// The local commit that is on its way.
    pub(super) under_way: Option<UnderWay>,
    /// What the last one that is durable confirms.
    pub(super) durable: Lsn,
    clock: Option<(Lsn, i64)>,
    pub(super) orders: OrderQueue,
}

impl EngineLoop {
    pub fn new(
        engine: Engine,
        store: LocalStore,
        progress: Progress,
        (catalog, schema): (Catalog, Schema),
        (outlets, outbox_bytes_max): (Vec<Outlet>, u64),
        board: Arc<Board>,
        faults: Faults,
    ) -> Self {
        let durable = progress.confirmed();
        Self {
            engine,
            store,
            progress,
            catalog,
            outlets,
            outbox_bytes_max,
            board,
            faults,
            schema,
            replay_to: Lsn(0),
            relations: Relations::default(),
            records: Records::default(),
            in_transaction: false,
            skip: 0,
            skip_transaction: false,
            commit_lsn: Lsn(0),
            records_before: 0,
            grown: None,
            bytes_since_cut: 0,
            uncommitted: false,
            idle_position: false,
            idle: false,
            just_cut: false,
            last_commit: Instant::now(),
            last_publish: Instant::now(),
            under_way: None,
            durable,
            clock: None,
            orders: OrderQueue::default(),
        }
    }

    /// Goes back to the last local commit: the next replication session sends everything after it
    /// again, and replay gives the same at the same positions.
    ///
    /// # Errors
    /// The store cannot be read.
    fn rewind(&mut self) -> Result<(), PipelineError> {
        self.relations = Relations::default();
        // Whoever waits for an order hears that it was not carried out.
        self.orders.clear();
        self.finish_commit()?;
        self.store.discard()?;
        self.progress = self.store.progress()?;
        self.engine.abort();
        self.engine.restore(&self.store, self.progress.stopped.clone())?;
        self.records.clear();
        self.schema.looks.clear();
        self.in_transaction = false;
        self.uncommitted = false;
        self.idle_position = false;
        for (outlet, end) in self.outlets.iter().zip(&self.progress.outbox_end) {
            outlet.feed.rewind(*end);
        }
        Ok(())
    }

    /// Works until the stream ends (`inputs` closed). Everything whole is durable then; what was
    /// left of a transaction in the middle is forgotten and comes again.
    ///
    /// # Errors
    /// The state cannot be read or written, or the stream does not fit it.
    pub fn run(
        &mut self,
        runtime: &tokio::runtime::Handle,
        inputs: &mut mpsc::Receiver<Input>,
        confirmed: &watch::Sender<Lsn>,
    ) -> Result<(), PipelineError> {
        let entered = runtime.enter();
        let mut alarm = Box::pin(tokio::time::sleep(Duration::ZERO));
        drop(entered);
        loop {
            let now = Instant::now();
            let (commit, step) = (self.commit_due_at(now), self.step_due_at(now));
            let due = commit.into_iter().chain(step).min();
            let woken = woken(inputs, self.under_way.as_mut(), (&mut alarm, due));
            let input = match runtime.block_on(woken) {
                Woken::Input(input) => input,
                Woken::Durable => {
                    self.finish_commit()?;
                    confirmed.send_replace(self.durable);
                    continue;
                }
                Woken::Due => {
                    if step != due {
                        self.begin_commit()?;
                    } else if self.is_full() {
                        self.wait_for_room(runtime, inputs, confirmed)?;
                    } else {
                        self.step()?;
                        self.idle = true;
                    }
                    confirmed.send_replace(self.durable);
                    continue;
                }
            };
            let Some(input) = input else {
                if !self.in_transaction {
                    self.commit()?;
                    confirmed.send_replace(self.durable);
                }
                return self.rewind();
            };
            match input {
                Input::Gulp(gulp) => {
                    self.idle = false;
                    let layout = self.engine.shared_layout();
                    let followers = followers(&gulp.events, &self.relations, &layout);
                    let mut followers = followers.into_iter();
                    for event in gulp.events {
                        let commits = matches!(event, Event::Commit { .. });
                        let follower = if commits { followers.next().flatten() } else { None };
                        self.event(event, follower)?;
                        self.judge()?;
                        if (!self.in_transaction || std::mem::take(&mut self.just_cut))
                            && self.is_full()
                        {
                            self.wait_for_room(runtime, inputs, confirmed)?;
                        }
                    }
                }
                Input::Clock { lsn, at } => {
                    self.clock = Some((lsn, at));
                    self.board.source_at(at);
                    self.board.disk(self.store.disk_bytes());
                    self.board.outbox(self.outbox_bytes(), self.outbox_bytes_max);
                    if !self.in_transaction {
                        self.hand_over();
                        self.publish();
                    }
                }
                Input::Incomplete(error) => return Err(error.into()),
                Input::Order(order) => self.orders.push_back(order),
                Input::Look(look) => {
                    self.schema.push(*look);
                    self.judge()?;
                }
                Input::Intend(own, durable) => {
                    self.intend(own)?;
                    // Whoever asked may be gone with its session: then nothing is altered.
                    durable.send(()).ok();
                }
            }
            if !self.orders.is_empty() && self.takes_orders() {
                self.carry_out()?;
            }
            let now = Instant::now();
            if self.commit_due_at(now).is_some_and(|due| due <= now) {
                self.begin_commit()?;
                confirmed.send_replace(self.durable);
            }
            // With a backlog, stores get what comes within the time of a local commit together: the more
            // transactions, the more last states take the place of others.
            if inputs.is_empty() || self.last_publish.elapsed() >= COMMIT_EVERY {
                self.publish();
            }
        }
    }

    fn outbox_bytes(&self) -> u64 {
        let published: u64 = self.outlets.iter().map(|outlet| outlet.feed.bytes()).sum();
        published + self.records.unpublished_bytes()
    }

    /// Whether the state is as of a whole transaction.
    fn is_between_transactions(&self) -> bool {
        !self.in_transaction && self.progress.partial.is_none()
    }

    /// Whether something may be emitted that is no function of the log, at the place that was reached.
    fn takes_orders(&self) -> bool {
        self.is_between_transactions() && has_passed(self.progress.confirmed(), self.replay_to)
    }

    fn is_full(&self) -> bool {
        self.outbox_bytes() >= self.outbox_bytes_max
    }

    /// Reads nothing more until the stores have taken enough, or the stream ends, which
    /// goes on telling the server that we are there.
    fn wait_for_room(
        &mut self,
        runtime: &tokio::runtime::Handle,
        inputs: &mpsc::Receiver<Input>,
        confirmed: &watch::Sender<Lsn>,
    ) -> Result<(), PipelineError> {
        let since = Instant::now();
        tracing::warn!(
            bytes = self.outbox_bytes(),
            bytes_max = self.outbox_bytes_max,
            "the outbox is full: nothing is read, and WAL gathers at the source"
        );
        self.board.outbox_full(true);
        // A little below the limit, so that the loop does not stop and go with every record.
        while self.outbox_bytes() >= self.outbox_bytes_max / 10 * 9 && !inputs.is_closed() {
            self.commit()?;
            confirmed.send_replace(self.durable);
            self.board.outbox(self.outbox_bytes(), self.outbox_bytes_max);
            self.board.disk(self.store.disk_bytes());
            runtime.block_on(tokio::time::sleep(FULL_WAIT));
        }
        self.board.outbox_full(false);
        let seconds = since.elapsed().as_secs();
        tracing::info!(waited_seconds = seconds, "the outbox has room again");
        Ok(())
    }

    /// When views that are being corrected go on by themselves; `None` where none is, or cannot.
    fn step_due_at(&self, now: Instant) -> Option<Instant> {
        let goes_on =
            self.engine.held().is_some() && self.takes_orders() && self.order_lsn().is_some();
        goes_on.then_some(if self.idle { now } else { now + IDLE_AFTER })
    }

    /// `follower`: how many changes the next transaction makes, where the one that ends here may be merged
    /// with it.
    fn event(&mut self, event: Event, follower: Option<usize>) -> Result<(), PipelineError> {
        match event {
            Event::Begin { commit_lsn, committed_at, .. } => {
                if self.grown.as_ref().is_some_and(|grown| grown.below <= commit_lsn)
                    && let Some(grown) = self.grown.take()
                {
                    self.commit()?;
                    return Err(PipelineError::Grown(grown));
                }
                self.in_transaction = true;
                self.commit_lsn = commit_lsn;
                self.records_before = self.progress.outbox_end.iter().sum();
                self.skip_transaction = commit_lsn < self.progress.confirmed();
                let partial = self.progress.partial().filter(|p| p.lsn == commit_lsn);
                self.skip = partial.as_ref().map_or(0, |partial| partial.changes);
                self.bytes_since_cut = 0;
                self.engine.begin(commit_lsn, committed_at, partial.as_ref());
                Ok(())
            }
            Event::Data(bytes) => {
                let message = pgoutput::decode(&bytes)?;
                self.message(&message)
            }
            Event::Commit { commit_lsn, end_lsn, committed_at } => {
                if self.skip_transaction {
                    self.in_transaction = false;
                    return Ok(());
                }
                if follower.is_some_and(|changes| self.may_merge(commit_lsn, end_lsn, changes)) {
                    // As if it went on.
                    self.engine.merge_with_next();
                    return Ok(());
                }
                self.in_transaction = false;
                self.with_engine(|engine, state| engine.commit(state))?;
                self.progress.set_partial(None);
                self.progress.confirmed = end_lsn.0;
                self.progress.commit_lsn = commit_lsn.0;
                self.progress.committed_at = committed_at;
                self.uncommitted = true;
                self.hand_over();
                self.commit_if_large()
            }
            Event::KeepAlive { wal_end } => {
                if !self.in_transaction && wal_end > self.progress.confirmed() {
                    self.progress.confirmed = wal_end.0;
                    self.idle_position = true;
                    self.hand_over();
                }
                Ok(())
            }
            Event::Message { .. } => Ok(()),
        }
    }

    fn message(&mut self, message: &Message<'_>) -> Result<(), PipelineError> {
        if let Message::Relation(relation) = message {
            let (engine, at) = (&mut self.engine, self.commit_lsn);
            let new = self.relations.relation(engine, &self.catalog, relation, at);
            if let Some((table, column)) = new {
                self.grow(table, &column)?;
            }
            self.board.views(self.engine.stopped(), self.engine.dead_letters());
            // It comes after every ALTER, and tells only a part of it.
            self.schema.changed.notify_one();
            return Ok(());
        }
        if self.skip_transaction {
            return Ok(());
        }
        let relations = std::mem::take(&mut self.relations);
        // The layout does not change while the engine runs; the copy of the handle keeps the
        // borrow of the engine free for applying.
        let layout = self.engine.shared_layout();
        let result = relations.changes(&layout, message, |table, change| {
            if self.skip > 0 {
                self.skip -= 1;
                return Ok(());
            }
            self.bytes_since_cut += change.weight();
            self.apply(&layout, table, change)?;
            self.board.change();
            let large = self.engine.changes().is_multiple_of(CUT_CHANGES)
                || self.bytes_since_cut >= CUT_BYTES;
            // What is merged is durable as one.
            if large && !self.engine.is_merged() {
                self.cut()?;
            }
            Ok(())
        });
        self.relations = relations;
        result
    }

    /// A table has a new column from here on. Where views show every column of it, what the
    /// transaction changed before is forgotten and comes again, once the column is taken in.
    fn grow(&mut self, table: usize, column: &str) -> Result<(), PipelineError> {
        let layout = self.engine.shared_layout();
        let views = drift::showing_all(&layout, &self.schema.stars, table);
        let goes_on = |view: &usize| self.engine.stopped().get(*view).is_some_and(Option::is_none);
        let Some(captured) = layout.tables.get(table).filter(|_| views.iter().any(goes_on)) else {
            return Ok(());
        };
        let emitted = self.records_before != self.progress.outbox_end.iter().sum::<u64>();
        if self.progress.partial.is_none() && !emitted {
            let (table, column, below) = (captured.oid, column.to_owned(), self.commit_lsn);
            self.grown = Some(Grown { table, column, below });
            self.rewind()?;
            return Err(PipelineError::Rewound);
        }
        // What stands before it in the transaction may be in a store already.
        for view in views {
            let why = drift::has_new_column(&captured.qualified(), column);
            stop_view(&mut self.engine, view, why);
        }
        Ok(())
    }

    /// A change that does not fit what is known of its table ends the views that read the table:
    /// rows came or went without a word in the log.
    fn apply(
        &mut self,
        layout: &Layout,
        table: usize,
        change: RowChange,
    ) -> Result<(), PipelineError> {
        if matches!(change, RowChange::Truncate)
            && let Some(table) = layout.tables.get(table)
            && !self.progress.truncated.contains(&table.oid)
        {
            self.progress.truncated.push(table.oid);
        }
        match self.with_engine(|engine, state| engine.apply(state, table, change)) {
            Err(EngineError::Inconsistent(what)) => {
                let why = format!(
                    "{what}, so rows of it came or went in a way that the log does not tell"
                );
                stop_users(&mut self.engine, table, None, &why);
                self.board.views(self.engine.stopped(), self.engine.dead_letters());
                Ok(())
            }
            applied => Ok(applied?),
        }
    }

    /// Lets the engine work where what it emits does not gather in memory.
    fn with_engine<T>(&mut self, work: impl FnOnce(&mut Engine, &mut Applying<'_>) -> T) -> T {
        let frontier = self.frontier();
        let mut state = Applying {
            store: &mut self.store,
            records: &mut self.records,
            progress: &mut self.progress,
            outlets: &self.outlets,
            frontier,
        };
        work(&mut self.engine, &mut state)
    }

    /// Makes a long transaction durable up to here.
    fn cut(&mut self) -> Result<(), PipelineError> {
        fail_point::hit(fail_point::CUT_BEFORE);
        let partial = self.with_engine(|engine, state| engine.cut(state))?;
        self.progress.set_partial(Some(partial));
        self.hand_over();
        self.just_cut = true;
        self.bytes_since_cut = 0;
        self.begin_commit()?;
        fail_point::hit(fail_point::CUT_AFTER);
        Ok(())
    }

    /// Keeps what the engine emitted for the feeds and for the next commit.
    fn hand_over(&mut self) {
        if self.records.hand_over(self.engine.take_parts(), &mut self.progress) {
            self.publish();
        }
    }

    /// Gives the feeds what was handed over.
    pub(super) fn publish(&mut self) {
        self.last_publish = Instant::now();
        let frontier = self.frontier();
        self.records.publish(&self.outlets, frontier);
    }

    /// How far the source has been followed.
    pub(super) fn frontier(&self) -> Frontier {
        let lsn = self.progress.confirmed();
        // What the source had flushed when its clock stood there has all been seen.
        let clock =
            self.clock.filter(|(flushed, _)| *flushed <= lsn).map_or(i64::MIN, |(_, at)| at);
        Frontier::new(lsn, self.progress.committed_at.max(clock), self.engine.held())
    }
}

/// Waits for an input, for the local commit that is on its way, or until something is `due`. The alarm
/// is one for all rounds: to set another each time wakes a worker of the runtime each time.
async fn woken(
    inputs: &mut mpsc::Receiver<Input>,
    under_way: Option<&mut UnderWay>,
    (alarm, due): (&mut Pin<Box<Sleep>>, Option<Instant>),
) -> Woken {
    let durable = async {
        match under_way {
            // It may have failed: whoever finishes it hears that.
            Some(commit) => drop((&mut commit.done).await),
            None => std::future::pending().await,
        }
    };
    let time = async {
        match due {
            Some(due) => {
                if alarm.deadline() != due.into() {
                    alarm.as_mut().reset(due.into());
                }
                alarm.await;
            }
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        () = durable => Woken::Durable,
        input = inputs.recv() => Woken::Input(input),
        () = time => Woken::Due,
    }
}
