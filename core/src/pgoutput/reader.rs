//! A cursor over one message: every read says what it was reading when the bytes ran out.

use super::DecodeError;
use crate::position::Lsn;

pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(super) const fn remaining(&self) -> usize {
        self.rest.len()
    }

    fn chunk<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], DecodeError> {
        let (chunk, rest) = self.rest.split_first_chunk().ok_or(DecodeError::Truncated(what))?;
        self.rest = rest;
        Ok(*chunk)
    }

    fn take(&mut self, len: usize, what: &'static str) -> Result<&'a [u8], DecodeError> {
        let (head, rest) = self.rest.split_at_checked(len).ok_or(DecodeError::Truncated(what))?;
        self.rest = rest;
        Ok(head)
    }

    pub(super) fn u8(&mut self, what: &'static str) -> Result<u8, DecodeError> {
        self.chunk::<1>(what).map(|[byte]| byte)
    }

    /// Counts are `int16` on the wire and never negative: a row has at most 1,664 columns.
    pub(super) fn u16(&mut self, what: &'static str) -> Result<u16, DecodeError> {
        self.chunk(what).map(u16::from_be_bytes)
    }

    pub(super) fn u32(&mut self, what: &'static str) -> Result<u32, DecodeError> {
        self.chunk(what).map(u32::from_be_bytes)
    }

    pub(super) fn i32(&mut self, what: &'static str) -> Result<i32, DecodeError> {
        self.chunk(what).map(i32::from_be_bytes)
    }

    pub(super) fn i64(&mut self, what: &'static str) -> Result<i64, DecodeError> {
        self.chunk(what).map(i64::from_be_bytes)
    }

    pub(super) fn lsn(&mut self, what: &'static str) -> Result<Lsn, DecodeError> {
        self.chunk(what).map(|bytes| Lsn(u64::from_be_bytes(bytes)))
    }

    pub(super) fn expect(&mut self, wanted: u8, what: &'static str) -> Result<(), DecodeError> {
        match self.u8(what)? {
            byte if byte == wanted => Ok(()),
            byte => Err(DecodeError::Unknown { what, byte }),
        }
    }

    /// A length of four bytes, then as many bytes.
    pub(super) fn sized(&mut self, what: &'static str) -> Result<&'a [u8], DecodeError> {
        let len = self.u32(what)?;
        // A length that does not fit the address space cannot be in the message either.
        self.take(usize::try_from(len).unwrap_or(usize::MAX), what)
    }

    /// A text up to a zero byte.
    pub(super) fn name(&mut self, what: &'static str) -> Result<&'a str, DecodeError> {
        let end = self.rest.iter().position(|byte| *byte == 0);
        let name = self.take(end.ok_or(DecodeError::Truncated(what))?, what)?;
        self.u8(what)?;
        // `Utf8Error` names an offset; the object is what a reader can act on.
        std::str::from_utf8(name).ok().ok_or(DecodeError::NotUtf8(what))
    }

    pub(super) fn schema(&mut self) -> Result<&'a str, DecodeError> {
        let name = self.name("schema name")?;
        Ok(if name.is_empty() { "pg_catalog" } else { name })
    }

    /// The bytes that `walk` consumes.
    pub(super) fn span(
        &mut self,
        walk: impl FnOnce(&mut Self) -> Result<(), DecodeError>,
    ) -> Result<&'a [u8], DecodeError> {
        let before = self.rest;
        walk(self)?;
        let len = before.len().saturating_sub(self.rest.len());
        Ok(before.get(..len).unwrap_or_default())
    }
}
