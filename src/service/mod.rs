//! `walview run`: pipelines that snapshot, stream and stop in order.
//!
//! ```text
//!  run ─► pipeline ─► bound (catalog, views, targets)
//!            │         snapshot, where there is no state yet
//!            │
//!            ├─ pump      replication stream ─► gulps          task, one for each session
//!            ├─ engine    gulps ─► state, outbox, feeds        thread, owns the local store
//!            └─ writers   feeds ─► stores                      task, one for each store; those of
//!                         Redis are with the pump on a thread of their own (`near`)
//! ```
//!
//! Shutdown order: the pump stops reading, the engine commits what is whole, the writers write what
//! waits, the process ends.

pub mod adopt;
pub mod board;
pub mod bound;
pub mod drift;
pub mod engine_loop;
pub mod feed;
pub mod follow;
pub mod ingest;
pub mod lineage;
mod local_commit;
mod merge;
pub mod metrics;
mod near;
pub mod orders;
pub mod patience;
pub mod pipeline;
pub mod preflight;
pub mod records;
mod run;
pub mod schema;
mod sessions;
pub mod snapshot;
mod watch;
mod weight;
pub mod writer;

pub use run::{rebuild, run};

use crate::config::Problems;
use crate::source::SourceError;
use crate::stores::StoreError;
use walview_core::engine::{EngineError, StateError};
use walview_core::pgoutput::DecodeError;

/// What ends a pipeline, or one of its sessions.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// Asked for: not a failure.
    #[error("stopping")]
    Stopping,
    #[error("{} problems in the pipeline file", .0.list().len())]
    Problems(Problems),
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error("store \"{name}\": {error}")]
    Store {
        name: String,
        #[source]
        error: StoreError,
    },
    #[error(transparent)]
    State(#[from] StateError),
    #[error(transparent)]
    Engine(#[from] EngineError),
    #[error("the replication stream cannot be decoded: {0}")]
    Decode(#[from] DecodeError),
    #[error(transparent)]
    Ingest(#[from] ingest::IngestError),
    /// The state, the slot and the file do not belong together.
    #[error("{message}; {remedy}")]
    Refused { message: String, remedy: String },
    /// A session ends so that an added column can be taken in: not a failure.
    #[error("table with oid {} has a new column \"{}\"", .0.table, .0.column)]
    Grown(follow::Grown),
    /// As `Grown`, in the middle of a transaction: it comes again.
    #[error("a column was added in a transaction")]
    Rewound,
    #[error("a task of the pipeline failed: {0}")]
    Task(#[source] tokio::task::JoinError),
}

impl PipelineError {
    #[must_use]
    pub fn task(error: tokio::task::JoinError) -> Self {
        Self::Task(error)
    }

    #[must_use]
    pub fn refused(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Refused { message: message.into(), remedy: remedy.into() }
    }

    /// Whether the same may succeed later without anybody's help.
    #[must_use]
    pub fn is_retry(&self) -> bool {
        matches!(self, Self::Source(error) if error.is_retry())
    }
}
