//! The command line.

use crate::{Failure, connects, flow, forward, idle, pki};
use lexopt::{Arg, ValueExt as _};
use serde_json::Value;
use std::path::PathBuf;
use std::time::Duration;

/// How messages go from publishers to subscribers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Publisher i to subscriber i.
    Pairs,
    /// From every publisher to every subscriber.
    Fan,
}

/// What was asked for.
#[derive(Clone, Debug)]
pub struct Options {
    command: Command,
    /// Port of the broker, or to listen on.
    pub port: u16,
    /// Process of the broker.
    pub pid: u32,
    /// Folder of [`pki::create`]; without it there is no TLS.
    pub tls: Option<PathBuf>,
    /// Clients that publish.
    pub publishers: usize,
    /// Clients that subscribe.
    pub subscribers: usize,
    /// Who gets what.
    pub shape: Shape,
    /// Quality of service of messages and subscriptions.
    pub qos: u8,
    /// Bytes of a payload.
    pub payload: usize,
    /// Topics of each publisher, which it takes in turn; more than one with pairs only.
    pub topics: usize,
    /// Messages of one publisher under way.
    pub window: usize,
    /// Messages a second in all; `None`: as many as the window allows.
    pub rate: Option<u32>,
    /// What is measured.
    pub time: Duration,
    /// What comes before.
    pub warm_up: Duration,
    /// Subscriptions that match nothing.
    pub idle_subscriptions: usize,
    /// Connections that do nothing, or all of `idle`.
    pub connections: usize,
    /// Connections that are made at one time.
    pub at_once: usize,
    /// Whether TLS sessions are resumed.
    pub resume: bool,
    /// Certificates to make.
    pub clients: usize,
}

#[derive(Clone, Debug)]
enum Command {
    Help,
    Pki(PathBuf),
    Forward,
    Flow,
    Connects,
    Idle,
}

/// Reads the command line.
pub fn read() -> Result<Options, Failure> {
    let mut parser = lexopt::Parser::from_env();
    let mut options = Options {
        command: Command::Help,
        port: 0,
        pid: 0,
        tls: None,
        publishers: 50,
        subscribers: 50,
        shape: Shape::Pairs,
        qos: 0,
        payload: 64,
        topics: 1,
        window: 512,
        rate: None,
        time: Duration::from_secs(2),
        warm_up: Duration::from_millis(500),
        idle_subscriptions: 0,
        connections: 0,
        at_once: 4,
        resume: false,
        clients: 64,
    };
    let mut words = Vec::new();
    while let Some(argument) = parser.next()? {
        match argument {
            Arg::Short('h') | Arg::Long("help") => return Ok(Options { command: Command::Help, ..options }),
            Arg::Long("port") => options.port = parser.value()?.parse()?,
            Arg::Long("pid") => options.pid = parser.value()?.parse()?,
            Arg::Long("tls") => options.tls = Some(parser.value()?.into()),
            Arg::Long("publishers") => options.publishers = parser.value()?.parse()?,
            Arg::Long("subscribers") => options.subscribers = parser.value()?.parse()?,
            Arg::Long("shape") => options.shape = parser.value()?.parse_with(shape)?,
            Arg::Long("qos") => options.qos = parser.value()?.parse()?,
            Arg::Long("payload") => options.payload = parser.value()?.parse()?,
            Arg::Long("topics") => options.topics = parser.value()?.parse()?,
            Arg::Long("window") => options.window = parser.value()?.parse()?,
            Arg::Long("rate") => options.rate = Some(parser.value()?.parse()?),
            Arg::Long("seconds") => options.time = parser.value()?.parse_with(seconds)?,
            Arg::Long("warm-up") => options.warm_up = parser.value()?.parse_with(seconds)?,
            Arg::Long("idle-subscriptions") => options.idle_subscriptions = parser.value()?.parse()?,
            Arg::Long("idle-connections" | "connections") => options.connections = parser.value()?.parse()?,
            Arg::Long("at-once") => options.at_once = parser.value()?.parse()?,
            Arg::Long("resume") => options.resume = true,
            Arg::Long("clients") => options.clients = parser.value()?.parse()?,
            Arg::Value(word) if words.len() < 2 => words.push(word),
            other => return Err(other.unexpected().into()),
        }
    }
    let mut words = words.into_iter();
    let name = words.next().map(|word| word.to_string_lossy().into_owned()).unwrap_or_default();
    options.command = match (name.as_str(), words.next()) {
        ("", _) => Command::Help,
        ("pki", Some(folder)) => Command::Pki(folder.into()),
        ("forward", None) => Command::Forward,
        ("flow", None) => Command::Flow,
        ("connects", None) => Command::Connects,
        ("idle", None) => Command::Idle,
        (other, _) => return Err(format!("`{other}` is not understood; `load --help` tells the commands").into()),
    };
    options.check()?;
    Ok(options)
}

fn shape(text: &str) -> Result<Shape, &'static str> {
    match text {
        "pairs" => Ok(Shape::Pairs),
        "fan" => Ok(Shape::Fan),
        _ => Err("is it pairs or fan?"),
    }
}

fn seconds(text: &str) -> Result<Duration, &'static str> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds")?;
    Duration::try_from_secs_f64(seconds).map_err(|_| "not a number of seconds")
}

impl Options {
    fn check(&self) -> Result<(), Failure> {
        let most = |name: &str, value: usize, most: usize| {
            if (1..=most).contains(&value) { Ok(()) } else { Err(format!("--{name} is 1 to {most}")) }
        };
        most("publishers", self.publishers, 10_000)?;
        most("subscribers", self.subscribers, 10_000)?;
        most("window", self.window, 32_768)?;
        most("topics", self.topics, 10_000)?;
        most("at-once", self.at_once, 64)?;
        most("clients", self.clients, 1_000)?;
        if !(flow::STAMP_BYTES..=1 << 20).contains(&self.payload) {
            return Err(format!("--payload is {} to 1048576", flow::STAMP_BYTES).into());
        }
        if self.qos > 2 {
            return Err("--qos is 0, 1 or 2".into());
        }
        if self.shape == Shape::Fan && self.topics > 1 {
            return Err("--topics is for pairs".into());
        }
        if self.shape == Shape::Pairs && self.publishers != self.subscribers {
            return Err("pairs have as many publishers as subscribers".into());
        }
        Ok(())
    }

    /// Does what was asked for. `None`: it was help.
    pub fn run(&self) -> Result<Option<Value>, Failure> {
        let result = match &self.command {
            Command::Help => return Ok(None),
            Command::Pki(folder) => pki::create(folder, self.clients)?,
            Command::Forward => forward::run(self)?,
            Command::Flow => flow::run(self)?,
            Command::Connects => connects::run(self)?,
            Command::Idle => idle::run(self)?,
        };
        Ok(Some(result))
    }
}
