//! A view's SQL, and where each place of it stands in the file.

use walview_core::diagnostic::{Diagnostic, Place};

pub use walview_core::sql::ParsedView;

/// The text of a literal block, without the block's indentation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqlText {
    pub text: String,
    /// The file's line that holds the text's first line; counts from 1.
    pub first_line: u32,
    /// Characters of indentation that each line has in the file.
    pub indent: u32,
}

impl SqlText {
    /// A place of the SQL, in the file. Line 0 (the end of the text, as some parsers say) is the
    /// last line.
    #[must_use]
    pub fn in_file(&self, place: Place) -> Place {
        let lines = u32::try_from(self.text.trim_end().lines().count().max(1)).unwrap_or(u32::MAX);
        let line = if place.line == 0 || place.line > lines { lines } else { place.line };
        let column = if line == place.line { place.column.max(1) } else { 1 };
        Place {
            line: self.first_line.saturating_add(line - 1),
            column: self.indent.saturating_add(column),
        }
    }

    #[must_use]
    pub fn diagnostics_in_file(&self, list: Vec<Diagnostic>) -> Vec<Diagnostic> {
        list.into_iter()
            .map(|diagnostic| Diagnostic { place: self.in_file(diagnostic.place), ..diagnostic })
            .collect()
    }
}
