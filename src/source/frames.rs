//! Cuts what comes from a socket into PostgreSQL's messages: a byte for the kind, four for the
//! length, the rest.
//!
//! ```text
//!  socket ─► room() ┌──────────┬──────────┬─────┐  cut() ──► whole messages, not copied
//!                   │ message  │ message  │ mes…│  what is left of a message is copied into
//!                   └──────────┴──────────┴─────┘  the next buffer
//! ```
//!
//! Invariants:
//! - no input panics, and no length that is only announced allocates more than the limit;
//! - where the bytes are cut apart on their way changes nothing;
//! - memory: [`READ_BYTES`], or one message that is larger. Messages keep the buffer that they lie
//!   in until the last of them is dropped.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use bytes::BytesMut;

/// A buffer: what one read may bring at most.
pub const READ_BYTES: usize = 256 << 10;
/// With less room than this there is a new buffer, so that reads stay large.
const ROOM_BYTES_MIN: usize = 64 << 10;
/// The kind and the length.
pub const HEADER_BYTES: usize = 5;

/// The bytes are no message that is taken.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("a message has the length {0}, which none has")]
    Length(u32),
    #[error("a message of {bytes} bytes is larger than the limit of {limit} bytes")]
    TooLarge { bytes: usize, limit: usize },
}

/// Bytes on their way to be messages.
#[derive(Debug, Default)]
pub struct Frames {
    buffer: BytesMut,
    message_bytes_max: usize,
}

impl Frames {
    /// `message_bytes_max`: a longer message is an error.
    #[must_use]
    pub fn new(message_bytes_max: usize) -> Self {
        Self { buffer: BytesMut::new(), message_bytes_max }
    }

    /// From here on.
    pub fn limit(&mut self, message_bytes_max: usize) {
        self.message_bytes_max = message_bytes_max;
    }

    /// Where the next read goes: never empty, and with room for the message that has begun.
    ///
    /// # Errors
    /// What has begun is no message.
    pub fn room(&mut self) -> Result<&mut BytesMut, FrameError> {
        let message = self.whole()?.unwrap_or(HEADER_BYTES);
        let wanted = self.buffer.len().saturating_add(ROOM_BYTES_MIN).min(READ_BYTES).max(message);
        if self.buffer.capacity() < wanted {
            // Not `reserve`, which doubles, and takes up again for good what one message needed.
            let mut fresh = BytesMut::with_capacity(message.max(READ_BYTES));
            fresh.extend_from_slice(&self.buffer);
            self.buffer = fresh;
        }
        Ok(&mut self.buffer)
    }

    /// The next whole message with its header, if it is there.
    ///
    /// # Errors
    /// What comes is no message, or a larger one than is taken. So it stays: there is no telling
    /// where the next one would begin.
    pub fn cut(&mut self) -> Result<Option<BytesMut>, FrameError> {
        let whole = self.whole()?.filter(|bytes| *bytes <= self.buffer.len());
        Ok(whole.map(|bytes| self.buffer.split_to(bytes)))
    }

    /// How long the first message is, header included; `None` where not even that is there.
    fn whole(&self) -> Result<Option<usize>, FrameError> {
        let Some([_kind, length @ ..]) = self.buffer.first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let length = u32::from_be_bytes(*length);
        // It counts itself, and not the kind.
        let bytes = usize::try_from(length).ok().and_then(|length| length.checked_add(1));
        let bytes = bytes.filter(|bytes| *bytes >= HEADER_BYTES);
        let bytes = bytes.ok_or(FrameError::Length(length))?;
        if bytes > self.message_bytes_max {
            return Err(FrameError::TooLarge { bytes, limit: self.message_bytes_max });
        }
        Ok(Some(bytes))
    }
}

#[cfg(test)]
mod tests {
    #![expect(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        reason = "a test fails by panicking"
    )]

    use super::*;

    fn message(kind: u8, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).unwrap();
        [&[kind][..], &length.to_be_bytes(), body].concat()
    }

    /// What comes out of `pieces`, and the largest buffer on the way.
    fn cut<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<Vec<u8>>, usize) {
        let mut frames = Frames::new(1 << 20);
        let (mut messages, mut largest) = (Vec::new(), 0);
        for mut piece in pieces {
            while !piece.is_empty() {
                let room = frames.room().unwrap();
                largest = largest.max(room.capacity());
                let fits = piece.len().min(room.capacity() - room.len());
                assert!(fits > 0);
                room.extend_from_slice(&piece[..fits]);
                piece = &piece[fits..];
                while let Some(message) = frames.cut().unwrap() {
                    messages.push(message.to_vec());
                }
            }
        }
        assert_eq!(frames.cut(), Ok(None));
        (messages, largest)
    }

    #[test]
    fn where_bytes_are_cut_apart_changes_nothing() {
        let wanted = [message(b'd', b"first"), message(b'Z', b""), message(b'd', &[7; 40])];
        let bytes = wanted.concat();
        assert_eq!(cut([&bytes[..]]).0, wanted);
        assert_eq!(cut(bytes.chunks(1)).0, wanted);
        for at in 0..=bytes.len() {
            assert_eq!(cut([&bytes[..at], &bytes[at..]]).0, wanted, "cut at {at}");
        }
    }

    #[test]
    fn a_large_message_has_a_buffer_of_its_own_size_and_no_other_after_it() {
        for size in [READ_BYTES - 10, READ_BYTES, 3 * READ_BYTES + 1] {
            let wanted = [message(b'd', b"before"), message(b'd', &vec![1; size])];
            let bytes = wanted.concat();
            let (messages, largest) = cut(bytes.chunks(1_000));
            assert_eq!(messages, wanted);
            assert!(largest <= READ_BYTES.max(size + HEADER_BYTES), "{size}: {largest}");
        }
        let mut frames = Frames::new(1 << 20);
        let large = message(b'd', &vec![1; 3 * READ_BYTES]);
        frames.room().unwrap().extend_from_slice(&large[..HEADER_BYTES]);
        frames.room().unwrap().extend_from_slice(&large[HEADER_BYTES..]);
        assert_eq!(frames.cut().unwrap().unwrap(), large);
        assert_eq!(frames.room().unwrap().capacity(), READ_BYTES);
    }

    #[test]
    fn what_is_no_message_is_refused_before_it_is_held() {
        let mut frames = Frames::new(100);
        frames.room().unwrap().extend_from_slice(b"d\0\0\0\x03");
        assert_eq!(frames.cut(), Err(FrameError::Length(3)));
        assert_eq!(frames.cut(), Err(FrameError::Length(3)));
        for (limit, taken) in [(100, false), (101, true)] {
            let mut frames = Frames::new(limit);
            frames.room().unwrap().extend_from_slice(&message(b'd', &[0; 96]));
            assert_eq!(frames.cut().is_ok(), taken);
        }
        // What an HTTP server says.
        let mut frames = Frames::new(1 << 20);
        frames.room().unwrap().extend_from_slice(b"HTTP/1.1 400 Bad Request\r\n");
        let bytes = 1 + usize::try_from(u32::from_be_bytes(*b"TTP/")).unwrap();
        let refused = FrameError::TooLarge { bytes, limit: 1 << 20 };
        assert_eq!(frames.cut(), Err(refused));
        assert!(frames.room().is_err());
    }
}
