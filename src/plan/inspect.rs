//! Looks at everything that one pipeline touches.

use super::cost::Costs;
use super::report::{
    PipelinePlan, Problem, PublicationPlan, SlotPlan, SourcePlan, StartKind, StatePlan, StorePlan,
    TablePlan, TargetPlan, ViewPlan,
};
use crate::config::{Connections, Environment, Pipeline, Problems, StoreKind};
use crate::service::PipelineError;
use crate::service::adopt;
use crate::service::bound::{self, Bound};
use crate::service::lineage::{self, Start};
use crate::service::preflight::{self, Found};
use crate::source::estimate::{self, TableSize};
use crate::source::publication::Step;
use crate::source::slot::{SlotInfo, WalStatus};
use crate::source::{Kind, SourceConfig, SourceError, connect, slot};
use crate::state::{Identity, JOURNAL_BYTES_MAX, Peek, Progress, peek};
use crate::status;
use crate::stores::any::AnyStore;
use crate::stores::inspect::{Held, Inspected, Lack, Standing};
use crate::stores::{Identity as StoreIdentity, Store as _, StoreError};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use walview_core::catalog::Catalog;
use walview_core::engine::TargetKind;
use walview_core::plan::{View, ViewKind};

/// Open transactions are named once they are this old: younger ones end before anybody reads it.
const TRANSACTION_AGE_MIN: Duration = Duration::from_secs(5);
/// An average over less than this says nothing about a day.
const WAL_COUNTED_MIN: Duration = Duration::from_secs(3600);

/// # Errors
/// What is wrong with the file, its variables or its views, at their places. `plan` holds what was
/// found all the same.
pub(super) async fn inspect(
    pipeline: &Pipeline,
    environment: &Environment,
    state: &Path,
    plan: &mut PipelinePlan,
) -> Result<(), Problems> {
    let connections = pipeline.connect(environment)?;
    let folder = state.join(pipeline.name.as_str());
    let local = look_at_state(&folder, plan).await;
    let found = match preflight::look(pipeline, &connections.source).await {
        Ok(found) => Some(found),
        Err(error) => {
            plan.problems.push(unless_unreachable(&error));
            None
        }
    };
    let mut inspector = Inspector { pipeline, connections: &connections, local, plan };
    let bound = match &found {
        Some(found) => inspector.source(found).await,
        None => Ok(None),
    };
    let (mut bound, problems) = match bound {
        Ok(bound) => (bound, None),
        Err(problems) => (None, Some(problems)),
    };
    if let Some(bound) = &mut bound {
        // The types of the user's own tables; what does not fit, or does not answer, each store
        // says below.
        adopt::look(pipeline, &connections, bound).await.ok();
    }
    inspector.stores(found.as_ref(), bound.as_ref()).await;
    problems.map_or(Ok(()), Err)
}

/// The local state, as far as it plays a part.
enum Local {
    Nothing,
    /// Why is among the problems.
    Unreadable,
    InUse,
    Holds(Box<Identity>, Box<Progress>),
}

async fn look_at_state(folder: &Path, plan: &mut PipelinePlan) -> Local {
    let store = folder.join("store");
    let path = store.clone();
    let peeked = tokio::task::spawn_blocking(move || peek(&path)).await;
    let mut state = StatePlan {
        folder: folder.display().to_string(),
        holds: "nothing",
        durable_to: None,
        bytes: None,
        bytes_estimated: None,
        bytes_free: free_bytes(folder),
    };
    let local = match peeked {
        Ok(Ok(Peek::Nothing)) => Local::Nothing,
        Ok(Ok(Peek::InUse)) => {
            state.holds = "in_use";
            plan.start = Some(StartKind::Running);
            Local::InUse
        }
        Ok(Ok(Peek::Holds { identity, progress, bytes })) => {
            state.bytes = Some(bytes);
            match identity {
                None => Local::Nothing,
                Some(identity) => {
                    state.holds = if identity.live { "live" } else { "unfinished" };
                    if identity.live {
                        state.durable_to = Some(progress.confirmed().to_string());
                    }
                    Local::Holds(identity, progress)
                }
            }
        }
        Ok(Err(error)) => {
            let error = PipelineError::State(error);
            plan.problems.push(Problem::of_pipeline(&error));
            Local::Unreadable
        }
        Err(error) => {
            plan.problems.push(Problem::new("state", error.to_string(), ""));
            Local::Unreadable
        }
    };
    if let Some(at) = existing_ancestor(folder)
        && rustix::fs::access(&at, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK)
            .is_err()
    {
        plan.problems.push(Problem::new(
            "state",
            format!("folder \"{}\" cannot be written", at.display()),
            "name a folder that can be written with --state",
        ));
    }
    plan.state = Some(state);
    local
}

/// The folder itself, or the nearest one above it that is there.
fn existing_ancestor(folder: &Path) -> Option<PathBuf> {
    let absolute = std::path::absolute(folder).ok()?;
    absolute.ancestors().find(|at| at.is_dir()).map(Path::to_owned)
}

fn free_bytes(folder: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(&existing_ancestor(folder)?).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// A server that does not answer may do so when `run` starts.
fn unless_unreachable(error: &SourceError) -> Problem {
    let problem = Problem::of_source(error);
    if error.is_retry() && error.kind == Kind::Unreachable { problem.uncertain() } else { problem }
}

struct Inspector<'a> {
    pipeline: &'a Pipeline,
    connections: &'a Connections,
    local: Local,
    plan: &'a mut PipelinePlan,
}

impl Inspector<'_> {
    fn config(&self) -> &SourceConfig {
        &self.connections.source
    }

    /// The source and what the views need of it; the views where they can be bound.
    async fn source(&mut self, found: &Found) -> Result<Option<Bound>, Problems> {
        let version = found.info.version;
        self.plan.source = Some(SourcePlan {
            address: self.config().address(),
            version: format!("{}.{}", version / 10_000, version % 10_000),
            database: found.info.database.clone(),
            role: found.info.role.clone(),
        });
        let (of_tables, others): (Vec<_>, Vec<_>) =
            found.problems.iter().partition(|problem| problem.kind == Kind::Table);
        self.plan.problems.extend(others.into_iter().map(Problem::of_source));
        let start = self.start(found).await;
        if matches!(start, Some(StartKind::Resume | StartKind::Running)) {
            // The stream goes on, with the views that can.
            self.plan.notes.extend(of_tables.iter().map(ToString::to_string));
        } else {
            self.plan.problems.extend(of_tables.into_iter().map(Problem::of_source));
        }
        self.slot(found, start);
        // What the state holds was laid out by the catalog of its time.
        let catalog = match &self.local {
            Local::Holds(identity, _) if start == Some(StartKind::Resume) => {
                identity.catalog.clone()
            }
            Local::Holds(..) | Local::Nothing | Local::Unreadable | Local::InUse => {
                found.catalog.clone()
            }
        };
        let usable = self.without(found);
        let bound = bound::bind(&usable, &self.config().schema, &catalog)?;
        if let Some(slot) = &mut self.plan.slot {
            slot.text_only = bound.layout.text_only();
            slot.format = Some(if slot.text_only.is_some() { "text" } else { "binary" });
        }
        match self.needs(found, &bound, &catalog, start).await {
            Ok(()) => {}
            Err(error) => self.plan.problems.push(unless_unreachable(&error)),
        }
        Ok(Some(bound))
    }

    /// The pipeline without the views that use a table which cannot be followed.
    fn without(&self, found: &Found) -> Pipeline {
        let mut usable = self.pipeline.clone();
        let schema = &self.config().schema;
        usable.views.retain(|view| {
            view.parsed.tables().iter().all(|table| {
                let in_schema = table.schema.as_deref().unwrap_or(schema);
                !found.unusable.iter().any(|(s, name)| s == in_schema && *name == table.name)
            })
        });
        usable
    }

    async fn start(&mut self, found: &Found) -> Option<StartKind> {
        let stored = match &self.local {
            Local::InUse => {
                self.running().await;
                return Some(StartKind::Running);
            }
            Local::Holds(identity, progress) => Some((&**identity, &**progress)),
            Local::Nothing => None,
            Local::Unreadable => return None,
        };
        self.plan.start = match lineage::start(self.pipeline, self.connections, stored, found) {
            Ok(Start::First) => Some(StartKind::First),
            Ok(Start::Over) => Some(StartKind::Over),
            Ok(Start::Resume) => Some(StartKind::Resume),
            Err(error) => {
                self.plan.problems.push(Problem::of_pipeline(&error));
                None
            }
        };
        self.plan.start
    }

    /// What the instance says that has the state in use.
    async fn running(&mut self) {
        let state = self.plan.state.as_ref().map_or("", |state| state.folder.as_str());
        let folder = Path::new(state).parent().unwrap_or(Path::new("")).to_owned();
        match status::ask(&folder, self.pipeline.name.as_str()).await {
            Ok(status) => {
                let file = self.pipeline.definition_hash(self.connections);
                if status.definition != file {
                    self.plan.problems.push(Problem::new(
                        "state",
                        format!(
                            "the instance that runs (pid {}) was started from another definition than \
                             \"{}\" has now",
                            status.process.pid,
                            self.pipeline.file.display()
                        ),
                        "undo the change, or end it and fill everything anew with: walview rebuild",
                    ));
                }
            }
            Err(why) => {
                self.plan.problems.push(Problem::new("state", why, "").uncertain());
            }
        }
    }

    fn slot(&mut self, found: &Found, start: Option<StartKind>) {
        let capacity = &found.capacity;
        let bytes = |signed: Option<i64>| signed.and_then(|bytes| u64::try_from(bytes).ok());
        let known = found.slot.as_ref();
        let step = match (known.is_some(), start) {
            (false, _) => "create",
            (true, Some(StartKind::Over)) => "replace",
            (true, _) => "keep",
        };
        if let Some(slot) = known {
            self.held(slot, start);
        }
        self.plan.slot = Some(SlotPlan {
            name: self.pipeline.slot_name(),
            step,
            format: None,
            text_only: None,
            wal_status: known.map(|slot| wal_status(slot.wal_status)),
            retained_bytes: known.and_then(|slot| bytes(slot.retained)),
            held_by: known.and_then(|slot| slot.holder.as_ref()).map(|holder| {
                let name = holder.application.as_deref().unwrap_or("unknown application");
                format!("pid {} ({name})", holder.pid)
            }),
            slots_used: capacity.slots_used,
            slots_max: capacity.slots_max,
            senders_used: capacity.senders_used,
            senders_max: capacity.senders_max,
            wal_kept_bytes_max: found.info.max_slot_wal_keep_size,
            idle_seconds_max: capacity.idle_slot_timeout.map(|timeout| timeout.as_secs()),
            wal_bytes_per_day: capacity
                .wal
                .filter(|(_, counted)| *counted >= WAL_COUNTED_MIN)
                .map(|(bytes, counted)| bytes / counted.as_secs().max(1) * 86_400),
        });
    }

    /// A session that streams from the slot, and is not the instance that we know of.
    fn held(&mut self, slot: &SlotInfo, start: Option<StartKind>) {
        let Some(holder) = &slot.holder else { return };
        let ours = holder.application.as_deref() == Some(&self.config().application_name());
        if !(ours && start == Some(StartKind::Running)) {
            let held = slot.held(holder);
            self.plan.problems.push(Problem::of_source(&held));
        }
    }

    /// Grants, publication, sizes.
    async fn needs(
        &mut self,
        found: &Found,
        bound: &Bound,
        catalog: &Catalog,
        start: Option<StartKind>,
    ) -> Result<(), SourceError> {
        let session = connect(self.config()).await?;
        let copies = !matches!(start, Some(StartKind::Resume | StartKind::Running));
        let ready = preflight::readiness(self.pipeline, &session, bound, copies).await?;
        let whole = found.unusable.is_empty();
        for problem in &ready.problems {
            let mut problem = Problem::of_source(problem);
            if !whole && problem.statements.iter().any(|text| text.contains("PUBLICATION")) {
                // Not all tables are known: a statement without them would be pasted in vain.
                problem.statements.clear();
                problem.remedy = Some(
                    "mend the tables named here first: plan then prints the statement".to_owned(),
                );
            }
            self.plan.problems.push(problem);
        }
        let tables = bound.layout.tables.iter().zip(&ready.publication.columns);
        let listed: Vec<String> =
            tables.filter(|(_, list)| list.is_some()).map(|(table, _)| table.qualified()).collect();
        if !listed.is_empty() {
            self.plan.notes.push(format!(
                "some columns of {} are not published; set replica identities before the start: \
                 changed later, the application's UPDATE and DELETE fail for a moment \
                 (docs/schema-changes.md)",
                listed.join(", ")
            ));
        }
        let (step, statements) = match ready.publication.step {
            Step::Create(statement) => ("create", vec![statement]),
            Step::Alter(statements) => ("alter", statements),
            Step::Keep => ("keep", Vec::new()),
        };
        let name = self.pipeline.slot_name();
        if whole {
            self.plan.publication = Some(PublicationPlan { name, step, statements });
        }
        if copies {
            for blocker in slot::writing(&session).await? {
                if blocker.age.is_none_or(|age| age >= TRANSACTION_AGE_MIN) {
                    self.plan.notes.push(format!(
                        "making the slot waits for transactions that write now to end: {blocker}"
                    ));
                }
            }
        }
        let mut sizes = BTreeMap::new();
        for table in &bound.layout.tables {
            sizes.insert(table.oid, estimate::load(&session, table.oid).await?);
        }
        session.close().await;
        self.costs(bound, catalog, &sizes);
        Ok(())
    }

    fn costs(&mut self, bound: &Bound, catalog: &Catalog, sizes: &BTreeMap<u32, TableSize>) {
        let costs = Costs { catalog, sizes };
        let mut estimated = Some(0);
        for (index, table) in bound.layout.tables.iter().enumerate() {
            let size = sizes.get(&table.oid);
            let state_bytes = costs.state(&bound.layout, index);
            estimated = estimated.zip(state_bytes).map(|(sum, bytes): (u64, u64)| sum + bytes);
            let mut views: Vec<String> = Vec::new();
            for view in table.uses.iter().filter_map(|(view, _)| bound.views.get(*view)) {
                if !views.contains(&view.name) {
                    views.push(view.name.clone());
                }
            }
            self.plan.tables.push(TablePlan {
                table: table.qualified(),
                rows: size.and_then(|size| size.rows),
                bytes: size.map_or(0, |size| size.bytes),
                columns: table.columns.iter().map(|column| column.name.clone()).collect(),
                columns_all: catalog.by_oid(table.oid).map_or(0, |table| table.columns.len()),
                state_bytes,
                views,
            });
        }
        let unknown: Vec<&str> = self
            .plan
            .tables
            .iter()
            .filter(|table| table.rows.is_none())
            .map(|table| table.table.as_str())
            .collect();
        if !unknown.is_empty() {
            self.plan
                .notes
                .push(format!("no estimate without statistics: ANALYZE {}", unknown.join(", ")));
        }
        if let Some(state) = &mut self.plan.state
            && matches!(self.plan.start, Some(StartKind::First | StartKind::Over))
        {
            state.bytes_estimated = estimated;
            if let Some((needs, free)) = estimated.zip(state.bytes_free)
                && needs + JOURNAL_BYTES_MAX > free
            {
                self.plan.notes.push(format!(
                    "the local state may need more than is free in \"{}\"",
                    state.folder
                ));
            }
        }
        for view in &bound.views {
            self.plan.views.push(view_plan(view, catalog, &costs));
        }
        for (index, store) in self.pipeline.stores.iter().enumerate() {
            let own = bound.targets.iter().filter(|target| target.store == index);
            let counted: Option<Vec<(u64, u64)>> = own
                .map(|target| costs.redis(bound.views.get(target.view)?, &target.kind))
                .collect();
            let total = counted.filter(|_| store.kind == StoreKind::Redis).map(|list| {
                list.iter().fold((0, 0), |(keys, bytes), (k, b)| (keys + k, bytes + b))
            });
            self.plan.stores.push(StorePlan {
                store: store.name.to_string(),
                kind: store.kind.as_str(),
                server: None,
                facts: Vec::new(),
                keys_max: total.map(|(keys, _)| keys),
                bytes_max: total.map(|(_, bytes)| bytes),
            });
        }
    }

    async fn stores(&mut self, found: Option<&Found>, bound: Option<&Bound>) {
        let identity = StoreIdentity {
            pipeline: self.pipeline.name.to_string(),
            system: found.map_or(0, |found| found.info.lineage.system_identifier),
            slot: self.pipeline.slot_name(),
        };
        let targets = bound.map_or(&[][..], |bound| &bound.targets);
        let stores = bound::stores(self.pipeline, self.connections, targets, &identity);
        for (index, store) in stores.into_iter().enumerate() {
            let Some(spec) = self.pipeline.stores.get(index) else { continue };
            let name = spec.name.to_string();
            if self.plan.stores.len() <= index {
                self.plan.stores.push(StorePlan {
                    store: name.clone(),
                    kind: spec.kind.as_str(),
                    server: None,
                    facts: Vec::new(),
                    keys_max: None,
                    bytes_max: None,
                });
            }
            match store.inspect().await {
                Ok(inspected) => self.store(index, &name, &store, inspected, bound),
                Err(error) => {
                    let certain = matches!(error, StoreError::Stop { .. });
                    let problem = Problem::of_store(&name, Lack::from(error));
                    self.plan.problems.push(if certain { problem } else { problem.uncertain() });
                }
            }
        }
    }

    fn store(
        &mut self,
        index: usize,
        name: &str,
        store: &AnyStore,
        inspected: Inspected,
        bound: Option<&Bound>,
    ) {
        let fills = matches!(self.plan.start, Some(StartKind::First | StartKind::Over));
        if self.plan.start == Some(StartKind::Resume) && inspected.problems.is_empty() {
            let lost = match inspected.mark {
                Held::Ours => None,
                Held::Nothing | Held::Loading if store.refills() => {
                    self.plan.notes.push(format!(
                        "store \"{name}\" has lost its mark: run removes what stands under its \
                         targets and fills it again from the local state"
                    ));
                    None
                }
                Held::Nothing | Held::Loading => Some("its mark is gone"),
                Held::Other => Some("it holds the mark of another source or slot"),
            };
            self.plan.problems.extend(lost.map(|why| {
                let remedy = "fill it again with: walview rebuild";
                Problem::new(format!("store \"{name}\""), why, remedy)
            }));
        }
        if fills && inspected.mark == Held::Other {
            self.plan.notes.push(format!(
                "store \"{name}\" holds what a pipeline of this name wrote from another source; it is \
                 emptied"
            ));
        }
        if let Some(plan) = self.plan.stores.get_mut(index) {
            if let Some((needs, room)) = plan.bytes_max.zip(inspected.room_bytes)
                && fills
                && needs > room
            {
                self.plan.notes.push(format!(
                    "{name}: the views may need up to about {} MB, and {} MB are left below maxmemory",
                    needs / 1_000_000,
                    room / 1_000_000
                ));
            }
            plan.server = Some(inspected.server);
            plan.facts = inspected.facts;
        }
        self.plan.notes.extend(inspected.notes.iter().map(|note| format!("{name}: {note}")));
        let lacks = inspected.problems.into_iter();
        self.plan.problems.extend(lacks.map(|lack| Problem::of_store(name, lack)));
        let Some(bound) = bound else { return };
        for target in bound.targets.iter().filter(|target| target.store == index) {
            let standing =
                inspected.standing.get(usize::from(target.number)).cloned().unwrap_or_default();
            let made = target_plan(name, store, &target.kind, &standing, fills);
            if let Some(view) = self.plan.views.get_mut(target.view) {
                view.targets.push(made);
            }
        }
    }
}

fn target_plan(
    store_name: &str,
    store: &AnyStore,
    kind: &TargetKind,
    standing: &Standing,
    fills: bool,
) -> TargetPlan {
    let (step, removed) = match (standing, fills) {
        (_, false) => ("keep", 0),
        (Standing::Nothing, true) => ("create", 0),
        (Standing::Keys { count, .. }, true) => ("empty", *count),
        (Standing::Table { rows, changed: false }, true) => ("empty", *rows),
        (Standing::Table { rows, changed: true }, true) => ("replace", *rows),
    };
    let (target, statements) = match (kind, store) {
        (TargetKind::ClickHouse(target), AnyStore::ClickHouse(store)) => {
            let makes = step == "create" || step == "replace";
            let statements = if makes { store.statements(target) } else { Vec::new() };
            (store.name_of(target), statements)
        }
        (TargetKind::ClickHouse(target), AnyStore::Redis(_)) => {
            (target.table().to_owned(), Vec::new())
        }
        (TargetKind::Redis(target), _) => (target.template().to_string(), Vec::new()),
    };
    TargetPlan {
        store: store_name.to_owned(),
        target,
        step,
        removed,
        removed_estimated: matches!(standing, Standing::Keys { exact: false, .. }),
        statements,
    }
}

fn view_plan(view: &View, catalog: &Catalog, costs: &Costs<'_>) -> ViewPlan {
    let kind = match &view.kind {
        ViewKind::Rows { .. } => "rows",
        ViewKind::Groups { by, .. } if by.is_empty() => "one",
        ViewKind::Groups { .. } => "groups",
    };
    let mut tables: Vec<String> = Vec::new();
    for input in &view.inputs {
        let name = catalog
            .by_oid(input.table)
            .map_or_else(String::new, |table| format!("{}.{}", table.schema, table.name));
        if !tables.contains(&name) {
            tables.push(name);
        }
    }
    let key = view.key.iter().filter_map(|index| view.columns.get(*index));
    ViewPlan {
        view: view.name.clone(),
        kind,
        key: key.map(|column| column.name.clone()).collect(),
        tables,
        rows_max: costs.rows(view),
        targets: Vec::new(),
    }
}

fn wal_status(status: WalStatus) -> &'static str {
    match status {
        WalStatus::Reserved => "reserved",
        WalStatus::Extended => "extended",
        WalStatus::Unreserved => "unreserved",
        WalStatus::Lost => "lost",
    }
}
