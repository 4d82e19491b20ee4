//! The memory budget: everything that a broker of one configuration may take, by what it is for. It is printed by `inspect`, its
//! sum at start.
//!
//! Outside of it is what the operator puts beside the blob and may replace at any time: revocation lists, files of users and
//! key sets.

use crate::authentication::PASSWORD_MEMORY_BYTES_MAX;
use crate::authorization::Policy;
use crate::bridge;
use crate::broker::{Broker, PARKED_BYTES_MAX, QUESTIONS_MAX};
use crate::config::blob::{Configuration, Method, Protocol, ServiceAccountTokens};
use crate::net::{self, Layers};
use crate::service::history::{self, History};
use crate::service::{QUESTION_BYTES_MAX, web};

/// The program without connections: its code as far as it is in memory, the C library, stacks, the executor, the log's thread,
/// what the allocator cannot give back, and the configuration but for its tables.
const PROGRAM_BYTES: u64 = 16 * 1024 * 1024;

/// What one thing takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Item {
    /// What it is.
    pub what: &'static str,
    /// How many it is for.
    pub count: u32,
    /// Bytes at most.
    pub bytes: u64,
}

/// Everything that a broker of this configuration takes at most.
#[must_use]
pub fn budget(configuration: &Configuration) -> Vec<Item> {
    let capacities = &configuration.board.capacities;
    let broker = Broker::tables(capacities).into_iter();
    let sockets = net::tables(capacities, layers(configuration)).into_iter();
    let policies = [("policies", capacities.authorization_rules, Policy::tables_bytes(capacities))].into_iter();
    let mut items: Vec<(&str, u32, u64)> = broker.chain(sockets).chain(policies).collect();
    let methods = || configuration.authentications.iter().flat_map(|entry| &entry.methods);
    let asks_cluster =
        matches!(configuration.gateway.service_account_tokens, Some(ServiceAccountTokens::TokenReview { .. }));
    let asks = methods().any(|method| match method {
        Method::Custom { .. } => true,
        Method::ServiceAccountToken { .. } => asks_cluster,
        Method::X509 { .. } | Method::UsernamePassword { .. } => false,
    });
    if !configuration.authentications.is_empty() {
        items.push(("packets that wait for an answer (bytes)", PARKED_BYTES_MAX, u64::from(PARKED_BYTES_MAX)));
    }
    if asks {
        items.push(("questions to servers", QUESTIONS_MAX, u64::from(QUESTIONS_MAX) * QUESTION_BYTES_MAX));
    }
    if methods().any(|method| matches!(method, Method::UsernamePassword { .. })) {
        items.push(("the hash of a password", 1, PASSWORD_MEMORY_BYTES_MAX));
    }
    let (doors, bytes) = doors(configuration);
    items.push(("connections of the diagnostics", doors * web::CONNECTIONS_MAX as u32, bytes));
    items.push(("steps of the last hour", history::STEPS_MAX as u32, History::bytes()));
    if let Ok(count @ 1..) = u32::try_from(configuration.bridges.len()) {
        let bytes = configuration.bridges.iter().map(bridge::memory_bytes).sum();
        items.push(("bridges", count, bytes));
    }
    items.push(("the program", 1, PROGRAM_BYTES));
    items
        .into_iter()
        .filter(|(_, _, bytes)| *bytes > 0)
        .map(|(what, count, bytes)| Item { what, count, bytes })
        .collect()
}

/// Bytes of everything together.
#[must_use]
pub fn sum(configuration: &Configuration) -> u64 {
    budget(configuration).iter().map(|item| item.bytes).sum()
}

/// How many doors show what the gateway is doing, and the bytes that all of their connections take.
fn doors(configuration: &Configuration) -> (u32, u64) {
    let diagnostics = &configuration.diagnostics;
    let is_open = |on_loopback: bool| diagnostics.port.is_some() && diagnostics.addresses(on_loopback).next().is_some();
    let (plain, sealed) = (u64::from(is_open(true)), u64::from(is_open(false)));
    // The control socket is there whatever a configuration says.
    let doors = 1 + plain + sealed;
    let bytes = doors * web::CONNECTION_BYTES_MAX + sealed * web::TLS_BYTES_MAX;
    (u32::try_from(doors).unwrap_or(u32::MAX), bytes * web::CONNECTIONS_MAX as u64)
}

/// What the ports have below MQTT. Custom servers are shown the certificates of clients, so that these are asked for them too.
fn layers(configuration: &Configuration) -> Layers {
    let mut layers = Layers::default();
    for port in &configuration.ports {
        layers.tls |= port.tls.is_some();
        layers.certificates |= port.tls.is_some() && port.authentication.is_some();
        layers.websockets |= port.protocol == Protocol::WebSockets;
    }
    layers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::board;
    use crate::config::diagnostic::Report;

    #[test]
    fn every_board_has_room_for_its_tables_with_tls_and_websockets() {
        for name in board::names() {
            let Some(profile) = board::profile(name, &mut Report::new()) else { panic!("{name}") };
            let capacities = &profile.board.capacities;
            let layers = Layers { tls: true, certificates: true, websockets: true };
            let tables = Broker::tables(capacities).into_iter().chain(net::tables(capacities, layers));
            let bytes: u64 = tables.map(|(_, _, bytes)| bytes).sum();
            let doors = web::CONNECTIONS_MAX as u64 * (3 * web::CONNECTION_BYTES_MAX + web::TLS_BYTES_MAX);
            let bytes = bytes + Policy::tables_bytes(capacities) + doors + PROGRAM_BYTES;
            assert!(bytes <= profile.board.memory_budget_bytes, "{name}: {bytes}");
        }
    }
}
