//! The cryptography that TLS uses: `rustls-rustcrypto` with its known defects replaced.
//!
//! In: nothing but the processor's abilities and the system's entropy. Out: one [`CryptoProvider`], the same for every
//! listener. What the published crate does wrong and what closes it here:
//!
//! | published crate | here |
//! | --- | --- |
//! | AES-GCM keys are never renewed (`confidentiality_limit` of 2⁶⁴) | renewed after 2²⁴ records ([`aead`]) |
//! | `extract_keys` names the wrong cipher, or panics | names the right one ([`aead`]) |
//! | a short TLS 1.2 ChaCha20 record underflows a length | refused ([`aead`]) |
//! | X25519 takes an all-zero shared secret | refused ([`key_exchange`]) |
//! | compressed points are taken as key shares | refused ([`key_exchange`]) |
//! | missing entropy is a panic | an error of the one handshake ([`key_exchange`], [`signatures`]) |
//! | RSA signatures of 1,024-bit keys are accepted | 2,048 to 4,096 bits, exponent at least 65,537 ([`signatures`]) |
//! | RSA server keys (timing of their use leaks, RUSTSEC-2023-0071) | refused ([`signatures`]) |
//! | P-256 verifies public numbers with care for secret ones | in six tenths of the time (`p256_verification`) |
//!
//! Deliberately absent: SHA-1, P-521, static RSA, CBC, session tickets, post-quantum groups.

pub mod aead;
pub mod key_exchange;
mod p256_verification;
pub mod signatures;

use rustls::SupportedCipherSuite;
use rustls::crypto::{CryptoProvider, GetRandomFailed, SecureRandom};
use std::sync::{Arc, LazyLock};

/// Entropy of the operating system, for rustls.
#[derive(Debug)]
struct Entropy;

impl SecureRandom for Entropy {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), GetRandomFailed> {
        getrandom::fill(bytes).map_err(|_| GetRandomFailed)
    }
}

/// Asks the system for entropy once, so that code which would panic without it is not reached.
fn entropy_answers() -> Result<(), rustls::Error> {
    let mut probe = [0; 8];
    getrandom::fill(&mut probe).map_err(|_| GetRandomFailed.into())
}

/// The provider for every TLS connection of the process.
#[must_use]
pub fn provider() -> CryptoProvider {
    CryptoProvider {
        cipher_suites: cipher_suites(aes_instructions()),
        kx_groups: key_exchange::groups(),
        signature_verification_algorithms: signatures::algorithms(),
        secure_random: &Entropy,
        key_provider: &signatures::ServerKeys,
    }
}

/// [`provider`], built once and shared.
#[must_use]
pub fn shared_provider() -> Arc<CryptoProvider> {
    static SHARED: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| Arc::new(provider()));
    Arc::clone(&SHARED)
}

/// The cipher suites in the order of our preference; the client's order is to be ignored. AES in software is three times
/// slower than ChaCha20 and hard to make constant in time, so it comes first only where the processor has it.
#[must_use]
pub fn cipher_suites(aes_instructions: bool) -> Vec<SupportedCipherSuite> {
    let [aes_128, aes_256, chacha20] = aead::TLS13_SUITES;
    let [aes_128_tls12, aes_256_tls12, chacha20_tls12] = aead::TLS12_SUITES;
    if aes_instructions {
        vec![aes_128, aes_256, chacha20, aes_128_tls12, aes_256_tls12, chacha20_tls12]
    } else {
        vec![chacha20, aes_128, aes_256, chacha20_tls12, aes_128_tls12, aes_256_tls12]
    }
}

/// Whether this processor encrypts AES and multiplies for GHASH in hardware. Raspberry Pi 3 and 4 do not.
#[must_use]
pub fn aes_instructions() -> bool {
    #[cfg(any(target_arch = "x86", target_arch = "x86_64"))]
    {
        std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq")
    }
    #[cfg(target_arch = "aarch64")]
    {
        // Stands for FEAT_PMULL too, which GHASH needs.
        std::arch::is_aarch64_feature_detected!("aes")
    }
    #[cfg(not(any(target_arch = "x86", target_arch = "x86_64", target_arch = "aarch64")))]
    {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::CipherSuite;

    fn names(suites: &[SupportedCipherSuite]) -> Vec<CipherSuite> {
        suites.iter().map(SupportedCipherSuite::suite).collect()
    }

    #[test]
    fn chacha20_comes_first_without_aes_instructions() {
        assert_eq!(names(&cipher_suites(false))[0], CipherSuite::TLS13_CHACHA20_POLY1305_SHA256);
        assert_eq!(names(&cipher_suites(false))[3], CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256);
        assert_eq!(names(&cipher_suites(true))[0], CipherSuite::TLS13_AES_128_GCM_SHA256);
    }

    #[test]
    fn both_orders_hold_the_same_suites_and_none_of_rsa() {
        let mut with = names(&cipher_suites(true));
        let mut without = names(&cipher_suites(false));
        with.sort_by_key(|suite| u16::from(*suite));
        without.sort_by_key(|suite| u16::from(*suite));
        assert_eq!(with, without);
        assert_eq!(with.len(), 6);
        assert!(with.iter().all(|suite| !format!("{suite:?}").contains("ECDHE_RSA")));
    }

    #[test]
    fn the_shared_provider_is_built_once() {
        assert!(Arc::ptr_eq(&shared_provider(), &shared_provider()));
    }

    #[test]
    fn entropy_fills_the_whole_buffer() {
        let (mut one, mut other) = ([0; 64], [0; 64]);
        Entropy.fill(&mut one).unwrap();
        Entropy.fill(&mut other).unwrap();
        assert_ne!(one, other);
        entropy_answers().unwrap();
    }
}
