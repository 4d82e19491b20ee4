//! What the operating system gives: clocks, entropy, and the place where log lines go.

mod clock;
mod embassy_clock;
mod log_levels;
mod log_sink;
mod notify;

pub use clock::{Clock, SystemClock};
pub use embassy_clock::SimulatedClock;
pub use log_levels::Levels;
pub use log_sink::{
    LogFormat, Logging, begin_with, install, levels, lines_left_out, say_more, set_levels, tell_left_out,
};
pub use notify::ServiceManager;

/// Whether the wall clock was set at start from a clock that runs without power.
#[must_use]
pub fn has_clock_chip() -> bool {
    let Ok(chips) = std::fs::read_dir("/sys/class/rtc") else { return false };
    chips.flatten().any(|chip| std::fs::read(chip.path().join("hctosys")).is_ok_and(|text| text.trim_ascii() == b"1"))
}

/// A seed from the operating system's entropy.
///
/// # Errors
/// The system has none to give.
pub fn seed() -> std::io::Result<u64> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(std::io::Error::other)?;
    Ok(u64::from_ne_bytes(bytes))
}
