//! Messages from publishers to subscribers: what a broker spends on them, and how long they take.
//!
//! Each payload begins with its publisher, its number, and the time at which it was due, so that subscribers notice what is
//! missing, doubled or out of order. A publisher has at most `window` messages that some subscriber lacks: nothing is piled up.

use crate::Failure;
use crate::client::Client;
use crate::loops::Poller;
use crate::measure::{self, Latencies};
use crate::options::{Options, Shape};
use crate::pki;
use crate::wire::{self, kind};
use rustls::ClientConfig;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Bytes at the front of each payload.
pub const STAMP_BYTES: usize = 24;
/// What waits for a connection that the system has not taken: beyond it nothing is published.
const UNSENT_BYTES_MAX: usize = 1 << 20;
/// How long what was published may take to arrive when no more is published, and the first message when all wait for it.
const DRAIN: Duration = Duration::from_secs(20);

struct Publisher {
    client: Client,
    topics: Vec<String>,
    /// Subscribers of each message.
    receivers: u64,
    sent: u64,
    /// Of all its messages to all their subscribers.
    delivered: u64,
    /// QoS 1 and 2: without PUBACK or PUBCOMP.
    unacknowledged: usize,
    receive_maximum: u16,
    identifier: u16,
    refused: u64,
}

struct Subscriber {
    client: Client,
    /// By publisher: the number of its next message.
    next: Vec<u64>,
}

/// What is counted while it is measured.
#[derive(Default)]
struct Counts {
    delivered: u64,
    disordered: u64,
    latencies: Latencies,
}

/// What was spent up to some moment.
struct Moment {
    at: Instant,
    delivered: u64,
    broker: Duration,
    own: Duration,
}

struct Flow<'a> {
    options: &'a Options,
    poller: Poller,
    publishers: Vec<Publisher>,
    subscribers: Vec<Subscriber>,
    payload: Vec<u8>,
    begin: Instant,
    counts: Counts,
}

/// Runs the load.
pub fn run(options: &Options) -> Result<Value, Failure> {
    let clients = options.tls.as_ref().map(|folder| pki::clients(folder, false)).transpose()?;
    let idle = set_up_idle(options, clients.as_deref())?;
    let mut flow = Flow::new(options, clients.as_deref())?;
    flow.turn_until(flow.begin + options.warm_up)?;
    let from = flow.moment()?;
    flow.counts.latencies.clear();
    let end = flow.begin + options.warm_up + options.time;
    flow.turn_until(end)?;
    while flow.counts.delivered == from.delivered && Instant::now() < end + DRAIN {
        flow.turn_until(Instant::now() + Duration::from_millis(20))?;
    }
    let to = flow.moment()?;
    let latencies = flow.counts.latencies.summary();
    let resident = measure::resident(options.pid)?;
    flow.drain()?;
    drop(idle);
    let expected: u64 = flow.publishers.iter().map(|publisher| publisher.sent * publisher.receivers).sum();
    let refused: u64 = flow.publishers.iter().map(|publisher| publisher.refused).sum();
    let (delivered, seconds) = (to.delivered - from.delivered, (to.at - from.at).as_secs_f64());
    let (broker, own) = ((to.broker - from.broker).as_secs_f64(), (to.own - from.own).as_secs_f64());
    Ok(json!({
        "delivered": delivered,
        "seconds": seconds,
        "broker_cpu_seconds": broker,
        "load_cpu_seconds": own,
        "cpu_per_million": if delivered == 0 { None } else { Some(broker * 1e6 / delivered as f64) },
        "lost": expected - flow.counts.delivered,
        "disordered": flow.counts.disordered,
        "refused": refused,
        "resident": resident,
        "latency_us": if options.rate.is_some() { latencies } else { Value::Null },
    }))
}

/// Connections that do nothing, and subscriptions that match nothing.
fn set_up_idle(options: &Options, tls: Option<&[Arc<ClientConfig>]>) -> Result<Vec<Client>, Failure> {
    const PER_CLIENT: usize = 1_000;
    let mut idle = Vec::new();
    for number in 0..options.connections.max(options.idle_subscriptions.div_ceil(PER_CLIENT)) {
        let tls = tls.and_then(|tls| tls.get(number % tls.len()));
        let mut client = Client::open(options.port, tls, &format!("idle-{number}"))?.0;
        let from = number * PER_CLIENT;
        let to = (from + PER_CLIENT).min(options.idle_subscriptions);
        let filters: Vec<String> = (from..to).map(|number| format!("idle/{}/{}", number / 400, number % 400)).collect();
        client.subscribe(&filters, 0)?;
        idle.push(client);
    }
    Ok(idle)
}

impl<'a> Flow<'a> {
    fn new(options: &'a Options, tls: Option<&[Arc<ClientConfig>]>) -> Result<Self, Failure> {
        let poller = Poller::new()?;
        let config = |number: usize| tls.and_then(|tls| tls.get(number % tls.len()));
        let (mut publishers, mut subscribers) = (Vec::new(), Vec::new());
        for number in 0..options.subscribers {
            let mut client = Client::open(options.port, config(number), &format!("subscriber-{number}"))?.0;
            let filter = match options.shape {
                Shape::Pairs if options.topics > 1 => format!("load/{number}/+"),
                Shape::Pairs => format!("load/{number}"),
                Shape::Fan => "load/+".to_owned(),
            };
            client.subscribe(&[filter], options.qos)?;
            poller.watch(&client.socket.stream, (options.publishers + number) as u64)?;
            subscribers.push(Subscriber { client, next: vec![0; options.publishers] });
        }
        let receivers = if options.shape == Shape::Pairs { 1 } else { options.subscribers as u64 };
        for number in 0..options.publishers {
            let (client, receive_maximum) = Client::open(options.port, config(number), &format!("publisher-{number}"))?;
            poller.watch(&client.socket.stream, number as u64)?;
            publishers.push(Publisher {
                client,
                topics: match options.topics {
                    1 => vec![format!("load/{number}")],
                    topics => (0..topics).map(|topic| format!("load/{number}/{topic}")).collect(),
                },
                receivers,
                sent: 0,
                delivered: 0,
                unacknowledged: 0,
                receive_maximum,
                identifier: 0,
                refused: 0,
            });
        }
        let payload = vec![b'x'; options.payload];
        let (begin, counts) = (Instant::now(), Counts::default());
        Ok(Self { options, poller, publishers, subscribers, payload, begin, counts })
    }

    fn moment(&self) -> Result<Moment, Failure> {
        Ok(Moment {
            at: Instant::now(),
            delivered: self.counts.delivered,
            broker: measure::cpu(self.options.pid)?,
            own: measure::cpu(std::process::id())?,
        })
    }

    /// When the next message is due, with a rate. They go round the publishers.
    fn next_due(&self, rate: u32) -> Instant {
        let sent: u64 = self.publishers.iter().map(|publisher| publisher.sent).sum();
        self.begin + Duration::from_nanos((sent as f64 * 1e9 / f64::from(rate)) as u64)
    }

    fn turn_until(&mut self, end: Instant) -> Result<(), Failure> {
        loop {
            let now = Instant::now();
            if now >= end {
                return Ok(());
            }
            let mut wait = end - now;
            match self.options.rate {
                None => self.fill()?,
                Some(rate) => loop {
                    let due = self.next_due(rate);
                    if due > now {
                        wait = wait.min(due - now);
                        break;
                    }
                    self.publish_next(due)?;
                },
            }
            self.turn(wait)?;
        }
    }

    /// Publishes as much as the windows allow.
    fn fill(&mut self) -> Result<(), Failure> {
        let (qos, window) = (self.options.qos, self.options.window as u64);
        for (index, publisher) in self.publishers.iter_mut().enumerate() {
            let before = publisher.sent;
            while publisher.sent * publisher.receivers < publisher.delivered + window * publisher.receivers
                && publisher.unacknowledged < usize::from(publisher.receive_maximum).min(self.options.window)
                && publisher.client.socket.unsent() < UNSENT_BYTES_MAX
            {
                publisher.publish(index, qos, 0, &mut self.payload);
            }
            if publisher.sent > before {
                publisher.client.flush(&self.poller, index as u64)?;
            }
        }
        Ok(())
    }

    fn publish_next(&mut self, due: Instant) -> Result<(), Failure> {
        let index = (0..self.publishers.len()).min_by_key(|index| self.publishers[*index].sent).unwrap_or(0);
        let due = (due - self.begin).as_nanos() as u64;
        let publisher = &mut self.publishers[index];
        publisher.publish(index, self.options.qos, due, &mut self.payload);
        publisher.client.flush(&self.poller, index as u64)
    }

    /// Waits, and takes what has come.
    fn turn(&mut self, wait: Duration) -> Result<(), Failure> {
        for ready in self.poller.wait(wait)? {
            let index = ready.token as usize;
            let subscriber = index.checked_sub(self.publishers.len());
            let is_open = match subscriber {
                // There is room for what waits, which goes below.
                _ if !ready.readable => true,
                None => self.publishers[index].hear()?,
                Some(number) => self.hear_subscriber(number)?,
            };
            if !is_open {
                return Err("the broker closed a connection".into());
            }
            let client = match subscriber {
                None => &mut self.publishers[index].client,
                Some(number) => &mut self.subscribers[number].client,
            };
            client.flush(&self.poller, ready.token)?;
        }
        Ok(())
    }

    fn hear_subscriber(&mut self, number: usize) -> Result<bool, Failure> {
        let Self { publishers, subscribers, counts, begin, options, .. } = self;
        let Subscriber { client, next } = &mut subscribers[number];
        let now = (Instant::now() - *begin).as_nanos() as u64;
        client.receive(|packet, out| {
            match packet.first & 0xF0 {
                kind::PUBLISH => {
                    let (_, identifier, payload) = packet.publish().ok_or("a PUBLISH that is not understood")?;
                    let stamp = stamp(payload).ok_or("a payload that nobody here has sent")?;
                    let publisher = publishers.get_mut(stamp[0] as usize).ok_or("a publisher that does not exist")?;
                    counts.disordered += u64::from(stamp[1] != next[stamp[0] as usize]);
                    next[stamp[0] as usize] = stamp[1] + 1;
                    publisher.delivered += 1;
                    counts.delivered += 1;
                    if options.rate.is_some() {
                        counts.latencies.add(now.saturating_sub(stamp[2]));
                    }
                    match packet.first & 0x06 {
                        0x02 => wire::acknowledge(kind::PUBACK, identifier, out),
                        0x04 => wire::acknowledge(kind::PUBREC, identifier, out),
                        _ => {}
                    }
                }
                0x60 => {
                    let (identifier, _) = packet.acknowledgement().ok_or("a PUBREL that is not understood")?;
                    wire::acknowledge(kind::PUBCOMP, identifier, out);
                }
                _ => {}
            }
            Ok(())
        })
    }

    /// Goes on until everything has arrived, or nothing more does.
    fn drain(&mut self) -> Result<(), Failure> {
        let end = Instant::now() + DRAIN;
        while Instant::now() < end
            && self.publishers.iter().any(|one| one.delivered < one.sent * one.receivers || one.unacknowledged > 0)
        {
            for (index, publisher) in self.publishers.iter_mut().enumerate() {
                publisher.client.flush(&self.poller, index as u64)?;
            }
            self.turn(Duration::from_millis(20))?;
        }
        Ok(())
    }
}

/// Publisher, number, and nanoseconds from the beginning at which it was due.
fn stamp(payload: &[u8]) -> Option<[u64; 3]> {
    let (stamps, _) = payload.get(..STAMP_BYTES)?.as_chunks::<8>();
    Some([0, 1, 2].map(|at| u64::from_le_bytes(stamps[at])))
}

impl Publisher {
    fn publish(&mut self, index: usize, qos: u8, due: u64, payload: &mut [u8]) {
        for (place, value) in payload.as_chunks_mut::<8>().0.iter_mut().zip([index as u64, self.sent, due]) {
            *place = value.to_le_bytes();
        }
        if qos > 0 {
            // There are never so many under way that one is used twice.
            self.identifier = self.identifier.checked_add(1).unwrap_or(1);
            self.unacknowledged += 1;
        }
        let topic = &self.topics[self.sent as usize % self.topics.len()];
        wire::publish(topic, qos, self.identifier, payload, self.client.socket.out());
        self.sent += 1;
    }

    fn hear(&mut self) -> Result<bool, Failure> {
        let Self { client, unacknowledged, refused, .. } = self;
        client.receive(|packet, out| {
            let done = match packet.first & 0xF0 {
                kind::PUBACK | kind::PUBCOMP => true,
                kind::PUBREC => {
                    let (identifier, reason) = packet.acknowledgement().ok_or("a PUBREC that is not understood")?;
                    if reason < 0x80 {
                        wire::acknowledge(kind::PUBREL, identifier, out);
                    }
                    reason >= 0x80
                }
                _ => false,
            };
            if done {
                *unacknowledged = unacknowledged.saturating_sub(1);
                // 0x10 says that nobody has subscribed; here everybody has.
                *refused += u64::from(packet.acknowledgement().is_none_or(|(_, reason)| reason != 0));
            }
            Ok(())
        })
    }
}
