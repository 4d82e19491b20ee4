//! What was received, and both kinds, on files that stand for a card; power that goes between the steps of a configuration.

use super::super::super::boot_state::{BootState, PLACES, Slot};
use super::super::super::disk::{Card, Device};
use super::super::super::machine::Machine;
use super::super::super::network::Network;
use super::super::super::power::Ending;
use super::super::super::scratch::Scratch;
use super::super::super::supervisor::{Broker, Order};
use super::super::configuration::{self, Begin, Filling, Interrupted};
use super::super::outcome::{Outcome, SILENCE};
use super::super::payload::Payload;
use super::super::refusal::Refusal;
use super::super::site::{Gauge, Site, Taken};
use super::super::start::Start;
use super::super::trial::Excuse;
use super::super::{BLOB, Progress, Update, begin};
use super::{SLOT_BYTES, bundle, key, manifest, payload};
use crate::bundle::archive::Archive;
use crate::bundle::{Kind, Manifest, UpdateState, signed_header};
use crate::config::{self, LoadOptions};
use ed25519_dalek::SigningKey;
use smol::{LocalExecutor, channel};
use std::cell::Cell;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::{Path, PathBuf};

/// A power that goes after so many steps.
struct Steps(Cell<u32>);

impl Progress for Steps {
    fn advanced(&self, _: u64) -> io::Result<()> {
        let left = self.0.get();
        self.0.set(left.saturating_sub(1));
        if left > 0 { Ok(()) } else { Err(ErrorKind::BrokenPipe.into()) }
    }
}

/// A gateway of the board rpi3 that runs on slot A, version 7, with a configuration in slot a.
fn site(name: &str) -> (Scratch, Site) {
    let folder = Scratch::new(&format!("update-{name}"));
    fs::create_dir_all(folder.join("state/update")).unwrap();
    fs::create_dir_all(folder.join("configuration/a/secrets/server")).unwrap();
    fs::write(folder.join("configuration/a").join(BLOB), blob("rpi3", "")).unwrap();
    fs::write(folder.join("configuration/a/secrets/server/tls.key"), "key").unwrap();
    symlink("a", folder.join("configuration/current")).unwrap();
    let device = |name: &str, bytes: u64| {
        let path = folder.join(name);
        fs::File::create(&path).unwrap().set_len(bytes).unwrap();
        path
    };
    let card = Card::of_files(device("disk", 2 << 20), device("a", SLOT_BYTES), device("b", SLOT_BYTES));
    let site = Site { card: Some(card), key: Some(key().verifying_key().to_bytes()), ..Site::for_tests(&folder) };
    (folder, site)
}

/// A configuration that has this interval of `$SYS` topics and these other fields.
fn blob(board: &str, fields: &str) -> Vec<u8> {
    let gateway = format!(
        "apiVersion: portcullis.edge/v1\nkind: Gateway\nmetadata: {{name: default}}\nspec: {{board: {board}, {fields}}}\n"
    );
    let files = [("g.yaml", gateway.as_str()), config::DEFAULT_FILES[1]];
    config::encode(&config::load_embedded(&files, &LoadOptions::default()).unwrap().configuration).unwrap()
}

impl Site {
    fn offer(&self, bundle: &[u8]) -> Result<Taken, Refusal> {
        fs::write(self.state.join("update/incoming"), bundle).unwrap();
        self.take(vec![Excuse::by_name("clock")], &Gauge::default())
    }

    fn boots(&self) -> BootState {
        let disk = fs::read(&self.card.as_ref().unwrap().disk).unwrap();
        let first = usize::try_from(PLACES[0]).unwrap();
        BootState::decode(disk[first..first + 512].try_into().unwrap()).unwrap_or_default()
    }
}

#[test]
fn a_signed_system_goes_from_the_file_to_the_idle_slot_and_is_tried() {
    let (folder, site) = site("system");
    let new = payload(500_001);
    let taken = site.offer(&bundle(&manifest(Kind::System, 8, &new), &new)).unwrap();
    assert!(matches!(taken, Taken::System));
    assert_eq!(fs::read(folder.join("b")).unwrap()[..new.len()], new);
    assert_eq!(site.boots(), BootState { once: Some(Slot::B), ..BootState::default() });
    let outcome = Outcome::read(&site.outcome).unwrap();
    assert_eq!((outcome.state, outcome.slot, outcome.version), (UpdateState::Trial, Slot::B, 8));
    assert_eq!((outcome.text.as_str(), outcome.before.as_slice()), (SILENCE, [Excuse::by_name("clock")].as_slice()));

    // A kernel that dies: the boot loader has noted the trial, and the old system starts again.
    let disk = Device::open(&site.card.as_ref().unwrap().disk).unwrap();
    BootState { tried: Some(Slot::B), ..BootState::default() }.write(&disk).unwrap();
    let start = begin(&site);
    assert_eq!(start.update.state, UpdateState::Back);
    assert_eq!(start.notice.unwrap(), format!("the update in slot b did not get well: {SILENCE}"));
    assert!(!site.state.join("update/incoming").exists());
    // The next one is taken all the same.
    assert!(site.offer(&bundle(&manifest(Kind::System, 8, &new), &new)).is_ok());
    assert_eq!(site.boots(), BootState { once: Some(Slot::B), ..BootState::default() });
}

#[test]
fn after_a_system_that_is_to_be_tried_no_other_update_is_taken() {
    let (folder, site) = site("order");
    let machine = Machine::new(&folder.join("machine"), site.image.clone(), site.running, false);
    let (network, broker) = (Network::default(), Broker::new(PathBuf::new(), false));
    let (orders, bell) = (channel::bounded(2), channel::bounded(1));
    let new = payload(5_000);
    let incoming = site.state.join("update/incoming");
    fs::write(&incoming, bundle(&manifest(Kind::System, 8, &new), &new)).unwrap();
    let update = Update {
        site: site.clone(),
        machine: &machine,
        network: &network,
        broker: &broker,
        orders: orders.0,
        bell: bell.1.clone(),
    };
    let executor = LocalExecutor::new();
    executor.spawn(update.keep(Start::default())).detach();
    bell.0.try_send(()).unwrap();
    assert_eq!(smol::block_on(executor.run(orders.1.recv())).unwrap(), Order::End(Ending::Reboot));
    assert_eq!(site.boots().once, Some(Slot::B));
    assert!(!incoming.exists() && bell.1.is_empty());
    // And before the machine has ended, the next one is there.
    bell.0.try_send(()).unwrap();
    while executor.try_tick() {}
    assert!(!bell.1.is_empty(), "nobody hears it");
    let before = Outcome::read(&site.outcome).unwrap().before;
    assert!(before.contains(&Excuse::by_name("network")), "which is missing here");
}

#[test]
fn a_trial_that_the_boot_loader_did_not_begin_is_taken_back() {
    let (_folder, site) = site("not-begun");
    let new = payload(5_000);
    site.offer(&bundle(&manifest(Kind::System, 8, &new), &new)).unwrap();
    assert_eq!(site.boots().once, Some(Slot::B));
    let start = begin(&site);
    assert_eq!((start.update.state, start.update.version), (UpdateState::Back, 8));
    assert_eq!(site.boots(), BootState::default());
    assert_eq!(begin(&site).update, start.update, "it is remembered");
}

#[test]
fn what_is_not_for_here_is_refused_with_its_reason_and_nothing_has_changed() {
    let (folder, site) = site("refused");
    let new = payload(5_000);
    let good = manifest(Kind::System, 8, &new);
    let with = |change: &dyn Fn(&mut Manifest)| {
        let mut manifest = good.clone();
        change(&mut manifest);
        bundle(&manifest, &new)
    };
    let whole = bundle(&good, &new);
    let mut unsigned = whole.clone();
    let digit = unsigned.windows(10).position(|part| part == b"signature=").unwrap() + 10;
    unsigned[digit] = if unsigned[digit] == b'0' { b'1' } else { b'0' };
    let strange = [signed_header(&good, &SigningKey::from_bytes(&[8; 32])).unwrap().as_bytes(), &new].concat();
    for (bundle, expected) in [
        (with(&|manifest| manifest.version = 7), "version 7 is not newer than 7"),
        (with(&|manifest| manifest.board = "rpi4".to_owned()), "it is for the board rpi4, and this is rpi3"),
        (unsigned, "its signature is not of the key"),
        (strange, "its signature is not of the key"),
        (whole[..whole.len() - 1].to_vec(), "and its header says"),
        ([&whole[..], b"x"].concat(), "and its header says"),
        (b"PORTCUL\0".to_vec(), "it is no update"),
        (Vec::new(), "it is no update"),
    ] {
        let refusal = site.offer(&bundle).unwrap_err().to_string();
        assert!(refusal.contains(expected), "{refusal}");
    }
    let disk = Device::open(&site.card.as_ref().unwrap().disk).unwrap();
    BootState { floor: 9, ..BootState::default() }.write(&disk).unwrap();
    let refusal = site.offer(&whole).unwrap_err().to_string();
    assert_eq!(refusal, "version 8 is not newer than 9", "what was confirmed on the other slot counts too");
    for (other, expected) in [
        (Site { key: None, ..site.clone() }, "this image takes no updates"),
        (Site { card: None, ..site.clone() }, "no second slot"),
        (Site { is_kept: false, ..site.clone() }, "the data partition cannot be written"),
    ] {
        let refusal = other.offer(&whole).unwrap_err().to_string();
        assert!(refusal.contains(expected), "{refusal}");
    }
    let untouched = vec![0; usize::try_from(SLOT_BYTES).unwrap()];
    assert_eq!(fs::read(folder.join("b")).unwrap(), untouched);
    assert_eq!(fs::read(folder.join("a")).unwrap(), untouched);
    assert!(!site.outcome.exists());
}

#[test]
fn a_signed_header_with_anything_behind_it_does_not_wipe_what_is_in_the_idle_slot() {
    let (folder, site) = site("exchanged");
    let former = payload(usize::try_from(SLOT_BYTES).unwrap());
    fs::write(folder.join("b"), &former).unwrap();
    let disk = Device::open(&site.card.as_ref().unwrap().disk).unwrap();
    let boots = BootState { tried: Some(Slot::B), floor: 6, ..BootState::default() };
    boots.write(&disk).unwrap();
    fs::create_dir(site.configurations.join("b")).unwrap();
    fs::write(site.configurations.join("b").join(BLOB), "former").unwrap();
    for (kind, new) in [(Kind::System, payload(100_000)), (Kind::Configuration, blob("rpi3", "sysIntervalSeconds: 7"))]
    {
        let mut bundle = bundle(&manifest(kind, 8, &new), &new);
        *bundle.last_mut().unwrap() ^= 1;
        assert!(matches!(site.offer(&bundle), Err(Refusal::Digest)));
        assert_eq!(fs::read(folder.join("b")).unwrap(), former);
        assert_eq!(site.boots(), boots);
        assert_eq!(fs::read_to_string(site.configurations.join("b").join(BLOB)).unwrap(), "former");
    }
}

#[test]
fn links_that_the_broker_s_user_may_put_there_are_not_followed() {
    let (folder, site) = site("links");
    let new = payload(5_000);
    let outside = folder.join("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("incoming"), bundle(&manifest(Kind::System, 8, &new), &new)).unwrap();
    let taken = || site.take(Vec::new(), &Gauge::default());
    symlink(outside.join("incoming"), site.state.join("update/incoming")).unwrap();
    assert!(matches!(taken(), Err(Refusal::NoFile(_))));
    fs::remove_dir_all(site.state.join("update")).unwrap();
    symlink(&outside, site.state.join("update")).unwrap();
    assert!(matches!(taken(), Err(Refusal::NoFile(_))));
    let _ = begin(&site);
    assert!(outside.join("incoming").exists(), "and nothing is removed there");
}

/// What a start would serve: the blob that `current` leads to, whole.
fn served(root: &Path) -> Vec<u8> {
    let blob = fs::read(root.join("current").join(BLOB)).unwrap();
    config::decode(&blob).unwrap();
    assert_eq!(fs::read_to_string(root.join("current/secrets/server/tls.key")).unwrap(), "key");
    blob
}

#[test]
fn a_signed_configuration_takes_its_secrets_over_is_tried_and_kept() {
    let (_folder, site) = site("configuration");
    let root = site.configurations.clone();
    let (old, new) = (blob("rpi3", ""), blob("rpi3", "sysIntervalSeconds: 7"));
    let Taken::Configuration(outcome) = site.offer(&bundle(&manifest(Kind::Configuration, 1, &new), &new)).unwrap()
    else {
        panic!()
    };
    assert_eq!((outcome.slot, outcome.version, outcome.text.as_str()), (Slot::B, 1, ""));
    assert_eq!(served(&root), old, "what is on trial is not in force");
    // Power goes now: the trial is over, and the old one serves.
    let start = begin(&site);
    assert_eq!((start.update.state, start.update.version), (UpdateState::Back, 1));
    assert!(start.notice.unwrap().ends_with("was not kept: the power went while it was on trial"));
    assert_eq!(begin(&site).update.state, UpdateState::Back, "it is remembered");
    assert_eq!(site.in_force(), Some((Slot::A, 0)));

    site.offer(&bundle(&manifest(Kind::Configuration, 1, &new), &new)).unwrap();
    configuration::keep(&root, Slot::B, &Gauge::default()).unwrap();
    assert_eq!((served(&root), site.in_force()), (new.clone(), Some((Slot::B, 1))));
    let refusal = site.offer(&bundle(&manifest(Kind::Configuration, 1, &new), &new)).unwrap_err().to_string();
    assert_eq!(refusal, "version 1 is not newer than 1");
}

#[test]
fn folders_that_a_configuration_brings_take_the_place_of_those_in_force() {
    let (_folder, site) = site("folders");
    let root = site.configurations.clone();
    let write = |path: &str| {
        fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
        fs::write(root.join(path), "of the gateway").unwrap();
    };
    ["a/revocation/deny.yaml", "a/revocation/old.crl", "a/issuers/own/ca.key"].iter().for_each(|path| write(path));
    let new = blob("rpi3", "sysIntervalSeconds: 7");
    let mut archive = Archive::default();
    archive.folder("revocation");
    archive.file("revocation/deny.yaml", b"[]");
    archive.file(BLOB, &new);
    let payload = archive.finish();
    site.offer(&bundle(&manifest(Kind::Configuration, 1, &payload), &payload)).unwrap();
    configuration::keep(&root, Slot::B, &Gauge::default()).unwrap();
    assert_eq!(served(&root), new);
    let text = |path: &str| fs::read_to_string(root.join("current").join(path)).ok();
    assert_eq!(text("revocation/deny.yaml").as_deref(), Some("[]"));
    assert_eq!(text("revocation/old.crl"), None);
    assert_eq!(text("issuers/own/ca.key").as_deref(), Some("of the gateway"));
    let found = fs::metadata(root.join("b/revocation/deny.yaml")).unwrap();
    assert_eq!((found.uid(), found.mode() & 0o777), (site.owner, 0o600));
}

#[test]
fn folders_that_come_and_those_that_stay_are_never_more_than_the_next_update_can_copy() {
    let (_folder, site) = site("large-folders");
    let root = site.configurations.clone();
    let mut archive = Archive::default();
    archive.folder("revocation");
    archive.file("revocation/large.crl", &[7; 1 << 20]);
    archive.file(BLOB, &blob("rpi3", "sysIntervalSeconds: 7"));
    let payload = archive.finish();
    let offer = || site.offer(&bundle(&manifest(Kind::Configuration, 1, &payload), &payload));
    let large = fs::File::create(root.join("a/secrets/large")).unwrap();
    // With the key of the site, a byte too many.
    for (bytes, is_taken) in [((7 << 20) - 2, false), ((7 << 20) - 3, true)] {
        large.set_len(bytes).unwrap();
        let taken = offer();
        assert_eq!(taken.is_ok(), is_taken, "{taken:?}");
        assert_eq!(root.join("b").exists(), is_taken);
    }
    configuration::keep(&root, Slot::B, &Gauge::default()).unwrap();
    let next = blob("rpi3", "");
    site.offer(&bundle(&manifest(Kind::Configuration, 2, &next), &next)).unwrap();
}

#[test]
fn a_configuration_with_other_network_settings_is_tried_once_at_the_next_start() {
    let (_folder, site) = site("network");
    let root = site.configurations.clone();
    let (old, new) = (blob("rpi3", ""), blob("rpi3", "network: {address: 10.0.0.2/24}"));
    let offer = || site.offer(&bundle(&manifest(Kind::Configuration, 2, &new), &new)).unwrap();
    assert!(matches!(offer(), Taken::ConfigurationAtStart));
    assert_eq!(served(&root), old, "what is to be tried is not in force");
    let start = begin(&site);
    assert_eq!((start.update.state, start.notice.as_deref()), (UpdateState::Trial, None));
    assert_eq!(start.on_trial(&site), Some(root.join("b")));
    assert_eq!(Outcome::read(&site.outcome).unwrap().state, UpdateState::Trial);
    // The power goes, or the network's driver takes the machine along.
    let start = begin(&site);
    assert_eq!((start.update.state, start.on_trial(&site)), (UpdateState::Back, None));
    assert_eq!(served(&root), old);

    assert!(matches!(offer(), Taken::ConfigurationAtStart));
    assert!(begin(&site).configuration.is_some());
    configuration::keep(&root, Slot::B, &Gauge::default()).unwrap();
    let start = begin(&site);
    assert_eq!((start.update.state, start.configuration), (UpdateState::Kept, None));
    assert_eq!(site.in_force(), Some((Slot::B, 2)));
    // One with the same settings needs no start.
    let next = blob("rpi3", "sysIntervalSeconds: 7, network: {address: 10.0.0.2/24}");
    let taken = site.offer(&bundle(&manifest(Kind::Configuration, 3, &next), &next)).unwrap();
    assert!(matches!(taken, Taken::Configuration(_)));

    // Nothing remembers what it is of: it is not tried.
    configuration::begin_trial(&root, Slot::A, Begin::AtStart).unwrap();
    fs::remove_file(&site.outcome).unwrap();
    assert_eq!(begin(&site).configuration, None);
    assert!(!root.join("trying").exists());
}

#[test]
fn a_configuration_that_cannot_be_used_leaves_no_trace() {
    let (_folder, site) = site("unusable");
    let root = site.configurations.clone();
    let good = blob("rpi3", "sysIntervalSeconds: 7");
    let (mut damaged, other) = (good.clone(), blob("rpi4", ""));
    let last = damaged.len() - 1;
    damaged[last] ^= 1;
    for (payload, expected) in
        [(&damaged, "damaged: the SHA-256 digest"), (&other, "it is for the board rpi4, and this is rpi3")]
    {
        // Signed all the same: the signer did not look.
        let manifest = manifest(Kind::Configuration, 3, payload);
        let refusal = site.offer(&bundle(&manifest, payload)).unwrap_err().to_string();
        assert!(refusal.contains(expected), "{refusal}");
        assert!(!root.join("b").exists() && !root.join("trying").exists());
    }
    let exchanged = bundle(&manifest(Kind::Configuration, 3, &good), &damaged);
    assert!(matches!(site.offer(&exchanged), Err(Refusal::Digest)));
    assert_eq!((served(&root), site.in_force()), (blob("rpi3", ""), Some((Slot::A, 0))));
}

#[test]
fn a_full_disk_is_said_and_its_room_given_back() {
    struct Full;
    impl Progress for Full {
        fn advanced(&self, bytes: u64) -> io::Result<()> {
            if bytes == 0 { Ok(()) } else { Err(ErrorKind::StorageFull.into()) }
        }
    }
    let (_folder, site) = site("full");
    let new = blob("rpi3", "sysIntervalSeconds: 7");
    let manifest = manifest(Kind::Configuration, 1, &new);
    let filling = Filling { root: &site.configurations, from: Slot::A, owner: site.owner, progress: &Full };
    let refusal = filling.run(Payload::new(&mut &*new, &manifest)).unwrap_err();
    assert!(refusal.to_string().ends_with("no room left on the data partition"), "{refusal}");
    assert!(!site.configurations.join("b").exists());
}

#[test]
fn power_that_goes_at_any_step_of_a_configuration_leaves_one_that_is_whole() {
    let (old, new) = (blob("rpi3", ""), blob("rpi3", "sysIntervalSeconds: 7"));
    let manifest = manifest(Kind::Configuration, 1, &new);
    let (mut kept, mut back) = (0, 0);
    for steps in 0.. {
        let (_folder, site) = site(&format!("steps-{steps}"));
        let root = &site.configurations;
        let power = Steps(Cell::new(steps));
        let filling = Filling { root, from: Slot::A, owner: site.owner, progress: &power };
        let done = filling
            .run(Payload::new(&mut &*new, &manifest))
            .map_err(|refusal| io::Error::other(refusal.to_string()))
            .and_then(|_| configuration::begin_trial(root, Slot::B, Begin::Now))
            .and_then(|()| power.advanced(0))
            .and_then(|()| configuration::keep(root, Slot::B, &power));
        let found = configuration::recover(root).unwrap();
        match configuration::in_force(root).unwrap() {
            Slot::A => {
                back += 1;
                assert_eq!(served(root), old);
                assert!(matches!(found, Interrupted::No | Interrupted::Trial(Slot::B)));
            }
            Slot::B => {
                kept += 1;
                assert_eq!((served(root), configuration::version(root, Slot::B)), (new.clone(), 1));
            }
        }
        assert_eq!(configuration::recover(root).unwrap(), Interrupted::No);
        if done.is_ok() {
            assert_eq!(found, Interrupted::No);
            break;
        }
        // And it can be done again from there.
        if configuration::in_force(root) == Some(Slot::A) {
            site.offer(&bundle(&manifest, &new)).unwrap();
        }
    }
    assert!(back >= 4 && kept >= 2, "{back} {kept}");
}
