//! The envelope of a configuration blob, and how it reaches the disk.
//!
//! | bytes | field |
//! | --- | --- |
//! | 8 | magic, `PORTCUL\0` |
//! | 2 | format of the envelope, big-endian |
//! | 2 | schema of the body |
//! | 4 | length of the body |
//! | 32 | SHA-256 of all of the above and the body |
//! | … | body, postcard |
//!
//! The digest tells damage, not malice: a blob is as trustworthy as the folder it lies in.

use super::blob::Configuration;
use super::verify::{self, Defect};
use core::fmt;
use sha2::{Digest, Sha256};
use std::fs;
use std::io::{self, Write};
use std::path::Path;

/// How every blob begins.
pub const MAGIC: &[u8; 8] = b"PORTCUL\0";
const FORMAT: u16 = 1;
/// Version of the body's types. Raised with every change of [`super::blob`].
pub const SCHEMA: u16 = 6;
const FIELD_BYTES: usize = 16;
const HEADER_BYTES: usize = FIELD_BYTES + 32;
/// Largest blob, in bytes.
pub const BLOB_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Why a blob is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlobError {
    /// It is shorter than an envelope.
    TooShort {
        /// Its length.
        bytes: usize,
    },
    /// It is larger than [`BLOB_BYTES_MAX`].
    TooLarge,
    /// It does not begin with the magic.
    NotABlob,
    /// The envelope is of a format that this program does not know.
    UnknownFormat {
        /// The format found.
        found: u16,
    },
    /// The body was written by a newer program.
    NewerSchema {
        /// The schema found.
        found: u16,
    },
    /// The body was written by an older program.
    OlderSchema {
        /// The schema found.
        found: u16,
    },
    /// It was cut off.
    Truncated {
        /// Bytes that are missing.
        missing: usize,
    },
    /// Bytes follow the body.
    LeftOver {
        /// How many.
        bytes: usize,
    },
    /// The digest is not that of the contents.
    Damaged,
    /// The body is not what the schema says, although the digest is right.
    Malformed,
    /// The configuration does not fit together.
    Defective(Defect),
    /// It cannot be written: the body would be too large.
    BodyTooLarge,
}

impl fmt::Display for BlobError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooShort { bytes } => write!(f, "{bytes} bytes are too few for a configuration blob"),
            Self::TooLarge | Self::BodyTooLarge => write!(f, "larger than {BLOB_BYTES_MAX} bytes"),
            Self::NotABlob => f.write_str("not a configuration blob; make one with `portcullis bake`"),
            Self::UnknownFormat { found } => write!(f, "blob format {found}, and this program reads format {FORMAT}"),
            Self::NewerSchema { found } => {
                write!(
                    f,
                    "blob schema {found} is newer than this program's {SCHEMA}; bake it with this version, or update the program"
                )
            }
            Self::OlderSchema { found } => {
                write!(f, "blob schema {found} is older than this program's {SCHEMA}; bake it again with this version")
            }
            Self::Truncated { missing } => write!(f, "truncated: the last {missing} bytes are missing"),
            Self::LeftOver { bytes } => write!(f, "{bytes} bytes follow the end"),
            Self::Damaged => f.write_str("damaged: the SHA-256 digest does not match the contents"),
            Self::Malformed => f.write_str("the body is not a configuration"),
            Self::Defective(defect) => write!(f, "the configuration does not fit together: {defect}"),
        }
    }
}

impl std::error::Error for BlobError {}

/// Writes a configuration as a blob.
///
/// # Errors
/// [`BlobError::BodyTooLarge`].
pub fn encode(configuration: &Configuration) -> Result<Vec<u8>, BlobError> {
    let body = postcard::to_allocvec(configuration).map_err(|_| BlobError::Malformed)?;
    if body.len() > BLOB_BYTES_MAX - HEADER_BYTES {
        return Err(BlobError::BodyTooLarge);
    }
    let length = u32::try_from(body.len()).map_err(|_| BlobError::BodyTooLarge)?;
    let mut blob = Vec::with_capacity(HEADER_BYTES + body.len());
    blob.extend_from_slice(MAGIC);
    blob.extend_from_slice(&FORMAT.to_be_bytes());
    blob.extend_from_slice(&SCHEMA.to_be_bytes());
    blob.extend_from_slice(&length.to_be_bytes());
    let digest = Sha256::new().chain_update(&blob).chain_update(&body).finalize();
    blob.extend_from_slice(&digest);
    blob.extend_from_slice(&body);
    Ok(blob)
}

/// Reads a blob and checks everything in it that an index, a range or a table relies on.
///
/// # Errors
/// Why it is refused.
pub fn decode(blob: &[u8]) -> Result<Configuration, BlobError> {
    if blob.len() > BLOB_BYTES_MAX {
        return Err(BlobError::TooLarge);
    }
    // The magic first: "not a blob" says more about a short text file than its length does.
    if blob.iter().zip(MAGIC).any(|(found, expected)| found != expected) {
        return Err(BlobError::NotABlob);
    }
    let too_short = BlobError::TooShort { bytes: blob.len() };
    let (fields, rest) = blob.split_first_chunk::<FIELD_BYTES>().ok_or(too_short)?;
    let (digest, body) = rest.split_first_chunk::<32>().ok_or(too_short)?;
    let [.., f0, f1, s0, s1, l0, l1, l2, l3] = *fields;
    let (format, schema) = (u16::from_be_bytes([f0, f1]), u16::from_be_bytes([s0, s1]));
    if format != FORMAT {
        return Err(BlobError::UnknownFormat { found: format });
    }
    let length = usize::try_from(u32::from_be_bytes([l0, l1, l2, l3])).map_err(|_| BlobError::TooLarge)?;
    if let Some(missing) = length.checked_sub(body.len()).filter(|missing| *missing > 0) {
        return Err(BlobError::Truncated { missing });
    }
    if body.len() > length {
        return Err(BlobError::LeftOver { bytes: body.len() - length });
    }
    if Sha256::new().chain_update(fields).chain_update(body).finalize().as_slice() != digest {
        return Err(BlobError::Damaged);
    }
    match schema.cmp(&SCHEMA) {
        core::cmp::Ordering::Greater => return Err(BlobError::NewerSchema { found: schema }),
        core::cmp::Ordering::Less => return Err(BlobError::OlderSchema { found: schema }),
        core::cmp::Ordering::Equal => {}
    }
    let (configuration, left) = postcard::take_from_bytes::<Configuration>(body).map_err(|_| BlobError::Malformed)?;
    if !left.is_empty() {
        return Err(BlobError::LeftOver { bytes: left.len() });
    }
    verify::configuration(&configuration).map_err(BlobError::Defective)?;
    Ok(configuration)
}

/// Puts `contents` at `path` so that a reader sees the old file or the new one, never a part. The file is readable by its
/// owner only, since it may hold keys.
///
/// # Errors
/// What the file system says. A temporary file that was begun is removed.
pub fn write_atomically(path: &Path, contents: &[u8]) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    let name =
        path.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the path has no file name"))?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let mut temporary_name = std::ffi::OsString::from(".");
    temporary_name.push(name);
    temporary_name.push(format!(".{}.new", std::process::id()));
    let temporary = folder.join(temporary_name);
    let written = (|| {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        file.write_all(contents)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        fs::File::open(folder)?.sync_all()
    })();
    if written.is_err() {
        // Best effort: the error that matters is the first one.
        let _ = fs::remove_file(&temporary);
    }
    written
}
