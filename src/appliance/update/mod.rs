//! Updates: a signed file that the broker has received becomes the system or the configuration, or is refused and nothing has
//! changed.
//!
//! What is new runs on trial (a configuration with other network settings from a start of the machine on), and is kept only when
//! the broker has been ready on it for a while. Until then, whatever goes wrong (a kernel that panics, a broker that ends, power
//! that goes) leads back to what was in force. A kernel that hangs does so too once PID 1 has opened the watchdog; before, and on a
//! Raspberry Pi also where the kernel dies before PID 1 has loaded the watchdog's driver, somebody has to pull the plug.
//!
//! - `offer`: what was received, and whether it is to be believed. `payload`: reading it piece by piece.
//! - `system`, `configuration`: writing each to the slot that is not in force, and putting it in force.
//! - `trial`: whether what is new can serve. `outcome`: what is remembered of it. `start`: what is found when the machine starts.
//! - `site`: where everything is, and taking one. `task`: the order of it all.
//!
//! **Invariant:** no time is involved but how long a trial may take: a gateway without a clock takes updates.

mod configuration;
mod offer;
mod outcome;
mod payload;
mod refusal;
mod site;
mod start;
mod system;
mod task;
mod trial;

#[cfg(test)]
mod tests;

pub use configuration::{VERSION, note_version, version};
pub use site::Site;
pub use start::begin;
pub use task::Update;

pub use crate::bundle::{BLOB, CONFIGURATION_BYTES_MAX as BLOB_BYTES_MAX};

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;

/// Is told how far the payload has come, after each step. Its error stops the update: a test does so, where power would.
trait Progress {
    /// So many bytes of the payload are written.
    ///
    /// # Errors
    /// It ends here.
    fn advanced(&self, bytes: u64) -> io::Result<()>;
}

/// Puts a text in the place of a file in one step. For folders that only PID 1 writes to: what it left there when the power went is
/// written over.
///
/// # Errors
/// Of the file system; what was there is there still.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let (folder, new) = (path.parent().ok_or(io::ErrorKind::InvalidInput)?, path.with_extension("new"));
    let mut file = File::create(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    File::open(folder)?.sync_all()
}
