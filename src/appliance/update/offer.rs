//! What the broker has received: a file in a folder of its own, opened as a stranger's.
//!
//! **Invariant:** nothing of the file is believed but what was hashed while it was written to its place, or read back from there.
//! The broker's user may change it at any time: the header is taken once, and that the payload was right before it is read to be
//! written only keeps what is in the idle slot from being wiped for nothing.
//!
//! **Invariant:** no link that the broker's user may have put there leads PID 1 to another file.

use super::payload::{PIECE_BYTES, Payload};
use super::refusal::Refusal;
use crate::bundle::{HEADER_BYTES_MAX, Header, Kind, Manifest};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, openat, unlinkat};
use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::fd::OwnedFd;
use std::path::Path;

/// Folder below the state folder, and the file in it.
const FOLDER: &str = "update";
const FILE: &str = "incoming";

/// The folder of what was received.
fn folder(state: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::RDONLY;
    let state = openat(CWD, state, flags, Mode::empty())?;
    Ok(openat(&state, FOLDER, flags, Mode::empty())?)
}

/// Removes what was received; whether there was something.
pub fn remove(state: &Path) -> bool {
    folder(state).and_then(|folder| Ok(unlinkat(folder, FILE, AtFlags::empty())?)).is_ok()
}

/// A bundle whose header has been read.
#[derive(Debug)]
pub struct Offer {
    file: File,
    header: Header,
}

impl Offer {
    /// Opens what was received below this state folder.
    ///
    /// # Errors
    /// [`Refusal::NoFile`], or what is wrong with its header or its length.
    pub fn open(state: &Path) -> Result<Self, Refusal> {
        // Not waiting for whoever writes into a pipe of that name.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let opened = folder(state).and_then(|folder| Ok(openat(folder, FILE, flags, Mode::empty())?));
        let mut file = File::from(opened.map_err(Refusal::NoFile)?);
        let found = rustix::fs::fstat(&file).map_err(|error| Refusal::NoFile(error.into()))?;
        if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
            return Err(Refusal::NoFile(io::ErrorKind::InvalidInput.into()));
        }
        let mut begin = Vec::with_capacity(HEADER_BYTES_MAX);
        (&mut file).take(HEADER_BYTES_MAX as u64).read_to_end(&mut begin).map_err(Refusal::NoFile)?;
        let header = Header::parse(&begin).map_err(Refusal::Header)?;
        let expected = header.manifest().bytes.saturating_add(header.length() as u64);
        let found = u64::try_from(found.st_size).unwrap_or(0);
        if expected != found {
            return Err(Refusal::Length { expected, found });
        }
        file.seek(SeekFrom::Start(header.length() as u64)).map_err(Refusal::NoFile)?;
        Ok(Self { file, header })
    }

    /// What its header says: a stranger's word until [`Offer::verify`].
    pub const fn manifest(&self) -> &Manifest {
        self.header.manifest()
    }

    /// Whether it is signed with the image's key and for this board.
    ///
    /// # Errors
    /// [`Refusal::NoKey`], [`Refusal::Header`], [`Refusal::Board`].
    pub fn verify(&self, key: Option<&[u8; 32]>, board: &str) -> Result<(), Refusal> {
        self.header.verify(key.ok_or(Refusal::NoKey)?).map_err(Refusal::Header)?;
        let named = &self.manifest().board;
        if named != board {
            return Err(Refusal::Board { named: named.clone(), ours: board.to_owned() });
        }
        Ok(())
    }

    /// Whether it is newer than what was confirmed of its kind.
    ///
    /// # Errors
    /// [`Refusal::NotNewer`].
    pub fn must_exceed(&self, confirmed: u64) -> Result<(), Refusal> {
        let offered = self.manifest().version;
        if offered > confirmed { Ok(()) } else { Err(Refusal::NotNewer { offered, confirmed }) }
    }

    /// Reads the payload once, and goes back to its beginning. To be called before anything is wiped for it: a signed header with
    /// anything behind it can be sent by whoever has seen one.
    ///
    /// # Errors
    /// [`Refusal::Digest`], [`Refusal::NoFile`].
    pub fn must_be_whole(&mut self) -> Result<(), Refusal> {
        let mut room = vec![0; PIECE_BYTES];
        let mut payload = self.payload();
        while !payload.next(&mut room)?.is_empty() {}
        payload.finish()?;
        self.file.seek(SeekFrom::Start(self.header.length() as u64)).map_err(Refusal::NoFile)?;
        Ok(())
    }

    /// What it replaces.
    pub const fn kind(&self) -> Kind {
        self.manifest().kind
    }

    /// The payload, from its beginning.
    pub fn payload(&mut self) -> Payload<'_> {
        Payload::new(&mut self.file, self.header.manifest())
    }
}
