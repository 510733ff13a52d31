//! What a table of the user's may look like, and what not.

#![expect(clippy::unwrap_used, reason = "a spec that does not bind fails its test")]

use super::super::Spec;
use super::*;
use crate::plan::{OutputColumn, View, ViewKind};
use crate::value::Type;

fn target(partition_by: Option<&str>, types: &[(&str, &str)]) -> Target {
    let column = |name: &str, ty, nullable| OutputColumn { name: name.to_owned(), ty, nullable };
    let view = View {
        name: "bets".to_owned(),
        inputs: Vec::new(),
        filter: None,
        kind: ViewKind::Rows { output: Vec::new() },
        columns: vec![
            column("id", Type::Int8, false),
            column("at", Type::TimestampTz, false),
            column("amount", Type::Numeric(Some((12, 2))), true),
        ],
        key: vec![0],
        key_hint: String::new(),
    };
    let spec = Spec {
        table: "bets".to_owned(),
        order_by: vec!["at".to_owned(), "id".to_owned()],
        partition_by: partition_by.map(str::to_owned),
        types: types.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect(),
        fields: None,
        unfit_text: false,
    };
    Target::bind(&spec, &view).unwrap()
}

fn columns(list: &[(&str, &str)]) -> Vec<TableColumn> {
    let column = |(name, ty): &(&str, &str)| TableColumn {
        name: (*name).to_owned(),
        ty: (*ty).to_owned(),
        ..TableColumn::default()
    };
    list.iter().map(column).collect()
}

fn table(engine: &str, tail: &str) -> Table {
    Table {
        name: "`b_rows`.`bets`".to_owned(),
        engine: engine.to_owned(),
        engine_full: format!("{engine}{tail}"),
        sorting_key: "at, id".to_owned(),
        partition_key: String::new(),
        create_query: String::new(),
        columns: columns(&[
            ("_version", "UInt128"),
            ("amount", "Nullable(Decimal(18, 4))"),
            ("at", "DateTime64(3, 'Europe/Paris')"),
            ("id", "UInt64"),
            ("_deleted", "UInt8"),
            ("_committed_at", "DateTime64(6, 'Europe/Paris')"),
        ]),
    }
}

const ARGUMENTS: &str = "(_version, _deleted) ORDER BY (at, id)";

fn causes(target: &Target, table: &Table) -> Vec<String> {
    let misfits = target.adopt(table).err().unwrap_or_default();
    assert!(misfits.iter().all(|misfit| !misfit.remedy.is_empty()), "{misfits:?}");
    misfits.into_iter().map(|misfit| misfit.cause).collect()
}

fn one(target: &Target, table: &Table, cause: &str) {
    let found = causes(target, table);
    assert!(found.len() == 1 && found[0].contains(cause), "{found:?}: {cause}");
}

#[test]
fn types_of_a_table_are_adopted_and_recalled() {
    let target = target(None, &[]);
    let table = table("ReplacingMergeTree", ARGUMENTS);
    let adopted = target.adopt(&table).unwrap();
    assert_ne!(adopted.fingerprint(), target.fingerprint());
    assert_eq!(adopted.misfits(&table), []);
    let recalled = target.with_types(&adopted.types()).unwrap();
    assert_eq!(recalled.fingerprint(), adopted.fingerprint());
    assert!(target.misfits(&table)[0].cause.contains("and was Int64 when"));
    for types in [&adopted.types()[..2], &[("id".to_owned(), "JSON".to_owned())]] {
        assert!(target.with_types(types).is_none(), "{types:?}");
    }
}

#[test]
fn engines_of_the_family_keep_the_last_version() {
    let target = target(None, &[]);
    for (engine, tail) in [
        ("ReplacingMergeTree", ARGUMENTS),
        (
            "ReplicatedReplacingMergeTree",
            "('/tables/{uuid}/(a)', '{replica}', _version, _deleted) ORDER BY (at, id)",
        ),
        ("SharedReplacingMergeTree", "('/a', '{replica}', `_version`, _deleted) ORDER BY at"),
        (
            "ReplacingMergeTree",
            "(_version, _deleted) ORDER BY at TTL at + toIntervalDay(1) TO VOLUME 'cold', \
             at + toIntervalDay(2) RECOMPRESS CODEC(ZSTD(9)) SETTINGS index_granularity = 8192",
        ),
    ] {
        assert_eq!(causes(&target, &table(engine, tail)), [""; 0], "{engine}{tail}");
    }
    for (engine, tail, cause) in [
        ("MergeTree", " ORDER BY (_version, _deleted)", "engine is MergeTree,"),
        ("ReplacingMergeTree", " ORDER BY at", "engine is ReplacingMergeTree,"),
        ("ReplacingMergeTree", "(_version) ORDER BY at", "(_version)"),
        ("ReplacingMergeTree", "(id, _deleted) ORDER BY at", "(id, _deleted)"),
        ("AggregatingMergeTree", ARGUMENTS, "engine is AggregatingMergeTree("),
        ("View", "", "engine is View"),
        ("ReplacingMergeTree", "(_version, _deleted) TTL at + toIntervalDay(1)", "deletes rows"),
        (
            "ReplacingMergeTree",
            "(_version, _deleted) TTL at TO DISK 'a', at GROUP BY id SET n = max(n)",
            "deletes rows",
        ),
        (
            "ReplacingMergeTree",
            "(_version, _deleted) ORDER BY at SETTINGS \
             enable_replacing_merge_with_cleanup_for_min_age_to_force_merge = 1",
            "forget tombstones",
        ),
    ] {
        one(&target, &table(engine, tail), cause);
    }
}

#[test]
fn keys_must_agree() {
    let fits = || table("ReplacingMergeTree", ARGUMENTS);
    let keyed = |sorting: &str, partition: &str| Table {
        sorting_key: sorting.to_owned(),
        partition_key: partition.to_owned(),
        ..fits()
    };
    let none = target(None, &[]);
    let monthly = target(Some("toYYYYMM( at )"), &[]);
    assert_eq!(causes(&none, &keyed("(`at`, id)", "toYYYYMM(at)")), [""; 0]);
    assert_eq!(causes(&monthly, &keyed("at, id", "toYYYYMM(at)")), [""; 0]);
    one(&monthly, &keyed("at, id", ""), "partitioned by nothing");
    one(&monthly, &keyed("at, id", "toYYYYMMDD(at)"), "\"partition_by\" says toYYYYMM(at)");
    one(&none, &keyed("at, id", "amount"), "two versions of a row would not meet");
    assert_eq!(causes(&none, &keyed("at, id", "tuple()")), [""; 0]);
    one(&none, &keyed("at, id", "now()"), "uses no column");
    for sorting in ["id, at", "at", "at, id, amount", "toDate(at), id", "at DESC, id"] {
        one(&none, &keyed(sorting, ""), "sorting key is");
    }
}

#[test]
fn columns_must_keep_what_they_are_given() {
    let none = target(None, &[]);
    let changed = |name: &str, change: &dyn Fn(&mut TableColumn)| {
        let mut table = table("ReplacingMergeTree", ARGUMENTS);
        change(table.columns.iter_mut().find(|column| column.name == name).unwrap());
        table
    };
    let typed = |name: &str, ty: &str| changed(name, &|column| column.ty = ty.to_owned());
    assert_eq!(causes(&none, &typed("_committed_at", "DateTime64(6)")), [""; 0]);
    one(&none, &typed("_committed_at", "DateTime64(3)"), "Walview writes DateTime64(6");
    one(&none, &typed("_version", "UInt64"), "Walview writes UInt128");
    one(&none, &typed("amount", "Decimal(18, 4)"), "may be NULL in the view");
    one(&none, &typed("amount", "Nullable(Float64)"), "does not hold PostgreSQL's numeric(12,2)");
    one(&none, &typed("id", "Nullable(Int64)"), "of the sorting key");
    for kind in ["MATERIALIZED", "ALIAS", "EPHEMERAL"] {
        let with = |column: &mut TableColumn| column.default_kind = kind.to_owned();
        one(&none, &changed("amount", &with), kind);
        one(&none, &changed("_deleted", &with), kind);
    }
    one(&none, &changed("id", &|column| column.ttl = "at".to_owned()), "has a TTL");
    one(&none, &changed("id", &|column| column.codec = "CODEC(SZ3)".to_owned()), "SZ3");
    let default = changed("amount", &|column| column.default_kind = "DEFAULT".to_owned());
    assert_eq!(causes(&none, &default), [""; 0]);

    let extra = |ty: &str, kind: &str| {
        let mut table = table("ReplacingMergeTree", ARGUMENTS);
        let mut column = columns(&[("extra", ty)]).remove(0);
        column.default_kind = kind.to_owned();
        table.columns.push(column);
        table
    };
    one(&none, &extra("String", ""), "\"extra\" is not in the view");
    for (ty, kind) in [("Nullable(String)", ""), ("JSON", "DEFAULT"), ("UInt8", "ALIAS")] {
        assert_eq!(causes(&none, &extra(ty, kind)), [""; 0], "{ty} {kind}");
    }
    let fits = table("ReplacingMergeTree", ARGUMENTS);
    let asked = target(None, &[("id", "UInt64"), ("amount", "Decimal(38, 2)")]);
    one(&asked, &fits, "and \"types\" says Decimal(38, 2)");
    let constrained =
        Table { create_query: "(id UInt64, CONSTRAINT c CHECK id > 0)".to_owned(), ..fits };
    one(&none, &constrained, "has a CONSTRAINT");
}
