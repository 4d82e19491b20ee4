//! What runs before and around the broker on a gateway that has nothing else: PID 1 of the SD-card image.
//!
//! Comes in: a kernel that has unpacked the initramfs of a boot slot. Goes out: a mounted data partition, a network, a clock, and
//! the broker as an unprivileged child under the contract that a service manager has with it (`NOTIFY_SOCKET`, `WATCHDOG_USEC`,
//! `STATE_DIRECTORY`, `RUNTIME_DIRECTORY`), started again when it ends or hangs. And updates of the system and of the
//! configuration, which the broker receives and PID 1 judges, writes, tries, and keeps or takes back (`update`).
//!
//! **Invariant:** the broker is started whatever else fails. No cable, no clock, no data partition, a settings file that cannot be
//! read: each is said on the console, and the gateway serves as far as it can.
//!
//! **Invariant:** nothing of the card is written but the data partition, in an update the slot that does not run, and the boot
//! state, 4 KiB twice from 1 MiB on, outside of all partitions. What power takes away at any moment is what was not
//! acknowledged.
//!
//! It deliberately has no shell (but in a rescue image), no login and no way in from the network. It does not set the clock from a
//! file: whether a clock that starts in the past may be believed is the broker's to judge (`clockPolicy`), so only a time server
//! sets it. It does not grow or repair file systems: no system call without `unsafe` does.

mod boot_state;
mod dhcp;
mod disk;
mod machine;
mod modules;
mod mounts;
mod network;
mod power;
mod readiness;
mod rescue;
mod route;
#[cfg(test)]
mod scratch;
mod seed;
mod settings;
mod sntp;
mod supervisor;
mod tree;
mod update;

use crate::platform;
use log::LevelFilter;
use machine::{Area, Configuration, Image, Machine};
use mounts::{Data, Partitions};
use power::Ending;
use settings::{Parameters, Settings};
use smol::{LocalExecutor, channel};
use std::path::Path;
use std::process;
use supervisor::{Broker, Ways};
use update::{Site, Update};

/// User and group that the broker runs as.
const BROKER_USER: u32 = 1_000;
/// The image's key for updates: 32 bytes, RFC 8032 §5.1.5. Absent: it takes none.
const UPDATE_KEY: &str = "/etc/portcullis-update.key";
/// How the last update ended.
const OUTCOME: &str = "/data/update/outcome";

/// Brings the machine up, serves until it is told to end, and takes it down. Returns only where it cannot: not as PID 1.
pub fn run() {
    if process::id() != 1 {
        // Mounting and rebooting are not for somebody's workstation.
        return;
    }
    let early = mounts::system();
    platform::install(platform::Levels::from(LevelFilter::Info));
    early.iter().for_each(|fault| log::error!("{fault}"));
    let image = Image::of_this_system();
    log::info!("portcullis {} on {}", env!("CARGO_PKG_VERSION"), kernel());
    modules::load();
    let parameters = Parameters::of_this_kernel();
    let machine = Machine::new(Path::new(machine::FILE), image.clone(), parameters.slot, parameters.is_trial);
    let parts = mounts::find_partitions();
    let (mut settings, left_out) =
        mounts::read_first(&parts, Path::new(seed::SEED)).map(|text| Settings::parse(&text)).unwrap_or_default();
    for fault in left_out {
        log::warn!("gateway.cfg, {fault}");
        machine.notice(Area::Settings, format!("gateway.cfg, {fault}"));
    }
    let data = mounts::data(&parts);
    machine.set_data(data);
    if let Some(notice) = data.notice() {
        machine.notice(Area::Data, notice);
    }
    let folders = seed::prepare(data);
    let site = site(&parts, parameters, image, &folders, data);
    let start = update::begin(&site);
    machine.set_update(start.update.clone());
    if let Some(notice) = &start.notice {
        log::error!("{notice}");
        machine.notice(Area::Update, notice.as_str());
    }
    let configuration = start.on_trial(&site).unwrap_or_else(|| folders.configuration.clone());
    configure(&folders, &configuration, &site, &machine, &mut settings);
    let name = settings.hostname.as_deref().unwrap_or("portcullis");
    if let Err(error) = rustix::system::sethostname(name.as_bytes()) {
        log::warn!("the host name cannot be set: {error}");
    }
    supervisor::limit();

    let network = network::Network::default();
    let broker = Broker::new(configuration, start.configuration.is_some());
    let (orders, bell) = (channel::bounded(2), channel::bounded(1));
    let updates =
        Update { site, machine: &machine, network: &network, broker: &broker, orders: orders.0.clone(), bell: bell.1 };
    let executor = LocalExecutor::new();
    // Loopback first: the broker binds it at once.
    network::loopback_up();
    if parameters.watchdog {
        executor.spawn(power::feed_watchdog()).detach();
    }
    executor.spawn(rescue::keep()).detach();
    executor.spawn(network::keep(&settings, &network, &machine)).detach();
    executor.spawn(sntp::keep(&settings, &network, &machine)).detach();
    executor.spawn(mounts::watch_data(data, &machine)).detach();
    executor.spawn(updates.keep(start)).detach();
    let ways = Ways { orders, bell: bell.0 };
    let ending = smol::block_on(executor.run(supervisor::keep(&folders, &broker, ways)));
    drop(executor);
    log::info!(
        "{}",
        match ending {
            Ending::Reboot => "starting again",
            Ending::PowerOff => "switching off",
        }
    );
    power::end(ending);
}

/// Where updates find everything.
fn site(parts: &Partitions, parameters: Parameters, image: Image, folders: &seed::Folders, data: Data) -> Site {
    Site {
        card: parts.boot.as_deref().and_then(disk::Card::of),
        running: parameters.slot,
        is_trial: parameters.is_trial,
        key: std::fs::read(UPDATE_KEY).ok().and_then(|key| key.try_into().ok()),
        image,
        state: folders.state.clone(),
        configurations: seed::CONFIGURATIONS.into(),
        outcome: OUTCOME.into(),
        is_kept: data == Data::Kept,
        owner: BROKER_USER,
    }
}

/// Completes the settings of the card with those of the configuration in this folder: the one in force, or on trial.
fn configure(folders: &seed::Folders, folder: &Path, site: &Site, machine: &Machine, settings: &mut Settings) {
    machine.set_configuration(match site.in_force().filter(|_| !folders.is_of_image()) {
        Some((slot, version)) => Configuration::InSlot(slot, version),
        None => Configuration::OfImage,
    });
    match seed::read_blob(folder) {
        Ok(configuration) => {
            let otherwise = configuration.network.map(|network| settings.complete(&network)).unwrap_or_default();
            if !otherwise.is_empty() {
                log::warn!("gateway.cfg says otherwise than the configuration, and wins: {}", otherwise.join(", "));
            }
        }
        // The broker says more of it, and runs on the last good one.
        Err(error) => {
            let fault = format!("the configuration in force cannot be used: {error}");
            log::error!("{fault}");
            machine.notice(Area::Configuration, fault);
        }
    }
}

/// The kernel's release, as it says it.
fn kernel() -> String {
    mounts::text("/proc/sys/kernel/osrelease").unwrap_or_default()
}
