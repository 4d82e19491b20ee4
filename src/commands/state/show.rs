//! What `state inspect` and `state verify` say.

use crate::config::diagnostic::Escaped;
use crate::store::image::Session;
use crate::store::{Damage, Disk, FORMAT, Image, Recovered, Report};
use crate::time::{Now, UnixTime};
use serde::Serialize;
use std::io::{self, Write};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Folder<'a> {
    format: u16,
    segments: usize,
    records: u64,
    bytes: u64,
    intact: bool,
    missing: u64,
    damages: Vec<Damaged>,
    /// Records of the last batch, which was never finished.
    unfinished: u64,
    /// What waited for a message that is missing.
    orphans: u64,
    clock: Option<Clock>,
    retained: usize,
    messages: usize,
    sessions: Vec<Row<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Clock {
    time: String,
    trusted: bool,
    uptime_milliseconds: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Damaged {
    segment: String,
    offset: usize,
    first: u64,
    count: u64,
}

/// A session.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Row<'a> {
    id: u64,
    client: &'a str,
    username: Option<&'a str>,
    connected: bool,
    expiry_seconds: u32,
    ends_in_milliseconds: Option<u64>,
    has_will: bool,
    subscriptions: usize,
    queued: usize,
    in_flight: usize,
    received: usize,
}

impl<'a> Row<'a> {
    fn of(image: &Image, id: u64, session: &'a Session) -> Option<Self> {
        let about = session.about.as_ref()?;
        let in_flight = session.deliveries.values().filter(|delivery| delivery.packet_identifier.is_some()).count();
        Some(Self {
            id,
            client: &about.client,
            username: about.username.as_deref(),
            connected: about.connected,
            expiry_seconds: about.expiry_seconds,
            // Without what has passed since the log ended, which only the broker can judge.
            ends_in_milliseconds: about.ends.map(|ends| image.remaining(ends, Now::default(), false)),
            has_will: about.will.is_some(),
            subscriptions: session.subscriptions.len(),
            queued: session.deliveries.len() - in_flight,
            in_flight,
            received: session.received.len(),
        })
    }
}

fn damaged(report: &Report) -> Vec<Damaged> {
    let damaged = |damage: &Damage| {
        let Damage { segment, offset, first, count } = *damage;
        Damaged { segment: format!("{segment:016x}"), offset, first, count }
    };
    report.damages.iter().map(damaged).collect()
}

fn described<D: Disk>(recovered: &Recovered<D>) -> Folder<'_> {
    let Recovered { image, report, .. } = recovered;
    let clock = image.last_clock().map(|clock| Clock {
        time: UnixTime(clock.unix).to_string(),
        trusted: clock.trusted,
        uptime_milliseconds: clock.instant,
    });
    Folder {
        format: FORMAT,
        segments: report.segments,
        records: report.records,
        bytes: report.bytes,
        intact: report.missing == 0,
        missing: report.missing,
        damages: damaged(report),
        unfinished: report.cut,
        orphans: image.orphans,
        clock,
        retained: image.retained.len(),
        messages: image.messages.len(),
        sessions: image.sessions.iter().filter_map(|(id, session)| Row::of(image, *id, session)).collect(),
    }
}

/// One JSON object.
///
/// # Errors
/// Of the stream.
pub fn inspect_json<D: Disk>(recovered: &Recovered<D>, output: &mut dyn Write) -> io::Result<()> {
    writeln!(output, "{}", super::ascii(&serde_json::to_string_pretty(&described(recovered))?))
}

/// Text.
///
/// # Errors
/// Of the stream.
pub fn inspect<D: Disk>(recovered: &Recovered<D>, output: &mut dyn Write) -> io::Result<()> {
    let folder = described(recovered);
    let Folder { format, segments, records, bytes, .. } = &folder;
    writeln!(output, "format {format}: {records} records, {bytes} bytes in {segments} segments")?;
    match &folder.clock {
        Some(Clock { time, trusted: true, .. }) => writeln!(output, "written until {time}")?,
        Some(Clock { time, trusted: false, .. }) => {
            writeln!(output, "written until {time} by a clock that was not set")?
        }
        None => {}
    }
    writeln!(output, "{} messages, {} of them retained", folder.messages, folder.retained)?;
    writeln!(output, "sessions: {}", folder.sessions.len())?;
    for row in &folder.sessions {
        write!(output, "  {}: ", Escaped(row.client))?;
        match row.ends_in_milliseconds {
            _ if row.connected => write!(output, "connected, kept for {} s", row.expiry_seconds)?,
            Some(milliseconds) => write!(output, "away, ends in {} s", milliseconds / 1_000)?,
            None => write!(output, "away, never ends")?,
        }
        let (queued, in_flight) = (row.queued, row.in_flight);
        write!(output, "; {} subscriptions, {queued} queued, {in_flight} in flight", row.subscriptions)?;
        writeln!(output, "{}", if row.has_will { ", a will" } else { "" })?;
    }
    show_damage(&recovered.report, output)
}

/// Whether everything reads.
///
/// # Errors
/// Of the stream.
pub fn verify(report: &Report, json: bool, output: &mut dyn Write) -> io::Result<()> {
    #[derive(Serialize)]
    struct Verdict {
        intact: bool,
        records: u64,
        missing: u64,
        damages: Vec<Damaged>,
        unfinished: u64,
    }
    if json {
        let (records, missing, unfinished) = (report.records, report.missing, report.cut);
        let verdict = Verdict { intact: missing == 0, records, missing, damages: damaged(report), unfinished };
        return writeln!(output, "{}", super::ascii(&serde_json::to_string_pretty(&verdict)?));
    }
    if report.missing == 0 {
        writeln!(output, "intact: {} records in {} segments", report.records, report.segments)?;
    }
    show_damage(report, output)
}

fn show_damage(report: &Report, output: &mut dyn Write) -> io::Result<()> {
    if report.missing > 0 {
        writeln!(output, "damaged: {} records do not read", report.missing)?;
        for damage in &report.damages {
            writeln!(output, "  {damage}")?;
        }
    }
    if report.cut > 0 {
        writeln!(output, "{} records at the end were never finished, and do not count", report.cut)?;
    }
    Ok(())
}
