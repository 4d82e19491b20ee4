//! The blob: what comes back, and what is refused.
#![allow(missing_docs, clippy::expect_used, clippy::unwrap_used)]

mod config_pki;

use portcullis::commands::{CommandError, bake, check, inspect};
use portcullis::config::blob::Configuration;
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
    assert_eq!(decode(&sealed(1, 2, b"")), Err(BlobError::NewerSchema { found: 2 }));
    assert_eq!(decode(&sealed(1, 0, b"")), Err(BlobError::OlderSchema { found: 0 }));
    assert_eq!(decode(&sealed(2, 1, b"")), Err(BlobError::UnknownFormat { found: 2 }));
    assert_eq!(decode(b"apiVersion: v1"), Err(BlobError::NotABlob));
}

#[test]
fn a_body_that_is_no_configuration_is_refused_and_nothing_panics() {
    assert_eq!(decode(&sealed(1, 1, b"")), Err(BlobError::Malformed));
    let good = encode(&tutorial()).unwrap();
    let body = &good[48..];
    let mut padded = body.to_vec();
    padded.push(0);
    assert_eq!(decode(&sealed(1, 1, &padded)), Err(BlobError::LeftOver { bytes: 1 }));
    // Damage with a right digest: whatever comes of it, the program survives, and so does a policy made of it.
    for at in 0..body.len() {
        for value in [0, 1, 0x7f, 0x80, 0xff] {
            let mut damaged = body.to_vec();
            damaged[at] = value;
            if let Ok(configuration) = decode(&sealed(1, 1, &damaged)) {
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
        match decode(&sealed(1, 1, &postcard::to_allocvec(&configuration).unwrap())) {
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
    assert_eq!(refused(&|c| c.secrets[0].name = "../x".to_owned()), Defect::SecretName);
    assert_eq!(refused(&|c| c.trust_bundles[0].certificates.clear()), Defect::TrustBundle);
    assert_eq!(refused(&|c| c.clients.max_packet_size_bytes = u32::MAX), Defect::ClientLimit);
    assert_eq!(refused(&|c| c.board.capacities.authorization_rules = 3), Defect::Capacity);
    assert_eq!(refused(&|c| c.authorizations[0].rules[0].resources.start = u32::MAX), Defect::AuthorizationRange);
    assert_eq!(refused(&|c| c.authorizations[0].patterns[0].length = u32::MAX), Defect::AuthorizationText);
    assert_eq!(refused(&|c| c.authorizations[0].attribute_maps[0].count = 0), Defect::EmptyPrincipal);
    assert_eq!(refused(&|c| c.authorizations[0].rules[3].usernames.count = 0), Defect::EmptyPrincipal);
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
