//! The SQL front end: text to plan.
//!
//! ```text
//!  text ─ parse ─► ParsedView ─ bind(catalog) ─► plan::View
//!   sqlparser, `lower`          `scope`, `bind*`, `group`, `types`
//!   what `check` can say        names, types, keys: what PostgreSQL means
//! ```
//!
//! Invariants:
//! - what is accepted means what PostgreSQL means, to the last digit; all else is refused with the
//!   place and what to write instead, as many errors at once as there are;
//! - the accepted text is accepted by PostgreSQL too (`tests/sql_oracle.rs`);
//! - sqlparser's tree does not leave `lower`: the binder sees closed enums only.

use crate::catalog::Catalog;
use crate::diagnostic::{Diagnostic, Place};
use crate::plan;

mod ast;
mod bind;
mod bind_call;
mod bind_cast;
mod bind_expr;
mod bind_mix;
mod bind_ops;
mod casts;
mod functions;
mod group;
mod guard;
mod lower;
mod lower_atom;
mod lower_call;
mod lower_expr;
mod lower_from;
mod nonnull;
mod operators;
mod scope;
mod types;
pub(crate) use types::type_name;
mod words;

/// A view's SQL whose shape is right; names and types are not looked at yet.
#[derive(Clone, Debug)]
pub struct ParsedView {
    select: ast::Select,
}

/// A table as FROM names it, folded as PostgreSQL folds names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableName {
    /// `None`: the pipeline's default schema.
    pub schema: Option<String>,
    pub name: String,
    pub place: Place,
}

/// Checks what can be checked without a catalog. Places are within `sql`.
pub fn parse(sql: &str) -> Result<ParsedView, Vec<Diagnostic>> {
    lower::lower(sql).map(|select| ParsedView { select })
}

/// Finds tables, columns, types and keys, and makes the plan. `default_schema` is what unqualified
/// names mean.
pub fn bind(
    parsed: &ParsedView,
    name: &str,
    catalog: &Catalog,
    default_schema: &str,
) -> Result<plan::View, Vec<Diagnostic>> {
    bind::bind(&parsed.select, name, catalog, default_schema)
}

impl ParsedView {
    /// The tables in FROM order; one that stands twice is there twice.
    #[must_use]
    pub fn tables(&self) -> Vec<TableName> {
        let joined = self.select.joins.iter().map(|join| &join.table);
        std::iter::once(&self.select.from)
            .chain(joined)
            .map(|table| TableName {
                schema: table.schema.as_ref().map(|schema| schema.text.clone()),
                name: table.name.text.clone(),
                place: table.schema.as_ref().unwrap_or(&table.name).place,
            })
            .collect()
    }

    /// The tables, as indexes into `tables()`, of which a `*` shows every column.
    #[must_use]
    pub fn stars(&self) -> Vec<usize> {
        let joined = self.select.joins.iter().map(|join| &join.table);
        let tables: Vec<_> = std::iter::once(&self.select.from).chain(joined).collect();
        let mut shown = Vec::new();
        for item in &self.select.items {
            let ast::Item::Star { table: of, .. } = item else {
                continue;
            };
            let of = of.as_ref().map(|parts| parts.last());
            shown.extend((0..).zip(&tables).filter_map(|(index, table)| {
                match of {
                    None => Some(index),
                    Some(name) => (name.map(|name| &name.text) == Some(&table.visible_name().text))
                        .then_some(index),
                }
            }));
        }
        shown
    }

    /// The output columns in order; `None` where `*` leaves them to the catalog.
    #[must_use]
    pub fn output_names(&self) -> Option<Vec<String>> {
        self.select
            .items
            .iter()
            .map(|item| match item {
                ast::Item::Expr { name, .. } => Some(name.text.clone()),
                ast::Item::Star { .. } => None,
            })
            .collect()
    }

    /// What the fact's columns are qualified by, quoted.
    #[must_use]
    pub fn fact_name(&self) -> String {
        format!("\"{}\"", self.select.from.visible_name().text.replace('"', "\"\""))
    }

    /// `text`, which this was parsed from, without the facts for which the condition `guard` holds,
    /// whatever the view's expressions do with them; but for conditions of ON.
    #[must_use]
    pub fn leaving_out(&self, text: &str, guard: &str) -> Option<String> {
        guard::leaving_out(text, guard)
    }

    /// `text`, which this was parsed from, over the facts alone for which `guard` holds.
    #[must_use]
    pub fn only(&self, text: &str, guard: &str) -> Option<String> {
        guard::only(text, guard)
    }

    /// GROUP BY, an aggregate or DISTINCT: one result row for each group.
    #[must_use]
    pub fn is_aggregate(&self) -> bool {
        self.select.distinct || self.select.is_grouped()
    }
}
