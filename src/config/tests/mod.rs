//! Golden files, examples and mutations.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod connect;
mod examples;
mod files;
mod golden;
mod mutations;

use std::path::{Path, PathBuf};

use super::Pipeline;

/// The folder of this crate.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn yaml_files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|ending| ending == "yaml"));
    files.sort();
    assert!(!files.is_empty(), "no YAML in {}", folder.display());
    files
}

/// What `check` says of a text, without excerpts.
fn says(text: &str) -> String {
    match Pipeline::parse(Path::new("p.yaml"), text.to_owned()) {
        Ok(_) => "ok".to_owned(),
        Err(problems) => problems.to_string(),
    }
}
