//! `portcullis bake`: resources in, one verified blob out.

use super::CommandError;
use crate::authorization::lint;
use crate::config::diagnostic::Escaped;
use crate::config::envelope::{encode, write_atomically};
use crate::config::{LoadOptions, decode, load};
use std::io::Write;
use std::path::PathBuf;

/// What `bake` was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BakeOptions {
    /// Folders and files.
    pub sources: Vec<PathBuf>,
    /// The blob.
    pub out: PathBuf,
    /// Board; `None`: the one that the Gateway names.
    pub board: Option<String>,
    /// Whether certificates and keys of the servers go into the blob.
    pub embed_secrets: bool,
}

/// Bakes. Mistakes go to `diagnostics`, one a line; the file at `out` changes only when there are none.
///
/// # Errors
/// Mistakes in the configuration, or a file that cannot be written.
pub fn run(options: &BakeOptions, output: &mut dyn Write, diagnostics: &mut dyn Write) -> Result<(), CommandError> {
    let load_options = LoadOptions { board: options.board.clone(), embed_secrets: options.embed_secrets };
    let mut loaded = match load(&options.sources, &load_options) {
        Ok(loaded) => loaded,
        Err(found) => {
            write!(diagnostics, "{found}")?;
            return Err(CommandError::mistakes(&found));
        }
    };
    loaded.notes.add(lint(&loaded.configuration));
    let refused = |error| CommandError::blob(&options.out, &error);
    let blob = encode(&loaded.configuration).map_err(refused)?;
    // What is written is what a gateway will accept.
    decode(&blob).map_err(refused)?;
    write_atomically(&options.out, &blob).map_err(|error| CommandError::file(&options.out, &error))?;
    let configuration = &loaded.configuration;
    writeln!(
        output,
        "{}: {} bytes for board {}, {} listener ports, {} authorization policies",
        Escaped(&options.out.to_string_lossy()),
        blob.len(),
        configuration.board.name,
        configuration.ports.len(),
        configuration.authorizations.len()
    )?;
    match loaded.notes.0.len() {
        0 => {}
        notes => writeln!(output, "{notes} notes; `portcullis check` shows them")?,
    }
    Ok(())
}
