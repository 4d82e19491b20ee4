//! Certificates with their keys: Secret resources, and the check that both `bake` and the running broker apply.
//!
//! Key material never reaches a message: faults are variants without contents.

use crate::time::UnixTime;
use base64ct::{Base64, Encoding};
use core::fmt;
use p256::elliptic_curve::sec1::ToEncodedPoint;
use p256::pkcs8::{DecodePrivateKey, ObjectIdentifier, PrivateKeyInfo};
use rustls_pki_types::pem::{PemObject, SectionKind};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer};
use x509_cert::Certificate;
use x509_cert::der::Decode;

/// Most certificates of a server's chain.
const CHAIN_CERTIFICATES_MAX: usize = 16;
/// id-ecPublicKey, RFC 5480.
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
/// rsaEncryption, RFC 8017.
const RSA_ENCRYPTION: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
/// id-RSASSA-PSS, RFC 8017.
const RSA_PSS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.10");
/// id-Ed25519, RFC 8410.
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
/// secp256r1.
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
/// secp384r1.
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
/// secp521r1.
const P521: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.35");
/// secp521r1 as it stands in the DER of a SEC1 key.
const P521_DER: &[u8] = &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x23];

/// The kind of a server key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// ECDSA with P-256.
    EcdsaP256,
    /// ECDSA with P-384.
    EcdsaP384,
    /// Ed25519.
    Ed25519,
}

impl fmt::Display for KeyKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::EcdsaP256 => "ECDSA P-256",
            Self::EcdsaP384 => "ECDSA P-384",
            Self::Ed25519 => "Ed25519",
        })
    }
}

/// A chain and a key that belong together.
#[derive(Debug)]
pub struct CheckedPair {
    /// The leaf, then its intermediates.
    pub certificates: Vec<CertificateDer<'static>>,
    /// The key of the leaf.
    pub key: PrivateKeyDer<'static>,
    /// What kind of key it is.
    pub kind: KeyKind,
    /// `notBefore` of the leaf.
    pub not_before: UnixTime,
    /// `notAfter` of the leaf.
    pub not_after: UnixTime,
}

/// Which of the two files of a Secret a fault is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// `tls.crt`.
    Certificate,
    /// `tls.key`.
    Key,
}

/// Why a Secret cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SecretFault {
    /// `tls.crt` is not well-formed PEM.
    CertificatePem,
    /// `tls.crt` holds no certificate.
    NoCertificate,
    /// `tls.crt` holds more certificates than any chain needs.
    TooManyCertificates,
    /// `tls.crt` holds a private key.
    KeyInCertificateFile,
    /// `tls.crt` holds a section that is neither certificate nor key.
    ForeignSection,
    /// A certificate is not valid DER.
    CertificateDer {
        /// Its position, from 0.
        index: usize,
    },
    /// A certificate was not issued by the one that follows it.
    ChainOrder {
        /// Its position, from 0.
        index: usize,
    },
    /// `tls.key` is not well-formed PEM.
    KeyPem,
    /// `tls.key` holds no private key.
    NoKey,
    /// The key is encrypted with a password.
    EncryptedKey,
    /// `tls.key` holds several keys.
    SeveralKeys,
    /// The key is an RSA key.
    RsaKey,
    /// The key is of curve P-521.
    P521Key,
    /// The key is of another kind.
    UnknownKeyKind,
    /// The key is not valid DER of its kind.
    KeyDer,
    /// The certificate is for another key.
    Mismatch,
}

impl SecretFault {
    /// The file it is in.
    #[must_use]
    pub fn part(self) -> Part {
        match self {
            Self::CertificatePem
            | Self::NoCertificate
            | Self::TooManyCertificates
            | Self::KeyInCertificateFile
            | Self::ForeignSection
            | Self::CertificateDer { .. }
            | Self::ChainOrder { .. } => Part::Certificate,
            Self::KeyPem
            | Self::NoKey
            | Self::EncryptedKey
            | Self::SeveralKeys
            | Self::RsaKey
            | Self::P521Key
            | Self::UnknownKeyKind
            | Self::KeyDer
            | Self::Mismatch => Part::Key,
        }
    }
}

impl fmt::Display for SecretFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CertificatePem => "tls.crt is not well-formed PEM",
            Self::NoCertificate => "tls.crt holds no certificate",
            Self::TooManyCertificates => "tls.crt holds more than 16 certificates",
            Self::KeyInCertificateFile => "tls.crt holds a private key; the key belongs into tls.key",
            Self::ForeignSection => "tls.crt holds something that is not a certificate",
            Self::CertificateDer { index } => {
                return write!(f, "certificate {} of tls.crt cannot be parsed", index + 1);
            }
            Self::ChainOrder { index } => {
                let (this, next) = (index + 1, index + 2);
                return write!(f, "certificate {this} of tls.crt was not issued by certificate {next}: the order is leaf, then issuers");
            }
            Self::KeyPem => "tls.key is not well-formed PEM",
            Self::NoKey => "tls.key holds no private key",
            Self::EncryptedKey => "the key of tls.key is encrypted; the broker has no one to ask for a password",
            Self::SeveralKeys => "tls.key holds more than one private key",
            Self::RsaKey => {
                "the key is an RSA key, and signing with it is not constant time here (RUSTSEC-2023-0071); use ECDSA P-256, P-384 or Ed25519"
            }
            Self::P521Key => "the key is of curve P-521, with which this broker cannot sign; use ECDSA P-256, P-384 or Ed25519",
            Self::UnknownKeyKind => "the key is of an unknown kind; use ECDSA P-256, P-384 or Ed25519",
            Self::KeyDer => "the key of tls.key cannot be parsed",
            Self::Mismatch => "the key of tls.key does not belong to the first certificate of tls.crt",
        })
    }
}

impl std::error::Error for SecretFault {}

/// Checks that a chain and a key can serve a listener: both parse, the chain is in order, the kind of the key is one this
/// broker signs with, and the key belongs to the leaf. Dates are not judged here.
///
/// # Errors
/// The first fault found.
pub fn check_pair(chain_pem: &[u8], key_pem: &[u8]) -> Result<CheckedPair, SecretFault> {
    let (key, kind, public_key) = read_key(key_pem)?;
    let certificates = read_chain(chain_pem)?;
    let mut parsed = Vec::new();
    for (index, certificate) in certificates.iter().enumerate() {
        parsed.push(Certificate::from_der(certificate).map_err(|_| SecretFault::CertificateDer { index })?);
    }
    for (index, pair) in parsed.windows(2).enumerate() {
        let [this, next] = pair else { continue };
        if this.tbs_certificate.issuer != next.tbs_certificate.subject {
            return Err(SecretFault::ChainOrder { index });
        }
    }
    let leaf = &parsed.first().ok_or(SecretFault::NoCertificate)?.tbs_certificate;
    if !is_key_of(&leaf.subject_public_key_info, kind, &public_key) {
        return Err(SecretFault::Mismatch);
    }
    let seconds = |time: &x509_cert::time::Time| UnixTime(time.to_unix_duration().as_secs());
    let (not_before, not_after) = (seconds(&leaf.validity.not_before), seconds(&leaf.validity.not_after));
    Ok(CheckedPair { certificates, key, kind, not_before, not_after })
}

fn read_chain(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, SecretFault> {
    let mut certificates = Vec::new();
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(pem) {
        match section {
            Ok((SectionKind::Certificate, der)) => certificates.push(CertificateDer::from(der)),
            Ok((SectionKind::PrivateKey | SectionKind::RsaPrivateKey | SectionKind::EcPrivateKey, _)) => {
                return Err(SecretFault::KeyInCertificateFile);
            }
            Ok(_) => return Err(SecretFault::ForeignSection),
            Err(_) => return Err(SecretFault::CertificatePem),
        }
    }
    match certificates.len() {
        0 => Err(SecretFault::NoCertificate),
        1..=CHAIN_CERTIFICATES_MAX => Ok(certificates),
        _ => Err(SecretFault::TooManyCertificates),
    }
}

/// The key, its kind, and its public half: an uncompressed point, or the 32 bytes of Ed25519.
fn read_key(pem: &[u8]) -> Result<(PrivateKeyDer<'static>, KeyKind, Vec<u8>), SecretFault> {
    let holds = |marker: &[u8]| pem.windows(marker.len()).any(|window| window == marker);
    if holds(b"ENCRYPTED") {
        return Err(SecretFault::EncryptedKey);
    }
    let mut keys = Vec::new();
    for section in <(SectionKind, Vec<u8>)>::pem_slice_iter(pem) {
        let (section, der) = section.map_err(|_| SecretFault::KeyPem)?;
        if matches!(section, SectionKind::PrivateKey | SectionKind::RsaPrivateKey | SectionKind::EcPrivateKey) {
            keys.push((section, der));
        }
    }
    if keys.len() > 1 {
        return Err(SecretFault::SeveralKeys);
    }
    match keys.pop().ok_or(SecretFault::NoKey)? {
        (SectionKind::RsaPrivateKey, _) => Err(SecretFault::RsaKey),
        (SectionKind::EcPrivateKey, der) => {
            let (kind, public) = read_sec1(&der)?;
            Ok((PrivateKeyDer::Sec1(PrivateSec1KeyDer::from(der)), kind, public))
        }
        (_, der) => {
            let (kind, public) = read_pkcs8(&der)?;
            Ok((PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(der)), kind, public))
        }
    }
}

fn read_sec1(der: &[u8]) -> Result<(KeyKind, Vec<u8>), SecretFault> {
    if let Ok(key) = p256::SecretKey::from_sec1_der(der) {
        return Ok((KeyKind::EcdsaP256, key.public_key().to_encoded_point(false).as_bytes().to_vec()));
    }
    if let Ok(key) = p384::SecretKey::from_sec1_der(der) {
        return Ok((KeyKind::EcdsaP384, key.public_key().to_encoded_point(false).as_bytes().to_vec()));
    }
    if der.windows(P521_DER.len()).any(|window| window == P521_DER) {
        return Err(SecretFault::P521Key);
    }
    Err(SecretFault::KeyDer)
}

fn read_pkcs8(der: &[u8]) -> Result<(KeyKind, Vec<u8>), SecretFault> {
    let info = PrivateKeyInfo::try_from(der).map_err(|_| SecretFault::KeyDer)?;
    match info.algorithm.oid {
        RSA_ENCRYPTION | RSA_PSS => Err(SecretFault::RsaKey),
        ED25519 => {
            let key = ed25519_dalek::SigningKey::from_pkcs8_der(der).map_err(|_| SecretFault::KeyDer)?;
            Ok((KeyKind::Ed25519, key.verifying_key().as_bytes().to_vec()))
        }
        EC_PUBLIC_KEY => match info.algorithm.parameters_oid().map_err(|_| SecretFault::KeyDer)? {
            P256 => {
                let key = p256::SecretKey::from_pkcs8_der(der).map_err(|_| SecretFault::KeyDer)?;
                Ok((KeyKind::EcdsaP256, key.public_key().to_encoded_point(false).as_bytes().to_vec()))
            }
            P384 => {
                let key = p384::SecretKey::from_pkcs8_der(der).map_err(|_| SecretFault::KeyDer)?;
                Ok((KeyKind::EcdsaP384, key.public_key().to_encoded_point(false).as_bytes().to_vec()))
            }
            P521 => Err(SecretFault::P521Key),
            _ => Err(SecretFault::UnknownKeyKind),
        },
        _ => Err(SecretFault::UnknownKeyKind),
    }
}

/// Whether `info` is the public key `public` of kind `kind`.
fn is_key_of(info: &x509_cert::spki::SubjectPublicKeyInfoOwned, kind: KeyKind, public: &[u8]) -> bool {
    let curve = info.algorithm.parameters.as_ref().and_then(|any| any.decode_as::<ObjectIdentifier>().ok());
    let bytes = info.subject_public_key.raw_bytes();
    match kind {
        KeyKind::Ed25519 => info.algorithm.oid == ED25519 && bytes == public,
        KeyKind::EcdsaP256 => {
            let point = p256::PublicKey::from_sec1_bytes(bytes).map(|key| key.to_encoded_point(false));
            info.algorithm.oid == EC_PUBLIC_KEY
                && curve == Some(P256)
                && point.is_ok_and(|point| point.as_bytes() == public)
        }
        KeyKind::EcdsaP384 => {
            let point = p384::PublicKey::from_sec1_bytes(bytes).map(|key| key.to_encoded_point(false));
            info.algorithm.oid == EC_PUBLIC_KEY
                && curve == Some(P384)
                && point.is_ok_and(|point| point.as_bytes() == public)
        }
    }
}

/// Decodes standard base64, line breaks and blanks allowed.
#[must_use]
pub(super) fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let dense: String = text.chars().filter(|character| !character.is_ascii_whitespace()).collect();
    Base64::decode_vec(&dense).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A PEM section around `der`.
    fn pem(label: &str, der: &[u8]) -> Vec<u8> {
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", Base64::encode_string(der)).into_bytes()
    }

    #[test]
    fn an_rsa_key_is_refused_whatever_it_is_wrapped_in() {
        assert_eq!(check_pair(b"", &pem("RSA PRIVATE KEY", b"x")).unwrap_err(), SecretFault::RsaKey);
        // PrivateKeyInfo { version 0, rsaEncryption NULL, one byte }
        let mut der = vec![0x30, 0x15, 2, 1, 0, 0x30, 0x0d, 6, 9];
        der.extend_from_slice(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1, 5, 0, 4, 1, 0]);
        assert_eq!(check_pair(b"", &pem("PRIVATE KEY", &der)).unwrap_err(), SecretFault::RsaKey);
        assert!(SecretFault::RsaKey.to_string().contains("RUSTSEC-2023-0071"));
    }

    #[test]
    fn a_p521_key_is_refused() {
        assert_eq!(check_pair(b"", &pem("EC PRIVATE KEY", P521_DER)).unwrap_err(), SecretFault::P521Key);
        let mut der = vec![0x30, 0x18, 2, 1, 0, 0x30, 0x10, 6, 7, 0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1];
        der.extend_from_slice(P521_DER);
        der.extend_from_slice(&[4, 1, 0]);
        assert_eq!(check_pair(b"", &pem("PRIVATE KEY", &der)).unwrap_err(), SecretFault::P521Key);
    }

    #[test]
    fn what_is_no_key_is_refused() {
        assert_eq!(check_pair(b"", b"").unwrap_err(), SecretFault::NoKey);
        assert_eq!(check_pair(b"", &pem("ENCRYPTED PRIVATE KEY", b"x")).unwrap_err(), SecretFault::EncryptedKey);
        assert_eq!(check_pair(b"", &pem("PRIVATE KEY", b"x")).unwrap_err(), SecretFault::KeyDer);
        assert_eq!(check_pair(b"", b"-----BEGIN PRIVATE KEY-----\nAAAA\n").unwrap_err(), SecretFault::KeyPem);
    }
}
