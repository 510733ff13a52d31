//! From the contributions of a fact, before and after a change, to the change of a result.
//!
//! A row view emits at once, so that a stream sees each change of a row in order. A group is
//! emitted once for all that a transaction (or a cut of it) did to it.

use super::groups::Group;
use super::letters;
use super::resolve::Contribution;
use super::state::{ReadState, Space, State, StateError};
use super::{Engine, EngineError, Layout};
use crate::expr::{EvalError, Expr};
use crate::plan::{Aggregate, ViewKind};
use crate::target::Change;
use crate::value::{self, Row, Value};
use std::slice;
use std::sync::Arc;

/// Groups touched before they are written and emitted, within one transaction.
pub(super) const TOUCHED_GROUPS_MAX: usize = 10_000;

impl Engine {
    /// Applies what a fact contributed before (`old`) and contributes now (`new`).
    pub(super) fn apply_delta(
        &mut self,
        state: &mut impl State,
        view: usize,
        fact_key: &[u8],
        old: Contribution,
        new: Contribution,
    ) -> Result<(), EngineError> {
        self.park_failures(state, view, fact_key, &old, &new)?;
        match (&old, &new) {
            (Contribution::Row(old), Contribution::Row(new)) => {
                self.emit_row(state, view, Some(old), Some(new))
            }
            (Contribution::Row(old), _) => self.emit_row(state, view, Some(old), None),
            (_, Contribution::Row(new)) => self.emit_row(state, view, None, Some(new)),
            _ if old == new => Ok(()),
            _ => {
                if let Contribution::Member { by, arguments } = old {
                    self.apply_member(state, view, by, &arguments, -1)?;
                }
                if let Contribution::Member { by, arguments } = new {
                    self.apply_member(state, view, by, &arguments, 1)?;
                }
                self.flush_groups_if_many(state)
            }
        }
    }

    fn park_failures(
        &mut self,
        state: &mut impl State,
        view: usize,
        fact_key: &[u8],
        old: &Contribution,
        new: &Contribution,
    ) -> Result<(), StateError> {
        let failed = |contribution: &Contribution| matches!(contribution, Contribution::Failed(_));
        if !failed(old) && !failed(new) {
            return Ok(());
        }
        let key = letters::of_fact(view, fact_key);
        if let Contribution::Failed(error) = new {
            let letter = self.output.letter(key, (view, None), error.to_string(), 0);
            self.output.park(state, letter)
        } else {
            self.output.letters.unpark(state, &key)
        }
    }

    pub(super) fn emit_row(
        &mut self,
        state: &mut impl State,
        view: usize,
        old: Option<&Row>,
        new: Option<&Row>,
    ) -> Result<(), EngineError> {
        let Some(layout) = self.layout.views.get(view) else {
            return Ok(());
        };
        if let (Some(old), Some(new)) = (old, new) {
            if old == new {
                return Ok(());
            }
            let same_key = layout.key.iter().all(|column| old.get(*column) == new.get(*column));
            if !same_key {
                // A row with another key is another row: one goes, one comes.
                self.emit(state, view, &Change { old: Some(old), new: None })?;
                return self.emit(state, view, &Change { old: None, new: Some(new) });
            }
        }
        self.emit(state, view, &Change { old: old.map(Vec::as_slice), new: new.map(Vec::as_slice) })
    }

    fn emit(
        &mut self,
        state: &mut impl State,
        view: usize,
        change: &Change<'_>,
    ) -> Result<(), EngineError> {
        let key = self.layout.views.get(view).map_or(&[][..], |view| &view.key);
        self.output.emit(state, view, key, change)
    }

    fn apply_member(
        &mut self,
        state: &impl ReadState,
        view: usize,
        by: Vec<Value>,
        arguments: &[Option<Value>],
        sign: i64,
    ) -> Result<(), EngineError> {
        let touched = self.touch(state, view, &by)?;
        if let Some(slot) = touched.and_then(|index| self.groups.slot(index)) {
            if sign > 0 {
                // Dependent columns follow their row; the latest member has the current ones.
                slot.group.by = by;
            }
            if let Err(error) = slot.group.apply(arguments, sign) {
                self.stop_group(view, &error);
            }
        }
        Ok(())
    }

    /// Brings a group into memory; `None` where its view has stopped.
    fn touch(
        &mut self,
        state: &impl ReadState,
        view: usize,
        by: &[Value],
    ) -> Result<Option<usize>, EngineError> {
        if self.stopped.get(view).is_some_and(Option::is_some) {
            return Ok(None);
        }
        let Some(plan) = group_plan(&self.layout, view) else {
            return Ok(None);
        };
        let mut key = group_prefix(view);
        for (value, expr) in by.iter().zip(plan.by).take(plan.by_key) {
            value::key::encode_key_typed(
                slice::from_ref(value),
                slice::from_ref(&expr.ty),
                &mut key,
            );
        }
        if let Some(index) = self.groups.touch(&key) {
            return Ok(Some(index));
        }
        let stored = state.get(Space::Groups, &key)?;
        let stored = stored.map(|bytes| decode_group(view, &plan, &bytes)).transpose()?;
        // A snapshot shows a group once it is whole.
        let told = stored.as_ref().filter(|_| !self.output.snapshot);
        let shown = told.map(|group| group.output(plan.aggregates, plan.output));
        let group = stored.unwrap_or_else(|| Group::new(by.to_vec(), plan.aggregates));
        match shown.transpose() {
            Ok(shown) => Ok(Some(self.groups.insert(view, &key, shown, group))),
            Err(error) => {
                self.stop_group(view, &error);
                Ok(None)
            }
        }
    }

    /// Without GROUP BY there is one group even over no rows.
    pub(super) fn touch_single_group(
        &mut self,
        state: &impl ReadState,
        view: usize,
    ) -> Result<(), EngineError> {
        if group_plan(&self.layout, view).is_some_and(|plan| plan.by.is_empty()) {
            self.touch(state, view, &[])?;
        }
        Ok(())
    }

    fn flush_groups_if_many(&mut self, state: &mut impl State) -> Result<(), EngineError> {
        if !self.output.snapshot && self.groups.touched() >= TOUCHED_GROUPS_MAX {
            self.flush_groups(state)?;
        }
        Ok(())
    }

    /// Emits how the rows of the touched groups changed. The state gets the groups with
    /// [`Engine::save`], or where there are too many of them.
    pub(super) fn flush_groups(&mut self, state: &mut impl State) -> Result<(), EngineError> {
        let layout = Arc::clone(&self.layout);
        for index in self.groups.take_touched() {
            let Some(slot) = self.groups.slot(index) else { continue };
            let view = slot.view;
            let Some(plan) = group_plan(&layout, view) else { continue };
            let after = if slot.group.members > 0 || plan.by.is_empty() {
                match slot.group.output(plan.aggregates, plan.output) {
                    Ok(row) => Some(row),
                    Err(error) => {
                        self.groups.forget(index);
                        self.stop_group(view, &error);
                        continue;
                    }
                }
            } else {
                // Whoever comes next is the first member.
                let by = std::mem::take(&mut slot.group.by);
                slot.group = Group::new(by, plan.aggregates);
                None
            };
            let shown = slot.shown.take();
            if shown.is_some() || after.is_some() {
                self.emit_row(state, view, shown.as_ref(), after.as_ref())?;
            }
            self.groups.emitted(index, after);
        }
        if self.groups.is_full() {
            self.save(state);
            self.groups.clear();
        }
        Ok(())
    }

    /// Writes the groups that changed, which makes the state complete: before it is made durable, and
    /// where no transaction is open but what a cut of it flushed.
    pub fn save(&mut self, state: &mut impl State) {
        let layout = Arc::clone(&self.layout);
        let mut bytes = Vec::with_capacity(128);
        for index in self.groups.take_unsaved() {
            self.groups.saved(index);
            // One that could not be computed has been forgotten, and its view has stopped.
            let slot = self.groups.slot(index).filter(|slot| !slot.key.is_empty());
            let Some(slot) = slot else { continue };
            let Some(plan) = group_plan(&layout, slot.view) else { continue };
            if slot.group.members > 0 || plan.by.is_empty() {
                bytes.clear();
                slot.group.encode(&mut bytes);
                state.put(Space::Groups, &slot.key, &bytes);
            } else {
                state.delete(Space::Groups, &slot.key);
                self.groups.forget(index);
            }
        }
    }

    pub(super) fn stop_group(&mut self, view: usize, error: &EvalError) {
        let name = self.layout.views.get(view).map_or("", |view| view.name.as_str());
        let why = format!(
            "a group of the view cannot be computed: {error}; PostgreSQL fails on it too; \
             correct the rows or the SQL of \"{name}\", then: walview rebuild"
        );
        self.stop_view(view, why);
    }
}

/// What a view says of its groups.
pub(super) struct GroupPlan<'a> {
    pub(super) by: &'a [Expr],
    pub(super) by_key: usize,
    pub(super) aggregates: &'a [Aggregate],
    pub(super) output: &'a [Expr],
}

pub(super) fn group_plan(layout: &Layout, view: usize) -> Option<GroupPlan<'_>> {
    match &layout.views.get(view)?.kind {
        ViewKind::Groups { by, by_key, aggregates, output } => {
            Some(GroupPlan { by, by_key: *by_key, aggregates, output })
        }
        ViewKind::Rows { .. } => None,
    }
}

/// A group as the state has it.
pub(super) fn decode_group(
    view: usize,
    plan: &GroupPlan<'_>,
    bytes: &[u8],
) -> Result<Group, StateError> {
    let corrupt = || StateError {
        message: format!("a group of view {view} cannot be decoded; run walview rebuild"),
        source: None,
    };
    let row = value::row::decode_row(bytes)
        .map_err(|error| StateError { source: Some(Box::new(error)), ..corrupt() })?;
    Group::from_row(row, plan.by.len(), plan.aggregates).ok_or_else(corrupt)
}

pub(super) fn group_prefix(view: usize) -> Vec<u8> {
    // Most keys of groups fit behind it without growing it.
    let mut prefix = Vec::with_capacity(48);
    prefix.extend_from_slice(&u16::try_from(view).unwrap_or(u16::MAX).to_be_bytes());
    prefix
}
