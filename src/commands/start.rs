//! From a configuration to a broker that serves: tables, policies, certificates, sockets.

use super::CommandError;
use super::paths::Paths;
use super::{surroundings, transport};
use crate::authentication::Authenticator;
use crate::authorization::Policy;
use crate::broker::{Admission, Broker, PortAdmission, QUESTIONS_MAX, Settings};
use crate::config::blob::{Bind, ClientIdentifiers, Configuration, ExpiryNotice, Gateway, ListenerPort, Protocol};
use crate::crypto;
use crate::limits::Capacities;
use crate::net::{ListenerSettings, Services, SystemNetwork, Transport, Turn, TurnSettings, bind, serve};
use crate::platform::{self, Clock as _, SystemClock};
use crate::service::{self, ClockRecord, Watched};
use crate::time::UnixTime;
use core::cell::RefCell;
use smol::channel;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::rc::Rc;

/// Changes that wait for the loop.
const CHANGES_MAX: usize = 16;

/// Serves `configuration` until a signal. `ready` is called once all ports are bound, with their addresses.
///
/// # Errors
/// [`CommandError::CannotStart`]: a port is taken, a key cannot be read or does not fit, the memory does not suffice.
pub fn start(
    configuration: &Configuration,
    paths: &Paths,
    ready: impl FnOnce(&[SocketAddr]) -> Result<(), CommandError>,
) -> Result<(), CommandError> {
    let capacities = &configuration.board.capacities;
    check_memory(capacities)?;
    if paths.revocation.exists() {
        // Whoever made the folder counts on it.
        let folder = paths.revocation.display();
        return Err(cannot_start(format!("{folder}: revocation lists are not served yet")));
    }
    let clock_record = ClockRecord::open(paths.state.as_deref(), SystemClock::unix());
    let mut admission = admission(configuration, clock_record.floor())?;
    let mut watched = Vec::new();
    surroundings::load_passwords(configuration, paths, &mut admission.authenticators, &mut watched);
    let inquiries = surroundings::inquiries(configuration, paths, &mut watched);
    let (listeners, settings) = open_ports(configuration, &admission, paths, &mut watched)?;
    let addresses: Vec<SocketAddr> = listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect();
    let seed = platform::seed().map_err(|error| cannot_start(format!("no entropy from the system: {error}")))?;
    let broker =
        Broker::new(capacities, &configuration.clients, &broker_settings(&configuration.gateway), admission, seed);
    let network = SystemNetwork::new(listeners).map_err(|error| cannot_start(format!("no poller: {error}")))?;
    let turn = Turn::new(network, broker, TurnSettings { listeners: settings, capacities: capacities.clone() });
    let clock = SystemClock::start();
    ready(&addresses)?;
    log::info!("ready");
    let (questions, asked) = channel::bounded(QUESTIONS_MAX as usize);
    let (answer, answers) = channel::bounded(QUESTIONS_MAX as usize);
    let (change, changes) = channel::bounded(CHANGES_MAX);
    let services = Services { questions, answers, changes };
    let executor = Rc::new(smol::LocalExecutor::new());
    executor.spawn(inquiries.serve(Rc::clone(&executor), asked, answer)).detach();
    executor.spawn(service::watch(watched, change)).detach();
    let clock_record = Rc::new(RefCell::new(clock_record));
    executor.spawn(ClockRecord::keep(Rc::clone(&clock_record), clock)).detach();
    let served = async_io::block_on(executor.run(serve(turn, &services, &clock)));
    clock_record.borrow_mut().finish(clock.now());
    served.map_err(|error| cannot_start(error.to_string()))
}

fn cannot_start(message: String) -> CommandError {
    CommandError::CannotStart(message)
}

fn broker_settings(gateway: &Gateway) -> Settings {
    Settings {
        connect_deadline_seconds: gateway.connect_deadline_seconds,
        shares_client_identifiers: gateway.client_identifiers == ClientIdentifiers::Shared,
        announces_expiry: gateway.expiry_notice == ExpiryNotice::Disconnect,
        validate_payload_format: gateway.validate_payload_format,
        sys_interval_seconds: gateway.sys_interval_seconds,
        response_information: gateway.response_information.clone(),
    }
}

/// Says what the tables take, and refuses what the machine does not have.
fn check_memory(capacities: &Capacities) -> Result<(), CommandError> {
    let bytes: u64 = Broker::tables(capacities).iter().map(|(_, _, bytes)| bytes).sum();
    log::info!("tables take up to {} KiB", bytes / 1_024);
    match available_memory() {
        Some(available) if available < bytes => Err(cannot_start(format!(
            "not enough memory: the tables take up to {} KiB, the system has {} KiB available; bake for a smaller board",
            bytes / 1_024,
            available / 1_024
        ))),
        _ => Ok(()),
    }
}

/// Memory that the system can give without swapping, bytes; `None` where it does not say.
fn available_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kibibytes: u64 = line.trim().strip_suffix(" kB")?.trim().parse().ok()?;
    Some(kibibytes * 1_024)
}

fn admission(configuration: &Configuration, clock_floor: UnixTime) -> Result<Admission, CommandError> {
    let algorithms = crypto::provider().signature_verification_algorithms.all;
    let mut authenticators = Vec::new();
    for (index, resource) in (0_u16..).zip(&configuration.authentications) {
        let authenticator = Authenticator::new(configuration, index, algorithms, clock_floor)
            .map_err(|fault| cannot_start(format!("BrokerAuthentication '{}': {fault}", resource.name)))?;
        for warning in authenticator.warnings(SystemClock::unix()) {
            log::warn!("BrokerAuthentication '{}': {warning}", resource.name);
        }
        authenticators.push(authenticator);
    }
    let mut policies = Vec::new();
    for resource in &configuration.authorizations {
        policies.push(
            Policy::new(resource.clone())
                .map_err(|fault| cannot_start(format!("BrokerAuthorization '{}': {fault}", resource.name)))?,
        );
    }
    let ports = configuration
        .ports
        .iter()
        .map(|port| PortAdmission { authenticator: port.authentication, policy: port.authorization })
        .collect();
    Ok(Admission { ports, authenticators, policies })
}

type OpenPorts = (Vec<TcpListener>, Vec<ListenerSettings>);

fn open_ports(
    configuration: &Configuration,
    admission: &Admission,
    paths: &Paths,
    watched: &mut Vec<Watched>,
) -> Result<OpenPorts, CommandError> {
    let mut opened: OpenPorts = (Vec::new(), Vec::new());
    for (index, port) in (0_u16..).zip(&configuration.ports) {
        let transport = transport::of_port(configuration, &admission.authenticators, paths, index, watched)
            .map_err(|fault| cannot_start(format!("port {}: {fault}", port.port)))?;
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
