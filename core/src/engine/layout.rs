//! What the engine keeps for a pipeline: views bound to a catalog, narrowed to the columns in use.
//!
//! ```text
//!  View (columns of the whole table) ──► ViewLayout (columns captured)
//!                                          │ join of input i
//!                                          ▼
//!        Edge: child table ── on ──► parent table, by its identity or by a lookup
//! ```
//!
//! A row in memory has exactly its table's captured columns, in `attnum` order. An edge belongs to
//! its tables, not to a view: two views that join bets to users the same way share it.

use crate::catalog::{Catalog, Column, ReplicaIdentity, Table};
use crate::expr::{ColumnRef, Expr};
use crate::plan::{Aggregate, JoinKind, View, ViewKind};
use crate::value::{Row, Type, Value};
use std::collections::BTreeSet;

#[derive(Clone, Debug, PartialEq)]
pub struct Layout {
    pub tables: Vec<TableLayout>,
    pub edges: Vec<Edge>,
    pub views: Vec<ViewLayout>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct TableLayout {
    pub oid: u32,
    pub schema: String,
    pub name: String,
    pub columns: Vec<Captured>,
    /// What an UPDATE or DELETE names a row by, as indexes into `columns`.
    pub identity: Vec<usize>,
    /// Other unique keys that views join by, as indexes into `columns`.
    pub lookups: Vec<Vec<usize>>,
    /// Edges from this table's rows to the rows that they join.
    pub child_edges: Vec<usize>,
    /// Where views use this table: (view, input), by view, then input.
    pub uses: Vec<(usize, usize)>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Captured {
    pub name: String,
    pub ty: Type,
    /// Its value in rows that were written before it was added.
    pub missing: Value,
    /// Index into the catalog's `Table::columns`.
    pub catalog: usize,
}

/// How a joined row is found: by its table's identity, or by one of its lookups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Identity,
    Lookup(usize),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Edge {
    pub child: usize,
    pub parent: usize,
    pub access: Access,
    /// The parent's key as expressions over the child's row (input 0), in the order of the access's
    /// columns.
    pub on: Vec<Expr>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ViewLayout {
    pub name: String,
    pub inputs: Vec<InputLayout>,
    pub filter: Option<Expr>,
    pub kind: ViewKind,
    /// Output columns of the view's key.
    pub key: Vec<usize>,
    /// Each input's captured columns that a result can depend on, key columns of joins included.
    pub relevant: Vec<Vec<usize>>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct InputLayout {
    pub table: usize,
    pub join: Option<JoinLayout>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct JoinLayout {
    pub kind: JoinKind,
    /// The earlier input whose row has the key.
    pub child_input: usize,
    pub edge: usize,
    pub condition: Option<Expr>,
}

/// A view that cannot be laid out: its name, what is wrong, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("view \"{view}\": {message}; {remedy}")]
pub struct LayoutError {
    pub view: String,
    pub message: String,
    pub remedy: String,
}

impl Layout {
    /// Lays out `views`, which were bound to `catalog`.
    ///
    /// # Errors
    /// A table has no usable replica identity, or a join's key comes from several tables.
    pub fn new(views: &[View], catalog: &Catalog) -> Result<Self, LayoutError> {
        let mut builder = Builder { catalog, tables: Vec::new(), edges: Vec::new() };
        builder.collect_tables(views)?;
        let views = views
            .iter()
            .enumerate()
            .map(|(index, view)| builder.view(index, view))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Self { tables: builder.tables, edges: builder.edges, views })
    }

    /// Whether a state of `before` can be read with this layout: tables have more columns at most,
    /// each behind those from before.
    #[must_use]
    pub fn widens(&self, before: &Self) -> bool {
        let same = |(now, before): (&TableLayout, &TableLayout)| {
            let columns = now.columns.iter().take(before.columns.len());
            (now.oid, &now.identity, &now.lookups, &now.child_edges)
                == (before.oid, &before.identity, &before.lookups, &before.child_edges)
                && columns.eq(&before.columns)
        };
        self.edges == before.edges
            && self.views.len() == before.views.len()
            && self.tables.len() == before.tables.len()
            && self.tables.iter().zip(&before.tables).all(same)
    }

    #[must_use]
    pub fn table_by_oid(&self, oid: u32) -> Option<usize> {
        self.tables.iter().position(|table| table.oid == oid)
    }

    /// A captured column that cannot be read in binary, for messages.
    #[must_use]
    pub fn text_only(&self) -> Option<String> {
        let mut columns = self
            .tables
            .iter()
            .flat_map(|table| table.columns.iter().map(move |column| (table, column)));
        let (table, column) = columns.find(|(_, column)| !column.ty.has_binary())?;
        Some(format!("column \"{}\" of \"{}\"", column.name, table.qualified()))
    }
}

impl TableLayout {
    #[must_use]
    pub fn access_columns(&self, access: Access) -> &[usize] {
        match access {
            Access::Identity => &self.identity,
            Access::Lookup(index) => self.lookups.get(index).map_or(&[], Vec::as_slice),
        }
    }

    /// A stored row with the columns that were added since it was written.
    pub(super) fn widen(&self, row: &mut Row) {
        let added = self.columns.iter().skip(row.len()).map(|column| column.missing.clone());
        row.extend(added);
    }

    /// `schema.table`, for messages.
    #[must_use]
    pub fn qualified(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }
}

struct Builder<'a> {
    catalog: &'a Catalog,
    tables: Vec<TableLayout>,
    edges: Vec<Edge>,
}

impl Builder<'_> {
    /// Captures, for every table, the union of what all views read and its identity.
    fn collect_tables(&mut self, views: &[View]) -> Result<(), LayoutError> {
        let mut needed: Vec<(u32, BTreeSet<usize>, String)> = Vec::new();
        for view in views {
            for input in &view.inputs {
                if !needed.iter().any(|(oid, ..)| *oid == input.table) {
                    needed.push((input.table, BTreeSet::new(), view.name.clone()));
                }
            }
            let mut visit = |column: ColumnRef| {
                let Some(input) = view.inputs.get(column.input) else {
                    return;
                };
                if let Some((_, columns, _)) =
                    needed.iter_mut().find(|(oid, ..)| *oid == input.table)
                {
                    columns.insert(column.column);
                }
            };
            for_each_row_expr(view, &mut |expr| expr.columns(&mut visit));
            for (index, input) in view.inputs.iter().enumerate() {
                for (column, _) in input.join.iter().flat_map(|join| &join.on) {
                    visit(ColumnRef { input: index, column: *column });
                }
            }
        }
        for (oid, mut columns, view) in needed {
            let fail = |message: String, remedy: &str| LayoutError {
                view: view.clone(),
                message,
                remedy: remedy.to_owned(),
            };
            let table = self.catalog.by_oid(oid).ok_or_else(|| {
                fail(format!("table with oid {oid} is not in the catalog"), "restart walview")
            })?;
            let identity = identity_columns(table).ok_or_else(|| {
                fail(
                    format!(
                        "table \"{}.{}\" has no key that its changes carry",
                        table.schema, table.name
                    ),
                    "give it a primary key that is not DEFERRABLE, or REPLICA IDENTITY USING INDEX \
                     with a unique index",
                )
            })?;
            columns.extend(identity.iter().copied());
            let columns: Vec<usize> = columns.into_iter().collect();
            let place = |catalog: usize| columns.iter().position(|column| *column == catalog);
            self.tables.push(TableLayout {
                oid,
                schema: table.schema.clone(),
                name: table.name.clone(),
                identity: identity.iter().filter_map(|column| place(*column)).collect(),
                columns: columns
                    .iter()
                    .filter_map(|catalog| Some((*catalog, table.columns.get(*catalog)?)))
                    .map(|(catalog, column)| {
                        let missing = missing(column).ok_or_else(|| {
                            let column = &column.name;
                            fail(
                                format!("the default of column \"{column}\" cannot be read"),
                                "run: walview rebuild",
                            )
                        })?;
                        let (name, ty) = (column.name.clone(), column.ty.clone());
                        Ok(Captured { name, ty, missing, catalog })
                    })
                    .collect::<Result<_, LayoutError>>()?,
                lookups: Vec::new(),
                child_edges: Vec::new(),
                uses: Vec::new(),
            });
        }
        Ok(())
    }

    fn view(&mut self, index: usize, view: &View) -> Result<ViewLayout, LayoutError> {
        let tables: Vec<usize> = view
            .inputs
            .iter()
            .map(|input| self.tables.iter().position(|table| table.oid == input.table))
            .collect::<Option<_>>()
            .ok_or_else(|| LayoutError {
                view: view.name.clone(),
                message: "a table of FROM was not captured".to_owned(),
                remedy: "this is a defect in Walview; please report it".to_owned(),
            })?;
        let captured: Vec<Vec<usize>> = tables
            .iter()
            .filter_map(|table| self.tables.get(*table))
            .map(|table| table.columns.iter().map(|column| column.catalog).collect())
            .collect();
        let narrow = |expr: &Expr| {
            let mut expr = expr.clone();
            expr.map_columns(&mut |column| ColumnRef {
                input: column.input,
                column: captured
                    .get(column.input)
                    .and_then(|columns| columns.iter().position(|c| *c == column.column))
                    .unwrap_or(usize::MAX),
            });
            expr
        };
        let mut inputs = Vec::new();
        for (at, (input, &table)) in view.inputs.iter().zip(&tables).enumerate() {
            if let Some(layout) = self.tables.get_mut(table) {
                layout.uses.push((index, at));
            }
            let join = match &input.join {
                None => None,
                Some(join) => {
                    let on: Vec<(usize, Expr)> = join
                        .on
                        .iter()
                        .map(|(column, expr)| {
                            let place = captured
                                .get(at)
                                .and_then(|columns| columns.iter().position(|c| c == column));
                            (place.unwrap_or(usize::MAX), narrow(expr))
                        })
                        .collect();
                    let (child_input, edge) = self.edge(&view.name, &tables, table, on)?;
                    Some(JoinLayout {
                        kind: join.kind,
                        child_input,
                        edge,
                        condition: join.condition.as_ref().map(narrow),
                    })
                }
            };
            inputs.push(InputLayout { table, join });
        }
        let kind = match &view.kind {
            ViewKind::Rows { output } => {
                ViewKind::Rows { output: output.iter().map(narrow).collect() }
            }
            ViewKind::Groups { by, by_key, aggregates, output } => ViewKind::Groups {
                by: by.iter().map(narrow).collect(),
                by_key: *by_key,
                aggregates: aggregates
                    .iter()
                    .map(|aggregate| Aggregate {
                        argument: aggregate.argument.as_ref().map(narrow),
                        filter: aggregate.filter.as_ref().map(narrow),
                        ..aggregate.clone()
                    })
                    .collect(),
                output: output.clone(),
            },
        };
        let mut layout = ViewLayout {
            name: view.name.clone(),
            inputs,
            filter: view.filter.as_ref().map(narrow),
            kind,
            key: view.key.clone(),
            relevant: Vec::new(),
        };
        layout.relevant = self.relevant_columns(&layout);
        Ok(layout)
    }

    /// Finds or makes the edge of a join; returns the input that has the key, and the edge.
    fn edge(
        &mut self,
        view: &str,
        tables: &[usize],
        parent: usize,
        mut on: Vec<(usize, Expr)>,
    ) -> Result<(usize, usize), LayoutError> {
        let mut from = BTreeSet::new();
        for (_, expr) in &on {
            expr.columns(&mut |column| {
                from.insert(column.input);
            });
        }
        let mut from = from.into_iter();
        let (Some(child_input), None) = (from.next(), from.next()) else {
            return Err(LayoutError {
                view: view.to_owned(),
                message: "the key of a join must come from exactly one earlier table".to_owned(),
                remedy: "join by columns of one table".to_owned(),
            });
        };
        let (Some(&child), Some(layout)) = (tables.get(child_input), self.tables.get_mut(parent))
        else {
            return Err(LayoutError {
                view: view.to_owned(),
                message: "a join reads a table that comes after it".to_owned(),
                remedy: "order FROM so that each ON reads tables on its left".to_owned(),
            });
        };
        for (_, expr) in &mut on {
            expr.map_columns(&mut |column| ColumnRef { input: 0, column: column.column });
        }
        let columns: BTreeSet<usize> = on.iter().map(|(column, _)| *column).collect();
        let same = |key: &[usize]| key.iter().copied().collect::<BTreeSet<_>>() == columns;
        let access = if same(&layout.identity) {
            Access::Identity
        } else if let Some(index) = layout.lookups.iter().position(|key| same(key)) {
            Access::Lookup(index)
        } else {
            layout.lookups.push(columns.iter().copied().collect());
            Access::Lookup(layout.lookups.len() - 1)
        };
        let on = layout
            .access_columns(access)
            .iter()
            .filter_map(|column| on.iter().find(|(c, _)| c == column).map(|(_, expr)| expr.clone()))
            .collect();
        let edge = Edge { child, parent, access, on };
        let index = self.edges.iter().position(|known| *known == edge).unwrap_or_else(|| {
            self.edges.push(edge);
            self.edges.len() - 1
        });
        if let Some(layout) = self.tables.get_mut(child)
            && !layout.child_edges.contains(&index)
        {
            layout.child_edges.push(index);
        }
        Ok((child_input, index))
    }

    fn relevant_columns(&self, view: &ViewLayout) -> Vec<Vec<usize>> {
        let mut relevant = vec![BTreeSet::new(); view.inputs.len()];
        let mut add = |input: usize, column: usize| {
            if let Some(columns) = relevant.get_mut(input) {
                columns.insert(column);
            }
        };
        for (at, input) in view.inputs.iter().enumerate() {
            let Some(join) = &input.join else { continue };
            let Some(edge) = self.edges.get(join.edge) else {
                continue;
            };
            for expr in &edge.on {
                expr.columns(&mut |column| add(join.child_input, column.column));
            }
            if let Some(table) = self.tables.get(edge.parent) {
                for column in table.access_columns(edge.access) {
                    add(at, *column);
                }
            }
            if let Some(condition) = &join.condition {
                condition.columns(&mut |column| add(column.input, column.column));
            }
        }
        let mut add_expr =
            |expr: &Expr| expr.columns(&mut |column| add(column.input, column.column));
        view.filter.iter().for_each(&mut add_expr);
        match &view.kind {
            ViewKind::Rows { output } => output.iter().for_each(add_expr),
            ViewKind::Groups { by, aggregates, .. } => {
                by.iter().for_each(&mut add_expr);
                for aggregate in aggregates {
                    aggregate.argument.iter().for_each(&mut add_expr);
                    aggregate.filter.iter().for_each(&mut add_expr);
                }
            }
        }
        relevant.into_iter().map(|columns| columns.into_iter().collect()).collect()
    }
}

/// The value of a column in rows from before it was added; `None` where it cannot be read.
fn missing(column: &Column) -> Option<Value> {
    match column.added.as_ref().and_then(|added| added.missing.as_ref()) {
        None => Some(Value::Null),
        Some(text) => Value::from_server(&column.ty, text).ok(),
    }
}

/// The columns that name a row in the changes of `table`; `None` where nothing does. Generated
/// columns are not sent, so a key that has one names nothing.
#[must_use]
pub fn identity_columns(table: &Table) -> Option<Vec<usize>> {
    let columns = match &table.replica_identity {
        ReplicaIdentity::Index(columns) => Some(columns),
        ReplicaIdentity::Default | ReplicaIdentity::Full => {
            table.primary_key().map(|key| &key.columns)
        }
        ReplicaIdentity::Nothing => None,
    };
    let sent = |column: &usize| table.columns.get(*column).is_some_and(|c| !c.generated);
    columns.filter(|columns| columns.iter().all(sent)).cloned()
}

fn for_each_row_expr(view: &View, visit: &mut impl FnMut(&Expr)) {
    for join in view.inputs.iter().filter_map(|input| input.join.as_ref()) {
        join.on.iter().for_each(|(_, expr)| visit(expr));
        join.condition.iter().for_each(&mut *visit);
    }
    view.filter.iter().for_each(&mut *visit);
    match &view.kind {
        ViewKind::Rows { output } => output.iter().for_each(visit),
        ViewKind::Groups { by, aggregates, .. } => {
            by.iter().for_each(&mut *visit);
            for aggregate in aggregates {
                aggregate.argument.iter().for_each(&mut *visit);
                aggregate.filter.iter().for_each(&mut *visit);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{Collation, UniqueKey};

    /// Its value would be taken for NULL: no version sends generated columns unless asked to.
    #[test]
    fn a_key_with_a_generated_column_names_no_row() {
        let column = |name: &str, generated| Column {
            name: name.to_owned(),
            attnum: 1,
            ty: Type::Int4,
            type_oid: 23,
            type_modifier: -1,
            not_null: true,
            collation: Collation::None,
            generated,
            toastable: false,
            added: None,
        };
        let key = |columns: &[usize]| UniqueKey {
            name: "k".to_owned(),
            columns: columns.to_vec(),
            primary: columns.len() == 2,
        };
        let mut table = Table {
            oid: 1,
            schema: "public".to_owned(),
            name: "t".to_owned(),
            columns: vec![column("a", false), column("g", true)],
            unique_keys: vec![key(&[0, 1]), key(&[0])],
            replica_identity: ReplicaIdentity::Default,
        };
        assert_eq!(identity_columns(&table), None);
        table.replica_identity = ReplicaIdentity::Index(vec![0]);
        assert_eq!(identity_columns(&table), Some(vec![0]));
        table.replica_identity = ReplicaIdentity::Index(vec![1]);
        assert_eq!(identity_columns(&table), None);
    }
}
