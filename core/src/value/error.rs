//! What can be wrong with a value, in PostgreSQL's words and with its SQLSTATE.
//!
//! Invariant: a message names types and functions, never the value, because messages reach logs
//! and metrics.

use std::borrow::Cow;
use std::fmt;

/// Why a value could not be read or computed. `message` is PostgreSQL's text, without the value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValueError {
    pub state: SqlState,
    pub message: Cow<'static, str>,
}

/// The SQLSTATE that PostgreSQL gives (appendix A of its manual).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SqlState {
    /// 22003
    NumericValueOutOfRange,
    /// 22012
    DivisionByZero,
    /// 22P02
    InvalidTextRepresentation,
    /// 22P03
    InvalidBinaryRepresentation,
    /// 22007
    InvalidDatetimeFormat,
    /// 22008
    DatetimeFieldOverflow,
    /// 22011
    SubstringError,
    /// 22001
    StringTooLong,
    /// 22023
    InvalidParameterValue,
    /// 22025
    InvalidEscapeSequence,
    /// 22P05
    UntranslatableCharacter,
    /// 0A000
    FeatureNotSupported,
    /// XX001: bytes in Walview's own state that no version of it wrote.
    DataCorrupted,
    /// XX000: the tree breaks what the binder promises.
    Internal,
}

impl SqlState {
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::NumericValueOutOfRange => "22003",
            Self::DivisionByZero => "22012",
            Self::InvalidTextRepresentation => "22P02",
            Self::InvalidBinaryRepresentation => "22P03",
            Self::InvalidDatetimeFormat => "22007",
            Self::DatetimeFieldOverflow => "22008",
            Self::SubstringError => "22011",
            Self::StringTooLong => "22001",
            Self::InvalidParameterValue => "22023",
            Self::InvalidEscapeSequence => "22025",
            Self::UntranslatableCharacter => "22P05",
            Self::FeatureNotSupported => "0A000",
            Self::DataCorrupted => "XX001",
            Self::Internal => "XX000",
        }
    }
}

impl ValueError {
    pub fn new(state: SqlState, message: impl Into<Cow<'static, str>>) -> Self {
        Self { state, message: message.into() }
    }

    /// `integer out of range` and its kin.
    pub(crate) fn out_of_range(type_name: &str) -> Self {
        Self::new(SqlState::NumericValueOutOfRange, format!("{type_name} out of range"))
    }

    pub(crate) fn division_by_zero() -> Self {
        Self::new(SqlState::DivisionByZero, "division by zero")
    }

    pub(crate) fn syntax(type_name: &str) -> Self {
        Self::new(
            SqlState::InvalidTextRepresentation,
            format!("invalid input syntax for type {type_name}"),
        )
    }

    pub(crate) fn corrupted(what: &'static str) -> Self {
        Self::new(SqlState::DataCorrupted, what)
    }
}

impl fmt::Display for ValueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (SQLSTATE {})", self.message, self.state.code())
    }
}

impl std::error::Error for ValueError {}
