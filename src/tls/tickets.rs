//! Session tickets: a client that comes back shows what it was given, and both are spared the signatures of a handshake.
//!
//! In: the session as rustls writes it. Out: a ticket, sealed with keys that exist in this process's memory only, and the
//! session out of a ticket. Nothing is kept for a client. XChaCha20-Poly1305 with a random nonce.
//!
//! **Invariants:**
//! - each [`Tickets`] has keys of its own, so that a ticket is worth something only to the server that gave it: not on
//!   another port, not after a change of what is asked of clients, not after a restart;
//! - a key seals for [`TICKET_KEY_SECONDS`] and opens for twice that time, then it is wiped by the next use;
//! - rustls does not judge the client's certificates again when a session is resumed. They travel in the ticket and are
//!   judged at CONNECT like those of any other connection. A ticket ends with the first of them, so that a client whose
//!   certificate was renewed shows the new one;
//! - [`Tickets::retire`] makes all tickets worthless, for ever.
//!
//! What is deliberately absent: a limit on how often a session is resumed. A client that resumes gets a new ticket; its
//! certificate, its credential and the trust in both bound that.

use crate::time::UnixTime;
use crate::tls::Clock;
use chacha20poly1305::aead::{AeadInOut, KeyInit};
use chacha20poly1305::{Tag, XChaCha20Poly1305, XNonce};
use rustls::server::ProducesTickets;
use std::sync::{Arc, Mutex};
use x509_cert::Certificate;
use x509_cert::der::Decode;
use zeroize::Zeroizing;

/// How long one key seals tickets, seconds. A ticket can be used for this long at least, twice as long at most.
pub const TICKET_KEY_SECONDS: u64 = 6 * 3_600;
/// Longest session that is put into a ticket, bytes. Who has a longer chain gets no ticket: it would not fit into a
/// ClientHello of [`CLIENT_HELLO_BYTES_MAX`](super::CLIENT_HELLO_BYTES_MAX) bytes with everything else.
pub const TICKET_SESSION_BYTES_MAX: usize = 4_096;
/// How far the clock may be set back without ending a key, seconds.
const CLOCK_SLACK_SECONDS: u64 = 60;
const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 24;
const TAG_BYTES: usize = 16;
/// Bytes of the time, in front of the session, at which a ticket ends.
const END_BYTES: usize = 8;

/// The tickets of one server.
#[derive(Debug)]
pub struct Tickets {
    clock: Arc<dyn Clock>,
    chain_is_required: bool,
    keys: Mutex<Keys>,
}

impl Tickets {
    /// Tickets that end by `clock`. Without a client's certificates there are none where `chain_is_required`.
    pub fn new(clock: Arc<dyn Clock>, chain_is_required: bool) -> Self {
        Self { clock, chain_is_required, keys: Mutex::default() }
    }

    /// Tickets of another server with the same rules, which know nothing of these.
    pub fn anew(&self) -> Self {
        Self::new(Arc::clone(&self.clock), self.chain_is_required)
    }

    /// No ticket is given or taken any more, also not in handshakes that have begun.
    pub fn retire(&self) {
        if let Ok(mut keys) = self.keys.lock() {
            *keys = Keys { retired: true, ..Keys::default() };
        }
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        // The promise that always holds, not the exception.
        u32::try_from(TICKET_KEY_SECONDS).unwrap_or(u32::MAX)
    }

    fn encrypt(&self, session: &[u8]) -> Option<Vec<u8>> {
        if session.len() > TICKET_SESSION_BYTES_MAX {
            return None;
        }
        let chain = client_chain(session)?;
        if self.chain_is_required && chain.is_empty() {
            return None;
        }
        let mut end = UnixTime(u64::MAX);
        for certificate in chain {
            let validity = Certificate::from_der(certificate).ok()?.tbs_certificate.validity;
            end = end.min(UnixTime(validity.not_after.to_unix_duration().as_secs()));
        }
        self.keys.lock().ok()?.sealing(self.clock.unix())?.seal(end, session)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let now = self.clock.unix();
        let (nonce, sealed) = ticket.split_first_chunk::<NONCE_BYTES>()?;
        let (text, tag) = sealed.split_last_chunk::<TAG_BYTES>()?;
        if text.len() > END_BYTES + TICKET_SESSION_BYTES_MAX {
            return None;
        }
        let mut text = Zeroizing::new(text.to_vec());
        self.keys.lock().ok()?.open(now, nonce, &mut text, tag)?;
        let (end, session) = text.split_first_chunk::<END_BYTES>()?;
        (now.0 <= u64::from_be_bytes(*end)).then(|| session.to_vec())
    }
}

/// The key that seals, and the one before it.
#[derive(Debug, Default)]
struct Keys {
    current: Option<Key>,
    former: Option<Key>,
    retired: bool,
}

impl Keys {
    /// Wipes what is too old.
    fn roll(&mut self, now: UnixTime) {
        if self.current.as_ref().is_some_and(|key| !key.is_younger_than(TICKET_KEY_SECONDS, now)) {
            self.former = self.current.take();
        }
        self.former.take_if(|key| !key.is_younger_than(2 * TICKET_KEY_SECONDS, now));
    }

    /// The key that seals now; `None` without entropy.
    fn sealing(&mut self, now: UnixTime) -> Option<&Key> {
        if self.retired {
            return None;
        }
        self.roll(now);
        if self.current.is_none() {
            self.current = Some(Key::random(now)?);
        }
        self.current.as_ref()
    }

    /// Opens `text` in place with the key that sealed it.
    fn open(&mut self, now: UnixTime, nonce: &[u8; NONCE_BYTES], text: &mut [u8], tag: &[u8; TAG_BYTES]) -> Option<()> {
        self.roll(now);
        // What does not verify is left as it was.
        [&self.current, &self.former].into_iter().flatten().find_map(|key| {
            key.cipher().decrypt_inout_detached(&XNonce::from(*nonce), &[], (&mut *text).into(), &Tag::from(*tag)).ok()
        })
    }
}

/// One key and when it was made.
struct Key {
    secret: Zeroizing<[u8; KEY_BYTES]>,
    made: UnixTime,
}

impl core::fmt::Debug for Key {
    /// Never shows the key.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Key").field("made", &self.made).finish_non_exhaustive()
    }
}

impl Key {
    fn random(now: UnixTime) -> Option<Self> {
        let mut secret = Zeroizing::new([0; KEY_BYTES]);
        getrandom::fill(&mut *secret).ok()?;
        Some(Self { secret, made: now })
    }

    /// A key from the future was made before the clock was set back; how old it is nobody knows.
    fn is_younger_than(&self, seconds: u64, now: UnixTime) -> bool {
        now.plus_seconds(CLOCK_SLACK_SECONDS) >= self.made && now.0.saturating_sub(self.made.0) < seconds
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new((&*self.secret).into())
    }

    /// Nonce, sealed end and session, tag.
    fn seal(&self, end: UnixTime, session: &[u8]) -> Option<Vec<u8>> {
        let mut nonce = [0; NONCE_BYTES];
        getrandom::fill(&mut nonce).ok()?;
        let mut ticket = Vec::with_capacity(NONCE_BYTES + END_BYTES + session.len() + TAG_BYTES);
        ticket.extend_from_slice(&nonce);
        ticket.extend_from_slice(&end.0.to_be_bytes());
        ticket.extend_from_slice(session);
        let text = &mut ticket[NONCE_BYTES..];
        let tag = self.cipher().encrypt_inout_detached(&XNonce::from(nonce), &[], text.into()).ok()?;
        ticket.extend_from_slice(&tag);
        Some(ticket)
    }
}

/// The client's certificates in a session as the pinned version of rustls writes it: server name (a flag, a length of one
/// byte), version, suite, secret (a length of one byte), a flag, certificates (a flag, a length of three bytes, each with
/// one of its own), and more that is of no interest. `None` for anything else, which then becomes no ticket.
fn client_chain(session: &[u8]) -> Option<Vec<&[u8]>> {
    let mut rest = session;
    if flag(&mut rest)? {
        counted::<1>(&mut rest)?;
    }
    taken(&mut rest, 4)?;
    counted::<1>(&mut rest)?;
    taken(&mut rest, 1)?;
    let mut chain = Vec::new();
    if flag(&mut rest)? {
        let mut certificates = counted::<3>(&mut rest)?;
        while !certificates.is_empty() {
            chain.push(counted::<3>(&mut certificates)?);
        }
    }
    Some(chain)
}

fn taken<'a>(rest: &mut &'a [u8], bytes: usize) -> Option<&'a [u8]> {
    let (front, back) = rest.split_at_checked(bytes)?;
    *rest = back;
    Some(front)
}

fn flag(rest: &mut &[u8]) -> Option<bool> {
    match taken(rest, 1)? {
        [0] => Some(false),
        [1] => Some(true),
        _ => None,
    }
}

/// What stands behind a length of `N` bytes.
fn counted<'a, const N: usize>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = taken(rest, N)?.iter().fold(0, |length, byte| length << 8 | usize::from(*byte));
    taken(rest, length)
}
