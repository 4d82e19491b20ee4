//! The revocation folder: lists of authorities in `*.crl`, `*.pem` and `*.der`, PEM or DER, and the operator's `deny.yaml`.
//!
//! **Invariant:** all lists are read, or none: what a file that cannot be used would have revoked, nobody knows. Sizes are
//! bounded while files are read.

use crate::authentication::{DenyList, RevocationLists};
use crate::config::blob::StaleRevocationLists;
use crate::config::diagnostic::Escaped;
use core::fmt;
use rustls_pki_types::CertificateRevocationListDer;
use rustls_pki_types::pem::PemObject as _;
use std::fs::File;
use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};

/// Most files of the folder, of whatever kind.
const FILES_MAX: usize = 200;
/// Longest file, in bytes. PEM takes a third more than what is in it.
const FILE_BYTES_MAX: u64 = 24 * 1024 * 1024;
/// Name of the deny list.
const DENY_LIST: &str = "deny.yaml";
/// Mistakes of a deny list that one message shows.
const MISTAKES_SHOWN_MAX: usize = 3;

/// What a file of the folder is, by its name.
enum Kind {
    Lists,
    DenyList,
    /// A deny list whose name is wrong: passing over it would let in whom it names.
    Misnamed,
    Hidden,
    Other,
}

impl Kind {
    fn of(path: &Path) -> Self {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let ending = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        match ending.as_str() {
            _ if name == DENY_LIST => Self::DenyList,
            _ if name.starts_with('.') => Self::Hidden,
            "crl" | "pem" | "der" => Self::Lists,
            "yaml" | "yml" | "json" => Self::Misnamed,
            _ => Self::Other,
        }
    }
}

/// What was read. A list that is broken must not keep an urgent denial from coming into force.
pub struct Found {
    /// The deny list; empty where there is none.
    pub deny_list: Result<DenyList, String>,
    /// The lists of authorities.
    pub lists: Result<RevocationLists, String>,
}

/// Reads the folder; `None` if there is none.
///
/// # Errors
/// The folder cannot be read. Here and in [`Found`], what is wrong is said to the operator.
pub fn read(folder: &Path, stale: StaleRevocationLists) -> Result<Option<Found>, String> {
    let Some(files) = files(folder)? else { return Ok(None) };
    let mut found = Found { deny_list: Ok(DenyList::default()), lists: Ok(RevocationLists::new(stale)) };
    for path in files {
        match Kind::of(&path) {
            Kind::Lists => {
                if let Ok(lists) = &mut found.lists
                    && let Err(fault) = add_lists(&path, lists)
                {
                    found.lists = Err(fault);
                }
            }
            Kind::DenyList => found.deny_list = found.deny_list.and_then(|_| read_deny_list(&path)),
            Kind::Misnamed => {
                found.deny_list = Err(about(&path, format_args!("the deny list is called {DENY_LIST}")));
            }
            Kind::Hidden => {}
            Kind::Other => log::warn!("{}: not read: its name ends in neither .crl, .pem nor .der", path.display()),
        }
    }
    Ok(Some(found))
}

/// The files of the folder in the order of their names.
fn files(folder: &Path) -> Result<Option<Vec<PathBuf>>, String> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(about(folder, error)),
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| about(folder, error))?.path();
        if files.len() == FILES_MAX {
            return Err(about(folder, format_args!("more than {FILES_MAX} files")));
        }
        files.push(path);
    }
    files.sort();
    Ok(Some(files))
}

fn read_deny_list(path: &Path) -> Result<DenyList, String> {
    let list = DenyList::read(&path.to_string_lossy(), &read_file(path)?).map_err(|found| {
        let mistakes: Vec<String> = found.0.iter().take(MISTAKES_SHOWN_MAX).map(ToString::to_string).collect();
        mistakes.join("; ")
    })?;
    log::info!("{}: {} entries", path.display(), list.count());
    Ok(list)
}

/// Adds the lists of a file: all of PEM, or one in DER.
fn add_lists(path: &Path, lists: &mut RevocationLists) -> Result<(), String> {
    let bytes = read_file(path)?;
    let mut add = |der: &[u8]| -> Result<(), String> {
        let list = lists.add(der).map_err(|fault| about(path, fault))?;
        let (issuer, count, until) = (&list.issuer, list.count(), list.next_update);
        log::info!("{}: {issuer} has revoked {count} certificates, next list due {until}", path.display());
        Ok(())
    };
    // A SEQUENCE of more than 127 bytes, which no text begins with.
    if matches!(bytes.as_slice(), [0x30, 0x80..=0xFF, ..]) {
        return add(&bytes);
    }
    let mut found = false;
    for list in CertificateRevocationListDer::pem_slice_iter(&bytes) {
        found = true;
        add(&list.map_err(|_| about(path, "broken PEM"))?)?;
    }
    if found { Ok(()) } else { Err(about(path, "no revocation list in it (-----BEGIN X509 CRL-----)")) }
}

fn read_file(path: &Path) -> Result<Vec<u8>, String> {
    // Opening a pipe would wait for its other end.
    if !std::fs::metadata(path).map_err(|error| about(path, error))?.is_file() {
        return Err(about(path, "not a file"));
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| about(path, error))?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(|error| about(path, error))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(about(path, format_args!("more than {FILE_BYTES_MAX} bytes")));
    }
    Ok(bytes)
}

fn about(path: &Path, what: impl fmt::Display) -> String {
    format!("{}: {what}", Escaped(&path.to_string_lossy()))
}
