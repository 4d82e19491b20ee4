//! A system onto a simulated disk, with the power gone at every write.

use super::super::super::boot_state::{BootState, Slot};
use super::super::super::disk::Medium as _;
use super::super::super::disk::simulated::{Disk, Part};
use super::super::payload::Payload;
use super::super::refusal::Refusal;
use super::super::site::Gauge;
use super::super::system;
use super::{SLOT_BYTES, manifest, payload};
use crate::bundle::{Kind, Manifest};
use sha2::{Digest as _, Sha256};

const SLOT_A: u64 = 2 << 20;

fn slot_b(disk: &Disk) -> Part<'_> {
    Part { disk, begin: SLOT_A + SLOT_BYTES, bytes: SLOT_BYTES }
}

/// Both steps of an update from slot A.
fn update(disk: &Disk, payload: &[u8]) -> Result<(), Refusal> {
    let manifest = manifest(Kind::System, 8, payload);
    system::write(Payload::new(&mut &*payload, &manifest), (Slot::A, false), disk, &slot_b(disk), &Gauge::default())?;
    system::switch(disk, Slot::A)
}

fn has(disk: &Disk, payload: &[u8]) -> bool {
    slot_b(disk).digest(payload.len() as u64).unwrap() == <[u8; 32]>::from(Sha256::digest(payload))
}

/// What the boot loader does: the slot that starts, and whether it is on trial.
fn start(disk: &Disk) -> (Slot, bool) {
    let state = BootState::read(disk).unwrap();
    let Some(once) = state.once else { return (state.slot, false) };
    BootState { once: None, tried: Some(once), ..state }.write(disk).unwrap();
    (once, true)
}

/// Every cut of an update that begins with this boot state, while slot A runs; how often each slot started.
fn cut_everywhere(boot: BootState) -> [u32; 2] {
    let (old, new) = (payload(200_000), payload(400_001));
    let before = Disk::new(8 << 20);
    slot_b(&before).write_at(&old, 0).unwrap();
    boot.write(&before).unwrap();
    let whole = before.clone();
    update(&whole, &new).unwrap();
    let operations = whole.operations() - before.operations();
    assert_eq!(start(&whole), (Slot::B, true));
    assert!(has(&whole, &new));
    let mut started = [0, 0];
    for cut in 0..operations {
        for is_torn in [false, true] {
            let mut disk = before.clone();
            disk.lose_power_after(cut);
            assert!(update(&disk, &new).is_err(), "cut {cut} of {operations}");
            disk.restart(is_torn);
            let healed = BootState::heal(&disk).unwrap();
            assert_eq!(healed.floor, 7);
            match start(&disk) {
                (Slot::A, is_trial) => {
                    started[0] += 1;
                    assert!(!is_trial);
                    // And it can be done again from there.
                    update(&disk, &new).unwrap();
                    assert_eq!((start(&disk), has(&disk, &new)), ((Slot::B, true), true));
                }
                // The last write of the boot state had come far enough, or the first one had not.
                (Slot::B, is_trial) => {
                    started[1] += 1;
                    let is_as_before = healed == boot && has(&disk, &old);
                    assert!(is_as_before || (is_trial && has(&disk, &new)), "cut {cut}");
                }
            }
        }
    }
    started
}

#[test]
fn power_that_goes_at_any_write_of_an_update_leaves_a_system_that_starts() {
    let usual = BootState { floor: 7, tried: Some(Slot::B), ..BootState::default() };
    let started = cut_everywhere(usual);
    assert!(started[0] > 10 && started[1] > 0, "{started:?}");
    // What is written over is what the boot loader would start, if it could.
    cut_everywhere(BootState { slot: Slot::B, ..usual });
    cut_everywhere(BootState { once: Some(Slot::B), ..usual });
}

#[test]
fn half_a_slot_is_no_file_system() {
    let new = payload(400_001);
    let begin = |disk: &Disk| {
        let mut begin = [0; 4_096];
        slot_b(disk).read_at(&mut begin, 0).unwrap();
        begin
    };
    let before = Disk::new(8 << 20);
    slot_b(&before).write_at(&payload(200_000), 0).unwrap();
    before.sync().unwrap();
    let whole = before.clone();
    update(&whole, &new).unwrap();
    let operations = whole.operations() - before.operations();
    let mut blank = 0;
    // From where the slot is wiped to where its beginning is written.
    for cut in 4..operations {
        let mut disk = before.clone();
        disk.lose_power_after(cut);
        let _ = update(&disk, &new);
        disk.restart(false);
        let found = begin(&disk);
        blank += u32::from(found == [0; 4_096]);
        assert!(found == [0; 4_096] || has(&disk, &new) || found == begin(&before), "cut {cut}");
    }
    assert!(blank > 5, "{blank}");
}

#[test]
fn power_that_goes_while_a_system_is_confirmed_leaves_the_old_or_the_new_one_confirmed() {
    let before = Disk::new(8 << 20);
    update(&before, &payload(10_000)).unwrap();
    assert_eq!(start(&before), (Slot::B, true));
    let whole = before.clone();
    system::confirm(&whole, Slot::B, 8).unwrap();
    let confirmed = BootState { slot: Slot::B, once: None, tried: None, floor: 8 };
    assert_eq!(BootState::read(&whole).unwrap(), confirmed);
    for cut in 0..whole.operations() - before.operations() {
        let mut disk = before.clone();
        disk.lose_power_after(cut);
        assert!(system::confirm(&disk, Slot::B, 8).is_err());
        disk.restart(cut % 2 == 0);
        let found = BootState::heal(&disk).unwrap();
        let went_back = BootState { tried: Some(Slot::B), ..BootState::default() };
        assert!([went_back, confirmed].contains(&found), "{found:?}");
    }
    system::confirm(&whole, Slot::B, 3).unwrap();
    assert_eq!(BootState::read(&whole).unwrap().floor, 8, "it never sinks");
}

#[test]
fn a_payload_that_is_not_what_was_signed_never_becomes_a_system() {
    let disk = Disk::new(8 << 20);
    let good = payload(300_000);
    let manifest = manifest(Kind::System, 8, &good);
    let mut bad = good.clone();
    bad[299_999] ^= 1;
    let write = |payload: &[u8]| {
        system::write(
            Payload::new(&mut &*payload, &manifest),
            (Slot::A, false),
            &disk,
            &slot_b(&disk),
            &Gauge::default(),
        )
    };
    assert!(matches!(write(&bad), Err(Refusal::Digest)));
    let mut begin = [1; 4_096];
    slot_b(&disk).read_at(&mut begin, 0).unwrap();
    assert_eq!(begin, [0; 4_096]);
    assert!(matches!(write(&good[..200_000]), Err(Refusal::NoFile(_))));
    assert_eq!(BootState::read(&disk).unwrap(), BootState::default());
    let large = Manifest { bytes: SLOT_BYTES + 1, ..manifest.clone() };
    let written =
        system::write(Payload::new(&mut &*good, &large), (Slot::A, false), &disk, &slot_b(&disk), &Gauge::default());
    assert!(matches!(written, Err(Refusal::TooLarge { .. })));
}

#[test]
fn a_system_on_trial_is_not_confirmed_by_an_update() {
    let disk = Disk::new(8 << 20);
    let new = payload(10_000);
    let manifest = manifest(Kind::System, 8, &new);
    let before = BootState { slot: Slot::B, tried: Some(Slot::A), ..BootState::default() };
    before.write(&disk).unwrap();
    slot_b(&disk).write_at(&new, 0).unwrap();
    let write = || {
        system::write(Payload::new(&mut &*new, &manifest), (Slot::A, true), &disk, &slot_b(&disk), &Gauge::default())
    };
    assert!(matches!(write(), Err(Refusal::OnTrial)));
    assert_eq!((BootState::read(&disk).unwrap(), has(&disk, &new)), (before, true), "and the confirmed one is whole");
    system::confirm(&disk, Slot::A, 7).unwrap();
    write().unwrap();
}
