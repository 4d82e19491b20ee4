//! Service account tokens, judged by the TokenReview API of a Kubernetes cluster.
//!
//! In: a token and the audiences of the configuration, later the status and body of each answer. Out: the body of the
//! review, then the path of the service account, then the attributes that its annotations grant. Pure: somebody else
//! carries the bytes and bounds the length of the answers. Sources: `authentication.k8s.io/v1`, azure-model §2.4.
//!
//! **Invariant:** an account is named only where the cluster vouches for the token *and* for one of our audiences: a
//! server that knows nothing of audiences vouches for none.

use super::json::{Members, Object};
use super::service_account::ServiceAccount;
use crate::identity::Attributes;
use crate::telemetry::Text;
use crate::time::UnixTime;
use base64ct::{Base64UrlUnpadded, Encoding as _};
use core::fmt;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// Path of the review.
pub const TARGET: &str = "/apis/authentication.k8s.io/v1/tokenreviews";
/// Group and version of the review.
const API_VERSION: &str = "authentication.k8s.io/v1";
/// Kind of the review.
const KIND: &str = "TokenReview";
/// What the annotations that grant attributes begin with.
const ANNOTATION_PREFIX: &str = "aio-broker-auth/";

/// The path to ask for the annotations of an account, with GET. Its names need no escaping.
#[must_use]
pub fn account_target(account: &ServiceAccount) -> String {
    format!("/api/v1/namespaces/{}/serviceaccounts/{}", account.namespace(), account.name())
}

/// What one of the cluster's answers means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClusterAnswer<T> {
    /// Yes, with what was asked for.
    Granted(T),
    /// The client may not come in.
    Refused(Text),
    /// There is no verdict.
    Unavailable(Text),
}

#[derive(Serialize)]
struct ReviewRequest<'a> {
    #[serde(rename = "apiVersion")]
    api_version: &'static str,
    kind: &'static str,
    spec: Spec<'a>,
}

#[derive(Serialize)]
struct Spec<'a> {
    token: &'a str,
    audiences: &'a [String],
}

#[derive(Deserialize)]
struct Review {
    #[serde(rename = "apiVersion")]
    api_version: String,
    kind: String,
    status: Object<Status>,
}

#[derive(Deserialize)]
struct Status {
    #[serde(default)]
    authenticated: bool,
    audiences: Option<Vec<String>>,
    user: Option<Object<User>>,
    error: Option<String>,
}

#[derive(Deserialize)]
struct User {
    username: Option<String>,
}

#[derive(Deserialize)]
struct Account {
    kind: String,
    metadata: Object<Metadata>,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
    namespace: String,
    annotations: Option<Members<String>>,
}

#[derive(Deserialize)]
struct Claims {
    exp: Option<serde_json::Number>,
}

/// The body of a review: JSON, wiped when dropped. `None` where the token is not even text.
#[must_use]
pub fn encode(token: &[u8], audiences: &[String]) -> Option<Zeroizing<Vec<u8>>> {
    /// Names, braces and quotes.
    const FRAME_BYTES: usize = 160;
    let token = core::str::from_utf8(token).ok().filter(|token| !token.is_empty())?;
    // In one allocation: a buffer that grows leaves copies behind that nobody wipes. A byte takes 6 at most (`\u0001`).
    let audience_bytes: usize = audiences.iter().map(|audience| 6 * audience.len() + 3).sum();
    let bytes_max = FRAME_BYTES + 6 * token.len() + audience_bytes;
    let mut body = Zeroizing::new(Vec::with_capacity(bytes_max));
    let request = ReviewRequest { api_version: API_VERSION, kind: KIND, spec: Spec { token, audiences } };
    serde_json::to_writer(&mut *body, &request).ok()?;
    debug_assert!(body.len() <= bytes_max);
    Some(body)
}

/// Whose token it is. `audiences` are those that were asked for.
#[must_use]
pub fn judge_review(status: u16, body: &[u8], audiences: &[String]) -> ClusterAnswer<ServiceAccount> {
    if !matches!(status, 200 | 201) {
        return no_answer(status);
    }
    let Ok(Object(review)) = serde_json::from_slice::<Object<Review>>(body) else {
        return unavailable("the cluster's review cannot be read");
    };
    if review.kind != KIND || review.api_version != API_VERSION {
        return unavailable("the cluster answers with something else than a review");
    }
    let Object(status) = review.status;
    if !status.authenticated {
        let error = status.error.unwrap_or_default();
        let separator = if error.is_empty() { "" } else { ": " };
        return ClusterAnswer::Refused(Text::of(format_args!("the cluster refuses the token{separator}{error}")));
    }
    if !status.audiences.iter().flatten().any(|audience| audiences.contains(audience)) {
        return refused("the token is for another audience");
    }
    match status.user.and_then(|Object(user)| ServiceAccount::from_subject(&user.username?)) {
        Some(account) => ClusterAnswer::Granted(account),
        None => refused("the token is not of a service account"),
    }
}

/// What the annotations of `account` grant.
#[must_use]
pub fn judge_account(status: u16, body: &[u8], account: &ServiceAccount) -> ClusterAnswer<Attributes> {
    match status {
        200 => {}
        // Deleted since the review.
        404 => return refused("the service account does not exist"),
        _ => return no_answer(status),
    }
    let Ok(Object(read)) = serde_json::from_slice::<Object<Account>>(body) else {
        return unavailable("the cluster's service account cannot be read");
    };
    let Object(metadata) = read.metadata;
    if read.kind != "ServiceAccount" || metadata.name != account.name() || metadata.namespace != account.namespace() {
        return unavailable("the cluster answers with something else than the service account");
    }
    let mut attributes = Attributes::new();
    for (name, value) in metadata.annotations.iter().flat_map(|Members(members)| members) {
        if let Some(name) = name.strip_prefix(ANNOTATION_PREFIX)
            && attributes.insert(name, value).is_err()
        {
            return refused("the service account's attributes do not fit");
        }
    }
    ClusterAnswer::Granted(attributes)
}

/// The claim `exp` of a token that the cluster vouches for, which does not say when it ends. `Ok(None)` for a token without
/// end. Proves nothing by itself: the signature is not looked at.
///
/// # Errors
/// It is not a JSON Web Token, or its `exp` is no number of seconds.
pub fn expiry(token: &[u8]) -> Result<Option<UnixTime>, NotAToken> {
    let text = core::str::from_utf8(token).map_err(|_| NotAToken)?;
    let mut parts = text.split('.');
    let (Some(_), Some(claims), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return Err(NotAToken);
    };
    let claims = Zeroizing::new(Base64UrlUnpadded::decode_vec(claims).map_err(|_| NotAToken)?);
    let Object(claims) = serde_json::from_slice::<Object<Claims>>(&claims).map_err(|_| NotAToken)?;
    let Some(exp) = claims.exp else { return Ok(None) };
    match (exp.as_u64(), exp.as_f64()) {
        (Some(seconds), _) => Ok(Some(UnixTime(seconds))),
        // NumericDate may have a fraction, RFC 7519 §2; the cast cuts it off and saturates.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        (None, Some(seconds)) => Ok(Some(UnixTime(seconds as u64))),
        (None, None) => Err(NotAToken),
    }
}

/// A token that is no JSON Web Token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAToken;

impl fmt::Display for NotAToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the token is not a JSON Web Token")
    }
}

impl core::error::Error for NotAToken {}

/// 401 and 403 among the others: it is our credential that the API server refuses there, not the client's.
fn no_answer<T>(status: u16) -> ClusterAnswer<T> {
    match status {
        401 | 403 => ClusterAnswer::Unavailable(Text::of(format_args!("the cluster answers {status}: may we ask it?"))),
        _ => ClusterAnswer::Unavailable(Text::of(format_args!("the cluster answers {status}"))),
    }
}

fn refused<T>(why: &str) -> ClusterAnswer<T> {
    ClusterAnswer::Refused(Text::new(why))
}

fn unavailable<T>(why: &str) -> ClusterAnswer<T> {
    ClusterAnswer::Unavailable(Text::new(why))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::limits::ATTRIBUTES_MAX;
    use serde_json::{Value, json};

    fn ours() -> Vec<String> {
        vec!["aio-internal".to_owned(), "my-audience".to_owned()]
    }

    /// As the API server of Kubernetes 1.30 writes it.
    fn review() -> Value {
        json!({
            "kind": "TokenReview",
            "apiVersion": "authentication.k8s.io/v1",
            "metadata": { "creationTimestamp": null, "managedFields": [{ "manager": "curl", "fieldsV1": { "f:spec": {} } }] },
            "spec": { "token": "eyJhbGciOi", "audiences": ["aio-internal", "my-audience"] },
            "status": {
                "authenticated": true,
                "user": {
                    "username": "system:serviceaccount:default:mqtt-client",
                    "uid": "ee47e7b5-0e44-4a7f-b1e7-1f4a2b9ab2de",
                    "groups": ["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"],
                    "extra": { "authentication.kubernetes.io/pod-name": ["mqtt-client"] }
                },
                "audiences": ["my-audience"]
            }
        })
    }

    fn account() -> Value {
        json!({
            "kind": "ServiceAccount",
            "apiVersion": "v1",
            "metadata": {
                "name": "mqtt-client",
                "namespace": "default",
                "uid": "ee47e7b5-0e44-4a7f-b1e7-1f4a2b9ab2de",
                "annotations": { "aio-broker-auth/group": "authz-sat", "example.org/note": "x", "aio-broker-auth/area": "" }
            }
        })
    }

    fn judge(review: &Value) -> ClusterAnswer<ServiceAccount> {
        judge_review(201, review.to_string().as_bytes(), &ours())
    }

    fn client() -> ServiceAccount {
        ServiceAccount::from_subject("system:serviceaccount:default:mqtt-client").unwrap()
    }

    fn is_refused<T>(answer: &ClusterAnswer<T>) -> bool {
        matches!(answer, ClusterAnswer::Refused(_))
    }

    fn is_unavailable<T>(answer: &ClusterAnswer<T>) -> bool {
        matches!(answer, ClusterAnswer::Unavailable(_))
    }

    #[test]
    fn a_review_is_asked_with_token_and_audiences() {
        let body = encode(b"eyJ\"\x01", &ours()).unwrap();
        assert_eq!(
            serde_json::from_slice::<Value>(&body).unwrap(),
            json!({
                "apiVersion": "authentication.k8s.io/v1",
                "kind": "TokenReview",
                "spec": { "token": "eyJ\"\u{1}", "audiences": ["aio-internal", "my-audience"] },
            })
        );
        assert_eq!(encode(b"", &ours()), None);
        assert_eq!(encode(b"\xFF", &ours()), None);
        assert!(encode(&[1; 65_535], &vec!["\u{1}".repeat(300); 40]).is_some(), "the largest fits its buffer");
    }

    #[test]
    fn the_account_of_a_good_token_is_named() {
        assert_eq!(judge(&review()), ClusterAnswer::Granted(client()));
        assert_eq!(judge_review(200, review().to_string().as_bytes(), &ours()), ClusterAnswer::Granted(client()));
        assert_eq!(account_target(&client()), "/api/v1/namespaces/default/serviceaccounts/mqtt-client");
        assert_eq!(client().to_string(), "default/mqtt-client");
    }

    #[test]
    fn a_token_that_the_cluster_refuses_is_refused_with_its_error() {
        let mut bad = review();
        bad["status"] = json!({ "user": {}, "error": "[invalid bearer token, token lookup failed]" });
        let text = "the cluster refuses the token: [invalid bearer token, token lookup failed]";
        assert_eq!(judge(&bad), ClusterAnswer::Refused(Text::new(text)));
        for status in [json!({}), json!({ "authenticated": false, "audiences": ["my-audience"] })] {
            bad["status"] = status;
            assert_eq!(judge(&bad), ClusterAnswer::Refused(Text::new("the cluster refuses the token")));
        }
    }

    #[test]
    fn a_token_without_an_audience_of_ours_is_refused() {
        for audiences in [json!(null), json!([]), json!(["https://kubernetes.default.svc"]), json!(["MY-AUDIENCE", ""])]
        {
            let mut bad = review();
            bad["status"]["audiences"] = audiences;
            assert_eq!(judge(&bad), ClusterAnswer::Refused(Text::new("the token is for another audience")));
        }
        let mut unaware = review();
        unaware["status"].as_object_mut().unwrap().remove("audiences");
        assert!(is_refused(&judge(&unaware)), "a server that knows of no audiences");
    }

    #[test]
    fn who_is_no_service_account_is_refused() {
        let long = format!("system:serviceaccount:default:{}", "a".repeat(254));
        let long_namespace = format!("system:serviceaccount:{}:a", "a".repeat(64));
        for username in [
            "",
            "kubernetes-admin",
            "system:serviceaccount:",
            "system:serviceaccount:default",
            "system:serviceaccount:default:",
            "system:serviceaccount::a",
            "system:serviceaccount:default:a:b",
            "system:serviceaccount:default:../../secrets",
            "system:serviceaccount:..:a",
            "system:serviceaccount:de.fault:a",
            "system:serviceaccount:default:a/b",
            "system:serviceaccount:default:a?b",
            "system:serviceaccount:default:a%2f",
            "system:serviceaccount:default:A",
            "system:serviceaccount:default:-a",
            "system:serviceaccount:default:a-",
            "system:serviceaccount:default:a..b",
            "system:serviceaccount:default:a\r\nb",
            "system:serviceaccount:default:é",
            "System:serviceaccount:default:a",
            &long,
            &long_namespace,
        ] {
            let mut bad = review();
            bad["status"]["user"]["username"] = json!(username);
            assert!(is_refused(&judge(&bad)), "{username}");
        }
        let mut bad = review();
        bad["status"]["user"] = json!(null);
        assert!(is_refused(&judge(&bad)));
        assert!(ServiceAccount::from_subject("system:serviceaccount:a-1:b.c-2").is_some());
    }

    #[test]
    fn a_review_that_is_not_understood_is_no_verdict() {
        let changed = |path: &str, value: Value| {
            let mut changed = review();
            *changed.pointer_mut(path).unwrap() = value;
            changed.to_string()
        };
        let deep = format!("{{\"status\":{}{}}}", "[".repeat(30_000), "]".repeat(30_000));
        for body in [
            String::new(),
            "{}".into(),
            "[]".into(),
            "not JSON".into(),
            deep,
            changed("/kind", json!("Status")),
            changed("/apiVersion", json!("authentication.k8s.io/v1beta1")),
            changed("/status", json!(null)),
            changed("/status", json!([true, ["my-audience"], { "username": "system:serviceaccount:a:b" }])),
            changed("/status/authenticated", json!("true")),
            changed("/status/authenticated", json!(1)),
            changed("/status/audiences", json!("my-audience")),
            changed("/status/user", json!(["system:serviceaccount:a:b"])),
            changed("/status/user/username", json!(7)),
            review().to_string().replace("\"authenticated\":true", "\"authenticated\":false,\"authenticated\":true"),
        ] {
            let shown = body.get(..60).unwrap_or(&body);
            assert!(is_unavailable(&judge_review(201, body.as_bytes(), &ours())), "{shown}");
        }
    }

    #[test]
    fn a_refusal_of_our_own_credential_is_no_verdict_on_the_client() {
        for status in [301, 400, 401, 403, 404, 409, 422, 429, 500, 503] {
            assert!(is_unavailable(&judge_review(status, review().to_string().as_bytes(), &ours())), "{status}");
        }
        for status in [201, 301, 401, 403, 409, 500] {
            assert!(is_unavailable(&judge_account(status, account().to_string().as_bytes(), &client())), "{status}");
        }
    }

    #[test]
    fn annotations_with_the_prefix_are_attributes() {
        let ClusterAnswer::Granted(attributes) = judge_account(200, account().to_string().as_bytes(), &client()) else {
            unreachable!()
        };
        assert_eq!(attributes.len(), 2);
        assert_eq!(attributes.value_of("group"), Some("authz-sat"));
        assert_eq!(attributes.value_of("area"), Some(""));
        let mut bare = account();
        bare["metadata"].as_object_mut().unwrap().remove("annotations");
        let answer = judge_account(200, bare.to_string().as_bytes(), &client());
        assert_eq!(answer, ClusterAnswer::Granted(Attributes::new()));
    }

    #[test]
    fn annotations_that_do_not_fit_refuse() {
        let mut full = account();
        for index in 0..=ATTRIBUTES_MAX {
            full["metadata"]["annotations"][format!("aio-broker-auth/n{index}")] = json!("");
        }
        assert!(is_refused(&judge_account(200, full.to_string().as_bytes(), &client())));
        let mut others = account();
        for index in 0..200 {
            others["metadata"]["annotations"][format!("example.org/n{index}")] = json!("x".repeat(100));
        }
        let answer = judge_account(200, others.to_string().as_bytes(), &client());
        assert!(matches!(answer, ClusterAnswer::Granted(_)), "other annotations do not count");
    }

    #[test]
    fn only_the_account_itself_grants() {
        assert!(is_refused(&judge_account(404, b"", &client())));
        for (path, value) in [
            ("/kind", json!("Secret")),
            ("/metadata/name", json!("other")),
            ("/metadata/namespace", json!("other")),
            ("/metadata/annotations", json!({ "aio-broker-auth/group": 1 })),
            ("/metadata/annotations", json!([])),
        ] {
            let mut other = account();
            *other.pointer_mut(path).unwrap() = value;
            assert!(is_unavailable(&judge_account(200, other.to_string().as_bytes(), &client())), "{path}");
        }
        let twice = account().to_string().replace("\"example.org/note\"", "\"aio-broker-auth/group\"");
        assert!(is_unavailable(&judge_account(200, twice.as_bytes(), &client())), "an annotation given twice");
    }

    #[test]
    fn the_end_of_a_token_is_its_exp() {
        let token = |claims: &str| format!("e30.{}.c2ln", Base64UrlUnpadded::encode_string(claims.as_bytes()));
        for (claims, end) in [
            (r#"{"exp":1904501056,"iat":1}"#, Ok(Some(UnixTime(1_904_501_056)))),
            (r#"{"exp":1904501056.75}"#, Ok(Some(UnixTime(1_904_501_056)))),
            (r#"{"exp":-1}"#, Ok(Some(UnixTime(0)))),
            (r#"{"exp":1e300}"#, Ok(Some(UnixTime(u64::MAX)))),
            (r#"{"iss":"kubernetes/serviceaccount"}"#, Ok(None)),
            (r#"{"exp":"1904501056"}"#, Err(NotAToken)),
            (r#"{"exp":1,"exp":2}"#, Err(NotAToken)),
            ("[1]", Err(NotAToken)),
            ("", Err(NotAToken)),
        ] {
            assert_eq!(expiry(token(claims).as_bytes()), end, "{claims}");
        }
        for text in ["", "a.b", "e30.e30", "e30.e30.x.y", "e30.!.x", "e30.e30=.x"] {
            assert_eq!(expiry(text.as_bytes()), Err(NotAToken), "{text}");
        }
        assert_eq!(expiry(b"\xFF.\xFF.\xFF"), Err(NotAToken));
    }
}
