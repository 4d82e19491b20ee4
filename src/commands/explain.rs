//! `portcullis explain`: whether a client may do something, and why; or all that it may do.
//!
//! In: sources or a blob, a client, perhaps an action. Out: text, or one JSON object whose field names are kept.

use super::CommandError;
use super::judge::{Answer, Known, Port, read_configuration};
use crate::authorization::grants_to;
use crate::config::blob::Action;
use crate::config::diagnostic::Escaped;
use crate::config::policy_test::{TestAction, TestClient};
use crate::platform::SystemClock;
use crate::time::UnixTime;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;

/// What `explain` was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExplainOptions {
    /// Folders and files, or one blob.
    pub sources: Vec<PathBuf>,
    /// The port; `None`: the only one with a policy.
    pub port: Option<u16>,
    /// When credentials are judged; `None`: now.
    pub at: Option<UnixTime>,
    /// Who.
    pub client: TestClient,
    /// What; `None`: everything that it may do.
    pub action: Option<TestAction>,
    /// Whether the answer is JSON.
    pub json: bool,
}

/// The answer, as it is written in JSON.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Explanation<'a> {
    decision: &'static str,
    action: Option<&'static str>,
    resource: Option<&'a str>,
    port: u16,
    listener: &'a str,
    authorization: Option<&'a str>,
    identity: Option<Who>,
    rule: Option<String>,
    reason: Option<String>,
    nearest: Vec<Near>,
    #[serde(skip_serializing_if = "Option::is_none")]
    grants: Option<Vec<Granted>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Who {
    method: String,
    assumed: bool,
    username: Option<String>,
    client_id: String,
    attributes: BTreeMap<String, String>,
    attributes_from: Option<Source>,
    certificates: Vec<String>,
    expires: Option<String>,
}

#[derive(Debug, Serialize)]
struct Source {
    entry: String,
    subject: String,
}

#[derive(Debug, Serialize)]
struct Near {
    rule: String,
    missing: String,
}

#[derive(Debug, Serialize)]
struct Granted {
    method: &'static str,
    pattern: String,
    /// The pattern with its tokens replaced; absent where a token has no value.
    #[serde(skip_serializing_if = "Option::is_none")]
    resource: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    missing: Option<String>,
    rule: String,
}

/// Answers.
///
/// # Errors
/// [`CommandError::AnswerIsNo`] for a denial, which has been explained; a configuration or credential that cannot be read.
pub fn run(options: &ExplainOptions, output: &mut dyn Write, diagnostics: &mut dyn Write) -> Result<(), CommandError> {
    let configuration = read_configuration(&options.sources, diagnostics)?;
    let port = Port::choose(&configuration, options.port)?;
    port.revoke(&options.sources)?;
    let known = port.know(&options.client, options.at.unwrap_or_else(SystemClock::unix))?;
    let (known, answer) = match known {
        Ok(known) => {
            let answer = port.judge(&known, options.action.as_ref().unwrap_or(&TestAction::Connect));
            (Some(known), answer)
        }
        Err(refusal) => (None, Answer::refusal(format!("refused at authentication: {refusal}"))),
    };
    let explanation = explanation(options, &port, known.as_ref(), answer);
    if options.json {
        let text = serde_json::to_string_pretty(&explanation).map_err(io::Error::from)?;
        writeln!(output, "{text}")?;
    } else {
        show(&explanation, output)?;
    }
    if explanation.decision == "allowed" { Ok(()) } else { Err(CommandError::AnswerIsNo) }
}

fn explanation<'a>(
    options: &'a ExplainOptions,
    port: &'a Port<'_>,
    known: Option<&'a Known>,
    answer: Answer,
) -> Explanation<'a> {
    let (action, resource) = match &options.action {
        None => (None, None),
        Some(TestAction::Connect) => (Some("connect"), None),
        Some(TestAction::Publish(topic)) => (Some("publish"), Some(topic.as_str())),
        Some(TestAction::Subscribe(filter)) => (Some("subscribe"), Some(filter.as_str())),
    };
    let grants = known.filter(|_| options.action.is_none()).map(|known| granted(port, known));
    let near = |(rule, nearest): (String, crate::authorization::Nearest)| Near { rule, missing: nearest.missing };
    let (decision, rule, reason, nearest) = match answer {
        Answer::Allowed(Some(rule)) => ("allowed", Some(rule), None, Vec::new()),
        Answer::Allowed(None) => (
            "allowed",
            None,
            Some("the port has no authorizationRef: every client may do everything".to_owned()),
            Vec::new(),
        ),
        Answer::Denied { reason, nearest } => ("denied", None, Some(reason), nearest.into_iter().map(near).collect()),
    };
    Explanation {
        decision,
        action,
        resource,
        port: port.settings.port,
        listener: &port.settings.listener,
        authorization: port.policy.as_ref().map(|policy| policy.name()),
        identity: known.map(who),
        rule,
        reason,
        nearest,
        grants,
    }
}

fn who(known: &Known) -> Who {
    let identity = &known.identity;
    let subjects: Vec<String> =
        known.granting.iter().flat_map(|granting| &granting.path.subjects).map(ToString::to_string).collect();
    let subject = known.granting.as_ref().and_then(|granting| subjects.get(granting.entry?.0)).cloned();
    Who {
        method: if known.is_assumed {
            "assumed: no credential was judged".to_owned()
        } else {
            identity.method.to_string()
        },
        assumed: known.is_assumed,
        username: identity.username.as_deref().map(str::to_owned),
        client_id: known.identifier.clone(),
        attributes: identity.attributes.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect(),
        attributes_from: known.entry.clone().zip(subject).map(|(entry, subject)| Source { entry, subject }),
        certificates: subjects,
        expires: identity.expires.map(|time| time.to_string()),
    }
}

fn granted(port: &Port<'_>, known: &Known) -> Vec<Granted> {
    let Some(policy) = &port.policy else { return Vec::new() };
    let row = |(action, pattern, resource, rule): (_, &str, Result<String, String>, u32)| {
        let (resource, missing) = match resource {
            Ok(resource) => (Some(resource), None),
            Err(missing) => (None, Some(missing)),
        };
        let rule = policy.rule_source(rule).to_owned();
        Granted { method: name_of(action), pattern: pattern.to_owned(), resource, missing, rule }
    };
    grants_to(policy, &known.client()).into_iter().map(row).collect()
}

/// `method` of a rule.
pub(super) const fn name_of(action: Action) -> &'static str {
    match action {
        Action::Connect => "Connect",
        Action::Publish => "Publish",
        Action::Subscribe => "Subscribe",
    }
}

fn show(explanation: &Explanation<'_>, output: &mut dyn Write) -> io::Result<()> {
    match &explanation.reason {
        Some(reason) => writeln!(output, "{}: {reason}", explanation.decision)?,
        None => writeln!(output, "{}", explanation.decision)?,
    }
    write!(output, "  port {} of {}", explanation.port, Escaped(explanation.listener))?;
    match explanation.authorization {
        Some(policy) => writeln!(output, ", authorization {}", Escaped(policy))?,
        None => writeln!(output)?,
    }
    if let Some(who) = &explanation.identity {
        show_identity(who, output)?;
    }
    if let Some(rule) = &explanation.rule {
        writeln!(output, "  rule {rule}")?;
    }
    for near in &explanation.nearest {
        writeln!(output, "  nearest rule {}: {}", near.rule, near.missing)?;
    }
    if let Some(grants) = explanation.grants.as_ref().filter(|_| explanation.authorization.is_some()) {
        writeln!(output, "  what rules grant it{}", if grants.is_empty() { ": nothing" } else { "" })?;
        for grant in grants {
            let (method, rule) = (grant.method, Escaped(&grant.rule));
            match (&grant.resource, &grant.missing) {
                (Some(resource), _) => {
                    // Escaped text knows no width.
                    let resource = resource.escape_debug().to_string();
                    writeln!(output, "    {method:<9} {resource:<40} {rule}")?;
                }
                (None, missing) => {
                    let why = missing.as_deref().unwrap_or_default();
                    writeln!(output, "    {method:<9} nothing by '{}', {why} {rule}", grant.pattern.escape_debug())?;
                }
            }
        }
    }
    Ok(())
}

fn show_identity(who: &Who, output: &mut dyn Write) -> io::Result<()> {
    let username = who.username.as_ref().map_or("none".to_owned(), |name| format!("'{}'", name.escape_debug()));
    let client_id = match who.client_id.as_str() {
        "" => "none (the broker would assign one; here it is empty)".to_owned(),
        given => format!("'{}'", given.escape_debug()),
    };
    writeln!(output, "  user name {username}, client id {client_id}, {}", who.method)?;
    for (index, subject) in who.certificates.iter().enumerate() {
        writeln!(output, "  {} {}", if index == 0 { "certificate" } else { "  issued by" }, Escaped(subject))?;
    }
    let pairs = who.attributes.iter();
    let pairs: Vec<String> =
        pairs.map(|(name, value)| format!("{}='{}'", name.escape_debug(), value.escape_debug())).collect();
    write!(output, "  attributes {}", if pairs.is_empty() { "none".to_owned() } else { pairs.join(", ") })?;
    match &who.attributes_from {
        Some(source) => {
            writeln!(output, ", by entry '{}' for {}", source.entry.escape_debug(), Escaped(&source.subject))?;
        }
        None if !who.certificates.is_empty() => writeln!(output, ": no certificate of the chain has an entry")?,
        None => writeln!(output)?,
    }
    match &who.expires {
        Some(time) => writeln!(output, "  credential ends at {time}"),
        None => Ok(()),
    }
}
