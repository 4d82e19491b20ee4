//! One BrokerAuthentication: its methods in order, and the verdict. azure-model §2.1.

use super::chain::{self, BundleFault, ChainVerifier, Dates, VerifiedPath};
use super::key_set::{KeySet, KeySetFault};
use super::method::{Method, Step};
use super::passwords::Passwords;
use super::question::{Answer, Inquiry, Question};
use super::revocation::RevocationInForce;
use super::service_account::{AccountAttributes, AccountFault};
use super::signature_memo::Signatures;
use super::token::{TokenIssuer, TokenVerifier, VerifierFault};
use super::verdict::{Evidence, Refusal, Verdict};
use super::x509::X509;
use crate::config::blob::{self, Configuration, ServiceAccountTokens};
use crate::identity::{AuthenticationMethod, Identity, IdentityFull};
use crate::time::UnixTime;
use core::fmt;
use rustls_pki_types::CertificateDer;
use std::sync::Arc;

/// What the port must ask of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientCertificates {
    /// No method looks at certificates.
    NotRequested,
    /// A method looks at them, and another does without.
    Requested,
    /// Without one nobody comes in.
    Required,
    /// No method of ours looks at them, but they are shown to the custom server, which judges them. That the client has
    /// the key is proved in the handshake; nothing else is.
    Forwarded,
}

/// Where the attributes of a client with certificates come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Granting {
    /// The path that was verified.
    pub path: VerifiedPath,
    /// Which of its subjects has an entry, the leaf's being 0, and the index of the entry in `authorizationAttributes`.
    pub entry: Option<(usize, usize)>,
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
    /// The keys of an issuer of tokens cannot be used.
    Keys {
        /// The issuer.
        issuer: String,
        /// What is wrong with them.
        fault: KeySetFault,
    },
    /// Issuers or audiences do not fit together.
    Tokens(VerifierFault),
    /// The attributes of a service account cannot be used.
    Account(AccountFault),
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
            Self::Keys { issuer, fault } => write!(f, "keys of issuer '{}': {fault}", issuer.escape_debug()),
            Self::Tokens(fault) => write!(f, "{fault}"),
            Self::Account(fault) => write!(f, "{fault}"),
        }
    }
}

impl core::error::Error for AuthenticatorFault {}

/// One BrokerAuthentication at work.
#[derive(Debug)]
pub struct Authenticator {
    index: u16,
    methods: Vec<Method>,
    revocation: Arc<RevocationInForce>,
}

impl Authenticator {
    /// Makes the authenticator for `configuration.authentications[index]`. A method UsernamePassword knows nobody until
    /// [`Self::set_passwords`]. A clock that shows less than `clock_floor` counts as not set.
    ///
    /// # Errors
    /// A configuration that does not fit together, or a trust bundle or key that cannot be read.
    pub fn new(
        configuration: &Configuration,
        index: u16,
        signatures: impl Into<Signatures>,
        clock_floor: UnixTime,
    ) -> Result<Self, AuthenticatorFault> {
        let resource = configuration.authentications.get(usize::from(index)).ok_or(AuthenticatorFault::Index)?;
        let dates = Dates::new(configuration.gateway.clock_policy, clock_floor);
        let (signatures, revocation) = (signatures.into(), Arc::default());
        let methods =
            resource.methods.iter().map(|method| new_method(configuration, method, &signatures, dates, &revocation));
        let methods = methods.collect::<Result<Vec<Method>, _>>()?;
        if methods.is_empty() {
            return Err(AuthenticatorFault::NoMethods);
        }
        Ok(Self { index, methods, revocation })
    }

    /// Where the revocation lists and the deny list stand by which all methods judge. Nothing at first.
    #[must_use]
    pub const fn revocation(&self) -> &Arc<RevocationInForce> {
        &self.revocation
    }

    /// Gives a method UsernamePassword its users. Does nothing for another method.
    pub fn set_passwords(&mut self, method: u16, users: Passwords) {
        if let Some(method @ Method::Password(_)) = self.methods.get_mut(usize::from(method)) {
            *method = Method::Password(users);
        }
    }

    /// Whether the methods UsernamePassword of both, which have the same methods, have the same users with the same
    /// attributes.
    #[must_use]
    pub fn has_users_of(&self, other: &Self) -> bool {
        self.methods.iter().zip(&other.methods).all(|methods| match methods {
            (Method::Password(users), Method::Password(others)) => users.grants_like(others),
            _ => true,
        })
    }

    /// Number of methods.
    #[must_use]
    pub fn methods(&self) -> usize {
        self.methods.len()
    }

    /// Judges a client.
    #[must_use]
    pub fn authenticate(&self, evidence: &Evidence<'_>, now: UnixTime) -> Verdict {
        self.judge_from(0, evidence, now, Refusal::NoCredentials)
    }

    /// Goes on where `method` asked, now that there is an answer. `evidence` is the same as then.
    #[must_use]
    pub fn conclude(&self, method: u16, answer: Answer, evidence: &Evidence<'_>, now: UnixTime) -> Verdict {
        match (answer, self.methods.get(usize::from(method))) {
            // Only a custom server that does not answer is passed over. A token stays one for the cluster, whose silence
            // passes: its client is to try again.
            (Answer::Unavailable(why), Some(Method::Custom)) => {
                self.judge_from(usize::from(method) + 1, evidence, now, Refusal::NobodyDecided(why))
            }
            (answer, _) => self.decided(method, answer, evidence, None),
        }
    }

    /// Judges the new credential of the client `known`, which `method` accepted. azure-model §2.6.
    #[must_use]
    pub fn renew(&self, method: u16, evidence: &Evidence<'_>, now: UnixTime) -> Verdict {
        match self.methods.get(usize::from(method)) {
            Some(judge) => self
                .verdict(method, judge.renew(evidence, now), evidence)
                .unwrap_or(Verdict::Refused(Refusal::CannotRenew)),
            None => Verdict::Refused(Refusal::CannotRenew),
        }
    }

    /// Goes on with the renewal of the client `known` now that there is an answer. Nobody else is asked.
    #[must_use]
    pub fn conclude_renewal(&self, method: u16, answer: Answer, evidence: &Evidence<'_>, known: &Identity) -> Verdict {
        match answer {
            Answer::Unavailable(why) => Verdict::Refused(Refusal::Unavailable(why)),
            answer => self.decided(method, answer, evidence, Some(known)),
        }
    }

    /// Judges once more the client `known`, which `method` accepted: `None` where there is nothing to judge but the end of
    /// its credential, which is known.
    #[must_use]
    pub fn judge_again(
        &self,
        method: u16,
        known: &Identity,
        peer_chain: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Option<Result<Identity, Refusal>> {
        if let Some(refusal) = self.denied(known, peer_chain) {
            return Some(Err(refusal));
        }
        self.methods.get(usize::from(method))?.judge_again(known, peer_chain, now)
    }

    /// Whether a method looks at this Authentication Method of CONNECT.
    #[must_use]
    pub fn takes(&self, authentication_method: &str) -> bool {
        self.methods.iter().any(|method| method.takes(authentication_method))
    }

    /// The methods in order, from the one with index `first`: the first whose credentials are there decides. `otherwise` is
    /// said where there is none.
    fn judge_from(&self, first: usize, evidence: &Evidence<'_>, now: UnixTime, otherwise: Refusal) -> Verdict {
        for (index, method) in (0_u16..).zip(&self.methods).skip(first) {
            if let Some(verdict) = self.verdict(index, method.judge(evidence, now), evidence) {
                return verdict;
            }
        }
        Verdict::Refused(otherwise)
    }

    fn verdict(&self, method: u16, step: Step, evidence: &Evidence<'_>) -> Option<Verdict> {
        match step {
            Step::Irrelevant => None,
            Step::Proven(identity) => Some(self.admit(method, identity, evidence)),
            Step::Refused(refusal) => Some(Verdict::Refused(refusal)),
            Step::Ask(inquiry) => Some(self.question(method, inquiry)),
        }
    }

    /// Accepts whom a method has accepted, unless the operator denies him.
    fn admit(&self, method: u16, identity: Identity, evidence: &Evidence<'_>) -> Verdict {
        match self.denied(&identity, evidence.peer_chain) {
            Some(refusal) => Verdict::Refused(refusal),
            None => Verdict::Accepted { identity, method },
        }
    }

    /// Whether the operator denies a client by its user name, or by a certificate that it has shown, whichever method let it
    /// in and whatever the clock says. The method X509 looks at its path besides, the anchor included; what of a chain does
    /// not belong to the path is no matter there.
    fn denied(&self, identity: &Identity, peer_chain: &[CertificateDer<'_>]) -> Option<Refusal> {
        let deny_list = self.revocation.current().deny_list;
        if deny_list.count() == 0 {
            return None;
        }
        let by_name = identity.username.as_deref().and_then(|username| deny_list.find_username(username));
        if let Some(denial) = by_name {
            return Some(Refusal::Denied(denial.clone()));
        }
        let shown = if identity.method == AuthenticationMethod::X509 { 1 } else { peer_chain.len() };
        peer_chain.iter().take(shown).find_map(|certificate| chain::denied(certificate, &deny_list).map(Refusal::Chain))
    }

    fn question(&self, method: u16, inquiry: Inquiry) -> Verdict {
        Verdict::Undecided(Question { authenticator: self.index, method, inquiry, abandoned: Arc::default() })
    }

    fn decided(&self, method: u16, answer: Answer, evidence: &Evidence<'_>, known: Option<&Identity>) -> Verdict {
        let Some(judge) = self.methods.get(usize::from(method)) else {
            return Verdict::Refused(Refusal::NoCredentials);
        };
        match answer {
            Answer::Proven(proof) => match judge.identity(proof, evidence, known) {
                Ok(identity) => self.admit(method, identity, evidence),
                Err(refusal) => Verdict::Refused(refusal),
            },
            Answer::Refused(refusal) => Verdict::Refused(refusal),
            Answer::Unavailable(why) => Verdict::Refused(Refusal::Unavailable(why)),
        }
    }

    /// What TLS must ask of the clients of ports with this authenticator.
    #[must_use]
    pub fn client_certificates(&self) -> ClientCertificates {
        let is_x509 = |method: &Method| matches!(method, Method::X509(_));
        if self.methods.iter().all(is_x509) {
            ClientCertificates::Required
        } else if self.methods.iter().any(is_x509) {
            ClientCertificates::Requested
        } else if self.methods.iter().any(|method| matches!(method, Method::Custom)) {
            ClientCertificates::Forwarded
        } else {
            ClientCertificates::NotRequested
        }
    }

    /// The judge of client certificates: that of the first X509 method, which is the only one that ever decides.
    #[must_use]
    pub fn chain_verifier(&self) -> Option<&Arc<ChainVerifier>> {
        self.verifiers().next()
    }

    /// How `method` came to the attributes of a client with these certificates; `None` where it is not X509 or refuses them.
    #[must_use]
    pub fn granting(&self, method: u16, peer_chain: &[CertificateDer<'_>], now: UnixTime) -> Option<Granting> {
        let Some(Method::X509(method)) = self.methods.get(usize::from(method)) else { return None };
        let path = method.verifier().verify(peer_chain, now).ok()?;
        let entry = method.granting_entry(&path);
        Some(Granting { path, entry })
    }

    /// The judges of client certificates of all methods.
    pub fn verifiers(&self) -> impl Iterator<Item = &Arc<ChainVerifier>> {
        self.methods.iter().filter_map(|method| match method {
            Method::X509(method) => Some(method.verifier()),
            _ => None,
        })
    }

    /// What an operator should know before the clients do: authorities that are expired or soon will be, a clock that
    /// cannot be right.
    #[must_use]
    pub fn warnings(&self, now: UnixTime) -> Vec<String> {
        self.verifiers().flat_map(|verifier| verifier.warnings(now)).collect()
    }
}

fn new_method(
    configuration: &Configuration,
    method: &blob::Method,
    signatures: &Signatures,
    dates: Dates,
    revocation: &Arc<RevocationInForce>,
) -> Result<Method, AuthenticatorFault> {
    match method {
        blob::Method::X509 { trust_bundle, attributes } => {
            let bundle =
                configuration.trust_bundles.get(usize::from(*trust_bundle)).ok_or(AuthenticatorFault::Index)?;
            let same_key_algorithm = configuration.gateway.same_key_algorithm;
            let verifier = ChainVerifier::new(&bundle.certificates, signatures.clone(), dates, same_key_algorithm)
                .map_err(|fault| AuthenticatorFault::Bundle { name: bundle.name.clone(), fault })?;
            X509::new(verifier.with_revocation(Arc::clone(revocation)), attributes)
                .map(Method::X509)
                .map_err(|(label, IdentityFull)| AuthenticatorFault::Attributes { label: label.to_owned() })
        }
        blob::Method::ServiceAccountToken { audiences } => match &configuration.gateway.service_account_tokens {
            None => Err(AuthenticatorFault::Index),
            Some(ServiceAccountTokens::TokenReview { .. }) => Ok(Method::TokenReview { dates }),
            Some(ServiceAccountTokens::Offline { issuers, attributes }) => {
                let issuers = issuers.iter().map(new_issuer).collect::<Result<Vec<_>, _>>()?;
                let entries: Vec<_> =
                    attributes.iter().map(|entry| (entry.account.clone(), entry.attributes.clone())).collect();
                Ok(Method::Token {
                    verifier: TokenVerifier::new(issuers, audiences.clone()).map_err(AuthenticatorFault::Tokens)?,
                    attributes: AccountAttributes::new(&entries).map_err(AuthenticatorFault::Account)?,
                    dates,
                })
            }
        },
        blob::Method::Custom { .. } => Ok(Method::Custom),
        blob::Method::UsernamePassword { .. } => Ok(Method::Password(Passwords::default())),
    }
}

fn new_issuer(issuer: &blob::TokenIssuer) -> Result<TokenIssuer, AuthenticatorFault> {
    let fault = |fault| AuthenticatorFault::Keys { issuer: issuer.issuer.clone(), fault };
    let keys = KeySet::parse_all(issuer.key_sets.iter().map(String::as_str)).map_err(fault)?;
    Ok(TokenIssuer { issuer: issuer.issuer.clone(), keys })
}
