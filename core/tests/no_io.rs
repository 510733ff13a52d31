//! Holds `walview-core` free of IO, clock and randomness: by its sources and by what it links.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test that reads the crate's own sources and asks cargo for its dependencies"
)]

use std::path::Path;
use std::process::Command;

/// Paths that only IO, clocks, threads, the environment or randomness need.
const FORBIDDEN_PATHS: [&str; 12] = [
    "std::fs",
    "std::io",
    "std::net",
    "std::process",
    "std::thread",
    "std::env",
    "std::time",
    "std::os",
    "std::sync::mpsc",
    "Instant::now",
    "SystemTime",
    "RandomState",
];

/// Crates that do IO, read clocks or roll dice, whoever pulls them in.
const FORBIDDEN_CRATES: [&str; 14] = [
    "tokio",
    "mio",
    "async-std",
    "smol",
    "socket2",
    "rustix",
    "nix",
    "rand",
    "getrandom",
    "fastrand",
    "chrono",
    "time",
    "jiff",
    "tracing",
];

#[test]
fn the_sources_name_no_io() {
    let mut offences = Vec::new();
    scan(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut offences);
    assert!(offences.is_empty(), "core/ must stay free of IO and clock:\n{}", offences.join("\n"));
}

fn scan(folder: &Path, offences: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            scan(&path, offences);
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        for (number, line) in text.lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            for forbidden in FORBIDDEN_PATHS {
                if code.contains(forbidden) {
                    offences.push(format!("{}:{}: {forbidden}", path.display(), number + 1));
                }
            }
        }
    }
}

#[test]
fn nothing_it_links_does_io() {
    let tree = Command::new(env!("CARGO"))
        .args(["tree", "--package", "walview-core", "--edges", "normal", "--prefix", "none"])
        .args(["--offline", "--format", "{p}"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    assert!(tree.status.success(), "{}", String::from_utf8_lossy(&tree.stderr));
    let tree = String::from_utf8(tree.stdout).unwrap();
    let names: Vec<&str> = tree.lines().filter_map(|line| line.split(' ').next()).collect();
    assert!(names.contains(&"walview-core"), "cargo listed something else: {tree}");
    let found: Vec<&&str> = names.iter().filter(|name| FORBIDDEN_CRATES.contains(name)).collect();
    assert!(found.is_empty(), "core/ links {found:?}");
}
