//! Log lines to standard error: one line an event, control characters escaped, with a priority where journald reads them.

use super::SystemClock;
use core::fmt::{self, Write as _};
use log::{Level, LevelFilter, Log, Metadata, Record};
use std::io::Write as _;

/// Bytes of one line; a longer one is cut.
const LINE_BYTES_MAX: usize = 1_024;

/// The sink behind the `log` facade.
#[derive(Clone, Copy, Debug)]
pub struct LogSink {
    level: LevelFilter,
    journal: bool,
}

/// Installs the sink for this process. A second call changes only the level.
pub fn install(level: LevelFilter) {
    let sink = LogSink { level, journal: std::env::var_os("JOURNAL_STREAM").is_some() };
    // Fails only if a sink is there already, in a test.
    let _ = log::set_boxed_logger(Box::new(sink));
    log::set_max_level(level);
}

impl Log for LogSink {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let ours = metadata.target().starts_with("portcullis");
        // Libraries speak about single records and wakers: of interest only when asked for everything.
        metadata.level() <= self.level && (ours || metadata.level() <= Level::Warn || self.level == LevelFilter::Trace)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let mut line = Line::default();
        let formatted = if self.journal {
            write!(line, "<{}>", priority(record.level()))
        } else {
            write!(line, "{} {:<5} ", SystemClock::unix(), record.level())
        };
        let _ = formatted.and_then(|()| write!(line, "{}", record.args()));
        line.finish();
        // Nowhere to report a failure to.
        let _ = std::io::stderr().lock().write_all(line.bytes.as_slice());
    }

    fn flush(&self) {}
}

/// Priorities of syslog, as `sd-daemon(3)` numbers them.
const fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

#[derive(Default)]
struct Line {
    bytes: heapless::Vec<u8, LINE_BYTES_MAX>,
}

impl Line {
    fn finish(&mut self) {
        if self.bytes.push(b'\n').is_err()
            && let Some(last) = self.bytes.last_mut()
        {
            *last = b'\n';
        }
    }
}

impl fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut encoded = [0; 4];
        for character in text.chars() {
            if character.is_control() {
                for escaped in character.escape_unicode() {
                    self.bytes
                        .extend_from_slice(escaped.encode_utf8(&mut encoded).as_bytes())
                        .map_err(|_| fmt::Error)?;
                }
            } else {
                self.bytes.extend_from_slice(character.encode_utf8(&mut encoded).as_bytes()).map_err(|_| fmt::Error)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_stays_one_line() {
        let mut line = Line::default();
        write!(line, "a\nb\u{1b}c").unwrap();
        line.finish();
        assert_eq!(line.bytes.as_slice(), b"a\\u{a}b\\u{1b}c\n");
        let mut line = Line::default();
        let _ = line.write_str(&"x".repeat(5_000));
        line.finish();
        assert_eq!(line.bytes.len(), LINE_BYTES_MAX);
        assert_eq!(line.bytes.last(), Some(&b'\n'));
    }
}
