//! The program: parses the command line, dispatches, and turns the outcome into an exit code.

use std::process::ExitCode;

use clap::Parser as _;
use walview::cli::{Cli, Command, Exit};
use walview::config::Environment;
use walview::output::Output;
use walview::{check, logging};

fn main() -> ExitCode {
    let cli = Cli::parse();
    let output = cli.output();
    let environment = Environment::Process;
    if let Err(message) = logging::start(cli.log.as_deref(), &environment) {
        output.fault(&message);
        return Exit::CouldNotTell.into();
    }
    dispatch(&cli.command, output).into()
}

/// Each command is one function of the library: arguments and output in, exit code out.
fn dispatch(command: &Command, output: Output) -> Exit {
    match command {
        Command::Check(args) => check::run(args, output),
        Command::Run(_)
        | Command::Status(_)
        | Command::Verify(_)
        | Command::Rebuild(_)
        | Command::Demo(_) => {
            output.fault("this command is not built in yet");
            Exit::CouldNotTell
        }
    }
}
