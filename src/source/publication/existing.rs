//! A publication as it is, and what it lacks.

use super::{OPERATIONS, VERSION_LISTS, Wanted};
use crate::source::error::{Fix, SourceError, quote_name};
use std::collections::BTreeSet;
use tokio_postgres::Client;

/// A publication as it is.
pub(super) struct Existing {
    pub(super) name: String,
    pub(super) comment: Option<String>,
    pub(super) owned: bool,
    pub(super) role: String,
    all_tables: bool,
    all_operations: bool,
    via_root: bool,
    tables: Vec<ExistingTable>,
}

struct ExistingTable {
    oid: u32,
    columns: Option<BTreeSet<String>>,
    filtered: bool,
}

impl Existing {
    pub(super) async fn load(
        client: &Client,
        name: &str,
        version: i32,
    ) -> Result<Option<Self>, SourceError> {
        const PUBLICATION: &str = "
            SELECT obj_description(oid, 'pg_publication'), pg_has_role(pubowner, 'USAGE'),
                   current_user::text, puballtables,
                   pubinsert AND pubupdate AND pubdelete AND pubtruncate, pubviaroot
            FROM pg_publication WHERE pubname = $1";
        // Schemas (from 15) and ALL TABLES publish whole tables; only listed ones have more to say.
        const TABLES: &str = "
            SELECT r.prrelid, to_jsonb(r)->>'prqual' IS NOT NULL,
                   CASE WHEN r.prattrs IS NOT NULL THEN ARRAY(
                     SELECT a.attname::text FROM pg_attribute a
                     WHERE a.attrelid = r.prrelid AND a.attnum = ANY(r.prattrs)) END
            FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
            WHERE p.pubname = $1
            UNION ALL
            SELECT c.oid, false, NULL FROM pg_publication p
            JOIN pg_publication_namespace n ON n.pnpubid = p.oid
            JOIN pg_class c ON c.relnamespace = n.pnnspid AND c.relkind IN ('r', 'p')
            WHERE p.pubname = $1";
        const TABLES_14: &str = "
            SELECT r.prrelid, false, NULL::text[]
            FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid
            WHERE p.pubname = $1";
        let failed = |error| SourceError::query(&format!("read publication \"{name}\""), error);
        let Some(row) = client.query_opt(PUBLICATION, &[&name]).await.map_err(failed)? else {
            return Ok(None);
        };
        let listed = if version >= VERSION_LISTS { TABLES } else { TABLES_14 };
        let rows = client.query(listed, &[&name]).await.map_err(failed)?;
        let read = || -> Result<Self, tokio_postgres::Error> {
            let tables = rows.iter().map(|row| {
                let columns: Option<Vec<String>> = row.try_get(2)?;
                Ok(ExistingTable {
                    oid: row.try_get(0)?,
                    filtered: row.try_get(1)?,
                    columns: columns.map(BTreeSet::from_iter),
                })
            });
            Ok(Self {
                name: name.to_owned(),
                comment: row.try_get(0)?,
                owned: row.try_get(1)?,
                role: row.try_get(2)?,
                all_tables: row.try_get(3)?,
                all_operations: row.try_get(4)?,
                via_root: row.try_get(5)?,
                tables: tables.collect::<Result<_, tokio_postgres::Error>>()?,
            })
        };
        read().map(Some).map_err(failed)
    }

    /// Tables of which it sends only some rows.
    pub(super) fn filters(&self, wanted: &[Wanted]) -> Vec<SourceError> {
        let alter = format!("ALTER PUBLICATION {}", quote_name(&self.name));
        let filtered =
            |table: &&Wanted| self.tables.iter().any(|have| have.oid == table.oid && have.filtered);
        let error = |table: &Wanted| {
            let statements = vec![
                format!("{alter} DROP TABLE {}", table.quoted),
                format!("{alter} ADD TABLE {}", table.clause()),
            ];
            SourceError::to_fix(
                format!(
                    "publication \"{}\" filters the rows of table \"{}\": filtered rows would be \
                     missing in silence",
                    self.name, table.label
                ),
                Fix::new("its owner", statements),
            )
        };
        wanted.iter().filter(filtered).map(error).collect()
    }

    /// The statements that would make it send what is wanted, filters left alone. `narrow`: and no
    /// column beyond that, where a list can say so.
    pub(super) fn lacks(&self, wanted: &[Wanted], narrow: bool) -> Vec<String> {
        let alter = format!("ALTER PUBLICATION {}", quote_name(&self.name));
        let mut statements = Vec::new();
        if !self.all_operations {
            statements.push(format!("{alter} SET (publish = '{OPERATIONS}')"));
        }
        if !self.via_root && wanted.iter().any(|table| table.partitioned) {
            statements.push(format!("{alter} SET (publish_via_partition_root = true)"));
        }
        if self.all_tables {
            return statements;
        }
        let mut add = Vec::new();
        for table in wanted {
            match self.tables.iter().find(|have| have.oid == table.oid) {
                None => add.push(table.clause()),
                Some(have) if narrow && table.columns.is_some() && have.columns.is_none() => {
                    statements.push(format!("{alter} DROP TABLE {}", table.quoted));
                    add.push(table.clause());
                }
                Some(have) if have.filtered || table.is_covered_by(have) => {}
                Some(have) => {
                    // A list is not widened in place: the table leaves and comes back.
                    statements.push(format!("{alter} DROP TABLE {}", table.quoted));
                    add.push(table.clause_with(have.columns.as_ref().unwrap_or(&BTreeSet::new())));
                }
            }
        }
        if !add.is_empty() {
            statements.push(format!("{alter} ADD TABLE {}", add.join(", ")));
        }
        statements
    }
}

impl Wanted {
    fn is_covered_by(&self, have: &ExistingTable) -> bool {
        match (&self.columns, &have.columns) {
            (_, None) => true,
            (Some(wanted), Some(have)) => wanted.is_subset(have),
            (None, Some(have)) => self.all.iter().all(|column| have.contains(column)),
        }
    }
}
