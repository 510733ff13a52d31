//! The cells of one row as pgoutput sends them.

use super::{DecodeError, reader::Reader};

/// One row: a cell for each published column, in the order of the last Relation message.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Tuple<'a> {
    count: u16,
    /// Checked: holds exactly `count` cells.
    bytes: &'a [u8],
}

/// What one column of a row holds. "Unchanged" is neither NULL nor a value: an UPDATE left a value
/// alone that is stored out of line (TOAST), and the log does not have it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Cell<'a> {
    Null,
    Unchanged,
    /// The text of the value, in UTF-8 where the database is.
    Text(&'a [u8]),
    /// The type's binary form; only if the session asked for it.
    Binary(&'a [u8]),
}

/// Row values stay out of logs, so a cell prints its kind and its length.
impl std::fmt::Debug for Cell<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Null => f.write_str("Null"),
            Self::Unchanged => f.write_str("Unchanged"),
            Self::Text(bytes) => write!(f, "Text({} bytes)", bytes.len()),
            Self::Binary(bytes) => write!(f, "Binary({} bytes)", bytes.len()),
        }
    }
}

impl std::fmt::Debug for Tuple<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.cells()).finish()
    }
}

impl<'a> Tuple<'a> {
    #[must_use]
    pub const fn len(&self) -> usize {
        self.count as usize
    }

    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The bytes that this row took on the wire.
    #[must_use]
    pub const fn wire_len(&self) -> usize {
        self.bytes.len()
    }

    #[must_use]
    pub const fn cells(&self) -> Cells<'a> {
        Cells { left: self.count, reader: Reader::new(self.bytes) }
    }

    pub(super) fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let count = reader.u16("cell count")?;
        let bytes =
            reader.span(|inner| (0..count).try_for_each(|_| Cell::read(inner).map(drop)))?;
        Ok(Self { count, bytes })
    }
}

impl<'a> IntoIterator for Tuple<'a> {
    type Item = Cell<'a>;
    type IntoIter = Cells<'a>;

    fn into_iter(self) -> Cells<'a> {
        self.cells()
    }
}

impl<'a> Cell<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        match reader.u8("cell kind")? {
            b'n' => Ok(Self::Null),
            b'u' => Ok(Self::Unchanged),
            b't' => Ok(Self::Text(reader.sized("cell")?)),
            b'b' => Ok(Self::Binary(reader.sized("cell")?)),
            byte => Err(DecodeError::Unknown { what: "cell kind", byte }),
        }
    }
}

/// Walks a tuple that has been checked.
pub struct Cells<'a> {
    left: u16,
    reader: Reader<'a>,
}

impl<'a> Iterator for Cells<'a> {
    type Item = Cell<'a>;

    fn next(&mut self) -> Option<Cell<'a>> {
        self.left = self.left.checked_sub(1)?;
        // Never an error: `Tuple::read` walked the same bytes.
        Cell::read(&mut self.reader).ok()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (usize::from(self.left), Some(usize::from(self.left)))
    }
}

impl ExactSizeIterator for Cells<'_> {}
