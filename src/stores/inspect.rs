//! What a look at a store finds, for `walview plan`. Nothing is changed by looking.

use super::StoreError;

/// What was found.
#[derive(Debug, Default)]
pub struct Inspected {
    /// `Redis 7.0.15`.
    pub server: String,
    /// What an operator wants to know of the server, one short phrase each.
    pub facts: Vec<String>,
    /// By target, in the order of their numbers.
    pub standing: Vec<Standing>,
    /// The mark that it holds: pipeline's own, another's, or none.
    pub mark: Held,
    /// Bytes that may still be taken, where the server has a limit.
    pub room_bytes: Option<u64>,
    /// What may go wrong later, and what it costs.
    pub notes: Vec<String>,
    pub problems: Vec<Lack>,
}

/// What stands where a target's results go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Standing {
    #[default]
    Nothing,
    /// Keys that the target's template could have made. `exact`: all keys were found at.
    Keys { count: u64, exact: bool },
    /// Walview's own table of this view. `changed`: its columns differ, so that it is made anew.
    Table { rows: u64, changed: bool },
}

/// Whose mark a store holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Held {
    #[default]
    Nothing,
    /// A load that did not end.
    Loading,
    Ours,
    /// Of another source or slot.
    Other,
}

/// What keeps `run` from using a store.
#[derive(Debug)]
pub struct Lack {
    pub error: StoreError,
    /// The remedy as statements, where it is that, and who may run them.
    pub by: &'static str,
    pub statements: Vec<String>,
}

impl From<StoreError> for Lack {
    fn from(error: StoreError) -> Self {
        Self { error, by: "", statements: Vec::new() }
    }
}
