//! MQTT bytes ⇄ packets, for MQTT 5.0 (OASIS Standard, 7 March 2019) and MQTT 3.1.1.
//!
//! In: the bytes of one packet, cut from the stream by [`decode_fixed_header`]. Out: a [`Packet`] that borrows from them.
//! The other way: any packet struct is written by its `encode` into a [`Writer`] over a buffer of the caller's.
//!
//! **Invariant:** no state, no heap, no panic and no recursion, whatever the bytes are. A packet that `decode` returns is
//! valid in itself: lengths, UTF-8, flags, reason codes and properties are checked, and a property occurs as often as it
//! may. What depends on the connection (direction, order, Topic Alias Maximum, quotas), and whether the text of a Topic
//! Filter is valid, is judged by the caller.

pub mod decode_error;
pub mod frame;
pub mod packet;
pub mod properties;
pub mod property_section;
pub mod reader;
pub mod reason_code;
pub mod topic;
pub mod writer;

use core::num::NonZeroU16;

pub use decode_error::DecodeError;
pub use frame::{FixedHeader, PacketType, REMAINING_LENGTH_MAX, decode_fixed_header};
pub use packet::{
    Acknowledgement, AcknowledgementProperties, AcknowledgementType, Auth, AuthProperties, ConnAck, ConnAckProperties,
    Connect, ConnectProperties, Disconnect, DisconnectProperties, Packet, Publish, PublishProperties, ReasonCodes,
    RetainHandling, SubAck, Subscribe, SubscribeFilters, SubscribeProperties, SubscriptionOptions, UnsubAck,
    Unsubscribe, UnsubscribeFilters, UnsubscribeProperties, Will, WillProperties, decode, publish,
};
pub use properties::Property;
pub use property_section::{EncodedProperties, SubscriptionIdentifiers, UserProperties};
pub use reader::Reader;
pub use reason_code::ReasonCode;
pub use topic::{SharedSubscription, Subscription, TopicError, TopicFilter, TopicName, matches};
pub use writer::{Full, Writer, variable_byte_integer_bytes};

/// The version of the protocol that a connection speaks, as its CONNECT says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProtocolVersion {
    /// MQTT 3.1.1: protocol level 4.
    V311,
    /// MQTT 5.0: protocol version 5.
    V5,
}

impl ProtocolVersion {
    /// The byte after the protocol name in CONNECT.
    #[must_use]
    pub const fn level(self) -> u8 {
        match self {
            Self::V311 => 4,
            Self::V5 => 5,
        }
    }
}

/// A Packet Identifier (§2.2.1): never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PacketIdentifier(NonZeroU16);

impl PacketIdentifier {
    /// `None` for 0, which is no identifier. [MQTT-2.2.1-3]
    #[must_use]
    pub const fn new(identifier: u16) -> Option<Self> {
        match NonZeroU16::new(identifier) {
            Some(identifier) => Some(Self(identifier)),
            None => None,
        }
    }

    /// The number on the wire.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0.get()
    }
}

/// Quality of Service (§4.3). Ordered: the lesser of two is what a subscriber gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum QoS {
    /// QoS 0: at most once.
    #[default]
    AtMostOnce,
    /// QoS 1: at least once.
    AtLeastOnce,
    /// QoS 2: exactly once.
    ExactlyOnce,
}

impl QoS {
    /// `None` for anything but 0, 1 and 2. [MQTT-3.3.1-4]
    #[must_use]
    pub const fn from_bits(bits: u8) -> Option<Self> {
        match bits {
            0 => Some(Self::AtMostOnce),
            1 => Some(Self::AtLeastOnce),
            2 => Some(Self::ExactlyOnce),
            _ => None,
        }
    }

    /// The number on the wire: 0, 1 or 2.
    #[must_use]
    pub const fn bits(self) -> u8 {
        match self {
            Self::AtMostOnce => 0,
            Self::AtLeastOnce => 1,
            Self::ExactlyOnce => 2,
        }
    }
}

/// How a `Debug` of a packet shows credentials and payloads: their length, never their bytes.
pub(crate) struct Redacted<'a>(pub(crate) &'a [u8]);

impl core::fmt::Debug for Redacted<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "<{} bytes>", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_identifier_is_never_zero() {
        assert_eq!(PacketIdentifier::new(0), None);
        assert_eq!(PacketIdentifier::new(65_535).map(PacketIdentifier::get), Some(65_535));
    }

    #[test]
    fn three_is_no_quality_of_service() {
        assert_eq!(QoS::from_bits(3), None);
        for bits in 0..3 {
            assert_eq!(QoS::from_bits(bits).map(QoS::bits), Some(bits));
        }
        assert!(QoS::AtMostOnce < QoS::AtLeastOnce && QoS::AtLeastOnce < QoS::ExactlyOnce);
    }
}
