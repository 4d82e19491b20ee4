//! Reason Codes (MQTT 5 §2.4): the number, the name in the text, and the packets that may carry it.
//!
//! MQTT 3.1.1 knows return codes in CONNACK and SUBACK only; they are translated here.

use super::PacketType;
use core::fmt;

macro_rules! reason_codes {
    ($($code:literal $name:ident $text:literal: $($packet:ident)*;)*) => {
        /// The outcome of an operation. Below 0x80 it succeeded.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum ReasonCode {
            $(#[doc = $text] $name = $code,)*
        }

        impl ReasonCode {
            /// All codes, in the order of their numbers.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// `None` for a number that the text does not define.
            #[must_use]
            pub const fn from_u8(code: u8) -> Option<Self> {
                match code {
                    $($code => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// Whether the table of §2.4 lists `packet_type` beside this code.
            #[must_use]
            pub const fn is_allowed_in(self, packet_type: PacketType) -> bool {
                match self {
                    $(Self::$name => matches!(packet_type, $(PacketType::$packet)|*),)*
                }
            }
        }

        impl fmt::Display for ReasonCode {
            /// The name in the text: `Not authorized`.
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self {
                    $(Self::$name => $text,)*
                })
            }
        }
    };
}

reason_codes! {
    0x00 Success "Success": ConnAck PubAck PubRec PubRel PubComp SubAck UnsubAck Disconnect Auth;
    0x01 GrantedQoS1 "Granted QoS 1": SubAck;
    0x02 GrantedQoS2 "Granted QoS 2": SubAck;
    0x04 DisconnectWithWillMessage "Disconnect with Will Message": Disconnect;
    0x10 NoMatchingSubscribers "No matching subscribers": PubAck PubRec;
    0x11 NoSubscriptionExisted "No subscription existed": UnsubAck;
    0x18 ContinueAuthentication "Continue authentication": Auth;
    0x19 ReAuthenticate "Re-authenticate": Auth;
    0x80 UnspecifiedError "Unspecified error": ConnAck PubAck PubRec SubAck UnsubAck Disconnect;
    0x81 MalformedPacket "Malformed Packet": ConnAck Disconnect;
    0x82 ProtocolError "Protocol Error": ConnAck Disconnect;
    0x83 ImplementationSpecificError "Implementation specific error": ConnAck PubAck PubRec SubAck UnsubAck Disconnect;
    0x84 UnsupportedProtocolVersion "Unsupported Protocol Version": ConnAck;
    0x85 ClientIdentifierNotValid "Client Identifier not valid": ConnAck;
    0x86 BadUserNameOrPassword "Bad User Name or Password": ConnAck;
    0x87 NotAuthorized "Not authorized": ConnAck PubAck PubRec SubAck UnsubAck Disconnect;
    0x88 ServerUnavailable "Server unavailable": ConnAck;
    0x89 ServerBusy "Server busy": ConnAck Disconnect;
    0x8A Banned "Banned": ConnAck;
    0x8B ServerShuttingDown "Server shutting down": Disconnect;
    0x8C BadAuthenticationMethod "Bad authentication method": ConnAck Disconnect;
    0x8D KeepAliveTimeout "Keep Alive timeout": Disconnect;
    0x8E SessionTakenOver "Session taken over": Disconnect;
    0x8F TopicFilterInvalid "Topic Filter invalid": SubAck UnsubAck Disconnect;
    0x90 TopicNameInvalid "Topic Name invalid": ConnAck PubAck PubRec Disconnect;
    0x91 PacketIdentifierInUse "Packet Identifier in use": PubAck PubRec SubAck UnsubAck;
    0x92 PacketIdentifierNotFound "Packet Identifier not found": PubRel PubComp;
    0x93 ReceiveMaximumExceeded "Receive Maximum exceeded": Disconnect;
    0x94 TopicAliasInvalid "Topic Alias invalid": Disconnect;
    0x95 PacketTooLarge "Packet too large": ConnAck Disconnect;
    0x96 MessageRateTooHigh "Message rate too high": Disconnect;
    0x97 QuotaExceeded "Quota exceeded": ConnAck PubAck PubRec SubAck Disconnect;
    0x98 AdministrativeAction "Administrative action": Disconnect;
    0x99 PayloadFormatInvalid "Payload format invalid": ConnAck PubAck PubRec Disconnect;
    0x9A RetainNotSupported "Retain not supported": ConnAck Disconnect;
    0x9B QoSNotSupported "QoS not supported": ConnAck Disconnect;
    0x9C UseAnotherServer "Use another server": ConnAck Disconnect;
    0x9D ServerMoved "Server moved": ConnAck Disconnect;
    0x9E SharedSubscriptionsNotSupported "Shared Subscriptions not supported": SubAck Disconnect;
    0x9F ConnectionRateExceeded "Connection rate exceeded": ConnAck Disconnect;
    0xA0 MaximumConnectTime "Maximum connect time": Disconnect;
    0xA1 SubscriptionIdentifiersNotSupported "Subscription Identifiers not supported": SubAck Disconnect;
    0xA2 WildcardSubscriptionsNotSupported "Wildcard Subscriptions not supported": SubAck Disconnect;
}

impl ReasonCode {
    /// 0x00 in a DISCONNECT: Normal disconnection.
    pub const NORMAL_DISCONNECTION: Self = Self::Success;
    /// 0x00 in a SUBACK: Granted QoS 0.
    pub const GRANTED_QOS_0: Self = Self::Success;

    /// The number on the wire.
    #[must_use]
    pub const fn as_u8(self) -> u8 {
        self as u8
    }

    /// 0x80 and above.
    #[must_use]
    pub const fn is_error(self) -> bool {
        self.as_u8() >= 0x80
    }

    /// The return code of a CONNACK of MQTT 3.1.1 (table 3.1 there) that comes nearest: 3, Server unavailable, for every
    /// error that the older text has no word for.
    #[must_use]
    pub const fn to_v311_connect_return_code(self) -> u8 {
        match self {
            Self::UnsupportedProtocolVersion => 1,
            Self::ClientIdentifierNotValid => 2,
            Self::BadUserNameOrPassword => 4,
            Self::NotAuthorized | Self::Banned | Self::BadAuthenticationMethod => 5,
            other if other.is_error() => 3,
            _ => 0,
        }
    }

    /// What a return code in a CONNACK of MQTT 3.1.1 means; `None` for 6 and above, which are reserved.
    #[must_use]
    pub const fn from_v311_connect_return_code(code: u8) -> Option<Self> {
        match code {
            0 => Some(Self::Success),
            1 => Some(Self::UnsupportedProtocolVersion),
            2 => Some(Self::ClientIdentifierNotValid),
            3 => Some(Self::ServerUnavailable),
            4 => Some(Self::BadUserNameOrPassword),
            5 => Some(Self::NotAuthorized),
            _ => None,
        }
    }

    /// The return code of a SUBACK of MQTT 3.1.1: the granted QoS, or 0x80 for every failure. [MQTT-3.9.3-2]
    #[must_use]
    pub const fn to_v311_subscribe_return_code(self) -> u8 {
        if self.is_error() { 0x80 } else { self.as_u8() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_its_own_reason_code_or_none() {
        let known = (0..=u8::MAX).filter_map(ReasonCode::from_u8).inspect(|code| {
            assert_eq!(ReasonCode::from_u8(code.as_u8()), Some(*code));
        });
        assert_eq!(known.count(), 43);
        assert_eq!(ReasonCode::ALL.len(), 43);
        assert_eq!(ReasonCode::from_u8(0x03), None);
        assert_eq!(ReasonCode::from_u8(0xA3), None);
    }

    #[test]
    fn a_reason_code_prints_as_its_name_in_the_text() {
        assert_eq!(ReasonCode::NotAuthorized.to_string(), "Not authorized");
        assert_eq!(ReasonCode::ReAuthenticate.to_string(), "Re-authenticate");
    }

    #[test]
    fn success_ends_below_0x80() {
        assert!(!ReasonCode::ReAuthenticate.is_error());
        assert!(ReasonCode::UnspecifiedError.is_error());
    }

    #[test]
    fn return_codes_of_3_1_1_are_the_nearest_of_five() {
        for code in 0..6 {
            let reason = ReasonCode::from_v311_connect_return_code(code).unwrap();
            assert_eq!(reason.to_v311_connect_return_code(), code);
        }
        assert_eq!(ReasonCode::from_v311_connect_return_code(6), None);
        assert_eq!(ReasonCode::QuotaExceeded.to_v311_connect_return_code(), 3);
        assert_eq!(ReasonCode::Banned.to_v311_connect_return_code(), 5);
        assert_eq!(ReasonCode::NotAuthorized.to_v311_subscribe_return_code(), 0x80);
        assert_eq!(ReasonCode::GrantedQoS2.to_v311_subscribe_return_code(), 2);
    }

    #[test]
    fn a_reason_code_belongs_to_the_packets_of_its_row() {
        assert!(ReasonCode::PacketIdentifierNotFound.is_allowed_in(PacketType::PubComp));
        assert!(!ReasonCode::PacketIdentifierNotFound.is_allowed_in(PacketType::PubAck));
        assert!(!ReasonCode::Success.is_allowed_in(PacketType::Publish));
    }
}
