//! Resources into a configuration: references become indices, and what holds only for all of them together is checked.

use super::blob::{self, Bind, ClientLimits, Configuration, EmbeddedSecret, ListenerPort, Method, Tls};
use super::board;
use super::broker::Broker;
use super::diagnostic::{Place, Report, nearest, quoted};
use super::gateway::{self, Settings};
use super::listener::{Listener, Port, Reference, ServiceType};
use super::resources::{Named, Pem, Resources, SecretSource};
use super::secret::{Part, check_pair};
use super::trust::read_bundle;
use crate::limits::Capacities;
use std::collections::BTreeMap;

/// Receive Maximum where the Broker names none. The protocol's own default of 65,535 would let one client claim a small
/// board's whole delivery table.
const RECEIVE_MAXIMUM_DEFAULT: u16 = 1_024;

/// What the caller may choose.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// Board; `None`: the one that the Gateway names, or else `host`.
    pub board: Option<String>,
    /// Whether certificates and keys of the servers go into the blob.
    pub embed_secrets: bool,
}

/// Puts everything together. `None`, or a report with errors, means that there is no configuration.
pub fn assemble(mut resources: Resources, options: &LoadOptions, report: &mut Report) -> Option<Configuration> {
    let gateway = resources.gateways.pop();
    let (settings, gateway_place) = match gateway {
        Some(Named { body, place, .. }) => (body, place),
        None => (Settings::default(), gateway::nowhere()),
    };
    let board = choose_board(&settings, options, report);
    let broker = the_broker(&resources, report);
    let mut assembly = Assembly { resources: &resources, trust_bundles: Vec::new(), secrets: BTreeMap::new(), report };
    let authentications: Vec<_> =
        resources.authentications.iter().map(|named| assembly.authentication(named)).collect();
    let ports = assembly.ports();
    let secrets = assembly.secrets(&settings, options);
    assembly.unused();
    let trust_bundles = assembly.trust_bundles;
    let authorizations: Vec<_> = resources.authorizations.iter().map(|named| named.body.clone()).collect();
    let board = board?;
    check_capacities(&authorizations, &board, &resources, report);
    for (what, count) in [
        ("BrokerAuthentication resources", authentications.len()),
        ("BrokerAuthorization resources", authorizations.len()),
        ("trust bundles", trust_bundles.len()),
        ("secrets", secrets.len()),
    ] {
        if u16::try_from(count).is_err() {
            report.error(&gateway_place, format!("{count} {what}, and a blob holds 65535"));
        }
    }
    let clients = client_limits(&broker, &board.capacities, report);
    Some(Configuration {
        board,
        gateway: settings.gateway,
        clients,
        ports,
        authentications,
        authorizations,
        trust_bundles,
        secrets,
    })
}

fn choose_board(settings: &Settings, options: &LoadOptions, report: &mut Report) -> Option<blob::Board> {
    let (name, place) = match (&options.board, &settings.board) {
        (Some(name), _) => (name.as_str(), Place::start_of("--board")),
        (None, Some(reference)) => (reference.name.as_str(), reference.place.clone()),
        (None, None) => (board::DEFAULT_BOARD, gateway::nowhere()),
    };
    let profile = board::profile(name, report);
    if profile.is_none() {
        let names: Vec<&str> = board::names().collect();
        let end = nearest(name, names.iter().copied())
            .map_or_else(|| format!("; there are {}", names.join(", ")), |name| format!("; did you mean \"{name}\"?"));
        report.error(&place, format!("unknown board {}{end}", quoted(name)));
    }
    profile.map(|profile| profile.board)
}

fn the_broker(resources: &Resources, report: &mut Report) -> Broker {
    for broker in &resources.brokers {
        if broker.name != "default" {
            report.error(
                &broker.place,
                format!("the Broker must be named \"default\", and this is {}", quoted(&broker.name)),
            );
        }
    }
    for broker in resources.brokers.get(1..).unwrap_or_default() {
        report.error(&broker.place, "more than one Broker: a gateway runs one");
    }
    resources.brokers.first().map_or_else(Broker::default, |broker| broker.body.clone())
}

fn client_limits(broker: &Broker, capacities: &Capacities, report: &mut Report) -> ClientLimits {
    let cap = broker.profile_packet_bytes.min(capacities.packet_bytes);
    let max_packet_size_bytes = match &broker.max_packet_size_bytes {
        Some((bytes, place)) if *bytes > cap => {
            let limit = if capacities.packet_bytes <= broker.profile_packet_bytes { "board" } else { "memory profile" };
            report.note(place, format!("maxPacketSizeBytes {bytes} is above what the {limit} allows: {cap} applies"));
            cap
        }
        Some((bytes, _)) => *bytes,
        None => cap,
    };
    let default = u16::try_from(capacities.deliveries / 16).unwrap_or(u16::MAX).clamp(1, RECEIVE_MAXIMUM_DEFAULT);
    ClientLimits {
        max_session_expiry_seconds: broker.max_session_expiry_seconds,
        max_message_expiry_seconds: broker.max_message_expiry_seconds,
        max_packet_size_bytes,
        max_receive_maximum: broker.max_receive_maximum.unwrap_or(default),
        max_keep_alive_seconds: broker.max_keep_alive_seconds,
        subscriber_queue_length: broker.subscriber_queue_length,
        subscriber_queue_strategy: broker.subscriber_queue_strategy,
    }
}

/// Compares the tables of all policies with what the board holds.
fn check_capacities(policies: &[blob::Authorization], board: &blob::Board, resources: &Resources, report: &mut Report) {
    let Some(last) = resources.authorizations.last() else { return };
    let sizes = &board.capacities;
    let usage = Usage::of(policies);
    for (what, used, holds) in [
        ("authorization rules", usage.rules, sizes.authorization_rules),
        ("authorization principals", usage.principals, sizes.authorization_principals),
        ("authorization patterns", usage.patterns, sizes.authorization_patterns),
        ("bytes of authorization texts", usage.bytes, sizes.authorization_bytes),
    ] {
        if let Some(excess) = used.checked_sub(u64::from(holds)).filter(|excess| *excess > 0) {
            let board = &board.name;
            report.error(&last.place, format!("{what}: {used}, board '{board}' holds {holds}: {excess} too many"));
        }
    }
}

/// Rows of the authorization tables that a configuration takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Rules.
    pub rules: u64,
    /// User names, client identifiers and attribute maps.
    pub principals: u64,
    /// Topic patterns and client identifier patterns.
    pub patterns: u64,
    /// Bytes of texts.
    pub bytes: u64,
}

impl Usage {
    /// What `policies` take together.
    #[must_use]
    pub fn of(policies: &[blob::Authorization]) -> Self {
        let count = |rows: usize| u64::try_from(rows).unwrap_or(u64::MAX);
        let mut usage = Self::default();
        for policy in policies {
            usage.rules += count(policy.rules.len());
            usage.principals +=
                count(policy.usernames.len() + policy.client_identifiers.len() + policy.attribute_maps.len());
            usage.patterns += count(policy.patterns.len());
            usage.bytes += count(policy.text.len());
        }
        usage
    }
}

/// The position of an element as the blob's index. More than 65,535 are refused by [`assemble`].
fn index(position: usize) -> u16 {
    u16::try_from(position).unwrap_or(u16::MAX)
}

struct Assembly<'a> {
    resources: &'a Resources,
    trust_bundles: Vec<blob::TrustBundle>,
    /// Names of the Secrets that listeners refer to, with the first such reference and the index.
    secrets: BTreeMap<String, (Reference, u16)>,
    report: &'a mut Report,
}

impl Assembly<'_> {
    /// The position of what `reference` names, or a message with the nearest name.
    fn resolve<T>(&mut self, kind: &str, reference: &Reference, list: &[Named<T>]) -> Option<u16> {
        if let Some(position) = list.iter().position(|named| named.name == reference.name) {
            return Some(index(position));
        }
        if self.resources.broken.iter().any(|(broken, name)| *broken == kind && *name == reference.name) {
            return None;
        }
        let names: Vec<&str> = list.iter().map(|named| named.name.as_str()).collect();
        let end = super::diagnostic::suggestion(&reference.name, &names);
        self.report.error(&reference.place, format!("there is no {kind} named {}{end}", quoted(&reference.name)));
        None
    }

    fn authentication(&mut self, named: &Named<super::authentication::Authentication>) -> blob::Authentication {
        let mut methods = Vec::new();
        for method in &named.body.methods {
            let trust_bundle = self.trust_bundle(&method.trusted_client_ca_cert).unwrap_or(u16::MAX);
            methods.push(Method::X509 { trust_bundle, attributes: method.attributes.clone() });
        }
        blob::Authentication { name: named.name.clone(), methods }
    }

    fn trust_bundle(&mut self, reference: &Reference) -> Option<u16> {
        if let Some(position) = self.trust_bundles.iter().position(|bundle| bundle.name == reference.name) {
            return Some(index(position));
        }
        let resources = self.resources;
        let found = self.resolve("ConfigMap", reference, &resources.config_maps)?;
        let map = resources.config_maps.get(usize::from(found))?;
        let certificates = read_bundle(&map.name, &map.body, &map.place, self.report);
        self.trust_bundles.push(blob::TrustBundle { name: map.name.clone(), certificates });
        Some(index(self.trust_bundles.len() - 1))
    }

    fn ports(&mut self) -> Vec<ListenerPort> {
        let resources = self.resources;
        let mut ports = Vec::new();
        let mut numbers: BTreeMap<u16, &Place> = BTreeMap::new();
        let mut service_types: Vec<(ServiceType, &str)> = Vec::new();
        let mut service_names: BTreeMap<&str, &str> = BTreeMap::new();
        for listener in &resources.listeners {
            let service_type = listener.body.service_type;
            if let Some((_, other)) = service_types.iter().find(|(other, _)| *other == service_type) {
                let message = format!(
                    "the listener {} has the service type {} too; the vendor's broker allows one listener of each",
                    quoted(other),
                    service_type.name()
                );
                self.report.note(&listener.place, message);
            }
            service_types.push((service_type, &listener.name));
            self.service_name(listener, &mut service_names);
            if let Some(broker) = &listener.body.broker
                && broker.name != "default"
            {
                self.report.error(
                    &broker.place,
                    format!("there is no Broker named {}; did you mean \"default\"?", quoted(&broker.name)),
                );
            }
            for port in &listener.body.ports {
                if let Some(first) = numbers.insert(port.number, &port.number_place) {
                    let message = format!("the port {} is taken already, at {first}", port.number);
                    self.report.error(&port.number_place, message);
                }
                ports.push(self.port(listener, port));
            }
        }
        if resources.listeners.is_empty() && !self.report.has_errors() {
            let place = Place::start_of("(all sources)");
            self.report.error(&place, "there is no BrokerListener: nothing would listen");
        }
        ports
    }

    fn service_name<'b>(&mut self, listener: &'b Named<Listener>, names: &mut BTreeMap<&'b str, &'b str>) {
        let own = listener.body.service_name.as_ref();
        let name = own.map_or(listener.name.as_str(), |reference| reference.name.as_str());
        if let Some(other) = names.insert(name, &listener.name) {
            let place = own.map_or(&listener.place, |reference| &reference.place);
            self.report.error(
                place,
                format!("the serviceName {} belongs to the listener {} already", quoted(name), quoted(other)),
            );
        }
    }

    fn port(&mut self, listener: &Named<Listener>, port: &Port) -> ListenerPort {
        let resources = self.resources;
        let authentication = port
            .authentication
            .as_ref()
            .and_then(|reference| self.resolve("BrokerAuthentication", reference, &resources.authentications));
        let authorization = port
            .authorization
            .as_ref()
            .and_then(|reference| self.resolve("BrokerAuthorization", reference, &resources.authorizations));
        if let (Some(reference), Some(found), false) = (&port.authentication, authentication, port.has_tls) {
            let uses_certificates =
                resources.authentications.get(usize::from(found)).is_some_and(|named| !named.body.methods.is_empty());
            if uses_certificates {
                let message = format!(
                    "port {} has no tls, and {} uses the method X509: without TLS there are no client certificates; add tls",
                    port.number,
                    quoted(&reference.name)
                );
                self.report.error(&reference.place, message);
            }
        }
        let tls = port.secret.as_ref().map(|reference| Tls { secret: self.secret(reference) });
        ListenerPort {
            listener: listener.name.clone(),
            port: port.number,
            bind: match listener.body.service_type {
                ServiceType::ClusterIp => Bind::ClusterIp,
                ServiceType::LoadBalancer | ServiceType::NodePort => Bind::External,
            },
            protocol: port.protocol,
            tls,
            authentication,
            authorization,
        }
    }

    /// The index that a Secret will have.
    fn secret(&mut self, reference: &Reference) -> u16 {
        let next = index(self.secrets.len());
        self.secrets.entry(reference.name.clone()).or_insert_with(|| (reference.clone(), next)).1
    }

    fn secrets(&mut self, settings: &Settings, options: &LoadOptions) -> Vec<blob::Secret> {
        let resources = self.resources;
        let mut wanted: Vec<(Reference, u16)> = self.secrets.values().cloned().collect();
        wanted.sort_by_key(|(_, index)| *index);
        let folder = &settings.gateway.secrets_folder;
        let mut secrets = Vec::new();
        for (reference, _) in wanted {
            let name = reference.name.clone();
            let known = resources.secrets.iter().find(|named| named.name == name);
            let mut embedded = None;
            match known {
                Some(known) => {
                    let checked = check_secret(known, self.report);
                    if options.embed_secrets {
                        embedded = checked;
                    } else if !known.body.is_folder {
                        let message = format!(
                            "the Secret {} was checked and is not embedded: the gateway reads {folder}/{name}/tls.crt and tls.key; use --embed-secrets to put it into the blob",
                            quoted(&name)
                        );
                        self.report.note(&known.place, message);
                    }
                }
                None if options.embed_secrets => {
                    self.resolve("Secret", &reference, &resources.secrets);
                }
                None => {
                    let message = format!(
                        "the Secret {} is not among the sources: the gateway looks for {folder}/{name}/tls.crt and tls.key",
                        quoted(&name)
                    );
                    self.report.note(&reference.place, message);
                }
            }
            secrets.push(blob::Secret { name, embedded });
        }
        secrets
    }

    /// Notes what nothing refers to.
    fn unused(&mut self) {
        let resources = self.resources;
        let ports = || resources.listeners.iter().flat_map(|listener| &listener.body.ports);
        for map in &resources.config_maps {
            if !self.trust_bundles.iter().any(|bundle| bundle.name == map.name) {
                self.report.note(&map.place, format!("nothing refers to the ConfigMap {}", quoted(&map.name)));
            }
        }
        for secret in &resources.secrets {
            if !self.secrets.contains_key(&secret.name) {
                self.report.note(&secret.place, format!("nothing refers to the Secret {}", quoted(&secret.name)));
            }
        }
        for named in &resources.authentications {
            if !ports().any(|port| port.authentication.as_ref().is_some_and(|reference| reference.name == named.name)) {
                self.report
                    .note(&named.place, format!("no port refers to the BrokerAuthentication {}", quoted(&named.name)));
            }
        }
        for named in &resources.authorizations {
            if !ports().any(|port| port.authorization.as_ref().is_some_and(|reference| reference.name == named.name)) {
                self.report
                    .note(&named.place, format!("no port refers to the BrokerAuthorization {}", quoted(&named.name)));
            }
        }
    }
}

/// Checks the pair of a Secret.
fn check_secret(secret: &Named<SecretSource>, report: &mut Report) -> Option<EmbeddedSecret> {
    let name = quoted(&secret.name);
    if let Some((given, place)) = &secret.body.foreign_type {
        report.error(
            place,
            format!(
                "the type of the Secret {name} must be kubernetes.io/tls for a listener, and this is {}",
                quoted(given)
            ),
        );
    }
    for (part, pem) in [("tls.crt", &secret.body.certificate_chain), ("tls.key", &secret.body.private_key)] {
        if pem.is_none() {
            report.error(&secret.place, format!("the Secret {name} has no {part}"));
        }
    }
    let chain = secret.body.certificate_chain.as_ref()?;
    let key = secret.body.private_key.as_ref()?;
    if let Err(fault) = check_pair(&chain.contents, &key.contents) {
        let pem = match fault.part() {
            Part::Certificate => chain,
            Part::Key => key,
        };
        report.error(&pem.place, format!("the Secret {name} cannot serve a listener: {fault}"));
        return None;
    }
    let text = |pem: &Pem| String::from_utf8(pem.contents.clone()).ok();
    let (Some(certificate_chain_pem), Some(private_key_pem)) = (text(chain), text(key)) else {
        report.error(&secret.place, format!("the Secret {name} is not UTF-8"));
        return None;
    };
    Some(EmbeddedSecret { certificate_chain_pem, private_key_pem })
}
