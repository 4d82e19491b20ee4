//! The contract of a custom authentication server: what it is sent, and what its answer means.
//!
//! In: what a client has shown of itself, and later the status and body of the answer. Out: the body of a request, and a
//! verdict. Source: version 0.5.0 of the vendor's OpenAPI document; azure-model §2.5 for what that leaves open. Pure:
//! somebody else carries the bytes, bounds the length of the answer, and asks once more where [`CustomAnswer`] says so.
//!
//! **Invariant:** nothing but status 200 with an object that is understood to its end lets a client in.

use super::json::{Members, Object};
use super::verdict::Evidence;
use crate::codec::{PacketType, ReasonCode};
use crate::identity::Attributes;
use crate::telemetry::Text;
use crate::time::UnixTime;
use base64ct::{Base64, Encoding as _};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use x509_cert::der::pem::{self, LineEnding};
use zeroize::Zeroizing;

/// Path and query of every request, behind the path of the configured endpoint. The version is the only one there is.
pub const TARGET: &str = "/?api-version=0.5.0";
/// The version in [`TARGET`].
const API_VERSION: &str = "0.5.0";

/// The packet that a client's credentials came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CredentialPacket {
    /// Its first.
    Connect,
    /// An AUTH that renews them; only enhanced authentication can.
    Auth,
}

/// Whether the same question was asked before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// It was not.
    First,
    /// It was, and the server wanted another version.
    Second,
}

/// What the server's answer means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CustomAnswer {
    /// The client comes in.
    Accepted {
        /// What the server grants.
        attributes: Attributes,
        /// When that ends; after the time at which it was judged. `None` for never.
        expires: Option<UnixTime>,
    },
    /// The client does not.
    Refused {
        /// The Reason Code for CONNACK, 0x80 or above.
        reason: u8,
        /// What the server says, or what is wrong with what it grants. May be empty.
        message: Text,
    },
    /// The server wants a version that is ours: ask the same once more.
    RetryWithVersion,
    /// There is no verdict.
    Unavailable(Text),
}

#[derive(Serialize)]
struct Credentials<'a> {
    #[serde(rename = "type")]
    packet: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    password: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    certs: Option<&'a str>,
    #[serde(rename = "enhancedAuthentication", skip_serializing_if = "Option::is_none")]
    enhanced: Option<Enhanced<'a>>,
}

#[derive(Serialize)]
struct Enhanced<'a> {
    method: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a str>,
}

#[derive(Deserialize)]
struct Pass {
    expiry: Option<String>,
    attributes: Option<Members<String>>,
}

#[derive(Deserialize)]
struct Fail {
    reason: Option<Value>,
    message: Option<Value>,
}

#[derive(Deserialize)]
struct Versions {
    #[serde(rename = "supportedVersions")]
    supported: Vec<String>,
}

/// The body of a request: JSON, wiped when dropped.
///
/// The name of the enhanced authentication method is sent as it is. It is not in the OpenAPI document; the vendor's sample
/// server decodes it from base64, which its own comment does not say and which would make a name of letters another one
/// (azure-model §2.5).
#[must_use]
pub fn encode(packet: CredentialPacket, evidence: &Evidence<'_>) -> Zeroizing<Vec<u8>> {
    let base64 = |bytes: Option<&[u8]>| bytes.map(|bytes| Zeroizing::new(Base64::encode_string(bytes)));
    let data = base64(evidence.authentication_data);
    let enhanced =
        evidence.authentication_method.map(|method| Enhanced { method, data: data.as_ref().map(|text| text.as_str()) });
    match packet {
        CredentialPacket::Auth => {
            write(&Credentials { packet: "auth", username: None, password: None, certs: None, enhanced })
        }
        CredentialPacket::Connect => {
            let password = base64(evidence.password);
            let certs: String = evidence
                .peer_chain
                .iter()
                // Cannot fail: the label is good and memory takes what there is.
                .filter_map(|one| pem::encode_string("CERTIFICATE", LineEnding::LF, one).ok())
                .collect();
            write(&Credentials {
                packet: "connect",
                username: evidence.username,
                password: password.as_ref().map(|text| text.as_str()),
                certs: Some(certs.as_str()).filter(|certs| !certs.is_empty()),
                enhanced,
            })
        }
    }
}

/// The JSON, in one allocation: a buffer that grows leaves copies behind that nobody wipes.
fn write(credentials: &Credentials<'_>) -> Zeroizing<Vec<u8>> {
    /// Most bytes of JSON for a byte of a text: `\u0001`.
    const ESCAPED_BYTES: usize = 6;
    /// Names, braces and quotes.
    const FRAME_BYTES: usize = 160;
    let length = |text: Option<&str>| text.map_or(0, str::len);
    let enhanced = credentials.enhanced.as_ref();
    let escaped = length(credentials.username) + enhanced.map_or(0, |enhanced| enhanced.method.len());
    let plain = length(credentials.password) + enhanced.map_or(0, |enhanced| length(enhanced.data));
    // Of the letters in PEM, only the ends of lines are escaped.
    let bytes_max = FRAME_BYTES + ESCAPED_BYTES * escaped + plain + 2 * length(credentials.certs);
    let mut body = Zeroizing::new(Vec::with_capacity(bytes_max));
    // Cannot fail: memory takes every byte, and every name is a text.
    let _ = serde_json::to_writer(&mut *body, credentials);
    debug_assert!(body.len() <= bytes_max);
    body
}

/// What an answer means. `body` is bounded by who read it.
#[must_use]
pub fn judge(status: u16, body: &[u8], attempt: Attempt, now: UnixTime) -> CustomAnswer {
    match (status, attempt) {
        (200, _) => granted(body, now),
        (403, _) => denied(body),
        (422, Attempt::First) if wants_our_version(body) => CustomAnswer::RetryWithVersion,
        (422, _) => unavailable(format_args!("the custom server has no version in common with us")),
        // A message for the log, in text/plain.
        (400 | 405, _) => {
            let text = String::from_utf8_lossy(body);
            unavailable(format_args!("the custom server answers {status}: {}", text.trim()))
        }
        _ => unavailable(format_args!("the custom server answers {status}")),
    }
}

fn granted(body: &[u8], now: UnixTime) -> CustomAnswer {
    let Ok(Object(pass)) = serde_json::from_slice::<Object<Pass>>(body) else {
        return unavailable(format_args!("the custom server's answer cannot be read"));
    };
    let expires = match pass.expiry.as_deref().map(UnixTime::from_rfc_3339) {
        None => None,
        Some(Some(expires)) => Some(expires),
        Some(None) => return unavailable(format_args!("the custom server's expiry cannot be read")),
    };
    if expires.is_some_and(|expires| expires <= now) {
        return refused(ReasonCode::NotAuthorized, Text::new("the custom server's verdict is expired"));
    }
    let mut attributes = Attributes::new();
    for (name, value) in pass.attributes.iter().flat_map(|Members(members)| members) {
        if attributes.insert(name, value).is_err() {
            return refused(ReasonCode::NotAuthorized, Text::new("the custom server's attributes do not fit"));
        }
    }
    CustomAnswer::Accepted { attributes, expires }
}

/// A server that says no has said no, whatever its reason looks like. The vendor's own sample gives 0 and 5, which CONNACK
/// would carry as success and as nothing defined.
fn denied(body: &[u8]) -> CustomAnswer {
    let Ok(Object(fail)) = serde_json::from_slice::<Object<Fail>>(body) else {
        return unavailable(format_args!("the custom server's refusal cannot be read"));
    };
    let reason = fail
        .reason
        .and_then(|reason| u8::try_from(reason.as_u64()?).ok())
        .and_then(ReasonCode::from_u8)
        .filter(|reason| reason.is_error() && reason.is_allowed_in(PacketType::ConnAck))
        .unwrap_or(ReasonCode::NotAuthorized);
    refused(reason, Text::new(fail.message.as_ref().and_then(Value::as_str).unwrap_or_default()))
}

fn wants_our_version(body: &[u8]) -> bool {
    serde_json::from_slice::<Object<Versions>>(body)
        .is_ok_and(|Object(versions)| versions.supported.iter().any(|version| version == API_VERSION))
}

fn refused(reason: ReasonCode, message: Text) -> CustomAnswer {
    CustomAnswer::Refused { reason: reason.as_u8(), message }
}

fn unavailable(why: core::fmt::Arguments<'_>) -> CustomAnswer {
    CustomAnswer::Unavailable(Text::of(why))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::limits::{ATTRIBUTE_BYTES_MAX, ATTRIBUTES_MAX};
    use rustls_pki_types::CertificateDer;
    use rustls_pki_types::pem::PemObject as _;
    use serde_json::json;

    /// 2030-05-08T20:04:16Z, the example of the OpenAPI document.
    const EXAMPLE: UnixTime = UnixTime(1_904_501_056);
    const NOW: UnixTime = UnixTime(EXAMPLE.0 - 10);

    fn first(status: u16, body: impl AsRef<[u8]>) -> CustomAnswer {
        judge(status, body.as_ref(), Attempt::First, NOW)
    }

    fn is_unavailable(answer: &CustomAnswer) -> bool {
        matches!(answer, CustomAnswer::Unavailable(_))
    }

    fn reason(answer: &CustomAnswer) -> Option<u8> {
        if let CustomAnswer::Refused { reason, .. } = answer { Some(*reason) } else { None }
    }

    #[test]
    fn a_connect_is_sent_with_everything_the_client_has_shown() {
        let chain = [CertificateDer::from(vec![0x30; 100]), CertificateDer::from(vec![0x31; 3])];
        let evidence = Evidence {
            peer_chain: &chain,
            username: Some("client1"),
            password: Some(b"password1"),
            authentication_method: Some("SCRAM \"x\""),
            authentication_data: Some(&[0, 0xFF, 0xFE]),
        };
        let body = encode(CredentialPacket::Connect, &evidence);
        let read: Value = serde_json::from_slice(&body).unwrap();
        let certs = read["certs"].as_str().unwrap().to_owned();
        assert_eq!(
            read,
            json!({
                "type": "connect",
                "username": "client1",
                "password": "cGFzc3dvcmQx",
                "certs": certs,
                "enhancedAuthentication": { "method": "SCRAM \"x\"", "data": "AP/+" },
            })
        );
        assert!(certs.starts_with("-----BEGIN CERTIFICATE-----\n"));
        assert!(certs.ends_with("-----END CERTIFICATE-----\n"));
        let decoded: Vec<_> = CertificateDer::pem_slice_iter(certs.as_bytes()).map(Result::unwrap).collect();
        assert_eq!(decoded, chain, "the client's own comes first");
    }

    #[test]
    fn what_a_client_has_not_shown_is_left_out() {
        let body = encode(CredentialPacket::Connect, &Evidence::default());
        assert_eq!(*body, br#"{"type":"connect"}"#);
        let evidence = Evidence { username: Some(""), password: Some(b""), ..Evidence::default() };
        let body = encode(CredentialPacket::Connect, &evidence);
        assert_eq!(*body, br#"{"type":"connect","username":"","password":""}"#);
    }

    #[test]
    fn an_auth_is_sent_with_enhanced_authentication_only() {
        let chain = [CertificateDer::from(vec![0x30; 100])];
        let evidence = Evidence {
            peer_chain: &chain,
            username: Some("client1"),
            password: Some(b"password1"),
            authentication_method: Some("K8S-SAT"),
            authentication_data: Some(b"token"),
        };
        let body = encode(CredentialPacket::Auth, &evidence);
        assert_eq!(*body, br#"{"type":"auth","enhancedAuthentication":{"method":"K8S-SAT","data":"dG9rZW4="}}"#);
    }

    #[test]
    fn the_largest_credentials_are_written_without_growing() {
        let name = "\u{1}".repeat(65_535);
        let bytes = vec![0xAA; 65_535];
        let chain = vec![CertificateDer::from(vec![0x30; 2_048]); 8];
        let evidence = Evidence {
            peer_chain: &chain,
            username: Some(&name),
            password: Some(&bytes),
            authentication_method: Some(&name),
            authentication_data: Some(&bytes),
        };
        let body = encode(CredentialPacket::Connect, &evidence);
        assert_eq!(serde_json::from_slice::<Value>(&body).unwrap()["username"], name);
    }

    #[test]
    fn an_empty_object_accepts_without_attributes_and_for_ever() {
        for body in ["{}", r#" {"expiry":null,"attributes":null} "#, r#"{"attributes":{},"other":[1,{"a":2}]}"#] {
            let expected = CustomAnswer::Accepted { attributes: Attributes::new(), expires: None };
            assert_eq!(first(200, body), expected, "{body}");
        }
    }

    #[test]
    fn attributes_and_expiry_are_taken_over() {
        let body = r#"{"expiry":"2030-05-08T20:04:16+00:00","attributes":{"group":"group1","\u00e9":""}}"#;
        let CustomAnswer::Accepted { attributes, expires } = first(200, body) else { unreachable!("{body}") };
        assert_eq!(attributes.iter().collect::<Vec<_>>(), [("group", "group1"), ("é", "")]);
        assert_eq!(expires, Some(EXAMPLE));
    }

    #[test]
    fn an_acceptance_that_is_not_understood_is_none() {
        let deep = format!("{{\"other\":{}{}}}", "[".repeat(30_000), "]".repeat(30_000));
        let objects = format!("{{\"attributes\":{}1{}}}", "{\"a\":".repeat(10_000), "}".repeat(10_000));
        for body in [
            "",
            " ",
            "null",
            "true",
            "[]",
            "[null,null]",
            "\"accepted\"",
            "{",
            "{} {}",
            "{}x",
            "<html>",
            "\u{FEFF}{}",
            r#"{"attributes":{"a":1}}"#,
            r#"{"attributes":{"a":null}}"#,
            r#"{"attributes":{"a":["b"]}}"#,
            r#"{"attributes":{"a":"1","a":"1"}}"#,
            r#"{"attributes":{"a":"1","\u0061":"2"}}"#,
            r#"{"attributes":[]}"#,
            r#"{"attributes":"a"}"#,
            r#"{"attributes":{},"attributes":{}}"#,
            r#"{"attributes":{"a":"\ud800"}}"#,
            r#"{"expiry":"2030-05-08T20:04:16Z","expiry":"2031-05-08T20:04:16Z"}"#,
            r#"{"expiry":1904501056}"#,
            r#"{"expiry":""}"#,
            r#"{"expiry":"tomorrow"}"#,
            r#"{"expiry":"12030-05-08T20:04:16Z"}"#,
            r#"{"expiry":1e999}"#,
            r#"{"other":1e999}x"#,
            &objects,
        ] {
            assert!(is_unavailable(&first(200, body)), "{}", body.get(..40).unwrap_or(body));
        }
        assert!(is_unavailable(&first(200, b"{\"attributes\":{\"a\":\"\xFF\"}}")), "not UTF-8");
        // A member that nobody asked for is passed over, however deep it is.
        assert!(matches!(first(200, deep), CustomAnswer::Accepted { .. }));
    }

    #[test]
    fn an_expiry_that_is_over_refuses() {
        for expiry in ["2030-05-08T20:04:06Z", "1969-12-31T23:59:59Z", "0001-01-01T00:00:00Z"] {
            let answer = first(200, format!(r#"{{"expiry":"{expiry}"}}"#));
            assert_eq!(reason(&answer), Some(0x87), "{expiry}");
        }
        let answer = first(200, r#"{"expiry":"2030-05-08T20:04:07Z"}"#);
        assert!(matches!(answer, CustomAnswer::Accepted { expires: Some(_), .. }), "a second is left");
    }

    #[test]
    fn attributes_that_do_not_fit_refuse_with_a_text_of_their_own() {
        let many: serde_json::Map<_, _> = (0..=ATTRIBUTES_MAX).map(|n| (format!("n{n}"), json!(""))).collect();
        let long = json!({ "a": "x".repeat(ATTRIBUTE_BYTES_MAX) });
        for attributes in [json!(many), long] {
            let answer = first(200, json!({ "attributes": attributes }).to_string());
            let message = Text::new("the custom server's attributes do not fit");
            assert_eq!(answer, CustomAnswer::Refused { reason: 0x87, message });
        }
    }

    #[test]
    fn a_reason_is_taken_over_only_where_connack_may_carry_it_as_a_failure() {
        for (given, expected) in [
            (json!(0x87), 0x87),
            (json!(0x80), 0x80),
            (json!(0x88), 0x88),
            (json!(0x9F), 0x9F),
            (json!(0), 0x87),
            (json!(5), 0x87),
            (json!(0x18), 0x87),
            (json!(0x7F), 0x87),
            (json!(0x8E), 0x87), // session taken over: DISCONNECT only
            (json!(0x8F), 0x87), // SUBACK only
            (json!(0x9E), 0x87),
            (json!(0xA0), 0x87),
            (json!(0xFF), 0x87),
            (json!(0x187), 0x87),
            (json!(-121), 0x87),
            (json!(135.0), 0x87),
            (json!(u64::MAX), 0x87),
            (json!("136"), 0x87),
            (json!(null), 0x87),
            (json!([136]), 0x87),
        ] {
            let body = json!({ "reason": given, "message": "no" }).to_string();
            let message = Text::new("no");
            assert_eq!(first(403, &body), CustomAnswer::Refused { reason: expected, message }, "{body}");
        }
        assert_eq!(reason(&first(403, "{}")), Some(0x87));
        assert_eq!(reason(&first(403, r#"{"reason":99999999999999999999999999999}"#)), Some(0x87));
        assert_eq!(reason(&first(403, r#"{"reason":136,"message":7}"#)), Some(0x88));
    }

    #[test]
    fn a_refusal_that_is_not_understood_is_no_verdict() {
        let deep = format!("{{\"reason\":{}{}}}", "[".repeat(30_000), "]".repeat(30_000));
        for body in ["", "forbidden", "[]", "[136]", r#"{"reason":136,"reason":137}"#, r#"{"reason":1e999}"#, &deep] {
            assert!(is_unavailable(&first(403, body)), "{}", body.get(..40).unwrap_or(body));
        }
    }

    #[test]
    fn a_message_is_short_and_cannot_leave_its_line() {
        let body = json!({ "reason": 135, "message": format!("a\r\nb\u{1b}[31m{}", "é".repeat(10_000)) });
        let CustomAnswer::Refused { message, .. } = first(403, body.to_string()) else { unreachable!() };
        let shown = message.to_string();
        assert!(shown.len() < 200 && !shown.contains(char::is_control), "{shown}");
    }

    #[test]
    fn a_common_version_is_asked_for_once_more_and_no_oftener() {
        let body = r#"{"supportedVersions":["0.9.0","0.5.0"]}"#;
        assert_eq!(first(422, body), CustomAnswer::RetryWithVersion);
        assert!(is_unavailable(&judge(422, body.as_bytes(), Attempt::Second, NOW)));
        for body in [r#"{"supportedVersions":["0.6.0"]}"#, r#"{"supportedVersions":[]}"#, "{}", "[[\"0.5.0\"]]", ""] {
            assert!(is_unavailable(&first(422, body)), "{body}");
        }
        assert!(TARGET.ends_with(API_VERSION));
    }

    #[test]
    fn every_other_status_is_no_verdict() {
        for status in (0..=999).filter(|status| ![200, 403, 422].contains(status)) {
            assert!(is_unavailable(&first(status, "{}")), "{status}");
        }
        let answer = first(400, "missing\ntype\n");
        assert_eq!(answer, CustomAnswer::Unavailable(Text::new("the custom server answers 400: missing\ntype")));
        assert!(is_unavailable(&first(405, b"\xFF")));
    }
}
