//! What those who look at a running broker are told of its configuration.

use crate::config::blob::{Configuration, ListenerPort, Protocol, Tls};
use crate::platform::{Clock as _, ServiceManager, SystemClock};
use crate::service::{AUTHORITIES_MAX, CertificateFacts, Facts, FactsInForce, Inquiries, ListenerFacts};
use crate::time::Instant;
use sha2::{Digest as _, Sha256};
use std::net::TcpListener;
use std::path::Path;
use std::rc::Rc;

/// The facts of a configuration that has not been put in force yet. `blob` is its file and contents, if it has one.
pub fn of(configuration: &Configuration, blob: Option<(&Path, &[u8])>, inquiries: Rc<Inquiries>) -> Facts {
    Facts {
        board: configuration.board.name.clone(),
        memory_budget_bytes: configuration.board.memory_budget_bytes,
        file: blob.map(|(path, _)| path.display().to_string()),
        digest: blob.map(|(_, contents)| digest(contents)),
        applied: Instant::ZERO,
        probes: configuration.diagnostics.self_check.is_some(),
        ready_certificate_days: configuration.gateway.ready_certificate_days,
        clock_policy: configuration.gateway.clock_policy,
        listeners: configuration.ports.iter().map(|port| listener(configuration, port)).collect(),
        authorities: authorities(configuration),
        inquiries,
    }
}

/// Adds what the sockets of ports, by index of the port, are bound to.
pub fn set_addresses<'a>(facts: &mut Facts, bound: impl Iterator<Item = (u16, &'a TcpListener)>) {
    for (port, socket) in bound {
        if let (Some(listener), Ok(address)) = (facts.listeners.get_mut(usize::from(port)), socket.local_addr()) {
            listener.addresses.push(address.ip().to_string());
        }
    }
}

/// The facts in force, for those who replace them.
pub struct Told {
    /// Shared with those who look.
    pub facts: FactsInForce,
    /// When they are replaced.
    pub clock: SystemClock,
    /// Told when a configuration is read again.
    pub manager: Rc<ServiceManager>,
}

impl Told {
    /// Puts the facts of a new configuration, for the same ports, in place of those of the old one.
    pub fn replace(&self, mut new: Facts) {
        let mut facts = self.facts.borrow_mut();
        for (listener, former) in new.listeners.iter_mut().zip(&mut facts.listeners) {
            listener.addresses = core::mem::take(&mut former.addresses);
        }
        new.applied = self.clock.now().instant;
        *facts = new;
    }
}

fn digest(contents: &[u8]) -> String {
    const DIGITS: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    let nibbles = Sha256::digest(contents).into_iter().flat_map(|byte| [byte >> 4, byte & 15]);
    nibbles.filter_map(|nibble| DIGITS.get(usize::from(nibble))).collect()
}

fn listener(configuration: &Configuration, port: &ListenerPort) -> ListenerFacts {
    let (tls, secret) = match &port.tls {
        None => ("None", None),
        Some(Tls::Manual { secret }) => {
            ("Manual", configuration.secrets.get(usize::from(*secret)).map(|secret| secret.name.clone()))
        }
        Some(Tls::Automatic(settings)) => ("Automatic", Some(settings.secret_name.clone())),
    };
    let (authentications, authorizations) = (&configuration.authentications, &configuration.authorizations);
    ListenerFacts {
        name: port.listener.clone(),
        port: port.port,
        addresses: Vec::new(),
        protocol: match port.protocol {
            Protocol::Mqtt => "Mqtt",
            Protocol::WebSockets => "WebSockets",
        },
        tls,
        renews_itself: matches!(port.tls, Some(Tls::Automatic(_))),
        secret,
        authentication: port
            .authentication
            .and_then(|index| Some(authentications.get(usize::from(index))?.name.clone())),
        authorization: port.authorization.and_then(|index| Some(authorizations.get(usize::from(index))?.name.clone())),
    }
}

fn authorities(configuration: &Configuration) -> Vec<CertificateFacts> {
    let bundles = configuration.trust_bundles.iter();
    let mut found: Vec<_> = bundles
        .flat_map(|bundle| {
            bundle.certificates.iter().filter_map(|certificate| CertificateFacts::new(&bundle.name, certificate))
        })
        .collect();
    found.sort();
    found.truncate(AUTHORITIES_MAX);
    found
}
