//! Resources into a configuration: references become indices, and what holds only for all of them together is checked.

use super::authentication::{self, Authentication};
use super::blob::{
    self, Bind, ClientLimits, Configuration, EmbeddedSecret, HttpsServer, ListenerPort, Method, Persistence,
};
use super::board;
use super::bridge::{self, BridgeSource};
use super::broker::Broker;
use super::diagnostic::{Place, Report, nearest, quoted};
use super::diagnostics::DEFAULT_PORT;
use super::gateway::{self, Settings};
use super::https_server::Server;
use super::listener::{Listener, Port, Reference, ServiceType, Tls};
use super::resources::{Entry, Named, Resources, SecretSource};
use super::secret::{Part, check_pair};
use super::service_account::{TokenSource, read_key_sets};
use super::trust::read_bundle;
use crate::limits::Capacities;
use std::collections::BTreeMap;
use std::net::IpAddr;

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
    let (mut settings, gateway_place) = match gateway {
        Some(Named { body, place, .. }) => (body, place),
        None => (Settings::default(), gateway::nowhere()),
    };
    let board = choose_board(&settings, options, report);
    let broker = the_broker(&resources, report);
    let mut assembly = Assembly {
        resources: &resources,
        trust_bundles: Vec::new(),
        key_sets: BTreeMap::new(),
        secrets: BTreeMap::new(),
        run_time_secrets: BTreeMap::new(),
        report,
    };
    settings.gateway.service_account_tokens = assembly.service_account_tokens(&settings);
    let authentications: Vec<_> =
        resources.authentications.iter().map(|named| assembly.authentication(named)).collect();
    let ports = assembly.ports(&settings.gateway);
    let diagnostics = assembly.diagnostics(&settings, &broker, &ports);
    let bridges = resources.bridges.iter().map(|named| assembly.bridge(&named.body)).collect();
    assembly.issued_secrets();
    let secrets = assembly.secrets(&settings, options);
    assembly.run_time_secrets(&settings);
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
    let persistence =
        Persistence { commit_interval_milliseconds: settings.commit_interval_milliseconds, ..broker.persistence };
    let mut configuration = Configuration {
        board,
        gateway: settings.gateway,
        clients,
        persistence,
        diagnostics,
        ports,
        authentications,
        authorizations,
        bridges,
        trust_bundles,
        secrets,
        network: settings.network,
    };
    let sources: Vec<_> = resources.bridges.iter().map(|named| (&named.body, &named.place)).collect();
    bridge::complete(&sources, &mut configuration, report);
    Some(configuration)
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
        ("authorization attributes", usage.attributes, sizes.authorization_attributes),
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
    /// Pairs of attribute maps.
    pub attributes: u64,
    /// Topic patterns, client identifier patterns and keys of the state store, and one for each resource that has them.
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
            usage.attributes += count(policy.attribute_pairs.len());
            usage.patterns += count(policy.patterns.len() + policy.resources.len() + policy.state_store.len());
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
    /// Names of the ConfigMaps of JWK Sets that were read, with their documents.
    key_sets: BTreeMap<String, Vec<String>>,
    /// Names of the Secrets with certificate and key that are referred to, with the first such reference and the index.
    secrets: BTreeMap<String, (Reference, u16)>,
    /// Files of Secrets that only the running broker reads, `<name>/<file>`, with the first reference.
    run_time_secrets: BTreeMap<String, Reference>,
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

    fn authentication(&mut self, named: &Named<Authentication>) -> blob::Authentication {
        let methods = named.body.methods.iter().map(|method| self.method(&method.settings)).collect();
        blob::Authentication { name: named.name.clone(), methods }
    }

    fn method(&mut self, settings: &authentication::Settings) -> Method {
        match settings {
            authentication::Settings::X509 { trusted_client_ca_cert, attributes } => {
                let trust_bundle = self.trust_bundle(trusted_client_ca_cert).unwrap_or(u16::MAX);
                Method::X509 { trust_bundle, attributes: attributes.clone() }
            }
            authentication::Settings::ServiceAccountToken { audiences } => {
                Method::ServiceAccountToken { audiences: audiences.clone() }
            }
            authentication::Settings::Custom(server) => Method::Custom { server: self.https_server(server) },
            authentication::Settings::UsernamePassword { secret } => {
                Method::UsernamePassword { secret: self.run_time_secret(secret, "passwords.toml") }
            }
        }
    }

    fn https_server(&mut self, server: &Server) -> HttpsServer {
        HttpsServer {
            endpoint: server.endpoint.clone(),
            // An index that leads nowhere: `None` would mean to trust the public roots.
            trust_bundle: server.authorities.as_ref().map(|name| self.trust_bundle(name).unwrap_or(u16::MAX)),
            client_secret: server.client_secret.as_ref().map(|reference| self.secret(reference)),
            headers: server.headers.clone(),
        }
    }

    /// Resolves what a bridge refers to.
    fn bridge(&mut self, source: &BridgeSource) -> blob::Bridge {
        let resources = self.resources;
        let mut bridge = source.bridge.clone();
        bridge.remote.tls = source.tls.as_ref().map(|tls| blob::BridgeTls {
            // An index that leads nowhere: `None` would mean to trust the public roots.
            trust_bundle: tls.authorities.as_ref().map(|name| self.trust_bundle(name).unwrap_or(u16::MAX)),
            client_secret: source.client_secret.as_ref().map(|reference| self.secret(reference)),
            server_name: tls.server_name.clone(),
        });
        if let (Some((_, secret)), Some(reference)) = (&mut bridge.remote.login, &source.password) {
            *secret = Some(self.run_time_secret(reference, "password"));
        }
        // The same: without one it may do everything.
        bridge.identity.authorization = source.authorization.as_ref().map(|reference| {
            self.resolve("BrokerAuthorization", reference, &resources.authorizations).unwrap_or(u16::MAX)
        });
        bridge
    }

    /// Resolves `serviceAccountTokens`, and compares it with the methods that need it.
    fn service_account_tokens(&mut self, settings: &Settings) -> Option<blob::ServiceAccountTokens> {
        let resources = self.resources;
        let is_token_method = |settings: &authentication::Settings| {
            matches!(settings, authentication::Settings::ServiceAccountToken { .. })
        };
        let methods: Vec<_> =
            resources.authentications.iter().filter_map(|named| named.body.first(is_token_method)).collect();
        let gateway_is_broken = resources.broken.iter().any(|(kind, _)| *kind == "Gateway");
        let Some((source, place)) = &settings.token_source else {
            for method in methods.iter().filter(|_| !gateway_is_broken && !settings.has_token_field) {
                let message = "the method ServiceAccountToken needs to know who judges tokens; add to the spec of the Gateway \
                    either serviceAccountTokens: {tokenReview: {endpoint: \"https://10.0.0.1:6443\", caCertConfigMap: cluster-ca, \
                    tokenSecretRef: api-token}} or serviceAccountTokens: {issuers: [{issuer: \
                    \"https://kubernetes.default.svc.cluster.local\", keysConfigMap: cluster-keys}]}";
                self.report.error(&method.place, message);
            }
            return None;
        };
        if methods.is_empty() {
            self.report.note(place, "serviceAccountTokens has no effect: no method ServiceAccountToken is there");
        }
        Some(match source {
            TokenSource::TokenReview { server, token_secret } => blob::ServiceAccountTokens::TokenReview {
                server: self.https_server(server),
                token_secret: token_secret.as_ref().map(|reference| self.run_time_secret(reference, "token")),
            },
            TokenSource::Offline { issuers, attributes } => blob::ServiceAccountTokens::Offline {
                issuers: issuers
                    .iter()
                    .map(|(issuer, keys)| blob::TokenIssuer { issuer: issuer.clone(), key_sets: self.key_sets(keys) })
                    .collect(),
                attributes: attributes.clone(),
            },
        })
    }

    /// Resolves what guards the diagnostics, and compares their port with those of the listeners.
    fn diagnostics(&mut self, settings: &Settings, broker: &Broker, ports: &[ListenerPort]) -> blob::Diagnostics {
        let is_taken = |number: u16| ports.iter().any(|port| port.port == number);
        let port = match &broker.prometheus_port {
            Some((port, place)) if *port > 0 && is_taken(*port) => {
                self.report
                    .error(place, format!("the prometheusPort {port} is the port of a listener; 0 switches it off"));
                None
            }
            Some((port, _)) => Some(*port).filter(|port| *port > 0),
            // A listener is asked for, and the default is not.
            None => Some(DEFAULT_PORT).filter(|port| !is_taken(*port)),
        };
        let exposed = settings.diagnostics_tls.as_ref().map(|(exposed, _)| blob::ExposedDiagnostics {
            secret: self.secret(&exposed.secret),
            // An index that leads nowhere: `None` would mean that no certificate is asked for.
            trust_bundle: exposed.trust.as_ref().map(|name| self.trust_bundle(name).unwrap_or(u16::MAX)),
            token_secret: exposed.token.as_ref().map(|reference| self.run_time_secret(reference, "token")),
            updates: exposed.updates,
        });
        let (addresses, place) = &settings.diagnostics_addresses;
        let is_asked_for = port.is_some() && (broker.prometheus_port.is_some() || place.is_some());
        let (self_check, log_level) = (broker.self_check, broker.log_level);
        blob::Diagnostics { port, is_asked_for, addresses: addresses.clone(), exposed, self_check, log_level }
    }

    fn key_sets(&mut self, reference: &Reference) -> Vec<String> {
        if let Some(known) = self.key_sets.get(&reference.name) {
            return known.clone();
        }
        let resources = self.resources;
        let found = self.resolve("ConfigMap", reference, &resources.config_maps);
        let map = found.and_then(|found| resources.config_maps.get(usize::from(found)));
        let documents = map.map(|map| read_key_sets(&map.name, &map.body, &map.place, self.report)).unwrap_or_default();
        self.key_sets.insert(reference.name.clone(), documents.clone());
        documents
    }

    /// Remembers a file that the running broker reads, and gives the name of its Secret.
    fn run_time_secret(&mut self, reference: &Reference, file: &str) -> String {
        self.run_time_secrets.entry(format!("{}/{file}", reference.name)).or_insert_with(|| reference.clone());
        reference.name.clone()
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

    fn ports(&mut self, gateway: &blob::Gateway) -> Vec<ListenerPort> {
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
                ports.push(self.port(listener, port, gateway));
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

    fn port(&mut self, listener: &Named<Listener>, port: &Port, gateway: &blob::Gateway) -> ListenerPort {
        let resources = self.resources;
        let authentication = port
            .authentication
            .as_ref()
            .and_then(|reference| self.resolve("BrokerAuthentication", reference, &resources.authentications));
        let authorization = port
            .authorization
            .as_ref()
            .and_then(|reference| self.resolve("BrokerAuthorization", reference, &resources.authorizations));
        let bind = match listener.body.service_type {
            ServiceType::ClusterIp => Bind::ClusterIp,
            ServiceType::LoadBalancer | ServiceType::NodePort => Bind::External,
        };
        if let (Some(reference), Some(found), false) = (&port.authentication, authentication, port.has_tls)
            && let Some(named) = resources.authentications.get(usize::from(found))
        {
            self.without_tls(port.number, reference, &named.body, addresses_of(gateway, bind));
        }
        let tls = port.tls.as_ref().map(|tls| match tls {
            Tls::Manual(reference) => blob::Tls::Manual { secret: self.secret(reference) },
            Tls::Automatic(spec) => blob::Tls::Automatic(spec.certificate.clone()),
        });
        ListenerPort {
            listener: listener.name.clone(),
            port: port.number,
            bind,
            protocol: port.protocol,
            tls,
            authentication,
            authorization,
        }
    }

    /// Compares the methods of a port without TLS with what that exposes.
    fn without_tls(&mut self, port: u16, reference: &Reference, policy: &Authentication, addresses: &[String]) {
        let name = quoted(&reference.name);
        if policy.first(|settings| matches!(settings, authentication::Settings::X509 { .. })).is_some() {
            let message = format!(
                "port {port} has no tls, and {name} uses the method X509: without TLS there are no client certificates; add tls"
            );
            self.report.error(&reference.place, message);
        }
        let is_loopback = |address: &String| address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        let sends_secrets =
            policy.first(|settings| !matches!(settings, authentication::Settings::X509 { .. })).is_some();
        if sends_secrets && !addresses.iter().all(is_loopback) {
            let message = format!(
                "port {port} has no tls and is bound beyond loopback: the passwords and tokens that {name} asks for can be read on the network"
            );
            self.report.note(&reference.place, message);
        }
    }

    /// Checks that each certificate of mode Automatic has a name of its own to be kept under.
    fn issued_secrets(&mut self) {
        let resources = self.resources;
        let mut issued: BTreeMap<&str, &Place> = BTreeMap::new();
        for port in resources.listeners.iter().flat_map(|listener| &listener.body.ports) {
            let Some(Tls::Automatic(spec)) = &port.tls else { continue };
            let Reference { name, place } = &spec.secret;
            let taken = self.secrets.get(name).map(|(reference, _)| &reference.place);
            if let Some(first) = issued.insert(name, place).or(taken) {
                let message = format!(
                    "the certificate of port {} would be kept as {}, which belongs to {first} already; give it another secretName",
                    port.number,
                    quoted(name)
                );
                self.report.error(place, message);
            }
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

    /// Says where the running broker looks for what never goes into a blob.
    fn run_time_secrets(&mut self, settings: &Settings) {
        let folder = &settings.gateway.secrets_folder;
        for (file, reference) in &self.run_time_secrets {
            self.report
                .note(&reference.place, format!("the gateway reads {folder}/{file} itself; it is never embedded"));
        }
    }

    /// Notes what nothing refers to.
    fn unused(&mut self) {
        let resources = self.resources;
        let ports = || resources.listeners.iter().flat_map(|listener| &listener.body.ports);
        for map in &resources.config_maps {
            let is_bundle = self.trust_bundles.iter().any(|bundle| bundle.name == map.name);
            if !is_bundle && !self.key_sets.contains_key(&map.name) {
                self.report.note(&map.place, format!("nothing refers to the ConfigMap {}", quoted(&map.name)));
            }
        }
        for secret in &resources.secrets {
            let at_run_time = self.run_time_secrets.values().any(|reference| reference.name == secret.name);
            if !at_run_time && !self.secrets.contains_key(&secret.name) {
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
            let is_of_bridge = |bridge: &Named<BridgeSource>| {
                bridge.body.authorization.as_ref().is_some_and(|reference| reference.name == named.name)
            };
            if !resources.bridges.iter().any(is_of_bridge)
                && !ports()
                    .any(|port| port.authorization.as_ref().is_some_and(|reference| reference.name == named.name))
            {
                self.report
                    .note(&named.place, format!("no port refers to the BrokerAuthorization {}", quoted(&named.name)));
            }
        }
    }
}

/// The addresses that a listener binds.
fn addresses_of(gateway: &blob::Gateway, bind: Bind) -> &[String] {
    match bind {
        Bind::ClusterIp => &gateway.cluster_ip_addresses,
        Bind::External => &gateway.external_addresses,
    }
}

/// Checks the pair of a Secret.
fn check_secret(secret: &Named<SecretSource>, report: &mut Report) -> Option<EmbeddedSecret> {
    let name = quoted(&secret.name);
    if let Some((given, place)) = &secret.body.foreign_type {
        report.error(
            place,
            format!("the type of the Secret {name} must be kubernetes.io/tls, and this is {}", quoted(given)),
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
        report.error(&pem.place, format!("the Secret {name} cannot be used: {fault}"));
        return None;
    }
    let text = |pem: &Entry| String::from_utf8(pem.contents.clone()).ok();
    let (Some(certificate_chain_pem), Some(private_key_pem)) = (text(chain), text(key)) else {
        report.error(&secret.place, format!("the Secret {name} is not UTF-8"));
        return None;
    };
    Some(EmbeddedSecret { certificate_chain_pem, private_key_pem })
}
