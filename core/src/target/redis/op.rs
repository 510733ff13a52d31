//! What a Redis must do, in absolute terms, and its bytes in the outbox.
//!
//! Invariants: doing an operation twice, or a later one over an earlier one of the same slot
//! alone, leaves the same. Stream entries carry their ids, so Redis itself refuses a repeat.

use super::super::codec::{CodecError, Reader, put_bytes, put_varint};
use std::collections::HashMap;
use std::collections::hash_map::Entry;

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

impl Op {
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.push(VERSION);
        put_varint(out, self.target.into());
        let mut put = |tag: u8, pieces: &[&String]| {
            out.push(tag);
            for piece in pieces {
                put_bytes(out, piece.as_bytes());
            }
        };
        match &self.action {
            Action::Set { key, value } => put(0, &[key, value]),
            Action::Del { key } => put(1, &[key]),
            Action::HashReplace { key, fields } => {
                put(2, &[key]);
                put_fields(out, fields);
            }
            Action::SetAdd { key, member } => put(3, &[key, member]),
            Action::SetRem { key, member } => put(4, &[key, member]),
            Action::ZAdd { key, member, score } => put(5, &[key, member, score]),
            Action::ZRem { key, member } => put(6, &[key, member]),
            Action::StreamAdd { key, id, fields, maxlen } => {
                put(7, &[key]);
                put_varint(out, id.0);
                put_varint(out, id.1);
                put_varint(out, maxlen.map_or(0, |max| max.saturating_add(1)));
                put_fields(out, fields);
            }
        }
    }

    /// # Errors
    /// Where the bytes are not what [`Op::encode`] wrote.
    pub fn decode_all(bytes: &[u8]) -> Result<Vec<Self>, CodecError> {
        let mut ops = Vec::new();
        let mut reader = Reader::new(bytes);
        while !reader.is_empty() {
            ops.push(Self::decode(&mut reader)?);
        }
        Ok(ops)
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, CodecError> {
        if reader.byte()? != VERSION {
            return Err(CodecError { what: "a Redis operation of another version" });
        }
        let target = reader.small()?;
        let tag = reader.byte()?;
        let key = reader.text()?.to_owned();
        let mut text = || reader.text().map(str::to_owned);
        let action = match tag {
            0 => Action::Set { key, value: text()? },
            1 => Action::Del { key },
            2 => Action::HashReplace { key, fields: read_fields(reader)? },
            3 => Action::SetAdd { key, member: text()? },
            4 => Action::SetRem { key, member: text()? },
            5 => Action::ZAdd { key, member: text()?, score: text()? },
            6 => Action::ZRem { key, member: text()? },
            7 => {
                let id = (reader.varint()?, reader.varint()?);
                let maxlen = reader.varint()?.checked_sub(1);
                Action::StreamAdd { key, id, fields: read_fields(reader)?, maxlen }
            }
            _ => {
                return Err(CodecError { what: "an unknown Redis operation" });
            }
        };
        Ok(Self { target, action })
    }
}

fn put_fields(out: &mut Vec<u8>, fields: &[(String, String)]) {
    put_varint(out, fields.len() as u64);
    for (name, value) in fields {
        put_bytes(out, name.as_bytes());
        put_bytes(out, value.as_bytes());
    }
}

fn read_fields(reader: &mut Reader<'_>) -> Result<Vec<(String, String)>, CodecError> {
    let count: usize = reader.small()?;
    // No capacity from the count: it comes from the disk.
    let mut fields = Vec::new();
    for _ in 0..count {
        fields.push((reader.text()?.to_owned(), reader.text()?.to_owned()));
    }
    Ok(fields)
}

/// Keeps the last operation of each slot (a key, or a key and its member), at the place of the
/// last, and all stream entries, in order.
#[must_use]
pub fn coalesce(ops: Vec<Op>) -> Vec<Op> {
    let mut last: HashMap<(&str, Option<&str>), usize> = HashMap::with_capacity(ops.len());
    let mut dropped = vec![false; ops.len()];
    for (index, op) in ops.iter().enumerate() {
        if matches!(op.action, Action::StreamAdd { .. }) {
            continue;
        }
        match last.entry((op.action.key(), op.action.member())) {
            Entry::Occupied(mut entry) => {
                if let Some(earlier) = dropped.get_mut(entry.insert(index)) {
                    *earlier = true;
                }
            }
            Entry::Vacant(entry) => {
                entry.insert(index);
            }
        }
    }
    drop(last);
    ops.into_iter().zip(dropped).filter_map(|(op, dropped)| (!dropped).then_some(op)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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
            prop_assert_eq!(Op::decode_all(&bytes), Ok(ops));
        }

        #[test]
        fn foreign_bytes_do_not_panic(mut bytes: Vec<u8>) {
            Op::decode_all(&bytes).ok();
            bytes.insert(0, VERSION);
            Op::decode_all(&bytes).ok();
        }

        #[test]
        fn coalescing_keeps_the_last_of_a_slot_and_every_event(
            list in prop::collection::vec(actions(), 0..30)
        ) {
            let ops: Vec<Op> =
                list.into_iter().map(|action| Op { target: 0, action }).collect();
            let kept = coalesce(ops.clone());
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
