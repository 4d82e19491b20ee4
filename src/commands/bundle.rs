//! `portcullis bundle`: a slot's file system, or a blob and folders beside it, in; a signed update out.
//!
//! The key stays where it is: this is for the machine on which updates are made, which is no gateway.

use super::CommandError;
use super::run::read_blob;
use crate::bundle::archive::Archive;
use crate::bundle::{
    BLOB, CONFIGURATION_BYTES_MAX, Contents, FOLDERS, Fault, Kind, Manifest, SYSTEM_BYTES_MAX, signed_header,
};
use crate::config::decode;
use crate::config::diagnostic::Escaped;
use crate::pki::Key;
use ed25519_dalek::SigningKey;
use sha2::{Digest as _, Sha256};
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Longest file of a key, bytes.
const KEY_BYTES_MAX: u64 = 16 * 1024;
/// Longest name of a file in an update: folders that lead in a circle end there.
const NAME_BYTES_MAX: usize = 256;
/// Bytes that are copied at a time.
const PIECE_BYTES: usize = 64 * 1024;
/// The sector that a FAT file system begins with, and the mark at its end.
const SECTOR_BYTES: usize = 512;
const SECTOR_MARK: [u8; 2] = [0x55, 0xAA];

/// What the update replaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// A configuration.
    Configuration {
        /// Its blob.
        blob: PathBuf,
        /// Folders that take the place of the gateway's, by their names.
        folders: Vec<PathBuf>,
    },
    /// The system: this beginning of a slot's file system.
    Slot(PathBuf),
}

/// Options of `bundle`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BundleOptions {
    /// PEM file with the private key, PKCS#8.
    pub key: PathBuf,
    /// The board that it is for.
    pub board: String,
    /// Its number.
    pub version: u64,
    /// What people call it.
    pub release: String,
    /// What is in it.
    pub payload: Payload,
    /// The update.
    pub out: PathBuf,
}

/// Where the bytes of a payload are.
enum Source {
    Memory(Vec<u8>),
    File(PathBuf),
}

impl Source {
    fn open(&self) -> io::Result<Box<dyn Read + '_>> {
        Ok(match self {
            Self::Memory(bytes) => Box::new(bytes.as_slice()),
            Self::File(path) => Box::new(File::open(path)?),
        })
    }
}

/// Writes the update; the file at `out` changes only when all is well.
///
/// # Errors
/// [`CommandError::Usage`] for a board or release that no header takes, [`CommandError::ConfigurationRefused`] for a payload that
/// no gateway would take, [`CommandError::CannotStart`] for a key that is none and files that cannot be read or written.
pub fn run(options: &BundleOptions, output: &mut dyn Write, diagnostics: &mut dyn Write) -> Result<(), CommandError> {
    let key = read_key(&options.key)?;
    let (kind, path, source, bytes_max) = match &options.payload {
        Payload::Configuration { blob, folders } => {
            let bytes = configuration(blob, folders, &options.board, diagnostics)?;
            (Kind::Configuration, blob, Source::Memory(bytes), CONFIGURATION_BYTES_MAX)
        }
        Payload::Slot(path) => {
            check_slot(path)?;
            (Kind::System, path, Source::File(path.clone()), SYSTEM_BYTES_MAX)
        }
    };
    let failed = |error: io::Error| CommandError::file(path, &error);
    let (bytes, digest) = copy(&mut source.open().map_err(failed)?, &mut io::sink()).map_err(failed)?;
    if bytes > bytes_max {
        return Err(refused(path, &format!("{bytes} bytes, and a gateway takes {bytes_max}")));
    }
    let manifest = Manifest {
        kind,
        board: options.board.clone(),
        version: options.version,
        release: options.release.clone(),
        bytes,
        digest,
    };
    let header = signed_header(&manifest, &key).map_err(|fault| match fault {
        Fault::Field(name) => CommandError::Usage(format!("--{name} has a value that no update can have")),
        Fault::NotABundle | Fault::NoEnd | Fault::Signature | Fault::Key => {
            CommandError::CannotStart(fault.to_string())
        }
    })?;
    write(&options.out, &header, &source, &manifest)?;
    writeln!(
        output,
        "{}: {} version {} for {}, {} bytes",
        Escaped(&options.out.to_string_lossy()),
        kind.name(),
        options.version,
        options.board,
        header.len() as u64 + bytes
    )?;
    let public: Vec<String> = key.verifying_key().to_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(writeln!(output, "signed with the key whose public half is {}", public.concat())?)
}

fn read_key(path: &Path) -> Result<SigningKey, CommandError> {
    let mut text = Zeroizing::new(String::new());
    let read = File::open(path).and_then(|file| file.take(KEY_BYTES_MAX).read_to_string(&mut text));
    match read.map(|_| Key::from_pem(&text)) {
        Err(error) => Err(CommandError::file(path, &error)),
        Ok(Ok(Key::Ed25519(key))) => Ok(key),
        Ok(Ok(Key::P256(_) | Key::P384(_)) | Err(_)) => Err(CommandError::CannotStart(format!(
            "{}: no private key of Ed25519; `openssl genpkey -algorithm ed25519` makes one",
            Escaped(&path.to_string_lossy())
        ))),
    }
}

/// A payload with a blob that a gateway of this version and board would run, alone or with folders.
fn configuration(
    path: &Path,
    folders: &[PathBuf],
    board: &str,
    diagnostics: &mut dyn Write,
) -> Result<Vec<u8>, CommandError> {
    let blob = read_blob(path).map_err(|why| refused(path, &why))?;
    let configuration = decode(&blob).map_err(|error| CommandError::blob(path, &error))?;
    if configuration.board.name != board {
        let baked = Escaped(&configuration.board.name).to_string();
        return Err(refused(path, &format!("baked for the board {baked}, not for {board}")));
    }
    let door = &configuration.diagnostics;
    if door.port.is_none() || !door.exposed.as_ref().is_some_and(|exposed| exposed.updates) {
        writeln!(
            diagnostics,
            "warning: a gateway with this configuration takes no other update over the network; `diagnosticsTls: {{updates: \
             Allowed}}` and an address in `bind.diagnostics` open its door"
        )?;
    }
    if folders.is_empty() {
        return Ok(blob);
    }
    let mut archive = Archive::default();
    for folder in folders {
        let name = folder.file_name().and_then(OsStr::to_str).filter(|name| FOLDERS.contains(name));
        let name = name.ok_or_else(|| {
            CommandError::Usage(format!("--with takes a folder that is called {}", FOLDERS.join(", or ")))
        })?;
        pack(&mut archive, folder, name).map_err(|error| CommandError::file(folder, &error))?;
    }
    archive.file(BLOB, &blob);
    let payload = archive.finish();
    match Contents::read(&payload) {
        Ok(_) => Ok(payload),
        Err(fault) => Err(refused(path, fault)),
    }
}

/// Packs a folder with all that is in it, in the order of names. An archive that grows beyond what a gateway takes is left at that.
fn pack(archive: &mut Archive, folder: &Path, name: &str) -> io::Result<()> {
    archive.folder(name);
    let mut entries = fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let (path, file_name) = (entry.path(), entry.file_name());
        let file_name = file_name.to_str().ok_or(io::ErrorKind::InvalidFilename)?;
        let name = format!("{name}/{file_name}");
        if archive.bytes() > CONFIGURATION_BYTES_MAX || name.len() > NAME_BYTES_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let found = fs::metadata(&path)?;
        if found.is_dir() {
            pack(archive, &path, &name)?;
        } else if !found.is_file() {
            return Err(io::Error::other(format!("{name} is neither a file nor a folder")));
        } else {
            let mut contents = Vec::new();
            File::open(&path)?.take(CONFIGURATION_BYTES_MAX + 1).read_to_end(&mut contents)?;
            archive.file(&name, &contents);
        }
    }
    Ok(())
}

/// Whether a slot begins as a file system does.
fn check_slot(path: &Path) -> Result<(), CommandError> {
    let mut sector = [0; SECTOR_BYTES];
    match File::open(path).and_then(|mut file| file.read_exact(&mut sector)) {
        Ok(()) if sector.ends_with(&SECTOR_MARK) => Ok(()),
        Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => Err(CommandError::file(path, &error)),
        Ok(()) | Err(_) => Err(refused(path, "no FAT file system; `cargo xtask image` writes one, as BOARD.slot")),
    }
}

fn refused(path: &Path, why: &str) -> CommandError {
    CommandError::ConfigurationRefused(format!("{}: {why}", Escaped(&path.to_string_lossy())))
}

/// Copies to the end: how many bytes, and their SHA-256.
fn copy(from: &mut impl Read, to: &mut impl Write) -> io::Result<(u64, [u8; 32])> {
    let (mut bytes, mut digest) = (0, Sha256::new());
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let read = match from.read(&mut piece)? {
            0 => return Ok((bytes, digest.finalize().into())),
            read => piece.get(..read).unwrap_or_default(),
        };
        digest.update(read);
        to.write_all(read)?;
        bytes += read.len() as u64;
    }
}

/// Puts header and payload at `out` in one step.
fn write(out: &Path, header: &str, payload: &Source, manifest: &Manifest) -> Result<(), CommandError> {
    let mut name = OsString::from(".");
    name.push(out.file_name().ok_or_else(|| CommandError::Usage("--out is no file".to_owned()))?);
    name.push(format!(".{}.new", std::process::id()));
    let temporary = out.with_file_name(name);
    let written = (|| {
        // A configuration may have keys in it.
        let mode = match manifest.kind {
            Kind::Configuration => 0o600,
            Kind::System => 0o644,
        };
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        file.write_all(header.as_bytes())?;
        let copied = copy(&mut payload.open()?, &mut file)?;
        if copied != (manifest.bytes, manifest.digest) {
            return Err(io::Error::other("the payload has changed meanwhile"));
        }
        file.sync_all()?;
        fs::rename(&temporary, out)
    })();
    written.map_err(|error| {
        // Best effort: the error that matters is the first one.
        let _ = fs::remove_file(&temporary);
        CommandError::file(out, &error)
    })
}
