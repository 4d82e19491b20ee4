//! The way to a broker: its name, TCP, and TLS where it is asked for.

use crate::crypto;
use crate::https::{ResolveFault, Resolver};
use async_io::Async;
use core::fmt;
use core::pin::Pin;
use core::task::{Context, Poll};
use embassy_time::{Duration, Instant, with_timeout};
use futures_rustls::TlsConnector;
use futures_rustls::client::TlsStream;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use smol::io::{AsyncRead, AsyncWrite};
use std::io;
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::sync::Arc;

/// How long name, connection and handshake may take together.
const CONNECT_SECONDS: u64 = 15;

/// What is configured about a broker elsewhere.
pub struct RemoteSettings {
    /// Its name or IP address, without brackets.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// `None`: without TLS.
    pub tls: Option<Arc<ClientConfig>>,
    /// The name that its certificate must have; `None`: `host`.
    pub server_name: Option<String>,
}

/// Why there is no way.
#[derive(Debug)]
pub enum RemoteFault {
    /// Its name cannot stand in a certificate.
    Name,
    /// Its name has no address.
    Resolve(ResolveFault),
    /// It took too long.
    Timeout,
    /// What the system or TLS says.
    Network(io::Error),
}

impl fmt::Display for RemoteFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name => f.write_str("its name is neither a DNS name nor an IP address"),
            Self::Resolve(fault) => fault.fmt(f),
            Self::Timeout => f.write_str("no connection in time"),
            Self::Network(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for RemoteFault {}

/// A broker that can be connected to.
pub struct Remote {
    settings: RemoteSettings,
    resolver: Resolver,
}

impl Remote {
    /// Keeps what is needed to get there; nothing is done yet.
    #[must_use]
    pub const fn new(settings: RemoteSettings, resolver: Resolver) -> Self {
        Self { settings, resolver }
    }

    /// Connects, within 15 s.
    ///
    /// # Errors
    /// [`RemoteFault`], of the address that was tried last.
    pub async fn connect(&self) -> Result<Way, RemoteFault> {
        with_timeout(Duration::from_secs(CONNECT_SECONDS), self.try_addresses())
            .await
            .unwrap_or(Err(RemoteFault::Timeout))
    }

    /// Each address has its share of the time that is left, so that one that answers nothing leaves some for the others.
    async fn try_addresses(&self) -> Result<Way, RemoteFault> {
        let end = Instant::now() + Duration::from_secs(CONNECT_SECONDS);
        let RemoteSettings { host, port, tls, server_name } = &self.settings;
        let addresses = match host.parse::<IpAddr>() {
            Ok(address) => vec![address],
            Err(_) => self.resolver.resolve(host).await.map_err(RemoteFault::Resolve)?,
        };
        let mut fault = RemoteFault::Resolve(ResolveFault::NoAddress);
        let mut left = u32::try_from(addresses.len()).unwrap_or(u32::MAX);
        for address in addresses {
            // TLS has to come behind it.
            left = left.saturating_add(1);
            let share = end.saturating_duration_since(Instant::now()) / left;
            left = left.saturating_sub(2);
            let stream = Async::<TcpStream>::connect(SocketAddr::new(address, *port));
            match with_timeout(share, stream).await {
                Err(_) => fault = RemoteFault::Timeout,
                Ok(Ok(stream)) => {
                    stream.get_ref().set_nodelay(true).map_err(RemoteFault::Network)?;
                    let Some(config) = tls else { return Ok(Way::Plain(stream)) };
                    let name = server_name.as_ref().unwrap_or(host).clone();
                    let name = ServerName::try_from(name).map_err(|_| RemoteFault::Name)?;
                    let secured = TlsConnector::from(Arc::clone(config)).connect(name, stream);
                    return Ok(Way::Tls(Box::new(secured.await.map_err(RemoteFault::Network)?)));
                }
                Ok(Err(error)) => fault = RemoteFault::Network(error),
            }
        }
        Err(fault)
    }
}

/// What TLS clients of this process show and believe: the authorities `roots`, and `identity` where the server asks for one.
///
/// # Errors
/// The certificate or its key cannot be used.
pub fn client_tls(
    roots: RootCertStore,
    identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
) -> Result<Arc<ClientConfig>, rustls::Error> {
    let builder = ClientConfig::builder_with_provider(crypto::shared_provider())
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots);
    Ok(Arc::new(match identity {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => builder.with_client_auth_cert(chain, key)?,
    }))
}

/// A connected stream.
pub enum Way {
    /// TCP.
    Plain(Async<TcpStream>),
    /// TLS over TCP.
    Tls(Box<TlsStream<Async<TcpStream>>>),
}

impl AsyncRead for Way {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Way {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_close(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_close(context),
            Self::Tls(stream) => Pin::new(stream).poll_close(context),
        }
    }
}
