//! A stream as minimq reads and writes it, and two corrections of what it writes.
//!
//! minimq gives each packet from its first byte to its last, in one call or, where a stream takes less, in several with nothing
//! between them: that is how packets are told apart here. It is asked to read whenever it has nothing to write, so that held
//! acknowledgements leave from there once they may.

use super::hearing::{Ear, Heard};
use core::cell::Cell;
use core::fmt;
use core::pin::Pin;
use core::task::{Context, Poll, ready};
use embassy_time::{Duration, with_timeout};
use embedded_io_async::{ErrorKind, ErrorType, Read, Write};
use smol::future::poll_fn;
use smol::io::{AsyncRead, AsyncWrite};
use std::io;
use std::rc::Rc;

/// How long a peer may take no byte.
const WRITE_SECONDS: u64 = 20;
/// Most acknowledgements that are held. minimq announces a Receive Maximum of 8, and there are brokers in use that send more.
pub const HELD_MAX: usize = 64;
/// Longest acknowledgement that minimq writes: a fixed header, an identifier, a Reason Code and a length of properties.
const HELD_BYTES_MAX: usize = 9;

/// Why a stream has ended.
#[derive(Debug)]
pub struct LinkError(pub io::Error);

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl core::error::Error for LinkError {}

impl embedded_io_async::Error for LinkError {
    fn kind(&self) -> ErrorKind {
        match self.0.kind() {
            io::ErrorKind::TimedOut => ErrorKind::TimedOut,
            io::ErrorKind::ConnectionReset => ErrorKind::ConnectionReset,
            io::ErrorKind::BrokenPipe => ErrorKind::BrokenPipe,
            _ => ErrorKind::Other,
        }
    }
}

/// Lets held acknowledgements of received messages (PUBACK and PUBREC) go, in the order in which the messages came.
#[derive(Debug, Default)]
pub struct Gate {
    open: Cell<usize>,
    is_shut: Cell<bool>,
}

impl Gate {
    /// Lets one more acknowledgement go, with the next read or write of the link.
    pub fn let_one_go(&self) {
        self.open.set(self.open.get().saturating_add(1));
    }

    /// What is received from now on is never acknowledged by this link: it comes again by the next one.
    pub fn shut(&self) {
        self.is_shut.set(true);
    }

    fn take(&self) -> bool {
        let open = self.open.get();
        self.open.set(open.saturating_sub(1));
        open > 0
    }
}

/// One packet that is held, and its length.
type Held = ([u8; HELD_BYTES_MAX], usize);

/// What a link is over. Links over all kinds of streams are of one type, so that minimq's code is in the program once.
pub trait Stream: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Stream for T {}

/// A stream for minimq.
pub struct Link<'s> {
    stream: Box<dyn Stream + 's>,
    /// Bytes of the packet that is being written which have not been taken yet.
    unfinished: usize,
    resumes: bool,
    gate: Option<Rc<Gate>>,
    ear: Option<Ear>,
    held: heapless::Deque<Held, HELD_MAX>,
    /// What of the first held packet the stream has taken; some: it must go on.
    going: Option<usize>,
    /// Held packets were written and not flushed yet.
    unflushed: bool,
}

impl<'s> Link<'s> {
    /// A link as minimq expects it.
    pub fn new(stream: impl Stream + 's) -> Self {
        Self {
            stream: Box::new(stream),
            unfinished: 0,
            resumes: false,
            gate: None,
            ear: None,
            held: heapless::Deque::new(),
            going: None,
            unflushed: false,
        }
    }

    /// CONNECT asks for the session that is there, even if this process has never had it.
    #[must_use]
    pub fn resuming(mut self) -> Self {
        self.resumes = true;
        self
    }

    /// Acknowledgements of received messages leave only as `gate` lets them.
    #[must_use]
    pub fn holding(mut self, gate: Rc<Gate>) -> Self {
        self.gate = Some(gate);
        self
    }

    /// `heard` is told what the server says beside messages.
    #[must_use]
    pub fn hearing(mut self, heard: Rc<Heard>) -> Self {
        self.ear = Some(Ear::new(heard));
        self
    }

    /// Writes held packets that may go.
    fn poll_held(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some((packet, length)) = self.held.front() {
            if self.going.is_none() {
                // A packet that minimq has begun goes first.
                if self.unfinished > 0 || !self.gate.as_ref().is_some_and(|gate| gate.take()) {
                    break;
                }
                self.going = Some(0);
            }
            let taken = self.going.unwrap_or(0);
            let rest = packet.get(taken..*length).unwrap_or_default();
            match ready!(Pin::new(&mut self.stream).poll_write(context, rest))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                count if count >= rest.len() => {
                    self.held.pop_front();
                    self.going = None;
                    self.unflushed = true;
                }
                count => self.going = Some(taken + count),
            }
        }
        // TLS keeps what was written until it is flushed. Nobody waits for that.
        if self.unflushed && Pin::new(&mut self.stream).poll_flush(context)?.is_ready() {
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_packet(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_held(context))?;
        let begins = self.unfinished == 0;
        if begins && self.gate.is_some() && matches!(bytes.first().map(|first| first >> 4), Some(PUBACK | PUBREC)) {
            if self.gate.as_ref().is_some_and(|gate| gate.is_shut.get()) {
                return Poll::Ready(Ok(bytes.len()));
            }
            let mut packet = [0; HELD_BYTES_MAX];
            let Some(room) = packet.get_mut(..bytes.len()) else {
                return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
            };
            room.copy_from_slice(bytes);
            return Poll::Ready(match self.held.push_back((packet, bytes.len())) {
                Ok(()) => Ok(bytes.len()),
                // The peer has sent more than its reader has looked at.
                Err(_) => Err(io::ErrorKind::InvalidData.into()),
            });
        }
        let asks_for_the_session = begins && self.resumes && bytes.first().map(|first| first >> 4) == Some(CONNECT);
        let count = if asks_for_the_session {
            // As minimq gives the rest again where not all was taken, the flags must be among what is taken at first.
            let resumed = without_clean_start(bytes);
            let count = ready!(Pin::new(&mut self.stream).poll_write(context, &resumed))?;
            if count > 0 && count <= flags_at(bytes) {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            count
        } else {
            ready!(Pin::new(&mut self.stream).poll_write(context, bytes))?
        };
        self.unfinished = bytes.len().saturating_sub(count);
        Poll::Ready(Ok(count))
    }

    async fn within<T>(&mut self, work: impl AsyncFnOnce(&mut Self) -> io::Result<T>) -> Result<T, LinkError> {
        let outcome = with_timeout(Duration::from_secs(WRITE_SECONDS), work(self)).await;
        outcome.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())).map_err(LinkError)
    }
}

/// Packet types, MQTT 5 §2.1.2.
const CONNECT: u8 = 1;
const PUBACK: u8 = 4;
const PUBREC: u8 = 5;
/// The flag of CONNECT, §3.1.2.4.
const CLEAN_START: u8 = 0b10;

/// Where the flags of a CONNECT are: behind the fixed header, the protocol's name and its version.
fn flags_at(connect: &[u8]) -> usize {
    let length_bytes = connect.iter().skip(1).take_while(|byte| **byte >= 0x80).count() + 1;
    1 + length_bytes + 6 + 1
}

fn without_clean_start(connect: &[u8]) -> Vec<u8> {
    let mut bytes = connect.to_vec();
    if let Some(flags) = bytes.get_mut(flags_at(connect)) {
        *flags &= !CLEAN_START;
    }
    bytes
}

impl ErrorType for Link<'_> {
    type Error = LinkError;
}

impl Read for Link<'_> {
    async fn read(&mut self, buffer: &mut [u8]) -> Result<usize, LinkError> {
        let outcome = poll_fn(|context| {
            if let Poll::Ready(Err(error)) = self.poll_held(context) {
                return Poll::Ready(Err(error));
            }
            Pin::new(&mut self.stream).poll_read(context, buffer)
        });
        let count = outcome.await.map_err(LinkError)?;
        if let Some(ear) = &mut self.ear {
            ear.hear(buffer.get(..count).unwrap_or_default());
        }
        Ok(count)
    }
}

impl Write for Link<'_> {
    async fn write(&mut self, bytes: &[u8]) -> Result<usize, LinkError> {
        self.within(async |link| poll_fn(|context| link.poll_packet(context, bytes)).await).await
    }

    async fn flush(&mut self) -> Result<(), LinkError> {
        self.within(async |link| poll_fn(|context| Pin::new(&mut link.stream).poll_flush(context)).await).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use smol::future::{self, FutureExt as _};
    use smol::io::AsyncReadExt as _;
    use std::os::unix::net::UnixStream;

    type Socket = async_io::Async<UnixStream>;

    fn pair() -> (Socket, Socket) {
        Socket::pair().unwrap()
    }

    /// What there is where nothing is to be read.
    async fn nothing<T>(otherwise: T) -> T {
        future::yield_now().await;
        otherwise
    }

    async fn received(peer: &mut Socket) -> Vec<u8> {
        let mut bytes = vec![0; 64];
        let count = peer.read(&mut bytes).or(nothing(Ok(0))).await.unwrap();
        bytes.truncate(count);
        bytes
    }

    #[test]
    fn acknowledgements_leave_in_order_and_only_as_the_gate_lets_them() {
        future::block_on(async {
            let (ours, mut peer) = pair();
            let gate = Rc::new(Gate::default());
            let mut link = Link::new(ours).holding(Rc::clone(&gate));
            for packet in [&[0x40, 2, 0, 1][..], &[0x50, 2, 0, 2], &[0xc0, 0]] {
                link.write_all(packet).await.unwrap();
            }
            assert_eq!(received(&mut peer).await, [0xc0, 0], "what acknowledges nothing goes");
            gate.let_one_go();
            let mut buffer = [0; 8];
            let _ = link.read(&mut buffer).or(nothing(Ok(0))).await;
            assert_eq!(received(&mut peer).await, [0x40, 2, 0, 1], "reading sends it");
            gate.let_one_go();
            link.write_all(&[0xc0, 0]).await.unwrap();
            assert_eq!(received(&mut peer).await, [0x50, 2, 0, 2, 0xc0, 0], "so does writing, before it");
        });
    }

    #[test]
    fn who_has_more_unacknowledged_than_can_be_held_ends_the_link() {
        future::block_on(async {
            let (ours, _peer) = pair();
            let mut link = Link::new(ours).holding(Rc::default());
            for identifier in 1..=64 {
                link.write_all(&[0x40, 2, 0, identifier]).await.unwrap();
            }
            assert_eq!(link.write_all(&[0x40, 2, 0, 65]).await.unwrap_err().0.kind(), io::ErrorKind::InvalidData);
        });
    }

    #[test]
    fn behind_a_shut_gate_acknowledgements_vanish_and_those_before_it_leave() {
        future::block_on(async {
            let (ours, mut peer) = pair();
            let gate = Rc::new(Gate::default());
            let mut link = Link::new(ours).holding(Rc::clone(&gate));
            link.write_all(&[0x40, 2, 0, 1]).await.unwrap();
            gate.shut();
            for identifier in 2..=200 {
                link.write_all(&[0x40, 2, 0, identifier]).await.unwrap();
            }
            gate.let_one_go();
            gate.let_one_go();
            link.write_all(&[0xc0, 0]).await.unwrap();
            assert_eq!(received(&mut peer).await, [0x40, 2, 0, 1, 0xc0, 0]);
        });
    }

    #[test]
    fn a_resuming_link_takes_the_clean_start_back() {
        future::block_on(async {
            let connect = [0x10, 14, 0, 4, b'M', b'Q', b'T', b'T', 5, 0b0000_0010, 0, 60, 0, 0, 1, b'c'];
            let (ours, mut peer) = pair();
            Link::new(ours).resuming().write_all(&connect).await.unwrap();
            let mut resumed = connect;
            resumed[9] = 0;
            assert_eq!(received(&mut peer).await, resumed);
            let long: Vec<u8> = [0x10, 0x90, 0x01].into_iter().chain(connect.into_iter().skip(2)).collect();
            assert_eq!(flags_at(&long), 10);
        });
    }

    #[test]
    fn a_peer_that_takes_nothing_ends_the_link() {
        let clock = crate::platform::SimulatedClock::start();
        let (ours, _peer) = pair();
        let executor = smol::LocalExecutor::new();
        let task = executor.spawn(async move {
            let mut link = Link::new(ours);
            let bytes = vec![0x30; 1 << 24];
            link.write_all(&bytes).await.unwrap_err().0.kind()
        });
        while !task.is_finished() {
            while executor.try_tick() {}
            if let Some(next) = clock.next_microseconds() {
                clock.set_microseconds(next);
            }
        }
        assert_eq!(future::block_on(task), io::ErrorKind::TimedOut);
        assert_eq!(clock.now_microseconds(), WRITE_SECONDS * 1_000_000);
    }
}
