//! What a method cannot decide by itself: questions for the world outside, and the answers to them.
//!
//! This room asks and judges; somebody else carries the question to a server or a worker thread and brings the answer.

use super::passwords::Credential;
use super::verdict::Refusal;
use crate::identity::Attributes;
use crate::time::UnixTime;
use core::fmt;
use core::sync::atomic::AtomicBool;
use std::sync::Arc;
use zeroize::Zeroizing;

/// A question of one method of one BrokerAuthentication.
#[derive(Debug)]
pub struct Question {
    /// Index of the BrokerAuthentication.
    pub authenticator: u16,
    /// Index of the method in it.
    pub method: u16,
    /// What is asked.
    pub inquiry: Inquiry,
    /// Set when nobody waits for the answer any more.
    pub abandoned: Arc<AtomicBool>,
}

/// What is asked. Credentials are wiped when it is dropped.
pub enum Inquiry {
    /// The body of a request to the custom authentication server.
    Custom(Zeroizing<Vec<u8>>),
    /// A token for the cluster's TokenReview.
    TokenReview(Zeroizing<Vec<u8>>),
    /// Whether the password is that of the credential: a hash that takes long on purpose.
    Password {
        /// What the file says of the user, or a decoy.
        credential: Credential,
        /// What the client says.
        password: Zeroizing<Vec<u8>>,
    },
}

impl fmt::Debug for Inquiry {
    /// Never shows credentials.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Custom(_) => "Custom",
            Self::TokenReview(_) => "TokenReview",
            Self::Password { .. } => "Password",
        })
    }
}

/// What came of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The credential is good.
    Proven(Proof),
    /// It is not.
    Refused(Refusal),
    /// Nobody answered, or nothing that could be understood.
    Unavailable(String),
}

/// What a good credential proves.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proof {
    /// The service account, `namespace/name`; empty for the other methods, whose clients say their name in CONNECT.
    pub account: String,
    /// What it grants.
    pub attributes: Attributes,
    /// When it ends; `None` for never.
    pub expires: Option<UnixTime>,
}
