//! What is known of the configuration in force, for those who look at a running broker.
//!
//! In: made by the commands at start and with each configuration that is put in force. Out: names and dates for documents and for health.
//! Nothing that concerns a client decides by it.

use super::Inquiries;
use crate::config::blob::ClockPolicy;
use crate::time::{Instant, UnixTime};
use core::cell::RefCell;
use rustls_pki_types::CertificateDer;
use std::rc::Rc;
use x509_cert::Certificate;
use x509_cert::der::Decode as _;

/// Certificates of authorities that are kept, those that end first.
pub const AUTHORITIES_MAX: usize = 64;

/// The facts, which a new configuration replaces.
pub type FactsInForce = Rc<RefCell<Facts>>;

/// About one configuration.
#[derive(Default)]
pub struct Facts {
    /// Name of the board profile.
    pub board: String,
    /// Bytes that everything may take together.
    pub memory_budget_bytes: u64,
    /// The blob; `None` for the embedded configuration.
    pub file: Option<String>,
    /// SHA-256 of the blob, in hexadecimal digits.
    pub digest: Option<String>,
    /// When it was put in force.
    pub applied: Instant,
    /// Whether the broker checks itself.
    pub probes: bool,
    /// `readyCertificateDays`.
    pub ready_certificate_days: u16,
    /// `clockPolicy`.
    pub clock_policy: ClockPolicy,
    /// By index of the port.
    pub listeners: Vec<ListenerFacts>,
    /// Authorities, at most [`AUTHORITIES_MAX`], those that end first before the others.
    pub authorities: Vec<CertificateFacts>,
    /// Servers that are asked, some of them with a client certificate.
    pub inquiries: Rc<Inquiries>,
}

/// About one port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerFacts {
    /// `metadata.name` of its BrokerListener.
    pub name: String,
    /// TCP port.
    pub port: u16,
    /// What it is bound to.
    pub addresses: Vec<String>,
    /// `Mqtt` or `WebSockets`.
    pub protocol: &'static str,
    /// Mode of its TLS: `None`, `Manual` or `Automatic`.
    pub tls: &'static str,
    /// Whether the gateway issues its certificate itself, and renews it in time.
    pub renews_itself: bool,
    /// Name of its server certificate's Secret.
    pub secret: Option<String>,
    /// Its BrokerAuthentication.
    pub authentication: Option<String>,
    /// Its BrokerAuthorization.
    pub authorization: Option<String>,
}

/// About one certificate.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CertificateFacts {
    /// Its last second.
    pub not_after: UnixTime,
    /// Name of the resource that it comes from.
    pub name: String,
    /// Its subject, as RFC 4514 writes it.
    pub subject: String,
}

impl CertificateFacts {
    /// What is known of a certificate of the resource `name`; `None` for one that cannot be read.
    #[must_use]
    pub fn new(name: &str, certificate: &[u8]) -> Option<Self> {
        let body = Certificate::from_der(certificate).ok()?.tbs_certificate;
        Some(Self {
            not_after: UnixTime(body.validity.not_after.to_unix_duration().as_secs()),
            name: name.to_owned(),
            subject: body.subject.to_string(),
        })
    }
}

impl Facts {
    /// Certificates that are shown to servers, each with the name of the server.
    #[must_use]
    pub fn shown_to_servers(&self) -> Vec<CertificateFacts> {
        let row = |host: &str, certificate: Option<&CertificateDer<'_>>| CertificateFacts::new(host, certificate?);
        let custom = self.inquiries.custom.borrow();
        let cluster = self.inquiries.cluster.borrow();
        let servers = custom.values().map(|server| &**server).chain(cluster.iter().map(|cluster| &cluster.server));
        servers.filter_map(|server| row(server.host(), server.certificate())).collect()
    }

    /// Name of the listener of a port: parts of the broker come in by none.
    #[must_use]
    pub fn listener(&self, port: u16) -> &str {
        self.listeners.get(usize::from(port)).map_or("inside", |listener| &listener.name)
    }
}
