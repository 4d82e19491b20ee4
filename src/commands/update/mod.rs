//! `portcullis update`: sends an update to gateways, and waits until they keep it; or says what a gateway runs.
//!
//! In: a bundle, and the way to one gateway or several. Out: what the gateway says while it takes it, over its restarts, and an exit
//! code. Several are updated one after the other: where one does not keep it, the next are left as they are.

mod follow;
mod gateway;

pub(super) use follow::told as update_line;

use super::CommandError;
use crate::bundle::{HEADER_BYTES_MAX, Header, Manifest};
use crate::config::diagnostic::Escaped;
use gateway::{Answer, Gateway, Trouble};
use serde_json::Value;
use std::fs::File;
use std::io::{self, IsTerminal as _, Read as _, Seek as _, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// The way to gateways over TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remote {
    /// `HOST` or `HOST:PORT`, one or more.
    pub hosts: Vec<String>,
    /// Authorities to check gateways with; `None`: those of the system.
    pub authorities: Option<PathBuf>,
    /// The certificate that is shown, and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// The file with the token.
    pub token: Option<PathBuf>,
}

/// Options of `update`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpdateOptions {
    /// The bundle; `None`: only what runs is shown.
    pub file: Option<PathBuf>,
    /// The control socket, where it was named.
    pub socket: Option<PathBuf>,
    /// Gateways elsewhere; without any, the one that this runs on.
    pub remote: Remote,
    /// Whether to wait until it is kept.
    pub waits: bool,
    /// How long a gateway may say nothing new.
    pub patience: Duration,
}

/// Sends and follows, or shows.
///
/// # Errors
/// [`CommandError::AnswerIsNo`] where a gateway did not keep it or tells of no updates, which has been said;
/// [`CommandError::ConfigurationRefused`] for a file that is no update; [`CommandError::CannotStart`] where no gateway answers.
pub fn run(options: &UpdateOptions, output: &mut dyn Write, diagnostics: &mut dyn Write) -> Result<(), CommandError> {
    let gateways = gateway::all(options.socket.as_deref(), &options.remote)?;
    let Some(path) = &options.file else {
        for gateway in &gateways {
            let document = gateway.document().map_err(|trouble| said(gateway, trouble, diagnostics))?;
            show(gateway, &document, output)?;
        }
        return Ok(());
    };
    let mut bundle = Bundle::open(path)?;
    let Manifest { kind, board, version, release, bytes, .. } = &bundle.manifest;
    let kind = kind.name();
    let name = Escaped(&path.to_string_lossy()).to_string();
    writeln!(output, "{name}: {kind} version {version} ({release}) for {board}, {bytes} bytes")?;
    for (done, gateway) in gateways.iter().enumerate() {
        let outcome = one(gateway, &mut bundle, options, output, diagnostics);
        let rest = gateways.len() - done - 1;
        if outcome.is_err() && rest > 0 {
            writeln!(diagnostics, "portcullis: {rest} more are left as they are")?;
        }
        outcome?;
    }
    Ok(())
}

/// Updates one gateway.
fn one(
    gateway: &Gateway,
    bundle: &mut Bundle,
    options: &UpdateOptions,
    output: &mut dyn Write,
    diagnostics: &mut dyn Write,
) -> Result<(), CommandError> {
    let begin = Instant::now();
    let answer = bundle.send(gateway)?.map_err(|trouble| said(gateway, trouble, diagnostics))?;
    if let Answer::Refused(status, why) = answer {
        let trouble = Trouble::Refused(status, why);
        return Err(said(gateway, trouble, diagnostics));
    }
    writeln!(output, "{}: sent in {} s", gateway.name(), begin.elapsed().as_secs())?;
    if !options.waits {
        return Ok(());
    }
    follow::follow(gateway, &bundle.manifest, options.patience, output)
}

/// Says what went wrong, where that is an answer of the gateway.
fn said(gateway: &Gateway, trouble: Trouble, diagnostics: &mut dyn Write) -> CommandError {
    match trouble {
        Trouble::Away(why) => CommandError::CannotStart(format!("{}: {why}", gateway.name())),
        Trouble::Refused(status, why) => {
            let hint = match status {
                401 => "; --token-file or --cert says who you are",
                _ => "",
            };
            match writeln!(diagnostics, "portcullis: {}: refused, {}{hint}", gateway.name(), Escaped(&why)) {
                Ok(()) => CommandError::AnswerIsNo,
                Err(error) => error.into(),
            }
        }
    }
}

/// A text of a document, escaped; `-` where there is none.
fn text(document: &Value, name: &str) -> String {
    document.get(name).and_then(Value::as_str).map_or_else(|| "-".to_owned(), |text| Escaped(text).to_string())
}

/// A number of a document; `-` where there is none.
fn number(document: &Value, name: &str) -> String {
    document.get(name).and_then(Value::as_u64).map_or_else(|| "-".to_owned(), |number| number.to_string())
}

/// What runs, how the last update went, and what else a person must be told.
fn show(gateway: &Gateway, document: &Value, output: &mut dyn Write) -> io::Result<()> {
    let trial = if document.get("trial") == Some(&Value::Bool(true)) { ", for a trial" } else { "" };
    writeln!(
        output,
        "{}: board {}, release {}, version {} in slot {}{trial}; configuration {}, version {}",
        gateway.name(),
        text(document, "board"),
        text(document, "release"),
        number(document, "version"),
        text(document, "slot"),
        text(document, "configuration"),
        number(document, "configurationVersion"),
    )?;
    match follow::told(document) {
        None => writeln!(output, "no update since it started")?,
        Some(told) => writeln!(output, "last update: {told}")?,
    }
    let notices = document.get("notices").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    for notice in notices.iter().filter_map(Value::as_str) {
        writeln!(output, "notice: {}", Escaped(notice))?;
    }
    Ok(())
}

/// A file that is an update, by what its header says.
struct Bundle {
    file: File,
    manifest: Manifest,
    bytes: u64,
}

impl Bundle {
    fn open(path: &Path) -> Result<Self, CommandError> {
        let failed = |error: io::Error| CommandError::file(path, &error);
        let refused =
            |why: String| CommandError::ConfigurationRefused(format!("{}: {why}", Escaped(&path.to_string_lossy())));
        let mut file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() {
            return Err(refused("not a file; `portcullis bundle` makes an update".to_owned()));
        }
        let mut begin = Vec::new();
        (&mut file).take(HEADER_BYTES_MAX as u64).read_to_end(&mut begin).map_err(failed)?;
        let header = Header::parse(&begin).map_err(|fault| refused(fault.to_string()))?;
        let (manifest, bytes) = (header.manifest().clone(), metadata.len());
        let wanted = manifest.bytes.saturating_add(header.length() as u64);
        if bytes != wanted {
            return Err(refused(format!("it should have {wanted} bytes, and has {bytes}: it was cut, or changed")));
        }
        Ok(Self { file, manifest, bytes })
    }

    /// Sends it, from its beginning.
    fn send(&mut self, gateway: &Gateway) -> Result<Result<Answer, Trouble>, CommandError> {
        let failed = |error: io::Error| CommandError::CannotStart(format!("cannot read the update again: {error}"));
        self.file.seek(SeekFrom::Start(0)).map_err(failed)?;
        let is_watched = io::stderr().is_terminal();
        let (name, bytes) = (gateway.name().to_owned(), self.bytes);
        let mut shown = None;
        let mut progress = |sent: u64| {
            let percent = sent.saturating_mul(100) / bytes.max(1);
            if is_watched && shown.replace(percent) != Some(percent) {
                // A terminal that is gone needs no progress.
                let _ = write!(io::stderr(), "\r{name}: {percent} %");
            }
        };
        let outcome = gateway.send(&mut self.file, bytes, &mut progress);
        if shown.is_some() && is_watched {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
        Ok(outcome)
    }
}
