//! What a `ClickHouse` table must take, and its bytes in the outbox.
//!
//! Values are encoded once, where the change is rendered, into what the writer sends: the writer
//! copies them into Arrow columns and knows no PostgreSQL type.

use super::super::codec::{CodecError, Reader, put_bytes, put_signed, put_varint};

/// A version of a row, or its tombstone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Op {
    /// The target's number in the pipeline, as its store counts them.
    pub target: u16,
    /// [`super::Target::fingerprint`] of what encoded the values.
    pub schema: u32,
    pub version: u128,
    /// A tombstone has the sorting key only.
    pub deleted: bool,
    /// Microseconds since 2000-01-01 UTC.
    pub committed_at: i64,
    /// Encoded values of the sorting key, in its order.
    pub key: Vec<u8>,
    /// Encoded values of the other columns, in the table's order.
    pub rest: Vec<u8>,
}

/// An [`Op`] whose values stay where they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpRef<'a> {
    pub target: u16,
    pub schema: u32,
    pub version: u128,
    pub deleted: bool,
    pub committed_at: i64,
    pub key: &'a [u8],
    pub rest: &'a [u8],
}

/// The first byte of every encoded operation.
const VERSION: u8 = 1;

impl Op {
    pub fn encode(&self, out: &mut Vec<u8>) {
        OpRef {
            target: self.target,
            schema: self.schema,
            version: self.version,
            deleted: self.deleted,
            committed_at: self.committed_at,
            key: &self.key,
            rest: &self.rest,
        }
        .encode(out);
    }
}

impl<'a> OpRef<'a> {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.push(VERSION);
        put_varint(out, self.target.into());
        out.extend_from_slice(&self.schema.to_le_bytes());
        out.extend_from_slice(&self.version.to_le_bytes());
        out.push(self.deleted.into());
        put_signed(out, self.committed_at);
        put_bytes(out, self.key);
        put_bytes(out, self.rest);
    }

    /// # Errors
    /// Where the bytes are not what [`Op::encode`] wrote.
    pub fn decode_all(bytes: &'a [u8]) -> impl Iterator<Item = Result<Self, CodecError>> {
        let mut reader = Reader::new(bytes);
        let mut failed = false;
        std::iter::from_fn(move || {
            (!failed && !reader.is_empty()).then(|| {
                let op = Self::decode(&mut reader);
                failed = op.is_err();
                op
            })
        })
    }

    fn decode(reader: &mut Reader<'a>) -> Result<Self, CodecError> {
        if reader.byte()? != VERSION {
            return Err(CodecError { what: "a ClickHouse operation of another version" });
        }
        let cut = |_| CodecError { what: "a cut record" };
        Ok(Self {
            target: reader.small()?,
            schema: u32::from_le_bytes(reader.take(4)?.try_into().map_err(cut)?),
            version: u128::from_le_bytes(reader.take(16)?.try_into().map_err(cut)?),
            deleted: reader.byte()? != 0,
            committed_at: reader.signed()?,
            key: reader.bytes()?,
            rest: reader.bytes()?,
        })
    }

    #[must_use]
    pub fn to_owned(self) -> Op {
        Op {
            target: self.target,
            schema: self.schema,
            version: self.version,
            deleted: self.deleted,
            committed_at: self.committed_at,
            key: self.key.to_vec(),
            rest: self.rest.to_vec(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn operations_round_trip(
            target: u16, schema: u32, version: u128, deleted: bool, committed_at: i64,
            key: Vec<u8>, rest: Vec<u8>,
        ) {
            let op = Op { target, schema, version, deleted, committed_at, key, rest };
            let mut bytes = Vec::new();
            op.encode(&mut bytes);
            op.encode(&mut bytes);
            let read: Result<Vec<Op>, CodecError> =
                OpRef::decode_all(&bytes).map(|op| op.map(OpRef::to_owned)).collect();
            prop_assert_eq!(read, Ok(vec![op.clone(), op]));
        }

        #[test]
        fn foreign_bytes_do_not_panic(mut bytes: Vec<u8>) {
            assert!(OpRef::decode_all(&bytes).count() <= bytes.len());
            bytes.insert(0, VERSION);
            assert!(OpRef::decode_all(&bytes).count() <= bytes.len());
        }
    }
}
