//! Chains made on the spot, good and bad, against the verifier and the method X509.

use super::*;
use crate::config::blob::{ClockPolicy, Configuration, Method, SubjectAttributes, TrustBundle};
use crate::config::{DEFAULT_FILES, LoadOptions, load_embedded};
use crate::crypto;
use crate::distinguished_name::DistinguishedName;
use crate::pki::{CLIENT_AUTHENTICATION, Issued, SERVER_AUTHENTICATION, Template};
use crate::time::{RELEASED, UnixTime};
use rustls_pki_types::CertificateDer;
use x509_cert::ext::pkix::{BasicConstraints, KeyUsage, KeyUsages};

mod bad_chains;
mod memo;
mod revocation;

const NOW: UnixTime = RELEASED.plus_seconds(1_000_000);
const BEGIN: UnixTime = UnixTime(NOW.0 - 3_600);
const END: UnixTime = NOW.plus_seconds(100 * 24 * 3_600);

fn name(text: &str) -> DistinguishedName {
    DistinguishedName::parse(text).unwrap()
}

fn authority(subject: &str) -> Template {
    Template::authority(name(subject), None, BEGIN, END)
}

fn leaf(subject: &str) -> Template {
    Template::leaf(name(subject), BEGIN, END)
}

fn der(issued: &Issued) -> CertificateDer<'static> {
    CertificateDer::from(issued.certificate_der().unwrap())
}

/// A root, an intermediate and a thermostat.
struct Factory {
    root: Issued,
    intermediate: Issued,
    thermostat: Issued,
}

impl Factory {
    fn new() -> Self {
        Self::with(
            &authority("CN=Fabrikam Root CA"),
            &authority("CN=Fabrikam Intermediate CA 1"),
            &leaf("CN=thermostat"),
        )
    }

    fn with(root: &Template, intermediate: &Template, thermostat: &Template) -> Self {
        let root = Issued::root(root).unwrap();
        let intermediate = root.issue(intermediate).unwrap();
        let thermostat = intermediate.issue(thermostat).unwrap();
        Self { root, intermediate, thermostat }
    }

    fn chain(&self) -> Vec<CertificateDer<'static>> {
        vec![der(&self.thermostat), der(&self.intermediate)]
    }

    fn verify(&self) -> Result<VerifiedPath, ChainFault> {
        verifier(&[&self.root]).verify(&self.chain(), NOW)
    }
}

fn verifier_with(anchors: &[&Issued], policy: ClockPolicy) -> ChainVerifier {
    let bundle: Vec<Vec<u8>> = anchors.iter().map(|anchor| anchor.certificate_der().unwrap()).collect();
    ChainVerifier::new(
        &bundle,
        crypto::provider().signature_verification_algorithms.all,
        Dates::new(policy, RELEASED),
        true,
    )
    .unwrap()
}

fn verifier(anchors: &[&Issued]) -> ChainVerifier {
    verifier_with(anchors, ClockPolicy::Enforce)
}

fn configuration(anchors: &[&Issued], entries: &[(&str, &[(&str, &str)])]) -> Configuration {
    let mut configuration = load_embedded(DEFAULT_FILES, &LoadOptions::default()).unwrap().configuration;
    configuration.trust_bundles.push(TrustBundle {
        name: "client-ca".to_owned(),
        certificates: anchors.iter().map(|anchor| anchor.certificate_der().unwrap()).collect(),
    });
    let attributes = entries
        .iter()
        .map(|(subject, attributes)| SubjectAttributes {
            label: (*subject).to_owned(),
            subject: name(subject),
            attributes: attributes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        })
        .collect();
    configuration.authentications.push(crate::config::blob::Authentication {
        name: "x509-auth".to_owned(),
        methods: vec![Method::X509 { trust_bundle: 0, attributes }],
    });
    configuration
}

fn authenticator(anchors: &[&Issued], entries: &[(&str, &[(&str, &str)])]) -> Authenticator {
    let algorithms = crypto::provider().signature_verification_algorithms.all;
    Authenticator::new(&configuration(anchors, entries), 0, algorithms, RELEASED).unwrap()
}

fn judge(authenticator: &Authenticator, chain: &[CertificateDer<'_>]) -> Verdict {
    authenticator.authenticate(&Evidence { peer_chain: chain, ..Evidence::default() }, NOW)
}

/// User name and attributes of an accepted client.
fn refusal(verdict: Verdict) -> Refusal {
    let Verdict::Refused(refusal) = verdict else { panic!("{verdict:?}") };
    refusal
}

fn identity(verdict: Verdict) -> (Option<String>, Vec<(String, String)>) {
    let Verdict::Accepted { identity, .. } = verdict else { panic!("{verdict:?}") };
    let attributes = identity.attributes.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    (identity.username.map(|name| name.as_str().to_owned()), attributes)
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn a_path_names_its_subjects_and_ends_with_its_shortest_certificate() {
    let factory = Factory::with(
        &authority("CN=Fabrikam Root CA"),
        &Template::authority(name("CN=Fabrikam Intermediate CA 1"), Some(0), BEGIN, NOW.plus_seconds(60)),
        &leaf("CN=thermostat"),
    );
    let path = factory.verify().unwrap();
    let subjects: Vec<String> = path.subjects.iter().map(ToString::to_string).collect();
    assert_eq!(subjects, ["CN = thermostat", "CN = Fabrikam Intermediate CA 1", "CN = Fabrikam Root CA"]);
    assert_eq!(path.expires, NOW.plus_seconds(60));
}

#[test]
fn what_leads_to_no_authority_is_refused() {
    let (factory, stranger) = (Factory::new(), Factory::new());
    let verifier = verifier(&[&factory.root]);
    let unknown = Err(ChainFault::Path(webpki::Error::UnknownIssuer));
    assert_eq!(verifier.verify(&factory.chain()[..1], NOW), unknown, "without its intermediate");
    // A root of the same name with another key: the signature does not fit.
    assert!(matches!(verifier.verify(&stranger.chain(), NOW), Err(ChainFault::Path(_))));
    let elsewhere = Issued::root(&authority("CN=Elsewhere")).unwrap();
    assert_eq!(verifier.verify(&[der(&elsewhere.issue(&leaf("CN=x")).unwrap())], NOW), unknown);
    assert_eq!(verifier.verify(&[], NOW), Err(ChainFault::Empty));
    assert!(matches!(verifier.verify(&[CertificateDer::from(vec![0x30, 0])], NOW), Err(ChainFault::Path(_))));
    let long = vec![der(&factory.thermostat); 9];
    assert_eq!(verifier.verify(&long, NOW), Err(ChainFault::TooLong));
    assert_eq!(
        verifier.verify(&[der(&factory.root)], NOW).unwrap_err().to_string(),
        "the client shows a certificate of an authority"
    );
}

#[test]
fn dates_are_judged_on_the_whole_path() {
    let (past, future) = (UnixTime(NOW.0 - 60), NOW.plus_seconds(60));
    let root = |begin, end| Template::authority(name("CN=Root"), None, begin, end);
    let middle = |begin, end| Template::authority(name("CN=Intermediate"), None, begin, end);
    let client = |begin, end| Template::leaf(name("CN=c"), begin, end);
    let verify = |root: Template, middle: Template, client: Template| Factory::with(&root, &middle, &client).verify();
    assert!(verify(root(BEGIN, END), middle(BEGIN, END), client(BEGIN, END)).is_ok());
    let fault = verify(root(BEGIN, END), middle(BEGIN, END), client(BEGIN, past)).unwrap_err();
    assert!(fault.to_string().starts_with("certificate expired at 2026-"), "{fault}");
    let fault = verify(root(BEGIN, END), middle(BEGIN, END), client(future, END)).unwrap_err();
    assert!(fault.to_string().starts_with("certificate not valid before 2026-"), "{fault}");
    assert!(verify(root(BEGIN, END), middle(BEGIN, past), client(BEGIN, END)).is_err());
    // webpki does not look at the dates of an anchor.
    let fault = verify(root(BEGIN, past), middle(BEGIN, END), client(BEGIN, END));
    assert_eq!(fault, Err(ChainFault::AnchorExpired));
    let fault = verify(root(future, END), middle(BEGIN, END), client(BEGIN, END));
    assert_eq!(fault, Err(ChainFault::AnchorNotYetValid));
}

#[test]
fn an_authority_needs_the_right_to_sign() {
    // webpki does not look at key usage.
    let mut middle = authority("CN=Intermediate");
    middle.key_usage = Some(KeyUsage(KeyUsages::DigitalSignature.into()));
    let fault = Factory::with(&authority("CN=Root"), &middle, &leaf("CN=c")).verify();
    assert_eq!(fault, Err(ChainFault::AuthorityKeyUsage));
    let fault = Factory::with(
        &{
            let mut root = authority("CN=Root");
            root.key_usage = Some(KeyUsage(KeyUsages::CRLSign.into()));
            root
        },
        &authority("CN=I"),
        &leaf("CN=c"),
    )
    .verify();
    assert_eq!(fault, Err(ChainFault::AuthorityKeyUsage));
    // Without the extension every use is allowed, RFC 5280 §4.2.1.3.
    middle.key_usage = None;
    assert!(Factory::with(&authority("CN=Root"), &middle, &leaf("CN=c")).verify().is_ok());
    middle.constraints = None;
    assert!(Factory::with(&authority("CN=Root"), &middle, &leaf("CN=c")).verify().is_err());
    middle.constraints = Some(BasicConstraints { ca: false, path_len_constraint: None });
    assert!(Factory::with(&authority("CN=Root"), &middle, &leaf("CN=c")).verify().is_err());
    let mut root = authority("CN=Root");
    root.constraints = None;
    let fault = Factory::with(&root, &authority("CN=I"), &leaf("CN=c")).verify();
    assert_eq!(fault, Err(ChainFault::AnchorNotAuthority));
    let short = Template::authority(name("CN=Root"), Some(0), BEGIN, END);
    let fault = Factory::with(&short, &authority("CN=I"), &leaf("CN=c")).verify();
    assert_eq!(fault, Err(ChainFault::AnchorPathLength));
}

#[test]
fn a_leaf_must_be_for_clients() {
    let verify = |purposes: &[_], usage: Option<KeyUsage>| {
        let mut client = leaf("CN=c");
        (client.purposes, client.key_usage) = (purposes.to_vec(), usage);
        Factory::with(&authority("CN=Root"), &authority("CN=I"), &client).verify()
    };
    let signing = || Some(KeyUsage(KeyUsages::DigitalSignature.into()));
    assert!(verify(&[CLIENT_AUTHENTICATION], signing()).is_ok());
    assert!(verify(&[CLIENT_AUTHENTICATION], None).is_ok());
    let fault = verify(&[SERVER_AUTHENTICATION], signing()).unwrap_err();
    assert!(fault.to_string().contains("clientAuth"), "{fault}");
    // webpki takes the absence of the extension for a yes.
    assert_eq!(verify(&[], signing()), Err(ChainFault::NotForClients));
    let agreeing = Some(KeyUsage(KeyUsages::KeyAgreement.into()));
    assert_eq!(verify(&[CLIENT_AUTHENTICATION], agreeing), Err(ChainFault::LeafKeyUsage));
}

#[test]
fn a_renewed_authority_replaces_the_expired_one_of_the_same_key() {
    // Two anchors with one name: the path through the one that still holds is found, whichever is listed first.
    let factory = Factory::new();
    let expired = Issued::root(&Template::authority(name("CN=Fabrikam Root CA"), None, BEGIN, BEGIN)).unwrap();
    for anchors in [[&factory.root, &expired], [&expired, &factory.root]] {
        assert!(verifier(&anchors).verify(&factory.chain(), NOW).is_ok());
    }
}

#[test]
fn a_clock_that_is_not_set_judges_nothing_unless_told_to_assume() {
    let early = UnixTime(1_000);
    let begin = UnixTime(RELEASED.0 - 10);
    let root = Issued::root(&Template::authority(name("CN=Root"), None, begin, END)).unwrap();
    let client = [der(&root.issue(&Template::leaf(name("CN=c"), begin, END)).unwrap())];
    assert_eq!(verifier(&[&root]).verify(&client, early), Err(ChainFault::ClockNotSet));
    assert!(verifier_with(&[&root], ClockPolicy::AssumeBuildDate).verify(&client, early).is_ok());
    assert!(verifier(&[&root]).warnings(early)[0].contains("refused until it is set"));
}

#[test]
fn operators_are_warned_of_authorities_that_end() {
    let ended = Issued::root(&Template::authority(name("CN=Old"), None, BEGIN, UnixTime(NOW.0 - 1))).unwrap();
    let ending = Issued::root(&Template::authority(name("CN=Soon"), None, BEGIN, NOW.plus_seconds(3_600))).unwrap();
    let fine = Issued::root(&authority("CN=Fine")).unwrap();
    let warnings = verifier(&[&ended, &ending, &fine]).warnings(NOW);
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].contains("CN = Old") && warnings[0].contains("expired"), "{warnings:?}");
    assert!(warnings[1].contains("CN = Soon"), "{warnings:?}");
}

#[test]
fn scenario_17_every_authority_of_the_bundle_is_trusted() {
    let (first, second) = (Factory::new(), Factory::with(&authority("CN=Other"), &authority("CN=I"), &leaf("CN=x")));
    let both = authenticator(&[&first.root, &second.root], &[]);
    assert_eq!(identity(judge(&both, &first.chain())).0.as_deref(), Some("thermostat"));
    assert_eq!(identity(judge(&both, &second.chain())).0.as_deref(), Some("x"));
}

#[test]
fn scenario_18_an_intermediate_may_be_the_anchor() {
    let factory = Factory::new();
    let authenticator = authenticator(
        &[&factory.intermediate],
        &[("CN = Fabrikam Intermediate CA 1", &[("manufacturer", "fabrikam")])],
    );
    for chain in [factory.chain(), factory.chain()[..1].to_vec()] {
        assert_eq!(identity(judge(&authenticator, &chain)).1, pairs(&[("manufacturer", "fabrikam")]));
    }
}

#[test]
fn scenario_19_a_certificate_outside_the_path_lends_no_attributes() {
    let factory = Factory::with(&authority("CN=Fabrikam Root CA"), &authority("CN=Plain"), &leaf("CN=c"));
    let stranger = Issued::root(&authority("CN=Fabrikam Intermediate CA 1")).unwrap();
    let entries: [(&str, &[(&str, &str)]); 1] = [("CN = Fabrikam Intermediate CA 1", &[("manufacturer", "fabrikam")])];
    let authenticator = authenticator(&[&factory.root], &entries);
    for position in 1..=2 {
        let mut chain = factory.chain();
        chain.insert(position, der(&stranger));
        assert_eq!(identity(judge(&authenticator, &chain)), (Some("c".to_owned()), Vec::new()));
    }
}

#[test]
fn scenario_20_the_leaf_decides_before_the_intermediate_and_nothing_is_merged() {
    let factory = Factory::with(&authority("CN=Root"), &authority("CN=Contoso Intermediate CA"), &leaf("CN=smart-fan"));
    let authenticator = authenticator(
        &[&factory.root],
        &[
            ("CN = Contoso Intermediate CA", &[("city", "seattle"), ("foo", "bar")]),
            ("CN = smart-fan", &[("building", "17")]),
        ],
    );
    assert_eq!(identity(judge(&authenticator, &factory.chain())).1, pairs(&[("building", "17")]));
}

#[test]
fn scenario_21_the_anchor_grants_attributes_though_it_is_not_sent() {
    let documented = "CN = Contoso Root CA Cert, OU = Engineering, C = US";
    // Encoded as most authorities do, and as the documented text reads.
    for encoded in ["C=US, OU=Engineering, CN=Contoso Root CA Cert", documented] {
        let factory = Factory::with(&authority(encoded), &authority("CN=I"), &leaf("CN=c"));
        let authenticator = authenticator(&[&factory.root], &[(documented, &[("organization", "contoso")])]);
        assert_eq!(identity(judge(&authenticator, &factory.chain())).1, pairs(&[("organization", "contoso")]));
    }
}

#[test]
fn scenario_22_subjects_match_whatever_their_spelling() {
    let factory = Factory::with(&authority("CN=Root"), &authority("CN=I"), &leaf("C=US, O=Contoso, CN=smart-fan"));
    for entry in
        ["C=US,O=Contoso,CN=smart-fan", "C = US, O = Contoso, CN = smart-fan", "CN = smart-fan, O = Contoso, C = US"]
    {
        let authenticator = authenticator(&[&factory.root], &[(entry, &[("building", "17")])]);
        assert_eq!(identity(judge(&authenticator, &factory.chain())).1, pairs(&[("building", "17")]), "{entry}");
    }
    let other_case = authenticator(&[&factory.root], &[("C=US,O=Contoso,CN=Smart-fan", &[("building", "17")])]);
    assert_eq!(identity(judge(&other_case, &factory.chain())).1, Vec::new());
}

#[test]
fn the_common_name_is_the_user_name_if_there_is_just_one() {
    let judged = |subject: &str| {
        let factory = Factory::with(&authority("CN=Root"), &authority("CN=I"), &leaf(subject));
        judge(&authenticator(&[&factory.root], &[]), &factory.chain())
    };
    assert_eq!(identity(judged("O=Contoso, CN=lock")).0.as_deref(), Some("lock"));
    assert_eq!(identity(judged("O=Contoso")).0, None);
    assert_eq!(refusal(judged("CN=a, CN=b")), Refusal::SeveralCommonNames);
    assert_eq!(refusal(judged(&format!("CN={}", "a".repeat(257)))), Refusal::CommonNameTooLong);
}

#[test]
fn without_a_certificate_nobody_comes_in() {
    let factory = Factory::new();
    let authenticator = authenticator(&[&factory.root], &[]);
    assert_eq!(refusal(judge(&authenticator, &[])), Refusal::NoCredentials);
    let evidence = Evidence { username: Some("thermostat"), password: Some(b"x"), ..Evidence::default() };
    assert_eq!(refusal(authenticator.authenticate(&evidence, NOW)), Refusal::NoCredentials);
    assert_eq!(authenticator.client_certificates(), ClientCertificates::Required);
}

#[test]
fn a_configuration_that_does_not_fit_makes_no_authenticator() {
    let factory = Factory::new();
    let algorithms = crypto::provider().signature_verification_algorithms.all;
    let make =
        |configuration: &Configuration, index| Authenticator::new(configuration, index, algorithms, RELEASED).err();
    let good = configuration(&[&factory.root], &[]);
    assert_eq!(make(&good, 1), Some(AuthenticatorFault::Index));
    let mut bad = good.clone();
    bad.trust_bundles[0].certificates.clear();
    assert!(matches!(make(&bad, 0), Some(AuthenticatorFault::Bundle { fault: BundleFault::Empty, .. })));
    let mut bad = good.clone();
    bad.trust_bundles[0].certificates.push(vec![0x30, 0]);
    assert!(matches!(
        make(&bad, 0),
        Some(AuthenticatorFault::Bundle { fault: BundleFault::Malformed { index: 1 }, .. })
    ));
    let mut bad = good.clone();
    bad.authentications[0].methods.clear();
    assert_eq!(make(&bad, 0), Some(AuthenticatorFault::NoMethods));
    let twice: [(&str, &[(&str, &str)]); 1] = [("CN=x", &[("a", "1"), ("a", "2")])];
    let bad = configuration(&[&factory.root], &twice);
    assert_eq!(make(&bad, 0), Some(AuthenticatorFault::Attributes { label: "CN=x".to_owned() }));
}
