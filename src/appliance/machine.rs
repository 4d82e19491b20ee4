//! What PID 1 knows of the machine and tells whoever looks: a small file of `name=value`, replaced in one step at each change.
//!
//! The broker shows it on its page, and has no other way to know. Nothing in the file decides anything.
//!
//! **Invariant:** the file has at most [`FILE_BYTES_MAX`] bytes, and a value is one line of printable characters, whatever a peer,
//! a settings file or a device has put into it.

use super::boot_state::Slot;
use super::mounts::{Data, text};
use crate::bundle::UpdateState;
use core::cell::RefCell;
use core::fmt::{self, Write as _};
use std::fs;
use std::path::{Path, PathBuf};

/// Where the file is: in a folder of the system's own, so that the broker's user can read it and not replace it.
pub const FILE: &str = "/run/machine";
/// More than it ever has.
pub const FILE_BYTES_MAX: usize = 8 * 1024;
/// Longest value, bytes: all values, all notices and their names fit into the file.
const VALUE_BYTES_MAX: usize = 300;
/// Most notices about settings; of what is beyond them the console tells. Of other areas there is one each.
const SETTINGS_MAX: usize = 8;
/// Values of any text, notices of other areas, and lines of numbers or single words.
const OTHERS: [usize; 3] = [5, 5, 9];
const _: () = {
    let [texts, notices, words] = OTHERS;
    assert!((texts + notices + SETTINGS_MAX) * (VALUE_BYTES_MAX + 40) + words * 64 <= FILE_BYTES_MAX);
};
/// What the image says of itself.
const IMAGE_FILE: &str = "/etc/portcullis-image";

/// The image that runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// Name of the board profile, `rpi3`; empty: the image does not say.
    pub board: String,
    /// Its number among the updates; 0: the image does not say.
    pub version: u64,
    /// What people call it.
    pub release: String,
}

impl Image {
    /// The one that runs.
    pub fn of_this_system() -> Self {
        Self::parse(&text(IMAGE_FILE).unwrap_or_default())
    }

    fn parse(text: &str) -> Self {
        let value = |name: &str| text.lines().filter_map(|line| line.split_once('=')).find(|(key, _)| *key == name);
        let value = |name: &str| value(name).map(|(_, value)| value.to_owned()).unwrap_or_default();
        Self { board: value("board"), version: value("version").parse().unwrap_or(0), release: value("release") }
    }
}

/// What a notice is about. One of an area takes the place of the one before, but for settings, of which there may be several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Area {
    /// Cable, address, DHCP.
    Network,
    /// Time servers.
    Clock,
    /// The data partition.
    Data,
    /// `gateway.cfg` and `spec.network`.
    Settings,
    /// The configuration in force.
    Configuration,
    /// An update that was not kept.
    Update,
}

impl Area {
    const fn name(self) -> &'static str {
        match self {
            Self::Network => "network",
            Self::Clock => "clock",
            Self::Data => "data",
            Self::Settings => "settings",
            Self::Configuration => "configuration",
            Self::Update => "update",
        }
    }
}

/// The last update.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Update {
    /// How it stands.
    pub state: UpdateState,
    /// The version of the bundle; 0: not known.
    pub version: u64,
    /// Reason or progress, for people.
    pub text: String,
}

/// Which configuration the broker runs on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Configuration {
    /// What the image brought.
    #[default]
    OfImage,
    /// That of a slot of the data partition, with the version of the bundle that brought it; 0: none did.
    InSlot(Slot, u64),
}

#[derive(Debug, Default)]
struct Facts {
    image: Image,
    slot: Option<Slot>,
    is_trial: bool,
    data: Option<Data>,
    configuration: Configuration,
    network: String,
    clock: String,
    update: Update,
    notices: Vec<(Area, String)>,
}

/// The file, and what it says.
#[derive(Debug)]
pub struct Machine {
    path: PathBuf,
    facts: RefCell<Facts>,
    written: RefCell<String>,
}

impl Machine {
    /// One that tells of this system.
    pub fn new(path: &Path, image: Image, slot: Option<Slot>, is_trial: bool) -> Self {
        let facts = Facts {
            image,
            slot,
            is_trial,
            network: "no Ethernet interface yet".to_owned(),
            clock: "no time server has answered yet".to_owned(),
            ..Facts::default()
        };
        Self { path: path.to_owned(), facts: RefCell::new(facts), written: RefCell::default() }
    }

    /// How the data partition is there.
    pub fn set_data(&self, data: Data) {
        self.change(|facts| facts.data = Some(data));
    }

    /// What the broker runs on.
    pub fn set_configuration(&self, configuration: Configuration) {
        self.change(|facts| facts.configuration = configuration);
    }

    /// Interface and address, or what is waited for.
    pub fn set_network(&self, text: impl Into<String>) {
        self.change(|facts| facts.network = text.into());
    }

    /// Who has set the clock.
    pub fn set_clock(&self, text: impl Into<String>) {
        self.change(|facts| facts.clock = text.into());
    }

    /// The system that runs is confirmed.
    pub fn set_confirmed(&self) {
        self.change(|facts| facts.is_trial = false);
    }

    /// How it stands with an update.
    pub fn set_update(&self, update: Update) {
        self.change(|facts| facts.update = update);
    }

    /// What a person must be told.
    pub fn notice(&self, area: Area, text: impl Into<String>) {
        self.change(|facts| {
            let of_area = facts.notices.iter().filter(|(other, _)| *other == area).count();
            if area != Area::Settings {
                facts.notices.retain(|(other, _)| *other != area);
            } else if of_area == SETTINGS_MAX {
                return;
            }
            facts.notices.push((area, text.into()));
        });
    }

    /// It is over.
    pub fn clear(&self, area: Area) {
        self.change(|facts| facts.notices.retain(|(other, _)| *other != area));
    }

    fn change(&self, change: impl FnOnce(&mut Facts)) {
        change(&mut self.facts.borrow_mut());
        self.write();
    }

    /// Replaces the file where it would say something new.
    fn write(&self) {
        let text = self.facts.borrow().to_string();
        if text == *self.written.borrow() {
            return;
        }
        // It is in memory: nothing has to be synced.
        let new = self.path.with_extension("new");
        match fs::write(&new, &text).and_then(|()| fs::rename(&new, &self.path)) {
            Ok(()) => {
                self.written.replace(text);
            }
            Err(error) => log::error!("{} cannot be written: {error}", self.path.display()),
        }
    }
}

impl fmt::Display for Facts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { image, slot, is_trial, data, configuration, network, clock, update, notices } = self;
        let mut line = |name: &str, value: &str| writeln!(f, "{name}={}", Printable(value));
        line("board", &image.board)?;
        line("release", &image.release)?;
        line("version", &image.version.to_string())?;
        if let Some(slot) = slot {
            line("slot", slot.name())?;
        }
        line("trial", if *is_trial { "yes" } else { "no" })?;
        if let Some(data) = data {
            line("data", data.name())?;
        }
        let (configuration, version) = match configuration {
            Configuration::OfImage => ("image", 0),
            Configuration::InSlot(slot, version) => (slot.name(), *version),
        };
        line("configuration", configuration)?;
        line("configurationVersion", &version.to_string())?;
        line("network", network)?;
        line("clock", clock)?;
        line("update", update.state.name())?;
        line("updateText", &update.text)?;
        line("updateVersion", &update.version.to_string())?;
        for (area, text) in notices {
            line("notice", &format!("{}: {text}", area.name()))?;
        }
        Ok(())
    }
}

/// A text as one line: what is not printable is a question mark, and what is too long is cut.
struct Printable<'a>(&'a str);

impl fmt::Display for Printable<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.trim();
        let fits = |(at, character): &(usize, char)| at + character.len_utf8() <= VALUE_BYTES_MAX;
        for (_, character) in text.char_indices().take_while(fits) {
            f.write_char(if character.is_control() { '?' } else { character })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(name: &str) -> (Machine, PathBuf) {
        let path = std::env::temp_dir().join(format!("portcullis-machine-{name}-{}", std::process::id()));
        let image = Image::parse("board=rpi3\nversion=7\nrelease=0.1.0\n");
        (Machine::new(&path, image, Some(Slot::A), false), path)
    }

    #[test]
    fn an_image_that_says_nothing_has_no_board_and_version_0() {
        assert_eq!(Image::parse("version=x\n"), Image::default());
        let image = Image::parse("board=rpi3\nversion=7\nrelease=0.1.0\n");
        assert_eq!((image.board.as_str(), image.version, image.release.as_str()), ("rpi3", 7, "0.1.0"));
    }

    #[test]
    fn every_change_is_in_the_file_at_once() {
        let (machine, path) = machine("change");
        let read = || fs::read_to_string(&path).unwrap();
        machine.set_data(Data::Kept);
        machine.set_configuration(Configuration::InSlot(Slot::B, 3));
        machine.set_network("eth0 10.0.2.15/24 by DHCP");
        machine.notice(Area::Clock, "no time server answers");
        machine.set_update(Update { state: UpdateState::Refused, version: 7, text: "not newer".to_owned() });
        assert_eq!(
            read(),
            "board=rpi3\nrelease=0.1.0\nversion=7\nslot=a\ntrial=no\ndata=kept\nconfiguration=b\n\
             configurationVersion=3\nnetwork=eth0 10.0.2.15/24 by DHCP\nclock=no time server has answered yet\n\
             update=refused\nupdateText=not newer\nupdateVersion=7\nnotice=clock: no time server answers\n"
        );
        machine.notice(Area::Clock, "none at all");
        assert!(read().ends_with("updateVersion=7\nnotice=clock: none at all\n"));
        machine.clear(Area::Clock);
        assert!(!read().contains("notice"));
        fs::remove_file(path).unwrap();
    }

    #[test]
    fn nothing_makes_it_longer_than_it_may_be_or_adds_a_line() {
        let (machine, path) = machine("bounds");
        let long = "\u{10FFFD}\n=\u{7}".repeat(500);
        machine.set_network(long.as_str());
        machine.set_clock(long.as_str());
        machine.set_update(Update { state: UpdateState::Back, version: u64::MAX, text: long.clone() });
        let others = [Area::Network, Area::Clock, Area::Data, Area::Configuration, Area::Update];
        for area in [Area::Settings; 100].into_iter().chain(others) {
            machine.notice(area, long.as_str());
        }
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.len() <= FILE_BYTES_MAX, "{}", text.len());
        assert_eq!(text.lines().filter(|line| line.starts_with("notice=settings: ")).count(), SETTINGS_MAX);
        assert_eq!(text.lines().filter(|line| line.starts_with("notice=")).count(), SETTINGS_MAX + others.len());
        assert!(text.lines().all(|line| line.split_once('=').is_some()));
        fs::remove_file(path).unwrap();
    }
}
