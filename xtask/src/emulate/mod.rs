//! `cargo xtask emulate`: an image in qemu, with its console here and its ports on loopback; and the test of an image.

mod faults;
mod firmware;
mod machine;
mod site;
mod time_server;
pub mod trial;
mod updates;

use std::ffi::OsString;
use std::path::PathBuf;

use lexopt::ValueExt as _;

use crate::image::boards;
use crate::process::{Failure, Outcome};
use crate::workspace;
use machine::{Emulator, Kind, Machine};
use trial::Extent;

const HELP: &str = "\
Starts an SD card's image in qemu, prints its console, and forwards its ports 8883, 8884
and 9600 to 127.0.0.1. Ctrl-C pulls the plug.

Usage: cargo xtask emulate [IMAGE] [options]
       cargo xtask emulate --test [options]

  --board NAME     the image is target/dist/portcullis-NAME.img (default: rpi3)
  --machine NAME   virt (default: quick, with watchdog and power button), raspi3b or raspi2b
  --port PORT      the first of the three ports here (default: 8883)
  --keep           goes on with the card of the last time, instead of a fresh copy
  --test           makes an image of the tutorial and tries it: the tutorial, the plug pulled
                   under load as often as --times says, updates (kept, refused, gone back
                   from, cut off by the plug), and faults of cable, clock and card
  --times N        how often (default: 3)
  --short          without what takes long
  --faults         the start and the faults alone
  --programs DIR   as for `image`";

/// Runs the command.
pub fn run(arguments: Vec<OsString>) -> Outcome {
    let mut parser = lexopt::Parser::from_args(arguments);
    let usage = |error: &lexopt::Error| Failure::usage("emulate", error);
    let (mut board, mut image, mut machine, mut port) = ("rpi3".to_owned(), None, "virt".to_owned(), 8_883_u16);
    let (mut keep, mut test, mut extent, mut times, mut programs) = (false, false, None, None, None);
    while let Some(argument) = parser.next().map_err(|error| usage(&error))? {
        match argument {
            lexopt::Arg::Long("board") => {
                board = parser.value().and_then(|value| value.string()).map_err(|error| usage(&error))?;
            }
            lexopt::Arg::Long("machine") => {
                machine = parser.value().and_then(|value| value.string()).map_err(|error| usage(&error))?;
            }
            lexopt::Arg::Long("port") => {
                port = parser.value().and_then(|value| value.parse()).map_err(|error| usage(&error))?;
            }
            lexopt::Arg::Long("times") => {
                times = Some(parser.value().and_then(|value| value.parse()).map_err(|error| usage(&error))?);
            }
            lexopt::Arg::Long("programs") => {
                programs = Some(PathBuf::from(parser.value().map_err(|error| usage(&error))?));
            }
            lexopt::Arg::Long("keep") => keep = true,
            lexopt::Arg::Long("test") => test = true,
            lexopt::Arg::Long("short") => extent = Some(Extent::Short),
            lexopt::Arg::Long("faults") => extent = Some(Extent::Faults),
            lexopt::Arg::Value(path) => image = Some(PathBuf::from(path)),
            lexopt::Arg::Short('h') | lexopt::Arg::Long("help") => {
                println!("{HELP}");
                return Ok(());
            }
            other => return Err(usage(&other.unexpected())),
        }
    }
    let board = boards::named(&board)?;
    let kind = Kind::named(&machine, board)?;
    if !test && (extent.is_some() || times.is_some() || programs.is_some()) {
        return Err(Failure::new("--times, --short, --faults and --programs go with --test"));
    }
    if extent == Some(Extent::Faults) && !kind.is_virtual() {
        return Err(Failure::new("--faults needs a machine with a power button: virt"));
    }
    let emulator = Emulator::find()?;
    let folder = workspace::target_folder().join("appliance/emulated");
    workspace::make_folder(&folder)?;
    if test {
        let (times, extent) = (times.unwrap_or(3), extent.unwrap_or(Extent::Whole));
        let asked = trial::Asked { kind, board, times, extent, programs };
        return trial::run(&emulator, &asked, &folder);
    }
    let image = image.unwrap_or_else(|| workspace::dist_folder().join(format!("portcullis-{}.img", board.name)));
    let card = folder.join("card.img");
    if !keep || !card.is_file() {
        machine::card(&image, &card)?;
    }
    loop {
        let boot = machine::prepare(kind, board, &card, &folder)?;
        let mut machine = Machine::start(&emulator, kind, &boot, &card, port, machine::With::default())?;
        machine.show_all();
        // Whatever else ends a machine without its power is a start from the beginning, where the boot code looks again.
        if machine.said.iter().any(|line| line.contains("switching off")) || machine.said.is_empty() {
            return Ok(());
        }
    }
}
