//! What the machine says of itself, where this broker is the service of an image: PID 1 writes it to the file that
//! `PORTCULLIS_MACHINE` names, and replaces it whole at each change.
//!
//! In: lines `name=value`, at most 8 KiB of them. Out: a [`MachineReport`], for documents, pages and health. The file is in memory
//! and read anew whenever it is shown. Names that are not known are passed over, so that either side may be older.
//!
//! **Invariants:** what is held is bounded, and has no control character. Nothing that concerns a client decides by it.

use super::watch::Fingerprint;
use crate::bundle::UpdateState;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::PathBuf;

/// Names the file.
const VARIABLE: &str = "PORTCULLIS_MACHINE";
/// Bytes of the file that are read.
const FILE_BYTES_MAX: u64 = 8 * 1024;
/// Notices that are kept, those that stand first.
const NOTICES_MAX: usize = 32;

/// Where the machine says it.
#[derive(Clone, Debug)]
pub struct Machine {
    path: PathBuf,
}

/// The last update.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UpdateReport {
    /// How it stands.
    pub state: UpdateState,
    /// Why, or how far; empty where nothing is to be said.
    pub text: String,
    /// The version of its bundle.
    pub version: Option<u64>,
}

/// All that the machine says. A text is empty where it says nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MachineReport {
    /// The board that the image is for.
    pub board: String,
    /// What people call the image.
    pub release: String,
    /// The image's number, which grows.
    pub version: Option<u64>,
    /// The system slot that runs, `a` or `b`.
    pub slot: String,
    /// Whether this slot runs for a trial.
    pub is_trial: bool,
    /// `kept`, `read-only` or `absent`.
    pub data: String,
    /// The slot of the configuration in force, `a` or `b`, or `image`.
    pub configuration: String,
    /// The number of that configuration.
    pub configuration_version: Option<u64>,
    /// Addresses, or why there are none.
    pub network: String,
    /// Who has set the clock.
    pub clock: String,
    /// The last update.
    pub update: UpdateReport,
    /// What a person must be told, `AREA: TEXT`, at most 32.
    pub notices: Vec<String>,
}

impl Machine {
    /// The one that this process runs on, if it speaks.
    #[must_use]
    pub fn from_environment() -> Option<Self> {
        let path = std::env::var_os(VARIABLE).filter(|path| !path.is_empty())?;
        Some(Self { path: PathBuf::from(path) })
    }

    /// What it says now. One that cannot be heard has a notice of that and nothing else.
    #[must_use]
    pub fn read(&self) -> MachineReport {
        match self.text() {
            Ok(text) => MachineReport::parse(&text),
            Err(error) => {
                let notice = format!("machine: {} cannot be read: {error}", self.path.display());
                MachineReport { notices: vec![clean(&notice)], ..MachineReport::default() }
            }
        }
    }

    /// What tells this saying from another one.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(core::slice::from_ref(&self.path))
    }

    fn text(&self) -> io::Result<String> {
        let file = File::open(&self.path)?;
        // A pipe would be waited for.
        if !file.metadata()?.is_file() {
            return Err(io::Error::other("not a file"));
        }
        let mut bytes = Vec::new();
        file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > FILE_BYTES_MAX {
            // Half a line says something else than a whole one.
            let end = bytes.iter().rposition(|byte| *byte == b'\n').unwrap_or(0);
            bytes.truncate(end);
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

impl MachineReport {
    /// Reads the lines. Of a name that stands there twice the last counts; of `notice` all do.
    fn parse(text: &str) -> Self {
        let mut report = Self::default();
        for (name, value) in text.lines().filter_map(|line| line.split_once('=')) {
            let value = clean(value);
            match name {
                "board" => report.board = value,
                "release" => report.release = value,
                "version" => report.version = number(&value),
                "slot" => report.slot = value,
                "trial" => report.is_trial = value == "yes",
                "data" => report.data = value,
                "configuration" => report.configuration = value,
                "configurationVersion" => report.configuration_version = number(&value),
                "network" => report.network = value,
                "clock" => report.clock = value,
                "update" => report.update.state = UpdateState::parse(&value).unwrap_or_default(),
                "updateText" => report.update.text = value,
                "updateVersion" => report.update.version = number(&value),
                "notice" if report.notices.len() < NOTICES_MAX && !value.is_empty() => report.notices.push(value),
                // Of a newer image.
                _ => {}
            }
        }
        report
    }
}

/// A version; 0 stands for none.
fn number(value: &str) -> Option<u64> {
    value.parse().ok().filter(|number| *number > 0)
}

/// Text without control characters.
fn clean(value: &str) -> String {
    value.trim().chars().filter(|character| !character.is_control()).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn known_lines_are_read_and_others_passed_over() {
        let text = "board=rpi3\nrelease=0.1.0\nversion=7\nslot=b\ntrial=yes\ndata=kept\nconfiguration=image\n\
                    network=eth0 10.0.2.15/24 by DHCP\nclock=set by 10.0.2.2\nupdate=back\nupdateText=a=b\n\
                    updateVersion=8\nnotice=network: no cable at eth0\nnotice=\nnoise\nfuture=1\nnotice=x: \u{1b}[2J\n";
        let report = MachineReport::parse(text);
        assert_eq!((report.board.as_str(), report.version, report.is_trial), ("rpi3", Some(7), true));
        assert_eq!((report.configuration.as_str(), report.configuration_version), ("image", None));
        let update = UpdateReport { state: UpdateState::Back, text: "a=b".to_owned(), version: Some(8) };
        assert_eq!(report.update, update);
        assert_eq!(report.notices, ["network: no cable at eth0", "x: [2J"]);
        assert_eq!(
            MachineReport::parse("version=x\nupdate=dancing\ntrial=1\nupdateVersion=0\n"),
            MachineReport::default()
        );
    }

    #[test]
    fn what_is_held_is_bounded() {
        let path = std::env::temp_dir().join(format!("portcullis-machine-{}", std::process::id()));
        let machine = Machine { path: path.clone() };
        std::fs::write(&path, "notice=a\n".repeat(1_000)).unwrap();
        assert_eq!(machine.read().notices.len(), NOTICES_MAX);
        std::fs::write(&path, format!("slot=a\nnetwork={}\nslot=b\n", "x".repeat(8_180))).unwrap();
        let report = machine.read();
        assert_eq!((report.slot.as_str(), report.network.as_str()), ("a", ""), "half a line counts for nothing");
        std::fs::write(&path, b"release=\xff\n").unwrap();
        assert_eq!(machine.read().release, "\u{fffd}");
        std::fs::remove_file(&path).unwrap();
        let report = machine.read();
        assert!(report.notices[0].contains("cannot be read"), "{report:?}");
    }
}
