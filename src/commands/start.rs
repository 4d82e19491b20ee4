//! From a configuration to a broker that serves: what was prepared, tables, sockets, tasks.

use super::CommandError;
use super::bridges::Bridges;
use super::diagnostics;
use super::facts;
use super::memory;
use super::paths::Paths;
use super::prepare::{Known, Prepared, prepare};
use super::reload::Origin;
use super::state_folder;
use crate::authentication::{Answer, Question, SignatureMemo};
use crate::broker::{Broker, QUESTIONS_MAX, Ticket};
use crate::config::blob::{Bind, Configuration, ListenerPort, Protocol};
use crate::net::{
    ClockTrust, Inside, ListenerSettings, Services, Sleeper, SystemNetwork, Transport, Turn, TurnSettings, bind, serve,
};
use crate::platform::{self, Clock as _, ServiceManager, SystemClock};
use crate::service::web::Context;
use crate::service::{self, ClockRecord, History, Inquiries, Machine, Probing, Updates};
use core::cell::RefCell;
use smol::channel::{self, Sender};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::Arc;

/// Changes that wait for the loop.
const CHANGES_MAX: usize = 16;

/// A configuration on its way to being served.
pub struct Candidate {
    /// The configuration.
    pub configuration: Configuration,
    /// Where the rest lies.
    pub paths: Paths,
    /// What it was made into.
    pub prepared: Prepared,
    /// When the clock was last believed.
    pub clock_record: ClockRecord,
    /// Signatures of certificates that were verified already.
    pub signatures: Arc<SignatureMemo>,
}

impl Candidate {
    /// Makes everything of a configuration that is to be found out before anything is taken from the machine.
    ///
    /// # Errors
    /// As [`prepare`].
    pub fn new(configuration: Configuration, paths: Paths) -> Result<Self, CommandError> {
        let clock_record = ClockRecord::open(paths.state.as_deref(), SystemClock::unix());
        let signatures = Arc::new(SignatureMemo::new(configuration.board.capacities.sessions));
        let known = Known { revoked: None, clock_floor: clock_record.floor(), signatures: Arc::clone(&signatures) };
        let prepared = prepare(&configuration, &paths, &known)?;
        Ok(Self { configuration, paths, prepared, clock_record, signatures })
    }
}

/// Serves until a signal. `origin` is the blob to read again when it changes, if there is one. `ready` is called once all ports
/// are bound, with their addresses.
///
/// # Errors
/// [`CommandError::CannotStart`]: a port is taken, or the memory does not suffice.
pub fn start(
    candidate: Candidate,
    origin: Option<Origin>,
    ready: impl FnOnce(&[SocketAddr]) -> Result<(), CommandError>,
) -> Result<(), CommandError> {
    let Candidate { configuration, paths, prepared, clock_record, signatures } = candidate;
    let Prepared { revocation, admission, settings, transports, inquiries, judges, watched, faults } = prepared;
    let capacities = &configuration.board.capacities;
    check_memory(&configuration)?;
    for fault in faults {
        log::error!("{fault}");
    }
    let seed = platform::seed().map_err(|error| cannot_start(format!("no entropy from the system: {error}")))?;
    let clock = SystemClock::start();
    let clock_trust = ClockTrust { floor: clock_record.floor(), has_chip: platform::has_clock_chip() };
    let mut broker = Broker::new(capacities, &configuration.clients, &settings, admission, seed);
    // Before anybody can connect: who comes finds everything that was promised.
    let store = state_folder::bring_back(&configuration, &paths, judges, clock_trust, clock.now(), &mut broker)?;
    let (listeners, listener_settings) = open_ports(&configuration, &transports)?;
    let addresses: Vec<SocketAddr> = listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect();
    let blob = origin.as_ref().map(|origin| (&*origin.blob, &*origin.contents));
    let mut facts = facts::of(&configuration, blob, Rc::clone(&inquiries));
    let ports = listener_settings.iter().map(|listener| listener.port);
    facts::set_addresses(&mut facts, ports.zip(&listeners));
    facts.applied = clock.now().instant;
    let facts = Rc::new(RefCell::new(facts));
    let network = SystemNetwork::new(listeners).map_err(|error| cannot_start(format!("no poller: {error}")))?;
    let sleeper = Sleeper::new(network.descriptor()).map_err(|error| cannot_start(format!("no poller: {error}")))?;
    let turn_settings = TurnSettings { listeners: listener_settings, capacities: capacities.clone(), clock_trust };
    let turn = Turn::new(network, broker, turn_settings);
    // Kept until the end: with it the control socket goes away.
    let guards = diagnostics::Known { clock_floor: clock_record.floor(), signatures: Arc::clone(&signatures) };
    let mut doors = diagnostics::open(&configuration, &paths, &guards)?;
    let executor = Rc::new(smol::LocalExecutor::new());
    let (answer, answers) = channel::bounded(QUESTIONS_MAX as usize);
    let (change, changes) = channel::bounded(CHANGES_MAX);
    let inquirer = Inquirer { executor: Rc::clone(&executor), answer };
    let questions = inquirer.serve(inquiries);
    let hangups = service::hangups().map_err(|error| cannot_start(format!("cannot listen to SIGHUP: {error}")))?;
    let terminations =
        service::terminations().map_err(|error| cannot_start(format!("cannot listen to SIGTERM: {error}")))?;
    let more =
        service::first_user_signals().map_err(|error| cannot_start(format!("cannot listen to SIGUSR1: {error}")))?;
    let (stop, stops) = channel::bounded(1);
    let (inside, asks) = Inside::new();
    let self_check = configuration.diagnostics.self_check;
    let known = diagnostics::Known { clock_floor: clock_record.floor(), signatures };
    let manager = Rc::new(ServiceManager::from_environment());
    let told = facts::Told { facts: Rc::clone(&facts), clock, manager: Rc::clone(&manager) };
    let bridges = Bridges::start(Rc::clone(&executor), inside.clone(), paths.clone(), &configuration);
    let statuses = bridges.statuses();
    let updates = Updates::new(Machine::from_environment(), paths.state.as_deref(), Rc::clone(&manager));
    let source = origin.map(|origin| {
        origin.keep(&paths);
        origin.watch(configuration, paths, revocation, known, Beside { inquirer, bridges }, told)
    });
    ready(&addresses)?;
    log::info!("ready");
    let probed = service::SharedReport::default();
    let services = Services {
        questions,
        answers: Box::pin(answers),
        changes: Box::pin(changes),
        stops: Box::pin(stops),
        store,
        asks: Some(Box::pin(asks)),
    };
    let history = Rc::new(RefCell::new(History::new()));
    executor.spawn(History::keep(Rc::clone(&history), inside.clone())).detach();
    let context = Context {
        inside: inside.clone(),
        facts: Rc::clone(&facts),
        history,
        probe: Rc::clone(&probed),
        bridges: statuses,
        updates,
    };
    doors.serve(&Rc::new(context), &executor, change.clone());
    executor.spawn(service::stop_on(terminations, stop, Rc::clone(&manager))).detach();
    executor.spawn(service::say_more_on(more)).detach();
    manager.ready();
    let probing = Probing { inside, facts: Rc::clone(&facts), report: probed, manager, settings: self_check };
    executor.spawn(probing.run()).detach();
    executor.spawn(service::watch(watched, source, hangups, change)).detach();
    let clock_record = Rc::new(RefCell::new(clock_record));
    executor.spawn(ClockRecord::keep(Rc::clone(&clock_record), clock)).detach();
    let served = sleeper.run(executor.run(serve(turn, services, sleeper.clone(), &clock)));
    clock_record.borrow_mut().finish(clock.now());
    served.map_err(|error| cannot_start(format!("cannot wait for sockets: {error}")))
}

/// Who works beside the loop and has to do with each new configuration.
pub struct Beside {
    /// Starts those who are asked.
    pub inquirer: Inquirer,
    /// Carry messages to and from other brokers.
    pub bridges: Bridges,
}

/// Starts tasks that take questions to those who answer them.
#[derive(Clone)]
pub struct Inquirer {
    executor: Rc<smol::LocalExecutor<'static>>,
    answer: Sender<(Ticket, Answer)>,
}

impl Inquirer {
    /// Takes the questions of one configuration; ends when nobody asks any more.
    pub fn serve(&self, inquiries: Rc<Inquiries>) -> Sender<(Ticket, Question)> {
        let (questions, asked) = channel::bounded(QUESTIONS_MAX as usize);
        self.executor.spawn(inquiries.serve(Rc::clone(&self.executor), asked, self.answer.clone())).detach();
        questions
    }
}

fn cannot_start(message: String) -> CommandError {
    CommandError::CannotStart(message)
}

/// Says what the broker takes at most, and refuses what the machine does not have.
fn check_memory(configuration: &Configuration) -> Result<(), CommandError> {
    let bytes = memory::sum(configuration);
    log::info!("memory: at most {} KiB, with all tables full", bytes / 1_024);
    match available_memory() {
        Some(available) if available < bytes => Err(cannot_start(format!(
            "not enough memory: the broker takes up to {} KiB, the system has {} KiB available; bake for a smaller board",
            bytes / 1_024,
            available / 1_024
        ))),
        _ => Ok(()),
    }
}

/// Memory that the system can give without swapping, bytes; `None` where it does not say.
fn available_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    platform::kernel_bytes(&text, "MemAvailable")
}

type OpenPorts = (Vec<TcpListener>, Vec<ListenerSettings>);

fn open_ports(configuration: &Configuration, transports: &[Transport]) -> Result<OpenPorts, CommandError> {
    let mut opened: OpenPorts = (Vec::new(), Vec::new());
    for (index, (port, transport)) in (0_u16..).zip(configuration.ports.iter().zip(transports)) {
        let addresses = addresses(configuration, port)?;
        let listening = !matches!(transport, Transport::AwaitsCertificate);
        let listeners = bind(&addresses, port.port, listening).map_err(|error| cannot_start(error.to_string()))?;
        for listener in listeners {
            if let Ok(address) = listener.local_addr() {
                let verb = if listening { "listening on" } else { "waiting for a certificate to listen on" };
                log::info!("{verb} {address}, {}", describe(configuration, port));
            }
            opened.0.push(listener);
            opened.1.push(ListenerSettings {
                port: index,
                transport: transport.clone(),
                websocket: port.protocol == Protocol::WebSockets,
            });
        }
    }
    if opened.0.is_empty() {
        return Err(cannot_start("the configuration has no port to listen on".to_owned()));
    }
    Ok(opened)
}

fn describe(configuration: &Configuration, port: &ListenerPort) -> String {
    let name = |index: Option<u16>, names: &dyn Fn(usize) -> Option<String>| {
        index.and_then(|index| names(usize::from(index))).unwrap_or_else(|| "none".to_owned())
    };
    format!(
        "{}{}, authentication: {}, authorization: {}",
        if port.protocol == Protocol::WebSockets { "WebSockets, " } else { "" },
        if port.tls.is_some() { "TLS" } else { "no TLS" },
        name(port.authentication, &|index| configuration.authentications.get(index).map(|a| a.name.clone())),
        name(port.authorization, &|index| configuration.authorizations.get(index).map(|a| a.name.clone())),
    )
}

fn addresses(configuration: &Configuration, port: &ListenerPort) -> Result<Vec<IpAddr>, CommandError> {
    let (configured, default) = match port.bind {
        Bind::ClusterIp => (
            &configuration.gateway.cluster_ip_addresses,
            [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)].to_vec(),
        ),
        Bind::External => (
            &configuration.gateway.external_addresses,
            [IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)].to_vec(),
        ),
    };
    if configured.is_empty() {
        return Ok(default);
    }
    configured
        .iter()
        .map(|text| text.parse().map_err(|_| cannot_start(format!("'{}' is not an IP address", text.escape_debug()))))
        .collect()
}
