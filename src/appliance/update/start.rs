//! What is found of the last update when the machine starts: a trial that begins, one that ended badly, one that the power ended.

use super::super::boot_state::BootState;
use super::super::disk::Device;
use super::super::machine::Update;
use super::configuration::{self, Interrupted};
use super::offer;
use super::outcome::{Outcome, SILENCE};
use super::site::Site;
use crate::bundle::{Kind, UpdateState};
use std::io;
use std::path::PathBuf;

/// What is said of an update that the power ended before anything of it could be tried.
const CUT: &str = "the power went while it was being taken: send it again";

/// What the machine starts with.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Start {
    /// How it stands with the last update.
    pub update: Update,
    /// What a person must be told of it.
    pub notice: Option<String>,
    /// A trial of the system that runs, with what is remembered of it; `Some(None)`: nothing is.
    pub trial: Option<Option<Outcome>>,
    /// A trial of a configuration that begins with this start.
    pub configuration: Option<Outcome>,
}

impl Start {
    /// The folder of the configuration on trial.
    pub fn on_trial(&self, site: &Site) -> Option<PathBuf> {
        self.configuration.as_ref().map(|outcome| configuration::folder(&site.configurations, outcome.slot))
    }
}

/// Looks at the card, and ends what power has left behind. To be called before the broker is started.
pub fn begin(site: &Site) -> Start {
    let boot = match site.boot_state() {
        Ok(boot) => boot,
        Err(error) => {
            log::error!("the boot state cannot be read: {error}");
            BootState::default()
        }
    };
    let mut interrupted = Interrupted::No;
    let mut outcome = Outcome::read(&site.outcome);
    if site.is_kept {
        interrupted = configuration::recover(&site.configurations).unwrap_or_else(|error| {
            log::error!("the trial of a configuration cannot be ended: {error}");
            Interrupted::No
        });
    }
    let mut start = judge(boot, site, outcome.as_ref(), interrupted);
    if matches!(interrupted, Interrupted::Due(_))
        && start.configuration.is_none()
        && let Err(error) = configuration::end_trial(&site.configurations)
    {
        log::error!("the trial of a configuration cannot be ended: {error}");
    }
    let is_left = offer::remove(&site.state);
    if is_left && !matches!(start.update.state, UpdateState::Trial | UpdateState::Back) {
        start.update = Update { state: UpdateState::Refused, version: 0, text: CUT.to_owned() };
    }
    // What was found out now is what is remembered.
    if let Some(outcome) = outcome.as_mut().filter(|outcome| outcome.state == UpdateState::Trial)
        && start.trial.is_none()
        && start.configuration.is_none()
        && site.is_kept
    {
        (outcome.state, outcome.text) = (start.update.state, start.update.text.clone());
        if let Err(error) = outcome.write(&site.outcome) {
            log::error!("{}: {error}", site.outcome.display());
        }
    }
    start
}

impl Site {
    /// What the boot loader was told, with torn copies mended; one that was not taken up is taken back.
    fn boot_state(&self) -> io::Result<BootState> {
        let (Some(card), Some(_)) = (&self.card, self.running) else { return Ok(BootState::default()) };
        let disk = match Device::open(&card.disk) {
            Ok(disk) => disk,
            // A card that refuses writing still says what it says.
            Err(_) => return BootState::read(&Device::open_to_read(&card.disk)?),
        };
        let found = BootState::read(&disk)?;
        let is_left = found.once.is_some() && !self.is_trial;
        let mended = match is_left {
            // Otherwise it would be tried at some start to come, when nobody expects it.
            true => BootState { once: None, ..found }.write(&disk),
            false => BootState::heal(&disk).map(|_| ()),
        };
        if let Err(error) = mended {
            log::error!("the boot state cannot be written: {error}");
        }
        Ok(found)
    }
}

/// What all of it means.
fn judge(boot: BootState, site: &Site, outcome: Option<&Outcome>, interrupted: Interrupted) -> Start {
    let mut start = of_systems(boot, site, outcome);
    let of_configuration = outcome.filter(|outcome| outcome.kind == Kind::Configuration);
    // A system on trial has the word. Otherwise one of a configuration came later, or it would not be what is remembered.
    if let Some(outcome) = of_configuration.filter(|_| start.trial.is_none()) {
        judge_configuration(&mut start, site, outcome, interrupted);
    }
    start
}

/// What it means of systems.
fn of_systems(boot: BootState, site: &Site, outcome: Option<&Outcome>) -> Start {
    let Some(running) = site.running else { return Start { update: of(outcome), ..Start::default() } };
    let of_system = outcome.filter(|outcome| outcome.kind == Kind::System);
    if site.is_trial {
        let text = "it must be ready before it is kept".to_owned();
        let update = Update { state: UpdateState::Trial, version: site.image.version, text };
        return Start { update, trial: Some(of_system.cloned()), ..Start::default() };
    }
    let mut start = Start::default();
    // The boot state says what became of a system, whatever else is remembered.
    let went_back = match (boot.tried, boot.once) {
        (Some(slot), _) if slot != running => {
            let told = of_system.filter(|outcome| outcome.slot == slot);
            Some((slot, told.map_or(SILENCE, |outcome| outcome.text.as_str())))
        }
        (_, Some(slot)) => Some((slot, "the boot loader could not start it")),
        (Some(_) | None, None) => None,
    };
    if boot.slot != running {
        let confirmed = boot.slot;
        start.notice =
            Some(format!("the system in slot {confirmed} does not start any more: this is the one before it"));
    }
    if let Some((slot, reason)) = went_back {
        start.notice = Some(format!("the update in slot {slot} did not get well: {reason}"));
        let version = of_system.filter(|outcome| outcome.slot == slot).map_or(0, |outcome| outcome.version);
        start.update = Update { state: UpdateState::Back, version, text: reason.to_owned() };
    } else if let Some(outcome) = of_system {
        start.update = match outcome.state {
            UpdateState::Trial if outcome.slot == running => kept(outcome),
            // Nothing was switched.
            UpdateState::Trial => {
                Update { state: UpdateState::Refused, version: outcome.version, text: CUT.to_owned() }
            }
            _ => of(Some(outcome)),
        };
    }
    start
}

/// What it means of a configuration.
fn judge_configuration(start: &mut Start, site: &Site, outcome: &Outcome, interrupted: Interrupted) {
    start.update = match (outcome.state, interrupted) {
        (UpdateState::Trial, Interrupted::Kept(slot)) if slot == outcome.slot => kept(outcome),
        (UpdateState::Trial, _) if configuration::in_force(&site.configurations) == Some(outcome.slot) => kept(outcome),
        (UpdateState::Trial, Interrupted::Due(slot)) if slot == outcome.slot => {
            start.configuration = Some(outcome.clone());
            let text = "the broker must be ready on it, and the network there, before it is kept".to_owned();
            Update { state: UpdateState::Trial, version: outcome.version, text }
        }
        (UpdateState::Trial, Interrupted::Trial(_) | Interrupted::Due(_)) => {
            let text = "the power went while it was on trial".to_owned();
            start.notice = Some(format!("the configuration of version {} was not kept: {text}", outcome.version));
            Update { state: UpdateState::Back, version: outcome.version, text }
        }
        (UpdateState::Trial, Interrupted::No | Interrupted::Kept(_)) => {
            Update { state: UpdateState::Refused, version: outcome.version, text: CUT.to_owned() }
        }
        (_, _) => of(Some(outcome)),
    };
    if start.notice.is_none() && start.update.state == UpdateState::Back {
        start.notice = Some(format!("the configuration of version {} was not kept: {}", outcome.version, outcome.text));
    }
}

fn of(outcome: Option<&Outcome>) -> Update {
    outcome.map_or_else(Update::default, |outcome| Update {
        state: outcome.state,
        version: outcome.version,
        text: outcome.text.clone(),
    })
}

fn kept(outcome: &Outcome) -> Update {
    Update { state: UpdateState::Kept, version: outcome.version, text: String::new() }
}

#[cfg(test)]
mod tests {
    use super::super::super::boot_state::Slot;
    use super::*;
    use std::path::PathBuf;

    fn site(running: Slot, is_trial: bool) -> Site {
        Site { running: Some(running), is_trial, ..Site::for_tests(&PathBuf::from("/nowhere")) }
    }

    fn outcome(state: UpdateState, kind: Kind, slot: Slot) -> Outcome {
        Outcome {
            state,
            kind,
            slot,
            version: 8,
            board: "rpi3".to_owned(),
            before: Vec::new(),
            text: "store: full".to_owned(),
        }
    }

    fn found(boot: BootState, running: Slot, outcome: &Outcome) -> Start {
        judge(boot, &site(running, false), Some(outcome), Interrupted::No)
    }

    #[test]
    fn a_system_that_was_tried_and_not_confirmed_went_back_with_its_reason() {
        let boot = BootState { tried: Some(Slot::B), ..BootState::default() };
        let start = found(boot, Slot::A, &outcome(UpdateState::Back, Kind::System, Slot::B));
        assert_eq!(start.update, Update { state: UpdateState::Back, version: 8, text: "store: full".to_owned() });
        assert_eq!(start.notice.unwrap(), "the update in slot b did not get well: store: full");
        let start = judge(boot, &site(Slot::A, false), None, Interrupted::No);
        assert_eq!(start.update.text, SILENCE);
        let later = outcome(UpdateState::Kept, Kind::Configuration, Slot::A);
        let start = found(boot, Slot::A, &later);
        assert_eq!((start.update.state, start.notice.is_some()), (UpdateState::Kept, true), "both are told");
    }

    #[test]
    fn a_system_that_the_boot_loader_did_not_take_up_went_back() {
        let boot = BootState { once: Some(Slot::B), ..BootState::default() };
        let start = found(boot, Slot::A, &outcome(UpdateState::Trial, Kind::System, Slot::B));
        assert_eq!((start.update.state, start.update.version), (UpdateState::Back, 8));
        assert!(start.notice.unwrap().ends_with("the boot loader could not start it"));
    }

    #[test]
    fn power_that_goes_around_the_switch_or_the_confirmation_is_understood() {
        let trial = outcome(UpdateState::Trial, Kind::System, Slot::B);
        let start = found(BootState::default(), Slot::A, &trial);
        assert_eq!((start.update.state, start.update.text.as_str()), (UpdateState::Refused, CUT));
        let confirmed = BootState { slot: Slot::B, floor: 8, ..BootState::default() };
        assert_eq!(found(confirmed, Slot::B, &trial).update.state, UpdateState::Kept);
    }

    #[test]
    fn a_trial_is_what_the_boot_loader_says_it_is() {
        let boot = BootState { tried: Some(Slot::B), ..BootState::default() };
        let trial = outcome(UpdateState::Trial, Kind::System, Slot::B);
        let start = judge(boot, &site(Slot::B, true), Some(&trial), Interrupted::No);
        assert_eq!((start.update.state, start.trial), (UpdateState::Trial, Some(Some(trial))));
        let start = judge(boot, &site(Slot::B, true), None, Interrupted::No);
        assert_eq!(start.trial, Some(None));
    }

    #[test]
    fn a_confirmed_system_that_does_not_start_is_told() {
        let confirmed = BootState { slot: Slot::B, ..BootState::default() };
        let start = judge(confirmed, &site(Slot::A, false), None, Interrupted::No);
        assert!(start.notice.unwrap().starts_with("the system in slot b does not start any more"));
    }

    #[test]
    fn a_configuration_whose_trial_the_power_ended_was_not_kept() {
        let trial = outcome(UpdateState::Trial, Kind::Configuration, Slot::B);
        let with = |interrupted| judge(BootState::default(), &site(Slot::A, false), Some(&trial), interrupted);
        assert_eq!(with(Interrupted::Trial(Slot::B)).update.state, UpdateState::Back);
        assert!(with(Interrupted::Trial(Slot::B)).notice.is_some());
        assert_eq!(with(Interrupted::Kept(Slot::B)).update.state, UpdateState::Kept);
        assert_eq!(with(Interrupted::No).update.state, UpdateState::Refused);
    }

    #[test]
    fn a_configuration_whose_trial_is_due_is_tried_unless_a_system_is() {
        let trial = outcome(UpdateState::Trial, Kind::Configuration, Slot::B);
        let with = |site: &Site, slot| judge(BootState::default(), site, Some(&trial), Interrupted::Due(slot));
        let start = with(&site(Slot::A, false), Slot::B);
        assert_eq!((start.update.state, start.configuration.as_ref()), (UpdateState::Trial, Some(&trial)));
        assert!(with(&Site { running: None, ..site(Slot::A, false) }, Slot::B).configuration.is_some());
        let start = with(&site(Slot::A, true), Slot::B);
        assert_eq!((start.trial, start.configuration), (Some(None), None));
        let start = with(&site(Slot::A, false), Slot::A);
        assert_eq!((start.update.state, start.configuration), (UpdateState::Back, None));
    }
}
