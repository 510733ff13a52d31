//! What a request asks for, read from its address, headers, form fields and body.
//!
//! ClickHouse takes any name in the address that is not its own as a setting; so do we, and the
//! engine judges them.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method};
use tokio::sync::Semaphore;

use crate::body::{self, Encoding, Upload};
use crate::engine::EngineError;
use crate::sql::{self, Statement};

/// A statement (without an insert's rows) is held in memory; ClickHouse's default for its parser is
/// 256 KiB, but long `IN (...)` lists and inlined rows go past it.
const SQL_BYTES_MAX: usize = 16 << 20;
/// An INSERT's rows are looked for at this length, and at its doubles.
const SQL_LOOK_BYTES: usize = 16 << 10;

/// Everything but the statement.
#[derive(Debug, Default)]
pub(crate) struct Options {
    pub(crate) query: String,
    pub(crate) database: Option<String>,
    pub(crate) format: Option<String>,
    pub(crate) query_id: Option<String>,
    pub(crate) settings: Vec<(String, String)>,
    pub(crate) parameters: Vec<(String, String)>,
    pub(crate) role: Option<String>,
    pub(crate) read_only: bool,
    /// The client believes that what it sets stays for its next request.
    pub(crate) session: bool,
    blocks_in: bool,
}

/// A request whose statement is known; an insert's further rows are still in `upload`.
pub(crate) struct Request {
    pub(crate) options: Options,
    /// The statement; for an insert with rows also their beginning.
    pub(crate) text: Vec<u8>,
    pub(crate) statement: Statement,
    pub(crate) upload: Upload,
}

impl Options {
    fn new(parts: &Parts) -> Result<Self, EngineError> {
        let mut options = Self::default();
        let header = |name: &str| text_header(&parts.headers, name);
        options.database = header("x-clickhouse-database");
        options.format = header("x-clickhouse-format");
        options.query_id = header("x-clickhouse-query-id");
        // As ClickHouse: a GET may not change anything.
        options.read_only = parts.method == Method::GET;
        let address = parts.uri.query().unwrap_or_default();
        for (name, value) in form_urlencoded::parse(address.as_bytes()) {
            options.set(&name, value)?;
        }
        Ok(options)
    }

    /// Users are not checked: the engine knows one user, and the listener is for this machine.
    /// A session's name is accepted, because `clickhouse-connect` sends one with everything; each
    /// request has a connection of its own, so what would need the session is refused.
    fn set(&mut self, name: &str, value: Cow<'_, str>) -> Result<(), EngineError> {
        let on = || matches!(value.as_ref(), "1" | "true");
        match name {
            "query" => self.query.push_str(&value),
            "database" if value.is_empty() => {}
            "database" => self.database = Some(value.into_owned()),
            "default_format" => self.format = Some(value.into_owned()),
            "query_id" => self.query_id = Some(value.into_owned()),
            "role" => self.role = Some(value.into_owned()),
            "session_id" => self.session = !value.is_empty(),
            "decompress" => self.blocks_in = on(),
            "compress" if on() => {
                let text = "compress=1 (ClickHouse's own blocks in answers) is not served";
                return Err(EngineError::new(89, "UNKNOWN_COMPRESSION_METHOD", text));
            }
            "compress"
            | "user"
            | "password"
            | "quota_key"
            | "session_timeout"
            | "session_check"
            | "close_session"
            | "buffer_size"
            | "wait_end_of_query"
            | "stacktrace"
            | "client_protocol_version"
            | "framing" => {}
            _ => match name.strip_prefix("param_") {
                Some(name) => self.parameters.push((name.to_owned(), value.into_owned())),
                None => self.settings.push((name.to_owned(), value.into_owned())),
            },
        }
        Ok(())
    }

    async fn read_form(&mut self, content_type: &str, body: Body) -> Result<(), EngineError> {
        let bad = |error: multer::Error| EngineError::new(36, "BAD_ARGUMENTS", error);
        let boundary = multer::parse_boundary(content_type).map_err(bad)?;
        let limit = u64::try_from(SQL_BYTES_MAX).unwrap_or(u64::MAX);
        let limits = multer::SizeLimit::new().whole_stream(limit);
        let constraints = multer::Constraints::new().size_limit(limits);
        let stream = body.into_data_stream();
        let mut form = multer::Multipart::with_constraints(stream, boundary, constraints);
        while let Some(field) = form.next_field().await.map_err(bad)? {
            let name = field.name().unwrap_or_default().to_owned();
            if field.file_name().is_some() {
                let text = format!("external tables (form field \"{name}\") are not served");
                return Err(EngineError::new(48, "NOT_IMPLEMENTED", text));
            }
            let value = field.text().await.map_err(bad)?;
            self.set(&name, Cow::Owned(value))?;
        }
        Ok(())
    }
}

impl Request {
    /// Reads as much of the request as it takes to know its statement.
    ///
    /// # Errors
    ///
    /// In the engine's shape, to be answered like its own.
    pub(crate) async fn read(
        parts: &Parts,
        body: Body,
        pause_max: Duration,
        decoders: &Arc<Semaphore>,
    ) -> Result<Self, EngineError> {
        let mut options = Options::new(parts)?;
        let content_type = text_header(&parts.headers, CONTENT_TYPE.as_str()).unwrap_or_default();
        let body = if content_type.trim_start().starts_with("multipart/form-data") {
            let form = options.read_form(&content_type, body);
            tokio::time::timeout(pause_max, form).await.map_err(|_elapsed| {
                EngineError::new(209, "SOCKET_TIMEOUT", "the form did not come to its end")
            })??;
            Body::empty()
        } else {
            body
        };
        let encoding = text_header(&parts.headers, CONTENT_ENCODING.as_str());
        let encoding = Encoding::new(encoding.as_deref(), options.blocks_in)?;

        let mut upload = Upload::new(body, pause_max);
        if encoding != Encoding::Plain {
            let turn = Arc::clone(decoders).acquire_owned().await.map_err(|_closed| {
                EngineError::new(210, "NETWORK_ERROR", "the server is shutting down")
            })?;
            upload = upload.decode(encoding, turn);
        }
        let mut text = std::mem::take(&mut options.query).into_bytes();
        let mut statement = Statement::parse(&text);
        if !matches!(statement, Statement::Insert { .. }) {
            if text.iter().any(|byte| !byte.is_ascii_whitespace()) {
                text.push(b'\n');
            }
            read_statement(&mut upload, &mut text).await?;
            statement = Statement::parse(&text);
        }
        Ok(Self { options, text, statement, upload })
    }
}

/// Reads to the end, or until an insert's rows begin.
async fn read_statement(upload: &mut Upload, text: &mut Vec<u8>) -> Result<(), EngineError> {
    let mut look_at = SQL_LOOK_BYTES;
    while let Some(frame) = upload.next().await? {
        // Rows may make a frame large: the limit is for the statement, so a frame more is let in.
        if text.len() > SQL_BYTES_MAX {
            return body::push(text, &frame, SQL_BYTES_MAX);
        }
        text.extend_from_slice(&frame);
        if text.len() >= look_at && sql::begins_insert(text) {
            if Statement::parse(text).is_settled(text.len()) {
                return Ok(());
            }
            look_at = text.len().saturating_mul(2);
        }
    }
    Ok(())
}

fn text_header(headers: &HeaderMap, name: &str) -> Option<String> {
    Some(headers.get(name)?.to_str().ok()?.to_owned())
}
