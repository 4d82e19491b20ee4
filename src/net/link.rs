//! One connection's socket, TLS session and the few bytes between them that are not yet done with.
//!
//! **Invariant:** between two turns `sealed` and `received` together take no more than the larger of [`FREE_RECEIVE_BYTES`] and
//! what the link was granted, and `outgoing` no more than [`FREE_TRANSMIT_BYTES`] unless it is counted against the transmit
//! buffers of all.

use super::network::Interest;
use crate::time::Instant;
use crate::tls::MAX_TLS_RECORD;
use crate::tls::TlsConnection;
use crate::websocket::WebSocket;
use std::net::SocketAddr;

/// Bytes that every connection's receive buffers may hold without a grant.
pub const FREE_RECEIVE_BYTES: usize = 4 * 1024;
/// Bytes that the broker is asked for when the transmit buffers are taken: its largest reply fits.
pub const SMALL_OUTPUT_BYTES: usize = 4 * 1024;
/// More than frames, records and last words add to what the broker gave.
pub const OUTPUT_OVERHEAD_BYTES: usize = 1_024;
/// Bytes that every connection's `outgoing` may hold without being counted.
pub const FREE_TRANSMIT_BYTES: usize = SMALL_OUTPUT_BYTES + OUTPUT_OVERHEAD_BYTES;

/// A connection as the turn sees it. Its place in the table is that of the broker's connection.
pub struct Link<S> {
    /// The socket.
    pub stream: S,
    /// The client's address.
    pub peer: SocketAddr,
    /// TLS, on ports that have it.
    pub tls: Option<Box<TlsConnection>>,
    /// Framing, on ports of WebSockets.
    pub websocket: Option<Box<WebSocket>>,
    /// Whether it holds a slot for a TLS handshake.
    pub handshaking: bool,
    /// TLS only: the beginning of a record of which the rest has yet to come.
    pub sealed: Vec<u8>,
    /// The beginning of a packet of which the rest has yet to come, or packets that the broker does not take yet.
    pub received: Vec<u8>,
    /// Bytes of the packet that `received` begins with, as far as known.
    pub packet_bytes: usize,
    /// When what waits for more began to come.
    pub begun: Instant,
    /// Its share of the receive buffers of all, bytes; 0 for [`FREE_RECEIVE_BYTES`].
    pub granted: usize,
    /// Whether it waits for a grant.
    pub starving: bool,
    /// What the socket did not take.
    pub outgoing: Vec<u8>,
    /// Bytes of `outgoing` that it has taken since.
    pub outgoing_sent: usize,
    /// What the poller watches for.
    pub interest: Interest,
    /// Whether the broker has done with it while `outgoing` still waits for the socket: not for long.
    pub hurried: bool,
    /// When it was accepted.
    pub opened: Instant,
    /// Where it stands.
    pub state: LinkState,
}

/// Where a link stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// Bytes go both ways.
    Open,
    /// The broker takes no more until it could say something.
    Paused,
    /// The rest of `outgoing` goes out, then the sending side is closed.
    Flushing,
    /// The sending side is closed. What still comes is thrown away, so that the peer can read our last words before the
    /// system answers its bytes with a reset.
    Lingering,
}

impl<S> Link<S> {
    /// A link that has just been accepted.
    #[must_use]
    pub fn new(stream: S, peer: SocketAddr, tls: Option<Box<TlsConnection>>, opened: Instant) -> Self {
        Self {
            stream,
            peer,
            handshaking: tls.is_some(),
            tls,
            websocket: None,
            sealed: Vec::new(),
            received: Vec::new(),
            packet_bytes: 0,
            begun: opened,
            granted: 0,
            starving: false,
            outgoing: Vec::new(),
            outgoing_sent: 0,
            interest: Interest { read: true, write: false },
            hurried: false,
            opened,
            state: LinkState::Open,
        }
    }

    /// Whether the socket has taken everything so far.
    #[must_use]
    pub fn is_drained(&self) -> bool {
        self.outgoing.is_empty()
    }

    /// Bytes received that wait for more.
    #[must_use]
    pub fn backlog(&self) -> usize {
        self.sealed.len() + self.received.len()
    }

    /// Bytes that its receive buffers may hold.
    #[must_use]
    pub fn allowance(&self) -> usize {
        self.granted.max(FREE_RECEIVE_BYTES)
    }

    /// Bytes that its receive buffers need until what stands at their front is complete. A record must be whole before it can be
    /// opened.
    #[must_use]
    pub fn needed(&self) -> usize {
        let record_bytes = if self.tls.is_some() { MAX_TLS_RECORD } else { 0 };
        match (self.received.is_empty(), self.sealed.is_empty()) {
            (true, true) => 0,
            (true, false) => record_bytes,
            (false, _) => self.backlog().max(self.packet_bytes + record_bytes),
        }
    }

    /// Bytes of memory that its receive buffers take.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.sealed.capacity() + self.received.capacity()
    }

    /// Gives back the memory of receive buffers that is not in use.
    pub fn shrink(&mut self) {
        self.sealed.shrink_to_fit();
        self.received.shrink_to_fit();
    }

    /// Bytes of `outgoing` that count against the transmit buffers of all.
    #[must_use]
    pub fn held(&self) -> usize {
        self.outgoing.capacity().saturating_sub(FREE_TRANSMIT_BYTES)
    }
}
