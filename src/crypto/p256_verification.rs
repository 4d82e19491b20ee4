//! Verification of ECDSA signatures on P-256, in six tenths of the published crate's time: that one multiplies two points one
//! after the other, by code that hides the numbers. Here nothing is secret: key, text and signature are a peer's.
//!
//! In: public keys, texts and signatures, in the encodings that the published crate takes. Out: the same verdicts. Points,
//! their addition and their encodings are the published crate's; here is only the order of additions.
//!
//! **Invariant:** no secret comes into this file. Keys of our own sign with code that hides them.

use core::marker::PhantomData;
use p256::ecdsa::{DerSignature, Signature, VerifyingKey};
use p256::elliptic_curve::ops::{Invert, Reduce};
use p256::elliptic_curve::point::{AffineCoordinates, Double};
use p256::{AffinePoint, FieldBytes, ProjectivePoint, Scalar, U256};
use rustls::pki_types::{AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm, alg_id};
use sha2::{Digest, Sha256, Sha384};
use std::sync::LazyLock;

/// ECDSA with the hash `H`, on P-256.
#[derive(Debug)]
struct P256<H>(AlgorithmIdentifier, PhantomData<fn() -> H>);

/// With SHA-256.
pub static P256_SHA256: &dyn SignatureVerificationAlgorithm = &P256::<Sha256>(alg_id::ECDSA_SHA256, PhantomData);
/// With SHA-384, of which the first 256 bits count.
pub static P256_SHA384: &dyn SignatureVerificationAlgorithm = &P256::<Sha384>(alg_id::ECDSA_SHA384, PhantomData);

impl<H: Digest + core::fmt::Debug> SignatureVerificationAlgorithm for P256<H> {
    fn verify_signature(&self, public_key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
        let signature = DerSignature::from_bytes(signature).map_err(|_| InvalidSignature)?;
        let signature = Signature::try_from(signature).map_err(|_| InvalidSignature)?;
        // Refuses what is not a point of the curve, and the point at infinity.
        let key = VerifyingKey::from_sec1_bytes(public_key).map_err(|_| InvalidSignature)?;
        let digest = H::digest(message);
        let digest = digest.first_chunk().ok_or(InvalidSignature)?;
        if is_signature(&signature, digest, key.as_affine()) { Ok(()) } else { Err(InvalidSignature) }
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        alg_id::ECDSA_P256
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        self.0
    }
}

/// FIPS 186-5 §6.4.2. Neither number of a [`Signature`] is zero.
fn is_signature(signature: &Signature, digest: &[u8; 32], key: &AffinePoint) -> bool {
    let (r, s) = signature.split_scalars();
    let inverse = *s.invert_vartime();
    let of_base = <Scalar as Reduce<U256>>::reduce_bytes(&FieldBytes::from(*digest)) * inverse;
    let of_key = *r * inverse;
    let point = sum_of_multiples(&of_base, key, &of_key).to_affine();
    // The point at infinity has 0 here, which r is not.
    *r == <Scalar as Reduce<U256>>::reduce_bytes(&point.x())
}

/// Digits of four bits in a number.
const DIGITS: usize = 64;
/// Doublings between two rows of [`BASE`].
const COLUMNS: usize = 64;

/// `of_base` times the base point plus `of_key` times `key`, both in one row of doublings. `of_key` is taken in digits of
/// four bits; of `of_base` the bits that are [`COLUMNS`] apart are taken together, so that it takes part in the last
/// doublings only.
fn sum_of_multiples(of_base: &Scalar, key: &AffinePoint, of_key: &Scalar) -> ProjectivePoint {
    let (base, multiples): (&[AffinePoint; 15], _) = (&BASE, multiples(key));
    let (of_base, of_key) = (of_base.to_bytes(), of_key.to_bytes());
    let mut sum = ProjectivePoint::IDENTITY;
    for digit in (0..DIGITS).rev() {
        for position in (4 * digit..4 * digit + 4).rev() {
            sum = sum.double();
            if position < COLUMNS {
                add_nth(&mut sum, base, column(&of_base, position));
            }
        }
        let bits = (0..4).fold(0, |bits, at| bits | bit(&of_key, 4 * digit + at) << at);
        add_nth(&mut sum, &multiples, bits);
    }
    sum
}

/// Adds the point for the digit `number`; none stands for 0.
fn add_nth<P>(sum: &mut ProjectivePoint, points: &[P; 15], number: usize)
where
    for<'a> ProjectivePoint: core::ops::AddAssign<&'a P>,
{
    if let Some(point) = number.checked_sub(1).and_then(|index| points.get(index)) {
        *sum += point;
    }
}

/// `key` one to fifteen times.
fn multiples(key: &AffinePoint) -> [ProjectivePoint; 15] {
    let mut multiples = [ProjectivePoint::from(*key); 15];
    for index in 1..15 {
        multiples[index] = multiples[index - 1] + key;
    }
    multiples
}

/// For each choice of the rows 0 to 3 but the empty one, the sum of the base point doubled [`COLUMNS`] times for each row.
static BASE: LazyLock<[AffinePoint; 15]> = LazyLock::new(|| {
    let mut sums = [ProjectivePoint::IDENTITY; 16];
    let mut row = ProjectivePoint::GENERATOR;
    for choice in 0..4 {
        for index in 1 << choice..2 << choice {
            sums[index] = sums[index - (1 << choice)] + row;
        }
        (0..COLUMNS).for_each(|_| row = row.double());
    }
    core::array::from_fn(|index| sums[index + 1].to_affine())
});

/// The bits of `number` at `position` of each row.
fn column(number: &FieldBytes, position: usize) -> usize {
    (0..4).fold(0, |bits, row| bits | bit(number, row * COLUMNS + position) << row)
}

/// The bit of `number`, big-endian, that counts 2 to the `position`.
fn bit(number: &FieldBytes, position: usize) -> usize {
    usize::from(number[31 - position / 8] >> (position % 8) & 1)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use p256::ecdsa::SigningKey;
    use p256::ecdsa::signature::hazmat::{PrehashSigner, PrehashVerifier};

    /// Numbers that look like any, from a seed.
    fn scalar(seed: u64) -> Scalar {
        <Scalar as Reduce<U256>>::reduce_bytes(&FieldBytes::from(<[u8; 32]>::from(Sha256::digest(seed.to_be_bytes()))))
    }

    #[test]
    fn the_sum_is_that_of_two_multiplications() {
        let minus_one = -Scalar::ONE;
        let special = [Scalar::ZERO, Scalar::ONE, minus_one, Scalar::from(16_u64), Scalar::from(u64::MAX)];
        let numbers: Vec<Scalar> = special.into_iter().chain((0..6).map(scalar)).collect();
        // The base point itself and its negative are keys as well: the two sums then meet on the way.
        for key in [Scalar::ONE, minus_one, Scalar::from(2_u64), scalar(100), scalar(101)] {
            let key = (ProjectivePoint::GENERATOR * key).to_affine();
            for (one, other) in numbers.iter().flat_map(|one| numbers.iter().map(move |other| (one, other))) {
                let expected = ProjectivePoint::GENERATOR * one + ProjectivePoint::from(key) * other;
                assert_eq!(sum_of_multiples(one, &key, other), expected);
            }
        }
    }

    #[test]
    fn verdicts_are_those_of_the_published_crate() {
        for seed in 0..20 {
            let key = SigningKey::from_bytes(&scalar(seed).to_bytes()).unwrap();
            let public = key.verifying_key().to_encoded_point(seed % 2 == 0);
            let text = seed.to_be_bytes();
            for algorithm in [P256_SHA256, P256_SHA384] {
                let hash: Vec<u8> = if algorithm.signature_alg_id() == alg_id::ECDSA_SHA256 {
                    Sha256::digest(text).to_vec()
                } else {
                    Sha384::digest(text).to_vec()
                };
                let signature: Signature = key.sign_prehash(&hash).unwrap();
                let der = signature.to_der();
                assert!(algorithm.verify_signature(public.as_bytes(), &text, der.as_bytes()).is_ok());
                // The other of the two numbers that s may be is as good.
                let (r, s) = signature.split_scalars();
                let turned = Signature::from_scalars(*r, -*s).unwrap();
                assert!(key.verifying_key().verify_prehash(&hash, &turned).is_ok());
                assert!(algorithm.verify_signature(public.as_bytes(), &text, turned.to_der().as_bytes()).is_ok());
                assert!(algorithm.verify_signature(public.as_bytes(), b"another text", der.as_bytes()).is_err());
                let swapped = Signature::from_scalars(*s, *r).unwrap();
                assert!(algorithm.verify_signature(public.as_bytes(), &text, swapped.to_der().as_bytes()).is_err());
            }
        }
    }

    #[test]
    fn a_changed_byte_of_key_or_signature_is_refused() {
        let key = SigningKey::from_bytes(&scalar(1).to_bytes()).unwrap();
        let public = key.verifying_key().to_encoded_point(false);
        let signature: Signature = key.sign_prehash(&Sha256::digest(b"text")).unwrap();
        let (public, signature) = (public.as_bytes().to_vec(), signature.to_der().as_bytes().to_vec());
        for byte in 0..signature.len() {
            let mut changed = signature.clone();
            changed[byte] ^= 1;
            assert!(P256_SHA256.verify_signature(&public, b"text", &changed).is_err(), "signature, byte {byte}");
        }
        for byte in 0..public.len() {
            let mut changed = public.clone();
            changed[byte] ^= 1;
            assert!(P256_SHA256.verify_signature(&changed, b"text", &signature).is_err(), "key, byte {byte}");
        }
        for key in [&[][..], &[0], &public[..64]] {
            assert!(P256_SHA256.verify_signature(key, b"text", &signature).is_err());
        }
        for short in 0..signature.len() {
            assert!(P256_SHA256.verify_signature(&public, b"text", &signature[..short]).is_err());
        }
    }
}
