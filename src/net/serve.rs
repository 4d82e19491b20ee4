//! The loop around the turn: one task of the executor that waits for the poller, the next deadline or a signal.

use super::report::Reporter;
use super::system::SystemNetwork;
use super::turn::{Reconfiguration, Turn};
use crate::authentication::{Answer, Passwords, Question};
use crate::broker::Ticket;
use crate::platform::Clock;
use crate::store::{Batch, Room};
use crate::time::Instant;
use crate::tls::ServerTls;
use async_io::{Async, Timer};
use async_signal::{Signal, Signals};
use smol::channel::{Receiver, Sender};
use smol::future::{self, FutureExt as _};
use smol::stream::StreamExt as _;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// How long clients have to take their DISCONNECT when the broker stops.
const SHUT_DOWN_MILLISECONDS: u64 = 2_000;

/// How long what is recorded has to reach the disk when the broker stops.
const FLUSH_MILLISECONDS: u64 = 3_000;

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

/// After so many turns with something to do, signals and other tasks are asked all the same.
const TURNS_WITHOUT_WAIT_MAX: u32 = 32;

/// What the loop has to do with the other tasks of the executor.
pub struct Services {
    /// Questions of the broker.
    pub questions: Sender<(Ticket, Question)>,
    /// Their answers.
    pub answers: Receiver<(Ticket, Answer)>,
    /// What has changed around the broker.
    pub changes: Receiver<Change>,
    /// Who writes batches of the log to the disk; `None`: nothing is kept.
    pub store: Option<Store>,
}

/// Writes batches of the log, one at a time, while the loop goes on.
pub struct Store {
    /// Batches to be written.
    pub batches: Sender<Batch>,
    /// Batches that were written, or could not be.
    pub written: Receiver<(Batch, io::Result<Room>)>,
}

/// What can change while the broker runs.
pub enum Change {
    /// A port has a new certificate, or its first one.
    ServerTls(u16, ServerTls),
    /// Trust or revocation: all credentials are to be judged again.
    Trust,
    /// The users of a method UsernamePassword.
    Passwords {
        /// Index of the BrokerAuthentication.
        authentication: u16,
        /// Index of the method in it.
        method: u16,
        /// Who may log in now.
        users: Passwords,
    },
    /// Another configuration, and who takes its questions.
    Configuration(Box<Reconfiguration>, Sender<(Ticket, Question)>),
}

/// What ended a wait.
enum Woken {
    Sockets,
    Deadline,
    Answer(Ticket, Answer),
    Change(Change),
    Written(Batch, io::Result<Room>),
    Stop(Signal),
}

/// Serves until SIGTERM or SIGINT, then tells the clients and returns.
///
/// # Errors
/// [`ServeError`] when the system's poller fails.
pub async fn serve(
    mut turn: Turn<SystemNetwork>,
    mut services: Services,
    clock: &impl Clock,
) -> Result<(), ServeError> {
    let mut signals = Signals::new([Signal::Term, Signal::Int])?;
    // A duplicate of the poller's descriptor, because the reactor wants to own what it watches.
    let descriptor: OwnedFd = turn.network.descriptor().try_clone_to_owned()?;
    let poller = Async::new_nonblocking(descriptor)?;
    let mut ready = Vec::new();
    let mut stop_at: Option<Instant> = None;
    let mut turns_without_wait = 0;
    let mut reporter = Reporter::default();
    // What happened while the tables were filled is not to wait for the first client.
    reporter.report(clock.now().instant, &mut turn);
    loop {
        ready.clear();
        turn.network.poll(&mut ready)?;
        let busy = !ready.is_empty() || turn.has_work();
        turns_without_wait += 1;
        if !busy || turns_without_wait >= TURNS_WITHOUT_WAIT_MAX {
            turns_without_wait = 0;
            let now = clock.now();
            if stop_at.is_some_and(|at| now.instant >= at || (!busy && turn.connections() == 0)) {
                return finish(&mut turn, &services, clock).await;
            }
            let deadline = if busy { Some(now.instant) } else { turn.next_deadline().into_iter().chain(stop_at).min() };
            match wait(&poller, &mut signals, &services, deadline, now.instant, stop_at.is_some()).await? {
                Woken::Sockets if busy => {}
                Woken::Sockets => turn.network.poll(&mut ready)?,
                Woken::Deadline => {}
                Woken::Answer(ticket, answer) => turn.answer(clock.now(), ticket, answer),
                Woken::Written(batch, outcome) => turn.broker().written(clock.now(), batch, outcome),
                Woken::Change(Change::ServerTls(port, tls)) => turn.set_tls(port, &tls),
                Woken::Change(Change::Trust) => turn.trust_changed(),
                Woken::Change(Change::Passwords { authentication, method, users }) => {
                    turn.broker().set_passwords(authentication, method, users);
                    turn.judge_again();
                }
                Woken::Change(Change::Configuration(new, questions)) => {
                    // Who took the questions of the former configuration answers those that it has, and ends.
                    services.questions = questions;
                    turn.reconfigure(clock.now(), *new);
                    log::info!("the new configuration is in force");
                }
                Woken::Stop(signal) => {
                    log::info!("stopping on SIG{}", format!("{signal:?}").to_uppercase());
                    turn.network.stop_listening();
                    let now = clock.now();
                    turn.shut_down(now);
                    stop_at = Some(now.instant.plus_milliseconds(SHUT_DOWN_MILLISECONDS));
                }
            }
        }
        let now = clock.now();
        turn.run(now, &ready);
        if let Some(store) = &services.store
            && let Some(batch) = turn.broker().next_batch(now.instant)
        {
            // There is one batch at a time, and room for it.
            let _ = store.batches.try_send(batch);
        }
        reporter.report(now.instant, &mut turn);
        while let Some((ticket, question)) = turn.broker().next_question() {
            if services.questions.try_send((ticket, question)).is_err() {
                turn.answer(clock.now(), ticket, Answer::Unavailable("nobody takes questions".to_owned()));
            }
        }
        // The other tasks of the executor.
        future::yield_now().await;
    }
}

/// The end: what is recorded is written before the process goes.
async fn finish(turn: &mut Turn<SystemNetwork>, services: &Services, clock: &impl Clock) -> Result<(), ServeError> {
    let Some(store) = &services.store else { return Ok(()) };
    let written = async {
        loop {
            turn.broker().flush();
            if let Some(batch) = turn.broker().next_batch(clock.now().instant) {
                let _ = store.batches.try_send(batch);
            } else if !turn.broker().is_writing() {
                return;
            }
            let Ok((batch, outcome)) = store.written.recv().await else { return };
            let failed = outcome.is_err();
            turn.broker().written(clock.now(), batch, outcome);
            if failed {
                return;
            }
        }
    };
    let too_late = async {
        Timer::after(Duration::from_millis(FLUSH_MILLISECONDS)).await;
        log::error!("the disk takes too long: what nobody was told is safe may be lost");
    };
    written.or(too_late).await;
    Ok(())
}

async fn wait(
    poller: &Async<OwnedFd>,
    signals: &mut Signals,
    services: &Services,
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
            Some(at) if at <= now => {}
            // One millisecond more, so that the deadline is past and not just about to be.
            Some(at) => {
                Timer::after(Duration::from_millis(at.milliseconds_since(now) + 1)).await;
            }
            None => future::pending().await,
        }
        Ok(Woken::Deadline)
    };
    let signal = async {
        match signals.next().await {
            Some(Ok(signal)) if !stopping => Ok(Woken::Stop(signal)),
            Some(Err(error)) => Err(error),
            Some(Ok(_)) | None => future::pending().await,
        }
    };
    // A channel whose other side is gone has nothing to say any more.
    let answer = async {
        match services.answers.recv().await {
            Ok((ticket, answer)) => Ok(Woken::Answer(ticket, answer)),
            Err(_) => future::pending().await,
        }
    };
    let written = async {
        let Some(store) = &services.store else { return future::pending().await };
        match store.written.recv().await {
            Ok((batch, outcome)) => Ok(Woken::Written(batch, outcome)),
            Err(_) => future::pending().await,
        }
    };
    let change = async {
        match services.changes.recv().await {
            Ok(change) => Ok(Woken::Change(change)),
            Err(_) => future::pending().await,
        }
    };
    signal.or(change).or(written).or(answer).or(sockets).or(timer).await
}
