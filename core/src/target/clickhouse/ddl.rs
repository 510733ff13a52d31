//! The SQL of a target: its table of rows, its exact view, and the reading side of verify.

use super::types::ChType;
use super::unfit::UNFIT_COMMENT;
use super::{Column, Target};
use std::fmt::Write as _;

/// An identifier between backticks. `ClickHouse` reads `\` in them as in strings.
#[must_use]
pub fn quote(name: &str) -> String {
    format!("`{}`", name.replace('\\', "\\\\").replace('`', "\\`"))
}

/// A string literal.
#[must_use]
pub fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// The database that holds the rows behind the views of `database`.
#[must_use]
pub fn rows_database(database: &str) -> String {
    format!("{database}_rows")
}

/// The names of walview's own columns, in the order in which they stand after the view's.
pub const META_COLUMNS: [&str; 3] = ["_version", "_deleted", "_committed_at"];

/// The one of them that the exact view shows, too, with its type and what it is.
const COMMITTED_AT: (&str, &str, &str) = (
    "_committed_at",
    "DateTime64(6, 'UTC')",
    "When the change that last wrote this row was committed at the source; of a snapshot, when it was taken",
);

const META_DECLARED: [(&str, &str, &str); 3] = [
    (
        "_version",
        "UInt128",
        "Position of that change: of a sorting key the row with the highest counts",
    ),
    ("_deleted", "UInt8", "1: the row is gone from the result"),
    COMMITTED_AT,
];

/// A partition in which nothing was written for a day becomes one part, which `FINAL` reads without
/// comparing rows. Seconds.
const MERGED_WHEN_QUIET: &str =
    "min_age_to_force_merge_seconds = 86400, min_age_to_force_merge_on_partition_only = 1";

/// All versions of a row lie in one partition, because that follows from the sorting key; so
/// `FINAL` needs to compare rows within partitions only, and may work on them side by side.
const FINAL_BY_PARTITION: &str = "do_not_merge_across_partitions_select_final = 1";

/// How many of a thousand blocks of rows an index lets through although they lack the value.
/// `FINAL` reads every column of such a block before it looks at the condition, so that the usual
/// 25 would cost more than the one that is wanted.
const INDEX_MISSES_PER_MILLE: u8 = 1;

impl Target {
    /// `<database>_rows`.`<table>`, quoted.
    #[must_use]
    pub fn rows_name(&self, database: &str) -> String {
        format!("{}.{}", quote(&rows_database(database)), quote(&self.table))
    }

    /// `<database>`.`<table>`, quoted: the exact view.
    #[must_use]
    pub fn view_name(&self, database: &str) -> String {
        format!("{}.{}", quote(database), quote(&self.table))
    }

    /// `CREATE TABLE` of the rows. `comment` marks the table as walview's.
    #[must_use]
    pub fn create_rows(&self, database: &str, comment: &str) -> String {
        let mut columns: Vec<String> =
            self.columns.iter().enumerate().map(|(at, column)| self.declared(at, column)).collect();
        columns.extend(META_DECLARED.map(|(name, ty, origin)| declared(name, ty, origin)));
        columns.extend(self.order_columns().skip(1).filter(|column| looked_up(column)).map(index));
        let mut sql = format!("CREATE TABLE {} ({})", self.rows_name(database), columns.join(", "));
        sql.push_str(" ENGINE = ReplacingMergeTree(`_version`, `_deleted`)");
        if let Some(partition) = &self.partition_by {
            write!(sql, " PARTITION BY {partition}").ok();
        }
        let order: Vec<String> = self.order_columns().map(|column| quote(&column.name)).collect();
        let (order, comment) = (order.join(", "), literal(comment));
        write!(sql, " ORDER BY ({order}) SETTINGS {MERGED_WHEN_QUIET} COMMENT {comment}").ok();
        sql
    }

    /// `CREATE OR REPLACE VIEW` of the exact view. `definer`: readers need no rights on the rows.
    #[must_use]
    pub fn create_view(&self, database: &str, comment: &str, definer: bool) -> String {
        let security = if definer { " DEFINER = CURRENT_USER SQL SECURITY DEFINER" } else { "" };
        let (committed_at, ty, origin) = COMMITTED_AT;
        let shown = || self.columns.iter().enumerate().filter(|(_, column)| column.shown);
        let mut columns: Vec<String> =
            shown().map(|(at, column)| self.declared(at, column)).collect();
        columns.push(declared(committed_at, ty, origin));
        let mut names: Vec<String> = shown().map(|(_, column)| quote(&column.name)).collect();
        names.push(quote(committed_at));
        format!(
            "CREATE OR REPLACE VIEW {} ({}){security} AS SELECT {} FROM {} FINAL \
             WHERE `_deleted` = 0 SETTINGS {FINAL_BY_PARTITION} COMMENT {}",
            self.view_name(database),
            columns.join(", "),
            names.join(", "),
            self.rows_name(database),
            literal(comment),
        )
    }

    /// The DDL of both, without whose they are: differs where one of them must be made anew.
    #[must_use]
    pub fn schema(&self, database: &str) -> String {
        format!("{}; {}", self.create_rows(database, ""), self.create_view(database, "", false))
    }

    /// `ALTER TABLE` of the rows from what they were as `earlier`; may be repeated.
    #[must_use]
    pub fn add_columns(&self, earlier: &Self, database: &str) -> String {
        let known = |name: &str| earlier.columns.iter().any(|column| column.name == name);
        let added = self.columns.iter().enumerate().filter(|(_, column)| !known(&column.name));
        let adds: Vec<String> = added
            .map(|(at, column)| format!("ADD COLUMN IF NOT EXISTS {}", self.declared(at, column)))
            .collect();
        format!("ALTER TABLE {} {}", self.rows_name(database), adds.join(", "))
    }

    fn declared(&self, at: usize, column: &Column) -> String {
        let own = (at == self.fields.len()).then_some(UNFIT_COMMENT);
        let origin = self.origins.get(at).map(String::as_str).or(own).unwrap_or_default();
        declared(&column.name, &column.sql_type(), origin)
    }

    /// The head of an insert of Arrow batches, whose columns are [`Target::columns`] and
    /// [`META_COLUMNS`].
    #[must_use]
    pub fn insert_arrow(&self, database: &str) -> String {
        let columns: Vec<String> = self
            .columns
            .iter()
            .map(|column| column.name.as_str())
            .chain(META_COLUMNS)
            .map(quote)
            .collect();
        format!(
            "INSERT INTO {} ({}) FORMAT ArrowStream",
            self.rows_name(database),
            columns.join(", ")
        )
    }

    /// Selects the exact view as texts in the form of [`Target::expected`], NULL as NULL.
    #[must_use]
    pub fn select_text(&self, database: &str) -> String {
        let shown: Vec<String> = self.shown().map(text_expression).collect();
        format!("SELECT {} FROM {}", shown.join(", "), self.view_name(database))
    }
}

/// A column as DDL declares it.
fn declared(name: &str, ty: &str, origin: &str) -> String {
    let mut sql = format!("{} {ty}", quote(name));
    if !origin.is_empty() {
        write!(sql, " COMMENT {}", literal(origin)).ok();
    }
    sql
}

/// Whether a reader may ask for one value of a column of the sorting key. Only the first of them is
/// found by the order of rows. An index on others is exact under `FINAL`: all versions of a row have
/// the same sorting key, so it takes or leaves them together.
fn looked_up(column: &Column) -> bool {
    match column.ty {
        ChType::Int(bits) | ChType::UInt(bits) => bits <= 64,
        ChType::String
        | ChType::LowCardinality
        | ChType::FixedString(_)
        | ChType::Enum(_)
        | ChType::Uuid => true,
        ChType::Bool
        | ChType::Float32
        | ChType::Float64
        | ChType::Decimal(..)
        | ChType::Date
        | ChType::Date32
        | ChType::DateTime(_)
        | ChType::DateTime64(..)
        | ChType::Array(_) => false,
    }
}

fn index(column: &Column) -> String {
    let misses = f64::from(INDEX_MISSES_PER_MILLE) / 1000.0;
    format!(
        "INDEX {} {} TYPE bloom_filter({misses}) GRANULARITY 1",
        quote(&format!("key_{}", column.name)),
        quote(&column.name)
    )
}

/// Floats as their bits and strings as hex, because neither has one text for one value (JSON has no
/// NaN, and a `String` may hold any bytes).
fn text_expression(column: &Column) -> String {
    text_of(&column.ty, &quote(&column.name), 0)
}

fn text_of(ty: &ChType, name: &str, depth: usize) -> String {
    match ty {
        ChType::Float32 => format!("toString(reinterpretAsUInt32({name}))"),
        ChType::Float64 => format!("toString(reinterpretAsUInt64({name}))"),
        ChType::String | ChType::LowCardinality | ChType::FixedString(_) => format!("hex({name})"),
        // The label, not its number: a table whose numbers mean other labels is a difference.
        ChType::Enum(_) => format!("hex(toString({name}))"),
        ChType::Date | ChType::Date32 => format!("toString(toInt32({name}))"),
        ChType::DateTime(_) => format!("toString(toInt64({name}) * 1000000)"),
        ChType::DateTime64(..) => format!("toString(toUnixTimestamp64Micro({name}))"),
        ChType::Bool => format!("toString(toUInt8({name}))"),
        ChType::Int(_) | ChType::UInt(_) | ChType::Decimal(..) | ChType::Uuid => {
            format!("toString({name})")
        }
        ChType::Array(items) => {
            let item = format!("item{depth}");
            let text = text_of(&items.ty, &item, depth + 1);
            let text = if items.nullable { format!("ifNull({text}, 'NULL')") } else { text };
            format!("concat('[', arrayStringConcat(arrayMap({item} -> {text}, {name}), ','), ']')")
        }
    }
}
