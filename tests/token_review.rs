//! Tokens that a cluster judges, against the whole program: answers in the shapes of the Kubernetes API, and what can be
//! wrong with them. Numbers are those of the scenario catalogue.
#![allow(clippy::expect_used, clippy::unwrap_used)]

mod support;

use portcullis::pki;
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};
use support::client::{Client, certificates, key, tcp};
use support::https::{HttpsServer, Identity, Reply, Request};
use support::login::{BY_TOKEN, Issuer, auth, connect, log_in, site};
use support::{Folder, Site, free_ports};

const REVIEW: &str = "POST /apis/authentication.k8s.io/v1/tokenreviews HTTP/1.1";
const ACCOUNT: &str = "GET /api/v1/namespaces/default/serviceaccounts/mqtt-client HTTP/1.1";

/// A review of a good token, as the API server of Kubernetes 1.30 writes it.
fn review() -> Value {
    json!({
        "kind": "TokenReview",
        "apiVersion": "authentication.k8s.io/v1",
        "metadata": { "creationTimestamp": null },
        "spec": { "token": "eyJhbGciOi", "audiences": ["my-audience"] },
        "status": {
            "authenticated": true,
            "user": {
                "username": "system:serviceaccount:default:mqtt-client",
                "uid": "ee47e7b5-0e44-4a7f-b1e7-1f4a2b9ab2de",
                "groups": ["system:serviceaccounts", "system:serviceaccounts:default", "system:authenticated"],
                "extra": { "authentication.kubernetes.io/credential-id": ["JTI=4c1d"] }
            },
            "audiences": ["my-audience"]
        }
    })
}

/// The review of a token that the API server does not believe.
fn unauthenticated(error: &str) -> Value {
    json!({
        "kind": "TokenReview",
        "apiVersion": "authentication.k8s.io/v1",
        "metadata": { "creationTimestamp": null },
        "spec": { "token": "eyJhbGciOi", "audiences": ["my-audience"] },
        "status": { "user": {}, "error": error }
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
            "resourceVersion": "1234",
            "annotations": {
                "aio-broker-auth/group": "authz-sat",
                "kubectl.kubernetes.io/last-applied-configuration": "{}",
                "example.org/floor": "floor1"
            }
        }
    })
}

/// What the API server says in a kind of its own when it says no.
fn status(code: u16, reason: &str) -> Reply {
    Reply::json(
        code,
        json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "reason": reason, "code": code }),
    )
}

/// What the two questions are answered with from now on.
type Answers = Arc<Mutex<(Box<dyn Fn() -> Reply + Send>, Box<dyn Fn() -> Reply + Send>)>>;

struct Bench {
    site: Site,
    port: u16,
    server: HttpsServer,
    answers: Answers,
}

/// The settings of the cluster that say how it knows us.
const BEARER: &str = "tokenSecretRef: api-token";
const CERTIFICATE: &str = "auth: {x509: {secretRef: api-client}}";

impl Bench {
    fn start(name: &str, credential: &str) -> Self {
        let (folder, port) = (Folder::new(name), free_ports(1));
        pki::demo::create(&folder.join("demo")).unwrap();
        let demo = |file: &str| std::fs::read(folder.join(&format!("demo/{file}"))).unwrap();
        folder.write("site/trust/cluster-ca/ca.pem", demo("contoso_root_ca.crt"));
        folder.write("site/secrets/api-token/token", "first-token\n");
        folder.write("site/secrets/api-client/tls.crt", demo("thermostat.crt"));
        folder.write("site/secrets/api-client/tls.key", demo("thermostat.key"));
        let by_certificate = credential == CERTIFICATE;
        let identity = Identity {
            chain: certificates(&folder.join("demo/mqtts-endpoint.crt")),
            key: key(&folder.join("demo/mqtts-endpoint.key")),
            client_authority: by_certificate.then(|| certificates(&folder.join("demo/fabrikam_root_ca.crt")).remove(0)),
        };
        let answers: Answers =
            Arc::new(Mutex::new((Box::new(|| Reply::json(201, review())), Box::new(|| Reply::json(200, account())))));
        let said = Arc::clone(&answers);
        let server = HttpsServer::start(identity, move |request| {
            let said = said.lock().unwrap();
            match request.line.as_str() {
                REVIEW => said.0(),
                ACCOUNT => said.1(),
                _ => status(404, "NotFound"),
            }
        });
        let gateway = format!(
            "  serviceAccountTokens:\n    tokenReview:\n      endpoint: https://127.0.0.1:{}\n      \
             caCertConfigMap: cluster-ca\n      {credential}\n",
            server.port
        );
        Self { site: site(folder, port, BY_TOKEN, &gateway), port, server, answers }
    }

    fn review_is(&self, reply: impl Fn() -> Reply + Send + 'static) {
        self.answers.lock().unwrap().0 = Box::new(reply);
    }

    fn account_is(&self, reply: impl Fn() -> Reply + Send + 'static) {
        self.answers.lock().unwrap().1 = Box::new(reply);
    }

    fn with_token(&self, token: &[u8]) -> u8 {
        log_in(self.port, &connect("c", None, None, Some(("K8S-SAT", token)))).1
    }

    fn reason(&self) -> u8 {
        self.with_token(&Issuer::new().token("my-audience", 600))
    }
}

fn assert_authorized_with(requests: &[Request], bearer: &str) {
    assert!(!requests.is_empty());
    for request in requests {
        assert_eq!(request.values("Authorization"), [format!("Bearer {bearer}")], "{request:?}");
    }
}

#[test]
fn scenario_38_the_cluster_vouches_for_a_token_and_its_annotations_are_attributes() {
    let mut bench = Bench::start("review", BEARER);
    let token = Issuer::new().token("my-audience", 600);
    let mut client = Client::new(tcp(bench.port));
    client.send(&connect("c", None, None, Some(("K8S-SAT", &token))));
    let connack = client.receive().unwrap();
    assert_eq!((connack.first, connack.body[1]), (0x20, 0), "without an AUTH before it: {connack:?}");
    assert_eq!(client.publish("odd-numbered-orders", b"x"), 0);
    assert_eq!(client.subscribe(&["orders", "orders/#"]), [1, 135]);
    assert_eq!(client.publish("floors/1", b"x"), 135, "an annotation without the prefix is no attribute");

    let seen = bench.server.seen();
    assert_eq!(seen.iter().map(|request| request.line.as_str()).collect::<Vec<_>>(), [REVIEW, ACCOUNT]);
    assert_eq!(
        serde_json::from_str::<Value>(&seen[0].body).unwrap(),
        json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": { "token": String::from_utf8(token.clone()).unwrap(), "audiences": ["my-audience"] },
        })
    );
    assert_eq!(seen[0].values("Content-Type"), ["application/json"]);
    assert_authorized_with(&seen, "first-token");
    assert!(seen.iter().all(|request| request.connection == 0), "on one connection");

    // Renewal asks again. The bearer token is read each time: others renew it.
    bench.site.folder.write("site/secrets/api-token/token", "second-token");
    client.send(&auth("K8S-SAT", &Issuer::new().token("my-audience", 900)));
    let answer = client.receive().unwrap();
    assert_eq!((answer.first, answer.body[0]), (0xF0, 0), "{answer:?}");
    assert_authorized_with(&bench.server.seen()[2..], "second-token");
    // A renewal that the cluster cannot judge now waits, one that it refuses ends.
    bench.review_is(|| status(503, "ServiceUnavailable"));
    client.send(&auth("K8S-SAT", &token));
    let answer = client.receive().unwrap();
    assert_eq!((answer.first, answer.body[0]), (0xF0, 0x18), "{answer:?}");
    client.ping();
    bench.review_is(|| Reply::json(201, unauthenticated("[invalid bearer token, token lookup failed]")));
    client.send(&auth("K8S-SAT", &token));
    client.is_disconnected(0x87);

    // Without a token of our own nobody can be judged.
    bench.review_is(|| Reply::json(201, review()));
    for nothing in ["", "two words", "line\r\nX: y", &"x".repeat(70_000)] {
        let before = bench.server.seen().len();
        bench.site.folder.write("site/secrets/api-token/token", nothing);
        assert_eq!(bench.reason(), 0x88);
        assert_eq!(bench.server.seen().len(), before, "the cluster is not asked");
    }
    bench.site.process.wait_for("the token for the cluster cannot be read");
    bench.site.folder.write("site/secrets/api-token/token", "third-token");
    assert_eq!(bench.reason(), 0);
}

#[test]
fn the_cluster_knows_us_by_a_certificate_too() {
    let bench = Bench::start("review-mutual", CERTIFICATE);
    assert_eq!(bench.reason(), 0);
    assert!(bench.server.seen().iter().all(|request| request.values("Authorization").is_empty()));
}

#[test]
fn whom_the_cluster_does_not_vouch_for_is_refused() {
    let mut bench = Bench::start("review-refused", BEARER);
    let with = |path: &'static str, value: Value| {
        let mut review = review();
        *review.pointer_mut(path).expect("it is there") = value;
        review
    };
    for (review, why) in [
        (unauthenticated("[invalid bearer token, token lookup failed]"), "token lookup failed"),
        (unauthenticated("[a\r\nb]"), "u{a}b]"),
        (with("/status/authenticated", json!(false)), "the cluster refuses the token"),
        (with("/status/audiences", json!(["https://kubernetes.default.svc"])), "another audience"),
        (with("/status/audiences", json!([])), "another audience"),
        (with("/status/audiences", json!(null)), "another audience"),
        (with("/status/user/username", json!("kubernetes-admin")), "not of a service account"),
        (with("/status/user/username", json!("system:serviceaccount:default:../../../x")), "not of a service account"),
        (with("/status/user", json!(null)), "not of a service account"),
    ] {
        let before = bench.server.seen().len();
        bench.review_is(move || Reply::json(201, review.clone()));
        assert_eq!(bench.reason(), 0x87, "{why}");
        assert_eq!(bench.server.seen().len() - before, 1, "{why}: the account is not looked at");
        bench.site.process.wait_for(why);
    }
    bench.review_is(|| Reply::json(201, review()));
    // Attributes that do not fit are not cut.
    let full = || {
        let mut account = account();
        for index in 0..16 {
            account["metadata"]["annotations"][format!("aio-broker-auth/n{index}")] = json!("");
        }
        Reply::json(200, account)
    };
    let long = || {
        let mut account = account();
        account["metadata"]["annotations"]["aio-broker-auth/long"] = json!("x".repeat(600));
        Reply::json(200, account)
    };
    for reply in [full, long, || status(404, "NotFound")] {
        bench.account_is(reply);
        assert_eq!(bench.reason(), 0x87);
    }
    bench.site.process.wait_for("attributes do not fit");
    bench.site.process.wait_for("does not exist");
    bench.account_is(|| Reply::json(200, account()));
    // What is no token at all is not sent anywhere.
    let before = bench.server.seen().len();
    for bad in [&b""[..], b"\0\0\0", b"x", b"a.b", b"a.b.c.d", b"\xFF\xFE", &[b'a'; 65_535]] {
        assert_eq!(bench.with_token(bad), 0x87);
    }
    assert_eq!(bench.server.seen().len(), before);
    assert_eq!(bench.reason(), 0);
}

#[test]
fn a_cluster_that_gives_no_verdict_lets_nobody_in_and_its_clients_try_again() {
    let bench = Bench::start("review-unavailable", BEARER);
    let changed = |path: &str, value: Value| {
        let mut review = review();
        *review.pointer_mut(path).expect("it is there") = value;
        review.to_string()
    };
    let bodies = [
        String::new(),
        "[]".to_owned(),
        "<html>".to_owned(),
        changed("/kind", json!("Status")),
        changed("/apiVersion", json!("authentication.k8s.io/v1beta1")),
        changed("/status", json!(null)),
        changed("/status/authenticated", json!("true")),
        changed("/status/audiences", json!("my-audience")),
        review().to_string().replace("\"authenticated\":true", "\"authenticated\":false,\"authenticated\":true"),
    ];
    for body in bodies {
        bench.review_is({
            let body = body.clone();
            move || Reply::Json(201, body.clone())
        });
        assert_eq!(bench.reason(), 0x88, "{body}");
    }
    for code in [301, 400, 401, 403, 404, 409, 429, 500, 503] {
        bench.review_is(move || status(code, "Failure"));
        assert_eq!(bench.reason(), 0x88, "{code}");
    }
    for reply in [|| Reply::HangUp, || Reply::Last(b"HTTP/1.1 201 Created\r\nContent-Length: 9".to_vec())] {
        bench.review_is(reply);
        assert_eq!(bench.reason(), 0x88);
    }
    bench.review_is(|| Reply::json(201, review()));
    for code in [201, 401, 403, 500] {
        bench.account_is(move || Reply::json(code, account()));
        assert_eq!(bench.reason(), 0x88, "{code}");
    }
    for (path, value) in [("/kind", json!("Secret")), ("/metadata/name", json!("other"))] {
        bench.account_is(move || {
            let mut other = account();
            *other.pointer_mut(path).expect("it is there") = value.clone();
            Reply::json(200, other)
        });
        assert_eq!(bench.reason(), 0x88, "{path}");
    }
    bench.account_is(|| Reply::json(200, account()));
    assert_eq!(bench.reason(), 0, "and it is asked again the next time");
}
