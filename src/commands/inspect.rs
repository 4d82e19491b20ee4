//! `portcullis inspect`: what is in a blob, for people. Never key material.

use super::CommandError;
use super::memory::{Item, budget, sum};
use crate::config::assemble::Usage;
use crate::config::blob::{
    Action, Authentication, Authorization, AutomaticCertificate, Bind, Bridge, Configuration, Diagnostics,
    ExposedDiagnostics, HttpsServer, Kept, ListenerPort, Method, Network, Persistence, Protocol, Range,
    ServiceAccountTokens, SubjectAttributes, Text, Tls, TrustBundle,
};
use crate::config::diagnostic::Escaped;
use crate::config::envelope::{BLOB_BYTES_MAX, SCHEMA};
use crate::config::network::DHCP;
use crate::config::secret::check_pair;
use crate::config::{BlobError, decode, verify};
use crate::limits::MESSAGE_BLOCK_BYTES;
use crate::time::UnixTime;
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use x509_cert::Certificate;
use x509_cert::der::Decode;

/// What `inspect` was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InspectOptions {
    /// The blob.
    pub file: PathBuf,
}

/// Verifies a blob and shows it.
///
/// # Errors
/// A file that cannot be read, or a blob that is refused.
pub fn run(options: &InspectOptions, output: &mut dyn Write, _diagnostics: &mut dyn Write) -> Result<(), CommandError> {
    let (configuration, bytes) = read_blob(&options.file)?;
    let path = options.file.to_string_lossy();
    writeln!(output, "{}: {} bytes, schema {SCHEMA}, verified", Escaped(&path), bytes)?;
    show(&configuration, output)?;
    Ok(())
}

/// What a blob holds, and its length in bytes.
///
/// # Errors
/// A file that cannot be read, or a blob that is refused.
pub(super) fn read_blob(path: &Path) -> Result<(Configuration, usize), CommandError> {
    let failed = |error| CommandError::file(path, &error);
    let refused = |error| CommandError::blob(path, &error);
    let limit = u64::try_from(BLOB_BYTES_MAX).unwrap_or(u64::MAX);
    let file = File::open(path).map_err(failed)?;
    if !file.metadata().map_err(failed)?.is_file() {
        return Err(refused(BlobError::NotABlob));
    }
    let mut blob = Vec::new();
    file.take(limit.saturating_add(1)).read_to_end(&mut blob).map_err(failed)?;
    Ok((decode(&blob).map_err(refused)?, blob.len()))
}

/// Shows a configuration.
///
/// # Errors
/// Of the stream.
pub fn show(configuration: &Configuration, output: &mut dyn Write) -> io::Result<()> {
    gateway(configuration, output)?;
    if let Some(found) = &configuration.network {
        writeln!(output, "network, on the SD-card image")?;
        writeln!(output, "  {}", network(found))?;
    }
    persistence(&configuration.persistence, output)?;
    if let Some(tokens) = &configuration.gateway.service_account_tokens {
        service_account_tokens(configuration, tokens, output)?;
    }
    diagnostics(configuration, output)?;
    writeln!(output, "listeners")?;
    for port in &configuration.ports {
        listener(configuration, port, output)?;
    }
    for entry in &configuration.authentications {
        authentication(configuration, entry, output)?;
    }
    for policy in &configuration.authorizations {
        authorization(policy, output)?;
    }
    for entry in &configuration.bridges {
        bridge(configuration, entry, output)?;
    }
    for bundle in &configuration.trust_bundles {
        trust_bundle(bundle, output)?;
    }
    secrets(configuration, output)?;
    tables(configuration, output)?;
    memory(configuration, output)
}

/// One line of all that is set.
pub(super) fn network(network: &Network) -> String {
    let Network { hostname, interface, address, gateway, dns, ntp } = network;
    let text = |what: &str, value: &Option<String>| value.as_ref().map(|value| format!("{what} {}", Escaped(value)));
    let list =
        |what: &str, values: &[String]| (!values.is_empty()).then(|| format!("{what} {}", Escaped(&values.join(" "))));
    let address = address.as_deref().unwrap_or(DHCP);
    let parts = [
        Some(format!("address {}", Escaped(address))),
        text("gateway", gateway),
        list("dns", dns),
        list("ntp", ntp),
        text("hostname", hostname),
        text("interface", interface),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn gateway(configuration: &Configuration, output: &mut dyn Write) -> io::Result<()> {
    let (board, gateway, clients) = (&configuration.board, &configuration.gateway, &configuration.clients);
    writeln!(output, "board {}, memory budget {} bytes", Escaped(&board.name), board.memory_budget_bytes)?;
    writeln!(output, "gateway")?;
    writeln!(output, "  secrets in {}, state in {}", Escaped(&gateway.secrets_folder), Escaped(&gateway.state_folder))?;
    writeln!(
        output,
        "  clock policy {:?}, CONNECT within {} seconds",
        gateway.clock_policy, gateway.connect_deadline_seconds
    )?;
    let (issuers, revocation) = (Escaped(&gateway.issuers_folder), Escaped(&gateway.revocation_folder));
    writeln!(output, "  issuers in {issuers}, revocation lists in {revocation}")?;
    let key_algorithms = if gateway.same_key_algorithm { "one key algorithm in a chain" } else { "any key algorithms" };
    writeln!(output, "  {key_algorithms}, stale revocation lists {:?}", gateway.stale_revocation_lists)?;
    let (identifiers, notice) = (gateway.client_identifiers, gateway.expiry_notice);
    writeln!(output, "  client identifiers {identifiers:?}, expiry notice {notice:?}")?;
    let cap = |value: Option<u32>| value.map_or_else(|| "not capped".to_owned(), |value| format!("at most {value}"));
    writeln!(output, "clients")?;
    writeln!(output, "  session expiry seconds {}", cap(clients.max_session_expiry_seconds))?;
    writeln!(output, "  message expiry seconds {}", cap(clients.max_message_expiry_seconds))?;
    writeln!(output, "  keep alive seconds {}", cap(clients.max_keep_alive_seconds.map(u32::from)))?;
    writeln!(
        output,
        "  packet bytes at most {}, receive maximum {}",
        clients.max_packet_size_bytes, clients.max_receive_maximum
    )?;
    let (length, strategy) = (clients.subscriber_queue_length, clients.subscriber_queue_strategy);
    writeln!(output, "  subscriber queue {length}, strategy {strategy:?}")
}

fn bridge(configuration: &Configuration, bridge: &Bridge, output: &mut dyn Write) -> io::Result<()> {
    let remote = &bridge.remote;
    let secure = if remote.tls.is_some() { "TLS" } else { "no TLS" };
    writeln!(output, "bridge '{}', {secure}", Escaped(&bridge.name))?;
    for (host, port) in &remote.addresses {
        writeln!(output, "  to {}, port {port}", Escaped(host))?;
    }
    let session = if remote.clean_start { "clean" } else { "lasting" };
    writeln!(output, "  as client '{}', {session} session", Escaped(&remote.client_identifier))?;
    let policy = bridge.identity.authorization.and_then(|index| configuration.authorizations.get(usize::from(index)));
    let policy = policy.map_or("none", |policy| policy.name.as_str());
    let username = bridge.identity.username.as_deref().unwrap_or("nobody");
    writeln!(output, "  here '{}', authorization {}", Escaped(username), Escaped(policy))?;
    let (length, bytes, strategy) = (bridge.queue_length, bridge.queue_bytes, bridge.queue_strategy);
    writeln!(output, "  queue of {length} messages and {bytes} bytes, strategy {strategy:?}")?;
    for (way, maps) in [("out", &bridge.outgoing), ("in", &bridge.incoming)] {
        for map in maps {
            let (local, remote) = (Escaped(&map.local), Escaped(&map.remote));
            writeln!(output, "  {way}: here '{local}', there '{remote}', QoS at most {}", map.qos)?;
        }
    }
    Ok(())
}

fn persistence(persistence: &Persistence, output: &mut dyn Write) -> io::Result<()> {
    if persistence.is_off() {
        return writeln!(output, "persistence: none, a restart loses sessions and retained messages");
    }
    writeln!(output, "persistence")?;
    let (bytes, interval) = (persistence.size_bytes, persistence.commit_interval_milliseconds);
    writeln!(output, "  at most {bytes} bytes, not encrypted, {interval} milliseconds or more between two writes")?;
    kept("retained messages", &persistence.retain, output)?;
    kept("subscriber queues", &persistence.subscriber_queue, output)
}

fn kept(what: &str, kept: &Kept, output: &mut dyn Write) -> io::Result<()> {
    match kept {
        Kept::None => writeln!(output, "  {what}: none"),
        Kept::All => writeln!(output, "  {what}: all"),
        Kept::Some { patterns, dynamic } => {
            let asking = if *dynamic { ", and where a client asks" } else { "" };
            writeln!(output, "  {what}: {} patterns{asking}", patterns.len())?;
            patterns.iter().try_for_each(|pattern| writeln!(output, "    {}", Escaped(pattern)))
        }
    }
}

fn diagnostics(configuration: &Configuration, output: &mut dyn Write) -> io::Result<()> {
    let Diagnostics { port, is_asked_for, addresses, exposed, .. } = &configuration.diagnostics;
    let Some(port) = port else { return writeln!(output, "diagnostics: no port") };
    let otherwise = if *is_asked_for { "" } else { ", if it is free" };
    writeln!(output, "diagnostics")?;
    writeln!(output, "  port {port}{otherwise}, addresses {}", addresses.join(", "))?;
    let Some(ExposedDiagnostics { secret, trust_bundle, token_secret, updates }) = exposed else { return Ok(()) };
    let secret = configuration.secrets.get(usize::from(*secret)).map_or("?", |secret| secret.name.as_str());
    writeln!(output, "  beyond this machine with TLS, certificate {}", Escaped(secret))?;
    let bundle = trust_bundle.and_then(|index| configuration.trust_bundles.get(usize::from(index)));
    if let Some(bundle) = bundle {
        writeln!(output, "    for client certificates of {}", Escaped(&bundle.name))?;
    }
    if let Some(name) = token_secret {
        let folder = Escaped(&configuration.gateway.secrets_folder);
        writeln!(output, "    for who brings the token of {folder}/{}/token", Escaped(name))?;
    }
    if *updates {
        writeln!(output, "    updates of the image are taken there")?;
    }
    Ok(())
}

fn listener(configuration: &Configuration, port: &ListenerPort, output: &mut dyn Write) -> io::Result<()> {
    write!(output, "  {}:", Escaped(&port.listener))?;
    let addresses = match port.bind {
        Bind::ClusterIp => &configuration.gateway.cluster_ip_addresses,
        Bind::External => &configuration.gateway.external_addresses,
    };
    for address in addresses {
        let shown = Escaped(address);
        if address.contains(':') {
            write!(output, " [{shown}]:{}", port.port)?;
        } else {
            write!(output, " {shown}:{}", port.port)?;
        }
    }
    match port.protocol {
        Protocol::Mqtt => write!(output, ", MQTT")?,
        Protocol::WebSockets => write!(output, ", WebSockets")?,
    }
    match &port.tls {
        Some(Tls::Manual { secret }) => write!(output, ", TLS with secret {}", secret_name(configuration, *secret))?,
        Some(Tls::Automatic(certificate)) => write!(output, ", TLS from issuer {}", Escaped(&certificate.issuer))?,
        None => write!(output, ", no TLS")?,
    }
    match port.authentication.and_then(|found| configuration.authentications.get(usize::from(found))) {
        Some(entry) => write!(output, ", authentication {}", Escaped(&entry.name))?,
        None => write!(output, ", clients are not authenticated")?,
    }
    match port.authorization.and_then(|found| configuration.authorizations.get(usize::from(found))) {
        Some(policy) => writeln!(output, ", authorization {}", Escaped(&policy.name))?,
        None => writeln!(output, ", everything is allowed")?,
    }
    match &port.tls {
        Some(Tls::Automatic(certificate)) => automatic_certificate(certificate, output),
        Some(Tls::Manual { .. }) | None => Ok(()),
    }
}

fn automatic_certificate(certificate: &AutomaticCertificate, output: &mut dyn Write) -> io::Result<()> {
    let (algorithm, rotation) = (certificate.algorithm, certificate.rotation);
    let (duration, renew_before) = (certificate.duration_seconds, certificate.renew_before_seconds);
    let name = Escaped(&certificate.secret_name);
    writeln!(output, "    certificate {name}: {algorithm:?} key, rotation {rotation:?}")?;
    writeln!(output, "      valid for {duration} seconds, renewed {renew_before} seconds before the end")?;
    for name in certificate.dns_names.iter().chain(&certificate.ip_addresses) {
        writeln!(output, "      for {}", Escaped(name))?;
    }
    Ok(())
}

fn service_account_tokens(
    configuration: &Configuration,
    tokens: &ServiceAccountTokens,
    output: &mut dyn Write,
) -> io::Result<()> {
    match tokens {
        ServiceAccountTokens::TokenReview { server, token_secret } => {
            writeln!(output, "service account tokens: reviewed by {}", Escaped(&server.endpoint))?;
            if let Some(name) = token_secret {
                let folder = Escaped(&configuration.gateway.secrets_folder);
                writeln!(output, "    asks with the token {folder}/{}/token", Escaped(name))?;
            }
            https_server(configuration, server, output)
        }
        ServiceAccountTokens::Offline { issuers, attributes } => {
            writeln!(output, "service account tokens: verified here")?;
            for issuer in issuers {
                writeln!(output, "    issuer {}: {} key sets", Escaped(&issuer.issuer), issuer.key_sets.len())?;
            }
            for entry in attributes {
                write!(output, "    {} gives", Escaped(&entry.account))?;
                granted(&entry.attributes, output)?;
            }
            Ok(())
        }
    }
}

/// How a server is asked. Of its header fields the names only: the values may be credentials.
fn https_server(configuration: &Configuration, server: &HttpsServer, output: &mut dyn Write) -> io::Result<()> {
    match server.trust_bundle {
        Some(index) => writeln!(output, "     trusts {}", bundle_name(configuration, index))?,
        None => writeln!(output, "     trusts the public roots of the system")?,
    }
    if let Some(index) = server.client_secret {
        writeln!(output, "     shows the certificate of secret {}", secret_name(configuration, index))?;
    }
    for (name, _) in &server.headers {
        writeln!(output, "     sends the header {}", Escaped(name))?;
    }
    Ok(())
}

fn bundle_name(configuration: &Configuration, index: u16) -> Escaped<'_> {
    Escaped(configuration.trust_bundles.get(usize::from(index)).map_or("", |bundle| bundle.name.as_str()))
}

fn secret_name(configuration: &Configuration, index: u16) -> Escaped<'_> {
    Escaped(configuration.secrets.get(usize::from(index)).map_or("", |secret| secret.name.as_str()))
}

fn authentication(configuration: &Configuration, entry: &Authentication, output: &mut dyn Write) -> io::Result<()> {
    writeln!(output, "authentication {}", Escaped(&entry.name))?;
    for (number, method) in (1..).zip(&entry.methods) {
        match method {
            Method::X509 { trust_bundle, attributes } => {
                writeln!(output, "  {number}. X509, trusts {}", bundle_name(configuration, *trust_bundle))?;
                attributes.iter().try_for_each(|entry| subject_attributes(entry, output))?;
            }
            Method::ServiceAccountToken { audiences } => {
                writeln!(output, "  {number}. ServiceAccountToken")?;
                for audience in audiences {
                    writeln!(output, "     for the audience {}", Escaped(audience))?;
                }
            }
            Method::Custom { server } => {
                writeln!(output, "  {number}. Custom, asks {}", Escaped(&server.endpoint))?;
                https_server(configuration, server, output)?;
            }
            Method::UsernamePassword { secret } => {
                let (folder, name) = (Escaped(&configuration.gateway.secrets_folder), Escaped(secret));
                writeln!(output, "  {number}. UsernamePassword, users in {folder}/{name}/passwords.toml")?;
            }
        }
    }
    Ok(())
}

fn subject_attributes(entry: &SubjectAttributes, output: &mut dyn Write) -> io::Result<()> {
    write!(output, "     {}: {} gives", Escaped(&entry.label), entry.subject)?;
    granted(&entry.attributes, output)
}

/// Ends a line with attributes.
fn granted(attributes: &[(String, String)], output: &mut dyn Write) -> io::Result<()> {
    for (name, value) in attributes {
        write!(output, " {}={}", Escaped(name), Escaped(value))?;
    }
    writeln!(output, "{}", if attributes.is_empty() { " nothing" } else { "" })
}

fn authorization(policy: &Authorization, output: &mut dyn Write) -> io::Result<()> {
    let cache = if policy.cache { "Enabled" } else { "Disabled" };
    let name = Escaped(&policy.name);
    match policy.rules.len() {
        0 => writeln!(output, "authorization {name}: no rules, every client is denied everything")?,
        rules => writeln!(output, "authorization {name}: {rules} rules, cache {cache}")?,
    }
    for (index, rule) in policy.rules.iter().enumerate() {
        writeln!(output, "  rule {} at {}", index + 1, text(policy, rule.source))?;
        for (what, table, range) in [
            ("username", &policy.usernames, rule.usernames),
            ("client identifier", &policy.client_identifiers, rule.client_identifiers),
        ] {
            for span in rows(table, range) {
                writeln!(output, "    {what} {}", text(policy, *span))?;
            }
        }
        for map in rows(&policy.attribute_maps, rule.attribute_maps) {
            write!(output, "    attributes")?;
            for (name, value) in rows(&policy.attribute_pairs, *map) {
                write!(output, " {}={}", text(policy, *name), text(policy, *value))?;
            }
            writeln!(output)?;
        }
        for resource in rows(&policy.resources, rule.resources) {
            let action = match resource.action {
                Action::Connect => "Connect",
                Action::Publish => "Publish",
                Action::Subscribe => "Subscribe",
            };
            let patterns = rows(&policy.patterns, resource.patterns);
            let patterns: Vec<String> = patterns.iter().map(|pattern| text(policy, *pattern)).collect();
            writeln!(output, "      may {action} {}", patterns.join(", "))?;
        }
    }
    Ok(())
}

fn rows<T>(table: &[T], range: Range) -> &[T] {
    verify::slice_of(table, range).unwrap_or_default()
}

fn text(policy: &Authorization, span: Text) -> String {
    Escaped(verify::text_of(policy, span).unwrap_or_default()).to_string()
}

fn trust_bundle(bundle: &TrustBundle, output: &mut dyn Write) -> io::Result<()> {
    writeln!(output, "trust bundle {}: {} certificates", Escaped(&bundle.name), bundle.certificates.len())?;
    for der in &bundle.certificates {
        match Certificate::from_der(der) {
            Ok(certificate) => {
                let body = &certificate.tbs_certificate;
                let expiry = UnixTime(body.validity.not_after.to_unix_duration().as_secs());
                writeln!(output, "  {}", Escaped(&body.subject.to_string()))?;
                writeln!(output, "    valid until {expiry}")?;
            }
            Err(_) => writeln!(output, "  a certificate that cannot be parsed")?,
        }
        let digest = Sha256::digest(der);
        let fingerprint: Vec<String> = digest.iter().map(|byte| format!("{byte:02X}")).collect();
        writeln!(output, "    SHA-256 {}", fingerprint.join(":"))?;
    }
    Ok(())
}

fn secrets(configuration: &Configuration, output: &mut dyn Write) -> io::Result<()> {
    let folder = Escaped(&configuration.gateway.secrets_folder);
    for secret in &configuration.secrets {
        let name = Escaped(&secret.name);
        let Some(embedded) = &secret.embedded else {
            writeln!(output, "secret {name}: read from {folder}/{name}/tls.crt and tls.key at start")?;
            continue;
        };
        match check_pair(embedded.certificate_chain_pem.as_bytes(), embedded.private_key_pem.as_bytes()) {
            Ok(pair) => {
                let (certificates, kind, expiry) = (pair.certificates.len(), pair.kind, pair.not_after);
                writeln!(
                    output,
                    "secret {name}: embedded, {certificates} certificates, {kind} key, valid until {expiry}"
                )?;
            }
            Err(fault) => writeln!(output, "secret {name}: embedded, and useless: {fault}")?,
        }
    }
    Ok(())
}

fn tables(configuration: &Configuration, output: &mut dyn Write) -> io::Result<()> {
    let sizes = &configuration.board.capacities;
    let usage = Usage::of(&configuration.authorizations);
    writeln!(output, "tables")?;
    for (what, used, holds) in [
        ("authorization rules", usage.rules, sizes.authorization_rules),
        ("authorization principals", usage.principals, sizes.authorization_principals),
        ("authorization attributes", usage.attributes, sizes.authorization_attributes),
        ("authorization patterns", usage.patterns, sizes.authorization_patterns),
        ("authorization text bytes", usage.bytes, sizes.authorization_bytes),
    ] {
        writeln!(output, "  {what}: {used} of {holds}")?;
    }
    let authorization: usize = configuration.authorizations.iter().map(authorization_bytes).sum();
    writeln!(output, "  the authorization tables take {authorization} bytes")?;
    let certificates: usize =
        configuration.trust_bundles.iter().flat_map(|bundle| &bundle.certificates).map(Vec::len).sum();
    writeln!(output, "  the trust bundles take {certificates} bytes")?;
    for (what, holds) in [
        ("connections", sizes.connections),
        ("TLS handshakes at one time", sizes.handshakes),
        ("sessions", sizes.sessions),
        ("subscriptions", sizes.subscriptions),
        ("subscriptions of one session", sizes.subscriptions_per_session),
        ("nodes of the subscription tree", sizes.filter_nodes),
        ("bytes of the subscription tree's texts", sizes.filter_bytes),
        ("messages", sizes.messages),
        ("deliveries", sizes.deliveries),
        ("replies", sizes.replies),
        ("bytes of receive buffers", sizes.receive_bytes),
        ("bytes of transmit buffers", sizes.transmit_bytes),
        ("bytes of one packet", sizes.packet_bytes),
    ] {
        writeln!(output, "  {what}: room for {holds}")?;
    }
    writeln!(output, "  message blocks: room for {} of {MESSAGE_BLOCK_BYTES} bytes", sizes.message_blocks)
}

fn memory(configuration: &Configuration, output: &mut dyn Write) -> io::Result<()> {
    writeln!(output, "memory, with everything full at once")?;
    for Item { what, count, bytes } in budget(configuration) {
        writeln!(output, "  {what}: {count}, {bytes} bytes")?;
    }
    writeln!(output, "  together at most {} bytes", sum(configuration))
}

/// Bytes that the tables of one policy take in memory.
fn authorization_bytes(policy: &Authorization) -> usize {
    policy.text.len()
        + size_of_val(policy.rules.as_slice())
        + size_of_val(policy.usernames.as_slice())
        + size_of_val(policy.client_identifiers.as_slice())
        + size_of_val(policy.attribute_maps.as_slice())
        + size_of_val(policy.attribute_pairs.as_slice())
        + size_of_val(policy.resources.as_slice())
        + size_of_val(policy.patterns.as_slice())
}
