//! A request: read piece by piece, judged once.

use super::target::{self, TARGET_BYTES_MAX, Target};
use super::{Response, Status};
use zeroize::Zeroizing;

/// Longest request line with its fields, bytes.
pub const HEAD_BYTES_MAX: usize = 8 * 1024;
/// Longest body, bytes.
pub const BODY_BYTES_MAX: usize = 4 * 1024;
/// Most header fields.
const FIELDS_MAX: usize = 64;
/// What may stand around the target in a request line: method, version, blanks, empty lines before.
const LINE_EXTRA_BYTES: usize = 64;
/// Methods that are known.
const ALLOW: &str = "GET, HEAD, POST";

/// `GET` and `HEAD` differ in whether the body is sent, and in nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// GET and HEAD.
    Get,
    /// POST.
    Post,
}

/// A request that may be answered.
#[derive(Clone)]
pub struct Request {
    /// What is to be done.
    pub method: Method,
    /// Whether only the head of the response is wanted.
    pub head_only: bool,
    /// Decoded segments of the path; none for `/`.
    pub segments: Vec<String>,
    /// Decoded names and values of the query, in order.
    pub query: Vec<(String, String)>,
    /// `Host`, which HTTP/1.0 need not send.
    pub host: Option<String>,
    /// `Origin`.
    pub origin: Option<String>,
    /// `Authorization`.
    pub authorization: Option<Zeroizing<String>>,
    /// Body of a POST, at most [`BODY_BYTES_MAX`] bytes; of one that is streamed, what came with the head.
    pub body: Vec<u8>,
    /// The body that whoever answers reads by himself; `None`: `body` is all of it.
    pub stream: Option<BodyStream>,
}

/// A body that is not gathered here: what is known of it before it comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyStream {
    /// Its length, bytes, as the head says it. Not bounded here.
    pub bytes: u64,
    /// Whether the other side waits for `100 Continue` before it sends. RFC 9110 §10.1.1.
    pub awaits_continue: bool,
}

/// Whether the body of a POST to this path, in decoded segments, is streamed.
pub type Streamed = fn(&[String]) -> bool;

impl core::fmt::Debug for Request {
    /// Never shows credentials.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Request")
            .field("method", &self.method)
            .field("segments", &self.segments)
            .field("query", &self.query)
            .field("host", &self.host)
            .finish_non_exhaustive()
    }
}

impl Request {
    /// The value that `name` has in the query; the first, where there are several.
    #[must_use]
    pub fn query(&self, name: &str) -> Option<&str> {
        self.query.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }
}

/// Gathers the bytes of one request. What comes behind it is not looked at: its connection has one request.
///
/// A request whose body is streamed is whole with its head, so that it is judged before its body is waited for.
#[derive(Debug, Default)]
pub struct RequestReader {
    bytes: Zeroizing<Vec<u8>>,
    /// `None`: no body is streamed.
    streamed: Option<Streamed>,
    /// The judged head and its length, while the body is still on its way.
    head: Option<(Request, usize, usize)>,
}

impl RequestReader {
    /// A reader that leaves the bodies of these requests to whoever answers them.
    #[must_use]
    pub fn streaming(streamed: Streamed) -> Self {
        Self { streamed: Some(streamed), ..Self::default() }
    }

    /// Takes the next bytes, at most [`BODY_BYTES_MAX`] at a time where bodies are streamed. `None`: there are more to come.
    ///
    /// # Errors
    /// The answer to something that is no request, or more than is read.
    pub fn push(&mut self, piece: &[u8]) -> Result<Option<Request>, Response> {
        let ends_a_line = self.bytes.is_empty() || piece.contains(&b'\n');
        // More than the bounds is never kept, whatever a caller reads at a time.
        let room = (HEAD_BYTES_MAX + BODY_BYTES_MAX + 1).saturating_sub(self.bytes.len());
        self.bytes.extend_from_slice(piece.get(..room).unwrap_or(piece));
        if self.head.is_none() {
            // Parsing again for every byte of a line would be work that a slow peer chooses.
            let head =
                if ends_a_line || self.bytes.len() > HEAD_BYTES_MAX { head(&self.bytes, self.streamed)? } else { None };
            if head.is_none() {
                self.check_length()?;
            }
            self.head = head;
        }
        let Some((request, start, length)) = &self.head else { return Ok(None) };
        let Some(body) = self.bytes.get(*start..start.saturating_add(*length)) else { return Ok(None) };
        // What came with the head of a streamed body is its beginning.
        let body = if request.stream.is_some() { self.bytes.get(*start..).unwrap_or(body) } else { body }.to_vec();
        Ok(self.head.take().map(|(request, _, _)| Request { body, ..request }))
    }

    /// Bounds of a head that has no end yet.
    fn check_length(&self) -> Result<(), Response> {
        let line = self.bytes.iter().skip_while(|byte| matches!(byte, b'\r' | b'\n')).position(|byte| *byte == b'\n');
        if line.unwrap_or(self.bytes.len()) > TARGET_BYTES_MAX + LINE_EXTRA_BYTES {
            return Err(Status::UriTooLong.into());
        }
        if self.bytes.len() > HEAD_BYTES_MAX {
            return Err(Status::HeaderFieldsTooLarge.into());
        }
        Ok(())
    }
}

/// The request without its body, the length of its head, and that of its body. `None`: the head has no end yet.
fn head(bytes: &[u8], streamed: Option<Streamed>) -> Result<Option<(Request, usize, usize)>, Response> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
    let mut parsed = httparse::Request::new(&mut fields);
    let length = match parsed.parse(bytes) {
        Ok(httparse::Status::Complete(length)) if length > HEAD_BYTES_MAX => {
            return Err(Status::HeaderFieldsTooLarge.into());
        }
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(Status::HeaderFieldsTooLarge.into()),
        Err(httparse::Error::Version) => return Err(Status::VersionNotSupported.into()),
        Err(_) => return Err(Status::BadRequest.into()),
    };
    let (method, head_only) = match parsed.method {
        Some("GET") => (Method::Get, false),
        Some("HEAD") => (Method::Get, true),
        Some("POST") => (Method::Post, false),
        Some(_) | None => return Err(Response::method_not_allowed(ALLOW)),
    };
    let Target { segments, query } = target::parse(parsed.path.unwrap_or_default())?;
    let fields = Fields(parsed.headers);
    let host = fields.once("Host")?;
    // RFC 9112 §3.2.
    if host.is_none() && parsed.version == Some(1) {
        return Err(Response::text(Status::BadRequest, "no Host"));
    }
    let is_streamed = method == Method::Post && streamed.is_some_and(|streamed| streamed(&segments));
    let (stream, body_bytes) =
        if is_streamed { (Some(body_stream(&fields)?), 0) } else { (None, body_bytes(&fields, method)?) };
    let origin = fields.once("Origin")?.map(str::to_owned);
    let authorization = fields.once("Authorization")?.map(|value| Zeroizing::new(value.to_owned()));
    let host = host.map(str::to_owned);
    let request = Request { method, head_only, segments, query, host, origin, authorization, body: Vec::new(), stream };
    Ok(Some((request, length, body_bytes)))
}

/// How long the body is. RFC 9112 §6.3, without the ways that are not needed.
fn body_bytes(fields: &Fields<'_>, method: Method) -> Result<usize, Response> {
    let given = fields.once("Content-Length")?;
    if fields.are_there("Transfer-Encoding") {
        // Both at once is how requests are smuggled.
        return Err(if given.is_some() { Status::BadRequest } else { Status::NotImplemented }.into());
    }
    let Some(given) = given else { return Ok(0) };
    if given.is_empty() || !given.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Status::BadRequest.into());
    }
    // Digits that are too many for a number are too many bytes.
    match given.parse().unwrap_or(usize::MAX) {
        0 => Ok(0),
        _ if method == Method::Get => Err(Response::text(Status::BadRequest, "GET has no body")),
        length if length > BODY_BYTES_MAX => Err(Status::ContentTooLarge.into()),
        length => Ok(length),
    }
}

/// What the head says of a body that is streamed: its length has to stand there, so that it is judged before anything is kept.
fn body_stream(fields: &Fields<'_>) -> Result<BodyStream, Response> {
    let given = fields.once("Content-Length")?;
    let length = match (given, fields.are_there("Transfer-Encoding")) {
        (Some(length), false) => length,
        (Some(_), true) => return Err(Status::BadRequest.into()),
        (None, _) => return Err(Status::LengthRequired.into()),
    };
    if length.is_empty() || !length.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Status::BadRequest.into());
    }
    let awaits_continue = match fields.once("Expect")? {
        None => false,
        Some(expectation) if expectation.eq_ignore_ascii_case("100-continue") => true,
        Some(_) => return Err(Status::ExpectationFailed.into()),
    };
    // Digits that are too many for a number are too many bytes.
    Ok(BodyStream { bytes: length.parse().unwrap_or(u64::MAX), awaits_continue })
}

/// Header fields.
struct Fields<'a>(&'a [httparse::Header<'a>]);

impl<'a> Fields<'a> {
    fn named(&self, name: &'static str) -> impl Iterator<Item = &httparse::Header<'a>> {
        self.0.iter().filter(move |field| field.name.eq_ignore_ascii_case(name))
    }

    fn are_there(&self, name: &'static str) -> bool {
        self.named(name).next().is_some()
    }

    /// The value of a field that may stand once only; whoever sends two lets their order choose.
    fn once(&self, name: &'static str) -> Result<Option<&'a str>, Response> {
        let mut values = self.named(name);
        let Some(field) = values.next() else { return Ok(None) };
        let text = core::str::from_utf8(field.value).ok().filter(|_| values.next().is_none());
        text.map(|text| Some(text.trim_matches([' ', '\t']))).ok_or_else(|| Status::BadRequest.into())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
