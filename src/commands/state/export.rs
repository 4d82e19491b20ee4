//! What `state export` writes: a JSON object a line, of everything live.
//!
//! Sessions in the order in which they were made, each with what belongs to it; retained messages by topic; messages in the
//! order of the log. The same state gives the same lines. Times are what was left when the log ended.

use crate::store::image::{Image, Message, Moment, Session, Subscription};
use crate::store::record::RETAIN;
use crate::store::{Folder, Recovered};
use crate::time::Now;
use base64ct::{Base64, Encoding as _};
use core::fmt::Write as _;
use serde::Serialize;
use std::io::{self, Write};

/// A line. Bytes are base64.
#[derive(Serialize)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase")]
enum Line<'a> {
    Session {
        id: u64,
        client: &'a str,
        port: u16,
        judges: u64,
        stale: bool,
        method: u8,
        principal: String,
        username: Option<&'a str>,
        attributes: String,
        keeps_queue: bool,
        connected: bool,
        expiry_seconds: u32,
        ends_in_milliseconds: Option<u64>,
        will: Option<Will>,
    },
    Subscription {
        session: u64,
        id: u64,
        group: Option<&'a str>,
        filter: &'a str,
        options: u8,
        identifier: Option<u32>,
    },
    Delivery {
        session: u64,
        id: u64,
        message: Option<u64>,
        qos: u8,
        retain: bool,
        identifiers: &'a [u32],
        packet_identifier: Option<u16>,
    },
    Received {
        session: u64,
        packet_identifier: u16,
    },
    Retained {
        topic: &'a str,
        message: u64,
        qos: u8,
    },
    Message {
        id: u64,
        topic: String,
        properties: String,
        payload: String,
        expires_in_milliseconds: Option<u64>,
    },
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Will {
    message: u64,
    qos: u8,
    retain: bool,
    delay_seconds: u32,
    expiry_seconds: Option<u32>,
    due_in_milliseconds: Option<u64>,
}

/// Writes all lines.
///
/// # Errors
/// Of the stream, or of the disk.
pub fn write(recovered: &mut Recovered<Folder>, output: &mut dyn Write, diagnostics: &mut dyn Write) -> io::Result<()> {
    super::warn_of_damage(recovered, diagnostics)?;
    let image = &recovered.image;
    for (id, session) in &image.sessions {
        write_session(image, *id, session, output)?;
    }
    for (topic, retained) in &image.retained {
        put(&Line::Retained { topic, message: retained.message, qos: retained.qos }, output)?;
    }
    // The image goes with the log while bytes are read.
    let left: std::collections::HashMap<u64, Option<u64>> =
        image.messages.iter().map(|(id, message)| (*id, remaining(image, message.expires))).collect();
    let mut written = Ok(());
    recovered.each_message(|id, message, content| {
        if written.is_ok() {
            written = put(&message_line(id, message, content, left.get(&id).copied().flatten()), output);
        }
    })?;
    written
}

fn put(line: &Line<'_>, output: &mut dyn Write) -> io::Result<()> {
    writeln!(output, "{}", super::ascii(&serde_json::to_string(line)?))
}

fn remaining(image: &Image, moment: Option<Moment>) -> Option<u64> {
    moment.map(|moment| image.remaining(moment, Now::default(), false))
}

fn write_session(image: &Image, id: u64, session: &Session, output: &mut dyn Write) -> io::Result<()> {
    let Some(about) = &session.about else { return Ok(()) };
    let will = about.will.map(|will| Will {
        message: will.message,
        qos: will.qos,
        retain: will.retain,
        delay_seconds: will.delay_seconds,
        expiry_seconds: will.expiry_seconds,
        due_in_milliseconds: remaining(image, about.will_due),
    });
    let mut principal = String::new();
    for byte in about.principal {
        let _ = write!(principal, "{byte:02x}");
    }
    let line = Line::Session {
        id,
        client: &about.client,
        port: about.port,
        judges: about.judges,
        stale: about.stale,
        method: about.method,
        principal,
        username: about.username.as_deref(),
        attributes: Base64::encode_string(&about.attributes),
        keeps_queue: about.keeps_queue,
        connected: about.connected,
        expiry_seconds: about.expiry_seconds,
        ends_in_milliseconds: remaining(image, about.ends),
        will,
    };
    put(&line, output)?;
    for (subscription, known) in &session.subscriptions {
        let Subscription { group, filter, options, identifier, .. } = known;
        let (group, options, identifier) = (group.as_deref(), *options, *identifier);
        put(&Line::Subscription { session: id, id: *subscription, group, filter, options, identifier }, output)?;
    }
    for (delivery, known) in &session.deliveries {
        let line = Line::Delivery {
            session: id,
            id: *delivery,
            message: known.message,
            qos: known.flags & !RETAIN,
            retain: known.flags & RETAIN != 0,
            identifiers: &known.identifiers,
            packet_identifier: known.packet_identifier,
        };
        put(&line, output)?;
    }
    for packet_identifier in session.received.keys() {
        put(&Line::Received { session: id, packet_identifier: *packet_identifier }, output)?;
    }
    Ok(())
}

fn message_line(id: u64, message: &Message, content: &[u8], expires_in_milliseconds: Option<u64>) -> Line<'static> {
    let (topic, rest) = content.split_at(usize::from(message.topic_bytes).min(content.len()));
    let property_bytes = usize::try_from(message.property_bytes).unwrap_or(usize::MAX);
    let (properties, payload) = rest.split_at(property_bytes.min(rest.len()));
    Line::Message {
        id,
        topic: String::from_utf8_lossy(topic).into_owned(),
        properties: Base64::encode_string(properties),
        payload: Base64::encode_string(payload),
        expires_in_milliseconds,
    }
}
