//! TLS of each port: certificate and key, and what is asked of clients. Both are read again when their files change.

use super::paths::Paths;
use crate::authentication::{self, Authenticator, ChainVerifier};
use crate::config::blob::{AutomaticCertificate, Configuration, Secret, Tls};
use crate::config::secret::{self, CheckedPair};
use crate::net::{Change, Transport};
use crate::platform::SystemClock;
use crate::service::{Automatic, Watched};
use crate::telemetry::Text;
use crate::time::UnixTime;
use crate::tls::{self, ClientCertificates, ClientVerifier, ServerTls};
use rustls_pki_types::CertificateDer;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// The files of a Secret.
const FILES: [&str; 2] = ["tls.crt", "tls.key"];

/// What lies below MQTT on port `index`. A certificate that is not there yet is waited for, one that is broken is an error.
///
/// # Errors
/// What is wrong, for the person who starts the broker.
pub fn of_port(
    configuration: &Configuration,
    authenticators: &[Authenticator],
    paths: &Paths,
    index: u16,
    watched: &mut Vec<Watched>,
) -> Result<Transport, String> {
    let port = configuration.ports.get(usize::from(index)).ok_or("it is not configured")?;
    let authenticator = port.authentication.and_then(|index| authenticators.get(usize::from(index)));
    let clients = client_certificates(authenticator);
    let secret = match &port.tls {
        None => return Ok(Transport::Plain),
        Some(Tls::Manual { secret }) => *secret,
        Some(Tls::Automatic(settings)) => return automatic(index, settings, clients, paths, watched),
    };
    let secret = configuration.secrets.get(usize::from(secret)).ok_or("its secret is missing from the blob")?;
    let transport = match load_pair(secret, paths)? {
        Some(pair) => Transport::Tls(server_tls(pair, clients.clone(), &secret.name)?),
        None => {
            log::warn!("server certificate '{}' not found: waiting for it", secret.name);
            Transport::AwaitsCertificate
        }
    };
    if secret.embedded.is_none() {
        let (secret, paths) = (secret.clone(), paths.clone());
        watched.push(Watched::new(files(&secret, &paths), move || {
            let loaded = load_pair(&secret, &paths).and_then(|pair| match pair {
                Some(pair) => server_tls(pair, clients.clone(), &secret.name).map(Some),
                None => Ok(None),
            });
            match loaded {
                Ok(Some(tls)) => {
                    log::info!("server certificate '{}' read again", secret.name);
                    return vec![Change::ServerTls(index, tls)];
                }
                Ok(None) => log::warn!("server certificate '{}' is gone; the old one stays in use", secret.name),
                // Certificate and key are written one after the other: half of a change looks like this too.
                Err(fault) => log::error!("{fault}; the old one stays in use"),
            }
            Vec::new()
        }));
    }
    Ok(transport)
}

/// Certificate and key of a Secret; `None` where a file is not there.
///
/// # Errors
/// They cannot be read, or do not fit.
pub fn load_pair(secret: &Secret, paths: &Paths) -> Result<Option<CheckedPair>, String> {
    let (chain, key) = match &secret.embedded {
        Some(embedded) => (embedded.certificate_chain_pem.clone(), embedded.private_key_pem.clone()),
        None => {
            let mut texts = Vec::new();
            for path in files(secret, paths) {
                match std::fs::read_to_string(&path) {
                    Ok(text) => texts.push(text),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
                    Err(error) => return Err(format!("cannot read {}: {error}", path.display())),
                }
            }
            let key = texts.pop().unwrap_or_default();
            (texts.pop().unwrap_or_default(), key)
        }
    };
    let pair = secret::check_pair(chain.as_bytes(), key.as_bytes());
    pair.map(Some).map_err(|fault| format!("secret '{}': {fault}", secret.name))
}

/// The files of a Secret that is not embedded.
pub fn files(secret: &Secret, paths: &Paths) -> Vec<PathBuf> {
    FILES.iter().map(|file| paths.secret(&secret.name, file)).collect()
}

fn server_tls(pair: CheckedPair, clients: ClientCertificates, secret: &str) -> Result<ServerTls, String> {
    ServerTls::new(pair.certificates, pair.key, clients, Arc::new(WallClock))
        .map_err(|fault| format!("secret '{secret}': {fault}"))
}

/// What lies below MQTT on port `index` with a certificate that this gateway issues.
fn automatic(
    index: u16,
    settings: &AutomaticCertificate,
    clients: ClientCertificates,
    paths: &Paths,
    watched: &mut Vec<Watched>,
) -> Result<Transport, String> {
    let name = settings.secret_name.clone();
    let mut certificate = Automatic::new(settings.clone(), &paths.issuers, &paths.secrets);
    let next = move |certificate: &mut Automatic| {
        let pair = certificate.next(SystemClock::unix()).map_err(|fault| format!("certificate '{name}': {fault}"))?;
        pair.map(|pair| server_tls(pair, clients.clone(), &name)).transpose()
    };
    let transport = match next(&mut certificate)? {
        Some(tls) => Transport::Tls(tls),
        None => {
            log::warn!("the clock of this gateway is not set: server certificate '{}' must wait", settings.secret_name);
            Transport::AwaitsCertificate
        }
    };
    watched.push(Watched::every_second(certificate.files(), move |changed| {
        if !(changed || certificate.is_due(SystemClock::unix())) {
            return Vec::new();
        }
        match next(&mut certificate) {
            Ok(tls) => tls.map(|tls| Change::ServerTls(index, tls)).into_iter().collect(),
            Err(fault) => {
                log::error!("{fault}; the old one stays in use");
                Vec::new()
            }
        }
    }));
    Ok(transport)
}

fn client_certificates(authenticator: Option<&Authenticator>) -> ClientCertificates {
    use authentication::ClientCertificates as Wanted;
    let Some(authenticator) = authenticator else { return ClientCertificates::NotRequested };
    match (authenticator.client_certificates(), authenticator.chain_verifier()) {
        (Wanted::Required, Some(verifier)) => ClientCertificates::Required(Arc::new(Verifier(Arc::clone(verifier)))),
        (Wanted::Requested, Some(verifier)) => ClientCertificates::Requested(Arc::new(Verifier(Arc::clone(verifier)))),
        (Wanted::Forwarded, _) => ClientCertificates::Requested(Arc::new(Unjudged)),
        (Wanted::Required | Wanted::Requested | Wanted::NotRequested, _) => ClientCertificates::NotRequested,
    }
}

/// The handshake asks the same judge that CONNECT will ask again.
#[derive(Debug)]
struct Verifier(Arc<ChainVerifier>);

impl ClientVerifier for Verifier {
    fn verify(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> Result<(), rustls::Error> {
        let path = match self.0.verify(chain, now) {
            // CONNECT, which asks again, is answered with a reason that tells the client to come back.
            Err(authentication::ChainFault::ClockNotSet) => return Ok(()),
            // The alert for it has no room for which certificate and why.
            Err(fault @ authentication::ChainFault::Withdrawn(_)) => {
                log::info!("client refused: {}", Text::of(&fault));
                return Err(fault.into());
            }
            outcome => outcome?,
        };
        // Ready to paste into `subject` of an `authorizationAttributes` entry.
        let subjects: Vec<String> = path.subjects.iter().map(|subject| format!("'{subject}'")).collect();
        log::info!("client certificate accepted: {}", subjects.join(" issued by "));
        Ok(())
    }

    fn root_hint_subjects(&self) -> &[rustls::DistinguishedName] {
        self.0.root_hint_subjects()
    }
}

/// No method of ours looks at the certificates: the custom server gets and judges them.
#[derive(Debug)]
struct Unjudged;

impl ClientVerifier for Unjudged {
    fn verify(&self, _: &[CertificateDer<'_>], _: UnixTime) -> Result<(), rustls::Error> {
        Ok(())
    }

    fn root_hint_subjects(&self) -> &[rustls::DistinguishedName] {
        &[]
    }
}

/// The wall clock, for certificate dates in a handshake.
#[derive(Debug)]
pub struct WallClock;

impl tls::Clock for WallClock {
    fn unix(&self) -> UnixTime {
        SystemClock::unix()
    }
}
