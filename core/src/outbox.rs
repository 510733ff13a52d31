//! The outbox's records: what one store must do, in commit order.
//!
//! A record holds whole changes of one source transaction, or a part of one where the transaction
//! is larger than a record may be; `ends` says whether the transaction ends with it.

use crate::position::{Lsn, ORDINAL_MAX, Position};
use crate::target::codec::{CodecError, Reader, put_bytes, put_signed, put_varint};
use bytes::Bytes;

/// One record, for one store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Counts records per store, without gaps.
    pub seq: u64,
    /// The position of the last operation in it; the store stands there once it has applied it.
    pub to: Position,
    /// A store that has applied it holds everything that was committed before this LSN: the
    /// transaction's own, or that of the oldest one for which a view is still being corrected.
    pub complete: Lsn,
    /// The time of that commit: microseconds since 2000-01-01 UTC.
    pub committed_at: i64,
    /// Whether the source transaction ends here.
    pub ends: bool,
    /// Encoded operations of the store's kind, one after another.
    pub ops: Bytes,
}

const VERSION: u8 = 2;

impl Record {
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.reserve(self.ops.len() + 48);
        out.push(VERSION);
        put_varint(out, self.seq);
        put_varint(out, self.to.epoch.into());
        put_varint(out, self.to.lsn.0);
        put_varint(out, self.to.ordinal);
        put_varint(out, self.complete.0);
        put_signed(out, self.committed_at);
        out.push(self.ends.into());
        put_bytes(out, &self.ops);
    }

    /// # Errors
    /// Where the bytes are not what [`Record::encode`] wrote.
    pub fn decode(bytes: &[u8]) -> Result<Self, CodecError> {
        let mut reader = Reader::new(bytes);
        if reader.byte()? != VERSION {
            return Err(CodecError { what: "a record of another version" });
        }
        let seq = reader.varint()?;
        let to = Position {
            epoch: reader.small()?,
            lsn: Lsn(reader.varint()?),
            ordinal: reader.varint()?,
        };
        let complete = Lsn(reader.varint()?);
        let committed_at = reader.signed()?;
        let ends = reader.byte()? != 0;
        let ops = Bytes::copy_from_slice(reader.bytes()?);
        if to.ordinal > ORDINAL_MAX || !reader.is_empty() {
            return Err(CodecError { what: "a damaged record" });
        }
        Ok(Self { seq, to, complete, committed_at, ends, ops })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn records_round_trip(
            seq: u64, epoch: u16, lsn: u64, ordinal in 0..=ORDINAL_MAX, complete: u64,
            committed_at: i64, ends: bool, ops: Vec<u8>,
        ) {
            let record = Record {
                seq,
                to: Position { epoch, lsn: Lsn(lsn), ordinal },
                complete: Lsn(complete),
                committed_at,
                ends,
                ops: ops.into(),
            };
            let mut bytes = Vec::new();
            record.encode(&mut bytes);
            prop_assert_eq!(Record::decode(&bytes), Ok(record));
            bytes.pop();
            prop_assert!(Record::decode(&bytes).is_err());
        }

        #[test]
        fn foreign_bytes_do_not_panic(bytes: Vec<u8>) {
            Record::decode(&bytes).ok();
        }
    }
}
