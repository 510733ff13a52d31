//! What an exception of `ClickHouse` means for the caller.

use super::super::StoreError;
use ::clickhouse::error::Error;

/// What to do about a failed statement.
pub(super) enum Class {
    /// The store is unreachable, busy, or says something that may pass.
    Retry,
    /// This table cannot take this.
    Table,
    /// The account or the server.
    Account,
}

/// Code and name of an exception, as in `Code: 60. DB::Exception: … (UNKNOWN_TABLE)`. Its text is
/// left out everywhere: it may quote values.
pub(super) struct Exception {
    pub(super) code: u32,
    pub(super) name: String,
}

impl Exception {
    pub(super) fn of(error: &Error) -> Option<Self> {
        let Error::BadResponse(text) = error else {
            return None;
        };
        let (_, after) = text.split_once("Code: ")?;
        let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
        let is_name = |word: &&str| {
            word.len() > 3
                && word.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_')
        };
        let name = text.rsplit('(').filter_map(|part| part.split(')').next()).find(is_name);
        Some(Self { code: digits.parse().ok()?, name: name.unwrap_or("exception").to_owned() })
    }

    pub(super) fn class(&self) -> Class {
        match self.code {
            // AUTHENTICATION_FAILED, UNKNOWN_USER, WRONG_PASSWORD, REQUIRED_PASSWORD, ACCESS_DENIED,
            // READONLY, TABLE_SIZE_EXCEEDS_MAX_DROP_SIZE_LIMIT
            516 | 192 | 193 | 194 | 497 | 164 | 359 => Class::Account,
            // Unknown table, database, column, function or identifier; a type, a value or a
            // statement that the table does not take; CANNOT_INSERT_NULL_IN_ORDINARY_COLUMN. What a
            // user's own DDL computes or checks: ILLEGAL_DIVISION 153, VIOLATED_CONSTRAINT 469,
            // FUNCTION_THROW_IF_VALUE_IS_NON_ZERO 395.
            60 | 81 | 16 | 10 | 8 | 46 | 47 | 53 | 70 | 407 | 321 | 69 | 349 | 36 | 44 | 42
            | 43 | 62 | 117 | 6 | 27 | 38 | 41 | 376 | 131 | 48 | 153 | 469 | 395 => Class::Table,
            // TOO_MANY_PARTS 252, MEMORY_LIMIT_EXCEEDED 241, TOO_MANY_SIMULTANEOUS_QUERIES 202,
            // TIMEOUT_EXCEEDED 159, NOT_ENOUGH_SPACE 243, TABLE_IS_READ_ONLY 242, Keeper's, network's
            // … and what we do not know: repeating is harmless, and the status shows it.
            _ => Class::Retry,
        }
    }
}

/// The error of a statement that is for no single table.
pub(super) fn store_error(error: Error) -> StoreError {
    let Some(exception) = Exception::of(&error) else {
        return transport(error);
    };
    let Exception { code, name } = &exception;
    match exception.class() {
        Class::Retry => StoreError::retry(format!("ClickHouse answers {code} {name}")),
        Class::Account if matches!(code, 516 | 192 | 193 | 194) => StoreError::stop(
            format!("ClickHouse does not accept the user or the password ({code} {name})"),
            "correct them in the store's url",
        ),
        Class::Account if *code == 359 => StoreError::stop(
            format!("ClickHouse does not empty a table as large as this ({code} {name})"),
            "raise max_table_size_to_drop, or truncate the rows table by hand",
        ),
        Class::Account => StoreError::stop(
            format!("the ClickHouse user may not do what walview needs ({code} {name})"),
            "grant it CREATE, DROP, TRUNCATE, INSERT and SELECT on the view's database and its _rows",
        ),
        Class::Table => StoreError::stop(
            format!("ClickHouse refused a statement of walview's ({code} {name})"),
            "look at system.query_log for its text; walview needs ClickHouse 24.8 or later",
        ),
    }
}

/// No exception of the server's: the way to it failed, or a proxy answered.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "every other failure is one of the way to the server"
)]
fn transport(error: Error) -> StoreError {
    match error {
        Error::TimedOut => StoreError::retry("ClickHouse did not answer in time"),
        Error::InvalidParams(_) | Error::Unsupported(_) => StoreError::stop(
            "the URL of ClickHouse is not usable",
            "write http://host:8123 or https://host:8443",
        ),
        Error::BadResponse(text) if text.starts_with("401") || text.starts_with("403") => {
            StoreError::stop(
                "ClickHouse does not accept the user or the password",
                "correct them in the store's url",
            )
        }
        Error::BadResponse(_) => {
            StoreError::retry("what stands before ClickHouse answered in its place")
        }
        error => StoreError::Retry {
            message: "the connection to ClickHouse failed".to_owned(),
            cause: Some(Box::new(error)),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A store that is slow, full or shut refuses no row: what it did not take is sent again as it
    /// was, and nothing is left out of anything.
    #[test]
    fn what_may_pass_is_no_fault_of_a_table() {
        for (code, name) in [
            (159, "TIMEOUT_EXCEEDED"),
            (209, "SOCKET_TIMEOUT"),
            (210, "NETWORK_ERROR"),
            (241, "MEMORY_LIMIT_EXCEEDED"),
            (242, "TABLE_IS_READ_ONLY"),
            (243, "NOT_ENOUGH_SPACE"),
            (252, "TOO_MANY_PARTS"),
            (999, "KEEPER_EXCEPTION"),
        ] {
            let text = format!("Code: {code}. DB::Exception: something of a row ({name})");
            let error = Error::BadResponse(text);
            let class = Exception::of(&error).map(|exception| exception.class());
            assert!(matches!(class, Some(Class::Retry)), "{name}");
            assert!(matches!(store_error(error), StoreError::Retry { .. }), "{name}");
        }
    }

    #[test]
    fn exceptions_are_read_without_their_text() {
        let error = Error::BadResponse(
            "Code: 60. DB::Exception: Table d.t (secret) does not exist. (UNKNOWN_TABLE) (version 26.7.2.1 (official build))"
                .to_owned(),
        );
        let exception = Exception::of(&error).map(|exception| (exception.code, exception.name));
        assert_eq!(exception, Some((60, "UNKNOWN_TABLE".to_owned())));
        assert!(!store_error(error).to_string().contains("secret"));
        assert!(matches!(
            store_error(Error::BadResponse("Code: 252. (TOO_MANY_PARTS)".to_owned())),
            StoreError::Retry { .. }
        ));
    }
}
