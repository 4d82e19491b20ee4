//! Connections in memory that does not grow, and clients of mutual TLS on them.
#![allow(dead_code, clippy::expect_used, clippy::unwrap_used)] // not every program uses everything

use portcullis::authentication::{Authenticator, ChainVerifier, SignatureMemo, Signatures};
use portcullis::broker::Settings;
use portcullis::config::blob::{Authentication, Configuration, Method, TrustBundle};
use portcullis::crypto;
use portcullis::distinguished_name::DistinguishedName;
use portcullis::net::{Accepted, Interest, Io, Network, Transport};
use portcullis::pki::{Host, Issued, Template};
use portcullis::time::{RELEASED, UnixTime};
use portcullis::tls::{ClientCertificates, ClientVerifier, ServerTls, WallClock};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use std::cell::RefCell;
use std::io::{Read as _, Write as _};
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::sync::Arc;

/// Bytes of a socket: enough for what one turn sends.
const WIRE_BYTES: usize = 64 * 1024;
/// How long certificates last, seconds: ten years.
const VALIDITY_SECONDS: u64 = 10 * 365 * 24 * 3_600;

/// Both directions of one connection.
pub struct Wire {
    pub to_broker: Vec<u8>,
    pub to_client: Vec<u8>,
    pub token: u64,
    pub is_closed: bool,
    /// Whether the client has closed its socket.
    is_ended: bool,
    tls: Option<ClientConnection>,
    /// TLS records that went either way since this was set to 0.
    pub records: usize,
}

/// All connections, and how many of them the broker has accepted.
#[derive(Clone, Default)]
pub struct Wires(pub Rc<RefCell<(Vec<Wire>, usize)>>);

impl Wires {
    /// A client that connects, with TLS or without. Its ClientHello is on the wire.
    pub fn open(&self, tls: Option<ClientConnection>) -> usize {
        let wire = || Vec::with_capacity(WIRE_BYTES);
        let (to_broker, to_client) = (wire(), wire());
        let mut wire = Wire { to_broker, to_client, token: 0, is_closed: false, is_ended: false, tls, records: 0 };
        wire.send(&[]);
        let (wires, _) = &mut *self.0.borrow_mut();
        wires.push(wire);
        wires.len() - 1
    }

    /// What the client says; with no bytes what TLS has to say.
    pub fn send(&self, index: usize, bytes: &[u8]) {
        self.0.borrow_mut().0[index].send(bytes);
    }

    /// What was said to the client.
    pub fn take<T>(&self, index: usize, look: impl FnOnce(&[u8]) -> T) -> T {
        let wire = &mut self.0.borrow_mut().0[index];
        if wire.tls.is_some() {
            look(&wire.opened())
        } else {
            let seen = look(&wire.to_client);
            wire.to_client.clear();
            seen
        }
    }

    /// The client closes its socket.
    pub fn end(&self, index: usize) {
        self.0.borrow_mut().0[index].is_ended = true;
    }

    /// Frees what a connection that is over has held.
    pub fn forget(&self, index: usize) {
        let wire = &mut self.0.borrow_mut().0[index];
        (wire.to_broker, wire.to_client, wire.tls) = (Vec::new(), Vec::new(), None);
    }

    /// Whether the client's TLS handshake, if it has one, is finished.
    pub fn is_established(&self, index: usize) -> bool {
        self.0.borrow().0[index].tls.as_ref().is_none_or(|tls| !tls.is_handshaking())
    }
}

impl Wire {
    fn send(&mut self, bytes: &[u8]) {
        let Some(tls) = &mut self.tls else { return self.to_broker.extend_from_slice(bytes) };
        tls.writer().write_all(bytes).unwrap();
        let start = self.to_broker.len();
        while tls.wants_write() {
            tls.write_tls(&mut self.to_broker).unwrap();
        }
        self.records += records(&self.to_broker[start..]);
    }

    fn opened(&mut self) -> Vec<u8> {
        let tls = self.tls.as_mut().unwrap();
        self.records += records(&self.to_client);
        let (mut sealed, mut plaintext) = (&self.to_client[..], Vec::new());
        while !sealed.is_empty() {
            tls.read_tls(&mut sealed).unwrap();
            let state = tls.process_new_packets().unwrap();
            let start = plaintext.len();
            plaintext.resize(start + state.plaintext_bytes_to_read(), 0);
            tls.reader().read_exact(&mut plaintext[start..]).unwrap();
        }
        self.to_client.clear();
        plaintext
    }
}

/// What a gateway says of a broker that is measured here.
pub fn settings() -> Settings {
    Settings {
        connect_deadline_seconds: 10,
        shares_client_identifiers: false,
        announces_expiry: false,
        validate_payload_format: false,
        sys_interval_seconds: 0,
        response_information: None,
    }
}

/// How many TLS records `bytes` are.
fn records(mut bytes: &[u8]) -> usize {
    let mut count = 0;
    while let [_, _, _, high, low, rest @ ..] = bytes {
        bytes = &rest[usize::from(u16::from_be_bytes([*high, *low]))..];
        count += 1;
    }
    count
}

impl Network for Wires {
    type Stream = usize;

    fn accept(&mut self, _: usize) -> Accepted<usize> {
        let (wires, accepted) = &mut *self.0.borrow_mut();
        if *accepted == wires.len() {
            return Accepted::Nothing;
        }
        *accepted += 1;
        Accepted::Stream(*accepted - 1, (Ipv4Addr::LOCALHOST, 1).into())
    }

    fn read(&mut self, stream: &mut usize, into: &mut [u8]) -> Io {
        let wire = &mut self.0.borrow_mut().0[*stream];
        let bytes = &mut wire.to_broker;
        if bytes.is_empty() {
            return if wire.is_ended { Io::Bytes(0) } else { Io::WouldBlock };
        }
        into[..bytes.len()].copy_from_slice(bytes);
        let count = bytes.len();
        bytes.clear();
        Io::Bytes(count)
    }

    fn write(&mut self, stream: &mut usize, from: &[u8]) -> Io {
        let bytes = &mut self.0.borrow_mut().0[*stream].to_client;
        assert!(bytes.len() + from.len() <= bytes.capacity(), "the test reads in time");
        bytes.extend_from_slice(from);
        Io::Bytes(from.len())
    }

    fn watch(&mut self, stream: &usize, token: u64, _: Interest) -> bool {
        self.0.borrow_mut().0[*stream].token = token;
        true
    }

    fn change(&mut self, _: &usize, _: u64, _: Interest) {}
    fn finish(&mut self, _: &mut usize) {}
    fn close(&mut self, stream: usize) {
        self.0.borrow_mut().0[stream].is_closed = true;
    }
    fn listen(&mut self, _: usize, _: bool) {}
}

/// A port with mutual TLS and the method X509, and a client with a certificate of an intermediate authority.
pub struct MutualTls {
    pub transport: Transport,
    client: Arc<ClientConfig>,
}

impl MutualTls {
    /// With who authenticates its clients, which is added to `configuration` as its only authentication. The broker
    /// remembers `remembered` good signatures; the client resumes sessions if it `resumes`.
    pub fn new(
        configuration: &mut Configuration,
        now: UnixTime,
        remembered: u32,
        resumes: bool,
    ) -> (Self, Authenticator) {
        let end = RELEASED.plus_seconds(VALIDITY_SECONDS);
        let name = |name: &str| DistinguishedName::parse(name).unwrap();
        let authority = |subject| Template::authority(name(subject), None, RELEASED, end);
        let root = Issued::root(&authority("CN=Root CA")).unwrap();
        let intermediate = root.issue(&authority("CN=Intermediate CA 1,OU=Engineering,C=US")).unwrap();
        let client = intermediate.issue(&Template::leaf(name("CN=thermostat"), RELEASED, end)).unwrap();
        let mut of_server = Template::leaf(name("CN=localhost"), RELEASED, end);
        of_server.purposes = vec![portcullis::pki::SERVER_AUTHENTICATION];
        of_server.hosts = vec![Host::Name("localhost".to_owned())];
        let server = intermediate.issue(&of_server).unwrap();
        let der = |issued: &Issued| CertificateDer::from(issued.certificate_der().unwrap());
        let chain = |issued: &Issued| vec![der(issued), der(&intermediate)];
        let key = |issued: &Issued| PrivateKeyDer::from_pem_slice(issued.key_pem().unwrap().as_bytes()).unwrap();

        let bundle = TrustBundle { name: "client-ca".to_owned(), certificates: vec![root.certificate_der().unwrap()] };
        configuration.trust_bundles = vec![bundle];
        let methods = vec![Method::X509 { trust_bundle: 0, attributes: Vec::new() }];
        configuration.authentications = vec![Authentication { name: "x509".to_owned(), methods }];
        let signatures = Signatures {
            algorithms: crypto::provider().signature_verification_algorithms.all,
            memo: Arc::new(SignatureMemo::new(remembered)),
        };
        let authenticator = Authenticator::new(configuration, 0, signatures, RELEASED).unwrap();
        let verifier = Arc::new(Verifier(Arc::clone(authenticator.chain_verifier().unwrap())));
        let clients = ClientCertificates::Required(verifier);
        let clock = Arc::new(WallClock::new(now));
        let transport = Transport::Tls(ServerTls::new(chain(&server), key(&server), clients, clock).unwrap());

        let mut roots = RootCertStore::empty();
        roots.add(der(&root)).unwrap();
        let mut config = ClientConfig::builder_with_provider(crypto::shared_provider())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(chain(&client), key(&client))
            .unwrap();
        if !resumes {
            config.resumption = rustls::client::Resumption::disabled();
        }
        (Self { transport, client: Arc::new(config) }, authenticator)
    }

    pub fn client(&self) -> ClientConnection {
        ClientConnection::new(Arc::clone(&self.client), "localhost".try_into().unwrap()).unwrap()
    }
}

/// The handshake asks the judge whom CONNECT asks, as in the program.
#[derive(Debug)]
struct Verifier(Arc<ChainVerifier>);

impl ClientVerifier for Verifier {
    fn verify(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> Result<(), rustls::Error> {
        self.0.verify(chain, now).map(drop).map_err(rustls::Error::from)
    }

    fn root_hint_subjects(&self) -> &[rustls::DistinguishedName] {
        self.0.root_hint_subjects()
    }
}
