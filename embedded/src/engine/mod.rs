//! ClickHouse's engine as safe Rust: the only module with `unsafe` code.
//!
//! ```text
//! Engine ── connect() ──> Connection ── query()  ──> QueryResult
//!   (one per process)       (one per request)  stream() ──> ResultStream ── next() ──> QueryResult
//!                                              insert() ──> InsertStream ── append()/finish()
//! ```
//!
//! Invariants:
//! - One engine per process and one data folder per engine; the library keeps global state.
//! - The engine lives as long as one connection is open, so `Engine` holds one (`anchor`).
//! - A connection has one thing running at a time: streams borrow it mutably.
//! - Settings, parameters and the current database belong to a connection. Opening one costs less
//!   than 0.1 ms, so each request opens its own and nothing has to be reset.
//! - Every call here may block: callers are on threads that may.

mod ffi;

use std::ffi::{CStr, CString, c_char, c_int};
use std::path::Path;
use std::ptr;
use std::sync::Arc;

use ffi::Functions;

/// What the engine answered instead of a result.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{message}")]
pub(crate) struct EngineError {
    /// ClickHouse's error code, as in `system.errors`.
    pub(crate) code: i32,
    /// `Code: N. DB::Exception: ... (NAME)`, without the version.
    pub(crate) message: String,
}

/// `UNKNOWN_EXCEPTION`: the engine gave no code.
const CODE_UNKNOWN: i32 = 1002;

/// `TOO_MANY_ROWS_OR_BYTES`.
const CODE_RESULT_TOO_LARGE: i32 = 396;

impl EngineError {
    /// An error of our own in the engine's shape.
    pub(crate) fn new(code: i32, name: &str, text: impl std::fmt::Display) -> Self {
        Self { code, message: format!("Code: {code}. DB::Exception: {text} ({name})") }
    }

    /// Parses the engine's text. Some calls add the version, others do not; it is cut off here so
    /// that the HTTP layer adds it once. Some wrap an exception's text in another of its kind: the
    /// innermost is the one to show.
    fn parse(text: &str) -> Self {
        const WRAPPED: &str = "DB::Exception: Code: ";
        let text = match text.rfind(WRAPPED) {
            Some(at) => text.get(at + WRAPPED.len() - "Code: ".len()..).unwrap_or(text),
            None => text,
        };
        let text = text.split(" (version ").next().unwrap_or(text).trim_end();
        let code = text
            .strip_prefix("Code: ")
            .and_then(|rest| rest.split('.').next())
            .and_then(|digits| digits.parse().ok());
        match code {
            Some(code) => Self { code, message: text.to_owned() },
            None => Self::new(CODE_UNKNOWN, "UNKNOWN_EXCEPTION", text),
        }
    }

    /// Says what to do about a result that is too large to be held.
    pub(crate) fn with_format_hint(mut self, format: &str) -> Self {
        if self.code == CODE_RESULT_TOO_LARGE {
            self.message = format!(
                "{}: results in format {format} are held in memory; ask for JSONEachRow, CSV, \
                 Native, ArrowStream or another format that is streamed",
                self.message
            );
        }
        self
    }

    /// True when `stream` was asked to run a statement that yields no stream (DDL and the like).
    pub(crate) fn is_not_streamable(&self) -> bool {
        self.code == 36 && self.message.contains("Streaming query is not supported")
    }
}

/// Why the engine did not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OpenError {
    #[error(
        "cannot load ClickHouse's engine from \"{path}\": run scripts/setup, or name the file \
             with --lib or WALVIEW_LIBCHDB"
    )]
    Load {
        path: String,
        #[source]
        source: libloading::Error,
    },
    #[error("the path \"{0}\" holds a zero byte or is not UTF-8")]
    Path(String),
    #[error("the engine refused to open \"{0}\": see its message above")]
    Connect(String),
}

/// The process's engine, open on one data folder.
pub(crate) struct Engine {
    functions: Functions,
    arguments: Vec<CString>,
    data: String,
}

impl Engine {
    /// Loads the library and checks that every function is there.
    ///
    /// # Errors
    ///
    /// [`OpenError::Load`] when it is missing or of another kind.
    pub(crate) fn load(
        library: &Path,
        data: &Path,
        settings: &[String],
    ) -> Result<Self, OpenError> {
        let functions = Functions::load(library.as_os_str())
            .map_err(|source| OpenError::Load { path: library.display().to_string(), source })?;
        // SAFETY: sets a flag, callable at any time. Signals are ours: the library's handlers would
        // turn SIGTERM into a death without closing.
        unsafe { (functions.set_signal_handlers_enabled)(0) };
        let data =
            data.to_str().ok_or_else(|| OpenError::Path(data.display().to_string()))?.to_owned();
        let arguments = ["clickhouse".to_owned(), format!("--path={data}")]
            .into_iter()
            .chain(settings.iter().cloned())
            .map(|argument| {
                CString::new(argument.clone()).map_err(|source| {
                    tracing::debug!(%source, "argument with a zero byte");
                    OpenError::Path(argument)
                })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { functions, arguments, data })
    }

    /// The library's own version, e.g. `26.7.3`.
    pub(crate) fn library_version(&self) -> String {
        // SAFETY: returns a static, zero-terminated string.
        unsafe { owned_text((self.functions.version)()) }.unwrap_or_default()
    }

    /// Opens a connection; the first one starts the engine.
    ///
    /// # Errors
    ///
    /// [`OpenError::Connect`]: the engine gives no reason, but prints one.
    pub(crate) fn connect(self: &Arc<Self>) -> Result<Connection, OpenError> {
        let mut argv: Vec<*mut c_char> =
            self.arguments.iter().map(|argument| argument.as_ptr().cast_mut()).collect();
        let argc = c_int::try_from(argv.len()).unwrap_or(c_int::MAX);
        // SAFETY: argv holds argc pointers to zero-terminated strings that outlive the call; the
        // library copies them and does not write to them.
        let slot = unsafe { (self.functions.connect)(argc, argv.as_mut_ptr()) };
        // SAFETY: a slot that is not null points to a connection pointer owned by the library.
        if slot.is_null() || unsafe { *slot }.is_null() {
            return Err(OpenError::Connect(self.data.clone()));
        }
        Ok(Connection { engine: Arc::clone(self), slot })
    }

    /// Stops the engine's threads. Refused (false) while a connection is open.
    pub(crate) fn shutdown(&self) -> bool {
        // SAFETY: callable at any time; it refuses while connections are open.
        unsafe { (self.functions.shutdown)() == 0 }
    }
}

/// Ends the process at once. `exit` would run the library's destructors, and those crash or hang
/// under statements that still run (seen with 26.7: SIGSEGV, SIGABRT, an endless loop). Nothing is
/// lost: parts that are in a table are on disk.
pub(crate) fn leave(code: c_int) -> ! {
    unsafe extern "C" {
        fn _exit(code: c_int) -> !;
    }
    // SAFETY: POSIX's _exit takes any code and touches no memory of ours.
    unsafe { _exit(code) }
}

/// A session of the engine.
pub(crate) struct Connection {
    engine: Arc<Engine>,
    slot: ffi::ConnectionSlot,
}

// SAFETY: the library allows a connection to be used from any thread, one at a time; no method
// that takes `&self` reaches the library, so `&Connection` cannot be used from two threads.
unsafe impl Send for Connection {}

/// Parameters of a query: name without `param_`, value as text.
pub(crate) type Parameters = [(String, String)];

impl Connection {
    /// Runs a statement and collects its result.
    ///
    /// # Errors
    ///
    /// The engine's.
    pub(crate) fn query(
        &mut self,
        sql: &[u8],
        format: &str,
        parameters: &Parameters,
    ) -> Result<QueryResult, EngineError> {
        let result = self.call(self.functions().query, sql, format, parameters);
        QueryResult::checked(*self.functions(), result)
    }

    /// Starts a query whose result comes in blocks. Errors in the text may come with the first
    /// block instead.
    ///
    /// # Errors
    ///
    /// The engine's; [`EngineError::is_not_streamable`] for statements without a result.
    pub(crate) fn stream(
        &mut self,
        sql: &[u8],
        format: &str,
        parameters: &Parameters,
    ) -> Result<ResultStream<'_>, EngineError> {
        let handle = self.call(self.functions().stream_query, sql, format, parameters);
        let handle = QueryResult::checked(*self.functions(), handle)?;
        Ok(ResultStream { connection: self, handle, finished: false })
    }

    /// Opens an insert whose rows follow with [`InsertStream::append`]. `sql` ends before FORMAT or
    /// VALUES: the library ignores a format in the text and adds its own clause.
    ///
    /// # Errors
    ///
    /// The engine's: no such table, no such column, syntax.
    pub(crate) fn insert(
        &mut self,
        sql: &[u8],
        format: &str,
        parameters: &Parameters,
    ) -> Result<InsertStream<'_>, EngineError> {
        let handle = self.call(self.functions().insert_open, sql, format, parameters);
        let stream = InsertStream { connection: self, handle, finished: false };
        match stream.error() {
            Some(error) => Err(error),
            None => Ok(stream),
        }
    }

    fn functions(&self) -> &Functions {
        &self.engine.functions
    }

    fn handle(&mut self) -> ffi::ConnectionPtr {
        // SAFETY: the slot is valid until `drop`.
        unsafe { *self.slot }
    }

    fn call(
        &mut self,
        function: unsafe extern "C" fn(
            ffi::ConnectionPtr,
            *const c_char,
            usize,
            *const c_char,
            usize,
            *const *const c_char,
            *const usize,
            *const *const c_char,
            *const usize,
            usize,
        ) -> *mut std::ffi::c_void,
        sql: &[u8],
        format: &str,
        parameters: &Parameters,
    ) -> *mut std::ffi::c_void {
        let pointers = |of: fn(&(String, String)) -> &String| -> (Vec<*const c_char>, Vec<usize>) {
            parameters.iter().map(|pair| (of(pair).as_ptr().cast(), of(pair).len())).unzip()
        };
        let (names, name_lengths) = pointers(|pair| &pair.0);
        let (values, value_lengths) = pointers(|pair| &pair.1);
        let connection = self.handle();
        // SAFETY: each pointer comes with its length and outlives the call; the four arrays have
        // `parameters.len()` elements; the connection is open and, by `&mut self`, not in use.
        unsafe {
            function(
                connection,
                sql.as_ptr().cast(),
                sql.len(),
                format.as_ptr().cast(),
                format.len(),
                names.as_ptr(),
                name_lengths.as_ptr(),
                values.as_ptr(),
                value_lengths.as_ptr(),
                parameters.len(),
            )
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // SAFETY: the slot came from `connect` and is closed once; streams borrow the connection,
        // so none is open.
        unsafe { (self.engine.functions.close)(self.slot) };
    }
}

/// A result, or a block of one. Frees the engine's memory when dropped; dereferences to its bytes.
pub(crate) struct QueryResult {
    functions: Functions,
    handle: ffi::ResultPtr,
}

// SAFETY: a result is an owned buffer that no connection refers to any more.
unsafe impl Send for QueryResult {}
// SAFETY: every call that takes `&QueryResult` only reads fields of that buffer.
unsafe impl Sync for QueryResult {}

impl QueryResult {
    fn checked(functions: Functions, handle: ffi::ResultPtr) -> Result<Self, EngineError> {
        if handle.is_null() {
            let text = "the engine gave no answer";
            return Err(EngineError::new(CODE_UNKNOWN, "UNKNOWN_EXCEPTION", text));
        }
        let result = Self { functions, handle };
        // SAFETY: the handle is a live result; its error is null or zero-terminated and is copied.
        match unsafe { owned_text((functions.result_error)(handle)) } {
            Some(text) => Err(EngineError::parse(&text)),
            None => Ok(result),
        }
    }

    /// Rows in this result.
    pub(crate) fn rows(&self) -> u64 {
        // SAFETY: the handle is a live result.
        unsafe { (self.functions.result_rows_read)(self.handle) }
    }

    /// Rows and bytes read from tables, rows and bytes written.
    pub(crate) fn statistics(&self) -> Statistics {
        let functions = &self.functions;
        // SAFETY: the handle is a live result, here and in the lines below.
        let read_rows = unsafe { (functions.result_storage_rows_read)(self.handle) };
        // SAFETY: as above.
        let read_bytes = unsafe { (functions.result_storage_bytes_read)(self.handle) };
        // SAFETY: as above.
        let written_rows = unsafe { (functions.result_rows_written)(self.handle) };
        // SAFETY: as above.
        let written_bytes = unsafe { (functions.result_bytes_written)(self.handle) };
        Statistics { read_rows, read_bytes, written_rows, written_bytes, result_rows: self.rows() }
    }
}

impl AsRef<[u8]> for QueryResult {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: the handle is a live result.
        let length = unsafe { (self.functions.result_length)(self.handle) };
        // SAFETY: as above.
        let buffer = unsafe { (self.functions.result_buffer)(self.handle) };
        if length == 0 || buffer.is_null() {
            return &[];
        }
        // SAFETY: the buffer holds `length` bytes, is not written to, and lives until the result
        // is destroyed, which is after this borrow.
        unsafe { std::slice::from_raw_parts(buffer.cast(), length) }
    }
}

impl Drop for QueryResult {
    fn drop(&mut self) {
        // SAFETY: a live result, destroyed once.
        unsafe { (self.functions.result_destroy)(self.handle) };
    }
}

/// What a statement did, for the `X-ClickHouse-Summary` header.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Statistics {
    pub(crate) read_rows: u64,
    pub(crate) read_bytes: u64,
    pub(crate) written_rows: u64,
    pub(crate) written_bytes: u64,
    pub(crate) result_rows: u64,
}

/// A running query; dropping it cancels what is left.
pub(crate) struct ResultStream<'a> {
    connection: &'a mut Connection,
    handle: QueryResult,
    finished: bool,
}

impl ResultStream<'_> {
    /// The next block, each formatted as a result of its own: formats with a head repeat it. The
    /// last block has no rows, but may have bytes (the head, when the whole result is empty).
    ///
    /// # Errors
    ///
    /// The engine's; the stream is over then.
    pub(crate) fn next(&mut self) -> Result<Option<QueryResult>, EngineError> {
        if self.finished {
            return Ok(None);
        }
        let connection = self.connection.handle();
        let functions = *self.connection.functions();
        // SAFETY: the stream was opened on this connection and neither is in use elsewhere.
        let block = unsafe { (functions.stream_fetch)(connection, self.handle.handle) };
        let block = QueryResult::checked(functions, block);
        self.finished = !matches!(&block, Ok(block) if block.rows() > 0);
        block.map(Some)
    }
}

impl Drop for ResultStream<'_> {
    fn drop(&mut self) {
        if !self.finished {
            let connection = self.connection.handle();
            // SAFETY: a stream that is still open on this connection; its handle is freed after
            // this, by its own drop.
            unsafe { (self.connection.functions().stream_cancel)(connection, self.handle.handle) };
        }
    }
}

/// An insert that takes its rows in pieces. Dropping it unfinished cancels it: what the engine has
/// not yet made into a part is gone.
pub(crate) struct InsertStream<'a> {
    connection: &'a mut Connection,
    handle: ffi::InsertPtr,
    finished: bool,
}

impl InsertStream<'_> {
    /// Hands bytes over; pieces need not end at rows. Blocks while the engine is behind.
    ///
    /// # Errors
    ///
    /// The engine's, possibly about bytes of an earlier call.
    pub(crate) fn append(&mut self, bytes: &[u8]) -> Result<(), EngineError> {
        let append = self.connection.functions().insert_append;
        // SAFETY: the stream is open; the bytes are copied before the call returns.
        if unsafe { append(self.handle, bytes.as_ptr().cast(), bytes.len()) } == 0 {
            return Ok(());
        }
        Err(self.error().unwrap_or_else(|| {
            EngineError::new(CODE_UNKNOWN, "UNKNOWN_EXCEPTION", "the engine refused the rows")
        }))
    }

    /// Ends the rows and waits until they are in the table.
    ///
    /// # Errors
    ///
    /// The engine's; blocks that it had already written stay, as in ClickHouse.
    pub(crate) fn finish(mut self) -> Result<Statistics, EngineError> {
        self.finished = true;
        let functions = *self.connection.functions();
        // SAFETY: the stream is open and done once, here.
        let result = unsafe { (functions.insert_done)(self.handle) };
        if result.is_null()
            && let Some(error) = self.error()
        {
            return Err(error);
        }
        Ok(QueryResult::checked(functions, result)?.statistics())
    }

    fn error(&self) -> Option<EngineError> {
        if self.handle.is_null() {
            let text = "the engine opened no insert";
            return Some(EngineError::new(CODE_UNKNOWN, "UNKNOWN_EXCEPTION", text));
        }
        // SAFETY: a live stream; the text is null or zero-terminated and is copied.
        let text = unsafe { owned_text((self.connection.functions().insert_error)(self.handle)) };
        text.map(|text| EngineError::parse(&text))
    }
}

impl Drop for InsertStream<'_> {
    fn drop(&mut self) {
        if self.handle.is_null() {
            return;
        }
        let functions = *self.connection.functions();
        if !self.finished {
            // SAFETY: a live stream that was not finished.
            unsafe { (functions.insert_cancel)(self.handle) };
        }
        // SAFETY: a live stream, destroyed once.
        unsafe { (functions.insert_destroy)(self.handle) };
        self.handle = ptr::null_mut();
    }
}

/// Copies a C string; `None` for null.
///
/// # Safety
///
/// `text` is null or points to a zero-terminated string that lives for this call.
unsafe fn owned_text(text: *const c_char) -> Option<String> {
    if text.is_null() {
        return None;
    }
    // SAFETY: the caller's promise.
    Some(unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_lose_their_version_and_keep_their_code() {
        let text = "Code: 60. DB::Exception: Table x.(y) does not exist. (UNKNOWN_TABLE)";
        for suffix in ["", " (version 26.7.2.1)", " (version 26.7.2.1 (official build))\n"] {
            let error = EngineError::parse(&format!("{text}{suffix}"));
            assert_eq!((error.code, error.message.as_str()), (60, text));
        }
        let inner = format!("{text} (version 26.7.2.1)");
        let wrapped =
            format!("Code: 60. DB::Exception: {inner}. (UNKNOWN_TABLE) (version 26.7.2.1)");
        assert_eq!(EngineError::parse(&wrapped).message, text);
        assert_eq!(EngineError::parse("no code").code, CODE_UNKNOWN);
    }
}
