//! Files that may change while the broker runs: looked at once a second, read again when they are not as they were.
//!
//! By status calls, not by inotify: they see what a renamed folder, a replaced link, a remounted card and a file that is
//! not there yet have in common, and cost microseconds.

use crate::net::Change;
use async_io::Timer;
use smol::channel::Sender;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often files are looked at.
const PERIOD: Duration = Duration::from_secs(1);
/// Most files of one folder that count.
const FILES_MAX: usize = 256;

/// What tells one state of some files from another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Fingerprint(Vec<Option<State>>);

/// Device, inode, size, and time of change in seconds and nanoseconds of a file that is there.
type State = (u64, u64, u64, i64, i64);

impl Fingerprint {
    /// The state of these files now; of a folder, that of the files in it.
    fn of(paths: &[PathBuf]) -> Self {
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
    fingerprint: Fingerprint,
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
        let fingerprint = Fingerprint::of(&paths);
        Self { paths, fingerprint, look: Box::new(look) }
    }

    /// Compares the files with what they were.
    fn look(&mut self) -> Vec<Change> {
        let now = Fingerprint::of(&self.paths);
        let changed = now != self.fingerprint;
        self.fingerprint = now;
        (self.look)(changed)
    }
}

/// Watches for ever; ends when nobody wants to hear of changes any more.
pub async fn watch(mut watched: Vec<Watched>, changes: Sender<Change>) {
    loop {
        Timer::after(PERIOD).await;
        for one in &mut watched {
            for change in one.look() {
                if changes.send(change).await.is_err() {
                    return;
                }
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn what_is_replaced_added_or_taken_away_is_seen_once() {
        let folder = std::env::temp_dir().join(format!("portcullis-watch-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("tls.crt");
        let mut watched = Watched::new(vec![folder.clone(), file.clone()], || vec![Change::Trust]);
        assert!(watched.look().is_empty());
        for content in ["one", "other"] {
            std::fs::write(&file, content).unwrap();
            assert_eq!(watched.look().len(), 1, "{content}");
            assert!(watched.look().is_empty(), "{content}");
        }
        // As certificate tools do it: the same size, the same time perhaps, another file.
        std::fs::write(folder.join("new"), "third").unwrap();
        watched.look();
        std::fs::rename(folder.join("new"), &file).unwrap();
        assert_eq!(watched.look().len(), 1);
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(watched.look().len(), 1);
        assert!(watched.look().is_empty());
    }
}
