#![expect(clippy::unwrap_used, reason = "a spec that does not bind fails its test")]

use super::*;
use crate::plan::{OutputColumn, ViewKind};
use crate::position::Lsn;
use proptest::prelude::*;

fn view() -> View {
    let column = |name: &str, ty, nullable| OutputColumn { name: name.to_owned(), ty, nullable };
    View {
        name: "bets".to_owned(),
        inputs: Vec::new(),
        filter: None,
        kind: ViewKind::Rows { output: Vec::new() },
        columns: vec![
            column("id", Type::Int8, false),
            column("placed_at", Type::TimestampTz, false),
            column("amount", Type::Numeric(Some((5, 2))), true),
            column("note", Type::Text, true),
        ],
        key: vec![0],
        key_hint: String::new(),
    }
}

fn spec(order_by: &[&str], partition_by: Option<&str>) -> Spec {
    Spec {
        table: "bets".to_owned(),
        order_by: order_by.iter().map(|name| (*name).to_owned()).collect(),
        partition_by: partition_by.map(str::to_owned),
        types: Vec::new(),
        fields: None,
        unfit_text: false,
    }
}

fn row(id: i64, placed_at: i64, note: Option<&str>) -> Vec<Value> {
    let note = note.map_or(Value::Null, |text| Value::Text(text.into()));
    vec![Value::Int(id), Value::TimestampTz(placed_at), Value::Null, note]
}

fn at(ordinal: u64) -> Position {
    Position { epoch: 1, lsn: Lsn(7), ordinal }
}

fn render(target: &Target, old: Option<&[Value]>, new: Option<&[Value]>) -> (Vec<Op>, bool) {
    let (mut scratch, mut bytes) = (Scratch::default(), Vec::new());
    let (change, commit) = (Change { old, new }, Commit { committed_at: 0 });
    let result = target.render(0, &change, at(3), &commit, &mut scratch, &mut bytes);
    let ops = OpRef::decode_all(&bytes).map(|op| op.unwrap().to_owned());
    (ops.collect(), result.is_ok())
}

/// `unfit: text`: the row stays, and the text of what does not fit; a sorting key still parks.
#[test]
fn unfit_values_stand_as_text() {
    let spec = Spec { unfit_text: true, ..spec(&["id"], None) };
    let target = Target::bind(&spec, &view()).unwrap();
    let types: Vec<String> = target.columns().iter().map(Column::sql_type).collect();
    let wanted = [
        "Int64",
        "Nullable(DateTime64(6, 'UTC'))",
        "Nullable(Decimal(5, 2))",
        "Nullable(String)",
        "String",
    ];
    assert_eq!(types, wanted);
    let shown = |row: &[Value]| {
        let (ops, ok) = render(&target, None, Some(row));
        assert!(ok && ops.len() == 1);
        let mut cells = 0;
        let mut bytes = Vec::new();
        ops.first().unwrap().encode(&mut bytes);
        let op = OpRef::decode_all(&bytes).next().unwrap().unwrap();
        target.cells(&op, |_, cell| cells += usize::from(cell.is_some())).unwrap();
        assert_eq!(cells, 5);
        target.expected(row).unwrap()
    };
    assert_eq!(shown(&row(1, 0, None)).last(), Some(&Some(String::new())));
    let mut odd = row(1, i64::MAX, Some("x"));
    *odd.get_mut(2).unwrap() = Value::Numeric(crate::value::Numeric::NAN);
    let odd = shown(&odd);
    let hex = |text: &str| text.bytes().map(|byte| format!("{byte:02X}")).collect::<String>();
    let unfit = "{\"placed_at\":\"infinity\",\"amount\":\"NaN\"}";
    let wanted = [Some("1".to_owned()), None, None, Some(hex("x")), Some(hex(unfit))];
    assert_eq!(odd, wanted);
    let sorted = Spec { order_by: vec!["placed_at".to_owned(), "id".to_owned()], ..spec };
    let target = Target::bind(&sorted, &view()).unwrap();
    assert!(target.expected(&row(1, i64::MAX, None)).is_err());
}

#[test]
fn rows_and_tombstones_have_their_versions() {
    let target = Target::bind(&spec(&["placed_at", "id"], None), &view()).unwrap();
    assert!(target.needs_old());
    let (a, b) = (row(1, 10, None), row(1, 10, Some("x")));
    let moved = row(1, 11, Some("x"));
    let kinds = |(ops, ok): (Vec<Op>, bool)| {
        assert!(ok);
        for op in &ops {
            assert_eq!(op.version, at(3).version(op.deleted));
        }
        ops.iter().map(|op| op.deleted).collect::<Vec<_>>()
    };
    assert_eq!(kinds(render(&target, None, Some(&a))), [false]);
    assert_eq!(kinds(render(&target, Some(&a), Some(&b))), [false]);
    assert_eq!(kinds(render(&target, Some(&b), Some(&b))), []);
    assert_eq!(kinds(render(&target, Some(&b), Some(&moved))), [true, false]);
    assert_eq!(kinds(render(&target, Some(&moved), None)), [true]);
    let infinite = row(1, i64::MAX, None);
    let (ops, ok) = render(&target, Some(&a), Some(&infinite));
    assert!(!ok && ops.len() == 1 && ops[0].deleted, "what the old row held goes");
    assert_eq!(render(&target, Some(&infinite), None).0, [], "a parked row holds nothing");
}

#[test]
fn sql_is_quoted_and_whole() {
    let mut spec = spec(&["placed_at", "id"], Some("toYYYYMM(placed_at)"));
    spec.fields = Some(vec!["id".to_owned(), "note".to_owned()]);
    spec.types = vec![("note".to_owned(), "LowCardinality(String)".to_owned())];
    spec.table = "be`ts".to_owned();
    let target = Target::bind(&spec, &view()).unwrap();
    let meta = "`_version` UInt128 COMMENT 'Position of that change: of a sorting key the row with \
                the highest counts', `_deleted` UInt8 COMMENT '1: the row is gone from the result', ";
    let committed_at = "`_committed_at` DateTime64(6, 'UTC') COMMENT 'When the change that last \
                        wrote this row was committed at the source; of a snapshot, when it was taken'";
    assert_eq!(
        target.create_rows("b", "it's"),
        format!(
            "CREATE TABLE `b_rows`.`be\\`ts` (`id` Int64, `note` LowCardinality(Nullable(String)), \
             `placed_at` DateTime64(6, 'UTC'), {meta}{committed_at}, \
             INDEX `key_id` `id` TYPE bloom_filter(0.001) GRANULARITY 1) \
             ENGINE = ReplacingMergeTree(`_version`, `_deleted`) \
             PARTITION BY toYYYYMM(placed_at) ORDER BY (`placed_at`, `id`) SETTINGS \
             min_age_to_force_merge_seconds = 86400, min_age_to_force_merge_on_partition_only = 1 \
             COMMENT 'it\\'s'"
        )
    );
    let described = target.clone().with_origins(&[
        "bigint, bets.id".to_owned(),
        "timestamp with time zone, bets.placed_at".to_owned(),
        String::new(),
        "text, it's.note".to_owned(),
    ]);
    assert_eq!(
        described.create_view("b", "c", false),
        format!(
            "CREATE OR REPLACE VIEW `b`.`be\\`ts` (`id` Int64 COMMENT 'bigint, bets.id', \
             `note` LowCardinality(Nullable(String)) COMMENT 'text, it\\'s.note', {committed_at}) \
             AS SELECT `id`, `note`, `_committed_at` FROM `b_rows`.`be\\`ts` FINAL \
             WHERE `_deleted` = 0 SETTINGS do_not_merge_across_partitions_select_final = 1 \
             COMMENT 'c'"
        )
    );
    assert!(described.create_rows("b", "").contains(
        "`placed_at` DateTime64(6, 'UTC') COMMENT 'timestamp with time zone, bets.placed_at'"
    ));
    assert_ne!(described.schema("b"), target.schema("b"), "a comment is a part of what is made");
    assert_eq!(described.fingerprint(), target.fingerprint(), "and no part of what rows are");
}

#[test]
fn what_cannot_be_exact_is_refused() {
    let check = |spec: &Spec, wanted: &str| {
        let errors = Target::bind(spec, &view()).unwrap_err();
        assert!(errors.iter().any(|error| error.contains(wanted)), "{errors:?}: {wanted}");
    };
    check(&spec(&["placed_at"], None), "key of the result");
    check(&spec(&["id", "note"], None), "may be NULL");
    check(&spec(&["id", "id"], None), "twice");
    check(&spec(&[], None), "empty");
    for partition in
        ["note", "toYYYYMM(amount)", "id; DROP", "id -- x", "f(id", "id)", "'x'", "1", "id /* x */"]
    {
        check(&spec(&["id"], Some(partition)), "\"partition_by\"");
    }
    for partition in ["id", "toYYYYMM(placed_at)", "(intDiv(id, 100), toDate (placed_at))"] {
        Target::bind(&spec(&["id", "placed_at"], Some(partition)), &view()).unwrap();
    }
    for ty in
        ["Int8", "DateTime64(3)", "Decimal(77, 2)", "Decimal(3, 4)", "DateTime64(6)", "Enum8('a')"]
    {
        let types = vec![("amount".to_owned(), ty.to_owned())];
        check(&Spec { types, ..spec(&["id"], None) }, "\"types\"");
    }
    let types = vec![("id".to_owned(), "Nullable(UInt64)".to_owned())];
    check(&Spec { types, ..spec(&["id"], None) }, "without Nullable");
    check(&Spec { table: "walview_marks".to_owned(), ..spec(&["id"], None) }, "walview's own");
}

proptest! {
    #[test]
    fn cells_come_back(id: i64, placed_at in -3_155_000_000_000_000_i64..9_466_000_000_000_000, note: Option<String>) {
        let target = Target::bind(&spec(&["placed_at", "id"], None), &view()).unwrap();
        let row = row(id, placed_at, note.as_deref());
        let (ops, ok) = render(&target, None, Some(&row));
        prop_assert!(ok);
        let mut bytes = Vec::new();
        ops[0].encode(&mut bytes);
        let op = OpRef::decode_all(&bytes).next().unwrap().unwrap();
        let mut cells = vec![None; 4];
        target.cells(&op, |index, cell| cells[index] = Some(cell)).unwrap();
        let note = note.as_ref().map_or(Cell::Null, |note| Cell::Bytes(note.as_bytes()));
        prop_assert_eq!(
            cells,
            vec![
                Some(Some(Cell::Int(id))),
                Some(Some(Cell::Int(cells::unix_micros(placed_at).unwrap()))),
                Some(Some(Cell::Null)),
                Some(Some(note)),
            ]
        );
        let other = Target::bind(&spec(&["id"], None), &view()).unwrap();
        prop_assert!(other.cells(&op, |_, _| {}).is_err(), "an operation of another schema");
    }
}

/// What waits in the outbox when a column is added is written without it, each value in its place.
#[test]
fn operations_from_before_a_column_was_added_are_read() {
    let mut wider = view();
    let added = OutputColumn { name: "extra".to_owned(), ty: Type::Int4, nullable: true };
    // As of `b.*, note`: not the last one.
    wider.columns.insert(3, added);
    let spec = spec(&["id"], None);
    let old = Target::bind(&spec, &view()).unwrap();
    let now = Target::bind(&spec, &wider).unwrap();
    let (ops, ok) = render(&old, None, Some(&row(5, 10, Some("x"))));
    assert!(ok);
    let mut bytes = Vec::new();
    ops.first().unwrap().encode(&mut bytes);
    let op = OpRef::decode_all(&bytes).next().unwrap().unwrap();
    assert!(now.cells(&op, |_, _| {}).is_err(), "nobody said what it was before");
    let now = now.widened(vec![old.clone(), old], Lsn(8));
    assert_eq!((now.earlier().len(), now.widened_at()), (1, Lsn(8)));
    let mut cells = vec![0; now.columns().len()];
    let mut texts = vec![None; now.columns().len()];
    now.cells(&op, |index, cell| {
        *cells.get_mut(index).unwrap() += 1;
        let ty = &now.columns().get(index).unwrap().ty;
        *texts.get_mut(index).unwrap() = cell.and_then(|cell| ty.text_of(cell));
    })
    .unwrap();
    assert_eq!(cells, [1; 5], "each column once");
    let has: Vec<bool> = texts.iter().map(Option::is_some).collect();
    assert_eq!(has, [true, true, false, false, true]);
    let alter = now.add_columns(now.earlier().first().unwrap(), "betting");
    assert!(alter.ends_with("ADD COLUMN IF NOT EXISTS `extra` Nullable(Int32)"), "{alter}");
}
