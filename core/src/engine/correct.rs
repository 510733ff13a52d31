//! From one changed row to the facts whose results it may change, and their correction.
//!
//! ```text
//!  row, before and after ──► as the fact ────────────────────────► evaluate before, after ──► delta
//!                      └──► as a row that facts join ── reverse ──►   (each fact alike)
//!                           (many of them: a cursor, `fan_out`)
//! ```

use super::layout::TableLayout;
use super::resolve::{self, Contribution, Overlay};
use super::state::{ReadState, State};
use super::{Engine, EngineError, rows};
use crate::value::Row;
use std::sync::Arc;

/// What `walk` calls for each fact: the engine and state back, and the fact's key.
type Visit<'a, S> = dyn FnMut(&mut Engine, &mut S, &[u8]) -> Result<(), EngineError> + 'a;

/// A changed row, before and after, with its keys.
struct Changed<'a> {
    overlay: Overlay<'a>,
    old_key: Option<&'a [u8]>,
    new_key: Option<&'a [u8]>,
}

impl Engine {
    pub(super) fn truncate(
        &mut self,
        state: &mut impl State,
        table: usize,
    ) -> Result<(), EngineError> {
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
    pub(super) fn replace(
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
    pub(super) fn changed_keys(
        &self,
        view: usize,
        input: usize,
        overlay: Overlay<'_>,
    ) -> Vec<Vec<u8>> {
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
        let input = self.layout.views.get(view).and_then(|view| view.inputs.first());
        let Some(fact_table) = input.map(|input| input.table) else {
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
    pub(super) fn contribution(
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
