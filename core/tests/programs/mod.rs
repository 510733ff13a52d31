//! Which PostgreSQL judges: the one whose programs lie in the folder `WALVIEW_POSTGRES`, or the
//! newest installed one.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// What of PostgreSQL these tests start.
pub(crate) struct Programs {
    server: PathBuf,
    clients: PathBuf,
    pub(crate) major: u32,
}

impl Programs {
    pub(crate) fn find() -> Self {
        let installed = newest_installed();
        let server = std::env::var_os("WALVIEW_POSTGRES").map(PathBuf::from);
        let server = server.or_else(|| installed.clone()).expect(
            "this test needs PostgreSQL in /usr/lib/postgresql, or WALVIEW_POSTGRES (CONTRIBUTING.md)",
        );
        let version = Command::new(server.join("postgres")).arg("--version").output();
        let version = version.unwrap_or_else(|error| panic!("{}: {error}", server.display()));
        let version = String::from_utf8(version.stdout).unwrap();
        let digits = version.trim_start_matches(|c: char| !c.is_ascii_digit());
        let major = digits.split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap();
        let clients = installed.unwrap_or_else(|| server.clone());
        Self { server, clients, major }
    }

    /// Where a program is; builds for `make test-matrix` have no clients of their own.
    pub(crate) fn path(&self, program: &str) -> PathBuf {
        let own = self.server.join(program);
        if own.is_file() { own } else { self.clients.join(program) }
    }
}

fn newest_installed() -> Option<PathBuf> {
    let mut versions: Vec<(u32, PathBuf)> = fs::read_dir("/usr/lib/postgresql")
        .ok()?
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let version = entry.file_name().to_str()?.parse().ok()?;
            Some((version, entry.path().join("bin")))
        })
        .filter(|(_, bin)| bin.join("initdb").is_file())
        .collect();
    versions.sort();
    Some(versions.pop()?.1)
}
