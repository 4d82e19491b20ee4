//! The bridges of a running broker: one task each, which begins anew when what it was made of changes.
//!
//! Certificates, keys and passwords are read again for each connection: who replaces them has nothing else to do.

use super::paths::Paths;
use super::transport;
use crate::bridge::{Bridging, Noted, Statuses, Surroundings, insider_name};
use crate::broker::{INSIDE_PREFIX, Insider, InsiderQueue};
use crate::config::blob::{Authorization, Bridge, Configuration, Secret, TrustBundle};
use crate::config::envelope::write_atomically;
use crate::https::{Resolver, Roots, root_store};
use crate::identity::Username;
use crate::net::Inside;
use crate::platform::{self, SystemClock};
use crate::upstream::{Remote, RemoteSettings, Way, client_tls};
use async_io::Async;
use embassy_time::{Duration, Timer};
use rustls::ClientConfig;
use smol::{LocalExecutor, Task};
use std::io;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use zeroize::Zeroizing;

/// Longest password, bytes: MQTT allows no longer one.
const PASSWORD_BYTES_MAX: usize = 65_535;
/// How often a new bridge looks whether it is known yet.
const IN_FORCE_MILLISECONDS: u64 = 20;

/// The insider that a bridge is to the broker.
///
/// # Errors
/// Its name or its attributes do not fit: a configuration that was verified has none of these.
pub fn insider(bridge: &Bridge) -> Result<Insider, String> {
    let too_long = || format!("BrokerBridge '{}': its name or its identity is too long", bridge.name);
    let mut insider = Insider::new(&insider_name(&bridge.name)).ok_or_else(too_long)?;
    if let Some(username) = &bridge.identity.username {
        insider.identity.username = Some(Username::try_from(username.as_str()).map_err(|_| too_long())?);
    }
    for (name, value) in &bridge.identity.attributes {
        insider.identity.attributes.insert(name, value).map_err(|_| too_long())?;
    }
    insider.policy = bridge.identity.authorization;
    insider.queue = Some(InsiderQueue {
        length: bridge.queue_length,
        bytes: bridge.queue_bytes,
        strategy: bridge.queue_strategy,
        packet_bytes: bridge.remote.packet_bytes,
    });
    Ok(insider)
}

/// Everything that a bridge is made of.
#[derive(Clone, PartialEq)]
struct Plan {
    bridge: Bridge,
    /// Client identifiers of all bridges.
    own: Vec<String>,
    trust: Option<TrustBundle>,
    identity: Option<Secret>,
    /// What it may do: a filter that was forbidden is asked for again when that changes.
    policy: Option<Authorization>,
}

struct Running {
    plan: Plan,
    /// Ends when it is dropped.
    _task: Task<()>,
}

/// The bridges of a broker.
pub struct Bridges {
    executor: Rc<LocalExecutor<'static>>,
    inside: Inside,
    paths: Paths,
    running: Vec<Running>,
    statuses: Statuses,
}

impl Bridges {
    /// Starts those of `configuration`.
    #[must_use]
    pub fn start(
        executor: Rc<LocalExecutor<'static>>,
        inside: Inside,
        paths: Paths,
        configuration: &Configuration,
    ) -> Self {
        let mut bridges = Self { executor, inside, paths, running: Vec::new(), statuses: Statuses::default() };
        bridges.replace(configuration);
        bridges
    }

    /// What they are doing, for others.
    #[must_use]
    pub fn statuses(&self) -> Statuses {
        Rc::clone(&self.statuses)
    }

    /// Ends those that are not in `configuration`, and starts those that are new or others than before.
    pub fn replace(&mut self, configuration: &Configuration) {
        let own: Vec<String> =
            configuration.bridges.iter().map(|bridge| bridge.remote.client_identifier.clone()).collect();
        let plans: Vec<Plan> = configuration.bridges.iter().map(|bridge| plan(configuration, bridge, &own)).collect();
        self.running.retain(|running| plans.contains(&running.plan));
        let kept: Vec<&Plan> = self.running.iter().map(|running| &running.plan).collect();
        let new: Vec<Plan> = plans.into_iter().filter(|plan| !kept.contains(&plan)).collect();
        let names: Vec<String> = kept.iter().map(|plan| plan.bridge.name.clone()).collect();
        self.statuses.borrow_mut().retain(|status| names.contains(&status.borrow().name));
        for plan in new {
            let bridge = configuration.bridges.iter().find(|bridge| bridge.name == plan.bridge.name);
            let expected = bridge.and_then(|bridge| insider(bridge).ok());
            self.spawn(plan, expected);
        }
    }

    /// `expected` is what the broker has to know it as, before it begins.
    fn spawn(&mut self, plan: Plan, expected: Option<Insider>) {
        let surroundings = Ways { inside: self.inside.clone(), paths: self.paths.clone(), plan: plan.clone() };
        let inside = self.inside.clone();
        let bridging = Bridging::new(plan.bridge.clone(), plan.own.clone(), surroundings);
        self.statuses.borrow_mut().push(bridging.status());
        // Without entropy all gateways come back at the same moment; that is all.
        let seed = platform::seed().unwrap_or(1);
        let task = self.executor.spawn(async move {
            if let Some(expected) = expected {
                until_in_force(&inside, expected).await;
            }
            bridging.run(seed).await;
        });
        self.running.push(Running { plan, _task: task });
    }
}

/// Waits until the broker has the insider as it is `expected`: a changed configuration comes into force a little later.
async fn until_in_force(inside: &Inside, expected: Insider) {
    let expected = Rc::new(expected);
    loop {
        let wanted = Rc::clone(&expected);
        let is_there = inside.ask(move |turn, _| turn.broker().has_insider(&wanted)).await;
        if is_there != Some(false) {
            return;
        }
        Timer::after(Duration::from_millis(IN_FORCE_MILLISECONDS)).await;
    }
}

fn plan(configuration: &Configuration, bridge: &Bridge, own: &[String]) -> Plan {
    let mut bridge = bridge.clone();
    let (mut trust, mut identity) = (None, None);
    if let Some(tls) = &mut bridge.remote.tls {
        // What an index means counts, and not which one it is.
        if let Some(index) = &mut tls.trust_bundle {
            trust = configuration.trust_bundles.get(usize::from(core::mem::take(index))).cloned();
        }
        if let Some(index) = &mut tls.client_secret {
            identity = configuration.secrets.get(usize::from(core::mem::take(index))).cloned();
        }
    }
    let policy = bridge
        .identity
        .authorization
        .as_mut()
        .and_then(|index| configuration.authorizations.get(usize::from(core::mem::take(index))).cloned());
    Plan { bridge, own: own.to_vec(), trust, identity, policy }
}

/// The world of one bridge.
struct Ways {
    inside: Inside,
    paths: Paths,
    plan: Plan,
}

impl Ways {
    /// Where it keeps what it has to know; without a state folder, nowhere.
    fn note_path(&self) -> Option<PathBuf> {
        Some(self.paths.state.as_ref()?.join(format!("bridge-{}", self.plan.bridge.name)))
    }

    fn tls(&self) -> Result<Option<Arc<ClientConfig>>, String> {
        let Some(tls) = &self.plan.bridge.remote.tls else { return Ok(None) };
        let roots = match (&self.plan.trust, tls.trust_bundle) {
            (Some(bundle), _) => Roots::Bundle(bundle.certificates.clone()),
            (None, None) => Roots::System,
            (None, Some(_)) => return Err("its trust bundle is missing".to_owned()),
        };
        let roots = root_store(&roots).map_err(|fault| fault.to_string())?;
        let identity = match &self.plan.identity {
            None if tls.client_secret.is_some() => return Err("its secret is missing".to_owned()),
            None => None,
            Some(secret) => {
                let pair = transport::load_pair(secret, &self.paths)?;
                let pair = pair.ok_or_else(|| format!("certificate '{}' not found", secret.name))?;
                Some((pair.certificates, pair.key))
            }
        };
        client_tls(roots, identity).map(Some).map_err(|error| error.to_string())
    }
}

impl Surroundings for Ways {
    type Local = Async<UnixStream>;
    type Remote = Way;

    async fn local(&self) -> io::Result<Self::Local> {
        self.inside.connect(&insider_name(&self.plan.bridge.name)).await
    }

    async fn filters(&self) -> Vec<String> {
        let client = format!("{INSIDE_PREFIX}{}", insider_name(&self.plan.bridge.name));
        self.inside.ask(move |turn, _| turn.broker().filters_of_insider(&client)).await.unwrap_or_default()
    }

    async fn remote(&self, address: usize) -> Result<Way, String> {
        let remote = &self.plan.bridge.remote;
        let (host, port) = remote.addresses.get(address).cloned().ok_or("there is no such address")?;
        let server_name = remote.tls.as_ref().and_then(|tls| tls.server_name.clone());
        let settings = RemoteSettings { host, port, tls: self.tls()?, server_name };
        Remote::new(settings, Resolver::default()).connect().await.map_err(|fault| fault.to_string())
    }

    fn password(&self) -> Result<Option<Zeroizing<Vec<u8>>>, String> {
        let Some((_, Some(secret))) = &self.plan.bridge.remote.login else { return Ok(None) };
        let path: PathBuf = self.paths.secrets.join(secret).join("password");
        let mut bytes = std::fs::read(&path)
            .map(Zeroizing::new)
            .map_err(|error| format!("cannot read {}: {error}", path.display()))?;
        // Editors end a file with a new line.
        while bytes.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
            bytes.pop();
        }
        if bytes.len() > PASSWORD_BYTES_MAX {
            return Err(format!("{} is too long", path.display()));
        }
        Ok(Some(bytes))
    }

    fn noted(&self) -> Noted {
        let bytes = self.note_path().and_then(|path| std::fs::read(path).ok());
        bytes.map(|bytes| Noted::decode(&bytes)).unwrap_or_default()
    }

    fn note(&self, noted: &Noted) {
        let (Some(path), bytes) = (self.note_path(), noted.encode()) else { return };
        if self.noted() == *noted {
            return;
        }
        if let Err(error) = write_atomically(&path, &bytes) {
            log::warn!(
                "{}: what bridge '{}' has to know cannot be kept: {error}",
                path.display(),
                self.plan.bridge.name
            );
        }
    }

    fn unix(&self) -> u64 {
        SystemClock::unix().0
    }
}
