#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and takes its seed back from outside"
)]

use super::*;
use rand::{RngExt, SeedableRng};
use walview_core::engine::MemoryState;
use walview_core::position::Position;

/// The store against the model: the same random writes, reads and scans give the same answers,
/// across spills, commits and reopening.
#[test]
fn behaves_as_the_memory_state_does() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(7_u64);
    println!("SEED={seed}");
    let mut rng = rand::rngs::StdRng::seed_from_u64(seed);
    let folder = tempfile::tempdir().unwrap();
    let mut store = LocalStore::open(folder.path()).unwrap();
    let mut model = MemoryState::default();
    for step in 0..3000 {
        let space = Space::ALL[rng.random_range(0..Space::ALL.len())];
        let key = [rng.random_range(0..3_u8), rng.random_range(0..20_u8)];
        match rng.random_range(0..10) {
            0..5 => {
                let value = [rng.random::<u8>(); 3];
                store.put(space, &key, &value);
                model.put(space, &key, &value);
            }
            5..7 => {
                store.delete(space, &key);
                model.delete(space, &key);
            }
            7 => assert_eq!(store.get(space, &key).unwrap(), model.get(space, &key).unwrap()),
            _ => {
                let after = rng.random_bool(0.5).then_some(key);
                let after = after.as_ref().map(<[u8; 2]>::as_slice);
                let limit = rng.random_range(1..8);
                assert_eq!(
                    store.scan(space, &key[..1], after, limit).unwrap(),
                    model.scan(space, &key[..1], after, limit).unwrap(),
                );
            }
        }
        match step % 250 {
            100 => store.spill().unwrap(),
            200 => store.commit(std::iter::empty(), &Progress::default()).unwrap(),
            249 => {
                store.commit(std::iter::empty(), &Progress::default()).unwrap();
                drop(store);
                store = LocalStore::open(folder.path()).unwrap();
            }
            _ => {}
        }
    }
}

#[test]
fn outbox_keeps_what_was_committed() {
    let folder = tempfile::tempdir().unwrap();
    let record = |seq| Record {
        seq,
        to: Position { epoch: 1, lsn: Lsn(10 + seq), ordinal: 1 },
        committed_at: 5,
        ends: true,
        ops: vec![1, 2, 3].into(),
    };
    let records: Vec<Record> = (0..5).map(record).collect();
    let progress = Progress { confirmed: 77, outbox_end: vec![5, 2], ..Progress::default() };
    {
        let mut store = LocalStore::open(folder.path()).unwrap();
        let all = records.iter().map(|r| (0, r)).chain(records.iter().take(2).map(|r| (1, r)));
        store.commit(all, &progress).unwrap();
    }
    let store = LocalStore::open(folder.path()).unwrap();
    assert_eq!(store.progress().unwrap(), progress);
    let outbox = store.outbox();
    assert_eq!(outbox.read(0, 0, 5).unwrap(), records);
    assert_eq!(outbox.read(1, 1, 2).unwrap(), records[1..2]);
    outbox.prune(0, 0, 3).unwrap();
    assert_eq!((outbox.first(0, 5).unwrap(), outbox.first(1, 2).unwrap()), (3, 0));
    assert_eq!(outbox.first(2, 0).unwrap(), 0);
}

#[test]
fn a_folder_in_use_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let _first = LocalStore::open(folder.path()).unwrap();
    let error = LocalStore::open(folder.path()).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("in use by another walview"), "{error}");
}

/// A batch that fills a memtable seals it itself, whatever the workers are busy with.
#[test]
fn a_full_memtable_takes_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = LocalStore::open(folder.path()).unwrap();
    for seq in 0..20 {
        let record = Record {
            seq,
            to: Position { epoch: 1, lsn: Lsn(10 + seq), ordinal: 1 },
            committed_at: 5,
            ends: true,
            ops: vec![1; 5 << 20].into(),
        };
        store.write_ahead([(0, &record)].into_iter()).unwrap();
        let held = store.outbox.tree.active_memtable().size();
        assert!(held <= MEMTABLE_BYTES, "{held} bytes at {seq}");
    }
}
