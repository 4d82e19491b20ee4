//! What a client may send instead of an honest chain. Every one is refused, and within bounds.

use super::*;
use crate::limits::PEER_CHAIN_BYTES_MAX;
use crate::pki::Host;
use x509_cert::TbsCertificate;
use x509_cert::der::asn1::{BitString, Ia5String, ObjectIdentifier, OctetString};
use x509_cert::der::{AnyRef, Encode};
use x509_cert::ext::Extension;
use x509_cert::ext::pkix::constraints::name::{GeneralSubtree, NameConstraints};
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::spki::AlgorithmIdentifierOwned;

/// An extension that nobody knows.
const UNKNOWN: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.4.1.99999.1");

fn extension(extn_id: ObjectIdentifier, critical: bool, value: &[u8]) -> Extension {
    Extension { extn_id, critical, extn_value: OctetString::new(value).unwrap() }
}

fn add(tbs: &mut TbsCertificate, extension: Extension) {
    tbs.extensions.get_or_insert_default().push(extension);
}

/// A factory whose leaf is changed before its issuer signs it.
fn with_leaf(edit: impl FnOnce(&mut TbsCertificate)) -> Factory {
    let mut factory = Factory::new();
    factory.thermostat = factory.thermostat.edited(&factory.intermediate, edit).unwrap();
    factory
}

/// A factory whose intermediate is changed before its root signs it.
fn with_intermediate(edit: impl FnOnce(&mut TbsCertificate)) -> Factory {
    let mut factory = Factory::new();
    factory.intermediate = factory.intermediate.edited(&factory.root, edit).unwrap();
    factory
}

fn refused(factory: &Factory) -> String {
    factory.verify().unwrap_err().to_string()
}

#[test]
fn a_chain_beyond_the_bounds_is_refused_before_any_work() {
    let factory = Factory::new();
    let verifier = verifier(&[&factory.root]);
    // Garbage that could not even be parsed: nobody tries.
    let garbage = |count: usize, bytes: usize| -> Vec<CertificateDer<'static>> {
        let garbage = (0..count).map(|_| CertificateDer::from(vec![0xFF; bytes]));
        factory.chain().into_iter().chain(garbage).collect()
    };
    assert_eq!(verifier.verify(&garbage(20, 3_000), NOW), Err(ChainFault::TooLong));
    assert_eq!(verifier.verify(&garbage(20, 1), NOW), Err(ChainFault::TooLong));
    assert_eq!(verifier.verify(&garbage(1, PEER_CHAIN_BYTES_MAX), NOW), Err(ChainFault::TooLong));
    // Below the bounds garbage is passed over.
    assert!(verifier.verify(&garbage(6, 1_000), NOW).is_ok());
}

#[test]
fn authorities_of_one_name_and_many_keys_exhaust_the_budget_and_not_the_broker() {
    let root = Issued::root(&authority("CN=Maze")).unwrap();
    let maze: Vec<Issued> = (0..7).map(|_| Issued::root(&authority("CN=Maze")).unwrap()).collect();
    let mut chain = vec![der(&maze[0].issue(&leaf("CN=c")).unwrap())];
    chain.extend(maze.iter().map(der));
    assert!(matches!(verifier(&[&root]).verify(&chain, NOW), Err(ChainFault::Path(_))));
}

#[test]
fn authorities_that_sign_each_other_lead_nowhere() {
    let factory = Factory::new();
    let (a, b) = (Issued::root(&authority("CN=A")).unwrap(), Issued::root(&authority("CN=B")).unwrap());
    let chain = [
        der(&a.issue(&leaf("CN=c")).unwrap()),
        der(&b.issue_for(&authority("CN=A"), &a).unwrap()),
        der(&a.issue_for(&authority("CN=B"), &b).unwrap()),
    ];
    let unknown = Err(ChainFault::Path(webpki::Error::UnknownIssuer));
    assert_eq!(verifier(&[&factory.root]).verify(&chain, NOW), unknown);
    // A door out of the circle is found.
    assert!(verifier(&[&b]).verify(&chain, NOW).is_ok());
}

#[test]
fn of_several_paths_one_good_one_is_enough() {
    let expired = Issued::root(&Template::authority(name("CN=Old"), None, BEGIN, BEGIN)).unwrap();
    let root = Issued::root(&authority("CN=New")).unwrap();
    let by_expired = expired.issue(&authority("CN=I")).unwrap();
    let by_root = root.issue_for(&authority("CN=I"), &by_expired).unwrap();
    let client = der(&by_root.issue(&leaf("CN=c")).unwrap());
    for chain in [[client.clone(), der(&by_expired), der(&by_root)], [client.clone(), der(&by_root), der(&by_expired)]]
    {
        for anchors in [vec![&expired, &root], vec![&root, &expired], vec![&root]] {
            let path = verifier(&anchors).verify(&chain, NOW).unwrap();
            assert_eq!(path.subjects[2], name("CN=New"));
        }
        assert_eq!(verifier(&[&expired]).verify(&chain, NOW), Err(ChainFault::AnchorExpired));
    }
}

#[test]
fn a_leaf_must_not_issue_and_an_authority_must_not_connect() {
    let factory = Factory::new();
    let below = factory.thermostat.issue(&leaf("CN=below")).unwrap();
    let chain = [der(&below), der(&factory.thermostat), der(&factory.intermediate)];
    let fault = verifier(&[&factory.root]).verify(&chain, NOW).unwrap_err();
    assert_eq!(fault, ChainFault::Path(webpki::Error::EndEntityUsedAsCa));
    let fault = verifier(&[&factory.root]).verify(&chain[2..], NOW).unwrap_err();
    assert_eq!(fault, ChainFault::Path(webpki::Error::CaUsedAsEndEntity));
    // Nor by its own word.
    let own = Issued::root(&leaf("CN=thermostat")).unwrap();
    let fault = verifier(&[&factory.root]).verify(&[der(&own)], NOW).unwrap_err();
    assert_eq!(fault, ChainFault::Path(webpki::Error::UnknownIssuer));
}

#[test]
fn path_lengths_hold_for_intermediates() {
    let root = Issued::root(&authority("CN=Root")).unwrap();
    let last = root.issue(&Template::authority(name("CN=Last"), Some(0), BEGIN, END)).unwrap();
    let beyond = last.issue(&authority("CN=Beyond")).unwrap();
    let chain = [der(&beyond.issue(&leaf("CN=c")).unwrap()), der(&beyond), der(&last)];
    let fault = verifier(&[&root]).verify(&chain, NOW).unwrap_err();
    assert_eq!(fault, ChainFault::Path(webpki::Error::PathLenConstraintViolated));
    assert!(verifier(&[&root]).verify(&[der(&last.issue(&leaf("CN=c")).unwrap()), der(&last)], NOW).is_ok());
}

#[test]
fn an_extension_twice_is_refused_known_or_not() {
    let again = |tbs: &mut TbsCertificate| {
        let first = tbs.extensions.as_ref().unwrap()[0].clone();
        add(tbs, first);
    };
    assert!(with_leaf(again).verify().is_err());
    assert!(with_intermediate(again).verify().is_err());
    let unknown = |tbs: &mut TbsCertificate| (0..2).for_each(|_| add(tbs, extension(UNKNOWN, false, &[5, 0])));
    assert_eq!(with_leaf(unknown).verify(), Err(ChainFault::RepeatedExtension));
    assert_eq!(with_intermediate(unknown).verify(), Err(ChainFault::RepeatedExtension));
}

#[test]
fn an_unknown_extension_matters_only_if_it_is_critical() {
    let critical = |tbs: &mut TbsCertificate| add(tbs, extension(UNKNOWN, true, &[5, 0]));
    assert_eq!(refused(&with_leaf(critical)), "unknown critical extension");
    // An intermediate that cannot be read is none, whatever the reason.
    assert!(with_intermediate(critical).verify().is_err());
    let large = |tbs: &mut TbsCertificate| add(tbs, extension(UNKNOWN, false, &[0; 10_000]));
    assert!(with_leaf(large).verify().is_ok());
    let huge = |tbs: &mut TbsCertificate| add(tbs, extension(UNKNOWN, false, &[0; 60_000]));
    assert_eq!(with_leaf(huge).verify(), Err(ChainFault::TooLong));
}

#[test]
fn names_outside_the_constraints_of_an_authority_are_refused() {
    let dns = |name: &str| GeneralName::DnsName(Ia5String::new(name).unwrap());
    let subtree = |base: GeneralName| vec![GeneralSubtree { base, minimum: 0, maximum: None }];
    let constrained = |permitted: Option<GeneralName>, excluded: Option<GeneralName>| {
        let constraints =
            NameConstraints { permitted_subtrees: permitted.map(subtree), excluded_subtrees: excluded.map(subtree) };
        let value = constraints.to_der().unwrap();
        let constrain = |tbs: &mut TbsCertificate| {
            let id = <NameConstraints as x509_cert::der::oid::AssociatedOid>::OID;
            add(tbs, extension(id, true, &value));
        };
        let mut client = leaf("CN=c");
        client.hosts = vec![Host::Name("a.plant.example".to_owned())];
        let factory = Factory::with(&authority("CN=Root"), &authority("CN=I"), &client);
        // The same constraint in an intermediate and in the anchor.
        let intermediate = factory.intermediate.edited(&factory.root, constrain).unwrap();
        let root = factory.root.edited(&factory.root, constrain).unwrap();
        let chain = [der(&factory.thermostat), der(&intermediate)];
        let below = verifier(&[&factory.root]).verify(&chain, NOW);
        let above = verifier(&[&root]).verify(&factory.chain(), NOW);
        assert_eq!(below.is_ok(), above.is_ok());
        below.map(|_| ())
    };
    let violated = Err(ChainFault::Path(webpki::Error::NameConstraintViolation));
    assert_eq!(constrained(Some(dns("plant.example")), None), Ok(()));
    assert_eq!(constrained(Some(dns("other.example")), None), violated);
    assert_eq!(constrained(None, Some(dns("plant.example"))), violated);
    assert_eq!(constrained(None, Some(dns("other.example"))), Ok(()));
    // Constraints on directory names cannot be judged by webpki: nobody comes in by such an authority.
    let directory = || GeneralName::DirectoryName(name("CN=c").to_name().unwrap());
    assert_eq!(constrained(Some(directory()), None), violated);
    assert_eq!(constrained(None, Some(directory())), violated);
}

#[test]
fn a_short_rsa_key_and_a_signature_with_sha_1_are_refused() {
    let rsa_key = |modulus_bytes: u8| {
        // An RSAPublicKey with an odd modulus of that length and the exponent 65537.
        let length = usize::from(modulus_bytes);
        let mut key = vec![0x30, 0x81, modulus_bytes + 9, 0x02, 0x81, modulus_bytes + 1, 0];
        key.extend(vec![0xFF; length]);
        key.extend([0x02, 0x03, 1, 0, 1]);
        key
    };
    let short = |tbs: &mut TbsCertificate| {
        let info = &mut tbs.subject_public_key_info;
        info.algorithm = AlgorithmIdentifierOwned {
            oid: ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1"),
            parameters: Some(AnyRef::NULL.into()),
        };
        info.subject_public_key = BitString::from_bytes(&rsa_key(128)).unwrap();
    };
    assert_eq!(with_leaf(short).verify(), Err(ChainFault::KeySize));
    // ecdsa-with-SHA1, RFC 3279 §2.2.3.
    let sha1 = |tbs: &mut TbsCertificate| tbs.signature.oid = ObjectIdentifier::new_unwrap("1.2.840.10045.4.1");
    assert_eq!(refused(&with_leaf(sha1)), "a signature of the chain is of an unsupported algorithm");
    assert!(with_intermediate(sha1).verify().is_err());
}

#[test]
fn an_intermediate_outside_its_dates_says_so() {
    let middle = |begin, end| Template::authority(name("CN=I"), None, begin, end);
    let verify =
        |middle| Factory::with(&authority("CN=Root"), &middle, &leaf("CN=c")).verify().unwrap_err().to_string();
    assert!(verify(middle(BEGIN, UnixTime(NOW.0 - 1))).starts_with("certificate expired at"));
    assert!(verify(middle(NOW.plus_seconds(1), END)).starts_with("certificate not valid before"));
}
