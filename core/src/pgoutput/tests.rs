//! Messages written by hand as the documentation lays them out, then every truncation and random
//! bytes: decoding answers, it never panics.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;
use proptest::prelude::*;

/// Builds messages as the server does.
#[derive(Default)]
struct Wire(Vec<u8>);

impl Wire {
    fn tag(tag: u8) -> Self {
        Self(vec![tag])
    }
    fn u8(mut self, byte: u8) -> Self {
        self.0.push(byte);
        self
    }
    fn u16(mut self, value: u16) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }
    fn u32(mut self, value: u32) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }
    fn u64(mut self, value: u64) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }
    fn name(mut self, name: &str) -> Self {
        self.0.extend(name.as_bytes());
        self.u8(0)
    }
    fn text(mut self, text: &str) -> Self {
        self = self.u8(b't').u32(u32::try_from(text.len()).unwrap());
        self.0.extend(text.as_bytes());
        self
    }
}

fn begin() -> Wire {
    Wire::tag(b'B').u64(0x10).u64(7).u32(42)
}

fn commit() -> Wire {
    Wire::tag(b'C').u8(0).u64(0x10).u64(0x18).u64(7)
}

fn relation() -> Wire {
    let head = Wire::tag(b'R').u32(9).name("").name("bets").u8(b'd').u16(2);
    head.u8(1).name("id").u32(20).u32(u32::MAX).u8(0).name("note").u32(25).u32(u32::MAX)
}

fn update() -> Wire {
    let old = Wire::tag(b'U').u32(9).u8(b'K').u16(2).text("1").u8(b'n');
    old.u8(b'N').u16(2).text("2").u8(b'u')
}

fn truncate() -> Wire {
    Wire::tag(b'T').u32(2).u8(3).u32(9).u32(10)
}

fn logical() -> Wire {
    Wire::tag(b'M').u8(1).u64(0x10).name("app").u32(2).u8(0).u8(255)
}

fn insert() -> Wire {
    Wire::tag(b'I').u32(9).u8(b'N').u16(3).text("1").u8(b'n').text("")
}

fn delete() -> Wire {
    Wire::tag(b'D').u32(9).u8(b'O').u16(1).text("1")
}

fn every_message() -> Vec<Vec<u8>> {
    let origin = Wire::tag(b'O').u64(1).name("upstream");
    let kind = Wire::tag(b'Y').u32(16_400).name("public").name("mood");
    [
        begin(),
        commit(),
        origin,
        kind,
        relation(),
        insert(),
        update(),
        delete(),
        truncate(),
        logical(),
    ]
    .map(|wire| wire.0)
    .to_vec()
}

#[test]
fn boundaries_keep_commit_and_end_apart() {
    let lsn = Lsn(0x10);
    let wire = begin().0;
    let wanted = Begin { commit_lsn: lsn, committed_at: 7, xid: 42 };
    assert_eq!(decode(&wire), Ok(Message::Begin(wanted)));
    let wire = commit().0;
    let wanted = Commit { commit_lsn: lsn, end_lsn: Lsn(0x18), committed_at: 7 };
    assert_eq!(decode(&wire), Ok(Message::Commit(wanted)));
}

#[test]
fn a_relation_lists_its_columns() {
    let wire = relation().0;
    let Ok(Message::Relation(relation)) = decode(&wire) else { panic!("{:?}", decode(&wire)) };
    assert_eq!((relation.oid, relation.schema, relation.name), (9, "pg_catalog", "bets"));
    assert_eq!((relation.replica_identity, relation.columns.len()), (b'd', 2));
    let columns: Vec<_> = relation.columns.iter().collect();
    let id = RelationColumn { key: true, name: "id", type_oid: 20, type_modifier: -1 };
    let note = RelationColumn { key: false, name: "note", type_oid: 25, type_modifier: -1 };
    assert_eq!(columns, [id, note]);
}

#[test]
fn null_unchanged_and_empty_text_are_three_things() {
    let wire = insert().0;
    let Ok(Message::Insert { relation: 9, new }) = decode(&wire) else { panic!() };
    let cells: Vec<_> = new.cells().collect();
    assert_eq!(cells, [Cell::Text(b"1"), Cell::Null, Cell::Text(b"")]);

    let wire = update().0;
    let Ok(Message::Update { relation: 9, old: Some(Old::Key(old)), new }) = decode(&wire) else {
        panic!()
    };
    assert_eq!(old.cells().collect::<Vec<_>>(), [Cell::Text(b"1"), Cell::Null]);
    assert_eq!(new.cells().collect::<Vec<_>>(), [Cell::Text(b"2"), Cell::Unchanged]);
    assert_eq!(format!("{new:?}"), "[Text(1 bytes), Unchanged]");
}

#[test]
fn one_truncate_names_several_relations() {
    let wire = truncate().0;
    let Ok(Message::Truncate(truncate)) = decode(&wire) else { panic!() };
    assert!(truncate.cascade && truncate.restart_identity);
    assert_eq!(truncate.relations().collect::<Vec<_>>(), [9, 10]);
}

#[test]
fn a_logical_message_may_hold_any_bytes() {
    let wire = logical().0;
    let (prefix, content): (_, &[u8]) = ("app", &[0, 255]);
    let wanted = Message::Logical { transactional: true, lsn: Lsn(0x10), prefix, content };
    assert_eq!(decode(&wire), Ok(wanted));
}

#[test]
fn what_is_no_message_is_refused() {
    let unknown = DecodeError::Unknown { what: "message", byte: b'S' };
    assert_eq!(decode(b"S"), Err(unknown));
    assert_eq!(decode(b""), Err(DecodeError::Truncated("tag")));
    let wire = begin().u8(0).0;
    assert_eq!(decode(&wire), Err(DecodeError::Trailing(1)));
    let wire = Wire::tag(b'O').u64(1).u8(0xFF).u8(0).0;
    assert_eq!(decode(&wire), Err(DecodeError::NotUtf8("origin name")));
    // A count of four thousand million relations costs no memory and no time.
    let wire = Wire::tag(b'T').u32(u32::MAX).u8(0).u32(1).0;
    assert_eq!(decode(&wire), Err(DecodeError::Truncated("relation")));
}

#[test]
fn every_truncation_of_every_message_is_refused() {
    for wire in every_message() {
        assert!(decode(&wire).is_ok(), "{wire:?}");
        for end in 0..wire.len() {
            let cut = wire.get(..end).unwrap();
            assert!(decode(cut).is_err(), "{wire:?} cut at {end}");
        }
    }
}

/// Walks everything that a message lends out.
fn walk(bytes: &[u8]) {
    let count = |tuple: Tuple<'_>| assert_eq!(tuple.cells().count(), tuple.len());
    match decode(bytes) {
        Ok(Message::Relation(relation)) => {
            assert_eq!(relation.columns.iter().count(), relation.columns.len());
        }
        Ok(Message::Insert { new, .. }) => count(new),
        Ok(Message::Update { old, new, .. }) => {
            count(new);
            if let Some(Old::Key(old) | Old::Full(old)) = old {
                count(old);
            }
        }
        Ok(Message::Delete { old: Old::Key(old) | Old::Full(old), .. }) => count(old),
        Ok(Message::Truncate(truncate)) => drop(truncate.relations().count()),
        _ => {}
    }
}

proptest! {
    #[test]
    fn random_bytes_never_panic(
        tag in prop::sample::select(b"BCORYIUDTM".to_vec()),
        bytes in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        walk(&bytes);
        walk(&[&[tag], bytes.as_slice()].concat());
    }

    #[test]
    fn a_flipped_byte_never_panics(
        which in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
    ) {
        let messages = every_message();
        let mut wire = messages.get(which.index(messages.len())).unwrap().clone();
        let at = at.index(wire.len());
        *wire.get_mut(at).unwrap() = byte;
        walk(&wire);
    }
}
