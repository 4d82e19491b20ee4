//! What the operating system gives: clocks, entropy, and the place where log lines go.

mod clock;
mod log_sink;

pub use clock::{Clock, SystemClock};
pub use log_sink::{LogSink, install};

/// A seed from the operating system's entropy.
///
/// # Errors
/// The system has none to give.
pub fn seed() -> std::io::Result<u64> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(std::io::Error::other)?;
    Ok(u64::from_ne_bytes(bytes))
}
