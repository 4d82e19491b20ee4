//! Revocation lists and the deny list against chains made on the spot.

use super::*;
use crate::config::blob::StaleRevocationLists;
use base64ct::{Base64, Encoding as _};
use sha2::{Digest as _, Sha256};
use std::sync::Arc;
use x509_cert::crl::TbsCertList;
use x509_cert::der::Tag;
use x509_cert::der::asn1::{Any, ObjectIdentifier, OctetString};
use x509_cert::ext::Extension;

/// A list of `authority` of these certificates, which is good for an hour.
fn list(authority: &Issued, revoked: &[&Issued]) -> Vec<u8> {
    list_of(authority, revoked, NOW, NOW.plus_seconds(3_600))
}

fn list_of(authority: &Issued, revoked: &[&Issued], this_update: UnixTime, next_update: UnixTime) -> Vec<u8> {
    authority.revocation_list(revoked.iter().map(|issued| issued.serial()), this_update, next_update, |_| {}).unwrap()
}

fn revocation(lists: &[Vec<u8>], stale: StaleRevocationLists) -> Revocation {
    let mut read = RevocationLists::new(stale);
    for list in lists {
        read.add(list).unwrap();
    }
    Revocation { lists: Arc::new(read), ..Revocation::default() }
}

fn denying(text: &str) -> Revocation {
    Revocation { deny_list: Arc::new(deny_list(text)), ..Revocation::default() }
}

fn in_force(revocation: Revocation) -> Arc<RevocationInForce> {
    let place = RevocationInForce::default();
    place.replace_lists(revocation.lists);
    place.replace_deny_list(revocation.deny_list);
    Arc::new(place)
}

fn deny_list(text: &str) -> DenyList {
    DenyList::read("deny.yaml", text.as_bytes()).unwrap()
}

impl Factory {
    fn verify_by(&self, revocation: Revocation) -> Result<VerifiedPath, ChainFault> {
        verifier(&[&self.root]).with_revocation(in_force(revocation)).verify(&self.chain(), NOW)
    }

    fn verify_with(&self, lists: &[Vec<u8>]) -> Result<VerifiedPath, ChainFault> {
        self.verify_by(revocation(lists, StaleRevocationLists::Refuse))
    }

    fn verify_denying(&self, text: &str) -> Result<VerifiedPath, ChainFault> {
        self.verify_by(denying(text))
    }
}

fn trouble(result: Result<VerifiedPath, ChainFault>) -> ListTrouble {
    match result.unwrap_err() {
        ChainFault::RevocationLists(_, trouble) => trouble,
        other => panic!("{other}"),
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn a_revoked_leaf_and_a_revoked_intermediate_are_refused_by_name_and_serial() {
    let factory = Factory::new();
    let other = factory.intermediate.issue(&leaf("CN=other")).unwrap();
    assert!(factory.verify_with(&[list(&factory.intermediate, &[&other]), list(&factory.root, &[])]).is_ok());
    let fault = factory.verify_with(&[list(&factory.intermediate, &[&other, &factory.thermostat])]).unwrap_err();
    let serial = hexadecimal(factory.thermostat.serial());
    assert_eq!(fault.to_string(), format!("certificate revoked (keyCompromise): serial {serial}, CN = thermostat"));
    assert!(matches!(rustls::Error::from(fault), rustls::Error::InvalidCertificate(rustls::CertificateError::Revoked)));
    let fault = factory.verify_with(&[list(&factory.root, &[&factory.intermediate])]).unwrap_err();
    assert!(fault.to_string().ends_with("CN = Fabrikam Intermediate CA 1"), "{fault}");
    assert!(!fault.is_temporary());
}

#[test]
fn a_list_is_about_the_certificates_of_its_own_authority() {
    let factory = Factory::new();
    let other = Issued::root(&authority("CN=Other")).unwrap();
    assert!(factory.verify_with(&[list(&other, &[&factory.thermostat, &factory.intermediate])]).is_ok());
    // The root's list cannot revoke what the intermediate has issued.
    assert!(factory.verify_with(&[list(&factory.root, &[&factory.thermostat])]).is_ok());
}

#[test]
fn an_authority_whose_list_is_stale_lets_nobody_in_until_told_to_accept() {
    let factory = Factory::new();
    let ended = UnixTime(NOW.0 - 1);
    let stale = |revoked: &[&Issued]| list_of(&factory.intermediate, revoked, BEGIN, ended);
    let result = factory.verify_with(&[stale(&[])]);
    assert!(result.as_ref().unwrap_err().is_temporary());
    assert_eq!(trouble(result), ListTrouble::Stale(ended));
    let accepting =
        |revoked: &[&Issued]| factory.verify_by(revocation(&[stale(revoked)], StaleRevocationLists::Accept));
    assert!(accepting(&[]).is_ok());
    // Who is on it is out for good.
    for result in [accepting(&[&factory.thermostat]), factory.verify_with(&[stale(&[&factory.thermostat])])] {
        assert!(matches!(result, Err(ChainFault::Withdrawn(_))));
    }
    // The first second of nextUpdate is one too late.
    assert!(factory.verify_with(&[list_of(&factory.intermediate, &[], BEGIN, NOW)]).is_err());
    assert!(factory.verify_with(&[list_of(&factory.intermediate, &[], BEGIN, NOW.plus_seconds(1))]).is_ok());
}

#[test]
fn a_list_that_its_authority_has_not_signed_lets_nobody_in() {
    let (factory, stranger) = (Factory::new(), Factory::new());
    assert_eq!(trouble(factory.verify_with(&[list(&stranger.intermediate, &[])])), ListTrouble::Signature);
    let mut broken = list(&factory.intermediate, &[]);
    *broken.last_mut().unwrap() ^= 1;
    assert_eq!(trouble(factory.verify_with(&[broken])), ListTrouble::Signature);
    // Authorities of one name and several keys have their own lists, and one does not speak for the other.
    let both = |revoked: &[&Issued]| {
        [list(&stranger.intermediate, &[&factory.thermostat]), list(&factory.intermediate, revoked)]
    };
    assert!(factory.verify_with(&both(&[])).is_ok());
    assert!(factory.verify_with(&both(&[&factory.thermostat])).is_err());
}

#[test]
fn an_authority_needs_the_right_to_sign_lists() {
    let without = |subject: &str| {
        let mut template = authority(subject);
        template.key_usage = Some(KeyUsage(KeyUsages::KeyCertSign.into()));
        template
    };
    let factory = Factory::with(&authority("CN=Root"), &without("CN=I"), &leaf("CN=c"));
    assert_eq!(trouble(factory.verify_with(&[list(&factory.intermediate, &[])])), ListTrouble::KeyUsage);
    let factory = Factory::with(&without("CN=Root"), &authority("CN=I"), &leaf("CN=c"));
    assert_eq!(trouble(factory.verify_with(&[list(&factory.root, &[])])), ListTrouble::KeyUsage);
    // Where there is no list, there is nothing to sign.
    assert!(factory.verify_with(&[list(&factory.intermediate, &[])]).is_ok());
}

#[test]
fn a_newer_list_replaces_the_older_and_takes_back_what_was_on_hold() {
    let factory = Factory::new();
    let end = NOW.plus_seconds(60);
    let older = |revoked: &[&Issued]| list_of(&factory.intermediate, revoked, BEGIN, end);
    let newer = |revoked: &[&Issued]| list_of(&factory.intermediate, revoked, NOW, end);
    let device = &factory.thermostat;
    for (lists, good) in [
        ([older(&[device]), newer(&[])], true),
        ([newer(&[]), older(&[device])], true),
        ([older(&[]), newer(&[device])], false),
        // Of one second, both count.
        ([newer(&[]), newer(&[device])], false),
    ] {
        assert_eq!(factory.verify_with(&lists).is_ok(), good);
    }
    // An old list left lying about does no harm.
    let stale = list_of(&factory.intermediate, &[], BEGIN, UnixTime(NOW.0 - 1));
    assert!(factory.verify_with(&[stale, newer(&[])]).is_ok());
}

#[test]
fn the_string_type_of_a_name_does_not_hide_a_list() {
    let factory = Factory::new();
    let printable = |content: &mut TbsCertList| {
        for relative_name in &mut content.issuer.0 {
            let mut attribute = relative_name.0.get(0).unwrap().clone();
            attribute.value = Any::new(Tag::PrintableString, attribute.value.value().to_vec()).unwrap();
            relative_name.0 = [attribute].try_into().unwrap();
        }
    };
    let serials = [factory.thermostat.serial()];
    let list = factory.intermediate.revocation_list(serials, NOW, END, printable).unwrap();
    assert!(matches!(factory.verify_with(&[list]), Err(ChainFault::Withdrawn(_))));
}

#[test]
fn what_cannot_be_honoured_is_no_list() {
    let factory = Factory::new();
    let read = |edit: &dyn Fn(&mut TbsCertList)| {
        let list = factory.root.revocation_list([&[1_u8][..]], NOW, END, edit).unwrap();
        RevocationList::read(&list, 10).err()
    };
    let extended = |id: &str, critical: bool, value: &[u8]| {
        let extn_id = ObjectIdentifier::new_unwrap(id);
        let extension = Extension { extn_id, critical, extn_value: OctetString::new(value).unwrap() };
        read(&|content| content.crl_extensions.get_or_insert_default().push(extension.clone()))
    };
    assert_eq!(read(&|_| {}), None);
    assert_eq!(read(&|content| content.version = x509_cert::Version::V1), Some(ListFault::Version));
    assert_eq!(read(&|content| content.next_update = None), Some(ListFault::NextUpdateMissing));
    assert_eq!(extended("2.5.29.27", true, &[2, 1, 1]), Some(ListFault::Delta));
    // An issuingDistributionPoint: of an indirect list, of some reasons, without a name.
    assert_eq!(extended("2.5.29.28", true, &[0x30, 3, 0x84, 1, 0xFF]), Some(ListFault::Indirect));
    assert_eq!(extended("2.5.29.28", true, &[0x30, 4, 0x83, 2, 7, 0x80]), Some(ListFault::Scope));
    assert_eq!(extended("2.5.29.28", true, &[0x30, 3, 0x81, 1, 0xFF]), Some(ListFault::Scope));
    assert_eq!(extended("1.3.6.1.4.1.99999.1", true, &[5, 0]), Some(ListFault::CriticalExtension));
    assert_eq!(extended("1.3.6.1.4.1.99999.1", false, &[5, 0]), None);
    let list = list(&factory.root, &[&factory.intermediate]);
    for length in 0..list.len() {
        assert!(RevocationList::read(&list[..length], 10).is_err(), "cut after {length} bytes");
    }
    assert_eq!(RevocationList::read(&[list, vec![0]].concat(), 10).err(), Some(ListFault::Malformed));
}

#[test]
fn a_hundred_thousand_entries_are_within_the_bounds() {
    let factory = Factory::new();
    let numbers: Vec<[u8; 16]> = (0_u128..100_000).map(|number| (1 << 120 | number << 7).to_be_bytes()).collect();
    let list = |also: &'_ [u8]| {
        let serials = numbers.iter().map(|number| &number[..]).chain([also]);
        factory.intermediate.revocation_list(serials, NOW, END, |_| {}).unwrap()
    };
    assert!(factory.verify_with(&[list(&[1])]).is_ok());
    assert!(matches!(factory.verify_with(&[list(factory.thermostat.serial())]), Err(ChainFault::Withdrawn(_))));
}

#[test]
fn lists_beyond_the_bounds_are_refused() {
    let root = Issued::root(&authority("CN=Root")).unwrap();
    let three = root.revocation_list([&[1_u8][..], &[2], &[3]], NOW, END, |_| {}).unwrap();
    assert_eq!(RevocationList::read(&three, 2).err(), Some(ListFault::Entries));
    let mut revocation = RevocationLists::default();
    for _ in 0..LISTS_MAX {
        revocation.add(&three).unwrap();
    }
    assert_eq!(revocation.add(&three).err(), Some(RevocationFault::Lists));
    let mut revocation = RevocationLists::default();
    assert_eq!(revocation.add(&vec![0x30; LIST_BYTES_MAX + 1]).err(), Some(RevocationFault::Bytes));
    // RFC 5280 §4.1.2.2: at most 20 bytes.
    assert!(Serial::new(&[1; 20]).is_some() && Serial::new(&[1; 21]).is_none());
    assert_eq!(Serial::new(&[0, 0xFF]), Serial::new(&[0xFF]));
}

#[test]
fn operators_are_warned_of_lists_that_end() {
    let root = |subject: &str| Issued::root(&authority(subject)).unwrap();
    let day = 24 * 3_600;
    let lists = [
        list_of(&root("CN=Old"), &[], BEGIN, UnixTime(NOW.0 - 1)),
        list_of(&root("CN=Soon"), &[], UnixTime(NOW.0 - 30 * day), NOW.plus_seconds(3_600)),
        // Of a day and just made: there is nothing to say.
        list_of(&root("CN=Daily"), &[], NOW, NOW.plus_seconds(day)),
    ];
    let warnings = revocation(&lists, StaleRevocationLists::Refuse).lists.warnings(NOW);
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].contains("CN = Old is stale since") && warnings[0].ends_with("refused"), "{warnings:?}");
    assert!(warnings[1].contains("CN = Soon is stale from"), "{warnings:?}");
}

#[test]
fn lists_are_judged_by_the_clock_of_certificates() {
    let begin = UnixTime(RELEASED.0 - 10);
    let root = Issued::root(&Template::authority(name("CN=Root"), None, begin, END)).unwrap();
    let client = [der(&root.issue(&Template::leaf(name("CN=c"), begin, END)).unwrap())];
    let verify = |next_update| {
        let lists = [root.revocation_list([], begin, next_update, |_| {}).unwrap()];
        let place = in_force(revocation(&lists, StaleRevocationLists::Refuse));
        let verifier = verifier_with(&[&root], ClockPolicy::AssumeBuildDate).with_revocation(place);
        verifier.verify(&client, UnixTime(1_000))
    };
    assert!(verify(RELEASED.plus_seconds(1)).is_ok());
    assert!(verify(RELEASED).is_err());
}

#[test]
fn what_comes_into_force_holds_for_live_clients_too() {
    let factory = Factory::new();
    let authenticator = authenticator(&[&factory.root], &[]);
    let chain = factory.chain();
    let Verdict::Accepted { identity, method } = judge(&authenticator, &chain) else { panic!() };
    let again = || authenticator.judge_again(method, &identity, &chain, NOW).unwrap();
    assert!(again().is_ok());
    let lists = [list(&factory.intermediate, &[&factory.thermostat])];
    authenticator.revocation().replace_lists(revocation(&lists, StaleRevocationLists::Refuse).lists);
    assert!(matches!(again(), Err(Refusal::Chain(ChainFault::Withdrawn(_)))));
    assert!(matches!(refusal(judge(&authenticator, &chain)), Refusal::Chain(ChainFault::Withdrawn(_))));
    // A user name is looked up whatever the method.
    authenticator.revocation().replace_lists(Arc::default());
    let denied = deny_list("- {username: thermostat, reason: stolen}");
    authenticator.revocation().replace_deny_list(Arc::new(denied));
    let reason = again().unwrap_err();
    assert_eq!(reason.to_string(), "user name denied by line 1 of the deny list; stolen");
    assert_eq!(refusal(judge(&authenticator, &chain)), reason);
    authenticator.revocation().replace_deny_list(Arc::default());
    assert!(again().is_ok());
}

#[test]
fn scenario_53_a_denied_subject_is_out_and_with_an_authority_all_below_it() {
    let factory = Factory::with(
        &authority("C=US, O=Contoso, CN=Root"),
        &authority("CN=I"),
        &leaf("C=US, O=Contoso, CN=smart-fan"),
    );
    for (text, good) in [
        ("[]", true),
        ("- subject: CN = other", true),
        ("- subject: CN = smart-fan", true),
        ("- subject: C=US,O=Contoso,CN=smart-fan", false),
        ("- subject: CN = smart-fan, O = Contoso, C = US", false),
        ("- subject: CN = I", false),
        ("- subject: CN = Root, O = Contoso, C = US", false),
    ] {
        assert_eq!(factory.verify_denying(text).is_ok(), good, "{text}");
    }
    let text =
        "# Both stolen.\n- subject: CN = other\n- subject: CN = I\n  reason: \"lost\\tkey\"\n  comment: of people";
    let fault = factory.verify_denying(text).unwrap_err().to_string();
    let serial = hexadecimal(factory.intermediate.serial());
    assert_eq!(fault, format!("certificate denied by line 3 of the deny list: serial {serial}, CN = I; lost\\tkey"));
}

#[test]
fn a_serial_number_is_denied_of_one_issuer_or_of_all() {
    let factory = Factory::new();
    let plain = hexadecimal(factory.thermostat.serial());
    let colons =
        plain.as_bytes().chunks(2).map(|pair| core::str::from_utf8(pair).unwrap()).collect::<Vec<_>>().join(":");
    for serial in [plain.clone(), colons, plain.to_uppercase(), format!("00{plain}")] {
        assert!(factory.verify_denying(&format!("- serial: \"{serial}\"")).is_err(), "{serial}");
    }
    let with_issuer = |issuer: &str| factory.verify_denying(&format!("- serial: '{plain}'\n  issuer: {issuer}"));
    assert!(with_issuer("CN = Fabrikam Intermediate CA 1").is_err());
    assert!(with_issuer("CN = Fabrikam Root CA").is_ok());
    // An anchor is named as it names itself.
    let root = hexadecimal(factory.root.serial());
    assert!(factory.verify_denying(&format!("- serial: '{root}'\n  issuer: CN = Fabrikam Root CA")).is_err());
}

#[test]
fn a_denied_key_is_out_under_every_name_and_issuer() {
    let factory = Factory::new();
    let renamed = factory.intermediate.issue_for(&leaf("CN=renamed"), &factory.thermostat).unwrap();
    let digest = Sha256::digest(factory.thermostat.public_key_info().unwrap());
    for spki in [hexadecimal(&digest), Base64::encode_string(&digest)] {
        let denied = || denying(&format!("- spki: \"{spki}\""));
        assert!(factory.verify_by(denied()).is_err(), "{spki}");
        let verifier = verifier(&[&factory.root]).with_revocation(in_force(denied()));
        assert!(verifier.verify(&[der(&renamed), der(&factory.intermediate)], NOW).is_err());
        let other = factory.intermediate.issue(&leaf("CN=thermostat")).unwrap();
        assert!(verifier.verify(&[der(&other), der(&factory.intermediate)], NOW).is_ok());
    }
}

#[test]
fn mistakes_in_a_deny_list_have_a_place_and_leave_nothing() {
    let mistakes = |text: &str| DenyList::read("deny.yaml", text.as_bytes()).unwrap_err().to_string();
    for (text, expected) in [
        ("", "deny.yaml:1:1: error: the deny list is empty; write [] to deny nobody"),
        ("# nobody\n", "deny.yaml:1:1: error: the deny list is empty"),
        ("subject: CN = x", "deny.yaml:1:1: error: the deny list must be a list"),
        ("- subject: CN = x\n- subjet: CN = y", "deny.yaml:2:3: error: unknown field \"subjet\""),
        ("- subject: CN = x\n- {}", "deny.yaml:2:3: error: an entry has exactly one of subject"),
        ("- {subject: CN = x, serial: '1'}", "deny.yaml:1:3: error: an entry has exactly one of"),
        ("- subject: CN =", "deny.yaml:1:16: error: \"CN =\" is no distinguished name: the value is empty"),
        (
            "- serial: 1234",
            "deny.yaml:1:11: error: serial must be text, and this is the number 1234; write it in quotes",
        ),
        ("- serial: 3a:zz", "deny.yaml:1:11: error: serial must be up to 20 bytes in hexadecimal"),
        ("- {serial: '1', issuer: x}", "deny.yaml:1:25: error: \"x\" is no distinguished name"),
        ("- {username: x, issuer: CN=x}", "deny.yaml:1:25: error: an issuer belongs to a serial"),
        ("- spki: abcd", "deny.yaml:1:9: error: spki must be the SHA-256"),
        ("- username: ''", "deny.yaml:1:13: error: username must not be empty"),
        ("[]\n---\n[]", "error: the deny list is one document"),
        ("- subject: [", "error: "),
    ] {
        let found = mistakes(text);
        assert!(found.contains(expected), "{text:?} gives {found}");
    }
    let long = "- username: x\n".repeat(DENIALS_MAX + 1);
    assert!(mistakes(&long).contains("more than 20000 entries"));
    assert!(deny_list("[]").count() == 0);
    assert_eq!(deny_list("- username: x\n- serial: 'a'").count(), 2);
}

#[test]
fn a_stale_list_does_not_hide_what_is_withdrawn_above_it() {
    let factory = Factory::new();
    let lists = [list_of(&factory.intermediate, &[], BEGIN, BEGIN), list(&factory.root, &[&factory.intermediate])];
    let stale = revocation(&lists[..1], StaleRevocationLists::Refuse);
    assert!(factory.verify_by(stale.clone()).unwrap_err().is_temporary());
    assert!(matches!(factory.verify_with(&lists), Err(ChainFault::Withdrawn(_))));
    let denied = Revocation { lists: stale.lists, ..denying("- subject: CN = Fabrikam Root CA") };
    assert!(matches!(factory.verify_by(denied), Err(ChainFault::Withdrawn(_))));
}

#[test]
fn of_two_bad_paths_the_withdrawn_one_is_named() {
    let (first, second) = (Issued::root(&authority("CN=1")).unwrap(), Issued::root(&authority("CN=2")).unwrap());
    let by_first = first.issue(&authority("CN=I")).unwrap();
    let by_second = second.issue_for(&authority("CN=I"), &by_first).unwrap();
    let chain = [der(&by_first.issue(&leaf("CN=c")).unwrap()), der(&by_first), der(&by_second)];
    let stale = list_of(&second, &[], BEGIN, BEGIN);
    for anchors in [[&first, &second], [&second, &first]] {
        let verify = |lists: &[Vec<u8>]| {
            let place = in_force(revocation(lists, StaleRevocationLists::Refuse));
            verifier(&anchors).with_revocation(place).verify(&chain, NOW)
        };
        // The other path is as good as ever.
        assert!(verify(&[list(&first, &[&by_first])]).is_ok());
        let fault = verify(&[list(&first, &[&by_first]), stale.clone()]).unwrap_err();
        assert!(matches!(fault, ChainFault::Withdrawn(_)), "{fault}");
    }
}
