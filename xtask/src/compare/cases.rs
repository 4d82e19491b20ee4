//! What is measured, and what is wanted.

use super::servers::Server;

/// What a load does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// Messages.
    Flow,
    /// Connections that come and go.
    Connects,
    /// Connections that stay.
    Idle,
    /// Nothing: how long a start takes.
    Start,
}

impl Load {
    /// The load generator's word; `None`: it is not needed.
    pub const fn command(self) -> Option<&'static str> {
        match self {
            Self::Flow => Some("flow"),
            Self::Connects => Some("connects"),
            Self::Idle => Some("idle"),
            Self::Start => None,
        }
    }
}

/// One case.
#[derive(Clone, Debug)]
pub struct Case {
    title: String,
    /// What the load does.
    pub load: Load,
    /// Its options.
    pub arguments: Vec<String>,
    /// Whether it comes over mutual TLS.
    pub tls: bool,
    /// Seconds that are measured.
    pub seconds: f64,
    /// Rules of the policy on the TLS port; `None`: no policy.
    pub rules: Option<u32>,
    /// Only our own cost is of interest.
    pub own_growth: bool,
    /// Largest ratio to mosquitto that we want.
    pub wanted: Option<f64>,
    /// The same to the forwarder.
    pub wanted_of_floor: Option<f64>,
    /// The most that we want, in the unit of the case.
    pub most: Option<f64>,
}

impl Case {
    fn new(title: &str, load: Load, tls: bool, arguments: &str) -> Self {
        Self {
            title: title.to_owned(),
            load,
            arguments: arguments.split_whitespace().map(str::to_owned).collect(),
            tls,
            seconds: 2.0,
            rules: None,
            own_growth: false,
            wanted: None,
            wanted_of_floor: None,
            most: None,
        }
    }

    /// What it is called in tables.
    pub fn name(&self) -> String {
        format!("{}, {}", self.title, if self.tls { "mutual TLS" } else { "plaintext" })
    }

    /// Whether this server is measured.
    pub fn is_for(&self, server: Server) -> bool {
        match server {
            Server::Portcullis => true,
            Server::Mosquitto => !self.own_growth,
            // It has nothing to start, keeps no connection in mind, and answers whoever comes.
            Server::Forwarder => !self.own_growth && self.load == Load::Flow,
        }
    }
}

/// A case that needs a server without TLS, and nothing else.
pub fn plain() -> Case {
    Case::new("", Load::Idle, false, "")
}

/// Messages of one publisher under way, by the size of the payload: a connection's buffers, not more.
const WINDOWS: [(usize, u32); 3] = [(64, 512), (1_024, 128), (65_536, 4)];

/// Publishers and subscribers by name, and what the window is divided by.
const SHAPES: [(&str, &str, u32); 4] = [
    ("pairs 50:50", "--publishers 50 --subscribers 50", 1),
    ("fan-in 50:1", "--shape fan --publishers 50 --subscribers 1", 1),
    ("fan-out 1:100", "--shape fan --publishers 1 --subscribers 100", 1),
    ("fan-out 1:1000", "--shape fan --publishers 1 --subscribers 1000", 8),
];

fn flow(shape: (&str, &str, u32), qos: u8, (payload, window): (usize, u32), tls: bool) -> Case {
    let (name, arguments, divisor) = shape;
    let size = if payload < 1_024 { format!("{payload} B") } else { format!("{} KiB", payload / 1_024) };
    let window = (window / divisor).max(1);
    let arguments = format!("{arguments} --qos {qos} --payload {payload} --window {window}");
    let mut case = Case::new(&format!("{name}, QoS {qos}, {size}"), Load::Flow, tls, &arguments);
    case.wanted = match (payload, qos, tls) {
        (64, 0 | 1, false) => Some(0.05),
        (64, 0 | 1, true) => Some(0.06),
        (1_024, 0 | 1, false) => Some(0.10),
        (1_024, 0 | 1, true) => Some(0.14),
        _ => None,
    };
    case.wanted_of_floor = (payload == 64 && qos < 2).then_some(4.0);
    case
}

/// Everything.
pub fn all() -> Vec<Case> {
    let mut cases = Vec::new();
    for tls in [false, true] {
        for size in WINDOWS {
            for shape in SHAPES {
                // A thousand copies of 64 KiB are the sockets' buffers, and no broker's.
                if shape.2 > 1 && size.0 > 1_024 {
                    continue;
                }
                cases.extend((0..3).map(|qos| flow(shape, qos, size, tls)));
            }
        }
        for qos in 0..2 {
            let mut few = Case::new(
                &format!("few under way 4:4, QoS {qos}, 64 B"),
                Load::Flow,
                tls,
                &format!("--publishers 4 --subscribers 4 --window 1 --qos {qos}"),
            );
            few.wanted = Some(0.5);
            let mut paced = Case::new(
                &format!("paced 2000/s 20:20, QoS {qos}, 64 B"),
                Load::Flow,
                tls,
                &format!("--publishers 20 --subscribers 20 --rate 2000 --qos {qos}"),
            );
            paced.seconds = 5.0;
            paced.wanted = Some(0.8);
            paced.wanted_of_floor = Some(1.2);
            cases.extend([few, paced]);
        }
    }
    let mut full = Case::new("connect and leave, full handshake", Load::Connects, true, "");
    full.wanted = Some(0.35);
    full.seconds = 3.0;
    let mut resumed = Case::new("connect and leave, resumed", Load::Connects, true, "--resume");
    resumed.seconds = 3.0;
    cases.extend([full, resumed]);
    for connections in [1_000, 5_000] {
        let title = format!("idle, {connections} connections");
        let idle = Case::new(&title, Load::Idle, true, &format!("--connections {connections}"));
        cases.push(Case { most: Some(10_240.0), ..idle });
    }
    cases.extend(growth());
    cases.push(Case::new("start", Load::Start, false, ""));
    cases
}

/// What must not make a message dearer.
fn growth() -> Vec<Case> {
    let pairs = "--publishers 20 --subscribers 20 --window 256";
    let own = |title: String, tls, more: String| Case {
        own_growth: true,
        ..Case::new(&title, Load::Flow, tls, &format!("{pairs} {more}"))
    };
    let mut cases = Vec::new();
    for count in [10, 1_000, 100_000] {
        let more = format!("--idle-subscriptions {count}");
        cases.push(own(format!("pairs 20:20, {count} other subscriptions"), false, more));
    }
    for count in [10, 1_000, 5_000] {
        let more = format!("--idle-connections {count}");
        cases.push(own(format!("pairs 20:20, {count} other connections"), false, more));
    }
    // The broker remembers routes and decisions of some thousand topics; with more of them each message asks tree and rules.
    for (topics, among) in [(1, ""), (1_000, ", 20000 topics")] {
        for count in [10, 1_000, 10_000] {
            let case = own(format!("pairs 20:20, {count} rules{among}"), true, format!("--topics {topics}"));
            cases.push(Case { rules: Some(count), ..case });
        }
    }
    for count in [10, 100_000] {
        let more = format!("--topics 1000 --idle-subscriptions {count}");
        cases.push(own(format!("pairs 20:20, {count} other subscriptions, 20000 topics"), false, more));
    }
    cases
}

/// A minute of everything.
pub fn smoke() -> Vec<Case> {
    let small = |case: Case, arguments: &str| {
        let arguments = arguments.split_whitespace().map(str::to_owned);
        let arguments = case.arguments.iter().cloned().chain(arguments).collect();
        Case { title: format!("a few of {}", case.title), arguments, ..case }
    };
    let mut cases = Vec::new();
    for tls in [false, true] {
        for qos in 0..3 {
            cases.push(small(flow(SHAPES[0], qos, WINDOWS[0], tls), "--publishers 4 --subscribers 4 --window 32"));
        }
        cases.push(small(flow(SHAPES[2], 1, WINDOWS[1], tls), "--subscribers 10 --window 16"));
        let paced = Case::new("paced, QoS 0, 64 B", Load::Flow, tls, "--publishers 4 --subscribers 4 --rate 200");
        cases.push(paced);
    }
    cases.push(Case::new("connect and leave, full handshake", Load::Connects, true, ""));
    cases.push(Case::new("connect and leave, resumed", Load::Connects, true, "--resume"));
    cases.push(Case::new("idle, 20 connections", Load::Idle, true, "--connections 20"));
    let mut ruled = growth()
        .into_iter()
        .find(|case| case.rules.is_some())
        .map(|case| small(case, "--publishers 2 --subscribers 2 --window 16"));
    if let Some(ruled) = &mut ruled {
        ruled.rules = Some(100);
    }
    cases.extend(ruled);
    cases.push(Case::new("start", Load::Start, false, ""));
    cases
}
