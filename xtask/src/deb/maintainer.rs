//! Who answers for a package.
//!
//! Comes in: an option, or the two variables that Debian's own tools read. Goes out: `NAME <ADDRESS>` for the control file and the
//! changelog (Debian Policy §5.6.2). This project has no address of its own: who builds a package for others gives theirs. It is
//! not looked up whether the address takes mail.

use std::fmt;

use crate::process::{Failure, Outcome};

/// Longest text, bytes: a line of a control file that a person still reads.
const BYTES_MAX: usize = 200;
/// Of nobody. No host can be below `.invalid` (RFC 2606 §2), so that no mail reaches a stranger.
const NOBODY: &str = "The Portcullis contributors <nobody@portcullis.invalid>";

/// `NAME <ADDRESS>`, of one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Maintainer(String);

impl Maintainer {
    /// Reads `NAME <ADDRESS>`. Refused is what would be more than one line or field of the control file, or end the changelog's
    /// line early.
    pub fn named(text: &str) -> Outcome<Self> {
        let text = text.trim();
        if is_maintainer(text) {
            return Ok(Self(text.to_owned()));
        }
        Err(Failure::new(format!(
            "a maintainer is `NAME <ADDRESS>` of at most {BYTES_MAX} bytes, not `{}`",
            text.escape_debug()
        )))
    }

    /// Of `DEBFULLNAME` and `DEBEMAIL`, which count together only; else of nobody.
    pub fn of_environment() -> Outcome<Self> {
        match (std::env::var("DEBFULLNAME"), std::env::var("DEBEMAIL")) {
            (Ok(name), Ok(address)) => Self::named(&format!("{name} <{address}>")),
            _ => Ok(Self::default()),
        }
    }
}

fn is_maintainer(text: &str) -> bool {
    let is_plain = |part: &str| {
        !part.trim().is_empty() && !part.contains(|letter: char| letter.is_control() || matches!(letter, '<' | '>'))
    };
    let Some((name, address)) = text.strip_suffix('>').and_then(|text| text.split_once(" <")) else { return false };
    let Some((mailbox, host)) = address.split_once('@') else { return false };
    text.len() <= BYTES_MAX
        && [name, mailbox, host].into_iter().all(is_plain)
        && !address.contains(char::is_whitespace)
        && !host.contains('@')
}

impl Default for Maintainer {
    fn default() -> Self {
        Self(NOBODY.to_owned())
    }
}

impl fmt::Display for Maintainer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_maintainer_is_a_name_and_one_address() {
        assert_eq!(Maintainer::named(NOBODY).unwrap(), Maintainer::default());
        let given = Maintainer::named(" Edge Team, Plant 7 <edge@plant7.invalid> ").unwrap();
        assert_eq!(given.to_string(), "Edge Team, Plant 7 <edge@plant7.invalid>");
        for wrong in
            ["", "a@b", "<a@b>", "Name <>", "Name <a>", "Name <a@>", "Name <a@b> <c@d>", "Name <a@b@c>", "Name <a@@b>"]
        {
            assert!(Maintainer::named(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn no_field_is_smuggled_into_the_control_file() {
        assert!(Maintainer::named("Name\nPre-Depends: x <a@b>").is_err());
        assert!(Maintainer::named("Name <a@b\n>").is_err());
        assert!(Maintainer::named(&format!("{} <a@b>", "n".repeat(BYTES_MAX))).is_err());
    }
}
