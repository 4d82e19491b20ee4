//! How the gateway is: what its probe has found, and what else somebody would be woken for.
//!
//! Two questions are told apart. It is *alive* if the loop turns; a supervisor that restarts it may go by that. It is *ready* if
//! every check is passed; who sends traffic, or decides whether an update is kept, goes by that. What the machine says of itself is
//! shown as a check, but decides nothing: an update that is tried where no cable is in would never be kept.

use super::facts::{CertificateFacts, Facts, ListenerFacts};
use super::machine::MachineReport;
use super::probe::{HealthState, ProbeReport};
use crate::broker::StoreState;
use crate::config::blob::ClockPolicy;
use crate::net::{SystemNetwork, Transport, Turn};
use crate::time::Now;

/// One question, and its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// What is looked at.
    pub name: &'static str,
    /// Whether it is as it should be.
    pub is_ok: bool,
    /// Whether readiness depends on it.
    pub decides: bool,
    /// What was seen.
    pub detail: String,
}

/// All checks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// The worst of the probe's state and of the checks.
    pub state: HealthState,
    /// The checks, always the same ones in the same order; that of the machine is last, where there is one.
    pub checks: Vec<Check>,
}

impl Health {
    /// Looks at a broker between two turns.
    #[must_use]
    pub fn look(turn: &mut Turn<SystemNetwork>, now: Now, facts: &Facts, probe: &ProbeReport) -> Self {
        let checks = vec![
            of_probe(facts, probe),
            of_listeners(turn, facts),
            of_store(turn),
            of_clock(turn, now, facts),
            of_certificates(turn, now, facts),
        ];
        let found = if checks.iter().all(|check| check.is_ok) { HealthState::Available } else { HealthState::Degraded };
        // Without a probe nobody knows how the broker is; that is no reason to call it unwell.
        let state = if facts.probes { probe.state.max(found) } else { found };
        Self { state: if facts.probes && probe.rounds == 0 { HealthState::Unknown } else { state }, checks }
    }

    /// Adds what the machine says of itself, if it does.
    #[must_use]
    pub fn with_machine(mut self, machine: Option<&MachineReport>) -> Self {
        let Some(machine) = machine else { return self };
        let is_ok = machine.notices.is_empty();
        let detail = if is_ok { "has nothing to tell".to_owned() } else { machine.notices.join("; ") };
        self.checks.push(Check { name: "machine", is_ok, decides: false, detail });
        if !is_ok && self.state == HealthState::Available {
            self.state = HealthState::Degraded;
        }
        self
    }

    /// Whether every check that decides is passed.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.checks.iter().all(|check| check.is_ok || !check.decides)
    }
}

fn check(name: &'static str, is_ok: bool, detail: impl Into<String>) -> Check {
    Check { name, is_ok, decides: true, detail: detail.into() }
}

fn of_probe(facts: &Facts, probe: &ProbeReport) -> Check {
    if !facts.probes {
        return check("probe", true, "switched off");
    }
    match probe.state {
        HealthState::Unknown => check("probe", false, "has not been around yet"),
        HealthState::Available => check("probe", true, "the broker answers as it should"),
        HealthState::Degraded | HealthState::Unavailable => check("probe", false, probe.reason.clone()),
    }
}

fn of_listeners(turn: &Turn<SystemNetwork>, facts: &Facts) -> Check {
    let waiting: Vec<&str> = (0..)
        .zip(&facts.listeners)
        .filter(|(port, _)| matches!(turn.transport_of(*port), Some(Transport::AwaitsCertificate) | None))
        .map(|(_, listener)| listener.name.as_str())
        .collect();
    if waiting.is_empty() {
        let count = facts.listeners.len();
        return check("listeners", true, format!("{count} port{} open", if count == 1 { "" } else { "s" }));
    }
    check("listeners", false, format!("no certificate to listen with: {}", waiting.join(", ")))
}

fn of_store(turn: &mut Turn<SystemNetwork>) -> Check {
    let (is_ok, detail) = match turn.broker().store_state() {
        StoreState::Off => (true, "nothing is kept over a restart"),
        StoreState::Sound => (true, "written and synced"),
        StoreState::Full => (false, "full: what is new and must be safe is refused"),
        StoreState::Rewriting => (false, "is being written anew; what must be safe waits"),
        StoreState::Failed => (false, "the disk has failed; what must be safe is refused"),
    };
    check("store", is_ok, detail)
}

fn of_clock(turn: &Turn<SystemNetwork>, now: Now, facts: &Facts) -> Check {
    let is_set = turn.clock_is_set(now);
    match (is_set, facts.clock_policy) {
        (true, _) => check("clock", true, format!("set, {}", now.unix)),
        (false, ClockPolicy::AssumeBuildDate) => {
            check("clock", true, "not set; certificates are judged as of the build date")
        }
        (false, ClockPolicy::Enforce) => {
            check("clock", false, format!("not set, {}: clients with certificates are put off", now.unix))
        }
    }
}

fn of_certificates(turn: &Turn<SystemNetwork>, now: Now, facts: &Facts) -> Check {
    if !turn.clock_is_set(now) {
        return check("certificates", true, "not judged while the clock is not set");
    }
    let served = (0..).zip(&facts.listeners).filter_map(|(port, listener)| {
        let certificate = server_certificate(turn.transport_of(port), listener)?;
        // What the gateway issues itself it renews in time, whatever that is.
        let days = if listener.renews_itself { 0 } else { facts.ready_certificate_days };
        Some((certificate.not_after, days, certificate))
    });
    let Some((ends, days, certificate)) =
        served.min_by_key(|(ends, days, _)| ends.0.saturating_sub(u64::from(*days) * 86_400))
    else {
        return check("certificates", true, "none are served");
    };
    let is_ok = ends > now.unix.plus_seconds(u64::from(days) * 86_400);
    check("certificates", is_ok, format!("'{}' ends {ends}", certificate.name))
}

/// The certificate that a port shows; `None` where there is none.
#[must_use]
pub fn server_certificate(transport: Option<&Transport>, listener: &ListenerFacts) -> Option<CertificateFacts> {
    match transport {
        Some(Transport::Tls(tls)) => {
            CertificateFacts::new(listener.secret.as_deref().unwrap_or(&listener.name), tls.certificate())
        }
        Some(Transport::Plain | Transport::AwaitsCertificate) | None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_machine_has_to_tell_degrades_and_decides_nothing() {
        let health = |state, is_ok| Health { state, checks: vec![check("store", is_ok, "")] };
        let silent = MachineReport::default();
        let told = MachineReport { notices: vec!["network: no cable".to_owned()], ..MachineReport::default() };
        for (state, is_ok, machine, expected, ready, checks) in [
            (HealthState::Available, true, None, HealthState::Available, true, 1),
            (HealthState::Available, true, Some(&silent), HealthState::Available, true, 2),
            (HealthState::Available, true, Some(&told), HealthState::Degraded, true, 2),
            (HealthState::Unknown, true, Some(&told), HealthState::Unknown, true, 2),
            (HealthState::Unavailable, false, Some(&told), HealthState::Unavailable, false, 2),
        ] {
            let health = health(state, is_ok).with_machine(machine);
            assert_eq!((health.state, health.is_ready(), health.checks.len()), (expected, ready, checks));
        }
    }
}
