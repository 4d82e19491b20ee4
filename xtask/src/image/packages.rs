//! Debian's packages that an image is made of: pinned in `cross/appliance.lock`, fetched through the system's package sources,
//! kept below the target folder, unpacked beside that and never installed.
//!
//! **Invariant:** nothing is unpacked whose digest is not that of the lock file.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::boards::Board;
use crate::process::{self, Failure, Outcome};
use crate::{install, workspace};

const FIRMWARE: &str = "raspi-firmware";
const LOADER: &str = "u-boot-rpi";
/// U-Boot for the machines of an emulator.
const LOADER_EMULATED: &str = "u-boot-qemu";
const SHELL: &str = "busybox-static";
/// The release that `--relock` takes packages from.
pub const SUITE: &str = "bookworm";

/// A line of the lock file.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pinned {
    name: String,
    version: String,
    architecture: String,
    digest: String,
}

impl Pinned {
    fn file(&self) -> String {
        format!("{}_{}_{}.deb", self.name, self.version.replace(':', "%3a"), self.architecture)
    }
}

/// Where the packages of an image have been unpacked.
#[derive(Debug)]
pub struct Unpacked {
    /// Of the kernel.
    pub kernel: PathBuf,
    /// What the kernel's package calls itself: `6.1.0-57-arm64`.
    pub kernel_release: String,
    /// Of the firmware.
    pub firmware: PathBuf,
    /// Of U-Boot.
    pub loader: PathBuf,
    /// Of the shell, where one is wanted.
    pub shell: Option<PathBuf>,
}

fn lock_path() -> PathBuf {
    workspace::root().join("cross/appliance.lock")
}

fn folder() -> PathBuf {
    workspace::target_folder().join("appliance")
}

/// Fetches what is missing and unpacks it.
pub fn unpack(board: &Board, with_shell: bool) -> Outcome<Unpacked> {
    let lock = Lock::read()?;
    let kernel = lock.find(board, |name| name.starts_with("linux-image-"), "linux-image-")?;
    let named = |wanted: &str| lock.unpacked(lock.find(board, |name| name == wanted, wanted)?, board);
    Ok(Unpacked {
        kernel_release: kernel.name.trim_start_matches("linux-image-").to_owned(),
        kernel: lock.unpacked(kernel, board)?,
        firmware: named(FIRMWARE)?,
        loader: named(LOADER)?,
        shell: with_shell.then(|| named(SHELL)).transpose()?,
    })
}

/// U-Boot for the emulator's own machine with this board's processor.
pub fn emulated_loader(board: &Board) -> Outcome<PathBuf> {
    let lock = Lock::read()?;
    let package = lock.find(board, |name| name == LOADER_EMULATED, LOADER_EMULATED)?;
    let machine = if board.is_64_bit() { "qemu_arm64" } else { "qemu_arm" };
    Ok(lock.unpacked(package, board)?.join("usr/lib/u-boot").join(machine).join("u-boot.bin"))
}

/// The lock file.
struct Lock {
    suite: String,
    pinned: Vec<Pinned>,
}

impl Lock {
    fn read() -> Outcome<Self> {
        let path = lock_path();
        let text = std::fs::read_to_string(&path).map_err(|error| Failure::file("read", &path, &error))?;
        let (suite, pinned) = parse(&text)?;
        Ok(Self { suite, pinned })
    }

    /// The package for this board that is `wanted`.
    fn find(&self, board: &Board, is_wanted: impl Fn(&str) -> bool, wanted: &str) -> Outcome<&Pinned> {
        let fits = |package: &&Pinned| {
            is_wanted(&package.name) && ["all", board.architecture].contains(&package.architecture.as_str())
        };
        self.pinned
            .iter()
            .find(fits)
            .ok_or_else(|| Failure::new(format!("{} names no {wanted} for {}", lock_path().display(), board.name)))
    }

    fn unpacked(&self, package: &Pinned, board: &Board) -> Outcome<PathBuf> {
        unpacked(package, board, &self.suite)
    }
}

fn parse(text: &str) -> Outcome<(String, Vec<Pinned>)> {
    let mut suite = None;
    let mut pinned = Vec::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        match line.split_whitespace().collect::<Vec<_>>().as_slice() {
            ["suite", name] => suite = Some((*name).to_owned()),
            ["package", name, version, architecture, digest] => pinned.push(Pinned {
                name: (*name).to_owned(),
                version: (*version).to_owned(),
                architecture: (*architecture).to_owned(),
                digest: (*digest).to_owned(),
            }),
            _ => return Err(Failure::new(format!("the lock file has a line that says nothing: {line}"))),
        }
    }
    Ok((suite.ok_or_else(|| Failure::new("the lock file names no suite"))?, pinned))
}

fn unpacked(package: &Pinned, board: &Board, suite: &str) -> Outcome<PathBuf> {
    let kept = folder().join("packages").join(package.file());
    if !kept.is_file() {
        fetch(package, board, suite)?;
    }
    let told = process::capture(Command::new("sha256sum").arg(&kept))?;
    if told.split_whitespace().next() != Some(package.digest.as_str()) {
        return Err(Failure::new(format!("{} is not what the lock file names: remove it", kept.display())));
    }
    // The digest in the name: a folder of another package can never be taken for it.
    let target = folder().join("unpacked").join(package.digest.get(..16).unwrap_or_default());
    if !target.is_dir() {
        let partial = target.with_extension("partial");
        workspace::remove_folder(&partial)?;
        workspace::make_folder(&partial)?;
        process::run(Command::new("dpkg-deb").arg("-x").arg(&kept).arg(&partial))?;
        std::fs::rename(&partial, &target).map_err(|error| Failure::file("move", &partial, &error))?;
    }
    Ok(target)
}

fn fetch(package: &Pinned, board: &Board, suite: &str) -> Outcome {
    let apt = Apt::new(board, suite)?;
    let wanted = format!("{}={}", package.name, package.version);
    process::run(apt.command("apt-get").arg("download").arg(&wanted)).map_err(|failure| {
        Failure::new(format!(
            "{failure}: the package sources have not got it any more. Put it into {}, or take what Debian {SUITE} has \
             now with `cargo xtask image --relock`",
            folder().join("packages").display()
        ))
    })
}

/// Writes the lock file anew for the boards' architectures, with what the package sources offer.
pub fn relock(boards: &[&Board]) -> Outcome {
    let path = lock_path();
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    let mut lines: Vec<String> = text.lines().filter(|line| line.starts_with('#')).map(str::to_owned).collect();
    lines.push(format!("suite {SUITE}"));
    let mut has_common = false;
    for board in boards {
        let apt = Apt::new(board, SUITE)?;
        let meta = format!("linux-image-{}", board.kernel_flavour);
        let depends = process::capture(apt.command("apt-cache").args(["depends", "--important", &meta]))?;
        let kernel = depends.split_whitespace().find(|word| word.starts_with("linux-image-") && **word != meta);
        let kernel = kernel.ok_or_else(|| Failure::new(format!("{meta} depends on no kernel")))?;
        for name in [kernel, LOADER, SHELL] {
            lines.push(apt.pin(name)?);
        }
        // What is the same for every architecture.
        if !std::mem::replace(&mut has_common, true) {
            for name in [FIRMWARE, LOADER_EMULATED] {
                lines.push(apt.pin(name)?);
            }
        }
    }
    lines.push(String::new());
    workspace::write(&path, &lines.join("\n"))
}

/// Apt with a state of its own for one architecture, so that the system's is not touched.
struct Apt {
    state: PathBuf,
    architecture: &'static str,
}

impl Apt {
    fn new(board: &Board, suite: &str) -> Outcome<Self> {
        for tool in ["apt-get", "dpkg-deb"] {
            if process::find(tool).is_none() {
                return Err(Failure::new(format!(
                    "`{tool}` is missing: packages are fetched on Debian and its children"
                )));
            }
        }
        let state = folder().join("apt").join(board.architecture);
        workspace::make_folder(&state.join("lists/partial"))?;
        workspace::make_folder(&folder().join("packages"))?;
        workspace::write(&state.join("sources.list"), &sources(suite)?)?;
        let apt = Self { state, architecture: board.architecture };
        if let Err(failure) = process::run(apt.command("apt-get").arg("update")) {
            println!("note: {failure}; going on with the lists that could be fetched");
        }
        Ok(apt)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.current_dir(folder().join("packages")).arg("-qq");
        let option = |name: &str, path: &Path| format!("{name}={}", path.display());
        for setting in [
            option("Dir::State::Lists", &self.state.join("lists")),
            option("Dir::Etc::SourceList", &self.state.join("sources.list")),
            option("Dir::Etc::SourceParts", Path::new("/dev/null")),
            option("Dir::Cache", &self.state),
            format!("APT::Architecture={}", self.architecture),
            format!("APT::Architectures={}", self.architecture),
            "APT::Sandbox::User=root".to_owned(),
        ] {
            command.arg("-o").arg(setting);
        }
        command
    }

    /// The lock file's line for the newest version of a package.
    fn pin(&self, name: &str) -> Outcome<String> {
        let told = process::capture(self.command("apt-cache").args(["show", "--no-all-versions", name]))?;
        let field = |field: &str| told.lines().find_map(|line| line.strip_prefix(field)).map(str::trim);
        match (field("Version:"), field("Architecture:"), field("SHA256:")) {
            (Some(version), Some(architecture), Some(digest)) => {
                Ok(format!("package {name} {version} {architecture} {digest}"))
            }
            _ => Err(Failure::new(format!("the package sources say too little about {name}"))),
        }
    }
}

/// Debian's archives, as the system reaches them, for a suite of ours and with the firmware's part.
fn sources(suite: &str) -> Outcome<String> {
    let archive = |label: &str| -> Outcome<Option<String>> {
        let mut command = Command::new("apt-get");
        command
            .args(["indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"])
            .arg(format!("Label: {label}"));
        Ok(process::capture(&mut command)?.lines().next().map(str::to_owned))
    };
    let keys = Path::new("/usr/share/keyrings/debian-archive-keyring.gpg");
    if !keys.is_file() {
        install::packages(&["debian-archive-keyring"])?;
    }
    let line = |address: &str, suite: &str, parts: &str| {
        format!("deb [signed-by={}] {address} {suite} {parts}\n", keys.display())
    };
    let main = archive("Debian")?.ok_or_else(|| {
        Failure::new(
            "this system's package sources are not Debian's, which has the kernel and the firmware of the images",
        )
    })?;
    let mut text = line(&main, suite, "main non-free-firmware");
    if let Some(security) = archive("Debian-Security")? {
        text.push_str(&line(&security, &format!("{suite}-security"), "main"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lock_file_names_all_that_an_image_needs() {
        let (suite, pinned) = parse(&std::fs::read_to_string(lock_path()).unwrap()).unwrap();
        assert_eq!(suite, SUITE);
        for beginning in ["linux-image-", FIRMWARE, LOADER, LOADER_EMULATED, SHELL] {
            let package = pinned.iter().find(|package| package.name.starts_with(beginning)).unwrap();
            assert_eq!(package.digest.len(), 64, "{beginning}");
        }
        assert!(parse("suite x\npackage y\n").is_err());
        assert!(parse("").is_err());
    }
}
