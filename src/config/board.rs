//! Board profiles: target, memory budget and the sizes of all tables. They are part of the program.

use super::blob;
use super::diagnostic::Report;
use super::source::walk::{Fields, full_text, integer};
use super::source::{Node, Syntax, parse};
use crate::limits::Capacities;

/// The board of a configuration that names none.
pub const DEFAULT_BOARD: &str = "host";

/// Name and text of every profile.
const PROFILES: [(&str, &str); 5] = [
    ("host", include_str!("../../board/host.yaml")),
    ("rpi4", include_str!("../../board/rpi4.yaml")),
    ("rpi3", include_str!("../../board/rpi3.yaml")),
    ("zero2w", include_str!("../../board/zero2w.yaml")),
    ("rpi2", include_str!("../../board/rpi2.yaml")),
];

/// A board profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    /// The triple that the program is built for.
    pub target: String,
    /// What goes into the blob.
    pub board: blob::Board,
}

/// The names of all boards.
pub fn names() -> impl Iterator<Item = &'static str> {
    PROFILES.iter().map(|(name, _)| *name)
}

/// Reads the profile `name`; `None` when there is none, or when it has a mistake, which is then reported.
pub fn profile(name: &str, report: &mut Report) -> Option<Profile> {
    let (name, text) = PROFILES.iter().find(|(candidate, _)| *candidate == name)?;
    let documents = parse(&format!("board/{name}.yaml"), text.as_bytes(), Syntax::Yaml, report);
    documents.first().and_then(|document| read(name, document, report))
}

fn read(name: &str, document: &Node, report: &mut Report) -> Option<Profile> {
    let mut fields = Fields::of(document, "Board", report)?;
    fields.ignore(&["apiVersion", "kind", "metadata"]);
    let spec = fields.required("spec", report);
    fields.finish(report);
    let mut fields = Fields::of(spec?, "the spec of Board", report)?;
    let target = fields.required("target", report).and_then(|node| full_text(node, "target", report));
    let budget = fields.required("memoryBudgetBytes", report);
    let memory_budget_bytes = budget.and_then(|node| integer(node, "memoryBudgetBytes", 1..=u64::MAX, report));
    let capacities = fields.required("capacities", report).and_then(|node| read_capacities(node, report));
    fields.finish(report);
    let board =
        blob::Board { name: name.to_owned(), memory_budget_bytes: memory_budget_bytes?, capacities: capacities? };
    Some(Profile { target: target?.to_owned(), board })
}

fn read_capacities(node: &Node, report: &mut Report) -> Option<Capacities> {
    let mut fields = Fields::of(node, "capacities", report)?;
    let mut number = |name: &'static str| {
        let node = fields.required(name, report)?;
        integer(node, name, 1..=u64::from(u32::MAX), report).and_then(|value| u32::try_from(value).ok())
    };
    let capacities = (|| {
        Some(Capacities {
            connections: number("connections")?,
            handshakes: number("handshakes")?,
            sessions: number("sessions")?,
            subscriptions: number("subscriptions")?,
            subscriptions_per_session: number("subscriptionsPerSession")?,
            filter_nodes: number("filterNodes")?,
            filter_bytes: number("filterBytes")?,
            retained_messages: number("retainedMessages")?,
            messages: number("messages")?,
            message_blocks: number("messageBlocks")?,
            deliveries: number("deliveries")?,
            replies: number("replies")?,
            receive_bytes: number("receiveBytes")?,
            transmit_bytes: number("transmitBytes")?,
            packet_bytes: number("packetBytes")?,
            authorization_rules: number("authorizationRules")?,
            authorization_principals: number("authorizationPrincipals")?,
            authorization_attributes: number("authorizationAttributes")?,
            authorization_patterns: number("authorizationPatterns")?,
            authorization_bytes: number("authorizationBytes")?,
        })
    })();
    fields.finish(report);
    capacities
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::MESSAGE_BLOCK_BYTES;

    #[test]
    fn every_profile_is_complete_and_fits_itself() {
        for name in names() {
            let mut report = Report::new();
            let profile = profile(name, &mut report);
            assert!(!report.has_errors(), "{}", report.finish());
            let Some(profile) = profile else { panic!("{name}") };
            let sizes = &profile.board.capacities;
            assert!(sizes.packet_bytes <= sizes.receive_bytes, "{name}: a packet fits the receive buffers");
            let blocks = u64::from(sizes.message_blocks) * MESSAGE_BLOCK_BYTES as u64;
            assert!(u64::from(sizes.packet_bytes) * 4 <= blocks, "{name}: a message fits the pool");
            assert!(sizes.subscriptions_per_session <= sizes.subscriptions, "{name}");
            assert!(sizes.handshakes <= sizes.connections && sizes.connections <= sizes.sessions, "{name}");
        }
    }

    #[test]
    fn an_unknown_board_has_no_profile() {
        let mut report = Report::new();
        assert!(profile("rpi9", &mut report).is_none());
    }
}
