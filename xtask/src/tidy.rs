//! `cargo xtask tidy`: the arrow check between rooms, and the rules for files that no other tool knows.
//!
//! A room may use rooms of lower levels only; rooms of one level do not see each other. The levels are those of
//! ARCHITECTURE.md.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::process::{self, Failure, Outcome};
use crate::{only_help, workspace};

const HELP: &str = "\
Checks that rooms use only rooms of lower levels, and the rules for files.

Usage: cargo xtask tidy";

/// Every room and its level.
const LEVELS: [(&str, u8); 28] = [
    ("limits", 0),
    ("time", 0),
    ("identity", 1),
    ("collections", 1),
    ("telemetry", 2),
    ("codec", 3),
    ("crypto", 3),
    ("distinguished_name", 3),
    ("config", 4),
    ("bundle", 4),
    ("pki", 4),
    ("store", 4),
    ("authentication", 5),
    ("authorization", 5),
    ("broker", 6),
    ("tls", 7),
    ("platform", 7),
    ("http", 7),
    ("https", 7),
    ("websocket", 7),
    ("net", 8),
    ("upstream", 8),
    ("bridge", 9),
    ("service", 10),
    ("appliance", 10),
    ("commands", 11),
    ("main", 12),
    ("bin", 12),
];

/// The one place where crates come from.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";
/// What must not stand in a file of the repository: paths of the machines that it is written on.
const MACHINE_PATHS: [&str; 3] = [concat!("/ro", "ot/"), concat!("/wo", "rk/"), concat!("/ho", "me/")];

/// Runs the command.
pub fn run(arguments: Vec<OsString>) -> Outcome {
    if only_help("tidy", HELP, arguments)? { Ok(()) } else { check() }
}

/// All rules.
pub fn check() -> Outcome {
    let mut faults = Vec::new();
    let listed = process::capture(Command::new("git").current_dir(workspace::root()).args([
        "ls-files",
        "--cached",
        "--others",
        "--exclude-standard",
    ]))?;
    for name in listed.lines() {
        let path = workspace::root().join(name);
        let Ok(bytes) = std::fs::read(&path) else { continue };
        let Ok(text) = String::from_utf8(bytes) else { continue };
        check_file(Path::new(name), &text, &mut faults);
    }
    match faults.len() {
        0 => Ok(()),
        count => Err(Failure::new(format!("{}\n{count} rules broken", faults.join("\n")))),
    }
}

fn check_file(name: &Path, text: &str, faults: &mut Vec<String>) {
    let shown = name.display();
    for (number, line) in (1..).zip(text.lines()) {
        if line.ends_with([' ', '\t']) && name.extension().is_some_and(|extension| extension != "md") {
            faults.push(format!("{shown}:{number}: blanks at the end of the line"));
        }
        if let Some(path) = MACHINE_PATHS.iter().find(|path| line.contains(*path)) {
            faults.push(format!("{shown}:{number}: `{path}` is a path of a machine"));
        }
        if name.ends_with("Cargo.lock")
            && let Some(source) = line.strip_prefix("source = ")
            && source.trim_matches('"') != REGISTRY
        {
            faults.push(format!("{shown}:{number}: a crate from {source}"));
        }
    }
    if name.extension().is_none_or(|extension| extension != "rs") {
        return;
    }
    if !text.starts_with("//!") {
        faults.push(format!("{shown}:1: a file begins with what it is for (`//!`)"));
    }
    if let Some(room) = room_of(name) {
        check_arrows(name, &room, text, faults);
    }
}

/// The room that a file belongs to: `src/<room>.rs` or a file below `src/<room>/`. None for the crate's root.
fn room_of(name: &Path) -> Option<String> {
    let below = name.strip_prefix("src").ok()?;
    let first = PathBuf::from(below.components().next()?.as_os_str()).with_extension("");
    let room = first.to_string_lossy().into_owned();
    (room != "lib").then_some(room)
}

fn level_of(room: &str) -> Option<u8> {
    LEVELS.iter().find(|(name, _)| *name == room).map(|(_, level)| *level)
}

fn check_arrows(name: &Path, room: &str, text: &str, faults: &mut Vec<String>) {
    let shown = name.display();
    let Some(level) = level_of(room) else {
        return faults.push(format!("{shown}:1: the room `{room}` has no level in xtask/src/tidy.rs"));
    };
    for (number, line) in (1..).zip(text.lines()) {
        let code = line.split("//").next().unwrap_or_default();
        for used in rooms_used(code) {
            if used == room {
                continue;
            }
            match level_of(used) {
                Some(other) if other < level => {}
                Some(_) => faults.push(format!("{shown}:{number}: `{room}` must not use `{used}`")),
                None => faults.push(format!("{shown}:{number}: `{used}` is no room")),
            }
        }
    }
}

/// The rooms that a line names by a path from the crate's root, braces included: `crate::{crypto, tls::x}`.
fn rooms_used(code: &str) -> Vec<&str> {
    let mut rooms = Vec::new();
    for part in code.split("crate::").skip(1) {
        let name_end = |text: &str| text.find(|letter: char| !letter.is_alphanumeric() && letter != '_');
        if let Some(group) = part.strip_prefix('{') {
            let mut depth = 0_u32;
            let mut begin = 0;
            for (at, letter) in group.char_indices() {
                match letter {
                    '{' => depth += 1,
                    '}' if depth == 0 => {
                        rooms.push(group.get(begin..at).unwrap_or_default());
                        break;
                    }
                    '}' => depth -= 1,
                    ',' if depth == 0 => {
                        rooms.push(group.get(begin..at).unwrap_or_default());
                        begin = at + 1;
                    }
                    _ => {}
                }
            }
        } else {
            rooms.push(part);
        }
        for room in &mut rooms {
            let trimmed = room.trim();
            *room = trimmed.get(..name_end(trimmed).unwrap_or(trimmed.len())).unwrap_or_default();
        }
    }
    rooms.retain(|room| !room.is_empty() && room.starts_with(char::is_lowercase));
    rooms
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(name: &str, text: &str) -> Vec<String> {
        let mut faults = Vec::new();
        check_file(Path::new(name), text, &mut faults);
        faults
    }

    #[test]
    fn arrows_run_downwards() {
        assert!(faults("src/broker/mod.rs", "//! x\nuse crate::codec::Packet;\n").is_empty());
        assert!(faults("src/broker/mod.rs", "//! x\nuse crate::broker::x;\n").is_empty());
        assert_eq!(
            faults("src/codec/mod.rs", "//! x\nuse crate::broker::Broker;\n"),
            ["src/codec/mod.rs:2: `codec` must not use `broker`"]
        );
        assert_eq!(
            faults("src/authorization/mod.rs", "//! x\nuse crate::{time::Now, authentication::Verdict};\n"),
            ["src/authorization/mod.rs:2: `authorization` must not use `authentication`"]
        );
        assert!(faults("src/codec/mod.rs", "//! x\n// crate::broker is above\n").is_empty());
        assert_eq!(faults("src/cellar.rs", "//! x\n").len(), 1);
    }

    #[test]
    fn files_say_what_they_are_for() {
        assert_eq!(faults("src/time.rs", "use core::fmt;\n").len(), 1);
        assert_eq!(faults("xtask/src/x.rs", "//! x\nlet a = 1; \n").len(), 1);
    }

    #[test]
    fn crates_come_from_one_place() {
        assert_eq!(faults("Cargo.lock", "source = \"git+https://example.org/x\"\n").len(), 1);
        assert!(faults("Cargo.lock", &format!("source = \"{REGISTRY}\"\n")).is_empty());
    }
}
