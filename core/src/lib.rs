//! The engine of Walview without IO: what a change means.
//!
//! ```text
//!  pgoutput bytes ─► pgoutput ─► engine ─► changes of view results ─► target ─► store operations
//!                                  │ ▲
//!  pipeline SQL ──► sql ─► plan ───┘ └── state (a trait: rows, reverse keys, groups)
//! ```
//!
//! Invariants of this crate, held by its lints and its dependency list:
//! - no IO, no clock, no randomness: time, bytes and state are arguments;
//! - the same state and the same input give the same output, byte for byte
//!   (the Redis writer runs ahead of the local commit and relies on it);
//! - bytes from outside never panic.

pub mod catalog;
pub mod diagnostic;
pub mod engine;
pub mod expr;
pub mod outbox;
pub mod pgoutput;
pub mod plan;
pub mod position;
pub mod sql;
pub mod target;
pub mod value;
