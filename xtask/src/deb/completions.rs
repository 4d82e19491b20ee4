//! Completions for bash, zsh and fish, made of the help texts.
//!
//! They know commands, options, words of a fixed choice, and where a file is meant. What only a running broker knows, such as
//! client identifiers, they do not ask: a key that is pressed should not connect to anything.

use std::fmt::Write as _;

use super::help::{self, Choice, Subject};

/// The options of every command.
const COMMON: [&str; 1] = ["--help"];

/// Whether a value is a file or a folder.
fn is_path(value: &str) -> bool {
    matches!(value, "FILE" | "FOLDER" | "DIR" | "PATH" | "SOURCE")
}

/// The words that a value may be, if that is known.
fn words_of<'a>(choice: &Choice, value: &'a str, boards: &'a [String]) -> Vec<&'a str> {
    if value.contains('|') {
        return value.split('|').collect();
    }
    match choice.name.as_str() {
        "--board" => boards.iter().map(String::as_str).collect(),
        "--log" => vec!["error", "warn", "info", "debug", "trace", "off"],
        _ => Vec::new(),
    }
}

/// The options of one command, those of every command included.
fn all_options(text: &str) -> Vec<Choice> {
    let mut found = help::options(text);
    let is_missing = |name: &str| !found.iter().any(|choice| choice.name == name);
    let common: Vec<&str> = COMMON.into_iter().filter(|name| is_missing(name)).collect();
    for name in common {
        found.push(Choice { name: name.to_owned(), value: None, summary: "What the command does".to_owned() });
    }
    found
}

/// The completion for bash.
pub fn bash(overview: &str, subjects: &[Subject], boards: &[String]) -> String {
    let mut values = String::new();
    let mut cases = String::new();
    let mut seen: Vec<String> = Vec::new();
    for text in subjects.iter().map(|subject| subject.text.as_str()).chain([overview]) {
        for choice in all_options(text) {
            let Some(value) = choice.value.as_deref().filter(|_| !seen.contains(&choice.name)) else { continue };
            let words = words_of(&choice, value, boards).join(" ");
            let action = if is_path(value) {
                "COMPREPLY=($(compgen -f -- \"$current\"))".to_owned()
            } else {
                format!("COMPREPLY=($(compgen -W '{words}' -- \"$current\"))")
            };
            let _ = writeln!(values, "    {})\n        {action}\n        return\n        ;;", choice.name);
            seen.push(choice.name);
        }
    }
    for subject in subjects {
        let options: Vec<String> = all_options(&subject.text).into_iter().map(|choice| choice.name).collect();
        let words = help::words(&subject.name, &subject.text).join(" ");
        let _ = writeln!(
            cases,
            "    {})\n        options='{}'\n        words='{words}'\n        ;;",
            subject.name,
            options.join(" ")
        );
    }
    let names: Vec<&str> = subjects.iter().map(|subject| subject.name.as_str()).collect();
    let first: Vec<String> = all_options(overview).into_iter().map(|choice| choice.name).collect();
    format!(
        r#"# bash completion of portcullis
_portcullis() {{
    local current="${{COMP_WORDS[COMP_CWORD]}}" previous="${{COMP_WORDS[COMP_CWORD - 1]}}"
    local command='' options='' words='' at
    case "$previous" in
{values}    esac
    for ((at = 1; at < COMP_CWORD; at++)); do
        case "${{COMP_WORDS[at]}}" in
        --log) ((at++)) ;;
        -*) ;;
        *)
            command="${{COMP_WORDS[at]}}"
            break
            ;;
        esac
    done
    case "$command" in
    '')
        options='{}'
        words='{}'
        ;;
{cases}    esac
    if [[ $current == -* ]]; then
        COMPREPLY=($(compgen -W "$options" -- "$current"))
    else
        COMPREPLY=($(compgen -W "$words" -- "$current"))
        [[ -n $command ]] && COMPREPLY+=($(compgen -f -- "$current"))
    fi
}}
complete -o filenames -F _portcullis portcullis
"#,
        first.join(" "),
        names.join(" ")
    )
}

/// The completion for zsh.
pub fn zsh(overview: &str, subjects: &[Subject], boards: &[String]) -> String {
    let quoted = |text: &str| text.replace('\'', "'\\''").replace('[', "\\[").replace(']', "\\]").replace(':', "\\:");
    let argument = |choice: &Choice| {
        let action = choice.value.as_deref().map_or(String::new(), |value| {
            let words = words_of(choice, value, boards);
            let action = if is_path(value) {
                "_files".to_owned()
            } else if words.is_empty() {
                " ".to_owned()
            } else {
                format!("({})", words.join(" "))
            };
            format!(":{}:{action}", quoted(&value.to_lowercase()))
        });
        format!("'*{}[{}]{action}'", choice.name, quoted(&choice.summary))
    };
    let mut text = String::from(
        "#compdef portcullis\n\n_portcullis() {\n    local state line\n    local -a commands\n    commands=(\n",
    );
    for subject in subjects {
        let _ = writeln!(text, "        '{}:{}'", subject.name, quoted(&subject.summary));
    }
    text.push_str("    )\n    _arguments -C \\\n");
    for choice in all_options(overview) {
        let _ = writeln!(text, "        {} \\", argument(&choice));
    }
    text.push_str("        '1:command:->command' '*::argument:->argument'\n    case $state in\n    command)\n        _describe command commands\n        ;;\n    argument)\n        case $line[1] in\n");
    for subject in subjects {
        let _ = writeln!(text, "        {})\n            _arguments \\", subject.name);
        for choice in all_options(&subject.text) {
            let _ = writeln!(text, "                {} \\", argument(&choice));
        }
        let words = help::words(&subject.name, &subject.text);
        if !words.is_empty() {
            let _ = writeln!(text, "                '1:action:({})' \\", words.join(" "));
        }
        text.push_str("                '*:file:_files'\n            ;;\n");
    }
    text.push_str("        esac\n        ;;\n    esac\n}\n\n_portcullis \"$@\"\n");
    text
}

/// The completion for fish.
pub fn fish(overview: &str, subjects: &[Subject], boards: &[String]) -> String {
    let quoted = |text: &str| text.replace('\\', "\\\\").replace('\'', "\\'");
    let option = |condition: &str, choice: &Choice| {
        let long = choice.name.trim_start_matches('-');
        let mut line = format!("complete -c portcullis -n '{condition}' -l {long}");
        if let Some(value) = choice.value.as_deref() {
            let words = words_of(choice, value, boards);
            line.push_str(if is_path(value) { " -r -F" } else { " -x" });
            if !words.is_empty() {
                let _ = write!(line, " -a '{}'", words.join(" "));
            }
        }
        let _ = writeln!(line, " -d '{}'", quoted(&choice.summary));
        line
    };
    let mut text = String::from("# fish completion of portcullis\n");
    for choice in all_options(overview) {
        text.push_str(&option("__fish_use_subcommand", &choice));
    }
    for subject in subjects {
        let _ = writeln!(
            text,
            "complete -c portcullis -f -n '__fish_use_subcommand' -a {} -d '{}'",
            subject.name,
            quoted(&subject.summary)
        );
        let condition = format!("__fish_seen_subcommand_from {}", subject.name);
        for choice in all_options(&subject.text) {
            text.push_str(&option(&condition, &choice));
        }
        for word in help::words(&subject.name, &subject.text) {
            let _ = writeln!(text, "complete -c portcullis -n '{condition}' -a {word}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_and_option_is_completed_by_every_shell() {
        let (overview, subjects) = help::source::read();
        let boards = ["host".to_owned()];
        let made = [
            bash(&overview, &subjects, &boards),
            zsh(&overview, &subjects, &boards),
            fish(&overview, &subjects, &boards),
        ];
        assert!(subjects.len() > 15);
        for subject in &subjects {
            for (at, text) in made.iter().enumerate() {
                // What a shell's file says of a command stands behind its name.
                let begin = match at {
                    0 => format!("    {})\n", subject.name),
                    1 => format!("        {})\n", subject.name),
                    _ => format!("-a {} -d", subject.name),
                };
                let (_, rest) = text.split_once(&begin).unwrap_or_else(|| panic!("{at}: {}", subject.name));
                for choice in all_options(&subject.text) {
                    let name = choice.name.trim_start_matches('-');
                    assert!(rest.contains(name), "{at}: {} {name}", subject.name);
                }
            }
        }
    }
}
