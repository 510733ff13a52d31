//! The suite: the real program between real servers, started as child processes.
//!
//! ```text
//!  world      all servers, `walview run` and a pipeline file, for one test
//!  workload   random transactions from a seed (`SEED=… cargo test` takes it back)
//!  oracle     the same SQL on PostgreSQL, compared with what the stores hold
//!  fail_points  death at each edge of a commit
//!  soak       the crash loop, short here and long in `make soak`
//!  stream     PostgreSQL's own decoding of the log, compared with a stream
//! ```
//!
//! Waits are for states, never for time. A server that cannot start fails the test.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    unreachable_pub,
    reason = "a test that meets the unexpected should panic where it stands, and says its seed"
)]

mod oracle;
mod stream;
mod workload;
mod world;

mod bi;
mod bounds;
mod changes;
mod compose;
mod crash;
mod dashboards;
mod dead_letters;
mod demo;
mod determinism;
mod end_to_end;
// Release builds have no fail points.
#[cfg(debug_assertions)]
mod fail_points;
mod fan_out;
#[cfg(debug_assertions)]
mod follow;
mod fuzz;
mod lineage;
mod liveness;
mod messages;
mod network;
mod old_rows;
mod oracles;
mod outages;
mod own_tables;
mod plan;
mod refill;
mod reports;
mod schema;
mod servers;
mod soak;
mod storm;
mod types;
mod whole;
