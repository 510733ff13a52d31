//! Copies a table as of an exported snapshot.
//!
//! ```text
//!  session: BEGIN … SET TRANSACTION SNAPSHOT ─► COPY (SELECT …)
//!       ─► CopyReader ─► chunks of rows ─► bounded channel ─► the engine
//! ```
//!
//! One session copies a table, in the order of its blocks: a `COPY` brings rows several times as fast as
//! the engine takes them, and rows of one range after the other become sorted tables of the local store
//! that overlap nowhere where keys grow, so that they are not merged again.
//!
//! Invariants:
//! - the same value is the same `Value` as from the stream, in binary and in text;
//! - a table that was truncated or rewritten since the snapshot is an error, never a table of fewer rows:
//!   PostgreSQL keeps no snapshot of that ("Caveats" of its chapter on concurrency);
//! - at most one chunk is in memory here, beyond what the channel holds;
//! - the transaction ends with the copy on every path: it is committed, or its session's socket is
//!   closed.

use super::config::SourceConfig;
use super::connect::{Session, connect};
use super::copy_binary::BinaryReader;
use super::copy_text::{CopyError, CopyReader};
use super::error::{Fix, Kind, SourceError, quote_name, quote_text};
use futures_util::StreamExt;
use tokio::sync::mpsc;
use walview_core::catalog::Table;
use walview_core::value::{Row, Type};

/// A chunk is handed on once it holds this much COPY data: large enough that the channel costs
/// nothing per row, small enough that several fit the memory of a small machine.
pub const CHUNK_BYTES: usize = 1 << 20;

/// Some rows of one table.
#[derive(Debug)]
pub struct CopyChunk {
    /// The table's OID.
    pub table: u32,
    /// The columns asked for, in the order asked for.
    pub rows: Vec<Row>,
    /// The COPY data that they took.
    pub bytes: usize,
    /// Rows of this table handed on so far, these included.
    pub rows_done: u64,
    /// The server's estimate of the table's rows; `None` before its first ANALYZE.
    pub rows_estimate: Option<u64>,
}

/// A table that was copied to its end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Copied {
    pub rows: u64,
    pub bytes: u64,
}

/// Copies `columns` (indexes into `table.columns`) of every row that the snapshot sees, in no order that
/// is promised. A full channel holds the server back. The result comes after the last chunk was handed on;
/// the sender is dropped with it.
///
/// # Errors
/// The copy failed, or the receiver was dropped ([`Kind::Cancelled`]). Chunks handed on before are
/// then a part of the table.
pub async fn copy_table(
    config: &SourceConfig,
    snapshot_name: &str,
    table: &Table,
    columns: &[usize],
    chunks: mpsc::Sender<CopyChunk>,
) -> Result<Copied, SourceError> {
    let label = format!("\"{}.{}\"", table.schema, table.name);
    let mut names = Vec::with_capacity(columns.len());
    let mut types = Vec::with_capacity(columns.len());
    for index in columns {
        let Some(column) = table.columns.get(*index) else {
            return Err(SourceError::stop(format!("table {label} has no column {index}"), ""));
        };
        names.push(column.name.clone());
        types.push(column.ty.clone());
    }
    let session = begin(config, snapshot_name).await?;
    let size = Size::load(&session, table.oid).await?;
    let mut copy = Copy {
        config: config.clone(),
        oid: table.oid,
        label,
        from: format!("{}.{}", quote_name(&table.schema), quote_name(&table.name)),
        partitioned: size.partitioned,
        names,
        types,
        copied: Copied::default(),
        rows_estimate: size.rows,
        chunks,
    };
    copy.run(session).await?;
    Ok(copy.copied)
}

pub(super) async fn begin(
    config: &SourceConfig,
    snapshot_name: &str,
) -> Result<Session, SourceError> {
    let session = connect(config).await?;
    let batch = format!(
        "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT {}",
        quote_text(snapshot_name)
    );
    match session.batch_execute(&batch).await {
        Ok(()) => Ok(session),
        Err(error) => {
            let gone = error.code().is_some_and(|code| matches!(code.code(), "22023" | "42704"));
            let error = SourceError::query("take up the exported snapshot", error);
            // The session that exported it has ended; only a new snapshot helps.
            Err(if gone { SourceError { action: super::Action::Retry, ..error } } else { error })
        }
    }
}

/// Runs a query inside the session's transaction and hands its rows to `each`, in the query's
/// order. `types` are those of its columns.
///
/// # Errors
/// The query failed, or a value cannot be read.
pub async fn query_rows(
    session: &Session,
    what: &str,
    sql: &str,
    types: Vec<Type>,
    mut each: impl FnMut(Row) + Send,
) -> Result<(), SourceError> {
    let failed = |error| SourceError::query(what, error);
    let unreadable = |_: CopyError| SourceError::stop(format!("cannot {what}: a value is odd"), "");
    // A line of its own, so that a comment at the end of the text ends there.
    let statement = format!("COPY (\n{}\n) TO STDOUT", sql.trim().trim_end_matches(';'));
    let stream = session.copy_out(statement.as_str()).await.map_err(failed)?;
    tokio::pin!(stream);
    let mut reader = CopyReader::new(types);
    let mut rows = Vec::new();
    while let Some(piece) = stream.next().await {
        reader.feed(&piece.map_err(failed)?, &mut rows).map_err(unreadable)?;
        rows.drain(..).for_each(&mut each);
    }
    reader.finish().map_err(unreadable)
}

/// How large a table is, as far as the server knows without counting.
struct Size {
    partitioned: bool,
    rows: Option<u64>,
}

impl Size {
    async fn load(session: &Session, oid: u32) -> Result<Self, SourceError> {
        const SIZE: &str = "
            SELECT c.relkind = 'p',
                   (SELECT sum(t.reltuples)::int8 FROM pg_class t
                    WHERE (t.oid = c.oid AND c.relkind = 'r'
                       OR t.oid IN (SELECT relid FROM pg_partition_tree(c.oid) WHERE isleaf))
                      AND t.reltuples >= 0)
            FROM pg_class c WHERE c.oid = $1";
        let failed = |error| SourceError::query("read a table's size", error);
        let row = session.query_opt(SIZE, &[&oid]).await.map_err(failed)?;
        let row =
            row.ok_or_else(|| SourceError::retry(format!("the table with OID {oid} is gone"), ""))?;
        let rows: Option<i64> = row.try_get(1).map_err(failed)?;
        Ok(Self {
            partitioned: row.try_get(0).map_err(failed)?,
            rows: rows.and_then(|rows| u64::try_from(rows).ok()),
        })
    }
}

/// COPY's format is chosen by table: binary where all its columns can be read so.
enum Reader {
    Text(CopyReader),
    Binary(BinaryReader),
}

impl Reader {
    fn new(types: Vec<Type>) -> Self {
        if types.iter().all(Type::has_binary) {
            Self::Binary(BinaryReader::new(types))
        } else {
            Self::Text(CopyReader::new(types))
        }
    }

    /// As an option of COPY.
    fn format(&self) -> &'static str {
        match self {
            Self::Text(_) => "(FORMAT text)",
            Self::Binary(_) => "(FORMAT binary)",
        }
    }

    fn feed(&mut self, piece: &[u8], rows: &mut Vec<Row>) -> Result<(), CopyError> {
        match self {
            Self::Text(reader) => reader.feed(piece, rows),
            Self::Binary(reader) => reader.feed(piece, rows),
        }
    }

    fn finish(&self) -> Result<(), CopyError> {
        match self {
            Self::Text(reader) => reader.finish(),
            Self::Binary(reader) => reader.finish(),
        }
    }
}

/// A table on its way.
struct Copy {
    config: SourceConfig,
    oid: u32,
    label: String,
    /// Quoted, with its schema.
    from: String,
    partitioned: bool,
    names: Vec<String>,
    types: Vec<Type>,
    /// Handed on so far.
    copied: Copied,
    rows_estimate: Option<u64>,
    chunks: mpsc::Sender<CopyChunk>,
}

impl Copy {
    async fn run(&mut self, session: Session) -> Result<(), SourceError> {
        let names: Vec<_> = self.names.iter().map(|name| quote_name(name)).collect();
        // A partitioned table holds its rows in its partitions; any other holds its own only.
        let only = if self.partitioned { "" } else { "ONLY " };
        let mut reader = Reader::new(self.types.clone());
        let format = reader.format();
        let names = names.join(", ");
        let statement =
            format!("COPY (SELECT {names} FROM {only}{}) TO STDOUT {format}", self.from);
        let stream = session.copy_out(statement.as_str()).await;
        let stream = stream.map_err(|error| self.failed(error))?;
        tokio::pin!(stream);
        let mut rows = Vec::new();
        let mut bytes = 0;
        while let Some(piece) = stream.next().await {
            let piece = piece.map_err(|error| self.failed(error))?;
            reader.feed(&piece, &mut rows).map_err(|error| self.unreadable(&error))?;
            bytes += piece.len();
            if bytes >= CHUNK_BYTES {
                self.hand_on(&mut rows, &mut bytes).await?;
            }
        }
        reader.finish().map_err(|error| self.unreadable(&error))?;
        if !rows.is_empty() {
            self.hand_on(&mut rows, &mut bytes).await?;
        }
        self.stands(&session).await?;
        session.batch_execute("COMMIT").await.map_err(|error| self.failed(error))?;
        session.close().await;
        Ok(())
    }

    /// Fails unless the files that were read, which the copy has locked, are those of the snapshot. What a
    /// query reads from catalogs is as of the snapshot, what the functions say is of now.
    async fn stands(&self, session: &Session) -> Result<(), SourceError> {
        const TABLE: &str = "
            SELECT 1::int8 FROM pg_class c
            WHERE c.oid = $1 AND c.relfilenode = pg_relation_filenode(c.oid)";
        const PARTITIONS: &str = "
            WITH RECURSIVE tree(oid) AS (
              SELECT $1::oid UNION ALL SELECT i.inhrelid FROM tree t JOIN pg_inherits i ON i.inhparent = t.oid),
            was AS (SELECT c.oid, c.relfilenode FROM tree JOIN pg_class c USING (oid) WHERE c.relkind <> 'p'),
            is_now AS (SELECT relid::oid, coalesce(pg_relation_filenode(relid), 0)
                       FROM pg_partition_tree($1) WHERE isleaf)
            SELECT 1::int8 WHERE NOT EXISTS (TABLE was EXCEPT TABLE is_now)
                             AND NOT EXISTS (TABLE is_now EXCEPT TABLE was)";
        let sql = if self.partitioned { PARTITIONS } else { TABLE };
        let found = session.query_opt(sql, &[&self.oid]).await;
        if found.map_err(|error| self.failed(error))?.is_some() {
            return Ok(());
        }
        let label = &self.label;
        Err(SourceError::retry(
            format!(
                "table {label} was truncated, rewritten or given other partitions after the snapshot \
                 had begun, so rows of it are gone"
            ),
            "",
        )
        .kind(Kind::SnapshotBroken))
    }

    async fn hand_on(&mut self, rows: &mut Vec<Row>, bytes: &mut usize) -> Result<(), SourceError> {
        self.copied.rows += u64::try_from(rows.len()).unwrap_or(u64::MAX);
        self.copied.bytes += u64::try_from(*bytes).unwrap_or(u64::MAX);
        let capacity = rows.len();
        let chunk = CopyChunk {
            table: self.oid,
            rows: std::mem::replace(rows, Vec::with_capacity(capacity)),
            bytes: std::mem::take(bytes),
            rows_done: self.copied.rows,
            rows_estimate: self.rows_estimate,
        };
        self.chunks.send(chunk).await.map_err(|_closed| {
            SourceError::stop(format!("copying table {} was cancelled", self.label), "")
                .kind(Kind::Cancelled)
        })
    }

    fn failed(&self, error: tokio_postgres::Error) -> SourceError {
        let denied = error.code().is_some_and(|code| code.code() == "42501");
        let error = SourceError::query(&format!("copy table {}", self.label), error);
        if !denied || error.message.contains("row-level security") {
            return error;
        }
        let statement =
            format!("GRANT SELECT ON {} TO {}", self.from, quote_name(&self.config.user));
        let fix = Fix::new("the table's owner", vec![statement]);
        SourceError { remedy: fix.to_string(), fix: Some(Box::new(fix)), ..error }
    }

    fn unreadable(&self, error: &CopyError) -> SourceError {
        let column = |field: &usize| self.names.get(*field).map_or("", String::as_str);
        let label = &self.label;
        match error {
            CopyError::Value { field, error } => {
                let message =
                    format!("a value in column \"{}\" of table {label}: {error}", column(field));
                // A label that was added since the catalog was read is known after the next read.
                if matches!(self.types.get(*field), Some(Type::Enum { .. })) {
                    SourceError::retry(message, "")
                } else {
                    SourceError::stop(message, "leave the column out of the views and report it")
                }
            }
            CopyError::NotUtf8 { field } => SourceError::stop(
                format!("a value in column \"{}\" of table {label} is not UTF-8", column(field)),
                "walview needs a database whose encoding is UTF8",
            ),
            CopyError::Escape { .. } | CopyError::FieldCount { .. } | CopyError::Format(_) => {
                SourceError::stop(
                    format!("the COPY of table {label} is not in the format that was asked for"),
                    "connect to PostgreSQL itself, not through a proxy that changes data",
                )
            }
            CopyError::CutOff => {
                SourceError::retry(format!("the COPY of table {label} ended inside a row"), "")
            }
        }
    }
}
