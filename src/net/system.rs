//! The real network: non-blocking sockets, and the epoll in which the process sleeps.

use super::network::{Accepted, Interest, Io, Network, Token};
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketFlags, SocketType};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// Bytes that the system keeps for a client that does not read; by itself it would take up to 4 MiB, of memory that a board with
/// hundreds of such clients does not have.
const SEND_BUFFER_BYTES: usize = 128 * 1024;

/// Connections that the system completes before they are accepted.
const BACKLOG: i32 = 1_024;

/// Sockets of the operating system.
pub struct SystemNetwork {
    epoll: OwnedFd,
    listeners: Vec<TcpListener>,
}

/// A port could not be bound.
#[derive(Debug)]
pub struct BindError {
    /// The address and port.
    pub address: SocketAddr,
    /// What the system says.
    pub error: io::Error,
}

impl core::fmt::Display for BindError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let hint = match self.error.kind() {
            ErrorKind::AddrInUse => "; is another broker running?",
            ErrorKind::PermissionDenied => "; ports below 1024 need a privilege",
            _ => "",
        };
        write!(f, "cannot listen on {}: {}{hint}", self.address, self.error)
    }
}

/// Binds one port on several addresses. An address of a family that the system does not have is passed over as long as
/// another one is bound. One that the machine does not have yet, because its network comes up later, is bound all the same and
/// serves from then on; the log says so. Without `listening` the port is only reserved: who connects is turned away until
/// [`Network::listen`].
///
/// # Errors
/// [`BindError`] for the first address that cannot be bound for another reason, or when none can.
pub fn bind(addresses: &[IpAddr], port: u16, listening: bool) -> Result<Vec<TcpListener>, BindError> {
    let mut listeners = Vec::new();
    let mut missing_family = None;
    for address in addresses {
        let address = SocketAddr::new(*address, port);
        match open(address, listening) {
            Ok(listener) => listeners.push(listener),
            Err(error) if is_missing_family(&address, &error) => missing_family = Some(BindError { address, error }),
            Err(error) => return Err(BindError { address, error }),
        }
    }
    match missing_family {
        Some(error) if listeners.is_empty() => Err(error),
        _ => Ok(listeners),
    }
}

/// A bound socket. One of IPv6 takes no connections of IPv4, so that both wildcards can be bound side by side.
fn open(address: SocketAddr, listening: bool) -> io::Result<TcpListener> {
    let family = if address.is_ipv6() { AddressFamily::INET6 } else { AddressFamily::INET };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = net::socket_with(family, SocketType::STREAM, flags, None)?;
    net::sockopt::set_socket_reuseaddr(&socket, true)?;
    net::sockopt::set_socket_send_buffer_size(&socket, SEND_BUFFER_BYTES)?;
    if address.is_ipv6() {
        net::sockopt::set_ipv6_v6only(&socket, true)?;
    }
    match net::bind(&socket, &address) {
        Err(Errno::ADDRNOTAVAIL) if !is_general(&address) => {
            // ip(7), IP_FREEBIND. Both families have it.
            if address.is_ipv6() {
                net::sockopt::set_ipv6_freebind(&socket, true)?;
            } else {
                net::sockopt::set_ip_freebind(&socket, true)?;
            }
            net::bind(&socket, &address)?;
            log::warn!("{} is no address of this machine yet; it is served once it is one", address.ip());
        }
        outcome => outcome?,
    }
    if listening {
        net::listen(&socket, BACKLOG)?;
    }
    Ok(socket.into())
}

/// Whether every machine has it that has its family: loopback, or the wildcard.
fn is_general(address: &SocketAddr) -> bool {
    address.ip().is_loopback() || address.ip().is_unspecified()
}

/// Whether `error` says that a system without IPv6 (or IPv4) was asked for its loopback or wildcard address.
fn is_missing_family(address: &SocketAddr, error: &io::Error) -> bool {
    is_general(address)
        && [Errno::AFNOSUPPORT, Errno::ADDRNOTAVAIL]
            .iter()
            .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

impl SystemNetwork {
    /// A network with these listeners, of which none is watched yet.
    ///
    /// # Errors
    /// What the system says when it has no descriptor for the poller.
    pub fn new(listeners: Vec<TcpListener>) -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        Ok(Self { epoll, listeners })
    }

    /// The poller's descriptor: readable when any socket is ready.
    #[must_use]
    pub fn descriptor(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    /// Closes all listeners: no more connections come in.
    pub fn stop_listening(&mut self) {
        self.listeners.clear();
    }
}

fn flags(interest: Interest) -> EventFlags {
    let mut flags = EventFlags::empty();
    if interest.read {
        flags |= EventFlags::IN;
    }
    if interest.write {
        flags |= EventFlags::OUT;
    }
    flags
}

/// A connection is over for us when the system says anything but "not now".
fn outcome(result: io::Result<usize>) -> Io {
    match result {
        Ok(bytes) => Io::Bytes(bytes),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Io::WouldBlock,
        Err(_) => Io::Failed,
    }
}

impl Network for SystemNetwork {
    type Stream = TcpStream;

    fn accept(&mut self, index: usize) -> Accepted<TcpStream> {
        let Some(listener) = self.listeners.get(index) else { return Accepted::Nothing };
        match listener.accept() {
            Ok((stream, peer)) => {
                // Without TCP_NODELAY an acknowledgement waits for the peer's delayed ACK. Neither call fails on a socket
                // that was just accepted; should one, the connection is not worth keeping.
                if stream.set_nonblocking(true).and_then(|()| stream.set_nodelay(true)).is_err() {
                    return Accepted::Nothing;
                }
                Accepted::Stream(stream, peer)
            }
            Err(error) => {
                use rustix::io::Errno;
                let exhausted = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
                if exhausted.iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error())) {
                    Accepted::Exhausted
                } else {
                    Accepted::Nothing
                }
            }
        }
    }

    fn read(&mut self, stream: &mut TcpStream, into: &mut [u8]) -> Io {
        outcome(stream.read(into))
    }

    fn write(&mut self, stream: &mut TcpStream, from: &[u8]) -> Io {
        outcome(stream.write(from))
    }

    fn watch(&mut self, stream: &TcpStream, token: Token, interest: Interest) -> bool {
        epoll::add(&self.epoll, stream, EventData::new_u64(token), flags(interest)).is_ok()
    }

    fn change(&mut self, stream: &TcpStream, token: Token, interest: Interest) {
        // Fails only for a stream that is not watched; then nothing will be heard of it and its deadlines end it.
        let _ = epoll::modify(&self.epoll, stream, EventData::new_u64(token), flags(interest));
    }

    fn finish(&mut self, stream: &mut TcpStream) {
        // Fails when the peer is gone already.
        let _ = stream.shutdown(Shutdown::Write);
    }

    fn close(&mut self, stream: TcpStream) {
        // Closing a descriptor takes it out of the poller.
        drop(stream);
    }

    fn listen(&mut self, index: usize, watched: bool) {
        let Some(listener) = self.listeners.get(index) else { return };
        // As with `change`: adding what is there and removing what is not are harmless.
        if watched {
            // Only reserved until now, perhaps.
            let _ = net::listen(listener, BACKLOG);
            let _ = epoll::add(&self.epoll, listener, EventData::new_u64(index as u64), EventFlags::IN);
        } else {
            let _ = epoll::delete(&self.epoll, listener);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_is_not_there_yet_is_bound_and_one_that_is_taken_is_not() {
        // RFC 5737, RFC 3849: for documentation, so no machine has them.
        let mut addresses: Vec<IpAddr> = vec!["192.0.2.1".parse().unwrap()];
        if TcpListener::bind("[::1]:0").is_ok() {
            addresses.push("2001:db8::1".parse().unwrap());
        }
        let listeners = bind(&addresses, 0, true).unwrap();
        let bound: Vec<IpAddr> = listeners.iter().map(|listener| listener.local_addr().unwrap().ip()).collect();
        assert_eq!(bound, addresses);
        let loopback: IpAddr = [127, 0, 0, 1].into();
        let taken = bind(&[loopback], 0, true).unwrap();
        let refused = bind(&[loopback], taken[0].local_addr().unwrap().port(), true).unwrap_err();
        assert_eq!(refused.error.kind(), ErrorKind::AddrInUse);
    }
}
