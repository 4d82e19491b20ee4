//! The TLS room against the openssl program over loopback: an implementation that shares no code with ours.
//!
//! Every test ends by itself: sockets have deadlines, children are waited for or killed by their own handle.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has failed")]

use pki::{Pki, WebPkiJudge, unix_now};
use portcullis::crypto::provider;
use portcullis::time::UnixTime;
use portcullis::tls::{
    ClientCertificates, ClientVerifier, MAX_TLS_RECORD, ServerTls, TlsConnection, TlsFault, WallClock,
};
use rustls::pki_types::CertificateDer;
use rustls::{DistinguishedName, Error};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

#[path = "../src/tls/tests/pki.rs"]
#[expect(dead_code, reason = "shared with the unit tests, which need more of it")]
mod pki;

/// How long one connection may take; reached only by a failing test.
const DEADLINE: Duration = Duration::from_secs(20);

#[derive(Debug)]
struct Judge(WebPkiJudge);

impl ClientVerifier for Judge {
    fn verify(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> Result<(), Error> {
        self.0.judge(chain, now.0)
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.0.hints
    }
}

const SERVERS: [(&str, &str); 3] = [("server-256", "P-256"), ("server-384", "P-384"), ("server-ed", "ED25519")];
const CLIENTS: [(&str, &str); 4] =
    [("client-256", "P-256"), ("client-384", "P-384"), ("client-ed", "ED25519"), ("client-rsa", "2048")];

static WORLD: LazyLock<Pki> = LazyLock::new(|| {
    let pki = Pki::new();
    for (name, kind) in SERVERS.into_iter().chain(CLIENTS) {
        pki.issue(name, kind, 20);
    }
    pki.issue("client-weak", "1024", 20);
    pki.issue("client-521", "P-521", 20);
    pki
});

fn server(name: &str, required: bool) -> ServerTls {
    let clients = if required {
        ClientCertificates::Required(Arc::new(Judge(WebPkiJudge::new(WORLD.chain("ca").remove(0)))))
    } else {
        ClientCertificates::NotRequested
    };
    let clock = Arc::new(WallClock::new(UnixTime(unix_now() + 60)));
    ServerTls::new(WORLD.chain(name), WORLD.private_key(name), clients, clock).unwrap()
}

/// `openssl s_client`, killed when dropped.
struct Client {
    child: Child,
    input: Option<ChildStdin>,
}

impl Client {
    fn start(port: u16, arguments: &str) -> Self {
        let mut child = Command::new("openssl")
            .current_dir(WORLD.path(""))
            .args(["s_client", "-connect", &format!("127.0.0.1:{port}"), "-servername", "localhost"])
            .args(["-CAfile", "ca.crt", "-verify_return_error", "-nocommands"])
            .args(arguments.split(' ').filter(|argument| !argument.is_empty()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let input = child.stdin.take();
        Self { child, input }
    }

    /// Ends the child and returns everything it said.
    fn said(mut self) -> String {
        drop(self.input.take());
        let deadline = Instant::now() + DEADLINE;
        while self.child.try_wait().unwrap().is_none() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.child.kill();
        let mut said = String::new();
        for pipe in [
            self.child.stdout.take().map(|pipe| Box::new(pipe) as Box<dyn Read>),
            self.child.stderr.take().map(|pipe| Box::new(pipe) as Box<dyn Read>),
        ] {
            let mut bytes = Vec::new();
            pipe.unwrap().read_to_end(&mut bytes).unwrap();
            said.push_str(&String::from_utf8_lossy(&bytes));
        }
        said
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The server's end of one connection, driven as the program drives it: one buffer of one record.
struct Served {
    socket: TcpStream,
    connection: TlsConnection,
    buffer: Vec<u8>,
    filled: usize,
    received: Vec<u8>,
    peer_closed: bool,
}

impl Served {
    /// One reading of the socket; `Ok(false)` at its end.
    fn turn(&mut self) -> Result<bool, TlsFault> {
        let bytes = self.socket.read(&mut self.buffer[self.filled..]).unwrap_or(0);
        if bytes == 0 {
            self.connection.transport_ended()?;
            return Ok(false);
        }
        self.filled += bytes;
        loop {
            let (received, mut out) = (&mut self.received, Vec::new());
            let taken = self.connection.receive(&mut self.buffer[..self.filled], &mut out, |data| {
                received.extend_from_slice(data);
            });
            let _ = self.socket.write_all(&out);
            let taken = taken?;
            self.buffer.copy_within(taken.consumed..self.filled, 0);
            self.filled -= taken.consumed;
            self.peer_closed |= taken.peer_closed;
            if !taken.more {
                return Ok(true);
            }
        }
    }

    fn until(&mut self, done: impl Fn(&Self) -> bool) -> Result<(), TlsFault> {
        while !done(self) {
            if !self.turn()? {
                return Err(TlsFault::PeerClosedWithoutNotice);
            }
        }
        Ok(())
    }

    fn say(&mut self, data: &[u8]) {
        let mut out = Vec::new();
        self.connection.send(data, &mut out).unwrap();
        self.socket.write_all(&out).unwrap();
    }
}

fn meet(server: &ServerTls, arguments: &str) -> (Served, Client) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = Client::start(listener.local_addr().unwrap().port(), arguments);
    listener.set_nonblocking(true).unwrap();
    let deadline = Instant::now() + DEADLINE;
    let socket = loop {
        match listener.accept() {
            Ok((socket, _)) => break socket,
            Err(_) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(2)),
            Err(error) => panic!("openssl did not connect: {error}"),
        }
    };
    socket.set_nonblocking(false).unwrap();
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let connection = TlsConnection::accept(server).unwrap();
    let buffer = vec![0; MAX_TLS_RECORD];
    (Served { socket, connection, buffer, filled: 0, received: Vec::new(), peer_closed: false }, client)
}

/// Handshake, data both ways, close_notify.
fn converse(server: &ServerTls, arguments: &str) -> String {
    let (mut served, mut client) = meet(server, arguments);
    served.until(|served| served.connection.is_established()).unwrap_or_else(|fault| panic!("{arguments}: {fault}"));
    client.input.as_mut().unwrap().write_all(b"up\n").unwrap();
    served.until(|served| served.received.ends_with(b"up\n")).unwrap();
    served.say(&[b"down ".as_slice(), &vec![b'x'; 40_000], b" end\n"].concat());
    let mut out = Vec::new();
    served.connection.close_notify(&mut out);
    served.socket.write_all(&out).unwrap();
    let said = client.said();
    let down = said.find("down xxx").unwrap_or_else(|| panic!("{arguments}: {said}"));
    assert!(said[down..].contains(&format!("{} end", "x".repeat(40_000))), "{arguments}");
    said
}

const VERSIONS: [(&str, &str); 2] = [("-tls1_3", "TLSv1.3"), ("-tls1_2", "TLSv1.2")];

#[test]
fn every_kind_of_server_key_meets_every_kind_of_client_certificate() {
    for (server_name, _) in SERVERS {
        let server = server(server_name, true);
        for (client_name, _) in CLIENTS {
            for (option, version) in VERSIONS {
                let said = converse(&server, &format!("{option} -cert {client_name}.crt -key {client_name}.key"));
                assert!(said.contains(version), "{server_name} {client_name} {option}");
                assert!(said.contains("Verify return code: 0 (ok)"));
            }
        }
    }
}

#[test]
fn every_suite_and_group_is_spoken() {
    let server_384 = server("server-384", false);
    let server = server("server-256", false);
    for suite in ["TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"] {
        assert!(converse(&server, &format!("-tls1_3 -ciphersuites {suite}")).contains(suite));
    }
    for suite in ["ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-ECDSA-CHACHA20-POLY1305"] {
        assert!(converse(&server, &format!("-tls1_2 -cipher {suite}")).contains(suite));
    }
    for group in ["X25519", "P-256", "P-384"] {
        converse(&server, &format!("-tls1_3 -groups {group}"));
    }
    // In TLS 1.2 the list of groups is also that of the curves that certificates may use.
    converse(&server, "-tls1_2 -groups X25519:P-256");
    converse(&server, "-tls1_2 -groups P-256");
    converse(&server_384, "-tls1_2 -groups P-384");
    // No key share that we take at first: HelloRetryRequest.
    converse(&server, "-tls1_3 -groups X448:P-521:P-384");
}

#[test]
fn a_session_is_resumed_with_its_ticket_and_not_on_another_server() {
    let (mutual, other) = (server("server-256", true), server("server-256", true));
    for (option, version) in VERSIONS {
        let with = format!("{option} -cert client-256.crt -key client-256.key");
        let said = converse(&mutual, &format!("{with} -sess_out session{option}"));
        assert!(said.contains(&format!("New, {version}")), "{said}");
        for _ in 0..2 {
            let again = format!("{with} -sess_in session{option} -sess_out session{option}");
            let (mut served, mut client) = meet(&mutual, &again);
            served.until(|served| served.connection.is_established()).unwrap();
            assert!(served.connection.is_resumed());
            assert_eq!(served.connection.peer_chain().first(), WORLD.chain("client-256").first());
            served.say(b"welcome back\n");
            client.input.as_mut().unwrap().write_all(b"thanks\n").unwrap();
            served.until(|served| served.received.ends_with(b"thanks\n")).unwrap();
            let mut out = Vec::new();
            served.connection.close_notify(&mut out);
            served.socket.write_all(&out).unwrap();
            let said = client.said();
            assert!(said.contains(&format!("Reused, {version}")) && said.contains("welcome back"), "{said}");
        }
        let said = converse(&other, &format!("{with} -sess_in session{option}"));
        assert!(said.contains(&format!("New, {version}")), "{said}");
    }
}

/// The server's fault and what the client said.
fn refused(server: &ServerTls, arguments: &str) -> (TlsFault, String) {
    let (mut served, client) = meet(server, arguments);
    let fault = served.until(|served| served.connection.is_established()).expect_err(arguments);
    drop(served);
    (fault, client.said())
}

#[test]
fn clients_that_are_too_old_or_too_weak_are_refused() {
    let mutual = server("server-256", true);
    let plain = server("server-256", false);
    for (option, _) in VERSIONS {
        let weak = format!("{option} -cipher DEFAULT@SECLEVEL=0 -cert client-weak.crt -key client-weak.key");
        let (fault, said) = refused(&mutual, &weak);
        assert_eq!(fault.to_string(), "bad signature", "{said}");
        let (fault, said) = refused(&mutual, &format!("{option} -cert client-521.crt -key client-521.key"));
        assert!(
            matches!(fault, TlsFault::NoCertificate | TlsFault::Peer(_) | TlsFault::Certificate(_)),
            "{fault} {said}"
        );
        let (fault, said) = refused(&mutual, option);
        assert_eq!(fault, TlsFault::NoCertificate);
        assert!(said.contains("alert number 116"), "certificate_required: {said}");
    }
    for old in ["-tls1_1", "-tls1"] {
        let (fault, said) = refused(&plain, &format!("{old} -cipher DEFAULT@SECLEVEL=0"));
        assert!(matches!(fault, TlsFault::Peer(_)), "{fault}");
        // Such a ClientHello has no signature algorithms either, which is noticed first.
        assert!(said.contains("alert protocol version") || said.contains("alert handshake failure"), "{said}");
    }
    for suite in ["ECDHE-ECDSA-AES128-SHA256", "ECDHE-RSA-AES128-GCM-SHA256", "AES128-GCM-SHA256"] {
        let (fault, said) = refused(&plain, &format!("-tls1_2 -cipher {suite}"));
        assert!(matches!(fault, TlsFault::Peer(_)), "{fault}");
        assert!(said.contains("alert handshake failure"), "{said}");
    }
}

/// A client that obeys commands: `K` and `k` update keys, `R` renegotiates.
fn commanding(server: &ServerTls, arguments: &str) -> (Served, Client) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut child = Command::new("openssl")
        .current_dir(WORLD.path(""))
        .args(["s_client", "-connect", &format!("127.0.0.1:{port}"), arguments])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let input = child.stdin.take();
    let client = Client { child, input };
    let socket = listener.accept().unwrap().0;
    socket.set_read_timeout(Some(DEADLINE)).unwrap();
    let connection = TlsConnection::accept(server).unwrap();
    let buffer = vec![0; MAX_TLS_RECORD];
    (Served { socket, connection, buffer, filled: 0, received: Vec::new(), peer_closed: false }, client)
}

#[test]
fn renegotiation_is_refused() {
    let (mut served, mut client) = commanding(&server("server-256", false), "-tls1_2");
    served.until(|served| served.connection.is_established()).unwrap();
    client.input.as_mut().unwrap().write_all(b"R\n").unwrap();
    // openssl closes when it is told no_renegotiation.
    while served.turn().is_ok_and(|open| open) && !served.peer_closed {}
    drop(served);
    let said = client.said();
    assert!(said.contains("RENEGOTIATING") && said.contains("no renegotiation"), "{said}");
}

#[test]
fn key_updates_are_followed() {
    let (mut served, mut client) = commanding(&server("server-256", false), "-tls1_3");
    served.until(|served| served.connection.is_established()).unwrap();
    // `K` asks for an update in return, `k` does not; each line is one write, so each is one command.
    for command in [b"K\n", b"k\n", b"K\n"] {
        client.input.as_mut().unwrap().write_all(command).unwrap();
        assert!(served.turn().unwrap());
        client.input.as_mut().unwrap().write_all(b"text\n").unwrap();
        served.until(|served| served.received.ends_with(b"text\n")).unwrap();
        served.received.clear();
        served.say(b"answer\n");
    }
    client.input.as_mut().unwrap().write_all(b"Q\n").unwrap();
    served.until(|served| served.peer_closed).unwrap();
    drop(served);
    let said = client.said();
    assert_eq!(said.matches("KEYUPDATE").count(), 3, "{said}");
    assert_eq!(said.matches("answer").count(), 3, "{said}");
}
