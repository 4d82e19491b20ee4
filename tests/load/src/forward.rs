//! The floor: a server that takes CONNECT and SUBSCRIBE as they come and passes PUBLISH packets on as they are. It has no
//! sessions, no identity, no rules, no limits, and takes its clients' word for everything: one buffer a connection, one write
//! a connection and turn.

use crate::Failure;
use crate::client::Client;
use crate::loops::Poller;
use crate::options::Options;
use crate::pki;
use crate::socket::Socket;
use crate::wire::{self, Packet, kind};
use serde_json::Value;
use std::collections::HashMap;
use std::net::{Ipv4Addr, TcpListener};
use std::time::Duration;

const LISTENER: u64 = u64::MAX;

/// Which connections want a topic. As many filters as this load has: one level, or all of one.
#[derive(Default)]
struct Routes {
    exact: HashMap<Vec<u8>, Vec<usize>>,
    /// Of `load/+`.
    all: Vec<usize>,
}

impl Routes {
    fn subscribe(&mut self, connection: usize, packet: &Packet<'_>) {
        let mut filters = packet.body.get(3..).unwrap_or_default();
        while let Some((length, rest)) = filters.split_first_chunk::<2>() {
            let (filter, rest) = rest.split_at(usize::from(u16::from_be_bytes(*length)).min(rest.len()));
            if filter.ends_with(b"/+") {
                self.all.push(connection);
            } else {
                self.exact.entry(filter.to_vec()).or_default().push(connection);
            }
            filters = rest.get(1..).unwrap_or_default();
        }
    }

    fn of(&self, topic: &[u8]) -> Vec<usize> {
        let exact = self.exact.get(topic).into_iter().flatten();
        exact.chain(&self.all).copied().collect()
    }
}

/// Serves until its process is ended.
pub fn run(options: &Options) -> Result<Value, Failure> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, options.port))?;
    let tls = options.tls.as_ref().map(|folder| pki::server(folder)).transpose()?;
    listener.set_nonblocking(true)?;
    let mut poller = Poller::new()?;
    poller.watch(&listener, LISTENER)?;
    let mut routes = Routes::default();
    let mut connections: Vec<Option<Client>> = Vec::new();
    // For each connection: the topic that it published to last, and who gets it.
    let mut last: Vec<(Vec<u8>, Vec<usize>)> = Vec::new();
    let mut changed = Vec::new();
    loop {
        changed.clear();
        for ready in poller.wait(Duration::from_secs(60))? {
            if ready.token == LISTENER {
                while let Ok((stream, _)) = listener.accept() {
                    let socket = Socket::accepted(stream, tls.as_ref())?;
                    poller.watch(&socket.stream, connections.len() as u64)?;
                    connections.push(Some(Client::new(socket)));
                    last.push((Vec::new(), Vec::new()));
                }
                continue;
            }
            let index = ready.token as usize;
            let Some(mut client) = connections[index].take() else { continue };
            let is_open = client.receive(|packet, out| {
                if packet.first & 0xF0 != kind::PUBLISH {
                    answer(&mut routes, index, packet, out);
                    return Ok(());
                }
                let (topic, identifier, _) = packet.publish().ok_or("a PUBLISH that is not understood")?;
                match packet.first & 0x06 {
                    0x02 => wire::acknowledge(kind::PUBACK, identifier, out),
                    0x04 => wire::acknowledge(kind::PUBREC, identifier, out),
                    _ => {}
                }
                let (last_topic, receivers) = &mut last[index];
                if last_topic != topic {
                    *receivers = routes.of(topic);
                    topic.clone_into(last_topic);
                }
                for receiver in receivers.iter() {
                    if let Some(client) = connections[*receiver].as_mut() {
                        if client.socket.out().is_empty() {
                            changed.push(*receiver);
                        }
                        client.socket.out().extend_from_slice(packet.bytes);
                    }
                }
                Ok(())
            });
            if is_open.unwrap_or(false) && client.flush(&poller, ready.token).is_ok() {
                connections[index] = Some(client);
            }
        }
        for index in &changed {
            if let Some(client) = connections[*index].as_mut()
                && client.flush(&poller, *index as u64).is_err()
            {
                connections[*index] = None;
            }
        }
    }
}

/// What a client is told to whatever is no PUBLISH.
fn answer(routes: &mut Routes, connection: usize, packet: Packet<'_>, out: &mut Vec<u8>) {
    match packet.first & 0xF0 {
        kind::CONNECT => wire::packet(kind::CONNACK, &[&[0, 0, 0]], out),
        0x80 => {
            routes.subscribe(connection, &packet);
            let identifier = packet.body.get(..2).unwrap_or_default();
            wire::packet(kind::SUBACK, &[identifier, &[0, 2]], out);
        }
        0x60 | 0x50 => {
            let first = if packet.first & 0xF0 == 0x60 { kind::PUBCOMP } else { kind::PUBREL };
            if let Some((identifier, _)) = packet.acknowledgement() {
                wire::acknowledge(first, identifier, out);
            }
        }
        0xC0 => wire::packet(0xD0, &[], out),
        _ => {}
    }
}
