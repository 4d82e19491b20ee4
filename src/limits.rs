//! Capacities: what the program is sized for.
//!
//! Constants are only for small inline tables and for bounds of the protocol. Everything that takes real memory is in
//! [`Capacities`], comes from the board profile through the configuration blob, and sizes its table once at start.

use serde::{Deserialize, Serialize};

/// Longest user name kept, in bytes. RFC 5280 allows 64 characters in a common name; 256 bytes hold them in UTF-8.
pub const USERNAME_BYTES_MAX: usize = 256;
/// Longest client identifier accepted, in bytes of UTF-8. MQTT 5 §3.1.3.1 obliges a server to accept 23.
pub const CLIENT_IDENTIFIER_BYTES_MAX: usize = 128;
/// Longest Authentication Method of enhanced authentication, in bytes.
pub const AUTHENTICATION_METHOD_BYTES_MAX: usize = 128;
/// Longest Response Information of the configuration, in bytes: it must fit into a CONNACK with everything else.
pub const RESPONSE_INFORMATION_BYTES_MAX: usize = 1_024;
/// Most attributes of one client.
pub const ATTRIBUTES_MAX: usize = 16;
/// Bytes that the names and values of one client's attributes may take together, with 4 bytes of lengths a pair.
pub const ATTRIBUTE_BYTES_MAX: usize = 512;
/// Most levels of a topic name or filter that is routed or judged; deeper ones are answered with 0x90 or 0x8F.
pub const TOPIC_LEVELS_MAX: usize = 128;
/// Most Topic Filters in one SUBSCRIBE or UNSUBSCRIBE. More is answered with DISCONNECT 0x97.
pub const FILTERS_PER_PACKET_MAX: usize = 1_024;
/// Bytes of one block of the message pool.
pub const MESSAGE_BLOCK_BYTES: usize = 512;
/// Most certificates that a peer may present.
pub const PEER_CHAIN_CERTIFICATES_MAX: usize = 8;
/// Most bytes of DER that a peer's certificates may take together.
pub const PEER_CHAIN_BYTES_MAX: usize = 16 * 1024;
/// Longest service-account token that is looked at, in bytes. Kubernetes issues tokens of one to two thousand bytes.
pub const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// The sizes of all tables, from the board profile. Checked when a blob is baked and again at start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capacities {
    /// Network connections at one time, those that have not yet sent CONNECT included.
    pub connections: u32,
    /// TLS handshakes at one time.
    pub handshakes: u32,
    /// Sessions, with and without a connection.
    pub sessions: u32,
    /// Subscriptions of all sessions together.
    pub subscriptions: u32,
    /// Subscriptions of one session.
    pub subscriptions_per_session: u32,
    /// Nodes of the subscription tree: one for every level of every distinct filter.
    pub filter_nodes: u32,
    /// Bytes of the texts of the subscription tree's levels.
    pub filter_bytes: u32,
    /// Topics with a retained message.
    pub retained_messages: u32,
    /// Application messages held at one time.
    pub messages: u32,
    /// Blocks of [`MESSAGE_BLOCK_BYTES`] bytes that hold topics, properties and payloads.
    pub message_blocks: u32,
    /// Deliveries: one for every message in every queue or in-flight window.
    pub deliveries: u32,
    /// Replies (acknowledgements and the like) that wait for room in a socket.
    pub replies: u32,
    /// Bytes of all receive buffers that hold a packet of which a part has yet to come.
    pub receive_bytes: u32,
    /// Bytes of all transmit buffers that hold what a socket did not take.
    pub transmit_bytes: u32,
    /// Largest MQTT packet accepted, in bytes with its fixed header; announced as Maximum Packet Size.
    pub packet_bytes: u32,
    /// Rules of all authorization policies.
    pub authorization_rules: u32,
    /// Principals (user names, client identifiers, attribute maps) of all rules.
    pub authorization_principals: u32,
    /// Pairs of all attribute maps of all rules.
    pub authorization_attributes: u32,
    /// Topic patterns and client identifier patterns of all rules.
    pub authorization_patterns: u32,
    /// Bytes of all texts of the authorization policies.
    pub authorization_bytes: u32,
}
