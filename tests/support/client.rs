//! An MQTT 5 client made of bytes: it can also say what a well-behaved client never would. Shares no code with the broker's
//! codec. Speaks over plain TCP or TLS.

use super::PATIENCE;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// A byte stream to the broker.
pub trait Stream: Read + Write + Send {
    fn set_patience(&mut self, patience: Duration);
}

impl Stream for TcpStream {
    fn set_patience(&mut self, patience: Duration) {
        self.set_read_timeout(Some(patience)).expect("a timeout");
    }
}

impl Stream for StreamOwned<ClientConnection, TcpStream> {
    fn set_patience(&mut self, patience: Duration) {
        self.sock.set_read_timeout(Some(patience)).expect("a timeout");
    }
}

/// Connects without TLS.
pub fn tcp(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).expect("the broker accepts");
    stream.set_nodelay(true).expect("a socket option");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

/// TLS with a client certificate, or without; the server's name is localhost.
pub fn tls(
    port: u16,
    authority: &Path,
    identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
) -> io::Result<StreamOwned<ClientConnection, TcpStream>> {
    tls_again(port, &tls_config(authority, identity))
}

/// What a TLS client needs, and the sessions that it remembers.
pub fn tls_config(
    authority: &Path,
    identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(authority) {
        roots.add(certificate).expect("an authority");
    }
    let provider = Arc::new(portcullis::crypto::provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots);
    Arc::new(match identity {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).expect("a client certificate"),
        None => builder.with_no_client_auth(),
    })
}

/// TLS of a client that may have been here before.
pub fn tls_again(port: u16, config: &Arc<ClientConfig>) -> io::Result<StreamOwned<ClientConnection, TcpStream>> {
    let connection = ClientConnection::new(Arc::clone(config), ServerName::try_from("localhost").expect("a name"))
        .map_err(io::Error::other)?;
    let mut stream = StreamOwned::new(connection, tcp(port));
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(stream)
}

/// What came of a connection that should have been refused in TLS. With TLS 1.3 the client learns it from its first read.
pub fn tls_refusal(stream: io::Result<impl Read + Write>) -> String {
    let mut stream = match stream {
        Err(error) => return error.to_string(),
        Ok(stream) => stream,
    };
    let _ = stream.write_all(&connect_packet("refused", 0)).and_then(|()| stream.flush());
    let mut answer = Vec::new();
    let ended = stream.read_to_end(&mut answer);
    assert!(answer.is_empty(), "a CONNACK came: {answer:02x?}");
    ended.expect_err("refused").to_string()
}

/// Certificates of a PEM file.
pub fn certificates(path: &Path) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_file_iter(path).expect("a PEM file").map(|item| item.expect("a certificate")).collect()
}

/// The private key of a PEM file.
pub fn key(path: &Path) -> PrivateKeyDer<'static> {
    PrivateKeyDer::from_pem_file(path).expect("a key")
}

/// A packet as it came: its first byte, and the body behind the fixed header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    pub first: u8,
    pub body: Vec<u8>,
}

/// A client over some stream.
pub struct Client {
    pub stream: Box<dyn Stream>,
    /// Messages that came while another answer was awaited.
    early: VecDeque<Packet>,
}

impl Client {
    pub fn new(stream: impl Stream + 'static) -> Self {
        Self { stream: Box::new(stream), early: VecDeque::new() }
    }

    /// Connects with a clean start and no keep-alive; returns the reason code of the CONNACK with the client.
    pub fn connect(stream: impl Stream + 'static, identifier: &str) -> (Self, u8) {
        let mut client = Self::new(stream);
        client.send(&connect_packet(identifier, 0));
        let connack = client.receive().expect("a CONNACK");
        assert_eq!(connack.first, 0x20, "{connack:?}");
        (client, connack.body[1])
    }

    /// As [`Client::connect`], accepted.
    pub fn accepted(stream: impl Stream + 'static, identifier: &str) -> Self {
        let (client, reason) = Self::connect(stream, identifier);
        assert_eq!(reason, 0, "CONNACK");
        client
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).and_then(|()| self.stream.flush()).expect("the broker takes the bytes");
    }

    /// The next packet; `None` when the broker has closed.
    pub fn receive(&mut self) -> Option<Packet> {
        self.early.pop_front().or_else(|| self.receive_new())
    }

    fn receive_new(&mut self) -> Option<Packet> {
        let mut byte = [0];
        self.read(&mut byte)?;
        let first = byte[0];
        let (mut length, mut shift) = (0_usize, 0);
        loop {
            self.read(&mut byte)?;
            length |= usize::from(byte[0] & 0x7F) << shift;
            shift += 7;
            if byte[0] & 0x80 == 0 {
                break;
            }
        }
        let mut body = vec![0; length];
        self.read(&mut body)?;
        Some(Packet { first, body })
    }

    fn read(&mut self, buffer: &mut [u8]) -> Option<()> {
        match self.stream.read_exact(buffer) {
            Ok(()) => Some(()),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                panic!("the broker says nothing")
            }
            Err(_) => None,
        }
    }

    /// Publishes with QoS 1 and returns the reason code of the PUBACK. Its own message may come before that.
    pub fn publish(&mut self, topic: &str, payload: &[u8]) -> u8 {
        self.send(&publish_packet(topic, 1, 7, payload));
        let mut puback = self.receive_new().expect("a PUBACK");
        while puback.first >> 4 == 3 {
            self.early.push_back(puback);
            puback = self.receive_new().expect("a PUBACK");
        }
        assert_eq!((puback.first, &puback.body[..2]), (0x40, &[0, 7][..]), "{puback:?}");
        puback.body.get(2).copied().unwrap_or(0)
    }

    /// Subscribes with QoS 1 and returns the reason codes of the SUBACK.
    pub fn subscribe(&mut self, filters: &[&str]) -> Vec<u8> {
        self.send(&subscribe_packet(9, filters, 1));
        let suback = self.receive().expect("a SUBACK");
        assert_eq!((suback.first, &suback.body[..3]), (0x90, &[0, 9, 0][..]), "{suback:?}");
        suback.body[3..].to_vec()
    }

    /// The next message: topic and payload. Acknowledges it if it has QoS 1.
    pub fn message(&mut self) -> (String, Vec<u8>) {
        let publish = self.receive().expect("a PUBLISH");
        assert_eq!(publish.first & 0xF0, 0x30, "{publish:?}");
        let topic_bytes = usize::from(u16::from_be_bytes([publish.body[0], publish.body[1]]));
        let topic = String::from_utf8(publish.body[2..2 + topic_bytes].to_vec()).expect("UTF-8");
        let mut at = 2 + topic_bytes;
        if publish.first & 0x06 != 0 {
            let identifier = [publish.body[at], publish.body[at + 1]];
            self.send(&[0x40, 2, identifier[0], identifier[1]]);
            at += 2;
        }
        let properties = usize::from(publish.body[at]);
        assert!(properties < 128, "short properties only");
        (topic, publish.body[at + 1 + properties..].to_vec())
    }

    /// Asserts that the connection answers a PINGREQ, and that nothing came before the answer.
    pub fn ping(&mut self) {
        self.send(&[0xC0, 0]);
        assert_eq!(self.receive(), Some(Packet { first: 0xD0, body: Vec::new() }));
    }

    /// Asserts that the broker sends DISCONNECT with this reason code, and closes.
    pub fn is_disconnected(&mut self, reason: u8) {
        let disconnect = self.receive().expect("a DISCONNECT");
        assert_eq!((disconnect.first, disconnect.body.first().copied()), (0xE0, Some(reason)), "{disconnect:?}");
        assert_eq!(self.receive(), None, "closed behind the DISCONNECT");
    }
}

/// Encodes a fixed header in front of a body.
pub fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    let mut length = body.len();
    loop {
        let byte = (length % 128) as u8;
        length /= 128;
        bytes.push(if length > 0 { byte | 0x80 } else { byte });
        if length == 0 {
            break;
        }
    }
    bytes.extend_from_slice(body);
    bytes
}

pub fn text(value: &str) -> Vec<u8> {
    let mut bytes = u16::try_from(value.len()).expect("a short text").to_be_bytes().to_vec();
    bytes.extend_from_slice(value.as_bytes());
    bytes
}

pub fn connect_packet(identifier: &str, keep_alive: u16) -> Vec<u8> {
    let mut body = text("MQTT");
    body.extend_from_slice(&[5, 2]);
    body.extend_from_slice(&keep_alive.to_be_bytes());
    body.push(0);
    body.extend_from_slice(&text(identifier));
    packet(0x10, &body)
}

/// A CONNECT of a session that outlives its connection by an hour, with user name and password where there are some.
pub fn lasting_connect_packet(identifier: &str, login: Option<(&str, &str)>, clean_start: bool) -> Vec<u8> {
    let mut body = text("MQTT");
    let flags = if clean_start { 0x02 } else { 0 } | if login.is_some() { 0xC0 } else { 0 };
    body.extend_from_slice(&[5, flags, 0, 0, 5, 0x11, 0, 0, 0x0E, 0x10]);
    body.extend_from_slice(&text(identifier));
    if let Some((username, password)) = login {
        body.extend_from_slice(&text(username));
        body.extend_from_slice(&text(password));
    }
    packet(0x10, &body)
}

pub fn publish_packet(topic: &str, qos: u8, identifier: u16, payload: &[u8]) -> Vec<u8> {
    let mut body = text(topic);
    if qos > 0 {
        body.extend_from_slice(&identifier.to_be_bytes());
    }
    body.push(0);
    body.extend_from_slice(payload);
    packet(0x30 | qos << 1, &body)
}

pub fn subscribe_packet(identifier: u16, filters: &[&str], options: u8) -> Vec<u8> {
    let mut body = identifier.to_be_bytes().to_vec();
    body.push(0);
    for filter in filters {
        body.extend_from_slice(&text(filter));
        body.push(options);
    }
    packet(0x82, &body)
}
