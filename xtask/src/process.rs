//! Running other programs, and the one error type of this tool.
//!
//! Comes in: a command that is ready to start. Goes out: its output, or a failure whose text says what to do.
//! **Invariant:** no program started here can wait for a keyboard: standard input is closed for all of them.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Why a command of this tool failed, in words for the person who reads them.
#[derive(Debug)]
pub struct Failure(String);

/// What a command returns.
pub type Outcome<T = ()> = Result<T, Failure>;

impl Failure {
    /// A failure with this text: what happened, and what to do about it.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// A mistake on the command line.
    pub fn usage(command: &str, error: &lexopt::Error) -> Self {
        Self(format!("{error}; `cargo xtask {command} --help` tells the options"))
    }

    /// Something that was attempted on a file and failed.
    pub fn file(attempt: &str, path: &Path, error: &io::Error) -> Self {
        Self(format!("cannot {attempt} {}: {error}", path.display()))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// The command as a person would type it, for the log.
pub fn shown(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or(command.get_program());
    let mut line = program.to_string_lossy().into_owned();
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&argument.to_string_lossy());
    }
    line
}

/// Starts the command with the terminal's output and waits for it.
pub fn run(command: &mut Command) -> Outcome {
    println!("$ {}", shown(command));
    let status = command.stdin(Stdio::null()).status().map_err(|error| not_started(command, &error))?;
    if status.success() { Ok(()) } else { Err(Failure::new(format!("`{}` failed ({status})", shown(command)))) }
}

/// Starts the command and returns its standard output. Its standard error is shown only when it fails.
pub fn capture(command: &mut Command) -> Outcome<String> {
    Ok(String::from_utf8_lossy(&bytes(command)?).into_owned())
}

/// The same for output that is no text.
pub fn bytes(command: &mut Command) -> Outcome<Vec<u8>> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| not_started(command, &error))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Failure::new(format!("`{}` failed ({}): {}", shown(command), output.status, said.trim())))
}

/// Where on the search path a program is.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    // Servers lie where not every user looks.
    let folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    folders.map(|folder| folder.join(program)).find(|candidate| candidate.is_file())
}

fn not_started(command: &Command, error: &io::Error) -> Failure {
    Failure::new(format!("`{}` could not be started: {error}", command.get_program().to_string_lossy()))
}
