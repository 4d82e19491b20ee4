//! `/api/v1/explain`: what `portcullis explain --json` says, by the policies that are in force.
//!
//! A client that is connected is asked for as it is known: `clientId`. One that is not is described: `clientId`, `username`, and
//! `port` where several have rules; it has no attributes then, and the answer says that nothing was proved. Certificates are not
//! kept: which entry granted its attributes is for `portcullis explain` to say.

use super::{Context, DOCUMENT_BYTES_MAX, fault, stopping, written};
use crate::authorization::Wish;
use crate::broker::Explanation;
use crate::config::blob::Action;
use crate::http::{Json, Request, Response, Status};
use crate::identity::{AuthenticationMethod, Identity, Username};
use crate::limits::CLIENT_IDENTIFIER_BYTES_MAX;
use crate::service::Facts;

/// What was asked for.
#[derive(Clone)]
struct Question {
    client: String,
    username: Option<String>,
    /// `connect`, `publish` or `subscribe`; `None`: all that it may do.
    action: Option<&'static str>,
    topic: String,
    /// Index of the port.
    port: Option<u16>,
}

/// The document.
pub(super) async fn document(context: &Context, request: &Request) -> Response {
    let question = match question(request, &context.facts.borrow()) {
        Ok(question) => question,
        Err(why) => return fault(Status::BadRequest, &why),
    };
    let facts = context.facts.clone();
    let asked = context.inside.ask(move |turn, _| {
        let wish = match wish(&question) {
            Ok(wish) => wish,
            Err(why) => return Err((Status::BadRequest, why)),
        };
        let broker = turn.broker();
        let known = broker.client_named(&question.client).filter(|client| {
            let name = question.username.as_deref();
            name.is_none() || name == client.identity.username.as_deref()
        });
        let (explanation, assumed) = match known {
            Some(client) => (broker.explain(client.port, &client.identity, &question.client, wish), false),
            None => {
                let port = question.port.ok_or_else(|| {
                    (
                        Status::BadRequest,
                        "no such client is connected, and several ports could be meant: port".to_owned(),
                    )
                })?;
                let username = question.username.as_deref().map(Username::try_from).transpose();
                let username = username.map_err(|_| (Status::BadRequest, "the user name is too long".to_owned()))?;
                let identity = Identity { method: AuthenticationMethod::Custom, username, ..Identity::default() };
                (broker.explain(port, &identity, &question.client, wish), true)
            }
        };
        let mut json = Json::new(DOCUMENT_BYTES_MAX);
        write(&mut json, &question, &explanation, assumed, &facts.borrow());
        Ok(json)
    });
    match asked.await {
        Some(Ok(json)) => written(json),
        Some(Err((status, why))) => fault(status, &why),
        None => stopping(),
    }
}

fn question(request: &Request, facts: &Facts) -> Result<Question, String> {
    let client = request.query("clientId").ok_or("clientId says which client")?.to_owned();
    if client.len() > CLIENT_IDENTIFIER_BYTES_MAX {
        return Err(format!("the client id is longer than {CLIENT_IDENTIFIER_BYTES_MAX} bytes"));
    }
    let action = match request.query("action") {
        None => None,
        Some("connect") => Some("connect"),
        Some("publish") => Some("publish"),
        Some("subscribe") => Some("subscribe"),
        Some(_) => return Err("action is connect, publish or subscribe".to_owned()),
    };
    let topic = request.query("topic").unwrap_or_default().to_owned();
    let ports = || (0_u16..).zip(&facts.listeners);
    let port = match request.query("port") {
        Some(number) => Some(
            ports()
                .find(|(_, listener)| number == listener.port.to_string())
                .map(|(port, _)| port)
                .ok_or("there is no such port")?,
        ),
        None => {
            let mut ruled =
                ports().filter(|(_, listener)| listener.authorization.is_some() || facts.listeners.len() == 1);
            ruled.next().filter(|_| ruled.next().is_none()).map(|(port, _)| port)
        }
    };
    Ok(Question { client, username: request.query("username").map(str::to_owned), action, topic, port })
}

fn wish(question: &Question) -> Result<Option<Wish<'_>>, String> {
    match question.action {
        None => Ok(None),
        Some("publish") => Wish::publish(&question.topic).map(Some),
        Some("subscribe") => Wish::subscribe(&question.topic).map(Some),
        Some(_) => Ok(Some(Wish::Connect)),
    }
}

fn write(json: &mut Json, question: &Question, found: &Explanation, assumed: bool, facts: &Facts) {
    let listener = facts.listeners.get(usize::from(found.port));
    json.begin_object();
    json.field("decision", if found.is_allowed { "allowed" } else { "denied" });
    json.field("action", question.action);
    let names_topic = matches!(question.action, Some("publish" | "subscribe"));
    json.field("resource", names_topic.then_some(question.topic.as_str()));
    json.field("port", listener.map(|listener| listener.port));
    json.field("listener", facts.listener(found.port));
    json.field("authorization", found.policy.as_deref());
    identity(json, question, found, assumed);
    json.field("rule", found.rule.as_deref());
    let reason = match (&found.policy, found.is_allowed) {
        (None, _) => Some("the port has no authorizationRef: every client may do everything".to_owned()),
        (Some(_), true) => None,
        (Some(_), false) => Some(match question.action {
            Some(action @ ("publish" | "subscribe")) => {
                format!("no rule allows it to {action} to '{}'", question.topic.escape_debug())
            }
            Some(_) | None => "no rule allows it to connect".to_owned(),
        }),
    };
    json.field("reason", reason.as_deref());
    json.name("nearest");
    json.begin_array();
    for (rule, missing) in &found.nearest {
        json.begin_object();
        json.field("rule", rule.as_str());
        json.field("missing", missing.as_str());
        json.end_object();
    }
    json.end_array();
    if question.action.is_none() {
        grants(json, found);
    }
    json.end_object();
}

fn identity(json: &mut Json, question: &Question, found: &Explanation, assumed: bool) {
    let identity = &found.identity;
    json.name("identity");
    json.begin_object();
    let method = if assumed { "assumed: no credential was judged".to_owned() } else { identity.method.to_string() };
    json.field("method", method.as_str());
    json.field("assumed", assumed);
    json.field("username", identity.username.as_deref());
    json.field("clientId", question.client.as_str());
    json.name("attributes");
    json.begin_object();
    identity.attributes.iter().for_each(|(name, value)| json.field(name, value));
    json.end_object();
    json.field("attributesFrom", None::<&str>);
    json.name("certificates");
    json.begin_array();
    json.end_array();
    json.field("expires", identity.expires.map(|time| time.to_string()).as_deref());
    json.end_object();
}

/// What the client may do, as far as there is room.
fn grants(json: &mut Json, found: &Explanation) {
    json.name("grants");
    json.begin_array();
    for grant in &found.grants {
        let bytes = grant.pattern.len() + grant.resource.as_ref().unwrap_or_else(|missing| missing).len();
        // Six bytes for each that is escaped.
        if json.room() < 6 * (bytes + grant.rule.len()) + 1_024 {
            break;
        }
        json.begin_object();
        json.field(
            "method",
            match grant.action {
                Action::Connect => "Connect",
                Action::Publish => "Publish",
                Action::Subscribe => "Subscribe",
            },
        );
        json.field("pattern", grant.pattern.as_str());
        match &grant.resource {
            Ok(resource) => json.field("resource", resource.as_str()),
            Err(missing) => json.field("missing", missing.as_str()),
        }
        json.field("rule", grant.rule.as_str());
        json.end_object();
    }
    json.end_array();
}
