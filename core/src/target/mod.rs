//! From a change of a view's result to what a store must do.
//!
//! ```text
//!  engine ── Change ──► redis::Target::render ──► encoded redis::Op …       ─┐
//!                  └──► clickhouse::Target::render ──► encoded Op …         ─┴─► outbox ─► writer
//! ```
//!
//! Operations are absolute and idempotent: writing one twice is harmless.

use crate::plan::View;
use crate::value::{Type, Value};

pub mod clickhouse;
pub mod codec;
pub mod format;
pub mod redis;
pub mod template;

/// How one row of a view's result changed. `old` and `new` have the view's columns; at least one
/// is there, and both have the same key.
#[derive(Clone, Copy, Debug)]
pub struct Change<'a> {
    pub old: Option<&'a [Value]>,
    pub new: Option<&'a [Value]>,
}

/// The commit that a change belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Microseconds since 2000-01-01 UTC, from the source's own clock.
    pub committed_at: i64,
}

/// Memory that rendering uses again and again; what is in it means nothing between two changes.
#[derive(Debug, Default)]
pub struct Scratch {
    old: redis::Slot,
    new: redis::Slot,
    text: String,
    old_key: Vec<u8>,
    key: Vec<u8>,
    rest: Vec<u8>,
}

/// A kind of change of a result row, as `events:` names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    Insert,
    Update,
    Delete,
}

/// `events:`, default all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Events {
    pub insert: bool,
    pub update: bool,
    pub delete: bool,
}

impl Default for Events {
    fn default() -> Self {
        Self { insert: true, update: true, delete: true }
    }
}

/// The new row of a change cannot be held by the target. What the old row held has been removed by
/// the operations rendered so far, which the caller keeps; it parks the row (or, at
/// [`RenderError::Position`], stops the pipeline).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RenderError {
    #[error("column \"{column}\" is NULL, which has no place in a key")]
    NullKey { column: String },
    #[error("the value of column \"{column}\" does not fit: {why}")]
    Unfit { column: String, why: &'static str },
    #[error(
        "the position {0} does not fit a Redis stream id; rebuild the pipeline under a new name"
    )]
    Position(crate::position::Position),
}

/// One column of a result, found by its name.
#[derive(Clone, Debug)]
pub(crate) struct Field {
    pub(crate) index: usize,
    pub(crate) name: String,
    pub(crate) ty: Type,
    pub(crate) nullable: bool,
}

/// Finds columns by name and collects what is wrong.
pub(crate) struct Columns<'a> {
    view: &'a View,
    pub(crate) errors: Vec<String>,
}

impl<'a> Columns<'a> {
    pub(crate) fn new(view: &'a View) -> Self {
        Self { view, errors: Vec::new() }
    }

    pub(crate) fn find(&mut self, name: &str, place: &str) -> Option<Field> {
        let found = self.view.columns.iter().position(|column| column.name == name);
        match found.and_then(|index| Some((index, self.view.columns.get(index)?))) {
            Some((index, column)) => Some(Field {
                index,
                name: column.name.clone(),
                ty: column.ty.clone(),
                nullable: column.nullable,
            }),
            None => {
                let known: Vec<&str> =
                    self.view.columns.iter().map(|column| column.name.as_str()).collect();
                self.errors.push(format!(
                    "{place} names column \"{name}\", which view \"{}\" does not show; it shows {}",
                    self.view.name,
                    known.join(", ")
                ));
                None
            }
        }
    }

    /// The columns of `fields:`, or all.
    pub(crate) fn shown(&mut self, fields: Option<&[String]>) -> Vec<Field> {
        let Some(names) = fields else {
            let names: Vec<String> =
                self.view.columns.iter().map(|column| column.name.clone()).collect();
            return names.iter().filter_map(|name| self.find(name, "the result")).collect();
        };
        if names.is_empty() {
            self.errors.push("\"fields\" is empty; name a column, or leave it out".to_owned());
        }
        let mut seen: Vec<&String> = Vec::new();
        let mut shown = Vec::new();
        for name in names {
            if seen.contains(&name) {
                self.errors.push(format!("\"fields\" names column \"{name}\" twice"));
            } else {
                seen.push(name);
                shown.extend(self.find(name, "\"fields\""));
            }
        }
        shown
    }

    /// Complains about key columns of the result that are not among `used`.
    pub(crate) fn must_hold_key(&mut self, used: &[&Field], place: &str, remedy: &str) {
        let missing: Vec<String> = self
            .view
            .key
            .iter()
            .filter(|key| used.iter().all(|field| field.index != **key))
            .filter_map(|key| self.view.columns.get(*key))
            .map(|column| format!("\"{}\"", column.name))
            .collect();
        if !missing.is_empty() {
            self.errors.push(format!(
                "{place} must contain the key of the result, or rows would overwrite each other: \
                 {} is missing; {remedy}",
                missing.join(", ")
            ));
        }
    }

    pub(crate) fn must_not_be_null(&mut self, field: &Field, place: &str) {
        if field.nullable {
            self.errors.push(format!(
                "{place} uses column \"{0}\", which may be NULL; add WHERE … IS NOT NULL to the \
                 view, or write coalesce(…) AS \"{0}\"",
                field.name
            ));
        }
    }

    pub(crate) fn done<T>(self, value: Option<T>) -> Result<T, Vec<String>> {
        match value {
            Some(value) if self.errors.is_empty() => Ok(value),
            _ => Err(self.errors),
        }
    }
}

/// Whether a reader of these fields sees no difference: `Value`'s `==` is identity, not SQL's `=`.
pub(crate) fn same_fields(fields: &[Field], old: &[Value], new: &[Value]) -> bool {
    fields.iter().all(|field| match (old.get(field.index), new.get(field.index)) {
        (Some(old), Some(new)) => old == new,
        (None, None) => true,
        _ => false,
    })
}

/// The value of a field; a row that is too short (a bug elsewhere) reads as NULL, not as a panic.
pub(crate) fn value_of<'a>(row: &'a [Value], field: &Field) -> &'a Value {
    row.get(field.index).unwrap_or(&Value::Null)
}
