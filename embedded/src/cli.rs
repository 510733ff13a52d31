//! The command line, as written and as meant.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Parser;

/// The build that scripts/setup fetches; the folder of its cache carries this name.
pub(crate) const LIBRARY_FOLDER: &str = "chdb-26.7.3-stable.1";
const LIBRARY_FILE: &str = "libchdb.so";

/// ClickHouse's engine, in-process, behind ClickHouse's HTTP interface: for demos and tests.
#[derive(Debug, Parser)]
#[command(version)]
pub(crate) struct Cli {
    /// Folder of the tables; made if missing
    #[arg(long, value_name = "DIR", required_unless_present = "check")]
    pub(crate) data: Option<PathBuf>,
    /// Where to listen; port 0 takes a free one, which the first line of output names
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:8123")]
    pub(crate) listen: SocketAddr,
    /// The engine; default: where scripts/setup puts it, then beside this program
    #[arg(long, value_name = "FILE", env = "WALVIEW_LIBCHDB")]
    lib: Option<PathBuf>,
    /// Memory that the engine may take, in bytes or with KiB, MiB, GiB
    #[arg(long, value_name = "SIZE", default_value = "2GiB", value_parser = parse_size)]
    pub(crate) memory_limit: u64,
    /// Statements that run at once; more wait for their turn
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub(crate) queries_max: u16,
    /// Seconds that running statements may take to end after SIGTERM
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    pub(crate) grace: u64,
    /// Seconds that a client may pause in an upload
    #[arg(long, value_name = "SECONDS", default_value_t = 30)]
    pub(crate) receive_timeout: u64,
    /// ClickHouse's own configuration file, for users and roles (`users_config`); statements that
    /// come over HTTP run as `default`, whoever they say they are
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Load the engine, print its version, and leave
    #[arg(long)]
    pub(crate) check: bool,
    #[arg(long, env = "XDG_CACHE_HOME", hide = true)]
    xdg_cache_home: Option<PathBuf>,
    #[arg(long, env = "HOME", hide = true)]
    home: Option<PathBuf>,
}

impl Cli {
    /// The engine's file. When there is none, the place where scripts/setup would put it, for the
    /// error message.
    pub(crate) fn library(&self) -> PathBuf {
        if let Some(lib) = &self.lib {
            return lib.clone();
        }
        let cache = self
            .xdg_cache_home
            .clone()
            .filter(|folder| folder.is_absolute())
            .or_else(|| Some(self.home.as_ref()?.join(".cache")))
            .map(|folder| folder.join("walview").join(LIBRARY_FOLDER).join(LIBRARY_FILE));
        let beside =
            std::env::current_exe().ok().map(|program| program.with_file_name(LIBRARY_FILE));
        let mut candidates = [cache.clone(), beside].into_iter().flatten();
        candidates
            .find(|file| Path::is_file(file))
            .or(cache)
            .unwrap_or_else(|| PathBuf::from(LIBRARY_FILE))
    }
}

fn parse_size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit = match text.strip_prefix(digits).unwrap_or_default() {
        "" | "B" => 1,
        "KiB" | "K" => 1 << 10,
        "MiB" | "M" => 1 << 20,
        "GiB" | "G" => 1 << 30,
        other => return Err(format!("\"{other}\" is no unit: use KiB, MiB or GiB")),
    };
    let bytes = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
    match bytes {
        // The engine itself takes some 300 MiB.
        Some(bytes) if bytes >= 512 << 20 => Ok(bytes),
        Some(_) => Err("less than 512MiB does not run the engine".to_owned()),
        None => Err(format!("\"{text}\" is no size: write it like 2GiB")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units_and_a_floor() {
        assert_eq!(parse_size("2GiB"), Ok(2 << 30));
        assert_eq!(parse_size("1073741824"), Ok(1 << 30));
        for bad in ["", "GiB", "1MiB", "2TB", "-1", "99999999999GiB"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }
}
