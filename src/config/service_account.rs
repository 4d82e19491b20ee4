//! `serviceAccountTokens` of the Gateway: who judges the tokens of Kubernetes service accounts.
//!
//! In go the field and, for tokens that are verified here, ConfigMaps of JWK Sets; out comes a [`TokenSource`] whose
//! references are yet to be resolved, and the documents. Only the outermost form of a JWK Set is checked, and that it holds
//! no secret: which keys can be used is found out when the broker starts.

use super::authentication::check_attributes_fit;
use super::blob::AccountAttributes;
use super::diagnostic::{Place, Report, quoted};
use super::https_server::{self, Server};
use super::listener::{Reference, secret_reference};
use super::name::is_object_name;
use super::resources::ConfigMap;
use super::source::walk::{Fields, full_text, mapping, sequence, text_map};
use super::source::{self, Node, Syntax, Value};

/// Most issuers.
const ISSUERS_MAX: usize = 16;
/// Longest `issuer`, bytes.
const ISSUER_BYTES_MAX: usize = 1_024;
/// Most service accounts with attributes.
const ACCOUNTS_MAX: usize = 1_024;
/// Largest JWK Set, bytes.
const KEY_SET_BYTES_MAX: usize = 64 * 1_024;
/// Members of a JWK that no public key has (RFC 7518 §6.2.2, §6.3.2, §6.4.1).
const SECRET_MEMBERS: [&str; 7] = ["d", "p", "q", "dp", "dq", "qi", "k"];

/// `serviceAccountTokens` as the source describes it.
#[derive(Clone)]
pub enum TokenSource {
    /// `tokenReview`.
    TokenReview {
        /// The API server.
        server: Server,
        /// `tokenSecretRef`.
        token_secret: Option<Reference>,
    },
    /// `issuers` and `attributes`.
    Offline {
        /// Each issuer with its `keysConfigMap`.
        issuers: Vec<(String, Reference)>,
        /// What is granted to which account.
        attributes: Vec<AccountAttributes>,
    },
}

/// Reads `serviceAccountTokens`.
pub(super) fn read(node: &Node, report: &mut Report) -> Option<TokenSource> {
    let mut fields = Fields::of(node, "serviceAccountTokens", report)?;
    let review = fields.optional("tokenReview");
    let issuers_node = fields.optional("issuers");
    let attributes_node = fields.optional("attributes");
    fields.finish(report);
    match (review, issuers_node) {
        (Some(review), None) => {
            if let Some(node) = attributes_node {
                let message = "attributes belongs to issuers; with tokenReview, attributes are annotations of the service account (aio-broker-auth/<name>)";
                report.error(&node.place, message);
            }
            token_review(review, report)
        }
        (None, Some(node)) => {
            let issuers = issuers(node, report);
            let attributes = attributes_node.map(|node| accounts(node, report)).unwrap_or_default();
            Some(TokenSource::Offline { issuers, attributes })
        }
        (Some(_), Some(_)) | (None, None) => {
            report.error(&node.place, "serviceAccountTokens needs either tokenReview or issuers");
            None
        }
    }
}

fn token_review(node: &Node, report: &mut Report) -> Option<TokenSource> {
    let mut fields = Fields::of(node, "tokenReview", report)?;
    let server = https_server::read(&mut fields, false, report);
    let token_node = fields.optional("tokenSecretRef");
    let token_secret = token_node.and_then(|node| secret_reference(node, report));
    if token_node.is_some() == node.entry("auth").is_some_and(|node| node.value != Value::Null) {
        let message = "tokenReview needs either tokenSecretRef or auth: the API server must know who asks";
        report.error(&node.place, message);
    }
    fields.finish(report);
    Some(TokenSource::TokenReview { server: server?, token_secret })
}

fn issuers(node: &Node, report: &mut Report) -> Vec<(String, Reference)> {
    let mut issuers: Vec<(String, Reference)> = Vec::new();
    let elements = sequence(node, "issuers", report).unwrap_or_default();
    if elements.is_empty() || elements.len() > ISSUERS_MAX {
        report.error(&node.place, format!("issuers has {} elements, outside 1 to {ISSUERS_MAX}", elements.len()));
    }
    for element in elements {
        let Some(mut fields) = Fields::of(element, "issuers[]", report) else { continue };
        let issuer_node = fields.required("issuer", report);
        let issuer = issuer_node.and_then(|node| full_text(node, "issuer", report));
        let keys = fields.required("keysConfigMap", report).and_then(|node| {
            let name = full_text(node, "keysConfigMap", report)?;
            Some(Reference { name: name.to_owned(), place: node.place.clone() })
        });
        fields.finish(report);
        let (Some(node), Some(issuer), Some(keys)) = (issuer_node, issuer, keys) else { continue };
        if issuers.iter().any(|(earlier, _)| earlier == issuer) {
            report.error(&node.place, format!("the issuer {} stands here twice", quoted(issuer)));
        } else if !is_issuer(issuer) {
            report.error(&node.place, format!("issuer is longer than {ISSUER_BYTES_MAX} bytes"));
        } else {
            issuers.push((issuer.to_owned(), keys));
        }
    }
    issuers
}

/// Whether `text` can be the claim `iss`.
pub(super) fn is_issuer(text: &str) -> bool {
    (1..=ISSUER_BYTES_MAX).contains(&text.len())
}

fn accounts(node: &Node, report: &mut Report) -> Vec<AccountAttributes> {
    let entries = mapping(node, "attributes", report).unwrap_or_default();
    if entries.len() > ACCOUNTS_MAX {
        report.error(&node.place, format!("{} service accounts, and {ACCOUNTS_MAX} are held", entries.len()));
    }
    let mut accounts = Vec::new();
    for (key, node) in entries {
        if !is_account(&key.text) {
            let message = format!("{} is no service account: it is <namespace>/<name>", quoted(&key.text));
            report.error(&key.place, message);
        }
        let Some(pairs) = text_map(node, "the attributes of an account", report) else { continue };
        let attributes: Vec<(String, String)> =
            pairs.into_iter().map(|(key, value, _)| (key.text.clone(), value.to_owned())).collect();
        check_attributes_fit(&attributes, &node.place, report);
        accounts.push(AccountAttributes { account: key.text.clone(), attributes });
    }
    accounts
}

/// Whether `account` is `<namespace>/<name>`, both of them names that a cluster allows.
pub(super) fn is_account(account: &str) -> bool {
    let is_namespace = |name: &str| name.len() <= 63 && !name.contains('.') && is_object_name(name);
    account.split_once('/').is_some_and(|(namespace, name)| is_namespace(namespace) && is_object_name(name))
}

/// Every value of a ConfigMap, each of which must be a JWK Set.
pub(super) fn read_key_sets(name: &str, map: &ConfigMap, place: &Place, report: &mut Report) -> Vec<String> {
    let mut documents = Vec::new();
    if map.entries.is_empty() {
        report.error(place, format!("the ConfigMap {} holds no keys", quoted(name)));
    }
    for (key, entry) in &map.entries {
        match check_key_set(&entry.place.file, &entry.contents) {
            Ok(document) => documents.push(document),
            Err((found, reason)) => {
                // Lines inside a value of a manifest say nothing about the manifest.
                let place = if entry.is_file { &found } else { &entry.place };
                let entry = format!("{} of the ConfigMap {}", quoted(key), quoted(name));
                report.error(place, format!("{entry} is no JWK Set of public keys: {reason}"));
            }
        }
    }
    documents
}

/// The text of a JWK Set, or where and why it is none. The reason never shows a value.
fn check_key_set(file: &str, contents: &[u8]) -> Result<String, (Place, String)> {
    let start = Place::start_of(file);
    if contents.len() > KEY_SET_BYTES_MAX {
        return Err((start, format!("it is larger than {KEY_SET_BYTES_MAX} bytes")));
    }
    let mut syntax = Report::new();
    let documents = source::parse(file, contents, Syntax::Json, &mut syntax);
    if let Some(first) = syntax.finish().0.into_iter().next() {
        return Err((first.place, first.message));
    }
    let [document] = documents.as_slice() else {
        return Err((start, "it is not one JSON object".to_owned()));
    };
    let keys = match document.entry("keys") {
        Some(Node { value: Value::Sequence(keys), .. }) if !keys.is_empty() => keys,
        Some(_) | None => return Err((document.place.clone(), "it has no array \"keys\" with a key in it".to_owned())),
    };
    for key in keys {
        if !matches!(key.value, Value::Mapping(_)) {
            return Err((key.place.clone(), "a key is a JSON object".to_owned()));
        }
        if let Some(member) = SECRET_MEMBERS.iter().find(|member| key.entry(member).is_some()) {
            let reason =
                format!("a key has the member \"{member}\": it is private or shared, and a ConfigMap is public");
            return Err((key.place.clone(), reason));
        }
    }
    // Without a byte order mark, which the reader above skips and others may not.
    let text = contents.strip_prefix(b"\xef\xbb\xbf").unwrap_or(contents);
    String::from_utf8(text.to_vec()).map_err(|_| (start, "it is not UTF-8".to_owned()))
}

/// Whether `text` is a JWK Set as [`read_key_sets`] takes it.
pub(super) fn is_key_set(text: &str) -> bool {
    check_key_set("", text.as_bytes()).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_a_namespace_and_a_name() {
        for account in ["azure-iot-operations/mqtt-client", "a/b.c"] {
            assert!(is_account(account), "{account}");
        }
        for account in ["", "a", "a/", "/b", "a/b/c", "a.b/c", "A/b", "../b", "a b/c"] {
            assert!(!is_account(account), "{account}");
        }
    }

    #[test]
    fn a_key_set_has_public_keys_only() {
        assert!(is_key_set("{\"keys\": [{\"kty\": \"EC\", \"crv\": \"P-256\", \"x\": \"a\", \"y\": \"b\"}]}"));
        for text in [
            "",
            "{}",
            "[]",
            "{\"keys\": []}",
            "{\"keys\": {}}",
            "{\"keys\": [1]}",
            "{\"keys\": [{}]",
            "{\"keys\": [{}]} {\"keys\": [{}]}",
            "{\"keys\": [{}], \"keys\": [{}]}",
            "{\"keys\": [{\"kty\": \"RSA\", \"d\": \"a\"}]}",
            "{\"keys\": [{}, {\"kty\": \"oct\", \"k\": \"a\"}]}",
        ] {
            assert!(!is_key_set(text), "{text}");
        }
        assert!(!is_key_set(&format!("{{\"keys\": [{{\"x\": \"{}\"}}]}}", "a".repeat(KEY_SET_BYTES_MAX))));
    }
}
