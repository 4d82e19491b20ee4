//! The boards that an image can be made for.
//!
//! A new one is one more row in [`BOARDS`] and a profile in `board/`; what its kernel needs follows from its device tree.

use crate::process::{Failure, Outcome};

/// What the boot code and the kernel of a board are called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Board {
    /// As in `board/NAME.yaml`.
    pub name: &'static str,
    /// As in `targets.rs`.
    pub target: &'static str,
    /// What Debian's packages of this board's kernel end with.
    pub kernel_flavour: &'static str,
    /// Debian's name of the architecture.
    pub architecture: &'static str,
    /// What a kernel is called on the card.
    pub kernel_file: &'static str,
    /// Where its U-Boots put kernels, an address.
    pub kernel_address: &'static str,
    /// The models that it may be.
    pub models: &'static [Model],
    /// The parts of the VideoCore's firmware that it starts with.
    pub firmware: &'static [&'static str],
}

/// A model of a board.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    /// The firmware's filter for it in `config.txt`.
    pub filter: &'static str,
    /// Its device tree in Debian's package of the kernel.
    pub tree: &'static str,
    /// What U-Boot calls that, in `fdtfile`.
    pub loader_tree: &'static str,
    /// What it is called on the card.
    pub file: &'static str,
    /// The controller that the SD card is at: a path in that device tree.
    pub card: &'static str,
    /// Its U-Boot.
    pub loader: Loader,
    /// Its serial console, as Linux calls it.
    pub console: &'static str,
}

/// A U-Boot of Debian's package.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Loader {
    /// A folder of `usr/lib/u-boot`.
    pub folder: &'static str,
    /// What it is called on the card.
    pub file: &'static str,
}

impl Board {
    /// Whether its kernel has 64 bits.
    pub fn is_64_bit(&self) -> bool {
        self.target == "aarch64"
    }
}

const OLDER: [&str; 2] = ["start.elf", "fixup.dat"];
const SDHOST: &str = "/soc/mmc@7e202000";
const MINI_UART: &str = "ttyS1,115200";
const U_BOOT_64: Loader = Loader { folder: "rpi_arm64", file: "u-boot.bin" };
const U_BOOT_PI_3: Loader = Loader { folder: "rpi_3_32b", file: "u-boot3.bin" };
const PI_4: [&str; 2] = ["start4.elf", "fixup4.dat"];

const BOARDS: [Board; 4] = [
    Board {
        name: "rpi3",
        target: "aarch64",
        kernel_flavour: "arm64",
        architecture: "arm64",
        kernel_file: "kernel8.img",
        kernel_address: "0x00080000",
        models: &[
            Model {
                filter: "pi3",
                tree: "broadcom/bcm2837-rpi-3-b.dtb",
                loader_tree: "broadcom/bcm2837-rpi-3-b.dtb",
                file: "rpi3b.dtb",
                card: SDHOST,
                loader: U_BOOT_64,
                console: MINI_UART,
            },
            Model {
                filter: "pi3+",
                tree: "broadcom/bcm2837-rpi-3-b-plus.dtb",
                loader_tree: "broadcom/bcm2837-rpi-3-b-plus.dtb",
                file: "rpi3bp.dtb",
                card: SDHOST,
                loader: U_BOOT_64,
                console: MINI_UART,
            },
        ],
        firmware: &OLDER,
    },
    Board {
        name: "rpi4",
        target: "aarch64",
        kernel_flavour: "arm64",
        architecture: "arm64",
        kernel_file: "kernel8.img",
        kernel_address: "0x00080000",
        models: &[Model {
            filter: "pi4",
            tree: "broadcom/bcm2711-rpi-4-b.dtb",
            loader_tree: "broadcom/bcm2711-rpi-4-b.dtb",
            file: "rpi4b.dtb",
            card: "/emmc2bus/mmc@7e340000",
            loader: U_BOOT_64,
            console: MINI_UART,
        }],
        firmware: &PI_4,
    },
    Board {
        name: "zero2w",
        target: "aarch64",
        kernel_flavour: "arm64",
        architecture: "arm64",
        kernel_file: "kernel8.img",
        kernel_address: "0x00080000",
        models: &[Model {
            filter: "pi02",
            tree: "broadcom/bcm2837-rpi-zero-2-w.dtb",
            loader_tree: "broadcom/bcm2837-rpi-zero-2.dtb",
            file: "zero2w.dtb",
            card: SDHOST,
            loader: U_BOOT_64,
            console: MINI_UART,
        }],
        firmware: &OLDER,
    },
    Board {
        name: "rpi2",
        target: "armv7",
        kernel_flavour: "armmp",
        architecture: "armhf",
        kernel_file: "kernel7.img",
        kernel_address: "0x00080000",
        models: &[
            // Also the 2B of version 1.2, whose processor is that of the 3B.
            Model {
                filter: "pi2",
                tree: "bcm2836-rpi-2-b.dtb",
                loader_tree: "bcm2836-rpi-2-b.dtb",
                file: "rpi2b.dtb",
                card: SDHOST,
                loader: Loader { folder: "rpi_2", file: "u-boot2.bin" },
                console: "ttyAMA0,115200",
            },
            Model {
                filter: "pi3",
                tree: "bcm2837-rpi-3-b.dtb",
                loader_tree: "bcm2837-rpi-3-b.dtb",
                file: "rpi3b.dtb",
                card: SDHOST,
                loader: U_BOOT_PI_3,
                console: MINI_UART,
            },
            Model {
                filter: "pi3+",
                tree: "bcm2837-rpi-3-b-plus.dtb",
                loader_tree: "bcm2837-rpi-3-b-plus.dtb",
                file: "rpi3bp.dtb",
                card: SDHOST,
                loader: U_BOOT_PI_3,
                console: MINI_UART,
            },
        ],
        firmware: &OLDER,
    },
];

/// The board with this name, or why there is no image for it.
pub fn named(name: &str) -> Outcome<&'static Board> {
    if let Some(board) = BOARDS.iter().find(|board| board.name == name) {
        return Ok(board);
    }
    if matches!(name, "rpi5" | "pi5") {
        return Err(Failure::new(
            "Debian's kernel has no drivers for Ethernet and USB of the Raspberry Pi 5: run Raspberry Pi OS there, and the \
             broker as its package",
        ));
    }
    let names: Vec<&str> = BOARDS.iter().map(|board| board.name).collect();
    Err(Failure::new(format!("there is no image for the board `{name}`; there is for {}", names.join(", "))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace;

    #[test]
    fn every_board_has_a_profile_for_its_machine_and_names_that_boot_code_reads() {
        for board in &BOARDS {
            let profile =
                std::fs::read_to_string(workspace::root().join(format!("board/{}.yaml", board.name))).unwrap();
            assert!(profile.contains(&format!("target: {}-", board.target)), "{}", board.name);
            for model in board.models {
                assert!(model.file.len() <= 12, "{}", model.file);
                assert!(model.loader.file.len() <= 12, "{}", model.loader.file);
                assert_eq!(model.loader.folder == "rpi_arm64", board.is_64_bit());
            }
        }
    }

    #[test]
    fn a_board_that_cannot_work_is_refused_with_the_reason() {
        assert!(named("rpi5").unwrap_err().to_string().contains("Ethernet"));
        assert!(named("pdp11").unwrap_err().to_string().contains("rpi3, rpi4, zero2w, rpi2"));
    }
}
