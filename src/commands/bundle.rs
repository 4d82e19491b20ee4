//! `portcullis bundle`: a slot's file system or a blob in, a signed update out.
//!
//! The key stays where it is: this is for the machine on which updates are made, which is no gateway.

use super::CommandError;
use super::run::read_blob;
use crate::bundle::{Fault, Kind, Manifest, signed_header};
use crate::config::decode;
use crate::config::diagnostic::Escaped;
use crate::pki::Key;
use crate::service::updates::BUNDLE_BYTES_MAX;
use ed25519_dalek::SigningKey;
use sha2::{Digest as _, Sha256};
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Longest file of a key, bytes.
const KEY_BYTES_MAX: u64 = 16 * 1024;
/// Bytes that are copied at a time.
const PIECE_BYTES: usize = 64 * 1024;
/// The sector that a FAT file system begins with, and the mark at its end.
const SECTOR_BYTES: usize = 512;
const SECTOR_MARK: [u8; 2] = [0x55, 0xAA];

/// What the update replaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Payload {
    /// A configuration: this blob.
    Blob(PathBuf),
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

/// Writes the update; the file at `out` changes only when all is well.
///
/// # Errors
/// [`CommandError::Usage`] for a board or release that no header takes, [`CommandError::ConfigurationRefused`] for a payload that
/// no gateway would take, [`CommandError::CannotStart`] for a key that is none and files that cannot be read or written.
pub fn run(options: &BundleOptions, output: &mut dyn Write) -> Result<(), CommandError> {
    let key = read_key(&options.key)?;
    let (kind, path) = match &options.payload {
        Payload::Blob(path) => (Kind::Configuration, path),
        Payload::Slot(path) => (Kind::System, path),
    };
    match kind {
        Kind::Configuration => check_blob(path, &options.board)?,
        Kind::System => check_slot(path)?,
    }
    let failed = |error: io::Error| CommandError::file(path, &error);
    let mut payload = File::open(path).map_err(failed)?;
    let (bytes, digest) = copy(&mut payload, &mut io::sink()).map_err(failed)?;
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
    if bytes.saturating_add(header.len() as u64) > BUNDLE_BYTES_MAX {
        return Err(refused(path, &format!("larger than the {} MiB that a gateway takes", BUNDLE_BYTES_MAX >> 20)));
    }
    write(&options.out, &header, path, &manifest)?;
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

/// Whether a gateway of this version and board would run the blob.
fn check_blob(path: &Path, board: &str) -> Result<(), CommandError> {
    let blob = read_blob(path).map_err(|why| refused(path, &why))?;
    let configuration = decode(&blob).map_err(|error| CommandError::blob(path, &error))?;
    if configuration.board.name != board {
        let baked = Escaped(&configuration.board.name).to_string();
        return Err(refused(path, &format!("baked for the board {baked}, not for {board}")));
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
fn write(out: &Path, header: &str, payload: &Path, manifest: &Manifest) -> Result<(), CommandError> {
    let mut name = OsString::from(".");
    name.push(out.file_name().ok_or_else(|| CommandError::Usage("--out is no file".to_owned()))?);
    name.push(format!(".{}.new", std::process::id()));
    let temporary = out.with_file_name(name);
    // A blob may have keys in it (`bake --embed-secrets`), a system has nobody's.
    let mode = match manifest.kind {
        Kind::Configuration => 0o600,
        Kind::System => 0o644,
    };
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        file.write_all(header.as_bytes())?;
        let copied = copy(&mut File::open(payload)?, &mut file)?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn an_update_of_a_configuration_is_its_owner_s_because_keys_may_be_in_it() {
        let folder = std::env::temp_dir().join(format!("portcullis-bundle-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let (payload, out) = (folder.join("payload"), folder.join("update"));
        fs::write(&payload, "payload").unwrap();
        let (bytes, digest) = copy(&mut File::open(&payload).unwrap(), &mut io::sink()).unwrap();
        for (kind, others) in [(Kind::System, 0o044), (Kind::Configuration, 0)] {
            let (board, release) = ("rpi3".to_owned(), String::new());
            let manifest = Manifest { kind, board, version: 1, release, bytes, digest };
            write(&out, "header\n", &payload, &manifest).unwrap();
            assert_eq!(fs::read_to_string(&out).unwrap(), "header\npayload");
            // Whatever the mask of the tests takes away, it gives nobody anything.
            assert_eq!(fs::metadata(&out).unwrap().permissions().mode() & 0o077 & !others, 0);
        }
        fs::remove_dir_all(&folder).unwrap();
    }
}
