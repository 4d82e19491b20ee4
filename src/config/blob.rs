//! What a configuration blob holds: the compiled resources, and the envelope that carries them.
//!
//! Written by `bake`, read at start. The body is postcard, which is not self-describing: the envelope's schema version
//! decides whether a body can be read at all, and bytes left over are an error.

use crate::distinguished_name::DistinguishedName;
use crate::limits::Capacities;
use serde::{Deserialize, Serialize};

/// A whole compiled configuration. References between resources are indices, checked when the blob is read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    /// The board it was baked for.
    pub board: Board,
    /// Settings of the kind `Gateway`.
    pub gateway: Gateway,
    /// `spec.advanced.clients` of the Broker resource, with the board's and the memory profile's bounds applied.
    pub clients: ClientLimits,
    /// Every port of every BrokerListener.
    pub ports: Vec<ListenerPort>,
    /// BrokerAuthentication resources.
    pub authentications: Vec<Authentication>,
    /// BrokerAuthorization resources.
    pub authorizations: Vec<Authorization>,
    /// ConfigMaps that are used as bundles of certificate authorities.
    pub trust_bundles: Vec<TrustBundle>,
    /// Secrets that listeners refer to, embedded or to be found at run time.
    pub secrets: Vec<Secret>,
}

/// A board profile.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Board {
    /// Name of the profile: `host`, `rpi4`, …
    pub name: String,
    /// Bytes of memory that all tables may take together.
    pub memory_budget_bytes: u64,
    /// Sizes of the tables.
    pub capacities: Capacities,
}

/// `kind: Gateway`, `apiVersion: portcullis.edge/v1`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gateway {
    /// Folder in which `secretRef` names are looked up: `<folder>/<name>/tls.crt` and `tls.key`. A relative path starts at
    /// the folder of the blob.
    pub secrets_folder: String,
    /// Folder for what outlives a restart. A relative path starts at the folder of the blob.
    pub state_folder: String,
    /// Addresses that ClusterIp listeners bind.
    pub cluster_ip_addresses: Vec<String>,
    /// Addresses that LoadBalancer and NodePort listeners bind.
    pub external_addresses: Vec<String>,
    /// What certificate dates are judged by.
    pub clock_policy: ClockPolicy,
    /// Seconds from accept to a complete CONNECT, TLS handshake included.
    pub connect_deadline_seconds: u16,
    /// Whether a payload that is marked as UTF-8 must be UTF-8.
    pub validate_payload_format: bool,
    /// How often the topics below `$SYS/broker/` are published, seconds; 0 for never.
    pub sys_interval_seconds: u16,
    /// What clients that ask for Response Information are told.
    pub response_information: Option<String>,
}

/// What to do while the wall clock cannot be right (before the build date).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClockPolicy {
    /// Certificates are refused until the clock is set. The default.
    Enforce,
    /// Dates are judged as if it were the build date.
    AssumeBuildDate,
}

/// `spec.advanced.clients` of the Broker resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientLimits {
    /// Cap of Session Expiry Interval, seconds.
    pub max_session_expiry_seconds: Option<u32>,
    /// Cap of Message Expiry Interval, seconds.
    pub max_message_expiry_seconds: Option<u32>,
    /// Largest packet accepted, bytes, never above the board's.
    pub max_packet_size_bytes: u32,
    /// Unacknowledged QoS 1 and 2 PUBLISH packets per direction.
    pub max_receive_maximum: u16,
    /// Cap of Keep Alive, seconds; `None` for no cap.
    pub max_keep_alive_seconds: Option<u16>,
    /// Messages that wait for one subscriber.
    pub subscriber_queue_length: u64,
    /// What happens to a message for a full queue.
    pub subscriber_queue_strategy: QueueStrategy,
}

/// `subscriberQueueLimit.strategy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum QueueStrategy {
    /// Nothing is dropped: the publisher is refused.
    None,
    /// The oldest message makes room.
    DropOldest,
}

/// One port of a BrokerListener.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListenerPort {
    /// `metadata.name` of the listener.
    pub listener: String,
    /// TCP port; for NodePort its `nodePort`.
    pub port: u16,
    /// Which addresses it binds.
    pub bind: Bind,
    /// What is spoken on it.
    pub protocol: Protocol,
    /// TLS; `None` for plain TCP.
    pub tls: Option<Tls>,
    /// Index into [`Configuration::authentications`]; `None`: clients are not authenticated.
    pub authentication: Option<u16>,
    /// Index into [`Configuration::authorizations`]; `None`: authenticated clients may do everything.
    pub authorization: Option<u16>,
}

/// Where `serviceType` lands on a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Bind {
    /// ClusterIp: [`Gateway::cluster_ip_addresses`], loopback unless configured.
    ClusterIp,
    /// LoadBalancer and NodePort: [`Gateway::external_addresses`], all unless configured.
    External,
}

/// `ports[].protocol`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Protocol {
    /// MQTT over TCP or TLS.
    Mqtt,
    /// MQTT over WebSockets.
    WebSockets,
}

/// `ports[].tls`, mode Manual.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tls {
    /// Index into [`Configuration::secrets`].
    pub secret: u16,
}

/// A BrokerAuthentication.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authentication {
    /// `metadata.name`.
    pub name: String,
    /// `authenticationMethods`, in order.
    pub methods: Vec<Method>,
}

/// One element of `authenticationMethods`. New variants are appended, never inserted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Method {
    /// `x509Settings`.
    X509 {
        /// Index into [`Configuration::trust_bundles`].
        trust_bundle: u16,
        /// `authorizationAttributes`, in the order of the source.
        attributes: Vec<SubjectAttributes>,
    },
}

/// One entry of `authorizationAttributes`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubjectAttributes {
    /// The entry's name, a label for messages only.
    pub label: String,
    /// The subject to match.
    pub subject: DistinguishedName,
    /// What a match grants: attribute names and values.
    pub attributes: Vec<(String, String)>,
}

/// A ConfigMap of certificate authorities: every certificate under every key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustBundle {
    /// `metadata.name`.
    pub name: String,
    /// Certificates, DER.
    pub certificates: Vec<Vec<u8>>,
}

/// A server certificate and its key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secret {
    /// The name that `secretRef` gives.
    pub name: String,
    /// `None`: looked up in [`Gateway::secrets_folder`] at start.
    pub embedded: Option<EmbeddedSecret>,
}

impl core::fmt::Debug for Secret {
    /// Never shows key material.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Secret").field("name", &self.name).field("embedded", &self.embedded.is_some()).finish()
    }
}

/// Key material inside a blob, written only by `bake --embed-secrets`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EmbeddedSecret {
    /// PEM of `tls.crt`: the leaf, then its intermediates.
    pub certificate_chain_pem: String,
    /// PEM of `tls.key`.
    pub private_key_pem: String,
}

impl core::fmt::Debug for EmbeddedSecret {
    /// Never shows key material.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("EmbeddedSecret").finish_non_exhaustive()
    }
}

/// A span of [`Authorization::text`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Text {
    /// Byte offset.
    pub start: u32,
    /// Bytes.
    pub length: u32,
}

/// Consecutive elements of one of the tables of [`Authorization`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// Index of the first element.
    pub start: u32,
    /// Number of elements.
    pub count: u32,
}

/// A BrokerAuthorization, compiled into flat tables that refer to each other by index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Authorization {
    /// `metadata.name`.
    pub name: String,
    /// `cache: Enabled`.
    pub cache: bool,
    /// All texts one after the other; equal texts are stored once.
    pub text: String,
    /// The rules in the order of the source.
    pub rules: Vec<Rule>,
    /// `principals.usernames` of all rules.
    pub usernames: Vec<Text>,
    /// `principals.clientIds` of all rules.
    pub client_identifiers: Vec<Text>,
    /// Elements of `principals.attributes` of all rules: each a conjunction of pairs, never empty.
    pub attribute_maps: Vec<Range>,
    /// Pairs of all attribute maps: name, value.
    pub attribute_pairs: Vec<(Text, Text)>,
    /// `brokerResources` of all rules.
    pub resources: Vec<Resource>,
    /// `topics` and `clientIds` of all resources.
    pub patterns: Vec<Text>,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// Where it stands in the source, for explanations: `file:line`.
    pub source: Text,
    /// Into [`Authorization::usernames`].
    pub usernames: Range,
    /// Into [`Authorization::client_identifiers`].
    pub client_identifiers: Range,
    /// Into [`Authorization::attribute_maps`].
    pub attribute_maps: Range,
    /// Into [`Authorization::resources`].
    pub resources: Range,
}

/// One element of `brokerResources`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resource {
    /// `method`.
    pub action: Action,
    /// Into [`Authorization::patterns`]: client identifiers for Connect (none: any), topic patterns otherwise.
    pub patterns: Range,
}

/// `brokerResources[].method`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// CONNECT.
    Connect,
    /// PUBLISH, and the Will.
    Publish,
    /// SUBSCRIBE.
    Subscribe,
}
