//! A TLS connection takes no more memory than the memory budget counts for it: during its handshake, and when it is idle.
//!
//! The allocator of this program counts. There is one test, because other tests would be counted with it.
#![allow(clippy::expect_used, clippy::unwrap_used)]

use portcullis::distinguished_name::DistinguishedName;
use portcullis::pki::{Host, Issued, Template};
use portcullis::time::UnixTime;
use portcullis::tls::{
    ClientCertificates, ClientVerifier, HANDSHAKE_BYTES_MAX, SESSION_BYTES_MAX, ServerTls, TlsConnection, WallClock,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, version};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use std::alloc::System;
use std::sync::Arc;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const CONNECTIONS: usize = 8;

/// Lets everybody in.
#[derive(Debug)]
struct Trusting;

impl ClientVerifier for Trusting {
    fn verify(&self, _: &[CertificateDer<'_>], _: UnixTime) -> Result<(), rustls::Error> {
        Ok(())
    }

    fn root_hint_subjects(&self) -> &[rustls::DistinguishedName] {
        &[]
    }
}

fn key(issued: &Issued) -> PrivateKeyDer<'static> {
    use rustls::pki_types::pem::PemObject as _;
    PrivatePkcs8KeyDer::from_pem_slice(issued.key_pem().unwrap().as_bytes()).unwrap().into()
}

/// One handshake, and the most bytes that the server's side held between two steps.
fn connected(server: &ServerTls, client: &Arc<ClientConfig>) -> (TlsConnection, usize) {
    let name = ServerName::try_from("localhost").unwrap();
    let mut client = ClientConnection::new(Arc::clone(client), name).unwrap();
    let held = |region: &Region<'_, System>| {
        let change = region.change();
        change.bytes_allocated.saturating_sub(change.bytes_deallocated)
    };
    let region = Region::new(ALLOCATOR);
    let mut most = 0;
    let mut connection = TlsConnection::accept(server).unwrap();
    most = most.max(held(&region));
    let (mut to_server, mut to_client) = (Vec::with_capacity(65_536), Vec::with_capacity(65_536));
    let base = held(&region);
    let mut clients_own = base;
    while client.is_handshaking() || !connection.is_established() {
        let before = held(&region);
        client.write_tls(&mut to_server).unwrap();
        clients_own += held(&region).saturating_sub(before);
        while !to_server.is_empty() {
            let received = connection.receive(&mut to_server, &mut to_client, |_| ()).unwrap();
            to_server.drain(..received.consumed);
        }
        most = most.max(held(&region).saturating_sub(clients_own));
        let mut bytes = to_client.as_slice();
        while !bytes.is_empty() {
            client.read_tls(&mut bytes).unwrap();
            client.process_new_packets().unwrap();
        }
        to_client.clear();
    }
    (connection, most)
}

#[test]
fn a_session_takes_what_the_budget_counts() {
    let name = |text: &str| DistinguishedName::parse(text).unwrap();
    let (begin, end) = (UnixTime(1_600_000_000), UnixTime(4_000_000_000));
    let root = Issued::root(&Template::authority(name("CN=Root"), None, begin, end)).unwrap();
    let mut template = Template::leaf(name("CN=localhost"), begin, end);
    template.hosts = vec![Host::Name("localhost".to_owned())];
    let leaf = root.issue(&template).unwrap();
    let der = |issued: &Issued| CertificateDer::from(issued.certificate_der().unwrap());
    let chain = vec![der(&leaf)];
    let clock = Arc::new(WallClock::new(UnixTime(1_800_000_000)));
    let mut roots = RootCertStore::empty();
    roots.add(der(&root)).unwrap();
    for version in [&version::TLS13, &version::TLS12] {
        let clients = ClientCertificates::Required(Arc::new(Trusting));
        let server = ServerTls::new(chain.clone(), key(&leaf), clients, clock.clone()).unwrap();
        let client = ClientConfig::builder_with_provider(Arc::new(portcullis::crypto::provider()))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots.clone())
            .with_client_auth_cert(chain.clone(), key(&leaf))
            .unwrap();
        let client = Arc::new(client);
        drop(connected(&server, &client));
        let region = Region::new(ALLOCATOR);
        let mut connections = Vec::with_capacity(CONNECTIONS);
        for _ in 0..CONNECTIONS {
            let (connection, most) = connected(&server, &client);
            assert!(most as u64 <= HANDSHAKE_BYTES_MAX, "{version:?}: {most} bytes in a handshake");
            connections.push(Box::new(connection));
        }
        let change = region.change();
        let each = (change.bytes_allocated - change.bytes_deallocated) / CONNECTIONS - chain[0].len();
        assert!(each as u64 <= SESSION_BYTES_MAX, "{version:?}: {each} bytes");
        assert!(connections.iter().all(|connection| connection.peer_chain().len() == 1));
    }
}
