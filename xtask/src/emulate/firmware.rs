//! The boot code's part: what starts is what is on the card, and which slot starts is what the card says.
//!
//! So the bytes that are shipped are what is tested, and not what they were made of. Real boot code does the same from the same
//! files; nothing of it runs here.

use std::path::{Path, PathBuf};

use crate::image::{INITRAMFS_FILE, PARAMETERS_FILE, SELECTOR_FILE, disk, fat};
use crate::process::{Failure, Outcome};

/// What a slot gives to the machine.
#[derive(Debug)]
pub struct Boot {
    /// The kernel, still compressed.
    pub kernel: PathBuf,
    /// The initramfs.
    pub initramfs: PathBuf,
    /// The device tree of the first model.
    pub tree: PathBuf,
    /// The kernel's parameters, without consoles.
    pub parameters: String,
}

/// Reads the card as boot code does; puts the files into `folder`.
pub fn read(card: &Path, folder: &Path) -> Outcome<Boot> {
    let selector = text(&disk::read(card, 1)?, SELECTOR_FILE)?;
    let number = selected(&selector).ok_or_else(|| Failure::new(format!("{SELECTOR_FILE} names no partition")))?;
    let slot = disk::read(card, number)?;
    let configuration = text(&slot, "config.txt")?;
    let setting = |name: &str| configuration.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let file = |name: Option<&str>| -> Outcome<PathBuf> {
        let name = name.ok_or_else(|| Failure::new("config.txt names no kernel or device tree"))?;
        let path = folder.join(name);
        std::fs::write(&path, contents(&slot, name)?).map_err(|error| Failure::file("write", &path, &error))?;
        Ok(path)
    };
    let parameters = text(&slot, PARAMETERS_FILE)?;
    let kept: Vec<&str> = parameters.split_whitespace().filter(|word| !word.starts_with("console=")).collect();
    println!("boot code: partition {number}: {}", kept.join(" "));
    Ok(Boot {
        kernel: file(setting("kernel="))?,
        initramfs: file(Some(INITRAMFS_FILE))?,
        tree: file(setting("device_tree="))?,
        parameters: kept.join(" "),
    })
}

/// The partition that starts without a `tryboot` flag.
fn selected(selector: &str) -> Option<usize> {
    let always = selector.split("[tryboot]").next()?;
    always.lines().find_map(|line| line.strip_prefix("boot_partition="))?.trim().parse().ok()
}

fn contents(partition: &[u8], name: &str) -> Outcome<Vec<u8>> {
    fat::read(partition, name)
        .ok_or_else(|| Failure::new(format!("the card has no {name} where boot code looks for it")))
}

fn text(partition: &[u8], name: &str) -> Outcome<String> {
    Ok(String::from_utf8_lossy(&contents(partition, name)?).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slot_of_an_ordinary_start_is_chosen() {
        assert_eq!(selected("[all]\nboot_partition=2\n[tryboot]\nboot_partition=3\n"), Some(2));
        assert_eq!(selected("[tryboot]\nboot_partition=3\n"), None);
        assert_eq!(selected(""), None);
    }
}
