//! Bytes of a request on their way from the socket to a thread of the engine.
//!
//! ```text
//! hyper ── frame ──> pump (async, timeout per frame) ── Piece, bounded ──> Rows (io::Read) ──> decoder
//! ```
//!
//! Invariants: at most [`PIECES_MAX`] frames wait, so a slow engine slows the client; an upload that
//! breaks off never looks like one that ended, because the end is a piece of its own.

use std::io::{self, BufRead, BufReader, Read};
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use bytes::{Buf, Bytes};
use futures_util::StreamExt;
use ruzstd::decoding::{FrameDecoder, StreamingDecoder};
use tokio::sync::mpsc;

use crate::engine::EngineError;

/// Frames between socket and engine; hyper's frames are at most some 400 KiB.
const PIECES_MAX: usize = 4;
/// A compressed block larger than this is refused (ClickHouse's own limit is 1 GiB).
const BLOCK_BYTES_MAX: usize = 256 << 20;

/// A request's body, read frame by frame.
pub(crate) struct Upload {
    frames: BodyDataStream,
    pause_max: Duration,
}

impl Upload {
    /// `pause_max` is how long the client may pause (ClickHouse's `http_receive_timeout`).
    pub(crate) fn new(body: Body, pause_max: Duration) -> Self {
        Self {
            frames: body.into_data_stream(),
            pause_max,
        }
    }

    /// The next frame; `None` at the end.
    ///
    /// # Errors
    ///
    /// 210 when the client breaks off, 209 when it pauses for too long.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, EngineError> {
        match tokio::time::timeout(self.pause_max, self.frames.next()).await {
            Ok(None) => Ok(None),
            Ok(Some(Ok(frame))) => Ok(Some(frame)),
            Ok(Some(Err(error))) => Err(EngineError::new(210, "NETWORK_ERROR", error)),
            Err(elapsed) => {
                tracing::debug!(%elapsed, "upload paused");
                let text = format!("the upload paused for {} s", self.pause_max.as_secs());
                Err(EngineError::new(209, "SOCKET_TIMEOUT", text))
            }
        }
    }

    /// Appends the rest to `text`.
    ///
    /// # Errors
    ///
    /// As [`Upload::next`], and 307 past `bytes_max`.
    pub(crate) async fn read_to_end(
        &mut self,
        text: &mut Vec<u8>,
        bytes_max: usize,
    ) -> Result<(), EngineError> {
        while let Some(frame) = self.next().await? {
            push(text, &frame, bytes_max)?;
        }
        Ok(())
    }
}

/// Appends within a limit.
///
/// # Errors
///
/// 307 past `bytes_max`.
pub(crate) fn push(text: &mut Vec<u8>, more: &[u8], bytes_max: usize) -> Result<(), EngineError> {
    if text.len() + more.len() > bytes_max {
        let reason = format!("the query is longer than {bytes_max} bytes");
        return Err(EngineError::new(307, "TOO_MANY_BYTES", reason));
    }
    text.extend_from_slice(more);
    Ok(())
}

enum Piece {
    Data(Bytes),
    End,
}

/// The async end of an insert's rows.
pub(crate) struct Pump(mpsc::Sender<Piece>);

/// The blocking end.
pub(crate) struct Rows {
    pieces: mpsc::Receiver<Piece>,
    current: Bytes,
    ended: bool,
}

/// A bounded pipe between both.
pub(crate) fn pipe() -> (Pump, Rows) {
    let (sender, pieces) = mpsc::channel(PIECES_MAX);
    (
        Pump(sender),
        Rows {
            pieces,
            current: Bytes::new(),
            ended: false,
        },
    )
}

impl Pump {
    /// Sends the whole upload. Returns early, without an error, when the engine has stopped reading:
    /// it will tell why.
    ///
    /// # Errors
    ///
    /// As [`Upload::next`]; the engine's end then sees a broken upload.
    pub(crate) async fn run(self, upload: &mut Upload) -> Result<(), EngineError> {
        while let Some(frame) = upload.next().await? {
            if self.0.send(Piece::Data(frame)).await.is_err() {
                return Ok(());
            }
        }
        if self.0.send(Piece::End).await.is_err() {
            tracing::debug!("the engine stopped reading before the end");
        }
        Ok(())
    }
}

impl Read for Rows {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() && !self.ended {
            match self.pieces.blocking_recv() {
                Some(Piece::Data(bytes)) => self.current = bytes,
                Some(Piece::End) => self.ended = true,
                None => {
                    let reason = "the upload broke off";
                    return Err(io::Error::new(io::ErrorKind::ConnectionAborted, reason));
                }
            }
        }
        let length = self.current.len().min(buffer.len());
        self.current
            .copy_to_slice(buffer.get_mut(..length).unwrap_or_default());
        Ok(length)
    }
}

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Encoding {
    Plain,
    Gzip,
    Deflate,
    Lz4,
    Zstd,
    /// ClickHouse's own blocks, `decompress=1`.
    Blocks,
}

impl Encoding {
    /// From `Content-Encoding` and `decompress=`.
    ///
    /// # Errors
    ///
    /// 89 for methods that are not served.
    pub(crate) fn new(header: Option<&str>, blocks: bool) -> Result<Self, EngineError> {
        match header.map(str::trim).unwrap_or_default() {
            "" | "identity" if blocks => Ok(Self::Blocks),
            "" | "identity" => Ok(Self::Plain),
            "gzip" => Ok(Self::Gzip),
            "deflate" => Ok(Self::Deflate),
            "lz4" => Ok(Self::Lz4),
            "zstd" => Ok(Self::Zstd),
            other => {
                let text = format!("Content-Encoding \"{other}\" is not served: use gzip or lz4");
                Err(EngineError::new(89, "UNKNOWN_COMPRESSION_METHOD", text))
            }
        }
    }

    /// Wraps a reader of compressed bytes. Of several frames in a row, all are read: clients
    /// compress block by block.
    pub(crate) fn decode(self, reader: impl Read + 'static) -> Box<dyn Read> {
        match self {
            Self::Plain => Box::new(reader),
            Self::Gzip => Box::new(flate2::read::MultiGzDecoder::new(reader)),
            Self::Deflate => Box::new(flate2::read::ZlibDecoder::new(reader)),
            Self::Lz4 => Box::new(lz4_flex::frame::FrameDecoder::new(reader)),
            Self::Zstd => Box::new(Frames {
                reader: Some(BufReader::new(reader)),
                frame: None,
            }),
            Self::Blocks => Box::new(Blocks {
                reader,
                block: Bytes::new(),
            }),
        }
    }
}

/// Zstandard frames, one after the other.
struct Frames<R: Read> {
    /// Between frames.
    reader: Option<BufReader<R>>,
    frame: Option<StreamingDecoder<BufReader<R>, FrameDecoder>>,
}

impl<R: Read> Read for Frames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(frame) = &mut self.frame {
                let length = frame.read(buffer)?;
                if length > 0 || buffer.is_empty() {
                    return Ok(length);
                }
            }
            if let Some(frame) = self.frame.take() {
                self.reader = Some(frame.into_inner());
            }
            let Some(mut reader) = self.reader.take() else {
                return Ok(0);
            };
            if reader.fill_buf()?.is_empty() {
                return Ok(0);
            }
            self.frame = Some(StreamingDecoder::new(reader).map_err(io::Error::other)?);
        }
    }
}

/// ClickHouse's block compression: checksum (16 bytes), method, compressed size with these 9 bytes,
/// plain size, data. The checksum is not verified: the bytes came over a local connection.
struct Blocks<R> {
    reader: R,
    block: Bytes,
}

impl<R: Read> Blocks<R> {
    fn fill(&mut self) -> io::Result<()> {
        let mut head = [0_u8; 25];
        match self.reader.read(&mut head)? {
            0 => return Ok(()),
            some => self
                .reader
                .read_exact(head.get_mut(some..).unwrap_or_default())?,
        }
        let [.., method, c0, c1, c2, c3, p0, p1, p2, p3] = head;
        let size = |bytes| usize::try_from(u32::from_le_bytes(bytes)).unwrap_or(usize::MAX);
        let (compressed, plain) = (size([c0, c1, c2, c3]), size([p0, p1, p2, p3]));
        if compressed < 9 || compressed.max(plain) > BLOCK_BYTES_MAX {
            return Err(io::Error::other("a compressed block of impossible size"));
        }
        let mut data = vec![0; compressed - 9];
        self.reader.read_exact(&mut data)?;
        self.block = match method {
            0x02 => data.into(),
            0x82 => lz4_flex::block::decompress(&data, plain)
                .map_err(io::Error::other)?
                .into(),
            other => {
                let text =
                    format!("blocks compressed by method {other:#x} are not served: use lz4");
                return Err(io::Error::other(text));
            }
        };
        Ok(())
    }
}

impl<R: Read> Read for Blocks<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.block.is_empty() {
            self.fill()?;
        }
        let length = self.block.len().min(buffer.len());
        self.block
            .copy_to_slice(buffer.get_mut(..length).unwrap_or_default());
        Ok(length)
    }
}
