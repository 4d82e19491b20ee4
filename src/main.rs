//! The executable: reads the command line, runs a command, ends with its exit code.

use portcullis::commands::cli::{self, Command};
use portcullis::commands::{
    CommandError, bake, bundle, check, control, demo, diff, explain, inspect, passwd, policy_test, run, state, update,
};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use std::alloc::System;
use std::io::Write as _;
use std::process::ExitCode;

/// The system's allocator, which counts for the metrics.
#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

fn main() -> ExitCode {
    match execute() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let message = error.to_string();
            if !message.is_empty() {
                // Nowhere to report a failure to.
                let _ = writeln!(std::io::stderr(), "portcullis: {}", message.trim_end());
            }
            if matches!(error, CommandError::Usage(_)) && !message.contains("Usage:") {
                let _ = writeln!(std::io::stderr(), "Try 'portcullis --help'.");
            }
            ExitCode::from(error.exit_code())
        }
    }
}

fn execute() -> Result<(), CommandError> {
    let (mut out, mut diagnostics) = (std::io::stdout(), std::io::stderr());
    match cli::parse(std::env::args_os().skip(1))? {
        Command::Print(text) => {
            // A reader that has gone away has read enough.
            let _ = out.write_all(text.as_bytes());
            Ok(())
        }
        Command::Demo(options, level) => {
            portcullis::platform::install(level);
            demo::run(&options, &mut out)
        }
        Command::Run(options, level) => {
            portcullis::platform::install(level);
            run::run(&options)
        }
        Command::Bake(options, level) => {
            portcullis::platform::install(level);
            bake::run(&options, &mut out, &mut diagnostics)
        }
        Command::Check(options, level) => {
            portcullis::platform::install(level);
            check::run(&options, &mut out, &mut diagnostics)
        }
        Command::Inspect(options, level) => {
            portcullis::platform::install(level);
            inspect::run(&options, &mut out, &mut diagnostics)
        }
        Command::Passwd(options, level) => {
            portcullis::platform::install(level);
            passwd::run(&options, &mut out)
        }
        Command::Explain(options, level) => {
            portcullis::platform::install(level);
            explain::run(&options, &mut out, &mut diagnostics)
        }
        Command::Diff(options, level) => {
            portcullis::platform::install(level);
            diff::run(&options, &mut out, &mut diagnostics)
        }
        Command::Test(options, level) => {
            portcullis::platform::install(level);
            policy_test::run(&options, &mut out, &mut diagnostics)
        }
        Command::Control(options, level) => {
            portcullis::platform::install(level);
            control::run(&options, &mut out, &mut diagnostics)
        }
        Command::State(options, level) => {
            portcullis::platform::install(level);
            state::run(&options, &mut out, &mut diagnostics)
        }
        Command::Bundle(options, level) => {
            portcullis::platform::install(level);
            bundle::run(&options, &mut out, &mut diagnostics)
        }
        Command::Update(options, level) => {
            portcullis::platform::install(level);
            update::run(&options, &mut out, &mut diagnostics)
        }
    }
}
