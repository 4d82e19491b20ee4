//! TLS as bytes in, bytes out: rustls behind an interface of our own.
//!
//! In: ciphertext from a socket, plaintext from the broker, the wall clock. Out: plaintext, ciphertext to send, and who
//! the peer is by its certificates. No type of rustls' connection API leaves this room, because its next version
//! replaces that API; the error and certificate types do.
//!
//! TLS 1.3 and 1.2, resumption by tickets that the client keeps. Deliberately absent: session storage, early data,
//! renegotiation, compression and a choice of application protocol: a client that offers ALPN is served as if it had not.
//!
//! **Invariants:**
//! - a connection holds at most [`HANDSHAKE_PENDING_BYTES_MAX`] bytes of unfinished handshake messages and, once it is
//!   established and no message is unfinished, no buffer at all;
//! - one call of [`TlsConnection::receive`] works on at most one handshake record;
//! - data is neither given nor taken before the handshake, with the client's certificates judged, is finished.

mod connection;
mod fault;
mod server;
mod tickets;

pub use connection::{
    CLIENT_HELLO_BYTES_MAX, HANDSHAKE_BYTES_MAX, HANDSHAKE_PENDING_BYTES_MAX, MAX_TLS_RECORD, Received,
    SESSION_BYTES_MAX, TlsConnection,
};
pub use fault::{Culprit, TlsFault};
pub use server::{ClientCertificates, ClientVerifier, Clock, ServerTls, WallClock, server_config};
pub use tickets::{TICKET_KEY_SECONDS, TICKET_SESSION_BYTES_MAX};

#[cfg(test)]
mod tests;
