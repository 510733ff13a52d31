//! From `pg_type` to [`Type`].
//!
//! A domain is its base type with the domain's modifier: its values have the same text, and
//! PostgreSQL's operators see them as the base type too. Its constraints only narrow what is
//! stored.

use super::super::error::SourceError;
use std::collections::HashMap;
use tokio_postgres::{Client, Row};
use walview_core::value::Type;

/// `VARHDRSZ`: numeric, varchar and char modifiers are this much larger than what was written.
const MODIFIER_OFFSET: i32 = 4;

/// The types that a catalog's columns have.
pub(super) struct Types(HashMap<u32, Entry>);

struct Entry {
    name: String,
    /// A domain's base and its modifier.
    base: Option<(u32, i32)>,
    /// In the enum's own order.
    labels: Option<Vec<String>>,
}

impl Types {
    /// Loads the types of `columns` (their type in column 3), domains down to their bases.
    pub(super) async fn load(client: &Client, columns: &[Row]) -> Result<Self, SourceError> {
        const TYPES: &str = "
            WITH RECURSIVE used(oid) AS (
              SELECT unnest($1::oid[])
              UNION SELECT t.typbasetype FROM used JOIN pg_type t USING (oid) WHERE t.typtype = 'd')
            SELECT t.oid, format_type(t.oid, NULL), t.typtype = 'd', t.typbasetype, t.typtypmod,
                   CASE WHEN t.typtype = 'e' THEN ARRAY(
                     SELECT e.enumlabel::text FROM pg_enum e WHERE e.enumtypid = t.oid
                     ORDER BY e.enumsortorder) END
            FROM used JOIN pg_type t USING (oid)";
        let failed = |error| SourceError::query("read the types", error);
        let oids = columns.iter().map(|row| row.try_get(3)).collect::<Result<Vec<u32>, _>>();
        let mut types = HashMap::new();
        for row in client.query(TYPES, &[&oids.map_err(failed)?]).await.map_err(failed)? {
            let (oid, entry) = read(&row).map_err(failed)?;
            types.insert(oid, entry);
        }
        Ok(Self(types))
    }

    pub(super) fn resolve(&self, oid: u32, modifier: i32) -> Type {
        let Some(entry) = self.0.get(&oid) else {
            return Type::Other { oid, name: format!("type {oid}") };
        };
        match (&entry.base, &entry.labels) {
            (Some((base, modifier)), _) => self.resolve(*base, *modifier),
            (None, Some(labels)) => {
                Type::Enum { oid, name: entry.name.clone(), labels: labels.clone() }
            }
            (None, None) => built_in(oid, modifier)
                .unwrap_or_else(|| Type::Other { oid, name: entry.name.clone() }),
        }
    }
}

fn read(row: &Row) -> Result<(u32, Entry), tokio_postgres::Error> {
    let base = if row.try_get(2)? { Some((row.try_get(3)?, row.try_get(4)?)) } else { None };
    Ok((row.try_get(0)?, Entry { name: row.try_get(1)?, base, labels: row.try_get(5)? }))
}

/// OIDs from `pg_type.dat`; they never change.
fn built_in(oid: u32, modifier: i32) -> Option<Type> {
    let limit = || modifier.checked_sub(MODIFIER_OFFSET).and_then(|n| u32::try_from(n).ok());
    Some(match oid {
        16 => Type::Bool,
        17 => Type::Bytea,
        20 => Type::Int8,
        21 => Type::Int2,
        23 => Type::Int4,
        25 => Type::Text,
        114 => Type::Json,
        700 => Type::Float4,
        701 => Type::Float8,
        // `bpchar` without a length is not a text type that Walview computes with: it compares
        // without trailing blanks but has no width to pad to.
        1042 => Type::Char(limit()?),
        1043 => Type::Varchar(limit()),
        1082 => Type::Date,
        1083 => Type::Time,
        1114 => Type::Timestamp,
        1184 => Type::TimestampTz,
        1186 => Type::Interval,
        1700 => Type::Numeric(numeric(modifier)),
        2950 => Type::Uuid,
        3802 => Type::Jsonb,
        _ => return None,
    })
}

/// `numeric(precision, scale)`: precision in the upper half, scale in the lower eleven bits, signed
/// since PostgreSQL 15 (`make_numeric_typmod` in numeric.c).
fn numeric(modifier: i32) -> Option<(u16, i16)> {
    let packed = u32::try_from(modifier.checked_sub(MODIFIER_OFFSET)?).ok()?;
    let precision = u16::try_from(packed >> 16).ok()?;
    let scale = i16::try_from(packed & 0x7FF).ok()?;
    Some((precision, if scale >= 1024 { scale - 2048 } else { scale }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numeric_modifiers_unpack() {
        let pack = |precision: i32, scale: i32| ((precision << 16) | (scale & 0x7FF)) + 4;
        for (precision, scale) in [(12, 2), (1000, 1000), (3, -1000), (5, 7), (38, 0)] {
            let wanted = (u16::try_from(precision).ok()).zip(i16::try_from(scale).ok());
            assert_eq!(numeric(pack(precision, scale)), wanted);
        }
        assert_eq!(numeric(-1), None);
    }
}
