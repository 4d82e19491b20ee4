//! The durable log: what must outlive the process, as checksummed records on a disk that may lose power at any moment.
//!
//! The broker appends records to a [`Journal`]; batches of them go to a [`Log`], which knows files and nothing of MQTT. At start
//! [`recover`] reads the log into an [`Image`], from which the broker's tables are filled. What is live is written anew from
//! time to time, and the segments from before are used again.
//!
//! A plain reading of the files never depends on the order in which a disk wrote what was not synced: a batch is written only
//! after the one before it is on the disk.

pub mod disk;
mod frame;
pub mod image;
mod journal;
mod log;
#[cfg(test)]
pub mod memory;
pub mod record;
mod recovery;
mod rewrite;
mod segment;
#[cfg(test)]
mod tests;

pub use disk::{Disk, Folder};
pub use image::Image;
pub use journal::{Batch, Body, Journal, NoRoom, Room, Urgency};
pub use log::{Log, Sizes};
pub use record::Record;
pub use recovery::{Damage, Recovered, RecoveryError, Report, inspect, recover};
pub use rewrite::rewrite;
pub use segment::{FORMAT, Segment};
