//! How other tasks of the executor reach the broker: they ask the loop between two turns, or connect to it as clients.

use super::system::SystemNetwork;
use super::turn::Turn;
use crate::broker::INSIDE_PREFIX;
use crate::time::Now;
use async_io::Async;
use smol::channel::{self, Receiver, Sender};
use std::io;
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

/// Questions that wait for the loop; more tasks than that wait for room.
const ASKS_MAX: usize = 32;

/// Something to be done between two turns. Everybody waits for it: it is to be short.
pub type Ask = Box<dyn FnOnce(&mut Turn<SystemNetwork>, Now)>;

/// The way to the loop, for tasks beside it.
#[derive(Clone)]
pub struct Inside {
    asks: Sender<Ask>,
}

impl Inside {
    /// The way, and where the loop gets what comes by it.
    #[must_use]
    pub fn new() -> (Self, Receiver<Ask>) {
        let (asks, asked) = channel::bounded(ASKS_MAX);
        (Self { asks }, asked)
    }

    /// Has the loop do something, and returns what came of it; `None` once the broker stops.
    pub async fn ask<R: 'static>(&self, what: impl FnOnce(&mut Turn<SystemNetwork>, Now) -> R + 'static) -> Option<R> {
        let (answer, answered) = channel::bounded(1);
        let ask: Ask = Box::new(move |turn, now| {
            // Who asked may have given up.
            let _ = answer.try_send(what(turn, now));
        });
        self.asks.send(ask).await.ok()?;
        answered.recv().await.ok()
    }

    /// Connects the insider `name`, of [`crate::broker::Insider::new`]. What follows is MQTT, its CONNECT first, with
    /// the client identifier `$inside/<name>`.
    ///
    /// # Errors
    /// The system has no descriptor left; the configuration has no such insider; the broker stops.
    pub async fn connect(&self, name: &str) -> io::Result<Async<UnixStream>> {
        let (ours, theirs) = UnixStream::pair()?;
        theirs.set_nonblocking(true)?;
        // Reading, writing and closing are the same calls for all sockets.
        let theirs = TcpStream::from(OwnedFd::from(theirs));
        let client_identifier = format!("{INSIDE_PREFIX}{name}");
        match self.ask(move |turn, now| turn.take_in(now, &client_identifier, theirs)).await {
            Some(true) => Async::new(ours),
            Some(false) => Err(io::ErrorKind::NotFound.into()),
            None => Err(io::ErrorKind::ConnectionAborted.into()),
        }
    }
}
