//! Why a crossing ends, as the log and the status show it.
//!
//! **Invariant:** none of these is the loss of a message: who has it keeps it, and sends it again.

use super::local::LocalFault;
use super::upstream::UpstreamFault;
use core::fmt;

/// How long an upstream that answers otherwise may leave a message unacknowledged.
pub const ACKNOWLEDGEMENT_SECONDS: u64 = 60;

/// Why a crossing has ended.
#[derive(Debug)]
pub enum Fault {
    /// The upstream is gone.
    Upstream(UpstreamFault),
    /// This broker is gone, or the bridge's session is.
    Local(LocalFault),
    /// The upstream takes messages, and says so of none.
    Unacknowledged,
    /// The upstream cannot take a message now: what it says.
    Later(u8),
    /// This broker could not take a message: what it says.
    Withheld(u8),
    /// The upstream has sent more without waiting for acknowledgements than can be kept apart.
    TooMany,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Upstream(fault) => fault.fmt(f),
            Self::Local(fault) => fault.fmt(f),
            Self::Unacknowledged => {
                write!(f, "the upstream has not acknowledged a message for {ACKNOWLEDGEMENT_SECONDS} s")
            }
            Self::Later(reason) => write!(f, "the upstream cannot take a message now: 0x{reason:02X}"),
            Self::Withheld(reason) => write!(f, "this broker cannot take a message now: 0x{reason:02X}"),
            Self::TooMany => f.write_str("the upstream sends more at once than it was allowed to"),
        }
    }
}

impl From<UpstreamFault> for Fault {
    fn from(fault: UpstreamFault) -> Self {
        Self::Upstream(fault)
    }
}

impl From<LocalFault> for Fault {
    fn from(fault: LocalFault) -> Self {
        Self::Local(fault)
    }
}
