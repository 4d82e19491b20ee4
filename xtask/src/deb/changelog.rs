//! The changelog as Debian writes it, made of `CHANGELOG.md`.

use super::Maintainer;
use crate::process::{Failure, Outcome};

/// Longest line, characters.
const WIDTH: usize = 78;

/// The newest section of `CHANGELOG.md` as an entry for `version`. `date` is of the form of RFC 5322.
pub fn debian(text: &str, version: &str, maintainer: &Maintainer, date: &str) -> Outcome<String> {
    let section = text.split_once("\n## ").map(|(_, rest)| rest);
    let section = section.ok_or_else(|| Failure::new("CHANGELOG.md has no section"))?;
    let section = section.split("\n## ").next().unwrap_or_default();
    let mut items: Vec<String> = Vec::new();
    for line in section.lines().skip(1) {
        if let Some(item) = line.strip_prefix("- ") {
            items.push(item.to_owned());
        } else if let Some(item) = items.last_mut().filter(|_| !line.trim().is_empty()) {
            item.push(' ');
            item.push_str(line.trim());
        }
    }
    let mut entry = format!("portcullis ({version}) unstable; urgency=medium\n\n");
    for item in items {
        let mut line = "  *".to_owned();
        for word in item.split_whitespace() {
            if line.chars().count() + 1 + word.chars().count() > WIDTH && line.trim() != "*" {
                entry.push_str(&line);
                entry.push('\n');
                line = "   ".to_owned();
            }
            line.push(' ');
            line.push_str(word);
        }
        entry.push_str(&line);
        entry.push('\n');
    }
    entry.push_str(&format!("\n -- {maintainer}  {date}\n"));
    Ok(entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_section_becomes_an_entry() {
        let text = "# Changelog\n\n## Unreleased\n\n- One thing that is\n  told in two lines.\n- Another.\n\n## 0.1\n\n- Old.\n";
        let entry = debian(text, "1.0", &Maintainer::default(), "Thu, 01 Jan 2026 00:00:00 +0000").unwrap();
        let lines: Vec<&str> = entry.lines().collect();
        assert_eq!(lines[0], "portcullis (1.0) unstable; urgency=medium");
        assert_eq!(lines[2..4], ["  * One thing that is told in two lines.", "  * Another."]);
        assert!(lines[5].starts_with(" -- The Portcullis contributors <") && lines[5].contains(">  Thu, 01"));
        assert!(debian("nothing", "1.0", &Maintainer::default(), "").is_err());
    }
}
