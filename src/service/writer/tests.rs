//! The writer and its feed against a store that fails by a script, and a model that knows only the
//! order of what was emitted. Which transactions share a record is another choice in each session.
//!
//! ```text
//!  producer ─ push · commit · prune · rewind ─► feed ─► writer ─► store: a script of faults
//!     └────────────── "killed": everything but local store and server made anew ──┘
//! ```
//!
//! At the end the server has everything, once, in order, whatever it answered meanwhile.
//! `SEED=…` takes a printed seed back.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and takes its seed back from outside"
)]

use super::super::board::StoreStatus;
use super::*;
use crate::state::{LocalStore, Progress};
use crate::stores::{Cause, Mark};
use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use std::path::Path;
use std::sync::Mutex;
use tokio::task::JoinSet;
use walview_core::engine::{Engine, Layout, RefillPage};
use walview_core::position::Lsn;

const TRANSACTIONS: u64 = 300;
const LIMIT: Duration = Duration::from_secs(60);
/// The store's persistence window: it never goes back further.
const WINDOW: Duration = Duration::from_secs(10);
/// The target that breaks in some scripts.
const BROKEN: u16 = 1;

/// What happens to one batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Fine,
    /// Nothing arrives.
    FailBefore,
    /// All arrives, the reply is lost.
    FailAfter,
    /// Data without the mark, as where they are two writes.
    FailBetween,
    /// The server comes back as it was some batches ago.
    GoBack,
    /// Somebody touched the mark, which is where it was.
    MarkMoved,
    /// Somebody removed the mark and nothing else.
    LoseMark,
    /// A target cannot take its part from now on, and the reply may be lost.
    Break,
    Slow,
}

/// What survives the writer.
#[derive(Default)]
struct Server {
    mark: Option<Mark>,
    /// Pieces in the order in which they came to be there, and up to where.
    held: Vec<u64>,
    held_to: Option<Position>,
    refills: usize,
    /// Of the broken target's pieces those that others went on without.
    refused: BTreeSet<u64>,
    broken: bool,
    /// The end of a batch whose answer named the broken target, and was lost.
    owed: Option<Position>,
    /// Earlier contents, to go back to.
    past: Vec<(Option<Mark>, usize)>,
    fates: Vec<Fate>,
    calls: usize,
}

struct Scripted {
    server: Arc<Mutex<Server>>,
    stopped: BTreeSet<u16>,
}

fn identity() -> Identity {
    Identity { pipeline: "test".to_owned(), system: 7, slot: "walview_test".to_owned() }
}

/// Numbers and targets of the pieces that a record holds.
fn pieces(record: &Record) -> Vec<(u64, u16)> {
    let (count, rest) = record.ops.split_first().unwrap();
    let pieces = rest.chunks(9).take(usize::from(*count));
    pieces
        .map(|piece| (piece[1..].iter().fold(0, |n, b| n << 8 | u64::from(*b)), piece[0].into()))
        .collect()
}

/// One record of all that `merged` hold.
fn merged(seq: u64, merged: &[Arc<Record>]) -> Arc<Record> {
    let count = merged.iter().map(|record| record.ops[0]).sum();
    let pieces = merged.iter().flat_map(|record| &record.ops[1..10]).copied();
    let rest = merged.iter().flat_map(|record| &record.ops[10..]).copied();
    let ops: Vec<u8> = std::iter::once(count).chain(pieces).chain(rest).collect();
    Arc::new(Record { seq, ops: ops.into(), ..(**merged.last().unwrap()).clone() })
}

impl Server {
    /// Writes what is not there yet; `Err` names the broken target's part.
    fn write(&mut self, batch: &Batch, stopped: &BTreeSet<u16>) -> Result<(), StoreError> {
        let mut faults = Vec::new();
        for record in &batch.records {
            let known = |(piece, _): &(u64, u16)| self.held.contains(piece);
            let (all, known) =
                (pieces(record).len(), pieces(record).iter().filter(|p| known(p)).count());
            let stands_inside = known > 0 && known < all;
            assert!(self.broken || !stands_inside, "{known} of {all} that were merged are there");
            for (piece, target) in pieces(record) {
                let out = stopped.contains(&target);
                if out || self.broken && target == BROKEN {
                    if !self.held.contains(&piece) {
                        self.refused.insert(piece);
                    }
                    if out {
                        continue;
                    }
                    let (message, remedy) = ("broken".to_owned(), "mend it".to_owned());
                    faults = vec![Fault { target, message, remedy }];
                } else if !self.held.contains(&piece) {
                    self.held.push(piece);
                    self.held_to = Some(record.to);
                }
            }
        }
        if faults.is_empty() { Ok(()) } else { Err(StoreError::StopView(faults)) }
    }

    fn apply(&mut self, batch: &Batch, stopped: &BTreeSet<u16>) -> Result<(), StoreError> {
        let (from, to) = (identity().mark(batch.from), identity().mark(batch.to));
        assert!(batch.from < batch.to, "a batch without a range");
        assert!(batch.records.windows(2).all(|pair| pair[0].seq + 1 == pair[1].seq), "a gap");
        assert_eq!(batch.records.last().unwrap().to, batch.to);
        if self.mark.as_ref() != Some(&from) && self.mark.as_ref() != Some(&to) {
            return Err(StoreError::MarkMoved { found: self.mark.clone() });
        }
        if let Some(owed) = self.owed.take() {
            assert_eq!(batch.to, owed, "a fault whose news was lost is not asked for again");
        }
        let fate = self.fates.get(self.calls).copied().unwrap_or(Fate::Fine);
        self.calls += 1;
        let lost = || StoreError::Retry { message: "no answer".to_owned(), cause: None::<Cause> };
        match fate {
            Fate::FailBefore => return Err(lost()),
            Fate::MarkMoved => return Err(StoreError::MarkMoved { found: self.mark.clone() }),
            Fate::LoseMark => {
                self.mark = None;
                return Err(StoreError::MarkMoved { found: None });
            }
            Fate::GoBack => {
                let back = self.past.len().saturating_sub(4);
                if let Some((mark, held)) = self.past.get(back).cloned() {
                    self.mark = mark;
                    self.held.truncate(held);
                    // Not asked for: such a server has its mark.
                    self.held_to = None;
                    self.past.truncate(back);
                }
                return Err(lost());
            }
            Fate::FailBetween => {
                self.write(batch, stopped).ok();
                return Err(lost());
            }
            Fate::Break => self.broken = true,
            Fate::Fine | Fate::FailAfter | Fate::Slow => {}
        }
        self.past.push((self.mark.clone(), self.held.len()));
        let written = self.write(batch, stopped);
        self.mark = Some(to);
        // Every other time the news of the broken target is lost with the reply.
        if fate == Fate::FailAfter || fate == Fate::Break && self.calls.is_multiple_of(2) {
            self.owed = written.is_err().then_some(batch.to);
            return Err(lost());
        }
        written
    }
}

impl Store for Scripted {
    async fn connect(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    async fn mark(&mut self) -> Result<Option<Mark>, StoreError> {
        Ok(self.server.lock().unwrap().mark.clone())
    }

    async fn reset(&mut self) -> Result<(), StoreError> {
        panic!("a writer does not reset")
    }

    fn load_bytes(&self) -> usize {
        panic!("a writer does not load")
    }

    async fn load(&mut self, _parts: &[Bytes]) -> Result<(), StoreError> {
        panic!("a writer does not load")
    }

    async fn set_mark(&mut self, position: Position) -> Result<(), StoreError> {
        let mut server = self.server.lock().unwrap();
        assert!(server.mark.is_none(), "a mark is set without a refill");
        server.mark = Some(identity().mark(position));
        server.past.clear();
        Ok(())
    }

    fn expect_rows(&mut self, _targets: BTreeSet<u16>) {}

    fn refills(&self) -> bool {
        true
    }

    async fn remains(&mut self) -> Result<Option<Position>, StoreError> {
        Ok(self.server.lock().unwrap().held_to)
    }

    async fn begin_refill(
        &mut self,
        to: Position,
        _left_out: &BTreeSet<u16>,
    ) -> Result<(), StoreError> {
        let mut server = self.server.lock().unwrap();
        assert!(server.held_to.is_none_or(|held| held <= to), "what is there would come again");
        server.refills += 1;
        Ok(())
    }

    async fn refill(&mut self, _page: &RefillPage) -> Result<(), StoreError> {
        Ok(())
    }

    async fn apply(&mut self, batch: &Batch) -> Result<(), StoreError> {
        let slow = {
            let server = self.server.lock().unwrap();
            server.fates.get(server.calls) == Some(&Fate::Slow)
        };
        if slow {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.server.lock().unwrap().apply(batch, &self.stopped)
    }

    async fn fresh(&mut self, _as_of: i64, _lsn: Lsn) -> Result<(), StoreError> {
        Ok(())
    }

    fn stop_targets(&mut self, stopped: BTreeSet<u16>) {
        self.stopped = stopped;
    }
}

/// What all transactions emit, each piece in a record of its own; its number is that of its piece.
fn records(random: &mut StdRng) -> Vec<Arc<Record>> {
    let mut records = Vec::new();
    for lsn in 1..=TRANSACTIONS {
        let parts = if random.random_bool(0.1) { 4 } else { 1 };
        for part in 1..=parts {
            let ends = part == parts;
            let ordinal = Position { epoch: 1, lsn: Lsn(lsn), ordinal: part };
            let to = if ends { Position::end_of(1, Lsn(lsn)) } else { ordinal };
            let target = u8::from(random.random_bool(0.5));
            let bytes = if random.random_bool(0.02) { 3 << 20 } else { 40 };
            let seq = records.len() as u64;
            let ops = [vec![1, target], seq.to_be_bytes().to_vec(), vec![0; bytes]].concat().into();
            let complete = to.lsn;
            records.push(Arc::new(Record { seq, to, complete, committed_at: 0, ends, ops }));
        }
    }
    records
}

fn fates(random: &mut StdRng, breaks: bool) -> Vec<Fate> {
    let mut fates: Vec<Fate> = (0..40)
        .map(|_| match random.random_range(0..10) {
            0 => Fate::FailBefore,
            1 | 2 => Fate::FailAfter,
            3 => Fate::FailBetween,
            4 => Fate::GoBack,
            5 => Fate::MarkMoved,
            6 => Fate::Slow,
            7 => Fate::LoseMark,
            _ => Fate::Fine,
        })
        .collect();
    if breaks {
        // What went back in time could have been broken later than it is now.
        fates.retain(|fate| !matches!(fate, Fate::GoBack | Fate::LoseMark));
        let at = random.random_range(0..10);
        fates.splice(at..at, [Fate::Break, Fate::FailAfter, Fate::Break, Fate::FailAfter]);
    } else {
        // Whatever the seed says, something is filled again.
        fates.insert(random.random_range(5..15), Fate::LoseMark);
    }
    fates
}

struct Rig {
    random: StdRng,
    local: LocalStore,
    progress: Progress,
    server: Arc<Mutex<Server>>,
    durable_only: bool,
    pace: Pace,
    reported: Arc<Mutex<BTreeSet<u16>>>,
    /// How many pieces the local store has.
    durable: usize,
}

impl Rig {
    fn new(random: StdRng, folder: &Path, server: Server, durable_only: bool) -> Self {
        Self {
            random,
            local: LocalStore::open(folder).unwrap(),
            progress: Progress {
                outbox_end: vec![0],
                pruned: vec![Position::end_of(1, Lsn(0)).to_string()],
                ..Progress::default()
            },
            server: Arc::new(Mutex::new(server)),
            durable_only,
            pace: Pace { flush_every: Duration::from_millis(5), atomic_bytes_max: 32 << 20 },
            reported: Arc::default(),
            durable: 0,
        }
    }

    fn feed(&self) -> Arc<Feed> {
        let end = self.progress.outbox_end[0];
        let first = self.local.outbox().first(0, end);
        let pruned = self.progress.pruned[0].parse().ok();
        let outbox = self.local.outbox();
        Arc::new(Feed::new(
            (0, self.durable_only),
            outbox,
            (first, pruned),
            (end, 0),
            Frontier::default(),
        ))
    }

    fn writer(&self, feed: &Arc<Feed>) -> Writer<Scripted> {
        // Who was killed asks for nothing again.
        self.server.lock().unwrap().owed = None;
        let (views, stores) = (["v".to_owned()], [("s".to_owned(), "redis".to_owned())]);
        let reported = Arc::clone(&self.reported);
        let nothing = Layout { tables: Vec::new(), edges: Vec::new(), views: Vec::new() };
        Writer {
            index: 0,
            name: "s".to_owned(),
            identity: identity(),
            store: Scripted { server: Arc::clone(&self.server), stopped: BTreeSet::new() },
            feed: Arc::clone(feed),
            pace: self.pace,
            board: Arc::new(Board::new("test", "walview_test", &views, &stores)),
            refiller: Refiller {
                refill: Engine::new(nothing, Vec::new(), 1, 1).refill(0),
                freezer: self.local.freezer(),
                epoch: 1,
            },
            stands: None,
            on_fault: Arc::new(move |faults| {
                let mut reported = reported.lock().unwrap();
                reported.extend(faults.iter().map(|fault| fault.target));
                reported.clone()
            }),
        }
    }

    async fn moment(&mut self, milliseconds_max: u64) {
        let moment = Duration::from_millis(self.random.random_range(0..milliseconds_max));
        tokio::time::sleep(moment).await;
    }

    /// Records as they are pushed, of the transactions from `next` on; where they end.
    fn emit(
        &mut self,
        feed: &Feed,
        emitted: &[Arc<Record>],
        next: usize,
        seq: u64,
    ) -> (Vec<Arc<Record>>, usize) {
        let ends = emitted[next..].iter().position(|record| record.ends).unwrap();
        let mut end = next + ends + 1;
        if ends > 0 {
            let numbered = emitted[next..end].iter().zip(seq..);
            let records = numbered.map(|(record, seq)| merged(seq, std::slice::from_ref(record)));
            return (records.collect(), end);
        }
        let may_merge =
            |at: usize| emitted.get(at).is_some_and(|next| next.ends && next.ops.len() < 100);
        let before = |at: usize| &emitted[at - 1];
        let stands_before = |at: usize| {
            self.durable_only || feed.reached().is_some_and(|reached| reached < before(at).to)
        };
        while may_merge(end)
            && before(end).ends
            && stands_before(end)
            && end - next < 20
            && self.random.random_bool(0.6)
        {
            end += 1;
        }
        (vec![merged(seq, &emitted[next..end])], end)
    }

    fn commit(&mut self, feed: &Feed, pending: &mut Vec<Arc<Record>>, next: usize) {
        let end = pending.last().map_or(self.progress.outbox_end[0], |last| last.seq + 1);
        self.durable = next;
        if let Some(last) = pending.last() {
            self.progress.commit_lsn = last.to.lsn.0;
        }
        let prunable = feed.prunable(WINDOW);
        if let Some(position) = feed.pruned_to() {
            self.progress.pruned[0] = position.to_string();
        }
        self.progress.outbox_end[0] = end;
        let records = pending.iter().map(|record| (0, &**record));
        self.local.commit(records, &self.progress).unwrap();
        pending.clear();
        feed.committed(feed.pushed());
        if let Some(before) = prunable {
            self.local.outbox().prune(0, before).unwrap();
        }
    }

    /// One life of the process, from the last local commit on. `true` once all is in the server.
    async fn live(&mut self, records: &[Arc<Record>]) -> bool {
        let feed = self.feed();
        let (stop, stopping) = watch::channel(false);
        let mut writing = JoinSet::new();
        writing.spawn(self.writer(&feed).run(stopping));
        let mut pending = Vec::new();
        let (mut next, mut seq) = (self.durable, self.progress.outbox_end[0]);
        // The writer may find the server further than what is replayed by then.
        self.moment(20).await;
        while next < records.len() {
            match self.random.random_range(0..100) {
                0..45 => {
                    let (emitted, end) = self.emit(&feed, records, next, seq);
                    seq += emitted.len() as u64;
                    pending.extend(emitted.iter().cloned());
                    feed.push(emitted, Frontier::default());
                    next = end;
                }
                45..60 => self.commit(&feed, &mut pending, next),
                60..96 => {
                    tokio::time::sleep(Duration::from_millis(self.random.random_range(0..30)))
                        .await;
                }
                // The source's session is lost: what was not committed is pushed again.
                96..98 => {
                    (next, seq) = (self.durable, self.progress.outbox_end[0]);
                    feed.rewind(seq);
                    pending.clear();
                    self.moment(150).await;
                }
                // Killed: dropping the set ends the writer wherever it waits.
                98 => return false,
                _ => {}
            }
        }
        self.commit(&feed, &mut pending, next);
        let last = identity().mark(records.last().unwrap().to);
        let since = Instant::now();
        while self.server.lock().unwrap().mark.as_ref() != Some(&last) {
            assert!(since.elapsed() < LIMIT, "the server never got all");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        // A reply that was lost is asked for again before the writer ends.
        stop.send_replace(true);
        writing.join_next().await.unwrap().unwrap().unwrap();
        true
    }
}

async fn everything_once(durable_only: bool, breaks: bool) {
    let given = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| rand::rng().random_range(0..1_000_000_u64));
    println!("SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    let folder = tempfile::tempdir().unwrap();
    let records = records(&mut random);
    let mut fates = fates(&mut random, breaks);
    // What is fed from memory has data and mark in one write.
    fates.retain(|fate| durable_only || *fate != Fate::FailBetween);
    let server = Server {
        mark: Some(identity().mark(Position::end_of(1, Lsn(0)))),
        fates,
        ..Server::default()
    };
    let mut rig = Rig::new(random, folder.path(), server, durable_only);
    let mut lives = 1;
    while !rig.live(&records).await {
        lives += 1;
    }
    let server = rig.server.lock().unwrap();
    println!("{lives} lives, {} batches, {} refills", server.calls, server.refills);
    assert!(server.calls > 20, "too few batches to have met the faults");
    let expected = records.iter().map(|record| record.seq);
    let expected: Vec<u64> = expected.filter(|seq| !server.refused.contains(seq)).collect();
    assert_eq!(server.held, expected);
    if breaks {
        assert_eq!(*rig.reported.lock().unwrap(), BTreeSet::from([BROKEN]));
    } else {
        assert!(server.refused.is_empty() && server.refills > 0);
    }
}

#[tokio::test]
async fn everything_arrives_once_as_in_redis() {
    everything_once(false, false).await;
}

#[tokio::test]
async fn everything_arrives_once_as_in_clickhouse() {
    everything_once(true, false).await;
}

/// A target that breaks is reported, even where the answer that said so was lost; the others go on.
#[tokio::test]
async fn a_target_that_breaks_is_reported() {
    everything_once(false, true).await;
}

/// A store that is fed from memory may be ahead of what a new session begins with. Nothing of a replay is
/// new to it, and still it is as current as the source.
#[tokio::test]
async fn a_store_that_is_ahead_of_a_replay_is_current_after_it() {
    let mut random = StdRng::seed_from_u64(7);
    let folder = tempfile::tempdir().unwrap();
    let records = records(&mut random);
    let replayed = 1 + records.iter().skip(9).position(|record| record.ends).unwrap() + 9;
    let at = records[replayed - 1].to;
    let server = Server { mark: Some(identity().mark(at)), ..Server::default() };
    let mut rig = Rig::new(random, folder.path(), server, false);
    let feed = rig.feed();
    let writer = rig.writer(&feed);
    let board = Arc::clone(&writer.board);
    let until = async |reached: fn(&StoreStatus) -> bool| {
        let since = Instant::now();
        while !board.status().stores.iter().all(reached) {
            assert!(since.elapsed() < LIMIT, "{:?}", board.status().stores);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let (stop, stopping) = watch::channel(false);
    let mut writing = JoinSet::new();
    writing.spawn(writer.run(stopping));
    until(|store| store.state == StoreState::Live).await;
    let mut pending = records[..replayed].to_vec();
    feed.push(pending.iter().cloned(), Frontier { lsn: Lsn(1_000), at: 1 });
    until(|store| store.lsn == "0/3E8" && store.waiting == 0).await;
    assert!(rig.server.lock().unwrap().held.is_empty(), "written again");
    // It does not hold the outbox back either.
    rig.commit(&feed, &mut pending, replayed);
    assert_eq!(feed.prunable(Duration::ZERO), Some(replayed as u64));
    assert_eq!(feed.pruned_to(), Some(at));
    stop.send_replace(true);
    writing.join_next().await.unwrap().unwrap().unwrap();
}
