//! One connection: a non-blocking socket, with rustls around it where that is wanted.

use crate::Failure;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::sync::Arc;

/// Bytes that are read at one time.
const READ_BYTES: usize = 256 * 1024;

/// A connection.
pub struct Socket {
    /// For the poller.
    pub stream: TcpStream,
    tls: Option<Connection>,
    out: Vec<u8>,
    sent: usize,
}

impl Socket {
    /// Connects to a port of loopback; with `tls`, the handshake begins with the first flush.
    pub fn connect(port: u16, tls: Option<&Arc<ClientConfig>>) -> Result<Self, Failure> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        let tls = match tls {
            None => None,
            Some(config) => {
                let name = ServerName::try_from("localhost")?;
                Some(Connection::Client(ClientConnection::new(Arc::clone(config), name)?))
            }
        };
        Self::around(stream, tls)
    }

    /// The server's side of an accepted connection.
    pub fn accepted(stream: TcpStream, tls: Option<&Arc<ServerConfig>>) -> Result<Self, Failure> {
        let tls = match tls {
            None => None,
            Some(config) => Some(Connection::Server(ServerConnection::new(Arc::clone(config))?)),
        };
        Self::around(stream, tls)
    }

    fn around(stream: TcpStream, mut tls: Option<Connection>) -> Result<Self, Failure> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        if let Some(tls) = &mut tls {
            tls.set_buffer_limit(None);
        }
        Ok(Self { stream, tls, out: Vec::new(), sent: 0 })
    }

    /// Appends to `into` what has come, up to some hundred KiB. Returns whether the peer is still there.
    pub fn read(&mut self, into: &mut Vec<u8>) -> Result<bool, Failure> {
        let Some(tls) = &mut self.tls else {
            let begin = into.len();
            into.resize(begin + READ_BYTES, 0);
            let outcome = self.stream.read(&mut into[begin..]);
            into.truncate(begin + *outcome.as_ref().unwrap_or(&0));
            return match outcome {
                Ok(bytes) => Ok(bytes > 0),
                Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(true),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(false),
                Err(error) => Err(error.into()),
            };
        };
        let before = into.len();
        while into.len() - before < READ_BYTES {
            match tls.read_tls(&mut self.stream) {
                Ok(0) => return Ok(false),
                Ok(_) => {
                    let state = tls.process_new_packets()?;
                    let begin = into.len();
                    into.resize(begin + state.plaintext_bytes_to_read(), 0);
                    tls.reader().read_exact(&mut into[begin..])?;
                    if state.peer_has_closed() {
                        return Ok(false);
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }

    /// Where bytes to send are put, for the next flush.
    pub fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    /// Bytes that the system has not taken.
    pub fn unsent(&self) -> usize {
        self.out.len() - self.sent
    }

    /// Ends TLS, for the next flush.
    pub fn close_notify(&mut self) {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
        }
    }

    /// Gives the system what it takes. Returns whether there is more.
    pub fn flush(&mut self) -> Result<bool, Failure> {
        let outcome = match &mut self.tls {
            None => loop {
                if self.sent == self.out.len() {
                    break Ok(());
                }
                match self.stream.write(&self.out[self.sent..]) {
                    Ok(bytes) => self.sent += bytes,
                    Err(error) => break Err(error),
                }
            },
            Some(tls) => {
                if !tls.is_handshaking() && !self.out.is_empty() {
                    // Takes all: the buffer has no limit.
                    tls.writer().write_all(&self.out)?;
                    self.out.clear();
                }
                loop {
                    if !tls.wants_write() {
                        break Ok(());
                    }
                    if let Err(error) = tls.write_tls(&mut self.stream) {
                        break Err(error);
                    }
                }
            }
        };
        if self.sent == self.out.len() {
            self.out.clear();
            self.sent = 0;
        }
        match outcome {
            Ok(()) => Ok(self.tls.is_none() && !self.out.is_empty()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(true),
            Err(error) => Err(closed(error)),
        }
    }
}

fn closed(error: io::Error) -> Failure {
    match error.kind() {
        ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => "the broker closed a connection".into(),
        _ => error.into(),
    }
}
