//! The blob: what comes back, and what is refused.
#![allow(missing_docs, clippy::expect_used, clippy::unwrap_used)]

mod config_pki;

use portcullis::commands::{CommandError, bake, check, inspect};
use portcullis::config::blob::{
    AutomaticCertificate, ClientIdentifiers, Configuration, ExpiryNotice, Kept, KeyAlgorithm, KeyRotation, Method,
    Persistence, ServiceAccountTokens, StaleRevocationLists, Tls,
};
use portcullis::config::envelope::SCHEMA;
use portcullis::config::verify::Defect;
use portcullis::config::{BlobError, DEFAULT_FILES, LoadOptions, TUTORIAL_FILES, decode, encode, load_embedded};
use std::path::PathBuf;

fn tutorial() -> Configuration {
    let (ca, (chain, key)) = (config_pki::authority(), config_pki::server());
    let mut files = TUTORIAL_FILES.to_vec();
    files.extend([
        ("trust/fabrikam-ca/client_ca.pem", ca.as_str()),
        ("secrets/broker-server-cert/tls.crt", chain.as_str()),
        ("secrets/broker-server-cert/tls.key", key.as_str()),
    ]);
    let options = LoadOptions { embed_secrets: true, ..LoadOptions::default() };
    load_embedded(&files, &options).unwrap_or_else(|errors| panic!("{errors}")).configuration
}

/// The vendor's documented example of all its methods.
const ALL_METHODS: &str = r#"{ "authenticationMethods": [
  { "method": "Custom",
    "customSettings": {
      "endpoint": "https://auth-server-template",
      "caCertConfigMap": "custom-auth-ca",
      "auth": { "x509": { "secretRef": "custom-auth-client-cert" } },
      "headers": { "header_key": "header_value" } } },
  { "method": "ServiceAccountToken",
    "serviceAccountTokenSettings": { "audiences": [ "aio-internal", "my-audience" ] } },
  { "method": "X509",
    "x509Settings": {
      "trustedClientCaCert": "client-ca",
      "additionalValidation": "None",
      "authorizationAttributes": {
        "root":         { "subject": "CN = Contoso Root CA Cert, OU = Engineering, C = US", "attributes": { "organization": "contoso" } },
        "intermediate": { "subject": "CN = Contoso Intermediate CA", "attributes": { "city": "seattle", "foo": "bar" } },
        "smartfan":     { "subject": "CN = smart-fan", "attributes": { "building": "17" } } } } }
] }"#;

const REVIEW: &str =
    "tokenReview: {endpoint: 'https://10.0.0.1:6443', caCertConfigMap: cluster-ca, tokenSecretRef: api-token}";
const OFFLINE: &str = "issuers: [{issuer: 'https://kubernetes.default.svc.cluster.local', keysConfigMap: cluster-keys}]\n    attributes: {azure-iot-operations/mqtt-client: {group: authz-sat}}";

/// The vendor's example and our password method on a port of each mode of TLS; `tokens` is `serviceAccountTokens`.
fn every_method(tokens: &str, embed_secrets: bool) -> Configuration {
    let (ca, (chain, key)) = (config_pki::authority(), config_pki::server());
    let listener = "serviceType: LoadBalancer\nports:\n- port: 8883\n  authenticationRef: all\n  tls: {mode: Automatic, certManagerCertificateSpec: {issuerRef: {name: local-ca, kind: ClusterIssuer, group: cert-manager.io}, privateKey: {algorithm: ec384, rotationPolicy: Never}, duration: 48h, renewBefore: 1h30m, san: {dns: ['*.example.com'], ip: [192.168.1.1, '0:0::1']}}}\n- port: 8884\n  authenticationRef: users\n  tls: {mode: Automatic, certManagerCertificateSpec: {issuerRef: {name: local-ca, kind: Issuer}}}\n- port: 8885\n  tls: {mode: Manual, manual: {secretRef: server}}\n";
    let gateway = format!(
        "apiVersion: portcullis.edge/v1\nkind: Gateway\nmetadata: {{name: default}}\nspec:\n  paths: {{issuers: i, revocation: r}}\n  sameKeyAlgorithm: false\n  staleRevocationLists: Accept\n  clientIdentifiers: Shared\n  expiryNotice: Disconnect\n  serviceAccountTokens:\n    {tokens}\n"
    );
    let mut files = vec![
        ("any.listener.yaml", listener),
        ("gateway.yaml", &*gateway),
        ("all.authentication.json", ALL_METHODS),
        (
            "users.authentication.yaml",
            "authenticationMethods: [{method: usernamePassword, usernamePasswordSettings: {secretRef: users}}]",
        ),
        ("trust/custom-auth-ca/ca.pem", &ca),
        ("trust/client-ca/ca.pem", &ca),
        ("secrets/server/tls.crt", &chain),
        ("secrets/server/tls.key", &key),
        ("secrets/custom-auth-client-cert/tls.crt", &chain),
        ("secrets/custom-auth-client-cert/tls.key", &key),
    ];
    if tokens == REVIEW {
        files.push(("trust/cluster-ca/ca.pem", &ca));
    } else {
        files.push(("keys/cluster-keys/a.json", "{\"keys\": [{\"kty\": \"EC\", \"kid\": \"KEYTEXT\"}]}"));
        files.push(("keys/cluster-keys/b.json", "{\"keys\": [{\"kty\": \"OKP\"}]}"));
    }
    let options = LoadOptions { embed_secrets, ..LoadOptions::default() };
    load_embedded(&files, &options).unwrap_or_else(|errors| panic!("{errors}")).configuration
}

#[test]
fn every_method_is_compiled() {
    let configuration = every_method(REVIEW, true);
    let gateway = &configuration.gateway;
    assert_eq!((gateway.issuers_folder.as_str(), gateway.revocation_folder.as_str()), ("i", "r"));
    assert!(!gateway.same_key_algorithm);
    assert_eq!(gateway.stale_revocation_lists, StaleRevocationLists::Accept);
    assert_eq!(gateway.client_identifiers, ClientIdentifiers::Shared);
    assert_eq!(gateway.expiry_notice, ExpiryNotice::Disconnect);
    let bundle = |index: Option<u16>| index.map(|index| configuration.trust_bundles[usize::from(index)].name.as_str());
    let secret = |index: Option<u16>| index.map(|index| configuration.secrets[usize::from(index)].name.as_str());
    let Some(ServiceAccountTokens::TokenReview { server, token_secret }) = &gateway.service_account_tokens else {
        panic!("{:?}", gateway.service_account_tokens)
    };
    assert_eq!((server.endpoint.as_str(), bundle(server.trust_bundle)), ("https://10.0.0.1:6443", Some("cluster-ca")));
    assert_eq!((server.client_secret, token_secret.as_deref()), (None, Some("api-token")));
    let [Method::Custom { server }, Method::ServiceAccountToken { audiences }, Method::X509 { attributes, .. }] =
        configuration.authentications[0].methods.as_slice()
    else {
        panic!("{:?}", configuration.authentications)
    };
    assert_eq!(server.endpoint, "https://auth-server-template");
    assert_eq!(bundle(server.trust_bundle), Some("custom-auth-ca"));
    assert_eq!(secret(server.client_secret), Some("custom-auth-client-cert"));
    assert_eq!(server.headers, [("header_key".to_owned(), "header_value".to_owned())]);
    assert_eq!((audiences.join(" ").as_str(), attributes.len()), ("aio-internal my-audience", 3));
    assert_eq!(configuration.authentications[1].methods, [Method::UsernamePassword { secret: "users".to_owned() }]);
    assert!(configuration.secrets.iter().all(|secret| secret.embedded.is_some()));
    assert!(every_method(REVIEW, false).secrets.iter().all(|secret| secret.embedded.is_none()));
}

#[test]
fn automatic_tls_is_compiled_with_its_defaults() {
    let configuration = every_method(REVIEW, false);
    let given = AutomaticCertificate {
        issuer: "local-ca".to_owned(),
        algorithm: KeyAlgorithm::Ec384,
        rotation: KeyRotation::Never,
        duration_seconds: 172_800,
        renew_before_seconds: 5_400,
        secret_name: "local-ca-8883".to_owned(),
        dns_names: vec!["*.example.com".to_owned()],
        ip_addresses: vec!["192.168.1.1".to_owned(), "::1".to_owned()],
    };
    let default = AutomaticCertificate {
        issuer: "local-ca".to_owned(),
        algorithm: KeyAlgorithm::Ec256,
        rotation: KeyRotation::Always,
        duration_seconds: 2_592_000,
        renew_before_seconds: 864_000,
        secret_name: "local-ca-8884".to_owned(),
        dns_names: Vec::new(),
        ip_addresses: Vec::new(),
    };
    assert_eq!(configuration.ports[0].tls, Some(Tls::Automatic(given)));
    assert_eq!(configuration.ports[1].tls, Some(Tls::Automatic(default)));
    assert!(matches!(configuration.ports[2].tls, Some(Tls::Manual { .. })));
}

#[test]
fn keys_and_attributes_for_offline_tokens_are_compiled() {
    let configuration = every_method(OFFLINE, false);
    let Some(ServiceAccountTokens::Offline { issuers, attributes }) = configuration.gateway.service_account_tokens
    else {
        panic!("{:?}", configuration.gateway.service_account_tokens)
    };
    assert_eq!((issuers.len(), issuers[0].key_sets.len()), (1, 2));
    assert_eq!(issuers[0].issuer, "https://kubernetes.default.svc.cluster.local");
    assert_eq!(attributes[0].account, "azure-iot-operations/mqtt-client");
    assert_eq!(attributes[0].attributes, [("group".to_owned(), "authz-sat".to_owned())]);
}

#[test]
fn every_method_survives_the_blob() {
    for tokens in [REVIEW, OFFLINE] {
        let configuration = every_method(tokens, true);
        assert_eq!(decode(&encode(&configuration).unwrap()), Ok(configuration));
    }
}

#[test]
fn what_is_shown_of_every_method_holds_no_secret() {
    for (tokens, expected) in [
        (
            REVIEW,
            [
                "service account tokens: reviewed by https://10.0.0.1:6443",
                "asks with the token secrets/api-token/token",
                "trusts cluster-ca",
            ],
        ),
        (
            OFFLINE,
            [
                "service account tokens: verified here",
                "issuer https://kubernetes.default.svc.cluster.local: 2 key sets",
                "azure-iot-operations/mqtt-client gives group=authz-sat",
            ],
        ),
    ] {
        let configuration = every_method(tokens, true);
        let mut shown = Vec::new();
        inspect::show(&configuration, &mut shown).unwrap();
        let shown = String::from_utf8(shown).unwrap();
        for expected in expected.into_iter().chain([
            "issuers in i, revocation lists in r",
            "any key algorithms, stale revocation lists Accept",
            "client identifiers Shared, expiry notice Disconnect",
            ":8883, MQTT, TLS from issuer local-ca, authentication all, everything is allowed",
            "certificate local-ca-8883: Ec384 key, rotation Never",
            "valid for 172800 seconds, renewed 5400 seconds before the end",
            "for *.example.com",
            "1. Custom, asks https://auth-server-template",
            "trusts custom-auth-ca",
            "shows the certificate of secret custom-auth-client-cert",
            "sends the header header_key",
            "2. ServiceAccountToken",
            "for the audience my-audience",
            "3. X509, trusts client-ca",
            "1. UsernamePassword, users in secrets/users/passwords.toml",
        ]) {
            assert!(shown.contains(expected), "{expected} in\n{shown}");
        }
        for text in [shown, format!("{configuration:?}")] {
            assert!(!text.contains("header_value") && !text.contains("PRIVATE KEY"), "{text}");
        }
    }
}

#[test]
fn methods_that_do_not_fit_together_are_refused() {
    let refused = |tokens: &str, change: &dyn Fn(&mut Configuration)| {
        let mut configuration = every_method(tokens, false);
        change(&mut configuration);
        match decode(&sealed(1, SCHEMA, &postcard::to_allocvec(&configuration).unwrap())) {
            Err(BlobError::Defective(defect)) => defect,
            other => panic!("{other:?}"),
        }
    };
    let server = |change: &dyn Fn(&mut portcullis::config::blob::HttpsServer)| {
        refused(REVIEW, &|c| match &mut c.authentications[0].methods[0] {
            Method::Custom { server } => change(server),
            other => panic!("{other:?}"),
        })
    };
    assert_eq!(server(&|server| server.trust_bundle = Some(7)), Defect::Reference);
    assert_eq!(server(&|server| server.client_secret = Some(7)), Defect::Reference);
    assert_eq!(server(&|server| server.endpoint = "https://x/?y".to_owned()), Defect::HttpsServer);
    assert_eq!(server(&|server| server.headers[0].1 = "a\r\nb".to_owned()), Defect::HttpsServer);
    let methods = |method: Method| refused(REVIEW, &move |c| c.authentications[0].methods[0] = method.clone());
    assert_eq!(methods(Method::ServiceAccountToken { audiences: Vec::new() }), Defect::Method);
    assert_eq!(methods(Method::ServiceAccountToken { audiences: vec![String::new()] }), Defect::Method);
    assert_eq!(methods(Method::UsernamePassword { secret: "../x".to_owned() }), Defect::SecretName);
    assert_eq!(refused(REVIEW, &|c| c.gateway.service_account_tokens = None), Defect::Method);
    let review = |change: &dyn Fn(&mut portcullis::config::blob::HttpsServer, &mut Option<String>)| {
        refused(REVIEW, &|c| match &mut c.gateway.service_account_tokens {
            Some(ServiceAccountTokens::TokenReview { server, token_secret }) => change(server, token_secret),
            other => panic!("{other:?}"),
        })
    };
    assert_eq!(review(&|server, _| server.trust_bundle = Some(7)), Defect::Reference);
    assert_eq!(review(&|_, token| *token = None), Defect::ServiceAccountTokens);
    assert_eq!(review(&|server, _| server.client_secret = Some(0)), Defect::ServiceAccountTokens);
    assert_eq!(review(&|_, token| *token = Some("../x".to_owned())), Defect::SecretName);
    let offline = |change: &dyn Fn(&mut ServiceAccountTokens)| {
        refused(OFFLINE, &|c| change(c.gateway.service_account_tokens.as_mut().unwrap()))
    };
    let change = |issuers: bool, twice: bool| {
        move |tokens: &mut ServiceAccountTokens| match tokens {
            ServiceAccountTokens::Offline { issuers: list, .. } if issuers && twice => list.push(list[0].clone()),
            ServiceAccountTokens::Offline { issuers: list, .. } if issuers => list.clear(),
            ServiceAccountTokens::Offline { attributes, .. } if twice => attributes.push(attributes[0].clone()),
            ServiceAccountTokens::Offline { attributes, .. } => attributes[0].attributes[0].1 = "v".repeat(600),
            ServiceAccountTokens::TokenReview { .. } => panic!("{tokens:?}"),
        }
    };
    assert_eq!(offline(&change(true, true)), Defect::ServiceAccountTokens);
    assert_eq!(offline(&change(true, false)), Defect::ServiceAccountTokens);
    assert_eq!(offline(&change(false, true)), Defect::ServiceAccountTokens);
    assert_eq!(offline(&change(false, false)), Defect::Attributes);
    let keys = |key_sets: &[&str]| {
        let key_sets: Vec<String> = key_sets.iter().map(|text| (*text).to_owned()).collect();
        offline(&move |tokens| match tokens {
            ServiceAccountTokens::Offline { issuers, .. } => issuers[0].key_sets.clone_from(&key_sets),
            ServiceAccountTokens::TokenReview { .. } => panic!("{tokens:?}"),
        })
    };
    assert_eq!(keys(&[]), Defect::ServiceAccountTokens);
    assert_eq!(keys(&["{\"keys\": []}"]), Defect::ServiceAccountTokens);
    let certificate = |change: &dyn Fn(&mut AutomaticCertificate)| {
        refused(REVIEW, &|c| match &mut c.ports[0].tls {
            Some(Tls::Automatic(certificate)) => change(certificate),
            other => panic!("{other:?}"),
        })
    };
    let changes: [&dyn Fn(&mut AutomaticCertificate); 8] = [
        &|certificate| certificate.issuer = "../x".to_owned(),
        &|certificate| certificate.secret_name = "../x".to_owned(),
        &|certificate| certificate.secret_name = "local-ca-8884".to_owned(),
        &|certificate| certificate.secret_name = "server".to_owned(),
        &|certificate| certificate.duration_seconds = u64::MAX,
        &|certificate| certificate.renew_before_seconds = certificate.duration_seconds,
        &|certificate| certificate.dns_names.push("a b".to_owned()),
        &|certificate| certificate.ip_addresses.push("a".to_owned()),
    ];
    for change in changes {
        assert_eq!(certificate(change), Defect::AutomaticCertificate);
    }
    assert_eq!(refused(REVIEW, &|c| c.ports[2].tls = Some(Tls::Manual { secret: 7 })), Defect::Reference);
}

/// A folder of its own for one test, removed at its end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("portcullis-config-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, contents: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, contents).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn the_default_configuration_listens_on_loopback_and_has_no_notes() {
    let loaded = load_embedded(DEFAULT_FILES, &LoadOptions::default()).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(loaded.notes.to_string(), "");
    let configuration = loaded.configuration;
    assert_eq!((configuration.ports.len(), configuration.ports[0].port), (1, 1883));
    assert_eq!(configuration.ports[0].bind, portcullis::config::blob::Bind::ClusterIp);
    assert_eq!(configuration.gateway.cluster_ip_addresses, ["127.0.0.1", "::1"]);
}

#[test]
fn the_tutorial_is_what_the_tutorial_says() {
    let configuration = tutorial();
    let port = &configuration.ports[0];
    assert_eq!((port.listener.as_str(), port.port), ("mqtts-endpoint", 8883));
    assert!(port.tls.is_some() && port.authentication == Some(0) && port.authorization == Some(0));
    assert_eq!(configuration.authentications[0].name, "x509-auth");
    assert_eq!(configuration.authorizations[0].name, "abac-authz");
    assert_eq!(configuration.authorizations[0].rules.len(), 4);
    assert_eq!(configuration.trust_bundles[0].name, "fabrikam-ca");
}

#[test]
fn a_configuration_survives_the_blob() {
    let configuration = tutorial();
    assert_eq!(decode(&encode(&configuration).unwrap()), Ok(configuration));
}

#[test]
fn the_same_sources_give_the_same_bytes() {
    assert_eq!(
        encode(&load_embedded(DEFAULT_FILES, &LoadOptions::default()).unwrap().configuration),
        encode(&load_embedded(DEFAULT_FILES, &LoadOptions::default()).unwrap().configuration)
    );
}

#[test]
fn a_truncated_blob_is_refused_at_every_length() {
    let blob = encode(&load_embedded(DEFAULT_FILES, &LoadOptions::default()).unwrap().configuration).unwrap();
    for length in 0..blob.len() {
        let error = decode(&blob[..length]).unwrap_err();
        let expected = if length < 48 {
            BlobError::TooShort { bytes: length }
        } else {
            BlobError::Truncated { missing: blob.len() - length }
        };
        assert_eq!(error, expected);
    }
}

#[test]
fn one_flipped_bit_anywhere_is_refused() {
    let blob = encode(&load_embedded(DEFAULT_FILES, &LoadOptions::default()).unwrap().configuration).unwrap();
    for at in 0..blob.len() {
        for bit in 0..8 {
            let mut damaged = blob.clone();
            damaged[at] ^= 1 << bit;
            assert!(decode(&damaged).is_err(), "byte {at} bit {bit}");
        }
    }
}

#[test]
fn bytes_after_the_end_are_refused() {
    let mut blob = encode(&tutorial()).unwrap();
    blob.push(0);
    assert_eq!(decode(&blob), Err(BlobError::LeftOver { bytes: 1 }));
}

/// A blob with these header fields and a right digest.
fn sealed(format: u16, schema: u16, body: &[u8]) -> Vec<u8> {
    use sha2::{Digest, Sha256};
    let mut blob = b"PORTCUL\0".to_vec();
    blob.extend_from_slice(&format.to_be_bytes());
    blob.extend_from_slice(&schema.to_be_bytes());
    blob.extend_from_slice(&u32::try_from(body.len()).unwrap().to_be_bytes());
    let digest = Sha256::new().chain_update(&blob).chain_update(body).finalize();
    blob.extend_from_slice(&digest);
    blob.extend_from_slice(body);
    blob
}

#[test]
fn other_versions_are_named() {
    assert_eq!(decode(&sealed(1, SCHEMA + 1, b"")), Err(BlobError::NewerSchema { found: SCHEMA + 1 }));
    assert_eq!(decode(&sealed(1, SCHEMA - 1, b"")), Err(BlobError::OlderSchema { found: SCHEMA - 1 }));
    let older = BlobError::OlderSchema { found: 1 }.to_string();
    assert_eq!(older, "blob schema 1 is older than this program's 6; bake it again with this version");
    assert_eq!(decode(&sealed(2, SCHEMA, b"")), Err(BlobError::UnknownFormat { found: 2 }));
    assert_eq!(decode(b"apiVersion: v1"), Err(BlobError::NotABlob));
}

#[test]
fn a_body_that_is_no_configuration_is_refused_and_nothing_panics() {
    assert_eq!(decode(&sealed(1, SCHEMA, b"")), Err(BlobError::Malformed));
    let good = encode(&tutorial()).unwrap();
    let body = &good[48..];
    let mut padded = body.to_vec();
    padded.push(0);
    assert_eq!(decode(&sealed(1, SCHEMA, &padded)), Err(BlobError::LeftOver { bytes: 1 }));
    // Damage with a right digest: whatever comes of it, the program survives, and so does a policy made of it.
    for at in 0..body.len() {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            let mut damaged = body.to_vec();
            damaged[at] = value;
            if let Ok(configuration) = decode(&sealed(1, SCHEMA, &damaged)) {
                for policy in configuration.authorizations {
                    assert!(portcullis::authorization::Policy::new(policy).is_ok());
                }
            }
        }
    }
}

#[test]
fn a_blob_that_verifies_but_does_not_fit_together_is_refused() {
    let refused = |change: &dyn Fn(&mut Configuration)| {
        let mut configuration = tutorial();
        change(&mut configuration);
        match decode(&sealed(1, SCHEMA, &postcard::to_allocvec(&configuration).unwrap())) {
            Err(BlobError::Defective(defect)) => defect,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(refused(&|c| c.ports[0].authentication = Some(7)), Defect::Reference);
    assert_eq!(refused(&|c| c.ports[0].authorization = Some(7)), Defect::Reference);
    assert_eq!(refused(&|c| c.secrets.clear()), Defect::Reference);
    assert_eq!(refused(&|c| c.trust_bundles.clear()), Defect::Reference);
    assert_eq!(refused(&|c| c.ports[0].authentication = None), Defect::PortPolicy);
    assert_eq!(refused(&|c| c.ports[0].tls = None), Defect::PortPolicy);
    assert_eq!(refused(&|c| c.ports[0].port = 0), Defect::Port);
    assert_eq!(refused(&|c| c.ports.push(c.ports[0].clone())), Defect::Port);
    assert_eq!(refused(&|c| c.gateway.external_addresses.push("x".to_owned())), Defect::Address);
    assert_eq!(refused(&|c| c.gateway.connect_deadline_seconds = 0), Defect::ConnectDeadline);
    let long = Some("x".repeat(1_025));
    assert_eq!(refused(&|c| c.gateway.response_information = long.clone()), Defect::ResponseInformation);
    assert_eq!(refused(&|c| c.secrets[0].name = "../x".to_owned()), Defect::SecretName);
    assert_eq!(refused(&|c| c.trust_bundles[0].certificates.clear()), Defect::TrustBundle);
    assert_eq!(refused(&|c| c.clients.max_packet_size_bytes = u32::MAX), Defect::ClientLimit);
    assert_eq!(refused(&|c| c.board.capacities.authorization_rules = 3), Defect::Capacity);
    assert_eq!(refused(&|c| c.authorizations[0].rules[0].resources.start = u32::MAX), Defect::AuthorizationRange);
    assert_eq!(refused(&|c| c.authorizations[0].patterns[0].length = u32::MAX), Defect::AuthorizationText);
    assert_eq!(refused(&|c| c.authorizations[0].attribute_maps[0].count = 0), Defect::EmptyPrincipal);
    assert_eq!(refused(&|c| c.authorizations[0].rules[3].usernames.count = 0), Defect::EmptyPrincipal);
}

/// A configuration with this `spec` of the Broker, and the Gateway's commit interval at 250 ms.
fn with_broker(spec: &str) -> Configuration {
    let broker = format!(
        "apiVersion: mqttbroker.iotoperations.azure.com/v1\nkind: Broker\nmetadata: {{name: default}}\nspec: {spec}\n"
    );
    let gateway = "apiVersion: portcullis.edge/v1\nkind: Gateway\nmetadata: {name: default}\nspec: {commitIntervalMilliseconds: 250}\n";
    let files = [("any.listener.yaml", "ports: [{port: 1883}]"), ("b.yaml", &*broker), ("g.yaml", gateway)];
    load_embedded(&files, &LoadOptions::default()).unwrap_or_else(|errors| panic!("{errors}")).configuration
}

/// Every setting of `persistence`.
const PERSISTENCE: &str = "{persistence: {maxSize: 64Mi, encryption: {mode: Disabled}, stateStore: {mode: None}, retain: {mode: Custom, retainSettings: {topics: [a/+, $SYS/#]}}, subscriberQueue: {mode: custom, subscriberQueueSettings: {subscriberClientIds: ['line-*'], dynamic: {mode: Enabled}}}}}";

#[test]
fn without_persistence_everything_outlives_a_restart() {
    let expected = Persistence {
        size_bytes: 268_435_456,
        retain: Kept::All,
        subscriber_queue: Kept::All,
        commit_interval_milliseconds: 5,
    };
    assert_eq!(tutorial().persistence, expected);
    assert_eq!(with_broker("{}").persistence, Persistence { commit_interval_milliseconds: 250, ..expected });
}

#[test]
fn persistence_is_compiled_and_survives_the_blob() {
    let configuration = with_broker(PERSISTENCE);
    let expected = Persistence {
        size_bytes: 67_108_864,
        retain: Kept::Some { patterns: vec!["a/+".to_owned(), "$SYS/#".to_owned()], dynamic: false },
        subscriber_queue: Kept::Some { patterns: vec!["line-*".to_owned()], dynamic: true },
        commit_interval_milliseconds: 250,
    };
    assert_eq!(configuration.persistence, expected);
    assert_eq!(decode(&encode(&configuration).unwrap()), Ok(configuration));
    for (size, bytes) in [("17M", 17_000_000), ("20000K", 20_000_000), ("20000Ki", 20_480_000), ("1Ti", 1 << 40)] {
        let persistence = with_broker(&format!("{{persistence: {{maxSize: {size}}}}}")).persistence;
        assert!(persistence.is_off(), "what is not named is not kept");
        assert_eq!(persistence.size_bytes, bytes, "{size}");
    }
}

#[test]
fn what_outlives_a_restart_is_shown() {
    for (spec, expected) in [
        ("{persistence: {maxSize: 1G}}", "persistence: none, a restart loses sessions and retained messages\n"),
        ("{}", "  retained messages: all\n  subscriber queues: all\n"),
        (
            PERSISTENCE,
            "persistence\n  at most 67108864 bytes, not encrypted, 250 milliseconds or more between two writes\n  \
             retained messages: 2 patterns\n    a/+\n    $SYS/#\n  \
             subscriber queues: 1 patterns, and where a client asks\n    line-*\n",
        ),
    ] {
        let mut shown = Vec::new();
        inspect::show(&with_broker(spec), &mut shown).unwrap();
        let shown = String::from_utf8(shown).unwrap();
        assert!(shown.contains(expected), "{expected} in\n{shown}");
    }
}

#[test]
fn a_persistence_that_no_resource_can_say_is_refused() {
    let changes: [&dyn Fn(&mut Persistence); 8] = [
        &|persistence| persistence.size_bytes = 16_777_215,
        &|persistence| persistence.size_bytes = (1 << 40) + 1,
        &|persistence| persistence.commit_interval_milliseconds = 1_001,
        &|persistence| persistence.retain = Kept::Some { patterns: Vec::new(), dynamic: false },
        &|persistence| persistence.retain = Kept::Some { patterns: vec!["a#".to_owned()], dynamic: true },
        &|persistence| persistence.retain = Kept::Some { patterns: vec!["$share/g/a".to_owned()], dynamic: true },
        &|persistence| persistence.subscriber_queue = Kept::Some { patterns: vec![String::new()], dynamic: true },
        &|persistence| persistence.subscriber_queue = Kept::Some { patterns: vec!["*".to_owned(); 65], dynamic: true },
    ];
    for change in changes {
        let mut configuration = tutorial();
        change(&mut configuration.persistence);
        let blob = sealed(1, SCHEMA, &postcard::to_allocvec(&configuration).unwrap());
        assert_eq!(decode(&blob), Err(BlobError::Defective(Defect::Persistence)), "{:?}", configuration.persistence);
    }
}

#[test]
fn bake_check_and_inspect_work_on_a_folder() {
    let folder = Folder::new("tutorial");
    for (path, text) in TUTORIAL_FILES {
        folder.write(path, text);
    }
    let (chain, key) = config_pki::server();
    folder.write("config/trust/fabrikam-ca/client_ca.pem", config_pki::authority());
    folder.write("config/secrets/broker-server-cert/tls.crt", chain);
    folder.write("config/secrets/broker-server-cert/tls.key", key);
    folder.write("config/README.md", "nothing");
    let (mut output, mut diagnostics) = (Vec::new(), Vec::new());
    let sources = vec![folder.0.join("config")];
    let options = check::CheckOptions { sources: sources.clone(), ..check::CheckOptions::default() };
    check::run(&options, &mut output, &mut diagnostics).unwrap();
    let notes = String::from_utf8(diagnostics).unwrap();
    assert!(notes.contains("README.md:1:1: note: ignored"), "{notes}");
    let out = folder.0.join("gateway.blob");
    for embed_secrets in [false, true] {
        let options = bake::BakeOptions {
            sources: sources.clone(),
            out: out.clone(),
            board: Some("rpi4".to_owned()),
            embed_secrets,
        };
        bake::run(&options, &mut output, &mut Vec::new()).unwrap();
        let mut shown = Vec::new();
        inspect::run(&inspect::InspectOptions { file: out.clone() }, &mut shown, &mut Vec::new()).unwrap();
        let shown = String::from_utf8(shown).unwrap();
        for expected in [
            "board rpi4",
            "mqtts-endpoint: 0.0.0.0:8883 [::]:8883, MQTT, TLS with secret broker-server-cert, authentication x509-auth, authorization abac-authz",
            "thermostat: CN = thermostat gives group=thermostat_group",
            "authorization abac-authz: 4 rules, cache Enabled",
            "may Publish telemetry/temperature",
            "CN=Fabrikam Root CA",
            "SHA-256 ",
            "authorization rules: 4 of 2000",
            if embed_secrets {
                "embedded, 2 certificates, ECDSA P-256 key"
            } else {
                "read from secrets/broker-server-cert/tls.crt"
            },
        ] {
            assert!(shown.contains(expected), "{expected} in\n{shown}");
        }
        assert!(!shown.contains("PRIVATE KEY"));
    }
    assert_eq!(std::fs::read_dir(&folder.0).unwrap().count(), 2, "no temporary file is left");
}

#[test]
fn a_refused_configuration_leaves_the_old_blob_and_exits_with_3() {
    let folder = Folder::new("refused");
    let source = folder.write("abc.listener.yaml", "ports: [{port: 0}]");
    let out = folder.write("old.blob", "old");
    let options = bake::BakeOptions { sources: vec![source], out: out.clone(), ..bake::BakeOptions::default() };
    let mut diagnostics = Vec::new();
    let error = bake::run(&options, &mut Vec::new(), &mut diagnostics).unwrap_err();
    assert_eq!(error.exit_code(), 3);
    assert!(String::from_utf8(diagnostics).unwrap().contains("abc.listener.yaml:1:16: error: port is 0"));
    assert_eq!(std::fs::read(out).unwrap(), b"old");
}

#[test]
fn inspect_refuses_a_damaged_blob_with_the_reason() {
    let folder = Folder::new("damaged");
    let blob = encode(&tutorial()).unwrap();
    for (name, contents, reason) in [
        ("short.blob", &blob[..blob.len() - 3], "truncated: the last 3 bytes are missing"),
        ("text.blob", b"hello".as_slice(), "not a configuration blob"),
    ] {
        let file = folder.write(name, contents);
        let error = inspect::run(&inspect::InspectOptions { file }, &mut Vec::new(), &mut Vec::new()).unwrap_err();
        assert!(matches!(error, CommandError::ConfigurationRefused(_)) && error.exit_code() == 3);
        assert!(error.to_string().contains(reason), "{error}");
    }
    let missing = inspect::InspectOptions { file: folder.0.join("none") };
    assert_eq!(inspect::run(&missing, &mut Vec::new(), &mut Vec::new()).unwrap_err().exit_code(), 4);
}

#[test]
fn links_in_a_circle_and_devices_do_not_hang() {
    let folder = Folder::new("links");
    folder.write("abc.listener.yaml", "ports: [{port: 1883}]");
    std::os::unix::fs::symlink(&folder.0, folder.0.join("self")).unwrap();
    std::os::unix::fs::symlink("/dev/zero", folder.0.join("zero.yaml")).unwrap();
    std::os::unix::fs::symlink("loop.yaml", folder.0.join("loop.yaml")).unwrap();
    let found =
        portcullis::config::load(std::slice::from_ref(&folder.0), &LoadOptions::default()).unwrap_err().to_string();
    assert!(found.contains("zero.yaml:1:1: note: ignored: not a regular file"), "{found}");
    assert!(found.contains("loop.yaml:1:1: error: cannot be read"), "{found}");
    assert!(!found.contains("a second BrokerListener"), "{found}");
    let device =
        portcullis::config::load(&[PathBuf::from("/dev/zero")], &LoadOptions::default()).unwrap_err().to_string();
    assert!(device.contains("neither a folder nor a regular file"), "{device}");
}

#[test]
fn a_file_beyond_the_size_limit_is_refused() {
    let folder = Folder::new("large");
    let file = folder.write("abc.listener.yaml", vec![b' '; 8 * 1024 * 1024 + 1]);
    let found = portcullis::config::load(&[file], &LoadOptions::default()).unwrap_err().to_string();
    assert!(found.contains("larger than 8388608 bytes"), "{found}");
}
