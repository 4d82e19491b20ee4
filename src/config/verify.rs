//! What a configuration must be beyond its types: every index inside its table, every range inside its bounds.
//!
//! `bake` writes nothing that fails here. A blob that verifies and fails all the same was made by another program; it is
//! refused before anything relies on it.

use super::blob::{
    Action, Authorization, AutomaticCertificate, BRIDGES_MAX, Configuration, Diagnostics, HttpsServer, Method, Network,
    QueueStrategy, Range, ServiceAccountTokens, SubjectAttributes, Text, Tls,
};
use super::certificate::{check_times, is_certificate_name};
use super::https_server::{check_endpoint, check_headers};
use super::name::is_object_name;
use super::service_account::{is_account, is_issuer, is_key_set};
use super::token::{check_levels, check_pieces};
use super::topic::{check_filter, is_too_deep};
use crate::limits::{ATTRIBUTE_BYTES_MAX, ATTRIBUTES_MAX, RESPONSE_INFORMATION_BYTES_MAX};
use core::fmt;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// What does not fit together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defect {
    /// An index into the authentications, authorizations, trust bundles or secrets.
    Reference,
    /// A range of an authorization table.
    AuthorizationRange,
    /// A span of an authorization's text.
    AuthorizationText,
    /// A rule without principals, or an attribute map without pairs.
    EmptyPrincipal,
    /// A topic pattern.
    TopicPattern,
    /// A brace in a principal or client identifier pattern that belongs to no token.
    Token,
    /// A port number that is 0 or used twice.
    Port,
    /// A port with authorization, or with client certificates, that lacks what they need.
    PortPolicy,
    /// An address to bind.
    Address,
    /// The name of a secret, which becomes a path.
    SecretName,
    /// Attributes that no client can hold.
    Attributes,
    /// A subject without names.
    Subject,
    /// A limit of clients outside its range.
    ClientLimit,
    /// What outlives a restart.
    Persistence,
    /// The deadline of CONNECT.
    ConnectDeadline,
    /// Response Information that does not fit into a CONNACK.
    ResponseInformation,
    /// More than the board holds.
    Capacity,
    /// A bundle without certificates.
    TrustBundle,
    /// The endpoint or the header fields of a server that is asked over HTTPS.
    HttpsServer,
    /// A method without settings that let anyone in, or without what judges its credentials.
    Method,
    /// Who judges the tokens of service accounts.
    ServiceAccountTokens,
    /// A certificate of mode Automatic.
    AutomaticCertificate,
    /// A bridge.
    Bridge,
    /// Where the gateway shows what it is doing, or what guards that.
    Diagnostics,
    /// Network settings.
    Network,
}

impl fmt::Display for Defect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reference => "a reference leads nowhere",
            Self::AuthorizationRange => "a range of an authorization table is out of bounds",
            Self::AuthorizationText => "a text of an authorization is out of bounds",
            Self::EmptyPrincipal => "a rule has an empty principal",
            Self::TopicPattern => "a topic pattern is not valid",
            Self::Token => "a principal has a brace that belongs to no token",
            Self::Port => "a port number is 0 or used twice",
            Self::PortPolicy => "a port lacks the TLS or the authentication that its policies need",
            Self::Address => "an address to bind is not valid",
            Self::SecretName => "the name of a secret is not valid",
            Self::Attributes => "attributes are more than a client can hold",
            Self::Subject => "a subject is empty",
            Self::ClientLimit => "a limit of clients is out of range",
            Self::Persistence => "what outlives a restart is out of range or has a pattern that is not valid",
            Self::ConnectDeadline => "the deadline of CONNECT is out of range",
            Self::ResponseInformation => "the Response Information is too long",
            Self::Capacity => "it is more than the board holds",
            Self::TrustBundle => "a trust bundle has no certificates",
            Self::HttpsServer => "a server has no valid endpoint or header fields",
            Self::Method => "an authentication method lacks what it needs",
            Self::ServiceAccountTokens => "who judges tokens of service accounts is not valid",
            Self::AutomaticCertificate => "a certificate of mode Automatic is not valid",
            Self::Bridge => "a bridge is not valid, or there are too many",
            Self::Diagnostics => "diagnostics are not guarded, or not at a valid address",
            Self::Network => "the network settings are not valid",
        })
    }
}

impl std::error::Error for Defect {}

/// `Err(defect)` unless `condition` holds.
fn ensure(condition: bool, defect: Defect) -> Result<(), Defect> {
    if condition { Ok(()) } else { Err(defect) }
}

/// Checks a whole configuration.
///
/// # Errors
/// The first defect.
pub fn configuration(configuration: &Configuration) -> Result<(), Defect> {
    gateway(configuration)?;
    diagnostics(configuration)?;
    ensure(configuration.network.as_ref().is_none_or(Network::is_valid), Defect::Network)?;
    ports(configuration)?;
    authentications(configuration)?;
    bridges(configuration)?;
    for bundle in &configuration.trust_bundles {
        ensure(!bundle.certificates.is_empty(), Defect::TrustBundle)?;
    }
    for secret in &configuration.secrets {
        ensure(is_object_name(&secret.name), Defect::SecretName)?;
    }
    for policy in &configuration.authorizations {
        authorization(policy)?;
    }
    let usage = super::assemble::Usage::of(&configuration.authorizations);
    let sizes = &configuration.board.capacities;
    let fits = usage.rules <= u64::from(sizes.authorization_rules)
        && usage.principals <= u64::from(sizes.authorization_principals)
        && usage.attributes <= u64::from(sizes.authorization_attributes)
        && usage.patterns <= u64::from(sizes.authorization_patterns)
        && usage.bytes <= u64::from(sizes.authorization_bytes);
    ensure(fits, Defect::Capacity)
}

fn gateway(configuration: &Configuration) -> Result<(), Defect> {
    let gateway = &configuration.gateway;
    for addresses in [&gateway.cluster_ip_addresses, &gateway.external_addresses] {
        let valid = !addresses.is_empty() && addresses.iter().all(|address| address.parse::<IpAddr>().is_ok());
        ensure(valid, Defect::Address)?;
    }
    if let Some(tokens) = &gateway.service_account_tokens {
        service_account_tokens(configuration, tokens)?;
    }
    ensure((1..=120).contains(&gateway.connect_deadline_seconds), Defect::ConnectDeadline)?;
    let response = gateway.response_information.as_ref().map_or(0, String::len);
    ensure(response <= RESPONSE_INFORMATION_BYTES_MAX, Defect::ResponseInformation)?;
    let clients = &configuration.clients;
    let in_range = (1..=configuration.board.capacities.packet_bytes).contains(&clients.max_packet_size_bytes)
        && clients.max_receive_maximum >= 1
        && clients.subscriber_queue_length >= 1
        && clients.subscriber_queue_strategy != QueueStrategy::DropNewest
        && clients.max_session_expiry_seconds != Some(0)
        && clients.max_message_expiry_seconds != Some(0);
    ensure(in_range, Defect::ClientLimit)?;
    ensure(configuration.persistence.is_valid(), Defect::Persistence)
}

/// Whatever leaves the machine is guarded.
fn diagnostics(configuration: &Configuration) -> Result<(), Defect> {
    let Diagnostics { port, is_asked_for: _, addresses, exposed, self_check, log_level: _ } =
        &configuration.diagnostics;
    if self_check.is_some_and(|check| check.interval_seconds == 0 || check.timeout_seconds == 0) {
        return Err(Defect::Diagnostics);
    }
    let is_valid =
        |address: &String| address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback() || exposed.is_some());
    ensure(*port != Some(0) && !addresses.is_empty() && addresses.iter().all(is_valid), Defect::Diagnostics)?;
    let Some(exposed) = exposed else { return Ok(()) };
    secret_index(configuration, exposed.secret)?;
    if let Some(index) = exposed.trust_bundle {
        trust_bundle_index(configuration, index)?;
    }
    ensure(exposed.token_secret.as_deref().is_none_or(is_object_name), Defect::SecretName)?;
    ensure(exposed.trust_bundle.is_some() || exposed.token_secret.is_some(), Defect::Diagnostics)
}

fn ports(configuration: &Configuration) -> Result<(), Defect> {
    let mut numbers = BTreeSet::new();
    let mut issued = BTreeSet::new();
    for port in &configuration.ports {
        ensure(port.port != 0 && numbers.insert(port.port), Defect::Port)?;
        match &port.tls {
            Some(Tls::Manual { secret }) => secret_index(configuration, *secret)?,
            Some(Tls::Automatic(certificate)) => {
                automatic_certificate(certificate)?;
                let name = certificate.secret_name.as_str();
                let is_free = issued.insert(name) && configuration.secrets.iter().all(|secret| secret.name != name);
                ensure(is_free, Defect::AutomaticCertificate)?;
            }
            None => {}
        }
        if let Some(found) = port.authorization {
            ensure(usize::from(found) < configuration.authorizations.len(), Defect::Reference)?;
            ensure(port.authentication.is_some(), Defect::PortPolicy)?;
        }
        if let Some(found) = port.authentication {
            let authentication = configuration.authentications.get(usize::from(found)).ok_or(Defect::Reference)?;
            let certificates = authentication.methods.iter().any(|method| matches!(method, Method::X509 { .. }));
            ensure(port.tls.is_some() || !certificates, Defect::PortPolicy)?;
        }
    }
    Ok(())
}

fn secret_index(configuration: &Configuration, index: u16) -> Result<(), Defect> {
    ensure(usize::from(index) < configuration.secrets.len(), Defect::Reference)
}

fn trust_bundle_index(configuration: &Configuration, index: u16) -> Result<(), Defect> {
    ensure(usize::from(index) < configuration.trust_bundles.len(), Defect::Reference)
}

fn automatic_certificate(certificate: &AutomaticCertificate) -> Result<(), Defect> {
    let valid = is_object_name(&certificate.issuer)
        && is_object_name(&certificate.secret_name)
        && check_times(certificate.duration_seconds, certificate.renew_before_seconds).is_ok()
        && certificate.dns_names.iter().all(|name| is_certificate_name(name))
        && certificate.ip_addresses.iter().all(|address| address.parse::<IpAddr>().is_ok());
    ensure(valid, Defect::AutomaticCertificate)
}

fn https_server(configuration: &Configuration, server: &HttpsServer) -> Result<(), Defect> {
    if let Some(index) = server.trust_bundle {
        trust_bundle_index(configuration, index)?;
    }
    if let Some(index) = server.client_secret {
        secret_index(configuration, index)?;
    }
    let valid = check_endpoint(&server.endpoint).is_ok() && check_headers(&server.headers).is_ok();
    ensure(valid, Defect::HttpsServer)
}

fn service_account_tokens(configuration: &Configuration, tokens: &ServiceAccountTokens) -> Result<(), Defect> {
    match tokens {
        ServiceAccountTokens::TokenReview { server, token_secret } => {
            https_server(configuration, server)?;
            ensure(token_secret.is_some() != server.client_secret.is_some(), Defect::ServiceAccountTokens)?;
            ensure(token_secret.as_deref().is_none_or(is_object_name), Defect::SecretName)
        }
        ServiceAccountTokens::Offline { issuers, attributes } => {
            let (mut names, mut accounts) = (BTreeSet::new(), BTreeSet::new());
            ensure(!issuers.is_empty(), Defect::ServiceAccountTokens)?;
            for issuer in issuers {
                let valid = is_issuer(&issuer.issuer)
                    && names.insert(&issuer.issuer)
                    && !issuer.key_sets.is_empty()
                    && issuer.key_sets.iter().all(|text| is_key_set(text));
                ensure(valid, Defect::ServiceAccountTokens)?;
            }
            for entry in attributes {
                let valid = is_account(&entry.account) && accounts.insert(&entry.account);
                ensure(valid, Defect::ServiceAccountTokens)?;
                attributes_fit(&entry.attributes)?;
            }
            Ok(())
        }
    }
}

fn authentications(configuration: &Configuration) -> Result<(), Defect> {
    for method in configuration.authentications.iter().flat_map(|authentication| &authentication.methods) {
        match method {
            Method::X509 { trust_bundle, attributes } => {
                trust_bundle_index(configuration, *trust_bundle)?;
                attributes.iter().try_for_each(subject_attributes)?;
            }
            Method::ServiceAccountToken { audiences } => {
                let names_any = !audiences.is_empty() && audiences.iter().all(|audience| !audience.is_empty());
                let is_judged = configuration.gateway.service_account_tokens.is_some();
                ensure(names_any && is_judged, Defect::Method)?;
            }
            Method::Custom { server } => https_server(configuration, server)?,
            Method::UsernamePassword { secret } => ensure(is_object_name(secret), Defect::SecretName)?,
        }
    }
    Ok(())
}

fn bridges(configuration: &Configuration) -> Result<(), Defect> {
    let bridges = &configuration.bridges;
    let mut identifiers = BTreeSet::new();
    ensure(bridges.len() <= BRIDGES_MAX, Defect::Bridge)?;
    for bridge in bridges {
        let is_new = identifiers.insert(&bridge.remote.client_identifier);
        ensure(is_new && super::bridge::is_valid(bridge), Defect::Bridge)?;
        attributes_fit(&bridge.identity.attributes)?;
        if let Some(index) = bridge.identity.authorization {
            ensure(usize::from(index) < configuration.authorizations.len(), Defect::Reference)?;
        }
        if let Some(tls) = &bridge.remote.tls {
            tls.trust_bundle.map_or(Ok(()), |index| trust_bundle_index(configuration, index))?;
            tls.client_secret.map_or(Ok(()), |index| secret_index(configuration, index))?;
        }
        if let Some((_, Some(secret))) = &bridge.remote.login {
            ensure(is_object_name(secret), Defect::SecretName)?;
        }
    }
    let room = super::bridge::Room::of(configuration);
    let length: u64 = bridges.iter().map(|bridge| u64::from(bridge.queue_length)).sum();
    let bytes = bridges.iter().fold(0_u64, |sum, bridge| sum.saturating_add(bridge.queue_bytes));
    ensure(length <= room.length && bytes <= room.bytes, Defect::Bridge)
}

fn subject_attributes(entry: &SubjectAttributes) -> Result<(), Defect> {
    let names = &entry.subject.relative_names;
    ensure(!names.is_empty() && names.iter().all(|name| !name.is_empty()), Defect::Subject)?;
    attributes_fit(&entry.attributes)
}

fn attributes_fit(attributes: &[(String, String)]) -> Result<(), Defect> {
    let bytes: usize = attributes.iter().map(|(name, value)| 4 + name.len() + value.len()).sum();
    ensure(attributes.len() <= ATTRIBUTES_MAX && bytes <= ATTRIBUTE_BYTES_MAX, Defect::Attributes)
}

/// Checks the tables of one authorization policy.
///
/// # Errors
/// The first defect.
pub fn authorization(policy: &Authorization) -> Result<(), Defect> {
    for rule in &policy.rules {
        text_of(policy, rule.source)?;
        slice_of(&policy.usernames, rule.usernames)?;
        slice_of(&policy.client_identifiers, rule.client_identifiers)?;
        slice_of(&policy.attribute_maps, rule.attribute_maps)?;
        slice_of(&policy.resources, rule.resources)?;
        slice_of(&policy.state_store, rule.state_store)?;
        let lists = [rule.usernames, rule.client_identifiers, rule.attribute_maps];
        ensure(lists.iter().any(|range| range.count > 0), Defect::EmptyPrincipal)?;
    }
    for map in &policy.attribute_maps {
        ensure(!slice_of(&policy.attribute_pairs, *map)?.is_empty(), Defect::EmptyPrincipal)?;
    }
    let pairs = policy.attribute_pairs.iter().flat_map(|(name, value)| [name, value]);
    for text in policy.usernames.iter().chain(&policy.client_identifiers).chain(&policy.patterns).chain(pairs) {
        text_of(policy, *text)?;
    }
    let values = policy.attribute_pairs.iter().map(|(_, value)| value);
    for text in policy.usernames.iter().chain(&policy.client_identifiers).chain(values) {
        ensure(check_pieces(text_of(policy, *text)?).is_ok(), Defect::Token)?;
    }
    for resource in &policy.resources {
        let patterns = slice_of(&policy.patterns, resource.patterns)?;
        match resource.action {
            Action::Connect => {
                for pattern in patterns {
                    ensure(check_pieces(text_of(policy, *pattern)?).is_ok(), Defect::Token)?;
                }
            }
            Action::Publish | Action::Subscribe => {
                for pattern in patterns {
                    let topic = text_of(policy, *pattern)?;
                    let valid = check_levels(topic).is_ok() && check_filter(topic).is_ok() && !is_too_deep(topic);
                    ensure(valid, Defect::TopicPattern)?;
                }
            }
        }
    }
    for resource in &policy.state_store {
        slice_of(&policy.patterns, resource.keys)?;
    }
    Ok(())
}

/// The elements that `range` means.
pub(crate) fn slice_of<T>(table: &[T], range: Range) -> Result<&[T], Defect> {
    let start = usize::try_from(range.start).map_err(|_| Defect::AuthorizationRange)?;
    let count = usize::try_from(range.count).map_err(|_| Defect::AuthorizationRange)?;
    let end = start.checked_add(count).ok_or(Defect::AuthorizationRange)?;
    table.get(start..end).ok_or(Defect::AuthorizationRange)
}

/// The text that `span` means.
pub(crate) fn text_of(policy: &Authorization, span: Text) -> Result<&str, Defect> {
    let start = usize::try_from(span.start).map_err(|_| Defect::AuthorizationText)?;
    let length = usize::try_from(span.length).map_err(|_| Defect::AuthorizationText)?;
    let end = start.checked_add(length).ok_or(Defect::AuthorizationText)?;
    policy.text.get(start..end).ok_or(Defect::AuthorizationText)
}
