//! One connection's socket, TLS session and the few bytes between them that are not yet done with.

use super::network::Interest;
use crate::time::Instant;
use crate::tls::TlsConnection;
use crate::websocket::WebSocket;
use std::net::SocketAddr;

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

    /// Bytes of buffers held.
    #[must_use]
    pub fn buffered(&self) -> usize {
        self.sealed.capacity() + self.received.capacity()
    }
}
