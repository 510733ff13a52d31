//! What PostgreSQL's catalogs say of the tables that a pipeline names, as plain data.
//!
//! `walview::source` fills it from a live server; tests write it by hand.

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
