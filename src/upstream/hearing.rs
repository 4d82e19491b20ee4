//! What a server says beside messages, read along with minimq, which does not tell: limits in CONNACK, and why it ends.
//!
//! In: bytes as minimq reads them; out: a [`Heard`]. Packets are not changed, and whether they are valid is minimq's to judge.

use crate::codec::{DecodeError, Packet, PacketType, ProtocolVersion, QoS, ReasonCode, decode, decode_fixed_header};
use core::cell::Cell;
use std::rc::Rc;

/// Longest CONNACK or DISCONNECT that is looked at, bytes: they can be padded with properties.
const HEARD_BYTES_MAX: usize = 4_096;

/// What a server has said that minimq does not tell.
#[derive(Debug, Default)]
pub struct Heard {
    /// CONNACK: it keeps no retained messages, §3.2.2.3.5.
    pub has_no_retain: Cell<bool>,
    /// CONNACK: it takes QoS 0 only, §3.2.2.3.4.
    pub has_no_qos1: Cell<bool>,
    /// Why it ends the connection.
    pub disconnect: Cell<Option<ReasonCode>>,
}

impl Heard {
    fn packet(&self, bytes: &[u8]) -> Result<(), DecodeError> {
        let Some(header) = decode_fixed_header(bytes)? else { return Ok(()) };
        let body = bytes.get(usize::from(header.header_bytes)..).unwrap_or_default();
        match decode(header, body, ProtocolVersion::V5)? {
            Packet::ConnAck(answer) => {
                self.has_no_retain.set(answer.properties.retain_available == Some(false));
                self.has_no_qos1.set(answer.properties.maximum_qos == Some(QoS::AtMostOnce));
            }
            Packet::Disconnect(disconnect) => self.disconnect.set(Some(disconnect.reason_code)),
            Packet::Connect(_)
            | Packet::Publish(_)
            | Packet::PubAck(_)
            | Packet::PubRec(_)
            | Packet::PubRel(_)
            | Packet::PubComp(_)
            | Packet::Subscribe(_)
            | Packet::SubAck(_)
            | Packet::Unsubscribe(_)
            | Packet::UnsubAck(_)
            | Packet::PingReq
            | Packet::PingResp
            | Packet::Auth(_) => {}
        }
        Ok(())
    }
}

/// Follows what minimq reads: it asks for the header byte by byte and for no byte behind the packet.
pub struct Ear {
    heard: Rc<Heard>,
    /// The packet that is being read, as far as it is of interest.
    packet: Vec<u8>,
    /// Bytes of it that are to come; `None`: its header is not complete.
    rest: Option<usize>,
}

impl Ear {
    /// One that tells `heard`.
    pub fn new(heard: Rc<Heard>) -> Self {
        Self { heard, packet: Vec::new(), rest: None }
    }

    /// The next bytes that were read.
    pub fn hear(&mut self, bytes: &[u8]) {
        let is_of_interest = match self.rest {
            None => true,
            Some(_) => !self.packet.is_empty(),
        };
        if is_of_interest {
            self.packet.extend_from_slice(bytes);
        }
        match &mut self.rest {
            Some(rest) => *rest = rest.saturating_sub(bytes.len()),
            None => {
                // What is no header ends the connection by minimq's own look at it.
                let Ok(Some(header)) = decode_fixed_header(&self.packet) else { return };
                self.rest = Some(header.packet_bytes().saturating_sub(self.packet.len()));
                let is_asked_about = matches!(header.packet_type, PacketType::ConnAck | PacketType::Disconnect);
                if !is_asked_about || header.packet_bytes() > HEARD_BYTES_MAX {
                    self.packet.clear();
                }
            }
        }
        if self.rest == Some(0) {
            // A packet that is not valid is found out by minimq.
            let _ = self.heard.packet(&self.packet);
            self.packet.clear();
            self.rest = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_says_of_itself_is_heard() {
        let heard = Rc::new(Heard::default());
        let mut ear = Ear::new(Rc::clone(&heard));
        let connack = [0x20, 7, 0, 0, 4, 0x25, 0, 0x24, 0];
        let publish = [0x30, 0x80, 0x01].into_iter().chain([0; 128]).collect::<Vec<u8>>();
        for packet in [&connack[..], &publish, &[0xD0, 0], &publish, &[0xE0, 2, 0x95, 0]] {
            // As minimq reads.
            let header = decode_fixed_header(packet).unwrap().unwrap().header_bytes.into();
            for byte in &packet[..header] {
                ear.hear(core::slice::from_ref(byte));
            }
            for part in packet[header..].chunks(50) {
                ear.hear(part);
            }
            assert!(heard.has_no_retain.get() && heard.has_no_qos1.get());
        }
        assert_eq!(heard.disconnect.get(), Some(ReasonCode::PacketTooLarge));
    }
}
