//! One gateway, by its control socket or over TLS.
//!
//! **Invariant:** what is waited for is bounded, and nothing is believed of a gateway that has not proved its name.

use super::Remote;
use crate::commands::CommandError;
use crate::commands::control::Socket;
use crate::config::diagnostic::Escaped;
use crate::config::diagnostics::DEFAULT_PORT;
use crate::https::{Body, HttpsFault, Request, Resolver, Response, Roots, Server, ServerSettings, Timing, send};
use async_io::Async;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// Where updates are sent and asked about.
const TARGET: &str = "/api/v1/update";
/// How long a gateway may take for a handshake, and for a word or a piece: it writes what it gets to a card.
const TIMING: Timing = Timing { connect: Duration::from_secs(10), answer: Duration::from_secs(60) };
/// Longest file of a token, bytes.
const TOKEN_BYTES_MAX: u64 = 4 * 1024;

/// Where to send an update.
pub struct Gateway {
    name: String,
    way: Way,
}

enum Way {
    Socket(Socket),
    Server(Box<Server>),
}

/// Why there is no document.
pub enum Trouble {
    /// Nobody answers, and why.
    Away(String),
    /// The answer is no: its status, and why.
    Refused(u16, String),
}

/// What a gateway says to an update.
pub enum Answer {
    /// It has taken it.
    Taken,
    /// Its status, and why.
    Refused(u16, String),
}

/// The gateways that were named; without any, that of this machine.
///
/// # Errors
/// A certificate, key or token that cannot be used, or no control socket.
pub fn all(socket: Option<&Path>, remote: &Remote) -> Result<Vec<Gateway>, CommandError> {
    if remote.hosts.is_empty() {
        let socket = Socket::find(socket)?;
        let name = Escaped(&socket.path().to_string_lossy()).to_string();
        return Ok(vec![Gateway { name, way: Way::Socket(socket) }]);
    }
    let named = |host: &String| {
        let way = Way::Server(Box::new(server(host, remote)?));
        Ok(Gateway { name: Escaped(host).to_string(), way })
    };
    remote.hosts.iter().map(named).collect()
}

/// A gateway elsewhere. Nothing is sent yet.
fn server(host: &str, remote: &Remote) -> Result<Server, CommandError> {
    let certificates = |path: &Path| -> Result<Vec<CertificateDer<'static>>, CommandError> {
        let found = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        match found {
            Ok(found) if !found.is_empty() => Ok(found),
            Ok(_) => Err(unusable(path, "no certificate in PEM")),
            Err(error) => Err(unusable(path, &error.to_string())),
        }
    };
    let roots = match &remote.authorities {
        Some(path) => Roots::Bundle(certificates(path)?.into_iter().map(|found| found.to_vec()).collect()),
        None => Roots::System,
    };
    let identity = match &remote.identity {
        Some((chain, key)) => {
            let found = PrivateKeyDer::from_pem_file(key).map_err(|error| unusable(key, &error.to_string()))?;
            Some((certificates(chain)?, found))
        }
        None => None,
    };
    let headers = match &remote.token {
        Some(path) => vec![("Authorization".to_owned(), format!("Bearer {}", read_token(path)?))],
        None => Vec::new(),
    };
    let no_host = || CommandError::Usage(format!("--to takes HOST or HOST:PORT, not '{}'", Escaped(host)));
    // A path or a blank would be part of something else than a host.
    if !host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte)) {
        return Err(no_host());
    }
    let endpoint = endpoint(host);
    let settings = ServerSettings { endpoint: &endpoint, roots, identity, headers, timing: TIMING };
    Server::new(settings, Resolver::default()).map_err(|fault| match fault {
        HttpsFault::Endpoint => no_host(),
        fault => CommandError::CannotStart(format!("{}: {fault}", Escaped(host))),
    })
}

fn unusable(path: &Path, why: &str) -> CommandError {
    CommandError::CannotStart(format!("{}: {why}", Escaped(&path.to_string_lossy())))
}

fn read_token(path: &Path) -> Result<String, CommandError> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(TOKEN_BYTES_MAX).read_to_string(&mut text));
    read.map_err(|error| CommandError::file(path, &error))?;
    let token = text.trim();
    // It stands in a header field.
    if token.is_empty() || !token.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return Err(unusable(path, "no token"));
    }
    Ok(token.to_owned())
}

/// The address of a gateway: with the port of the diagnostics where there is none, and an IPv6 address in brackets.
fn endpoint(host: &str) -> String {
    let colons = host.matches(':').count();
    match (host.starts_with('['), colons) {
        (false, 2..) => format!("https://[{host}]:{DEFAULT_PORT}"),
        (false, 0) => format!("https://{host}:{DEFAULT_PORT}"),
        (true, _) if host.ends_with(']') => format!("https://{host}:{DEFAULT_PORT}"),
        (true | false, _) => format!("https://{host}"),
    }
}

impl Gateway {
    /// Its name, for people.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it says of itself and its updates.
    ///
    /// # Errors
    /// Nobody answers, or the answer is no.
    pub fn document(&self) -> Result<Value, Trouble> {
        let response = match &self.way {
            Way::Socket(socket) => {
                let head = format!("GET {TARGET} HTTP/1.1\r\nHost: localhost\r\n\r\n");
                through(socket, &head, Body { source: &mut io::empty(), bytes: 0, progress: &mut |_| {} })
            }
            Way::Server(server) => {
                let request = Request { method: "GET", target: TARGET, header: None, body: b"" };
                smol::block_on(server.exchange(&request)).map_err(|fault| fault.to_string())
            }
        };
        let response = response.map_err(Trouble::Away)?;
        match (response.status, serde_json::from_slice::<Value>(&response.body)) {
            (200, Ok(document)) => Ok(document),
            // Its places are taken for a moment, or it is about to end.
            (503, _) => Err(Trouble::Away("it answers others already".to_owned())),
            (status, _) => Err(Trouble::Refused(status, why(&response))),
        }
    }

    /// Sends an update of so many bytes.
    ///
    /// # Errors
    /// Nobody answers.
    pub fn send(&self, file: &mut File, bytes: u64, progress: &mut dyn FnMut(u64)) -> Result<Answer, Trouble> {
        let body = Body { source: file, bytes, progress };
        let response = match &self.way {
            Way::Socket(socket) => {
                let head = format!(
                    "POST {TARGET} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/octet-stream\r\n\
                     Content-Length: {bytes}\r\nExpect: 100-continue\r\n\r\n"
                );
                through(socket, &head, body)
            }
            Way::Server(server) => smol::block_on(server.upload(TARGET, body)).map_err(|fault| fault.to_string()),
        };
        match response {
            Ok(response) if response.status == 202 => Ok(Answer::Taken),
            Ok(response) => Ok(Answer::Refused(response.status, why(&response))),
            Err(why) => Err(Trouble::Away(why)),
        }
    }
}

/// One request through the control socket.
fn through(socket: &Socket, head: &str, body: Body<'_>) -> Result<Response, String> {
    let stream = UnixStream::connect(socket.path()).and_then(Async::new);
    let mut stream = stream.map_err(|error| Socket::why_unreachable(&error))?;
    smol::block_on(send(&mut stream, head.as_bytes(), body, TIMING.answer)).map_err(|fault| fault.to_string())
}

/// Why the answer is no: what the document says, or the line of text.
fn why(response: &Response) -> String {
    let document = serde_json::from_slice::<Value>(&response.body).ok();
    let error = document.as_ref().and_then(|document| document.get("error")).and_then(Value::as_str);
    let line = core::str::from_utf8(&response.body).ok().map(str::trim).filter(|line| !line.is_empty());
    let why = error.or(line.filter(|_| document.is_none()));
    why.map_or_else(|| format!("it answers with {}", response.status), |why| format!("{why} ({})", response.status))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_gets_the_port_that_it_does_not_name() {
        for (host, expected) in [
            ("gateway", "https://gateway:9600"),
            ("gateway:1", "https://gateway:1"),
            ("10.0.0.1", "https://10.0.0.1:9600"),
            ("fd00::1", "https://[fd00::1]:9600"),
            ("[fd00::1]", "https://[fd00::1]:9600"),
            ("[fd00::1]:1", "https://[fd00::1]:1"),
        ] {
            assert_eq!(endpoint(host), expected);
        }
    }

    #[test]
    fn why_not_is_what_the_gateway_says() {
        let said = |body: &str| why(&Response { status: 409, body: body.as_bytes().to_vec() });
        assert_eq!(said("{\"error\":\"busy\"}"), "busy (409)");
        assert_eq!(said("Conflict\n"), "Conflict (409)");
        assert_eq!(said("{}"), "it answers with 409");
        assert_eq!(said(""), "it answers with 409");
    }
}
