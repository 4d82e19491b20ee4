//! `kind: BrokerAuthentication`: the ordered chain of methods.

use super::blob::SubjectAttributes;
use super::diagnostic::{Place, Report, quoted};
use super::https_server::{self, Server};
use super::listener::{Reference, reference, secret_reference};
use super::source::Node;
use super::source::walk::{Fields, choice, distinguished_name, full_text, mapping, sequence, text_map};
use crate::limits::{ATTRIBUTE_BYTES_MAX, ATTRIBUTES_MAX};

/// The ConfigMap that `trustedClientCaCert` means where it is absent.
const DEFAULT_TRUST: &str = "client-ca";

/// `spec` of a BrokerAuthentication.
#[derive(Clone)]
pub struct Authentication {
    /// `authenticationMethods`, in order.
    pub methods: Vec<Method>,
}

impl Authentication {
    /// The method of this kind that stands first.
    pub fn first(&self, is_kind: impl Fn(&Settings) -> bool) -> Option<&Method> {
        self.methods.iter().find(|method| is_kind(&method.settings))
    }
}

/// One element of `authenticationMethods`.
#[derive(Clone)]
pub struct Method {
    /// Where it stands.
    pub place: Place,
    /// What it does.
    pub settings: Settings,
}

/// The settings of a method.
#[derive(Clone)]
pub enum Settings {
    /// `x509Settings`.
    X509 {
        /// `trustedClientCaCert`.
        trusted_client_ca_cert: Reference,
        /// `authorizationAttributes`.
        attributes: Vec<SubjectAttributes>,
    },
    /// `serviceAccountTokenSettings`.
    ServiceAccountToken {
        /// `audiences`.
        audiences: Vec<String>,
    },
    /// `customSettings`.
    Custom(Server),
    /// `usernamePasswordSettings`, our own.
    UsernamePassword {
        /// `secretRef`.
        secret: Reference,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MethodKind {
    Custom,
    ServiceAccountToken,
    UsernamePassword,
    X509,
}

const METHODS: [(&str, MethodKind); 4] = [
    ("X509", MethodKind::X509),
    ("Custom", MethodKind::Custom),
    ("ServiceAccountToken", MethodKind::ServiceAccountToken),
    ("UsernamePassword", MethodKind::UsernamePassword),
];
const SETTINGS: [(&str, MethodKind); 4] = [
    ("x509Settings", MethodKind::X509),
    ("customSettings", MethodKind::Custom),
    ("serviceAccountTokenSettings", MethodKind::ServiceAccountToken),
    ("usernamePasswordSettings", MethodKind::UsernamePassword),
];

impl MethodKind {
    fn name(self) -> &'static str {
        METHODS.iter().find(|(_, kind)| *kind == self).map_or("", |(name, _)| *name)
    }

    fn settings_name(self) -> &'static str {
        SETTINGS.iter().find(|(_, kind)| *kind == self).map_or("", |(name, _)| *name)
    }
}

impl Settings {
    fn kind(&self) -> MethodKind {
        match self {
            Self::X509 { .. } => MethodKind::X509,
            Self::ServiceAccountToken { .. } => MethodKind::ServiceAccountToken,
            Self::Custom(_) => MethodKind::Custom,
            Self::UsernamePassword { .. } => MethodKind::UsernamePassword,
        }
    }
}

/// Reads a `spec`.
pub fn read(spec: &Node, report: &mut Report) -> Option<Authentication> {
    let mut fields = Fields::of(spec, "the spec of BrokerAuthentication", report)?;
    let mut methods: Vec<Method> = Vec::new();
    if let Some(node) = fields.required("authenticationMethods", report)
        && let Some(elements) = sequence(node, "authenticationMethods", report)
    {
        if elements.is_empty() {
            report.error(&node.place, "authenticationMethods is empty: no client could ever connect");
        }
        methods = elements.iter().filter_map(|node| method(node, report)).collect();
        note_order(&methods, report);
    }
    fields.finish(report);
    Some(Authentication { methods })
}

/// Notes methods whose turn comes rarely or never: the first one that a credential is for decides on it.
fn note_order(methods: &[Method], report: &mut Report) {
    for (index, method) in methods.iter().enumerate() {
        let kind = method.settings.kind();
        let has_earlier = methods.iter().take(index).any(|earlier| earlier.settings.kind() == kind);
        let is_last = index + 1 == methods.len();
        let message = match kind {
            MethodKind::Custom if !is_last => {
                "the methods after Custom are consulted only while its server cannot be reached: whenever it answers, its answer is final"
            }
            MethodKind::X509 if has_earlier => {
                "a second X509 method is never consulted: the first one decides on every certificate"
            }
            MethodKind::ServiceAccountToken if has_earlier => {
                "a second ServiceAccountToken method is never consulted: the first one decides on every token"
            }
            MethodKind::UsernamePassword if has_earlier => {
                "a second UsernamePassword method is never consulted: the first one decides on every password"
            }
            MethodKind::Custom | MethodKind::X509 | MethodKind::ServiceAccountToken | MethodKind::UsernamePassword => {
                continue;
            }
        };
        report.note(&method.place, message);
    }
}

/// Reads the body of `x509Settings` that stands alone in a file.
pub fn read_bare(body: &Node, report: &mut Report) -> Option<Authentication> {
    let settings = x509(body, report)?;
    Some(Authentication { methods: vec![Method { place: body.place.clone(), settings }] })
}

fn method(node: &Node, report: &mut Report) -> Option<Method> {
    let mut fields = Fields::of(node, "authenticationMethods[]", report)?;
    let method_node = fields.required("method", report);
    let kind = method_node.and_then(|node| choice(node, "method", &METHODS, report));
    let mut own = None;
    for (name, owner) in SETTINGS {
        let Some(settings) = fields.optional(name) else { continue };
        match kind {
            Some(kind) if kind == owner => own = Some(settings),
            Some(kind) => {
                report.error(&settings.place, format!("{name} does not belong to method {}", kind.name()));
            }
            None => {}
        }
    }
    let place = fields.place();
    fields.finish(report);
    let settings = match (kind?, own) {
        (MethodKind::X509, Some(node)) => x509(node, report),
        (MethodKind::X509, None) => Some(Settings::X509 {
            trusted_client_ca_cert: Reference { name: DEFAULT_TRUST.to_owned(), place: place.clone() },
            attributes: Vec::new(),
        }),
        (MethodKind::Custom, Some(node)) => custom(node, report),
        (MethodKind::ServiceAccountToken, Some(node)) => service_account_token(node, report),
        (MethodKind::UsernamePassword, Some(node)) => username_password(node, report),
        (kind, None) => {
            let (settings, method) = (kind.settings_name(), kind.name());
            report.error(place, format!("the field \"{settings}\" is missing for method {method}"));
            None
        }
    };
    Some(Method { place: place.clone(), settings: settings? })
}

fn x509(node: &Node, report: &mut Report) -> Option<Settings> {
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
        let message = "additionalValidation AzureDeviceRegistry is refused: a gateway cannot ask the registry in the cloud; the deny list in the folder paths.revocation of the Gateway keeps clients out instead";
        report.error(&node.place, message);
    }
    fields.finish(report);
    Some(Settings::X509 { trusted_client_ca_cert, attributes })
}

fn subject_attributes(
    label: &str,
    node: &Node,
    earlier: &[SubjectAttributes],
    report: &mut Report,
) -> Option<SubjectAttributes> {
    let mut fields = Fields::of(node, "an entry of authorizationAttributes", report)?;
    let subject_node = fields.required("subject", report);
    let subject = subject_node.and_then(|node| distinguished_name(node, "subject", report));
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

fn custom(node: &Node, report: &mut Report) -> Option<Settings> {
    let mut fields = Fields::of(node, "customSettings", report)?;
    let server = https_server::read(&mut fields, true, report);
    fields.finish(report);
    Some(Settings::Custom(server?))
}

fn service_account_token(node: &Node, report: &mut Report) -> Option<Settings> {
    let mut fields = Fields::of(node, "serviceAccountTokenSettings", report)?;
    let audiences_node = fields.required("audiences", report);
    fields.finish(report);
    let mut audiences: Vec<String> = Vec::new();
    let elements = sequence(audiences_node?, "audiences", report)?;
    if elements.is_empty() {
        report.error(&audiences_node?.place, "audiences is empty: no token could ever match");
    }
    for node in elements {
        let Some(audience) = full_text(node, "an element of audiences", report) else { continue };
        if audiences.iter().any(|earlier| earlier == audience) {
            report.error(&node.place, format!("the audience {} stands here twice", quoted(audience)));
        }
        audiences.push(audience.to_owned());
    }
    Some(Settings::ServiceAccountToken { audiences })
}

fn username_password(node: &Node, report: &mut Report) -> Option<Settings> {
    let mut fields = Fields::of(node, "usernamePasswordSettings", report)?;
    // The name that the field had in the preview, when the vendor still had the method.
    let secret_node = match fields.optional("secretName") {
        Some(node) if fields.optional("secretRef").is_none() => {
            report.note(&node.place, "secretName is the preview's name of secretRef, and taken for it");
            Some(node)
        }
        Some(node) => {
            report.error(&node.place, "secretName and secretRef are the same: leave secretName out");
            None
        }
        None => fields.required("secretRef", report),
    };
    fields.finish(report);
    Some(Settings::UsernamePassword { secret: secret_reference(secret_node?, report)? })
}
