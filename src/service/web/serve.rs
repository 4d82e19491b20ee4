//! Connections of the doors: accepted, read, answered, ended.

use super::carrier::Stream;
use super::door::Door;
use super::routes::{self, Context};
use super::upload;
use crate::http::{BODY_BYTES_MAX, HEAD_BYTES_MAX, Request, RequestReader, Response, Status};
use async_io::{Async, Timer};
use core::cell::{Cell, RefCell};
use futures_rustls::TlsAcceptor;
use rustls::ServerConfig;
use smol::LocalExecutor;
use smol::future;
use smol::io::{AsyncReadExt as _, AsyncWriteExt as _};
use std::io;
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

/// Connections that one door serves at a time.
pub const CONNECTIONS_MAX: usize = 8;
/// Connections beside those: which are told that there is no more room, or have their answer and are heard out.
const ASIDE_MAX: usize = 8;
/// How long a request may take, the handshake of TLS included.
const REQUEST_TIME: Duration = Duration::from_secs(10);
/// How long a response may take until it is taken.
const RESPONSE_TIME: Duration = Duration::from_secs(30);
/// How long the other side has to read what it was told while it is still talking.
const LINGER_TIME: Duration = Duration::from_secs(2);
/// How much of what it says meanwhile is read and thrown away, bytes.
const LINGER_BYTES_MAX: usize = 2 * 1024 * 1024;
/// How long a door rests when the system has no descriptor or memory left.
const REST: Duration = Duration::from_secs(1);
/// Bytes read at a time.
const READ_BYTES: usize = 2 * 1024;
/// Longest body of a response, bytes; pages end before it.
pub(super) const RESPONSE_BYTES_MAX: usize = 128 * 1024;
/// What the state of a connection takes beside its buffers, bytes.
const TASK_BYTES: usize = 12 * 1024;
/// Bytes that one connection takes at most: request, response, its task. Who sends a bundle has its pieces in place of a response.
pub const CONNECTION_BYTES_MAX: u64 = (HEAD_BYTES_MAX + BODY_BYTES_MAX + RESPONSE_BYTES_MAX + 2 * TASK_BYTES) as u64;
/// Bytes that TLS adds to it: rustls keeps at most 64 KiB of what is to be sent, and a record of what has come.
pub const TLS_BYTES_MAX: u64 = 128 * 1024;

/// Where connections come from.
pub enum Listener {
    /// TCP.
    Tcp(Async<TcpListener>),
    /// A socket in the file system.
    Unix(Async<UnixListener>),
}

/// A door with what stands behind it, however many addresses lead to it.
pub struct Entrance {
    door: Door,
    /// TLS, which is another one when certificate or trust are read again; `None` for a door without.
    tls: Option<RefCell<Arc<ServerConfig>>>,
    served: Seats,
    aside: Seats,
}

impl Entrance {
    /// A door with its TLS, if it has some.
    #[must_use]
    pub fn new(door: Door, tls: Option<Arc<ServerConfig>>) -> Self {
        Self { door, tls: tls.map(RefCell::new), served: Seats::default(), aside: Seats::default() }
    }

    /// Connections from now on have this TLS. A door without TLS stays without.
    pub fn set_tls(&self, tls: Arc<ServerConfig>) {
        if let Some(place) = &self.tls {
            *place.borrow_mut() = tls;
        }
    }

    /// The stream under TLS, where there is TLS.
    async fn greet(&self, stream: Stream) -> io::Result<Stream> {
        let Some(tls) = &self.tls else { return Ok(stream) };
        let acceptor = TlsAcceptor::from(Arc::clone(&*tls.borrow()));
        Ok(Box::pin(acceptor.accept(stream).await?))
    }
}

/// Connections of a door that are there.
#[derive(Clone, Default)]
struct Seats(Rc<Cell<usize>>);

/// One of them.
struct Seat(Rc<Cell<usize>>);

impl Seats {
    fn take(&self, seats_max: usize) -> Option<Seat> {
        let taken = self.0.get();
        (taken < seats_max).then(|| {
            self.0.set(taken + 1);
            Seat(Rc::clone(&self.0))
        })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

/// Serves one way to a door until the executor ends.
pub async fn serve(
    listener: Listener,
    entrance: Rc<Entrance>,
    context: Rc<Context>,
    executor: Rc<LocalExecutor<'static>>,
) {
    loop {
        let accepted = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                // Either the peer has gone already, or the system is out of something.
                log::debug!("diagnostics: cannot accept: {error}");
                Timer::after(REST).await;
                continue;
            }
        };
        if let Some(seat) = entrance.served.take(CONNECTIONS_MAX) {
            let (entrance, context) = (Rc::clone(&entrance), Rc::clone(&context));
            executor
                .spawn(async move {
                    converse(accepted, seat, &entrance, &context).await;
                })
                .detach();
        } else if let (Some(seat), None) = (entrance.aside.take(ASIDE_MAX), &entrance.tls) {
            executor
                .spawn(async move {
                    let _seat = seat;
                    let mut stream = accepted;
                    if send(&mut stream, Status::ServiceUnavailable.into(), false).await {
                        linger(&mut stream).await;
                    }
                })
                .detach();
        }
        // One after the other: what else the executor has comes between two of them.
        future::yield_now().await;
    }
}

impl Listener {
    async fn accept(&self) -> io::Result<Stream> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.get_ref().set_nodelay(true)?;
                Ok(Box::pin(stream))
            }
            Self::Unix(listener) => Ok(Box::pin(listener.accept().await?.0)),
        }
    }
}

/// One connection: one request, one response.
async fn converse(stream: Stream, seat: Seat, entrance: &Entrance, context: &Context) {
    let mut held = None;
    let reading = async {
        let stream = held.insert(entrance.greet(stream).await?);
        read(stream).await
    };
    let read = within(REQUEST_TIME, reading).await;
    // Without a stream there was no handshake, and nobody who could be told.
    let Some(mut stream) = held else { return };
    let (response, head_only) = match read {
        None => (Status::RequestTimeout.into(), false),
        Some(Err(_)) => return,
        Some(Ok(Err(response))) => (response, false),
        Some(Ok(Ok(request))) => {
            // The times of a body that is streamed are its own.
            let answered = match request.stream {
                Some(body) => upload::receive(&mut stream, &request, body, &entrance.door, context).await,
                None => within(RESPONSE_TIME, respond(&request, &entrance.door, context)).await,
            };
            let Some(response) = answered else { return };
            (response, request.head_only)
        }
    };
    if send(&mut stream, response, head_only).await {
        // Who has been served makes room for the next one, before he can know it.
        drop(seat);
        if let Some(_aside) = entrance.aside.take(ASIDE_MAX) {
            linger(&mut stream).await;
        }
    }
}

async fn respond(request: &Request, door: &Door, context: &Context) -> Response {
    let response = match door.admit(request) {
        Ok(()) => routes::answer(context, request).await,
        Err(response) => response,
    };
    log::debug!(
        "diagnostics: {:?} /{} answered with {}",
        request.method,
        request.segments.join("/").escape_debug(),
        response.status as u16
    );
    if response.body.len() > RESPONSE_BYTES_MAX { Status::InternalServerError.into() } else { response }
}

/// The request, or the answer to what is none.
async fn read(stream: &mut Stream) -> io::Result<Result<Request, Response>> {
    // No more at a time than the reader keeps behind a head.
    const { assert!(READ_BYTES <= BODY_BYTES_MAX) };
    let mut reader = RequestReader::streaming(upload::is_target);
    let mut piece = [0; READ_BYTES];
    loop {
        let bytes = stream.read(&mut piece).await?;
        if bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        match reader.push(piece.get(..bytes).unwrap_or_default()) {
            Ok(None) => {}
            Ok(Some(request)) => return Ok(Ok(request)),
            Err(response) => return Ok(Err(response)),
        }
    }
}

/// Sends the response and says that nothing more comes. Returns whether the other side can have got it.
async fn send(stream: &mut Stream, response: Response, head_only: bool) -> bool {
    let sending = async {
        stream.write_all(&response.head()).await?;
        if !head_only {
            stream.write_all(&response.body).await?;
        }
        // The last words of TLS, and what was written goes out.
        stream.close().await
    };
    let sent = matches!(within(RESPONSE_TIME, sending).await, Some(Ok(())));
    if sent {
        stream.finish();
    }
    sent
}

/// Reads for a moment what the other side still says: were it left unread, the system would reset the connection, and the response
/// might be lost on the way. RFC 9112 §9.6.
async fn linger(stream: &mut Stream) {
    let listening = async {
        let mut piece = [0; READ_BYTES];
        let mut heard = 0;
        while let Ok(bytes @ 1..) = stream.read(&mut piece).await {
            heard += bytes;
            if heard > LINGER_BYTES_MAX {
                return;
            }
        }
    };
    within(LINGER_TIME, listening).await;
}

/// What `work` gives, if it does so in time.
pub(super) async fn within<T>(time: Duration, work: impl Future<Output = T>) -> Option<T> {
    let late = async {
        Timer::after(time).await;
        None
    };
    future::or(async { Some(work.await) }, late).await
}
