//! What is wrong with a pipeline file, and how a person reads it.
//!
//! Every message has one form, whoever found the fault (the YAML reader, the SQL front end, a store
//! at bind time): `file:line:column: message; remedy`.
//!
//! Invariant: no secret is printed. Messages never quote a value of `source` or `stores`, and an
//! excerpt never shows a line that could hold one ([`may_hold_secret`]).

use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use walview_core::diagnostic::{Diagnostic, Place};

/// More than this many are counted, not listed: one slip in a long file can cause hundreds.
const PROBLEMS_LISTED_MAX: usize = 100;

/// Excerpt lines are cut here (characters): a minified one-line file must not flood a terminal.
const EXCERPT_CHARS_MAX: usize = 160;

/// A pipeline file as read, kept for excerpts. The text may hold a password, so `Debug` leaves it out.
#[derive(Clone, PartialEq, Eq)]
pub struct SourceText {
    pub file: PathBuf,
    pub text: String,
}

impl fmt::Debug for SourceText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SourceText").field("file", &self.file).finish_non_exhaustive()
    }
}

impl SourceText {
    fn line(&self, number: u32) -> Option<&str> {
        let index = usize::try_from(number.checked_sub(1)?).ok()?;
        self.text.lines().nth(index)
    }
}

/// Everything that is wrong with one file, in the file's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems {
    source: Arc<SourceText>,
    list: Vec<Diagnostic>,
}

impl Problems {
    /// `list` in any order. A place with line 0 is the file as a whole.
    #[must_use]
    pub fn new(source: Arc<SourceText>, mut list: Vec<Diagnostic>) -> Self {
        list.sort();
        list.dedup();
        Self { source, list }
    }

    /// One fault of a file that could not be read.
    #[must_use]
    pub fn of_file(file: &Path, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        let source = SourceText { file: file.to_path_buf(), text: String::new() };
        Self::new(
            Arc::new(source),
            vec![Diagnostic::new(Place::default(), message.into(), remedy.into())],
        )
    }

    #[must_use]
    pub fn file(&self) -> &Path {
        &self.source.file
    }

    #[must_use]
    pub fn list(&self) -> &[Diagnostic] {
        &self.list
    }

    /// The stable form of `--json`.
    #[must_use]
    pub fn to_json(&self) -> Vec<ProblemJson<'_>> {
        self.list
            .iter()
            .map(|problem| ProblemJson {
                line: (problem.place.line > 0).then_some(problem.place.line),
                column: (problem.place.line > 0).then_some(problem.place.column),
                message: &problem.message,
                remedy: (!problem.remedy.is_empty()).then_some(problem.remedy.as_str()),
            })
            .collect()
    }

    /// For people: each fault with the line that it is in and a caret.
    #[must_use]
    pub fn with_excerpts(&self) -> String {
        let mut out = String::new();
        for problem in self.list.iter().take(PROBLEMS_LISTED_MAX) {
            self.write_head(&mut out, problem);
            self.write_excerpt(&mut out, problem.place);
        }
        self.write_rest(&mut out);
        out
    }

    fn write_head(&self, out: &mut String, problem: &Diagnostic) {
        let file = self.source.file.display();
        let place = problem.place;
        if place.line > 0 {
            push(out, format_args!("{file}:{}:{}: ", place.line, place.column));
        } else {
            push(out, format_args!("{file}: "));
        }
        out.push_str(&problem.message);
        if !problem.remedy.is_empty() {
            push(out, format_args!("; {}", problem.remedy));
        }
        out.push('\n');
    }

    fn write_excerpt(&self, out: &mut String, place: Place) {
        let Some(line) = self.source.line(place.line) else {
            return;
        };
        if line.trim().is_empty() || may_hold_secret(&self.source.text, place.line) {
            return;
        }
        let column = usize::try_from(place.column.max(1)).unwrap_or(usize::MAX);
        if column > EXCERPT_CHARS_MAX {
            return;
        }
        let number = place.line.to_string();
        let gutter = " ".repeat(number.len());
        let shown: String = line.chars().take(EXCERPT_CHARS_MAX).collect();
        // Tabs are kept before the caret, so that it stands under its character.
        let lead: String =
            line.chars().take(column - 1).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        push(out, format_args!("  {number} | {}\n", printable(&shown)));
        push(out, format_args!("  {gutter} | {lead}^\n"));
    }

    fn write_rest(&self, out: &mut String) {
        let rest = self.list.len().saturating_sub(PROBLEMS_LISTED_MAX);
        if rest > 0 {
            let file = self.source.file.display();
            push(out, format_args!("{file}: {rest} more errors are not listed\n"));
        }
    }
}

/// One line each, without excerpts: for logs and golden tests.
impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = String::new();
        for problem in self.list.iter().take(PROBLEMS_LISTED_MAX) {
            self.write_head(&mut out, problem);
        }
        self.write_rest(&mut out);
        f.write_str(out.trim_end())
    }
}

impl std::error::Error for Problems {}

#[derive(Debug, Serialize)]
pub struct ProblemJson<'a> {
    /// Absent where the file as a whole is meant.
    pub line: Option<u32>,
    pub column: Option<u32>,
    pub message: &'a str,
    pub remedy: Option<&'a str>,
}

fn push(out: &mut String, text: fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    out.write_fmt(text).unwrap_or_default();
}

/// Control characters would let a file steer the terminal that shows its errors.
fn printable(line: &str) -> String {
    line.chars().map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c }).collect()
}

/// Whether a line could hold a secret: it is in the top-level blocks `source:` and `stores:`, or looks
/// like a URL, an account or a password. Goes by the text alone, since the file may not even be YAML;
/// so only a line that certainly begins another block ends one of these two.
fn may_hold_secret(text: &str, number: u32) -> bool {
    let mut in_block = false;
    for (index, line) in text.lines().enumerate() {
        let key = line.trim_start_matches(['"', '\'']);
        let begins = |keys: &[&str]| keys.iter().any(|start| key.starts_with(start));
        // A flow mapping at the top holds everything on one line, or any.
        if begins(&["source", "stores", "{", "?"]) {
            in_block = true;
        } else if begins(&["pipeline", "views"]) {
            in_block = false;
        }
        if u32::try_from(index + 1) == Ok(number) {
            let line = line.to_lowercase();
            return in_block || ["://", "@", "password"].iter().any(|sign| line.contains(sign));
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str, line: u32, column: u32) -> Problems {
        let source = SourceText { file: "p.yaml".into(), text: text.to_owned() };
        let place = Place { line, column };
        Problems::new(Arc::new(source), vec![Diagnostic::new(place, "it is wrong", "mend it")])
    }

    #[test]
    fn an_excerpt_points_at_the_character() {
        let shown = problems("views:\n  - nämé: x\n", 2, 5).with_excerpts();
        assert_eq!(shown, "p.yaml:2:5: it is wrong; mend it\n  2 |   - nämé: x\n    |     ^\n");
    }

    #[test]
    fn lines_that_could_hold_a_secret_are_not_shown() {
        let text =
            "source:\n  x: geheim\nstores:\n  redis: { url: geheim }\nviews:\n  - redis://geheim\n";
        for line in [2, 4, 6] {
            let shown = problems(text, line, 3).with_excerpts();
            assert!(!shown.contains("geheim"), "{shown}");
        }
        let shown = problems(text, 5, 1).with_excerpts();
        assert!(shown.contains("5 | views:"), "{shown}");
    }
}
