//! What a Redis must do, in absolute terms, and its bytes in the outbox.
//!
//! Invariants: doing an operation twice, or a later one over an earlier one of the same slot
//! alone, leaves the same. Stream entries carry their ids, so Redis itself refuses a repeat.

use super::super::codec::{CodecError, Reader, put_bytes, put_varint};
use foldhash::{HashSet, HashSetExt as _};

/// One operation, and the target of the pipeline that it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Op {
    /// The target's number in the pipeline, as its store counts them.
    pub target: u16,
    pub action: Action,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    Set {
        key: String,
        value: String,
    },
    Del {
        key: String,
    },
    /// The whole hash: whatever else stood there goes. No fields: the key goes.
    HashReplace {
        key: String,
        fields: Vec<(String, String)>,
    },
    SetAdd {
        key: String,
        member: String,
    },
    SetRem {
        key: String,
        member: String,
    },
    /// The score in digits that Redis reads as a double.
    ZAdd {
        key: String,
        member: String,
        score: String,
    },
    ZRem {
        key: String,
        member: String,
    },
    StreamAdd {
        key: String,
        id: (u64, u64),
        fields: Vec<(String, String)>,
        maxlen: Option<u64>,
    },
}

impl Action {
    #[must_use]
    pub fn key(&self) -> &str {
        match self {
            Self::Set { key, .. }
            | Self::Del { key }
            | Self::HashReplace { key, .. }
            | Self::SetAdd { key, .. }
            | Self::SetRem { key, .. }
            | Self::ZAdd { key, .. }
            | Self::ZRem { key, .. }
            | Self::StreamAdd { key, .. } => key,
        }
    }

    #[must_use]
    pub fn member(&self) -> Option<&str> {
        match self {
            Self::SetAdd { member, .. }
            | Self::SetRem { member, .. }
            | Self::ZAdd { member, .. }
            | Self::ZRem { member, .. } => Some(member),
            Self::Set { .. }
            | Self::Del { .. }
            | Self::HashReplace { .. }
            | Self::StreamAdd { .. } => None,
        }
    }

    /// Whether both leave the same in their slot: fields in any order, scores as doubles.
    #[must_use]
    pub fn holds_the_same(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::HashReplace { key, fields },
                Self::HashReplace { key: other_key, fields: other_fields },
            ) => {
                let sorted = |fields: &[(String, String)]| {
                    let mut fields = fields.to_vec();
                    fields.sort_unstable();
                    fields
                };
                key == other_key && sorted(fields) == sorted(other_fields)
            }
            (
                Self::ZAdd { key, member, score },
                Self::ZAdd { key: other_key, member: other_member, score: other_score },
            ) => {
                let double =
                    |score: &str| score.parse::<f64>().map(|score| (score + 0.0).to_bits());
                key == other_key
                    && member == other_member
                    && matches!((double(score), double(other_score)), (Ok(a), Ok(b)) if a == b)
            }
            (a, b) => a == b,
        }
    }
}

/// The first byte of every encoded operation.
const VERSION: u8 = 1;

/// What stands for each action.
const SET: u8 = 0;
const DEL: u8 = 1;
const HASH_REPLACE: u8 = 2;
const SET_ADD: u8 = 3;
const SET_REM: u8 = 4;
const Z_ADD: u8 = 5;
const Z_REM: u8 = 6;
const STREAM_ADD: u8 = 7;
/// `HASH_REPLACE` with every field that the target shows.
const HASH_REPLACE_ALL: u8 = 8;
const UNKNOWN: CodecError = CodecError { what: "an unknown Redis operation" };

/// Target and tag.
fn head(reader: &mut Reader<'_>) -> Result<(u16, u8), CodecError> {
    if reader.byte()? != VERSION {
        return Err(CodecError { what: "a Redis operation of another version" });
    }
    Ok((reader.small()?, reader.byte()?))
}

/// What [`Op::encode`] writes, from texts that stand elsewhere.
#[derive(Clone, Copy, Debug)]
pub enum Encoded<'a> {
    Set {
        value: &'a str,
    },
    Del,
    /// `fields` follow, as names and values. `all`: nothing else can stand in the hash, because these
    /// are all fields that its target shows, so it need not be emptied before.
    HashReplace {
        fields: usize,
        all: bool,
    },
    SetAdd {
        member: &'a str,
    },
    SetRem {
        member: &'a str,
    },
    ZAdd {
        member: &'a str,
        score: &'a str,
    },
    ZRem {
        member: &'a str,
    },
    /// `fields` follow, as names and values.
    StreamAdd {
        id: (u64, u64),
        maxlen: Option<u64>,
        fields: usize,
    },
}

impl Encoded<'_> {
    pub(super) fn put(&self, target: u16, key: &str, out: &mut Vec<u8>) {
        out.push(VERSION);
        put_varint(out, target.into());
        let mut put = |tag: u8, pieces: &[&str]| {
            out.push(tag);
            put_bytes(out, key.as_bytes());
            for piece in pieces {
                put_bytes(out, piece.as_bytes());
            }
        };
        match self {
            Self::Set { value } => put(SET, &[value]),
            Self::Del => put(DEL, &[]),
            Self::HashReplace { fields, all } => {
                put(if *all { HASH_REPLACE_ALL } else { HASH_REPLACE }, &[]);
                put_varint(out, *fields as u64);
            }
            Self::SetAdd { member } => put(SET_ADD, &[member]),
            Self::SetRem { member } => put(SET_REM, &[member]),
            Self::ZAdd { member, score } => put(Z_ADD, &[member, score]),
            Self::ZRem { member } => put(Z_REM, &[member]),
            Self::StreamAdd { id, maxlen, fields } => {
                put(STREAM_ADD, &[]);
                put_varint(out, id.0);
                put_varint(out, id.1);
                put_varint(out, maxlen.map_or(0, |max| max.saturating_add(1)));
                put_varint(out, *fields as u64);
            }
        }
    }
}

/// One field of a hash or a stream entry.
pub(super) fn put_field(name: &str, value: &str, out: &mut Vec<u8>) {
    put_bytes(out, name.as_bytes());
    put_bytes(out, value.as_bytes());
}

impl Op {
    pub fn encode(&self, out: &mut Vec<u8>) {
        let put = |encoded: Encoded<'_>, out: &mut Vec<u8>| {
            encoded.put(self.target, self.action.key(), out);
        };
        let put_fields = |fields: &[(String, String)], out: &mut Vec<u8>| {
            for (name, value) in fields {
                put_field(name, value, out);
            }
        };
        match &self.action {
            Action::Set { value, .. } => put(Encoded::Set { value }, out),
            Action::Del { .. } => put(Encoded::Del, out),
            Action::HashReplace { fields, .. } => {
                put(Encoded::HashReplace { fields: fields.len(), all: false }, out);
                put_fields(fields, out);
            }
            Action::SetAdd { member, .. } => put(Encoded::SetAdd { member }, out),
            Action::SetRem { member, .. } => put(Encoded::SetRem { member }, out),
            Action::ZAdd { member, score, .. } => put(Encoded::ZAdd { member, score }, out),
            Action::ZRem { member, .. } => put(Encoded::ZRem { member }, out),
            Action::StreamAdd { id, fields, maxlen, .. } => {
                let (id, maxlen, len) = (*id, *maxlen, fields.len());
                put(Encoded::StreamAdd { id, maxlen, fields: len }, out);
                put_fields(fields, out);
            }
        }
    }
}

/// An encoded operation where it stands, known by its slot only: a batch of them costs little more
/// memory than their bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpRef<'a> {
    pub target: u16,
    pub key: &'a str,
    /// `None` where the slot is the whole key.
    pub member: Option<&'a str>,
    /// It adds an entry to a stream.
    pub event: bool,
    tag: u8,
    bytes: &'a [u8],
}

/// The fields of a hash or a stream entry: names and values.
#[derive(Clone, Debug)]
pub struct Fields<'a> {
    left: usize,
    reader: Reader<'a>,
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(&'a str, &'a str), CodecError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let mut text = || self.reader.text();
        Some(text().and_then(|name| Ok((name, text()?))))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<'a> OpRef<'a> {
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
        let start = *reader;
        let (target, tag) = head(reader)?;
        let key = reader.text()?;
        let mut member = None;
        let skip_fields = |reader: &mut Reader<'a>| -> Result<(), CodecError> {
            for _ in 0..reader.varint()? {
                reader.text()?;
                reader.text()?;
            }
            Ok(())
        };
        match tag {
            SET => drop(reader.text()?),
            DEL => {}
            HASH_REPLACE | HASH_REPLACE_ALL => skip_fields(reader)?,
            SET_ADD | SET_REM | Z_REM => member = Some(reader.text()?),
            Z_ADD => {
                member = Some(reader.text()?);
                reader.text()?;
            }
            STREAM_ADD => {
                for _ in 0..3 {
                    reader.varint()?;
                }
                skip_fields(reader)?;
            }
            _ => return Err(UNKNOWN),
        }
        let bytes = start.until(reader);
        Ok(Self { target, key, member, event: tag == STREAM_ADD, tag, bytes })
    }

    /// The length of its encoding, about that of what is sent.
    #[must_use]
    pub fn encoded_len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether both are of one kind and for one target.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        (self.target, self.tag) == (other.target, other.tag)
    }

    /// The id of the stream entry that it adds.
    #[must_use]
    pub fn stream_id(&self) -> Option<(u64, u64)> {
        match self.read() {
            Ok((Encoded::StreamAdd { id, .. }, _)) => Some(id),
            _ => None,
        }
    }

    /// How many entries its stream may have behind it.
    #[must_use]
    pub fn maxlen(&self) -> Option<u64> {
        match self.read() {
            Ok((Encoded::StreamAdd { maxlen, .. }, _)) => maxlen,
            _ => None,
        }
    }

    /// All of it but the key, where it stands.
    ///
    /// # Errors
    /// None: it was decoded before.
    pub fn read(&self) -> Result<(Encoded<'a>, Fields<'a>), CodecError> {
        let mut reader = Reader::new(self.bytes);
        let (_, tag) = head(&mut reader)?;
        reader.text()?;
        let mut left = 0;
        let encoded = match tag {
            SET => Encoded::Set { value: reader.text()? },
            DEL => Encoded::Del,
            HASH_REPLACE | HASH_REPLACE_ALL => {
                left = reader.small()?;
                Encoded::HashReplace { fields: left, all: tag == HASH_REPLACE_ALL }
            }
            SET_ADD => Encoded::SetAdd { member: reader.text()? },
            SET_REM => Encoded::SetRem { member: reader.text()? },
            Z_ADD => Encoded::ZAdd { member: reader.text()?, score: reader.text()? },
            Z_REM => Encoded::ZRem { member: reader.text()? },
            STREAM_ADD => {
                let id = (reader.varint()?, reader.varint()?);
                let maxlen = reader.varint()?.checked_sub(1);
                left = reader.small()?;
                Encoded::StreamAdd { id, maxlen, fields: left }
            }
            _ => return Err(UNKNOWN),
        };
        Ok((encoded, Fields { left, reader }))
    }

    /// # Errors
    /// None: it was decoded before.
    pub fn whole(self) -> Result<Op, CodecError> {
        let key = self.key.to_owned();
        let (encoded, fields) = self.read()?;
        let fields =
            fields.map(|field| field.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let action = match encoded {
            Encoded::Set { value } => Action::Set { key, value: value.to_owned() },
            Encoded::Del => Action::Del { key },
            Encoded::HashReplace { .. } => {
                Action::HashReplace { key, fields: fields.collect::<Result<_, _>>()? }
            }
            Encoded::SetAdd { member } => Action::SetAdd { key, member: member.to_owned() },
            Encoded::SetRem { member } => Action::SetRem { key, member: member.to_owned() },
            Encoded::ZAdd { member, score } => {
                Action::ZAdd { key, member: member.to_owned(), score: score.to_owned() }
            }
            Encoded::ZRem { member } => Action::ZRem { key, member: member.to_owned() },
            Encoded::StreamAdd { id, maxlen, .. } => {
                Action::StreamAdd { key, id, fields: fields.collect::<Result<_, _>>()?, maxlen }
            }
        };
        Ok(Op { target: self.target, action })
    }
}

/// Keeps the last operation of each slot (a key, or a key and its member), at the place of the
/// last, and all stream entries, in order.
pub fn coalesce(ops: &mut Vec<OpRef<'_>>) {
    let mut seen: HashSet<(&str, Option<&str>)> = HashSet::with_capacity(ops.len());
    let mut keep: Vec<bool> =
        ops.iter().rev().map(|op| op.event || seen.insert((op.key, op.member))).collect();
    ops.retain(|_| keep.pop().unwrap_or(true));
}

/// Brings coalesced operations of one kind and target together. Each is of a slot of its own, so
/// they may be done in any order; stream entries come last, in theirs.
pub fn gather(ops: &mut [OpRef<'_>]) {
    ops.sort_by_key(|op| if op.event { (true, 0, 0) } else { (false, op.target, op.tag) });
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "what does not decode fails the test")]

    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn actions() -> impl Strategy<Value = Action> {
        let key = || "[a-c]:[0-9]{1,2}";
        let fields = || prop::collection::vec(("[a-z]{0,3}", "\\PC{0,5}"), 0..4);
        prop_oneof![
            (key(), "\\PC{0,8}").prop_map(|(key, value)| Action::Set { key, value }),
            key().prop_map(|key| Action::Del { key }),
            (key(), fields()).prop_map(|(key, fields)| Action::HashReplace { key, fields }),
            (key(), "[ab]").prop_map(|(key, member)| Action::SetAdd { key, member }),
            (key(), "[ab]").prop_map(|(key, member)| Action::SetRem { key, member }),
            (key(), "[ab]", "[0-9]{1,3}").prop_map(|(key, member, score)| Action::ZAdd {
                key,
                member,
                score
            }),
            (key(), "[ab]").prop_map(|(key, member)| Action::ZRem { key, member }),
            (key(), any::<(u64, u64)>(), fields(), any::<Option<u32>>()).prop_map(
                |(key, id, fields, maxlen)| Action::StreamAdd {
                    key,
                    id,
                    fields,
                    maxlen: maxlen.map(u64::from)
                }
            ),
        ]
    }

    proptest! {
        #[test]
        fn operations_round_trip(list in prop::collection::vec((any::<u16>(), actions()), 0..8)) {
            let ops: Vec<Op> =
                list.into_iter().map(|(target, action)| Op { target, action }).collect();
            let mut bytes = Vec::new();
            for op in &ops {
                op.encode(&mut bytes);
            }
            let read: Result<Vec<OpRef<'_>>, CodecError> = OpRef::decode_all(&bytes).collect();
            let read = read.unwrap();
            for (op, read) in ops.iter().zip(&read) {
                prop_assert_eq!((op.action.key(), op.action.member()), (read.key, read.member));
                let id = if let Action::StreamAdd { id, .. } = &op.action { Some(*id) } else { None };
                prop_assert_eq!(read.stream_id(), id);
            }
            let read: Result<Vec<Op>, CodecError> = read.into_iter().map(OpRef::whole).collect();
            prop_assert_eq!(read, Ok(ops));
        }

        #[test]
        fn foreign_bytes_do_not_panic(mut bytes: Vec<u8>) {
            assert!(OpRef::decode_all(&bytes).count() <= bytes.len());
            bytes.insert(0, VERSION);
            for op in OpRef::decode_all(&bytes).flatten() {
                op.whole().unwrap();
            }
        }

        #[test]
        fn coalescing_keeps_the_last_of_a_slot_and_every_event(
            list in prop::collection::vec(actions(), 0..30)
        ) {
            let ops: Vec<Op> =
                list.into_iter().map(|action| Op { target: 0, action }).collect();
            let mut bytes = Vec::new();
            for op in &ops {
                op.encode(&mut bytes);
            }
            let mut kept: Vec<OpRef<'_>> = OpRef::decode_all(&bytes).map(Result::unwrap).collect();
            coalesce(&mut kept);
            gather(&mut kept);
            let kept: Vec<Op> = kept.into_iter().map(|op| op.whole().unwrap()).collect();
            let streams = |ops: &[Op]| -> Vec<Op> {
                ops.iter().filter(|op| matches!(op.action, Action::StreamAdd { .. })).cloned().collect()
            };
            prop_assert_eq!(streams(&ops), streams(&kept));
            let slots = |ops: Vec<Op>| -> HashMap<(String, Option<String>), Action> {
                ops.into_iter()
                    .filter(|op| !matches!(op.action, Action::StreamAdd { .. }))
                    .map(|op| {
                        let slot =
                            (op.action.key().to_owned(), op.action.member().map(str::to_owned));
                        (slot, op.action)
                    })
                    .collect()
            };
            let count = kept.len() - streams(&kept).len();
            let last = slots(ops);
            prop_assert_eq!(count, last.len());
            prop_assert_eq!(slots(kept), last);
        }
    }

    #[test]
    fn scores_compare_as_doubles() {
        let add = |score: &str| Action::ZAdd {
            key: "k".to_owned(),
            member: "m".to_owned(),
            score: score.to_owned(),
        };
        assert!(add("12.50").holds_the_same(&add("12.5")));
        assert!(add("-0").holds_the_same(&add("0")));
        assert!(!add("12.50").holds_the_same(&add("12.6")));
    }
}
