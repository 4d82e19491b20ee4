//! What a configuration blob holds: the compiled resources, and the envelope that carries them.
//!
//! Written by `bake`, read at start. The body is postcard, which is not self-describing: the envelope's schema version
//! decides whether a body can be read at all, and bytes left over are an error.

mod bridge;

pub use bridge::{
    ADDRESSES_MAX, BRIDGES_MAX, Bridge, BridgeIdentity, BridgeRemote, BridgeTls, CLIENT_IDENTIFIER_BYTES_MAX, MAPS_MAX,
    PACKET_BYTES, TopicMap,
};

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
    /// `spec.persistence` of the Broker resource.
    pub persistence: Persistence,
    /// Where the gateway shows what it is doing.
    pub diagnostics: Diagnostics,
    /// Every port of every BrokerListener.
    pub ports: Vec<ListenerPort>,
    /// BrokerAuthentication resources.
    pub authentications: Vec<Authentication>,
    /// BrokerAuthorization resources.
    pub authorizations: Vec<Authorization>,
    /// BrokerBridge resources.
    pub bridges: Vec<Bridge>,
    /// ConfigMaps that are used as bundles of certificate authorities.
    pub trust_bundles: Vec<TrustBundle>,
    /// Secrets with a certificate and its key, embedded or to be found at run time: those that listeners serve, and those
    /// that the broker shows as a client of other servers.
    pub secrets: Vec<Secret>,
    /// Network settings of a gateway whose PID 1 is ours: `network` of the Gateway resource.
    pub network: Option<Network>,
}

/// `network` of the Gateway resource; what its texts may be is in [`super::network`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// The machine's name, one label; `None`: `portcullis`.
    pub hostname: Option<String>,
    /// Name of the Ethernet interface; `None`: the first that there is.
    pub interface: Option<String>,
    /// `10.0.0.2/24`; `None`: DHCP.
    pub address: Option<String>,
    /// Where everything goes that is not of this network, an IPv4 address.
    pub gateway: Option<String>,
    /// Name servers, IPv4 addresses.
    pub dns: Vec<String>,
    /// Time servers: names or IPv4 addresses, with `:port` where it is not NTP's.
    pub ntp: Vec<String>,
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
    /// Server certificates that end within so many days keep the gateway from being ready; those that it issues itself only when
    /// they have ended.
    pub ready_certificate_days: u16,
    /// Whether a payload that is marked as UTF-8 must be UTF-8.
    pub validate_payload_format: bool,
    /// How often the topics below `$SYS/broker/` are published, seconds; 0 for never.
    pub sys_interval_seconds: u16,
    /// What clients that ask for Response Information are told.
    pub response_information: Option<String>,
    /// Folder of the authorities that issue certificates for mode Automatic: `<folder>/<issuer>/tls.crt` and `tls.key`. A
    /// relative path starts at the folder of the blob.
    pub issuers_folder: String,
    /// Folder of revocation lists and of the deny list. A relative path starts at the folder of the blob.
    pub revocation_folder: String,
    /// Whether all keys of a client's chain must be of one algorithm, EC or RSA (the vendor's rule).
    pub same_key_algorithm: bool,
    /// What becomes of a certificate whose revocation list is past its `nextUpdate`.
    pub stale_revocation_lists: StaleRevocationLists,
    /// Whether two identities may share a client identifier.
    pub client_identifiers: ClientIdentifiers,
    /// What a client is told when its credential expires.
    pub expiry_notice: ExpiryNotice,
    /// Who judges the tokens of service accounts; always there when a method ServiceAccountToken is.
    pub service_account_tokens: Option<ServiceAccountTokens>,
}

/// `staleRevocationLists`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StaleRevocationLists {
    /// The certificate is refused. The default.
    Refuse,
    /// The old list is used further.
    Accept,
}

/// `clientIdentifiers`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClientIdentifiers {
    /// While one identity is connected under a client identifier, no other may connect under it. The default.
    Exclusive,
    /// Another identity takes the client identifier over.
    Shared,
}

/// `expiryNotice`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExpiryNotice {
    /// The connection is closed without a word, as the vendor's broker does. The default.
    None,
    /// MQTT 5 clients get a DISCONNECT first.
    Disconnect,
}

/// `serviceAccountTokens`: how tokens of Kubernetes service accounts are verified, for all methods ServiceAccountToken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServiceAccountTokens {
    /// The TokenReview API of a cluster is asked; attributes are annotations of the service account.
    TokenReview {
        /// The API server. Without a client certificate it gets the bearer token.
        server: HttpsServer,
        /// Name of the Secret with the bearer token, `<secrets folder>/<name>/token`. Either this or a client certificate.
        token_secret: Option<String>,
    },
    /// Signatures are verified here, with the keys of the issuers.
    Offline {
        /// Whose tokens are accepted; never empty, no issuer twice.
        issuers: Vec<TokenIssuer>,
        /// What is granted to which service account; no account twice.
        attributes: Vec<AccountAttributes>,
    },
}

/// Someone who signs tokens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenIssuer {
    /// Claim `iss`.
    pub issuer: String,
    /// JWK Sets (RFC 7517 §5) of public keys, JSON; never empty. Only their outermost form is checked when they are baked.
    pub key_sets: Vec<String>,
}

/// What a service account is granted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountAttributes {
    /// `<namespace>/<name>`.
    pub account: String,
    /// Attribute names and values.
    pub attributes: Vec<(String, String)>,
}

/// A server that the broker asks over HTTPS.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpsServer {
    /// `https://host[:port][/path]`, checked by [`super::https_server::check_endpoint`].
    pub endpoint: String,
    /// Index into [`Configuration::trust_bundles`]; `None`: the public roots of the system.
    pub trust_bundle: Option<u16>,
    /// Index into [`Configuration::secrets`]: the certificate that the broker shows.
    pub client_secret: Option<u16>,
    /// Names and values of header fields for each request. The values may be credentials.
    pub headers: Vec<(String, String)>,
}

impl core::fmt::Debug for HttpsServer {
    /// Never shows the values of header fields.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let names: Vec<&str> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("HttpsServer")
            .field("endpoint", &self.endpoint)
            .field("trust_bundle", &self.trust_bundle)
            .field("client_secret", &self.client_secret)
            .field("headers", &names)
            .finish()
    }
}

/// What to do while the wall clock cannot be right (before the build date).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClockPolicy {
    /// Certificates are refused until the clock is set. The default.
    #[default]
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
    /// The message at hand is not queued, and its publisher not told. For bridges only.
    DropNewest,
}

/// What outlives a restart. `persistence` of the Broker resource; without one, everything does. Its bounds and what it
/// covers are in [`super::kept`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Persistence {
    /// Bytes that the log may take on the disk, [`super::kept::SIZE_BYTES`].
    pub size_bytes: u64,
    /// Which retained messages are kept. Patterns are Topic Filters.
    pub retain: Kept,
    /// Whose queues are kept, of clients with a Session Expiry Interval. Patterns are client identifiers in which `*` stands
    /// for any number of characters.
    pub subscriber_queue: Kept,
    /// Least time between two writes to the disk, milliseconds: `commitIntervalMilliseconds` of the Gateway resource.
    pub commit_interval_milliseconds: u16,
}

/// `mode` of a policy of `persistence`, and its settings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kept {
    /// Nothing, whatever a client asks for.
    None,
    /// Everything.
    All,
    /// `Custom`.
    Some {
        /// What is kept; empty only if `dynamic`.
        patterns: Vec<String>,
        /// Whether a client may ask for more with the user property `aio-persistence: true`.
        dynamic: bool,
    },
}

/// `diagnostics.metrics` of the Broker resource, `bind.diagnostics` and `diagnosticsTls` of the Gateway resource.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostics {
    /// TCP port; `None` for none.
    pub port: Option<u16>,
    /// Whether somebody asked for that port. Nobody is kept from serving MQTT by a default that is taken.
    pub is_asked_for: bool,
    /// Addresses to bind; with one beyond loopback, `exposed` is there.
    pub addresses: Vec<String>,
    /// What protects addresses beyond loopback.
    pub exposed: Option<ExposedDiagnostics>,
    /// `diagnostics.selfCheck`; `None`: the broker does not check itself.
    pub self_check: Option<SelfCheck>,
    /// `diagnostics.logs.level`.
    pub log_level: LogLevel,
}

/// `diagnostics.selfCheck`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SelfCheck {
    /// From the beginning of one check to that of the next, seconds.
    pub interval_seconds: u16,
    /// How long one may take, seconds.
    pub timeout_seconds: u16,
}

impl Default for SelfCheck {
    fn default() -> Self {
        Self { interval_seconds: 30, timeout_seconds: 15 }
    }
}

/// `diagnostics.logs.level`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogLevel {
    /// Service is lost.
    Error,
    /// Worth waking someone.
    Warn,
    /// Lifecycle of connections, sessions and configuration. The default.
    #[default]
    Info,
    /// Refusals and drops.
    Debug,
    /// Single packets.
    Trace,
}

/// `diagnosticsTls`. Where both are there, who reads needs certificate and token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExposedDiagnostics {
    /// Index into [`Configuration::secrets`]: certificate and key that are shown.
    pub secret: u16,
    /// Index into [`Configuration::trust_bundles`]: who issues the certificates of those who may read.
    pub trust_bundle: Option<u16>,
    /// Name of the Secret with the token, `<secrets folder>/<name>/token`.
    pub token_secret: Option<String>,
    /// `updates`: whether who may read may send updates of the image too.
    pub updates: bool,
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

/// `ports[].tls`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Tls {
    /// The operator provides certificate and key.
    Manual {
        /// Index into [`Configuration::secrets`].
        secret: u16,
    },
    /// The gateway issues certificates to itself.
    Automatic(AutomaticCertificate),
}

/// `certManagerCertificateSpec`: a certificate that a local authority issues and renews.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AutomaticCertificate {
    /// Name of the authority: a folder of [`Gateway::issuers_folder`].
    pub issuer: String,
    /// Kind of the server's key.
    pub algorithm: KeyAlgorithm,
    /// What becomes of the key on renewal.
    pub rotation: KeyRotation,
    /// Lifetime of a certificate, seconds.
    pub duration_seconds: u64,
    /// How long before its end a certificate is renewed, seconds; less than the lifetime.
    pub renew_before_seconds: u64,
    /// Under which name certificate and key are kept. No other port and no other Secret has it.
    pub secret_name: String,
    /// DNS names for the certificate, a leading `*.` allowed.
    pub dns_names: Vec<String>,
    /// IP addresses for the certificate.
    pub ip_addresses: Vec<String>,
}

/// `privateKey.algorithm`, as far as this program can sign with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyAlgorithm {
    /// ECDSA with P-256.
    Ec256,
    /// ECDSA with P-384.
    Ec384,
    /// Ed25519.
    Ed25519,
}

/// `privateKey.rotationPolicy`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum KeyRotation {
    /// Each renewal makes a new key.
    Always,
    /// The key is kept.
    Never,
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
    /// `serviceAccountTokenSettings`.
    ServiceAccountToken {
        /// A token must be meant for one of these; never empty.
        audiences: Vec<String>,
    },
    /// `customSettings`.
    Custom {
        /// Who is asked.
        server: HttpsServer,
    },
    /// `usernamePasswordSettings`, our own: the vendor removed the method.
    UsernamePassword {
        /// Name of the Secret with the users, `<secrets folder>/<name>/passwords.toml`.
        secret: String,
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

/// A certificate and its key.
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
    /// `topics`, `clientIds` and `keys` of all resources. Tokens stand in them as they were written.
    pub patterns: Vec<Text>,
    /// `stateStoreResources` of all rules. Nothing reads them yet.
    pub state_store: Vec<StateStoreResource>,
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
    /// Into [`Authorization::state_store`].
    pub state_store: Range,
}

/// One element of `brokerResources`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resource {
    /// `method`.
    pub action: Action,
    /// Into [`Authorization::patterns`]: client identifiers for Connect (none: any), topic patterns otherwise.
    pub patterns: Range,
}

/// `brokerResources[].method`, in the order of the vendor's documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Action {
    /// CONNECT.
    Connect,
    /// PUBLISH, and the Will.
    Publish,
    /// SUBSCRIBE.
    Subscribe,
}

/// One element of `stateStoreResources`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateStoreResource {
    /// `method`.
    pub method: StateStoreMethod,
    /// `keyType`.
    pub key_type: StateStoreKeyType,
    /// Into [`Authorization::patterns`]: `keys`.
    pub keys: Range,
}

/// `stateStoreResources[].method`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StateStoreMethod {
    /// GET and KEYNOTIFY.
    Read,
    /// SET, DEL and VDEL.
    Write,
    /// All of them.
    ReadWrite,
}

/// `stateStoreResources[].keyType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum StateStoreKeyType {
    /// A glob, with tokens.
    Pattern,
    /// The key itself.
    String,
    /// The key in base64.
    Binary,
}
