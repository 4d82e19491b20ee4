//! The server's side of every connection of one listener: certificate, key, and what is asked of clients.
//!
//! In: a chain and its key, a judge of client certificates, a clock. Out: [`ServerTls`], shared by the connections that
//! are accepted under it. A reload makes a new one; connections keep the one they began with.
//!
//! **Invariants:** the key belongs to the certificate (proved by a signature, not by comparing bytes); nothing is
//! remembered from one connection to the next but what a client's ticket holds, and that ends with the [`ServerTls`].

use crate::crypto;
use crate::limits::{PEER_CHAIN_BYTES_MAX, PEER_CHAIN_CERTIFICATES_MAX};
use crate::time::UnixTime;
use crate::tls::TlsFault;
use crate::tls::tickets::Tickets;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime as PkiTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoClientAuth, NoServerSessionStorage, ProducesTickets, ServerConfig};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::time_provider::TimeProvider;
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, SignatureScheme, version};
use std::sync::Arc;

/// Where the wall clock is read during a handshake.
pub trait Clock: Send + Sync + fmt::Debug {
    /// The time by which certificates are judged.
    fn unix(&self) -> UnixTime;
}

/// A wall clock that is set once a turn and read by every handshake of that turn.
#[derive(Debug, Default)]
pub struct WallClock(AtomicU64);

impl WallClock {
    /// A clock that shows `now`.
    #[must_use]
    pub const fn new(now: UnixTime) -> Self {
        Self(AtomicU64::new(now.0))
    }

    /// Sets the clock.
    pub fn set(&self, now: UnixTime) {
        self.0.store(now.0, Ordering::Relaxed);
    }
}

impl Clock for WallClock {
    fn unix(&self) -> UnixTime {
        UnixTime(self.0.load(Ordering::Relaxed))
    }
}

/// Judges the certificates that clients present.
pub trait ClientVerifier: Send + Sync + fmt::Debug {
    /// Judges `chain`, the client's own certificate first, at the time `now`. `chain` has one to
    /// [`PEER_CHAIN_CERTIFICATES_MAX`] certificates of together at most [`PEER_CHAIN_BYTES_MAX`] bytes. That the client
    /// holds the key of the first one is checked here, in the handshake.
    ///
    /// # Errors
    /// The reason as `InvalidCertificate`; the alert that the client gets is derived from it. The text of a `General`
    /// becomes the reason, with the alert `certificate_unknown`.
    fn verify(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> Result<(), Error>;

    /// Names of the authorities that clients are told of, so that they can choose a certificate. May be empty.
    fn root_hint_subjects(&self) -> &[DistinguishedName];
}

/// What is asked of clients.
#[derive(Clone, Debug)]
pub enum ClientCertificates {
    /// Clients are not asked for a certificate.
    NotRequested,
    /// Clients may show one; one that is shown must be good.
    Requested(Arc<dyn ClientVerifier>),
    /// Clients must show a good one.
    Required(Arc<dyn ClientVerifier>),
}

/// The configuration of a server. Cheap to clone; clones know each other's tickets.
#[derive(Clone, Debug)]
pub struct ServerTls {
    config: Arc<ServerConfig>,
    tickets: Arc<Tickets>,
    /// Its own certificate.
    certificate: Arc<CertificateDer<'static>>,
}

impl ServerTls {
    /// A server that shows `chain` (its own certificate first), whose private key is `key`.
    ///
    /// # Errors
    /// `ChainEmpty`, `ServerCertificate`, `ServerKeyUnsupported`, `ServerKeyMismatch`; `Internal` without entropy.
    pub fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        clients: ClientCertificates,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, TlsFault> {
        Self::with_provider(crypto::shared_provider(), chain, key, clients, clock)
    }

    /// [`Self::new`] over another provider.
    pub(super) fn with_provider(
        provider: Arc<CryptoProvider>,
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        clients: ClientCertificates,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, TlsFault> {
        let certificate = Arc::new(chain.first().ok_or(TlsFault::ChainEmpty)?.clone());
        let chain_is_required = matches!(clients, ClientCertificates::Required(_));
        let tickets = Arc::new(Tickets::new(Arc::clone(&clock), chain_is_required));
        let mut config = config(provider, chain, key, clients, clock)?;
        config.ticketer = Arc::clone(&tickets) as Arc<dyn ProducesTickets>;
        config.send_tls13_tickets = 1;
        Ok(Self { config: Arc::new(config), tickets, certificate })
    }

    /// The same server after a change of trust: tickets from before are worth nothing, also in handshakes that have begun.
    #[must_use]
    pub fn with_new_tickets(&self) -> Self {
        self.retire_tickets();
        let tickets = Arc::new(self.tickets.anew());
        let mut config = ServerConfig::clone(&self.config);
        config.ticketer = Arc::clone(&tickets) as Arc<dyn ProducesTickets>;
        Self { config: Arc::new(config), tickets, certificate: Arc::clone(&self.certificate) }
    }

    /// The server's own certificate, the first of its chain: for people, who want to know when it ends.
    #[must_use]
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// Makes the tickets of this server worthless; it gives no new ones.
    pub fn retire_tickets(&self) {
        self.tickets.retire();
    }

    /// The configuration, for a new connection.
    pub(super) fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config)
    }
}

/// The configuration of a server for which every handshake is a whole one: nobody is let in by a ticket, so that each time
/// somebody connects he is judged.
///
/// # Errors
/// As [`ServerTls::new`].
pub fn server_config(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    clients: ClientCertificates,
    clock: Arc<dyn Clock>,
) -> Result<Arc<ServerConfig>, TlsFault> {
    config(crypto::shared_provider(), chain, key, clients, clock).map(Arc::new)
}

/// A configuration without tickets.
fn config(
    provider: Arc<CryptoProvider>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    clients: ClientCertificates,
    clock: Arc<dyn Clock>,
) -> Result<ServerConfig, TlsFault> {
    let algorithms = provider.signature_verification_algorithms;
    let key = provider.key_provider.load_private_key(key).map_err(|_| TlsFault::ServerKeyUnsupported)?;
    let certified = CertifiedKey::new(chain, key);
    key_belongs_to_certificate(&certified, &algorithms)?;
    let verifier: Arc<dyn ClientCertVerifier> = match clients {
        ClientCertificates::NotRequested => Arc::new(NoClientAuth),
        ClientCertificates::Requested(judge) => Arc::new(Judged { judge, mandatory: false, algorithms }),
        ClientCertificates::Required(judge) => Arc::new(Judged { judge, mandatory: true, algorithms }),
    };
    let mut config = ServerConfig::builder_with_details(provider, Arc::new(RustlsClock(clock)))
        .with_protocol_versions(&[&version::TLS13, &version::TLS12])
        .map_err(TlsFault::Internal)?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.ignore_client_order = true;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    config.max_early_data_size = 0;
    config.send_half_rtt_data = false;
    Ok(config)
}

/// Signs a text with the key and verifies it with the certificate.
fn key_belongs_to_certificate(
    certified: &CertifiedKey,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Result<(), TlsFault> {
    const PROOF: &[u8] = b"does this key belong to this certificate?";
    let certificate = certified.cert.first().ok_or(TlsFault::ChainEmpty)?;
    let certificate = webpki::EndEntityCert::try_from(certificate).map_err(|_| TlsFault::ServerCertificate)?;
    let schemes =
        [SignatureScheme::ECDSA_NISTP256_SHA256, SignatureScheme::ECDSA_NISTP384_SHA384, SignatureScheme::ED25519];
    let signer = certified.key.choose_scheme(&schemes).ok_or(TlsFault::ServerKeyUnsupported)?;
    let signature = signer.sign(PROOF).map_err(TlsFault::Internal)?;
    let possible = algorithms.mapping.iter().filter(|(scheme, _)| *scheme == signer.scheme());
    let belongs = possible
        .flat_map(|(_, list)| list.iter())
        .any(|algorithm| certificate.verify_signature(*algorithm, PROOF, &signature).is_ok());
    if belongs { Ok(()) } else { Err(TlsFault::ServerKeyMismatch) }
}

/// Our clock as rustls wants it.
#[derive(Debug)]
struct RustlsClock(Arc<dyn Clock>);

impl TimeProvider for RustlsClock {
    fn current_time(&self) -> Option<PkiTime> {
        Some(PkiTime::since_unix_epoch(Duration::from_secs(self.0.unix().0)))
    }
}

/// A reason of ours inside rustls' error.
#[derive(Debug)]
struct Reason(String);

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl core::error::Error for Reason {}

/// An error with a reason of ours.
fn refused(reason: String) -> Error {
    Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(Reason(reason)))))
}

/// Our judge as rustls wants it, behind the caps on what a peer may present.
#[derive(Debug)]
struct Judged {
    judge: Arc<dyn ClientVerifier>,
    mandatory: bool,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ClientCertVerifier for Judged {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.judge.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: PkiTime,
    ) -> Result<ClientCertVerified, Error> {
        let bytes = intermediates.iter().fold(end_entity.len(), |sum, one| sum.saturating_add(one.len()));
        if intermediates.len() >= PEER_CHAIN_CERTIFICATES_MAX {
            return Err(refused("too many certificates".into()));
        }
        if bytes > PEER_CHAIN_BYTES_MAX {
            return Err(refused("certificates too long".into()));
        }
        let chain: Vec<_> = core::iter::once(end_entity)
            .chain(intermediates)
            .map(|certificate| CertificateDer::from(certificate.as_ref()))
            .collect();
        match self.judge.verify(&chain, UnixTime(now.as_secs())) {
            Ok(()) => Ok(ClientCertVerified::assertion()),
            Err(Error::General(reason)) => Err(refused(reason)),
            Err(error) => Err(error),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, dss, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
