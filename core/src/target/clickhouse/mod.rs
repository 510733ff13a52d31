//! `ClickHouse` targets: versioned rows behind an exact view.
//!
//! ```text
//!  Spec ── bind(view) ──► Target ── render(change) ──► Op … ── encode ──► outbox ──► Arrow batch
//! ```
//!
//! Invariants:
//! - the sorting key contains a key of the result and is never NULL, so one result row is one row
//!   of the table after merging; partitions follow from the sorting key, so its versions meet;
//! - a row has version 2·ordinal+1 and a tombstone 2·ordinal of its position: where a row moves to
//!   another sorting key and back within one commit, the later version wins, and a row wins over
//!   its own tombstone.

mod cells;
mod ddl;
mod op;
mod syntax;
mod table;
mod types;
mod unfit;

pub use cells::{Cell, Items};
pub use ddl::{META_COLUMNS, literal, quote, rows_database};
pub use op::{Op, OpRef};
pub use table::{Misfit, Table, TableColumn};
pub use types::{ChType, ColumnType, Labels, Zone};
pub use unfit::UNFIT;

use super::codec::{CodecError, Reader, put_bytes};
use super::{Change, Columns, Commit, Field, RenderError, Scratch, same_fields, value_of};
use crate::plan::View;
use crate::position::{Lsn, Position};
use crate::value::{Type, Value};
use std::fmt::Write as _;

/// A `ClickHouse` target as the pipeline file says it, names not yet looked up in the view.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// The name of the exact view.
    pub table: String,
    /// Sorting key: result columns.
    pub order_by: Vec<String>,
    /// A `ClickHouse` expression over `order_by` columns.
    pub partition_by: Option<String>,
    /// Column to `ClickHouse` type, where the default is not wanted.
    pub types: Vec<(String, String)>,
    /// Columns shown, in order; `None` is all.
    pub fields: Option<Vec<String>>,
    /// A value that does not fit stands as text in a column of its own, instead of parking its row.
    pub unfit_text: bool,
}

/// A `ClickHouse` target bound to its view.
#[derive(Clone, Debug)]
pub struct Target {
    view: String,
    table: String,
    /// One for each of `fields`, and behind them [`UNFIT`] where `unfit` says so.
    columns: Vec<Column>,
    /// The sorting key, as indexes into `columns`.
    order: Vec<usize>,
    partition_by: Option<String>,
    /// The view's columns among `columns`, as the view has them.
    fields: Vec<Field>,
    /// The columns whose type the pipeline file says, as indexes into `columns`.
    asked: Vec<usize>,
    /// Where each of `columns` comes from; empty where nobody said it.
    origins: Vec<String>,
    fingerprint: u32,
    needs_old: bool,
    unfit: bool,
    /// This target before columns were added, the oldest first: operations of those times may wait.
    earlier: Vec<Target>,
    /// Where the values of added columns in rows from before were emitted.
    widened_at: Lsn,
}

/// A column of the table of rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    pub ty: ChType,
    pub nullable: bool,
    /// Whether it is part of the sorting key.
    pub ordered: bool,
    /// Whether the exact view shows it: a sorting column may stand behind it only.
    pub shown: bool,
}

impl Column {
    #[must_use]
    pub fn sql_type(&self) -> String {
        ColumnType { ty: self.ty.clone(), nullable: self.nullable }.to_string()
    }
}

impl Target {
    /// # Errors
    /// Everything that is wrong with the target, one sentence each.
    pub fn bind(spec: &Spec, view: &View) -> Result<Self, Vec<String>> {
        let mut columns = Columns::new(view);
        check_name(&spec.table, &mut columns.errors);
        let mut fields = columns.shown(spec.fields.as_deref());
        let shown = fields.len();
        let order = bind_order(spec, &mut fields, &mut columns);
        check_partition(spec, &mut columns.errors);
        for (name, _) in &spec.types {
            if fields.iter().all(|field| field.name != *name) {
                columns.errors.push(format!(
                    "\"types\" names column \"{name}\", which the table does not have"
                ));
            }
        }
        let mut table = Vec::with_capacity(fields.len());
        let mut asked = Vec::new();
        for (index, field) in fields.iter().enumerate() {
            let unfit = spec.unfit_text && field.name == UNFIT;
            if unfit || META_COLUMNS.contains(&field.name.as_str()) {
                columns.errors.push(format!(
                    "column \"{}\" has the name of one of walview's own; rename it with AS",
                    field.name
                ));
            }
            let ty = match spec.types.iter().find(|(name, _)| *name == field.name) {
                Some((_, text)) => {
                    asked.push(index);
                    ChType::asked(text, &field.ty, &field.name)
                }
                None => ChType::default_for(&field.ty, &field.name)
                    .map(|ty| ColumnType { ty, nullable: false }),
            };
            match ty {
                Ok(asked) if asked.nullable && order.contains(&index) => {
                    columns.errors.push(format!(
                        "\"types\" asks for a Nullable type for column \"{}\", which \"order_by\" \
                         uses; write it without Nullable",
                        field.name
                    ));
                }
                Ok(ColumnType { ty: ty @ ChType::Array(_), .. })
                    if field.nullable || order.contains(&index) =>
                {
                    columns.errors.push(array_error(&ty, field));
                }
                Ok(ColumnType { ty, nullable }) => {
                    let ordered = order.contains(&index);
                    let array = matches!(ty, ChType::Array(_));
                    let unfit = spec.unfit_text && !ordered && !array && !ty.holds_all(&field.ty);
                    table.push(Column {
                        name: field.name.clone(),
                        ty,
                        nullable: nullable || field.nullable || unfit,
                        ordered,
                        shown: index < shown,
                    });
                }
                Err(error) => columns.errors.push(error),
            }
        }
        let needs_old = order.iter().filter_map(|index| fields.get(*index)).any(|field| {
            !view.key.contains(&field.index)
                || matches!(
                    field.ty,
                    Type::Numeric(None)
                        | Type::Float4
                        | Type::Float8
                        | Type::Char(_)
                        | Type::Interval
                        | Type::Jsonb
                        | Type::Other { .. }
                )
        });
        if spec.unfit_text {
            table.push(unfit::column());
        }
        let target = Self {
            unfit: spec.unfit_text,
            view: view.name.clone(),
            table: spec.table.clone(),
            fingerprint: fingerprint(&table, &order),
            columns: table,
            order,
            partition_by: spec.partition_by.clone(),
            fields,
            asked,
            origins: Vec::new(),
            needs_old,
            earlier: Vec::new(),
            widened_at: Lsn(0),
        };
        columns.done(Some(target))
    }

    /// This target with comments on its columns: `origins` is [`View::origins`] of its view.
    #[must_use]
    pub fn with_origins(mut self, origins: &[String]) -> Self {
        let of = |field: &Field| origins.get(field.index).cloned().unwrap_or_default();
        self.origins = self.fields.iter().map(of).collect();
        self
    }

    /// This target, which was one after the other of `earlier` before columns were added; the last
    /// of which were taken in at `at`.
    #[must_use]
    pub fn widened(mut self, mut earlier: Vec<Self>, at: Lsn) -> Self {
        earlier.dedup_by_key(|target| target.fingerprint);
        earlier.retain(|target| target.fingerprint != self.fingerprint);
        self.widened_at = if earlier.is_empty() { Lsn(0) } else { at };
        self.earlier = earlier;
        self
    }

    /// This target before columns were added, the oldest first.
    #[must_use]
    pub fn earlier(&self) -> &[Self] {
        &self.earlier
    }

    /// A store that has come so far holds what added columns are in rows from before.
    #[must_use]
    pub fn widened_at(&self) -> Lsn {
        self.widened_at
    }

    /// The pipeline's name of the view that it shows.
    #[must_use]
    pub fn view(&self) -> &str {
        &self.view
    }

    /// The name of the exact view, and of the table of rows in its own database.
    #[must_use]
    pub fn table(&self) -> &str {
        &self.table
    }

    /// The columns of the table of rows, without walview's own.
    #[must_use]
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// The sorting key, in its order.
    pub fn order_columns(&self) -> impl Iterator<Item = &Column> {
        self.order.iter().filter_map(|index| self.columns.get(*index))
    }

    /// The columns that the exact view shows, in its order.
    pub fn shown(&self) -> impl Iterator<Item = &Column> {
        self.columns.iter().filter(|column| column.shown)
    }

    /// Differs between targets whose operations have different values.
    #[must_use]
    pub fn fingerprint(&self) -> u32 {
        self.fingerprint
    }

    /// Whether the row before an update or a delete must be given whole: the sorting key holds more
    /// than the result's key.
    #[must_use]
    pub fn needs_old(&self) -> bool {
        self.needs_old
    }

    /// What the store must do for one change of the result, as encoded operations that are appended
    /// to `out`.
    ///
    /// # Errors
    /// Where the new row does not fit. What the old row held is removed then, too.
    pub fn render(
        &self,
        target: u16,
        change: &Change<'_>,
        at: Position,
        commit: &Commit,
        scratch: &mut Scratch,
        out: &mut Vec<u8>,
    ) -> Result<(), RenderError> {
        if let (Some(old), Some(new)) = (change.old, change.new)
            && same_fields(&self.fields, old, new)
        {
            return Ok(());
        }
        let Scratch { old_key, key, rest, .. } = scratch;
        let op = |deleted, key, rest, out: &mut Vec<u8>| {
            let schema = self.fingerprint;
            let (version, committed_at) = (at.version(deleted), commit.committed_at);
            OpRef { target, schema, version, deleted, committed_at, key, rest }.encode(out);
        };
        let keyed = change.old.is_some_and(|row| self.encode_key(row, old_key).is_ok());
        let stays = |row: &[Value]| keyed && change.old.is_some_and(|old| self.same_key(old, row));
        let new = match change.new {
            // Nearly always: a key is not encoded twice.
            Some(row) if stays(row) => {
                key.clone_from(old_key);
                Ok(Some(row))
            }
            Some(row) => self.encode_key(row, key).map(|()| Some(row)),
            None => Ok(None),
        };
        let replaced = keyed && matches!(&new, Ok(Some(_))) && key == old_key;
        let rendered = new.and_then(|new| match new {
            Some(row) => self.encode_rest(row, rest).map(|()| true),
            None => Ok(false),
        });
        // What is replaced in its place needs no tombstone.
        if keyed
            && !(replaced && rendered.is_ok())
            && let Some(row) = change.old
        {
            let mut held = Vec::new();
            // A row that could not be rendered was parked and holds nothing.
            if self.encode_rest(row, &mut held).is_ok() {
                op(true, old_key, &[], out);
            }
        }
        if rendered? {
            op(false, key, rest, out);
        }
        Ok(())
    }

    /// A result row as [`Target::select_text`] reads it back.
    ///
    /// # Errors
    /// Where the row does not fit: it is parked.
    pub fn expected(&self, row: &[Value]) -> Result<Vec<Option<String>>, RenderError> {
        let mut bytes = Vec::new();
        let mut unfit = unfit::Texts::default();
        let mut texts = Vec::with_capacity(self.columns.len());
        let mut push = |column: &Column, bytes: &[u8]| {
            let cell = column.ty.read(&mut Reader::new(bytes)).ok().ok_or_else(|| {
                RenderError::Unfit { column: column.name.clone(), why: "it cannot be read back" }
            })?;
            if column.shown {
                texts.push(column.ty.text_of(cell));
            }
            Ok(())
        };
        for (column, field) in self.columns.iter().zip(&self.fields) {
            bytes.clear();
            self.put_or_text(column, field, row, &mut unfit, &mut bytes)?;
            push(column, &bytes)?;
        }
        if let Some(column) = self.columns.get(self.fields.len()) {
            bytes.clear();
            unfit.put(&mut bytes);
            push(column, &bytes)?;
        }
        Ok(texts)
    }

    /// The values of an operation, in the order of [`Target::columns`]; `None` for the columns that
    /// a tombstone does not have.
    ///
    /// # Errors
    /// Where the operation was encoded for other columns, or its bytes are damaged.
    pub fn cells<'a>(
        &self,
        op: &OpRef<'a>,
        mut put: impl FnMut(usize, Option<Cell<'a>>),
    ) -> Result<(), CodecError> {
        if op.schema != self.fingerprint {
            let earlier = self.earlier.iter().find(|earlier| earlier.fingerprint == op.schema);
            let earlier =
                earlier.ok_or(CodecError { what: "rows of an earlier definition of the view" })?;
            return self.earlier_cells(earlier, op, put);
        }
        self.own_cells(op, &mut put)
    }

    /// The values of an operation that was encoded for this very target.
    fn own_cells<'a>(
        &self,
        op: &OpRef<'a>,
        put: &mut impl FnMut(usize, Option<Cell<'a>>),
    ) -> Result<(), CodecError> {
        let mut key = Reader::new(op.key);
        for index in &self.order {
            if let Some(column) = self.columns.get(*index) {
                put(*index, Some(column.ty.read(&mut key)?));
            }
        }
        let mut rest = Reader::new(op.rest);
        for (index, column) in self.columns.iter().enumerate().filter(|(_, c)| !c.ordered) {
            let cell = if op.deleted { None } else { Some(column.ty.read(&mut rest)?) };
            put(index, cell);
        }
        if key.is_empty() && rest.is_empty() {
            Ok(())
        } else {
            Err(CodecError { what: "a damaged row" })
        }
    }

    /// As [`Target::cells`], of an operation from before columns were added, which it lacks.
    fn earlier_cells<'a>(
        &self,
        earlier: &Self,
        op: &OpRef<'a>,
        mut put: impl FnMut(usize, Option<Cell<'a>>),
    ) -> Result<(), CodecError> {
        let mut lacks: Vec<usize> = (0..self.columns.len()).collect();
        let places: Vec<Option<usize>> = earlier
            .columns
            .iter()
            .map(|column| self.columns.iter().position(|now| now.name == column.name))
            .collect();
        lacks.retain(|index| !places.contains(&Some(*index)));
        earlier.own_cells(op, &mut |index, cell| {
            if let Some(Some(place)) = places.get(index) {
                put(*place, cell);
            }
        })?;
        for index in lacks {
            put(index, None);
        }
        Ok(())
    }

    fn encode_key(&self, row: &[Value], out: &mut Vec<u8>) -> Result<(), RenderError> {
        out.clear();
        for index in &self.order {
            if let (Some(column), Some(field)) = (self.columns.get(*index), self.fields.get(*index))
            {
                self.put(column, field, row, out)?;
            }
        }
        Ok(())
    }

    fn same_key(&self, old: &[Value], new: &[Value]) -> bool {
        let mut order = self.order.iter().filter_map(|index| self.fields.get(*index));
        order.all(|field| value_of(old, field) == value_of(new, field))
    }

    fn encode_rest(&self, row: &[Value], out: &mut Vec<u8>) -> Result<(), RenderError> {
        out.clear();
        let mut unfit = unfit::Texts::default();
        for (column, field) in self.columns.iter().zip(&self.fields).filter(|(c, _)| !c.ordered) {
            self.put_or_text(column, field, row, &mut unfit, out)?;
        }
        if self.unfit {
            unfit.put(out);
        }
        Ok(())
    }

    fn put(
        &self,
        column: &Column,
        field: &Field,
        row: &[Value],
        out: &mut Vec<u8>,
    ) -> Result<(), RenderError> {
        let value = value_of(row, field);
        if !column.nullable && matches!(value, Value::Null) {
            return Err(RenderError::NullKey { column: field.name.clone() });
        }
        column
            .ty
            .put(value, &field.ty, out)
            .map_err(|why| RenderError::Unfit { column: field.name.clone(), why })
    }
}

/// `ClickHouse` has no NULL of an array; and arrays in a sorting key are not worth their trouble.
fn array_error(ty: &ChType, field: &Field) -> String {
    let name = &field.name;
    if field.nullable {
        format!(
            "\"types\" asks for {ty} for column \"{name}\", which may be NULL, and ClickHouse has no \
             Nullable(Array(…)); write coalesce(…, '{{}}') AS \"{name}\" in the view"
        )
    } else {
        format!(
            "\"types\" asks for {ty} for column \"{name}\", which \"order_by\" uses; write String"
        )
    }
}

fn bind_order(spec: &Spec, fields: &mut Vec<Field>, columns: &mut Columns<'_>) -> Vec<usize> {
    let mut order = Vec::new();
    if spec.order_by.is_empty() {
        columns.errors.push(
            "\"order_by\" is empty; name the columns that identify a row, the most filtered first"
                .to_owned(),
        );
    }
    for name in &spec.order_by {
        let Some(field) = columns.find(name, "\"order_by\"") else {
            continue;
        };
        columns.must_not_be_null(&field, "\"order_by\"");
        if matches!(field.ty, Type::Float4 | Type::Float8) {
            columns.errors.push(format!(
                "\"order_by\" uses column \"{name}\", a float, in which -0 equals 0 and NaN equals \
                 nothing; cast it to numeric in the view"
            ));
        }
        let index = fields.iter().position(|known| known.name == *name).unwrap_or_else(|| {
            fields.push(field);
            fields.len() - 1
        });
        if order.contains(&index) {
            columns.errors.push(format!("\"order_by\" names column \"{name}\" twice"));
        } else {
            order.push(index);
        }
    }
    let used: Vec<&Field> = order.iter().filter_map(|index| fields.get(*index)).collect();
    columns.must_hold_key(&used, "\"order_by\"", "add it at the end");
    order
}

fn check_name(table: &str, errors: &mut Vec<String>) {
    if table.is_empty() || table.chars().any(char::is_control) {
        errors.push("\"table\" is empty or holds a control character; name the view".to_owned());
    }
    if table.starts_with("walview_") {
        errors.push(format!(
            "\"table\" is \"{table}\", and names that start with \"walview_\" are walview's own"
        ));
    }
}

fn check_partition(spec: &Spec, errors: &mut Vec<String>) {
    let Some(text) = &spec.partition_by else {
        return;
    };
    let order: Vec<&str> = spec.order_by.iter().map(String::as_str).collect();
    if let Err(what) = follows_from_order(text, &order) {
        errors.push(format!(
            "\"partition_by\" is {text}, {what}; it may call functions on columns of \"order_by\" \
             ({}), like toYYYYMM(placed_at)",
            spec.order_by.join(", ")
        ));
    }
}

/// Every identifier that is not called as a function must be a sorting column: what follows from
/// the sorting key cannot tear two versions of a row apart.
fn follows_from_order(text: &str, order: &[&str]) -> Result<(), String> {
    let refuse = |what: &str| Err(what.to_owned());
    let mut chars = text.chars().peekable();
    let mut depth = 0_i32;
    let mut uses_column = false;
    while let Some(c) = chars.next() {
        match c {
            '(' => depth += 1,
            ')' => {
                depth -= 1;
                if depth < 0 {
                    return refuse("whose parentheses do not match");
                }
            }
            c if c.is_ascii_alphabetic() || c == '_' => {
                let mut name = String::from(c);
                while let Some(next) =
                    chars.next_if(|next| next.is_ascii_alphanumeric() || *next == '_')
                {
                    name.push(next);
                }
                while chars.next_if(|next| next.is_whitespace()).is_some() {}
                if chars.peek() == Some(&'(') {
                    continue;
                }
                if !order.contains(&name.as_str()) {
                    return refuse(&format!("which uses \"{name}\", not a column of \"order_by\""));
                }
                uses_column = true;
            }
            c if c.is_ascii_digit() => {
                while chars.next_if(char::is_ascii_digit).is_some() {}
                if chars.peek().is_some_and(|next| next.is_ascii_alphabetic() || *next == '_') {
                    return refuse("in which a number runs into a name");
                }
            }
            ',' | '+' | '*' | '/' | '%' => {}
            '-' if chars.peek() != Some(&'-') => {}
            c if c.is_whitespace() => {}
            c => return refuse(&format!("which holds {c:?}")),
        }
        // `/*` would start a comment.
        if c == '/' && chars.peek() == Some(&'*') {
            return refuse("which holds a comment");
        }
    }
    if depth != 0 {
        refuse("whose parentheses do not match")
    } else if uses_column {
        Ok(())
    } else {
        refuse("which uses no column")
    }
}

/// FNV-1a over what decides the bytes of an operation.
fn fingerprint(columns: &[Column], order: &[usize]) -> u32 {
    let mut text = format!("{order:?}");
    for column in columns {
        write!(text, "|{} {}", column.name, column.sql_type()).ok();
    }
    text.bytes().fold(0x811C_9DC5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests;
