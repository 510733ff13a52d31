//! The publication: which tables, columns and operations the server sends.
//!
//! Invariants:
//! - a table whose UPDATE or DELETE would fail once it is published (no replica identity) is refused
//!   before anything is touched, and a column list always holds the replica identity;
//! - only a publication that Walview made is changed or dropped: it carries the comment
//!   `walview:<pipeline>`. Any other is checked, and what it lacks is printed as SQL for its owner.

mod existing;

use super::config::owner_mark;
use super::error::{Fix, Kind, SourceError, quote_name, quote_text};
use super::fingerprint::{Asked, OwnAlter, Question, TablePrint};
use super::server::version;
use existing::Existing;
use std::collections::BTreeSet;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Row};

/// A table that views use, and the columns that they use of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishedTable {
    pub schema: String,
    pub name: String,
    pub columns: Vec<String>,
    /// A view shows every column, those that will be added, too: then there is no list.
    pub whole: bool,
}

/// What [`ensure`] found or did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ensured {
    Created,
    Altered,
    /// It held everything already.
    Unchanged,
}

/// The operations that views need, as `publish = '…'` writes them.
const OPERATIONS: &str = "insert, update, delete, truncate";
/// The first version with column lists and row filters.
const VERSION_LISTS: i32 = 150_000;
/// The first version that can publish generated columns.
const VERSION_GENERATED: i32 = 180_000;

/// What must happen to a publication so that it sends everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The statement.
    Create(String),
    /// The statements, for one transaction.
    Alter(Vec<String>),
    Keep,
}

/// What [`look`] found.
#[derive(Debug)]
pub struct Looked {
    pub step: Step,
    /// What keeps this role from taking the step, and tables that must not be published.
    pub problems: Vec<SourceError>,
    /// By table, in their order: the columns sent; `None` is all.
    pub columns: Vec<Option<Vec<String>>>,
    /// It is ours, and this role owns it and every table.
    pub may_alter: bool,
}

/// What publication `name` must become to send everything of `tables`. Changes nothing.
///
/// # Errors
/// The server cannot be asked, or a table is gone.
pub async fn look(
    client: &Client,
    name: &str,
    pipeline: &str,
    tables: &[PublishedTable],
) -> Result<Looked, SourceError> {
    look_for(client, name, pipeline, tables, false).await
}

/// As [`look`], of what streams; of our own publication, what it sends beyond `tables` is to go, too. Only for the
/// definition that streams: a stored one may still need what a new one does not.
///
/// # Errors
/// The server cannot be asked, or a table is gone.
pub async fn look_at_own(
    client: &Client,
    name: &str,
    pipeline: &str,
    tables: &[PublishedTable],
) -> Result<Looked, SourceError> {
    look_for(client, name, pipeline, tables, true).await
}

async fn look_for(
    client: &Client,
    name: &str,
    pipeline: &str,
    tables: &[PublishedTable],
    live: bool,
) -> Result<Looked, SourceError> {
    let version = version(client).await?;
    let (mut wanted, mut problems) = (Vec::with_capacity(tables.len()), Vec::new());
    for table in tables {
        let found = Wanted::load(client, table, version, live).await?;
        problems.extend(found.keyless);
        wanted.push(found.table);
    }
    let columns = wanted.iter().map(Wanted::listed).collect();
    let Some(existing) = Existing::load(client, name, version).await? else {
        let statement = create_statement(name, &wanted);
        problems.extend(may_not_create(client, name, &statement, &wanted).await?);
        let step = Step::Create(statement);
        return Ok(Looked { step, problems, columns, may_alter: false });
    };
    problems.extend(existing.filters(&wanted));
    let ours = existing.comment.as_deref() == Some(owner_mark(pipeline).as_str());
    let may_alter = ours && existing.owned && wanted.iter().all(|table| table.owned);
    let lacks = existing.lacks(&wanted, live && may_alter);
    if lacks.is_empty() {
        return Ok(Looked { step: Step::Keep, problems, columns, may_alter });
    }
    if !may_alter {
        let why = if !ours {
            "walview did not make it".to_owned()
        } else {
            format!("role \"{}\" does not own it and every table", existing.role)
        };
        problems.push(SourceError::to_fix(
            format!("publication \"{name}\" does not send all that the views use, and {why}"),
            Fix::new("its owner", lacks.clone()),
        ));
    }
    Ok(Looked { step: Step::Alter(lacks), problems, columns, may_alter })
}

/// Alters our own publication, at once or not at all: it does not wait for somebody's lock. `intend`
/// is told what will be replaced before anything is; where it answers `false`, nothing is.
///
/// # Errors
/// The server refused, or a table is locked.
pub async fn alter(
    client: &Client,
    name: &str,
    statements: &[String],
    (question, asked): (&Question, &[Asked]),
    intend: impl AsyncFnOnce(Vec<OwnAlter>) -> bool,
) -> Result<bool, SourceError> {
    let failed = |error| SourceError::query(&format!("alter publication \"{name}\""), error);
    let altering = async {
        client.batch_execute("BEGIN; SET LOCAL lock_timeout = '2s'").await.map_err(failed)?;
        // Versions of rows are the lower half of a transaction's number.
        let sql = "SELECT (pg_current_xact_id()::text::numeric % 4294967296)::int8";
        let row = client.query_one(sql, &[]).await.map_err(failed)?;
        let xid: i64 = row.try_get(0).map_err(failed)?;
        let xid = u32::try_from(xid).unwrap_or(0);
        // Whoever takes a table out or in waits for these locks, so what is read next stays so.
        let quoted = asked
            .iter()
            .map(|(schema, table, _)| format!("{}.{}", quote_name(schema), quote_name(table)))
            .filter(|table| statements.iter().any(|statement| statement.contains(table.as_str())));
        let tables: Vec<String> = quoted.map(|table| format!("ONLY {table}")).collect();
        if !tables.is_empty() {
            let lock = format!("LOCK TABLE {} IN SHARE UPDATE EXCLUSIVE MODE", tables.join(", "));
            client.batch_execute(&lock).await.map_err(failed)?;
        }
        let print = question.ask(client, asked, name).await?.print;
        let member = |table: &TablePrint| {
            let member = table.member.as_ref()?;
            Some(OwnAlter { table: table.oid?, from: (member.row, member.version), xid })
        };
        if !intend(print.tables.iter().filter_map(member).collect()).await {
            return Ok(false);
        }
        client.batch_execute(&statements.join("; ")).await.map_err(failed)?;
        client.batch_execute("COMMIT").await.map_err(failed)?;
        Ok(true)
    };
    let altered = altering.await;
    if !matches!(altered, Ok(true)) {
        drop_failed_transaction(client).await;
    }
    altered
}

/// Those of `tables` whose UPDATE and DELETE would fail once they are published. Tables that do not
/// exist are none of them.
///
/// # Errors
/// The server cannot be asked.
pub async fn keyless(
    client: &Client,
    tables: &[(String, String)],
) -> Result<Vec<((String, String), SourceError)>, SourceError> {
    let mut found = Vec::new();
    for (schema, name) in tables {
        let table = PublishedTable {
            schema: schema.clone(),
            name: name.clone(),
            columns: Vec::new(),
            whole: false,
        };
        let failed = |error| SourceError::query("read the replica identities", error);
        if let Some(row) = client.query_opt(WANTED, &[schema, name]).await.map_err(failed)?
            && let Some(error) = read_keyless(client, &row, &table, false).await?
        {
            found.push(((schema.clone(), name.clone()), error));
        }
    }
    Ok(found)
}

/// Makes sure that publication `name` sends everything of `tables`.
///
/// # Errors
/// A table cannot be published without breaking the application; or the publication lacks something
/// and this role may not change it: the message then has the statement to type.
pub async fn ensure(
    client: &Client,
    name: &str,
    pipeline: &str,
    tables: &[PublishedTable],
) -> Result<Ensured, SourceError> {
    let looked = look(client, name, pipeline, tables).await?;
    if let Some(problem) = looked.problems.into_iter().next() {
        return Err(problem);
    }
    let (what, statements, ensured) = match looked.step {
        Step::Keep => return Ok(Ensured::Unchanged),
        Step::Alter(statements) => ("alter", statements.join("; "), Ensured::Altered),
        Step::Create(statement) => {
            let (quoted, mark) = (quote_name(name), quote_text(&owner_mark(pipeline)));
            let comment = format!("COMMENT ON PUBLICATION {quoted} IS {mark}");
            ("create", format!("{statement}; {comment}"), Ensured::Created)
        }
    };
    // One transaction: the stream sees the publication before or after, never in between.
    if let Err(error) = client.batch_execute(&format!("BEGIN; {statements}; COMMIT")).await {
        drop_failed_transaction(client).await;
        // The session of a walview that was killed a moment ago was faster: the catalog's unique
        // index says so once that session has committed.
        let overtaken = [SqlState::DUPLICATE_OBJECT, SqlState::UNIQUE_VIOLATION];
        if ensured == Ensured::Created && error.code().is_some_and(|code| overtaken.contains(code))
        {
            return Box::pin(ensure(client, name, pipeline, tables)).await;
        }
        return Err(SourceError::query(&format!("{what} publication \"{name}\""), error));
    }
    Ok(ensured)
}

/// Drops a publication that this pipeline made. `false`: it is not there or not ours.
///
/// # Errors
/// The server refused.
pub async fn drop(client: &Client, name: &str, pipeline: &str) -> Result<bool, SourceError> {
    let failed = |error| SourceError::query(&format!("drop publication \"{name}\""), error);
    let comment = client
        .query_opt(
            "SELECT obj_description(oid, 'pg_publication') FROM pg_publication WHERE pubname = $1",
            &[&name],
        )
        .await
        .map_err(failed)?
        .map(|row| row.try_get::<_, Option<String>>(0));
    let Some(Some(comment)) = comment.transpose().map_err(failed)? else {
        return Ok(false);
    };
    if comment != owner_mark(pipeline) {
        return Ok(false);
    }
    client
        .batch_execute(&format!("DROP PUBLICATION {}", quote_name(name)))
        .await
        .map_err(failed)?;
    Ok(true)
}

/// A table as it shall be published.
struct Wanted {
    oid: u32,
    /// Quoted, with its schema.
    quoted: String,
    /// As messages name it.
    label: String,
    /// `None`: every column (no lists before 15, the replica identity is FULL, or all are used: a
    /// list would hide nothing, and PostgreSQL refuses writes and DDL because of it).
    columns: Option<BTreeSet<String>>,
    /// Every column's name, in the table's order.
    all: Vec<String>,
    partitioned: bool,
    owned: bool,
}

impl Wanted {
    /// The columns sent, in the table's order; `None` is all.
    fn listed(&self) -> Option<Vec<String>> {
        let columns = self.columns.as_ref()?;
        Some(self.all.iter().filter(|column| columns.contains(*column)).cloned().collect())
    }

    fn clause(&self) -> String {
        self.clause_with(&BTreeSet::new())
    }

    /// `more`: columns that were published before; a stored definition may still need them.
    fn clause_with(&self, more: &BTreeSet<String>) -> String {
        let Some(columns) = &self.columns else {
            return self.quoted.clone();
        };
        let listed =
            self.all.iter().filter(|column| columns.contains(*column) || more.contains(*column));
        let listed: Vec<_> = listed.map(|column| quote_name(column)).collect();
        format!("{} ({})", self.quoted, listed.join(", "))
    }
}

// `identity` holds the columns that UPDATE and DELETE send of the old row. `keyless` names a
// partition (or the table itself) whose UPDATE would fail.
const WANTED: &str = "
SELECT c.oid, c.relkind = 'p', pg_has_role(c.relowner, 'USAGE'), c.relreplident::text,
       ARRAY(SELECT a.attname::text FROM pg_attribute a
             WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum),
       ARRAY(SELECT a.attname::text FROM pg_attribute a
             WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
               AND a.attgenerated <> ''),
       ARRAY(SELECT a.attname::text FROM pg_index i JOIN pg_attribute a
                  ON a.attrelid = c.oid AND a.attnum = ANY(i.indkey[0:i.indnkeyatts - 1])
             WHERE i.indrelid = c.oid AND i.indislive
               AND CASE c.relreplident WHEN 'i' THEN i.indisreplident
                                       WHEN 'd' THEN i.indisprimary ELSE false END),
       keyless.name,
       EXISTS (SELECT FROM pg_partition_tree(c.oid) p JOIN pg_class t ON t.oid = p.relid
               WHERE c.relkind = 'p' AND t.relreplident = 'f'),
       coalesce(keyless.nothing, false), coalesce(keyless.itself, false)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN LATERAL (
        SELECT format('%I.%I', tn.nspname, t.relname) AS name, t.relreplident = 'n' AS nothing,
               t.oid = c.oid AS itself
        FROM (SELECT c.oid UNION
              SELECT p.relid::oid FROM pg_partition_tree(c.oid) p WHERE c.relkind = 'p') m
        JOIN pg_class t ON t.oid = m.oid JOIN pg_namespace tn ON tn.oid = t.relnamespace
        WHERE t.relreplident = 'n'
           OR t.relreplident IN ('d', 'i') AND NOT EXISTS (
                SELECT FROM pg_index i WHERE i.indrelid = t.oid AND i.indisvalid
                  AND CASE t.relreplident WHEN 'i' THEN i.indisreplident
                                          ELSE i.indisprimary AND i.indimmediate END)
        ORDER BY t.oid <> c.oid LIMIT 1) keyless ON true
WHERE n.nspname = $1 AND c.relname = $2 AND c.relkind IN ('r', 'p')";

/// A table, and why it must not be published where it must not.
struct Loaded {
    table: Wanted,
    keyless: Option<SourceError>,
}

impl Wanted {
    async fn load(
        client: &Client,
        table: &PublishedTable,
        version: i32,
        live: bool,
    ) -> Result<Loaded, SourceError> {
        let failed = |error| SourceError::query("read the replica identities", error);
        let (schema, name) = (&table.schema, &table.name);
        let row = client.query_opt(WANTED, &[schema, name]).await.map_err(failed)?;
        let row = row.ok_or_else(|| {
            SourceError::stop(
                format!("table \"{schema}.{name}\" does not exist"),
                "check its name and source.schema",
            )
        })?;
        let keyless = read_keyless(client, &row, table, live).await?;
        Ok(Loaded { table: read_wanted(&row, table, version).map_err(failed)?, keyless })
    }
}

async fn read_keyless(
    client: &Client,
    row: &Row,
    table: &PublishedTable,
    live: bool,
) -> Result<Option<SourceError>, SourceError> {
    let failed = |error| SourceError::query("read the replica identities", error);
    let Some(keyless) = row.try_get::<_, Option<String>>(7).map_err(failed)? else {
        return Ok(None);
    };
    let nothing: bool = row.try_get(9).map_err(failed)?;
    let itself: bool = row.try_get(10).map_err(failed)?;
    let fitting = client.query_opt(FITTING_INDEX, &[&keyless]).await.map_err(failed)?;
    let fitting: Option<String> = fitting.map(|row| row.try_get(0)).transpose().map_err(failed)?;
    Ok(Some(no_identity(table, (&keyless, nothing, itself), live, fitting.as_deref())))
}

fn read_wanted(
    row: &Row,
    table: &PublishedTable,
    version: i32,
) -> Result<Wanted, tokio_postgres::Error> {
    let quoted = format!("{}.{}", quote_name(&table.schema), quote_name(&table.name));
    let identity: String = row.try_get(3)?;
    let full = identity == "f" || row.try_get(8)?;
    let generated: Vec<String> = row.try_get(5)?;
    let key: Vec<String> = row.try_get(6)?;
    let all: Vec<String> = row.try_get(4)?;
    let sendable = |name: &&String| version >= VERSION_GENERATED || !generated.contains(name);
    let listed: BTreeSet<String> =
        table.columns.iter().chain(&key).filter(sendable).cloned().collect();
    let hides = all.iter().any(|column| !listed.contains(column));
    let columns = (version >= VERSION_LISTS && !full && !table.whole && hides).then_some(listed);
    Ok(Wanted {
        oid: row.try_get(0)?,
        quoted,
        label: format!("{}.{}", table.schema, table.name),
        columns,
        all,
        partitioned: row.try_get(1)?,
        owned: row.try_get(2)?,
    })
}

/// `keyless` is the table itself or one of its partitions, as SQL writes it; `fitting` the statement
/// that gives it an identity by an index that it has.
fn no_identity(
    table: &PublishedTable,
    (keyless, nothing, itself): (&str, bool, bool),
    live: bool,
    fitting: Option<&str>,
) -> SourceError {
    let label = format!("{}.{}", table.schema, table.name);
    let partition = if itself { String::new() } else { format!(" (its partition {keyless})") };
    let has = if nothing {
        "has REPLICA IDENTITY NOTHING"
    } else {
        "has no primary key and no replica identity"
    };
    let when = if live { "while it is published" } else { "once it is published" };
    let message = format!(
        "table \"{label}\"{partition} {has}: {when}, the application's UPDATE and DELETE on it \
         fail{}",
        if live { "" } else { "; nothing was changed" }
    );
    match fitting {
        Some(statement) => {
            SourceError::to_fix(message, Fix::new("its owner", vec![statement.to_owned()]))
        }
        // Which columns make a row unique is not ours to guess.
        None => SourceError::stop(
            message,
            format!(
                "run: ALTER TABLE {keyless} ADD PRIMARY KEY (…), or ALTER TABLE {keyless} REPLICA \
                 IDENTITY USING INDEX … with a unique index over columns that are NOT NULL"
            ),
        ),
    }
}

// The primary key first, then the unique index over the fewest columns that can be an identity.
const FITTING_INDEX: &str = "
SELECT 'ALTER TABLE ' || $1::text || ' REPLICA IDENTITY '
       || CASE WHEN i.indisprimary THEN 'DEFAULT' ELSE format('USING INDEX %I', c.relname) END
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
WHERE i.indrelid = $1::text::regclass AND i.indisunique AND i.indimmediate AND i.indisvalid
  AND i.indpred IS NULL AND i.indexprs IS NULL
  AND NOT EXISTS (SELECT FROM pg_attribute a
                  WHERE a.attrelid = i.indrelid AND NOT a.attnotnull
                    AND a.attnum = ANY((i.indkey::int2[])[0:i.indnkeyatts - 1]))
ORDER BY i.indisprimary DESC, i.indnkeyatts, c.relname LIMIT 1";

fn create_statement(name: &str, tables: &[Wanted]) -> String {
    let clauses: Vec<_> = tables.iter().map(Wanted::clause).collect();
    format!(
        "CREATE PUBLICATION {} FOR TABLE {} WITH (publish = '{OPERATIONS}', \
         publish_via_partition_root = true)",
        quote_name(name),
        clauses.join(", ")
    )
}

async fn may_not_create(
    client: &Client,
    name: &str,
    statement: &str,
    tables: &[Wanted],
) -> Result<Option<SourceError>, SourceError> {
    let failed = |error| SourceError::query(&format!("create publication \"{name}\""), error);
    let row = client
        .query_one(
            "SELECT has_database_privilege(current_database(), 'CREATE'), current_user::text,
                    current_database()::text",
            &[],
        )
        .await
        .map_err(failed)?;
    let (may_create, role): (bool, String) =
        (row.try_get(0).map_err(failed)?, row.try_get(1).map_err(failed)?);
    let database: String = row.try_get(2).map_err(failed)?;
    let why = match tables.iter().find(|table| !table.owned) {
        Some(table) => format!("does not own table \"{}\"", table.label),
        None if !may_create => format!("has no CREATE privilege on database \"{database}\""),
        None => return Ok(None),
    };
    Ok(Some(SourceError::to_fix(
        format!(
            "publication \"{name}\" does not exist and role \"{role}\" may not create it: it {why}"
        ),
        Fix::new("the owner of the tables", vec![statement.to_owned()]),
    )))
}

/// A failed batch leaves the session inside a failed transaction; what ends it cannot help further.
async fn drop_failed_transaction(client: &Client) {
    if let Err(error) = client.batch_execute("ROLLBACK").await {
        tracing::debug!(%error, "rollback failed");
    }
}

/// Whether publication `name` exists, asked before a stream starts and once a second: without it a
/// stream fails at the first change, and from PostgreSQL 18 on sends none, with no error.
///
/// # Errors
/// It does not, of the kind `PublicationMissing`; or the question failed.
pub async fn require(client: &Client, name: &str) -> Result<(), SourceError> {
    let found = client
        .query_opt("SELECT 1 FROM pg_publication WHERE pubname = $1", &[&name])
        .await
        .map_err(|error| SourceError::query("look for the publication", error))?;
    if found.is_some() {
        return Ok(());
    }
    Err(SourceError::stop(
        format!("publication \"{name}\" does not exist"),
        "it was dropped: the slot cannot read the time without it; run: walview rebuild",
    )
    .kind(Kind::PublicationMissing))
}
