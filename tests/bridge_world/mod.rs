//! A bridge between two brokers in one thread, without sockets: everything is the product's code but the wires, the clients and
//! the time.
//!
//! The wire to the upstream can be cut behind any packet, in its middle, or go silent.
#![allow(dead_code)] // each test uses its part

mod disk;

pub use disk::MemoryDisk;

use portcullis::bridge::{Bridging, Noted, Status, Surroundings, insider_name};
use portcullis::broker::{
    Admission, Broker, Connection, Durability, INSIDE_PREFIX, Insider, InsiderQueue, PortAdmission, Settings,
};
use portcullis::codec::{
    Acknowledgement, Connect, ConnectProperties, Packet, PacketIdentifier, ProtocolVersion, Publish, PublishProperties,
    QoS, ReasonCode, Subscribe, SubscribeFilters, SubscribeProperties, SubscriptionOptions, UserProperties, Writer,
    decode, decode_fixed_header,
};
use portcullis::collections::Key;
use portcullis::config::blob::{
    Bridge, BridgeIdentity, BridgeRemote, ClientLimits, Kept, Persistence, QueueStrategy, TopicMap,
};
use portcullis::limits::Capacities;
use portcullis::platform::SimulatedClock;
use portcullis::store::{Batch, Room, Sizes, recover};
use portcullis::telemetry::{Cause, Text};
use portcullis::time::{Instant, Now, UnixTime};
use smol::io::{AsyncRead, AsyncWrite};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

const VERSION: ProtocolVersion = ProtocolVersion::V5;
/// Bytes that wait in a wire at most.
const WIRE_BYTES: usize = 8_192;

/// xorshift64*: enough for a test, and the same everywhere.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % bound
    }
}

/// One way of a wire.
#[derive(Default)]
struct OneWay {
    bytes: VecDeque<u8>,
    waker: Option<Waker>,
}

/// A wire between a client and a broker.
#[derive(Default)]
pub struct Wire {
    to_broker: OneWay,
    to_client: OneWay,
    client_gone: bool,
    broker_gone: bool,
}

impl Wire {
    fn wake(&mut self) {
        for way in [&mut self.to_broker, &mut self.to_client] {
            if let Some(waker) = way.waker.take() {
                waker.wake();
            }
        }
    }

    fn cut(&mut self) {
        (self.client_gone, self.broker_gone) = (true, true);
        self.to_broker.bytes.clear();
        self.wake();
    }
}

/// The client's end of a wire.
pub struct End(Rc<RefCell<Wire>>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.borrow_mut().client_gone = true;
    }
}

impl AsyncRead for End {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut [u8]) -> Poll<io::Result<usize>> {
        let wire = &mut *self.0.borrow_mut();
        let count = wire.to_client.bytes.len().min(into.len());
        if count == 0 {
            if wire.broker_gone {
                return Poll::Ready(Ok(0));
            }
            wire.to_client.waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        for (place, byte) in into.iter_mut().zip(wire.to_client.bytes.drain(..count)) {
            *place = byte;
        }
        Poll::Ready(Ok(count))
    }
}

impl AsyncWrite for End {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        let wire = &mut *self.0.borrow_mut();
        if wire.broker_gone {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        let count = from.len().min(WIRE_BYTES.saturating_sub(wire.to_broker.bytes.len()));
        if count == 0 {
            wire.to_broker.waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        wire.to_broker.bytes.extend(&from[..count]);
        Poll::Ready(Ok(count))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// What happens to the wire to the upstream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accident {
    /// Nothing.
    None,
    /// It is cut behind this many packets, of both directions together.
    CutAfter(u32),
    /// It is cut in the middle of the packet after so many.
    CutWithin(u32),
    /// Nothing more comes through, and nobody says so.
    SilentAfter(u32),
}

/// The wire to the upstream, as all connections that are made see it.
#[derive(Clone, Copy, Debug)]
pub struct Uplink {
    /// Whether connections can be made.
    pub is_up: bool,
    pub accident: Accident,
    /// Packets that have crossed since the accident was planned.
    pub packets: u32,
}

struct Link {
    key: Key<Connection>,
    wire: Rc<RefCell<Wire>>,
    unread: Vec<u8>,
    unsent: Vec<u8>,
    /// Whether it is the wire to the upstream.
    uplink: Option<Rc<Cell<Uplink>>>,
    /// Nothing comes through any more.
    is_silent: bool,
    is_over: bool,
}

/// Writes a batch of the log.
type WriteBatch = Box<dyn FnMut(&Batch) -> io::Result<Room>>;

/// A broker and its connections.
pub struct Node {
    pub broker: Broker,
    links: Vec<Link>,
    log: Option<WriteBatch>,
}

/// The log of the tests' brokers.
pub const SIZES: Sizes = Sizes { segment_bytes: 384 << 10, total_bytes: 16 << 20 };

pub fn capacities() -> Capacities {
    Capacities {
        connections: 16,
        handshakes: 4,
        sessions: 16,
        subscriptions: 64,
        subscriptions_per_session: 32,
        filter_nodes: 256,
        filter_bytes: 8_192,
        retained_messages: 128,
        messages: 4_000,
        message_blocks: 4_000,
        deliveries: 8_000,
        replies: 1_024,
        receive_bytes: 1 << 22,
        transmit_bytes: 1 << 22,
        packet_bytes: 1 << 16,
        authorization_rules: 0,
        authorization_principals: 0,
        authorization_attributes: 0,
        authorization_patterns: 0,
        authorization_bytes: 0,
    }
}

impl Node {
    fn new(insiders: Vec<Insider>) -> Self {
        let limits = ClientLimits {
            max_session_expiry_seconds: Some(3_600),
            max_message_expiry_seconds: None,
            max_packet_size_bytes: 1 << 16,
            max_receive_maximum: 128,
            max_keep_alive_seconds: None,
            subscriber_queue_length: 1_000_000,
            subscriber_queue_strategy: QueueStrategy::None,
        };
        let settings = Settings {
            connect_deadline_seconds: 10,
            shares_client_identifiers: false,
            announces_expiry: false,
            validate_payload_format: false,
            sys_interval_seconds: 0,
            response_information: None,
        };
        let admission = Admission {
            ports: vec![PortAdmission::default()],
            authenticators: Vec::new(),
            policies: Vec::new(),
            insiders,
        };
        Self { broker: Broker::new(&capacities(), &limits, &settings, admission, 7), links: Vec::new(), log: None }
    }

    /// Fills the tables with what a disk has, and writes there from now on.
    fn restore(&mut self, now: Now, disk: MemoryDisk) {
        let mut recovered = recover(disk, SIZES).unwrap();
        let (last, room) = (recovered.last, recovered.log.room());
        // Queues of clients are not kept: that of a bridge is all the same.
        let persistence =
            Persistence { commit_interval_milliseconds: 3, subscriber_queue: Kept::None, ..Persistence::default() };
        let durability = Durability::new(capacities().packet_bytes, persistence, 0, SIZES, last, room);
        self.broker.set_durability(durability);
        assert_eq!(self.broker.restore(now, true, &mut recovered).unwrap().left_out, 0);
        let mut log = recovered.log;
        self.log = Some(Box::new(move |batch| log.write(batch)));
    }

    fn open(&mut self, now: Now, port: u16, uplink: Option<Rc<Cell<Uplink>>>) -> Rc<RefCell<Wire>> {
        let wire = Rc::<RefCell<Wire>>::default();
        let key = self.broker.open(now.instant, port).unwrap();
        let link = Link {
            key,
            wire: Rc::clone(&wire),
            unread: Vec::new(),
            unsent: Vec::new(),
            uplink,
            is_silent: false,
            is_over: false,
        };
        self.links.push(link);
        wire
    }

    /// Moves what can be moved. Returns whether anything was.
    fn serve(&mut self, now: Now) -> bool {
        if self.broker.next_deadline().is_some_and(|at| at <= now.instant) {
            self.broker.expire(now);
        }
        let mut has_moved = false;
        // Retained messages on their way. With a log it would also be swept, whose disk is in the heap that is measured.
        for _ in 0..8 {
            if self.log.is_none() && self.broker.has_work() {
                self.broker.work(now.instant);
            }
        }
        for link in &mut self.links {
            has_moved |= link.serve(&mut self.broker, now);
        }
        self.links.retain(|link| !link.is_over);
        if let Some(log) = &mut self.log
            && let Some(batch) = self.broker.next_batch(now.instant)
        {
            let outcome = log(&batch);
            self.broker.written(now, batch, outcome);
            has_moved = true;
        }
        has_moved
    }
}

/// Bytes of the first packet, if all of it is there.
fn first_packet(bytes: &[u8]) -> Option<usize> {
    let header = decode_fixed_header(bytes).unwrap()?;
    (header.packet_bytes() <= bytes.len()).then_some(header.packet_bytes())
}

impl Link {
    fn serve(&mut self, broker: &mut Broker, now: Now) -> bool {
        let mut has_moved = false;
        let incoming: Vec<u8> = {
            let wire = &mut *self.wire.borrow_mut();
            let bytes = wire.to_broker.bytes.drain(..).collect();
            if let Some(waker) = wire.to_broker.waker.take() {
                waker.wake();
            }
            bytes
        };
        has_moved |= !incoming.is_empty();
        self.unread.extend(incoming);
        let mut passed = self.unread.len();
        if self.uplink.is_some() {
            passed = 0;
            while let Some(bytes) = first_packet(&self.unread[passed..]) {
                match self.pass(bytes) {
                    Some(all) if all == bytes => passed += bytes,
                    Some(part) => passed += part,
                    None => break,
                }
                if self.wire.borrow().client_gone {
                    break;
                }
            }
        }
        if passed > 0 {
            let received = broker.receive(now, self.key, &[], &self.unread[..passed]);
            has_moved |= received.consumed > 0;
            self.unread.drain(..received.consumed);
        }
        let mut buffer = [0; 4_096];
        while self.wire.borrow().to_client.bytes.len() + self.unsent.len() < WIRE_BYTES {
            let transmitted = broker.transmit(now, self.key, &mut buffer);
            self.unsent.extend(&buffer[..transmitted.bytes]);
            has_moved |= transmitted.bytes > 0;
            if transmitted.close.is_some() {
                self.deliver();
                broker.finish(now, self.key);
                let wire = &mut *self.wire.borrow_mut();
                wire.broker_gone = true;
                wire.wake();
                self.is_over = true;
                return true;
            }
            if !transmitted.more {
                break;
            }
        }
        has_moved |= self.deliver();
        let gone = {
            let wire = self.wire.borrow();
            wire.client_gone && wire.to_broker.bytes.is_empty() && !self.is_silent
        };
        if gone && !self.is_over {
            broker.closed(now, self.key, Cause::NetworkClosed, Text::default());
            self.wire.borrow_mut().broker_gone = true;
            self.is_over = true;
            has_moved = true;
        }
        has_moved
    }

    /// Puts what the broker has said on the wire to the client.
    fn deliver(&mut self) -> bool {
        let mut count = self.unsent.len();
        if self.uplink.is_some() {
            count = 0;
            while let Some(bytes) = first_packet(&self.unsent[count..]) {
                match self.pass(bytes) {
                    Some(part) => count += part,
                    None => break,
                }
                if self.wire.borrow().client_gone {
                    break;
                }
            }
        }
        let wire = &mut *self.wire.borrow_mut();
        wire.to_client.bytes.extend(self.unsent.drain(..count));
        if count > 0
            && let Some(waker) = wire.to_client.waker.take()
        {
            waker.wake();
        }
        count > 0
    }

    /// How much of a packet comes through; `None`: nothing does, now or ever.
    fn pass(&mut self, bytes: usize) -> Option<usize> {
        let shared = self.uplink.as_ref().unwrap();
        let mut uplink = shared.get();
        if self.is_silent {
            return None;
        }
        let passed = match uplink.accident {
            Accident::SilentAfter(count) if uplink.packets >= count => {
                uplink.accident = Accident::None;
                self.is_silent = true;
                None
            }
            Accident::CutWithin(count) if uplink.packets >= count => {
                uplink.accident = Accident::None;
                self.wire.borrow_mut().cut();
                Some(bytes / 2)
            }
            Accident::CutAfter(count) if uplink.packets + 1 >= count => {
                uplink.accident = Accident::None;
                self.wire.borrow_mut().cut();
                Some(bytes)
            }
            Accident::None | Accident::SilentAfter(_) | Accident::CutWithin(_) | Accident::CutAfter(_) => Some(bytes),
        };
        uplink.packets += 1;
        shared.set(uplink);
        passed
    }
}

/// A message as a client got it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Got {
    pub topic: String,
    pub payload: Vec<u8>,
    pub retain: bool,
    pub qos: QoS,
    pub user: Vec<(String, String)>,
    pub response: Option<String>,
}

/// A client that acknowledges at once.
pub struct Client {
    wire: Rc<RefCell<Wire>>,
    read: Vec<u8>,
    identifier: u16,
    pub got: Vec<Got>,
    /// Payloads that were acknowledged, by identifier.
    unacknowledged: Vec<(u16, String, Vec<u8>)>,
    pub acknowledged: Vec<(String, Vec<u8>)>,
    /// What was published and not answered before the broker ended.
    pub uncertain: Vec<(String, Vec<u8>)>,
    pub refused: Vec<ReasonCode>,
}

impl Client {
    fn new(wire: Rc<RefCell<Wire>>, name: &str) -> Self {
        let mut client = Self {
            wire,
            read: Vec::new(),
            identifier: 0,
            got: Vec::new(),
            unacknowledged: Vec::new(),
            acknowledged: Vec::new(),
            uncertain: Vec::new(),
            refused: Vec::new(),
        };
        client.send(&Packet::Connect(Connect {
            protocol_version: VERSION,
            clean_start: false,
            keep_alive: 0,
            client_identifier: name,
            will: None,
            username: None,
            password: None,
            properties: ConnectProperties { session_expiry_interval: Some(u32::MAX), ..ConnectProperties::default() },
        }));
        client
    }

    fn send(&mut self, packet: &Packet<'_>) {
        let mut bytes = vec![0; packet.encoded_bytes(VERSION)];
        packet.encode(VERSION, &mut Writer::new(&mut bytes)).unwrap();
        self.wire.borrow_mut().to_broker.bytes.extend(bytes);
    }

    fn next_identifier(&mut self) -> PacketIdentifier {
        self.identifier = self.identifier % 60_000 + 1;
        PacketIdentifier::new(self.identifier).unwrap()
    }

    pub fn subscribe(&mut self, filter: &str) {
        let options = SubscriptionOptions {
            maximum_qos: QoS::AtLeastOnce,
            retain_as_published: true,
            ..SubscriptionOptions::default()
        };
        let packet_identifier = self.next_identifier();
        self.send(&Packet::Subscribe(Subscribe {
            packet_identifier,
            properties: SubscribeProperties::default(),
            filters: SubscribeFilters::Slice(&[(filter, options)]),
        }));
    }

    pub fn publish(&mut self, topic: &str, payload: &[u8]) {
        self.publish_with(topic, payload, QoS::AtLeastOnce, false, PublishProperties::default());
    }

    pub fn publish_with(
        &mut self,
        topic: &str,
        payload: &[u8],
        qos: QoS,
        retain: bool,
        properties: PublishProperties<'_>,
    ) {
        let packet_identifier = (qos != QoS::AtMostOnce).then(|| self.next_identifier());
        if let Some(identifier) = packet_identifier {
            self.unacknowledged.push((identifier.get(), topic.to_owned(), payload.to_owned()));
        }
        self.send(&Packet::Publish(Publish { dup: false, qos, retain, topic, packet_identifier, properties, payload }));
    }

    /// Comes back after its broker has ended.
    fn come_back(&mut self, wire: Rc<RefCell<Wire>>) {
        let mut next = Self::new(wire, "client");
        next.identifier = self.identifier;
        next.got = std::mem::take(&mut self.got);
        next.acknowledged = std::mem::take(&mut self.acknowledged);
        next.uncertain = std::mem::take(&mut self.uncertain);
        next.uncertain.extend(self.unacknowledged.drain(..).map(|(_, topic, payload)| (topic, payload)));
        *self = next;
    }

    pub fn is_idle(&self) -> bool {
        self.unacknowledged.is_empty()
    }

    fn serve(&mut self) -> bool {
        let bytes: Vec<u8> = self.wire.borrow_mut().to_client.bytes.drain(..).collect();
        let has_moved = !bytes.is_empty();
        self.read.extend(bytes);
        while let Some(count) = first_packet(&self.read) {
            let bytes: Vec<u8> = self.read.drain(..count).collect();
            let header = decode_fixed_header(&bytes).unwrap().unwrap();
            match decode(header, &bytes[usize::from(header.header_bytes)..], VERSION).unwrap() {
                Packet::Publish(publish) => {
                    let user = publish.properties.user_properties.iter();
                    self.got.push(Got {
                        topic: publish.topic.to_owned(),
                        payload: publish.payload.to_owned(),
                        retain: publish.retain,
                        qos: publish.qos,
                        user: user.map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
                        response: publish.properties.response_topic.map(str::to_owned),
                    });
                    if let Some(identifier) = publish.packet_identifier {
                        self.send(&Packet::PubAck(Acknowledgement::new(identifier, ReasonCode::Success)));
                    }
                }
                Packet::PubAck(answer) => {
                    let identifier = answer.packet_identifier.get();
                    let at = self.unacknowledged.iter().position(|(known, ..)| *known == identifier).unwrap();
                    let (_, topic, payload) = self.unacknowledged.remove(at);
                    if answer.reason_code.is_error() {
                        self.refused.push(answer.reason_code);
                    } else {
                        self.acknowledged.push((topic, payload));
                    }
                }
                Packet::ConnAck(answer) => assert!(!answer.reason_code.is_error(), "{answer:?}"),
                Packet::SubAck(_) => {}
                other => panic!("{other:?}"),
            }
        }
        has_moved
    }
}

/// Payload of the nth message.
pub fn numbered(number: u32) -> Vec<u8> {
    number.to_string().into_bytes()
}

/// What the bridge of the tests is configured with.
pub fn bridge(name: &str) -> Bridge {
    let map = |local: &str, remote: &str| TopicMap {
        local: local.to_owned(),
        remote: remote.to_owned(),
        qos: 1,
        retain: true,
    };
    Bridge {
        name: name.to_owned(),
        remote: BridgeRemote {
            addresses: vec![("upstream".to_owned(), 1883)],
            tls: None,
            login: None,
            client_identifier: format!("gateway-{name}"),
            clean_start: false,
            session_expiry_seconds: 86_400,
            keep_alive_seconds: 30,
            packet_bytes: 8_192,
        },
        identity: BridgeIdentity::default(),
        outgoing: vec![map("a/#", "g/a/#")],
        incoming: vec![map("b/#", "g/b/#")],
        queue_length: 1_000,
        queue_bytes: 512 * 1_500,
        queue_strategy: QueueStrategy::DropOldest,
        hops_max: 1,
        back_off_min_seconds: 1,
        back_off_max_seconds: 60,
    }
}

/// The way to both brokers.
struct Ways {
    clock: Rc<SimulatedClock>,
    name: String,
    here: Rc<RefCell<Node>>,
    there: Rc<RefCell<Node>>,
    uplink: Rc<Cell<Uplink>>,
    notes: Notes,
}

/// What bridges have to know of their past, by name.
type Notes = Rc<RefCell<std::collections::BTreeMap<String, Vec<u8>>>>;

pub fn now(clock: &SimulatedClock) -> Now {
    let microseconds = clock.now_microseconds();
    Now {
        instant: Instant::from_milliseconds(microseconds / 1_000),
        unix: UnixTime(1_800_000_000 + microseconds / 1_000_000),
    }
}

impl Surroundings for Ways {
    type Local = End;
    type Remote = End;

    async fn local(&self) -> io::Result<End> {
        let client = format!("{INSIDE_PREFIX}{}", insider_name(&self.name));
        let mut here = self.here.borrow_mut();
        let port = here.broker.port_of_insider(&client).unwrap();
        Ok(End(here.open(now(&self.clock), port, None)))
    }

    async fn filters(&self) -> Vec<String> {
        let client = format!("{INSIDE_PREFIX}{}", insider_name(&self.name));
        self.here.borrow().broker.filters_of_insider(&client)
    }

    async fn remote(&self, _: usize) -> Result<End, String> {
        if !self.uplink.get().is_up {
            return Err("no route".to_owned());
        }
        Ok(End(self.there.borrow_mut().open(now(&self.clock), 0, Some(Rc::clone(&self.uplink)))))
    }

    fn password(&self) -> Result<Option<zeroize::Zeroizing<Vec<u8>>>, String> {
        Ok(None)
    }

    fn noted(&self) -> Noted {
        self.notes.borrow().get(&self.name).map(|bytes| Noted::decode(bytes)).unwrap_or_default()
    }

    fn note(&self, noted: &Noted) {
        self.notes.borrow_mut().insert(self.name.clone(), noted.encode());
    }

    fn unix(&self) -> u64 {
        now(&self.clock).unix.0
    }
}

fn insiders(bridges: &[Bridge]) -> Vec<Insider> {
    let insiders = bridges.iter().map(|bridge| {
        let queue = InsiderQueue {
            length: bridge.queue_length,
            bytes: bridge.queue_bytes,
            strategy: bridge.queue_strategy,
            packet_bytes: bridge.remote.packet_bytes,
        };
        Insider { queue: Some(queue), ..Insider::new(&insider_name(&bridge.name)).unwrap() }
    });
    insiders.collect()
}

/// Two brokers, one bridge, and a client at each.
pub struct World {
    pub clock: Rc<SimulatedClock>,
    executor: smol::LocalExecutor<'static>,
    bridges: [Vec<Bridge>; 2],
    disk: Option<MemoryDisk>,
    pub here: Rc<RefCell<Node>>,
    pub there: Rc<RefCell<Node>>,
    pub uplink: Rc<Cell<Uplink>>,
    notes: Notes,
    pub statuses: Vec<Rc<RefCell<Status>>>,
    pub client_here: Client,
    pub client_there: Client,
}

impl World {
    /// `here` has the bridges `of_here`, and `there` those of `of_there`, which lead back.
    pub fn new(of_here: &[Bridge], of_there: &[Bridge]) -> Self {
        Self::with_disk(of_here, of_there, None)
    }

    /// The same; `here` keeps a log.
    pub fn with_disk(of_here: &[Bridge], of_there: &[Bridge], disk: Option<MemoryDisk>) -> Self {
        let clock = Rc::new(SimulatedClock::start());
        let node = |bridges: &[Bridge]| Rc::new(RefCell::new(Node::new(insiders(bridges))));
        let (here, there) = (node(of_here), node(of_there));
        if let Some(disk) = &disk {
            here.borrow_mut().restore(now(&clock), disk.clone());
        }
        let uplink = Uplink { is_up: true, accident: Accident::None, packets: 0 };
        let uplink = Rc::new(Cell::new(uplink));
        let at = now(&clock);
        let client_here = Client::new(here.borrow_mut().open(at, 0, None), "client");
        let client_there = Client::new(there.borrow_mut().open(at, 0, None), "client");
        let mut world = Self {
            clock,
            executor: smol::LocalExecutor::new(),
            bridges: [of_here.to_vec(), of_there.to_vec()],
            disk,
            here,
            there,
            uplink,
            notes: Notes::default(),
            statuses: Vec::new(),
            client_here,
            client_there,
        };
        world.spawn();
        world.client_here.subscribe("#");
        world.client_there.subscribe("#");
        world.settle();
        world
    }

    fn spawn(&mut self) {
        self.statuses.clear();
        let [of_here, of_there] = &self.bridges;
        for (bridges, from, to) in [(of_here, &self.here, &self.there), (of_there, &self.there, &self.here)] {
            let own: Vec<String> = bridges.iter().map(|bridge| bridge.remote.client_identifier.clone()).collect();
            for bridge in bridges {
                let ways = Ways {
                    clock: Rc::clone(&self.clock),
                    name: bridge.name.clone(),
                    here: Rc::clone(from),
                    there: Rc::clone(to),
                    uplink: Rc::clone(&self.uplink),
                    notes: Rc::clone(&self.notes),
                };
                let bridging = Bridging::new(bridge.clone(), own.clone(), ways);
                self.statuses.push(bridging.status());
                self.executor.spawn(bridging.run(7)).detach();
            }
        }
    }

    /// The process of `here` ends, with its bridges, and begins anew with what the disk has.
    pub fn kill_here(&mut self) {
        let disk = self.disk.clone().unwrap();
        self.executor = smol::LocalExecutor::new();
        let at = now(&self.clock);
        let mut node = Node::new(insiders(&self.bridges[0]));
        node.restore(at, disk);
        for link in self.here.replace(node).links {
            link.wire.borrow_mut().cut();
        }
        let wire = self.here.borrow_mut().open(at, 0, None);
        self.client_here.come_back(wire);
        self.spawn();
    }

    /// The bridges of `here` end, and others begin in their place.
    pub fn replace_here(&mut self, bridges: &[Bridge]) {
        self.executor = smol::LocalExecutor::new();
        self.bridges[0] = bridges.to_vec();
        self.spawn();
    }

    /// Runs everything until nothing can go on without time.
    pub fn settle(&mut self) {
        loop {
            let mut has_moved = false;
            while self.executor.try_tick() {
                has_moved = true;
            }
            let at = now(&self.clock);
            has_moved |= self.here.borrow_mut().serve(at);
            has_moved |= self.there.borrow_mut().serve(at);
            has_moved |= self.client_here.serve();
            has_moved |= self.client_there.serve();
            if !has_moved {
                return;
            }
        }
    }

    /// Lets `seconds` pass, from one deadline to the next.
    pub fn pass(&mut self, seconds: u64) {
        let end = self.clock.now_microseconds() + seconds * 1_000_000;
        loop {
            self.settle();
            let of_brokers = [&self.here, &self.there].into_iter().filter_map(|node| {
                let at = node.borrow().broker.next_deadline()?;
                Some((at.as_milliseconds() * 1_000).max(self.clock.now_microseconds() + 1_000))
            });
            let next = of_brokers.chain(self.clock.next_microseconds()).min().unwrap_or(end).min(end);
            self.clock.set_microseconds(next);
            if next == end {
                return self.settle();
            }
        }
    }

    /// Plans what happens to the uplink.
    pub fn plan(&self, accident: Accident) {
        let is_up = self.uplink.get().is_up;
        self.uplink.set(Uplink { is_up, accident, packets: 0 });
    }

    /// Takes the uplink away, or brings it back.
    pub fn set_up(&self, is_up: bool) {
        self.uplink.set(Uplink { is_up, accident: Accident::None, packets: 0 });
        if !is_up {
            for node in [&self.here, &self.there] {
                for link in node.borrow().links.iter().filter(|link| link.uplink.is_some()) {
                    link.wire.borrow_mut().cut();
                }
            }
        }
    }

    /// Whether the upstream has the subscriptions of a bridge.
    pub fn is_subscribed(&self, bridge: &Bridge) -> bool {
        let filters = self.there.borrow().broker.filters_of_insider(&bridge.remote.client_identifier);
        bridge.incoming.iter().all(|map| filters.contains(&map.remote))
    }
}

/// Numbers that a client got on a topic, in order.
pub fn numbers(client: &Client, topic: &str) -> Vec<u32> {
    let of_topic = client.got.iter().filter(|got| got.topic == topic);
    of_topic.map(|got| std::str::from_utf8(&got.payload).unwrap().parse().unwrap()).collect()
}

/// The same without repetitions.
pub fn first_times(numbers: &[u32]) -> Vec<u32> {
    let mut seen = Vec::new();
    for number in numbers {
        if !seen.contains(number) {
            seen.push(*number);
        }
    }
    seen
}

pub fn user_properties<'a>(pairs: &'a [(&'a str, &'a str)]) -> PublishProperties<'a> {
    PublishProperties { user_properties: UserProperties::Pairs(pairs), ..PublishProperties::default() }
}
