//! Credentials whose dates a clock judges that may be wrong.

use super::*;
use crate::authentication::{Answer, Authenticator, DenyList, Inquiry, Passwords, Proof, Refusal};
use crate::config::blob::{Authentication, Configuration, Method, ServiceAccountTokens, TokenIssuer, TrustBundle};
use crate::crypto;
use crate::distinguished_name::DistinguishedName;
use crate::pki::{Issued, Template};
use crate::time::{RELEASED, UnixTime};
use base64ct::{Base64UrlUnpadded, Encoding as _};
use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{Signature, SigningKey};
use rustls_pki_types::CertificateDer;

const NOW: UnixTime = RELEASED.plus_seconds(1_000_000);
const HOUR: u64 = 3_600;
/// A clock that nobody has set.
const UNSET: UnixTime = UnixTime(1_000);

/// Ports by index: no authentication, then one method each.
const PLAIN: u16 = 0;
const X509: u16 = 1;
const TOKEN: u16 = 2;
const PASSWORD: u16 = 3;

impl Broker {
    /// Puts a deny list in force for all methods.
    fn deny(&self, list: &std::sync::Arc<DenyList>) {
        let places = self.admission.authenticators.iter().map(Authenticator::revocation);
        places.for_each(|place| place.replace_deny_list(std::sync::Arc::clone(list)));
    }
}

struct Credentials {
    bench: Bench,
    chain: Vec<CertificateDer<'static>>,
    token: String,
}

impl Credentials {
    /// A certificate and a token that end an hour after `NOW`.
    fn new(clock_floor: UnixTime) -> Self {
        let name = |text: &str| DistinguishedName::parse(text).unwrap();
        let (begin, end) = (UnixTime(RELEASED.0 - 10), NOW.plus_seconds(HOUR));
        let later = NOW.plus_seconds(1_000 * HOUR);
        let root = Issued::root(&Template::authority(name("CN=Root"), None, begin, later)).unwrap();
        let leaf = root.issue(&Template::leaf(name("CN=client"), begin, end)).unwrap();
        let key = SigningKey::from_slice(&[7; 32]).unwrap();
        let configuration = configuration(&root, &key);
        let make = |index| {
            let algorithms = crypto::provider().signature_verification_algorithms.all;
            Authenticator::new(&configuration, index, algorithms, clock_floor).unwrap()
        };
        let ports =
            [None, Some(0), Some(1), Some(2)].map(|authenticator| PortAdmission { authenticator, policy: None });
        let admission = Admission {
            ports: ports.to_vec(),
            authenticators: (0..3).map(make).collect(),
            policies: Vec::new(),
            insiders: Vec::new(),
        };
        let broker = Broker::new(&capacities(), &limits(), &settings(), admission, 42);
        let bench = Bench { broker, now: Now::default() };
        Self { bench, chain: vec![leaf.certificate_der().unwrap().into()], token: token(&key, end) }
    }

    /// The Reason Code that a client of this port hears now, and its connection.
    fn log_in(&mut self, port: u16) -> (u8, Key<Connection>) {
        let bench = &mut self.bench;
        let key = bench.broker.open(bench.now.instant, port).unwrap();
        let credentials = [&wire::text("K8S-SAT")[..], &wire::text(&self.token)].concat();
        let head = [&wire::text("MQTT")[..], &[5, 0xC2, 0, 0, 0], &wire::text(&format!("c{port}"))].concat();
        let chain = if port == X509 { &self.chain[..] } else { &[] };
        bench.broker.receive(bench.now, key, chain, &wire::packet(0x10, &[&head[..], &credentials].concat()));
        if let Some((ticket, question)) = bench.broker.next_question() {
            assert!(port == PASSWORD && matches!(question.inquiry, Inquiry::Password { .. }));
            bench.broker.answer(bench.now, ticket, chain, Answer::Proven(Proof::default()));
        }
        let connack = &bench.take(key)[0];
        assert_eq!(connack.0, 0x20);
        (connack.1[1], key)
    }

    fn reasons(&mut self) -> [u8; 4] {
        let answers = [PLAIN, X509, TOKEN, PASSWORD].map(|port| self.log_in(port));
        answers.iter().for_each(|(_, key)| self.bench.hang_up(*key));
        answers.map(|(reason, _)| reason)
    }

    /// Sets the wall clock, as the turn notices it.
    fn set_clock(&mut self, time: UnixTime, connections: &[Key<Connection>]) {
        self.bench.now.unix = time;
        for key in connections {
            let chain = self.chain.clone();
            self.bench.broker.judge_again(self.bench.now, *key, &chain);
        }
        self.bench.broker.expire(self.bench.now);
    }
}

fn configuration(root: &Issued, key: &SigningKey) -> Configuration {
    let mut configuration =
        crate::config::load_embedded(crate::config::DEFAULT_FILES, &crate::config::LoadOptions::default())
            .unwrap()
            .configuration;
    let certificates = vec![root.certificate_der().unwrap()];
    configuration.trust_bundles.push(TrustBundle { name: "ca".to_owned(), certificates });
    let methods = [
        Method::X509 { trust_bundle: 0, attributes: Vec::new() },
        Method::ServiceAccountToken { audiences: vec!["us".to_owned()] },
        Method::UsernamePassword { secret: "users".to_owned() },
    ];
    configuration.authentications =
        methods.into_iter().map(|method| Authentication { name: "one".to_owned(), methods: vec![method] }).collect();
    let point = key.verifying_key().to_encoded_point(false);
    let [x, y] = [point.x(), point.y()].map(|bytes| Base64UrlUnpadded::encode_string(bytes.unwrap()));
    let keys = format!(r#"{{"keys":[{{"kty":"EC","crv":"P-256","alg":"ES256","use":"sig","x":"{x}","y":"{y}"}}]}}"#);
    let issuers = vec![TokenIssuer { issuer: "i".to_owned(), key_sets: vec![keys] }];
    configuration.gateway.service_account_tokens =
        Some(ServiceAccountTokens::Offline { issuers, attributes: Vec::new() });
    configuration
}

fn token(key: &SigningKey, end: UnixTime) -> String {
    let claims = format!(r#"{{"iss":"i","aud":"us","exp":{},"sub":"system:serviceaccount:a:b"}}"#, end.0);
    let parts = [r#"{"alg":"ES256"}"#, &claims].map(|part| Base64UrlUnpadded::encode_string(part.as_bytes()));
    let signature: Signature = key.sign(parts.join(".").as_bytes());
    format!("{}.{}", parts.join("."), Base64UrlUnpadded::encode_string(&signature.to_bytes()))
}

#[test]
fn until_the_clock_is_set_who_has_a_credential_with_dates_is_to_try_again() {
    let mut credentials = Credentials::new(RELEASED);
    for (time, with_dates) in [(UNSET, 0x88), (UnixTime(RELEASED.0 - 1), 0x88), (RELEASED, 0), (NOW, 0)] {
        credentials.bench.now.unix = time;
        assert_eq!(credentials.reasons(), [0, with_dates, with_dates, 0], "{time}");
    }
    credentials.bench.now.unix = NOW.plus_seconds(HOUR + 1);
    assert_eq!(credentials.reasons(), [0, 0x87, 0x87, 0], "now they are judged, and over");
}

#[test]
fn a_clock_that_stands_before_its_last_known_time_is_not_set() {
    let mut credentials = Credentials::new(NOW);
    for (time, with_dates) in [(UNSET, 0x88), (UnixTime(NOW.0 - 1), 0x88), (NOW, 0)] {
        credentials.bench.now.unix = time;
        assert_eq!(credentials.reasons(), [0, with_dates, with_dates, 0], "{time}");
    }
    // A floor below the release is none.
    let mut credentials = Credentials::new(UNSET);
    credentials.bench.now.unix = UnixTime(RELEASED.0 - 1);
    assert_eq!(credentials.reasons(), [0, 0x88, 0x88, 0]);
}

#[test]
fn a_clock_that_is_set_past_the_end_of_a_credential_ends_its_connection() {
    let mut credentials = Credentials::new(RELEASED);
    credentials.bench.now.unix = NOW;
    let keys = [PLAIN, X509, TOKEN, PASSWORD].map(|port| credentials.log_in(port).1);
    // The users are those of a file, in which there is nobody.
    credentials.bench.broker.set_passwords(2, 0, Passwords::parse("[K8S-SAT]\npassword = \"$pbkdf2-sha512$i=100000,l=64$HqJwOCHweNk1pLryiu3RsA$KVSvxKYcibIG5S5n55RvxKRTdAAfCUtBJoy5IuFzdSZyzkwvUcU+FPawEWFPn+06JyZsndfRTfpiEh+2eSJLkg\"\n").unwrap());
    for harmless in [NOW.plus_seconds(HOUR - 1), RELEASED, UNSET, NOW] {
        credentials.set_clock(harmless, &keys);
        assert_eq!(keys.map(|key| credentials.bench.is_closing(key)), [false; 4], "{harmless}");
    }
    credentials.set_clock(NOW.plus_seconds(HOUR + 1), &keys);
    assert_eq!(keys.map(|key| credentials.bench.is_closing(key)), [false, true, true, false]);
}

#[test]
fn scenario_58_a_full_session_table_is_a_reason_to_try_again() {
    let mut bench = Bench::new(&Capacities { sessions: 2, ..capacities() }, &limits());
    let (first, _) = (bench.client("a"), bench.client("b"));
    let key = bench.open();
    bench.give(key, &wire::connect("c", 0, &[]));
    assert_eq!(bench.take(key)[0].1[1], 0x97, "the vendor's clients come back after it, and never after 0x87");
    bench.hang_up(first);
    bench.client("c");
}

#[test]
fn a_user_who_was_removed_while_a_hash_was_computed_does_not_come_in() {
    let mut credentials = Credentials::new(RELEASED);
    let bench = &mut credentials.bench;
    bench.now.unix = NOW;
    let key = bench.broker.open(bench.now.instant, PASSWORD).unwrap();
    let head = [&wire::text("MQTT")[..], &[5, 0xC2, 0, 0, 0], &wire::text("c"), &wire::text("u"), &wire::text("p")];
    bench.give(key, &wire::packet(0x10, &head.concat()));
    let (ticket, _) = bench.broker.next_question().unwrap();
    bench.broker.set_passwords(2, 0, Passwords::default());
    bench.broker.answer(bench.now, ticket, &[], Answer::Proven(Proof::default()));
    assert!(bench.take(key).is_empty(), "the answer is about a user of before");
    let (ticket, _) = bench.broker.next_question().unwrap();
    bench.broker.answer(bench.now, ticket, &[], Answer::Refused(Refusal::Password));
    assert_eq!(bench.take(key)[0].1[1], 0x86);
}

#[test]
fn a_denied_certificate_is_denied_whichever_method_let_its_client_in_and_whatever_the_clock_says() {
    let mut credentials = Credentials::new(RELEASED);
    credentials.bench.now.unix = NOW;
    let chain = credentials.chain.clone();
    let certificate = credentials.log_in(X509).1;
    // A client with a password that has shown a certificate besides.
    let password = credentials.log_in(PASSWORD).1;
    credentials.bench.broker.set_passwords(2, 0, Passwords::parse("[K8S-SAT]\npassword = \"$pbkdf2-sha512$i=100000,l=64$HqJwOCHweNk1pLryiu3RsA$KVSvxKYcibIG5S5n55RvxKRTdAAfCUtBJoy5IuFzdSZyzkwvUcU+FPawEWFPn+06JyZsndfRTfpiEh+2eSJLkg\"\n").unwrap());
    credentials.set_clock(UNSET, &[certificate, password]);
    assert_eq!([certificate, password].map(|key| credentials.bench.is_closing(key)), [false; 2]);
    let denied = DenyList::read("deny.yaml", b"- subject: CN = client\n").unwrap();
    credentials.bench.broker.deny(&std::sync::Arc::new(denied));
    for key in [certificate, password] {
        credentials.bench.broker.judge_again(credentials.bench.now, key, &chain);
        assert!(credentials.bench.is_closing(key));
    }
}
