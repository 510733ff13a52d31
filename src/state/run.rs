//! Writes of one local commit or of several, sorted and packed: in the journal as they are, and in
//! memory until they go to the tables.
//!
//! ```text
//!  run      section of each space
//!  section  entries u32 | bytes u32 | entry | entry | …                        little-endian
//!  entry    shared varint | rest varint | value varint | rest of key | value
//! ```
//!
//! A key begins with as many bytes of the one before as `shared` says; each sixteenth entry shares
//! none. `value` is its length and one, or 0 where the key was deleted.

use super::overlay::Overlay;
use fjall::Slice;
use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::ops::Bound;
use walview_core::engine::Space;
use walview_core::target::codec::{Reader, put_varint};
use xxhash_rust::xxh3::xxh3_64;

/// Entries from one that shares nothing to the next.
const RESTART: usize = 16;

/// The last write of each key; `None` is a delete.
pub(super) struct Run {
    bytes: Vec<u8>,
    sections: [Section; Space::ALL.len()],
}

#[derive(Default)]
struct Section {
    /// Of the entries, in the run's bytes.
    from: usize,
    to: usize,
    /// Where each sixteenth entry begins.
    restarts: Vec<usize>,
    filter: Filter,
}

/// A key, to be looked for in many runs.
pub(super) struct Wanted<'a> {
    key: &'a [u8],
    hash: u64,
}

impl<'a> Wanted<'a> {
    pub(super) fn new(key: &'a [u8]) -> Self {
        Self { key, hash: xxh3_64(key) }
    }
}

impl Run {
    pub(super) fn of(overlay: &Overlay) -> Self {
        let mut builder = Builder::new(overlay.bytes());
        for (_, entries) in overlay.entries() {
            builder.section(entries.len(), entries.in_order());
        }
        builder.finish()
    }

    /// What `runs` hold, of which the last is the newest.
    pub(super) fn merged(runs: &[impl AsRef<Self>]) -> Self {
        let bytes = runs.iter().map(|run| run.as_ref().bytes.len()).sum();
        let mut builder = Builder::new(bytes);
        for space in Space::ALL {
            let entries = runs.iter().map(|run| run.as_ref().len(space)).sum();
            builder.section(entries, merge(runs, space, &Bound::Unbounded));
        }
        builder.finish()
    }

    /// Reads what [`Run::bytes`] gave; `None` where it did not.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let mut builder = Builder::new(bytes.len());
        let mut rest = bytes;
        for _ in Space::ALL {
            let (entries, behind) = rest.split_first_chunk()?;
            let (length, behind) = behind.split_first_chunk()?;
            let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
            let (section, behind) = behind.split_at_checked(length)?;
            let entries = usize::try_from(u32::from_le_bytes(*entries)).ok()?;
            let mut cursor = Cursor { rest: section, key: Vec::new() };
            // A key of an entry needs three bytes at least.
            builder.begin((entries <= length).then_some(entries)?);
            for _ in 0..entries {
                let value = cursor.step()?;
                builder.push(&cursor.key, value);
            }
            builder.end();
            if !cursor.rest.is_empty() {
                return None;
            }
            rest = behind;
        }
        rest.is_empty().then(|| builder.finish())
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Of memory.
    pub(super) fn weight(&self) -> usize {
        let of = |section: &Section| (section.restarts.len() + section.filter.words.len()) * 8;
        self.bytes.len() + self.sections.iter().map(of).sum::<usize>()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sections.iter().all(|section| section.restarts.is_empty())
    }

    pub(super) fn has(&self, space: Space) -> bool {
        self.sections.get(space as usize).is_some_and(|section| !section.restarts.is_empty())
    }

    /// An upper bound of the entries.
    fn len(&self, space: Space) -> usize {
        self.sections.get(space as usize).map_or(0, |section| section.restarts.len() * RESTART)
    }

    /// What was last written to a key here.
    pub(super) fn get(&self, space: Space, wanted: &Wanted<'_>) -> Option<Option<&[u8]>> {
        let section = self.sections.get(space as usize)?;
        if !section.filter.may_hold(wanted.hash) {
            return None;
        }
        let mut cursor = self.at(section, wanted.key);
        while let Some(value) = cursor.step() {
            match cursor.key.as_slice().cmp(wanted.key) {
                Ordering::Less => {}
                Ordering::Equal => return Some(value),
                Ordering::Greater => break,
            }
        }
        None
    }

    /// Before the last sixteenth entry that is not behind `key`.
    fn at(&self, section: &Section, key: &[u8]) -> Cursor<'_> {
        let not_behind = |at: &usize| {
            let first = self.bytes.get(*at..section.to).unwrap_or_default();
            let mut cursor = Cursor { rest: first, key: Vec::new() };
            cursor.peek().is_some_and(|first| first <= key)
        };
        let index = section.restarts.partition_point(not_behind).saturating_sub(1);
        let from = section.restarts.get(index).copied().unwrap_or(section.to);
        let rest = self.bytes.get(from..section.to).unwrap_or_default();
        Cursor { rest, key: Vec::new() }
    }

    /// The writes of a space from `from` on, in the order of keys.
    pub(super) fn range(&self, space: Space, from: &Bound<Vec<u8>>) -> Range<'_> {
        let after = match from {
            Bound::Included(key) | Bound::Excluded(key) => key.as_slice(),
            Bound::Unbounded => &[],
        };
        let cursor = self.sections.get(space as usize).map(|section| self.at(section, after));
        let mut cursor = cursor.unwrap_or(Cursor { rest: &[], key: Vec::new() });
        let mut first = None;
        while let Some(value) = cursor.step() {
            let order = cursor.key.as_slice().cmp(after);
            let in_range = match from {
                Bound::Excluded(_) => order == Ordering::Greater,
                Bound::Included(_) | Bound::Unbounded => order != Ordering::Less,
            };
            if in_range {
                first = Some(cursor.entry(value));
                break;
            }
        }
        Range { first, cursor }
    }
}

/// The newest write of each key of a space from `from` on, in order, of runs of which the last is the newest.
pub(super) fn merge(
    runs: &[impl AsRef<Run>],
    space: Space,
    from: &Bound<Vec<u8>>,
) -> impl Iterator<Item = (Slice, Option<Slice>)> {
    let mut ranges: Vec<Range<'_>> =
        runs.iter().map(|run| run.as_ref().range(space, from)).collect();
    let next = |ranges: &mut [Range<'_>], at: usize| {
        let (key, value) = ranges.get_mut(at)?.next()?;
        // Of equal keys the one of the newest run comes first.
        Some(Reverse(Head { key, newest: Reverse(at), value }))
    };
    let mut heap: BinaryHeap<_> =
        (0..ranges.len()).filter_map(|at| next(&mut ranges, at)).collect();
    let mut last: Option<Slice> = None;
    std::iter::from_fn(move || {
        loop {
            let mut top = heap.peek_mut()?;
            let at = top.0.newest.0;
            let Reverse(head) = match next(&mut ranges, at) {
                Some(head) => std::mem::replace(&mut *top, head),
                None => std::collections::binary_heap::PeekMut::pop(top),
            };
            if last.as_ref() != Some(&head.key) {
                last = Some(head.key.clone());
                return Some((head.key, head.value));
            }
        }
    })
}

struct Head {
    key: Slice,
    newest: Reverse<usize>,
    value: Option<Slice>,
}

impl Ord for Head {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key.cmp(&other.key).then(self.newest.cmp(&other.newest))
    }
}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Head {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Head {}

/// Entries of a run, copied out.
pub(super) struct Range<'a> {
    first: Option<(Slice, Option<Slice>)>,
    cursor: Cursor<'a>,
}

impl Iterator for Range<'_> {
    type Item = (Slice, Option<Slice>);

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(first) = self.first.take() {
            return Some(first);
        }
        let value = self.cursor.step()?;
        Some(self.cursor.entry(value))
    }
}

struct Cursor<'a> {
    rest: &'a [u8],
    key: Vec<u8>,
}

impl<'a> Cursor<'a> {
    /// Goes to the next entry; returns its value. `None` at the end, or where what is there is no
    /// entry.
    fn step(&mut self) -> Option<Option<&'a [u8]>> {
        let (shared, length, value) = self.lengths()?;
        let (key, rest) = self.rest.split_at_checked(length)?;
        if shared > self.key.len() {
            return None;
        }
        self.key.truncate(shared);
        self.key.extend_from_slice(key);
        let Some(bytes) = value.checked_sub(1) else {
            self.rest = rest;
            return Some(None);
        };
        let (value, rest) = rest.split_at_checked(bytes)?;
        self.rest = rest;
        Some(Some(value))
    }

    /// The key of an entry that shares nothing.
    fn peek(&mut self) -> Option<&'a [u8]> {
        let (_, length, _) = self.lengths()?;
        self.rest.get(..length)
    }

    fn lengths(&mut self) -> Option<(usize, usize, usize)> {
        Some((varint(&mut self.rest)?, varint(&mut self.rest)?, varint(&mut self.rest)?))
    }

    fn entry(&self, value: Option<&[u8]>) -> (Slice, Option<Slice>) {
        (Slice::from(self.key.as_slice()), value.map(Slice::from))
    }
}

fn varint(rest: &mut &[u8]) -> Option<usize> {
    let mut reader = Reader::new(rest);
    let value = reader.varint().ok()?;
    *rest = reader.rest();
    usize::try_from(value).ok()
}

struct Builder {
    bytes: Vec<u8>,
    sections: Vec<Section>,
    open: Section,
    entries: u32,
    last: Vec<u8>,
}

impl Builder {
    fn new(capacity: usize) -> Self {
        Self {
            bytes: Vec::with_capacity(capacity),
            sections: Vec::with_capacity(Space::ALL.len()),
            open: Section::default(),
            entries: 0,
            last: Vec::new(),
        }
    }

    fn section<K: AsRef<[u8]>, V: AsRef<[u8]>>(
        &mut self,
        entries_max: usize,
        entries: impl Iterator<Item = (K, Option<V>)>,
    ) {
        self.begin(entries_max);
        for (key, value) in entries {
            self.push(key.as_ref(), value.as_ref().map(AsRef::as_ref));
        }
        self.end();
    }

    fn begin(&mut self, entries_max: usize) {
        self.bytes.extend_from_slice(&[0; 8]);
        let from = self.bytes.len();
        let filter = Filter::new(entries_max);
        self.open = Section { from, to: from, restarts: Vec::new(), filter };
        self.entries = 0;
        self.last.clear();
    }

    fn push(&mut self, key: &[u8], value: Option<&[u8]>) {
        if (self.entries as usize).is_multiple_of(RESTART) {
            self.open.restarts.push(self.bytes.len());
            self.last.clear();
        }
        let same = self.last.iter().zip(key).take_while(|(last, byte)| last == byte);
        let shared = same.count();
        let rest = key.get(shared..).unwrap_or_default();
        put_varint(&mut self.bytes, shared as u64);
        put_varint(&mut self.bytes, rest.len() as u64);
        put_varint(&mut self.bytes, value.map_or(0, |value| value.len() as u64 + 1));
        self.bytes.extend_from_slice(rest);
        self.bytes.extend_from_slice(value.unwrap_or_default());
        self.last.truncate(shared);
        self.last.extend_from_slice(rest);
        self.open.filter.add(xxh3_64(key));
        self.entries += 1;
    }

    fn end(&mut self) {
        let mut section = std::mem::take(&mut self.open);
        section.to = self.bytes.len();
        let length = u32::try_from(section.to - section.from).unwrap_or(u32::MAX);
        if let Some(head) = self.bytes.get_mut(section.from - 8..section.from) {
            let (entries, bytes) = head.split_at_mut(4);
            entries.copy_from_slice(&self.entries.to_le_bytes());
            bytes.copy_from_slice(&length.to_le_bytes());
        }
        self.sections.push(section);
    }

    fn finish(mut self) -> Run {
        self.bytes.shrink_to_fit();
        let mut sections = self.sections.into_iter();
        Run {
            bytes: self.bytes,
            sections: std::array::from_fn(|_| sections.next().unwrap_or_default()),
        }
    }
}

/// A Bloom filter of one word for each four keys and four bits for each key: about one look in a
/// hundred finds a key that is not there.
#[derive(Default)]
struct Filter {
    words: Vec<u64>,
}

impl Filter {
    fn new(keys: usize) -> Self {
        Self { words: vec![0; keys.div_ceil(4)] }
    }

    fn add(&mut self, hash: u64) {
        let (at, bits) = self.place(hash);
        if let Some(word) = self.words.get_mut(at) {
            *word |= bits;
        }
    }

    fn may_hold(&self, hash: u64) -> bool {
        let (at, bits) = self.place(hash);
        self.words.get(at).is_some_and(|word| word & bits == bits)
    }

    /// The upper half of the hash chooses the word, the lower one its bits.
    fn place(&self, hash: u64) -> (usize, u64) {
        let at = (((hash >> 32) * self.words.len() as u64) >> 32) as usize;
        let bit = |shift: u32| 1_u64 << ((hash >> shift) & 63);
        (at, bit(0) | bit(6) | bit(12) | bit(18))
    }
}

#[cfg(test)]
mod tests;
