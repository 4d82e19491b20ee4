//! The commands that look at a running broker, through its control socket: `status`, `health`, `log`, `clients`, `client`,
//! `disconnect`, `sessions`, `retained` and `top`.
//!
//! In: options, and the documents of `/api/v1`. Out: tables for people, or JSON. Text that peers chose is escaped in both, so that
//! it can neither end a line nor move a terminal's cursor.

mod ask;
mod rows;
mod show;
mod status;
mod top;

use super::CommandError;
use crate::config::diagnostic::Escaped;
use crate::platform::Levels;
pub(super) use ask::Socket;
use serde_json::Value;
use std::io::Write;
use std::path::PathBuf;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The broker as a whole.
    Status,
    /// Whether it is ready.
    Health,
    /// How much it logs, or that it logs so much from now on.
    Log(Option<Levels>),
    /// Connected clients.
    Clients,
    /// One client, by its client identifier.
    Client(String),
    /// That the connection of a client ends.
    Disconnect(String),
    /// Sessions, with and without a client.
    Sessions,
    /// Retained messages.
    Retained,
    /// What is going on, again and again.
    Top {
        /// Once only.
        once: bool,
    },
}

/// Options of these commands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlOptions {
    /// What is asked for.
    pub subject: Subject,
    /// Whether the answer is JSON.
    pub json: bool,
    /// The socket; `None`: it is looked for.
    pub socket: Option<PathBuf>,
}

/// Asks, and shows the answer.
///
/// # Errors
/// [`CommandError::AnswerIsNo`] where no such client is connected, which has been said; [`CommandError::CannotStart`] where no
/// broker can be asked.
pub fn run(options: &ControlOptions, output: &mut dyn Write, diagnostics: &mut dyn Write) -> Result<(), CommandError> {
    let socket = Socket::find(options.socket.as_deref())?;
    match &options.subject {
        Subject::Status => {
            let document = socket.get("status")?;
            if options.json { show::json(&document, output) } else { status::show(&document, output) }
        }
        Subject::Health => {
            let document = socket.get("status")?;
            let health = document.get("health").unwrap_or(&Value::Null);
            if options.json {
                show::json(health, output)?
            } else {
                status::show_health(health, output)?
            }
            if health.get("ready") == Some(&Value::Bool(true)) { Ok(()) } else { Err(CommandError::AnswerIsNo) }
        }
        Subject::Log(levels) => {
            let document = match levels {
                None => socket.get("log")?,
                Some(levels) => socket.post("log", levels.to_string().as_bytes())?.unwrap_or_default(),
            };
            if options.json {
                show::json(&document, output)
            } else {
                Ok(writeln!(output, "{}", Escaped(&show::text(&document, "log")))?)
            }
        }
        Subject::Clients => rows::list(&socket, &rows::CLIENTS, options.json, output),
        Subject::Sessions => rows::list(&socket, &rows::SESSIONS, options.json, output),
        Subject::Retained => rows::list(&socket, &rows::RETAINED, options.json, output),
        Subject::Client(id) => {
            let target = format!("client?clientId={}", ask::encoded(id));
            let document = found(socket.get_if_there(&target)?, id, diagnostics)?;
            if options.json { show::json(&document, output) } else { rows::show_client(&document, output) }
        }
        Subject::Disconnect(id) => {
            let target = format!("client/disconnect?clientId={}", ask::encoded(id));
            let document = found(socket.post(&target, b"")?, id, diagnostics)?;
            if options.json {
                show::json(&document, output)
            } else {
                Ok(writeln!(output, "client '{}' is disconnected", id.escape_debug())?)
            }
        }
        Subject::Top { once } => top::run(&socket, *once, options.json, output),
    }
}

/// What is known of a client, or that there is none.
fn found(document: Option<Value>, id: &str, diagnostics: &mut dyn Write) -> Result<Value, CommandError> {
    let Some(document) = document else {
        writeln!(diagnostics, "portcullis: no client '{}' is connected", id.escape_debug())?;
        return Err(CommandError::AnswerIsNo);
    };
    Ok(document)
}
