//! Replication sessions, one after the other, with the clock and the watch beside them.

use super::PipelineError;
use super::bound;
use super::drift;
use super::engine_loop::{EngineLoop, Input};
use super::follow::Grown;
use super::near::Near;
use super::patience::describe;
use super::pipeline::Runner;
use super::watch::Watch;
use crate::fail_point;
use crate::letters::Desk;
use crate::source::server::{self, Lineage};
use crate::source::stream::{Format, Resume, Stream};
use crate::source::{Kind, SourceConfig, connect, publication};
use crate::state::{Identity, LocalStore};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use walview_core::position::Lsn;

/// Gulps between the replication stream and the engine.
const GULPS_MAX: usize = 4;
/// How often the source is asked for its clock.
const CLOCK_EVERY: Duration = Duration::from_secs(1);
/// A session that held this long starts the back-off anew.
const STABLE_AFTER: Duration = Duration::from_secs(30);

/// How a session ended.
enum Ended {
    Stopping,
    Failed(PipelineError),
}

impl Runner {
    /// Streams until told to stop; a session that fails in a way that may pass is replaced. Ends with
    /// the state where an added column is to be taken in.
    pub(super) async fn sessions(
        &self,
        mut engine: EngineLoop,
        identity: &Identity,
        near: &Near,
        writers: &mut JoinSet<(usize, Result<(), PipelineError>)>,
    ) -> Result<Option<(LocalStore, Grown)>, PipelineError> {
        let (mut attempt, mut outage) = (0_u32, None::<Instant>);
        let mut format = Format::of(engine.engine.layout());
        loop {
            let error = match self.start(&engine, identity, format, near).await {
                Ok(stream) => {
                    self.board.source(None);
                    if let Some(since) = outage.take() {
                        let seconds = since.elapsed().as_secs();
                        tracing::info!(outage_seconds = seconds, "stream is resumed");
                    } else {
                        tracing::info!(lsn = %engine.progress.confirmed(), "stream started");
                    }
                    let started = Instant::now();
                    let (back, ended) =
                        Box::pin(self.session(engine, stream, near, writers)).await?;
                    engine = back;
                    if started.elapsed() >= STABLE_AFTER {
                        attempt = 0;
                    }
                    match ended {
                        Ended::Stopping => return Ok(None),
                        Ended::Failed(PipelineError::Grown(grown)) => {
                            return Ok(Some((engine.store, grown)));
                        }
                        Ended::Failed(PipelineError::Rewound) => continue,
                        Ended::Failed(error) => error,
                    }
                }
                Err(error) => error,
            };
            if format == Format::Binary && is_for_text(&error) {
                tracing::warn!(error = describe(&error), "values are asked for as text");
                format = Format::Text;
                continue;
            }
            if !error.is_retry() {
                return Err(error);
            }
            let text = describe(&error);
            self.board.source(Some(&text));
            if outage.is_none() {
                outage = Some(Instant::now());
                tracing::warn!(error = text, "stream ended, trying again");
            }
            if self.back_off(attempt).await.is_err() {
                return Ok(None);
            }
            attempt = attempt.saturating_add(1);
        }
    }

    async fn start(
        &self,
        engine: &EngineLoop,
        identity: &Identity,
        format: Format,
        near: &Near,
    ) -> Result<Stream, PipelineError> {
        let lineage = identity
            .system_identifier
            .parse()
            .ok()
            .map(|system_identifier| Lineage { system_identifier, timeline: identity.timeline });
        let resume = Resume {
            confirmed: engine.progress.confirmed(),
            last_commit: Some((Lsn(engine.progress.commit_lsn), engine.progress.committed_at)),
        };
        // The publication has the slot's name.
        let (source, slot) = (self.source.clone(), identity.slot.clone());
        let starting =
            async move { Stream::start(&source, &slot, &slot, resume, lineage, format).await };
        Ok(near.run(starting).await??)
    }

    fn watch(&self, engine: &EngineLoop, inputs: mpsc::Sender<Input>) -> Watch {
        let layout = engine.engine.layout();
        Watch {
            source: self.source.clone(),
            pipeline: self.pipeline.name.to_string(),
            slot: self.pipeline.slot_name(),
            asked: bound::asked(layout),
            published: bound::published(layout),
            whole: (0..layout.tables.len())
                .map(|table| !drift::showing_all(layout, &engine.schema.stars, table).is_empty())
                .collect(),
            board: Arc::clone(&self.board),
            changed: Arc::clone(&engine.schema.changed),
            inputs,
        }
    }

    /// One session: pump, clock, watch and engine until one of them ends.
    async fn session(
        &self,
        mut engine: EngineLoop,
        stream: Stream,
        near: &Near,
        writers: &mut JoinSet<(usize, Result<(), PipelineError>)>,
    ) -> Result<(EngineLoop, Ended), PipelineError> {
        engine.replay_to = stream.flushed();
        let (inputs, mut received) = mpsc::channel(GULPS_MAX);
        let (confirm, confirmed) = watch::channel(engine.progress.confirmed());
        let runtime = tokio::runtime::Handle::current();
        let watch = self.watch(&engine, inputs.clone());
        let working = tokio::task::spawn_blocking(move || {
            let ran = engine.run(&runtime, &mut received, &confirm);
            (engine, ran)
        });
        let mut clock = JoinSet::new();
        // The publication has the slot's name.
        let publication = self.pipeline.slot_name();
        clock.spawn(clock_of(self.source.clone(), publication, inputs.clone()));
        clock.spawn(orders_of(Arc::clone(&self.desk), inputs.clone()));
        clock.spawn(watch.run());
        let pumping = near.run(pump(stream, inputs, confirmed, self.stop.clone()));
        tokio::pin!(pumping);
        let pumped = loop {
            tokio::select! {
                pumped = &mut pumping => break pumped?,
                Some(joined) = writers.join_next() => {
                    // The other stores and the source go on; the board says what happened.
                    if let (_, Err(error)) = joined.map_err(PipelineError::task)? {
                        tracing::error!(error = describe(&error), "a store stopped");
                    }
                }
            }
        };
        // The pump is gone and the clock goes: the engine's input ends, and it commits what is whole.
        clock.shutdown().await;
        let (engine, ran) = working.await.map_err(PipelineError::task)?;
        let (mut stream, pumped) = pumped;
        stream.confirm(engine.progress.confirmed());
        stream.stop().await;
        let ended = match (ran, pumped) {
            (Err(error), _) => Ended::Failed(error),
            (Ok(()), Err(error)) => Ended::Failed(error),
            (Ok(()), Ok(())) => Ended::Stopping,
        };
        Ok((engine, ended))
    }
}

/// A column that no view reads, an array of a type without a send function, ends the whole stream.
fn is_for_text(error: &PipelineError) -> bool {
    matches!(error, PipelineError::Source(error) if error.kind == Kind::NoBinaryForm)
}

/// Moves gulps to the engine and confirmed positions to the server. Ends well when told to stop or
/// when the engine ended, whose own error then counts.
async fn pump(
    mut stream: Stream,
    inputs: mpsc::Sender<Input>,
    mut confirmed: watch::Receiver<Lsn>,
    mut stop: watch::Receiver<bool>,
) -> (Stream, Result<(), PipelineError>) {
    let ended = loop {
        // Room first, so that a gulp that was read always has a place to go. Reserving, waiting for
        // a gulp and waiting for a position may all be dropped: nothing is lost.
        let permit = tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break Ok(()),
            changed = confirmed.changed() => match changed {
                Ok(()) => {
                    confirm(&mut stream, &mut confirmed);
                    continue;
                }
                Err(_engine_ended) => break Ok(()),
            },
            permit = inputs.reserve() => match permit {
                Ok(permit) => permit,
                Err(_engine_ended) => break Ok(()),
            },
        };
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break Ok(()),
            changed = confirmed.changed() => match changed {
                Ok(()) => confirm(&mut stream, &mut confirmed),
                Err(_engine_ended) => break Ok(()),
            },
            gulp = stream.next() => match gulp {
                Ok(gulp) => permit.send(Input::Gulp(gulp)),
                Err(error) => break Err(error.into()),
            },
        }
    };
    (stream, ended)
}

fn confirm(stream: &mut Stream, confirmed: &mut watch::Receiver<Lsn>) {
    fail_point::hit(fail_point::CONFIRM_BEFORE);
    stream.confirm(*confirmed.borrow_and_update());
    fail_point::hit(fail_point::CONFIRM_AFTER);
}

/// Hands orders to the engine. One that is lost with the session is answered as such.
async fn orders_of(desk: Arc<Desk>, inputs: mpsc::Sender<Input>) {
    while let Some(order) = desk.next().await {
        if inputs.send(Input::Order(order)).await.is_err() {
            return;
        }
    }
}

/// Tells the engine, once a second, what the source had flushed at what time; and when the
/// publication is gone, which a stream from PostgreSQL 18 does not tell.
async fn clock_of(source: SourceConfig, publication: String, inputs: mpsc::Sender<Input>) {
    loop {
        // The stream reports a source that does not answer; the clock only waits for it.
        if let Ok(session) = connect(&source).await {
            while let Ok((lsn, at)) = server::clock(&session).await {
                if inputs.send(Input::Clock { lsn, at }).await.is_err() {
                    return;
                }
                if let Err(error) = publication::require(&session, &publication).await
                    && error.kind == Kind::PublicationMissing
                {
                    // The engine's end ends the session.
                    inputs.send(Input::Incomplete(error)).await.ok();
                    return;
                }
                tokio::time::sleep(CLOCK_EVERY).await;
            }
        }
        tokio::time::sleep(CLOCK_EVERY).await;
    }
}
