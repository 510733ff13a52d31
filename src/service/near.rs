//! The thread for what is between a commit and its being visible: the stream with its pump, and the
//! writers that need not wait for the local commit.
//!
//! Its runtime is its own and has one thread, so that nothing else of the process comes before them (to
//! build one insert of `ClickHouse` takes milliseconds), and no thread is woken to look for work that
//! another one has already. They share it: while a batch for one Redis is packed the others wait. What
//! reads the disk is left to other threads.

use super::PipelineError;
use std::future::Future;
use std::io;
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
    /// The system has no thread left, or no file descriptor.
    pub(super) async fn start() -> Result<Self, PipelineError> {
        let (ends, ended) = oneshot::channel::<()>();
        let (tell, told) = oneshot::channel();
        let work = move || match Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => {
                tell.send(Ok(runtime.handle().clone())).ok();
                runtime.block_on(ended).ok();
            }
            Err(error) => drop(tell.send(Err(error))),
        };
        let thread = std::thread::Builder::new().name("near".to_owned()).spawn(work);
        let started = match thread {
            Ok(_) => told.await.unwrap_or_else(|_ended| Err(io::ErrorKind::Other.into())),
            Err(error) => Err(error),
        };
        let handle = started.map_err(|error| {
            PipelineError::refused(
                format!("cannot start a thread: {error}"),
                "allow the process more threads and open files",
            )
        })?;
        Ok(Self { handle, _ends: ends })
    }

    /// One of several tasks.
    pub(super) fn spawn<T: Send + 'static>(
        &self,
        tasks: &mut JoinSet<T>,
        task: impl Future<Output = T> + Send + 'static,
    ) {
        tasks.spawn_on(task, &self.handle);
    }

    /// Works there and waits for it; dropped, it ends there.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, PipelineError> {
        let mut tasks = JoinSet::new();
        self.spawn(&mut tasks, task);
        let done = tasks.join_next().await.ok_or(PipelineError::Stopping)?;
        done.map_err(PipelineError::task)
    }
}
