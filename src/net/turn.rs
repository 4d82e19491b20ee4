//! The turn: everything that happens between two waits, in a fixed order.
//!
//! Due timers, then reads (from a rotating start, with a byte budget for each connection and a number of handshake steps
//! for all), then writes for each connection that has something to say; where much is read, also in between. Generic over
//! the network, so that a simulation runs this very code.

use super::link::{FREE_RECEIVE_BYTES, Link, LinkState, OUTPUT_OVERHEAD_BYTES, SMALL_OUTPUT_BYTES};
use super::network::{Accepted, Interest, Io, Network, Readiness};
use super::pool::Pool;
use crate::authentication::Answer;
use crate::broker::{Admission, Broker, Connection, Settings, Succession, Then, Ticket};
use crate::collections::{DeadlineHeap, Key};
use crate::config::blob::ClientLimits;
use crate::limits::Capacities;
use crate::telemetry::{Cause, Table, Text};
use crate::time::{Instant, Now, Steadiness, UnixTime};
use crate::tls::{MAX_TLS_RECORD, ServerTls, TlsConnection};
use crate::websocket::{WebSocketFault, put_frame_header};
use rustls_pki_types::CertificateDer;
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

/// Bytes read from one connection in one turn.
const READ_BUDGET_BYTES: usize = 64 * 1024;
/// After so many bytes have been read, what they led to is sent before more is read: a message that is sent while the
/// processor still has it in its cache costs half, and its memory serves the next one.
const READ_BEFORE_SENDING_BYTES: usize = 64 * 1024;
/// Bytes given to one connection's socket in one turn.
const WRITE_BUDGET_BYTES: usize = 256 * 1024;
/// TLS handshake steps of all connections in one turn: one costs a millisecond or more on a gateway, and everybody who is
/// connected waits for it. The next turn follows at once.
const HANDSHAKE_STEPS_MAX: u32 = 1;
/// Connections accepted from one listener in one turn.
const ACCEPTS_MAX: u32 = 32;
/// A connection without CONNECT may be pushed out by a newer one after this time.
const UNADMITTED_GRACE_MILLISECONDS: u64 = 1_000;
/// How long a listener rests when nothing more can be accepted.
const ACCEPT_REST_MILLISECONDS: u64 = 100;
/// How long a client may take nothing of what is sent to it.
const SLOW_READER_MILLISECONDS: u64 = 30_000;
/// How long a packet may take to come while others wait for the receive buffers that it holds.
const SLOW_SENDER_MILLISECONDS: u64 = 30_000;
/// How often it is looked for such packets.
const LOOK_MILLISECONDS: u64 = 1_000;
/// Bytes that the buffers of a turn take, which all connections share, with those of the broker.
pub const SCRATCH_BYTES_MAX: u64 = 1024 * 1024;
/// More than a closing frame and an alert take, sealed.
const LAST_WORDS_BYTES: usize = 256;
/// How long what a peer still sends is thrown away after our last words.
const LINGER_MILLISECONDS: u64 = 1_000;
/// Certificate chains of live connections that are judged again in one turn.
const JUDGEMENTS_MAX: u32 = 4;

/// What the turn needs to know of one listening socket.
#[derive(Clone)]
pub struct ListenerSettings {
    /// Index of the port, for the broker.
    pub port: u16,
    /// What lies below MQTT.
    pub transport: Transport,
    /// Whether MQTT comes in WebSocket frames.
    pub websocket: bool,
}

/// What lies below MQTT on a port.
#[derive(Clone)]
pub enum Transport {
    /// TCP.
    Plain,
    /// TLS.
    Tls(ServerTls),
    /// TLS, for which there is no certificate yet: nobody is let in.
    AwaitsCertificate,
}

/// Sizes and listeners.
pub struct TurnSettings {
    /// One for each listening socket, in the network's order.
    pub listeners: Vec<ListenerSettings>,
    /// Sizes of tables.
    pub capacities: Capacities,
    /// When the wall clock is to be believed.
    pub clock_trust: ClockTrust,
}

/// When the wall clock is to be believed, for what must neither end early nor be forgotten over a restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClockTrust {
    /// Before this time it cannot be right.
    pub floor: UnixTime,
    /// Whether the machine has a clock that runs without power. Without one the time at start is a guess, and is believed
    /// when nobody has corrected it for a while.
    pub has_chip: bool,
}

impl ClockTrust {
    /// Whether `unix` is to be believed. `is_steady`: nobody has corrected the clock for a while.
    #[must_use]
    pub fn believes(self, unix: UnixTime, is_steady: bool) -> bool {
        unix >= self.floor && (self.has_chip || is_steady)
    }
}

/// What a configuration decides that may change while the broker serves.
pub struct Reconfiguration {
    /// Authenticators and policies, for the same ports.
    pub admission: Admission,
    /// By port: what becomes of its clients.
    pub successions: Vec<Succession>,
    /// The sizes of the tables, which are as they were.
    pub capacities: Capacities,
    /// Limits of clients.
    pub limits: ClientLimits,
    /// Settings of the gateway.
    pub settings: Settings,
    /// By port: what handshakes that begin from now on are made with. One without certificate keeps what it has.
    pub transports: Vec<Transport>,
    /// Stands for ports and authentication, see [`Broker::set_judges`].
    pub judges: u64,
}

/// Connections and the broker, and the order in which they are served.
pub struct Turn<N: Network> {
    /// The network.
    pub network: N,
    broker: Broker,
    listeners: Vec<ListenerSettings>,
    /// By index of the connection, as far as indices were used: memory of the others is not written.
    links: Vec<Option<Link<N::Stream>>>,
    connections_max: usize,
    /// By index of the connection: slow readers and lingering ends. Behind them: resting listeners.
    deadlines: DeadlineHeap,
    /// Connections that had not sent CONNECT when they were put here, oldest first.
    unadmitted: VecDeque<Key<Connection>>,
    /// Connections whose next handshake record is in our buffer already.
    continued: VecDeque<Key<Connection>>,
    /// Connections that are not read because the receive buffers are taken, in the order in which they are served.
    starved: VecDeque<Key<Connection>>,
    /// When it is looked next for those who make them wait.
    look: Instant,
    handshaking: u32,
    handshakes_max: u32,
    receive: Pool,
    transmit: Pool,
    /// Bytes of the largest packet, and of the record that its end stands in.
    largest: usize,
    input: Vec<u8>,
    plaintext: Vec<u8>,
    unframed: Vec<u8>,
    framed: Vec<u8>,
    output: Vec<u8>,
    sealed: Vec<u8>,
    rotation: usize,
    /// Bytes read since all was sent that there was to send.
    read_since_sent: usize,
    is_sending: bool,
    /// The next connection whose credential is judged again; `None` when all have been.
    judge_from: Option<u32>,
    steadiness: Steadiness,
    clock_trust: ClockTrust,
}

impl<N: Network> Turn<N> {
    /// A turn with nothing connected.
    #[must_use]
    pub fn new(network: N, broker: Broker, settings: TurnSettings) -> Self {
        let connections = settings.capacities.connections as usize;
        let listeners = u32::try_from(settings.listeners.len()).unwrap_or(0);
        let largest = settings.capacities.packet_bytes as usize + MAX_TLS_RECORD;
        let mut turn = Self {
            network,
            broker,
            links: Vec::with_capacity(connections),
            connections_max: connections,
            deadlines: DeadlineHeap::new(settings.capacities.connections.saturating_add(listeners)),
            unadmitted: VecDeque::with_capacity(connections),
            continued: VecDeque::with_capacity(settings.capacities.handshakes as usize),
            starved: VecDeque::with_capacity(connections),
            look: Instant::ZERO,
            handshaking: 0,
            handshakes_max: settings.capacities.handshakes,
            // A single connection gets what it needs, whatever the capacities.
            receive: Pool::new(largest.max(settings.capacities.receive_bytes as usize)),
            transmit: Pool::new(settings.capacities.transmit_bytes as usize),
            largest,
            input: vec![0; READ_BUDGET_BYTES],
            plaintext: Vec::with_capacity(READ_BUDGET_BYTES + MAX_TLS_RECORD),
            unframed: Vec::new(),
            framed: Vec::new(),
            output: vec![0; READ_BUDGET_BYTES],
            sealed: Vec::with_capacity(READ_BUDGET_BYTES + 4 * 1024),
            rotation: 0,
            read_since_sent: 0,
            is_sending: false,
            judge_from: None,
            steadiness: Steadiness::default(),
            clock_trust: settings.clock_trust,
            listeners: settings.listeners,
        };
        for (index, listener) in turn.listeners.iter().enumerate() {
            turn.network.listen(index, !matches!(listener.transport, Transport::AwaitsCertificate));
        }
        turn
    }

    /// Gives all listening sockets of a port another certificate, or their first one. Connections keep what they began
    /// with.
    pub fn set_tls(&mut self, port: u16, tls: &ServerTls) {
        for (index, listener) in self.listeners.iter_mut().enumerate().filter(|(_, listener)| listener.port == port) {
            if matches!(listener.transport, Transport::AwaitsCertificate) {
                self.network.listen(index, true);
            }
            let former = core::mem::replace(&mut listener.transport, Transport::Tls(tls.clone()));
            if let Transport::Tls(former) = former {
                former.retire_tickets();
            }
        }
    }

    /// Puts another configuration in force, between two turns. Clients are judged again in the following ones, each before
    /// anything is taken from or given to it.
    pub fn reconfigure(&mut self, now: Now, new: Reconfiguration) {
        let mut unasked = Vec::new();
        while let Some((ticket, _)) = self.broker.next_question() {
            unasked.push(ticket);
        }
        self.broker.replace_admission(new.admission, &new.successions);
        self.broker.set_limits(now.instant, &new.capacities, &new.limits, &new.settings);
        self.broker.set_judges(new.judges);
        for (port, transport) in (0_u16..).zip(&new.transports) {
            if let Transport::Tls(tls) = transport {
                self.set_tls(port, tls);
            }
        }
        for ticket in unasked {
            self.answer(now, ticket, Answer::Unavailable("authentication was replaced".to_owned()));
        }
        self.judge_again();
    }

    /// Trust or revocation have changed: no ticket from before lets anyone in, and all credentials are judged again.
    pub fn trust_changed(&mut self) {
        for listener in &mut self.listeners {
            if let Transport::Tls(tls) = &mut listener.transport {
                *tls = tls.with_new_tickets();
            }
        }
        self.judge_again();
    }

    /// Judges the credentials of all connections again, some each turn: trust, revocation or the clock have changed.
    pub fn judge_again(&mut self) {
        self.judge_from = Some(0);
    }

    /// Brings the answer to a question of the broker.
    pub fn answer(&mut self, now: Now, ticket: Ticket, answer: Answer) {
        let Some(key) = self.broker.asker(ticket) else { return };
        let link = self.links.get(key.index() as usize).and_then(Option::as_ref);
        let chain = link.and_then(|link| link.tls.as_ref()).map(|tls| tls.peer_chain()).unwrap_or_default();
        self.broker.answer(now, ticket, chain, answer);
    }

    /// The broker, for what the shell asks of it between turns.
    pub fn broker(&mut self) -> &mut Broker {
        &mut self.broker
    }

    /// Address of a connection's client.
    #[must_use]
    pub fn peer(&self, key: Key<Connection>) -> Option<SocketAddr> {
        self.links.get(key.index() as usize)?.as_ref().map(|link| link.peer)
    }

    /// Open connections, those that linger included.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.broker.in_use().connections
    }

    /// Whether there is something to do now, without waiting for anything.
    #[must_use]
    pub fn has_work(&self) -> bool {
        !self.continued.is_empty() || self.judge_from.is_some() || self.broker.has_work()
    }

    /// When there is something to do even if no socket is ready.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        let own = self.deadlines.earliest().map(|(at, _)| at);
        let look = (!self.starved.is_empty()).then_some(self.look);
        own.into_iter().chain(look).chain(self.broker.next_deadline()).min()
    }

    /// One turn. `ready` is what the poller saw.
    pub fn run(&mut self, now: Now, ready: &[Readiness]) {
        self.watch_clock(now);
        self.broker.expire(now);
        self.expire(now);
        self.judge_some(now);
        let mut handshake_steps = HANDSHAKE_STEPS_MAX;
        for _ in 0..self.continued.len() {
            let Some(key) = self.continued.pop_front() else { break };
            self.continue_handshake(now, key, &mut handshake_steps);
        }
        // From another start each time, so that no connection is always served last.
        self.rotation = self.rotation.wrapping_add(1);
        let (late, early) = ready.split_at(if ready.is_empty() { 0 } else { self.rotation % ready.len() });
        for readiness in early.iter().chain(late) {
            match Key::from_bits(readiness.token) {
                Some(key) => {
                    if readiness.writable {
                        self.writable(now, key);
                    }
                    if readiness.readable {
                        self.readable(now, key, readiness.hung_up, &mut handshake_steps);
                    }
                }
                None => self.accept_from(now, usize::try_from(readiness.token).unwrap_or(usize::MAX)),
            }
            if self.read_since_sent >= READ_BEFORE_SENDING_BYTES {
                self.flush(now);
            }
        }
        self.broker.work(now.instant);
        self.flush(now);
        self.feed_starved(now);
    }

    /// A wall clock that was set is a reason to look at all credentials again.
    fn watch_clock(&mut self, now: Now) {
        let step = self.steadiness.look(now);
        self.broker.set_clock(now, self.clock_trust.believes(now.unix, self.steadiness.is_steady(now.instant)));
        if let Some(seconds) = step {
            log::warn!("the clock was set by {seconds} s, to {}", now.unix);
            self.broker.clock_was_set();
            self.judge_again();
        }
    }

    fn judge_some(&mut self, now: Now) {
        let Some(first) = self.judge_from else { return };
        let slots = u32::try_from(self.links.len()).unwrap_or(u32::MAX);
        let mut left = JUDGEMENTS_MAX;
        for slot in first..slots {
            if left == 0 {
                self.judge_from = Some(slot);
                return;
            }
            let Some(key) = self.broker.connection_at(slot) else { continue };
            let link = self.links.get(slot as usize).and_then(Option::as_ref);
            let chain = link.and_then(|link| link.tls.as_ref()).map(|tls| tls.peer_chain()).unwrap_or_default();
            left -= u32::from(!chain.is_empty());
            self.broker.judge_again(now, key, chain);
        }
        self.judge_from = None;
    }

    /// Reads those again that waited for a grant, the first of them first, as far as the receive buffers suffice.
    fn feed_starved(&mut self, now: Now) {
        if !self.starved.is_empty() && now.instant >= self.look {
            self.look = now.instant.plus_milliseconds(LOOK_MILLISECONDS);
            self.close_slow_senders(now);
        }
        while let Some(key) = self.starved.front().copied() {
            let wanted = self.link(key).map_or(0, |link| link.needed().saturating_sub(link.granted));
            let is_there = self.broker.connection_at(key.index()) == Some(key);
            if is_there && wanted > self.receive.left() {
                return;
            }
            self.starved.pop_front();
            if let Some(mut link) = self.take_link(key) {
                link.starving = false;
                self.put_link(key, link);
            }
        }
    }

    /// Closes those whose packet has been coming for too long: others wait for the receive buffers that they hold.
    fn close_slow_senders(&mut self, now: Now) {
        for slot in 0..self.links.len() {
            let Some(link) = self.links.get(slot).and_then(Option::as_ref) else { continue };
            let holds = link.granted > 0 && link.state == LinkState::Open && link.backlog() > 0;
            if holds
                && now.instant.milliseconds_since(link.begun) >= SLOW_SENDER_MILLISECONDS
                && let Some(key) = self.key_of(slot)
            {
                self.drop_link(now, key, Cause::SlowSender, Text::default());
            }
        }
    }

    /// Tells every client that the broker stops. Further turns send what is left.
    pub fn shut_down(&mut self, now: Now) {
        self.broker.shut_down(now);
        self.flush(now);
    }

    fn expire(&mut self, now: Now) {
        while let Some(slot) = self.deadlines.pop_due(now.instant) {
            let slot = slot as usize;
            if let Some(index) = slot.checked_sub(self.connections_max) {
                self.network.listen(index, true);
            } else if let Some(link) = self.links.get(slot).and_then(Option::as_ref) {
                let cause = match link.state {
                    LinkState::Lingering => Cause::NetworkClosed,
                    _ => Cause::SlowReader,
                };
                if let Some(key) = self.key_of(slot) {
                    self.drop_link(now, key, cause, Text::default());
                }
            }
        }
    }

    fn key_of(&self, slot: usize) -> Option<Key<Connection>> {
        self.broker.connection_at(u32::try_from(slot).ok()?)
    }

    // --- accepting

    fn accept_from(&mut self, now: Now, index: usize) {
        for _ in 0..ACCEPTS_MAX {
            let Some(settings) = self.listeners.get(index).cloned() else { return };
            let tls = matches!(settings.transport, Transport::Tls(_));
            if tls && self.handshaking >= self.handshakes_max {
                self.broker.telemetry().full(Table::Handshakes);
                if !self.push_out_oldest(now) {
                    return self.rest(now, index);
                }
            }
            match self.network.accept(index) {
                Accepted::Stream(stream, peer) => self.admit(now, settings, stream, peer),
                Accepted::Nothing => return,
                Accepted::Exhausted => {
                    log::error!("no file descriptor left for new connections");
                    return self.rest(now, index);
                }
            }
        }
    }

    /// Takes a stream in whose client is the insider with this client identifier, see [`crate::broker::Insider`]. Returns
    /// whether there is such a one; the stream is closed if not.
    pub fn take_in(&mut self, now: Now, client_identifier: &str, stream: N::Stream) -> bool {
        let Some(port) = self.broker.port_of_insider(client_identifier) else {
            self.network.close(stream);
            return false;
        };
        let settings = ListenerSettings { port, transport: Transport::Plain, websocket: false };
        self.admit(now, settings, stream, SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0));
        true
    }

    fn admit(&mut self, now: Now, settings: ListenerSettings, stream: N::Stream, peer: SocketAddr) {
        let tls = match &settings.transport {
            Transport::Plain => None,
            Transport::Tls(tls) => match TlsConnection::accept(tls) {
                Ok(tls) => Some(Box::new(tls)),
                Err(fault) => {
                    log::error!("{peer}: cannot begin a TLS session: {fault}");
                    return self.network.close(stream);
                }
            },
            Transport::AwaitsCertificate => return self.network.close(stream),
        };
        let opened = self.broker.open(now.instant, settings.port).or_else(|full| {
            if self.push_out_oldest(now) { self.broker.open(now.instant, settings.port) } else { Err(full) }
        });
        let Ok(key) = opened else {
            log::warn!("{peer}: connection refused, the connection table is full");
            return self.network.close(stream);
        };
        let mut link = Link::new(stream, peer, tls, now.instant);
        link.websocket = settings.websocket.then(Box::default);
        if !self.network.watch(&link.stream, key.to_bits(), link.interest) {
            log::error!("{peer}: cannot watch the socket");
            self.broker.closed(now, key, Cause::NetworkClosed, Text::default());
            return self.network.close(link.stream);
        }
        self.handshaking += u32::from(link.tls.is_some());
        if self.unadmitted.len() == self.unadmitted.capacity() {
            self.forget_admitted();
        }
        self.unadmitted.push_back(key);
        log::debug!("{peer}: accepted");
        let slot = key.index() as usize;
        match self.links.get_mut(slot) {
            Some(place) => *place = Some(link),
            None => {
                self.links.resize_with(slot, || None);
                self.links.push(Some(link));
            }
        }
    }

    fn forget_admitted(&mut self) {
        let broker = &self.broker;
        self.unadmitted.retain(|key| broker.awaits_connect(*key));
    }

    /// Makes room by closing the oldest connection that has not sent CONNECT, unless it is young too.
    fn push_out_oldest(&mut self, now: Now) -> bool {
        while let Some(key) = self.unadmitted.front().copied() {
            if !self.broker.awaits_connect(key) {
                self.unadmitted.pop_front();
                continue;
            }
            let opened = self.link(key).map(|link| link.opened);
            if opened.is_some_and(|at| now.instant.milliseconds_since(at) < UNADMITTED_GRACE_MILLISECONDS) {
                return false;
            }
            self.unadmitted.pop_front();
            self.drop_link(now, key, Cause::ConnectDeadline, Text::new("its place was needed"));
            return true;
        }
        false
    }

    fn rest(&mut self, now: Now, index: usize) {
        self.network.listen(index, false);
        if let Ok(slot) = u32::try_from(self.connections_max + index) {
            self.deadlines.set(slot, now.instant.plus_milliseconds(ACCEPT_REST_MILLISECONDS));
        }
    }

    // --- reading

    fn link(&mut self, key: Key<Connection>) -> Option<&mut Link<N::Stream>> {
        self.links.get_mut(key.index() as usize)?.as_mut()
    }

    /// Takes the link out of the table while it is worked on; `None` for a token of a connection that is gone.
    fn take_link(&mut self, key: Key<Connection>) -> Option<Link<N::Stream>> {
        if self.broker.connection_at(key.index()) != Some(key) {
            return None;
        }
        let link = self.links.get_mut(key.index() as usize)?.take()?;
        self.transmit.give_back(link.held());
        Some(link)
    }

    fn put_link(&mut self, key: Key<Connection>, mut link: Link<N::Stream>) {
        for buffer in [&mut link.sealed, &mut link.received, &mut link.outgoing] {
            if buffer.is_empty() && buffer.capacity() > 0 {
                *buffer = Vec::new();
            }
        }
        let starved = !self.settle_receive(&mut link) && link.state == LinkState::Open;
        if starved && !link.starving {
            self.starve(key);
            link.starving = true;
        }
        let wanted = Interest {
            read: match link.state {
                LinkState::Open => !starved,
                LinkState::Lingering => true,
                LinkState::Paused | LinkState::Flushing => false,
            },
            write: !link.is_drained(),
        };
        if wanted != link.interest {
            link.interest = wanted;
            self.network.change(&link.stream, key.to_bits(), wanted);
        }
        self.transmit.take(link.held());
        if let Some(place) = self.links.get_mut(key.index() as usize) {
            *place = Some(link);
        }
    }

    /// Gives back what a link does not need of the receive buffers, or takes what it needs. Returns whether it can be read on.
    fn settle_receive(&mut self, link: &mut Link<N::Stream>) -> bool {
        let needed = link.needed();
        // Memory that is held without need spares allocations, while there is enough.
        if link.buffered() > needed.max(FREE_RECEIVE_BYTES)
            && (self.receive.is_short() || link.buffered() > link.granted + self.receive.left())
        {
            link.shrink();
        }
        let wanted = needed.max(link.buffered());
        self.receive.grant(&mut link.granted, if wanted > FREE_RECEIVE_BYTES { wanted } else { 0 });
        link.backlog() < link.allowance()
    }

    /// Puts a connection behind those that wait for receive buffers.
    fn starve(&mut self, key: Key<Connection>) {
        self.broker.telemetry().full(Table::ReceiveBuffers);
        if self.starved.len() == self.starved.capacity() {
            let broker = &self.broker;
            self.starved.retain(|key| broker.connection_at(key.index()) == Some(*key));
        }
        self.starved.push_back(key);
    }

    /// Bytes that may be read now. Many only where the largest packet would have room, so that whoever holds a part of the
    /// receive buffers gets the rest of his packet too: nobody waits for another who waits.
    fn bytes_to_read(&mut self, link: &mut Link<N::Stream>) -> usize {
        let largest = self.largest;
        self.receive.grant(&mut link.granted, largest);
        (link.allowance().saturating_sub(link.backlog())).min(READ_BUDGET_BYTES)
    }

    fn readable(&mut self, now: Now, key: Key<Connection>, hung_up: bool, handshake_steps: &mut u32) {
        let Some(mut link) = self.take_link(key) else { return };
        let handshake = link.tls.as_ref().is_some_and(|tls| !tls.is_established());
        if handshake && *handshake_steps == 0 {
            // Its bytes stay in the socket; the poller names it again.
            return self.put_link(key, link);
        }
        match link.state {
            // The poller would name it again and again.
            LinkState::Paused | LinkState::Flushing if hung_up => {
                return self.drop_taken(now, key, link, Cause::NetworkClosed, Text::new("connection reset"));
            }
            LinkState::Paused | LinkState::Flushing => return self.put_link(key, link),
            LinkState::Lingering => return self.discard(now, key, link),
            LinkState::Open => {}
        }
        let bytes_to_read = self.bytes_to_read(&mut link);
        match bytes_to_read {
            // As above: it is not read, and would be named again and again.
            0 if hung_up => {
                return self.drop_taken(now, key, link, Cause::NetworkClosed, Text::new("connection reset"));
            }
            0 => return self.put_link(key, link),
            _ => {}
        }
        let mut input = core::mem::take(&mut self.input);
        let outcome = self.network.read(&mut link.stream, input.get_mut(..bytes_to_read).unwrap_or_default());
        let ended = match outcome {
            Io::Bytes(0) => Some((Cause::NetworkClosed, Text::default())),
            Io::Failed => Some((Cause::NetworkClosed, Text::new("connection reset"))),
            Io::WouldBlock => None,
            Io::Bytes(bytes) => {
                self.read_since_sent += bytes;
                let bytes = input.get_mut(..bytes).unwrap_or_default();
                if link.tls.is_some() {
                    self.receive_sealed(now, key, &mut link, bytes, handshake_steps)
                } else {
                    let ended = self.receive_framed(now, key, &mut link, bytes);
                    if self.write_outgoing(now, key, &mut link) {
                        ended
                    } else {
                        ended.or(Some((Cause::NetworkClosed, Text::default())))
                    }
                }
            }
        };
        self.input = input;
        self.put_or_end(now, key, link, ended);
    }

    /// Puts the link back, or ends it: after a fault of TLS or of a frame our last words go out first.
    fn put_or_end(&mut self, now: Now, key: Key<Connection>, link: Link<N::Stream>, ended: Option<(Cause, Text)>) {
        match ended {
            None => self.put_link(key, link),
            Some((cause @ (Cause::TlsFailed | Cause::WebSocketEnded), detail)) => {
                if cause == Cause::TlsFailed {
                    log::info!("{}: refused by TLS: {detail}", link.peer);
                } else if !detail.is_empty() {
                    log::info!("{}: {detail}", link.peer);
                }
                self.broker.abandon(now, key, cause, detail);
                self.put_link(key, link);
            }
            Some((cause, detail)) => self.drop_taken(now, key, link, cause, detail),
        }
    }

    /// Goes on with a handshake whose next record has been read.
    fn continue_handshake(&mut self, now: Now, key: Key<Connection>, handshake_steps: &mut u32) {
        let Some(mut link) = self.take_link(key) else { return };
        if *handshake_steps == 0 {
            self.continued.push_back(key);
            return self.put_link(key, link);
        }
        let ended = self.receive_sealed(now, key, &mut link, &mut [], handshake_steps);
        self.put_or_end(now, key, link, ended);
    }

    /// Reads and forgets what the peer sends after our last words.
    fn discard(&mut self, now: Now, key: Key<Connection>, mut link: Link<N::Stream>) {
        let mut input = core::mem::take(&mut self.input);
        let outcome = self.network.read(&mut link.stream, &mut input);
        self.input = input;
        match outcome {
            Io::Bytes(0) | Io::Failed => self.drop_taken(now, key, link, Cause::NetworkClosed, Text::default()),
            Io::Bytes(_) | Io::WouldBlock => self.put_link(key, link),
        }
    }

    /// Takes plaintext out of its frames, where there are some, and gives it to the broker. Returns why the connection is
    /// over, if it is.
    fn receive_framed(
        &mut self,
        now: Now,
        key: Key<Connection>,
        link: &mut Link<N::Stream>,
        bytes: &[u8],
    ) -> Option<(Cause, Text)> {
        let Some(websocket) = link.websocket.as_mut() else {
            self.receive_plain(now, key, link, bytes);
            return None;
        };
        let (mut data, mut answer) = (core::mem::take(&mut self.unframed), core::mem::take(&mut self.framed));
        data.clear();
        answer.clear();
        let may_pong = link.outgoing.is_empty();
        let fault = websocket.receive(bytes, &mut data, &mut answer, may_pong).err();
        if !answer.is_empty() {
            match link.tls.as_mut() {
                None => link.outgoing.extend_from_slice(&answer),
                // A connection that cannot be written to any more ends with its next read.
                Some(tls) => drop(tls.send(&answer, &mut link.outgoing)),
            }
        }
        // Others may be sent to from here on, and need it.
        self.framed = answer;
        if !data.is_empty() {
            self.receive_plain(now, key, link, &data);
        }
        self.unframed = data;
        fault.map(|fault| match fault {
            WebSocketFault::Closed => (Cause::WebSocketEnded, Text::default()),
            fault => (Cause::WebSocketEnded, Text::of(fault)),
        })
    }

    /// Gives plaintext to the broker and keeps what it does not take.
    fn receive_plain(&mut self, now: Now, key: Key<Connection>, link: &mut Link<N::Stream>, bytes: &[u8]) {
        let chain = link.tls.as_ref().map(|tls| tls.peer_chain()).unwrap_or_default();
        let was_empty = link.received.is_empty();
        let (consumed, then) = if was_empty {
            let (consumed, then) = self.give(now, key, chain, bytes, link.held());
            let rest = bytes.get(consumed..).unwrap_or_default();
            link.received.reserve_exact(rest.len());
            link.received.extend_from_slice(rest);
            (consumed, then)
        } else {
            // Not by half as much again: what it takes was granted.
            link.received.reserve_exact(bytes.len());
            link.received.extend_from_slice(bytes);
            let (consumed, then) = self.give(now, key, chain, &link.received, link.held());
            link.received.drain(..consumed);
            (consumed, then)
        };
        if was_empty || consumed > 0 {
            link.begun = now.instant;
        }
        match then {
            Then::NeedBytes(packet_bytes) => {
                // Once, not step by step, when the packet's size is known and granted.
                link.packet_bytes = packet_bytes as usize;
                if link.packet_bytes > link.received.len() && link.needed() <= link.allowance() {
                    link.received.reserve_exact(link.packet_bytes - link.received.len());
                }
            }
            Then::Paused => {
                link.state = LinkState::Paused;
                link.packet_bytes = 0;
            }
            Then::Closing => link.received.clear(),
            Then::SendFirst => {}
        }
    }

    /// Gives bytes to the broker until it takes no more; how many it took, and what it waits for. What it wants to be sent first
    /// is sent, but not to this connection, which is not in its place; `held` are the bytes that it holds of the transmit buffers.
    fn give(
        &mut self,
        now: Now,
        key: Key<Connection>,
        chain: &[CertificateDer<'_>],
        bytes: &[u8],
        held: usize,
    ) -> (usize, Then) {
        let mut consumed = 0;
        loop {
            let received = self.broker.receive(now, key, chain, bytes.get(consumed..).unwrap_or_default());
            consumed += received.consumed;
            if received.then != Then::SendFirst {
                return (consumed, received.then);
            }
            // One that was waiting for room gives bytes too, out of the middle of a flush.
            if !self.is_sending {
                self.transmit.take(held);
                let ready = self.broker.begin_sending();
                self.send_to(now, ready);
                self.transmit.give_back(held);
                self.broker.make_ready(key);
            }
        }
    }

    /// Decrypts, and gives the plaintext to the broker. One handshake step at most; the next one waits for the next turn.
    /// Returns why the connection is over, if it is.
    fn receive_sealed(
        &mut self,
        now: Now,
        key: Key<Connection>,
        link: &mut Link<N::Stream>,
        bytes: &mut [u8],
        handshake_steps: &mut u32,
    ) -> Option<(Cause, Text)> {
        let mut stored = core::mem::take(&mut link.sealed);
        let begins = stored.is_empty();
        let ciphertext: &mut [u8] = if stored.is_empty() {
            bytes
        } else {
            stored.extend_from_slice(bytes);
            &mut stored
        };
        let mut plaintext = core::mem::take(&mut self.plaintext);
        plaintext.clear();
        let mut offset = 0;
        let mut ended = None;
        while let Some(tls) = link.tls.as_mut() {
            let rest = ciphertext.get_mut(offset..).unwrap_or_default();
            let handshake = !tls.is_established();
            match tls.receive(rest, &mut link.outgoing, |piece| plaintext.extend_from_slice(piece)) {
                Ok(received) => {
                    offset += received.consumed;
                    if received.peer_closed {
                        ended = Some((Cause::NetworkClosed, Text::default()));
                    } else if received.more && !handshake {
                        continue;
                    } else if received.more {
                        *handshake_steps = handshake_steps.saturating_sub(1);
                        self.continued.push_back(key);
                    } else if handshake && received.consumed > 0 {
                        *handshake_steps = handshake_steps.saturating_sub(1);
                    }
                }
                Err(fault) => ended = Some((Cause::TlsFailed, Text::of(&fault))),
            }
            break;
        }
        self.settle_handshake(link);
        if link.received.is_empty() && (begins || offset > 0) {
            link.begun = now.instant;
        }
        link.sealed.extend_from_slice(ciphertext.get(offset..).unwrap_or_default());
        if !plaintext.is_empty() {
            ended = self.receive_framed(now, key, link, &plaintext).or(ended);
        }
        self.plaintext = plaintext;
        // The alert of a fault goes out too.
        if !self.write_outgoing(now, key, link) && ended.is_none() {
            ended = Some((Cause::NetworkClosed, Text::default()));
        }
        ended
    }

    /// Frees the handshake's slot once it is finished.
    fn settle_handshake(&mut self, link: &mut Link<N::Stream>) {
        if link.handshaking && link.tls.as_ref().is_none_or(|tls| tls.is_established()) {
            link.handshaking = false;
            self.handshaking -= 1;
            let counters = &mut self.broker.telemetry().counters;
            match &link.tls {
                Some(tls) if tls.is_resumed() => counters.handshakes_resumed += 1,
                Some(_) => counters.handshakes_full += 1,
                None => {}
            }
        }
    }

    // --- writing

    fn writable(&mut self, now: Now, key: Key<Connection>) {
        let Some(mut link) = self.take_link(key) else { return };
        if self.write_outgoing(now, key, &mut link) {
            self.transmit(now, key, link);
        } else {
            self.drop_taken(now, key, link, Cause::NetworkClosed, Text::default());
        }
    }

    fn flush(&mut self, now: Now) {
        self.broker.begin_sending();
        self.send_to(now, usize::MAX);
    }

    /// Sends to at most so many connections that have something to say.
    fn send_to(&mut self, now: Now, connections: usize) {
        self.read_since_sent = 0;
        self.is_sending = true;
        for _ in 0..connections {
            let Some(key) = self.broker.next_ready() else { break };
            if let Some(link) = self.take_link(key) {
                self.transmit(now, key, link);
            }
        }
        self.is_sending = false;
    }

    /// Bytes that the broker is asked for at once: few while the transmit buffers could not take many.
    fn output_bytes(&mut self) -> usize {
        if self.transmit.left() >= READ_BUDGET_BYTES + OUTPUT_OVERHEAD_BYTES {
            return READ_BUDGET_BYTES;
        }
        self.broker.telemetry().full(Table::TransmitBuffers);
        SMALL_OUTPUT_BYTES
    }

    /// Asks the broker for bytes and gives them to the socket until one of them has no more.
    fn transmit(&mut self, now: Now, key: Key<Connection>, mut link: Link<N::Stream>) {
        let mut budget = WRITE_BUDGET_BYTES;
        let mut output = core::mem::take(&mut self.output);
        let mut broken = false;
        if !link.is_drained() && !link.hurried && self.broker.is_closing(key) {
            // A client that does not read gets no more time than one that does.
            link.hurried = true;
            self.deadlines.set(key.index(), now.instant.plus_milliseconds(LINGER_MILLISECONDS));
        }
        while link.is_drained() && !broken && matches!(link.state, LinkState::Open | LinkState::Paused) {
            let room = self.output_bytes();
            let transmitted = self.broker.transmit(now, key, output.get_mut(..room).unwrap_or_default());
            let bytes = output.get(..transmitted.bytes).unwrap_or_default();
            if !bytes.is_empty() {
                broken = !self.send(now, key, &mut link, bytes);
            }
            if transmitted.close.is_some() {
                self.broker.finish(now, key);
                link.state = LinkState::Flushing;
                link.received.clear();
                if let Some(websocket) = link.websocket.as_mut() {
                    let mut frame = core::mem::take(&mut self.framed);
                    frame.clear();
                    websocket.close(&mut frame);
                    match link.tls.as_mut() {
                        None => link.outgoing.extend_from_slice(&frame),
                        Some(tls) => drop(tls.send(&frame, &mut link.outgoing)),
                    }
                    self.framed = frame;
                }
                if let Some(tls) = link.tls.as_mut() {
                    tls.close_notify(&mut link.outgoing);
                }
                self.deadlines.set(key.index(), now.instant.plus_milliseconds(LINGER_MILLISECONDS));
                broken = broken || !self.write_outgoing(now, key, &mut link);
                break;
            }
            if !transmitted.more {
                break;
            }
            budget = budget.saturating_sub(transmitted.bytes);
            if budget == 0 {
                // The others first: it is named again at the end of the line.
                self.broker.make_ready(key);
                break;
            }
        }
        self.output = output;
        if broken {
            return self.drop_taken(now, key, link, Cause::NetworkClosed, Text::default());
        }
        if link.state == LinkState::Flushing && link.is_drained() {
            self.network.finish(&mut link.stream);
            link.state = LinkState::Lingering;
            self.deadlines.set(key.index(), now.instant.plus_milliseconds(LINGER_MILLISECONDS));
        }
        if link.state == LinkState::Paused && link.is_drained() {
            // There is room for replies again.
            link.state = LinkState::Open;
            self.receive_plain(now, key, &mut link, &[]);
        }
        self.put_link(key, link);
    }

    /// Sends MQTT bytes, framed where the port has WebSockets and sealed where it has TLS. Returns whether the connection holds.
    fn send(&mut self, now: Now, key: Key<Connection>, link: &mut Link<N::Stream>, bytes: &[u8]) -> bool {
        if link.websocket.is_none() {
            return self.send_unframed(now, key, link, bytes);
        }
        let mut framed = core::mem::take(&mut self.framed);
        framed.clear();
        put_frame_header(bytes.len(), &mut framed);
        framed.extend_from_slice(bytes);
        let holds = self.send_unframed(now, key, link, &framed);
        self.framed = framed;
        holds
    }

    fn send_unframed(&mut self, now: Now, key: Key<Connection>, link: &mut Link<N::Stream>, bytes: &[u8]) -> bool {
        let mut sealed = core::mem::take(&mut self.sealed);
        sealed.clear();
        let holds = match link.tls.as_mut() {
            None => self.write(now, key, link, bytes),
            Some(tls) => tls.send(bytes, &mut sealed).is_ok() && self.write(now, key, link, &sealed),
        };
        self.sealed = sealed;
        holds
    }

    /// Writes to a socket that has taken everything so far, and keeps what it does not take.
    fn write(&mut self, now: Now, key: Key<Connection>, link: &mut Link<N::Stream>, bytes: &[u8]) -> bool {
        let taken = match self.network.write(&mut link.stream, bytes) {
            Io::Bytes(taken) => taken,
            Io::WouldBlock => 0,
            Io::Failed => return false,
        };
        let rest = bytes.get(taken..).unwrap_or_default();
        if !rest.is_empty() {
            // With room for the last words.
            link.outgoing.reserve_exact(rest.len() + LAST_WORDS_BYTES);
            link.outgoing.extend_from_slice(rest);
            link.outgoing_sent = 0;
            self.deadlines.set(key.index(), now.instant.plus_milliseconds(SLOW_READER_MILLISECONDS));
        }
        true
    }

    /// Writes what was kept. Returns whether the connection holds.
    fn write_outgoing(&mut self, now: Now, key: Key<Connection>, link: &mut Link<N::Stream>) -> bool {
        while !link.is_drained() {
            let rest = link.outgoing.get(link.outgoing_sent..).unwrap_or_default();
            match self.network.write(&mut link.stream, rest) {
                Io::Bytes(taken) => {
                    link.outgoing_sent += taken;
                    let patience = match link.state {
                        LinkState::Open | LinkState::Paused => SLOW_READER_MILLISECONDS,
                        LinkState::Flushing | LinkState::Lingering => LINGER_MILLISECONDS,
                    };
                    if !link.hurried {
                        self.deadlines.set(key.index(), now.instant.plus_milliseconds(patience));
                    }
                    if link.outgoing_sent == link.outgoing.len() {
                        link.outgoing.clear();
                        link.outgoing_sent = 0;
                        self.deadlines.cancel(key.index());
                    }
                }
                Io::WouldBlock => return true,
                Io::Failed => return false,
            }
        }
        true
    }

    // --- ending

    fn drop_link(&mut self, now: Now, key: Key<Connection>, cause: Cause, detail: Text) {
        match self.take_link(key) {
            Some(link) => self.drop_taken(now, key, link, cause, detail),
            None => self.broker.closed(now, key, cause, detail),
        }
    }

    fn drop_taken(&mut self, now: Now, key: Key<Connection>, link: Link<N::Stream>, cause: Cause, detail: Text) {
        self.handshaking -= u32::from(link.handshaking);
        self.broker.telemetry().counters.handshakes_failed += u64::from(link.handshaking);
        log::debug!("{}: closed", link.peer);
        self.deadlines.cancel(key.index());
        self.receive.give_back(link.granted);
        self.broker.closed(now, key, cause, detail);
        self.network.close(link.stream);
    }
}

mod observe;

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
