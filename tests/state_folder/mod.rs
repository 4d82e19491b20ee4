//! A small state folder with something of everything, written as a broker writes it.

use portcullis::store::record::{Delivery, Identifiers, Message, RETAIN, Receiver, Session, Subscription, Will};
use portcullis::store::{Disk, Journal, Log, Record, Sizes, Urgency, recover};
use portcullis::time::{Instant, Now, UnixTime};

/// Sizes of its log.
pub const SIZES: Sizes = Sizes { segment_bytes: 1 << 20, total_bytes: 16 << 20 };

/// 2026-12-01T00:00:00Z.
const BEGIN: u64 = 1_796_083_200;
/// A user property of one letter each. MQTT 5 §2.2.2.2.
const PROPERTIES: &[u8] = &[0x26, 0, 1, b'k', 0, 1, b'v'];

struct Writer<D: Disk> {
    log: Log<D>,
    journal: Journal,
}

impl<D: Disk> Writer<D> {
    fn start(disk: D, unix: u64, trusted: bool) -> Self {
        let recovered = recover(disk, SIZES).unwrap();
        let mut writer = Self { journal: Journal::new(4_096, 0, recovered.last), log: recovered.log };
        writer.tick(100, unix, trusted);
        writer
    }

    fn tick(&mut self, milliseconds: u64, unix: u64, trusted: bool) {
        let now = Now { instant: Instant::from_milliseconds(milliseconds), unix: UnixTime(unix) };
        self.journal.set_clock(now, trusted);
    }

    fn put(&mut self, record: &Record<'_>) {
        self.journal.append(record, Urgency::Soon);
    }

    fn put_message(&mut self, record: &Record<'_>, receivers: &[Receiver<'_>], topic: &str, payload: &[u8]) {
        self.journal.append_with(record, Urgency::Soon, |body| {
            receivers.iter().try_for_each(|receiver| body.put_receiver(receiver))?;
            for part in [topic.as_bytes(), PROPERTIES, payload] {
                body.put_zeros(part.len())?.copy_from_slice(part);
            }
            Ok(())
        });
    }

    fn commit(&mut self) {
        let batch = self.journal.next_batch(Instant::from_milliseconds(u64::MAX)).unwrap();
        self.log.write(&batch).unwrap();
        self.journal.written(batch);
    }
}

fn session(id: u64, client: &str, connected: bool, ends: Option<u64>, will: Option<Will>) -> Session<'_> {
    Session {
        id,
        client,
        port: 0,
        judges: 0x1234_5678,
        stale: false,
        method: 1,
        principal: [0xAB; 16],
        username: Some("somebody"),
        attributes: b"\x04site\x05plant",
        keeps_queue: true,
        connected,
        expiry_seconds: 3_600,
        ends,
        will,
        will_due: None,
    }
}

fn message(id: u64, topic: &str, expires: Option<u64>) -> Message {
    Message { id, topic_bytes: topic.len() as u16, property_bytes: PROPERTIES.len() as u32, expires }
}

/// Writes the state of two processes, the second of which had begun a sweep.
pub fn write<D: Disk + Clone>(disk: D) -> D {
    let mut writer = Writer::start(disk.clone(), BEGIN, true);
    let will = Will { message: 5, qos: 1, retain: false, delay_seconds: 30, expiry_seconds: Some(60) };
    writer.put_message(&Record::Message(message(5, "wills/thermostat", None)), &[], "wills/thermostat", b"gone");
    writer.put(&Record::Session(session(1, "thermostat", true, None, Some(will))));
    writer.put(&Record::Session(session(2, "away", false, Some(3_600_100), None)));
    writer.put(&Record::Session(session(3, "red\u{1b}[31m\u{202e}", false, None, None)));
    writer.put(&Record::Session(session(4, "ended", true, None, None)));
    for (session, id, group, filter) in
        [(1, 10, None, "telemetry/#"), (2, 11, Some("workers"), "jobs/+"), (2, 12, None, "gone/#")]
    {
        let (options, identifier) = (1, (id == 10).then_some(268_435_455));
        writer.put(&Record::Subscription(Subscription { session, id, group, filter, options, identifier }));
    }
    writer.put(&Record::Unsubscribed { session: 2, subscription: 12 });
    writer.put(&Record::SessionEnded { session: 4 });
    writer.commit();

    let mut scratch = [0; 8];
    let identifiers = Identifiers::of(&[1, 268_435_455], &mut scratch);
    for (id, topic) in [(20, "telemetry/a"), (30, "telemetry/b"), (40, "jobs/c")] {
        let receiver = |session, delivery| Receiver { session, delivery, flags: 1 | RETAIN, identifiers };
        let receivers = [receiver(1, id + 1), receiver(2, id + 2)];
        let published = Record::Published {
            message: message(id, topic, Some(60_000 + id)),
            retained: (id != 40).then_some(1),
            received: Some((2, id as u16)),
            receivers: 2,
        };
        writer.put_message(&published, &receivers, topic, &[id as u8; 300]);
        writer.commit();
    }
    writer.tick(5_000, BEGIN + 5, true);
    writer.put(&Record::Sent { session: 1, delivery: 21, packet_identifier: 1 });
    writer.put(&Record::Sent { session: 1, delivery: 31, packet_identifier: 2 });
    writer.put(&Record::Recorded { session: 1, delivery: 31 });
    writer.put(&Record::Done { session: 2, delivery: 22 });
    writer.put(&Record::Released { session: 2, packet_identifier: 20 });
    writer.put(&Record::Cleared { topic: "telemetry/a" });
    writer.commit();

    let mut writer = Writer::start(disk.clone(), BEGIN + 100, false);
    writer.tick(9_000, BEGIN + 109, false);
    let detached = Record::Detached {
        session: 1,
        expiry_seconds: 7_200,
        ends: Some(7_209_000),
        has_will: true,
        will_due: Some(39_000),
    };
    writer.put(&detached);
    writer.put(&Record::Received { session: 3, packet_identifier: 65_535 });
    writer.commit();
    writer.journal.begin_sweep();
    writer.put(&Record::Session(session(3, "red\u{1b}[31m\u{202e}", false, None, None)));
    writer.put(&Record::Received { session: 3, packet_identifier: 65_535 });
    writer.put(&Record::Retained { message: 30, qos: 2, topic: "telemetry/b" });
    let receiver = Receiver { session: 2, delivery: 42, flags: 0, identifiers: Identifiers::default() };
    writer.put(&Record::Delivery(Delivery { receiver, message: Some(40), packet_identifier: Some(9) }));
    writer.commit();
    disk
}
