//! Where in the source's history something happened.
//!
//! A row's own LSN is no order: it repeats within a COPY and runs backwards across interleaved
//! transactions. The order that a reader of the database could have seen is
//! (commit LSN, ordinal within the transaction), and across rebuilds and changes of lineage,
//! where LSNs may run backwards, the epoch comes first.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A byte position in the write-ahead log, printed as PostgreSQL prints `pg_lsn`: `16/B374D848`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Lsn(pub u64);

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

/// The text was not of the form `hex/hex`, each part at most eight digits.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("\"{0}\" is not an LSN; one looks like 16/B374D848")]
pub struct LsnParseError(String);

impl FromStr for Lsn {
    type Err = LsnParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let part = |digits: &str| {
            let fits = (1..=8).contains(&digits.len())
                && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            fits.then(|| u64::from_str_radix(digits, 16).ok()).flatten()
        };
        text.split_once('/')
            .and_then(|(high, low)| Some(Self((part(high)? << 32) | part(low)?)))
            .ok_or_else(|| LsnParseError(text.to_owned()))
    }
}

/// Ordinals fit 48 bits: what `ClickHouse`'s `_version` leaves them, less the bit that puts a row
/// above its own tombstone.
pub const ORDINAL_MAX: u64 = (1 << 47) - 1;

/// The position of one emitted change: it orders everything that a store is sent.
///
/// `ordinal` counts emitted changes per transaction and store, from 1; 0 stands for "before the
/// first change of this commit".
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    pub epoch: u16,
    pub lsn: Lsn,
    pub ordinal: u64,
}

impl Position {
    /// The position that sorts after every change of the commit at `lsn` and before the next's.
    #[must_use]
    pub const fn end_of(epoch: u16, lsn: Lsn) -> Self {
        Self { epoch, lsn, ordinal: ORDINAL_MAX }
    }

    /// `ClickHouse`'s `_version`: epoch 16 | LSN 64 | ordinal 48 bits, where a row at ordinal *o*
    /// has 2·o+1 and a tombstone 2·o, so a moved row beats its own tombstone.
    #[must_use]
    pub const fn version(self, deleted: bool) -> u128 {
        let low = (self.ordinal << 1) | (!deleted) as u64;
        ((self.epoch as u128) << 112) | ((self.lsn.0 as u128) << 48) | low as u128
    }

    /// The explicit id of a Redis stream entry: `(epoch 8 | LSN 56 bits)-ordinal`. `None` where
    /// the epoch or the LSN does not fit, which stops a pipeline instead of wrapping.
    #[must_use]
    pub const fn stream_id(self) -> Option<(u64, u64)> {
        if self.epoch > 0xFF || self.lsn.0 >> 56 != 0 {
            return None;
        }
        Some((((self.epoch as u64) << 56) | self.lsn.0, self.ordinal))
    }
}

impl Position {
    /// The reverse of [`Position::stream_id`]; `None` where no position has this id.
    #[must_use]
    pub fn of_stream_id((high, low): (u64, u64)) -> Option<Self> {
        let epoch = u16::try_from(high >> 56).ok()?;
        let lsn = Lsn(high & (u64::MAX >> 8));
        (low <= ORDINAL_MAX).then_some(Self { epoch, lsn, ordinal: low })
    }
}

/// `epoch:lsn:ordinal`, the form that marks have in stores.
impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.epoch, self.lsn, self.ordinal)
    }
}

/// The text was not of the form `epoch:lsn:ordinal`.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("\"{0}\" is not a position; one looks like 1:16/B374D848:3")]
pub struct PositionParseError(String);

impl FromStr for Position {
    type Err = PositionParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.splitn(3, ':');
        let mut parse = || {
            let epoch = parts.next()?.parse().ok()?;
            let lsn = parts.next()?.parse().ok()?;
            let ordinal = parts.next()?.parse().ok().filter(|o| *o <= ORDINAL_MAX)?;
            Some(Self { epoch, lsn, ordinal })
        };
        parse().ok_or_else(|| PositionParseError(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lsn_round_trips_and_refuses_garbage() {
        for text in ["0/0", "16/B374D848", "FFFFFFFF/FFFFFFFF"] {
            assert_eq!(text.parse::<Lsn>().map(|lsn| lsn.to_string()), Ok(text.to_owned()));
        }
        for text in ["", "/", "1", "1/", "+1/2", "1/123456789", "g/1"] {
            assert!(text.parse::<Lsn>().is_err(), "{text}");
        }
    }

    #[test]
    fn versions_and_stream_ids_sort_as_positions_do() {
        let at = |epoch, lsn, ordinal| Position { epoch, lsn: Lsn(lsn), ordinal };
        let ascending = [at(0, 5, 0), at(0, 5, 1), at(0, 5, 2), at(0, 6, 0), at(1, 0, 1)];
        for pair in ascending.windows(2) {
            let [low, high] = pair else { unreachable!() };
            assert!(low < high);
            assert!(low.version(true) < low.version(false));
            assert!(low.version(false) < high.version(true));
            assert!(low.stream_id() < high.stream_id());
        }
        assert_eq!(at(256, 0, 0).stream_id(), None);
        for position in ascending {
            assert_eq!(position.stream_id().and_then(Position::of_stream_id), Some(position));
        }
        assert_eq!(Position::of_stream_id((1, u64::MAX)), None);
    }

    #[test]
    fn position_text_round_trips() {
        let position = Position { epoch: 3, lsn: Lsn(0x16_B374_D848), ordinal: 7 };
        assert_eq!(position.to_string().parse(), Ok(position));
        assert!("3:16/B374D848".parse::<Position>().is_err());
    }
}
