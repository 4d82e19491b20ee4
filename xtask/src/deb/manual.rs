//! The manual page portcullis(1), made of the help texts.
//!
//! Lists of options and commands become lists, paragraphs are filled, and what is indented otherwise stays as it is. What no help
//! text says, files and the service, is `cross/debian/manual`.

use super::help::{self, Subject};

/// The page. `date` is `YYYY-MM-DD`, `closing` the sections behind the commands.
pub fn page(version: &str, date: &str, overview: &str, subjects: &[Subject], closing: &str) -> String {
    let title = overview.lines().next().unwrap_or_default();
    let summary = title.split_once(", ").map_or(title, |(_, summary)| summary);
    let mut page = format!(
        ".TH PORTCULLIS 1 {date} \"portcullis {version}\" \"User Commands\"\n.SH NAME\nportcullis \\- {}\n.SH SYNOPSIS\n.B \
         portcullis\n.I COMMAND\n[\n.I OPTIONS\n]\n.SH DESCRIPTION\n",
        escaped(summary.trim_start_matches("an "))
    );
    let body = overview.split_once("\n\n").map_or("", |(_, rest)| rest);
    let body = body.split_once("\n\n").map_or("", |(_, rest)| rest);
    flow(body, ".SS", &mut page);
    page.push_str(".SH COMMANDS\n");
    for subject in subjects {
        page.push_str(&format!(".SS portcullis {}\n", escaped(&subject.name)));
        flow(&subject.text, ".PP", &mut page);
    }
    page.push_str(closing.trim_end());
    page.push('\n');
    page
}

/// Writes a help text. A line that ends with a colon is a `heading`.
fn flow(text: &str, heading: &str, page: &mut String) {
    let mut is_first = true;
    for paragraph in text.split("\n\n") {
        // Behind the heading of a section a paragraph has begun already.
        let begin = if core::mem::take(&mut is_first) { "" } else { ".PP\n" };
        let lines: Vec<&str> = paragraph.lines().collect();
        if paragraph.starts_with("Usage:") || lines.iter().all(|line| line.starts_with("    ")) {
            page.push_str(begin);
            verbatim(&lines, page);
            continue;
        }
        let mut begins = true;
        let mut lines = lines.into_iter().peekable();
        while let Some(line) = lines.next() {
            if let Some(item) = help::item(line) {
                begins = true;
                let (name, rest) = item.split_once("  ").unwrap_or((item, ""));
                page.push_str(&format!(".TP\n.B {}\n", escaped(name.trim())));
                let rest = rest.trim();
                // An item without a word about it would swallow the next one.
                page.push_str(&if rest.is_empty() { "\\&\n".to_owned() } else { format!("{}\n", escaped(rest)) });
            } else if line.starts_with("   ") {
                page.push_str(&format!("{}\n", escaped(line.trim())));
            } else {
                let is_heading = line.ends_with(':') && lines.peek().is_some_and(|next| help::item(next).is_some());
                if is_heading && heading == ".SS" {
                    page.push_str(&format!(".SS {}\n", escaped(line.trim_end_matches(':'))));
                    begins = false;
                    continue;
                }
                if begins {
                    page.push_str(begin);
                    begins = false;
                }
                page.push_str(&format!("{}\n", escaped(line)));
            }
        }
    }
}

fn verbatim(lines: &[&str], page: &mut String) {
    page.push_str(".nf\n");
    for line in lines {
        page.push_str(&format!("{}\n", escaped(line)));
    }
    page.push_str(".fi\n");
}

/// A line of text as roff takes it for nothing else.
fn escaped(line: &str) -> String {
    let text =
        line.replace('\\', "\\e").replace('-', "\\-").replace('~', "\\(ti").replace('^', "\\(ha").replace('`', "\\(ga");
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_and_option_is_in_the_manual() {
        let (overview, subjects) = help::source::read();
        let page = page("1.0", "2026-01-01", &overview, &subjects, ".SH FILES\n");
        for subject in &subjects {
            assert!(page.contains(&format!(".SS portcullis {}\n", subject.name)), "{}", subject.name);
            for choice in help::options(&subject.text) {
                assert!(page.contains(&escaped(&choice.name)), "{} {}", subject.name, choice.name);
            }
        }
        assert!(page.lines().all(|line| !line.starts_with('\'')));
    }

    #[test]
    fn lists_are_lists_and_text_cannot_be_a_request() {
        let mut page = String::new();
        flow(
            "Do it\n\nUsage: portcullis x\n\nOptions:\n  --out FILE   Where\n               it goes\n\n.hidden\n",
            ".PP",
            &mut page,
        );
        assert_eq!(
            page,
            "Do it\n.PP\n.nf\nUsage: portcullis x\n.fi\n.PP\nOptions:\n.TP\n.B \\-\\-out FILE\nWhere\nit goes\n.PP\n\\&.hidden\n"
        );
    }
}
