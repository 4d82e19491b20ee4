//! Servers that the broker asks over HTTPS: the custom authentication server, and the API server of a cluster.
//!
//! In go the fields `endpoint`, `caCertConfigMap`, `auth` and `headers`; out comes a [`Server`] whose references are yet to
//! be resolved. The two checks of texts are those that [`super::verify`] applies to a blob. Values of header fields may be
//! credentials and never reach a message, nor does an endpoint with a user name in it. Nothing is resolved or asked here.

use super::certificate::is_dns_name;
use super::diagnostic::{Report, quoted};
use super::listener::{Reference, reference, secret_reference};
use super::source::walk::{Fields, mapping, text};
use super::source::{Node, Value};
use std::net::{Ipv4Addr, Ipv6Addr};

/// Longest endpoint, bytes.
const ENDPOINT_BYTES_MAX: usize = 1_024;
/// Most header fields of one server.
const HEADERS_MAX: usize = 16;
/// Bytes that the names and values of one server's header fields may take together.
const HEADER_BYTES_MAX: usize = 4_096;
/// Header fields that the broker writes itself, or that would change how the request is framed.
const RESERVED_HEADERS: [&str; 9] =
    ["host", "content-length", "content-type", "connection", "transfer-encoding", "te", "trailer", "upgrade", "expect"];

/// A server as the source describes it.
#[derive(Clone)]
pub struct Server {
    /// `endpoint`.
    pub endpoint: String,
    /// `caCertConfigMap`; `None`: the public roots of the system.
    pub authorities: Option<Reference>,
    /// `auth.x509.secretRef`.
    pub client_secret: Option<Reference>,
    /// `headers`.
    pub headers: Vec<(String, String)>,
}

/// Reads the fields of a server out of `fields`, which are those of `what`; the caller finishes them.
pub(super) fn read(fields: &mut Fields<'_>, has_headers: bool, report: &mut Report) -> Option<Server> {
    let endpoint = fields.required("endpoint", report).and_then(|node| endpoint(node, report));
    let authorities = reference(fields, "caCertConfigMap", report);
    let client_secret = fields.optional("auth").and_then(|node| client_secret(node, report));
    let mut headers = Vec::new();
    if has_headers && let Some(node) = fields.optional("headers") {
        headers = read_headers(node, report);
    }
    Some(Server { endpoint: endpoint?, authorities, client_secret, headers })
}

fn client_secret(node: &Node, report: &mut Report) -> Option<Reference> {
    let mut fields = Fields::of(node, "auth", report)?;
    let x509 = fields.required("x509", report);
    fields.finish(report);
    let mut fields = Fields::of(x509?, "auth.x509", report)?;
    let secret = fields.required("secretRef", report).and_then(|node| secret_reference(node, report));
    // The vendor's documents still show it; their schema has dropped it.
    if let Some(node) = fields.optional("namespace") {
        text(node, "auth.x509.namespace", report);
        report.note(&node.place, "auth.x509.namespace has no effect: Secrets are looked up by name alone");
    }
    fields.finish(report);
    secret
}

fn endpoint(node: &Node, report: &mut Report) -> Option<String> {
    let given = text(node, "endpoint", report)?;
    match check_endpoint(given) {
        Ok(()) => Some(given.to_owned()),
        Err((offset, reason)) if given.contains('@') => {
            report.error(&node.place_within(offset), format!("endpoint is not usable: {reason}"));
            None
        }
        Err((offset, reason)) => {
            report.error(&node.place_within(offset), format!("endpoint {} is not usable: {reason}", quoted(given)));
            None
        }
    }
}

/// Whether `endpoint` is `https://host[:port][/path]`, with a DNS name or an IP address for its host (RFC 3986).
///
/// # Errors
/// The byte at which it stops being one, and why.
pub fn check_endpoint(endpoint: &str) -> Result<(), (usize, &'static str)> {
    const SCHEME: &str = "https://";
    let Some(rest) = endpoint.strip_prefix(SCHEME) else { return Err((0, "it must begin with https://")) };
    if endpoint.len() > ENDPOINT_BYTES_MAX {
        return Err((ENDPOINT_BYTES_MAX, "it is longer than 1024 bytes"));
    }
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let authority_at = SCHEME.len();
    if authority.contains('@') {
        return Err((authority_at, "a user name does not belong into it; use headers or a client certificate"));
    }
    let (host, port) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) => {
            if address.parse::<Ipv6Addr>().is_err() {
                return Err((authority_at, "what stands in brackets is no IPv6 address"));
            }
            (address.len() + 2, port)
        }
        None => {
            let (host, port) = authority.split_at(authority.find(':').unwrap_or(authority.len()));
            if host.parse::<Ipv4Addr>().is_err() && !is_dns_name(host) {
                return Err((authority_at, "its host is neither a DNS name nor an IP address"));
            }
            (host.len(), port)
        }
    };
    if !port.is_empty() {
        let digits = port.strip_prefix(':').filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
        if digits.and_then(|digits| digits.parse::<u16>().ok()).is_none_or(|number| number == 0) {
            return Err((authority_at + host, "its port is not 1 to 65535"));
        }
    }
    check_path(path).map_err(|(offset, reason)| (authority_at + authority.len() + offset, reason))
}

fn check_path(path: &str) -> Result<(), (usize, &'static str)> {
    let bytes = path.as_bytes();
    for (offset, byte) in bytes.iter().enumerate() {
        let hexadecimal = |after: usize| bytes.get(offset + after).is_some_and(u8::is_ascii_hexdigit);
        match byte {
            b'?' => return Err((offset, "it must not have a query")),
            b'#' => return Err((offset, "it must not have a fragment")),
            b'%' if !(hexadecimal(1) && hexadecimal(2)) => return Err((offset, "% needs two hexadecimal digits")),
            b'%' => {}
            _ if byte.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@".contains(byte) => {}
            _ => return Err((offset, "its path has a character that must be percent-encoded")),
        }
    }
    Ok(())
}

fn read_headers(node: &Node, report: &mut Report) -> Vec<(String, String)> {
    let mut headers: Vec<(String, String)> = Vec::new();
    for (key, node) in mapping(node, "headers", report).unwrap_or_default() {
        // Not the usual reader of texts: its message would show the value.
        let Value::Text(value) = &node.value else {
            report.error(&node.place, format!("the value of the header {} must be text", quoted(&key.text)));
            continue;
        };
        headers.push((key.text.clone(), value.clone()));
        if let Err(fault) = check_headers(&headers) {
            headers.pop();
            let place = if fault == HeaderFault::Value { &node.place } else { &key.place };
            report.error(place, format!("the header {} {}", quoted(&key.text), fault.reason()));
        }
    }
    headers
}

/// What is wrong with the last of some header fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderFault {
    /// The name is no token of RFC 9110 §5.1.
    Name,
    /// The broker writes this field itself.
    Reserved,
    /// The name stands there already, perhaps in other letters.
    Repeated,
    /// The value is not visible ASCII with blanks between (RFC 9110 §5.5).
    Value,
    /// They are more than are sent.
    TooMany,
}

impl HeaderFault {
    fn reason(self) -> &'static str {
        match self {
            Self::Name => "has no valid name: letters, digits and !#$%&'*+-.^_`|~ are",
            Self::Reserved => "is written by the broker itself",
            Self::Repeated => "stands here twice",
            Self::Value => "has a value that is not visible ASCII, or blanks around it",
            Self::TooMany => "is one too many: 16 header fields and 4096 bytes of them are sent",
        }
    }
}

/// Checks header fields.
///
/// # Errors
/// The first fault.
pub fn check_headers(headers: &[(String, String)]) -> Result<(), HeaderFault> {
    let mut bytes = 0;
    for (index, (name, value)) in headers.iter().enumerate() {
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if name.is_empty() || !name.bytes().all(is_token) {
            return Err(HeaderFault::Name);
        }
        if RESERVED_HEADERS.iter().any(|reserved| name.eq_ignore_ascii_case(reserved)) {
            return Err(HeaderFault::Reserved);
        }
        if headers.iter().take(index).any(|(earlier, _)| earlier.eq_ignore_ascii_case(name)) {
            return Err(HeaderFault::Repeated);
        }
        let is_text = |byte: u8| byte.is_ascii_graphic() || matches!(byte, b' ' | b'\t');
        if !value.bytes().all(is_text) || value.trim_matches([' ', '\t']).len() != value.len() {
            return Err(HeaderFault::Value);
        }
        bytes += name.len() + value.len();
        if index >= HEADERS_MAX || bytes > HEADER_BYTES_MAX {
            return Err(HeaderFault::TooMany);
        }
    }
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_host_with_an_optional_port_and_path() {
        for endpoint in [
            "https://a",
            "https://auth.example.com",
            "https://10.0.0.1:6443",
            "https://[::1]:8443/check",
            "https://[2001:db8::1]",
            "https://auth:65535/a/b%20c/",
        ] {
            assert_eq!(check_endpoint(endpoint), Ok(()), "{endpoint}");
        }
        for (endpoint, offset) in [
            ("http://a", 0),
            ("HTTPS://a", 0),
            ("https://", 8),
            ("https:///a", 8),
            ("https://user:word@a", 8),
            ("https://a b", 8),
            ("https://a_b", 8),
            ("https://-a", 8),
            ("https://10.0.0.256", 8),
            ("https://[::1", 8),
            ("https://[1.2.3.4]", 8),
            ("https://[::1]x", 13),
            ("https://a:", 9),
            ("https://a:0", 9),
            ("https://a:65536", 9),
            ("https://a:+1", 9),
            ("https://a?b", 9),
            ("https://a/?b", 10),
            ("https://a/b#c", 11),
            ("https://a/%2", 10),
            ("https://a/\r\nHost: b", 10),
            ("https://a/\u{e4}", 10),
        ] {
            assert_eq!(check_endpoint(endpoint).unwrap_err().0, offset, "{endpoint}");
        }
        assert!(check_endpoint(&format!("https://a/{}", "b".repeat(1_015))).is_err());
    }

    #[test]
    fn a_header_cannot_change_the_request_around_it() {
        let check = |name: &str, value: &str| check_headers(&[(name.to_owned(), value.to_owned())]);
        assert_eq!(check("Authorization", "Bearer a b\tc"), Ok(()));
        assert_eq!(check("x", ""), Ok(()));
        for name in ["", "a b", "a:", "\u{e4}", "a\r\nb"] {
            assert_eq!(check(name, "v"), Err(HeaderFault::Name), "{name:?}");
        }
        for name in ["Host", "content-length", "CONNECTION", "Transfer-Encoding"] {
            assert_eq!(check(name, "v"), Err(HeaderFault::Reserved), "{name}");
        }
        for value in ["a\r\nHost: b", "a\n", "\0", "\u{e4}", " a", "a "] {
            assert_eq!(check("x", value), Err(HeaderFault::Value), "{value:?}");
        }
        let many: Vec<_> = (0..17).map(|index| (format!("h{index}"), String::new())).collect();
        assert_eq!(check_headers(&many), Err(HeaderFault::TooMany));
        assert_eq!(check("x", &"v".repeat(4_096)), Err(HeaderFault::TooMany));
        let twice = [("a".to_owned(), String::new()), ("A".to_owned(), String::new())];
        assert_eq!(check_headers(&twice), Err(HeaderFault::Repeated));
    }
}
