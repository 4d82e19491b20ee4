//! What authentication needs from outside of the blob: users with passwords, what has been revoked, servers to ask. Read
//! again when files change.

use super::paths::Paths;
use super::{revocation, transport};
use crate::authentication::{Authenticator, PASSWORDS_BYTES_MAX, Passwords, Revocation, RevocationInForce};
use crate::config::blob::{Configuration, HttpsServer, Method, ServiceAccountTokens};
use crate::https::{Resolver, Roots, Server, ServerSettings, Timing};
use crate::net::Change;
use crate::platform::SystemClock;
use crate::service::{Cluster, Inquiries, Watched};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;

/// `paths.revocation` of a Gateway that names none.
const DEFAULT_REVOCATION_FOLDER: &str = "revocation";

/// Every method of every BrokerAuthentication, with its place.
fn methods(configuration: &Configuration) -> impl Iterator<Item = ((u16, u16), &Method)> {
    (0_u16..).zip(&configuration.authentications).flat_map(|(authentication, resource)| {
        (0_u16..).zip(&resource.methods).map(move |(method, settings)| ((authentication, method), settings))
    })
}

/// Reads the users of all methods UsernamePassword. A file that cannot be used is among the `faults`, and lets nobody in until
/// it can.
pub fn load_passwords(
    configuration: &Configuration,
    paths: &Paths,
    authenticators: &mut [Authenticator],
    watched: &mut Vec<Watched>,
    faults: &mut Vec<String>,
) {
    for ((authentication, method), settings) in methods(configuration) {
        let Method::UsernamePassword { secret } = settings else { continue };
        let path = paths.secret(secret, "passwords.toml");
        match read_passwords(&path) {
            Ok(users) => {
                log::info!("{}: {} users", path.display(), users.len());
                if let Some(authenticator) = authenticators.get_mut(usize::from(authentication)) {
                    authenticator.set_passwords(method, users);
                }
            }
            Err(fault) => faults.push(format!("{fault}; nobody can log in with a password")),
        }
        watched.push(Watched::new(vec![path.clone()], move || match read_passwords(&path) {
            Ok(users) => {
                log::info!("{}: read again, {} users", path.display(), users.len());
                vec![Change::Passwords { authentication, method, users }]
            }
            Err(fault) => {
                log::error!("{fault}; the users from before stay in force");
                Vec::new()
            }
        }));
    }
}

/// Reads the revocation lists and the deny list for all who judge certificates at one of `places`.
/// `former` is what a running broker has in force: where the folder is gone, it stays so.
///
/// # Errors
/// A file cannot be used: nobody can tell whom it would have kept out.
pub fn load_revocation(
    configuration: &Configuration,
    paths: &Paths,
    places: Vec<Arc<RevocationInForce>>,
    watched: &mut Vec<Watched>,
    former: Option<&Revocation>,
) -> Result<(), String> {
    let (folder, stale) = (paths.revocation.clone(), configuration.gateway.stale_revocation_lists);
    let (places_now, folder_now) = (places.clone(), folder.clone());
    // Watched first, so that nothing is missed that changes while it is read.
    watched.push(Watched::new(vec![folder.clone()], move || {
        let faults = match revocation::read(&folder, stale) {
            Ok(Some(found)) => put(found, &places),
            Ok(None) => vec!["the revocation folder is gone".to_owned()],
            Err(fault) => vec![fault],
        };
        for fault in faults {
            log::error!("{fault}; what was revoked before stays revoked");
        }
        vec![Change::Trust]
    }));
    match (revocation::read(&folder_now, stale)?, former) {
        (Some(found), _) => match put(found, &places_now) {
            faults if faults.is_empty() => Ok(()),
            faults => Err(faults.join("; ")),
        },
        (None, Some(former)) => {
            for place in places_now {
                place.replace_lists(Arc::clone(&former.lists));
                place.replace_deny_list(Arc::clone(&former.deny_list));
            }
            Ok(())
        }
        // A card that is not there at the start, or a name with a mistake, would let in whoever is revoked.
        (None, None) if configuration.gateway.revocation_folder != DEFAULT_REVOCATION_FOLDER => {
            Err(format!("{}: the revocation folder is not there", folder_now.display()))
        }
        (None, None) => {
            log::info!("{}: there is no revocation folder: nobody is revoked", folder_now.display());
            Ok(())
        }
    }
}

/// Puts what was found in force, except for what cannot be used.
pub fn put(found: revocation::Found, places: &[Arc<RevocationInForce>]) -> Vec<String> {
    let mut faults = Vec::new();
    match found.deny_list {
        Ok(list) => {
            let list = Arc::new(list);
            places.iter().for_each(|place| place.replace_deny_list(Arc::clone(&list)));
        }
        Err(fault) => faults.push(fault),
    }
    match found.lists {
        Ok(lists) => {
            for warning in lists.warnings(SystemClock::unix()) {
                log::warn!("{warning}");
            }
            let lists = Arc::new(lists);
            places.iter().for_each(|place| place.replace_lists(Arc::clone(&lists)));
        }
        Err(fault) => faults.push(fault),
    }
    faults
}

fn read_passwords(path: &Path) -> Result<Passwords, String> {
    let fault = |fault: &dyn core::fmt::Display| format!("{}: {fault}", path.display());
    let length = std::fs::metadata(path).map_err(|error| fault(&error))?.len();
    if length > PASSWORDS_BYTES_MAX as u64 {
        return Err(fault(&"it is too long"));
    }
    let text = zeroize::Zeroizing::new(std::fs::read_to_string(path).map_err(|error| fault(&error))?);
    Passwords::parse(&text).map_err(|error| fault(&error))
}

/// Whom authentication asks: custom servers, and the cluster. Who cannot be asked is among the `faults`.
pub fn inquiries(
    configuration: &Configuration,
    paths: &Paths,
    watched: &mut Vec<Watched>,
    faults: &mut Vec<String>,
) -> Rc<Inquiries> {
    let mut audiences = BTreeMap::new();
    let mut custom = Vec::new();
    for (place, settings) in methods(configuration) {
        match settings {
            Method::ServiceAccountToken { audiences: wanted } => {
                audiences.insert(place, wanted.clone());
            }
            Method::Custom { server } => custom.push((place, server.clone())),
            Method::X509 { .. } | Method::UsernamePassword { .. } => {}
        }
    }
    let inquiries = Rc::new(Inquiries::new(audiences));
    for (place, server) in custom {
        let held = Rc::clone(&inquiries);
        keep(configuration, paths, server, watched, faults, move |server| {
            held.custom.borrow_mut().insert(place, Rc::new(server));
        });
    }
    if let Some(ServiceAccountTokens::TokenReview { server, token_secret }) =
        &configuration.gateway.service_account_tokens
    {
        let bearer: Option<PathBuf> = token_secret.as_ref().map(|name| paths.secret(name, "token"));
        let held = Rc::clone(&inquiries);
        keep(configuration, paths, server.clone(), watched, faults, move |server| {
            let cluster = Cluster { server, bearer: bearer.clone() };
            *held.cluster.borrow_mut() = Some(Rc::new(cluster));
        });
    }
    inquiries
}

/// Prepares a server now, and again when the certificate that is shown to it changes.
fn keep(
    configuration: &Configuration,
    paths: &Paths,
    server: HttpsServer,
    watched: &mut Vec<Watched>,
    faults: &mut Vec<String>,
    mut put: impl FnMut(Server) + 'static,
) {
    match prepare(configuration, paths, &server) {
        Ok(prepared) => put(prepared),
        Err(fault) => faults.push(format!("{}: {fault}; it cannot be asked", server.endpoint)),
    }
    let secret = server.client_secret.and_then(|index| configuration.secrets.get(usize::from(index)));
    let Some(secret) = secret.filter(|secret| secret.embedded.is_none()) else { return };
    let files = transport::files(secret, paths);
    let (configuration, paths) = (configuration.clone(), paths.clone());
    watched.push(Watched::new(files, move || {
        match prepare(&configuration, &paths, &server) {
            Ok(prepared) => put(prepared),
            Err(fault) => log::error!("{}: {fault}; the old certificate stays in use", server.endpoint),
        }
        Vec::new()
    }));
}

fn prepare(configuration: &Configuration, paths: &Paths, server: &HttpsServer) -> Result<Server, String> {
    let roots = match server.trust_bundle {
        None => Roots::System,
        Some(index) => {
            let bundle = configuration.trust_bundles.get(usize::from(index)).ok_or("its trust bundle is missing")?;
            Roots::Bundle(bundle.certificates.clone())
        }
    };
    let identity = match server.client_secret {
        None => None,
        Some(index) => {
            let secret = configuration.secrets.get(usize::from(index)).ok_or("its secret is missing")?;
            let pair = transport::load_pair(secret, paths)?;
            let pair = pair.ok_or_else(|| format!("certificate '{}' not found", secret.name))?;
            Some((pair.certificates, pair.key))
        }
    };
    let settings = ServerSettings {
        endpoint: &server.endpoint,
        roots,
        identity,
        headers: server.headers.clone(),
        timing: Timing::default(),
    };
    Server::new(settings, Resolver::default()).map_err(|fault| fault.to_string())
}
