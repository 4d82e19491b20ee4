//! `kind: BrokerListener`: ports, their TLS, and the policies they refer to.

use super::blob::Protocol;
use super::certificate::{self, CertificateSpec};
use super::diagnostic::{Place, Report, quoted};
use super::name::is_object_name;
use super::source::Node;
use super::source::walk::{Fields, choice, full_text, integer, sequence, text};

/// `serviceType`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServiceType {
    /// Loopback on a gateway.
    ClusterIp,
    /// All addresses.
    LoadBalancer,
    /// All addresses, on `nodePort`.
    NodePort,
}

impl ServiceType {
    /// The vendor's name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ClusterIp => "ClusterIp",
            Self::LoadBalancer => "LoadBalancer",
            Self::NodePort => "NodePort",
        }
    }
}

/// A name in a file that refers to another resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// The name.
    pub name: String,
    /// Where it stands.
    pub place: Place,
}

/// `spec` of a BrokerListener.
#[derive(Clone, Debug)]
pub struct Listener {
    /// `brokerRef`.
    pub broker: Option<Reference>,
    /// `serviceType`.
    pub service_type: ServiceType,
    /// `serviceName`.
    pub service_name: Option<Reference>,
    /// `ports`.
    pub ports: Vec<Port>,
}

/// One element of `ports`.
#[derive(Clone, Debug)]
pub struct Port {
    /// Where it stands.
    pub place: Place,
    /// The TCP port that is bound.
    pub number: u16,
    /// What is spoken on it.
    pub protocol: Protocol,
    /// Where that number stands.
    pub number_place: Place,
    /// `authenticationRef`.
    pub authentication: Option<Reference>,
    /// `authorizationRef`.
    pub authorization: Option<Reference>,
    /// `tls`, if it is valid.
    pub tls: Option<Tls>,
    /// Whether there is a `tls`, valid or not.
    pub has_tls: bool,
}

/// `ports[].tls`.
#[derive(Clone, Debug)]
pub enum Tls {
    /// `manual.secretRef`.
    Manual(Reference),
    /// `certManagerCertificateSpec`.
    Automatic(CertificateSpec),
}

/// Reads a `spec`.
pub fn read(spec: &Node, report: &mut Report) -> Option<Listener> {
    const SERVICE_TYPES: [(&str, ServiceType); 3] = [
        ("ClusterIp", ServiceType::ClusterIp),
        ("LoadBalancer", ServiceType::LoadBalancer),
        ("NodePort", ServiceType::NodePort),
    ];
    let mut fields = Fields::of(spec, "the spec of BrokerListener", report)?;
    let broker = reference(&mut fields, "brokerRef", report);
    let service_type = match fields.optional("serviceType") {
        Some(node) => choice(node, "serviceType", &SERVICE_TYPES, report),
        None => Some(ServiceType::ClusterIp),
    };
    let service_name =
        fields.optional("serviceName").filter(|node| node.value != super::source::Value::Text(String::new())).and_then(
            |node| Some(Reference { name: text(node, "serviceName", report)?.to_owned(), place: node.place.clone() }),
        );
    let elements = fields.required("ports", report).and_then(|node| {
        let elements = sequence(node, "ports", report)?;
        if elements.is_empty() {
            report.error(&node.place, "ports is empty: a listener needs at least one");
        }
        Some(elements)
    });
    let bound = service_type.unwrap_or(ServiceType::LoadBalancer);
    let ports = elements.unwrap_or_default().iter().filter_map(|node| port(node, bound, report)).collect();
    fields.finish(report);
    Some(Listener { broker, service_type: bound, service_name, ports })
}

/// An optional name of another resource.
pub(super) fn reference(fields: &mut Fields<'_>, name: &'static str, report: &mut Report) -> Option<Reference> {
    let node = fields.optional(name)?;
    let name = full_text(node, name, report)?;
    Some(Reference { name: name.to_owned(), place: node.place.clone() })
}

fn port(node: &Node, service_type: ServiceType, report: &mut Report) -> Option<Port> {
    let mut fields = Fields::of(node, "ports[]", report)?;
    let number_of = |node: &Node, what: &str, report: &mut Report| {
        let number = integer(node, what, 1..=65_535, report).and_then(|number| u16::try_from(number).ok())?;
        Some((number, node.place.clone()))
    };
    let port = fields.required("port", report).and_then(|node| number_of(node, "port", report));
    let node_port_node = fields.optional("nodePort");
    let node_port = node_port_node.and_then(|node| number_of(node, "nodePort", report));
    let number = match (service_type, node_port_node) {
        (ServiceType::NodePort, Some(_)) => node_port,
        (ServiceType::NodePort, None) => {
            report.error(
                &node.place,
                "a port of a NodePort listener needs nodePort: no cluster chooses one on a gateway",
            );
            None
        }
        (ServiceType::ClusterIp | ServiceType::LoadBalancer, Some(node)) => {
            report.note(&node.place, format!("nodePort has no effect on a {} listener", service_type.name()));
            port
        }
        (ServiceType::ClusterIp | ServiceType::LoadBalancer, None) => port,
    };
    let protocols = [("Mqtt", Protocol::Mqtt), ("WebSockets", Protocol::WebSockets)];
    let protocol = fields.optional("protocol").and_then(|node| choice(node, "protocol", &protocols, report));
    let protocol = protocol.unwrap_or(Protocol::Mqtt);
    let authentication = reference(&mut fields, "authenticationRef", report);
    let authorization = reference(&mut fields, "authorizationRef", report);
    if let (None, Some(authorization)) = (&authentication, &authorization) {
        let message = "authorizationRef without authenticationRef: nobody has proved an identity that rules could judge; add authenticationRef";
        report.error(&authorization.place, message);
    }
    let tls_node = fields.optional("tls");
    let tls = tls_node.and_then(|node| tls(node, number.as_ref().map(|(number, _)| *number), report));
    let place = fields.place().clone();
    fields.finish(report);
    let (number, number_place) = number?;
    Some(Port {
        place,
        number,
        number_place,
        protocol,
        authentication,
        authorization,
        tls,
        has_tls: tls_node.is_some(),
    })
}

/// Reads `tls` of the port `number`.
fn tls(node: &Node, number: Option<u16>, report: &mut Report) -> Option<Tls> {
    let mut fields = Fields::of(node, "tls", report)?;
    let mode = fields.required("mode", report);
    let automatic = mode.and_then(|node| choice(node, "tls.mode", &[("Manual", false), ("Automatic", true)], report));
    let manual_node = fields.optional("manual");
    let spec_node = fields.optional("certManagerCertificateSpec");
    fields.finish(report);
    let manual = manual_node.and_then(|node| {
        let mut fields = Fields::of(node, "tls.manual", report)?;
        let secret = fields.required("secretRef", report).and_then(|node| secret_reference(node, report));
        fields.finish(report);
        secret
    });
    let spec = spec_node.and_then(|node| certificate::read(node, number, report));
    if automatic? {
        if let Some(node) = manual_node {
            report.error(&node.place, "tls.manual belongs to mode Manual, and the mode is Automatic");
        }
        if spec_node.is_none() {
            report.error(&node.place, "the field \"certManagerCertificateSpec\" of tls is missing for mode Automatic");
        }
        return spec.map(Tls::Automatic);
    }
    if let Some(node) = spec_node {
        report.error(&node.place, "certManagerCertificateSpec belongs to mode Automatic, and the mode is Manual");
    }
    if manual_node.is_none() {
        report.error(&node.place, "the field \"manual\" of tls is missing for mode Manual");
    }
    manual.map(Tls::Manual)
}

/// The name of a Secret, which is also the name of a folder.
pub(super) fn secret_reference(node: &Node, report: &mut Report) -> Option<Reference> {
    let name = full_text(node, "secretRef", report)?;
    if !is_object_name(name) {
        report.error(&node.place, format!("{} cannot be the name of a Secret", quoted(name)));
        return None;
    }
    Some(Reference { name: name.to_owned(), place: node.place.clone() })
}
