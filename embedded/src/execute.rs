//! Runs statements on threads that may block.
//!
//! Each statement has a fresh connection, so settings, parameters and the current database cannot
//! leak, and neither can the rest of a failed result (the engine gives it to the connection's next
//! query). A statement holds a permit from before its thread starts until that thread ends: permits
//! count what runs in the engine, not what clients still wait for.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot};

use crate::body::Upload;
use crate::engine::{Connection, Engine, EngineError, Statistics};
use crate::format::Joiner;
use crate::request::Options;

/// Blocks of a result between engine and socket; each may have some 100 MiB.
pub(crate) const BLOCKS_MAX: usize = 1;
/// How long a client may leave a result unread before its query is cancelled.
const SEND_PAUSE_MAX: Duration = Duration::from_secs(300);
/// One statement to run.
pub(crate) struct Job {
    pub(crate) engine: Arc<Engine>,
    pub(crate) options: Options,
    /// Block bytes of a result that cannot be streamed; its text may be several times larger.
    pub(crate) whole_result_bytes_max: u64,
    #[expect(dead_code, reason = "freed when the job ends, which is all that it is for")]
    pub(crate) permit: OwnedSemaphorePermit,
}

/// Known before the first byte of a result.
pub(crate) struct Head {
    pub(crate) format: String,
    /// Of a statement that is over; nothing for a stream that has only begun.
    pub(crate) statistics: Statistics,
}

/// A piece of a result.
pub(crate) enum Block {
    Data(Bytes),
    End,
    Failed(EngineError),
}

/// Where a result goes: once the head or an error, then blocks.
pub(crate) struct Sink {
    pub(crate) head: oneshot::Sender<Result<Head, EngineError>>,
    pub(crate) blocks: mpsc::Sender<Block>,
}

impl Job {
    fn connect(&self, whole_result: bool) -> Result<Connection, EngineError> {
        let mut connection =
            self.engine.connect().map_err(|error| EngineError::new(210, "NETWORK_ERROR", error))?;
        let options = &self.options;
        let mut run = |sql: String| connection.query(sql.as_bytes(), "Null", &[]).map(drop);
        if let Some(database) = &options.database {
            run(format!("USE {}", quoted(database, '`')))?;
        }
        if let Some(role) = &options.role {
            run(format!("SET ROLE {}", quoted(role, '`')))?;
        }
        let mut settings = Vec::new();
        if whole_result {
            settings.push(format!("max_result_bytes = {}", self.whole_result_bytes_max));
            settings.push("result_overflow_mode = 'throw'".to_owned());
        }
        for (name, value) in &options.settings {
            if !is_name(name) {
                let text = format!("Unknown setting '{name}'");
                return Err(EngineError::new(115, "UNKNOWN_SETTING", text));
            }
            settings.push(format!("{name} = {}", quoted(value, '\'')));
        }
        if options.read_only && !options.settings.iter().any(|(name, _)| name == "readonly") {
            settings.push("readonly = 2".to_owned());
        }
        if !settings.is_empty() {
            run(format!("SET {}", settings.join(", ")))?;
        }
        Ok(connection)
    }

    /// Runs anything but an insert that takes rows. `select` tells that its result may be long.
    pub(crate) fn run_query(&self, sql: &[u8], format: &str, select: bool, sink: Sink) {
        let Sink { head, blocks } = sink;
        let joiner = if select { Joiner::new(format) } else { None };
        let unanswered = match joiner {
            Some(joiner) => self.run_stream(sql, format, joiner, head, &blocks),
            None => Some(head),
        };
        if let Some(head) = unanswered {
            self.run_whole(sql, format, head, &blocks);
        }
    }

    /// Gives `head` back when the engine does not stream this kind of statement.
    fn run_stream(
        &self,
        sql: &[u8],
        format: &str,
        mut joiner: Joiner,
        head: oneshot::Sender<Result<Head, EngineError>>,
        blocks: &mpsc::Sender<Block>,
    ) -> Option<oneshot::Sender<Result<Head, EngineError>>> {
        let mut connection = match self.connect(false) {
            Ok(connection) => connection,
            Err(error) => return answer(head, Err(error)),
        };
        let mut stream = match connection.stream(sql, format, &self.options.parameters) {
            Ok(stream) => stream,
            Err(error) if error.is_not_streamable() => return Some(head),
            Err(error) => return answer(head, Err(error)),
        };
        // The first block decides between a status and a body.
        let mut next = stream.next();
        if let Err(error) = next {
            return answer(head, Err(error));
        }
        let statistics = Statistics::default();
        answer(head, Ok(Head { format: format.to_owned(), statistics }));
        loop {
            let block = match next {
                Ok(Some(block)) => block,
                Ok(None) => break,
                Err(error) => {
                    send(blocks, Block::Failed(error));
                    return None;
                }
            };
            let (separator, part) = joiner.join(&Bytes::from_owner(block));
            for bytes in [Bytes::from_static(separator), part] {
                if !bytes.is_empty() && !send(blocks, Block::Data(bytes)) {
                    return None;
                }
            }
            next = stream.next();
        }
        let end = Bytes::from_static(joiner.end());
        if end.is_empty() || send(blocks, Block::Data(end)) {
            send(blocks, Block::End);
        }
        None
    }

    fn run_whole(
        &self,
        sql: &[u8],
        format: &str,
        head: oneshot::Sender<Result<Head, EngineError>>,
        blocks: &mpsc::Sender<Block>,
    ) {
        let result = self
            .connect(true)
            .and_then(|mut connection| connection.query(sql, format, &self.options.parameters));
        match result {
            Err(error) => drop(answer(head, Err(error.with_format_hint(format)))),
            Ok(result) => {
                let statistics = result.statistics();
                answer(head, Ok(Head { format: format.to_owned(), statistics }));
                let bytes = Bytes::from_owner(result);
                if bytes.is_empty() || send(blocks, Block::Data(bytes)) {
                    send(blocks, Block::End);
                }
            }
        }
    }

    /// Runs an insert: `first` are rows that came with the statement, `upload` has those that
    /// follow.
    ///
    /// # Errors
    ///
    /// The engine's, or the upload's; nothing that the engine has not yet made into a part stays
    /// then.
    pub(crate) fn run_insert(
        &self,
        sql: &[u8],
        format: &str,
        first: &[u8],
        upload: &mut Upload,
    ) -> Result<Statistics, EngineError> {
        let mut connection = self.connect(false)?;
        let mut insert = connection.insert(sql, format, &self.options.parameters)?;
        if !first.is_empty() {
            insert.append(first)?;
        }
        while let Some(rows) = upload.next_blocking()? {
            insert.append(&rows)?;
        }
        insert.finish()
    }
}

/// Answers `head`; a client that is gone does not care. Always `None`, for `return`.
fn answer(
    head: oneshot::Sender<Result<Head, EngineError>>,
    result: Result<Head, EngineError>,
) -> Option<oneshot::Sender<Result<Head, EngineError>>> {
    if head.send(result).is_err() {
        tracing::debug!("the client left before the answer");
    }
    None
}

/// False when the client is gone or leaves its result unread.
fn send(blocks: &mpsc::Sender<Block>, block: Block) -> bool {
    Handle::current().block_on(blocks.send_timeout(block, SEND_PAUSE_MAX)).is_ok()
}

fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b == b'_' || b == b'.' || b.is_ascii_alphanumeric())
}

fn quoted(text: &str, quote: char) -> String {
    let escaped = text.replace('\\', "\\\\").replace(quote, &format!("\\{quote}"));
    format!("{quote}{escaped}{quote}")
}
