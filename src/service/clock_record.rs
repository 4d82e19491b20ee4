//! The last time that the wall clock was believed, kept in a file: a gateway whose clock starts somewhere in the past, for
//! want of a battery, must not take an expired certificate for a good one.
//!
//! The file is small, written anew once an hour and at the end, and never while the clock is young: only after it has gone
//! on for ten minutes without being set. What it says is a lower bound and nothing else.
//!
//! **Invariant:** a record from more than ten years after this release is not believed, so that a clock that once stood in
//! 2099 does not lock everybody out. A smaller mistake does, until the clock has caught up or the file is removed; the log
//! says so at each start.

use crate::platform::{Clock, SystemClock};
use crate::time::{Instant, Now, RELEASED, Steadiness, UnixTime};
use async_io::Timer;
use core::cell::RefCell;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

/// Name of the file in the state folder.
const FILE: &str = "last-known-time";
/// Longest file that is looked at, bytes.
const FILE_BYTES_MAX: u64 = 64;
/// How long after this release it may still run.
const LIFETIME_SECONDS: u64 = 10 * 365 * 24 * 3_600;
/// Between two writes: flash wears out.
const WRITE_MILLISECONDS: u64 = 3_600_000;
/// Between two looks at the clock.
const LOOK: Duration = Duration::from_secs(60);

/// The record of one gateway.
pub struct ClockRecord {
    file: Option<PathBuf>,
    recorded: Option<UnixTime>,
    steadiness: Steadiness,
    written: Option<Instant>,
    has_failed: bool,
}

impl ClockRecord {
    /// Reads what was recorded in the state folder; `None`: nothing is kept. Says in the log what is wrong with it, and when
    /// the clock stands before it.
    #[must_use]
    pub fn open(state_folder: Option<&Path>, now: UnixTime) -> Self {
        let file = state_folder.map(|folder| folder.join(FILE));
        let recorded = file.as_deref().and_then(read);
        let record = Self { file, recorded, steadiness: Steadiness::default(), written: None, has_failed: false };
        if now >= RELEASED
            && now < record.floor()
            && let Some(file) = &record.file
        {
            log::warn!(
                "the clock shows {now}, but stood at {} before: it counts as not set until then. If it is right, remove {} and \
                 start again",
                record.floor(),
                file.display()
            );
        }
        record
    }

    /// Before this time the clock cannot be right.
    #[must_use]
    pub fn floor(&self) -> UnixTime {
        self.recorded.map_or(RELEASED, |recorded| recorded.max(RELEASED))
    }

    /// Whether the time now is one to record.
    fn is_believed(&mut self, now: Now) -> bool {
        self.steadiness.look(now);
        self.steadiness.is_steady(now.instant) && now.unix > self.floor() && now.unix <= latest()
    }

    /// Whether it is time to write the time now.
    fn is_due(&mut self, now: Now) -> bool {
        let rests = self.written.is_some_and(|at| now.instant.milliseconds_since(at) < WRITE_MILLISECONDS);
        self.is_believed(now) && !rests
    }

    fn note(&mut self, now: Now, outcome: io::Result<()>) {
        self.written = Some(now.instant);
        match (outcome, &self.file) {
            (Err(error), Some(file)) if !self.has_failed => {
                log::warn!("{}: {error}; after a start with a wrong clock its age will not be noticed", file.display());
                self.has_failed = true;
            }
            _ => {}
        }
    }

    /// Records the time as long as the broker runs.
    pub async fn keep(record: Rc<RefCell<Self>>, clock: SystemClock) {
        let Some(file) = record.borrow().file.clone() else { return };
        loop {
            let now = clock.now();
            if record.borrow_mut().is_due(now) {
                let file = file.clone();
                let outcome = smol::unblock(move || write(&file, now.unix)).await;
                record.borrow_mut().note(now, outcome);
            }
            Timer::after(LOOK).await;
        }
    }

    /// Records the time at the end.
    pub fn finish(&mut self, now: Now) {
        if self.is_believed(now)
            && let Some(file) = self.file.clone()
        {
            self.note(now, write(&file, now.unix));
        }
    }
}

const fn latest() -> UnixTime {
    RELEASED.plus_seconds(LIFETIME_SECONDS)
}

fn read(file: &Path) -> Option<UnixTime> {
    let text = match fs::metadata(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Ok(metadata) if metadata.len() > FILE_BYTES_MAX => Err(io::ErrorKind::FileTooLarge.into()),
        found => found.and_then(|_| fs::read_to_string(file)),
    };
    let why = match text.map(|text| UnixTime::from_rfc_3339(text.trim())) {
        Ok(Some(time)) if time <= latest() => return Some(time),
        Ok(Some(time)) => format!("{time} cannot be"),
        Ok(None) => "it is not a time".to_owned(),
        Err(error) => error.to_string(),
    };
    log::warn!("{}: {why}; not believed", file.display());
    None
}

/// Replaces the file, so that a loss of power leaves the old one or the new one.
fn write(file: &Path, time: UnixTime) -> io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let new = file.with_extension("new");
    let mut written = File::create(&new)?;
    writeln!(written, "{time}")?;
    written.sync_all()?;
    fs::rename(&new, file)?;
    File::open(folder)?.sync_all()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const NOW: UnixTime = RELEASED.plus_seconds(1_000_000);
    const MINUTE: u64 = 60;

    struct State(PathBuf);

    impl State {
        fn new(name: &str) -> Self {
            Self(std::env::temp_dir().join(format!("portcullis-clock-{name}-{}", std::process::id())))
        }

        fn open(&self) -> ClockRecord {
            ClockRecord::open(Some(&self.0), NOW)
        }

        fn says(&self) -> Option<String> {
            fs::read_to_string(self.0.join(FILE)).ok()
        }

        fn say(&self, text: &str) {
            fs::create_dir_all(&self.0).unwrap();
            fs::write(self.0.join(FILE), text).unwrap();
        }
    }

    impl Drop for State {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    /// Some seconds after the start, at which the wall clock showed `start`.
    fn at(start: UnixTime, seconds: u64) -> Now {
        Now { instant: Instant::from_milliseconds(seconds * 1_000), unix: start.plus_seconds(seconds) }
    }

    #[test]
    fn the_time_is_written_once_an_hour_after_it_has_been_steady() {
        let mut record = State::new("hour").open();
        let mut due = Vec::new();
        for minute in 0..200 {
            let now = at(NOW, minute * MINUTE);
            if record.is_due(now) {
                due.push(minute);
                record.note(now, Ok(()));
            }
        }
        assert_eq!(due, [10, 70, 130, 190]);
    }

    #[test]
    fn a_clock_that_was_just_set_is_not_recorded() {
        let mut record = State::new("set").open();
        assert!(!record.is_believed(at(NOW, 0)));
        assert!(record.is_believed(at(NOW, 10 * MINUTE)));
        let far = NOW.plus_seconds(100_000_000);
        assert!(!record.is_believed(at(far, 11 * MINUTE)));
        assert!(!record.is_believed(at(far, 20 * MINUTE)));
        // Set right again before anybody believed it.
        assert!(!record.is_believed(at(NOW, 20 * MINUTE)));
        assert!(record.is_believed(at(NOW, 30 * MINUTE)));
        for never in [UnixTime(0), UnixTime(RELEASED.0 - 10_000), latest()] {
            record.steadiness = Steadiness::default();
            assert!(!record.is_believed(at(never, 0)));
            assert!(!record.is_believed(at(never, 60 * MINUTE)), "{never}");
        }
    }

    #[test]
    fn what_was_recorded_is_the_floor_of_the_next_start() {
        let state = State::new("floor");
        let mut record = state.open();
        assert_eq!(record.floor(), RELEASED);
        record.finish(at(NOW, 0));
        assert_eq!(state.says(), None, "too early to be believed");
        record.finish(at(NOW, 10 * MINUTE));
        assert_eq!(state.says().unwrap(), format!("{}\n", NOW.plus_seconds(600)));
        assert_eq!(state.open().floor(), NOW.plus_seconds(600));
        assert!(!state.0.join(FILE).with_extension("new").exists());
        // A clock that stands before it is not recorded: the floor never sinks.
        let mut next = state.open();
        next.is_believed(at(RELEASED, 0));
        next.finish(at(RELEASED, 10 * MINUTE));
        assert_eq!(state.open().floor(), NOW.plus_seconds(600));
    }

    #[test]
    fn a_record_that_cannot_be_right_is_not_believed() {
        let state = State::new("absurd");
        for text in ["2099-01-01T00:00:00Z", "", "yesterday", "\0\0\0\0", &"2030-01-01T00:00:00Z ".repeat(9)] {
            state.say(text);
            assert_eq!(state.open().floor(), RELEASED, "{text:?}");
        }
        state.say("2001-01-01T00:00:00Z");
        assert_eq!(state.open().floor(), RELEASED, "before this release");
        state.say(&latest().to_string());
        assert_eq!(state.open().floor(), latest());
        assert_eq!(ClockRecord::open(None, NOW).floor(), RELEASED);
    }

    #[test]
    fn a_folder_that_cannot_be_written_changes_nothing() {
        let state = State::new("unwritable");
        fs::write(&state.0, "a file, not a folder").unwrap();
        let mut record = state.open();
        record.finish(at(NOW, 0));
        record.finish(at(NOW, 10 * MINUTE));
        assert!(record.has_failed);
        assert_eq!(record.floor(), RELEASED);
        fs::remove_file(&state.0).unwrap();
    }
}
