//! Which signatures of certificates were found good already, so that the chain of a client that comes back is judged without
//! its arithmetic: in the handshake, at CONNECT, after a change of trust.
//!
//! In: the signatures that path building asks for. Out: the same verdicts. That a key has signed a text does not change, so
//! nothing ends but what is pushed out. Dates, names, purposes and revocation are judged every time: they are not asked here.
//!
//! **Invariants:**
//! - only good signatures are remembered, by a SHA-256 over algorithms, key, text and signature: a certificate with another
//!   bit anywhere is another one. What is not known for certain is verified;
//! - only signatures of a path that was accepted, trust, dates and revocation included, are remembered: who is not let in
//!   leaves nothing behind, and who is leaves one entry for each certificate that an authority gave it;
//! - the table has a fixed size. An entry pushes out the one of its set that was accepted least lately, so that strangers to
//!   the table displace each other rather than the authorities that everybody uses.
//!
//! The signature by which a client proves that it has its key is not asked here: it is new each time.

use crate::limits::PEER_CHAIN_CERTIFICATES_MAX;
use core::fmt;
use rustls_pki_types::{AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm};
use sha2::{Digest as _, Sha256};
use std::sync::{Arc, Mutex};

/// The algorithms that signatures of certificates may have.
pub type SignatureAlgorithms = &'static [&'static dyn SignatureVerificationAlgorithm];

/// What stands for one signature.
type Fingerprint = [u8; 32];

/// Entries among which the one to push out is looked for.
const WAYS: usize = 8;
/// A place that holds nothing. A signature that came to it would not be remembered.
const VACANT: Fingerprint = [0; 32];

/// How signatures of certificates are verified.
#[derive(Clone, Debug)]
pub struct Signatures {
    /// The algorithms.
    pub algorithms: SignatureAlgorithms,
    /// What they found good. It is not to be shared with other algorithms.
    pub memo: Arc<SignatureMemo>,
}

impl From<SignatureAlgorithms> for Signatures {
    /// Verifies each signature each time.
    fn from(algorithms: SignatureAlgorithms) -> Self {
        Self { algorithms, memo: Arc::default() }
    }
}

/// Good signatures, the latest ones. The default has no room and forgets all.
#[derive(Default)]
pub struct SignatureMemo {
    /// In sets of [`WAYS`], each in the order of use, the latest first.
    places: Mutex<Vec<[Fingerprint; WAYS]>>,
}

impl fmt::Debug for SignatureMemo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignatureMemo").finish_non_exhaustive()
    }
}

impl SignatureMemo {
    /// Room for at least `signatures`.
    #[must_use]
    pub fn new(signatures: u32) -> Self {
        Self { places: Mutex::new(vec![[VACANT; WAYS]; Self::sets(signatures)]) }
    }

    /// Bytes that it takes.
    #[must_use]
    pub const fn bytes(signatures: u32) -> u64 {
        (Self::sets(signatures) * size_of::<[Fingerprint; WAYS]>()) as u64
    }

    const fn sets(signatures: u32) -> usize {
        (signatures as usize).div_ceil(WAYS)
    }

    fn knows(&self, fingerprint: &Fingerprint) -> bool {
        let Ok(mut places) = self.places.lock() else { return false };
        *fingerprint != VACANT && set_of(&mut places, fingerprint).is_some_and(|set| set.contains(fingerprint))
    }

    /// Puts it in front of its set. The last one falls out if it is new.
    fn remember(&self, fingerprint: &Fingerprint) {
        let Ok(mut places) = self.places.lock() else { return };
        let Some(set) = set_of(&mut places, fingerprint) else { return };
        let at = set.iter().position(|known| known == fingerprint).unwrap_or(WAYS - 1);
        set[at] = *fingerprint;
        set[..=at].rotate_right(1);
    }
}

/// Where it stands if it is known.
fn set_of<'a>(places: &'a mut [[Fingerprint; WAYS]], fingerprint: &Fingerprint) -> Option<&'a mut [Fingerprint; WAYS]> {
    let [a, b, c, d, ..] = *fingerprint;
    let number = u32::from_be_bytes([a, b, c, d]) as usize;
    let set = number.checked_rem(places.len())?;
    places.get_mut(set)
}

/// The signatures of one search for a path.
pub struct Search<'a> {
    memo: &'a SignatureMemo,
    /// The latest ones that were good, the latest last.
    good: Mutex<heapless::Vec<Fingerprint, PEER_CHAIN_CERTIFICATES_MAX>>,
}

impl<'a> Search<'a> {
    /// A search that asks `memo` first.
    pub const fn new(memo: &'a SignatureMemo) -> Self {
        Self { memo, good: Mutex::new(heapless::Vec::new()) }
    }

    /// `algorithms` as this search wants them asked.
    pub fn through(&self, algorithms: SignatureAlgorithms) -> Vec<Asked<'_>> {
        algorithms.iter().map(|algorithm| Asked { algorithm: *algorithm, search: self }).collect()
    }

    /// The path is accepted that the last `signatures` ones hold together: each candidate is verified in one go, from its
    /// anchor down to its leaf.
    pub fn accept(&self, signatures: usize) {
        let Ok(good) = self.good.lock() else { return };
        good.iter().rev().take(signatures).for_each(|fingerprint| self.memo.remember(fingerprint));
    }

    fn note(&self, fingerprint: Fingerprint) {
        let Ok(mut good) = self.good.lock() else { return };
        if good.is_full() {
            good.remove(0);
        }
        // There is room.
        let _ = good.push(fingerprint);
    }
}

/// One algorithm, in a search.
pub struct Asked<'a> {
    algorithm: &'static dyn SignatureVerificationAlgorithm,
    search: &'a Search<'a>,
}

impl fmt::Debug for Asked<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.algorithm.fmt(f)
    }
}

impl Asked<'_> {
    fn fingerprint(&self, public_key: &[u8], message: &[u8], signature: &[u8]) -> Fingerprint {
        let (key_algorithm, algorithm) = (self.public_key_alg_id(), self.signature_alg_id());
        let mut hash = Sha256::new();
        for part in [key_algorithm.as_ref(), algorithm.as_ref(), public_key, message, signature] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        hash.finalize().into()
    }
}

impl SignatureVerificationAlgorithm for Asked<'_> {
    fn verify_signature(&self, public_key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
        let fingerprint = self.fingerprint(public_key, message, signature);
        if !self.search.memo.knows(&fingerprint) {
            self.algorithm.verify_signature(public_key, message, signature)?;
        }
        self.search.note(fingerprint);
        Ok(())
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        self.algorithm.public_key_alg_id()
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        self.algorithm.signature_alg_id()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn numbered(number: u32) -> Fingerprint {
        let mut fingerprint = [1; 32];
        fingerprint[28..].copy_from_slice(&number.to_be_bytes());
        fingerprint
    }

    #[test]
    fn the_one_that_was_used_least_lately_is_pushed_out() {
        let memo = SignatureMemo::new(WAYS as u32);
        (0..8).for_each(|number| memo.remember(&numbered(number)));
        memo.remember(&numbered(0));
        memo.remember(&numbered(8));
        let known: Vec<u32> = (0..9).filter(|number| memo.knows(&numbered(*number))).collect();
        assert_eq!(known, [0, 2, 3, 4, 5, 6, 7, 8]);
    }

    #[test]
    fn a_memo_without_room_knows_nothing() {
        let memo = SignatureMemo::default();
        memo.remember(&numbered(1));
        assert!(!memo.knows(&numbered(1)));
        assert_eq!(SignatureMemo::bytes(0), 0);
    }

    #[test]
    fn a_vacant_place_is_no_signature() {
        assert!(!SignatureMemo::new(8).knows(&VACANT));
    }

    #[test]
    fn its_bytes_are_those_of_its_places() {
        assert_eq!(SignatureMemo::bytes(512), 512 * 32);
        assert_eq!(SignatureMemo::new(9).places.lock().unwrap().len(), 2);
    }
}
