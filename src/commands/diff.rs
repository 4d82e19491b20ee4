//! `portcullis diff`: who gains and who loses what between two configurations.
//!
//! What is compared are grants: principal, action, pattern. A grant is lost where nothing of the new policy covers it, for
//! the same principal or for one that it implies (fewer attributes); `a/#` in place of `a/b` is only a gain. Principals are
//! compared as they are written: that a user has an attribute is not known here.

mod bridges;

use super::CommandError;
use super::explain::name_of;
use super::inspect::network;
use super::judge::{policy, read_configuration};
use crate::authorization::{Grant, Policy, Principal, covers, grants};
use crate::config::blob::{Action, Configuration, HttpsServer, ListenerPort, Method, Network, ServiceAccountTokens};
use crate::config::diagnostic::Escaped;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::path::PathBuf;

/// What `diff` was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DiffOptions {
    /// Folder, file or blob.
    pub old: PathBuf,
    /// Folder, file or blob.
    pub new: PathBuf,
    /// Whether the answer is JSON.
    pub json: bool,
}

/// One difference.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Difference {
    /// `gained`, `lost`, `added`, `removed`, `changed`.
    change: &'static str,
    /// `grant`, `port`, `policy`, `authorization`, `authentication`, `network`.
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    principal: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pattern: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rule: Option<String>,
    /// One line for people, escaped.
    text: String,
}

#[derive(Serialize)]
struct Document<'a> {
    different: bool,
    differences: &'a [Difference],
}

/// Compares.
///
/// # Errors
/// [`CommandError::AnswerIsNo`] when there is a difference; a configuration that cannot be read.
pub fn run(options: &DiffOptions, output: &mut dyn Write, diagnostics: &mut dyn Write) -> Result<(), CommandError> {
    let old = read_configuration(std::slice::from_ref(&options.old), diagnostics)?;
    let new = read_configuration(std::slice::from_ref(&options.new), diagnostics)?;
    let mut found = Vec::new();
    compare_names(&old, &new, &mut found);
    let (before, after) = (ports(&old), ports(&new));
    for (number, port) in &after {
        if !before.contains_key(number) {
            found.push(of_port("added", "port", *number, format!("port {number}: {}", described(&new, port))));
        }
    }
    for (number, port) in &before {
        match after.get(number) {
            None => {
                found.push(of_port("removed", "port", *number, format!("port {number}: {}", described(&old, port))))
            }
            Some(later) => {
                compare_authentication((&old, port), (&new, later), &mut found);
                compare_policies((&old, port), (&new, later), &mut found)?;
            }
        }
    }
    bridges::compare(&old, &new, &mut found);
    compare_networks(old.network.as_ref(), new.network.as_ref(), &mut found);
    show(options.json, &found, output)?;
    if found.is_empty() { Ok(()) } else { Err(CommandError::AnswerIsNo) }
}

fn show(json: bool, found: &[Difference], output: &mut dyn Write) -> io::Result<()> {
    if json {
        let document = Document { different: !found.is_empty(), differences: found };
        return writeln!(output, "{}", serde_json::to_string_pretty(&document)?);
    }
    for difference in found {
        let sign = match difference.change {
            "gained" | "added" => '+',
            "lost" | "removed" => '-',
            _ => '~',
        };
        writeln!(output, "{sign} {}", difference.text)?;
    }
    if found.is_empty() {
        writeln!(output, "no difference")?;
    }
    Ok(())
}

/// Network settings, which are of the gateway and of no port.
fn compare_networks(old: Option<&Network>, new: Option<&Network>, found: &mut Vec<Difference>) {
    if old != new {
        let shown = |settings: Option<&Network>| settings.map_or_else(|| "not set".to_owned(), network);
        let text = format!("network: {} is now {}, from the gateway's next start on", shown(old), shown(new));
        found.push(of_gateway("network", text));
    }
}

fn of_gateway(kind: &'static str, text: String) -> Difference {
    Difference { change: "changed", kind, port: None, principal: None, method: None, pattern: None, rule: None, text }
}

fn of_port(change: &'static str, kind: &'static str, port: u16, text: String) -> Difference {
    Difference { change, kind, port: Some(port), principal: None, method: None, pattern: None, rule: None, text }
}

fn ports(configuration: &Configuration) -> BTreeMap<u16, &ListenerPort> {
    configuration.ports.iter().map(|port| (port.port, port)).collect()
}

fn policy_name<'a>(configuration: &'a Configuration, port: &ListenerPort) -> Option<&'a str> {
    Some(configuration.authorizations.get(usize::from(port.authorization?))?.name.as_str())
}

fn described(configuration: &Configuration, port: &ListenerPort) -> String {
    let policy = policy_name(configuration, port);
    let policy = policy.map_or("no authorization".to_owned(), |name| format!("authorization {}", Escaped(name)));
    format!("authentication {}, {policy}", methods(configuration, port))
}

fn compare_names(old: &Configuration, new: &Configuration, found: &mut Vec<Difference>) {
    let names = |configuration: &Configuration| -> BTreeSet<String> {
        configuration.authorizations.iter().map(|policy| policy.name.clone()).collect()
    };
    let (before, after) = (names(old), names(new));
    let changes = [("added", after.difference(&before)), ("removed", before.difference(&after))];
    for (change, name) in changes.into_iter().flat_map(|(change, names)| names.map(move |name| (change, name))) {
        let text = format!("authorization {}", Escaped(name));
        let port = None;
        found.push(Difference { port, ..of_port(change, "policy", 0, text) });
    }
}

type Side<'a> = (&'a Configuration, &'a ListenerPort);

/// `authenticationMethods` of a port, in order.
fn methods(configuration: &Configuration, port: &ListenerPort) -> String {
    let resource = port.authentication.and_then(|index| configuration.authentications.get(usize::from(index)));
    let Some(resource) = resource else { return "none".to_owned() };
    let name = |method: &Method| match method {
        Method::X509 { .. } => "X509",
        Method::ServiceAccountToken { .. } => "ServiceAccountToken",
        Method::Custom { .. } => "Custom",
        Method::UsernamePassword { .. } => "UsernamePassword",
    };
    resource.methods.iter().map(name).collect::<Vec<_>>().join(", ")
}

/// The methods, or else their settings: authorities by their certificates, since an index says nothing across two blobs.
fn compare_authentication((old, before): Side<'_>, (new, after): Side<'_>, found: &mut Vec<Difference>) {
    let (number, earlier, later) = (before.port, methods(old, before), methods(new, after));
    if earlier != later {
        let text = format!("port {number}: authentication {earlier} is now {later}");
        found.push(of_port("changed", "authentication", number, text));
    } else if settings(old, before) != settings(new, after) {
        let text =
            format!("port {number}: settings of the authentication {later} (authorities, attributes or servers)");
        found.push(of_port("changed", "authentication", number, text));
    }
}

/// A method; certificates and names of what it refers to by index; and who judges tokens, where it takes any.
type Settings = (Method, Vec<Vec<u8>>, Option<ServiceAccountTokens>);

/// What decides about the clients of a port, comparable across configurations.
fn settings(configuration: &Configuration, port: &ListenerPort) -> Vec<Settings> {
    let resource = port.authentication.and_then(|index| configuration.authentications.get(usize::from(index)));
    let bundle = |index: u16| {
        let bundle = configuration.trust_bundles.get(usize::from(index));
        bundle.map(|bundle| bundle.certificates.clone()).unwrap_or_default()
    };
    // Takes the indices out of a server's settings, for what they stand for.
    let resolve = |server: &mut HttpsServer| {
        let mut meant = server.trust_bundle.take().map(bundle).unwrap_or_default();
        let secret = server.client_secret.take().and_then(|index| configuration.secrets.get(usize::from(index)));
        meant.extend(secret.map(|secret| secret.name.clone().into_bytes()));
        meant
    };
    let comparable = |method: &Method| match method.clone() {
        Method::X509 { trust_bundle, attributes } => {
            (Method::X509 { trust_bundle: 0, attributes }, bundle(trust_bundle), None)
        }
        Method::Custom { mut server } => {
            let meant = resolve(&mut server);
            (Method::Custom { server }, meant, None)
        }
        Method::ServiceAccountToken { audiences } => {
            let mut tokens = configuration.gateway.service_account_tokens.clone();
            let meant = match &mut tokens {
                Some(ServiceAccountTokens::TokenReview { server, .. }) => resolve(server),
                Some(ServiceAccountTokens::Offline { .. }) | None => Vec::new(),
            };
            (Method::ServiceAccountToken { audiences }, meant, tokens)
        }
        Method::UsernamePassword { secret } => (Method::UsernamePassword { secret }, Vec::new(), None),
    };
    resource.map(|resource| resource.methods.iter().map(comparable).collect()).unwrap_or_default()
}

fn compare_policies(
    (old, before): Side<'_>,
    (new, after): Side<'_>,
    found: &mut Vec<Difference>,
) -> Result<(), CommandError> {
    let number = before.port;
    let (earlier, later) = match (before.authorization, after.authorization) {
        (None, None) => return Ok(()),
        (Some(_), None) => {
            let text =
                format!("port {number}: no authorization any more, every authenticated client may do everything");
            found.push(of_port("changed", "authorization", number, text));
            return Ok(());
        }
        (None, Some(_)) => {
            let name = Escaped(policy_name(new, after).unwrap_or_default());
            let text = format!(
                "port {number}: authorization {name}, and before every authenticated client could do everything"
            );
            found.push(of_port("changed", "authorization", number, text));
            return Ok(());
        }
        (Some(earlier), Some(later)) => (policy(old, earlier)?, policy(new, later)?),
    };
    if earlier.name() != later.name() {
        let text = format!("port {number}: authorization {} is now {}", Escaped(earlier.name()), Escaped(later.name()));
        found.push(of_port("changed", "authorization", number, text));
    }
    let (had, has) = (grants(&earlier), grants(&later));
    for grant in has.iter().filter(|grant| !is_covered(grant, &had)) {
        found.push(of_grant("gained", number, &later, grant));
    }
    for grant in had.iter().filter(|grant| !is_covered(grant, &has)) {
        found.push(of_grant("lost", number, &earlier, grant));
    }
    Ok(())
}

fn is_covered(grant: &Grant<'_>, by: &[Grant<'_>]) -> bool {
    by.iter().any(|other| {
        other.action == grant.action
            && implies(&grant.principal, &other.principal)
            && match grant.action {
                Action::Connect => covers_identifier(other.pattern, grant.pattern),
                // A token stands for one level that is no wildcard, as a literal does.
                Action::Publish | Action::Subscribe => covers(other.pattern, grant.pattern),
            }
    })
}

/// Whether everybody whom `principal` means is meant by `other` too.
fn implies(principal: &Principal<'_>, other: &Principal<'_>) -> bool {
    match (principal, other) {
        (Principal::Attributes(pairs), Principal::Attributes(fewer)) => fewer.iter().all(|pair| pairs.contains(pair)),
        (_, _) => principal == other,
    }
}

fn covers_identifier(wider: &str, pattern: &str) -> bool {
    wider == pattern || wider.strip_suffix('*').is_some_and(|beginning| pattern.starts_with(beginning))
}

fn of_grant(change: &'static str, port: u16, policy: &Policy, grant: &Grant<'_>) -> Difference {
    let principal = match &grant.principal {
        Principal::Username(name) => format!("user '{}'", name.escape_debug()),
        Principal::ClientIdentifier(name) => format!("client id '{}'", name.escape_debug()),
        Principal::Attributes(pairs) => {
            let pair = |(name, value): &(&str, &str)| format!("{}={}", name.escape_debug(), value.escape_debug());
            format!("attributes {{{}}}", pairs.iter().map(pair).collect::<Vec<_>>().join(", "))
        }
    };
    let what = match (grant.action, grant.pattern) {
        (Action::Connect, "*") => "connect".to_owned(),
        (Action::Connect, pattern) => format!("connect as '{}'", pattern.escape_debug()),
        (Action::Publish, pattern) => format!("publish '{}'", pattern.escape_debug()),
        (Action::Subscribe, pattern) => format!("subscribe '{}'", pattern.escape_debug()),
    };
    let may = if change == "gained" { "may now" } else { "may no longer" };
    let rule = policy.rule_source(grant.rule);
    Difference {
        change,
        kind: "grant",
        port: Some(port),
        text: format!("port {port}: {principal} {may} {what}  ({})", Escaped(rule)),
        principal: Some(principal),
        method: Some(name_of(grant.action)),
        pattern: Some(grant.pattern.to_owned()),
        rule: Some(rule.to_owned()),
    }
}
