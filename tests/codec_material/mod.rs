//! Packets drawn from a seed, for the tests of the codec. Texts, blobs and lists are owned here, so that packets can
//! borrow them and proptest can shrink them.

#![allow(dead_code, reason = "each test crate uses its own part")]

use portcullis::codec::{
    Acknowledgement, AcknowledgementProperties, Auth, AuthProperties, ConnAck, ConnAckProperties, Connect,
    ConnectProperties, Disconnect, DisconnectProperties, Full, Packet, PacketIdentifier, PacketType, ProtocolVersion,
    Publish, PublishProperties, QoS, ReasonCode, ReasonCodes, RetainHandling, SubAck, Subscribe, SubscribeFilters,
    SubscribeProperties, SubscriptionIdentifiers, SubscriptionOptions, UnsubAck, Unsubscribe, UnsubscribeFilters,
    UnsubscribeProperties, UserProperties, Will, WillProperties, Writer,
};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use std::cell::Cell;
use std::num::{NonZeroU16, NonZeroU32};

pub fn config(cases: u32) -> ProptestConfig {
    let mut config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    if config.rng_seed == RngSeed::Random {
        config.rng_seed = RngSeed::Fixed(0x4D51_5454);
    }
    config
}

/// What packets are made of; owned, so that packets can borrow.
#[derive(Clone, Debug)]
pub struct Material {
    pub version: ProtocolVersion,
    pub packet_type: PacketType,
    /// Decide what is present and how large numbers are.
    choices: Vec<u32>,
    texts: Vec<String>,
    blobs: Vec<Vec<u8>>,
}

pub fn material() -> impl Strategy<Value = Material> {
    // Every text is a valid Topic Name, so that it may stand anywhere.
    let text = prop_oneof![4 => "[a-z$/]{1,8}", 1 => "[^\\x00+#]{1,20}", 1 => "x{120,140}"];
    let blob =
        prop_oneof![4 => prop::collection::vec(any::<u8>(), 0..8), 1 => prop::collection::vec(any::<u8>(), 0..300)];
    (
        prop_oneof![3 => Just(ProtocolVersion::V5), 1 => Just(ProtocolVersion::V311)],
        1_u8..=15,
        prop::collection::vec(any::<u32>(), 48),
        prop::collection::vec(text, 12),
        prop::collection::vec(blob, 4),
    )
        .prop_map(|(version, packet_type, choices, texts, blobs)| {
            let packet_type = PacketType::from_bits(packet_type).unwrap();
            // AUTH does not exist in 3.1.1.
            let version = if packet_type == PacketType::Auth { ProtocolVersion::V5 } else { version };
            Material { version, packet_type, choices, texts, blobs }
        })
}

/// The lists that a packet borrows, made from the material.
pub struct Parts<'a> {
    material: &'a Material,
    next_choice: Cell<usize>,
    next_text: Cell<usize>,
    next_blob: Cell<usize>,
    pairs: Vec<(&'a str, &'a str)>,
    identifiers: Vec<NonZeroU32>,
    subscribe_filters: Vec<(&'a str, SubscriptionOptions)>,
    unsubscribe_filters: Vec<&'a str>,
    reason_codes: Vec<ReasonCode>,
}

fn next<'a, T>(items: &'a [T], cursor: &Cell<usize>) -> &'a T {
    let index = cursor.get();
    cursor.set(index + 1);
    &items[index % items.len()]
}

impl<'a> Parts<'a> {
    pub fn new(material: &'a Material) -> Self {
        let mut parts = Self {
            material,
            next_choice: Cell::new(0),
            next_text: Cell::new(0),
            next_blob: Cell::new(0),
            pairs: Vec::new(),
            identifiers: Vec::new(),
            subscribe_filters: Vec::new(),
            unsubscribe_filters: Vec::new(),
            reason_codes: Vec::new(),
        };
        parts.pairs = (0..parts.below(4)).map(|_| (parts.text(), parts.text())).collect();
        parts.identifiers =
            (0..parts.below(4)).map(|_| NonZeroU32::new(1 + parts.below(268_435_455)).unwrap()).collect();
        let count = 1 + parts.below(4);
        parts.subscribe_filters = (0..count).map(|_| (parts.text(), parts.options())).collect();
        parts.unsubscribe_filters = (0..count).map(|_| parts.text()).collect();
        parts.reason_codes = (0..count).map(|_| parts.reason_code(material.packet_type)).collect();
        parts
    }

    fn choice(&self) -> u32 {
        *next(&self.material.choices, &self.next_choice)
    }

    fn below(&self, limit: u32) -> u32 {
        self.choice() % limit
    }

    fn flag(&self) -> bool {
        self.below(2) == 1
    }

    fn u16(&self) -> u16 {
        u16::try_from(self.below(65_536)).unwrap()
    }

    fn text(&self) -> &'a str {
        next::<String>(&self.material.texts, &self.next_text)
    }

    fn blob(&self) -> &'a [u8] {
        next::<Vec<u8>>(&self.material.blobs, &self.next_blob)
    }

    fn maybe<T>(&self, draw: impl Fn(&Self) -> T) -> Option<T> {
        self.flag().then(|| draw(self))
    }

    fn qos(&self) -> QoS {
        QoS::from_bits(u8::try_from(self.below(3)).unwrap()).unwrap()
    }

    fn identifier(&self) -> PacketIdentifier {
        PacketIdentifier::new(1 + u16::try_from(self.below(65_535)).unwrap()).unwrap()
    }

    fn v5(&self) -> bool {
        self.material.version == ProtocolVersion::V5
    }

    fn options(&self) -> SubscriptionOptions {
        let maximum_qos = self.qos();
        if !self.v5() {
            return SubscriptionOptions { maximum_qos, ..SubscriptionOptions::default() };
        }
        let handlings =
            [RetainHandling::SendAtSubscribe, RetainHandling::SendAtSubscribeIfNew, RetainHandling::DoNotSend];
        SubscriptionOptions {
            maximum_qos,
            no_local: self.flag(),
            retain_as_published: self.flag(),
            retain_handling: handlings[self.below(3) as usize],
        }
    }

    /// One that the packet may carry, in its version.
    fn reason_code(&self, packet_type: PacketType) -> ReasonCode {
        let allowed: Vec<ReasonCode> = ReasonCode::ALL
            .iter()
            .copied()
            .filter(|code| code.is_allowed_in(packet_type))
            .filter(|code| {
                self.v5()
                    || match packet_type {
                        PacketType::ConnAck => {
                            ReasonCode::from_v311_connect_return_code(code.to_v311_connect_return_code()) == Some(*code)
                        }
                        PacketType::SubAck => !code.is_error() || *code == ReasonCode::UnspecifiedError,
                        _ => *code == ReasonCode::Success,
                    }
            })
            .collect();
        allowed.get(self.choice() as usize % allowed.len().max(1)).copied().unwrap_or(ReasonCode::Success)
    }

    fn user_properties(&self) -> UserProperties<'_> {
        UserProperties::Pairs(&self.pairs)
    }

    fn acknowledgement_properties(&self) -> AcknowledgementProperties<'_> {
        if !self.v5() {
            return AcknowledgementProperties::default();
        }
        AcknowledgementProperties { reason_string: self.maybe(Self::text), user_properties: self.user_properties() }
    }

    fn acknowledgement(&self) -> Acknowledgement<'_> {
        Acknowledgement {
            packet_identifier: self.identifier(),
            reason_code: self.reason_code(self.material.packet_type),
            properties: self.acknowledgement_properties(),
        }
    }

    fn connect(&self) -> Connect<'_> {
        let method = self.maybe(Self::text);
        let properties = ConnectProperties {
            session_expiry_interval: self.maybe(Self::choice),
            receive_maximum: NonZeroU16::new(self.u16()),
            maximum_packet_size: NonZeroU32::new(self.choice()),
            topic_alias_maximum: self.maybe(Self::u16),
            request_response_information: self.maybe(Self::flag),
            request_problem_information: self.maybe(Self::flag),
            authentication_method: method,
            authentication_data: method.and_then(|_| self.maybe(Self::blob)),
            user_properties: self.user_properties(),
        };
        let username = self.maybe(Self::text);
        let password = if username.is_some() || self.v5() { self.maybe(Self::blob) } else { None };
        Connect {
            protocol_version: self.material.version,
            clean_start: self.flag(),
            keep_alive: self.u16(),
            client_identifier: if self.flag() { "" } else { self.text() },
            will: if self.flag() { Some(self.will()) } else { None },
            username,
            password,
            properties: if self.v5() { properties } else { ConnectProperties::default() },
        }
    }

    fn will(&self) -> Will<'_> {
        let properties = WillProperties {
            will_delay_interval: self.maybe(Self::choice),
            payload_format_utf8: self.maybe(Self::flag),
            message_expiry_interval: self.maybe(Self::choice),
            content_type: self.maybe(Self::text),
            response_topic: self.maybe(Self::text),
            correlation_data: self.maybe(Self::blob),
            user_properties: self.user_properties(),
        };
        Will {
            qos: self.qos(),
            retain: self.flag(),
            topic: self.text(),
            payload: self.blob(),
            properties: if self.v5() { properties } else { WillProperties::default() },
        }
    }

    fn connack(&self) -> ConnAck<'_> {
        let reason_code = self.reason_code(PacketType::ConnAck);
        let properties = ConnAckProperties {
            session_expiry_interval: self.maybe(Self::choice),
            receive_maximum: NonZeroU16::new(self.u16()),
            maximum_qos: self.maybe(Self::qos).filter(|qos| *qos != QoS::ExactlyOnce),
            retain_available: self.maybe(Self::flag),
            maximum_packet_size: NonZeroU32::new(self.choice()),
            assigned_client_identifier: self.maybe(Self::text),
            topic_alias_maximum: self.maybe(Self::u16),
            reason_string: self.maybe(Self::text),
            user_properties: self.user_properties(),
            wildcard_subscription_available: self.maybe(Self::flag),
            subscription_identifiers_available: self.maybe(Self::flag),
            shared_subscription_available: self.maybe(Self::flag),
            server_keep_alive: self.maybe(Self::u16),
            response_information: self.maybe(Self::text),
            server_reference: self.maybe(Self::text),
            authentication_method: self.maybe(Self::text),
            authentication_data: self.maybe(Self::blob),
        };
        ConnAck {
            session_present: !reason_code.is_error() && self.flag(),
            reason_code,
            properties: if self.v5() { properties } else { ConnAckProperties::default() },
        }
    }

    fn publish(&self) -> Publish<'_> {
        let qos = self.qos();
        let alias = self.maybe(Self::u16).and_then(NonZeroU16::new);
        let properties = PublishProperties {
            payload_format_utf8: self.maybe(Self::flag),
            message_expiry_interval: self.maybe(Self::choice),
            topic_alias: alias,
            response_topic: self.maybe(Self::text),
            correlation_data: self.maybe(Self::blob),
            content_type: self.maybe(Self::text),
            subscription_identifiers: SubscriptionIdentifiers::Slice(&self.identifiers),
            user_properties: self.user_properties(),
        };
        Publish {
            dup: qos != QoS::AtMostOnce && self.flag(),
            qos,
            retain: self.flag(),
            topic: if alias.is_some() && self.v5() && self.flag() { "" } else { self.text() },
            packet_identifier: (qos != QoS::AtMostOnce).then(|| self.identifier()),
            properties: if self.v5() { properties } else { PublishProperties::default() },
            payload: self.blob(),
        }
    }

    fn subscribe(&self) -> Subscribe<'_> {
        let properties = SubscribeProperties {
            subscription_identifier: self.maybe(|parts| 1 + parts.below(268_435_455)),
            user_properties: self.user_properties(),
        };
        Subscribe {
            packet_identifier: self.identifier(),
            properties: if self.v5() { properties } else { SubscribeProperties::default() },
            filters: SubscribeFilters::Slice(&self.subscribe_filters),
        }
    }

    fn unsubscribe(&self) -> Unsubscribe<'_> {
        let properties = UnsubscribeProperties { user_properties: self.user_properties() };
        Unsubscribe {
            packet_identifier: self.identifier(),
            properties: if self.v5() { properties } else { UnsubscribeProperties::default() },
            filters: UnsubscribeFilters::Slice(&self.unsubscribe_filters),
        }
    }

    fn disconnect(&self) -> Disconnect<'_> {
        let properties = DisconnectProperties {
            session_expiry_interval: self.maybe(Self::choice),
            reason_string: self.maybe(Self::text),
            user_properties: self.user_properties(),
            server_reference: self.maybe(Self::text),
        };
        Disconnect {
            reason_code: self.reason_code(PacketType::Disconnect),
            properties: if self.v5() { properties } else { DisconnectProperties::default() },
        }
    }

    fn auth(&self) -> Auth<'_> {
        let properties = AuthProperties {
            authentication_method: Some(self.text()),
            authentication_data: self.maybe(Self::blob),
            reason_string: self.maybe(Self::text),
            user_properties: self.user_properties(),
        };
        Auth { reason_code: self.reason_code(PacketType::Auth), properties }
    }

    pub fn packet(&self) -> Packet<'_> {
        let packet_identifier = self.identifier();
        match self.material.packet_type {
            PacketType::Connect => Packet::Connect(self.connect()),
            PacketType::ConnAck => Packet::ConnAck(self.connack()),
            PacketType::Publish => Packet::Publish(self.publish()),
            PacketType::PubAck => Packet::PubAck(self.acknowledgement()),
            PacketType::PubRec => Packet::PubRec(self.acknowledgement()),
            PacketType::PubRel => Packet::PubRel(self.acknowledgement()),
            PacketType::PubComp => Packet::PubComp(self.acknowledgement()),
            PacketType::Subscribe => Packet::Subscribe(self.subscribe()),
            PacketType::SubAck => Packet::SubAck(SubAck {
                packet_identifier,
                properties: self.acknowledgement_properties(),
                reason_codes: ReasonCodes::Slice(&self.reason_codes),
            }),
            PacketType::Unsubscribe => Packet::Unsubscribe(self.unsubscribe()),
            PacketType::UnsubAck => Packet::UnsubAck(UnsubAck {
                packet_identifier,
                properties: self.acknowledgement_properties(),
                reason_codes: ReasonCodes::Slice(if self.v5() { &self.reason_codes } else { &[] }),
            }),
            PacketType::PingReq => Packet::PingReq,
            PacketType::PingResp => Packet::PingResp,
            PacketType::Disconnect => Packet::Disconnect(self.disconnect()),
            PacketType::Auth => Packet::Auth(self.auth()),
        }
    }
}

/// Encodes, and checks that the announced size is the size and that one byte less is not enough.
pub fn encoded(packet: &Packet<'_>, version: ProtocolVersion) -> Vec<u8> {
    let bytes = packet.encoded_bytes(version);
    let mut buffer = vec![0; bytes];
    let mut writer = Writer::new(&mut buffer);
    packet.encode(version, &mut writer).unwrap();
    assert_eq!(writer.len(), bytes);
    let mut short = vec![0; bytes - 1];
    let mut writer = Writer::new(&mut short);
    assert_eq!(packet.encode(version, &mut writer), Err(Full));
    assert!(writer.is_empty());
    buffer
}

/// A CONNECT says its version itself.
pub fn version_of(packet: &Packet<'_>, version: ProtocolVersion) -> ProtocolVersion {
    if let Packet::Connect(connect) = packet { connect.protocol_version } else { version }
}
