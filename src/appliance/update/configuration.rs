//! A configuration into the idle slot of the data partition, its trial, and the step that puts it in force.
//!
//! ```text
//! configuration/a/ b/          a blob and what belongs to it, each in a folder of its own
//! configuration/a.version      version of the update that filled the slot, or of what a new card brought; absent: it has none
//! configuration/current -> a   what is in force
//! configuration/trying         names the slot on trial, with `at-start` behind it until the start that its trial begins with;
//!                              absent: none is
//! ```
//!
//! **Invariant:** what `current` names is never written. It changes in one step, after what it will name is on the disk and has
//! been seen to work. So a trial that loses its power ends at the next start, with what was in force. One that begins with a start,
//! because its network settings are others, is said to be running before it runs: it is started once.
//!
//! **Invariant:** a version stands outside of the slot's folder, where the broker's user writes nothing: no broker can make an old
//! update look new.

use super::super::boot_state::Slot;
use super::super::disk;
use super::super::tree;
use super::payload::{PIECE_BYTES, Payload};
use super::refusal::Refusal;
use super::{Progress, replace};
use crate::bundle::archive::{Entry, EntryKind};
use crate::bundle::{BLOB, CONFIGURATION_BYTES_MAX, Contents};
use crate::config::blob::Configuration;
use sha2::{Digest as _, Sha256};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, symlink};
use std::path::{Path, PathBuf};

/// Beside the blob of a new card: its version, a decimal number. It is no part of the slot.
pub const VERSION: &str = "version";
const CURRENT: &str = "current";
const TRYING: &str = "trying";
/// Behind the slot's name in [`TRYING`].
const AT_START: &str = "at-start";
const NEXT: &str = "next";
const NOT_FILLED: &str = "the idle slot for configurations cannot be filled";
/// Longest file that is read whole here, bytes.
const TEXT_BYTES_MAX: u64 = 64;

/// The slot in force; `None`: there is none.
pub fn in_force(root: &Path) -> Option<Slot> {
    fs::read_link(root.join(CURRENT)).ok()?.to_str().and_then(Slot::parse)
}

/// Version of what is in a slot; 0: it has none.
pub fn version(root: &Path, slot: Slot) -> u64 {
    text(&root.join(format!("{slot}.version"))).and_then(|text| text.parse().ok()).unwrap_or(0)
}

/// Notes the version of what a new card has brought into a slot, from the folder where the card's things are, so that no older
/// update is taken. What says no number is as if it were not there.
///
/// # Errors
/// Of the file system.
pub fn note_version(root: &Path, slot: Slot, seed: &Path) -> io::Result<()> {
    let path = root.join(format!("{slot}.version"));
    let found = text(&seed.join(VERSION));
    match found.as_deref().map(str::parse::<u64>) {
        Some(Ok(version)) => return replace(&path, &version.to_string()),
        Some(Err(_)) => log::warn!("{}: not a number: the configuration has no version", seed.join(VERSION).display()),
        None => {}
    }
    match fs::remove_file(&path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The slot on trial, and whether the trial is to begin.
fn trying(root: &Path) -> Option<(Slot, bool)> {
    let text = text(&root.join(TRYING))?;
    let (slot, is_due) = text.strip_suffix(AT_START).map_or((text.as_str(), false), |slot| (slot.trim_end(), true));
    Some((Slot::parse(slot)?, is_due))
}

fn text(path: &Path) -> Option<String> {
    let mut text = String::new();
    File::open(path).ok()?.take(TEXT_BYTES_MAX).read_to_string(&mut text).ok()?;
    Some(text.trim_end().to_owned())
}

/// The folder of a slot.
pub fn folder(root: &Path, slot: Slot) -> PathBuf {
    root.join(slot.name())
}

/// What a start finds of a trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interrupted {
    /// There was none.
    No,
    /// Before it was over: what was in force is.
    Trial(Slot),
    /// After it: the slot on trial is in force.
    Kept(Slot),
    /// It begins now, and is said to be running.
    Due(Slot),
}

/// Ends the trial that the power may have ended, or begins the one that is to begin. To be called before the broker is started.
///
/// # Errors
/// Of the file system. No trial is to be run then: `current` alone says what is started.
pub fn recover(root: &Path) -> io::Result<Interrupted> {
    let Some((slot, is_due)) = trying(root) else { return Ok(Interrupted::No) };
    let is_in_force = in_force(root) == Some(slot);
    if is_due && !is_in_force {
        // If the power goes from here on, or the machine hangs, the next start goes back.
        begin_trial(root, slot, Begin::Now)?;
        return Ok(Interrupted::Due(slot));
    }
    end_trial(root)?;
    Ok(if is_in_force { Interrupted::Kept(slot) } else { Interrupted::Trial(slot) })
}

/// When a trial begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// With the broker's next start.
    Now,
    /// With the machine's.
    AtStart,
}

/// The slots, and what is to be told while one is filled.
pub struct Filling<'a> {
    /// The folder of configurations.
    pub root: &'a Path,
    /// The slot in force, which stays as it is.
    pub from: Slot,
    /// Whom the files belong to: the broker's user and group.
    pub owner: u32,
    /// Is told of each step.
    pub progress: &'a dyn Progress,
}

impl Filling<'_> {
    /// Fills the slot that is not in force: what the payload brings, and everything else as it is in force. What it holds.
    ///
    /// # Errors
    /// Why the slot is not what was signed, or not for this board; it is empty then, as far as the card lets it.
    pub fn run(&self, payload: Payload<'_>) -> Result<Configuration, Refusal> {
        let bytes = payload.manifest().bytes;
        if bytes > CONFIGURATION_BYTES_MAX {
            return Err(Refusal::TooLarge { bytes, room: CONFIGURATION_BYTES_MAX });
        }
        let filled = fill(self, payload);
        if filled.is_err() {
            // Room for the next one. Nothing names this folder.
            let _ = fs::remove_dir_all(folder(self.root, self.from.other()));
        }
        filled
    }
}

fn fill(filling: &Filling<'_>, payload: Payload<'_>) -> Result<Configuration, Refusal> {
    let &Filling { root, from, owner, progress } = filling;
    let (manifest, idle) = (payload.manifest(), from.other());
    let target = folder(root, idle);
    let failed = Refusal::io(NOT_FILLED);
    let absent = |error: io::Error| if error.kind() == ErrorKind::NotFound { Ok(()) } else { Err(error) };
    end_trial(root).map_err(&failed)?;
    fs::remove_file(root.join(format!("{idle}.version"))).or_else(absent).map_err(&failed)?;
    fs::remove_dir_all(&target).or_else(absent).map_err(&failed)?;
    let step = |bytes: u64| progress.advanced(bytes).map_err(&failed);
    step(0)?;

    let bytes = read(payload, progress)?;
    let contents = Contents::read(&bytes).map_err(Refusal::Contents)?;
    let configuration = crate::config::decode(contents.blob).map_err(Refusal::Blob)?;
    let (named, ours) = (&configuration.board.name, &manifest.board);
    if named != ours {
        return Err(Refusal::Board { named: named.clone(), ours: ours.clone() });
    }
    // The folder is PID 1's until all of it is right.
    let brought: Vec<&str> = contents.folders().chain([BLOB]).collect();
    tree::copy(&folder(root, from), &target, &brought, owner, contents.beside_size()).map_err(&failed)?;
    step(0)?;
    for Entry { name, kind, contents } in &contents.beside {
        let path = target.join(name);
        match kind {
            EntryKind::Folder => DirBuilder::new().mode(0o700).create(&path).map_err(&failed)?,
            EntryKind::File => put(&path, contents)?,
            // `Contents` has none.
            EntryKind::Other => {}
        }
        step(0)?;
    }
    put(&target.join(BLOB), contents.blob)?;
    step(manifest.bytes)?;
    // With the folders' own entries, and whom it all belongs to.
    tree::lay(&target, BLOB, owner).map_err(&failed)?;
    let file_system = File::open(root).map_err(&failed)?;
    rustix::fs::syncfs(file_system).map_err(|error| failed(error.into()))?;
    replace(&root.join(format!("{idle}.version")), &manifest.version.to_string()).map_err(&failed)?;
    step(manifest.bytes)?;
    Ok(configuration)
}

/// The payload whole, which is what was signed.
fn read(mut payload: Payload<'_>, progress: &dyn Progress) -> Result<Vec<u8>, Refusal> {
    let (mut bytes, mut room) = (Vec::new(), vec![0; PIECE_BYTES]);
    loop {
        let piece = payload.next(&mut room)?;
        if piece.is_empty() {
            break;
        }
        bytes.extend_from_slice(piece);
        progress.advanced(payload.read()).map_err(Refusal::io(NOT_FILLED))?;
    }
    payload.finish()?;
    Ok(bytes)
}

/// Writes a new file for PID 1's eyes and reads it back.
fn put(path: &Path, contents: &[u8]) -> Result<(), Refusal> {
    let failed = Refusal::io(NOT_FILLED);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(&failed)?;
    file.write_all(contents).and_then(|()| file.sync_all()).map_err(&failed)?;
    let found = disk::digest(path, contents.len() as u64)
        .map_err(Refusal::io("the idle slot for configurations cannot be read back"))?;
    if found == <[u8; 32]>::from(Sha256::digest(contents)) { Ok(()) } else { Err(Refusal::ReadBack) }
}

/// Says on the disk that a slot is on trial.
///
/// # Errors
/// Of the file system.
pub fn begin_trial(root: &Path, slot: Slot, begin: Begin) -> io::Result<()> {
    let text = match begin {
        Begin::Now => slot.name().to_owned(),
        Begin::AtStart => format!("{slot} {AT_START}"),
    };
    replace(&root.join(TRYING), &text)
}

/// Puts a slot in force that has been seen to work, and ends its trial.
///
/// # Errors
/// Of the file system: what was in force is, or the slot is. [`in_force`] says which.
pub fn keep(root: &Path, slot: Slot, progress: &dyn Progress) -> io::Result<()> {
    let next = root.join(NEXT);
    match fs::remove_file(&next) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    symlink(slot.name(), &next)?;
    sync(root)?;
    progress.advanced(0)?;
    fs::rename(&next, root.join(CURRENT))?;
    sync(root)?;
    progress.advanced(0)?;
    end_trial(root)
}

/// Says on the disk that no slot is on trial.
///
/// # Errors
/// Of the file system.
pub fn end_trial(root: &Path) -> io::Result<()> {
    match fs::remove_file(root.join(TRYING)) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(()) => sync(root),
    }
}

fn sync(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
