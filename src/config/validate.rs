//! From what the file says to what it means: names, stores, SQL and targets against each other.
//!
//! Pure. Every fault is collected; a part that is wrong is left out and the rest still checked, but
//! nothing is reported twice for it.

use std::sync::Arc;

use walview_core::diagnostic::Place;
use walview_core::target::redis::SpecShape;

use super::env::{Setting, mentions_variable};
use super::name::Name;
use super::problem::{Problems, SourceText};
use super::raw::{Found, RawSource, RawStore, RawTarget, RawView};
use super::sql::ParsedView;
use super::yaml::{Text, quoted};
use super::{
    Pipeline, SettingPlaces, Source, Store, StoreKind, TargetKind, TargetSpec, ViewSpec, connect,
    raw, suggest, target, yaml,
};

/// Kinds of store that the format has and this version does not.
const STORE_KINDS_LATER: [&str; 1] = ["timescale"];

pub(super) fn pipeline(text: Arc<SourceText>) -> Result<Pipeline, Problems> {
    let mut found = Found::default();
    let pipeline = build(&text, &mut found);
    match pipeline {
        Some(pipeline) if found.list.is_empty() => Ok(pipeline),
        _ => Err(Problems::new(text, found.list)),
    }
}

fn build(text: &Arc<SourceText>, found: &mut Found) -> Option<Pipeline> {
    if let Some(place) = bare_carriage_return(&text.text) {
        found.push(place, "a carriage return without a line feed", "save with LF or CRLF lines");
        return None;
    }
    let root = yaml::parse(&text.text, &mut found.list);
    let Some(root) = root.filter(|root| root.value != yaml::Value::Null) else {
        if found.list.is_empty() {
            found.push(Place::default(), "holds nothing", "begin with pipeline: NAME");
        }
        return None;
    };
    let raw = raw::read(&root, found)?;
    let name = raw.name.and_then(|text| read_name(&text, "pipeline", found));
    let source = raw.source.and_then(|source| read_source(source, found));
    let stores_known = raw.stores.is_some();
    let stores: Vec<StoreEntry> =
        raw.stores.into_iter().flatten().map(|store| read_store(store, found)).collect();
    let mut views = Vec::new();
    let mut names: Vec<(String, Place)> = Vec::new();
    for view in raw.views {
        if let Some(name) = &view.name {
            if let Some((_, first)) = names.iter().find(|(other, _)| *other == name.text) {
                let message = format!("a second view is named {}", quoted(&name.text));
                found.push(name.place, message, format!("the first is in line {}", first.line));
            }
            names.push((name.text.clone(), name.place));
        }
        views.extend(read_view(view, &stores, found));
    }
    check_tables(&views, &stores, found);
    check_templates(&views, &stores, found);
    let stores = stores.into_iter().map(|entry| entry.store).collect::<Option<Vec<_>>>();
    let stores = stores.filter(|_| stores_known);
    let file = text.file.clone();
    Some(Pipeline {
        name: name?,
        file,
        source: source?,
        stores: stores?,
        views,
        text: Arc::clone(text),
    })
}

/// YAML takes it for a line break; editors, and our excerpts, do not.
fn bare_carriage_return(text: &str) -> Option<Place> {
    let number = |n: usize| u32::try_from(n + 1).unwrap_or(u32::MAX);
    text.split('\n').enumerate().find_map(|(index, line)| {
        let line = line.strip_suffix('\r').unwrap_or(line);
        let (before, _) = line.split_once('\r')?;
        Some(Place { line: number(index), column: number(before.chars().count()) })
    })
}

fn read_name(text: &Text, what: &str, found: &mut Found) -> Option<Name> {
    if mentions_variable(&text.text) {
        // Reported as such; that "$" is no letter need not be said again.
        return None;
    }
    Name::parse(&text.text)
        .map_err(|rule| {
            let message = format!("{} cannot name a {what}", quoted(&text.text));
            found.push(text.place, message, rule);
        })
        .ok()
}

fn read_setting(text: &Text, found: &mut Found) -> Option<Setting> {
    Setting::parse(&text.text)
        .map_err(|(message, remedy)| found.push(text.place, message, remedy))
        .ok()
}

fn place_of(text: Option<&Text>) -> Place {
    text.map_or_else(Place::default, |text| text.place)
}

fn read_source(raw: RawSource, found: &mut Found) -> Option<Source> {
    let places = SettingPlaces {
        url: place_of(raw.url.as_ref()),
        password_file: place_of(raw.password_file.as_ref()),
        namespace: place_of(raw.schema.as_ref()),
    };
    let schema = match &raw.schema {
        Some(text) => read_setting(text, found),
        None => Some(Setting::literal("public")),
    };
    let url = raw.url.and_then(|text| read_setting(&text, found))?;
    if let Some(literal) = url.as_literal() {
        found.list.extend(connect::source_url_problem(literal, places.url));
    }
    let password_file = match &raw.password_file {
        Some(text) => Some(read_setting(text, found)?),
        None => None,
    };
    Some(Source { url, password_file, schema: schema?, places })
}

/// A store as far as it is right. Its kind is kept where it is known, so that targets are checked
/// although, say, the URL is missing.
struct StoreEntry {
    name: String,
    kind: Option<StoreKind>,
    store: Option<Store>,
}

fn read_store(raw: RawStore, found: &mut Found) -> StoreEntry {
    let name = read_name(&raw.name, "store", found);
    let kind = read_kind(&raw, found);
    let mut entry = StoreEntry { name: raw.name.text.clone(), kind, store: None };
    let places = SettingPlaces {
        url: place_of(raw.url.as_ref()),
        password_file: place_of(raw.password_file.as_ref()),
        namespace: place_of(raw.database.as_ref()),
    };
    let mut setting = |text: Option<Text>| text.map(|text| read_setting(&text, found));
    let (url, password_file) = (setting(raw.url), setting(raw.password_file));
    let database = setting(raw.database);
    let Some(kind) = kind else { return entry };
    match (kind, &database) {
        (StoreKind::ClickHouse, None) => {
            let message = format!("store {} has no \"database\"", quoted(&raw.name.text));
            found.push(raw.name.place, message, "add database: NAME");
        }
        (StoreKind::Redis, Some(_)) => found.push(
            places.namespace,
            "a Redis store has no \"database\"",
            "write its number into the url: redis://host/0",
        ),
        (StoreKind::Redis, None) => {}
        (StoreKind::ClickHouse, Some(database)) => {
            if let Some(literal) = database.as_ref().and_then(Setting::as_literal) {
                found.list.extend(connect::database_problem(literal, places.namespace));
            }
        }
    }
    if let Some(literal) = url.as_ref().and_then(Option::as_ref).and_then(Setting::as_literal) {
        found.list.extend(connect::store_url_problem(kind, literal, places.url));
    }
    entry.store = (|| {
        Some(Store {
            name: name?,
            kind,
            url: url??,
            password_file: password_file.map_or(Some(None), |file| file.map(Some))?,
            database: database.map_or(Some(None), |database| database.map(Some))?,
            places,
        })
    })();
    entry
}

fn read_kind(raw: &RawStore, found: &mut Found) -> Option<StoreKind> {
    let text = raw.kind.as_ref().unwrap_or(&raw.name);
    let kind = StoreKind::ALL.into_iter().find(|kind| kind.as_str() == text.text);
    if kind.is_some() {
        return kind;
    }
    if STORE_KINDS_LATER.contains(&text.text.as_str()) {
        found.not_yet(text.place, &format!("a store of kind \"{}\"", text.text));
        return None;
    }
    let kinds = StoreKind::ALL.map(StoreKind::as_str);
    if raw.kind.is_some() {
        let message = format!("there is no kind of store {}", quoted(&text.text));
        found.push(text.place, message, suggest::remedy(&text.text, &kinds));
    } else {
        let message = format!("of what kind store {} is cannot be told", quoted(&text.text));
        let remedy = format!("add kind: {}, or name the store so", kinds.join(" or "));
        found.push(text.place, message, remedy);
    }
    None
}

fn read_view(raw: RawView<'_>, stores: &[StoreEntry], found: &mut Found) -> Option<ViewSpec> {
    let place = place_of(raw.name.as_ref());
    let name = raw.name.and_then(|text| read_name(&text, "view", found));
    let parsed = raw.sql.as_ref().and_then(|sql| match walview_core::sql::parse(&sql.text) {
        Ok(parsed) => Some(parsed),
        Err(list) => {
            found.list.extend(sql.diagnostics_in_file(list));
            None
        }
    });
    let mut targets = Vec::new();
    let mut complete = true;
    for raw in raw.targets {
        match read_target(&raw, stores, parsed.as_ref(), found) {
            Some(target) => targets.push(target),
            None => complete = false,
        }
    }
    // A view without some of its targets still takes part in the checks between views.
    if !complete && targets.is_empty() {
        return None;
    }
    Some(ViewSpec { name: name?, place, sql: raw.sql?, parsed: parsed?, targets })
}

fn read_target(
    raw: &RawTarget<'_>,
    stores: &[StoreEntry],
    parsed: Option<&ParsedView>,
    found: &mut Found,
) -> Option<TargetSpec> {
    let Some(store) = stores.iter().position(|entry| entry.name == raw.store.text) else {
        let names: Vec<&str> = stores.iter().map(|entry| entry.name.as_str()).collect();
        // Where there is none at all, that has been said.
        if !names.is_empty() {
            let message = format!("there is no store {}", quoted(&raw.store.text));
            found.push(raw.store.place, message, suggest::remedy(&raw.store.text, &names));
        }
        return None;
    };
    let (kind, places) = match stores.get(store)?.kind? {
        StoreKind::Redis => {
            let (spec, places) = target::read_redis(raw.options, found)?;
            (TargetKind::Redis(spec), places)
        }
        StoreKind::ClickHouse => {
            let (spec, places) = target::read_clickhouse(raw.options, found)?;
            (TargetKind::ClickHouse(spec), places)
        }
    };
    if let Some(columns) = parsed.and_then(ParsedView::output_names) {
        check_columns(&places, &columns, found);
    }
    Some(TargetSpec { store, place: raw.store.place, kind, options: places.options })
}

/// Columns that a target names and its view does not have. The binder would find them too, but only
/// with a server at hand and without their places.
fn check_columns(places: &target::Places, columns: &[String], found: &mut Found) {
    for (option, name) in &places.columns {
        if !columns.contains(&name.text) {
            let known: Vec<&str> = columns.iter().map(String::as_str).collect();
            let message =
                format!("\"{option}\" names {}, which the view does not have", quoted(&name.text));
            found.push(name.place, message, suggest::remedy(&name.text, &known));
        }
    }
}

/// Whether two stores are, as written, one and the same keyspace or database.
fn same_keyspace(a: &Store, b: &Store) -> bool {
    (a.kind, &a.url, &a.database) == (b.kind, &b.url, &b.database)
}

/// The targets of all views in file order, each with its view and store.
fn targets_of<'a>(
    views: &'a [ViewSpec],
    stores: &'a [StoreEntry],
) -> Vec<(&'a ViewSpec, &'a TargetSpec, Option<&'a Store>)> {
    let store = |target: &TargetSpec| stores.get(target.store).and_then(|e| e.store.as_ref());
    let of_view = |view: &'a ViewSpec| view.targets.iter().map(move |target| (view, target));
    views.iter().flat_map(of_view).map(|(view, target)| (view, target, store(target))).collect()
}

/// Whether two targets write to one place. A store that is itself wrong is only compared by name.
fn same_store(
    (_, a, a_store): &(&ViewSpec, &TargetSpec, Option<&Store>),
    (_, b, b_store): &(&ViewSpec, &TargetSpec, Option<&Store>),
) -> bool {
    a.store == b.store || matches!((a_store, b_store), (Some(a), Some(b)) if same_keyspace(a, b))
}

fn check_tables(views: &[ViewSpec], stores: &[StoreEntry], found: &mut Found) {
    let targets = targets_of(views, stores);
    for (index, later) in targets.iter().enumerate() {
        let TargetKind::ClickHouse(spec) = &later.1.kind else {
            continue;
        };
        let earlier = targets.iter().take(index).find(|earlier| {
            matches!(&earlier.1.kind, TargetKind::ClickHouse(other) if other.table == spec.table)
                && same_store(earlier, later)
        });
        if let Some((view, ..)) = earlier {
            let message =
                format!("table \"{}\" is also filled by view \"{}\"", spec.table, view.name);
            found.push(later.1.option_place("table"), message, "choose another name");
        }
    }
}

/// Two templates that can make the same key would overwrite each other's values. Streams may share
/// one: their entries lie side by side.
fn check_templates(views: &[ViewSpec], stores: &[StoreEntry], found: &mut Found) {
    let targets = targets_of(views, stores);
    for (index, later) in targets.iter().enumerate() {
        let TargetKind::Redis(spec) = &later.1.kind else {
            continue;
        };
        let is_stream = |spec: &SpecShape| matches!(spec, SpecShape::Stream { .. });
        let earlier = targets.iter().take(index).find(|earlier| {
            let TargetKind::Redis(other) = &earlier.1.kind else {
                return false;
            };
            let shared = is_stream(&spec.shape)
                && is_stream(&other.shape)
                && spec.template == other.template;
            !shared && spec.template.overlaps(&other.template) && same_store(earlier, later)
        });
        if let Some((view, target, _)) = earlier {
            let message = format!(
                "this key template can make keys of view \"{}\" (line {}) too",
                view.name, target.place.line
            );
            let remedy = "begin one of them with another word, such as the view's name";
            found.push(later.1.option_place(shape_key(&spec.shape)), message, remedy);
        }
    }
}

/// The option that holds the template.
fn shape_key(shape: &SpecShape) -> &'static str {
    match shape {
        SpecShape::String { .. } => "string",
        SpecShape::Hash => "hash",
        SpecShape::Json { .. } => "json",
        SpecShape::Set { .. } => "set",
        SpecShape::ZSet { .. } => "zset",
        SpecShape::Stream { .. } => "stream",
    }
}
