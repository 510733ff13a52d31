//! Do state, slot, server and file belong together? A gap is never guessed over.

use super::PipelineError;
use super::preflight::Found;
use crate::config::{Connections, Pipeline};
use crate::source::config::SourceConfig;
use crate::state::{Identity, Progress};

/// How a start goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// There is no state yet: a snapshot.
    First,
    /// An earlier first snapshot did not end: it starts over.
    Over,
    /// Where an earlier run was.
    Resume,
}

/// How `walview run` would start.
///
/// # Errors
/// What does not belong together, with what to type.
pub fn start(
    pipeline: &Pipeline,
    connections: &Connections,
    stored: Option<(&Identity, &Progress)>,
    found: &Found,
) -> Result<Start, PipelineError> {
    let slot_name = pipeline.slot_name();
    match stored {
        Some((identity, progress)) if identity.live => {
            check(pipeline, connections, (identity, progress), found)?;
            Ok(Start::Resume)
        }
        // Only a slot that our own unfinished snapshot made is ours to replace.
        Some((identity, _)) if identity.slot == slot_name => Ok(Start::Over),
        stored if found.slot.is_none() => {
            Ok(if stored.is_some() { Start::Over } else { Start::First })
        }
        _ => Err(PipelineError::refused(
            format!(
                "slot \"{slot_name}\" exists, but there is no local state for it: the state \
                 folder was lost, or another walview uses the slot"
            ),
            "name the right folder with --state, or fill everything anew with: walview rebuild",
        )),
    }
}

fn check(
    pipeline: &Pipeline,
    connections: &Connections,
    (identity, progress): (&Identity, &Progress),
    found: &Found,
) -> Result<(), PipelineError> {
    let rebuild = "if that is meant, fill everything anew with: walview rebuild";
    if identity.definition != pipeline.canonical(connections) {
        return Err(PipelineError::refused(
            format!(
                "the pipeline file \"{}\" has changed since its state was built",
                pipeline.file.display()
            ),
            "walview plan says whether it fits; if it is meant, fill everything anew with: walview \
             rebuild",
        ));
    }
    let lineage = found.info.lineage;
    if identity.system_identifier != lineage.system_identifier.to_string()
        || identity.database_oid != found.info.database_oid
    {
        return Err(PipelineError::refused(
            format!(
                "source.url leads to another database than the one this state was built from \
                 (system identifier {}, was {})",
                lineage.system_identifier, identity.system_identifier
            ),
            rebuild,
        ));
    }
    if identity.timeline != lineage.timeline {
        return Err(PipelineError::refused(
            format!(
                "the server is on timeline {}, the state is from timeline {}: a standby was \
                 promoted or a backup restored, and commits may be missing",
                lineage.timeline, identity.timeline
            ),
            rebuild,
        ));
    }
    slot_goes_on(&connections.source, identity, progress, found)
}

fn slot_goes_on(
    source: &SourceConfig,
    identity: &Identity,
    progress: &Progress,
    found: &Found,
) -> Result<(), PipelineError> {
    match &found.slot {
        None => Err(PipelineError::refused(
            format!("slot \"{}\" is gone: changes since then are lost", identity.slot),
            "fill everything anew with: walview rebuild",
        )),
        // A holder is waited for when the stream starts.
        Some(slot) => match slot.require(source, progress.confirmed()) {
            Err(error) if !error.is_retry() => Err(error.into()),
            _ => Ok(()),
        },
    }
}
