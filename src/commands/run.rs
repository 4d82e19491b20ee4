//! `portcullis run`: the broker, until a signal stops it.

use super::CommandError;
use super::paths::Paths;
use super::start::start;
use crate::config::blob::Configuration;
use crate::config::{self, LoadOptions};
use std::path::PathBuf;

/// Options of `run`.
#[derive(Debug, PartialEq, Eq)]
pub struct RunOptions {
    /// The blob; `None` for the embedded default configuration.
    pub configuration: Option<PathBuf>,
}

/// Largest blob that is read, bytes.
const BLOB_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// [`CommandError::ConfigurationRefused`] for a blob that does not verify, [`CommandError::CannotStart`] for everything
/// that keeps a good configuration from being served.
pub fn run(options: &RunOptions) -> Result<(), CommandError> {
    let (configuration, folder) = match &options.configuration {
        None => (embedded_default()?, PathBuf::new()),
        Some(path) => {
            let blob = read_blob(path)?;
            let configuration = config::decode(&blob)
                .map_err(|fault| CommandError::ConfigurationRefused(format!("{}: {fault}", path.display())))?;
            (configuration, path.parent().map(PathBuf::from).unwrap_or_default())
        }
    };
    let mut paths = Paths::beside(&folder, &configuration.gateway);
    // Whoever just tries it finds no new folder.
    paths.state = paths.state.filter(|_| options.configuration.is_some());
    start(&configuration, &paths, |_| Ok(()))
}

fn embedded_default() -> Result<Configuration, CommandError> {
    let loaded = config::load_embedded(config::DEFAULT_FILES, &LoadOptions::default());
    loaded.map(|loaded| loaded.configuration).map_err(|found| CommandError::ConfigurationRefused(found.to_string()))
}

fn read_blob(path: &std::path::Path) -> Result<Vec<u8>, CommandError> {
    let refused = |what: String| CommandError::ConfigurationRefused(format!("{}: {what}", path.display()));
    let metadata = std::fs::metadata(path).map_err(|error| refused(error.to_string()))?;
    if !metadata.is_file() {
        return Err(refused("not a file; `portcullis bake` makes a blob of a folder".to_owned()));
    }
    if metadata.len() > BLOB_BYTES_MAX {
        return Err(refused(format!("{} bytes are too many for a configuration", metadata.len())));
    }
    std::fs::read(path).map_err(|error| refused(error.to_string()))
}
