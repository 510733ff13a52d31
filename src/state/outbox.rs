//! The outbox on disk: records in blocks, a log for each store.
//!
//! ```text
//!  block   number of the first record u64 | of the last u64 | length u32 | record | length u32 | …
//! ```
//!
//! A block holds consecutive records of one store. Which blocks there are, and where, is kept in memory.
//!
//! Invariant: a commit ends its blocks, so each lies as a whole before or behind
//! `Progress::outbox_end`. Those behind were written ahead of a commit that never came. Replay may
//! cut blocks elsewhere, so they are forgotten before anything new is written; a block that begins
//! where another one was takes its place, also when the log is read again.

use super::log::{At, Draft, Log, Unsynced, read};
use super::{Progress, StateError};
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use walview_core::outbox::Record;

/// A block that has grown to this is written; a larger record is a block of its own.
const BLOCK_BYTES: usize = 256 << 10;
/// Records taken from the outbox in one read.
const PAGE_BYTES: usize = 4 << 20;

/// The outbox as writers see it, from any thread.
#[derive(Clone)]
pub struct Outbox {
    folder: Arc<PathBuf>,
    stores: Arc<Mutex<Vec<Blocks>>>,
}

/// Of one store.
struct Blocks {
    log: Log,
    /// In the order of numbers, without gaps.
    blocks: VecDeque<Block>,
    /// Something was appended since the log was synced.
    dirty: bool,
    /// Of the log.
    bytes: Arc<AtomicU64>,
}

#[derive(Clone, Copy)]
struct Block {
    first: u64,
    last: u64,
    at: At,
}

impl Outbox {
    /// Opens the logs in `folder`, of which `progress` says where they end.
    ///
    /// # Errors
    /// They cannot be read, or lack records.
    pub(super) fn open(folder: &Path, progress: &Progress) -> Result<Self, StateError> {
        let outbox = Self { folder: Arc::new(folder.to_owned()), stores: Arc::default() };
        {
            let mut stores = lock(&outbox.stores);
            for store in 0..progress.outbox_end.len() {
                stores.push(Blocks::open(&outbox.folder_of(store)).map_err(unreadable)?);
            }
        }
        outbox.rewind(progress)?;
        Ok(outbox)
    }

    fn folder_of(&self, store: usize) -> PathBuf {
        self.folder.join(store.to_string())
    }

    /// Records of `store` in `from..end`, at most one page of bytes and what a block holds beyond.
    ///
    /// # Errors
    /// The store cannot be read, or a record cannot be decoded.
    pub fn read(&self, store: usize, from: u64, end: u64) -> Result<Vec<Record>, StateError> {
        let mut records = Vec::new();
        for (block, file) in self.page(store, from, end).map_err(unreadable)? {
            let bytes = read(&file, block.at).map_err(unreadable)?;
            let mut frames = bytes.get(16..).ok_or_else(damaged)?;
            for seq in block.first..=block.last {
                let record = next_frame(&mut frames)?;
                if (from..end).contains(&seq) {
                    let record = Record::decode(record).map_err(unreadable)?;
                    records.push(Some(record).filter(|r| r.seq == seq).ok_or_else(damaged)?);
                }
            }
        }
        Ok(records)
    }

    /// The blocks to be read, with their files: what is pruned meanwhile can still be read.
    fn page(&self, store: usize, from: u64, end: u64) -> io::Result<Vec<(Block, Arc<File>)>> {
        let stores = lock(&self.stores);
        let Some(Blocks { log, blocks, .. }) = stores.get(store).filter(|_| from < end) else {
            return Ok(Vec::new());
        };
        let (mut bytes, mut opened) = (0, None::<(u64, Arc<File>)>);
        let begin = blocks.partition_point(|block| block.last < from);
        let page = blocks.range(begin..).take_while(|block| {
            let room = bytes < PAGE_BYTES;
            bytes += block.at.bytes as usize;
            room && block.first < end
        });
        page.map(|block| {
            let file = match &opened {
                Some((segment, file)) if *segment == block.at.segment => Arc::clone(file),
                _ => log.open_at(block.at)?,
            };
            opened = Some((block.at.segment, Arc::clone(&file)));
            Ok((*block, file))
        })
        .collect()
    }

    /// The sequence number of the oldest record of `store` before `end`; `end` where none is kept.
    #[must_use]
    pub fn first(&self, store: usize, end: u64) -> u64 {
        let stores = lock(&self.stores);
        let oldest = stores.get(store).and_then(|blocks| blocks.blocks.front());
        oldest.map_or(end, |block| block.first.min(end))
    }

    /// Removes the blocks of `store` whose records are all before `to`: a block that reaches further
    /// waits for the next time.
    ///
    /// # Errors
    /// A file cannot be removed.
    pub fn prune(&self, store: usize, to: u64) -> Result<(), StateError> {
        let mut stores = lock(&self.stores);
        let Some(Blocks { log, blocks, .. }) = stores.get_mut(store) else { return Ok(()) };
        while blocks.front().is_some_and(|block| block.last < to) {
            blocks.pop_front();
        }
        let needed = blocks.front().map_or(log.last(), |block| block.at.segment);
        log.remove_before(needed).map_err(|source| StateError {
            message: "cannot prune the outbox".to_owned(),
            source: Some(Box::new(source)),
        })
    }

    /// Forgets what lies behind `progress`.
    pub(super) fn rewind(&self, progress: &Progress) -> Result<(), StateError> {
        let mut stores = lock(&self.stores);
        for (store, blocks) in stores.iter_mut().enumerate() {
            let end = progress.outbox_end.get(store).copied().unwrap_or(0);
            forget_from(&mut blocks.blocks, end);
            if blocks.blocks.back().is_some_and(|last| last.last + 1 != end) {
                return Err(damaged());
            }
        }
        Ok(())
    }

    /// Removes everything.
    pub(super) fn reset(&self) -> io::Result<()> {
        lock(&self.stores).clear();
        match std::fs::remove_dir_all(&*self.folder) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Appends `records` (with their store) in blocks.
    pub(super) fn append<'a>(
        &self,
        records: impl Iterator<Item = (usize, &'a Record)>,
    ) -> io::Result<()> {
        let mut open: Vec<OpenBlock> = Vec::new();
        for (store, record) in records {
            if open.len() <= store {
                open.resize_with(store + 1, OpenBlock::default);
            }
            let Some(block) = open.get_mut(store) else { continue };
            block.push(record)?;
            if block.draft.payload_bytes() >= BLOCK_BYTES {
                self.write(store, std::mem::take(block))?;
            }
        }
        for (store, block) in open.into_iter().enumerate() {
            if !block.draft.is_empty() {
                self.write(store, block)?;
            }
        }
        Ok(())
    }

    fn write(&self, store: usize, block: OpenBlock) -> io::Result<()> {
        let (first, last) = (block.first, block.last);
        let mut stores = lock(&self.stores);
        while stores.len() <= store {
            let blocks = Blocks::open(&self.folder_of(stores.len()))?;
            stores.push(blocks);
        }
        let Some(blocks) = stores.get_mut(store) else { return Ok(()) };
        if blocks.log.is_full() {
            blocks.log.roll()?;
        }
        let at = blocks.log.append(block.close())?;
        blocks.dirty = true;
        add(&mut blocks.blocks, Block { first, last, at });
        Ok(())
    }

    /// Makes durable what was appended.
    pub(super) fn sync(&self) -> io::Result<()> {
        let appended: Vec<Unsynced> = lock(&self.stores)
            .iter_mut()
            .filter_map(|blocks| std::mem::take(&mut blocks.dirty).then(|| blocks.log.unsynced()))
            .collect();
        appended.iter().try_for_each(Unsynced::sync)
    }

    /// On disk.
    pub(super) fn bytes(&self) -> u64 {
        lock(&self.stores).iter().map(|blocks| blocks.bytes.load(Ordering::Relaxed)).sum()
    }
}

impl Blocks {
    fn open(folder: &Path) -> io::Result<Self> {
        let mut found = VecDeque::new();
        let log = Log::open(folder, false, |at, block| {
            let numbers = block.first_chunk::<16>().map(|numbers| numbers.split_at(8));
            let numbers = numbers.and_then(|(first, last)| {
                Some((
                    u64::from_be_bytes(*first.first_chunk()?),
                    u64::from_be_bytes(*last.first_chunk()?),
                ))
            });
            let (first, last) = numbers.ok_or_else(|| io::Error::other(damaged()))?;
            add(&mut found, Block { first, last, at });
            Ok(())
        })?;
        let bytes = log.bytes();
        Ok(Self { log, blocks: found, dirty: false, bytes })
    }
}

/// A block takes the place of those that were given up.
fn add(blocks: &mut VecDeque<Block>, block: Block) {
    forget_from(blocks, block.first);
    blocks.push_back(block);
}

fn forget_from(blocks: &mut VecDeque<Block>, end: u64) {
    while blocks.back().is_some_and(|block| block.last >= end) {
        blocks.pop_back();
    }
}

/// A block that is being filled.
struct OpenBlock {
    draft: Draft,
    first: u64,
    last: u64,
}

impl Default for OpenBlock {
    fn default() -> Self {
        Self { draft: Draft::new(0), first: 0, last: 0 }
    }
}

impl OpenBlock {
    fn push(&mut self, record: &Record) -> io::Result<()> {
        let is_first = self.draft.is_empty();
        let out = &mut self.draft.0;
        if is_first {
            self.first = record.seq;
            out.extend_from_slice(&record.seq.to_be_bytes());
            out.extend_from_slice(&[0; 8]);
        }
        let at = out.len();
        out.extend_from_slice(&[0; 4]);
        record.encode(out);
        let length = u32::try_from(out.len() - at - 4).map_err(io::Error::other)?;
        if let Some(place) = out.get_mut(at..at + 4) {
            place.copy_from_slice(&length.to_be_bytes());
        }
        self.last = record.seq;
        Ok(())
    }

    /// The block, as it is written.
    fn close(mut self) -> Draft {
        if let Some((_, last)) = self.draft.payload_mut().split_first_chunk_mut::<8>()
            && let Some(last) = last.first_chunk_mut()
        {
            *last = self.last.to_be_bytes();
        }
        self.draft
    }
}

/// Takes the first record's bytes from the frames.
fn next_frame<'a>(frames: &mut &'a [u8]) -> Result<&'a [u8], StateError> {
    let (length, rest) = frames.split_first_chunk().ok_or_else(damaged)?;
    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
    let (record, rest) = rest.split_at_checked(length).ok_or_else(damaged)?;
    *frames = rest;
    Ok(record)
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What they guard is whole after every step.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn damaged() -> StateError {
    StateError { message: "the outbox is damaged".to_owned(), source: None }
}

fn unreadable(source: impl std::error::Error + Send + Sync + 'static) -> StateError {
    StateError { message: "cannot read the outbox".to_owned(), source: Some(Box::new(source)) }
}
