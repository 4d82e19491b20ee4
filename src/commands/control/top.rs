//! `top`: what is going on, every two seconds, until Ctrl-C.

use super::ask::Socket;
use super::show::{self, Align, Table};
use super::{rows, status};
use crate::commands::CommandError;
use crate::config::diagnostic::Escaped;
use serde_json::{Value, json};
use std::io::{self, IsTerminal as _, Write};
use std::thread;
use std::time::Duration;

/// Between two views.
const PERIOD: Duration = Duration::from_secs(2);
/// Between the two looks that `--once` takes.
const SHORT: Duration = Duration::from_secs(1);
/// Pages of clients among which the longest queues are looked for.
const PAGES_MAX: u32 = 5;
/// Clients that are shown.
const CLIENTS_MAX: usize = 10;
/// Cursor to the upper left, and everything from there on cleared.
const CLEAR: &str = "\x1b[H\x1b[2J";

/// What is counted, by the second: its name in the document, and as it is shown.
const RATES: [(&str, &str); 8] = [
    ("publishesReceived", "messages in"),
    ("publishesSent", "messages out"),
    ("bytesReceived", "bytes in"),
    ("bytesSent", "bytes out"),
    ("connectsAccepted", "connects"),
    ("connectsRefused", "refused"),
    ("queueDropped", "dropped"),
    ("authorizationDenied", "denied"),
];

/// Shows it.
///
/// # Errors
/// Of the socket and of the stream.
pub fn run(socket: &Socket, once: bool, as_json: bool, output: &mut dyn Write) -> Result<(), CommandError> {
    let clears = !once && !as_json && io::stdout().is_terminal();
    let period = if once { SHORT } else { PERIOD };
    let mut before = socket.get("status")?;
    loop {
        thread::sleep(period);
        let now = socket.get("status")?;
        let busiest = busiest(rows::all(socket, "clients", PAGES_MAX)?);
        // By the broker's clock: what this program waits for is not counted.
        let seconds = show::number(&now, "uptimeSeconds").saturating_sub(show::number(&before, "uptimeSeconds"));
        let rates = rates(&before, &now, seconds.max(1));
        if as_json {
            show::json(&as_document(&now, &rates, busiest), output)?;
        } else {
            if clears {
                write!(output, "{CLEAR}")?;
            }
            view(&now, &rates, &busiest, output)?;
        }
        output.flush()?;
        if once {
            return Ok(());
        }
        before = now;
    }
}

/// What each counter grew by in a second.
fn rates(before: &Value, now: &Value, seconds: u64) -> [u64; RATES.len()] {
    let count = |document: &Value, name| document.get("counters").map_or(0, |counters| show::number(counters, name));
    RATES.map(|(name, _)| count(now, name).saturating_sub(count(before, name)) / seconds)
}

/// The clients with the most messages that wait for them.
fn busiest(mut clients: Vec<Value>) -> Vec<Value> {
    let waiting = |client: &Value| show::number(client, "queued") + show::number(client, "inFlight");
    clients.retain(|client| waiting(client) > 0);
    clients.sort_by_key(|client| core::cmp::Reverse(waiting(client)));
    clients.truncate(CLIENTS_MAX);
    clients
}

fn as_document(now: &Value, rates: &[u64], busiest: Vec<Value>) -> Value {
    let per_second: serde_json::Map<String, Value> =
        RATES.iter().zip(rates).map(|((name, _), rate)| ((*name).to_owned(), json!(rate))).collect();
    json!({
        "nowUnix": now.get("nowUnix"),
        "uptimeSeconds": now.get("uptimeSeconds"),
        "health": now.get("health").and_then(|health| health.get("state")),
        "perSecond": per_second,
        "tables": now.get("tables"),
        "clients": busiest,
    })
}

fn view(now: &Value, rates: &[u64], busiest: &[Value], output: &mut dyn Write) -> io::Result<()> {
    let health = now.get("health").map_or_else(|| "-".to_owned(), |health| show::text(health, "state"));
    let up = show::duration(show::number(now, "uptimeSeconds"));
    writeln!(output, "{}  {}, up {up}\n", show::time(now, "nowUnix"), Escaped(&health))?;
    let mut table = Table::new(&[("A SECOND", Align::Left), ("", Align::Right)]);
    for ((_, name), rate) in RATES.iter().zip(rates) {
        table.row([(*name).to_owned(), rate.to_string()]);
    }
    table.write("", output)?;
    status::tables(now, output)?;
    let heads = [
        ("LONGEST QUEUES", Align::Left),
        ("QUEUED", Align::Right),
        ("IN FLIGHT", Align::Right),
        ("ADDRESS", Align::Left),
    ];
    let mut table = Table::new(&heads);
    for client in busiest {
        table.row([
            show::text(client, "clientId"),
            show::numeral(client, "queued"),
            show::numeral(client, "inFlight"),
            show::text(client, "address"),
        ]);
    }
    if !table.is_empty() {
        writeln!(output)?;
        table.write("", output)?;
    }
    writeln!(output)
}
