//! One BrokerAuthentication: its methods in order, and the verdict.

use super::chain::{BundleFault, ChainFault, ChainVerifier, Dates, SignatureAlgorithms};
use super::question::{Answer, Proof, Question};
use super::x509::X509;
use crate::config::blob::{Configuration, Method};
use crate::identity::{Identity, IdentityFull};
use crate::time::UnixTime;
use core::fmt;
use rustls_pki_types::CertificateDer;
use std::sync::Arc;

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
#[derive(Debug, PartialEq)]
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
    /// Somebody else must be asked first; [`Authenticator::conclude`] goes on with the answer.
    Undecided(Question),
}

/// Why a client is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It has no credentials for any method of this port.
    NoCredentials,
    /// Its certificates are refused.
    Chain(ChainFault),
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
        matches!(self, Self::Unavailable(_) | Self::Chain(ChainFault::ClockNotSet))
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCredentials => f.write_str("no credentials that this port accepts"),
            Self::Chain(fault) => write!(f, "{fault}"),
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

/// What the port must ask of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientCertificates {
    /// No method looks at certificates.
    NotRequested,
    /// A method looks at them, and another does without.
    Requested,
    /// Without one nobody comes in.
    Required,
}

/// Why an authenticator cannot be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AuthenticatorFault {
    /// The configuration has no such BrokerAuthentication, or it refers to a trust bundle that is not there.
    Index,
    /// There is no method.
    NoMethods,
    /// The trust bundle cannot be used.
    Bundle {
        /// `metadata.name` of the ConfigMap.
        name: String,
        /// What is wrong with it.
        fault: BundleFault,
    },
    /// The attributes of an entry do not fit a client's identity.
    Attributes {
        /// The label of the entry.
        label: String,
    },
    /// A method that is not served yet.
    Unsupported,
}

impl fmt::Display for AuthenticatorFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Index => f.write_str("an index is out of bounds"),
            Self::NoMethods => f.write_str("it has no methods"),
            Self::Bundle { name, fault } => write!(f, "trust bundle '{}': {fault}", name.escape_debug()),
            Self::Attributes { label } => {
                write!(f, "the attributes of entry '{}' do not fit", label.escape_debug())
            }
            Self::Unsupported => f.write_str("one of its methods is not served yet"),
        }
    }
}

impl core::error::Error for AuthenticatorFault {}

/// One BrokerAuthentication at work.
#[derive(Debug)]
pub struct Authenticator {
    methods: Vec<X509>,
}

impl Authenticator {
    /// Makes the authenticator for `configuration.authentications[index]`.
    ///
    /// # Errors
    /// A configuration that does not fit together, or a trust bundle that cannot be read.
    pub fn new(
        configuration: &Configuration,
        index: u16,
        algorithms: SignatureAlgorithms,
    ) -> Result<Self, AuthenticatorFault> {
        let resource = configuration.authentications.get(usize::from(index)).ok_or(AuthenticatorFault::Index)?;
        let dates = Dates::new(configuration.gateway.clock_policy);
        let mut methods = Vec::new();
        for method in &resource.methods {
            let Method::X509 { trust_bundle, attributes } = method else {
                return Err(AuthenticatorFault::Unsupported);
            };
            let bundle =
                configuration.trust_bundles.get(usize::from(*trust_bundle)).ok_or(AuthenticatorFault::Index)?;
            let verifier = ChainVerifier::new(&bundle.certificates, algorithms, dates)
                .map_err(|fault| AuthenticatorFault::Bundle { name: bundle.name.clone(), fault })?;
            let method = X509::new(verifier, attributes)
                .map_err(|(label, IdentityFull)| AuthenticatorFault::Attributes { label: label.to_owned() })?;
            methods.push(method);
        }
        if methods.is_empty() {
            return Err(AuthenticatorFault::NoMethods);
        }
        Ok(Self { methods })
    }

    /// Judges a client.
    #[must_use]
    pub fn authenticate(&self, evidence: &Evidence<'_>, now: UnixTime) -> Verdict {
        self.ask_from(0, evidence, now, String::new())
    }

    /// Goes on where `method` asked, now that there is an answer. `evidence` is the same as then.
    #[must_use]
    pub fn conclude(&self, method: u16, answer: Answer, evidence: &Evidence<'_>, now: UnixTime) -> Verdict {
        match answer {
            Answer::Proven(proof) => self.identified(method, proof, evidence),
            Answer::Refused(refusal) => Verdict::Refused(refusal),
            // Only who does not answer is passed over.
            Answer::Unavailable(why) => self.ask_from(usize::from(method) + 1, evidence, now, why),
        }
    }

    /// Judges the new credential of a client that `method` accepted. azure-model §2.6.
    #[must_use]
    pub fn renew(&self, method: u16, evidence: &Evidence<'_>, now: UnixTime) -> Verdict {
        let _ = (method, evidence, now);
        Verdict::Refused(Refusal::CannotRenew)
    }

    /// Goes on with a renewal now that there is an answer.
    #[must_use]
    pub fn conclude_renewal(&self, method: u16, answer: Answer, evidence: &Evidence<'_>, now: UnixTime) -> Verdict {
        let _ = (method, answer, evidence, now);
        Verdict::Refused(Refusal::CannotRenew)
    }

    /// Judges once more a client that `method` accepted: `None` where there is nothing to judge but the end of its
    /// credential, which is known.
    #[must_use]
    pub fn judge_again(
        &self,
        method: u16,
        peer_chain: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Option<Result<Identity, Refusal>> {
        self.methods.get(usize::from(method)).map(|method| method.authenticate(peer_chain, now))
    }

    /// Whether a method looks at this Authentication Method of CONNECT.
    #[must_use]
    pub fn takes(&self, authentication_method: &str) -> bool {
        let _ = authentication_method;
        false
    }

    /// The methods in order, from the one with index `first`: the first whose credentials are there decides.
    fn ask_from(&self, first: usize, evidence: &Evidence<'_>, now: UnixTime, silent: String) -> Verdict {
        for (index, method) in self.methods.iter().enumerate().skip(first) {
            if evidence.peer_chain.is_empty() {
                continue;
            }
            return match method.authenticate(evidence.peer_chain, now) {
                Ok(identity) => Verdict::Accepted { identity, method: u16::try_from(index).unwrap_or(u16::MAX) },
                Err(refusal) => Verdict::Refused(refusal),
            };
        }
        let _ = silent;
        Verdict::Refused(Refusal::NoCredentials)
    }

    fn identified(&self, method: u16, proof: Proof, evidence: &Evidence<'_>) -> Verdict {
        let _ = (method, proof, evidence);
        Verdict::Refused(Refusal::NoCredentials)
    }

    /// What TLS must ask of the clients of ports with this authenticator.
    #[must_use]
    pub fn client_certificates(&self) -> ClientCertificates {
        ClientCertificates::Required
    }

    /// The judge of client certificates: that of the first X509 method, which is the only one that ever decides.
    #[must_use]
    pub fn chain_verifier(&self) -> Option<&Arc<ChainVerifier>> {
        self.methods.first().map(X509::verifier)
    }

    /// What an operator should know before the clients do: authorities that are expired or soon will be, a clock that
    /// cannot be right.
    #[must_use]
    pub fn warnings(&self, now: UnixTime) -> Vec<String> {
        self.methods.iter().flat_map(|method| method.verifier().warnings(now)).collect()
    }
}
