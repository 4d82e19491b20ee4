//! `kind: Broker`: the limits of clients and the memory profile.
//!
//! What concerns the vendor's cluster only is checked and noted; what this version cannot do is checked and refused.

use super::blob::{LogLevel, Persistence, QueueStrategy, SelfCheck};
use super::certificate::{duration, private_key};
use super::diagnostic::{Place, Report};
use super::persistence;
use super::source::Node;
use super::source::walk::{Fields, choice, integer, sequence, text};
use super::volume;

/// `spec` of a Broker, as far as it matters to a gateway.
#[derive(Clone, Debug)]
pub struct Broker {
    /// Cap of packets from `memoryProfile`, bytes.
    pub profile_packet_bytes: u32,
    /// `maxSessionExpirySeconds`.
    pub max_session_expiry_seconds: Option<u32>,
    /// `maxMessageExpirySeconds`.
    pub max_message_expiry_seconds: Option<u32>,
    /// `maxPacketSizeBytes` and where it stands.
    pub max_packet_size_bytes: Option<(u32, Place)>,
    /// `maxReceiveMaximum`.
    pub max_receive_maximum: Option<u16>,
    /// `maxKeepAliveSeconds`.
    pub max_keep_alive_seconds: Option<u16>,
    /// `subscriberQueueLimit.length`.
    pub subscriber_queue_length: u64,
    /// `subscriberQueueLimit.strategy`.
    pub subscriber_queue_strategy: QueueStrategy,
    /// `diagnostics.metrics.prometheusPort` and where it stands; 0 for no port.
    pub prometheus_port: Option<(u16, Place)>,
    /// `diagnostics.selfCheck`; `None` where its mode is `Disabled`.
    pub self_check: Option<SelfCheck>,
    /// `diagnostics.logs.level`.
    pub log_level: LogLevel,
    /// `persistence`; the commit interval is not of this resource.
    pub persistence: Persistence,
}

/// Bytes that a memory profile allows for one packet.
const PROFILES: [(&str, u32); 4] =
    [("Tiny", 4 * MEBIBYTE), ("Low", 16 * MEBIBYTE), ("Medium", 64 * MEBIBYTE), ("High", 256 * MEBIBYTE)];
const MEBIBYTE: u32 = 1024 * 1024;
/// Values of `diagnostics.logs.level`.
const LOG_LEVELS: [(&str, LogLevel); 5] = [
    ("error", LogLevel::Error),
    ("warn", LogLevel::Warn),
    ("info", LogLevel::Info),
    ("debug", LogLevel::Debug),
    ("trace", LogLevel::Trace),
];
/// `Enabled` and `Disabled`.
pub(super) const SWITCH: [(&str, bool); 2] = [("Enabled", true), ("Disabled", false)];

impl Default for Broker {
    fn default() -> Self {
        Self {
            profile_packet_bytes: 64 * MEBIBYTE,
            max_session_expiry_seconds: None,
            max_message_expiry_seconds: None,
            max_packet_size_bytes: None,
            max_receive_maximum: None,
            max_keep_alive_seconds: None,
            subscriber_queue_length: 1_000,
            subscriber_queue_strategy: QueueStrategy::None,
            prometheus_port: None,
            self_check: Some(SelfCheck::default()),
            log_level: LogLevel::default(),
            persistence: Persistence::default(),
        }
    }
}

/// Reads a `spec`.
pub fn read(spec: &Node, report: &mut Report) -> Option<Broker> {
    let mut broker = Broker::default();
    let mut fields = Fields::of(spec, "the spec of Broker", report)?;
    if let Some(node) = fields.optional("memoryProfile")
        && let Some(bytes) = choice(node, "memoryProfile", &PROFILES, report)
    {
        broker.profile_packet_bytes = bytes;
    }
    if let Some(node) = fields.optional("advanced") {
        advanced(node, &mut broker, report);
    }
    if let Some(node) = fields.optional("cardinality") {
        cardinality(node, report);
        note_no_effect(node, "cardinality", report);
    }
    if let Some(node) = fields.optional("diagnostics") {
        diagnostics(node, &mut broker, report);
    }
    if let Some(node) = fields.optional("generateResourceLimits") {
        if let Some(mut limits) = Fields::of(node, "generateResourceLimits", report) {
            switch(&mut limits, "cpu", report);
            limits.finish(report);
        }
        note_no_effect(node, "generateResourceLimits", report);
    }
    if let Some(node) = fields.optional("diskBackedMessageBuffer") {
        volume::disk_backed_message_buffer(node, report);
        let message = "diskBackedMessageBuffer is not supported: queues grow in memory only; persistence keeps them over a restart";
        report.error(&node.place, message);
    }
    if let Some(node) = fields.optional("persistence") {
        broker.persistence = persistence::read(node, report);
    }
    if let Some(node) = fields.optional("highPriorityMessagesBackpressureHandling")
        && choice(node, "highPriorityMessagesBackpressureHandling", &[("Accept", ()), ("Reject", ())], report).is_some()
    {
        refuse(&node.place, "highPriorityMessagesBackpressureHandling", report);
    }
    fields.finish(report);
    Some(broker)
}

/// Reports something that is valid but that this version cannot do.
fn refuse(place: &Place, what: &str, report: &mut Report) {
    report.error(place, format!("{what} is not supported yet by this version"));
}

/// Reports something that concerns a cluster only.
pub(super) fn note_no_effect(node: &Node, what: &str, report: &mut Report) {
    report.note(&node.place, format!("{what} has no effect on a gateway"));
}

/// Reads an optional `Enabled` or `Disabled`.
fn switch(fields: &mut Fields<'_>, name: &'static str, report: &mut Report) -> Option<bool> {
    fields.optional(name).and_then(|node| choice(node, name, &SWITCH, report))
}

/// Reads an optional number of at most 32 bits.
fn number(
    fields: &mut Fields<'_>,
    name: &'static str,
    range: core::ops::RangeInclusive<u64>,
    report: &mut Report,
) -> Option<u32> {
    let node = fields.optional(name)?;
    integer(node, name, range, report).and_then(|value| u32::try_from(value).ok())
}

fn advanced(node: &Node, broker: &mut Broker, report: &mut Report) {
    let Some(mut fields) = Fields::of(node, "advanced", report) else { return };
    if let Some(node) = fields.optional("clients") {
        clients(node, broker, report);
    }
    if let Some(node) = fields.optional("encryptInternalTraffic") {
        choice(node, "encryptInternalTraffic", &SWITCH, report);
        note_no_effect(node, "advanced.encryptInternalTraffic", report);
    }
    if let Some(node) = fields.optional("internalCerts") {
        internal_certificates(node, report);
        note_no_effect(node, "advanced.internalCerts", report);
    }
    if let Some(node) = fields.optional("tolerations") {
        tolerations(node, report);
        note_no_effect(node, "advanced.tolerations", report);
    }
    fields.finish(report);
}

fn clients(node: &Node, broker: &mut Broker, report: &mut Report) {
    let Some(mut fields) = Fields::of(node, "advanced.clients", report) else { return };
    let seconds = 1..=u64::from(u32::MAX);
    broker.max_session_expiry_seconds = number(&mut fields, "maxSessionExpirySeconds", seconds.clone(), report);
    broker.max_message_expiry_seconds = number(&mut fields, "maxMessageExpirySeconds", seconds, report);
    if let Some(node) = fields.optional("maxPacketSizeBytes") {
        let bytes =
            integer(node, "maxPacketSizeBytes", 1..=268_435_456, report).and_then(|bytes| u32::try_from(bytes).ok());
        broker.max_packet_size_bytes = bytes.map(|bytes| (bytes, node.place.clone()));
    }
    broker.max_receive_maximum =
        number(&mut fields, "maxReceiveMaximum", 1..=65_535, report).and_then(|value| u16::try_from(value).ok());
    broker.max_keep_alive_seconds =
        number(&mut fields, "maxKeepAliveSeconds", 0..=65_535, report).and_then(|value| u16::try_from(value).ok());
    if let Some(node) = fields.optional("subscriberQueueLimit")
        && let Some(mut limit) = Fields::of(node, "subscriberQueueLimit", report)
    {
        if let Some(node) = limit.optional("length")
            && let Some(length) = integer(node, "subscriberQueueLimit.length", 1..=9_223_372_036_854_775_807, report)
        {
            broker.subscriber_queue_length = length;
        }
        if let Some(node) = limit.optional("strategy") {
            let strategies = [("None", QueueStrategy::None), ("DropOldest", QueueStrategy::DropOldest)];
            if let Some(strategy) = choice(node, "subscriberQueueLimit.strategy", &strategies, report) {
                broker.subscriber_queue_strategy = strategy;
            }
        }
        limit.finish(report);
    }
    fields.finish(report);
}

fn cardinality(node: &Node, report: &mut Report) {
    let Some(mut fields) = Fields::of(node, "cardinality", report) else { return };
    if let Some(node) = fields.required("backendChain", report)
        && let Some(mut chain) = Fields::of(node, "cardinality.backendChain", report)
    {
        required_number(&mut chain, "partitions", 1..=16, report);
        required_number(&mut chain, "redundancyFactor", 1..=5, report);
        number(&mut chain, "workers", 1..=16, report);
        chain.finish(report);
    }
    if let Some(node) = fields.required("frontend", report)
        && let Some(mut frontend) = Fields::of(node, "cardinality.frontend", report)
    {
        required_number(&mut frontend, "replicas", 1..=16, report);
        number(&mut frontend, "workers", 1..=16, report);
        frontend.finish(report);
    }
    fields.finish(report);
}

fn required_number(
    fields: &mut Fields<'_>,
    name: &'static str,
    range: core::ops::RangeInclusive<u64>,
    report: &mut Report,
) {
    if let Some(node) = fields.required(name, report) {
        integer(node, name, range, report);
    }
}

fn diagnostics(node: &Node, broker: &mut Broker, report: &mut Report) {
    let Some(mut fields) = Fields::of(node, "diagnostics", report) else { return };
    if let Some(node) = fields.optional("logs")
        && let Some(mut logs) = Fields::of(node, "diagnostics.logs", report)
    {
        if let Some(node) = logs.optional("level")
            && let Some(level) = choice(node, "diagnostics.logs.level", &LOG_LEVELS, report)
        {
            broker.log_level = level;
        }
        logs.finish(report);
    }
    if let Some(node) = fields.optional("metrics")
        && let Some(mut metrics) = Fields::of(node, "diagnostics.metrics", report)
    {
        if let Some(node) = metrics.optional("prometheusPort") {
            let port = integer(node, "prometheusPort", 0..=65_535, report).and_then(|port| u16::try_from(port).ok());
            broker.prometheus_port = port.map(|port| (port, node.place.clone()));
        }
        metrics.finish(report);
    }
    if let Some(node) = fields.optional("selfCheck")
        && let Some(mut check) = Fields::of(node, "diagnostics.selfCheck", report)
    {
        let seconds = |given: Option<u32>| given.and_then(|seconds| u16::try_from(seconds).ok());
        let is_on = switch(&mut check, "mode", report).unwrap_or(true);
        let interval = seconds(number(&mut check, "intervalSeconds", 30..=300, report));
        let timeout = seconds(number(&mut check, "timeoutSeconds", 5..=120, report));
        let default = SelfCheck::default();
        broker.self_check = is_on.then_some(SelfCheck {
            interval_seconds: interval.unwrap_or(default.interval_seconds),
            timeout_seconds: timeout.unwrap_or(default.timeout_seconds),
        });
        check.finish(report);
    }
    if let Some(node) = fields.optional("traces")
        && let Some(mut traces) = Fields::of(node, "diagnostics.traces", report)
    {
        switch(&mut traces, "mode", report);
        number(&mut traces, "cacheSizeMegabytes", 1..=128, report);
        number(&mut traces, "spanChannelCapacity", 1_000..=100_000, report);
        if let Some(node) = traces.optional("selfTracing")
            && let Some(mut tracing) = Fields::of(node, "diagnostics.traces.selfTracing", report)
        {
            switch(&mut tracing, "mode", report);
            number(&mut tracing, "intervalSeconds", 1..=300, report);
            tracing.finish(report);
        }
        traces.finish(report);
        note_no_effect(node, "diagnostics.traces", report);
    }
    fields.finish(report);
}

fn internal_certificates(node: &Node, report: &mut Report) {
    let Some(mut fields) = Fields::of(node, "advanced.internalCerts", report) else { return };
    for name in ["duration", "renewBefore"] {
        if let Some(node) = fields.required(name, report) {
            duration(node, name, report);
        }
    }
    if let Some(node) = fields.required("privateKey", report) {
        private_key(node, report);
    }
    fields.finish(report);
}

fn tolerations(node: &Node, report: &mut Report) {
    for node in sequence(node, "advanced.tolerations", report).unwrap_or_default() {
        let Some(mut fields) = Fields::of(node, "advanced.tolerations[]", report) else { continue };
        for name in ["effect", "key", "operator", "value"] {
            if let Some(node) = fields.required(name, report) {
                text(node, name, report);
            }
        }
        fields.finish(report);
    }
}
