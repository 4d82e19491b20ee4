//! Which page answers which request.
//!
//! A page is a function that takes a [`Context`] and what it needs of the [`Request`], and gives a [`Response`]; it is asynchronous
//! because it asks the loop. It is reached by one line in [`answer`].

use super::api::{self, Api};
use super::page;
use crate::http::{Method, Request, Response, Status};

/// What pages are made of.
pub struct Context {
    /// The documents below `/api/v1`.
    pub api: Api,
}

/// What a path that is there for reading takes.
const READ: &str = "GET, HEAD";

/// Answers a request that was admitted.
pub(super) async fn answer(context: &Context, request: &Request) -> Response {
    let segments: Vec<&str> = request.segments.iter().map(String::as_str).collect();
    match (request.method, segments.as_slice()) {
        (_, ["api", "v1", path @ ..]) => api::answer(&context.api, request, path).await,
        (Method::Get, []) => page::status_page(),
        (Method::Get, ["healthz" | "readyz"]) => Response::text(Status::Ok, "ok"),
        (Method::Post, [] | ["healthz" | "readyz" | "metrics"]) => Response::method_not_allowed(READ),
        (Method::Get | Method::Post, _) => Status::NotFound.into(),
    }
}
