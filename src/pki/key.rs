//! Keys that sign: of an authority, and those that certificates are made for.
//!
//! In: entropy, or a key as a file holds it. Out: signatures and the public half. RSA is absent: signing with it is not
//! constant in time here.

use super::{PkiFault, encoding};
use p256::ecdsa::signature::Signer as _;
use p256::pkcs8::{DecodePrivateKey as _, EncodePrivateKey as _, LineEnding};
use rustls_pki_types::PrivateKeyDer;
use rustls_pki_types::pem::PemObject as _;
use x509_cert::spki::{
    AlgorithmIdentifierOwned, DynSignatureAlgorithmIdentifier as _, EncodePublicKey as _, SubjectPublicKeyInfoOwned,
};
use zeroize::Zeroizing;

/// Kind of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyKind {
    /// ECDSA with P-256 and SHA-256.
    P256,
    /// ECDSA with P-384 and SHA-384.
    P384,
    /// Ed25519.
    Ed25519,
}

/// A private key.
#[derive(Clone)]
pub enum Key {
    /// ECDSA with P-256 and SHA-256.
    P256(p256::ecdsa::SigningKey),
    /// ECDSA with P-384 and SHA-384.
    P384(p384::ecdsa::SigningKey),
    /// Ed25519.
    Ed25519(ed25519_dalek::SigningKey),
}

impl Key {
    /// A new key.
    ///
    /// # Errors
    /// `Entropy`.
    pub fn random(kind: KeyKind) -> Result<Self, PkiFault> {
        // All but very few scalars are below the order of a group.
        loop {
            let mut scalar = Zeroizing::new([0; 48]);
            getrandom::fill(&mut *scalar).map_err(|_| PkiFault::Entropy)?;
            let key = match kind {
                KeyKind::P256 => p256::ecdsa::SigningKey::from_slice(&scalar[..32]).map(Self::P256).ok(),
                KeyKind::P384 => p384::ecdsa::SigningKey::from_slice(&*scalar).map(Self::P384).ok(),
                KeyKind::Ed25519 => {
                    scalar.first_chunk().map(|seed| Self::Ed25519(ed25519_dalek::SigningKey::from_bytes(seed)))
                }
            };
            if let Some(key) = key {
                return Ok(key);
            }
        }
    }

    /// The key of a PEM text, PKCS#8 or SEC1.
    ///
    /// # Errors
    /// `Encoding`: there is none, or it is of another kind.
    pub fn from_pem(text: &str) -> Result<Self, PkiFault> {
        let unusable = || encoding("no key of P-256, P-384 or Ed25519");
        match PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|_| unusable())? {
            PrivateKeyDer::Pkcs8(key) => {
                let der = key.secret_pkcs8_der();
                p256::ecdsa::SigningKey::from_pkcs8_der(der)
                    .map(Self::P256)
                    .or_else(|_| p384::ecdsa::SigningKey::from_pkcs8_der(der).map(Self::P384))
                    .or_else(|_| ed25519_dalek::SigningKey::from_pkcs8_der(der).map(Self::Ed25519))
                    .map_err(|_| unusable())
            }
            PrivateKeyDer::Sec1(key) => {
                let der = key.secret_sec1_der();
                p256::SecretKey::from_sec1_der(der)
                    .map(|key| Self::P256(key.into()))
                    .or_else(|_| p384::SecretKey::from_sec1_der(der).map(|key| Self::P384(key.into())))
                    .map_err(|_| unusable())
            }
            _ => Err(unusable()),
        }
    }

    /// The key in PKCS#8 PEM.
    ///
    /// # Errors
    /// Cannot happen for a key that is one.
    pub fn to_pem(&self) -> Result<Zeroizing<String>, PkiFault> {
        match self {
            Self::P256(key) => key.to_pkcs8_pem(LineEnding::LF),
            Self::P384(key) => key.to_pkcs8_pem(LineEnding::LF),
            Self::Ed25519(key) => key.to_pkcs8_pem(LineEnding::LF),
        }
        .map_err(encoding)
    }

    /// What kind it is.
    #[must_use]
    pub const fn kind(&self) -> KeyKind {
        match self {
            Self::P256(_) => KeyKind::P256,
            Self::P384(_) => KeyKind::P384,
            Self::Ed25519(_) => KeyKind::Ed25519,
        }
    }

    /// The public half as it stands in a certificate.
    pub(super) fn public(&self) -> Result<SubjectPublicKeyInfoOwned, PkiFault> {
        use x509_cert::der::Decode as _;
        let der = match self {
            Self::P256(key) => key.verifying_key().to_public_key_der(),
            Self::P384(key) => key.verifying_key().to_public_key_der(),
            Self::Ed25519(key) => key.verifying_key().to_public_key_der(),
        };
        SubjectPublicKeyInfoOwned::from_der(der.map_err(encoding)?.as_bytes()).map_err(encoding)
    }

    /// The name of its signatures.
    pub(super) fn signature_algorithm(&self) -> Result<AlgorithmIdentifierOwned, PkiFault> {
        match self {
            Self::P256(key) => key.signature_algorithm_identifier(),
            Self::P384(key) => key.signature_algorithm_identifier(),
            Self::Ed25519(key) => key.signature_algorithm_identifier(),
        }
        .map_err(encoding)
    }

    /// A signature as it stands in a certificate.
    pub(super) fn sign(&self, text: &[u8]) -> Result<Vec<u8>, PkiFault> {
        match self {
            Self::P256(key) => {
                key.try_sign(text).map(|signature: p256::ecdsa::DerSignature| signature.as_bytes().to_vec())
            }
            Self::P384(key) => {
                key.try_sign(text).map(|signature: p384::ecdsa::DerSignature| signature.as_bytes().to_vec())
            }
            Self::Ed25519(key) => key.try_sign(text).map(|signature| signature.to_bytes().to_vec()),
        }
        .map_err(encoding)
    }
}
