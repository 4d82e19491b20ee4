//! Certificate chains of clients: from what a client sent to a path that leads to a trusted authority.
//!
//! webpki builds the path and checks signatures, dates, basic constraints, path lengths and name constraints. What it
//! leaves out is checked here, for every candidate path: key usage, extended key usage where there is none, the anchor's own
//! dates and constraints, the size of RSA keys, repeated extensions, and what has been withdrawn.

use super::deny_list::DenyList;
use super::revocation::{Link, ListTrouble, Objection, RevocationInForce, Withdrawn, WithdrawnBy};
use super::revocation_list::Serial;
use super::signature_memo::{Search, Signatures};
use crate::config::blob::ClockPolicy;
use crate::crypto::signatures::rsa_key_is_acceptable;
use crate::distinguished_name::DistinguishedName;
use crate::limits::{PEER_CHAIN_BYTES_MAX, PEER_CHAIN_CERTIFICATES_MAX};
use crate::time::{RELEASED, UnixTime};
use core::cell::RefCell;
use core::fmt;
use core::time::Duration;
use rustls::{CertificateError, OtherError};
use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm, TrustAnchor};
use std::sync::Arc;
use x509_cert::Certificate;
use x509_cert::certificate::Version;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::der::{Decode, Encode};
use x509_cert::ext::pkix::{BasicConstraints, ExtendedKeyUsage, KeyUsage};

/// id-kp-clientAuth, RFC 5280 §4.2.1.12.
const CLIENT_AUTHENTICATION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.2");
/// rsaEncryption, RFC 8017 appendix A.1.
const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
/// How long before its end an authority is worth a warning, seconds.
const EXPIRY_WARNING_SECONDS: u64 = 30 * 24 * 3_600;

/// By which time certificates are judged, given what the wall clock shows.
#[derive(Clone, Copy, Debug)]
pub struct Dates {
    policy: ClockPolicy,
    floor: UnixTime,
}

impl Dates {
    /// Judges by `policy` while the clock shows a time before `floor`, or before this release was made.
    #[must_use]
    pub fn new(policy: ClockPolicy, floor: UnixTime) -> Self {
        Self { policy, floor: floor.max(RELEASED) }
    }

    /// The time to judge by; `None` while no certificate can be judged.
    #[must_use]
    pub fn judged_at(self, now: UnixTime) -> Option<UnixTime> {
        match self.policy {
            _ if now >= self.floor => Some(now),
            ClockPolicy::AssumeBuildDate => Some(self.floor),
            ClockPolicy::Enforce => None,
        }
    }
}

/// Why a trust bundle cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BundleFault {
    /// It has no certificate.
    Empty,
    /// A certificate cannot be read.
    Malformed {
        /// Its position, from 0.
        index: usize,
    },
}

impl fmt::Display for BundleFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("it has no certificate"),
            Self::Malformed { index } => write!(f, "certificate {} cannot be read", index + 1),
        }
    }
}

/// Why a chain is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChainFault {
    /// No certificate was sent.
    Empty,
    /// More than [`PEER_CHAIN_CERTIFICATES_MAX`] certificates or [`PEER_CHAIN_BYTES_MAX`] bytes.
    TooLong,
    /// The wall clock shows a time that has passed for certain, so that no date can be judged.
    ClockNotSet,
    /// A certificate of the path cannot be read.
    Malformed,
    /// The path building of webpki found none.
    Path(webpki::Error),
    /// The leaf's extended key usage does not say that it is for clients.
    NotForClients,
    /// The leaf's key usage does not include digitalSignature.
    LeafKeyUsage,
    /// An authority's key usage does not include keyCertSign.
    AuthorityKeyUsage,
    /// The keys of the path are not all of one algorithm, which the vendor's rule demands.
    MixedKeyAlgorithms,
    /// The leaf has an RSA key below 2048 or above 4096 bits.
    KeySize,
    /// The trusted authority is expired.
    AnchorExpired,
    /// The trusted authority is not yet valid.
    AnchorNotYetValid,
    /// The trusted certificate is not marked as an authority.
    AnchorNotAuthority,
    /// The trusted authority does not allow so many intermediates below it.
    AnchorPathLength,
    /// A certificate has an extension twice. RFC 5280 §4.2.
    RepeatedExtension,
    /// A certificate of the path has been withdrawn.
    Withdrawn(Box<Withdrawn>),
    /// The revocation lists of this authority of the path cannot be believed.
    RevocationLists(Box<DistinguishedName>, ListTrouble),
}

impl ChainFault {
    /// Whether the same chain may be accepted later: the clock will be set, a newer list will come.
    #[must_use]
    pub const fn is_temporary(&self) -> bool {
        matches!(self, Self::ClockNotSet | Self::RevocationLists(_, ListTrouble::Stale(_)))
    }
}

impl From<Objection> for ChainFault {
    fn from(objection: Objection) -> Self {
        match objection {
            Objection::Withdrawn(what) => Self::Withdrawn(what),
            Objection::Lists(authority, trouble) => Self::RevocationLists(authority, trouble),
        }
    }
}

impl fmt::Display for ChainFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "no certificate",
            Self::TooLong => "too many or too large certificates",
            Self::ClockNotSet => "the clock of this gateway is not set, so that no certificate can be judged",
            Self::Malformed => "malformed certificate",
            Self::NotForClients => "certificate not for clients: its extended key usage lacks clientAuth",
            Self::LeafKeyUsage => "the certificate's key usage lacks digitalSignature",
            Self::AuthorityKeyUsage => "an authority's key usage lacks keyCertSign",
            Self::MixedKeyAlgorithms => {
                "the keys of the chain are of several algorithms (sameKeyAlgorithm of the Gateway resource demands one)"
            }
            Self::KeySize => "the certificate's RSA key is not of 2048 to 4096 bits",
            Self::AnchorExpired => "the trusted authority is expired",
            Self::AnchorNotYetValid => "the trusted authority is not yet valid",
            Self::AnchorNotAuthority => "the trusted certificate is not an authority",
            Self::AnchorPathLength => "the trusted authority does not allow so many intermediates",
            Self::RepeatedExtension => "a certificate has an extension twice",
            Self::Withdrawn(what) => return write!(f, "certificate {what}"),
            Self::RevocationLists(authority, trouble) => {
                return write!(f, "revocation list {trouble}: of {authority}");
            }
            Self::Path(error) => {
                return match error {
                    webpki::Error::UnknownIssuer => {
                        f.write_str("unknown authority, or an intermediate certificate is missing")
                    }
                    webpki::Error::CertExpired { not_after, .. } => {
                        write!(f, "certificate expired at {}", UnixTime(not_after.as_secs()))
                    }
                    webpki::Error::CertNotValidYet { not_before, .. } => {
                        write!(f, "certificate not valid before {}", UnixTime(not_before.as_secs()))
                    }
                    webpki::Error::RequiredEkuNotFoundContext(_) => {
                        f.write_str("certificate not for clients: its extended key usage lacks clientAuth")
                    }
                    webpki::Error::CaUsedAsEndEntity => f.write_str("the client shows a certificate of an authority"),
                    webpki::Error::EndEntityUsedAsCa => {
                        f.write_str("a certificate of the chain was issued by one that is not an authority")
                    }
                    webpki::Error::InvalidSignatureForPublicKey => f.write_str("bad signature"),
                    webpki::Error::PathLenConstraintViolated => f.write_str("too many intermediates for an authority"),
                    webpki::Error::NameConstraintViolation => f.write_str("a name constraint is violated"),
                    webpki::Error::UnsupportedCriticalExtension => f.write_str("unknown critical extension"),
                    webpki::Error::UnsupportedSignatureAlgorithmContext(_)
                    | webpki::Error::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => {
                        f.write_str("a signature of the chain is of an unsupported algorithm")
                    }
                    other => write!(f, "{other}"),
                };
            }
        })
    }
}

impl core::error::Error for ChainFault {}

impl From<ChainFault> for rustls::Error {
    /// What decides about the TLS alert; what has no alert of its own keeps our reason and is `certificate_unknown`.
    fn from(fault: ChainFault) -> Self {
        Self::InvalidCertificate(match &fault {
            ChainFault::Malformed | ChainFault::Path(webpki::Error::BadDer) => CertificateError::BadEncoding,
            ChainFault::Path(webpki::Error::UnknownIssuer) => CertificateError::UnknownIssuer,
            ChainFault::Path(webpki::Error::CertExpired { time, not_after }) => {
                CertificateError::ExpiredContext { time: *time, not_after: *not_after }
            }
            ChainFault::Path(webpki::Error::CertNotValidYet { time, not_before }) => {
                CertificateError::NotValidYetContext { time: *time, not_before: *not_before }
            }
            ChainFault::Path(webpki::Error::InvalidSignatureForPublicKey) => CertificateError::BadSignature,
            ChainFault::NotForClients | ChainFault::Path(webpki::Error::RequiredEkuNotFoundContext(_)) => {
                CertificateError::InvalidPurpose
            }
            ChainFault::Withdrawn(_) => CertificateError::Revoked,
            _ => CertificateError::Other(OtherError(Arc::new(fault))),
        })
    }
}

/// A path from a client's certificate to a trusted authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifiedPath {
    /// The subjects of the path, the leaf's first, the anchor's last.
    pub subjects: Vec<DistinguishedName>,
    /// When the first certificate of the path ends.
    pub expires: UnixTime,
}

#[derive(Debug)]
struct Anchor {
    link: Link,
    not_before: UnixTime,
    not_after: UnixTime,
    is_authority: bool,
    /// Whether its key usage allows it to sign certificates.
    signs: bool,
    path_length: Option<u8>,
    /// Algorithm of its key.
    key_algorithm: ObjectIdentifier,
}

/// Judges chains against the authorities of one trust bundle.
#[derive(Debug)]
pub struct ChainVerifier {
    /// What webpki needs of the authorities, and in the same order what we need.
    anchors: Vec<TrustAnchor<'static>>,
    anchor_checks: Vec<Anchor>,
    hints: Vec<rustls::DistinguishedName>,
    signatures: Signatures,
    dates: Dates,
    same_key_algorithm: bool,
    revocation: Arc<RevocationInForce>,
}

impl ChainVerifier {
    /// Reads the authorities of a bundle, each in DER. `same_key_algorithm`: the vendor's rule that all keys of a path are
    /// of one algorithm, EC or RSA. An expired one is not an error here: it may expire tomorrow as well.
    ///
    /// # Errors
    /// An empty bundle, or a certificate that cannot be read.
    pub fn new(
        bundle: &[Vec<u8>],
        signatures: impl Into<Signatures>,
        dates: Dates,
        same_key_algorithm: bool,
    ) -> Result<Self, BundleFault> {
        let (mut anchors, mut anchor_checks) = (Vec::new(), Vec::new());
        for (index, der) in bundle.iter().enumerate() {
            let malformed = BundleFault::Malformed { index };
            let certificate = CertificateDer::from(der.as_slice());
            let anchor = webpki::anchor_from_trusted_cert(&certificate).map_err(|_| malformed)?;
            anchors.push(anchor.to_owned());
            anchor_checks.push(Anchor::read(der).ok_or(malformed)?);
        }
        if anchors.is_empty() {
            return Err(BundleFault::Empty);
        }
        let hints = anchors.iter().map(|anchor| rustls::DistinguishedName::in_sequence(&anchor.subject)).collect();
        let (signatures, revocation) = (signatures.into(), Arc::default());
        Ok(Self { anchors, anchor_checks, hints, signatures, dates, same_key_algorithm, revocation })
    }

    /// Judges by what is in force at that place.
    #[must_use]
    pub fn with_revocation(self, revocation: Arc<RevocationInForce>) -> Self {
        Self { revocation, ..self }
    }

    /// Names of the authorities, for the certificate request.
    #[must_use]
    pub fn root_hint_subjects(&self) -> &[rustls::DistinguishedName] {
        &self.hints
    }

    /// Finds a path from `chain[0]` to one of the authorities, by way of the other certificates as far as they are needed.
    ///
    /// # Errors
    /// Why there is none.
    pub fn verify(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> Result<VerifiedPath, ChainFault> {
        let (leaf, intermediates) = chain.split_first().ok_or(ChainFault::Empty)?;
        let bytes: usize = chain.iter().map(|certificate| certificate.len()).sum();
        if chain.len() > PEER_CHAIN_CERTIFICATES_MAX || bytes > PEER_CHAIN_BYTES_MAX {
            return Err(ChainFault::TooLong);
        }
        let now = self.dates.judged_at(now).ok_or(ChainFault::ClockNotSet)?;
        let end_entity = webpki::EndEntityCert::try_from(leaf).map_err(ChainFault::Path)?;
        // What the checks found of the path that was accepted, or wrong with the last one that was not.
        let outcome = RefCell::new(None);
        let search = Search::new(&self.signatures.memo);
        let judge = |path: &webpki::VerifiedPath<'_>| {
            let result = self.check(leaf, path, now);
            if result.is_ok() {
                search.accept(path.intermediate_certificates().count() + 1);
            }
            let answer = if result.is_ok() { Ok(()) } else { Err(webpki::Error::CertDistrusted) };
            let mut outcome = outcome.borrow_mut();
            // Of two paths that are bad, the one with a withdrawn certificate says most.
            if result.is_ok() || !matches!(*outcome, Some(Err(ChainFault::Withdrawn(_)))) {
                *outcome = Some(result);
            }
            answer
        };
        let time = rustls_pki_types::UnixTime::since_unix_epoch(Duration::from_secs(now.0));
        let usage = webpki::KeyUsage::client_auth();
        let asked = search.through(self.signatures.algorithms);
        let algorithms: Vec<&dyn SignatureVerificationAlgorithm> = asked.iter().map(|asked| asked as _).collect();
        let built =
            end_entity.verify_for_usage(&algorithms, &self.anchors, intermediates, time, usage, None, Some(&judge));
        match (built, outcome.take()) {
            (Ok(_), Some(result)) => result,
            (Err(_), Some(Err(fault))) => Err(fault),
            (Err(error), _) => Err(ChainFault::Path(error)),
            // webpki always asks the judge before it accepts; if it did not, nothing was checked.
            (Ok(_), None) => Err(ChainFault::Malformed),
        }
    }

    /// The checks that webpki does not make, on one candidate.
    fn check(
        &self,
        leaf: &CertificateDer<'_>,
        path: &webpki::VerifiedPath<'_>,
        now: UnixTime,
    ) -> Result<VerifiedPath, ChainFault> {
        let leaf = parse(leaf)?;
        check_leaf(&leaf)?;
        let mut links = vec![link_of(&leaf)?];
        let mut expires = not_after_of(&leaf);
        let mut below_anchor: u32 = 0;
        let key_algorithm = leaf.tbs_certificate.subject_public_key_info.algorithm.oid;
        let mut one_algorithm = true;
        for intermediate in path.intermediate_certificates() {
            let certificate = parse(&intermediate.der())?;
            if !may_sign_certificates(&certificate)? {
                return Err(ChainFault::AuthorityKeyUsage);
            }
            links.push(link_of(&certificate)?);
            expires = expires.min(not_after_of(&certificate));
            // RFC 5280 §4.2.1.9: self-issued certificates do not count.
            let tbs = &certificate.tbs_certificate;
            one_algorithm &= tbs.subject_public_key_info.algorithm.oid == key_algorithm;
            below_anchor += u32::from(tbs.subject != tbs.issuer);
        }
        let anchor = self
            .anchors
            .iter()
            .position(|anchor| core::ptr::eq(anchor, path.anchor()))
            .and_then(|index| self.anchor_checks.get(index))
            .ok_or(ChainFault::Malformed)?;
        anchor.check(below_anchor, now)?;
        if self.same_key_algorithm && !(one_algorithm && anchor.key_algorithm == key_algorithm) {
            return Err(ChainFault::MixedKeyAlgorithms);
        }
        links.push(anchor.link.clone());
        self.revocation.current().judge(&links, self.signatures.algorithms, now)?;
        let subjects = links.into_iter().map(|link| link.subject).collect();
        Ok(VerifiedPath { subjects, expires: expires.min(anchor.not_after) })
    }

    /// What is worth knowing about the authorities and the clock.
    #[must_use]
    pub fn warnings(&self, now: UnixTime) -> Vec<String> {
        if now < self.dates.floor {
            let what = match self.dates.policy {
                ClockPolicy::Enforce => "client certificates are refused until it is set",
                ClockPolicy::AssumeBuildDate => "certificates are judged as of that date",
            };
            return vec![format!("the clock shows {now}, which was over at {}: {what}", self.dates.floor)];
        }
        let mut warnings = Vec::new();
        for anchor in &self.anchor_checks {
            let (subject, end) = (&anchor.link.subject, anchor.not_after);
            if anchor.check(0, now) == Err(ChainFault::AnchorExpired) {
                warnings.push(format!("the authority {subject} is expired since {end}; its clients are refused"));
            } else if let Err(fault) = anchor.check(0, now) {
                warnings.push(format!("the authority {subject} is of no use: {fault}"));
            } else if end <= now.plus_seconds(EXPIRY_WARNING_SECONDS) {
                warnings.push(format!("the authority {subject} expires at {end}"));
            }
        }
        warnings
    }
}

impl Anchor {
    fn read(der: &[u8]) -> Option<Self> {
        let certificate = Certificate::from_der(der).ok()?;
        let tbs = &certificate.tbs_certificate;
        let constraints = tbs.get::<BasicConstraints>().ok()?.map(|(_, constraints)| constraints);
        Some(Self {
            link: link_of(&certificate).ok()?,
            not_before: not_before_of(&certificate),
            not_after: not_after_of(&certificate),
            // Version 1 has no extensions to say it with; such a root is trusted because somebody put it here.
            is_authority: match &constraints {
                Some(constraints) => constraints.ca,
                None => tbs.version == Version::V1 && tbs.subject == tbs.issuer,
            },
            signs: may_sign_certificates(&certificate).ok()?,
            path_length: constraints.and_then(|constraints| constraints.path_len_constraint),
            key_algorithm: tbs.subject_public_key_info.algorithm.oid,
        })
    }

    fn check(&self, intermediates: u32, now: UnixTime) -> Result<(), ChainFault> {
        if !self.is_authority {
            Err(ChainFault::AnchorNotAuthority)
        } else if !self.signs {
            Err(ChainFault::AuthorityKeyUsage)
        } else if now < self.not_before {
            Err(ChainFault::AnchorNotYetValid)
        } else if now > self.not_after {
            Err(ChainFault::AnchorExpired)
        } else if self.path_length.is_some_and(|most| intermediates > u32::from(most)) {
            Err(ChainFault::AnchorPathLength)
        } else {
            Ok(())
        }
    }
}

fn check_leaf(leaf: &Certificate) -> Result<(), ChainFault> {
    let tbs = &leaf.tbs_certificate;
    let usage = tbs.get::<KeyUsage>().map_err(|_| ChainFault::Malformed)?;
    if usage.is_some_and(|(_, usage)| !usage.digital_signature()) {
        return Err(ChainFault::LeafKeyUsage);
    }
    let purposes = tbs.get::<ExtendedKeyUsage>().map_err(|_| ChainFault::Malformed)?;
    if !purposes.is_some_and(|(_, purposes)| purposes.0.contains(&CLIENT_AUTHENTICATION)) {
        return Err(ChainFault::NotForClients);
    }
    let key = &tbs.subject_public_key_info;
    if key.algorithm.oid == RSA_ENCRYPTION && !rsa_key_is_acceptable(key.subject_public_key.raw_bytes()) {
        return Err(ChainFault::KeySize);
    }
    Ok(())
}

/// Whether key usage is absent or includes keyCertSign. RFC 5280 §4.2.1.3.
fn may_sign_certificates(certificate: &Certificate) -> Result<bool, ChainFault> {
    let usage = certificate.tbs_certificate.get::<KeyUsage>().map_err(|_| ChainFault::Malformed)?;
    Ok(usage.is_none_or(|(_, usage)| usage.key_cert_sign()))
}

fn parse(der: &CertificateDer<'_>) -> Result<Certificate, ChainFault> {
    let certificate = Certificate::from_der(der).map_err(|_| ChainFault::Malformed)?;
    let extensions = certificate.tbs_certificate.extensions.iter().flatten();
    let mut kinds: Vec<ObjectIdentifier> = extensions.map(|extension| extension.extn_id).collect();
    kinds.sort_unstable();
    if kinds.windows(2).any(|pair| pair.first() == pair.last()) {
        return Err(ChainFault::RepeatedExtension);
    }
    Ok(certificate)
}

/// What the operator's entry for a certificate makes of it, if there is one. What cannot be read has none.
pub fn denied(certificate: &CertificateDer<'_>, deny_list: &DenyList) -> Option<ChainFault> {
    let link = link_of(&parse(certificate).ok()?).ok()?;
    let denial = deny_list.find(&link)?.clone();
    let what = Withdrawn { subject: link.subject, serial: link.serial, by: WithdrawnBy::Operator(denial) };
    Some(ChainFault::Withdrawn(Box::new(what)))
}

fn link_of(certificate: &Certificate) -> Result<Link, ChainFault> {
    let tbs = &certificate.tbs_certificate;
    let usage = tbs.get::<KeyUsage>().map_err(|_| ChainFault::Malformed)?;
    let name = |name| DistinguishedName::from_name(name).map_err(|_| ChainFault::Malformed);
    Ok(Link {
        subject: name(&tbs.subject)?,
        issuer: name(&tbs.issuer)?,
        serial: Serial::new(tbs.serial_number.as_bytes()),
        key_info: tbs.subject_public_key_info.to_der().map_err(|_| ChainFault::Malformed)?.into(),
        signs_lists: usage.is_none_or(|(_, usage)| usage.crl_sign()),
    })
}

fn not_before_of(certificate: &Certificate) -> UnixTime {
    UnixTime(certificate.tbs_certificate.validity.not_before.to_unix_duration().as_secs())
}

fn not_after_of(certificate: &Certificate) -> UnixTime {
    UnixTime(certificate.tbs_certificate.validity.not_after.to_unix_duration().as_secs())
}
