//! Resumption: who may, who may not, and what the server knows of who does.

use super::*;
use crate::tls::tickets::Tickets;
use rustls::server::ProducesTickets;

/// A client that remembers its sessions.
fn remembering(version: &'static SupportedProtocolVersion, identity: Option<&str>) -> Arc<ClientConfig> {
    let identity = identity.map(|name| (&WORLD.pki, name));
    Arc::new(client_config(rustls_rustcrypto::provider(), version, identity))
}

/// A connection of `client`, and how its handshake went.
fn met(server: &ServerTls, client: &Arc<ClientConfig>) -> (Pair, HandshakeKind) {
    let client = ClientConnection::new(Arc::clone(client), "localhost".try_into().unwrap()).unwrap();
    let mut pair = Pair::new(server, client);
    pair.establish();
    pair.echo(b"hello again");
    let kind = pair.client.handshake_kind().unwrap();
    assert_eq!(pair.server.is_resumed(), kind == Resumed);
    (pair, kind)
}

use HandshakeKind::{Full, Resumed};

#[test]
fn a_client_that_comes_back_is_known_by_its_ticket_and_keeps_its_certificates() {
    for version in BOTH {
        for (ask, identity) in [(Ask::Nothing, None), (Ask::Maybe, None), (Ask::Must, Some("client"))] {
            let (server, client) = (server(ask), remembering(version, identity));
            assert_eq!(met(&server, &client).1, Full);
            for _ in 0..3 {
                let (pair, kind) = met(&server, &client);
                assert_eq!(kind, Resumed);
                let chain = identity.map(|name| WORLD.pki.chain(name)).unwrap_or_default();
                assert_eq!(pair.server.peer_chain(), chain);
            }
        }
    }
}

#[test]
fn each_connection_is_given_one_ticket() {
    let (server, client) = (server(Ask::Must), remembering(&version::TLS13, Some("client")));
    for expected in [Full, Resumed] {
        let (pair, kind) = met(&server, &client);
        assert_eq!((kind, pair.client.tls13_tickets_received()), (expected, 1));
    }
}

#[test]
fn a_ticket_is_worth_nothing_to_another_server() {
    for version in BOTH {
        for (from, to, identity) in [
            (Ask::Maybe, Ask::Must, Some("client")),
            (Ask::Must, Ask::Must, Some("client")),
            (Ask::Nothing, Ask::Maybe, None),
        ] {
            let (first, second, client) = (server(from), server(to), remembering(version, identity));
            assert_eq!(met(&first, &client).1, Full);
            assert_eq!(met(&second, &client).1, Full);
        }
        // Who has shown no certificate where none is needed does not come in where one is.
        let client = remembering(version, None);
        met(&server(Ask::Maybe), &client);
        let connection = ClientConnection::new(client, "localhost".try_into().unwrap()).unwrap();
        assert_eq!(Pair::new(&server(Ask::Must), connection).talk().0, Err(TlsFault::NoCertificate));
    }
}

#[test]
fn a_change_of_trust_ends_all_tickets_also_those_of_handshakes_that_have_begun() {
    for version in BOTH {
        let (before, client) = (server(Ask::Must), remembering(version, Some("client")));
        met(&before, &client);
        let connection = ClientConnection::new(Arc::clone(&client), "localhost".try_into().unwrap()).unwrap();
        let mut begun = Pair::new(&before, connection);
        let after = before.with_new_tickets();
        begun.establish();
        assert_eq!(begun.client.handshake_kind(), Some(Full));
        assert_eq!(begun.client.tls13_tickets_received(), 0);
        assert_eq!(met(&after, &client).1, Full);
        assert_eq!(met(&after, &client).1, Resumed);
    }
}

#[test]
fn a_ticket_ends_with_the_certificate_that_it_stands_for() {
    for version in BOTH {
        let clock = clock();
        let server = server_with(crypto::shared_provider(), Ask::Must, clock.clone());
        let client = remembering(version, Some("client"));
        clock.set(UnixTime(unix_now() + 20 * 86_400 - 3_600));
        met(&server, &client);
        assert_eq!(met(&server, &client).1, Resumed);
        clock.set(UnixTime(unix_now() + 20 * 86_400 + 3_600));
        let connection = ClientConnection::new(client, "localhost".try_into().unwrap()).unwrap();
        let fault = Pair::new(&server, connection).talk().0.unwrap_err();
        assert_eq!(fault.to_string(), "certificate expired", "{version:?}");
    }
}

#[test]
fn the_chain_of_a_resumed_client_is_there_to_be_judged_again() {
    // The judge of the handshake is not asked; who judges later gets what it would have got.
    let client = remembering(&version::TLS13, Some("client"));
    let server = server(Ask::Must);
    met(&server, &client);
    let (pair, kind) = met(&server, &client);
    assert_eq!(kind, Resumed);
    let trusted = WebPkiJudge::new(WORLD.pki.chain("ca").remove(0));
    let distrusting = WebPkiJudge::new(WORLD.other.chain("ca").remove(0));
    let now = unix_now() + 60;
    assert!(trusted.judge(pair.server.peer_chain(), now).is_ok());
    assert!(distrusting.judge(pair.server.peer_chain(), now).is_err());
    assert!(trusted.judge(pair.server.peer_chain(), now + 30 * 86_400).is_err());
}

#[test]
fn who_has_a_long_chain_is_served_without_a_ticket() {
    for version in BOTH {
        // Two certificates that the judge needs not look at, of about 3,600 bytes each.
        let mut roots = RootCertStore::empty();
        roots.add(WORLD.pki.chain("ca").remove(0)).unwrap();
        let mut chain = WORLD.pki.chain("client");
        chain.extend([WORLD.pki.chain("long").remove(0), WORLD.pki.chain("long").remove(0)]);
        assert!(chain.iter().map(|one| one.len()).sum::<usize>() > TICKET_SESSION_BYTES_MAX);
        let config = ClientConfig::builder_with_provider(Arc::new(rustls_rustcrypto::provider()))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, WORLD.pki.private_key("client"))
            .unwrap();
        let (server, client) = (server(Ask::Must), Arc::new(config));
        for _ in 0..2 {
            let (pair, kind) = met(&server, &client);
            assert_eq!((kind, pair.client.tls13_tickets_received()), (Full, 0));
        }
    }
}

/// A session of a client without server name and certificates, as far as a ticket looks at it.
const SESSION: [u8; 10] = [0, 3, 4, 0x13, 1, 1, 0xaa, 1, 0, 0];

#[test]
fn a_key_opens_for_twice_as_long_as_it_seals() {
    let start = unix_now();
    let clock = Arc::new(WallClock::new(UnixTime(start)));
    let tickets = Tickets::new(clock.clone(), false);
    let at = |seconds: u64| clock.set(UnixTime(start + seconds));
    let first = tickets.encrypt(&SESSION).unwrap();
    at(TICKET_KEY_SECONDS - 1);
    let last = tickets.encrypt(&SESSION).unwrap();
    assert_eq!(u64::from(tickets.lifetime()), TICKET_KEY_SECONDS);
    at(2 * TICKET_KEY_SECONDS - 1);
    for ticket in [&first, &last] {
        assert_eq!(tickets.decrypt(ticket).as_deref(), Some(&SESSION[..]));
    }
    let second = tickets.encrypt(&SESSION).unwrap();
    at(2 * TICKET_KEY_SECONDS);
    assert_eq!((tickets.decrypt(&first), tickets.decrypt(&last)), (None, None));
    assert!(tickets.decrypt(&second).is_some());
    // A clock that is corrected a little ends nothing, one that is set back does.
    at(2 * TICKET_KEY_SECONDS - 50);
    assert!(tickets.decrypt(&second).is_some());
    at(0);
    assert_eq!(tickets.decrypt(&second), None);
}

#[test]
fn only_whole_genuine_tickets_are_opened() {
    let clock = Arc::new(WallClock::new(UnixTime(unix_now())));
    let tickets = Tickets::new(clock, false);
    let ticket = tickets.encrypt(&SESSION).unwrap();
    assert_ne!(ticket, tickets.encrypt(&SESSION).unwrap(), "the nonce is random");
    for length in 0..ticket.len() {
        assert_eq!(tickets.decrypt(&ticket[..length]), None);
    }
    for index in 0..ticket.len() {
        let mut changed = ticket.clone();
        changed[index] ^= 1;
        assert_eq!(tickets.decrypt(&changed), None);
    }
    assert_eq!(tickets.decrypt(&vec![0; 60_000]), None);
    assert_eq!(tickets.anew().decrypt(&ticket), None);
    tickets.retire();
    assert_eq!((tickets.decrypt(&ticket), tickets.encrypt(&SESSION)), (None, None));
}

#[test]
fn what_is_no_session_becomes_no_ticket() {
    let clock = Arc::new(WallClock::new(UnixTime(unix_now())));
    let (tickets, strict) = (Tickets::new(clock.clone(), false), Tickets::new(clock, true));
    assert!(tickets.encrypt(&SESSION).is_some());
    assert!(strict.encrypt(&SESSION).is_none(), "a certificate is required");
    for length in 0..SESSION.len() - 1 {
        assert!(tickets.encrypt(&SESSION[..length]).is_none(), "{length}");
    }
    let with_chain = |chain: &[u8]| [&SESSION[..8], &[1], chain].concat();
    assert!(strict.encrypt(&with_chain(&[0, 0, 0])).is_none(), "a chain without certificates is none");
    for bad in [&[0, 0, 5, 0, 0, 2, 0x30, 0][..], &[0, 0, 4, 0, 0, 2, 0x30], &[0xff, 0xff, 0xff], &[0]] {
        assert!(tickets.encrypt(&with_chain(bad)).is_none(), "{bad:?}");
    }
    assert!(tickets.encrypt(&vec![0; TICKET_SESSION_BYTES_MAX + 1]).is_none());
}
