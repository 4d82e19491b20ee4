//! Kernel modules: those that the image has, in the order in which the image tells them.
//!
//! `xtask` sorts them when it makes the image, by what each says it depends on; here is nothing to find out. A driver without
//! its device takes some KiB and no time.

use super::mounts;
use rustix::io::Errno;
use std::fs::File;

/// File names below the folder, one a line, in the order in which they are loaded.
const ORDER: &str = "/lib/modules/order";
const FOLDER: &str = "/lib/modules";

/// Loads all of them. What fails is said, and the next one tried.
pub fn load() {
    let Some(order) = mounts::text(ORDER) else {
        log::error!("{ORDER} cannot be read: no driver beyond the kernel's own");
        return;
    };
    let mut loaded = 0_usize;
    for name in order.lines().filter(|line| !line.is_empty()) {
        let path = format!("{FOLDER}/{name}");
        let outcome = File::open(&path).map_err(|error| error.to_string()).and_then(|file| {
            match rustix::system::finit_module(&file, c"", 0) {
                Ok(()) | Err(Errno::EXIST) => Ok(()),
                // The driver looked for its hardware and found none.
                Err(Errno::NODEV) => Ok(()),
                Err(error) => Err(error.to_string()),
            }
        });
        match outcome {
            Ok(()) => loaded += 1,
            Err(fault) => log::warn!("module {name}: {fault}"),
        }
    }
    log::info!("{loaded} kernel modules");
}
