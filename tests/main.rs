//! The suite: the real program between real servers, started as child processes.
//!
//! ```text
//!  world      all servers, `walview run` and a pipeline file, for one test
//!  workload   random transactions from a seed (`SEED=… cargo test` takes it back)
//!  oracle     the same SQL on PostgreSQL, compared with what the stores hold
//! ```
//!
//! Waits are for states, never for time. A server that cannot start fails the test.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test that meets the unexpected should panic where it stands"
)]

mod servers;
