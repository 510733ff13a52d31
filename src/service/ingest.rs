//! From pgoutput's messages to row changes of captured tables.
//!
//! A Relation message says what the tuples that follow look like. It is held against the catalog
//! that the views were bound to: a column that a view uses and that is gone, renamed or of another
//! type stops that view, never shifts a value.

use super::drift::{REMEDY, users};
use std::collections::HashMap;
use walview_core::catalog::{Catalog, Column};
use walview_core::engine::{Engine, Layout, RowChange, TableLayout};
use walview_core::pgoutput::{Cell, Message, Old, Relation, Tuple};
use walview_core::position::Lsn;
use walview_core::value::{Row, Type, Value};

/// The message cannot be followed: the stream and the state do not fit.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct IngestError(String);

/// The relations of one replication session.
#[derive(Default)]
pub struct Relations {
    by_oid: HashMap<u32, Mapping>,
}

struct Mapping {
    /// Index into the layout's tables.
    table: usize,
    /// For each cell of a tuple the captured column that it fills.
    cells: Vec<Option<usize>>,
    /// The captured columns that no cell fills.
    absent: Vec<usize>,
    /// The table can no longer be followed: every view that uses it has stopped.
    broken: bool,
}

impl Relations {
    /// Takes in a Relation message of the transaction that commits at `at`; stops the views that it
    /// does not fit. Returns the table and a column of it that the catalog does not know, where
    /// all the others fit.
    pub fn relation(
        &mut self,
        engine: &mut Engine,
        catalog: &Catalog,
        relation: &Relation<'_>,
        at: Lsn,
    ) -> Option<(usize, String)> {
        let layout = engine.layout();
        let known = layout.table_by_oid(relation.oid);
        let same_name = layout
            .tables
            .iter()
            .position(|table| table.schema == relation.schema && table.name == relation.name);
        let Some(table) = known else {
            // A table that the publication has and no view reads; or ours, made anew.
            if let Some(table) = same_name {
                stop_users(
                    engine,
                    table,
                    None,
                    &format!(
                        "table \"{}.{}\" was dropped and created again",
                        relation.schema, relation.name
                    ),
                );
            }
            return None;
        };
        let captured = layout.tables.get(table)?;
        let source = catalog.by_oid(relation.oid);
        let mut cells = vec![None; relation.columns.len()];
        let mut problems = Vec::new();
        for (index, column) in captured.columns.iter().enumerate() {
            let found = relation.columns.iter().position(|c| c.name == column.name);
            let expected = source.and_then(|source| source.columns.get(column.catalog));
            let problem = match (found.and_then(|at| relation.columns.iter().nth(at)), expected) {
                // It was added later.
                (None, Some(Column { added: Some(added), .. })) if at < added.known_at => None,
                (None, _) => Some(format!(
                    "column \"{}\" of table \"{}\" was dropped or renamed",
                    column.name,
                    captured.qualified()
                )),
                (Some(now), Some(expected))
                    if now.type_oid != expected.type_oid
                        || now.type_modifier != expected.type_modifier =>
                {
                    Some(format!(
                        "column \"{}\" of table \"{}\" changed its type",
                        column.name,
                        captured.qualified()
                    ))
                }
                (Some(_), _) => None,
            };
            match problem {
                Some(problem) => problems.push((index, problem)),
                None => {
                    if let Some(cell) = found.and_then(|at| cells.get_mut(at)) {
                        *cell = Some(index);
                    }
                }
            }
        }
        let identity = captured.identity.clone();
        let filled = |column: &usize| cells.contains(&Some(*column));
        let absent = (0..captured.columns.len()).filter(|column| !filled(column)).collect();
        let table_problem = unfit(captured, relation);
        let mut broken = table_problem.is_some();
        let fits = !broken && problems.is_empty();
        if let Some(problem) = table_problem {
            stop_users(engine, table, None, &problem);
        }
        for (column, problem) in problems {
            let all = identity.contains(&column);
            broken |= all;
            stop_users(engine, table, (!all).then_some(column), &problem);
        }
        self.by_oid.insert(relation.oid, Mapping { table, cells, absent, broken });
        let source = source.filter(|_| fits)?;
        let new = relation.columns.iter().find(|column| source.column(column.name).is_none())?;
        Some((table, new.name.to_owned()))
    }

    /// The row changes of a message, in order. Messages that are none give none.
    ///
    /// # Errors
    /// A tuple does not have its relation's shape, or a value is not one of its column's type.
    pub fn changes(
        &self,
        layout: &Layout,
        message: &Message<'_>,
        mut visit: impl FnMut(usize, RowChange) -> Result<(), super::PipelineError>,
    ) -> Result<(), super::PipelineError> {
        match message {
            Message::Insert { relation, new } => {
                let Some(mapping) = self.mapping(*relation) else {
                    return Ok(());
                };
                let new = row(layout, mapping, new)?;
                visit(mapping.table, RowChange::Insert { new })
            }
            Message::Update { relation, old, new } => {
                let Some(mapping) = self.mapping(*relation) else {
                    return Ok(());
                };
                let old = old.as_ref().map(|old| old_row(layout, mapping, old)).transpose()?;
                let mut new = cells(layout, mapping, new, Some, |value| value)?;
                if let Some(old) = &old {
                    // A key column that is stored out of line comes with the old row only.
                    let identity = layout.tables.get(mapping.table).map(|t| t.identity.as_slice());
                    for column in identity.unwrap_or(&[]) {
                        if let (Some(new), Some(old)) = (new.get_mut(*column), old.get(*column)) {
                            new.get_or_insert_with(|| old.clone());
                        }
                    }
                }
                visit(mapping.table, RowChange::Update { old, new })
            }
            Message::Delete { relation, old } => {
                let Some(mapping) = self.mapping(*relation) else {
                    return Ok(());
                };
                let old = old_row(layout, mapping, old)?;
                visit(mapping.table, RowChange::Delete { old })
            }
            Message::Truncate(truncate) => {
                for relation in truncate.relations() {
                    if let Some(mapping) = self.mapping(relation) {
                        visit(mapping.table, RowChange::Truncate)?;
                    }
                }
                Ok(())
            }
            Message::Begin(_)
            | Message::Commit(_)
            | Message::Origin { .. }
            | Message::Relation(_)
            | Message::Type(_)
            | Message::Logical { .. } => Ok(()),
        }
    }

    /// Whether the rows of a relation are followed, and no view joins them.
    pub(super) fn is_fact(&self, layout: &Layout, oid: u32) -> bool {
        let table = self.mapping(oid).and_then(|mapping| layout.tables.get(mapping.table));
        table.is_some_and(|table| table.uses.iter().all(|(_, input)| *input == 0))
    }

    fn mapping(&self, oid: u32) -> Option<&Mapping> {
        self.by_oid.get(&oid).filter(|mapping| !mapping.broken)
    }
}

/// What keeps a table's changes from being followed at all, columns left aside.
fn unfit(captured: &TableLayout, relation: &Relation<'_>) -> Option<String> {
    let label = format!("table \"{}\"", captured.qualified());
    if (captured.schema.as_str(), captured.name.as_str()) != (relation.schema, relation.name) {
        return Some(format!("{label} is called \"{}.{}\" now", relation.schema, relation.name));
    }
    // Under NOTHING the application's updates and deletes fail: there is none to follow.
    if matches!(relation.replica_identity, b'f' | b'n') {
        return None;
    }
    let lost =
        captured.identity.iter().filter_map(|column| captured.columns.get(*column)).find(
            |column| relation.columns.iter().any(|now| now.name == column.name && !now.key),
        )?;
    Some(format!(
        "{label} has another REPLICA IDENTITY, so its changes no longer say \"{}\", which rows are \
         known by",
        lost.name
    ))
}

/// Stops the views that read `column` of `table`; all that read the table where it is `None`.
pub(super) fn stop_users(engine: &mut Engine, table: usize, column: Option<usize>, why: &str) {
    for view in users(engine.layout(), table, column) {
        stop_view(engine, view, format!("{why}; {REMEDY}"));
    }
}

/// Stops a view, and says so where it has not been said.
pub(super) fn stop_view(engine: &mut Engine, view: usize, why: String) {
    if engine.stopped().get(view).is_some_and(Option::is_none) {
        let name = engine.layout().views.get(view).map_or("", |view| view.name.as_str());
        tracing::error!(view = name, why, "view stopped");
    }
    engine.stop_view(view, why);
}

fn old_row(layout: &Layout, mapping: &Mapping, old: &Old<'_>) -> Result<Row, super::PipelineError> {
    let (Old::Key(tuple) | Old::Full(tuple)) = old;
    row(layout, mapping, tuple)
}

/// The captured columns of a tuple; what is unchanged is NULL.
fn row(layout: &Layout, mapping: &Mapping, tuple: &Tuple<'_>) -> Result<Row, super::PipelineError> {
    cells(layout, mapping, tuple, |missing| missing, |value| value.unwrap_or(Value::Null))
}

/// The captured columns of a tuple, each made by `cell` from its value (`None`: unchanged). One that
/// is not there yet, or that a stopped view would have read, is made by `absent`.
fn cells<T>(
    layout: &Layout,
    mapping: &Mapping,
    tuple: &Tuple<'_>,
    absent: impl Fn(Value) -> T,
    cell: impl Fn(Option<Value>) -> T,
) -> Result<Vec<T>, super::PipelineError> {
    let Some(table) = layout.tables.get(mapping.table) else {
        return Ok(Vec::new());
    };
    let fail = |message: String| IngestError(message);
    if tuple.len() != mapping.cells.len() {
        return Err(fail(format!(
            "a row of \"{}\" has {} columns where its relation has {}",
            table.qualified(),
            tuple.len(),
            mapping.cells.len()
        ))
        .into());
    }
    let mut row: Vec<T> = table.columns.iter().map(|_| absent(Value::Null)).collect();
    for column in &mapping.absent {
        if let (Some(slot), Some(captured)) = (row.get_mut(*column), table.columns.get(*column)) {
            *slot = absent(captured.missing.clone());
        }
    }
    for (sent, column) in tuple.cells().zip(&mapping.cells) {
        let Some(column) = *column else { continue };
        let (Some(slot), Some(captured)) = (row.get_mut(column), table.columns.get(column)) else {
            continue;
        };
        *slot = cell(read(&captured.ty, sent).map_err(|why| {
            fail(format!(
                "a value of column \"{}\" of \"{}\" cannot be read as its type: {why}",
                captured.name,
                table.qualified()
            ))
        })?);
    }
    Ok(row)
}

/// `None`: unchanged.
fn read(ty: &Type, sent: Cell<'_>) -> Result<Option<Value>, String> {
    let utf8 = |bytes| std::str::from_utf8(bytes).map_err(|_refused| "it is not UTF-8".to_owned());
    let value = match (ty, sent) {
        (_, Cell::Null) => return Ok(Some(Value::Null)),
        (_, Cell::Unchanged) => return Ok(None),
        // A label that was added since: nothing announces it, and it is its own text.
        (Type::Enum { .. }, Cell::Text(bytes) | Cell::Binary(bytes)) => {
            return Ok(Some(Value::Text(utf8(bytes)?.into())));
        }
        (ty, Cell::Text(bytes)) => Value::from_server(ty, utf8(bytes)?),
        (ty, Cell::Binary(bytes)) => Value::from_binary(ty, bytes),
    };
    value.map(Some).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use walview_core::engine::Captured;
    use walview_core::pgoutput;

    /// `bets(id bigint, note text, amount numeric, at timestamp, status)`, of which `note` is not
    /// captured.
    fn layout() -> Layout {
        let status = Type::Enum { oid: 1, name: "status".to_owned(), labels: Vec::new() };
        let columns = [
            ("id", Type::Int8),
            ("amount", Type::Numeric(Some((12, 2)))),
            ("at", Type::Timestamp),
            ("status", status),
        ];
        let columns = columns.into_iter().enumerate().map(|(catalog, (name, ty))| Captured {
            name: name.to_owned(),
            ty,
            missing: Value::Null,
            catalog,
        });
        let table = TableLayout {
            oid: 9,
            schema: "public".to_owned(),
            name: "bets".to_owned(),
            columns: columns.collect(),
            identity: vec![0],
            lookups: Vec::new(),
            child_edges: Vec::new(),
            uses: Vec::new(),
        };
        Layout { tables: vec![table], edges: Vec::new(), views: Vec::new() }
    }

    fn insert(cells: [(u8, &[u8]); 5]) -> Vec<u8> {
        let mut message = b"I\0\0\0\x09N\0\x05".to_vec();
        for (kind, bytes) in cells {
            message.push(kind);
            message.extend(u32::try_from(bytes.len()).unwrap().to_be_bytes());
            message.extend(bytes);
        }
        message
    }

    fn read(message: &[u8]) -> Result<RowChange, String> {
        let cells = vec![Some(0), None, Some(1), Some(2), Some(3)];
        let mapping = Mapping { table: 0, cells, absent: Vec::new(), broken: false };
        let relations = Relations { by_oid: HashMap::from([(9, mapping)]) };
        let mut change = None;
        let message = pgoutput::decode(message).unwrap();
        let visit = |_, found| {
            change = Some(found);
            Ok(())
        };
        match relations.changes(&layout(), &message, visit) {
            Ok(()) => Ok(change.unwrap()),
            Err(error) => Err(error.to_string()),
        }
    }

    const NUMERIC: &[u8] = b"\0\x02\0\0\0\0\0\x02\0\x0c\x13\x88";

    /// Where a long transaction is cut follows from the weight of its changes.
    #[test]
    fn text_and_binary_are_one_change_of_one_weight() {
        let text = insert([
            (b't', b"7"),
            (b't', b"a note"),
            (b't', b"12.50"),
            (b't', b"2000-01-01 00:00:01"),
            (b't', b"OPEN"),
        ]);
        let binary = insert([
            (b'b', &7_i64.to_be_bytes()),
            (b'b', b"whatever is not captured"),
            (b'b', NUMERIC),
            (b't', b"2000-01-01 00:00:01"),
            (b'b', b"OPEN"),
        ]);
        assert_ne!(text.len(), binary.len());
        let (text, binary) = (read(&text).unwrap(), read(&binary).unwrap());
        assert_eq!(text.weight(), binary.weight());
        let rows = [text, binary].map(|change| {
            let RowChange::Insert { new } = change else { panic!("{change:?}") };
            new
        });
        assert_eq!(rows[0], rows[1]);
        assert_eq!(rows[0].len(), 4);
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let id = 7_i64.to_be_bytes();
        let with = |at: (u8, &[u8]), status: (u8, &[u8])| {
            read(&insert([(b'b', &id), (b't', b""), (b'b', NUMERIC), at, status])).unwrap_err()
        };
        let at: (u8, &[u8]) = (b'b', &[0; 8]);
        assert_eq!(
            with((b'b', b"\0\0\x01"), (b'b', b"OPEN")),
            "a value of column \"at\" of \"public.bets\" cannot be read as its type: invalid binary form of \
             type timestamp: 3 bytes where 8 belong (SQLSTATE 22P03)"
        );
        assert_eq!(
            with((b't', b"soon"), (b'b', b"OPEN")),
            "a value of column \"at\" of \"public.bets\" cannot be read as its type: invalid input syntax for \
             type timestamp (SQLSTATE 22007)"
        );
        assert_eq!(
            with(at, (b'b', b"\xFF")),
            "a value of column \"status\" of \"public.bets\" cannot be read as its type: it is not UTF-8"
        );
    }
}
