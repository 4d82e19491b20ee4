//! The boot state: which system slot the boot loader starts, which it is to start once, and what has been confirmed.
//!
//! 512 bytes as U-Boot's `env export -c -s 200` writes them: a CRC-32 of what follows, little-endian; then `name=value`, each with
//! a zero behind it, sorted by name; a further zero; zeros to the end. They stand twice on the whole disk, outside of every
//! partition. The first copy whose checksum is right is believed; without one, slot A is confirmed and nothing is on trial. A copy that
//! the card does not read any more counts as torn as long as the other one is believed, and is written anew.
//!
//! **Invariant:** before copy 1 is overwritten, copy 2 says what is believed. So what power takes away in the middle of a write
//! leaves the state from before or the new one, never an older one.
//!
//! Variables that this program does not know are dropped when it writes: the boot loader's script has none of its own here.

use super::disk::Medium;
use core::fmt::{self, Write as _};
use std::io;

/// Bytes of one copy.
pub const COPY_BYTES: usize = 512;
/// Bytes that are written of each place; behind the copy they are zeros. The kernel reads a block that is written in part first, which
/// a card that has lost it refuses for ever; one that is written whole is given other flash by the card.
const BLOCK_BYTES: usize = 4_096;
/// Where the copies begin, bytes from the beginning of the disk: each in a block of its own.
pub const PLACES: [u64; 2] = [0x800 * 512, 0x808 * 512];
/// First byte that belongs to neither copy, whatever the disk's erase or sector size up to 4 KiB.
pub const END: u64 = PLACES[1] + BLOCK_BYTES as u64;

/// One of the two places of a system, or of a configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Slot {
    /// Partition 2, folder `a`.
    #[default]
    A,
    /// Partition 3, folder `b`.
    B,
}

impl Slot {
    /// Reads `a` or `b`.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "a" => Some(Self::A),
            "b" => Some(Self::B),
            _ => None,
        }
    }

    /// `a` or `b`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
        }
    }

    /// The other one.
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    /// Number of the system slot's partition.
    pub const fn partition(self) -> u32 {
        match self {
            Self::A => 2,
            Self::B => 3,
        }
    }
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What the boot loader and PID 1 tell each other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BootState {
    /// `slot`: the confirmed one.
    pub slot: Slot,
    /// `try`: to be started once.
    pub once: Option<Slot>,
    /// `tried`: what was started once, and nobody has confirmed since.
    pub tried: Option<Slot>,
    /// `floor`: the highest version of a system that was confirmed; 0: none.
    pub floor: u64,
}

impl BootState {
    /// One copy.
    pub fn encode(self) -> [u8; COPY_BYTES] {
        let Self { slot, once, tried, floor } = self;
        let mut text = String::new();
        // Sorted by name, as U-Boot has them. Nothing of it reaches 100 bytes.
        if floor > 0 {
            let _ = write!(text, "floor={floor}\0");
        }
        let _ = write!(text, "slot={slot}\0");
        for (name, value) in [("tried", tried), ("try", once)] {
            if let Some(slot) = value {
                let _ = write!(text, "{name}={slot}\0");
            }
        }
        let mut copy = [0; COPY_BYTES];
        for (place, byte) in copy.iter_mut().skip(4).zip(text.bytes()) {
            *place = byte;
        }
        let checksum = crc32(copy.get(4..).unwrap_or_default()).to_le_bytes();
        for (place, byte) in copy.iter_mut().zip(checksum) {
            *place = byte;
        }
        copy
    }

    /// Reads one copy; `None`: its checksum is not right. A variable whose value makes no sense is as if it were not there.
    pub fn decode(copy: &[u8; COPY_BYTES]) -> Option<Self> {
        let (checksum, body) = copy.split_first_chunk::<4>()?;
        if crc32(body) != u32::from_le_bytes(*checksum) {
            return None;
        }
        let mut state = Self::default();
        for variable in body.split(|byte| *byte == 0).take_while(|variable| !variable.is_empty()) {
            let Some((name, value)) = core::str::from_utf8(variable).ok().and_then(|text| text.split_once('=')) else {
                continue;
            };
            match name {
                "slot" => state.slot = Slot::parse(value).unwrap_or_default(),
                "try" => state.once = Slot::parse(value),
                "tried" => state.tried = Slot::parse(value),
                "floor" => state.floor = value.parse().unwrap_or(0),
                _ => {}
            }
        }
        Some(state)
    }

    /// What the disk says.
    ///
    /// # Errors
    /// Of the disk: a copy cannot be read, and the other one is not believed.
    pub fn read(disk: &dyn Medium) -> io::Result<Self> {
        Ok(copies(disk)?.believed())
    }

    /// Makes both copies say this. Returns when it is on the disk; after an error the disk says this or what it said before.
    ///
    /// # Errors
    /// Of the disk. Nothing is written where [`BootState::read`] fails.
    pub fn write(self, disk: &dyn Medium) -> io::Result<()> {
        let found = copies(disk)?;
        let [first, second] = PLACES;
        if found.first != Some(self) {
            // Where copy 1 is not believed, copy 2 is what is, or nothing is.
            if let Some(believed) = found.first.filter(|_| found.first != found.second) {
                put(disk, second, believed)?;
            }
            put(disk, first, self)?;
        } else if found.second == Some(self) {
            return Ok(());
        }
        put(disk, second, self)
    }

    /// Makes a copy that was torn, or that a loss of power left behind, say what is believed. Does nothing where both do.
    ///
    /// # Errors
    /// Of the disk. Nothing is written where [`BootState::read`] fails.
    pub fn heal(disk: &dyn Medium) -> io::Result<Self> {
        let found = copies(disk)?;
        let believed = found.believed();
        // A disk on which nothing was ever written stays as it is.
        let is_blank = found.first.is_none() && found.second.is_none();
        if !is_blank {
            believed.write(disk)?;
        }
        Ok(believed)
    }
}

/// What the two copies say; `None`: torn, never written, or unreadable.
struct Copies {
    first: Option<BootState>,
    second: Option<BootState>,
}

impl Copies {
    fn believed(&self) -> BootState {
        self.first.or(self.second).unwrap_or_default()
    }
}

fn copies(disk: &dyn Medium) -> io::Result<Copies> {
    let read = |place| -> io::Result<Option<BootState>> {
        let mut copy = [0; COPY_BYTES];
        disk.read_at(&mut copy, place)?;
        Ok(BootState::decode(&copy))
    };
    let [first, second] = PLACES.map(read);
    let (first, second) = match (first, second) {
        (Ok(first), Ok(second)) => (first, second),
        (Ok(Some(good)), Err(error)) => {
            log::warn!("the second copy of the boot state cannot be read: {error}");
            (Some(good), None)
        }
        (Err(error), Ok(Some(good))) => {
            log::warn!("the first copy of the boot state cannot be read: {error}");
            (None, Some(good))
        }
        // What is lost may have confirmed slot B: slot A must not be written down in its place.
        (Err(error), Ok(None) | Err(_)) | (Ok(None), Err(error)) => return Err(error),
    };
    Ok(Copies { first, second })
}

fn put(disk: &dyn Medium, place: u64, state: BootState) -> io::Result<()> {
    let mut block = [0; BLOCK_BYTES];
    for (place, byte) in block.iter_mut().zip(state.encode()) {
        *place = byte;
    }
    disk.write_at(&block, place)?;
    disk.sync()
}

/// CRC-32 as zlib, Ethernet and U-Boot have it (ISO-HDLC), bit by bit: 508 bytes a few times in the life of a card.
fn crc32(bytes: &[u8]) -> u32 {
    const POLYNOMIAL: u32 = 0xEDB8_8320;
    let step = |remainder: u32, byte: &u8| {
        (0..8).fold(remainder ^ u32::from(*byte), |remainder, _| {
            let carry = if remainder & 1 == 1 { POLYNOMIAL } else { 0 };
            (remainder >> 1) ^ carry
        })
    };
    !bytes.iter().fold(u32::MAX, step)
}

#[cfg(test)]
mod tests {
    use super::super::disk::simulated::Disk;
    use super::*;

    const STATES: [BootState; 4] = [
        BootState { slot: Slot::A, once: None, tried: None, floor: 0 },
        BootState { slot: Slot::A, once: Some(Slot::B), tried: None, floor: 7 },
        BootState { slot: Slot::A, once: None, tried: Some(Slot::B), floor: u64::MAX },
        BootState { slot: Slot::B, once: Some(Slot::A), tried: Some(Slot::A), floor: 8 },
    ];

    /// What may be there of a block that was being written: nothing, its beginning without its end, a little of its beginning.
    const RESTARTS: [fn(&mut Disk); 3] = [|disk| disk.restart(false), |disk| disk.restart(true), Disk::restart_begun];

    #[test]
    fn the_checksum_is_that_of_the_standard() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
        assert_eq!(crc32(b""), 0);
    }

    #[test]
    fn a_copy_has_sorted_variables_with_zeros_between() {
        let copy = STATES[3].encode();
        assert!(copy[4..].starts_with(b"floor=8\0slot=b\0tried=a\0try=a\0\0"));
        assert_eq!(copy[..4], crc32(&copy[4..]).to_le_bytes());
        for state in STATES {
            assert_eq!(BootState::decode(&state.encode()), Some(state));
        }
    }

    #[test]
    fn what_the_boot_loader_writes_beside_is_no_harm() {
        let mut copy = [0; COPY_BYTES];
        let text = b"bootcount=3\0floor=x\0slot=b\0tried=c\0nothing\0\0slot=a\0";
        copy[4..4 + text.len()].copy_from_slice(text);
        let checksum = crc32(&copy[4..]).to_le_bytes();
        copy[..4].copy_from_slice(&checksum);
        assert_eq!(BootState::decode(&copy), Some(BootState { slot: Slot::B, ..BootState::default() }));
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let copy = STATES[3].encode();
        for bit in 0..COPY_BYTES * 8 {
            let mut damaged = copy;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(BootState::decode(&damaged), None, "bit {bit}");
        }
        // A blank card's checksum is not that of blanks.
        assert_eq!(BootState::decode(&[0; COPY_BYTES]), None);
        assert_eq!(BootState::decode(&[0xFF; COPY_BYTES]), None);
    }

    #[test]
    fn a_disk_that_was_never_written_says_slot_a_and_stays_as_it_is() {
        let disk = Disk::new(2 << 20);
        assert_eq!(BootState::heal(&disk).unwrap(), BootState::default());
        assert_eq!(disk.operations(), 0);
    }

    #[test]
    fn an_unreadable_copy_counts_as_torn_and_is_written_anew() {
        for lost in PLACES {
            for after in STATES {
                let disk = Disk::new(2 << 20);
                STATES[3].write(&disk).unwrap();
                disk.lose_block(lost);
                assert_eq!(BootState::read(&disk).unwrap(), STATES[3]);
                let healed = disk.clone();
                assert_eq!(BootState::heal(&healed).unwrap(), STATES[3]);
                let found = copies(&healed).unwrap();
                assert_eq!((found.first, found.second), (Some(STATES[3]), Some(STATES[3])));
                for end in 0..4 {
                    let mut disk = disk.clone();
                    disk.lose_power_after(end);
                    let done = after.write(&disk).is_ok();
                    disk.restart_begun();
                    let found = BootState::read(&disk).unwrap();
                    assert!(found == after || (!done && found == STATES[3]), "{lost} {end}: {found:?}");
                }
                after.write(&disk).unwrap();
                let found = copies(&disk).unwrap();
                assert_eq!((found.first, found.second), (Some(after), Some(after)));
            }
        }
    }

    #[test]
    fn where_no_copy_is_left_that_can_be_believed_nothing_is_written_in_its_place() {
        for (lost, torn) in
            [(vec![PLACES[0], PLACES[1]], None), (vec![PLACES[0]], Some(PLACES[1])), (vec![PLACES[1]], Some(PLACES[0]))]
        {
            let disk = Disk::new(2 << 20);
            STATES[3].write(&disk).unwrap();
            if let Some(torn) = torn {
                disk.write_at(&[0; COPY_BYTES], torn).unwrap();
            }
            lost.iter().for_each(|place| disk.lose_block(*place));
            let operations = disk.operations();
            assert!(BootState::read(&disk).is_err() && BootState::heal(&disk).is_err());
            assert!(STATES[0].write(&disk).is_err());
            assert_eq!(disk.operations(), operations);
        }
    }

    #[test]
    fn what_is_written_is_a_whole_block_with_the_copy_at_its_beginning() {
        let disk = Disk::new(2 << 20);
        PLACES.iter().for_each(|place| disk.write_at(&[0xFF; BLOCK_BYTES], *place).unwrap());
        STATES[3].write(&disk).unwrap();
        for place in PLACES {
            let mut block = [0xFF; BLOCK_BYTES];
            disk.read_at(&mut block, place).unwrap();
            assert_eq!(block[..COPY_BYTES], STATES[3].encode());
            assert!(block[COPY_BYTES..].iter().all(|byte| *byte == 0));
        }
    }

    /// **The promise of the file:** whatever was written before and however far it came, a write that loses its power leaves the
    /// state from before or the new one.
    #[test]
    fn a_write_that_loses_its_power_anywhere_leaves_old_or_new() {
        for before in [STATES[0]] {
            for between in [STATES[1], STATES[2], STATES[3]] {
                for after in STATES {
                    // How far the second write came, so that the third begins on every state that it could have left.
                    for first_end in 0..=6 {
                        for second_end in 0..=6 {
                            let disk = Disk::new(2 << 20);
                            before.write(&disk).unwrap();
                            disk.lose_power_after(first_end);
                            let _ = between.write(&disk);
                            for restart in RESTARTS {
                                let mut disk = disk.clone();
                                restart(&mut disk);
                                let found = BootState::read(&disk).unwrap();
                                assert!([before, between].contains(&found), "{found:?}");
                                disk.lose_power_after(second_end);
                                let _ = after.write(&disk);
                                restart(&mut disk);
                                let last = BootState::read(&disk).unwrap();
                                assert!([found, after].contains(&last), "{before:?} {between:?} {after:?}: {last:?}");
                                let healed = BootState::heal(&disk).unwrap();
                                assert_eq!(healed, last);
                                let found = copies(&disk).unwrap();
                                assert_eq!((found.first, found.second), (Some(last), Some(last)));
                            }
                        }
                    }
                }
            }
        }
    }
}
