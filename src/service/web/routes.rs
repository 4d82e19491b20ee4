//! Which page answers which request.
//!
//! A page is a function that takes a [`Context`] and what it needs of the [`Request`], and gives a [`Response`]; it is asynchronous
//! because it asks the loop. It is reached by one line in [`answer`].

use super::api;
use super::{metrics, page};
use crate::bridge::Statuses;
use crate::http::{Json, Method, Request, Response, Status};
use crate::net::Inside;
use crate::service::{FactsInForce, Health, History, SharedReport, Updates};
use core::cell::RefCell;
use std::rc::Rc;

/// What pages are made of.
pub struct Context {
    /// The way to the loop.
    pub inside: Inside,
    /// What is known of the configuration in force.
    pub facts: FactsInForce,
    /// The last hour.
    pub history: Rc<RefCell<History>>,
    /// What the probe has found.
    pub probe: SharedReport,
    /// The bridges.
    pub bridges: Statuses,
    /// The machine, and the way of updates to it.
    pub updates: Updates,
}

/// More than all checks take.
const CHECKS_BYTES_MAX: usize = 16 * 1024;

/// What a path that is there for reading takes.
const READ: &str = "GET, HEAD";

/// Answers a request that was admitted.
pub(super) async fn answer(context: &Context, request: &Request) -> Response {
    let segments: Vec<&str> = request.segments.iter().map(String::as_str).collect();
    match (request.method, segments.as_slice()) {
        (_, ["api", "v1", path @ ..]) => api::answer(context, request, path).await,
        (Method::Get, []) => page::status_page(),
        (Method::Get, ["metrics"]) => metrics::page(context).await,
        (Method::Get, ["healthz"]) => alive(context).await,
        (Method::Get, ["readyz"]) => ready(context).await,
        (Method::Post, [] | ["healthz" | "readyz" | "metrics"]) => Response::method_not_allowed(READ),
        (Method::Get | Method::Post, _) => Status::NotFound.into(),
    }
}

/// Whether the loop answers.
async fn alive(context: &Context) -> Response {
    match context.inside.ask(|_, _| ()).await {
        Some(()) => Response::text(Status::Ok, "ok"),
        None => Response::text(Status::ServiceUnavailable, "the broker stops"),
    }
}

/// Whether every check that decides is passed: 200 or 503, and the checks.
async fn ready(context: &Context) -> Response {
    let (facts, probe) = (context.facts.clone(), context.probe.clone());
    let looked = context.inside.ask(move |turn, now| Health::look(turn, now, &facts.borrow(), &probe.borrow())).await;
    let Some(health) = looked else { return Response::text(Status::ServiceUnavailable, "the broker stops") };
    let health = health.with_machine(context.updates.machine().as_ref());
    let mut json = Json::new(CHECKS_BYTES_MAX);
    json.begin_object();
    api::health_fields(&mut json, &health);
    json.end_object();
    let status = if health.is_ready() { Status::Ok } else { Status::ServiceUnavailable };
    json.finish().map_or_else(|| status.into(), |document| Response { status, ..Response::json(document) })
}
