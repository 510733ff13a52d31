//! The stores that hold results, behind one contract.
//!
//! ```text
//!  outbox ─ records ─► writer loop ─ Batch ─► Store::apply ─► Redis | ClickHouse
//!                          ▲                       │
//!                          └──── the mark, which the store itself holds
//! ```
//!
//! # The contract
//!
//! - A store holds a *mark*: the position up to which it has everything. Nobody else keeps it.
//!   `None` means that a store is empty or half loaded: it must be reset and loaded.
//! - `apply` takes ranges `(from, to]` that chain: `from` must be the mark. When it returns `Ok`,
//!   data and mark are stored. When it fails with [`StoreError::Retry`], nothing is known: the
//!   caller waits and calls it again with **the same batch**, and a batch that had arrived after
//!   all is recognised by the mark, or is harmless by its versions.
//! - A batch whose `to` is the mark already may be given again, as after a crash between the store's
//!   reply and the caller's own commit: its faults are found again.
//! - A batch that was stuck in the network and lands after later writes changes nothing.
//! - [`StoreError::StopView`]: some targets could not take their part. All other targets have
//!   theirs **and the mark is at `to`**. The caller marks these views stopped, tells the store by
//!   `stop_targets`, and goes on with the next batch; it never repeats this one. From `fresh` it
//!   says that targets were altered by somebody; the mark is where it was.
//! - [`StoreError::MarkMoved`]: somebody else writes to this store, or it went back in time (a
//!   restored dump). The caller replays from the mark found if the outbox reaches back so far, and
//!   refills the store otherwise.
//! - Every wait has a limit (constants in the modules); a frozen server is a `Retry`.
//! - Only keys and tables of the pipeline's own targets are touched, and walview's own mark.
//! - Errors hold no password and no value of a row.
//!
//! Refilling, where the mark is lost or too old and the store [`Store::refills`]: `remains` says how
//! far its events reach; then `begin_refill`, `refill` page by page and `set_mark`, as in loading.
//! Unlike `reset`, `begin_refill` keeps events, leaves out targets that cannot be refilled, and tells
//! readers of events which are lost. A page or a start may end in `StopView`: all other targets
//! have theirs. A refill that breaks off starts again, to the same position or a later one.
//!
//! Loading: `reset`, then `load` in any number of idempotent chunks, then `set_mark`. Between them
//! `mark` is `None`, so a crash leads back to `reset`.

pub mod any;
pub mod clickhouse;
pub mod inspect;
pub mod redis;

#[cfg(test)]
mod conformance;

use bytes::Bytes;
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use walview_core::engine::RefillPage;
use walview_core::outbox::Record;
use walview_core::position::{Lsn, Position};

/// See the module's contract.
pub trait Store: Send {
    /// Connects, or connects again, and checks that the server is suitable.
    fn connect(&mut self) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// What the store holds everything up to. One that is fed from memory takes nothing that an earlier connection
    /// has sent from then on.
    fn mark(&mut self) -> impl Future<Output = Result<Option<Mark>, StoreError>> + Send;

    /// Makes what is missing and removes everything that the targets own, and the mark.
    fn reset(&mut self) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// How many bytes of parts are best loaded together.
    fn load_bytes(&self) -> usize;

    /// Writes parts of a snapshot: encoded operations of the store's kind, without stream entries
    /// (a snapshot has rows, not events). Each result row comes once, but for a repeat of all.
    fn load(&mut self, parts: &[Bytes]) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Ends loading.
    fn set_mark(
        &mut self,
        position: Position,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Writes a batch and moves the mark.
    fn apply(&mut self, batch: &Batch) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Tells readers that the store is current as of a time (microseconds since 2000-01-01 UTC)
    /// and a position of the source. Called about once a second while the store has everything.
    fn fresh(
        &mut self,
        as_of: i64,
        lsn: Lsn,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// Operations for these targets are left out from now on, in place of an earlier list.
    fn stop_targets(&mut self, stopped: BTreeSet<u16>);

    /// Targets that have rows by the local state, at the store's mark. A store that finds nothing of
    /// one says so from `fresh` and `apply`.
    fn expect_rows(&mut self, targets: BTreeSet<u16>);

    /// Whether it can be filled again from the local state; the calls below are for such stores.
    fn refills(&self) -> bool;

    /// The furthest position of which the store still has something, its mark or an event. What is
    /// sent from there on repeats nothing.
    fn remains(&mut self) -> impl Future<Output = Result<Option<Position>, StoreError>> + Send;

    /// Removes what the targets own but events, those `left_out` excepted, and the mark. `to` is
    /// the position that the mark will have; events after it will be sent.
    fn begin_refill(
        &mut self,
        to: Position,
        left_out: &BTreeSet<u16>,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    fn refill(&mut self, page: &RefillPage) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// Records in order, as one write.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The store's mark before.
    pub from: Position,
    /// The last record's position, or a later one where nothing more was to write.
    pub to: Position,
    /// Everything that was committed before is there then ([`Record::complete`]).
    pub complete: Lsn,
    /// Of that commit: microseconds since 2000-01-01 UTC.
    pub committed_at: i64,
    pub records: Vec<Arc<Record>>,
}

/// Who writes: a mark of another source or slot is not ours to continue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// `[a-z0-9_]+`.
    pub pipeline: String,
    /// The source's system identifier.
    pub system: u64,
    /// The replication slot.
    pub slot: String,
}

impl Identity {
    #[must_use]
    pub fn mark(&self, position: Position) -> Mark {
        Mark { position, system: self.system, slot: self.slot.clone() }
    }
}

/// Up to where a store has everything, and from whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    pub position: Position,
    pub system: u64,
    pub slot: String,
}

/// The form that marks have in stores, with its version.
const MARK_FORM: &str = "walview1";

/// `walview1 1:16/B374D848:3 7312345678901234567 walview_betting`
impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{MARK_FORM} {} {} {}", self.position, self.system, self.slot)
    }
}

/// What stands in a mark's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum MarkText {
    At(Mark),
    /// A reset or a load is under way; the number tells its steps apart.
    Loading(u64),
}

impl FromStr for MarkText {
    type Err = StoreError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut words = text.split(' ');
        let parsed = (|| {
            if words.next()? != MARK_FORM {
                return None;
            }
            let first = words.next()?;
            if first == "loading" {
                return Some(Self::Loading(words.next()?.parse().ok()?));
            }
            Some(Self::At(Mark {
                position: first.parse().ok()?,
                system: words.next()?.parse().ok()?,
                slot: words.next()?.to_owned(),
            }))
        })();
        parsed.filter(|_| words.next().is_none()).ok_or_else(|| {
            StoreError::stop(
                "the store holds a mark that this version of walview does not read",
                "run the version that wrote it, or: walview rebuild",
            )
        })
    }
}

impl fmt::Display for MarkText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::At(mark) => mark.fmt(f),
            Self::Loading(step) => write!(f, "{MARK_FORM} loading {step}"),
        }
    }
}

/// Why one target could not take its part of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    pub target: u16,
    pub message: String,
    pub remedy: String,
}

pub type Cause = Box<dyn std::error::Error + Send + Sync>;

/// What a failed call means for the caller.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Wait, then call again with the same arguments.
    #[error("{message}")]
    Retry {
        message: String,
        #[source]
        cause: Option<Cause>,
    },
    /// See the module's contract.
    #[error("the store's mark is not where walview left it: found {}", found_text(.found.as_ref()))]
    MarkMoved { found: Option<Mark> },
    /// See the module's contract. Never empty.
    #[error("{}", faults_text(.0))]
    StopView(Vec<Fault>),
    /// Someone must act before this store can go on.
    #[error("{message}; {remedy}")]
    Stop {
        message: String,
        remedy: String,
        #[source]
        cause: Option<Cause>,
    },
}

impl StoreError {
    pub(crate) fn stop(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Stop { message: message.into(), remedy: remedy.into(), cause: None }
    }

    /// The mark of a store that cannot be filled again from the local state is not there.
    pub(crate) fn lost(store: &str, how: &str) -> Self {
        Self::stop(format!("store \"{store}\": {how}"), "fill it again with: walview rebuild")
    }

    pub(crate) fn retry(message: impl Into<String>) -> Self {
        Self::Retry { message: message.into(), cause: None }
    }
}

fn found_text(found: Option<&Mark>) -> String {
    found.map_or_else(|| "none".to_owned(), |mark| mark.position.to_string())
}

fn faults_text(faults: &[Fault]) -> String {
    let texts: Vec<String> =
        faults.iter().map(|fault| format!("{}; {}", fault.message, fault.remedy)).collect();
    texts.join("; ")
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a text that does not parse fails the test")]

    use super::*;

    #[test]
    fn marks_round_trip_and_refuse_others() {
        let position = Position { epoch: 1, lsn: Lsn(0x16_B374_D848), ordinal: 3 };
        let mark = Mark { position, system: u64::MAX, slot: "walview_betting".to_owned() };
        for text in [MarkText::At(mark), MarkText::Loading(7)] {
            assert_eq!(text.to_string().parse::<MarkText>().unwrap(), text);
        }
        for text in ["", "walview2 1:0/0:1 1 s", "walview1 1:0/0:1 1 s x", "walview1 loading x"] {
            assert!(text.parse::<MarkText>().is_err(), "{text}");
        }
    }
}
