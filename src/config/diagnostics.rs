//! Where a gateway shows what it is doing: `diagnostics.metrics` of the Broker, `bind.diagnostics` and `diagnosticsTls` of the
//! Gateway.
//!
//! **Invariant:** what is shown leaves the machine over TLS only, and only to somebody with a certificate or a token. An update comes
//! in there only where that is said.

use super::blob::Diagnostics;
use super::diagnostic::{Place, Report};
use super::listener::{Reference, reference};
use super::source::Node;
use super::source::walk::{Fields, choice};
use std::net::IpAddr;

/// `prometheusPort` where the Broker names none: the vendor's.
pub const DEFAULT_PORT: u16 = 9_600;

/// `diagnosticsTls`.
#[derive(Clone, Debug)]
pub struct Exposed {
    /// `secretRef`.
    pub secret: Reference,
    /// `trustedClientCaCert`.
    pub trust: Option<Reference>,
    /// `tokenSecretRef`.
    pub token: Option<Reference>,
    /// `updates`: whether updates of the image are taken there.
    pub updates: bool,
}

/// Reads a `diagnosticsTls`.
pub fn read(node: &Node, report: &mut Report) -> Option<Exposed> {
    let mut fields = Fields::of(node, "diagnosticsTls", report)?;
    let secret = reference(&mut fields, "secretRef", report);
    let trust = reference(&mut fields, "trustedClientCaCert", report);
    let token = reference(&mut fields, "tokenSecretRef", report);
    const UPDATES: [(&str, bool); 2] = [("Allowed", true), ("Refused", false)];
    let updates = fields.optional("updates").and_then(|node| choice(node, "updates", &UPDATES, report));
    fields.finish(report);
    if trust.is_none() && token.is_none() {
        let message =
            "diagnosticsTls needs trustedClientCaCert, tokenSecretRef, or both: else everybody could read along";
        report.error(&node.place, message);
    }
    let Some(secret) = secret else {
        report.error(&node.place, "diagnosticsTls needs secretRef, the certificate that is shown to who reads");
        return None;
    };
    Some(Exposed { secret, trust, token, updates: updates.unwrap_or(false) })
}

/// Compares addresses with what protects them.
pub fn check(
    addresses: &[String],
    addresses_place: Option<&Place>,
    exposed: Option<(&Exposed, &Place)>,
    report: &mut Report,
) {
    match (addresses.iter().find(|address| !is_loopback(address)), exposed) {
        (Some(address), None) => {
            let message = format!(
                "bind.diagnostics has {address}, which is not on loopback, and there is no valid diagnosticsTls; add \
                 diagnosticsTls: {{secretRef: NAME, tokenSecretRef: NAME}} to the spec of the Gateway"
            );
            report.error(addresses_place.unwrap_or(&super::gateway::nowhere()), message);
        }
        (None, Some((_, place))) => {
            report.note(place, "diagnosticsTls has no effect: all addresses of bind.diagnostics are on loopback");
        }
        (Some(_), Some(_)) | (None, None) => {}
    }
}

/// Whether only this machine can reach an address.
#[must_use]
pub fn is_loopback(address: &str) -> bool {
    address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

impl Diagnostics {
    /// The addresses that only this machine can reach, or the others.
    pub fn addresses(&self, on_loopback: bool) -> impl Iterator<Item = IpAddr> {
        let addresses = self.addresses.iter().filter_map(|address| address.parse::<IpAddr>().ok());
        addresses.filter(move |address| address.is_loopback() == on_loopback)
    }
}
