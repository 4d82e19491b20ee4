//! How documents are shown: tables, times, and JSON that leaves terminals alone.

use crate::commands::CommandError;
use crate::config::diagnostic::{Escaped, is_disruptive};
use crate::time::UnixTime;
use serde_json::Value;
use std::io::{self, Write};

/// Characters of a cell; `--json` has all of them.
const CELL_CHARACTERS_MAX: usize = 64;

/// Where the text of a column stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// Words.
    Left,
    /// Numbers.
    Right,
}

/// A table whose columns are as wide as what is in them.
pub struct Table {
    heads: Vec<(&'static str, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table without rows.
    pub fn new(heads: &[(&'static str, Align)]) -> Self {
        Self { heads: heads.to_vec(), rows: Vec::new() }
    }

    /// Adds a row, one cell a column. Cells are cut, and escaped; the last column is cut by nobody.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let last = self.heads.len().saturating_sub(1);
        let shown = cells.into_iter().enumerate().map(|(column, cell)| {
            let shown = Escaped(&cell).to_string();
            if column == last { shown } else { cut(shown) }
        });
        self.rows.push(shown.collect());
    }

    /// Whether it has no row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Writes it, each line behind `indent`.
    pub fn write(&self, indent: &str, output: &mut dyn Write) -> io::Result<()> {
        let heads: Vec<String> = self.heads.iter().map(|(head, _)| (*head).to_owned()).collect();
        let lines: Vec<&Vec<String>> = core::iter::once(&heads).chain(&self.rows).collect();
        let widths: Vec<usize> = (0..self.heads.len())
            .map(|column| lines.iter().filter_map(|line| line.get(column)).map(|cell| width(cell)).max().unwrap_or(0))
            .collect();
        for line in lines {
            let mut text = indent.to_owned();
            for ((cell, (_, align)), wide) in line.iter().zip(&self.heads).zip(&widths) {
                let blanks = " ".repeat(wide.saturating_sub(width(cell)));
                match align {
                    Align::Left => text.extend([cell.as_str(), &blanks]),
                    Align::Right => text.extend([blanks.as_str(), cell]),
                }
                text.push_str("  ");
            }
            writeln!(output, "{}", text.trim_end())?;
        }
        Ok(())
    }
}

/// Characters of a text; those that terminals show wide or not at all are counted as one.
fn width(text: &str) -> usize {
    text.chars().count()
}

fn cut(text: String) -> String {
    match text.char_indices().nth(CELL_CHARACTERS_MAX) {
        Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

/// A member that is a text; `-` where there is none.
pub fn text(row: &Value, name: &str) -> String {
    row.get(name).and_then(Value::as_str).unwrap_or("-").to_owned()
}

/// A member that is a number, or 0.
pub fn number(row: &Value, name: &str) -> u64 {
    row.get(name).and_then(Value::as_u64).unwrap_or(0)
}

/// A member that is a number as text; `-` where there is none.
pub fn numeral(row: &Value, name: &str) -> String {
    row.get(name).and_then(Value::as_u64).map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// Elements of a member that is an array.
pub fn array<'a>(document: &'a Value, name: &str) -> &'a [Value] {
    document.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// Seconds in the two largest units that they fill.
pub fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, ..) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

/// A member that is a time, in UTC; `-` where there is none.
pub fn time(row: &Value, name: &str) -> String {
    row.get(name).and_then(Value::as_u64).map_or_else(|| "-".to_owned(), |unix| UnixTime(unix).to_string())
}

/// Bytes in the largest unit of which there is one at least.
pub fn bytes(count: u64) -> String {
    match count {
        0..1_024 => format!("{count} B"),
        1_024..1_048_576 => format!("{} KiB", count / 1_024),
        _ => format!("{} MiB", count / 1_048_576),
    }
}

/// A document on one line. What no terminal should see is written as JSON writes control characters: it stands in texts only.
///
/// # Errors
/// Of the stream.
pub fn json(document: &Value, output: &mut dyn Write) -> Result<(), CommandError> {
    let mut line = String::new();
    for character in document.to_string().chars() {
        if is_disruptive(character) {
            let mut units = [0; 2];
            character.encode_utf16(&mut units).iter().for_each(|unit| line.push_str(&format!("\\u{unit:04x}")));
        } else {
            line.push(character);
        }
    }
    Ok(writeln!(output, "{line}")?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_cells_and_no_cell_ends_a_line() {
        let mut table = Table::new(&[("NAME", Align::Left), ("N", Align::Right), ("TOPIC", Align::Left)]);
        table.row(["a\n\u{9b}2J".to_owned(), "7".to_owned(), "t".to_owned()]);
        table.row(["x".repeat(100), "1234".to_owned(), "y".repeat(100)]);
        let mut shown = Vec::new();
        table.write("  ", &mut shown).unwrap();
        let shown = String::from_utf8(shown).unwrap();
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines.len(), 3, "{shown}");
        assert_eq!(lines[0], format!("  NAME{}     N  TOPIC", " ".repeat(63)));
        assert!(lines[1].starts_with("  a\\u{a}\\u{9b}2J ") && lines[1].ends_with("     7  t"), "{shown}");
        assert!(lines[2].ends_with(&"y".repeat(100)) && lines[2].contains(&format!("{}...  1234", "x".repeat(64))));
    }

    #[test]
    fn json_is_still_the_same_without_what_moves_a_cursor() {
        let document = serde_json::json!({"clientId": "a\u{9b}2J\u{202e}\u{7f}\u{fc}\n\""});
        let mut shown = Vec::new();
        json(&document, &mut shown).unwrap();
        let shown = String::from_utf8(shown).unwrap();
        assert_eq!(shown, "{\"clientId\":\"a\\u009b2J\\u202e\\u007f\u{fc}\\n\\\"\"}\n");
        assert_eq!(serde_json::from_str::<Value>(&shown).unwrap(), document);
    }

    #[test]
    fn times_have_two_units() {
        let shown: Vec<String> = [5, 65, 3_720, 200_000].into_iter().map(duration).collect();
        assert_eq!(shown, ["5 s", "1 min 5 s", "1 h 2 min", "2 d 7 h"]);
        assert_eq!((bytes(1_023), bytes(2_048), bytes(3 << 20)), ("1023 B".into(), "2 KiB".into(), "3 MiB".into()));
    }
}
