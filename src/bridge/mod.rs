//! Bridges to other brokers: each is two clients back to back, one of this broker and one of the upstream.
//!
//! The client of this broker has a session that never ends, and acknowledges a message only when the upstream has done so. What
//! the upstream has not got is thus in the broker's queue and in its log, with their limits, their accounting and their
//! recovery: nothing is stored here. While the upstream is away that client is away too, and its session waits.
//!
//! In: a [`Bridge`], ways to both brokers ([`Surroundings`]), time by [`crate::upstream`]'s clock. Out: messages, and a
//! [`Status`]. Deliberately absent: QoS 2, which two sessions that end at different times cannot promise; retransmission, which
//! the broker does.
//!
//! **Invariant:** a message is acknowledged to whom it came from only after the other side has acknowledged it.

mod back_off;
mod crossing;
mod fault;
mod hops;
mod local;
mod noted;
mod status;
mod topics;
mod trial;
mod upstream;

pub use back_off::BackOff;
pub use hops::HOP;
pub use local::{Local, LocalFault};
pub use noted::{BYTES_MAX as NOTED_BYTES_MAX, Noted};
pub use status::{Counters, State, Status, Statuses};
pub use upstream::{IN_FLIGHT_MAX, UpstreamBuffers, UpstreamFault};

use crate::codec::ReasonCode;
use crate::config::blob::Bridge;
use core::cell::{Cell, RefCell};
use core::fmt;
use crossing::Rules;
use embassy_time::{Duration, Instant, Timer};
use fault::Fault;
use smol::io::{AsyncRead, AsyncWrite};
use status::is_worth_a_line;
use std::io;
use std::rc::Rc;
use trial::Trial;
use upstream::{Minimq, Upstream as _};

/// How long a connection must last for the next attempt to come soon after it.
const STEADY_SECONDS: u64 = 10;

/// The name by which a bridge is an insider of the broker ([`crate::broker::Insider::new`]).
#[must_use]
pub fn insider_name(bridge: &str) -> String {
    format!("bridge/{bridge}")
}

/// Bytes that a bridge takes beside the broker's tables: its buffers for packets, a TLS session, and its task.
#[must_use]
pub const fn memory_bytes(bridge: &Bridge) -> u64 {
    /// A handshake with its certificates, records on their way, and roots to check them with.
    const TLS_BYTES: u64 = 512 * 1_024;
    /// Texts of the settings, which each connection has of its own, and the task.
    const TASK_BYTES: u64 = 64 * 1_024;
    /// What crosses is copied for its properties and its name.
    const CROSSING_BYTES: u64 = 2 * 65_536;
    let local = bridge.remote.packet_bytes as u64 * 2;
    let tls = if bridge.remote.tls.is_some() { TLS_BYTES } else { 0 };
    UpstreamBuffers::bytes(bridge.remote.packet_bytes)
        + local
        + tls
        + TASK_BYTES
        + CROSSING_BYTES
        + 2 * NOTED_BYTES_MAX as u64
}

/// What a bridge needs of the world.
#[allow(async_fn_in_trait)] // one thread runs all of it
pub trait Surroundings {
    /// A connection to this broker.
    type Local: AsyncRead + AsyncWrite + Unpin;
    /// A connection to the upstream.
    type Remote: AsyncRead + AsyncWrite + Unpin;
    /// Connects to this broker.
    ///
    /// # Errors
    /// What the system says.
    async fn local(&self) -> io::Result<Self::Local>;
    /// The filters that the bridge's session has now.
    async fn filters(&self) -> Vec<String>;
    /// Connects to the address with this index, TLS included.
    ///
    /// # Errors
    /// Why not, for the log.
    async fn remote(&self, address: usize) -> Result<Self::Remote, String>;
    /// The password for the upstream, if it has one; read anew for each connection.
    ///
    /// # Errors
    /// Why there is none, for the log.
    fn password(&self) -> Result<Option<zeroize::Zeroizing<Vec<u8>>>, String>;
    /// What was kept of this bridge's past.
    fn noted(&self) -> Noted;
    /// Keeps that.
    fn note(&self, noted: &Noted);
    /// Seconds of the wall clock.
    fn unix(&self) -> u64;
}

/// A bridge at work.
pub struct Bridging<W> {
    bridge: Bridge,
    /// Client identifiers of all bridges of this gateway.
    own: Vec<String>,
    world: W,
    status: Rc<RefCell<Status>>,
    /// What is known of a message that the upstream has not taken.
    trial: Cell<Trial>,
    /// Times in a row that messages of the upstream were not taken for a while.
    pauses: Cell<u32>,
    /// Failures in a row, since a connection has lasted.
    in_a_row: Cell<u64>,
    noted: RefCell<Noted>,
}

impl<W: Surroundings> Bridging<W> {
    /// A bridge that has not begun; `own` are the client identifiers of all bridges of this gateway.
    #[must_use]
    pub fn new(bridge: Bridge, own: Vec<String>, world: W) -> Self {
        let noted = RefCell::new(world.noted());
        let status = Status { name: bridge.name.clone(), since_unix: world.unix(), ..Status::default() };
        Self {
            bridge,
            own,
            world,
            status: Rc::new(RefCell::new(status)),
            trial: Cell::default(),
            pauses: Cell::new(0),
            in_a_row: Cell::new(0),
            noted,
        }
    }

    /// What it is doing, for others; it goes on being true.
    #[must_use]
    pub fn status(&self) -> Rc<RefCell<Status>> {
        Rc::clone(&self.status)
    }

    /// Works for ever. Given up, it leaves both sessions as they are.
    pub async fn run(self, seed: u64) {
        let bridge = &self.bridge;
        let mut buffers = UpstreamBuffers::new(bridge.remote.packet_bytes);
        let mut back_off = BackOff::new(bridge.back_off_min_seconds, bridge.back_off_max_seconds, seed);
        let mut is_prepared = false;
        let mut address = 0;
        loop {
            if !is_prepared {
                match self.prepare().await {
                    Ok(()) => is_prepared = true,
                    Err(fault) => {
                        self.failed(&fault);
                        self.rest(&mut back_off).await;
                        continue;
                    }
                }
            }
            let begun = Instant::now();
            let fault = self.connection(address, &mut buffers).await;
            let was_connected = self.status.borrow().state == State::Connected;
            let has_lasted = was_connected && begun.elapsed() >= Duration::from_secs(STEADY_SECONDS);
            if has_lasted {
                self.in_a_row.set(0);
            }
            self.failed(&fault);
            // Its session may be the reason: without one, nothing would be queued while the upstream is away.
            is_prepared &= !matches!(fault, Failure::Crossing(Fault::Local(_)) | Failure::SessionGone);
            if was_connected {
                // The first address is the one that is wanted.
                address = 0;
                let was_well = matches!(fault, Failure::Crossing(Fault::Withheld(_) | Fault::TooMany));
                if was_well || has_lasted {
                    back_off.reset();
                }
                self.rest(&mut back_off).await;
            } else {
                address += 1;
                if address >= bridge.remote.addresses.len() {
                    address = 0;
                    self.rest(&mut back_off).await;
                }
            }
        }
    }

    /// Makes the session at this broker and its subscriptions, so that messages wait for the bridge from now on.
    async fn prepare(&self) -> Result<(), Failure> {
        let former = self.world.filters().await;
        self.noted.borrow_mut().prepare(&self.bridge.outgoing, &former);
        self.world.note(&self.noted.borrow());
        let mut local = self.local().await?.0;
        let refused = local.subscribe(&self.bridge.outgoing, &former).await?;
        for filter in refused {
            let name = &self.bridge.name;
            log::error!("bridge '{name}': it may not subscribe to '{}' of this broker", filter.escape_debug());
            self.status.borrow_mut().fail(format_args!("this broker refuses the filter {filter}"));
        }
        local.disconnect().await?;
        Ok(())
    }

    /// Connects to this broker. Returns whether the session was there.
    async fn local(&self) -> Result<(Local<W::Local>, bool), Failure> {
        let stream = self.world.local().await.map_err(LocalFault::from)?;
        let mut local = Local::new(stream, self.bridge.remote.packet_bytes);
        let client_identifier = format!("{}{}", crate::broker::INSIDE_PREFIX, insider_name(&self.bridge.name));
        let is_present = local.connect(&client_identifier, IN_FLIGHT_MAX).await?;
        Ok((local, is_present))
    }

    /// One connection to the upstream, from its beginning to its end.
    async fn connection(&self, address: usize, buffers: &mut UpstreamBuffers) -> Failure {
        match self.connect_and_cross(address, buffers).await {
            Ok(fault) => Failure::Crossing(fault),
            Err(failure) => failure,
        }
    }

    async fn connect_and_cross(&self, address: usize, buffers: &mut UpstreamBuffers) -> Result<Fault, Failure> {
        let bridge = &self.bridge;
        if let Some((host, port)) = bridge.remote.addresses.get(address) {
            let mut status = self.status.borrow_mut();
            status.remote = format!("{host}:{port}");
            if status.state == State::Starting {
                self.enter(&mut status, State::Disconnected);
            }
        }
        let password = self.world.password().map_err(Failure::Remote)?;
        let mut session =
            upstream::session(&bridge.remote, password.as_ref().map(|password| password.as_slice()), buffers)
                .map_err(Failure::Upstream)?;
        let stream = self.world.remote(address).await.map_err(Failure::Remote)?;
        let needs_qos1 = bridge.outgoing.iter().any(|map| map.qos > 0);
        let upstream = Minimq::connect(&mut session, stream, &bridge.remote, needs_qos1).await;
        let mut upstream = upstream.map_err(Failure::Upstream)?;
        let (mut local, is_present) = self.local().await?;
        if !is_present {
            return Err(Failure::SessionGone);
        }
        {
            let mut status = self.status.borrow_mut();
            status.counters.connects += 1;
            status.last_error.clear();
            self.enter(&mut status, State::Connected);
            let is_worth_a_line = self.in_a_row.get() == 0 || is_worth_a_line(self.in_a_row.get());
            let level = if is_worth_a_line { log::Level::Info } else { log::Level::Debug };
            log::log!(level, "bridge '{}': connected to {}", bridge.name, status.remote.escape_debug());
            if !upstream.retains() && bridge.outgoing.iter().any(|map| map.retain) {
                log::info!("bridge '{}': the upstream retains nothing: messages go without the flag", bridge.name);
            }
        }
        let note = || self.world.note(&self.noted.borrow());
        let rules =
            Rules { bridge, own: &self.own, noted: &self.noted, note: &note, trial: &self.trial, pauses: &self.pauses };
        Ok(crossing::cross(&rules, &mut upstream, &mut local, &self.status).await)
    }

    fn enter(&self, status: &mut Status, state: State) {
        if status.state != state {
            status.state = state;
            status.since_unix = self.world.unix();
        }
    }

    fn failed(&self, failure: &Failure) {
        let mut status = self.status.borrow_mut();
        status.counters.failures += 1;
        self.in_a_row.set(self.in_a_row.get().saturating_add(1));
        status.fail(failure);
        if status.state != State::Starting {
            self.enter(&mut status, State::Disconnected);
        }
        let name = &self.bridge.name;
        // A bridge that is connected and cut again and again says so as seldom as one that is not connected.
        let is_worth_waking_somebody = !failure.is_the_end() && is_worth_a_line(self.in_a_row.get());
        let level = if is_worth_waking_somebody { log::Level::Warn } else { log::Level::Debug };
        log::log!(level, "bridge '{name}': {}: {}", status.remote.escape_debug(), status.last_error);
    }

    async fn rest(&self, back_off: &mut BackOff) {
        Timer::after(Duration::from_millis(back_off.wait_milliseconds())).await;
    }
}

/// Why a bridge is not connected.
#[derive(Debug)]
enum Failure {
    /// There is no way to the upstream.
    Remote(String),
    /// The upstream refuses.
    Upstream(UpstreamFault),
    /// This broker refuses.
    Local(LocalFault),
    /// The session at this broker was ended by somebody else.
    SessionGone,
    /// It was connected.
    Crossing(Fault),
}

impl Failure {
    /// Whether this broker stops.
    fn is_the_end(&self) -> bool {
        match self {
            Self::Local(fault) | Self::Crossing(Fault::Local(fault)) => {
                matches!(fault, LocalFault::Refused(ReasonCode::ServerShuttingDown))
            }
            Self::Remote(_) | Self::Upstream(_) | Self::SessionGone | Self::Crossing(_) => false,
        }
    }
}

impl From<LocalFault> for Failure {
    fn from(fault: LocalFault) -> Self {
        Self::Local(fault)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Remote(text) => f.write_str(text),
            Self::Upstream(fault) => fault.fmt(f),
            Self::Local(fault) => fault.fmt(f),
            Self::SessionGone => f.write_str("the session at this broker is gone"),
            Self::Crossing(fault) => fault.fmt(f),
        }
    }
}
