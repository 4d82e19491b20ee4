//! Policy tests: what a site expects of its policy, for `portcullis test`.
//!
//! In: one YAML or JSON file. Out: the configuration that it is about and its questions in the order of the file, each with
//! its place, or every mistake. A file `*.test.yaml` may lie among manifests: it is never taken for one.
//!
//! ```yaml
//! configuration: .             # a path relative to this file, or a list of them; or --config
//! port: 8883                   # where several ports have an authorizationRef
//! tests:
//!   - name: the thermostat publishes its temperature
//!     client: {certificate: thermostat.crt}
//!     action: publish
//!     resource: telemetry/temperature
//!     expect: allowed
//!   - client: {username: heater, clientId: heater, attributes: {manufacturer: fabrikam}}
//!     allowed: [connect, subscribe telemetry/temperature]
//!     denied: [subscribe telemetry/#]
//! ```

use super::diagnostic::{Diagnostics, Place, Report, quoted};
use super::source::files::read_bounded;
use super::source::walk::{Fields, choice, full_text, integer, sequence, text, text_map, texts};
use super::source::{Node, Syntax, Value, parse};
use crate::time::UnixTime;
use std::path::{Path, PathBuf};

/// A file of policy tests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyTests {
    /// Folders and files of the configuration, or one blob. Empty where the file does not say.
    pub configuration: Vec<PathBuf>,
    /// The port; `None`: the only one with a policy.
    pub port: Option<u16>,
    /// When credentials are judged; `None`: now.
    pub at: Option<UnixTime>,
    /// What is asked.
    pub questions: Vec<PolicyQuestion>,
}

/// Who may do what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyQuestion {
    /// Where it stands.
    pub place: Place,
    /// What it is called; `None`: after the client.
    pub name: Option<String>,
    /// Who.
    pub client: TestClient,
    /// What.
    pub action: TestAction,
    /// Whether it is to be allowed.
    pub expects_allowed: bool,
}

/// A client of a test.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TestClient {
    /// File of its certificates, PEM, its own first.
    pub certificate: Option<PathBuf>,
    /// File of its service-account token.
    pub token: Option<PathBuf>,
    /// User name.
    pub username: Option<String>,
    /// Client identifier.
    pub client_identifier: Option<String>,
    /// Attributes, for a client without certificate and token.
    pub attributes: Vec<(String, String)>,
}

/// An action with its resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TestAction {
    /// CONNECT.
    Connect,
    /// PUBLISH to a topic.
    Publish(String),
    /// SUBSCRIBE to a filter, `$share/<group>/` included.
    Subscribe(String),
}

impl TestAction {
    /// Reads an action and what it is about. Actions are written like `publish` or `Publish`.
    ///
    /// # Errors
    /// What is wrong.
    pub fn parse(action: &str, resource: Option<&str>) -> Result<Self, String> {
        match (action, resource) {
            ("connect" | "Connect", None) => Ok(Self::Connect),
            ("connect" | "Connect", Some(_)) => Err("connect takes no resource: name the client id instead".to_owned()),
            ("publish" | "Publish", Some(topic)) => Ok(Self::Publish(topic.to_owned())),
            ("subscribe" | "Subscribe", Some(filter)) => Ok(Self::Subscribe(filter.to_owned())),
            ("publish" | "Publish", None) => Err("publish needs a topic".to_owned()),
            ("subscribe" | "Subscribe", None) => Err("subscribe needs a topic filter".to_owned()),
            _ => Err(format!("{} is none of connect, publish and subscribe", quoted(action))),
        }
    }
}

/// Reads a file of policy tests. Paths in it start at its folder.
///
/// # Errors
/// Every mistake, with its place.
pub fn load_policy_tests(path: &Path) -> Result<PolicyTests, Diagnostics> {
    let mut report = Report::new();
    let shown = path.to_string_lossy().into_owned();
    let start = Place::start_of(&shown);
    let contents = match read_bounded(path) {
        Ok(Some(contents)) => contents,
        Ok(None) => {
            report.error(&start, "the file is too large");
            return Err(report.finish());
        }
        Err(error) => {
            report.error(&start, format!("cannot be read: {error}"));
            return Err(report.finish());
        }
    };
    let is_json = path.extension().is_some_and(|extension| extension == "json");
    let syntax = if is_json { Syntax::Json } else { Syntax::Yaml };
    let documents = parse(&shown, &contents, syntax, &mut report);
    let folder = path.parent().unwrap_or(Path::new(""));
    let tests = match documents.as_slice() {
        [document] => file(document, folder, &mut report),
        [] if report.has_errors() => None,
        _ => {
            report.error(&start, "a file of policy tests has one document");
            None
        }
    };
    match tests {
        Some(tests) if !report.has_errors() => Ok(tests),
        Some(_) | None => Err(report.finish()),
    }
}

fn file(node: &Node, folder: &Path, report: &mut Report) -> Option<PolicyTests> {
    let mut fields = Fields::of(node, "the policy tests", report)?;
    let configuration = match fields.optional("configuration") {
        None => Vec::new(),
        Some(node) if matches!(node.value, Value::Sequence(_)) => {
            let paths = texts(node, "configuration", report).unwrap_or_default();
            paths.into_iter().map(|(path, _)| below(folder, path)).collect()
        }
        Some(node) => full_text(node, "configuration", report).map(|path| below(folder, path)).into_iter().collect(),
    };
    let port = fields.optional("port").and_then(|node| integer(node, "port", 1..=65_535, report));
    let at = fields.optional("at").and_then(|node| time(node, report));
    let mut questions = Vec::new();
    if let Some(list) = fields.required("tests", report).and_then(|node| sequence(node, "tests", report)) {
        for element in list {
            test(element, folder, &mut questions, report);
        }
        if list.is_empty() {
            report.error(fields.place(), "there are no tests");
        }
    }
    fields.finish(report);
    Some(PolicyTests { configuration, port: port.and_then(|port| u16::try_from(port).ok()), at, questions })
}

/// A path relative to a folder, without the `.` that would stand in every message.
fn below(folder: &Path, path: &str) -> PathBuf {
    folder.join(path).components().collect()
}

fn time(node: &Node, report: &mut Report) -> Option<UnixTime> {
    let given = text(node, "at", report)?;
    let time = UnixTime::from_rfc_3339(given);
    if time.is_none() {
        report.error(&node.place, format!("{} is no time like 2026-12-31T08:00:00Z", quoted(given)));
    }
    time
}

/// One element of `tests`: one question, or the lists `allowed` and `denied`.
fn test(node: &Node, folder: &Path, questions: &mut Vec<PolicyQuestion>, report: &mut Report) {
    let Some(mut fields) = Fields::of(node, "tests[]", report) else { return };
    let name = fields.optional("name").and_then(|node| text(node, "name", report)).map(str::to_owned);
    let client = fields.required("client", report).and_then(|node| client(node, folder, report)).unwrap_or_default();
    let question = |place: &Place, action, expects_allowed| PolicyQuestion {
        place: place.clone(),
        name: name.clone(),
        client: client.clone(),
        action,
        expects_allowed,
    };
    let before = questions.len();
    let mut lists = false;
    for (field, expects_allowed) in [("allowed", true), ("denied", false)] {
        let Some(list) = fields.optional(field) else { continue };
        lists = true;
        for (written, node) in texts(list, field, report).unwrap_or_default() {
            let (action, resource) = match written.split_once(' ') {
                Some((action, resource)) => (action, Some(resource.trim_start())),
                None => (written, None),
            };
            match TestAction::parse(action, resource) {
                Ok(action) => questions.push(question(&node.place, action, expects_allowed)),
                Err(fault) => report.error(&node.place, fault),
            }
        }
    }
    let asks = fields.optional("action");
    let resource = fields.optional("resource").and_then(|node| text(node, "resource", report));
    let expects = fields.optional("expect");
    match (asks, expects) {
        (Some(asks), Some(expects)) => {
            let expected = choice(expects, "expect", &[("Allowed", true), ("Denied", false)], report);
            let action = text(asks, "action", report).map(|action| TestAction::parse(action, resource));
            match (action, expected) {
                (Some(Ok(action)), Some(expected)) => questions.push(question(&node.place, action, expected)),
                (Some(Err(fault)), _) => report.error(&asks.place, fault),
                (Some(Ok(_)) | None, _) => {}
            }
        }
        (None, None) if lists && resource.is_none() => {
            if questions.len() == before && !report.has_errors() {
                report.error(&node.place, "the test asks nothing: its lists are empty");
            }
        }
        (_, _) => {
            let wanted = "a test has action, expect and, but for connect, resource; or the lists allowed and denied";
            report.error(&node.place, wanted);
        }
    }
    fields.finish(report);
}

fn client(node: &Node, folder: &Path, report: &mut Report) -> Option<TestClient> {
    let mut fields = Fields::of(node, "client", report)?;
    let mut full = |name: &'static str, report: &mut Report| {
        fields.optional(name).and_then(|node| full_text(node, name, report)).map(str::to_owned)
    };
    let (certificate, token) = (full("certificate", report), full("token", report));
    let (username, client_identifier) = (full("username", report), full("clientId", report));
    let attributes = fields.optional("attributes").and_then(|node| text_map(node, "attributes", report));
    let attributes = attributes.unwrap_or_default().into_iter();
    let attributes: Vec<_> = attributes.map(|(name, value, _)| (name.text.clone(), value.to_owned())).collect();
    if certificate.is_some() && token.is_some() {
        report.error(&node.place, "a client has a certificate or a token, not both");
    } else if (certificate.is_some() || token.is_some()) && !attributes.is_empty() {
        report.error(&node.place, "the attributes of a client with a certificate or token come from the configuration");
    } else if certificate.is_none()
        && token.is_none()
        && username.is_none()
        && client_identifier.is_none()
        && attributes.is_empty()
    {
        report.error(&node.place, "the client is nobody: give certificate, token, username, clientId or attributes");
    }
    fields.finish(report);
    let path = |name: Option<String>| name.map(|name| folder.join(name));
    Some(TestClient { certificate: path(certificate), token: path(token), username, client_identifier, attributes })
}
