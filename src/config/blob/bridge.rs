//! `kind: BrokerBridge`: a client of another broker, as the blob has it.

use super::QueueStrategy;
use serde::{Deserialize, Serialize};

/// Most bridges of a gateway.
pub const BRIDGES_MAX: usize = 8;
/// Most topic maps of a bridge in one direction.
pub const MAPS_MAX: usize = 32;
/// Most addresses of an upstream.
pub const ADDRESSES_MAX: usize = 8;
/// Longest client identifier at an upstream, bytes: minimq has no room for more.
pub const CLIENT_IDENTIFIER_BYTES_MAX: usize = 64;
/// Least and largest `maxPacketSizeBytes`.
pub const PACKET_BYTES: core::ops::RangeInclusive<u32> = 1_024..=1_048_576;

/// A BrokerBridge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bridge {
    /// `metadata.name`.
    pub name: String,
    /// `remote`.
    pub remote: BridgeRemote,
    /// `identity`: who it is to the rules of this broker.
    pub identity: BridgeIdentity,
    /// `out`: what goes to the upstream.
    pub outgoing: Vec<TopicMap>,
    /// `in`: what comes from the upstream.
    pub incoming: Vec<TopicMap>,
    /// `queueLimit.length`: messages that wait for it, at least 1.
    pub queue_length: u32,
    /// `queueLimit.bytes`: bytes of the message pool that may wait for it.
    pub queue_bytes: u64,
    /// `queueLimit.strategy`; never `None`.
    pub queue_strategy: QueueStrategy,
    /// `maxHops`: what has crossed as many bridges is not sent out, at least 1.
    pub hops_max: u8,
    /// `backoff.minSeconds`, at least 1.
    pub back_off_min_seconds: u16,
    /// `backoff.maxSeconds`, not less than `minSeconds`.
    pub back_off_max_seconds: u16,
}

/// `remote`.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BridgeRemote {
    /// Names or IP addresses without brackets, and ports; tried in order, never empty.
    pub addresses: Vec<(String, u16)>,
    /// `tls`; `None`: plain TCP.
    pub tls: Option<BridgeTls>,
    /// `auth.usernamePassword.username` and the name of the Secret whose file `password` has the password.
    pub login: Option<(String, Option<String>)>,
    /// `clientId`: no other client of the upstream has it. Also what marks messages that have crossed this bridge.
    pub client_identifier: String,
    /// `cleanStart`: the upstream forgets the bridge when it is away.
    pub clean_start: bool,
    /// `sessionExpirySeconds`.
    pub session_expiry_seconds: u32,
    /// `keepAliveSeconds`, 5 to 3600.
    pub keep_alive_seconds: u16,
    /// `maxPacketSizeBytes`, [`PACKET_BYTES`].
    pub packet_bytes: u32,
}

impl core::fmt::Debug for BridgeRemote {
    /// Without the user name.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("BridgeRemote")
            .field("addresses", &self.addresses)
            .field("client_identifier", &self.client_identifier)
            .finish_non_exhaustive()
    }
}

/// `remote.tls`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BridgeTls {
    /// Index into [`super::Configuration::trust_bundles`]; `None`: the public roots of the system.
    pub trust_bundle: Option<u16>,
    /// Index into [`super::Configuration::secrets`]: the certificate that is shown to the upstream.
    pub client_secret: Option<u16>,
    /// The name that its certificate must have; `None`: that of the address.
    pub server_name: Option<String>,
}

/// `identity` and `authorizationRef`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BridgeIdentity {
    /// `username`.
    pub username: Option<String>,
    /// `attributes`.
    pub attributes: Vec<(String, String)>,
    /// Index into [`super::Configuration::authorizations`]; `None`: it may do everything.
    pub authorization: Option<u16>,
}

/// One element of `out` or `in`: two filters with the same wildcards in the same order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicMap {
    /// What it is called here.
    pub local: String,
    /// What it is called at the upstream.
    pub remote: String,
    /// Highest QoS, 0 or 1.
    pub qos: u8,
    /// Whether the RETAIN flag crosses.
    pub retain: bool,
}
