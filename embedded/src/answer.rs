//! Answers in the shape that ClickHouse's clients know: status codes, `X-ClickHouse-*` headers, and
//! exceptions in the middle of a body.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::stream;
use tokio::sync::mpsc;

use crate::engine::{EngineError, Statistics};
use crate::execute::{Block, Head};
use crate::format;

/// Between an exception in a body and the cut of its connection: hyper drops what it has not yet
/// written when a body fails.
const CUT_DELAY: Duration = Duration::from_millis(50);

/// What the engine says about itself at start; part of most answers.
#[derive(Debug, Clone)]
pub(crate) struct Identity {
    /// As `version()`.
    pub(crate) version: String,
    /// The library's.
    pub(crate) library: String,
    pub(crate) timezone: String,
}

impl Identity {
    /// The engine's text, the version, a line end. Older clients find exceptions by this end.
    fn exception_text(&self, error: &EngineError) -> String {
        format!("{error} (version {} (chdb {}))\n", self.version, self.library)
    }

    /// An exception before the first byte of a body.
    pub(crate) fn exception(&self, error: &EngineError, query_id: &str) -> Response {
        let text = self.exception_text(error);
        let mut response = (status(error.code), text).into_response();
        self.stamp(&mut response, query_id);
        put(&mut response, "x-clickhouse-exception-code", &error.code.to_string());
        response
    }

    /// An answer without a body.
    pub(crate) fn done(&self, statistics: Statistics, query_id: &str) -> Response {
        let mut response = StatusCode::OK.into_response();
        put(&mut response, header::CONTENT_TYPE.as_str(), "text/plain; charset=UTF-8");
        self.stamp(&mut response, query_id);
        put(&mut response, "x-clickhouse-summary", &summary(statistics));
        response
    }

    /// A result, block by block.
    pub(crate) fn result(
        &self,
        head: &Head,
        blocks: mpsc::Receiver<Block>,
        query_id: &str,
    ) -> Response {
        let tag = random_letters();
        let state = Some((blocks, self.clone(), tag.clone()));
        let body = stream::unfold(state, |state| async {
            let (mut blocks, identity, tag) = state?;
            match blocks.recv().await {
                Some(Block::Data(bytes)) => Some((Ok(bytes), Some((blocks, identity, tag)))),
                Some(Block::End) => None,
                Some(Block::Failed(error)) => {
                    let text = marked_exception(&identity.exception_text(&error), &tag);
                    // An empty channel without an end: the next turn cuts the connection.
                    blocks.close();
                    Some((Ok(Bytes::from(text)), Some((blocks, identity, tag))))
                }
                None => {
                    tokio::time::sleep(CUT_DELAY).await;
                    Some((Err(io::Error::other("the result broke off")), None))
                }
            }
        });
        let mut response = Body::from_stream(body).into_response();
        put(&mut response, header::CONTENT_TYPE.as_str(), format::content_type(&head.format));
        self.stamp(&mut response, query_id);
        put(&mut response, "x-clickhouse-format", &head.format);
        put(&mut response, "x-clickhouse-exception-tag", &tag);
        put(&mut response, "x-clickhouse-summary", &summary(head.statistics));
        response
    }

    fn stamp(&self, response: &mut Response, query_id: &str) {
        put(response, "x-clickhouse-server-display-name", "walview-clickhouse");
        put(response, "x-clickhouse-query-id", query_id);
        put(response, "x-clickhouse-timezone", &self.timezone);
    }
}

/// The block that ClickHouse since 25.11 puts behind a broken result; it repeats the tag of the
/// head, so that no row can be mistaken for it.
fn marked_exception(text: &str, tag: &str) -> String {
    let length = text.len();
    format!("\r\n__exception__\r\n{tag}\r\n{text}{length} {tag}\r\n__exception__\r\n")
}

fn summary(statistics: Statistics) -> String {
    let Statistics { read_rows, read_bytes, written_rows, written_bytes, result_rows } = statistics;
    format!(
        r#"{{"read_rows":"{read_rows}","read_bytes":"{read_bytes}","written_rows":"{written_rows}","written_bytes":"{written_bytes}","total_rows_to_read":"0","result_rows":"{result_rows}","result_bytes":"0"}}"#
    )
}

/// Values with bytes that no header may hold (a query id may be anything) are left out.
fn put(response: &mut Response, name: &'static str, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        response.headers_mut().insert(name, value);
    }
}

/// Sixteen letters, enough that a row does not hold them by chance.
fn random_letters() -> String {
    let mut bits = u128::from(random_u64()) << 64 | u128::from(random_u64());
    let mut letters = String::new();
    for _ in 0..16 {
        letters.push(char::from(b'a' + u8::try_from(bits % 26).unwrap_or_default()));
        bits /= 26;
    }
    letters
}

/// An id for a query that came without one.
pub(crate) fn random_id() -> String {
    let bits = format!("{:016x}{:016x}", random_u64(), random_u64());
    let part = |from, to| bits.get(from..to).unwrap_or_default();
    [part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)].join("-")
}

/// The standard library's hasher has random keys.
fn random_u64() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// ClickHouse's table from code to status (`exceptionCodeToHTTPStatus`).
fn status(code: i32) -> StatusCode {
    match code {
        // REQUIRED_PASSWORD
        194 => StatusCode::UNAUTHORIZED,
        // UNKNOWN_USER, WRONG_PASSWORD, ACCESS_DENIED, SET_NON_GRANTED_ROLE, AUTHENTICATION_FAILED
        192 | 193 | 497 | 512 | 516 => StatusCode::FORBIDDEN,
        // CANNOT_PARSE_*, DUPLICATE_COLUMN, ILLEGAL_COLUMN, THERE_IS_NO_COLUMN, BAD_ARGUMENTS,
        // UNKNOWN_ELEMENT_IN_AST, UNKNOWN_TYPE_OF_AST_NODE, TOO_DEEP_AST, TOO_BIG_AST,
        // UNEXPECTED_AST_STRUCTURE, SYNTAX_ERROR, INCORRECT_DATA, TYPE_MISMATCH,
        // VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE, CANNOT_COMPILE_REGEXP
        6 | 8 | 15 | 25 | 26 | 27 | 36 | 37 | 38 | 41 | 44 | 53 | 62 | 72 | 117 | 123 | 167
        | 168 | 223 | 321 | 376 | 427 | 441 | 675 | 676 => StatusCode::BAD_REQUEST,
        // UNKNOWN_FUNCTION, _IDENTIFIER, _TYPE, _STORAGE, _TABLE, _AGGREGATE_FUNCTION, _FORMAT,
        // _TYPE_OF_QUERY, _DATABASE, _DATABASE_ENGINE, _SETTING, _DIRECTION_OF_SORTING, _ROLE
        46 | 47 | 50 | 56 | 60 | 63 | 73 | 78 | 81 | 115 | 152 | 336 | 511 => StatusCode::NOT_FOUND,
        // NOT_IMPLEMENTED
        48 => StatusCode::NOT_IMPLEMENTED,
        // CANNOT_OPEN_FILE, SOCKET_TIMEOUT, CANNOT_SCHEDULE_TASK
        76 | 209 | 439 => StatusCode::SERVICE_UNAVAILABLE,
        // TIMEOUT_EXCEEDED
        159 => StatusCode::REQUEST_TIMEOUT,
        // QUERY_IS_TOO_LARGE
        229 => StatusCode::PAYLOAD_TOO_LARGE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
