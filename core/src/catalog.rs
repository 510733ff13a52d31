//! What PostgreSQL's catalogs say of the tables that a pipeline names, as plain data.
//!
//! `walview::source` fills it from a live server; tests write it by hand.

use crate::position::Lsn;
use crate::value::Type;
use serde::{Deserialize, Serialize};

/// The tables known to a pipeline.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Catalog {
    pub tables: Vec<Table>,
    /// The server holds text in another encoding than UTF-8: it comes converted, but what the
    /// server makes of its bytes (order, md5) is not what is made of ours.
    #[serde(default)]
    pub other_encoding: bool,
}

impl Catalog {
    #[must_use]
    pub fn table(&self, schema: &str, name: &str) -> Option<&Table> {
        self.tables.iter().find(|table| table.schema == schema && table.name == name)
    }

    #[must_use]
    pub fn by_oid(&self, oid: u32) -> Option<&Table> {
        self.tables.iter().find(|table| table.oid == oid)
    }

    /// How often added columns were taken in.
    #[must_use]
    pub fn generation(&self) -> u32 {
        let columns = self.tables.iter().flat_map(|table| &table.columns);
        columns.filter_map(|column| Some(column.added.as_ref()?.generation)).max().unwrap_or(0)
    }

    /// Where the values in rows from before were emitted of the columns that were taken in last.
    #[must_use]
    pub fn taken_in_at(&self) -> Lsn {
        let columns = self.tables.iter().flat_map(|table| &table.columns);
        columns
            .filter_map(|column| Some(column.added.as_ref()?.taken_in_at))
            .max()
            .unwrap_or_default()
    }

    /// The catalog as a view knows it: one that could not take a column in stays with what was there
    /// before it.
    #[must_use]
    pub fn known_to(&self, view: &str) -> Self {
        let columns = self.tables.iter().flat_map(|table| &table.columns);
        let added = columns.filter_map(|column| column.added.as_ref());
        let refused = added.filter(|added| added.refused_by.iter().any(|name| name == view));
        match refused.map(|added| added.generation).min() {
            Some(first) => self.as_of(first.saturating_sub(1)),
            None => self.clone(),
        }
    }

    /// The catalog as it was when added columns had been taken in this often.
    #[must_use]
    pub fn as_of(&self, generation: u32) -> Self {
        let mut catalog = self.clone();
        for table in &mut catalog.tables {
            // They stand behind all others, so no index into the columns moves.
            let later = |added: &Added| added.generation > generation;
            table.columns.retain(|column| !column.added.as_ref().is_some_and(later));
        }
        catalog
    }
}

/// An ordinary or partitioned table (`pg_class.relkind` r or p).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Table {
    pub oid: u32,
    pub schema: String,
    pub name: String,
    /// In `attnum` order, dropped columns left out.
    pub columns: Vec<Column>,
    /// Valid, non-deferrable, non-partial unique indexes over plain columns, the primary key first.
    pub unique_keys: Vec<UniqueKey>,
    pub replica_identity: ReplicaIdentity,
}

impl Table {
    #[must_use]
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }

    #[must_use]
    pub fn primary_key(&self) -> Option<&UniqueKey> {
        self.unique_keys.iter().find(|key| key.primary)
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Column {
    pub name: String,
    pub attnum: i16,
    pub ty: Type,
    /// `pg_attribute.atttypid` and `atttypmod`: what a Relation message must say again.
    pub type_oid: u32,
    pub type_modifier: i32,
    pub not_null: bool,
    pub collation: Collation,
    /// `GENERATED ALWAYS AS (…) STORED`: not sent by pgoutput before PostgreSQL 18.
    pub generated: bool,
    /// The value may be stored out of line (`attlen = -1` and `attstorage` not `p`), so an UPDATE
    /// that leaves it alone may send "unchanged" in its place.
    pub toastable: bool,
    /// `None`: it was there when the tables were copied.
    #[serde(default)]
    pub added: Option<Added>,
}

/// How a column came that was added while views followed its table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Added {
    /// Counted from 1: columns with the same one were taken in together.
    pub generation: u32,
    /// Its value in rows from before, as PostgreSQL writes it (`pg_attribute.attmissingval`).
    pub missing: Option<String>,
    /// The catalogs had it there. Rows that were committed below may come without it; from there on
    /// they have it.
    pub known_at: Lsn,
    /// Where its values in rows from before were emitted.
    pub taken_in_at: Lsn,
    /// The views that show every column and stopped because they cannot show this one.
    #[serde(default)]
    pub refused_by: Vec<String>,
}

/// How a column's text sorts and compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Collation {
    /// The type has none.
    None,
    /// Bytes (`C`, `POSIX`, `ucs_basic`).
    C,
    /// Any other deterministic one: equal means the same bytes, order is the server's own.
    Deterministic,
    /// Equal does not mean the same bytes.
    NonDeterministic,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct UniqueKey {
    pub name: String,
    /// Indexes into `Table::columns`, in the index's order.
    pub columns: Vec<usize>,
    pub primary: bool,
}

/// What an UPDATE or DELETE sends of the row before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReplicaIdentity {
    /// The primary key (nothing where there is none).
    Default,
    /// The whole row.
    Full,
    /// The columns of this unique index.
    Index(Vec<usize>),
    Nothing,
}
