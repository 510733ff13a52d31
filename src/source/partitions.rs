//! What the partitions of a table hold of columns that were added to it.
//!
//! `ALTER TABLE … ADD COLUMN` evaluates a default once for each partition and keeps its value beside
//! the partition, for the rows that were there; the root has none.
//!
//! Facts that this rests on (tried on PostgreSQL 14 to 18):
//! - whatever rewrites a partition writes the value into its rows, forgets it and makes a new file;
//!   a table that was never rewritten has its own OID for a file;
//! - a column that came with its table has a row in `pg_attribute` of the same transaction as the
//!   table's system columns, and no such value;
//! - a function that calls itself stable and is not gives each partition another value.

use super::error::SourceError;
use tokio_postgres::{Client, Row};

/// A column of a partition that has rows of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartColumn {
    /// OID of the partition.
    pub part: u32,
    pub name: String,
    /// The partition is an ordinary table and has the column.
    pub there: bool,
    /// Its rows are where the first of them were written.
    pub in_first_file: bool,
    /// The column came in the transaction that made the partition.
    pub came_with_part: bool,
    /// As `ColumnPrint::missing`.
    pub missing: Option<Vec<String>>,
}

const COLUMNS: &str = "
WITH RECURSIVE below(oid) AS (
  SELECT inhrelid FROM pg_inherits WHERE inhparent = $1
  UNION ALL SELECT i.inhrelid FROM pg_inherits i JOIN below b ON i.inhparent = b.oid)
SELECT c.oid, w.name, c.relkind = 'r' AND a.attnum IS NOT NULL, c.relfilenode = c.oid,
       coalesce(a.xmin = s.xmin, false),
       CASE WHEN a.atthasmissing THEN a.attmissingval::text::text[] END
FROM below b JOIN pg_class c ON c.oid = b.oid
CROSS JOIN unnest($2::text[]) w(name)
LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = w.name AND NOT a.attisdropped
LEFT JOIN pg_attribute s ON s.attrelid = c.oid AND s.attname = 'ctid'
WHERE c.relkind <> 'p'";

/// The columns `names` of all partitions below `root` (its OID); none where it has none.
///
/// # Errors
/// The server cannot be asked.
pub async fn columns(
    client: &Client,
    root: u32,
    names: &[&str],
) -> Result<Vec<PartColumn>, SourceError> {
    let failed = |error| SourceError::query("read the columns of partitions", error);
    let rows = client.query(COLUMNS, &[&root, &names]).await.map_err(failed)?;
    rows.iter().map(read).collect::<Result<_, _>>().map_err(failed)
}

fn read(row: &Row) -> Result<PartColumn, tokio_postgres::Error> {
    Ok(PartColumn {
        part: row.try_get(0)?,
        name: row.try_get(1)?,
        there: row.try_get(2)?,
        in_first_file: row.try_get(3)?,
        came_with_part: row.try_get(4)?,
        missing: row.try_get(5)?,
    })
}

/// The value of column `name` in the rows of all partitions from before it, where it is one; `Err`
/// where it is not, or cannot be known. `was_there`: the partition (its OID) had its file and
/// neither left nor came since before the column.
pub fn missing(
    columns: &[PartColumn],
    name: &str,
    was_there: impl Fn(u32) -> bool,
) -> Result<Option<Vec<String>>, Disagree> {
    let mut agreed: Option<&Option<Vec<String>>> = None;
    for column in columns.iter().filter(|column| column.name == name) {
        if !column.there {
            return Err(Disagree);
        }
        if column.missing.is_none() && !was_there(column.part) {
            // A rewrite may have taken the value.
            if !column.in_first_file {
                return Err(Disagree);
            }
            // No row in it is from before.
            if column.came_with_part {
                continue;
            }
        }
        if agreed.is_some_and(|agreed| *agreed != column.missing) {
            return Err(Disagree);
        }
        agreed = Some(&column.missing);
    }
    Ok(agreed.cloned().flatten())
}

/// Rows from before do not all have one known value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disagree;

#[cfg(test)]
mod tests {
    use super::*;

    fn column(part: u32, missing: Option<&str>) -> PartColumn {
        PartColumn {
            part,
            name: "c".to_owned(),
            there: true,
            in_first_file: true,
            came_with_part: false,
            missing: missing.map(|text| vec![text.to_owned()]),
        }
    }

    /// Partitions below 10 were there before.
    fn of(columns: &[PartColumn]) -> Result<Option<String>, Disagree> {
        let mut columns = columns.to_vec();
        columns.push(PartColumn { name: "d".to_owned(), ..column(1, Some("other")) });
        let found = missing(&columns, "c", |part| part < 10)?;
        Ok(found.map(|values| values.concat()))
    }

    #[test]
    fn one_value_or_none() {
        let seven = || Ok(Some("7".to_owned()));
        assert_eq!(of(&[]), Ok(None));
        assert_eq!(of(&[column(1, None), column(2, None)]), Ok(None));
        assert_eq!(of(&[column(1, Some("7")), column(2, Some("7"))]), seven());
        assert_eq!(of(&[column(1, Some("7")), column(2, Some("8"))]), Err(Disagree));
        assert_eq!(of(&[column(1, Some("7")), column(2, None)]), Err(Disagree));
        assert_eq!(of(&[column(1, None), column(2, Some("7"))]), Err(Disagree));
        let gone = PartColumn { there: false, ..column(2, None) };
        assert_eq!(of(&[column(1, None), gone]), Err(Disagree));
    }

    #[test]
    fn partitions_made_since() {
        let seven = || Ok(Some("7".to_owned()));
        let before = column(1, Some("7"));
        // Made before the column, and with it.
        assert_eq!(of(&[before.clone(), column(10, Some("7"))]), seven());
        assert_eq!(of(&[before.clone(), column(10, Some("8"))]), Err(Disagree));
        assert_eq!(of(&[before.clone(), column(10, None)]), Err(Disagree));
        let born = PartColumn { came_with_part: true, ..column(10, None) };
        assert_eq!(of(&[before.clone(), born.clone()]), seven());
        assert_eq!(of(std::slice::from_ref(&born)), Ok(None));
        // A volatile default in the transaction that made the partition looks the same but for its
        // file.
        let rewritten = PartColumn { in_first_file: false, ..born };
        assert_eq!(of(&[before, rewritten.clone()]), Err(Disagree));
        assert_eq!(of(&[rewritten]), Err(Disagree));
        let vacuumed = PartColumn { in_first_file: false, ..column(1, None) };
        assert_eq!(of(&[vacuumed]), Ok(None));
    }
}
