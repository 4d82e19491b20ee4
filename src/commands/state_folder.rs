//! What a broker brings back from its state folder at start, and how it goes on there.

use super::CommandError;
use super::paths::Paths;
use crate::broker::{Broker, Durability, Restored};
use crate::config::blob::Configuration;
use crate::net::{ClockTrust, Store};
use crate::service;
use crate::store::{Folder, Journal, RecoveryError, Report, Sizes, recover};
use crate::time::Now;
use std::io;
use std::path::Path;

/// Fills the broker's tables with what the state folder has, and starts the thread that writes to it. `None`: nothing is kept.
///
/// # Errors
/// [`CommandError::CannotStart`] when the folder cannot be used: somebody else uses it, it may not be written to, or a newer
/// version wrote it. Damage is no error: it is said, and what is intact is served.
pub fn bring_back(
    configuration: &Configuration,
    paths: &Paths,
    judges: u64,
    clock_trust: ClockTrust,
    now: Now,
    broker: &mut Broker,
) -> Result<Option<Store>, CommandError> {
    let persistence = &configuration.persistence;
    let Some(folder) = paths.state.as_deref().filter(|_| !persistence.is_off()) else {
        log::info!("nothing is kept over a restart: no sessions, queues or retained messages");
        return Ok(None);
    };
    let cannot = |fault: &dyn core::fmt::Display| {
        CommandError::CannotStart(format!("state folder {}: {fault}", folder.display()))
    };
    let disk = take(folder).map_err(|fault| cannot(&fault))?;
    let record_bytes = Broker::record_bytes_max(&configuration.board.capacities);
    let sizes = Sizes::new(persistence.size_bytes, Journal::buffer_bytes(record_bytes));
    let begin = std::time::Instant::now();
    let mut recovered = recover(disk, sizes).map_err(|error| match error {
        RecoveryError::Io(error) => cannot(&advice(&error)),
        newer => cannot(&newer),
    })?;
    let (last, room) = (recovered.last, recovered.log.room());
    broker.set_durability(Durability::new(record_bytes, persistence.clone(), judges, sizes, last, room));
    let trusted = clock_trust.believes(now.unix, false);
    broker.set_clock(now, trusted);
    let restored = broker.restore(now, trusted, &mut recovered).map_err(|error| cannot(&advice(&error)))?;
    broker.telemetry().counters.store_damaged = recovered.report.missing;
    say(folder, &recovered.report, recovered.image.orphans, &restored, begin.elapsed().as_millis());
    let store = service::spawn_store(recovered.log).map_err(|error| cannot(&error))?;
    Ok(Some(store))
}

fn take(folder: &Path) -> Result<Folder, String> {
    Folder::take(folder).map_err(|error| match error.kind() {
        io::ErrorKind::WouldBlock => "another broker is running on it".to_owned(),
        _ => advice(&error),
    })
}

/// What the system says, and what can be done about it.
fn advice(error: &io::Error) -> String {
    format!(
        "{error}; sessions and messages could not be kept there: make it writable, name another one with --state, or switch \
         `persistence` of the Broker off"
    )
}

fn say(folder: &Path, report: &Report, orphans: u64, restored: &Restored, milliseconds: u128) {
    for damage in &report.damages {
        log::error!("store: damaged: {damage}");
    }
    if report.missing > 0 {
        log::error!(
            "store: {} records in all are damaged, and {orphans} deliveries and retained messages lost with them; everything \
             else is there",
            report.missing
        );
    }
    let Restored { sessions, subscriptions, deliveries, retained, left_out } = restored;
    if *left_out > 0 {
        log::error!(
            "store: {left_out} sessions, subscriptions or messages do not fit the tables of this board and are gone"
        );
    }
    log::info!(
        "store: {} has {sessions} sessions, {subscriptions} subscriptions, {deliveries} waiting and {retained} retained \
         messages ({} records, {} KiB, read in {milliseconds} ms)",
        folder.display(),
        report.records,
        report.bytes / 1_024
    );
}
