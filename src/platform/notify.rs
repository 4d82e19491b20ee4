//! What the service manager is told, `sd_notify(3)`: datagrams to the socket that `NOTIFY_SOCKET` names.

use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// The service manager, or nobody.
#[derive(Debug)]
pub struct ServiceManager {
    socket: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl ServiceManager {
    /// Whoever started this process, as the environment says.
    #[must_use]
    pub fn from_environment() -> Self {
        let text = |name: &str| std::env::var(name).ok();
        let name = text("NOTIFY_SOCKET");
        let is_for_us = text("WATCHDOG_PID").is_none_or(|pid| pid == std::process::id().to_string());
        let microseconds = text("WATCHDOG_USEC").and_then(|text| text.parse().ok()).filter(|_| is_for_us);
        Self::new(name.as_deref(), microseconds.map(Duration::from_micros))
    }

    /// The one that listens at `name`: a path, or an abstract name behind `@`. Its watchdog allows for so much time.
    #[must_use]
    pub fn new(name: Option<&str>, watchdog: Option<Duration>) -> Self {
        let socket = name.and_then(connect);
        let watchdog = watchdog.filter(|limit| !limit.is_zero() && socket.is_some());
        Self { socket, watchdog }
    }

    /// How long it may take from one [`Self::alive`] to the next before the process is ended; `None`: it does not watch.
    #[must_use]
    pub const fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// The service is up.
    pub fn ready(&self) {
        self.tell("READY=1");
    }

    /// It reads its configuration again, at this time of the monotonic clock; [`Self::ready`] follows.
    pub fn reloading(&self) {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let microseconds = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1_000;
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={microseconds}"));
    }

    /// It comes to its end.
    pub fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    /// It has been seen working.
    pub fn alive(&self) {
        self.tell("WATCHDOG=1");
    }

    /// An update for PID 1 of the image lies in the state folder. The name is ours: `X_` is for what sd_notify(3) does not know.
    pub fn update(&self) {
        self.tell("X_PORTCULLIS_UPDATE=1");
    }

    /// What it says of itself, one line without control characters.
    pub fn status(&self, line: &str) {
        self.tell(&format!("STATUS={}", line.replace(char::is_control, " ")));
    }

    fn tell(&self, state: &str) {
        if let Some((socket, manager)) = &self.socket {
            // One that does not listen can be told nothing, not even that.
            let _ = socket.send_to_addr(state.as_bytes(), manager);
        }
    }
}

/// A socket that waits for nobody, and the manager's address.
fn connect(name: &str) -> Option<(UnixDatagram, SocketAddr)> {
    let address = match name.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name).ok()?,
        None => SocketAddr::from_pathname(name).ok()?,
    };
    let socket = UnixDatagram::unbound().ok()?;
    socket.set_nonblocking(true).ok()?;
    Some((socket, address))
}
