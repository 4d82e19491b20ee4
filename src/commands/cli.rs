//! The command line: what it accepts, and what `--help` says.

mod control;
mod policy;
mod state;
mod update;

use super::control::ControlOptions;
use super::state::StateOptions;
use super::update::UpdateOptions;
use super::{CommandError, bake, bundle, check, demo, diff, explain, inspect, passwd, policy_test, run};
use crate::authentication::PasswordAlgorithm;
use crate::platform::{Levels, LogFormat, Logging};
use lexopt::{Arg, Parser, ValueExt as _};
use log::LevelFilter;
use std::ffi::OsString;
use std::path::PathBuf;

/// A command with its options.
#[derive(Debug, PartialEq, Eq)]
pub enum Command {
    /// Print a text and do nothing.
    Print(String),
    /// `demo`.
    Demo(demo::DemoOptions, Logging),
    /// `run`.
    Run(run::RunOptions, Logging),
    /// `bake`.
    Bake(bake::BakeOptions, Levels),
    /// `check`.
    Check(check::CheckOptions, Levels),
    /// `inspect`.
    Inspect(inspect::InspectOptions, Levels),
    /// `passwd`.
    Passwd(passwd::PasswdOptions, Levels),
    /// `explain`.
    Explain(explain::ExplainOptions, Levels),
    /// `diff`.
    Diff(diff::DiffOptions, Levels),
    /// `test`.
    Test(policy_test::TestOptions, Levels),
    /// `status`, `clients`, `client`, `disconnect`, `sessions`, `retained`, `top`.
    Control(ControlOptions, Levels),
    /// `state`.
    State(StateOptions, Levels),
    /// `bundle`.
    Bundle(bundle::BundleOptions, Levels),
    /// `update`.
    Update(UpdateOptions, Levels),
}

const HELP: &str = "\
Portcullis, an MQTT broker for edge gateways

Usage: portcullis COMMAND [OPTIONS]

Commands:
  demo      Make certificates, start a broker with mutual TLS and attribute-based
            rules, and print commands that try it
  run       Start the broker
  bake      Check a configuration and write it as one blob
  check     Check a configuration and say everything that is wrong with it
  inspect   Show what a blob holds
  passwd    Set the password of a user
  explain   Say whether a client may do something, and why
  diff      Say who gains and loses what between two configurations
  test      Check what a site expects of its policy
  state     Look into the state folder of a broker that does not run
  bundle    Make a signed update for gateways that run the SD-card image
  update    Send one to a gateway, or say how the last one ended

Commands for a broker that runs:
  status      How it is, and what was denied last
  health      Whether it is ready, with an exit code
  log         How much it logs, and to change it
  clients     Who is connected
  client      More of one of them, and what it has subscribed to
  disconnect  End the connection of a client
  sessions    Sessions, with and without a client
  retained    Retained messages
  top         What is going on, again and again

Options, before or after the command:
  --log LEVEL   error, warn, info (default), debug, trace or off; or several, as in
                warn,authorization=debug
  --help        This text, or that of a command: portcullis COMMAND --help
  --version     Version

Exit codes: 0 done, 1 the answer is no (explain, diff, test, state verify, client,
disconnect, update), 2 wrong usage, 3 configuration or update refused, 4 cannot start,
no broker there.
";

const DEMO_HELP: &str = "\
Make the tutorial's certificates, start a broker on them, print what to try

Usage: portcullis demo [--dir DIR] [--port PORT] [--log LEVEL]
                       [--log-format FORMAT]

Makes two certificate authorities in DIR, one for the broker and one for its
clients, with certificates for a thermostat, a hygrometer, a heater and a
lightbulb; what is there already is used and never overwritten. Then serves MQTT
over TLS on PORT, where rules decide who may do what, and on the port behind it,
where every authenticated client may do everything. Stop it with Ctrl-C.

Options:
  --dir DIR     Where certificates and keys are kept (default: demo)
  --port PORT   Port with authorization (default: 8883); PORT+1 has none
  --log LEVEL   error, warn, info, debug (default: also denials), trace or off
  --log-format FORMAT   human (default) or json
";

const RUN_HELP: &str = "\
Start the broker

Usage: portcullis run [--config FILE [--state FOLDER] [--no-fallback]]
                      [--control PATH] [--log LEVELS] [--log-format human|json]

Without --config, an embedded configuration is used: MQTT without TLS and without
authentication on port 1883 of the loopback interface.

Options:
  --config FILE   A blob that `portcullis bake` wrote. Server certificates that it
                  does not embed are read from its secrets folder
  --state FOLDER  What outlives a restart (default: STATE_DIRECTORY, which service
                  managers set, else that of the Gateway resource, `state` beside
                  FILE). It belongs to one broker. The last configuration that was
                  in force is kept there, as last-good.blob
  --no-fallback   Do not start when FILE cannot be used. By default the last
                  configuration that was in force takes its place, with an error in
                  the log; also when FILE is good but does not fit this program
  --control PATH  The socket for the commands that look at a running broker (default:
                  `control.sock` in RUNTIME_DIRECTORY if that is set, else in the
                  state folder). Owner and group may use it
  --log LEVELS    error, warn, info, debug, trace or off (default: that of the
                  configuration, which is info if it says nothing); of a room by
                  itself with ROOM=LEVEL, several with commas between. Rooms are
                  authentication, authorization, bridge, broker, commands, net,
                  service, store, upstream and libraries
  --log-format F  human (default), or json: an object a line

FILE is read again when it changes, and on SIGHUP. Policies, trust, limits and
certificates change while clients stay connected; only those that lost the right
are disconnected. A FILE that cannot be used, or that changes what needs a restart,
is refused with a line in the log, and the configuration from before stays in force.

Files of secrets are looked for in CREDENTIALS_DIRECTORY first, if that is set: as
secrets_NAME_tls.key, and so on. They are what they were at start.

SIGUSR1 has all rooms say one step more: debug, trace, then what it began with.
SIGTERM and SIGINT (Ctrl-C) stop it: every client gets a DISCONNECT first.
";

const BAKE_HELP: &str = "\
Check a configuration and write it as one blob

Usage: portcullis bake SOURCE... --out FILE [--board NAME] [--embed-secrets]

SOURCE is a folder or a file: manifests of Broker, BrokerListener,
BrokerAuthentication, BrokerAuthorization, BrokerBridge, ConfigMap, Secret and
Gateway in YAML or JSON. A folder may also hold
  trust/NAME/*                     PEM files, as the ConfigMap NAME
  keys/NAME/*.json                 JWK Sets of token issuers, as the ConfigMap NAME
  secrets/NAME/tls.crt, tls.key    as the Secret NAME
  NAME.authorization.json          the rules, or the body of a BrokerAuthorization
  NAME.x509.json                   the x509Settings of a BrokerAuthentication
  NAME.authentication.json         the body of a BrokerAuthentication
  NAME.listener.json, NAME.broker.json

Options:
  --out FILE        Where the blob goes; replaced only when all is well
  --board NAME      Board profile, which sizes all tables (default: that of the
                    Gateway resource, else host)
  --embed-secrets   Put server keys into the blob, for images. By default they stay
                    in the secrets folder, so that certificates can be rotated
";

const CHECK_HELP: &str = "\
Check a configuration and say everything that is wrong with it

Usage: portcullis check SOURCE... [--board NAME] [--embed-secrets]

SOURCE is what `portcullis bake` takes. Every mistake is printed with its file,
line and column. Nothing is written.

Options:
  --board NAME      Board profile (default: that of the Gateway resource, else host)
  --embed-secrets   Check as `bake --embed-secrets` does: server keys must be there
";

const INSPECT_HELP: &str = "\
Show what a blob holds: board, listeners, policies, authorities, tables and their
bytes. Key material is never shown.

Usage: portcullis inspect FILE
";

const PASSWD_HELP: &str = "\
Set the password of a user for the method UsernamePassword

Usage: portcullis passwd FILE USER [--attribute NAME=VALUE]... [--algorithm NAME]
       portcullis passwd FILE USER --delete

FILE is secrets/NAME/passwords.toml. If it is not there it is made, for the eyes of
whoever runs this only; else its mode and owner stay. The password is asked for, or is
the first line of the standard input. A running broker reads the file again by itself.

Options:
  --attribute NAME=VALUE   What rules know the user by; others stay as they are
  --algorithm NAME         argon2id (default) or pbkdf2-sha512
  --delete                 Take the user out
";

/// The commands that have no control socket to look through, or do not always.
const NAMES: [&str; 12] =
    ["demo", "run", "bake", "check", "inspect", "passwd", "explain", "diff", "test", "state", "bundle", "update"];

/// Reads the command line without its first word.
///
/// # Errors
/// [`CommandError::Usage`] with a message that says what is wrong and what would be right.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, CommandError> {
    let mut parser = Parser::from_args(arguments);
    let mut level = None;
    loop {
        match parser.next().map_err(usage)? {
            Some(Arg::Long("log")) => level = Some(log_level(&mut parser)?),
            Some(Arg::Long("help") | Arg::Short('h')) => return Ok(Command::Print(HELP.to_owned())),
            Some(Arg::Long("version") | Arg::Short('V')) => return Ok(Command::Print(version())),
            Some(Arg::Value(command)) => return command_line(&command.string().map_err(usage)?, level, parser),
            Some(argument) => return Err(usage(argument.unexpected())),
            None => return Err(CommandError::Usage(format!("no command given\n\n{HELP}"))),
        }
    }
}

fn version() -> String {
    format!("portcullis {}\n", env!("CARGO_PKG_VERSION"))
}

fn command_line(name: &str, level: Option<Levels>, mut parser: Parser) -> Result<Command, CommandError> {
    match name {
        "demo" => demo_command(level, &mut parser),
        "run" => run_command(level, &mut parser),
        "bake" => bake_command(level, &mut parser),
        "check" => check_command(level, &mut parser),
        "inspect" => inspect_command(level, &mut parser),
        "passwd" => passwd_command(level, &mut parser),
        "explain" => policy::explain_command(level, &mut parser),
        "diff" => policy::diff_command(level, &mut parser),
        "test" => policy::test_command(level, &mut parser),
        "state" => state::command(level, &mut parser),
        "bundle" => update::bundle_command(level, &mut parser),
        "update" => update::update_command(level, &mut parser),
        name if control::NAMES.contains(&name) => control::command(name, level, &mut parser),
        "help" => Ok(Command::Print(HELP.to_owned())),
        _ => {
            let nearest = NAMES
                .into_iter()
                .chain(control::NAMES)
                .map(|candidate| (strsim::damerau_levenshtein(candidate, name), candidate))
                .min()
                .filter(|(distance, _)| *distance <= 2);
            let hint = nearest.map(|(_, candidate)| format!("; did you mean '{candidate}'?")).unwrap_or_default();
            Err(CommandError::Usage(format!("unknown command '{}'{hint}\n\n{HELP}", name.escape_debug())))
        }
    }
}

fn demo_command(mut level: Option<Levels>, parser: &mut Parser) -> Result<Command, CommandError> {
    let mut options = demo::DemoOptions { directory: PathBuf::from("demo"), port: 8883 };
    let mut format = LogFormat::default();
    while let Some(argument) = parser.next().map_err(usage)? {
        match argument {
            Arg::Long("log-format") => format = log_format(parser)?,
            Arg::Long("dir") => options.directory = PathBuf::from(parser.value().map_err(usage)?),
            Arg::Long("port") => {
                options.port = parser.value().and_then(|value| value.parse()).map_err(usage)?;
                if options.port == 0 || options.port == u16::MAX {
                    return Err(CommandError::Usage("--port must be between 1 and 65534".to_owned()));
                }
            }
            Arg::Long("log") => level = Some(log_level(parser)?),
            other => return common(other, DEMO_HELP),
        }
    }
    // A demo that does not show its refusals shows half of what it is for.
    Ok(Command::Demo(options, Logging { levels: level.unwrap_or(LevelFilter::Debug.into()), format }))
}

fn run_command(mut level: Option<Levels>, parser: &mut Parser) -> Result<Command, CommandError> {
    let mut options = run::RunOptions::default();
    let mut format = LogFormat::default();
    while let Some(argument) = parser.next().map_err(usage)? {
        match argument {
            Arg::Long("config") => options.configuration = Some(PathBuf::from(parser.value().map_err(usage)?)),
            Arg::Long("state") => options.state = Some(PathBuf::from(parser.value().map_err(usage)?)),
            Arg::Long("no-fallback") => options.no_fallback = true,
            Arg::Long("control") => options.control = Some(PathBuf::from(parser.value().map_err(usage)?)),
            Arg::Long("log-format") => format = log_format(parser)?,
            Arg::Long("log") => level = Some(log_level(parser)?),
            other => return common(other, RUN_HELP),
        }
    }
    if options.configuration.is_none() && (options.state.is_some() || options.no_fallback) {
        return Err(CommandError::Usage("--state and --no-fallback need --config FILE".to_owned()));
    }
    options.keeps_log_levels = level.is_some();
    Ok(Command::Run(options, Logging { levels: level.unwrap_or(LevelFilter::Info.into()), format }))
}

fn bake_command(mut level: Option<Levels>, parser: &mut Parser) -> Result<Command, CommandError> {
    let (mut sources, mut out, mut board, mut embed_secrets) = (Vec::new(), None, None, false);
    while let Some(argument) = parser.next().map_err(usage)? {
        match argument {
            Arg::Long("out") | Arg::Short('o') => out = Some(PathBuf::from(parser.value().map_err(usage)?)),
            Arg::Long("board") => board = Some(parser.value().map_err(usage)?.string().map_err(usage)?),
            Arg::Long("embed-secrets") => embed_secrets = true,
            Arg::Long("log") => level = Some(log_level(parser)?),
            Arg::Value(source) => sources.push(PathBuf::from(source)),
            other => return common(other, BAKE_HELP),
        }
    }
    let out = out.ok_or_else(|| CommandError::Usage("bake needs --out FILE".to_owned()))?;
    require_sources(&sources, "bake")?;
    let options = bake::BakeOptions { sources, out, board, embed_secrets };
    Ok(Command::Bake(options, level.unwrap_or(LevelFilter::Info.into())))
}

fn check_command(mut level: Option<Levels>, parser: &mut Parser) -> Result<Command, CommandError> {
    let (mut sources, mut board, mut embed_secrets) = (Vec::new(), None, false);
    while let Some(argument) = parser.next().map_err(usage)? {
        match argument {
            Arg::Long("board") => board = Some(parser.value().map_err(usage)?.string().map_err(usage)?),
            Arg::Long("embed-secrets") => embed_secrets = true,
            Arg::Long("log") => level = Some(log_level(parser)?),
            Arg::Value(source) => sources.push(PathBuf::from(source)),
            other => return common(other, CHECK_HELP),
        }
    }
    require_sources(&sources, "check")?;
    Ok(Command::Check(check::CheckOptions { sources, board, embed_secrets }, level.unwrap_or(LevelFilter::Info.into())))
}

fn inspect_command(mut level: Option<Levels>, parser: &mut Parser) -> Result<Command, CommandError> {
    let mut file = None;
    while let Some(argument) = parser.next().map_err(usage)? {
        match argument {
            Arg::Long("log") => level = Some(log_level(parser)?),
            Arg::Value(value) if file.is_none() => file = Some(PathBuf::from(value)),
            other => return common(other, INSPECT_HELP),
        }
    }
    let file = file.ok_or_else(|| CommandError::Usage("inspect needs a FILE".to_owned()))?;
    Ok(Command::Inspect(inspect::InspectOptions { file }, level.unwrap_or(LevelFilter::Info.into())))
}

fn passwd_command(mut level: Option<Levels>, parser: &mut Parser) -> Result<Command, CommandError> {
    let (mut words, mut delete, mut attributes) = (Vec::new(), false, Vec::new());
    let mut algorithm = PasswordAlgorithm::Argon2id;
    while let Some(argument) = parser.next().map_err(usage)? {
        match argument {
            Arg::Long("delete") => delete = true,
            Arg::Long("attribute") => {
                let given = parser.value().map_err(usage)?.string().map_err(usage)?;
                let Some((name, value)) = given.split_once('=').filter(|(name, _)| !name.is_empty()) else {
                    return Err(CommandError::Usage("--attribute takes NAME=VALUE".to_owned()));
                };
                attributes.push((name.to_owned(), value.to_owned()));
            }
            Arg::Long("algorithm") => {
                algorithm = match parser.value().map_err(usage)?.string().map_err(usage)?.as_str() {
                    "argon2id" => PasswordAlgorithm::Argon2id,
                    "pbkdf2-sha512" => PasswordAlgorithm::Pbkdf2Sha512,
                    _ => return Err(CommandError::Usage("--algorithm takes argon2id or pbkdf2-sha512".to_owned())),
                }
            }
            Arg::Long("log") => level = Some(log_level(parser)?),
            Arg::Value(word) if words.len() < 2 => words.push(word),
            other => return common(other, PASSWD_HELP),
        }
    }
    let Ok([file, user]) = <[OsString; 2]>::try_from(words) else {
        return Err(CommandError::Usage("passwd needs a FILE and a USER".to_owned()));
    };
    if delete && !attributes.is_empty() {
        return Err(CommandError::Usage("--delete takes no --attribute".to_owned()));
    }
    let (file, user) = (PathBuf::from(file), user.string().map_err(usage)?);
    let options = passwd::PasswdOptions { file, user, delete, attributes, algorithm };
    Ok(Command::Passwd(options, level.unwrap_or(LevelFilter::Info.into())))
}

fn require_sources(sources: &[PathBuf], command: &str) -> Result<(), CommandError> {
    if sources.is_empty() {
        return Err(CommandError::Usage(format!("{command} needs at least one SOURCE, a folder or a file")));
    }
    Ok(())
}

/// What every command understands, or the complaint about what it does not.
fn common(argument: Arg<'_>, help: &str) -> Result<Command, CommandError> {
    match argument {
        Arg::Long("help") | Arg::Short('h') => Ok(Command::Print(help.to_owned())),
        Arg::Long("version") | Arg::Short('V') => Ok(Command::Print(version())),
        other => Err(usage(other.unexpected())),
    }
}

fn log_level(parser: &mut Parser) -> Result<Levels, CommandError> {
    let value = parser.value().map_err(usage)?.string().map_err(usage)?;
    Levels::parse(&value).map_err(|fault| CommandError::Usage(format!("--log: {fault}")))
}

fn log_format(parser: &mut Parser) -> Result<LogFormat, CommandError> {
    let value = parser.value().map_err(usage)?.string().map_err(usage)?;
    match value.as_str() {
        "human" => Ok(LogFormat::Human),
        "json" => Ok(LogFormat::Json),
        other => Err(CommandError::Usage(format!("--log-format takes human or json, not '{}'", other.escape_debug()))),
    }
}

fn usage(error: lexopt::Error) -> CommandError {
    CommandError::Usage(error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Command, CommandError> {
        parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn every_command_has_its_own_help() {
        for command in NAMES.into_iter().chain(control::NAMES) {
            let Ok(Command::Print(help)) = parsed(&format!("{command} --help")) else { panic!("{command}") };
            assert!(help.contains(&format!("Usage: portcullis {command}")), "{help}");
        }
    }

    #[test]
    fn the_log_level_may_stand_on_either_side() {
        let options = run::RunOptions { keeps_log_levels: true, ..run::RunOptions::default() };
        for line in ["--log warn run", "run --log warn"] {
            assert_eq!(parsed(line), Ok(Command::Run(options.clone(), Levels::from(LevelFilter::Warn).into())));
        }
    }

    #[test]
    fn a_mistyped_command_is_named_with_its_neighbour() {
        let Err(error) = parsed("chekc") else { panic!("accepted") };
        assert!(error.to_string().starts_with("unknown command 'chekc'; did you mean 'check'?"), "{error}");
        assert_eq!(error.exit_code(), 2);
    }

    #[test]
    fn what_is_missing_is_said() {
        for (line, part) in [
            ("", "no command"),
            ("bake config", "--out"),
            ("bake --out x", "SOURCE"),
            ("check", "SOURCE"),
            ("inspect", "FILE"),
            ("passwd file", "USER"),
            ("passwd file user --attribute x", "NAME=VALUE"),
            ("passwd file user --algorithm md5", "argon2id"),
            ("run --nonsense", "--nonsense"),
            ("run --log loud", "loud"),
            ("run --state folder", "--config"),
            ("demo --port 65535", "--port"),
            ("demo --port many", "many"),
            ("explain", "SOURCE"),
            ("explain site", "who is the client"),
            ("explain site --username u publish", "needs a topic"),
            ("explain site --username u connect x", "no resource"),
            ("explain site --username u publish a b", "what is 'b' for"),
            ("explain site --attribute a", "NAME=VALUE"),
            ("explain site --certificate c --attribute a=b", "--attribute"),
            ("explain site --certificate c --token t", "exclude"),
            ("explain site --username u --at noon", "--at takes"),
            ("diff old", "OLD and NEW"),
            ("test", "FILE"),
            ("client", "ID"),
            ("disconnect --json", "ID"),
            ("status x", "x"),
            ("clients --once", "--once"),
            ("bundle --board b --version 1 --slot s --out o", "--key"),
            ("bundle --key k --version 1 --slot s --out o", "--board"),
            ("bundle --key k --board b --slot s --out o", "--version"),
            ("bundle --key k --board b --version 0 --slot s --out o", "at least 1"),
            ("bundle --key k --board b --version x --slot s --out o", "x"),
            ("bundle --key k --board b --version 1 --out o", "--blob"),
            ("bundle --key k --board b --version 1 --slot s", "--out"),
            ("bundle --slot s --blob b", "one --blob"),
            ("bundle --slot s --with secrets", "belongs to --blob"),
            ("bundle --blob b --blob c", "--blob"),
            ("update --no-wait", "FILE"),
            ("update file --wait 0", "86400"),
            ("update file --no-wait --wait 5", "exclude"),
            ("update file --cert c", "belong together"),
            ("update file --token-file t", "--to HOST"),
            ("update file --to host --control c", "exclude"),
            ("update file other", "other"),
            ("state inspect", "FOLDER"),
            ("state look folder", "no 'look'"),
            ("state compact folder --json", "--json"),
            ("state verify folder --output x", "--output"),
        ] {
            let Err(CommandError::Usage(message)) = parsed(line) else { panic!("accepted: {line}") };
            assert!(message.contains(part), "{line}: {message}");
        }
    }
}
