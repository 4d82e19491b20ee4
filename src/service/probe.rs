//! The broker's check of itself: a client that connects, subscribes, publishes, unsubscribes and pings, over and over.
//! azure-model §4.5.
//!
//! It is an ordinary client on an inside connection, made of minimq and not of our own codec, so that what both get wrong is
//! noticed. What it finds is the broker's health; that it is answered at all is what the watchdog of the service manager is fed
//! with.

use super::facts::FactsInForce;
use super::health::Health;
use crate::broker::INSIDE_PREFIX;
use crate::config::blob::SelfCheck;
use crate::net::Inside;
use crate::platform::{ServiceManager, SystemClock};
use crate::time::UnixTime;
use crate::upstream::{Link, LinkError};
use async_io::Async;
use core::cell::{Cell, RefCell};
use core::fmt;
use core::pin::Pin;
use core::task::{Context, Poll};
use embassy_time::{Duration, Instant, Timer, with_timeout};
use minimq::{Buffers, ConfigBuilder, Connection, Error, Op, PubError, Publication, QoS, Session, TopicFilter};
use smol::io::{AsyncRead, AsyncWrite};
use std::io;
use std::os::unix::net::UnixStream;
use std::rc::Rc;

/// The probe's name among the insiders.
pub const PROBE: &str = "probe";

/// Where it publishes. Below `$`, so that nobody who subscribes to everything sees it.
const TOPIC: &str = "$portcullis/selftest";
/// What a round may take whatever a watchdog says: minimq waits for half a second before it pings.
const ROUND_MIN: Duration = Duration::from_secs(2);

/// The shortest Keep Alive, seconds: after half of it minimq pings.
const KEEP_ALIVE_SECONDS: u16 = 1;
/// What CONNECT says instead, so that the broker does not close the probe on a machine that is busy for a second.
const TOLD_KEEP_ALIVE_SECONDS: u8 = 60;
/// More than any of its packets takes.
const BUFFER_BYTES: usize = 256;

/// What it does, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// CONNECT, until CONNACK.
    Connect,
    /// SUBSCRIBE, until SUBACK.
    Subscribe,
    /// PUBLISH with QoS 1, until PUBACK and until the message is back.
    Publish,
    /// UNSUBSCRIBE, until UNSUBACK.
    Unsubscribe,
    /// PINGREQ, until PINGRESP.
    Ping,
}

impl Operation {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Connect, Self::Subscribe, Self::Publish, Self::Unsubscribe, Self::Ping];

    /// The word of the vendor's metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Subscribe => "subscribe",
            Self::Publish => "publish",
            Self::Unsubscribe => "unsubscribe",
            Self::Ping => "ping",
        }
    }
}

/// How the broker is. The vendor's states.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum HealthState {
    /// The probe has not been around yet.
    #[default]
    Unknown,
    /// All is well.
    Available,
    /// It serves, and something is wrong.
    Degraded,
    /// It does not answer.
    Unavailable,
}

impl fmt::Display for HealthState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "Unknown",
            Self::Available => "Available",
            Self::Degraded => "Degraded",
            Self::Unavailable => "Unavailable",
        })
    }
}

/// How long one operation took, of all rounds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Latency {
    /// The last one, microseconds.
    pub last: f64,
    /// Mean, microseconds.
    pub mean: f64,
    /// Sum of squares of differences from the mean.
    squares: f64,
    /// How many.
    pub count: u64,
}

impl Latency {
    fn add(&mut self, microseconds: u64) {
        // A day of microseconds is exact.
        #[allow(clippy::cast_precision_loss)]
        let (value, count) = (microseconds as f64, (self.count + 1) as f64);
        let difference = value - self.mean;
        self.mean += difference / count;
        self.squares += difference * (value - self.mean);
        (self.last, self.count) = (value, self.count + 1);
    }

    /// Standard deviation, microseconds.
    #[must_use]
    pub fn deviation(&self) -> f64 {
        #[allow(clippy::cast_precision_loss)]
        let count = self.count.max(1) as f64;
        (self.squares / count).sqrt()
    }
}

/// What the probe has found.
#[derive(Clone, Debug, Default)]
pub struct ProbeReport {
    /// In the last round.
    pub state: HealthState,
    /// Why it is not available; empty if it is.
    pub reason: String,
    /// When the last round ended.
    pub last: Option<UnixTime>,
    /// Rounds so far.
    pub rounds: u64,
    /// Those of them that failed.
    pub failed: u64,
    /// By [`Operation`].
    pub latencies: [Latency; Operation::ALL.len()],
}

/// What the probe has found, for those who tell others.
pub type SharedReport = Rc<RefCell<ProbeReport>>;

/// Why a round failed.
enum Failure {
    /// The broker answered, and not as it should.
    Refused(String),
    /// It did not answer.
    Silent,
    /// The broker stops.
    Ending,
}

/// What probing takes.
pub struct Probing {
    /// The way to the loop.
    pub inside: Inside,
    /// What is known of the configuration in force.
    pub facts: FactsInForce,
    /// Where what is found goes.
    pub report: SharedReport,
    /// Told of each round in which the broker answered.
    pub manager: Rc<ServiceManager>,
    /// `diagnostics.selfCheck`; `None`: only as the manager's watchdog wants it.
    pub settings: Option<SelfCheck>,
}

impl Probing {
    /// Probes for as long as the broker serves. The period is that of the settings, or a third of what the manager's watchdog allows if
    /// that is less, and a round takes no more than half of it: one that fails is followed by another before the process is ended.
    pub async fn run(self) {
        let SelfCheck { interval_seconds, timeout_seconds } = self.settings.unwrap_or_default();
        let watchdog = self.manager.watchdog().map(|limit| u64::try_from(limit.as_micros()).unwrap_or(u64::MAX));
        if self.settings.is_none() && watchdog.is_none() {
            return;
        }
        let bounded = |seconds: u16, part: u64| {
            let microseconds = u64::from(seconds) * 1_000_000;
            Duration::from_micros(watchdog.map_or(microseconds, |watchdog| microseconds.min(watchdog / part)))
        };
        let (period, limit) = (bounded(interval_seconds, 3), bounded(timeout_seconds, 2).max(ROUND_MIN));
        loop {
            let begin = Instant::now();
            let mut round = Round { operation: Operation::Connect, begin, report: &self.report };
            let outcome = with_timeout(limit, round.run(&self.inside)).await.unwrap_or(Err(Failure::Silent));
            let operation = round.operation;
            match &outcome {
                Err(Failure::Ending) => return,
                // It is told to go, like every client, while the broker comes to its end.
                Err(Failure::Refused(_)) if self.inside.ask(|_, _| ()).await.is_none() => return,
                Err(Failure::Silent) => {}
                Ok(()) | Err(Failure::Refused(_)) => self.manager.alive(),
            }
            self.report.borrow_mut().conclude(operation, outcome);
            self.tell().await;
            Timer::at(begin + period).await;
        }
    }

    /// Tells the service manager in a line how the broker is.
    async fn tell(&self) {
        let (facts, report) = (self.facts.clone(), self.report.clone());
        let looked = self.inside.ask(move |turn, now| {
            let facts = facts.borrow();
            let clients: u32 = (0..).zip(&facts.listeners).map(|(port, _)| turn.broker().connections_of(port)).sum();
            (Health::look(turn, now, &facts, &report.borrow()), clients)
        });
        let Some((health, clients)) = looked.await else { return };
        let wrong = health.checks.iter().find(|check| !check.is_ok);
        let wrong = wrong.map(|check| format!("; {}: {}", check.name, check.detail)).unwrap_or_default();
        self.manager.status(&format!("{}, {clients} connections{wrong}", health.state));
    }
}

impl ProbeReport {
    fn conclude(&mut self, operation: Operation, outcome: Result<(), Failure>) {
        self.rounds += 1;
        self.last = Some(SystemClock::unix());
        let (state, why) = match outcome {
            Ok(()) => (HealthState::Available, String::new()),
            Err(Failure::Refused(why)) => (HealthState::Degraded, why),
            Err(Failure::Silent | Failure::Ending) => (HealthState::Unavailable, "no answer in time".to_owned()),
        };
        self.reason.clear();
        if state == HealthState::Available {
            if self.state > HealthState::Available {
                log::warn!("probe: the broker is available again");
            }
        } else {
            self.failed += 1;
            let (number, of) = (operation as usize + 1, Operation::ALL.len());
            let name = operation.name().to_ascii_uppercase();
            self.reason = format!("Probe failed: Failed Operation {name} ({number}/{of}): {why}");
            if self.state != state {
                log::error!("BrokerProbeFailed: {}", self.reason);
            }
        }
        self.state = state;
    }
}

/// One round.
struct Round<'r> {
    /// What is being done.
    operation: Operation,
    begin: Instant,
    report: &'r SharedReport,
}

impl Round<'_> {
    fn done(&mut self, next: Operation) {
        self.took(self.begin.elapsed());
        (self.operation, self.begin) = (next, Instant::now());
    }

    fn took(&self, time: Duration) {
        if let Some(latency) = self.report.borrow_mut().latencies.get_mut(self.operation as usize) {
            latency.add(time.as_micros());
        }
    }

    async fn run(&mut self, inside: &Inside) -> Result<(), Failure> {
        let stream = inside.connect(PROBE).await.map_err(|error| match error.kind() {
            io::ErrorKind::ConnectionAborted => Failure::Ending,
            _ => Failure::Refused(error.to_string()),
        })?;
        let pings = Pings::default();
        let stream = Watched { stream, pings: &pings };
        let (mut receive, mut transmit) = ([0; BUFFER_BYTES], [0; BUFFER_BYTES]);
        let config = ConfigBuilder::new(Buffers::new(&mut receive, &mut transmit))
            .keepalive_interval(KEEP_ALIVE_SECONDS)
            .session_expiry_interval(0)
            .client_id(&format!("{INSIDE_PREFIX}{PROBE}"))
            .map_err(|error| Failure::Refused(error.to_string()))?;
        let mut session = Session::new(config);
        let mut connection = session.connect(Link::new(stream)).await.map_err(refusal)?;
        self.done(Operation::Subscribe);
        let subscribing = connection.subscribe(&[TopicFilter::new(TOPIC)], &[]).await.map_err(refusal)?;
        complete(&mut connection, &subscribing).await?;
        self.done(Operation::Publish);
        let token = self.report.borrow().rounds.to_string();
        let publication = Publication::text(TOPIC, &token).qos(QoS::AtLeastOnce);
        let published = connection.publish(publication).await.map_err(|error| match error {
            PubError::Session(error) => refusal(error),
            PubError::Payload(_) => Failure::Refused("the payload does not fit".to_owned()),
        })?;
        let mut is_back = false;
        while !is_back || published.as_ref().is_some_and(|op| connection.is_pending(op)) {
            if let Some(message) = connection.poll().await.map_err(refusal)? {
                is_back |= message.topic() == TOPIC && message.payload() == token.as_bytes();
            }
        }
        self.done(Operation::Unsubscribe);
        let unsubscribing = connection.unsubscribe(&[TOPIC], &[]).await.map_err(refusal)?;
        complete(&mut connection, &unsubscribing).await?;
        self.done(Operation::Ping);
        let time = loop {
            if let Some(time) = pings.took.get() {
                break time;
            }
            connection.poll().await.map_err(refusal)?;
        };
        self.took(time);
        connection.disconnect().await.map_err(refusal)
    }
}

type OverInside<'p> = Link<'p>;

async fn complete(connection: &mut Connection<'_, '_, OverInside<'_>>, op: &Op) -> Result<(), Failure> {
    while connection.is_pending(op) {
        connection.poll().await.map_err(refusal)?;
    }
    Ok(())
}

fn refusal(error: Error<LinkError>) -> Failure {
    Failure::Refused(error.to_string())
}

/// When PINGREQ went out, and how long its answer took: minimq pings by itself and does not tell.
#[derive(Default)]
struct Pings {
    sent: Cell<Option<Instant>>,
    took: Cell<Option<Duration>>,
}

/// A stream on which pings are watched, and CONNECT has another Keep Alive.
struct Watched<'p> {
    stream: Async<UnixStream>,
    pings: &'p Pings,
}

/// First byte of CONNECT, MQTT 5 §3.1.1, and where the lower byte of its Keep Alive stands: behind a length of one byte, the
/// protocol's name, version and flags.
const CONNECT: u8 = 0x10;
const KEEP_ALIVE_AT: usize = 2 + 6 + 1 + 1 + 1;
/// MQTT 5 §3.12 and §3.13.
const PINGREQ: [u8; 2] = [0xC0, 0];
const PINGRESP: [u8; 2] = [0xD0, 0];

impl AsyncRead for Watched<'_> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let Self { stream, pings } = self.get_mut();
        let read = Pin::new(stream).poll_read(context, buffer);
        // Nothing else comes after all else was answered; it may come in two pieces.
        if let Poll::Ready(Ok(count)) = read
            && let Some(sent) = pings.sent.get()
            && buffer.get(..count).is_some_and(|bytes| bytes == PINGRESP || bytes == &PINGRESP[1..])
        {
            pings.took.set(Some(sent.elapsed()));
        }
        read
    }
}

impl AsyncWrite for Watched<'_> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let Self { stream, pings } = self.get_mut();
        if bytes == PINGREQ {
            pings.sent.set(Some(Instant::now()));
        }
        // All of it is written in one call, into a socket that is empty.
        if bytes.first() == Some(&CONNECT)
            && let Some(mut connect) = heapless::Vec::<u8, BUFFER_BYTES>::from_slice(bytes).ok()
            && let Some(keep_alive) = connect.get_mut(KEEP_ALIVE_AT)
        {
            *keep_alive = TOLD_KEEP_ALIVE_SECONDS;
            return Pin::new(stream).poll_write(context, &connect);
        }
        Pin::new(stream).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_close(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_close(context)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::platform::SimulatedClock;
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::net::{SocketAddr, UnixDatagram};

    #[test]
    fn a_loop_that_does_not_turn_is_unavailable_and_feeds_no_watchdog() {
        let name = format!("portcullis-probe-{}", std::process::id());
        let listener = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        listener.set_nonblocking(true).unwrap();
        let limit = core::time::Duration::from_secs(10);
        let manager = Rc::new(ServiceManager::new(Some(&format!("@{name}")), Some(limit)));
        manager.ready();
        let clock = SimulatedClock::start();
        let (inside, asked) = Inside::new();
        let report = SharedReport::default();
        let facts = FactsInForce::default();
        let settings = Some(SelfCheck::default());
        let probing = Probing { inside, facts, report: Rc::clone(&report), manager, settings };
        let executor = smol::LocalExecutor::new();
        executor.spawn(probing.run()).detach();
        while executor.try_tick() {}
        while let Some(next) = clock.next_microseconds() {
            clock.set_microseconds(next);
            while executor.try_tick() {}
        }
        assert_eq!(clock.now_microseconds(), 5_000_000, "half of what the watchdog allows");
        let found = report.borrow().clone();
        assert_eq!((found.state, found.failed), (HealthState::Unavailable, 1));
        assert_eq!(found.reason, "Probe failed: Failed Operation CONNECT (1/5): no answer in time");
        let mut heard = [0; 64];
        assert_eq!(listener.recv(&mut heard).unwrap(), "READY=1".len());
        assert!(listener.recv(&mut heard).is_err(), "nothing but that it had started");
        drop(asked);
    }

    #[test]
    fn latencies_have_a_mean_and_a_deviation() {
        let mut latency = Latency::default();
        for value in [2, 4, 4, 4, 5, 5, 7, 9] {
            latency.add(value);
        }
        assert!((latency.mean - 5.0).abs() < 1e-9 && (latency.deviation() - 2.0).abs() < 1e-9, "{latency:?}");
        assert_eq!((latency.last, latency.count), (9.0, 8));
    }
}
