//! Certificates and keys for tests, made on the spot from fixed scalars.
#![allow(dead_code, missing_docs, clippy::unwrap_used)]

use p256::ecdsa::{DerSignature, SigningKey};
use p256::pkcs8::{EncodePrivateKey, EncodePublicKey, LineEnding};
use std::str::FromStr;
use std::time::Duration;
use x509_cert::builder::{Builder, CertificateBuilder, Profile};
use x509_cert::der::{Decode, EncodePem};
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber;
use x509_cert::spki::SubjectPublicKeyInfoOwned;
use x509_cert::time::Validity;

/// A key that belongs to `seed` alone.
pub fn key(seed: u8) -> SigningKey {
    SigningKey::from_slice(&[seed; 32]).unwrap()
}

/// PKCS#8 PEM of a key.
pub fn key_pem(key: &SigningKey) -> String {
    key.to_pkcs8_pem(LineEnding::LF).unwrap().to_string()
}

/// PKCS#8 PEM of an Ed25519 key and its public key.
pub fn ed25519(seed: u8) -> (String, SubjectPublicKeyInfoOwned) {
    let key = ed25519_dalek::SigningKey::from_bytes(&[seed; 32]);
    let public = EncodePublicKey::to_public_key_der(&key.verifying_key()).unwrap();
    let pem = EncodePrivateKey::to_pkcs8_pem(&key, LineEnding::LF).unwrap();
    (pem.to_string(), SubjectPublicKeyInfoOwned::from_der(public.as_bytes()).unwrap())
}

/// PKCS#8 PEM of a P-384 key and its public key.
pub fn p384(seed: u8) -> (String, SubjectPublicKeyInfoOwned) {
    let key = p384::SecretKey::from_slice(&[seed; 48]).unwrap();
    let public = key.public_key().to_public_key_der().unwrap();
    (
        key.to_pkcs8_pem(LineEnding::LF).unwrap().to_string(),
        SubjectPublicKeyInfoOwned::from_der(public.as_bytes()).unwrap(),
    )
}

/// PEM of a certificate for `public` that `issuer` signed with `issuer_key`; a root where there is no issuer.
pub fn certificate_for(
    subject: &str,
    public: SubjectPublicKeyInfoOwned,
    issuer: Option<&str>,
    issuer_key: &SigningKey,
) -> String {
    let profile = match issuer {
        None => Profile::Root,
        Some(issuer) => Profile::Leaf {
            issuer: Name::from_str(issuer).unwrap(),
            enable_key_agreement: false,
            enable_key_encipherment: false,
            include_subject_key_identifier: true,
        },
    };
    let serial = SerialNumber::from(7_u32);
    let validity = Validity::from_now(Duration::from_secs(1_000_000)).unwrap();
    let subject = Name::from_str(subject).unwrap();
    let builder = CertificateBuilder::new(profile, serial, validity, subject, public, issuer_key).unwrap();
    builder.build::<DerSignature>().unwrap().to_pem(LineEnding::LF).unwrap()
}

/// The same for a P-256 key.
pub fn certificate(subject: &str, key: &SigningKey, issuer: Option<&str>, issuer_key: &SigningKey) -> String {
    let public = key.verifying_key().to_public_key_der().unwrap();
    certificate_for(subject, SubjectPublicKeyInfoOwned::from_der(public.as_bytes()).unwrap(), issuer, issuer_key)
}

/// A root certificate.
pub fn authority() -> String {
    certificate("CN=Fabrikam Root CA", &key(1), None, &key(1))
}

/// A server's chain and key.
pub fn server() -> (String, String) {
    let leaf = certificate("CN=localhost", &key(2), Some("CN=Contoso Root CA"), &key(3));
    let root = certificate("CN=Contoso Root CA", &key(3), None, &key(3));
    (leaf + &root, key_pem(&key(2)))
}
