//! Groups in memory: what the current transaction touched, and what earlier ones did.
//!
//! Invariant: a group that is neither touched nor unsaved is as the state has it, and `shown` of one
//! that is not touched is the result row that the stores were told. Nothing that is emitted depends on
//! what is cached.

use super::groups::Group;
use crate::value::Row;
use foldhash::HashMap;
use std::sync::Arc;

/// Groups kept beyond their transaction. Forgotten all at once: a counter that is busy is soon here
/// again.
const CACHED_MAX: usize = 16_384;

#[derive(Default)]
pub(super) struct GroupCache {
    slots: Vec<Slot>,
    by_key: HashMap<Arc<[u8]>, usize>,
    /// Since the last cut, in the order of their first touch.
    touched: Vec<usize>,
    /// The state has another version of them.
    unsaved: Vec<usize>,
    /// Of all slots, about.
    weight: usize,
}

pub(super) struct Slot {
    pub view: usize,
    pub key: Arc<[u8]>,
    /// The result row that the stores have.
    pub shown: Option<Row>,
    pub group: Group,
    touched: bool,
    unsaved: bool,
}

impl GroupCache {
    /// Marks a known group as touched.
    pub(super) fn touch(&mut self, key: &[u8]) -> Option<usize> {
        let index = *self.by_key.get(key)?;
        let slot = self.slots.get_mut(index)?;
        if !slot.touched {
            slot.touched = true;
            self.touched.push(index);
        }
        Some(index)
    }

    /// Takes in a group that is touched.
    pub(super) fn insert(
        &mut self,
        view: usize,
        key: &[u8],
        shown: Option<Row>,
        group: Group,
    ) -> usize {
        let (index, key) = (self.slots.len(), Arc::<[u8]>::from(key));
        self.weight += 2 * (size_of::<Slot>() + key.len()) + group.weight();
        self.by_key.insert(Arc::clone(&key), index);
        self.slots.push(Slot { view, key, shown, group, touched: true, unsaved: false });
        self.touched.push(index);
        index
    }

    /// How many groups wait to be emitted.
    pub(super) fn touched(&self) -> usize {
        self.touched.len()
    }

    /// What was touched, in order; each is given back or forgotten.
    pub(super) fn take_touched(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.touched)
    }

    /// What is to be written to the state, in order.
    pub(super) fn take_unsaved(&mut self) -> Vec<usize> {
        std::mem::take(&mut self.unsaved)
    }

    pub(super) fn slot(&mut self, index: usize) -> Option<&mut Slot> {
        self.slots.get_mut(index)
    }

    /// The stores were told of it.
    pub(super) fn emitted(&mut self, index: usize, shown: Option<Row>) {
        if let Some(slot) = self.slots.get_mut(index) {
            slot.touched = false;
            slot.shown = shown;
            if !std::mem::replace(&mut slot.unsaved, true) {
                self.unsaved.push(index);
            }
        }
    }

    /// The state has what the slot has.
    pub(super) fn saved(&mut self, index: usize) {
        if let Some(slot) = self.slots.get_mut(index) {
            slot.unsaved = false;
        }
    }

    /// The state has no such group, or another.
    pub(super) fn forget(&mut self, index: usize) {
        if let Some(slot) = self.slots.get_mut(index) {
            self.by_key.remove(&std::mem::take(&mut slot.key));
        }
    }

    /// About how many bytes all groups take.
    pub(super) fn weight(&self) -> usize {
        self.weight
    }

    /// Whether there is too much of it. Only what is neither touched nor unsaved may be forgotten.
    pub(super) fn is_full(&self) -> bool {
        self.slots.len() > CACHED_MAX
    }

    pub(super) fn clear(&mut self) {
        self.slots.clear();
        self.by_key.clear();
        self.touched.clear();
        self.unsaved.clear();
        self.weight = 0;
    }
}
