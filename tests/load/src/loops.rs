//! The poller, and time.

use crate::Failure;
use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

const EVENTS_MAX: usize = 1_024;

/// What a socket is ready for.
#[derive(Clone, Copy)]
pub struct Ready {
    /// As given to [`Poller::watch`].
    pub token: u64,
    /// Bytes, or the end; else there is room for bytes.
    pub readable: bool,
}

/// An epoll.
pub struct Poller {
    epoll: OwnedFd,
    events: Vec<Event>,
}

fn flags(write: bool) -> EventFlags {
    if write { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN }
}

impl Poller {
    /// A poller that watches nothing.
    pub fn new() -> Result<Self, Failure> {
        Ok(Self { epoll: epoll::create(CreateFlags::CLOEXEC)?, events: Vec::with_capacity(EVENTS_MAX) })
    }

    /// Names `token` when bytes have come.
    pub fn watch(&self, socket: impl AsFd, token: u64) -> Result<(), Failure> {
        Ok(epoll::add(&self.epoll, socket, EventData::new_u64(token), flags(false))?)
    }

    /// With `write` also when there is room.
    pub fn change(&self, socket: impl AsFd, token: u64, write: bool) -> Result<(), Failure> {
        Ok(epoll::modify(&self.epoll, socket, EventData::new_u64(token), flags(write))?)
    }

    /// Waits for at most `time`.
    pub fn wait(&mut self, time: Duration) -> Result<impl Iterator<Item = Ready> + use<>, Failure> {
        self.events.clear();
        let time = Timespec { tv_sec: time.as_secs() as i64, tv_nsec: i64::from(time.subsec_nanos()) };
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), Some(&time)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ready: Vec<Ready> = self.events.iter().map(ready).collect();
        Ok(ready.into_iter())
    }
}

fn ready(event: &Event) -> Ready {
    let flags = event.flags;
    Ready { token: event.data.u64(), readable: flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) }
}
