//! The command lines of those who ask about a policy: `explain`, `diff` and `test`.

use super::{Command, common, log_level, usage};
use crate::commands::{CommandError, diff, explain, policy_test};
use crate::config::policy_test::TestAction;
use crate::platform::Levels;
use crate::time::UnixTime;
use lexopt::{Arg, Parser, ValueExt as _};
use log::LevelFilter;
use std::path::PathBuf;

const EXPLAIN_HELP: &str = "\
Say whether a client may do something, and why; or all that it may do

Usage: portcullis explain SOURCE... [CLIENT] [connect | publish TOPIC |
       subscribe FILTER] [--port PORT] [--at TIME] [--json]

SOURCE is what `portcullis bake` takes, or one blob. What decides is what decides
in the broker; beside a blob, its revocation folder counts too. A folder that is
called like an action is written ./publish.

Who the client is:
  --certificate FILE      Its certificates, PEM, its own first
  --token FILE            Its service-account token, where tokens are verified
                          offline
  --username NAME         Its user name
  --client-id ID          Its client id (default: its user name)
  --attribute NAME=VALUE  What a server or a password file would grant; repeatable.
                          Without certificate and token no credential is judged:
                          user name and attributes are believed

Options:
  --port PORT   The port (default: the only one with an authorizationRef)
  --at TIME     Judge credentials at 2026-12-31T08:00:00Z instead of now
  --json        One JSON object

Exit codes: 0 allowed, 1 denied (without an action: it may or may not connect),
2 wrong usage, 3 configuration refused, 4 a credential cannot be read or judged.
";

const DIFF_HELP: &str = "\
Say who gains and who loses what between two configurations

Usage: portcullis diff OLD NEW [--json]

OLD and NEW are folders or files as `portcullis bake` takes them, or blobs. Lines
begin with + for what is gained or added, - for what is lost or removed, ~ for
what is changed. Principals are compared as rules write them.

Exit codes: 0 no difference, 1 differences, 2 wrong usage, 3 a configuration is
refused, 4 a file cannot be read.
";

const TEST_HELP: &str = "\
Check what a site expects of its policy

Usage: portcullis test FILE [--config SOURCE]...

FILE is YAML or JSON:
  configuration: PATH      Sources or a blob, from the folder of FILE; or --config
  port: 8883               Where several ports have an authorizationRef
  at: TIME                 When credentials are judged (default: now)
  tests:
    - name: optional
      client: {certificate: FILE}
      action: publish      or subscribe, or connect without a resource
      resource: telemetry/temperature
      expect: allowed      or denied
    - client: {username: heater, clientId: heater, attributes: {a: b}}
      allowed: [connect, subscribe telemetry/temperature]
      denied: [subscribe telemetry/#]
Named *.test.yaml it may lie among the manifests.

Exit codes: 0 all passed, 1 a test failed, 2 wrong usage, 3 file or configuration
refused, 4 a credential cannot be read or judged.
";

type Parsed = Result<Command, CommandError>;

pub(super) fn explain_command(mut level: Option<Levels>, parser: &mut Parser) -> Parsed {
    let mut options = explain::ExplainOptions::default();
    let mut words: Vec<String> = Vec::new();
    while let Some(argument) = parser.next().map_err(usage)? {
        match argument {
            Arg::Long("certificate") => options.client.certificate = Some(path(parser)?),
            Arg::Long("token") => options.client.token = Some(path(parser)?),
            Arg::Long("username") => options.client.username = Some(word(parser)?),
            Arg::Long("client-id") => options.client.client_identifier = Some(word(parser)?),
            Arg::Long("attribute") => options.client.attributes.push(attribute(&word(parser)?)?),
            Arg::Long("port") => {
                options.port = Some(parser.value().and_then(|value| value.parse()).map_err(usage)?);
            }
            Arg::Long("at") => options.at = Some(time(&word(parser)?)?),
            Arg::Long("json") => options.json = true,
            Arg::Long("log") => level = Some(log_level(parser)?),
            Arg::Value(value) => {
                let is_action = |value: &str| matches!(value, "connect" | "publish" | "subscribe");
                if !words.is_empty() || (!options.sources.is_empty() && value.to_str().is_some_and(is_action)) {
                    words.push(value.string().map_err(usage)?);
                } else {
                    options.sources.push(PathBuf::from(value));
                }
            }
            other => return common(other, EXPLAIN_HELP),
        }
    }
    super::require_sources(&options.sources, "explain")?;
    options.action = match words.as_slice() {
        [] => None,
        [action] => Some(TestAction::parse(action, None).map_err(CommandError::Usage)?),
        [action, resource] => Some(TestAction::parse(action, Some(resource)).map_err(CommandError::Usage)?),
        [.., extra] => return Err(CommandError::Usage(format!("what is '{}' for?", extra.escape_debug()))),
    };
    check_client(&options)?;
    Ok(Command::Explain(options, level.unwrap_or(LevelFilter::Warn.into())))
}

/// A client is somebody, and its attributes come from one side.
fn check_client(options: &explain::ExplainOptions) -> Result<(), CommandError> {
    let client = &options.client;
    let has_credential = client.certificate.is_some() || client.token.is_some();
    let is_described = client.username.is_some() || client.client_identifier.is_some() || !client.attributes.is_empty();
    let fault = if client.certificate.is_some() && client.token.is_some() {
        "--certificate and --token exclude each other"
    } else if has_credential && !client.attributes.is_empty() {
        "--attribute is for clients without --certificate and --token: theirs come from the configuration"
    } else if !has_credential && !is_described {
        "who is the client? Give --certificate, --token, --username, --client-id or --attribute"
    } else {
        return Ok(());
    };
    Err(CommandError::Usage(fault.to_owned()))
}

pub(super) fn diff_command(mut level: Option<Levels>, parser: &mut Parser) -> Parsed {
    let (mut paths, mut json) = (Vec::new(), false);
    while let Some(argument) = parser.next().map_err(usage)? {
        match argument {
            Arg::Long("json") => json = true,
            Arg::Long("log") => level = Some(log_level(parser)?),
            Arg::Value(value) if paths.len() < 2 => paths.push(PathBuf::from(value)),
            other => return common(other, DIFF_HELP),
        }
    }
    let paths: Result<[PathBuf; 2], _> = paths.try_into();
    let [old, new] = paths.map_err(|_| CommandError::Usage("diff needs OLD and NEW".to_owned()))?;
    Ok(Command::Diff(diff::DiffOptions { old, new, json }, level.unwrap_or(LevelFilter::Warn.into())))
}

pub(super) fn test_command(mut level: Option<Levels>, parser: &mut Parser) -> Parsed {
    let (mut file, mut sources) = (None, Vec::new());
    while let Some(argument) = parser.next().map_err(usage)? {
        match argument {
            Arg::Long("config") => sources.push(path(parser)?),
            Arg::Long("log") => level = Some(log_level(parser)?),
            Arg::Value(value) if file.is_none() => file = Some(PathBuf::from(value)),
            other => return common(other, TEST_HELP),
        }
    }
    let file = file.ok_or_else(|| CommandError::Usage("test needs a FILE with policy tests".to_owned()))?;
    Ok(Command::Test(policy_test::TestOptions { file, sources }, level.unwrap_or(LevelFilter::Warn.into())))
}

fn path(parser: &mut Parser) -> Result<PathBuf, CommandError> {
    parser.value().map(PathBuf::from).map_err(usage)
}

fn word(parser: &mut Parser) -> Result<String, CommandError> {
    parser.value().and_then(|value| value.string()).map_err(usage)
}

fn attribute(text: &str) -> Result<(String, String), CommandError> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(CommandError::Usage(format!("--attribute takes NAME=VALUE, not '{}'", text.escape_debug()))),
    }
}

fn time(text: &str) -> Result<UnixTime, CommandError> {
    UnixTime::from_rfc_3339(text).ok_or_else(|| {
        CommandError::Usage(format!("--at takes a time like 2026-12-31T08:00:00Z, not '{}'", text.escape_debug()))
    })
}
