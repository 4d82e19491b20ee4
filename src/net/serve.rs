//! The loop around the turn: one task of the executor that waits for sockets, the next deadline, and what other tasks bring.

use super::inside::Ask;
use super::network::Readiness;
use super::report::Reporter;
use super::sleep::Sleeper;
use super::system::SystemNetwork;
use super::turn::{Reconfiguration, Turn};
use crate::authentication::{Answer, Passwords, Question};
use crate::broker::Ticket;
use crate::platform::Clock;
use crate::store::{Batch, Room};
use crate::time::Instant;
use crate::tls::ServerTls;
use async_io::Timer;
use core::pin::Pin;
use core::task::Poll;
use smol::channel::{Receiver, Sender};
use smol::future::{self, FutureExt as _};
use smol::stream::{Stream as _, StreamExt as _};
use std::io;
use std::time::Duration;

/// How long clients have to take their DISCONNECT when the broker stops.
const SHUT_DOWN_MILLISECONDS: u64 = 2_000;

/// How long what is recorded has to reach the disk when the broker stops.
const FLUSH_MILLISECONDS: u64 = 3_000;

/// What comes from another task, as a stream that outlives each wait.
pub type Incoming<T> = Pin<Box<Receiver<T>>>;

/// What the loop has to do with the other tasks of the executor.
pub struct Services {
    /// Questions of the broker.
    pub questions: Sender<(Ticket, Question)>,
    /// Their answers.
    pub answers: Incoming<(Ticket, Answer)>,
    /// What has changed around the broker.
    pub changes: Incoming<Change>,
    /// Signals that end the broker, by their names.
    pub stops: Incoming<&'static str>,
    /// Who writes batches of the log to the disk; `None`: nothing is kept.
    pub store: Option<Store>,
    /// What other tasks want of the broker; `None` once the broker stops.
    pub asks: Option<Incoming<Ask>>,
}

/// Writes batches of the log, one at a time, while the loop goes on.
pub struct Store {
    /// Batches to be written.
    pub batches: Sender<Batch>,
    /// Batches that were written, or could not be.
    pub written: Incoming<(Batch, io::Result<Room>)>,
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
    /// Sockets, or the deadline.
    Turn,
    Answer(Ticket, Answer),
    Change(Change),
    Written(Batch, io::Result<Room>),
    Ask(Ask),
    Stop(&'static str),
}

/// Serves until SIGTERM or SIGINT, then tells the clients and returns. `sleeper` is where the thread waits for the turn's
/// sockets.
pub async fn serve(mut turn: Turn<SystemNetwork>, mut services: Services, sleeper: Sleeper, clock: &impl Clock) {
    let mut ready = Vec::new();
    let mut stop_at: Option<Instant> = None;
    let mut reporter = Reporter::default();
    // What happened while the tables were filled is not to wait for the first client.
    reporter.report(clock.now().instant, &mut turn);
    // When the turn began that is being observed; what woke the loop was dealt with just before.
    let mut begun = None;
    loop {
        let now = clock.now().instant;
        if let Some(begun) = begun.take() {
            turn.broker().telemetry().durations.turn.observe(now.milliseconds_since(begun));
        }
        let is_busy = turn.has_work();
        let deadline = if is_busy { Some(now) } else { turn.next_deadline().into_iter().chain(stop_at).min() };
        ready.clear();
        match services.wait(&sleeper, deadline.map(|at| until(now, at)), &mut ready).await {
            Woken::Turn => {}
            Woken::Answer(ticket, answer) => turn.answer(clock.now(), ticket, answer),
            Woken::Written(batch, outcome) => turn.broker().written(clock.now(), batch, outcome),
            Woken::Ask(ask) => ask(&mut turn, clock.now()),
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
            Woken::Stop(name) if stop_at.is_none() => {
                log::info!("stopping on {name}");
                turn.network.stop_listening();
                services.asks = None;
                let now = clock.now();
                turn.shut_down(now);
                stop_at = Some(now.instant.plus_milliseconds(SHUT_DOWN_MILLISECONDS));
            }
            Woken::Stop(_) => {}
        }
        let now = clock.now();
        begun = Some(now.instant);
        let is_idle = ready.is_empty() && !is_busy && turn.connections() == 0;
        if stop_at.is_some_and(|at| now.instant >= at || is_idle) {
            return finish(&mut turn, &mut services, clock).await;
        }
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
    }
}

/// How long to wait for `at`: one millisecond more, so that the deadline is past and not just about to be.
fn until(now: Instant, at: Instant) -> Duration {
    if at <= now { Duration::ZERO } else { Duration::from_millis(at.milliseconds_since(now).saturating_add(1)) }
}

/// The end: what is recorded is written before the process goes.
async fn finish(turn: &mut Turn<SystemNetwork>, services: &mut Services, clock: &impl Clock) {
    let Some(store) = &mut services.store else { return };
    let written = async {
        loop {
            turn.broker().flush();
            if let Some(batch) = turn.broker().next_batch(clock.now().instant) {
                let _ = store.batches.try_send(batch);
            } else if !turn.broker().is_writing() {
                return;
            }
            let Some((batch, outcome)) = store.written.next().await else { return };
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
}

impl Services {
    /// Waits for sockets, for others, or for `time`, whichever comes first. Those others are asked before sockets, so that no load
    /// keeps them waiting. Their streams outlive the wait: it allocates nothing.
    async fn wait(&mut self, sleeper: &Sleeper, time: Option<Duration>, ready: &mut Vec<Readiness>) -> Woken {
        future::poll_fn(|context| {
            // A channel whose other side is gone has nothing to say any more.
            let woken = if let Poll::Ready(Some(name)) = self.stops.as_mut().poll_next(context) {
                Woken::Stop(name)
            } else if let Poll::Ready(Some(change)) = self.changes.as_mut().poll_next(context) {
                Woken::Change(change)
            } else if let Some(Poll::Ready(Some((batch, outcome)))) =
                self.store.as_mut().map(|store| store.written.as_mut().poll_next(context))
            {
                Woken::Written(batch, outcome)
            } else if let Some(Poll::Ready(Some(ask))) = self.asks.as_mut().map(|asks| asks.as_mut().poll_next(context))
            {
                Woken::Ask(ask)
            } else if let Poll::Ready(Some((ticket, answer))) = self.answers.as_mut().poll_next(context) {
                Woken::Answer(ticket, answer)
            } else {
                return sleeper.poll_ready(context, time, ready).map(|()| Woken::Turn);
            };
            sleeper.give_up();
            Poll::Ready(woken)
        })
        .await
    }
}
