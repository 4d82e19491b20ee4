//! What `--help` says, as a table: commands with their options and words, for the manual and for completions.
//!
//! Comes in: the texts that the program prints. Nothing else knows the commands, so that neither the manual nor a completion can
//! be of another version than the program in the package.

use std::path::Path;
use std::process::Command;

use crate::process::{self, Failure, Outcome};

/// One command of the program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// Its name.
    pub name: String,
    /// What the list of commands says of it: its first line.
    pub summary: String,
    /// All that `portcullis NAME --help` prints.
    pub text: String,
}

/// An option as a help text shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// Its name with the dashes.
    pub name: String,
    /// What follows it, such as `FILE` or `human|json`; nothing for a switch.
    pub value: Option<String>,
    /// The first line of what is said of it; empty where it stands only in the usage.
    pub summary: String,
}

/// The text of the program without a command, and its commands in the order of that text.
pub fn read(binary: &Path, runner: Option<&str>) -> Outcome<(String, Vec<Subject>)> {
    let help = |command: Option<&str>| {
        let mut asked = match runner {
            Some(runner) => {
                let mut asked = Command::new(runner);
                asked.arg(binary);
                asked
            }
            None => Command::new(binary),
        };
        process::capture(asked.args(command).arg("--help"))
    };
    let overview = help(None)?;
    let listed = commands(&overview);
    if listed.is_empty() {
        return Err(Failure::new(format!("`{} --help` lists no commands", binary.display())));
    }
    let mut subjects = Vec::new();
    for (name, summary) in listed {
        let text = help(Some(&name))?;
        if text == overview || !text.contains(&format!("portcullis {name}")) {
            return Err(Failure::new(format!("`portcullis {name} --help` says nothing of {name}")));
        }
        subjects.push(Subject { name, summary, text });
    }
    Ok((overview, subjects))
}

/// Names and first lines of the commands in the text of the program without a command.
pub fn commands(overview: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut inside = false;
    for line in overview.lines() {
        if !line.starts_with(' ') && !line.is_empty() {
            inside = line.starts_with("Commands");
        } else if inside
            && let Some((name, summary)) = item(line).and_then(|item| item.split_once("  "))
            && name.bytes().all(|byte| byte.is_ascii_lowercase())
        {
            found.push((name.to_owned(), summary.trim().to_owned()));
        }
    }
    found
}

/// A line that begins an item of a list: it is indented by two, and not further.
pub fn item(line: &str) -> Option<&str> {
    line.strip_prefix("  ").filter(|rest| !rest.starts_with(' ') && !rest.is_empty())
}

/// All options that a text names, in the order of their first mention.
pub fn options(text: &str) -> Vec<Choice> {
    let mut found: Vec<Choice> = Vec::new();
    let listed = |name: &str| {
        text.lines().filter_map(item).find_map(|line| {
            let rest = line.strip_prefix(name)?;
            let (value, summary) = rest.split_once("  ").unwrap_or((rest, ""));
            let is_this = value.is_empty() || value.starts_with(' ');
            is_this.then(|| (value.trim().to_owned(), summary.trim().to_owned()))
        })
    };
    for (at, _) in text.match_indices("--") {
        let is_begin =
            text.get(..at).is_none_or(|before| before.is_empty() || before.ends_with([' ', '[', '\n', '(', '`']));
        let rest = text.get(at..).unwrap_or_default();
        let end = rest.find(|letter: char| !letter.is_ascii_lowercase() && letter != '-').unwrap_or(rest.len());
        let name = rest.get(..end).unwrap_or_default();
        if !is_begin || name.len() < 3 || found.iter().any(|choice| choice.name == name) {
            continue;
        }
        let (value, summary) = listed(name).unwrap_or_else(|| {
            let value = rest.get(end..).unwrap_or_default().strip_prefix(' ').unwrap_or_default();
            let end = value.find([' ', ']', '\n', ')', '.', ',']).unwrap_or(value.len());
            let value = value.get(..end).unwrap_or_default();
            let is_value = value.contains('|') || value.bytes().next().is_some_and(|byte| byte.is_ascii_uppercase());
            (if is_value { value.to_owned() } else { String::new() }, String::new())
        });
        // The usage says which words a value may be, the list what they mean.
        let words = text.match_indices(name).find_map(|(at, _)| {
            let value = text.get(at + name.len()..)?.strip_prefix(' ')?;
            let value = value.get(..value.find([' ', ']', '\n']).unwrap_or(value.len()))?;
            value.contains('|').then(|| value.to_owned())
        });
        let value = words.unwrap_or(value);
        found.push(Choice { name: name.to_owned(), value: (!value.is_empty()).then_some(value), summary });
    }
    found
}

/// Words of the usage that are typed as they stand, such as `inspect` of `portcullis state inspect FOLDER`.
pub fn words(name: &str, text: &str) -> Vec<String> {
    let usage = text.split_once("Usage:").map_or("", |(_, rest)| rest);
    let usage = usage.split("\n\n").next().unwrap_or_default();
    let mut found = Vec::new();
    let mut before = "";
    for word in usage.split(|letter: char| letter.is_whitespace() || matches!(letter, '[' | ']')) {
        let is_word = word.len() > 1 && word.bytes().all(|byte| byte.is_ascii_lowercase());
        if is_word
            && word != "portcullis"
            && word != name
            && !before.starts_with("--")
            && !found.iter().any(|w| w == word)
        {
            found.push(word.to_owned());
        }
        if !word.is_empty() {
            before = word;
        }
    }
    found
}

/// The help texts of the program's source, for tests of what is made of them without building it: those of commands with their
/// names, and for each of the files the options that its parser takes.
#[cfg(test)]
pub mod source {
    use super::{Subject, commands};

    /// The files with the command lines.
    pub const FILES: [&str; 5] = [
        include_str!("../../../src/commands/cli.rs"),
        include_str!("../../../src/commands/cli/control.rs"),
        include_str!("../../../src/commands/cli/policy.rs"),
        include_str!("../../../src/commands/cli/state.rs"),
        include_str!("../../../src/commands/cli/update.rs"),
    ];

    /// The text of the program without a command, and its commands.
    pub fn read() -> (String, Vec<Subject>) {
        let mut texts: Vec<String> = Vec::new();
        let common = FILES[1].split_once("$text,\n            \"").unwrap().1.split_once('"').unwrap().0;
        for file in FILES {
            for part in file.split("\"\\\n").skip(1) {
                texts.push(part.split_once('"').unwrap().0.to_owned());
            }
        }
        let overview = texts.iter().find(|text| text.contains("\nCommands:")).unwrap().clone();
        let subjects = commands(&overview).into_iter().map(|(name, summary)| {
            let usage = format!("Usage: portcullis {name}");
            let own = |text: &&String| {
                let rest = text.split_once(&usage).map(|(_, rest)| rest);
                rest.is_some_and(|rest| rest.starts_with([' ', '\n']))
            };
            let mut text = texts.iter().find(own).unwrap_or_else(|| panic!("no help of {name}")).clone();
            if text.ends_with("Options:\n") || text.contains("--once          ") {
                text.push_str(common);
            }
            Subject { name, summary, text }
        });
        (overview.clone(), subjects.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_that_is_parsed_is_in_a_help_text() {
        let (overview, subjects) = source::read();
        let mut known = options(&overview);
        known.extend(subjects.iter().flat_map(|subject| options(&subject.text)));
        for file in source::FILES {
            for parsed in file.split("Arg::Long(\"").skip(1) {
                let name = format!("--{}", parsed.split_once('"').unwrap().0);
                assert!(known.iter().any(|choice| choice.name == name), "{name}");
            }
        }
    }

    #[test]
    fn every_command_that_is_parsed_is_listed() {
        let (overview, subjects) = source::read();
        let listed: Vec<String> = commands(&overview).into_iter().map(|(name, _)| name).collect();
        let names = [source::FILES[0], source::FILES[1]].map(|file| {
            let table = file.split_once("const NAMES").unwrap().1.split_once("];").unwrap().0;
            table.split_once('=').unwrap().1
        });
        let names = names.join(",");
        for name in names.split('"').skip(1).step_by(2) {
            assert!(listed.iter().any(|listed| listed == name), "{name}");
        }
        assert_eq!(listed.len(), subjects.len());
    }

    #[test]
    fn options_have_values_and_words_of_the_usage() {
        let text = "Start\n\nUsage: portcullis run [--config FILE [--no-fallback]] [--log-format human|json]\n\n  --config FILE   A blob\n  \
                    --no-fallback   Do not start\n";
        let found = options(text);
        let short: Vec<_> = found.iter().map(|choice| (choice.name.as_str(), choice.value.as_deref())).collect();
        assert_eq!(short, [("--config", Some("FILE")), ("--no-fallback", None), ("--log-format", Some("human|json"))]);
        assert_eq!(found[0].summary, "A blob");
        assert_eq!(
            words(
                "state",
                "Usage: portcullis state inspect FOLDER [--json]\n       portcullis state verify  FOLDER\n\nx"
            ),
            ["inspect", "verify"]
        );
    }
}
