//! What a client shows, and what comes of it.

use super::chain::ChainFault;
use super::deny_list::Denial;
use super::question::Question;
use crate::identity::Identity;
use core::fmt;
use rustls_pki_types::CertificateDer;

/// Everything that a client has shown of itself.
#[derive(Clone, Copy, Debug, Default)]
pub struct Evidence<'a> {
    /// Its certificates, its own first. Empty where it has none.
    pub peer_chain: &'a [CertificateDer<'a>],
    /// User Name of CONNECT. Nothing vouches for it.
    pub username: Option<&'a str>,
    /// Password of CONNECT.
    pub password: Option<&'a [u8]>,
    /// Authentication Method of CONNECT.
    pub authentication_method: Option<&'a str>,
    /// Authentication Data of CONNECT.
    pub authentication_data: Option<&'a [u8]>,
}

/// What comes of it.
#[derive(Debug)]
pub enum Verdict {
    /// It is who this says.
    Accepted {
        /// Who.
        identity: Identity,
        /// Index of the method that decided, for when the client renews its credential.
        method: u16,
    },
    /// It may not come in.
    Refused(Refusal),
    /// Somebody else must be asked first; [`conclude`](super::Authenticator::conclude) goes on with the answer.
    Undecided(Question),
}

/// Why a client is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It has no credentials for any method of this port.
    NoCredentials,
    /// It has no credentials but for servers that did not answer, of which this is the last one's excuse.
    NobodyDecided(String),
    /// Its token is refused, and why.
    Token(String),
    /// The wall clock is not set, so that no date of a credential can be judged.
    ClockNotSet,
    /// Its certificates are refused.
    Chain(ChainFault),
    /// Its user name is on the deny list.
    Denied(Denial),
    /// Its subject has more than one common name: which one is it?
    SeveralCommonNames,
    /// Its common name is longer than a user name may be.
    CommonNameTooLong,
    /// The credential cannot be renewed: an X.509 client must connect again.
    CannotRenew,
    /// No rule allows to connect who the renewed credential says it is.
    NotAuthorized,
    /// The renewed credential is of somebody else.
    OtherPrincipal,
    /// The custom server refuses it.
    Custom {
        /// The Reason Code that it gives, 0x80 or above.
        reason: u8,
        /// What it says, for the log.
        message: String,
    },
    /// User name and password do not belong together.
    Password,
    /// Its user name is longer than a user name may be.
    UsernameTooLong,
    /// Who should decide does not answer.
    Unavailable(String),
}

impl Refusal {
    /// Whether it may be accepted later with the same credential.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        match self {
            Self::Unavailable(_) | Self::ClockNotSet => true,
            Self::Chain(fault) => fault.is_temporary(),
            _ => false,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCredentials => f.write_str("no credentials that this port accepts"),
            Self::NobodyDecided(why) => write!(f, "no credentials that this port accepts without the server: {why}"),
            Self::Token(why) => write!(f, "token refused: {why}"),
            Self::ClockNotSet => {
                f.write_str("the clock of this gateway is not set, so that no credential can be judged")
            }
            Self::Chain(fault) => write!(f, "{fault}"),
            Self::Denied(Denial { line, reason: None }) => {
                write!(f, "user name denied by line {line} of the deny list")
            }
            Self::Denied(Denial { line, reason: Some(reason) }) => {
                write!(f, "user name denied by line {line} of the deny list; {}", reason.escape_debug())
            }
            Self::SeveralCommonNames => f.write_str("the certificate's subject has several common names"),
            Self::CommonNameTooLong => f.write_str("the certificate's common name is too long for a user name"),
            Self::CannotRenew => f.write_str("this credential cannot be renewed on a live connection"),
            Self::NotAuthorized => f.write_str("no rule allows it to be connected any more"),
            Self::OtherPrincipal => f.write_str("the renewed credential belongs to somebody else"),
            Self::Custom { message, .. } if message.is_empty() => f.write_str("refused by the custom server"),
            Self::Custom { message, .. } => write!(f, "refused by the custom server: {message}"),
            Self::Password => f.write_str("wrong user name or password"),
            Self::UsernameTooLong => f.write_str("the user name is too long"),
            Self::Unavailable(why) => f.write_str(why),
        }
    }
}
