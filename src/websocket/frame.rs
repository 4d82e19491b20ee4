//! Frames. RFC 6455 §5.

use super::WebSocketFault;

/// Most bytes of the header of a frame that a server sends.
pub const FRAME_HEADER_BYTES_MAX: usize = 10;
/// Longest payload of a control frame.
const CONTROL_BYTES_MAX: usize = 125;
/// Longest header that a client sends: two bytes, length, masking key.
const CLIENT_HEADER_BYTES_MAX: usize = 14;

const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xA;
const FINAL: u8 = 0x80;
const RESERVED: u8 = 0x70;
const MASKED: u8 = 0x80;

/// Closing code 1002.
const PROTOCOL_ERROR: u16 = 1_002;
/// Closing code 1003.
const UNSUPPORTED_DATA: u16 = 1_003;

/// A control frame that is complete.
pub enum Piece<'a> {
    /// To be answered with its payload.
    Ping(&'a [u8]),
    /// Of no interest.
    Pong,
    /// The client ends the connection, with a code or without.
    Close(Option<u16>),
}

/// Reads the frames of a client.
#[derive(Default)]
pub struct Decoder {
    header: heapless::Vec<u8, CLIENT_HEADER_BYTES_MAX>,
    frame: Option<Frame>,
    /// A message has begun whose last frame has not come.
    fragmented: bool,
    control: heapless::Vec<u8, CONTROL_BYTES_MAX>,
}

struct Frame {
    operation: u8,
    is_final: bool,
    mask: [u8; 4],
    mask_at: usize,
    remaining: u64,
}

impl Decoder {
    /// Goes on with `bytes`, from which it takes what it has read. Payload of binary frames is appended to `data`. Returns at
    /// the end of a control frame, or with `None` when `bytes` is empty.
    pub fn next<'a>(&'a mut self, bytes: &mut &[u8], data: &mut Vec<u8>) -> Result<Option<Piece<'a>>, WebSocketFault> {
        loop {
            if self.frame.is_none() && !self.read_header(bytes)? {
                return Ok(None);
            }
            let Some(frame) = self.frame.as_mut() else { return Ok(None) };
            let wanted = usize::try_from(frame.remaining).unwrap_or(usize::MAX).min(bytes.len());
            let (payload, rest) = bytes.split_at(wanted);
            *bytes = rest;
            let [a, b, c, d] = frame.mask;
            let keys = [a, b, c, d].into_iter().cycle().skip(frame.mask_at);
            let unmasked = payload.iter().zip(keys).map(|(byte, key)| byte ^ key);
            if frame.operation < CLOSE {
                data.extend(unmasked);
            } else {
                // Bounded by the header, which was checked.
                self.control.extend(unmasked);
            }
            frame.mask_at = (frame.mask_at + wanted) % 4;
            frame.remaining -= wanted as u64;
            if frame.remaining > 0 {
                return Ok(None);
            }
            let (operation, is_final) = (frame.operation, frame.is_final);
            self.frame = None;
            match operation {
                CLOSE => return Ok(Some(Piece::Close(close_code(&self.control)?))),
                PING => return Ok(Some(Piece::Ping(&self.control))),
                PONG => return Ok(Some(Piece::Pong)),
                _ => self.fragmented = !is_final,
            }
        }
    }

    /// Collects a header; whether it is complete.
    fn read_header(&mut self, bytes: &mut &[u8]) -> Result<bool, WebSocketFault> {
        loop {
            let needed = match *self.header.as_slice() {
                [_, length, ..] => {
                    let extension = match length & !MASKED {
                        126 => 2,
                        127 => 8,
                        _ => 0,
                    };
                    2 + extension + if length & MASKED == 0 { 0 } else { 4 }
                }
                _ => 2,
            };
            if self.header.len() >= 2 && self.header.len() == needed {
                let frame = self.parse_header()?;
                self.frame = Some(frame);
                self.header.clear();
                self.control.clear();
                return Ok(true);
            }
            let Some((byte, rest)) = bytes.split_first() else { return Ok(false) };
            *bytes = rest;
            // Bounded by `needed`.
            let _ = self.header.push(*byte);
        }
    }

    fn parse_header(&self) -> Result<Frame, WebSocketFault> {
        let refuse = |what| Err(WebSocketFault::Frame { code: PROTOCOL_ERROR, what });
        let [first, second, rest @ ..] = self.header.as_slice() else { return refuse("a header without length") };
        let (operation, is_final) = (first & 0x0F, first & FINAL != 0);
        if first & RESERVED != 0 {
            return refuse("a reserved bit without an extension");
        }
        if second & MASKED == 0 {
            return refuse("a client must mask its frames");
        }
        let (extension, mask) = rest.split_at(rest.len().saturating_sub(4));
        let remaining = extension.iter().fold(0_u64, |length, byte| length << 8 | u64::from(*byte));
        let remaining = match (second & !MASKED, remaining) {
            (126, length @ 126..) | (127, length @ 65_536..=0x7FFF_FFFF_FFFF_FFFF) => length,
            (length @ ..126, _) => u64::from(length),
            _ => return refuse("a length in the wrong form"),
        };
        match operation {
            CONTINUATION if !self.fragmented => return refuse("a continuation of nothing"),
            BINARY if self.fragmented => return refuse("a new message inside another"),
            CONTINUATION | BINARY => {}
            // [MQTT-6.0.0-1]
            TEXT => return Err(WebSocketFault::Frame { code: UNSUPPORTED_DATA, what: "a text frame" }),
            CLOSE | PING | PONG if !is_final => return refuse("a control frame in pieces"),
            CLOSE | PING | PONG if remaining > CONTROL_BYTES_MAX as u64 => return refuse("a control frame too long"),
            CLOSE | PING | PONG => {}
            _ => return refuse("an unknown operation"),
        }
        let mask = <[u8; 4]>::try_from(mask).unwrap_or_default();
        Ok(Frame { operation, is_final, mask, mask_at: 0, remaining })
    }
}

fn close_code(payload: &[u8]) -> Result<Option<u16>, WebSocketFault> {
    match payload {
        [] => Ok(None),
        [high, low, ..] => Ok(Some(u16::from_be_bytes([*high, *low]))),
        [_] => Err(WebSocketFault::Frame { code: PROTOCOL_ERROR, what: "half a closing code" }),
    }
}

/// Appends the header of a binary frame with `length` bytes of payload.
pub fn put_frame_header(length: usize, out: &mut Vec<u8>) {
    put_header(BINARY, length, out);
}

/// Appends a pong.
pub fn put_pong(payload: &[u8], out: &mut Vec<u8>) {
    put_header(PONG, payload.len(), out);
    out.extend_from_slice(payload);
}

/// Appends a closing frame.
pub fn put_close(code: u16, out: &mut Vec<u8>) {
    put_header(CLOSE, 2, out);
    out.extend_from_slice(&code.to_be_bytes());
}

fn put_header(operation: u8, length: usize, out: &mut Vec<u8>) {
    out.push(FINAL | operation);
    match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short), _) if short < 126 => out.push(short),
        (_, Ok(medium)) => {
            out.push(126);
            out.extend_from_slice(&medium.to_be_bytes());
        }
        _ => {
            out.push(127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
}
