//! WebSockets as bytes in, bytes out: RFC 6455 as far as MQTT needs it (MQTT 5 chapter 6).
//!
//! In: what came from the socket (or out of TLS), piece by piece. Out: the MQTT bytes in it, and what is to be answered: the
//! response to the handshake, pongs, the closing frame. Frames are not put together: a packet may span frames, and a frame
//! may hold several packets [MQTT-6.0.0-2], so that MQTT bytes pass on as they come.
//!
//! Deliberately absent: extensions (none is agreed to, so reserved bits are an error) and text frames [MQTT-6.0.0-1].
//!
//! **Invariant:** a connection holds at most [`REQUEST_BYTES_MAX`] bytes of a handshake, and after it at most one frame header
//! and one control frame.

mod frame;
mod handshake;

pub use frame::{FRAME_HEADER_BYTES_MAX, put_frame_header};
pub use handshake::REQUEST_BYTES_MAX;

use core::fmt;
use frame::{Decoder, Piece};

/// Closing code 1000: done.
const NORMAL_CLOSURE: u16 = 1_000;

/// Why a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WebSocketFault {
    /// The handshake is not one; the status line says so to the client.
    Handshake(&'static str),
    /// A frame is not allowed. The closing frame has this code (RFC 6455 §7.4.1).
    Frame {
        /// The code.
        code: u16,
        /// What is wrong.
        what: &'static str,
    },
    /// The client closed.
    Closed,
}

impl fmt::Display for WebSocketFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Handshake(what) => write!(f, "no WebSocket handshake: {what}"),
            Self::Frame { code, what } => write!(f, "WebSocket frame refused with {code}: {what}"),
            Self::Closed => f.write_str("WebSocket closed by the client"),
        }
    }
}

/// The server's side of one WebSocket.
pub struct WebSocket {
    state: State,
}

enum State {
    /// The request so far.
    Handshake(Vec<u8>),
    Open(Decoder),
    Closed,
}

impl Default for WebSocket {
    fn default() -> Self {
        Self { state: State::Handshake(Vec::new()) }
    }
}

impl WebSocket {
    /// Bytes that one takes at most.
    #[must_use]
    pub const fn bytes_max() -> u64 {
        (size_of::<Self>() + REQUEST_BYTES_MAX + 1) as u64
    }

    /// Takes `bytes`, all of them. MQTT bytes are appended to `data`, answers to `answer`. `may_pong` is whether a ping is
    /// answered, which it need not be while an earlier answer waits (RFC 6455 §5.5.3).
    ///
    /// # Errors
    /// [`WebSocketFault`]: the connection is to be closed once `answer` is sent. What came before in `bytes` is in `data`.
    pub fn receive(
        &mut self,
        bytes: &[u8],
        data: &mut Vec<u8>,
        answer: &mut Vec<u8>,
        may_pong: bool,
    ) -> Result<(), WebSocketFault> {
        let result = self.receive_open(bytes, data, answer, may_pong);
        if let Err(fault) = result {
            if let WebSocketFault::Frame { code, .. } = fault {
                frame::put_close(code, answer);
            }
            self.state = State::Closed;
        }
        result
    }

    fn receive_open(
        &mut self,
        bytes: &[u8],
        data: &mut Vec<u8>,
        answer: &mut Vec<u8>,
        may_pong: bool,
    ) -> Result<(), WebSocketFault> {
        let mut rest = bytes;
        if let State::Handshake(request) = &mut self.state {
            let former = request.len();
            let room = (REQUEST_BYTES_MAX + 1).saturating_sub(former);
            let more = bytes.get(..bytes.len().min(room)).unwrap_or_default();
            request.reserve_exact(more.len());
            request.extend_from_slice(more);
            let Some(length) = handshake::answer(request, answer)? else { return Ok(()) };
            self.state = State::Open(Decoder::default());
            // Frames may stand behind the request already.
            rest = bytes.get(length.saturating_sub(former)..).unwrap_or_default();
        }
        let State::Open(decoder) = &mut self.state else { return Ok(()) };
        let answered = answer.len();
        while let Some(piece) = decoder.next(&mut rest, data)? {
            match piece {
                // Of several pings the last one is answered, so that they cost no memory.
                Piece::Ping(payload) if may_pong => {
                    answer.truncate(answered);
                    frame::put_pong(payload, answer);
                }
                Piece::Ping(_) | Piece::Pong => {}
                Piece::Close(code) => {
                    frame::put_close(code.unwrap_or(NORMAL_CLOSURE), answer);
                    return Err(WebSocketFault::Closed);
                }
            }
        }
        Ok(())
    }

    /// Appends the frame that tells the client that the connection ends, unless that has been said or the handshake was
    /// never finished.
    pub fn close(&mut self, answer: &mut Vec<u8>) {
        if matches!(self.state, State::Open(_)) {
            frame::put_close(NORMAL_CLOSURE, answer);
        }
        self.state = State::Closed;
    }

    /// Whether MQTT bytes may be sent.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        matches!(self.state, State::Open(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUEST: &str = "GET /mqtt HTTP/1.1\r\nHost: gateway\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\
        Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n";

    fn masked(first: u8, payload: &[u8]) -> Vec<u8> {
        let key = [7, 1, 200, 33];
        let mut bytes = vec![first];
        match payload.len() {
            length @ 0..126 => bytes.push(0x80 | length as u8),
            length @ 126..65_536 => {
                bytes.push(0x80 | 126);
                bytes.extend_from_slice(&(length as u16).to_be_bytes());
            }
            length => {
                bytes.push(0x80 | 127);
                bytes.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        bytes.extend_from_slice(&key);
        bytes.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
        bytes
    }

    /// Feeds in steps of `step` bytes; returns data, answers and the end.
    fn feed(bytes: &[u8], step: usize) -> (Vec<u8>, Vec<u8>, Result<(), WebSocketFault>) {
        let (mut socket, mut data, mut answer) = (WebSocket::default(), Vec::new(), Vec::new());
        for piece in bytes.chunks(step) {
            if let Err(fault) = socket.receive(piece, &mut data, &mut answer, true) {
                return (data, answer, Err(fault));
            }
        }
        (data, answer, Ok(()))
    }

    fn opened(frames: &[u8]) -> (Vec<u8>, Vec<u8>, Result<(), WebSocketFault>) {
        let (data, answer, result) = feed(&[REQUEST.as_bytes(), frames].concat(), usize::MAX);
        let end = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
        (data, answer[end..].to_vec(), result)
    }

    #[test]
    fn the_handshake_of_the_rfc_is_answered_with_its_key() {
        let (_, answer, result) = feed(REQUEST.as_bytes(), 1);
        let answer = String::from_utf8(answer).unwrap();
        assert_eq!(result, Ok(()));
        assert!(answer.starts_with("HTTP/1.1 101 "), "{answer}");
        assert!(answer.contains("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{answer}");
        assert!(answer.contains("Sec-WebSocket-Protocol: mqtt\r\n"), "{answer}");
    }

    /// [MQTT-6.0.0-2]
    #[test]
    fn frames_pass_on_whatever_the_pieces() {
        let large: Vec<u8> = (0..70_000_u32).map(|i| i as u8).collect();
        let frames = [
            masked(0x82, b"one"),
            masked(0x02, b"tw"),
            masked(0x89, b"ping"),
            masked(0x80, b"o"),
            masked(0x82, b""),
            masked(0x82, &large[..300]),
            masked(0x82, &large),
        ];
        let expected = [b"onetwo", &large[..300], &large].concat();
        for step in [1, 2, 7, 1_000, usize::MAX] {
            let (data, answer, result) = feed(&[REQUEST.as_bytes(), &frames.concat()].concat(), step);
            assert_eq!(result, Ok(()));
            assert_eq!(data, expected, "{step}");
            assert!(answer.ends_with(b"\x8A\x04ping"), "{step}");
        }
    }

    /// RFC 6455 §5.5.3
    #[test]
    fn of_many_pings_at_once_the_last_is_answered() {
        let (_, answer, _) = opened(&[masked(0x89, b"one"), masked(0x89, b"two"), masked(0x89, b"last")].concat());
        assert_eq!(answer, b"\x8A\x04last");
    }

    /// [MQTT-6.0.0-1]
    #[test]
    fn frames_that_are_not_allowed_are_closed_with_their_code() {
        let unmasked = [0x82, 1, b'x'];
        for (frame, code) in [
            (unmasked.to_vec(), 1_002),
            (masked(0x81, b"text"), 1_003),
            (masked(0xC2, b"x"), 1_002),
            (masked(0x83, b"x"), 1_002),
            (masked(0x80, b"continues nothing"), 1_002),
            ([masked(0x02, b"a"), masked(0x82, b"b")].concat(), 1_002),
            (masked(0x09, b"ping in pieces"), 1_002),
            (masked(0x89, &[0; 126]), 1_002),
            (masked(0x88, &[1]), 1_002),
            (vec![0x82, 0xFE, 0, 5, 0, 0, 0, 0], 1_002),
            (vec![0x82, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 1_002),
        ] {
            let (_, answer, result) = opened(&frame);
            assert!(matches!(result, Err(WebSocketFault::Frame { code: found, .. }) if found == code), "{frame:02x?}");
            assert_eq!(answer[answer.len() - 4..], [0x88, 2, (code >> 8) as u8, code as u8], "{frame:02x?}");
        }
    }

    #[test]
    fn a_close_is_answered() {
        let (data, answer, result) = opened(&[masked(0x82, b"last"), masked(0x88, &[3, 0xE8])].concat());
        assert_eq!((data, result), (b"last".to_vec(), Err(WebSocketFault::Closed)));
        assert_eq!(answer, [0x88, 2, 3, 0xE8]);
    }

    /// [MQTT-6.0.0-3]
    #[test]
    fn what_is_no_handshake_gets_a_status() {
        for (from, to, status) in [
            ("GET ", "POST ", "405"),
            ("HTTP/1.1", "HTTP/1.0", "400"),
            ("Upgrade: websocket\r\n", "", "426"),
            ("Connection: keep-alive, Upgrade", "Connection: close", "400"),
            ("Version: 13", "Version: 8", "426"),
            ("dGhlIHNhbXBsZSBub25jZQ==", "short", "400"),
            ("Sec-WebSocket-Protocol: mqtt\r\n", "", "400"),
            ("Protocol: mqtt", "Protocol: chat", "400"),
            ("GET /mqtt", "\x10\x0e\0\x04MQTT", "400"),
        ] {
            let (_, answer, result) = feed(REQUEST.replacen(from, to, 1).as_bytes(), usize::MAX);
            let answer = String::from_utf8(answer).unwrap();
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{to}: {answer}");
            assert!(matches!(result, Err(WebSocketFault::Handshake(_))));
        }
        let endless = format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(REQUEST_BYTES_MAX));
        assert!(matches!(feed(endless.as_bytes(), 999).2, Err(WebSocketFault::Handshake(_))));
        let list = REQUEST.replace("Protocol: mqtt", "Protocol: chat, mqtt");
        assert_eq!(feed(list.as_bytes(), usize::MAX).2, Ok(()));
    }
}
