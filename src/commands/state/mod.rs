//! `portcullis state`: what is in the folder that outlives restarts, whether it is intact, and its live part written anew.
//!
//! In: a folder that no broker uses meanwhile. Out: text for people, or JSON whose field names are kept. What reads only
//! changes nothing on the disk, and works where nothing can be written.

mod export;
mod show;

use super::CommandError;
use crate::config::diagnostic::Escaped;
use crate::store::{self, Folder, Journal, Recovered, RecoveryError, Sizes};
use core::fmt::Write as _;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

/// What is to be done with the folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Show what it holds.
    Inspect {
        /// As JSON.
        json: bool,
    },
    /// Say whether everything reads.
    Verify {
        /// As JSON.
        json: bool,
    },
    /// Write everything live as lines of JSON.
    Export {
        /// Where to; `None` for the standard output.
        output: Option<PathBuf>,
    },
    /// Write everything live anew, and free the rest.
    Compact,
}

/// What `state` was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateOptions {
    /// What to do.
    pub action: Action,
    /// The folder.
    pub folder: PathBuf,
}

/// Does it.
///
/// # Errors
/// [`CommandError::AnswerIsNo`] from `verify` when something is damaged; a folder that is not there, holds no log, is in use or
/// cannot be read.
pub fn run(options: &StateOptions, output: &mut dyn Write, diagnostics: &mut dyn Write) -> Result<(), CommandError> {
    let path = &options.folder;
    if options.action == Action::Compact {
        return compact(path, output, diagnostics);
    }
    let (folder, sizes) = open(path, Folder::look)?;
    let mut recovered = store::inspect(folder, sizes).map_err(|error| unreadable(path, error))?;
    match &options.action {
        Action::Inspect { json: false } => show::inspect(&recovered, output)?,
        Action::Inspect { json: true } => show::inspect_json(&recovered, output)?,
        Action::Verify { json } => {
            show::verify(&recovered.report, *json, output)?;
            if recovered.report.missing > 0 {
                return Err(CommandError::AnswerIsNo);
            }
        }
        Action::Export { output: None } => export::write(&mut recovered, output, diagnostics)?,
        Action::Export { output: Some(file) } => {
            let failed = |error| CommandError::file(file, &error);
            let mut written = BufWriter::new(File::create(file).map_err(failed)?);
            export::write(&mut recovered, &mut written, diagnostics)?;
            written
                .into_inner()
                .map_err(io::IntoInnerError::into_error)
                .and_then(|file| file.sync_all())
                .map_err(failed)?;
        }
        Action::Compact => {}
    }
    Ok(())
}

fn compact(path: &Path, output: &mut dyn Write, diagnostics: &mut dyn Write) -> Result<(), CommandError> {
    // Not even a lock is made in a folder that is no state folder.
    drop(open(path, Folder::look)?);
    let (folder, sizes) = open(path, Folder::take)?;
    let recovered = store::recover(folder, sizes).map_err(|error| unreadable(path, error))?;
    warn_of_damage(&recovered, diagnostics)?;
    let before = recovered.report.clone();
    drop(store::rewrite(recovered).map_err(|error| CommandError::file(path, &error))?);

    let (folder, sizes) = open(path, Folder::look)?;
    let after = store::inspect(folder, sizes).map_err(|error| unreadable(path, error))?.report;
    let (segments, bytes) = (before.segments, before.bytes);
    writeln!(output, "{bytes} bytes in {segments} segments before, {} in {} now", after.bytes, after.segments)?;
    Ok(())
}

/// Takes the folder, and finds sizes that fit its files.
fn open(path: &Path, take: impl FnOnce(&Path) -> io::Result<Folder>) -> Result<(Folder, Sizes), CommandError> {
    let mut folder = take(path).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => about(path, "is in use by a running broker"),
        _ => CommandError::file(path, &error),
    })?;
    let largest = folder.largest_bytes().map_err(|error| CommandError::file(path, &error))?;
    let Some(largest) = largest else { return Err(about(path, "is no state folder: it holds no log")) };
    let smallest = Sizes::new(0, Journal::buffer_bytes(0)).segment_bytes;
    Ok((folder, Sizes { segment_bytes: largest.max(smallest), total_bytes: u64::MAX }))
}

fn about(path: &Path, what: &str) -> CommandError {
    CommandError::CannotStart(format!("{} {what}", Escaped(&path.to_string_lossy())))
}

fn unreadable(path: &Path, error: RecoveryError) -> CommandError {
    match error {
        RecoveryError::Io(error) => CommandError::file(path, &error),
        error @ RecoveryError::NewerFormat { .. } => {
            CommandError::CannotStart(format!("{}: {error}", Escaped(&path.to_string_lossy())))
        }
    }
}

/// JSON in ASCII: what clients chose must not steer a terminal.
fn ascii(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for character in json.chars() {
        if character <= '~' {
            text.push(character);
        } else {
            for unit in character.encode_utf16(&mut [0; 2]) {
                let _ = write!(text, "\\u{unit:04x}");
            }
        }
    }
    text
}

/// Says that something is missing from what follows.
fn warn_of_damage(recovered: &Recovered<Folder>, diagnostics: &mut dyn Write) -> io::Result<()> {
    match recovered.report.missing {
        0 => Ok(()),
        missing => writeln!(diagnostics, "warning: {missing} records do not read; `verify` names them"),
    }
}
