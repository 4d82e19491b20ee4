//! Who may come in by which door, and what for.

use super::upload;
use crate::http::{Method, Request, Response, Status};
use base64ct::{Base64, Encoding as _};
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::{self, Read as _};
use std::net::IpAddr;
use std::path::PathBuf;
use zeroize::Zeroizing;

/// Longest token that is read, bytes.
const TOKEN_BYTES_MAX: u64 = 4 * 1024;
/// Shortest token that is believed, bytes: shorter ones can be guessed.
const TOKEN_BYTES_MIN: usize = 16;

/// A way in.
#[derive(Debug)]
pub enum Door {
    /// TCP without TLS, bound to loopback addresses only. Reading only.
    Loopback {
        /// The addresses that are bound.
        addresses: Vec<IpAddr>,
    },
    /// TCP with TLS. Reading, and updates. Where a client certificate is required, the handshake has seen to it.
    Exposed {
        /// What a request must bring with it.
        token: Option<Token>,
        /// Whether updates come in here, `diagnosticsTls.updates`.
        updates: bool,
    },
    /// A socket in the file system, whose mode says who may come in. Reading and writing.
    Control,
}

/// A secret that a request brings, as a bearer token or as the password of Basic authentication, which browsers know.
#[derive(Clone, Debug)]
pub struct Token {
    /// Where it is; read for each request, because others renew it.
    pub path: PathBuf,
}

impl Door {
    /// Judges who asks, before anything else is done for him.
    ///
    /// # Errors
    /// What he is told instead.
    pub fn admit(&self, request: &Request) -> Result<(), Response> {
        match self {
            Self::Loopback { addresses } => {
                // A page from elsewhere that a browser on this machine shows can let its own name point here.
                if request.host.as_deref().is_some_and(|host| !is_own_name(host, addresses)) {
                    let hint = "this is not the name of this machine's loopback interface";
                    return Err(Response::text(Status::MisdirectedRequest, hint));
                }
            }
            Self::Exposed { token: Some(token), .. } if !token.is_in(request) => {
                return Err(Status::Unauthorized.into());
            }
            Self::Exposed { .. } | Self::Control => {}
        }
        match (request.method, self) {
            (Method::Get, _) => Ok(()),
            // No program that has business here sends one: it is a browser, and some page's idea.
            (Method::Post, Self::Exposed { .. } | Self::Control) if request.origin.is_some() => {
                Err(Status::Forbidden.into())
            }
            (Method::Post, Self::Control) => Ok(()),
            (Method::Post, Self::Exposed { updates, .. }) if upload::is_target(&request.segments) => {
                if *updates {
                    return Ok(());
                }
                let why = "updates are not taken here: the Gateway would have to say diagnosticsTls.updates: Allowed";
                Err(Response::text(Status::Forbidden, why))
            }
            (Method::Post, Self::Loopback { .. } | Self::Exposed { .. }) => {
                Err(Response::text(Status::Forbidden, "changes are made through the control socket only"))
            }
        }
    }
}

/// Whether a Host is a name of this machine for itself. RFC 6761 §6.3 for `localhost`.
fn is_own_name(host: &str, addresses: &[IpAddr]) -> bool {
    let after_address = host.rfind(']').map_or(0, |bracket| bracket + 1);
    let colon = host.get(after_address..).and_then(|rest| rest.find(':')).map(|colon| colon + after_address);
    let (name, port) = colon.map_or((host, None), |colon| (host.get(..colon).unwrap_or(""), host.get(colon + 1..)));
    if port.is_some_and(|port| port.is_empty() || !port.bytes().all(|byte| byte.is_ascii_digit())) {
        return false;
    }
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    name.eq_ignore_ascii_case("localhost")
        || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback() || addresses.contains(&address))
}

impl Token {
    /// Reads it.
    ///
    /// # Errors
    /// It cannot be read, or is too short to be believed.
    pub fn read(&self) -> io::Result<Zeroizing<String>> {
        let mut text = Zeroizing::new(String::new());
        File::open(&self.path)?.take(TOKEN_BYTES_MAX).read_to_string(&mut text)?;
        if text.trim().len() < TOKEN_BYTES_MIN {
            let fault = format!("a token has at least {TOKEN_BYTES_MIN} characters");
            return Err(io::Error::new(io::ErrorKind::InvalidData, fault));
        }
        Ok(text)
    }

    fn is_in(&self, request: &Request) -> bool {
        let Some(given) = request.authorization.as_ref().and_then(|value| credential(value)) else { return false };
        match self.read() {
            // What is compared are digests: how far they agree says nothing about the token.
            Ok(expected) => Sha256::digest(expected.trim().as_bytes()) == Sha256::digest(given.as_bytes()),
            Err(error) => {
                // Whoever asks causes this line: as a warning it is among those that are bounded.
                log::warn!("diagnostics: cannot read the token {}: {error}", self.path.display());
                false
            }
        }
    }
}

/// The secret of `Authorization: Bearer TOKEN` (RFC 6750 §2.1) or `Basic BASE64(NAME:TOKEN)` (RFC 7617), whatever the name.
fn credential(value: &str) -> Option<Zeroizing<String>> {
    let (scheme, rest) = value.split_once(' ')?;
    let rest = rest.trim_matches(' ');
    if scheme.eq_ignore_ascii_case("Bearer") {
        return Some(Zeroizing::new(rest.to_owned()));
    }
    if !scheme.eq_ignore_ascii_case("Basic") {
        return None;
    }
    let decoded = Zeroizing::new(Base64::decode_vec(rest).ok()?);
    let (_, token) = core::str::from_utf8(&decoded).ok()?.split_once(':')?;
    Some(Zeroizing::new(token.to_owned()))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::http::RequestReader;

    fn request(method: &str, fields: &str) -> Request {
        let bytes = format!("{method} /metrics HTTP/1.1\r\n{fields}\r\n");
        RequestReader::default().push(bytes.as_bytes()).unwrap().unwrap()
    }

    fn status(door: &Door, method: &str, fields: &str) -> u16 {
        door.admit(&request(method, fields)).map_or_else(|response| response.status as u16, |()| 200)
    }

    #[test]
    fn the_loopback_door_answers_to_names_of_this_machine_only() {
        let door = Door::Loopback { addresses: vec!["127.0.0.5".parse().unwrap()] };
        for host in ["localhost", "LocalHost:9600", "127.0.0.1:9600", "127.0.0.5", "[::1]", "[::1]:9600", "127.9.9.9"] {
            assert_eq!(status(&door, "GET", &format!("Host: {host}\r\n")), 200, "{host}");
        }
        for host in [
            "",
            "evil.example",
            "localhost.evil.example",
            "192.168.1.1",
            "localhost:",
            "localhost:x",
            "a]:1",
            "[::2]",
            ":80",
        ] {
            assert_eq!(status(&door, "GET", &format!("Host: {host}\r\n")), 421, "{host}");
        }
    }

    #[test]
    fn only_the_control_socket_takes_changes_but_for_updates_and_none_from_a_page() {
        let loopback = Door::Loopback { addresses: Vec::new() };
        assert_eq!(status(&loopback, "POST", "Host: localhost\r\n"), 403);
        assert_eq!(status(&Door::Exposed { token: None, updates: true }, "POST", "Host: gateway\r\n"), 403);
        assert_eq!(status(&Door::Control, "POST", "Host: localhost\r\n"), 200);
        let update = |updates: bool, fields: &str| {
            let bytes = format!("POST /api/v1/update HTTP/1.1\r\nHost: g\r\n{fields}Content-Length: 0\r\n\r\n");
            let request = RequestReader::streaming(upload::is_target).push(bytes.as_bytes()).unwrap().unwrap();
            Door::Exposed { token: None, updates }.admit(&request).is_ok()
        };
        assert!(update(true, "") && !update(false, "") && !update(true, "Origin: https://gateway\r\n"));
        assert_eq!(status(&Door::Control, "POST", "Host: localhost\r\nOrigin: https://evil.example\r\n"), 403);
        assert_eq!(status(&Door::Control, "POST", "Host: localhost\r\nOrigin: null\r\n"), 403);
    }

    #[test]
    fn a_token_is_asked_for_and_compared_as_a_whole() {
        let path = std::env::temp_dir().join(format!("portcullis-web-token-{}", std::process::id()));
        let door = Door::Exposed { token: Some(Token { path: path.clone() }), updates: false };
        let given = |value: &str| format!("Host: gateway\r\nAuthorization: {value}\r\n");
        std::fs::write(&path, "0123456789abcdef\n").unwrap();
        assert_eq!(status(&door, "GET", "Host: gateway\r\n"), 401);
        assert_eq!(status(&door, "GET", &given("Bearer 0123456789abcdef")), 200);
        assert_eq!(status(&door, "GET", &given("bearer  0123456789abcdef ")), 200);
        let basic = |text: &str| format!("Basic {}", Base64::encode_string(text.as_bytes()));
        assert_eq!(status(&door, "GET", &given(&basic("anybody:0123456789abcdef"))), 200);
        for wrong in
            ["Bearer 0123456789abcde", "Bearer 0123456789abcdef0", "Bearer", "Bearer ", "Digest x", "Basic !", ""]
        {
            assert_eq!(status(&door, "GET", &given(wrong)), 401, "{wrong}");
        }
        assert_eq!(status(&door, "GET", &given(&basic("0123456789abcdef"))), 401, "no name");
        std::fs::write(&path, "short\n").unwrap();
        assert_eq!(status(&door, "GET", &given("Bearer short")), 401, "one that can be guessed");
        std::fs::write(&path, "").unwrap();
        assert_eq!(status(&door, "GET", &given("Bearer ")), 401, "an empty one matches nothing");
        std::fs::remove_file(&path).unwrap();
        assert_eq!(status(&door, "GET", &given("Bearer 0123456789abcdef")), 401, "none");
    }
}
