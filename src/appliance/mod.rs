//! What runs before and around the broker on a gateway that has nothing else: PID 1 of the SD-card image.
//!
//! Comes in: a kernel that has unpacked the initramfs of a boot slot. Goes out: a mounted data partition, a network, a clock, and
//! the broker as an unprivileged child under the contract that a service manager has with it (`NOTIFY_SOCKET`, `WATCHDOG_USEC`,
//! `STATE_DIRECTORY`), started again when it ends or hangs.
//!
//! **Invariant:** the broker is started whatever else fails. No cable, no clock, no data partition, a settings file that cannot be
//! read: each is said on the console, and the gateway serves as far as it can.
//!
//! **Invariant:** nothing of the system is writable but `/data`. What power takes away at any moment is what was not acknowledged.
//!
//! It deliberately has no shell (but in a rescue image), no login and no way in from the network. It does not set the clock from a file: whether a clock
//! that starts in the past may be believed is the broker's to judge (`clockPolicy`), so only a time server sets it. It does not
//! grow or repair file systems: no system call without `unsafe` does.

mod archive;
mod dhcp;
mod modules;
mod mounts;
mod network;
mod power;
mod rescue;
mod route;
mod seed;
mod settings;
mod sntp;
mod supervisor;

use crate::platform;
use log::LevelFilter;
use power::Ending;
use settings::Settings;
use smol::LocalExecutor;
use std::path::Path;
use std::process;

/// User and group that the broker runs as.
const BROKER_USER: u32 = 1_000;

/// Brings the machine up, serves until it is told to end, and takes it down. Returns only where it cannot: not as PID 1.
pub fn run() {
    if process::id() != 1 {
        // Mounting and rebooting are not for somebody's workstation.
        return;
    }
    let early = mounts::system();
    platform::install(platform::Levels::from(LevelFilter::Info));
    early.iter().for_each(|fault| log::error!("{fault}"));
    log::info!("portcullis {} on {}", env!("CARGO_PKG_VERSION"), kernel());
    modules::load();
    let parameters = settings::kernel_parameters();
    let parts = mounts::find_partitions();
    let settings = mounts::read_first(&parts, Path::new(seed::SEED));
    let settings = settings.map_or_else(Settings::default, |text| Settings::parse(&text));
    let name = settings.hostname.as_deref().unwrap_or("portcullis");
    if let Err(error) = rustix::system::sethostname(name.as_bytes()) {
        log::warn!("the host name cannot be set: {error}");
    }
    let data = mounts::data(&parts);
    let folders = seed::prepare(data);
    supervisor::limit();

    let network = network::Network::default();
    let executor = LocalExecutor::new();
    // Loopback first: the broker binds it at once.
    network::loopback_up();
    if parameters.watchdog {
        executor.spawn(power::feed_watchdog()).detach();
    }
    executor.spawn(rescue::keep()).detach();
    executor.spawn(network::keep(&settings, &network)).detach();
    executor.spawn(sntp::keep(&settings, &network)).detach();
    let ending = smol::block_on(executor.run(supervisor::keep(&folders)));
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

/// The kernel's release, as it says it.
fn kernel() -> String {
    mounts::text("/proc/sys/kernel/osrelease").unwrap_or_default()
}
