//! An image back into records: everything live, written anew behind what is there, which is free then.
//!
//! For a log that nobody else uses meanwhile. Times stay times of the process that they were of: the clocks of the processes
//! are told again, the oldest first, each before the records with its times, so that what was left of them is left.
//!
//! **Invariant:** it is a sweep like any other: until its end is on the disk, the log tells what it told before.

use super::disk::Disk;
use super::image::{About, Delivery, Message, Moment, Session, Subscription};
use super::journal::{Journal, Urgency};
use super::log::Log;
use super::record::{self, Clock, Identifiers, Receiver, Record};
use super::recovery::{Contents, Recovered};
use crate::time::Instant;
use std::io;

/// Writes everything live anew, and returns the log without the rest.
///
/// # Errors
/// What the system says. The log is as it was then.
pub fn rewrite<D: Disk>(recovered: Recovered<D>) -> io::Result<Log<D>> {
    let Recovered { log, image, last, .. } = recovered;
    let messages = image.messages_in_order();
    let mut sessions: Vec<(u64, &Session)> = image.sessions.iter().map(|(id, session)| (*id, session)).collect();
    sessions.sort_by_key(|(_, session)| process_of(session));
    let clocks: Vec<Clock> = image.clocks().collect();
    // Those of processes of which nothing is left tell nothing.
    let of_sessions = sessions.iter().filter_map(|(_, session)| process_of(session));
    let of_messages = messages.iter().filter_map(|(_, message)| message.expires).map(|expires| expires.process);
    let first = of_sessions.chain(of_messages).min().unwrap_or_else(|| clocks.len().saturating_sub(1));

    let largest = messages.iter().map(|(_, message)| message.at.bytes).max().unwrap_or(0);
    let mut writer = Writer::new(log, largest, last);
    let (mut sessions, mut messages) = (sessions.into_iter().peekable(), messages.into_iter().peekable());
    for process in first..clocks.len().max(first + 1) {
        if let Some(clock) = clocks.get(process) {
            writer.put(&Record::Clock(Clock { boot: true, ..*clock }))?;
        }
        while let Some((id, session)) = sessions.next_if(|(_, session)| process_of(session) <= Some(process)) {
            writer.put_session(id, session)?;
        }
        let is_of = |message: &Message| message.expires.is_none_or(|expires| expires.process <= process);
        while let Some((id, message)) = messages.next_if(|(_, message)| is_of(message)) {
            writer.put_message(id, &message)?;
        }
    }
    for (topic, retained) in &image.retained {
        writer.put(&Record::Retained { message: retained.message, qos: retained.qos, topic })?;
    }
    writer.finish()
}

/// The process that a session's times are of. Both are always told together.
fn process_of(session: &Session) -> Option<usize> {
    let about = session.about.as_ref()?;
    about.ends.or(about.will_due).map(|moment| moment.process)
}

fn milliseconds(moment: Option<Moment>) -> Option<u64> {
    moment.map(|moment| moment.milliseconds)
}

struct Writer<D: Disk> {
    log: Log<D>,
    journal: Journal,
    contents: Contents,
}

impl<D: Disk> Writer<D> {
    /// Begins a sweep, for messages of up to `largest` bytes.
    fn new(log: Log<D>, largest: usize, last: u64) -> Self {
        let packet_bytes = u32::try_from(largest).unwrap_or(u32::MAX);
        let mut journal = Journal::new(packet_bytes, 0, last);
        journal.begin_sweep();
        Self { log, journal, contents: Contents::default() }
    }

    fn put(&mut self, record: &Record<'_>) -> io::Result<()> {
        self.journal.append(record, Urgency::Soon);
        self.write(false)
    }

    fn put_session(&mut self, id: u64, session: &Session) -> io::Result<()> {
        let Some(about) = &session.about else { return Ok(()) };
        self.put(&Record::Session(told_of(id, about)))?;
        for (subscription, known) in &session.subscriptions {
            let Subscription { group, filter, options, identifier, .. } = known;
            self.put(&Record::Subscription(record::Subscription {
                session: id,
                id: *subscription,
                group: group.as_deref(),
                filter,
                options: *options,
                identifier: *identifier,
            }))?;
        }
        let mut scratch = Vec::new();
        for (delivery, known) in &session.deliveries {
            let Delivery { message, flags, identifiers, packet_identifier, .. } = known;
            scratch.resize(4 * identifiers.len(), 0);
            let identifiers = Identifiers::of(identifiers, &mut scratch);
            let receiver = Receiver { session: id, delivery: *delivery, flags: *flags, identifiers };
            let (message, packet_identifier) = (*message, *packet_identifier);
            self.put(&Record::Delivery(record::Delivery { receiver, message, packet_identifier }))?;
        }
        for packet_identifier in session.received.keys() {
            self.put(&Record::Received { session: id, packet_identifier: *packet_identifier })?;
        }
        Ok(())
    }

    fn put_message(&mut self, id: u64, message: &Message) -> io::Result<()> {
        let content = self.contents.of(self.log.disk(), message.at)?;
        let (topic_bytes, property_bytes) = (message.topic_bytes, message.property_bytes);
        let record = record::Message { id, topic_bytes, property_bytes, expires: milliseconds(message.expires) };
        self.journal.append_with(&Record::Message(record), Urgency::Soon, |body| {
            body.put_zeros(content.len())?.copy_from_slice(content);
            Ok(())
        });
        self.write(false)
    }

    /// Writes a batch if it is full, or the last one.
    fn write(&mut self, is_last: bool) -> io::Result<()> {
        if self.journal.is_lost() {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        if !is_last && self.journal.has_room_for_sweep() {
            return Ok(());
        }
        if let Some(batch) = self.journal.next_batch(Instant::ZERO) {
            self.log.write(&batch)?;
            self.journal.written(batch);
        }
        Ok(())
    }

    fn finish(mut self) -> io::Result<Log<D>> {
        self.journal.end_sweep();
        self.write(true)?;
        Ok(self.log)
    }
}

fn told_of(id: u64, about: &About) -> record::Session<'_> {
    record::Session {
        id,
        client: &about.client,
        port: about.port,
        judges: about.judges,
        stale: about.stale,
        method: about.method,
        principal: about.principal,
        username: about.username.as_deref(),
        attributes: &about.attributes,
        keeps_queue: about.keeps_queue,
        connected: about.connected,
        expiry_seconds: about.expiry_seconds,
        ends: milliseconds(about.ends),
        will: about.will,
        will_due: milliseconds(about.will_due),
    }
}
