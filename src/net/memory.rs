//! What of the memory budget connections take below MQTT: sockets, buffers, TLS, WebSockets.

use super::link::{FREE_RECEIVE_BYTES, FREE_TRANSMIT_BYTES, Link};
use super::turn::SCRATCH_BYTES_MAX;
use crate::collections::DeadlineHeap;
use crate::limits::{Capacities, PEER_CHAIN_BYTES_MAX};
use crate::tls::{HANDSHAKE_BYTES_MAX, SESSION_BYTES_MAX};
use crate::websocket::WebSocket;
use std::net::TcpStream;

/// What lies between the sockets and MQTT on any port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layers {
    /// TLS.
    pub tls: bool,
    /// TLS that asks clients for certificates, which are kept.
    pub certificates: bool,
    /// WebSockets.
    pub websockets: bool,
}

/// What a turn of these capacities takes, with all connections there and their buffers full: a name, how many, and bytes.
#[must_use]
pub fn tables(capacities: &Capacities, layers: Layers) -> [(&'static str, u32, u64); 5] {
    let Capacities { connections, handshakes, packet_bytes, .. } = *capacities;
    let if_there = |is_there: bool, count: u32, bytes: u64| if is_there { u64::from(count) * bytes } else { 0 };
    // Three tables of keys.
    let link = size_of::<Option<Link<TcpStream>>>() + 3 * size_of::<u64>() + FREE_RECEIVE_BYTES + FREE_TRANSMIT_BYTES;
    let certificates = if layers.certificates { PEER_CHAIN_BYTES_MAX as u64 } else { 0 };
    [
        (
            "sockets and their buffers",
            connections,
            u64::from(connections) * link as u64 + DeadlineHeap::bytes(connections),
        ),
        ("TLS sessions", connections, if_there(layers.tls, connections, SESSION_BYTES_MAX + certificates)),
        ("TLS handshakes", handshakes, if_there(layers.tls, handshakes, HANDSHAKE_BYTES_MAX)),
        ("WebSockets", connections, if_there(layers.websockets, connections, WebSocket::bytes_max())),
        // The buffers of the one connection that is served are moved when they grow.
        ("buffers of the turn", 1, SCRATCH_BYTES_MAX + u64::from(packet_bytes)),
    ]
}
