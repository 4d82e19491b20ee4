//! An HTTPS server that says what a test tells it to, also what no server should. One thread for each connection.

use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection, StreamOwned};
use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Request {
    /// Which of the server's connections it came on, from 0.
    pub connection: usize,
    pub line: String,
    pub fields: Vec<String>,
    pub body: String,
}

impl Request {
    /// The values of all header fields of this name.
    pub fn values(&self, name: &str) -> Vec<&str> {
        let of_name = |field: &&String| field.split(':').next().is_some_and(|own| own.eq_ignore_ascii_case(name));
        self.fields.iter().filter(of_name).map(|field| field.split_once(':').unwrap().1.trim()).collect()
    }
}

/// What comes back.
pub enum Reply {
    /// Status and body; the connection stays open.
    Json(u16, String),
    /// These bytes; the connection stays open.
    Bytes(Vec<u8>),
    /// These bytes, and the end.
    Last(Vec<u8>),
    /// These bytes, and then a space every ten milliseconds until the other side has gone.
    Drip(&'static [u8]),
    /// Nothing; the connection stays open.
    Silence,
    /// Nothing, and the end.
    HangUp,
}

impl Reply {
    pub fn json(status: u16, body: impl ToString) -> Self {
        Self::Json(status, body.to_string())
    }
}

/// What the server shows, and whom it lets ask.
pub struct Identity {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
    /// Clients need a certificate of this authority.
    pub client_authority: Option<CertificateDer<'static>>,
}

/// The server. Its threads end with the test.
pub struct HttpsServer {
    pub port: u16,
    seen: Arc<Mutex<Vec<Request>>>,
    streams: Arc<Mutex<Vec<TcpStream>>>,
}

impl HttpsServer {
    pub fn start(identity: Identity, answer: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        let config = Arc::new(config(identity));
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let server = Self { port, seen: Arc::default(), streams: Arc::default() };
        let (seen, streams, answer) = (Arc::clone(&server.seen), Arc::clone(&server.streams), Arc::new(answer));
        thread::spawn(move || {
            for (connection, stream) in listener.incoming().flatten().enumerate() {
                let (config, seen, answer) = (Arc::clone(&config), Arc::clone(&seen), Arc::clone(&answer));
                streams.lock().unwrap().push(stream.try_clone().unwrap());
                thread::spawn(move || {
                    let tls = ServerConnection::new(config).expect("a connection");
                    serve(BufReader::new(StreamOwned::new(tls, stream)), connection, &seen, &*answer)
                });
            }
        });
        server
    }

    /// All requests so far.
    pub fn seen(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }

    /// Ends all connections there are, as a restart would.
    pub fn restart(&self) {
        for stream in self.streams.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn config(identity: Identity) -> ServerConfig {
    let provider = Arc::new(portcullis::crypto::provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .expect("versions");
    let builder = match identity.client_authority {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots.add(authority).expect("an authority");
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.expect("a verifier"))
        }
    };
    builder.with_single_cert(identity.chain, identity.key).expect("a certificate with its key")
}

type Stream = BufReader<StreamOwned<ServerConnection, TcpStream>>;

fn serve(mut stream: Stream, connection: usize, seen: &Mutex<Vec<Request>>, answer: &dyn Fn(&Request) -> Reply) {
    let _ = stream.get_ref().sock.set_read_timeout(Some(Duration::from_secs(60)));
    while let Some(request) = read(&mut stream, connection) {
        seen.lock().unwrap().push(request.clone());
        let (bytes, last) = match answer(&request) {
            Reply::Json(status, body) => {
                let head = format!(
                    "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                    body.len()
                );
                ((head + &body).into_bytes(), false)
            }
            Reply::Bytes(bytes) => (bytes, false),
            Reply::Last(bytes) => (bytes, true),
            Reply::Drip(bytes) => return drip(&mut stream, bytes),
            Reply::Silence => return drop(stream.read_to_end(&mut Vec::new())),
            Reply::HangUp => return drop(stream.get_ref().sock.shutdown(Shutdown::Both)),
        };
        // Whoever has read enough may have gone.
        let _ = stream.get_mut().write_all(&bytes).and_then(|()| stream.get_mut().flush());
        if last {
            stream.get_mut().conn.send_close_notify();
            let _ = stream.get_mut().flush();
            return;
        }
    }
}

fn drip(stream: &mut Stream, head: &[u8]) {
    let mut bytes = head;
    while stream.get_mut().write_all(bytes).and_then(|()| stream.get_mut().flush()).is_ok() {
        thread::sleep(Duration::from_millis(10));
        bytes = b" ";
    }
}

fn read(stream: &mut impl BufRead, connection: usize) -> Option<Request> {
    let mut line = String::new();
    stream.read_line(&mut line).ok().filter(|bytes| *bytes > 0)?;
    let mut fields = Vec::new();
    loop {
        let mut field = String::new();
        stream.read_line(&mut field).ok()?;
        if field.trim().is_empty() {
            break;
        }
        fields.push(field.trim().to_owned());
    }
    let mut request = Request { connection, line: line.trim().to_owned(), fields, body: String::new() };
    let length = request.values("Content-Length").first().and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    request.body = String::from_utf8(body).ok()?;
    Some(request)
}
