//! From a change of a view's result to what a store must do.
//!
//! ```text
//!  engine ── Change ──► redis::Target::render ──► redis::Op …   ─┐
//!                  └──► clickhouse::Target::render ──► Op …     ─┴─► outbox ─► writer
//! ```
//!
//! Operations are absolute and idempotent: writing one twice is harmless.

use crate::value::Value;

pub mod clickhouse;
pub mod redis;
pub mod template;

/// How one row of a view's result changed. `old` and `new` have the view's columns; at least one
/// is there, and both have the same key.
#[derive(Clone, Copy, Debug)]
pub struct Change<'a> {
    pub old: Option<&'a [Value]>,
    pub new: Option<&'a [Value]>,
}

/// The commit that a change belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Microseconds since 2000-01-01 UTC, from the source's own clock.
    pub committed_at: i64,
}

/// A kind of change of a result row, as `events:` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    Insert,
    Update,
    Delete,
}

/// `events:`, default all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Events {
    pub insert: bool,
    pub update: bool,
    pub delete: bool,
}

impl Default for Events {
    fn default() -> Self {
        Self { insert: true, update: true, delete: true }
    }
}
