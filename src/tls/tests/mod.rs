//! Against rustls' own client, in memory.

use super::*;
use crate::crypto;
use crate::time::UnixTime;
use pki::{Pki, WebPkiJudge, unix_now};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{
    AlertDescription, ClientConfig, ClientConnection, DistinguishedName, Error, HandshakeKind, RootCertStore,
    SupportedCipherSuite, SupportedProtocolVersion, version,
};
use std::io::{Read, Write};
use std::sync::{Arc, LazyLock};

// `pki` takes `provider` from the module around it, so that the tests of the whole program can include it too.
use crate::crypto::provider;
mod pki;
mod tickets;

impl ClientVerifier for WebPkiJudge {
    fn verify(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> Result<(), Error> {
        self.judge(chain, now.0)
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }
}

/// One authority with a server and clients for all tests.
struct World {
    pki: Pki,
    other: Pki,
}

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let (pki, other) = (Pki::new(), Pki::new());
    pki.issue("server", "P-256", 20);
    pki.issue("client", "P-256", 20);
    pki.issue("rsa", "2048", 20);
    other.issue("client", "P-256", 20);
    let names = vec!["DNS:a-name-to-make-the-certificate-long.example"; 75].join(",");
    std::fs::write(pki.path("long"), format!("[x]\nsubjectAltName={names}\n")).unwrap();
    pki.openssl("req -new -key client.key -subj /CN=long -out long.csr");
    pki.openssl("x509 -req -in long.csr -CA ca.crt -CAkey ca.key -days 20 -extfile long -extensions x -out long.crt");
    World { pki: pki.into_memory(), other: other.into_memory() }
});

#[derive(Clone, Copy, PartialEq)]
enum Ask {
    Nothing,
    Maybe,
    Must,
}

fn clock() -> Arc<WallClock> {
    Arc::new(WallClock::new(UnixTime(unix_now() + 60)))
}

fn server_with(provider: Arc<CryptoProvider>, ask: Ask, clock: Arc<WallClock>) -> ServerTls {
    let pki = &WORLD.pki;
    let judge = || Arc::new(WebPkiJudge::new(pki.chain("ca").remove(0)));
    let clients = match ask {
        Ask::Nothing => ClientCertificates::NotRequested,
        Ask::Maybe => ClientCertificates::Requested(judge()),
        Ask::Must => ClientCertificates::Required(judge()),
    };
    ServerTls::with_provider(provider, pki.chain("server"), pki.private_key("server"), clients, clock).unwrap()
}

fn server(ask: Ask) -> ServerTls {
    server_with(crypto::shared_provider(), ask, clock())
}

static BOTH: [&SupportedProtocolVersion; 2] = [&version::TLS13, &version::TLS12];

fn client_config(
    provider: CryptoProvider,
    version: &'static SupportedProtocolVersion,
    identity: Option<(&Pki, &str)>,
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(WORLD.pki.chain("ca").remove(0)).unwrap();
    let builder = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[version])
        .unwrap()
        .with_root_certificates(roots);
    match identity {
        Some((pki, name)) => builder.with_client_auth_cert(pki.chain(name), pki.private_key(name)).unwrap(),
        None => builder.with_no_client_auth(),
    }
}

fn client(version: &'static SupportedProtocolVersion, identity: Option<(&Pki, &str)>) -> ClientConnection {
    // The published crate plays the client, so that two implementations meet; it also signs with RSA.
    let config = client_config(rustls_rustcrypto::provider(), version, identity);
    ClientConnection::new(Arc::new(config), ServerName::try_from("localhost").unwrap()).unwrap()
}

/// A client and a server with the bytes under way between them.
struct Pair {
    client: ClientConnection,
    server: TlsConnection,
    /// Bytes of the client that the server has not consumed.
    inbox: Vec<u8>,
    /// Application data that the server has received.
    received: Vec<u8>,
    /// Most bytes that go in either direction at once.
    portion: usize,
    peer_closed: bool,
    calls_with_more: usize,
    largest_pending: usize,
}

impl Pair {
    fn new(server: &ServerTls, client: ClientConnection) -> Self {
        Self {
            client,
            server: TlsConnection::accept(server).unwrap(),
            inbox: Vec::new(),
            received: Vec::new(),
            portion: usize::MAX,
            peer_closed: false,
            calls_with_more: 0,
            largest_pending: 0,
        }
    }

    /// Gives `bytes` to the server in portions and returns what it answers.
    fn feed(&mut self, bytes: &[u8]) -> (Vec<u8>, Result<(), TlsFault>) {
        let mut out = Vec::new();
        for portion in bytes.chunks(self.portion) {
            self.inbox.extend_from_slice(portion);
            loop {
                let received = &mut self.received;
                match self.server.receive(&mut self.inbox, &mut out, |data| received.extend_from_slice(data)) {
                    Ok(done) => {
                        self.inbox.drain(..done.consumed);
                        self.peer_closed |= done.peer_closed;
                        self.largest_pending = self.largest_pending.max(self.server.pending_bytes());
                        assert_eq!(done.established, self.server.is_established());
                        if !done.more {
                            break;
                        }
                        self.calls_with_more += 1;
                    }
                    Err(fault) => return (out, Err(fault)),
                }
            }
        }
        (out, Ok(()))
    }

    fn give_client(&mut self, bytes: &[u8]) -> Result<(), Error> {
        for mut portion in bytes.chunks(self.portion) {
            while !portion.is_empty() {
                self.client.read_tls(&mut portion).unwrap();
                self.client.process_new_packets()?;
            }
        }
        Ok(())
    }

    fn client_bytes(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        while self.client.wants_write() {
            self.client.write_tls(&mut bytes).unwrap();
        }
        bytes
    }

    /// Lets both talk until both are silent; both sides' first faults.
    fn talk(&mut self) -> (Result<(), TlsFault>, Result<(), Error>) {
        loop {
            let bytes = self.client_bytes();
            if bytes.is_empty() {
                return (Ok(()), Ok(()));
            }
            let (out, ours) = self.feed(&bytes);
            let theirs = self.give_client(&out);
            if ours.is_err() || theirs.is_err() {
                return (ours, theirs);
            }
        }
    }

    fn establish(&mut self) {
        assert_eq!(self.talk(), (Ok(()), Ok(())));
        assert!(self.server.is_established() && !self.client.is_handshaking());
        assert_eq!(self.server.pending_bytes(), 0);
    }

    /// Sends data both ways and checks that it comes whole.
    fn echo(&mut self, data: &[u8]) {
        self.received.clear();
        let mut echoed = Vec::new();
        for piece in data.chunks(16_000) {
            self.client.writer().write_all(piece).unwrap();
            assert_eq!(self.talk(), (Ok(()), Ok(())));
        }
        assert!(self.received == data);
        let mut out = Vec::new();
        self.server.send(data, &mut out).unwrap();
        for portion in out.chunks(4_096) {
            self.give_client(portion).unwrap();
            let mut buffer = [0; 8_192];
            while let Ok(bytes) = self.client.reader().read(&mut buffer) {
                echoed.extend_from_slice(&buffer[..bytes]);
            }
        }
        assert!(echoed == data);
        assert_eq!(self.talk(), (Ok(()), Ok(())));
    }
}

#[test]
fn every_suite_agrees_with_the_published_implementation() {
    for suite in crypto::cipher_suites(true) {
        let version = if suite.tls13().is_some() { &version::TLS13 } else { &version::TLS12 };
        let mut provider = rustls_rustcrypto::provider();
        provider.cipher_suites.retain(|candidate| candidate.suite() == suite.suite());
        let config = client_config(provider, version, Some((&WORLD.pki, "client")));
        let client = ClientConnection::new(Arc::new(config), ServerName::try_from("localhost").unwrap()).unwrap();
        let mut pair = Pair::new(&server(Ask::Must), client);
        pair.establish();
        assert_eq!(pair.server.suite(), suite.suite().as_str());
        assert_eq!(pair.server.protocol(), Some(if suite.tls13().is_some() { "TLS 1.3" } else { "TLS 1.2" }));
        for length in [0, 1, 16_383, 16_384, 16_385, 50_000] {
            pair.echo(&vec![0xa5; length]);
        }
    }
}

#[test]
fn every_group_agrees_with_the_published_implementation() {
    for group in provider().kx_groups {
        for version in BOTH {
            let mut provider = rustls_rustcrypto::provider();
            provider.kx_groups.retain(|candidate| candidate.name() == group.name());
            let config = client_config(provider, version, None);
            let client = ClientConnection::new(Arc::new(config), ServerName::try_from("localhost").unwrap()).unwrap();
            let mut pair = Pair::new(&server(Ask::Nothing), client);
            pair.establish();
            pair.echo(b"group");
        }
    }
}

#[test]
fn bytes_may_come_in_pieces_of_any_size() {
    for version in BOTH {
        for portion in [1, 2, 3, 4, 5, 6, 7, 16, 100, 517, 1_000, 1 << 20] {
            let mut pair = Pair::new(&server(Ask::Must), client(version, Some((&WORLD.pki, "client"))));
            pair.portion = portion;
            pair.establish();
            pair.echo(b"in pieces");
            assert!(pair.inbox.is_empty());
        }
    }
}

#[test]
fn several_records_in_one_call_are_all_taken() {
    for version in BOTH {
        let mut pair = Pair::new(&server(Ask::Nothing), client(version, None));
        pair.establish();
        pair.calls_with_more = 0;
        let mut bytes = Vec::new();
        for _ in 0..20 {
            pair.client.writer().write_all(b"record").unwrap();
            bytes.extend(pair.client_bytes());
        }
        let half = bytes.len() - 3;
        assert_eq!(pair.feed(&bytes[..half]).1, Ok(()));
        assert_eq!(pair.received, b"record".repeat(19));
        assert_eq!(pair.feed(&bytes[half..]).1, Ok(()));
        assert_eq!(pair.received, b"record".repeat(20));
        assert_eq!(pair.calls_with_more, 0, "established connections take everything at once");
    }
}

#[test]
fn a_handshake_takes_one_record_a_call() {
    // TLS 1.2 clients send certificate, key exchange, signature and Finished as records of their own.
    let mut pair = Pair::new(&server(Ask::Must), client(&version::TLS12, Some((&WORLD.pki, "client"))));
    pair.establish();
    assert!(pair.calls_with_more >= 3, "{}", pair.calls_with_more);
}

#[test]
fn client_certificates_are_asked_for_as_configured() {
    let good = Some((&WORLD.pki, "client"));
    for version in BOTH {
        for (ask, identity, shown) in [
            (Ask::Nothing, None, false),
            (Ask::Nothing, good, false),
            (Ask::Maybe, None, false),
            (Ask::Maybe, good, true),
            (Ask::Must, good, true),
            (Ask::Must, Some((&WORLD.pki, "rsa")), true),
        ] {
            let mut pair = Pair::new(&server(ask), client(version, identity));
            assert!(pair.server.peer_chain().is_empty());
            pair.establish();
            let expected = identity.filter(|_| shown).map(|(pki, name)| pki.chain(name)).unwrap_or_default();
            assert_eq!(pair.server.peer_chain(), expected);
        }
    }
}

#[test]
fn a_client_without_the_required_certificate_is_told_so() {
    for version in BOTH {
        let mut pair = Pair::new(&server(Ask::Must), client(version, None));
        let (ours, theirs) = pair.talk();
        assert_eq!(ours, Err(TlsFault::NoCertificate));
        assert_eq!(theirs, Err(Error::AlertReceived(AlertDescription::CertificateRequired)));
        assert!(pair.server.peer_chain().is_empty());
        assert_eq!(pair.server.receive(&mut [22, 3, 3, 0, 1, 0], &mut Vec::new(), |_| ()), Err(TlsFault::Ended));
    }
}

#[test]
fn bad_client_certificates_are_refused_with_a_reason_and_an_alert() {
    for version in BOTH {
        for ask in [Ask::Maybe, Ask::Must] {
            let mut pair = Pair::new(&server(ask), client(version, Some((&WORLD.other, "client"))));
            let (ours, theirs) = pair.talk();
            let fault = ours.unwrap_err();
            assert_eq!((fault.to_string().as_str(), fault.culprit()), ("unknown authority", Culprit::Peer));
            assert_eq!(theirs, Err(Error::AlertReceived(AlertDescription::UnknownCA)));
            assert!(!pair.server.is_established() && pair.server.peer_chain().is_empty());
        }
    }
}

#[test]
fn an_authority_with_rsa_1024_is_not_believed_and_one_with_2048_is() {
    for (bits, believed) in [("1024", false), ("2048", true)] {
        let theirs = Pki::with_authority(bits);
        theirs.issue("client", "P-256", 20);
        let judge = Arc::new(WebPkiJudge::new(theirs.chain("ca").remove(0)));
        let pki = &WORLD.pki;
        let clients = ClientCertificates::Required(judge);
        let server = ServerTls::new(pki.chain("server"), pki.private_key("server"), clients, clock()).unwrap();
        for version in BOTH {
            let mut pair = Pair::new(&server, client(version, Some((&theirs, "client"))));
            let (ours, told) = pair.talk();
            assert_eq!(ours.is_ok(), believed);
            if let Err(fault) = ours {
                // The judge's own words, through rustls and back.
                assert_eq!(
                    (fault.to_string().as_str(), fault.culprit()),
                    ("InvalidSignatureForPublicKey", Culprit::Peer)
                );
                assert_eq!(told, Err(Error::AlertReceived(AlertDescription::CertificateUnknown)));
            }
        }
    }
}

#[test]
fn certificates_are_judged_by_the_clock_that_is_given() {
    let clock = clock();
    let server = server_with(crypto::shared_provider(), Ask::Must, clock.clone());
    clock.set(UnixTime(unix_now() + 40 * 86_400));
    let mut pair = Pair::new(&server, client(&version::TLS13, Some((&WORLD.pki, "client"))));
    let (ours, theirs) = pair.talk();
    assert_eq!(ours.unwrap_err().to_string(), "certificate expired");
    assert_eq!(theirs, Err(Error::AlertReceived(AlertDescription::CertificateExpired)));
    clock.set(UnixTime(unix_now() + 60));
    Pair::new(&server, client(&version::TLS13, Some((&WORLD.pki, "client")))).establish();
}

#[test]
fn chains_beyond_our_caps_are_refused_before_they_are_judged() {
    for (count, reason) in [(8, None), (9, Some("too many certificates"))] {
        let mut chain = WORLD.pki.chain("client");
        chain.resize(count, WORLD.pki.chain("ca").remove(0));
        let mut roots = RootCertStore::empty();
        roots.add(WORLD.pki.chain("ca").remove(0)).unwrap();
        for version in BOTH {
            let config = ClientConfig::builder_with_provider(Arc::new(rustls_rustcrypto::provider()))
                .with_protocol_versions(&[version])
                .unwrap()
                .with_root_certificates(roots.clone())
                .with_client_auth_cert(chain.clone(), WORLD.pki.private_key("client"))
                .unwrap();
            let client = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
            let mut pair = Pair::new(&server(Ask::Must), client);
            let fault = pair.talk().0.err().map(|fault| fault.to_string());
            assert_eq!(fault.as_deref(), reason);
        }
    }
}

#[test]
fn long_chains_are_taken_up_to_our_cap_in_bytes() {
    let pki = &WORLD.pki;
    let long = pki.chain("long").remove(0);
    for (count, portion, reason) in [(4, 1 << 20, None), (4, 100, None), (5, 100, Some("certificates too long"))] {
        let mut chain = pki.chain("client");
        chain.extend(std::iter::repeat_n(long.clone(), count));
        let bytes: usize = chain.iter().map(|certificate| certificate.len()).sum();
        assert_eq!(bytes > crate::limits::PEER_CHAIN_BYTES_MAX, reason.is_some(), "{bytes}");
        for version in BOTH {
            // In records of at most 1,000 bytes too: the message is then put together from some twenty.
            for fragment in [None, Some(1_000)] {
                let mut config = ClientConfig::builder_with_provider(Arc::new(rustls_rustcrypto::provider()))
                    .with_protocol_versions(&[version])
                    .unwrap()
                    .with_root_certificates(RootCertStore { roots: pki_roots() })
                    .with_client_auth_cert(chain.clone(), pki.private_key("client"))
                    .unwrap();
                config.max_fragment_size = fragment;
                let client = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
                let mut pair = Pair::new(&server(Ask::Must), client);
                pair.portion = portion;
                let fault = pair.talk().0.err().map(|fault| fault.to_string());
                assert_eq!(fault.as_deref(), reason, "{version:?} {fragment:?}");
                assert_eq!(pair.server.pending_bytes(), 0);
            }
        }
    }
}

fn pki_roots() -> Vec<rustls::pki_types::TrustAnchor<'static>> {
    let mut roots = RootCertStore::empty();
    roots.add(WORLD.pki.chain("ca").remove(0)).unwrap();
    roots.roots
}

#[test]
fn a_client_that_offers_alpn_is_served() {
    for protocol in [&b"mqtt"[..], b"h2"] {
        let mut config = client_config(rustls_rustcrypto::provider(), &version::TLS13, None);
        config.alpn_protocols = vec![protocol.to_vec()];
        let client = ClientConnection::new(Arc::new(config), "localhost".try_into().unwrap()).unwrap();
        Pair::new(&server(Ask::Nothing), client).establish();
    }
}

#[test]
fn close_notify_goes_both_ways() {
    for version in BOTH {
        let mut pair = Pair::new(&server(Ask::Nothing), client(version, None));
        assert_eq!(pair.server.transport_ended(), Err(TlsFault::PeerClosedDuringHandshake));
        pair.establish();
        assert_eq!(pair.server.transport_ended(), Err(TlsFault::PeerClosedWithoutNotice));
        pair.client.writer().write_all(b"last").unwrap();
        pair.client.send_close_notify();
        let mut bytes = pair.client_bytes();
        bytes.extend_from_slice(b"nothing after it matters");
        assert_eq!(pair.feed(&bytes).1, Ok(()));
        assert!(pair.peer_closed && pair.inbox.is_empty());
        assert_eq!(pair.received, b"last");
        assert_eq!(pair.server.transport_ended(), Ok(()));
        // The other direction is still open.
        let mut out = Vec::new();
        pair.server.send(b"answer", &mut out).unwrap();
        pair.server.close_notify(&mut out);
        let length = out.len();
        pair.server.close_notify(&mut out);
        assert_eq!(out.len(), length, "once");
        assert_eq!(pair.server.send(b"more", &mut out), Err(TlsFault::Ended));
        pair.client.read_tls(&mut &out[..]).unwrap();
        assert!(pair.client.process_new_packets().unwrap().peer_has_closed());
        let mut answer = Vec::new();
        pair.client.reader().read_to_end(&mut answer).unwrap();
        assert_eq!(answer, b"answer");
    }
}

#[test]
fn data_is_not_sent_before_the_handshake_is_finished() {
    let mut pair = Pair::new(&server(Ask::Must), client(&version::TLS13, None));
    let mut out = Vec::new();
    assert_eq!(pair.server.send(b"early", &mut out), Err(TlsFault::NotEstablished));
    let hello = pair.client_bytes();
    let (_, fed) = pair.feed(&hello);
    assert_eq!(fed, Ok(()));
    assert_eq!(pair.server.send(b"half a round trip early", &mut out), Err(TlsFault::NotEstablished));
    pair.server.close_notify(&mut out);
    assert!(out.is_empty());
}

#[test]
fn key_updates_of_the_client_are_answered() {
    let mut pair = Pair::new(&server(Ask::Nothing), client(&version::TLS13, None));
    pair.establish();
    for round in 0..40 {
        pair.client.refresh_traffic_keys().unwrap();
        pair.echo(format!("round {round}").as_bytes());
    }
}

#[test]
fn key_updates_without_data_are_refused_at_last() {
    let mut pair = Pair::new(&server(Ask::Nothing), client(&version::TLS13, None));
    pair.establish();
    let mut refused = 0;
    while refused == 0 {
        pair.client.refresh_traffic_keys().unwrap();
        let bytes = pair.client_bytes();
        let (out, fed) = pair.feed(&bytes);
        assert!(out.len() < 100);
        refused = u32::from(fed.is_err());
    }
    assert!(!pair.server.is_established() || pair.server.send(b"x", &mut Vec::new()) == Err(TlsFault::Ended));
}

/// Our provider with keys that protect `records` records only.
fn short_lived(records: u64) -> Arc<CryptoProvider> {
    let mut provider = provider();
    for suite in &mut provider.cipher_suites {
        *suite = match *suite {
            SupportedCipherSuite::Tls13(base) => {
                let mut common = suite_common(base.common.suite, base.common.hash_provider);
                common.confidentiality_limit = records;
                SupportedCipherSuite::Tls13(Box::leak(Box::new(rustls::Tls13CipherSuite {
                    common,
                    hkdf_provider: base.hkdf_provider,
                    aead_alg: base.aead_alg,
                    quic: None,
                })))
            }
            SupportedCipherSuite::Tls12(base) => {
                let mut common = suite_common(base.common.suite, base.common.hash_provider);
                common.confidentiality_limit = records;
                SupportedCipherSuite::Tls12(Box::leak(Box::new(rustls::Tls12CipherSuite {
                    common,
                    prf_provider: base.prf_provider,
                    kx: base.kx,
                    sign: base.sign,
                    aead_alg: base.aead_alg,
                })))
            }
        };
    }
    Arc::new(provider)
}

fn suite_common(
    suite: rustls::CipherSuite,
    hash_provider: &'static dyn rustls::crypto::hash::Hash,
) -> rustls::crypto::CipherSuiteCommon {
    rustls::crypto::CipherSuiteCommon { suite, hash_provider, confidentiality_limit: 0 }
}

#[test]
fn worn_out_keys_are_renewed_in_tls_1_3() {
    let server = server_with(short_lived(10), Ask::Nothing, clock());
    let mut pair = Pair::new(&server, client(&version::TLS13, None));
    pair.establish();
    for _ in 0..100 {
        pair.echo(b"many records");
    }
    pair.echo(&vec![7; 400_000]);
}

#[test]
fn worn_out_keys_end_a_tls_1_2_connection() {
    let server = server_with(short_lived(10), Ask::Nothing, clock());
    let mut pair = Pair::new(&server, client(&version::TLS12, None));
    pair.establish();
    let mut out = Vec::new();
    let fault = (0..20).find_map(|_| pair.server.send(b"record", &mut out).err()).unwrap();
    assert_eq!(fault, TlsFault::KeysExhausted);
    pair.client.read_tls(&mut &out[..]).unwrap();
    assert!(pair.client.process_new_packets().unwrap().peer_has_closed());
    assert_eq!(pair.server.send(b"record", &mut out), Err(TlsFault::Ended));
}

#[test]
fn what_is_not_tls_is_refused_by_its_first_bytes_and_not_answered() {
    for bytes in
        [&[0x10, 0x0f, 0, 4][..], b"GET / HTTP/1.1", &[0x80, 0x2e, 1], &[0], &[22, 2], &[23, 3, 3, 0, 5], &[21, 3]]
    {
        let mut connection = TlsConnection::accept(&server(Ask::Nothing)).unwrap();
        let (mut bytes, mut out) = (bytes.to_vec(), Vec::new());
        assert_eq!(connection.receive(&mut bytes, &mut out, |_| ()), Err(TlsFault::NotTls), "{bytes:?}");
        assert!(out.is_empty());
    }
}

#[test]
fn a_record_that_is_too_long_is_refused_by_its_header() {
    let alert = |description: u8| vec![21, 3, 3, 0, 2, 2, description];
    for (length, fits) in [(8_187_u16, true), (16_641, false), (18_431, false), (18_432, false), (65_535, false)] {
        let mut connection = TlsConnection::accept(&server(Ask::Nothing)).unwrap();
        let [high, low] = length.to_be_bytes();
        let (mut header, mut out) = ([22, 3, 1, high, low], Vec::new());
        let result = connection.receive(&mut header, &mut out, |_| ());
        if fits {
            assert!(matches!(result, Ok(Received { consumed: 0, more: false, .. })));
        } else {
            assert_eq!(result, Err(TlsFault::RecordTooLong));
            assert_eq!(out, alert(50));
        }
    }
    for version in BOTH {
        let mut pair = Pair::new(&server(Ask::Nothing), client(version, None));
        pair.establish();
        let (out, fed) = pair.feed(&[23, 3, 3, 0x41, 1]);
        assert_eq!(fed, Err(TlsFault::RecordTooLong));
        let told = pair.give_client(&out).unwrap_err();
        assert_eq!(told, Error::AlertReceived(AlertDescription::DecodeError), "the alert is protected");
    }
}

/// `bytes`, one record, cut into records of `size` bytes.
fn fragments(bytes: &[u8], size: usize) -> Vec<u8> {
    bytes[5..].chunks(size).flat_map(|part| [&[22, 3, 1, 0, part.len() as u8], part].concat()).collect()
}

#[test]
fn a_client_hello_in_fragments_is_put_together() {
    for size in [1, 2, 3, 4, 5, 50, 200] {
        for portion in [1, 7, usize::MAX] {
            let mut pair = Pair::new(&server(Ask::Nothing), client(&version::TLS13, None));
            pair.portion = portion;
            let hello = pair.client_bytes();
            let (out, fed) = pair.feed(&fragments(&hello, size));
            assert_eq!(fed, Ok(()));
            pair.give_client(&out).unwrap();
            pair.establish();
            assert!(pair.largest_pending > 0);
            pair.echo(b"whole");
        }
    }
}

#[test]
fn an_endless_client_hello_is_refused_within_bounds() {
    // It announces 65,535 bytes and drips.
    for size in [1_usize, 10, 100, 1_000, 8_000, 16_000] {
        let mut connection = TlsConnection::accept(&server(Ask::Nothing)).unwrap();
        let mut body = vec![1, 0, 0xff, 0xff];
        let mut out = Vec::new();
        let fault = loop {
            body.resize(size.max(4), 0);
            let mut record = [&[22, 3, 1][..], &(body.len() as u16).to_be_bytes(), &body].concat();
            body = vec![0; size];
            match connection.receive(&mut record, &mut out, |_| ()) {
                Ok(done) => assert_eq!(done.consumed, record.len()),
                Err(fault) => break fault,
            }
            assert!(connection.pending.capacity() <= 2 * CLIENT_HELLO_BYTES_MAX);
        };
        assert_eq!(fault, TlsFault::HandshakeTooLong, "{size}");
        assert_eq!(out, [21, 3, 3, 0, 2, 2, 50]);
        assert_eq!(connection.pending_bytes(), 0);
    }
}

#[test]
fn a_handshake_message_of_more_than_64_kib_is_refused_by_its_header() {
    let mut connection = TlsConnection::accept(&server(Ask::Nothing)).unwrap();
    let (mut record, mut out) = ([22, 3, 1, 0, 4, 1, 1, 0, 0], Vec::new());
    let fault = connection.receive(&mut record, &mut out, |_| ()).unwrap_err();
    assert_eq!(fault.culprit(), Culprit::Peer);
}

#[test]
fn a_changed_record_ends_the_connection_with_an_alert() {
    for version in BOTH {
        let mut pair = Pair::new(&server(Ask::Nothing), client(version, None));
        pair.establish();
        pair.client.writer().write_all(b"genuine").unwrap();
        let mut bytes = pair.client_bytes();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        let (out, fed) = pair.feed(&bytes);
        assert_eq!(fed, Err(TlsFault::Peer(Error::DecryptError)));
        assert!(pair.received.is_empty());
        assert_eq!(pair.give_client(&out), Err(Error::AlertReceived(AlertDescription::BadRecordMac)));
    }
}

#[test]
fn no_garbage_panics_or_grows() {
    // xorshift, so that a failure repeats.
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let server = server(Ask::Must);
    let hello = client(&version::TLS13, None).client_hello();
    for _ in 0..3_000 {
        let mut connection = TlsConnection::accept(&server).unwrap();
        let mut bytes = hello.clone();
        for _ in 0..random() % 6 {
            let at = (random() % bytes.len() as u64) as usize;
            bytes[at] = random() as u8;
        }
        bytes.truncate((random() % (2 * bytes.len() as u64)) as usize);
        bytes.extend((0..random() % 64).map(|_| random() as u8));
        let mut out = Vec::new();
        let mut at = 0;
        for _ in 0..20 {
            match connection.receive(&mut bytes[at..], &mut out, |_| panic!("data out of garbage")) {
                Ok(done) => {
                    at += done.consumed;
                    if !done.more {
                        break;
                    }
                }
                Err(_) => break,
            }
        }
        assert!(out.len() < 4_096 && connection.pending_bytes() <= CLIENT_HELLO_BYTES_MAX);
        assert!(!connection.is_established());
    }
}

trait ClientHello {
    fn client_hello(self) -> Vec<u8>;
}

impl ClientHello for ClientConnection {
    fn client_hello(mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.write_tls(&mut bytes).unwrap();
        bytes
    }
}

#[test]
fn out_grows_by_what_is_sent_and_a_bounded_overhead() {
    for version in BOTH {
        let mut pair = Pair::new(&server(Ask::Nothing), client(version, None));
        pair.establish();
        for length in [0, 1, 100, 16_384, 16_385, 100_000] {
            let mut out = vec![0xee; 3];
            pair.server.send(&vec![1; length], &mut out).unwrap();
            assert_eq!(out[..3], [0xee; 3], "what is there stays");
            assert!(out.len() <= 3 + length + length.div_ceil(16_384) * 30);
            assert!(out.len() >= 3 + length);
        }
    }
}

#[test]
fn a_key_that_does_not_fit_the_certificate_is_refused() {
    let pki = Pki::new();
    for (name, kind) in [("p256", "P-256"), ("p384", "P-384"), ("ed", "ED25519"), ("p521", "P-521"), ("rsa", "2048")] {
        pki.issue(name, kind, 20);
    }
    let make = |chain: Vec<CertificateDer<'static>>, key: &str| {
        ServerTls::new(chain, pki.private_key(key), ClientCertificates::NotRequested, clock()).err()
    };
    for good in ["p256", "p384", "ed"] {
        assert_eq!(make(pki.chain(good), good), None);
    }
    for (chain, key) in [("p256", "ca"), ("p256", "ed"), ("ed", "p384"), ("rsa", "p256"), ("p521", "p256")] {
        assert_eq!(make(pki.chain(chain), key), Some(TlsFault::ServerKeyMismatch), "{chain} {key}");
    }
    assert_eq!(make(pki.chain("rsa"), "rsa"), Some(TlsFault::ServerKeyUnsupported));
    assert_eq!(make(pki.chain("p521"), "p521"), Some(TlsFault::ServerKeyUnsupported));
    assert_eq!(make(Vec::new(), "p256"), Some(TlsFault::ChainEmpty));
    assert_eq!(make(vec![vec![0x30, 0].into()], "p256"), Some(TlsFault::ServerCertificate));
}
