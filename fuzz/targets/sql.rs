//! A text as a view's SQL, bound to a fixed catalog; what binds is laid out and evaluated.

use std::sync::OnceLock;
use walview_core::catalog::{Catalog, Collation, Column, ReplicaIdentity, Table, UniqueKey};
use walview_core::engine::Layout;
use walview_core::expr::{ColumnRef, Env, Expr};
use walview_core::plan::{View, ViewKind};
use walview_core::sql;
use walview_core::value::{Carried, Type, Value};

/// Longer texts only take longer.
const BYTES_MAX: usize = 4_096;

pub(crate) fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    if text.len() > BYTES_MAX {
        return;
    }
    let lines = text.split('\n').count();
    let bound = sql::parse(text).and_then(|parsed| sql::bind(&parsed, "v", catalog(), "public"));
    match bound {
        Ok(view) => check(&view),
        Err(found) => {
            assert!(!found.is_empty(), "refused without a word");
            for diagnostic in found {
                let line = usize::try_from(diagnostic.place.line).unwrap_or(usize::MAX);
                assert!((1..=lines).contains(&line), "{diagnostic}");
            }
        }
    }
}

struct Blank(Value);

impl Env for Blank {
    fn column(&self, _: ColumnRef) -> &Value {
        &self.0
    }
}

fn check(view: &View) {
    assert!(!view.columns.is_empty());
    assert!(view.key.iter().all(|key| *key < view.columns.len()));
    assert_eq!(view.origins(catalog()).len(), view.columns.len());
    drop(view.describe());
    drop(Layout::new(std::slice::from_ref(view), catalog()));
    let mut exprs: Vec<&Expr> = view.filter.iter().collect();
    match &view.kind {
        ViewKind::Rows { output } => exprs.extend(output),
        ViewKind::Groups { by, aggregates, .. } => {
            exprs.extend(by);
            exprs.extend(aggregates.iter().filter_map(|aggregate| aggregate.argument.as_ref()));
        }
    }
    for expr in exprs {
        // NULL has every type. A value of the expression's type is written without a panic.
        if let Ok(value) = expr.eval(&Blank(Value::Null)) {
            drop(value.to_text(&expr.ty));
        }
    }
}

fn catalog() -> &'static Catalog {
    static CATALOG: OnceLock<Catalog> = OnceLock::new();
    CATALOG.get_or_init(|| {
        let mut catalog = Catalog::default();
        catalog.tables.extend([
            table(1, "bets", &every_type()),
            table(2, "users", &[("name", Type::Text), ("r", Type::Int8)]),
            table(3, "events", &[("name", Type::Text), ("category", Type::Varchar(Some(10)))]),
        ]);
        catalog
    })
}

fn every_type() -> Vec<(&'static str, Type)> {
    let labels = ["sad", "ok", "happy"].map(str::to_owned).to_vec();
    vec![
        ("user_id", Type::Int8),
        ("event_id", Type::Int8),
        ("amount", Type::Numeric(Some((12, 2)))),
        ("status", Type::Text),
        ("placed_at", Type::TimestampTz),
        ("b", Type::Bool),
        ("i2", Type::Int2),
        ("i4", Type::Int4),
        ("i8", Type::Int8),
        ("f4", Type::Float4),
        ("f8", Type::Float8),
        ("n", Type::Numeric(None)),
        ("n122", Type::Numeric(Some((12, 2)))),
        ("s", Type::Text),
        ("v10", Type::Varchar(Some(10))),
        ("c5", Type::Char(5)),
        ("by", Type::Bytea),
        ("d", Type::Date),
        ("ti", Type::Time),
        ("ts", Type::Timestamp),
        ("tz", Type::TimestampTz),
        ("iv", Type::Interval),
        ("u", Type::Uuid),
        ("j", Type::Json),
        ("jb", Type::Jsonb),
        ("m", Type::Enum { oid: 70_000, name: "mood".to_owned(), labels }),
        ("arr", Type::Other { oid: 1_007, name: "_int4".to_owned(), carried: Carried::default() }),
    ]
}

fn table(oid: u32, name: &str, columns: &[(&str, Type)]) -> Table {
    let id = [("id", Type::Int8)];
    let columns = id.iter().chain(columns).zip(1..).map(|((name, ty), attnum)| {
        let text = matches!(ty, Type::Text | Type::Varchar(_) | Type::Char(_));
        Column {
            name: (*name).to_owned(),
            attnum,
            ty: ty.clone(),
            type_oid: 0,
            type_modifier: -1,
            not_null: *name == "id" || *name == "status",
            collation: if text { Collation::C } else { Collation::None },
            generated: false,
            toastable: text,
            added: None,
        }
    });
    Table {
        oid,
        schema: "public".to_owned(),
        name: name.to_owned(),
        columns: columns.collect(),
        unique_keys: vec![UniqueKey { name: "key".to_owned(), columns: vec![0], primary: true }],
        replica_identity: ReplicaIdentity::Default,
    }
}
