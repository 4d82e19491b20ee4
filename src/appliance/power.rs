//! The machine's end, its power button, and the watchdog that ends it when nobody else can.

use super::mounts;
use super::supervisor::Order;
use async_io::{Async, Timer};
use rustix::fs::OFlags;
use rustix::system::{RebootCommand, reboot};
use smol::channel::Sender;
use smol::{LocalExecutor, future};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::OnceLock;
use std::time::Duration;

const WATCHDOG: &str = "/dev/watchdog0";
/// The Raspberry Pi's watchdog bites after 15 s.
const FEEDING: Duration = Duration::from_secs(4);
/// The watchdog in use. Whoever closes it without a word leaves it running.
static HARDWARE: OnceLock<File> = OnceLock::new();
/// How long the hardware may take to obey.
const OBEYING: Duration = Duration::from_secs(10);

/// How the machine is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// From the beginning.
    Reboot,
    /// Without power.
    PowerOff,
}

/// Feeds the hardware's watchdog as long as PID 1 turns. The broker has a watchdog of its own, in the supervisor: a broker that
/// hangs is no reason to take the machine down.
pub async fn feed_watchdog() {
    let mut watchdog = match OpenOptions::new().write(true).open(WATCHDOG) {
        Ok(file) => HARDWARE.get_or_init(|| file),
        Err(error) => return log::warn!("no hardware watchdog: {error}"),
    };
    log::info!("hardware watchdog: on");
    loop {
        if let Err(error) = watchdog.write_all(b".") {
            log::error!("the hardware watchdog cannot be fed: {error}");
        }
        Timer::after(FEEDING).await;
    }
}

/// Has all power buttons watched that are there.
pub fn watch_buttons(executor: &LocalExecutor<'_>, pressed: &Sender<Order>) {
    let Ok(devices) = fs::read_dir("/dev/input") else { return };
    for device in devices.flatten().filter(|device| device.file_name().to_string_lossy().starts_with("event")) {
        let open =
            OpenOptions::new().read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(device.path());
        if let Ok(button) = open.and_then(Async::new) {
            let pressed = pressed.clone();
            executor
                .spawn(async move {
                    if until_pressed(button).await.is_ok() {
                        // Who listens to it lives as long as this.
                        let _ = pressed.send(Order::End(Ending::PowerOff)).await;
                    }
                })
                .detach();
        }
    }
}

/// Bytes of `struct input_event`: a time of two machine words, type, code, value.
const EVENT_BYTES: usize = 2 * size_of::<usize>() + 8;

async fn until_pressed(button: Async<File>) -> io::Result<()> {
    loop {
        let mut events = [0; 16 * EVENT_BYTES];
        let length = button.read_with(|mut file| file.read(&mut events)).await?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if events.get(..length).unwrap_or_default().chunks_exact(EVENT_BYTES).any(is_press) {
            return Ok(());
        }
        future::yield_now().await;
    }
}

/// Whether an event is the power key going down.
fn is_press(event: &[u8]) -> bool {
    const KEY: [u8; 2] = 1_u16.to_ne_bytes();
    const POWER: [u8; 2] = 116_u16.to_ne_bytes();
    const DOWN: [u8; 4] = 1_i32.to_ne_bytes();
    let behind_time = event.get(EVENT_BYTES - 8..).unwrap_or_default();
    behind_time == [&KEY[..], &POWER, &DOWN].concat()
}

/// Takes the machine down. The broker has ended.
pub fn end(ending: Ending) {
    mounts::release_data();
    let command = match ending {
        Ending::Reboot => RebootCommand::Restart,
        Ending::PowerOff => {
            // A machine that is to stay off must not be woken by its watchdog; one that starts again may hang on the way.
            let _ = HARDWARE.get().map(|mut watchdog| watchdog.write_all(b"V"));
            RebootCommand::PowerOff
        }
    };
    if let Err(error) = reboot(command) {
        log::error!("the machine cannot be ended: {error}");
    }
    std::thread::sleep(OBEYING);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: u16, code: u16, value: i32) -> Vec<u8> {
        let time = [0; EVENT_BYTES - 8];
        [&time[..], &kind.to_ne_bytes(), &code.to_ne_bytes(), &value.to_ne_bytes()].concat()
    }

    #[test]
    fn only_the_power_key_going_down_counts() {
        assert!(is_press(&event(1, 116, 1)));
        for other in [event(1, 116, 0), event(1, 115, 1), event(0, 116, 1), Vec::new()] {
            assert!(!is_press(&other));
        }
    }
}
