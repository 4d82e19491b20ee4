//! Where everything is that an update has to do with, and taking one up to where its trial begins.
//!
//! This is what the thread of an update works with; nothing here waits for anybody but the card.

use super::super::boot_state::{BootState, Slot};
use super::super::disk::{Card, Device};
use super::super::machine::Image;
use super::super::seed;
use super::configuration::{self, Begin, Filling};
use super::offer::Offer;
use super::outcome::{Outcome, SILENCE};
use super::refusal::Refusal;
use super::trial::Excuse;
use super::{Progress, system};
use crate::bundle::{Kind, UpdateState};
use core::sync::atomic::{AtomicU64, Ordering};
use std::io;
use std::path::PathBuf;

/// Where everything is that an update has to do with.
#[derive(Clone, Debug)]
pub struct Site {
    /// The card; `None`: it has no two slots.
    pub card: Option<Card>,
    /// The system slot that runs.
    pub running: Option<Slot>,
    /// Whether it is on trial.
    pub is_trial: bool,
    /// The image's key for updates.
    pub key: Option<[u8; 32]>,
    /// The image that runs.
    pub image: Image,
    /// The broker's state folder.
    pub state: PathBuf,
    /// The folder of configurations.
    pub configurations: PathBuf,
    /// Where the outcome is remembered.
    pub outcome: PathBuf,
    /// Whether the data partition keeps what is written.
    pub is_kept: bool,
    /// The broker's user and group.
    pub owner: u32,
}

/// What was taken and is to be tried.
#[derive(Debug)]
pub enum Taken {
    /// A system, at the next start.
    System,
    /// A configuration, now.
    Configuration(Outcome),
    /// A configuration with other network settings, at the next start.
    ConfigurationAtStart,
}

impl Site {
    /// Takes what the broker has received, up to where its trial begins. `before` is what is amiss already.
    ///
    /// # Errors
    /// Why not. What was in force is, whatever has happened until then.
    pub fn take(&self, before: Vec<Excuse>, gauge: &Gauge) -> Result<Taken, Refusal> {
        if !self.is_kept {
            return Err(Refusal::NotKept);
        }
        let mut offer = Offer::open(&self.state)?;
        let manifest = offer.manifest().clone();
        gauge.begin(manifest.version, manifest.bytes);
        offer.verify(self.key.as_ref(), &self.image.board)?;
        let noted = Refusal::io("the update cannot be noted");
        let outcome = |slot, text: &str| Outcome {
            state: UpdateState::Trial,
            kind: manifest.kind,
            slot,
            version: manifest.version,
            board: manifest.board.clone(),
            before: before.iter().cloned().map(|excuse| excuse.for_kind(manifest.kind)).collect(),
            text: text.to_owned(),
        };
        match offer.kind() {
            Kind::System => {
                let (Some(card), Some(running)) = (&self.card, self.running) else { return Err(Refusal::NoSlots) };
                let idle = running.other();
                let open = Refusal::io("the card cannot be opened");
                let disk = Device::open(&card.disk).map_err(&open)?;
                let confirmed = BootState::read(&disk).map_err(&open)?.floor.max(self.image.version);
                offer.must_exceed(confirmed)?;
                let slot = Device::open(card.slot(idle)).map_err(&open)?;
                offer.must_be_whole()?;
                log::info!("the system of version {} is being written to slot {idle}", manifest.version);
                system::write(offer.payload(), (running, self.is_trial), &disk, &slot, gauge)?;
                outcome(idle, SILENCE).write(&self.outcome).map_err(noted)?;
                system::switch(&disk, running)?;
                Ok(Taken::System)
            }
            Kind::Configuration => {
                let root = &self.configurations;
                let from = configuration::in_force(root).ok_or(Refusal::NoSlots)?;
                offer.must_exceed(configuration::version(root, from))?;
                offer.must_be_whole()?;
                log::info!(
                    "the configuration of version {} is being written to slot {}",
                    manifest.version,
                    from.other()
                );
                let filled = Filling { root, from, owner: self.owner, progress: gauge }.run(offer.payload())?;
                // Of one that cannot be read, nothing is in force either.
                let former = seed::read_blob(&configuration::folder(root, from)).ok().and_then(|former| former.network);
                let begin = if former == filled.network { Begin::Now } else { Begin::AtStart };
                let outcome = outcome(from.other(), "");
                outcome.write(&self.outcome).map_err(&noted)?;
                configuration::begin_trial(root, from.other(), begin).map_err(noted)?;
                Ok(match begin {
                    Begin::Now => Taken::Configuration(outcome),
                    Begin::AtStart => Taken::ConfigurationAtStart,
                })
            }
        }
    }

    /// The configuration slot in force, and the version of the update that filled it.
    pub fn in_force(&self) -> Option<(Slot, u64)> {
        let slot = configuration::in_force(&self.configurations)?;
        Some((slot, configuration::version(&self.configurations, slot)))
    }

    /// Makes the system that runs the confirmed one.
    ///
    /// # Errors
    /// It could not be written.
    pub fn confirm(&self) -> Result<(), Refusal> {
        let (Some(card), Some(running)) = (&self.card, self.running) else { return Err(Refusal::NoSlots) };
        let disk = Device::open(&card.disk).map_err(Refusal::io("the card cannot be opened"))?;
        system::confirm(&disk, running, self.image.version)
    }

    #[cfg(test)]
    pub(super) fn for_tests(folder: &std::path::Path) -> Self {
        Self {
            card: None,
            running: Some(Slot::A),
            is_trial: false,
            key: None,
            image: Image { board: "rpi3".to_owned(), version: 7, release: "0.1.0".to_owned() },
            state: folder.join("state"),
            configurations: folder.join("configuration"),
            outcome: folder.join("update/outcome"),
            is_kept: true,
            owner: rustix::process::getuid().as_raw(),
        }
    }
}

/// How far it has come; read by the executor while the thread writes.
#[derive(Debug, Default)]
pub struct Gauge {
    version: AtomicU64,
    of_bytes: AtomicU64,
    bytes: AtomicU64,
}

impl Gauge {
    fn begin(&self, version: u64, bytes: u64) {
        self.version.store(version, Ordering::Relaxed);
        self.of_bytes.store(bytes, Ordering::Relaxed);
    }

    /// Of the bundle; 0: its header has not been read.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Relaxed)
    }

    /// In words.
    pub fn shown(&self) -> String {
        let (bytes, of_bytes) = (self.bytes.load(Ordering::Relaxed), self.of_bytes.load(Ordering::Relaxed));
        if bytes == 0 || bytes == of_bytes {
            return "it is being checked".to_owned();
        }
        format!("{} of {} KiB are written", bytes >> 10, of_bytes >> 10)
    }
}

impl Progress for Gauge {
    fn advanced(&self, bytes: u64) -> io::Result<()> {
        self.bytes.store(bytes, Ordering::Relaxed);
        Ok(())
    }
}
