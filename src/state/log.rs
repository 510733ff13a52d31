//! A log: records appended to segment files, and read again.
//!
//! ```text
//!  folder/<number>.log    record | record | …
//!  record                 length u32 | checksum u64 | payload    little-endian
//! ```
//!
//! The checksum (XXH3) is over the length and the payload.
//!
//! Invariants:
//! - segments are numbered without gaps, only the oldest go, and the last is never removed;
//! - a segment is synced before the next one begins, so only the end of the last can be torn by a
//!   crash: there it is cut off when the log is opened. Anything else that does not read is damage;
//! - a record that could not be written whole is overwritten by the next.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use xxhash_rust::xxh3::Xxh3;

/// Bytes before a payload.
const HEAD_BYTES: usize = 12;
/// A segment that has grown to this is the last but one from the next record on.
const SEGMENT_BYTES: u64 = 16 << 20;
/// Of a payload, for who opens a log without reading all of it.
const PEEK_BYTES: u64 = 64;

pub(super) struct Log {
    folder: PathBuf,
    /// The oldest first, with their sizes.
    segments: VecDeque<(u64, u64)>,
    /// The last segment.
    file: Arc<File>,
    bytes: Arc<AtomicU64>,
    /// What was appended may or may not be durable: only opening the log again tells.
    broken: Arc<AtomicBool>,
}

/// What was appended to a segment and may not be durable yet.
pub(super) struct Unsynced {
    file: Arc<File>,
    broken: Arc<AtomicBool>,
}

impl Unsynced {
    /// Makes it durable. Where that fails once, nothing is appended to the log again.
    pub(super) fn sync(&self) -> io::Result<()> {
        let synced = self.file.sync_data();
        if synced.is_err() {
            self.broken.store(true, Ordering::Relaxed);
        }
        synced
    }
}

/// Where a record is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct At {
    pub(super) segment: u64,
    offset: u64,
    /// Of the payload.
    pub(super) bytes: u32,
}

/// A payload that is being put together, with room for its head.
pub(super) struct Draft(pub(super) Vec<u8>);

impl Draft {
    pub(super) fn new(capacity: usize) -> Self {
        let mut bytes = Vec::with_capacity(HEAD_BYTES + capacity);
        bytes.resize(HEAD_BYTES, 0);
        Self(bytes)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.payload_bytes() == 0
    }

    pub(super) fn payload_bytes(&self) -> usize {
        self.0.len() - HEAD_BYTES
    }

    pub(super) fn payload_mut(&mut self) -> &mut [u8] {
        self.0.get_mut(HEAD_BYTES..).unwrap_or_default()
    }
}

impl Log {
    /// Opens the log in `folder`, or makes it. `visit` gets each record's place and payload, in
    /// order; where not `whole`, the first bytes of it, and what is older than the last segment is not
    /// checked until it is read.
    ///
    /// # Errors
    /// The folder cannot be read or written, or is damaged, or `visit` failed.
    pub(super) fn open(
        folder: &Path,
        whole: bool,
        mut visit: impl FnMut(At, &[u8]) -> io::Result<()>,
    ) -> io::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let mut numbers = Vec::new();
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            let number = path.file_stem().and_then(|stem| stem.to_str()?.parse::<u64>().ok());
            let number = number.filter(|_| path.extension().is_some_and(|end| end == "log"));
            numbers.push(number.ok_or_else(|| damaged(&path, "is no segment"))?);
        }
        numbers.sort_unstable();
        if numbers.is_empty() {
            make(folder, 1)?;
            numbers.push(1);
        }
        if numbers.windows(2).any(|pair| matches!(pair, [a, b] if a + 1 != *b)) {
            return Err(damaged(folder, "lacks a segment"));
        }
        let mut segments = VecDeque::new();
        let last = numbers.last().copied().unwrap_or_default();
        for number in numbers {
            let path = path(folder, number);
            let end = if whole || number == last {
                records(&std::fs::read(&path)?, number, &mut visit)?
            } else {
                heads(&File::open(&path)?, number, &mut visit)?
            };
            let bytes = std::fs::metadata(&path)?.len();
            if number != last && end != bytes {
                return Err(damaged(&path, "does not read to its end"));
            }
            segments.push_back((number, end));
        }
        let file = File::options().read(true).write(true).open(path(folder, last))?;
        let end = segments.back().map_or(0, |(_, bytes)| *bytes);
        if file.metadata()?.len() > end {
            file.set_len(end)?;
            file.sync_all()?;
        }
        let bytes = segments.iter().map(|(_, bytes)| bytes).sum();
        let (folder, bytes) = (folder.to_owned(), Arc::new(AtomicU64::new(bytes)));
        Ok(Self { folder, segments, file: Arc::new(file), bytes, broken: Arc::default() })
    }

    /// The oldest segment.
    pub(super) fn first(&self) -> u64 {
        self.segments.front().map_or(0, |(number, _)| *number)
    }

    /// The segment that is appended to.
    pub(super) fn last(&self) -> u64 {
        self.segments.back().map_or(0, |(number, _)| *number)
    }

    /// Whether the next record should go to a segment of its own.
    pub(super) fn is_full(&self) -> bool {
        self.segments.back().is_some_and(|(_, bytes)| *bytes >= SEGMENT_BYTES)
    }

    /// Begins a segment.
    pub(super) fn roll(&mut self) -> io::Result<()> {
        self.unsynced().sync()?;
        let number = self.last() + 1;
        self.file = Arc::new(make(&self.folder, number)?);
        self.segments.push_back((number, 0));
        Ok(())
    }

    /// Appends a record.
    pub(super) fn append(&mut self, Draft(mut record): Draft) -> io::Result<At> {
        if self.broken.load(Ordering::Relaxed) {
            return Err(io::Error::other("an earlier write failed; start again"));
        }
        let Some((segment, end)) = self.segments.back_mut() else {
            return Err(io::Error::other("a log without a segment"));
        };
        let (head, payload) = record.split_at_mut(HEAD_BYTES);
        let bytes = u32::try_from(payload.len()).map_err(io::Error::other)?;
        let (length, checksum) = head.split_at_mut(4);
        length.copy_from_slice(&bytes.to_le_bytes());
        checksum.copy_from_slice(&sum(bytes, payload).to_le_bytes());
        self.file.write_all_at(&record, *end)?;
        let at = At { segment: *segment, offset: *end, bytes };
        let written = record.len() as u64;
        *end += written;
        self.bytes.fetch_add(written, Ordering::Relaxed);
        Ok(at)
    }

    pub(super) fn unsynced(&self) -> Unsynced {
        Unsynced { file: Arc::clone(&self.file), broken: Arc::clone(&self.broken) }
    }

    /// The file that holds a record.
    pub(super) fn open_at(&self, at: At) -> io::Result<Arc<File>> {
        if at.segment == self.last() {
            return Ok(Arc::clone(&self.file));
        }
        File::open(path(&self.folder, at.segment)).map(Arc::new)
    }

    /// Removes the segments before `number`, but never the last.
    pub(super) fn remove_before(&mut self, number: u64) -> io::Result<()> {
        while let Some((oldest, bytes)) = self.segments.front().copied()
            && oldest < number
            && self.segments.len() > 1
        {
            std::fs::remove_file(path(&self.folder, oldest))?;
            self.segments.pop_front();
            self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Bytes on disk, as they change.
    pub(super) fn bytes(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.bytes)
    }
}

/// The payload of the record that is `at` in its segment's `file`.
pub(super) fn read(file: &File, at: At) -> io::Result<Vec<u8>> {
    let mut payload = vec![0; at.bytes as usize];
    let mut head = [0; HEAD_BYTES];
    file.read_exact_at(&mut head, at.offset)?;
    file.read_exact_at(&mut payload, at.offset + HEAD_BYTES as u64)?;
    if sized(&head) != Some((at.bytes, sum(at.bytes, &payload))) {
        let what = format!("the record at {} of segment {} is damaged", at.offset, at.segment);
        return Err(io::Error::new(io::ErrorKind::InvalidData, what));
    }
    Ok(payload)
}

/// Visits the records of a whole segment; returns where they end.
fn records(
    segment: &[u8],
    number: u64,
    visit: &mut impl FnMut(At, &[u8]) -> io::Result<()>,
) -> io::Result<u64> {
    let mut rest = segment;
    while let Some((head, behind)) = rest.split_first_chunk::<HEAD_BYTES>()
        && let Some((bytes, checksum)) = sized(head)
        && let Some((payload, behind)) = behind.split_at_checked(bytes as usize)
        && checksum == sum(bytes, payload)
    {
        let offset = (segment.len() - rest.len()) as u64;
        visit(At { segment: number, offset, bytes }, payload)?;
        rest = behind;
    }
    Ok((segment.len() - rest.len()) as u64)
}

/// As [`records`], of a segment that was synced, without reading more than the beginnings.
fn heads(
    file: &File,
    number: u64,
    visit: &mut impl FnMut(At, &[u8]) -> io::Result<()>,
) -> io::Result<u64> {
    let (mut offset, end) = (0, file.metadata()?.len());
    let mut head = [0; HEAD_BYTES];
    while offset + (HEAD_BYTES as u64) < end {
        file.read_exact_at(&mut head, offset)?;
        let Some((bytes, _)) = sized(&head) else { break };
        let mut peek = vec![0; u64::from(bytes).min(PEEK_BYTES) as usize];
        file.read_exact_at(&mut peek, offset + HEAD_BYTES as u64)?;
        visit(At { segment: number, offset, bytes }, &peek)?;
        offset += HEAD_BYTES as u64 + u64::from(bytes);
    }
    Ok(offset)
}

/// Length and checksum.
fn sized(head: &[u8; HEAD_BYTES]) -> Option<(u32, u64)> {
    let (length, checksum) = head.split_first_chunk()?;
    Some((u32::from_le_bytes(*length), u64::from_le_bytes(*checksum.first_chunk()?)))
}

fn sum(length: u32, payload: &[u8]) -> u64 {
    let mut sum = Xxh3::new();
    sum.update(&length.to_le_bytes());
    sum.update(payload);
    sum.digest()
}

fn path(folder: &Path, number: u64) -> PathBuf {
    folder.join(format!("{number}.log"))
}

/// Makes an empty segment that is there after a crash.
fn make(folder: &Path, number: u64) -> io::Result<File> {
    let options = File::options().read(true).write(true).create(true).truncate(true).clone();
    let file = options.open(path(folder, number))?;
    file.sync_all()?;
    File::open(folder)?.sync_all()?;
    Ok(file)
}

fn damaged(path: &Path, what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("\"{}\" {what}", path.display()))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn draft(payload: &[u8]) -> Draft {
        let mut draft = Draft::new(payload.len());
        draft.0.extend_from_slice(payload);
        draft
    }

    type Seen = Vec<(At, Vec<u8>)>;

    fn open(folder: &Path, whole: bool) -> io::Result<(Log, Seen)> {
        let mut seen = Seen::new();
        let log = Log::open(folder, whole, |at, payload| {
            seen.push((at, payload.to_vec()));
            Ok(())
        })?;
        Ok((log, seen))
    }

    #[test]
    fn what_was_appended_is_there_when_it_is_opened_again() {
        let folder = tempfile::tempdir().unwrap();
        let payloads: Vec<Vec<u8>> = (1..=9_u8).map(|n| vec![n; usize::from(n) * 40]).collect();
        let (mut log, seen) = open(folder.path(), true).unwrap();
        assert_eq!(seen, []);
        let mut at = Vec::new();
        for payload in &payloads {
            if at.len() % 4 == 3 {
                log.roll().unwrap();
            }
            at.push(log.append(draft(payload)).unwrap());
        }
        let bytes = log.bytes().load(Ordering::Relaxed);
        drop(log);
        let (log, seen) = open(folder.path(), true).unwrap();
        let expected: Vec<_> = at.iter().copied().zip(payloads.clone()).collect();
        assert_eq!(seen, expected);
        assert_eq!(log.bytes().load(Ordering::Relaxed), bytes);
        for (at, payload) in &expected {
            assert_eq!(read(&log.open_at(*at).unwrap(), *at).unwrap(), *payload);
        }
        drop(log);
        let (mut log, seen) = open(folder.path(), false).unwrap();
        for ((seen_at, peek), (at, payload)) in seen.iter().zip(&expected) {
            assert_eq!(seen_at, at);
            assert!(payload.starts_with(peek) && !peek.is_empty());
        }
        log.remove_before(2).unwrap();
        log.remove_before(99).unwrap();
        drop(log);
        let (log, seen) = open(folder.path(), true).unwrap();
        assert_eq!(log.last(), 3);
        assert_eq!(seen, expected[7..]);
    }

    /// Wherever a crash tears the last record, and whatever is left behind it.
    #[test]
    fn a_torn_end_is_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let file = path(folder.path(), 1);
        let (mut log, _) = open(folder.path(), true).unwrap();
        log.append(draft(b"first")).unwrap();
        let whole = std::fs::metadata(&file).unwrap().len();
        log.append(draft(b"second")).unwrap();
        drop(log);
        let bytes = std::fs::read(&file).unwrap();
        for end in usize::try_from(whole).unwrap()..bytes.len() {
            for left in [&[][..], &[0; 40], &bytes[1..20]] {
                std::fs::write(&file, [&bytes[..end], left].concat()).unwrap();
                let (mut log, seen) = open(folder.path(), true).unwrap();
                assert_eq!(seen.len(), 1, "{end}");
                log.append(draft(b"third")).unwrap();
                drop(log);
                let (_, seen) = open(folder.path(), true).unwrap();
                assert_eq!(seen[1].1, b"third");
            }
        }
    }

    #[test]
    fn damage_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let (mut log, _) = open(folder.path(), true).unwrap();
        let at = log.append(draft(&[7; 100])).unwrap();
        log.append(draft(b"second")).unwrap();
        log.roll().unwrap();
        log.roll().unwrap();
        let first = path(folder.path(), 1);
        let sound = std::fs::read(&first).unwrap();
        let mut flipped = sound.clone();
        flipped[90] ^= 1;
        std::fs::write(&first, &flipped).unwrap();
        assert!(read(&log.open_at(at).unwrap(), at).unwrap_err().to_string().contains("damaged"));
        drop(log);
        assert!(open(folder.path(), true).err().unwrap().to_string().contains("its end"));
        for cut in [sound.len() - 1, sound.len() - 8] {
            std::fs::write(&first, &sound[..cut]).unwrap();
            assert!(open(folder.path(), false).is_err());
        }
        std::fs::write(&first, &sound).unwrap();
        std::fs::remove_file(path(folder.path(), 2)).unwrap();
        assert!(open(folder.path(), true).err().unwrap().to_string().contains("lacks a segment"));
        std::fs::write(folder.path().join("x"), "").unwrap();
        assert!(open(folder.path(), true).err().unwrap().to_string().contains("no segment"));
    }
}
