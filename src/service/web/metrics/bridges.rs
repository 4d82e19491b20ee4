//! Figures of the bridges: a handful for each, of which there are eight at most.

use super::exposition::{Exposition, Kind, Number};
use crate::bridge::{State, Status};
use crate::broker::QueueView;

/// One figure of a bridge.
type Figure = fn(&Status, &QueueView) -> u64;

/// One that has a label of its own.
type Labelled = (&'static str, Figure);

const FIGURES: [(&str, Kind, &str, Figure); 5] = [
    ("portcullis_bridge_connected", Kind::Gauge, "Whether a bridge is connected to its upstream.", |bridge, _| {
        u64::from(bridge.state == State::Connected)
    }),
    ("portcullis_bridge_queued_messages", Kind::Gauge, "Messages that the upstream has not taken yet.", |_, queue| {
        u64::from(queue.waiting) + u64::from(queue.in_flight)
    }),
    ("portcullis_bridge_queued_bytes", Kind::Gauge, "Bytes of the message pool that these hold.", |_, queue| {
        queue.bytes
    }),
    ("portcullis_bridge_connects_total", Kind::Counter, "Connections to the upstream.", |bridge, _| {
        bridge.counters.connects
    }),
    (
        "portcullis_bridge_failures_total",
        Kind::Counter,
        "Attempts to connect that failed, and connections that ended.",
        |bridge, _| bridge.counters.failures,
    ),
];

const DROPS: [Labelled; 5] = [
    ("queue", |_, queue| queue.dropped),
    ("loop", |bridge, _| bridge.counters.dropped_loop),
    ("topic", |bridge, _| bridge.counters.dropped_topic),
    ("size", |bridge, queue| bridge.counters.dropped_size + queue.too_large),
    ("refused", |bridge, _| bridge.counters.dropped_refused),
];

const WAYS: [Labelled; 2] = [("out", |bridge, _| bridge.counters.sent), ("in", |bridge, _| bridge.counters.received)];

/// Writes them; nothing where there is no bridge.
pub fn write(text: &mut Exposition, bridges: &[(Status, QueueView)]) {
    if bridges.is_empty() {
        return;
    }
    for (name, kind, help, figure) in FIGURES {
        text.family(name, kind, help);
        for (bridge, queue) in bridges {
            text.sample(name, &[("bridge", &bridge.name)], Number::Count(figure(bridge, queue)));
        }
    }
    let families: [(&str, &str, &str, &[Labelled]); 2] = [
        ("portcullis_bridge_messages_total", "Messages that have crossed a bridge.", "direction", &WAYS),
        ("portcullis_bridge_messages_dropped_total", "Messages that have not crossed a bridge.", "reason", &DROPS),
    ];
    for (name, help, label, figures) in families {
        text.family(name, Kind::Counter, help);
        for (bridge, queue) in bridges {
            for (value, figure) in figures {
                text.sample(name, &[("bridge", &bridge.name), (label, value)], Number::Count(figure(bridge, queue)));
            }
        }
    }
}
