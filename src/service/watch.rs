//! Files that may change while the broker runs: looked at once a second, read again when they are not as they were.
//!
//! By status calls, not by inotify: they see what a renamed folder, a replaced link, a remounted card and a file that is
//! not there yet have in common, and cost microseconds. The configuration's own file is one of them; SIGHUP has it read again
//! whether it has changed or not.

use crate::net::Change;
use crate::platform::{self, ServiceManager};
use async_io::Timer;
use async_signal::{Signal, Signals};
use smol::channel::Sender;
use smol::future::FutureExt as _;
use smol::stream::StreamExt as _;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

/// How often files are looked at.
const PERIOD: Duration = Duration::from_secs(1);
/// Most files of one folder that count.
const FILES_MAX: usize = 256;

/// What tells one state of some files from another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fingerprint(Vec<Option<State>>);

/// Device, inode, size, and time of change in seconds and nanoseconds of a file that is there.
type State = (u64, u64, u64, i64, i64);

impl Fingerprint {
    /// The state of these files now; of a folder, that of the files in it.
    #[must_use]
    pub fn of(paths: &[PathBuf]) -> Self {
        let mut states = Vec::new();
        for path in paths {
            states.push(state(path));
            if let Ok(entries) = std::fs::read_dir(path) {
                let mut files: Vec<PathBuf> = entries.take(FILES_MAX).flatten().map(|entry| entry.path()).collect();
                files.sort();
                states.extend(files.iter().map(|file| state(file)));
            }
        }
        Self(states)
    }
}

fn state(path: &Path) -> Option<State> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino(), metadata.size(), metadata.mtime(), metadata.mtime_nsec()))
}

/// Some files, and what to do when they change.
pub struct Watched {
    paths: Vec<PathBuf>,
    /// As they were when they were read last.
    read: Fingerprint,
    /// As they were when they were looked at last.
    seen: Fingerprint,
    look: Box<dyn FnMut(bool) -> Vec<Change>>,
}

impl Watched {
    /// Watches `paths`, files or folders, which are as they were read last. `reload` reads them again; what is wrong with
    /// them it says itself, and changes nothing then.
    pub fn new(paths: Vec<PathBuf>, mut reload: impl FnMut() -> Vec<Change> + 'static) -> Self {
        Self::every_second(paths, move |changed| if changed { reload() } else { Vec::new() })
    }

    /// Watches what changes with time too: `look` is called each second, and told whether `paths` have changed.
    pub fn every_second(paths: Vec<PathBuf>, look: impl FnMut(bool) -> Vec<Change> + 'static) -> Self {
        let read = Fingerprint::of(&paths);
        Self { paths, seen: read.clone(), read, look: Box::new(look) }
    }

    /// Compares the files with what they were. They count as changed once they are no longer being written: half of a list of
    /// users would put the others out.
    fn look(&mut self) -> Vec<Change> {
        let now = Fingerprint::of(&self.paths);
        let changed = now == self.seen && now != self.read;
        self.seen = now;
        if changed {
            self.read = self.seen.clone();
        }
        (self.look)(changed)
    }
}

/// Why a configuration is read again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// SIGHUP.
    Signal,
    /// Its file is another one, or has other contents.
    File,
}

/// A configuration that has been read again, complete.
pub struct Reloaded {
    /// What is watched from now on in place of what was.
    pub watched: Vec<Watched>,
    /// What the loop is to do.
    pub change: Change,
}

/// The file of a configuration, which is read again when it changes and on SIGHUP.
pub struct Source {
    paths: Vec<PathBuf>,
    /// As it was when it was read last.
    read: Fingerprint,
    /// As it was when it was looked at last.
    seen: Fingerprint,
    reload: Box<dyn FnMut(Trigger) -> Option<Reloaded>>,
}

impl Source {
    /// `read` is the fingerprint of `path` from before it was read. `reload` reads it again; what is wrong with it it says
    /// itself.
    pub fn new(path: PathBuf, read: Fingerprint, reload: impl FnMut(Trigger) -> Option<Reloaded> + 'static) -> Self {
        Self { paths: vec![path], seen: read.clone(), read, reload: Box::new(reload) }
    }

    /// Reads the configuration again if there is a reason. A file that is written in place looks different from one second to
    /// the next: it is read once it no longer does, so that its first half is not taken for a mistake.
    fn look(&mut self, trigger: Option<Trigger>) -> Option<Reloaded> {
        let now = Fingerprint::of(&self.paths);
        let settled = now == self.seen;
        self.seen = now.clone();
        let trigger = trigger.or_else(|| (settled && now != self.read).then_some(Trigger::File))?;
        self.read = now;
        (self.reload)(trigger)
    }
}

/// Waits until it is time to look at files again, or for SIGHUP.
async fn wait(hangups: &mut Signals) -> Option<Trigger> {
    let period = async {
        Timer::after(PERIOD).await;
        None
    };
    let hangup = async {
        match hangups.next().await {
            Some(_) => Some(Trigger::Signal),
            None => core::future::pending().await,
        }
    };
    hangup.or(period).await
}

/// From now on SIGHUP does not end the program: [`watch`] hears of it.
///
/// # Errors
/// The system has no room for a signal's handler.
pub fn hangups() -> io::Result<Signals> {
    Signals::new([Signal::Hup])
}

/// SIGTERM and SIGINT as a stream, see [`stop_on`].
///
/// # Errors
/// As [`hangups`].
pub fn terminations() -> io::Result<Signals> {
    Signals::new([Signal::Term, Signal::Int])
}

/// Tells the loop by name of each signal to stop, and `manager` that it stops. A task of its own, because the stream costs a system
/// call each time it is asked.
pub async fn stop_on(mut signals: Signals, stops: Sender<&'static str>, manager: Rc<ServiceManager>) {
    while let Some(Ok(signal)) = signals.next().await {
        let name = if signal == Signal::Int { "SIGINT" } else { "SIGTERM" };
        manager.stopping();
        if stops.send(name).await.is_err() {
            return;
        }
    }
}

/// Watches files that no configuration replaces; ends when nobody wants to hear of changes any more.
pub async fn watch_files(mut watched: Vec<Watched>, changes: Sender<Change>) {
    loop {
        Timer::after(PERIOD).await;
        for change in watched.iter_mut().flat_map(Watched::look).collect::<Vec<_>>() {
            if changes.send(change).await.is_err() {
                return;
            }
        }
    }
}

/// Watches for ever; ends when nobody wants to hear of changes any more.
pub async fn watch(
    mut watched: Vec<Watched>,
    mut source: Option<Source>,
    mut hangups: Signals,
    changes: Sender<Change>,
) {
    loop {
        let trigger = wait(&mut hangups).await;
        // Not only the next line is to say that some are missing.
        platform::tell_left_out();
        if source.is_none() && trigger.is_some() {
            log::info!("SIGHUP: there is no configuration file to read again");
        }
        let reloaded = source.as_mut().and_then(|source| source.look(trigger));
        let found = match reloaded {
            Some(reloaded) => {
                watched = reloaded.watched;
                vec![reloaded.change]
            }
            None => watched.iter_mut().flat_map(Watched::look).collect(),
        };
        for change in found {
            if changes.send(change).await.is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::rc::Rc;

    #[test]
    fn a_file_that_is_being_written_is_read_once_it_has_settled() {
        let folder = std::env::temp_dir().join(format!("portcullis-source-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("site.blob");
        let times = Rc::new(Cell::new(0));
        let counted = Rc::clone(&times);
        let read = Fingerprint::of(std::slice::from_ref(&file));
        let reload = move |_| {
            counted.set(counted.get() + 1);
            None
        };
        let mut source = Source::new(file.clone(), read, reload);
        let mut look = |trigger| {
            source.look(trigger);
            times.get()
        };
        assert_eq!((look(None), look(None)), (0, 0));
        for part in ["a", "ab", "abc"] {
            std::fs::write(&file, part).unwrap();
            assert_eq!(look(None), 0, "{part}");
        }
        assert_eq!((look(None), look(None), look(None)), (1, 1, 1));
        assert_eq!((look(Some(Trigger::Signal)), look(None)), (2, 2));
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!((look(None), look(None), look(None)), (2, 3, 3));
    }

    #[test]
    fn what_is_replaced_added_or_taken_away_is_seen_once() {
        let folder = std::env::temp_dir().join(format!("portcullis-watch-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("tls.crt");
        let mut watched = Watched::new(vec![folder.clone(), file.clone()], || vec![Change::Trust]);
        assert!(watched.look().is_empty());
        for content in ["one", "other"] {
            std::fs::write(&file, content).unwrap();
            assert!(watched.look().is_empty(), "{content} may be half of it");
            assert_eq!(watched.look().len(), 1, "{content}");
            assert!(watched.look().is_empty(), "{content}");
        }
        // As certificate tools do it: the same size, the same time perhaps, another file.
        let mut looks = || watched.look().len() + watched.look().len();
        std::fs::write(folder.join("new"), "third").unwrap();
        looks();
        std::fs::rename(folder.join("new"), &file).unwrap();
        assert_eq!(looks(), 1);
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(looks(), 1);
        assert_eq!(looks(), 0);
    }
}
