//! One server: its address, its trust, and the connections that are kept to it.

use super::resolve::{ResolveFault, Resolver};
use super::response::{self, Response};
use super::upload::Duplex;
use crate::crypto;
use async_io::{Async, Timer};
use core::cell::RefCell;
use core::fmt;
use futures_rustls::TlsConnector;
use futures_rustls::client::TlsStream;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use smol::future;
use smol::io::AsyncWriteExt as _;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;

/// Connections that are kept open between two questions.
const IDLE_MAX: usize = 4;
/// The port of HTTPS.
const DEFAULT_PORT: u16 = 443;
/// Where Linux systems keep the public roots; the first that is there counts.
const SYSTEM_ROOTS: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

pub(super) type Stream = TlsStream<Async<TcpStream>>;

/// How long a server may take.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// For name, connection and handshake together.
    pub connect: Duration,
    /// From the request to the end of the answer.
    pub answer: Duration,
}

impl Default for Timing {
    /// Three seconds and five: azure-model §8.
    fn default() -> Self {
        Self { connect: Duration::from_secs(3), answer: Duration::from_secs(5) }
    }
}

/// Whom to believe that it is the server.
#[derive(Clone, Debug)]
pub enum Roots {
    /// These authorities, DER.
    Bundle(Vec<Vec<u8>>),
    /// The public ones of the system.
    System,
}

/// What is configured about a server.
pub struct ServerSettings<'a> {
    /// `https://host[:port][/path]`.
    pub endpoint: &'a str,
    /// Whom to believe.
    pub roots: Roots,
    /// The certificate that is shown to it, and its key.
    pub identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    /// Header fields of every request.
    pub headers: Vec<(String, String)>,
    /// How long it may take.
    pub timing: Timing,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum HttpsFault {
    /// The endpoint is no HTTPS address.
    Endpoint,
    /// No authority can be used: the bundle is empty or cannot be read, or the system has none.
    Roots,
    /// Certificate or key that should be shown cannot be used.
    Identity,
    /// Its name has no address.
    Resolve(ResolveFault),
    /// Connecting, or the handshake, took too long.
    ConnectTimeout,
    /// The answer took too long.
    AnswerTimeout,
    /// What the system or TLS says.
    Network(io::Error),
    /// It closed before its answer was whole.
    EndedEarly,
    /// It does not speak HTTP/1.1.
    Malformed,
    /// Its answer is longer than any answer should be.
    TooLarge,
}

impl fmt::Display for HttpsFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Endpoint => f.write_str("the endpoint is no HTTPS address"),
            Self::Roots => f.write_str("no certificate authority to check the server with"),
            Self::Identity => f.write_str("the certificate for the server, or its key, cannot be used"),
            Self::Resolve(fault) => write!(f, "{fault}"),
            Self::ConnectTimeout => f.write_str("no connection in time"),
            Self::AnswerTimeout => f.write_str("no answer in time"),
            Self::Network(error) => write!(f, "{error}"),
            Self::EndedEarly => f.write_str("the connection ended before the answer"),
            Self::Malformed => f.write_str("the answer is not HTTP/1.1"),
            Self::TooLarge => f.write_str("the answer is too long"),
        }
    }
}

impl core::error::Error for HttpsFault {}

/// One request.
pub struct Request<'a> {
    /// GET or POST.
    pub method: &'static str,
    /// Path and query, behind the path of the endpoint; begins with `/`.
    pub target: &'a str,
    /// One more header field, such as Authorization.
    pub header: Option<(&'static str, &'a str)>,
    /// JSON; empty for GET.
    pub body: &'a [u8],
}

/// A server that can be asked.
pub struct Server {
    host: String,
    port: u16,
    path: String,
    name: ServerName<'static>,
    connector: TlsConnector,
    headers: Vec<(String, String)>,
    /// The certificate that is shown to it.
    certificate: Option<CertificateDer<'static>>,
    pub(super) timing: Timing,
    resolver: Resolver,
    idle: RefCell<Vec<Stream>>,
}

impl Server {
    /// Prepares to ask a server; nothing is sent yet.
    ///
    /// # Errors
    /// `Endpoint`, `Roots`, `Identity`.
    pub fn new(settings: ServerSettings<'_>, resolver: Resolver) -> Result<Self, HttpsFault> {
        let rest = settings.endpoint.strip_prefix("https://").ok_or(HttpsFault::Endpoint)?;
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let (host, port) = split_authority(authority).ok_or(HttpsFault::Endpoint)?;
        let name = ServerName::try_from(host.to_owned()).map_err(|_| HttpsFault::Endpoint)?;
        let builder = ClientConfig::builder_with_provider(crypto::shared_provider())
            .with_safe_default_protocol_versions()
            .map_err(|_| HttpsFault::Roots)?
            .with_root_certificates(root_store(&settings.roots)?);
        let certificate = settings.identity.as_ref().and_then(|(chain, _)| chain.first().cloned());
        let config = match settings.identity {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(|_| HttpsFault::Identity)?,
        };
        Ok(Self {
            host: host.to_owned(),
            port,
            path: path.trim_end_matches('/').to_owned(),
            name,
            connector: TlsConnector::from(Arc::new(config)),
            headers: settings.headers,
            certificate,
            timing: settings.timing,
            resolver,
            idle: RefCell::new(Vec::new()),
        })
    }

    /// Its name or address.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The certificate that is shown to it, if one is.
    #[must_use]
    pub const fn certificate(&self) -> Option<&CertificateDer<'static>> {
        self.certificate.as_ref()
    }

    /// Asks, and waits for the answer. A kept connection that turns out to be dead is replaced once; nothing else is tried
    /// again.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn exchange(&self, request: &Request<'_>) -> Result<Response, HttpsFault> {
        let bytes = self.encode(request);
        let kept = self.idle.borrow_mut().pop();
        if let Some(stream) = kept {
            let mut begun = false;
            match self.converse(stream, &bytes, &mut begun).await {
                Err(HttpsFault::Network(_) | HttpsFault::EndedEarly) if !begun => {}
                outcome => return outcome,
            }
        }
        let stream = within(self.timing.connect, self.connect()).await.ok_or(HttpsFault::ConnectTimeout)??;
        self.converse(stream, &bytes, &mut false).await
    }

    async fn converse(&self, mut stream: Stream, request: &[u8], begun: &mut bool) -> Result<Response, HttpsFault> {
        let exchange = async {
            stream.write_all(request).await.map_err(HttpsFault::Network)?;
            stream.flush().await.map_err(HttpsFault::Network)?;
            response::read(&mut (&mut stream as &mut dyn Duplex), begun).await
        };
        let received = within(self.timing.answer, exchange).await.ok_or(HttpsFault::AnswerTimeout)??;
        let mut idle = self.idle.borrow_mut();
        if received.reusable && idle.len() < IDLE_MAX {
            idle.push(stream);
        }
        Ok(received.response)
    }

    pub(super) async fn connect(&self) -> Result<Stream, HttpsFault> {
        let addresses = match self.host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            Ok(address) => vec![address],
            Err(_) => self.resolver.resolve(&self.host).await.map_err(HttpsFault::Resolve)?,
        };
        let mut last = None;
        for address in addresses {
            match Async::<TcpStream>::connect(SocketAddr::new(address, self.port)).await {
                Ok(stream) => {
                    stream.get_ref().set_nodelay(true).map_err(HttpsFault::Network)?;
                    let handshake = self.connector.connect(self.name.clone(), stream);
                    return handshake.await.map_err(HttpsFault::Network);
                }
                Err(error) => last = Some(error),
            }
        }
        Err(last.map_or(HttpsFault::Resolve(ResolveFault::NoAddress), HttpsFault::Network))
    }

    /// The whole request in one buffer, which is wiped: it holds credentials.
    fn encode(&self, request: &Request<'_>) -> Zeroizing<Vec<u8>> {
        let length = request.body.len().to_string();
        let body = [("Content-Type", "application/json"), ("Content-Length", length.as_str())];
        let with_body = usize::from(!request.body.is_empty()) * body.len();
        let fields: Vec<_> = request.header.into_iter().chain(body.into_iter().take(with_body)).collect();
        let head = self.encode_head(request.method, request.target, &fields);
        let mut bytes = Zeroizing::new(Vec::with_capacity(head.len() + request.body.len()));
        bytes.extend_from_slice(head.as_bytes());
        bytes.extend_from_slice(request.body);
        bytes
    }

    /// The head of a request with these fields behind those that every request has.
    pub(super) fn encode_head(&self, method: &str, target: &str, fields: &[(&str, &str)]) -> Zeroizing<String> {
        let mut head = Zeroizing::new(String::new());
        let authority =
            if self.port == DEFAULT_PORT { self.host.clone() } else { format!("{}:{}", self.host, self.port) };
        let own = [("Host", authority.as_str()), ("Accept", "application/json")];
        let configured = self.headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        head.push_str(&format!("{method} {}{target} HTTP/1.1\r\n", self.path));
        for (name, value) in own.into_iter().chain(configured).chain(fields.iter().copied()) {
            for piece in [name, ": ", value, "\r\n"] {
                head.push_str(piece);
            }
        }
        head.push_str("\r\n");
        head
    }
}

fn split_authority(authority: &str) -> Option<(&str, u16)> {
    let after_address = authority.rfind(']').unwrap_or(0);
    let (host, port) = match authority.get(after_address..)?.rfind(':') {
        Some(colon) => {
            let (host, port) = authority.split_at_checked(after_address + colon)?;
            (host, port.get(1..)?.parse().ok()?)
        }
        None => (authority, DEFAULT_PORT),
    };
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    (!host.is_empty()).then_some((host, port))
}

/// The authorities to check servers with.
///
/// # Errors
/// `Roots`: there are none, or one cannot be used.
pub fn root_store(roots: &Roots) -> Result<RootCertStore, HttpsFault> {
    let mut store = RootCertStore::empty();
    match roots {
        Roots::Bundle(certificates) => {
            for certificate in certificates {
                store.add(CertificateDer::from(certificate.clone())).map_err(|_| HttpsFault::Roots)?;
            }
        }
        Roots::System => {
            let certificates = SYSTEM_ROOTS.iter().find_map(|path| CertificateDer::pem_file_iter(path).ok());
            store.add_parsable_certificates(certificates.into_iter().flatten().flatten());
        }
    }
    if store.is_empty() { Err(HttpsFault::Roots) } else { Ok(store) }
}

/// What `work` gives, if it does so in time.
pub(super) async fn within<T>(time: Duration, work: impl Future<Output = T>) -> Option<T> {
    let late = async {
        Timer::after(time).await;
        None
    };
    future::or(async { Some(work.await) }, late).await
}
