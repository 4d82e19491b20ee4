//! Signatures: which keys of others are believed, and which keys of our own are used.
//!
//! In: public keys and signatures of certificates and handshakes; a server's private key. Out: verdicts, or a signing key.
//! Verified are ECDSA on P-256 and P-384, Ed25519, and RSA (PKCS#1 and PSS, SHA-256 and above) with 2,048 to 4,096 bits.
//! Signed is with the first three only: the RSA implementation below is not constant in time (RUSTSEC-2023-0071), which
//! is harmless for public keys.
//!
//! Deliberately absent: SHA-1, P-521, DSA.

use crate::crypto::entropy_answers;
use crate::crypto::p256_verification::{P256_SHA256, P256_SHA384};
use rustls::crypto::{KeyProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::{
    AlgorithmIdentifier, InvalidSignature, PrivateKeyDer, SignatureVerificationAlgorithm, SubjectPublicKeyInfoDer,
    alg_id,
};
use rustls::sign::{Signer, SigningKey};
use rustls::{Error, SignatureAlgorithm, SignatureScheme};
use std::sync::{Arc, LazyLock};
use x509_cert::der::{Decode, Reader, SliceReader, asn1::UintRef};

/// Fewest bits of an RSA modulus that is believed.
pub const RSA_BITS_MIN: usize = 2_048;
/// Most bits of an RSA modulus that is believed: what a verification costs grows with the square.
pub const RSA_BITS_MAX: usize = 4_096;
/// Smallest public exponent of an RSA key that is believed.
pub const RSA_EXPONENT_MIN: u64 = 65_537;

/// An RSA algorithm of the published crate, for keys within our bounds.
#[derive(Debug)]
struct BoundedRsa(&'static dyn SignatureVerificationAlgorithm);

/// Whether `public_key`, an `RSAPublicKey` in DER (RFC 8017 §A.1.1), is within our bounds.
#[must_use]
pub fn rsa_key_is_acceptable(public_key: &[u8]) -> bool {
    let Ok(mut reader) = SliceReader::new(public_key) else { return false };
    let numbers = reader.sequence(|inner| Ok((UintRef::decode(inner)?, UintRef::decode(inner)?)));
    let Ok((modulus, exponent)) = numbers else { return false };
    if reader.finish(()).is_err() {
        return false;
    }
    let Some((first, rest)) = modulus.as_bytes().split_first() else { return false };
    let bits = rest.len() * 8 + first.checked_ilog2().map_or(0, |log| log as usize + 1);
    let exponent = exponent.as_bytes();
    if exponent.len() > size_of::<u64>() {
        return false;
    }
    let exponent = exponent.iter().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
    (RSA_BITS_MIN..=RSA_BITS_MAX).contains(&bits) && exponent >= RSA_EXPONENT_MIN && exponent % 2 == 1
}

impl SignatureVerificationAlgorithm for BoundedRsa {
    fn verify_signature(&self, public_key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
        if !rsa_key_is_acceptable(public_key) {
            return Err(InvalidSignature);
        }
        self.0.verify_signature(public_key, message, signature)
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        self.0.public_key_alg_id()
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        self.0.signature_alg_id()
    }
}

/// The algorithms by which certificates and handshakes are verified, in the order in which clients are told of them.
#[must_use]
pub fn algorithms() -> WebPkiSupportedAlgorithms {
    // rustls wants lists that live for ever. They are built and leaked once: 11 wrappers and two lists of pointers.
    static ALGORITHMS: LazyLock<WebPkiSupportedAlgorithms> = LazyLock::new(|| {
        let base = rustls_rustcrypto::provider().signature_verification_algorithms;
        let bounded = |algorithm: &&'static dyn SignatureVerificationAlgorithm| match (
            algorithm.public_key_alg_id(),
            algorithm.signature_alg_id(),
        ) {
            (alg_id::RSA_ENCRYPTION, _) => &*Box::leak(Box::new(BoundedRsa(*algorithm))),
            (alg_id::ECDSA_P256, alg_id::ECDSA_SHA256) => P256_SHA256,
            (alg_id::ECDSA_P256, alg_id::ECDSA_SHA384) => P256_SHA384,
            _ => *algorithm,
        };
        let all: Vec<_> = base.all.iter().map(bounded).collect();
        let ours = |algorithm: &&'static dyn SignatureVerificationAlgorithm| {
            let names = |other: &&'static dyn SignatureVerificationAlgorithm| {
                (other.public_key_alg_id(), other.signature_alg_id())
            };
            all.iter().copied().find(|candidate| names(candidate) == names(algorithm))
        };
        let mapping: Vec<(SignatureScheme, &'static [&'static dyn SignatureVerificationAlgorithm])> = base
            .mapping
            .iter()
            .map(|(scheme, algorithms)| {
                let wrapped: Vec<_> = algorithms.iter().filter_map(ours).collect();
                (*scheme, &*wrapped.leak())
            })
            .collect();
        WebPkiSupportedAlgorithms { all: all.leak(), mapping: mapping.leak() }
    });
    *ALGORITHMS
}

/// Loads the private keys of servers: ECDSA on P-256 or P-384 (PKCS#8, SEC 1) and Ed25519 (PKCS#8).
#[derive(Debug)]
pub struct ServerKeys;

impl KeyProvider for ServerKeys {
    fn load_private_key(&self, key: PrivateKeyDer<'static>) -> Result<Arc<dyn SigningKey>, Error> {
        rustls_rustcrypto::sign::any_ecdsa_type(&key)
            .or_else(|_| rustls_rustcrypto::sign::any_eddsa_type(&key))
            .map(|key| Arc::new(GuardedKey(key)) as Arc<dyn SigningKey>)
            // The message below would name the last attempt only, and it could quote the key.
            .map_err(|_| Error::General("private key is not of P-256, P-384 or Ed25519".into()))
    }
}

/// A key whose use fails without entropy where the published one panics: ECDSA mixes fresh entropy into each signature.
#[derive(Debug)]
struct GuardedKey(Arc<dyn SigningKey>);

/// One signature of a [`GuardedKey`].
#[derive(Debug)]
struct GuardedSigner(Box<dyn Signer>);

impl SigningKey for GuardedKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        self.0.choose_scheme(offered).map(|signer| Box::new(GuardedSigner(signer)) as Box<dyn Signer>)
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        self.0.public_key()
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        self.0.algorithm()
    }
}

impl Signer for GuardedSigner {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, Error> {
        entropy_answers()?;
        self.0.sign(message)
    }

    fn scheme(&self) -> SignatureScheme {
        self.0.scheme()
    }
}

#[cfg(test)]
mod tests;
