//! qemu with a card in it, and its console.
//!
//! **Invariant:** a machine that is dropped has ended: whatever a test does, nothing of it stays behind.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use super::firmware::Boot;
use crate::process::{self, Failure, Outcome};
use crate::{install, workspace};

/// The package with the emulator, and its program.
const PACKAGE: &str = "qemu-system-arm";
const PROGRAM: &str = "qemu-system-aarch64";

/// What is emulated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A machine that does not exist: quick, with a watchdog and a power button.
    Virt,
    /// A Raspberry Pi 3B. Its watchdog bites as soon as it is touched, so that it is left alone.
    RaspberryPi3,
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
        let Some(folder) = &self.unpacked else { return Command::new(PROGRAM) };
        let mut command = Command::new(folder.join("usr/bin").join(PROGRAM));
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
    /// Switches a machine on. Its ports 8883 and 8884 are `port` and the one behind it on this machine's loopback.
    pub fn start(emulator: &Emulator, kind: Kind, boot: &Boot, card: &Path, port: u16) -> Outcome<Self> {
        let mut command = emulator.command();
        let control = card.with_extension("control");
        let show = |path: &Path| path.display().to_string();
        let (machine, console) = match kind {
            Kind::Virt => ("virt", "console=ttyAMA0"),
            Kind::RaspberryPi3 => ("raspi3b", "console=ttyS1,115200 portcullis.nowatchdog"),
        };
        command.args(["-M", machine, "-display", "none", "-monitor", "none", "-no-reboot"]);
        command.arg("-qmp").arg(format!("unix:{},server=on,wait=off", show(&control)));
        command.arg("-kernel").arg(&boot.kernel).arg("-initrd").arg(&boot.initramfs);
        command.arg("-append").arg(format!("{} {console}", boot.parameters));
        let drive = format!("file={},format=raw,id=card", show(card));
        let net = format!(
            "user,id=net,hostfwd=tcp:127.0.0.1:{port}-:8883,hostfwd=tcp:127.0.0.1:{}-:8884",
            port.saturating_add(1)
        );
        match kind {
            Kind::Virt => {
                command.args([
                    "-cpu",
                    "cortex-a53",
                    "-smp",
                    "2",
                    "-m",
                    "512",
                    "-serial",
                    "stdio",
                    "-device",
                    "i6300esb",
                ]);
                command.arg("-drive").arg(format!("{drive},if=none")).args(["-device", "virtio-blk-pci,drive=card"]);
                command.arg("-netdev").arg(net).args(["-device", "virtio-net-pci,netdev=net,romfile="]);
            }
            Kind::RaspberryPi3 => {
                command.args(["-serial", "null", "-serial", "stdio"]).arg("-dtb").arg(&boot.tree);
                command.arg("-drive").arg(format!("{drive},if=sd"));
                command.arg("-netdev").arg(net).args(["-device", "usb-net,netdev=net"]);
            }
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
        Ok(Self { child, lines, said: Vec::new(), begin, control })
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

    /// Presses the power button, as qemu's monitor protocol does.
    pub fn press_power_button(&self) -> Outcome {
        let fault = |error: &std::io::Error| Failure::file("use", &self.control, error);
        let mut control = UnixStream::connect(&self.control).map_err(|error| fault(&error))?;
        control.set_read_timeout(Some(Duration::from_secs(10))).map_err(|error| fault(&error))?;
        let answers = control.try_clone().map_err(|error| fault(&error))?;
        let mut answers = BufReader::new(answers).lines();
        for command in ["qmp_capabilities", "system_powerdown"] {
            control.write_all(format!("{{\"execute\":\"{command}\"}}\n").as_bytes()).map_err(|error| fault(&error))?;
            // A greeting and events stand between. Who hangs up too soon is not heard.
            if !answers.by_ref().map_while(Result::ok).any(|line| line.contains("\"return\"")) {
                return Err(Failure::new(format!("the emulator does not answer {command}")));
            }
        }
        Ok(())
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
fn shown(line: &str) -> String {
    line.replace(char::is_control, "?")
}

/// A copy of an image to run on, as large as a card of its kind is: a power of two.
pub fn card(image: &Path, copy: &Path) -> Outcome {
    process::run(Command::new("cp").arg("--sparse=always").arg(image).arg(copy))?;
    let file = File::options().write(true).open(copy).map_err(|error| Failure::file("open", copy, &error))?;
    let bytes = file.metadata().map_err(|error| Failure::file("read", copy, &error))?.len();
    file.set_len(bytes.next_power_of_two()).map_err(|error| Failure::file("write", copy, &error))
}

/// Two ports in a row that nobody has.
pub fn free_ports() -> Outcome<u16> {
    for _ in 0..32 {
        let taken = TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr());
        let port = taken.map_err(|error| Failure::new(format!("no free port: {error}")))?.port();
        if port < u16::MAX && TcpListener::bind(("127.0.0.1", port + 1)).is_ok() {
            return Ok(port);
        }
    }
    Err(Failure::new("no two free ports in a row"))
}
