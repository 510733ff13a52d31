//! What an error of Redis, or of the way to it, means for the caller.

use super::super::StoreError;
use ::redis::RedisError;

/// An error without an answer from the server, or while connecting.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "only wrong credentials will not pass by themselves"
)]
pub(super) fn client_error(error: RedisError) -> StoreError {
    if let Some(code) = error.code().filter(|_| !error.is_io_error()) {
        return server_error(code, error.detail());
    }
    match error.kind() {
        ::redis::ErrorKind::AuthenticationFailed => server_error("WRONGPASS", None),
        _ => {
            let message = if error.is_timeout() {
                "Redis did not answer in time".to_owned()
            } else if error.is_connection_refusal() {
                "Redis refuses connections".to_owned()
            } else {
                format!("the connection to Redis failed: {}", error.category())
            };
            StoreError::Retry { message, cause: Some(Box::new(error)) }
        }
    }
}

/// EXEC itself was refused to the user.
fn denied(text: &str) -> bool {
    text.contains("NOPERM")
}

/// What a server's error code means. Its text is left out: it may quote keys and values.
pub(super) fn server_error(code: &str, text: Option<&str>) -> StoreError {
    match code {
        "ERR" if text.is_some_and(|text| text.contains("max number of clients")) => {
            StoreError::retry("Redis has as many clients as it takes (maxclients)")
        }
        "NOAUTH" | "WRONGPASS" => StoreError::stop(
            "Redis does not accept the user or the password",
            "correct them in the store's url",
        ),
        "NOPERM" | "EXECABORT" if code == "NOPERM" || text.is_some_and(denied) => StoreError::stop(
            "the Redis user may not do what walview needs",
            "allow it MULTI, WATCH, INFO, SCAN and reading and writing of the views' keys and walview:*",
        ),
        "OOM" => StoreError::retry("Redis is at maxmemory and takes no writes (OOM)"),
        "NOPROTO" | "NOSCRIPT" | "ERR" => StoreError::stop(
            format!("Redis refused a command ({code})"),
            "walview needs Redis 6 or later, without renamed commands",
        ),
        // READONLY, LOADING, MASTERDOWN, MISCONF, NOREPLICAS, BUSY, TRYAGAIN, CLUSTERDOWN, MOVED, …:
        // states that pass, or that the check at the next connection tells apart.
        code => StoreError::retry(format!("Redis takes no writes now ({code})")),
    }
}
