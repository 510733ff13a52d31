//! A pipeline bound to its source's catalog: views, targets and the publication they need.

use crate::config::{Connections, Pipeline, Problems, StoreKind, TargetKind as SpecKind};
use crate::source::fingerprint::Asked;
use crate::source::publication::PublishedTable;
use crate::stores::any::AnyStore;
use crate::stores::{Identity as StoreIdentity, clickhouse, redis};
use walview_core::catalog::Catalog;
use walview_core::diagnostic::Diagnostic;
use walview_core::engine::{Layout, Target, TargetKind};
use walview_core::plan::View;
use walview_core::sql;
use walview_core::target;

/// What runs, once the catalog is known.
pub struct Bound {
    pub views: Vec<View>,
    pub layout: Layout,
    pub targets: Vec<Target>,
}

/// The tables that a pipeline's views name, each once.
#[must_use]
pub fn table_names(pipeline: &Pipeline, schema: &str) -> Vec<(String, String)> {
    let mut names: Vec<(String, String)> = Vec::new();
    for table in pipeline.views.iter().flat_map(|view| view.parsed.tables()) {
        let name = (table.schema.clone().unwrap_or_else(|| schema.to_owned()), table.name.clone());
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// Binds every view and target.
///
/// # Errors
/// Everything that does not fit the catalog, at its place in the file.
pub fn bind(pipeline: &Pipeline, schema: &str, catalog: &Catalog) -> Result<Bound, Problems> {
    let mut problems = Vec::new();
    let mut views = Vec::new();
    for (index, spec) in pipeline.views.iter().enumerate() {
        let known = catalog.known_to(spec.name.as_str());
        match sql::bind(&spec.parsed, spec.name.as_str(), &known, schema) {
            Ok(view) => views.push(view),
            Err(list) => problems.extend(pipeline.sql_diagnostics(index, list)),
        }
    }
    if !problems.is_empty() {
        return Err(pipeline.problems(problems));
    }
    let mut targets = Vec::new();
    let mut numbers = vec![0_u16; pipeline.stores.len()];
    for (index, (spec, view)) in pipeline.views.iter().zip(&views).enumerate() {
        if !view.key_hint.is_empty() {
            let message = format!(
                "view \"{}\" does not show the key of its result: a store could not tell its rows apart",
                view.name
            );
            problems.push(Diagnostic::new(spec.place, message, view.key_hint.clone()));
            continue;
        }
        let (parsed, catalog) = (&spec.parsed, catalog.known_to(&view.name));
        for target in &spec.targets {
            let bound = match &target.kind {
                SpecKind::Redis(spec) => {
                    target::redis::Target::bind(spec, view).map(TargetKind::Redis)
                }
                SpecKind::ClickHouse(spec) => target::clickhouse::Target::bind(spec, view)
                    .map(|bound| bound.with_origins(&view.origins(&catalog)))
                    .map(|bound| {
                        let earlier = (0..catalog.generation()).filter_map(|generation| {
                            let catalog = catalog.as_of(generation);
                            let view = sql::bind(parsed, &view.name, &catalog, schema).ok()?;
                            let bound = target::clickhouse::Target::bind(spec, &view).ok()?;
                            Some(bound.with_origins(&view.origins(&catalog)))
                        });
                        bound.widened(earlier.collect(), catalog.taken_in_at())
                    })
                    .map(TargetKind::ClickHouse),
            };
            match bound {
                Ok(kind) => {
                    let Some(next) = numbers.get_mut(target.store) else {
                        continue;
                    };
                    targets.push(Target { view: index, store: target.store, number: *next, kind });
                    *next += 1;
                }
                Err(list) => problems
                    .extend(list.into_iter().map(|text| Diagnostic::new(target.place, text, ""))),
            }
        }
    }
    let layout = Layout::new(&views, catalog);
    match layout {
        Ok(layout) if problems.is_empty() => Ok(Bound { views, layout, targets }),
        Ok(_) => Err(pipeline.problems(problems)),
        Err(error) => {
            let place = pipeline.views.iter().find(|view| view.name.as_str() == error.view);
            let place = place.map(|view| view.place).unwrap_or_default();
            problems.push(Diagnostic::new(
                place,
                format!("view \"{}\": {}", error.view, error.message),
                error.remedy,
            ));
            Err(pipeline.problems(problems))
        }
    }
}

/// The tables whose catalogs are watched.
#[must_use]
pub fn asked(layout: &Layout) -> Vec<Asked> {
    let tables = layout.tables.iter();
    tables.map(|table| (table.schema.clone(), table.name.clone(), Some(table.oid))).collect()
}

/// By view, the inputs of which `*` shows every column.
#[must_use]
pub fn stars(pipeline: &Pipeline) -> Vec<Vec<usize>> {
    pipeline.views.iter().map(|view| view.parsed.stars()).collect()
}

/// What the publication must send.
#[must_use]
pub fn published(layout: &Layout) -> Vec<PublishedTable> {
    layout
        .tables
        .iter()
        .map(|table| PublishedTable {
            schema: table.schema.clone(),
            name: table.name.clone(),
            columns: table.columns.iter().map(|column| column.name.clone()).collect(),
            whole: false,
        })
        .collect()
}

/// The pipeline's stores, not yet connected, each with its own targets.
#[must_use]
pub fn stores(
    pipeline: &Pipeline,
    connections: &Connections,
    targets: &[Target],
    identity: &StoreIdentity,
) -> Vec<AnyStore> {
    let mut stores = Vec::new();
    for (index, connection) in connections.stores.iter().enumerate() {
        let own = targets.iter().filter(|target| target.store == index);
        stores.push(match pipeline.stores.get(index).map(|store| store.kind) {
            Some(StoreKind::ClickHouse) => {
                let own = own.filter_map(|target| match &target.kind {
                    TargetKind::ClickHouse(target) => Some(target.clone()),
                    TargetKind::Redis(_) => None,
                });
                let config = clickhouse::Config {
                    url: connection.url_with_password(),
                    database: connection.database.clone().unwrap_or_default(),
                    identity: identity.clone(),
                };
                AnyStore::ClickHouse(Box::new(clickhouse::ClickHouse::new(config, own.collect())))
            }
            Some(StoreKind::Redis) | None => {
                let own = own.filter_map(|target| match &target.kind {
                    TargetKind::Redis(target) => Some(target.clone()),
                    TargetKind::ClickHouse(_) => None,
                });
                let config = redis::Config {
                    url: connection.url_with_password(),
                    identity: identity.clone(),
                    accept_eviction: false,
                };
                AnyStore::Redis(Box::new(redis::Redis::new(config, own.collect())))
            }
        });
    }
    stores
}
