//! What carries a connection of a door: TCP, a socket in the file system, TLS over either. The code above it is there once.

use crate::service::CertificateFacts;
use async_io::Async;
use core::pin::Pin;
use futures_rustls::server::TlsStream;
use smol::io::{AsyncRead, AsyncWrite};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;

/// Characters of a name that are said.
const NAME_CHARACTERS_MAX: usize = 256;

/// A connection.
pub(super) trait Carrier: AsyncRead + AsyncWrite {
    /// Tells the other side that nothing more comes. Fails only when it is gone.
    fn finish(&self);

    /// Who is on the other side, for a log line: escaped and bounded.
    fn peer(&self) -> String;
}

pub(super) type Stream = Pin<Box<dyn Carrier>>;

impl Carrier for Async<TcpStream> {
    fn finish(&self) {
        let _ = self.get_ref().shutdown(Shutdown::Write);
    }

    fn peer(&self) -> String {
        self.get_ref().peer_addr().map_or_else(|_| "somebody".to_owned(), |address| address.to_string())
    }
}

impl Carrier for Async<UnixStream> {
    fn finish(&self) {
        let _ = self.get_ref().shutdown(Shutdown::Write);
    }

    fn peer(&self) -> String {
        rustix::net::sockopt::socket_peercred(self.get_ref()).map_or_else(
            |_| "the control socket".to_owned(),
            |who| format!("the control socket, user {}", who.uid.as_raw()),
        )
    }
}

impl Carrier for TlsStream<Stream> {
    fn finish(&self) {
        self.get_ref().0.finish();
    }

    fn peer(&self) -> String {
        let (carrier, connection) = self.get_ref();
        let certificate = connection.peer_certificates().and_then(|chain| chain.first());
        let subject = certificate
            .and_then(|certificate| CertificateFacts::new("", certificate))
            .map(|facts| facts.subject.escape_debug().take(NAME_CHARACTERS_MAX).collect::<String>());
        match subject {
            Some(subject) => format!("{}, certificate '{subject}'", carrier.peer()),
            None => carrier.peer(),
        }
    }
}
