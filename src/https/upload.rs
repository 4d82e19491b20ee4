//! A request with a long body: sent piece by piece, when the other side has said that it wants it.
//!
//! In: a stream that is there, a head, something to read the body from. Out: the answer. **Invariants:** one piece is in memory;
//! where nothing moves for the given time, it ends. RFC 9110 §10.1.1.

use super::client::{HttpsFault, Server, within};
use super::response::{self, Buffer, Response};
use smol::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use std::io;
use std::time::Duration;

/// Bytes that are sent at a time.
const PIECE_BYTES: usize = 64 * 1024;

/// A body.
pub struct Body<'a> {
    /// Where it comes from. It is read as a file is: nothing else goes on meanwhile.
    pub source: &'a mut dyn io::Read,
    /// Its length.
    pub bytes: u64,
    /// Told how many bytes have been sent, again and again.
    pub progress: &'a mut dyn FnMut(u64),
}

/// A stream, whatever carries it: the code above it is there once.
pub trait Duplex: AsyncRead + AsyncWrite + Unpin {}

impl<S: AsyncRead + AsyncWrite + Unpin> Duplex for S {}

impl Server {
    /// Posts a body on a connection of its own.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn upload(&self, target: &str, body: Body<'_>) -> Result<Response, HttpsFault> {
        let length = body.bytes.to_string();
        let fields = [
            ("Content-Type", "application/octet-stream"),
            ("Content-Length", length.as_str()),
            ("Expect", "100-continue"),
        ];
        let head = self.encode_head("POST", target, &fields);
        let mut stream = within(self.timing.connect, self.connect()).await.ok_or(HttpsFault::ConnectTimeout)??;
        send(&mut stream, head.as_bytes(), body, self.timing.answer).await
    }
}

/// Sends a head that says `Expect: 100-continue` where there is a body, then the body, and reads the answer. `patience` is how long
/// the other side may take for a piece, or for a word.
///
/// # Errors
/// Why there is no answer. That the body cannot be read is `Network` too.
pub async fn send(
    mut stream: &mut dyn Duplex,
    head: &[u8],
    body: Body<'_>,
    patience: Duration,
) -> Result<Response, HttpsFault> {
    let mut buffer = Buffer::new(&mut stream);
    let asking = async {
        buffer.stream.write_all(head).await.map_err(HttpsFault::Network)?;
        buffer.stream.flush().await.map_err(HttpsFault::Network)?;
        if body.bytes == 0 { Ok(None) } else { response::read_permission(&mut buffer).await }
    };
    if let Some(refused) = within(patience, asking).await.ok_or(HttpsFault::AnswerTimeout)?? {
        return Ok(refused.response);
    }
    let sent = send_body(buffer.stream, body, patience).await;
    // Who has heard enough says so, and hangs up: what was said counts more than that it cannot be spoken to.
    let answer = within(patience, response::read_final(&mut buffer, &mut false)).await;
    match (sent, answer) {
        (_, Some(Ok(received))) => Ok(received.response),
        (Err(fault), _) | (Ok(()), Some(Err(fault))) => Err(fault),
        (Ok(()), None) => Err(HttpsFault::AnswerTimeout),
    }
}

async fn send_body(stream: &mut dyn Duplex, body: Body<'_>, patience: Duration) -> Result<(), HttpsFault> {
    let mut piece = vec![0; PIECE_BYTES];
    let mut left = body.bytes;
    while left > 0 {
        let wanted = usize::try_from(left).unwrap_or(usize::MAX).min(PIECE_BYTES);
        let room = piece.get_mut(..wanted).unwrap_or_default();
        body.source.read_exact(room).map_err(HttpsFault::Network)?;
        let sending = stream.write_all(room);
        within(patience, sending).await.ok_or(HttpsFault::AnswerTimeout)?.map_err(HttpsFault::Network)?;
        left -= wanted as u64;
        (body.progress)(body.bytes - left);
    }
    let flushing = stream.flush();
    within(patience, flushing).await.ok_or(HttpsFault::AnswerTimeout)?.map_err(HttpsFault::Network)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use async_io::Async;
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixStream;

    const HEAD: &[u8] = b"POST / HTTP/1.1\r\n\r\n";

    /// Posts 300,000 bytes to somebody who says `first`, reads `bytes` of the body, and says `last`.
    fn posted(first: &'static [u8], bytes: usize, last: &'static [u8]) -> (Result<Response, HttpsFault>, u64) {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let server = std::thread::spawn(move || {
            let mut head = [0; HEAD.len()];
            theirs.read_exact(&mut head).unwrap();
            theirs.write_all(first).unwrap();
            let mut body = vec![0; bytes];
            theirs.read_exact(&mut body).unwrap();
            assert!(body.iter().all(|byte| *byte == 7));
            theirs.write_all(last).unwrap();
        });
        let mut sent = 0;
        let mut progress = |bytes| sent = bytes;
        let body = Body { source: &mut io::repeat(7), bytes: 300_000, progress: &mut progress };
        let mut stream = Async::new(ours).unwrap();
        let outcome = smol::block_on(send(&mut stream, HEAD, body, Duration::from_secs(60)));
        drop(stream);
        server.join().unwrap();
        (outcome, sent)
    }

    #[test]
    fn a_body_is_sent_when_it_is_wanted_and_not_else() {
        let (outcome, sent) =
            posted(b"HTTP/1.1 100 Continue\r\n\r\n", 300_000, b"HTTP/1.1 202 x\r\nContent-Length: 1\r\n\r\ny");
        assert_eq!((outcome.unwrap(), sent), (Response { status: 202, body: b"y".to_vec() }, 300_000));
        let (outcome, sent) = posted(b"HTTP/1.1 403 x\r\nContent-Length: 1\r\n\r\ny", 0, b"");
        assert_eq!((outcome.unwrap(), sent), (Response { status: 403, body: b"y".to_vec() }, 0));
    }

    #[test]
    fn what_was_said_counts_though_the_other_side_has_hung_up() {
        let (outcome, _) = posted(b"HTTP/1.1 100 x\r\n\r\n", 1_000, b"HTTP/1.1 400 x\r\nContent-Length: 1\r\n\r\ny");
        assert_eq!(outcome.unwrap(), Response { status: 400, body: b"y".to_vec() });
        let (outcome, _) = posted(b"HTTP/1.1 100 x\r\n\r\n", 1_000, b"");
        assert!(matches!(outcome, Err(HttpsFault::Network(_))));
    }
}
