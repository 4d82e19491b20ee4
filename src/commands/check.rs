//! `portcullis check`: everything that `bake` would refuse, and what is worth knowing besides.

use super::CommandError;
use crate::authorization::lint;
use crate::config::{LoadOptions, load};
use std::io::Write;
use std::path::PathBuf;

/// What `check` was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckOptions {
    /// Folders and files.
    pub sources: Vec<PathBuf>,
    /// Board; `None`: the one that the Gateway names.
    pub board: Option<String>,
    /// Whether to check as `bake --embed-secrets` does.
    pub embed_secrets: bool,
}

/// Checks. Mistakes and notes go to `diagnostics`, one a line; a summary to `output`.
///
/// # Errors
/// Mistakes in the configuration.
pub fn run(options: &CheckOptions, output: &mut dyn Write, diagnostics: &mut dyn Write) -> Result<(), CommandError> {
    let load_options = LoadOptions { board: options.board.clone(), embed_secrets: options.embed_secrets };
    match load(&options.sources, &load_options) {
        Ok(mut loaded) => {
            loaded.notes.add(lint(&loaded.configuration));
            write!(diagnostics, "{}", loaded.notes)?;
            let (ports, notes) = (loaded.configuration.ports.len(), loaded.notes.0.len());
            writeln!(
                output,
                "no mistakes, {notes} notes: {ports} listener ports on board {}",
                loaded.configuration.board.name
            )?;
            Ok(())
        }
        Err(found) => {
            write!(diagnostics, "{found}")?;
            Err(CommandError::mistakes(&found))
        }
    }
}
