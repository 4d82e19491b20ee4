//! A socket whose sending side is closed when the stream is: the other side sees the end of the response at once.
//!
//! [`Async`] only flushes. Whoever reads to the end would wait for as long as the server lingers, and hold a seat meanwhile.

use async_io::Async;
use core::pin::Pin;
use core::task::{Context, Poll};
use smol::io::{AsyncRead, AsyncWrite};
use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;

/// A socket with two sides.
pub(super) trait TwoSided {
    /// Closes the sending side.
    ///
    /// # Errors
    /// Of the system: the other side may have gone.
    fn end_sending(&self) -> io::Result<()>;
}

impl TwoSided for TcpStream {
    fn end_sending(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

impl TwoSided for UnixStream {
    fn end_sending(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

/// The socket.
pub(super) struct Socket<T>(pub Async<T>);

impl<T> AsyncRead for Socket<T>
where
    Async<T>: AsyncRead + Unpin,
{
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl<T: TwoSided> AsyncWrite for Socket<T>
where
    Async<T>: AsyncWrite + Unpin,
{
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Nothing is kept here that could be flushed.
        Poll::Ready(self.0.get_ref().end_sending())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use smol::io::AsyncWriteExt as _;
    use std::io::{Read as _, Write as _};

    #[test]
    fn the_other_side_sees_the_end_and_can_still_say_something() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut socket = Socket(Async::new(ours).unwrap());
        smol::block_on(async {
            socket.write_all(b"all").await.unwrap();
            socket.close().await.unwrap();
        });
        let mut heard = String::new();
        theirs.read_to_string(&mut heard).unwrap();
        assert_eq!(heard, "all");
        theirs.write_all(b"more").unwrap();
    }
}
