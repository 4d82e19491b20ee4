//! As much of MQTT 5 as a load needs: packets that a client sends, and where packets begin and end.

/// Packet types, with the flags that are always the same.
pub mod kind {
    /// CONNECT.
    pub const CONNECT: u8 = 0x10;
    /// CONNACK.
    pub const CONNACK: u8 = 0x20;
    /// PUBLISH, without flags.
    pub const PUBLISH: u8 = 0x30;
    /// PUBACK.
    pub const PUBACK: u8 = 0x40;
    /// PUBREC.
    pub const PUBREC: u8 = 0x50;
    /// PUBREL.
    pub const PUBREL: u8 = 0x62;
    /// PUBCOMP.
    pub const PUBCOMP: u8 = 0x70;
    /// SUBSCRIBE.
    pub const SUBSCRIBE: u8 = 0x82;
    /// SUBACK.
    pub const SUBACK: u8 = 0x90;
    /// PINGREQ.
    pub const PINGREQ: u8 = 0xC0;
    /// DISCONNECT.
    pub const DISCONNECT: u8 = 0xE0;
}

/// Appends a packet.
pub fn packet(first: u8, body: &[&[u8]], out: &mut Vec<u8>) {
    out.push(first);
    let mut length: usize = body.iter().map(|part| part.len()).sum();
    loop {
        let low = (length & 0x7F) as u8;
        length >>= 7;
        if length == 0 {
            out.push(low);
            break;
        }
        out.push(low | 0x80);
    }
    for part in body {
        out.extend_from_slice(part);
    }
}

/// Length of a text or of binary data, as it stands before it. Texts here are short.
pub fn length(bytes: &[u8]) -> [u8; 2] {
    (bytes.len() as u16).to_be_bytes()
}

/// CONNECT with Clean Start, no Keep Alive, and Receive Maximum 65,535.
pub fn connect(identifier: &str, out: &mut Vec<u8>) {
    let identifier = identifier.as_bytes();
    packet(kind::CONNECT, &[b"\0\x04MQTT\x05\x02\0\0\x03\x21\xFF\xFF", &length(identifier), identifier], out);
}

/// SUBSCRIBE to these filters.
pub fn subscribe(packet_identifier: u16, filters: &[String], qos: u8, out: &mut Vec<u8>) {
    let mut body = Vec::new();
    body.extend_from_slice(&packet_identifier.to_be_bytes());
    body.push(0);
    for filter in filters {
        body.extend_from_slice(&length(filter.as_bytes()));
        body.extend_from_slice(filter.as_bytes());
        body.push(qos);
    }
    packet(kind::SUBSCRIBE, &[&body], out);
}

/// PUBLISH without properties.
pub fn publish(topic: &str, qos: u8, packet_identifier: u16, payload: &[u8], out: &mut Vec<u8>) {
    let identifier = packet_identifier.to_be_bytes();
    let identifier = if qos == 0 { &[][..] } else { &identifier };
    let topic = topic.as_bytes();
    packet(kind::PUBLISH | qos << 1, &[&length(topic), topic, identifier, &[0], payload], out);
}

/// PUBACK, PUBREC, PUBREL or PUBCOMP with Success.
pub fn acknowledge(first: u8, identifier: [u8; 2], out: &mut Vec<u8>) {
    out.extend_from_slice(&[first, 2, identifier[0], identifier[1]]);
}

/// A whole packet.
#[derive(Clone, Copy)]
pub struct Packet<'a> {
    /// Type and flags.
    pub first: u8,
    /// Behind the fixed header.
    pub body: &'a [u8],
    /// All of it.
    pub bytes: &'a [u8],
}

/// The packet at the front of `bytes`, if all of it is there. A length that MQTT does not allow counts as one.
pub fn front(bytes: &[u8]) -> Option<Packet<'_>> {
    let (mut length, mut at) = (0_usize, 1);
    loop {
        let byte = *bytes.get(at)?;
        length |= usize::from(byte & 0x7F) << (7 * (at - 1));
        at += 1;
        if byte & 0x80 == 0 || at == 5 {
            break;
        }
    }
    let bytes = bytes.get(..at + length)?;
    Some(Packet { first: bytes[0], body: &bytes[at..], bytes })
}

impl<'a> Packet<'a> {
    /// Topic, Packet Identifier (zero with QoS 0) and payload of a PUBLISH.
    pub fn publish(&self) -> Option<(&'a [u8], [u8; 2], &'a [u8])> {
        let topic_end = 2 + usize::from(u16::from_be_bytes([*self.body.first()?, *self.body.get(1)?]));
        let topic = self.body.get(2..topic_end)?;
        let mut rest = self.body.get(topic_end..)?;
        let mut identifier = [0; 2];
        if self.first & 0x06 != 0 {
            identifier = *rest.first_chunk()?;
            rest = &rest[2..];
        }
        // A length of properties of more than 127 bytes does not come: nobody here sends any.
        let properties = usize::from(*rest.first()?);
        Some((topic, identifier, rest.get(1 + properties..)?))
    }

    /// Packet Identifier and reason code of an acknowledgement.
    pub fn acknowledgement(&self) -> Option<([u8; 2], u8)> {
        Some((*self.body.first_chunk()?, self.body.get(2).copied().unwrap_or(0)))
    }

    /// Reason code and Receive Maximum of a CONNACK.
    pub fn connack(&self) -> Option<(u8, u16)> {
        let reason = *self.body.get(1)?;
        let mut properties = self.body.get(3..)?;
        let mut receive_maximum = u16::MAX;
        while let Some((&identifier, rest)) = properties.split_first() {
            // Sizes of the properties that a CONNACK may have (MQTT 5 §3.2.2.3).
            let size = match identifier {
                0x24 | 0x25 | 0x28 | 0x29 | 0x2A => 1,
                0x13 | 0x21 | 0x22 => 2,
                0x11 | 0x27 => 4,
                0x12 | 0x15 | 0x16 | 0x1A | 0x1C | 0x1F => {
                    2 + usize::from(u16::from_be_bytes([*rest.first()?, *rest.get(1)?]))
                }
                _ => return None,
            };
            if identifier == 0x21 {
                receive_maximum = u16::from_be_bytes(*rest.first_chunk()?);
            }
            properties = rest.get(size..)?;
        }
        Some((reason, receive_maximum))
    }
}
