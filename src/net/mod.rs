//! Sockets and the turn. Decides nothing about MQTT: it carries bytes between sockets, TLS and the broker.

mod inside;
mod link;
mod memory;
mod network;
mod pool;
mod report;
mod serve;
mod sleep;
mod system;
mod turn;

pub use inside::{Ask, Inside};
pub use memory::{Layers, tables};
pub use network::{Accepted, Interest, Io, Network, Readiness};
pub use serve::{Change, Incoming, Services, Store, serve};
pub use sleep::Sleeper;
pub use system::{BindError, SystemNetwork, bind};
pub use turn::{ClockTrust, ListenerSettings, Reconfiguration, Transport, Turn, TurnSettings};
