//! qemu with a card in it, and its console.
//!
//! **Invariant:** a machine that is dropped has ended: whatever a test does, nothing of it stays behind.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use super::firmware::{self, Boot};
use crate::image::boards::Board;
use crate::process::{self, Failure, Outcome};
use crate::{install, ports, workspace};

/// The package with the emulator, and its program.
const PACKAGE: &str = "qemu-system-arm";
const PROGRAM: &str = "qemu-system-aarch64";

/// What is emulated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A machine that does not exist: quick, with a watchdog and a power button.
    Virt,
    /// The same with a processor of 32 bits.
    Virt32,
    /// A Raspberry Pi 3B. Its watchdog bites as soon as it is touched, so that it is left alone.
    RaspberryPi3,
    /// A Raspberry Pi 2B, likewise.
    RaspberryPi2,
}

impl Kind {
    /// The machine of this name for a board.
    pub fn named(name: &str, board: &Board) -> Outcome<Self> {
        match (name, board.is_64_bit()) {
            ("virt", true) => Ok(Self::Virt),
            ("virt", false) => Ok(Self::Virt32),
            ("raspi3b", true) => Ok(Self::RaspberryPi3),
            ("raspi2b", false) => Ok(Self::RaspberryPi2),
            ("raspi3b" | "raspi2b", _) => {
                Err(Failure::new(format!("the image of {} does not run on a `{name}`", board.name)))
            }
            (other, _) => Err(Failure::new(format!("there is no machine `{other}`; it is virt, raspi3b or raspi2b"))),
        }
    }

    /// Whether it is the emulator's own machine.
    pub fn is_virtual(self) -> bool {
        match self {
            Self::Virt | Self::Virt32 => true,
            Self::RaspberryPi3 | Self::RaspberryPi2 => false,
        }
    }
}

/// What is wrong with the world around a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct With {
    /// Whether there is a network cable.
    pub cable: bool,
    /// Whether the card can be written.
    pub writable: bool,
    /// Whether its clock has run while it was off.
    pub clock: bool,
}

impl Default for With {
    fn default() -> Self {
        Self { cable: true, writable: true, clock: true }
    }
}

/// What a look at the console brought.
#[derive(Debug)]
pub enum Seen {
    /// This line.
    Line(String),
    /// Nothing yet.
    Nothing,
    /// The machine has ended.
    End,
}

/// Gets a card ready for a machine, and finds what the machine starts with.
pub fn prepare(kind: Kind, board: &Board, card: &Path, folder: &Path) -> Outcome<Boot> {
    if kind.is_virtual() {
        return firmware::emulated(board);
    }
    firmware::set_extra(card, "portcullis.nowatchdog")?;
    firmware::read(board, card, folder)
}

/// Where the emulator is.
#[derive(Debug, Clone)]
pub struct Emulator {
    /// The folder that its package was unpacked into; `None`: it is installed.
    unpacked: Option<PathBuf>,
}

impl Emulator {
    /// The installed one; else one that is fetched and unpacked below the target folder, because installing it may remove other
    /// versions of qemu's tools.
    pub fn find() -> Outcome<Self> {
        if process::find(PROGRAM).is_some() {
            return Ok(Self { unpacked: None });
        }
        let folder = workspace::target_folder().join("appliance/qemu");
        if !folder.join("usr/bin").join(PROGRAM).is_file() {
            if process::find("apt-get").is_none() {
                return Err(Failure::new(format!("`{PROGRAM}` is missing: install qemu's emulators of ARM machines")));
            }
            let planned = process::capture(Command::new("apt-get").args([
                "--simulate",
                "--no-install-recommends",
                "install",
                PACKAGE,
            ]))?;
            if !planned.lines().any(|line| line.starts_with("Remv")) {
                install::packages(&[PACKAGE])?;
                return Ok(Self { unpacked: None });
            }
            unpack(&planned, &folder)?;
        }
        Ok(Self { unpacked: Some(folder) })
    }

    fn command(&self) -> Command {
        // A write that a limit forbids is to be an error of the card, not the end of the emulator: `Machine::wear_out`.
        let mut command = Command::new("env");
        command.arg("--ignore-signal=XFSZ");
        let Some(folder) = &self.unpacked else {
            command.arg(PROGRAM);
            return command;
        };
        command.arg(folder.join("usr/bin").join(PROGRAM));
        let libraries = ["usr/lib", "lib"].map(|part| folder.join(part).join("x86_64-linux-gnu").display().to_string());
        command.env("LD_LIBRARY_PATH", libraries.join(":"));
        command.arg("-L").arg(folder.join("usr/share/qemu"));
        command
    }
}

/// Fetches and unpacks what an installation would bring.
fn unpack(planned: &str, folder: &Path) -> Outcome {
    let packages: Vec<String> = planned
        .lines()
        .filter_map(|line| {
            let mut words = line.strip_prefix("Inst ")?.split_whitespace();
            let name = words.next()?;
            let version = words.find_map(|word| word.strip_prefix('('))?;
            Some(format!("{name}={version}"))
        })
        .collect();
    let fetched = folder.with_extension("packages");
    workspace::make_folder(&fetched)?;
    process::run(Command::new("apt-get").current_dir(&fetched).args(["-qq", "download"]).args(&packages))?;
    let entries = std::fs::read_dir(&fetched).map_err(|error| Failure::file("read", &fetched, &error))?;
    for package in entries.filter_map(Result::ok).map(|entry| entry.path()) {
        process::run(Command::new("dpkg-deb").arg("-x").arg(package).arg(folder))?;
    }
    workspace::remove_folder(&fetched)
}

/// A running machine.
#[derive(Debug)]
pub struct Machine {
    child: Child,
    lines: Receiver<String>,
    /// What the console has said so far.
    pub said: Vec<String>,
    /// When it was switched on.
    pub begin: Instant,
    control: PathBuf,
}

impl Machine {
    /// Switches a machine on. Its ports 8883, 8884 and 9600 are `port` and the two behind it on this machine's loopback.
    pub fn start(emulator: &Emulator, kind: Kind, boot: &Boot, card: &Path, port: u16, with: With) -> Outcome<Self> {
        let mut command = emulator.command();
        let control = card.with_extension("control");
        let show = |path: &Path| path.display().to_string();
        let machine = match kind {
            // With ACPI, the power button would be where a kernel with a device tree does not look.
            Kind::Virt => "virt,acpi=off",
            // Debian's 32-bit kernel sees nothing above 4 GiB.
            Kind::Virt32 => "virt,highmem=off,acpi=off",
            Kind::RaspberryPi3 => "raspi3b",
            Kind::RaspberryPi2 => "raspi2b",
        };
        command.args(["-M", machine, "-display", "none", "-monitor", "none", "-no-reboot"]);
        command.arg("-qmp").arg(format!("unix:{},server=on,wait=off", show(&control)));
        let writable = if with.writable { "" } else { ",readonly=on" };
        let drive = format!("file={},format=raw,id=card{writable}", show(card));
        let mut net = "user,id=net".to_owned();
        for (inside, outside) in FORWARDED.into_iter().zip(port..) {
            net.push_str(&format!(",hostfwd=tcp:127.0.0.1:{outside}-:{inside}"));
        }
        match kind {
            Kind::Virt | Kind::Virt32 => {
                let processor = if kind == Kind::Virt { "cortex-a53" } else { "cortex-a15" };
                command.args(["-cpu", processor, "-smp", "2", "-m", "512", "-serial", "stdio", "-device", "i6300esb"]);
                command.arg("-bios").arg(&boot.loader);
                command.arg("-drive").arg(format!("{drive},if=none")).args(["-device", "virtio-blk-pci,drive=card"]);
                command.arg("-netdev").arg(net).args(["-device", "virtio-net-pci,netdev=net,romfile="]);
            }
            Kind::RaspberryPi3 | Kind::RaspberryPi2 => {
                // The older one's console is its first port.
                command.args(if kind == Kind::RaspberryPi3 {
                    &["-serial", "null", "-serial", "stdio"][..]
                } else {
                    &["-serial", "stdio"]
                });
                command.arg("-kernel").arg(&boot.loader);
                if let Some(tree) = &boot.tree {
                    command.arg("-dtb").arg(tree);
                }
                command.arg("-drive").arg(format!("{drive},if=sd"));
                command.arg("-netdev").arg(net).args(["-device", "usb-net,netdev=net"]);
            }
        }
        if !with.clock {
            command.args(["-rtc", "base=1970-01-02T00:00:00"]);
        }
        // A socket of a machine that was killed would be in the way.
        let _ = std::fs::remove_file(&control);
        let begin = Instant::now();
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| Failure::new(format!("{PROGRAM} could not be started: {error}")))?;
        let (sender, lines) = channel();
        if let Some(console) = child.stdout.take() {
            std::thread::spawn(move || {
                for line in BufReader::new(console).split(b'\n').map_while(Result::ok) {
                    let line = String::from_utf8_lossy(&line).trim_end().to_owned();
                    if sender.send(line).is_err() {
                        return;
                    }
                }
            });
        }
        let machine = Self { child, lines, said: Vec::new(), begin, control };
        if !with.cable {
            machine.set_cable(false)?;
        }
        Ok(machine)
    }

    /// Plugs the network's cable in.
    pub fn plug_in(&self) -> Outcome {
        self.set_cable(true)
    }

    fn set_cable(&self, is_plugged: bool) -> Outcome {
        self.order(&format!("{{\"execute\":\"set_link\",\"arguments\":{{\"name\":\"net\",\"up\":{is_plugged}}}}}"))
    }

    /// Waits for the console's next line, so long.
    pub fn look(&mut self, limit: Duration) -> Seen {
        match self.lines.recv_timeout(limit) {
            Ok(line) => {
                println!("| {}", shown(&line));
                self.said.push(line.clone());
                Seen::Line(line)
            }
            Err(RecvTimeoutError::Timeout) => Seen::Nothing,
            Err(RecvTimeoutError::Disconnected) => Seen::End,
        }
    }

    /// Waits until the console says something with `wanted` in it; returns when that was, counted from the power.
    pub fn wait_for(&mut self, wanted: &str, limit: Duration) -> Outcome<Duration> {
        let end = Instant::now() + limit;
        loop {
            match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    println!("| {}", shown(&line));
                    let is_found = line.contains(wanted);
                    self.said.push(line);
                    if is_found {
                        return Ok(self.begin.elapsed());
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    return Err(Failure::new(format!("the console did not say \"{wanted}\" in {} s", limit.as_secs())));
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Failure::new(format!("the machine ended before its console said \"{wanted}\"")));
                }
            }
        }
    }

    /// Shows what the console has said meanwhile.
    pub fn show(&mut self) {
        while let Ok(line) = self.lines.try_recv() {
            println!("| {}", shown(&line));
            self.said.push(line);
        }
    }

    /// Shows the console until the machine ends.
    pub fn show_all(&mut self) {
        while let Ok(line) = self.lines.recv() {
            println!("| {}", shown(&line));
            self.said.push(line);
        }
        let _ = self.child.wait();
    }

    /// From here on the card takes no more writes: each is an error.
    pub fn wear_out(&self) -> Outcome {
        let mut command = Command::new("prlimit");
        process::run(command.arg("--pid").arg(self.child.id().to_string()).arg("--fsize=0:0"))
    }

    /// Presses the power button.
    pub fn press_power_button(&self) -> Outcome {
        self.order("{\"execute\":\"system_powerdown\"}")
    }

    /// Tells the emulator to do something, in its monitor protocol.
    fn order(&self, order: &str) -> Outcome {
        let fault = |error: &std::io::Error| Failure::file("use", &self.control, error);
        let mut control = self.connect().map_err(|error| fault(&error))?;
        control.set_read_timeout(Some(Duration::from_secs(10))).map_err(|error| fault(&error))?;
        let answers = control.try_clone().map_err(|error| fault(&error))?;
        let mut answers = BufReader::new(answers).lines();
        for command in ["{\"execute\":\"qmp_capabilities\"}", order] {
            control.write_all(format!("{command}\n").as_bytes()).map_err(|error| fault(&error))?;
            // A greeting and events stand between. Who hangs up too soon is not heard.
            if !answers.by_ref().map_while(Result::ok).any(|line| line.contains("\"return\"")) {
                return Err(Failure::new(format!("the emulator does not answer {command}")));
            }
        }
        Ok(())
    }

    /// The emulator makes its socket when it has started.
    fn connect(&self) -> std::io::Result<UnixStream> {
        for _ in 0..100 {
            if let Ok(control) = UnixStream::connect(&self.control) {
                return Ok(control);
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        UnixStream::connect(&self.control)
    }

    /// Pulls the plug.
    pub fn pull_plug(&mut self) -> Outcome {
        self.child.kill().map_err(|error| Failure::new(format!("the machine cannot be killed: {error}")))?;
        let _ = self.child.wait();
        self.show();
        Ok(())
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A line without what moves a cursor.
pub fn shown(line: &str) -> String {
    line.replace(char::is_control, "?")
}

/// A copy of an image to run on, as large as a card of its kind is: a power of two. For its owner only, as the image is.
pub fn card(image: &Path, copy: &Path) -> Outcome {
    drop(workspace::private_file(copy)?);
    process::run(Command::new("cp").arg("--sparse=always").arg(image).arg(copy))?;
    let file = File::options().write(true).open(copy).map_err(|error| Failure::file("open", copy, &error))?;
    let bytes = file.metadata().map_err(|error| Failure::file("read", copy, &error))?.len();
    file.set_len(bytes.next_power_of_two()).map_err(|error| Failure::file("write", copy, &error))
}

/// The gateway's ports that are reached from here.
const FORWARDED: [u16; 3] = [8_883, 8_884, 9_600];

/// The first of as many ports in a row as are forwarded, that nobody has.
pub fn free_ports() -> Outcome<u16> {
    ports::free(FORWARDED.len() as u16).ok_or_else(|| Failure::new("no three free ports in a row"))
}
