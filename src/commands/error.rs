//! How a command ends when it does not end well.

use crate::config::BlobError;
use crate::config::diagnostic::Escaped;
use core::fmt;
use std::io;
use std::path::PathBuf;

/// Why a command failed. What there is to say about a refused configuration has been written already.
#[derive(Debug)]
pub enum CommandError {
    /// The configuration has mistakes.
    Refused {
        /// How many.
        errors: usize,
    },
    /// A blob is refused.
    Blob {
        /// The file.
        path: PathBuf,
        /// Why.
        error: BlobError,
    },
    /// A file cannot be read or written.
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// The terminal or pipe that takes the output is gone.
    Output(io::Error),
}

impl CommandError {
    /// The exit code: 3 for a refused configuration, 4 where the surroundings fail.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Refused { .. } | Self::Blob { .. } => 3,
            Self::File { .. } | Self::Output(_) => 4,
        }
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused { errors: 1 } => f.write_str("the configuration is refused: 1 mistake"),
            Self::Refused { errors } => write!(f, "the configuration is refused: {errors} mistakes"),
            Self::Blob { path, error } => write!(f, "{}: {error}", Escaped(&path.to_string_lossy())),
            Self::File { path, error } => write!(f, "{}: {error}", Escaped(&path.to_string_lossy())),
            Self::Output(error) => write!(f, "cannot write the output: {error}"),
        }
    }
}

impl std::error::Error for CommandError {}

impl From<io::Error> for CommandError {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}
