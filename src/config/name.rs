//! Names that end up in slots, files, tables and metrics: one narrow alphabet for all of them.

use std::fmt;

/// Slot names take 63 bytes of `[a-z0-9_]` and are interpolated unquoted by the replication
/// protocol; `walview_` stands before a pipeline's name, and a suffix may follow.
pub const NAME_CHARS_MAX: usize = 41;

/// The name of a pipeline, view or store: `[a-z][a-z0-9_]{0,40}`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

impl Name {
    /// # Errors
    /// What the rule is.
    pub fn parse(text: &str) -> Result<Self, String> {
        let starts_well = text.starts_with(|c: char| c.is_ascii_lowercase());
        let alphabet = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        if starts_well && text.chars().all(alphabet) && text.len() <= NAME_CHARS_MAX {
            return Ok(Self(text.to_owned()));
        }
        Err(format!(
            "names have a-z, 0-9 and _, begin with a letter and have at most {NAME_CHARS_MAX} \
             characters"
        ))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl AsRef<str> for Name {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::{NAME_CHARS_MAX, Name};

    #[test]
    fn a_name_fits_a_slot() {
        for good in ["a", "betting", "b2_x", &"a".repeat(NAME_CHARS_MAX)] {
            assert!(Name::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "A", "1a", "_a", "a-b", "ä", "a b", &"a".repeat(NAME_CHARS_MAX + 1)] {
            assert!(Name::parse(bad).is_err(), "{bad}");
        }
    }
}
