//! What is withdrawn while the broker runs: revocation lists made by the openssl program, and the operator's deny list,
//! dropped beside a broker whose clients are connected. Numbers are those of the scenario catalogue.
#![allow(clippy::expect_used, clippy::unwrap_used)]

mod support;

use portcullis::distinguished_name::DistinguishedName;
use portcullis::pki::{Issued, Template};
use portcullis::time::UnixTime;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::process::{Command, Stdio};
use std::time::SystemTime;
use support::client::{Client, certificates, key, tls, tls_refusal};
use support::{Demo, Folder, Process, free_ports, portcullis};

/// One of the tutorial's clients: what comes of its TLS handshake.
fn handshake(demo: &Demo, name: &str) -> std::io::Result<impl support::client::Stream + 'static> {
    let file = |ending: &str| demo.folder.join("demo").join(format!("{name}.{ending}"));
    let identity = (certificates(&file("crt")), key(&file("key")));
    tls(demo.port, &demo.folder.join("demo/contoso_root_ca.crt"), Some(identity))
}

fn accepted(demo: &Demo, name: &str) -> Client {
    Client::accepted(handshake(demo, name).expect("a TLS connection"), name)
}

fn write(demo: &Demo, file: &str, content: impl AsRef<[u8]>) {
    // Under its name at once and whole, as an operator's tool would do it.
    let hidden = demo.folder.write(&format!("demo/revocation/.{file}"), content);
    std::fs::rename(hidden, demo.folder.join("demo/revocation").join(file)).unwrap();
}

/// Serial number of the first certificate of a file, as the log shows it.
fn serial(demo: &Demo, file: &str) -> String {
    let said = openssl(demo, &["x509", "-noout", "-serial", "-in", file]);
    said.trim().strip_prefix("serial=").expect("a serial number").to_ascii_lowercase()
}

/// Runs the openssl program in the demo's folder and gives what it said.
fn openssl(demo: &Demo, arguments: &[&str]) -> String {
    let output = Command::new("openssl")
        .current_dir(demo.folder.join("demo"))
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("the openssl program");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The list of one of the demo's authorities after the revocation of these certificates.
fn openssl_list(demo: &Demo, authority: &str, revoked: &[&str]) -> Vec<u8> {
    let folder = format!("demo/{authority}");
    demo.folder.write(&format!("{folder}/index.txt"), "");
    demo.folder.write(&format!("{folder}/crlnumber"), "01\n");
    demo.folder.write(
        &format!("{folder}/ca.cnf"),
        format!(
            "[ca]\ndefault_ca = it\n[it]\ndatabase = {authority}/index.txt\ncrlnumber = {authority}/crlnumber\n\
             default_md = sha256\ndefault_crl_days = 1\ncertificate = {authority}.crt\nprivate_key = {authority}.key\n"
        ),
    );
    let config = format!("{authority}/ca.cnf");
    for file in revoked {
        openssl(demo, &["ca", "-config", &config, "-revoke", file, "-crl_reason", "keyCompromise"]);
    }
    let list = format!("{authority}/list.pem");
    openssl(demo, &["ca", "-config", &config, "-gencrl", "-out", &list]);
    std::fs::read(demo.folder.join("demo").join(list)).unwrap()
}

#[test]
fn scenario_53_who_is_denied_is_out_at_once_and_the_others_stay() {
    let mut demo = Demo::start("s53");
    let (mut thermostat, mut heater) = (accepted(&demo, "thermostat"), accepted(&demo, "heater"));
    write(&demo, "deny.yaml", "# Found open in the yard.\n- subject: CN = thermostat\n  reason: stolen\n");
    thermostat.is_disconnected(0x87);
    let line = demo
        .process
        .wait_for("audit disconnected client='thermostat' user='thermostat' method=X509 cause='credential refused'");
    let reason = format!(
        "certificate denied by line 2 of the deny list: serial {}, CN = thermostat; stolen",
        serial(&demo, "thermostat.crt")
    );
    assert!(line.contains(&reason) && line.ends_with("code=0x87"), "{line}");
    let refusal = tls_refusal(handshake(&demo, "thermostat"));
    assert!(refusal.contains("CertificateRevoked"), "{refusal}");
    demo.process.wait_for(&format!("client refused: {reason}"));
    heater.ping();

    // A mistake has its place, and changes nothing.
    write(&demo, "deny.yaml", "- subject: CN = thermostat\n- subjet: CN = heater\n");
    let line = demo.process.wait_for("unknown field");
    assert!(
        line.contains("deny.yaml:2:3: error: unknown field \"subjet\"") && line.contains("stays revoked"),
        "{line}"
    );
    assert!(tls_refusal(handshake(&demo, "thermostat")).contains("CertificateRevoked"));
    heater.ping();

    // An authority takes all below it along.
    write(&demo, "deny.yaml", "- subject: CN = Fabrikam Intermediate CA 1\n");
    heater.is_disconnected(0x87);
    assert!(tls_refusal(handshake(&demo, "heater")).contains("CertificateRevoked"));

    // A list that is broken does not keep a denial from being taken back, or made.
    write(&demo, "broken.crl", "-----BEGIN X509 CRL-----\n");
    demo.process.wait_for("broken.crl: broken PEM; what was revoked before stays revoked");
    write(&demo, "deny.yaml", "[]");
    demo.process.wait_for("deny.yaml: 0 entries");
    accepted(&demo, "thermostat").ping();
}

#[test]
fn a_list_of_openssl_that_is_dropped_into_the_folder_ends_the_connections_of_the_revoked() {
    let mut demo = Demo::start("crl");
    let (mut thermostat, mut heater) = (accepted(&demo, "thermostat"), accepted(&demo, "heater"));
    let list = openssl_list(&demo, "fabrikam_intermediate_ca", &["thermostat.crt"]);
    write(&demo, "fabrikam.crl", list);
    thermostat.is_disconnected(0x87);
    demo.process.wait_for("CN = Fabrikam Intermediate CA 1 has revoked 1 certificates, next list due");
    let line = demo
        .process
        .wait_for("audit disconnected client='thermostat' user='thermostat' method=X509 cause='credential refused'");
    let reason = format!("revoked (keyCompromise): serial {}, CN = thermostat", serial(&demo, "thermostat.crt"));
    assert!(line.contains(&reason), "{line}");
    heater.ping();
    // As another implementation of TLS sees it.
    let arguments = ["s_client", "-CAfile", "contoso_root_ca.crt", "-cert", "thermostat.crt", "-cert_chain"];
    let refused = Command::new("openssl")
        .current_dir(demo.folder.join("demo"))
        .args(arguments)
        .args(["thermostat.crt", "-key", "thermostat.key", "-ign_eof", "-connect", &format!("127.0.0.1:{}", demo.port)])
        .stdin(Stdio::null())
        .output()
        .expect("the openssl program");
    let said = String::from_utf8_lossy(&refused.stderr);
    assert!(said.contains("alert certificate revoked"), "{said}");

    // A file that cannot be used changes nothing, and neither does a folder that is gone.
    write(&demo, "other.pem", "-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n");
    demo.process.wait_for("other.pem: not a well-formed revocation list; what was revoked before stays revoked");
    assert!(tls_refusal(handshake(&demo, "thermostat")).contains("CertificateRevoked"));
    std::fs::remove_dir_all(demo.folder.join("demo/revocation")).unwrap();
    demo.process.wait_for("the revocation folder is gone; what was revoked before stays revoked");
    assert!(tls_refusal(handshake(&demo, "thermostat")).contains("CertificateRevoked"));

    // In DER, with nobody on it.
    let list = openssl_list(&demo, "fabrikam_intermediate_ca", &[]);
    demo.folder.write("demo/empty.pem", list);
    openssl(&demo, &["crl", "-in", "empty.pem", "-outform", "DER", "-out", "empty.der"]);
    write(&demo, "fabrikam.der", std::fs::read(demo.folder.join("demo/empty.der")).unwrap());
    demo.process.wait_for("has revoked 0 certificates");
    accepted(&demo, "thermostat").ping();
    heater.ping();
}

#[test]
fn an_intermediate_that_its_root_revokes_takes_its_clients_along() {
    let mut demo = Demo::start("crl-intermediate");
    let mut thermostat = accepted(&demo, "thermostat");
    // Both lists in one file of PEM.
    let mut lists = openssl_list(&demo, "contoso_root_ca", &[]);
    lists.extend(openssl_list(&demo, "fabrikam_root_ca", &["fabrikam_intermediate_ca.crt"]));
    write(&demo, "all.pem", lists);
    thermostat.is_disconnected(0x87);
    let line = demo
        .process
        .wait_for("audit disconnected client='thermostat' user='thermostat' method=X509 cause='credential refused'");
    assert!(line.contains("CN = Fabrikam Intermediate CA 1"), "{line}");
    assert!(tls_refusal(handshake(&demo, "thermostat")).contains("CertificateRevoked"));
}

/// What a broker says that finds this file in its revocation folder and does not start.
fn does_not_start(name: &str, file: &str, content: &str) -> String {
    let (folder, port) = (Folder::new(name), free_ports(2));
    folder.write(&format!("demo/revocation/{file}"), content);
    let directory = folder.join("demo");
    let arguments = ["demo", "--dir", directory.to_str().unwrap(), "--port", &port.to_string()];
    let mut process = Process::start(&mut portcullis(&arguments));
    assert_eq!(process.wait().code(), Some(4), "{:?}", process.output());
    process.output().join("\n")
}

#[test]
fn a_broker_that_cannot_know_who_is_revoked_does_not_start() {
    let said = does_not_start("crl-broken", "ca.crl", "-----BEGIN X509 CRL-----\n");
    assert!(said.contains("ca.crl: broken PEM"), "{said}");
    let said = does_not_start("crl-none", "ca.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    assert!(said.contains("ca.pem: no revocation list in it"), "{said}");
    let said = does_not_start("deny-broken", "deny.yaml", "- serial: 12\n");
    assert!(said.contains("deny.yaml:1:11: error: serial must be text"), "{said}");
    let said = does_not_start("deny-misnamed", "deny.yml", "[]");
    assert!(said.contains("deny.yml: the deny list is called deny.yaml"), "{said}");
}

#[test]
fn scenario_37_a_certificate_that_ends_closes_its_connection_without_a_word() {
    let mut demo = Demo::start("s37");
    let now = UnixTime(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs());
    let file = |name: &str| std::fs::read_to_string(demo.folder.join("demo").join(name)).unwrap();
    let authority = ["crt", "key"].map(|ending| file(&format!("fabrikam_intermediate_ca.{ending}")));
    let authority = Issued::from_pem(&authority[0], &authority[1]).unwrap();
    let subject = DistinguishedName::parse("CN = thermostat").unwrap();
    // Long enough for a handshake on a busy machine.
    let leaf = authority.issue(&Template::leaf(subject, UnixTime(now.0 - 60), now.plus_seconds(6))).unwrap();
    let chain = [&leaf, &authority].map(|one| CertificateDer::from(one.certificate_der().unwrap())).to_vec();
    let key = PrivateKeyDer::from_pem_slice(leaf.key_pem().unwrap().as_bytes()).unwrap();
    let stream = tls(demo.port, &demo.folder.join("demo/contoso_root_ca.crt"), Some((chain, key)));
    let mut client = Client::accepted(stream.expect("a TLS connection"), "short-lived");
    assert_eq!(client.receive(), None);
    demo.process
        .wait_for("audit disconnected client='short-lived' user='thermostat' method=X509 cause='credential expired'");
}
