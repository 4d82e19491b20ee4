//! The doors through which a gateway shows what it is doing: what of a configuration opens them, and what guards them.

use super::CommandError;
use super::paths::{Control, Paths};
use super::{surroundings, transport};
use crate::authentication::{ChainVerifier, Dates, RevocationInForce, SignatureMemo, Signatures};
use crate::config::blob::{Configuration, Diagnostics, ExposedDiagnostics, Secret};
use crate::crypto;
use crate::net::{Change, bind};
use crate::service::web::{Context, ControlFault, ControlSocket, Door, Entrance, Listener, Token, serve};
use crate::service::{Watched, watch_files};
use crate::telemetry::Text;
use crate::time::UnixTime;
use crate::tls::{ClientCertificates, ClientVerifier, server_config};
use async_io::Async;
use rustls::ServerConfig;
use rustls::pki_types::CertificateDer;
use smol::LocalExecutor;
use smol::channel::Sender;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;

/// What a gateway knows that no configuration says.
pub struct Known {
    /// The clock cannot be right before this time.
    pub clock_floor: UnixTime,
    /// Signatures of certificates that were verified already.
    pub signatures: Arc<SignatureMemo>,
}

/// Doors that are open; the control socket is removed with this value.
#[derive(Default)]
pub struct Doors {
    ways: Vec<(Listener, Rc<Entrance>)>,
    /// What guards them and may change: files to read again.
    watched: Vec<Watched>,
    _socket: Option<ControlSocket>,
}

impl Doors {
    /// Starts to serve them, and to watch what guards them.
    pub fn serve(&mut self, context: &Rc<Context>, executor: &Rc<LocalExecutor<'static>>, changes: Sender<Change>) {
        // Not among what a configuration watches: that goes away with it, and doors stay.
        if !self.watched.is_empty() {
            executor.spawn(watch_files(core::mem::take(&mut self.watched), changes)).detach();
        }
        for (listener, entrance) in self.ways.drain(..) {
            executor.spawn(serve(listener, entrance, Rc::clone(context), Rc::clone(executor))).detach();
        }
    }
}

/// Opens the doors of a configuration.
///
/// # Errors
/// [`CommandError::CannotStart`]: a port or socket that was asked for cannot be had, or what guards a door cannot be read.
pub fn open(configuration: &Configuration, paths: &Paths, known: &Known) -> Result<Doors, CommandError> {
    let mut doors = Doors::default();
    open_control(&paths.control, &mut doors).map_err(CommandError::CannotStart)?;
    let diagnostics = &configuration.diagnostics;
    if let Some(port) = diagnostics.port {
        open_port(configuration, paths, known, port, &mut doors)
            .map_err(|fault| CommandError::CannotStart(format!("diagnostics: {fault}")))?;
    }
    Ok(doors)
}

fn open_control(control: &Control, doors: &mut Doors) -> Result<(), String> {
    let (path, is_asked_for) = match control {
        Control::Absent => return Ok(()),
        Control::InState(path) => (path, false),
        Control::AskedFor(path) => (path, true),
    };
    match ControlSocket::bind(path) {
        Ok((socket, listener)) => {
            log::info!("control socket {}", path.display());
            doors.ways.push((Listener::Unix(listener), Rc::new(Entrance::new(Door::Control, None))));
            doors._socket = Some(socket);
            Ok(())
        }
        // Two brokers that take turns with one socket would each be asked what is meant for the other.
        Err(fault @ ControlFault::InUse) => Err(format!("control socket {}: {fault}", path.display())),
        Err(fault) if is_asked_for => Err(format!("control socket {}: {fault}", path.display())),
        Err(fault) => {
            log::warn!("no control socket {}: {fault}; `portcullis status` will not find this broker", path.display());
            Ok(())
        }
    }
}

fn open_port(
    configuration: &Configuration,
    paths: &Paths,
    known: &Known,
    port: u16,
    doors: &mut Doors,
) -> Result<(), String> {
    let diagnostics = &configuration.diagnostics;
    let loopback: Vec<IpAddr> = diagnostics.addresses(true).collect();
    let plain = Entrance::new(Door::Loopback { addresses: loopback.clone() }, None);
    listen(diagnostics, &loopback, port, "this machine only", Rc::new(plain), doors)?;
    let exposed: Vec<IpAddr> = diagnostics.addresses(false).collect();
    let Some(guard) = diagnostics.exposed.as_ref().filter(|_| !exposed.is_empty()) else { return Ok(()) };
    let token = guard.token_secret.as_ref().map(|name| Token { path: paths.secret(name, "token") });
    if let Some(token) = &token {
        token.read().map_err(|error| format!("token {}: {error}", token.path.display()))?;
    }
    let guarded_by = match (guard.trust_bundle, &token) {
        (Some(_), Some(_)) => "TLS, client certificate and token",
        (Some(_), None) => "TLS, client certificate",
        (None, _) => "TLS, token",
    };
    let secret = configuration.secrets.get(usize::from(guard.secret)).ok_or("its secret is missing from the blob")?;
    let clients = clients(configuration, guard, paths, known, doors)?;
    let tls = load_tls(secret, paths, &clients)?;
    let entrance = Rc::new(Entrance::new(Door::Exposed { token, updates: guard.updates }, Some(tls)));
    if secret.embedded.is_none() {
        let (entrance, secret, paths) = (Rc::clone(&entrance), secret.clone(), paths.clone());
        doors.watched.push(Watched::new(transport::files(&secret, &paths), move || {
            match load_tls(&secret, &paths, &clients) {
                Ok(tls) => {
                    log::info!("diagnostics: certificate '{}' read again", secret.name);
                    entrance.set_tls(tls);
                }
                Err(fault) => log::error!("diagnostics: {fault}; the old one stays in use"),
            }
            Vec::new()
        }));
    }
    listen(diagnostics, &exposed, port, guarded_by, entrance, doors)
}

/// Binds addresses that lead to one door. A port that nobody asked for keeps nobody from serving MQTT.
fn listen(
    diagnostics: &Diagnostics,
    addresses: &[IpAddr],
    port: u16,
    guarded_by: &str,
    entrance: Rc<Entrance>,
    doors: &mut Doors,
) -> Result<(), String> {
    if addresses.is_empty() {
        return Ok(());
    }
    let listeners = match bind(addresses, port, true) {
        Ok(listeners) => listeners,
        Err(error) if diagnostics.is_asked_for => return Err(error.to_string()),
        Err(error) => {
            log::warn!("no diagnostics over TCP: {error}; name another prometheusPort, or 0 for none");
            return Ok(());
        }
    };
    for listener in listeners {
        let address = listener.local_addr().unwrap_or_else(|_| SocketAddr::new(IpAddr::from([0, 0, 0, 0]), port));
        log::info!("diagnostics on {address}, {guarded_by}");
        let listener = Async::new(listener).map_err(|error| error.to_string())?;
        doors.ways.push((Listener::Tcp(listener), Rc::clone(&entrance)));
    }
    Ok(())
}

/// What is asked of those who come in by TLS.
fn clients(
    configuration: &Configuration,
    guard: &ExposedDiagnostics,
    paths: &Paths,
    known: &Known,
    doors: &mut Doors,
) -> Result<ClientCertificates, String> {
    let Some(bundle) = guard.trust_bundle else { return Ok(ClientCertificates::NotRequested) };
    let bundle = configuration.trust_bundles.get(usize::from(bundle)).ok_or("its trust is missing from the blob")?;
    let algorithms = crypto::provider().signature_verification_algorithms.all;
    let signatures = Signatures { algorithms, memo: Arc::clone(&known.signatures) };
    let gateway = &configuration.gateway;
    let dates = Dates::new(gateway.clock_policy, known.clock_floor);
    let verifier = ChainVerifier::new(&bundle.certificates, signatures, dates, gateway.same_key_algorithm)
        .map_err(|fault| format!("ConfigMap '{}': {fault}", bundle.name))?;
    let revoked = Arc::<RevocationInForce>::default();
    surroundings::load_revocation(configuration, paths, vec![Arc::clone(&revoked)], &mut doors.watched, None)?;
    Ok(ClientCertificates::Required(Arc::new(Reader(verifier.with_revocation(revoked)))))
}

fn load_tls(secret: &Secret, paths: &Paths, clients: &ClientCertificates) -> Result<Arc<ServerConfig>, String> {
    let pair =
        transport::load_pair(secret, paths)?.ok_or_else(|| format!("certificate '{}' not found", secret.name))?;
    server_config(pair.certificates, pair.key, clients.clone(), Arc::new(transport::WallClock))
        .map_err(|fault| format!("secret '{}': {fault}", secret.name))
}

/// Judges who may read. There is no second judgement behind the handshake: what cannot be judged is refused.
#[derive(Debug)]
struct Reader(ChainVerifier);

impl ClientVerifier for Reader {
    fn verify(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> Result<(), rustls::Error> {
        let fault = match self.0.verify(chain, now) {
            Ok(_) => return Ok(()),
            Err(fault) => fault,
        };
        log::info!("diagnostics: client refused: {}", Text::of(&fault));
        Err(fault.into())
    }

    fn root_hint_subjects(&self) -> &[rustls::DistinguishedName] {
        self.0.root_hint_subjects()
    }
}
