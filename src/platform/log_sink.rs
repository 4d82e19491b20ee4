//! Log lines to standard error: one line an event, for people or as JSON, control characters escaped, with a priority where
//! journald reads them.
//!
//! Each room may say so much a second; what is beyond that is counted and told in one line, so that a flood costs neither the
//! disk nor the line that matters. Errors are always said: no peer causes them.

use super::SystemClock;
use super::log_levels::{Levels, ROOMS, room_of};
use core::fmt::{self, Write as _};
use core::sync::atomic::{AtomicU64, Ordering};
use log::{Level, LevelFilter, Log, Metadata, Record};
use std::io::Write as _;
use std::sync::{Mutex, PoisonError, RwLock};

/// Bytes of one line; a longer one is cut.
const LINE_BYTES_MAX: usize = 1_024;

/// Lines of one room in one second.
const LINES_MAX: u32 = 50;
/// The same where details were asked for.
const DETAILED_LINES_MAX: u32 = 2_000;

/// How lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Time, level, text.
    #[default]
    Human,
    /// An object a line: `time`, `level`, `room`, `message`.
    Json,
}

/// The sink behind the `log` facade.
struct LogSink {
    format: LogFormat,
    journal: bool,
    /// Now, and what the process began with.
    levels: RwLock<(Levels, Levels)>,
    flood: Mutex<Flood>,
    left_out: AtomicU64,
}

/// What was said in the current second.
#[derive(Default)]
struct Flood {
    second: u64,
    said: [u32; ROOMS.len() + 1],
    left_out: [u32; ROOMS.len() + 1],
}

static SINK: std::sync::OnceLock<LogSink> = std::sync::OnceLock::new();

/// How much is said, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Logging {
    /// How much.
    pub levels: Levels,
    /// How.
    pub format: LogFormat,
}

impl From<Levels> for Logging {
    fn from(levels: Levels) -> Self {
        Self { levels, format: LogFormat::default() }
    }
}

/// Installs the sink for this process. A second call changes only the levels.
pub fn install(logging: impl Into<Logging>) {
    let Logging { levels, format } = logging.into();
    let sink = SINK.get_or_init(|| LogSink {
        format,
        journal: std::env::var_os("JOURNAL_STREAM").is_some(),
        levels: RwLock::new((levels, levels)),
        flood: Mutex::default(),
        left_out: AtomicU64::new(0),
    });
    // Fails only if a sink is there already.
    let _ = log::set_logger(sink);
    begin_with(levels);
}

/// Changes how much each room says, now and when [`say_more`] has come around.
pub fn begin_with(levels: Levels) {
    if let Some(sink) = SINK.get() {
        sink.levels.write().unwrap_or_else(PoisonError::into_inner).1 = levels;
    }
    set_levels(levels);
}

/// Changes how much each room says, from the next line on.
pub fn set_levels(levels: Levels) {
    if let Some(sink) = SINK.get() {
        sink.levels.write().unwrap_or_else(PoisonError::into_inner).0 = levels;
        log::set_max_level(levels.max());
    }
}

/// How much each room says now.
#[must_use]
pub fn levels() -> Levels {
    SINK.get().map_or(LevelFilter::Info.into(), |sink| sink.levels().0)
}

/// One step more is said by all rooms: `debug`, then `trace`, then what the process began with.
pub fn say_more() -> Levels {
    let info = Levels::from(LevelFilter::Info);
    let (now, first) = SINK.get().map_or((info, info), LogSink::levels);
    let next = if now == Levels::from(LevelFilter::Trace) {
        first
    } else if now == Levels::from(LevelFilter::Debug) {
        LevelFilter::Trace.into()
    } else {
        LevelFilter::Debug.into()
    };
    set_levels(next);
    next
}

/// Lines that were left out since start.
#[must_use]
pub fn lines_left_out() -> u64 {
    SINK.get().map_or(0, |sink| sink.left_out.load(Ordering::Relaxed))
}

/// Says how many lines were left out, once their second is over: to be called now and then.
pub fn tell_left_out() {
    if let Some(sink) = SINK.get() {
        let second = SystemClock::unix().0;
        let ended = sink.flood().turn_to(second);
        sink.tell(ended);
    }
}

impl Flood {
    /// Whether one more line of this room may be said, at most `lines_max` in this second.
    fn take(&mut self, room: usize, lines_max: u32) -> bool {
        let (Some(said), Some(left_out)) = (self.said.get_mut(room), self.left_out.get_mut(room)) else { return true };
        let may = *said < lines_max;
        *(if may { said } else { left_out }) += 1;
        may
    }

    /// Begins another second; returns what the one before left out, by room.
    fn turn_to(&mut self, second: u64) -> Option<[u32; ROOMS.len() + 1]> {
        if second == self.second {
            return None;
        }
        let left_out = self.left_out;
        *self = Self { second, ..Self::default() };
        left_out.iter().any(|count| *count > 0).then_some(left_out)
    }
}

impl LogSink {
    fn levels(&self) -> (Levels, Levels) {
        *self.levels.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn flood(&self) -> std::sync::MutexGuard<'_, Flood> {
        self.flood.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, left_out: Option<[u32; ROOMS.len() + 1]>) {
        for (room, count) in left_out.into_iter().flatten().enumerate().filter(|(_, count)| *count > 0) {
            let room = ROOMS.get(room).copied().unwrap_or("the rest");
            self.say(Level::Warn, room, format_args!("{count} lines of {room} were left out in one second"));
        }
    }

    fn say(&self, level: Level, room: &str, text: fmt::Arguments<'_>) {
        let mut line = Line::default();
        line.write(self.format, self.journal, level, room, text);
        // Nowhere to report a failure to.
        let _ = std::io::stderr().lock().write_all(line.bytes.as_slice());
    }
}

impl Log for LogSink {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= self.levels().0.of(metadata.target())
    }

    fn log(&self, record: &Record<'_>) {
        let level = self.levels().0.of(record.target());
        if record.level() > level {
            return;
        }
        let room = room_of(record.target());
        let lines_max = if level >= LevelFilter::Debug { DETAILED_LINES_MAX } else { LINES_MAX };
        let (ended, may_say) = {
            let mut flood = self.flood();
            let ended = flood.turn_to(SystemClock::unix().0);
            (ended, record.level() == Level::Error || flood.take(room.unwrap_or(ROOMS.len()), lines_max))
        };
        self.tell(ended);
        if may_say {
            let name = room.and_then(|room| ROOMS.get(room)).copied().unwrap_or("portcullis");
            self.say(record.level(), name, *record.args());
        } else {
            self.left_out.fetch_add(1, Ordering::Relaxed);
        }
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

/// One line on its way. There is always room for how it ends.
#[derive(Default)]
struct Line {
    bytes: heapless::Vec<u8, LINE_BYTES_MAX>,
    json: bool,
}

/// What closes a line of JSON.
const JSON_END: &[u8] = b"\"}\n";

impl Line {
    fn write(&mut self, format: LogFormat, journal: bool, level: Level, room: &str, text: fmt::Arguments<'_>) {
        // A text that is too long is cut where it is: writing fails, and nothing of it follows.
        let _ = match (format, journal) {
            (LogFormat::Human, true) => write!(self, "<{}>{text}", priority(level)),
            (LogFormat::Human, false) => write!(self, "{} {level:<5} {text}", SystemClock::unix()),
            (LogFormat::Json, _) => self.write_json(journal, level, room, text),
        };
        // Both fit, see `push`.
        let _ = self.bytes.extend_from_slice(if self.json { JSON_END } else { b"\n" });
    }

    fn write_json(&mut self, journal: bool, level: Level, room: &str, text: fmt::Arguments<'_>) -> fmt::Result {
        if journal {
            write!(self, "<{}>", priority(level))?;
        }
        let name = ["error", "warn", "info", "debug", "trace"].get(level as usize - 1).copied().unwrap_or_default();
        let time = SystemClock::unix();
        write!(self, "{{\"time\":\"{time}\",\"level\":\"{name}\",\"room\":\"{room}\",\"message\":\"")?;
        self.json = true;
        write!(self, "{text}")
    }

    fn push(&mut self, bytes: &[u8]) -> fmt::Result {
        if self.bytes.len() + bytes.len() > LINE_BYTES_MAX - JSON_END.len() {
            return Err(fmt::Error);
        }
        self.bytes.extend_from_slice(bytes).map_err(|_| fmt::Error)
    }
}

impl fmt::Write for Line {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let mut encoded = [0; 4];
        for character in text.chars() {
            match character {
                '"' | '\\' if self.json => self.push(&[b'\\', character as u8])?,
                character if character.is_control() && self.json => {
                    // Control characters are below U+00A0. RFC 8259 §7.
                    let digits = b"0123456789abcdef";
                    let code = character as usize;
                    let digit = |shift: u32| digits.get((code >> shift) & 15).copied().unwrap_or(b'0');
                    self.push(&[b'\\', b'u', b'0', b'0', digit(4), digit(0)])?;
                }
                character if character.is_control() => {
                    let mut escaped = heapless::Vec::<u8, 10>::new();
                    for part in character.escape_unicode() {
                        escaped.extend_from_slice(part.encode_utf8(&mut encoded).as_bytes()).map_err(|_| fmt::Error)?;
                    }
                    self.push(&escaped)?;
                }
                character => self.push(character.encode_utf8(&mut encoded).as_bytes())?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(format: LogFormat, journal: bool, text: fmt::Arguments<'_>) -> String {
        let mut line = Line::default();
        line.write(format, journal, Level::Warn, "net", text);
        String::from_utf8(line.bytes.to_vec()).unwrap()
    }

    #[test]
    fn a_line_stays_one_line() {
        let said = line(LogFormat::Human, true, format_args!("a\nb\u{1b}c"));
        assert_eq!(said, "<4>a\\u{a}b\\u{1b}c\n");
        let long = line(LogFormat::Human, false, format_args!("{}", "ü".repeat(5_000)));
        assert!(long.len() <= LINE_BYTES_MAX && long.ends_with("ü\n"));
    }

    #[test]
    fn a_line_of_json_is_an_object_whatever_is_said() {
        for text in ["plain", "\"\\\n\r\u{1b}\u{7f}\u{85}ü\u{2028}", &"\"".repeat(3_000), &"\u{1}".repeat(3_000)] {
            let said = line(LogFormat::Json, false, format_args!("{text}"));
            assert!(said.len() <= LINE_BYTES_MAX && said.ends_with("}\n"), "{said}");
            let object: serde_json::Value = serde_json::from_str(&said).unwrap();
            let message = object["message"].as_str().unwrap();
            assert!(text.starts_with(message) && !message.is_empty());
            assert!(text.len() > 1_000 || message == text);
            assert_eq!((&object["level"], &object["room"]), (&"warn".into(), &"net".into()));
        }
        assert!(line(LogFormat::Json, true, format_args!("x")).starts_with("<4>{"));
    }

    #[test]
    fn a_flood_of_one_room_is_counted_and_leaves_the_others_alone() {
        let mut flood = Flood::default();
        assert_eq!(flood.turn_to(7), None);
        assert_eq!((0..100).filter(|_| flood.take(2, LINES_MAX)).count(), LINES_MAX as usize);
        assert!(flood.take(3, LINES_MAX));
        assert_eq!(flood.turn_to(7), None, "the second is not over");
        let left_out = flood.turn_to(8).unwrap();
        assert_eq!((left_out[2], left_out[3]), (50, 0));
        assert_eq!(flood.turn_to(9), None);
        assert!(flood.take(2, LINES_MAX));
    }
}
