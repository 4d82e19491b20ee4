//! The command lines of `state`.

use super::{Command, common, log_level, usage};
use crate::commands::CommandError;
use crate::commands::state::{Action, StateOptions};
use crate::platform::Levels;
use lexopt::{Arg, Parser};
use log::LevelFilter;
use std::ffi::OsString;
use std::path::PathBuf;

const HELP: &str = "\
Look into the state folder of a broker that does not run

Usage: portcullis state inspect FOLDER [--json]
       portcullis state verify  FOLDER [--json]
       portcullis state export  FOLDER [--output FILE]
       portcullis state compact FOLDER

  inspect   Segments, sessions with their queues, retained messages, the clock
  verify    Read everything, and name each damaged place
  export    Everything live, one JSON object a line: sessions, subscriptions,
            deliveries, retained messages, messages. Payloads are base64. It holds
            what clients sent: keep it as safe as the folder
  compact   Write everything live anew, and free the rest. What is damaged is gone
            from the report then too

All but compact change nothing, and work where nothing can be written. All refuse a
folder that a running broker uses.

Options:
  --json          One JSON object
  --output FILE   Where the export goes (default: standard output)

Exit codes: 0 done (verify: intact), 1 damaged (verify), 2 wrong usage, 4 the
folder is not there, in use, or of a newer version.
";

/// Reads the words behind `state`.
pub fn command(mut level: Option<Levels>, parser: &mut Parser) -> Result<Command, CommandError> {
    let (mut words, mut json, mut output) = (Vec::new(), false, None);
    while let Some(argument) = parser.next().map_err(usage)? {
        match argument {
            Arg::Long("json") => json = true,
            Arg::Long("output") | Arg::Short('o') => output = Some(PathBuf::from(parser.value().map_err(usage)?)),
            Arg::Long("log") => level = Some(log_level(parser)?),
            Arg::Value(word) if words.len() < 2 => words.push(word),
            other => return common(other, HELP),
        }
    }
    let Ok([action, folder]) = <[OsString; 2]>::try_from(words) else {
        return Err(wrong("state needs inspect, verify, export or compact, and a FOLDER"));
    };
    let action = match action.to_string_lossy().as_ref() {
        "inspect" => Action::Inspect { json },
        "verify" => Action::Verify { json },
        "export" => Action::Export { output: output.clone() },
        "compact" => Action::Compact,
        other => {
            return Err(wrong(&format!("state has no '{}': inspect, verify, export, compact", other.escape_debug())));
        }
    };
    if json && !matches!(action, Action::Inspect { .. } | Action::Verify { .. }) {
        return Err(wrong("--json belongs to inspect and verify"));
    }
    if output.is_some() && !matches!(action, Action::Export { .. }) {
        return Err(wrong("--output belongs to export"));
    }
    Ok(Command::State(
        StateOptions { action, folder: PathBuf::from(folder) },
        level.unwrap_or(LevelFilter::Info.into()),
    ))
}

fn wrong(message: &str) -> CommandError {
    CommandError::Usage(message.to_owned())
}
