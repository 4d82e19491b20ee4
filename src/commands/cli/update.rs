//! The command lines of those that make and send updates.

use super::{Command, common, log_level, usage};
use crate::commands::CommandError;
use crate::commands::bundle::{BundleOptions, Payload};
use crate::commands::update::{Remote, UpdateOptions};
use crate::platform::Levels;
use lexopt::{Arg, Parser, ValueExt as _};
use log::LevelFilter;
use std::path::PathBuf;
use std::time::Duration;

const BUNDLE_HELP: &str = "\
Make a signed update for gateways that run the SD-card image

Usage: portcullis bundle --key FILE --board NAME --version N [--release TEXT]
                         (--blob FILE [--with FOLDER]... | --slot FILE) --out FILE

A gateway takes it if its image has the public half of the key, if it is for its
board, and if N is greater than that of what it replaces.

Options:
  --key FILE      The private key, Ed25519, PKCS#8 in PEM, as `openssl genpkey
                  -algorithm ed25519` makes it. Keep it away from gateways
  --board NAME    The board that it is for
  --version N     Its number, at least 1
  --release TEXT  What people call it, at most 64 characters (default: the version of
                  this program)
  --blob FILE     A configuration: what `portcullis bake --board NAME` wrote
  --with FOLDER   A folder `secrets`, `issuers` or `revocation` that takes the place of
                  the gateway's as a whole. What is not sent stays as it is there.
                  May stand several times
  --slot FILE     The system: portcullis-BOARD.slot, which `cargo xtask image` wrote
  --out FILE      Where the update goes; replaced only when all is well
";

const UPDATE_HELP: &str = "\
Send an update to a gateway that runs the SD-card image, and wait until it is kept

Usage: portcullis update FILE [--control PATH | --to HOST[:PORT]...] [OPTIONS]
       portcullis update      [--control PATH | --to HOST[:PORT]...] [OPTIONS]

FILE is what `portcullis bundle` or `cargo xtask image` made. The gateway checks it,
tries it, and goes back to what ran before if it is not ready in time: a system
within five minutes, a configuration within two. Without FILE: what runs there, and
how the last update ended.

Options:
  --to HOST[:PORT]   A gateway elsewhere, over TLS (default port: 9600). Its Gateway
                     resource has to say `diagnosticsTls: {updates: Allowed}`. May
                     stand several times: one after the other, and where one does not
                     keep it, the next are left as they are
  --cafile FILE      Authorities, PEM, to check gateways with (default: those of the
                     system)
  --cert FILE        The certificate to show, PEM, and
  --key FILE         its key
  --token-file FILE  The token to bring
  --control PATH     The control socket of the broker on this machine (default: as for
                     `portcullis status`)
  --no-wait          Do not wait until it is kept
  --wait SECONDS     How long a gateway may say nothing new, or not answer while it
                     starts (default: 600)

Exit codes: 0 kept, or sent with --no-wait; 1 refused, or not kept; 2 wrong usage;
3 FILE is no update; 4 no gateway answers.
";

/// How long a gateway may say nothing new, seconds: a slow one with a large card starts in two minutes, and tries for five.
const WAIT_SECONDS: u64 = 600;
/// The longest that may be asked for: a day.
const WAIT_SECONDS_MAX: u64 = 86_400;

/// Reads the words behind `bundle`.
pub fn bundle_command(mut level: Option<Levels>, parser: &mut Parser) -> Result<Command, CommandError> {
    let (mut key, mut board, mut version, mut out) = (None, None, None, None);
    let (mut blob, mut folders, mut slot) = (None, Vec::new(), None);
    let mut release = env!("CARGO_PKG_VERSION").to_owned();
    while let Some(argument) = parser.next().map_err(usage)? {
        match argument {
            Arg::Long("key") => key = Some(PathBuf::from(parser.value().map_err(usage)?)),
            Arg::Long("board") => board = Some(parser.value().map_err(usage)?.string().map_err(usage)?),
            Arg::Long("version") => version = Some(parser.value().and_then(|value| value.parse()).map_err(usage)?),
            Arg::Long("release") => release = parser.value().map_err(usage)?.string().map_err(usage)?,
            Arg::Long("blob") if blob.is_none() => blob = Some(PathBuf::from(parser.value().map_err(usage)?)),
            Arg::Long("with") => folders.push(PathBuf::from(parser.value().map_err(usage)?)),
            Arg::Long("slot") if slot.is_none() => slot = Some(PathBuf::from(parser.value().map_err(usage)?)),
            Arg::Long("out") | Arg::Short('o') => out = Some(PathBuf::from(parser.value().map_err(usage)?)),
            Arg::Long("log") => level = Some(log_level(parser)?),
            other => return common(other, BUNDLE_HELP),
        }
    }
    let needs = |what: &str| CommandError::Usage(format!("bundle needs {what}"));
    let payload = match (blob, slot) {
        (Some(blob), None) => Payload::Configuration { blob, folders },
        (None, Some(slot)) if folders.is_empty() => Payload::Slot(slot),
        (None, Some(_)) => return Err(CommandError::Usage("--with FOLDER belongs to --blob FILE".to_owned())),
        (Some(_), Some(_)) => {
            return Err(CommandError::Usage("bundle takes one --blob FILE or one --slot FILE".to_owned()));
        }
        (None, None) => return Err(needs("--blob FILE or --slot FILE")),
    };
    let version = version.filter(|version| *version > 0).ok_or_else(|| needs("--version N, at least 1"))?;
    let options = BundleOptions {
        key: key.ok_or_else(|| needs("--key FILE"))?,
        board: board.ok_or_else(|| needs("--board NAME"))?,
        version,
        release,
        payload,
        out: out.ok_or_else(|| needs("--out FILE"))?,
    };
    Ok(Command::Bundle(options, level.unwrap_or(LevelFilter::Info.into())))
}

/// Reads the words behind `update`.
pub fn update_command(mut level: Option<Levels>, parser: &mut Parser) -> Result<Command, CommandError> {
    let (mut file, mut socket, mut waits, mut seconds) = (None, None, true, None);
    let (mut remote, mut certificate, mut key) = (Remote::default(), None, None);
    while let Some(argument) = parser.next().map_err(usage)? {
        match argument {
            Arg::Long("to") => remote.hosts.push(parser.value().map_err(usage)?.string().map_err(usage)?),
            Arg::Long("cafile") => remote.authorities = Some(PathBuf::from(parser.value().map_err(usage)?)),
            Arg::Long("cert") => certificate = Some(PathBuf::from(parser.value().map_err(usage)?)),
            Arg::Long("key") => key = Some(PathBuf::from(parser.value().map_err(usage)?)),
            Arg::Long("token-file") => remote.token = Some(PathBuf::from(parser.value().map_err(usage)?)),
            Arg::Long("control") => socket = Some(PathBuf::from(parser.value().map_err(usage)?)),
            Arg::Long("no-wait") => waits = false,
            Arg::Long("wait") => seconds = Some(parser.value().and_then(|value| value.parse()).map_err(usage)?),
            Arg::Long("log") => level = Some(log_level(parser)?),
            Arg::Value(value) if file.is_none() => file = Some(PathBuf::from(value)),
            other => return common(other, UPDATE_HELP),
        }
    }
    let wrong = |message: &str| Err(CommandError::Usage(message.to_owned()));
    remote.identity = match (certificate, key) {
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (None, None) => None,
        (Some(_), None) | (None, Some(_)) => return wrong("--cert and --key belong together"),
    };
    let has_tls = remote.authorities.is_some() || remote.identity.is_some() || remote.token.is_some();
    if remote.hosts.is_empty() && has_tls {
        return wrong("--cafile, --cert, --key and --token-file belong to --to HOST");
    }
    if !remote.hosts.is_empty() && socket.is_some() {
        return wrong("--to and --control exclude each other");
    }
    if file.is_none() && (!waits || seconds.is_some()) {
        return wrong("--no-wait and --wait belong to a FILE");
    }
    if !waits && seconds.is_some() {
        return wrong("--no-wait and --wait exclude each other");
    }
    let seconds: u64 = seconds.unwrap_or(WAIT_SECONDS);
    if !(1..=WAIT_SECONDS_MAX).contains(&seconds) {
        return wrong("--wait takes 1 to 86400 seconds");
    }
    let options = UpdateOptions { file, socket, remote, waits, patience: Duration::from_secs(seconds) };
    Ok(Command::Update(options, level.unwrap_or(LevelFilter::Info.into())))
}
