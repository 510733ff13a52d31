//! Everything that talks to the source PostgreSQL.
//!
//! ```text
//!  config ─► connect ─┬─ SQL ─────────► server, catalog, publication, slot: what is there, and what
//!                     │                 is missing, with the statement to type
//!                     ├─ COPY ────────► snapshot ─► rows as of the slot's consistent point
//!                     └─ replication ─► slot (creation, exported snapshot), stream ─► events
//! ```
//!
//! Invariants:
//! - every session has the same pinned settings, so the same value has the same text in COPY, in the
//!   stream and in verify; where values come in binary they are the same values;
//! - an error says whether to retry or to stop, and what to type ([`SourceError`]);
//! - nothing here decides what is durable: positions move only through [`stream::Stream::confirm`];
//! - no slot and no transaction outlives what it was opened for.

pub mod capacity;
pub mod catalog;
pub mod config;
mod connect;
mod copy_binary;
mod copy_text;
mod error;
pub mod estimate;
pub mod fingerprint;
pub mod frames;
pub mod partitions;
pub mod privileges;
pub mod publication;
mod replication;
pub mod server;
pub mod slot;
pub mod snapshot;
mod socket;
pub mod stream;
#[cfg(test)]
mod tests;

pub use config::{ConfigError, Secret, SourceConfig, TlsMode};
pub use connect::{Session, connect};
pub use error::{Action, Fix, Kind, SourceError};
