//! The few questions that the broker asks of servers outside: HTTPS requests, as tasks beside the broker's loop.
//!
//! In: an endpoint with its trust, a request. Out: status and body of the answer, or a fault that a log can show. Every
//! length and every wait is bounded. Deliberately absent: HTTP/2, redirects, proxies, compression, cookies.
//!
//! **Invariant:** nothing is sent before the server has proved its name with a certificate that the configuration trusts.

mod client;
mod resolve;
mod response;
mod upload;

pub use client::{HttpsFault, Request, Roots, Server, ServerSettings, Timing, root_store};
pub use resolve::{ResolveFault, Resolver};
pub use response::{BODY_BYTES_MAX, Response};
pub use upload::{Body, Duplex, send};
