//! `/api/v1/status`: the broker as a whole.

use super::{Context, DOCUMENT_BYTES_MAX, ROW_BYTES_MAX, machine, stopping, unix_at, written};
use crate::bridge::{self, Statuses};
use crate::broker::StoreView;
use crate::config::blob::ClockPolicy;
use crate::http::{Json, Response};
use crate::net::{SystemNetwork, Transport, Turn};
use crate::platform;
use crate::service::{
    CertificateFacts, Facts, FactsInForce, Health, ListenerFacts, MachineReport, Operation, ProbeReport, SharedReport,
    server_certificate,
};
use crate::telemetry::{Action, Counters, Denial, Text};
use crate::time::{Instant, Now};

/// Denials that are explained for one document: each search goes through all rules that apply to a client.
const EXPLAINED_MAX: usize = 8;
/// Bytes that the denials leave to what is written behind them.
const MARGIN_BYTES: usize = 2 * ROW_BYTES_MAX;

/// What stands in the document and is not the loop's.
struct Around {
    facts: FactsInForce,
    probe: SharedReport,
    bridges: Statuses,
    machine: Option<MachineReport>,
    resident_bytes: Option<u64>,
}

/// The document.
pub(super) async fn document(context: &Context) -> Response {
    for _ in 0..EXPLAINED_MAX {
        // One between two turns.
        match context.inside.ask(|turn, _| turn.broker().explain_denial()).await {
            Some(true) => {}
            Some(false) => break,
            None => return stopping(),
        }
    }
    let around = Around {
        facts: context.facts.clone(),
        probe: context.probe.clone(),
        bridges: context.bridges.clone(),
        machine: context.updates.machine(),
        resident_bytes: resident_bytes(),
    };
    let document = context.inside.ask(move |turn, now| {
        let mut json = Json::new(DOCUMENT_BYTES_MAX);
        json.begin_object();
        write(&mut json, turn, now, &around);
        json.end_object();
        json
    });
    document.await.map_or_else(stopping, written)
}

fn write(json: &mut Json, turn: &mut Turn<SystemNetwork>, now: Now, around: &Around) {
    let (facts, probe) = (&*around.facts.borrow(), &*around.probe.borrow());
    json.field("version", env!("CARGO_PKG_VERSION"));
    json.field("board", facts.board.as_str());
    json.field("startedUnix", unix_at(now, Instant::ZERO));
    json.field("uptimeSeconds", now.instant.as_milliseconds() / 1_000);
    json.field("nowUnix", now.unix.0);
    json.name("clock");
    json.begin_object();
    json.field("trusted", turn.clock_is_set(now));
    json.field("steady", turn.believes_clock(now));
    json.field(
        "policy",
        match facts.clock_policy {
            ClockPolicy::Enforce => "Enforce",
            ClockPolicy::AssumeBuildDate => "AssumeBuildDate",
        },
    );
    json.end_object();
    json.name("configuration");
    json.begin_object();
    json.field("digest", facts.digest.as_deref());
    json.field("file", facts.file.as_deref());
    json.field("appliedUnix", unix_at(now, facts.applied));
    json.end_object();
    json.name("memory");
    json.begin_object();
    json.field("budgetBytes", facts.memory_budget_bytes);
    json.field("residentBytes", around.resident_bytes);
    json.end_object();
    machine::member(json, around.machine.as_ref());
    health(json, &Health::look(turn, now, facts, probe).with_machine(around.machine.as_ref()), probe);
    array(json, "listeners", (0..).zip(&facts.listeners), |json, (port, listener)| {
        listener_row(json, turn, port, listener);
    });
    certificates(json, turn, facts);
    array(json, "tables", turn.table_uses(), |json, table| {
        json.field("name", table.name);
        json.field("used", table.used);
        json.field("capacity", table.capacity);
        json.field("refused", table.refused);
    });
    let (store, telemetry) = (turn.broker().store_view(), turn.broker().telemetry());
    json.name("counters");
    json.begin_object();
    counters(json, &telemetry.counters);
    json.end_object();
    json.name("store");
    match store {
        Some(view) => store_object(json, &view, &telemetry.counters),
        None => json.value(None::<u64>),
    }
    array(json, "bridges", &*around.bridges.borrow(), |json, bridge| bridge_fields(json, turn, &bridge.borrow()));
    let telemetry = turn.broker().telemetry();
    json.name("denials");
    json.begin_array();
    for denial in telemetry.denials.iter() {
        if json.room() < MARGIN_BYTES {
            break;
        }
        json.begin_object();
        denial_fields(json, denial, now, facts);
        json.end_object();
    }
    json.end_array();
}

fn bridge_fields(json: &mut Json, turn: &mut Turn<SystemNetwork>, bridge: &bridge::Status) {
    let queue = turn.broker().queue_of_insider(&bridge.client_identifier());
    json.field("name", bridge.name.as_str());
    json.field("remote", bridge.remote.as_str());
    json.field("state", bridge.state.name());
    json.field("sinceUnix", bridge.since_unix);
    json.field("queued", u64::from(queue.waiting) + u64::from(queue.in_flight));
    json.field("dropped", bridge.counters.dropped() + queue.dropped + queue.too_large);
    json.field("sent", bridge.counters.sent);
    json.field("received", bridge.counters.received);
    json.field("lastError", Some(bridge.last_error.as_str()).filter(|error| !error.is_empty()));
}

/// State, readiness and checks: here, and all of `/readyz`.
pub fn health_fields(json: &mut Json, health: &Health) {
    json.field("state", health.state.to_string().as_str());
    json.field("ready", health.is_ready());
    array(json, "checks", &health.checks, |json, check| {
        json.field("name", check.name);
        json.field("ok", check.is_ok);
        json.field("detail", check.detail.as_str());
    });
}

/// An array of objects.
fn array<T>(json: &mut Json, name: &str, rows: impl IntoIterator<Item = T>, mut fields: impl FnMut(&mut Json, T)) {
    json.name(name);
    json.begin_array();
    for row in rows {
        json.begin_object();
        fields(json, row);
        json.end_object();
    }
    json.end_array();
}

/// How the broker is.
fn health(json: &mut Json, health: &Health, probe: &ProbeReport) {
    json.name("health");
    json.begin_object();
    health_fields(json, health);
    json.name("probe");
    json.begin_object();
    json.field("state", probe.state.to_string().as_str());
    json.field("reason", Some(probe.reason.as_str()).filter(|reason| !reason.is_empty()));
    json.field("lastUnix", probe.last.map(|last| last.0));
    json.name("latencyMilliseconds");
    json.begin_object();
    for (operation, latency) in Operation::ALL.into_iter().zip(&probe.latencies) {
        json.field(operation.name(), (latency.count > 0).then_some(latency.last / 1_000.0));
    }
    json.end_object();
    json.end_object();
    json.end_object();
}

fn listener_row(json: &mut Json, turn: &mut Turn<SystemNetwork>, port: u16, listener: &ListenerFacts) {
    let transport = turn.transport_of(port);
    let tls = match transport {
        Some(Transport::AwaitsCertificate) => "AwaitsCertificate",
        Some(Transport::Plain | Transport::Tls(_)) | None => listener.tls,
    };
    let ends = server_certificate(transport, listener).map(|certificate| certificate.not_after.0);
    json.field("name", listener.name.as_str());
    json.field("port", listener.port);
    json.name("addresses");
    json.begin_array();
    listener.addresses.iter().for_each(|address| json.value(address.as_str()));
    json.end_array();
    json.field("protocol", listener.protocol);
    json.field("tls", tls);
    json.field("certificateNotAfterUnix", ends);
    json.field("authentication", listener.authentication.as_deref());
    json.field("authorization", listener.authorization.as_deref());
    json.field("connections", turn.broker().connections_of(port));
}

/// Certificates of ports, those that are shown to servers, and authorities.
fn certificates(json: &mut Json, turn: &Turn<SystemNetwork>, facts: &Facts) {
    array(json, "certificates", certificate_rows(turn, facts), |json, (kind, certificate)| {
        json.field("name", certificate.name.as_str());
        json.field("kind", kind);
        json.field("subject", certificate.subject.as_str());
        json.field("notAfterUnix", certificate.not_after.0);
    });
}

/// The certificates that matter, each with what it is for: `server`, `client` or `trust`.
pub(in crate::service::web) fn certificate_rows(
    turn: &Turn<SystemNetwork>,
    facts: &Facts,
) -> Vec<(&'static str, CertificateFacts)> {
    let mut server: Vec<CertificateFacts> = (0..)
        .zip(&facts.listeners)
        .filter_map(|(port, listener)| server_certificate(turn.transport_of(port), listener))
        .collect();
    // Several ports may show the same one.
    server.sort();
    server.dedup();
    let client = facts.shown_to_servers();
    let of =
        |kind: &'static str, rows: &[CertificateFacts]| rows.iter().map(|row| (kind, row.clone())).collect::<Vec<_>>();
    [of("server", &server), of("client", &client), of("trust", &facts.authorities)].concat()
}

fn store_object(json: &mut Json, view: &StoreView, counters: &Counters) {
    json.begin_object();
    json.field("state", view.state.to_string().as_str());
    json.field("usedBytes", view.used_bytes);
    json.field("maxBytes", view.max_bytes);
    json.field("position", view.position);
    json.field("commits", counters.store_commits);
    json.field("bytes", counters.store_bytes);
    // Nothing acknowledged yet is no ratio.
    let acknowledged = counters.store_message_bytes;
    json.field(
        "bytesPerAcknowledgedByte",
        (acknowledged > 0).then(|| counters.store_bytes as f64 / acknowledged as f64),
    );
    json.field("lastSyncMilliseconds", counters.store_milliseconds_last);
    json.field("maxSyncMilliseconds", counters.store_milliseconds_max);
    json.field("failures", counters.store_failures);
    json.field("damaged", counters.store_damaged);
    json.end_object();
}

fn denial_fields(json: &mut Json, denial: &Denial, now: Now, facts: &Facts) {
    json.field("unix", unix_at(now, denial.at));
    json.field("clientId", shown(&denial.client).as_str());
    json.field("username", denial.identity.username.as_deref());
    json.field(
        "action",
        match denial.action {
            Action::Connect => "connect",
            Action::Publish | Action::Will => "publish",
            Action::Subscribe | Action::KeepSubscription | Action::Receive => "subscribe",
        },
    );
    json.field("resource", shown(&denial.resource).as_str());
    json.field("listener", facts.listener(denial.port));
    let explanation = denial.explanation.as_deref();
    json.field("rule", explanation.and_then(|found| found.rule.as_deref()));
    match (&denial.refusal, explanation) {
        (Some(detail), _) => json.field("explain", shown(detail).as_str()),
        (None, found) => json.field("explain", found.map(|found| found.text.as_str())),
    }
}

/// A text that may have been cut.
fn shown(text: &Text) -> String {
    let mut shown = text.as_str().to_owned();
    if text.is_cut() {
        shown.push('\u{2026}');
    }
    shown
}

fn counters(json: &mut Json, counters: &Counters) {
    for (name, value) in [
        ("connectionsOpened", counters.connections_opened),
        ("connectsAccepted", counters.connects_accepted),
        ("connectsRefused", counters.connects_refused),
        ("packetsReceived", counters.packets_received),
        ("packetsSent", counters.packets_sent),
        ("bytesReceived", counters.bytes_received),
        ("bytesSent", counters.bytes_sent),
        ("publishesReceived", counters.publishes_received),
        ("publishesSent", counters.publishes_sent),
        ("payloadBytesReceived", counters.payload_bytes_received),
        ("payloadBytesSent", counters.payload_bytes_sent),
        ("sessionsExpired", counters.sessions_expired),
        ("authorizationAllowed", counters.authorization_allowed),
        ("authorizationDenied", counters.authorization_denied()),
        ("qos0Denied", counters.qos0_denied),
        ("queueDropped", counters.queue_dropped),
        ("expired", counters.expired),
        ("tooLarge", counters.too_large),
        ("authenticationRefused", counters.authentication_refused),
        ("renewals", counters.renewals),
        ("protocolViolations", counters.protocol_violations),
        ("storeCommits", counters.store_commits),
        ("storeBytes", counters.store_bytes),
        ("storeFailures", counters.store_failures),
        ("storeSweeps", counters.store_sweeps),
        ("storeSlow", counters.store_slow),
        ("storeMessages", counters.store_messages),
        ("storeMessageBytes", counters.store_message_bytes),
        ("eventsLost", counters.events_lost),
    ] {
        json.field(name, value);
    }
    let denied = ["Connect", "Publish", "Subscribe", "Will", "KeepSubscription", "Receive"];
    for (name, value) in denied.into_iter().zip(counters.denied) {
        json.field(&format!("denied{name}"), value);
    }
    let ended = ["CredentialExpired", "CredentialRefused", "PolicyChanged", "AuthenticationChanged"];
    for (name, value) in ended.into_iter().zip(counters.credential_ends()) {
        json.field(&format!("ended{name}"), value);
    }
}

/// Bytes of memory that the process has; `None` where the system does not say.
fn resident_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    platform::kernel_bytes(&text, "VmRSS")
}
