//! Why an update is not taken, in words for whoever sent it.

use crate::bundle;
use crate::config::BlobError;
use core::fmt;
use std::io::{self, ErrorKind};

/// Why an update is not taken. What was in force is in force.
#[derive(Debug)]
pub enum Refusal {
    /// There is no file, or it is not one that the broker may have left.
    NoFile(io::Error),
    /// The image has no key for updates.
    NoKey,
    /// The header, or its signature.
    Header(bundle::Fault),
    /// The file is shorter or longer than its header says.
    Length {
        /// Bytes that it should have.
        expected: u64,
        /// Bytes that it has.
        found: u64,
    },
    /// It is for another board.
    Board {
        /// For which.
        named: String,
        /// The one that this is.
        ours: String,
    },
    /// It is not newer than what was confirmed.
    NotNewer {
        /// Its version.
        offered: u64,
        /// The one that it must exceed.
        confirmed: u64,
    },
    /// The system that runs is on trial itself.
    OnTrial,
    /// The card has no second place for it.
    NoSlots,
    /// The data partition does not keep what is written.
    NotKept,
    /// It does not fit into its slot.
    TooLarge {
        /// Bytes of the payload.
        bytes: u64,
        /// Bytes of the slot.
        room: u64,
    },
    /// The payload is not the one that was signed.
    Digest,
    /// What is read back from the card is not what was written to it.
    ReadBack,
    /// The payload is no configuration that this system reads.
    Blob(BlobError),
    /// The payload is no configuration.
    Contents(&'static str),
    /// Something could not be done.
    Io {
        /// What.
        what: &'static str,
        /// Why not.
        error: io::Error,
    },
}

impl Refusal {
    /// For `map_err`: what could not be done.
    pub fn io(what: &'static str) -> impl Fn(io::Error) -> Self {
        move |error| Self::Io { what, error }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoFile(error) => write!(f, "what the broker has received cannot be opened: {error}"),
            Self::NoKey => f.write_str("this image takes no updates: it was made without a key for them"),
            Self::Header(fault) => write!(f, "{fault}"),
            Self::Length { expected, found } => write!(f, "it has {found} bytes, and its header says {expected}"),
            Self::Board { named, ours } => write!(f, "it is for the board {named}, and this is {ours}"),
            Self::NotNewer { offered, confirmed } => write!(f, "version {offered} is not newer than {confirmed}"),
            Self::OnTrial => f.write_str("the system that runs is on trial itself, and must be kept first"),
            Self::NoSlots => f.write_str("the card has no second slot that could be found"),
            Self::NotKept => f.write_str("the data partition cannot be written"),
            Self::TooLarge { bytes, room } => write!(f, "it has {bytes} bytes, and its slot holds {room}"),
            Self::Digest => f.write_str("it is damaged: its SHA-256 digest is not the one that was signed"),
            Self::ReadBack => {
                f.write_str("the card does not give back what was written to it: it is worn out or broken")
            }
            Self::Blob(error) => write!(f, "its configuration cannot be used: {error}"),
            Self::Contents(why) => f.write_str(why),
            Self::Io { what, error } if error.kind() == ErrorKind::StorageFull => {
                write!(f, "{what}: no room left on the data partition")
            }
            Self::Io { what, error } => write!(f, "{what}: {error}"),
        }
    }
}

impl core::error::Error for Refusal {}
