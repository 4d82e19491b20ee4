//! What goes wrong in TLS, and whose doing it is.
//!
//! In: rustls' errors. Out: [`TlsFault`], whose text is a short reason for a log line. The text can hold names out of a
//! peer's certificate, so it is escaped where it is logged, like everything a peer chose.

use core::fmt;
use rustls::{AlertDescription, CertificateError, Error};

/// Whose doing a fault is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Culprit {
    /// The peer's: an ordinary refusal.
    Peer,
    /// Ours: configuration, entropy or a defect; worth waking someone.
    Us,
}

/// Why a connection, or a server's configuration, is refused.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum TlsFault {
    /// The first bytes are no TLS record, e.g. MQTT or HTTP without TLS. Nothing is answered.
    NotTls,
    /// A record header announces more than 16,384 + 256 bytes.
    RecordTooLong,
    /// A ClientHello takes more than [`CLIENT_HELLO_BYTES_MAX`](super::CLIENT_HELLO_BYTES_MAX), or unfinished handshake
    /// messages after it more than [`HANDSHAKE_PENDING_BYTES_MAX`](super::HANDSHAKE_PENDING_BYTES_MAX).
    HandshakeTooLong,
    /// A certificate is required and the client has none.
    NoCertificate,
    /// The client's certificates are refused.
    Certificate(CertificateError),
    /// The peer refused us with an alert.
    PeerAlert(AlertDescription),
    /// The peer closed the transport before the handshake was finished.
    PeerClosedDuringHandshake,
    /// The peer closed the transport without `close_notify`: what came before may have been cut short.
    PeerClosedWithoutNotice,
    /// The peer broke the protocol, or has nothing in common with us.
    Peer(Error),
    /// The connection has ended, by an earlier fault or by our `close_notify`; it must not be used again.
    Ended,
    /// Data was to be sent before the handshake was finished.
    NotEstablished,
    /// The keys of a TLS 1.2 connection have protected as many records as they may; it is closed.
    KeysExhausted,
    /// The server's chain is empty.
    ChainEmpty,
    /// The server's certificate cannot be read.
    ServerCertificate,
    /// The server's key is of a kind that is not used: anything but P-256, P-384 and Ed25519.
    ServerKeyUnsupported,
    /// The server's key does not belong to its certificate.
    ServerKeyMismatch,
    /// Entropy, the clock, or a defect of ours.
    Internal(Error),
}

impl TlsFault {
    /// Whose doing it is.
    #[must_use]
    pub const fn culprit(&self) -> Culprit {
        match self {
            Self::NotTls
            | Self::RecordTooLong
            | Self::HandshakeTooLong
            | Self::NoCertificate
            | Self::Certificate(_)
            | Self::PeerAlert(_)
            | Self::PeerClosedDuringHandshake
            | Self::PeerClosedWithoutNotice
            | Self::Peer(_) => Culprit::Peer,
            Self::Ended
            | Self::NotEstablished
            | Self::KeysExhausted
            | Self::ChainEmpty
            | Self::ServerCertificate
            | Self::ServerKeyUnsupported
            | Self::ServerKeyMismatch
            | Self::Internal(_) => Culprit::Us,
        }
    }
}

impl From<Error> for TlsFault {
    fn from(error: Error) -> Self {
        match error {
            Error::NoCertificatesPresented => Self::NoCertificate,
            Error::InvalidCertificate(reason) => Self::Certificate(reason),
            Error::AlertReceived(alert) => Self::PeerAlert(alert),
            Error::PeerSentOversizedRecord => Self::RecordTooLong,
            ours @ (Error::EncryptError
            | Error::General(_)
            | Error::FailedToGetCurrentTime
            | Error::FailedToGetRandomBytes
            | Error::HandshakeNotComplete
            | Error::BadMaxFragmentSize
            | Error::InconsistentKeys(_)
            | Error::Other(_)) => Self::Internal(ours),
            // rustls' list is open; what it adds concerns what a peer sent until shown otherwise.
            theirs => Self::Peer(theirs),
        }
    }
}

impl fmt::Display for TlsFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotTls => f.write_str("not TLS"),
            Self::RecordTooLong => f.write_str("record too long"),
            Self::HandshakeTooLong => f.write_str("handshake too long"),
            Self::NoCertificate => f.write_str("no certificate"),
            Self::Certificate(reason) => certificate_reason(reason, f),
            Self::PeerAlert(alert) => write!(f, "peer refused: {alert:?}"),
            Self::PeerClosedDuringHandshake => f.write_str("peer closed during handshake"),
            Self::PeerClosedWithoutNotice => f.write_str("peer closed without notice"),
            Self::Peer(error) => write!(f, "{error}"),
            Self::Ended => f.write_str("connection has ended"),
            Self::NotEstablished => f.write_str("handshake not finished"),
            Self::KeysExhausted => f.write_str("traffic keys exhausted"),
            Self::ChainEmpty => f.write_str("server certificate missing"),
            Self::ServerCertificate => f.write_str("server certificate unreadable"),
            Self::ServerKeyUnsupported => f.write_str("server key is not of P-256, P-384 or Ed25519"),
            Self::ServerKeyMismatch => f.write_str("server key does not belong to the certificate"),
            Self::Internal(error) => write!(f, "{error}"),
        }
    }
}

/// The reason in the words of an operator; what has none of ours keeps rustls'.
fn certificate_reason(reason: &CertificateError, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match reason {
        CertificateError::BadEncoding => f.write_str("malformed certificate"),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => f.write_str("certificate expired"),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            f.write_str("certificate not yet valid")
        }
        CertificateError::Revoked => f.write_str("certificate revoked"),
        CertificateError::UnknownIssuer => f.write_str("unknown authority"),
        CertificateError::BadSignature => f.write_str("bad signature"),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            f.write_str("certificate not for clients")
        }
        CertificateError::UnhandledCriticalExtension => f.write_str("unknown critical extension"),
        CertificateError::Other(other) => write!(f, "{}", other.0),
        other => write!(f, "{other}"),
    }
}

impl core::error::Error for TlsFault {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_short_and_say_who() {
        for (error, text, culprit) in [
            (Error::NoCertificatesPresented, "no certificate", Culprit::Peer),
            (CertificateError::UnknownIssuer.into(), "unknown authority", Culprit::Peer),
            (CertificateError::Expired.into(), "certificate expired", Culprit::Peer),
            (Error::AlertReceived(AlertDescription::UnknownCA), "peer refused: UnknownCA", Culprit::Peer),
            (Error::FailedToGetRandomBytes, "failed to get random bytes", Culprit::Us),
        ] {
            let fault = TlsFault::from(error);
            assert_eq!(fault.to_string(), text);
            assert_eq!(fault.culprit(), culprit);
        }
        assert_eq!(TlsFault::NotTls.to_string(), "not TLS");
    }
}
