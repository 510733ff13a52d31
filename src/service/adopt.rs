//! Tables of the user's own behind `ClickHouse` targets.
//!
//! ```text
//!  first start, rebuild:  look ─► Standing ─► the target takes the table's types ─► Identity
//!  later starts:          Identity ─► the target's types; the store stops a view whose table differs
//!  verify:                look ─► the target takes the table's types
//! ```
//!
//! Invariant: rows are encoded for the types that the local identity holds, never for what a table
//! has become since.

use super::PipelineError;
use super::bound::Bound;
use crate::config::{Connections, Pipeline};
use crate::state::AdoptedTable;
use crate::stores::Identity as StoreIdentity;
use crate::stores::clickhouse::{self, Standing};
use walview_core::diagnostic::{Diagnostic, Place};
use walview_core::engine::TargetKind;
use walview_core::target::clickhouse::rows_database;

/// Looks at every `ClickHouse` target's table, and takes over the types of those that the user
/// made. Changes nothing in a store.
///
/// # Errors
/// Everything in which tables do not fit, at their targets' places in the file; a store that does
/// not answer.
pub async fn look(
    pipeline: &Pipeline,
    connections: &Connections,
    bound: &mut Bound,
) -> Result<Vec<AdoptedTable>, PipelineError> {
    let (mut adopted, mut problems) = (Vec::new(), Vec::new());
    let places: Vec<Place> = pipeline
        .views
        .iter()
        .flat_map(|view| view.targets.iter().map(|target| target.place))
        .collect();
    for (target, place) in bound.targets.iter_mut().zip(places) {
        let TargetKind::ClickHouse(table) = &mut target.kind else {
            continue;
        };
        let Some(connection) = connections.stores.get(target.store) else {
            continue;
        };
        let config = clickhouse::Config {
            url: connection.url_with_password(),
            database: connection.database.clone().unwrap_or_default(),
            // Of the identity only the pipeline's name plays a part where nothing is written.
            identity: StoreIdentity {
                pipeline: pipeline.name.to_string(),
                system: 0,
                slot: pipeline.slot_name(),
            },
        };
        let store = connection.name.to_string();
        let standing = clickhouse::look(&config, table)
            .await
            .map_err(|error| PipelineError::Store { name: store.clone(), error })?;
        match standing {
            Standing::Absent | Standing::Own => {}
            Standing::Adopted(found) => {
                let types = found.types();
                adopted.push(AdoptedTable { store, table: found.table().to_owned(), types });
                *table = *found;
            }
            Standing::Refused(misfits) => {
                let at = format!("{store}/{}.{}", rows_database(&config.database), table.table());
                problems.extend(misfits.into_iter().map(|misfit| {
                    Diagnostic::new(place, format!("{at}: {}", misfit.cause), misfit.remedy)
                }));
            }
        }
    }
    if problems.is_empty() {
        Ok(adopted)
    } else {
        Err(PipelineError::Problems(pipeline.problems(problems)))
    }
}

/// Gives the targets the types that an earlier look recorded.
///
/// # Errors
/// What was recorded is not of these targets: the state is damaged.
pub fn recall(
    pipeline: &Pipeline,
    bound: &mut Bound,
    adopted: &[AdoptedTable],
) -> Result<(), PipelineError> {
    for target in &mut bound.targets {
        let TargetKind::ClickHouse(table) = &mut target.kind else {
            continue;
        };
        let store = pipeline.stores.get(target.store).map(|store| store.name.as_str());
        let known = adopted
            .iter()
            .find(|known| Some(known.store.as_str()) == store && known.table == table.table());
        if let Some(known) = known {
            *table = table.with_types(&known.types).ok_or_else(|| {
                PipelineError::refused(
                    format!("the types recorded for table \"{}\" are damaged", known.table),
                    "run: walview rebuild",
                )
            })?;
        }
    }
    Ok(())
}
