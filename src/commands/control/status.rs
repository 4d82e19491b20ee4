//! `status`: the broker as a whole.

use super::show::{self, Align, Table};
use crate::commands::CommandError;
use crate::commands::update::update_line;
use crate::config::diagnostic::Escaped;
use serde_json::Value;
use std::io::{self, Write};

/// Denials that are shown.
const DENIALS_MAX: usize = 10;
/// Certificates that end within so many seconds are pointed out: 30 days.
const SOON_SECONDS: u64 = 30 * 86_400;

/// Shows the document.
///
/// # Errors
/// Of the stream.
pub fn show(document: &Value, output: &mut dyn Write) -> Result<(), CommandError> {
    head(document, output)?;
    machine(document, output)?;
    listeners(document, output)?;
    certificates(document, output)?;
    tables(document, output)?;
    store(document, output)?;
    bridges(document, output)?;
    denials(document, output)?;
    Ok(())
}

/// Shows every check.
///
/// # Errors
/// Of the stream.
pub fn show_health(health: &Value, output: &mut dyn Write) -> Result<(), CommandError> {
    let is_ready = health.get("ready") == Some(&Value::Bool(true));
    let ready = if is_ready { "ready" } else { "not ready" };
    writeln!(output, "{}, {ready}", Escaped(&show::text(health, "state")))?;
    let mut table = Table::new(&[("CHECK", Align::Left), ("", Align::Left), ("SEEN", Align::Left)]);
    for check in show::array(health, "checks") {
        let is_ok = check.get("ok") == Some(&Value::Bool(true));
        // What the machine has to tell decides nothing.
        let verdict = match show::text(check, "name").as_str() {
            _ if is_ok => "ok",
            "machine" => "notice",
            _ => "NOT OK",
        };
        table.row([show::text(check, "name"), verdict.to_owned(), show::text(check, "detail")]);
    }
    table.write("  ", output)?;
    Ok(())
}

/// Whether a check is not passed. What the machine has to tell stands further below, each by itself.
fn is_a_fault(check: &Value) -> bool {
    check.get("ok") == Some(&Value::Bool(false)) && show::text(check, "name") != "machine"
}

/// The member `name`, or nothing.
fn part<'a>(document: &'a Value, name: &str) -> &'a Value {
    document.get(name).unwrap_or(&Value::Null)
}

fn head(document: &Value, output: &mut dyn Write) -> io::Result<()> {
    let escaped = |row: &Value, name: &str| Escaped(&show::text(row, name)).to_string();
    let (health, memory, configuration) =
        (part(document, "health"), part(document, "memory"), part(document, "configuration"));
    let up = show::duration(show::number(document, "uptimeSeconds"));
    writeln!(output, "{}, up {up}, version {}", escaped(health, "state"), escaped(document, "version"))?;
    for check in show::array(health, "checks").iter().filter(|check| is_a_fault(check)) {
        writeln!(output, "  {}: {}", escaped(check, "name"), escaped(check, "detail"))?;
    }
    let probe = part(health, "probe");
    if probe.get("reason").is_some_and(Value::is_string) {
        writeln!(output, "  {}, at {}", escaped(probe, "reason"), show::time(probe, "lastUnix"))?;
    }
    let file = configuration.get("file").and_then(Value::as_str).unwrap_or("embedded");
    let digest: String = show::text(configuration, "digest").chars().take(12).collect();
    let since = show::time(configuration, "appliedUnix");
    writeln!(output, "configuration {}, {}, since {since}", Escaped(file), Escaped(&digest))?;
    let clock = part(document, "clock");
    let trusted = if clock.get("trusted") == Some(&Value::Bool(true)) { "set" } else { "NOT SET" };
    writeln!(output, "clock {}, {trusted}", show::time(document, "nowUnix"))?;
    let (resident, budget) = (show::number(memory, "residentBytes"), show::number(memory, "budgetBytes"));
    writeln!(
        output,
        "board {}, memory {} of {}",
        escaped(document, "board"),
        show::bytes(resident),
        show::bytes(budget)
    )
}

/// The machine, where this broker is the service of an image.
fn machine(document: &Value, output: &mut dyn Write) -> io::Result<()> {
    let machine = part(document, "machine");
    if machine.is_null() {
        return Ok(());
    }
    let said = |name: &str| Escaped(&show::text(machine, name)).to_string();
    let trial = if machine.get("trial") == Some(&Value::Bool(true)) { ", for a trial" } else { "" };
    writeln!(
        output,
        "image {}, version {}, slot {}{trial}; configuration {}, version {}; data {}",
        said("release"),
        show::numeral(machine, "version"),
        said("slot"),
        said("configuration"),
        show::numeral(machine, "configurationVersion"),
        said("data"),
    )?;
    writeln!(output, "network {}; clock {}", said("network"), said("clock"))?;
    if let Some(update) = update_line(machine) {
        writeln!(output, "last update: {update}")?;
    }
    for notice in show::array(machine, "notices").iter().filter_map(Value::as_str) {
        writeln!(output, "notice: {}", Escaped(notice))?;
    }
    Ok(())
}

fn listeners(document: &Value, output: &mut dyn Write) -> io::Result<()> {
    let mut table = Table::new(&[
        ("LISTENER", Align::Left),
        ("PORT", Align::Right),
        ("PROTOCOL", Align::Left),
        ("TLS", Align::Left),
        ("AUTHENTICATION", Align::Left),
        ("AUTHORIZATION", Align::Left),
        ("CONNECTIONS", Align::Right),
        ("ADDRESSES", Align::Left),
    ]);
    for row in show::array(document, "listeners") {
        let addresses: Vec<&str> = show::array(row, "addresses").iter().filter_map(Value::as_str).collect();
        table.row([
            show::text(row, "name"),
            show::numeral(row, "port"),
            show::text(row, "protocol"),
            show::text(row, "tls"),
            show::text(row, "authentication"),
            show::text(row, "authorization"),
            show::numeral(row, "connections"),
            addresses.join(" "),
        ]);
    }
    writeln!(output)?;
    table.write("", output)
}

fn certificates(document: &Value, output: &mut dyn Write) -> io::Result<()> {
    let now = show::number(document, "nowUnix");
    let mut table = Table::new(&[
        ("CERTIFICATE", Align::Left),
        ("KIND", Align::Left),
        ("ENDS", Align::Left),
        ("", Align::Left),
        ("SUBJECT", Align::Left),
    ]);
    for row in show::array(document, "certificates") {
        let left = show::number(row, "notAfterUnix").checked_sub(now);
        let hint = match left {
            None => "EXPIRED".to_owned(),
            Some(seconds) if seconds < SOON_SECONDS => format!("in {}", show::duration(seconds)),
            Some(_) => String::new(),
        };
        let ends = show::time(row, "notAfterUnix");
        table.row([show::text(row, "name"), show::text(row, "kind"), ends, hint, show::text(row, "subject")]);
    }
    if table.is_empty() {
        return Ok(());
    }
    writeln!(output)?;
    table.write("", output)
}

/// How full the tables are.
///
/// # Errors
/// Of the stream.
pub fn tables(document: &Value, output: &mut dyn Write) -> io::Result<()> {
    let heads = [
        ("TABLE", Align::Left),
        ("USED", Align::Right),
        ("CAPACITY", Align::Right),
        ("", Align::Right),
        ("REFUSED", Align::Right),
    ];
    let mut table = Table::new(&heads);
    for row in show::array(document, "tables") {
        let (used, capacity) = (show::number(row, "used"), show::number(row, "capacity").max(1));
        // No table has so many rows that this could not be counted.
        let percent = used.saturating_mul(100) / capacity;
        table.row([
            show::text(row, "name"),
            show::numeral(row, "used"),
            show::numeral(row, "capacity"),
            format!("{percent} %"),
            show::numeral(row, "refused"),
        ]);
    }
    writeln!(output)?;
    table.write("", output)
}

fn store(document: &Value, output: &mut dyn Write) -> io::Result<()> {
    let store = part(document, "store");
    writeln!(output)?;
    if store.is_null() {
        return writeln!(output, "nothing is kept over a restart");
    }
    let bytes = |name| show::bytes(show::number(store, name));
    writeln!(
        output,
        "store {}, {} of {}, {} commits, record {}, last sync {} ms, longest {} ms, {} failures, {} damaged",
        Escaped(&show::text(store, "state")),
        bytes("usedBytes"),
        bytes("maxBytes"),
        show::number(store, "commits"),
        show::number(store, "position"),
        show::number(store, "lastSyncMilliseconds"),
        show::number(store, "maxSyncMilliseconds"),
        show::number(store, "failures"),
        show::number(store, "damaged"),
    )
}

fn bridges(document: &Value, output: &mut dyn Write) -> io::Result<()> {
    let heads = [
        ("BRIDGE", Align::Left),
        ("REMOTE", Align::Left),
        ("STATE", Align::Left),
        ("SINCE", Align::Left),
        ("QUEUED", Align::Right),
        ("DROPPED", Align::Right),
        ("SENT", Align::Right),
        ("RECEIVED", Align::Right),
        ("LAST ERROR", Align::Left),
    ];
    let mut table = Table::new(&heads);
    for row in show::array(document, "bridges") {
        let mut cells: Vec<String> = ["name", "remote", "state"].iter().map(|name| show::text(row, name)).collect();
        cells.push(show::time(row, "sinceUnix"));
        cells.extend(["queued", "dropped", "sent", "received"].iter().map(|name| show::numeral(row, name)));
        cells.push(show::text(row, "lastError"));
        table.row(cells);
    }
    if table.is_empty() {
        return Ok(());
    }
    writeln!(output)?;
    table.write("", output)
}

fn denials(document: &Value, output: &mut dyn Write) -> io::Result<()> {
    let denials = show::array(document, "denials");
    if denials.is_empty() {
        return Ok(());
    }
    writeln!(output, "\nlast denials")?;
    for row in denials.iter().take(DENIALS_MAX) {
        let escaped = |name: &str| Escaped(&show::text(row, name)).to_string();
        let topic = match show::text(row, "action").as_str() {
            "connect" => String::new(),
            _ => format!(" '{}'", escaped("resource")),
        };
        let (client, action, when) = (escaped("clientId"), escaped("action"), show::time(row, "unix"));
        writeln!(output, "  {when} client '{client}' on {}: {action}{topic}", escaped("listener"))?;
        if let Some(why) = row.get("explain").and_then(Value::as_str) {
            let rule = row.get("rule").and_then(Value::as_str);
            let rule = rule.map_or_else(String::new, |rule| format!("nearest rule {}: ", Escaped(rule)));
            writeln!(output, "    {rule}{}", Escaped(why))?;
        }
    }
    Ok(())
}
