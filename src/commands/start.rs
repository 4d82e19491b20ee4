//! From a configuration to a broker that serves: tables, policies, certificates, sockets.

use super::CommandError;
use crate::authentication::{self, Authenticator, ChainVerifier};
use crate::authorization::Policy;
use crate::broker::{Admission, Broker, PortAdmission, Settings};
use crate::config::blob::{Bind, Configuration, Gateway, ListenerPort, Protocol, Tls};
use crate::config::secret;
use crate::crypto;
use crate::limits::Capacities;
use crate::net::{ListenerSettings, Services, SystemNetwork, Transport, Turn, TurnSettings, bind, serve};
use crate::platform::{self, SystemClock};
use crate::time::UnixTime;
use crate::tls::{self, ClientCertificates, ClientVerifier, ServerTls};
use rustls_pki_types::CertificateDer;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Where `secretRef` names are looked up.
pub struct SecretsFolder(PathBuf);

impl SecretsFolder {
    /// The configured folder; a relative one starts at the folder of the blob.
    pub fn beside(blob_folder: &Path, configuration: &Configuration) -> Self {
        Self(blob_folder.join(&configuration.gateway.secrets_folder))
    }
}

/// Serves `configuration` until a signal. `ready` is called once all ports are bound, with their addresses.
///
/// # Errors
/// [`CommandError::CannotStart`]: a port is taken, a key cannot be read or does not fit, the memory does not suffice.
pub fn start(
    configuration: &Configuration,
    secrets: &SecretsFolder,
    ready: impl FnOnce(&[SocketAddr]) -> Result<(), CommandError>,
) -> Result<(), CommandError> {
    let capacities = &configuration.board.capacities;
    check_memory(capacities)?;
    let admission = admission(configuration)?;
    let (listeners, settings) = open_ports(configuration, &admission, secrets)?;
    let addresses: Vec<SocketAddr> = listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect();
    let seed = platform::seed().map_err(|error| cannot_start(format!("no entropy from the system: {error}")))?;
    let broker =
        Broker::new(capacities, &configuration.clients, &broker_settings(&configuration.gateway), admission, seed);
    let network = SystemNetwork::new(listeners).map_err(|error| cannot_start(format!("no poller: {error}")))?;
    let turn = Turn::new(network, broker, TurnSettings { listeners: settings, capacities: capacities.clone() });
    let executor = smol::LocalExecutor::new();
    let clock = SystemClock::start();
    ready(&addresses)?;
    log::info!("ready");
    let (questions, _asked) = smol::channel::bounded(1);
    let (_answer, answers) = smol::channel::bounded(1);
    let (_change, changes) = smol::channel::bounded(1);
    let services = Services { questions, answers, changes };
    async_io::block_on(executor.run(serve(turn, &services, &clock))).map_err(|error| cannot_start(error.to_string()))
}

fn cannot_start(message: String) -> CommandError {
    CommandError::CannotStart(message)
}

fn broker_settings(gateway: &Gateway) -> Settings {
    Settings {
        connect_deadline_seconds: gateway.connect_deadline_seconds,
        shares_client_identifiers: false,
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

fn admission(configuration: &Configuration) -> Result<Admission, CommandError> {
    let algorithms = crypto::provider().signature_verification_algorithms.all;
    let mut authenticators = Vec::new();
    for (index, resource) in (0_u16..).zip(&configuration.authentications) {
        let authenticator = Authenticator::new(configuration, index, algorithms)
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
    secrets: &SecretsFolder,
) -> Result<OpenPorts, CommandError> {
    let mut opened: OpenPorts = (Vec::new(), Vec::new());
    for (index, port) in (0_u16..).zip(&configuration.ports) {
        let tls = port_tls(configuration, admission, secrets, port)?;
        let addresses = addresses(configuration, port)?;
        let listeners = bind(&addresses, port.port, true).map_err(|error| cannot_start(error.to_string()))?;
        for listener in listeners {
            if let Ok(address) = listener.local_addr() {
                log::info!("listening on {address}, {}", describe(configuration, port));
            }
            opened.0.push(listener);
            opened.1.push(ListenerSettings {
                port: index,
                transport: tls.clone().map_or(Transport::Plain, Transport::Tls),
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

fn port_tls(
    configuration: &Configuration,
    admission: &Admission,
    secrets: &SecretsFolder,
    port: &ListenerPort,
) -> Result<Option<ServerTls>, CommandError> {
    let index = match &port.tls {
        None => return Ok(None),
        Some(Tls::Manual { secret }) => *secret,
        Some(Tls::Automatic(_)) => {
            return Err(cannot_start(format!("port {}: tls.mode Automatic is not served yet", port.port)));
        }
    };
    let secret = configuration
        .secrets
        .get(usize::from(index))
        .ok_or_else(|| cannot_start(format!("port {}: its secret is missing from the blob", port.port)))?;
    let (chain, key) = match &secret.embedded {
        Some(embedded) => (embedded.certificate_chain_pem.clone(), embedded.private_key_pem.clone()),
        None => {
            let folder = secrets.0.join(&secret.name);
            (read(&folder.join("tls.crt"))?, read(&folder.join("tls.key"))?)
        }
    };
    let fault =
        |fault: &dyn core::fmt::Display| cannot_start(format!("port {}: secret '{}': {fault}", port.port, secret.name));
    let pair = secret::check_pair(chain.as_bytes(), key.as_bytes()).map_err(|error| fault(&error))?;
    let clients = match port.authentication.and_then(|index| admission.authenticators.get(usize::from(index))) {
        None => ClientCertificates::NotRequested,
        Some(authenticator) => match (authenticator.client_certificates(), authenticator.chain_verifier()) {
            (authentication::ClientCertificates::Required, Some(verifier)) => {
                ClientCertificates::Required(Arc::new(Verifier(Arc::clone(verifier))))
            }
            (authentication::ClientCertificates::Requested, Some(verifier)) => {
                ClientCertificates::Requested(Arc::new(Verifier(Arc::clone(verifier))))
            }
            _ => ClientCertificates::NotRequested,
        },
    };
    ServerTls::new(pair.certificates, pair.key, clients, Arc::new(WallClock)).map(Some).map_err(|error| fault(&error))
}

fn read(path: &Path) -> Result<String, CommandError> {
    std::fs::read_to_string(path).map_err(|error| cannot_start(format!("cannot read {}: {error}", path.display())))
}

/// The handshake asks the same judge that CONNECT will ask again.
#[derive(Debug)]
struct Verifier(Arc<ChainVerifier>);

impl ClientVerifier for Verifier {
    fn verify(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> Result<(), rustls::Error> {
        let path = self.0.verify(chain, now)?;
        // Ready to paste into `subject` of an `authorizationAttributes` entry.
        let subjects: Vec<String> = path.subjects.iter().map(|subject| format!("'{subject}'")).collect();
        log::info!("client certificate accepted: {}", subjects.join(" issued by "));
        Ok(())
    }

    fn root_hint_subjects(&self) -> &[rustls::DistinguishedName] {
        self.0.root_hint_subjects()
    }
}

/// The wall clock, for certificate dates in a handshake.
#[derive(Debug)]
struct WallClock;

impl tls::Clock for WallClock {
    fn unix(&self) -> UnixTime {
        SystemClock::unix()
    }
}
