//! `POST /api/v1/update`: a bundle comes in, piece by piece, and goes to the disk.
//!
//! In: a request whose body is still on its way. Out: the file that PID 1 is told of ([`crate::service::Updates`]), and 202; or why
//! not. Who may send one is judged before its first byte is asked for, and its header before a byte is written.
//!
//! **Invariants:** a piece of 64 KiB is in memory, and the next one is read when it has been written; the loop waits for no disk;
//! a sender that rests is waited for 30 s, and all of it takes 20 minutes at most. What is in the bundle is not believed here: PID 1
//! judges it.

use super::api;
use super::carrier::Stream;
use super::door::Door;
use super::routes::Context;
use super::serve::within;
use crate::bundle::{HEADER_BYTES_MAX, Header, Manifest};
use crate::config::diagnostic::Escaped;
use crate::http::{BodyStream, Request, Response, Status};
use crate::service::{UpdateFault, updates};
use smol::io::{AsyncReadExt as _, AsyncWriteExt as _};
use std::fs::File;
use std::io;
use std::time::{Duration, Instant};

/// How long a sender may rest.
const REST_TIME: Duration = Duration::from_secs(30);
/// How long a whole bundle may take.
const WHOLE_TIME: Duration = Duration::from_secs(20 * 60);
/// Bytes that are read before they are written.
const PIECE_BYTES: usize = 64 * 1024;

/// Whether this path, in decoded segments, is that of bundles.
pub(super) fn is_target(segments: &[String]) -> bool {
    segments.iter().map(String::as_str).eq(["api", "v1", "update"])
}

/// Takes a bundle in; `None` where the other side has gone.
pub(super) async fn receive(
    stream: &mut Stream,
    request: &Request,
    body: BodyStream,
    door: &Door,
    context: &Context,
) -> Option<Response> {
    let who = match door {
        Door::Exposed { token: Some(_), .. } => format!("{}, with the token", stream.peer()),
        Door::Exposed { token: None, .. } | Door::Loopback { .. } | Door::Control => stream.peer(),
    };
    if let Err(response) = door.admit(request) {
        log::info!("update: {who} may not send one: {}", response.status.reason());
        return Some(response);
    }
    let mut body = Body {
        stream,
        begun: &request.body,
        left: body.bytes,
        awaits_continue: body.awaits_continue,
        end: Instant::now() + WHOLE_TIME,
    };
    let (status, why) = match take_in(&mut body, &who, context).await {
        Ok(manifest) => {
            log::info!("update: {} from {who}: received", described(&manifest));
            context.updates.hand_over(manifest.version);
            return Some(Response { status: Status::Accepted, ..api::update_document(context) });
        }
        Err(Ended::Gone(error)) => {
            log::info!("update: {who} has gone before all of it came: {error}");
            return None;
        }
        Err(Ended::Slow) => (Status::RequestTimeout, "its sender takes too long".to_owned()),
        Err(Ended::NoBundle(why)) => (Status::BadRequest, why),
        Err(Ended::Fault(fault)) => (status(&fault), fault.to_string()),
    };
    log::info!("update: refused what {who} sends: {}", Escaped(&why));
    Some(api::fault(status, &why))
}

/// Why a bundle is not taken in.
enum Ended {
    /// Its sender has gone.
    Gone(io::Error),
    /// Its sender rests too long.
    Slow,
    /// It is none, or none for this gateway.
    NoBundle(String),
    /// It finds no place.
    Fault(UpdateFault),
}

impl From<UpdateFault> for Ended {
    fn from(fault: UpdateFault) -> Self {
        Self::Fault(fault)
    }
}

const fn status(fault: &UpdateFault) -> Status {
    match fault {
        UpdateFault::NotAnImage | UpdateFault::NoPlace | UpdateFault::NotKept => Status::NotImplemented,
        UpdateFault::TooLarge => Status::ContentTooLarge,
        UpdateFault::Receiving | UpdateFault::UnderWay => Status::Conflict,
        UpdateFault::NoRoom => Status::InsufficientStorage,
        UpdateFault::Io(_) => Status::InternalServerError,
    }
}

/// What a bundle is, in a log line. A header has printable text only.
fn described(manifest: &Manifest) -> String {
    let Manifest { kind, board, version, release, bytes, digest: _ } = manifest;
    format!("{} version {version} ({release}) for {board}, {bytes} bytes,", kind.name())
}

async fn take_in(body: &mut Body<'_>, who: &str, context: &Context) -> Result<Manifest, Ended> {
    let bytes = body.left;
    let place = context.updates.reserve(bytes)?;
    // Only now: who was refused above has sent nothing.
    body.allow().await?;
    let mut piece = Vec::with_capacity(PIECE_BYTES);
    while piece.len() < HEADER_BYTES_MAX && body.left > 0 {
        body.read(&mut piece).await?;
    }
    let header = Header::parse(&piece).map_err(|fault| Ended::NoBundle(fault.to_string()))?;
    let manifest = header.manifest().clone();
    check(&manifest, header.length() as u64, bytes, &place.board)?;
    log::info!("update: {} from {who}: is being received", described(&manifest));
    let written = async {
        let file = write(place.open().await?, piece, body).await?;
        Ok(place.finish(file).await?)
    };
    match written.await {
        Ok(()) => Ok(manifest),
        Err(ended) => {
            place.give_up().await;
            Err(ended)
        }
    }
}

/// What PID 1 would say too, before megabytes are sent for it.
fn check(manifest: &Manifest, header_bytes: u64, bytes: u64, board: &str) -> Result<(), Ended> {
    if manifest.bytes.checked_add(header_bytes) != Some(bytes) {
        let why = format!("the bundle has {header_bytes} + {} bytes, and {bytes} are sent", manifest.bytes);
        return Err(Ended::NoBundle(why));
    }
    if !board.is_empty() && manifest.board != board {
        let why = format!("the bundle is for the board {}, and this gateway is a {board}", manifest.board);
        return Err(Ended::NoBundle(why));
    }
    Ok(())
}

/// Writes what has come, and what comes.
async fn write(mut file: File, mut piece: Vec<u8>, body: &mut Body<'_>) -> Result<File, Ended> {
    loop {
        (file, piece) = updates::write(file, piece).await?;
        piece.clear();
        if body.left == 0 {
            return Ok(file);
        }
        while piece.len() < PIECE_BYTES && body.left > 0 {
            body.read(&mut piece).await?;
        }
    }
}

/// A body on its way.
struct Body<'a> {
    stream: &'a mut Stream,
    /// What came with the head, and has not been given out yet.
    begun: &'a [u8],
    /// Bytes that have not been given out.
    left: u64,
    awaits_continue: bool,
    /// When all of it must have come.
    end: Instant,
}

impl Body<'_> {
    /// Tells a sender that waits for it to send. RFC 9110 §10.1.1.
    async fn allow(&mut self) -> Result<(), Ended> {
        // Who has begun already does not wait any more.
        if !self.awaits_continue || !self.begun.is_empty() {
            return Ok(());
        }
        let saying = async {
            self.stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
            self.stream.flush().await
        };
        within(REST_TIME, saying).await.ok_or(Ended::Slow)?.map_err(Ended::Gone)
    }

    /// Adds the next bytes, up to [`PIECE_BYTES`] in all.
    async fn read(&mut self, piece: &mut Vec<u8>) -> Result<(), Ended> {
        let at = piece.len();
        let room = usize::try_from(self.left).unwrap_or(usize::MAX).min(PIECE_BYTES.saturating_sub(at));
        let bytes = if self.begun.is_empty() {
            piece.resize(at + room, 0);
            let read = self.stream.read(piece.get_mut(at..).unwrap_or_default());
            let time = REST_TIME.min(self.end.saturating_duration_since(Instant::now()));
            let bytes = within(time, read).await.ok_or(Ended::Slow)?.map_err(Ended::Gone)?;
            piece.truncate(at + bytes);
            bytes
        } else {
            let (given, rest) = self.begun.split_at(room.min(self.begun.len()));
            piece.extend_from_slice(given);
            self.begun = rest;
            given.len()
        };
        if bytes == 0 {
            return Err(Ended::Gone(io::ErrorKind::UnexpectedEof.into()));
        }
        self.left = self.left.saturating_sub(bytes as u64);
        Ok(())
    }
}
