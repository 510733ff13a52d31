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
use resolve::{Contribution, Overlay};
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

/// What `walk` calls for each fact: the engine and state back, and the fact's key.
type Visit<'a, S> = dyn FnMut(&mut Engine, &mut S, &[u8]) -> Result<(), EngineError> + 'a;

/// A changed row, before and after, with its keys.
struct Changed<'a> {
    overlay: Overlay<'a>,
    old_key: Option<&'a [u8]>,
    new_key: Option<&'a [u8]>,
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

    fn truncate(&mut self, state: &mut impl State, table: usize) -> Result<(), EngineError> {
        while let Some(layout) = self.layout.tables.get(table) {
            let page = rows::page(state, layout, None)?;
            if page.is_empty() {
                break;
            }
            for row in page {
                self.replace(state, table, Some(row), None, false)?;
            }
            self.output.spill(state)?;
        }
        Ok(())
    }

    /// Replaces a row in the state and corrects every result that depends on it, now or (where
    /// `in_steps`) by a cursor.
    fn replace(
        &mut self,
        state: &mut impl State,
        table: usize,
        old: Option<(Vec<u8>, Row)>,
        new: Option<(Vec<u8>, Row)>,
        in_steps: bool,
    ) -> Result<(), EngineError> {
        let shared = Arc::clone(&self.layout);
        let Some(layout) = shared.tables.get(table) else {
            return Ok(());
        };
        let uses = layout.uses.as_slice();
        let changed = Changed {
            overlay: Overlay {
                table,
                old: old.as_ref().map(|(_, row)| row),
                new: new.as_ref().map(|(_, row)| row),
            },
            old_key: old.as_ref().map(|(key, _)| key.as_slice()),
            new_key: new.as_ref().map(|(key, _)| key.as_slice()),
        };
        let views = || uses.chunk_by(|(view, _), (next, _)| view == next);
        let mut wide = Vec::new();
        if uses.iter().any(|(_, input)| *input > 0) {
            for roles in views() {
                let Some((view, _)) = roles.first() else { continue };
                if self.is_relevant(*view, roles, &changed)
                    && let Some(by) =
                        self.make_way(state, (*view, roles), changed.overlay, in_steps)?
                {
                    wide.push((*view, by));
                }
            }
        }
        rows::replace(
            state,
            (&mut self.rows, self.ends.get_mut(table)),
            &shared,
            layout,
            old.as_ref().map(|(key, row)| (key.as_slice(), row)),
            new.as_ref().map(|(key, row)| (key.as_slice(), row)),
        );
        if let (Some(old_key), Some(new_key)) = (changed.old_key, changed.new_key)
            && old_key != new_key
        {
            self.move_letters(state, uses, old_key, new_key)?;
        }
        for roles in views() {
            let Some((view, _)) = roles.first() else { continue };
            if let Some(at) = wide.iter().position(|(wide, _)| wide == view) {
                let (_, by) = wide.swap_remove(at);
                self.open_fan_out(state, *view, by, changed.overlay.old);
            } else if self.is_relevant(*view, roles, &changed) {
                self.correct(state, *view, roles, &changed)?;
            }
        }
        Ok(())
    }

    fn is_relevant(&self, view: usize, roles: &[(usize, usize)], changed: &Changed<'_>) -> bool {
        if self.stopped.get(view).is_some_and(Option::is_some) {
            return false;
        }
        let (Some(old), Some(new)) = (changed.overlay.old, changed.overlay.new) else {
            return true;
        };
        // A fact with another key may have jumped over the view's cursor.
        if changed.old_key != changed.new_key
            && self.fan_outs.get(view).is_some_and(Option::is_some)
        {
            return true;
        }
        let Some(view) = self.layout.views.get(view) else {
            return false;
        };
        roles
            .iter()
            .filter_map(|(_, input)| view.relevant.get(*input))
            .flatten()
            .any(|column| old.get(*column) != new.get(*column))
    }

    /// Corrects one view's results for a changed row that plays `roles` in it: (view, input).
    fn correct(
        &mut self,
        state: &mut impl State,
        view: usize,
        roles: &[(usize, usize)],
        changed: &Changed<'_>,
    ) -> Result<(), EngineError> {
        let overlay = changed.overlay;
        for (role, &(_, input)) in roles.iter().enumerate() {
            if input == 0 {
                let key = changed.new_key.or(changed.old_key).unwrap_or(&[]);
                let old = match changed.old_key.zip(overlay.old) {
                    Some(fact) => self.contribution(state, view, fact, Some(overlay))?,
                    None => Contribution::Absent,
                };
                let new = match changed.new_key.zip(overlay.new) {
                    Some(fact) => self.contribution(state, view, fact, None)?,
                    None => Contribution::Absent,
                };
                self.apply_delta(state, view, key, old, new)?;
                continue;
            }
            let earlier = roles.get(..role).unwrap_or(&[]);
            for parent in self.changed_keys(view, input, overlay) {
                self.walk(state, view, input, &parent, &mut |engine, state, fact_key| {
                    engine.correct_fact(state, view, earlier, changed, fact_key)
                })?;
            }
        }
        Ok(())
    }

    /// The keys by which rows join, or joined, the changed row in the role of `input`.
    fn changed_keys(&self, view: usize, input: usize, overlay: Overlay<'_>) -> Vec<Vec<u8>> {
        let Some((table, access)) = self.input_access(view, input) else {
            return Vec::new();
        };
        let mut keys: Vec<Vec<u8>> = [overlay.old, overlay.new]
            .into_iter()
            .flatten()
            .filter_map(|row| rows::key_of(table, row, access))
            .collect();
        keys.dedup();
        keys
    }

    /// Calls `visit` with the key of every fact that reaches the row with `parent` in the role of
    /// `input`, in pages, so that a dimension row with a million facts needs no memory for them.
    fn walk<S: State>(
        &mut self,
        state: &mut S,
        view: usize,
        input: usize,
        parent: &[u8],
        visit: &mut Visit<'_, S>,
    ) -> Result<(), EngineError> {
        let Some((edge, child_input)) = self
            .layout
            .views
            .get(view)
            .and_then(|v| v.inputs.get(input))
            .and_then(|i| i.join.as_ref())
            .map(|join| (join.edge, join.child_input))
        else {
            return Ok(());
        };
        let mut after: Option<Vec<u8>> = None;
        loop {
            let limit = rows::SCAN_PAGE_KEYS;
            let children = rows::children(state, edge, parent, after.as_deref(), limit)?;
            for child in &children {
                if child_input == 0 {
                    visit(self, state, child)?;
                    continue;
                }
                let Some((table, access)) = self.input_access(view, child_input) else {
                    continue;
                };
                let Some(row) = rows::get(state, table, child)? else {
                    continue;
                };
                if let Some(key) = rows::key_of(table, &row, access) {
                    self.walk(state, view, child_input, &key, visit)?;
                }
            }
            self.output.spill(state)?;
            match children.last() {
                Some(last) => after = Some(last.clone()),
                None => return Ok(()),
            }
        }
    }

    fn input_access(&self, view: usize, input: usize) -> Option<(&TableLayout, &[usize])> {
        let join = self.layout.views.get(view)?.inputs.get(input)?.join.as_ref()?;
        let edge = self.layout.edges.get(join.edge)?;
        let table = self.layout.tables.get(edge.parent)?;
        Some((table, table.access_columns(edge.access)))
    }

    /// Corrects the result of one fact that joins the changed row; `earlier` are the row's roles
    /// that were corrected before.
    fn correct_fact(
        &mut self,
        state: &mut impl State,
        view: usize,
        earlier: &[(usize, usize)],
        changed: &Changed<'_>,
        fact_key: &[u8],
    ) -> Result<(), EngineError> {
        let Some(layout) = self.layout.views.get(view) else {
            return Ok(());
        };
        let Some(fact_table) = layout.inputs.first().map(|input| input.table) else {
            return Ok(());
        };
        if fact_table == changed.overlay.table && changed.new_key == Some(fact_key) {
            // Corrected in its role as the fact.
            return Ok(());
        }
        let Some(table) = self.layout.tables.get(fact_table) else {
            return Ok(());
        };
        let Some(fact) = rows::get(state, table, fact_key)? else {
            return Ok(());
        };
        for input in earlier.iter().map(|(_, input)| *input).filter(|input| *input > 0) {
            if let Some(key) = self.joined_key(state, view, input, &fact)?
                && self.changed_keys(view, input, changed.overlay).contains(&key)
            {
                return Ok(());
            }
        }
        let old = self.contribution(state, view, (fact_key, &fact), Some(changed.overlay))?;
        let new = self.contribution(state, view, (fact_key, &fact), None)?;
        self.apply_delta(state, view, fact_key, old, new)
    }

    /// The key by which `fact` reaches the row of `input`, conditions of ON left aside: the mirror
    /// of `walk`.
    fn joined_key(
        &mut self,
        state: &impl ReadState,
        view: usize,
        input: usize,
        fact: &Row,
    ) -> Result<Option<Vec<u8>>, EngineError> {
        let shared = Arc::clone(&self.layout);
        let inputs = shared.views.get(view).map_or(&[][..], |view| &view.inputs);
        let Some(join) = inputs.get(input).and_then(|input| input.join.as_ref()) else {
            return Ok(None);
        };
        let Some(edge) = shared.edges.get(join.edge) else {
            return Ok(None);
        };
        if join.child_input == 0 {
            return Ok(rows::parent_key(edge, fact).ok().flatten());
        }
        let Some(key) = self.joined_key(state, view, join.child_input, fact)? else {
            return Ok(None);
        };
        let child = inputs.get(join.child_input);
        let access = child
            .and_then(|child| child.join.as_ref())
            .and_then(|join| shared.edges.get(join.edge))
            .map(|edge| edge.access);
        let table = child.and_then(|child| shared.tables.get(child.table));
        let (Some(table), Some(access)) = (table, access) else {
            return Ok(None);
        };
        let row = rows::find(state, &mut self.rows, table, access, &key)?;
        Ok(row.and_then(|row| rows::parent_key(edge, &row).ok().flatten()))
    }

    /// What a fact gives to a view, seen as the view's cursor has it.
    fn contribution(
        &mut self,
        state: &impl ReadState,
        view: usize,
        (key, fact): (&[u8], &Row),
        overlay: Option<Overlay<'_>>,
    ) -> Result<Contribution, EngineError> {
        let fan_out = self.fan_outs.get(view).and_then(Option::as_ref);
        let ahead = fan_out.filter(|fan_out| fan_out.is_ahead(key));
        let reads = (state, &mut self.rows);
        Ok(resolve::evaluate(&self.layout, view, fact, reads, overlay, ahead)?)
    }
}
