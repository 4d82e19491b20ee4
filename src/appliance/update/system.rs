//! A system into the idle slot, and the boot state that has it tried.
//!
//! **Invariant:** while anything of a slot is written, the boot state names the other one and nothing else. So power may go at any
//! moment: what starts then is the system that runs now.
//!
//! **Invariant:** the first bytes of a slot, without which it is no file system, are written last, after the rest is on the card
//! and was the payload that was signed. A slot that is half written cannot be taken for one by anybody.
//!
//! **Invariant:** a system that is on trial confirms itself by having been ready, and by nothing else: it writes no other one.
//!
//! **Invariant:** the boot state says `try` only after the slot was read back and was what was signed.

use super::super::boot_state::{BootState, Slot};
use super::super::disk::{Medium, PIECE_BYTES};
use super::Progress;
use super::payload::Payload;
use super::refusal::Refusal;

/// What is held back until the rest is right, bytes: the boot sector and the tables behind it.
const BEGIN_BYTES: usize = 4_096;
/// After so many bytes they are waited for, so that the broker's own writes to the card never stand behind more.
const SYNC_BYTES: u64 = 1 << 20;

/// Writes the payload to the idle slot and reads it back. The slot is wiped first; only a success leaves a file system on it.
/// `is_trial`: the system that runs was started on trial.
///
/// # Errors
/// Why the slot is not what was signed; it is none then.
pub fn write(
    mut payload: Payload<'_>,
    (running, is_trial): (Slot, bool),
    disk: &dyn Medium,
    slot: &dyn Medium,
    progress: &dyn Progress,
) -> Result<(), Refusal> {
    let manifest = payload.manifest();
    if manifest.bytes > slot.bytes() {
        return Err(Refusal::TooLarge { bytes: manifest.bytes, room: slot.bytes() });
    }
    let failed = Refusal::io("the boot state cannot be written");
    let state = BootState::read(disk).map_err(&failed)?;
    // What is written next would say that the slot that runs is confirmed.
    if is_trial && state.slot != running {
        return Err(Refusal::OnTrial);
    }
    BootState { slot: running, once: None, tried: None, ..state }.write(disk).map_err(&failed)?;
    let failed = Refusal::io("the idle slot cannot be written");
    slot.write_at(&[0; BEGIN_BYTES], 0).and_then(|()| slot.sync()).map_err(&failed)?;

    // What is held back is read alone, so that all pieces begin where a block does.
    let (mut begin, mut room) = ([0; BEGIN_BYTES], vec![0; PIECE_BYTES]);
    let begin = payload.next(&mut begin)?;
    let mut synced = 0;
    loop {
        let at = payload.read();
        let piece = payload.next(&mut room)?;
        if piece.is_empty() {
            break;
        }
        slot.write_at(piece, at).map_err(&failed)?;
        let at = payload.read();
        if at - synced >= SYNC_BYTES {
            slot.sync().map_err(&failed)?;
            synced = at;
        }
        progress.advanced(at).map_err(&failed)?;
    }
    slot.sync().map_err(&failed)?;
    payload.finish()?;
    slot.write_at(begin, 0).and_then(|()| slot.sync()).map_err(&failed)?;
    match slot.digest(manifest.bytes) {
        Ok(digest) if digest == manifest.digest => Ok(()),
        outcome => {
            // What is not what was signed must not look like a system. If that fails too, nothing starts it either.
            let _ = slot.write_at(&[0; BEGIN_BYTES], 0).and_then(|()| slot.sync());
            Err(outcome.map_or_else(Refusal::io("the idle slot cannot be read back"), |_| Refusal::ReadBack))
        }
    }
}

/// Has the boot loader start the other slot once. To be called after [`write()`] and nothing else.
///
/// # Errors
/// Of the disk: the boot state says this or what it said before.
pub fn switch(disk: &dyn Medium, running: Slot) -> Result<(), Refusal> {
    let failed = Refusal::io("the boot state cannot be written");
    let state = BootState::read(disk).map_err(&failed)?;
    let next = BootState { slot: running, once: Some(running.other()), tried: None, ..state };
    next.write(disk).map_err(&failed)
}

/// Makes the slot that runs the confirmed one. No older version is taken from then on.
///
/// # Errors
/// Of the disk: the boot state says this or what it said before.
pub fn confirm(disk: &dyn Medium, running: Slot, version: u64) -> Result<(), Refusal> {
    let failed = Refusal::io("the boot state cannot be written");
    let state = BootState::read(disk).map_err(&failed)?;
    let floor = state.floor.max(version);
    BootState { slot: running, once: None, tried: None, floor }.write(disk).map_err(&failed)
}
