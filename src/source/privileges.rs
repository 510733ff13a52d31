//! What the role may read, and the exact grants that are missing.
//!
//! A snapshot copies, and verify selects, only the columns that views use: column grants suffice.

use super::error::{Fix, SourceError, quote_name};
use super::publication::PublishedTable;
use tokio_postgres::{Client, Row};

// From 15 on the schema `public` belongs to a role that nobody can be.
const PRIVILEGES: &str = "
SELECT current_user::text, has_schema_privilege(n.oid, 'USAGE'),
       has_any_column_privilege(c.oid, 'SELECT'),
       ARRAY(SELECT u.name FROM unnest($3::text[]) WITH ORDINALITY AS u(name, place)
             WHERE NOT has_column_privilege(c.oid, u.name, 'SELECT') ORDER BY u.place),
       CASE pg_get_userbyid(n.nspowner) WHEN 'pg_database_owner' THEN pg_get_userbyid(d.datdba)
       ELSE pg_get_userbyid(n.nspowner) END::text,
       pg_get_userbyid(c.relowner)::text
FROM (SELECT datdba FROM pg_database WHERE datname = current_database()) d,
     pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = $1 AND c.relname = $2";

/// Everything of `tables` that this role may not read, each with the grant: for the whole table,
/// unless the role has some columns of it, which shows that its owner grants column by column.
///
/// # Errors
/// The server cannot be asked.
pub async fn missing(
    client: &Client,
    tables: &[PublishedTable],
) -> Result<Vec<SourceError>, SourceError> {
    let failed = |error| SourceError::query("read the privileges", error);
    let (mut schemas, mut missing): (Vec<&str>, Vec<SourceError>) = (Vec::new(), Vec::new());
    for table in tables {
        let (schema, name, columns) = (&table.schema, &table.name, &table.columns);
        let row = client.query_opt(PRIVILEGES, &[schema, name, columns]).await.map_err(failed)?;
        let Some(row) = row else { continue };
        let open: bool = row.try_get(1).map_err(failed)?;
        if !open && !schemas.contains(&schema.as_str()) {
            schemas.push(schema);
            missing.push(closed_schema(schema, &row).map_err(failed)?);
        }
        missing.extend(unreadable(table, &row).map_err(failed)?);
    }
    Ok(missing)
}

fn closed_schema(schema: &str, row: &Row) -> Result<SourceError, tokio_postgres::Error> {
    let (role, owner): (String, String) = (row.try_get(0)?, row.try_get(4)?);
    let grant = format!("GRANT USAGE ON SCHEMA {} TO {}", quote_name(schema), quote_name(&role));
    Ok(SourceError::to_fix(
        format!("role \"{role}\" may not use schema \"{schema}\""),
        Fix::new(format!("its owner \"{owner}\""), vec![grant]),
    ))
}

fn unreadable(
    table: &PublishedTable,
    row: &Row,
) -> Result<Option<SourceError>, tokio_postgres::Error> {
    let (role, owner): (String, String) = (row.try_get(0)?, row.try_get(5)?);
    let (some, lacking): (bool, Vec<String>) = (row.try_get(2)?, row.try_get(3)?);
    // `count(*)` alone uses no column, and needs SELECT on any.
    if lacking.is_empty() && (some || !table.columns.is_empty()) {
        return Ok(None);
    }
    let quoted = format!("{}.{}", quote_name(&table.schema), quote_name(&table.name));
    let label = format!("table \"{}.{}\"", table.schema, table.name);
    let list: Vec<String> = lacking.iter().map(|column| quote_name(column)).collect();
    let (what, columns) = if some {
        let noun = if list.len() == 1 { "column" } else { "columns" };
        (format!("{noun} {} of {label}", list.join(", ")), format!(" ({})", list.join(", ")))
    } else {
        (label, String::new())
    };
    let grant = format!("GRANT SELECT{columns} ON {quoted} TO {}", quote_name(&role));
    Ok(Some(SourceError::to_fix(
        format!("role \"{role}\" may not read {what}"),
        Fix::new(format!("its owner \"{owner}\""), vec![grant]),
    )))
}
