//! The firmware's part: it starts what the card's first partition names. From there on the card's own bytes run: U-Boot, its script, and
//! what that chooses. So what is shipped is what is tested, and not what it was made of.
//!
//! The emulator's own machine has no firmware, and takes Debian's U-Boot for it; the script is the card's there too.

use std::fs::File;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use crate::image::boards::Board;
use crate::image::{boot, disk, fat, packages};
use crate::process::{Failure, Outcome};

/// Where the firmware of a Raspberry Pi loads 32-bit programs.
const PROGRAM_ADDRESS: u32 = 0x8000;

/// What the machine starts with.
#[derive(Debug, Default)]
pub struct Boot {
    /// U-Boot.
    pub loader: PathBuf,
    /// The device tree of the first model; `None` for the emulator's own machine, which makes its own.
    pub tree: Option<PathBuf>,
}

/// For the emulator's own machine.
pub fn emulated(board: &Board) -> Outcome<Boot> {
    Ok(Boot { loader: packages::emulated_loader(board)?, tree: None })
}

/// Reads the card as the firmware of a Raspberry Pi does; puts the files into `folder`.
pub fn read(board: &Board, card: &Path, folder: &Path) -> Outcome<Boot> {
    let first = disk::read(card, 1)?;
    let configuration = String::from_utf8_lossy(&contents(&first, "config.txt")?).into_owned();
    let file = |setting: &str| -> Outcome<PathBuf> {
        let name = configuration.lines().find_map(|line| line.strip_prefix(setting)).map(str::trim);
        let name = name.ok_or_else(|| Failure::new(format!("config.txt has no line `{setting}`")))?;
        let path = folder.join(name);
        std::fs::write(&path, contents(&first, name)?).map_err(|error| Failure::file("write", &path, &error))?;
        Ok(path)
    };
    let loader = file("kernel=")?;
    if !board.is_64_bit() {
        // The firmware knows where a 32-bit program belongs; the emulator has to be told.
        let contents = std::fs::read(&loader).map_err(|error| Failure::file("read", &loader, &error))?;
        let wrapped = boot::program(&contents, PROGRAM_ADDRESS);
        std::fs::write(&loader, wrapped).map_err(|error| Failure::file("write", &loader, &error))?;
    }
    Ok(Boot { loader, tree: Some(file("device_tree=")?) })
}

/// Writes further parameters of the kernel onto a card, as a person could.
pub fn set_extra(card: &Path, text: &str) -> Outcome {
    let first = disk::read(card, 1)?;
    let place = first.windows(boot::EXTRA.len()).position(|window| window == boot::EXTRA);
    let place = place.map(|at| disk::FIRST.start * fat::SECTOR + at + boot::EXTRA.len());
    let (Some(at), true) = (place.and_then(|at| u64::try_from(at).ok()), text.len() <= boot::EXTRA_BYTES) else {
        return Err(Failure::new(format!("the card's {} has no room for `{text}`", boot::EXTRA_FILE)));
    };
    let fault = |error: &std::io::Error| Failure::file("write", card, error);
    let mut file = File::options().write(true).open(card).map_err(|error| fault(&error))?;
    let padded = format!("{text:width$}", width = boot::EXTRA_BYTES);
    file.seek(SeekFrom::Start(at)).and_then(|_| file.write_all(padded.as_bytes())).map_err(|error| fault(&error))
}

fn contents(partition: &[u8], name: &str) -> Outcome<Vec<u8>> {
    fat::read(partition, name)
        .ok_or_else(|| Failure::new(format!("the card has no {name} where the firmware looks for it")))
}
