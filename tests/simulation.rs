//! The product's own turn, with simulated sockets, clients and time, against a plain model of what MQTT promises.
//!
//! Everything follows from one seed. Clients connect, subscribe, publish with every quality of service, go without a word,
//! come back, read slowly and acknowledge late; bytes arrive in pieces of any size. The model knows, of every message whose
//! acknowledgement came, who had a subscription the whole time: they must get it, with QoS 2 once; nobody gets what nothing
//! asked for; and order is kept for a publisher, a topic and a QoS.
//!
//! With every other seed rules decide who may do what, and others take their place at any moment. A client that sends a
//! PINGREQ behind a replacement knows by the PINGRESP that all that follows is decided by the new ones or later ones: nothing
//! that all of these forbid may arrive, and nothing may be lost that none of them forbids.
//!
//! With every third seed there is a log on a simulated disk, which is slow, fails at times, and loses power at any moment: the
//! broker begins anew with what such a disk may be left with. All that was acknowledged is owed all the same.
//!
//! `PORTCULLIS_SIMULATION_SEED=7 cargo test --test simulation` replays one seed; `cargo xtask simulate` runs many.
#![allow(clippy::expect_used, clippy::unwrap_used)]

mod simulated_disk;

use portcullis::authorization::Policy;
use portcullis::broker::{Admission, Broker, Durability, Heir, PortAdmission, Settings, Succession};
use portcullis::config::blob::{ClientLimits, Persistence, QueueStrategy};
use portcullis::config::{LoadOptions, load_embedded};
use portcullis::limits::Capacities;
use portcullis::net::{
    Accepted, ClockTrust, Interest, Io, ListenerSettings, Network, Readiness, Reconfiguration, Transport, Turn,
    TurnSettings,
};
use portcullis::store::{Batch, Journal, Log, Recovered, Sizes, recover};
use portcullis::time::{Instant, Now, UnixTime};
use simulated_disk::{Call, Fault, SimulatedDisk};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;

/// xorshift64*: enough for a test, and the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % bound
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

/// One connection: two byte streams of bounded room, and who has closed.
#[derive(Default)]
struct Pipe {
    to_broker: VecDeque<u8>,
    to_client: VecDeque<u8>,
    client_gone: bool,
    broker_gone: bool,
    token: u64,
    interest: Interest,
}

/// Bytes that wait in a simulated socket at most.
const SOCKET_BYTES: usize = 2_000;

struct World {
    pipes: Vec<Pipe>,
    pending: VecDeque<usize>,
    random: Random,
}

#[derive(Clone)]
struct Sim(Rc<RefCell<World>>);

impl Network for Sim {
    type Stream = usize;

    fn accept(&mut self, _: usize) -> Accepted<usize> {
        match self.0.borrow_mut().pending.pop_front() {
            Some(pipe) => Accepted::Stream(pipe, SocketAddr::from((Ipv4Addr::LOCALHOST, 1))),
            None => Accepted::Nothing,
        }
    }

    fn read(&mut self, stream: &mut usize, into: &mut [u8]) -> Io {
        let mut world = self.0.borrow_mut();
        let most = 1 + world.random.below(3_000);
        let pipe = &mut world.pipes[*stream];
        let count = pipe.to_broker.len().min(into.len()).min(most);
        if count == 0 {
            return if pipe.client_gone { Io::Bytes(0) } else { Io::WouldBlock };
        }
        for (place, byte) in into.iter_mut().zip(pipe.to_broker.drain(..count)) {
            *place = byte;
        }
        Io::Bytes(count)
    }

    fn write(&mut self, stream: &mut usize, from: &[u8]) -> Io {
        let mut world = self.0.borrow_mut();
        let most = 1 + world.random.below(3_000);
        let pipe = &mut world.pipes[*stream];
        if pipe.client_gone {
            return Io::Failed;
        }
        let count = from.len().min(SOCKET_BYTES - pipe.to_client.len()).min(most);
        if count == 0 {
            return Io::WouldBlock;
        }
        pipe.to_client.extend(&from[..count]);
        Io::Bytes(count)
    }

    fn watch(&mut self, stream: &usize, token: u64, interest: Interest) -> bool {
        let pipe = &mut self.0.borrow_mut().pipes[*stream];
        (pipe.token, pipe.interest) = (token, interest);
        true
    }

    fn change(&mut self, stream: &usize, token: u64, interest: Interest) {
        self.watch(stream, token, interest);
    }

    fn finish(&mut self, stream: &mut usize) {
        self.0.borrow_mut().pipes[*stream].broker_gone = true;
    }

    fn close(&mut self, stream: usize) {
        let pipe = &mut self.0.borrow_mut().pipes[stream];
        (pipe.broker_gone, pipe.token) = (true, 0);
    }

    fn listen(&mut self, _: usize, _: bool) {}
}

impl Sim {
    fn ready(&self) -> Vec<Readiness> {
        let world = self.0.borrow();
        let mut ready = Vec::new();
        if !world.pending.is_empty() {
            ready.push(Readiness { token: 0, readable: true, writable: false, hung_up: false });
        }
        for pipe in world.pipes.iter().filter(|pipe| pipe.token != 0) {
            let readable = pipe.interest.read && (!pipe.to_broker.is_empty() || pipe.client_gone);
            let writable = pipe.interest.write && (pipe.to_client.len() < SOCKET_BYTES || pipe.client_gone);
            if readable || writable {
                ready.push(Readiness { token: pipe.token, readable, writable, hung_up: false });
            }
        }
        ready
    }
}

type MessageId = (u16, u32);

/// A PUBLISH of a client whose acknowledgement has not come.
struct Outgoing {
    message: MessageId,
    topic: String,
    qos: u8,
    /// PUBREC has come, PUBREL was sent.
    released: bool,
    /// The rules when it was sent last; it is judged by these or later ones.
    generation: usize,
    /// Who was subscribed when it was first sent: client, epoch of its session, epoch of its subscription.
    candidates: Vec<(usize, u32, u32, u8)>,
}

#[derive(Clone, Copy)]
struct Subscription {
    qos: u8,
    epoch: u32,
    /// SUBACK has come and no UNSUBSCRIBE was sent since.
    sure: bool,
}

/// What a client may do under some rules.
struct Permit {
    connect: bool,
    publish: Vec<&'static str>,
    subscribe: Vec<&'static str>,
}

impl Permit {
    fn everything() -> Self {
        Self { connect: true, publish: vec!["#"], subscribe: vec!["#"] }
    }

    fn may_publish(&self, topic: &str) -> bool {
        self.connect && self.publish.iter().any(|pattern| matches(pattern, topic))
    }

    fn may_subscribe(&self, filter: &str) -> bool {
        self.connect && self.subscribe.iter().any(|pattern| covers(pattern, filter))
    }

    fn may_receive(&self, topic: &str) -> bool {
        self.connect && self.subscribe.iter().any(|pattern| matches(pattern, topic))
    }
}

#[derive(Default)]
struct Client {
    pipe: Option<usize>,
    connected: bool,
    input: Vec<u8>,
    /// Counts clean starts: what was promised to an earlier session is void.
    session: u32,
    asked_clean: bool,
    /// A clean start was asked for and not answered: it may have been done or not, so that it must be asked for again.
    owes_clean: bool,
    subscriptions: BTreeMap<String, Subscription>,
    ever_subscribed: BTreeSet<String>,
    outgoing: BTreeMap<u16, Outgoing>,
    next_identifier: u16,
    counter: u32,
    /// SUBSCRIBE and UNSUBSCRIBE that await their answer: filter, the epoch it gets, and the rules when it was sent.
    pending: BTreeMap<u16, (String, Option<u32>, usize)>,
    /// The oldest rules that what arrives now may have been decided by.
    floor: usize,
    /// The rules when each PINGREQ was sent that has no answer.
    pings: VecDeque<usize>,
    received_exactly_once: BTreeSet<u16>,
    acknowledgements: VecDeque<Vec<u8>>,
    seen: BTreeSet<MessageId>,
    /// Got as retained messages, which may overtake others that wait for the disk.
    seen_retained: BTreeSet<MessageId>,
    once: BTreeSet<MessageId>,
    last: BTreeMap<(u16, String, u8, u8), u32>,
}

struct Simulation {
    seed: u64,
    sim: Sim,
    turn: Turn<Sim>,
    now: Now,
    clients: Vec<Client>,
    epoch: u32,
    /// Of each message: topic and QoS.
    messages: BTreeMap<MessageId, (String, u8)>,
    /// Client, its session, its subscription's filter and epoch, message, lesser QoS.
    owed: Vec<(usize, u32, u32, MessageId)>,
    /// Sent again by their publisher: with QoS 1 they may be routed twice, the second time to somebody new.
    resent: BTreeSet<MessageId>,
    /// By generation and client; none where there are no rules.
    permits: Vec<Vec<Permit>>,
    capacities: Capacities,
    limits: ClientLimits,
    settings: Settings,
    /// Whether a full table was met.
    refused: bool,
    store: Option<Store>,
    /// Whether the broker has begun anew.
    crashed: bool,
    random: Random,
}

/// The disk, and a batch on its way to it.
struct Store {
    disk: SimulatedDisk,
    log: Log<SimulatedDisk>,
    writing: Option<(Batch, usize)>,
    /// Whether it fails at times.
    fails: bool,
    random: simulated_disk::Random,
}

/// Turns until everybody must have everything.
const ROUNDS_MAX: usize = 100_000;

/// Segments as small as batches allow, so that there are many.
const SIZES: Sizes = Sizes { segment_bytes: 384 << 10, total_bytes: 64 << 20 };

const TOPICS: [&str; 6] = ["a", "a/b", "a/b/c", "d", "d/e", "x//y"];
const FILTERS: [&str; 10] = ["a", "a/b", "a/#", "+", "+/b", "#", "a/+/c", "d/e", "x/+/y", "+/+"];

const PATTERNS: [&str; 6] = ["a/#", "+", "+/b", "d/e", "x/+/y", "+/+/#"];

/// Whether every topic that the filter matches is matched by the pattern.
fn covers(pattern: &str, filter: &str) -> bool {
    fn levels(pattern: &[&str], filter: &[&str]) -> bool {
        match (pattern.first(), filter.first()) {
            (Some(&"#"), _) | (None, None) => true,
            (Some(&"+"), Some(level)) => *level != "#" && levels(&pattern[1..], &filter[1..]),
            (Some(literal), Some(level)) => literal == level && levels(&pattern[1..], &filter[1..]),
            _ => false,
        }
    }
    levels(&pattern.split('/').collect::<Vec<_>>(), &filter.split('/').collect::<Vec<_>>())
}

/// The rules of some permits, for a port without authentication.
fn ruled(permits: &[Permit]) -> Admission {
    let rules = permits.iter().enumerate().filter(|(_, permit)| permit.connect).map(|(client, permit)| {
        let mut resources = vec![r#"{"method": "Connect"}"#.to_owned()];
        for (method, topics) in [("Publish", &permit.publish), ("Subscribe", &permit.subscribe)] {
            if !topics.is_empty() {
                resources.push(format!(r#"{{"method": "{method}", "topics": {topics:?}}}"#));
            }
        }
        format!(
            r#"{{"principals": {{"clientIds": ["client-{client}"]}}, "brokerResources": [{}]}}"#,
            resources.join(", ")
        )
    });
    let rules = format!("[{}]", rules.collect::<Vec<_>>().join(",\n"));
    let files = [("any.listener.yaml", "ports: [{port: 1883}]"), ("live.authorization.json", &rules)];
    let loaded = load_embedded(&files, &LoadOptions::default()).expect("rules");
    let policy = Policy::new(loaded.configuration.authorizations[0].clone()).expect("a policy");
    let port = PortAdmission { authenticator: None, policy: Some(0) };
    Admission { ports: vec![port], authenticators: Vec::new(), policies: vec![policy], insiders: Vec::new() }
}

fn matches(filter: &str, topic: &str) -> bool {
    fn levels(filter: &[&str], topic: &[&str]) -> bool {
        match (filter.first(), topic.first()) {
            (Some(&"#"), _) | (None, None) => true,
            (Some(&"+"), Some(_)) => levels(&filter[1..], &topic[1..]),
            (Some(literal), Some(level)) => literal == level && levels(&filter[1..], &topic[1..]),
            _ => false,
        }
    }
    levels(&filter.split('/').collect::<Vec<_>>(), &topic.split('/').collect::<Vec<_>>())
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    let mut length = body.len();
    loop {
        bytes.push((length % 128) as u8 | if length >= 128 { 0x80 } else { 0 });
        length /= 128;
        if length == 0 {
            break;
        }
    }
    bytes.extend_from_slice(body);
    bytes
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes()[..], text.as_bytes()].concat()
}

impl Simulation {
    fn new(seed: u64, clients: usize) -> Self {
        let capacities = Capacities {
            connections: 2 * clients as u32 + 8,
            handshakes: 4,
            sessions: clients as u32 + 4,
            subscriptions: 16 * clients as u32,
            subscriptions_per_session: 32,
            filter_nodes: 256,
            filter_bytes: 8_192,
            // Those below $SYS are some fifty.
            retained_messages: 128,
            messages: 60_000,
            message_blocks: 60_000,
            deliveries: 400_000,
            replies: 8_192,
            receive_bytes: 1 << 22,
            transmit_bytes: 1 << 22,
            packet_bytes: 1 << 16,
            authorization_rules: 0,
            authorization_principals: 0,
            authorization_attributes: 0,
            authorization_patterns: 0,
            authorization_bytes: 0,
        };
        let limits = ClientLimits {
            max_session_expiry_seconds: None,
            max_message_expiry_seconds: None,
            max_packet_size_bytes: 1 << 16,
            max_receive_maximum: 32,
            max_keep_alive_seconds: None,
            subscriber_queue_length: 1_000_000,
            subscriber_queue_strategy: QueueStrategy::None,
        };
        let settings = Settings {
            connect_deadline_seconds: 10,
            shares_client_identifiers: false,
            announces_expiry: false,
            validate_payload_format: false,
            sys_interval_seconds: 5,
            response_information: None,
        };
        let mut permits = Vec::new();
        let admission = if has_rules(seed) {
            permits.push(std::iter::repeat_with(Permit::everything).take(clients).collect::<Vec<_>>());
            ruled(&permits[0])
        } else {
            Admission {
                ports: vec![PortAdmission::default()],
                authenticators: Vec::new(),
                policies: Vec::new(),
                insiders: Vec::new(),
            }
        };
        let mut broker = Broker::new(&capacities, &limits, &settings, admission, seed);
        let mix = |salt: u64| Random((seed ^ salt).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        let world = World { pipes: Vec::new(), pending: VecDeque::new(), random: mix(0xA5A5) };
        let sim = Sim(Rc::new(RefCell::new(world)));
        let now = Now { instant: Instant::ZERO, unix: UnixTime(2_000_000_000) };
        let store = has_store(seed).then(|| {
            let disk = SimulatedDisk::new(simulated_disk::Files::new());
            let log = bring_back(&mut broker, now, disk.clone(), &capacities).log;
            Store { disk, log, writing: None, fails: true, random: simulated_disk::Random::new(seed) }
        });
        let turn = turn_of(&sim, broker, &capacities);
        let clients = std::iter::repeat_with(Client::default).take(clients).collect();
        let (messages, owed, resent) = (BTreeMap::new(), Vec::new(), BTreeSet::new());
        let random = mix(0x5A5A);
        let (epoch, refused) = (0, false);
        Self {
            seed,
            sim,
            turn,
            now,
            clients,
            epoch,
            messages,
            owed,
            resent,
            permits,
            capacities,
            limits,
            settings,
            refused,
            store,
            crashed: false,
            random,
        }
    }

    /// The power goes, or only the process: the broker begins anew with what the disk has.
    fn crash(&mut self) {
        let Some(store) = &mut self.store else { return };
        let before = store.disk.operations();
        if let Some((batch, _)) = store.writing.take() {
            // It was on its way: some of what that takes has been done.
            let _ = store.log.write(&batch);
        }
        let done = before + store.random.below(store.disk.operations() - before + 1);
        let files = match store.random.chance(20) {
            true => store.disk.files(),
            false => store.disk.crash_after(done, &mut store.random),
        };
        store.disk = SimulatedDisk::new(files);
        store.writing = None;
        let admission = match self.permits.last() {
            Some(permits) => ruled(permits),
            None => Admission {
                ports: vec![PortAdmission::default()],
                authenticators: Vec::new(),
                policies: Vec::new(),
                insiders: Vec::new(),
            },
        };
        self.now = Now { instant: Instant::ZERO, unix: self.now.unix.plus_seconds(1) };
        let seed = self.seed ^ self.epoch as u64;
        let mut broker = Broker::new(&self.capacities, &self.limits, &self.settings, admission, seed);
        let recovered = bring_back(&mut broker, self.now, store.disk.clone(), &self.capacities);
        for (index, client) in self.clients.iter().enumerate() {
            let name = format!("client-{index}");
            let session =
                recovered.image.sessions.values().find(|s| s.about.as_ref().is_some_and(|a| a.client == name));
            let kept = |filter: &str| session.is_some_and(|s| s.subscriptions.values().any(|s| s.filter == filter));
            for (filter, _) in client.subscriptions.iter().filter(|(_, s)| s.sure && !client.owes_clean) {
                assert!(kept(filter), "seed {}: client {index} has lost its subscription to {filter}", self.seed);
            }
        }
        store.log = recovered.log;
        self.crashed = true;
        let mut world = self.sim.0.borrow_mut();
        world.pending.clear();
        for pipe in &mut world.pipes {
            // What had been sent may have been on its way.
            (pipe.broker_gone, pipe.token) = (true, 0);
            pipe.to_broker.clear();
        }
        drop(world);
        self.turn = turn_of(&self.sim, broker, &self.capacities);
    }

    /// Nothing is on its way any more: what the disk has must be what the tables have.
    fn compare_with_disk(&mut self) {
        let Some(store) = &self.store else { return };
        let admission = Admission {
            ports: vec![PortAdmission::default()],
            authenticators: Vec::new(),
            policies: Vec::new(),
            insiders: Vec::new(),
        };
        let mut broker = Broker::new(&self.capacities, &self.limits, &self.settings, admission, self.seed);
        bring_back(&mut broker, self.now, SimulatedDisk::new(store.disk.files()), &self.capacities);
        let (kept, live) = (broker.in_use(), self.turn.broker().in_use());
        assert_eq!(
            (kept.sessions, kept.subscriptions, kept.deliveries),
            (live.sessions, live.subscriptions, live.deliveries),
            "seed {}",
            self.seed
        );
    }

    /// The disk takes its time.
    fn write(&mut self) {
        let Some(store) = &mut self.store else { return };
        if !store.fails {
            // At the end it is quick: a queue of messages with QoS 2 and a window of one takes three writes for each.
            let batch = store.writing.take().map(|(batch, _)| batch);
            if let Some(batch) = batch.or_else(|| self.turn.broker().next_batch(self.now.instant)) {
                let outcome = store.log.write(&batch);
                self.turn.broker().written(self.now, batch, outcome);
            }
            return;
        }
        match store.writing.take() {
            Some((batch, 0)) => {
                if store.fails && store.random.chance(1) {
                    let call = [Call::Write, Call::Sync, Call::Rename, Call::SyncNames][store.random.below(4)];
                    let (after, times) = (0, 1 + store.random.below(3));
                    store.disk.fail(&[Fault { call, after, times, error: std::io::ErrorKind::Other }]);
                }
                let outcome = store.log.write(&batch);
                self.turn.broker().written(self.now, batch, outcome);
            }
            Some((batch, left)) => store.writing = Some((batch, left - 1)),
            None => {
                let longest = if store.random.chance(3) { 300 } else { 6 };
                let left = store.random.below(longest);
                store.writing = self.turn.broker().next_batch(self.now.instant).map(|batch| (batch, left));
            }
        }
    }

    /// The rules that are in force, by number.
    fn generation(&self) -> usize {
        self.permits.len().saturating_sub(1)
    }

    /// Whether some rules that were in force since `generation` let a client do something. Without rules it may.
    fn some_rules_say(&self, generation: usize, client: usize, may: impl Fn(&Permit) -> bool) -> bool {
        self.permits.is_empty() || self.permits[generation..].iter().any(|permits| may(&permits[client]))
    }

    fn draw_permit(&mut self) -> Permit {
        let mut draw = |everything: usize| {
            if self.random.chance(everything) {
                return vec!["#"];
            }
            let count = self.random.below(4);
            let drawn: BTreeSet<_> = (0..count).map(|_| PATTERNS[self.random.below(PATTERNS.len())]).collect();
            drawn.into_iter().collect()
        };
        let (publish, subscribe) = (draw(70), draw(50));
        Permit { connect: self.random.chance(92), publish, subscribe }
    }

    /// Puts other rules in force, and forgets what is promised to those who lose it.
    fn replace_rules(&mut self, permits: Vec<Permit>) {
        let admission = ruled(&permits);
        if self.random.chance(50) {
            self.turn.broker().replace_admission(admission, &[Succession::Unchanged]);
        } else {
            // As if authentication were replaced too: everybody is judged again before going on.
            let new = Reconfiguration {
                admission,
                successions: vec![Succession::Changed(vec![Heir::Method(0)])],
                capacities: self.capacities.clone(),
                limits: self.limits.clone(),
                settings: self.settings.clone(),
                transports: vec![Transport::Plain],
                judges: 0,
            };
            self.turn.reconfigure(self.now, new);
        }
        for (client, permit) in self.clients.iter_mut().zip(&permits) {
            client.subscriptions.retain(|filter, _| permit.may_subscribe(filter));
        }
        let messages = &self.messages;
        self.owed.retain(|(client, _, _, message)| permits[*client].may_receive(&messages[message].0));
        self.permits.push(permits);
    }

    fn send(&self, client: usize, bytes: &[u8]) {
        if let Some(pipe) = self.clients[client].pipe {
            self.sim.0.borrow_mut().pipes[pipe].to_broker.extend(bytes);
        }
    }

    fn connect(&mut self, index: usize, clean: bool) {
        let pipe = {
            let mut world = self.sim.0.borrow_mut();
            world.pipes.push(Pipe::default());
            let pipe = world.pipes.len() - 1;
            world.pending.push_back(pipe);
            pipe
        };
        let generation = self.generation();
        let client = &mut self.clients[index];
        client.pipe = Some(pipe);
        client.connected = false;
        client.input.clear();
        client.acknowledgements.clear();
        client.pending.clear();
        client.pings.clear();
        client.floor = generation;
        let clean = clean || client.owes_clean;
        client.asked_clean = clean;
        client.owes_clean = clean;
        if clean {
            client.session += 1;
            client.subscriptions.clear();
            client.ever_subscribed.clear();
            client.outgoing.clear();
            client.received_exactly_once.clear();
            client.seen.clear();
            client.seen_retained.clear();
            client.once.clear();
            client.last.clear();
        }
        let window = 1 + self.random.below(20) as u16;
        let [high, low] = window.to_be_bytes();
        let properties = [0x11, 0xFF, 0xFF, 0xFF, 0xFF, 0x21, high, low, 0x22, 0, self.random.below(4) as u8];
        let body = [
            &text("MQTT")[..],
            &[5, if clean { 2 } else { 0 }, 0, 0, properties.len() as u8],
            &properties,
            &text(&format!("client-{index}")),
        ]
        .concat();
        self.send(index, &packet(0x10, &body));
    }

    /// The client's process is gone, or says goodbye.
    fn leave(&mut self, index: usize, politely: bool) {
        if politely {
            self.send(index, &[0xE0, 0]);
        }
        self.lost(index);
    }

    fn lost(&mut self, index: usize) {
        let client = &mut self.clients[index];
        if let Some(pipe) = client.pipe.take() {
            self.sim.0.borrow_mut().pipes[pipe].client_gone = true;
        }
        client.connected = false;
        // What was asked and not answered may have been done or not.
        for (filter, ..) in std::mem::take(&mut client.pending).into_values() {
            if let Some(subscription) = client.subscriptions.get_mut(&filter) {
                subscription.sure = false;
            }
        }
    }

    fn identifier(&mut self, index: usize) -> u16 {
        let client = &mut self.clients[index];
        loop {
            client.next_identifier = client.next_identifier.wrapping_add(1).max(1);
            let identifier = client.next_identifier;
            if !client.outgoing.contains_key(&identifier) && !client.pending.contains_key(&identifier) {
                return identifier;
            }
        }
    }

    fn subscribe(&mut self, index: usize) {
        let filter = FILTERS[self.random.below(FILTERS.len())];
        let qos = self.random.below(3) as u8;
        let identifier = self.identifier(index);
        self.epoch += 1;
        let generation = self.generation();
        let client = &mut self.clients[index];
        client.pending.insert(identifier, (filter.to_owned(), Some(self.epoch), generation));
        client.ever_subscribed.insert(filter.to_owned());
        client.subscriptions.insert(filter.to_owned(), Subscription { qos, epoch: self.epoch, sure: false });
        let handling = [0x00, 0x10, 0x20][self.random.below(3)];
        let body = [&identifier.to_be_bytes()[..], &[0], &text(filter), &[qos | handling]].concat();
        self.send(index, &packet(0x82, &body));
    }

    fn unsubscribe(&mut self, index: usize) {
        let filter = FILTERS[self.random.below(FILTERS.len())];
        let identifier = self.identifier(index);
        let generation = self.generation();
        let client = &mut self.clients[index];
        client.subscriptions.remove(filter);
        client.pending.insert(identifier, (filter.to_owned(), None, generation));
        self.send(index, &packet(0xA2, &[&identifier.to_be_bytes()[..], &[0], &text(filter)].concat()));
    }

    fn publish(&mut self, index: usize) {
        // What the broker's Receive Maximum allows.
        if self.clients[index].outgoing.len() >= 16 {
            return;
        }
        let topic = TOPICS[self.random.below(TOPICS.len())].to_owned();
        let qos = self.random.below(3) as u8;
        let retain = self.random.chance(10);
        let client = &mut self.clients[index];
        client.counter += 1;
        let message = (index as u16, client.counter);
        self.messages.insert(message, (topic.clone(), qos));
        if qos == 0 {
            return self.send(index, &encode_publish(&topic, 0, false, retain, 0, message));
        }
        let identifier = self.identifier(index);
        let candidates = self.candidates(&topic);
        self.send(index, &encode_publish(&topic, qos, false, retain, identifier, message));
        let outgoing = Outgoing { message, topic, qos, released: false, generation: self.generation(), candidates };
        self.clients[index].outgoing.insert(identifier, outgoing);
    }

    /// Who surely has a subscription to a topic now, with the highest QoS it has.
    fn candidates(&self, topic: &str) -> Vec<(usize, u32, u32, u8)> {
        let mut found = Vec::new();
        for (index, client) in self.clients.iter().enumerate() {
            for (filter, subscription) in &client.subscriptions {
                if subscription.sure && subscription.qos > 0 && matches(filter, topic) {
                    found.push((index, client.session, subscription.epoch, subscription.qos));
                }
            }
        }
        found
    }

    /// A message is acknowledged: who is subscribed still must get it.
    fn settle(&mut self, outgoing: &Outgoing) {
        for (index, session, epoch, _) in &outgoing.candidates {
            let client = &self.clients[*index];
            let still =
                client.subscriptions.values().any(|subscription| subscription.sure && subscription.epoch == *epoch);
            if still && client.session == *session {
                self.owed.push((*index, *session, *epoch, outgoing.message));
            }
        }
    }

    /// The client takes some bytes and answers.
    fn read(&mut self, index: usize, most: usize) {
        let Some(pipe) = self.clients[index].pipe else { return };
        let (bytes, ended) = {
            let mut world = self.sim.0.borrow_mut();
            let pipe = &mut world.pipes[pipe];
            let count = pipe.to_client.len().min(most);
            (pipe.to_client.drain(..count).collect::<Vec<u8>>(), pipe.broker_gone && pipe.to_client.is_empty())
        };
        self.clients[index].input.extend(bytes);
        while let Some((first, body)) = self.next_packet(index) {
            self.handle(index, first, &body);
        }
        if ended && self.clients[index].pipe == Some(pipe) {
            self.lost(index);
        }
    }

    fn next_packet(&mut self, index: usize) -> Option<(u8, Vec<u8>)> {
        let input = &mut self.clients[index].input;
        let (mut length, mut at) = (0_usize, 1);
        loop {
            let byte = *input.get(at)?;
            length |= usize::from(byte & 0x7F) << (7 * (at - 1));
            at += 1;
            if byte & 0x80 == 0 {
                break;
            }
        }
        if input.len() < at + length {
            return None;
        }
        let first = input[0];
        let body = input[at..at + length].to_vec();
        input.drain(..at + length);
        Some((first, body))
    }

    fn handle(&mut self, index: usize, first: u8, body: &[u8]) {
        let identifier = |at: usize| u16::from_be_bytes([body[at], body[at + 1]]);
        match first >> 4 {
            2 => self.connected(index, body),
            3 => self.deliver(index, first, body),
            // Refused, because a table is full: nobody is owed anything.
            4 | 5 if matches!(body.get(2), Some(0x97 | 0x83)) => {
                self.refused = true;
                self.clients[index].outgoing.remove(&identifier(0));
            }
            4 | 5 if body.get(2) == Some(&0x87) => {
                if let Some(outgoing) = self.clients[index].outgoing.remove(&identifier(0)) {
                    let denied = |permit: &Permit| !permit.may_publish(&outgoing.topic);
                    let denied = !self.permits.is_empty() && self.some_rules_say(outgoing.generation, index, denied);
                    assert!(denied, "seed {}: client {index} may publish to {}", self.seed, outgoing.topic);
                }
            }
            4 | 7 => {
                assert!(body.len() == 2 || body[2] == 0x92 && first >> 4 == 7, "seed {}: {body:02x?}", self.seed);
                if let Some(outgoing) = self.clients[index].outgoing.remove(&identifier(0)) {
                    let allowed = |permit: &Permit| permit.may_publish(&outgoing.topic);
                    assert!(
                        outgoing.released || self.some_rules_say(outgoing.generation, index, allowed),
                        "seed {}: client {index} may not publish to {}",
                        self.seed,
                        outgoing.topic
                    );
                    self.settle(&outgoing);
                }
            }
            5 => {
                assert!(body.len() == 2, "seed {}: PUBREC {body:02x?}", self.seed);
                if let Some(outgoing) = self.clients[index].outgoing.get_mut(&identifier(0)) {
                    outgoing.released = true;
                }
                self.acknowledge(index, &[0x62, 2, body[0], body[1]]);
            }
            6 => {
                self.clients[index].received_exactly_once.remove(&identifier(0));
                self.acknowledge(index, &[0x70, 2, body[0], body[1]]);
            }
            9 | 11 => {
                let Some((filter, epoch, generation)) = self.clients[index].pending.remove(&identifier(0)) else {
                    return;
                };
                let denied = first >> 4 == 9 && body[3] == 0x87;
                if first >> 4 == 9 {
                    let expected = |permit: &Permit| permit.may_subscribe(&filter) != denied;
                    let right =
                        !(denied && self.permits.is_empty()) && self.some_rules_say(generation, index, expected);
                    assert!(right, "seed {}: client {index}, {filter}, denied {denied}", self.seed);
                }
                let client = &mut self.clients[index];
                if denied {
                    if client.subscriptions.get(&filter).is_some_and(|held| Some(held.epoch) == epoch) {
                        client.subscriptions.remove(&filter);
                    }
                } else if self.store.is_some() && matches!(body[3], 0x83 | 0x97) {
                    // It could not be kept: the client has it or not.
                    self.refused = true;
                } else {
                    assert!(body[3] < 0x80, "seed {}: {body:02x?}", self.seed);
                    let overtaken = client.pending.values().any(|(pending, ..)| *pending == filter);
                    if let Some(subscription) = client.subscriptions.get_mut(&filter) {
                        subscription.sure = Some(subscription.epoch) == epoch && !overtaken;
                    }
                }
            }
            13 => {
                let client = &mut self.clients[index];
                client.floor = client.pings.pop_front().expect("an answer to a PINGREQ");
            }
            14 if body.first() == Some(&0x87) => self.shut_out(index),
            14 => assert_eq!(body.first(), Some(&0x8E), "seed {}: DISCONNECT", self.seed),
            other => panic!("seed {}: packet type {other}", self.seed),
        }
    }

    /// A client hears that it may not be connected.
    fn shut_out(&self, index: usize) {
        let denied = self.some_rules_say(self.clients[index].floor, index, |permit| !permit.connect);
        assert!(denied && !self.permits.is_empty(), "seed {}: client {index} may connect", self.seed);
    }

    fn connected(&mut self, index: usize, body: &[u8]) {
        if body[1] == 0x87 {
            return self.shut_out(index);
        }
        if self.store.is_some() && matches!(body[1], 0x88 | 0x97) {
            // The disk has failed, or is full: the client comes again.
            return;
        }
        assert_eq!(body[1], 0, "seed {}: refused", self.seed);
        let generation = self.generation();
        let client = &mut self.clients[index];
        client.connected = true;
        client.owes_clean = false;
        let present = body[0] == 1;
        if client.asked_clean {
            assert!(!present, "seed {}: a clean start found a session", self.seed);
        }
        if !present && !client.asked_clean {
            assert!(client.session == 0 && client.subscriptions.values().all(|s| !s.sure), "seed {}: lost", self.seed);
        }
        for outgoing in client.outgoing.values_mut() {
            outgoing.generation = generation;
        }
        // Everything that is open is sent again, in order.
        let mut again: Vec<(&u16, &Outgoing)> = client.outgoing.iter().collect();
        again.sort_by_key(|(_, outgoing)| outgoing.message.1);
        let mut bytes = Vec::new();
        for (identifier, outgoing) in again {
            if outgoing.released {
                bytes.extend(packet(0x62, &identifier.to_be_bytes()));
            } else {
                self.resent.insert(outgoing.message);
                bytes.extend(encode_publish(&outgoing.topic, outgoing.qos, true, false, *identifier, outgoing.message));
            }
        }
        self.send(index, &bytes);
    }

    fn deliver(&mut self, index: usize, first: u8, body: &[u8]) {
        let seed = self.seed;
        let (qos, retained, dup) = (first >> 1 & 3, first & 1 != 0, first & 8 != 0);
        let topic_end = 2 + usize::from(u16::from_be_bytes([body[0], body[1]]));
        let mut at = topic_end;
        let mut identifier = 0;
        if qos > 0 {
            identifier = u16::from_be_bytes([body[at], body[at + 1]]);
            at += 2;
        }
        at += 1 + usize::from(body[at]);
        let payload = &body[at..];
        // An alias may stand for the topic; the message knows it too.
        let said = String::from_utf8(body[2..topic_end].to_vec()).unwrap();
        if said.starts_with("$SYS") {
            panic!("seed {seed}: nobody asked for $SYS");
        }
        let message = (
            u16::from_be_bytes(payload[..2].try_into().unwrap()),
            u32::from_be_bytes(payload[2..6].try_into().unwrap()),
        );
        let (topic, published) = self.messages.get(&message).expect("a message that was published").clone();
        assert!(said.is_empty() || said == topic, "seed {seed}");
        assert!(qos <= published, "seed {seed}");
        assert!(
            self.some_rules_say(self.clients[index].floor, index, |permit| permit.may_receive(&topic)),
            "seed {seed}: client {index} got {topic}, which its rules forbid"
        );
        let client = &mut self.clients[index];
        assert!(
            client.ever_subscribed.iter().any(|filter| matches(filter, &topic)),
            "seed {seed}: client {index} got {topic} without a subscription"
        );
        let crashed = self.crashed;
        let new = match qos {
            2 => client.received_exactly_once.insert(identifier),
            _ => true,
        };
        if new && !retained {
            if qos == 2 {
                assert!(client.once.insert(message), "seed {seed}: {message:?} twice with QoS 2 at client {index}");
            }
            let first_time = client.seen.insert(message);
            // A publisher of QoS 1 may send it again, and what was routed twice comes twice.
            assert!(first_time || dup || published == 1 || crashed, "seed {seed}: {message:?} twice with QoS {qos}");
            // A refusal that was lost on the way is tried again too, and may succeed then.
            let may_be_late = published == 1 || self.refused || !self.permits.is_empty() || crashed;
            if first_time && !(may_be_late && self.resent.contains(&message)) {
                let last = client.last.insert((message.0, topic.clone(), published, qos), message.1);
                assert!(
                    last.is_none_or(|last| last < message.1),
                    "seed {seed}: {message:?} after {last:?} on {topic} at client {index}"
                );
            }
        } else if retained {
            client.seen_retained.insert(message);
        }
        let [high, low] = identifier.to_be_bytes();
        match qos {
            1 => self.acknowledge(index, &[0x40, 2, high, low]),
            2 => self.acknowledge(index, &[0x50, 2, high, low]),
            _ => {}
        }
    }

    /// Acknowledgements may be late, but keep their order.
    fn acknowledge(&mut self, index: usize, bytes: &[u8]) {
        self.clients[index].acknowledgements.push_back(bytes.to_vec());
    }

    fn flush(&mut self, index: usize) {
        for bytes in std::mem::take(&mut self.clients[index].acknowledgements) {
            self.send(index, &bytes);
        }
    }

    fn turn(&mut self) {
        self.now.instant = self.now.instant.plus_milliseconds(1 + self.random.below(5) as u64);
        let ready = self.sim.ready();
        self.turn.run(self.now, &ready);
        self.write();
    }

    fn step(&mut self) {
        if !self.permits.is_empty() && self.random.below(200) == 0 {
            let mut permits: Vec<Permit> = (0..self.clients.len()).map(|_| self.draw_permit()).collect();
            // There is no policy without rules.
            permits[0].connect = true;
            self.replace_rules(permits);
            // Some want to know when it is in force.
            for index in 0..self.clients.len() {
                if self.clients[index].connected && self.random.chance(60) {
                    self.ping(index);
                }
            }
        }
        if self.store.is_some() && self.random.below(250) == 0 {
            self.crash();
        }
        if self.store.is_some() && self.random.below(300) == 0 {
            // Everything is written anew, as after a change of authentication and back.
            self.turn.broker().set_judges(1);
            self.turn.broker().set_judges(0);
        }
        let index = self.random.below(self.clients.len());
        if self.clients[index].pipe.is_none() {
            if self.random.chance(30) {
                let clean = self.clients[index].session == 0 || self.random.chance(8);
                self.connect(index, clean);
            }
        } else if self.clients[index].connected {
            match self.random.below(100) {
                0..15 => self.subscribe(index),
                15..20 => self.unsubscribe(index),
                20..80 => self.publish(index),
                80..84 => self.ping(index),
                84..88 => self.leave(index, false),
                88..90 => self.leave(index, true),
                // The same client once more: the older connection is taken over.
                90..91 => {
                    self.lost_but_open(index);
                    self.connect(index, false);
                }
                _ => {}
            }
        }
        for _ in 0..1 + self.random.below(4) {
            let reader = self.random.below(self.clients.len());
            let most = 1 + self.random.below(600);
            self.read(reader, most);
            if self.random.chance(60) {
                self.flush(reader);
            }
        }
        if self.random.chance(70) {
            self.turn();
        }
    }

    fn ping(&mut self, index: usize) {
        let generation = self.generation();
        self.clients[index].pings.push_back(generation);
        self.send(index, &[0xC0, 0]);
    }

    /// The client starts anew while its older connection is still open.
    fn lost_but_open(&mut self, index: usize) {
        let pipe = self.clients[index].pipe;
        self.lost(index);
        if let Some(pipe) = pipe {
            self.sim.0.borrow_mut().pipes[pipe].client_gone = false;
        }
    }

    /// What keeps the simulation from its end.
    fn state(&mut self) -> String {
        let broker = self.turn.broker();
        let store = format!("store {}, settled {}", broker.store_state(), broker.is_settled());
        let world = self.sim.0.borrow();
        let clients = self.clients.iter().enumerate().map(|(index, client)| {
            let pipe = client.pipe.map(|pipe| {
                (&world.pipes[pipe].interest, world.pipes[pipe].to_broker.len(), world.pipes[pipe].to_client.len())
            });
            let outgoing: Vec<_> =
                client.outgoing.iter().map(|(id, out)| (id, out.qos, out.released, out.message)).collect();
            format!("{index}: {pipe:?} connected {} outgoing {outgoing:?}", client.connected)
        });
        format!(
            "{}, ready {:?}, work {}, {store}",
            clients.collect::<Vec<_>>().join("\n"),
            self.sim.ready(),
            self.turn.has_work()
        )
    }

    /// Everybody comes back and takes everything; then nothing may be owed.
    fn finish(&mut self) {
        if let Some(store) = &mut self.store {
            store.fails = false;
            store.disk.fail(&[]);
        }
        if !self.permits.is_empty() {
            let clients = self.clients.len();
            self.replace_rules(std::iter::repeat_with(Permit::everything).take(clients).collect());
        }
        let mut quiet_turns = 0;
        for round in 0..ROUNDS_MAX {
            let mut quiet = round > 20;
            for index in 0..self.clients.len() {
                if self.clients[index].pipe.is_none() {
                    if self.clients[index].session > 0 {
                        self.connect(index, false);
                    }
                    quiet = false;
                }
                self.read(index, usize::MAX);
                let client = &self.clients[index];
                quiet &= client.session == 0 || client.connected;
                quiet &= client.acknowledgements.is_empty() && client.outgoing.is_empty();
                self.flush(index);
            }
            quiet &= self.sim.ready().is_empty() && !self.turn.has_work();
            self.turn();
            quiet &= self.turn.broker().is_settled();
            let world = self.sim.0.borrow();
            quiet &=
                self.clients.iter().all(|client| client.pipe.is_none_or(|pipe| world.pipes[pipe].to_client.is_empty()));
            quiet |= self.clients.iter().all(|client| client.session == 0);
            // What has become safe in this turn lets something go in the next one.
            quiet_turns = if quiet { quiet_turns + 1 } else { 0 };
            if quiet_turns > 1 {
                break;
            }
            drop(world);
            if round == ROUNDS_MAX - 1 {
                let state = self.state();
                panic!("seed {}: no end: {state}", self.seed);
            }
        }
        self.compare_with_disk();
        for (index, session, epoch, message) in &self.owed {
            let client = &self.clients[*index];
            let subscribed = client.subscriptions.values().any(|s| s.sure && s.epoch == *epoch);
            assert!(
                client.session != *session
                    || !subscribed
                    || client.seen.contains(message)
                    || client.seen_retained.contains(message),
                "seed {}: client {index} never got {message:?} {:?}",
                self.seed,
                self.messages.get(message)
            );
        }
    }
}

fn encode_publish(topic: &str, qos: u8, dup: bool, retain: bool, identifier: u16, message: MessageId) -> Vec<u8> {
    let mut body = text(topic);
    if qos > 0 {
        body.extend(identifier.to_be_bytes());
    }
    body.push(0);
    body.extend(message.0.to_be_bytes());
    body.extend(message.1.to_be_bytes());
    // Some do not fit into one block of the pool, nor into one socket buffer.
    body.resize(body.len() + [0, 30, 600, 3_000][message.1 as usize % 4], 7);
    packet(0x30 | u8::from(dup) << 3 | qos << 1 | u8::from(retain), &body)
}

/// A broker's log, and its tables filled from it.
fn bring_back(broker: &mut Broker, now: Now, disk: SimulatedDisk, capacities: &Capacities) -> Recovered<SimulatedDisk> {
    assert!(Journal::buffer_bytes(capacities.packet_bytes) + 64 <= SIZES.segment_bytes as usize);
    let mut recovered = recover(disk, SIZES).expect("a log that can be read");
    assert_eq!(recovered.report.missing, 0, "no power cut damages what was safe: {:?}", recovered.report);
    let (last, room) = (recovered.last, recovered.log.room());
    let persistence = Persistence { commit_interval_milliseconds: 3, ..Persistence::default() };
    broker.set_durability(Durability::new(capacities.packet_bytes, persistence, 0, SIZES, last, room));
    let restored = broker.restore(now, true, &mut recovered).expect("messages that can be read");
    assert_eq!(restored.left_out, 0);
    recovered
}

fn turn_of(sim: &Sim, broker: Broker, capacities: &Capacities) -> Turn<Sim> {
    let listeners = vec![ListenerSettings { port: 0, transport: Transport::Plain, websocket: false }];
    let capacities = capacities.clone();
    Turn::new(sim.clone(), broker, TurnSettings { listeners, capacities, clock_trust: ClockTrust::default() })
}

/// Whether there is a log with this seed.
fn has_store(seed: u64) -> bool {
    seed % 3 == 1
}

/// Whether rules decide, and change, with this seed.
fn has_rules(seed: u64) -> bool {
    // Not in step with the number of clients.
    (seed / 4).is_multiple_of(2)
}

fn simulate(seed: u64, clients: usize, steps: usize) -> usize {
    let mut simulation = Simulation::new(seed, clients);
    for _ in 0..steps {
        simulation.step();
    }
    simulation.finish();
    simulation.owed.len()
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|value| value.parse().expect("a number"))
}

#[test]
fn what_is_acknowledged_arrives_and_in_order() {
    if let Some(seed) = number("PORTCULLIS_SIMULATION_SEED") {
        simulate(seed, clients_of(seed), 3_000);
        return;
    }
    let seeds = number("PORTCULLIS_SIMULATION_SEEDS").unwrap_or(60);
    let owed: usize = (1..=seeds).map(|seed| simulate(seed, clients_of(seed), 3_000)).sum();
    assert!(owed > 100 * usize::try_from(seeds).unwrap(), "the simulation promised something: {owed}");
}

/// Few clients meet often, many are many.
fn clients_of(seed: u64) -> usize {
    [3, 5, 8, 20][seed as usize % 4]
}

#[test]
fn hundreds_of_clients_get_what_is_theirs() {
    assert!(simulate(4_711, 300, 30_000) > 0);
}
