//! Server certificates, keys and trust bundles: what is refused, with which reason, and that no key is ever shown.
#![allow(missing_docs, clippy::expect_used, clippy::unwrap_used)]

mod config_pki;

use config_pki::{authority, certificate, certificate_for, ed25519, key, key_pem, p384, server};
use portcullis::config::secret::{KeyKind, SecretFault, check_pair};
use portcullis::config::{LoadOptions, load_embedded};

const LISTENER: &str = "ports: [{port: 8883, tls: {mode: Manual, manual: {secretRef: server}}}]";

fn pem(label: &str, body: &str) -> String {
    format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n")
}

fn fault(chain: &str, key: &str) -> SecretFault {
    check_pair(chain.as_bytes(), key.as_bytes()).unwrap_err()
}

/// The messages for a listener with the Secret `server`.
fn load_secret(chain: &str, key: &str) -> String {
    let files = [("abc.listener.yaml", LISTENER), ("secrets/server/tls.crt", chain), ("secrets/server/tls.key", key)];
    match load_embedded(&files, &LoadOptions::default()) {
        Ok(loaded) => loaded.notes.to_string(),
        Err(errors) => errors.to_string(),
    }
}

fn load_trust(files: &[(&str, &str)]) -> String {
    let (chain, key) = server();
    let mut all = vec![
        (
            "abc.listener.yaml",
            "ports: [{port: 8883, authenticationRef: certs, tls: {mode: Manual, manual: {secretRef: server}}}]",
        ),
        ("certs.x509.json", "{\"trustedClientCaCert\": \"fabrikam-ca\"}"),
        ("secrets/server/tls.crt", chain.as_str()),
        ("secrets/server/tls.key", key.as_str()),
    ];
    all.extend_from_slice(files);
    match load_embedded(&all, &LoadOptions::default()) {
        Ok(loaded) => loaded.notes.to_string(),
        Err(errors) => errors.to_string(),
    }
}

#[test]
fn a_p256_pair_is_accepted_as_pkcs8_and_as_sec1() {
    let (chain, key) = server();
    assert_eq!(check_pair(chain.as_bytes(), key.as_bytes()).unwrap().kind, KeyKind::EcdsaP256);
    let sec1 = p256::SecretKey::from(config_pki::key(2)).to_sec1_pem(p256::pkcs8::LineEnding::LF).unwrap();
    let checked = check_pair(chain.as_bytes(), sec1.as_bytes()).unwrap();
    assert_eq!((checked.kind, checked.certificates.len()), (KeyKind::EcdsaP256, 2));
    assert!(checked.not_before < checked.not_after);
}

#[test]
fn p384_and_ed25519_pairs_are_accepted() {
    for ((key, public), kind) in [(p384(5), KeyKind::EcdsaP384), (ed25519(5), KeyKind::Ed25519)] {
        let chain = certificate_for("CN=localhost", public, Some("CN=Root"), &config_pki::key(3));
        assert_eq!(check_pair(chain.as_bytes(), key.as_bytes()).unwrap().kind, kind);
    }
}

#[test]
fn an_rsa_server_key_is_refused_with_the_reason() {
    let errors = load_secret(&server().0, &pem("RSA PRIVATE KEY", "AAAA"));
    assert!(errors.starts_with("secrets/server/tls.key:1:1: error: "), "{errors}");
    assert!(errors.contains("RUSTSEC-2023-0071"), "{errors}");
}

#[test]
fn a_key_of_another_certificate_is_refused() {
    assert_eq!(fault(&server().0, &key_pem(&key(9))), SecretFault::Mismatch);
    assert_eq!(fault(&server().0, &ed25519(9).0), SecretFault::Mismatch);
    assert_eq!(fault(&server().0, &p384(9).0), SecretFault::Mismatch);
}

#[test]
fn a_chain_out_of_order_is_refused() {
    let leaf = certificate("CN=localhost", &key(2), Some("CN=Contoso Root CA"), &key(3));
    assert_eq!(fault(&(leaf + &authority()), &server().1), SecretFault::ChainOrder { index: 0 });
}

#[test]
fn what_is_no_chain_is_refused() {
    let key = server().1;
    assert_eq!(fault("", &key), SecretFault::NoCertificate);
    assert_eq!(fault("just text", &key), SecretFault::NoCertificate);
    assert_eq!(fault(&(server().0 + &key), &key), SecretFault::KeyInCertificateFile);
    assert_eq!(fault(&pem("CERTIFICATE", "AAAA"), &key), SecretFault::CertificateDer { index: 0 });
    assert_eq!(fault(&pem("CERTIFICATE REQUEST", "AAAA"), &key), SecretFault::ForeignSection);
    assert_eq!(fault("-----BEGIN CERTIFICATE-----\nAAAA\n", &key), SecretFault::CertificatePem);
    assert_eq!(fault(&server().0.repeat(9), &key), SecretFault::TooManyCertificates);
    assert_eq!(fault(&server().0, &key.repeat(2)), SecretFault::SeveralKeys);
    assert_eq!(fault(&server().0, &server().0), SecretFault::NoKey);
}

#[test]
fn half_a_secret_is_refused() {
    let chain = server().0;
    let files = [("abc.listener.yaml", LISTENER), ("secrets/server/tls.crt", chain.as_str())];
    let errors = load_embedded(&files, &LoadOptions::default()).unwrap_err().to_string();
    assert!(errors.contains("the Secret \"server\" has no tls.key"), "{errors}");
}

#[test]
fn a_secret_that_is_not_among_the_sources_is_found_at_run_time_unless_it_is_to_be_embedded() {
    let files =
        [("abc.listener.yaml", LISTENER), ("more.yaml", "{apiVersion: v1, kind: Secret, metadata: {name: serverr}}")];
    let loaded = load_embedded(&files, &LoadOptions::default()).unwrap();
    assert!(loaded.notes.to_string().contains("the gateway looks for secrets/server/tls.crt"), "{}", loaded.notes);
    assert_eq!(loaded.configuration.secrets[0].embedded, None);
    let embed = LoadOptions { embed_secrets: true, ..LoadOptions::default() };
    let errors = load_embedded(&files, &embed).unwrap_err().to_string();
    assert!(errors.contains("there is no Secret named \"server\"; did you mean \"serverr\"?"), "{errors}");
}

#[test]
fn a_secret_is_embedded_on_request_only() {
    use base64ct::{Base64, Encoding};
    let (chain, key) = server();
    let manifest = format!(
        "apiVersion: v1\nkind: Secret\ntype: kubernetes.io/tls\nmetadata: {{name: server}}\ndata:\n  tls.crt: {}\n  tls.key: {}\n",
        Base64::encode_string(chain.as_bytes()),
        Base64::encode_string(key.as_bytes())
    );
    let files = [("abc.listener.yaml", LISTENER), ("secret.yaml", manifest.as_str())];
    let loaded = load_embedded(&files, &LoadOptions::default()).unwrap();
    assert_eq!(loaded.configuration.secrets[0].embedded, None);
    assert!(loaded.notes.to_string().contains("use --embed-secrets"));
    let embed = LoadOptions { embed_secrets: true, ..LoadOptions::default() };
    let loaded = load_embedded(&files, &embed).unwrap();
    let embedded = loaded.configuration.secrets[0].embedded.as_ref().unwrap();
    assert_eq!((&embedded.certificate_chain_pem, &embedded.private_key_pem), (&chain, &key));
    assert!(!format!("{:?}", loaded.configuration).contains("PRIVATE"));
}

#[test]
fn a_secret_of_another_type_is_refused() {
    let files = [
        ("abc.listener.yaml", LISTENER),
        ("secret.yaml", "{apiVersion: v1, kind: Secret, type: Opaque, metadata: {name: server}, stringData: {a: b}}"),
    ];
    let errors = load_embedded(&files, &LoadOptions::default()).unwrap_err().to_string();
    assert!(
        errors.contains("secret.yaml:1:38: error: the type of the Secret \"server\" must be kubernetes.io/tls"),
        "{errors}"
    );
}

#[test]
fn no_message_shows_what_a_secret_holds() {
    for body in [
        "data: {tls.key: SECRETTEXT!}",
        "stringData: {tls.key: SECRETTEXT, tls.crt: SECRETTEXT}",
        "stringData: {tls.key: [SECRETTEXT]}",
        "stringData: SECRETTEXT",
        "data: {tls.key: {SECRETTEXT: SECRETTEXT}}",
        "typo: {tls.key: SECRETTEXT}",
    ] {
        let manifest = format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: server}}\n{body}\n");
        let files = [("abc.listener.yaml", LISTENER), ("secret.yaml", manifest.as_str())];
        let errors = load_embedded(&files, &LoadOptions::default()).unwrap_err().to_string();
        assert!(!errors.contains("SECRETTEXT"), "{errors}");
    }
}

#[test]
fn every_certificate_of_every_key_is_trusted() {
    let other = certificate("CN=Other Root", &key(4), None, &key(4));
    let both = authority() + &other;
    let files = [("trust/fabrikam-ca/one.pem", both.as_str()), ("trust/fabrikam-ca/two", other.as_str())];
    assert_eq!(load_trust(&files), "");
}

#[test]
fn a_trust_bundle_in_a_manifest_is_the_same_as_a_folder() {
    let indented = authority().replace('\n', "\n    ");
    let manifest = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: fabrikam-ca\ndata:\n  ca.pem: |\n    {indented}\n"
    );
    assert_eq!(load_trust(&[("ca.yaml", &manifest)]), "");
}

#[test]
fn a_private_key_in_a_config_map_is_refused_where_it_stands() {
    let text = authority() + &key_pem(&key(1));
    let line = authority().lines().count() + 1;
    let errors = load_trust(&[("trust/fabrikam-ca/ca.pem", &text)]);
    assert!(
        errors.contains(&format!("trust/fabrikam-ca/ca.pem:{line}:1: error: \"ca.pem\" holds a private key")),
        "{errors}"
    );
}

#[test]
fn a_bundle_without_a_certificate_is_refused() {
    assert!(load_trust(&[("trust/fabrikam-ca/ca.pem", "")]).contains("holds no certificate"));
    assert!(load_trust(&[("trust/fabrikam-ca/ca.pem", &pem("CERTIFICATE", "AAAA"))]).contains("cannot be parsed"));
    assert!(
        load_trust(&[("trust/fabrikam-ca/ca.pem", "-----BEGIN CERTIFICATE-----\nAA")]).contains("not well-formed PEM")
    );
    let empty = "{apiVersion: v1, kind: ConfigMap, metadata: {name: fabrikam-ca}}";
    assert!(load_trust(&[("ca.yaml", empty)]).contains("the ConfigMap \"fabrikam-ca\" holds no certificate"));
}

#[test]
fn a_missing_trust_bundle_names_the_nearest_one() {
    let ca = authority();
    let errors = load_trust(&[("trust/fabrikam-cb/ca.pem", ca.as_str())]);
    assert!(errors.contains("there is no ConfigMap named \"fabrikam-ca\"; did you mean \"fabrikam-cb\"?"), "{errors}");
    assert!(errors.starts_with("certs.x509.json:1:25: error"), "{errors}");
}

#[test]
fn the_default_trust_bundle_is_client_ca() {
    let ca = authority();
    let files = [
        (
            "abc.listener.yaml",
            "ports: [{port: 8883, authenticationRef: certs, tls: {mode: Manual, manual: {secretRef: server}}}]",
        ),
        ("certs.authentication.json", "{\"authenticationMethods\": [{\"method\": \"x509\"}]}"),
        ("trust/client-ca/ca.pem", ca.as_str()),
    ];
    let loaded = load_embedded(&files, &LoadOptions::default()).unwrap();
    assert_eq!(loaded.configuration.trust_bundles[0].name, "client-ca");
}

#[test]
fn a_leaf_in_a_trust_bundle_is_noted() {
    let leaf = certificate("CN=thermostat", &key(2), Some("CN=Root"), &key(3));
    let notes = load_trust(&[("trust/fabrikam-ca/ca.pem", &leaf)]);
    assert!(notes.contains("note: the certificate \"CN=thermostat\" is not marked as an authority"), "{notes}");
}
