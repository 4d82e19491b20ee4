//! While both sides are connected: messages from one to the other, and acknowledgements the other way.
//!
//! Out: the broker delivers, the bridge sends, the upstream acknowledges, and only then does the bridge acknowledge to the broker,
//! which keeps the message until then. In: the upstream sends, the bridge publishes, the broker acknowledges once the message is
//! safe, and only then does the upstream get its acknowledgement. Whatever cuts a connection leaves the message with whom it
//! came from.
//!
//! An upstream whose message cannot be taken now has to keep it: nothing that it sends from then on is acknowledged, and when it
//! has waited, the connection ends and the next one brings the rest again, in order. Out, the bridge goes on meanwhile.
//!
//! **Invariant:** nothing is kept here but identifiers: of eight messages out and [`HELD_MAX`] in at most.

use super::fault::{ACKNOWLEDGEMENT_SECONDS, Fault};
use super::hops::{self, Way};
use super::local::{Local, LocalEvent, LocalFault, NotSendable};
use super::noted::Noted;
use super::status::{Counters, Status, is_worth_a_line};
use super::topics::{self, Direction, Route};
use super::trial::{Trial, is_passing};
use super::upstream::{IN_FLIGHT_MAX, Incoming, Sent, Upstream, UpstreamEvent, UpstreamFault};
use crate::codec::{PacketIdentifier, Publish, QoS, ReasonCode, UserProperties};
use crate::config::blob::{Bridge, TopicMap};
use crate::upstream::HELD_MAX;
use core::cell::{Cell, RefCell};
use embassy_time::{Duration, Instant, Timer};
use smol::future::{self, FutureExt as _};
use smol::io::{AsyncRead, AsyncWrite};

/// Longest time for which messages of the upstream are not taken.
const PAUSE_SECONDS_MAX: u64 = 60;
/// After so many events the other tasks have their turn, whatever else there is.
const EVENTS_MAX: u32 = 16;

/// What crosses, and how.
pub struct Rules<'a> {
    /// The bridge's settings.
    pub bridge: &'a Bridge,
    /// Client identifiers of all bridges of this gateway.
    pub own: &'a [String],
    /// What is to be known by the next process too.
    pub noted: &'a RefCell<Noted>,
    /// Keeps it.
    pub note: &'a dyn Fn(),
    /// What is known of a message of this broker's that was not taken.
    pub trial: &'a Cell<Trial>,
    /// Those in a row that have ended with [`Fault::Withheld`] or [`Fault::TooMany`].
    pub pauses: &'a Cell<u32>,
}

/// Messages of the upstream's are not taken any more.
#[derive(Clone, Copy)]
struct Pause {
    ends: Instant,
    /// What this broker has said of the first of them; `None`: there were too many.
    reason: Option<u8>,
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
        pause: None,
        since: Instant::now(),
        taken: 0,
        former: Vec::new(),
        subscribed: 0,
        is_asking: false,
        renamed: String::new(),
        response: String::new(),
    };
    let fault = match crossing.run(upstream, local).await {
        Ok(never) => match never {},
        Err(fault) => fault,
    };
    crossing.judge(&fault, upstream);
    fault
}

struct Crossing<'a> {
    rules: &'a Rules<'a>,
    status: &'a RefCell<Status>,
    /// Messages of the upstream's with QoS 1, in the order in which they came.
    arrivals: heapless::Deque<Arrival, HELD_MAX>,
    pause: Option<Pause>,
    /// When the upstream has last acknowledged something, or had nothing to acknowledge.
    since: Instant,
    /// Messages that the upstream has taken.
    taken: u64,
    /// Filters that the upstream has of earlier maps, which are given up.
    former: Vec<String>,
    /// Maps of what comes in that have been asked for.
    subscribed: usize,
    /// A filter's retained messages have been asked for.
    is_asking: bool,
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
        let mut events: u32 = 0;
        self.former = self.rules.noted.borrow_mut().ask(&self.rules.bridge.incoming);
        (self.rules.note)();
        loop {
            self.ask_for_retained(local)?;
            if !is_subscribing && let Some(filter) = self.former.last() {
                upstream.unsubscribe(filter).await?;
                is_subscribing = true;
            }
            if !is_subscribing && let Some(map) = self.rules.bridge.incoming.get(self.subscribed) {
                upstream.subscribe(map).await?;
                self.subscribed += 1;
                is_subscribing = true;
            }
            let is_awaiting = upstream.in_flight() > 0;
            if !is_awaiting {
                self.since = Instant::now();
            }
            events = events.wrapping_add(1);
            if events.is_multiple_of(EVENTS_MAX) {
                future::yield_now().await;
            }
            let over = self.pause.filter(|pause| pause.ends <= Instant::now());
            if let Some(pause) = over.filter(|_| !is_awaiting) {
                return Err(pause.reason.map_or(Fault::TooMany, Fault::Withheld));
            }
            let deadline = self.since + Duration::from_secs(ACKNOWLEDGEMENT_SECONDS);
            let deadline = self.pause.filter(|_| over.is_none()).map_or(deadline, |pause| deadline.min(pause.ends));
            let (may_take_in, is_drained) = (!is_stalled && over.is_none(), local.is_drained());
            let window = local.receive_maximum().min(usize::from(IN_FLIGHT_MAX));
            // TCP holds back what is more than this broker has answered, unless what the upstream acknowledges is waited for,
            // which is behind it.
            let is_heard = is_drained && (self.arrivals.len() < window || !may_take_in || self.pause.is_some());
            let happened = {
                let from_upstream = async {
                    // What it sends has to have room on its way to the broker.
                    if !is_heard {
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
                Happened::Late
                    if is_awaiting && self.since.elapsed() >= Duration::from_secs(ACKNOWLEDGEMENT_SECONDS) =>
                {
                    return Err(Fault::Unacknowledged);
                }
                Happened::Late => {}
                Happened::Local(event) => match event? {
                    LocalEvent::Nothing => {}
                    LocalEvent::Subscribed => self.retained_is_coming(),
                    LocalEvent::Answered(identifier, reason) => self.answered(identifier, reason),
                    LocalEvent::Message(publish) => {
                        let identifier = publish.packet_identifier;
                        let sent = match self.may_go(identifier, upstream) {
                            None => self.send(&publish, upstream).await?,
                            Some(sent) => sent,
                        };
                        match sent {
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
                    UpstreamEvent::Subscribed => {
                        (is_subscribing, is_stalled) = (false, false);
                        self.given_up();
                    }
                    UpstreamEvent::NotSubscribed(reason) => {
                        (is_subscribing, is_stalled) = (false, false);
                        if self.given_up() {
                            continue;
                        }
                        let map = self.rules.bridge.incoming.get(self.subscribed.saturating_sub(1));
                        self.not_subscribed(map, reason.into());
                    }
                    UpstreamEvent::Taken(token) => {
                        (is_stalled, self.since) = (false, Instant::now());
                        self.taken += 1;
                        // One that is not among the first is not there any more.
                        if self.rules.trial.get().token() == token || self.taken >= u64::from(IN_FLIGHT_MAX) {
                            self.rules.trial.take();
                        }
                        self.status.borrow_mut().counters.sent += 1;
                        acknowledge(local, token)?;
                    }
                    UpstreamEvent::Refused(token, reason) => {
                        (is_stalled, self.since) = (false, Instant::now());
                        let reason = u8::from(reason);
                        self.later(token, reason)?;
                        self.drop_one(|counters| &mut counters.dropped_refused, "the upstream refuses a message");
                        acknowledge(local, token)?;
                    }
                    UpstreamEvent::Message(message) => self.bring_in(&message, local)?,
                },
            }
            self.release(upstream);
            if self.pause.is_some() {
                upstream.withhold();
            }
        }
    }

    /// Asks for retained messages of filters that are new, one after the other.
    fn ask_for_retained<S: AsyncRead + AsyncWrite + Unpin>(&mut self, local: &mut Local<S>) -> Result<(), LocalFault> {
        if self.is_asking || !local.is_drained() {
            return Ok(());
        }
        let noted = self.rules.noted.borrow();
        let Some(filter) = noted.unsent.first() else { return Ok(()) };
        let map = self.rules.bridge.outgoing.iter().find(|map| map.local == *filter);
        self.is_asking = true;
        map.map_or(Ok(()), |map| local.ask_for_retained(map))
    }

    /// What is retained stands in the queue now, as far as it has QoS 1; it is not asked for again.
    fn retained_is_coming(&mut self) {
        if core::mem::take(&mut self.is_asking) {
            self.rules.noted.borrow_mut().unsent.remove(0);
            (self.rules.note)();
        }
    }

    /// The upstream has answered, and what it was asked for was the end of a former filter's subscription: whether it was.
    fn given_up(&mut self) -> bool {
        let Some(filter) = self.former.pop() else { return false };
        self.rules.noted.borrow_mut().incoming.retain(|known| *known != filter);
        (self.rules.note)();
        true
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
        outgoing.retain = publish.retain && map.retain && upstream.retains();
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
        if is_acknowledged {
            if self.arrivals.len() >= HELD_MAX.min(local.receive_maximum()) {
                self.pause(None);
            }
            if self.pause.is_some() {
                // What is behind one that could not be taken would overtake it.
                return Ok(());
            }
        }
        let awaits = message.look(&self.rules.bridge.remote.client_identifier, |message| self.publish(message, local));
        if is_acknowledged {
            // There is room: it was looked for.
            let _ = self.arrivals.push_back(Arrival { awaits });
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
    fn answered(&mut self, identifier: PacketIdentifier, reason: ReasonCode) {
        if is_passing(reason.as_u8(), self.rules.pauses.get()) {
            // It is never released, and so neither is what came behind it.
            self.pause(Some(reason.as_u8()));
            return;
        }
        if self.pause.is_none() {
            self.rules.pauses.set(0);
        }
        if reason.is_error() {
            self.drop_one(|counters| &mut counters.dropped_refused, "this broker refuses a message of the upstream");
        } else {
            self.status.borrow_mut().counters.received += 1;
        }
        if let Some(arrival) = self.arrivals.iter_mut().find(|arrival| arrival.awaits == Some(identifier)) {
            arrival.awaits = None;
        }
    }

    /// Takes nothing more from the upstream, for twice as long each time.
    fn pause(&mut self, reason: Option<u8>) {
        if self.pause.is_none() {
            let pauses = self.rules.pauses.get();
            self.rules.pauses.set(pauses.saturating_add(1));
            let seconds = 1_u64.checked_shl(pauses).unwrap_or(PAUSE_SECONDS_MAX).min(PAUSE_SECONDS_MAX);
            self.pause = Some(Pause { ends: Instant::now() + Duration::from_secs(seconds), reason });
        }
    }

    /// Lets the upstream have the acknowledgements that are due, in order.
    fn release(&mut self, upstream: &impl Upstream) {
        while self.arrivals.front().is_some_and(|arrival| arrival.awaits.is_none()) {
            self.arrivals.pop_front();
            upstream.acknowledge();
        }
    }

    /// Ends the crossing where a message may be taken another time; it stays with whom it came from.
    fn later(&self, token: u16, reason: u8) -> Result<(), Fault> {
        if let Some(trial) = self.rules.trial.get().refused(token, reason) {
            self.rules.trial.set(trial);
            return Err(Fault::Later(reason));
        }
        if self.rules.trial.get().token() == token {
            self.rules.trial.take();
        }
        Ok(())
    }

    /// What becomes of a message for the upstream without being sent; `None`: it is to be sent.
    fn may_go(&self, identifier: Option<PacketIdentifier>, upstream: &impl Upstream) -> Option<Sent> {
        let trial = self.rules.trial.get();
        let token = identifier?.get();
        if trial.token() == 0 {
            return None;
        }
        if trial.token() == token && trial.is_lost() {
            self.rules.trial.take();
            self.drop_one(
                |counters| &mut counters.dropped_refused,
                "the upstream ends the connection whenever it gets a message, which is dropped",
            );
            return Some(Sent::Forgotten);
        }
        upstream.tokens().next().map(|_| Sent::NotNow)
    }

    /// Notes over which message a connection has ended.
    fn judge(&self, fault: &Fault, upstream: &impl Upstream) {
        if let Fault::Upstream(fault) = fault {
            let trial = self.rules.trial.get();
            self.rules.trial.set(trial.after(fault, upstream.tokens(), self.since.elapsed()));
        }
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
