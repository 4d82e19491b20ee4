//! Events of connections, sessions and decisions.

use super::{Action, Who};
use crate::identity::AuthenticationMethod;
use core::fmt::{self, Write as _};

/// Bytes of a text kept in an event.
const TEXT_BYTES_MAX: usize = 120;

/// A copy of a text for a log line, cut at a character boundary when it is long.
///
/// [`fmt::Display`] escapes control characters and everything that is not printable ASCII or a letter, so that the text
/// cannot end a line or move a terminal's cursor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Text {
    kept: heapless::String<TEXT_BYTES_MAX>,
    cut: bool,
}

impl Text {
    /// Copies `text`, or as much of it as fits.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let mut copy = Self::default();
        // Cannot fail: what does not fit is cut.
        let _ = copy.write_str(text);
        copy
    }

    /// Copies what `value` prints, or as much of it as fits.
    #[must_use]
    pub fn of(value: impl fmt::Display) -> Self {
        let mut copy = Self::default();
        let _ = write!(copy, "{value}");
        copy
    }

    /// What is kept, as it came: whoever prints it escapes it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.kept
    }

    /// Whether there was more.
    #[must_use]
    pub const fn is_cut(&self) -> bool {
        self.cut
    }

    /// Whether nothing is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Whether what is kept begins so.
    #[must_use]
    pub fn starts_with(&self, prefix: &str) -> bool {
        self.kept.starts_with(prefix)
    }
}

impl fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if self.cut {
            return Ok(());
        }
        let fits = text.floor_char_boundary_stable(TEXT_BYTES_MAX - self.kept.len());
        self.cut = fits < text.len();
        self.kept.push_str(text.get(..fits).unwrap_or_default()).map_err(|_| fmt::Error)
    }
}

/// `str::floor_char_boundary`, which the oldest compiler we support does not have.
trait FloorCharBoundary {
    fn floor_char_boundary_stable(&self, at: usize) -> usize;
}

impl FloorCharBoundary for str {
    fn floor_char_boundary_stable(&self, at: usize) -> usize {
        if at >= self.len() {
            return self.len();
        }
        (0..=at).rev().find(|index| self.is_char_boundary(*index)).unwrap_or(0)
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.kept.chars() {
            if character == '\\' || character == '\'' || character.is_control() || is_invisible(character) {
                write!(f, "{}", character.escape_unicode())?;
            } else {
                f.write_char(character)?;
            }
        }
        if self.cut { f.write_str("...") } else { Ok(()) }
    }
}

/// Characters that change how the rest of a line is shown: line and paragraph separators, directional marks, zero widths.
const fn is_invisible(character: char) -> bool {
    matches!(character, '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{FEFF}')
}

/// What can be full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Table {
    /// Network connections.
    Connections,
    /// Sessions.
    Sessions,
    /// Subscriptions, of one session or of all, with their filters.
    Subscriptions,
    /// Retained messages.
    RetainedMessages,
    /// The pool of messages.
    Messages,
    /// Deliveries.
    Deliveries,
    /// What one session may have waiting.
    SessionQueue,
    /// The log on the disk.
    Log,
    /// Replies that wait for room in a socket.
    Replies,
    /// TLS handshakes at one time.
    Handshakes,
    /// Receive buffers of all connections.
    ReceiveBuffers,
    /// Transmit buffers of all connections.
    TransmitBuffers,
}

impl Table {
    /// How many there are.
    pub const COUNT: usize = 12;
    /// All of them, in the order of their counters.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Connections,
        Self::Sessions,
        Self::Subscriptions,
        Self::RetainedMessages,
        Self::Messages,
        Self::Deliveries,
        Self::SessionQueue,
        Self::Log,
        Self::Replies,
        Self::Handshakes,
        Self::ReceiveBuffers,
        Self::TransmitBuffers,
    ];

    /// Its word in labels.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Sessions => "sessions",
            Self::Subscriptions => "subscriptions",
            Self::RetainedMessages => "retained messages",
            Self::Messages => "messages",
            Self::Deliveries => "deliveries",
            Self::SessionQueue => "session queue",
            Self::Log => "log",
            Self::Replies => "replies",
            Self::Handshakes => "handshakes",
            Self::ReceiveBuffers => "receive buffers",
            Self::TransmitBuffers => "transmit buffers",
        }
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connections => "the connection table is full",
            Self::Sessions => "the session table is full",
            Self::Subscriptions => "there is no room for more subscriptions",
            Self::RetainedMessages => "the table of retained messages is full",
            Self::Messages => "the message pool is full",
            Self::Deliveries => "the delivery table is full",
            Self::SessionQueue => "the queue of a session is full",
            Self::Log => "the log on the disk has no room",
            Self::Replies => "the reply table is full, who takes no replies is not read",
            Self::Handshakes => "as many TLS handshakes as there may be",
            Self::ReceiveBuffers => "the receive buffers are full, large packets wait",
            Self::TransmitBuffers => "the transmit buffers are full, clients are written to in small pieces",
        })
    }
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The client sent DISCONNECT.
    ClientDisconnected,
    /// The client's end of the network connection closed.
    NetworkClosed,
    /// CONNECT was refused.
    ConnectRefused,
    /// No complete CONNECT within the deadline.
    ConnectDeadline,
    /// Nothing was heard for one and a half Keep Alive periods.
    KeepAliveTimeout,
    /// Another connection took the session over.
    TakenOver,
    /// The packet could not be decoded or broke a rule of the protocol.
    ProtocolViolation,
    /// The subscriber's queue was full.
    QueueFull,
    /// What the client published found no room, and it understands no Reason Code.
    NoRoom,
    /// The client took nothing of what was sent to it for too long.
    SlowReader,
    /// A packet that took too long to come, while others waited for the receive buffers that it holds.
    SlowSender,
    /// The credential expired.
    CredentialExpired,
    /// The rules have changed, and none lets the client in any more.
    PolicyChanged,
    /// The credential is no longer accepted: renewed badly, revoked, not trusted any more.
    CredentialRefused,
    /// Authentication was replaced, and what the client had shown cannot be judged by the new one.
    AuthenticationChanged,
    /// The broker stops.
    ShuttingDown,
    /// The operator ended it.
    AdministrativeAction,
    /// The TLS session failed.
    TlsFailed,
    /// The WebSocket was closed by the client, or broke its rules.
    WebSocketEnded,
}

impl Cause {
    /// All of them, in the order of their counters.
    pub const ALL: [Self; 19] = [
        Self::ClientDisconnected,
        Self::NetworkClosed,
        Self::ConnectRefused,
        Self::ConnectDeadline,
        Self::KeepAliveTimeout,
        Self::TakenOver,
        Self::ProtocolViolation,
        Self::QueueFull,
        Self::NoRoom,
        Self::SlowReader,
        Self::SlowSender,
        Self::CredentialExpired,
        Self::PolicyChanged,
        Self::CredentialRefused,
        Self::AuthenticationChanged,
        Self::ShuttingDown,
        Self::AdministrativeAction,
        Self::TlsFailed,
        Self::WebSocketEnded,
    ];

    /// Its word in labels and in the totals of the audit.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ClientDisconnected => "client-disconnected",
            Self::NetworkClosed => "network-closed",
            Self::ConnectRefused => "connect-refused",
            Self::ConnectDeadline => "connect-deadline",
            Self::KeepAliveTimeout => "keep-alive-timeout",
            Self::TakenOver => "taken-over",
            Self::ProtocolViolation => "protocol-violation",
            Self::QueueFull => "queue-full",
            Self::NoRoom => "no-room",
            Self::SlowReader => "slow-reader",
            Self::SlowSender => "slow-sender",
            Self::CredentialExpired => "credential-expired",
            Self::PolicyChanged => "policy-changed",
            Self::CredentialRefused => "credential-refused",
            Self::AuthenticationChanged => "authentication-changed",
            Self::ShuttingDown => "shutting-down",
            Self::TlsFailed => "tls-failed",
            Self::WebSocketEnded => "websocket-ended",
            Self::AdministrativeAction => "administrative-action",
        }
    }

    /// What ends a connection because of who its client is or what it may do: lines of the audit.
    pub const CREDENTIAL_DRIVEN: [Self; 4] =
        [Self::CredentialExpired, Self::CredentialRefused, Self::PolicyChanged, Self::AuthenticationChanged];

    /// Whether it is one of [`Self::CREDENTIAL_DRIVEN`].
    #[must_use]
    pub fn is_credential_driven(self) -> bool {
        Self::CREDENTIAL_DRIVEN.contains(&self)
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ClientDisconnected => "client disconnected",
            Self::NetworkClosed => "network connection closed by the client",
            Self::ConnectRefused => "connection refused",
            Self::ConnectDeadline => "no CONNECT within the deadline",
            Self::KeepAliveTimeout => "keep-alive timeout",
            Self::TakenOver => "session taken over by another connection",
            Self::ProtocolViolation => "protocol violation",
            Self::QueueFull => "subscriber queue full",
            Self::NoRoom => "no room for what it published",
            Self::SlowReader => "client does not read",
            Self::SlowSender => "client does not end its packet, and others wait",
            Self::CredentialExpired => "credential expired",
            Self::PolicyChanged => "policy changed",
            Self::CredentialRefused => "credential refused",
            Self::AuthenticationChanged => "authentication changed, the credential must be shown again",
            Self::ShuttingDown => "broker shutting down",
            Self::AdministrativeAction => "disconnected by the operator",
            Self::TlsFailed => "TLS failed",
            Self::WebSocketEnded => "WebSocket closed",
        })
    }
}

/// Something that an operator may want to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A client was admitted.
    Connected {
        /// Client Identifier.
        client: Text,
        /// User name that rules see.
        username: Option<Text>,
        /// How it was authenticated.
        method: AuthenticationMethod,
        /// `name=value` pairs, separated by commas.
        attributes: Text,
        /// Index of the port.
        port: u16,
    },
    /// A CONNECT was answered with a failure.
    Refused {
        /// Client Identifier as far as it is known.
        client: Text,
        /// Reason Code of the CONNACK.
        reason_code: u8,
        /// What the client is not told.
        detail: Text,
        /// Index of the port.
        port: u16,
    },
    /// A session's connection ended.
    Disconnected {
        /// Who.
        who: Who,
        /// Why.
        cause: Cause,
        /// Reason Code received or sent in DISCONNECT, if one was.
        reason_code: Option<u8>,
        /// What is known beyond the cause; empty if nothing is.
        detail: Text,
    },
    /// Something was refused because a table is full.
    TableFull {
        /// Which.
        table: Table,
        /// How often so far.
        times: u64,
    },
    /// A session ended because its client did not come back in time.
    SessionExpired {
        /// Client Identifier.
        client: Text,
    },
    /// An insider's session was ended with what waited for it, because it is not in the configuration any more.
    InsiderGone {
        /// Client Identifier.
        client: Text,
        /// Messages that are dropped.
        messages: u32,
    },
    /// A message was not queued for an insider.
    TooLargeForInsider {
        /// Client Identifier.
        client: Text,
        /// Of the packet that it would be.
        packet_bytes: usize,
        /// How often so far.
        times: u64,
    },
    /// A batch of the log could not be written.
    StoreFailed {
        /// What the system says.
        detail: Text,
        /// When the next attempt is made.
        retry_seconds: u64,
    },
    /// Everything live is being written anew, because the log had lost the thread.
    StoreRewrites,
    /// That is done: the log is sound again.
    StoreRewritten,
    /// What is new is refused, because the log takes all of its room.
    StoreFull {
        /// Bytes that it takes.
        used_bytes: u64,
    },
    /// There is room in the log again.
    StoreHasRoom,
    /// A batch has been on its way to the disk for more than a second.
    StoreSlow {
        /// How often so far.
        times: u64,
    },
    /// No rule allows what a client asked for.
    Denied {
        /// Who.
        who: Who,
        /// What it asked for.
        action: Action,
        /// Topic name or filter.
        resource: Text,
        /// Denials of its session before this one that were not said.
        unsaid: u32,
    },
    /// Denials of a session whose connection has ended were not said.
    DeniedUnsaid {
        /// Who.
        who: Who,
        /// How many.
        count: u32,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_from_a_peer_stays_on_its_line() {
        let text = Text::new("a\nb\x1b[31m\u{202E}ü'\\");
        assert_eq!(text.to_string(), "a\\u{a}b\\u{1b}[31m\\u{202e}ü\\u{27}\\u{5c}");
    }

    #[test]
    fn counters_stand_in_the_order_of_what_they_count() {
        for (index, table) in Table::ALL.into_iter().enumerate() {
            assert_eq!(table as usize, index);
        }
        for (index, cause) in Cause::ALL.into_iter().enumerate() {
            assert_eq!(cause as usize, index);
        }
    }

    #[test]
    fn a_long_text_is_cut_at_a_character() {
        let text = Text::new(&"ü".repeat(100));
        assert_eq!(text.to_string(), format!("{}...", "ü".repeat(60)));
        let text = Text::of(format_args!("{}{}", "x".repeat(119), "ü"));
        assert_eq!(text.to_string(), format!("{}...", "x".repeat(119)));
    }
}
