//! What the log says: one record for each change of what must outlive the process.
//!
//! A record is an enum value in postcard; some have more behind it: receivers, and the bytes of a message. Sessions, messages,
//! deliveries and subscriptions have numbers that are never given twice, so that a record about something that the log no
//! longer knows, because its records are damaged or gone, can be told from all others and is passed over.
//!
//! **The order of variants and fields is the format.** New variants go to the end; everything else is a new format of segments.
//!
//! Times are milliseconds of the process's monotonic clock; [`Clock`] records tie them to the wall clock, and tell where
//! another process begins.

use serde::{Deserialize, Serialize};

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Record<'a> {
    /// What the clocks showed when the records behind it were made.
    Clock(Clock),
    /// A session, as a whole.
    #[serde(borrow)]
    Session(Session<'a>),
    /// A session's connection has ended, and the session has not.
    Detached {
        /// Whose.
        session: u64,
        /// Session Expiry Interval, seconds.
        expiry_seconds: u32,
        /// When it ends; `None` for never.
        ends: Option<u64>,
        /// Whether its Will is still to be published.
        has_will: bool,
        /// When.
        will_due: Option<u64>,
    },
    /// A session's Will was published or discarded.
    WillGone {
        /// Whose.
        session: u64,
    },
    /// A session has ended, and with it everything that it held.
    SessionEnded {
        /// Which.
        session: u64,
    },
    /// A subscription, as a whole.
    Subscription(Subscription<'a>),
    /// A subscription has ended.
    Unsubscribed {
        /// Whose.
        session: u64,
        /// Which.
        subscription: u64,
    },
    /// A message. Its bytes follow.
    Message(Message),
    /// A message was published. Its receivers and its bytes follow.
    Published {
        /// The message.
        message: Message,
        /// The QoS with which it is the retained one of its topic from now on.
        retained: Option<u8>,
        /// Session and Packet Identifier that its publisher used with QoS 2: one record, so that neither is there without
        /// the other. [MQTT-4.3.3-10]
        received: Option<(u64, u16)>,
        /// Number of [`Receiver`]s that follow.
        receivers: u32,
    },
    /// A delivery, as a whole.
    Delivery(Delivery<'a>),
    /// A delivery got its Packet Identifier.
    Sent {
        /// Whose.
        session: u64,
        /// Which.
        delivery: u64,
        /// The Packet Identifier.
        packet_identifier: u16,
    },
    /// PUBREC for a delivery has come.
    Recorded {
        /// Whose.
        session: u64,
        /// Which.
        delivery: u64,
    },
    /// A delivery is done, or was given up.
    Done {
        /// Whose.
        session: u64,
        /// Which.
        delivery: u64,
    },
    /// A publisher uses a Packet Identifier with QoS 2.
    Received {
        /// Whose.
        session: u64,
        /// Which.
        packet_identifier: u16,
    },
    /// PUBREL for it has come.
    Released {
        /// Whose.
        session: u64,
        /// Which.
        packet_identifier: u16,
    },
    /// A message is the retained one of its topic.
    Retained {
        /// Which.
        message: u64,
        /// The QoS it was published with.
        qos: u8,
        /// The topic.
        topic: &'a str,
    },
    /// A topic has no retained message any more.
    Cleared {
        /// The topic.
        topic: &'a str,
    },
    /// From here on everything that is live is written again.
    SweepBegins {
        /// Number of the last record that counts, if what stands behind it was given up, because something could not be
        /// written. Neither counts what is written anew before the sweep ends.
        given_up_after: Option<u64>,
    },
    /// Everything that is live stands behind the last [`Record::SweepBegins`].
    SweepEnds,
    /// A Will was published: it is gone with that. Its receivers and its bytes follow.
    PublishedWill {
        /// Whose.
        session: u64,
        /// The message.
        message: Message,
        /// The QoS with which it is the retained one of its topic from now on.
        retained: Option<u8>,
        /// Number of [`Receiver`]s that follow.
        receivers: u32,
    },
}

impl Record<'_> {
    /// Whether it says when something ends or is due.
    #[must_use]
    pub const fn has_time(&self) -> bool {
        match self {
            Self::Session(Session { ends, will_due, .. }) | Self::Detached { ends, will_due, .. } => {
                ends.is_some() || will_due.is_some()
            }
            Self::Message(message) | Self::Published { message, .. } | Self::PublishedWill { message, .. } => {
                message.expires.is_some()
            }
            _ => false,
        }
    }
}

/// What the clocks showed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Clock {
    /// Milliseconds since the start of the process.
    pub instant: u64,
    /// Wall clock, seconds since 1970.
    pub unix: u64,
    /// Whether the wall clock was believed.
    pub trusted: bool,
    /// The first one of its process.
    pub boot: bool,
}

/// A session without what waits for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session<'a> {
    /// Its number.
    pub id: u64,
    /// Its Client Identifier.
    pub client: &'a str,
    /// Index of the port it came in by.
    pub port: u16,
    /// Stands for the ports and the authentication of the configuration that judged it.
    pub judges: u64,
    /// Whether authentication was replaced since.
    pub stale: bool,
    /// How it was authenticated: the number of the method.
    pub method: u8,
    /// Whom it belongs to.
    pub principal: [u8; 16],
    /// User name.
    pub username: Option<&'a str>,
    /// Attributes, as [`crate::identity::Attributes`] keeps them.
    pub attributes: &'a [u8],
    /// Whether its queue is kept too.
    pub keeps_queue: bool,
    /// Whether it had a connection.
    pub connected: bool,
    /// Session Expiry Interval, seconds.
    pub expiry_seconds: u32,
    /// When it ends, if it had no connection; `None` for never.
    pub ends: Option<u64>,
    /// Its Will.
    pub will: Option<Will>,
    /// When the Will is published, if it had no connection.
    pub will_due: Option<u64>,
}

/// A Will; its message stands in a [`Record::Message`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Will {
    /// The message.
    pub message: u64,
    /// QoS.
    pub qos: u8,
    /// Whether it is retained.
    pub retain: bool,
    /// Will Delay Interval, seconds.
    pub delay_seconds: u32,
    /// Message Expiry Interval, seconds.
    pub expiry_seconds: Option<u32>,
}

/// A subscription.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subscription<'a> {
    /// Whose.
    pub session: u64,
    /// Its number.
    pub id: u64,
    /// The group of a shared subscription.
    pub group: Option<&'a str>,
    /// The Topic Filter without its group.
    pub filter: &'a str,
    /// Subscription Options, as in SUBSCRIBE. MQTT 5 §3.8.3.1.
    pub options: u8,
    /// Subscription Identifier.
    pub identifier: Option<u32>,
}

/// A message; its topic, its properties in wire form and its payload follow, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Its number.
    pub id: u64,
    /// Bytes of the topic.
    pub topic_bytes: u16,
    /// Bytes of the properties.
    pub property_bytes: u32,
    /// When it must no longer be delivered.
    pub expires: Option<u64>,
}

/// Who gets a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receiver<'a> {
    /// Its session.
    pub session: u64,
    /// Number of the delivery.
    pub delivery: u64,
    /// QoS, and [`RETAIN`].
    pub flags: u8,
    /// Subscription Identifiers.
    #[serde(borrow)]
    pub identifiers: Identifiers<'a>,
}

/// The RETAIN flag beside the QoS of a delivery.
pub const RETAIN: u8 = 0x04;

/// Subscription Identifiers of a delivery: each a big-endian number of four bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identifiers<'a>(pub &'a [u8]);

impl<'a> Identifiers<'a> {
    /// Writes them into `scratch`; what does not fit is left out.
    #[must_use]
    pub fn of(numbers: &[u32], scratch: &'a mut [u8]) -> Self {
        let mut used = 0;
        for (place, number) in scratch.chunks_exact_mut(4).zip(numbers) {
            place.copy_from_slice(&number.to_be_bytes());
            used += 4;
        }
        Self(scratch.get(..used).unwrap_or_default())
    }

    /// The numbers.
    pub fn iter(self) -> impl Iterator<Item = u32> + 'a {
        self.0.as_chunks::<4>().0.iter().map(|bytes| u32::from_be_bytes(*bytes))
    }
}

/// A delivery.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery<'a> {
    /// Who gets it.
    #[serde(borrow)]
    pub receiver: Receiver<'a>,
    /// Its message; `None` once the receiver has it and only PUBCOMP is awaited.
    pub message: Option<u64>,
    /// Its Packet Identifier, once it has one.
    pub packet_identifier: Option<u16>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_read_back_and_small_ones_are_small() {
        let mut scratch = [0; 8];
        let receiver = Receiver {
            session: 7,
            delivery: 900_000,
            flags: 1 | RETAIN,
            identifiers: Identifiers::of(&[1, 268_435_455], &mut scratch),
        };
        let records = [
            Record::Done { session: 7, delivery: 900_000 },
            Record::Sent { session: 7, delivery: 900_000, packet_identifier: 12 },
            Record::Cleared { topic: "a/b" },
            Record::Delivery(Delivery { receiver: receiver.clone(), message: Some(5), packet_identifier: None }),
            Record::SweepBegins { given_up_after: Some(900_000) },
        ];
        for record in records {
            let bytes = postcard::to_stdvec(&record).unwrap();
            assert!(bytes.len() <= 20, "{record:?} takes {} bytes", bytes.len());
            assert_eq!(postcard::from_bytes::<Record<'_>>(&bytes).unwrap(), record);
        }
        assert_eq!(receiver.identifiers.iter().collect::<Vec<_>>(), [1, 268_435_455]);
    }
}
