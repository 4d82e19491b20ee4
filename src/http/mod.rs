//! The server's side of HTTP/1.1 (RFC 9110, RFC 9112) as bytes in, bytes out: one request, one response, the end.
//!
//! In: the bytes of a connection, piece by piece. Out: a [`Request`] that cannot be wrong, or the [`Response`] that says why
//! there is none; and the bytes of a response. [`Json`] writes the documents that a response carries. A body that is longer than
//! the bounds here is for whoever answers: the request is given out with its head, and says how long its body is.
//!
//! **Invariants:** what is held of a request is bounded before it is read; nothing of a request is chosen by the order in which
//! fields stand: one that may stand once stands once, or the request is refused.
//!
//! Deliberately absent: connections that serve a second request, bodies of unknown length, compression, ranges, the absolute
//! form of a target. Whoever watches a gateway needs none of it, and each is a place where two readers can disagree.

mod json;
mod request;
mod response;
mod target;

pub use json::{Json, Value};
pub use request::{BODY_BYTES_MAX, BodyStream, HEAD_BYTES_MAX, Method, Request, RequestReader, Streamed};
pub use response::{Response, Status};
