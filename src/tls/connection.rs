//! One TLS connection, server side.
//!
//! In: ciphertext and plaintext in the caller's buffers. Out: plaintext through a callback, ciphertext at the end of the
//! caller's vector. The caller owns sockets, deadlines and budgets.
//!
//! **Invariants:**
//! - rustls is given one record at a time, so that a call's work is bounded by one record;
//! - rustls keeps positions, not copies, of handshake messages that have not come whole: `pending` holds the bytes they
//!   refer to, and every call into rustls is given all of `pending`, unless rustls will not look at the input;
//! - after a fault rustls is not asked again, except for what it has already queued.

use crate::tls::{ServerTls, TlsFault};
use rustls::pki_types::CertificateDer;
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, EncodeTlsData, EncryptError, UnbufferedStatus};
use rustls::{Error, HandshakeKind, ProtocolVersion};

/// Bytes of a record header.
const HEADER_BYTES: usize = 5;
/// Most bytes after the header (RFC 8446 §5.2). TLS 1.2 would allow more for ciphers that we do not have.
const RECORD_BODY_BYTES_MAX: usize = 16_384 + 256;
/// Most bytes of one record with its header: what a caller's receive buffer must hold.
pub const MAX_TLS_RECORD: usize = HEADER_BYTES + RECORD_BODY_BYTES_MAX;
/// Most bytes of plaintext in one record that is sent.
const PLAINTEXT_BYTES_MAX: usize = 16_384;
/// More than any suite of ours adds to the plaintext of one record: header, nonce, inner type, tag.
const OVERHEAD_BYTES_MAX: usize = HEADER_BYTES + 8 + 1 + 16;
/// Most bytes of records that a connection keeps because a handshake message in them has not come whole. It has room for
/// the longest chain that is accepted (16 KiB) in some hundred fragments.
pub const HANDSHAKE_PENDING_BYTES_MAX: usize = 24 * 1024;
/// The same once the handshake is finished, when nothing longer than a key update comes: a few records of it.
const ESTABLISHED_PENDING_BYTES_MAX: usize = 256;
/// The same until the ClientHello is taken, and most bytes of one record of it. Ordinary ones have 300 to 2,000 bytes;
/// rustls' own copies come to five times as much.
pub const CLIENT_HELLO_BYTES_MAX: usize = 8 * 1024;
/// Bytes that an established connection takes beside the certificates of its peer. Measured at two thirds of that.
pub const SESSION_BYTES_MAX: u64 = 6 * 1024;
/// Bytes that a handshake holds between two of its steps: [`HANDSHAKE_PENDING_BYTES_MAX`], as much again as rustls' copies of
/// the messages, and our flight.
pub const HANDSHAKE_BYTES_MAX: u64 = 64 * 1024;
/// Record types (RFC 8446 §5.1).
const CHANGE_CIPHER_SPEC: u8 = 20;
const HANDSHAKE: u8 = 22;
/// First byte of the version of every record of SSL 3 and TLS.
const VERSION_MAJOR: u8 = 3;

/// What one call of [`TlsConnection::receive`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Received {
    /// Bytes at the front of the input that are done with. The rest is the beginning of a record, or what `more` says.
    pub consumed: usize,
    /// The handshake is finished.
    pub established: bool,
    /// The peer has sent `close_notify`: no more plaintext will come.
    pub peer_closed: bool,
    /// The input still holds a whole record: call again, in this turn or a later one, without waiting for the socket.
    pub more: bool,
}

/// How far a peer has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing has come yet.
    Silent,
    /// The first record has been seen.
    Open,
    /// A fault, or our `close_notify`.
    Ended,
}

/// One connection. Drop it to free everything.
pub struct TlsConnection {
    connection: UnbufferedServerConnection,
    pub(super) pending: Vec<u8>,
    phase: Phase,
    peer_closed: bool,
}

impl core::fmt::Debug for TlsConnection {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("TlsConnection").field("phase", &self.phase).field("pending", &self.pending.len()).finish()
    }
}

impl TlsConnection {
    /// A connection that waits for a ClientHello.
    ///
    /// # Errors
    /// `Internal`, which is a defect of the configuration.
    pub fn accept(server: &ServerTls) -> Result<Self, TlsFault> {
        let connection = UnbufferedServerConnection::new(server.config()).map_err(TlsFault::Internal)?;
        Ok(Self { connection, pending: Vec::new(), phase: Phase::Silent, peer_closed: false })
    }

    /// Takes `ciphertext`, which begins at a record boundary: where the last call's `consumed` ended. It is decrypted in
    /// place; bytes beyond `consumed` are left as they were and must come again, with more behind them. A buffer of
    /// [`MAX_TLS_RECORD`] bytes always suffices for progress.
    ///
    /// Calls `plaintext` for every piece of application data (at most 16 KiB each) and appends to `out` what must be
    /// sent: a handshake flight (the server's chain and about 1 KiB), a ticket, an alert or a key update.
    ///
    /// Until the handshake is finished a call works on one handshake record at most: the ClientHello (one key exchange,
    /// one signature) or what of the client's answer is in one record (chain, signature and Finished, if it packs them
    /// together). Afterwards it works on all whole records of `ciphertext`.
    ///
    /// # Errors
    /// The connection is over. `out` ends with the alert to send, if there is one; the caller sends it and closes.
    pub fn receive(
        &mut self,
        ciphertext: &mut [u8],
        out: &mut Vec<u8>,
        mut plaintext: impl FnMut(&[u8]),
    ) -> Result<Received, TlsFault> {
        let mut consumed = 0;
        loop {
            if self.peer_closed {
                // Nothing after close_notify has a meaning (RFC 8446 §6.1).
                consumed = ciphertext.len();
                break;
            }
            if self.phase == Phase::Ended {
                return Err(TlsFault::Ended);
            }
            let rest = &mut ciphertext[consumed..];
            let Some(record_bytes) = self.whole_record(rest, out)? else { break };
            let record = &mut rest[..record_bytes];
            let step = self.connection.is_handshaking() && record[0] != CHANGE_CIPHER_SPEC;
            self.phase = Phase::Open;
            self.process(record, out, &mut plaintext)?;
            consumed += record_bytes;
            if step {
                break;
            }
        }
        let more = !self.peer_closed && holds_whole_record(&ciphertext[consumed..]);
        Ok(Received { consumed, established: self.is_established(), peer_closed: self.peer_closed, more })
    }

    /// Appends `plaintext` to `out` in records of at most 16 KiB, and a key update where one is due. `out` grows by the
    /// length of `plaintext` and at most 30 bytes for each record.
    ///
    /// # Errors
    /// `NotEstablished` before the handshake is finished, `Ended` after it is over, `KeysExhausted`; in the last case
    /// `out` ends with a `close_notify`, and records of this call that stand before it are good.
    pub fn send(&mut self, plaintext: &[u8], out: &mut Vec<u8>) -> Result<(), TlsFault> {
        if self.phase == Phase::Ended {
            return Err(TlsFault::Ended);
        }
        if !self.is_established() {
            return Err(TlsFault::NotEstablished);
        }
        out.reserve(plaintext.len() + plaintext.len().div_ceil(PLAINTEXT_BYTES_MAX) * OVERHEAD_BYTES_MAX);
        for piece in plaintext.chunks(PLAINTEXT_BYTES_MAX) {
            if let Err(fault) = seal(&mut self.connection, &mut self.pending, piece, out) {
                self.phase = Phase::Ended;
                flush(&mut self.connection, out);
                return Err(fault);
            }
        }
        Ok(())
    }

    /// Appends a `close_notify` to `out`, once; nothing if the handshake is not finished. Nothing can be sent afterwards;
    /// what still comes is refused.
    pub fn close_notify(&mut self, out: &mut Vec<u8>) {
        if self.phase == Phase::Open && self.is_established() {
            notify(&mut self.connection, &mut self.pending, out);
        }
        self.phase = Phase::Ended;
    }

    /// What it means that the transport has ended here.
    ///
    /// # Errors
    /// `PeerClosedDuringHandshake`, or `PeerClosedWithoutNotice`, which is common and harmless to MQTT, whose packets
    /// tell their own length.
    pub fn transport_ended(&self) -> Result<(), TlsFault> {
        if self.peer_closed || self.phase == Phase::Ended {
            Ok(())
        } else if self.is_established() {
            Err(TlsFault::PeerClosedWithoutNotice)
        } else {
            Err(TlsFault::PeerClosedDuringHandshake)
        }
    }

    /// The certificates that the client presented and that were judged good, its own first; empty if there are none or
    /// the handshake is not finished. Those of a resumed session were judged when it began: who relies on them judges
    /// them again.
    #[must_use]
    pub fn peer_chain(&self) -> &[CertificateDer<'static>] {
        if self.is_established() { self.connection.peer_certificates().unwrap_or_default() } else { &[] }
    }

    /// Whether the handshake is finished.
    #[must_use]
    pub fn is_established(&self) -> bool {
        !self.connection.is_handshaking()
    }

    /// Whether the client resumed an earlier session with a ticket instead of showing its certificates.
    #[must_use]
    pub fn is_resumed(&self) -> bool {
        self.connection.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// The version agreed on, for logs; `None` before it is known.
    #[must_use]
    pub fn protocol(&self) -> Option<&'static str> {
        match self.connection.protocol_version()? {
            ProtocolVersion::TLSv1_3 => Some("TLS 1.3"),
            ProtocolVersion::TLSv1_2 => Some("TLS 1.2"),
            // No other version is configured.
            _ => None,
        }
    }

    /// The cipher suite agreed on, for logs; `None` before it is known.
    #[must_use]
    pub fn suite(&self) -> Option<&'static str> {
        self.connection.negotiated_cipher_suite()?.suite().as_str()
    }

    /// Bytes of unfinished handshake messages that are held.
    #[must_use]
    pub fn pending_bytes(&self) -> usize {
        self.pending.len()
    }

    /// Length of the record at the front of `rest`, once it is whole. What cannot become a record is refused by its
    /// header, or by its first byte if nothing came before.
    fn whole_record(&mut self, rest: &[u8], out: &mut Vec<u8>) -> Result<Option<usize>, TlsFault> {
        if self.phase == Phase::Silent {
            let kind_is_wrong = rest.first().is_some_and(|kind| *kind != HANDSHAKE);
            let version_is_wrong = rest.get(1).is_some_and(|major| *major != VERSION_MAJOR);
            if kind_is_wrong || version_is_wrong {
                self.phase = Phase::Ended;
                return Err(TlsFault::NotTls);
            }
        }
        let Some(body_bytes) = body_bytes(rest) else { return Ok(None) };
        if body_bytes > RECORD_BODY_BYTES_MAX {
            self.refuse(out);
            return Err(TlsFault::RecordTooLong);
        }
        let record_bytes = HEADER_BYTES + body_bytes;
        if self.pending.len() + record_bytes > self.pending_bytes_max() {
            self.refuse(out);
            return Err(TlsFault::HandshakeTooLong);
        }
        Ok((rest.len() >= record_bytes).then_some(record_bytes))
    }

    /// Most bytes that may be pending with the next record added.
    fn pending_bytes_max(&self) -> usize {
        let hello_is_taken = match self.connection.protocol_version() {
            None => false,
            // After a HelloRetryRequest the version is known, the key exchange is not.
            Some(ProtocolVersion::TLSv1_3) => self.connection.negotiated_key_exchange_group().is_some(),
            Some(_) => true,
        };
        if hello_is_taken { HANDSHAKE_PENDING_BYTES_MAX } else { CLIENT_HELLO_BYTES_MAX }
    }

    /// Gives one whole record to rustls, behind those of which it still needs the bytes.
    fn process(
        &mut self,
        record: &mut [u8],
        out: &mut Vec<u8>,
        plaintext: &mut dyn FnMut(&[u8]),
    ) -> Result<(), TlsFault> {
        let done = if self.pending.is_empty() {
            drive(&mut self.connection, record, out, plaintext).inspect(|driven| {
                keep(&mut self.pending, &record[driven.used..]);
            })
        } else {
            keep(&mut self.pending, record);
            drive(&mut self.connection, &mut self.pending, out, plaintext).inspect(|driven| {
                self.pending.drain(..driven.used);
                if self.pending.is_empty() {
                    self.pending = Vec::new();
                }
            })
        };
        match done {
            Ok(driven) => {
                self.peer_closed |= driven.peer_closed;
                if self.is_established() && self.pending.len() > ESTABLISHED_PENDING_BYTES_MAX {
                    self.refuse(out);
                    return Err(TlsFault::HandshakeTooLong);
                }
                Ok(())
            }
            Err(fault) => {
                self.end(out);
                Err(fault)
            }
        }
    }

    /// Ends the connection for a reason that rustls does not know. It is shown the header of a record that is longer than
    /// even it accepts, and queues the alert for us, protected if need be.
    fn refuse(&mut self, out: &mut Vec<u8>) {
        let mut input = core::mem::take(&mut self.pending);
        input.extend_from_slice(&[HANDSHAKE, VERSION_MAJOR, 3, 0xff, 0xff]);
        // The outcome is a fault, of which only the alert is wanted.
        let _ = drive(&mut self.connection, &mut input, out, &mut |_| ());
        self.end(out);
    }

    /// Ends the connection: what is queued goes out, what is held goes away.
    fn end(&mut self, out: &mut Vec<u8>) {
        self.phase = Phase::Ended;
        flush(&mut self.connection, out);
        self.pending = Vec::new();
    }
}

/// Bytes that the record at the front of `bytes` has after its header, once the header is whole.
fn body_bytes(bytes: &[u8]) -> Option<usize> {
    let (header, _) = bytes.split_first_chunk::<HEADER_BYTES>()?;
    Some(usize::from(u16::from_be_bytes([header[3], header[4]])))
}

/// Whether `bytes` begin with a whole record, or with a header that is refused at once.
fn holds_whole_record(bytes: &[u8]) -> bool {
    body_bytes(bytes).is_some_and(|body| body > RECORD_BODY_BYTES_MAX || bytes.len() >= HEADER_BYTES + body)
}

/// Adds `bytes`, whose length has been checked, to `pending`. The vector never reserves more than the bound.
fn keep(pending: &mut Vec<u8>, bytes: &[u8]) {
    let needed = pending.len() + bytes.len();
    assert!(needed <= HANDSHAKE_PENDING_BYTES_MAX, "records are refused by their header before they are too many");
    if needed > pending.capacity() {
        let wanted = needed.max(pending.capacity() * 2).min(HANDSHAKE_PENDING_BYTES_MAX);
        pending.reserve_exact(wanted - pending.len());
    }
    pending.extend_from_slice(bytes);
}

/// What rustls did with its input.
struct Driven {
    /// Bytes at the front that it needs no more.
    used: usize,
    /// It has seen `close_notify`.
    peer_closed: bool,
}

/// Lets rustls work until it wants more input.
fn drive(
    connection: &mut UnbufferedServerConnection,
    input: &mut [u8],
    out: &mut Vec<u8>,
    plaintext: &mut dyn FnMut(&[u8]),
) -> Result<Driven, TlsFault> {
    let mut driven = Driven { used: 0, peer_closed: false };
    loop {
        let UnbufferedStatus { mut discard, state } = connection.process_tls_records(&mut input[driven.used..]);
        let wants_input = match state? {
            ConnectionState::ReadTraffic(mut traffic) => {
                while let Some(record) = traffic.next_record() {
                    let record = record?;
                    discard += record.discard;
                    plaintext(record.payload);
                }
                false
            }
            ConnectionState::EncodeTlsData(data) => {
                append(data, out)?;
                false
            }
            ConnectionState::TransmitTlsData(data) => {
                data.done();
                false
            }
            ConnectionState::PeerClosed => {
                driven.peer_closed = true;
                false
            }
            ConnectionState::BlockedHandshake | ConnectionState::WriteTraffic(_) | ConnectionState::Closed => true,
            // Early data is not offered; rustls' list is open.
            _ => return Err(TlsFault::Internal(Error::General("unexpected state".into()))),
        };
        driven.used += discard;
        if wants_input {
            return Ok(driven);
        }
    }
}

/// Appends a queued record to `out`.
fn append(mut data: EncodeTlsData<'_, impl Sized>, out: &mut Vec<u8>) -> Result<(), TlsFault> {
    let start = out.len();
    // The first attempt, with no room at all, tells how much is needed.
    let Err(EncodeError::InsufficientSize(size)) = data.encode(&mut []) else { return Ok(()) };
    out.resize(start + size.required_size, 0);
    match data.encode(&mut out[start..]) {
        Ok(written) => {
            out.truncate(start + written);
            Ok(())
        }
        Err(_) => {
            out.truncate(start);
            Err(TlsFault::Internal(Error::EncryptError))
        }
    }
}

/// Appends everything that rustls has queued, without letting it look at input: it hands out queued records first.
fn flush(connection: &mut UnbufferedServerConnection, out: &mut Vec<u8>) {
    while connection.wants_write() {
        match connection.process_tls_records(&mut []).state {
            Ok(ConnectionState::EncodeTlsData(data)) => {
                if append(data, out).is_err() {
                    return;
                }
            }
            // Plaintext that came before the fault in the same record; it is not delivered any more.
            Ok(ConnectionState::ReadTraffic(mut traffic)) => while traffic.next_record().is_some() {},
            _ => return,
        }
    }
}

/// Appends a `close_notify`.
fn notify(connection: &mut UnbufferedServerConnection, pending: &mut [u8], out: &mut Vec<u8>) {
    loop {
        match connection.process_tls_records(pending).state {
            Ok(ConnectionState::EncodeTlsData(data)) => {
                if append(data, out).is_err() {
                    return;
                }
            }
            Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
            Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                // Without room it is queued instead of written; `flush` writes it.
                let _ = traffic.queue_close_notify(&mut []);
                break;
            }
            _ => return,
        }
    }
    flush(connection, out);
}

/// Appends `piece`, at most 16 KiB, as one record.
fn seal(
    connection: &mut UnbufferedServerConnection,
    pending: &mut [u8],
    piece: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), TlsFault> {
    loop {
        match connection.process_tls_records(pending).state? {
            ConnectionState::EncodeTlsData(data) => append(data, out)?,
            ConnectionState::TransmitTlsData(data) => data.done(),
            ConnectionState::WriteTraffic(mut traffic) => {
                let start = out.len();
                let mut room = piece.len() + OVERHEAD_BYTES_MAX;
                loop {
                    out.resize(start + room, 0);
                    match traffic.encrypt(piece, &mut out[start..]) {
                        Ok(written) => {
                            out.truncate(start + written);
                            return Ok(());
                        }
                        // A key update goes out first.
                        Err(EncryptError::InsufficientSize(size)) if size.required_size > room => {
                            room = size.required_size;
                        }
                        Err(EncryptError::InsufficientSize(_)) => {
                            out.truncate(start);
                            return Err(TlsFault::Internal(Error::EncryptError));
                        }
                        Err(EncryptError::EncryptExhausted) => {
                            out.truncate(start);
                            return Err(TlsFault::KeysExhausted);
                        }
                    }
                }
            }
            _ => return Err(TlsFault::Internal(Error::General("unexpected state".into()))),
        }
    }
}
