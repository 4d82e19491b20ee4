//! `/api/v1`: what the status page and the commands know of a running broker, as JSON.
//!
//! | path | document |
//! | --- | --- |
//! | `status` | the broker as a whole: [`status`] |
//! | `history` | the last hour, in steps of ten seconds |
//! | `clients`, `sessions`, `retained` | rows, in pages: `limit`, at most 200, and `after`, the `next` of the page before |
//! | `clients/ID`, `client?clientId=ID` | one client with its filters |
//! | `explain` | whether a client may do something: `clientId`, `username`, `action`, `topic` |
//! | POST `clients/ID/disconnect`, `client/disconnect?clientId=ID` | ends a client's connection |
//! | `update` | what runs on the machine, and how its last update went: [`machine`]; POST brings one ([`super::upload`]) |
//! | `log` | how much each room logs; with POST the body sets it |
//!
//! Times are whole seconds since 1970, what is absent is `null`, and an answer that is not 200 says why in `error`.
//!
//! **Invariants:** a document is written within the bound of a response; rows that do not fit are on the next page, which then
//! begins with them. Text of peers stands in it as they sent it: who shows it escapes it.

mod explanation;
mod machine;
mod rows;
mod status;

pub(super) use status::certificate_rows;

pub(super) use machine::update_document;
pub use status::health_fields;

use super::Context;
use crate::http::{Json, Method, Request, Response, Status};
use crate::platform::{self, Levels};
use crate::service::{History, history};
use crate::time::{Instant, Now};

/// Bytes of a document.
const DOCUMENT_BYTES_MAX: usize = super::serve::RESPONSE_BYTES_MAX;
/// Bytes of a row at most: a topic of which every character is escaped, and the rest.
const ROW_BYTES_MAX: usize = 8 * 1024;

/// Answers a request whose path begins with `/api/v1`; `path` is what stands behind that.
pub(super) async fn answer(context: &Context, request: &Request, path: &[&str]) -> Response {
    match (request.method, path) {
        (Method::Get, ["status"]) => status::document(context).await,
        (Method::Get, ["history"]) => written(history_document(&context.history.borrow())),
        (Method::Get, ["clients"]) => rows::clients(context, request).await,
        // For names that no path can have: `.` and `..`.
        (Method::Get, ["client"]) => match request.query("clientId") {
            Some(id) => rows::client(context, id).await,
            None => fault(Status::BadRequest, "clientId says which client"),
        },
        (Method::Post, ["client", "disconnect"]) => match request.query("clientId") {
            Some(id) => disconnect(context, id).await,
            None => fault(Status::BadRequest, "clientId says which client"),
        },
        (Method::Get, ["clients", id]) => rows::client(context, id).await,
        (Method::Get, ["sessions"]) => rows::sessions(context, request).await,
        (Method::Get, ["retained"]) => rows::retained(context, request).await,
        (Method::Get, ["explain"]) => explanation::document(context, request).await,
        (Method::Post, ["clients", id, "disconnect"]) => disconnect(context, id).await,
        (Method::Get, ["update"]) => update_document(context),
        (Method::Get, ["log"]) => log_document(platform::levels()),
        (Method::Post, ["log"]) => set_log(request),
        (Method::Get, ["clients", _, "disconnect"] | ["client", "disconnect"]) => Response::method_not_allowed("POST"),
        (
            Method::Post,
            ["status" | "history" | "client" | "clients" | "sessions" | "retained" | "explain"] | ["clients", _],
        ) => Response::method_not_allowed("GET, HEAD"),
        (Method::Get | Method::Post, _) => fault(Status::NotFound, "there is no such document"),
    }
}

/// The operator ends the connection of a client.
async fn disconnect(context: &Context, id: &str) -> Response {
    let name = id.to_owned();
    match context.inside.ask(move |turn, now| turn.broker().disconnect_client(now, &name)).await {
        Some(true) => {
            log::info!("client '{}' is disconnected by the operator", id.escape_debug());
            let mut json = Json::new(DOCUMENT_BYTES_MAX);
            json.begin_object();
            json.field("disconnected", true);
            json.end_object();
            written(json)
        }
        Some(false) => not_connected(),
        None => stopping(),
    }
}

/// The body says how much each room says from now on, as `--log` does.
fn set_log(request: &Request) -> Response {
    let levels = core::str::from_utf8(&request.body).map_err(|_| "no text".to_owned()).and_then(Levels::parse);
    match levels {
        Ok(levels) => {
            platform::set_levels(levels);
            // Whatever the level is now, that it was changed is to be found.
            log::error!("the log level is {levels}, by the operator");
            log_document(levels)
        }
        Err(why) => fault(Status::BadRequest, &why),
    }
}

/// How much each room says.
fn log_document(levels: Levels) -> Response {
    let mut json = Json::new(ROW_BYTES_MAX);
    json.begin_object();
    json.field("log", levels.to_string().as_str());
    json.end_object();
    written(json)
}

fn history_document(history: &History) -> Json {
    let mut json = Json::new(DOCUMENT_BYTES_MAX);
    json.begin_object();
    json.field("stepSeconds", history::STEP_SECONDS);
    json.field("endUnix", history.ends().0);
    json.name("series");
    json.begin_object();
    for (index, name) in history::SERIES.into_iter().enumerate() {
        json.name(name);
        json.begin_array();
        history.series(index).for_each(|value| json.value(value));
        json.end_array();
    }
    json.end_object();
    json.end_object();
    json
}

/// A finished document.
fn written(json: Json) -> Response {
    json.finish().map_or_else(|| fault(Status::InternalServerError, "the answer is too long"), Response::json)
}

/// An answer that says why there is no document.
pub(super) fn fault(status: Status, why: &str) -> Response {
    let mut json = Json::new(ROW_BYTES_MAX);
    json.begin_object();
    json.field("error", why);
    json.end_object();
    Response { status, ..Response::json(json.finish().unwrap_or_default()) }
}

fn stopping() -> Response {
    fault(Status::ServiceUnavailable, "the broker stops")
}

fn not_connected() -> Response {
    fault(Status::NotFound, "no such client is connected")
}

/// What the wall clock showed at `at`, or would have if it was set later.
fn unix_at(now: Now, at: Instant) -> u64 {
    now.unix.0.saturating_sub(now.instant.milliseconds_since(at) / 1_000)
}
