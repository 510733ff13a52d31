#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and takes its seed back from outside"
)]

use super::*;
use rand::{RngExt, SeedableRng};
use walview_core::catalog::Catalog;
use walview_core::engine::MemoryState;
use walview_core::position::{Lsn, Position};

/// The store against the model: the same random writes, reads and scans give the same answers,
/// across spills, commits, also while they are on their way, and reopening.
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
            50 | 150 | 240 => {
                store.begin_commit(std::iter::empty(), &Progress::default(), || {}).unwrap();
            }
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

fn record(seq: u64, bytes: usize) -> Record {
    Record {
        seq,
        to: Position { epoch: 1, lsn: Lsn(10 + seq), ordinal: 1 },
        complete: Lsn(10 + seq),
        committed_at: 5,
        ends: true,
        ops: vec![1; bytes].into(),
    }
}

fn identity() -> Identity {
    Identity {
        format: Identity::current_format(),
        pipeline: "p".to_owned(),
        definition: String::new(),
        catalog: Catalog::default(),
        system_identifier: "1".to_owned(),
        timeline: 1,
        database_oid: 5,
        slot: "s".to_owned(),
        epoch: 1,
        stores: vec!["redis".to_owned()],
        live: false,
        adopted: Vec::new(),
    }
}

/// What was there before a reset never comes back, and what is written after it stays.
#[test]
fn a_reset_store_is_empty_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = LocalStore::open(folder.path()).unwrap();
    let progress = Progress { outbox_end: vec![1], ..Progress::default() };
    for round in 0..3_u8 {
        store.reset(&identity()).unwrap();
        assert_eq!(store.identity().unwrap(), Some(identity()));
        for space in Space::ALL {
            assert!(store.scan(space, b"", None, 10).unwrap().is_empty());
            store.put(space, &[round], b"value");
        }
        store.commit([(0, &record(0, 30))].into_iter(), &progress).unwrap();
        if round == 1 {
            drop(store);
            store = LocalStore::open(folder.path()).unwrap();
        }
        for space in Space::ALL {
            let page = store.scan(space, b"", None, 10).unwrap();
            assert_eq!(page, [(vec![round], b"value".to_vec())]);
        }
        assert_eq!(store.outbox().read(0, 0, 1).unwrap(), [record(0, 30)]);
    }
}

/// The outbox against a model of numbers: commits, writes ahead and prunes of any size, given up or
/// lost with the process at any time. What is read is what was committed, once and in order.
#[test]
fn what_was_written_ahead_and_given_up_is_never_read() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(7_u64);
    println!("SEED={seed}");
    let mut rng = rand::rngs::StdRng::seed_from_u64(seed);
    let folder = tempfile::tempdir().unwrap();
    let mut store = LocalStore::open(folder.path()).unwrap();
    // By store: pruned before, committed before, written before; and sizes by number.
    let mut at = [(0_u64, 0_u64, 0_u64); 2];
    let mut sizes: [Vec<usize>; 2] = Default::default();
    for _ in 0..2500 {
        let action = rng.random_range(0..10);
        let mut records = Vec::new();
        for (index, (_, committed, written)) in at.iter_mut().enumerate() {
            if action >= 7 {
                continue;
            }
            for _ in 0..rng.random_range(0..6) {
                // Another size than the last time, so that whatever is left of it shows.
                let limit = if rng.random_bool(0.1) { 300_000 } else { 3000 };
                let size = rng.random_range(0..limit);
                sizes[index].truncate(usize::try_from(*written).unwrap());
                sizes[index].push(size);
                records.push((index, record(*written, size)));
                *written += 1;
            }
            if action < 4 {
                *committed = *written;
            }
        }
        let given = records.iter().map(|(index, record)| (*index, record));
        let progress =
            Progress { outbox_end: at.iter().map(|at| at.1).collect(), ..Progress::default() };
        match action {
            0..4 => store.begin_commit(given, &progress, || {}).unwrap(),
            4..7 => store.write_ahead(given).unwrap(),
            7 => {
                store.finish_commit().unwrap();
                for (index, (pruned, committed, _)) in at.iter_mut().enumerate() {
                    let to = rng.random_range(*pruned..=*committed);
                    store.outbox().prune(index, to).unwrap();
                    *pruned = to;
                }
            }
            _ => {
                if action == 8 {
                    store.discard().unwrap();
                } else {
                    drop(store);
                    store = LocalStore::open(folder.path()).unwrap();
                }
                at.iter_mut().for_each(|at| at.2 = at.1);
            }
        }
        if rng.random_bool(0.5) {
            // The commit may still be on its way.
            continue;
        }
        store.finish_commit().unwrap();
        for (index, (pruned, committed, _)) in at.into_iter().enumerate() {
            let outbox = store.outbox();
            assert!(outbox.first(index, committed) <= pruned);
            let mut next = rng.random_range(pruned..=committed);
            while next < committed {
                let page = outbox.read(index, next, committed).unwrap();
                assert!(!page.is_empty());
                for read in page {
                    let size = sizes[index][usize::try_from(next).unwrap()];
                    assert_eq!((read.seq, read.ops.len()), (next, size));
                    next += 1;
                }
            }
        }
    }
}

#[test]
fn outbox_keeps_what_was_committed() {
    let folder = tempfile::tempdir().unwrap();
    let records: Vec<Record> = (0..5).map(|seq| record(seq, 3)).collect();
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
    assert_eq!(outbox.read(0, 2, 4).unwrap(), records[2..4]);
    assert_eq!(outbox.read(1, 1, 2).unwrap(), records[1..2]);
    assert_eq!(outbox.read(0, 5, 5).unwrap(), []);
    // A block goes as a whole, and not before its last record does.
    outbox.prune(0, 4).unwrap();
    assert_eq!((outbox.first(0, 5), outbox.first(1, 2)), (0, 0));
    outbox.prune(0, 5).unwrap();
    assert_eq!((outbox.first(0, 5), outbox.first(1, 2)), (5, 0));
    assert_eq!(outbox.first(2, 0), 0);
}

#[test]
fn a_folder_in_use_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let _first = LocalStore::open(folder.path()).unwrap();
    let error = LocalStore::open(folder.path()).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("in use by another walview"), "{error}");
}

/// A folder of formats 1 to 4 is told from a new one, and reset like any other.
#[test]
fn an_older_format_is_refused_until_it_is_rebuilt() {
    let folder = tempfile::tempdir().unwrap();
    {
        let db = Database::builder(folder.path()).open().unwrap();
        for name in [OLD_KEYSPACE, "rows", "outbox"] {
            let old = db.keyspace(name, fjall::KeyspaceCreateOptions::default).unwrap();
            old.insert("k", "old").unwrap();
            old.insert("identity", r#"{"format": 4, "epoch": 7, "pipeline": "p"}"#).unwrap();
        }
    }
    let mut store = LocalStore::open(folder.path()).unwrap();
    let error = store.identity().unwrap_err();
    assert!(
        error
            .to_string()
            .contains("the version that wrote it, or fill everything anew with: walview rebuild"),
        "{error}"
    );
    assert_eq!(store.former_epoch().unwrap(), Some(7));
    store.reset(&identity()).unwrap();
    drop(store);
    let store = LocalStore::open(folder.path()).unwrap();
    assert_eq!(store.identity().unwrap(), Some(identity()));
    assert_eq!(store.former_epoch().unwrap(), Some(1));
    assert_eq!(store.get(Space::Rows, b"k").unwrap(), None);
}

/// What a power cut leaves of the journal, at any byte: a commit is there as a whole or not at all,
/// and with all that came before it.
#[test]
fn a_torn_journal_ends_with_a_whole_commit() {
    let folder = tempfile::tempdir().unwrap();
    let journal = folder.path().join("journal").join("1.log");
    let mut ends = vec![0];
    {
        let mut store = LocalStore::open(folder.path()).unwrap();
        for n in 1..=4_u8 {
            for space in Space::ALL {
                store.put(space, b"key", &[n]);
                store.put(space, &[n], b"here");
                store.delete(space, &[n - 1]);
            }
            let progress =
                Progress { confirmed: n.into(), outbox_end: vec![n.into()], ..Progress::default() };
            store.commit([(0, &record(u64::from(n) - 1, 9))].into_iter(), &progress).unwrap();
            ends.push(usize::try_from(std::fs::metadata(&journal).unwrap().len()).unwrap());
        }
    }
    let whole = std::fs::read(&journal).unwrap();
    for end in (0..whole.len()).step_by(7).chain(ends.iter().copied()) {
        std::fs::write(&journal, &whole[..end]).unwrap();
        let store = LocalStore::open(folder.path()).unwrap();
        let commits = ends.partition_point(|at| *at <= end) - 1;
        let last = u8::try_from(commits).unwrap();
        let progress = store.progress().unwrap();
        assert_eq!(progress.confirmed, u64::from(last), "{end}");
        assert_eq!(store.outbox().read(0, 0, 9).unwrap().len(), commits);
        for space in Space::ALL {
            let expected = (last > 0).then(|| vec![last]);
            assert_eq!(store.get(space, b"key").unwrap(), expected);
            assert_eq!(store.scan(space, b"", None, 9).unwrap().len(), 2 * usize::from(last > 0));
        }
    }
}

/// Positions that say of records that no log has are damage, not an empty outbox.
#[test]
fn an_outbox_that_lacks_records_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let progress = Progress { outbox_end: vec![2], ..Progress::default() };
    {
        let mut store = LocalStore::open(folder.path()).unwrap();
        let records = [record(0, 9), record(1, 9)];
        store
            .commit(
                records[..1].iter().map(|r| (0, r)),
                &Progress { outbox_end: vec![1], ..Progress::default() },
            )
            .unwrap();
        store.commit(records[1..].iter().map(|r| (0, r)), &progress).unwrap();
    }
    let log = folder.path().join("outbox/0/1.log");
    let whole = std::fs::read(&log).unwrap();
    std::fs::write(&log, &whole[..whole.len() - 1]).unwrap();
    let error = LocalStore::open(folder.path()).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("outbox"), "{error}");
}

/// Much more than a flush, written over and over by small and large commits, in tables and pending,
/// read while it is flushed, frozen, and opened again.
#[test]
fn flushes_change_nothing_that_is_read() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(7_u64);
    println!("SEED={seed}");
    let mut rng = rand::rngs::StdRng::seed_from_u64(seed);
    let folder = tempfile::tempdir().unwrap();
    let mut store = LocalStore::open(folder.path()).unwrap();
    let mut model = MemoryState::default();
    let mut frozen: Option<(Frozen, MemoryState)> = None;
    let mut in_tables = false;
    for round in 0..60_u64 {
        for _ in 0..rng.random_range(0..3000) {
            let space = Space::ALL[rng.random_range(0..2)];
            let key = rng.random_range(0..20_000_u32).to_be_bytes();
            if rng.random_bool(0.2) {
                store.delete(space, &key);
                model.delete(space, &key);
            } else {
                let value = vec![rng.random::<u8>(); rng.random_range(0..900)];
                store.put(space, &key, &value);
                model.put(space, &key, &value);
            }
        }
        let progress = Progress { confirmed: round, ..Progress::default() };
        match rng.random_range(0..6) {
            0 => store.spill().unwrap(),
            1 => {
                store.commit(std::iter::empty(), &progress).unwrap();
                frozen = None;
                drop(store);
                store = LocalStore::open(folder.path()).unwrap();
            }
            2 => {
                store.commit(std::iter::empty(), &progress).unwrap();
                frozen = Some((store.freezer().freeze().unwrap(), model.clone()));
            }
            _ => store.begin_commit(std::iter::empty(), &progress, || {}).unwrap(),
        }
        in_tables |= store.spaces[0].1.table_count() > 0;
        for _ in 0..200 {
            let key = rng.random_range(0..20_000_u32).to_be_bytes();
            for space in Space::ALL.into_iter().take(2) {
                let expected = model.get(space, &key).unwrap();
                assert_eq!(store.get(space, &key).unwrap(), expected, "round {round}");
                if let Some((frozen, model)) = &frozen {
                    let expected = model.get(space, &key).unwrap();
                    assert_eq!(frozen.get(space, &key).unwrap(), expected, "round {round}, frozen");
                }
            }
            let page = store.scan(Space::Rows, &key[..3], Some(&key), 5).unwrap();
            assert_eq!(page, model.scan(Space::Rows, &key[..3], Some(&key), 5).unwrap());
        }
    }
    assert!(in_tables);
    store.commit(std::iter::empty(), &Progress::default()).unwrap();
    assert_eq!(
        store.scan(Space::Rows, b"", None, usize::MAX).unwrap(),
        model.scan(Space::Rows, b"", None, usize::MAX).unwrap(),
    );
    let journal = std::fs::read_dir(folder.path().join("journal")).unwrap().count();
    assert!(journal <= 4, "{journal} segments");
}

/// Nothing but positions, again and again, with a run from long ago that was never large enough.
#[test]
fn a_journal_of_positions_does_not_grow() {
    let folder = tempfile::tempdir().unwrap();
    let mut store = LocalStore::open(folder.path()).unwrap();
    store.put(Space::Rows, b"k", b"old");
    let stopped = vec![Some("x".repeat(1 << 20))];
    for confirmed in 0..200 {
        let progress = Progress { confirmed, stopped: stopped.clone(), ..Progress::default() };
        store.commit(std::iter::empty(), &progress).unwrap();
        let bytes = store.journal_bytes.load(Ordering::Relaxed);
        assert!(bytes <= JOURNAL_BYTES_MAX + (4 << 20), "{bytes} bytes");
    }
    drop(store);
    let store = LocalStore::open(folder.path()).unwrap();
    assert_eq!(store.progress().unwrap().confirmed, 199);
    assert_eq!(store.get(Space::Rows, b"k").unwrap().as_deref(), Some(&b"old"[..]));
}
