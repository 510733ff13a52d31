//! Is the server still the one whose log was applied here?
//!
//! System identifier and timeline do not tell: a copy of the data folder, or a disk's snapshot, that
//! is started again has both. Its log ends earlier, and what is written then gets positions that
//! were used before. A stream asked for from our own position would skip it, silently. So the stream
//! is asked for from where the *slot* stands, which is at or before ours, and what comes again must
//! be what we know:
//!
//! ```text
//!            slot stands at         last commit applied       durable here
//!  ─────────────┤ ………………………………………………… ├ L, at time t ─────────┤ ────────────────►
//!               │ commits here come again │ no commit here: we  │ new
//!               │                         │ would have it       │
//!               └── the one at L must be among them, with the same time
//! ```
//!
//! Nothing is confirmed before that has been seen, so the evidence is still there the next time.
//! Where nothing happened between the slot's position and ours, there is nothing to compare.

use walview_core::position::Lsn;

/// What the state knows of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resume {
    /// Every commit below is durable here: the end LSN of the last one, a later keepalive's
    /// position, or a snapshot's consistent point.
    pub confirmed: Lsn,
    /// The last commit: its LSN, and its time in microseconds since 2000-01-01 UTC.
    pub last_commit: Option<(Lsn, i64)>,
}

impl Resume {
    /// From a snapshot, or where the past does not matter.
    #[must_use]
    pub fn at(confirmed: Lsn) -> Self {
        Self { confirmed, last_commit: None }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Continuity {
    Shown,
    /// Not yet: `seen` says whether the last commit has come again, or need not.
    Open {
        resume: Resume,
        seen: bool,
    },
}

/// The log is another one.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Broken;

impl Continuity {
    /// `slot` is the slot's `confirmed_flush_lsn`, from where the stream was asked for.
    pub(super) fn new(resume: Resume, slot: Lsn) -> Self {
        if slot >= resume.confirmed {
            return Self::Shown;
        }
        let seen = resume.last_commit.is_none_or(|(commit, _)| commit < slot);
        Self::Open { resume, seen }
    }

    /// A transaction begins whose commit record is at `commit_lsn`.
    pub(super) fn begin(&mut self, commit_lsn: Lsn, committed_at: i64) -> Result<(), Broken> {
        let Self::Open { resume, seen } = self else {
            return Ok(());
        };
        if commit_lsn >= resume.confirmed {
            return self.reached();
        }
        let Some((last, at)) = resume.last_commit else {
            return Ok(());
        };
        match commit_lsn.cmp(&last) {
            std::cmp::Ordering::Less => Ok(()),
            std::cmp::Ordering::Equal if committed_at == at => {
                *seen = true;
                Ok(())
            }
            std::cmp::Ordering::Equal | std::cmp::Ordering::Greater => Err(Broken),
        }
    }

    /// Outside a transaction: every commit below `wal_end` has come.
    pub(super) fn keepalive(&mut self, wal_end: Lsn) -> Result<(), Broken> {
        match self {
            Self::Open { resume, .. } if wal_end >= resume.confirmed => self.reached(),
            Self::Open { .. } | Self::Shown => Ok(()),
        }
    }

    fn reached(&mut self) -> Result<(), Broken> {
        if matches!(self, Self::Open { seen: false, .. }) {
            return Err(Broken);
        }
        *self = Self::Shown;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESUME: Resume = Resume { confirmed: Lsn(200), last_commit: Some((Lsn(150), 7)) };

    #[test]
    fn a_slot_that_stands_where_we_do_needs_no_proof() {
        assert_eq!(Continuity::new(RESUME, Lsn(200)), Continuity::Shown);
    }

    #[test]
    fn the_last_commit_comes_again() {
        let mut log = Continuity::new(RESUME, Lsn(100));
        assert_eq!(log.begin(Lsn(120), 5), Ok(()));
        assert_eq!(log.begin(Lsn(150), 7), Ok(()));
        assert!(matches!(log, Continuity::Open { seen: true, .. }));
        assert_eq!(log.begin(Lsn(200), 9), Ok(()));
        assert_eq!(log, Continuity::Shown);
        let mut log = Continuity::new(RESUME, Lsn(150));
        assert_eq!(log.begin(Lsn(150), 7), Ok(()));
        assert_eq!(log.keepalive(Lsn(300)), Ok(()));
        assert_eq!(log, Continuity::Shown);
    }

    #[test]
    fn another_log_is_found_out() {
        // The commit is missing, comes at another time, or another stands where none was.
        assert_eq!(Continuity::new(RESUME, Lsn(100)).begin(Lsn(250), 9), Err(Broken));
        assert_eq!(Continuity::new(RESUME, Lsn(100)).keepalive(Lsn(200)), Err(Broken));
        assert_eq!(Continuity::new(RESUME, Lsn(100)).begin(Lsn(150), 8), Err(Broken));
        assert_eq!(Continuity::new(RESUME, Lsn(100)).begin(Lsn(160), 9), Err(Broken));
        assert_eq!(Continuity::new(RESUME, Lsn(170)).begin(Lsn(180), 9), Err(Broken));
    }

    #[test]
    fn positions_that_only_keepalives_named_are_no_contradiction() {
        let mut log = Continuity::new(RESUME, Lsn(170));
        assert_eq!(log.keepalive(Lsn(180)), Ok(()));
        assert!(matches!(log, Continuity::Open { .. }));
        assert_eq!(log.begin(Lsn(210), 9), Ok(()));
        assert_eq!(log, Continuity::Shown);
    }
}
