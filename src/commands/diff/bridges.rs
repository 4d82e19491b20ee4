//! What changes about bridges: who they are here, what crosses them, and to whom.

use super::Difference;
use crate::config::blob::{Authorization, Bridge, Configuration, TopicMap, TrustBundle};
use crate::config::diagnostic::Escaped;

/// Compares bridges of the same name.
pub fn compare(old: &Configuration, new: &Configuration, found: &mut Vec<Difference>) {
    let named = |configuration: &'_ Configuration, name: &str| {
        configuration.bridges.iter().position(|bridge| bridge.name == name)
    };
    for bridge in &new.bridges {
        let Some(former) = named(old, &bridge.name).and_then(|at| old.bridges.get(at)) else {
            found.push(of_bridge("added", bridge, &described(new, bridge)));
            continue;
        };
        compare_parts((old, former), (new, bridge), found);
    }
    for bridge in old.bridges.iter().filter(|bridge| named(new, &bridge.name).is_none()) {
        // Its session is the broker's to end.
        found.push(of_bridge("removed", bridge, "with what waits for it"));
    }
}

fn of_bridge(change: &'static str, bridge: &Bridge, text: &str) -> Difference {
    let text = format!("bridge {}: {text}", Escaped(&bridge.name));
    Difference { change, kind: "bridge", port: None, principal: None, method: None, pattern: None, rule: None, text }
}

fn compare_parts(
    (old, former): (&Configuration, &Bridge),
    (new, bridge): (&Configuration, &Bridge),
    found: &mut Vec<Difference>,
) {
    let (before, after) = (policy(old, former), policy(new, bridge));
    let name = |policy: Option<&Authorization>| {
        policy.map_or("may do everything".to_owned(), |policy| format!("authorization {}", Escaped(&policy.name)))
    };
    if before.map(|policy| &policy.name) != after.map(|policy| &policy.name) {
        found.push(of_bridge("changed", bridge, &format!("{}, before: {}", name(after), name(before))));
    } else if before != after {
        found.push(of_bridge("changed", bridge, &format!("the rules of {} have changed", name(after))));
    }
    let who = |bridge: &Bridge| (bridge.identity.username.clone(), bridge.identity.attributes.clone());
    if who(former) != who(bridge) {
        found.push(of_bridge("changed", bridge, "its username or attributes, which rules go by"));
    }
    maps("out", (bridge, &former.outgoing), &bridge.outgoing, found);
    maps("in", (bridge, &former.incoming), &bridge.incoming, found);
    if remote(old, former) != remote(new, bridge) {
        let text = format!("its upstream or how it shows itself there: {}", addresses(bridge));
        found.push(of_bridge("changed", bridge, &text));
    }
    let limits = |bridge: &Bridge| {
        let times = (bridge.hops_max, bridge.back_off_min_seconds, bridge.back_off_max_seconds);
        (bridge.queue_length, bridge.queue_bytes, bridge.queue_strategy, times)
    };
    if limits(former) != limits(bridge) {
        found.push(of_bridge("changed", bridge, "its queueLimit, maxHops or backoff"));
    }
}

fn maps(way: &str, (bridge, before): (&Bridge, &[TopicMap]), after: &[TopicMap], found: &mut Vec<Difference>) {
    let crosses = |map: &TopicMap| {
        let retain = if map.retain { ", retained" } else { "" };
        format!("{way} {} \u{2194} {}, QoS {}{retain}", Escaped(&map.local), Escaped(&map.remote), map.qos)
    };
    for map in after.iter().filter(|map| !before.contains(map)) {
        found.push(of_bridge("gained", bridge, &crosses(map)));
    }
    for map in before.iter().filter(|map| !after.contains(map)) {
        found.push(of_bridge("lost", bridge, &crosses(map)));
    }
    let stays = |maps: &[TopicMap], others: &[TopicMap]| -> Vec<TopicMap> {
        maps.iter().filter(|map| others.contains(map)).cloned().collect()
    };
    // The first that matches decides.
    if stays(before, after) != stays(after, before) {
        found.push(of_bridge("changed", bridge, &format!("the order of what crosses {way}")));
    }
}

fn policy<'c>(configuration: &'c Configuration, bridge: &Bridge) -> Option<&'c Authorization> {
    configuration.authorizations.get(usize::from(bridge.identity.authorization?))
}

/// Everything about the upstream, with what indices stand for.
fn remote(configuration: &Configuration, bridge: &Bridge) -> impl PartialEq + use<> {
    let mut remote = bridge.remote.clone();
    let mut trust: Option<TrustBundle> = None;
    let mut shown = None;
    if let Some(tls) = &mut remote.tls {
        let taken = |index: &mut Option<u16>| index.as_mut().map(core::mem::take).map(usize::from);
        trust = taken(&mut tls.trust_bundle).and_then(|index| configuration.trust_bundles.get(index).cloned());
        shown = taken(&mut tls.client_secret).and_then(|index| configuration.secrets.get(index).cloned());
    }
    (remote, trust, shown)
}

fn addresses(bridge: &Bridge) -> String {
    let addresses = bridge.remote.addresses.iter().map(|(host, port)| format!("{}:{port}", Escaped(host)));
    addresses.collect::<Vec<_>>().join(", ")
}

fn described(configuration: &Configuration, bridge: &Bridge) -> String {
    let rules = policy(configuration, bridge);
    let rules =
        rules.map_or("may do everything".to_owned(), |policy| format!("authorization {}", Escaped(&policy.name)));
    format!("to {}, {rules}, {} maps out and {} in", addresses(bridge), bridge.outgoing.len(), bridge.incoming.len())
}
