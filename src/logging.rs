//! Logs: to standard error, for operators. Lower-case fragments with fields; never a row value or a
//! secret. ERROR means that someone must act.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::config::Environment;

/// Without a word from the user: our own progress, and only what is wrong elsewhere.
const LEVEL_DEFAULT: &str = "info";

/// Sets the process's logger up, once.
///
/// # Errors
/// What is wrong with the filter: one sentence.
pub fn start(flag: Option<&str>, environment: &Environment) -> Result<(), String> {
    let filter = filter(flag, environment)?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_target(false)
        .try_init()
        .map_err(|error| format!("cannot start the log: {error}"))
}

/// `--log` stands above `RUST_LOG`. A bare level is meant for Walview; drivers at debug level may log
/// what they send.
fn filter(flag: Option<&str>, environment: &Environment) -> Result<EnvFilter, String> {
    let variable = environment.get("RUST_LOG").ok();
    let (wish, from) = match (flag, variable) {
        (Some(flag), _) => (flag.to_owned(), "--log"),
        (None, Some(variable)) => (variable, "RUST_LOG"),
        (None, None) => (LEVEL_DEFAULT.to_owned(), "the default"),
    };
    let directives = if wish.parse::<LevelFilter>().is_ok() {
        format!("warn,walview={wish},walview_core={wish}")
    } else {
        wish
    };
    EnvFilter::try_new(directives).map_err(|_error| {
        // Its own words quote the filter's insides; ours say what to write.
        format!("{from} is not a log filter; write error, warn, info, debug or trace")
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn the_flag_stands_above_the_variable() {
        let environment = Environment::fixed([("RUST_LOG", "trace")]);
        let shown = |flag| filter(flag, &environment).unwrap().to_string();
        assert!(shown(None).contains("walview=trace"), "{}", shown(None));
        assert!(shown(Some("warn")).contains("walview=warn"), "{}", shown(Some("warn")));
        assert_eq!(shown(Some("fjall=debug")), "fjall=debug");
        assert!(filter(Some("=x="), &environment).is_err());
    }
}
