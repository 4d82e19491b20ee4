//! An HTTP/1.1 response, read to its end and no further. RFC 9112.

use super::client::HttpsFault;
use smol::io::{AsyncRead, AsyncReadExt as _};

/// Most bytes of a body.
pub const BODY_BYTES_MAX: usize = 64 * 1024;
/// Most bytes of a status line with its fields.
const HEAD_BYTES_MAX: usize = 16 * 1024;
/// Most header fields.
const FIELDS_MAX: usize = 64;
/// Most informational responses before the final one.
const INFORMATIONAL_MAX: usize = 4;
/// Bytes read at a time.
const READ_BYTES: usize = 4 * 1024;

/// What a server answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Body, at most [`BODY_BYTES_MAX`] bytes.
    pub body: Vec<u8>,
}

/// A response, and whether the connection can be used again.
pub(super) struct Received {
    pub response: Response,
    pub reusable: bool,
}

/// How the end of a body is told. RFC 9112 §6.3.
enum Length {
    Bytes(usize),
    Chunked,
    UntilClose,
}

struct Head {
    status: u16,
    bytes: usize,
    length: Length,
    keeps_alive: bool,
}

/// Bytes of a stream that have been read and not used yet.
pub(super) struct Buffer<'a, S> {
    /// Where more comes from.
    pub stream: &'a mut S,
    bytes: Vec<u8>,
}

impl<'a, S> Buffer<'a, S> {
    /// Of a stream of which nothing has been read.
    pub const fn new(stream: &'a mut S) -> Self {
        Self { stream, bytes: Vec::new() }
    }
}

impl<S: AsyncRead + Unpin> Buffer<'_, S> {
    /// Reads some more; `false` at the end.
    async fn more(&mut self) -> Result<bool, HttpsFault> {
        let mut piece = [0; READ_BYTES];
        let bytes = self.stream.read(&mut piece).await.map_err(HttpsFault::Network)?;
        self.bytes.extend_from_slice(piece.get(..bytes).unwrap_or_default());
        Ok(bytes > 0)
    }

    async fn need(&mut self) -> Result<(), HttpsFault> {
        if self.more().await? { Ok(()) } else { Err(HttpsFault::EndedEarly) }
    }
}

/// Reads one response. `begun` is set once a byte of it has come.
pub(super) async fn read<S: AsyncRead + Unpin>(stream: &mut S, begun: &mut bool) -> Result<Received, HttpsFault> {
    read_final(&mut Buffer::new(stream), begun).await
}

/// Whether the other side wants to have the body; else its answer without.
pub(super) async fn read_permission<S: AsyncRead + Unpin>(
    buffer: &mut Buffer<'_, S>,
) -> Result<Option<Received>, HttpsFault> {
    receive(buffer, &mut false, true).await
}

/// Reads one final response.
pub(super) async fn read_final<S: AsyncRead + Unpin>(
    buffer: &mut Buffer<'_, S>,
    begun: &mut bool,
) -> Result<Received, HttpsFault> {
    receive(buffer, begun, false).await?.ok_or(HttpsFault::Malformed)
}

/// Reads a response; `None` for 100 where that is waited for.
async fn receive<S: AsyncRead + Unpin>(
    buffer: &mut Buffer<'_, S>,
    begun: &mut bool,
    takes_continue: bool,
) -> Result<Option<Received>, HttpsFault> {
    for _ in 0..=INFORMATIONAL_MAX {
        let head = loop {
            if let Some(head) = parse_head(&buffer.bytes)? {
                break head;
            }
            if buffer.bytes.len() > HEAD_BYTES_MAX {
                return Err(HttpsFault::TooLarge);
            }
            buffer.need().await?;
            *begun = true;
        };
        buffer.bytes.drain(..head.bytes);
        if takes_continue && head.status == 100 {
            return Ok(None);
        }
        if (100..200).contains(&head.status) {
            continue;
        }
        let has_body = !matches!(head.status, 204 | 304);
        let (body, delimited) = match head.length {
            _ if !has_body => (Vec::new(), true),
            Length::Bytes(bytes) => (read_sized(buffer, bytes).await?, true),
            Length::Chunked => (read_chunked(buffer).await?, true),
            Length::UntilClose => (read_all(buffer).await?, false),
        };
        // What stands behind the response was not asked for: nothing on this connection can be believed any more.
        let reusable = delimited && head.keeps_alive && buffer.bytes.is_empty();
        return Ok(Some(Received { response: Response { status: head.status, body }, reusable }));
    }
    Err(HttpsFault::Malformed)
}

fn parse_head(bytes: &[u8]) -> Result<Option<Head>, HttpsFault> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut response = httparse::Response::new(&mut fields);
    let bytes = match response.parse(bytes) {
        Ok(httparse::Status::Complete(bytes)) => bytes,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(HttpsFault::TooLarge),
        Err(_) => return Err(HttpsFault::Malformed),
    };
    let status = response.code.ok_or(HttpsFault::Malformed)?;
    let mut keeps_alive = response.version == Some(1);
    let mut length = None;
    let mut chunked = false;
    for field in response.headers.iter() {
        let value = core::str::from_utf8(field.value).map_err(|_| HttpsFault::Malformed)?.trim();
        if field.name.eq_ignore_ascii_case("Content-Length") {
            let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
            let bytes: usize = value.parse().ok().filter(|_| digits).ok_or(HttpsFault::Malformed)?;
            if length.replace(bytes).is_some_and(|other| other != bytes) {
                return Err(HttpsFault::Malformed);
            }
        } else if field.name.eq_ignore_ascii_case("Transfer-Encoding") {
            if chunked || !value.eq_ignore_ascii_case("chunked") {
                return Err(HttpsFault::Malformed);
            }
            chunked = true;
        } else if field.name.eq_ignore_ascii_case("Connection") {
            keeps_alive &= !value.split(',').any(|token| token.trim().eq_ignore_ascii_case("close"));
        }
    }
    let length = match (chunked, length) {
        (true, None) => Length::Chunked,
        // RFC 9112 §6.3: somebody smuggles.
        (true, Some(_)) => return Err(HttpsFault::Malformed),
        (false, Some(bytes)) if bytes > BODY_BYTES_MAX => return Err(HttpsFault::TooLarge),
        (false, Some(bytes)) => Length::Bytes(bytes),
        (false, None) => Length::UntilClose,
    };
    Ok(Some(Head { status, bytes, length, keeps_alive }))
}

async fn read_sized<S: AsyncRead + Unpin>(buffer: &mut Buffer<'_, S>, bytes: usize) -> Result<Vec<u8>, HttpsFault> {
    while buffer.bytes.len() < bytes {
        buffer.need().await?;
    }
    Ok(buffer.bytes.drain(..bytes).collect())
}

async fn read_all<S: AsyncRead + Unpin>(buffer: &mut Buffer<'_, S>) -> Result<Vec<u8>, HttpsFault> {
    while buffer.more().await? {
        if buffer.bytes.len() > BODY_BYTES_MAX {
            return Err(HttpsFault::TooLarge);
        }
    }
    Ok(core::mem::take(&mut buffer.bytes))
}

async fn read_chunked<S: AsyncRead + Unpin>(buffer: &mut Buffer<'_, S>) -> Result<Vec<u8>, HttpsFault> {
    let mut body = Vec::new();
    loop {
        let (start, chunk_bytes) = loop {
            match httparse::parse_chunk_size(&buffer.bytes) {
                Ok(httparse::Status::Complete(parsed)) => break parsed,
                Ok(httparse::Status::Partial) if buffer.bytes.len() <= HEAD_BYTES_MAX => buffer.need().await?,
                Ok(httparse::Status::Partial) | Err(_) => return Err(HttpsFault::Malformed),
            }
        };
        buffer.bytes.drain(..start);
        let chunk_bytes = usize::try_from(chunk_bytes).unwrap_or(usize::MAX);
        if chunk_bytes > BODY_BYTES_MAX - body.len() {
            return Err(HttpsFault::TooLarge);
        }
        if chunk_bytes == 0 {
            break;
        }
        let chunk = read_sized(buffer, chunk_bytes + 2).await?;
        let data = chunk.strip_suffix(b"\r\n").ok_or(HttpsFault::Malformed)?;
        body.extend_from_slice(data);
    }
    // Trailers, of which none is wanted, up to an empty line.
    loop {
        match buffer.bytes.windows(2).position(|pair| pair == b"\r\n") {
            Some(0) => {
                buffer.bytes.drain(..2);
                return Ok(body);
            }
            Some(end) => drop(buffer.bytes.drain(..end + 2)),
            None if buffer.bytes.len() > HEAD_BYTES_MAX => return Err(HttpsFault::TooLarge),
            None => buffer.need().await?,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn parse(bytes: &[u8]) -> Result<(u16, Vec<u8>, bool), HttpsFault> {
        let mut stream = bytes;
        smol::block_on(read(&mut stream, &mut false))
            .map(|received| (received.response.status, received.response.body, received.reusable))
    }

    #[test]
    fn each_way_to_tell_the_end_of_a_body_is_understood() {
        let sized = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
        assert_eq!(parse(sized).unwrap(), (200, b"{}".to_vec(), true));
        let chunked =
            b"HTTP/1.1 403 No\r\ntransfer-encoding: Chunked\r\n\r\n3;x=y\r\nabc\r\n1\r\nd\r\n0\r\nT: 1\r\n\r\n";
        assert_eq!(parse(chunked).unwrap(), (403, b"abcd".to_vec(), true));
        assert_eq!(parse(b"HTTP/1.1 200 OK\r\n\r\nrest").unwrap(), (200, b"rest".to_vec(), false));
        let old = b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(parse(old).unwrap(), (200, Vec::new(), false));
        let closing = b"HTTP/1.1 200 OK\r\nConnection: x, Close\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(parse(closing).unwrap(), (200, Vec::new(), false));
        let twice = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No\r\n\r\n";
        assert_eq!(parse(twice).unwrap(), (204, Vec::new(), true));
        let more = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nab";
        assert_eq!(parse(more).unwrap(), (200, b"a".to_vec(), false), "what nobody asked for");
    }

    #[test]
    fn what_is_too_much_cut_or_contradictory_is_refused() {
        for (bytes, expected) in [
            (&b"nonsense\r\n\r\n"[..], "Malformed"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "Malformed"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\nx", "Malformed"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", "Malformed"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "Malformed"),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", "Malformed"),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n", "Malformed"),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFF\r\n", "TooLarge"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 1048576\r\n\r\n", "TooLarge"),
            (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab", "EndedEarly"),
            (b"HTTP/1.1 200 OK\r\nContent-Le", "EndedEarly"),
            (b"", "EndedEarly"),
        ] {
            let fault = format!("{:?}", parse(bytes).unwrap_err());
            assert_eq!(fault, expected, "{}", String::from_utf8_lossy(bytes));
        }
        let endless = [&b"HTTP/1.1 200 OK\r\n\r\n"[..], &vec![b'x'; BODY_BYTES_MAX + 1]].concat();
        assert!(matches!(parse(&endless), Err(HttpsFault::TooLarge)));
        let fields = [&b"HTTP/1.1 200 OK\r\n"[..], &b"A: b\r\n".repeat(65), b"\r\n"].concat();
        assert!(matches!(parse(&fields), Err(HttpsFault::TooLarge)));
        let line = [&b"HTTP/1.1 200 OK\r\nA: "[..], &vec![b'x'; 2 * HEAD_BYTES_MAX]].concat();
        assert!(matches!(parse(&line), Err(HttpsFault::TooLarge)));
        assert!(matches!(parse(&b"HTTP/1.1 100 Continue\r\n\r\n".repeat(9)), Err(HttpsFault::Malformed)));
    }
}
