//! Which kernel modules an image needs, and in which order they are loaded.
//!
//! Debian's kernels have nearly everything as a module. A board's are those that say that they drive what its device tree
//! names, some that no tree names, and what all of these depend on. Each says so itself, in its section `.modinfo`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::{self, Failure, Outcome};

/// What no device tree names: file systems, USB and PCI devices, what sits behind a bus, and the emulator's.
const ALWAYS: [&str; 24] = [
    "bcm2835_wdt",
    "ext4",
    "vfat",
    "nls_cp437",
    "nls_ascii",
    "nls_utf8",
    "crc32c_generic",
    "mmc_block",
    "smsc95xx",
    "lan78xx",
    "cdc_ether",
    "cdc_ncm",
    "r8152",
    "r8153_ecm",
    "asix",
    "ax88179_178a",
    "ax88796b",
    "smsc",
    "microchip",
    "broadcom",
    "virtio_pci",
    "virtio_blk",
    "virtio_net",
    "evdev",
];
/// The emulator's watchdog and power button.
const EMULATED: [&str; 2] = ["i6300esb", "gpio_keys"];
/// Beginnings of names of what a gateway has no use for: screens, sound, cameras, radio.
const NEVER: [&str; 10] =
    ["vc4", "v3d", "vchiq", "hci_uart", "bluetooth", "brcmfmac", "snd", "drm", "bcm2835_v4l2", "panel"];

/// What a module says of itself.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Module {
    path: PathBuf,
    aliases: Vec<String>,
    depends: Vec<String>,
}

/// A module that is chosen: its name and its bytes, not compressed.
#[derive(Debug)]
pub struct Chosen {
    /// As in `lsmod`.
    pub name: String,
    /// An ELF file.
    pub bytes: Vec<u8>,
}

/// The modules below `folder` for machines with these `compatible` strings, in the order of loading.
pub fn choose(folder: &Path, compatible: &BTreeSet<String>) -> Outcome<Vec<Chosen>> {
    let mut files = Vec::new();
    find(folder, &mut files)?;
    let mut modules = BTreeMap::new();
    for path in files {
        let Some(name) = module_name(&path) else { continue };
        let facts = information(&contents(&path)?);
        let mut module = Module { path, ..Module::default() };
        for (key, value) in facts {
            match key.as_str() {
                "alias" => module.aliases.push(value),
                "depends" => module.depends.extend(list(&value, ',')),
                "softdep" => module.depends.extend(before(&value)),
                _ => {}
            }
        }
        modules.insert(name, module);
    }
    let order = sort(&modules, compatible);
    let mut chosen = Vec::new();
    for name in order {
        if let Some(module) = modules.get(&name) {
            chosen.push(Chosen { bytes: contents(&module.path)?, name });
        }
    }
    for wanted in ["ext4", "vfat", "virtio_blk"] {
        if !chosen.iter().any(|module| module.name == wanted) {
            return Err(Failure::new(format!("the kernel package has no module {wanted} below {}", folder.display())));
        }
    }
    Ok(chosen)
}

/// Names of what is needed, each behind what it depends on.
fn sort(modules: &BTreeMap<String, Module>, compatible: &BTreeSet<String>) -> Vec<String> {
    let is_wanted = |name: &str, module: &Module| {
        let is_named = ALWAYS.contains(&name) || EMULATED.contains(&name);
        is_named || module.aliases.iter().any(|alias| drives(alias, compatible))
    };
    let mut order = Vec::new();
    let mut seen = BTreeSet::new();
    // No recursion: the names to visit, and those whose dependencies have been visited.
    let mut stack: Vec<(String, bool)> = modules
        .iter()
        .rev()
        .filter(|(name, module)| is_wanted(name, module))
        .map(|(name, _)| (name.clone(), false))
        .collect();
    while let Some((name, is_ready)) = stack.pop() {
        if is_ready {
            order.push(name);
            continue;
        }
        let Some(module) = modules.get(&name) else { continue };
        if NEVER.iter().any(|beginning| name.starts_with(beginning)) || !seen.insert(name.clone()) {
            continue;
        }
        stack.push((name, true));
        stack.extend(module.depends.iter().map(|needed| (needed.clone(), false)));
    }
    order
}

/// Whether an alias such as `of:N*T*Cbrcm,bcm2835-sdhostC*` is for one of the devices.
fn drives(alias: &str, compatible: &BTreeSet<String>) -> bool {
    let Some((_, device)) = alias.strip_prefix("of:").and_then(|alias| alias.split_once("T*C")) else { return false };
    let device = device.strip_suffix('*').unwrap_or(device);
    compatible.contains(device) || device.strip_suffix('C').is_some_and(|device| compatible.contains(device))
}

/// What a `softdep` wants loaded before: the names between `pre:` and `post:`.
fn before(value: &str) -> Vec<String> {
    let names = value.split("post:").next().unwrap_or_default().split("pre:").nth(1).unwrap_or_default();
    // A generic implementation is what every machine has.
    let name = |name: &str| if name == "crc32c" { "crc32c_generic".to_owned() } else { name.replace('-', "_") };
    names.split_whitespace().map(name).collect()
}

fn list(value: &str, separator: char) -> Vec<String> {
    value.split(separator).filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect()
}

fn find(folder: &Path, found: &mut Vec<PathBuf>) -> Outcome {
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).map_err(|error| Failure::file("read", &folder, &error))?;
        for path in entries.filter_map(Result::ok).map(|entry| entry.path()) {
            if path.is_dir() && !path.is_symlink() {
                folders.push(path);
            } else if module_name(&path).is_some() {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(())
}

fn module_name(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    let stem = name.strip_suffix(".xz").unwrap_or(name).strip_suffix(".ko")?;
    Some(stem.replace('-', "_"))
}

fn contents(path: &Path) -> Outcome<Vec<u8>> {
    if path.extension().is_some_and(|extension| extension == "xz") {
        return process::bytes(Command::new("xz").arg("-dc").arg(path));
    }
    std::fs::read(path).map_err(|error| Failure::file("read", path, &error))
}

/// The pairs of the section `.modinfo`. The kernel's modules have it whole near their beginning; a reader of sections would find the
/// same with more words, so this one looks at the section headers only.
fn information(elf: &[u8]) -> Vec<(String, String)> {
    let Some(section) = section(elf, b".modinfo") else { return Vec::new() };
    let pair = |part: &[u8]| {
        let text = String::from_utf8_lossy(part).into_owned();
        text.split_once('=').map(|(key, value)| (key.to_owned(), value.to_owned()))
    };
    section.split(|byte| *byte == 0).filter_map(pair).collect()
}

/// A section of a little-endian ELF file by its name.
fn section<'a>(elf: &'a [u8], wanted: &[u8]) -> Option<&'a [u8]> {
    let number = |at: usize, bytes: usize| {
        elf.get(at..at + bytes)?
            .iter()
            .rev()
            .try_fold(0_usize, |sum, byte| sum.checked_mul(256)?.checked_add(usize::from(*byte)))
    };
    let is_64 = match elf.get(..6)? {
        [0x7F, b'E', b'L', b'F', 2, 1] => true,
        [0x7F, b'E', b'L', b'F', 1, 1] => false,
        _ => return None,
    };
    let word = if is_64 { 8 } else { 4 };
    let table = number(if is_64 { 0x28 } else { 0x20 }, word)?;
    let sizes = if is_64 { 0x3A } else { 0x2E };
    let (each, count, names) = (number(sizes, 2)?, number(sizes + 2, 2)?, number(sizes + 4, 2)?);
    let body = |index: usize| {
        let header = table.checked_add(index.checked_mul(each)?)?;
        let at = number(header + if is_64 { 0x18 } else { 0x10 }, word)?;
        elf.get(at..at.checked_add(number(header + if is_64 { 0x20 } else { 0x14 }, word)?)?)
    };
    let names = body(names)?;
    (0..count).find_map(|index| {
        let name = names.get(number(table + index * each, 4)?..)?.split(|byte| *byte == 0).next()?;
        if name == wanted { body(index) } else { None }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(aliases: &[&str], depends: &[&str]) -> Module {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        Module { path: PathBuf::new(), aliases: owned(aliases), depends: owned(depends) }
    }

    #[test]
    fn a_board_gets_its_drivers_behind_what_they_need() {
        let modules = BTreeMap::from([
            ("genet".to_owned(), module(&["of:N*T*Cbrcm,bcm2711-genet-v5C*"], &["mdio_bcm_unimac"])),
            ("mdio_bcm_unimac".to_owned(), module(&[], &["mdio"])),
            ("mdio".to_owned(), module(&[], &["genet"])),
            ("vc4".to_owned(), module(&["of:N*T*Cbrcm,bcm2711-vc5"], &[])),
            ("other".to_owned(), module(&["of:N*T*Cbrcm,bcm2711-genet-v"], &[])),
        ]);
        let compatible = ["brcm,bcm2711-genet-v5", "brcm,bcm2711-vc5"].map(str::to_owned).into();
        assert_eq!(sort(&modules, &compatible), ["mdio", "mdio_bcm_unimac", "genet"], "a circle ends too");
    }

    #[test]
    fn what_is_wanted_before_is_found() {
        assert_eq!(before("pre: crc32c mdio-bcm post: x"), ["crc32c_generic", "mdio_bcm"]);
        assert_eq!(before("post: x"), [""; 0]);
        assert_eq!(module_name(Path::new("a/phy-generic.ko.xz")).unwrap(), "phy_generic");
        assert_eq!(module_name(Path::new("modules.order")), None);
    }

    #[test]
    fn what_is_no_module_says_nothing() {
        assert!(information(b"").is_empty());
        assert!(information(&[0x7F, b'E', b'L', b'F', 2, 1, 0, 0]).is_empty());
    }
}
