//! The command lines of those that look at a running broker.

use super::{Command, common, log_level, usage};
use crate::commands::CommandError;
use crate::commands::control::{ControlOptions, Subject};
use crate::platform::Levels;
use lexopt::{Arg, Parser, ValueExt as _};
use log::LevelFilter;
use std::path::PathBuf;

/// What they have in common.
macro_rules! help {
    ($text:literal) => {
        concat!(
            $text,
            "  --json          JSON, for programs
  --control PATH  The control socket of the broker (default: PORTCULLIS_CONTROL, else
                  the first that is there: state/control.sock in this folder,
                  /run/portcullis/control.sock, and control.sock in
                  /var/lib/portcullis/state or /var/lib/portcullis)

The broker's user, its group and root may use the socket.
"
        )
    };
}

const STATUS_HELP: &str = help!(
    "\
How a running broker is: health, configuration, listeners, certificates, how full
its tables are, its log on the disk, bridges, and the last denials with the rule
that comes nearest

Usage: portcullis status [--json] [--control PATH]

Options:
"
);

const HEALTH_HELP: &str = help!(
    "\
Whether a running broker is ready: its probe, its ports, the log on the disk, the
clock, and the certificates that it serves. What the machine of an image has to tell is
shown with them, and keeps nothing from being ready

Usage: portcullis health [--json] [--control PATH]

Exit code 0 if every check is passed, 1 if one is not, 4 where no broker answers.

Options:
"
);

const LOG_HELP: &str = help!(
    "\
Say how much a running broker logs, or change it until it ends

Usage: portcullis log [LEVELS] [--json] [--control PATH]

LEVELS is what `portcullis run --log` takes: info, or warn,authorization=debug.

Options:
"
);

const CLIENTS_HELP: &str = help!(
    "\
The connected clients of a running broker

Usage: portcullis clients [--json] [--control PATH]

Options:
"
);

const CLIENT_HELP: &str = help!(
    "\
One connected client of a running broker, and what it has subscribed to

Usage: portcullis client ID [--json] [--control PATH]

Exit code 1 where no client with this client identifier is connected.

Options:
"
);

const DISCONNECT_HELP: &str = help!(
    "\
End the connection of a client

Usage: portcullis disconnect ID [--json] [--control PATH]

A client of MQTT 5 is told with DISCONNECT 0x98, Administrative action. Its Will is
published, its session stays as long as it would without this, and it may come back.
To keep it out, use the deny list. Exit code 1 where no such client is connected.

Options:
"
);

const SESSIONS_HELP: &str = help!(
    "\
The sessions of a running broker, with and without a client

Usage: portcullis sessions [--json] [--control PATH]

Options:
"
);

const RETAINED_HELP: &str = help!(
    "\
The retained messages of a running broker: topics and sizes, no payloads

Usage: portcullis retained [--json] [--control PATH]

Options:
"
);

const TOP_HELP: &str = help!(
    "\
What a running broker does: messages a second, how full its tables are, and the
clients with the longest queues. Drawn anew every two seconds, until Ctrl-C

Usage: portcullis top [--once] [--json] [--control PATH]

Options:
  --once          Once, after one second
"
);

/// The names of these commands.
pub const NAMES: [&str; 9] =
    ["status", "health", "log", "clients", "client", "disconnect", "sessions", "retained", "top"];

/// Reads the words behind one of [`NAMES`].
pub fn command(name: &str, mut level: Option<Levels>, parser: &mut Parser) -> Result<Command, CommandError> {
    let help = match name {
        "health" => HEALTH_HELP,
        "log" => LOG_HELP,
        "clients" => CLIENTS_HELP,
        "client" => CLIENT_HELP,
        "disconnect" => DISCONNECT_HELP,
        "sessions" => SESSIONS_HELP,
        "retained" => RETAINED_HELP,
        "top" => TOP_HELP,
        _ => STATUS_HELP,
    };
    let takes_word = matches!(name, "client" | "disconnect" | "log");
    let (mut id, mut json, mut socket, mut once) = (None, false, None, false);
    while let Some(argument) = parser.next().map_err(usage)? {
        match argument {
            Arg::Long("json") => json = true,
            Arg::Long("control") => socket = Some(PathBuf::from(parser.value().map_err(usage)?)),
            Arg::Long("once") if name == "top" => once = true,
            Arg::Long("log") => level = Some(log_level(parser)?),
            Arg::Value(value) if takes_word && id.is_none() => id = Some(value.string().map_err(usage)?),
            other => return common(other, help),
        }
    }
    let named = |id: Option<String>| id.ok_or_else(|| CommandError::Usage(format!("{name} needs the ID of a client")));
    let subject = match name {
        "health" => Subject::Health,
        "log" => Subject::Log(id.map(|levels| Levels::parse(&levels)).transpose().map_err(CommandError::Usage)?),
        "clients" => Subject::Clients,
        "client" => Subject::Client(named(id)?),
        "disconnect" => Subject::Disconnect(named(id)?),
        "sessions" => Subject::Sessions,
        "retained" => Subject::Retained,
        "top" => Subject::Top { once },
        _ => Subject::Status,
    };
    Ok(Command::Control(ControlOptions { subject, json, socket }, level.unwrap_or(LevelFilter::Info.into())))
}
