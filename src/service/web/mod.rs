//! What a gateway shows of itself, over HTTP: metrics, health, the status page, and the documents behind it and behind the
//! commands.
//!
//! One server has three doors. They differ in who may come in and in whether something may be changed, and in nothing else:
//!
//! | door | who comes in | what for |
//! | --- | --- | --- |
//! | [`Door::Loopback`] | programs of this machine, by a name of this machine | reading |
//! | [`Door::Exposed`] | who shows a client certificate, a token, or both, over TLS | reading, and updates where the Gateway allows them |
//! | [`Door::Control`] | who may write to a socket in the file system | reading and writing |
//!
//! **Invariants:** a connection has one request, a bounded time and a bounded buffer, and each door has few of them, of its own: who
//! fills the doors takes nothing from MQTT clients. What is shown is asked of the loop between two turns ([`crate::net::Inside`]).
//!
//! A page is one function beside `routes`.

mod api;
mod carrier;
mod control;
mod door;
mod metrics;
mod page;
mod routes;
mod serve;
mod upload;

pub use control::{ControlFault, ControlSocket};
pub use door::{Door, Token};
pub use routes::Context;
pub use serve::{CONNECTION_BYTES_MAX, CONNECTIONS_MAX, Entrance, Listener, TLS_BYTES_MAX, serve};
