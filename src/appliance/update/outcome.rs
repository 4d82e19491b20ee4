//! How the last update stands, on the data partition: written before a system is tried, because one that does not start says
//! nothing.
//!
//! Nothing decides by it which system or configuration is in force; the boot state and the link `current` do.

use super::super::boot_state::Slot;
use super::super::mounts;
use super::replace;
use super::trial::Excuse;
use crate::bundle::{Kind, UpdateState};
use core::fmt;
use std::fs;
use std::io;
use std::path::Path;

/// What is said of a system that has said nothing itself.
pub const SILENCE: &str = "it said nothing: its kernel did not start, or the power went";

/// The last update.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// How it stands.
    pub state: UpdateState,
    /// What it replaces.
    pub kind: Kind,
    /// The slot that it was written to.
    pub slot: Slot,
    /// Its version.
    pub version: u64,
    /// The board that it is for; empty: whoever wrote this did not say.
    pub board: String,
    /// What was amiss already before it: for that it does not go back.
    pub before: Vec<Excuse>,
    /// Reason, for people: one line.
    pub text: String,
}

impl Outcome {
    /// The one that was written last; `None`: none was, or it makes no sense.
    pub fn read(path: &Path) -> Option<Self> {
        Self::parse(&mounts::text(path)?)
    }

    fn parse(text: &str) -> Option<Self> {
        let value = |name: &str| {
            text.lines().filter_map(|line| line.split_once('=')).find(|(key, _)| *key == name).map(|(_, value)| value)
        };
        let excuse =
            |name: &str| Excuse { name: name.to_owned(), detail: value(&format!("before.{name}")).map(str::to_owned) };
        let kind = value("kind")?;
        Some(Self {
            state: UpdateState::parse(value("state")?)?,
            kind: [Kind::System, Kind::Configuration].into_iter().find(|known| known.name() == kind)?,
            slot: Slot::parse(value("slot")?)?,
            version: value("version")?.parse().ok()?,
            board: value("board").unwrap_or_default().to_owned(),
            before: value("before")?.split(',').filter(|name| !name.is_empty()).map(excuse).collect(),
            text: value("text")?.to_owned(),
        })
    }

    /// Puts it on the card, in one step.
    ///
    /// # Errors
    /// Of the file system; what was there is there still.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        replace(path, &self.to_string())
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { state, kind, slot, version, board, before, text } = self;
        let line = |text: &str| text.replace(char::is_control, " ");
        let (state, kind, text) = (state.name(), kind.name(), line(text));
        let names: Vec<&str> = before.iter().map(|excuse| excuse.name.as_str()).collect();
        let names = names.join(",");
        writeln!(f, "state={state}\nkind={kind}\nslot={slot}\nversion={version}\nboard={board}\nbefore={names}")?;
        for Excuse { name, detail } in before {
            if let Some(detail) = detail {
                writeln!(f, "before.{name}={}", line(detail))?;
            }
        }
        writeln!(f, "text={text}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_whatever_its_text() {
        let path = std::env::temp_dir().join(format!("portcullis-outcome-{}/outcome", std::process::id()));
        assert_eq!(Outcome::read(&path), None);
        for (before, text, expected) in
            [(vec![], "", ""), (vec!["clock", "network"], "a=b\nstate=kept", "a=b state=kept")]
        {
            let mut before: Vec<Excuse> = before.into_iter().map(Excuse::by_name).collect();
            before.push(Excuse { name: "certificates".to_owned(), detail: Some("'a=b' ends now".to_owned()) });
            let outcome = Outcome {
                state: UpdateState::Back,
                kind: Kind::System,
                slot: Slot::B,
                version: u64::MAX,
                board: "rpi3".to_owned(),
                before,
                text: text.to_owned(),
            };
            outcome.write(&path).unwrap();
            assert_eq!(Outcome::read(&path), Some(Outcome { text: expected.to_owned(), ..outcome }));
        }
        fs::write(&path, "state=trial\nkind=system\nslot=b\nversion=8\nbefore=\ntext=\n").unwrap();
        assert_eq!(Outcome::read(&path).map(|outcome| (outcome.version, outcome.board)), Some((8, String::new())));
        fs::write(&path, "state=kept\nkind=system\nslot=c\nversion=1\nbefore=\ntext=\n").unwrap();
        assert_eq!(Outcome::read(&path), None);
        fs::remove_dir_all(path.parent().unwrap()).unwrap();
    }
}
