//! The tables of FROM: which column a name means.

use super::ast::{Name, TableRef};
use super::types::Base;
use super::words;
use crate::catalog::{Collation, Table};
use crate::diagnostic::{Diagnostic, Place};
use crate::expr::{ColumnRef, Expr, ExprKind};
use crate::value::{Carried, Type, Value};
use std::collections::HashSet;

/// An expression with what the binder has to know of it.
#[derive(Clone, Debug)]
pub(super) struct Bound {
    pub(super) place: Place,
    pub(super) expr: Expr,
    /// False only where NULL is impossible.
    pub(super) nullable: bool,
    pub(super) collation: Coll,
    /// A quoted literal or NULL whose type its surroundings decide: `expr` holds it as text.
    pub(super) unknown: bool,
}

impl Bound {
    pub(super) fn base(&self) -> Base {
        if self.unknown { Base::Unknown } else { Base::of(&self.expr.ty) }
    }

    pub(super) fn constant(place: Place, value: Value, ty: Type) -> Self {
        let nullable = value == Value::Null;
        Self {
            place,
            expr: Expr { kind: ExprKind::Const(value), ty },
            nullable,
            collation: Coll::None,
            unknown: false,
        }
    }

    pub(super) fn unknown(place: Place, value: Value) -> Self {
        Self { unknown: true, ..Self::constant(place, value, Type::Text) }
    }

    /// The text of a literal whose type is open.
    pub(super) fn literal_text(&self) -> Option<&str> {
        let ExprKind::Const(Value::Text(text)) = &self.expr.kind else {
            return None;
        };
        self.unknown.then_some(text)
    }

    /// What may be done with it, where its type is carried as text.
    pub(super) fn carried(&self) -> Option<&Carried> {
        if self.unknown { None } else { self.expr.ty.carried() }
    }

    pub(super) fn is_null_literal(&self) -> bool {
        matches!(self.expr.kind, ExprKind::Const(Value::Null))
    }
}

/// How an expression's text compares, and how strongly it says so (PostgreSQL, "Collation
/// Support"): an explicit clause beats columns; literals and casts have no say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coll {
    None,
    Implicit(Collation),
    /// `COLLATE "C"`.
    ExplicitC,
}

impl Coll {
    pub(super) fn of(collation: Collation) -> Self {
        match collation {
            Collation::None => Self::None,
            Collation::C | Collation::Deterministic | Collation::NonDeterministic => {
                Self::Implicit(collation)
            }
        }
    }

    /// Of two operands. `C` with another one is the other one or an error in PostgreSQL, by what
    /// the database's default is; taken as the other one, nothing that follows from it is wrong.
    pub(super) fn merge(self, other: Self) -> Self {
        match (self, other) {
            (Self::ExplicitC, _) | (_, Self::ExplicitC) => Self::ExplicitC,
            (Self::None, known) | (known, Self::None) => known,
            (Self::Implicit(left), Self::Implicit(right)) => Self::Implicit(match (left, right) {
                (Collation::NonDeterministic, _) | (_, Collation::NonDeterministic) => {
                    Collation::NonDeterministic
                }
                (Collation::C, Collation::C) => Collation::C,
                _ => Collation::Deterministic,
            }),
        }
    }

    pub(super) fn is_c(self) -> bool {
        matches!(self, Self::ExplicitC | Self::Implicit(Collation::C))
    }

    pub(super) fn is_deterministic(self) -> bool {
        self != Self::Implicit(Collation::NonDeterministic)
    }
}

pub(super) struct ScopeInput<'a> {
    pub(super) table: &'a Table,
    /// The alias or the table's name.
    pub(super) name: String,
    aliased: bool,
    /// Joined by LEFT JOIN: its columns may be NULL.
    pub(super) optional: bool,
}

#[derive(Default)]
pub(super) struct Scope<'a> {
    pub(super) inputs: Vec<ScopeInput<'a>>,
    /// Columns that a condition keeps from being NULL.
    pub(super) not_null: HashSet<ColumnRef>,
}

impl<'a> Scope<'a> {
    pub(super) fn add(
        &mut self,
        table: &'a Table,
        reference: &TableRef,
        optional: bool,
    ) -> Result<(), Diagnostic> {
        let visible = reference.visible_name();
        let twice = self.inputs.iter().any(|input| input.name == visible.text);
        self.inputs.push(ScopeInput {
            table,
            name: visible.text.clone(),
            aliased: reference.alias.is_some(),
            optional,
        });
        if twice {
            return Err(Diagnostic::new(
                visible.place,
                format!("table name \"{}\" stands twice in FROM", visible.text),
                "give each its own alias: … AS a",
            ));
        }
        Ok(())
    }

    /// The tables that `t` or `schema.t` before a column can mean.
    pub(super) fn input(&self, qualifier: &[Name]) -> Result<usize, Diagnostic> {
        let found = self.inputs.iter().position(|input| match qualifier {
            [name] => input.name == name.text,
            [schema, name] => {
                !input.aliased && input.name == name.text && input.table.schema == schema.text
            }
            _ => false,
        });
        let Some(name) = qualifier.last() else {
            return Err(Diagnostic::new(Place::default(), "empty name", ""));
        };
        found.ok_or_else(|| {
            let hidden = self
                .inputs
                .iter()
                .find(|input| input.aliased && input.table.name == name.text)
                .map(|input| format!("the table is known here by its alias \"{}\"", input.name));
            let near = || words::did_you_mean(&name.text, self.names());
            Diagnostic::new(
                name.place,
                format!("table \"{}\" is not in FROM at this point", name.text),
                hidden.or_else(near).unwrap_or_else(|| "join it before this place".to_owned()),
            )
        })
    }

    pub(super) fn column(&self, parts: &[Name]) -> Result<ColumnRef, Diagnostic> {
        let Some((name, qualifier)) = parts.split_last() else {
            return Err(Diagnostic::new(Place::default(), "empty name", ""));
        };
        if !qualifier.is_empty() {
            let input = self.input(qualifier)?;
            return self.column_of(input, name);
        }
        let mut found = self.inputs.iter().enumerate().filter_map(|(input, scope)| {
            scope.table.column(&name.text).map(|column| ColumnRef { input, column })
        });
        match (found.next(), found.next()) {
            (Some(column), None) => self.readable(column, name.place),
            (Some(first), Some(second)) => Err(Diagnostic::new(
                name.place,
                format!("column \"{}\" is ambiguous", name.text),
                format!(
                    "write {}.{} or {}.{}",
                    self.name_of(first.input),
                    name.text,
                    self.name_of(second.input),
                    name.text
                ),
            )),
            (None, _) => Err(self.no_column(name)),
        }
    }

    /// Whether a bare name is a column of any table, which GROUP BY asks first.
    pub(super) fn has_column(&self, name: &str) -> bool {
        self.inputs.iter().any(|input| input.table.column(name).is_some())
    }

    fn column_of(&self, input: usize, name: &Name) -> Result<ColumnRef, Diagnostic> {
        let scope = &self.inputs[input];
        match scope.table.column(&name.text) {
            Some(column) => self.readable(ColumnRef { input, column }, name.place),
            None => Err(Diagnostic::new(
                name.place,
                format!(
                    "column \"{}\" does not exist in table \"{}\"",
                    name.text, scope.table.name
                ),
                suggestion(&name.text, scope.table),
            )),
        }
    }

    fn readable(&self, column: ColumnRef, place: Place) -> Result<ColumnRef, Diagnostic> {
        let table = self.inputs[column.input].table;
        let definition = &table.columns[column.column];
        if definition.generated {
            return Err(Diagnostic::new(
                place,
                format!("column \"{}\" of \"{}\" is generated", definition.name, table.name),
                "PostgreSQL does not send generated columns; write its expression in the view",
            ));
        }
        if let Type::Other { name, carried, .. } = &definition.ty
            && carried.names_objects
        {
            return Err(Diagnostic::new(
                place,
                format!(
                    "column \"{}\" of \"{}\" is {name}: its text is the name of something in the \
                     database, and changes without a word when that is renamed",
                    definition.name, table.name
                ),
                "keep the name in a text column, or the number in an oid column",
            ));
        }
        Ok(column)
    }

    fn no_column(&self, name: &Name) -> Diagnostic {
        let tables = self
            .inputs
            .iter()
            .map(|input| format!("\"{}\"", input.table.name))
            .collect::<Vec<_>>()
            .join(", ");
        let message = match self.inputs.as_slice() {
            [_] => format!("column \"{}\" does not exist in table {tables}", name.text),
            _ => format!("column \"{}\" does not exist in any of the tables {tables}", name.text),
        };
        let columns = self.inputs.iter().flat_map(|input| input.table.columns.iter());
        let near = words::did_you_mean(&name.text, columns.map(|column| column.name.as_str()));
        let remedy = near.unwrap_or_else(|| match self.inputs.as_slice() {
            [input] => suggestion(&name.text, input.table),
            _ => "write table.column".to_owned(),
        });
        Diagnostic::new(name.place, message, remedy)
    }

    pub(super) fn name_of(&self, input: usize) -> &str {
        self.inputs.get(input).map_or("", |input| input.name.as_str())
    }

    pub(super) fn describe(&self, column: ColumnRef) -> String {
        let input = &self.inputs[column.input];
        let name = &input.table.columns[column.column].name;
        if self.inputs.len() == 1 { name.clone() } else { format!("{}.{name}", input.name) }
    }

    pub(super) fn bound(&self, column: ColumnRef, place: Place) -> Bound {
        let input = &self.inputs[column.input];
        let definition = &input.table.columns[column.column];
        let nullable = (!definition.not_null || input.optional) && !self.not_null.contains(&column);
        Bound {
            place,
            expr: Expr { kind: ExprKind::Column(column), ty: definition.ty.clone() },
            nullable,
            collation: Coll::of(definition.collation),
            unknown: false,
        }
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.inputs.iter().map(|input| input.name.as_str())
    }
}

fn suggestion(name: &str, table: &Table) -> String {
    /// More names than this are no help in one line.
    const NAMES_MAX: usize = 12;
    words::did_you_mean(name, table.columns.iter().map(|column| column.name.as_str()))
        .unwrap_or_else(|| {
            let names: Vec<&str> =
                table.columns.iter().take(NAMES_MAX).map(|column| column.name.as_str()).collect();
            let more = if table.columns.len() > NAMES_MAX { ", …" } else { "" };
            format!("its columns are {}{more}", names.join(", "))
        })
}
