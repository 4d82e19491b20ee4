//! What the log has told, as far as it was read: sessions, messages, deliveries, retained messages, each with what was said of
//! it last.
//!
//! Records are applied in the order of the log. What a record refers to may be missing, because its own record was damaged or
//! stands further behind, in a sweep that was under way: it is kept until the end, and dropped then if it is still missing.
//! Bytes of messages stay on the disk; the image knows where.

use super::record::{self, Clock, Record};
use super::segment::Segment;
use crate::time::Now;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// Where the bytes of a message stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct At {
    /// The segment.
    pub segment: Segment,
    /// Where they begin in it.
    pub offset: usize,
    /// How many there are.
    pub bytes: usize,
}

/// A time of some process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    pub(super) process: usize,
    pub(super) milliseconds: u64,
}

/// A session, and what waits for it.
#[derive(Clone, Debug, Default)]
pub struct Session {
    /// The session itself; `None` while nothing was said of it.
    pub about: Option<About>,
    /// By number.
    pub subscriptions: BTreeMap<u64, Subscription>,
    /// By number, which is the order in which they were queued.
    pub deliveries: BTreeMap<u64, Delivery>,
    /// Packet Identifiers of QoS 2 PUBLISH packets that await PUBREL, each with the number of its record.
    pub received: BTreeMap<u16, u64>,
}

/// A session without what waits for it. See [`record::Session`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct About {
    pub client: String,
    pub port: u16,
    pub judges: u64,
    pub stale: bool,
    pub method: u8,
    pub principal: [u8; 16],
    pub username: Option<String>,
    pub attributes: Vec<u8>,
    pub keeps_queue: bool,
    pub connected: bool,
    pub expiry_seconds: u32,
    pub ends: Option<Moment>,
    pub will: Option<record::Will>,
    pub will_due: Option<Moment>,
    home: u64,
}

/// A subscription. See [`record::Subscription`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Subscription {
    pub group: Option<String>,
    pub filter: String,
    pub options: u8,
    pub identifier: Option<u32>,
    home: u64,
}

/// A delivery. See [`record::Delivery`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub struct Delivery {
    pub message: Option<u64>,
    pub flags: u8,
    pub identifiers: Vec<u32>,
    pub packet_identifier: Option<u16>,
    home: u64,
}

/// A message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// Where its topic, properties and payload stand, one after the other.
    pub at: At,
    /// Bytes of the topic.
    pub topic_bytes: u16,
    /// Bytes of the properties.
    pub property_bytes: u32,
    /// When it must no longer be delivered.
    pub expires: Option<Moment>,
    home: u64,
}

/// The retained message of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retained {
    /// The message.
    pub message: u64,
    /// The QoS it was published with.
    pub qos: u8,
    home: u64,
}

/// A process that wrote to the log: what its clocks showed last.
#[derive(Clone, Copy, Debug, Default)]
struct Process {
    last: Clock,
}

/// Everything that the log has told.
#[derive(Debug, Default)]
pub struct Image {
    /// By number.
    pub sessions: BTreeMap<u64, Session>,
    /// By number.
    pub messages: HashMap<u64, Message>,
    /// By topic.
    pub retained: BTreeMap<String, Retained>,
    processes: Vec<Process>,
    sweep_began: Option<u64>,
    /// Largest number of a session, message, delivery or subscription.
    pub last_number: u64,
    /// Deliveries and retained messages whose message was lost.
    pub orphans: u64,
}

/// A record that cannot be read although its checksum is right: of a program that knows more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreadable;

impl Image {
    /// Applies the record in `body`, which stands at `at` with its sequence number.
    ///
    /// # Errors
    /// [`Unreadable`]; nothing has changed then.
    pub fn apply(
        &mut self,
        body: &[u8],
        segment: Segment,
        offset: usize,
        sequence: u64,
    ) -> Result<Applied, Unreadable> {
        let (record, rest) = postcard::take_from_bytes::<Record<'_>>(body).map_err(|_| Unreadable)?;
        let at = |content: &[u8]| At { segment, offset: offset + body.len() - content.len(), bytes: content.len() };
        match record {
            Record::Clock(clock) => {
                self.clock(clock);
                return Ok(Applied::Clock);
            }
            Record::Session(session) => self.session(&session, sequence),
            Record::Detached { session, expiry_seconds, ends, has_will, will_due } => {
                let (ends, will_due) = (self.moment(ends), self.moment(will_due));
                if let Some(about) = self.about(session) {
                    about.connected = false;
                    (about.expiry_seconds, about.ends, about.will_due) = (expiry_seconds, ends, will_due);
                    about.will = about.will.filter(|_| has_will);
                }
            }
            Record::WillGone { session } => {
                if let Some(about) = self.about(session) {
                    (about.will, about.will_due) = (None, None);
                }
            }
            Record::SessionEnded { session } => drop(self.sessions.remove(&session)),
            Record::Subscription(subscription) => {
                let known = Subscription {
                    group: subscription.group.map(str::to_owned),
                    filter: subscription.filter.to_owned(),
                    options: subscription.options,
                    identifier: subscription.identifier,
                    home: sequence,
                };
                self.note(subscription.id);
                self.sessions.entry(subscription.session).or_default().subscriptions.insert(subscription.id, known);
            }
            Record::Unsubscribed { session, subscription } => {
                if let Some(session) = self.sessions.get_mut(&session) {
                    session.subscriptions.remove(&subscription);
                }
            }
            Record::Message(message) => self.message(&message, at(rest), sequence),
            Record::Published { message, retained, received, receivers } => {
                self.published(&message, retained, receivers, rest, at, sequence)?;
                if let Some((session, packet_identifier)) = received {
                    self.received(session, packet_identifier, sequence);
                }
            }
            Record::PublishedWill { session, message, retained, receivers } => {
                self.published(&message, retained, receivers, rest, at, sequence)?;
                if let Some(about) = self.about(session) {
                    (about.will, about.will_due) = (None, None);
                }
            }
            Record::Delivery(delivery) => {
                self.delivery(&delivery.receiver, delivery.message, delivery.packet_identifier, sequence);
            }
            Record::Sent { session, delivery, packet_identifier } => {
                if let Some(delivery) = self.delivery_of(session, delivery) {
                    delivery.packet_identifier = Some(packet_identifier);
                }
            }
            Record::Recorded { session, delivery } => {
                if let Some(delivery) = self.delivery_of(session, delivery) {
                    delivery.message = None;
                }
            }
            Record::Done { session, delivery } => {
                if let Some(session) = self.sessions.get_mut(&session) {
                    session.deliveries.remove(&delivery);
                }
            }
            Record::Received { session, packet_identifier } => self.received(session, packet_identifier, sequence),
            Record::Released { session, packet_identifier } => {
                if let Some(session) = self.sessions.get_mut(&session) {
                    session.received.remove(&packet_identifier);
                }
            }
            Record::Retained { message, qos, topic } => {
                self.retained.insert(topic.to_owned(), Retained { message, qos, home: sequence });
            }
            Record::Cleared { topic } => drop(self.retained.remove(topic)),
            Record::SweepBegins { given_up_after } => {
                self.sweep_began = Some(sequence);
                return Ok(Applied::SweepBegins { given_up_after });
            }
            Record::SweepEnds => {
                if let Some(began) = self.sweep_began.take() {
                    self.forget_before(began);
                }
                return Ok(Applied::SweepEnds);
            }
        }
        Ok(Applied::Yes)
    }

    fn published(
        &mut self,
        message: &record::Message,
        retained: Option<u8>,
        receivers: u32,
        mut rest: &[u8],
        at: impl Fn(&[u8]) -> At,
        sequence: u64,
    ) -> Result<(), Unreadable> {
        let mut list = Vec::new();
        for _ in 0..receivers {
            let (receiver, behind) = postcard::take_from_bytes::<record::Receiver<'_>>(rest).map_err(|_| Unreadable)?;
            list.push(receiver);
            rest = behind;
        }
        let retained = match retained {
            Some(qos) => Some((qos, topic_of(rest, message.topic_bytes)?)),
            None => None,
        };
        self.message(message, at(rest), sequence);
        for receiver in list {
            self.delivery(&receiver, Some(message.id), None, sequence);
        }
        if let Some((qos, topic)) = retained {
            self.retained.insert(topic, Retained { message: message.id, qos, home: sequence });
        }
        Ok(())
    }

    fn note(&mut self, number: u64) {
        self.last_number = self.last_number.max(number);
    }

    fn clock(&mut self, clock: Clock) {
        if clock.boot || self.processes.is_empty() {
            self.processes.push(Process::default());
        }
        if let Some(process) = self.processes.last_mut() {
            process.last = clock;
        }
    }

    fn moment(&self, milliseconds: Option<u64>) -> Option<Moment> {
        let process = self.processes.len().saturating_sub(1);
        milliseconds.map(|milliseconds| Moment { process, milliseconds })
    }

    fn about(&mut self, session: u64) -> Option<&mut About> {
        self.sessions.get_mut(&session)?.about.as_mut()
    }

    fn delivery_of(&mut self, session: u64, delivery: u64) -> Option<&mut Delivery> {
        self.sessions.get_mut(&session)?.deliveries.get_mut(&delivery)
    }

    fn session(&mut self, session: &record::Session<'_>, sequence: u64) {
        self.note(session.id);
        let about = About {
            client: session.client.to_owned(),
            port: session.port,
            judges: session.judges,
            stale: session.stale,
            method: session.method,
            principal: session.principal,
            username: session.username.map(str::to_owned),
            attributes: session.attributes.to_owned(),
            keeps_queue: session.keeps_queue,
            connected: session.connected,
            expiry_seconds: session.expiry_seconds,
            ends: self.moment(session.ends),
            will: session.will,
            will_due: self.moment(session.will_due),
            home: sequence,
        };
        self.sessions.entry(session.id).or_default().about = Some(about);
    }

    fn message(&mut self, message: &record::Message, at: At, sequence: u64) {
        self.note(message.id);
        let known = Message {
            at,
            topic_bytes: message.topic_bytes,
            property_bytes: message.property_bytes,
            expires: self.moment(message.expires),
            home: sequence,
        };
        self.messages.insert(message.id, known);
    }

    fn delivery(
        &mut self,
        receiver: &record::Receiver<'_>,
        message: Option<u64>,
        packet_identifier: Option<u16>,
        sequence: u64,
    ) {
        self.note(receiver.delivery);
        let delivery = Delivery {
            message,
            flags: receiver.flags,
            identifiers: receiver.identifiers.iter().collect(),
            packet_identifier,
            home: sequence,
        };
        self.sessions.entry(receiver.session).or_default().deliveries.insert(receiver.delivery, delivery);
    }

    fn received(&mut self, session: u64, packet_identifier: u16, sequence: u64) {
        let session = self.sessions.entry(session).or_default();
        session.received.insert(packet_identifier, sequence);
    }

    /// A sweep has written everything live behind `began`: what was said only before is not live any more.
    fn forget_before(&mut self, began: u64) {
        self.sessions.retain(|_, session| {
            session.about.as_ref().is_some_and(|about| about.home >= began) && {
                session.subscriptions.retain(|_, subscription| subscription.home >= began);
                session.deliveries.retain(|_, delivery| delivery.home >= began);
                session.received.retain(|_, home| *home >= began);
                true
            }
        });
        self.retained.retain(|_, retained| retained.home >= began);
        // One that was written since may be referred to by what follows.
        self.drop_unreferenced(began);
    }

    fn referenced(&self) -> BTreeSet<u64> {
        let of_sessions = self.sessions.values().flat_map(|session| {
            let will = session.about.as_ref().and_then(|about| about.will).map(|will| will.message);
            session.deliveries.values().filter_map(|delivery| delivery.message).chain(will)
        });
        of_sessions.chain(self.retained.values().map(|retained| retained.message)).collect()
    }

    fn drop_unreferenced(&mut self, before: u64) {
        let referenced = self.referenced();
        self.messages.retain(|number, message| message.home >= before || referenced.contains(number));
    }

    /// The end of the log is reached: drops what nothing was said of, and what nobody needs.
    pub fn finish(&mut self) {
        let mut orphans = 0;
        self.sessions.retain(|_, session| {
            let kept = session.about.is_some();
            // Its own record is damaged, and what was its own is of no use to anybody.
            orphans += u64::from(!kept) * session.deliveries.len() as u64;
            kept
        });
        let messages = &self.messages;
        let known = |message: u64| messages.contains_key(&message);
        for session in self.sessions.values_mut() {
            session.deliveries.retain(|_, delivery| {
                let kept = delivery.message.is_none_or(known);
                orphans += u64::from(!kept);
                kept
            });
            if let Some(about) = &mut session.about {
                about.will = about.will.filter(|will| known(will.message));
            }
        }
        self.retained.retain(|_, retained| {
            let kept = known(retained.message);
            orphans += u64::from(!kept);
            kept
        });
        self.orphans += orphans;
        self.drop_unreferenced(u64::MAX);
    }

    /// Messages in the order in which their bytes stand in the log.
    #[must_use]
    pub fn messages_in_order(&self) -> Vec<(u64, Message)> {
        let mut messages: Vec<(u64, Message)> = self.messages.iter().map(|(id, message)| (*id, *message)).collect();
        messages.sort_unstable_by_key(|(_, message)| message.at);
        messages
    }

    /// What the clocks showed last.
    #[must_use]
    pub fn last_clock(&self) -> Option<Clock> {
        self.processes.last().map(|process| process.last)
    }

    /// What the clocks of each process showed last, the oldest first. A [`Moment`] knows its process by the index.
    pub(super) fn clocks(&self) -> impl ExactSizeIterator<Item = Clock> {
        self.processes.iter().map(|process| process.last)
    }

    /// Milliseconds from now to `moment`, of a process that is over. What has passed since counts as far as it is known: by
    /// the wall clock where it was believed then and is now, else only what later processes counted.
    #[must_use]
    pub fn remaining(&self, moment: Moment, now: Now, trusted: bool) -> u64 {
        let Some(process) = self.processes.get(moment.process) else { return moment.milliseconds };
        let then = moment.milliseconds.saturating_sub(process.last.instant);
        let counted: u64 = self.processes.iter().skip(moment.process + 1).map(|process| process.last.instant).sum();
        let by_wall_clock = if trusted && process.last.trusted {
            now.unix.0.saturating_sub(process.last.unix).saturating_mul(1_000)
        } else {
            0
        };
        then.saturating_sub(counted.max(by_wall_clock))
    }
}

/// What applying a record led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// It is in the image.
    Yes,
    /// It tells the time, and nothing else.
    Clock,
    /// Everything live is written again from here on.
    SweepBegins {
        /// Number of the last record that counts, if what stands behind it was given up.
        given_up_after: Option<u64>,
    },
    /// It was.
    SweepEnds,
}

fn topic_of(content: &[u8], topic_bytes: u16) -> Result<String, Unreadable> {
    let topic = content.get(..usize::from(topic_bytes)).ok_or(Unreadable)?;
    core::str::from_utf8(topic).map(str::to_owned).map_err(|_| Unreadable)
}
