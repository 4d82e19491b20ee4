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

/// Bytes that a line `NAME: N kB` of `/proc/meminfo` or `/proc/self/status` says; `None` where there is no such line. proc(5).
#[must_use]
pub fn kernel_bytes(text: &str, name: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let kibibytes: u64 = rest.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kibibytes * 1_024)
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

#[cfg(test)]
mod tests {
    use super::kernel_bytes;

    #[test]
    fn a_line_is_found_by_its_whole_name() {
        let status = "Name:\tVmRSS\nVmRSSx:\t 1 kB\nVmRSS:\t  512 kB\n";
        assert_eq!(kernel_bytes(status, "VmRSS"), Some(524_288));
        assert_eq!(kernel_bytes("VmRSS:\t  512\n", "VmRSS"), None);
        assert_eq!(kernel_bytes(status, "Vm"), None);
    }
}
