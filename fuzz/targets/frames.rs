//! Bytes as a socket brings them, cut apart anywhere.

use walview::source::frames::{FrameError, Frames, HEADER_BYTES, READ_BYTES};

/// Small, so that lengths above it come up.
const MESSAGE_BYTES_MAX: usize = READ_BYTES + 1_000;

/// The first byte says into which pieces the rest is cut.
pub(crate) fn run(data: &[u8]) {
    let Some((piece, rest)) = data.split_first() else {
        return;
    };
    let whole = cut(rest, usize::MAX);
    assert_eq!(cut(rest, usize::from(*piece).max(1)), whole);
    // What came out is what went in, as long as it is messages.
    let (messages, _) = whole;
    assert!(rest.starts_with(&messages.concat()));
    for message in messages {
        let length = message.get(1..HEADER_BYTES).and_then(|length| length.try_into().ok());
        assert_eq!(length.map(u32::from_be_bytes), u32::try_from(message.len() - 1).ok());
    }
}

fn cut(bytes: &[u8], piece: usize) -> (Vec<Vec<u8>>, Option<FrameError>) {
    let mut frames = Frames::new(MESSAGE_BYTES_MAX);
    let (mut messages, mut rest) = (Vec::new(), bytes);
    loop {
        match frames.cut() {
            Ok(Some(message)) => messages.push(message.to_vec()),
            Ok(None) if rest.is_empty() => return (messages, None),
            Ok(None) => {
                let Ok(room) = frames.room() else { unreachable!("it was cut without an error") };
                assert!(room.capacity() <= MESSAGE_BYTES_MAX);
                let fits = (room.capacity() - room.len()).min(piece).min(rest.len());
                assert!(fits > 0, "no room");
                let (now, later) = rest.split_at(fits);
                room.extend_from_slice(now);
                rest = later;
            }
            Err(error) => return (messages, Some(error)),
        }
    }
}
