//! The opening handshake. RFC 6455 §4.2, MQTT 5 §6.

use super::WebSocketFault;
use base64ct::{Base64, Encoding as _};
use sha1::{Digest as _, Sha1};

/// Longest request that is read.
pub const REQUEST_BYTES_MAX: usize = 8 * 1024;
/// Most header fields of a request.
const FIELDS_MAX: usize = 64;
/// What RFC 6455 §1.3 appends to a key.
const KEY_SUFFIX: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// The subprotocol. [MQTT-6.0.0-4]
const SUBPROTOCOL: &str = "mqtt";

/// Judges the request so far and appends the response once it is complete. Returns the request's length then.
///
/// # Errors
/// What keeps it from being a handshake; the response says it in HTTP's terms.
pub fn answer(request: &[u8], response: &mut Vec<u8>) -> Result<Option<usize>, WebSocketFault> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut parsed = httparse::Request::new(&mut fields);
    let length = match parsed.parse(request) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) if request.len() <= REQUEST_BYTES_MAX => return Ok(None),
        Ok(httparse::Status::Partial) => {
            return Err(refuse(response, "431 Request Header Fields Too Large", "too long"));
        }
        Err(_) => return Err(refuse(response, "400 Bad Request", "not HTTP")),
    };
    let field = |name: &str| {
        let mut values = parsed.headers.iter().filter(|field| field.name.eq_ignore_ascii_case(name));
        let value = values.next().and_then(|field| core::str::from_utf8(field.value).ok());
        // A field that may stand once only must not be chosen by its order.
        if values.next().is_some() { None } else { value }
    };
    let lists = |name: &str, token: &str| {
        let values = parsed.headers.iter().filter(|field| field.name.eq_ignore_ascii_case(name));
        values
            .filter_map(|field| core::str::from_utf8(field.value).ok())
            .any(|value| value.split(',').any(|item| item.trim().eq_ignore_ascii_case(token)))
    };
    if parsed.method != Some("GET") {
        return Err(refuse(response, "405 Method Not Allowed", "the method is not GET"));
    }
    if parsed.version != Some(1) {
        return Err(refuse(response, "400 Bad Request", "not HTTP/1.1"));
    }
    if !lists("Upgrade", "websocket") {
        return Err(refuse(response, "426 Upgrade Required", "no upgrade to websocket"));
    }
    if !lists("Connection", "Upgrade") {
        return Err(refuse(response, "400 Bad Request", "no Connection: Upgrade"));
    }
    if field("Sec-WebSocket-Version") != Some("13") {
        return Err(refuse(response, "426 Upgrade Required", "not version 13"));
    }
    let key = field("Sec-WebSocket-Key").map(str::trim).unwrap_or_default();
    if Base64::decode_vec(key).map(|nonce| nonce.len()) != Ok(16) {
        return Err(refuse(response, "400 Bad Request", "no valid Sec-WebSocket-Key"));
    }
    // [MQTT-6.0.0-3]
    if !lists("Sec-WebSocket-Protocol", SUBPROTOCOL) {
        return Err(refuse(response, "400 Bad Request", "the subprotocol mqtt is not offered"));
    }
    let digest = Sha1::new().chain_update(key).chain_update(KEY_SUFFIX).finalize();
    let accept = Base64::encode_string(&digest);
    for part in [
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ",
        accept.as_str(),
        "\r\nSec-WebSocket-Protocol: ",
        SUBPROTOCOL,
        "\r\n\r\n",
    ] {
        response.extend_from_slice(part.as_bytes());
    }
    Ok(Some(length))
}

fn refuse(response: &mut Vec<u8>, status: &str, what: &'static str) -> WebSocketFault {
    let version = if status.starts_with("426") { "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n" } else { "" };
    let text = format!("HTTP/1.1 {status}\r\nConnection: close\r\n{version}Content-Length: 0\r\n\r\n");
    response.extend_from_slice(text.as_bytes());
    WebSocketFault::Handshake(what)
}
