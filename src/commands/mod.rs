//! The commands a person types: parsed options and two streams in, an exit code out.

pub mod bake;
mod bridges;
pub mod bundle;
pub mod check;
pub mod cli;
pub mod control;
pub mod demo;
mod diagnostics;
pub mod diff;
pub mod explain;
mod facts;
pub mod inspect;
mod judge;
mod last_good;
pub mod memory;
pub mod passwd;
mod paths;
pub mod policy_test;
mod prepare;
mod reload;
mod revocation;
pub mod run;
mod start;
pub mod state;
mod state_folder;
mod succession;
mod surroundings;
mod transport;
pub mod update;

use crate::config::BlobError;
use crate::config::diagnostic::{Diagnostics, Escaped};
use core::fmt;
use std::io;
use std::path::Path;

/// Why a command did not do what it was asked to. Each kind has its exit code, on which scripts depend.
#[derive(Debug, PartialEq, Eq)]
pub enum CommandError {
    /// The answer is no: denied, different, a test failed. It has been written already. Exit code 1.
    AnswerIsNo,
    /// The command line is wrong. Exit code 2.
    Usage(String),
    /// The configuration is refused; the mistakes themselves have been written already. Exit code 3.
    ConfigurationRefused(String),
    /// Nobody reads the rest of the output. Exit code 0: whoever reads has read enough.
    ReaderGone,
    /// The surroundings fail: port taken, key or file unreadable, not enough memory. Exit code 4.
    CannotStart(String),
}

impl CommandError {
    /// The exit code.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::ReaderGone => 0,
            Self::AnswerIsNo => 1,
            Self::Usage(_) => 2,
            Self::ConfigurationRefused(_) => 3,
            Self::CannotStart(_) => 4,
        }
    }

    /// Mistakes that have been written to the person.
    fn mistakes(found: &Diagnostics) -> Self {
        let plural = if found.errors() == 1 { "" } else { "s" };
        Self::ConfigurationRefused(format!("the configuration is refused: {} mistake{plural}", found.errors()))
    }

    fn blob(path: &Path, error: &BlobError) -> Self {
        Self::ConfigurationRefused(format!("{}: {error}", Escaped(&path.to_string_lossy())))
    }

    fn file(path: &Path, error: &io::Error) -> Self {
        Self::CannotStart(format!("{}: {error}", Escaped(&path.to_string_lossy())))
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AnswerIsNo | Self::ReaderGone => Ok(()),
            Self::Usage(message) | Self::ConfigurationRefused(message) | Self::CannotStart(message) => {
                f.write_str(message)
            }
        }
    }
}

impl std::error::Error for CommandError {}

impl From<io::Error> for CommandError {
    /// The terminal or pipe that takes the output is gone.
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::ReaderGone;
        }
        Self::CannotStart(format!("cannot write the output: {error}"))
    }
}
