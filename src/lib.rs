//! Walview: SQL views over PostgreSQL, kept exactly in Redis and ClickHouse.
//!
//! ```text
//!  cli ──► check            config: a file to a validated pipeline; no server
//!      └─► run, status, …   the service around `walview_core`
//! ```

pub mod check;
pub mod cli;
pub mod config;
pub mod demo;
pub mod fail_point;
pub mod http;
pub mod letters;
pub mod logging;
pub mod output;
pub mod plan;
pub mod service;
pub mod source;
pub mod state;
pub mod status;
pub mod stores;
pub mod verify;
