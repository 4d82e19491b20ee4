//! Clients, sessions and retained messages, in pages.

use super::{Context, DOCUMENT_BYTES_MAX, ROW_BYTES_MAX, fault, not_connected, stopping, unix_at, written};
use crate::broker::{ClientView, FilterView, Page, RetainedView, SessionView, Shown};
use crate::codec::ProtocolVersion;
use crate::http::{Json, Request, Response, Status};
use crate::net::{SystemNetwork, Turn};
use crate::service::Facts;
use crate::time::Now;

/// Rows of a page where the request does not say how many.
const ROWS_DEFAULT: usize = 100;
/// Most rows of a page.
const ROWS_MAX: usize = 200;

type BrokerTurn = Turn<SystemNetwork>;

/// Connected clients.
pub(super) async fn clients(context: &Context, request: &Request) -> Response {
    let facts = context.facts.clone();
    page(context, request, "clients", move |turn, now, from, rows_max, written| {
        let page = turn.broker().clients_from(from, rows_max);
        let facts = facts.borrow();
        written.rows(page, |json, client| {
            json.begin_object();
            client_fields(json, &client, turn, now, &facts);
            json.end_object();
        })
    })
    .await
}

/// Sessions, with and without a client.
pub(super) async fn sessions(context: &Context, request: &Request) -> Response {
    page(context, request, "sessions", |turn, now, from, rows_max, written| {
        written.rows(turn.broker().sessions_from(now, from, rows_max), |json, session| session_row(json, &session))
    })
    .await
}

/// Retained messages.
pub(super) async fn retained(context: &Context, request: &Request) -> Response {
    page(context, request, "retained", |turn, now, from, rows_max, written| {
        written.rows(turn.broker().retained_from(now, from, rows_max), |json, retained| retained_row(json, &retained))
    })
    .await
}

/// One client, and what it has subscribed to.
pub(super) async fn client(context: &Context, id: &str) -> Response {
    let (id, facts) = (id.to_owned(), context.facts.clone());
    let document = context.inside.ask(move |turn, now| {
        let client = turn.broker().client_named(&id)?;
        let (filters, more) = turn.broker().filters_of(&id);
        let mut json = Json::new(DOCUMENT_BYTES_MAX);
        json.begin_object();
        client_fields(&mut json, &client, turn, now, &facts.borrow());
        json.name("filters");
        json.begin_array();
        let fits = filters.iter().take_while(|filter| {
            let fits = json.room() > ROW_BYTES_MAX;
            if fits {
                filter_row(&mut json, filter);
            }
            fits
        });
        let left_out = filters.len() - fits.count();
        json.end_array();
        json.field("filtersMore", u64::from(more) + left_out as u64);
        json.end_object();
        Some(json)
    });
    match document.await {
        Some(Some(json)) => written(json),
        Some(None) => not_connected(),
        None => stopping(),
    }
}

/// A page that is being written.
struct Written {
    json: Json,
    rows: usize,
}

impl Written {
    /// Writes rows as far as there is room. Returns the slot to go on from, and whether this page ends there.
    fn rows<T>(&mut self, page: Page<T>, mut write: impl FnMut(&mut Json, T)) -> (Option<u32>, bool) {
        for (slot, row) in page.rows {
            if self.json.room() < 2 * ROW_BYTES_MAX {
                return (Some(slot), true);
            }
            write(&mut self.json, row);
            self.rows += 1;
        }
        (page.next, page.next.is_none())
    }
}

/// One page of the array `name`. `piece` writes what the broker gives between two turns: from a slot on, so many rows at most.
async fn page(
    context: &Context,
    request: &Request,
    name: &str,
    piece: impl Fn(&mut BrokerTurn, Now, u32, usize, &mut Written) -> (Option<u32>, bool) + Clone + 'static,
) -> Response {
    let number = |name: &str| request.query(name).map(str::parse::<u32>).transpose();
    let (Ok(limit), Ok(after)) = (number("limit"), number("after")) else {
        return fault(Status::BadRequest, "limit and after are numbers");
    };
    let limit = limit.map_or(ROWS_DEFAULT, |limit| usize::try_from(limit).unwrap_or(ROWS_MAX)).clamp(1, ROWS_MAX);
    let (mut written, mut at) = (Written { json: Json::new(DOCUMENT_BYTES_MAX), rows: 0 }, after.unwrap_or(0));
    written.json.begin_object();
    written.json.name(name);
    written.json.begin_array();
    let next = loop {
        let piece = piece.clone();
        let asked = context.inside.ask(move |turn, now| {
            let (next, ends) = piece(turn, now, at, limit - written.rows, &mut written);
            (written, next, ends)
        });
        let Some((so_far, next, ends)) = asked.await else { return stopping() };
        written = so_far;
        match next {
            Some(slot) if !ends && written.rows < limit => at = slot,
            next => break next,
        }
    };
    written.json.end_array();
    written.json.field("next", next);
    written.json.end_object();
    super::written(written.json)
}

fn client_fields(json: &mut Json, client: &ClientView, turn: &BrokerTurn, now: Now, facts: &Facts) {
    json.field("clientId", client.client_identifier.as_str());
    json.field("username", client.identity.username.as_deref());
    json.field("method", client.identity.method.name());
    json.name("attributes");
    json.begin_object();
    client.identity.attributes.iter().for_each(|(name, value)| json.field(name, value));
    json.end_object();
    json.field("listener", facts.listener(client.port));
    let is_outside = usize::from(client.port) < facts.listeners.len();
    let address = turn.peer(client.connection).filter(|_| is_outside).map(|address| address.to_string());
    json.field("address", address.as_deref());
    json.field(
        "protocol",
        match client.version {
            ProtocolVersion::V5 => "MQTT 5",
            ProtocolVersion::V311 => "MQTT 3.1.1",
        },
    );
    json.field("keepAliveSeconds", client.keep_alive_seconds);
    json.field("connectedUnix", unix_at(now, client.connected));
    json.field("expiresUnix", client.expires.map(|expires| expires.0));
    json.field("queued", client.queued);
    json.field("inFlight", client.in_flight);
    json.field("subscriptions", client.subscriptions);
    json.field("category", &*client.category);
}

fn filter_row(json: &mut Json, filter: &FilterView) {
    json.begin_object();
    shown(json, "filter", &filter.filter);
    json.field("qos", u32::from(filter.qos.bits()));
    json.field("noLocal", filter.no_local);
    json.field("retainAsPublished", filter.retain_as_published);
    json.field("retainHandling", u32::from(filter.retain_handling));
    json.field("identifier", filter.identifier);
    json.end_object();
}

fn session_row(json: &mut Json, session: &SessionView) {
    json.begin_object();
    json.field("clientId", session.client_identifier.as_str());
    json.field("connected", session.connected);
    json.field("expiresInSeconds", session.expires_in_seconds);
    json.field("queued", session.queued);
    json.field("inFlight", session.in_flight);
    json.field("subscriptions", session.subscriptions);
    json.field("owner", session.owner.as_deref());
    json.end_object();
}

fn retained_row(json: &mut Json, retained: &RetainedView) {
    json.begin_object();
    shown(json, "topic", &retained.topic);
    json.field("qos", u32::from(retained.qos.bits()));
    json.field("payloadBytes", retained.payload_bytes);
    json.field("expiresInSeconds", retained.expires_in_seconds);
    json.end_object();
}

/// A topic or filter; `cut` stands behind it only where there is more of it.
fn shown(json: &mut Json, name: &str, shown: &Shown) {
    json.field(name, &*shown.text);
    if shown.cut {
        json.field("cut", true);
    }
}
