//! Rows of the source's tables in the state, and the ways to them.
//!
//! Keys (all integers big-endian):
//! - `Rows`: table oid u32 | identity ─► row;
//! - `Lookups`: table oid u32 | lookup u16 | unique key ─► identity;
//! - `Reverse`: edge u32 | the joined row's key | identity of the row that joins ─► nothing.
//!
//! Invariant: `put` and `remove` keep the three in step; nothing else writes them. Identities and
//! keys are `value::key` encodings, which are self-delimiting, so a prefix is exact.

use super::layout::{Access, Edge, Layout, TableLayout};
use super::state::{ReadState, Space, State, StateError};
use crate::expr::{ColumnRef, Env, EvalError};
use crate::value::{self, Row, Value};
use std::slice;

/// How many keys one page of a scan brings into memory.
const SCAN_PAGE_KEYS: usize = 1024;

/// One row as an environment of expressions with a single input.
struct Single<'a>(&'a Row);

static NULL: Value = Value::Null;

impl Env for Single<'_> {
    fn column(&self, column: ColumnRef) -> &Value {
        self.0.get(column.column).unwrap_or(&NULL)
    }
}

/// The encoded key of `row` over `columns` of its table; `None` where one of them is NULL.
pub(super) fn key_of(table: &TableLayout, row: &Row, columns: &[usize]) -> Option<Vec<u8>> {
    let mut key = Vec::with_capacity(16);
    for column in columns {
        let value = row.get(*column).filter(|value| !value.is_null())?;
        let ty = &table.columns.get(*column)?.ty;
        value::key::encode_key_typed(slice::from_ref(value), slice::from_ref(ty), &mut key);
    }
    Some(key)
}

/// The key that `row` joins its edge's parent by; `None` where it joins nothing.
pub(super) fn parent_key(edge: &Edge, row: &Row) -> Result<Option<Vec<u8>>, EvalError> {
    let mut key = Vec::with_capacity(16);
    for expr in &edge.on {
        let value = expr.eval(&Single(row))?;
        if value.is_null() {
            return Ok(None);
        }
        value::key::encode_key_typed(slice::from_ref(&value), slice::from_ref(&expr.ty), &mut key);
    }
    Ok(Some(key))
}

fn row_key(table: &TableLayout, identity: &[u8]) -> Vec<u8> {
    [&table.oid.to_be_bytes(), identity].concat()
}

fn lookup_key(table: &TableLayout, lookup: usize, key: &[u8]) -> Vec<u8> {
    let lookup = u16::try_from(lookup).unwrap_or(u16::MAX);
    [&table.oid.to_be_bytes()[..], &lookup.to_be_bytes(), key].concat()
}

fn reverse_prefix(edge: usize, parent_key: &[u8]) -> Vec<u8> {
    let edge = u32::try_from(edge).unwrap_or(u32::MAX);
    [&edge.to_be_bytes(), parent_key].concat()
}

fn decode(table: &TableLayout, bytes: &[u8]) -> Result<Row, StateError> {
    value::row::decode_row(bytes).map_err(|error| StateError {
        message: format!("a row of \"{}\" cannot be decoded", table.qualified()),
        source: Some(Box::new(error)),
    })
}

/// The row that has `identity`.
pub(super) fn get(
    state: &impl ReadState,
    table: &TableLayout,
    identity: &[u8],
) -> Result<Option<Row>, StateError> {
    let bytes = state.get(Space::Rows, &row_key(table, identity))?;
    bytes.map(|bytes| decode(table, &bytes)).transpose()
}

/// The row that has `key` by `access`.
pub(super) fn find(
    state: &impl ReadState,
    table: &TableLayout,
    access: Access,
    key: &[u8],
) -> Result<Option<Row>, StateError> {
    match access {
        Access::Identity => get(state, table, key),
        Access::Lookup(lookup) => {
            match state.get(Space::Lookups, &lookup_key(table, lookup, key))? {
                Some(identity) => get(state, table, &identity),
                None => Ok(None),
            }
        }
    }
}

/// Replaces `old` by `new` (either may be absent) with all that points to it.
pub(super) fn replace(
    state: &mut impl State,
    layout: &Layout,
    table: &TableLayout,
    old: Option<(&[u8], &Row)>,
    new: Option<(&[u8], &Row)>,
) {
    let old_pointers = old.map_or_else(Vec::new, |(key, row)| pointers(layout, table, key, row));
    let new_pointers = new.map_or_else(Vec::new, |(key, row)| pointers(layout, table, key, row));
    for pointer in old_pointers.iter().filter(|pointer| !new_pointers.contains(pointer)) {
        state.delete(pointer.space, &pointer.key);
    }
    for pointer in new_pointers.iter().filter(|pointer| !old_pointers.contains(pointer)) {
        state.put(pointer.space, &pointer.key, &pointer.value);
    }
    if let Some((identity, _)) = old
        && new.is_none_or(|(new_identity, _)| new_identity != identity)
    {
        state.delete(Space::Rows, &row_key(table, identity));
    }
    if let Some((identity, row)) = new {
        let mut bytes = Vec::with_capacity(64);
        value::row::encode_row(row, &mut bytes);
        state.put(Space::Rows, &row_key(table, identity), &bytes);
    }
}

/// An entry of another space that leads to a row.
#[derive(PartialEq, Eq)]
struct Pointer {
    space: Space,
    key: Vec<u8>,
    value: Vec<u8>,
}

fn pointers(layout: &Layout, table: &TableLayout, identity: &[u8], row: &Row) -> Vec<Pointer> {
    let mut pointers = Vec::with_capacity(table.lookups.len() + table.child_edges.len());
    for (index, columns) in table.lookups.iter().enumerate() {
        if let Some(key) = key_of(table, row, columns) {
            let key = lookup_key(table, index, &key);
            pointers.push(Pointer { space: Space::Lookups, key, value: identity.to_vec() });
        }
    }
    for index in &table.child_edges {
        let Some(edge) = layout.edges.get(*index) else {
            continue;
        };
        // A key that cannot be computed joins nothing; the views that evaluate it park the row.
        if let Ok(Some(key)) = parent_key(edge, row) {
            let mut key = reverse_prefix(*index, &key);
            key.extend_from_slice(identity);
            pointers.push(Pointer { space: Space::Reverse, key, value: Vec::new() });
        }
    }
    pointers
}

/// Identities of rows that join by `edge` to the row with `parent_key`, a page after `after`.
pub(super) fn children(
    state: &impl ReadState,
    edge: usize,
    parent_key: &[u8],
    after: Option<&[u8]>,
) -> Result<Vec<Vec<u8>>, StateError> {
    let prefix = reverse_prefix(edge, parent_key);
    let after = after.map(|identity| [&prefix, identity].concat());
    let page = state.scan(Space::Reverse, &prefix, after.as_deref(), SCAN_PAGE_KEYS)?;
    Ok(page.into_iter().map(|(key, _)| key.get(prefix.len()..).unwrap_or(&[]).to_vec()).collect())
}

/// Rows of `table` with their identities, a page after `after`.
pub(super) fn page(
    state: &impl ReadState,
    table: &TableLayout,
    after: Option<&[u8]>,
) -> Result<Vec<(Vec<u8>, Row)>, StateError> {
    let prefix = table.oid.to_be_bytes();
    let after = after.map(|identity| row_key(table, identity));
    let page = state.scan(Space::Rows, &prefix, after.as_deref(), SCAN_PAGE_KEYS)?;
    page.into_iter()
        .map(|(key, bytes)| {
            Ok((key.get(prefix.len()..).unwrap_or(&[]).to_vec(), decode(table, &bytes)?))
        })
        .collect()
}
