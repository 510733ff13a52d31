//! What a running engine is asked beside the log: operators replay or drop dead letters, and views
//! that are being corrected in steps go on while the source is silent.
//!
//! Invariants:
//! - an order is carried out once the log has been followed to where it ended when the session began:
//!   an earlier session may have fed Redis as much from memory, and what stood before its mark would
//!   be lost there;
//! - an order is carried out between two transactions and is durable, state and records together,
//!   before any store sees it or anybody hears of it: it is no function of the log, so replay could
//!   not make it again;
//! - what it emits stands at an LSN of its own, after the last commit and before the next, behind
//!   what earlier orders emitted there: past every record that was numbered before, below all that
//!   will be.

use super::PipelineError;
use super::engine_loop::EngineLoop;
use super::records;
use crate::fail_point;
use crate::letters::{Order, Outcome, Work};
use std::collections::VecDeque;
use walview_core::engine::letters::Replayed;
use walview_core::engine::{EngineError, Partial};
use walview_core::position::Lsn;

/// Facts that a silent source's step corrects: what is read meanwhile waits as long as that takes.
const STEP_FACTS: usize = 2_000;

pub type OrderQueue = VecDeque<Order>;

impl EngineLoop {
    /// Carries out the orders that wait.
    ///
    /// # Errors
    /// The state cannot be read or written.
    pub(super) fn carry_out(&mut self) -> Result<(), PipelineError> {
        while let Some(order) = self.orders.pop_front() {
            // Who asked has given up: nobody would know that it was done.
            if order.answer.is_closed() {
                continue;
            }
            // Replay of the log after a crash must not meet what the order did half-way.
            self.commit()?;
            let outcomes = match order.work {
                Work::Drop => Ok(self.drop_letters(&order.keys)?),
                Work::Replay => self.replay_letters(&order.keys)?,
            };
            order.answer.send(outcomes).ok();
        }
        Ok(())
    }

    fn drop_letters(&mut self, keys: &[Vec<u8>]) -> Result<Vec<Outcome>, PipelineError> {
        let dropped = keys.iter().map(|key| {
            let there = self.engine.drop_letter(&mut self.store, key)?;
            Ok(if there { Outcome::Dropped } else { Outcome::Gone })
        });
        let dropped = dropped.collect::<Result<_, EngineError>>()?;
        self.commit()?;
        Ok(dropped)
    }

    fn replay_letters(
        &mut self,
        keys: &[Vec<u8>],
    ) -> Result<Result<Vec<Outcome>, String>, PipelineError> {
        let Some(lsn) = self.order_lsn() else {
            let why = "nothing was committed at the source since the snapshot, so there is no \
                       position to deliver at; try again after the next commit";
            return Ok(Err(why.to_owned()));
        };
        self.begin_order(lsn);
        let mut outcomes = Vec::with_capacity(keys.len());
        for key in keys {
            outcomes.push(match self.engine.replay(&mut self.store, key)? {
                Replayed::Delivered => Outcome::Delivered,
                Replayed::Still(reason) => Outcome::Still(reason),
                Replayed::Gone => Outcome::Gone,
            });
        }
        self.end_order(lsn)?;
        Ok(Ok(outcomes))
    }

    /// Corrects further facts of the views that are being corrected.
    ///
    /// # Errors
    /// The state cannot be read or written.
    pub(super) fn step(&mut self) -> Result<(), PipelineError> {
        if self.uncommitted {
            self.commit()?;
        }
        // What was handed over claims no more than it brings.
        self.publish();
        let Some(lsn) = self.order_lsn() else {
            return Ok(());
        };
        self.begin_order(lsn);
        self.engine.advance(&mut self.store, STEP_FACTS)?;
        self.end_order(lsn)
    }

    /// Where an order stands; `None` where there is no room. A later commit record starts where the
    /// last one ends, or after.
    pub(super) fn order_lsn(&self) -> Option<Lsn> {
        let lsn = self.progress.order_lsn();
        (lsn < self.progress.confirmed).then_some(Lsn(lsn))
    }

    fn begin_order(&mut self, lsn: Lsn) {
        let ordinals = match &self.progress.ordered {
            Some((at, ordinals)) if *at == lsn.0 => ordinals.clone(),
            _ => Vec::new(),
        };
        let behind = Partial { lsn, changes: 0, ordinals };
        self.engine.begin(lsn, self.progress.committed_at, Some(&behind));
    }

    fn end_order(&mut self, lsn: Lsn) -> Result<(), PipelineError> {
        let ordinals = self.engine.end_order(&mut self.store)?;
        let by_store = self.records.number(self.engine.take_parts(), &mut self.progress);
        if by_store.iter().any(|records| !records.is_empty()) {
            self.progress.ordered = Some((lsn.0, ordinals));
        }
        self.commit()?;
        fail_point::hit(fail_point::ORDER_DURABLE);
        records::push(&self.outlets, by_store, self.frontier());
        for outlet in &self.outlets {
            outlet.feed.committed(outlet.feed.pushed());
        }
        Ok(())
    }
}

#[cfg(test)]
pub(super) mod tests;
