//! What the system says a process has spent, and latencies.

use crate::Failure;
use serde_json::{Value, json};
use std::time::Duration;

/// CPU time of all threads of a process that still run, by the scheduler's own clock (`/proc/PID/task/*/schedstat`).
pub fn cpu(pid: u32) -> Result<Duration, Failure> {
    let mut nanoseconds = 0;
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let Ok(line) = std::fs::read_to_string(task?.path().join("schedstat")) else { continue };
        nanoseconds +=
            line.split(' ').next().and_then(|word| word.parse::<u64>().ok()).ok_or("schedstat has no time")?;
    }
    Ok(Duration::from_nanos(nanoseconds))
}

/// Resident bytes of a process.
pub fn resident(pid: u32) -> Result<u64, Failure> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).ok_or("no VmRSS")?;
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse()?;
    Ok(kilobytes * 1_024)
}

/// Times, each in nanoseconds.
#[derive(Default)]
pub struct Latencies(Vec<u64>);

impl Latencies {
    /// Adds one.
    pub fn add(&mut self, nanoseconds: u64) {
        self.0.push(nanoseconds);
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Microseconds at some ranks.
    pub fn summary(&mut self) -> Value {
        self.0.sort_unstable();
        let at = |rank: f64| {
            let last = self.0.len().saturating_sub(1);
            self.0.get((last as f64 * rank).round() as usize).map(|nanoseconds| *nanoseconds as f64 / 1e3)
        };
        json!({ "p50": at(0.5), "p99": at(0.99), "p99.9": at(0.999), "max": at(1.0) })
    }
}
