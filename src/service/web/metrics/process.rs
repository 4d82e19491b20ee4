//! What the system knows of this process: proc(5). What it does not say is left out.

use super::exposition::{Exposition, Kind, Number};
use crate::platform::kernel_bytes;
use stats_alloc::INSTRUMENTED_SYSTEM;

/// Clock ticks of a second in `/proc/self/stat`: `USER_HZ`, the same on every machine that this program is built for.
const TICKS_PER_SECOND: u64 = 100;

/// Writes the families that Prometheus' own libraries have too, and the peak of memory.
pub(super) fn write(text: &mut Exposition) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    for (field, name, help) in [
        ("VmRSS", "process_resident_memory_bytes", "Memory in use, bytes."),
        ("VmHWM", "process_resident_memory_peak_bytes", "Most memory that was in use, bytes."),
        ("VmSize", "process_virtual_memory_bytes", "Address space, bytes."),
    ] {
        if let Some(bytes) = kernel_bytes(&status, field) {
            text.single(name, Kind::Gauge, help, Number::Count(bytes));
        }
    }
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    if let Some(ticks) = ticks(&stat) {
        let seconds = Number::Milliseconds(ticks * 1_000 / TICKS_PER_SECOND);
        text.single("process_cpu_seconds_total", Kind::Counter, "Processor time, seconds.", seconds);
    }
    let allocated = INSTRUMENTED_SYSTEM.stats();
    for (name, help, count) in [
        ("portcullis_allocations_total", "Allocations from the heap.", allocated.allocations),
        ("portcullis_reallocations_total", "Allocations that were resized.", allocated.reallocations),
        ("portcullis_deallocations_total", "Allocations that were given back.", allocated.deallocations),
    ] {
        text.single(name, Kind::Counter, help, Number::Count(count as u64));
    }
    // On a 32-bit machine both may have come around; their difference has not.
    let bytes = allocated.bytes_allocated.wrapping_sub(allocated.bytes_deallocated);
    text.single("portcullis_heap_bytes", Kind::Gauge, "Bytes allocated from the heap.", Number::Count(bytes as u64));
    if let Ok(descriptors) = std::fs::read_dir("/proc/self/fd") {
        // One of them is the folder's.
        let open = (descriptors.count() as u64).saturating_sub(1);
        text.single("process_open_fds", Kind::Gauge, "Open descriptors.", Number::Count(open));
    }
}

/// `utime` and `stime`, fields 14 and 15: the name in field 2 may hold anything, and ends with the last bracket.
fn ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.get(stat.rfind(')')? + 1..)?.split_ascii_whitespace().skip(11);
    let (user, system): (u64, u64) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(user + system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_found_behind_any_name() {
        let stat = "42 (a ) (b) S 1 2 3 4 5 6 7 8 9 10 150 50 13 14";
        assert_eq!(ticks(stat), Some(200));
        assert_eq!(ticks(""), None);
    }
}
