//! `$SYS/broker/…`: what dashboards read from mosquitto, under the names it has there.
//!
//! Retained messages of QoS 0, published by the broker at an interval. Who may read them is decided as for any topic; nobody
//! may write them.

use super::{Broker, StoreState};
use crate::telemetry::Action;
use crate::time::{Instant, Now};
use core::fmt::Write as _;

/// Averages over one, five and fifteen minutes of what is counted, as events a minute.
const LOADS: [(&str, f64); 3] = [("1min", 60.0), ("5min", 300.0), ("15min", 900.0)];
/// What averages are kept of.
const RATES: [&str; 9] = [
    "messages/received",
    "messages/sent",
    "publish/received",
    "publish/sent",
    "publish/dropped",
    "bytes/received",
    "bytes/sent",
    "connections",
    "sockets",
];

/// When the topics are published next, and what averages need to know of the last time.
pub struct Sys {
    interval_milliseconds: u64,
    due: Option<Instant>,
    last: Option<Instant>,
    counted: [u64; RATES.len()],
    averages: [[f64; LOADS.len()]; RATES.len()],
    connected_maximum: usize,
}

impl Sys {
    /// Publishes every `interval_seconds`; 0 switches it off.
    #[must_use]
    pub fn new(interval_seconds: u16) -> Self {
        Self {
            interval_milliseconds: u64::from(interval_seconds) * 1_000,
            due: (interval_seconds > 0).then_some(Instant::ZERO),
            last: None,
            counted: [0; RATES.len()],
            averages: [[0.0; LOADS.len()]; RATES.len()],
            connected_maximum: 0,
        }
    }

    /// Publishes every `interval_seconds` from now on; averages go on.
    pub fn set_interval(&mut self, now: Instant, interval_seconds: u16) {
        let Self { interval_milliseconds, due, .. } = Self::new(interval_seconds);
        if interval_milliseconds != self.interval_milliseconds {
            self.interval_milliseconds = interval_milliseconds;
            self.due = due.map(|_| now.plus_milliseconds(interval_milliseconds));
        }
    }

    /// When the topics are published next.
    #[must_use]
    pub const fn due(&self) -> Option<Instant> {
        self.due
    }
}

impl Broker {
    /// Publishes the topics if it is time.
    pub(super) fn publish_sys(&mut self, now: Now) {
        if self.sys.due.is_none_or(|due| due > now.instant) {
            return;
        }
        self.sys.due = Some(now.instant.plus_milliseconds(self.sys.interval_milliseconds));
        let counters = self.telemetry.counters.clone();
        let connected = self.sessions_connected;
        let total = self.sessions.len();
        self.sys.connected_maximum = self.sys.connected_maximum.max(connected);
        let uptime = now.instant.as_milliseconds() / 1_000;
        self.say(now, "version", format_args!("portcullis version {}", env!("CARGO_PKG_VERSION")));
        self.say(now, "uptime", format_args!("{uptime} seconds"));
        let retained = self.retained.count();
        let dropped = counters.queue_dropped + counters.expired + counters.too_large;
        for (name, value) in [
            ("clients/total", total as u64),
            ("clients/connected", connected as u64),
            ("clients/active", connected as u64),
            ("clients/disconnected", (total - connected.min(total)) as u64),
            ("clients/inactive", (total - connected.min(total)) as u64),
            ("clients/maximum", self.sys.connected_maximum as u64),
            ("clients/expired", counters.sessions_expired),
            ("subscriptions/count", self.subscriptions.count() as u64),
            ("retained messages/count", retained as u64),
            ("messages/stored", self.messages.count() as u64),
            ("store/messages/count", self.messages.count() as u64),
            (
                "store/messages/bytes",
                u64::from(self.messages.blocks_used()) * crate::limits::MESSAGE_BLOCK_BYTES as u64,
            ),
            ("messages/received", counters.packets_received),
            ("messages/sent", counters.packets_sent),
            ("publish/messages/received", counters.publishes_received),
            ("publish/messages/sent", counters.publishes_sent),
            ("publish/messages/dropped", dropped),
            ("publish/bytes/received", counters.payload_bytes_received),
            ("publish/bytes/sent", counters.payload_bytes_sent),
            ("bytes/received", counters.bytes_received),
            ("bytes/sent", counters.bytes_sent),
        ] {
            self.say(now, name, format_args!("{value}"));
        }
        self.say_store(now);
        for (action, count) in Action::ALL.into_iter().zip(counters.denied) {
            let mut name = heapless::String::<64>::new();
            if write!(name, "authorization/denied/{action}").is_ok() {
                self.say(now, &name, format_args!("{count}"));
            }
        }
        let counted = [
            counters.packets_received,
            counters.packets_sent,
            counters.publishes_received,
            counters.publishes_sent,
            dropped,
            counters.bytes_received,
            counters.bytes_sent,
            counters.connects_accepted,
            counters.connections_opened,
        ];
        self.say_loads(now, counted);
    }

    /// How the log is. mosquitto has nothing of the kind.
    fn say_store(&mut self, now: Now) {
        let state = self.store_state();
        self.say(now, "store/state", format_args!("{state}"));
        if state == StoreState::Off {
            return;
        }
        let counters = self.telemetry.counters.clone();
        let (used, free) = self.log.as_ref().map_or((0, 0), |log| (log.room.used_bytes, log.room.free_bytes));
        for (name, value) in [
            ("store/bytes/used", used),
            ("store/bytes/free", free),
            ("store/bytes/written", counters.store_bytes),
            ("store/bytes/acknowledged", counters.store_message_bytes),
            ("store/messages/acknowledged", counters.store_messages),
            ("store/commits", counters.store_commits),
            ("store/commits/failed", counters.store_failures),
            ("store/commits/slow", counters.store_slow),
            ("store/commits/milliseconds", counters.store_milliseconds),
            ("store/commits/milliseconds/maximum", counters.store_milliseconds_max),
            ("store/sweeps", counters.store_sweeps),
            ("store/records/damaged", counters.store_damaged),
        ] {
            self.say(now, name, format_args!("{value}"));
        }
        // What flash pays for what is promised.
        let per_byte = counters.store_bytes as f64 / counters.store_message_bytes.max(1) as f64;
        if counters.store_message_bytes > 0 {
            self.say(now, "store/bytes/written per acknowledged byte", format_args!("{per_byte:.2}"));
        }
    }

    fn say_loads(&mut self, now: Now, counted: [u64; RATES.len()]) {
        let elapsed = self.sys.last.map(|last| now.instant.milliseconds_since(last) as f64 / 1_000.0);
        self.sys.last = Some(now.instant);
        let former = core::mem::replace(&mut self.sys.counted, counted);
        for (index, (rate, (new, old))) in RATES.iter().zip(counted.iter().zip(former)).enumerate() {
            for (place, (name, seconds)) in LOADS.iter().enumerate() {
                let Some(average) = self.sys.averages.get_mut(index).and_then(|row| row.get_mut(place)) else {
                    continue;
                };
                if let Some(elapsed) = elapsed.filter(|elapsed| *elapsed > 0.0) {
                    let per_minute = new.saturating_sub(old) as f64 * 60.0 / elapsed;
                    *average = per_minute + (-elapsed / seconds).exp() * (*average - per_minute);
                }
                let value = *average;
                let mut topic = heapless::String::<64>::new();
                if write!(topic, "load/{rate}/{name}").is_ok() {
                    self.say(now, &topic, format_args!("{value:.2}"));
                }
            }
        }
    }

    fn say(&mut self, now: Now, name: &str, value: core::fmt::Arguments<'_>) {
        let (mut topic, mut payload) = (heapless::String::<96>::new(), heapless::String::<64>::new());
        if write!(topic, "$SYS/broker/{name}").is_ok() && write!(payload, "{value}").is_ok() {
            self.publish_own(now.instant, &topic, payload.as_bytes());
        }
    }
}
