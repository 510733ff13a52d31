//! How large tables are, as far as the server knows without counting.

use super::error::SourceError;
use std::collections::BTreeMap;
use tokio_postgres::Client;

/// One table. Rows and widths come from the last ANALYZE.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TableSize {
    /// `None` before the first ANALYZE or VACUUM.
    pub rows: Option<u64>,
    /// On disk, with TOAST and without indexes, partitions included.
    pub bytes: u64,
    pub columns: BTreeMap<String, ColumnSize>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ColumnSize {
    /// Average bytes of a value.
    pub width: u32,
    /// Distinct values.
    pub distinct: Option<u64>,
}

const SIZES: &str = "
SELECT (SELECT sum(t.reltuples)::int8 FROM pg_class t WHERE t.oid = ANY(leaf.oids)
          AND t.reltuples >= 0),
       (SELECT sum(pg_table_size(t))::int8 FROM unnest(leaf.oids) AS t)
FROM (SELECT CASE WHEN c.relkind = 'p'
             THEN ARRAY(SELECT relid::oid FROM pg_partition_tree(c.oid) WHERE isleaf)
             ELSE ARRAY[c.oid] END AS oids FROM pg_class c WHERE c.oid = $1) leaf";

// Statistics of columns that the role may not read are hidden from it: types have to do there.
const COLUMNS: &str = "
SELECT a.attname::text,
       coalesce(s.avg_width, CASE WHEN a.attlen > 0 THEN a.attlen ELSE 32 END)::int4,
       s.n_distinct
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_stats s ON s.schemaname = n.nspname AND s.tablename = c.relname
     AND s.attname = a.attname AND s.inherited = (c.relkind = 'p')
WHERE c.oid = $1";

/// # Errors
/// The question failed.
pub async fn load(client: &Client, oid: u32) -> Result<TableSize, SourceError> {
    let failed = |error| SourceError::query("read a table's size", error);
    let Some(row) = client.query_opt(SIZES, &[&oid]).await.map_err(failed)? else {
        return Ok(TableSize::default());
    };
    let count = |at: usize| -> Result<Option<u64>, tokio_postgres::Error> {
        Ok(row.try_get::<_, Option<i64>>(at)?.and_then(|count| u64::try_from(count).ok()))
    };
    let rows = count(0).map_err(failed)?;
    let mut size =
        TableSize { rows, bytes: count(1).map_err(failed)?.unwrap_or(0), columns: BTreeMap::new() };
    for row in client.query(COLUMNS, &[&oid]).await.map_err(failed)? {
        let width: i32 = row.try_get(1).map_err(failed)?;
        let distinct: Option<f32> = row.try_get(2).map_err(failed)?;
        let column = ColumnSize {
            width: u32::try_from(width).unwrap_or(0),
            distinct: distinct.and_then(|distinct| distinct_values(distinct, rows)),
        };
        size.columns.insert(row.try_get(0).map_err(failed)?, column);
    }
    Ok(size)
}

/// `pg_stats.n_distinct`: a number of values, or, negative, their share of the rows.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "an estimate, not below zero"
)]
fn distinct_values(distinct: f32, rows: Option<u64>) -> Option<u64> {
    if distinct > 0.0 {
        return Some(distinct.ceil() as u64);
    }
    let share = f64::from(-distinct);
    (share > 0.0).then_some(())?;
    Some((rows? as f64 * share).ceil() as u64)
}
