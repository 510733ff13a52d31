//! The only place that prints: results to standard output, faults to standard error.
//!
//! People get text, `--json` gets one JSON document on standard output whatever happens. Field names
//! are stable. A closed pipe (`walview status | head -1`) is not a fault.

use std::io;

use serde::Serialize;

use crate::config::Problems;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Human,
    Json,
}

/// How this run of the program speaks.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    pub format: Format,
}

impl Output {
    #[must_use]
    pub fn is_json(self) -> bool {
        self.format == Format::Json
    }

    /// A result: `text` for people, `document` for programs.
    pub fn result(self, text: impl AsRef<str>, document: &impl Serialize) {
        match self.format {
            Format::Human => write_line(&mut io::stdout().lock(), text.as_ref()),
            Format::Json => self.document(document),
        }
    }

    /// The JSON document of a command.
    pub fn document(self, document: &impl Serialize) {
        match serde_json::to_string(document) {
            Ok(json) => write_line(&mut io::stdout().lock(), &json),
            Err(error) => self.fault(&format!("cannot write JSON: {error}")),
        }
    }

    /// A line for people about how it goes; programs do not get it.
    pub fn progress(self, text: impl AsRef<str>) {
        if self.format == Format::Human {
            write_line(&mut io::stdout().lock(), text.as_ref());
        }
    }

    /// One sentence about why the command failed.
    pub fn fault(self, text: &str) {
        write_line(&mut io::stderr().lock(), &format!("walview: {text}"));
    }

    /// What is wrong with pipeline files, where a command other than `check` stumbles over it.
    pub fn problems(self, problems: &[Problems]) {
        for one in problems {
            write_line(&mut io::stderr().lock(), one.with_excerpts().trim_end());
        }
    }
}

fn write_line(out: &mut impl io::Write, text: &str) {
    // Nobody is left to tell where the reader went away.
    writeln!(out, "{text}").and_then(|()| out.flush()).unwrap_or_default();
}
