//! The turn over a network of one connection, with clocks that the test moves.

use super::*;
use crate::authentication::{Authenticator, Proof};
use crate::broker::{Admission, PortAdmission, Settings};
use crate::config::blob::{Authentication, HttpsServer, Method};
use crate::config::{DEFAULT_FILES, LoadOptions, load_embedded};
use crate::crypto;
use crate::time::{RELEASED, UnixTime};
use core::cell::RefCell;
use std::net::Ipv4Addr;
use std::rc::Rc;

mod buffers;

/// Both directions of the connection.
#[derive(Default)]
struct Wire {
    to_broker: Vec<u8>,
    to_client: Vec<u8>,
    token: Option<u64>,
    is_closed: bool,
}

struct OneClient {
    wire: Rc<RefCell<Wire>>,
    is_accepted: bool,
}

impl Network for OneClient {
    type Stream = ();

    fn accept(&mut self, _: usize) -> Accepted<()> {
        if core::mem::replace(&mut self.is_accepted, true) {
            return Accepted::Nothing;
        }
        Accepted::Stream((), (Ipv4Addr::LOCALHOST, 1).into())
    }

    fn read(&mut self, _: &mut (), into: &mut [u8]) -> Io {
        let bytes = core::mem::take(&mut self.wire.borrow_mut().to_broker);
        if bytes.is_empty() {
            return Io::WouldBlock;
        }
        into[..bytes.len()].copy_from_slice(&bytes);
        Io::Bytes(bytes.len())
    }

    fn write(&mut self, _: &mut (), from: &[u8]) -> Io {
        self.wire.borrow_mut().to_client.extend_from_slice(from);
        Io::Bytes(from.len())
    }

    fn watch(&mut self, _: &(), token: u64, _: Interest) -> bool {
        self.wire.borrow_mut().token = Some(token);
        true
    }

    fn change(&mut self, _: &(), _: u64, _: Interest) {}

    fn finish(&mut self, _: &mut ()) {
        self.wire.borrow_mut().is_closed = true;
    }

    fn close(&mut self, _: ()) {
        self.wire.borrow_mut().is_closed = true;
    }

    fn listen(&mut self, _: usize, _: bool) {}
}

const NOW: UnixTime = RELEASED.plus_seconds(1_000_000);

fn at(seconds: u64, unix: UnixTime) -> Now {
    Now { instant: Instant::from_milliseconds(seconds * 1_000), unix }
}

fn settings() -> Settings {
    Settings {
        connect_deadline_seconds: 10,
        shares_client_identifiers: false,
        announces_expiry: false,
        validate_payload_format: false,
        sys_interval_seconds: 0,
        response_information: None,
    }
}

/// A turn whose only client is to be let in by a custom server, and has not said anything.
fn accepted() -> (Turn<OneClient>, Rc<RefCell<Wire>>) {
    let mut configuration = load_embedded(DEFAULT_FILES, &LoadOptions::default()).unwrap().configuration;
    let server = HttpsServer {
        endpoint: "https://localhost".to_owned(),
        trust_bundle: None,
        client_secret: None,
        headers: Vec::new(),
    };
    configuration.authentications =
        vec![Authentication { name: "logins".to_owned(), methods: vec![Method::Custom { server }] }];
    let algorithms = crypto::provider().signature_verification_algorithms.all;
    let admission = Admission {
        ports: vec![PortAdmission { authenticator: Some(0), policy: None }],
        authenticators: vec![Authenticator::new(&configuration, 0, algorithms, RELEASED).unwrap()],
        policies: Vec::new(),
        insiders: Vec::new(),
    };
    let capacities = &configuration.board.capacities;
    let broker = Broker::new(capacities, &configuration.clients, &settings(), admission, 1);
    let wire = Rc::new(RefCell::new(Wire::default()));
    let network = OneClient { wire: Rc::clone(&wire), is_accepted: false };
    let listeners = vec![ListenerSettings { port: 0, transport: Transport::Plain, websocket: false }];
    let mut turn = Turn::new(
        network,
        broker,
        TurnSettings { listeners, capacities: capacities.clone(), clock_trust: ClockTrust::default() },
    );
    turn.run(at(0, NOW), &[Readiness { token: 0, readable: true, writable: false, hung_up: false }]);
    (turn, wire)
}

/// A turn whose only client is let in by a custom server, until an hour after `NOW`.
fn connected() -> (Turn<OneClient>, Rc<RefCell<Wire>>) {
    let (mut turn, wire) = accepted();
    wire.borrow_mut().to_broker = b"\x10\x0E\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x01c".to_vec();
    let token = wire.borrow().token.unwrap();
    turn.run(at(0, NOW), &[Readiness { token, readable: true, writable: false, hung_up: false }]);
    let (ticket, _) = turn.broker().next_question().unwrap();
    let proof = Proof { expires: Some(NOW.plus_seconds(3_600)), ..Proof::default() };
    turn.answer(at(0, NOW), ticket, Answer::Proven(proof));
    turn.run(at(0, NOW), &[]);
    let said = core::mem::take(&mut wire.borrow_mut().to_client);
    assert_eq!((said[0], said[3]), (0x20, 0), "{said:?}");
    (turn, wire)
}

#[test]
fn a_clock_that_is_set_moves_the_end_of_every_credential() {
    let (mut turn, wire) = connected();
    // A second later it is set an hour ahead: what ends then ends now, without a word.
    turn.run(at(1, NOW.plus_seconds(3_601)), &[]);
    while turn.has_work() {
        turn.run(at(1, NOW.plus_seconds(3_601)), &[]);
    }
    turn.run(at(1, NOW.plus_seconds(3_601)), &[]);
    assert!(wire.borrow().is_closed && wire.borrow().to_client.is_empty());

    let (mut turn, wire) = connected();
    // Set back by two hours, it makes the credential last three.
    let back = |seconds| at(seconds, UnixTime(NOW.0 - 7_200).plus_seconds(seconds));
    for (seconds, is_closed) in [(1, false), (3_601, false), (10_700, false), (10_801, true)] {
        turn.run(back(seconds), &[]);
        turn.run(back(seconds), &[]);
        assert_eq!(wire.borrow().is_closed, is_closed, "{seconds} s");
    }
}

#[test]
fn a_clock_that_strays_a_little_is_not_set() {
    let (mut turn, wire) = connected();
    for seconds in 1..1_000 {
        turn.run(at(seconds, NOW.plus_seconds(seconds + seconds % 3)), &[]);
        assert!(turn.judge_from.is_none() && !wire.borrow().is_closed, "{seconds} s");
    }
}

/// It is kept for as long as the connection, and stands in CONNACK and AUTH again.
#[test]
fn an_authentication_method_of_any_length_is_not_taken() {
    for (bytes, reason) in [(128, None), (129, Some(0x8C)), (60_000, Some(0x8C))] {
        let (mut turn, wire) = accepted();
        let method = [&u16::to_be_bytes(bytes)[..], &vec![b'm'; usize::from(bytes)]].concat();
        let mut connect = b"\x00\x04MQTT\x05\x02\x00\x00".to_vec();
        put_length(method.len() + 1, &mut connect);
        connect.push(0x15);
        connect.extend_from_slice(&method);
        connect.extend_from_slice(b"\x00\x01c");
        let mut packet = vec![0x10];
        put_length(connect.len(), &mut packet);
        packet.extend_from_slice(&connect);
        wire.borrow_mut().to_broker = packet;
        let token = wire.borrow().token.unwrap();
        turn.run(at(0, NOW), &[Readiness { token, readable: true, writable: false, hung_up: false }]);
        assert_eq!(turn.broker().next_question().is_some(), reason.is_none(), "{bytes}");
        assert_eq!(wire.borrow().to_client.get(3).copied(), reason, "{bytes}");
    }
}

fn put_length(length: usize, bytes: &mut Vec<u8>) {
    let mut rest = length;
    while rest >= 128 {
        bytes.push((rest % 128) as u8 | 0x80);
        rest /= 128;
    }
    bytes.push(rest as u8);
}
