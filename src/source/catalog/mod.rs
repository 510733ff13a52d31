//! Reads what the catalogs say of a pipeline's tables into [`walview_core::catalog`].
//!
//! Invariant: what is returned can be followed exactly. A table that cannot be (a view, a parent of
//! inheriting tables, one whose rows are partly hidden) is an error here, not a surprise later.

mod types;

use super::error::{Fix, SourceError, quote_name};
use std::collections::HashMap;
use tokio_postgres::{Client, Row};
use types::Types;
use walview_core::catalog::{Catalog, Collation, Column, ReplicaIdentity, Table, UniqueKey};

/// A schema and a table's name.
pub type TableName = (String, String);

const TABLES: &str = "
SELECT w.schema, w.name, c.oid, c.relkind::text, c.relreplident::text, row_security_active(c.oid),
       EXISTS (SELECT FROM pg_inherits i WHERE i.inhparent = c.oid) AND c.relkind = 'r',
       c.relpersistence::text, current_user::text
FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS w(schema, name, place)
LEFT JOIN pg_namespace n ON n.nspname = w.schema
LEFT JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.name
ORDER BY w.place";

// `to_jsonb` reads columns that not every version has: providers came to pg_database with 15, and
// a collation's locale moved between columns with 15 and 17.
const COLUMNS: &str = "
SELECT a.attrelid, a.attname::text, a.attnum, a.atttypid, a.atttypmod, a.attnotnull,
       a.attgenerated <> '', a.attlen = -1 AND a.attstorage <> 'p', a.attcollation,
       CASE WHEN l.collprovider = 'd' THEN coalesce(d.j->>'datlocprovider', 'c')
            ELSE l.collprovider::text END,
       CASE WHEN l.collprovider = 'd' THEN coalesce(d.j->>'datlocale', d.j->>'datcollate')
            ELSE coalesce(l.j->>'colllocale', l.j->>'collcollate') END,
       CASE WHEN l.collprovider = 'd' THEN d.j->>'datctype' ELSE l.j->>'collctype' END,
       l.collisdeterministic
FROM pg_attribute a
LEFT JOIN (SELECT oid, collprovider, collisdeterministic, to_jsonb(x) AS j FROM pg_collation x) l
       ON l.oid = a.attcollation
CROSS JOIN (SELECT to_jsonb(x) AS j FROM pg_database x WHERE datname = current_database()) d
WHERE a.attrelid = ANY($1) AND a.attnum > 0 AND NOT a.attisdropped
ORDER BY a.attrelid, a.attnum";

// `indkey` also lists INCLUDE columns, which make nothing unique.
const KEYS: &str = "
SELECT i.indrelid, c.relname::text, (i.indkey::int2[])[0:i.indnkeyatts - 1], i.indisprimary,
       i.indisreplident, i.indimmediate
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
WHERE i.indrelid = ANY($1) AND i.indisunique AND i.indisvalid AND i.indislive
  AND i.indpred IS NULL AND i.indexprs IS NULL
ORDER BY i.indrelid, i.indisprimary DESC, i.indexrelid";

/// What the catalogs say of the tables named.
#[derive(Debug)]
pub struct Survey {
    /// The tables that can be followed, in their order, each once.
    pub catalog: Catalog,
    /// The others, and why not.
    pub refused: Vec<(TableName, SourceError)>,
}

/// Loads the tables named, in their order, each once.
///
/// # Errors
/// A table does not exist or cannot be followed.
pub async fn load(client: &Client, tables: &[TableName]) -> Result<Catalog, SourceError> {
    let survey = survey(client, tables).await?;
    match survey.refused.into_iter().next() {
        Some((_, error)) => Err(error),
        None => Ok(survey.catalog),
    }
}

/// As [`load`], with everything that is wrong at once. Whether rows may be read is not asked here:
/// the catalogs are open to all, and a stream needs no SELECT.
///
/// # Errors
/// The server cannot be asked.
pub async fn survey(client: &Client, tables: &[TableName]) -> Result<Survey, SourceError> {
    let failed = |error| SourceError::query("read the catalog", error);
    let (schemas, names): (Vec<_>, Vec<_>) =
        tables.iter().map(|(schema, name)| (schema.as_str(), name.as_str())).unzip();
    let rows = client.query(TABLES, &[&schemas, &names]).await.map_err(failed)?;
    let mut found: Vec<Table> = Vec::with_capacity(rows.len());
    let mut refused: Vec<(TableName, SourceError)> = Vec::new();
    for (name, row) in tables.iter().zip(&rows) {
        match read_table(row).map_err(failed)? {
            Ok(table) if found.iter().any(|have| have.oid == table.oid) => {}
            Ok(table) => found.push(table),
            Err(Refusal::Missing { schema, name: table }) => {
                refused.push((name.clone(), missing(client, &schema, &table).await));
            }
            Err(Refusal::Unfit(error)) => refused.push((name.clone(), *error)),
        }
    }
    refuse_partition_beside_root(client, &mut found, &mut refused).await?;
    let oids: Vec<u32> = found.iter().map(|table| table.oid).collect();
    let rows = client.query(COLUMNS, &[&oids]).await.map_err(failed)?;
    let types = Types::load(client, &rows).await?;
    let mut by_oid: HashMap<u32, &mut Table> =
        found.iter_mut().map(|table| (table.oid, table)).collect();
    for row in &rows {
        let (oid, column) = read_column(row, &types).map_err(failed)?;
        if let Some(table) = by_oid.get_mut(&oid) {
            table.columns.push(column);
        }
    }
    for row in client.query(KEYS, &[&oids]).await.map_err(failed)? {
        let oid: u32 = row.try_get(0).map_err(failed)?;
        if let Some(table) = by_oid.get_mut(&oid) {
            add_key(table, &row).map_err(failed)?;
        }
    }
    let sql = "SELECT current_setting('server_encoding') <> 'UTF8'";
    let row = client.query_one(sql, &[]).await.map_err(failed)?;
    let other_encoding = row.try_get(0).map_err(failed)?;
    Ok(Survey { catalog: Catalog { tables: found, other_encoding }, refused })
}

enum Refusal {
    Missing { schema: String, name: String },
    Unfit(Box<SourceError>),
}

fn read_table(row: &Row) -> Result<Result<Table, Refusal>, tokio_postgres::Error> {
    let (schema, name): (String, String) = (row.try_get(0)?, row.try_get(1)?);
    let Some(oid) = row.try_get::<_, Option<u32>>(2)? else {
        return Ok(Err(Refusal::Missing { schema, name }));
    };
    let label = format!("\"{schema}.{name}\"");
    let quoted = format!("{}.{}", quote_name(&schema), quote_name(&name));
    let role: String = row.try_get(8)?;
    let role_name = quote_name(&role);
    let kind: String = row.try_get(3)?;
    let kind = match kind.as_str() {
        "r" | "p" => None,
        "v" => Some("a view"),
        "m" => Some("a materialized view"),
        "f" => Some("a foreign table"),
        _ => Some("not a table"),
    };
    let persistence: String = row.try_get(7)?;
    let unfit = |message: String, remedy: &str| {
        Ok(Err(Refusal::Unfit(Box::new(SourceError::stop(message, remedy)))))
    };
    let to_fix = |message: String, by: &str, statement: String| {
        let fix = Fix::new(by, vec![statement]);
        Ok(Err(Refusal::Unfit(Box::new(SourceError::to_fix(message, fix)))))
    };
    if let Some(kind) = kind {
        return unfit(
            format!("{label} is {kind}, whose changes are not in the write-ahead log"),
            "name the tables that it reads",
        );
    }
    if row.try_get::<_, Option<bool>>(5)?.unwrap_or(false) {
        return to_fix(
            format!("row level security hides rows of table {label} from role \"{role}\""),
            "a superuser",
            format!("ALTER ROLE {role_name} BYPASSRLS"),
        );
    }
    if persistence != "p" {
        return to_fix(
            format!("table {label} is unlogged or temporary: its changes are not in the log"),
            "its owner",
            format!("ALTER TABLE {quoted} SET LOGGED"),
        );
    }
    if row.try_get(6)? {
        return unfit(
            format!("table {label} has inheriting tables, which is not supported"),
            "name the inheriting tables one by one; declarative partitions are supported",
        );
    }
    let identity: String = row.try_get(4)?;
    let replica_identity = match identity.as_str() {
        "f" => ReplicaIdentity::Full,
        "n" => ReplicaIdentity::Nothing,
        // Filled from the index itself; without one it stays empty, as in PostgreSQL.
        "i" => ReplicaIdentity::Index(Vec::new()),
        _ => ReplicaIdentity::Default,
    };
    let (columns, unique_keys) = (Vec::new(), Vec::new());
    Ok(Ok(Table { oid, schema, name, columns, unique_keys, replica_identity }))
}

/// "Does not exist", with where a table of that name does.
async fn missing(client: &Client, schema: &str, name: &str) -> SourceError {
    const ELSEWHERE: &str = "
        SELECT n.nspname::text, c.relname::text FROM pg_class c
        JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'p') AND lower(c.relname) = lower($1)
          AND n.nspname NOT IN ('pg_catalog', 'information_schema')
        ORDER BY n.nspname = $2 DESC, 1, 2 LIMIT 1";
    let found = client.query_opt(ELSEWHERE, &[&name, &schema]).await.ok().flatten();
    let found = found.and_then(|row| {
        Some((row.try_get::<_, String>(0).ok()?, row.try_get::<_, String>(1).ok()?))
    });
    let remedy = found.map_or_else(
        || "check its name and source.schema".to_owned(),
        |(schema, name)| format!("did you mean \"{schema}.{name}\"?"),
    );
    SourceError::stop(format!("table \"{schema}.{name}\" does not exist"), remedy)
}

/// Published together, a partition's changes arrive under its root's name only.
async fn refuse_partition_beside_root(
    client: &Client,
    tables: &mut Vec<Table>,
    refused: &mut Vec<(TableName, SourceError)>,
) -> Result<(), SourceError> {
    const BESIDE: &str = "
        SELECT p.oid, r.relid::oid FROM unnest($1::oid[]) AS p(oid),
             LATERAL pg_partition_ancestors(p.oid) r
        WHERE r.relid <> p.oid AND r.relid = ANY($1)";
    let oids: Vec<u32> = tables.iter().map(|table| table.oid).collect();
    let failed = |error| SourceError::query("read the partitions", error);
    for row in client.query(BESIDE, &[&oids]).await.map_err(failed)? {
        let (partition, root): (u32, u32) =
            (row.try_get(0).map_err(failed)?, row.try_get(1).map_err(failed)?);
        let Some(at) = tables.iter().position(|table| table.oid == partition) else {
            continue;
        };
        let name = |table: &Table| format!("{}.{}", table.schema, table.name);
        let root = tables.iter().find(|table| table.oid == root).map_or_else(String::new, name);
        let table = tables.remove(at);
        refused.push((
            (table.schema.clone(), table.name.clone()),
            SourceError::stop(
                format!(
                    "table \"{}\" is a partition of \"{root}\", and views use both",
                    name(&table)
                ),
                "use one of the two",
            ),
        ));
    }
    Ok(())
}

fn read_column(row: &Row, types: &Types) -> Result<(u32, Column), tokio_postgres::Error> {
    let (type_oid, modifier): (u32, i32) = (row.try_get(3)?, row.try_get(4)?);
    let column = Column {
        name: row.try_get(1)?,
        attnum: row.try_get(2)?,
        ty: types.resolve(type_oid, modifier),
        type_oid,
        type_modifier: modifier,
        not_null: row.try_get(5)?,
        collation: read_collation(row)?,
        generated: row.try_get(6)?,
        toastable: row.try_get(7)?,
        added: None,
    };
    Ok((row.try_get(0)?, column))
}

fn read_collation(row: &Row) -> Result<Collation, tokio_postgres::Error> {
    if row.try_get::<_, u32>(8)? == 0 {
        return Ok(Collation::None);
    }
    let provider: Option<String> = row.try_get(9)?;
    let order: Option<String> = row.try_get(10)?;
    let classes: Option<String> = row.try_get(11)?;
    let deterministic: Option<bool> = row.try_get(12)?;
    let plain = |locale: &Option<String>| matches!(locale.as_deref(), Some("C" | "POSIX"));
    Ok(match (provider.as_deref(), deterministic) {
        (_, Some(false)) => Collation::NonDeterministic,
        // C for the order alone is not enough: lower() and upper() follow the other half.
        (Some("c"), _) if plain(&order) && plain(&classes) => Collation::C,
        (Some("b"), _) if order.as_deref() == Some("C") => Collation::C,
        _ => Collation::Deterministic,
    })
}

fn add_key(table: &mut Table, row: &Row) -> Result<(), tokio_postgres::Error> {
    let attnums: Vec<i16> = row.try_get(2)?;
    let place = |attnum: &i16| table.columns.iter().position(|column| column.attnum == *attnum);
    let Some(columns) = attnums.iter().map(place).collect::<Option<Vec<usize>>>() else {
        return Ok(());
    };
    let (primary, identity, immediate): (bool, bool, bool) =
        (row.try_get(3)?, row.try_get(4)?, row.try_get(5)?);
    if let ReplicaIdentity::Index(of) = &mut table.replica_identity
        && identity
    {
        of.clone_from(&columns);
    }
    if immediate {
        table.unique_keys.push(UniqueKey { name: row.try_get(1)?, columns, primary });
    }
    Ok(())
}
