//! What is ordered after a trial, and what no trial is needed for, without a broker.

use super::super::super::boot_state::Slot;
use super::*;
use crate::bundle::Kind;
use smol::LocalExecutor;

/// A task, and what is told and heard of it.
fn with<T>(site: Site, name: &str, run: impl FnOnce(&Update, &Receiver<Order>, &Sender<()>) -> T) -> T {
    let file = std::env::temp_dir().join(format!("portcullis-task-{name}-{}", std::process::id()));
    let machine = Machine::new(&file, site.image.clone(), site.running, site.is_trial);
    let (network, broker) = (Network::default(), Broker::new(PathBuf::new(), false));
    let (orders, bell) = (channel::bounded(2), channel::bounded(1));
    let update = Update { site, machine: &machine, network: &network, broker: &broker, orders: orders.0, bell: bell.1 };
    let outcome = run(&update, &orders.1, &bell.0);
    let _ = std::fs::remove_file(file);
    outcome
}

fn site() -> Site {
    Site { is_trial: true, key: Some([0; 32]), ..Site::for_tests(Path::new("/nowhere")) }
}

fn outcome() -> Outcome {
    Outcome {
        state: UpdateState::Trial,
        kind: Kind::System,
        slot: Slot::A,
        version: 7,
        board: "rpi3".to_owned(),
        before: Vec::new(),
        text: String::new(),
    }
}

#[test]
fn a_trial_that_has_ordered_the_restart_takes_no_update() {
    with(Site { is_kept: false, ..site() }, "restart", |update, orders, bell| {
        let executor = LocalExecutor::new();
        executor.spawn(update.keep(Start { trial: Some(None), ..Start::default() })).detach();
        assert_eq!(smol::block_on(executor.run(orders.recv())).unwrap(), Order::End(Ending::Reboot));
        bell.try_send(()).unwrap();
        while executor.try_tick() {}
        assert!(!update.bell.is_empty(), "nobody hears it");
    });
}

#[test]
fn a_configuration_that_was_tried_with_its_network_and_failed_has_the_machine_start_anew() {
    let folder = std::env::temp_dir().join(format!("portcullis-task-at-start-{}", std::process::id()));
    std::fs::create_dir_all(folder.join("configuration")).unwrap();
    let site = Site { is_trial: false, ..Site::for_tests(&folder) };
    configuration::begin_trial(&site.configurations, Slot::B, Begin::Now).unwrap();
    with(site.clone(), "at-start", |update, orders, bell| {
        update.broker.ends.set(1);
        let outcome = Outcome { kind: Kind::Configuration, slot: Slot::B, ..outcome() };
        let executor = LocalExecutor::new();
        executor.spawn(update.keep(Start { configuration: Some(outcome), ..Start::default() })).detach();
        assert_eq!(smol::block_on(executor.run(orders.recv())).unwrap(), Order::End(Ending::Reboot));
        bell.try_send(()).unwrap();
        while executor.try_tick() {}
        assert!(!update.bell.is_empty(), "nobody hears it");
    });
    assert_eq!(Outcome::read(&site.outcome).map(|outcome| outcome.state), Some(UpdateState::Back));
    assert!(!site.configurations.join("trying").exists());
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_network_is_asked_for_again_where_it_was_there_before() {
    with(site(), "network", |update, _, _| {
        let missing = [Excuse::by_name(NETWORK)];
        for (has_link, is_up, is_cut_off) in
            [(false, false, true), (true, false, true), (false, true, true), (true, true, false)]
        {
            update.network.has_link.set(has_link);
            update.network.is_up.set(is_up);
            assert_eq!(update.is_cut_off(&[]), is_cut_off, "{has_link} {is_up}");
            assert!(!update.is_cut_off(&missing));
        }
    });
}

#[test]
fn a_system_that_could_not_be_updated_again_or_is_another_than_was_signed_is_not_kept() {
    let fault = |site: Site, outcome: Option<&Outcome>| with(site, "hopeless", |update, _, _| update.hopeless(outcome));
    assert_eq!(fault(site(), None), None);
    assert_eq!(fault(site(), Some(&outcome())), None);
    assert_eq!(fault(site(), Some(&Outcome { board: String::new(), ..outcome() })), None, "of an earlier system");
    let without = Site { key: None, ..site() };
    assert!(fault(without, Some(&outcome())).unwrap().contains("no key for updates"));
    let other = Outcome { version: 8, ..outcome() };
    assert!(fault(site(), Some(&other)).unwrap().contains("it is version 7, and its update said 8"));
    let other = Outcome { board: "rpi4".to_owned(), ..outcome() };
    assert!(fault(site(), Some(&other)).unwrap().contains("the board rpi3, and its update said rpi4"));
    assert!(fault(Site { is_kept: false, ..site() }, None).unwrap().contains("the data partition"));
}
