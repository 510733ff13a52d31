//! The thread for what is between a commit and its being visible: the pump, and the writers that need
//! not wait for the local commit.
//!
//! Its runtime is its own and has one thread, so that nothing else of the process comes before them (to
//! build one insert of `ClickHouse` takes milliseconds), and no thread is woken to look for work that
//! another one has already.

use super::PipelineError;
use std::future::Future;
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

/// Runs until it is dropped; what it still works on then is dropped, too.
pub(super) struct Near {
    handle: Handle,
    _ends: oneshot::Sender<()>,
}

impl Near {
    /// # Errors
    /// The system has no thread left.
    pub(super) fn start() -> Result<Self, PipelineError> {
        let thread = || {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            let handle = runtime.handle().clone();
            let (ends, ended) = oneshot::channel::<()>();
            let work = move || drop(runtime.block_on(ended));
            std::thread::Builder::new().name("near".to_owned()).spawn(work)?;
            Ok(Self { handle, _ends: ends })
        };
        thread().map_err(|error: std::io::Error| {
            PipelineError::refused(
                format!("cannot start a thread: {error}"),
                "allow the process more threads",
            )
        })
    }

    pub(super) fn spawn<T: Send + 'static>(
        &self,
        tasks: &mut JoinSet<T>,
        task: impl Future<Output = T> + Send + 'static,
    ) {
        tasks.spawn_on(task, &self.handle);
    }
}
