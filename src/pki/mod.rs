//! Makes keys and certificates: for the demo, and for tests that need bad ones.
//!
//! Comes in: who a certificate is for and what it may do. Goes out: DER and PEM. ECDSA P-256 throughout. Nothing here judges
//! a certificate; that is `authentication`.

pub mod demo;
mod revocation;

use crate::distinguished_name::DistinguishedName;
use crate::time::UnixTime;
use core::fmt;
use core::time::Duration;
use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{DerSignature, SigningKey};
use p256::pkcs8::{EncodePrivateKey, EncodePublicKey, LineEnding};
use std::net::IpAddr;
use x509_cert::builder::{Builder, CertificateBuilder, Profile};
use x509_cert::der::asn1::{BitString, Ia5String, ObjectIdentifier, OctetString};
use x509_cert::der::{Decode, Encode, EncodePem};
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{
    AuthorityKeyIdentifier, BasicConstraints, ExtendedKeyUsage, KeyUsage, KeyUsages, SubjectAltName,
    SubjectKeyIdentifier,
};
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::SubjectPublicKeyInfoOwned;
use x509_cert::time::{Time, Validity};
use x509_cert::{Certificate, TbsCertificate};
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
    key: SigningKey,
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
        let key = random_key()?;
        let certificate = sign(template, &key, None, &key)?;
        Ok(Self { certificate, key })
    }

    /// A certificate signed by this one, whether this one may do so or not.
    ///
    /// # Errors
    /// No entropy, or contents that cannot be encoded.
    pub fn issue(&self, template: &Template) -> Result<Self, PkiFault> {
        let key = random_key()?;
        let certificate = sign(template, &key, Some(&self.certificate), &self.key)?;
        Ok(Self { certificate, key })
    }

    /// As [`Self::issue`], for the key of `subject`: a cross-signed or renewed certificate.
    ///
    /// # Errors
    /// No entropy, or contents that cannot be encoded.
    pub fn issue_for(&self, template: &Template, subject: &Self) -> Result<Self, PkiFault> {
        let certificate = sign(template, &subject.key, Some(&self.certificate), &self.key)?;
        Ok(Self { certificate, key: subject.key.clone() })
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

    /// The signature over something in DER.
    fn signature_of(&self, content: &impl Encode) -> Result<BitString, PkiFault> {
        let signature: DerSignature = self.key.sign(&content.to_der().map_err(encoding)?);
        BitString::from_bytes(signature.as_bytes()).map_err(encoding)
    }

    /// The certificate and key of two PEM texts.
    ///
    /// # Errors
    /// One of them is not what it should be.
    pub fn from_pem(certificate: &str, key: &str) -> Result<Self, PkiFault> {
        use p256::pkcs8::DecodePrivateKey as _;
        use x509_cert::der::DecodePem as _;
        Ok(Self {
            certificate: Certificate::from_pem(certificate).map_err(encoding)?,
            key: SigningKey::from_pkcs8_pem(key).map_err(encoding)?,
        })
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
        self.key.to_pkcs8_pem(LineEnding::LF).map_err(encoding)
    }
}

fn random_key() -> Result<SigningKey, PkiFault> {
    loop {
        let mut scalar = [0; 32];
        getrandom::fill(&mut scalar).map_err(|_| PkiFault::Entropy)?;
        // All but one of 2^32 scalars are below the order of the group.
        if let Ok(key) = SigningKey::from_slice(&scalar) {
            return Ok(key);
        }
    }
}

fn sign(
    template: &Template,
    key: &SigningKey,
    issuer: Option<&Certificate>,
    issuer_key: &SigningKey,
) -> Result<Certificate, PkiFault> {
    let subject = template.subject.to_name().ok_or_else(|| encoding("the subject"))?;
    let mut serial = [0; 16];
    getrandom::fill(&mut serial).map_err(|_| PkiFault::Entropy)?;
    // Positive and without a leading zero byte.
    serial[0] = serial[0] & 0x7F | 0x40;
    let public = public_key_info(key)?;
    let profile = Profile::Manual { issuer: issuer.map(|certificate| certificate.tbs_certificate.subject.clone()) };
    let validity = Validity { not_before: time(template.not_before)?, not_after: time(template.not_after)? };
    let serial = SerialNumber::new(&serial).map_err(encoding)?;
    let mut builder =
        CertificateBuilder::new(profile, serial, validity, subject, public.clone(), issuer_key).map_err(encoding)?;
    if let Some(constraints) = &template.constraints {
        builder.add_extension(constraints).map_err(encoding)?;
    }
    if let Some(usage) = &template.key_usage {
        builder.add_extension(usage).map_err(encoding)?;
    }
    if !template.purposes.is_empty() {
        builder.add_extension(&ExtendedKeyUsage(template.purposes.clone())).map_err(encoding)?;
    }
    let identifier = |info: &SubjectPublicKeyInfoOwned| {
        SubjectKeyIdentifier::try_from(x509_cert::der::referenced::OwnedToRef::owned_to_ref(info)).map_err(encoding)
    };
    builder.add_extension(&identifier(&public)?).map_err(encoding)?;
    if issuer.is_some() {
        let authority = AuthorityKeyIdentifier {
            key_identifier: Some(identifier(&public_key_info(issuer_key)?)?.0),
            ..AuthorityKeyIdentifier::default()
        };
        builder.add_extension(&authority).map_err(encoding)?;
    }
    if !template.hosts.is_empty() {
        let names = template.hosts.iter().map(general_name).collect::<Result<Vec<_>, _>>()?;
        builder.add_extension(&SubjectAltName(names)).map_err(encoding)?;
    }
    builder.build::<DerSignature>().map_err(encoding)
}

fn public_key_info(key: &SigningKey) -> Result<SubjectPublicKeyInfoOwned, PkiFault> {
    let der = key.verifying_key().to_public_key_der().map_err(encoding)?;
    SubjectPublicKeyInfoOwned::from_der(der.as_bytes()).map_err(encoding)
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

fn time(time: UnixTime) -> Result<Time, PkiFault> {
    let time = x509_cert::der::DateTime::from_unix_duration(Duration::from_secs(time.0)).map_err(encoding)?;
    Ok(Time::GeneralTime(x509_cert::der::asn1::GeneralizedTime::from_date_time(time)))
}
