//! The test of an image: the vendor's tutorial against an emulated gateway, the plug pulled under load, updates that are kept and such
//! that are not, faults of cable, clock and card, the power button.
//!
//! What a killed emulator shows is a loss of power at any moment to a card that keeps the order of what it was told to keep. The host
//! keeps what the emulator wrote, so that a flush that is missing would not be noticed here; `cargo xtask crash` looks for those.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use super::firmware::Boot;
use super::machine::{self, Emulator, Kind, Machine, With};
use super::site::{PATIENCE, Site};
use super::time_server::TimeServer;
use super::{faults, updates};
use crate::image::boards::{self, Board};
use crate::image::{self, Made, Options, packages};
use crate::process::{self, Failure, Outcome};
use crate::targets::Target;
use crate::{build, install, left_out, workspace};

/// Messages that are sent until the plug is pulled, and a few more each time.
const ACKNOWLEDGED_MIN: usize = 40;

/// How much is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// A start, and an update whose kernel dies: what the gate has time for.
    Gate,
    /// All but what waits for minutes.
    Short,
    /// A start, and what is wrong with cable, clock and card.
    Faults,
    /// All.
    Whole,
}

/// What is asked for.
#[derive(Debug)]
pub struct Asked {
    /// The machine.
    pub kind: Kind,
    /// The board whose image it is.
    pub board: &'static Board,
    /// How often the plug is pulled.
    pub times: u32,
    /// How much of it.
    pub extent: Extent,
    /// Where the programs are, if they are not to be built.
    pub programs: Option<PathBuf>,
}

/// Makes an image of the tutorial's configuration and tries it.
pub fn run(emulator: &Emulator, asked: &Asked, folder: &Path) -> Outcome {
    if process::find("mosquitto_pub").is_none() {
        install::packages(&["mosquitto-clients"])?;
    }
    let begin = Instant::now();
    let bench = Bench::make(emulator, asked, folder)?;
    let mut gateway = bench.start(With::default())?;
    let ready = gateway.wait_for("the broker is ready", PATIENCE)?;
    let reached = bench.site.until_reached(&mut gateway)?;
    println!(
        "first start: broker ready after {:.1} s, CONNACK after {:.1} s",
        ready.as_secs_f32(),
        reached.as_secs_f32()
    );
    if matches!(asked.extent, Extent::Short | Extent::Whole) {
        bench.site.tutorial()?;
    }
    // The tutorial's clients leave no session behind, nor one that was there.
    bench.site.subscribe()?;
    match asked.extent {
        Extent::Gate => {
            updates::gate(&bench, &mut gateway)?;
            return gateway.pull_plug();
        }
        Extent::Faults => {
            faults::switch_off(&mut gateway)?;
            return faults::run(&bench);
        }
        Extent::Short | Extent::Whole => {}
    }
    lose_power(&bench, &mut gateway, asked.times)?;
    bench.make_again()?;
    updates::run(&bench, &mut gateway, asked.extent)?;
    if asked.kind.is_virtual() {
        let pressed = Instant::now();
        faults::switch_off(&mut gateway)?;
        println!("power button: off after {:.1} s", pressed.elapsed().as_secs_f32());
        if asked.extent == Extent::Whole {
            faults::run(&bench)?;
        }
    } else {
        gateway.pull_plug()?;
    }
    println!("all passed in {} s", begin.elapsed().as_secs());
    Ok(())
}

/// What the gate tries, with these programs for the board; nothing, and a line that says so, where the packages of an image cannot be had:
/// Debian's archives keep no version for ever.
pub fn gate(programs: &Path) -> Outcome {
    let board = boards::named("rpi3")?;
    let found = Emulator::find().and_then(|emulator| {
        packages::unpack(board, false)?;
        packages::emulated_loader(board)?;
        Ok(emulator)
    });
    let emulator = match found {
        Ok(emulator) => emulator,
        Err(failure) => return left_out::tell(&format!("the image in an emulator: {failure}")),
    };
    let folder = workspace::target_folder().join("appliance/emulated");
    workspace::make_folder(&folder)?;
    let programs = Some(programs.to_owned());
    run(&emulator, &Asked { kind: Kind::Virt, board, times: 0, extent: Extent::Gate, programs }, &folder)
}

/// Pulls the plug under load, as often as that, and counts what comes back.
fn lose_power(bench: &Bench<'_>, gateway: &mut Machine, times: u32) -> Outcome {
    let mut lost = 0_usize;
    let mut books = BTreeSet::new();
    for round in 1..=times {
        let wanted = ACKNOWLEDGED_MIN + 37 * usize::try_from(round).unwrap_or(0);
        let acknowledged = bench.site.publish_until(round, wanted, || gateway.pull_plug())?;
        *gateway = bench.start(With::default())?;
        let _ = gateway.wait_for("the broker is ready", PATIENCE)?;
        let reached = bench.site.until_reached(gateway)?;
        let received = bench.site.receive()?;
        let missing = acknowledged.difference(&received).count();
        println!(
            "plug pulled, {round} of {times}: {} acknowledged, {} received, {missing} lost; CONNACK after {:.1} s",
            acknowledged.len(),
            received.len(),
            reached.as_secs_f32()
        );
        lost += missing;
        books.extend(acknowledged);
    }
    if lost > 0 {
        return Err(Failure::new(format!("{lost} of {} acknowledged messages are lost", books.len())));
    }
    println!("all {} acknowledged messages arrived, over {times} losses of power", books.len());
    Ok(())
}

/// An emulator with a card in it, and the site that it serves.
pub struct Bench<'a> {
    emulator: &'a Emulator,
    asked: &'a Asked,
    /// For what is made on the way.
    pub folder: &'a Path,
    boot: Boot,
    /// The card.
    pub card: PathBuf,
    /// The site.
    pub site: Site,
    /// The programs that are on the card.
    pub programs: PathBuf,
    /// The private key for updates.
    pub key: PathBuf,
    settings: PathBuf,
    /// The time server that the gateway asks.
    pub clock: TimeServer,
}

impl<'a> Bench<'a> {
    fn make(emulator: &'a Emulator, asked: &'a Asked, folder: &'a Path) -> Outcome<Self> {
        let target = Target::named(asked.board.target)?.ok_or_else(|| Failure::new("there is no such target"))?;
        let programs = match &asked.programs {
            Some(folder) => folder.clone(),
            None => {
                install::for_targets(std::slice::from_ref(&target))?;
                for name in ["portcullis", "portcullis-init"] {
                    build::program(&target, name, &[])?;
                }
                workspace::dist_folder()
            }
        };
        let mut site =
            Site::make(&target, &programs.join(format!("portcullis-{}", target.name)), &folder.join("site"))?;
        // A Raspberry Pi has no clock that runs without power, and a gateway without a time takes no certificates. The emulator's
        // network has this machine at this address.
        let settings = folder.join("gateway.cfg");
        let clock = TimeServer::start()?;
        workspace::write(&settings, &format!("hostname=trial\nntp=10.0.2.2:{}\n", clock.port))?;
        let key = new_key(&folder.join("update.pem"))?;
        let card = folder.join("card.img");
        site.port = machine::free_ports()?;
        let mut bench =
            Self { emulator, asked, folder, boot: Boot::default(), card, site, programs, key, settings, clock };
        let made = bench.image(1, &bench.programs)?;
        machine::card(&made.image, &bench.card)?;
        bench.boot = machine::prepare(asked.kind, asked.board, &bench.card, folder)?;
        Ok(bench)
    }

    /// An image of this version with these programs, and an update to it.
    pub fn image(&self, number: u64, programs: &Path) -> Outcome<Made> {
        self.image_in(self.folder, number, programs)
    }

    /// Makes the first image once more, in another folder, and compares.
    fn make_again(&self) -> Outcome {
        let other = self.folder.join("again");
        workspace::make_folder(&other)?;
        let again = self.image_in(&other, 1, &self.programs)?.image;
        let first = self.folder.join("version-1.img");
        process::run(Command::new("cmp").arg(&first).arg(&again))?;
        println!("two images made in two folders: equal");
        Ok(())
    }

    fn image_in(&self, folder: &Path, number: u64, programs: &Path) -> Outcome<Made> {
        image::make(&Options {
            board: self.asked.board.name.to_owned(),
            configuration: self.site.configuration.clone(),
            settings: Some(self.settings.clone()),
            data_mebibytes: 64,
            rescue: false,
            programs: Some(programs.to_owned()),
            baker: Some(self.programs.join(format!("portcullis-{}", self.asked.board.target))),
            out: Some(folder.join(format!("version-{number}.img"))),
            number,
            configuration_number: 1,
            update_key: None,
            sign: Some(self.key.clone()),
        })
    }

    /// The name of the board.
    pub fn board(&self) -> &'static Board {
        self.asked.board
    }

    /// Switches the gateway on.
    pub fn start(&self, with: With) -> Outcome<Machine> {
        Machine::start(self.emulator, self.asked.kind, &self.boot, &self.card, self.site.port, with)
    }
}

/// A key for updates, made by OpenSSL.
pub fn new_key(path: &Path) -> Outcome<PathBuf> {
    let mut command = Command::new("openssl");
    process::run(command.args(["genpkey", "-algorithm", "ed25519", "-out"]).arg(path))?;
    Ok(path.to_owned())
}
