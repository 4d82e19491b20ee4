//! `kind: BrokerAuthentication`: the ordered chain of methods.

use super::blob::SubjectAttributes;
use super::broker::refuse;
use super::diagnostic::{Place, Report, quoted};
use super::listener::{Reference, reference, secret_reference};
use super::source::Node;
use super::source::walk::{Fields, choice, full_text, mapping, sequence, text, text_map, texts};
use crate::distinguished_name::{DistinguishedName, SyntaxError};
use crate::limits::{ATTRIBUTE_BYTES_MAX, ATTRIBUTES_MAX};

/// The ConfigMap that `trustedClientCaCert` means where it is absent.
const DEFAULT_TRUST: &str = "client-ca";

/// `spec` of a BrokerAuthentication.
#[derive(Clone, Debug)]
pub struct Authentication {
    /// `authenticationMethods`, in order.
    pub methods: Vec<X509>,
}

/// `method: X509`.
#[derive(Clone, Debug)]
pub struct X509 {
    /// Where the method stands.
    pub place: Place,
    /// `trustedClientCaCert`.
    pub trusted_client_ca_cert: Reference,
    /// `authorizationAttributes`.
    pub attributes: Vec<SubjectAttributes>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MethodKind {
    Custom,
    ServiceAccountToken,
    X509,
}

const METHODS: [(&str, MethodKind); 3] = [
    ("X509", MethodKind::X509),
    ("Custom", MethodKind::Custom),
    ("ServiceAccountToken", MethodKind::ServiceAccountToken),
];
const SETTINGS: [(&str, MethodKind); 3] = [
    ("x509Settings", MethodKind::X509),
    ("customSettings", MethodKind::Custom),
    ("serviceAccountTokenSettings", MethodKind::ServiceAccountToken),
];

/// Reads a `spec`.
pub fn read(spec: &Node, report: &mut Report) -> Option<Authentication> {
    let mut fields = Fields::of(spec, "the spec of BrokerAuthentication", report)?;
    let mut methods: Vec<X509> = Vec::new();
    if let Some(node) = fields.required("authenticationMethods", report)
        && let Some(elements) = sequence(node, "authenticationMethods", report)
    {
        if elements.is_empty() {
            report.error(&node.place, "authenticationMethods is empty: no client could ever connect");
        }
        methods = elements.iter().filter_map(|node| method(node, report)).collect();
        for later in methods.get(1..).unwrap_or_default() {
            report.note(
                &later.place,
                "a second X509 method is never consulted: the first one decides on every certificate",
            );
        }
    }
    fields.finish(report);
    Some(Authentication { methods })
}

/// Reads the body of `x509Settings` that stands alone in a file.
pub fn read_bare(body: &Node, report: &mut Report) -> Option<Authentication> {
    Some(Authentication { methods: vec![x509(body, &body.place, report)?] })
}

fn method(node: &Node, report: &mut Report) -> Option<X509> {
    let mut fields = Fields::of(node, "authenticationMethods[]", report)?;
    let method_node = fields.required("method", report);
    let kind = method_node.and_then(|node| choice(node, "method", &METHODS, report));
    let mut own = None;
    for (name, owner) in SETTINGS {
        let Some(settings) = fields.optional(name) else { continue };
        match kind {
            Some(kind) if kind == owner => own = Some(settings),
            Some(kind) => {
                let method = METHODS.iter().find(|(_, candidate)| *candidate == kind).map_or("", |(name, _)| *name);
                report.error(&settings.place, format!("{name} does not belong to method {method}"));
            }
            None => {}
        }
    }
    let place = fields.place();
    fields.finish(report);
    match (kind?, own) {
        (MethodKind::X509, Some(settings)) => x509(settings, place, report),
        (MethodKind::X509, None) => Some(X509 {
            place: place.clone(),
            trusted_client_ca_cert: Reference { name: DEFAULT_TRUST.to_owned(), place: place.clone() },
            attributes: Vec::new(),
        }),
        (MethodKind::Custom, settings) => {
            match settings {
                Some(node) => custom(node, report),
                None => report.error(place, "the field \"customSettings\" is missing for method Custom"),
            }
            refuse(&method_node?.place, "the method Custom", report);
            None
        }
        (MethodKind::ServiceAccountToken, settings) => {
            match settings {
                Some(node) => service_account_token(node, report),
                None => report.error(
                    place,
                    "the field \"serviceAccountTokenSettings\" is missing for method ServiceAccountToken",
                ),
            }
            refuse(&method_node?.place, "the method ServiceAccountToken", report);
            None
        }
    }
}

fn x509(node: &Node, place: &Place, report: &mut Report) -> Option<X509> {
    let mut fields = Fields::of(node, "x509Settings", report)?;
    let trust = reference(&mut fields, "trustedClientCaCert", report);
    let trusted_client_ca_cert =
        trust.unwrap_or_else(|| Reference { name: DEFAULT_TRUST.to_owned(), place: node.place.clone() });
    let mut attributes = Vec::new();
    if let Some(node) = fields.optional("authorizationAttributes") {
        for (key, entry) in mapping(node, "authorizationAttributes", report).unwrap_or_default() {
            let Some(entry) = subject_attributes(&key.text, entry, &attributes, report) else { continue };
            attributes.push(entry);
        }
    }
    if let Some(node) = fields.optional("additionalValidation")
        && choice(node, "additionalValidation", &[("None", false), ("AzureDeviceRegistry", true)], report) == Some(true)
    {
        refuse(&node.place, "additionalValidation AzureDeviceRegistry", report);
    }
    fields.finish(report);
    Some(X509 { place: place.clone(), trusted_client_ca_cert, attributes })
}

fn subject_attributes(
    label: &str,
    node: &Node,
    earlier: &[SubjectAttributes],
    report: &mut Report,
) -> Option<SubjectAttributes> {
    let mut fields = Fields::of(node, "an entry of authorizationAttributes", report)?;
    let subject_node = fields.required("subject", report);
    let subject = subject_node.and_then(|node| subject(node, report));
    let attributes = fields.required("attributes", report).and_then(|node| attributes(node, report));
    fields.finish(report);
    let (subject, subject_node) = (subject?, subject_node?);
    if let Some(same) = earlier.iter().find(|entry| entry.subject.is_same_as(&subject)) {
        let message =
            format!("the entry {} has this subject too: only one of them could ever apply", quoted(&same.label));
        report.error(&subject_node.place, message);
    }
    Some(SubjectAttributes { label: label.to_owned(), subject, attributes: attributes? })
}

fn attributes(node: &Node, report: &mut Report) -> Option<Vec<(String, String)>> {
    let pairs: Vec<(String, String)> = text_map(node, "attributes", report)?
        .into_iter()
        .map(|(key, value, _)| (key.text.clone(), value.to_owned()))
        .collect();
    check_attributes_fit(&pairs, &node.place, report);
    Some(pairs)
}

/// Whether these attributes fit the table that a client's identity has for them.
pub(super) fn check_attributes_fit(pairs: &[(String, String)], place: &Place, report: &mut Report) {
    let bytes: usize = pairs.iter().map(|(name, value)| 4 + name.len() + value.len()).sum();
    if pairs.len() > ATTRIBUTES_MAX {
        report.error(place, format!("{} attributes, and a client holds {ATTRIBUTES_MAX}", pairs.len()));
    } else if bytes > ATTRIBUTE_BYTES_MAX {
        let rule = "4 bytes for each pair included";
        report.error(
            place,
            format!("the attributes take {bytes} bytes, {rule}, and a client holds {ATTRIBUTE_BYTES_MAX}"),
        );
    }
    if pairs.iter().any(|(name, _)| name.is_empty()) {
        report.error(place, "an attribute needs a name");
    }
}

/// A subject, with a mistake reported at its place inside the text.
fn subject(node: &Node, report: &mut Report) -> Option<DistinguishedName> {
    let given = full_text(node, "subject", report)?;
    match DistinguishedName::parse(given) {
        Ok(name) => Some(name),
        Err(SyntaxError { offset, reason }) => {
            let character = given.get(..offset).unwrap_or(given).chars().count() + 1;
            let message = format!("{} is no distinguished name: {reason}, at character {character}", quoted(given));
            report.error(&node.place_within(offset), message);
            None
        }
    }
}

fn custom(node: &Node, report: &mut Report) {
    let Some(mut fields) = Fields::of(node, "customSettings", report) else { return };
    if let Some(node) = fields.required("endpoint", report)
        && let Some(endpoint) = text(node, "endpoint", report)
        && !endpoint.starts_with("https://")
    {
        report.error(&node.place, format!("endpoint must begin with https://, and this is {}", quoted(endpoint)));
    }
    if let Some(node) = fields.optional("caCertConfigMap") {
        full_text(node, "caCertConfigMap", report);
    }
    if let Some(node) = fields.optional("headers") {
        text_map(node, "headers", report);
    }
    if let Some(node) = fields.optional("auth")
        && let Some(mut auth) = Fields::of(node, "customSettings.auth", report)
    {
        if let Some(node) = auth.required("x509", report)
            && let Some(mut x509) = Fields::of(node, "customSettings.auth.x509", report)
        {
            if let Some(node) = x509.required("secretRef", report) {
                secret_reference(node, report);
            }
            x509.finish(report);
        }
        auth.finish(report);
    }
    fields.finish(report);
}

fn service_account_token(node: &Node, report: &mut Report) {
    let Some(mut fields) = Fields::of(node, "serviceAccountTokenSettings", report) else { return };
    if let Some(node) = fields.required("audiences", report)
        && let Some(audiences) = texts(node, "audiences", report)
        && audiences.is_empty()
    {
        report.error(&node.place, "audiences is empty: no token could ever match");
    }
    fields.finish(report);
}
