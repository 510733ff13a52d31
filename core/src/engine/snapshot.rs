//! The first snapshot: rows into the state, and results from them.
//!
//! ```text
//!  rows ── load ──┬─► state ── a page of facts ──┐
//!                 └─────────────────────────────┴─► every view of them ─┬─► result rows ─► operations
//!                     ▲                                                 │
//!                     │                                                 ▼
//!                     └──── groups, when there are many, and at the end: whole ─► operations
//! ```
//!
//! A view is computed as its facts are loaded, where everything that it joins was loaded before; the
//! others follow from the state.
//!
//! Invariants:
//! - a fact is read at most once, for all views whose facts its table holds;
//! - a group is emitted once, with all its members: it is never shown before, so that a sum that
//!   leaves its type's range on the way to one that fits stops nothing;
//! - groups in memory weigh [`GROUPS_BYTES_MAX`] and what one page touches. Those beyond go to the
//!   state, and come back where they are touched again.

use super::deltas::{decode_group, group_plan, group_prefix};
use super::resolve::Contribution;
use super::state::{Space, State};
use super::{Engine, EngineError, rows};
use crate::position::Lsn;
use crate::value::Row;
use std::collections::VecDeque;
use std::sync::Arc;

/// Groups held while facts are read, about.
pub(super) const GROUPS_BYTES_MAX: usize = 32 << 20;

/// Views that are being emitted whole, and how far.
#[derive(Debug)]
pub struct Filling {
    steps: VecDeque<Step>,
    /// The last key that was done in the first step.
    after: Option<Vec<u8>>,
    rows: u64,
}

#[derive(Debug)]
enum Step {
    /// The facts of these views, which are the rows of one table.
    Facts(Vec<usize>),
    /// The groups of a view.
    Groups(usize),
}

/// A page of a step.
#[derive(Default)]
struct Done {
    rows: usize,
    /// The last key; `None` at the end.
    last: Option<Vec<u8>>,
}

impl Filling {
    /// Facts and groups read so far, each once.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows
    }
}

impl Engine {
    /// In which order tables are best loaded, and which views are computed while each of them is: all
    /// that they join it with comes before.
    #[must_use]
    pub fn load_order(&self) -> Vec<(usize, Vec<usize>)> {
        let layout = &self.layout;
        let views_of = |table: usize| {
            (0..layout.views.len()).filter(move |view| self.fact_table(*view) == Some(table))
        };
        let joined = |view: usize| {
            let inputs = layout.views.get(view).map_or(&[][..], |view| &view.inputs);
            inputs.iter().skip(1).map(|input| input.table)
        };
        let mut left: Vec<usize> = (0..layout.tables.len()).collect();
        let mut order = Vec::new();
        while !left.is_empty() {
            let is_ready = |fact: &usize| {
                let mut waits = views_of(*fact).flat_map(joined);
                !waits.any(|table| table != *fact && left.contains(&table))
            };
            // Tables that join each other in a ring: any of them comes first.
            let at = left.iter().position(is_ready).unwrap_or(0);
            let table = left.get(at).copied().unwrap_or_default();
            let is_loaded = |view: &usize| joined(*view).all(|table| !left.contains(&table));
            let views = views_of(table).filter(is_loaded).collect();
            left.remove(at);
            order.push((table, views));
        }
        order
    }

    /// Puts a row of a snapshot into the state, and computes `views` of it, which
    /// [`Engine::load_order`] names with its table. The caller takes the parts from time to time.
    ///
    /// # Errors
    /// The row has no key, or the state cannot be read.
    pub fn load(
        &mut self,
        state: &mut impl State,
        table: usize,
        row: &Row,
        views: &[usize],
    ) -> Result<(), EngineError> {
        let Some(layout) = self.layout.tables.get(table) else {
            return Err(EngineError::Inconsistent(format!("there is no table {table}")));
        };
        let key = rows::key_of(layout, row, &layout.identity).ok_or_else(|| {
            EngineError::Inconsistent(format!(
                "a row without its key in \"{}\"",
                layout.qualified()
            ))
        })?;
        let known = (&mut self.rows, self.ends.get_mut(table));
        rows::replace(state, known, &self.layout, layout, None, Some((&key, row)));
        self.fill_fact(state, views, &key, row)
    }

    fn fill_fact(
        &mut self,
        state: &mut impl State,
        views: &[usize],
        key: &[u8],
        row: &Row,
    ) -> Result<(), EngineError> {
        for view in views {
            let new = self.contribution(state, *view, (key, row), None)?;
            self.apply_delta(state, *view, key, Contribution::Absent, new)?;
        }
        if self.groups.weight() >= GROUPS_BYTES_MAX {
            self.put_groups_away(state);
        }
        Ok(())
    }

    /// Opens the emission of `views` as they stand just before `lsn`: positions sort below every
    /// streamed one. Views of groups must have none yet. Those of them that are `loaded` are computed by
    /// [`Engine::load`].
    pub fn begin_snapshot(
        &mut self,
        lsn: Lsn,
        taken_at: i64,
        views: &[usize],
        loaded: &[usize],
    ) -> Filling {
        self.output.snapshot = true;
        self.output.begin(Lsn(lsn.0.saturating_sub(1)), taken_at, &[]);
        let mut tables: Vec<(usize, Vec<usize>)> = Vec::new();
        let mut groups = Vec::new();
        for view in views {
            let Some(table) = self.fact_table(*view) else { continue };
            if group_plan(&self.layout, *view).is_some() {
                groups.push(Step::Groups(*view));
            }
            if loaded.contains(view) {
                continue;
            }
            match tables.iter_mut().find(|(known, _)| *known == table) {
                Some((_, views)) => views.push(*view),
                None => tables.push((table, vec![*view])),
            }
        }
        let facts = tables.into_iter().map(|(_, views)| Step::Facts(views));
        Filling { steps: facts.chain(groups).collect(), after: None, rows: 0 }
    }

    /// The table whose rows are a view's facts.
    #[must_use]
    pub fn fact_table(&self, view: usize) -> Option<usize> {
        self.layout.views.get(view)?.inputs.first().map(|fact| fact.table)
    }

    /// Emits one page from the loaded rows; `false` where all is done. The caller takes the parts
    /// between pages.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn fill(
        &mut self,
        state: &mut impl State,
        filling: &mut Filling,
    ) -> Result<bool, EngineError> {
        let after = filling.after.take();
        let page = match filling.steps.front() {
            None => return Ok(false),
            Some(Step::Facts(views)) => self.fill_facts(state, views, after.as_deref())?,
            Some(Step::Groups(view)) => self.fill_groups(state, *view, after.as_deref())?,
        };
        filling.rows += u64::try_from(page.rows).unwrap_or(u64::MAX);
        filling.after = page.last;
        if filling.after.is_none() {
            filling.steps.pop_front();
        }
        Ok(!filling.steps.is_empty())
    }

    /// Ends the emission of a snapshot.
    pub fn end_snapshot(&mut self) {
        self.output.end();
        self.output.snapshot = false;
        self.changes = 0;
    }

    fn fill_facts(
        &mut self,
        state: &mut impl State,
        views: &[usize],
        after: Option<&[u8]>,
    ) -> Result<Done, EngineError> {
        let layout = Arc::clone(&self.layout);
        let table = views.first().and_then(|view| self.fact_table(*view));
        let Some(table) = table.and_then(|table| layout.tables.get(table)) else {
            return Ok(Done::default());
        };
        let page = rows::page(state, table, after)?;
        for (key, row) in &page {
            self.fill_fact(state, views, key, row)?;
        }
        let rows = page.len();
        Ok(Done { rows, last: page.into_iter().next_back().map(|(key, _)| key) })
    }

    /// Leaves the groups to the state, which nobody was told of yet.
    fn put_groups_away(&mut self, state: &mut impl State) {
        for index in self.groups.take_touched() {
            self.groups.emitted(index, None);
        }
        self.save(state);
        self.groups.clear();
    }

    fn fill_groups(
        &mut self,
        state: &mut impl State,
        view: usize,
        after: Option<&[u8]>,
    ) -> Result<Done, EngineError> {
        let layout = Arc::clone(&self.layout);
        let Some(plan) = group_plan(&layout, view) else {
            return Ok(Done::default());
        };
        if self.stopped.get(view).is_some_and(Option::is_some) {
            return Ok(Done::default());
        }
        if after.is_none() {
            self.touch_single_group(state, view)?;
            self.put_groups_away(state);
        }
        let prefix = group_prefix(view);
        let page = state.scan(Space::Groups, &prefix, after, rows::SCAN_PAGE_KEYS)?;
        for (_, bytes) in &page {
            match decode_group(view, &plan, bytes)?.output(plan.aggregates, plan.output) {
                Ok(row) => self.emit_row(state, view, None, Some(&row))?,
                Err(error) => {
                    self.stop_group(view, &error);
                    return Ok(Done::default());
                }
            }
        }
        let rows = page.len();
        Ok(Done { rows, last: page.into_iter().next_back().map(|(key, _)| key) })
    }
}
