//! A table that exists, held against what a target needs.
//!
//! ```text
//!  system.tables, DESCRIBE ──► Table ──┬─ Target::adopt    its column types become the target's
//!                                      └─ Target::misfits  they must be the target's already
//! ```
//!
//! Invariant: what passes here keeps every row of the target exactly as it is sent. So everything
//! that could change, hide, tear apart or forget a row is a misfit; indexes, projections, codecs
//! and settings are the user's business. All misfits are found, not the first.

use super::syntax::{arguments, clause, has_word, identifier, split_commas, squeezed, unwrapped};
use super::types::{ChType, ColumnType, accepted};
use super::{Field, Target, UNFIT, fingerprint, follows_from_order, quote};
use crate::sql::type_name;

/// A table as `system.tables` and `DESCRIBE` show it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    /// Database and table, quoted: what stands in statements.
    pub name: String,
    pub engine: String,
    /// The engine with its arguments and all clauses behind it.
    pub engine_full: String,
    pub sorting_key: String,
    pub partition_key: String,
    pub create_query: String,
    pub columns: Vec<TableColumn>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableColumn {
    pub name: String,
    pub ty: String,
    /// `DEFAULT`, `MATERIALIZED`, `ALIAS`, `EPHEMERAL`, or nothing.
    pub default_kind: String,
    pub codec: String,
    pub ttl: String,
}

/// One thing about a table that does not fit, and what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misfit {
    pub cause: String,
    pub remedy: String,
}

impl Misfit {
    pub fn new(cause: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { cause: cause.into(), remedy: remedy.into() }
    }
}

/// Walview's own columns, and the types that they must have.
const META_TYPES: [(&str, &str); 3] =
    [("_version", "UInt128"), ("_deleted", "UInt8"), ("_committed_at", "DateTime64(6, 'UTC')")];

/// The one of `ClickHouse`'s codecs that does not give back what it was given.
const LOSSY_CODEC: &str = "SZ3";

/// Merges that forget tombstones: a row that arrives late would be back.
const CLEANUP: &str = "enable_replacing_merge_with_cleanup_for_min_age_to_force_merge";

impl Target {
    /// This target with the column types of a table that exists.
    ///
    /// # Errors
    /// Everything in which the table does not fit.
    pub fn adopt(&self, table: &Table) -> Result<Self, Vec<Misfit>> {
        let mut misfits = self.layout_misfits(table);
        let mut adopted = self.clone();
        for (index, (column, field)) in adopted.columns.iter_mut().zip(&self.fields).enumerate() {
            let Some(found) = table.column(&column.name) else {
                misfits.push(self.missing(table, index, field));
                continue;
            };
            match adopted_type(table, found, field, column.ordered) {
                Err(misfit) => misfits.push(misfit),
                Ok(found) if self.asked.contains(&index) && found.ty != column.ty => {
                    misfits.push(Misfit::new(
                        format!(
                            "column \"{}\" is {found}, and \"types\" says {}",
                            column.name, column.ty
                        ),
                        format!("leave \"{}\" out of \"types\": the table says it", column.name),
                    ));
                }
                Ok(found) => {
                    column.ty = found.ty;
                    column.nullable = found.nullable;
                }
            }
        }
        adopted.fingerprint = fingerprint(&adopted.columns, &adopted.order);
        if misfits.is_empty() { Ok(adopted) } else { Err(misfits) }
    }

    /// In what a table does not fit whose rows are encoded for this target's types already.
    #[must_use]
    pub fn misfits(&self, table: &Table) -> Vec<Misfit> {
        let mut misfits = self.layout_misfits(table);
        for (index, (column, field)) in self.columns.iter().zip(&self.fields).enumerate() {
            let Some(found) = table.column(&column.name) else {
                misfits.push(self.missing(table, index, field));
                continue;
            };
            match adopted_type(table, found, field, column.ordered) {
                Err(misfit) => misfits.push(misfit),
                Ok(same) if same.ty == column.ty && same.nullable == column.nullable => {}
                Ok(_) => misfits.push(Misfit::new(
                    format!(
                        "column \"{}\" is {}, and was {} when the pipeline was filled",
                        column.name,
                        found.ty,
                        column.sql_type()
                    ),
                    format!("rebuild with it, or make it {} again", column.sql_type()),
                )),
            }
        }
        misfits
    }

    /// The column types, as [`Target::with_types`] takes them.
    #[must_use]
    pub fn types(&self) -> Vec<(String, String)> {
        self.columns.iter().map(|column| (column.name.clone(), column.sql_type())).collect()
    }

    /// This target with types that [`Target::types`] said; `None` where they are not of its
    /// columns.
    #[must_use]
    pub fn with_types(&self, types: &[(String, String)]) -> Option<Self> {
        let mut target = self.clone();
        if types.len() != target.columns.len() {
            return None;
        }
        for (column, field) in target.columns.iter_mut().zip(&self.fields) {
            let (_, text) = types.iter().find(|(name, _)| *name == column.name)?;
            let found = ColumnType::parse(text).filter(|found| found.ty.accepts(&field.ty))?;
            column.ty = found.ty;
            column.nullable = found.nullable;
        }
        target.fingerprint = fingerprint(&target.columns, &target.order);
        Some(target)
    }

    fn missing(&self, table: &Table, index: usize, field: &Field) -> Misfit {
        let ty = self.columns.get(index).map(super::Column::sql_type).unwrap_or_default();
        Misfit::new(
            format!("column \"{}\" is not there", field.name),
            format!("ALTER TABLE {} ADD COLUMN {} {ty}", table.name, quote(&field.name)),
        )
    }

    /// Everything but the types of the view's columns.
    fn layout_misfits(&self, table: &Table) -> Vec<Misfit> {
        let mut misfits = Vec::new();
        misfits.extend(engine_misfit(table));
        misfits.extend(self.sorting_misfit(table));
        misfits.extend(self.partition_misfit(table));
        misfits.extend(ttl_misfit(table));
        if has_word(&table.create_query, "CONSTRAINT") {
            misfits.push(Misfit::new(
                "it has a CONSTRAINT, which a tombstone (defaults in all columns but the sorting \
                 key) need not meet",
                format!("drop it: ALTER TABLE {} DROP CONSTRAINT …", table.name),
            ));
        }
        if table.engine_full.contains(&format!("{CLEANUP} = 1")) {
            misfits.push(Misfit::new(
                format!("its setting {CLEANUP} lets merges forget tombstones"),
                format!("ALTER TABLE {} RESET SETTING {CLEANUP}", table.name),
            ));
        }
        for (name, ty) in META_TYPES {
            misfits.extend(meta_misfit(table, name, ty));
        }
        if self.unfit {
            misfits.extend(meta_misfit(table, UNFIT, "String"));
        }
        for column in &table.columns {
            let ours = META_TYPES.iter().any(|(name, _)| *name == column.name)
                || self.columns.iter().any(|known| known.name == column.name);
            if !ours && column.default_kind.is_empty() && !is_nullable(&column.ty) {
                misfits.push(Misfit::new(
                    format!(
                        "column \"{}\" is not in the view, and nothing says what stands there",
                        column.name
                    ),
                    "show it in the view, or give it a DEFAULT, or make it MATERIALIZED, ALIAS or \
                     Nullable",
                ));
            }
        }
        misfits
    }

    fn order_text(&self) -> String {
        let names: Vec<String> = self.order_columns().map(|column| quote(&column.name)).collect();
        format!("({})", names.join(", "))
    }

    fn sorting_misfit(&self, table: &Table) -> Option<Misfit> {
        let found: Vec<String> =
            split_commas(unwrapped(&table.sorting_key)).into_iter().map(identifier).collect();
        let same = found.iter().eq(self.order_columns().map(|column| &column.name));
        (!same).then(|| {
            Misfit::new(
                format!("its sorting key is ({}), not \"order_by\"", unwrapped(&table.sorting_key)),
                format!(
                    "write ORDER BY {} in the table, or its key in order_by:",
                    self.order_text()
                ),
            )
        })
    }

    fn partition_misfit(&self, table: &Table) -> Option<Misfit> {
        let plain = |text: &str| unwrapped(&squeezed(text)).to_owned();
        // `tuple()` is how DDL says that there are no partitions.
        let found = plain(&table.partition_key).replace("tuple()", "");
        let asked = self.partition_by.as_deref().map(plain);
        if let Some(asked) = asked.filter(|asked| *asked != found) {
            let shown = if found.is_empty() { "nothing" } else { &table.partition_key };
            return Some(Misfit::new(
                format!("it is partitioned by {shown}, and \"partition_by\" says {asked}"),
                "leave partition_by: out, since the table says it, or make both the same",
            ));
        }
        if found.is_empty() {
            return None;
        }
        let order: Vec<&str> = self.order_columns().map(|column| column.name.as_str()).collect();
        follows_from_order(&found, &order).err().map(|what| {
            Misfit::new(
                format!(
                    "it is partitioned by {}, {what}: two versions of a row would not meet",
                    table.partition_key
                ),
                format!("partition by functions of {}, or not at all", self.order_text()),
            )
        })
    }
}

impl Table {
    fn column(&self, name: &str) -> Option<&TableColumn> {
        self.columns.iter().find(|column| column.name == name)
    }
}

fn engine_misfit(table: &Table) -> Option<Misfit> {
    let family = table.engine.ends_with("ReplacingMergeTree");
    let behind = table.engine_full.strip_prefix(table.engine.as_str()).unwrap_or_default();
    let given: Vec<String> = arguments(behind)
        .map(|given| split_commas(given).into_iter().map(identifier).collect())
        .unwrap_or_default();
    // A replicated one has its path and its replica's name before them.
    let own: Vec<&str> =
        given.iter().map(String::as_str).filter(|argument| !argument.starts_with('\'')).collect();
    (!family || own != ["_version", "_deleted"]).then(|| {
        let engine = if table.engine_full.is_empty() { &table.engine } else { &table.engine_full };
        let shown = engine.split(" PARTITION BY ").next().unwrap_or_default();
        let shown = shown.split(" ORDER BY ").next().unwrap_or_default();
        Misfit::new(
            format!("its engine is {shown}, which does not keep the last version of a row"),
            "write ENGINE = ReplacingMergeTree(_version, _deleted)",
        )
    })
}

/// Parts may move and be recompressed; what expires would be gone from the view, too.
fn ttl_misfit(table: &Table) -> Option<Misfit> {
    let clauses = clause(&table.engine_full, "TTL", &["SETTINGS"])?;
    let harmless = |element: &str| {
        has_word(element, "RECOMPRESS")
            || clause(element, "TO", &[])
                .is_some_and(|rest| rest.starts_with("DISK") || rest.starts_with("VOLUME"))
    };
    (!split_commas(clauses).into_iter().all(harmless)).then(|| {
        Misfit::new(
            "its TTL deletes rows, and the view would not show what PostgreSQL holds",
            format!(
                "ALTER TABLE {} REMOVE TTL; what the view shows is for its WHERE to say",
                table.name
            ),
        )
    })
}

fn meta_misfit(table: &Table, name: &str, ty: &str) -> Option<Misfit> {
    let Some(column) = table.column(name) else {
        return Some(Misfit::new(
            format!("column \"{name}\" is not there"),
            format!("ALTER TABLE {} ADD COLUMN {} {ty}", table.name, quote(name)),
        ));
    };
    // An instant is the same in every zone.
    let plain = squeezed(&column.ty);
    let right = plain == squeezed(ty)
        || (name == "_committed_at"
            && (plain == "DateTime64(6)" || plain.starts_with("DateTime64(6,")));
    if !right {
        let cause = format!("column \"{name}\" is {}, and Walview writes {ty}", column.ty);
        return Some(Misfit::new(cause, format!("make it {} {ty}", quote(name))));
    }
    written_misfit(table, column)
}

/// A column that walview writes must keep what it was given.
fn written_misfit(table: &Table, column: &TableColumn) -> Option<Misfit> {
    let name = &column.name;
    if matches!(column.default_kind.as_str(), "MATERIALIZED" | "ALIAS" | "EPHEMERAL") {
        return Some(Misfit::new(
            format!("column \"{name}\" is {}, and Walview writes it", column.default_kind),
            "make it an ordinary column; one with a DEFAULT will do",
        ));
    }
    if column.codec.contains(LOSSY_CODEC) {
        return Some(Misfit::new(
            format!("column \"{name}\" has the codec {LOSSY_CODEC}, which changes values"),
            format!("ALTER TABLE {} MODIFY COLUMN {} REMOVE CODEC", table.name, quote(name)),
        ));
    }
    (!column.ttl.is_empty()).then(|| {
        Misfit::new(
            format!("column \"{name}\" has a TTL, after which it would lose its value"),
            format!("ALTER TABLE {} MODIFY COLUMN {} REMOVE TTL", table.name, quote(name)),
        )
    })
}

/// The type of a table's column, where the view's values stand in it as they are.
fn adopted_type(
    table: &Table,
    column: &TableColumn,
    field: &Field,
    ordered: bool,
) -> Result<ColumnType, Misfit> {
    if let Some(misfit) = written_misfit(table, column) {
        return Err(misfit);
    }
    let name = &field.name;
    let found = ColumnType::parse(&column.ty).filter(|found| found.ty.accepts(&field.ty));
    let Some(found) = found else {
        return Err(Misfit::new(
            format!(
                "column \"{name}\" is {}, which does not hold PostgreSQL's {} as it is",
                column.ty,
                type_name(&field.ty)
            ),
            format!("make it one of: {}", accepted(&field.ty)),
        ));
    };
    if ordered && found.nullable {
        return Err(Misfit::new(
            format!("column \"{name}\" of the sorting key is {}", column.ty),
            format!("make it {}", found.ty),
        ));
    }
    if let ChType::Array(_) = found.ty
        && (ordered || field.nullable)
    {
        let (cause, remedy) = if ordered {
            ("stands in the sorting key", "sort by something else".to_owned())
        } else {
            (
                "may be NULL in the view, which no Array is",
                format!("write coalesce(…, '{{}}') AS \"{name}\" in the view"),
            )
        };
        return Err(Misfit::new(format!("column \"{name}\" is {}, and {cause}", found.ty), remedy));
    }
    if field.nullable && !found.nullable {
        let nullable = ColumnType { nullable: true, ..found };
        return Err(Misfit::new(
            format!("column \"{name}\" is {}, and may be NULL in the view", column.ty),
            format!("make it {nullable}, or write coalesce(…) AS \"{name}\" in the view"),
        ));
    }
    Ok(found)
}

fn is_nullable(ty: &str) -> bool {
    ty.starts_with("Nullable(") || ty.starts_with("LowCardinality(Nullable(")
}

#[cfg(test)]
mod tests;
