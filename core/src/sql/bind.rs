//! From a checked text to a plan, against a catalog.
//!
//! ```text
//! FROM, JOIN … ON ─► scope, Input, Join     (this module)
//! WHERE           ─► filter, and the columns that it keeps from being NULL (`nonnull`)
//! SELECT, GROUP BY─► Rows                    (this module) or Groups (`group`)
//! ```
//!
//! Invariant: what binds means in PostgreSQL exactly what the plan computes. Every part is bound
//! even when another one was refused, so that one run shows all errors.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "nodes and types that are not named take the general way"
)]

use super::ast::{Item, JoinRef, Name, Node, NodeKind, Op, Select, TableRef};
use super::bind_expr::shown;
use super::nonnull;
use super::scope::{Bound, Scope};
use super::types::{Base, type_name};
use super::words;
use crate::catalog::{Catalog, Table, UniqueKey};
use crate::diagnostic::{Diagnostic, Place};
use crate::expr::{ColumnRef, Expr, ExprKind};
use crate::plan::{Aggregate, Input, Join, JoinKind, OutputColumn, View, ViewKind};
use crate::value::Type;

/// A part that was refused; its diagnostic is in the list.
pub(super) struct Refused;

pub(super) type Binding<T> = Result<T, Refused>;

pub(super) struct Binder<'a> {
    pub(super) catalog: &'a Catalog,
    default_schema: &'a str,
    pub(super) scope: Scope<'a>,
    pub(super) diagnostics: Vec<Diagnostic>,
    /// Of the SELECT list, in the order of their first use.
    pub(super) aggregates: Vec<Aggregate>,
    /// GROUP BY is there: a group has at least one row.
    pub(super) grouped: bool,
    /// Where columns were named since `seen` was last cleared.
    pub(super) seen: Vec<(ColumnRef, Place)>,
}

/// One output column before grouping.
pub(super) struct Output {
    pub(super) name: Name,
    pub(super) bound: Bound,
    /// The columns that it names.
    pub(super) seen: Vec<(ColumnRef, Place)>,
}

pub(super) fn bind(
    select: &Select,
    name: &str,
    catalog: &Catalog,
    default_schema: &str,
) -> Result<View, Vec<Diagnostic>> {
    let mut binder = Binder {
        catalog,
        default_schema,
        scope: Scope::default(),
        diagnostics: Vec::new(),
        aggregates: Vec::new(),
        grouped: !select.group_by.is_empty(),
        seen: Vec::new(),
    };
    match binder.view(select, name) {
        Ok(view) if binder.diagnostics.is_empty() => Ok(view),
        _ => {
            binder.diagnostics.sort();
            binder.diagnostics.dedup();
            Err(binder.diagnostics)
        }
    }
}

impl<'a> Binder<'a> {
    pub(super) fn refuse<T>(
        &mut self,
        place: Place,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Binding<T> {
        self.fail(Diagnostic::new(place, message, remedy))
    }

    pub(super) fn fail<T>(&mut self, diagnostic: Diagnostic) -> Binding<T> {
        self.diagnostics.push(diagnostic);
        Err(Refused)
    }

    fn view(&mut self, select: &Select, name: &str) -> Binding<View> {
        // Without its tables every name would be an error.
        let inputs = self.from(select)?;
        let filter = select.filter.as_ref().map(|node| self.condition(node, "WHERE")).transpose();
        if let Ok(Some(filter)) = &filter {
            nonnull::implied(&filter.expr, &mut self.scope.not_null);
        }
        let outputs = self.outputs(&select.items);
        let (columns, kind, key, key_hint) = if select.distinct || select.is_grouped() {
            self.groups(select, outputs)?
        } else {
            self.rows(outputs?)
        };
        Ok(View {
            name: name.to_owned(),
            inputs,
            filter: filter?.map(|filter| filter.expr),
            kind,
            columns,
            key,
            key_hint,
        })
    }

    // --- FROM ---------------------------------------------------------------------------------

    fn from(&mut self, select: &Select) -> Binding<Vec<Input>> {
        let mut inputs = Vec::new();
        let fact = self.table(&select.from, false);
        // A missing table hides every column: look at the others' names, and stop.
        if fact.is_err() {
            for join in &select.joins {
                if let Err(diagnostic) = self.find(&join.table) {
                    self.diagnostics.push(diagnostic);
                }
            }
            return Err(Refused);
        }
        let table = fact?;
        inputs.push(Input { table: table.oid, join: None });
        let mut refused = false;
        for join in &select.joins {
            match self.join(join) {
                Ok(input) => inputs.push(input),
                Err(JoinError::NoTable) => return Err(Refused),
                Err(JoinError::Condition) => refused = true,
            }
        }
        // The names are known: the rest can be checked although a condition is refused.
        if refused && inputs.is_empty() { Err(Refused) } else { Ok(inputs) }
    }

    fn find(&self, reference: &TableRef) -> Result<&'a Table, Diagnostic> {
        let schema = reference.schema.as_ref().map_or(self.default_schema, |schema| &schema.text);
        let name = &reference.name.text;
        if let Some(table) = self.catalog.table(schema, name) {
            return Ok(table);
        }
        let place = reference.schema.as_ref().map_or(reference.name.place, |schema| schema.place);
        let elsewhere =
            self.catalog.tables.iter().find(|table| table.name == *name).map(|table| {
                format!("there is \"{}.{}\": write its schema", table.schema, table.name)
            });
        let here = self.catalog.tables.iter().filter(|table| table.schema == schema);
        let near = || words::did_you_mean(name, here.map(|table| table.name.as_str()));
        Err(Diagnostic::new(
            place,
            format!("table \"{name}\" does not exist in schema \"{schema}\""),
            elsewhere.or_else(near).unwrap_or_default(),
        ))
    }

    fn table(&mut self, reference: &TableRef, optional: bool) -> Binding<&'a Table> {
        let table = match self.find(reference) {
            Ok(table) => table,
            Err(diagnostic) => return self.fail(diagnostic),
        };
        match self.scope.add(table, reference, optional) {
            Ok(()) => Ok(table),
            Err(diagnostic) => self.fail(diagnostic),
        }
    }

    fn join(&mut self, join: &JoinRef) -> Result<Input, JoinError> {
        let optional = join.kind == JoinKind::Left;
        let table = self.table(&join.table, optional).map_err(|Refused| JoinError::NoTable)?;
        let dimension = self.scope.inputs.len() - 1;
        let condition = self.on(join, table, dimension).map_err(|Refused| JoinError::Condition)?;
        Ok(Input { table: table.oid, join: Some(condition) })
    }

    /// Finds the equalities that cover a key; what is left is a further condition.
    fn on(&mut self, join: &JoinRef, table: &'a Table, dimension: usize) -> Binding<Join> {
        let mut conditions = Vec::new();
        conjuncts(&join.on, &mut conditions);
        let equalities: Vec<Option<(usize, &Node)>> =
            conditions.iter().map(|node| self.equality(node, dimension)).collect();
        let of_column = |column: usize| {
            equalities.iter().position(|equality| equality.is_some_and(|(own, _)| own == column))
        };
        let key = table
            .unique_keys
            .iter()
            .find(|key| key.columns.iter().all(|column| of_column(*column).is_some()));
        let Some(key) = key else {
            // Names and types in ON may be wrong as well; that comes first.
            let before = self.diagnostics.len();
            if self.condition(&join.on, "JOIN … ON").is_err() && self.diagnostics.len() > before {
                return Err(Refused);
            }
            return self.no_key(join, table, dimension);
        };
        let mut used = Vec::new();
        let mut on = Vec::new();
        let mut refused = false;
        for column in &key.columns {
            let Some(index) = of_column(*column) else {
                return Err(Refused);
            };
            let Some((_, other)) = equalities[index] else {
                return Err(Refused);
            };
            used.push(index);
            match self.key_equality(table, dimension, *column, other, conditions[index].place) {
                Ok(expr) => on.push((*column, expr)),
                Err(Refused) => refused = true,
            }
        }
        let mut further = Vec::new();
        for (index, node) in conditions.iter().enumerate() {
            if !used.contains(&index) {
                match self.condition(node, "JOIN … ON") {
                    Ok(bound) => further.push(bound.expr),
                    Err(Refused) => refused = true,
                }
            }
        }
        if refused {
            return Err(Refused);
        }
        if join.kind == JoinKind::Inner {
            for (column, expr) in &on {
                self.scope.not_null.insert(ColumnRef { input: dimension, column: *column });
                nonnull::strict(expr, &mut self.scope.not_null);
            }
            for expr in &further {
                nonnull::implied(expr, &mut self.scope.not_null);
            }
        }
        let condition = match further.len() {
            0 | 1 => further.pop(),
            _ => Some(Expr { kind: ExprKind::And(further), ty: Type::Bool }),
        };
        Ok(Join { kind: join.kind, on, condition })
    }

    /// `dim.column = expr over earlier tables`, either way round.
    fn equality<'n>(&self, node: &'n Node, dimension: usize) -> Option<(usize, &'n Node)> {
        let NodeKind::Binary(Op::Eq, left, right) = &node.kind else {
            return None;
        };
        let own = |node: &Node| match &node.kind {
            NodeKind::Column(parts) => {
                self.scope.column(parts).ok().filter(|column| column.input == dimension)
            }
            _ => None,
        };
        match (own(left), own(right)) {
            (Some(column), None) if self.is_earlier(right, dimension) => {
                Some((column.column, right))
            }
            (None, Some(column)) if self.is_earlier(left, dimension) => Some((column.column, left)),
            _ => None,
        }
    }

    fn is_earlier(&self, node: &Node, dimension: usize) -> bool {
        let mut earlier = true;
        node.for_each_column(&mut |parts| {
            earlier &= self.scope.column(parts).is_ok_and(|column| column.input < dimension);
        });
        earlier
    }

    /// The other side of a key's equality, in the type of the key's column.
    fn key_equality(
        &mut self,
        table: &Table,
        dimension: usize,
        column: usize,
        other: &Node,
        place: Place,
    ) -> Binding<Expr> {
        let own = self.scope.bound(ColumnRef { input: dimension, column }, place);
        let other = self.expr(other)?;
        // PostgreSQL's own rules come first: is there such an operator at all?
        self.binary(Op::Eq, own.clone(), other.clone(), place)?;
        let ty = own.expr.ty.clone();
        let (from, to) = (other.base(), Base::of(&ty));
        let lossless = match (from, to) {
            // Brought to the column's scale a literal could be rounded to another number.
            (Base::Unknown, to) => to != Base::Numeric,
            (_, Base::Float4 | Base::Float8 | Base::Interval | Base::Json) => false,
            // `binary` has seen that both are of one type whose equality is that of its text.
            (_, Base::Other) => true,
            (from, to) if from.is_integer() && to.is_integer() => {
                from == to || from == Base::Int2 || to == Base::Int8
            }
            (Base::Text | Base::Varchar, Base::Text | Base::Varchar) => true,
            _ => other.expr.ty == ty && ty != Type::Numeric(None),
        };
        if !lossless {
            let name = &table.columns[column].name;
            return self.refuse(
                place,
                format!(
                    "key column \"{name}\" of \"{}\" is {}, and is compared with {}",
                    table.name,
                    type_name(&ty),
                    shown(&other)
                ),
                match to {
                    Base::Float4 | Base::Float8 | Base::Interval | Base::Json => {
                        "join by a key of another type".to_owned()
                    }
                    _ => format!("cast the other side: x::{}", type_name(&ty)),
                },
            );
        }
        if other.unknown && matches!(ty, Type::Char(_)) {
            // A literal is padded as the column is.
            return self.coerce(other, &ty).map(|bound| bound.expr);
        }
        let target = match ty {
            Type::Varchar(_) => Type::Text,
            ty => ty,
        };
        let other = self.coerce(other, &target)?;
        Ok(other.expr)
    }

    fn no_key<T>(&mut self, join: &JoinRef, table: &Table, dimension: usize) -> Binding<T> {
        let alias = self.scope.name_of(dimension).to_owned();
        let names = |key: &UniqueKey| {
            let names: Vec<&str> =
                key.columns.iter().map(|column| table.columns[*column].name.as_str()).collect();
            names.join(", ")
        };
        let keys: Vec<String> =
            table.unique_keys.iter().map(|key| format!("({})", names(key))).collect();
        let remedy = match table.unique_keys.first() {
            None => format!(
                "\"{}\" has no primary or unique key that can be followed: add one that is not \
                 DEFERRABLE",
                table.name
            ),
            Some(key) => {
                let on: Vec<String> = key
                    .columns
                    .iter()
                    .map(|column| format!("{alias}.{} = …", table.columns[*column].name))
                    .collect();
                format!("write ON {}; its keys: {}", on.join(" AND "), keys.join(", "))
            }
        };
        self.refuse(
            join.on.place,
            format!("this join of \"{}\" does not follow one of its keys", table.name),
            remedy,
        )
    }

    // --- SELECT -------------------------------------------------------------------------------

    fn outputs(&mut self, items: &[Item]) -> Binding<Vec<Output>> {
        let mut outputs = Vec::new();
        let mut refused = false;
        for item in items {
            self.seen.clear();
            match item {
                Item::Expr { node, name } => match self.settled(node) {
                    Ok(bound) => {
                        let seen = std::mem::take(&mut self.seen);
                        outputs.push(Output { name: name.clone(), bound, seen });
                    }
                    Err(Refused) => refused = true,
                },
                Item::Star { table, place } => {
                    if self.star(table.as_deref(), *place, &mut outputs).is_err() {
                        refused = true;
                    }
                }
            }
        }
        self.refuse_duplicates(&outputs);
        if refused { Err(Refused) } else { Ok(outputs) }
    }

    fn star(
        &mut self,
        table: Option<&[Name]>,
        place: Place,
        outputs: &mut Vec<Output>,
    ) -> Binding<()> {
        let inputs = match table.map(|table| self.scope.input(table)) {
            None => 0..self.scope.inputs.len(),
            Some(Ok(input)) => input..input + 1,
            Some(Err(diagnostic)) => return self.fail(diagnostic),
        };
        for input in inputs {
            for (column, definition) in self.scope.inputs[input].table.columns.iter().enumerate() {
                let name = Name { text: definition.name.clone(), place };
                let column = match self.scope.column(&[
                    Name { text: self.scope.inputs[input].name.clone(), place },
                    name.clone(),
                ]) {
                    Ok(_) => ColumnRef { input, column },
                    Err(diagnostic) => return self.fail(diagnostic),
                };
                let bound = self.scope.bound(column, place);
                outputs.push(Output { name, bound, seen: vec![(column, place)] });
            }
        }
        Ok(())
    }

    /// Those that `*` brings; the written ones were checked without a catalog.
    fn refuse_duplicates(&mut self, outputs: &[Output]) {
        let mut seen: Vec<&str> = Vec::new();
        for output in outputs {
            if seen.contains(&output.name.text.as_str()) {
                self.diagnostics.push(Diagnostic::new(
                    output.name.place,
                    format!("two output columns are named \"{}\"", output.name.text),
                    "write the columns one by one, with … AS name",
                ));
            }
            seen.push(&output.name.text);
        }
    }

    fn rows(&mut self, outputs: Vec<Output>) -> (Vec<OutputColumn>, ViewKind, Vec<usize>, String) {
        let (key, key_hint) = self.row_key(&outputs);
        let columns = outputs.iter().map(column).collect();
        let output = outputs.into_iter().map(|output| output.bound.expr).collect();
        (columns, ViewKind::Rows { output }, key, key_hint)
    }

    /// The first key of the fact whose columns are all shown as they are.
    fn row_key(&self, outputs: &[Output]) -> (Vec<usize>, String) {
        let Some(fact) = self.scope.inputs.first() else {
            return (Vec::new(), String::new());
        };
        let shown = |column: usize| {
            let wanted = ExprKind::Column(ColumnRef { input: 0, column });
            outputs.iter().position(|output| output.bound.expr.kind == wanted)
        };
        let keys: Vec<&UniqueKey> = fact
            .table
            .unique_keys
            .iter()
            .filter(|key| key.columns.iter().all(|column| fact.table.columns[*column].not_null))
            .collect();
        for key in &keys {
            let columns: Option<Vec<usize>> = key.columns.iter().map(|own| shown(*own)).collect();
            if let Some(columns) = columns {
                return (columns, String::new());
            }
        }
        let hint = match keys.first() {
            Some(key) => {
                let missing: Vec<String> = key
                    .columns
                    .iter()
                    .filter(|column| shown(**column).is_none())
                    .map(|column| self.scope.describe(ColumnRef { input: 0, column: *column }))
                    .collect();
                format!("add {} to the SELECT list", missing.join(", "))
            }
            None => format!(
                "table \"{}\" has no primary key, nor a unique key over NOT NULL columns, that can be \
                 followed: add one that is not DEFERRABLE",
                fact.table.name
            ),
        };
        (Vec::new(), hint)
    }
}

pub(super) fn column(output: &Output) -> OutputColumn {
    OutputColumn {
        name: output.name.text.clone(),
        ty: output.bound.expr.ty.clone(),
        nullable: output.bound.nullable,
    }
}

enum JoinError {
    NoTable,
    Condition,
}

fn conjuncts<'n>(node: &'n Node, out: &mut Vec<&'n Node>) {
    match &node.kind {
        NodeKind::And(nodes) => nodes.iter().for_each(|node| conjuncts(node, out)),
        _ => out.push(node),
    }
}
