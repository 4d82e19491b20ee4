//! Clients that show more than one credential, with the methods in each order: the first whose credential is there decides.
//! azure-model §2.1. Numbers are those of the scenario catalogue.
#![allow(clippy::expect_used, clippy::unwrap_used)]

mod support;

use portcullis::distinguished_name::DistinguishedName;
use portcullis::pki::{self, Issued, Template};
use portcullis::time::UnixTime;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::json;
use support::client::{Client, certificates, key, tls, tls_refusal};
use support::https::{HttpsServer, Identity, Reply};
use support::login::{Issuer, auth, connect, now};
use support::{Folder, Site, free_ports};

/// The orders, each with a port of its own.
const ORDERS: [&[&str]; 8] = [
    &["certificate"],
    &["certificate", "token"],
    &["token", "certificate"],
    &["certificate", "password"],
    &["password", "certificate"],
    &["certificate", "custom"],
    &["custom", "certificate"],
    &["token", "password", "custom", "certificate"],
];

struct Bench {
    site: Site,
    port: u16,
    server: HttpsServer,
}

/// What a client shows.
#[derive(Clone, Copy, Default)]
struct Shown<'a> {
    certificate: bool,
    token: Option<&'a [u8]>,
    user: Option<(&'a str, &'a str)>,
}

impl Bench {
    fn start(name: &str) -> Self {
        let folder = Folder::new(name);
        pki::demo::create(&folder.join("demo")).unwrap();
        let demo = |file: &str| std::fs::read(folder.join(&format!("demo/{file}"))).unwrap();
        folder.write("site/trust/custom-ca/ca.pem", demo("contoso_root_ca.crt"));
        folder.write("site/trust/client-ca/ca.pem", demo("fabrikam_root_ca.crt"));
        folder.write("site/keys/cluster-keys/keys.json", Issuer::new().keys());
        folder.write("site/secrets/server/tls.crt", demo("mqtts-endpoint.crt"));
        folder.write("site/secrets/server/tls.key", demo("mqtts-endpoint.key"));
        // The password is "password", as the vendor's documentation has it.
        folder.write(
            "site/secrets/users/passwords.toml",
            "[client1]\npassword = \"$pbkdf2-sha512$i=100000,l=64$HqJwOCHweNk1pLryiu3RsA$KVSvxKYcibIG5S5n55RvxKRTdAAfCUtB\
             Joy5IuFzdSZyzkwvUcU+FPawEWFPn+06JyZsndfRTfpiEh+2eSJLkg\"\nattributes = { by = \"password\" }\n",
        );
        let identity = Identity {
            chain: certificates(&folder.join("demo/mqtts-endpoint.crt")),
            key: key(&folder.join("demo/mqtts-endpoint.key")),
            client_authority: None,
        };
        let server = HttpsServer::start(identity, |request| match &request.body {
            body if body.contains("\"deny\"") => Reply::json(403, json!({ "reason": 135 })),
            body if body.contains("\"down\"") => Reply::HangUp,
            _ => Reply::json(200, json!({ "attributes": { "by": "custom" } })),
        });
        let port = free_ports(ORDERS.len() as u16);
        let mut ports = String::new();
        for (port, order) in (port..).zip(ORDERS) {
            let name = order.join("-");
            ports += &format!(
                "- port: {port}\n  authenticationRef: {name}\n  authorizationRef: rules\n  tls: {{mode: Manual, manual: {{secretRef: \
                 server}}}}\n"
            );
            let methods: String = order.iter().map(|method| settings(method, server.port)).collect();
            folder.write(
                &format!("site/{name}.yaml"),
                format!(
                    "apiVersion: mqttbroker.iotoperations.azure.com/v1\nkind: BrokerAuthentication\nmetadata: {{name: \
                     {name}}}\nspec:\n  authenticationMethods:\n{methods}"
                ),
            );
        }
        folder.write("site/tls.listener.yaml", format!("serviceType: ClusterIp\nports:\n{ports}"));
        let rule = |by: &str| {
            json!({
                "principals": { "attributes": [{ "by": by }] },
                "brokerResources": [{ "method": "Connect" }, { "method": "Publish", "topics": [format!("by/{by}")] }],
            })
        };
        let rules = ["certificate", "token", "password", "custom"].map(rule);
        folder.write("site/rules.authorization.json", json!(rules).to_string());
        folder.write(
            "site/gateway.yaml",
            "apiVersion: portcullis.edge/v1\nkind: Gateway\nmetadata: {name: default}\nspec:\n  serviceAccountTokens:\n    \
             issuers: [{issuer: 'https://cluster', keysConfigMap: cluster-keys}]\n    attributes: {iot/mqtt-client: {by: token}}\n",
        );
        Self { site: Site::start_in(folder), port, server }
    }

    fn port(&self, order: &[&str]) -> u16 {
        self.port + ORDERS.iter().position(|one| *one == order).expect("an order") as u16
    }

    /// The method that let the client in, or the Reason Code that it heard.
    fn log_in(&self, order: &[&str], shown: Shown<'_>) -> Result<&'static str, u8> {
        let demo = self.site.folder.join("demo");
        let identity =
            shown.certificate.then(|| (certificates(&demo.join("thermostat.crt")), key(&demo.join("thermostat.key"))));
        let mut client = Client::new(tls(self.port(order), &demo.join("contoso_root_ca.crt"), identity).expect("TLS"));
        let enhanced = shown.token.map(|token| ("K8S-SAT", token));
        let (user, password) = shown.user.unzip();
        client.send(&connect("c", user, password.map(str::as_bytes), enhanced));
        match client.receive().expect("a CONNACK").body[1] {
            0 => {}
            reason => return Err(reason),
        }
        let methods = ["certificate", "token", "password", "custom"];
        Ok(methods.into_iter().find(|by| client.publish(&format!("by/{by}"), b"x") == 0).expect("a method"))
    }
}

/// A method in YAML.
fn settings(method: &str, custom: u16) -> String {
    match method {
        "certificate" => {
            "  - method: X509\n    x509Settings:\n      trustedClientCaCert: client-ca\n      authorizationAttributes: \
                          {any: {subject: 'CN = Fabrikam Intermediate CA 1', attributes: {by: certificate}}}\n"
                .to_owned()
        }
        "token" => support::login::BY_TOKEN.to_owned(),
        "password" => "  - method: UsernamePassword\n    usernamePasswordSettings: {secretRef: users}\n".to_owned(),
        _ => format!(
            "  - method: Custom\n    customSettings: {{endpoint: 'https://localhost:{custom}', caCertConfigMap: custom-ca}}\n"
        ),
    }
}

const GOOD_USER: Option<(&str, &str)> = Some(("client1", "password"));
const BAD_USER: Option<(&str, &str)> = Some(("client1", "wrong"));

#[test]
fn scenarios_24_to_28_and_59_the_first_method_whose_credential_is_there_decides() {
    let bench = Bench::start("order");
    let (good, bad) = (Issuer::new().token("my-audience", 600), Issuer::new().token("other-audience", 600));
    let (good, bad): (Option<&[u8]>, Option<&[u8]>) = (Some(&good), Some(&bad));
    let cert = Shown { certificate: true, ..Shown::default() };
    let bare = Shown::default();
    let all = Shown { certificate: true, token: None, user: GOOD_USER };
    for (order, shown, expected) in [
        (ORDERS[1], cert, Ok("certificate")),
        (ORDERS[1], Shown { token: good, ..cert }, Ok("certificate")),
        (ORDERS[1], Shown { token: bad, ..cert }, Ok("certificate")),
        (ORDERS[1], Shown { token: good, ..bare }, Ok("token")),
        (ORDERS[1], Shown { token: bad, ..bare }, Err(0x87)),
        (ORDERS[1], bare, Err(0x87)),
        (ORDERS[2], cert, Ok("certificate")),
        (ORDERS[2], Shown { token: good, ..cert }, Ok("token")),
        (ORDERS[2], Shown { token: bad, ..cert }, Err(0x87)),
        (ORDERS[2], Shown { token: Some(b""), ..cert }, Err(0x87)),
        // A user name is no token, and decides nothing where nobody asks for it.
        (ORDERS[2], Shown { user: BAD_USER, ..cert }, Ok("certificate")),
        (ORDERS[2], Shown { user: Some(("K8S-SAT", "x")), ..cert }, Err(0x87)),
        (ORDERS[3], all, Ok("certificate")),
        (ORDERS[3], Shown { user: BAD_USER, ..cert }, Ok("certificate")),
        (ORDERS[3], Shown { user: GOOD_USER, ..bare }, Ok("password")),
        (ORDERS[3], Shown { user: BAD_USER, ..bare }, Err(0x86)),
        (ORDERS[3], bare, Err(0x87)),
        (ORDERS[4], cert, Ok("certificate")),
        (ORDERS[4], all, Ok("password")),
        (ORDERS[4], Shown { user: BAD_USER, ..cert }, Err(0x86)),
        (ORDERS[6], cert, Ok("custom")),
        (ORDERS[6], Shown { user: Some(("deny", "")), ..cert }, Err(135)),
        (ORDERS[6], Shown { user: Some(("down", "")), ..cert }, Ok("certificate")),
        (ORDERS[6], Shown { user: Some(("down", "")), ..bare }, Err(0x87)),
        (ORDERS[7], Shown { token: good, ..cert }, Ok("token")),
        (ORDERS[7], Shown { token: bad, ..cert }, Err(0x87)),
        (ORDERS[7], all, Ok("password")),
        (ORDERS[7], Shown { user: BAD_USER, ..cert }, Err(0x86)),
        (ORDERS[7], cert, Ok("custom")),
    ] {
        let Shown { certificate, token, user } = shown;
        assert_eq!(bench.log_in(order, shown), expected, "{order:?}: {certificate} {token:?} {user:?}");
    }
    let before = bench.server.seen().len();
    for user in [None, Some(("deny", "")), Some(("down", ""))] {
        assert_eq!(bench.log_in(ORDERS[5], Shown { user, ..cert }), Ok("certificate"));
    }
    assert_eq!(bench.server.seen().len(), before, "the server is not asked behind a certificate");
    assert_eq!(bench.log_in(ORDERS[5], Shown { user: Some(("deny", "")), ..bare }), Err(135));
}

/// A certificate that ends in so many seconds, under an authority, with its key.
fn short(root: &Issued, seconds: u64) -> (Vec<rustls::pki_types::CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let subject = DistinguishedName::parse("CN=short").unwrap();
    let template = Template::leaf(subject, UnixTime(now() - 60), UnixTime(now() + seconds));
    let issued = root.issue(&template).unwrap();
    let key = PrivateKeyDer::from_pem_slice(issued.key_pem().unwrap().as_bytes()).unwrap();
    (vec![issued.certificate_der().unwrap().into()], key)
}

#[test]
fn scenarios_36_and_37_a_certificate_cannot_be_renewed_and_ends_its_connection() {
    let mut bench = Bench::start("ends");
    let demo = bench.site.folder.join("demo");
    let authority = demo.join("contoso_root_ca.crt");
    let pem = |file: &str| std::fs::read_to_string(demo.join(file)).unwrap();
    let root = Issued::from_pem(&pem("fabrikam_intermediate_ca.crt"), &pem("fabrikam_intermediate_ca.key")).unwrap();
    let with_intermediate = |seconds: u64| {
        let (mut chain, key) = short(&root, seconds);
        chain.extend(certificates(&demo.join("fabrikam_intermediate_ca.crt")));
        (chain, key)
    };
    // 36
    let stream = tls(bench.port(ORDERS[0]), &authority, Some(with_intermediate(600))).expect("TLS");
    let mut client = Client::accepted(stream, "c");
    client.send(&auth("K8S-SAT", b"x"));
    client.is_disconnected(0x82);
    // 37
    let stream = tls(bench.port(ORDERS[0]), &authority, Some(with_intermediate(6))).expect("TLS");
    let mut client = Client::accepted(stream, "d");
    client.ping();
    assert_eq!(client.receive(), None, "closed without DISCONNECT");
    bench.site.process.wait_for("credential expired");
    // A chain that is not trusted is refused in TLS, whatever else its client has.
    let (begin, end) = (UnixTime(now() - 60), UnixTime(now() + 600));
    let name = DistinguishedName::parse("CN=Fabrikam Intermediate CA 1").unwrap();
    let other = Issued::root(&Template::authority(name, None, begin, end)).unwrap();
    for order in &ORDERS {
        let refused = tls(bench.port(order), &authority, Some(short(&other, 600)));
        assert!(!tls_refusal(refused).is_empty(), "{order:?}");
    }
}
