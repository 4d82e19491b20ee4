//! `clients`, `client`, `sessions` and `retained`.

use super::ask::Socket;
use super::show::{self, Align, Table};
use crate::commands::CommandError;
use crate::config::diagnostic::Escaped;
use serde_json::{Value, json};
use std::io::{self, Write};

/// Rows of a page that is asked for.
const ROWS: u32 = 200;
/// Pages that are asked for: more rows than any table has, should a broker never say that a page is the last.
const PAGES_MAX: u32 = 10_000;

type Heads = &'static [(&'static str, Align)];

/// A list of the broker, and how it is shown.
pub struct List {
    /// Its name, in the path and in the document.
    name: &'static str,
    heads: Heads,
    cells: fn(&Value) -> Vec<String>,
}

/// Connected clients.
pub const CLIENTS: List = List {
    name: "clients",
    heads: &[
        ("CLIENT", Align::Left),
        ("USER", Align::Left),
        ("METHOD", Align::Left),
        ("LISTENER", Align::Left),
        ("ADDRESS", Align::Left),
        ("SINCE", Align::Left),
        ("QUEUED", Align::Right),
        ("IN FLIGHT", Align::Right),
        ("FILTERS", Align::Right),
    ],
    cells: |row| {
        let texts = ["clientId", "username", "method", "listener", "address"];
        let mut cells: Vec<String> = texts.iter().map(|name| show::text(row, name)).collect();
        cells.push(show::time(row, "connectedUnix"));
        cells.extend(["queued", "inFlight", "subscriptions"].iter().map(|name| show::numeral(row, name)));
        cells
    },
};

/// Sessions, with and without a client.
pub const SESSIONS: List = List {
    name: "sessions",
    heads: &[
        ("CLIENT", Align::Left),
        ("OWNER", Align::Left),
        ("CONNECTED", Align::Left),
        ("EXPIRES", Align::Left),
        ("QUEUED", Align::Right),
        ("IN FLIGHT", Align::Right),
        ("FILTERS", Align::Right),
    ],
    cells: |row| {
        let is_connected = row.get("connected").and_then(Value::as_bool) == Some(true);
        let expires = match (row.get("expiresInSeconds").and_then(Value::as_u64), is_connected) {
            (None, _) => "never".to_owned(),
            (Some(0), true) => "with its connection".to_owned(),
            (Some(seconds), true) => format!("{} after it", show::duration(seconds)),
            (Some(seconds), false) => format!("in {}", show::duration(seconds)),
        };
        let mut cells = vec![
            show::text(row, "clientId"),
            show::text(row, "owner"),
            if is_connected { "yes" } else { "no" }.to_owned(),
            expires,
        ];
        cells.extend(["queued", "inFlight", "subscriptions"].iter().map(|name| show::numeral(row, name)));
        cells
    },
};

/// Retained messages.
pub const RETAINED: List = List {
    name: "retained",
    heads: &[("QOS", Align::Right), ("BYTES", Align::Right), ("EXPIRES", Align::Left), ("TOPIC", Align::Left)],
    cells: |row| {
        let expires = row.get("expiresInSeconds").and_then(Value::as_u64);
        let more = if row.get("cut").is_some() { "..." } else { "" };
        vec![
            show::numeral(row, "qos"),
            show::numeral(row, "payloadBytes"),
            expires.map_or_else(|| "never".to_owned(), |seconds| format!("in {}", show::duration(seconds))),
            format!("{}{more}", show::text(row, "topic")),
        ]
    },
};

/// Shows all rows of a list.
///
/// # Errors
/// Of the socket and of the stream.
pub fn list(socket: &Socket, list: &List, as_json: bool, output: &mut dyn Write) -> Result<(), CommandError> {
    let rows = all(socket, list.name, PAGES_MAX)?;
    if as_json {
        return show::json(&json!({ list.name: rows }), output);
    }
    let mut table = Table::new(list.heads);
    rows.iter().for_each(|row| table.row((list.cells)(row)));
    if table.is_empty() {
        return Ok(writeln!(output, "no {}", if list.name == "retained" { "retained messages" } else { list.name })?);
    }
    Ok(table.write("", output)?)
}

/// The rows of the list `name`, of so many pages at most.
///
/// # Errors
/// Of the socket.
pub fn all(socket: &Socket, name: &str, pages_max: u32) -> Result<Vec<Value>, CommandError> {
    let (mut rows, mut after) = (Vec::new(), 0);
    for _ in 0..pages_max {
        let mut page = socket.get(&format!("{name}?limit={ROWS}&after={after}"))?;
        if let Some(Value::Array(more)) = page.get_mut(name).map(Value::take) {
            rows.extend(more);
        }
        match page.get("next").and_then(Value::as_u64) {
            Some(next) => after = next,
            None => break,
        }
    }
    Ok(rows)
}

/// Shows one client.
///
/// # Errors
/// Of the stream.
pub fn show_client(client: &Value, output: &mut dyn Write) -> Result<(), CommandError> {
    let escaped = |name: &str| Escaped(&show::text(client, name)).to_string();
    writeln!(output, "client {}", escaped("clientId"))?;
    writeln!(output, "  user {}, method {}", escaped("username"), escaped("method"))?;
    attributes(client, output)?;
    writeln!(output, "  listener {}, address {}, {}", escaped("listener"), escaped("address"), escaped("protocol"))?;
    writeln!(output, "  connected since {}", show::time(client, "connectedUnix"))?;
    if client.get("expiresUnix").is_some_and(|time| !time.is_null()) {
        writeln!(output, "  credential ends at {}", show::time(client, "expiresUnix"))?;
    }
    match show::number(client, "keepAliveSeconds") {
        0 => writeln!(output, "  no keep alive")?,
        seconds => writeln!(output, "  keep alive {seconds} s")?,
    }
    let (queued, in_flight) = (show::number(client, "queued"), show::number(client, "inFlight"));
    writeln!(output, "  {queued} messages queued, {in_flight} in flight")?;
    let filters = show::array(client, "filters");
    writeln!(output, "  {} filters", show::number(client, "subscriptions"))?;
    let mut table = Table::new(&[
        ("QOS", Align::Right),
        ("NO LOCAL", Align::Left),
        ("AS PUBLISHED", Align::Left),
        ("RETAINED", Align::Left),
        ("IDENTIFIER", Align::Right),
        ("FILTER", Align::Left),
    ]);
    let yes = |row: &Value, name: &str| if row.get(name) == Some(&Value::Bool(true)) { "yes" } else { "no" }.to_owned();
    for row in filters {
        let more = if row.get("cut").is_some() { "..." } else { "" };
        table.row([
            show::numeral(row, "qos"),
            yes(row, "noLocal"),
            yes(row, "retainAsPublished"),
            match show::number(row, "retainHandling") {
                0 => "sent",
                1 => "sent if new",
                _ => "not sent",
            }
            .to_owned(),
            show::numeral(row, "identifier"),
            format!("{}{more}", show::text(row, "filter")),
        ]);
    }
    if !table.is_empty() {
        table.write("    ", output)?;
    }
    match show::number(client, "filtersMore") {
        0 => Ok(()),
        more => Ok(writeln!(output, "    and {more} more")?),
    }
}

fn attributes(client: &Value, output: &mut dyn Write) -> io::Result<()> {
    let pairs = client.get("attributes").and_then(Value::as_object);
    for (name, value) in pairs.into_iter().flatten() {
        writeln!(output, "  attribute {}={}", Escaped(name), Escaped(value.as_str().unwrap_or_default()))?;
    }
    Ok(())
}
