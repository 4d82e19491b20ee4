//! Deploys to a folder: `ssh` is a script that runs the command here, and what it finds on its search path is made up: a package is a
//! file with its version in it, and versions with `bad` in their names are never well.

use super::*;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;

/// Writes the steps of a deploy down, with their numbers. Before the one that `cut` says the power goes: whoever has called it ends at
/// once, and it does nothing.
const STEP: &str = "if [ -f $ROOT/cut ]; then\n\
    read -r cut <$ROOT/cut; read -r number <$ROOT/number; number=$((number + 1)); echo $number >$ROOT/number\n\
    case \"$number ${0##*/} $1\" in $cut) kill -KILL $PPID; exit 1 ;; esac\n\
    echo \"$number ${0##*/} $1\" >>$ROOT/steps; fi";

/// Those before which the power may go.
const STEPS: [&str; 5] = ["dpkg", "systemctl", "portcullis", "mv", "sync"];

/// Programs of the gateway. `$ROOT` is put before them, and [`STEP`] before those that are steps.
const PROGRAMS: [(&str, &str); 11] = [
    ("id", "echo ${AS-$(cat $ROOT/user)}"),
    ("sudo", "[ \"$1\" = -n ] && [ -f $ROOT/trusted ] || exit 1\nshift\necho \"$1\" >>$ROOT/sudo\nAS=0 exec \"$@\""),
    (
        "dpkg",
        "for last; do :; done\ncase $1 in -r) rm -f $ROOT/installed ;; --print-architecture) echo arm64 ;; *) cp \"$last\" $ROOT/installed ;; esac",
    ),
    (
        "dpkg-query",
        "[ -f $ROOT/installed ] || exit 1\ncase $1 in -W) echo \"$(cat $ROOT/state) $(cat $ROOT/installed)\" ;; esac",
    ),
    (
        "dpkg-deb",
        "case $1 in -x) mkdir -p \"$3/usr/bin\"; cp $ROOT/bin/portcullis \"$3/usr/bin\" ;; -f) cat \"$2\" ;; --root-owner-group) cp $ROOT/installed \"$4\" ;; esac",
    ),
    ("systemctl", "echo \"$1\" >>$ROOT/systemctl"),
    (
        "portcullis",
        "case $1 in health) ;; *) exit 0 ;; esac\n\
         cat $ROOT/amiss 2>/dev/null && ill=1\n\
         grep -qs bad $ROOT/installed && ill=1 && echo '  listeners     NOT OK  none'\n\
         grep -rqs stuck $ROOT/etc/portcullis && ill=1\n\
         [ -z \"$ill\" ]",
    ),
    ("mv", "exec /bin/mv \"$@\""),
    ("sleep", ":"),
    ("sync", ":"),
    ("ssh", "for last; do :; done\nPATH=$ROOT/bin:$PATH exec sh -c \"$last\""),
];

/// A gateway in a folder, which goes away with this value.
struct Gateway(PathBuf);

impl Gateway {
    fn new(name: &str, installed: Option<&str>) -> Self {
        let root = std::env::temp_dir().join(format!("portcullis-deploy-{name}-{}", std::process::id()));
        workspace::remove_folder(&root).unwrap();
        for folder in ["bin", "etc/portcullis/secrets", "var/lib"] {
            workspace::make_folder(&root.join(folder)).unwrap();
        }
        for (program, text) in PROGRAMS {
            let path = root.join("bin").join(program);
            let step = if STEPS.contains(&program) { STEP } else { "" };
            workspace::write(&path, &format!("#!/bin/sh\nROOT={}\n{step}\n{text}\n", root.display())).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        if let Some(version) = installed {
            workspace::write(&root.join("installed"), version).unwrap();
        }
        workspace::write(&root.join("user"), "0").unwrap();
        workspace::write(&root.join("state"), "installed").unwrap();
        workspace::write(&root.join("etc/portcullis/listener.yaml"), "former").unwrap();
        workspace::write(&root.join("etc/portcullis/secrets/key"), "key").unwrap();
        Self(root)
    }

    /// Sends a version, and sources of one file if there are any.
    fn deploy(&self, version: &str, sources: Option<&str>) -> Outcome {
        let sent = self.0.join("sent");
        workspace::make_folder(&sent.join("sources")).unwrap();
        workspace::write(&sent.join("new.deb"), version).unwrap();
        let mut parts = vec!["new.deb"];
        if let Some(text) = sources {
            workspace::write(&sent.join("sources/listener.yaml"), text).unwrap();
            parts.push("sources");
        }
        let archive = self.0.join("sent.tar");
        process::run(Command::new("tar").arg("-cf").arg(&archive).arg("-C").arg(&sent).args(parts)).unwrap();
        install(&self.options(), &archive)
    }

    fn options(&self) -> Options {
        let mut options = parse(vec!["gateway".into(), "--seconds".into(), "2".into()]).unwrap().unwrap();
        options.ssh = self.0.join("bin/ssh");
        options.root = self.0.display().to_string();
        options
    }

    /// From now on it is not root who logs in, but somebody who may use sudo without a password, or may not.
    fn log_in_as_user(&self, is_trusted: bool) {
        workspace::write(&self.0.join("user"), "1000").unwrap();
        if is_trusted {
            workspace::write(&self.0.join("trusted"), "").unwrap();
        }
    }

    /// What is amiss whatever version runs.
    fn is_amiss(&self, checks: &[&str]) {
        let lines = checks.iter().map(|check| format!("  {check:12}  NOT OK  what was seen\n")).collect::<String>();
        workspace::write(&self.0.join("amiss"), &format!("Degraded, not ready\n  probe         ok      fine\n{lines}"))
            .unwrap();
    }

    /// Lets the power go before the step of the next deploy that this pattern of the shell says: `NUMBER PROGRAM FIRST-ARGUMENT`.
    fn lose_power_before(&self, step: &str) {
        for (name, text) in [("number", "0\n"), ("steps", ""), ("cut", step)] {
            workspace::write(&self.0.join(name), text).unwrap();
        }
    }

    /// The power is back, and stays. Whether a step with these words had been done.
    fn power_is_back(&self, words: &str) -> bool {
        fs::remove_file(self.0.join("cut")).unwrap();
        self.read("steps").contains(words)
    }

    fn read(&self, path: &str) -> String {
        fs::read_to_string(self.0.join(path)).unwrap_or_default()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn said(outcome: &Outcome) -> String {
    outcome.as_ref().err().map(ToString::to_string).unwrap_or_default()
}

#[test]
fn a_version_that_is_well_stays_and_the_one_before_is_kept() {
    let gateway = Gateway::new("well", Some("1"));
    gateway.deploy("2", None).unwrap();
    gateway.deploy("3", None).unwrap();
    assert_eq!(gateway.read("installed"), "3");
    assert_eq!(gateway.read("var/lib/portcullis-deploy/current.deb"), "3");
    assert_eq!(gateway.read("var/lib/portcullis-deploy/previous.deb"), "2");
}

#[test]
fn a_version_that_is_not_well_gives_way_to_the_one_before_with_its_configuration() {
    let gateway = Gateway::new("bad", Some("1"));
    assert!(said(&gateway.deploy("2-bad", None)).contains("the previous one is back"));
    assert_eq!(gateway.read("installed"), "1");
    assert!(said(&gateway.deploy("2", Some("stuck"))).contains("the previous one is back"));
    assert_eq!(gateway.read("installed"), "1");
    assert_eq!(gateway.read("etc/portcullis/listener.yaml"), "former");
    assert_eq!(gateway.read("etc/portcullis/secrets/key"), "key");
    gateway.deploy("2", Some("next")).unwrap();
    assert_eq!(gateway.read("etc/portcullis/listener.yaml"), "next");
    assert_eq!(gateway.read("etc/portcullis/secrets/key"), "key");
}

#[test]
fn power_that_goes_at_any_step_leaves_a_way_back_to_what_was_well() {
    let (mut ends_with_old, mut ends_with_new) = (0, 0);
    for step in 1.. {
        let gateway = Gateway::new(&format!("cut-{step}"), Some("1"));
        gateway.lose_power_before(&format!("{step} *"));
        let is_done = gateway.deploy("2", Some("next")).is_ok();
        // The first thing that is done once the new version is well.
        let is_known_well = gateway.power_is_back("/current.deb");
        let sources = gateway.read("etc/portcullis/listener.yaml");
        let is_whole = ["former", "next"].contains(&sources.as_str());
        let is_refused = gateway.0.join("etc/portcullis/unfinished.yaml").exists();
        assert!(is_whole || is_refused, "step {step}: half of the sources could be baked");
        assert_eq!(gateway.read("etc/portcullis/secrets/key"), "key");
        if is_done {
            break;
        }
        assert!(said(&gateway.deploy("3-bad", None)).contains("the previous one is back"), "step {step}");
        let expected = if is_known_well { ("2", "next") } else { ("1", "former") };
        let found = (gateway.read("installed"), gateway.read("etc/portcullis/listener.yaml"));
        assert_eq!((found.0.as_str(), found.1.as_str()), expected, "step {step}");
        assert_eq!(gateway.read("var/lib/portcullis-deploy/current.deb"), expected.0, "step {step}");
        for left in ["etc/portcullis/unfinished.yaml", "etc/portcullis.deploy", "var/lib/portcullis-deploy/begun"] {
            assert!(!gateway.0.join(left).exists(), "step {step}: {left}");
        }
        *(if is_known_well { &mut ends_with_new } else { &mut ends_with_old }) += 1;
    }
    assert!(ends_with_old > 8 && ends_with_new > 1, "{ends_with_old} {ends_with_new}");
}

/// A gateway whose power goes when a version and its sources have been put, before it is known whether they are well.
fn cut_off(name: &str, former: Option<&str>, version: &str) -> Gateway {
    let gateway = Gateway::new(name, former);
    gateway.lose_power_before("* systemctl restart");
    assert!(gateway.deploy(version, Some("next")).is_err());
    assert!(gateway.power_is_back(" dpkg --force"));
    assert_eq!(
        (gateway.read("installed").as_str(), gateway.read("etc/portcullis/listener.yaml").as_str()),
        (version, "next")
    );
    gateway
}

#[test]
fn a_deploy_that_was_cut_off_is_told_and_the_next_one_takes_its_place() {
    let gateway = cut_off("told-cut", Some("1"), "2");
    gateway.deploy("3", None).unwrap();
    let told = gateway.read("var/lib/portcullis-deploy/said");
    assert!(told.contains("the last deploy, of 2, was cut off") && told.contains("from 1 to 3"), "{told}");
    // Its sources were not known to be good either.
    assert_eq!(gateway.read("etc/portcullis/listener.yaml"), "former");
    assert_eq!(gateway.read("var/lib/portcullis-deploy/previous.deb"), "1");
    gateway.deploy("4", None).unwrap();
    let told = gateway.read("var/lib/portcullis-deploy/said");
    assert!(!told.contains("cut off") && told.contains("from 3 to 4"), "{told}");
}

#[test]
fn what_somebody_installed_after_a_deploy_was_cut_off_is_what_counts() {
    let gateway = cut_off("by-hand", Some("1"), "2");
    workspace::write(&gateway.0.join("installed"), "9").unwrap();
    assert!(said(&gateway.deploy("3-bad", None)).contains("the previous one is back"));
    assert_eq!(
        (gateway.read("installed").as_str(), gateway.read("etc/portcullis/listener.yaml").as_str()),
        ("9", "next")
    );
}

#[test]
fn a_first_deploy_that_was_cut_off_has_nothing_to_go_back_to() {
    let gateway = cut_off("first-cut", None, "1-bad");
    assert!(said(&gateway.deploy("2-bad", None)).contains("not well either"));
    assert_eq!(gateway.read("installed"), "");
}

#[test]
fn what_a_cut_off_deploy_has_broken_does_not_count_as_amiss_before() {
    let gateway = cut_off("amiss-cut", Some("1"), "2-bad");
    assert!(said(&gateway.deploy("3-bad", None)).contains("the previous one is back"));
    assert_eq!(gateway.read("installed"), "1");
}

#[test]
fn what_was_amiss_before_is_no_reason_to_go_back_and_anything_else_is() {
    let gateway = Gateway::new("amiss", Some("1"));
    gateway.is_amiss(&["certificates", "clock"]);
    gateway.deploy("2", None).unwrap();
    let told = gateway.read("var/lib/portcullis-deploy/said");
    assert!(told.contains("not well before: certificates clock"), "{told}");
    assert!(told.contains("as before, and no reason to go back: certificates clock"), "{told}");
    // What is made good meanwhile is good.
    gateway.is_amiss(&["clock"]);
    gateway.deploy("3", None).unwrap();
    assert!(said(&gateway.deploy("4-bad", None)).contains("the previous one is back"));
    assert_eq!(gateway.read("installed"), "3");
    // Who does not answer names nothing.
    fs::remove_file(gateway.0.join("amiss")).unwrap();
    assert!(said(&gateway.deploy("4", Some("stuck"))).contains("the previous one is back"));
}

#[test]
fn lists_of_what_is_revoked_stay_where_they_are() {
    let gateway = Gateway::new("revoked", Some("1"));
    workspace::make_folder(&gateway.0.join("etc/portcullis/revocation")).unwrap();
    workspace::write(&gateway.0.join("etc/portcullis/revocation/deny.yaml"), "mallory").unwrap();
    assert!(said(&gateway.deploy("2", Some("stuck"))).contains("the previous one is back"));
    gateway.deploy("2", Some("next")).unwrap();
    assert_eq!(gateway.read("etc/portcullis/revocation/deny.yaml"), "mallory");
    assert!(!gateway.0.join("var/lib/portcullis-deploy/previous-sources/revocation").exists());
}

#[test]
fn a_first_version_that_is_not_well_is_removed_again() {
    let gateway = Gateway::new("first", None);
    assert!(said(&gateway.deploy("1-bad", None)).contains("not well either"));
    assert_eq!(gateway.read("installed"), "");
    gateway.deploy("1", None).unwrap();
    assert_eq!(gateway.read("installed"), "1");
}

#[test]
fn while_one_deploy_goes_on_another_changes_nothing() {
    let gateway = Gateway::new("two", Some("1"));
    workspace::make_folder(&gateway.0.join("run")).unwrap();
    let mut holder = Command::new("flock");
    holder.arg(gateway.0.join("run/portcullis-deploy")).arg("cat").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut holder = holder.spawn().unwrap();
    let mut input = holder.stdin.take().unwrap();
    writeln!(input, "held").unwrap();
    let mut answer = [0; 4];
    holder.stdout.as_mut().unwrap().read_exact(&mut answer).unwrap();
    assert!(said(&gateway.deploy("2", None)).contains("nothing was changed"));
    assert_eq!(gateway.read("installed"), "1");
    drop(input);
    holder.wait().unwrap();
    gateway.deploy("2", None).unwrap();
    assert_eq!(gateway.read("installed"), "2");
}

#[test]
fn where_dpkg_was_interrupted_it_goes_back_to_what_was_well_last() {
    let gateway = Gateway::new("interrupted", Some("1"));
    workspace::write(&gateway.0.join("state"), "half-configured").unwrap();
    assert_eq!(Answers::ask(&gateway.options()).unwrap().version.as_deref(), Some("half-configured 1"));
    // Which was that?
    assert!(said(&gateway.deploy("3-bad", None)).contains("nothing was changed"));
    workspace::write(&gateway.0.join("var/lib/portcullis-deploy/current.deb"), "0").unwrap();
    assert!(said(&gateway.deploy("3-bad", None)).contains("the previous one is back"));
    assert_eq!(gateway.read("installed"), "0");
}

#[test]
fn what_the_gateway_says_is_kept_there() {
    let gateway = Gateway::new("told", Some("1"));
    gateway.deploy("2", None).unwrap();
    assert!(gateway.read("var/lib/portcullis-deploy/said").contains("gateway: 2 is well"));
}

#[test]
fn root_needs_no_sudo() {
    let gateway = Gateway::new("root", Some("1"));
    gateway.deploy("2", None).unwrap();
    assert_eq!((gateway.read("installed"), gateway.read("sudo")), ("2".to_owned(), String::new()));
}

#[test]
fn a_user_deploys_through_sudo_and_back() {
    let gateway = Gateway::new("user", Some("1"));
    gateway.log_in_as_user(true);
    gateway.deploy("2", Some("it's \"next\"")).unwrap();
    assert_eq!(gateway.read("installed"), "2");
    assert_eq!(gateway.read("etc/portcullis/listener.yaml"), "it's \"next\"");
    assert_eq!(gateway.read("sudo"), "sh\nsh\n");
    assert!(said(&gateway.deploy("3-bad", None)).contains("the previous one is back"));
    assert_eq!(gateway.read("installed"), "2");
}

#[test]
fn a_user_who_may_not_become_root_changes_nothing() {
    let gateway = Gateway::new("stranger", Some("1"));
    gateway.log_in_as_user(false);
    assert!(said(&gateway.deploy("2", None)).contains("nothing was changed"));
    assert_eq!(gateway.read("installed"), "1");
    assert!(!gateway.0.join("var/lib/portcullis-deploy").exists());
}

#[test]
fn a_gateway_is_asked_what_it_has_and_whether_it_can_be_changed() {
    let gateway = Gateway::new("asked", Some("1"));
    let answers = |version: Option<&str>, allows_root| Answers {
        architecture: "arm64".to_owned(),
        version: version.map(str::to_owned),
        allows_root,
    };
    let asked = |gateway: &Gateway| Answers::ask(&gateway.options()).unwrap();
    assert_eq!(asked(&gateway), answers(Some("1"), true));
    gateway.log_in_as_user(false);
    assert_eq!(asked(&gateway), answers(Some("1"), false));
    gateway.log_in_as_user(true);
    fs::remove_file(gateway.0.join("installed")).unwrap();
    assert_eq!(asked(&gateway), answers(None, true));
}

#[test]
fn a_host_is_needed_and_is_no_option() {
    assert!(parse(vec![]).is_err());
    assert!(parse(vec!["--".into(), "-oProxyCommand=x".into()]).is_err());
    let options = parse(vec!["pi@gateway".into(), "--dry-run".into()]).unwrap().unwrap();
    assert!(options.dry_run && options.host == "pi@gateway" && options.seconds == 60);
}
