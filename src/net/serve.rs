//! The loop around the turn: one task of the executor that waits for the poller, the next deadline or a signal.

use super::report::report;
use super::system::SystemNetwork;
use super::turn::Turn;
use crate::platform::Clock;
use crate::time::Instant;
use async_io::{Async, Timer};
use async_signal::{Signal, Signals};
use smol::future::{self, FutureExt as _};
use smol::stream::StreamExt as _;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// How long clients have to take their DISCONNECT when the broker stops.
const SHUT_DOWN_MILLISECONDS: u64 = 2_000;

/// The loop cannot go on.
#[derive(Debug)]
pub struct ServeError(io::Error);

impl core::fmt::Display for ServeError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "cannot wait for sockets: {}", self.0)
    }
}

impl From<io::Error> for ServeError {
    fn from(error: io::Error) -> Self {
        Self(error)
    }
}

/// What ended a wait.
enum Woken {
    Sockets,
    Deadline,
    Stop(Signal),
}

/// Serves until SIGTERM or SIGINT, then tells the clients and returns.
///
/// # Errors
/// [`ServeError`] when the system's poller fails.
pub async fn serve(mut turn: Turn<SystemNetwork>, clock: &impl Clock) -> Result<(), ServeError> {
    let mut signals = Signals::new([Signal::Term, Signal::Int])?;
    // A duplicate of the poller's descriptor, because the reactor wants to own what it watches.
    let descriptor: OwnedFd = turn.network.descriptor().try_clone_to_owned()?;
    let poller = Async::new_nonblocking(descriptor)?;
    let mut ready = Vec::new();
    let mut stop_at: Option<Instant> = None;
    loop {
        ready.clear();
        turn.network.poll(&mut ready)?;
        if ready.is_empty() && !turn.has_work() {
            let now = clock.now();
            if stop_at.is_some_and(|at| now.instant >= at || turn.connections() == 0) {
                return Ok(());
            }
            let deadline = turn.next_deadline().into_iter().chain(stop_at).min();
            match wait(&poller, &mut signals, deadline, now.instant, stop_at.is_some()).await? {
                Woken::Sockets => turn.network.poll(&mut ready)?,
                Woken::Deadline => {}
                Woken::Stop(signal) => {
                    log::info!("stopping on SIG{}", format!("{signal:?}").to_uppercase());
                    turn.network.stop_listening();
                    let now = clock.now();
                    turn.shut_down(now);
                    stop_at = Some(now.instant.plus_milliseconds(SHUT_DOWN_MILLISECONDS));
                }
            }
        }
        turn.run(clock.now(), &ready);
        report(&mut turn);
        // The other tasks of the executor.
        future::yield_now().await;
    }
}

async fn wait(
    poller: &Async<OwnedFd>,
    signals: &mut Signals,
    deadline: Option<Instant>,
    now: Instant,
    stopping: bool,
) -> io::Result<Woken> {
    let sockets = async {
        poller.readable().await?;
        Ok(Woken::Sockets)
    };
    let timer = async {
        match deadline {
            // One millisecond more, so that the deadline is past and not just about to be.
            Some(at) => Timer::after(Duration::from_millis(at.milliseconds_since(now) + 1)).await,
            None => future::pending().await,
        };
        Ok(Woken::Deadline)
    };
    let signal = async {
        match signals.next().await {
            Some(Ok(signal)) if !stopping => Ok(Woken::Stop(signal)),
            Some(Err(error)) => Err(error),
            Some(Ok(_)) | None => future::pending().await,
        }
    };
    sockets.or(timer).or(signal).await
}
