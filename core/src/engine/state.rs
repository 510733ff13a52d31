//! What the engine remembers: an ordered key-value store seen through a trait.
//!
//! Contract, for every implementation: reads see the engine's own earlier writes; a scan
//! returns keys in byte order; an error is the store's own and ends the pipeline (a state that
//! cannot be read is never taken for an empty one).

use super::output::Part;
use std::collections::BTreeMap;
use std::ops::Bound;

/// The key spaces of the state. Each has keys of its own form, described in `rows` and `groups`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Space {
    /// Rows of the source's tables, the columns that views need.
    Rows,
    /// From a unique key that is not the identity to the identity.
    Lookups,
    /// From a joined row's key to the rows that join it.
    Reverse,
    /// Accumulators of aggregate views.
    Groups,
    /// Rows that could not be evaluated or held, with the reason.
    DeadLetters,
    /// Views that are being corrected for a row that very many facts join.
    FanOuts,
}

impl Space {
    pub const ALL: [Self; 6] =
        [Self::Rows, Self::Lookups, Self::Reverse, Self::Groups, Self::DeadLetters, Self::FanOuts];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rows => "rows",
            Self::Lookups => "lookups",
            Self::Reverse => "reverse",
            Self::Groups => "groups",
            Self::DeadLetters => "dead_letters",
            Self::FanOuts => "fan_outs",
        }
    }
}

/// Reading or writing the state failed; the text says where and why.
#[derive(Debug, thiserror::Error)]
#[error("local state: {message}")]
pub struct StateError {
    pub message: String,
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// A page of a scan: keys with their values, in order.
pub type Page = Vec<(Vec<u8>, Vec<u8>)>;

/// The keys that start with `prefix` and sort after `after`. The end is a bound of its own: a scan
/// that looks for it itself reads on through everything that was deleted behind its prefix, which
/// takes minutes in a log-structured store after a TRUNCATE.
#[must_use]
pub fn scan_range(prefix: &[u8], after: Option<&[u8]>) -> (Bound<Vec<u8>>, Bound<Vec<u8>>) {
    let from = match after {
        Some(after) => Bound::Excluded(after.to_vec()),
        None => Bound::Included(prefix.to_vec()),
    };
    (from, prefix_end(prefix))
}

fn prefix_end(prefix: &[u8]) -> Bound<Vec<u8>> {
    let Some(last) = prefix.iter().rposition(|byte| *byte != u8::MAX) else {
        return Bound::Unbounded;
    };
    let mut end = prefix.get(..=last).unwrap_or_default().to_vec();
    if let Some(byte) = end.last_mut() {
        *byte += 1;
    }
    Bound::Excluded(end)
}

/// The state as it is read: also of a frozen copy.
pub trait ReadState {
    /// # Errors
    /// The store could not be read.
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StateError>;

    /// At most `limit` entries whose keys start with `prefix` and sort after `after`.
    ///
    /// # Errors
    /// The store could not be read.
    fn scan(
        &self,
        space: Space,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Page, StateError>;
}

pub trait State: ReadState {
    fn put(&mut self, space: Space, key: &[u8], value: &[u8]);

    fn delete(&mut self, space: Space, key: &[u8]);

    /// Takes parts over while a change is still being applied, so that what a change of a row with
    /// very many facts emits does not gather in memory; returns what it leaves to the engine.
    ///
    /// # Errors
    /// The store could not be written.
    fn spill(&mut self, parts: Vec<Part>) -> Result<Vec<Part>, StateError> {
        Ok(parts)
    }
}

/// The state in memory: for tests and for the simulation of the core.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryState {
    entries: BTreeMap<(Space, Vec<u8>), Vec<u8>>,
}

impl State for MemoryState {
    fn put(&mut self, space: Space, key: &[u8], value: &[u8]) {
        self.entries.insert((space, key.to_vec()), value.to_vec());
    }

    fn delete(&mut self, space: Space, key: &[u8]) {
        self.entries.remove(&(space, key.to_vec()));
    }
}

impl ReadState for MemoryState {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Vec<u8>>, StateError> {
        Ok(self.entries.get(&(space, key.to_vec())).cloned())
    }

    fn scan(
        &self,
        space: Space,
        prefix: &[u8],
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Page, StateError> {
        let from = match after {
            Some(after) => Bound::Excluded((space, after.to_vec())),
            None => Bound::Included((space, prefix.to_vec())),
        };
        Ok(self
            .entries
            .range((from, Bound::Unbounded))
            .take_while(|((at, key), _)| *at == space && key.starts_with(prefix))
            .take(limit)
            .map(|((_, key), value)| (key.clone(), value.clone()))
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_where_its_last_key_may_stand() {
        let excluded = |bytes: &[u8]| Bound::Excluded(bytes.to_vec());
        assert_eq!(prefix_end(b"ab"), excluded(b"ac"));
        assert_eq!(prefix_end(&[1, 255, 255]), excluded(&[2]));
        assert_eq!(prefix_end(&[255, 255]), Bound::Unbounded);
        assert_eq!(prefix_end(b""), Bound::Unbounded);
    }
}
