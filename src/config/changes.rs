//! What of a configuration cannot change while the broker serves.
//!
//! **Invariant:** every structure is taken apart without `..`, so that a new field does not compile until somebody has
//! decided whether it needs a restart.

use super::blob::{Board, Configuration, Diagnostics, ExposedDiagnostics, Gateway, ListenerPort, Persistence, Tls};
use crate::limits::Capacities;

/// Notes the names of fields that differ.
struct Differences {
    found: Vec<String>,
}

impl Differences {
    fn compare<T: PartialEq + ?Sized>(&mut self, name: &str, former: &T, next: &T) {
        if former != next {
            self.found.push(name.to_owned());
        }
    }
}

/// The fields that differ between two configurations and are read only once, at start: named as in the resources, in their
/// order. Empty where `next` may be put in force without a restart.
#[must_use]
pub fn that_need_a_restart(former: &Configuration, next: &Configuration) -> Vec<String> {
    let mut differences = Differences { found: Vec::new() };
    let Configuration {
        board,
        gateway,
        persistence,
        diagnostics,
        ports,
        // All of these are read anew.
        clients: _,
        authentications: _,
        authorizations: _,
        // Those that have changed begin anew.
        bridges: _,
        trust_bundles: _,
        secrets: _,
        network,
    } = former;
    compare_boards(&mut differences, board, &next.board);
    compare_gateways(&mut differences, gateway, &next.gateway);
    // PID 1 reads it when the gateway starts.
    differences.compare("gateway.network", network, &next.network);
    compare_persistence(&mut differences, persistence, &next.persistence);
    compare_diagnostics(&mut differences, (former, diagnostics), (next, &next.diagnostics));
    differences.compare("ports", &ports.len(), &next.ports.len());
    if ports.len() == next.ports.len() {
        for (index, (former, next)) in ports.iter().zip(&next.ports).enumerate() {
            compare_ports(&mut differences, index, former, next);
        }
    }
    differences.found
}

fn compare_boards(differences: &mut Differences, former: &Board, next: &Board) {
    let Board { name, memory_budget_bytes, capacities } = former;
    differences.compare("board.name", name, &next.name);
    differences.compare("board.memoryBudgetBytes", memory_budget_bytes, &next.memory_budget_bytes);
    let Capacities {
        connections,
        handshakes,
        sessions,
        subscriptions,
        subscriptions_per_session,
        filter_nodes,
        filter_bytes,
        retained_messages,
        messages,
        message_blocks,
        deliveries,
        replies,
        receive_bytes,
        transmit_bytes,
        packet_bytes,
        authorization_rules,
        authorization_principals,
        authorization_attributes,
        authorization_patterns,
        authorization_bytes,
    } = capacities;
    let next = &next.capacities;
    for (name, former, next) in [
        ("connections", connections, &next.connections),
        ("handshakes", handshakes, &next.handshakes),
        ("sessions", sessions, &next.sessions),
        ("subscriptions", subscriptions, &next.subscriptions),
        ("subscriptionsPerSession", subscriptions_per_session, &next.subscriptions_per_session),
        ("filterNodes", filter_nodes, &next.filter_nodes),
        ("filterBytes", filter_bytes, &next.filter_bytes),
        ("retainedMessages", retained_messages, &next.retained_messages),
        ("messages", messages, &next.messages),
        ("messageBlocks", message_blocks, &next.message_blocks),
        ("deliveries", deliveries, &next.deliveries),
        ("replies", replies, &next.replies),
        ("receiveBytes", receive_bytes, &next.receive_bytes),
        ("transmitBytes", transmit_bytes, &next.transmit_bytes),
        ("packetBytes", packet_bytes, &next.packet_bytes),
        ("authorizationRules", authorization_rules, &next.authorization_rules),
        ("authorizationPrincipals", authorization_principals, &next.authorization_principals),
        ("authorizationAttributes", authorization_attributes, &next.authorization_attributes),
        ("authorizationPatterns", authorization_patterns, &next.authorization_patterns),
        ("authorizationBytes", authorization_bytes, &next.authorization_bytes),
    ] {
        differences.compare(&format!("board.capacities.{name}"), former, next);
    }
}

fn compare_gateways(differences: &mut Differences, former: &Gateway, next: &Gateway) {
    let Gateway {
        secrets_folder,
        state_folder,
        cluster_ip_addresses,
        external_addresses,
        issuers_folder,
        revocation_folder,
        // Read anew, or asked of the broker each time.
        clock_policy: _,
        connect_deadline_seconds: _,
        ready_certificate_days: _,
        validate_payload_format: _,
        sys_interval_seconds: _,
        response_information: _,
        same_key_algorithm: _,
        stale_revocation_lists: _,
        client_identifiers: _,
        expiry_notice: _,
        service_account_tokens: _,
    } = former;
    differences.compare("gateway.paths.secrets", secrets_folder, &next.secrets_folder);
    differences.compare("gateway.paths.state", state_folder, &next.state_folder);
    differences.compare("gateway.paths.issuers", issuers_folder, &next.issuers_folder);
    differences.compare("gateway.paths.revocation", revocation_folder, &next.revocation_folder);
    differences.compare("gateway.bind.clusterIp", cluster_ip_addresses, &next.cluster_ip_addresses);
    differences.compare("gateway.bind.external", external_addresses, &next.external_addresses);
}

/// The log is opened once, at start; what it holds was chosen by these.
fn compare_persistence(differences: &mut Differences, former: &Persistence, next: &Persistence) {
    let Persistence { size_bytes, retain, subscriber_queue, commit_interval_milliseconds } = former;
    differences.compare(
        "gateway.commitIntervalMilliseconds",
        commit_interval_milliseconds,
        &next.commit_interval_milliseconds,
    );
    let next = (&next.size_bytes, &next.retain, &next.subscriber_queue);
    differences.compare("persistence", &(size_bytes, retain, subscriber_queue), &next);
}

/// The doors are opened once, at start, with what guards them: names count, not indices, and of trust the certificates.
fn compare_diagnostics(
    differences: &mut Differences,
    (whole, former): (&Configuration, &Diagnostics),
    (whole_next, next): (&Configuration, &Diagnostics),
) {
    fn guards(whole: &Configuration, exposed: &ExposedDiagnostics) -> impl PartialEq + use<> {
        let ExposedDiagnostics { secret, trust_bundle, token_secret, updates } = exposed;
        let trust = trust_bundle.map(|index| whole.trust_bundles.get(usize::from(index)).cloned());
        (whole.secrets.get(usize::from(*secret)).cloned(), trust, token_secret.clone(), *updates)
    }
    let Diagnostics { port, is_asked_for: _, addresses, exposed, self_check, log_level } = former;
    differences.compare("diagnostics.selfCheck", self_check, &next.self_check);
    differences.compare("diagnostics.logs.level", log_level, &next.log_level);
    differences.compare("diagnostics.metrics.prometheusPort", port, &next.port);
    differences.compare("gateway.bind.diagnostics", addresses, &next.addresses);
    let former = exposed.as_ref().map(|exposed| guards(whole, exposed));
    differences.compare(
        "gateway.diagnosticsTls",
        &former,
        &next.exposed.as_ref().map(|exposed| guards(whole_next, exposed)),
    );
}

fn compare_ports(differences: &mut Differences, index: usize, former: &ListenerPort, next: &ListenerPort) {
    let ListenerPort {
        port,
        bind,
        protocol,
        tls,
        // A name for people.
        listener: _,
        // Which of the policies that are read anew.
        authentication: _,
        authorization: _,
    } = former;
    differences.compare(&format!("ports[{index}].port"), port, &next.port);
    differences.compare(&format!("ports[{index}].serviceType"), bind, &next.bind);
    differences.compare(&format!("ports[{index}].protocol"), protocol, &next.protocol);
    match (tls, &next.tls) {
        (None, None) | (Some(Tls::Manual { secret: _ }), Some(Tls::Manual { secret: _ })) => {}
        // Who issues certificates goes on with its work.
        (Some(Tls::Automatic(former)), Some(Tls::Automatic(next))) => {
            differences.compare(&format!("ports[{index}].tls.certManagerCertificateSpec"), former, next);
        }
        (Some(Tls::Manual { .. }), Some(Tls::Automatic(_))) | (Some(Tls::Automatic(_)), Some(Tls::Manual { .. })) => {
            differences.found.push(format!("ports[{index}].tls.mode"));
        }
        (None, Some(_)) | (Some(_), None) => differences.found.push(format!("ports[{index}].tls")),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::config::blob::{Bind, Kept, Network, QueueStrategy, TrustBundle};
    use crate::config::{LoadOptions, load_embedded};

    fn two_ports() -> Configuration {
        let files = [("any.listener.yaml", "serviceType: LoadBalancer\nports: [{port: 1883}, {port: 1884}]")];
        let mut configuration = load_embedded(&files, &LoadOptions::default()).unwrap().configuration;
        configuration.ports[0].tls = Some(Tls::Manual { secret: 0 });
        configuration
    }

    #[test]
    fn what_is_read_anew_needs_no_restart() {
        let former = two_ports();
        let mut next = former.clone();
        next.gateway.sys_interval_seconds += 1;
        next.gateway.response_information = Some("x".to_owned());
        next.clients.max_keep_alive_seconds = Some(7);
        next.clients.subscriber_queue_strategy = QueueStrategy::DropOldest;
        next.ports[0].authorization = Some(1);
        next.ports[0].tls = Some(Tls::Manual { secret: 1 });
        next.ports[0].listener = "other".to_owned();
        next.trust_bundles.push(TrustBundle { name: "more".to_owned(), certificates: Vec::new() });
        assert_eq!(that_need_a_restart(&former, &next), [""; 0]);
    }

    #[test]
    fn what_is_read_once_is_listed_by_name() {
        let former = two_ports();
        let mut next = former.clone();
        next.board.capacities.sessions += 1;
        next.gateway.state_folder = "elsewhere".to_owned();
        next.gateway.external_addresses.clear();
        next.ports[1].port += 1;
        next.ports[1].bind = Bind::ClusterIp;
        next.ports[0].tls = None;
        assert_eq!(
            that_need_a_restart(&former, &next),
            [
                "board.capacities.sessions",
                "gateway.paths.state",
                "gateway.bind.external",
                "ports[0].tls",
                "ports[1].port",
                "ports[1].serviceType",
            ]
        );
        for change in [
            (|next| next.persistence.size_bytes += 1) as fn(&mut Configuration),
            |next| next.persistence.retain = Kept::None,
            |next| next.persistence.subscriber_queue = Kept::Some { patterns: Vec::new(), dynamic: true },
        ] {
            next = former.clone();
            change(&mut next);
            assert_eq!(that_need_a_restart(&former, &next), ["persistence"]);
        }
        next = former.clone();
        next.persistence.commit_interval_milliseconds += 1;
        assert_eq!(that_need_a_restart(&former, &next), ["gateway.commitIntervalMilliseconds"]);
        next = former.clone();
        next.diagnostics.port = None;
        next.diagnostics.addresses.clear();
        next.diagnostics.exposed =
            Some(ExposedDiagnostics { secret: 0, trust_bundle: None, token_secret: None, updates: false });
        assert_eq!(
            that_need_a_restart(&former, &next),
            ["diagnostics.metrics.prometheusPort", "gateway.bind.diagnostics", "gateway.diagnosticsTls"]
        );
        next = former.clone();
        next.network = Some(Network::default());
        assert_eq!(that_need_a_restart(&former, &next), ["gateway.network"]);
        next = former.clone();
        next.ports.pop();
        assert_eq!(that_need_a_restart(&former, &next), ["ports"]);
    }
}
