//! `kind: Gateway` of `portcullis.edge/v1`: what the vendor's resources have no place for.

use super::blob::{ClientIdentifiers, ClockPolicy, ExpiryNotice, Gateway, Network, Persistence, StaleRevocationLists};
use super::diagnostic::{Place, Report, quoted};
use super::diagnostics;
use super::kept::COMMIT_INTERVAL_MILLISECONDS;
use super::listener::{Reference, reference};
use super::network;
use super::service_account::{self, TokenSource};
use super::source::walk::{Fields, boolean, choice, full_text, integer, texts};
use super::source::{Node, Value};
use crate::limits::RESPONSE_INFORMATION_BYTES_MAX;
use std::net::IpAddr;

/// `spec` of a Gateway.
#[derive(Clone)]
pub struct Settings {
    /// `board`.
    pub board: Option<Reference>,
    /// `serviceAccountTokens`, whose references are yet to be resolved, and where it stands.
    pub token_source: Option<(TokenSource, Place)>,
    /// Whether there is a `serviceAccountTokens`, valid or not.
    pub has_token_field: bool,
    /// `commitIntervalMilliseconds`.
    pub commit_interval_milliseconds: u16,
    /// `bind.diagnostics`, and where it stands.
    pub diagnostics_addresses: (Vec<String>, Option<Place>),
    /// `diagnosticsTls`, whose references are yet to be resolved, and where it stands.
    pub diagnostics_tls: Option<(diagnostics::Exposed, Place)>,
    /// `network`.
    pub network: Option<Network>,
    /// The rest, with defaults where it is absent.
    pub gateway: Gateway,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            board: None,
            token_source: None,
            has_token_field: false,
            commit_interval_milliseconds: Persistence::default().commit_interval_milliseconds,
            diagnostics_addresses: (vec!["127.0.0.1".to_owned(), "::1".to_owned()], None),
            diagnostics_tls: None,
            network: None,
            gateway: Gateway {
                secrets_folder: "secrets".to_owned(),
                state_folder: "state".to_owned(),
                cluster_ip_addresses: vec!["127.0.0.1".to_owned(), "::1".to_owned()],
                external_addresses: vec!["0.0.0.0".to_owned(), "::".to_owned()],
                clock_policy: ClockPolicy::Enforce,
                connect_deadline_seconds: 10,
                ready_certificate_days: 3,
                validate_payload_format: false,
                sys_interval_seconds: 10,
                response_information: None,
                issuers_folder: "issuers".to_owned(),
                revocation_folder: "revocation".to_owned(),
                same_key_algorithm: true,
                stale_revocation_lists: StaleRevocationLists::Refuse,
                client_identifiers: ClientIdentifiers::Exclusive,
                expiry_notice: ExpiryNotice::None,
                service_account_tokens: None,
            },
        }
    }
}

/// Reads a `spec`.
pub fn read(spec: &Node, report: &mut Report) -> Option<Settings> {
    let mut settings = Settings::default();
    let gateway = &mut settings.gateway;
    let mut fields = Fields::of(spec, "the spec of Gateway", report)?;
    settings.board = reference(&mut fields, "board", report);
    if let Some(node) = fields.optional("paths")
        && let Some(mut paths) = Fields::of(node, "paths", report)
    {
        for (name, folder) in [
            ("secrets", &mut gateway.secrets_folder),
            ("state", &mut gateway.state_folder),
            ("issuers", &mut gateway.issuers_folder),
            ("revocation", &mut gateway.revocation_folder),
        ] {
            if let Some(node) = paths.optional(name)
                && let Some(path) = path(node, name, report)
            {
                *folder = path;
            }
        }
        paths.finish(report);
    }
    if let Some(node) = fields.optional("bind")
        && let Some(mut bind) = Fields::of(node, "bind", report)
    {
        let lists = [("clusterIp", &mut gateway.cluster_ip_addresses), ("external", &mut gateway.external_addresses)];
        for (name, addresses) in lists {
            if let Some(node) = bind.optional(name) {
                *addresses = read_addresses(node, name, report);
            }
        }
        if let Some(node) = bind.optional("diagnostics") {
            settings.diagnostics_addresses = (read_addresses(node, "diagnostics", report), Some(node.place.clone()));
        }
        bind.finish(report);
    }
    if let Some(node) = fields.optional("clockPolicy") {
        let policies = [("Enforce", ClockPolicy::Enforce), ("AssumeBuildDate", ClockPolicy::AssumeBuildDate)];
        if let Some(policy) = choice(node, "clockPolicy", &policies, report) {
            gateway.clock_policy = policy;
        }
    }
    if let Some(node) = fields.optional("connectDeadlineSeconds")
        && let Some(seconds) = integer(node, "connectDeadlineSeconds", 1..=120, report)
    {
        gateway.connect_deadline_seconds = u16::try_from(seconds).unwrap_or(120);
    }
    if let Some(node) = fields.optional("readyCertificateDays")
        && let Some(days) = integer(node, "readyCertificateDays", 0..=365, report)
    {
        gateway.ready_certificate_days = u16::try_from(days).unwrap_or(365);
    }
    if let Some(node) = fields.optional("validatePayloadFormat")
        && let Some(validate) = boolean(node, "validatePayloadFormat", report)
    {
        gateway.validate_payload_format = validate;
    }
    if let Some(node) = fields.optional("sysIntervalSeconds")
        && let Some(seconds) = integer(node, "sysIntervalSeconds", 0..=3_600, report)
    {
        gateway.sys_interval_seconds = u16::try_from(seconds).unwrap_or(3_600);
    }
    if let Some(node) = fields.optional("responseInformation") {
        gateway.response_information = response_information(node, report);
    }
    identities(&mut fields, gateway, report);
    if let Some(node) = fields.optional("commitIntervalMilliseconds") {
        let (low, high) = COMMIT_INTERVAL_MILLISECONDS.into_inner();
        let interval = integer(node, "commitIntervalMilliseconds", u64::from(low)..=u64::from(high), report);
        settings.commit_interval_milliseconds = interval.and_then(|given| u16::try_from(given).ok()).unwrap_or(high);
    }
    if let Some(node) = fields.optional("serviceAccountTokens") {
        settings.has_token_field = true;
        settings.token_source = service_account::read(node, report).map(|source| (source, node.place.clone()));
    }
    if let Some(node) = fields.optional("diagnosticsTls") {
        settings.diagnostics_tls = diagnostics::read(node, report).map(|exposed| (exposed, node.place.clone()));
    }
    if let Some(node) = fields.optional("network") {
        settings.network = network::read(node, report);
    }
    let (addresses, place) = &settings.diagnostics_addresses;
    let exposed = settings.diagnostics_tls.as_ref().map(|(exposed, place)| (exposed, place));
    diagnostics::check(addresses, place.as_ref(), exposed, report);
    fields.finish(report);
    Some(settings)
}

/// Reads how strictly credentials and client identifiers are judged.
fn identities(fields: &mut Fields<'_>, gateway: &mut Gateway, report: &mut Report) {
    const STALE: [(&str, StaleRevocationLists); 2] =
        [("Refuse", StaleRevocationLists::Refuse), ("Accept", StaleRevocationLists::Accept)];
    const IDENTIFIERS: [(&str, ClientIdentifiers); 2] =
        [("Exclusive", ClientIdentifiers::Exclusive), ("Shared", ClientIdentifiers::Shared)];
    const NOTICES: [(&str, ExpiryNotice); 2] = [("None", ExpiryNotice::None), ("Disconnect", ExpiryNotice::Disconnect)];
    if let Some(node) = fields.optional("sameKeyAlgorithm")
        && let Some(same) = boolean(node, "sameKeyAlgorithm", report)
    {
        gateway.same_key_algorithm = same;
    }
    if let Some(node) = fields.optional("staleRevocationLists")
        && let Some(stale) = choice(node, "staleRevocationLists", &STALE, report)
    {
        gateway.stale_revocation_lists = stale;
    }
    if let Some(node) = fields.optional("clientIdentifiers")
        && let Some(identifiers) = choice(node, "clientIdentifiers", &IDENTIFIERS, report)
    {
        gateway.client_identifiers = identifiers;
    }
    if let Some(node) = fields.optional("expiryNotice")
        && let Some(notice) = choice(node, "expiryNotice", &NOTICES, report)
    {
        gateway.expiry_notice = notice;
    }
}

fn response_information(node: &Node, report: &mut Report) -> Option<String> {
    let text = full_text(node, "responseInformation", report)?;
    if text.len() > RESPONSE_INFORMATION_BYTES_MAX {
        let fault = format!("responseInformation has more than {RESPONSE_INFORMATION_BYTES_MAX} bytes");
        report.error(&node.place, fault);
        return None;
    }
    Some(text.to_owned())
}

fn path(node: &Node, what: &str, report: &mut Report) -> Option<String> {
    let path = full_text(node, what, report)?;
    if path.contains('\0') {
        report.error(&node.place, format!("{what} is no path: {}", quoted(path)));
        return None;
    }
    Some(path.to_owned())
}

fn read_addresses(node: &Node, what: &str, report: &mut Report) -> Vec<String> {
    let mut addresses: Vec<String> = Vec::new();
    for (given, node) in texts(node, what, report).unwrap_or_default() {
        match given.parse::<IpAddr>() {
            Ok(address) if addresses.contains(&address.to_string()) => {
                report.error(&node.place, format!("the address {} stands here twice", quoted(given)));
            }
            Ok(address) => addresses.push(address.to_string()),
            Err(_) => report.error(&node.place, format!("{} is no IP address", quoted(given))),
        }
    }
    if node.value == Value::Sequence(Vec::new()) {
        report.error(&node.place, format!("{what} is empty: leave it out for the default"));
    }
    addresses
}

/// The place to name when there is no Gateway resource.
#[must_use]
pub fn nowhere() -> Place {
    Place::start_of("(no Gateway resource)")
}
