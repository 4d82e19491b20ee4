//! Makes keys and certificates: for servers of mode Automatic, for the demo, and for tests that need bad ones.
//!
//! Comes in: who a certificate is for and what it may do. Goes out: DER and PEM. Nothing here judges a certificate; that is
//! `authentication`, and for servers' ones `service`.

pub mod demo;
mod key;
mod revocation;

pub use key::{Key, KeyKind};

use crate::distinguished_name::DistinguishedName;
use crate::time::UnixTime;
use core::fmt;
use core::time::Duration;
use p256::pkcs8::LineEnding;
use std::net::IpAddr;
use x509_cert::certificate::{Certificate, TbsCertificate, Version};
use x509_cert::der::asn1::{BitString, GeneralizedTime, Ia5String, ObjectIdentifier, OctetString, UtcTime};
use x509_cert::der::referenced::OwnedToRef as _;
use x509_cert::der::{Encode, EncodePem};
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{
    AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, KeyUsages, SubjectAltName,
    SubjectKeyIdentifier,
};
use x509_cert::ext::{AsExtension as _, Extension};
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::SubjectPublicKeyInfoOwned;
use x509_cert::time::{Time, Validity};
use zeroize::Zeroizing;

/// id-kp-serverAuth, RFC 5280 §4.2.1.12.
pub const SERVER_AUTHENTICATION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.1");
/// id-kp-clientAuth, RFC 5280 §4.2.1.12.
pub const CLIENT_AUTHENTICATION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.3.2");

/// Why a certificate cannot be made.
#[derive(Debug)]
pub enum PkiFault {
    /// The system has no entropy.
    Entropy,
    /// Something given cannot be encoded, e.g. a host name that is not ASCII.
    Encoding(String),
}

impl fmt::Display for PkiFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Entropy => f.write_str("no entropy from the system"),
            Self::Encoding(what) => write!(f, "cannot be encoded: {what}"),
        }
    }
}

impl core::error::Error for PkiFault {}

fn encoding(error: impl fmt::Display) -> PkiFault {
    PkiFault::Encoding(error.to_string())
}

/// A host that a server certificate is for.
#[derive(Clone, Debug)]
pub enum Host {
    /// A DNS name.
    Name(String),
    /// An address.
    Address(IpAddr),
}

/// What a certificate says. The constructors give the usual contents; tests change single fields.
#[derive(Clone, Debug)]
pub struct Template {
    /// The subject.
    pub subject: DistinguishedName,
    /// First second of validity.
    pub not_before: UnixTime,
    /// Last second of validity.
    pub not_after: UnixTime,
    /// Basic constraints; `None` leaves the extension out.
    pub constraints: Option<BasicConstraints>,
    /// Key usage; `None` leaves the extension out.
    pub key_usage: Option<KeyUsage>,
    /// Extended key usage; empty leaves the extension out.
    pub purposes: Vec<ObjectIdentifier>,
    /// Subject alternative names; empty leaves the extension out.
    pub hosts: Vec<Host>,
}

impl Template {
    /// An authority that may have `path_length` authorities below it.
    #[must_use]
    pub fn authority(
        subject: DistinguishedName,
        path_length: Option<u8>,
        not_before: UnixTime,
        not_after: UnixTime,
    ) -> Self {
        Self {
            subject,
            not_before,
            not_after,
            constraints: Some(BasicConstraints { ca: true, path_len_constraint: path_length }),
            key_usage: Some(KeyUsage(KeyUsages::KeyCertSign | KeyUsages::CRLSign)),
            purposes: Vec::new(),
            hosts: Vec::new(),
        }
    }

    /// A leaf that may be a client and a server.
    #[must_use]
    pub fn leaf(subject: DistinguishedName, not_before: UnixTime, not_after: UnixTime) -> Self {
        Self {
            subject,
            not_before,
            not_after,
            constraints: None,
            key_usage: Some(KeyUsage(KeyUsages::DigitalSignature.into())),
            purposes: vec![SERVER_AUTHENTICATION, CLIENT_AUTHENTICATION],
            hosts: Vec::new(),
        }
    }
}

/// A certificate and its key.
#[derive(Clone)]
pub struct Issued {
    certificate: Certificate,
    key: Key,
}

impl fmt::Debug for Issued {
    /// Never shows the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issued").field("subject", &self.certificate.tbs_certificate.subject).finish_non_exhaustive()
    }
}

impl Issued {
    /// A self-signed certificate.
    ///
    /// # Errors
    /// No entropy, or contents that cannot be encoded.
    pub fn root(template: &Template) -> Result<Self, PkiFault> {
        let key = Key::random(KeyKind::P256)?;
        let certificate = sign(template, &key, None, &key)?;
        Ok(Self { certificate, key })
    }

    /// A certificate signed by this one, whether this one may do so or not.
    ///
    /// # Errors
    /// No entropy, or contents that cannot be encoded.
    pub fn issue(&self, template: &Template) -> Result<Self, PkiFault> {
        self.issue_with(template, Key::random(KeyKind::P256)?)
    }

    /// [`Self::issue`] for a key that is there.
    ///
    /// # Errors
    /// No entropy, or contents that cannot be encoded.
    pub fn issue_with(&self, template: &Template, key: Key) -> Result<Self, PkiFault> {
        let certificate = sign(template, &key, Some(&self.certificate), &self.key)?;
        Ok(Self { certificate, key })
    }

    /// As [`Self::issue`], for the key of `subject`: a cross-signed or renewed certificate.
    ///
    /// # Errors
    /// No entropy, or contents that cannot be encoded.
    pub fn issue_for(&self, template: &Template, subject: &Self) -> Result<Self, PkiFault> {
        self.issue_with(template, subject.key.clone())
    }

    /// This certificate with what `edit` makes of its contents, signed by `issuer`: for what no template says.
    ///
    /// # Errors
    /// Contents that cannot be encoded.
    pub fn edited(&self, issuer: &Self, edit: impl FnOnce(&mut TbsCertificate)) -> Result<Self, PkiFault> {
        let mut edited = self.clone();
        edit(&mut edited.certificate.tbs_certificate);
        edited.certificate.signature_algorithm = edited.certificate.tbs_certificate.signature.clone();
        edited.certificate.signature = issuer.signature_of(&edited.certificate.tbs_certificate)?;
        Ok(edited)
    }

    fn signature_of(&self, content: &impl Encode) -> Result<BitString, PkiFault> {
        signature_by(&self.key, content)
    }

    /// The certificate and key of two PEM texts.
    ///
    /// # Errors
    /// One of them is not what it should be.
    pub fn from_pem(certificate: &str, key: &str) -> Result<Self, PkiFault> {
        use x509_cert::der::DecodePem as _;
        Ok(Self { certificate: Certificate::from_pem(certificate).map_err(encoding)?, key: Key::from_pem(key)? })
    }

    /// The certificate in DER.
    ///
    /// # Errors
    /// Cannot happen for what was encoded before.
    pub fn certificate_der(&self) -> Result<Vec<u8>, PkiFault> {
        self.certificate.to_der().map_err(encoding)
    }

    /// The certificate in PEM.
    ///
    /// # Errors
    /// Cannot happen for what was encoded before.
    pub fn certificate_pem(&self) -> Result<String, PkiFault> {
        self.certificate.to_pem(LineEnding::LF).map_err(encoding)
    }

    /// The key in PKCS#8 PEM.
    ///
    /// # Errors
    /// Cannot happen for a key that was made here.
    pub fn key_pem(&self) -> Result<Zeroizing<String>, PkiFault> {
        self.key.to_pem()
    }
}

fn sign(
    template: &Template,
    key: &Key,
    issuer: Option<&Certificate>,
    issuer_key: &Key,
) -> Result<Certificate, PkiFault> {
    let subject = template.subject.to_name().ok_or_else(|| encoding("the subject"))?;
    let mut serial = [0; 16];
    getrandom::fill(&mut serial).map_err(|_| PkiFault::Entropy)?;
    // Positive and without a leading zero byte.
    serial[0] = serial[0] & 0x7F | 0x40;
    let public = key.public()?;
    let signature = issuer_key.signature_algorithm()?;
    let tbs_certificate = TbsCertificate {
        version: Version::V3,
        serial_number: SerialNumber::new(&serial).map_err(encoding)?,
        signature: signature.clone(),
        issuer: issuer.map_or_else(|| subject.clone(), |certificate| certificate.tbs_certificate.subject.clone()),
        validity: Validity { not_before: time(template.not_before)?, not_after: time(template.not_after)? },
        extensions: Some(extensions(template, &subject, &public, issuer, issuer_key)?),
        subject,
        subject_public_key_info: public,
        issuer_unique_id: None,
        subject_unique_id: None,
    };
    let signed = signature_by(issuer_key, &tbs_certificate)?;
    Ok(Certificate { tbs_certificate, signature_algorithm: signature, signature: signed })
}

/// The signature over something in DER.
fn signature_by(key: &Key, content: &impl Encode) -> Result<BitString, PkiFault> {
    let text = content.to_der().map_err(encoding)?;
    BitString::from_bytes(&key.sign(&text)?).map_err(encoding)
}

fn extensions(
    template: &Template,
    subject: &Name,
    public: &SubjectPublicKeyInfoOwned,
    issuer: Option<&Certificate>,
    issuer_key: &Key,
) -> Result<Vec<Extension>, PkiFault> {
    let mut list = Vec::new();
    let mut add = |extension: &dyn Fn(&[Extension]) -> x509_cert::der::Result<Extension>| {
        let extension = extension(&list).map_err(encoding)?;
        list.push(extension);
        Ok::<(), PkiFault>(())
    };
    if let Some(constraints) = &template.constraints {
        add(&|list| constraints.to_extension(subject, list))?;
    }
    if let Some(usage) = &template.key_usage {
        add(&|list| usage.to_extension(subject, list))?;
    }
    if !template.purposes.is_empty() {
        let purposes = ExtendedKeyUsage(template.purposes.clone());
        add(&|list| purposes.to_extension(subject, list))?;
    }
    let own = key_identifier(public)?;
    add(&|list| own.to_extension(subject, list))?;
    if let Some(issuer) = issuer {
        // As the issuer calls its key, which need not be the digest that we would take (RFC 5280 §4.2.1.1).
        let named = issuer.tbs_certificate.get::<SubjectKeyIdentifier>().map_err(encoding)?;
        let key_identifier = match named {
            Some((_, identifier)) => identifier.0,
            None => key_identifier(&issuer_key.public()?)?.0,
        };
        let authority =
            AuthorityKeyIdentifier { key_identifier: Some(key_identifier), ..AuthorityKeyIdentifier::default() };
        add(&|list| authority.to_extension(subject, list))?;
    }
    if !template.hosts.is_empty() {
        let names = SubjectAltName(template.hosts.iter().map(general_name).collect::<Result<_, _>>()?);
        add(&|list| names.to_extension(subject, list))?;
    }
    Ok(list)
}

fn key_identifier(public: &SubjectPublicKeyInfoOwned) -> Result<SubjectKeyIdentifier, PkiFault> {
    SubjectKeyIdentifier::try_from(public.owned_to_ref()).map_err(encoding)
}

fn general_name(host: &Host) -> Result<GeneralName, PkiFault> {
    Ok(match host {
        Host::Name(name) => GeneralName::DnsName(Ia5String::new(name).map_err(encoding)?),
        Host::Address(IpAddr::V4(address)) => {
            GeneralName::IpAddress(OctetString::new(address.octets()).map_err(encoding)?)
        }
        Host::Address(IpAddr::V6(address)) => {
            GeneralName::IpAddress(OctetString::new(address.octets()).map_err(encoding)?)
        }
    })
}

/// RFC 5280 §4.1.2.5: UTCTime until the end of 2049.
fn time(time: UnixTime) -> Result<Time, PkiFault> {
    let since_1970 = Duration::from_secs(time.0);
    if let Ok(time) = UtcTime::from_unix_duration(since_1970) {
        return Ok(Time::UtcTime(time));
    }
    GeneralizedTime::from_unix_duration(since_1970).map(Time::GeneralTime).map_err(encoding)
}
