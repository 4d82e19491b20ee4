//! One element of `authenticationMethods` at work: is a client's credential for it, and is it good? azure-model §2.1.

use super::chain::Dates;
use super::custom::{self, CredentialPacket};
use super::passwords::Passwords;
use super::question::{Inquiry, Proof};
use super::service_account::AccountAttributes;
use super::token::TokenVerifier;
use super::verdict::{Evidence, Refusal};
use super::x509::X509;
use crate::identity::{Attributes, AuthenticationMethod, Identity, Principal, Username};
use crate::time::UnixTime;
use rustls_pki_types::CertificateDer;
use zeroize::Zeroizing;

/// The Authentication Method of service-account tokens, and the beginning of the user name that marks one in the password.
pub const TOKEN_METHOD: &str = "K8S-SAT";

/// A method.
#[derive(Debug)]
pub enum Method {
    /// Certificates.
    X509(X509),
    /// Tokens that are verified here.
    Token {
        /// Issuers, their keys, and for whom tokens must be.
        verifier: TokenVerifier,
        /// What is granted to whom.
        attributes: AccountAttributes,
        /// By which time they are judged.
        dates: Dates,
    },
    /// Tokens that the cluster judges.
    TokenReview {
        /// By which time they are judged: the cluster's answer is only as good as the dates of its certificate.
        dates: Dates,
    },
    /// Whatever a client has, judged by a server.
    Custom,
    /// User names and passwords.
    Password(Passwords),
}

/// What a method says.
#[derive(Debug)]
pub enum Step {
    /// The client has no credential for it.
    Irrelevant,
    /// The credential is good.
    Proven(Identity),
    /// It is not.
    Refused(Refusal),
    /// Others must be asked.
    Ask(Inquiry),
}

impl Method {
    /// Judges what CONNECT and the handshake have shown.
    pub fn judge(&self, evidence: &Evidence<'_>, now: UnixTime) -> Step {
        match self {
            Self::X509(_) if evidence.peer_chain.is_empty() => Step::Irrelevant,
            Self::X509(method) => match method.authenticate(evidence.peer_chain, now) {
                Ok(identity) => Step::Proven(identity),
                Err(refusal) => Step::Refused(refusal),
            },
            Self::Token { .. } | Self::TokenReview { .. } => match token(evidence) {
                Some(token) => self.judge_token(token, now),
                None => Step::Irrelevant,
            },
            Self::Custom => match username(evidence.username) {
                Ok(_) => Step::Ask(Inquiry::Custom(custom::encode(CredentialPacket::Connect, evidence))),
                Err(refusal) => Step::Refused(refusal),
            },
            Self::Password(users) => match (evidence.username, evidence.password, evidence.authentication_method) {
                (Some(name), Some(password), None) => match username(Some(name)) {
                    Ok(_) => Step::Ask(Inquiry::Password {
                        credential: users.find(name),
                        password: Zeroizing::new(password.to_vec()),
                    }),
                    // There cannot be such a user.
                    Err(_) => Step::Refused(Refusal::Password),
                },
                _ => Step::Irrelevant,
            },
        }
    }

    /// Judges the credential of an AUTH packet. azure-model §2.6.
    pub fn renew(&self, evidence: &Evidence<'_>, now: UnixTime) -> Step {
        match self {
            Self::X509(_) | Self::Password(_) => Step::Refused(Refusal::CannotRenew),
            Self::Token { .. } | Self::TokenReview { .. } => match token(evidence) {
                Some(token) => self.judge_token(token, now),
                None => Step::Refused(Refusal::CannotRenew),
            },
            Self::Custom => Step::Ask(Inquiry::Custom(custom::encode(CredentialPacket::Auth, evidence))),
        }
    }

    /// Whose credential was found good by those who were asked. At a renewal, which says no name, `known` is who it was.
    ///
    /// # Errors
    /// A name that is too long for an identity.
    pub fn identity(
        &self,
        proof: Proof,
        evidence: &Evidence<'_>,
        known: Option<&Identity>,
    ) -> Result<Identity, Refusal> {
        let method = match self {
            Self::X509(_) => return Err(Refusal::CannotRenew),
            Self::Token { .. } | Self::TokenReview { .. } => {
                return Ok(token_identity(&proof.account, proof.attributes, proof.expires));
            }
            Self::Custom => AuthenticationMethod::Custom,
            Self::Password(_) => AuthenticationMethod::UsernamePassword,
        };
        if let Some(known) = known {
            return Ok(Identity { attributes: proof.attributes, expires: proof.expires, ..known.clone() });
        }
        let username = username(evidence.username)?;
        let name = match (&username, evidence.peer_chain.first()) {
            (Some(username), _) => format!("user={username}"),
            (None, Some(certificate)) => format!("certificate={:?}", certificate.as_ref()),
            // Nobody else shows the same.
            (None, None) => {
                format!("data={:?} {:?}", evidence.authentication_method, evidence.authentication_data)
            }
        };
        let principal = Principal::new(method, &name);
        Ok(Identity { method, principal, username, attributes: proof.attributes, expires: proof.expires })
    }

    /// Judges a live client again: `None` where there is nothing to judge but the end of its credential, which is known.
    pub fn judge_again(
        &self,
        known: &Identity,
        peer_chain: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Option<Result<Identity, Refusal>> {
        match self {
            Self::X509(method) => Some(method.authenticate(peer_chain, now)),
            Self::Password(users) => {
                let attributes = users.attributes_of(known.username.as_deref().unwrap_or_default());
                Some(match attributes {
                    Some(attributes) => Ok(Identity { attributes: attributes.clone(), ..known.clone() }),
                    None => Err(Refusal::Password),
                })
            }
            Self::Token { .. } | Self::TokenReview { .. } | Self::Custom => None,
        }
    }

    /// Whether it looks at this Authentication Method of CONNECT.
    pub fn takes(&self, authentication_method: &str) -> bool {
        match self {
            Self::Token { .. } | Self::TokenReview { .. } => authentication_method == TOKEN_METHOD,
            Self::Custom => true,
            Self::X509(_) | Self::Password(_) => false,
        }
    }

    fn judge_token(&self, token: &[u8], now: UnixTime) -> Step {
        let (Self::Token { dates, .. } | Self::TokenReview { dates }) = self else { return Step::Irrelevant };
        let Some(now) = dates.judged_at(now) else { return Step::Refused(Refusal::ClockNotSet) };
        let Self::Token { verifier, attributes, .. } = self else {
            return Step::Ask(Inquiry::TokenReview(Zeroizing::new(token.to_vec())));
        };
        match verifier.verify(token, now) {
            Ok(verified) => {
                let granted = attributes.attributes_of(&verified.account).cloned().unwrap_or_default();
                Step::Proven(token_identity(&verified.account.to_string(), granted, Some(verified.expires)))
            }
            Err(fault) => Step::Refused(Refusal::Token(fault.to_string())),
        }
    }
}

/// The identity of a service account. It has no user name: what CONNECT says there proves nothing.
fn token_identity(account: &str, attributes: Attributes, expires: Option<UnixTime>) -> Identity {
    let method = AuthenticationMethod::ServiceAccountToken;
    Identity { method, principal: Principal::new(method, account), username: None, attributes, expires }
}

/// The token that a client shows, with enhanced authentication or as the password of a marked user name.
fn token<'a>(evidence: &Evidence<'a>) -> Option<&'a [u8]> {
    match evidence.authentication_method {
        Some(TOKEN_METHOD) => Some(evidence.authentication_data.unwrap_or_default()),
        Some(_) => None,
        None => evidence
            .username
            .is_some_and(|username| username.starts_with(TOKEN_METHOD))
            .then(|| evidence.password.unwrap_or_default()),
    }
}

fn username(name: Option<&str>) -> Result<Option<Username>, Refusal> {
    name.map(Username::try_from).transpose().map_err(|_| Refusal::UsernameTooLong)
}
