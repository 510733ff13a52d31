//! How many bytes of operations an outbox holds, without counting record by record.
//!
//! The outbox is appended at one end and pruned at the other, both by sequence number. Kept are the
//! totals at a few sequence numbers; in between records count as equally large, so the figure is
//! right to about [`STEP_BYTES`] and costs a few bytes for each of them.

use std::collections::VecDeque;

/// How far apart the totals are.
const STEP_BYTES: u64 = 1 << 20;

/// (sequence number, bytes of all records before it), growing in both.
#[derive(Debug)]
pub(super) struct Weight {
    steps: VecDeque<(u64, u64)>,
    end: (u64, u64),
}

impl Weight {
    /// Records `first..end` hold `bytes`.
    pub(super) fn new(first: u64, end: u64, bytes: u64) -> Self {
        Self { steps: VecDeque::from([(first, 0)]), end: (end, bytes) }
    }

    /// A record with number `seq` is appended.
    pub(super) fn push(&mut self, seq: u64, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        self.end = (seq + 1, self.end.1.saturating_add(bytes));
        if self.steps.back().is_none_or(|(_, at)| self.end.1 - at >= STEP_BYTES) {
            self.steps.push_back(self.end);
        }
    }

    /// Records from `seq` on are forgotten: they will be pushed again.
    pub(super) fn rewind(&mut self, seq: u64) {
        if seq >= self.end.0 {
            return;
        }
        let bytes = self.before(seq);
        while self.steps.len() > 1 && self.steps.back().is_some_and(|(at, _)| *at > seq) {
            self.steps.pop_back();
        }
        self.end = (seq, bytes);
    }

    /// Records before `seq` are gone.
    pub(super) fn prune(&mut self, seq: u64) {
        let bytes = self.before(seq);
        while self.steps.front().is_some_and(|(at, _)| *at <= seq) {
            self.steps.pop_front();
        }
        self.steps.push_front((seq, bytes));
    }

    /// Bytes of the records that are there.
    pub(super) fn bytes(&self) -> u64 {
        self.end.1 - self.steps.front().map_or(0, |(_, bytes)| *bytes).min(self.end.1)
    }

    /// Bytes before `seq`.
    fn before(&self, seq: u64) -> u64 {
        let after = self.steps.partition_point(|(at, _)| *at <= seq);
        let Some(&(low, low_bytes)) = after.checked_sub(1).and_then(|i| self.steps.get(i)) else {
            return self.steps.front().map_or(0, |(_, bytes)| *bytes);
        };
        let (high, high_bytes) = self.steps.get(after).copied().unwrap_or(self.end);
        if high <= low {
            return low_bytes;
        }
        let part = u128::from(high_bytes - low_bytes) * u128::from(seq.min(high) - low)
            / u128::from(high - low);
        low_bytes + u64::try_from(part).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_pushed_and_pruned_is_counted() {
        let mut weight = Weight::new(10, 10, 0);
        assert_eq!(weight.bytes(), 0);
        for seq in 10..110 {
            weight.push(seq, 1 << 20);
        }
        assert_eq!(weight.bytes(), 100 << 20);
        weight.prune(60);
        assert_eq!(weight.bytes(), 50 << 20);
        weight.rewind(100);
        assert_eq!(weight.bytes(), 40 << 20);
        weight.push(100, 1 << 20);
        weight.prune(101);
        assert_eq!(weight.bytes(), 0);
    }

    #[test]
    fn what_an_earlier_run_left_shrinks_as_it_is_pruned() {
        let mut weight = Weight::new(0, 1000, 8_000_000);
        assert_eq!(weight.bytes(), 8_000_000);
        weight.prune(250);
        assert_eq!(weight.bytes(), 6_000_000);
        weight.push(1000, 10);
        weight.prune(1001);
        assert_eq!(weight.bytes(), 0);
    }

    #[test]
    fn small_records_cost_no_memory_each() {
        let mut weight = Weight::new(0, 0, 0);
        for seq in 0..100_000 {
            weight.push(seq, 100);
        }
        assert_eq!(weight.bytes(), 10_000_000);
        assert!(weight.steps.len() < 20, "{} steps", weight.steps.len());
        weight.prune(50_000);
        assert_eq!(weight.bytes(), 5_000_000);
    }
}
