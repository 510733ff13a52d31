//! The first snapshot: rows into the state, and results from them.
//!
//! A view is computed while its fact table is copied, where everything that it joins was copied before;
//! the others follow from the state, page by page.

use super::resolve::Contribution;
use super::state::State;
use super::{Engine, EngineError, Layout, rows};
use crate::position::Lsn;
use crate::value::Row;

impl Engine {
    /// In which order tables are best copied, and which views are computed while each of them is: all
    /// that they join it with comes before. Views that are nowhere here are left to
    /// [`Engine::snapshot_view`].
    #[must_use]
    pub fn copy_order(&self) -> Vec<(usize, Vec<usize>)> {
        let layout = &self.layout;
        let facts =
            |table: usize| (0..layout.views.len()).filter(move |v| fact(layout, *v) == Some(table));
        let mut left: Vec<usize> = (0..layout.tables.len()).collect();
        let mut order: Vec<(usize, Vec<usize>)> = Vec::new();
        while !left.is_empty() {
            let is_copied =
                |view: &usize| joined(layout, *view).all(|table| !left.contains(&table));
            let is_ready = |fact: &usize| {
                let mut waits = facts(*fact).flat_map(|view| joined(layout, view));
                !waits.any(|table| table != *fact && left.contains(&table))
            };
            let ready = left.iter().position(is_ready);
            // Tables that join each other in a ring: any of them comes first.
            let table = left.get(ready.unwrap_or(0)).copied().unwrap_or_default();
            let views = facts(table).filter(is_copied).collect();
            left.retain(|other| *other != table);
            order.push((table, views));
        }
        order
    }

    /// Puts a row of a snapshot into the state, and computes `views`, which [`Engine::copy_order`] names
    /// with its table. The caller takes the parts from time to time.
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
        rows::replace(state, &mut self.rows, &self.layout, layout, None, Some((&key, row)));
        for view in views {
            let new = self.contribution(state, *view, (&key, row), None)?;
            self.apply_delta(state, *view, &key, Contribution::Absent, new)?;
        }
        Ok(())
    }

    /// Opens the emission of a snapshot that stands just before `lsn`: its positions sort below
    /// every streamed one.
    pub fn begin_snapshot(&mut self, lsn: Lsn, taken_at: i64) {
        self.output.snapshot = true;
        self.output.begin(Lsn(lsn.0.saturating_sub(1)), taken_at, &[]);
    }

    /// Emits one page of a view's result from the loaded rows; returns where to go on, `None` at
    /// the end. The caller takes the parts between pages.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn snapshot_view(
        &mut self,
        state: &mut impl State,
        view: usize,
        after: Option<&[u8]>,
    ) -> Result<Option<Vec<u8>>, EngineError> {
        let Some(table) = fact(&self.layout, view).and_then(|fact| self.layout.tables.get(fact))
        else {
            return Ok(None);
        };
        let page = rows::page(state, table, after)?;
        let last = page.last().map(|(key, _)| key.clone());
        for (key, row) in &page {
            let new = self.contribution(state, view, (key, row), None)?;
            self.apply_delta(state, view, key, Contribution::Absent, new)?;
        }
        if last.is_none() {
            self.touch_single_group(state, view)?;
        }
        Ok(last)
    }

    /// Emits what is left of a snapshot, and ends it.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn end_snapshot(&mut self, state: &mut impl State) -> Result<(), EngineError> {
        for view in 0..self.layout.views.len() {
            self.touch_single_group(state, view)?;
        }
        self.flush_groups(state)?;
        self.save(state);
        self.output.end();
        self.output.snapshot = false;
        self.changes = 0;
        Ok(())
    }
}

/// The table of a view's facts.
fn fact(layout: &Layout, view: usize) -> Option<usize> {
    layout.views.get(view)?.inputs.first().map(|input| input.table)
}

/// The tables that a view joins its facts with.
fn joined(layout: &Layout, view: usize) -> impl Iterator<Item = usize> {
    let inputs = layout.views.get(view).map_or(&[][..], |view| &view.inputs);
    inputs.iter().skip(1).map(|input| input.table)
}
