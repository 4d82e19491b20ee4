//! One MQTT client: a connection, and the bytes of it that are no whole packet yet.

use crate::Failure;
use crate::loops::Poller;
use crate::socket::Socket;
use crate::wire::{self, Packet, kind};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustls::ClientConfig;
use std::sync::Arc;

/// How long a broker may take to answer while everything is set up.
const PATIENCE: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

/// A client.
pub struct Client {
    /// Its connection.
    pub socket: Socket,
    received: Vec<u8>,
    /// Whether the poller is asked for room too.
    awaits_room: bool,
}

impl Client {
    /// A client that has sent nothing.
    pub fn new(socket: Socket) -> Self {
        Self { socket, received: Vec::new(), awaits_room: false }
    }

    /// Connects, and waits for CONNACK. Also the Receive Maximum of the broker.
    pub fn open(port: u16, tls: Option<&Arc<ClientConfig>>, identifier: &str) -> Result<(Self, u16), Failure> {
        let mut client = Self::new(Socket::connect(port, tls)?);
        wire::connect(identifier, client.socket.out());
        let (reason, receive_maximum) = client.ask(kind::CONNACK, |packet| packet.connack())?;
        if reason != 0 {
            return Err(format!("CONNACK 0x{reason:02x} for {identifier}").into());
        }
        Ok((client, receive_maximum))
    }

    /// Subscribes, and waits for SUBACK.
    pub fn subscribe(&mut self, filters: &[String], qos: u8) -> Result<(), Failure> {
        for filters in filters.chunks(200) {
            wire::subscribe(1, filters, qos, self.socket.out());
            let refused = self.ask(kind::SUBACK, |packet| Some(packet.body.iter().skip(3).any(|code| *code > 2)))?;
            if refused {
                return Err("a subscription was refused".into());
            }
        }
        Ok(())
    }

    /// Sends what is in `out`, and reads until a packet of this kind has come.
    pub fn ask<T>(&mut self, awaited: u8, mut read: impl FnMut(Packet<'_>) -> Option<T>) -> Result<T, Failure> {
        loop {
            let mut answer = None;
            let room = if self.socket.flush()? { PollFlags::OUT } else { PollFlags::empty() };
            let is_open = self.receive(|packet, _| {
                if packet.first & 0xF0 == awaited & 0xF0 {
                    answer = Some(read(packet).ok_or("a packet that is not understood"));
                }
                Ok(())
            })?;
            match answer {
                Some(answer) => return Ok(answer?),
                None if !is_open => return Err("the broker closed a connection".into()),
                None => {}
            }
            self.socket.flush()?;
            let mut descriptor = [PollFd::new(&self.socket.stream, PollFlags::IN | room)];
            if poll(&mut descriptor, Some(&PATIENCE))? == 0 {
                return Err("no answer in 10 s".into());
            }
        }
    }

    /// Reads what has come and hands over whole packets, with the buffer for answers. Returns whether the peer is there.
    pub fn receive(
        &mut self,
        mut take: impl FnMut(Packet<'_>, &mut Vec<u8>) -> Result<(), Failure>,
    ) -> Result<bool, Failure> {
        let is_open = self.socket.read(&mut self.received)?;
        let mut at = 0;
        while let Some(packet) = wire::front(&self.received[at..]) {
            take(packet, self.socket.out())?;
            at += packet.bytes.len();
        }
        self.received.drain(..at);
        Ok(is_open)
    }

    /// Sends what there is, and asks the poller for room if need be.
    pub fn flush(&mut self, poller: &Poller, token: u64) -> Result<(), Failure> {
        let more = self.socket.flush()?;
        if more != self.awaits_room {
            self.awaits_room = more;
            poller.change(&self.socket.stream, token, more)?;
        }
        Ok(())
    }
}
