//! `certManagerCertificateSpec`: certificates that the gateway issues to itself, for `tls.mode: Automatic`.
//!
//! In goes what the vendor's cluster would hand to cert-manager; out comes an [`AutomaticCertificate`]. The folder of the
//! issuer and the certificate itself are matters of the running broker.

use super::blob::{AutomaticCertificate, KeyAlgorithm, KeyRotation};
use super::diagnostic::{Report, quoted};
use super::listener::Reference;
use super::name::is_object_name;
use super::source::Node;
use super::source::walk::{Fields, choice, exact_choice, full_text, texts};
use std::net::IpAddr;

/// `duration` where it is absent: 720 h.
const DURATION_SECONDS: u64 = 720 * 3_600;
/// `renewBefore` where it is absent: 240 h.
const RENEW_BEFORE_SECONDS: u64 = 240 * 3_600;
/// Shortest `duration`: 1 h, as cert-manager has it.
const DURATION_SECONDS_MIN: u64 = 3_600;
/// Longest `duration`: 100 years.
const DURATION_SECONDS_MAX: u64 = 876_000 * 3_600;
/// Shortest `renewBefore`: 5 min, as cert-manager has it.
const RENEW_BEFORE_SECONDS_MIN: u64 = 300;
/// Most names of one certificate.
const NAMES_MAX: usize = 64;

/// A `certManagerCertificateSpec`, and where the name stands under which the certificate is kept.
#[derive(Clone, Debug)]
pub struct CertificateSpec {
    /// What the blob holds.
    pub certificate: AutomaticCertificate,
    /// `secretName`, or where it is absent the place of the whole.
    pub secret: Reference,
}

/// Reads a `certManagerCertificateSpec`. `port` is the number in the default of `secretName`.
pub(super) fn read(node: &Node, port: Option<u16>, report: &mut Report) -> Option<CertificateSpec> {
    let errors_before = report.errors();
    let mut fields = Fields::of(node, "certManagerCertificateSpec", report)?;
    let issuer = fields.required("issuerRef", report).and_then(|node| issuer(node, report));
    let key = fields.optional("privateKey");
    let key = key.map_or(Some((Algorithm::Ec256, KeyRotation::Always)), |node| private_key(node, report));
    let algorithm = key.and_then(|(algorithm, _)| supported(algorithm, algorithm_node(node), report));
    let duration_node = fields.optional("duration");
    let renew_before_node = fields.optional("renewBefore");
    let seconds = |node: Option<&Node>, what, default, report: &mut Report| match node {
        Some(node) => duration(node, what, report),
        None => Some(default),
    };
    let duration_seconds = seconds(duration_node, "duration", DURATION_SECONDS, report);
    let renew_before_seconds = seconds(renew_before_node, "renewBefore", RENEW_BEFORE_SECONDS, report);
    if let (Some(duration), Some(renew_before)) = (duration_seconds, renew_before_seconds)
        && let Err(message) = check_times(duration, renew_before)
    {
        let place = renew_before_node.or(duration_node).map_or(&node.place, |node| &node.place);
        report.error(place, message);
    }
    let secret_node = fields.optional("secretName");
    let secret_name = match (secret_node, &issuer, port) {
        (Some(node), ..) => full_text(node, "secretName", report).map(str::to_owned),
        (None, Some(issuer), Some(port)) => Some(format!("{issuer}-{port}")),
        (None, ..) => None,
    };
    let secret_place = secret_node.map_or(&node.place, |node| &node.place);
    if let Some(name) = secret_name.as_deref().filter(|name| !is_object_name(name)) {
        report.error(secret_place, format!("{} cannot be the name of a Secret", quoted(name)));
    }
    let (dns_names, ip_addresses) = fields.optional("san").map(|node| names(node, report)).unwrap_or_default();
    fields.finish(report);
    if report.errors() > errors_before {
        return None;
    }
    let secret_name = secret_name?;
    Some(CertificateSpec {
        secret: Reference { name: secret_name.clone(), place: secret_place.clone() },
        certificate: AutomaticCertificate {
            issuer: issuer?,
            algorithm: algorithm?,
            rotation: key?.1,
            duration_seconds: duration_seconds?,
            renew_before_seconds: renew_before_seconds?,
            secret_name,
            dns_names,
            ip_addresses,
        },
    })
}

/// The name of the issuer, which is also the name of a folder.
fn issuer(node: &Node, report: &mut Report) -> Option<String> {
    let mut fields = Fields::of(node, "issuerRef", report)?;
    let name_node = fields.required("name", report);
    let name = name_node.and_then(|node| full_text(node, "issuerRef.name", report));
    if let (Some(node), Some(name)) = (name_node, name)
        && !is_object_name(name)
    {
        report.error(&node.place, format!("{} cannot be the name of an issuer", quoted(name)));
    }
    // Both kinds are the same folder: a gateway has no namespaces.
    if let Some(node) = fields.required("kind", report) {
        exact_choice(node, "issuerRef.kind", &["Issuer", "ClusterIssuer"], report);
    }
    if let Some(node) = fields.optional("group")
        && let Some(group) = full_text(node, "issuerRef.group", report)
        && group != "cert-manager.io"
    {
        let reason = "a gateway issues from its folder of issuers, and asks no external one";
        report.error(
            &node.place,
            format!("issuerRef.group must be cert-manager.io, and this is {}: {reason}", quoted(group)),
        );
    }
    fields.finish(report);
    name.map(str::to_owned)
}

/// Whether a certificate can live and be renewed this way.
///
/// # Errors
/// What is wrong, for the operator.
pub fn check_times(duration_seconds: u64, renew_before_seconds: u64) -> Result<(), &'static str> {
    if !(DURATION_SECONDS_MIN..=DURATION_SECONDS_MAX).contains(&duration_seconds) {
        return Err("duration must be 1h to 876000h");
    }
    if renew_before_seconds < RENEW_BEFORE_SECONDS_MIN {
        return Err("renewBefore must be at least 5m");
    }
    if renew_before_seconds >= duration_seconds {
        return Err("renewBefore (240h where it is absent) must be shorter than duration (720h where it is absent)");
    }
    Ok(())
}

/// `privateKey.algorithm`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Algorithm {
    Ec256,
    Ec384,
    Ec521,
    Ed25519,
    Rsa,
}

/// Reads the `privateKey` of a certificate: every algorithm of the vendor, also those that cannot be used here.
pub(super) fn private_key(node: &Node, report: &mut Report) -> Option<(Algorithm, KeyRotation)> {
    const ALGORITHMS: [(&str, Algorithm); 7] = [
        ("Ec256", Algorithm::Ec256),
        ("Ec384", Algorithm::Ec384),
        ("Ec521", Algorithm::Ec521),
        ("Ed25519", Algorithm::Ed25519),
        ("Rsa2048", Algorithm::Rsa),
        ("Rsa4096", Algorithm::Rsa),
        ("Rsa8192", Algorithm::Rsa),
    ];
    const ROTATIONS: [(&str, KeyRotation); 2] = [("Always", KeyRotation::Always), ("Never", KeyRotation::Never)];
    let mut fields = Fields::of(node, "privateKey", report)?;
    let algorithm = fields.required("algorithm", report);
    let algorithm = algorithm.and_then(|node| choice(node, "privateKey.algorithm", &ALGORITHMS, report));
    let rotation = fields.required("rotationPolicy", report);
    let rotation = rotation.and_then(|node| choice(node, "privateKey.rotationPolicy", &ROTATIONS, report));
    fields.finish(report);
    Some((algorithm?, rotation?))
}

/// The node of `privateKey.algorithm`, for messages.
fn algorithm_node(spec: &Node) -> &Node {
    spec.entry("privateKey").and_then(|key| key.entry("algorithm")).unwrap_or(spec)
}

fn supported(algorithm: Algorithm, node: &Node, report: &mut Report) -> Option<KeyAlgorithm> {
    let reason = match algorithm {
        Algorithm::Ec256 => return Some(KeyAlgorithm::Ec256),
        Algorithm::Ec384 => return Some(KeyAlgorithm::Ec384),
        Algorithm::Ed25519 => return Some(KeyAlgorithm::Ed25519),
        Algorithm::Ec521 => "the TLS stack cannot sign with P-521",
        Algorithm::Rsa => "signing with RSA is not constant time in the TLS stack (RUSTSEC-2023-0071)",
    };
    report.error(&node.place, format!("this privateKey.algorithm is refused: {reason}; use Ec256, Ec384 or Ed25519"));
    None
}

/// A duration in Go's form with the units that the vendor allows: `720h`, `1h30m`, `0.5h`. In seconds, rounded down.
pub(super) fn duration(node: &Node, what: &str, report: &mut Report) -> Option<u64> {
    let given = full_text(node, what, report)?;
    let seconds = seconds_of(given);
    if seconds.is_none() {
        let given = quoted(given);
        let message = format!("{what} must be a duration in h, m or s such as 240h, and this is {given}");
        report.error(&node.place, message);
    }
    seconds
}

fn seconds_of(text: &str) -> Option<u64> {
    let mut milliseconds = 0_u64;
    let mut rest = text;
    while !rest.is_empty() {
        let (number, tail) = rest.split_at_checked(rest.find(['h', 'm', 's'])?)?;
        let unit = match tail.as_bytes().first()? {
            b'h' => 3_600_000,
            b'm' => 60_000,
            _ => 1_000,
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        if whole.len() + fraction.len() == 0 || fraction.len() > 6 || !digits(whole) || !digits(fraction) {
            return None;
        }
        let value = |digits: &str| if digits.is_empty() { Some(0) } else { digits.parse::<u64>().ok() };
        let of_fraction = value(fraction)? * unit / 10_u64.checked_pow(u32::try_from(fraction.len()).ok()?)?;
        milliseconds = milliseconds.checked_add(value(whole)?.checked_mul(unit)?)?.checked_add(of_fraction)?;
        rest = tail.get(1..)?;
    }
    Some(milliseconds / 1_000)
}

/// Reads `san`: DNS names, and IP addresses in their usual spelling.
fn names(node: &Node, report: &mut Report) -> (Vec<String>, Vec<String>) {
    let (mut dns_names, mut ip_addresses): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
    let Some(mut fields) = Fields::of(node, "san", report) else { return Default::default() };
    let add = |names: &mut Vec<String>, name: String, node: &Node, report: &mut Report| {
        if names.contains(&name) {
            report.error(&node.place, format!("the name {} stands here twice", quoted(&name)));
        } else {
            names.push(name);
        }
    };
    if let Some(node) = fields.optional("dns") {
        for (given, node) in texts(node, "san.dns", report).unwrap_or_default() {
            if given.parse::<IpAddr>().is_ok() {
                report.error(&node.place, format!("{} is an IP address: it belongs into san.ip", quoted(given)));
            } else if is_certificate_name(given) {
                add(&mut dns_names, given.to_owned(), node, report);
            } else {
                report.error(&node.place, format!("{} is no DNS name", quoted(given)));
            }
        }
    }
    if let Some(node) = fields.optional("ip") {
        for (given, node) in texts(node, "san.ip", report).unwrap_or_default() {
            match given.parse::<IpAddr>() {
                Ok(address) => add(&mut ip_addresses, address.to_string(), node, report),
                Err(_) => report.error(&node.place, format!("{} is no IP address", quoted(given))),
            }
        }
    }
    fields.finish(report);
    if dns_names.len() + ip_addresses.len() > NAMES_MAX {
        report.error(&node.place, format!("san has more than {NAMES_MAX} names"));
    }
    (dns_names, ip_addresses)
}

/// Whether `name` is a host name of RFC 1123 §2.1: labels of letters, digits and inner hyphens, at most 253 bytes, the last
/// label not a number.
#[must_use]
pub fn is_dns_name(name: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    let is_number = |label: &str| label.bytes().all(|byte| byte.is_ascii_digit());
    name.len() <= 253 && name.split('.').all(is_label) && !name.rsplit('.').next().is_some_and(is_number)
}

/// Whether `name` may stand in a certificate: a DNS name whose first label may be `*` (RFC 6125 §6.4.3).
#[must_use]
pub fn is_certificate_name(name: &str) -> bool {
    is_dns_name(name.strip_prefix("*.").unwrap_or(name)) && name.len() <= 253
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_those_of_go() {
        for (text, seconds) in [
            ("720h", 2_592_000),
            ("1h30m", 5_400),
            ("45s", 45),
            ("1.5h", 5_400),
            (".5m", 30),
            ("0.9s", 0),
            ("1m1m", 120),
        ] {
            assert_eq!(seconds_of(text), Some(seconds), "{text}");
        }
        for text in
            ["10d", "10", "h", ".h", "1..5h", "-1h", "+1h", "1 h", "1h ", "1e3s", "99999999999999999999h", "1ms"]
        {
            assert_eq!(seconds_of(text), None, "{text}");
        }
        assert_eq!(seconds_of("18446744073709551615h"), None, "it does not wrap");
    }

    #[test]
    fn names_of_certificates_may_begin_with_a_wildcard() {
        let long = format!("{}.{}.{}.{}", "a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(61));
        for name in ["a", "iotmq.example.com", "*.example.com", "1.example.com", "A-b.c", long.as_str()] {
            assert!(is_certificate_name(name), "{name}");
        }
        let label = "a".repeat(64);
        for name in [
            "",
            "*",
            "*.",
            "a.*.b",
            "**.a",
            "*a.b",
            ".a",
            "a.",
            "a..b",
            "a_b",
            "-a",
            "a-",
            "1.2.3.4",
            "\u{e4}.de",
            label.as_str(),
        ] {
            assert!(!is_certificate_name(name), "{name}");
        }
        assert!(!is_certificate_name(&format!("*.{long}")), "254 bytes and more");
    }
}
