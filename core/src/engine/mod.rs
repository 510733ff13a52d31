//! Maintains views: turns each row change of the source into the changes of the results.
//!
//! ```text
//!             begin          apply, in commit order                commit
//!  source ──────────► engine ───────────────────────► engine ────────────► parts for each store
//!                       │  ▲                            │
//!                rows,  │  │ the row before,            │ groups touched by the transaction are
//!              reverse  ▼  │ the facts that join it     ▼ written and emitted once
//!                       state                         state
//! ```
//!
//! For a changed row the engine finds every fact whose result depends on it (the row itself as a
//! fact; through reverse keys as a dimension), evaluates each fact with the state before and after,
//! and emits the difference. So a late, changed or deleted dimension row needs no case of its own.
//!
//! Invariants:
//! - the state holds each captured row exactly as of the last applied change; a change that does not
//!   fit it (an update of a row that is not there) is an error, never an upsert;
//! - output depends on the state and the changes alone, and on which transactions are merged;
//! - memory is bounded by the groups touched since the last cut and by one part for each store,
//!   where the state takes parts over while a change is applied (`State::spill`).

mod correct;
mod deltas;
mod fan_out;
mod group_cache;
mod groups;
mod layout;
pub mod letters;
mod output;
mod refill;
mod resolve;
mod row_cache;
mod rows;
mod snapshot;
mod state;

pub use fan_out::{Held, Pace};
pub use layout::{
    Access, Captured, Edge, InputLayout, JoinLayout, Layout, LayoutError, TableLayout, ViewLayout,
    identity_columns,
};
pub use output::{Part, Target, TargetKind};
pub use refill::{Refill, RefillCursor, RefillPage};
pub use snapshot::Filling;
pub use state::{MemoryState, Page, ReadState, Space, State, StateError, scan_range};

use crate::plan::ViewKind;
use crate::position::Lsn;
use crate::value::{Row, Value};
use deltas::TOUCHED_GROUPS_MAX;
use fan_out::FanOut;
use group_cache::GroupCache;
use output::{Output, PART_BYTES};
use row_cache::RowCache;
use rows::End;
use snapshot::GROUPS_BYTES_MAX;
use std::sync::Arc;

/// One row change as the stream tells it. Rows have the table's captured columns.
#[derive(Clone, Debug, PartialEq)]
pub enum RowChange {
    Insert {
        new: Row,
    },
    /// `None` in `new` stands for an unchanged value that was not sent. `old` is there where the
    /// replica identity changed or is FULL; at least the identity's columns are set in it.
    Update {
        old: Option<Row>,
        new: Vec<Option<Value>>,
    },
    /// At least the identity's columns of `old` are set.
    Delete {
        old: Row,
    },
    Truncate,
}

impl RowChange {
    /// About how many bytes its values take: the same from text and from binary.
    #[must_use]
    pub fn weight(&self) -> usize {
        let sum = |row: &[Value]| row.iter().map(Value::weight).sum::<usize>();
        match self {
            Self::Insert { new } => sum(new),
            Self::Update { old, new } => {
                let new: usize = new.iter().flatten().map(Value::weight).sum();
                new + old.as_deref().map_or(0, sum)
            }
            Self::Delete { old } => sum(old),
            Self::Truncate => 0,
        }
    }
}

/// How far into a transaction the state has come: kept where a transaction is made durable in
/// pieces, so that a restart can skip what was applied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Partial {
    pub lsn: Lsn,
    pub changes: u64,
    /// By store.
    pub ordinals: Vec<u64>,
}

/// What ends a pipeline. (What ends only a view is in `Engine::stopped`.)
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error(transparent)]
    State(#[from] StateError),
    /// The change does not fit the state.
    #[error("the local state does not fit the stream: {0}")]
    Inconsistent(String),
}

/// Maintains the views of one pipeline over a state that the caller lends.
pub struct Engine {
    layout: Arc<Layout>,
    output: Output,
    groups: GroupCache,
    rows: RowCache,
    /// By table.
    ends: Vec<End>,
    /// Why a view stopped, by view.
    stopped: Vec<Option<String>>,
    /// By view.
    fan_outs: Vec<Option<FanOut>>,
    pace: Pace,
    changes: u64,
    /// How many views have groups.
    group_views: usize,
    /// Whether transactions may be merged: some view has groups, and none of groups is told as events, of
    /// which each transaction has its own.
    merges: bool,
    /// At the transaction's last cut.
    changes_at_cut: u64,
}

impl Engine {
    /// `targets` name views and stores by index; `stopped` is what an earlier run left.
    #[must_use]
    pub fn new(layout: Layout, targets: Vec<Target>, stores: usize, epoch: u16) -> Self {
        let views = layout.views.len();
        let has_groups = |view: &ViewLayout| matches!(view.kind, ViewKind::Groups { .. });
        let is_event_of_groups = |target: &Target| {
            target.kind.is_events() && layout.views.get(target.view).is_some_and(has_groups)
        };
        let group_views = layout.views.iter().filter(|view| has_groups(view)).count();
        Self {
            group_views,
            merges: group_views > 0 && !targets.iter().any(is_event_of_groups),
            output: Output::new(targets, stores, views, epoch),
            groups: GroupCache::default(),
            rows: RowCache::new(&layout),
            ends: layout.tables.iter().map(|_| End::default()).collect(),
            layout: Arc::new(layout),
            stopped: vec![None; views],
            fan_outs: vec![None; views],
            pace: Pace::default(),
            changes: 0,
            changes_at_cut: 0,
        }
    }

    /// Takes over what an earlier run recorded of its views.
    ///
    /// # Errors
    /// The state could not be read.
    pub fn restore(
        &mut self,
        state: &impl ReadState,
        stopped: Vec<Option<String>>,
    ) -> Result<(), EngineError> {
        self.stopped = stopped;
        self.stopped.resize(self.layout.views.len(), None);
        for (view, fan_out) in self.fan_outs.iter_mut().enumerate() {
            self.output.letters.recount(state, view)?;
            *fan_out = FanOut::load(&self.layout, state, view)?;
        }
        self.output.held = self.held();
        Ok(())
    }

    #[must_use]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The layout as a handle that does not borrow the engine.
    #[must_use]
    pub fn shared_layout(&self) -> Arc<Layout> {
        Arc::clone(&self.layout)
    }

    /// Forgets what was emitted and touched since the last `cut` or `commit`.
    pub fn abort(&mut self) {
        self.groups.clear();
        self.rows.clear();
        self.ends.fill_with(End::default);
        self.output.abort();
        self.changes = 0;
    }

    #[must_use]
    pub fn targets(&self) -> &[Target] {
        &self.output.targets
    }

    /// Why each view stopped; `None` for a view that goes on.
    #[must_use]
    pub fn stopped(&self) -> &[Option<String>] {
        &self.stopped
    }

    /// Rows left out of each view; those that were dropped do not count.
    #[must_use]
    pub fn dead_letters(&self) -> &[u64] {
        &self.output.letters.open
    }

    /// Stops a view: it keeps what its stores have and follows no further change.
    pub fn stop_view(&mut self, view: usize, why: String) {
        if let Some(stopped) = self.stopped.get_mut(view) {
            stopped.get_or_insert(why);
        }
    }

    /// Row changes applied in the current transaction.
    #[must_use]
    pub fn changes(&self) -> u64 {
        self.changes
    }

    /// Opens the transaction whose commit record is at `lsn`. `resume` is what `cut` returned for
    /// this same transaction; the caller skips as many changes.
    pub fn begin(&mut self, lsn: Lsn, committed_at: i64, resume: Option<&Partial>) {
        let resume = resume.filter(|partial| partial.lsn == lsn);
        self.changes = resume.map_or(0, |partial| partial.changes);
        self.changes_at_cut = self.changes;
        self.output.begin(lsn, committed_at, resume.map_or(&[], |p| p.ordinals.as_slice()));
    }

    /// Applies one change of the table with this index.
    ///
    /// # Errors
    /// The state cannot be read, or the change does not fit it.
    pub fn apply(
        &mut self,
        state: &mut impl State,
        table: usize,
        change: RowChange,
    ) -> Result<(), EngineError> {
        self.changes += 1;
        let shared = Arc::clone(&self.layout);
        let Some(layout) = shared.tables.get(table) else {
            return Err(EngineError::Inconsistent(format!("there is no table {table}")));
        };
        // What every reader of it has stopped for need not fit what is known of it.
        let stopped = |view: usize| self.stopped.get(view).is_some_and(Option::is_some);
        if layout.uses.iter().all(|(view, _)| stopped(*view)) {
            return Ok(());
        }
        let unfit =
            |what: &str| EngineError::Inconsistent(format!("{what} in \"{}\"", layout.qualified()));
        let identity = |row: &Row| {
            rows::key_of(layout, row, &layout.identity)
                .ok_or_else(|| unfit("a change without its key"))
        };
        match change {
            RowChange::Insert { new } => {
                let key = identity(&new)?;
                let is_new = match self.ends.get_mut(table) {
                    Some(end) => end.is_before(state, layout, &key)?,
                    None => false,
                };
                if !is_new && rows::get(state, layout, &key)?.is_some() {
                    return Err(unfit("an insert of a row that is already there"));
                }
                self.replace(state, table, None, Some((key, new)), true)
            }
            RowChange::Update { old, new } => {
                let old_key = match &old {
                    Some(old) => identity(old)?,
                    None => {
                        let cell = |column: usize| new.get(column).and_then(Option::as_ref);
                        rows::key_from(layout, cell, &layout.identity)
                            .ok_or_else(|| unfit("a change without its key"))?
                    }
                };
                let before = rows::get(state, layout, &old_key)?
                    .ok_or_else(|| unfit("an update of a row that is not there"))?;
                let filled: Row = new
                    .into_iter()
                    .zip(&before)
                    .map(|(new, before)| new.unwrap_or_else(|| before.clone()))
                    .collect();
                let key = identity(&filled)?;
                self.replace(state, table, Some((old_key, before)), Some((key, filled)), true)
            }
            RowChange::Delete { old } => {
                let key = identity(&old)?;
                let before = rows::get(state, layout, &key)?
                    .ok_or_else(|| unfit("a delete of a row that is not there"))?;
                self.replace(state, table, Some((key, before)), None, true)
            }
            RowChange::Truncate => self.truncate(state, table),
        }?;
        Ok(self.output.spill(state)?)
    }

    /// Makes the state complete in the middle of a transaction, so that the caller can make it
    /// durable. Where a transaction is cut decides what is emitted, so the caller cuts by the
    /// number of changes, never by time.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn cut(&mut self, state: &mut impl State) -> Result<Partial, EngineError> {
        self.go_on(state)?;
        self.save(state);
        self.output.cut();
        Ok(Partial {
            lsn: self.output.lsn,
            changes: self.changes,
            ordinals: self.output.ordinals(),
        })
    }

    /// Ends the transaction. Before the state is made durable, [`Engine::save`] completes it: what
    /// hundreds of transactions do to one group is written once.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn commit(&mut self, state: &mut impl State) -> Result<(), EngineError> {
        self.go_on(state)?;
        self.output.end();
        self.changes = 0;
        Ok(())
    }

    /// Ends what was begun between two transactions, as an order or as a snapshot. Returns the ordinals by store, behind
    /// which a later order may go on at the same LSN.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn end_order(&mut self, state: &mut impl State) -> Result<Vec<u64>, EngineError> {
        self.flush_groups(state)?;
        self.save(state);
        self.output.held = self.held();
        self.output.snapshot = false;
        Ok(self.output.end_order())
    }

    /// Lets cursors go on by a step, and writes what waits.
    fn go_on(&mut self, state: &mut impl State) -> Result<(), EngineError> {
        let changes = usize::try_from(self.changes - self.changes_at_cut).unwrap_or(usize::MAX);
        self.changes_at_cut = self.changes;
        self.advance(state, self.step_facts().saturating_add(changes))?;
        self.flush_groups(state)?;
        self.output.held = self.held();
        Ok(())
    }

    /// Whether the open transaction may be [merged](Self::merge_with_next) with one that makes so many
    /// `changes`, all of them to rows that no view joins.
    ///
    /// Nothing but the commit may emit groups then, and nothing be cut: groups that a later transaction
    /// touched, too, would show a part of it. So it must be few changes, and no view be corrected in steps.
    #[must_use]
    pub fn may_merge(&self, changes: usize) -> bool {
        // A fact leaves one group of a view and comes into another.
        let groups = changes.saturating_mul(2 * self.group_views);
        self.merges
            && self.fan_outs.iter().all(Option::is_none)
            && self.groups.touched().saturating_add(groups) < TOUCHED_GROUPS_MAX
            // All is rendered in one go.
            && self.groups.weight() < GROUPS_BYTES_MAX
            && self.output.waiting_bytes() < PART_BYTES
    }

    /// Ends the transaction without a word: whoever is told of the next one is told of both at once, and
    /// never of one of them. A group that both changed is emitted once, as it differs from what was told
    /// before both: no store may stand between them.
    pub fn merge_with_next(&mut self) {
        self.output.merged = true;
        self.changes = 0;
    }

    /// Whether an earlier transaction ends with the open one.
    #[must_use]
    pub fn is_merged(&self) -> bool {
        self.output.merged
    }

    #[must_use]
    pub fn epoch(&self) -> u16 {
        self.output.epoch
    }

    /// What was emitted since the last call, in order.
    pub fn take_parts(&mut self) -> Vec<Part> {
        self.output.take()
    }
}
