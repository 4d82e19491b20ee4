//! What connections cost that do nothing, before and after some traffic.

use crate::Failure;
use crate::client::Client;
use crate::measure;
use crate::options::Options;
use crate::pki;
use crate::wire::{self, kind};
use serde_json::{Value, json};
use std::thread;
use std::time::Duration;

/// Messages of each client to itself, and bytes of each.
const MESSAGES: usize = 8;
const PAYLOAD_BYTES: usize = 4_096;
/// What a broker does when it has nothing to do is done after this time.
const SETTLE: Duration = Duration::from_millis(1_500);

/// Runs the load.
pub fn run(options: &Options) -> Result<Value, Failure> {
    let clients = options.tls.as_ref().map(|folder| pki::clients(folder, false)).transpose()?;
    let config = |number: usize| clients.as_ref().and_then(|clients| clients.get(number % clients.len()));
    let start = measure::resident(options.pid)?;
    // The first one makes a broker ready for all.
    drop(Client::open(options.port, config(0), "first")?);
    thread::sleep(SETTLE);
    let before = measure::resident(options.pid)?;
    let mut open = Vec::new();
    for number in 0..options.connections {
        open.push(Client::open(options.port, config(number), &format!("idle-{number}"))?.0);
    }
    thread::sleep(SETTLE);
    let quiet = measure::resident(options.pid)?;
    let payload = [b'x'; PAYLOAD_BYTES];
    for (number, client) in open.iter_mut().enumerate() {
        let topic = format!("idle/{number}");
        client.subscribe(std::slice::from_ref(&topic), 0)?;
        for _ in 0..MESSAGES {
            wire::publish(&topic, 0, 0, &payload, client.socket.out());
            client.ask(kind::PUBLISH, |packet| packet.publish().map(|_| ()))?;
        }
    }
    thread::sleep(SETTLE);
    let after = measure::resident(options.pid)?;
    for client in &mut open {
        wire::packet(kind::PINGREQ, &[], client.socket.out());
        client.ask(0xD0, |_| Some(()))?;
    }
    let each = |resident: u64| (resident.saturating_sub(before)) as f64 / options.connections.max(1) as f64;
    Ok(json!({
        "connections": options.connections,
        "resident_at_start": start,
        "resident_before": before,
        "bytes_per_connection": each(quiet),
        "bytes_per_connection_after_traffic": each(after),
    }))
}
