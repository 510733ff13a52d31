//! Waiting for what fails and may come back.
//!
//! One log line when an outage starts and one when it ends, whatever happens in between.

use super::PipelineError;
use super::board::{Board, StoreState};
use crate::stores::StoreError;
use rand::RngExt;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// First and longest wait between attempts.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// Doubling, capped, with jitter so that what failed together does not come back all at once.
#[must_use]
pub fn backoff(attempt: u32) -> Duration {
    let (first, longest) = BACKOFF;
    let full = first.saturating_mul(1 << attempt.min(10)).min(longest);
    full.mul_f64(rand::rng().random_range(0.5..=1.0))
}

/// An error with its causes, which `Display` alone hides.
#[must_use]
pub fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// The attempts at one store.
pub struct Patience {
    board: Arc<Board>,
    index: usize,
    name: String,
    stop: watch::Receiver<bool>,
    attempt: u32,
    outage: Option<Instant>,
}

impl Patience {
    #[must_use]
    pub fn new(board: Arc<Board>, index: usize, name: &str, stop: watch::Receiver<bool>) -> Self {
        Self { board, index, name: name.to_owned(), stop, attempt: 0, outage: None }
    }

    /// Waits after a failure that may pass.
    ///
    /// # Errors
    /// The failure does not pass by itself, or the process is to stop.
    pub async fn after(&mut self, error: StoreError) -> Result<(), PipelineError> {
        let text = describe(&error);
        if matches!(error, StoreError::Stop { .. }) {
            self.board.store(self.index, StoreState::Stopped, Some(&text));
            return Err(PipelineError::Store { name: self.name.clone(), error });
        }
        self.board.store(self.index, StoreState::Retrying, Some(&text));
        if self.outage.is_none() {
            self.outage = Some(Instant::now());
            tracing::warn!(store = self.name, error = text, "store fails, trying again");
        }
        let wait = backoff(self.attempt);
        self.attempt = self.attempt.saturating_add(1);
        tokio::select! {
            () = tokio::time::sleep(wait) => Ok(()),
            _ = self.stop.wait_for(|stop| *stop) => Err(PipelineError::Stopping),
        }
    }

    /// It works again.
    pub fn works(&mut self, state: StoreState) {
        self.attempt = 0;
        self.board.store(self.index, state, None);
        if let Some(since) = self.outage.take() {
            let seconds = since.elapsed().as_secs();
            tracing::info!(store = self.name, outage_seconds = seconds, "store is back");
        }
    }
}
