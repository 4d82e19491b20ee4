//! Issuing and renewing, with times that are given.

use super::*;
use crate::pki::Issued;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::atomic::{AtomicU32, Ordering};

const HOUR: u64 = 3_600;
const DAY: u64 = 24 * HOUR;
const NOW: UnixTime = UnixTime(RELEASED.0 + 100 * DAY);

/// Folders of a gateway, which go away.
struct Gateway(PathBuf);

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Gateway {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("portcullis-automatic-{}-{number}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        Self(folder)
    }

    /// The certificate of `settings`, as a program that starts sees it.
    fn started(&self, settings: &AutomaticCertificate) -> Automatic {
        Automatic::new(settings.clone(), &self.0.join("issuers"), &self.0.join("secrets"))
    }

    /// Puts an authority into its folder that lasts for `seconds` from now on.
    fn authority(&self, seconds: u64) -> Issued {
        let name = authority::common_name("Root");
        let root =
            Issued::root(&Template::authority(name, None, UnixTime(NOW.0 - DAY), NOW.plus_seconds(seconds))).unwrap();
        self.put("issuers", &root.certificate_pem().unwrap(), &root.key_pem().unwrap());
        root
    }

    fn put(&self, kind: &str, certificate: &str, key: &str) {
        let name = if kind == "issuers" { "plant" } else { "served" };
        files::store_pair(&self.0.join(kind), name, certificate, key).unwrap();
    }

    fn kept(&self, file: &str) -> Vec<u8> {
        std::fs::read(self.0.join("secrets/served").join(file)).unwrap()
    }
}

fn settings() -> AutomaticCertificate {
    AutomaticCertificate {
        issuer: "plant".to_owned(),
        algorithm: KeyAlgorithm::Ec256,
        rotation: KeyRotation::Always,
        duration_seconds: 30 * DAY,
        renew_before_seconds: 10 * DAY,
        secret_name: "served".to_owned(),
        dns_names: vec!["gateway.example".to_owned(), "*.plant.example".to_owned()],
        ip_addresses: vec!["192.0.2.7".to_owned(), "2001:db8::7".to_owned()],
    }
}

fn issued(automatic: &mut Automatic, now: UnixTime) -> CheckedPair {
    automatic.next(now).unwrap().expect("a certificate that is new")
}

#[test]
fn a_certificate_is_issued_once_and_found_again_after_a_restart() {
    let gateway = Gateway::new();
    gateway.authority(3_650 * DAY);
    for algorithm in [KeyAlgorithm::Ec256, KeyAlgorithm::Ec384, KeyAlgorithm::Ed25519] {
        let settings = AutomaticCertificate { algorithm, ..settings() };
        let mut first = gateway.started(&settings);
        let pair = issued(&mut first, NOW);
        assert_eq!(kind_of(&pair), first.key_kind());
        assert_eq!((pair.not_before, pair.not_after), (UnixTime(NOW.0 - HOUR), NOW.plus_seconds(30 * DAY)));
        assert!(first.next(NOW.plus_seconds(DAY)).unwrap().is_none(), "nothing is new");
        let again = issued(&mut gateway.started(&settings), NOW.plus_seconds(DAY));
        assert_eq!(again.certificates, pair.certificates);
    }
    let mode = |path: &str| std::fs::metadata(gateway.0.join(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("secrets/served"), mode("secrets/served/tls.key")), (0o700, 0o600));
    assert!(!gateway.0.join("secrets/.served.new").exists());
}

#[test]
fn what_does_not_fit_the_settings_any_more_is_issued_anew() {
    let gateway = Gateway::new();
    gateway.authority(3_650 * DAY);
    let first = issued(&mut gateway.started(&settings()), NOW);
    let mut changed = vec![settings(); 4];
    changed[0].dns_names.pop();
    changed[1].ip_addresses.push("192.0.2.8".to_owned());
    changed[2].algorithm = KeyAlgorithm::Ed25519;
    changed[3].duration_seconds = 20 * DAY;
    for settings in changed {
        let other = issued(&mut gateway.started(&settings), NOW);
        assert_ne!(other.certificates, first.certificates);
    }
    // A torn or broken pair fits nothing either.
    let now = issued(&mut gateway.started(&settings()), NOW);
    gateway.put("secrets", core::str::from_utf8(&gateway.kept("tls.crt")).unwrap(), "half a key");
    assert_ne!(issued(&mut gateway.started(&settings()), NOW).certificates, now.certificates);
}

#[test]
fn renewal_comes_in_time_and_only_where_it_gains_time() {
    let gateway = Gateway::new();
    gateway.authority(45 * DAY);
    let mut automatic = gateway.started(&settings());
    let first = issued(&mut automatic, NOW);
    assert!(!automatic.is_due(NOW.plus_seconds(20 * DAY - 1)));
    assert!(automatic.is_due(NOW.plus_seconds(20 * DAY)));
    let second = issued(&mut automatic, NOW.plus_seconds(20 * DAY));
    assert_ne!(second.certificates, first.certificates);
    assert_eq!(second.not_after, NOW.plus_seconds(45 * DAY), "never beyond the authority's end");
    for day in 20..50 {
        assert!(!automatic.is_due(NOW.plus_seconds(day * DAY)), "nothing to gain");
    }
    // An authority that has ended issues nothing.
    let ended =
        gateway.started(&AutomaticCertificate { dns_names: Vec::new(), ..settings() }).next(NOW.plus_seconds(45 * DAY));
    assert!(matches!(ended, Err(IssueFault::Authority(_, AuthorityFault::Ended(_)))), "{ended:?}");
}

#[test]
fn a_clock_that_jumps_brings_a_certificate_that_is_valid_by_it() {
    let gateway = Gateway::new();
    gateway.authority(3_650 * DAY);
    let mut automatic = gateway.started(&settings());
    issued(&mut automatic, NOW.plus_seconds(300 * DAY));
    assert!(automatic.is_due(NOW), "it is not valid yet");
    assert_eq!(issued(&mut automatic, NOW).not_after, NOW.plus_seconds(30 * DAY));
    assert!(automatic.is_due(NOW.plus_seconds(300 * DAY)));
}

#[test]
fn nothing_is_issued_before_the_clock_is_set_but_what_is_kept_is_served() {
    let gateway = Gateway::new();
    let unset = UnixTime(1_000);
    let mut automatic = gateway.started(&settings());
    assert!(automatic.next(unset).unwrap().is_none());
    assert!(!gateway.0.exists(), "not even an authority is made");
    assert!(!automatic.is_due(unset) && automatic.is_due(NOW));
    let pair = issued(&mut automatic, NOW);
    let mut restarted = gateway.started(&settings());
    assert_eq!(issued(&mut restarted, unset).certificates, pair.certificates);
    assert!(!restarted.is_due(unset) && !restarted.is_due(NOW) && restarted.is_due(NOW.plus_seconds(20 * DAY)));
}

#[test]
fn the_rotation_policy_decides_about_the_key() {
    for (rotation, keeps) in [(KeyRotation::Never, true), (KeyRotation::Always, false)] {
        let gateway = Gateway::new();
        gateway.authority(3_650 * DAY);
        let settings = AutomaticCertificate { rotation, ..settings() };
        let mut automatic = gateway.started(&settings);
        issued(&mut automatic, NOW);
        let key = gateway.kept("tls.key");
        issued(&mut automatic, NOW.plus_seconds(25 * DAY));
        assert_eq!(gateway.kept("tls.key") == key, keeps);
        // A key of another kind cannot be kept.
        let other = AutomaticCertificate { algorithm: KeyAlgorithm::Ec384, ..settings };
        issued(&mut gateway.started(&other), NOW);
        assert_ne!(gateway.kept("tls.key"), key);
    }
}

#[test]
fn another_authority_brings_another_certificate() {
    let gateway = Gateway::new();
    gateway.authority(3_650 * DAY);
    let mut automatic = gateway.started(&settings());
    let first = issued(&mut automatic, NOW);
    // The same name, another key.
    let root = gateway.authority(3_650 * DAY);
    let second = issued(&mut automatic, NOW);
    assert_ne!(first.certificates, second.certificates);
    // An intermediate is shown, its root is not.
    let name = authority::common_name("Intermediate");
    let below = root.issue(&Template::authority(name, Some(0), NOW, NOW.plus_seconds(90 * DAY))).unwrap();
    let chain = below.certificate_pem().unwrap() + &root.certificate_pem().unwrap();
    gateway.put("issuers", &chain, &below.key_pem().unwrap());
    let third = issued(&mut automatic, NOW);
    assert_eq!(third.certificates[1..], [CertificateDer::from(below.certificate_der().unwrap())]);
    assert_eq!(third.not_before, NOW, "not before its authority");
}

#[test]
fn a_gateway_without_an_authority_makes_one_and_only_one() {
    let gateway = Gateway::new();
    let pair = issued(&mut gateway.started(&settings()), NOW);
    assert_eq!(pair.certificates.len(), 1);
    let root = std::fs::read(gateway.0.join("issuers/plant/tls.crt")).unwrap();
    let other = AutomaticCertificate { secret_name: "other".to_owned(), ..settings() };
    issued(&mut gateway.started(&other), NOW);
    assert_eq!(std::fs::read(gateway.0.join("issuers/plant/tls.crt")).unwrap(), root);
}

#[test]
fn an_authority_that_is_none_is_refused() {
    let gateway = Gateway::new();
    let fault = |gateway: &Gateway| gateway.started(&settings()).next(NOW).unwrap_err();
    std::fs::create_dir_all(gateway.0.join("issuers/plant")).unwrap();
    assert!(matches!(fault(&gateway), IssueFault::Authority(_, AuthorityFault::Missing)));
    gateway.put("issuers", "no certificate", "no key");
    assert!(matches!(fault(&gateway), IssueFault::AuthorityPair(..)));
    let root = gateway.authority(DAY);
    let leaf = root.issue(&Template::leaf(authority::common_name("leaf"), NOW, NOW.plus_seconds(DAY))).unwrap();
    gateway.put("issuers", &leaf.certificate_pem().unwrap(), &leaf.key_pem().unwrap());
    assert!(matches!(fault(&gateway), IssueFault::Authority(_, AuthorityFault::NotAuthority)));
    gateway.put("issuers", &root.certificate_pem().unwrap(), &leaf.key_pem().unwrap());
    assert!(matches!(fault(&gateway), IssueFault::AuthorityPair(_, SecretFault::Mismatch)));
    assert!(!gateway.0.join("secrets").exists());
}

#[test]
fn after_a_failure_a_minute_passes() {
    let gateway = Gateway::new();
    gateway.authority(3_650 * DAY);
    let mut automatic = gateway.started(&settings());
    issued(&mut automatic, NOW);
    gateway.put("issuers", "no certificate", "no key");
    let due = NOW.plus_seconds(20 * DAY);
    assert!(automatic.is_due(due) && automatic.next(due).is_err());
    assert_eq!((0..100).find(|_| automatic.is_due(due)), Some(60));
}

#[test]
fn other_files_of_the_folder_stay_and_what_a_crash_left_goes() {
    let gateway = Gateway::new();
    gateway.put("secrets", "chain", "key");
    std::fs::write(gateway.0.join("secrets/served/notes"), "mine").unwrap();
    std::fs::create_dir_all(gateway.0.join("secrets/.served.new")).unwrap();
    std::fs::write(gateway.0.join("secrets/.served.new/tls.key"), "half").unwrap();
    gateway.put("secrets", "other chain", "other key");
    assert_eq!((gateway.kept("notes"), gateway.kept("tls.crt")), (b"mine".to_vec(), b"other chain".to_vec()));
    assert_eq!(gateway.kept("tls.key"), b"other key");
    assert!(!gateway.0.join("secrets/.served.new").exists());
}

#[test]
fn a_machine_answers_to_its_names_where_no_others_are_given() {
    let names = |name| authority::names(&this_machine(name)).into_iter().collect::<Vec<_>>();
    assert_eq!(names(Some("edge-1")), ["127.0.0.1", "::1", "edge-1", "edge-1.local", "localhost"]);
    assert_eq!(names(Some("edge.example")), ["127.0.0.1", "::1", "edge.example", "localhost"]);
    assert_eq!(names(None), names(Some("localhost")));
}
