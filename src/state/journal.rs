//! The journal: local commits in order, and what was last written under each name.
//!
//! ```text
//!  record   count | (name | value) × count | run       values empty where the name was removed
//! ```
//!
//! A segment begins with all names, so that what is older can go once its runs are in the tables.
//!
//! Invariant: a commit is one record, so position, identity and state never disagree after a crash.

use super::log::{Draft, Log};
use super::run::Run;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use walview_core::target::codec::{CodecError, Reader, put_bytes, put_varint};

pub(super) type Names = BTreeMap<String, Vec<u8>>;

pub(super) struct Journal {
    log: Log,
    names: Names,
    /// The last segment that durably begins with all names, or has all that there are.
    head: u64,
}

impl Journal {
    /// Opens the journal in `folder`, or makes it. Returns the runs that it still has, the oldest
    /// first, each with its segment.
    pub(super) fn open(folder: &Path) -> io::Result<(Self, Vec<(u64, Run)>)> {
        let (mut names, mut runs) = (Names::new(), Vec::new());
        let log = Log::open(folder, true, |at, payload| {
            let unreadable =
                || io::Error::new(io::ErrorKind::InvalidData, "a commit cannot be read");
            let run = decode(payload, &mut names).ok().ok_or_else(unreadable)?;
            if !run.is_empty() {
                runs.push((at.segment, Run::parse(run).ok_or_else(unreadable)?));
            }
            Ok(())
        })?;
        Ok((Self { head: log.first(), log, names }, runs))
    }

    pub(super) fn name(&self, name: &str) -> Option<&[u8]> {
        self.names.get(name).map(Vec::as_slice)
    }

    /// Writes a commit, durably; returns its segment. A value that is empty removes its name.
    pub(super) fn write(&mut self, changed: Names, run: &[u8]) -> io::Result<u64> {
        if self.log.is_full() {
            self.begin_segment()?;
        }
        self.log.append(encode(&changed, run))?;
        self.log.unsynced().sync()?;
        self.names.extend(changed);
        self.names.retain(|_, value| !value.is_empty());
        Ok(self.log.last())
    }

    fn begin_segment(&mut self) -> io::Result<()> {
        self.log.roll()?;
        self.log.append(encode(&self.names, &[]))?;
        self.log.unsynced().sync()?;
        self.head = self.log.last();
        Ok(())
    }

    /// Forgets all commits: there is nothing but `names` after that, also after a crash.
    pub(super) fn restart(&mut self, names: Names) -> io::Result<()> {
        let gone = self.names.keys().map(|name| (name.clone(), Vec::new()));
        self.write(gone.chain(names).collect(), &[])?;
        self.forget_runs()
    }

    /// Keeps the names only: all runs are in the tables.
    pub(super) fn forget_runs(&mut self) -> io::Result<()> {
        self.begin_segment()?;
        self.remove_before(self.head)
    }

    /// The segments before `number` hold nothing that is not in the tables.
    pub(super) fn remove_before(&mut self, number: u64) -> io::Result<()> {
        self.log.remove_before(number.min(self.head))
    }

    pub(super) fn last(&self) -> u64 {
        self.log.last()
    }

    pub(super) fn bytes(&self) -> Arc<AtomicU64> {
        self.log.bytes()
    }
}

fn encode(names: &Names, run: &[u8]) -> Draft {
    let bytes: usize = names.iter().map(|(name, value)| name.len() + value.len() + 20).sum();
    let mut draft = Draft::new(bytes + run.len());
    put_varint(&mut draft.0, names.len() as u64);
    for (name, value) in names {
        put_bytes(&mut draft.0, name.as_bytes());
        put_bytes(&mut draft.0, value);
    }
    draft.0.extend_from_slice(run);
    draft
}

/// Follows what a record says of `names`; returns its run.
fn decode<'a>(payload: &'a [u8], names: &mut Names) -> Result<&'a [u8], CodecError> {
    let mut reader = Reader::new(payload);
    for _ in 0..reader.varint()? {
        let name = reader.text()?.to_owned();
        let value = reader.bytes()?;
        if value.is_empty() {
            names.remove(&name);
        } else {
            names.insert(name, value.to_vec());
        }
    }
    Ok(reader.rest())
}
