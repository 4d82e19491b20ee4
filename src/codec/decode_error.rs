//! Why bytes are refused: one variant per distinguishable fault, all of them the peer's, and the Reason Code of each.
//!
//! MQTT 5 §1.2 draws the line: what cannot be parsed is a Malformed Packet (0x81); what was parsed and holds data that
//! the protocol does not allow is a Protocol Error (0x82). A more specific code is used where the text has one (§4.13.1).

use super::ReasonCode;
use core::fmt;

macro_rules! decode_errors {
    ($($name:ident => $reason:ident, $text:literal;)*) => {
        /// A fault in the bytes of a peer.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum DecodeError {
            $(#[doc = $text] $name,)*
        }

        impl DecodeError {
            /// The code for the CONNACK (when the packet is CONNECT) or the DISCONNECT that may tell the peer. [MQTT-4.13.1-1]
            #[must_use]
            pub const fn reason_code(self) -> ReasonCode {
                match self {
                    $(Self::$name => ReasonCode::$reason,)*
                }
            }
        }

        impl fmt::Display for DecodeError {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self {
                    $(Self::$name => $text,)*
                })
            }
        }
    };
}

decode_errors! {
    ReservedPacketType => MalformedPacket, "packet type 0, or AUTH in MQTT 3.1.1";
    ReservedFlags => MalformedPacket, "flags of the fixed header that the packet type reserves [MQTT-2.1.3-1]";
    MalformedRemainingLength => MalformedPacket, "a Remaining Length of more than four bytes or more than it needs [MQTT-1.5.5-1]";
    MalformedVariableByteInteger => MalformedPacket, "a Variable Byte Integer of more than four bytes or more than it needs [MQTT-1.5.5-1]";
    Truncated => MalformedPacket, "a field runs past the end of the packet or of its property section";
    TrailingBytes => MalformedPacket, "bytes after the last field of the packet";
    InvalidUtf8 => MalformedPacket, "a string that is not well-formed UTF-8 [MQTT-1.5.4-1]";
    NulInString => MalformedPacket, "a string with U+0000 [MQTT-1.5.4-2]";
    UnknownProperty => MalformedPacket, "a property identifier that the text does not define (§2.2.2.2)";
    PropertyNotAllowed => MalformedPacket, "a property that is not valid for the packet type (§2.2.2.2)";
    DuplicateProperty => ProtocolError, "a property that may occur once occurs twice (§2.2.2.2)";
    InvalidBoolean => ProtocolError, "a property of 0 or 1 has another value";
    InvalidReasonCode => ProtocolError, "a Reason Code that the packet type does not have";
    ZeroPacketIdentifier => ProtocolError, "Packet Identifier 0 [MQTT-2.2.1-3]";
    InvalidQoS => MalformedPacket, "QoS 3 in PUBLISH or in the Will [MQTT-3.3.1-4] [MQTT-3.1.2-12]";
    DupWithoutQoS => MalformedPacket, "DUP set in a PUBLISH of QoS 0 [MQTT-3.3.1-2]";
    UnknownProtocolName => UnsupportedProtocolVersion, "a protocol name that is not MQTT [MQTT-3.1.2-1]";
    UnsupportedProtocolVersion => UnsupportedProtocolVersion, "a version of MQTT other than 3.1.1 and 5.0 [MQTT-3.1.2-2]";
    ReservedConnectFlag => MalformedPacket, "the reserved flag of CONNECT is set [MQTT-3.1.2-3]";
    WillFlagsWithoutWill => MalformedPacket, "Will QoS or Will Retain set without the Will Flag [MQTT-3.1.2-11] [MQTT-3.1.2-13]";
    PasswordWithoutUserName => MalformedPacket, "a Password without a User Name in MQTT 3.1.1 [MQTT-3.1.2-22]";
    ZeroReceiveMaximum => ProtocolError, "Receive Maximum 0 (§3.1.2.11.3)";
    ZeroMaximumPacketSize => ProtocolError, "Maximum Packet Size 0 (§3.1.2.11.4)";
    AuthenticationDataWithoutMethod => ProtocolError, "Authentication Data without Authentication Method (§3.1.2.11.10)";
    MissingAuthenticationMethod => ProtocolError, "AUTH with properties or a Reason Code but without Authentication Method (§3.15.2.2.2)";
    ReservedConnectAcknowledgeFlags => MalformedPacket, "reserved Connect Acknowledge Flags are set (§3.2.2.1)";
    SessionPresentWithError => ProtocolError, "CONNACK with Session Present and an error [MQTT-3.2.2-6]";
    InvalidMaximumQoS => ProtocolError, "a Maximum QoS that the field does not allow (§3.2.2.3.4, §3.8.3.1)";
    TopicNameMissing => ProtocolError, "an empty Topic Name without Topic Alias (§3.3.2.1)";
    TopicNameInvalid => TopicNameInvalid, "a Topic Name that is empty or has a wildcard [MQTT-3.3.2-2] [MQTT-4.7.3-1]";
    ResponseTopicInvalid => ProtocolError, "a Response Topic that is empty or has a wildcard [MQTT-3.3.2-14]";
    ZeroTopicAlias => TopicAliasInvalid, "Topic Alias 0 [MQTT-3.3.2-8]";
    InvalidSubscriptionIdentifier => ProtocolError, "Subscription Identifier 0 (§3.8.2.1.2)";
    NoTopicFilter => ProtocolError, "SUBSCRIBE or UNSUBSCRIBE without a Topic Filter [MQTT-3.8.3-2] [MQTT-3.10.3-2]";
    ReservedSubscriptionOptions => MalformedPacket, "reserved Subscription Options are set [MQTT-3.8.3-5]";
    InvalidRetainHandling => ProtocolError, "Retain Handling 3 (§3.8.3.1)";
    NoReasonCode => ProtocolError, "SUBACK or UNSUBACK without a Reason Code (§3.9.3, §3.11.3)";
}

impl core::error::Error for DecodeError {}
