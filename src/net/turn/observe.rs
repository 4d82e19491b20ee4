//! What an operator sees of sockets and what lies below MQTT.

use super::{Network, Transport, Turn};
use crate::broker::TableUse;
use crate::telemetry::Table;
use crate::time::Now;

impl<N: Network> Turn<N> {
    /// How full the broker's tables are, and those of the sockets: handshakes, and bytes of the buffers that all share.
    pub fn table_uses(&mut self) -> impl Iterator<Item = TableUse> + use<N> {
        let full = self.broker.telemetry().counters.full;
        let row = |name, used: usize, capacity: usize, table: Table| TableUse {
            name,
            used: used as u64,
            capacity: capacity as u64,
            refused: full.get(table as usize).copied().unwrap_or(0),
        };
        let (handshaking, handshakes) = (self.handshaking as usize, self.handshakes_max as usize);
        let own = [
            row("handshakes", handshaking, handshakes, Table::Handshakes),
            row("receive buffers", self.receive.taken(), self.receive.bytes(), Table::ReceiveBuffers),
            row("transmit buffers", self.transmit.taken(), self.transmit.bytes(), Table::TransmitBuffers),
        ];
        self.broker.table_uses().into_iter().chain(own)
    }

    /// What lies below MQTT on the port with this index.
    #[must_use]
    pub fn transport_of(&self, port: u16) -> Option<&Transport> {
        self.listeners.iter().find(|listener| listener.port == port).map(|listener| &listener.transport)
    }

    /// Whether the wall clock can be right: it shows no time before the release or the last known one.
    #[must_use]
    pub fn clock_is_set(&self, now: Now) -> bool {
        now.unix >= self.clock_trust.floor
    }

    /// Whether the wall clock is believed.
    #[must_use]
    pub fn believes_clock(&self, now: Now) -> bool {
        self.clock_trust.believes(now.unix, self.steadiness.is_steady(now.instant))
    }
}
