//! Buffers of many connections: what halting senders and slow readers may hold.

use super::*;
use crate::net::link::FREE_TRANSMIT_BYTES;

const CLIENTS: usize = 40;
const PACKET_BYTES: u32 = 100_000;
const RECEIVE_BYTES: u32 = 400_000;
const TRANSMIT_BYTES: u32 = 300_000;

/// One side of a connection: what comes, and how much the socket still takes.
#[derive(Default)]
struct Socket {
    to_broker: Vec<u8>,
    takes: usize,
    token: u64,
    interest: Interest,
    is_closed: bool,
}

#[derive(Clone, Default)]
struct Sockets(Rc<RefCell<(Vec<Socket>, usize)>>);

impl Network for Sockets {
    type Stream = usize;

    fn accept(&mut self, _: usize) -> Accepted<usize> {
        let (sockets, accepted) = &mut *self.0.borrow_mut();
        if *accepted == sockets.len() {
            return Accepted::Nothing;
        }
        *accepted += 1;
        Accepted::Stream(*accepted - 1, (Ipv4Addr::LOCALHOST, 1).into())
    }

    fn read(&mut self, stream: &mut usize, into: &mut [u8]) -> Io {
        let bytes = &mut self.0.borrow_mut().0[*stream].to_broker;
        let count = bytes.len().min(into.len());
        if count == 0 {
            return Io::WouldBlock;
        }
        into[..count].copy_from_slice(&bytes[..count]);
        bytes.drain(..count);
        Io::Bytes(count)
    }

    fn write(&mut self, stream: &mut usize, from: &[u8]) -> Io {
        let takes = &mut self.0.borrow_mut().0[*stream].takes;
        let count = from.len().min(*takes);
        *takes -= count;
        if count == 0 { Io::WouldBlock } else { Io::Bytes(count) }
    }

    fn watch(&mut self, stream: &usize, token: u64, interest: Interest) -> bool {
        let socket = &mut self.0.borrow_mut().0[*stream];
        (socket.token, socket.interest) = (token, interest);
        true
    }

    fn change(&mut self, stream: &usize, _: u64, interest: Interest) {
        self.0.borrow_mut().0[*stream].interest = interest;
    }

    fn finish(&mut self, _: &mut usize) {}

    fn close(&mut self, stream: usize) {
        self.0.borrow_mut().0[stream].is_closed = true;
    }

    fn listen(&mut self, _: usize, _: bool) {}
}

struct Many {
    turn: Turn<Sockets>,
    sockets: Sockets,
}

impl Many {
    /// Clients that are connected and subscribe to `t`, whose sockets take `takes` bytes after that.
    fn new(takes: usize) -> Self {
        let configuration = load_embedded(DEFAULT_FILES, &LoadOptions::default()).unwrap().configuration;
        let mut capacities = configuration.board.capacities.clone();
        (capacities.packet_bytes, capacities.receive_bytes) = (PACKET_BYTES, RECEIVE_BYTES);
        capacities.transmit_bytes = TRANSMIT_BYTES;
        let ports = vec![PortAdmission { authenticator: None, policy: None }];
        let admission = Admission { ports, authenticators: Vec::new(), policies: Vec::new(), insiders: Vec::new() };
        let broker = Broker::new(&capacities, &configuration.clients, &settings(), admission, 1);
        let sockets = Sockets::default();
        for number in 0..CLIENTS {
            let mut to_broker = b"\x10\x0E\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x01".to_vec();
            to_broker.push(u8::try_from(number).unwrap() + b'0');
            to_broker.extend_from_slice(b"\x82\x07\x00\x01\x00\x00\x01t\x00");
            sockets.0.borrow_mut().0.push(Socket { to_broker, takes: 1_000, ..Socket::default() });
        }
        let listeners = vec![ListenerSettings { port: 0, transport: Transport::Plain, websocket: false }];
        let settings = TurnSettings { listeners, capacities, clock_trust: ClockTrust::default() };
        let mut many = Self { turn: Turn::new(sockets.clone(), broker, settings), sockets };
        for _ in 0..CLIENTS {
            many.turn.run(at(0, NOW), &[Readiness { token: 0, readable: true, writable: false, hung_up: false }]);
        }
        while many.turn() {}
        many.sockets.0.borrow_mut().0.iter_mut().for_each(|socket| socket.takes = takes);
        many
    }

    /// One turn with what is ready. Returns whether anything was.
    fn turn(&mut self) -> bool {
        self.turn_at(0)
    }

    /// The same after so many seconds.
    fn turn_at(&mut self, seconds: u64) -> bool {
        let ready: Vec<Readiness> = (self.sockets.0.borrow().0.iter())
            .map(|socket| Readiness {
                token: socket.token,
                readable: socket.interest.read && !socket.to_broker.is_empty(),
                writable: socket.interest.write && socket.takes > 0,
                hung_up: false,
            })
            .filter(|ready| ready.readable || ready.writable)
            .collect();
        self.turn.run(at(seconds, NOW.plus_seconds(seconds)), &ready);
        let links = || self.turn.links.iter().flatten();
        let received: usize = links().map(|link| link.buffered().saturating_sub(FREE_RECEIVE_BYTES)).sum();
        assert!(received <= RECEIVE_BYTES as usize, "{received} bytes in receive buffers");
        let outgoing: usize = links().map(|link| link.outgoing.capacity().saturating_sub(FREE_TRANSMIT_BYTES)).sum();
        assert!(outgoing <= TRANSMIT_BYTES as usize, "{outgoing} bytes in transmit buffers");
        !ready.is_empty()
    }

    fn closed(&self) -> usize {
        self.sockets.0.borrow().0.iter().filter(|socket| socket.is_closed).count()
    }

    fn send(&self, number: usize, bytes: &[u8]) {
        self.sockets.0.borrow_mut().0[number].to_broker.extend_from_slice(bytes);
    }
}

/// A PUBLISH of QoS 0 with so many bytes in all, to a topic of one letter.
fn publish(topic: u8, packet_bytes: usize) -> Vec<u8> {
    let length_bytes = if packet_bytes > 16_387 { 3 } else { 2 };
    let rest = packet_bytes - 1 - length_bytes;
    let mut bytes = vec![0x30];
    bytes.extend((1..=length_bytes).map(|place| {
        let more = if place < length_bytes { 0x80 } else { 0 };
        (rest >> (7 * (place - 1)) & 0x7F) as u8 | more
    }));
    bytes.extend_from_slice(&[0, 1, topic, 0]);
    bytes.resize(packet_bytes, b'x');
    bytes
}

#[test]
fn large_packets_that_halt_stay_inside_the_receive_buffers_and_come_through_in_the_end() {
    let mut many = Many::new(usize::MAX);
    // Sizes around the largest, each halting at another place, with the beginning of a second packet behind it.
    let packets: Vec<Vec<u8>> =
        (0..CLIENTS).map(|number| publish(b'n', PACKET_BYTES as usize - number * 700)).collect();
    let cut = |number: usize| 5_000 + number * 1_700;
    for (number, packet) in packets.iter().enumerate() {
        many.send(number, &packet[..cut(number)]);
    }
    for _ in 0..50 {
        many.turn();
    }
    assert!(many.turn.broker().telemetry().counters.full[Table::ReceiveBuffers as usize] > 0, "they are too many");
    for (number, packet) in packets.iter().enumerate() {
        many.send(number, &packet[cut(number)..]);
        many.send(number, packet);
    }
    for _ in 0..1_000 {
        many.turn();
    }
    assert_eq!(many.turn.broker().telemetry().counters.publishes_received, 2 * CLIENTS as u64);
    assert_eq!((many.turn.receive.left(), many.closed()), (RECEIVE_BYTES as usize, 0));
}

#[test]
fn clients_that_do_not_read_stay_inside_the_transmit_buffers_and_get_everything_in_the_end() {
    let mut many = Many::new(0);
    for _ in 0..5 {
        many.send(0, &publish(b't', 90_000));
        for _ in 0..10 {
            many.turn();
        }
    }
    assert!(many.turn.broker().telemetry().counters.full[Table::TransmitBuffers as usize] > 0, "they are too many");
    // Little by little: everybody has room for a while, and then for everything.
    for takes in [1_000, 20_000, usize::MAX] {
        many.sockets.0.borrow_mut().0.iter_mut().for_each(|socket| socket.takes = takes);
        while many.turn() {}
    }
    let sent = many.turn.broker().telemetry().counters.publishes_sent;
    assert_eq!((sent, many.turn.transmit.left()), (5 * CLIENTS as u64, TRANSMIT_BYTES as usize));
    assert_eq!(many.closed(), 0);
}

#[test]
fn who_waits_for_receive_buffers_and_is_gone_is_closed_and_gives_them_back() {
    let mut many = Many::new(usize::MAX);
    for number in 0..CLIENTS {
        many.send(number, &publish(b'n', 99_000)[..98_000]);
    }
    for _ in 0..50 {
        many.turn();
    }
    let waiting = |many: &Many| many.sockets.0.borrow().0.iter().filter(|socket| !socket.interest.read).count();
    assert!(waiting(&many) > CLIENTS / 2);
    let tokens: Vec<u64> = many.sockets.0.borrow().0.iter().map(|socket| socket.token).collect();
    let gone = |token| Readiness { token, readable: true, writable: false, hung_up: true };
    let starved = many.sockets.0.borrow().0.iter().position(|socket| !socket.interest.read).unwrap();
    many.turn.run(at(0, NOW), &[gone(tokens[starved])]);
    assert_eq!(many.closed(), 1);
    for key in tokens.into_iter().filter_map(Key::from_bits) {
        many.turn.drop_link(at(0, NOW), key, Cause::NetworkClosed, Text::default());
    }
    assert_eq!((many.closed(), many.turn.receive.left()), (CLIENTS, RECEIVE_BYTES as usize));
}

#[test]
fn who_does_not_end_a_packet_is_closed_when_others_wait_for_its_buffers() {
    let mut many = Many::new(usize::MAX);
    // The first four take all receive buffers.
    for number in 0..4 {
        many.send(number, &publish(b'n', 99_000)[..98_000]);
    }
    for _ in 0..10 {
        many.turn();
    }
    many.turn_at(100);
    assert_eq!(many.closed(), 0, "nobody waits");
    many.send(7, &publish(b'n', 90_000));
    for _ in 0..10 {
        many.turn_at(100);
    }
    assert!(many.closed() == 4 && many.turn.broker().telemetry().counters.publishes_received == 1);
}

#[test]
fn what_a_sender_has_not_taken_itself_counts_while_its_messages_go_to_others() {
    let mut many = Many::new(0);
    many.sockets.0.borrow_mut().0.iter_mut().skip(CLIENTS / 2).for_each(|socket| socket.takes = usize::MAX);
    many.send(CLIENTS - 1, &publish(b't', 60_000));
    while many.turn() {}
    let held = |many: &Many, number: usize| many.turn.links[number].as_ref().map_or(0, Link::held);
    let sender = (0..CLIENTS).max_by_key(|number| held(&many, *number)).unwrap();
    assert!(held(&many, sender) > 50_000, "it does not read");
    // Nobody takes anything any more, and there is so much to be sent that some of it is before all is read.
    many.sockets.0.borrow_mut().0.iter_mut().for_each(|socket| socket.takes = 0);
    for _ in 0..200 {
        many.send(sender, &publish(b't', 1_000));
    }
    for _ in 0..10 {
        many.turn();
    }
    assert_eq!(many.turn.broker().telemetry().counters.publishes_received, 201);
    many.sockets.0.borrow_mut().0.iter_mut().for_each(|socket| socket.takes = usize::MAX);
    while many.turn() {}
    let sent = many.turn.broker().telemetry().counters.publishes_sent;
    assert_eq!((sent, many.turn.transmit.left()), (201 * CLIENTS as u64, TRANSMIT_BYTES as usize));
}
