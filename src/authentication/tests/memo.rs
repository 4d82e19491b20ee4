//! What is remembered of signatures, and what that must not change.

use super::*;
use core::sync::atomic::{AtomicUsize, Ordering};
use rustls_pki_types::{AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm};
use std::sync::Arc;

/// An algorithm that counts how often it is asked.
#[derive(Debug)]
struct Counted(&'static dyn SignatureVerificationAlgorithm, Arc<AtomicUsize>);

impl SignatureVerificationAlgorithm for Counted {
    fn verify_signature(&self, public_key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.verify_signature(public_key, message, signature)
    }

    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        self.0.public_key_alg_id()
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        self.0.signature_alg_id()
    }
}

/// Signatures that were verified, and what remembers them.
struct Remembered {
    count: Arc<AtomicUsize>,
    signatures: Signatures,
}

impl Remembered {
    fn new() -> Self {
        let count = Arc::new(AtomicUsize::new(0));
        let counted = |algorithm: &&'static dyn SignatureVerificationAlgorithm| {
            let counted: &'static Counted = Box::leak(Box::new(Counted(*algorithm, Arc::clone(&count))));
            counted as &'static dyn SignatureVerificationAlgorithm
        };
        let all = crypto::provider().signature_verification_algorithms.all;
        let algorithms = all.iter().map(counted).collect::<Vec<_>>().leak();
        let memo = Arc::new(SignatureMemo::new(64));
        Self { count, signatures: Signatures { algorithms, memo } }
    }

    fn verifier(&self, anchors: &[&Issued]) -> ChainVerifier {
        let bundle: Vec<Vec<u8>> = anchors.iter().map(|anchor| anchor.certificate_der().unwrap()).collect();
        ChainVerifier::new(&bundle, self.signatures.clone(), Dates::new(ClockPolicy::Enforce, RELEASED), true).unwrap()
    }

    /// Signatures that were verified since this was asked last.
    fn count(&self) -> usize {
        self.count.swap(0, Ordering::Relaxed)
    }
}

/// A list that has the thermostat.
fn deny_list() -> Arc<DenyList> {
    Arc::new(DenyList::read("deny.yaml", b"- subject: CN = thermostat").unwrap())
}

#[test]
fn a_chain_that_was_accepted_is_accepted_again_without_verifying_a_signature() {
    let (factory, remembered) = (Factory::new(), Remembered::new());
    let verifier = remembered.verifier(&[&factory.root]);
    let first = verifier.verify(&factory.chain(), NOW).unwrap();
    assert_eq!(remembered.count(), 2);
    assert_eq!(verifier.verify(&factory.chain(), NOW).unwrap(), first);
    assert_eq!(remembered.count(), 0);
    // Another client of the same authority costs its own signature; another verifier asks the same memo.
    let other = factory.intermediate.issue(&leaf("CN=hygrometer")).unwrap();
    let chain = [der(&other), der(&factory.intermediate)];
    remembered.verifier(&[&factory.root]).verify(&chain, NOW).unwrap();
    assert_eq!(remembered.count(), 1);
}

#[test]
fn a_remembered_chain_is_refused_when_it_has_ended_or_is_not_yet_valid() {
    let (factory, remembered) = (Factory::new(), Remembered::new());
    let verifier = remembered.verifier(&[&factory.root]);
    verifier.verify(&factory.chain(), NOW).unwrap();
    remembered.count();
    let fault = verifier.verify(&factory.chain(), END.plus_seconds(1)).unwrap_err();
    assert!(matches!(fault, ChainFault::Path(webpki::Error::CertExpired { .. })), "{fault}");
    let fault = verifier.verify(&factory.chain(), UnixTime(BEGIN.0 - 1)).unwrap_err();
    assert!(matches!(fault, ChainFault::Path(webpki::Error::CertNotValidYet { .. })), "{fault}");
    assert_eq!(remembered.count(), 0);
}

#[test]
fn a_remembered_chain_is_refused_once_it_is_withdrawn() {
    let (factory, remembered) = (Factory::new(), Remembered::new());
    let in_force = Arc::new(RevocationInForce::default());
    let verifier = remembered.verifier(&[&factory.root]).with_revocation(Arc::clone(&in_force));
    verifier.verify(&factory.chain(), NOW).unwrap();
    remembered.count();
    in_force.replace_deny_list(deny_list());
    let fault = verifier.verify(&factory.chain(), NOW).unwrap_err();
    assert!(matches!(fault, ChainFault::Withdrawn(_)), "{fault}");
    assert_eq!(remembered.count(), 0, "the refusal was of a chain that is remembered");
}

#[test]
fn a_certificate_of_which_one_bit_is_another_is_not_remembered() {
    let (factory, remembered) = (Factory::new(), Remembered::new());
    let verifier = remembered.verifier(&[&factory.root]);
    let chain = factory.chain();
    verifier.verify(&chain, NOW).unwrap();
    let leaf = chain[0].to_vec();
    for byte in 0..leaf.len() {
        let mut changed = leaf.clone();
        changed[byte] ^= 1;
        let result = verifier.verify(&[CertificateDer::from(changed), chain[1].clone()], NOW);
        assert!(result.is_err(), "byte {byte}");
    }
}

#[test]
fn a_remembered_chain_is_nothing_to_who_trusts_somebody_else() {
    let (factory, remembered) = (Factory::new(), Remembered::new());
    remembered.verifier(&[&factory.root]).verify(&factory.chain(), NOW).unwrap();
    // Of the same name, and with another key.
    let impostor = Issued::root(&authority("CN=Fabrikam Root CA")).unwrap();
    let fault = remembered.verifier(&[&impostor]).verify(&factory.chain(), NOW).unwrap_err();
    assert!(matches!(fault, ChainFault::Path(webpki::Error::InvalidSignatureForPublicKey)), "{fault}");
    let stranger = Issued::root(&authority("CN=Contoso Root CA")).unwrap();
    let fault = remembered.verifier(&[&stranger]).verify(&factory.chain(), NOW).unwrap_err();
    assert!(matches!(fault, ChainFault::Path(webpki::Error::UnknownIssuer)), "{fault}");
}

#[test]
fn who_is_refused_leaves_nothing_behind() {
    let (factory, remembered) = (Factory::new(), Remembered::new());
    let verifier = remembered.verifier(&[&factory.root]);
    // Its signatures are good, and found so before it is looked for among those that are withdrawn.
    let withdrawn = Arc::new(RevocationInForce::default());
    withdrawn.replace_deny_list(deny_list());
    let denying = remembered.verifier(&[&factory.root]).with_revocation(withdrawn);
    denying.verify(&factory.chain(), NOW).unwrap_err();
    assert_eq!(remembered.count(), 2);
    // Made by a client for itself, under the name of its issuer.
    let impostor = Issued::root(&authority("CN=Fabrikam Intermediate CA 1")).unwrap();
    let forged = impostor.issue(&leaf("CN=thermostat")).unwrap();
    verifier.verify(&[der(&forged), der(&impostor)], NOW).unwrap_err();
    remembered.count();
    verifier.verify(&factory.chain(), NOW).unwrap();
    assert_eq!(remembered.count(), 2);
}
