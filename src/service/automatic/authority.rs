//! An authority on this machine: what it may do, what it issues, what it has issued.
//!
//! In: its pair, whose halves belong together, and what a certificate is to say. Out: chains and keys in PEM. What it has
//! issued is judged by webpki, as clients judge it: signature, purpose and the names that the authority may vouch for.
//!
//! Not judged: whether clients trust it. That is theirs to say.

use crate::config::secret::CheckedPair;
use crate::crypto;
use crate::distinguished_name::DistinguishedName;
use crate::pki::{Host, Issued, Key, PkiFault, Template};
use crate::time::{RELEASED, UnixTime};
use base64ct::{Base64, Encoding as _};
use core::fmt;
use core::time::Duration;
use rustls_pki_types::CertificateDer;
use std::collections::BTreeSet;
use std::net::IpAddr;
use x509_cert::Certificate;
use x509_cert::der::Decode as _;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage, SubjectAltName};
use zeroize::Zeroizing;

/// How long an authority that a gateway makes for itself lasts, seconds: ten years.
const AUTHORITY_SECONDS: u64 = 3_650 * 86_400;
/// Longest common name (RFC 5280, ub-common-name), bytes.
const COMMON_NAME_BYTES_MAX: usize = 64;

/// Why an authority cannot issue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthorityFault {
    /// `tls.crt` or `tls.key` is not there, and the folder is.
    Missing,
    /// A certificate cannot be read.
    Malformed,
    /// Basic constraints or key usage do not let it sign certificates.
    NotAuthority,
    /// It, or one above it, has ended at this time.
    Ended(UnixTime),
    /// It, or one above it, begins at this time only.
    NotYetValid(UnixTime),
}

impl fmt::Display for AuthorityFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => f.write_str("tls.crt or tls.key of the authority is missing (without the folder, one is made)"),
            Self::Malformed => f.write_str("the authority's certificate cannot be read"),
            Self::NotAuthority => f.write_str(
                "the certificate is not one of an authority: it needs CA:TRUE and, if there is a key usage, keyCertSign",
            ),
            Self::Ended(time) => write!(f, "the authority has ended at {time}"),
            Self::NotYetValid(time) => write!(f, "the authority is not valid before {time}"),
        }
    }
}

impl core::error::Error for AuthorityFault {}

/// An authority that may sign certificates.
pub struct Authority {
    /// Its own certificate, then those above it.
    certificates: Vec<CertificateDer<'static>>,
    /// Those of them that a server shows: all but a root, which clients have.
    shown: usize,
    issuer: Issued,
    not_before: UnixTime,
    not_after: UnixTime,
}

impl fmt::Debug for Authority {
    /// Never shows the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("not_after", &self.not_after).finish_non_exhaustive()
    }
}

impl Authority {
    /// The authority of a checked pair, whose key is `key` in PEM.
    ///
    /// # Errors
    /// `Malformed`, `NotAuthority`.
    pub fn new(pair: &CheckedPair, key: &[u8]) -> Result<Self, AuthorityFault> {
        let (mut not_before, mut not_after) = (UnixTime(0), UnixTime(u64::MAX));
        let mut shown = 0;
        for (index, der) in pair.certificates.iter().enumerate() {
            let tbs = Certificate::from_der(der).map_err(|_| AuthorityFault::Malformed)?.tbs_certificate;
            let constraints = tbs.get::<BasicConstraints>().map_err(|_| AuthorityFault::Malformed)?;
            let usage = tbs.get::<KeyUsage>().map_err(|_| AuthorityFault::Malformed)?;
            if !constraints.is_some_and(|(_, constraints)| constraints.ca)
                || usage.is_some_and(|(_, usage)| !usage.key_cert_sign())
            {
                return Err(AuthorityFault::NotAuthority);
            }
            not_before = not_before.max(UnixTime(tbs.validity.not_before.to_unix_duration().as_secs()));
            not_after = not_after.min(UnixTime(tbs.validity.not_after.to_unix_duration().as_secs()));
            if tbs.subject != tbs.issuer {
                shown = index + 1;
            }
        }
        let first = pair.certificates.first().ok_or(AuthorityFault::Malformed)?;
        let key = core::str::from_utf8(key).map_err(|_| AuthorityFault::Malformed)?;
        let issuer = Issued::from_pem(&pem(first), key).map_err(|_| AuthorityFault::Malformed)?;
        Ok(Self { certificates: pair.certificates.clone(), shown, issuer, not_before, not_after })
    }

    /// When the last of its certificates begins.
    pub const fn not_before(&self) -> UnixTime {
        self.not_before
    }

    /// When the first of its certificates ends.
    pub const fn not_after(&self) -> UnixTime {
        self.not_after
    }

    /// Whether it may issue at `now`.
    ///
    /// # Errors
    /// `Ended`, `NotYetValid`.
    pub fn check_dates(&self, now: UnixTime) -> Result<(), AuthorityFault> {
        if now < self.not_before {
            Err(AuthorityFault::NotYetValid(self.not_before))
        } else if now >= self.not_after {
            Err(AuthorityFault::Ended(self.not_after))
        } else {
            Ok(())
        }
    }

    /// Issues: the chain from the new certificate up to, but without, a root, and the key; both in PEM.
    ///
    /// # Errors
    /// No entropy, or contents that cannot be encoded.
    pub fn issue(&self, template: &Template, key: Key) -> Result<(String, Zeroizing<String>), PkiFault> {
        let issued = self.issuer.issue_with(template, key)?;
        let mut chain = issued.certificate_pem()?;
        chain.extend(self.shown().iter().map(pem));
        Ok((chain, issued.key_pem()?))
    }

    /// Whether this authority has issued `chain` for exactly `hosts`, and a client that trusts it would accept that. Dates
    /// are not judged.
    pub fn has_issued(&self, chain: &[CertificateDer<'_>], hosts: &[Host]) -> bool {
        let Some((leaf, above)) = chain.split_first() else { return false };
        above == self.shown() && self.accepts(leaf).is_some() && names_of(leaf) == Some(names(hosts))
    }

    fn shown(&self) -> &[CertificateDer<'static>] {
        self.certificates.get(..self.shown).unwrap_or_default()
    }

    /// Judges a certificate as of its first second.
    fn accepts(&self, leaf: &CertificateDer<'_>) -> Option<()> {
        let tbs = Certificate::from_der(leaf).ok()?.tbs_certificate;
        let begin = Duration::from_secs(tbs.validity.not_before.to_unix_duration().as_secs());
        let anchor = webpki::anchor_from_trusted_cert(self.certificates.first()?).ok()?;
        let algorithms = crypto::provider().signature_verification_algorithms.all;
        let (time, usage) = (rustls_pki_types::UnixTime::since_unix_epoch(begin), webpki::KeyUsage::server_auth());
        let leaf = webpki::EndEntityCert::try_from(leaf).ok()?;
        leaf.verify_for_usage(algorithms, &[anchor], &[], time, usage, None, None).ok().map(|_| ())
    }
}

/// A root that a gateway makes for itself: certificate and key in PEM. It issues to servers only, never to authorities. It
/// begins with this release, so that a clock that is ahead just once does not spoil it.
///
/// # Errors
/// No entropy.
pub fn self_signed(issuer: &str, now: UnixTime) -> Result<(String, Zeroizing<String>), PkiFault> {
    let subject = common_name(&format!("Portcullis {issuer}"));
    let root = Issued::root(&Template::authority(subject, Some(0), RELEASED, now.plus_seconds(AUTHORITY_SECONDS)))?;
    Ok((root.certificate_pem()?, root.key_pem()?))
}

/// A name of one common name, cut where X.509 ends it. `text` is ASCII.
pub fn common_name(text: &str) -> DistinguishedName {
    let text: String = text.chars().take(COMMON_NAME_BYTES_MAX).collect();
    // 2.5.4.3 in DER.
    DistinguishedName { relative_names: vec![vec![(vec![0x55, 4, 3], text)]] }
}

fn pem(certificate: &CertificateDer<'static>) -> String {
    let text = Base64::encode_string(certificate);
    let mut pem = "-----BEGIN CERTIFICATE-----\n".to_owned();
    for line in text.as_bytes().chunks(64) {
        pem.extend(line.iter().copied().map(char::from));
        pem.push('\n');
    }
    pem + "-----END CERTIFICATE-----\n"
}

/// The subject alternative names of a certificate; `None` where it cannot be read, or has other kinds of names.
fn names_of(leaf: &CertificateDer<'_>) -> Option<BTreeSet<String>> {
    let certificate = Certificate::from_der(leaf).ok()?;
    let (_, SubjectAltName(listed)) = certificate.tbs_certificate.get::<SubjectAltName>().ok()??;
    let name = |name: &GeneralName| match name {
        GeneralName::DnsName(name) => Some(name.to_string()),
        GeneralName::IpAddress(bytes) => {
            let bytes = bytes.as_bytes();
            let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
            v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok().map(|address| address.to_string())
        }
        _ => None,
    };
    listed.iter().map(name).collect()
}

/// Names of hosts as they are compared.
pub fn names(hosts: &[Host]) -> BTreeSet<String> {
    let name = |host: &Host| match host {
        Host::Name(name) => name.clone(),
        Host::Address(address) => address.to_string(),
    };
    hosts.iter().map(name).collect()
}
