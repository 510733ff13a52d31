//! The outbox on disk: records in blocks.
//!
//! ```text
//!  key    store u16 | number of the last record u64
//!  value  number of the first record u64 | length u32 | record | length u32 | record | …
//! ```
//!
//! A block holds consecutive records of one store. Its key names the last of them, so the first key
//! at or behind a number is that of the block that holds it.
//!
//! Invariant: a commit ends its blocks, so each lies as a whole before or behind
//! `Progress::outbox_end`. Those behind were written ahead of a commit that never came. Replay may
//! cut blocks elsewhere, so they go before anything new is written.

use super::{Progress, StateError};
use fjall::{Database, Keyspace, OwnedWriteBatch, UserValue};
use std::ops::RangeBounds;
use walview_core::outbox::Record;

/// A block that has grown to this is written; a larger record is a block of its own.
const BLOCK_BYTES: usize = 256 << 10;
/// Records taken from the outbox in one read.
const PAGE_BYTES: usize = 4 << 20;

/// The outbox as writers see it, from any thread.
#[derive(Clone)]
pub struct Outbox {
    pub(super) blocks: Keyspace,
    pub(super) db: Database,
}

impl Outbox {
    /// Records of `store` in `from..end`, at most one page of bytes and what a block holds beyond.
    ///
    /// # Errors
    /// The store cannot be read, or a record cannot be decoded.
    pub fn read(&self, store: usize, from: u64, end: u64) -> Result<Vec<Record>, StateError> {
        let (mut records, mut bytes) = (Vec::new(), 0);
        if from >= end {
            return Ok(records);
        }
        for block in self.blocks.range(key(store, from)..=key(store, u64::MAX)) {
            let block = block.value().map_err(unreadable)?;
            let (first, mut frames) = open(&block)?;
            if first >= end || bytes >= PAGE_BYTES {
                break;
            }
            for seq in first..end {
                let Some(record) = next_frame(&mut frames)? else { break };
                if seq >= from {
                    bytes += record.len();
                    let record = Record::decode(record).map_err(unreadable)?;
                    records.push(Some(record).filter(|r| r.seq == seq).ok_or_else(damaged)?);
                }
            }
        }
        Ok(records)
    }

    /// The sequence number of the oldest record of `store` before `end`; `end` where none is kept.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn first(&self, store: usize, end: u64) -> Result<u64, StateError> {
        let Some(block) = self.blocks.range(key(store, 0)..key(store, end)).next() else {
            return Ok(end);
        };
        let block = block.value().map_err(unreadable)?;
        open(&block).map(|(first, _)| first)
    }

    /// Removes the blocks of `store` that end in `from..to`: a block that reaches further waits for
    /// the next time.
    ///
    /// # Errors
    /// The store cannot be read or written.
    pub fn prune(&self, store: usize, from: u64, to: u64) -> Result<(), StateError> {
        self.remove(key(store, from)..key(store, to))
    }

    /// Removes what lies behind `progress`.
    pub(super) fn rewind(&self, progress: &Progress) -> Result<(), StateError> {
        let ends = &progress.outbox_end;
        for (store, end) in ends.iter().enumerate() {
            self.remove(key(store, *end)..=key(store, u64::MAX))?;
        }
        self.remove(key(ends.len(), 0)..)
    }

    fn remove(&self, range: impl RangeBounds<[u8; 10]>) -> Result<(), StateError> {
        let mut batch = self.db.batch();
        for block in self.blocks.range(range) {
            batch.remove(&self.blocks, block.key().map_err(unreadable)?);
        }
        batch.commit().map_err(|source| StateError {
            message: "cannot prune the outbox".to_owned(),
            source: Some(Box::new(source)),
        })
    }
}

/// Puts `records` (with their store) into `batch`, in blocks.
pub(super) fn write<'a>(
    batch: &mut OwnedWriteBatch,
    blocks: &Keyspace,
    records: impl Iterator<Item = (usize, &'a Record)>,
) -> Result<(), StateError> {
    let mut open: Vec<Block> = Vec::new();
    for (store, record) in records {
        if open.len() <= store {
            open.resize_with(store + 1, Block::default);
        }
        let Some(block) = open.get_mut(store) else { continue };
        block.push(record)?;
        if block.bytes.len() >= BLOCK_BYTES {
            batch.insert(blocks, key(store, block.last), block.take());
        }
    }
    for (store, mut block) in open.into_iter().enumerate() {
        if !block.bytes.is_empty() {
            batch.insert(blocks, key(store, block.last), block.take());
        }
    }
    Ok(())
}

/// A block that is being filled.
#[derive(Default)]
struct Block {
    bytes: Vec<u8>,
    last: u64,
    record: Vec<u8>,
}

impl Block {
    fn push(&mut self, record: &Record) -> Result<(), StateError> {
        if self.bytes.is_empty() {
            self.bytes.extend_from_slice(&record.seq.to_be_bytes());
        }
        self.record.clear();
        record.encode(&mut self.record);
        let length = u32::try_from(self.record.len()).map_err(|source| StateError {
            message: "a record is too large for the outbox".to_owned(),
            source: Some(Box::new(source)),
        })?;
        self.bytes.extend_from_slice(&length.to_be_bytes());
        self.bytes.append(&mut self.record);
        self.last = record.seq;
        Ok(())
    }

    /// What the block holds; its buffer is empty then and used again.
    fn take(&mut self) -> UserValue {
        let value = UserValue::from(self.bytes.as_slice());
        self.bytes.clear();
        value
    }
}

/// The number of the first record, and the frames.
fn open(block: &[u8]) -> Result<(u64, &[u8]), StateError> {
    let (first, frames) = block.split_first_chunk().ok_or_else(damaged)?;
    Ok((u64::from_be_bytes(*first), frames))
}

/// Takes the first record's bytes from the frames; `None` at the end.
fn next_frame<'a>(frames: &mut &'a [u8]) -> Result<Option<&'a [u8]>, StateError> {
    if frames.is_empty() {
        return Ok(None);
    }
    let (length, rest) = frames.split_first_chunk().ok_or_else(damaged)?;
    let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
    let (record, rest) = rest.split_at_checked(length).ok_or_else(damaged)?;
    *frames = rest;
    Ok(Some(record))
}

/// Big-endian, so that the numbers of one store are in order.
fn key(store: usize, seq: u64) -> [u8; 10] {
    let mut key = [0; 10];
    let (left, right) = key.split_at_mut(2);
    left.copy_from_slice(&u16::try_from(store).unwrap_or(u16::MAX).to_be_bytes());
    right.copy_from_slice(&seq.to_be_bytes());
    key
}

fn damaged() -> StateError {
    StateError { message: "a block of the outbox is damaged".to_owned(), source: None }
}

fn unreadable(source: impl std::error::Error + Send + Sync + 'static) -> StateError {
    StateError { message: "cannot read the outbox".to_owned(), source: Some(Box::new(source)) }
}
