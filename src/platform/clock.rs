//! The clocks of the system, behind a trait so that a simulation has its own.

use crate::time::{Instant, Now, UnixTime};
use std::time::SystemTime;

/// Reads both clocks.
pub trait Clock {
    /// The monotonic and the wall clock, as they are now.
    fn now(&self) -> Now;
}

/// The clocks of the operating system; the monotonic one starts with this value.
#[derive(Clone, Copy, Debug)]
pub struct SystemClock {
    start: std::time::Instant,
}

impl SystemClock {
    /// A clock whose monotonic zero is now.
    #[must_use]
    pub fn start() -> Self {
        Self { start: std::time::Instant::now() }
    }

    /// The wall clock alone. A clock before 1970 reads as 1970.
    #[must_use]
    pub fn unix() -> UnixTime {
        UnixTime(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |elapsed| elapsed.as_secs()))
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Now {
        let milliseconds = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        Now { instant: Instant::from_milliseconds(milliseconds), unix: Self::unix() }
    }
}
