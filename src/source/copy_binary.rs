//! COPY's binary format.
//!
//! Documentation: COPY, "Binary Format": a head, then for each row the count of its fields and each
//! field with its length (-1: NULL), then a count of -1.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use super::copy_text::CopyError;
use walview_core::value::{Row, Type, Value};

const SIGNATURE: &[u8; 11] = b"PGCOPY\n\xFF\r\n\0";
/// Instead of a row's count of fields.
const END: i16 = -1;
/// Instead of a field's length.
const NULL: i32 = -1;

/// Splits a stream of COPY data into rows of values. Pieces may end anywhere.
pub(super) struct BinaryReader {
    types: Vec<Type>,
    /// The beginning of a head or row whose end has not come yet.
    partial: Vec<u8>,
    at: At,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum At {
    Head,
    Rows,
    End,
}

/// What comes next in the stream.
enum Next {
    Head,
    Row(Row),
    End,
}

impl BinaryReader {
    pub(super) fn new(types: Vec<Type>) -> Self {
        Self { types, partial: Vec::new(), at: At::Head }
    }

    /// Takes the next piece and appends the rows that it completes.
    pub(super) fn feed(&mut self, piece: &[u8], rows: &mut Vec<Row>) -> Result<(), CopyError> {
        if self.partial.is_empty() {
            let rest = self.read(piece, rows)?;
            self.partial.extend_from_slice(rest);
            return Ok(());
        }
        let mut whole = std::mem::take(&mut self.partial);
        whole.extend_from_slice(piece);
        let rest = self.read(&whole, rows)?.len();
        whole.drain(..whole.len().saturating_sub(rest));
        self.partial = whole;
        Ok(())
    }

    /// The stream is over.
    pub(super) fn finish(&self) -> Result<(), CopyError> {
        if self.at == At::End { Ok(()) } else { Err(CopyError::CutOff) }
    }

    /// Everything that is whole; what is left is the beginning of something.
    fn read<'a>(&mut self, bytes: &'a [u8], rows: &mut Vec<Row>) -> Result<&'a [u8], CopyError> {
        let mut rest = bytes;
        loop {
            let mut ahead = rest;
            let next = match self.at {
                At::Head => head(&mut ahead)?,
                At::Rows => self.row(&mut ahead)?,
                At::End if rest.is_empty() => None,
                At::End => return Err(CopyError::Format("bytes after its end")),
            };
            match next {
                None => return Ok(rest),
                Some(Next::Head) => self.at = At::Rows,
                Some(Next::Row(row)) => rows.push(row),
                Some(Next::End) => self.at = At::End,
            }
            rest = ahead;
        }
    }

    /// `None` where the row's end has not come.
    fn row(&self, bytes: &mut &[u8]) -> Result<Option<Next>, CopyError> {
        let Some(count) = take(bytes).map(i16::from_be_bytes) else { return Ok(None) };
        if count == END {
            return Ok(Some(Next::End));
        }
        if usize::try_from(count).ok() != Some(self.types.len()) {
            return Err(CopyError::FieldCount { found: usize::try_from(count).unwrap_or(0) });
        }
        let mut row = Row::with_capacity(self.types.len());
        for (field, ty) in self.types.iter().enumerate() {
            let Some(length) = take(bytes).map(i32::from_be_bytes) else { return Ok(None) };
            if length == NULL {
                row.push(Value::Null);
                continue;
            }
            let length =
                usize::try_from(length).ok().ok_or(CopyError::Format("a negative length"))?;
            let Some((value, rest)) = bytes.split_at_checked(length) else { return Ok(None) };
            *bytes = rest;
            let value = Value::from_binary(ty, value);
            row.push(value.map_err(|error| CopyError::Value { field, error })?);
        }
        Ok(Some(Next::Row(row)))
    }
}

/// Signature, flags, and an extension that is skipped.
fn head(bytes: &mut &[u8]) -> Result<Option<Next>, CopyError> {
    let Some(signature) = take::<11>(bytes) else { return Ok(None) };
    if signature != *SIGNATURE {
        return Err(CopyError::Format("another signature"));
    }
    let (Some(flags), Some(length)) = (take(bytes), take(bytes)) else { return Ok(None) };
    // The upper half says what a reader must understand; there is nothing yet.
    if u32::from_be_bytes(flags) >> 16 != 0 {
        return Err(CopyError::Format("unknown flags"));
    }
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    let Some((_, rest)) = bytes.split_at_checked(length) else { return Ok(None) };
    *bytes = rest;
    Ok(Some(Next::Head))
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (chunk, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*chunk)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

    use super::*;

    const HEAD: &[u8] = b"PGCOPY\n\xFF\r\n\0\0\0\0\0\0\0\0\0";

    fn stream(rows: &[&[u8]]) -> Vec<u8> {
        [&[HEAD], rows, &[b"\xFF\xFF"]].concat().concat()
    }

    fn read(types: Vec<Type>, bytes: &[u8]) -> Result<(), CopyError> {
        let mut reader = BinaryReader::new(types);
        reader.feed(bytes, &mut Vec::new()).and_then(|()| reader.finish())
    }

    #[test]
    fn a_stream_may_be_cut_anywhere() {
        let bytes = stream(&[
            b"\0\x02\0\0\0\x04\0\0\0\x01\0\0\0\x03a\tb",
            b"\0\x02\0\0\0\x04\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF",
            b"\0\x02\0\0\0\x04\0\0\0\x03\0\0\0\0",
        ]);
        let wanted = vec![
            vec![Value::Int(1), Value::Text("a\tb".into())],
            vec![Value::Int(-1), Value::Null],
            vec![Value::Int(3), Value::Text("".into())],
        ];
        for size in 1..=bytes.len() {
            let mut reader = BinaryReader::new(vec![Type::Int4, Type::Text]);
            let mut rows = Vec::new();
            for piece in bytes.chunks(size) {
                assert_eq!(reader.finish(), Err(CopyError::CutOff));
                reader.feed(piece, &mut rows).unwrap();
            }
            reader.finish().unwrap();
            assert_eq!(rows, wanted, "pieces of {size}");
        }
    }

    #[test]
    fn what_copy_never_writes_is_refused() {
        let one = || vec![Type::Int4];
        let format = |what| Err(CopyError::Format(what));
        assert_eq!(read(one(), &stream(&[])), Ok(()));
        assert_eq!(read(one(), b"1\t2\n34567890"), format("another signature"));
        assert_eq!(read(one(), b"PGCOPY\n\xFF\r\n\0\0\x01\0\0\0\0\0\0"), format("unknown flags"));
        assert_eq!(
            read(one(), &[&stream(&[]), &b"\0"[..]].concat()),
            format("bytes after its end")
        );
        assert_eq!(read(one(), &stream(&[b"\0\x01\xFF\xFF\xFF\xFE"])), format("a negative length"));
        let short = read(one(), &stream(&[b"\0\x01\0\0\0\x02\0\0"]));
        assert!(matches!(short, Err(CopyError::Value { field: 0, .. })));
        let count = read(one(), &stream(&[b"\0\x02"]));
        assert_eq!(count, Err(CopyError::FieldCount { found: 2 }));
        assert_eq!(read(one(), &stream(&[b"\0\x01\0\0\0\x04\0"])), Err(CopyError::CutOff));
        assert_eq!(read(one(), b""), Err(CopyError::CutOff));
        let all: Vec<u8> = (0..=255).collect();
        for start in 0..all.len() {
            drop(read(one(), &[HEAD, &all[start..]].concat()));
        }
    }
}
