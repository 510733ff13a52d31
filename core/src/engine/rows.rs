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
use super::row_cache::RowCache;
use super::state::{ReadState, Space, State, StateError};
use crate::expr::{ColumnRef, Env, EvalError};
use crate::value::{self, Row, Value};
use std::slice;
use std::sync::Arc;

/// How many keys one page of a scan brings into memory.
pub(super) const SCAN_PAGE_KEYS: usize = 1024;
/// Inserts of a table after which the state is asked again behind which key it ends.
const ASK_END_EVERY: u32 = 1024;

/// An identity that no row's of a table lies behind, where one is known. A row that is inserted behind
/// it, as with every key that grows, cannot be there already, and need not be looked for.
#[derive(Default)]
pub(super) struct End {
    identity: Option<Vec<u8>>,
    /// Inserts until the state is asked again.
    inserts: u32,
}

impl End {
    /// Whether no row with this identity can be in the state.
    pub(super) fn is_before(
        &mut self,
        state: &impl ReadState,
        table: &TableLayout,
        identity: &[u8],
    ) -> Result<bool, StateError> {
        if let Some(end) = &self.identity {
            return Ok(identity > end.as_slice());
        }
        if let Some(left) = self.inserts.checked_sub(1) {
            self.inserts = left;
            return Ok(false);
        }
        self.inserts = ASK_END_EVERY;
        let (prefix, after) = (table.oid.to_be_bytes(), row_key(table, identity));
        if state.scan(Space::Rows, &prefix, Some(&after), 1)?.is_empty() {
            self.identity = Some(identity.to_vec());
        }
        Ok(false)
    }

    /// Takes note of a row that is there from now on.
    fn reach(&mut self, identity: &[u8]) {
        if let Some(end) = self.identity.as_mut().filter(|end| end.as_slice() < identity) {
            end.clear();
            end.extend_from_slice(identity);
        }
    }
}

/// One row as an environment of expressions with a single input.
struct Single<'a>(&'a Row);

static NULL: Value = Value::Null;

impl Env for Single<'_> {
    fn column(&self, column: ColumnRef) -> &Value {
        self.0.get(column.column).unwrap_or(&NULL)
    }
}

/// The encoded key of `row` over `columns` of its table; `None` where one of them is NULL.
pub(super) fn key_of(table: &TableLayout, row: &[Value], columns: &[usize]) -> Option<Vec<u8>> {
    key_from(table, |column| row.get(column), columns)
}

/// As [`key_of`], of a row that `cell` reads.
pub(super) fn key_from<'a>(
    table: &TableLayout,
    cell: impl Fn(usize) -> Option<&'a Value>,
    columns: &[usize],
) -> Option<Vec<u8>> {
    let mut key = Vec::with_capacity(16);
    for column in columns {
        let value = cell(*column).filter(|value| !value.is_null())?;
        let ty = &table.columns.get(*column)?.ty;
        value::key::encode_key_typed(slice::from_ref(value), slice::from_ref(ty), &mut key);
    }
    Some(key)
}

/// The key that `row` joins its edge's parent by; `None` where it joins nothing.
pub(super) fn parent_key(edge: &Edge, row: &Row) -> Result<Option<Vec<u8>>, EvalError> {
    let mut key = Vec::with_capacity(16);
    for expr in &edge.on {
        let row = Single(row);
        let value = expr.eval_ref(&row)?;
        if value.is_null() {
            return Ok(None);
        }
        value::key::encode_key_typed(slice::from_ref(&*value), slice::from_ref(&expr.ty), &mut key);
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
    [&edge_number(edge)[..], parent_key].concat()
}

fn edge_number(edge: usize) -> [u8; 4] {
    u32::try_from(edge).unwrap_or(u32::MAX).to_be_bytes()
}

fn decode(table: &TableLayout, bytes: &[u8]) -> Result<Row, StateError> {
    let mut row = value::row::decode_row(bytes).map_err(|error| StateError {
        message: format!("a row of \"{}\" cannot be decoded", table.qualified()),
        source: Some(Box::new(error)),
    })?;
    table.widen(&mut row);
    Ok(row)
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
    cache: &mut RowCache,
    table: &TableLayout,
    access: Access,
    key: &[u8],
) -> Result<Option<Arc<Row>>, StateError> {
    let Access::Lookup(lookup) = access else {
        return cached(state, cache, table, key);
    };
    match state.get(Space::Lookups, &lookup_key(table, lookup, key))? {
        Some(identity) => cached(state, cache, table, &identity),
        None => Ok(None),
    }
}

fn cached(
    state: &impl ReadState,
    cache: &mut RowCache,
    table: &TableLayout,
    identity: &[u8],
) -> Result<Option<Arc<Row>>, StateError> {
    if let Some(row) = cache.get(table.oid, identity) {
        return Ok(Some(row));
    }
    let Some(bytes) = state.get(Space::Rows, &row_key(table, identity))? else {
        return Ok(None);
    };
    let row = Arc::new(decode(table, &bytes)?);
    cache.put(table.oid, identity, &row);
    Ok(Some(row))
}

/// Replaces `old` by `new` (either may be absent) with all that points to it; `end` is the table's.
pub(super) fn replace(
    state: &mut impl State,
    (cache, end): (&mut RowCache, Option<&mut End>),
    layout: &Layout,
    table: &TableLayout,
    old: Option<(&[u8], &Row)>,
    new: Option<(&[u8], &Row)>,
) {
    let same_identity = old.map(|(identity, _)| identity) == new.map(|(identity, _)| identity);
    for (index, columns) in table.lookups.iter().enumerate() {
        let key = |(_, row): (&[u8], &Row)| key_of(table, row, columns);
        let (from, to) = (old.and_then(key), new.and_then(key));
        if same_identity && from == to {
            continue;
        }
        if let Some(key) = from {
            state.delete(Space::Lookups, &lookup_key(table, index, &key));
        }
        if let (Some(key), Some((identity, _))) = (to, new) {
            state.put(Space::Lookups, &lookup_key(table, index, &key), identity);
        }
    }
    for index in &table.child_edges {
        let Some(edge) = layout.edges.get(*index) else {
            continue;
        };
        // A key that cannot be computed joins nothing; the views that evaluate it park the row.
        let key = |(_, row): (&[u8], &Row)| parent_key(edge, row).ok().flatten();
        let (from, to) = (old.and_then(key), new.and_then(key));
        if same_identity && from == to {
            continue;
        }
        let pointer =
            |parent: &[u8], identity: &[u8]| [&edge_number(*index)[..], parent, identity].concat();
        if let (Some(parent), Some((identity, _))) = (from, old) {
            state.delete(Space::Reverse, &pointer(&parent, identity));
        }
        if let (Some(parent), Some((identity, _))) = (to, new) {
            state.put(Space::Reverse, &pointer(&parent, identity), &[]);
        }
    }
    if let Some((identity, _)) = old {
        cache.remove(table.oid, identity);
        if !same_identity {
            state.delete(Space::Rows, &row_key(table, identity));
        }
    }
    if let Some((identity, row)) = new {
        let mut bytes = Vec::with_capacity(64);
        value::row::encode_row(row, &mut bytes);
        state.put(Space::Rows, &row_key(table, identity), &bytes);
        cache.remove(table.oid, identity);
        if let Some(end) = end {
            end.reach(identity);
        }
    }
}

/// Identities of rows that join by `edge` to the row with `parent_key`, in order: at most `limit`
/// after `after`.
pub(super) fn children(
    state: &impl ReadState,
    edge: usize,
    parent_key: &[u8],
    after: Option<&[u8]>,
    limit: usize,
) -> Result<Vec<Vec<u8>>, StateError> {
    let prefix = reverse_prefix(edge, parent_key);
    let after = after.map(|identity| [&prefix, identity].concat());
    let page = state.scan(Space::Reverse, &prefix, after.as_deref(), limit)?;
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
