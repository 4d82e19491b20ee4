//! `cargo xtask conformance`: which normative statements of MQTT 5.0 no test names.
//!
//! The identifiers are those of the standard, in `tests/conformance/normative_ids.txt`. A test names a statement in the comment
//! above it. A statement that cannot be tested here has its reason in the list.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::Path;

use crate::process::{Failure, Outcome};
use crate::{only_help, workspace};

const HELP: &str = "\
Lists the normative statements of MQTT 5.0 that no test names, with the reason.
Fails where there is none.

Usage: cargo xtask conformance";

/// Runs the command.
pub fn run(arguments: Vec<OsString>) -> Outcome {
    if only_help("conformance", HELP, arguments)? { Ok(()) } else { check() }
}

/// Compares the list with the tests.
pub fn check() -> Outcome {
    let list = workspace::root().join("tests/conformance/normative_ids.txt");
    let list = std::fs::read_to_string(&list).map_err(|error| Failure::file("read", &list, &error))?;
    let mut named = BTreeSet::new();
    for folder in ["tests", "src"] {
        collect(&workspace::root().join(folder), &mut named)?;
    }
    let (mut tested, mut reasons, mut missing) = (0, 0, Vec::new());
    for line in list.lines().filter(|line| !line.starts_with('#')) {
        let (identifier, reason) = line.split_once(' ').unwrap_or((line, ""));
        if named.contains(identifier) {
            tested += 1;
        } else if reason.is_empty() {
            missing.push(identifier);
        } else {
            reasons += 1;
            println!("{identifier}: {reason}");
        }
    }
    println!("{tested} statements are named by tests, {reasons} have a reason why not");
    if missing.is_empty() {
        return Ok(());
    }
    Err(Failure::new(format!("no test names {}", missing.join(", "))))
}

/// Adds the identifiers that the tests below a folder name. In `src` tests stand behind `mod tests`.
fn collect(folder: &Path, named: &mut BTreeSet<String>) -> Outcome {
    let entries = std::fs::read_dir(folder).map_err(|error| Failure::file("read", folder, &error))?;
    for path in entries.filter_map(Result::ok).map(|entry| entry.path()) {
        if path.is_dir() {
            collect(&path, named)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = std::fs::read_to_string(&path).map_err(|error| Failure::file("read", &path, &error))?;
            let is_test = path.starts_with(workspace::root().join("tests")) || path.ends_with("tests.rs");
            let tests =
                if is_test { text.as_str() } else { text.split_once("\nmod tests {").map_or("", |(_, tests)| tests) };
            named.extend(identifiers(tests));
        }
    }
    Ok(())
}

/// The texts of the form `[MQTT-1.2.3-4]`, without the brackets.
fn identifiers(text: &str) -> impl Iterator<Item = String> {
    let numbers = text.split("[MQTT-").skip(1).filter_map(|rest| rest.split_once(']'));
    numbers.map(|(number, _)| format!("MQTT-{number}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_found_in_their_brackets() {
        let found: Vec<String> = identifiers("/// [MQTT-1.2.3-4] and [MQTT-6.0.0-1]").collect();
        assert_eq!(found, ["MQTT-1.2.3-4", "MQTT-6.0.0-1"]);
    }
}
