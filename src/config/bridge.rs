//! `kind: BrokerBridge` of `portcullis.edge/v1`: a client of another broker, and which messages it carries.
//!
//! Names are those of the vendor's listeners, data flows and authentication servers, where they have one. The checks of texts are
//! those that [`super::verify`] applies to a blob. What follows from the board is decided in [`complete`].

use super::authentication::check_attributes_fit;
use super::blob::{
    ADDRESSES_MAX, BRIDGES_MAX, Bridge, BridgeIdentity, BridgeRemote, CLIENT_IDENTIFIER_BYTES_MAX, Configuration,
    MAPS_MAX, PACKET_BYTES, QueueStrategy, TopicMap,
};
use super::bridge_notes;
use super::diagnostic::{Place, Report, quoted};
use super::https_server::check_endpoint;
use super::listener::{Reference, reference, secret_reference};
use super::source::Node;
use super::source::walk::{Fields, boolean, choice, full_text, integer, sequence, text_map, texts, topic_filter};
use crate::limits::{MESSAGE_BLOCK_BYTES, USERNAME_BYTES_MAX};

/// Messages that wait for a bridge, where nothing is said and the board has room for more.
const QUEUE_LENGTH: u32 = 10_000;

/// `spec` of a BrokerBridge, whose references are yet to be resolved.
#[derive(Clone)]
pub struct BridgeSource {
    /// Everything but references and the bounds of its queue.
    pub bridge: Bridge,
    /// `remote.tls`: its authorities, and the name of the server.
    pub tls: Option<TlsSource>,
    /// `remote.auth.x509.secretRef`.
    pub client_secret: Option<Reference>,
    /// `remote.auth.usernamePassword.secretRef`.
    pub password: Option<Reference>,
    /// `authorizationRef`.
    pub authorization: Option<Reference>,
    /// `queueLimit.length`.
    pub queue_length: Option<(u32, Place)>,
    /// `queueLimit.bytes`.
    pub queue_bytes: Option<(u64, Place)>,
}

/// `remote.tls`.
#[derive(Clone)]
pub struct TlsSource {
    /// `caCertConfigMap`; `None`: the public roots of the system.
    pub authorities: Option<Reference>,
    /// `serverName`.
    pub server_name: Option<String>,
}

/// Reads a `spec`.
pub fn read(name: &str, spec: &Node, report: &mut Report) -> Option<BridgeSource> {
    let mut fields = Fields::of(spec, "the spec of BrokerBridge", report)?;
    let remote = fields.required("remote", report).and_then(|node| read_remote(node, report));
    let identity = fields.optional("identity").map(|node| read_identity(node, report)).unwrap_or_default();
    let authorization = reference(&mut fields, "authorizationRef", report);
    let outgoing = fields.optional("out").map(|node| maps(node, "out", report)).unwrap_or_default();
    let incoming = fields.optional("in").map(|node| maps(node, "in", report)).unwrap_or_default();
    if outgoing.is_empty() && incoming.is_empty() && !report.has_errors() {
        report.error(fields.place(), "a bridge needs out, in, or both: else nothing crosses it");
    }
    let (mut queue_length, mut queue_bytes, mut queue_strategy) = (None, None, QueueStrategy::DropOldest);
    if let Some(node) = fields.optional("queueLimit")
        && let Some(mut limit) = Fields::of(node, "queueLimit", report)
    {
        let strategies = [("DropOldest", QueueStrategy::DropOldest), ("DropNewest", QueueStrategy::DropNewest)];
        if let Some(node) = limit.optional("strategy")
            && let Some(strategy) = choice(node, "queueLimit.strategy", &strategies, report)
        {
            queue_strategy = strategy;
        }
        if let Some(node) = limit.optional("length") {
            let length = integer(node, "queueLimit.length", 1..=u64::from(u32::MAX), report);
            queue_length = length.and_then(|length| Some((u32::try_from(length).ok()?, node.place.clone())));
        }
        if let Some(node) = limit.optional("bytes") {
            queue_bytes =
                integer(node, "queueLimit.bytes", 65_536..=1 << 40, report).map(|bytes| (bytes, node.place.clone()));
        }
        limit.finish(report);
    }
    let hops_max = small(&mut fields, "maxHops", 1..=16, report).and_then(|hops| u8::try_from(hops).ok());
    let (mut back_off_min_seconds, mut back_off_max_seconds) = (1, 60);
    if let Some(node) = fields.optional("backoff")
        && let Some(mut back_off) = Fields::of(node, "backoff", report)
    {
        back_off_min_seconds = small(&mut back_off, "minSeconds", 1..=3_600, report).unwrap_or(1);
        back_off_max_seconds = small(&mut back_off, "maxSeconds", 1..=3_600, report).unwrap_or(60);
        back_off.finish(report);
        if back_off_min_seconds > back_off_max_seconds {
            report.error(&node.place, "minSeconds of backoff is more than maxSeconds");
        }
    }
    fields.finish(report);
    let Remote { remote, tls, client_secret, password } = remote?;
    let bridge = Bridge {
        name: name.to_owned(),
        remote,
        identity,
        outgoing,
        incoming,
        queue_length: 0,
        queue_bytes: 0,
        queue_strategy,
        hops_max: hops_max.unwrap_or(1),
        back_off_min_seconds,
        back_off_max_seconds,
    };
    Some(BridgeSource { bridge, tls, client_secret, password, authorization, queue_length, queue_bytes })
}

/// `remote`, and what it refers to.
struct Remote {
    remote: BridgeRemote,
    tls: Option<TlsSource>,
    client_secret: Option<Reference>,
    password: Option<Reference>,
}

fn read_remote(node: &Node, report: &mut Report) -> Option<Remote> {
    let mut fields = Fields::of(node, "remote", report)?;
    let tls = fields.optional("tls").map(|node| read_tls(node, report));
    let hosts = fields.required("hosts", report);
    let default_port = if tls.is_some() { 8_883 } else { 1_883 };
    let addresses = hosts.map(|node| addresses(node, default_port, report)).unwrap_or_default();
    let (client_secret, login) = fields.optional("auth").map(|node| read_auth(node, report)).unwrap_or_default();
    if let (Some(reference), None) = (&client_secret, &tls) {
        report.error(&reference.place, "a certificate is shown within TLS: add tls to remote");
    }
    if let (Some((_, Some(reference))), None) = (&login, &tls) {
        report.note(&reference.place, "remote has no tls: the password can be read on the network");
    }
    let client_identifier = fields.required("clientId", report).and_then(|node| client_identifier(node, report));
    let clean_start = fields.optional("cleanStart").and_then(|node| boolean(node, "cleanStart", report));
    let expiry = fields.optional("sessionExpirySeconds");
    let session_expiry_seconds =
        expiry.and_then(|node| integer(node, "sessionExpirySeconds", 0..=u64::from(u32::MAX), report));
    let keep_alive_seconds = small(&mut fields, "keepAliveSeconds", 5..=3_600, report);
    let bytes = fields.optional("maxPacketSizeBytes");
    let range = u64::from(*PACKET_BYTES.start())..=u64::from(*PACKET_BYTES.end());
    let packet_bytes = bytes.and_then(|node| integer(node, "maxPacketSizeBytes", range, report));
    fields.finish(report);
    let (login, password) = match login {
        Some((username, password)) => (Some((username, None)), password),
        None => (None, None),
    };
    let remote = BridgeRemote {
        addresses,
        tls: None,
        login,
        client_identifier: client_identifier?,
        clean_start: clean_start.unwrap_or(false),
        // A week.
        session_expiry_seconds: session_expiry_seconds
            .and_then(|seconds| u32::try_from(seconds).ok())
            .unwrap_or(604_800),
        keep_alive_seconds: keep_alive_seconds.unwrap_or(30),
        packet_bytes: packet_bytes.and_then(|bytes| u32::try_from(bytes).ok()).unwrap_or(65_536),
    };
    Some(Remote { remote, tls, client_secret, password })
}

fn read_tls(node: &Node, report: &mut Report) -> TlsSource {
    let mut tls = TlsSource { authorities: None, server_name: None };
    if let Some(mut fields) = Fields::of(node, "remote.tls", report) {
        tls.authorities = reference(&mut fields, "caCertConfigMap", report);
        if let Some(node) = fields.optional("serverName")
            && let Some(name) = full_text(node, "serverName", report)
        {
            if is_host(name) {
                tls.server_name = Some(name.to_owned());
            } else {
                report.error(
                    &node.place,
                    format!("the serverName {} is neither a DNS name nor an IP address", quoted(name)),
                );
            }
        }
        fields.finish(report);
    }
    tls
}

/// User name, and the Secret with the password.
type Login = (String, Option<Reference>);

fn read_auth(node: &Node, report: &mut Report) -> (Option<Reference>, Option<Login>) {
    let Some(mut fields) = Fields::of(node, "remote.auth", report) else { return (None, None) };
    let certificate = fields.optional("x509").and_then(|node| {
        let mut fields = Fields::of(node, "remote.auth.x509", report)?;
        let secret = fields.required("secretRef", report).and_then(|node| secret_reference(node, report));
        fields.finish(report);
        secret
    });
    let login = fields.optional("usernamePassword").and_then(|node| {
        let mut fields = Fields::of(node, "remote.auth.usernamePassword", report)?;
        let username = fields.required("username", report);
        let secret = fields.optional("secretRef").and_then(|node| secret_reference(node, report));
        fields.finish(report);
        let username = full_text(username?, "username", report)?;
        if !is_text_of(username, USERNAME_BYTES_MAX) {
            report.error(&node.place, format!("a username has at most {USERNAME_BYTES_MAX} bytes and no U+0000"));
        }
        Some((username.to_owned(), secret))
    });
    fields.finish(report);
    (certificate, login)
}

fn read_identity(node: &Node, report: &mut Report) -> BridgeIdentity {
    let mut identity = BridgeIdentity::default();
    let Some(mut fields) = Fields::of(node, "identity", report) else { return identity };
    if let Some(node) = fields.optional("username")
        && let Some(username) = full_text(node, "identity.username", report)
    {
        if !is_text_of(username, USERNAME_BYTES_MAX) {
            report.error(&node.place, format!("a username has at most {USERNAME_BYTES_MAX} bytes and no U+0000"));
        }
        identity.username = Some(username.to_owned());
    }
    if let Some(node) = fields.optional("attributes") {
        let pairs = text_map(node, "identity.attributes", report).unwrap_or_default();
        identity.attributes = pairs.iter().map(|(key, value, _)| (key.text.clone(), (*value).to_owned())).collect();
        check_attributes_fit(&identity.attributes, &node.place, report);
    }
    fields.finish(report);
    identity
}

fn client_identifier(node: &Node, report: &mut Report) -> Option<String> {
    let given = full_text(node, "clientId", report)?;
    if !is_text_of(given, CLIENT_IDENTIFIER_BYTES_MAX) {
        report.error(&node.place, format!("a clientId has at most {CLIENT_IDENTIFIER_BYTES_MAX} bytes and no U+0000"));
        return None;
    }
    Some(given.to_owned())
}

fn addresses(node: &Node, default_port: u16, report: &mut Report) -> Vec<(String, u16)> {
    let mut addresses = Vec::new();
    for (given, node) in texts(node, "remote.hosts", report).unwrap_or_default() {
        match address(given, default_port) {
            Some(address) if addresses.contains(&address) => {
                report.error(&node.place, format!("the host {} stands here twice", quoted(given)));
            }
            Some(address) => addresses.push(address),
            None => {
                let message = format!("{} is no host: host, host:port, or [address]:port is", quoted(given));
                report.error(&node.place, message);
            }
        }
    }
    if addresses.is_empty() && !report.has_errors() {
        report.error(&node.place, "remote.hosts is empty: a bridge needs somewhere to go");
    }
    if addresses.len() > ADDRESSES_MAX {
        report.error(&node.place, format!("{} hosts, and a bridge tries {ADDRESSES_MAX}", addresses.len()));
    }
    addresses
}

/// `host[:port]` or `[address]:port`, taken apart.
fn address(given: &str, default_port: u16) -> Option<(String, u16)> {
    if given.contains(['/', '?', '#']) || check_endpoint(&format!("https://{given}")).is_err() {
        return None;
    }
    let behind_address = given.rfind(']').map_or(0, |at| at + 1);
    let (host, port) = match given.get(behind_address..)?.rfind(':') {
        Some(colon) => {
            let (host, port) = given.split_at_checked(behind_address + colon)?;
            (host, port.get(1..)?.parse().ok()?)
        }
        None => (given, default_port),
    };
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    Some((host.to_owned(), port))
}

/// Whether a text is a DNS name or an IP address without brackets.
fn is_host(host: &str) -> bool {
    host.parse::<std::net::IpAddr>().is_ok() || super::is_dns_name(host)
}

fn is_text_of(text: &str, bytes_max: usize) -> bool {
    !text.is_empty() && text.len() <= bytes_max && !text.contains('\0')
}

fn maps(node: &Node, what: &'static str, report: &mut Report) -> Vec<TopicMap> {
    let nodes = sequence(node, what, report).unwrap_or_default();
    if nodes.len() > MAPS_MAX {
        report.error(&node.place, format!("{} topic maps, and a bridge has {MAPS_MAX} each way", nodes.len()));
    }
    nodes.iter().filter_map(|node| topic_map(node, what, report)).collect()
}

fn topic_map(node: &Node, what: &'static str, report: &mut Report) -> Option<TopicMap> {
    let mut fields = Fields::of(node, what, report)?;
    let (local, remote) = (fields.required("local", report), fields.required("remote", report));
    let qos = small(&mut fields, "qos", 0..=1, report).and_then(|qos| u8::try_from(qos).ok());
    let retain =
        fields.optional("retain").and_then(|node| choice(node, "retain", &[("Keep", true), ("Never", false)], report));
    fields.finish(report);
    let filter = |node: &Node, what: &str, report: &mut Report| {
        let given = full_text(node, what, report)?;
        if !topic_filter(given, node, report) {
            return None;
        }
        if given.starts_with("$share/") {
            report.error(
                &node.place,
                "a bridge cannot take part in a shared subscription: what the others get would not cross",
            );
            return None;
        }
        Some(given.to_owned())
    };
    let (local_text, remote_text) = (filter(local?, "local", report), filter(remote?, "remote", report));
    if what == "in" && local_text.as_ref().is_some_and(|local| local.starts_with('$')) {
        report
            .error(&local?.place, "topics that begin with $ are this broker's own: nothing comes in under such a name");
        return None;
    }
    let map =
        TopicMap { local: local_text?, remote: remote_text?, qos: qos.unwrap_or(1), retain: retain.unwrap_or(true) };
    if !has_same_wildcards(&map) {
        let message = format!(
            "{} and {} need the same wildcards in the same order: what one stands for takes the place of the other",
            quoted(&map.local),
            quoted(&map.remote)
        );
        report.error(&remote?.place, message);
        return None;
    }
    Some(map)
}

/// Whether both sides of a map have the same wildcards in the same order.
fn has_same_wildcards(map: &TopicMap) -> bool {
    let wildcards = |filter: &str| -> Vec<bool> {
        filter.split('/').filter(|level| matches!(*level, "+" | "#")).map(|level| level == "#").collect()
    };
    wildcards(&map.local) == wildcards(&map.remote)
}

fn small(
    fields: &mut Fields<'_>,
    name: &'static str,
    range: core::ops::RangeInclusive<u64>,
    report: &mut Report,
) -> Option<u16> {
    let node = fields.optional(name)?;
    integer(node, name, range, report).and_then(|value| u16::try_from(value).ok())
}

/// Decides about the queues of all bridges together, which share the tables of the board and the log with all clients.
pub(super) fn complete(sources: &[(&BridgeSource, &Place)], configuration: &mut Configuration, report: &mut Report) {
    if let Some((_, place)) = sources.get(BRIDGES_MAX) {
        report.error(place, format!("more than {BRIDGES_MAX} bridges: a gateway has so many"));
    }
    for (index, bridge) in configuration.bridges.iter().enumerate() {
        let earlier = configuration.bridges.iter().take(index);
        let identifier = &bridge.remote.client_identifier;
        if earlier.clone().any(|other| other.remote.client_identifier == *identifier)
            && let Some((_, place)) = sources.get(index)
        {
            report.error(place, format!("another bridge has the clientId {} too", quoted(identifier)));
        }
    }
    for ((_, place), bridge) in sources.iter().zip(&configuration.bridges) {
        bridge_notes::say_what_may_surprise(bridge, configuration.clients.max_packet_size_bytes, place, report);
    }
    let room = Room::of(configuration);
    let count = u64::try_from(sources.len().max(1)).unwrap_or(1);
    for ((source, _), bridge) in sources.iter().zip(&mut configuration.bridges) {
        let share = u32::try_from(room.length / count).unwrap_or(u32::MAX);
        bridge.queue_length = source.queue_length.as_ref().map_or(QUEUE_LENGTH.min(share), |(length, _)| *length);
        bridge.queue_bytes = source.queue_bytes.as_ref().map_or(room.bytes / count, |(bytes, _)| *bytes);
    }
    let length = configuration.bridges.iter().map(|bridge| u64::from(bridge.queue_length)).sum::<u64>();
    let bytes = configuration.bridges.iter().fold(0_u64, |sum, bridge| sum.saturating_add(bridge.queue_bytes));
    for (what, sum, most, place) in [
        (
            "length",
            length,
            room.length,
            sources.iter().find_map(|(source, _)| source.queue_length.as_ref()).map(|(_, place)| place),
        ),
        (
            "bytes",
            bytes,
            room.bytes,
            sources.iter().find_map(|(source, _)| source.queue_bytes.as_ref()).map(|(_, place)| place),
        ),
    ] {
        if sum > most
            && let Some(place) = place
        {
            let message = format!(
                "queueLimit.{what} of all bridges together is {sum}, and at most {most} is left for them: half of the board's deliveries and messages, and a quarter of the log"
            );
            report.error(place, message);
        }
    }
}

/// What the queues of bridges may take together.
#[derive(Clone, Copy, Debug)]
pub(super) struct Room {
    /// Messages.
    pub length: u64,
    /// Bytes of the message pool.
    pub bytes: u64,
}

impl Room {
    /// Half of the tables, because clients need them too; and a quarter of the log, which writes all that is live anew beside what
    /// it has.
    pub(super) fn of(configuration: &Configuration) -> Self {
        let capacities = &configuration.board.capacities;
        let pool = u64::from(capacities.message_blocks) * u64::try_from(MESSAGE_BLOCK_BYTES).unwrap_or(u64::MAX);
        Self {
            length: u64::from(capacities.deliveries.min(capacities.messages) / 2),
            bytes: (pool / 2).min(configuration.persistence.size_bytes / 4),
        }
    }
}

/// Whether a bridge of a blob is one that this file would have made, but for its references.
pub(super) fn is_valid(bridge: &Bridge) -> bool {
    let remote = &bridge.remote;
    let is_map = |map: &TopicMap| {
        let valid = |filter: &str| {
            super::topic::check_filter(filter).is_ok()
                && !super::topic::is_too_deep(filter)
                && !filter.starts_with("$share/")
        };
        valid(&map.local) && valid(&map.remote) && has_same_wildcards(map) && map.qos <= 1
    };
    super::name::is_resource_name(&bridge.name)
        && (1..=ADDRESSES_MAX).contains(&remote.addresses.len())
        && remote.addresses.iter().all(|(host, port)| is_host(host) && *port > 0)
        && is_text_of(&remote.client_identifier, CLIENT_IDENTIFIER_BYTES_MAX)
        && remote.login.as_ref().is_none_or(|(username, _)| is_text_of(username, USERNAME_BYTES_MAX))
        && bridge.identity.username.as_ref().is_none_or(|username| is_text_of(username, USERNAME_BYTES_MAX))
        && (5..=3_600).contains(&remote.keep_alive_seconds)
        && PACKET_BYTES.contains(&remote.packet_bytes)
        && bridge.outgoing.len() <= MAPS_MAX
        && bridge.incoming.len() <= MAPS_MAX
        && bridge.outgoing.iter().chain(&bridge.incoming).all(is_map)
        && bridge.incoming.iter().all(|map| !map.local.starts_with('$'))
        && bridge.queue_length > 0
        && bridge.queue_strategy != QueueStrategy::None
        && bridge.hops_max > 0
        && bridge.back_off_min_seconds > 0
        && bridge.back_off_min_seconds <= bridge.back_off_max_seconds
}
