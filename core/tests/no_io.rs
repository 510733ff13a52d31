//! The core does no IO, reads no clock and rolls no dice. Lints catch the calls (`core/clippy.toml`);
//! this catches what lints cannot: a dependency that does it for us, and a path that nobody banned.

#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the crate's own text and its dependencies are what is tested"
)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Crates that are there to do IO, tell the time or roll dice.
const BANNED_CRATES: &[&str] = &[
    "async-io", "async-std", "chrono", "clickhouse", "fastrand", "fjall", "fs-err", "getrandom",
    "hyper", "jiff", "memmap2", "mio", "polling", "pgwire-replication", "rand", "rand_chacha",
    "rand_core", "redis", "reqwest", "rustix", "smol", "socket2", "tempfile", "time", "tokio",
    "tokio-postgres", "tracing-subscriber", "uuid", "walview",
];

/// Modules of `std` that reach out of the process, or into chance.
const BANNED_PATHS: &[&str] = &[
    "std::env", "std::fs", "std::net", "std::os", "std::process", "std::thread", "std::time",
    "std::io::stdin", "std::io::stdout", "std::io::stderr", "core::time", "RandomState",
];

/// `env!` and `include_str!` are read by the compiler, but make the result depend on where it ran.
const BANNED_MACROS: &[&str] = &["println!", "eprintln!", "print!", "eprint!", "dbg!", "env!", "option_env!"];

fn crate_root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, files);
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            files.push(path);
        }
    }
}

#[test]
fn the_source_names_no_io_clock_or_chance() {
    let mut files = Vec::new();
    rust_files(&crate_root().join("src"), &mut files);
    assert!(files.len() > 5, "the crate's files were not found");
    let mut found = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        // What is used by tests alone stands in `tests.rs`, `tests/`, or at the end of a file.
        let is_tests = file.iter().any(|part| part == "tests" || part == "tests.rs");
        let text = if is_tests { "" } else { text.split("#[cfg(test)]\nmod tests {").next().unwrap() };
        for (index, line) in text.lines().enumerate() {
            if let Some(banned) = banned_in(line) {
                found.push(format!("{}:{}: {banned}", file.display(), index + 1));
            }
        }
    }
    assert!(found.is_empty(), "walview-core must stay without IO, clock and chance:\n{}", found.join("\n"));
}

/// What a line of code must not have, comments left out.
fn banned_in(line: &str) -> Option<&'static str> {
    let code = line.split("//").next().unwrap_or_default();
    // `use std::{fs, time::Instant}` names them without their paths.
    let grouped = code.trim_start().trim_start_matches("pub ").strip_prefix("use std::{").is_some_and(|list| {
        list.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| {
            BANNED_PATHS.iter().any(|path| path.strip_prefix("std::") == Some(word))
        })
    });
    if grouped {
        return Some("a group of std that holds a banned module");
    }
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let has = |banned: &str| {
        code.match_indices(banned).any(|(at, _)| {
            let before = code.get(..at).and_then(|text| text.chars().next_back());
            let after = code.get(at + banned.len()..).and_then(|text| text.chars().next());
            !before.is_some_and(is_word) && !(after.is_some_and(is_word) && !banned.ends_with('!'))
        })
    };
    BANNED_PATHS.iter().chain(BANNED_MACROS).copied().find(|banned| has(banned))
}

#[test]
fn the_search_finds_what_it_must() {
    for bad in [
        "use std::fs;",
        "    let x = std::time::Instant::now();",
        "use std::{fmt, time::Instant};",
        "use ::std::net::IpAddr;",
        "println!(\"x\");",
        "HashMap::with_hasher(RandomState::new())",
    ] {
        assert!(banned_in(bad).is_some(), "{bad}");
    }
    for good in [
        "use std::fmt;",
        "// std::fs is not used",
        "use std::{fmt, mem};",
        "my_std::fs_like()",
        "writeln!(out, \"x\")",
        "use std::timeless;",
    ] {
        assert_eq!(banned_in(good), None, "{good}");
    }
}

/// Asks cargo, since the lock file also lists what other members' features pull in.
#[test]
fn no_dependency_does_it_for_us() {
    let output = std::process::Command::new(std::env::var("CARGO").unwrap())
        .args(["tree", "--package", "walview-core", "--edges", "normal", "--prefix", "none"])
        .args(["--format", "{p}", "--offline", "--locked"])
        .current_dir(crate_root())
        .output()
        .unwrap();
    let tree = String::from_utf8(output.stdout).unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "cargo tree: {said}");
    let linked: BTreeSet<&str> =
        tree.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert!(linked.contains("sqlparser"), "the tree was not understood:\n{tree}");
    let banned: Vec<&&str> = linked.iter().filter(|name| BANNED_CRATES.contains(name)).collect();
    assert!(banned.is_empty(), "walview-core links {banned:?}");
}
