//! The blob of a running broker, read again: on SIGHUP, and when its file changes.
//!
//! **Invariant:** everything is made of the new configuration before anything of the old one is given up. Whatever is wrong
//! with it is said in one line, and the old one stays in force as it was.

use super::paths::Paths;
use super::prepare::{Known, Prepared, prepare, secret_of};
use super::run::read_blob;
use super::start::Beside;
use super::{diagnostics, facts, last_good, succession};
use crate::authentication::{RevocationInForce, SignatureMemo};
use crate::config::blob::Configuration;
use crate::config::{self, changes};
use crate::net::{Change, Reconfiguration, Transport};
use crate::service::{Fingerprint, Reloaded, Source, Trigger};
use crate::time::UnixTime;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;

/// Where the configuration of a broker came from.
pub struct Origin {
    /// The blob that it was to run with.
    pub blob: PathBuf,
    /// The state of that file before it was read.
    pub read: Fingerprint,
    /// The blob that it runs with.
    pub contents: Vec<u8>,
}

impl Origin {
    /// Keeps the blob that is in force as the last good one.
    pub fn keep(&self, paths: &Paths) {
        keep(paths, &self.contents);
    }

    /// The blob as a source of changes to `configuration`, which is in force. `beside` are told of each.
    /// `facts` are replaced with it.
    pub fn watch(
        self,
        configuration: Configuration,
        paths: Paths,
        revocation: Option<Arc<RevocationInForce>>,
        known: diagnostics::Known,
        beside: Beside,
        facts: facts::Told,
    ) -> Source {
        let blob = self.blob.clone();
        let diagnostics::Known { clock_floor, signatures } = known;
        let mut reload =
            Reload { blob: self.blob, configuration, paths, revocation, clock_floor, signatures, beside, facts };
        Source::new(blob, self.read, move |trigger| {
            let blob = reload.blob.display();
            match trigger {
                Trigger::Signal => log::info!("SIGHUP: {blob} is read again"),
                Trigger::File => log::info!("{blob} has changed and is read again"),
            }
            reload.facts.manager.reloading();
            let reloaded = reload.again().inspect_err(|fault| {
                log::error!("{}: {fault}; the configuration from before stays in force", reload.blob.display());
            });
            reload.facts.manager.ready();
            reloaded.ok()
        })
    }
}

fn keep(paths: &Paths, blob: &[u8]) {
    let Some(state) = &paths.state else { return };
    if let Err(error) = last_good::keep(state, blob) {
        let path = last_good::path(state);
        log::warn!("{}: the configuration cannot be kept as the last good one: {error}", path.display());
    }
}

struct Reload {
    blob: PathBuf,
    /// What is in force.
    configuration: Configuration,
    paths: Paths,
    /// What is revoked.
    revocation: Option<Arc<RevocationInForce>>,
    clock_floor: UnixTime,
    signatures: Arc<SignatureMemo>,
    beside: Beside,
    /// What is told of it.
    facts: facts::Told,
}

impl Reload {
    fn again(&mut self) -> Result<Reloaded, String> {
        let contents = read_blob(&self.blob)?;
        let next = config::decode(&contents).map_err(|error| error.to_string())?;
        let differences = changes::that_need_a_restart(&self.configuration, &next);
        if !differences.is_empty() {
            return Err(format!("only a restart can change {}", differences.join(", ")));
        }
        let revoked = self.revocation.as_ref().map(|place| place.current());
        let known = Known { revoked, clock_floor: self.clock_floor, signatures: Arc::clone(&self.signatures) };
        // The folders are the same.
        let prepared = prepare(&next, &self.paths, &known).map_err(|error| error.to_string())?;
        let Prepared { revocation, admission, settings, transports, inquiries, judges, watched, faults } = prepared;
        if let Some(fault) = faults.into_iter().next() {
            return Err(fault);
        }
        self.check_certificates(&next, &transports)?;
        let new = Reconfiguration {
            admission,
            successions: succession::of_ports(&self.configuration, &next),
            capacities: next.board.capacities.clone(),
            limits: next.clients.clone(),
            settings,
            transports,
            judges,
        };
        let told = facts::of(&next, Some((&self.blob, &contents)), Rc::clone(&inquiries));
        let questions = self.beside.inquirer.serve(inquiries);
        keep(&self.paths, &contents);
        // Bridges that are new begin when this is in force.
        self.beside.bridges.replace(&next);
        self.configuration = next;
        self.facts.replace(told);
        // Without anybody to authenticate, what was revoked stays known for when there is.
        self.revocation = revocation.or(self.revocation.take());
        Ok(Reloaded { watched, change: Change::Configuration(Box::new(new), questions) })
    }

    /// A port that serves, or waits for its certificate, does not begin to wait for another one.
    fn check_certificates(&self, next: &Configuration, transports: &[Transport]) -> Result<(), String> {
        for ((former, port), transport) in self.configuration.ports.iter().zip(&next.ports).zip(transports) {
            let name = secret_of(next, port.tls.as_ref()).map(|secret| &secret.name);
            let former_name = secret_of(&self.configuration, former.tls.as_ref()).map(|secret| &secret.name);
            if matches!(transport, Transport::AwaitsCertificate) && name != former_name {
                let name = name.map_or("", String::as_str);
                return Err(format!("port {}: server certificate '{name}' not found", port.port));
            }
        }
        Ok(())
    }
}
