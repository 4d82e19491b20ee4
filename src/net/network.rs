//! What the turn needs of a network, so that a simulation can be one.

use std::net::SocketAddr;

/// Names a socket to the poller: the bits of a connection's key, or a listener's index. No key has the bits of an index,
/// because the upper half of a key is never 0.
pub type Token = u64;

/// Sockets, and a poller that watches them.
pub trait Network {
    /// An accepted connection.
    type Stream;

    /// Accepts one connection of listener `index`.
    fn accept(&mut self, index: usize) -> Accepted<Self::Stream>;
    /// Reads what is there, at most as much as `into` holds.
    fn read(&mut self, stream: &mut Self::Stream, into: &mut [u8]) -> Io;
    /// Writes as much as the socket takes.
    fn write(&mut self, stream: &mut Self::Stream, from: &[u8]) -> Io;
    /// Watches a stream from now on; level-triggered.
    fn watch(&mut self, stream: &Self::Stream, token: Token, interest: Interest) -> bool;
    /// Changes what is watched for.
    fn change(&mut self, stream: &Self::Stream, token: Token, interest: Interest);
    /// Says that nothing more will be written.
    fn finish(&mut self, stream: &mut Self::Stream);
    /// Closes.
    fn close(&mut self, stream: Self::Stream);
    /// Starts or stops watching listener `index` for connections.
    fn listen(&mut self, index: usize, watched: bool);
}

/// What became of an accept.
pub enum Accepted<S> {
    /// A connection from this address.
    Stream(S, SocketAddr),
    /// None waits.
    Nothing,
    /// The process has no descriptor left: try again later.
    Exhausted,
}

/// What became of a read or a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Io {
    /// So many bytes; a read of 0 means that the peer will send no more.
    Bytes(usize),
    /// Nothing now.
    WouldBlock,
    /// The connection is broken.
    Failed,
}

/// What a stream is watched for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interest {
    /// Bytes to read.
    pub read: bool,
    /// Room to write.
    pub write: bool,
}

/// What the poller saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Readiness {
    /// Of which socket.
    pub token: Token,
    /// There is something to read, or the end, or an error that a read will tell.
    pub readable: bool,
    /// There is room to write.
    pub writable: bool,
    /// Neither direction works any more; said whatever is watched for.
    pub hung_up: bool,
}
