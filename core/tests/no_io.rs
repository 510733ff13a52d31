//! The core does no IO, reads no clock and rolls no dice. Lints catch the calls (`core/clippy.toml`);
//! this catches what lints cannot: a dependency that does it for us, and a path that nobody banned.

#![expect(clippy::unwrap_used, reason = "tests")]
#![expect(clippy::disallowed_methods, reason = "reads the crate's own text, which is its input")]

use std::collections::{BTreeMap, BTreeSet};
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

/// Everything that walview-core links, from its manifest (development dependencies left out, which the
/// lock file does not tell apart) and the lock file (which knows the rest).
#[test]
fn no_dependency_does_it_for_us() {
    let manifest = std::fs::read_to_string(crate_root().join("Cargo.toml")).unwrap();
    let lock = std::fs::read_to_string(crate_root().join("../Cargo.lock")).unwrap();
    let graph = lock_graph(&lock);
    let mut todo = direct_dependencies(&manifest);
    assert!(todo.iter().any(|name| name == "sqlparser"), "the manifest was not understood");
    let mut linked = BTreeSet::new();
    while let Some(name) = todo.pop() {
        if linked.insert(name.clone()) {
            let next = graph.get(&name);
            assert!(next.is_some(), "\"{name}\" is not in Cargo.lock");
            todo.extend(next.into_iter().flatten().cloned());
        }
    }
    assert!(linked.len() > 5, "{linked:?}");
    let banned: Vec<&String> =
        linked.iter().filter(|name| BANNED_CRATES.contains(&name.as_str())).collect();
    assert!(banned.is_empty(), "walview-core links {banned:?}");
}

fn direct_dependencies(manifest: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut inside = false;
    for line in manifest.lines() {
        if line.starts_with('[') {
            // `[target.….dependencies]` counts too; `[dev-dependencies]` does not.
            inside = line == "[dependencies]" || line.ends_with(".dependencies]");
        } else if let Some((name, _)) = line.split_once('=').filter(|_| inside) {
            let name = name.trim();
            names.push(name.strip_suffix(".workspace").unwrap_or(name).to_owned());
        }
    }
    names
}

/// Each package and what it depends on. Versions of one name are taken together: that can only find
/// more.
fn lock_graph(lock: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut graph: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in lock.split("[[package]]") {
        let mut name = None;
        for line in package.lines() {
            if let Some(text) = line.strip_prefix("name = ") {
                let text = text.trim_matches('"').to_owned();
                graph.entry(text.clone()).or_default();
                name = Some(text);
            } else if let Some(dependency) = line.strip_prefix(" \"") {
                // `"name"`, `"name version"`.
                let dependency = dependency.trim_end_matches("\",");
                let dependency = dependency.split(' ').next().unwrap().to_owned();
                graph.entry(name.clone().unwrap()).or_default().insert(dependency);
            }
        }
    }
    graph
}
