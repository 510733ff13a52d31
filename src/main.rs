//! The program: parses the command line, dispatches, and turns the outcome into an exit code.

use std::process::ExitCode;

use clap::Parser as _;
use walview::cli::{Cli, Command, Exit};
use walview::config::Environment;
use walview::output::Output;
use walview::{check, demo, letters, logging, plan, service, status, verify};

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let output = cli.output();
    let environment = Environment::Process;
    if let Err(message) = logging::start(cli.log.as_deref(), &environment) {
        output.fault(&message);
        return Exit::CouldNotTell.into();
    }
    if let Command::Check(args) = &cli.command {
        return check::run(args, output).into();
    }
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(dispatch(&cli.command, &environment, output)).into(),
        Err(error) => {
            output.fault(&format!("cannot start: {error}"));
            Exit::CouldNotTell.into()
        }
    }
}

/// Each command is one function of the library: arguments and output in, exit code out.
async fn dispatch(command: &Command, environment: &Environment, output: Output) -> Exit {
    match command {
        Command::Check(args) => check::run(args, output),
        Command::Plan(args) => plan::run(args, environment, output).await,
        Command::Run(args) => service::run(args, environment, output).await,
        Command::Rebuild(args) => service::rebuild(args, environment, output).await,
        Command::Status(args) => status::run(args, output).await,
        Command::DeadLetters(args) => letters::run(&args.command, output).await,
        Command::Verify(args) => verify::run(args, environment, output).await,
        Command::Demo(args) => demo::command(args, output).await,
    }
}
