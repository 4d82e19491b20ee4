//! Notes on a `kind: BrokerBridge`: what is allowed and may not be meant.
//!
//! In: a bridge whose references are resolved, and the largest packet of clients; out: notes at its place. Deliberately absent:
//! whether two bridges of different gateways go round, which no configuration of one of them can tell.

use super::blob::Bridge;
use super::diagnostic::{Place, Report, quoted};

/// Notes on what is allowed and may not be meant. `packet_bytes` is the largest packet of clients.
pub fn say_what_may_surprise(bridge: &Bridge, packet_bytes: u32, place: &Place, report: &mut Report) {
    if bridge.identity.authorization.is_none() {
        report.note(
            place,
            "the bridge has no authorizationRef: whoever writes at the upstream may publish anything here",
        );
    }
    let own = bridge.remote.packet_bytes;
    if own < packet_bytes && !bridge.outgoing.is_empty() {
        let message = format!(
            "maxPacketSizeBytes of the bridge is {own}, and clients may publish {packet_bytes}: larger messages do not cross"
        );
        report.note(place, message);
    }
    say_what_is_dead(bridge.outgoing.iter().map(|map| map.local.as_str()), place, report);
    say_what_is_dead(bridge.incoming.iter().map(|map| map.remote.as_str()), place, report);
    for out in &bridge.outgoing {
        let back = bridge
            .incoming
            .iter()
            .find(|map| can_overlap(&map.local, &out.local) && can_overlap(&map.remote, &out.remote));
        if let Some(back) = back {
            let message = format!(
                "out {} and in {} have topics in common: only No Local and the mark of the bridge keep them from going round",
                quoted(&out.local),
                quoted(&back.local)
            );
            report.note(place, message);
        }
    }
}

/// Notes maps that never apply, by their source filters in order.
fn say_what_is_dead<'a>(sources: impl Iterator<Item = &'a str> + Clone, place: &Place, report: &mut Report) {
    for (index, source) in sources.clone().enumerate() {
        if sources.clone().take(index).any(|earlier| earlier == source) {
            report.note(place, format!("a second map of {} has no effect: the first decides", quoted(source)));
        }
    }
}

/// Whether there is a topic that both filters match.
fn can_overlap(one: &str, other: &str) -> bool {
    let (mut ones, mut others) = (one.split('/'), other.split('/'));
    loop {
        match (ones.next(), others.next()) {
            (Some("#"), _) | (_, Some("#")) | (None, None) => return true,
            (Some(one), Some(other)) if one == "+" || other == "+" || one == other => {}
            (Some(_), _) | (None, Some(_)) => return false,
        }
    }
}
