//! From `pg_type` to [`Type`].
//!
//! A domain is its base type with the domain's modifier: its values have the same text, and
//! PostgreSQL's operators see them as the base type too. Its constraints only narrow what is
//! stored. What is no type of [`Type`]'s own is carried as text; [`Carried`] says what may be done
//! with that text, from what the catalogs say of the type and of all types that it is made of.

use super::super::error::SourceError;
use std::collections::HashMap;
use tokio_postgres::{Client, Row};
use walview_core::value::{Carried, Type};

/// `VARHDRSZ`: numeric, varchar and char modifiers are this much larger than what was written.
const MODIFIER_OFFSET: i32 = 4;

/// The types of the columns, and those that these are made of: a domain's base, an array's
/// elements, a range's subtype, a row's columns.
///
/// The column after the labels: whether `x::text` goes through the output function, whose text is what a
/// session prints. `citext` and its like cast without a function, and print as text does; xml
/// does not (it leaves the declaration out). `name` has a function that gives its text.
const TYPES: &str = "
WITH RECURSIVE used(oid) AS (
  SELECT unnest($1::oid[])
  UNION SELECT part.oid FROM used JOIN pg_type t USING (oid), LATERAL (
    SELECT t.typbasetype WHERE t.typtype = 'd'
    UNION ALL SELECT t.typelem WHERE t.typcategory = 'A' AND t.typelem <> 0
    UNION ALL SELECT r.rngsubtype FROM pg_range r WHERE t.oid IN (r.rngtypid, r.rngmultitypid)
    UNION ALL SELECT a.atttypid FROM pg_attribute a
              WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
  ) AS part(oid))
SELECT t.oid, format_type(t.oid, NULL), t.typtype = 'd', t.typbasetype, t.typtypmod,
       CASE WHEN t.typtype = 'e' THEN ARRAY(
         SELECT e.enumlabel::text FROM pg_enum e WHERE e.enumtypid = t.oid
         ORDER BY e.enumsortorder) END,
       t.oid = 'name'::regtype OR NOT EXISTS (
         SELECT FROM pg_cast c JOIN pg_proc p ON p.oid = t.typoutput
         WHERE c.castsource = t.oid AND c.casttarget = 'text'::regtype
           AND NOT (c.castmethod = 'b' AND p.prosrc = 'textout')),
       t.typtype = 'c', t.typelem,
       ARRAY(SELECT r.rngsubtype FROM pg_range r WHERE t.oid IN (r.rngtypid, r.rngmultitypid)
             UNION ALL SELECT a.atttypid FROM pg_attribute a
             WHERE t.typtype = 'c' AND a.attrelid = t.typrelid AND a.attnum > 0
               AND NOT a.attisdropped),
       t.typcategory = 'A' AND t.typdelim = ',' AND t.typinput = 'array_in'::regproc
FROM used JOIN pg_type t USING (oid)";

/// The types that a catalog's columns have.
pub(super) struct Types(HashMap<u32, Entry>);

struct Entry {
    name: String,
    /// A domain's base and its modifier.
    base: Option<(u32, i32)>,
    /// In the enum's own order.
    labels: Option<Vec<String>>,
    castable: bool,
    composite: bool,
    /// Of an array that is written in braces, with commas.
    element: Option<u32>,
    /// What a range or a row is made of.
    parts: Vec<u32>,
}

impl Types {
    /// Loads the types of `columns` (their type in column 3) and what they are made of.
    pub(super) async fn load(client: &Client, columns: &[Row]) -> Result<Self, SourceError> {
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
            return Type::Other {
                oid,
                name: format!("type {oid}"),
                carried: Carried {
                    names_objects: NAMES_OBJECTS.contains(&oid),
                    ..Carried::default()
                },
            };
        };
        match (&entry.base, &entry.labels) {
            (Some((base, modifier)), _) => self.resolve(*base, *modifier),
            (None, Some(labels)) => {
                Type::Enum { oid, name: entry.name.clone(), labels: labels.clone() }
            }
            (None, None) => built_in(oid, modifier).unwrap_or_else(|| Type::Other {
                oid,
                name: entry.name.clone(),
                carried: self.carried(oid, entry),
            }),
        }
    }

    fn carried(&self, oid: u32, entry: &Entry) -> Carried {
        // An array's modifier is its elements'; their text has it already.
        let element = entry.element.map(|element| self.resolve(element, -1));
        let parts = || {
            let parts = entry.parts.iter().map(|part| self.resolve(*part, -1));
            parts.chain(element.clone())
        };
        let names_objects =
            |ty: &Type| matches!(ty, Type::Other { carried, .. } if carried.names_objects);
        Carried {
            canonical: CANONICAL.contains(&oid) || element.as_ref().is_some_and(is_canonical),
            castable: entry.castable,
            composite: entry.composite,
            names_objects: NAMES_OBJECTS.contains(&oid) || parts().any(|part| names_objects(&part)),
            element: element.map(Box::new),
        }
    }
}

/// Whether values are equal where their texts are and only there, so that arrays of them are, too.
fn is_canonical(ty: &Type) -> bool {
    match ty {
        Type::Bool
        | Type::Int2
        | Type::Int4
        | Type::Int8
        | Type::Text
        | Type::Varchar(_)
        | Type::Bytea
        | Type::Date
        | Type::Time
        | Type::Timestamp
        | Type::TimestampTz
        | Type::Uuid
        | Type::Enum { .. } => true,
        Type::Other { carried, .. } => carried.canonical,
        // 0 and -0, 1.0 and 1.00, 1 day and 24 hours, blanks at the end.
        Type::Float4
        | Type::Float8
        | Type::Numeric(_)
        | Type::Interval
        | Type::Char(_)
        | Type::Json
        | Type::Jsonb => false,
    }
}

fn read(row: &Row) -> Result<(u32, Entry), tokio_postgres::Error> {
    let base = if row.try_get(2)? { Some((row.try_get(3)?, row.try_get(4)?)) } else { None };
    let element: u32 = row.try_get(8)?;
    let entry = Entry {
        name: row.try_get(1)?,
        base,
        labels: row.try_get(5)?,
        castable: row.try_get(6)?,
        composite: row.try_get(7)?,
        element: (row.try_get(10)? && element != 0).then_some(element),
        parts: row.try_get(9)?,
    };
    Ok((row.try_get(0)?, entry))
}

/// Types whose values are equal where their texts are, and only there: "char", name, oid, tid, xid,
/// cid, cidr, money, macaddr8, macaddr, inet, timetz, bit, varbit, pg_lsn, tsvector, xid8; ranges and
/// multiranges of int4, int8, date, timestamp, timestamptz (bounds are kept in one form).
const CANONICAL: [u32; 27] = [
    18, 19, 26, 27, 28, 29, 650, 790, 774, 829, 869, 1266, 1560, 1562, 3220, 3614, 5069, 3904,
    3926, 3912, 3908, 3910, 4451, 4536, 4535, 4533, 4534,
];

/// `reg…` and aclitem: regproc, regprocedure, regoper, regoperator, regclass, regtype, regconfig,
/// regdictionary, regnamespace, regrole, regcollation.
const NAMES_OBJECTS: [u32; 12] =
    [24, 2202, 2203, 2204, 2205, 2206, 3734, 3769, 4089, 4096, 4191, 1033];

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
