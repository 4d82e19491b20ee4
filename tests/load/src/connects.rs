//! Connections that are made and ended: TCP, TLS with certificates on both sides, CONNECT, CONNACK, DISCONNECT.

use crate::Failure;
use crate::client::Client;
use crate::loops::Poller;
use crate::measure;
use crate::options::Options;
use crate::pki;
use crate::socket::Socket;
use crate::wire::{self, kind};
use rustls::ClientConfig;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How much longer the first connection may take than what was asked for.
const FIRST: Duration = Duration::from_secs(20);

/// Runs the load.
pub fn run(options: &Options) -> Result<Value, Failure> {
    let folder = options.tls.as_ref().ok_or("connects needs --tls")?;
    let clients = pki::clients(folder, options.resume)?;
    // Each client once before: what a broker remembers of it, and its ticket, are there.
    for number in 0..clients.len() {
        let mut client = begin(options.port, &clients, number)?;
        client.ask(kind::CONNACK, |packet| packet.connack())?;
        end(&mut client)?;
    }
    let mut poller = Poller::new()?;
    let mut open: Vec<Option<Client>> = Vec::new();
    let mut next = 0;
    for place in 0..options.at_once {
        open.push(Some(start(options.port, &clients, &mut next, &poller, place)?));
    }
    let (begin, broker, own) = (Instant::now(), measure::cpu(options.pid)?, measure::cpu(std::process::id())?);
    let mut done = 0_u64;
    while begin.elapsed() < options.time || done == 0 && begin.elapsed() < options.time + FIRST {
        for ready in poller.wait(Duration::from_millis(100))? {
            let place = ready.token as usize;
            let Some(client) = open[place].as_mut() else { continue };
            let mut accepted = None;
            let is_open = client.receive(|packet, _| {
                if packet.first == kind::CONNACK {
                    accepted = packet.connack().map(|(reason, _)| reason == 0);
                }
                Ok(())
            })?;
            client.flush(&poller, ready.token)?;
            match accepted {
                Some(true) => {
                    end(client)?;
                    done += 1;
                    open[place] = Some(start(options.port, &clients, &mut next, &poller, place)?);
                }
                Some(false) => return Err("a connection was refused".into()),
                None if !is_open => return Err("the broker closed a connection".into()),
                None => {}
            }
        }
    }
    let seconds = begin.elapsed().as_secs_f64();
    let broker = (measure::cpu(options.pid)? - broker).as_secs_f64();
    let own = (measure::cpu(std::process::id())? - own).as_secs_f64();
    Ok(json!({
        "connects": done,
        "seconds": seconds,
        "broker_cpu_seconds": broker,
        "load_cpu_seconds": own,
        "cpu_ms_per_connect": broker * 1e3 / done as f64,
    }))
}

fn begin(port: u16, clients: &[Arc<ClientConfig>], number: usize) -> Result<Client, Failure> {
    let mut client = Client::new(Socket::connect(port, clients.get(number % clients.len()))?);
    wire::connect(&format!("client-{number}"), client.socket.out());
    Ok(client)
}

fn start(
    port: u16,
    clients: &[Arc<ClientConfig>],
    next: &mut usize,
    poller: &Poller,
    place: usize,
) -> Result<Client, Failure> {
    let mut client = begin(port, clients, *next % clients.len())?;
    *next += 1;
    poller.watch(&client.socket.stream, place as u64)?;
    client.flush(poller, place as u64)?;
    Ok(client)
}

fn end(client: &mut Client) -> Result<(), Failure> {
    wire::packet(kind::DISCONNECT, &[], client.socket.out());
    client.socket.flush()?;
    client.socket.close_notify();
    client.socket.flush()?;
    Ok(())
}
