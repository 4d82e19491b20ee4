//! Which message keeps a bridge from getting on, and when it is given up.
//!
//! In: how connections to the upstream end, and what they leave unacknowledged. Out: whether a message is sent again. Tokens are
//! those of [`super::upstream::Upstream::publish`].
//!
//! **Invariant:** only a message that was alone on its way is given up for the end of a connection.

use super::upstream::UpstreamFault;
use crate::codec::ReasonCode;
use embassy_time::Duration;

/// How often a message is sent again that is refused without a reason that says more, or for which the upstream ends the
/// connection with a reason that is about a packet.
const ATTEMPTS_MAX: u32 = 8;
/// How often a message is sent again when the connection ends right after it and nobody says why: with the longest back-off for
/// half an hour, so that an upstream that is about to recover loses nothing.
const UNEXPLAINED_MAX: u32 = 32;
/// An end within so many seconds of the last sign of life is right after what was sent.
const RIGHT_AFTER_SECONDS: u64 = 5;

/// A message of this broker's that was not acknowledged when a connection ended, and how often that was so. Until it is out of
/// the way, messages go one by one, so that it is known over which of them the upstream ends a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trial {
    /// Its token, which it keeps while this broker has it; 0: there is none.
    token: u16,
    /// Times that it was refused, or that a connection was ended with a reason about it.
    attempts: u32,
    /// Times that a connection ended right after it without a reason.
    unexplained: u32,
}

impl Trial {
    /// The trial of the message with `token`: this one, or a new one.
    fn of(self, token: u16) -> Self {
        if self.token == token { self } else { Self { token, ..Self::default() } }
    }

    /// The token of the message; 0: there is none.
    pub fn token(self) -> u16 {
        self.token
    }

    /// Whether the message is to be given up, so that what is behind it goes on.
    pub fn is_lost(self) -> bool {
        self.attempts >= ATTEMPTS_MAX || self.unexplained >= UNEXPLAINED_MAX
    }

    /// The upstream has refused a message: `None` if that is for good.
    pub fn refused(self, token: u16, reason: u8) -> Option<Self> {
        let trial = self.of(token);
        is_passing(reason, trial.attempts).then(|| Self { attempts: trial.attempts.saturating_add(1), ..trial })
    }

    /// A connection has ended by `fault`, with `tokens` on their way, oldest first, and `silence` after the last sign of life.
    pub fn after(self, fault: &UpstreamFault, mut tokens: impl Iterator<Item = u16>, silence: Duration) -> Self {
        let Some(token) = tokens.next().filter(|token| *token > 0) else { return self };
        let mut trial = self.of(token);
        // Which of several it was is found out by the next connection.
        if self.token != token || tokens.next().is_some() {
            return trial;
        }
        match fault {
            UpstreamFault::Ended(reason) if is_about_a_packet(*reason) => {
                trial.attempts = trial.attempts.saturating_add(1);
            }
            UpstreamFault::Ended(_) | UpstreamFault::Closed | UpstreamFault::Network(_)
                if silence < Duration::from_secs(RIGHT_AFTER_SECONDS) =>
            {
                trial.unexplained = trial.unexplained.saturating_add(1);
            }
            UpstreamFault::Ended(_)
            | UpstreamFault::Closed
            | UpstreamFault::Network(_)
            | UpstreamFault::Protocol
            | UpstreamFault::Refused(_)
            | UpstreamFault::Qos
            | UpstreamFault::Settings => {}
        }
        trial
    }
}

/// Whether a DISCONNECT with this reason is about a packet, which would be there again with the next connection.
fn is_about_a_packet(reason: u8) -> bool {
    let about = [
        ReasonCode::MalformedPacket,
        ReasonCode::ProtocolError,
        ReasonCode::TopicNameInvalid,
        ReasonCode::PacketTooLarge,
        ReasonCode::PayloadFormatInvalid,
        ReasonCode::RetainNotSupported,
        ReasonCode::QoSNotSupported,
    ];
    about.iter().any(|known| known.as_u8() == reason)
}

/// Whether a reason says that the same message may be taken another time, after so many `attempts` that ended like this.
pub fn is_passing(reason: u8, attempts: u32) -> bool {
    let unavailable = [ReasonCode::ServerUnavailable, ReasonCode::ServerBusy, ReasonCode::QuotaExceeded];
    // One message that nobody ever takes must not keep all others.
    let unclear = [ReasonCode::UnspecifiedError, ReasonCode::ImplementationSpecificError];
    let is_one_of = |reasons: &[ReasonCode]| reasons.iter().any(|known| known.as_u8() == reason);
    is_one_of(&unavailable) || attempts < ATTEMPTS_MAX && is_one_of(&unclear)
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT_ONCE: Duration = Duration::from_millis(10);
    const LATER: Duration = Duration::from_secs(20);
    const TOO_LARGE: UpstreamFault = UpstreamFault::Ended(0x95);

    /// How many connections end by `fault` until the message is given up; `None`: never.
    fn ends(fault: &UpstreamFault, tokens: &[u16], silence: Duration) -> Option<usize> {
        let mut trial = Trial::default();
        (1..1_000).find(|_| {
            trial = trial.after(fault, tokens.iter().copied(), silence);
            trial.is_lost()
        })
    }

    #[test]
    fn a_message_is_given_up_for_what_only_it_can_have_caused() {
        assert_eq!(ends(&TOO_LARGE, &[3], AT_ONCE), Some(9));
        assert_eq!(ends(&TOO_LARGE, &[3], LATER), Some(9), "the reason says enough");
        assert_eq!(ends(&UpstreamFault::Closed, &[3], AT_ONCE), Some(33));
        assert_eq!(ends(&UpstreamFault::Closed, &[3], LATER), None, "it may be the network");
        assert_eq!(ends(&UpstreamFault::Ended(0x8B), &[3], LATER), None, "it shuts down");
        assert_eq!(ends(&TOO_LARGE, &[3, 4], AT_ONCE), None, "it may be the other");
        assert_eq!(ends(&TOO_LARGE, &[], AT_ONCE), None);
        assert_eq!(ends(&UpstreamFault::Qos, &[3], AT_ONCE), None);
    }

    #[test]
    fn attempts_are_of_one_message() {
        let mut trial = Trial::default();
        for _ in 0..8 {
            trial = trial.refused(3, 0x80).unwrap();
        }
        assert_eq!(trial.refused(3, 0x80), None, "without a better reason it is enough");
        assert!(trial.refused(4, 0x80).is_some(), "which is nothing to the next");
        assert!(trial.refused(3, 0x97).is_some(), "a quota passes");
        assert_eq!(Trial::default().refused(3, 0x87), None);
        let other = trial.after(&TOO_LARGE, [4].into_iter(), AT_ONCE);
        assert_eq!((other.token(), other.is_lost()), (4, false));
    }
}
