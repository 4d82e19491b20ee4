//! `cargo xtask flash`: an image onto a card, after making sure that it is a card, and read back.
//!
//! **Invariant:** what makes the card one that starts is written last. One that was taken out half-way is empty, and not half new.

mod disks;

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek as _, SeekFrom, Write as _};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use crate::image::disk;
use crate::process::{Failure, Outcome};
use disks::{Disk, Objection};
use lexopt::ValueExt as _;

const HELP: &str = "\
Writes an image onto an SD card, and reads it back.

Usage: cargo xtask flash IMAGE DEVICE [--yes NAME] [--force]
       cargo xtask flash --list

  --list       the disks of this machine, and why they would be refused
  --yes NAME   does not ask; NAME is the device's, again, as in `sdx`
  --force      also a disk that is built in, as eMMC is, or larger than a card.
               Never one in use

Refuses partitions, disks that are mounted, used as swap or part of something else,
and such as are too small. DEVICE can be a file, for a try.";

/// What is written or compared at once.
const PIECE: usize = 4 << 20;
/// After so many pieces they must have arrived, so that what is shown is true.
const PIECES_UNTIL_SYNC: u64 = 8;
/// `O_EXCL` of Linux: on a block device, nobody else may have it.
const EXCLUSIVE: i32 = 0o200;

/// Runs the command.
pub fn run(arguments: Vec<OsString>) -> Outcome {
    let mut parser = lexopt::Parser::from_args(arguments);
    let usage = |error: &lexopt::Error| Failure::usage("flash", error);
    let (mut paths, mut yes, mut force, mut list) = (Vec::new(), None, false, false);
    while let Some(argument) = parser.next().map_err(|error| usage(&error))? {
        match argument {
            lexopt::Arg::Long("yes") => {
                yes = Some(parser.value().and_then(|value| value.string()).map_err(|error| usage(&error))?);
            }
            lexopt::Arg::Long("force") => force = true,
            lexopt::Arg::Long("list") => list = true,
            lexopt::Arg::Value(path) => paths.push(PathBuf::from(path)),
            lexopt::Arg::Short('h') | lexopt::Arg::Long("help") => {
                println!("{HELP}");
                return Ok(());
            }
            other => return Err(usage(&other.unexpected())),
        }
    }
    if list {
        for disk in disks::all(Path::new("/")) {
            println!("{}", line(&disk));
        }
        return Ok(());
    }
    let [image, device] = paths.as_slice() else {
        return Err(Failure::new("an image and a device, please; `cargo xtask flash --help` tells more"));
    };
    flash(image, device, yes.as_deref(), force)
}

fn line(disk: &Disk) -> String {
    let size = format!("{}.{} GB", disk.bytes / 1_000_000_000, disk.bytes % 1_000_000_000 / 100_000_000);
    let objections: String = disk.objections.iter().map(|objection| format!("; {}", objection.text())).collect();
    format!("/dev/{:10} {size:>10}  {}  ({}{objections})", disk.name, disk.model.escape_debug(), disk.kind.text())
}

/// What may be written to.
#[derive(Debug)]
struct Target {
    /// Its path without links.
    device: PathBuf,
    /// What a person has to repeat.
    name: String,
    /// Bytes; of a file as many as it takes.
    room: u64,
    /// Whether it is a file, for a try.
    is_file: bool,
}

/// The disk or file at this path, if nothing speaks against writing to it.
fn target(device: &Path, force: bool) -> Outcome<Target> {
    let device = fs::canonicalize(device).map_err(|error| Failure::file("find", device, &error))?;
    let kind = fs::metadata(&device).map_err(|error| Failure::file("find", &device, &error))?.file_type();
    if kind.is_file() {
        return Ok(Target { name: device.display().to_string(), device, room: u64::MAX, is_file: true });
    }
    if !kind.is_block_device() {
        return Err(Failure::new(format!("{} is no disk", device.display())));
    }
    let name = device.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let disk = disks::disk(Path::new("/"), &name)
        .ok_or_else(|| Failure::new(format!("{} is no whole disk, or there is no card in it", device.display())))?;
    println!("{}", line(&disk));
    let objections = disk.objections.iter().filter(|objection| !(force && objection.may_be_overridden()));
    let refused: Vec<String> = objections.map(Objection::text).collect();
    if !refused.is_empty() {
        return Err(Failure::new(format!("{} is not written to: {}", device.display(), refused.join("; "))));
    }
    Ok(Target { device, name, room: disk.bytes, is_file: false })
}

fn flash(image: &Path, device: &Path, yes: Option<&str>, force: bool) -> Outcome {
    disk::recognise(image)?;
    let mut source = File::open(image).map_err(|error| Failure::file("read", image, &error))?;
    let bytes = source.metadata().map_err(|error| Failure::file("read", image, &error))?.len();
    let Target { device, name, room, is_file } = target(device, force)?;
    if room < bytes {
        return Err(Failure::new(format!("the image has {bytes} bytes, {} only {room}", device.display())));
    }
    if !is_confirmed(&name, is_file, yes)? {
        return Err(Failure::new("nothing was written"));
    }
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    if !is_file {
        options.custom_flags(EXCLUSIVE);
    }
    let mut target = options.open(&device).map_err(|error| Failure::file("open", &device, &error))?;
    write(&mut source, &mut target, bytes).map_err(|error| Failure::file("write", &device, &error))?;
    drop(target);
    let same = verify(&mut source, &device, bytes).map_err(|error| Failure::file("read back", &device, &error))?;
    match same {
        None => {
            println!("{}: written and read back, {} MiB", device.display(), bytes >> 20);
            Ok(())
        }
        Some(at) => {
            Err(Failure::new(format!("{}: byte {at} is not what was written: try another card", device.display())))
        }
    }
}

/// Whether the person means it: by repeating the name. The one question that this tool asks.
fn is_confirmed(name: &str, is_file: bool, yes: Option<&str>) -> Outcome<bool> {
    if let Some(yes) = yes {
        return if yes == name { Ok(true) } else { Err(Failure::new(format!("--yes {yes} is not {name}"))) };
    }
    if is_file {
        return Ok(true);
    }
    println!("All that is on it will be gone. Type {name} to go on:");
    let mut answer = String::new();
    let _ = io::stdin().read_line(&mut answer).map_err(|error| Failure::new(format!("no answer: {error}")))?;
    Ok(answer.trim() == name)
}

/// Writes all of the image, its first piece first as zeros and in truth last.
fn write(source: &mut File, target: &mut File, bytes: u64) -> io::Result<()> {
    let first = usize::try_from(bytes).unwrap_or(PIECE).min(PIECE);
    target.seek(SeekFrom::Start(0))?;
    target.write_all(&vec![0; first])?;
    target.sync_all()?;
    let mut piece = vec![0; PIECE];
    let start = u64::try_from(first).unwrap_or(u64::MAX);
    source.seek(SeekFrom::Start(start))?;
    let mut at = start;
    for count in 1_u64.. {
        let length = fill(source, &mut piece)?;
        if length == 0 {
            break;
        }
        target.write_all(piece.get(..length).unwrap_or_default())?;
        at += u64::try_from(length).unwrap_or(0);
        if count.is_multiple_of(PIECES_UNTIL_SYNC) {
            target.sync_data()?;
            progress("written", at, bytes);
        }
    }
    target.sync_all()?;
    source.seek(SeekFrom::Start(0))?;
    let length = fill(source, piece.get_mut(..first).unwrap_or_default())?;
    target.seek(SeekFrom::Start(0))?;
    target.write_all(piece.get(..length).unwrap_or_default())?;
    target.sync_all()?;
    progress("written", bytes, bytes);
    println!();
    Ok(())
}

/// Where the card first differs from the image. Read through a new opening of the device, with its cache told to forget.
fn verify(source: &mut File, device: &Path, bytes: u64) -> io::Result<Option<u64>> {
    let mut target = File::open(device)?;
    forget(device);
    source.seek(SeekFrom::Start(0))?;
    let (mut wanted, mut found) = (vec![0; PIECE], vec![0; PIECE]);
    let mut at = 0_u64;
    for count in 1_u64.. {
        let length = fill(source, &mut wanted)?;
        if length == 0 {
            break;
        }
        let read = fill(&mut target, found.get_mut(..length).unwrap_or_default())?;
        let (wanted, found) = (wanted.get(..length).unwrap_or_default(), found.get(..read).unwrap_or_default());
        if wanted != found {
            let same = wanted.iter().zip(found).take_while(|(wanted, found)| wanted == found).count();
            println!();
            return Ok(Some(at + u64::try_from(same).unwrap_or(0)));
        }
        at += u64::try_from(length).unwrap_or(0);
        if count.is_multiple_of(PIECES_UNTIL_SYNC) {
            progress("read back", at, bytes);
        }
    }
    progress("read back", bytes, bytes);
    println!();
    Ok(None)
}

/// Has the kernel drop what it remembers of a block device (`blockdev --flushbufs`): what it would give us is what we gave it, not what
/// the card has. Without that program the card is compared with less certainty.
fn forget(device: &Path) {
    let program = ["/usr/sbin/blockdev", "/sbin/blockdev"].into_iter().find(|path| Path::new(path).is_file());
    let _ = std::process::Command::new(program.unwrap_or("blockdev")).arg("--flushbufs").arg(device).output();
}

/// Reads until the buffer is full or there is no more.
fn fill(source: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while let Some(rest) = buffer.get_mut(length..).filter(|rest| !rest.is_empty()) {
        match source.read(rest)? {
            0 => break,
            read => length += read,
        }
    }
    Ok(length)
}

fn progress(what: &str, at: u64, bytes: u64) {
    const WIDTH: u64 = 40;
    let done = at.saturating_mul(WIDTH).checked_div(bytes).unwrap_or(WIDTH);
    let bar: String = (0..WIDTH).map(|place| if place < done { '#' } else { '.' }).collect();
    print!("\r{what:>9} [{bar}] {} of {} MiB", at >> 20, bytes >> 20);
    let _ = io::stdout().flush();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("portcullis-flash-{name}-{}", std::process::id()))
    }

    #[test]
    fn an_image_arrives_whole_and_a_fault_of_the_card_is_found() {
        let (image, card) = (scratch("image"), scratch("card"));
        let contents: Vec<u8> = (0..PIECE * 2 + 12_345).map(|at| u8::try_from(at % 251).unwrap()).collect();
        let bytes = u64::try_from(contents.len()).unwrap();
        fs::write(&image, &contents).unwrap();
        fs::write(&card, vec![9; PIECE * 3]).unwrap();
        let mut source = File::open(&image).unwrap();
        let mut target = OpenOptions::new().write(true).open(&card).unwrap();
        write(&mut source, &mut target, bytes).unwrap();
        assert!(fs::read(&card).unwrap().starts_with(&contents));
        assert_eq!(verify(&mut source, &card, bytes).unwrap(), None);
        let mut damaged = fs::read(&card).unwrap();
        damaged[PIECE + 7] ^= 1;
        fs::write(&card, damaged).unwrap();
        assert_eq!(verify(&mut source, &card, bytes).unwrap(), Some(u64::try_from(PIECE + 7).unwrap()));
        for path in [image, card] {
            fs::remove_file(path).unwrap();
        }
    }

    #[test]
    fn what_is_no_image_leaves_a_card_as_it_is() {
        let (image, card) = (scratch("slot"), scratch("kept"));
        // The mark alone, which a boot slot has too.
        let mut contents = vec![0; 512];
        contents[510..].copy_from_slice(&[0x55, 0xAA]);
        fs::write(&image, &contents).unwrap();
        fs::write(&card, "somebody's").unwrap();
        assert!(flash(&image, &card, None, true).unwrap_err().to_string().contains("no image"));
        assert_eq!(fs::read(&card).unwrap(), b"somebody's");
        for path in [image, card] {
            fs::remove_file(path).unwrap();
        }
    }

    #[test]
    fn only_a_disk_that_is_named_again_is_written() {
        let null = target(Path::new("/dev/null"), false).unwrap_err();
        assert!(null.to_string().contains("no disk"));
        assert!(target(&std::env::temp_dir(), false).is_err());
        assert!(is_confirmed("sdy", false, Some("sdx")).is_err(), "another name than that of the device");
        assert!(is_confirmed("sdx", false, Some("sdx")).unwrap());
    }
}
