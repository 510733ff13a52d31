//! What the server's catalogs say at one moment of everything that views depend on and that can
//! change without a word in the log.
//!
//! ```text
//!  one statement, one snapshot of the catalogs ─► JSON ─► Fingerprint, and an LSN that it holds for
//! ```
//!
//! Two of them are compared by `service::drift`. Rows of the catalogs are told apart by their
//! `xmin`: a label that was renamed and renamed back, or a table that left the publication and came
//! back, is another row.
//!
//! Facts that this rests on (tried on PostgreSQL 15):
//! - TRUNCATE, VACUUM FULL and CLUSTER give a table a new file and leave its rows in `pg_attribute`
//!   and its TOAST table's OID alone; `ALTER COLUMN … TYPE … USING` changes all three;
//! - `ADD COLUMN … DEFAULT volatile()` rewrites the table and leaves the other columns' rows alone;
//! - a partition made by `CREATE TABLE … PARTITION OF` has rows in `pg_attribute` that are as old as
//!   it is and as its row in `pg_inherits`; ATTACH writes both anew.

use super::config::SourceConfig;
use super::error::SourceError;
use super::server::version;
use super::snapshot;
use serde::{Deserialize, Serialize};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Statement};
use walview_core::position::Lsn;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fingerprint {
    /// In the order asked for.
    pub tables: Vec<TablePrint>,
    /// `None` where it does not exist.
    pub publication: Option<PublicationPrint>,
}

impl Fingerprint {
    /// The table with this OID.
    #[must_use]
    pub fn table(&self, oid: u32) -> Option<&TablePrint> {
        self.tables.iter().find(|table| table.oid == Some(oid))
    }
}

/// What a table's name leads to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TablePrint {
    pub schema: String,
    pub name: String,
    /// `None` where the name leads nowhere; then the rest is empty.
    pub oid: Option<u32>,
    /// What the table that was asked for is called now.
    pub was: Option<String>,
    /// `pg_class.relpersistence`, `relreplident`.
    pub persistence: Option<String>,
    pub identity: Option<String>,
    /// Row level security hides rows from this role.
    pub hidden: bool,
    /// Tables that inherit from it, partitions left aside.
    pub heirs: i64,
    pub file: Option<u32>,
    pub toast: Option<u32>,
    pub columns: Vec<ColumnPrint>,
    /// Valid unique indexes over plain columns, deferrable ones too.
    pub keys: Vec<KeyPrint>,
    /// Everything below a partitioned table.
    pub parts: Vec<PartPrint>,
    /// `None` where the publication does not have it.
    pub member: Option<MemberPrint>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnPrint {
    pub attnum: i16,
    pub name: String,
    /// `xmin` of its row in `pg_attribute`.
    pub version: u32,
    pub type_oid: u32,
    pub type_modifier: i32,
    /// For messages: `numeric(12,2)`.
    pub type_name: String,
    pub collation: u32,
    /// Of the enums that its type is made of, in their order.
    pub labels: Vec<LabelPrint>,
    /// What its type is made of where that is not built in; compared, never read.
    pub made_of: Option<String>,
    #[serde(default)]
    pub generated: bool,
    /// Its one value in rows from before it was added, where that is not NULL; several where it
    /// cannot be read here.
    #[serde(default)]
    pub missing: Option<Vec<String>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabelPrint {
    pub oid: u32,
    pub label: String,
    pub version: u32,
    /// The enum's name.
    pub of: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyPrint {
    pub columns: Vec<i16>,
    pub primary: bool,
    pub identity: bool,
    /// Not deferrable.
    pub immediate: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartPrint {
    pub oid: u32,
    pub name: String,
    /// `xmin` of its row in `pg_inherits`.
    pub version: u32,
    /// It was born as a partition, so it had no rows before.
    pub made: bool,
    /// 0 where it is partitioned itself.
    pub file: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicationPrint {
    /// `xmin` of its row.
    pub version: u32,
    /// It sends inserts, updates, deletes and truncates.
    pub operations: bool,
    pub via_root: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberPrint {
    /// OID and `xmin` of the row that makes it a member; 0 where all tables are.
    pub row: u32,
    pub version: u32,
    pub filtered: bool,
    /// The columns sent; `None` is all.
    pub columns: Option<Vec<i16>>,
}

/// A membership that Walview itself is about to replace: known before it is done, so that a crash
/// in between is not taken for somebody's hand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnAlter {
    /// OID of the table.
    pub table: u32,
    /// Row and version of the membership before.
    pub from: (u32, u32),
    /// The transaction, which is the version of the membership after.
    pub xid: u32,
}

/// A fingerprint, and where it was taken: every commit that it shows lies below `lsn`.
#[derive(Clone, Debug)]
pub struct Taken {
    pub print: Fingerprint,
    pub lsn: Lsn,
}

/// A table to look at: schema, name, and the OID that it had.
pub type Asked = (String, String, Option<u32>);

const WHAT: &str = "read in the catalogs what views depend on";

const FINGERPRINT: &str = "
SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
            ELSE pg_current_wal_insert_lsn() END::text, jsonb_build_object(
  'publication', (
    SELECT jsonb_build_object('version', p.xmin::text::int8, 'via_root', p.pubviaroot,
      'operations', p.pubinsert AND p.pubupdate AND p.pubdelete AND p.pubtruncate)
    FROM pg_publication p WHERE p.pubname = $4),
  'tables', coalesce((
    SELECT jsonb_agg(jsonb_build_object(
      'schema', w.schema, 'name', w.name, 'oid', c.oid::int8,
      'was', (SELECT format('%I.%I', o.relnamespace::regnamespace::text, o.relname)
              FROM pg_class o WHERE o.oid = w.was),
      'persistence', c.relpersistence, 'identity', c.relreplident,
      'hidden', coalesce(row_security_active(c.oid), false),
      'heirs', (SELECT count(*) FROM pg_inherits i WHERE i.inhparent = c.oid AND c.relkind = 'r'),
      'file', c.relfilenode::int8, 'toast', c.reltoastrelid::int8,
      'columns', coalesce((
        SELECT jsonb_agg(jsonb_build_object(
          'attnum', a.attnum, 'name', a.attname, 'version', a.xmin::text::int8,
          'type_oid', a.atttypid::int8, 'type_modifier', a.atttypmod,
          'type_name', format_type(a.atttypid, a.atttypmod), 'collation', a.attcollation::int8,
          'labels', coalesce(m.labels, '[]'), 'made_of', m.made_of,
          'generated', a.attgenerated <> '',
          -- An array of the column's type, whose elements a comma need not part.
          'missing', CASE WHEN a.atthasmissing THEN to_jsonb(a.attmissingval::text::text[]) END)
          ORDER BY a.attnum)
        FROM pg_attribute a
        LEFT JOIN LATERAL (
          WITH RECURSIVE used(oid) AS (
            SELECT a.atttypid
            UNION SELECT x.oid FROM used u JOIN pg_type t ON t.oid = u.oid, LATERAL (
              SELECT t.typbasetype WHERE t.typtype = 'd'
              UNION ALL SELECT t.typelem WHERE t.typcategory = 'A'
              UNION ALL SELECT r.rngsubtype FROM pg_range r WHERE r.rngtypid = t.oid
              UNION ALL SELECT f.atttypid FROM pg_attribute f
                WHERE f.attrelid = t.typrelid AND f.attnum > 0 AND NOT f.attisdropped) x(oid))
          SELECT string_agg(format('%s %s %s %s %s', t.oid, t.typname, t.typbasetype, t.typtypmod,
                   (SELECT string_agg(format('%s %s %s', f.attnum, f.atttypid, f.atttypmod), ','
                                      ORDER BY f.attnum)
                    FROM pg_attribute f WHERE f.attrelid = t.typrelid AND f.attnum > 0
                      AND NOT f.attisdropped)), ';' ORDER BY t.oid) AS made_of,
                 (SELECT jsonb_agg(jsonb_build_object('oid', e.oid::int8, 'label', e.enumlabel,
                    'version', e.xmin::text::int8, 'of', e.enumtypid::regtype::text)
                    ORDER BY e.enumtypid, e.enumsortorder)
                  FROM used u JOIN pg_enum e ON e.enumtypid = u.oid) AS labels
          FROM used u JOIN pg_type t ON t.oid = u.oid
        -- Built-in types are below 16384 and never change.
        ) m ON a.atttypid >= 16384
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped), '[]'),
      'keys', coalesce((
        SELECT jsonb_agg(jsonb_build_object(
          'columns', to_jsonb((i.indkey::int2[])[0:i.indnkeyatts - 1]), 'primary', i.indisprimary,
          'identity', i.indisreplident, 'immediate', i.indimmediate) ORDER BY i.indexrelid)
        FROM pg_index i WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indislive
          AND i.indpred IS NULL AND i.indexprs IS NULL), '[]'),
      'parts', coalesce((
        WITH RECURSIVE below(oid, version) AS (
          SELECT i.inhrelid, i.xmin FROM pg_inherits i
          WHERE i.inhparent = c.oid AND c.relkind = 'p'
          UNION ALL SELECT i.inhrelid, i.xmin FROM pg_inherits i JOIN below b ON i.inhparent = b.oid)
        SELECT jsonb_agg(jsonb_build_object('oid', t.oid::int8,
          'name', format('%I.%I', t.relnamespace::regnamespace::text, t.relname),
          'version', b.version::text::int8, 'file', t.relfilenode::int8,
          'made', EXISTS (
            SELECT FROM pg_attribute s JOIN pg_attribute a ON a.attrelid = s.attrelid
              AND a.attnum > 0 AND a.xmin = s.xmin AND a.cmin = s.cmin
            WHERE s.attrelid = t.oid AND s.attname = 'ctid' AND s.xmin = b.version)) ORDER BY t.oid)
        FROM below b JOIN pg_class t ON t.oid = b.oid), '[]'),
      'member', (
        SELECT jsonb_build_object('row', m.row::int8, 'version', m.version::text::int8,
          'filtered', m.filtered, 'columns', m.columns)
        FROM (MEMBERS) m WHERE m.table_oid = c.oid ORDER BY m.row DESC LIMIT 1)
    ) ORDER BY w.place)
    FROM unnest($1::text[], $2::text[], $3::oid[]) WITH ORDINALITY AS w(schema, name, was, place)
    LEFT JOIN pg_namespace n ON n.nspname = w.schema
    LEFT JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = w.name), '[]'))::text";

const MEMBERS: &str = "
SELECT r.oid AS row, r.xmin AS version, r.prrelid AS table_oid,
       to_jsonb(r)->>'prqual' IS NOT NULL AS filtered,
       nullif(to_jsonb(r)->'prattrs', 'null') AS columns
FROM pg_publication_rel r JOIN pg_publication p ON p.oid = r.prpubid WHERE p.pubname = $4
UNION ALL SELECT 0, p.xmin, c.oid, false, NULL FROM pg_publication p
WHERE p.pubname = $4 AND p.puballtables";

/// Schemas are members from 15 on.
const SCHEMAS: &str = "
UNION ALL SELECT n.oid, n.xmin, c.oid, false, NULL
FROM pg_publication_namespace n JOIN pg_publication p ON p.oid = n.pnpubid
WHERE p.pubname = $4 AND n.pnnspid = c.relnamespace";
const VERSION_SCHEMAS: i32 = 150_000;

/// The question, planned once for a session.
pub struct Question(Statement);

impl Question {
    /// # Errors
    /// The server cannot be asked.
    pub async fn prepare(client: &Client) -> Result<Self, SourceError> {
        let failed = |error| SourceError::query(WHAT, error);
        let schemas = if version(client).await? >= VERSION_SCHEMAS { SCHEMAS } else { "" };
        let statement = FINGERPRINT.replace("MEMBERS", &format!("{MEMBERS}{schemas}"));
        // Its estimated cost makes the server compile it, which takes seconds; it runs for
        // milliseconds.
        client.batch_execute("SET jit = off").await.map_err(failed)?;
        Ok(Self(client.prepare(&statement).await.map_err(failed)?))
    }

    /// Takes the fingerprint of these tables and of publication `publication`.
    ///
    /// # Errors
    /// The server cannot be asked.
    pub async fn ask(
        &self,
        client: &Client,
        tables: &[Asked],
        publication: &str,
    ) -> Result<Taken, SourceError> {
        let failed = |error| SourceError::query(WHAT, error);
        let (mut names, mut of, mut was) = (Vec::new(), Vec::new(), Vec::new());
        for (schema, name, oid) in tables {
            of.push(schema.as_str());
            names.push(name.as_str());
            was.push(*oid);
        }
        let parameters: [&(dyn ToSql + Sync); 4] = [&of, &names, &was, &publication];
        let row = client.query_one(&self.0, &parameters).await.map_err(failed)?;
        let (lsn, json): (String, String) =
            (row.try_get(0).map_err(failed)?, row.try_get(1).map_err(failed)?);
        let odd = |error: serde_json::Error| {
            SourceError::stop(format!("cannot {WHAT}"), "report it").because(error)
        };
        let print = serde_json::from_str(&json).map_err(odd)?;
        let lsn = lsn
            .parse()
            .map_err(|_not_an_lsn| SourceError::stop(format!("cannot {WHAT}: odd LSN"), ""))?;
        Ok(Taken { print, lsn })
    }
}

/// The fingerprint as of an exported snapshot.
///
/// # Errors
/// The server cannot be asked, or the snapshot is gone.
pub async fn at_snapshot(
    config: &SourceConfig,
    snapshot: &str,
    tables: &[Asked],
    publication: &str,
) -> Result<Fingerprint, SourceError> {
    let session = snapshot::begin(config, snapshot).await?;
    let taken = Question::prepare(&session).await?.ask(&session, tables, publication).await?;
    session.close().await;
    Ok(taken.print)
}

impl Fingerprint {
    /// Whether the tables are the same, whatever the publication sends of them, and whatever file
    /// they are in.
    #[must_use]
    pub fn same_tables(&self, other: &Self) -> bool {
        let plain = |print: &Self| -> Vec<TablePrint> {
            let tables = print.tables.iter().cloned();
            tables
                .map(|table| TablePrint {
                    was: None,
                    file: None,
                    parts: table
                        .parts
                        .into_iter()
                        .map(|part| PartPrint { file: 0, ..part })
                        .collect(),
                    member: None,
                    ..table
                })
                .collect()
        };
        plain(self) == plain(other)
    }
}

impl TablePrint {
    #[must_use]
    pub fn qualified(&self) -> String {
        format!("{}.{}", self.schema, self.name)
    }

    /// The columns that it has and `before` had not.
    pub fn added_since<'a, 'b>(
        &'a self,
        before: &'b Self,
    ) -> impl Iterator<Item = &'a ColumnPrint> + use<'a, 'b> {
        self.columns.iter().filter(move |column| before.column(column.attnum).is_none())
    }

    #[must_use]
    pub fn column(&self, attnum: i16) -> Option<&ColumnPrint> {
        self.columns.iter().find(|column| column.attnum == attnum)
    }

    /// Whether no two rows agree on these columns at any time.
    #[must_use]
    pub fn is_unique_over(&self, attnums: &[i16]) -> bool {
        self.keys
            .iter()
            .any(|key| key.immediate && key.columns.iter().all(|column| attnums.contains(column)))
    }

    /// The columns that an UPDATE or DELETE sends of the row before; `None` is all.
    #[must_use]
    pub fn carried(&self) -> Option<Vec<i16>> {
        let key = |wanted: &dyn Fn(&&KeyPrint) -> bool| {
            Some(self.keys.iter().find(wanted).map_or_else(Vec::new, |key| key.columns.clone()))
        };
        match self.identity.as_deref() {
            Some("f") => None,
            Some("i") => key(&|key| key.identity),
            Some("d") => key(&|key| key.primary && key.immediate),
            _ => Some(Vec::new()),
        }
    }
}
