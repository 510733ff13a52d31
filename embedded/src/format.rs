//! How the blocks of a result become one body.
//!
//! The engine formats each block as if it were a whole result: a head (names, types, Arrow schema)
//! comes again with each block and has to go from all but the first. Formats that cannot be mended
//! this way (JSON, Parquet, Pretty ...) are not cut into blocks at all.

use bytes::Bytes;

/// End of an Arrow stream; the engine ends every block with it.
const ARROW_END: &[u8] = &[0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Plain,
    /// A head of so many lines.
    Lines(usize),
    /// A column count, then so many strings per column.
    Binary {
        strings: usize,
    },
    Arrow,
    /// Rows between commas.
    Values,
}

/// Joins blocks of one result.
#[derive(Debug)]
pub(crate) struct Joiner {
    shape: Shape,
    first: bool,
}

impl Joiner {
    /// `None` if results in this format have to come in one piece.
    pub(crate) fn new(format: &str) -> Option<Self> {
        let name = format.to_ascii_lowercase();
        let (base, head_lines) = if let Some(base) = name.strip_suffix("withnamesandtypes") {
            (base, 2)
        } else if let Some(base) = name.strip_suffix("withnames") {
            (base, 1)
        } else {
            (name.as_str(), 0)
        };
        let shape = match base {
            "rowbinary" if head_lines > 0 => Shape::Binary { strings: head_lines },
            "arrowstream" => Shape::Arrow,
            "values" => Shape::Values,
            "tabseparated"
            | "tsv"
            | "tabseparatedraw"
            | "tsvraw"
            | "csv"
            | "jsoncompacteachrow"
            | "jsoncompactstringseachrow"
                if head_lines > 0 =>
            {
                Shape::Lines(head_lines)
            }
            "tabseparated"
            | "tsv"
            | "tabseparatedraw"
            | "tsvraw"
            | "raw"
            | "csv"
            | "jsoncompacteachrow"
            | "jsoncompactstringseachrow"
            | "jsoneachrow"
            | "jsonlines"
            | "ndjson"
            | "jsonstringseachrow"
            | "rowbinary"
            | "native"
            | "null"
            | "tskv" => Shape::Plain,
            _ => return None,
        };
        Some(Self { shape, first: true })
    }

    /// The block's part of the body; `separator` goes before it.
    pub(crate) fn join(&mut self, block: &Bytes) -> (&'static [u8], Bytes) {
        let end = if self.shape == Shape::Arrow && block.ends_with(ARROW_END) {
            block.len() - ARROW_END.len()
        } else {
            block.len()
        };
        let block = &block.slice(..end);
        if std::mem::take(&mut self.first) || block.is_empty() {
            return (b"", block.clone());
        }
        let head = match self.shape {
            Shape::Plain => 0,
            Shape::Values => return (b",", block.clone()),
            Shape::Lines(lines) => head_lines(block, lines),
            Shape::Binary { strings } => head_binary(block, strings).unwrap_or(block.len()),
            Shape::Arrow => head_arrow(block),
        };
        (b"", block.slice(head.min(block.len())..))
    }

    /// What closes the body.
    pub(crate) fn end(&self) -> &'static [u8] {
        if self.shape == Shape::Arrow { ARROW_END } else { b"" }
    }
}

/// Line ends inside of quotes belong to a name.
fn head_lines(block: &[u8], lines: usize) -> usize {
    let mut quoted = false;
    let mut left = lines;
    for (at, byte) in block.iter().enumerate() {
        match byte {
            b'"' => quoted = !quoted,
            b'\n' if !quoted => {
                left -= 1;
                if left == 0 {
                    return at + 1;
                }
            }
            _ => {}
        }
    }
    block.len()
}

fn head_binary(block: &[u8], strings_per_column: usize) -> Option<usize> {
    let mut at = 0;
    let columns = varint(block, &mut at)?;
    for _ in 0..columns.checked_mul(strings_per_column)? {
        let length = varint(block, &mut at)?;
        at = at.checked_add(length)?;
    }
    Some(at)
}

fn varint(block: &[u8], at: &mut usize) -> Option<usize> {
    let mut value = 0_usize;
    for shift in (0..usize::BITS).step_by(7) {
        let byte = *block.get(*at)?;
        *at += 1;
        value |= usize::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// The schema is the first message: a marker, its length, itself; it has no body.
fn head_arrow(block: &[u8]) -> usize {
    match block {
        [0xff, 0xff, 0xff, 0xff, a, b, c, d, ..] => {
            usize::try_from(u32::from_le_bytes([*a, *b, *c, *d])).map_or(block.len(), |n| n + 8)
        }
        _ => block.len(),
    }
}

/// The `Content-Type` that ClickHouse gives to a format.
pub(crate) fn content_type(format: &str) -> &'static str {
    let name = format.to_ascii_lowercase();
    if name.starts_with("json") && !name.contains("eachrow") {
        "application/json; charset=UTF-8"
    } else if name.starts_with("json") || name == "ndjson" {
        "application/x-ndjson; charset=UTF-8"
    } else if name.starts_with("csv") {
        "text/csv; charset=UTF-8"
    } else if name.starts_with("tab") || name.starts_with("tsv") {
        "text/tab-separated-values; charset=UTF-8"
    } else if name.starts_with("rowbinary") || name == "native" || name.starts_with("arrow") {
        "application/octet-stream"
    } else {
        "text/plain; charset=UTF-8"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn joins(format: &str, blocks: &[&[u8]], expect: &[u8]) {
        let mut joiner = Joiner::new(format).expect("a format in blocks");
        let mut body = Vec::new();
        for block in blocks {
            let (separator, part) = joiner.join(&Bytes::copy_from_slice(block));
            body.extend_from_slice(separator);
            body.extend_from_slice(&part);
        }
        assert_eq!(body, expect, "{format}");
    }

    #[test]
    fn heads_come_once() {
        joins("CSV", &[b"1\n", b"2\n", b""], b"1\n2\n");
        joins("CSVWithNames", &[b"\"a\nb\"\n1\n", b"\"a\nb\"\n2\n", b""], b"\"a\nb\"\n1\n2\n");
        joins("TSVWithNamesAndTypes", &[b"a\nInt8\n1\n", b"a\nInt8\n2\n"], b"a\nInt8\n1\n2\n");
        joins("Values", &[b"(1)", b"(2)", b""], b"(1),(2)");
        joins(
            "RowBinaryWithNamesAndTypes",
            &[b"\x01\x01a\x05UInt8\x07", b"\x01\x01a\x05UInt8\x08", b""],
            b"\x01\x01a\x05UInt8\x07\x08",
        );
        joins("RowBinaryWithNamesAndTypes", &[b"\x01\x01a\x05UInt8"], b"\x01\x01a\x05UInt8");
        assert!(Joiner::new("JSON").is_none() && Joiner::new("Parquet").is_none());
    }
}
