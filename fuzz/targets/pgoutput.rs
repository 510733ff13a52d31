//! Bytes as the decoder of replication messages gets them.

use walview_core::pgoutput::{Message, Old, Tuple, decode};

pub(crate) fn run(data: &[u8]) {
    let Ok(message) = decode(data) else {
        return;
    };
    assert_eq!(decode(data), Ok(message));
    match &message {
        Message::Insert { new, .. } => walk(new),
        Message::Update { old, new, .. } => {
            old.iter().for_each(walk_old);
            walk(new);
        }
        Message::Delete { old, .. } => walk_old(old),
        Message::Relation(relation) => {
            assert_eq!(relation.columns.iter().count(), relation.columns.len());
        }
        Message::Truncate(truncate) => drop(truncate.relations().count()),
        Message::Begin(_)
        | Message::Commit(_)
        | Message::Origin { .. }
        | Message::Type(_)
        | Message::Logical { .. } => {}
    }
    // A message is known to its last byte: less is cut off, more is another's.
    for end in (0..data.len()).rev().take(64) {
        assert!(decode(data.get(..end).unwrap_or_default()).is_err());
    }
    assert!(decode(&[data, &[0]].concat()).is_err());
}

fn walk_old(old: &Old<'_>) {
    let (Old::Key(tuple) | Old::Full(tuple)) = old;
    walk(tuple);
}

fn walk(tuple: &Tuple<'_>) {
    assert_eq!(tuple.cells().count(), tuple.len());
}
