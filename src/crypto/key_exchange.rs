//! Key exchange: X25519 of our own, P-256 and P-384 of the published crate behind checks.
//!
//! In: a peer's key share. Out: the shared secret, or `InvalidKeyShare`. Secrets are wiped when they are dropped.
//!
//! **Invariant:** no shared secret that a third party could know leaves this file: an all-zero X25519 result is refused
//! (RFC 8446 §7.4.2), and so is a point in any but the uncompressed form (RFC 8446 §4.2.8.2).

use crate::crypto::entropy_answers;
use core::convert::Infallible;
use rustls::crypto::{ActiveKeyExchange, GetRandomFailed, SharedSecret, SupportedKxGroup};
use rustls::{Error, NamedGroup, PeerMisbehaved};
use std::sync::LazyLock;
use x25519_dalek::rand_core::{TryCryptoRng, TryRng};
use x25519_dalek::{EphemeralSecret, PublicKey};

/// Bytes of an X25519 key share.
const X25519_BYTES: usize = 32;
/// First byte of an uncompressed point (SEC 1 §2.3.3).
const UNCOMPRESSED_POINT: u8 = 4;

/// The groups in the order of our preference: X25519, P-256, P-384.
#[must_use]
pub fn groups() -> Vec<&'static dyn SupportedKxGroup> {
    vec![&X25519, &P256, &P384]
}

/// X25519 (RFC 7748).
#[derive(Debug)]
struct X25519;

/// One use of X25519.
struct X25519Exchange {
    secret: EphemeralSecret,
    public: PublicKey,
}

/// Entropy that was there before it is asked for: the library's own call would panic without it.
struct Drawn([u8; X25519_BYTES]);

impl Drawn {
    fn new() -> Result<Self, Error> {
        let mut bytes = [0; X25519_BYTES];
        getrandom::fill(&mut bytes).map_err(|_| GetRandomFailed)?;
        Ok(Self(bytes))
    }

    /// Hands the bytes over and leaves none behind. Asked for more than it has, which the one use here does not, it
    /// answers zeroes, whose key exchange a peer refuses.
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut taken = [0; N];
        for (to, from) in taken.iter_mut().zip(self.0.iter_mut()) {
            *to = core::mem::take(from);
        }
        taken
    }
}

impl TryRng for Drawn {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(u32::from_le_bytes(self.take()))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(u64::from_le_bytes(self.take()))
    }

    fn try_fill_bytes(&mut self, target: &mut [u8]) -> Result<(), Infallible> {
        for (to, from) in target.iter_mut().zip(self.0.iter_mut()) {
            *to = core::mem::take(from);
        }
        Ok(())
    }
}

impl TryCryptoRng for Drawn {}

impl SupportedKxGroup for X25519 {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        let secret = EphemeralSecret::random_from_rng(&mut Drawn::new()?);
        let public = PublicKey::from(&secret);
        Ok(Box::new(X25519Exchange { secret, public }))
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

impl ActiveKeyExchange for X25519Exchange {
    fn complete(self: Box<Self>, peer: &[u8]) -> Result<SharedSecret, Error> {
        let peer = <[u8; X25519_BYTES]>::try_from(peer).map_err(|_| PeerMisbehaved::InvalidKeyShare)?;
        let shared = self.secret.diffie_hellman(&PublicKey::from(peer));
        if !shared.was_contributory() {
            return Err(PeerMisbehaved::InvalidKeyShare.into());
        }
        Ok(SharedSecret::from(&shared.as_bytes()[..]))
    }

    fn pub_key(&self) -> &[u8] {
        self.public.as_bytes()
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

/// A NIST curve of the published crate, which validates points but panics without entropy and takes compressed points.
#[derive(Debug)]
struct NistCurve(NamedGroup);

static P256: NistCurve = NistCurve(NamedGroup::secp256r1);
static P384: NistCurve = NistCurve(NamedGroup::secp384r1);

/// One use of a NIST curve.
struct NistExchange(Box<dyn ActiveKeyExchange>);

impl SupportedKxGroup for NistCurve {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        entropy_answers()?;
        static PUBLISHED: LazyLock<Vec<&'static dyn SupportedKxGroup>> =
            LazyLock::new(|| rustls_rustcrypto::provider().kx_groups);
        let base = PUBLISHED.iter().find(|group| group.name() == self.0);
        let base = base.ok_or_else(|| Error::General("key exchange group is missing".into()))?;
        Ok(Box::new(NistExchange(base.start()?)))
    }

    fn name(&self) -> NamedGroup {
        self.0
    }
}

impl ActiveKeyExchange for NistExchange {
    fn complete(self: Box<Self>, peer: &[u8]) -> Result<SharedSecret, Error> {
        if peer.first() != Some(&UNCOMPRESSED_POINT) {
            return Err(PeerMisbehaved::InvalidKeyShare.into());
        }
        self.0.complete(peer)
    }

    fn pub_key(&self) -> &[u8] {
        self.0.pub_key()
    }

    fn group(&self) -> NamedGroup {
        self.0.group()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(result: Result<SharedSecret, Error>) -> bool {
        matches!(result, Err(Error::PeerMisbehaved(PeerMisbehaved::InvalidKeyShare)))
    }

    #[test]
    fn both_sides_agree_in_every_group() {
        for group in groups() {
            let (ours, theirs) = (group.start().unwrap(), group.start().unwrap());
            let (our_share, their_share) = (ours.pub_key().to_vec(), theirs.pub_key().to_vec());
            assert_ne!(our_share, their_share);
            assert_eq!(ours.group(), group.name());
            let (a, b) = (ours.complete(&their_share).unwrap(), theirs.complete(&our_share).unwrap());
            assert_eq!(a.secret_bytes(), b.secret_bytes());
            assert!(a.secret_bytes().iter().any(|byte| *byte != 0));
        }
    }

    #[test]
    fn our_x25519_agrees_with_the_published_one() {
        let ours = X25519.start().unwrap();
        let published = rustls_rustcrypto::provider().kx_groups[0].start().unwrap();
        let (our_share, their_share) = (ours.pub_key().to_vec(), published.pub_key().to_vec());
        let (a, b) = (ours.complete(&their_share).unwrap(), published.complete(&our_share).unwrap());
        assert_eq!(a.secret_bytes(), b.secret_bytes());
    }

    #[test]
    fn an_all_zero_x25519_secret_is_refused_where_the_published_crate_accepts_it() {
        let mut order_8 = [0; 32];
        order_8.copy_from_slice(&[
            0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a, 0xda, 0x09,
            0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00,
        ]);
        let mut one = [0; 32];
        one[0] = 1;
        for low_order in [[0; 32], one, order_8] {
            let published = rustls_rustcrypto::provider().kx_groups[0].start().unwrap();
            assert!(published.complete(&low_order).is_ok(), "the published crate is mended: drop our override");
            assert!(refused(X25519.start().unwrap().complete(&low_order)));
        }
    }

    #[test]
    fn shares_of_a_wrong_length_are_refused() {
        for group in groups() {
            for length in [0, 1, 31, 33, 64, 66, 98, 200] {
                assert!(refused(group.start().unwrap().complete(&vec![4; length])), "{:?} {length}", group.name());
            }
        }
    }

    #[test]
    fn compressed_and_hybrid_points_are_refused() {
        for group in [&P256, &P384] {
            let theirs = group.start().unwrap();
            let share = theirs.pub_key();
            let half = (share.len() - 1) / 2;
            let mut compressed = share[..=half].to_vec();
            compressed[0] = 2 + (share[share.len() - 1] & 1);
            assert!(refused(group.start().unwrap().complete(&compressed)));
            let mut off_curve = share.to_vec();
            let last = off_curve.len() - 1;
            off_curve[last] ^= 1;
            assert!(refused(group.start().unwrap().complete(&off_curve)));
            assert!(refused(group.start().unwrap().complete(&[0])), "point at infinity");
        }
    }
}
