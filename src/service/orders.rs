//! What operators ask of a running engine: dead letters replayed or dropped.
//!
//! Invariants:
//! - an order is carried out between two transactions and is durable, state and records together,
//!   before any store sees it or anybody hears of it: it is no function of the log, so replay could
//!   not make it again;
//! - what it emits stands at an LSN of its own, after the last commit and before the next: past
//!   every record that was numbered before, below all that will be.

use super::PipelineError;
use super::engine_loop::EngineLoop;
use super::records;
use crate::letters::{Order, Outcome, Work};
use std::collections::VecDeque;
use walview_core::engine::EngineError;
use walview_core::engine::letters::Replayed;
use walview_core::position::Lsn;

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
        // A later commit record starts where the last one ends, or after.
        let lsn = self.progress.commit_lsn.max(self.progress.replayed) + 1;
        if lsn >= self.progress.confirmed {
            let why = "nothing was committed at the source since the last replay, so there is no \
                       position to deliver at; try again after the next commit";
            return Ok(Err(why.to_owned()));
        }
        self.engine.begin(Lsn(lsn), self.progress.committed_at, None);
        let mut outcomes = Vec::with_capacity(keys.len());
        for key in keys {
            outcomes.push(match self.engine.replay(&mut self.store, key)? {
                Replayed::Delivered => Outcome::Delivered,
                Replayed::Still(reason) => Outcome::Still(reason),
                Replayed::Gone => Outcome::Gone,
            });
        }
        self.engine.commit(&mut self.store)?;
        let by_store = self.records.number(self.engine.take_parts(), &mut self.progress);
        if by_store.iter().any(|records| !records.is_empty()) {
            self.progress.replayed = lsn;
        }
        self.commit()?;
        records::push(&self.outlets, by_store, self.frontier());
        for outlet in &self.outlets {
            outlet.feed.committed();
        }
        Ok(Ok(outcomes))
    }
}

#[cfg(test)]
mod tests;
