//! The command line: arguments to a closed [`Command`], which `main` dispatches.
//!
//! Nothing here does anything. Commands of later versions are not listed.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::output::{Format, Output};

/// What the process tells its caller. Stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// 0: done, and all is well. `status`: every pipeline runs and is well. `verify`: equal.
    Ok,
    /// 1: errors in the files, the command failed, `plan` found something that must be mended
    /// first, or `verify` and `demo` found differences.
    /// `status`: degraded (something needs a look, the rest goes on).
    Failed,
    /// 2: the command line is wrong, or `plan`, `verify` and `demo` could not tell. `status`:
    /// stopped.
    CouldNotTell,
}

impl Exit {
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Failed => 1,
            Self::CouldNotTell => 2,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// Keep the results of SQL views over PostgreSQL in Redis and ClickHouse, exactly.
#[derive(Debug, Parser)]
#[command(name = "walview", version, max_term_width = 100)]
pub struct Cli {
    /// Print one JSON document instead of text
    #[arg(long, global = true)]
    pub json: bool,

    /// What to log to standard error: error, warn, info, debug or trace, or a filter such as
    /// "walview=debug,fjall=info" [default: RUST_LOG, or info]
    #[arg(long, global = true, value_name = "LEVEL")]
    pub log: Option<String>,

    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    #[must_use]
    pub fn output(&self) -> Output {
        Output { format: if self.json { Format::Json } else { Format::Human } }
    }
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check pipeline files: YAML, SQL and targets; needs no server
    Check(CheckArgs),
    /// Say what run would make, what it needs and what it costs, and change nothing; exits 0 run
    /// would start, 1 something must be mended first, 2 a server did not answer
    Plan(PlanArgs),
    /// Snapshot what is new, then stream changes until SIGTERM
    Run(RunArgs),
    /// Say how running pipelines are; exits 0 well, 1 degraded, 2 stopped
    Status(StatusArgs),
    /// Compare what the stores hold with the SQL on PostgreSQL; exits 0 equal, 1 different,
    /// 2 could not tell
    Verify(VerifyArgs),
    /// Rows that are left out of their views because they cannot be evaluated or held
    DeadLetters(DeadLettersArgs),
    /// Forget local state, fill the stores from a new snapshot, then run
    Rebuild(RebuildArgs),
    /// Start throw-away servers with sample data and a pipeline that runs
    Demo(DemoArgs),
}

#[derive(Debug, Args)]
pub struct CheckArgs {
    /// Pipeline files
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
}

/// Where a pipeline's local state lives: one folder under it for each pipeline.
#[derive(Debug, Args)]
pub struct StateArgs {
    /// Folder for local state; each pipeline has its own inside
    #[arg(long, value_name = "DIR", default_value = "walview-state")]
    pub state: PathBuf,
}

/// What `run` and `rebuild` have in common.
#[derive(Clone, Copy, Debug, Args)]
pub struct ServeArgs {
    /// Address for /live, /ready, /status and /metrics; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7878")]
    pub http: SocketAddr,

    /// How much may wait on the local disk, of each pipeline, for stores that do not take it; then
    /// nothing more is read, and the source keeps its WAL
    #[arg(long, value_name = "SIZE", default_value = "20GB", value_parser = parse_size)]
    pub outbox_max: u64,
}

#[derive(Debug, Args)]
pub struct PlanArgs {
    /// Pipeline files
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,

    #[command(flatten)]
    pub state: StateArgs,
}

#[derive(Debug, Args)]
pub struct RunArgs {
    /// Pipeline files
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,

    #[command(flatten)]
    pub state: StateArgs,

    #[command(flatten)]
    pub serve: ServeArgs,
}

#[derive(Debug, Args)]
pub struct StatusArgs {
    /// A pipeline file; all pipelines of the state folder where none is given
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,

    #[command(flatten)]
    pub state: StateArgs,

    /// Print only what is not ready, as /ready does; exits 0 ready, 1 not, as health checks want it
    #[arg(long)]
    pub ready: bool,
}

#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// Pipeline file
    #[arg(value_name = "FILE")]
    pub file: PathBuf,

    #[command(flatten)]
    pub state: StateArgs,
}

#[derive(Debug, Args)]
pub struct DeadLettersArgs {
    #[command(subcommand)]
    pub command: DeadLettersCommand,
}

/// All of it asks the running instance; exits 2 where none answers.
#[derive(Debug, Subcommand)]
pub enum DeadLettersCommand {
    /// Name them, with their keys and reasons, and count them by reason
    List(ListLettersArgs),
    /// Print rows behind them, with their values; exits 1 where there is no such letter
    Show(ShowLettersArgs),
    /// Evaluate the rows again and deliver those that can be; exits 1 where some still cannot
    Replay(ChangeLettersArgs),
    /// Count them no longer; their rows stay out until they change
    Drop(ChangeLettersArgs),
}

#[derive(Debug, Args)]
pub struct ListLettersArgs {
    /// A pipeline file; all pipelines of the state folder where none is given
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,

    /// Of one view only
    #[arg(long, value_name = "VIEW")]
    pub view: Option<String>,

    /// Those that were dropped, too
    #[arg(long)]
    pub dropped: bool,

    /// How many to name, at most 10000; all are counted
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub limit: usize,

    #[command(flatten)]
    pub state: StateArgs,
}

#[derive(Debug, Args)]
pub struct ShowLettersArgs {
    /// Pipeline file
    #[arg(value_name = "FILE")]
    pub file: PathBuf,

    /// Letters by their ids, as `list` names them
    #[arg(value_name = "ID", required = true)]
    pub ids: Vec<String>,

    #[command(flatten)]
    pub state: StateArgs,
}

#[derive(Debug, Args)]
pub struct ChangeLettersArgs {
    /// Pipeline file
    #[arg(value_name = "FILE")]
    pub file: PathBuf,

    #[command(flatten)]
    pub choice: LetterChoice,

    #[command(flatten)]
    pub state: StateArgs,
}

/// Which dead letters.
#[derive(Debug, Default, Args)]
#[group(required = true, multiple = false)]
pub struct LetterChoice {
    /// Letters by their ids, as `list` names them
    #[arg(value_name = "ID")]
    pub ids: Vec<String>,

    /// All of one view
    #[arg(long, value_name = "VIEW")]
    pub view: Option<String>,

    /// All of the pipeline
    #[arg(long)]
    pub all: bool,
}

#[derive(Debug, Args)]
pub struct RebuildArgs {
    /// Pipeline file
    #[arg(value_name = "FILE")]
    pub file: PathBuf,

    #[command(flatten)]
    pub state: StateArgs,

    #[command(flatten)]
    pub serve: ServeArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Domain {
    Betting,
}

#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Whose tables and views to show
    #[arg(value_name = "DOMAIN", value_enum, default_value_t = Domain::Betting)]
    pub domain: Domain,

    /// Transactions per second; 0 is as many as the machine can do
    #[arg(long, value_name = "N", default_value_t = 200,
          value_parser = clap::value_parser!(u32).range(0..=100_000))]
    pub rate: u32,

    /// Stop the workload after this long (30s, 5m), compare everything and exit; without it, until
    /// Ctrl-C
    #[arg(long = "for", value_name = "DURATION", value_parser = parse_duration)]
    pub duration: Option<Duration>,
}

/// `500MB`, `20GB`: a whole number of decimal units.
///
/// # Errors
/// What to write instead.
pub fn parse_size(text: &str) -> Result<u64, String> {
    const UNITS: [(&str, u64); 4] =
        [("MB", 1_000_000), ("GB", 1_000_000_000), ("TB", 1_000_000_000_000), ("kB", 1_000)];
    whole_with_unit(text, &UNITS)
        .ok_or_else(|| "write a whole number and its unit: 500MB, 20GB or 1TB".to_owned())
}

/// `500ms`, `30s`, `5m`, `2h`: a whole number and its unit.
///
/// # Errors
/// What to write instead.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    const UNITS: [(&str, u64); 4] = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];
    whole_with_unit(text, &UNITS)
        .map(Duration::from_millis)
        .ok_or_else(|| "write a whole number and its unit: 500ms, 30s, 5m or 2h".to_owned())
}

/// A whole number above zero, times its unit.
fn whole_with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = text.strip_prefix(digits).unwrap_or_default();
    let factor = units.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor)?;
    // `u64::parse` would take a "+".
    let number = Some(digits).filter(|digits| digits.chars().all(|c| c.is_ascii_digit()))?;
    number.parse::<u64>().ok()?.checked_mul(factor).filter(|product| *product > 0)
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_definition_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn durations() {
        assert_eq!(parse_duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("2h"), Ok(Duration::from_hours(2)));
        for bad in ["", "s", "30", "0s", "-1s", "+1s", "1.5s", "30 s", "30d", "99999999999999999h"]
        {
            assert!(parse_duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes() {
        assert_eq!(parse_size("20GB"), Ok(20_000_000_000));
        assert_eq!(parse_size("64MB"), Ok(64_000_000));
        for bad in ["", "20", "GB", "0GB", "-1GB", "1.5GB", "20 GB", "20gb", "99999999999999TB"] {
            assert!(parse_size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_demo_as_the_readme_has_it() {
        let cli =
            Cli::try_parse_from(["walview", "demo", "betting", "--rate", "500", "--for", "30s"]);
        let Command::Demo(args) = cli.unwrap().command else { unreachable!() };
        assert_eq!((args.rate, args.duration), (500, Some(Duration::from_secs(30))));
    }

    #[test]
    fn json_and_log_stand_anywhere() {
        let cli = Cli::try_parse_from(["walview", "check", "a.yaml", "--json", "--log", "debug"]);
        let cli = cli.unwrap();
        assert!(cli.output().is_json());
        assert_eq!(cli.log.as_deref(), Some("debug"));
    }
}
