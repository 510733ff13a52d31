//! Decodes what the `pgoutput` plugin sends, protocol version 1.
//!
//! ```text
//!  bytes of one replication message ─► decode ─► Message<'_>, borrowing names and cells
//! ```
//!
//! Format: PostgreSQL documentation, "Logical Replication Message Formats". Version 1 never sends a
//! transaction before it commits, so there are no Stream messages and no sub-transaction aborts.
//!
//! Invariants:
//! - no input panics or makes this module allocate;
//! - a message is checked to its last byte when it is decoded, so that walking a [`Tuple`] or
//!   [`Columns`] afterwards cannot fail;
//! - three states of a cell stay three: NULL, unchanged, a value ([`Cell`]).

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

mod reader;
#[cfg(test)]
mod tests;
mod tuple;

pub use tuple::{Cell, Cells, Tuple};

use crate::position::Lsn;
use reader::Reader;

/// One message of the replication stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    Begin(Begin),
    Commit(Commit),
    /// Where a replicated transaction came from; outside Walview's concern.
    Origin {
        commit_lsn: Lsn,
        name: &'a str,
    },
    Relation(Relation<'a>),
    Type(TypeName<'a>),
    Insert {
        relation: u32,
        new: Tuple<'a>,
    },
    Update {
        relation: u32,
        /// Absent where the replica identity is a key and the key did not change.
        old: Option<Old<'a>>,
        new: Tuple<'a>,
    },
    Delete {
        relation: u32,
        old: Old<'a>,
    },
    Truncate(Truncate<'a>),
    /// `pg_logical_emit_message()`.
    Logical {
        transactional: bool,
        lsn: Lsn,
        prefix: &'a str,
        content: &'a [u8],
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Begin {
    /// Where the commit record starts: the same number as `Commit::commit_lsn`.
    pub commit_lsn: Lsn,
    /// Microseconds since 2000-01-01 UTC.
    pub committed_at: i64,
    pub xid: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Commit {
    /// Where the commit record starts.
    pub commit_lsn: Lsn,
    /// Where the next record starts: what is confirmed once the transaction is durable.
    pub end_lsn: Lsn,
    /// Microseconds since 2000-01-01 UTC.
    pub committed_at: i64,
}

/// The old row of an UPDATE or DELETE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Old<'a> {
    /// Only the columns of the replica identity hold values; the others read as NULL.
    Key(Tuple<'a>),
    /// The whole row (`REPLICA IDENTITY FULL`).
    Full(Tuple<'a>),
}

/// What the tuples of one relation look like from here on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relation<'a> {
    pub oid: u32,
    /// `pg_catalog` where the wire has an empty string.
    pub schema: &'a str,
    pub name: &'a str,
    /// `pg_class.relreplident`: `d`, `n`, `f` or `i`.
    pub replica_identity: u8,
    pub columns: Columns<'a>,
}

/// The published columns of a relation, in the order of its tuples' cells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Columns<'a> {
    count: u16,
    /// Checked: holds exactly `count` columns.
    bytes: &'a [u8],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelationColumn<'a> {
    /// Part of the replica identity.
    pub key: bool,
    pub name: &'a str,
    pub type_oid: u32,
    /// `pg_attribute.atttypmod`.
    pub type_modifier: i32,
}

impl<'a> Columns<'a> {
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count as usize
    }

    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub fn iter(&self) -> impl Iterator<Item = RelationColumn<'a>> + use<'a> {
        let mut reader = Reader::new(self.bytes);
        (0..self.count).map_while(move |_| RelationColumn::read(&mut reader).ok())
    }

    fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let count = reader.u16("column count")?;
        let bytes = reader
            .span(|inner| (0..count).try_for_each(|_| RelationColumn::read(inner).map(drop)))?;
        Ok(Self { count, bytes })
    }
}

impl<'a> RelationColumn<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Ok(Self {
            key: reader.u8("column flags")? & 1 != 0,
            name: reader.name("column name")?,
            type_oid: reader.u32("column type")?,
            type_modifier: reader.i32("column type modifier")?,
        })
    }
}

/// A type that is not built in, sent before the first Relation that uses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TypeName<'a> {
    pub oid: u32,
    /// `pg_catalog` where the wire has an empty string.
    pub schema: &'a str,
    pub name: &'a str,
}

/// `TRUNCATE a, b CASCADE` is one message with several relations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Truncate<'a> {
    pub cascade: bool,
    pub restart_identity: bool,
    /// Checked: a whole number of four-byte OIDs.
    oids: &'a [u8],
}

impl<'a> Truncate<'a> {
    pub fn relations(&self) -> impl Iterator<Item = u32> + use<'a> {
        self.oids.as_chunks::<4>().0.iter().map(|oid| u32::from_be_bytes(*oid))
    }
}

/// Bytes that are not a message of protocol version 1. Never holds content: that is row data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    #[error("pgoutput message ends inside its {0}")]
    Truncated(&'static str),
    #[error("pgoutput {0} is not UTF-8; walview needs a database whose encoding is UTF8")]
    NotUtf8(&'static str),
    #[error("unknown pgoutput {what} 0x{byte:02x}")]
    Unknown { what: &'static str, byte: u8 },
    #[error("pgoutput message has {0} bytes after its end")]
    Trailing(usize),
}

/// Decodes one message.
///
/// # Errors
/// The bytes are not one whole message of protocol version 1.
pub fn decode(bytes: &[u8]) -> Result<Message<'_>, DecodeError> {
    let mut reader = Reader::new(bytes);
    let tag = reader.u8("tag")?;
    let message = match tag {
        b'B' => Message::Begin(Begin {
            commit_lsn: reader.lsn("commit LSN")?,
            committed_at: reader.i64("commit time")?,
            xid: reader.u32("xid")?,
        }),
        b'C' => {
            reader.u8("commit flags")?;
            Message::Commit(Commit {
                commit_lsn: reader.lsn("commit LSN")?,
                end_lsn: reader.lsn("end LSN")?,
                committed_at: reader.i64("commit time")?,
            })
        }
        b'O' => Message::Origin {
            commit_lsn: reader.lsn("origin LSN")?,
            name: reader.name("origin name")?,
        },
        b'R' => Message::Relation(Relation {
            oid: reader.u32("relation")?,
            schema: reader.schema()?,
            name: reader.name("relation name")?,
            replica_identity: reader.u8("replica identity")?,
            columns: Columns::read(&mut reader)?,
        }),
        b'Y' => Message::Type(TypeName {
            oid: reader.u32("type")?,
            schema: reader.schema()?,
            name: reader.name("type name")?,
        }),
        b'I' => {
            let relation = reader.u32("relation")?;
            reader.expect(b'N', "tuple kind")?;
            Message::Insert { relation, new: Tuple::read(&mut reader)? }
        }
        b'U' => update(&mut reader)?,
        b'D' => {
            let relation = reader.u32("relation")?;
            let kind = reader.u8("tuple kind")?;
            Message::Delete { relation, old: Old::read(kind, &mut reader)? }
        }
        b'T' => truncate(&mut reader)?,
        b'M' => logical(&mut reader)?,
        byte => {
            return Err(DecodeError::Unknown { what: "message", byte });
        }
    };
    match reader.remaining() {
        0 => Ok(message),
        extra => Err(DecodeError::Trailing(extra)),
    }
}

/// The relation of which an Insert, an Update or a Delete changes a row; the rest of the message is not looked at.
#[must_use]
pub fn changed_relation(message: &[u8]) -> Option<u32> {
    let (b'I' | b'U' | b'D', rest) = message.split_first()? else {
        return None;
    };
    rest.first_chunk().map(|oid| u32::from_be_bytes(*oid))
}

impl<'a> Old<'a> {
    fn read(kind: u8, reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        match kind {
            b'K' => Ok(Self::Key(Tuple::read(reader)?)),
            b'O' => Ok(Self::Full(Tuple::read(reader)?)),
            byte => Err(DecodeError::Unknown { what: "tuple kind", byte }),
        }
    }
}

fn update<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
    let relation = reader.u32("relation")?;
    let kind = reader.u8("tuple kind")?;
    let old = if kind == b'N' {
        None
    } else {
        let old = Old::read(kind, reader)?;
        reader.expect(b'N', "tuple kind")?;
        Some(old)
    };
    Ok(Message::Update { relation, old, new: Tuple::read(reader)? })
}

fn truncate<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
    let count = reader.u32("relation count")?;
    let options = reader.u8("truncate options")?;
    let oids = reader.span(|inner| (0..count).try_for_each(|_| inner.u32("relation").map(drop)))?;
    Ok(Message::Truncate(Truncate {
        cascade: options & 1 != 0,
        restart_identity: options & 2 != 0,
        oids,
    }))
}

fn logical<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
    let transactional = reader.u8("message flags")? & 1 != 0;
    let lsn = reader.lsn("message LSN")?;
    let prefix = reader.name("message prefix")?;
    let content = reader.sized("message content")?;
    Ok(Message::Logical { transactional, lsn, prefix, content })
}
