//! `portcullis run`: the broker, until a signal stops it.

use super::paths::{Control, Paths, ServiceFolders};
use super::reload::Origin;
use super::start::{Candidate, start};
use super::{CommandError, last_good};
use crate::config::blob::{Configuration, LogLevel};
use crate::config::{self, LoadOptions};
use crate::platform;
use crate::service::Fingerprint;
use log::LevelFilter;
use std::path::{Path, PathBuf};

/// Options of `run`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunOptions {
    /// The blob; `None` for the embedded default configuration.
    pub configuration: Option<PathBuf>,
    /// The state folder; `None` for that of the service manager, or of the `Gateway` resource.
    pub state: Option<PathBuf>,
    /// Whether a blob that cannot be used is an error, even if a last good one is kept.
    pub no_fallback: bool,
    /// The control socket; `None` for `control.sock` in the service manager's runtime folder, or in the state folder.
    pub control: Option<PathBuf>,
    /// Whether the command line says how much is logged, whatever `diagnostics.logs.level` of the configuration is.
    pub keeps_log_levels: bool,
}

/// Largest blob that is read, bytes.
const BLOB_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// [`CommandError::ConfigurationRefused`] for a blob that cannot be used where no last good one can take its place,
/// [`CommandError::CannotStart`] for everything that keeps a good configuration from being served.
pub fn run(options: &RunOptions) -> Result<(), CommandError> {
    let Some(blob) = &options.configuration else {
        let configuration = embedded_default()?;
        // Whoever just tries it finds no new folder.
        let control = options.control.clone().map_or(Control::Absent, Control::AskedFor);
        let paths = Paths { state: None, control, ..Paths::beside(Path::new(""), &configuration.gateway) };
        return start(Candidate::new(configuration, paths)?, None, |_| Ok(()));
    };
    let folder = blob.parent().unwrap_or(Path::new(""));
    let service = ServiceFolders::from_environment();
    // Whoever made a folder for the service made it writable for the service: other places may not be.
    let options = &RunOptions { state: options.state.clone().or_else(|| service.state.clone()), ..options.clone() };
    let read = Fingerprint::of(core::slice::from_ref(blob));
    let (candidate, contents) = match candidate(blob, folder, options, &service) {
        // What the machine refuses it would refuse an older configuration too, or worse: grant it.
        Err(CommandError::ConfigurationRefused(fault)) if !options.no_fallback => {
            fall_back(fault, folder, options, &service)?
        }
        outcome => outcome?,
    };
    let would_be_found = options.state.clone().unwrap_or_else(|| Paths::default_state(folder));
    if let Some(state) = candidate.paths.state.as_ref().filter(|state| **state != would_be_found) {
        log::warn!(
            "a blob that is damaged cannot say that its state folder is {state}: start with --state {state}, or the last \
             good configuration will not be found",
            state = state.display()
        );
    }
    // Who has this variable set is PID 1 of the image, which reads the network settings itself.
    if candidate.configuration.network.is_some() && std::env::var_os("PORTCULLIS_MACHINE").is_none() {
        log::warn!("spec.network of the Gateway has no effect here: it is for the SD-card image");
    }
    start(candidate, Some(Origin { blob: blob.clone(), read, contents }), |_| Ok(()))
}

/// What the blob at `path` says to run, and its contents. `folder` is where its relative paths start.
fn candidate(
    path: &Path,
    folder: &Path,
    options: &RunOptions,
    service: &ServiceFolders,
) -> Result<(Candidate, Vec<u8>), CommandError> {
    let refused = |fault: String| CommandError::ConfigurationRefused(format!("{}: {fault}", path.display()));
    let contents = read_blob(path).map_err(refused)?;
    let configuration = config::decode(&contents).map_err(|fault| refused(fault.to_string()))?;
    if !options.keeps_log_levels {
        platform::begin_with(log_level(configuration.diagnostics.log_level).into());
    }
    let mut paths = Paths::beside(folder, &configuration.gateway);
    paths.credentials = service.credentials.clone();
    if let Some(state) = &options.state {
        paths.state = Some(state.clone());
        paths.control = Control::InState(Paths::control_in(state));
    }
    if let Some(runtime) = &service.runtime {
        paths.control = Control::InState(Paths::control_in(runtime));
    }
    if let Some(control) = &options.control {
        paths.control = Control::AskedFor(control.clone());
    }
    let candidate = Candidate::new(configuration, paths).map_err(|error| match error {
        CommandError::ConfigurationRefused(fault) => refused(fault),
        other => other,
    })?;
    Ok((candidate, contents))
}

/// The last good configuration in place of one that was refused because of `fault`. There is one attempt.
fn fall_back(
    fault: String,
    folder: &Path,
    options: &RunOptions,
    service: &ServiceFolders,
) -> Result<(Candidate, Vec<u8>), CommandError> {
    let kept = last_good::path(&options.state.clone().unwrap_or_else(|| Paths::default_state(folder)));
    match candidate(&kept, folder, options, service) {
        Ok(found) => {
            log::error!("{fault}");
            log::error!("running on {} instead: the last configuration that was in force here", kept.display());
            Ok(found)
        }
        Err(error) => {
            log::error!("no last good configuration to run on instead: {error}");
            Err(CommandError::ConfigurationRefused(fault))
        }
    }
}

fn embedded_default() -> Result<Configuration, CommandError> {
    let loaded = config::load_embedded(config::DEFAULT_FILES, &LoadOptions::default());
    loaded.map(|loaded| loaded.configuration).map_err(|found| CommandError::ConfigurationRefused(found.to_string()))
}

const fn log_level(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::Error,
        LogLevel::Warn => LevelFilter::Warn,
        LogLevel::Info => LevelFilter::Info,
        LogLevel::Debug => LevelFilter::Debug,
        LogLevel::Trace => LevelFilter::Trace,
    }
}

/// The contents of a blob's file.
///
/// # Errors
/// Why there are none.
pub(super) fn read_blob(path: &Path) -> Result<Vec<u8>, String> {
    let metadata = std::fs::metadata(path).map_err(|error| error.to_string())?;
    if !metadata.is_file() {
        return Err("not a file; `portcullis bake` makes a blob of a folder".to_owned());
    }
    if metadata.len() > BLOB_BYTES_MAX {
        return Err(format!("{} bytes are too many for a configuration", metadata.len()));
    }
    std::fs::read(path).map_err(|error| error.to_string())
}
