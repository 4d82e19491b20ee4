//! Asks a running broker: one request and one answer over its control socket.
//!
//! **Invariants:** what is read is bounded, and so is the time that is waited.

use crate::commands::CommandError;
use crate::config::diagnostic::Escaped;
use serde_json::Value;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Names the socket where `--control` does not.
const VARIABLE: &str = "PORTCULLIS_CONTROL";
/// Where sockets are: beside a blob in this folder, and where services have their state.
const PLACES: [&str; 4] = [
    "state/control.sock",
    "/run/portcullis/control.sock",
    "/var/lib/portcullis/state/control.sock",
    "/var/lib/portcullis/control.sock",
];
/// How long the broker may say nothing.
const PATIENCE: Duration = Duration::from_secs(10);
/// More than any answer has, bytes.
const ANSWER_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Header fields of an answer.
const FIELDS_MAX: usize = 32;

/// A control socket.
pub struct Socket {
    path: PathBuf,
}

impl Socket {
    /// The socket that was named, or the first one that is there.
    ///
    /// # Errors
    /// None is there.
    pub fn find(named: Option<&Path>) -> Result<Self, CommandError> {
        let from_environment = || std::env::var_os(VARIABLE).filter(|value| !value.is_empty()).map(PathBuf::from);
        if let Some(path) = named.map(Path::to_owned).or_else(from_environment) {
            return Ok(Self { path });
        }
        // What may not be looked at is there, for all that is known; connecting says more.
        let is_there = |path: &Path| match path.symlink_metadata() {
            Ok(_) => true,
            Err(error) => error.kind() == ErrorKind::PermissionDenied,
        };
        let found = PLACES.iter().map(Path::new).find(|path| is_there(path));
        found.map(|path| Self { path: path.to_owned() }).ok_or_else(|| {
            CommandError::CannotStart(format!(
                "no control socket in {}: does the broker run? Name its socket with --control or {VARIABLE}; it is \
                 `control.sock` in the broker's state folder",
                PLACES.join(", ")
            ))
        })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A document below `/api/v1`.
    ///
    /// # Errors
    /// The broker cannot be asked, or does not give it.
    pub fn get(&self, target: &str) -> Result<Value, CommandError> {
        self.get_if_there(target)?
            .ok_or_else(|| self.fault("the broker has no such document: is it of another version?"))
    }

    /// A document that need not be there.
    ///
    /// # Errors
    /// The broker cannot be asked, or does not give it for another reason.
    pub fn get_if_there(&self, target: &str) -> Result<Option<Value>, CommandError> {
        self.exchange("GET", target, b"")
    }

    /// Has something done to what need not be there.
    ///
    /// # Errors
    /// As [`Socket::get_if_there`].
    pub fn post(&self, target: &str, body: &[u8]) -> Result<Option<Value>, CommandError> {
        self.exchange("POST", target, body)
    }

    fn exchange(&self, method: &str, target: &str, body: &[u8]) -> Result<Option<Value>, CommandError> {
        let answer = self.converse(method, target, body).map_err(|error| self.unreachable(&error))?;
        let (status, body) = parse(&answer).ok_or_else(|| self.fault("what answers is not a broker"))?;
        let document = serde_json::from_slice::<Value>(body).ok();
        match (status, &document) {
            (200, Some(_)) => Ok(document),
            (404, _) => Ok(None),
            (503, None) => Err(self.fault("the broker answers others already; try again")),
            (status, document) => {
                let why = document.as_ref().and_then(|document| document.get("error")).and_then(Value::as_str);
                let why =
                    why.map_or_else(|| format!("the broker answers with {status}"), |why| Escaped(why).to_string());
                Err(self.fault(&why))
            }
        }
    }

    fn converse(&self, method: &str, target: &str, body: &[u8]) -> io::Result<Vec<u8>> {
        let mut stream = UnixStream::connect(&self.path)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let length = match method {
            "POST" => format!("Content-Length: {}\r\n", body.len()),
            _ => String::new(),
        };
        let head = format!("{method} /api/v1/{target} HTTP/1.1\r\nHost: localhost\r\n{length}\r\n");
        stream.write_all(&[head.as_bytes(), body].concat())?;
        // The broker may hold the connection for a while after its last byte: its length says when the answer is whole.
        let (mut answer, mut piece) = (Vec::new(), [0; 8 * 1024]);
        while answer.len() < ANSWER_BYTES_MAX && parse(&answer).is_none() {
            let bytes = stream.read(&mut piece)?;
            if bytes == 0 {
                break;
            }
            answer.extend_from_slice(piece.get(..bytes).unwrap_or_default());
        }
        Ok(answer)
    }

    fn unreachable(&self, error: &io::Error) -> CommandError {
        self.fault(&Self::why_unreachable(error))
    }

    /// Why nobody answers, and what can be done about it.
    pub fn why_unreachable(error: &io::Error) -> String {
        let why = match error.kind() {
            ErrorKind::NotFound => "no broker has its control socket there",
            ErrorKind::ConnectionRefused => "no broker listens there any more",
            ErrorKind::PermissionDenied => {
                "permission denied: only the broker's user and its group may use it, and root"
            }
            ErrorKind::WouldBlock | ErrorKind::TimedOut => "the broker does not answer",
            _ => return error.to_string(),
        };
        why.to_owned()
    }

    fn fault(&self, why: &str) -> CommandError {
        CommandError::CannotStart(format!("{}: {why}", Escaped(&self.path.to_string_lossy())))
    }
}

/// Status and body of an answer; `None` for what is no answer, or is not whole.
fn parse(answer: &[u8]) -> Option<(u16, &[u8])> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut response = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(head_bytes) = response.parse(answer).ok()? else { return None };
    let length = response.headers.iter().find(|field| field.name.eq_ignore_ascii_case("Content-Length"))?.value;
    let length: usize = core::str::from_utf8(length).ok()?.parse().ok()?;
    let body = answer.get(head_bytes..)?;
    if body.len() != length {
        return None;
    }
    Some((response.code?, body))
}

/// A text as the value of a query. RFC 3986 §2.1.
pub fn encoded(text: &str) -> String {
    const DIGITS: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F'];
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push('%');
            encoded.extend([byte >> 4, byte & 15].iter().filter_map(|nibble| DIGITS.get(usize::from(*nibble))));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_is_not_whole_is_none() {
        let whole = b"HTTP/1.1 200 OK\r\ncontent-length: 13\r\n\r\n{\"error\":\"x\"}";
        assert_eq!(parse(whole), Some((200, &b"{\"error\":\"x\"}"[..])));
        for bytes in 0..whole.len() {
            assert!(parse(&whole[..bytes]).is_none(), "{bytes}");
        }
        assert!(parse(&[&whole[..], b" "].concat()).is_none());
        assert_eq!(parse(b"HTTP/1.1 503 x\r\nContent-Length: 1\r\n\r\n\n"), Some((503, &b"\n"[..])));
        assert!(parse(b"SSH-2.0-OpenSSH\r\n").is_none());
    }

    #[test]
    fn a_name_is_encoded_whatever_is_in_it() {
        assert_eq!(encoded("a-._~Z9"), "a-._~Z9");
        assert_eq!(encoded("\u{fc}/?&=+ %\n"), "%C3%BC%2F%3F%26%3D%2B%20%25%0A");
    }
}
