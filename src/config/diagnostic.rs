//! Mistakes and notes, each with the place it is about.
//!
//! A [`Report`] collects everything that is found, so that one run shows all mistakes. Text that comes from a file is
//! escaped before it is shown: a configuration cannot move the cursor of the terminal that checks it. Nothing here ever
//! holds key material; callers pass names and positions, never the contents of a PEM file.

use core::fmt;
use std::sync::Arc;

/// Most diagnostics kept; what is beyond is counted.
const DIAGNOSTICS_MAX: usize = 2_000;
/// Longest piece of a value that a message shows, in characters.
const QUOTE_CHARACTERS_MAX: usize = 120;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The configuration is refused.
    Error,
    /// Accepted, but worth knowing.
    Note,
}

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file as it was given on the command line or found below a folder.
    pub file: Arc<str>,
    /// Line, from 1.
    pub line: u32,
    /// Column, from 1, in characters.
    pub column: u32,
}

impl Place {
    /// The first character of `file`.
    #[must_use]
    pub fn start_of(file: &str) -> Self {
        Self { file: Arc::from(file), line: 1, column: 1 }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", Escaped(&self.file), self.line, self.column)
    }
}

/// One mistake or note.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// What it is about.
    pub place: Place,
    /// What is wrong, in one line, with the offending value.
    pub message: String,
}

impl fmt::Display for Diagnostic {
    /// `file:line:column: error: message`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Error => "error",
            Severity::Note => "note",
        };
        write!(f, "{}: {severity}: {}", self.place, Escaped(&self.message))
    }
}

/// What was found, sorted by file, line and column.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Diagnostics(pub Vec<Diagnostic>);

impl Diagnostics {
    /// Adds what was found elsewhere.
    pub fn add(&mut self, found: Vec<Diagnostic>) {
        self.0.extend(found);
        self.0.sort_by(|a, b| a.place.cmp(&b.place).then(a.severity.cmp(&b.severity)));
    }

    /// Number of errors.
    #[must_use]
    pub fn errors(&self) -> usize {
        self.0.iter().filter(|diagnostic| diagnostic.severity == Severity::Error).count()
    }
}

impl fmt::Display for Diagnostics {
    /// One diagnostic a line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|diagnostic| writeln!(f, "{diagnostic}"))
    }
}

impl std::error::Error for Diagnostics {}

/// Collects diagnostics.
#[derive(Debug, Default)]
pub struct Report {
    diagnostics: Vec<Diagnostic>,
    errors: usize,
    left_out: usize,
}

impl Report {
    /// Nothing found yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a mistake.
    pub fn error(&mut self, place: &Place, message: impl Into<String>) {
        self.errors += 1;
        self.add(Severity::Error, place, message.into());
    }

    /// Adds something worth knowing.
    pub fn note(&mut self, place: &Place, message: impl Into<String>) {
        self.add(Severity::Note, place, message.into());
    }

    /// Whether there is a mistake.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.errors > 0
    }

    /// Number of mistakes so far.
    #[must_use]
    pub fn errors(&self) -> usize {
        self.errors
    }

    /// Everything found, sorted.
    #[must_use]
    pub fn finish(mut self) -> Diagnostics {
        self.diagnostics.sort_by(|a, b| a.place.cmp(&b.place).then(a.severity.cmp(&b.severity)));
        if self.left_out > 0
            && let Some(last) = self.diagnostics.last().cloned()
        {
            let message = format!("{} further findings are not listed", self.left_out);
            self.diagnostics.push(Diagnostic { severity: Severity::Error, place: last.place, message });
        }
        Diagnostics(self.diagnostics)
    }

    fn add(&mut self, severity: Severity, place: &Place, message: String) {
        if self.diagnostics.len() >= DIAGNOSTICS_MAX {
            self.left_out += 1;
            return;
        }
        self.diagnostics.push(Diagnostic { severity, place: place.clone(), message });
    }
}

/// Shows text with its control characters, and those that change the direction of text, escaped.
#[derive(Clone, Copy, Debug)]
pub struct Escaped<'a>(pub &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            if is_disruptive(character) {
                write!(f, "{}", character.escape_unicode())?;
            } else {
                fmt::Write::write_char(f, character)?;
            }
        }
        Ok(())
    }
}

/// Whether a character may not reach a terminal or a log line as it is.
#[must_use]
pub fn is_disruptive(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// A value of a file for use in a message: in double quotes, escaped, cut after 120 characters.
#[must_use]
pub fn quoted(text: &str) -> String {
    let mut shown = String::from("\"");
    for (index, character) in text.chars().enumerate() {
        if index == QUOTE_CHARACTERS_MAX {
            shown.push_str("\"...");
            return shown;
        }
        match character {
            '"' => shown.push_str("\\\""),
            '\\' => shown.push_str("\\\\"),
            '\n' => shown.push_str("\\n"),
            '\t' => shown.push_str("\\t"),
            other if is_disruptive(other) => shown.extend(other.escape_unicode()),
            other => shown.push(other),
        }
    }
    shown.push('"');
    shown
}

/// The valid name that is most like `given`, if one is near enough to be a slip of the keyboard.
#[must_use]
pub fn nearest<'a>(given: &str, valid: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // A name that is this long is no slip of any of ours, and the comparison is quadratic.
    if given.len() > 256 {
        return None;
    }
    let lower = given.to_lowercase();
    valid
        .into_iter()
        .map(|candidate| (strsim::jaro_winkler(&lower, &candidate.to_lowercase()), candidate))
        .filter(|(likeness, candidate)| {
            *likeness >= 0.84 || strsim::damerau_levenshtein(&lower, &candidate.to_lowercase()) <= 1
        })
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| candidate)
}

/// The end of a message about a misspelt name: the nearest valid one, or else what would be valid.
#[must_use]
pub fn suggestion(given: &str, valid: &[&str]) -> String {
    match nearest(given, valid.iter().copied()) {
        Some(name) => format!("; did you mean \"{}\"?", Escaped(name)),
        None if valid.is_empty() => "; there is none".to_owned(),
        None if valid.len() > 24 => String::new(),
        None => {
            format!("; valid are {}", valid.iter().map(|name| Escaped(name).to_string()).collect::<Vec<_>>().join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diagnostic_reads_file_line_column_severity_message() {
        let mut report = Report::new();
        let place = Place { file: Arc::from("a.yaml"), line: 3, column: 7 };
        report.error(&place, "unknown field");
        assert_eq!(report.finish().to_string(), "a.yaml:3:7: error: unknown field\n");
    }

    #[test]
    fn findings_are_sorted_by_place() {
        let mut report = Report::new();
        for (file, line) in [("b", 1), ("a", 9), ("a", 2)] {
            report.note(&Place { file: Arc::from(file), line, column: 1 }, "x");
        }
        let places: Vec<_> = report.finish().0.into_iter().map(|d| (d.place.file.to_string(), d.place.line)).collect();
        assert_eq!(places, [("a".to_owned(), 2), ("a".to_owned(), 9), ("b".to_owned(), 1)]);
    }

    #[test]
    fn control_characters_of_a_value_are_escaped() {
        assert_eq!(quoted("a\u{1b}[2Jb\n\"\u{202e}"), "\"a\\u{1b}[2Jb\\n\\\"\\u{202e}\"");
        assert_eq!(Escaped("x\r\ny").to_string(), "x\\u{d}\\u{a}y");
    }

    #[test]
    fn a_long_value_is_cut() {
        assert_eq!(quoted(&"x".repeat(500)).len(), 120 + 5);
    }

    #[test]
    fn the_nearest_name_is_found_and_a_distant_one_is_not() {
        assert_eq!(nearest("topcs", ["topics", "clientIds", "method"]), Some("topics"));
        assert_eq!(nearest("readwrite", ["Read", "Write", "ReadWrite"]), Some("ReadWrite"));
        assert_eq!(nearest("zebra", ["topics", "clientIds", "method"]), None);
    }
}
