//! The order of an update: taken in a thread of its own, tried, kept or taken back.
//!
//! The thread is there because a card may take seconds to have written something, and PID 1 feeds two watchdogs meanwhile. It owns
//! what it works with; what the machine is told, the executor's side tells.
//!
//! **Invariant:** who has ordered that the machine starts anew does nothing more: an update that was taken between the order and
//! the end would be written over what is to be started, or confirm what is to be left.
//!
//! **Invariant:** one update at a time, from its first byte to its end: whoever rings meanwhile is heard afterwards.

use super::super::machine::{self, Area, Configuration, Image, Machine};
use super::super::network::Network;
use super::super::power::Ending;
use super::super::readiness;
use super::super::supervisor::{Broker, CONTROL_SOCKET, Order};
use super::super::{mounts, seed};
use super::configuration::{self, Begin};
use super::offer;
use super::outcome::Outcome;
use super::refusal::Refusal;
use super::site::{Gauge, Site, Taken};
use super::start::Start;
use super::trial::{self, Excuse, Trial};
use crate::bundle::UpdateState;
use async_io::Timer;
use smol::channel::{self, Receiver, Sender};
use smol::future;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

/// How long a system may take to be ready, from the start of PID 1.
const SYSTEM_TRIAL: Duration = Duration::from_secs(300);
/// Between two words about how far it has come.
const WORD: Duration = Duration::from_secs(1);
/// Name of what PID 1 itself finds amiss, among the names of checks.
const NETWORK: &str = "network";
/// What is said of a network that was there before an update.
const CUT_OFF: &str = "no address on the network, and there was one before";

/// Has something done in a thread of its own.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    let (done, result) = channel::bounded(1);
    let thread = thread::Builder::new().name("update".to_owned());
    thread.spawn(move || {
        // Whoever asked has ended with the machine, if it has.
        let _ = done.send_blocking(work());
    })?;
    result.recv().await.map_err(|_| io::ErrorKind::BrokenPipe.into())
}

/// The task that takes updates.
pub struct Update<'a> {
    /// Where everything is.
    pub site: Site,
    /// Who is told.
    pub machine: &'a Machine,
    /// Whether somebody can be reached.
    pub network: &'a Network,
    /// What the supervisor runs.
    pub broker: &'a Broker,
    /// What the supervisor is told.
    pub orders: Sender<Order>,
    /// Rung when the broker has received something.
    pub bell: Receiver<()>,
}

/// What comes after an update, or a trial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// The next one may be taken.
    Another,
    /// The machine starts anew: that is ordered.
    Restart,
}

impl Update<'_> {
    /// Goes through with the trial that the machine has started with, and takes updates until the machine is to start anew. Never
    /// ends.
    pub async fn keep(&self, start: Start) {
        let mut next = match (start.trial, start.configuration) {
            (Some(outcome), _) => self.try_system(outcome).await,
            (None, Some(outcome)) => self.try_configuration(outcome, Begin::AtStart).await,
            (None, None) => Next::Another,
        };
        while next == Next::Another && self.bell.recv().await.is_ok() {
            next = self.take().await;
        }
        future::pending().await
    }

    /// Has the machine start anew.
    async fn restart(&self) -> Next {
        // Who is told lives as long as the machine is up.
        let _ = self.orders.send(Order::End(Ending::Reboot)).await;
        Next::Restart
    }

    fn tell(&self, state: UpdateState, version: u64, text: impl Into<String>) {
        self.machine.set_update(machine::Update { state, version, text: text.into() });
    }

    async fn take(&self) -> Next {
        log::info!("an update is here");
        self.machine.clear(Area::Update);
        self.tell(UpdateState::Working, 0, "it is being checked");
        let mut before = trial::of_surroundings(readiness::ask(Path::new(CONTROL_SOCKET)).await);
        if !self.network.is_usable() {
            before.push(Excuse::by_name(NETWORK));
        }
        let site = Site { is_kept: self.site.is_kept && !mounts::is_read_only(), ..self.site.clone() };
        let gauge = Arc::new(Gauge::default());
        let seen = Arc::clone(&gauge);
        let state = self.site.state.clone();
        let work = aside(move || {
            let taken = site.take(before, &gauge);
            // Whatever has become of it: its room is for the next one.
            offer::remove(&state);
            taken
        });
        let telling = async {
            loop {
                Timer::after(WORD).await;
                self.tell(UpdateState::Working, seen.version(), seen.shown());
            }
        };
        let taken = future::or(work, telling).await.map_err(Refusal::io("no thread for it"));
        match taken.and_then(|taken| taken) {
            Ok(Taken::System) => {
                let version = seen.version();
                log::info!("the system of version {version} is written and read back; starting it on trial");
                self.tell(UpdateState::Trial, version, "the gateway starts anew on it");
                return self.restart().await;
            }
            Ok(Taken::Configuration(outcome)) => return self.try_configuration(outcome, Begin::Now).await,
            Ok(Taken::ConfigurationAtStart) => {
                let version = seen.version();
                log::info!("the configuration of version {version} has other network settings; starting it on trial");
                self.tell(UpdateState::Trial, version, "the gateway starts anew on it");
                return self.restart().await;
            }
            Err(refusal) => {
                log::warn!("the update is refused: {refusal}");
                self.tell(UpdateState::Refused, seen.version(), refusal.to_string());
            }
        }
        Next::Another
    }

    /// Confirms the system that runs, or starts the machine anew on the former one.
    async fn try_system(&self, outcome: Option<Outcome>) -> Next {
        let version = self.site.image.version;
        let begin = Instant::now();
        let before = outcome.as_ref().map(|outcome| outcome.before.clone()).unwrap_or_default();
        let mut trial = Trial::new(&before);
        log::info!("this system is on trial: it has {} s to be ready", SYSTEM_TRIAL.as_secs());
        let reason = loop {
            if let Some(fault) = self.hopeless(outcome.as_ref()) {
                break fault;
            }
            Timer::after(trial::ROUND).await;
            let is_enough = if self.is_cut_off(&before) {
                trial.note(Some(CUT_OFF.to_owned()))
            } else {
                trial.take(readiness::ask(Path::new(CONTROL_SOCKET)).await)
            };
            if is_enough {
                let site = self.site.clone();
                let confirmed = aside(move || site.confirm()).await.map_err(Refusal::io("no thread for it"));
                match confirmed.and_then(|confirmed| confirmed) {
                    Ok(()) => {
                        self.kept_system(outcome).await;
                        return Next::Another;
                    }
                    Err(refusal) => {
                        log::error!("the system cannot be confirmed: {refusal}");
                        trial.note(Some(refusal.to_string()));
                    }
                }
            }
            if begin.elapsed() > SYSTEM_TRIAL {
                break format!("not ready within {} s: {}", SYSTEM_TRIAL.as_secs(), trial.reason());
            }
        };
        log::error!("this system is not kept: {reason}; starting the former one");
        self.tell(UpdateState::Back, version, reason.as_str());
        self.note(outcome, UpdateState::Back, &reason).await;
        self.restart().await
    }

    /// Whether nobody can be reached who could be before: an update that brings that could never be followed by a better one.
    fn is_cut_off(&self, before: &[Excuse]) -> bool {
        !self.network.is_usable() && !before.iter().any(|excuse| excuse.name == NETWORK)
    }

    /// What no waiting mends.
    fn hopeless(&self, outcome: Option<&Outcome>) -> Option<String> {
        if !self.site.is_kept {
            return Some("it cannot use the data partition".to_owned());
        }
        // It came as an update: whoever kept it could never send another.
        if self.site.key.is_none() {
            return Some("the system has no key for updates, and the one before it had".to_owned());
        }
        let Image { version, board, .. } = &self.site.image;
        let signed = outcome?;
        if signed.version != *version {
            let signed = signed.version;
            return Some(format!("the system says that it is version {version}, and its update said {signed}"));
        }
        if !signed.board.is_empty() && signed.board != *board {
            let (named, board) = (signed.board.escape_debug(), board.escape_debug());
            return Some(format!("the system says that it is for the board {board}, and its update said {named}"));
        }
        None
    }

    async fn kept_system(&self, outcome: Option<Outcome>) {
        let Image { version, release, .. } = &self.site.image;
        log::info!("this system is kept: version {version} ({})", release.escape_debug());
        self.machine.set_confirmed();
        self.tell(UpdateState::Kept, *version, "");
        self.note(outcome, UpdateState::Kept, "").await;
    }

    /// Runs the broker on what was written, or lets it run that was started on it, and keeps that or goes back.
    async fn try_configuration(&self, outcome: Outcome, begin: Begin) -> Next {
        let (slot, version) = (outcome.slot, outcome.version);
        let root = self.site.configurations.clone();
        log::info!("the configuration of version {version} is in slot {slot}; trying it");
        let mut fault = self.fault_of_configuration(&outcome, begin).await;
        let (root_of_thread, is_good) = (root.clone(), fault.is_none());
        let ended = aside(move || match is_good {
            true => configuration::keep(&root_of_thread, slot, &Gauge::default()),
            false => configuration::end_trial(&root_of_thread),
        });
        match ended.await.and_then(|ended| ended) {
            Ok(()) => {}
            // The link alone says what is in force.
            Err(error) if configuration::in_force(&root) == Some(slot) => log::error!("{}: {error}", root.display()),
            Err(error) => fault = fault.or(Some(format!("it cannot be put in force: {error}"))),
        }
        let current = seed::current(&root);
        let Some(reason) = fault else {
            log::info!("the configuration of version {version} is kept");
            // The broker goes on: it has read what is there now.
            self.broker.serve(current, false);
            self.machine.set_configuration(Configuration::InSlot(slot, version));
            self.tell(UpdateState::Kept, version, "");
            self.note(Some(outcome), UpdateState::Kept, "").await;
            return Next::Another;
        };
        log::error!("the configuration of version {version} is not kept: {reason}; going back");
        if begin == Begin::Now {
            self.run(current, false).await;
        }
        self.machine.notice(Area::Update, format!("the configuration of version {version} was not kept: {reason}"));
        self.tell(UpdateState::Back, version, reason.as_str());
        self.note(Some(outcome), UpdateState::Back, &reason).await;
        match begin {
            Begin::Now => Next::Another,
            // The network is that of what is on trial, and only a start takes it away.
            Begin::AtStart => self.restart().await,
        }
    }

    /// What keeps a configuration on trial from being kept, when its time is over; `None`: nothing does.
    async fn fault_of_configuration(&self, outcome: &Outcome, begin: Begin) -> Option<String> {
        let (readies, ends) = match begin {
            Begin::Now => {
                self.tell(UpdateState::Trial, outcome.version, "the broker starts anew on it");
                let before = (self.broker.readies.get(), self.broker.ends.get());
                self.run(configuration::folder(&self.site.configurations, outcome.slot), true).await;
                before
            }
            Begin::AtStart => (0, 0),
        };
        let (ordered, mut ready) = (Instant::now(), None);
        let mut trial = Trial::new(&outcome.before);
        loop {
            Timer::after(trial::ROUND).await;
            if self.broker.ends.get() != ends {
                return Some(format!("the broker ended on it: {}", self.broker.reason.borrow()));
            }
            // Until the new one has said so, the old one may answer.
            if self.broker.readies.get() != readies {
                ready.get_or_insert_with(Instant::now);
                let is_enough = if begin == Begin::AtStart && self.is_cut_off(&outcome.before) {
                    trial.note(Some(CUT_OFF.to_owned()))
                } else {
                    trial.take(readiness::ask(Path::new(CONTROL_SOCKET)).await)
                };
                if is_enough {
                    return None;
                }
            }
            if let Some(bound) = trial::overdue(ordered.elapsed(), ready.map(|ready| ready.elapsed())) {
                return Some(format!("not ready within {} s: {}", bound.as_secs(), trial.reason()));
            }
        }
    }

    /// Has the supervisor run the broker on this folder.
    async fn run(&self, folder: PathBuf, is_trial: bool) {
        self.broker.serve(folder, is_trial);
        let _ = self.orders.send(Order::Restart).await;
    }

    /// Remembers how it ended, if it can.
    async fn note(&self, outcome: Option<Outcome>, state: UpdateState, text: &str) {
        let Some(outcome) = outcome else { return };
        let (outcome, path) = (Outcome { state, text: text.to_owned(), ..outcome }, self.site.outcome.clone());
        let written = aside(move || outcome.write(&path)).await;
        if let Err(error) = written.and_then(|written| written) {
            log::error!("{}: {error}", self.site.outcome.display());
        }
    }
}

#[cfg(test)]
mod tests;
