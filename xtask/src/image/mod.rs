//! `cargo xtask image`: an SD card's contents, from Debian's kernel, the Raspberry Pi's firmware, our two programs and a
//! configuration. Made without root, and the same bytes from the same input.

mod advice;
pub mod boards;
pub mod boot;
mod cpio;
mod device_tree;
pub mod disk;
pub mod fat;
mod modules;
pub mod packages;
mod seed;
mod signing;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use lexopt::ValueExt as _;

use crate::process::{self, Failure, Outcome};
use crate::targets::Target;
use crate::{build, install, workspace};
use boards::{Board, Model};

const HELP: &str = "\
Makes the image of an SD card that starts straight into the broker.

Usage: cargo xtask image --board rpi3|rpi4|zero2w|rpi2 --config DIR [options]

  --board NAME     the board; rpi3 serves the 3B and 3B+, and rpi2 the 2B, 3B and 3B+ with 32 bits
  --config DIR     the configuration's sources. Its folders secrets/, issuers/ and revocation/
                   go onto the card beside the baked blob
  --settings FILE  gateway.cfg: host name, address, time servers (default: all of it from DHCP)
  --data MIB       size of the partition for state (default: 512)
  --rescue         with a root shell on the console, for whoever has the card in hand
  --programs DIR   portcullis-TARGET and portcullis-init-TARGET from there, not built anew
  --out FILE       the image (default: target/dist/portcullis-BOARD.img); beside it the same with .slot,
                   which is the boot slot that `--sign` makes an update of
  --number N       the version of the system, 1 or greater; a gateway takes greater ones only
                   (default: 1)
  --configuration-number N
                   the same of the configuration (default: 1)
  --update-key PEM the Ed25519 public key whose updates the gateway takes (default: none, or
                   that of --sign)
  --sign PEM       the private key that the update beside the image is signed with, for
                   `portcullis update`
  --relock         first pin the kernel and firmware that Debian bookworm has now; alone, for
                   all boards";

/// The settings for people.
const SETTINGS_FILE: &str = "gateway.cfg";
const SETTINGS: &str = "# Settings of this gateway. Lines that begin with # say nothing; without others it asks DHCP.\r\n\
    #hostname=portcullis\r\n#interface=eth0\r\n#address=192.168.1.20/24\r\n#gateway=192.168.1.1\r\n#dns=192.168.1.1\r\n\
    #ntp=192.168.1.1\r\n";
/// The configuration that the first start puts onto the data partition. It is not in the slots: an update of the system is the same for
/// every gateway with its board, and nobody's keys are in it.
const SEED_FILE: &str = "seed.bin";
/// Labels of the boot partitions; PID 1 looks for the first. A slot does not know which of the two it is.
const LABELS: [&[u8; 11]; 2] = [b"PORTCULLIS ", b"SLOT       "];
/// What an image is made of.
#[derive(Debug, Clone)]
pub struct Options {
    /// The board.
    pub board: String,
    /// The configuration's sources.
    pub configuration: PathBuf,
    /// `gateway.cfg`.
    pub settings: Option<PathBuf>,
    /// MiB for state.
    pub data_mebibytes: usize,
    /// Whether there is a shell.
    pub rescue: bool,
    /// Where the two programs are, if they are not to be built.
    pub programs: Option<PathBuf>,
    /// The program that bakes and signs, where the one on the card cannot: a trial makes images that do not work.
    pub baker: Option<PathBuf>,
    /// The image.
    pub out: Option<PathBuf>,
    /// The version of the system.
    pub number: u64,
    /// The version of the configuration.
    pub configuration_number: u64,
    /// The public key for updates.
    pub update_key: Option<PathBuf>,
    /// The private key.
    pub sign: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            board: String::new(),
            configuration: PathBuf::new(),
            settings: None,
            data_mebibytes: 512,
            rescue: false,
            programs: None,
            baker: None,
            out: None,
            number: 1,
            configuration_number: 1,
            update_key: None,
            sign: None,
        }
    }
}

/// What came of it.
#[derive(Debug)]
pub struct Made {
    /// The image.
    pub image: PathBuf,
    /// An update to that slot, where it could be signed.
    pub update: Option<PathBuf>,
}

/// Runs the command.
pub fn run(arguments: Vec<OsString>) -> Outcome {
    let mut parser = lexopt::Parser::from_args(arguments);
    let usage = |error: &lexopt::Error| Failure::usage("image", error);
    let mut options = Options::default();
    let mut relock = false;
    while let Some(argument) = parser.next().map_err(|error| usage(&error))? {
        match argument {
            lexopt::Arg::Long("board") => {
                options.board =
                    parser.value().map_err(|error| usage(&error))?.string().map_err(|error| usage(&error))?
            }
            lexopt::Arg::Long("config") => {
                options.configuration = parser.value().map_err(|error| usage(&error))?.into()
            }
            lexopt::Arg::Long("settings") => {
                options.settings = Some(parser.value().map_err(|error| usage(&error))?.into())
            }
            lexopt::Arg::Long("programs") => {
                options.programs = Some(parser.value().map_err(|error| usage(&error))?.into());
            }
            lexopt::Arg::Long("out") => options.out = Some(parser.value().map_err(|error| usage(&error))?.into()),
            lexopt::Arg::Long("data") => {
                options.data_mebibytes =
                    parser.value().map_err(|error| usage(&error))?.parse().map_err(|error| usage(&error))?
            }
            lexopt::Arg::Long("number") => {
                options.number =
                    parser.value().map_err(|error| usage(&error))?.parse().map_err(|error| usage(&error))?
            }
            lexopt::Arg::Long("configuration-number") => {
                options.configuration_number =
                    parser.value().map_err(|error| usage(&error))?.parse().map_err(|error| usage(&error))?
            }
            lexopt::Arg::Long("update-key") => {
                options.update_key = Some(parser.value().map_err(|error| usage(&error))?.into());
            }
            lexopt::Arg::Long("sign") => options.sign = Some(parser.value().map_err(|error| usage(&error))?.into()),
            lexopt::Arg::Long("rescue") => options.rescue = true,
            lexopt::Arg::Long("relock") => relock = true,
            lexopt::Arg::Short('h') | lexopt::Arg::Long("help") => {
                println!("{HELP}");
                return Ok(());
            }
            other => return Err(usage(&other.unexpected())),
        }
    }
    let is_image = !(relock && options.board.is_empty() && options.configuration.as_os_str().is_empty());
    if is_image {
        check(&options)?;
    }
    if relock {
        packages::relock(&[boards::named("rpi3")?, boards::named("rpi2")?])?;
    }
    if is_image { make(&options).map(|_| ()) } else { Ok(()) }
}

/// Everything of the options that can be wrong, before anything is fetched; what they stand for.
fn check(options: &Options) -> Outcome<(&'static Board, Target, Option<[u8; 32]>)> {
    if options.configuration.as_os_str().is_empty() {
        return Err(Failure::new("which configuration? `--config DIR`"));
    }
    let configuration = &options.configuration;
    std::fs::read_dir(configuration).map_err(|error| Failure::file("read", configuration, &error))?;
    if let Some(settings) = &options.settings {
        let _ = read(settings)?;
    }
    if options.number == 0 || options.configuration_number == 0 {
        return Err(Failure::new("the first version is 1: `--number N`, `--configuration-number N`"));
    }
    if !(64..=65_536).contains(&options.data_mebibytes) {
        return Err(Failure::new("the partition for state has 64 to 65536 MiB"));
    }
    let board = boards::named(&options.board)?;
    let target =
        Target::named(board.target)?.ok_or_else(|| Failure::new(format!("there is no target `{}`", board.target)))?;
    Ok((board, target, signing::public_key(options)?))
}

/// Makes an image; where it is.
pub fn make(options: &Options) -> Outcome<Made> {
    let (board, target, key) = check(options)?;
    let unpacked = packages::unpack(board, options.rescue)?;
    install::for_targets(std::slice::from_ref(&target))?;
    let program = |name: &str| match &options.programs {
        Some(folder) => {
            let path = folder.join(format!("{name}-{}", target.name));
            let bytes = build::check(&path, &target)?;
            Ok((path, bytes))
        }
        None => build::program(&target, name, &[]),
    };
    let (broker, _) = program("portcullis")?;
    let (init, init_bytes) = program("portcullis-init")?;
    let image =
        options.out.clone().unwrap_or_else(|| workspace::dist_folder().join(format!("portcullis-{}.img", board.name)));
    workspace::make_folder(&workspace::dist_folder())?;

    let baker = options.baker.as_ref().unwrap_or(&broker);
    let seed = seed::make(options, &target, baker, &image)?;
    let trees = trees(board, &unpacked)?;
    let chosen = modules::choose(&modules_folder(&unpacked)?, &devices(&trees)?)?;
    let module_bytes: usize = chosen.iter().map(|module| module.bytes.len()).sum();
    let own = signing::identity(options, key.as_ref());
    let initramfs = initramfs(&read(&broker)?, &read(&init)?, &chosen, &own, shell(&unpacked)?.as_deref());
    let initramfs = compressed(&initramfs, &image)?;
    let kernel = unpacked.kernel.join(format!("boot/vmlinuz-{}", unpacked.kernel_release));
    let kernel = match board.target {
        // The boot code unpacks a 64-bit kernel; one of 32 bits unpacks itself.
        "aarch64" => compressed(&read(&kernel)?, &image)?,
        _ => read(&kernel)?,
    };
    println!(
        "kernel {} ({} KiB), initramfs {} KiB: {} modules of {} KiB, portcullis-init of {} KiB",
        unpacked.kernel_release,
        kernel.len() / 1_024,
        initramfs.len() / 1_024,
        chosen.len(),
        module_bytes / 1_024,
        init_bytes / 1_024
    );
    let contents = slot(board, &unpacked, &kernel, &initramfs, &trees)?;
    let slot = image.with_extension("slot");
    std::fs::write(&slot, &contents).map_err(|error| Failure::file("write", &slot, &error))?;
    let first = first_partition(board, options, &unpacked, &trees, seed::archive(&seed.files))?;
    disk::write(&image, &first, &contents, options.data_mebibytes)?;
    let digest = process::capture(Command::new("sha256sum").arg(&image))?;
    println!(
        "{}: {} MiB, version {}\nsha256 {}",
        image.display(),
        168 + options.data_mebibytes,
        options.number,
        digest.split(' ').next().unwrap_or_default()
    );
    let update = signing::update(options, &target, baker, &slot)?;
    if key.is_none() {
        println!(
            "note: without `--update-key` or `--sign` this gateway takes no updates: it can only be flashed again"
        );
    }
    for warning in advice::warnings(&seed.told, &seed.files, key.is_some()) {
        println!("WARNING: {warning}");
    }
    Ok(Made { image, update })
}

fn read(path: &Path) -> Outcome<Vec<u8>> {
    std::fs::read(path).map_err(|error| Failure::file("read", path, &error))
}

/// The models' device trees, under their names on the card, with what U-Boot is to find in them.
fn trees(board: &Board, unpacked: &packages::Unpacked) -> Outcome<Vec<(&'static str, Vec<u8>)>> {
    let folder = unpacked.kernel.join(format!("usr/lib/linux-image-{}", unpacked.kernel_release));
    let tree = |model: &Model| {
        let path = folder.join(model.tree);
        let tree = device_tree::for_loader(&read(&path)?, model.card).ok_or_else(|| {
            Failure::new(format!(
                "{} is no device tree, has no {} that is switched on, or settings for U-Boot already",
                path.display(),
                model.card
            ))
        })?;
        Ok((model.file, tree))
    };
    board.models.iter().map(tree).collect()
}

fn devices(trees: &[(&str, Vec<u8>)]) -> Outcome<BTreeSet<String>> {
    let mut devices = BTreeSet::new();
    for (name, tree) in trees {
        let found = device_tree::compatible(tree);
        devices.extend(found.ok_or_else(|| Failure::new(format!("{name} is no device tree")))?);
    }
    Ok(devices)
}

/// Debian moved it from one release to the next.
fn modules_folder(unpacked: &packages::Unpacked) -> Outcome<PathBuf> {
    ["lib/modules", "usr/lib/modules"]
        .into_iter()
        .map(|folder| unpacked.kernel.join(folder).join(&unpacked.kernel_release).join("kernel"))
        .find(|folder| folder.is_dir())
        .ok_or_else(|| Failure::new("the kernel package has no modules"))
}

fn shell(unpacked: &packages::Unpacked) -> Outcome<Option<Vec<u8>>> {
    unpacked.shell.as_ref().map(|folder| read(&folder.join("bin/busybox"))).transpose()
}

fn initramfs(
    broker: &[u8],
    init: &[u8],
    modules: &[modules::Chosen],
    own: &[(String, Vec<u8>)],
    shell: Option<&[u8]>,
) -> Vec<u8> {
    let mut archive = cpio::Archive::default();
    for folder in ["bin", "boot", "data", "dev", "etc", "lib", "lib/modules", "proc", "run", "sys", "tmp"] {
        archive.folder(folder, 0o755);
    }
    archive.device("dev/console", 0o600, 5, 1);
    archive.device("dev/null", 0o666, 1, 3);
    archive.file("init", 0o755, init);
    archive.file("bin/portcullis", 0o755, broker);
    archive.file("etc/hosts", 0o644, b"127.0.0.1 localhost\n::1 localhost\n");
    archive.file("etc/resolv.conf", 0o644, b"");
    if let Some(shell) = shell {
        archive.file("bin/busybox", 0o755, shell);
    }
    let order: String = modules.iter().map(|module| format!("{}.ko\n", module.name)).collect();
    archive.file("lib/modules/order", 0o644, order.as_bytes());
    for module in modules {
        archive.file(&format!("lib/modules/{}.ko", module.name), 0o644, &module.bytes);
    }
    for (name, contents) in own {
        archive.file(&format!("etc/{name}"), 0o644, contents);
    }
    archive.finish()
}

/// Compressed by gzip, which every boot code and kernel unpacks. Without name and time in it.
fn compressed(contents: &[u8], image: &Path) -> Outcome<Vec<u8>> {
    let scratch = image.with_extension("scratch");
    std::fs::write(&scratch, contents).map_err(|error| Failure::file("write", &scratch, &error))?;
    let made = process::bytes(Command::new("gzip").args(["-9", "-n", "-c"]).arg(&scratch));
    std::fs::remove_file(&scratch).map_err(|error| Failure::file("remove", &scratch, &error))?;
    made
}

fn file(name: &str, contents: impl Into<Vec<u8>>) -> fat::File {
    fat::File { name: name.to_owned(), contents: contents.into() }
}

/// A boot slot: all of it that an update replaces.
fn slot(
    board: &Board,
    unpacked: &packages::Unpacked,
    kernel: &[u8],
    initramfs: &[u8],
    trees: &[(&'static str, Vec<u8>)],
) -> Outcome<Vec<u8>> {
    let mut files = vec![
        file(boot::PARAMETERS_FILE, boot::parameters(kernel, initramfs)),
        file(board.kernel_file, kernel),
        file(boot::INITRAMFS_FILE, initramfs),
        file("kernel.txt", format!("{}\r\n", unpacked.kernel_release)),
    ];
    files.extend(trees.iter().map(|(name, tree)| file(name, tree.clone())));
    let [partition, _] = disk::SLOTS;
    // Where its partition begins differs, and nobody asks.
    fat::write(LABELS[1], 2, 0, partition.sectors, &files)
}

/// What the firmware reads.
fn firmware_configuration(board: &Board) -> String {
    let mut text = format!(
        "enable_uart=1\ndisable_splash=1\nboot_delay=0\ngpu_mem=32\ncamera_auto_detect=0\ndisplay_auto_detect=0\n\
         arm_64bit={}\n",
        u8::from(board.is_64_bit())
    );
    for Model { filter, loader, file, .. } in board.models {
        text.push_str(&format!("[{filter}]\nkernel={}\ndevice_tree={file}\n", loader.file));
    }
    text
}

/// The first partition: firmware, U-Boot, and settings for people. No update touches it.
fn first_partition(
    board: &Board,
    options: &Options,
    unpacked: &packages::Unpacked,
    trees: &[(&'static str, Vec<u8>)],
    seed: Vec<u8>,
) -> Outcome<Vec<u8>> {
    let settings = match &options.settings {
        Some(path) => read(path)?,
        None => SETTINGS.as_bytes().to_vec(),
    };
    let mut files = vec![
        file(SETTINGS_FILE, settings),
        file(SEED_FILE, seed),
        file("config.txt", firmware_configuration(board)),
        file(boot::ENVIRONMENT_FILE, boot::environment(board)),
        file(boot::SCRIPT_FILE, boot::script(board)),
        file(boot::EXTRA_FILE, boot::extra()),
    ];
    for loader in board.models.iter().map(|model| model.loader).collect::<BTreeSet<_>>() {
        let path = unpacked.loader.join("usr/lib/u-boot").join(loader.folder).join("u-boot.bin");
        files.push(file(loader.file, read(&path)?));
    }
    for part in board.firmware.iter().chain(["bootcode.bin"].iter()) {
        files.push(file(part, read(&unpacked.firmware.join("usr/lib/raspi-firmware").join(part))?));
    }
    files.extend(trees.iter().map(|(name, tree)| file(name, tree.clone())));
    let start = u32::try_from(disk::FIRST.start).unwrap_or(0);
    fat::write(LABELS[0], 1, start, disk::FIRST.sectors, &files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_names_the_release_of_debian() {
        assert!(HELP.contains(&format!("Debian {} has now", packages::SUITE)));
    }

    #[test]
    fn what_cannot_become_an_image_is_refused_before_anything_is_fetched() {
        let configuration = workspace::root().join("config/tutorial");
        let good = Options { board: "rpi3".to_owned(), configuration, ..Options::default() };
        assert!(check(&good).is_ok());
        let absent = || Some(PathBuf::from("/absent"));
        for (bad, why) in [
            (Options { configuration: PathBuf::new(), ..good.clone() }, "--config"),
            (Options { configuration: "/absent".into(), ..good.clone() }, "/absent"),
            (Options { board: "rpi5".to_owned(), ..good.clone() }, "Ethernet"),
            (Options { settings: absent(), ..good.clone() }, "/absent"),
            (Options { number: 0, ..good.clone() }, "--number"),
            (Options { data_mebibytes: 1, ..good.clone() }, "MiB"),
            (Options { sign: absent(), ..good.clone() }, "/absent"),
        ] {
            let said = check(&bad).unwrap_err().to_string();
            assert!(said.contains(why), "{said}");
        }
    }
}
