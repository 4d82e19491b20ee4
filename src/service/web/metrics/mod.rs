//! `/metrics`: figures for Prometheus.
//!
//! Where a figure means what a metric of the vendor's broker means, it has that metric's name, literally (azure-model §4.5), with
//! the label `category` where it is counted by it; those names do not end in `_total`, which promtool remarks on. What is ours
//! begins with `portcullis_`, what every process has with `process_`.
//!
//! **Invariant:** how many series there are follows from the configuration and from constants. No name that a peer chose is a
//! label, but for categories, of which there are eighteen.
//!
//! Deliberately absent: allocations. Counting them takes an allocator of our own, which takes `unsafe`; what the process holds is
//! asked of the system instead, and that the broker allocates nothing for a message is a test.

mod bridges;
mod exposition;
mod process;

use super::Context;
use super::api::certificate_rows;
use super::serve::RESPONSE_BYTES_MAX;
use crate::bridge;
use crate::broker::{Held, QueueView, StoreView, TableUse};
use crate::codec::ReasonCode;
use crate::http::{Response, Status};
use crate::platform;
use crate::service::{Health, HealthState, Operation, ProbeReport};
use crate::telemetry::{Action, Categories, CategoryCounters, Cause, Counters, Durations, Refusals, Table};
use crate::time::Now;
use exposition::{CONTENT_TYPE, Exposition, Kind, Number};
use std::collections::BTreeMap;

/// What the loop gives: copies, so that it is asked for no longer than they take.
struct Snapshot {
    now: Now,
    trusts_clock: bool,
    counters: Counters,
    refusals: Refusals,
    categories: Categories,
    durations: Durations,
    tables: Vec<TableUse>,
    connected: u64,
    held: Held,
    store: Option<StoreView>,
    bridges: Vec<(bridge::Status, QueueView)>,
    health: Health,
    /// By what they are for and their names: when the first of them ends, seconds since 1970.
    certificates: BTreeMap<(&'static str, String), u64>,
}

/// The page.
pub(super) async fn page(context: &Context) -> Response {
    let around: Vec<_> = context.bridges.borrow().iter().map(|bridge| bridge.borrow().clone()).collect();
    let (facts, report) = (context.facts.clone(), context.probe.clone());
    let taken = context.inside.ask(move |turn, now| {
        let health = Health::look(turn, now, &facts.borrow(), &report.borrow());
        let mut certificates = BTreeMap::new();
        for (kind, certificate) in certificate_rows(turn, &facts.borrow()) {
            let ends: &mut u64 = certificates.entry((kind, certificate.name)).or_insert(u64::MAX);
            *ends = certificate.not_after.0.min(*ends);
        }
        let trusts_clock = turn.clock_is_set(now);
        let tables = turn.table_uses().collect();
        let broker = turn.broker();
        let queued = |bridge: bridge::Status| {
            let queue = broker.queue_of_insider(&bridge.client_identifier());
            (bridge, queue)
        };
        let bridges = around.into_iter().map(queued).collect();
        let (connected, held, store) = (broker.sessions_connected(), broker.held(), broker.store_view());
        let telemetry = broker.telemetry();
        Snapshot {
            now,
            trusts_clock,
            counters: telemetry.counters.clone(),
            refusals: telemetry.refusals.clone(),
            categories: telemetry.categories.clone(),
            durations: telemetry.durations,
            tables,
            connected,
            held,
            store,
            bridges,
            health,
            certificates,
        }
    });
    let Some(mut snapshot) = taken.await else {
        return Response::text(Status::ServiceUnavailable, "the broker stops");
    };
    let machine = context.updates.machine();
    snapshot.health = snapshot.health.with_machine(machine.as_ref());
    let mut text = Exposition::new(RESPONSE_BYTES_MAX);
    vendor(&mut text, &snapshot);
    health(&mut text, &snapshot);
    probe(&mut text, &context.probe.borrow());
    messages(&mut text, &snapshot);
    clients(&mut text, &snapshot);
    tables(&mut text, &snapshot);
    store(&mut text, &snapshot);
    durations(&mut text, &snapshot.durations);
    own(&mut text, &snapshot, &context.facts.borrow().board);
    if let Some(machine) = &machine {
        let help = "What the machine has to tell a person.";
        text.single("portcullis_machine_notices", Kind::Gauge, help, Number::Count(machine.notices.len() as u64));
    }
    bridges::write(&mut text, &snapshot.bridges);
    process::write(&mut text);
    text.finish().map_or_else(|| Status::InternalServerError.into(), |text| Response::new(CONTENT_TYPE, text))
}

/// A family of several samples with one label.
fn by_label<'a>(
    text: &mut Exposition,
    (name, kind, help): (&str, Kind, &str),
    label: &str,
    samples: impl IntoIterator<Item = (&'a str, u64)>,
) {
    text.family(name, kind, help);
    for (value, count) in samples {
        text.sample(name, &[(label, value)], Number::Count(count));
    }
}

/// A family without labels for each row.
fn singles(text: &mut Exposition, kind: Kind, rows: &[(&str, &str, u64)]) {
    for (name, help, value) in rows {
        text.single(name, kind, help, Number::Count(*value));
    }
}

type CategoryField = fn(&CategoryCounters) -> u64;

/// What the vendor's broker counts too.
fn vendor(text: &mut Exposition, snapshot: &Snapshot) {
    const BY_CATEGORY: [(&str, &str, CategoryField); 7] = [
        ("aio_broker_publishes_received", "PUBLISH packets received.", |row| row.publishes_received),
        ("aio_broker_publishes_sent", "PUBLISH packets sent.", |row| row.publishes_sent),
        ("aio_broker_payload_bytes_received", "Payload bytes of PUBLISH packets received.", |row| {
            row.payload_bytes_received
        }),
        ("aio_broker_payload_bytes_sent", "Payload bytes of PUBLISH packets sent.", |row| row.payload_bytes_sent),
        ("aio_broker_authentication_successes", "Credentials of CONNECT accepted.", |row| row.authentication_successes),
        ("aio_broker_authentication_failures", "Credentials of CONNECT refused.", |row| row.authentication_failures),
        (
            "aio_broker_backpressure_packets_rejected",
            "PUBLISH packets of QoS 1 and 2 refused because something is full.",
            |row| row.publishes_refused,
        ),
    ];
    for (name, help, field) in BY_CATEGORY {
        let samples = snapshot.categories.rows().map(|(category, row)| (category, field(row)));
        by_label(text, (name, Kind::Counter, help), "category", samples);
    }
    let name = "aio_broker_qos0_messages_dropped";
    text.family(name, Kind::Counter, "QoS 0 messages dropped: incoming ones for all receivers, outgoing ones for one.");
    for (category, row) in snapshot.categories.rows() {
        for (direction, count) in [("incoming", row.qos0_dropped_incoming), ("outgoing", row.qos0_dropped_outgoing)] {
            text.sample(name, &[("category", category), ("direction", direction)], Number::Count(count));
        }
    }
    let counters = &snapshot.counters;
    singles(
        text,
        Kind::Counter,
        &[
            ("aio_broker_authorization_allow", "Authorization decisions that allowed.", counters.authorization_allowed),
            ("aio_broker_authorization_deny", "Authorization decisions that denied.", counters.authorization_denied()),
        ],
    );
    let held = &snapshot.held;
    let used = |name: &str| snapshot.tables.iter().find(|table| table.name == name).map_or(0, |table| table.used);
    singles(
        text,
        Kind::Gauge,
        &[
            ("aio_broker_total_sessions", "Sessions, with and without a connection.", used("sessions")),
            ("aio_broker_connected_sessions", "Sessions with a connection.", snapshot.connected),
            ("aio_broker_total_subscriptions", "Subscriptions.", used("subscriptions")),
            ("aio_broker_store_retained_messages", "Retained messages.", used("retained messages")),
            ("aio_broker_store_retained_bytes", "Bytes of retained messages.", held.retained_bytes),
            ("aio_broker_store_total_sessions", "Sessions that outlive a restart.", held.kept_sessions),
            ("aio_broker_store_total_subscriptions", "Subscriptions of these.", held.kept_subscriptions),
            ("aio_broker_store_will_messages", "Wills.", held.wills),
            ("aio_broker_store_will_bytes", "Bytes of Wills.", held.will_bytes),
        ],
    );
    let blocks = snapshot.tables.iter().find(|table| table.name == "message blocks");
    let percent = blocks.map_or(0.0, |table| ratio(table.used, table.capacity) * 100.0);
    let help = "Blocks of the message pool in use, percent.";
    text.single("aio_broker_buffer_pool_used_percent", Kind::Gauge, help, Number::Real(percent));
}

/// Whether all is well, and for how long.
fn health(text: &mut Exposition, snapshot: &Snapshot) {
    let ready = u64::from(snapshot.health.is_ready());
    text.single("portcullis_ready", Kind::Gauge, "Whether all checks that decide are passed.", Number::Count(ready));
    let checks = snapshot.health.checks.iter().map(|check| (check.name, u64::from(check.is_ok)));
    by_label(text, ("portcullis_check_passed", Kind::Gauge, "Whether a check is passed."), "check", checks);
    let name = "portcullis_certificate_not_after_timestamp_seconds";
    text.family(name, Kind::Gauge, "When certificates end, seconds since 1970; of several under one name the first.");
    for ((kind, certificate), ends) in &snapshot.certificates {
        text.sample(name, &[("kind", kind), ("name", certificate)], Number::Count(*ends));
    }
}

/// What the probe found, under the vendor's names.
fn probe(text: &mut Exposition, report: &ProbeReport) {
    let state = match report.state {
        HealthState::Available => 1,
        HealthState::Degraded | HealthState::Unavailable | HealthState::Unknown => 0,
    };
    let succeeded = report.rounds - report.failed.min(report.rounds);
    singles(
        text,
        Kind::Gauge,
        &[
            ("aio_broker_ping_correctness", "Whether the last round of the probe was answered as it should be.", state),
            ("portcullis_available", "The same, under a name of ours.", state),
        ],
    );
    let help = "Rounds of the probe.";
    let samples = [("succeeded", succeeded), ("failed", report.failed)];
    by_label(text, ("portcullis_probe_rounds_total", Kind::Counter, help), "outcome", samples);
    for (operation, latency) in Operation::ALL.iter().zip(&report.latencies) {
        let values = [("last_value", latency.last), ("mu", latency.mean), ("sigma", latency.deviation())];
        for (suffix, microseconds) in values {
            let mut name = heapless::String::<64>::new();
            // All of these names have fewer characters.
            for piece in ["aio_broker_", operation.name(), "_latency_", suffix, "_ms"] {
                let _ = name.push_str(piece);
            }
            let help =
                "What an operation of the probe took, milliseconds: the last time, on average, standard deviation.";
            text.single(&name, Kind::Gauge, help, Number::Real(microseconds / 1_000.0));
        }
    }
}

/// Packets and messages.
fn messages(text: &mut Exposition, snapshot: &Snapshot) {
    let counters = &snapshot.counters;
    let directions = |received, sent| [("received", received), ("sent", sent)];
    let packets = ("portcullis_packets_total", Kind::Counter, "MQTT packets.");
    by_label(text, packets, "direction", directions(counters.packets_received, counters.packets_sent));
    let bytes = ("portcullis_packet_bytes_total", Kind::Counter, "Bytes of MQTT packets.");
    by_label(text, bytes, "direction", directions(counters.bytes_received, counters.bytes_sent));
    let dropped = (
        "portcullis_messages_dropped_total",
        Kind::Counter,
        "Messages that one receiver did not get; denied ones for all receivers.",
    );
    let reasons = [
        ("queue-full", counters.queue_dropped),
        ("expired", counters.expired),
        ("too-large", counters.too_large),
        ("qos0-denied", counters.qos0_denied),
    ];
    by_label(text, dropped, "reason", reasons);
}

/// Connections, credentials, rights.
fn clients(text: &mut Exposition, snapshot: &Snapshot) {
    let counters = &snapshot.counters;
    singles(
        text,
        Kind::Counter,
        &[
            ("portcullis_connections_opened_total", "Network connections accepted.", counters.connections_opened),
            ("portcullis_connects_accepted_total", "CONNECT packets accepted.", counters.connects_accepted),
            ("portcullis_credentials_renewed_total", "Credentials renewed with AUTH.", counters.renewals),
            (
                "portcullis_protocol_violations_total",
                "Connections that broke the protocol.",
                counters.protocol_violations,
            ),
            (
                "portcullis_sessions_expired_total",
                "Sessions whose client did not come back.",
                counters.sessions_expired,
            ),
        ],
    );
    let name = "portcullis_connects_refused_total";
    text.family(name, Kind::Counter, "Connections refused, by the Reason Code of CONNACK, or closed without one.");
    for (code, count) in snapshot.refusals.iter() {
        let reason = ReasonCode::from_u8(code).filter(|_| code != 0).map(|reason| reason.to_string());
        text.sample(name, &[("reason", reason.as_deref().unwrap_or("closed"))], Number::Count(count));
    }
    let ends = ("portcullis_disconnects_total", Kind::Counter, "Connections of sessions that ended, by cause.");
    by_label(text, ends, "cause", Cause::ALL.into_iter().map(Cause::name).zip(counters.ends));
    let denied =
        ("portcullis_authorization_denied_total", Kind::Counter, "Denials, by what was asked for: no rule allows it.");
    by_label(text, denied, "action", Action::ALL.into_iter().map(Action::name).zip(counters.denied));
    let handshakes = ("portcullis_tls_handshakes_total", Kind::Counter, "TLS handshakes.");
    let outcomes = [
        ("full", counters.handshakes_full),
        ("resumed", counters.handshakes_resumed),
        ("failed", counters.handshakes_failed),
    ];
    by_label(text, handshakes, "outcome", outcomes);
}

/// How full everything is.
fn tables(text: &mut Exposition, snapshot: &Snapshot) {
    let rows = || snapshot.tables.iter();
    let used = ("portcullis_table_used", Kind::Gauge, "Rows or bytes of a table that are in use.");
    by_label(text, used, "table", rows().map(|table| (table.name, table.used)));
    let capacity = ("portcullis_table_capacity", Kind::Gauge, "Rows or bytes of a table.");
    by_label(text, capacity, "table", rows().map(|table| (table.name, table.capacity)));
    let refused = ("portcullis_table_refused_total", Kind::Counter, "How often something found no room.");
    let full = Table::ALL.into_iter().map(Table::name).zip(snapshot.counters.full);
    by_label(text, refused, "table", full);
}

/// The log on the disk.
fn store(text: &mut Exposition, snapshot: &Snapshot) {
    let Some(view) = &snapshot.store else { return };
    let counters = &snapshot.counters;
    let state = ("portcullis_store_state", Kind::Gauge, "1 for the state that the log is in.");
    by_label(text, state, "state", view.state.each().map(|(name, is_it)| (name, u64::from(is_it))));
    singles(
        text,
        Kind::Gauge,
        &[
            ("portcullis_store_used_bytes", "Bytes of the segments in use.", view.used_bytes),
            ("portcullis_store_max_bytes", "Bytes that the log may take.", view.max_bytes),
            ("portcullis_store_position", "Number of the last record.", view.position),
        ],
    );
    singles(
        text,
        Kind::Counter,
        &[
            ("portcullis_store_commits_total", "Batches written.", counters.store_commits),
            ("portcullis_store_commit_failures_total", "Batches that could not be written.", counters.store_failures),
            ("portcullis_store_slow_commits_total", "Batches that took longer than a second.", counters.store_slow),
            ("portcullis_store_sweeps_total", "Times that everything live was written anew.", counters.store_sweeps),
            ("portcullis_store_written_bytes_total", "Bytes of batches.", counters.store_bytes),
            (
                "portcullis_store_acknowledged_messages_total",
                "Messages whose acknowledgement waits for the disk.",
                counters.store_messages,
            ),
            ("portcullis_store_acknowledged_bytes_total", "Bytes of these messages.", counters.store_message_bytes),
            ("portcullis_store_damaged_records_total", "Records found damaged at start.", counters.store_damaged),
        ],
    );
    let help = "Bytes written for each byte that was acknowledged.";
    let written = Number::Real(ratio(counters.store_bytes, counters.store_message_bytes));
    text.single("portcullis_store_written_per_acknowledged_ratio", Kind::Gauge, help, written);
    let slowest = Number::Milliseconds(counters.store_milliseconds_max);
    text.single("portcullis_store_sync_max_seconds", Kind::Gauge, "What the slowest batch took.", slowest);
}

/// What takes how long. The turn's clock tells: less than a millisecond is 0.
fn durations(text: &mut Exposition, durations: &Durations) {
    for (name, help, histogram) in [
        ("portcullis_connect_duration_seconds", "From accept to CONNACK.", &durations.connect),
        (
            "portcullis_publish_acknowledge_duration_seconds",
            "From PUBLISH to PUBACK or PUBREC, with the disk; one PUBLISH of a connection at a time.",
            &durations.acknowledge,
        ),
        ("portcullis_store_sync_duration_seconds", "Of batches, until they are on the disk.", &durations.sync),
        ("portcullis_turn_duration_seconds", "Of turns of the loop, without their wait.", &durations.turn),
        ("portcullis_question_duration_seconds", "Of questions about credentials.", &durations.question),
    ] {
        text.histogram(name, help, histogram);
    }
}

/// The program itself.
fn own(text: &mut Exposition, snapshot: &Snapshot, board: &str) {
    let name = "portcullis_build_info";
    text.family(name, Kind::Gauge, "1, with version and board.");
    text.sample(name, &[("version", env!("CARGO_PKG_VERSION")), ("board", board)], Number::Count(1));
    let counters = &snapshot.counters;
    singles(
        text,
        Kind::Counter,
        &[
            ("portcullis_events_lost_total", "Events that found their ring full.", counters.events_lost),
            ("portcullis_log_lines_left_out_total", "Log lines left out in floods.", platform::lines_left_out()),
        ],
    );
    singles(
        text,
        Kind::Gauge,
        &[("portcullis_clock_trusted", "Whether the wall clock is believed.", u64::from(snapshot.trusts_clock))],
    );
    let started = snapshot.now.unix.0.saturating_sub(snapshot.now.instant.as_milliseconds() / 1_000);
    let help = "Start of the process, seconds since 1970, by the clock as it is now.";
    text.single("process_start_time_seconds", Kind::Gauge, help, Number::Count(started));
}

/// A part of a whole; 0 of nothing.
#[allow(clippy::cast_precision_loss)] // figures for people
fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}
