//! A replication session: the walsender's protocol up to the point where it streams.
//!
//! ```text
//!  open ─► TCP or Unix socket ─► TLS ─► start-up, password ─► Replication
//!              query(…)  IDENTIFY_SYSTEM, CREATE_REPLICATION_SLOT, plain SQL
//!              start(…)  START_REPLICATION ─► Incoming and Outgoing: the two directions of the
//!                                             socket, owned by the stream
//! ```
//!
//! Our own, because no client library hands over what the socket holds at once: see "Choices" in
//! `ARCHITECTURE.md`. The messages' formats and SCRAM are postgres-protocol's, TLS is the SQL
//! sessions' own.
//!
//! Invariants:
//! - a dropped session closes its socket at once; there is no task;
//! - of an error of the server only SQLSTATE and message are kept: its `DETAIL` may hold values.

use super::config::{Secret, SourceConfig};
use super::frames::{FrameError, Frames, HEADER_BYTES};
use super::socket::{Socket, Watch};
use bytes::{Buf, BufMut, Bytes, BytesMut};
use postgres_protocol::authentication::{md5_hash, sasl};
use postgres_protocol::message::backend::{self, AuthenticationSaslBody, DataRowBody, Message};
use postgres_protocol::message::frontend;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::{TcpStream, UnixStream};
use tokio_postgres::fallible_iterator::FallibleIterator;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres_rustls::MakeRustlsConnect;
use walview_core::position::Lsn;

/// The longest message before the stream: answers are a few rows of a few cells.
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// How long [`Replication::close`] waits for the server to take leave.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// `CopyBothResponse`, which postgres-protocol does not know.
const COPY_BOTH: u8 = b'W';

/// What went wrong in a replication session.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReplicationError {
    #[error("{message} (SQLSTATE {code})")]
    Server { code: String, message: String },
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("TLS handshake failed: {0}")]
    Tls(#[source] io::Error),
    #[error("the server does not support TLS")]
    NoTls,
    #[error("the server asks for a password")]
    NoPassword,
    /// The other side does not prove who it is, or wants what we cannot do.
    #[error("{0}")]
    Login(String),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("{0}")]
    Protocol(String),
}

type Result<T> = std::result::Result<T, ReplicationError>;

/// A row of a query's answer: the text of each cell.
pub(super) type Row = Vec<Option<String>>;

trait Connection: AsyncRead + AsyncWrite + Unpin + Send + Sync {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + Sync> Connection for T {}

/// What the server answers to `IDENTIFY_SYSTEM`.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    pub(super) system_identifier: u64,
    pub(super) timeline: u32,
    /// The end of the log that is on disk.
    pub(super) flushed: Lsn,
}

/// An open session that does not stream yet.
pub(super) struct Replication {
    socket: Box<dyn Connection>,
    watch: Watch,
    frames: Frames,
}

impl Replication {
    /// `options` are command-line options of the server's process.
    pub(super) async fn open(
        config: &SourceConfig,
        tls: Option<rustls::ClientConfig>,
        options: &str,
    ) -> Result<Self> {
        let watch = Watch::default();
        let socket = connect(config, tls, watch.clone()).await?;
        let mut session = Self { socket, watch, frames: Frames::new(ANSWER_BYTES_MAX) };
        session
            .send(|out| {
                let parameters = [
                    ("user", config.user.as_str()),
                    ("database", &config.database),
                    ("replication", "database"),
                    ("client_encoding", "UTF8"),
                    ("application_name", &config.application_name()),
                    ("options", options),
                ];
                frontend::startup_message(parameters, out)
            })
            .await?;
        session.log_in(config).await?;
        while !matches!(session.answer().await?, Message::ReadyForQuery(_)) {}
        Ok(session)
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "every other kind of message is refused")]
    async fn log_in(&mut self, config: &SourceConfig) -> Result<()> {
        let password = || {
            let password = config.password.as_ref().map(Secret::expose);
            password.map(str::as_bytes).ok_or(ReplicationError::NoPassword)
        };
        loop {
            match self.answer().await? {
                Message::AuthenticationOk => return Ok(()),
                Message::AuthenticationCleartextPassword => {
                    let password = password()?;
                    self.send(|out| frontend::password_message(password, out)).await?;
                }
                Message::AuthenticationMd5Password(body) => {
                    let hash = md5_hash(config.user.as_bytes(), password()?, body.salt());
                    self.send(|out| frontend::password_message(hash.as_bytes(), out)).await?;
                }
                Message::AuthenticationSasl(body) => {
                    self.scram(&body, password()?).await?;
                }
                _ => {
                    let message = "the server asks for a way to log in that is not supported";
                    return Err(ReplicationError::Login(message.to_owned()));
                }
            }
        }
    }

    /// Without channel binding: where there is TLS, the server's certificate is verified.
    async fn scram(&mut self, offered: &AuthenticationSaslBody, password: &[u8]) -> Result<()> {
        let offered: Vec<&str> = offered.mechanisms().collect()?;
        if !offered.contains(&sasl::SCRAM_SHA_256) {
            let message = format!("the server offers {}, not SCRAM-SHA-256", offered.join(", "));
            return Err(ReplicationError::Login(message));
        }
        let distrust = |error: io::Error| ReplicationError::Login(error.to_string());
        let unexpected = || ReplicationError::Protocol("a log-in out of order".to_owned());
        let mut scram = sasl::ScramSha256::new(password, sasl::ChannelBinding::unsupported());
        self.send(|out| frontend::sasl_initial_response(sasl::SCRAM_SHA_256, scram.message(), out))
            .await?;
        let Message::AuthenticationSaslContinue(body) = self.answer().await? else {
            return Err(unexpected());
        };
        scram.update(body.data()).map_err(distrust)?;
        self.send(|out| frontend::sasl_response(scram.message(), out)).await?;
        let Message::AuthenticationSaslFinal(body) = self.answer().await? else {
            return Err(unexpected());
        };
        scram.finish(body.data()).map_err(distrust)
    }

    /// Runs SQL or a replication command; the session can be used on after an error of the server.
    /// A query that is dropped while it runs leaves its answer in the session: drop that, too.
    pub(super) async fn query(&mut self, command: &str) -> Result<Vec<Row>> {
        self.send(|out| frontend::query(command, out)).await?;
        let (mut rows, mut refused) = (Vec::new(), None);
        loop {
            match self.answer().await {
                Ok(Message::DataRow(row)) => rows.push(cells(&row)?),
                Ok(Message::ReadyForQuery(_)) => return refused.map_or(Ok(rows), Err),
                Ok(_) => {}
                Err(error @ ReplicationError::Server { .. }) => refused = Some(error),
                Err(error) => return Err(error),
            }
        }
    }

    /// Asks who answers, which is also how a pooler is found out.
    pub(super) async fn identify(&mut self) -> Result<Identity> {
        let rows = self.query("IDENTIFY_SYSTEM").await?;
        let cell = |at: usize| rows.first().and_then(|row| row.get(at)).and_then(Option::as_deref);
        let identity = || {
            Some(Identity {
                system_identifier: cell(0)?.parse().ok()?,
                timeline: cell(1)?.parse().ok()?,
                flushed: cell(2)?.parse().ok()?,
            })
        };
        let odd = || ReplicationError::Protocol("IDENTIFY_SYSTEM gave an odd answer".to_owned());
        identity().ok_or_else(odd)
    }

    /// `command` is a `START_REPLICATION`. Once this returns, the slot is held by this session.
    pub(super) async fn start(mut self, command: &str) -> Result<(Incoming, Outgoing)> {
        self.send(|out| frontend::query(command, out)).await?;
        loop {
            let message = self.message().await?;
            if message.first() == Some(&COPY_BOTH) {
                break;
            }
            parse(message)?;
        }
        let (read, write) = tokio::io::split(self.socket);
        let incoming = Incoming { socket: read, watch: self.watch, frames: self.frames };
        Ok((incoming, Outgoing { socket: write }))
    }

    /// Ends the session in order; returns when the server has ended it too, or does not answer.
    pub(super) async fn close(mut self) {
        let leave = async {
            self.send(|out| {
                frontend::terminate(out);
                Ok(())
            })
            .await?;
            loop {
                self.message().await?;
            }
        };
        let left: std::result::Result<Result<()>, _> =
            tokio::time::timeout(CLOSE_TIMEOUT, leave).await;
        if let Ok(Err(error)) = left {
            tracing::debug!(%error, "replication session has ended");
        }
    }

    async fn send(&mut self, write: impl FnOnce(&mut BytesMut) -> io::Result<()>) -> Result<()> {
        send(&mut self.socket, write).await
    }

    /// The next message; an error of the server is an error.
    async fn answer(&mut self) -> Result<Message> {
        parse(self.message().await?)
    }

    async fn message(&mut self) -> Result<BytesMut> {
        loop {
            // Whatever is longer is not PostgreSQL.
            let odd = |error: FrameError| ReplicationError::Protocol(error.to_string());
            if let Some(message) = self.frames.cut().map_err(odd)? {
                return Ok(message);
            }
            read(&mut self.socket, &mut self.frames).await?;
        }
    }
}

/// What comes once the session streams.
pub(super) struct Incoming {
    socket: ReadHalf<Box<dyn Connection>>,
    watch: Watch,
    frames: Frames,
}

impl Incoming {
    /// The longest message from here on.
    pub(super) fn limit(&mut self, message_bytes_max: usize) {
        self.frames.limit(message_bytes_max);
    }

    /// Whether what comes while nobody reads wakes the runtime, which makes it cheaper to read soon.
    pub(super) fn watch_between_reads(&self, watch: bool) {
        self.watch.between_reads(watch);
    }

    /// Reads what is there, at least one byte, and says how many. May be dropped while it waits.
    pub(super) async fn read(&mut self) -> Result<usize> {
        read(&mut self.socket, &mut self.frames).await
    }

    /// Drops a whole message of whatever kind, if one has been read.
    pub(super) fn skip(&mut self) -> Result<bool> {
        Ok(self.frames.cut()?.is_some())
    }

    /// The next piece of the stream, if a whole one has been read.
    pub(super) fn copied(&mut self) -> Result<Option<Bytes>> {
        while let Some(mut message) = self.frames.cut()? {
            if message.first() == Some(&backend::COPY_DATA_TAG) {
                message.advance(HEADER_BYTES);
                return Ok(Some(message.freeze()));
            }
            if let Message::CopyDone | Message::ReadyForQuery(_) = parse(message)? {
                return Err(ReplicationError::Protocol("the server ended the stream".to_owned()));
            }
        }
        Ok(None)
    }
}

/// What is sent while the session streams.
pub(super) struct Outgoing {
    socket: WriteHalf<Box<dyn Connection>>,
}

impl Outgoing {
    /// Everything up to `durable` is stored, written and applied here; `at` in microseconds since
    /// 2000-01-01 UTC.
    pub(super) async fn status(&mut self, durable: Lsn, at: i64) -> Result<()> {
        let mut status = [0; 34];
        let mut fields = &mut status[..];
        fields.put_u8(b'r');
        for _written_flushed_applied in 0..3 {
            fields.put_u64(durable.0);
        }
        fields.put_i64(at);
        // No answer is wanted.
        fields.put_u8(0);
        send(&mut self.socket, |out| {
            frontend::CopyData::new(&status[..])?.write(out);
            Ok(())
        })
        .await
    }

    /// Ends stream and session.
    pub(super) async fn end(&mut self) -> Result<()> {
        send(&mut self.socket, |out| {
            frontend::copy_done(out);
            frontend::terminate(out);
            Ok(())
        })
        .await
    }
}

async fn send(
    socket: &mut (impl AsyncWrite + Unpin),
    write: impl FnOnce(&mut BytesMut) -> io::Result<()>,
) -> Result<()> {
    let mut out = BytesMut::new();
    write(&mut out)?;
    socket.write_all(&out).await?;
    Ok(socket.flush().await?)
}

async fn read(socket: &mut (impl AsyncRead + Unpin), frames: &mut Frames) -> Result<usize> {
    match socket.read_buf(frames.room()?).await? {
        0 => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "end of the stream").into()),
        bytes => Ok(bytes),
    }
}

fn parse(mut message: BytesMut) -> Result<Message> {
    let odd = |error: io::Error| ReplicationError::Protocol(error.to_string());
    let message = Message::parse(&mut message).map_err(odd)?;
    let message = message.ok_or_else(|| ReplicationError::Protocol("half a message".to_owned()))?;
    let Message::ErrorResponse(body) = message else {
        return Ok(message);
    };
    let (mut code, mut message) = (String::new(), String::new());
    let mut fields = body.fields();
    while let Some(field) = fields.next().map_err(odd)? {
        let text = || String::from_utf8_lossy(field.value_bytes()).into_owned();
        match field.type_() {
            b'C' => code = text(),
            b'M' => message = text(),
            _ => {}
        }
    }
    Err(ReplicationError::Server { code, message })
}

fn cells(row: &DataRowBody) -> Result<Row> {
    let cell = |range: Option<std::ops::Range<usize>>| {
        let bytes = range.and_then(|range| row.buffer().get(range));
        Ok(bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned()))
    };
    row.ranges()
        .map(cell)
        .collect()
        .map_err(|error: io::Error| ReplicationError::Protocol(error.to_string()))
}

async fn connect(
    config: &SourceConfig,
    tls: Option<rustls::ClientConfig>,
    watch: Watch,
) -> Result<Box<dyn Connection>> {
    if config.is_unix_socket() {
        return Ok(Box::new(UnixStream::connect(config.address()).await?));
    }
    let socket = TcpStream::connect((config.host.as_str(), config.port)).await?;
    socket.set_nodelay(true)?;
    let mut socket = Socket::new(socket, watch)?;
    let Some(tls) = tls else {
        return Ok(Box::new(socket));
    };
    let request = |out: &mut BytesMut| {
        frontend::ssl_request(out);
        Ok(())
    };
    send(&mut socket, request).await?;
    // One byte and not more: what follows in plain text is not the server's.
    if socket.read_u8().await? != b'S' {
        return Err(ReplicationError::NoTls);
    }
    let mut tls = MakeRustlsConnect::new(tls);
    let tls = MakeTlsConnect::<Socket>::make_tls_connect(&mut tls, &config.host)
        .map_err(|error| ReplicationError::Tls(io::Error::other(error)))?;
    Ok(Box::new(tls.connect(socket).await.map_err(ReplicationError::Tls)?))
}
