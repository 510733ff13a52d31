//! COPY's text format, read exactly as PostgreSQL writes it.
//!
//! Documentation: COPY, "Text Format". A line break ends a row and nothing else does: inside a value
//! it is written `\n`. NULL is `\N` alone in its field; the two letters as a value are `\\N`.

#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use walview_core::value::{Row, Type, Value, ValueError};

/// Splits a stream of COPY data into rows of values. Pieces may end anywhere.
pub(super) struct CopyReader {
    types: Vec<Type>,
    /// The beginning of a row whose end has not come yet.
    partial: Vec<u8>,
    /// A field without its escapes.
    unescaped: Vec<u8>,
}

/// Which field cannot be read, counted from 0, and why. Never holds the value.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum CopyError {
    Value { field: usize, error: ValueError },
    NotUtf8 { field: usize },
    Escape { field: usize },
    FieldCount { found: usize },
    Format(&'static str),
    CutOff,
}

impl CopyReader {
    pub(super) fn new(types: Vec<Type>) -> Self {
        Self { types, partial: Vec::new(), unescaped: Vec::new() }
    }

    /// Takes the next piece and appends the rows that it completes.
    pub(super) fn feed(&mut self, piece: &[u8], rows: &mut Vec<Row>) -> Result<(), CopyError> {
        let mut rest = piece;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            let Some((line, after)) = rest.split_at_checked(end) else {
                break;
            };
            rest = after.get(1..).unwrap_or_default();
            if self.partial.is_empty() {
                rows.push(self.row(line)?);
            } else {
                let mut whole = std::mem::take(&mut self.partial);
                whole.extend_from_slice(line);
                rows.push(self.row(&whole)?);
                whole.clear();
                self.partial = whole;
            }
        }
        self.partial.extend_from_slice(rest);
        Ok(())
    }

    /// The stream is over.
    pub(super) fn finish(&self) -> Result<(), CopyError> {
        if self.partial.is_empty() { Ok(()) } else { Err(CopyError::CutOff) }
    }

    fn row(&mut self, line: &[u8]) -> Result<Row, CopyError> {
        let mut row = Row::with_capacity(self.types.len());
        if self.types.is_empty() && line.is_empty() {
            return Ok(row);
        }
        for (field, bytes) in line.split(|byte| *byte == b'\t').enumerate() {
            let Some(ty) = self.types.get(field) else {
                let found = line.split(|byte| *byte == b'\t').count();
                return Err(CopyError::FieldCount { found });
            };
            row.push(value(ty, bytes, field, &mut self.unescaped)?);
        }
        if row.len() == self.types.len() {
            Ok(row)
        } else {
            Err(CopyError::FieldCount { found: row.len() })
        }
    }
}

fn value(
    ty: &Type,
    bytes: &[u8],
    field: usize,
    unescaped: &mut Vec<u8>,
) -> Result<Value, CopyError> {
    if bytes == b"\\N" {
        return Ok(Value::Null);
    }
    let plain = if bytes.contains(&b'\\') {
        unescape(bytes, unescaped).ok_or(CopyError::Escape { field })?;
        unescaped.as_slice()
    } else {
        bytes
    };
    let text = std::str::from_utf8(plain).ok().ok_or(CopyError::NotUtf8 { field })?;
    Value::from_server(ty, text).map_err(|error| CopyError::Value { field, error })
}

/// The escapes that `CopyAttributeOutText` writes; any other would be a format that is not this one.
fn unescape(bytes: &[u8], out: &mut Vec<u8>) -> Option<()> {
    out.clear();
    let mut bytes = bytes.iter();
    while let Some(byte) = bytes.next() {
        if *byte != b'\\' {
            out.push(*byte);
            continue;
        }
        out.push(match bytes.next()? {
            b'b' => 0x08,
            b'f' => 0x0C,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'v' => 0x0B,
            b'\\' => b'\\',
            _ => return None,
        });
    }
    Some(())
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]

    use super::*;

    fn text(value: &str) -> Value {
        Value::Text(value.into())
    }

    #[test]
    fn a_stream_may_be_cut_anywhere() {
        let stream = b"1\ta\\tb\\\\N\n2\t\\N\n3\t\n4\t\\b\\f\\n\\r\\v\xC3\xA4\n";
        let wanted = vec![
            vec![Value::Int(1), text("a\tb\\N")],
            vec![Value::Int(2), Value::Null],
            vec![Value::Int(3), text("")],
            vec![Value::Int(4), text("\u{8}\u{c}\n\r\u{b}ä")],
        ];
        for size in 1..=stream.len() {
            let mut reader = CopyReader::new(vec![Type::Int4, Type::Text]);
            let mut rows = Vec::new();
            for piece in stream.chunks(size) {
                reader.feed(piece, &mut rows).unwrap();
            }
            reader.finish().unwrap();
            assert_eq!(rows, wanted, "pieces of {size}");
        }
    }

    #[test]
    fn what_copy_never_writes_is_refused() {
        let read = |types: Vec<Type>, bytes: &[u8]| {
            let mut reader = CopyReader::new(types);
            reader.feed(bytes, &mut Vec::new()).and_then(|()| reader.finish())
        };
        let two = || vec![Type::Text, Type::Text];
        assert_eq!(read(two(), b"a\n"), Err(CopyError::FieldCount { found: 1 }));
        assert_eq!(read(two(), b"a\tb\tc\n"), Err(CopyError::FieldCount { found: 3 }));
        assert_eq!(read(two(), b"a\tb\\x41\n"), Err(CopyError::Escape { field: 1 }));
        assert_eq!(read(two(), b"a\tb\\\n"), Err(CopyError::Escape { field: 1 }));
        assert_eq!(read(two(), b"\xFF\tb\n"), Err(CopyError::NotUtf8 { field: 0 }));
        assert_eq!(read(two(), b"a\tb"), Err(CopyError::CutOff));
        assert!(matches!(read(vec![Type::Int4], b"x\n"), Err(CopyError::Value { field: 0, .. })));
        assert_eq!(read(vec![], b"\n\n"), Ok(()));
        let all: Vec<u8> = (0..=255).collect();
        for start in 0..all.len() {
            drop(read(two(), &all[start..]));
        }
    }
}
