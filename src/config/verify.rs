//! What a configuration must be beyond its types: every index inside its table, every range inside its bounds.
//!
//! `bake` writes nothing that fails here. A blob that verifies and fails all the same was made by another program; it is
//! refused before anything relies on it.

use super::blob::{Action, Authorization, Configuration, Method, Range, Text};
use super::name::is_object_name;
use super::topic::check_filter;
use crate::limits::{ATTRIBUTE_BYTES_MAX, ATTRIBUTES_MAX};
use core::fmt;
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
    /// The deadline of CONNECT.
    ConnectDeadline,
    /// More than the board holds.
    Capacity,
    /// A bundle without certificates.
    TrustBundle,
}

impl fmt::Display for Defect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Reference => "a reference leads nowhere",
            Self::AuthorizationRange => "a range of an authorization table is out of bounds",
            Self::AuthorizationText => "a text of an authorization is out of bounds",
            Self::EmptyPrincipal => "a rule has an empty principal",
            Self::TopicPattern => "a topic pattern is not valid",
            Self::Port => "a port number is 0 or used twice",
            Self::PortPolicy => "a port lacks the TLS or the authentication that its policies need",
            Self::Address => "an address to bind is not valid",
            Self::SecretName => "the name of a secret is not valid",
            Self::Attributes => "attributes are more than a client can hold",
            Self::Subject => "a subject is empty",
            Self::ClientLimit => "a limit of clients is out of range",
            Self::ConnectDeadline => "the deadline of CONNECT is out of range",
            Self::Capacity => "it is more than the board holds",
            Self::TrustBundle => "a trust bundle has no certificates",
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
    ports(configuration)?;
    authentications(configuration)?;
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
    ensure((1..=120).contains(&gateway.connect_deadline_seconds), Defect::ConnectDeadline)?;
    let clients = &configuration.clients;
    let in_range = (1..=configuration.board.capacities.packet_bytes).contains(&clients.max_packet_size_bytes)
        && clients.max_receive_maximum >= 1
        && clients.subscriber_queue_length >= 1
        && clients.max_session_expiry_seconds != Some(0)
        && clients.max_message_expiry_seconds != Some(0);
    ensure(in_range, Defect::ClientLimit)
}

fn ports(configuration: &Configuration) -> Result<(), Defect> {
    let mut numbers = std::collections::BTreeSet::new();
    for port in &configuration.ports {
        ensure(port.port != 0 && numbers.insert(port.port), Defect::Port)?;
        if let Some(tls) = port.tls {
            ensure(usize::from(tls.secret) < configuration.secrets.len(), Defect::Reference)?;
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

fn authentications(configuration: &Configuration) -> Result<(), Defect> {
    for authentication in &configuration.authentications {
        for method in &authentication.methods {
            let Method::X509 { trust_bundle, attributes } = method;
            ensure(usize::from(*trust_bundle) < configuration.trust_bundles.len(), Defect::Reference)?;
            for entry in attributes {
                let names = &entry.subject.relative_names;
                ensure(!names.is_empty() && names.iter().all(|name| !name.is_empty()), Defect::Subject)?;
                let bytes: usize = entry.attributes.iter().map(|(name, value)| 4 + name.len() + value.len()).sum();
                ensure(entry.attributes.len() <= ATTRIBUTES_MAX && bytes <= ATTRIBUTE_BYTES_MAX, Defect::Attributes)?;
            }
        }
    }
    Ok(())
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
    for resource in &policy.resources {
        let patterns = slice_of(&policy.patterns, resource.patterns)?;
        match resource.action {
            Action::Connect => {}
            Action::Publish | Action::Subscribe => {
                for pattern in patterns {
                    ensure(check_filter(text_of(policy, *pattern)?).is_ok(), Defect::TopicPattern)?;
                }
            }
        }
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
