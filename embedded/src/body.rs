//! Bytes of a request on their way from the socket to the engine.
//!
//! ```text
//! hyper ── frames ──> Upload ──────────────────────────────────────────> statement, then rows
//!                       └── (compressed) decoder's thread ──> Upload ──>
//! ```
//!
//! Invariants: frames are read when they are asked for, so a slow engine slows the client; an upload
//! that breaks off, or whose decoder dies, never looks like one that ended.

use std::cell::RefCell;
use std::io::{self, BufRead, BufReader, Read};
use std::rc::Rc;
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use bytes::{Buf, Bytes};
use futures_util::StreamExt;
use ruzstd::decoding::{FrameDecoder, StreamingDecoder};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::spawn_blocking;

use crate::engine::EngineError;

/// Pieces between a decoder and the engine.
const PIECES_MAX: usize = 4;
/// Size of such a piece.
const DECODED_BYTES: usize = 128 << 10;
/// A compressed block larger than this is refused (ClickHouse's own limit is 1 GiB).
const BLOCK_BYTES_MAX: usize = 256 << 20;

/// A request's body, read frame by frame.
pub(crate) struct Upload {
    rest: Rest,
    /// How long the client may pause (ClickHouse's `http_receive_timeout`).
    pause_max: Duration,
}

enum Rest {
    Socket(BodyDataStream),
    Decoded(mpsc::Receiver<Piece>),
    Ended,
}

/// What a decoder's thread sends. The end is a piece of its own: a thread that died must not look
/// like an upload that ended.
enum Piece {
    Data(Bytes),
    Failed(EngineError),
    End,
}

impl Upload {
    pub(crate) fn new(body: Body, pause_max: Duration) -> Self {
        Self { rest: Rest::Socket(body.into_data_stream()), pause_max }
    }

    /// The next frame; `None` at the end.
    ///
    /// # Errors
    ///
    /// 210 when the client breaks off, 209 when it pauses for too long, 271 when it does not send
    /// what it said.
    pub(crate) async fn next(&mut self) -> Result<Option<Bytes>, EngineError> {
        match &mut self.rest {
            Rest::Socket(frames) => {
                let frame = tokio::time::timeout(self.pause_max, frames.next()).await;
                match frame {
                    Ok(frame) => frame
                        .transpose()
                        .map_err(|error| EngineError::new(210, "NETWORK_ERROR", error)),
                    Err(_elapsed) => {
                        let text = format!("the upload paused for {} s", self.pause_max.as_secs());
                        Err(EngineError::new(209, "SOCKET_TIMEOUT", text))
                    }
                }
            }
            Rest::Decoded(pieces) => match pieces.recv().await {
                Some(Piece::Data(bytes)) => Ok(Some(bytes)),
                Some(Piece::Failed(error)) => Err(error),
                Some(Piece::End) => {
                    self.rest = Rest::Ended;
                    Ok(None)
                }
                None => Err(EngineError::new(1002, "UNKNOWN_EXCEPTION", "the decoder died")),
            },
            Rest::Ended => Ok(None),
        }
    }

    /// The next frame, on a thread that may block.
    ///
    /// # Errors
    ///
    /// As [`Upload::next`].
    pub(crate) fn next_blocking(&mut self) -> Result<Option<Bytes>, EngineError> {
        Handle::current().block_on(self.next())
    }

    /// The same upload without its compression. `turn` bounds how many threads decode at once; it
    /// is given back when the thread ends, which it does with the upload.
    pub(crate) fn decode(self, encoding: Encoding, turn: OwnedSemaphorePermit) -> Self {
        let pause_max = self.pause_max;
        let (sender, pieces) = mpsc::channel(PIECES_MAX);
        // Owned by its channel: it ends when either side does.
        drop(spawn_blocking(move || {
            let _turn = turn;
            let failure = Rc::new(RefCell::new(None));
            let source =
                Source { upload: self, current: Bytes::new(), failure: Rc::clone(&failure) };
            let mut reader = encoding.decode(source);
            loop {
                let mut buffer = vec![0; DECODED_BYTES];
                let piece = match reader.read(&mut buffer) {
                    Ok(0) => Piece::End,
                    Ok(length) => {
                        buffer.truncate(length);
                        Piece::Data(buffer.into())
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                    // What went wrong with the upload says more than what its decoder makes of it.
                    Err(error) => Piece::Failed(
                        failure
                            .take()
                            .unwrap_or_else(|| EngineError::new(271, "CANNOT_DECOMPRESS", error)),
                    ),
                };
                let last = !matches!(piece, Piece::Data(_));
                if sender.blocking_send(piece).is_err() || last {
                    return;
                }
            }
        }));
        Self { rest: Rest::Decoded(pieces), pause_max }
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

/// Compressed bytes for a decoder; keeps the upload's error, which `io::Error` cannot carry.
struct Source {
    upload: Upload,
    current: Bytes,
    failure: Rc<RefCell<Option<EngineError>>>,
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.upload.next_blocking() {
                Ok(Some(bytes)) => self.current = bytes,
                Ok(None) => return Ok(0),
                Err(error) => {
                    let text = error.to_string();
                    self.failure.replace(Some(error));
                    return Err(io::Error::new(io::ErrorKind::ConnectionAborted, text));
                }
            }
        }
        let length = self.current.len().min(buffer.len());
        self.current.copy_to_slice(buffer.get_mut(..length).unwrap_or_default());
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

    /// Wraps a reader of compressed bytes.
    fn decode(self, reader: impl Read + 'static) -> Box<dyn Read> {
        match self {
            Self::Plain => Box::new(reader),
            Self::Gzip => Frames::<_, flate2::bufread::GzDecoder<_>>::boxed(reader),
            Self::Deflate => Frames::<_, flate2::bufread::ZlibDecoder<_>>::boxed(reader),
            Self::Lz4 => Frames::<_, lz4_flex::frame::FrameDecoder<_>>::boxed(reader),
            Self::Zstd => Frames::<_, StreamingDecoder<_, FrameDecoder>>::boxed(reader),
            Self::Blocks => Box::new(Blocks { reader, block: Bytes::new() }),
        }
    }
}

/// A decoder of one frame, which it reads without a byte beyond it.
trait OneFrame<R>: Read + Sized {
    fn open(reader: R) -> io::Result<Self>;
    fn close(self) -> R;
}

impl<R: BufRead> OneFrame<R> for flate2::bufread::GzDecoder<R> {
    fn open(reader: R) -> io::Result<Self> {
        Ok(Self::new(reader))
    }

    fn close(self) -> R {
        self.into_inner()
    }
}

impl<R: BufRead> OneFrame<R> for flate2::bufread::ZlibDecoder<R> {
    fn open(reader: R) -> io::Result<Self> {
        Ok(Self::new(reader))
    }

    fn close(self) -> R {
        self.into_inner()
    }
}

impl<R: Read> OneFrame<R> for lz4_flex::frame::FrameDecoder<R> {
    fn open(reader: R) -> io::Result<Self> {
        Ok(Self::new(reader))
    }

    fn close(self) -> R {
        self.into_inner()
    }
}

impl<R: Read> OneFrame<R> for StreamingDecoder<R, FrameDecoder> {
    fn open(reader: R) -> io::Result<Self> {
        Self::new(reader).map_err(io::Error::other)
    }

    fn close(self) -> R {
        self.into_inner()
    }
}

/// All frames, one after the other: `clickhouse-connect` makes one of each block, and a decoder that
/// stops after the first would drop the rows of the others and say that all went well.
struct Frames<R, D> {
    /// Between frames.
    reader: Option<BufReader<R>>,
    frame: Option<D>,
}

impl<R, D> Frames<R, D>
where
    R: Read + 'static,
    D: OneFrame<BufReader<R>> + 'static,
{
    fn boxed(reader: R) -> Box<dyn Read> {
        Box::new(Self { reader: Some(BufReader::new(reader)), frame: None })
    }
}

impl<R: Read, D: OneFrame<BufReader<R>>> Read for Frames<R, D> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(frame) = &mut self.frame {
                let length = frame.read(buffer)?;
                if length > 0 || buffer.is_empty() {
                    return Ok(length);
                }
            }
            if let Some(frame) = self.frame.take() {
                self.reader = Some(frame.close());
            }
            let Some(mut reader) = self.reader.take() else {
                return Ok(0);
            };
            if reader.fill_buf()?.is_empty() {
                return Ok(0);
            }
            self.frame = Some(D::open(reader)?);
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
            some => self.reader.read_exact(head.get_mut(some..).unwrap_or_default())?,
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
            0x82 => lz4_flex::block::decompress(&data, plain).map_err(io::Error::other)?.into(),
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
        self.block.copy_to_slice(buffer.get_mut(..length).unwrap_or_default());
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write as _};

    use super::*;

    fn lz4(text: &[u8]) -> Vec<u8> {
        let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
        encoder.write_all(text).expect("compressed");
        encoder.finish().expect("compressed")
    }

    fn gzip(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text).expect("compressed");
        encoder.finish().expect("compressed")
    }

    fn deflate(text: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(text).expect("compressed");
        encoder.finish().expect("compressed")
    }

    fn zstd(text: &[u8]) -> Vec<u8> {
        ruzstd::encoding::compress_to_vec(text, ruzstd::encoding::CompressionLevel::Fastest)
    }

    /// A client that compressed block by block lost all rows but the first block's, and was told
    /// that all were written.
    #[test]
    fn every_frame_is_read() {
        let blocks: Vec<Vec<u8>> = (0..5_u8).map(|n| vec![b'a' + n; 70_000]).collect();
        let frames = |compress: fn(&[u8]) -> Vec<u8>| -> Vec<u8> {
            blocks.iter().flat_map(|block| compress(block)).collect()
        };
        for (encoding, frames) in [
            (Encoding::Lz4, frames(lz4)),
            (Encoding::Gzip, frames(gzip)),
            (Encoding::Deflate, frames(deflate)),
            (Encoding::Zstd, frames(zstd)),
        ] {
            let read = |bytes: &[u8]| {
                let mut plain = Vec::new();
                let done = encoding.decode(Cursor::new(bytes.to_vec())).read_to_end(&mut plain);
                done.map(|_length| plain)
            };
            assert!(read(&frames).expect("read") == blocks.concat(), "{encoding:?}");
            assert_eq!(read(b"").expect("read"), b"", "{encoding:?}");
            let cut = frames.split_at(frames.len() - 9).0;
            assert!(read(cut).is_err(), "{encoding:?}: half a frame looks whole");
            let followed = [&frames, &b"no frame"[..]].concat();
            assert!(read(&followed).is_err(), "{encoding:?}: what follows is lost");
        }
    }
}
