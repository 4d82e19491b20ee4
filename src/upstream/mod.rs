//! What minimq needs to be a client of a broker: a way there, and a stream as it reads and writes them.
//!
//! In: an address, trust and a certificate; out: a [`Link`] over TCP or TLS, for `minimq::Session::connect`. The bridge and the
//! broker's probe of itself are clients by it. Its clock is that of [`crate::platform`].
//!
//! What minimq 0.13 can do is MQTT 5 with QoS 0 to 2, Wills, user properties, session resumption while the process lives, and
//! bounded memory. What it cannot, and what stands for it here:
//! - it acknowledges a message before the application has it: a link can hold acknowledgements back ([`Gate`]);
//! - it asks for a clean session whenever its process has not been connected before: a link can take that back
//!   ([`Link::resuming`]);
//! - it does not tell what CONNACK and DISCONNECT say beside their kind: a link can listen ([`Link::hearing`]);
//! - it waits for ever for a handshake, and for a peer that takes no bytes: the first is the caller's to bound, writes are bounded
//!   here;
//! - it has 8 messages in flight each way at most, client identifiers of 64 bytes, no AUTH, no topic aliases;
//! - it returns the send quota of QoS 2 with PUBREC instead of PUBCOMP, and refuses a Will Delay Interval: neither is used.
//!
//! **Invariant:** nothing is sent over TLS before the server has proved its name.

mod hearing;
mod link;
mod way;

pub use hearing::Heard;
pub use link::{Gate, HELD_MAX, Link, LinkError, Stream};
pub use way::{Remote, RemoteFault, RemoteSettings, Way, client_tls};
