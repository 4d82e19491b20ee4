//! While both sides are connected: messages from one to the other, and acknowledgements the other way.
//!
//! Out: the broker delivers, the bridge sends, the upstream acknowledges, and only then does the bridge acknowledge to the broker,
//! which keeps the message until then. In: the upstream sends, the bridge publishes, the broker acknowledges once the message is
//! safe, and only then does the upstream get its acknowledgement. Whatever cuts a connection leaves the message with whom it
//! came from.
//!
//! **Invariant:** nothing is kept here but identifiers: of eight messages each way at most.

use super::hops::{self, Way};
use super::local::{Local, LocalEvent, LocalFault, NotSendable};
use super::status::{Counters, Status, is_worth_a_line};
use super::topics::{self, Direction, Route};
use super::upstream::{IN_FLIGHT_MAX, Incoming, Sent, Upstream, UpstreamEvent, UpstreamFault};
use crate::codec::{PacketIdentifier, Publish, QoS, ReasonCode, UserProperties};
use crate::config::blob::{Bridge, TopicMap};
use core::cell::{Cell, RefCell};
use core::fmt;
use embassy_time::{Duration, Instant, Timer};
use smol::future::{self, FutureExt as _};
use smol::io::{AsyncRead, AsyncWrite};

/// How long an upstream that answers otherwise may leave a message unacknowledged.
const ACKNOWLEDGEMENT_SECONDS: u64 = 60;
/// After so many events the other tasks have their turn, whatever else there is.
const EVENTS_MAX: u32 = 16;

/// Why a crossing has ended.
#[derive(Debug)]
pub enum Fault {
    /// The upstream is gone.
    Upstream(UpstreamFault),
    /// This broker is gone, or the bridge's session is.
    Local(LocalFault),
    /// The upstream takes messages, and says so of none.
    Unacknowledged,
    /// One of the two cannot take a message now: what it says.
    Later(u8),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Upstream(fault) => fault.fmt(f),
            Self::Local(fault) => fault.fmt(f),
            Self::Unacknowledged => {
                write!(f, "the upstream has not acknowledged a message for {ACKNOWLEDGEMENT_SECONDS} s")
            }
            Self::Later(reason) => write!(f, "a message cannot be taken now: 0x{reason:02X}"),
        }
    }
}

impl From<UpstreamFault> for Fault {
    fn from(fault: UpstreamFault) -> Self {
        Self::Upstream(fault)
    }
}

impl From<LocalFault> for Fault {
    fn from(fault: LocalFault) -> Self {
        Self::Local(fault)
    }
}

/// What crosses, and how.
pub struct Rules<'a> {
    /// The bridge's settings.
    pub bridge: &'a Bridge,
    /// Client identifiers of all bridges of this gateway.
    pub own: &'a [String],
    /// Crossings in a row that have ended with [`Fault::Later`].
    pub attempts: &'a Cell<u32>,
}

/// How often a message is sent again that is refused without a reason that says more.
const ATTEMPTS_MAX: u32 = 8;

/// Whether a reason says that the same message may be taken another time, after so many `attempts` that ended like this.
fn is_passing(reason: u8, attempts: u32) -> bool {
    let unavailable = [ReasonCode::ServerUnavailable, ReasonCode::ServerBusy, ReasonCode::QuotaExceeded];
    // One message that nobody ever takes must not keep all others.
    let unclear = [ReasonCode::UnspecifiedError, ReasonCode::ImplementationSpecificError];
    let is_one_of = |reasons: &[ReasonCode]| reasons.iter().any(|known| known.as_u8() == reason);
    is_one_of(&unavailable) || attempts < ATTEMPTS_MAX && is_one_of(&unclear)
}

/// A message of the upstream's that was given to the broker, or dropped.
struct Arrival {
    /// `None`: the upstream may have its acknowledgement.
    awaits: Option<PacketIdentifier>,
}

/// What has happened, without what it borrows.
enum Happened<'u, 'l> {
    Upstream(Result<UpstreamEvent<'u>, UpstreamFault>),
    Local(Result<LocalEvent<'l>, LocalFault>),
    Late,
}

/// Carries messages until one side is gone.
pub(super) async fn cross<U: Upstream, S: AsyncRead + AsyncWrite + Unpin>(
    rules: &Rules<'_>,
    upstream: &mut U,
    local: &mut Local<S>,
    status: &RefCell<Status>,
) -> Fault {
    let mut crossing = Crossing {
        rules,
        status,
        arrivals: heapless::Deque::new(),
        subscribed: 0,
        renamed: String::new(),
        response: String::new(),
    };
    match crossing.run(upstream, local).await {
        Ok(never) => match never {},
        Err(fault) => fault,
    }
}

struct Crossing<'a> {
    rules: &'a Rules<'a>,
    status: &'a RefCell<Status>,
    /// Messages of the upstream's with QoS 1, in the order in which they came.
    arrivals: heapless::Deque<Arrival, { IN_FLIGHT_MAX as usize }>,
    /// Maps of what comes in that have been asked for.
    subscribed: usize,
    renamed: String,
    response: String,
}

impl Crossing<'_> {
    async fn run<U: Upstream, S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        upstream: &mut U,
        local: &mut Local<S>,
    ) -> Result<core::convert::Infallible, Fault> {
        let mut is_subscribing = false;
        // A message of the broker's waits for room at the upstream.
        let mut is_stalled = false;
        let mut since = Instant::now();
        let mut events: u32 = 0;
        loop {
            if !is_subscribing && let Some(map) = self.rules.bridge.incoming.get(self.subscribed) {
                upstream.subscribe(map).await?;
                self.subscribed += 1;
                is_subscribing = true;
            }
            let is_awaiting = upstream.in_flight() > 0;
            if !is_awaiting {
                since = Instant::now();
            }
            events = events.wrapping_add(1);
            if events.is_multiple_of(EVENTS_MAX) {
                future::yield_now().await;
            }
            let deadline = since + Duration::from_secs(ACKNOWLEDGEMENT_SECONDS);
            let (may_take_in, is_drained) = (!is_stalled, local.is_drained());
            let happened = {
                let from_upstream = async {
                    // What it sends has to have room on its way to the broker.
                    if !is_drained {
                        future::pending::<()>().await;
                    }
                    Happened::Upstream(upstream.next().await)
                };
                let from_local = async {
                    if !may_take_in {
                        return Happened::Local(local.drain().await.map(|()| LocalEvent::Nothing));
                    }
                    Happened::Local(local.next().await)
                };
                let late = async {
                    Timer::at(deadline).await;
                    Happened::Late
                };
                // Neither side keeps the other waiting.
                if events.is_multiple_of(2) {
                    from_upstream.or(from_local).or(late).await
                } else {
                    from_local.or(from_upstream).or(late).await
                }
            };
            match happened {
                Happened::Late if is_awaiting => return Err(Fault::Unacknowledged),
                Happened::Late => since = Instant::now(),
                Happened::Local(event) => match event? {
                    LocalEvent::Nothing => {}
                    LocalEvent::Answered(identifier, reason) => self.answered(identifier, reason)?,
                    LocalEvent::Message(publish) => {
                        let identifier = publish.packet_identifier;
                        match self.send(&publish, upstream).await? {
                            Sent::Awaited => {}
                            Sent::Forgotten | Sent::TooLarge => {
                                if let Some(identifier) = identifier {
                                    local.acknowledge(identifier)?;
                                }
                            }
                            Sent::NotNow => {
                                is_stalled = true;
                                local.keep();
                            }
                        }
                    }
                },
                Happened::Upstream(event) => match event? {
                    UpstreamEvent::Nothing => {}
                    UpstreamEvent::Subscribed => is_subscribing = false,
                    UpstreamEvent::NotSubscribed(reason) => {
                        is_subscribing = false;
                        let map = self.rules.bridge.incoming.get(self.subscribed.saturating_sub(1));
                        self.not_subscribed(map, reason.into());
                    }
                    UpstreamEvent::Taken(token) => {
                        (is_stalled, since) = (false, Instant::now());
                        self.rules.attempts.set(0);
                        self.status.borrow_mut().counters.sent += 1;
                        acknowledge(local, token)?;
                    }
                    UpstreamEvent::Refused(token, reason) => {
                        (is_stalled, since) = (false, Instant::now());
                        let reason = u8::from(reason);
                        self.later(reason)?;
                        self.drop_one(|counters| &mut counters.dropped_refused, "the upstream refuses a message");
                        acknowledge(local, token)?;
                    }
                    UpstreamEvent::Message(message) => self.bring_in(&message, local)?,
                },
            }
            self.release(upstream);
        }
    }

    /// Sends a message of the broker's to the upstream. What is not to be sent counts as forgotten.
    async fn send(&mut self, publish: &Publish<'_>, upstream: &mut impl Upstream) -> Result<Sent, Fault> {
        let Rules { bridge, own, .. } = self.rules;
        let way = hops::judge(publish.properties.user_properties.iter(), own, bridge.hops_max);
        if way != Way::Open {
            self.drop_one(
                |counters| &mut counters.dropped_loop,
                "a message that has crossed enough bridges stays here",
            );
            return Ok(Sent::Forgotten);
        }
        let map = match topics::route(&bridge.outgoing, Direction::Out, publish.topic, &mut self.renamed) {
            Route::To(map) => map,
            Route::None | Route::Invalid => {
                self.drop_one(|counters| &mut counters.dropped_topic, "a message has no name at the upstream");
                return Ok(Sent::Forgotten);
            }
        };
        let mut outgoing = *publish;
        outgoing.topic = &self.renamed;
        outgoing.qos = topics::qos(map, publish.qos);
        outgoing.retain = publish.retain && map.retain;
        outgoing.dup = false;
        rename_response(&mut outgoing, &bridge.incoming, Direction::Out, &mut self.response);
        let token = publish.packet_identifier.map_or(0, PacketIdentifier::get);
        let sent = upstream.publish(&outgoing, &bridge.remote.client_identifier, token).await?;
        match sent {
            Sent::Forgotten => self.status.borrow_mut().counters.sent += 1,
            Sent::TooLarge => self.drop_one(
                |counters| &mut counters.dropped_size,
                "a message is larger than the upstream or the bridge takes",
            ),
            Sent::Awaited | Sent::NotNow => {}
        }
        Ok(sent)
    }

    /// Gives a message of the upstream's to the broker, if it may come in.
    fn bring_in<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        message: &Incoming<'_>,
        local: &mut Local<S>,
    ) -> Result<(), Fault> {
        let is_acknowledged = match message.qos() {
            QoS::AtMostOnce => false,
            QoS::AtLeastOnce => true,
            // [MQTT-3.8.4-8]: it was not granted.
            QoS::ExactlyOnce => return Err(UpstreamFault::Protocol.into()),
        };
        let awaits = message.look(&self.rules.bridge.remote.client_identifier, |message| self.publish(message, local));
        if is_acknowledged {
            // The link lets no more of them in than there is room for.
            self.arrivals.push_back(Arrival { awaits }).map_err(|_| UpstreamFault::Protocol)?;
        }
        Ok(())
    }

    /// Returns what the broker's answer will be known by, where there is one to wait for.
    fn publish<S: AsyncRead + AsyncWrite + Unpin>(
        &mut self,
        message: Option<(Publish<'_>, UserProperties<'_>)>,
        local: &mut Local<S>,
    ) -> Option<PacketIdentifier> {
        let Rules { bridge, own, .. } = self.rules;
        let Some((mut publish, with_hop)) = message else {
            self.drop_one(|counters| &mut counters.dropped_size, "the upstream sends more properties than it may");
            return None;
        };
        // One that a gateway has sent to the upstream is what most bridges are for.
        let hops_max = bridge.hops_max.saturating_add(1);
        if hops::judge(publish.properties.user_properties.iter(), own, hops_max) != Way::Open {
            self.drop_one(|counters| &mut counters.dropped_loop, "a message has come back from the upstream");
            return None;
        }
        let map = match topics::route(&bridge.incoming, Direction::In, publish.topic, &mut self.renamed) {
            Route::To(map) => map,
            Route::None | Route::Invalid => {
                self.drop_one(|counters| &mut counters.dropped_topic, "a message of the upstream has no name here");
                return None;
            }
        };
        publish.topic = &self.renamed;
        publish.qos = topics::qos(map, publish.qos);
        publish.retain = publish.retain && map.retain;
        publish.properties.user_properties = with_hop;
        rename_response(&mut publish, &bridge.outgoing, Direction::In, &mut self.response);
        match local.publish(publish) {
            Ok(None) => {
                self.status.borrow_mut().counters.received += 1;
                None
            }
            Ok(identifier) => identifier,
            Err(NotSendable) => {
                self.drop_one(
                    |counters| &mut counters.dropped_size,
                    "a message of the upstream is too large or not valid",
                );
                None
            }
        }
    }

    /// The broker has answered a message of the upstream's.
    fn answered(&mut self, identifier: PacketIdentifier, reason: ReasonCode) -> Result<(), Fault> {
        self.later(reason.as_u8())?;
        if reason.is_error() {
            self.drop_one(|counters| &mut counters.dropped_refused, "this broker refuses a message of the upstream");
        } else {
            self.status.borrow_mut().counters.received += 1;
        }
        if let Some(arrival) = self.arrivals.iter_mut().find(|arrival| arrival.awaits == Some(identifier)) {
            arrival.awaits = None;
        }
        Ok(())
    }

    /// Lets the upstream have the acknowledgements that are due, in order.
    fn release(&mut self, upstream: &impl Upstream) {
        while self.arrivals.front().is_some_and(|arrival| arrival.awaits.is_none()) {
            self.arrivals.pop_front();
            upstream.acknowledge();
        }
    }

    /// Ends the crossing where a message may be taken another time; it stays with whom it came from.
    fn later(&self, reason: u8) -> Result<(), Fault> {
        let attempts = self.rules.attempts.get();
        if is_passing(reason, attempts) {
            self.rules.attempts.set(attempts.saturating_add(1));
            return Err(Fault::Later(reason));
        }
        Ok(())
    }

    fn not_subscribed(&self, map: Option<&TopicMap>, reason: u8) {
        let filter = map.map_or("", |map| map.remote.as_str());
        let name = &self.rules.bridge.name;
        log::warn!(
            "bridge '{name}': the upstream refuses a subscription to '{}': 0x{reason:02X}",
            filter.escape_debug()
        );
        self.status.borrow_mut().fail(format_args!("the upstream refuses the filter {filter}: 0x{reason:02X}"));
    }

    fn drop_one(&self, counter: impl FnOnce(&mut Counters) -> &mut u64, what: &str) {
        let mut status = self.status.borrow_mut();
        let counter = counter(&mut status.counters);
        *counter += 1;
        if is_worth_a_line(*counter) {
            log::warn!("bridge '{}': {what} ({counter} so far)", self.rules.bridge.name);
        }
    }
}

/// The token of a message is the Packet Identifier with which the broker has sent it.
fn acknowledge<S: AsyncRead + AsyncWrite + Unpin>(local: &mut Local<S>, token: u16) -> Result<(), LocalFault> {
    PacketIdentifier::new(token).map_or(Ok(()), |identifier| local.acknowledge(identifier))
}

/// Where answers come through the bridge too, their topic is named as it is on the other side.
fn rename_response<'p>(publish: &mut Publish<'p>, back: &[TopicMap], direction: Direction, renamed: &'p mut String) {
    if let Some(topic) = publish.properties.response_topic
        && let Route::To(_) = topics::route(back, direction, topic, renamed)
    {
        publish.properties.response_topic = Some(renamed);
    }
}
